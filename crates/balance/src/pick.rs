//! The pick, inside the nearest tier that can take the request.

use std::cmp::Ordering;

use base::{Instant, Rng};

use crate::{
    Algorithm, Endpoint, EndpointKey, EndpointSet,
    order::{Order, mixed},
    set::{ALL, Member, Tier},
};

/// Choose an endpoint that is not in `tried`, from the nearest tier that can take the request and
/// still has one, or else from any.
///
/// By default with the power of two choices (Mitzenmacher 2001): two different endpoints are drawn
/// in proportion to their weights and the one with fewer requests in flight for its weight is
/// taken; on a tie the first drawn, so that sequential requests spread by weight. `hash` is that
/// of the request, for the algorithms that go by it; without one they draw. `None`: every eligible
/// endpoint was tried, or there is none. `tried` is short (bounded by the number of tries).
#[must_use]
pub fn pick<'a>(
    set: &'a EndpointSet,
    now: Instant,
    rng: &mut Rng,
    tried: &[EndpointKey],
    hash: Option<u64>,
) -> Option<&'a Endpoint> {
    let own = tier(set, rng, hash);
    let others = set.tiers().iter().enumerate();
    let others = others.filter_map(|(at, tier)| (at != own).then_some(tier));
    let mut all = set.tiers().get(own).into_iter().chain(others);
    let index = all.find_map(|tier| {
        if let Some(index) = ordered(set, tier, tried, hash) {
            return Some(index);
        }
        let mut draw = |members: &[Member]| match set.algorithm() {
            Algorithm::LeastRequest => better_of_two(set, members, rng, requests),
            Algorithm::PeakEwma => better_of_two(set, members, rng, |e| waiting(e, now)),
            Algorithm::WeightedByLoad => by_load(set, tier, members, rng, now),
            Algorithm::RoundRobin | Algorithm::Random | Algorithm::RingHash | Algorithm::Maglev => {
                any(members, rng)
            }
        };
        if tried.is_empty() {
            draw(&tier.members)
        } else {
            draw(&untried(set, tier, tried))
        }
    })?;
    set.endpoints().get(index)
}

/// The tier whose share the request falls into: of one hash always the same.
fn tier(set: &EndpointSet, rng: &mut Rng, hash: Option<u64>) -> usize {
    let tiers = set.tiers();
    if tiers.first().is_none_or(|first| first.share_upto >= ALL) {
        return 0;
    }
    let point = hash.map_or_else(|| rng.below(ALL), |hash| mixed(!hash) % ALL);
    tiers.partition_point(|tier| tier.share_upto <= point)
}

/// By the order that the algorithm has made, if any.
fn ordered(
    set: &EndpointSet,
    tier: &Tier,
    tried: &[EndpointKey],
    hash: Option<u64>,
) -> Option<usize> {
    let index = |at: u32| Some(tier.members.get(at as usize)?.index);
    let fresh = |at: u32| {
        let endpoint = index(at).and_then(|index| set.endpoints().get(index));
        endpoint.is_some_and(|endpoint| !tried.contains(&endpoint.key))
    };
    tier.order.choose(hash, fresh).and_then(index)
}

fn any(members: &[Member], rng: &mut Rng) -> Option<usize> {
    let total = members.last()?.upto;
    Some(members.get(drawn(members, rng.below(total)))?.index)
}

fn by_load(
    set: &EndpointSet,
    tier: &Tier,
    members: &[Member],
    rng: &mut Rng,
    now: Instant,
) -> Option<usize> {
    let Order::Loads(loads) = &tier.order else {
        return any(members, rng);
    };
    let total = members.last()?.upto;
    let policy = set.by_load()?;
    let draw = |rng: &mut Rng| members.get(drawn(members, rng.below(total)));
    loads.choose(set.endpoints(), &tier.members, (now, policy), rng, draw)
}

fn untried(set: &EndpointSet, tier: &Tier, tried: &[EndpointKey]) -> Vec<Member> {
    let mut sum = 0;
    tier.members
        .iter()
        .filter(|m| {
            set.endpoints()
                .get(m.index)
                .is_some_and(|e| !tried.contains(&e.key))
        })
        .map(|m| {
            sum += u64::from(m.weight);
            Member { upto: sum, ..*m }
        })
        .collect()
}

fn better_of_two(
    set: &EndpointSet,
    members: &[Member],
    rng: &mut Rng,
    load: impl Fn(&Endpoint) -> u64,
) -> Option<usize> {
    let total = members.last()?.upto;
    let first_at = drawn(members, rng.below(total));
    let first = members.get(first_at)?;
    if members.len() == 1 {
        return Some(first.index);
    }
    // The second is drawn from the rest: skip over the span of the first.
    let start = first.upto - u64::from(first.weight);
    let mut point = rng.below(total - u64::from(first.weight));
    if point >= start {
        point += u64::from(first.weight);
    }
    let second = members.get(drawn(members, point))?;
    let load = |member: &Member| Load {
        load: set.endpoints().get(member.index).map_or(0, &load),
        weight: u64::from(member.weight),
    };
    match load(first).cmp_fraction(&load(second)) {
        Ordering::Less | Ordering::Equal => Some(first.index),
        Ordering::Greater => Some(second.index),
    }
}

/// The member whose span of cumulative weights holds `point`.
fn drawn(members: &[Member], point: u64) -> usize {
    members.partition_point(|m| m.upto <= point)
}

/// Load for each unit of weight, as a fraction.
struct Load {
    load: u64,
    weight: u64,
}

impl Load {
    fn cmp_fraction(&self, other: &Load) -> Ordering {
        let scaled = |load: u64, weight: u64| u128::from(load) * u128::from(weight);
        scaled(self.load, other.weight).cmp(&scaled(other.load, self.weight))
    }
}

fn requests(endpoint: &Endpoint) -> u64 {
    u64::from(endpoint.stats.in_flight())
}

/// How long one more request would wait there, in nanoseconds. A new one gets one request, and no
/// second before it has answered while others answer within a second.
fn waiting(endpoint: &Endpoint, now: Instant) -> u64 {
    let running = requests(endpoint);
    let each = endpoint.stats.latency(now).as_nanos();
    let each = match u64::try_from(each).unwrap_or(u64::MAX) {
        0 if running > 0 => 1_000_000_000,
        known => known.max(1),
    };
    each.saturating_mul(running + 1)
}

#[cfg(test)]
mod tests;
