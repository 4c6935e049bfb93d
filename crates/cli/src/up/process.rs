//! The processes of a planet: started, watched, signalled, reaped, never restarted by themselves.
//!
//! ```text
//! up (main thread) ── spawn ──▶ child: parent-death signal, own process group, log file
//!      ▲                          │ one watching task a child
//!      └── exits (64 at most) ◀───┘
//! ```
//! The queue of exits is as long as there may be processes, so a watcher never waits.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use lab::netns::Namespace;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc;

use crate::error::Failure;

/// The variable that tells a child who its parent is.
pub(crate) const PARENT: &str = "SEALANE_PARENT";
/// The most processes of one planet.
const MAX_PROCESSES: usize = 64;
/// How long processes may take to end after SIGTERM, and after SIGKILL.
const TERM: Duration = Duration::from_secs(3);
const KILL: Duration = Duration::from_secs(2);

/// How a process is started, the first time and again.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: String,
    pub(crate) args: Vec<OsString>,
    pub(crate) log: PathBuf,
    /// In which network; that of this process otherwise.
    pub(crate) place: Option<Namespace>,
    /// It carries what the others have to say, so it ends after them.
    pub(crate) carries: bool,
}

#[derive(Debug)]
struct Process {
    spec: Spec,
    /// The last process's number.
    pid: u32,
    /// Refers to the process itself, never to another with its number; `None` once it ended.
    handle: Option<OwnedFd>,
}

/// A process that ended.
#[derive(Clone, Debug)]
pub(crate) struct Exited {
    pub(crate) name: String,
    pub(crate) pid: u32,
    pub(crate) status: ExitStatus,
}

/// All processes of a planet.
#[derive(Debug)]
pub(crate) struct Crew {
    program: PathBuf,
    tasks: runtime::Tasks,
    processes: BTreeMap<String, Process>,
    exits: mpsc::Receiver<Exited>,
    report: mpsc::Sender<Exited>,
}

impl Crew {
    /// A crew that runs `program` in all its roles.
    pub(crate) fn new(program: PathBuf) -> Self {
        let (report, exits) = mpsc::channel(MAX_PROCESSES);
        let tasks = runtime::Tasks::new("up");
        Crew {
            program,
            tasks,
            processes: BTreeMap::new(),
            exits,
            report,
        }
    }

