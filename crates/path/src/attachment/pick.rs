//! Near ones, and not all in one place.

use std::{collections::BTreeSet, time::Duration};

use base::Name;

use super::Candidate;

/// One in another place is taken before a nearer one as long as it is at most so many times and so
/// much farther.
const TIMES: u32 = 2;
const AND: Duration = Duration::from_millis(20);
/// What takes another's place has to be nearer by a quarter of that one's distance and some more.
const BETTER_PART: u32 = 3;
const BETTER_BY: Duration = Duration::from_millis(5);

/// A candidate, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Far<'a> {
    pub(super) one: &'a Candidate,
    pub(super) rtt: Duration,
}

impl<'a> Far<'a> {
    pub(super) const fn new(one: &'a Candidate, rtt: Duration) -> Self {
        Far { one, rtt }
    }
}

/// As far as somebody counts who would take another's place.
pub(super) fn handicapped(rtt: Duration) -> Duration {
    rtt + rtt / BETTER_PART + BETTER_BY
}

/// Takes the nearest out, or one that is not much farther and not in a place that is taken.
pub(super) fn next<'a>(free: &mut Vec<Far<'a>>, taken: &BTreeSet<&Name>) -> Option<&'a Candidate> {
    let is_taken = |far: &Far<'_>| {
        let region = far.one.region.as_ref();
        region.is_some_and(|region| taken.contains(region))
    };
    // Of equal ones the first.
    let near = |far: &(usize, &Far<'a>)| far.1.rtt;
    let (at, nearest) = free.iter().enumerate().min_by_key(near)?;
    let bound = nearest.rtt.saturating_mul(TIMES).saturating_add(AND);
    let elsewhere = free.iter().enumerate().filter(|(_, far)| !is_taken(far));
    let elsewhere = elsewhere.min_by_key(near);
    let elsewhere = elsewhere.filter(|(_, far)| far.rtt <= bound);
    let at = elsewhere.map_or(at, |(at, _)| at);
    Some(free.remove(at).one)
}

/// So many of them.
pub(super) fn several(count: usize, all: Vec<Far<'_>>) -> Vec<Far<'_>> {
    let (mut free, mut taken) = (all.clone(), BTreeSet::new());
    let mut several = Vec::new();
    while several.len() < count {
        let Some(one) = next(&mut free, &taken) else {
            break;
        };
        taken.extend(&one.region);
        several.extend(all.iter().filter(|far| far.one == one));
    }
    several
}
