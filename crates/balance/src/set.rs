//! A snapshot of one service's endpoints with everything a pick needs computed beforehand.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;

use crate::{Endpoint, EndpointKey, Health, order::Order};

/// Where the endpoints of one service live: whoever learns about health stores a new set, and
/// every table holds the same cell.
pub type Cell = Arc<ArcSwap<EndpointSet>>;

/// A cell that holds no endpoint yet.
#[must_use]
pub fn empty_cell() -> Cell {
    Arc::new(ArcSwap::from_pointee(EndpointSet::default()))
}

/// How far a request may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Only endpoints of the own site (distance zero).
    Local,
    /// The nearest tier that has an endpoint; farther ones only when it has none left.
    #[default]
    PreferLocal,
    /// All sites alike.
    Distributed,
}

/// Who of the nearest endpoints is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The better of two at random, by requests in flight.
    #[default]
    LeastRequest,
    /// Everyone in turn, by weight.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The next one on a ring behind the request's hash: when one goes, only what was its own
    /// goes elsewhere.
    RingHash,
    /// By a table of hashes: nearly the same, more evenly, and found in one look.
    Maglev,
}

/// How a service is balanced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BalancePolicy {
    /// How far a request may travel.
    pub scope: Scope,
    /// Who of the nearest is taken.
    pub algorithm: Algorithm,
    /// May unhealthy endpoints be used when nothing better is left? Off by default.
    pub panic: bool,
}

/// Two sites are in one tier when the farther is at most half as far again …
const TIER_RATIO: (u32, u32) = (3, 2);
/// … and this much farther than the nearer: differences below are noise.
const TIER_SLACK: Duration = Duration::from_millis(2);

/// The endpoints of one service, immutable, sorted by key.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Vec<Endpoint>,
    tiers: Vec<Tier>,
    algorithm: Algorithm,
}

/// Eligible endpoints at about the same distance, with cumulative weights for sampling.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    pub(crate) members: Vec<Member>,
    pub(crate) order: Order,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Index into the endpoints.
    pub(crate) index: usize,
    /// Effective weight: twice the configured one, once if degraded.
    pub(crate) weight: u32,
    /// The sum of weights up to and including this one.
    pub(crate) upto: u64,
}

impl EndpointSet {
    /// Compute the set. Of two endpoints with one key the last given stays.
    #[must_use]
    pub fn build(policy: &BalancePolicy, endpoints: Vec<Endpoint>) -> Self {
        let mut endpoints = endpoints;
        endpoints.reverse();
        endpoints.sort_by_key(|e| e.key);
        endpoints.dedup_by_key(|e| e.key);
        let mut tiers = tiers(policy, &endpoints);
        for tier in &mut tiers {
            tier.order = Order::new(policy.algorithm, &endpoints, &tier.members);
        }
        EndpointSet {
            endpoints,
            tiers,
            algorithm: policy.algorithm,
        }
    }

    /// All endpoints, eligible or not, sorted by key.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint with this identity.
    #[must_use]
    pub fn find(&self, key: &EndpointKey) -> Option<&Endpoint> {
        let at = self.endpoints.binary_search_by_key(key, |e| e.key).ok()?;
        self.endpoints.get(at)
    }

    /// Requests running now, on all of them.
    #[must_use]
    pub fn running(&self) -> u32 {
        self.endpoints.iter().map(|e| e.stats.in_flight()).sum()
    }

    /// How many endpoints a pick may choose from now.
    #[must_use]
    pub fn eligible(&self) -> usize {
        self.tiers.iter().map(|tier| tier.members.len()).sum()
    }

    /// Does `key` exist, with a living way to it, and is it not known to be sick or gone?
    #[must_use]
    pub fn is_alive(&self, key: &EndpointKey) -> bool {
        self.find(key)
            .is_some_and(|e| e.reachable && e.health.is_alive())
    }

    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    pub(crate) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

/// The best class of health that has an endpoint decides who is eligible.
fn tiers(policy: &BalancePolicy, endpoints: &[Endpoint]) -> Vec<Tier> {
    let within = |wanted: &dyn Fn(Health) -> bool| -> Vec<usize> {
        (0..endpoints.len())
            .filter(|&at| {
                endpoints
                    .get(at)
                    .is_some_and(|e| usable(policy, e) && wanted(e.health))
            })
            .collect()
    };
    let mut eligible = within(&|h| matches!(h, Health::Healthy | Health::Degraded));
    if eligible.is_empty() {
        eligible = within(&|h| h == Health::Unknown);
    }
    if eligible.is_empty() && policy.panic {
        eligible = within(&|h| h == Health::Unhealthy);
    }
    by_distance(policy, endpoints, eligible)
}

fn usable(policy: &BalancePolicy, endpoint: &Endpoint) -> bool {
    let near = policy.scope != Scope::Local || distance(endpoint) == Duration::ZERO;
    endpoint.reachable && endpoint.weight > 0 && near
}

fn distance(endpoint: &Endpoint) -> Duration {
    endpoint.distance.unwrap_or_default()
}

fn by_distance(policy: &BalancePolicy, endpoints: &[Endpoint], eligible: Vec<usize>) -> Vec<Tier> {
    let mut near_first: Vec<(Duration, usize)> = eligible
        .into_iter()
        .filter_map(|at| Some((distance(endpoints.get(at)?), at)))
        .collect();
    near_first.sort_unstable();
    let mut tiers: Vec<Tier> = Vec::new();
    let mut limit = Duration::ZERO;
    for (far, at) in near_first {
        let Some(endpoint) = endpoints.get(at) else {
            continue;
        };
        let same = policy.scope == Scope::Distributed || far <= limit;
        if tiers.is_empty() || !same {
            limit = far.saturating_mul(TIER_RATIO.0) / TIER_RATIO.1 + TIER_SLACK;
            tiers.push(Tier::default());
        }
        let Some(tier) = tiers.last_mut() else {
            continue;
        };
        let halves = if endpoint.health == Health::Degraded {
            1
        } else {
            2
        };
        let weight = u32::from(endpoint.weight) * halves;
        let before = tier.members.last().map_or(0, |m| m.upto);
        tier.members.push(Member {
            index: at,
            weight,
            upto: before + u64::from(weight),
        });
    }
    tiers
}