    /// Starts a process; returns its number. Only on the main thread: when the thread that
    /// started a process ends, the process is killed.
    pub(crate) fn start(&mut self, spec: Spec) -> Result<u32, Failure> {
        let name = spec.name.clone();
        let wrong =
            |error: io::Error| Failure::refused(format!("{name} cannot be started: {error}"));
        if self.processes.len() >= MAX_PROCESSES {
            return Err(wrong(io::Error::other("there are 64 processes already")));
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&spec.log)
            .map_err(wrong)?;
        let mut command = tokio::process::Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            let ours = name
                .to_str()
                .is_some_and(|name| name.starts_with("SEALANE_"));
            if ours && name != "SEALANE_LOG" {
                command.env_remove(name);
            }
        }
        command
            .args(&spec.args)
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(wrong)?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        if let Some(place) = &spec.place {
            place.start_inside(command.as_std_mut());
        }
        let mut child = command.spawn().map_err(wrong)?;
        let pid = child
            .id()
            .ok_or_else(|| wrong(io::Error::other("it has no number")))?;
        let handle = pid_of(pid)
            .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from))
            .map_err(wrong)?;
        let report = self.report.clone();
        let watched = spec.name.clone();
        self.tasks.spawn("watch", async move {
            if let Ok(status) = child.wait().await {
                // The receiver is gone only when everything is.
                report
                    .send(Exited {
                        name: watched,
                        pid,
                        status,
                    })
                    .await
                    .ok();
            }
        });
        let process = Process {
            spec: spec.clone(),
            pid,
            handle: Some(handle),
        };
        self.processes.insert(spec.name, process);
        Ok(pid)
    }

    /// Starts a process that ended again.
    pub(crate) fn restart(&mut self, name: &str) -> Result<u32, Failure> {
        let Some(process) = self.processes.get(name) else {
            let names: Vec<&str> = self.processes.keys().map(String::as_str).collect();
            return Err(Failure::refused(format!("there is no process {name:?}"))
                .fix(format!("one of {}", names.join(", "))));
        };
        if process.handle.is_some() {
            return Err(
                Failure::refused(format!("{name} is running (pid {})", process.pid))
                    .fix(format!("kill {} first", process.pid)),
            );
        }
        let spec = process.spec.clone();
        self.processes.remove(name);
        self.start(spec.clone()).inspect_err(|_| {
            // It can be tried again.
            let process = Process {
                spec,
                pid: 0,
                handle: None,
            };
            self.processes.insert(process.spec.name.clone(), process);
        })
    }

    /// Sends a process a signal; returns its number.
    pub(crate) fn tell(&self, name: &str, signal: Signal) -> Result<u32, Failure> {
        let process = self.processes.get(name);
        let handle = process.and_then(|process| Some((process.pid, process.handle.as_ref()?)));
        let Some((pid, handle)) = handle else {
            return Err(Failure::refused(format!("{name} does not run")));
        };
        pidfd_send_signal(handle, signal)
            .map_err(|error| Failure::refused(format!("{name} cannot be told: {error}")))?;
        Ok(pid)
    }

    /// The number of a process; 0 for an unknown one.
    pub(crate) fn pid(&self, name: &str) -> u32 {
        self.processes.get(name).map_or(0, |process| process.pid)
    }

    /// The next process that ends. Cancel safe.
    pub(crate) async fn exited(&mut self) -> Exited {
        let exited = self.exits.recv().await;
        let exited = exited.expect("the crew itself holds a sender");
        self.note(&exited);
        exited
    }

    fn note(&mut self, exited: &Exited) {
        if let Some(process) = self.processes.get_mut(&exited.name)
            && process.pid == exited.pid
        {
            process.handle = None;
        }
    }

    /// Those that run, but for what carries what they say, unless it is meant too.
    fn running(&self, carriers: bool) -> impl Iterator<Item = (&String, &OwnedFd)> {
        let processes = self.processes.iter();
        let meant = processes.filter(move |(_, process)| carriers || !process.spec.carries);
        meant.filter_map(|(name, process)| Some((name, process.handle.as_ref()?)))
    }

    fn signal(&self, carriers: bool, signal: Signal) {
        for (_, handle) in self.running(carriers) {
            // It may have ended a moment ago.
            pidfd_send_signal(handle, signal).ok();
        }
    }

    async fn ended_within(&mut self, carriers: bool, limit: Duration) -> bool {
        let all = async {
            while self.running(carriers).next().is_some() {
                self.exited().await;
            }
        };
        tokio::time::timeout(limit, all).await.is_ok()
    }

    /// Ends everything: SIGTERM, 3 s, SIGKILL. Returns the names of those that had to be killed.
    pub(crate) async fn stop(mut self) -> Vec<String> {
        let mut late = Vec::new();
        for carriers in [false, true] {
            self.signal(carriers, Signal::TERM);
            self.signal(carriers, Signal::CONT); // a stopped process could not obey
            if self.ended_within(carriers, TERM).await {
                continue;
            }
            late.extend(self.running(carriers).map(|(name, _)| name.clone()));
            self.signal(carriers, Signal::KILL);
            self.ended_within(carriers, KILL).await;
        }
        late
    }
}

fn pid_of(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .ok_or_else(|| io::Error::other("not a process number"))
}

/// Where this process was started by `up`: ends when `up` ends, whatever way.
///
/// # Errors
/// `up` has ended already, or the kernel refused.
pub(crate) fn obey_parent() -> io::Result<()> {
    let Some(parent) = std::env::var_os(PARENT) else {
        return Ok(());
    };
    runtime::process::die_with_parent()?;
    // From here on its end kills us; but it may have ended before.
    let now = std::os::unix::process::parent_id().to_string();
    if parent.to_str() != Some(&now) {
        return Err(io::Error::other(
            "the `sealane up` that started this process is gone",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(folder: &std::path::Path, name: &str, script: &str) -> Spec {
        Spec {
            name: name.to_owned(),
            args: vec!["-c".into(), script.into()],
            log: folder.join(format!("{name}.log")),
            place: None,
            carries: false,
        }
    }

    #[tokio::test]
    async fn a_death_is_told_and_a_restart_starts_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut crew = Crew::new("/bin/sh".into());
        let first = crew
            .start(shell(folder.path(), "a", "echo $SEALANE_PARENT; exit 7"))
            .expect("started");
        let exited = crew.exited().await;
        assert_eq!((exited.name.as_str(), exited.status.code()), ("a", Some(7)));
        let log = std::fs::read_to_string(folder.path().join("a.log")).expect("a log");
        assert_eq!(log.trim(), std::process::id().to_string());
        let second = crew.restart("a").expect("started again");
        assert_ne!(first, second);
        assert!(
            crew.restart("b")
                .expect_err("unknown")
                .to_string()
                .contains("one of a")
        );
        crew.exited().await;
        assert!(crew.stop().await.is_empty());
    }

    #[tokio::test]
    async fn stopped_processes_end_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut crew = Crew::new("/bin/sh".into());
        crew.start(shell(folder.path(), "a", "kill -STOP $$; sleep 100"))
            .expect("started");
        let pid = crew
            .start(shell(folder.path(), "b", "exec sleep 100"))
            .expect("started");
        assert!(
            crew.restart("b")
                .expect_err("runs")
                .to_string()
                .contains("is running")
        );
        assert!(crew.stop().await.is_empty());
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).exists(),
            "reaped"
        );
    }
}
