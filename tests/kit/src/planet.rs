//! A whole planet as a child process.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{LazyLock, Mutex, PoisonError, mpsc},
    time::Duration,
};

use http::Method;
use lab::relay;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    access::AccessLog,
    admin,
    api::Api,
    process::{self, Process, Signal},
    report::{App, Endpoint, Gateway, Pop, Report},
    turn::Turn,
    wait::wait_until,
};

/// How long a planet may take to be ready before the test is given up.
const READY: Duration = Duration::from_secs(60);
/// How long a planet may take to end.
const END: Duration = Duration::from_secs(15);
/// Lines of each log shown after a failure.
const TAIL: usize = 12;

/// How a planet is started.
#[derive(Clone, Debug)]
pub struct Options {
    program: PathBuf,
    home: Option<PathBuf>,
    temporary: bool,
    args: Vec<OsString>,
}

impl Options {
    /// With this binary: `env!("CARGO_BIN_EXE_sealane")` in tests of the `sealane` package. The
    /// home is a folder of the test's own, so that its logs outlive the planet.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Options {
            program: program.into(),
            home: None,
            temporary: false,
            args: Vec::new(),
        }
    }

    /// With this home, new or used before.
    #[must_use]
    pub fn home(mut self, home: impl Into<PathBuf>) -> Self {
        self.home = Some(home.into());
        self
    }

    /// With the temporary home that `up` makes and removes by itself.
    #[must_use]
    pub fn temporary_home(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// With one more argument of `up`.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }
}

