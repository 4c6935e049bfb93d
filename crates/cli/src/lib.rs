//! The command line: verbs over kinds, and `up`, a whole planet on one machine.
//!
//! What it is: a client of the API ([`Verb::Apply`], [`Verb::Get`], [`Verb::Status`] …), and a
//! parent of processes ([`Verb::Up`]), which starts the binary again for each role.
//!
//! What it is not: it holds no part of a controller or a node. [`parse`] hands
//! [`Command::Controller`] and [`Command::Node`] back to the binary, which knows those rooms.
//!
//! The way of an `apply`: arguments → [`Connection`] (flags, environment, the home of an `up`) →
//! every document of every file parsed → sorted so that what is referred to goes first → one
//! `PUT` each, based on the revision that is there → `service/cart created`. Whatever goes wrong
//! is a [`Failure`]: what, where, what to do, and an exit code.
//!
//! ```
//! let command = cli::parse_from(["sealane", "get", "services", "-t", "acme"]).expect("a command");
//! assert!(matches!(command, cli::Command::Verb(cli::Verb::Get(_))));
//! assert!(cli::parse_from(["sealane", "got"]).is_err());
//! ```

mod admin;
mod apply;
mod args;
mod client;
mod context;
mod error;
mod files;
mod lab;
mod objects;
mod status;
mod text;
mod up;
mod watch;

use std::{ffi::OsString, io::Write, process::ExitCode};

use clap::Parser;

pub use args::{
    ApplyArgs, BgpArgs, Command, Connection, ControllerArgs, DeleteArgs, DemoArgs, DescribeArgs,
    DiffArgs, Format, GetArgs, LabArgs, LabCommand, Mood, NodeArgs, NodePart, RelayArgs,
    RelayCommand, Selection, StatusArgs, UpArgs, Verb, WhyArgs,
};
pub use error::{Exit, Failure};
pub use up::{
    AppReport, ControllerReport, EndpointReport, GatewayReport, NetReport, PopReport, RelayReport,
    Report,
};

/// What the process's arguments say. Prints help, version and usage errors itself and ends the
/// process then (0 or 2).
#[must_use]
pub fn parse() -> Command {
    args::Cli::parse().command
}

/// What `args`, the program's name first, say.
///
/// # Errors
/// Help, version, or a usage error, each with its text.
pub fn parse_from<I, T>(args: I) -> Result<Command, clap::Error>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    args::Cli::try_parse_from(args).map(|cli| cli.command)
}

/// Ties this process to the `up` that started it, if one did: when that ends, whatever way, this
/// process is killed. To be called first, on the main thread.
///
/// # Errors
/// That `up` has ended already.
pub fn obey_parent() -> Result<(), Failure> {
    up::obey_parent().map_err(|error| Failure::unreachable(error.to_string()))
}

/// Sends this process's log to stderr: JSON lines, filtered by `SEALANE_LOG` (`info` by default).
///
/// # Errors
/// `SEALANE_LOG` is not a filter.
pub fn start_logs() -> Result<(), Failure> {
    let filter = std::env::var("SEALANE_LOG").unwrap_or_else(|_| "info".to_owned());
    runtime::log::init(runtime::log::Format::Json, &filter)
        .map_err(|error| Failure::usage(base::Chain(&error).to_string()).at("SEALANE_LOG"))
}

/// Runs one role until SIGINT or SIGTERM, on a runtime and with a log of its own: `work` gets what
/// it watches to learn that it shall end. A second signal ends the process at once.
pub fn serve<F, W>(work: F) -> ExitCode
where
    F: FnOnce(runtime::Drain) -> W,
    W: Future<Output = Result<(), Box<dyn std::error::Error>>>,
{
    let served = start_logs().and_then(|()| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::refused(format!("no runtime: {error}")))?;
        runtime.block_on(runtime::memory::tidied(until_told(work)))
    });
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&[failure]);
            ExitCode::FAILURE
        }
    }
}

