//! The pick: least of two by requests in flight, inside the nearest tier.

use std::cmp::Ordering;

use base::Rng;

use crate::{
    Endpoint, EndpointKey, EndpointSet,
    set::{Member, Tier},
};

/// Choose an endpoint that is not in `tried`, from the nearest tier that still has one.
///
/// Power of two choices (Mitzenmacher 2001): two different endpoints are drawn in proportion to
/// their weights and the one with fewer requests in flight for its weight is taken; on a tie the
/// first drawn, so that sequential requests spread by weight. `None`: every eligible endpoint was
/// tried, or there is none. `tried` is short (bounded by the number of tries).
#[must_use]
pub fn pick<'a>(
    set: &'a EndpointSet,
    rng: &mut Rng,
    tried: &[EndpointKey],
) -> Option<&'a Endpoint> {
    let index = set.tiers().iter().find_map(|tier| {
        if tried.is_empty() {
            least_of_two(set, &tier.members, rng)
        } else {
            least_of_two(set, &untried(set, tier, tried), rng)
        }
    })?;
    set.endpoints().get(index)
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
