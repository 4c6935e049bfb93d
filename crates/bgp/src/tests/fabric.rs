//! Nodes driven in memory through whole sessions.

use std::{collections::BTreeMap, time::Duration};

use base::{Instant, NodeId, SiteId, TenantId};

use super::{ASN, endpoint, health, local, table};
use crate::{
    Event, Fabric, FabricConfig, Key, LocalRoute, PeerConfig, PeerId, Refusal, Source, State,
    StreamId, Value, peer::Close,
};

const T0: Instant = Instant::ZERO;

pub(super) struct Net {
    pub(super) nodes: Vec<Fabric>,
    /// A stream: node and its neighbour, at both ends.
    streams: BTreeMap<u64, [usize; 2]>,
    pub(super) now: Instant,
    messages: usize,
    events: Vec<(usize, Event)>,
}

pub(super) fn gateway(node: u32, site: u32) -> PeerConfig {
    PeerConfig::gateway(NodeId(node), SiteId(site))
}

pub(super) fn node(id: u32) -> Fabric {
    let mut config = FabricConfig::new(NodeId(id), ASN);
    config.end_of_rib_delay = Duration::ZERO;
    Fabric::new(config, T0)
}

impl Net {
    pub(super) fn of(ids: &[u32]) -> Net {
        Net {
            nodes: ids.iter().map(|id| node(*id)).collect(),
            streams: BTreeMap::new(),
            now: T0,
            messages: 0,
            events: Vec::new(),
        }
    }

    /// 0 and 1 are PoPs (nodes 91, 92); 2 and 3 gateways of tenant 1 (sites 11, 12), 4 of
    /// tenant 2 (site 21); every gateway is a client of both PoPs.
    fn new() -> Net {
        let mut net = Net::of(&[91, 92, 1, 2, 3]);
        for fabric in &mut net.nodes {
            fabric.set_site_table(T0, table());
        }
        let pop = |id| PeerConfig::pop(NodeId(id));
        net.link((0, pop(92)), (1, pop(91)));
        for (at, id, site, tenant) in [(2, 1, 11, 1), (3, 2, 12, 1), (4, 3, 21, 2)] {
            for (hub, hub_id) in [(0, 91), (1, 92)] {
                let reflector = PeerConfig::reflector(NodeId(hub_id), TenantId(tenant));
                net.link((hub, gateway(id, site)), (at, reflector));
            }
        }
        net.settle();
        net
    }

    /// A stream between two nodes, each of which sees the other so.
    pub(super) fn link(&mut self, a: (usize, PeerConfig), b: (usize, PeerConfig)) -> u64 {
        let id = self.streams.last_key_value().map_or(1, |(id, _)| id + 1);
        self.streams.insert(id, [a.0, b.0]);
        for (at, peer) in [a, b] {
            self.nodes[at].connected(self.now, StreamId(id), peer);
        }
        id
    }

    pub(super) fn cut(&mut self, stream: u64) {
        for at in self.streams.remove(&stream).expect("a stream") {
            self.nodes[at].handle_closed(self.now, StreamId(stream));
        }
    }

    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            let before = self.messages;
            let mut busy = false;
            for fabric in &mut self.nodes {
                busy |= fabric.drive(self.now);
            }
            for (id, ends) in self.streams.clone() {
                for [from, to] in [ends, [ends[1], ends[0]]] {
                    while let Some(octets) = self.nodes[from].transmit(StreamId(id)) {
                        self.messages += 1;
                        self.nodes[to].handle_bytes(self.now, StreamId(id), &octets);
                    }
                }
            }
            self.listen();
            if self.messages == before && !busy {
                return;
            }
        }
        panic!("it never settles: something goes in a circle");
    }

    fn listen(&mut self) {
        for at in 0..self.nodes.len() {
            while let Some(event) = self.nodes[at].poll_event() {
                if let Event::Closed(id, _, last) = &event
                    && let Some(ends) = self.streams.remove(&id.0)
                {
                    let other = ends[usize::from(ends[0] == at)];
                    for octets in last {
                        self.nodes[other].handle_bytes(self.now, *id, octets);
                    }
                    self.nodes[other].handle_closed(self.now, *id);
                }
                self.events.push((at, event));
            }
        }
    }

    fn say(&mut self, at: usize, route: LocalRoute) {
        self.nodes[at].originate(&route);
        self.settle();
    }

    fn heard(&self, key: &Key) -> Vec<Option<Value>> {
        let best = |fabric: &Fabric| fabric.best(key).map(|route| route.value);
        self.nodes.iter().map(best).collect()
    }

    /// Let time pass to the next timer.
    fn wait(&mut self) {
        let next = self.nodes.iter().filter_map(Fabric::poll_timeout).min();
        self.now = next.expect("a timer").max(self.now);
        for fabric in &mut self.nodes {
            fabric.handle_timeout(self.now);
        }
        self.settle();
    }
}

