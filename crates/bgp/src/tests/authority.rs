//! An attack for each sentence of what a node may say.

use base::{NodeId, SiteId, SlotId};

use super::{endpoint, fabric::gateway, health, table, target};
use crate::{
    Key, PeerConfig, Rd, Refusal, RouteTarget, SiteHealth, SiteTable, State, Value,
    peer::negotiate,
    table::{PeerIndex, Shard, ShardConfig},
    wire::{Family, Section, encode, put_attribute},
};

/// The attributes of a route.
#[derive(Clone, Default)]
struct Attributes {
    next_hop: NodeId,
    originator: Option<NodeId>,
    clusters: Vec<NodeId>,
    as_path: Vec<u8>,
    route_targets: Vec<RouteTarget>,
}

impl Attributes {
    fn octets(&self) -> Vec<u8> {
        let mut out = vec![0x40, 1, 1, 0];
        put_attribute(&mut out, 0x40, 2, &self.as_path);
        put_attribute(&mut out, 0x40, 5, &[0, 0, 0, 100]);
        if let Some(originator) = self.originator {
            put_attribute(&mut out, 0x80, 9, &originator.0.to_be_bytes());
        }
        if !self.clusters.is_empty() {
            let all = self.clusters.iter().flat_map(|id| id.0.to_be_bytes());
            put_attribute(&mut out, 0x80, 10, &all.collect::<Vec<u8>>());
        }
        put_attribute(&mut out, 0x80, 14, &self.next_hop.0.to_be_bytes());
        let targets = self.route_targets.iter().flat_map(|rt| rt.to_community());
        put_attribute(&mut out, 0xC0, 16, &targets.collect::<Vec<u8>>());
        out
    }
}

fn attributes(next_hop: u32, tenant: u32) -> Attributes {
    Attributes {
        next_hop: NodeId(next_hop),
        route_targets: vec![target(tenant, RouteTarget::SERVICE)],
        ..Attributes::default()
    }
}

fn site_route(site: u32) -> (Key, Value) {
    let rd = super::rd(site);
    let site = SiteId(site);
    let health = SiteHealth {
        state: State::Healthy,
        ..SiteHealth::default()
    };
    (Key::Site { rd, site }, Value::site(&health))
}

/// What node 100 makes of one route from this neighbour.
fn judge(peer: PeerConfig, route: (Key, Value), a: Attributes) -> Option<Refusal> {
    judge_by(table(), peer, route, a)
}

fn judge_by(
    table: SiteTable,
    peer: PeerConfig,
    (key, value): (Key, Value),
    a: Attributes,
) -> Option<Refusal> {
    let mut shard = Shard::new(ShardConfig {
        asn: super::ASN,
        node: NodeId(100),
        families: vec![Family::MESH],
        seed: 1,
        deferred: false,
        holds_ends: false,
        watched: Vec::new(),
        tells_constraint: true,
    });
    let own = crate::FabricConfig::new(NodeId(100), super::ASN);
    let theirs = crate::FabricConfig::new(peer.node, super::ASN);
    let ours = peer.connection(&own);
    let terms = negotiate(
        &ours,
        &ours.open(),
        &PeerConfig::pop(NodeId(100)).connection(&theirs).open(),
    );
    let index = PeerIndex(1);
    shard.set_site_table(table);
    shard.peer_up(index, peer.in_table(&terms.expect("they agree")));
    let mut octets = vec![key.kind()];
    key.encode(&mut octets);
    let key = octets;
    let mut octets = Vec::new();
    encode(Family::MESH, None, &key, value.as_bytes(), &mut octets);
    let section = Section {
        family: Family::MESH,
        add_path: false,
        octets: &octets,
    };
    let _ = shard.announce(index, &section, &a.octets(), |_| true);
    let (refused, _) = shard.judged(index);
    let reason = Refusal::ALL.into_iter().find(|r| refused[r.index()] > 0);
    assert_eq!(shard.route(Family::MESH, &key).is_none(), reason.is_some());
    reason
}

