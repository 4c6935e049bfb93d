//! Token buckets: how often something may be asked for.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use base::Instant;

/// The most sources that are told apart; the others share one bucket.
const MAX_SOURCES: usize = 1024;

/// `burst` at once, then one per `every`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

/// One bucket (the generic cell rate algorithm, ITU-T I.371): the time at which it is full again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket(Instant);

impl Bucket {
    pub(crate) const FULL: Bucket = Bucket(Instant::ZERO);

    /// Takes one if there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let next = self.0.max(now) + rate.every;
        let fits = next.since(now) <= rate.every.saturating_mul(rate.burst);
        if fits {
            self.0 = next;
        }
        fits
    }
}

/// A bucket for each address.
#[derive(Debug)]
pub(crate) struct Sources {
    rate: Rate,
    buckets: BTreeMap<Option<IpAddr>, Bucket>,
}

impl Sources {
    pub(crate) fn new(rate: Rate) -> Self {
        Sources {
            rate,
            buckets: BTreeMap::new(),
        }
    }

    pub(crate) fn take(&mut self, source: IpAddr, now: Instant) -> bool {
        let mut slot = Some(source);
        if self.buckets.len() >= MAX_SOURCES && !self.buckets.contains_key(&slot) {
            self.buckets.retain(|_, bucket| bucket.0 > now);
            if self.buckets.len() >= MAX_SOURCES {
                slot = None;
            }
        }
        self.buckets
            .entry(slot)
            .or_insert(Bucket::FULL)
            .take(self.rate, now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_refills() {
        let rate = Rate {
            burst: 3,
            every: Duration::from_secs(1),
        };
        let mut sources = Sources::new(rate);
        let (a, b) = ([127, 0, 0, 1].into(), [127, 0, 0, 2].into());
        let at = |ms: u64| Instant::ZERO + Duration::from_millis(3_600_000 + ms);
        let taken = (0..5).filter(|_| sources.take(a, at(0))).count();
        assert_eq!(taken, 3);
        assert!(sources.take(b, at(0)));
        assert!(!sources.take(a, at(900)));
        assert!(sources.take(a, at(1000)));
        assert!(!sources.take(a, at(1000)));
    }
}