#[test]
fn a_route_reaches_everybody_who_may_hear_it() {
    let mut net = Net::new();
    let all = net.nodes.iter().flat_map(Fabric::neighbors);
    assert!(
        all.clone().all(|view| view.up && view.synced),
        "{:?}",
        all.collect::<Vec<_>>()
    );
    let (key, up) = (endpoint(11, 1), health(State::Healthy, 1));
    net.say(2, local(key.clone(), up.clone(), 1));
    let everybody = |value: &Value| {
        let some = || Some(value.clone());
        [some(), some(), some(), some(), None]
    };
    assert_eq!(net.heard(&key), everybody(&up));
    let at_gateway = net.nodes[3].best(&key).expect("heard");
    assert_eq!(
        (at_gateway.originator, at_gateway.next_hop),
        (NodeId(1), NodeId(1))
    );
    // A PoP prefers the gateway's own word to the same word by way of the other PoP.
    let at_pop = net.nodes[0].routes(10).remove(0);
    assert_eq!(at_pop.paths[0].source, Source::Peer(PeerId(1)));
    assert_eq!(at_pop.paths.len(), 2);

    let down = health(State::Unhealthy, 2);
    net.say(2, local(key.clone(), down.clone(), 1));
    assert_eq!(net.heard(&key), everybody(&down));
    net.nodes[2].withdraw(&key);
    net.settle();
    assert_eq!(net.heard(&key), [None, None, None, None, None]);
    assert!(net.nodes.iter().all(Fabric::is_empty));
}

#[test]
fn nothing_goes_in_a_circle() {
    let mut net = Net::new();
    let before = net.messages;
    for n in 0..50 {
        net.nodes[2].originate(&local(endpoint(11, n), health(State::Healthy, 1), 1));
        net.nodes[4].originate(&local(endpoint(21, n), health(State::Healthy, 1), 2));
    }
    net.settle();
    let spent = net.messages - before;
    assert!(spent <= 30, "{spent} messages");
    let lens: Vec<usize> = net.nodes.iter().map(Fabric::len).collect();
    assert_eq!(lens, [100, 100, 50, 50, 50]);
}

#[test]
fn one_lost_session_leaves_fresh_routes_by_the_other_way() {
    let mut net = Net::new();
    let key = endpoint(11, 1);
    net.say(2, local(key.clone(), health(State::Healthy, 1), 1));
    let between = |ends: &[usize; 2]| *ends == [0, 2];
    let stream = net.streams.iter().find(|(_, ends)| between(ends));
    let stream = *stream.expect("a stream").0;
    net.cut(stream);
    net.settle();
    // The same word by the other way: the gateway's own stays, and stays told.
    let route = net.nodes[0].best(&key).expect("kept");
    assert_eq!((route.stale, route.source), (true, Source::Peer(PeerId(1))));
    // News by the other way wins over the stale copy.
    net.say(2, local(key.clone(), health(State::Unhealthy, 2), 1));
    for at in [0, 3] {
        assert_eq!(
            net.nodes[at].best(&key).expect("heard").value,
            health(State::Unhealthy, 2)
        );
    }
}

/// Each of two reflectors has a stale copy, and the other's word by which it is fresh. If they believed
/// that, each would take its own back, and the other would have to tell its own again, for ever.
#[test]
fn two_reflectors_that_lose_a_gateway_go_on_telling_others_of_it() {
    let mut net = Net::of(&[91, 92, 93, 1]);
    for fabric in &mut net.nodes {
        fabric.set_site_table(T0, table());
    }
    let pop = |id| PeerConfig::pop(NodeId(id));
    net.link((0, pop(92)), (1, pop(91)));
    net.link((0, pop(93)), (2, pop(91)));
    net.link((1, pop(93)), (2, pop(92)));
    let streams = [(0, 91), (1, 92)].map(|(at, id)| {
        let reflector = PeerConfig::reflector(NodeId(id), TenantId(1));
        net.link((at, gateway(1, 11)), (3, reflector))
    });
    net.settle();
    let (key, up) = (endpoint(11, 1), health(State::Healthy, 1));
    net.say(3, local(key.clone(), up.clone(), 1));
    let before = net.messages;
    for stream in streams {
        net.cut(stream);
    }
    net.settle();
    assert_eq!(net.heard(&key)[..3], vec![Some(up); 3]);
    assert_eq!(net.messages, before, "there is nothing to tell");
}

