//! Timers as values: the instants at which they expire.

use std::time::Duration;

use base::{Instant, Rng};

/// A timer that runs or does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timer(Option<Instant>);

impl Timer {
    pub(super) const STOPPED: Timer = Timer(None);

    pub(super) const fn at(at: Instant) -> Self {
        Timer(Some(at))
    }

    pub(super) const fn expires(self) -> Option<Instant> {
        self.0
    }

    pub(super) const fn runs(self) -> bool {
        self.0.is_some()
    }

    pub(super) fn expired(self, now: Instant) -> bool {
        self.0.is_some_and(|at| now >= at)
    }
}

/// The one that expires first.
pub(super) fn earliest(timers: impl IntoIterator<Item = Timer>) -> Option<Instant> {
    timers.into_iter().filter_map(Timer::expires).min()
}

/// 75 to 100 % of `time`, so that the timers of many sessions do not beat together
/// (RFC 4271 §10).
pub(super) fn jitter(time: Duration, rng: &mut Rng) -> Duration {
    let quarter = time / 4;
    let spread = u64::try_from(quarter.as_nanos()).unwrap_or(u64::MAX);
    time - quarter + Duration::from_nanos(rng.below(spread.saturating_add(1)))
}
