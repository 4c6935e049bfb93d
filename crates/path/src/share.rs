//! Several links to one site: how much each carries.

use std::time::Duration;

use crate::{Loss, Relief};

/// A link that serves is left when it costs so many times as much as the best one, and taken again
/// when it costs so many times as much: nothing moves by noise.
const LEFT: u32 = 4;
const TAKEN: u32 = 3;
/// What every link costs, so that a tenth of a millisecond is not three times as little as another.
const BASE: Duration = Duration::from_millis(2);
/// The share of the best one.
const WHOLE: u32 = 1000;

/// One of several links to the same site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parallel {
    /// What it costs to go over it; `None`: not measured yet.
    pub cost: Option<Duration>,
    /// What its load leaves of its share ([`Relief::handle_load`]).
    pub part: u32,
    /// Did it cost so much that it carries nothing?
    pub rests: bool,
}

/// How much each of these links is to carry, in parts of what the most carries that any does (1000):
/// as much less as it costs more, and as its load leaves, and nothing (0) if it costs several times as
/// much as the best one, whatever their loads. What is not measured carries nothing as long as
/// something else is.
#[must_use]
pub fn share(links: &[Parallel]) -> Vec<u32> {
    let Some(best) = links.iter().filter_map(|link| link.cost).min() else {
        return vec![WHOLE; links.len()];
    };
    let best = best + BASE;
    let of = |link: &Parallel| {
        let Some(cost) = link.cost else { return 0 };
        let cost = cost + BASE;
        let limit = best * if link.rests { TAKEN } else { LEFT };
        if cost > limit {
            return 0;
        }
        let part = best.as_nanos() * u128::from(link.part.max(1)) / cost.as_nanos();
        u32::try_from(part).unwrap_or(Relief::WHOLE).max(1)
    };
    let parts: Vec<u32> = links.iter().map(of).collect();
    let most = parts.iter().copied().max().unwrap_or(WHOLE).max(1);
    let share = |part: u32| (part * WHOLE / most).max(part.min(1));
    parts.into_iter().map(share).collect()
}

/// Whether QUIC should carry what begins between two nodes to which there is a link over TLS too, by
/// what is lost there and back over each, and whether it carries it `now`. Where nothing is lost TLS
/// costs less; where something is, all that is on a connection of TCP waits for it. Where much more
/// of UDP is lost, somebody on the way does not like it.
#[must_use]
pub fn over_quic(tls: Loss, quic: Loss, now: bool) -> bool {
    const BEGIN: f64 = 0.01;
    const END: f64 = 0.003;
    let (tls, quic) = (tls.part(), quic.part());
    let limit = if now { END } else { BEGIN };
    tls > limit && quic < 2.0 * tls + BEGIN
}

/// Picks by shares, one after the other, each as often as its share says, and evenly: by the
/// fractional parts of the multiples of the golden ratio.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turns(u32);

impl Turns {
    /// 2³² divided by the golden ratio.
    const STEP: u32 = 0x9E37_79B9;

    /// Those that begin after `nth` picks.
    #[must_use]
    pub const fn after(nth: u32) -> Self {
        Turns(nth.wrapping_mul(Turns::STEP))
    }

    /// The next one's index; `None` if no share is more than 0.
    pub fn next(&mut self, shares: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        self.0 = self.0.wrapping_add(Turns::STEP);
        let total: u64 = shares.clone().map(u64::from).sum();
        let mut point = (u64::from(self.0) * total) >> 32;
        for (index, share) in shares.enumerate() {
            match point.checked_sub(u64::from(share)) {
                Some(rest) => point = rest,
                None => return Some(index),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn shares(links: &[(u32, bool)]) -> Vec<u32> {
        let link = |(ms, rests): &(u32, bool)| Parallel {
            cost: Some(MS * *ms),
            part: Relief::WHOLE,
            rests: *rests,
        };
        let links: Vec<Parallel> = links.iter().map(link).collect();
        share(&links)
    }

    #[test]
    fn each_as_much_as_it_is_good() {
        assert_eq!(shares(&[(8, false), (18, false)]), [1000, 500]);
        assert_eq!(shares(&[(8, false), (8, true)]), [1000, 1000]);
        assert_eq!(share(&[]), []);
    }

    #[test]
    fn the_bad_one_is_left_and_comes_back_when_it_is_good_again() {
        assert_eq!(shares(&[(8, false), (38, false)]), [1000, 250]);
        assert_eq!(shares(&[(8, false), (39, false)]), [1000, 0]);
        assert_eq!(shares(&[(8, false), (38, true)]), [1000, 0]);
        assert_eq!(shares(&[(8, false), (28, true)]), [1000, 333]);
        // A bad one alone serves.
        assert_eq!(shares(&[(900, true)]), [1000]);
    }

    #[test]
    fn a_loaded_one_carries_less_and_never_nothing() {
        let link = |ms: u32, part| Parallel {
            cost: Some(MS * ms),
            part,
            rests: false,
        };
        assert_eq!(share(&[link(8, 250), link(8, 1000)]), [250, 1000]);
        assert_eq!(share(&[link(8, 250), link(8, 250)]), [1000, 1000]);
        assert_eq!(share(&[link(8, 250), link(18, 1000)]), [500, 1000]);
        // By its load alone nothing is left, and nothing taken.
        assert_eq!(share(&[link(8, 1000), link(38, 0)]), [1000, 1]);
        assert_eq!(share(&[link(8, 0), link(39, 1000)]), [1000, 0]);
    }

    #[test]
    fn quic_where_packets_are_lost_and_until_they_are_not() {
        let percent = |part: f64| Loss::of(part / 100.0);
        let over = |tls, quic, now| over_quic(percent(tls), percent(quic), now);
        assert!(!over(0.9, 0.0, false) && over(1.1, 0.0, false));
        assert!(over(0.4, 0.4, true) && !over(0.2, 0.2, true));
        // UDP alone is dropped, or more of it.
        assert!(!over(0.0, 5.0, true) && !over(2.0, 8.0, false) && over(2.0, 3.0, false));
    }

    #[test]
    fn what_is_not_measured_waits() {
        let unknown = Parallel {
            cost: None,
            part: Relief::WHOLE,
            rests: false,
        };
        let known = Parallel {
            cost: Some(MS),
            ..unknown
        };
        assert_eq!(share(&[unknown, known]), [0, 1000]);
        assert_eq!(share(&[unknown, unknown]), [1000, 1000]);
    }

    #[test]
    fn turns_go_by_shares_from_the_first_on() {
        let mut turns = Turns::default();
        let shares = [1000, 0, 500, 500];
        let mut counts = [0_u32; 4];
        for n in 1..=1000_u32 {
            let index = turns.next(shares.into_iter()).expect("there are shares");
            counts[index] += 1;
            // Never far from what it should be.
            assert!(counts[0].abs_diff(n / 2) <= 3, "{counts:?} of {n}");
        }
        assert_eq!(counts[1], 0);
        assert!(counts[2].abs_diff(250) <= 3 && counts[3].abs_diff(250) <= 3);
        assert_eq!(turns.next([0, 0].into_iter()), None);
        assert_eq!(turns.next(std::iter::empty()), None);
    }
}
