//! Endpoints whose answers are bad are taken out for a while, although their probes are good.

use std::{collections::BTreeMap, time::Duration};

use base::Instant;

use crate::EndpointKey;

/// When an endpoint is taken out, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Bad answers in a row that do it: 5 by default.
    pub failures: u32,
    /// For how long the first time, then twice, three times as long …: 30 s.
    pub base: Duration,
    /// … and never longer: 5 m. So long it must be good for its past to be forgotten.
    pub most: Duration,
    /// Of the endpoints, so many in a hundred are taken out at a time, but always one if there
    /// are two: 50.
    pub percent: u8,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            failures: 5,
            base: Duration::from_secs(30),
            most: Duration::from_secs(300),
            percent: 50,
        }
    }
}

/// Who of one service's endpoints is out, and who was.
#[derive(Clone, Debug, Default)]
pub struct Ejections {
    past: BTreeMap<EndpointKey, Ejection>,
}

#[derive(Clone, Copy, Debug)]
struct Ejection {
    until: Instant,
    times: u32,
    out: bool,
}

impl Ejections {
    /// Take `key`, one of `endpoints`, out if the policy allows one more. True: it is out now and
    /// was not before.
    pub fn eject(
        &mut self,
        policy: &Outlier,
        now: Instant,
        key: EndpointKey,
        endpoints: usize,
    ) -> bool {
        let out = self.past.values().filter(|past| past.out).count();
        let most = (endpoints * usize::from(policy.percent) / 100).max(1);
        if self.is_out(&key) || out >= most.min(endpoints.saturating_sub(1)) {
            return false;
        }
        self.past
            .retain(|_, past| past.out || now.since(past.until) < policy.most);
        let times = self.past.get(&key).map_or(0, |past| past.times) + 1;
        let time = policy.base.saturating_mul(times).min(policy.most);
        let ejection = Ejection {
            until: now + time,
            times,
            out: true,
        };
        self.past.insert(key, ejection);
        true
    }

    /// Is it out?
    #[must_use]
    pub fn is_out(&self, key: &EndpointKey) -> bool {
        self.past.get(key).is_some_and(|past| past.out)
    }

    /// Let those in again whose time is over; these are they.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<EndpointKey> {
        let over = self.past.iter_mut();
        let over = over.filter(|(_, past)| past.out && past.until <= now);
        over.map(|(key, past)| {
            past.out = false;
            *key
        })
        .collect()
    }

    /// When the next one comes in again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let out = self.past.values().filter(|past| past.out);
        out.map(|past| past.until).min()
    }

    /// Forget all but those that `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&EndpointKey) -> bool) {
        self.past.retain(|key, _| keep(key));
    }
}

#[cfg(test)]
mod tests {
    use base::{NetworkId, SiteId};

    use super::*;

    fn key(n: u8) -> EndpointKey {
        EndpointKey {
            site: SiteId(1),
            network: NetworkId(0),
            address: ([10, 0, 0, n], 80).into(),
        }
    }

    #[test]
    fn out_for_longer_each_time_and_never_too_many() {
        let policy = Outlier::default();
        let at = |seconds| Instant::from_nanos(0) + Duration::from_secs(seconds);
        let mut ejections = Ejections::default();
        assert!(!ejections.eject(&policy, at(0), key(1), 1), "the only one");
        assert!(ejections.eject(&policy, at(0), key(1), 4));
        assert!(!ejections.eject(&policy, at(1), key(1), 4), "it is out");
        assert!(ejections.eject(&policy, at(1), key(2), 4));
        assert!(!ejections.eject(&policy, at(1), key(3), 4), "half are out");
        assert_eq!(ejections.poll_timeout(), Some(at(30)));
        assert!(ejections.handle_timeout(at(29)).is_empty());
        assert_eq!(ejections.handle_timeout(at(30)), [key(1)]);
        assert!(!ejections.is_out(&key(1)) && ejections.is_out(&key(2)));
        // Again, and twice as long; the other one is in meanwhile.
        assert!(ejections.eject(&policy, at(31), key(1), 4));
        assert_eq!(ejections.handle_timeout(at(90)), [key(2)]);
        assert_eq!(ejections.handle_timeout(at(91)), [key(1)]);
        // Good for five minutes: as if it were the first time.
        assert!(ejections.eject(&policy, at(391), key(1), 4));
        assert_eq!(ejections.poll_timeout(), Some(at(421)));
        ejections.retain(|_| false);
        assert_eq!(ejections.poll_timeout(), None);
    }
}
