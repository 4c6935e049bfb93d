//! Links, tunnels and streams.

use std::time::Duration;

use base::Instant;
use bgp::StreamId;
use bytes::Bytes;
use plan::{Event, Part};

use crate::{
    faults::Manner,
    node::peer_config,
    planet::POPS,
    shell::{Happening, Sim},
};

/// The one AS.
pub(crate) const ASN: u32 = 4_200_000_000;

/// Between the halves of one node.
const LOCAL: Duration = Duration::from_micros(20);

/// A pair of sites: what lies between them.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) one_way: Duration,
    /// How many faults cut it now.
    pub(crate) cuts: u32,
}

/// What one site dialled to another.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) id: u64,
    /// Dialler, acceptor.
    pub(crate) ends: [usize; 2],
    /// Do octets pass?
    pub(crate) up: bool,
    /// Since when `up` is what it is.
    pub(crate) since: Instant,
    /// Does this end believe so?
    pub(crate) seen: [bool; 2],
    pub(crate) dialling: bool,
}

/// A reliable, ordered stream between two halves.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ends: [End; 2],
    /// The tunnels it runs in, one after the other (pair and id); none between the halves of a
    /// node.
    tunnels: Vec<((usize, usize), u64)>,
    one_way: Duration,
    /// Nothing overtakes: the last arrival at each end.
    last: [Instant; 2],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) node: usize,
    pub(crate) part: Part,
    pub(crate) life: u64,
}

impl Sim {
    /// Do what is missing at a node: tunnels, sessions, its bundle.
    pub(crate) fn tend(&mut self, node: usize) {
        let due = self.now + Duration::from_millis(90) + self.random(Duration::from_millis(20));
        self.agenda.put(due, Happening::Tend { node });
        self.fetch_bundle(node);
        self.dial_tunnels(node);
        self.dial_sessions(node);
    }

    fn fetch_bundle(&mut self, node: usize) {
        let have = self.nodes[node]
            .disk
            .bundle
            .as_ref()
            .map(|bundle| bundle.revision);
        let wanted = self.planet.bundles[node].revision;
        if have == Some(wanted) || self.nodes[node].fetching {
            return;
        }
        self.nodes[node].fetching = true;
        let at = self.now + self.random(Duration::from_millis(900));
        self.agenda.put(at, Happening::Bundle { node });
    }

    fn dial_tunnels(&mut self, node: usize) {
        let Some(table) = self
            .half(node, Part::Data)
            .and_then(|half| half.table.clone())
        else {
            return;
        };
        for site in table.fabric.dial.keys() {
            let pair = (node, self.planet.index[site]);
            let now = self.now;
            let tunnel = self.tunnels.entry(pair).or_insert_with(|| Tunnel {
                id: 0,
                ends: [pair.0, pair.1],
                up: false,
                since: now,
                seen: [false; 2],
                dialling: false,
            });
            if tunnel.seen[0] || tunnel.dialling {
                continue;
            }
            tunnel.dialling = true;
            // TCP and TLS: two round trips.
            let one_way = self.links[&pair_of(pair.0, pair.1)].one_way;
            let lives = [self.life(pair.0, Part::Data), self.life(pair.1, Part::Data)];
            self.agenda
                .put(self.now + one_way * 4, Happening::Dialled { pair, lives });
        }
    }

    /// The handshake is over, if everything it needs was there all the time.
    pub(crate) fn dialled(&mut self, pair: (usize, usize), lives: [Option<u64>; 2]) {
        let still = [self.life(pair.0, Part::Data), self.life(pair.1, Part::Data)];
        let cut = self.links[&pair_of(pair.0, pair.1)].cuts > 0;
        let site = &self.planet.sites[pair.0];
        let knows = self
            .half(pair.1, Part::Data)
            .and_then(|half| half.table.as_ref())
            .is_some_and(|table| table.fabric.peers.contains(site));
        let Some(tunnel) = self.tunnels.get_mut(&pair) else {
            return;
        };
        tunnel.dialling = false;
        if cut || !knows || still != lives || still.contains(&None) {
            return;
        }
        let old = tunnel.id;
        self.next_id += 1;
        tunnel.id = self.next_id;
        tunnel.up = true;
        tunnel.since = self.now;
        tunnel.seen = [true; 2];
        self.end_streams_of(pair, old, &[0, 1]);
        self.measure(pair, self.next_id);
    }

