//! The one place that reads the clock.

use std::time::{Duration, Instant};

/// Now, on the monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "a bench measures the real time and uses no room of ours"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Until when a step may last.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    #[must_use]
    pub fn after(limit: Duration) -> Deadline {
        Deadline(now() + limit)
    }

    /// What is left; zero once it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(now())
    }

    /// Has it passed?
    #[must_use]
    pub fn passed(self) -> bool {
        self.left().is_zero()
    }
}
