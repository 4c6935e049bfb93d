//! Looks for octets that break a decoder or a machine: libFuzzer on stable, guided by coverage.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result, ensure};

use crate::{ci::cargo, tree::root};

/// What rustc is told, so that libFuzzer sees which branches were taken. These are stable options;
/// the address sanitizer is not, and our own code has no `unsafe` to watch.
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares \
    -Ccodegen-units=1 -Cdebug-assertions=on -Coverflow-checks=on";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Every target: it has a folder in `fuzz/corpus`.
///
/// # Errors
/// The folder cannot be read.
pub fn fuzz_targets() -> Result<Vec<String>> {
    let folders = std::fs::read_dir(root().join("fuzz/corpus")).context("fuzz/corpus")?;
    let mut names = Vec::new();
    for folder in folders {
        names.push(folder?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Fuzzes a target for some seconds. What is worth keeping stays in `target/fuzz/TARGET`; with
/// `keep` the least of it that reaches as much is added to `fuzz/corpus/TARGET` afterwards. Octets
/// that broke something are in `target/fuzz/findings`.
///
/// # Errors
/// There is no such target, the build failed, or something was found.
pub fn fuzz(target: &str, seconds: u32, keep: bool) -> Result<()> {
    let targets = fuzz_targets()?;
    ensure!(
        targets.iter().any(|known| known == target),
        "{target} is no target; these are: {}",
        targets.join(", ")
    );
    let output = root().join("target/fuzz");
    let build = [
        "build",
        "--release",
        "--locked",
        "--target",
        TRIPLE,
        "--target-dir",
        "target/fuzz",
        "-p",
        "fuzz",
        "--example",
        "fuzz-target",
        "--features",
        "libfuzzer",
    ];
    cargo(&build, &[("RUSTFLAGS", FLAGS)])?;
    let run = Run {
        program: output.join(TRIPLE).join("release/examples/fuzz-target"),
        target,
        found: output.join(target),
        findings: output.join("findings"),
        corpus: root().join("fuzz/corpus").join(target),
    };
    run.look(seconds)?;
    if keep {
        run.keep()?;
    }
    Ok(())
}

struct Run<'a> {
    program: PathBuf,
    target: &'a str,
    found: PathBuf,
    findings: PathBuf,
    corpus: PathBuf,
}

impl Run<'_> {
    fn look(&self, seconds: u32) -> Result<()> {
        std::fs::create_dir_all(&self.found)?;
        std::fs::create_dir_all(&self.findings)?;
        let artifacts = format!(
            "-artifact_prefix={}/{}-",
            self.findings.display(),
            self.target
        );
        let status = self
            .start()
            .args([&self.found, &self.corpus])
            .arg(format!("-max_total_time={seconds}"))
            .args(["-max_len=4200", "-timeout=10", "-rss_limit_mb=2048"])
            .args(["-print_final_stats=1", &artifacts])
            .status()
            .context("the fuzzer does not start")?;
        ensure!(
            status.success(),
            "{}: something was found; the octets are in {}",
            self.target,
            self.findings.display()
        );
        Ok(())
    }

    /// Of all that was found, the least that reaches as much, into the committed corpus.
    fn keep(&self) -> Result<()> {
        let status = self
            .start()
            .arg("-merge=1")
            .args(["-max_len=4200", "-timeout=10"])
            .args([&self.corpus, &self.found])
            .status()
            .context("the fuzzer does not start")?;
        ensure!(
            status.success(),
            "{}: the corpus was not reduced",
            self.target
        );
        Ok(())
    }

    fn start(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("SEALANE_FUZZ_TARGET", self.target);
        command
    }
}