    /// Both ends measure the round trip, with some noise.
    pub(crate) fn measure(&mut self, pair: (usize, usize), id: u64) {
        let alive = self.tunnels.get(&pair).is_some_and(|t| t.id == id && t.up);
        if !alive {
            return;
        }
        let rtt = self.links[&pair_of(pair.0, pair.1)].one_way * 2;
        for (node, other) in [(pair.0, pair.1), (pair.1, pair.0)] {
            let noise = match self.options.traffic {
                Some(_) => self.random(rtt / 40),
                None => self.random(rtt / 10),
            };
            self.reach(node, other, Some(rtt + noise));
        }
        let next = self.now + Duration::from_secs(2);
        self.agenda.put(next, Happening::Measure { pair, id });
    }

    fn reach(&mut self, node: usize, other: usize, rtt: Option<Duration>) {
        let site = self.planet.sites[other].clone();
        let load = self.load(node, other);
        let links = &mut self.nodes[node].links;
        links.retain(|link| link.peer != site);
        links.extend(rtt.map(|rtt| api::sync::Link {
            peer: site.clone(),
            rtt_us: Some(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            jitter_us: 0,
            loss: 0,
            load,
            capacity_kbit_s: 0,
        }));
        self.give(node, Part::Data, Event::Reach(site, rtt));
        self.tell_links(node);
    }

    /// The control half of a node hears which links there are.
    pub(crate) fn tell_links(&mut self, node: usize) {
        let Some(life) = self.life(node, Part::Control) else {
            return;
        };
        let end = End {
            node,
            part: Part::Control,
            life,
        };
        let event = Box::new(Event::Links(self.nodes[node].links.clone()));
        self.agenda
            .put(self.now + LOCAL, Happening::Brain { end, event });
    }

    /// The tunnel between two nodes, as the first of them believes.
    pub(crate) fn tunnel_from(&self, node: usize, other: usize) -> Option<((usize, usize), u64)> {
        [(node, other), (other, node)].into_iter().find_map(|pair| {
            let tunnel = self.tunnels.get(&pair)?;
            let side = usize::from(tunnel.ends[0] != node);
            (tunnel.id > 0 && tunnel.seen[side]).then_some((pair, tunnel.id))
        })
    }

    /// Do octets pass between two nodes?
    pub(crate) fn is_linked(&self, node: usize, other: usize) -> bool {
        let up = |pair| self.tunnels.get(&pair).is_some_and(|tunnel| tunnel.up);
        up((node, other)) || up((other, node))
    }

    /// The nodes over which a stream to another one goes, itself the last.
    pub(crate) fn way(&self, node: usize, other: usize) -> Vec<usize> {
        let half = self.half(node, Part::Data);
        let way = half.and_then(|half| half.ways.get(&other));
        way.cloned().unwrap_or_else(|| vec![other])
    }

    /// Octets pass no more; each end that lives notices later: at once if the other was killed,
    /// by its own timer if there is only silence.
    pub(crate) fn break_tunnel(&mut self, pair: (usize, usize), manner: Manner) {
        let one_way = self.links[&pair_of(pair.0, pair.1)].one_way;
        let Some(tunnel) = self.tunnels.get_mut(&pair).filter(|tunnel| tunnel.up) else {
            return;
        };
        tunnel.up = false;
        tunnel.since = self.now;
        let id = tunnel.id;
        for side in [0, 1] {
            let after = match manner {
                Manner::Killed => one_way,
                Manner::Silent => {
                    Duration::from_millis(600) + self.random(Duration::from_millis(300))
                }
            };
            self.agenda
                .put(self.now + after, Happening::Lost { pair, id, side });
        }
    }

    /// One end notices that its tunnel is dead.
    pub(crate) fn lost(&mut self, pair: (usize, usize), id: u64, side: usize) {
        let Some(tunnel) = self.tunnels.get_mut(&pair).filter(|tunnel| tunnel.id == id) else {
            return;
        };
        if !std::mem::replace(&mut tunnel.seen[side], false) {
            return;
        }
        let (node, other) = (tunnel.ends[side], tunnel.ends[1 - side]);
        self.reach(node, other, None);
        self.end_streams_of(pair, id, &[side]);
    }

    fn end_streams_of(&mut self, pair: (usize, usize), id: u64, sides: &[usize]) {
        let of_tunnel = |s: &Stream| s.tunnels.contains(&(pair, id));
        let streams: Vec<(u64, [End; 2], Duration, usize)> = self
            .streams
            .iter()
            .filter(|(_, s)| of_tunnel(s))
            .map(|(id, s)| (*id, s.ends, s.one_way, s.tunnels.len()))
            .collect();
        for (stream, ends, one_way, tunnels) in streams {
            for end in ends {
                if tunnels > 1 {
                    // Who passes it on hangs up toward both ends.
                    self.agenda
                        .put(self.now + one_way, Happening::Ended { stream, at: end });
                    continue;
                }
                if sides.iter().any(|side| [pair.0, pair.1][*side] == end.node) {
                    self.ended(stream, end);
                }
            }
        }
    }

    fn dial_sessions(&mut self, node: usize) {
        let Some(half) = self.half(node, Part::Control) else {
            return;
        };
        let table = half.table.clone();
        let talks_to = |other: u32| half.streams.values().any(|peer| peer.0 == other);
        let local = !talks_to(0);
        let mut wanted = Vec::new();
        for (site, neighbor) in table.iter().flat_map(|table| &table.fabric.neighbors) {
            if neighbor.dial && !talks_to(neighbor.node.0) {
                wanted.push((self.planet.index[site], *neighbor));
            }
        }
        let (Some(mine), id) = (self.life(node, Part::Control), self.nodes[node].id) else {
            return;
        };
        let here = End {
            node,
            part: Part::Control,
            life: mine,
        };
        if let (true, Some(life)) = (local, self.life(node, Part::Data)) {
            let there = End {
                node,
                part: Part::Data,
                life,
            };
            self.open_stream([here, there], Vec::new(), LOCAL, bgp::PeerConfig::local(id));
        }
        for (other, neighbor) in wanted {
            let Some(table) = &table else { continue };
            // Over others only between PoPs, and where there is no tunnel.
            let hops = match self.tunnel_from(node, other) {
                None if node < POPS && other < POPS => self.way(node, other),
                Some(_) | None => vec![other],
            };
            let froms = std::iter::once(node).chain(hops.iter().copied());
            let tunnels: Option<Vec<_>> = froms
                .zip(hops.iter().copied())
                .map(|(from, to)| self.tunnel_from(from, to))
                .collect();
            let Some(tunnels) = tunnels else { continue };
            // Whoever listens there now, if anybody; checked when the stream arrives.
            let life = self.life(other, Part::Control).unwrap_or(0);
            let there = End {
                node: other,
                part: Part::Control,
                life,
            };
            let one_way = tunnels
                .iter()
                .map(|((a, b), _)| self.links[&pair_of(*a, *b)].one_way)
                .sum();
            let peer = peer_config(table, &neighbor);
            self.open_stream([here, there], tunnels, one_way, peer);
        }
    }

    fn open_stream(
        &mut self,
        ends: [End; 2],
        tunnels: Vec<((usize, usize), u64)>,
        one_way: Duration,
        peer: bgp::PeerConfig,
    ) {
        self.next_id += 1;
        let id = self.next_id;
        let stream = Stream {
            ends,
            tunnels,
            one_way,
            last: [self.now; 2],
        };
        self.streams.insert(id, stream);
        self.agenda
            .put(self.now + one_way, Happening::Opened { stream: id });
        self.begin_session(id, ends[0], peer);
    }

    /// A stream arrives: the acceptor takes it if it knows who dials.
    pub(crate) fn opened(&mut self, id: u64) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        if !self.passes(stream) {
            return;
        }
        let [from, to] = stream.ends;
        let site = &self.planet.sites[from.node];
        let half = self
            .half(to.node, to.part)
            .filter(|half| half.life == to.life);
        let peer = half.and_then(|half| match to.part {
            Part::Data => Some(bgp::PeerConfig::local(self.nodes[to.node].id)),
            Part::Control => {
                let table = half.table.as_ref()?;
                Some(peer_config(table, table.fabric.neighbors.get(site)?))
            }
        });
        match peer {
            Some(peer) => self.begin_session(id, to, peer),
            None => self.hang_up(id, to),
        }
    }

