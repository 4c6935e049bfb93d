//! Load balancers that carry octets as they are, and the Services they lead to.

use api::{LbType, LoadBalancerSpec, Object, ObjectKey, Problem, Route, ServiceSpec, Spec};

use super::{bad, check_count};
use crate::{
    World,
    placement::{carries, words},
    project::backends,
};

/// What a load balancer of another type than `http` may say.
pub(super) fn load_balancer(spec: &LoadBalancerSpec) -> Result<(), Problem> {
    let kind = spec.kind.as_str();
    match spec.kind {
        LbType::Http => return Ok(()),
        LbType::Tcp | LbType::Udp if spec.hosts.is_empty() => {}
        LbType::Tcp | LbType::Udp => {
            let title = format!("nothing that comes over {kind} names a host: remove them");
            return Err(bad("/spec/hosts", title));
        }
        LbType::Tls => check_count("/spec/hosts", spec.hosts.len(), 100)?,
        LbType::Connect if spec.hosts.len() > 100 => {
            return Err(bad("/spec/hosts", "100 at most"));
        }
        LbType::Connect => {}
    }
    if spec.tls.is_some() {
        let title = format!("nothing is decrypted for type {kind}: remove it, or use type http");
        return Err(bad("/spec/tls", title));
    }
    for (field, said) in [
        ("policies", !spec.policies.is_empty()),
        ("rateLimit", spec.rate_limit.is_some()),
    ] {
        if said {
            let title = format!("goes with requests, which type {kind} does not see: remove it");
            return Err(bad(format!("/spec/{field}"), title));
        }
    }
    let [route] = &spec.routes[..] else {
        let title = format!("type {kind} has one route: nothing could choose among several");
        return Err(bad("/spec/routes", title));
    };
    if let Some(field) = said(route) {
        let title = format!("goes with requests, which type {kind} does not see: remove it");
        return Err(bad(format!("/spec/routes/0/{field}"), title));
    }
    if route.backend_refs.is_empty() {
        return Err(bad("/spec/routes/0/backendRefs", "name a Service"));
    }
    let weighed = |to: &api::BackendRef| to.weight != 1;
    if let Some(at) = route.backend_refs.iter().position(weighed)
        && spec.kind == LbType::Connect
    {
        let title = "clients say which Service they want: remove it";
        return Err(bad(
            format!("/spec/routes/0/backendRefs/{at}/weight"),
            title,
        ));
    }
    Ok(())
}

/// The first field of a route beside `name` and `backendRefs` that says something.
fn said(route: &Route) -> Option<&'static str> {
    let Route {
        name: _,
        matches,
        filters,
        backend_refs: _,
        timeouts,
        retry,
        buffer,
    } = route;
    [
        ("matches", !matches.is_empty()),
        ("filters", !filters.is_empty()),
        ("timeouts", *timeouts != <_>::default()),
        ("retry", retry.is_some()),
        ("buffer", buffer.is_some()),
    ]
    .into_iter()
    .find_map(|(field, said)| said.then_some(field))
}

/// Does the Service speak what the load balancer carries?
pub(super) fn backend(
    world: &World,
    kind: LbType,
    service: &ObjectKey,
    pointer: &str,
) -> Result<(), Problem> {
    let Some(Object {
        spec: Spec::Service(spec),
        ..
    }) = world.find(service)
    else {
        return Ok(());
    };
    if carries(kind, spec.protocol) {
        return Ok(());
    }
    let title = format!(
        "{}/{} speaks {}: a load balancer of type {} leads to {}",
        service.namespace.as_ref().map_or("", |name| name.as_str()),
        service.name,
        spec.protocol.as_str(),
        kind.as_str(),
        words(kind),
    );
    Err(bad(pointer, title))
}

/// A Service that load balancers lead to goes on speaking what they carry.
pub(super) fn service(world: &World, object: &Object, spec: &ServiceSpec) -> Result<(), Problem> {
    if !carries(LbType::Http, spec.protocol) && !spec.policies.is_empty() {
        let title = format!(
            "looks at requests, which nobody sees of protocol {}: remove it",
            spec.protocol.as_str()
        );
        return Err(bad("/spec/policies", title));
    }
    let key = object.key();
    let user = world.load_balancers().find(|(lb, theirs)| {
        !carries(theirs.kind, spec.protocol) && backends(lb, theirs).contains(&key)
    });
    match user {
        None => Ok(()),
        Some((lb, theirs)) => {
            let title = format!(
                "{} leads here, whose type {} goes with {}",
                lb.key(),
                theirs.kind.as_str(),
                words(theirs.kind),
            );
            Err(Problem {
                status: 409,
                ..Problem::field("in-use", "/spec/protocol", title)
            })
        }
    }
}
