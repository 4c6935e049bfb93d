//! What Sealane is to reach, and whether it does.

use serde_json::{Value, json};

use super::{Report, number};
use crate::{daemon::Peer, scenario::Scenario};

enum Bound {
    /// Times BIRD's median of the same run, at most.
    Bird(f64),
    AtMost(f64),
    AtLeast(f64),
}

struct Target {
    what: &'static str,
    scenario: Scenario,
    figure: &'static str,
    bound: Bound,
}

const fn target(
    what: &'static str,
    scenario: Scenario,
    figure: &'static str,
    bound: Bound,
) -> Target {
    Target {
        what,
        scenario,
        figure,
        bound,
    }
}

const TARGETS: [Target; 13] = [
    target("500 k load, time", Scenario::Load, "s", Bound::Bird(0.8)),
    target("500 k load, CPU", Scenario::Load, "cpu_s", Bound::Bird(1.0)),
    target(
        "withdraw of all",
        Scenario::Load,
        "withdraw_s",
        Bound::Bird(0.5),
    ),
    target(
        "10 × 100 k into 11 sessions",
        Scenario::Sessions11,
        "s",
        Bound::Bird(0.4),
    ),
    target(
        "200 k to 50 receivers",
        Scenario::Fanout50,
        "s",
        Bound::Bird(0.3),
    ),
    target(
        "bytes a route",
        Scenario::Load,
        "bytes_per_route",
        Bound::AtMost(200.0),
    ),
    target(
        "one change, idle, p50 ms",
        Scenario::Latency,
        "idle_p50_ms",
        Bound::AtMost(0.2),
    ),
    target(
        "one change, idle, p99 ms",
        Scenario::Latency,
        "idle_p99_ms",
        Bound::AtMost(1.0),
    ),
    target(
        "one change beside 50 k/s, p99 ms",
        Scenario::Latency,
        "busy_p99_ms",
        Bound::AtMost(20.0),
    ),
    target(
        "background kept up, routes/s",
        Scenario::Latency,
        "background_per_s",
        Bound::AtLeast(49_000.0),
    ),
    target(
        "one endpoint behind four daemons, p99 ms",
        Scenario::Chain,
        "chain_p99_ms",
        Bound::AtMost(20.0),
    ),
    target(
        "MESH routes/s through a reflector",
        Scenario::Mesh,
        "routes_per_s",
        Bound::AtLeast(300_000.0),
    ),
    target(
        "MESH bytes an endpoint",
        Scenario::Mesh,
        "bytes_per_route",
        Bound::AtMost(120.0),
    ),
];

impl Target {
    fn bound(&self) -> String {
        match self.bound {
            Bound::Bird(times) => format!("≤ {times:.1} × bird"),
            Bound::AtMost(most) => format!("≤ {}", number(most)),
            Bound::AtLeast(least) => format!("≥ {}", number(least)),
        }
    }

    fn measured(&self, report: &Report) -> Option<f64> {
        match self.bound {
            Bound::Bird(_) => report.ratio(self.scenario, Peer::Sealane, self.figure),
            Bound::AtMost(_) | Bound::AtLeast(_) => {
                report.median(self.scenario, Peer::Sealane, self.figure)
            }
        }
    }

    fn met(&self, measured: f64) -> bool {
        match self.bound {
            Bound::Bird(most) | Bound::AtMost(most) => measured <= most,
            Bound::AtLeast(least) => measured >= least,
        }
    }

    fn verdict(&self, measured: Option<f64>) -> &'static str {
        match measured {
            Some(measured) if self.met(measured) => "met",
            Some(_) => "missed",
            None => "not measured",
        }
    }
}

/// Nothing if ours did not take part.
pub(super) fn table(report: &Report, text: &mut String) {
    if !report.peers().contains(&Peer::Sealane) {
        return;
    }
    *text += "\n| target | bound | measured | verdict |\n|---|---|---|---|\n";
    for target in &TARGETS {
        let measured = target.measured(report);
        let (what, bound, verdict) = (target.what, target.bound(), target.verdict(measured));
        let measured = measured.map_or("–".to_owned(), number);
        *text += &format!("| {what} | {bound} | {measured} | {verdict} |\n");
    }
}

pub(super) fn json(report: &Report) -> Value {
    let targets = TARGETS.iter().map(|target| {
        let measured = target.measured(report);
        json!({
            "what": target.what,
            "bound": target.bound(),
            "measured": measured,
            "verdict": target.verdict(measured),
        })
    });
    targets.collect()
}
