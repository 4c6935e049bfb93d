//! The pick, inside the nearest tier.

use std::cmp::Ordering;

use base::Rng;

use crate::{
    Algorithm, Endpoint, EndpointKey, EndpointSet,
    set::{Member, Tier},
};

/// Choose an endpoint that is not in `tried`, from the nearest tier that still has one.
///
/// By default with the power of two choices (Mitzenmacher 2001): two different endpoints are drawn
/// in proportion to their weights and the one with fewer requests in flight for its weight is
/// taken; on a tie the first drawn, so that sequential requests spread by weight. `hash` is that
/// of the request, for the algorithms that go by it; without one they draw. `None`: every eligible
/// endpoint was tried, or there is none. `tried` is short (bounded by the number of tries).
#[must_use]
pub fn pick<'a>(
    set: &'a EndpointSet,
    rng: &mut Rng,
    tried: &[EndpointKey],
    hash: Option<u64>,
) -> Option<&'a Endpoint> {
    let index = set.tiers().iter().find_map(|tier| {
        if let Some(index) = ordered(set, tier, tried, hash) {
            return Some(index);
        }
        let draw = match set.algorithm() {
            Algorithm::LeastRequest => least_of_two,
            Algorithm::RoundRobin | Algorithm::Random | Algorithm::RingHash | Algorithm::Maglev => {
                any
            }
        };
        if tried.is_empty() {
            draw(set, &tier.members, rng)
        } else {
            draw(set, &untried(set, tier, tried), rng)
        }
    })?;
    set.endpoints().get(index)
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

fn any(_: &EndpointSet, members: &[Member], rng: &mut Rng) -> Option<usize> {
    let total = members.last()?.upto;
    Some(members.get(drawn(members, rng.below(total)))?.index)
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

fn least_of_two(set: &EndpointSet, members: &[Member], rng: &mut Rng) -> Option<usize> {
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
    match load(set, first).cmp_fraction(&load(set, second)) {
        Ordering::Less | Ordering::Equal => Some(first.index),
        Ordering::Greater => Some(second.index),
    }
}

/// The member whose span of cumulative weights holds `point`.
fn drawn(members: &[Member], point: u64) -> usize {
    members.partition_point(|m| m.upto <= point)
}

/// Requests in flight for each unit of weight, as a fraction.
struct Load {
    in_flight: u64,
    weight: u64,
}

impl Load {
    fn cmp_fraction(&self, other: &Load) -> Ordering {
        (self.in_flight * other.weight).cmp(&(other.in_flight * self.weight))
    }
}

fn load(set: &EndpointSet, member: &Member) -> Load {
    let in_flight = set
        .endpoints()
        .get(member.index)
        .map_or(0, |e| e.stats.in_flight());
    Load {
        in_flight: u64::from(in_flight),
        weight: u64::from(member.weight),
    }
}

#[cfg(test)]
mod tests;
