//! Traffic that fills lines, as a fluid: what a line carries, and whether more wants to go over it.
//!
//! One PoP sends to one gateway over one of the two PoPs that the gateway is attached to; all lines
//! are as long as each other, and carry as much. What the ends of a line would measure goes through
//! the estimator that `tunnel` has, into the Brains, and by MESH to the others.

use std::{collections::BTreeMap, time::Duration};

use base::Instant;
use path::{Load, LoadEstimator};
use plan::{Event, Part};

use crate::{
    network::pair_of,
    planet::POPS,
    shell::{Happening, Sim},
};

/// How often a stream begins, and the lines are looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long a stream lasts.
const LASTS: Duration = Duration::from_secs(10);
/// When everything is up and known.
const BEGIN: Duration = Duration::from_secs(20);
/// How long a bulk transfer may go unnoticed.
pub(crate) const NOTICED: Duration = Duration::from_secs(10);
/// What each line carries, in octets a second: 100 Mbit/s.
const CAPACITY: u64 = 100 * MBIT;
const MBIT: u64 = 125_000;

/// What is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Megabits a second from one PoP to one gateway, in streams of ten seconds each. Each line
    /// carries 100.
    pub mbit: u64,
    /// From this second to that more wants to go over the last line of the way than it carries: over
    /// that which is the last one then.
    pub bulk: Option<(u64, u64)>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// When the way of what begins changed, after the first seconds.
    pub changes: Vec<Duration>,
    /// Streams that began, and of these, while there was a bulk transfer for ten seconds or more, over
    /// its line.
    pub streams: u64,
    /// See above.
    pub over_full: u64,
}

#[derive(Debug)]
struct Stream {
    hops: Vec<usize>,
    ends: Instant,
}

/// The state of it.
#[derive(Debug)]
pub(crate) struct Lines {
    traffic: Traffic,
    from: usize,
    to: usize,
    streams: Vec<Stream>,
    /// From one site to the other.
    estimators: BTreeMap<(usize, usize), LoadEstimator>,
    /// As the ends know it.
    loads: BTreeMap<(usize, usize), Load>,
    /// The line that is filled.
    bulk: Option<(usize, usize)>,
    way: Vec<usize>,
    moves: Moves,
}

impl Lines {
    pub(crate) const fn new(traffic: Traffic, from: usize, to: usize) -> Self {
        Lines {
            traffic,
            from,
            to,
            streams: Vec::new(),
            estimators: BTreeMap::new(),
            loads: BTreeMap::new(),
            bulk: None,
            way: Vec::new(),
            moves: Moves {
                changes: Vec::new(),
                streams: 0,
                over_full: 0,
            },
        }
    }

    /// How full the line between two sites is, as both know.
    pub(crate) fn load(&self, a: usize, b: usize) -> Load {
        let load = |from, to| self.loads.get(&(from, to)).copied().unwrap_or_default();
        load(a, b).max(load(b, a))
    }

    pub(crate) fn into_moves(self) -> Moves {
        self.moves
    }

    /// A stream begins over `way`, others end.
    fn turn(&mut self, now: Instant, way: Vec<usize>) {
        let passed = now.since(Instant::ZERO);
        let within = |(from, to): (u64, u64)| (from..to).contains(&passed.as_secs());
        let bulk = self.traffic.bulk.is_some_and(within);
        let last = |way: &[usize]| match way {
            [.., before, last] => Some((*before, *last)),
            _ => None,
        };
        self.bulk = match (bulk, self.bulk) {
            (true, None) => last(&way),
            (true, known) => known,
            (false, _) => None,
        };
        if !self.way.is_empty() && self.way != way {
            self.moves.changes.push(passed);
        }
        self.moves.streams += 1;
        let began = self.traffic.bulk.map(|(from, _)| Duration::from_secs(from));
        let noticed = began.is_some_and(|began| passed >= began + NOTICED);
        if noticed && self.bulk.is_some() && self.bulk == last(&way) {
            self.moves.over_full += 1;
        }
        self.way.clone_from(&way);
        self.streams.retain(|stream| stream.ends > now);
        let ends = now + LASTS;
        self.streams.push(Stream { hops: way, ends });
    }

    /// Every line is looked at; those whose load is another one.
    fn measure(&mut self, now: Instant) -> Vec<(usize, usize)> {
        let each = self.traffic.mbit * MBIT * u64::try_from(TICK.as_millis()).unwrap_or(0)
            / u64::try_from(LASTS.as_millis()).unwrap_or(1);
        let mut wanted: BTreeMap<(usize, usize), u64> = BTreeMap::new();
        for stream in &self.streams {
            let froms = std::iter::once(&self.from).chain(&stream.hops);
            for (from, to) in froms.zip(&stream.hops) {
                *wanted.entry((*from, *to)).or_default() += each;
            }
        }
        if let Some(line) = self.bulk {
            wanted.insert(line, u64::MAX);
        }
        for line in wanted.keys() {
            self.estimators.entry(*line).or_default();
        }
        let mut changed = Vec::new();
        for (line, estimator) in &mut self.estimators {
            let wanted = wanted.get(line).copied().unwrap_or_default();
            estimator.handle_rate(now, wanted.min(CAPACITY), wanted > CAPACITY);
            let load = estimator.load();
            if self.loads.insert(*line, load).unwrap_or_default() != load {
                changed.push(*line);
            }
        }
        changed
    }
}

impl Sim {
    /// Between a PoP and the first gateway that is not attached to it there are two ways.
    pub(crate) fn lay_traffic(&mut self, traffic: Traffic) {
        let bundle = &self.planet.bundles[POPS];
        let dials = |pop: usize| {
            let row = bundle
                .sites
                .iter()
                .find(|row| row.name == self.planet.sites[pop]);
            row.is_some_and(|row| row.nodes.iter().any(|node| !node.dial.is_empty()))
        };
        let from = (0..POPS).find(|pop| !dials(*pop)).expect("two of four");
        self.lines = Some(Lines::new(traffic, from, POPS));
        self.agenda.put(Instant::ZERO + BEGIN, Happening::Carry);
    }

    /// Streams begin and end, and the ends of lines measure what they carry.
    pub(crate) fn carry(&mut self) {
        let Some(mut lines) = self.lines.take() else {
            return;
        };
        let way = self.way(lines.from, lines.to);
        lines.turn(self.now, way);
        let changed = lines.measure(self.now);
        self.lines = Some(lines);
        for (from, to) in changed {
            for (node, other) in [(from, to), (to, from)] {
                self.loaded(node, other);
            }
        }
        self.agenda.put(self.now + TICK, Happening::Carry);
    }

    /// A node measures that its line to another one is so full.
    fn loaded(&mut self, node: usize, other: usize) {
        let lines = self.lines.as_ref();
        let load = lines.map_or(Load::default(), |lines| lines.load(node, other));
        let site = self.planet.sites[other].clone();
        self.note(format_args!("{node} {site} is {load:?}"));
        for link in &mut self.nodes[node].links {
            if link.peer == site {
                link.load = load.percent();
            }
        }
        self.give(node, Part::Data, Event::Load(site, load));
        self.tell_links(node);
    }

    /// How full a line is, as its ends know.
    pub(crate) fn load(&self, a: usize, b: usize) -> u8 {
        let (a, b) = pair_of(a, b);
        let lines = self.lines.as_ref();
        lines.map_or(0, |lines| lines.load(a, b).percent())
    }
}
