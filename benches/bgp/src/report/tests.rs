use super::*;

type Row<'a> = (Scenario, Peer, &'a [(&'static str, f64)]);

fn report(runs: &[Row<'_>]) -> Report {
    let mut report = Report::new(json!({ "versions": { "bird": "2.0.12" } }));
    for (round, (scenario, peer, figures)) in (1..).zip(runs) {
        let figures = figures.iter().copied().collect();
        report
            .runs
            .push(Run::new(*scenario, *peer, round, Ok(figures)));
    }
    report
}

#[test]
fn numbers_have_three_digits_or_all_before_the_point() {
    for (value, text) in [
        (0.126, "0.13"),
        (9.99, "9.99"),
        (12.34, "12.3"),
        (152.4, "152"),
        (2415.2, "2,415"),
        (1_234_567.0, "1,234,567"),
        (-1234.0, "-1,234"),
    ] {
        assert_eq!(number(value), text);
    }
}

#[test]
fn ratios_are_those_of_the_medians() {
    let report = report(&[
        (Scenario::Load, Peer::Bird, &[("s", 2.0), ("cpu_s", 1.0)]),
        (Scenario::Load, Peer::Bird, &[("s", 9.0), ("cpu_s", 1.0)]),
        (Scenario::Load, Peer::Bird, &[("s", 1.0), ("cpu_s", 1.0)]),
        (Scenario::Load, Peer::Sealane, &[("s", 1.0), ("cpu_s", 2.0)]),
    ]);
    assert_eq!(report.ratio(Scenario::Load, Peer::Sealane, "s"), Some(0.5));
    let text = report.markdown();
    assert!(text.contains("| bird 2.0.12 | 2.00 (1.00) |"), "{text}");
    assert!(
        text.contains("| *sealane / bird* | 0.50 (2.00) |"),
        "{text}"
    );
    assert!(
        text.contains("| 500 k load, time | ≤ 0.8 × bird | 0.50 | met |"),
        "{text}"
    );
    assert!(
        text.contains("| 500 k load, CPU | ≤ 1.0 × bird | 2.00 | missed |"),
        "{text}"
    );
    assert!(
        text.contains("| withdraw of all | ≤ 0.5 × bird | – | not measured |"),
        "{text}"
    );
    assert_eq!(report.json()["targets"][0]["verdict"], "met");
    assert_eq!(report.json()["medians"]["load/bird"]["s"], 2.0);
    assert!(
        report
            .page()
            .contains("| load | bird | s | 1.00 | 2.00 | 9.00 |")
    );
}

#[test]
fn a_run_that_failed_is_told_and_counts_for_nothing() {
    let mut report = report(&[(Scenario::Load, Peer::Bird, &[("s", 2.0)])]);
    let failed = Err(anyhow::anyhow!("no session"));
    report
        .runs
        .push(Run::new(Scenario::Load, Peer::Bird, 2, failed));
    assert_eq!(report.median(Scenario::Load, Peer::Bird, "s"), Some(2.0));
    assert!(
        report
            .markdown()
            .contains("load bird round 2 failed: no session")
    );
}
