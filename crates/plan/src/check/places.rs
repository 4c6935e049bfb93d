//! Tenants, sites, tokens: who and where.

use std::collections::BTreeSet;

use api::{Object, Problem, Role, SiteSpec, TenantSpec, TokenSpec};
use base::SiteName;

use super::{bad, check_count, dangling, ports};
use crate::{UplinkSource, World, world::pop};

/// Uplinks of a gateway: to each of its PoPs it keeps a link over each.
const MOST_UPLINKS: usize = 8;

pub(super) fn tenant(world: &World, object: &Object, spec: &TenantSpec) -> Result<(), Problem> {
    if spec.public_hosts.len() > 1000 {
        return Err(bad("/spec/publicHosts", "1,000 hosts at most"));
    }
    for (at, host) in spec.public_hosts.iter().enumerate() {
        let others = world
            .tenants()
            .filter(|(o, _)| o.metadata.name != object.metadata.name);
        let taken = others
            .flat_map(|(_, other)| &other.public_hosts)
            .any(|other| other.covers(host) || host.covers(other));
        if taken {
            let title = format!("{host} belongs to another tenant");
            let pointer = format!("/spec/publicHosts/{at}");
            return Err(Problem {
                status: 409,
                ..Problem::field("host-taken", pointer, title)
            });
        }
    }
    let name = &object.metadata.name;
    for (lb, lb_spec) in world.load_balancers() {
        let lost = lb_spec
            .hosts
            .iter()
            .find(|host| !spec.public_hosts.iter().any(|p| p.covers(host)));
        if let (Some(host), true) = (lost, lb.metadata.tenant.as_ref() == Some(name)) {
            let title = format!("{host} is still published by {}", lb.key());
            return Err(Problem {
                status: 409,
                ..Problem::field("in-use", "/spec/publicHosts", title)
            });
        }
    }
    Ok(())
}

pub(super) fn token(world: &World, object: &Object, spec: &TokenSpec) -> Result<(), Problem> {
    let site = SiteName {
        tenant: object.key().site_name().tenant,
        site: spec.site.clone(),
    };
    let Some((_, site)) = world.site(&site) else {
        return Err(dangling("/spec/site", "site", spec.site.as_str()));
    };
    match &spec.node {
        Some(node) if !site.nodes.iter().any(|n| n.name == *node) => {
            return Err(dangling("/spec/node", "node", node.as_str()));
        }
        None if site.nodes.len() > 1 => {
            return Err(bad(
                "/spec/node",
                "the site has several nodes: say which one is admitted",
            ));
        }
        Some(_) | None => {}
    }
    let seconds = spec.valid_for.0.as_secs();
    if !(1..=7 * 86_400).contains(&seconds) {
        return Err(bad("/spec/validFor", "from 1s to a week (168h)"));
    }
    Ok(())
}

