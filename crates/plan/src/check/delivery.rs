//! Services, load balancers, certificates: what is offered.

use std::{collections::BTreeSet, time::Duration};

use api::{
    Advertise, CertificateSource, CertificateSpec, Filter, HealthCheck, HostPattern, Kind, LbType,
    LoadBalancerSpec, Object, Problem, Route, ServiceProtocol, ServiceSpec, SiteVip, Span,
};
use base::{Name, WallTime};
use http::HeaderValue;

use super::{bad, check_count, dangling, layer4, policies, ports, routers::is_host};
use crate::{
    World,
    compile::endpoint_addresses,
    world::{gateway, key, pop, scope},
};

/// The most that an endpoint can be said to take well.
const MOST_AT_A_TIME: u32 = 1_000_000;

pub(super) fn service(world: &World, object: &Object, spec: &ServiceSpec) -> Result<(), Problem> {
    let Some((tenant, namespace)) = scope(object) else {
        return Ok(());
    };
    if spec.port == 0 {
        return Err(bad("/spec/port", "1 to 65535"));
    }
    check_count("/spec/origins", spec.origins.len(), 1000)?;
    for (at, origin) in spec.origins.iter().enumerate() {
        let here = format!("/spec/origins/{at}");
        check_count(&format!("{here}/sites"), origin.sites.len(), 1000)?;
        for (i, site) in origin.sites.iter().enumerate() {
            if world.site_for(tenant, site).is_none() {
                return Err(dangling(
                    &format!("{here}/sites/{i}"),
                    "site",
                    site.as_str(),
                ));
            }
        }
        check_count(&format!("{here}/addresses"), origin.addresses.len(), 1000)?;
        if origin.weight == 0 {
            return Err(bad(here + "/weight", "1 to 255"));
        }
        if origin.port == Some(0) {
            return Err(bad(here + "/port", "1 to 65535"));
        }
        if origin
            .capacity
            .is_some_and(|capacity| !(1..=MOST_AT_A_TIME).contains(&capacity))
        {
            return Err(bad(here + "/capacity", "1 to 1000000"));
        }
        if let Err((i, title)) = endpoint_addresses(spec, origin) {
            return Err(bad(format!("{here}/addresses/{i}"), title));
        }
    }
    let id = pki::service_id(namespace, &object.metadata.name);
    let twin = world.services().find(|(other, _)| {
        scope(other).is_some_and(|(t, ns)| {
            t == tenant
                && (ns, &other.metadata.name) != (namespace, &object.metadata.name)
                && pki::service_id(ns, &other.metadata.name) == id
        })
    });
    if let Some((twin, _)) = twin {
        let title = format!(
            "gets the same service id as {}: choose another name",
            twin.key()
        );
        return Err(Problem {
            status: 409,
            ..Problem::field("id-collision", "/metadata/name", title)
        });
    }
    policies::attached(world, object, &spec.policies)?;
    layer4::service(world, object, spec)?;
    let below = |wrong: crate::route::Wrong| bad(format!("/spec{}", wrong.pointer), wrong.title);
    crate::placement::proxy(spec).map_err(below)?;
    crate::placement::placement(spec).map_err(below)?;
    let elsewhere = spec.health_check.port.is_some();
    let speaks = spec.protocol == ServiceProtocol::Http || elsewhere;
    if !speaks && spec.health_check.http.is_some() {
        let title = "speaks HTTP/1.1, which these endpoints do not: remove it, or name the port \
                     where they do";
        return Err(bad("/spec/healthCheck/http", title));
    }
    health_check(&spec.health_check)
}

