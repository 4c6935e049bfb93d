//! Ways to carry many streams between two places, side by side: throughput, CPU, and what small
//! requests wait beside a big transfer.
//!
//! What it is: a client and a server in one process, a thread each, joined over loopback by plain
//! TCP, one connection of TLS, HTTP/2 CONNECT in one connection of TLS, streams of QUIC (quinn), or
//! a data connection of a link (`tunnel`), and the same work on each.
//!
//! What it is not: a bench of the proxies, which `bench proxy` has. CPU is that of the whole
//! process, both ends and the work itself, so differences say more than ratios.

mod contestant;
mod packets;
mod report;
mod scenario;
mod work;

use std::{path::PathBuf, time::Duration};

use anyhow::Result;
use bench_kit::{machine, namespace, results};
use clap::{Parser, ValueEnum};

pub use contestant::Contestant;
pub use scenario::Scenario;

use report::{Report, Run};

// As our program has it, for all who are measured.
#[global_allocator]
static ALLOCATOR: runtime::Allocator = runtime::Allocator;

/// What the command line says.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "cargo xtask bench tunnel",
    about = "Ways to carry streams, side by side: throughput, CPU, latency"
)]
pub struct Arguments {
    /// Runs of each scenario and contestant; the median counts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    pub rounds: u32,
    /// How long each run measures, in seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub seconds: u64,
    /// Only these scenarios.
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<Scenario>,
    /// The contestants, in the order they take turns.
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<Contestant>,
    /// What goes to standard output.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where the page of results goes; default: `benches/results/tunnel.md` if nothing was left
    /// out.
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
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
/// The report could not be written. A run that fails is part of the report.
pub fn run(arguments: &Arguments) -> Result<()> {
    // What a link asks for, for all of them.
    let namespace = namespace::enter(arguments.inside, "bbr")?;
    let mut report = Report::new(machine::describe(&[], namespace.own));
    let scenarios = some_or_all(&arguments.only);
    let peers = some_or_all(&arguments.peers);
    for scenario in scenarios {
        for round in 1..=arguments.rounds {
            for &contestant in peers.iter().filter(|peer| scenario.asks(**peer)) {
                eprint!("{scenario} {round}/{} {contestant}: ", arguments.rounds);
                let time = Duration::from_secs(arguments.seconds);
                let outcome = scenario::run(*scenario, contestant, time);
                match &outcome {
                    Ok(figures) => eprintln!("{}", results::line(figures)),
                    Err(error) => eprintln!("failed: {error:#}"),
                }
                report.runs.push(Run::new(*scenario, contestant, outcome));
            }
        }
    }
    publish(arguments, &report)
}

fn some_or_all<T: ValueEnum>(named: &[T]) -> &[T] {
    if named.is_empty() {
        T::value_variants()
    } else {
        named
    }
}

fn publish(arguments: &Arguments, report: &Report) -> Result<()> {
    let text = match arguments.output {
        Output::Table => report.markdown(),
        Output::Json => serde_json::to_string_pretty(&report.json())? + "\n",
    };
    let whole = arguments.only.is_empty() && arguments.peers.is_empty();
    let default = whole.then(|| {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../results");
        PathBuf::from(folder).join("tunnel.md")
    });
    let page = arguments.page.clone().or(default);
    results::publish(&text, page.as_deref(), || report.page())
}
