//! A planet of a thousand sites with a hundred endpoints each, its speakers alone: after a
//! partition and its healing everybody believes the same, and what flaps in one tenant is not
//! heard in another.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

use base::{Instant, NetworkId, NodeId, Rng, ServiceId, SiteId, SlotId, TenantId};
use bgp::{
    EndpointHealth, Event, Fabric, FabricConfig, Grant, Key, LocalRoute, PeerConfig, Rd,
    RouteTarget, Seq, SiteHealth, SiteTable, State, StreamId, Value,
};
use bytes::Bytes;

const ASN: u32 = 4_200_000_000;
const POPS: u32 = 4;
const SITES: u32 = 1000;
const SITES_A_TENANT: u32 = 10;
const ENDPOINTS: u16 = 100;

/// The tenant of a gateway, by its number.
fn tenant(site: u32) -> TenantId {
    TenantId(if site < POPS {
        0
    } else {
        1 + (site - POPS) / SITES_A_TENANT
    })
}

fn site_table(of: impl Iterator<Item = u32>) -> SiteTable {
    let grant = |site| {
        let tenant = tenant(site);
        let grant = Grant {
            tenant,
            slots: [(SlotId(0), tenant)].into(),
            nodes: [NodeId(site + 1)].into(),
        };
        (SiteId(site + 1), grant)
    };
    SiteTable {
        sites: of.map(grant).collect(),
    }
}

/// An endpoint of a site, or the site itself.
fn route(site: u32, endpoint: Option<u16>, state: State, seq: u32) -> LocalRoute {
    let (id, seq) = (SiteId(site + 1), Seq(seq));
    let rd = Rd {
        site: id,
        slot: SlotId(0),
    };
    let (key, value, selector) = match endpoint {
        None => {
            let health = SiteHealth {
                state,
                seq,
                ..SiteHealth::default()
            };
            (
                Key::Site { rd, site: id },
                Value::site(&health),
                RouteTarget::SITE,
            )
        }
        Some(number) => {
            let [high, low] = number.to_be_bytes();
            let key = Key::Endpoint {
                rd,
                service: ServiceId(u64::from(number % 7)),
                site: id,
                network: NetworkId(0),
                address: [10, 0, high, low].into(),
                port: 8080,
                protocol: 6,
            };
            let health = EndpointHealth {
                state,
                weight: 100,
                seq,
                ..EndpointHealth::default()
            };
            (key, Value::endpoint(&health), RouteTarget::SERVICE)
        }
    };
    LocalRoute {
        key,
        value,
        route_targets: vec![RouteTarget {
            tenant: tenant(site),
            selector,
        }],
        extra: Vec::new(),
    }
}

enum Happening {
    Octets(u64, usize, Bytes),
    Ended(u64, usize),
    Wake(usize),
}

struct Planet {
    now: Instant,
    nodes: Vec<Fabric>,
    /// Streams: the nodes at their ends, and how long octets take.
    streams: BTreeMap<u64, ([usize; 2], Duration)>,
    of_node: Vec<BTreeSet<u64>>,
    agenda: BinaryHeap<Reverse<(Instant, u64)>>,
    happenings: BTreeMap<u64, Happening>,
    wakes: Vec<Option<Instant>>,
    next: u64,
    rng: Rng,
    /// UPDATEs delivered to each node.
    updates: Vec<u64>,
    /// What each site says: state and seq of each endpoint; gone if `None`.
    truth: BTreeMap<(u32, u16), Option<(State, u32)>>,
}

impl Planet {
    fn new(seed: u64) -> Planet {
        let ids = 0..POPS + SITES;
        let mut planet = Planet {
            now: Instant::ZERO,
            nodes: Vec::new(),
            streams: BTreeMap::new(),
            of_node: vec![BTreeSet::new(); ids.len()],
            agenda: BinaryHeap::new(),
            happenings: BTreeMap::new(),
            wakes: vec![None; ids.len()],
            next: 1,
            rng: Rng::new(seed),
            updates: vec![0; ids.len()],
            truth: BTreeMap::new(),
        };
        for at in ids.clone() {
            let mut config = FabricConfig::new(NodeId(at + 1), ASN);
            config.seed = seed;
            let mut fabric = Fabric::new(config, planet.now);
            // As in bundles: a gateway knows the sites of its tenant, and those of the fabric.
            let known = |site: &u32| at < POPS || *site < POPS || tenant(*site) == tenant(at);
            fabric.set_site_table(planet.now, site_table(ids.clone().filter(known)));
            planet.nodes.push(fabric);
        }
        planet
    }

