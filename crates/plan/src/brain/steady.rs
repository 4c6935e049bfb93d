//! Measurements that count. What changes much counts at once; what changes little would be noise if
//! it did, and an error if it never did: it counts when it has been so for a while.

use std::time::Duration;

use base::Instant;
use path::Loss;

/// How long what is measured differs little from what counts before it does.
pub(super) const WAITS: Duration = Duration::from_secs(10);

/// How much a measurement differs from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    Noise,
    Little,
    Much,
}

impl Change {
    /// Of a round trip. One part of so many is much, a thirty-second is little, and half a millisecond
    /// is noise.
    pub(super) fn of_rtt(before: Duration, now: Duration, much: u32) -> Self {
        const LITTLE: u32 = 32;
        const NOISE: Duration = Duration::from_micros(500);
        let by = before.abs_diff(now);
        match () {
            () if by > (before / much).max(NOISE) => Change::Much,
            () if by > (before / LITTLE).max(NOISE) => Change::Little,
            () => Change::Noise,
        }
    }

    /// Of what is lost: a thousandth more or less is noise.
    pub(super) fn of_loss(before: Loss, now: Loss) -> Self {
        const NOISE: u16 = u16::MAX / 1000;
        match () {
            () if now.is_news(before) => Change::Much,
            () if now.0.abs_diff(before.0) > NOISE => Change::Little,
            () => Change::Noise,
        }
    }
}

/// A measurement that counts, and what waits to take its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steady<T> {
    counts: T,
    /// Since when it differs little from that, and what it is now.
    waits: Option<(Instant, T)>,
}

impl<T: Copy> Steady<T> {
    pub(super) const fn new(value: T) -> Self {
        Steady {
            counts: value,
            waits: None,
        }
    }

    pub(super) const fn counts(&self) -> T {
        self.counts
    }

    /// This is measured `now`, which is such a change. Does it count?
    pub(super) fn handle(&mut self, now: Instant, value: T, change: Change) -> bool {
        self.waits = match change {
            Change::Noise => None,
            Change::Little => {
                let since = self.waits.map_or(now, |(since, _)| since);
                Some((since, value))
            }
            Change::Much => {
                *self = Steady::new(value);
                return true;
            }
        };
        self.handle_timeout(now)
    }

    /// When [`Steady::handle_timeout`] should be called.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.waits.map(|(since, _)| since + WAITS)
    }

    /// Does another measurement count from now on?
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let due = self.waits.filter(|(since, _)| now.since(*since) >= WAITS);
        if let Some((_, value)) = due {
            *self = Steady::new(value);
        }
        due.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn what_is_much_depends_on_what_there_was() {
        let of = |before: u32, now: u32| Change::of_rtt(MS * before, MS * now, 8);
        assert_eq!([of(40, 41), of(40, 39)], [Change::Noise; 2]);
        assert_eq!([of(40, 42), of(40, 45), of(46, 41)], [Change::Little; 3]);
        assert_eq!([of(40, 46), of(40, 34), of(1, 2)], [Change::Much; 3]);
        let of = |before: f64, now: f64| Change::of_loss(Loss::of(before), Loss::of(now));
        assert_eq!(of(0.006, 0.0065), Change::Noise);
        assert_eq!(of(0.006, 0.0015), Change::Little);
        assert_eq!([of(0.006, 0.0), of(0.006, 0.02)], [Change::Much; 2]);
    }

    #[test]
    fn what_is_little_counts_when_it_has_been_so_for_a_while() {
        let mut steady = Steady::new(40);
        assert!(steady.handle(at(1), 50, Change::Much));
        assert!(!steady.handle(at(2), 51, Change::Noise));
        assert_eq!((steady.counts(), steady.poll_timeout()), (50, None));
        assert!(!steady.handle(at(30), 48, Change::Little));
        assert_eq!(steady.poll_timeout(), Some(at(40)));
        // It was noise after all.
        assert!(!steady.handle(at(31), 50, Change::Noise));
        assert!(!steady.handle_timeout(at(40)));
        assert!(!steady.handle(at(41), 47, Change::Little));
        assert!(!steady.handle(at(45), 46, Change::Little));
        assert!(!steady.handle_timeout(at(50)));
        assert!(steady.handle_timeout(at(51)));
        assert_eq!((steady.counts(), steady.poll_timeout()), (46, None));
    }
}
