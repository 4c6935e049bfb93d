//! Who has which port, and where.

use std::collections::{BTreeMap, BTreeSet};

use api::{LbType, LoadBalancerSpec, Object, Problem};
use base::SiteName;

use super::bad;
use crate::{
    World,
    project::{offered_at, vips_at},
};

/// What a load balancer wants of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// To share it by host.
    Plain,
    /// To share it by server name.
    Tls,
    /// To have it alone.
    Whole,
    /// To share its datagrams by server name.
    Quic,
    /// To have the datagrams alone.
    Datagrams,
}

impl Claim {
    /// Can one port not be both?
    fn excludes(self, other: Claim) -> bool {
        match (self, other) {
            (Claim::Quic, Claim::Quic) => false,
            (Claim::Quic | Claim::Datagrams, Claim::Quic | Claim::Datagrams) => true,
            (Claim::Quic | Claim::Datagrams, _) | (_, Claim::Quic | Claim::Datagrams) => false,
            (Claim::Whole, _) | (_, Claim::Whole) => true,
            (Claim::Plain | Claim::Tls, Claim::Plain | Claim::Tls) => self != other,
        }
    }
}

fn claims(spec: &LoadBalancerSpec) -> impl Iterator<Item = (u16, Claim)> {
    let own = match spec.kind {
        LbType::Http => Claim::Plain,
        LbType::Tls => Claim::Tls,
        LbType::Tcp | LbType::Connect => Claim::Whole,
        LbType::Udp => Claim::Datagrams,
    };
    let ports = spec.ports().iter().map(move |port| (*port, own));
    let tls = spec.tls_ports().iter().map(|port| (*port, Claim::Tls));
    let quic = spec.tls_ports().iter().filter(|_| spec.http3());
    ports
        .chain(tls)
        .chain(quic.map(|port| (*port, Claim::Quic)))
}

/// All logical ports of a load balancer.
pub(super) fn of(spec: &LoadBalancerSpec) -> Vec<u16> {
    let (ports, tls) = (spec.ports(), spec.tls_ports());
    ports.iter().chain(tls).copied().collect()
}

/// Those to which connections come.
fn connections(spec: &LoadBalancerSpec) -> impl Iterator<Item = u16> {
    let of = |claim| matches!(claim, Claim::Plain | Claim::Tls | Claim::Whole);
    let claims = claims(spec).filter(move |(_, claim)| of(*claim));
    claims.map(|(port, _)| port)
}

/// Those to which datagrams come.
fn datagrams(spec: &LoadBalancerSpec) -> impl Iterator<Item = u16> {
    let of = |claim| matches!(claim, Claim::Quic | Claim::Datagrams);
    let claims = claims(spec).filter(move |(_, claim)| of(*claim));
    claims.map(|(port, _)| port)
}

pub(super) fn check(
    world: &World,
    object: &Object,
    spec: &LoadBalancerSpec,
) -> Result<(), Problem> {
    let (ports, tls) = (spec.ports(), spec.tls_ports());
    if ports.is_empty() && tls.is_empty() {
        let title = match spec.kind {
            LbType::Http => "no port at all: name one here or under tls",
            LbType::Tcp | LbType::Tls | LbType::Udp | LbType::Connect => "no port at all: name one",
        };
        return Err(bad("/spec/ports", title));
    }
    if ports.len() + tls.len() > 16 {
        return Err(bad("/spec/ports", "16 ports at most"));
    }
    if ports.iter().chain(tls).any(|port| *port == 0) {
        return Err(bad("/spec/ports", "1 to 65535"));
    }
    for (pointer, list) in [("/spec/ports", ports), ("/spec/tls/ports", tls)] {
        let twice = (1..list.len()).find(|at| list[..*at].contains(&list[*at]));
        if let Some(at) = twice {
            return Err(bad(pointer, format!("{} is named twice", list[at])));
        }
    }
    if let Some(port) = ports.iter().find(|port| tls.contains(port)) {
        let title = format!("{port} is in plain text already");
        return Err(bad("/spec/tls/ports", title));
    }
    let key = object.key();
    for (other, theirs) in world.load_balancers().filter(|(o, _)| o.key() != key) {
        free(world, (object, spec), (other, theirs))?;
    }
    sockets(world, object, spec)
}