    /// Both ways of a pair of nodes.
    fn connect(&mut self, a: u32, b: u32) {
        let id = self.next;
        self.next += 1;
        let delay = Duration::from_micros(500 + self.rng.below(40_000));
        let ends = [a as usize, b as usize];
        self.streams.insert(id, (ends, delay));
        for (own, other) in [(a, b), (b, a)] {
            let node = NodeId(other + 1);
            let peer = match (own < POPS, other < POPS) {
                (true, true) => PeerConfig::pop(node),
                (true, false) => PeerConfig::gateway(node, SiteId(other + 1)),
                (false, _) => PeerConfig::reflector(node, tenant(own)),
            };
            let at = own as usize;
            self.of_node[at].insert(id);
            self.nodes[at].connected(self.now, StreamId(id), peer);
            self.tend(at);
        }
    }

    fn cut(&mut self, between: impl Fn(usize, usize) -> bool) {
        let hit = |(_, (ends, _)): &(&u64, &([usize; 2], Duration))| between(ends[0], ends[1]);
        let cut: Vec<u64> = self.streams.iter().filter(hit).map(|(id, _)| *id).collect();
        for id in cut {
            let (ends, _) = self.streams.remove(&id).expect("it was there");
            for at in ends {
                self.of_node[at].remove(&id);
                self.nodes[at].handle_closed(self.now, StreamId(id));
                self.tend(at);
            }
        }
    }

    fn put(&mut self, at: Instant, happening: Happening) {
        self.agenda.push(Reverse((at, self.next)));
        self.happenings.insert(self.next, happening);
        self.next += 1;
    }

    /// Everything that a node wants done now.
    fn tend(&mut self, at: usize) {
        while self.nodes[at].drive(self.now) {}
        while self.nodes[at].poll_change().is_some() {}
        for id in self.of_node[at].clone() {
            let (ends, delay) = self.streams[&id];
            while let Some(octets) = self.nodes[at].transmit(StreamId(id)) {
                let to = ends[usize::from(ends[0] == at)];
                self.put(self.now + delay, Happening::Octets(id, to, octets));
            }
        }
        while let Some(event) = self.nodes[at].poll_event() {
            let Event::Closed(id, ..) = event else {
                continue;
            };
            if let Some((ends, delay)) = self.streams.remove(&id.0) {
                let to = ends[usize::from(ends[0] == at)];
                self.put(self.now + delay, Happening::Ended(id.0, to));
                for end in ends {
                    self.of_node[end].remove(&id.0);
                }
            }
        }
        if let Some(timer) = self.nodes[at].poll_timeout() {
            let timer = timer.max(self.now + Duration::from_micros(1));
            if self.wakes[at].is_none_or(|wake| timer < wake || wake <= self.now) {
                self.wakes[at] = Some(timer);
                self.put(timer, Happening::Wake(at));
            }
        }
    }

    fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(Reverse((at, _))) = self.agenda.peek().filter(|next| next.0.0 <= until) {
            self.now = *at;
            let Some(Reverse((_, id))) = self.agenda.pop() else {
                return;
            };
            match self.happenings.remove(&id) {
                Some(Happening::Octets(stream, to, octets))
                    if self.streams.contains_key(&stream) =>
                {
                    self.updates[to] += u64::from(octets[18] == 2);
                    self.nodes[to].handle_bytes(self.now, StreamId(stream), &octets);
                    self.tend(to);
                }
                Some(Happening::Ended(stream, to)) => {
                    self.nodes[to].handle_closed(self.now, StreamId(stream));
                    self.tend(to);
                }
                Some(Happening::Wake(node))
                    if self.wakes[node].is_some_and(|wake| wake <= self.now) =>
                {
                    self.wakes[node] = None;
                    self.nodes[node].handle_timeout(self.now);
                    self.tend(node);
                }
                Some(Happening::Octets(..) | Happening::Wake(_)) | None => {}
            }
        }
        self.now = until;
    }

    fn say(&mut self, site: u32, endpoint: u16, state: Option<State>, seq: u32) {
        let at = site as usize;
        match state {
            Some(state) => self.nodes[at].originate(&route(site, Some(endpoint), state, seq)),
            None => {
                let route = route(site, Some(endpoint), State::Unknown, seq);
                self.nodes[at].withdraw(&route.key);
            }
        }
        let said = state.map(|state| (state, seq));
        self.truth.insert((site, endpoint), said);
    }

    /// What a node believes: each key, what it says, and who says it.
    fn belief(&self, at: u32) -> BTreeMap<String, (Value, NodeId)> {
        let views = self.nodes[at as usize].routes(usize::MAX);
        let of_view = |view: bgp::RouteView| {
            let best = view.paths.into_iter().next().expect("a path");
            assert!(!best.stale, "{at} holds a stale {}", view.key);
            (view.key.to_string(), (best.value, best.originator))
        };
        views.into_iter().map(of_view).collect()
    }

    /// Everybody believes what the sites say, and what he may hear, and nothing else.
    fn check(&self) {
        let mut all: BTreeMap<TenantId, BTreeMap<String, (Value, NodeId)>> = BTreeMap::new();
        let mut put = |site: u32, route: LocalRoute| {
            let said = (route.value, NodeId(site + 1));
            let of_tenant = all.entry(tenant(site)).or_default();
            of_tenant.insert(route.key.to_string(), said);
        };
        for site in 0..POPS + SITES {
            put(site, route(site, None, State::Healthy, 1));
        }
        for ((site, endpoint), said) in &self.truth {
            if let Some((state, seq)) = said {
                put(*site, route(*site, Some(*endpoint), *state, *seq));
            }
        }
        let everything: BTreeMap<_, _> = all
            .values()
            .flatten()
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        for pop in 0..POPS {
            assert!(
                self.belief(pop) == everything,
                "PoP {pop} believes something else"
            );
        }
        let fabric = &all[&TenantId(0)];
        for gateway in POPS..POPS + SITES {
            let mut expected = all[&tenant(gateway)].clone();
            expected.extend(fabric.clone());
            assert!(
                self.belief(gateway) == expected,
                "gateway {gateway} believes something else"
            );
        }
    }
}

