//! Fifty sites, faults, checkers: the same seed is the same run, and a planted bug is found.

use sim::{Checker, Options, Report, run};

fn good(seed: u64) -> Report {
    let report = run(&Options::seed(seed));
    let shown: String = report.violations.iter().map(|v| format!("\n  {v}")).collect();
    assert!(report.violations.is_empty(), "seed {seed}:{shown}");
    assert!(report.requests > 1000, "seed {seed}: {} requests", report.requests);
    assert!(report.answered * 10 > report.requests * 8, "seed {seed}: {} answered", report.answered);
    report
}

#[test]
fn nothing_is_broken_by_any_seed() {
    let seeds = std::env::var("SEALANE_SIM_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    for seed in 1..=seeds {
        let report = good(seed);
        println!(
            "seed {seed}: {} events, {} of {} requests answered, {}",
            report.events, report.answered, report.requests, report.digest
        );
    }
}

#[test]
fn a_seed_is_a_run() {
    let (first, second, other) = (good(1), good(1), good(2));
    assert_eq!(first.digest, second.digest);
    assert_eq!(first.events, second.events);
    assert_ne!(first.digest, other.digest);
}

#[test]
fn a_lost_down_is_caught() {
    let sound = good(3);
    let planted = run(&Options { lose_one_down: true, ..Options::seed(3) });
    assert!(planted.bug_fired && !sound.bug_fired);
    let found: Vec<Checker> = planted.violations.iter().map(|v| v.checker).collect();
    assert!(found.contains(&Checker::DeadEndpoint), "{found:?}");
    assert!(found.contains(&Checker::Truth), "{found:?}");
    assert!(found.iter().all(|c| matches!(c, Checker::DeadEndpoint | Checker::Truth)), "{found:?}");
}
