//! Medians, ratios to BIRD, verdicts.

mod targets;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Write};

use anyhow::Result;
use bench_kit::{median, number, results};
use serde_json::{Map, Value, json};

use crate::{
    daemon::Peer,
    scenario::{Figures, Scenario},
};

/// One run and what came of it.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    scenario: Scenario,
    peer: Peer,
    round: u32,
    figures: Figures,
    failed: Option<String>,
}

impl Run {
    pub(crate) fn new(scenario: Scenario, peer: Peer, round: u32, outcome: Result<Figures>) -> Run {
        let (figures, failed) = match outcome {
            Ok(figures) => (figures, None),
            Err(error) => (Figures::new(), Some(format!("{error:#}"))),
        };
        Run {
            scenario,
            peer,
            round,
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

/// The columns of the first table: heading, scenario, the figures and how they are shown.
const COLUMNS: [(&str, Scenario, &str); 10] = [
    ("load s (CPU s)", Scenario::Load, "{s} ({cpu_s})"),
    (
        "PSS MB (B/route)",
        Scenario::Load,
        "{pss_after_mb} ({bytes_per_route})",
    ),
    (
        "withdraw s (CPU s)",
        Scenario::Load,
        "{withdraw_s} ({withdraw_cpu_s})",
    ),
    (
        "11 sessions s (CPU s)",
        Scenario::Sessions11,
        "{s} ({cpu_s})",
    ),
    ("PSS MB", Scenario::Sessions11, "{pss_after_mb}"),
    (
        "50 receivers s (CPU s)",
        Scenario::Fanout50,
        "{s} ({cpu_s})",
    ),
    ("VPNv4 s (CPU s)", Scenario::Vpnv4, "{s} ({cpu_s})"),
    ("B/route", Scenario::Vpnv4, "{bytes_per_route}"),
    (
        "idle p50 / p99 ms",
        Scenario::Latency,
        "{idle_p50_ms} / {idle_p99_ms}",
    ),
    (
        "busy p50 / p99 ms",
        Scenario::Latency,
        "{busy_p50_ms} / {busy_p99_ms}",
    ),
];

impl Report {
    pub(crate) fn new(machine: Value) -> Report {
        Report {
            machine,
            runs: Vec::new(),
        }
    }

    /// All values of one figure, sorted.
    fn values(&self, scenario: Scenario, peer: Peer, figure: &str) -> Vec<f64> {
        let runs = self
            .runs
            .iter()
            .filter(|run| run.scenario == scenario && run.peer == peer);
        let mut values: Vec<f64> = runs
            .filter_map(|run| run.figures.get(figure).copied())
            .collect();
        values.sort_by(f64::total_cmp);
        values
    }

    fn median(&self, scenario: Scenario, peer: Peer, figure: &str) -> Option<f64> {
        median(self.values(scenario, peer, figure))
    }

    fn peers(&self) -> BTreeSet<Peer> {
        self.runs.iter().map(|run| run.peer).collect()
    }

    fn version(&self, peer: Peer) -> &str {
        let versions = &self.machine["versions"];
        versions[peer.to_string()].as_str().unwrap_or_default()
    }

    /// The cell of one column, `value` giving the median or the ratio of a figure.
    fn cell(form: &str, value: impl Fn(&str) -> Option<f64>) -> String {
        let mut cell = String::new();
        let mut known = false;
        for piece in form.split_inclusive('}') {
            let (text, figure) = piece.split_once('{').unwrap_or((piece, ""));
            cell.push_str(text);
            if let Some(figure) = figure.strip_suffix('}') {
                let value = value(figure);
                known |= value.is_some();
                cell.push_str(&value.map_or("–".to_owned(), number));
            }
        }
        if known { cell } else { "–".to_owned() }
    }

    /// The tables that go to standard output.
    pub(crate) fn markdown(&self) -> String {
        let mut text = self.medians();
        self.endpoints(&mut text);
        targets::table(self, &mut text);
        for run in &self.runs {
            if let Some(failed) = &run.failed {
                let Run {
                    scenario,
                    peer,
                    round,
                    ..
                } = run;
                text += &format!("\n{scenario} {peer} round {round} failed: {failed}\n");
            }
        }
        text
    }

    fn medians(&self) -> String {
        let measured = |scenario| self.runs.iter().any(|run| run.scenario == scenario);
        let columns = COLUMNS
            .iter()
            .filter(|(_, scenario, _)| measured(*scenario));
        let columns: Vec<_> = columns.collect();
        if columns.is_empty() {
            return String::new();
        }
        let mut text = "| |".to_owned();
        for (heading, _, _) in &columns {
            text += &format!(" {heading} |");
        }
        text += "\n|---|";
        text += &"---|".repeat(columns.len());
        for peer in self.peers() {
            text += &format!("\n| {peer} {} |", self.version(peer));
            for (_, scenario, form) in &columns {
                let cell = Report::cell(form, |figure| self.median(*scenario, peer, figure));
                text += &format!(" {cell} |");
            }
        }
        for peer in self.peers() {
            if peer != Peer::Bird && self.peers().contains(&Peer::Bird) {
                text += &format!("\n| *{peer} / bird* |");
                for (_, scenario, form) in &columns {
                    let cell = Report::cell(form, |figure| self.ratio(*scenario, peer, figure));
                    text += &format!(" {cell} |");
                }
            }
        }
        text + "\n"
    }

    /// To BIRD.
    fn ratio(&self, scenario: Scenario, peer: Peer, figure: &str) -> Option<f64> {
        let bird = self.median(scenario, Peer::Bird, figure)?;
        let ratio = self.median(scenario, peer, figure)? / bird;
        ratio.is_finite().then_some(ratio)
    }

    /// What has no counterpart elsewhere: MESH, and VPNv4 beside the daemon's own IPv4.
    fn endpoints(&self, text: &mut String) {
        for peer in self.peers() {
            let vpn = self.median(Scenario::Vpnv4, peer, "s");
            if let (Some(vpn), Some(ipv4)) = (vpn, self.median(Scenario::Load, peer, "s")) {
                let ratio = number(vpn / ipv4);
                *text += &format!("\n{peer}: VPNv4 takes {ratio} times as long as IPv4.\n");
            }
            let chain = |figure| self.median(Scenario::Chain, peer, figure).map(number);
            if let (Some(p50), Some(p99)) = (chain("chain_p50_ms"), chain("chain_p99_ms")) {
                *text += &format!(
                    "\n{peer}: one endpoint behind four daemons in a row, beside 5 k updates/s: \
                     p50 {p50} ms, p99 {p99} ms.\n"
                );
            }
            let mesh = |figure| self.median(Scenario::Mesh, peer, figure).map(number);
            if let (Some(rate), Some(bytes), Some(seconds), Some(cpu)) = (
                mesh("routes_per_s"),
                mesh("bytes_per_route"),
                mesh("s"),
                mesh("cpu_s"),
            ) {
                *text += &format!(
                    "\n{peer}: 1 M endpoints through one reflector in {seconds} s ({cpu} s of \
                     CPU): {rate} routes/s, {bytes} bytes an endpoint.\n"
                );
            }
        }
    }

    /// Every run, the medians and the verdicts.
    pub(crate) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "scenario": run.scenario.to_string(),
                "peer": run.peer.to_string(),
                "round": run.round,
                "figures": run.figures,
                "failed": run.failed,
            })
        });
        let mut medians = Map::new();
        for run in &self.runs {
            let entry = format!("{}/{}", run.scenario, run.peer);
            let figures = run.figures.keys().map(|figure| {
                let median = self.median(run.scenario, run.peer, figure);
                ((*figure).to_owned(), json!(median))
            });
            medians.entry(entry).or_insert(Value::Null);
            let known: Map<String, Value> = figures.collect();
            if !known.is_empty() {
                medians.insert(format!("{}/{}", run.scenario, run.peer), known.into());
            }
        }
        json!({
            "machine": self.machine,
            "runs": runs.collect::<Vec<_>>(),
            "medians": medians,
            "targets": targets::json(self),
        })
    }

    /// The page that is kept in the repository.
    pub(crate) fn page(&self) -> String {
        let mut text = format!(
            "# BGP daemons side by side\n\nWritten by `cargo xtask bench bgp`; how to read it is \
             in [the benches' own page](../README.md).\n\n\
             {} \
             Medians of {} runs, peers taking turns.\n\n## Medians\n",
            results::machine(&self.machine),
            self.runs.iter().map(|run| run.round).max().unwrap_or(0),
        );
        text += &self.markdown();
        text += "\n## Spread\n| scenario | peer | figure | least | median | most |\n";
        text += "|---|---|---|---|---|---|\n";
        let mut seen = BTreeSet::new();
        for run in &self.runs {
            for figure in run.figures.keys() {
                if seen.insert((run.scenario, run.peer, *figure)) {
                    self.spread(run, figure, &mut text);
                }
            }
        }
        text
    }

    fn spread(&self, run: &Run, figure: &str, text: &mut String) {
        let Run { scenario, peer, .. } = run;
        let values = self.values(*scenario, *peer, figure);
        let median = self.median(*scenario, *peer, figure);
        if let (Some(least), Some(median), Some(most)) = (values.first(), median, values.last()) {
            let [least, median, most] = [*least, median, *most].map(number);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {scenario} | {peer} | {figure} | {least} | {median} | {most} |"
            );
        }
    }
}
