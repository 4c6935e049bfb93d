//! A node: two halves, each a Brain and a Fabric, and what they keep on disk.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::sync::{Bundle, Link};
use balance::ProbeOutcome;
use base::{Instant, NodeId, SiteName};
use bgp::{Fabric, FabricConfig, PeerConfig, PeerId, Seq, Sequence, StreamId};
use plan::{Brain, Compiled, Effect, Event, Me, Neighbor, Part, ProbeResult, Target, TargetKey};

use crate::{
    faults::Manner,
    network::{ASN, End},
    planet::{POPS, WALL},
    shell::{Happening, Sim},
};

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) me: Me,
    pub(crate) id: NodeId,
    pub(crate) disk: Disk,
    /// Control, data.
    pub(crate) halves: [Option<Half>; 2],
    /// Since when each half runs, or does not.
    pub(crate) since: [Instant; 2],
    /// A bundle is on its way.
    pub(crate) fetching: bool,
    /// Its tunnels, as its data half measures them.
    pub(crate) links: Vec<Link>,
    /// How far its clock is ahead of [`WALL`].
    pub(crate) skew: Duration,
}

/// What survives a restart.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) bundle: Option<Bundle>,
    mark: Option<Seq>,
}

#[derive(Debug)]
pub(crate) struct Half {
    /// Which incarnation this is: what was meant for an earlier one is not for it.
    pub(crate) life: u64,
    pub(crate) brain: Brain,
    pub(crate) fabric: Fabric,
    /// Streams that it has, and to whom.
    pub(crate) streams: BTreeMap<u64, PeerId>,
    pub(crate) table: Option<Arc<Compiled>>,
    /// To whom streams go over others, and over whom.
    pub(crate) ways: BTreeMap<usize, Vec<usize>>,
    wake: Option<Instant>,
}

/// How far a neighbour is trusted and what it hears, as in `node`.
pub(crate) fn peer_config(table: &Compiled, neighbor: &Neighbor) -> PeerConfig {
    match (table.numbers.pop, neighbor.pop) {
        (true, true) => PeerConfig::pop(neighbor.node),
        (true, false) => PeerConfig::gateway(neighbor.node, neighbor.site),
        (false, true | false) => PeerConfig::reflector(neighbor.node, table.numbers.tenant),
    }
}

pub(crate) fn index(part: Part) -> usize {
    match part {
        Part::Control => 0,
        Part::Data => 1,
    }
}

impl Sim {
    pub(crate) fn half(&self, node: usize, part: Part) -> Option<&Half> {
        self.nodes[node].halves[index(part)].as_ref()
    }

    pub(crate) fn half_mut(&mut self, node: usize, part: Part) -> Option<&mut Half> {
        self.nodes[node].halves[index(part)].as_mut()
    }

    pub(crate) fn life(&self, node: usize, part: Part) -> Option<u64> {
        self.half(node, part).map(|half| half.life)
    }

    /// Start what does not run of a node, from its disk.
    pub(crate) fn start(&mut self, node: usize) {
        for part in [Part::Data, Part::Control] {
            if self.half(node, part).is_some() {
                continue;
            }
            self.next_id += 1;
            let seed = self.rng.next_u64();
            let it = &mut self.nodes[node];
            let wall = WALL + it.skew + self.now.since(Instant::ZERO);
            let start = Sequence::start(wall, it.disk.mark);
            it.halves[index(part)] = Some(Half {
                life: self.next_id,
                brain: Brain::new(part, it.me.clone(), seed, start),
                fabric: Fabric::new(FabricConfig::new(it.id, ASN), self.now),
                streams: BTreeMap::new(),
                table: None,
                ways: BTreeMap::new(),
                wake: None,
            });
            it.since[index(part)] = self.now;
            if let Some(bundle) = it.disk.bundle.clone() {
                self.give(node, part, Event::Bundle(Box::new(bundle)));
            }
        }
        self.tell_links(node);
    }