fn health_check(check: &HealthCheck) -> Result<(), Problem> {
    let between = |field: &str, span: Span, least: Duration, most: Duration| {
        if (least..=most).contains(&span.0) {
            return Ok(());
        }
        let title = format!("{} to {}", Span(least), Span(most));
        Err(bad(format!("/spec/healthCheck/{field}"), title))
    };
    let ms = Duration::from_millis;
    between("interval", check.interval, ms(50), ms(300_000))?;
    between("timeout", check.timeout, ms(10), ms(60_000))?;
    for (field, n) in [("rise", check.rise), ("fall", check.fall)] {
        if !(1..=20).contains(&n) {
            return Err(bad(format!("/spec/healthCheck/{field}"), "1 to 20"));
        }
    }
    if check.port == Some(0) {
        return Err(bad("/spec/healthCheck/port", "1 to 65535"));
    }
    let Some(http) = &check.http else {
        return Ok(());
    };
    if !http.path.starts_with('/') || http.path.parse::<http::uri::PathAndQuery>().is_err() {
        return Err(bad(
            "/spec/healthCheck/http/path",
            "a path that begins with '/'",
        ));
    }
    if http
        .host
        .as_ref()
        .is_some_and(|h| HeaderValue::from_str(h).is_err() || h.contains(' '))
    {
        return Err(bad("/spec/healthCheck/http/host", "not a host"));
    }
    check_count("/spec/healthCheck/http/expect", http.expect.len(), 32)?;
    match http.expect.iter().find(|code| !(200..=599).contains(*code)) {
        Some(code) => Err(bad(
            "/spec/healthCheck/http/expect",
            format!("{code} is no final status: 200 to 599"),
        )),
        None => Ok(()),
    }
}

pub(super) fn load_balancer(
    world: &World,
    object: &Object,
    spec: &LoadBalancerSpec,
) -> Result<(), Problem> {
    let Some((tenant, namespace)) = scope(object) else {
        return Ok(());
    };
    match spec.kind {
        LbType::Http => check_count("/spec/hosts", spec.hosts.len(), 100)?,
        LbType::Tcp | LbType::Tls | LbType::Udp | LbType::Connect => {
            layer4::load_balancer(spec)?;
        }
    }
    let allowed = world.tenants().find(|(o, _)| o.metadata.name == *tenant);
    let allowed = allowed
        .map(|(_, t)| t.public_hosts.as_slice())
        .unwrap_or_default();
    let (key, own) = (object.key(), ports::of(spec));
    // Of the same tenant it may be at other ports.
    let is_taken = |host| {
        world.publishers(host).any(|(other, lb)| {
            other.key() != key
                && (other.metadata.tenant != object.metadata.tenant
                    || ports::of(lb).iter().any(|port| own.contains(port)))
        })
    };
    let mut seen = BTreeSet::new();
    for (at, host) in spec.hosts.iter().enumerate() {
        let pointer = format!("/spec/hosts/{at}");
        if !seen.insert(host) {
            return Err(bad(pointer, format!("{host} is named twice")));
        }
        if !allowed.iter().any(|pattern| pattern.covers(host)) {
            let title = format!(
                "tenant {tenant} may not publish {host}: add it to the Tenant's publicHosts"
            );
            return Err(Problem {
                status: 403,
                ..Problem::field("host-not-allowed", pointer, title)
            });
        }
        if is_taken(host) {
            let title = format!("{host} is published already by another load balancer");
            return Err(Problem {
                status: 409,
                ..Problem::field("host-taken", pointer, title)
            });
        }
    }
    ports::check(world, object, spec)?;
    check_count("/spec/advertise", spec.advertise.len(), 64)?;
    for (at, place) in spec.advertise.iter().enumerate() {
        match place {
            Advertise::Public(_) => {}
            Advertise::Sites(at_sites) => {
                let here = format!("/spec/advertise/{at}");
                vip(world, tenant, &here, at_sites)?;
            }
            Advertise::Pops(pops) => {
                check_count(&format!("/spec/advertise/{at}/pops"), pops.len(), 1000)?;
                for (i, name) in pops.iter().enumerate() {
                    if world.site(&pop(name)).is_none() {
                        let pointer = format!("/spec/advertise/{at}/pops/{i}");
                        return Err(dangling(&pointer, "PoP", name.as_str()));
                    }
                }
            }
        }
    }
    tls(world, tenant, namespace, spec)?;
    policies::attached(world, object, &spec.policies)?;
    policies::front(object, spec)?;
    check_count("/spec/routes", spec.routes.len(), 256)?;
    for (at, route) in spec.routes.iter().enumerate() {
        check_route(
            world,
            (tenant, namespace),
            spec.kind,
            &format!("/spec/routes/{at}"),
            route,
        )?;
    }
    Ok(())
}

