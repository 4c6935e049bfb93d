//! Picks by data: `NAME health weight distance_ms` a line, then who is chosen how often.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base::{NetworkId, Rng, SiteId};

use crate::{BalancePolicy, Endpoint, EndpointKey, EndpointSet, Health, InFlight, Scope, pick};

fn key(n: u16) -> EndpointKey {
    EndpointKey {
        site: SiteId(1),
        network: NetworkId(0),
        address: ([10, 0, 0, 1], n).into(),
    }
}

/// `health weight distance`: H healthy, D degraded, ? unknown, U unhealthy, M maintenance,
/// W withdrawn, R draining, X healthy but unreachable; distance `-` is local.
fn endpoint(n: u16, text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let health = words.next().expect("health");
    let weight = words.next().expect("weight").parse().expect("weight");
    let distance = words.next().expect("distance").parse().ok();
    Endpoint {
        key: key(n),
        site: "a.t".parse().expect("site"),
        health: match health {
            "H" | "X" => Health::Healthy,
            "D" => Health::Degraded,
            "?" => Health::Unknown,
            "U" => Health::Unhealthy,
            "M" => Health::Maintenance,
            "W" => Health::Withdrawn,
            _ => Health::Draining,
        },
        weight,
        distance: distance.map(Duration::from_millis),
        reachable: health != "X",
        stats: Arc::default(),
    }
}

fn set(policy: &BalancePolicy, endpoints: &[&str]) -> EndpointSet {
    let made = (0u16..)
        .zip(endpoints)
        .map(|(n, text)| endpoint(n, text))
        .collect();
    EndpointSet::build(policy, made)
}

/// Shares in percent of 20,000 sequential picks must be within 2 of `expect`.
fn check(policy: BalancePolicy, endpoints: &[&str], tried: &[u16], expect: &[u64]) {
    let set = set(&policy, endpoints);
    let tried: Vec<_> = tried.iter().map(|&n| key(n)).collect();
    let mut rng = Rng::new(42);
    let mut seen: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..20_000 {
        if let Some(e) = pick(&set, &mut rng, &tried) {
            *seen.entry(e.key.address.port()).or_default() += 1;
        }
    }
    let shares: Vec<u64> = (0u16..)
        .zip(endpoints)
        .map(|(n, _)| (seen.get(&n).copied().unwrap_or(0) + 100) / 200)
        .collect();
    let close = shares.iter().zip(expect).all(|(a, b)| a.abs_diff(*b) <= 2);
    assert!(
        close,
        "{endpoints:?} without {tried:?}: {shares:?}, not {expect:?}"
    );
}

const PREFER: BalancePolicy = BalancePolicy {
    scope: Scope::PreferLocal,
    panic: false,
};
const PANIC: BalancePolicy = BalancePolicy {
    scope: Scope::PreferLocal,
    panic: true,
};
const ALL: BalancePolicy = BalancePolicy {
    scope: Scope::Distributed,
    panic: false,
};
const LOCAL: BalancePolicy = BalancePolicy {
    scope: Scope::Local,
    panic: false,
};

#[test]
fn sequential_requests_spread_by_weight() {
    check(PREFER, &["H 1 5", "H 1 5", "H 1 5"], &[], &[33, 33, 33]);
    check(PREFER, &["H 3 5", "H 1 5"], &[], &[75, 25]);
    check(PREFER, &["H 1 5", "D 1 5"], &[], &[67, 33]);
    check(PREFER, &["H 1 5", "H 0 5"], &[], &[100, 0]);
    check(PREFER, &[], &[], &[]);
}

#[test]
fn the_nearest_tier_with_an_untried_endpoint_serves() {
    check(PREFER, &["H 1 5", "H 1 40"], &[], &[100, 0]);
    check(PREFER, &["H 1 5", "H 1 40"], &[0], &[0, 100]);
    check(PREFER, &["H 1 5", "H 1 40"], &[0, 1], &[0, 0]);
    check(PREFER, &["H 1 5", "H 1 9", "H 1 10"], &[], &[50, 50, 0]);
    check(PREFER, &["H 1 -", "H 1 2", "H 1 3"], &[], &[50, 50, 0]);
    check(PREFER, &["H 1 5", "H 1 5", "H 1 40"], &[1], &[100, 0, 0]);
    check(ALL, &["H 1 5", "H 1 40"], &[], &[50, 50]);
    check(LOCAL, &["H 1 5", "H 1 -"], &[], &[0, 100]);
    check(LOCAL, &["H 1 5", "U 1 -"], &[], &[0, 0]);
}

#[test]
fn health_decides_who_is_eligible() {
    check(PREFER, &["U 1 5", "H 1 40"], &[], &[0, 100]);
    check(PREFER, &["X 1 5", "H 1 40"], &[], &[0, 100]);
    check(PREFER, &["? 1 5", "D 1 40"], &[], &[0, 100]);
    check(PREFER, &["? 1 5", "U 1 5"], &[], &[100, 0]);
    check(
        PREFER,
        &["U 1 5", "M 1 5", "W 1 5", "R 1 5"],
        &[],
        &[0, 0, 0, 0],
    );
    check(
        PANIC,
        &["U 1 5", "M 1 5", "W 1 5", "R 1 5"],
        &[],
        &[100, 0, 0, 0],
    );
    check(PANIC, &["U 1 5", "? 1 5"], &[], &[0, 100]);
}

#[test]
fn fewer_in_flight_wins() {
    let set = set(&PREFER, &["H 1 5", "H 1 5", "H 2 5"]);
    let mut rng = Rng::new(7);
    let mut running = Vec::new();
    for _ in 0..4_000 {
        let chosen = pick(&set, &mut rng, &[]).expect("eligible");
        running.push(InFlight::start(&chosen.stats));
    }
    let held: Vec<u32> = set
        .endpoints()
        .iter()
        .map(|e| e.stats.in_flight())
        .collect();
    assert!(
        held[0].abs_diff(1000) < 20 && held[1].abs_diff(1000) < 20,
        "{held:?}"
    );
    drop(running);
    assert!(set.endpoints().iter().all(|e| e.stats.in_flight() == 0));
}

#[test]
fn of_two_with_one_key_the_last_stays() {
    let set = EndpointSet::build(&PREFER, vec![endpoint(1, "U 1 5"), endpoint(1, "H 1 5")]);
    assert_eq!(set.endpoints().len(), 1);
    assert_eq!(set.eligible(), 1);
    assert!(set.is_alive(&key(1)));
    assert!(!set.is_alive(&key(2)));
}
