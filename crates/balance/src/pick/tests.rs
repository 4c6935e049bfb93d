//! Picks by data: `NAME health weight distance_ms` a line, then who is chosen how often.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base::{Instant, NetworkId, Rng, SiteId};

use crate::{
    Algorithm, BalancePolicy, Circuit, Connecting, Connection, Endpoint, EndpointKey, EndpointSet,
    Health, InFlight, LoadReport, Scope, pick,
};

const NOW: Instant = Instant::from_nanos(1 << 40);

fn key(n: u16) -> EndpointKey {
    EndpointKey {
        site: SiteId(1),
        network: NetworkId(0),
        address: ([10, 0, 0, 1], n).into(),
    }
}

/// `health weight distance`: H healthy, D degraded, ? unknown, U unhealthy, M maintenance,
/// W withdrawn, R draining, X healthy but unreachable; distance `-` is local. After them perhaps what
/// its site is given, in thousandths.
fn endpoint(n: u16, text: &str) -> Endpoint {
    let mut words = text.split(' ');
    let health = words.next().expect("health");
    let weight = words.next().expect("weight").parse().expect("weight");
    let distance = words.next().expect("distance").parse().ok();
    let share = words.next().map(|share| share.parse().expect("a share"));
    Endpoint {
        key: key(n),
        site: "a.t".parse().expect("site"),
        health: match health {
            "H" | "X" | "E" => Health::Healthy,
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
        ejected: health == "E",
        share: share.unwrap_or(crate::WHOLE),
        since: None,
        stats: Arc::default(),
    }
}

fn set(policy: &BalancePolicy, endpoints: &[&str]) -> EndpointSet {
    let made = (0u16..)
        .zip(endpoints)
        .map(|(n, text)| endpoint(n, text))
        .collect();
    EndpointSet::build(policy, NOW, made)
}

/// Shares in percent of 20,000 sequential picks must be within 2 of `expect`.
fn check(policy: BalancePolicy, endpoints: &[&str], tried: &[u16], expect: &[u64]) {
    let set = set(&policy, endpoints);
    let tried: Vec<_> = tried.iter().map(|&n| key(n)).collect();
    let mut rng = Rng::new(42);
    let mut seen: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..20_000 {
        if let Some(e) = pick(&set, NOW, &mut rng, &tried, None) {
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

fn policy(scope: Scope) -> BalancePolicy {
    BalancePolicy {
        scope,
        ..BalancePolicy::default()
    }
}

#[test]
fn sequential_requests_spread_by_weight() {
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 1 5", "H 1 5"],
        &[],
        &[33, 33, 33],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 3 5", "H 1 5"],
        &[],
        &[75, 25],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "D 1 5"],
        &[],
        &[67, 33],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 0 5"],
        &[],
        &[100, 0],
    );
    check(policy(Scope::PreferLocal), &[], &[], &[]);
}

#[test]
fn the_nearest_tier_with_an_untried_endpoint_serves() {
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 1 40"],
        &[],
        &[100, 0],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 1 40"],
        &[0],
        &[0, 100],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 1 40"],
        &[0, 1],
        &[0, 0],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 1 9", "H 1 10"],
        &[],
        &[50, 50, 0],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 -", "H 1 2", "H 1 3"],
        &[],
        &[50, 50, 0],
    );
    check(
        policy(Scope::PreferLocal),
        &["H 1 5", "H 1 5", "H 1 40"],
        &[1],
        &[100, 0, 0],
    );
    check(
        policy(Scope::Distributed),
        &["H 1 5", "H 1 40"],
        &[],
        &[50, 50],
    );
    check(policy(Scope::Local), &["H 1 5", "H 1 -"], &[], &[0, 100]);
    check(policy(Scope::Local), &["H 1 5", "U 1 -"], &[], &[0, 0]);
}

#[test]
fn health_decides_who_is_eligible() {
    check(
        policy(Scope::PreferLocal),
        &["U 1 5", "H 1 40"],
        &[],
        &[0, 100],
    );
    check(
        policy(Scope::PreferLocal),
        &["X 1 5", "H 1 40"],
        &[],
        &[0, 100],
    );
    check(
        policy(Scope::PreferLocal),
        &["? 1 5", "D 1 40"],
        &[],
        &[0, 100],
    );
    check(
        policy(Scope::PreferLocal),
        &["? 1 5", "U 1 5"],
        &[],
        &[100, 0],
    );
    check(
        policy(Scope::PreferLocal),
        &["U 1 5", "M 1 5", "W 1 5", "R 1 5"],
        &[],
        &[0, 0, 0, 0],
    );
    check(
        policy(Scope::PreferLocal),
        &["E 1 5", "H 1 40"],
        &[],
        &[0, 100],
    );
    check(
        policy(Scope::PreferLocal),
        &["E 1 5", "U 1 5"],
        &[],
        &[100, 0],
    );
}

#[test]
fn when_nearly_all_are_sick_the_probes_are_not_believed() {
    let panics = BalancePolicy {
        panic_below: 50,
        ..BalancePolicy::default()
    };
    check(
        panics,
        &["U 1 5", "M 1 5", "W 1 5", "R 1 5"],
        &[],
        &[100, 0, 0, 0],
    );
    check(panics, &["U 1 5", "U 1 5", "H 1 5"], &[], &[33, 33, 33]);
    check(panics, &["U 1 5", "H 1 5", "M 1 5"], &[], &[0, 100, 0]);
    check(panics, &["E 1 5", "U 1 5", "H 1 5", "? 1 5"], &[], &[25; 4]);
}

#[test]
fn what_the_nearest_cannot_take_spills_to_the_next() {
    let at = |spill_at| BalancePolicy {
        spill_at,
        ..BalancePolicy::default()
    };
    // Seven of eight are dead: the eighth gets an eighth and no more.
    let mut eight = vec!["U 1 5"; 7];
    eight.extend(["H 1 5", "H 1 40", "H 1 40", "H 1 90"]);
    let shares = |near, next| {
        let mut shares = vec![0; 7];
        shares.extend([near, next, next, 0]);
        shares
    };
    check(at(100), &eight, &[], &shares(13, 44));
    // Others may take more than that before anything goes far.
    check(at(50), &eight, &[], &shares(25, 38));
    check(
        at(70),
        &["U 1 5", "H 1 5", "H 1 5", "H 1 5", "H 1 40"],
        &[],
        &[0, 33, 33, 33, 0],
    );
    check(
        at(100),
        &["U 1 5", "H 1 5", "H 1 5", "H 1 5", "H 1 40"],
        &[],
        &[0, 25, 25, 25, 25],
    );
    // Half well is half a place; of one not known yet nobody expects anything.
    check(at(100), &["D 1 5", "H 1 40"], &[], &[50, 50]);
    check(at(100), &["? 1 5", "H 1 5", "H 1 40"], &[], &[0, 100, 0]);
    // All together cannot take it: each gets its part.
    check(
        at(100),
        &["U 3 5", "H 1 5", "U 3 40", "H 1 40"],
        &[],
        &[0, 50, 0, 50],
    );
    // Nothing farther to go to.
    check(at(100), &["U 1 5", "H 1 5"], &[], &[0, 100]);
    // Whoever is left when the chosen tier was tried.
    check(at(100), &["U 1 5", "H 1 5", "H 1 40"], &[2], &[0, 100, 0]);
    // A hash belongs to one tier.
    let hashed = BalancePolicy {
        algorithm: Algorithm::Maglev,
        ..at(100)
    };
    let half = set(&hashed, &["U 1 5", "H 1 5", "H 1 40"]);
    let first = places(&half, &[], 20_000);
    assert_eq!(first, places(&half, &[], 20_000));
    let near = first.iter().filter(|port| **port == 1).count();
    assert!((9_500..10_500).contains(&near), "{near}");
}

#[test]
fn what_a_loaded_site_is_not_given_goes_to_the_next() {
    let prefers = BalancePolicy::default();
    check(prefers, &["H 1 5 600", "H 1 40"], &[], &[60, 40]);
    // However much the next could take, it gets no more than is left, and its part of that.
    check(
        prefers,
        &["H 1 5 600", "H 9 40 500", "H 1 90"],
        &[],
        &[60, 20, 20],
    );
    // Two sites at one distance: the loaded one gets less of what both get.
    check(
        prefers,
        &["H 1 5 500", "H 1 5", "H 1 40"],
        &[],
        &[25, 50, 25],
    );
    // Half of them dead and the other half loaded.
    let exact = BalancePolicy {
        spill_at: 100,
        ..prefers
    };
    check(
        exact,
        &["U 1 5 500", "H 1 5 500", "H 1 40"],
        &[],
        &[0, 25, 75],
    );
    // Whoever could take it is loaded as well, or there is nobody: all of it still goes.
    check(prefers, &["H 1 5 300", "H 1 40 300"], &[], &[59, 41]);
    check(prefers, &["H 1 5 10"], &[], &[100]);
    check(prefers, &["H 1 5 10", "U 1 40"], &[], &[100, 0]);
    // Without tiers each gets its part by weight; at home there is no choice.
    let everywhere = BalancePolicy {
        scope: Scope::Distributed,
        ..prefers
    };
    check(everywhere, &["H 1 5 500", "H 1 40"], &[], &[33, 67]);
    let home = BalancePolicy {
        scope: Scope::Local,
        ..prefers
    };
    check(home, &["H 1 - 500", "H 1 40"], &[], &[100, 0]);
}

#[test]
fn a_new_one_starts_slowly() {
    let slow = BalancePolicy {
        algorithm: Algorithm::Random,
        slow_start: Duration::from_secs(10),
        ..BalancePolicy::default()
    };
    let share = |age: Duration| {
        let mut endpoints = vec![endpoint(0, "H 1 -"), endpoint(1, "H 1 -")];
        endpoints[1].since = Some(NOW);
        let now = NOW + age;
        let next = endpoints[1].next_step(slow.slow_start, now);
        let set = EndpointSet::build(&slow, now, endpoints);
        let mut rng = Rng::new(3);
        let new = (0..20_000).filter(|_| {
            let chosen = pick(&set, now, &mut rng, &[], None).expect("somebody");
            chosen.key == key(1)
        });
        (
            new.count() / 200,
            next.map(|next| next.since(NOW).as_secs()),
        )
    };
    let (first, next) = share(Duration::ZERO);
    assert!(first.abs_diff(9) <= 1, "{first}");
    assert_eq!(next, Some(2));
    let (half, next) = share(Duration::from_millis(5_500));
    assert!(half.abs_diff(33) <= 1, "{half}");
    assert_eq!(next, Some(6));
    let (whole, next) = share(Duration::from_secs(10));
    assert!(whole.abs_diff(50) <= 1, "{whole}");
    assert_eq!(next, None);
}

#[test]
fn the_slow_get_less_and_are_not_forgotten() {
    let set = set(&by(Algorithm::PeakEwma), &["H 1 -", "H 1 -"]);
    let [fast, slow] = set.endpoints() else {
        panic!("two endpoints");
    };
    let ms = Duration::from_millis;
    fast.stats.answered(NOW, ms(2));
    slow.stats.answered(NOW, ms(20));
    assert_eq!(slow.stats.latency(NOW), ms(20));
    let chosen = |now| {
        pick(&set, now, &mut Rng::new(1), &[], None)
            .expect("one")
            .key
    };
    assert_eq!(chosen(NOW), key(0));
    // Ten on the fast one take as long as one on the slow.
    let mut running: Vec<InFlight> = (0..8).map(|_| InFlight::start(&fast.stats)).collect();
    assert_eq!(chosen(NOW), key(0));
    running.extend((0..2).map(|_| InFlight::start(&fast.stats)));
    assert_eq!(chosen(NOW), key(1));
    drop(running);
    // A good answer now tells little, one after a while nearly all; a bad one all at once.
    slow.stats.answered(NOW, ms(2));
    assert!(slow.stats.latency(NOW) > ms(19));
    let later = NOW + Duration::from_secs(60);
    assert!(slow.stats.latency(later) < ms(1), "it fades");
    slow.stats.answered(later, ms(2));
    assert!(slow.stats.latency(later) < ms(3));
    slow.stats.answered(later, ms(50));
    assert_eq!(slow.stats.latency(later), ms(50));
}

#[test]
fn a_circuit_counts_what_this_node_does() {
    let set = set(&policy(Scope::PreferLocal), &["H 1 -", "H 1 -"]);
    let circuit = Circuit {
        connections: Some(2),
        pending: Some(1),
        requests: Some(1),
        retries: None,
    };
    let [one, other] = set.endpoints() else {
        panic!("two endpoints");
    };
    assert!(circuit.takes_request(&set) && circuit.takes_connection(&set));
    let running = InFlight::start(&one.stats);
    let connecting = Connecting::start(&other.stats);
    assert!(!circuit.takes_request(&set) && !circuit.takes_connection(&set));
    drop((running, connecting));
    let _one = Connection::open(&one.stats);
    assert!(circuit.takes_request(&set) && circuit.takes_connection(&set));
    let _two = Connection::open(&other.stats);
    assert!(!circuit.takes_connection(&set));
    assert!(Circuit::default().takes_connection(&set));
}

#[test]
fn fewer_in_flight_wins() {
    let set = set(&policy(Scope::PreferLocal), &["H 1 5", "H 1 5", "H 2 5"]);
    let mut rng = Rng::new(7);
    let mut running = Vec::new();
    for _ in 0..4_000 {
        let chosen = pick(&set, NOW, &mut rng, &[], None).expect("eligible");
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
    let set = EndpointSet::build(
        &policy(Scope::PreferLocal),
        NOW,
        vec![endpoint(1, "U 1 5"), endpoint(1, "H 1 5")],
    );
    assert_eq!(set.endpoints().len(), 1);
    assert_eq!(set.eligible(), 1);
    assert!(set.is_alive(&key(1)));
    assert!(!set.is_alive(&key(2)));
}

fn by(algorithm: Algorithm) -> BalancePolicy {
    BalancePolicy {
        algorithm,
        ..BalancePolicy::default()
    }
}

/// Who gets each of these hashes.
fn places(set: &EndpointSet, tried: &[EndpointKey], hashes: u64) -> Vec<u16> {
    let mut rng = Rng::new(1);
    let hashes = (0..hashes).map(|hash| crate::stable_hash(&hash.to_be_bytes()));
    let chosen = hashes.map(|hash| pick(set, NOW, &mut rng, tried, Some(hash)).expect("somebody"));
    chosen.map(|endpoint| endpoint.key.address.port()).collect()
}

#[test]
fn everyone_in_turn() {
    let equal = set(
        &by(Algorithm::RoundRobin),
        &["H 1 -", "H 1 -", "H 1 -", "U 1 -"],
    );
    let mut rng = Rng::new(1);
    let mut turns = |set: &EndpointSet, tried: &[EndpointKey], count: usize| -> Vec<u16> {
        let mut next = || pick(set, NOW, &mut rng, tried, None).expect("somebody");
        (0..count).map(|_| next().key.address.port()).collect()
    };
    assert_eq!(turns(&equal, &[], 7), [0, 1, 2, 0, 1, 2, 0]);
    // Whoever was tried is passed over.
    assert_eq!(turns(&equal, &[key(1)], 3), [2, 2, 0]);
    assert!(
        pick(
            &equal,
            NOW,
            &mut Rng::new(1),
            &[key(0), key(1), key(2)],
            None
        )
        .is_none()
    );
    // By weight, and interleaved: a degraded one at half of its own.
    let weighted = set(&by(Algorithm::RoundRobin), &["H 50 -", "D 50 -", "H 75 -"]);
    assert_eq!(
        turns(&weighted, &[], 12),
        [2, 0, 1, 2, 0, 2, 2, 0, 1, 2, 0, 2]
    );
    // A set that follows goes on where the other was.
    let endpoints = equal.endpoints().to_vec();
    drop(InFlight::start(&endpoints[0].stats));
    let next = EndpointSet::build(&by(Algorithm::RoundRobin), NOW, endpoints);
    assert_eq!(turns(&next, &[], 2), [1, 2]);
    // Weights that have nothing in common do not grow a set without bound.
    let odd: Vec<String> = (0..500).map(|n| format!("H {} -", 2 * n + 1)).collect();
    let odd: Vec<&str> = odd.iter().map(String::as_str).collect();
    assert_eq!(
        turns(&set(&by(Algorithm::RoundRobin), &odd), &[], 1).len(),
        1
    );
}

#[test]
fn hashes_stay_where_they_are() {
    for algorithm in [Algorithm::RingHash, Algorithm::Maglev] {
        let all = ["H 100 -"; 8];
        let whole = set(&by(algorithm), &all);
        let before = places(&whole, &[], 20_000);
        assert_eq!(before, places(&whole, &[], 20_000));
        for n in 0..8 {
            let share = before.iter().filter(|port| **port == n).count();
            assert!(
                (1_500..3_600).contains(&share),
                "{algorithm:?} {n}: {share}"
            );
        }
        // One goes: its own go elsewhere, to several, and hardly any others.
        let mut without = all;
        without[3] = "U 100 -";
        let after = places(&set(&by(algorithm), &without), &[], 20_000);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(a, b)| a != b && **a != 3)
            .count();
        assert!(moved < 600, "{algorithm:?}: {moved} moved in vain");
        assert!(!after.contains(&3));
        let retried = places(&whole, &[key(3)], 20_000);
        let heirs = before.iter().zip(&retried).filter(|(a, _)| **a == 3);
        let heirs: std::collections::BTreeSet<u16> = heirs.map(|(_, b)| *b).collect();
        assert!(
            heirs.len() >= 4 && !heirs.contains(&3),
            "{algorithm:?} {heirs:?}"
        );
        // By weight.
        let weighted = places(&set(&by(algorithm), &["H 100 -", "H 25 -"]), &[], 20_000);
        let light = weighted.iter().filter(|port| **port == 1).count();
        assert!((2_500..5_500).contains(&light), "{algorithm:?}: {light}");
        // Without anything to go by they are drawn.
        check(by(algorithm), &["H 1 -", "H 3 -"], &[], &[25, 75]);
    }
    check(
        by(Algorithm::Random),
        &["H 1 -", "H 3 -", "H 9 9"],
        &[],
        &[25, 75, 0],
    );
    // The same for ever: nodes of several versions stand beside each other.
    assert_eq!(crate::stable_hash(b"sealane"), 6_258_309_224_701_875_973);
}

/// Who is chosen how often, in percent, at `now`.
fn shares(set: &EndpointSet, now: Instant, tried: &[EndpointKey]) -> Vec<u64> {
    let (mut rng, mut counts) = (Rng::new(3), BTreeMap::new());
    for _ in 0..20_000 {
        let one = pick(set, now, &mut rng, tried, None).expect("one");
        *counts.entry(one.key).or_insert(0) += 1;
    }
    let keys = set.endpoints().iter().map(|endpoint| endpoint.key);
    keys.map(|key| (counts.get(&key).unwrap_or(&0) + 100) / 200)
        .collect()
}

fn near(found: &[u64], expect: &[u64]) -> bool {
    let mut pairs = found.iter().zip(expect);
    found.len() == expect.len() && pairs.all(|(a, b)| a.abs_diff(*b) <= 1)
}

#[test]
fn who_says_that_it_is_loaded_gets_less() {
    let s = Duration::from_secs;
    // Utilisation in percent, requests and failures a second, and the shares that come of them.
    for (endpoints, said, expect) in [
        (
            &["H 1 -", "H 1 -"][..],
            &[(20, 100, 0), (80, 100, 0)][..],
            &[80, 20][..],
        ),
        (
            &["H 1 -", "H 1 -"],
            &[(50, 100, 0), (50, 300, 0)],
            &[25, 75],
        ),
        // Failures count as use: 0.5 + 0.5.
        (
            &["H 1 -", "H 1 -"],
            &[(50, 100, 0), (50, 100, 50)],
            &[67, 33],
        ),
        // Beside what was configured.
        (
            &["H 3 -", "H 1 -"],
            &[(50, 100, 0), (50, 100, 0)],
            &[75, 25],
        ),
        (
            &["H 1 -", "H 3 -"],
            &[(20, 100, 0), (60, 100, 0)],
            &[50, 50],
        ),
        // Who says nothing, or nothing of use, counts as the mean of all who do.
        (
            &["H 1 -", "H 1 -", "H 1 -"],
            &[(20, 100, 0), (60, 300, 0), (0, 0, 0)],
            &[33, 33, 33],
        ),
        (
            &["H 1 -", "H 1 -", "H 1 -"],
            &[(25, 100, 0), (50, 100, 0), (0, 9, 0)],
            &[44, 22, 33],
        ),
        // Of one alone nothing follows.
        (&["H 1 -", "H 1 -"], &[(10, 900, 0), (0, 0, 0)], &[50, 50]),
        (
            &["H 1 -", "H 1 -", "H 98 -"],
            &[(1, 100_000, 0), (100, 1, 0)],
            &[2, 0, 98],
        ),
    ] {
        let set = set(&by(Algorithm::WeightedByLoad), endpoints);
        let policy = *set.by_load().expect("by load");
        let say = |now| {
            for (endpoint, (percent, qps, eps)) in set.endpoints().iter().zip(said) {
                let report = LoadReport {
                    utilization: f64::from(*percent) / 100.0,
                    qps: f64::from(*qps),
                    eps: f64::from(*eps),
                };
                endpoint.stats.reported(now, report, &policy);
            }
        };
        say(NOW);
        let configured: u64 = set.endpoints().iter().map(|e| u64::from(e.weight)).sum();
        let alike: Vec<u64> = set
            .endpoints()
            .iter()
            .map(|e| u64::from(e.weight) * 100 / configured)
            .collect();
        assert!(
            near(&shares(&set, NOW + s(9), &[]), &alike),
            "too early: {said:?}"
        );
        say(NOW + s(9));
        let found = shares(&set, NOW + s(11), &[]);
        assert!(
            near(&found, expect),
            "{found:?} instead of {expect:?}: {said:?}"
        );
        let found = shares(&set, NOW + s(9 + 180), &[]);
        assert!(
            near(&found, &alike),
            "{found:?}: said too long ago: {said:?}"
        );
    }
}

#[test]
fn loads_are_smoothed_and_begin_anew() {
    let set = set(&by(Algorithm::WeightedByLoad), &["H 1 -", "H 1 -"]);
    let policy = *set.by_load().expect("by load");
    let (s, ms) = (Duration::from_secs, Duration::from_millis);
    let report = |utilization: f64| LoadReport {
        utilization,
        qps: 100.0,
        eps: 0.0,
    };
    let stats = &set.endpoints()[0].stats;
    let load = |now| stats.load(now, &policy).map(|weight| weight.round());
    stats.reported(NOW, report(0.5), &policy);
    assert_eq!(load(NOW + s(9)), None);
    assert_eq!(load(NOW + s(10)), Some(200.0));
    // One that differs moves it a little, many do so wholly.
    let mut now = NOW + s(10);
    stats.reported(now, report(1.0), &policy);
    assert_eq!(load(now), Some(100.0), "ten seconds of silence weigh");
    stats.reported(now + ms(1), report(0.5), &policy);
    assert_eq!(load(now + ms(1)), Some(101.0));
    for _ in 0..3000 {
        now = now + ms(1);
        stats.reported(now, report(0.5), &policy);
    }
    assert_eq!(load(now), Some(200.0));
    // After a long silence it is a new one.
    let later = now + s(180);
    assert_eq!(load(later), None);
    stats.reported(later, report(1.0), &policy);
    assert_eq!(load(later + s(9)), None);
    assert_eq!(load(later + s(10)), Some(100.0));
    // What makes no sense changes nothing.
    for (utilization, qps, eps) in [
        (0.0, 1.0, 0.0),
        (-1.0, 1.0, 0.0),
        (1.0, 0.0, 0.0),
        (1.0, -1.0, 0.0),
        (f64::NAN, 1.0, 0.0),
        (1.0, f64::INFINITY, 0.0),
        (f64::MIN_POSITIVE, f64::MAX, 0.0),
        (1.0, 1.0, f64::INFINITY),
    ] {
        let report = LoadReport {
            utilization,
            qps,
            eps,
        };
        stats.reported(later + s(10), report, &policy);
        assert_eq!(load(later + s(10)), Some(100.0), "{report:?}");
    }
}

#[test]
fn a_second_try_goes_by_load_too() {
    let endpoints = ["H 1 -", "H 1 -", "H 1 -"];
    let set = set(&by(Algorithm::WeightedByLoad), &endpoints);
    let policy = *set.by_load().expect("by load");
    for (endpoint, utilization) in set.endpoints().iter().zip([0.1, 0.2, 0.8]) {
        let report = LoadReport {
            utilization,
            qps: 100.0,
            eps: 0.0,
        };
        endpoint.stats.reported(NOW, report, &policy);
    }
    let later = NOW + Duration::from_secs(10);
    let first = set.endpoints()[0].key;
    let found = shares(&set, later, &[first]);
    assert!(near(&found, &[0, 80, 20]), "{found:?}");
}

#[test]
fn who_boasts_gets_no_more_than_ten_times_the_mean() {
    let all = ["H 1 -"; 100];
    let set = set(&by(Algorithm::WeightedByLoad), &all);
    let policy = *set.by_load().expect("by load");
    for (at, endpoint) in set.endpoints().iter().enumerate() {
        let report = LoadReport {
            utilization: 1.0,
            qps: if at == 0 { 1_000_000.0 } else { 100.0 },
            eps: 0.0,
        };
        endpoint.stats.reported(NOW, report, &policy);
    }
    // Of 10,000 times the others' weight nine tenths would come; draws end before.
    let found = shares(&set, NOW + Duration::from_secs(10), &[]);
    assert!((30..60).contains(&found[0]), "{found:?}");
}
