//! Medians, ratios, verdicts.

use anyhow::Result;
use bench_kit::{median, number, results};
use clap::ValueEnum;
use serde_json::{Value, json};

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

/// A figure, and what it is called in a table.
const FIGURES: [(Scenario, &str, &str); 13] = [
    (Scenario::Bulk, "gbit_per_s", "Gbit/s"),
    (Scenario::Bulk, "cpu_s_per_gb", "CPU s/GB"),
    (Scenario::Relay, "gbit_per_s", "Gbit/s"),
    (Scenario::Relay, "hop_cpu_s_per_gb", "CPU s/GB of the relay"),
    (Scenario::Streams, "requests_per_s", "requests/s"),
    (Scenario::Streams, "cpu_us", "CPU a request, µs"),
    (Scenario::Beside, "idle_p50_us", "alone: half within, µs"),
    (
        Scenario::Beside,
        "idle_p99_us",
        "alone: 99 of 100 within, µs",
    ),
    (
        Scenario::Beside,
        "busy_p50_us",
        "beside bulk: half within, µs",
    ),
    (
        Scenario::Beside,
        "busy_p99_us",
        "beside bulk: 99 of 100 within, µs",
    ),
    (
        Scenario::Packets,
        "packets_per_s",
        "of 1,400 octets a second",
    ),
    (Scenario::Packets, "packet_cpu_us", "CPU of one, µs"),
    (
        Scenario::Packets,
        "lost_percent",
        "% of those sent that were lost",
    ),
];

/// What is asked of ours: a name, what was measured, and whether that is enough.
struct Target {
    name: &'static str,
    bound: String,
    measured: Option<f64>,
    met: bool,
}

impl Target {
    fn at_most(name: &'static str, measured: Option<f64>, bound: f64) -> Target {
        Target {
            name,
            bound: format!("≤ {}", number(bound)),
            measured,
            met: measured.is_some_and(|measured| measured <= bound),
        }
    }

    fn at_least(name: &'static str, measured: Option<f64>, bound: f64) -> Target {
        Target {
            name,
            bound: format!("≥ {}", number(bound)),
            measured,
            met: measured.is_some_and(|measured| measured >= bound),
        }
    }
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

    fn targets(&self) -> [Target; 5] {
        let ours = |scenario, figure| self.median(scenario, Contestant::Sealane, figure);
        let beside = |contestant, scenario, figure| {
            let theirs = self.median(scenario, contestant, figure)?;
            Some(ours(scenario, figure)? / theirs)
        };
        let added = ours(Scenario::Streams, "cpu_us")
            .zip(self.median(Scenario::Streams, Contestant::Tcp, "cpu_us"))
            .map(|(ours, direct)| ours - direct);
        let slower = ours(Scenario::Beside, "busy_p99_us")
            .zip(ours(Scenario::Beside, "idle_p99_us"))
            .map(|(busy, idle)| busy / idle);
        [
            Target::at_least(
                "bulk: throughput beside plain TLS",
                beside(Contestant::Tls, Scenario::Bulk, "gbit_per_s"),
                0.8,
            ),
            Target::at_most(
                "bulk: CPU an octet beside plain TLS",
                beside(Contestant::Tls, Scenario::Bulk, "cpu_s_per_gb"),
                1.25,
            ),
            Target::at_most(
                "relay: its CPU an octet beside a proxy from TLS to TLS",
                beside(Contestant::Haproxy, Scenario::Relay, "hop_cpu_s_per_gb"),
                1.0,
            ),
            Target::at_most(
                "streams: CPU that a request costs more than on plain TCP, µs",
                added,
                60.0,
            ),
            Target::at_most("beside bulk: p99 to that alone", slower, 2.0),
        ]
    }

    /// The tables that go to standard output.
    pub(crate) fn markdown(&self) -> String {
        let peers = Contestant::value_variants();
        let mut text = String::from("\n| |");
        for peer in peers {
            text += &format!(" {peer} |");
        }
        text += "\n|---|";
        text += &"---|".repeat(peers.len());
        for (scenario, figure, name) in FIGURES {
            let values = peers.iter();
            let values: Vec<_> = values
                .map(|peer| self.median(scenario, *peer, figure))
                .collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            text += &format!("\n| {scenario}: {name} |");
            for value in values {
                text += &format!(" {} |", value.map_or("–".to_owned(), number));
            }
        }
        text += "\n\n## Targets\n| | bound | measured | verdict |\n|---|---|---|---|\n";
        for target in self.targets() {
            let Target { name, bound, .. } = &target;
            let measured = target.measured.map_or("–".to_owned(), number);
            let verdict = match (target.measured, target.met) {
                (None, _) => "not measured",
                (Some(_), true) => "met",
                (Some(_), false) => "missed",
            };
            text += &format!("| {name} | {bound} | {measured} | {verdict} |\n");
        }
        for run in &self.runs {
            if let Some(failed) = &run.failed {
                text += &format!("\n{} {} failed: {failed}\n", run.scenario, run.contestant);
            }
        }
        text
    }

    /// Every run and the targets.
    pub(crate) fn json(&self) -> Value {
        let runs = self.runs.iter().map(|run| {
            json!({
                "scenario": run.scenario.to_string(),
                "contestant": run.contestant.to_string(),
                "figures": run.figures,
                "failed": run.failed,
            })
        });
        let targets = self.targets().map(|target| {
            json!({
                "name": target.name,
                "bound": target.bound,
                "measured": target.measured,
                "met": target.met,
            })
        });
        json!({
            "machine": self.machine,
            "runs": runs.collect::<Vec<_>>(),
            "targets": targets,
        })
    }

    /// The page that is kept in the repository.
    pub(crate) fn page(&self) -> String {
        let mut text = format!(
            "# Ways to carry streams, side by side\n\nWritten by `cargo xtask bench tunnel`; how \
             to read it is in [the benches' own page](../README.md).\n\n\
             {} Both ends in \
             one process, a thread each, over loopback. Medians, contestants taking turns.\n",
            results::machine(&self.machine),
        );
        text += &self.markdown();
        text += "\n## Spread\n| | contestant | least | median | most |\n|---|---|---|---|---|\n";
        for (scenario, figure, name) in FIGURES {
            for peer in Contestant::value_variants() {
                let mut values = self.values(scenario, *peer, figure);
                values.sort_by(f64::total_cmp);
                let middle = median(values.clone());
                if let (Some(least), Some(middle), Some(most)) =
                    (values.first(), middle, values.last())
                {
                    let [least, middle, most] = [*least, middle, *most].map(number);
                    text +=
                        &format!("| {scenario}: {name} | {peer} | {least} | {middle} | {most} |\n");
                }
            }
        }
        text
    }
}
