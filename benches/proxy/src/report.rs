//! Medians, ratios, verdicts.

use std::collections::BTreeSet;

use anyhow::Result;
use bench_kit::{median, number, results};
use serde_json::{Map, Value, json};

use crate::{
    contestant::Contestant,
    scenario::{Figures, Scenario},
};

/// One run and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    scenario: Scenario,
    contestant: Contestant,
    figures: Figures,
    failed: Option<String>,
}

impl Run {
    pub(crate) fn new(scenario: Scenario, contestant: Contestant, outcome: Result<Figures>) -> Run {
        let (figures, failed) = match outcome {
            Ok(figures) => (figures, None),
            Err(error) => (Figures::new(), Some(format!("{error:#}"))),
        };
        Run {
            scenario,
            contestant,
            figures,
            failed,
        }
    }
}

/// Everything that was measured.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    machine: Value,
    pub(crate) runs: Vec<Run>,
}

/// Ours to theirs, of CPU a request.
const TARGETS: [(Scenario, Contestant, f64); 10] = [
    (Scenario::Http1, Contestant::Haproxy, 0.9),
    (Scenario::Http1, Contestant::Envoy, 0.35),
    (Scenario::Tls, Contestant::Haproxy, 0.75),
    (Scenario::Tls, Contestant::Envoy, 0.4),
    (Scenario::Handshakes, Contestant::Haproxy, 0.5),
    (Scenario::Handshakes, Contestant::Envoy, 0.65),
    (Scenario::Http2, Contestant::Haproxy, 0.9),
    (Scenario::Http2, Contestant::Envoy, 0.25),
    (Scenario::Bodies, Contestant::Haproxy, 0.65),
    (Scenario::Bodies, Contestant::Envoy, 0.65),
];

/// Two hops to one, of CPU a request.
const HOPS: f64 = 1.6;
/// A relay to one hop, of CPU a request.
const RELAY: f64 = 0.5;

const fn verdict(ratio: f64, bound: f64) -> &'static str {
    if ratio <= bound { "met" } else { "missed" }
}

impl Report {
    pub(crate) const fn new(machine: Value) -> Report {
        Report {
            machine,
            runs: Vec::new(),
        }
    }

    fn values(&self, scenario: Scenario, contestant: Contestant, figure: &str) -> Vec<f64> {
        let runs = self.runs.iter();
        let runs = runs.filter(|run| run.scenario == scenario && run.contestant == contestant);
        runs.filter_map(|run| run.figures.get(figure).copied())
            .collect()
    }

    fn median(&self, scenario: Scenario, contestant: Contestant, figure: &str) -> Option<f64> {
        median(self.values(scenario, contestant, figure))
    }

    fn contestants(&self) -> BTreeSet<Contestant> {
        self.runs.iter().map(|run| run.contestant).collect()
    }

    fn scenarios(&self) -> BTreeSet<Scenario> {
        self.runs.iter().map(|run| run.scenario).collect()
    }

    /// 70 % of what the slowest can do over HTTP/1.1, in requests a second.
    pub(crate) fn fair_rate(&self) -> Option<f64> {
        let all = self.contestants();
        let rates = all
            .iter()
            .filter_map(|peer| self.median(Scenario::Http1, *peer, "requests_per_s"));
        rates.min_by(f64::total_cmp).map(|rate| rate * 0.7)
    }

    fn ratio(&self, scenario: Scenario, to: Contestant, figure: &str) -> Option<f64> {
        let ours = self.median(scenario, Contestant::Sealane, figure)?;
        Some(ours / self.median(scenario, to, figure)?)
    }

