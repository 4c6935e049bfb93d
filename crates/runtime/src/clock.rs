//! The two clocks. Everything else gets time as an argument.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base::{Instant, WallTime};

/// The process's first reading lies this far after `Instant::ZERO`, so that subtracting a
/// timeout from an early reading does not saturate.
const OFFSET: Duration = Duration::from_secs(3600);

/// The monotonic clock. Under a paused tokio test clock it is that clock.
#[must_use]
pub fn now() -> Instant {
    static ORIGIN: OnceLock<tokio::time::Instant> = OnceLock::new();
    let now = tokio::time::Instant::now();
    let origin = *ORIGIN.get_or_init(|| now.checked_sub(OFFSET).unwrap_or(now));
    Instant::ZERO + now.saturating_duration_since(origin)
}

/// The wall clock; the epoch if the machine's clock is before 1970.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that reads the wall clock"
)]
pub fn wall() -> WallTime {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    WallTime::from_unix_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A number that nobody outside this process can guess, to seed hashes and timers with.
#[must_use]
pub fn seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(now().as_nanos())
}