    /// Stop halves of a node. Data owns the tunnels, so they break with it.
    pub(crate) fn stop(&mut self, node: usize, halves: [bool; 2], manner: Manner) {
        for part in [Part::Control, Part::Data] {
            if !halves[index(part)] {
                continue;
            }
            let Some(half) = self.nodes[node].halves[index(part)].take() else {
                continue;
            };
            self.nodes[node].since[index(part)] = self.now;
            if part == Part::Data {
                let pairs: Vec<(usize, usize)> = self.tunnels.keys().copied().collect();
                for pair in pairs.into_iter().filter(|(a, b)| *a == node || *b == node) {
                    self.break_tunnel(pair, manner);
                    let side = usize::from(pair.0 != node);
                    let id = self.tunnels[&pair].id;
                    self.lost(pair, id, side);
                }
            }
            // Even a half that fell silent lives on a host whose kernel ends its streams.
            let gone = End {
                node,
                part,
                life: half.life,
            };
            for stream in half.streams.into_keys() {
                self.hang_up(stream, gone);
            }
        }
    }

    pub(crate) fn bundle_arrives(&mut self, node: usize) {
        self.nodes[node].fetching = false;
        // Control asks for it, through the tunnels of data.
        if self.half(node, Part::Control).is_none() || self.half(node, Part::Data).is_none() {
            return;
        }
        let bundle = self.planet.bundles[node].clone();
        self.nodes[node].disk.bundle = Some(bundle.clone());
        for part in [Part::Data, Part::Control] {
            self.give(node, part, Event::Bundle(Box::new(bundle.clone())));
        }
    }

    /// One event for a Brain, and everything that follows from it.
    pub(crate) fn give(&mut self, node: usize, part: Part, event: Event) {
        let now = self.now;
        if let Some(half) = self.half_mut(node, part) {
            half.brain.handle(now, event);
            self.drive(node, part);
        }
    }

    pub(crate) fn wake(&mut self, node: usize, part: Part, life: u64) {
        let now = self.now;
        let half = self.half_mut(node, part).filter(|half| half.life == life);
        let Some(half) = half.filter(|half| half.wake == Some(now)) else {
            return;
        };
        half.wake = None;
        half.brain.handle_timeout(now);
        half.fabric.handle_timeout(now);
        self.drive(node, part);
    }

    /// Carry out what the machines of a half want, until they want nothing more.
    pub(crate) fn drive(&mut self, node: usize, part: Part) {
        let Some(mut half) = self.nodes[node].halves[index(part)].take() else {
            return;
        };
        let end = End {
            node,
            part,
            life: half.life,
        };
        loop {
            let mut quiet = true;
            while let Some(effect) = half.brain.poll_effect() {
                quiet = false;
                self.act(end, &mut half, effect);
            }
            quiet &= !half.fabric.drive(self.now);
            quiet &= self.listen(end, &mut half);
            while let Some(change) = half.fabric.poll_change() {
                quiet = false;
                self.changed(end, &mut half, change);
            }
            if quiet {
                break;
            }
        }
        self.talk(end, &mut half);
        let timers = [half.brain.poll_timeout(), half.fabric.poll_timeout()];
        if let Some(next) = timers.into_iter().flatten().min() {
            let next = next.max(self.now + Duration::from_nanos(1));
            if half.wake.is_none_or(|at| next < at) {
                half.wake = Some(next);
                self.agenda.put(
                    next,
                    Happening::Wake {
                        node,
                        part,
                        life: half.life,
                    },
                );
            }
        }
        self.nodes[node].halves[index(part)] = Some(half);
    }

