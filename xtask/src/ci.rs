//! Everything a change must pass, the cheapest first.

use std::{process::Command, time::Instant};

use anyhow::{Context, Result, ensure};

use crate::tidy::tidy_or_fail;

/// Format, tidy, lints, tests, docs; stops at the first that fails.
///
/// All of them use the release profile, so that the C libraries are compiled once.
///
/// # Errors
/// The step that failed, or could not be started.
pub fn ci() -> Result<()> {
    step("format", || cargo(&["fmt", "--all", "--check"], &[]))?;
    step("tidy", tidy_or_fail)?;
    let clippy = "clippy --release --workspace --all-targets --locked -- -D warnings";
    step("lints", || cargo(&words(clippy), &[]))?;
    step("tests", || cargo(&words("test --release --locked"), &[]))?;
    let docs = "doc --release --workspace --no-deps --locked";
    step("docs", || {
        cargo(&words(docs), &[("RUSTDOCFLAGS", "-D warnings")])
    })
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "a chore reports how long its steps took"
)]
fn step(name: &str, run: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("== {name}");
    let start = Instant::now();
    run().with_context(|| format!("{name} failed"))?;
    eprintln!(
        "== {name}: passed in {:.1} s",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Runs cargo at the root, its output going straight to ours.
pub(crate) fn cargo(arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(arguments)
        .envs(environment.iter().copied())
        .current_dir(crate::tree::root())
        .status()
        .context("cargo could not be started")?;
    ensure!(
        status.success(),
        "cargo {} ended with {status}",
        arguments.join(" ")
    );
    Ok(())
}
