//! A snapshot of one service's endpoints with everything a pick needs computed beforehand.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base::Instant;

use crate::{Endpoint, EndpointKey, Health, LoadPolicy, WHOLE, order::Order};

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
    /// The better of two at random, by how long answers take and requests in flight.
    PeakEwma,
    /// Any, by weight and by what endpoints say of their load.
    WeightedByLoad,
}

/// How a service is balanced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BalancePolicy {
    /// How far a request may travel.
    pub scope: Scope,
    /// Who of the nearest is taken.
    pub algorithm: Algorithm,
    /// Below this share of healthy endpoints, in percent, the rest is used as if it were well,
    /// since it is more likely that the probes are wrong; 0, the default: never.
    pub panic_below: u8,
    /// From this share of healthy endpoints downward, in percent, the nearest get less than all
    /// requests, so that none gets more than its part when all are well divided by this: 1 to
    /// 100, 70 by default.
    pub spill_at: u8,
    /// How long an endpoint that has become healthy takes to its full weight; zero: no time.
    pub slow_start: Duration,
    /// How what endpoints say of their load is taken.
    pub load: LoadPolicy,
}

impl Default for BalancePolicy {
    fn default() -> Self {
        BalancePolicy {
            scope: Scope::default(),
            algorithm: Algorithm::default(),
            panic_below: 0,
            spill_at: 70,
            slow_start: Duration::ZERO,
            load: LoadPolicy::default(),
        }
    }
}

/// Two sites are in one tier when the farther is at most half as far again …
const TIER_RATIO: (u32, u32) = (3, 2);
/// … and this much farther than the nearer: differences below are noise.
const TIER_SLACK: Duration = Duration::from_millis(2);

/// Parts of a configured weight that a healthy endpoint has, and one that is degraded.
const FULL: u32 = 20;
const HALF: u32 = 10;
/// Steps in which a starting endpoint comes to its full weight.
const STEPS: u32 = 10;

/// The endpoints of one service, immutable, sorted by key.
#[derive(Debug, Default)]
pub struct EndpointSet {
    endpoints: Vec<Endpoint>,
    tiers: Vec<Tier>,
    policy: BalancePolicy,
}