    fn act(&mut self, end: End, half: &mut Half, effect: Effect) {
        let (node, part) = (end.node, end.part);
        match effect {
            Effect::Compile { bundle, cells } => {
                let result = plan::compile(&bundle, half.brain.me(), &cells).map(Box::new);
                let at =
                    self.now + Duration::from_millis(1) + self.random(Duration::from_millis(20));
                let event = Event::Compiled(bundle.revision, result);
                self.agenda.put(
                    at,
                    Happening::Brain {
                        end,
                        event: Box::new(event),
                    },
                );
            }
            Effect::Publish(table) => {
                self.note(format_args!("{node} {part:?} publish {}", table.revision));
                if part == Part::Control {
                    self.probes(node, &table);
                }
                half.fabric
                    .set_site_table(self.now, table.site_table.clone());
                half.table = Some(table);
            }
            Effect::Reject(revision, error) => {
                self.rejected(node, revision, &error);
            }
            Effect::Endpoints { cell, set } => {
                self.check_set(node, &set);
                cell.store(set);
            }
            Effect::EndpointDown {
                tenant,
                service,
                endpoint,
            } => {
                self.note(format_args!("{node} down {tenant} {service} {endpoint}"));
            }
            // No site of this planet has a router.
            Effect::Vips(_) => {}
            Effect::Ways(over) => {
                let index = |site: &SiteName| self.planet.index[site];
                let ways = over.iter();
                half.ways = ways
                    .map(|(to, hops)| (index(to), hops.iter().map(index).collect()))
                    .collect();
                self.check_ways(node, &half.ways);
            }
            Effect::Probe(key, target) => self.probe(end, key, &target),
            Effect::Originate(route) => {
                // The mark is on disk before anybody hears of the number.
                self.nodes[node].disk.mark = half.brain.sequence();
                self.check_sequence(node, &route);
                half.fabric.originate(&route);
            }
            Effect::Withdraw(key) => {
                self.note(format_args!("{node} withdraw {key:?}"));
                half.fabric.withdraw(&key);
            }
        }
    }

    fn probe(&mut self, end: End, key: TargetKey, target: &Target) {
        let spread = self.random(Duration::from_micros(1800));
        let quick = Duration::from_micros(200) + spread;
        let (after, outcome) = match self.endpoints.get(&(end.node, key.address)) {
            None => (quick, ProbeOutcome::Success),
            Some((Manner::Killed, _)) => (quick, ProbeOutcome::Refused),
            Some((Manner::Silent, _)) => (target.timeout, ProbeOutcome::Failure),
        };
        let rtt = (outcome == ProbeOutcome::Success).then_some(quick);
        let event = Box::new(Event::Probed(key, ProbeResult { outcome, rtt }));
        self.agenda
            .put(self.now + after, Happening::Brain { end, event });
    }

    /// What there is to say of sessions; true if nothing.
    fn listen(&mut self, end: End, half: &mut Half) -> bool {
        let mut quiet = true;
        while let Some(event) = half.fabric.poll_event() {
            quiet = false;
            self.trace.line(self.now, format_args!("{end:?} {event:?}"));
            if let bgp::Event::Closed(StreamId(stream), _, last) = event {
                for octets in last {
                    self.send(stream, end, octets);
                }
                half.streams.remove(&stream);
                self.hang_up(stream, end);
            }
        }
        quiet
    }

    /// The best route of a key changed: in the data half its Brain hears of it.
    fn changed(&mut self, end: End, half: &mut Half, change: bgp::Change) {
        if end.part == Part::Control {
            return;
        }
        let value = change.best.map(|route| route.value);
        if self.bug_takes(end.node, half, &change.key, value.as_ref()) {
            return;
        }
        half.brain.handle(self.now, Event::Route(change.key, value));
    }

    /// Does the planted bug lose this one? It loses every word of one endpoint's death, whichever
    /// reflector it comes from.
    fn bug_takes(
        &mut self,
        node: usize,
        half: &Half,
        key: &bgp::Key,
        value: Option<&bgp::Value>,
    ) -> bool {
        // Not one that is withdrawn: what is not configured any more did not die.
        let down = value.is_some_and(|value| value.state() == Some(bgp::State::Unhealthy));
        // One that somebody is led to from there.
        let endpoint = match (key, &half.table) {
            (bgp::Key::Endpoint { rd, service, .. }, Some(table)) => {
                let tenant = table.slots.get(&(rd.site, rd.slot));
                tenant.is_some_and(|tenant| table.services.contains_key(&(*tenant, *service)))
            }
            _ => false,
        };
        if self.bug.is_none() && self.bug_armed() && node < POPS && endpoint && down {
            self.bug = Some((node, key.clone()));
            self.note(format_args!("{node} loses {key:?} by the planted bug"));
        }
        let lost = self.bug.as_ref();
        down && lost.is_some_and(|(at, lost)| *at == node && lost == key)
    }

    /// Tell the neighbours.
    fn talk(&mut self, end: End, half: &mut Half) {
        for stream in half.streams.keys() {
            while let Some(octets) = half.fabric.transmit(StreamId(*stream)) {
                self.send(*stream, end, octets);
            }
        }
    }
}