/// How a command of the CLI ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran {
            code: status.code().unwrap_or(-1),
            stdout: text(stdout),
            stderr: text(stderr),
        }
    }

    /// Itself, if it ended with 0.
    ///
    /// # Panics
    /// It did not; with everything it said.
    #[must_use]
    #[track_caller]
    pub fn good(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// Its output as JSON.
    ///
    /// # Panics
    /// It is something else.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running `sealane up --json`. Dropped, it is killed; `up`'s own rules end the rest.
#[derive(Debug)]
pub struct Planet {
    /// What `up` said; [`Planet::restart`] keeps the process numbers fresh.
    pub report: Report,
    options: Options,
    child: Child,
    folder: TempDir,
    ended: bool,
}

impl Planet {
    /// Starts a planet and waits until it is ready, 60 s at most. `_turn` is proof that the test
    /// has its turn.
    ///
    /// # Panics
    /// It is not ready in time, or says something else than it should; with its complaints.
    #[must_use]
    pub fn start(_turn: &Turn, mut options: Options) -> Self {
        let folder = tempfile::Builder::new()
            .prefix("kit-")
            .tempdir()
            .expect("a folder");
        if options.home.is_none() && !options.temporary {
            options.home = Some(folder.path().join("home"));
        }
        let errors = folder.path().join("up.stderr");
        let mut command = Command::new(&options.program);
        command.args(["up", "--json"]);
        if let Some(home) = &options.home {
            command.arg("--home").arg(home);
        }
        command.args(&options.args);
        surround(&mut command, folder.path());
        if !options.temporary {
            // The planet ends with this process, whatever way that ends. The janitor of a
            // temporary home would take the variable for its own.
            command.env("SEALANE_PARENT", std::process::id().to_string());
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file"))
            .process_group(0);
        let mut child = spawn(command);
        let report = first_line(&mut child).and_then(|line| {
            serde_json::from_str(&line).map_err(|error| format!("{error} in {line:?}"))
        });
        match report {
            Ok(report) => Planet {
                report,
                options,
                child,
                folder,
                ended: false,
            },
            Err(why) => {
                child.kill().ok();
                child.wait().ok();
                let said = fs::read_to_string(&errors).unwrap_or_default();
                let home = options.home.as_deref().unwrap_or(Path::new(""));
                panic!("the planet did not start: {why}\n{said}\n{}", tails(home));
            }
        }
    }

    /// The process number of `up` itself.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder of everything.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.report.home
    }

    /// A folder of the test's own, removed with the planet. `up` finds its temporary folder and
    /// its runtime folder in it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The PoP of this name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn pop(&self, name: &str) -> &Pop {
        self.report
            .pops
            .iter()
            .find(|pop| pop.name == name)
            .expect("a PoP of this name")
    }

    /// The gateway of this name.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn gateway(&self, name: &str) -> &Gateway {
        let mut gateways = self.report.gateways.iter();
        gateways
            .find(|gateway| gateway.name == name)
            .expect("a gateway of this name")
    }

    /// The application of this host.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn app(&self, host: &str) -> &App {
        self.report
            .apps
            .iter()
            .find(|app| app.host == host)
            .expect("an app of this host")
    }

    /// The endpoint that `up` calls so, such as `cart-1.aws`.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    #[track_caller]
    pub fn endpoint(&self, name: &str) -> &Endpoint {
        endpoint(&self.report, name).expect("an endpoint of this name")
    }

    /// A client of the API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.report.controller)
    }

    /// The state folder of a node.
    #[must_use]
    pub fn state(&self, node: &str) -> PathBuf {
        self.home().join("nodes").join(node)
    }

    /// The access log of a PoP.
    #[must_use]
    pub fn access_log(&self, pop: &str) -> AccessLog {
        AccessLog::at(self.state(pop).join("access.log"))
    }

    /// One request to a node's admin socket, which must be answered with 200 and JSON.
    ///
    /// # Panics
    /// It is not.
    #[must_use]
    #[track_caller]
    pub fn admin(&self, node: &str, method: Method, path: &str) -> Value {
        let reply = admin::ask(&self.state(node).join("admin.sock"), method, path);
        let reply = reply.unwrap_or_else(|why| panic!("the admin socket of {node}: {why}"));
        assert_eq!(
            reply.status,
            200,
            "{path}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        reply.json().expect("JSON")
    }

    /// Tells the relay something.
    ///
    /// # Panics
    /// It refuses or does not answer.
    #[track_caller]
    pub fn relay(&self, command: &relay::Command) -> relay::Reply {
        let reply = relay::command(&self.home().join("relay.sock"), command);
        reply.unwrap_or_else(|error| panic!("relay, {command:?}: {}", base::Chain(&error)))
    }

    /// Sets the round trip of a pair such as `aws-par`.
    #[track_caller]
    pub fn set_distance(&self, pair: &str, rtt_ms: f64) {
        self.relay(&relay::Command::Set {
            pair: pair.to_owned(),
            rtt_ms,
        });
    }

    /// Resets a pair's connections, and new ones, until healed.
    #[track_caller]
    pub fn cut(&self, pair: &str) {
        self.relay(&relay::Command::Cut {
            pair: pair.to_owned(),
        });
    }

    /// Silences a pair until healed.
    #[track_caller]
    pub fn stall(&self, pair: &str) {
        self.relay(&relay::Command::Stall {
            pair: pair.to_owned(),
        });
    }

    /// Lets a pair carry again.
    #[track_caller]
    pub fn heal(&self, pair: &str) {
        self.relay(&relay::Command::Heal {
            pair: pair.to_owned(),
        });
    }

    /// Runs the CLI against this planet.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn sealane<S: AsRef<OsStr>>(&self, args: &[S]) -> Ran {
        self.sealane_with(args, "")
    }

    /// Runs the CLI against this planet with this standard input.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn sealane_with<S: AsRef<OsStr>>(&self, args: &[S], input: &str) -> Ran {
        let mut command = Command::new(&self.options.program);
        surround(&mut command, self.folder.path());
        command
            .args(args)
            .env("SEALANE_HOME", self.home())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).ok(); // it may not want to read
        }
        Ran::of(child.wait_with_output().expect("it ends"))
    }

    /// Starts a process that died again (`sealane lab restart NAME`) and notes its new number in
    /// the report. `up` first has to see the death; that is waited for.
    ///
    /// # Panics
    /// It still runs after 5 s, or cannot be started.
    #[track_caller]
    pub fn restart(&mut self, name: &str) -> u32 {
        let (ran, _) = wait_until(
            &format!("restart of {name}"),
            Duration::from_secs(5),
            || {
                let ran = self.sealane(&["lab", "restart", name]);
                if ran.code == 0 {
                    Ok(ran)
                } else {
                    Err(format!("{ran:?}"))
                }
            },
        );
        let pid = ran
            .stdout
            .rsplit_once("(pid ")
            .and_then(|(_, rest)| rest.split_once(')'));
        let pid = pid
            .and_then(|(pid, _)| pid.parse().ok())
            .expect("a process number");
        *pid_of(&mut self.report, name).expect("a process of this name") = pid;
        pid
    }

    /// The process number of `controller`, `relay`, a PoP, a gateway, a control part such as
    /// `control.aws`, or an endpoint such as `cart-1.aws`.
    ///
    /// # Panics
    /// There is no such process.
    #[must_use]
    #[track_caller]
    pub fn pid_of(&self, name: &str) -> u32 {
        *pid_of(&mut self.report.clone(), name).expect("a process of this name")
    }

    /// Sends a signal to the process of this name.
    ///
    /// # Panics
    /// There is none, or it is gone.
    #[track_caller]
    pub fn signal(&self, name: &str, signal: Signal) {
        process::signal(self.pid_of(name), signal);
    }

    /// A program in one of the planet's network namespaces, by its path.
    ///
    /// # Panics
    /// It is not a path as `up` says it: `/proc/PID/fd/N`.
    #[must_use]
    #[track_caller]
    pub fn inside(&self, namespace: &Path, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", namespace.display()));
        // Whoever may not make namespaces of networks has made one of users first.
        let owner = namespace.ancestors().nth(2).expect("a process");
        let owner = owner.join("ns/user");
        if fs::read_link("/proc/self/ns/user").ok() != fs::read_link(&owner).ok() {
            command.arg(format!("--user={}", owner.display()));
            command.arg("--preserve-credentials");
        }
        surround(&mut command, self.folder());
        command.arg("--").arg(program);
        command
    }

    /// `up` and everything below it.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        let mut all = process::descendants(self.pid());
        all.extend(Process::read(self.pid()));
        all
    }

    /// The proportional set size of all processes together, in KiB.
    #[must_use]
    pub fn pss_kib(&self) -> u64 {
        let each = self.processes();
        each.iter()
            .filter_map(|process| process::pss_kib(process.pid))
            .sum()
    }

    /// Sockets that listen on the planet's own /24.
    #[must_use]
    pub fn listening(&self) -> Vec<process::Socket> {
        let network = self.network();
        let mut sockets = process::sockets();
        sockets.retain(|socket| {
            let here = |v4: std::net::SocketAddrV4| v4.ip().octets().starts_with(&network);
            socket.is_open() && socket.local_v4().is_some_and(here)
        });
        sockets
    }

    /// The first three octets of the planet's addresses.
    ///
    /// # Panics
    /// The first PoP has no IPv4 address.
    #[must_use]
    pub fn network(&self) -> [u8; 3] {
        let pop = self.report.pops.first().expect("a PoP");
        let std::net::IpAddr::V4(address) = pop.http.ip() else {
            panic!("{} is not IPv4", pop.http);
        };
        let [a, b, c, _] = address.octets();
        [a, b, c]
    }

    /// Ends the planet with SIGTERM and waits, 15 s at most. Returns how long it took.
    ///
    /// # Panics
    /// It does not end, or not with 0.
    pub fn stop(&mut self) -> Duration {
        process::signal(self.pid(), Signal::TERM);
        let (status, took) = self.end();
        assert!(
            status.success(),
            "up ended with {status}: {}",
            self.complaints()
        );
        took
    }

    /// Kills `up` with SIGKILL and reaps it; the rest should end by itself.
    ///
    /// # Panics
    /// It cannot be killed.
    pub fn kill(&mut self) {
        process::signal(self.pid(), Signal::KILL);
        self.end();
    }

    /// What `up` wrote to its standard error.
    #[must_use]
    pub fn complaints(&self) -> String {
        fs::read_to_string(self.folder.path().join("up.stderr")).unwrap_or_default()
    }

    fn end(&mut self) -> (std::process::ExitStatus, Duration) {
        let child = &mut self.child;
        let ended = wait_until("the end of up", END, || match child.try_wait() {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err("it runs".to_owned()),
            Err(error) => Err(error.to_string()),
        });
        self.ended = true;
        ended
    }
}

