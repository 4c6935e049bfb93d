//! Does a resource make sense beside all others? The same rules for the API and for `--bundle`.
//!
//! What is accepted here compiles on every node; what is refused changes nothing.

mod delivery;
mod layer4;
mod links;
mod places;
mod policies;
mod ports;
mod routers;

use api::{Kind, Object, ObjectKey, Problem, Spec};
use base::{Name, SiteName, WallTime};

use crate::{
    World,
    project::backends,
    world::{far_end, is_own, key},
};

/// May `object` be put into `world`?
///
/// # Errors
/// The first rule it breaks, with a JSON Pointer to the field. Another tenant's objects are never
/// named.
pub fn check_put(world: &World, object: &Object, now: WallTime) -> Result<(), Problem> {
    let about = object.key().to_string();
    check_scope(world, object)
        .and_then(|()| match &object.spec {
            Spec::Tenant(spec) => places::tenant(world, object, spec),
            Spec::Namespace(_) => Ok(()),
            Spec::Token(spec) => places::token(world, object, spec),
            Spec::Site(spec) => places::site(world, object, spec),
            Spec::ServicePolicy(spec) => policies::service_policy(world, object, spec),
            Spec::Service(spec) => delivery::service(world, object, spec),
            Spec::LoadBalancer(spec) => delivery::load_balancer(world, object, spec),
            Spec::Certificate(spec) => delivery::certificate(world, object, spec, now),
            Spec::BgpPeer(spec) => routers::bgp_peer(world, object, spec),
            Spec::Link(spec) => links::link(world, object, spec),
        })
        .map_err(|problem| problem.about(about))
}

/// May the object be taken out of `world`?
///
/// # Errors
/// 409 `in-use`, naming what still refers to it.
pub fn check_delete(world: &World, gone: &ObjectKey) -> Result<(), Problem> {
    let user = world
        .objects()
        .values()
        .find(|o| o.key() != *gone && refers_to(world, o, gone));
    match user {
        None => Ok(()),
        Some(user) => {
            let title = format!("still used by {}: change or delete that first", user.key());
            Err(Problem::new(409, "in-use", title).about(gone.to_string()))
        }
    }
}

fn check_scope(world: &World, object: &Object) -> Result<(), Problem> {
    let metadata = &object.metadata;
    let reserved = |name: &Name| name.as_str() == SiteName::FABRIC;
    if object.kind == Kind::Tenant && reserved(&metadata.name) {
        let title = "the name \"fabric\" is reserved for the PoPs: choose another";
        return Err(Problem::field("reserved-name", "/metadata/name", title));
    }
    let Some(tenant) = &metadata.tenant else {
        return Ok(());
    };
    if reserved(tenant) {
        let title =
            "leave metadata.tenant out: Sites and Tokens without tenant belong to the fabric";
        return Err(Problem::field("reserved-name", "/metadata/tenant", title));
    }
    if !world.tenants().any(|(o, _)| o.metadata.name == *tenant) {
        return Err(dangling("/metadata/tenant", "tenant", tenant.as_str()));
    }
    let Some(namespace) = &metadata.namespace else {
        return Ok(());
    };
    if world
        .find(&key(Kind::Namespace, tenant, None, namespace))
        .is_none()
    {
        return Err(dangling(
            "/metadata/namespace",
            "namespace",
            namespace.as_str(),
        ));
    }
    Ok(())
}

fn refers_to(world: &World, object: &Object, gone: &ObjectKey) -> bool {
    let metadata = &object.metadata;
    match gone.kind {
        Kind::Tenant => metadata.tenant.as_ref() == Some(&gone.name),
        Kind::Namespace => {
            metadata.tenant == gone.tenant && metadata.namespace.as_ref() == Some(&gone.name)
        }
        Kind::Site => uses_site(world, object, &gone.site_name()),
        Kind::Service => match &object.spec {
            Spec::LoadBalancer(spec) => backends(object, spec).contains(gone),
            Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => false,
            Spec::ServicePolicy(_) | Spec::Service(_) => false,
            Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => false,
        },
        Kind::ServicePolicy => policies::of(object).contains(gone),
        Kind::Certificate => match &object.spec {
            Spec::LoadBalancer(spec) => {
                metadata.tenant == gone.tenant
                    && metadata.namespace == gone.namespace
                    && spec
                        .tls
                        .iter()
                        .any(|tls| tls.certificates.contains(&gone.name))
            }
            Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => false,
            Spec::ServicePolicy(_) | Spec::Service(_) => false,
            Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => false,
        },
        Kind::Token | Kind::LoadBalancer | Kind::BgpPeer | Kind::Link => false,
    }
}

fn uses_site(world: &World, object: &Object, site: &SiteName) -> bool {
    match &object.spec {
        Spec::Service(spec) => {
            let names = spec.origins.iter().flat_map(|origin| &origin.sites);
            let tenant = object.metadata.tenant.as_ref();
            names
                .filter_map(|name| world.site_for(tenant?, name))
                .any(|used| used == *site)
        }
        Spec::LoadBalancer(spec) => spec.advertise.iter().any(|place| match place {
            api::Advertise::Public(_) => false,
            api::Advertise::Pops(pops) => site.is_pop() && pops.contains(&site.site),
            api::Advertise::Sites(at) => at.sites.iter().any(|name| is_own(object, name, site)),
        }),
        Spec::BgpPeer(spec) => is_own(object, &spec.site, site),
        Spec::Link(spec) => far_end(world, object, spec, site).is_some(),
        Spec::Token(spec) => {
            object.key().site_name().tenant == site.tenant && spec.site == site.site
        }
        Spec::Tenant(_) | Spec::Namespace(_) | Spec::Site(_) => false,
        Spec::ServicePolicy(_) | Spec::Certificate(_) => false,
    }
}

fn dangling(pointer: &str, kind: &str, name: &str) -> Problem {
    Problem::field(
        "dangling-reference",
        pointer,
        format!("there is no {kind} {name:?}: create it first"),
    )
}

fn bad(pointer: impl Into<String>, title: impl Into<String>) -> Problem {
    Problem::field("bad-value", pointer, title)
}

/// At most `most` and at least one.
fn check_count(pointer: &str, count: usize, most: usize) -> Result<(), Problem> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(bad(
        pointer,
        format!("has {count} entries: 1 to {most} are possible"),
    ))
}

#[cfg(test)]
mod tests;