#[test]
fn a_gateway_speaks_only_for_itself() {
    let check = |key: Key, a: Attributes, expect: Option<Refusal>| {
        let got = judge(gateway(1, 11), (key.clone(), health(State::Healthy, 1)), a);
        assert_eq!(got, expect, "{key}");
    };
    let good = attributes(1, 1);
    let targets = |rts: Vec<RouteTarget>| Attributes {
        route_targets: rts,
        ..attributes(1, 1)
    };
    check(endpoint(11, 1), good.clone(), None);
    check(
        endpoint(11, 1),
        Attributes {
            originator: Some(NodeId(1)),
            ..good.clone()
        },
        None,
    );
    // Another site of its tenant, a site of another tenant, one that does not exist.
    check(endpoint(12, 1), good.clone(), Some(Refusal::ForeignSite));
    check(
        endpoint(21, 1),
        attributes(1, 2),
        Some(Refusal::ForeignSite),
    );
    check(endpoint(99, 1), good.clone(), Some(Refusal::ForeignSite));
    // Another tenant's route target, alone and beside its own; none; another kind of route.
    check(
        endpoint(11, 1),
        attributes(1, 2),
        Some(Refusal::RouteTarget),
    );
    check(
        endpoint(11, 1),
        targets(vec![target(1, 2), target(2, 2)]),
        Some(Refusal::RouteTarget),
    );
    check(
        endpoint(11, 1),
        targets(vec![target(0, 2)]),
        Some(Refusal::RouteTarget),
    );
    check(endpoint(11, 1), targets(vec![]), Some(Refusal::RouteTarget));
    check(
        endpoint(11, 1),
        targets(vec![target(1, 1)]),
        Some(Refusal::RouteTarget),
    );
    check(
        endpoint(11, 1),
        targets(vec![target(1, 0x8001)]),
        Some(Refusal::RouteTarget),
    );
    // Another originator, next hop or reflector than itself.
    let forged = Attributes {
        originator: Some(NodeId(2)),
        ..good.clone()
    };
    check(endpoint(11, 1), forged, Some(Refusal::Originator));
    check(endpoint(11, 1), attributes(2, 1), Some(Refusal::Originator));
    let reflected = Attributes {
        clusters: vec![NodeId(5)],
        ..good.clone()
    };
    check(endpoint(11, 1), reflected, Some(Refusal::Originator));
    // A slot it was not given; a key of another site under its own RD.
    let Key::Endpoint {
        service,
        network,
        address,
        port,
        protocol,
        ..
    } = endpoint(11, 1)
    else {
        unreachable!("an endpoint");
    };
    let key = |slot, site| Key::Endpoint {
        rd: Rd {
            site: SiteId(11),
            slot: SlotId(slot),
        },
        service,
        site: SiteId(site),
        network,
        address,
        port,
        protocol,
    };
    check(key(1, 11), good.clone(), Some(Refusal::Ungranted));
    check(key(0, 21), good, Some(Refusal::SiteMismatch));
}

#[test]
fn a_pop_is_held_to_the_table() {
    let check = |route: (Key, Value), a: Attributes, expect| {
        assert_eq!(judge(PeerConfig::pop(NodeId(5)), route, a), expect);
    };
    let healthy = |site| (endpoint(site, 1), health(State::Healthy, 1));
    let reflected = |tenant| Attributes {
        originator: Some(NodeId(1)),
        ..attributes(1, tenant)
    };
    check(healthy(11), reflected(1), None);
    check(healthy(21), reflected(2), None);
    check(healthy(21), reflected(1), Some(Refusal::RouteTarget));
    check(healthy(99), reflected(1), Some(Refusal::Ungranted));
    let fabric = Attributes {
        route_targets: vec![target(0, 1)],
        ..attributes(5, 0)
    };
    check(site_route(91), fabric.clone(), None);
    check(site_route(11), fabric, Some(Refusal::RouteTarget));
    let own = Attributes {
        originator: Some(NodeId(100)),
        ..attributes(1, 1)
    };
    check(healthy(11), own, Some(Refusal::Loop));
    let circle = Attributes {
        clusters: vec![NodeId(6), NodeId(100)],
        ..reflected(1)
    };
    check(healthy(11), circle, Some(Refusal::Loop));
    let as_path = [&[2, 1][..], &super::ASN.to_be_bytes()].concat();
    check(
        healthy(11),
        Attributes {
            as_path,
            ..reflected(1)
        },
        Some(Refusal::Loop),
    );
}

#[test]
fn a_gateway_hears_only_its_own_tenant() {
    let reflector = PeerConfig::reflector(NodeId(5), base::TenantId(1));
    let healthy = |site| (endpoint(site, 1), health(State::Healthy, 1));
    assert_eq!(
        judge(reflector.clone(), healthy(12), attributes(1, 1)),
        None
    );
    assert_eq!(
        judge(reflector.clone(), healthy(21), attributes(1, 2)),
        Some(Refusal::RouteTarget)
    );
    let fabric = Attributes {
        route_targets: vec![target(0, 1)],
        ..attributes(5, 0)
    };
    assert_eq!(judge(reflector, site_route(91), fabric.clone()), None);
}

