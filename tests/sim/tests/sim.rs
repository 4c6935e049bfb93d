//! Fifty sites, faults, checkers: the same seed is the same run, and a planted bug is found.

use std::sync::OnceLock;

use sim::{Checker, Options, Report, run};

fn good(seed: u64) -> Report {
    let report = run(&Options::seed(seed));
    let shown: String = report
        .violations
        .iter()
        .map(|v| format!("\n  {v}"))
        .collect();
    assert!(report.violations.is_empty(), "seed {seed}:{shown}");
    // The run is worth something: requests went through, and most were answered.
    assert!(
        report.requests > 1000,
        "seed {seed}: {} requests",
        report.requests
    );
    assert!(
        report.answered * 10 > report.requests * 8,
        "seed {seed}: {} answered",
        report.answered
    );
    report
}

/// Seed 1, run once for all tests.
fn first() -> &'static Report {
    static FIRST: OnceLock<Report> = OnceLock::new();
    FIRST.get_or_init(|| good(1))
}

#[test]
fn nothing_is_broken_by_any_seed() {
    let seeds = std::env::var("SEALANE_SIM_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    for seed in 2..=seeds {
        let report = good(seed);
        println!(
            "seed {seed}: {} events, {} of {} requests answered, {}",
            report.events, report.answered, report.requests, report.digest
        );
        assert_ne!(report.digest, first().digest, "another seed is another run");
    }
}

#[test]
fn a_seed_is_a_run() {
    let again = good(1);
    assert_eq!(again.digest, first().digest);
    assert_eq!(again.events, first().events);
}

#[test]
fn a_lost_down_is_caught() {
    let planted = run(&Options {
        lose_one_down: true,
        ..Options::seed(1)
    });
    assert!(planted.bug_fired && !first().bug_fired);
    assert!(first().violations.is_empty());
    assert_ne!(planted.digest, first().digest);
    let found: Vec<Checker> = planted.violations.iter().map(|v| v.checker).collect();
    assert!(found.contains(&Checker::DeadEndpoint), "{found:?}");
    assert!(found.contains(&Checker::Truth), "{found:?}");
    assert!(
        found
            .iter()
            .all(|c| matches!(c, Checker::DeadEndpoint | Checker::Truth)),
        "{found:?}"
    );
}
