//! Policies, and who names them.

use api::{
    Kind, LoadBalancerSpec, Object, ObjectKey, PolicyAction, PolicyEffect, Problem, Reference,
    ServicePolicySpec, Spec,
};
use base::Name;

use super::{bad, dangling};
use crate::{
    World, clients,
    service_policy::{keyed_by_claims, wants_tokens},
    world::{referred, scope},
};

/// The most policies of a LoadBalancer or a Service.
const MAX_ATTACHED: usize = 16;

pub(super) fn service_policy(
    world: &World,
    object: &Object,
    spec: &ServicePolicySpec,
) -> Result<(), Problem> {
    let read = crate::service_policy::policy(object, spec);
    read.map_err(|wrong| bad(wrong.pointer, wrong.title))?;
    let key = object.key();
    let (tokens, certificates) = (wants_tokens(spec), clients::wanted(spec));
    let users = || {
        world
            .objects()
            .values()
            .filter(|user| of(user).contains(&key))
    };
    if let Some(user) = users().find(|user| tokens && !has_tokens(user)) {
        let title = format!(
            "{} names it, where no token is verified: its rules cannot go by tokens",
            user.key()
        );
        return Err(bad("/spec/rules", title));
    }
    if let Some(user) = users().find(|user| certificates && !has_certificates(user)) {
        let title = format!(
            "{} names it, which asks its clients for no certificates: its rules cannot go by them",
            user.key()
        );
        return Err(bad("/spec/rules", title));
    }
    Ok(())
}

/// What stands in front of a LoadBalancer beside its policies.
pub(super) fn front(object: &Object, spec: &LoadBalancerSpec) -> Result<(), Problem> {
    let read = crate::jwt::verifier(&spec.jwt, &mut <_>::default());
    read.map_err(|wrong| bad(wrong.pointer, wrong.title))?;
    let Some(limit) = &spec.rate_limit else {
        return Ok(());
    };
    let read = crate::service_policy::rate_limited(object, limit);
    read.map_err(|wrong| bad(wrong.pointer, wrong.title))?;
    if keyed_by_claims(limit) && spec.jwt.is_empty() {
        let title = "goes by a claim, and no token is verified: say in `jwt` who issues them";
        return Err(bad("/spec/rateLimit/key", title));
    }
    Ok(())
}

/// Are tokens verified there?
fn has_tokens(object: &Object) -> bool {
    match &object.spec {
        Spec::LoadBalancer(spec) => !spec.jwt.is_empty(),
        Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => false,
        Spec::Service(_) | Spec::ServicePolicy(_) => false,
        Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => false,
    }
}

/// May clients be known by their certificates there? Of a Service the LoadBalancers say.
fn has_certificates(object: &Object) -> bool {
    match &object.spec {
        Spec::LoadBalancer(spec) => {
            let tls = spec.tls.as_ref();
            tls.is_some_and(|tls| tls.client_certificates.is_some())
        }
        Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => false,
        Spec::ServicePolicy(_) | Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => false,
        Spec::Service(_) => true,
    }
}

/// The policies that a LoadBalancer or a Service names exist, each once.
pub(super) fn attached(
    world: &World,
    object: &Object,
    policies: &[Reference],
) -> Result<(), Problem> {
    let Some((tenant, namespace)) = scope(object) else {
        return Ok(());
    };
    if policies.len() > MAX_ATTACHED {
        return Err(bad("/spec/policies", format!("{MAX_ATTACHED} at most")));
    }
    let key = |reference| referred(Kind::ServicePolicy, tenant, namespace, reference);
    for (at, reference) in policies.iter().enumerate() {
        let pointer = format!("/spec/policies/{at}");
        let this = key(reference);
        if policies[..at].iter().any(|other| key(other) == this) {
            return Err(bad(pointer, format!("{reference} is named twice")));
        }
        let Some((_, policy)) = world.service_policy(tenant, namespace, reference) else {
            return Err(dangling(&pointer, "policy", &reference.to_string()));
        };
        if wants_tokens(policy) && !has_tokens(object) {
            let title = if object.kind == Kind::LoadBalancer {
                "has rules that go by tokens: say in `jwt` who issues them"
            } else {
                "has rules that go by tokens, which only LoadBalancers verify: name it there"
            };
            return Err(bad(pointer, title));
        }
        if clients::wanted(policy) && !has_certificates(object) {
            let title = "has rules that go by clients' certificates: say in \
                         `tls.clientCertificates` who issues them";
            return Err(bad(pointer, title));
        }
    }
    Ok(())
}

/// The policies that an object names.
pub(super) fn of(object: &Object) -> Vec<ObjectKey> {
    let (Some((tenant, namespace)), policies) = (scope(object), named(object)) else {
        return Vec::new();
    };
    let keys = policies.iter();
    keys.map(|one| referred(Kind::ServicePolicy, tenant, namespace, one))
        .collect()
}

fn named(object: &Object) -> &[Reference] {
    match &object.spec {
        Spec::LoadBalancer(spec) => &spec.policies,
        Spec::Service(spec) => &spec.policies,
        Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => &[],
        Spec::ServicePolicy(_) | Spec::Certificate(_) => &[],
        Spec::BgpPeer(_) | Spec::Link(_) => &[],
    }
}

/// May a load balancer of namespace `from` lead to this service? That of a closed namespace has
/// to have a policy that allows something; what it allows, each request shows.
pub(super) fn open_to(
    world: &World,
    from: &Name,
    service: &Object,
    pointer: String,
) -> Result<(), Problem> {
    let Some((tenant, namespace)) = scope(service) else {
        return Ok(());
    };
    if namespace == from || world.closed(tenant, namespace).is_none() {
        return Ok(());
    }
    let allows = |reference: &Reference| {
        let policy = world.service_policy(tenant, namespace, reference);
        policy.is_some_and(|(_, spec)| {
            let allows = |action: &PolicyAction| matches!(action, PolicyAction::Allow(_));
            spec.effect == PolicyEffect::Enforce
                && spec.rules.iter().any(|rule| allows(&rule.action))
        })
    };
    if named(service).iter().any(allows) {
        return Ok(());
    }
    let name = &service.metadata.name;
    let title = format!(
        "namespace {namespace} is closed, and no policy of service {namespace}/{name} allows \
         anything: name one in its `policies`"
    );
    Err(Problem {
        status: 403,
        ..Problem::field("namespace-closed", pointer, title)
    })
}