#[test]
fn next_hops_are_nodes_of_the_site() {
    let mut table = table();
    let grant = table.sites.get_mut(&SiteId(11)).expect("in the table");
    grant.nodes = [NodeId(1)].into();
    for (node, refusal) in [(1, None), (3, Some(Refusal::NextHop))] {
        let route = (endpoint(11, 1), health(State::Healthy, 1));
        let pop = PeerConfig::pop(NodeId(5));
        assert_eq!(
            judge_by(table.clone(), pop, route, attributes(node, 1)),
            refusal
        );
    }
}

#[test]
fn every_type_has_its_selector() {
    for route in super::golden::routes() {
        for selector in [0, 1, 2, 3, 0x8001] {
            let a = Attributes {
                route_targets: vec![target(1, selector)],
                ..attributes(1, 1)
            };
            let fits = crate::mesh::bytes::selector_fits(route.key.kind(), selector);
            let got = judge(gateway(1, 11), (route.key.clone(), route.value.clone()), a);
            let want = if matches!(route.key, Key::Link { .. }) {
                // Of a site that a gateway has no link to.
                Some(Refusal::Ungranted)
            } else {
                (!fits).then_some(Refusal::RouteTarget)
            };
            assert_eq!(got, want, "{} under selector {selector}", route.key);
        }
    }
}

#[test]
fn a_link_belongs_to_the_site_that_measures() {
    let link = |from, to, tunnel| {
        let key = Key::Link {
            rd: super::rd(11),
            from: SiteId(from),
            to: SiteId(to),
            tunnel: crate::TunnelId(tunnel),
        };
        (key, Value::link(&crate::LinkHealth::default()))
    };
    let a = Attributes {
        route_targets: vec![target(1, RouteTarget::SITE)],
        ..attributes(1, 1)
    };
    let check = |route, expect| assert_eq!(judge(gateway(1, 11), route, a.clone()), expect);
    check(link(11, 91, 1), None);
    check(link(12, 91, 1), Some(Refusal::SiteMismatch));
    // To each PoP one, of the node that says so; to nobody else.
    check(link(11, 91, 2), Some(Refusal::Ungranted));
    check(link(11, 12, 1), Some(Refusal::Ungranted));
    check(link(11, 99, 1), Some(Refusal::Ungranted));
}

#[test]
fn what_a_pop_says_of_a_link_is_for_the_tenant_at_its_other_end() {
    let link = |to| {
        let key = Key::Link {
            rd: super::rd(91),
            from: SiteId(91),
            to: SiteId(to),
            tunnel: crate::TunnelId(0),
        };
        (key, Value::link(&crate::LinkHealth::default()))
    };
    let a = |tenant| Attributes {
        route_targets: vec![target(tenant, RouteTarget::SITE)],
        ..attributes(5, tenant)
    };
    let check = |to, tenant, expect| {
        let pop = PeerConfig::pop(NodeId(5));
        assert_eq!(judge(pop, link(to), a(tenant)), expect, "{to} {tenant}");
    };
    check(11, 1, None);
    check(21, 2, None);
    check(91, 0, None);
    check(11, 0, Some(Refusal::RouteTarget));
    check(11, 2, Some(Refusal::RouteTarget));
    check(91, 1, Some(Refusal::RouteTarget));
    check(99, 1, Some(Refusal::Ungranted));
    // A gateway's links are for its own tenant, whoever is at the other end.
    let key = Key::Link {
        rd: super::rd(11),
        from: SiteId(11),
        to: SiteId(91),
        tunnel: crate::TunnelId(1),
    };
    let route = (key, Value::link(&crate::LinkHealth::default()));
    let own = Attributes {
        route_targets: vec![target(1, RouteTarget::SITE)],
        ..attributes(1, 1)
    };
    assert_eq!(judge(gateway(1, 11), route.clone(), own), None);
    let fabric = Attributes {
        route_targets: vec![target(0, RouteTarget::SITE)],
        ..attributes(1, 0)
    };
    let refused = Some(Refusal::RouteTarget);
    assert_eq!(judge(gateway(1, 11), route, fabric), refused);
}
