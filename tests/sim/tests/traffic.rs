//! Lines that fill: what begins goes elsewhere, and nothing swings.

use std::time::Duration;

use sim::{Options, Report, Traffic, run};

/// Eleven minutes.
fn traffic(seed: u64, mbit: u64, bulk: Option<(u64, u64)>) -> Report {
    let report = run(&Options {
        until_ms: Some(660_000),
        traffic: Some(Traffic { mbit, bulk }),
        ..Options::seed(seed)
    });
    assert_eq!(report.violations, [], "seed {seed}");
    assert!(report.moves.streams > 1200, "{:?}", report.moves);
    report
}

#[test]
fn what_begins_goes_round_a_line_that_is_full_and_stays_there() {
    let bulk = Some((60, 640));
    let report = traffic(1, 20, bulk);
    let moves = &report.moves;
    println!("20 Mbit/s beside a bulk transfer: {moves:?}");
    let [once] = moves.changes[..] else {
        panic!("{moves:?}");
    };
    assert!((60..70).contains(&once.as_secs()), "{moves:?}");
    assert_eq!(moves.over_full, 0, "{moves:?}");
    assert_eq!(traffic(1, 20, bulk).digest, report.digest);
}

#[test]
fn where_there_is_room_nothing_moves() {
    let report = traffic(1, 60, None);
    let none: [Duration; 0] = [];
    assert_eq!(report.moves.changes, none);
}

#[test]
fn what_no_line_carries_alone_moves_less_and_less_often() {
    let report = traffic(1, 150, None);
    println!("150 Mbit/s: {:?}", report.moves);
    let changes = &report.moves.changes;
    // It would be sad if the line were not even seen to be full.
    assert!((1..=8).contains(&changes.len()), "{changes:?}");
    let gaps = changes.windows(2).map(|pair| pair[1] - pair[0]);
    let gaps: Vec<Duration> = gaps.collect();
    assert!(
        gaps.iter().all(|gap| *gap >= Duration::from_secs(20)),
        "{gaps:?}"
    );
}
