//! A table and six neighbours of all sorts: at rest, each holds what the table says.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
    sync::Arc,
};

use base::{Instant, NodeId};
use bgp::{
    Trust,
    policy::Community,
    table::{
        Filter, Kind, NextHop, Notice, PathView, PeerConfig, PeerFamily, PeerIndex, Poll,
        RouteCount, Shard, ShardConfig,
    },
    wire::{
        AttributesView, Family, Scratch, Section, UpdateContext, UpdateFindings, decode, encode,
        frame, put_attribute,
    },
};

use crate::Choices;

const PEERS: u16 = 6;
const FAMILIES: [Family; 3] = [Family::IPV4, Family::VPNV4, Family::RTC];

fn config(at: u16) -> PeerConfig {
    let external = at == 2 || at == 4;
    let families: &[Family] = if external { &FAMILIES[..1] } else { &FAMILIES };
    let spoken = |family: &Family| PeerFamily {
        family: *family,
        add_path_send: 2 * u8::from(at == 5 && *family == Family::IPV4),
        max_routes: 1000,
        count: RouteCount::default(),
    };
    PeerConfig {
        asn: if external {
            65000 + u32::from(at)
        } else {
            65000
        },
        node: NodeId(u32::from(at)),
        address: IpAddr::from([127, 0, 0, at.to_be_bytes()[1]]),
        kind: match at {
            2 | 4 => Kind::External,
            6 => Kind::NonClient,
            _ => Kind::Client,
        },
        families: families.iter().map(spoken).collect(),
        max_message: 4096,
        four_octet_as: true,
        knows_long_lived: at == 2,
        long_lived: FAMILIES[..2 * usize::from(at < 4)].to_vec(),
        constrained: at == 3,
        next_hop: NextHop::Unchanged,
        trust: Trust::Policy,
        import: Arc::new(Filter::Accept),
        export: Arc::new(Filter::Accept),
    }
}

/// By family, path id and key: the length of AS_PATH, and the value.
type Heard = BTreeMap<(Family, u32, Vec<u8>), (usize, Vec<u8>)>;

struct Planet {
    shard: Shard,
    now: Instant,
    heard: BTreeMap<u16, Heard>,
}

