//! Why an endpoint is picked, or is not: for people who ask.

use crate::{Endpoint, EndpointSet, Health, Scope, set::ALL};

/// How one endpoint stands in its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It gets so many of a thousand requests, if no other was tried before.
    Picked(u32),
    /// It is in a tier that gets nothing as long as nearer ones can take all.
    Farther,
    /// Its site has no living tunnel.
    Unreachable,
    /// Its weight is 0.
    Weightless,
    /// The service keeps to its own site.
    Elsewhere,
    /// It is out for a while, for its answers.
    Ejected,
    /// Its health.
    Unfit(Health),
}

impl EndpointSet {
    /// Every endpoint, in the order of keys, and how it stands. Shares are those by weight; what
    /// runs on whom changes them from request to request.
    pub fn standings(&self) -> impl Iterator<Item = (&Endpoint, Standing)> {
        let all = self.endpoints().iter().enumerate();
        all.map(|(at, endpoint)| (endpoint, self.standing(at, endpoint)))
    }

    fn standing(&self, at: usize, endpoint: &Endpoint) -> Standing {
        let mut before = 0;
        for tier in self.tiers() {
            let share = tier.share_upto.saturating_sub(before);
            before = tier.share_upto;
            let total = tier.members.last().map_or(1, |last| last.upto.max(1));
            if let Some(member) = tier.members.iter().find(|member| member.index == at) {
                let part = u128::from(share) * u128::from(member.weight) * 1000;
                let part = part / (u128::from(total) * u128::from(ALL));
                return match u32::try_from(part).unwrap_or(1000) {
                    0 if share == 0 => Standing::Farther,
                    part => Standing::Picked(part),
                };
            }
        }
        let local = endpoint.distance.unwrap_or_default().is_zero();
        match endpoint.health {
            _ if endpoint.weight == 0 => Standing::Weightless,
            _ if !endpoint.reachable => Standing::Unreachable,
            _ if self.scope() == Scope::Local && !local => Standing::Elsewhere,
            Health::Healthy | Health::Degraded => Standing::Ejected,
            unfit @ (Health::Unknown
            | Health::Draining
            | Health::Maintenance
            | Health::Unhealthy
            | Health::Withdrawn) => Standing::Unfit(unfit),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use base::{Instant, NetworkId, SiteId};

    use super::*;
    use crate::{BalancePolicy, EndpointKey};

    #[test]
    fn each_has_its_reason() {
        let made = |n: u8, health, far: Option<u64>| Endpoint {
            key: EndpointKey {
                site: SiteId(1),
                network: NetworkId(0),
                address: ([10, 0, 0, n], 80).into(),
            },
            site: "a.t".parse().expect("a site"),
            health,
            weight: 1,
            distance: far.map(Duration::from_millis),
            reachable: true,
            ejected: false,
            share: crate::WHOLE,
            since: None,
            stats: Arc::default(),
        };
        let mut all = vec![
            made(0, Health::Healthy, Some(5)),
            made(1, Health::Unhealthy, Some(5)),
            made(2, Health::Healthy, Some(40)),
            made(3, Health::Healthy, Some(90)),
            made(4, Health::Healthy, Some(5)),
            made(5, Health::Healthy, Some(5)),
            made(6, Health::Healthy, Some(5)),
            made(7, Health::Unknown, Some(5)),
        ];
        all[4].ejected = true;
        all[5].weight = 0;
        all[6].reachable = false;
        let standings = |scope, all: &[Endpoint]| -> Vec<Standing> {
            let policy = BalancePolicy {
                scope,
                spill_at: 100,
                ..BalancePolicy::default()
            };
            let set = EndpointSet::build(&policy, Instant::ZERO, all.to_vec());
            set.standings().map(|(_, standing)| standing).collect()
        };
        assert_eq!(
            standings(Scope::PreferLocal, &all),
            [
                Standing::Picked(333),
                Standing::Unfit(Health::Unhealthy),
                Standing::Picked(666),
                Standing::Farther,
                Standing::Ejected,
                Standing::Weightless,
                Standing::Unreachable,
                Standing::Unfit(Health::Unknown),
            ]
        );
        assert_eq!(standings(Scope::Local, &all)[2], Standing::Elsewhere);
    }
}