/// An address at gateways.
fn vip(world: &World, tenant: &Name, here: &str, at: &SiteVip) -> Result<(), Problem> {
    check_count(&format!("{here}/sites"), at.sites.len(), 1000)?;
    for (i, name) in at.sites.iter().enumerate() {
        if world.site(&gateway(tenant, name)).is_none() {
            let pointer = format!("{here}/sites/{i}");
            return Err(dangling(&pointer, "gateway", name.as_str()));
        }
    }
    if is_host(at.vip) {
        Ok(())
    } else {
        Err(bad(
            format!("{here}/vip"),
            "an address that a host may have",
        ))
    }
}

fn tls(
    world: &World,
    tenant: &Name,
    namespace: &Name,
    spec: &LoadBalancerSpec,
) -> Result<(), Problem> {
    let Some(tls) = &spec.tls else { return Ok(()) };
    check_count("/spec/tls/certificates", tls.certificates.len(), 100)?;
    let mut covered: Vec<&HostPattern> = Vec::new();
    for (at, name) in tls.certificates.iter().enumerate() {
        let Some(certificate) = world.certificate(tenant, namespace, name) else {
            let pointer = format!("/spec/tls/certificates/{at}");
            return Err(dangling(&pointer, "certificate", name.as_str()));
        };
        covered.extend(&certificate.hosts);
    }
    if let Some(asked) = &tls.client_certificates {
        let here = "/spec/tls/clientCertificates";
        let trust = crate::clients::trust(asked);
        let trust = trust.map_err(|w| bad(format!("{here}{}", w.pointer), w.title))?;
        if trust.required && !spec.ports().is_empty() {
            let title = "in plain text nobody shows a certificate: write `ports: []`";
            return Err(bad("/spec/ports", title));
        }
    }
    match spec
        .hosts
        .iter()
        .find(|host| !covered.iter().any(|c| c.covers(host)))
    {
        Some(host) => {
            let title =
                format!("no certificate is for {host}: add one, or the host to one's hosts");
            Err(bad("/spec/tls/certificates", title))
        }
        None => Ok(()),
    }
}

fn check_route(
    world: &World,
    (tenant, namespace_of_it): (&Name, &Name),
    kind: LbType,
    here: &str,
    route: &Route,
) -> Result<(), Problem> {
    crate::route::parts(route)
        .map_err(|wrong| bad(format!("{here}{}", wrong.pointer), wrong.title))?;
    let known = |namespace: Option<&Name>, name: &Name, pointer: String| {
        let namespace = namespace.unwrap_or(namespace_of_it);
        let service = key(Kind::Service, tenant, Some(namespace), name);
        match world.find(&service) {
            Some(found) => {
                layer4::backend(world, kind, &service, &pointer)?;
                policies::open_to(world, namespace_of_it, found, pointer)
            }
            None => {
                let service = format!("{namespace}/{name}");
                Err(dangling(&pointer, "service", &service))
            }
        }
    };
    if route.backend_refs.len() > 64 {
        return Err(bad(format!("{here}/backendRefs"), "64 at most"));
    }
    for (at, backend) in route.backend_refs.iter().enumerate() {
        let pointer = format!("{here}/backendRefs/{at}/name");
        known(backend.namespace.as_ref(), &backend.name, pointer)?;
    }
    for (at, filter) in route.filters.iter().enumerate() {
        if let Filter::RequestMirror(mirror) = filter {
            let to = &mirror.backend_ref;
            let pointer = format!("{here}/filters/{at}/requestMirror/backendRef/name");
            known(to.namespace.as_ref(), &to.name, pointer)?;
        }
    }
    let weightless = route.backend_refs.iter().all(|backend| backend.weight == 0);
    if weightless && !route.backend_refs.is_empty() {
        return Err(bad(
            format!("{here}/backendRefs"),
            "every weight is 0: nothing could be picked",
        ));
    }
    Ok(())
}