#[test]
fn a_thousand_sites_agree_after_a_partition_and_nobody_hears_anothers_flapping() {
    let mut planet = Planet::new(7);
    for a in 0..POPS {
        for b in a + 1..POPS {
            planet.connect(a, b);
        }
    }
    let pops_of = |site: u32| [site % POPS, (site + 1) % POPS];
    for site in POPS..POPS + SITES {
        for pop in pops_of(site) {
            planet.connect(pop, site);
        }
    }
    for site in 0..POPS + SITES {
        planet.nodes[site as usize].originate(&route(site, None, State::Healthy, 1));
    }
    for site in POPS..POPS + SITES {
        for endpoint in 0..ENDPOINTS {
            planet.say(site, endpoint, Some(State::Healthy), 1);
        }
        planet.tend(site as usize);
    }
    for pop in 0..POPS {
        planet.tend(pop as usize);
    }
    planet.run_for(Duration::from_secs(15));
    planet.check();

    // Two halves: PoPs 0 and 1 with what reaches them, PoPs 2 and 3 with the rest. Half of the
    // gateways lose one of their two PoPs as well.
    let half = move |site: u32| site % 8 < 4;
    planet.cut(|a, b| match (u32::try_from(a), u32::try_from(b)) {
        (Ok(a), Ok(b)) if b < POPS => (a < 2) != (b < 2),
        (Ok(a), Ok(b)) => half(b) && a == pops_of(b)[1],
        _ => false,
    });
    for site in POPS..POPS + SITES {
        for change in 0..5 {
            let endpoint = u16::try_from(planet.rng.below(100)).expect("small");
            let state = match planet.rng.below(4) {
                0 => None,
                1 => Some(State::Healthy),
                _ => Some(State::Unhealthy),
            };
            planet.say(site, endpoint, state, 2 + change);
        }
        planet.tend(site as usize);
    }
    planet.run_for(Duration::from_secs(60));
    for a in 0..2 {
        for b in 2..POPS {
            planet.connect(a, b);
        }
    }
    for site in (POPS..POPS + SITES).filter(|site| half(*site)) {
        planet.connect(pops_of(site)[1], site);
    }
    planet.run_for(Duration::from_secs(15));
    planet.check();

    // One endpoint flaps a hundred times a second for ten seconds.
    let before = planet.updates.clone();
    let flapping = POPS + 17;
    for flap in 0..1000_u32 {
        let state = if flap % 2 == 0 {
            State::Unhealthy
        } else {
            State::Healthy
        };
        planet.say(flapping, 3, Some(state), 100 + flap);
        planet.tend(flapping as usize);
        planet.run_for(Duration::from_millis(10));
    }
    planet.run_for(Duration::from_secs(1));
    let heard = |at: u32| planet.updates[at as usize] - before[at as usize];
    for gateway in POPS..POPS + SITES {
        if tenant(gateway) == tenant(flapping) {
            // Of each flap from its two PoPs, and from a PoP that hears it of another before it
            // hears it of the site itself once more.
            assert!(heard(gateway) <= 4000, "{} messages", heard(gateway));
        } else {
            assert_eq!(
                heard(gateway),
                0,
                "gateway {gateway} hears of another tenant's flapping"
            );
        }
    }
    planet.check();
}
