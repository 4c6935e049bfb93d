//! One role of the binary by itself, without `up`.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    api::Api,
    planet::{Ran, surround},
    process::{self, Signal},
    report,
    wait::wait_until,
};

/// How long a role may take to be ready.
const READY: Duration = Duration::from_secs(15);

/// A child process. Dropped, it is killed.
#[derive(Debug)]
pub struct Role {
    child: Child,
    log: PathBuf,
}

impl Role {
    /// Starts `program ARGS`; what it says is appended to `log`. It ends with the calling thread.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start<S: AsRef<OsStr>>(program: &Path, args: &[S], log: &Path) -> Self {
        let folder = log.parent().unwrap_or(Path::new("."));
        let said = File::options().create(true).append(true).open(log);
        let said = said.expect("a log");
        let mut command = Command::new(program);
        surround(&mut command, folder);
        let child = command
            .args(args)
            .env("SEALANE_PARENT", std::process::id().to_string())
            .stdin(Stdio::null())
            .stdout(said.try_clone().expect("a descriptor"))
            .stderr(said)
            .spawn();
        Role {
            child: child.expect("the program runs"),
            log: log.to_owned(),
        }
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        self.child.kill().ok(); // it may have ended
        self.child.wait().ok();
    }

    /// Ends it with SIGTERM and waits; its exit code, -1 if it had to be killed.
    #[must_use]
    pub fn stop(&mut self) -> i32 {
        process::signal(self.pid(), Signal::TERM);
        let child = &mut self.child;
        let (status, _) = wait_until("the end of a role", READY, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        status.code().unwrap_or(-1)
    }

    /// Its exit code, if it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(status.code().unwrap_or(-1))
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A controller by itself, on free loopback ports.
#[derive(Debug)]
pub struct LoneController {
    /// Its process.
    pub role: Role,
    /// Where it is and how to speak to it.
    pub report: report::Controller,
    /// Where PoPs reach it.
    pub fabric: SocketAddr,
    program: PathBuf,
}

/// What a controller writes when it serves.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    url: String,
    ca: PathBuf,
    token_file: PathBuf,
    fabric: SocketAddr,
    pid: u32,
}

impl LoneController {
    /// Starts a controller with its state in `home` and more arguments, and waits until it serves.
    ///
    /// # Panics
    /// It does not serve within 15 s; with its log.
    #[must_use]
    pub fn start(program: &Path, home: &Path, more: &[&str]) -> Self {
        let state = home.join("controller");
        let state_text = state.to_str().expect("a plain path");
        let mut args = vec!["controller", "--state", state_text];
        args.extend(["--listen", "127.0.0.1:0", "--fabric", "127.0.0.1:0"]);
        args.extend(["--planet", "lone"]);
        args.extend(more);
        let mut role = Role::start(program, &args, &home.join("controller.log"));
        let (ready, _) = wait_until("a controller", READY, || {
            let text = fs::read_to_string(state.join("ready.json"));
            let ready: Option<Ready> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
            // What an earlier process left does not count.
            match ready.filter(|ready| ready.pid == role.pid()) {
                Some(ready) => Ok(ready),
                None => match role.ended() {
                    Some(code) => panic!("the controller ended with {code}: {}", role.log()),
                    None => Err("it does not say that it serves"),
                },
            }
        });
        let token = fs::read_to_string(&ready.token_file).expect("the administrator's token");
        let report = report::Controller {
            url: ready.url,
            ca: ready.ca,
            token: token.trim().to_owned(),
            pid: ready.pid,
        };
        LoneController {
            role,
            report,
            fabric: ready.fabric,
            program: program.to_owned(),
        }
    }

    /// A client of its API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.report)
    }

    /// Runs the CLI against it.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn sealane(&self, args: &[&str]) -> Ran {
        let state = self.report.ca.parent().expect("the state folder");
        let mut command = Command::new(&self.program);
        surround(&mut command, state);
        let output = command
            .args(args)
            .env("SEALANE_SERVER", &self.report.url)
            .env("SEALANE_CA", &self.report.ca)
            .env("SEALANE_TOKEN_FILE", state.join("admin.token"))
            .stdin(Stdio::null())
            .output();
        Ran::of(output.expect("the program runs"))
    }
}