#[test]
fn unknown_types_are_reflected_unread() {
    let mut net = Net::new();
    let key = Key::Unknown {
        rd: super::rd(11),
        kind: 77,
        body: [1, 2, 3].as_slice().into(),
    };
    let value = Value::decode(&key, &[9; 40]).expect("any value");
    net.say(2, local(key.clone(), value.clone(), 1));
    assert_eq!(net.heard(&key)[3], Some(value));
    assert_eq!(net.heard(&key)[4], None);
}

/// A PoP (91) and a gateway (1, site 11).
fn pair() -> (Net, u64) {
    let mut net = Net::of(&[91, 1]);
    for fabric in &mut net.nodes {
        fabric.set_site_table(T0, table());
    }
    let reflector = PeerConfig::reflector(NodeId(91), TenantId(1));
    let stream = net.link((0, gateway(1, 11)), (1, reflector));
    net.settle();
    (net, stream)
}

fn again(net: &mut Net) -> u64 {
    let reflector = PeerConfig::reflector(NodeId(91), TenantId(1));
    net.link((0, gateway(1, 11)), (1, reflector))
}

fn stale(net: &Net, n: u8) -> Option<bool> {
    net.nodes[0].best(&endpoint(11, n)).map(|route| route.stale)
}

#[test]
fn stale_routes_live_until_swept_refreshed_or_too_old() {
    let (mut net, stream) = pair();
    for n in 0..3 {
        net.say(1, local(endpoint(11, n), health(State::Healthy, 1), 1));
    }
    let mut stream = stream;
    // Also over several restarts in a row: a site's life is known from its tunnels.
    for _ in 0..3 {
        net.cut(stream);
        net.settle();
        assert_eq!([0, 1, 2].map(|n| stale(&net, n)), [Some(true); 3]);
        stream = again(&mut net);
    }
    net.nodes[1].withdraw(&endpoint(11, 1));
    net.settle();
    assert_eq!(
        [0, 1, 2].map(|n| stale(&net, n)),
        [Some(false), None, Some(false)]
    );
    net.cut(stream);
    net.settle();
    let down = net.now;
    while !net.nodes[0].is_empty() {
        net.wait();
    }
    assert_eq!(net.now.since(down), Duration::from_secs(7 * 24 * 3600));
    assert_eq!(net.nodes[0].neighbors()[0].routes, 0);
}

#[test]
fn the_end_of_rib_waits_after_start_and_for_the_site_table() {
    let mut net = Net::of(&[91, 92]);
    let mut config = FabricConfig::new(NodeId(91), ASN);
    config.end_of_rib_delay = Duration::from_secs(10);
    net.nodes[0] = Fabric::new(config, T0);
    net.nodes[1].set_site_table(T0, table());
    net.link(
        (0, PeerConfig::pop(NodeId(92))),
        (1, PeerConfig::pop(NodeId(91))),
    );
    net.settle();
    while net.now < T0 + Duration::from_secs(20) {
        assert!(!net.nodes[1].neighbors()[0].synced, "at {:?}", net.now);
        net.wait();
    }
    let now = net.now;
    net.nodes[0].set_site_table(now, table());
    net.settle();
    assert!(net.nodes[1].neighbors()[0].synced);
}

#[test]
fn the_other_half_hears_everything_as_we_did() {
    let mut net = Net::of(&[91, 91, 1]);
    for fabric in &mut net.nodes {
        fabric.set_site_table(T0, table());
    }
    let half = PeerConfig::local(NodeId(91));
    net.link((0, half.clone()), (1, half));
    let reflector = PeerConfig::reflector(NodeId(91), TenantId(1));
    net.link((0, gateway(1, 11)), (2, reflector));
    net.settle();
    let key = endpoint(11, 1);
    net.say(2, local(key.clone(), health(State::Healthy, 1), 1));
    let own = endpoint(91, 1);
    net.say(0, local(own.clone(), health(State::Healthy, 1), 0));
    let heard = net.nodes[1].best(&key).expect("heard");
    assert_eq!((heard.originator, heard.next_hop), (NodeId(1), NodeId(1)));
    let heard = net.nodes[1].best(&own).expect("heard");
    assert_eq!((heard.originator, heard.next_hop), (NodeId(91), NodeId(91)));
    assert_eq!(net.nodes[2].best(&own), None, "not for tenants");
}

#[test]
fn what_came_before_the_table_is_asked_for_again() {
    let mut net = Net::of(&[91, 1]);
    net.nodes[1].set_site_table(T0, table());
    again(&mut net);
    net.settle();
    let key = endpoint(11, 1);
    net.say(1, local(key.clone(), health(State::Healthy, 1), 1));
    assert_eq!(net.nodes[0].best(&key), None);
    let refused = |net: &Net, why: Refusal| net.nodes[0].neighbors()[0].refused[why.index()];
    assert!(refused(&net, Refusal::NoTable) > 0);
    net.nodes[0].set_site_table(T0, table());
    net.settle();
    assert!(net.nodes[0].best(&key).is_some());
    // The grant is gone: so are the routes; it comes back: so do they.
    net.nodes[0].set_site_table(T0, crate::SiteTable::default());
    net.settle();
    assert_eq!(net.nodes[0].best(&key), None);
    net.nodes[0].set_site_table(T0, table());
    net.settle();
    assert!(net.nodes[0].best(&key).is_some());
}