impl Planet {
    fn turn(&mut self) -> bool {
        let mut out = Vec::new();
        let poll = self
            .shard
            .poll(self.now, &mut |to, octets| out.push((to.clone(), octets)));
        for (to, octets) in out {
            for peer in to.iter() {
                self.hear(peer.0, &octets);
            }
        }
        while let Some(notice) = self.shard.poll_notice() {
            let (Notice::TableSent(peer, _) | Notice::TooMany(peer, _) | Notice::AskAgain(peer, _)) =
                notice;
            assert!((1..=PEERS).contains(&peer.0));
        }
        match poll {
            Poll::Idle => false,
            Poll::More => true,
            Poll::Wait(until) => {
                self.now = until;
                true
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            if !self.turn() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn hear(&mut self, at: u16, octets: &[u8]) {
        let config = config(at);
        let heard = self
            .heard
            .get_mut(&at)
            .expect("octets for one that is down");
        let with_ids = config.families.iter().filter(|f| f.add_path_send > 0);
        let context = UpdateContext {
            four_octet_as: true,
            ebgp: config.kind.is_external(),
            families: config.families.iter().map(|f| f.family).collect(),
            add_path: with_ids.map(|f| f.family).collect(),
            extended_next_hop: Vec::new(),
        };
        let mut rest = octets;
        while !rest.is_empty() {
            let (_, length) = frame(rest, 4096).expect("good").expect("whole");
            let (mut scratch, mut findings) = (Scratch::default(), UpdateFindings::default());
            let body = &rest[19..length];
            let update = decode(body, &context, &mut scratch, &mut findings).expect("good");
            assert_eq!(findings, UpdateFindings::default());
            for section in update.withdrawn.iter().flatten() {
                section.for_each(false, |route| {
                    heard.remove(&(section.family, route.path_id, route.key.to_vec()));
                });
            }
            for (section, attributes) in update.announced.iter().zip(update.attributes) {
                let Some(section) = section else { continue };
                let length = AttributesView(attributes.expect("good")).as_path().len();
                section.for_each(true, |route| {
                    let key = (section.family, route.path_id, route.key.to_vec());
                    heard.insert(key, (length, route.value.to_vec()));
                });
            }
            rest = &rest[length..];
        }
    }

    fn check(&self) {
        for (at, heard) in &self.heard {
            let config = config(*at);
            for spoken in &config.families {
                let mut got: Vec<(Vec<u8>, usize)> = heard
                    .iter()
                    .filter(|((family, ..), _)| *family == spoken.family)
                    .map(|((_, _, key), (length, _))| (key.clone(), *length))
                    .collect();
                let mut want = self.expected(*at, &config, spoken);
                got.sort();
                want.sort();
                assert_eq!(got, want, "neighbour {at}, {}", spoken.family);
            }
        }
    }

    /// Keys and lengths of AS_PATH that a neighbour is to hold, from the table's own view.
    fn expected(&self, at: u16, own: &PeerConfig, spoken: &PeerFamily) -> Vec<(Vec<u8>, usize)> {
        let (views, _) = self.shard.routes(spoken.family, 0, usize::MAX, |_| true);
        let mut expected = Vec::new();
        for view in views {
            let several = spoken.add_path_send > 0;
            let internal = |path: &&PathView| {
                let reflected =
                    own.kind != Kind::NonClient || config(path.peer.0).kind != Kind::NonClient;
                let mut communities = AttributesView(&path.attributes).communities();
                let stale = communities.any(|one| one == Community::LLGR_STALE.0);
                reflected && (own.knows_long_lived || !stale)
            };
            let told: Vec<&PathView> = if several || spoken.family == Family::RTC {
                let most = usize::from(spoken.add_path_send.max(1));
                view.paths.iter().filter(internal).take(most).collect()
            } else {
                view.paths.iter().take(1).filter(internal).collect()
            };
            for path in told {
                let answered = spoken.family == Family::RTC && own.kind == Kind::Client;
                let echoed = path.peer == PeerIndex(at) && !answered;
                if echoed || !self.wants(at, own, spoken.family, path) {
                    continue;
                }
                let grown = usize::from(own.kind == Kind::External);
                let length = AttributesView(&path.attributes).as_path().len() + grown;
                // Of RT constraint all paths are as long.
                expected.push((view.key.clone(), length));
            }
        }
        expected
    }

    fn wants(&self, at: u16, own: &PeerConfig, family: Family, path: &PathView) -> bool {
        if !own.constrained || family != Family::VPNV4 {
            return true;
        }
        let (asked, _) = self.shard.routes(Family::RTC, 0, usize::MAX, |_| true);
        asked.iter().any(|route| {
            let its_own = route.paths.iter().any(|p| p.peer == PeerIndex(at));
            let view = AttributesView(&path.attributes);
            let target = view.extended_communities().next().unwrap_or_default();
            its_own && (route.key == [0] || route.key.get(5..) == Some(&target[..]))
        })
    }
}

fn attributes(at: u16, family: Family, what: u8) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, what & 1];
    let asns = match config(at).kind {
        Kind::External => 1 + usize::from(what >> 1 & 3),
        Kind::RouteServerClient | Kind::Client | Kind::NonClient | Kind::Local => 0,
    };
    let mut path = Vec::new();
    if asns > 0 {
        path.extend([2, u8::try_from(asns).unwrap_or(1)]);
        path.extend((65000 + u32::from(at)).to_be_bytes());
        path.extend([0, 0, 1, 1].repeat(asns - 1));
    }
    put_attribute(&mut out, 0x40, 2, &path);
    if asns == 0 {
        put_attribute(&mut out, 0x40, 5, &[0, 0, 0, 100 + (what >> 1 & 3)]);
    }
    let next_hop: &[u8] = if family == Family::VPNV4 {
        &[0, 0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1]
    } else {
        &[10, 0, 0, 1]
    };
    put_attribute(&mut out, 0x80, 14, next_hop);
    if family == Family::VPNV4 {
        put_attribute(&mut out, 0xC0, 16, &[1, 2, 0, 0, 0, what >> 3 & 3, 0, 2]);
    }
    out
}

fn key(family: Family, what: u8) -> Vec<u8> {
    match family {
        Family::IPV4 => vec![24, 10, 0, what & 31],
        Family::VPNV4 => vec![24, 0, 1, 0, 0, 0, what & 3, 0, 0, 10, 0, what >> 2 & 7],
        _ if what & 7 == 7 => vec![0],
        _ => vec![96, 0, 0, 0xFD, 0xE8, 1, 2, 0, 0, 0, what & 3, 0, 2],
    }
}

pub(crate) fn run(octets: &[u8]) {
    let mut planet = Planet {
        shard: Shard::new(ShardConfig {
            asn: 65000,
            node: NodeId(99),
            families: FAMILIES.to_vec(),
            seed: 7,
            deferred: false,
            holds_ends: false,
            watched: vec![Family::IPV4],
            tells_constraint: true,
        }),
        now: Instant::from_nanos(1),
        heard: BTreeMap::new(),
    };
    let mut choices = Choices(octets);
    while let Some(what) = choices.next() {
        let at = 1 + u16::from(choices.octet()) % PEERS;
        let peer = PeerIndex(at);
        if let Entry::Vacant(down) = planet.heard.entry(at) {
            down.insert(Heard::new());
            planet.shard.peer_up(peer, config(at));
        }
        let spoken = config(at).families.len();
        let family = FAMILIES[usize::from(what >> 4) % spoken];
        match what & 15 {
            0..=7 => {
                let (first, more, path_id) = (choices.octet(), choices.octet(), choices.octet());
                let mut octets = Vec::new();
                let value: &[u8] = if family == Family::VPNV4 {
                    &[0, 1, 1]
                } else {
                    &[]
                };
                for i in 0..=more & 7 {
                    let path_id = Some(u32::from(path_id & 1));
                    encode(
                        family,
                        path_id,
                        &key(family, first.wrapping_add(i)),
                        value,
                        &mut octets,
                    );
                }
                let section = Section {
                    family,
                    add_path: true,
                    octets: &octets,
                };
                if what & 15 < 5 {
                    let attributes = attributes(at, family, choices.octet());
                    let _ = planet.shard.announce(peer, &section, &attributes, |_| true);
                } else {
                    planet.shard.withdraw(peer, &section, |_| true);
                }
            }
            8 => planet.shard.refresh(peer, family),
            9 => {
                let how = choices.octet();
                let keep = &FAMILIES[..usize::from(how & 3)];
                planet.heard.remove(&at);
                planet.shard.peer_down(peer, keep);
                if how & 4 != 0 {
                    planet.shard.outlive(peer, family);
                }
            }
            10 => planet.shard.end_of_rib(peer, family),
            11 => planet.shard.pause(peer),
            12 => planet.shard.resume(peer),
            13 => planet.shard.set_ready(peer, what & 16 != 0),
            14 if what & 32 != 0 => planet.shard.outlive(peer, family),
            14 => planet.shard.refresh_begins(peer, family),
            _ => {
                planet.turn();
            }
        }
    }
    for at in 1..=PEERS {
        planet.shard.resume(PeerIndex(at));
    }
    planet.settle();
    planet.check();
    while planet.shard.poll_change().is_some() {}
    // When all are gone and come back with nothing to say, nothing is left.
    for at in 1..=PEERS {
        planet.heard.insert(at, Heard::new());
        planet.shard.peer_down(PeerIndex(at), &[]);
        planet.shard.peer_up(PeerIndex(at), config(at));
        for family in FAMILIES {
            planet.shard.end_of_rib(PeerIndex(at), family);
        }
    }
    planet.settle();
    while planet.shard.poll_change().is_some() {}
    planet.settle();
    planet.check();
    let sizes = planet.shard.sizes();
    assert_eq!((sizes.routes, sizes.attributes, sizes.pending), (0, 0, 0));
}
