//! How many requests may be tried again at a time, so that a service in trouble is not asked more
//! than one that is well.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// So many in a hundred of the requests that run …
const PERCENT: u32 = 20;
/// … and at least these.
const LEAST: u32 = 3;

/// The tries of one service that repeat another.
#[derive(Debug, Default)]
pub struct RetryBudget(AtomicU32);

/// A place in the budget; dropping it gives it back.
#[derive(Debug)]
pub struct Retrying<'b>(&'b RetryBudget);

impl RetryBudget {
    /// One more, if `running` requests of the service allow it, or `most` does instead. Relaxed:
    /// a few too many at the same moment do no harm.
    #[must_use]
    pub fn take(&self, running: u32, most: Option<u32>) -> Option<Retrying<'_>> {
        let most = most.unwrap_or_else(|| LEAST.max(running.saturating_mul(PERCENT) / 100));
        if self.0.load(Relaxed) >= most {
            return None;
        }
        self.0.fetch_add(1, Relaxed);
        Some(Retrying(self))
    }
}

impl Drop for Retrying<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_what_runs_and_at_least_three() {
        let budget = RetryBudget::default();
        let held: Vec<_> = (0..5).map_while(|_| budget.take(0, None)).collect();
        assert_eq!(held.len(), 3);
        assert!(budget.take(19, None).is_none());
        let more: Vec<_> = (0..100).map_while(|_| budget.take(100, None)).collect();
        assert_eq!(more.len(), 17);
        drop(held);
        assert!(budget.take(90, None).is_some());
        assert!(budget.take(85, None).is_none());
        assert!(budget.take(85, Some(18)).is_some());
        assert!(budget.take(1000, Some(17)).is_none());
    }
}
