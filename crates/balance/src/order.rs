//! What an algorithm needs beforehand of the members of one tier.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{Algorithm, Endpoint, EndpointKey, load::Loads, set::Member};

/// Turns of a rotation, points of a ring: no set grows beyond that.
const MAX_TURNS: u64 = 4096;
const MAX_POINTS: usize = 16_384;
/// Points of the heaviest endpoint on a ring.
const POINTS: usize = 160;
/// Sizes of a Maglev table, all prime: the least that has a hundred places for each endpoint.
const PLACES: [usize; 4] = [1009, 4099, 16_411, 65_537];

/// Positions of members, in the order or at the places of the algorithm.
#[derive(Debug, Default)]
pub(crate) enum Order {
    /// Nothing beforehand: members are drawn.
    #[default]
    Drawn,
    /// Everyone in turn, by weight, evenly interleaved; and whose turn it is.
    Rotation(Vec<u32>, AtomicU64),
    /// Points on a ring (Karger et al. 1997), sorted.
    Ring(Vec<(u64, u32)>),
    /// A table of a prime number of places (Eisenbud et al. 2016, §3.4).
    Maglev(Vec<u32>),
    /// What all have said of their load.
    Loads(Loads),
}

/// A hash that is the same on every node and in every version: FNV-1a, its bits then mixed.
#[must_use]
pub fn stable_hash(octets: &[u8]) -> u64 {
    let fnv = octets
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, octet| {
            (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01B3)
        });
    mixed(fnv)
}

/// The finalizer of `splitmix64` (Steele et al. 2014).
pub(crate) const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

fn identity(key: &EndpointKey) -> u64 {
    stable_hash(key.to_string().as_bytes())
}

impl Order {
    pub(crate) fn new(algorithm: Algorithm, endpoints: &[Endpoint], members: &[Member]) -> Self {
        match algorithm {
            Algorithm::LeastRequest | Algorithm::Random | Algorithm::PeakEwma => Order::Drawn,
            Algorithm::WeightedByLoad => Order::Loads(Loads::default()),
            Algorithm::RoundRobin => rotation(endpoints, members),
            Algorithm::RingHash => ring(endpoints, members),
            Algorithm::Maglev => maglev(endpoints, members),
        }
    }
}

fn weights(members: &[Member]) -> impl Iterator<Item = u64> {
    members.iter().map(|member| u64::from(member.weight))
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn rotation(endpoints: &[Endpoint], members: &[Member]) -> Order {
    let common = weights(members).fold(0, gcd).max(1);
    let sum: u64 = weights(members).map(|weight| weight / common).sum();
    let turns = |weight: u64| {
        let turns = weight / common;
        let scaled = if sum > MAX_TURNS {
            turns * MAX_TURNS / sum
        } else {
            turns
        };
        scaled.max(1)
    };
    // The k-th turn of a member of weight w is at (k + 1/2) / w.
    let mut all: Vec<(u64, u32)> = Vec::new();
    for (at, weight) in weights(members).enumerate() {
        let turns = turns(weight);
        all.extend((0..turns).map(|k| (((2 * k + 1) << 32) / (2 * turns), index(at))));
    }
    all.sort_unstable();
    // Sets follow each other quickly while endpoints flap: each goes on where the other was.
    let served = members
        .iter()
        .filter_map(|member| endpoints.get(member.index));
    let served = served.map(|endpoint| endpoint.stats.requests()).sum();
    Order::Rotation(
        all.into_iter().map(|(_, at)| at).collect(),
        AtomicU64::new(served),
    )
}

fn ring(endpoints: &[Endpoint], members: &[Member]) -> Order {
    let most = weights(members).max().unwrap_or(1).max(1);
    let each = POINTS.min(MAX_POINTS / members.len().max(1)).max(1) as u64;
    let mut points = Vec::new();
    for (at, member) in members.iter().enumerate() {
        let Some(endpoint) = endpoints.get(member.index) else {
            continue;
        };
        let own = identity(&endpoint.key);
        let count = (u64::from(member.weight) * each / most).max(1);
        let place = |nth: u64| mixed(own.wrapping_add(nth.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        points.extend((0..count).map(|nth| (place(nth), index(at))));
    }
    points.sort_unstable();
    Order::Ring(points)
}

fn maglev(endpoints: &[Endpoint], members: &[Member]) -> Order {
    let wanted = members.len().saturating_mul(100);
    let fits = PLACES.into_iter().find(|places| *places >= wanted);
    let places = fits.unwrap_or(PLACES[PLACES.len() - 1]) as u64;
    // Each walks the table by a step of its own; a prime number of places makes it meet all.
    struct Walker {
        at: u32,
        place: u64,
        step: u64,
        weight: u64,
        due: u64,
    }
    let mut walkers = Vec::new();
    for (at, member) in members.iter().enumerate() {
        if let Some(endpoint) = endpoints.get(member.index) {
            let own = identity(&endpoint.key);
            walkers.push(Walker {
                at: index(at),
                place: own % places,
                step: mixed(own) % (places - 1) + 1,
                weight: u64::from(member.weight),
                due: 0,
            });
        }
    }
    let most = weights(members).max().unwrap_or(1).max(1);
    let mut table = vec![u32::MAX; usize::try_from(places).unwrap_or(0)];
    let mut left = if walkers.is_empty() { 0 } else { table.len() };
    while left > 0 {
        for walker in &mut walkers {
            // Of the lighter ones only some rounds.
            walker.due += walker.weight;
            if walker.due < most || left == 0 {
                continue;
            }
            walker.due -= most;
            loop {
                let place = usize::try_from(walker.place).unwrap_or(0);
                walker.place = (walker.place + walker.step) % places;
                if let Some(free) = table.get_mut(place).filter(|at| **at == u32::MAX) {
                    *free = walker.at;
                    left -= 1;
                    break;
                }
            }
        }
    }
    Order::Maglev(table)
}

impl Order {
    /// The member for a request of this hash, the first that `may` be taken. `None`: the
    /// algorithm has no order, or nothing to go by; or nobody may.
    pub(crate) fn choose(&self, hash: Option<u64>, may: impl Fn(u32) -> bool) -> Option<u32> {
        match self {
            Order::Drawn | Order::Loads(_) => None,
            Order::Rotation(turns, next) => {
                let length = turns.len() as u64;
                let start = next.fetch_add(1, Relaxed) % length.max(1);
                (0..length)
                    .filter_map(|on| {
                        let at = usize::try_from((start + on) % length).ok()?;
                        turns.get(at).copied()
                    })
                    .find(|at| may(*at))
            }
            Order::Ring(points) => {
                let start = points.partition_point(|(place, _)| *place < hash.unwrap_or(0));
                let (before, behind) = points.split_at(start);
                let mut around = behind.iter().chain(before).filter(|_| hash.is_some());
                around.find(|(_, at)| may(*at)).map(|(_, at)| *at)
            }
            Order::Maglev(table) => {
                let places = table.len() as u64;
                let look = |hash: u64| {
                    let at = usize::try_from(hash % places.max(1)).ok()?;
                    table.get(at).copied()
                };
                // Whoever is not there is stood in for by others, not by one.
                let mut hashes = std::iter::successors(hash, |hash| Some(mixed(*hash)));
                let mut first = hashes.by_ref().take(64).filter_map(look);
                first.find(|at| may(*at))
            }
        }
    }
}
