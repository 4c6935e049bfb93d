//! Builds the program as it is packaged: in one piece, and arranged by how it was seen to run.
//!
//! A first build counts how often each branch is taken while it carries the load of
//! `cargo xtask bench proxy`; the second is laid out by these counts (profile-guided optimisation).

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::ci::cargo;

/// The version of the counts that the compiler writes is read by LLVM 19 and later.
const MERGERS: [&str; 5] = [
    "llvm-profdata",
    "llvm-profdata-22",
    "llvm-profdata-21",
    "llvm-profdata-20",
    "llvm-profdata-19",
];
/// What the training needs beside cargo.
const LOADS: [&str; 2] = ["wrk", "h2load"];

/// Builds it and says where it is: `dist/sealane` in the folder of targets.
///
/// # Errors
/// A build failed, or the training did.
pub fn dist() -> Result<PathBuf> {
    // This program is TARGET/PROFILE/examples/xtask.
    let here = std::env::current_exe().context("the path of this program")?;
    let target = here.ancestors().nth(3).context("a folder of targets")?;
    let done = target.join("dist/sealane");
    let (host, sysroot) = compiler()?;
    let folder = target.join("training");
    let merger = merger(&sysroot.join("lib/rustlib").join(&host).join("bin"));
    let missing: Vec<&str> = LOADS.into_iter().filter(|load| !starts(load)).collect();
    let Some(merger) = merger.filter(|_| missing.is_empty()) else {
        eprintln!(
            "xtask: without a profile, for which it takes {} and llvm-profdata, version 19 or \
             later (rustup component add llvm-tools)",
            LOADS.join(", ")
        );
        build(&host, &folder.join("without"), "")?;
        return place(&built(&folder.join("without"), &host), &done);
    };
    let counts = folder.join("counts");
    // Counts of an earlier program are of no use.
    if counts.exists() {
        fs::remove_dir_all(&counts).context("the counts of last time")?;
    }
    let flag = format!("-Cprofile-generate={}", counts.display());
    build(&host, &folder.join("counting"), &flag)?;
    train(&built(&folder.join("counting"), &host), &folder)?;
    let profile = folder.join("sealane.profdata");
    let merged = Command::new(&merger)
        .arg("merge")
        .arg("-o")
        .args([&profile, &counts])
        .status()
        .context("llvm-profdata could not be started")?;
    ensure!(merged.success(), "llvm-profdata ended with {merged}");
    let flag = format!("-Cprofile-use={}", profile.display());
    build(&host, &folder.join("trained"), &flag)?;
    place(&built(&folder.join("trained"), &host), &done)
}

/// What we build for and with: the triple, and the compiler's folder.
fn compiler() -> Result<(String, PathBuf)> {
    let say = |arguments: &[&str]| {
        let output = Command::new("rustc").args(arguments).output();
        let output = output.context("rustc could not be started")?;
        anyhow::Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let version = say(&["-vV"])?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc does not say its host")?.to_owned();
    Ok((host, say(&["--print", "sysroot"])?.trim().into()))
}

/// The compiler's own, or one that is installed.
fn merger(tools: &Path) -> Option<OsString> {
    let own = tools.join("llvm-profdata");
    if own.exists() {
        return Some(own.into());
    }
    let found = MERGERS.into_iter().rev().find(|name| starts(name));
    found.map(OsString::from)
}

fn starts(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// With a target named, the flags are for the program alone and not for what builds it.
fn build(host: &str, folder: &Path, flags: &str) -> Result<()> {
    let words = format!("build --profile dist --locked -p sealane --bin sealane --target {host}");
    let folder = folder.display().to_string();
    let words: Vec<&str> = words.split(' ').chain(["--target-dir", &folder]).collect();
    cargo(&words, &[("RUSTFLAGS", flags), ("CARGO_INCREMENTAL", "0")])
}

fn built(folder: &Path, host: &str) -> PathBuf {
    folder.join(host).join("dist/sealane")
}

fn train(program: &Path, folder: &Path) -> Result<()> {
    let run = "run --release --locked --quiet -p bench-proxy --example bench-proxy -- \
               --peers sealane --rounds 1 --seconds 3 --sealane";
    let page = folder.join("training.md").display().to_string();
    let program = program.display().to_string();
    let words = run.split_whitespace().chain([&*program, "--page", &page]);
    cargo(&words.collect::<Vec<_>>(), &[])
}

fn place(built: &Path, done: &Path) -> Result<PathBuf> {
    if let Some(folder) = done.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::copy(built, done).with_context(|| format!("copying {}", built.display()))?;
    Ok(done.to_owned())
}