impl Drop for Planet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = format!(
                "--- the planet of the failed test\n{}{}",
                self.complaints(),
                tails(self.home())
            );
            std::io::stderr().write_all(text.as_bytes()).ok();
            keep(self.home());
        }
        if self.ended {
            return;
        }
        let all = self.processes();
        self.child.kill().ok();
        self.child.wait().ok();
        // Stopped ones too: the parent-death signal is SIGKILL.
        for _ in 0..500 {
            if !all.iter().any(Process::is_alive) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// An environment without what the tester's own shell says about Sealane.
pub(crate) fn surround(command: &mut Command, folder: &Path) {
    for (name, _) in std::env::vars_os() {
        let ours = name
            .to_str()
            .is_some_and(|name| name.starts_with("SEALANE_"));
        if ours && name != "SEALANE_LOG" {
            command.env_remove(name);
        }
    }
    command.env("TMPDIR", folder).env("XDG_RUNTIME_DIR", folder);
}

/// Starts a process from a thread that never ends: the parent-death signal of a process comes
/// when the *thread* that started it ends.
fn spawn(command: Command) -> Child {
    type Job = (Command, mpsc::SyncSender<std::io::Result<Child>>);
    static SPAWNER: LazyLock<Mutex<mpsc::SyncSender<Job>>> = LazyLock::new(|| {
        let (jobs, take) = mpsc::sync_channel::<Job>(1);
        std::thread::spawn(move || {
            for (mut command, reply) in take {
                reply.send(command.spawn()).ok();
            }
        });
        Mutex::new(jobs)
    });
    let (reply, spawned) = mpsc::sync_channel(1);
    let jobs = SPAWNER.lock().unwrap_or_else(PoisonError::into_inner);
    jobs.send((command, reply)).expect("the spawner lives");
    spawned
        .recv()
        .expect("the spawner answers")
        .expect("the program runs")
}

/// The first line of a child's output.
fn first_line(child: &mut Child) -> Result<String, String> {
    let output = child.stdout.take().ok_or("no output")?;
    let (sender, line) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line).map(|_| line);
        sender.send(read).ok();
        // Whatever else comes must not fill the pipe.
        std::io::copy(&mut output, &mut std::io::sink()).ok();
    });
    let line = line
        .recv_timeout(READY)
        .map_err(|_| format!("not ready within {READY:?}"))?;
    let line = line.map_err(|error| error.to_string())?;
    if line.is_empty() {
        Err("it ended".to_owned())
    } else {
        Ok(line)
    }
}

