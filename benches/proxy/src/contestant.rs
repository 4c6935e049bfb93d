//! The proxies: how each is found, configured, started and ended.

mod config;

use std::{
    env, fmt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bench_kit::{
    clock::{Deadline, now},
    process::Family,
    program::{Program, leashed},
};
use clap::ValueEnum;

use crate::{Arguments, scenario::listens};

/// Where each listens, in plain text and with TLS, and where the origin is.
pub(crate) const HTTP: u16 = 18_080;
pub(crate) const HTTPS: u16 = 18_443;
pub(crate) const ORIGIN: u16 = 18_000;
/// How long a proxy may take to serve.
const START: Duration = Duration::from_secs(60);

/// A proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Contestant {
    /// HAProxy.
    Haproxy,
    /// Envoy.
    Envoy,
    /// nginx.
    Nginx,
    /// No proxy: what it takes to copy octets from connection to connection.
    Floor,
    /// Ours.
    Sealane,
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Contestant::Haproxy => "haproxy",
            Contestant::Envoy => "envoy",
            Contestant::Nginx => "nginx",
            Contestant::Floor => "floor",
            Contestant::Sealane => "sealane",
        })
    }
}

/// One that is there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) contestant: Contestant,
    pub(crate) version: String,
    pub(crate) program: PathBuf,
}

/// Those asked for, or those that are installed.
pub(crate) fn find(arguments: &Arguments) -> Result<Vec<Found>> {
    let named = !arguments.peers.is_empty();
    let wanted = if named {
        &arguments.peers
    } else {
        Contestant::value_variants()
    };
    let mut found = Vec::new();
    for &contestant in wanted {
        let program = program(arguments, contestant);
        // A run has a folder of its own: a path from here would not be found there.
        let program = program.and_then(|file| file.canonicalize().ok());
        let Some(program) = program else {
            ensure!(!named, "{contestant} is not installed");
            eprintln!("{contestant} is not installed: left out");
            continue;
        };
        found.push(Found {
            contestant,
            version: version(contestant, &program)?,
            program,
        });
    }
    let is_proxy = |found: &Found| found.contestant != Contestant::Floor;
    ensure!(named || found.iter().any(is_proxy), "no proxy is installed");
    for tool in ["wrk", "h2load", "taskset"] {
        ensure!(on_path(tool).is_some(), "{tool} is not installed");
    }
    Ok(found)
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    let folders = env::split_paths(&path).chain(more);
    folders
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn program(arguments: &Arguments, contestant: Contestant) -> Option<PathBuf> {
    match contestant {
        Contestant::Haproxy => on_path("haproxy"),
        Contestant::Nginx => on_path("nginx"),
        Contestant::Envoy => arguments.envoy.clone().or_else(|| on_path("envoy")),
        Contestant::Floor => env::current_exe().ok(),
        Contestant::Sealane => {
            let beside = env::current_exe().ok()?;
            let beside = beside.parent()?.parent()?.join("sealane");
            let ours = arguments.sealane.clone().unwrap_or(beside);
            ours.is_file().then_some(ours)
        }
    }
}

fn version(contestant: Contestant, program: &Path) -> Result<String> {
    let argument = match contestant {
        Contestant::Floor => return Ok(String::new()),
        Contestant::Haproxy | Contestant::Nginx => "-v",
        Contestant::Envoy | Contestant::Sealane => "--version",
    };
    let output = Command::new(program).arg(argument).output();
    let output = output.with_context(|| format!("{} could not be started", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    // Envoy says where it is, too, and a folder may have a number in its name.
    let text = String::from_utf8_lossy(&text).replace(&*program.to_string_lossy(), "");
    // The first word, or part of one, that is a number with points.
    let numbers = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let number = numbers
        .map(|word| word.trim_matches('.'))
        .find(|word| word.contains('.'));
    Ok(number.unwrap_or("?").to_owned())
}

/// Pinned to a core: the proxy has the first, all else the second.
pub(crate) fn pinned(core: &str, program: &Path) -> Command {
    let mut command = leashed(Path::new("taskset"));
    command.args(["-c", core]).arg(program);
    command
}

/// The origin, on the second core.
pub(crate) fn origin(folder: &Path) -> Result<Program> {
    let mut command = pinned(
        "1",
        &env::current_exe().context("the path of this program")?,
    );
    command.arg(format!("--origin=127.0.0.1:{ORIGIN}"));
    let running = Program::start(command, folder.join("origin.log"))?;
    listens(ORIGIN, Duration::from_secs(5))?;
    Ok(running)
}

/// A proxy at work.
pub(crate) struct Proxy {
    program: Program,
    began: std::time::Instant,
}

impl Found {
    /// Start it with this many hosts; of more than one they are `h0.example` and so on.
    pub(crate) fn start(&self, folder: &Path, hosts: u32) -> Result<Proxy> {
        let arguments = config::write(self.contestant, folder, hosts)?;
        let mut command = pinned("0", &self.program);
        command.args(arguments).current_dir(folder);
        let began = now();
        let program = Program::start(command, folder.join("proxy.log"))?;
        Ok(Proxy { program, began })
    }
}

impl Proxy {
    pub(crate) fn url(&self, tls: bool) -> String {
        if tls {
            format!("https://localhost:{HTTPS}/")
        } else {
            format!("http://localhost:{HTTP}/")
        }
    }

    pub(crate) fn family(&self) -> Family {
        self.program.family()
    }

    /// Wait until it answers with 200; how many seconds that took since its start.
    pub(crate) fn wait(&self) -> Result<f64> {
        listens(HTTP, START).with_context(|| self.last_words())?;
        let deadline = Deadline::after(START);
        loop {
            if probe("localhost").is_ok_and(|status| status == "200") {
                return Ok(now().duration_since(self.began).as_secs_f64());
            }
            if deadline.passed() {
                bail!("it does not answer with 200: {}", self.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        self.program.last_words()
    }
}

/// The status of one request.
pub(crate) fn probe(host: &str) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", HTTP))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    Ok(String::from_utf8_lossy(&head[9..]).into_owned())
}