pub(super) fn site(world: &World, object: &Object, spec: &SiteSpec) -> Result<(), Problem> {
    let is_pop = spec.role == Role::Pop;
    if is_pop && object.metadata.tenant.is_some() {
        return Err(bad(
            "/metadata/tenant",
            "a PoP belongs to no tenant: remove it, or use role gateway",
        ));
    }
    if !is_pop && object.metadata.tenant.is_none() {
        return Err(bad(
            "/metadata/tenant",
            "a gateway belongs to a tenant: name it",
        ));
    }
    if !is_pop && world.site(&pop(&object.metadata.name)).is_some() {
        return Err(bad("/metadata/name", "a PoP has this name: choose another"));
    }
    let own = object.key().site_name();
    if is_pop
        && world
            .sites()
            .any(|(name, ..)| name != own && name.site == own.site)
    {
        return Err(bad(
            "/metadata/name",
            "a gateway has this name: choose another",
        ));
    }
    if !(1..=16).contains(&spec.attach.count) {
        return Err(bad("/spec/attach/count", "1 to 16"));
    }
    if !is_pop && spec.location.is_some() {
        return Err(bad("/spec/location", "only of a PoP: remove it"));
    }
    if is_pop && spec.mesh.is_full() {
        return Err(bad("/spec/mesh", "only of a gateway: remove it"));
    }
    pop_selector(world, spec)?;
    uplinks(spec)?;
    check_count("/spec/nodes", spec.nodes.len(), 64)?;
    let mut names = BTreeSet::new();
    for (at, node) in spec.nodes.iter().enumerate() {
        let here = format!("/spec/nodes/{at}");
        if !names.insert(&node.name) {
            return Err(bad(
                here + "/name",
                format!("two nodes are called {}", node.name),
            ));
        }
        match (&node.tunnel, is_pop) {
            (None, true) => return Err(bad(here, "a PoP's node needs tunnel.bind")),
            (Some(_), false) if !spec.mesh.is_full() => {
                return Err(bad(
                    here + "/tunnel",
                    "a gateway listens to nothing: remove it, or say mesh: { topology: full }",
                ));
            }
            (Some(tunnel), true | false) => {
                check_count(&format!("{here}/tunnel/bind"), tunnel.bind.len(), 16)?;
                if tunnel.advertise.len() > 10_000 {
                    return Err(bad(here + "/tunnel/advertise", "10,000 entries at most"));
                }
            }
            (None, false) => {}
        }
        if let Some(senders) = &node.proxy_protocol {
            crate::placement::senders(senders).map_err(|wrong| {
                let pointer = format!("{here}/proxyProtocol{}", wrong.pointer);
                bad(pointer, wrong.title)
            })?;
        }
        if let Some(public) = &node.public {
            if !is_pop {
                return Err(bad(
                    here + "/public",
                    "a gateway listens to nothing: remove it",
                ));
            }
            check_count(&format!("{here}/public/bind"), public.bind.len(), 64)?;
            if let Some(port) = public.port_map.iter().find(|(a, b)| **a == 0 || **b == 0) {
                return Err(bad(
                    here + "/public/portMap",
                    format!("{} → {}: no port is 0", port.0, port.1),
                ));
            }
            let mut sockets = BTreeSet::new();
            if let Some(socket) = public.port_map.values().find(|s| !sockets.insert(**s)) {
                let title = format!("two ports lead to {socket}: a socket stands for one");
                return Err(bad(here + "/public/portMap", title));
            }
        }
    }
    if let Some((at, port)) = ports::overlapped(world, &own, spec) {
        let pointer = format!("/spec/nodes/{at}/public/portMap");
        let title = format!("{port} is offered here as it is: lead no other port there");
        return Err(Problem {
            status: 409,
            ..Problem::field("in-use", pointer, title)
        });
    }
    Ok(())
}

fn pop_selector(world: &World, spec: &SiteSpec) -> Result<(), Problem> {
    let Some(selector) = &spec.attach.pop_selector else {
        return Ok(());
    };
    let here = "/spec/attach/popSelector";
    if spec.role == Role::Pop {
        return Err(bad(here, "only of a gateway: remove it"));
    }
    if let Err((pointer, title)) = selector.check() {
        return Err(bad(format!("{here}{pointer}"), title));
    }
    let mut pops = world.sites().filter(|(name, ..)| name.is_pop());
    if !pops.any(|(_, pop, _)| selector.selects(&pop.metadata.labels)) {
        return Err(bad(
            here,
            "no PoP has such labels: it would be attached to none",
        ));
    }
    Ok(())
}

fn uplinks(spec: &SiteSpec) -> Result<(), Problem> {
    if spec.role == Role::Pop && !spec.uplinks.is_empty() {
        return Err(bad("/spec/uplinks", "only a gateway has them: remove it"));
    }
    if !spec.uplinks.is_empty() {
        check_count("/spec/uplinks", spec.uplinks.len(), MOST_UPLINKS)?;
    }
    let mut names = BTreeSet::new();
    for (at, uplink) in spec.uplinks.iter().enumerate() {
        let here = format!("/spec/uplinks/{at}");
        if !names.insert(&uplink.name) {
            return Err(bad(
                here + "/name",
                format!("two uplinks are called {}", uplink.name),
            ));
        }
        if UplinkSource::parse(&uplink.source).is_none() {
            return Err(bad(
                here + "/source",
                "an interface such as `eth0`, or an address of the node",
            ));
        }
        if !(1..=1000).contains(&uplink.cost) {
            return Err(bad(here + "/cost", "1 to 1000"));
        }
    }
    Ok(())
}