async fn until_told<F, W>(work: F) -> Result<(), Failure>
where
    F: FnOnce(runtime::Drain) -> W,
    W: Future<Output = Result<(), Box<dyn std::error::Error>>>,
{
    let tasks = runtime::Tasks::new("process");
    let work = work(tasks.token());
    tokio::pin!(work);
    let told = |done: Result<(), Box<dyn std::error::Error>>| {
        done.map_err(|error| Failure::refused(base::Chain(&*error).to_string()))
    };
    let deaf = |error| Failure::refused(format!("signals cannot be heard: {error}"));
    tokio::select! {
        done = &mut work => return told(done),
        signal = runtime::signal::shutdown() => {
            let signal = signal.map_err(deaf)?;
            tracing::info!(signal, "the process ends");
            tasks.start_drain();
        }
    }
    tokio::select! {
        done = &mut work => told(done),
        signal = runtime::signal::shutdown() => {
            signal.map_err(deaf)?;
            Err(Failure::refused("ended at once by a second signal"))
        }
    }
}

/// Does what a verb says, on a runtime of its own, and tells the result on stdout and stderr.
#[must_use]
pub fn run(verb: &Verb) -> ExitCode {
    // Before there is a second thread.
    let plan = match up::prepare(verb) {
        Ok(plan) => plan,
        Err(failures) => {
            tell(&failures);
            let exit = failures.first().map_or(Exit::Refused, Failure::exit);
            return ExitCode::from(exit.code());
        }
    };
    let mut out = std::io::stdout().lock();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let done = match runtime {
        Ok(runtime) => runtime.block_on(verb_of(verb, plan.as_ref(), &mut out)),
        Err(error) => Err(vec![Failure::refused(format!("no runtime: {error}"))]),
    };
    let exit = match done.and_then(|exit| {
        out.flush()
            .map(|()| exit)
            .map_err(|error| vec![Failure::from(error)])
    }) {
        Ok(exit) => exit,
        Err(failures) => {
            tell(&failures);
            failures.first().map_or(Exit::Refused, Failure::exit)
        }
    };
    ExitCode::from(exit.code())
}

/// Tells the one sentence that a piece of work ended with, on stdout, or what is wrong.
#[must_use]
pub fn conclude(done: Result<String, Box<dyn std::error::Error>>) -> ExitCode {
    let told = done
        .map_err(|error| Failure::refused(base::Chain(&*error).to_string()))
        .and_then(|sentence| Ok(writeln!(std::io::stdout(), "{sentence}")?));
    match told {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&[failure]);
            ExitCode::FAILURE
        }
    }
}

/// Tells failures on stderr.
pub fn tell(failures: &[Failure]) {
    for failure in failures.iter().filter(|failure| !failure.is_silent()) {
        // Nobody is left to be told that stderr is closed.
        writeln!(std::io::stderr(), "{failure}").ok();
    }
}

async fn verb_of(
    verb: &Verb,
    plan: Option<&up::Intent>,
    out: &mut dyn Write,
) -> Result<Exit, Vec<Failure>> {
    let one = |failure| vec![failure];
    match verb {
        Verb::Up(args) => match plan {
            Some(plan) => up::up(args, plan, out).await.map_err(one),
            None => Ok(Exit::Done), // it was prepared
        },
        Verb::Apply(args) => apply::apply(args, out).await,
        Verb::Get(args) => objects::get(args, out).await.map_err(one),
        Verb::Describe(args) => objects::describe(args, out).await.map_err(one),
        Verb::Delete(args) => apply::delete(args, out).await,
        Verb::Diff(args) => apply::diff(args, out).await,
        Verb::Why(args) => admin::why(args, out).await.map_err(one),
        Verb::Status(args) => status::status(args, out).await.map_err(one),
        Verb::Lab(args) => lab::lab(args, out).await.map_err(one),
    }
}
