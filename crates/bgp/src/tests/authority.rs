use base::{Instant, NodeId, SiteId, SlotId, TenantId};

use super::{announce, attributes, endpoint, gateway, health, pop, rib, table, target};
use crate::{
    Attributes, Export, Key, PeerConfig, Rd, Refusal, Rib, RouteTarget, SiteHealth, State, Value,
};

fn site_route(site: u32) -> (Key, Value) {
    let rd = Rd {
        site: SiteId(site),
        slot: SlotId(0),
    };
    (
        Key::Site {
            rd,
            site: SiteId(site),
        },
        Value::site(&SiteHealth {
            state: State::Healthy,
            ..SiteHealth::default()
        }),
    )
}

/// What a reflector makes of one route from this neighbour.
fn judge(peer: PeerConfig, route: (Key, Value), a: Attributes) -> Option<Refusal> {
    let mut rib = rib(100);
    let id = peer.id;
    rib.set_site_table(table());
    rib.peer_up(Instant::ZERO, peer);
    let key = route.0.clone();
    rib.handle_update(id, announce(a, vec![route]));
    let refused = rib.neighbor(id).expect("known").counters.refused;
    let reason = Refusal::ALL.into_iter().find(|r| refused[r.index()] > 0);
    assert_eq!(rib.best(&key).is_none(), reason.is_some());
    reason
}

#[test]
fn a_gateway_speaks_only_for_itself() {
    let check = |key: Key, a: Attributes, expect: Option<Refusal>| {
        let got = judge(
            gateway(1, 11, 1).1,
            (key.clone(), health(State::Healthy, 1)),
            a,
        );
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
        assert_eq!(judge(pop(5).1, route, a), expect);
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
    let reflector = PeerConfig::reflector(NodeId(5), TenantId(1));
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

    let allows = |key: &Key, a: &Attributes| Export::Tenant(TenantId(1)).allows(key, a);
    assert!(allows(&endpoint(12, 1), &attributes(1, 1)));
    assert!(!allows(&endpoint(21, 1), &attributes(1, 2)));
    assert!(allows(&site_route(91).0, &fabric));
    assert!(!allows(&endpoint(91, 1), &attributes(1, 0)));
}

#[test]
fn next_hops_are_nodes_of_the_site() {
    let mut table = table();
    let grant = table.sites.get_mut(&SiteId(11)).expect("in the table");
    grant.nodes = [NodeId(1)].into();
    let mut rib = rib(100);
    rib.set_site_table(table);
    let (id, config) = pop(5);
    rib.peer_up(Instant::ZERO, config);
    for (node, accepted) in [(1, true), (3, false)] {
        let update = announce(
            attributes(node, 1),
            vec![(endpoint(11, 1), health(State::Healthy, 1))],
        );
        rib.handle_update(id, update);
        assert_eq!(rib.best(&endpoint(11, 1)).is_some(), accepted);
    }
}

fn waiting(rib: &Rib, id: crate::PeerId) -> (usize, usize) {
    let view = rib.neighbor(id).expect("known");
    (view.routes, view.waiting)
}

#[test]
fn routes_wait_for_the_table() {
    let mut rib = rib(100);
    let (id, mut config) = gateway(1, 11, 1);
    config.max_waiting = 2;
    rib.peer_up(Instant::ZERO, config);
    let routes = |range: std::ops::Range<u8>| {
        range
            .map(|n| (endpoint(11, n), health(State::Healthy, 1)))
            .collect::<Vec<_>>()
    };
    rib.handle_update(id, announce(attributes(1, 1), routes(0..3)));
    assert_eq!(waiting(&rib, id), (2, 2));
    assert_eq!(rib.poll_change(), None);
    assert!(!rib.poll_refresh(id));
    rib.set_site_table(table());
    assert_eq!(waiting(&rib, id), (2, 0));
    assert!(rib.best(&endpoint(11, 0)).is_some() && rib.best(&endpoint(11, 2)).is_none());
    assert!(
        rib.poll_refresh(id),
        "what there was no room for is asked for again"
    );
    assert!(!rib.poll_refresh(id));

    // The grant is gone: the routes stop counting at once; it comes back: so do they.
    rib.set_site_table(crate::SiteTable::default());
    assert_eq!(
        (waiting(&rib, id), rib.best(&endpoint(11, 0))),
        ((2, 2), None)
    );
    rib.set_site_table(table());
    assert_eq!(waiting(&rib, id), (2, 0));
}

#[test]
fn a_neighbour_has_a_limit() {
    let mut rib = rib(100);
    rib.set_site_table(table());
    let (id, mut config) = gateway(1, 11, 1);
    config.max_routes = 3;
    rib.peer_up(Instant::ZERO, config);
    for seq in 1..3 {
        let routes = (0..5)
            .map(|n| (endpoint(11, n), health(State::Healthy, seq)))
            .collect();
        rib.handle_update(id, announce(attributes(1, 1), routes));
    }
    assert_eq!(waiting(&rib, id), (3, 0));
    assert_eq!(
        rib.neighbor(id).expect("known").counters.refused[Refusal::Limit.index()],
        4
    );
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
            let got = judge(
                gateway(1, 11, 1).1,
                (route.key.clone(), route.value.clone()),
                a,
            );
            let want = (!fits).then_some(Refusal::RouteTarget);
            assert_eq!(got, want, "{} under selector {selector}", route.key);
        }
    }
}

#[test]
fn a_link_belongs_to_the_site_that_measures() {
    let link = |from, to| {
        let key = Key::Link {
            rd: super::rd(11),
            from: SiteId(from),
            to: SiteId(to),
            tunnel: crate::TunnelId(0),
        };
        (key, Value::link(&crate::LinkHealth::default()))
    };
    let a = Attributes {
        route_targets: vec![target(1, RouteTarget::SITE)],
        ..attributes(1, 1)
    };
    let check = |route, expect| assert_eq!(judge(gateway(1, 11, 1).1, route, a.clone()), expect);
    check(link(11, 12), None);
    check(link(12, 11), Some(Refusal::SiteMismatch));
}
