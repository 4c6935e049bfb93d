//! The loop: takes the next event off the agenda, until the end.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use base::{Instant, Rng};
use bytes::Bytes;
use plan::{Event, Me, Part};

use crate::{
    Options, Report,
    agenda::Agenda,
    check::{Ledger, Violation},
    faults::{self, Fault, Manner},
    network::{End, Link, Stream, Tunnel, pair_of},
    node::{Disk, Node},
    planet::{POPS, Planet},
    trace::Trace,
    traffic::{Lines, Traffic},
};

/// Clocks are up to ten minutes apart.
const SKEW_MS: u64 = 600_000;

#[derive(Debug)]
pub(crate) enum Happening {
    /// A timer of a half.
    Wake {
        node: usize,
        part: Part,
        life: u64,
    },
    /// An answer to a Brain's effect.
    Brain {
        end: End,
        event: Box<Event>,
    },
    /// Octets arrive.
    Octets {
        stream: u64,
        to: End,
        octets: Bytes,
    },
    /// A stream arrives at whom it was dialled to.
    Opened {
        stream: u64,
    },
    /// The end of a stream arrives.
    Ended {
        stream: u64,
        at: End,
    },
    /// A tunnel's handshake is over.
    Dialled {
        pair: (usize, usize),
        lives: [Option<u64>; 2],
    },
    /// One end of a tunnel notices that it is dead.
    Lost {
        pair: (usize, usize),
        id: u64,
        side: usize,
    },
    /// The ends of a tunnel measure.
    Measure {
        pair: (usize, usize),
        id: u64,
    },
    /// A node gets what it should run.
    Bundle {
        node: usize,
    },
    /// A node starts for the first time, or looks for what is missing.
    Tend {
        node: usize,
    },
    Fault(Fault),
    /// The checkers look at everything.
    Sweep,
    /// A user asks for something.
    Request,
    /// Traffic goes on.
    Carry,
}

#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) now: Instant,
    pub(crate) agenda: Agenda<Happening>,
    pub(crate) rng: Rng,
    pub(crate) planet: Planet,
    pub(crate) nodes: Vec<Node>,
    pub(crate) links: BTreeMap<(usize, usize), Link>,
    /// By dialler and acceptor.
    pub(crate) tunnels: BTreeMap<(usize, usize), Tunnel>,
    pub(crate) streams: BTreeMap<u64, Stream>,
    pub(crate) next_id: u64,
    /// The dead ones, how, and since when.
    pub(crate) endpoints: BTreeMap<(usize, SocketAddr), (Manner, Instant)>,
    pub(crate) trace: Trace,
    pub(crate) ledger: Ledger,
    /// The endpoint whose death one node does not hear of, by the planted bug.
    pub(crate) bug: Option<(usize, bgp::Key)>,
    /// Those that are filled.
    pub(crate) lines: Option<Lines>,
    pub(crate) options: Options,
    events: u64,
}

impl Sim {
    pub(crate) fn new(options: &Options) -> Self {
        let mut rng = Rng::new(options.seed);
        let planet = Planet::new(&mut rng);
        let name: base::Name = "n1".parse().expect("a name");
        let mut skews = Rng::new(rng.next_u64());
        let mut node = |site: &base::SiteName| Node {
            me: Me {
                site: site.clone(),
                node: name.clone(),
            },
            id: planet.ids.node(site, &name).expect("allocated"),
            disk: Disk::default(),
            halves: [None, None],
            since: [Instant::ZERO; 2],
            fetching: false,
            links: Vec::new(),
            skew: Duration::from_millis(skews.below(SKEW_MS)),
        };
        let nodes: Vec<Node> = planet.sites.iter().map(&mut node).collect();
        let mut sim = Sim {
            now: Instant::ZERO,
            agenda: Agenda::new(),
            nodes,
            links: BTreeMap::new(),
            tunnels: BTreeMap::new(),
            streams: BTreeMap::new(),
            next_id: 0,
            endpoints: BTreeMap::new(),
            trace: Trace::default(),
            ledger: Ledger::default(),
            bug: None,
            lines: None,
            options: options.clone(),
            events: 0,
            planet,
            rng,
        };
        sim.lay_links();
        match options.traffic {
            Some(traffic) => sim.plan_traffic(traffic),
            None => sim.plan_events(),
        }
        sim
    }

    /// One way between a PoP and any other site: 1 to 40 ms.
    fn lay_links(&mut self) {
        for a in 0..POPS {
            for b in a + 1..self.nodes.len() {
                let one_way = match self.options.traffic {
                    Some(_) => Duration::from_millis(20),
                    None => Duration::from_millis(1) + self.random(Duration::from_millis(39)),
                };
                self.links.insert(pair_of(a, b), Link { one_way, cuts: 0 });
            }
        }
    }

    fn plan_starts(&mut self) {
        for node in 0..self.nodes.len() {
            let at = Instant::ZERO + self.random(Duration::from_secs(1));
            self.agenda.put(at, Happening::Fault(Fault::Start(node)));
            self.agenda.put(at, Happening::Tend { node });
        }
    }

    fn plan_traffic(&mut self, traffic: Traffic) {
        self.plan_starts();
        self.lay_traffic(traffic);
    }

