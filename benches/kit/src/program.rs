//! A program that is measured: it does not outlive the bench.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{clock::Deadline, process::Family};

/// A running program; dropped, it is ended, with all that it has started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    log: PathBuf,
}

/// A command that does not outlive us, where `setpriv` is there to say so.
#[must_use]
pub fn leashed(program: &Path) -> Command {
    let Some(setpriv) = first(&["/usr/bin/setpriv", "/bin/setpriv"]) else {
        return Command::new(program);
    };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// The first of these files that is there.
#[must_use]
pub fn first(paths: &[&str]) -> Option<PathBuf> {
    let mut paths = paths.iter().map(PathBuf::from);
    paths.find(|path| path.exists())
}

impl Program {
    /// Starts it; what it says goes into the file `log`.
    ///
    /// # Errors
    /// The file cannot be made, or the program not started.
    pub fn start(mut command: Command, log: PathBuf) -> Result<Self> {
        let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{command:?} could not be started"))?;
        Ok(Program { child, log })
    }

    /// It, its threads, and what it has started.
    #[must_use]
    pub fn family(&self) -> Family {
        Family {
            pid: self.child.id(),
        }
    }

    /// An error if it has ended.
    ///
    /// # Errors
    /// With its last words.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it ended with {status}: {}", self.last_words());
        }
        Ok(())
    }

    /// The end of what it logged.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let pid = Pid::from_child(&self.child);
        // It may have ended by itself, and then there is nobody to signal.
        let _ = kill_process(pid, Signal::TERM);
        let deadline = Deadline::after(Duration::from_secs(5));
        while !deadline.passed() && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = kill_process_group(pid, Signal::KILL);
        let _ = self.child.wait();
    }
}