    fn begin_session(&mut self, stream: u64, end: End, peer: bgp::PeerConfig) {
        let now = self.now;
        let Some(half) = self.half_mut(end.node, end.part) else {
            return;
        };
        half.streams.insert(stream, peer.id);
        half.fabric.connected(now, StreamId(stream), peer);
        self.drive(end.node, end.part);
    }

    /// Octets into a stream; a lost packet holds up everything behind it.
    pub(crate) fn send(&mut self, id: u64, from: End, octets: Bytes) {
        let penalty = match self.streams.get(&id) {
            Some(stream) if !stream.tunnels.is_empty() && self.rng.chance(1, 100) => {
                Duration::from_millis(200) + self.random(Duration::from_millis(200))
            }
            Some(_) => Duration::ZERO,
            None => return,
        };
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        let to = usize::from(stream.ends[0] == from);
        let at = (self.now + stream.one_way + penalty).max(stream.last[to]);
        stream.last[to] = at;
        self.agenda.put(
            at,
            Happening::Octets {
                stream: id,
                to: stream.ends[to],
                octets,
            },
        );
    }

    /// One end is done with the stream: the other hears of it, if octets pass.
    pub(crate) fn hang_up(&mut self, id: u64, from: End) {
        let Some(stream) = self.streams.get(&id).filter(|stream| self.passes(stream)) else {
            return;
        };
        let to = usize::from(stream.ends[0] == from);
        let at = (self.now + stream.one_way).max(stream.last[to]);
        self.agenda.put(
            at,
            Happening::Ended {
                stream: id,
                at: stream.ends[to],
            },
        );
    }

    pub(crate) fn arrived(&mut self, id: u64, at: End, octets: &[u8]) {
        let passes = self
            .streams
            .get(&id)
            .is_some_and(|stream| self.passes(stream));
        let now = self.now;
        let half = self
            .half_mut(at.node, at.part)
            .filter(|half| half.life == at.life);
        if let (true, Some(half)) = (passes, half) {
            half.fabric.handle_bytes(now, StreamId(id), octets);
            self.drive(at.node, at.part);
        }
    }

    /// The end of the stream reaches one end.
    pub(crate) fn ended(&mut self, id: u64, at: End) {
        let now = self.now;
        let half = self
            .half_mut(at.node, at.part)
            .filter(|half| half.life == at.life);
        if let Some(half) = half.filter(|half| half.streams.contains_key(&id)) {
            half.fabric.handle_closed(now, StreamId(id));
            self.drive(at.node, at.part);
        }
    }

    fn passes(&self, stream: &Stream) -> bool {
        stream.tunnels.iter().all(|(pair, id)| {
            self.tunnels
                .get(pair)
                .is_some_and(|tunnel| tunnel.id == *id && tunnel.up)
        })
    }
}

/// The key of the link between two sites.
pub(crate) fn pair_of(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}
