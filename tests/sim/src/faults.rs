//! What goes wrong, and when: made from the seed before anything runs.

use std::{net::SocketAddr, time::Duration};

use base::{Instant, Rng};

use crate::planet::POPS;

/// Faults begin here, when every site is up.
const BEGIN: Duration = Duration::from_secs(5);
/// No fault begins after this.
const LAST: Duration = Duration::from_secs(33);
/// Everything is mended.
const MEND: Duration = Duration::from_secs(37);
/// The last change of configuration.
const LAST_CHANGE: Duration = Duration::from_secs(38);
/// Some endpoints die for good: the world is quiet but for them.
pub(crate) const DEATHS: Duration = Duration::from_secs(42);
/// The end: long enough after the last restart for End-of-RIB to sweep what is stale.
pub(crate) const END: Duration = Duration::from_secs(58);

/// How something stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Killed: connections are refused or reset.
    Killed,
    /// Silent: nothing answers any more.
    Silent,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The link between two sites passes nothing.
    Cut(usize, usize),
    /// It does again.
    Heal(usize, usize),
    /// Halves of a node stop: control, data.
    Stop {
        node: usize,
        halves: [bool; 2],
        manner: Manner,
    },
    /// What is not running of a node starts.
    Start(usize),
    /// An endpoint dies.
    Die(usize, SocketAddr, Manner),
    /// It is well again.
    Recover(usize, SocketAddr),
    /// A tenant changes its configuration.
    Revise,
    /// Everything is mended.
    Mend,
}

/// The faults of a run, in no order. `pairs` are the links that carry tunnels.
pub(crate) fn faults(
    rng: &mut Rng,
    nodes: usize,
    pairs: &[(usize, usize)],
) -> Vec<(Instant, Fault)> {
    let mut out = Vec::new();
    let mut put = |at: Duration, fault| out.push((Instant::ZERO + at, fault));
    for _ in 0..25 {
        let (a, b) = pairs[index(rng, pairs.len())];
        let at = when(rng);
        put(at, Fault::Cut(a, b));
        put(at + between(rng, 1500, 6000), Fault::Heal(a, b));
    }
    for n in 0..24 {
        // The PoPs are few: every fourth restart is one of theirs.
        let node = if n % 4 == 0 {
            index(rng, POPS)
        } else {
            index(rng, nodes)
        };
        let halves = [[true, false], [false, true], [true, true]][index(rng, 3)];
        let manner = manner(rng);
        let at = when(rng);
        put(
            at,
            Fault::Stop {
                node,
                halves,
                manner,
            },
        );
        put(at + between(rng, 200, 3000), Fault::Start(node));
    }
    for _ in 0..60 {
        let (node, address) = endpoint(rng, nodes);
        let at = when(rng);
        put(at, Fault::Die(node, address, manner(rng)));
        put(
            at + between(rng, 100, 12_000),
            Fault::Recover(node, address),
        );
    }
    for _ in 0..12 {
        put(when(rng), Fault::Revise);
    }
    put(MEND, Fault::Mend);
    put(LAST_CHANGE, Fault::Revise);
    for _ in 0..8 {
        let (node, address) = endpoint(rng, nodes);
        put(
            DEATHS + between(rng, 0, 500),
            Fault::Die(node, address, manner(rng)),
        );
    }
    out
}

fn index(rng: &mut Rng, len: usize) -> usize {
    usize::try_from(rng.below(len as u64)).unwrap_or(0)
}

fn between(rng: &mut Rng, from_ms: u64, to_ms: u64) -> Duration {
    let (from, to) = (from_ms * 1_000_000, to_ms * 1_000_000);
    Duration::from_nanos(from + rng.below(to - from))
}

fn when(rng: &mut Rng) -> Duration {
    BEGIN + Duration::from_nanos(rng.below(u64::try_from((LAST - BEGIN).as_nanos()).unwrap_or(0)))
}

fn manner(rng: &mut Rng) -> Manner {
    if rng.chance(1, 2) {
        Manner::Killed
    } else {
        Manner::Silent
    }
}

fn endpoint(rng: &mut Rng, nodes: usize) -> (usize, SocketAddr) {
    let node = POPS + index(rng, nodes - POPS);
    let address = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:9000"][index(rng, 3)];
    (node, address.parse().expect("an address"))
}