    /// The tables that go to standard output.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let all = self.contestants();
        let others: Vec<Contestant> = all
            .iter()
            .copied()
            .filter(|peer| *peer != Contestant::Sealane)
            .collect();
        for (figure, heading) in [
            ("cpu_us", "CPU a request, µs"),
            ("requests_per_s", "Requests a second"),
            ("p50_ms", "Half of the answers within, ms"),
            ("p99_ms", "99 of 100 answers within, ms"),
            ("ready_s", "First 200 after its start, s"),
            ("pss_mb", "Memory afterwards (PSS), MB"),
        ] {
            let rows: Vec<Scenario> = self
                .scenarios()
                .into_iter()
                .filter(|scenario| {
                    all.iter()
                        .any(|peer| self.median(*scenario, *peer, figure).is_some())
                })
                .collect();
            if rows.is_empty() {
                continue;
            }
            text += &format!("\n## {heading}\n| |");
            for peer in &all {
                let version = self.machine["versions"][peer.to_string()].as_str();
                let name = format!("{peer} {}", version.unwrap_or_default());
                text += &format!(" {} |", name.trim_end());
            }
            for peer in &others {
                text += &format!(" *sealane / {peer}* |");
            }
            text += "\n|---|";
            text += &"---|".repeat(all.len() + others.len());
            for scenario in rows {
                text += &format!("\n| {scenario} |");
                for peer in &all {
                    let value = self.median(scenario, *peer, figure);
                    text += &format!(" {} |", value.map_or("–".to_owned(), number));
                }
                for peer in &others {
                    let ratio = self.ratio(scenario, *peer, figure);
                    text += &format!(" {} |", ratio.map_or("–".to_owned(), number));
                }
            }
            text += "\n";
        }
        text += "\n## Targets: CPU a request\n| scenario | beside | bound | measured | verdict |\n|---|---|---|---|---|\n";
        for (scenario, to, bound) in TARGETS {
            let ratio = self.ratio(scenario, to, "cpu_us");
            let verdict = ratio.map_or("not measured", |ratio| verdict(ratio, bound));
            let measured = ratio.map_or("–".to_owned(), number);
            let bound = number(bound);
            text += &format!("| {scenario} | {to} | ≤ {bound} | {measured} | {verdict} |\n");
        }
        let hops = |figure| self.median(Scenario::Hops, Contestant::Sealane, figure);
        if let (Some(one), Some(two), Some(ratio)) =
            (hops("one_hop_us"), hops("two_hops_us"), hops("hops"))
        {
            let verdict = verdict(ratio, HOPS);
            let [one, two, ratio, bound] = [one, two, ratio, HOPS].map(number);
            text += &format!(
                "\n## Two hops beside one: CPU a request, µs\n| one hop | two hops, both proxies | \
                 ratio | bound | verdict |\n|---|---|---|---|---|\n\
                 | {one} | {two} | {ratio} | ≤ {bound} | {verdict} |\n"
            );
        }
        if let (Some(relay), Some(ratio)) = (hops("relay_us"), hops("relay")) {
            let verdict = verdict(ratio, RELAY);
            let [relay, ratio, bound] = [relay, ratio, RELAY].map(number);
            text += &format!(
                "\n## A PoP that passes streams on, beside one hop: CPU a request, µs\n| relay | \
                 ratio | bound | verdict |\n|---|---|---|---|\n\
                 | {relay} | {ratio} | ≤ {bound} | {verdict} |\n"
            );
        }
        for run in &self.runs {
            if let Some(failed) = &run.failed {
                text += &format!("\n{} {} failed: {failed}\n", run.scenario, run.contestant);
            }
        }
        text
    }

    /// Every run and the medians.
    pub(crate) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "scenario": run.scenario.to_string(),
                "contestant": run.contestant.to_string(),
                "figures": run.figures,
                "failed": run.failed,
            })
        });
        let runs: Vec<Value> = runs.collect();
        let targets = TARGETS.map(|(scenario, to, bound)| {
            json!({
                "scenario": scenario.to_string(),
                "beside": to.to_string(),
                "bound": bound,
                "measured": self.ratio(scenario, to, "cpu_us"),
            })
        });
        let mut report = Map::new();
        report.insert("machine".to_owned(), self.machine.clone());
        report.insert("runs".to_owned(), runs.into());
        report.insert("targets".to_owned(), targets.to_vec().into());
        report.into()
    }

    /// The page that is kept in the repository.
    pub(crate) fn page(&self) -> String {
        let mut text = format!(
            "# HTTP proxies side by side\n\nWritten by `cargo xtask bench proxy`; how to read it \
             is in [the benches' own page](../README.md).\n\n\
             {} The proxy has \
             one core, load and origin the other. Medians, contestants taking turns.\n",
            results::machine(&self.machine),
        );
        text += &self.markdown();
        text += "\n## Spread of CPU a request, µs\n| scenario | contestant | least | median | most |\n|---|---|---|---|---|\n";
        for scenario in self.scenarios() {
            for peer in self.contestants() {
                let mut values = self.values(scenario, peer, "cpu_us");
                values.sort_by(f64::total_cmp);
                let middle = median(values.clone());
                if let (Some(least), Some(middle), Some(most)) =
                    (values.first(), middle, values.last())
                {
                    let [least, middle, most] = [*least, middle, *most].map(number);
                    text += &format!("| {scenario} | {peer} | {least} | {middle} | {most} |\n");
                }
            }
        }
        text
    }
}