fn endpoint<'r>(report: &'r Report, name: &str) -> Option<&'r Endpoint> {
    let (host, nth) = place(report, name)?;
    report.apps.get(host)?.endpoints.get(nth)
}

/// The application and the endpoint inside it that `cart-2.aws` means.
fn place(report: &Report, name: &str) -> Option<(usize, usize)> {
    let (endpoint, site) = name.split_once('.')?;
    let number: usize = endpoint.rsplit_once('-')?.1.parse().ok()?;
    report.apps.iter().enumerate().find_map(|(app, found)| {
        let all = found.endpoints.iter().enumerate();
        let mut here = all.filter(|(_, endpoint)| endpoint.site == site);
        Some((app, here.nth(number.checked_sub(1)?)?.0))
    })
}

fn pid_of<'r>(report: &'r mut Report, name: &str) -> Option<&'r mut u32> {
    if let Some((app, nth)) = place(report, name) {
        return Some(&mut report.apps.get_mut(app)?.endpoints.get_mut(nth)?.pid);
    }
    match name {
        "controller" => return Some(&mut report.controller.pid),
        "relay" => return Some(&mut report.relay.pid),
        _ => {}
    }
    let (site, is_control) = match name.strip_prefix("control.") {
        Some(site) => (site, true),
        None => (name, false),
    };
    let pops = report.pops.iter_mut();
    let pops = pops.map(|pop| (&pop.name, &mut pop.pid, &mut pop.control_pid));
    let gateways = report.gateways.iter_mut();
    let gateways = gateways.map(|it| (&it.name, &mut it.pid, &mut it.control_pid));
    let (_, pid, control) = pops.chain(gateways).find(|(found, ..)| *found == site)?;
    if is_control {
        control.as_mut()
    } else {
        Some(pid)
    }
}

/// The last lines of every log below a home.
fn tails(home: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(home.join("logs"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let log = fs::read_to_string(entry.path()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(TAIL)..)
            .unwrap_or_default();
        text += &format!("--- {}\n{}\n", entry.file_name().display(), last.join("\n"));
    }
    text
}

/// Leaves a failed planet's logs where somebody can read them.
fn keep(home: &Path) {
    let place = std::env::temp_dir().join(format!("sealane-failed-{}", std::process::id()));
    let copy = |from: PathBuf, name: String| {
        fs::create_dir_all(&place)
            .and_then(|()| fs::copy(from, place.join(name)))
            .ok();
    };
    for entry in fs::read_dir(home.join("logs"))
        .into_iter()
        .flatten()
        .flatten()
    {
        copy(entry.path(), entry.file_name().display().to_string());
    }
    for entry in fs::read_dir(home.join("nodes"))
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = format!("{}.access.log", entry.file_name().display());
        copy(entry.path().join("access.log"), name);
    }
    let text = format!("--- its logs are in {}\n", place.display());
    std::io::stderr().write_all(text.as_bytes()).ok();
}