#[test]
fn a_gateway_asks_for_its_own_tenant_only() {
    let (mut net, _) = pair();
    // A gateway of tenant 1 that says it is one of tenant 2, whose routes are there too.
    net.nodes[0].originate(&local(endpoint(21, 1), health(State::Healthy, 1), 2));
    net.nodes[0].originate(&local(endpoint(12, 1), health(State::Healthy, 1), 1));
    net.settle();
    assert_eq!(net.nodes[1].len(), 1);
    let mut liar = Net::of(&[91, 1]);
    for fabric in &mut liar.nodes {
        fabric.set_site_table(T0, table());
    }
    for (trust, wish) in [
        (
            PeerConfig::reflector(NodeId(91), TenantId(2)),
            "another tenant's routes",
        ),
        (PeerConfig::pop(NodeId(91)), "everything"),
    ] {
        liar.link((0, gateway(1, 11)), (1, trust));
        liar.nodes[0].originate(&local(endpoint(21, 1), health(State::Healthy, 1), 2));
        liar.settle();
        assert_eq!(liar.nodes[1].len(), 0, "{wish}");
        let refused = liar.nodes[0].neighbors()[0].refused;
        assert!(refused[Refusal::RouteTarget.index()] > 0, "{wish}");
    }
}

#[test]
fn a_neighbour_has_a_limit() {
    let mut net = Net::of(&[91, 1]);
    for fabric in &mut net.nodes {
        fabric.set_site_table(T0, table());
    }
    let mut limited = gateway(1, 11);
    limited.max_routes = 3;
    net.link(
        (0, limited),
        (1, PeerConfig::reflector(NodeId(91), TenantId(1))),
    );
    for seq in 1..3 {
        for n in 0..5 {
            net.nodes[1].originate(&local(endpoint(11, n), health(State::Healthy, seq), 1));
        }
        net.settle();
    }
    let view = net.nodes[0].neighbors().remove(0);
    assert_eq!(view.routes, 3);
    assert_eq!(view.refused[Refusal::Limit.index()], 4);
    assert!(view.up, "the rest is ignored, the session stays");
}

#[test]
fn the_newer_stream_of_a_neighbour_takes_the_place_of_the_older() {
    let (mut net, old) = pair();
    net.say(1, local(endpoint(11, 1), health(State::Healthy, 1), 1));
    let new = again(&mut net);
    net.settle();
    assert!(net.streams.contains_key(&new) && !net.streams.contains_key(&old));
    assert_eq!(stale(&net, 1), Some(false));
    let ends = net
        .events
        .iter()
        .filter(|(at, event)| *at == 0 && matches!(event, Event::Down(PeerId(1), Close::Sent(_))));
    assert_eq!(ends.count(), 1);
    assert!(net.nodes[0].neighbors()[0].up);
}

#[test]
fn a_removed_neighbour_leaves_nothing() {
    let (mut net, _) = pair();
    net.say(1, local(endpoint(11, 1), health(State::Healthy, 1), 1));
    let now = net.now;
    net.nodes[0].remove(now, PeerId(1), &crate::Notification::from((6, 3)));
    net.settle();
    assert!(net.nodes[0].is_empty() && net.nodes[0].neighbors().is_empty());
    assert_eq!(net.streams.len(), 0);
}

#[test]
fn changes_are_coalesced_and_the_bad_ones_first() {
    let mut fabric = node(1);
    for seq in 1..50 {
        for n in 0..3 {
            fabric.originate(&local(endpoint(11, n), health(State::Healthy, seq), 1));
        }
    }
    fabric.originate(&local(endpoint(11, 2), health(State::Unhealthy, 50), 1));
    let changes: Vec<_> = std::iter::from_fn(|| fabric.poll_change()).collect();
    let keys: Vec<&Key> = changes.iter().map(|change| &change.key).collect();
    assert_eq!(keys, [&endpoint(11, 2), &endpoint(11, 0), &endpoint(11, 1)]);
    assert_eq!(
        changes[1].best.as_ref().expect("there").value,
        health(State::Healthy, 49)
    );
    fabric.withdraw(&endpoint(11, 0));
    let change = fabric.poll_change().expect("gone");
    assert_eq!((change.key, change.best), (endpoint(11, 0), None));
}
