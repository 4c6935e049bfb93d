//! Removes what `up` cannot remove when it is killed: the temporary home and its link.
//!
//! A process of its own, which waits for the end of a pipe that only `up` holds. It is the one
//! process without a parent-death signal.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::process::{Child, Command};

use crate::error::Failure;

/// How often, and how many times, a folder is tried that dying processes still write to.
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: usize = 60;
const PATIENCE: Duration = Duration::from_secs(4);

/// The running janitor.
#[derive(Debug)]
pub(super) struct Janitor(Child);

impl Janitor {
    /// Starts it for `home` and the links in `runs`.
    pub(super) fn start(program: &Path, home: &Path, runs: &Path) -> Result<Self, Failure> {
        Command::new(program)
            .args(["lab", "janitor"])
            .args([home, runs])
            // It outlives `up`, and whoever started that.
            .env_remove(super::process::PARENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Janitor)
            .map_err(|error| Failure::refused(format!("the janitor cannot be started: {error}")))
    }

    /// Lets it do its work and end.
    pub(super) async fn finish(mut self) {
        drop(self.0.stdin.take());
        tokio::time::timeout(PATIENCE, self.0.wait()).await.ok();
    }
}

/// Is the janitor: blocks until `up` is gone.
pub(crate) fn serve(home: &Path, runs: &Path) -> Result<(), Failure> {
    let mut nothing = [0_u8; 64];
    while !matches!(io::stdin().lock().read(&mut nothing), Ok(0) | Err(_)) {}
    sweep(home, runs)
}

fn sweep(home: &Path, runs: &Path) -> Result<(), Failure> {
    let name = home
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    if !name.starts_with("sealane-") {
        let what = format!("{} is not a temporary home", home.display());
        return Err(Failure::usage(what));
    }
    for link in links(runs) {
        if fs::read_link(&link).is_ok_and(|target| target == home) {
            fs::remove_file(link).ok();
        }
    }
    fs::remove_dir(runs).ok(); // succeeds for the last one
    for _ in 0..TRIES {
        fs::remove_dir_all(home).ok();
        if !home.exists() {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(Failure::refused(format!(
        "{} cannot be removed",
        home.display()
    )))
}

fn links(runs: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(runs).map(|entries| entries.flatten().map(|e| e.path()).collect());
    entries.unwrap_or_default() // no folder, no links
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_temporary_homes_are_swept() {
        let folder = tempfile::tempdir().expect("a folder");
        let runs = folder.path().join("runs");
        let (home, other) = (
            folder.path().join("sealane-x"),
            folder.path().join("precious"),
        );
        for path in [&runs, &home, &other] {
            fs::create_dir(path).expect("made");
        }
        fs::write(home.join("file"), "x").expect("written");
        std::os::unix::fs::symlink(&home, runs.join("run-1")).expect("linked");
        std::os::unix::fs::symlink(&other, runs.join("run-2")).expect("linked");
        assert!(sweep(&other, &runs).is_err());
        sweep(&home, &runs).expect("swept");
        assert!(!home.exists() && other.exists());
        assert_eq!(links(&runs), [runs.join("run-2")]);
    }
}