    fn plan_events(&mut self) {
        self.plan_starts();
        let mut pairs = Vec::new();
        for (node, bundle) in self.planet.bundles.iter().enumerate() {
            for row in &bundle.sites {
                let other = self.planet.index[&row.name];
                if row.pop && other != node && row.nodes.iter().any(|n| !n.dial.is_empty()) {
                    pairs.push(pair_of(node, other));
                }
            }
        }
        for (at, fault) in faults::faults(&mut self.rng, self.nodes.len(), &pairs) {
            self.agenda.put(at, Happening::Fault(fault));
        }
        self.agenda
            .put(Instant::ZERO + Duration::from_millis(100), Happening::Sweep);
        self.agenda.put(
            Instant::ZERO + Duration::from_millis(2000),
            Happening::Request,
        );
    }

    pub(crate) fn run(mut self) -> Report {
        let whole = Instant::ZERO + faults::END;
        let until = self
            .options
            .until_ms
            .map(|ms| Instant::ZERO + Duration::from_millis(ms));
        let longest = match self.options.traffic {
            Some(_) => until,
            None => until.map(|until| until.min(whole)),
        };
        let end = longest.unwrap_or(whole);
        while let Some((at, what)) = self.agenda.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.events += 1;
            self.record(&what);
            self.happen(what);
        }
        if end == whole && self.options.traffic.is_none() {
            self.check_quiet();
        }
        let (violations, requests, answered) = self.ledger.finish();
        Report {
            seed: self.options.seed,
            digest: self.trace.finish(),
            violations,
            events: self.events,
            requests,
            answered,
            bug_fired: self.bug.is_some(),
            moves: self.lines.map(Lines::into_moves).unwrap_or_default(),
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Wake { node, part, life } => self.wake(node, part, life),
            Happening::Brain { end, event } => {
                if self.life(end.node, end.part) == Some(end.life) {
                    self.give(end.node, end.part, *event);
                }
            }
            Happening::Octets { stream, to, octets } => self.arrived(stream, to, &octets),
            Happening::Opened { stream } => self.opened(stream),
            Happening::Ended { stream, at } => self.ended(stream, at),
            Happening::Dialled { pair, lives } => self.dialled(pair, lives),
            Happening::Lost { pair, id, side } => self.lost(pair, id, side),
            Happening::Measure { pair, id } => self.measure(pair, id),
            Happening::Bundle { node } => self.bundle_arrives(node),
            Happening::Tend { node } => self.tend(node),
            Happening::Fault(fault) => self.fault(fault),
            Happening::Carry => self.carry(),
            Happening::Sweep => {
                self.sweep();
                self.agenda
                    .put(self.now + Duration::from_millis(100), Happening::Sweep);
            }
            Happening::Request => {
                self.request();
                self.agenda
                    .put(self.now + Duration::from_millis(10), Happening::Request);
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(a, b) => {
                self.links.get_mut(&pair_of(a, b)).expect("a link").cuts += 1;
                for pair in [(a, b), (b, a)] {
                    self.break_tunnel(pair, Manner::Silent);
                }
            }
            Fault::Heal(a, b) => {
                let link = self.links.get_mut(&pair_of(a, b)).expect("a link");
                link.cuts = link.cuts.saturating_sub(1);
            }
            Fault::Stop {
                node,
                halves,
                manner,
            } => self.stop(node, halves, manner),
            Fault::Start(node) => self.start(node),
            Fault::Die(node, address, manner) => {
                self.endpoints
                    .entry((node, address))
                    .or_insert((manner, self.now));
            }
            Fault::Recover(node, address) => {
                self.endpoints.remove(&(node, address));
            }
            Fault::Revise => self.planet.revise(&mut self.rng),
            Fault::Mend => {
                self.endpoints.clear();
                self.links.values_mut().for_each(|link| link.cuts = 0);
                for node in 0..self.nodes.len() {
                    self.start(node);
                }
            }
        }
    }

    /// Everything that happens is part of the digest, octets too.
    fn record(&mut self, what: &Happening) {
        let now = self.now;
        match what {
            Happening::Octets { stream, to, octets } => {
                self.trace.line(now, format_args!("octets {stream} {to:?}"));
                self.trace.octets(octets);
            }
            Happening::Brain { end, event } => match event.as_ref() {
                Event::Compiled(revision, result) => {
                    let ok = result.is_ok();
                    self.trace
                        .line(now, format_args!("{end:?} compiled {revision} {ok}"));
                }
                Event::Bundle(_)
                | Event::Probed(..)
                | Event::Trouble(..)
                | Event::Route(..)
                | Event::Reach(..)
                | Event::Links(_)
                | Event::Doubt(..)
                | Event::Loss(..)
                | Event::Load(..)
                | Event::Running(_)
                | Event::Outlier(..) => self.trace.line(now, format_args!("{end:?} {event:?}")),
            },
            Happening::Wake { .. }
            | Happening::Opened { .. }
            | Happening::Ended { .. }
            | Happening::Dialled { .. }
            | Happening::Lost { .. }
            | Happening::Measure { .. }
            | Happening::Bundle { .. }
            | Happening::Tend { .. }
            | Happening::Fault(_)
            | Happening::Sweep
            | Happening::Carry
            | Happening::Request => self.trace.line(now, format_args!("{what:?}")),
        }
    }

    pub(crate) fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.now, what);
    }

    pub(crate) fn bug_armed(&self) -> bool {
        let late = self.now >= Instant::ZERO + faults::DEATHS;
        self.options.lose_one_down && late
    }

    /// From zero up to `most`, by the seed.
    pub(crate) fn random(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(
            self.rng
                .below(u64::try_from(most.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    pub(crate) fn violation(&mut self, violation: Violation) {
        self.note(format_args!("{violation}"));
        self.ledger.add(violation);
    }
}
