//! Two reflectors and two clients, driven in memory through whole sessions.

use base::{Instant, NodeId, TenantId};

use super::{ASN, endpoint, gateway, health, local, pop, rib, table};
use crate::{
    Key, LocalRoute, PeerConfig, PeerId, Rib, Session, SessionConfig, SessionEvent, Source, State,
    Value,
};

const T0: Instant = Instant::ZERO;

struct Node {
    rib: Rib,
    sessions: Vec<(PeerConfig, Session)>,
}

struct Net {
    nodes: Vec<Node>,
    /// Node, its session, the other node, its session.
    links: Vec<[usize; 4]>,
    messages: usize,
}

impl Net {
    /// 0 and 1 are PoPs (nodes 91, 92); 2 and 3 gateways of tenant 1 (sites 11, 12), 4 of
    /// tenant 2 (site 21); every gateway is a client of both PoPs.
    fn new() -> Net {
        let ids = [91, 92, 1, 2, 3];
        let mut net = Net {
            nodes: ids
                .map(|id| Node {
                    rib: rib(id),
                    sessions: vec![],
                })
                .into(),
            links: vec![],
            messages: 0,
        };
        for node in &mut net.nodes {
            node.rib.set_site_table(table());
        }
        net.link((0, 91, pop(92).1), (1, 92, pop(91).1));
        for (at, node, site, tenant) in [(2, 1, 11, 1), (3, 2, 12, 1), (4, 3, 21, 2)] {
            for (hub, hub_id) in [(0, 91), (1, 92)] {
                let reflector = PeerConfig::reflector(NodeId(hub_id), TenantId(tenant));
                net.link(
                    (hub, hub_id, gateway(node, site, tenant).1),
                    (at, node, reflector),
                );
            }
        }
        net.settle();
        net
    }

    fn link(&mut self, a: (usize, u32, PeerConfig), b: (usize, u32, PeerConfig)) {
        let mut ends = [0; 4];
        for (i, (at, id, peer)) in [a, b].into_iter().enumerate() {
            let mut config = SessionConfig::new(NodeId(id), ASN);
            config.peer = Some(peer.node);
            let sessions = &mut self.nodes[at].sessions;
            ends[2 * i] = at;
            ends[2 * i + 1] = sessions.len();
            sessions.push((peer, Session::new(config, T0)));
        }
        self.links.push(ends);
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let before = self.messages;
            for [a, sa, b, sb] in self.links.clone() {
                self.carry(a, sa, b, sb);
                self.carry(b, sb, a, sa);
            }
            if self.messages == before {
                return;
            }
        }
        panic!("it never settles: something goes in a circle");
    }

    fn carry(&mut self, from: usize, session: usize, to: usize, other: usize) {
        let node = &mut self.nodes[from];
        let (peer, session) = &mut node.sessions[session];
        while let Some(update) = node.rib.poll_update(T0, peer.id) {
            session.send(update);
        }
        let octets: Vec<_> = std::iter::from_fn(|| session.poll_transmit()).collect();
        self.messages += octets.len();
        let node = &mut self.nodes[to];
        let (peer, session) = &mut node.sessions[other];
        for message in octets {
            session.handle_bytes(T0, &message);
        }
        while let Some(event) = session.poll_event() {
            match event {
                SessionEvent::Established { .. } => node.rib.peer_up(T0, peer.clone()),
                SessionEvent::Update(update) => node.rib.handle_update(peer.id, update),
                SessionEvent::EndOfRib => node.rib.handle_end_of_rib(peer.id),
                SessionEvent::RefreshRequested => node.rib.handle_refresh(peer.id),
                SessionEvent::FamilyDisabled | SessionEvent::Closed(_) => panic!("{event:?}"),
            }
        }
    }

    fn say(&mut self, at: usize, route: LocalRoute) {
        self.nodes[at].rib.originate(route);
        self.settle();
    }

    fn heard(&self, key: &Key) -> Vec<Option<Value>> {
        self.nodes
            .iter()
            .map(|node| node.rib.best(key).map(|route| route.value))
            .collect()
    }
}

#[test]
fn a_route_reaches_everybody_who_may_hear_it() {
    let mut net = Net::new();
    assert!(
        net.nodes
            .iter()
            .flat_map(|n| n.rib.neighbors())
            .all(|view| view.up && view.synced)
    );
    let (key, up) = (endpoint(11, 1), health(State::Healthy, 1));
    net.say(2, local(key.clone(), up.clone(), 1));
    let up = Some(up);
    assert_eq!(
        net.heard(&key),
        [up.clone(), up.clone(), up.clone(), up, None]
    );

    let at_gateway = net.nodes[3].rib.best(&key).expect("heard");
    assert_eq!(
        (at_gateway.originator, at_gateway.next_hop()),
        (NodeId(1), NodeId(1))
    );
    assert_eq!(at_gateway.attributes.clusters, [NodeId(91)]);
    // A PoP prefers the gateway's own word to the same word by way of the other PoP.
    let at_pop = net.nodes[0].rib.routes(None, 10).remove(0);
    assert_eq!(at_pop.paths[0].route.source, Source::Peer(PeerId(1)));
    assert_eq!(at_pop.paths.len(), 2);

    let down = health(State::Unhealthy, 2);
    net.say(2, local(key.clone(), down.clone(), 1));
    let down = Some(down);
    assert_eq!(
        net.heard(&key),
        [down.clone(), down.clone(), down.clone(), down, None]
    );
    net.nodes[2].rib.withdraw(&key);
    net.settle();
    assert_eq!(net.heard(&key), [None, None, None, None, None]);
    assert!(net.nodes.iter().all(|node| node.rib.is_empty()));
}

#[test]
fn nothing_goes_in_a_circle() {
    let mut net = Net::new();
    let before = net.messages;
    for n in 0..50 {
        net.nodes[2]
            .rib
            .originate(local(endpoint(11, n), health(State::Healthy, 1), 1));
        net.nodes[4]
            .rib
            .originate(local(endpoint(21, n), health(State::Healthy, 1), 2));
    }
    net.settle();
    let spent = net.messages - before;
    assert!(spent <= 30, "{spent} messages");
    let lens = net
        .nodes
        .iter()
        .map(|node| node.rib.len())
        .collect::<Vec<_>>();
    assert_eq!(lens, [100, 100, 50, 50, 50]);
}

#[test]
fn one_lost_session_leaves_fresh_routes_by_the_other_way() {
    let mut net = Net::new();
    let key = endpoint(11, 1);
    net.say(2, local(key.clone(), health(State::Healthy, 1), 1));
    net.nodes[0].rib.peer_down(T0, PeerId(1));
    net.links.retain(|link| !(link[0] == 0 && link[2] == 2));
    net.settle();
    let route = net.nodes[0].rib.best(&key).expect("kept");
    assert_eq!(
        (route.stale, route.source),
        (false, Source::Peer(PeerId(92)))
    );
    // The other PoP's withdrawal leaves the stale copy; news by the other way wins over it.
    net.say(2, local(key.clone(), health(State::Unhealthy, 2), 1));
    assert_eq!(
        net.nodes[0].rib.best(&key).expect("kept").value,
        health(State::Unhealthy, 2)
    );
    assert_eq!(
        net.nodes[3].rib.best(&key).expect("heard").value,
        health(State::Unhealthy, 2)
    );
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