/// Eligible endpoints at about the same distance, with cumulative weights for sampling.
#[derive(Debug, Default)]
pub(crate) struct Tier {
    pub(crate) members: Vec<Member>,
    pub(crate) order: Order,
    /// Requests in 2^32 that come to this tier or a nearer one.
    pub(crate) share_upto: u64,
    /// Weights of the members as they are, and of all that would be members if they were well.
    capacity: u64,
    total: u64,
    /// What of the capacity's requests the sites are given, in thousandths of it: less than
    /// [`WHOLE`] times the capacity if one of them is loaded.
    admitted: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Member {
    /// Index into the endpoints.
    pub(crate) index: usize,
    /// Effective weight: [`FULL`] times the configured one, less if degraded, starting or in a
    /// loaded site.
    pub(crate) weight: u32,
    /// The sum of weights up to and including this one.
    pub(crate) upto: u64,
}

impl EndpointSet {
    /// Compute the set as it is `now`. Of two endpoints with one key the last given stays.
    #[must_use]
    pub fn build(policy: &BalancePolicy, now: Instant, endpoints: Vec<Endpoint>) -> Self {
        let mut endpoints = endpoints;
        endpoints.reverse();
        endpoints.sort_by_key(|e| e.key);
        endpoints.dedup_by_key(|e| e.key);
        // There are many sets, most are small, and all of them last.
        endpoints.shrink_to_fit();
        let mut tiers = tiers(policy, now, &endpoints);
        for tier in &mut tiers {
            tier.members.shrink_to_fit();
            tier.order = Order::new(policy.algorithm, &endpoints, &tier.members);
        }
        tiers.shrink_to_fit();
        EndpointSet {
            endpoints,
            tiers,
            policy: *policy,
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

    /// Does the pick go by how long answers take?
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.policy.algorithm == Algorithm::PeakEwma
    }

    /// Does the pick go by what endpoints say of their load? How it is taken.
    #[must_use]
    pub fn by_load(&self) -> Option<&LoadPolicy> {
        (self.policy.algorithm == Algorithm::WeightedByLoad).then_some(&self.policy.load)
    }

    pub(crate) const fn algorithm(&self) -> Algorithm {
        self.policy.algorithm
    }

    pub(crate) const fn scope(&self) -> Scope {
        self.policy.scope
    }

    pub(crate) fn tiers(&self) -> &[Tier] {
        &self.tiers
    }
}

/// Everyone at a distance, and among them, of the best class of health that has any, whoever is
/// eligible.
fn tiers(policy: &BalancePolicy, now: Instant, endpoints: &[Endpoint]) -> Vec<Tier> {
    let usable: Vec<&Endpoint> = endpoints.iter().filter(|e| usable(policy, e)).collect();
    let well = |e: &Endpoint| matches!(e.health, Health::Healthy | Health::Degraded);
    let unknown = |e: &Endpoint| e.health == Health::Unknown;
    let count = |which: &dyn Fn(&Endpoint) -> bool| usable.iter().filter(|e| which(e)).count();
    let sick = count(&|e| e.health == Health::Unhealthy || (well(e) && e.ejected));
    let fit = count(&|e| well(e) && !e.ejected);
    let panics = fit * 100 < usize::from(policy.panic_below) * (fit + sick);
    let eligible: &dyn Fn(&Endpoint) -> bool = if panics {
        &|e| well(e) || unknown(e) || e.health == Health::Unhealthy
    } else if fit > 0 {
        &|e| well(e) && !e.ejected
    } else if count(&unknown) > 0 {
        &unknown
    } else {
        // Better one that failed than none.
        &well
    };
    let mut tiers = by_distance(policy, now, endpoints, eligible);
    share(policy, &mut tiers);
    tiers.retain(|tier| !tier.members.is_empty());
    tiers
}

fn usable(policy: &BalancePolicy, endpoint: &Endpoint) -> bool {
    let near = policy.scope != Scope::Local || distance(endpoint) == Duration::ZERO;
    endpoint.reachable && endpoint.weight > 0 && near && endpoint.health != Health::Withdrawn
}

fn distance(endpoint: &Endpoint) -> Duration {
    endpoint.distance.unwrap_or_default()
}

fn by_distance(
    policy: &BalancePolicy,
    now: Instant,
    endpoints: &[Endpoint],
    eligible: &dyn Fn(&Endpoint) -> bool,
) -> Vec<Tier> {
    let mut near_first: Vec<(Duration, usize, &Endpoint)> = endpoints
        .iter()
        .enumerate()
        .filter(|(_, endpoint)| usable(policy, endpoint))
        .map(|(at, endpoint)| (distance(endpoint), at, endpoint))
        .collect();
    near_first.sort_unstable_by_key(|(far, at, _)| (*far, *at));
    let mut tiers: Vec<Tier> = Vec::new();
    let mut limit = Duration::ZERO;
    for (far, at, endpoint) in near_first {
        let same = policy.scope == Scope::Distributed || far <= limit;
        if tiers.is_empty() || !same {
            limit = far.saturating_mul(TIER_RATIO.0) / TIER_RATIO.1 + TIER_SLACK;
            tiers.push(Tier::default());
        }
        let Some(tier) = tiers.last_mut() else {
            continue;
        };
        let weight = u32::from(endpoint.weight);
        // Nobody knows yet what it will be: it neither serves nor is missed.
        if endpoint.health != Health::Unknown || eligible(endpoint) {
            tier.total += u64::from(weight * FULL);
        }
        if !eligible(endpoint) {
            continue;
        }
        let parts = if endpoint.health == Health::Degraded {
            HALF
        } else {
            FULL
        };
        tier.capacity += u64::from(weight * parts);
        let share = endpoint.share.min(WHOLE);
        tier.admitted += u64::from(weight * parts) * u64::from(share);
        let step = endpoint.step(policy.slow_start, now);
        let weight = weight * parts * step / STEPS * u32::from(share) / u32::from(WHOLE);
        let weight = weight.max(1);
        let before = tier.members.last().map_or(0, |m| m.upto);
        tier.members.push(Member {
            index: at,
            weight,
            upto: before + u64::from(weight),
        });
    }
    tiers
}

/// How many requests each tier gets: the nearest as many as it can take, the next as many as it
/// can of the rest. Of these it gets the share that its sites are given, so that each step of a share
/// is felt, whatever the tier could take. When all together cannot take all, each gets its part of
/// the excess.
fn share(policy: &BalancePolicy, tiers: &mut [Tier]) {
    let mut left = ALL;
    let takes: Vec<u64> = tiers
        .iter()
        .map(|tier| {
            let per = tier.total.max(1) * u64::from(policy.spill_at.clamp(1, 100));
            let can = u128::from(ALL) * u128::from(tier.capacity * 100) / u128::from(per);
            let take = u128::from(left).min(can) * u128::from(tier.admitted);
            let take = take / u128::from((tier.capacity * u64::from(WHOLE)).max(1));
            let take = u64::try_from(take).unwrap_or(left);
            left -= take;
            take
        })
        .collect();
    let taken = (ALL - left).max(1);
    let mut upto = 0;
    for (tier, take) in tiers.iter_mut().zip(takes) {
        upto += take;
        let part = u128::from(upto) * u128::from(ALL) / u128::from(taken);
        tier.share_upto = u64::try_from(part).unwrap_or(ALL);
    }
}

/// All requests.
pub(crate) const ALL: u64 = 1 << 32;

impl Endpoint {
    /// How far it is on the way to its full weight, of [`STEPS`].
    fn step(&self, slow_start: Duration, now: Instant) -> u32 {
        let Some(since) = self.since.filter(|_| slow_start > Duration::ZERO) else {
            return STEPS;
        };
        let steps = u128::from(STEPS) * now.since(since).as_nanos() / slow_start.as_nanos();
        u32::try_from(steps).unwrap_or(STEPS).clamp(1, STEPS)
    }

    /// When its weight changes next, while it starts.
    #[must_use]
    pub fn next_step(&self, slow_start: Duration, now: Instant) -> Option<Instant> {
        let step = self.step(slow_start, now);
        (step < STEPS).then_some(())?;
        Some(self.since? + slow_start * (step + 1) / STEPS)
    }
}
