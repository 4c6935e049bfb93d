//! How long to wait before trying again.

use std::time::Duration;

use crate::Rng;

/// Exponential backoff with full jitter, bounded: the n-th wait is uniform in
/// `[step/2, step]` with `step = min(first · 2ⁿ, max)`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    attempt: u32,
}

impl Backoff {
    /// A backoff whose first step is `first` and whose steps never exceed `max`.
    #[must_use]
    pub const fn new(first: Duration, max: Duration) -> Self {
        Backoff {
            first,
            max,
            attempt: 0,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self, rng: &mut Rng) -> Duration {
        let step = self
            .first
            .saturating_mul(1 << self.attempt.min(20))
            .min(self.max);
        self.attempt = self.attempt.saturating_add(1);
        let half = step / 2;
        let spread = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(rng.below(spread.saturating_add(1)))
    }

    /// Start again from the first step, after a success.
    pub fn reset(&mut self) {
        self.attempt = 0;
    }
}