pub(super) fn certificate(
    world: &World,
    object: &Object,
    spec: &CertificateSpec,
    now: WallTime,
) -> Result<(), Problem> {
    check_count("/spec/hosts", spec.hosts.len(), 100)?;
    still_covered(world, object, spec)?;
    match (spec.source, &spec.certificate, &spec.private_key) {
        (CertificateSource::SelfSigned, None, None) => Ok(()),
        (CertificateSource::SelfSigned, ..) => Err(bad(
            "/spec/source",
            "selfSigned makes its own key: remove certificate and privateKey",
        )),
        (CertificateSource::Pem, Some(chain), Some(key)) => {
            let pair = pki::check_pair(chain, key, now)
                .map_err(|e| bad(pair_pointer(&e), base::Chain(&e).to_string()))?;
            let names: Vec<HostPattern> =
                pair.hosts.iter().filter_map(|h| h.parse().ok()).collect();
            match spec
                .hosts
                .iter()
                .find(|host| !names.iter().any(|n| n.covers(host)))
            {
                Some(host) => {
                    let title = format!(
                        "the certificate is not for {host}, but for {}",
                        pair.hosts.join(", ")
                    );
                    Err(bad("/spec/hosts", title))
                }
                None => Ok(()),
            }
        }
        (CertificateSource::Pem, None, _) => Err(Problem::field(
            "missing-field",
            "/spec/certificate",
            "with source pem, give the chain",
        )),
        (CertificateSource::Pem, Some(_), None) => Err(Problem::field(
            "missing-field",
            "/spec/privateKey",
            "with source pem, give the key",
        )),
    }
}

/// A certificate that load balancers use may not lose a host that no other covers.
fn still_covered(world: &World, object: &Object, spec: &CertificateSpec) -> Result<(), Problem> {
    let Some((tenant, namespace)) = scope(object) else {
        return Ok(());
    };
    for (lb, lb_spec) in world.load_balancers() {
        let names = lb_spec.tls.iter().flat_map(|tls| &tls.certificates);
        let names: Vec<&Name> = names.collect();
        if scope(lb) != Some((tenant, namespace)) || !names.contains(&&object.metadata.name) {
            continue;
        }
        let others = names.iter().filter(|name| ***name != object.metadata.name);
        let others = others.filter_map(|name| world.certificate(tenant, namespace, name));
        let covered: Vec<&HostPattern> = others
            .flat_map(|other| &other.hosts)
            .chain(&spec.hosts)
            .collect();
        let lost = lb_spec
            .hosts
            .iter()
            .find(|host| !covered.iter().any(|c| c.covers(host)));
        if let Some(host) = lost {
            let title = format!("{host} is still served with it by {}", lb.key());
            return Err(Problem {
                status: 409,
                ..Problem::field("in-use", "/spec/hosts", title)
            });
        }
    }
    Ok(())
}

fn pair_pointer(error: &pki::PairError) -> &'static str {
    match error {
        pki::PairError::NoKey
        | pki::PairError::BadKeyPem(_)
        | pki::PairError::KeyTooLarge(_)
        | pki::PairError::BadKey(_)
        | pki::PairError::Mismatch => "/spec/privateKey",
        pki::PairError::NoCertificate
        | pki::PairError::BadChain(_)
        | pki::PairError::NotYetValid(_)
        | pki::PairError::Expired(_) => "/spec/certificate",
    }
}