/// May both load balancers be? The other is not named: it may be another tenant's.
fn free(
    world: &World,
    (object, spec): (&Object, &LoadBalancerSpec),
    (other, theirs): (&Object, &LoadBalancerSpec),
) -> Result<(), Problem> {
    for (port, claim) in claims(spec) {
        let mut against = claims(theirs);
        let against = against.find(|(taken, other)| *taken == port && claim.excludes(*other));
        let Some((_, other_claim)) = against else {
            continue;
        };
        // Who shares ports agrees on them everywhere.
        let share = |claim| matches!(claim, Claim::Plain | Claim::Tls);
        let title = if share(claim) && share(other_claim) {
            format!("port {port} is taken with the other of TLS and plain text")
        } else if meet(world, (object, spec), (other, theirs)) {
            format!("port {port} is taken where this is advertised: choose another")
        } else {
            continue;
        };
        return Err(taken(title));
    }
    Ok(())
}

fn taken(title: String) -> Problem {
    Problem {
        status: 409,
        ..Problem::field("port-taken", "/spec/ports", title)
    }
}

/// Have both an address in common: those of a PoP, or a VIP of one tenant?
fn meet(
    world: &World,
    (object, spec): (&Object, &LoadBalancerSpec),
    (other, theirs): (&Object, &LoadBalancerSpec),
) -> bool {
    world.sites().any(|(site, ..)| {
        if site.is_pop() {
            return offered_at(object, spec, &site) && offered_at(other, theirs, &site);
        }
        let vips = vips_at(object, spec, &site);
        vips_at(other, theirs, &site)
            .iter()
            .any(|vip| vips.contains(vip))
    })
}

/// Two logical ports must not lead to one socket of a PoP, where a port may be mapped onto one
/// that is offered as it is.
fn sockets(world: &World, object: &Object, spec: &LoadBalancerSpec) -> Result<(), Problem> {
    for (site, _, place) in world.sites().filter(|(site, ..)| site.is_pop()) {
        if !offered_at(object, spec, &site) {
            continue;
        }
        let mut used: Option<BTreeSet<u16>> = None;
        if datagrams(spec).next().is_some() {
            let all = datagrams_at(world, &site, Some(object));
            used = Some(all.chain(datagrams(spec)).collect());
        }
        for public in place.nodes.iter().filter_map(|node| node.public.as_ref()) {
            let mapped = |port: u16| {
                let mut map = public.port_map.iter();
                map.any(|(from, to)| *from != port && *to == port)
            };
            // A port that is mapped away leaves its own number free.
            let bound = |port: &u16| !public.port_map.contains_key(port) && mapped(*port);
            let both = used.as_ref().and_then(|used| clash(used, &public.port_map));
            let mut ports = connections(spec);
            if let Some(port) = ports.find(|port| bound(port)).or(both) {
                let title = format!(
                    "port {port} is taken at {site}, whose portMap leads another port there: \
                     choose another"
                );
                return Err(taken(title));
            }
        }
    }
    Ok(())
}

/// Those to which datagrams come at a PoP, but for this load balancer.
fn datagrams_at<'w>(
    world: &'w World,
    site: &'w SiteName,
    but: Option<&Object>,
) -> impl Iterator<Item = u16> + use<'w> {
    let but = but.map(Object::key);
    let all = world.load_balancers();
    let all = all.filter(move |(object, spec)| {
        but.as_ref() != Some(&object.key()) && offered_at(object, spec, site)
    });
    all.flat_map(|(_, spec)| datagrams(spec))
}

/// The socket to which two of these ports lead. One that stands for connections may be free for
/// datagrams.
fn clash(used: &BTreeSet<u16>, map: &BTreeMap<u16, u16>) -> Option<u16> {
    let led = map
        .iter()
        .filter(|(from, to)| from != to && used.contains(from));
    let mut sockets = led.map(|(_, to)| *to);
    sockets.find(|to| used.contains(to) && !map.contains_key(to))
}

/// The first port that load balancers use as it is at this PoP and that a node's `portMap` (the
/// index of the node) now leads another port to.
pub(super) fn overlapped(
    world: &World,
    site: &SiteName,
    place: &api::SiteSpec,
) -> Option<(usize, u16)> {
    let offers = world.load_balancers();
    let offers = offers.filter(|(object, spec)| offered_at(object, spec, site));
    let used: Vec<u16> = offers.flat_map(|(_, spec)| connections(spec)).collect();
    let both: BTreeSet<u16> = datagrams_at(world, site, None).collect();
    place.nodes.iter().enumerate().find_map(|(at, node)| {
        let map = &node.public.as_ref()?.port_map;
        let into = map.iter().filter(|(from, to)| from != to);
        let mut into = into.map(|(_, to)| *to);
        let found = into.find(|to| used.contains(to) && !map.contains_key(to));
        found.or_else(|| clash(&both, map)).map(|port| (at, port))
    })
}
