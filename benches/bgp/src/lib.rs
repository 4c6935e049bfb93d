//! BGP daemons side by side: how fast, at what cost in CPU and memory, how late.
//!
//! What it is: an injector and a monitor that speak just enough BGP to load a daemon and to count
//! what comes out of it, drivers that start each daemon with the same neighbours, the scenarios,
//! and a report that compares the medians with BIRD's and with our targets.
//!
//! What it is not: a conformance test; and it shares no code with the daemon it measures, so that
//! an error of ours cannot agree with itself.
//!
//! The way of data: every message is encoded before the clock starts → one blocking writer a
//! session → the daemon → one blocking reader a session, which reads framing and NLRI only and
//! keeps one bit a route → the time at which the last expected route was there. CPU and memory
//! come from `/proc`.
//!
//! A run has its own daemon, its own `/24` and, where the system allows it, the whole bench has
//! its own network namespace, so that nothing else on the machine is touched.

mod counter;
mod daemon;
mod report;
mod scenario;
mod session;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use bench_kit::{machine, namespace, results};
use clap::{Parser, ValueEnum};

pub use daemon::Peer;
pub use scenario::Scenario;

use report::{Report, Run};
use scenario::Setting;

/// What the command line says.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cargo xtask bench bgp",
    about = "BGP daemons side by side: load, withdrawal, fan-out, latency, memory"
)]
pub struct Arguments {
    /// Runs of each scenario and peer; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Scenario>,
    /// The daemons, in the order they take turns.
    #[arg(long, value_delimiter = ',', default_value = "bird,sealane")]
    pub peers: Vec<Peer>,
    /// Our binary; default: the one beside this program.
    #[arg(long, value_name = "FILE")]
    pub sealane: Option<PathBuf>,
    /// RIB shards of our daemon; default: its own choice.
    #[arg(long, value_name = "N")]
    pub shards: Option<usize>,
    /// Routes are divided by this, for a quick look.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub divide: u32,
    /// The longest a step of a run may take, in seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// What goes to standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where the page of results goes; default: `benches/results/bgp.md` if nothing was left out.
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
    /// Keep configurations and logs of the daemons in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    /// Set once the program is in its own network namespace.
    #[arg(long, hide = true)]
    inside: bool,
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
/// A daemon is not installed, or the report could not be written. A run that fails is part of the
/// report.
pub fn run(arguments: &Arguments) -> Result<()> {
    let namespace = namespace::enter(arguments.inside, "reno")?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let root = arguments.keep.as_deref().unwrap_or(folder.path());
    let peers = daemon::find(arguments)?;
    let versions: Vec<(String, String)> = peers
        .iter()
        .map(|found| (found.peer.to_string(), found.version.clone()))
        .collect();
    let mut report = Report::new(machine::describe(&versions, namespace.own));
    let mut number = 0;
    for &scenario in scenarios(&arguments.only) {
        for round in 1..=arguments.rounds {
            for peer in peers.iter().filter(|peer| scenario.suits(peer.peer)) {
                number += 1;
                let setting = Setting {
                    scenario,
                    peer,
                    folder: run_folder(root, number, scenario, peer.peer)?,
                    addresses: namespace.subnet(number),
                    divide: arguments.divide,
                    limit: Duration::from_secs(arguments.timeout),
                };
                eprint!("{scenario} {round}/{} {}: ", arguments.rounds, peer.peer);
                let outcome = scenario::run(&setting);
                match &outcome {
                    Ok(figures) => eprintln!("{}", results::line(figures)),
                    Err(error) => eprintln!("failed: {error:#}"),
                }
                report
                    .runs
                    .push(Run::new(scenario, peer.peer, round, outcome));
            }
        }
    }
    publish(arguments, &report)
}

fn scenarios(only: &[Scenario]) -> &[Scenario] {
    if only.is_empty() {
        Scenario::value_variants()
    } else {
        only
    }
}

fn run_folder(root: &Path, number: u32, scenario: Scenario, peer: Peer) -> Result<PathBuf> {
    let folder = root.join(format!("{number:03}-{scenario}-{peer}"));
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    Ok(folder)
}

fn publish(arguments: &Arguments, report: &Report) -> Result<()> {
    let text = match arguments.output {
        Output::Table => report.markdown(),
        Output::Json => format!("{:#}\n", report.json()),
    };
    let whole = arguments.only.is_empty() && arguments.divide == 1;
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let usual = || benches.map(|benches| benches.join("results/bgp.md"));
    let page = arguments
        .page
        .clone()
        .or_else(|| whole.then(usual).flatten());
    results::publish(&text, page.as_deref(), || report.page())
}
