//! A laboratory: one network namespace for each node, joined by veth pairs.
//!
//! One `unshare` holds it: its child is the first process of a pid namespace, reads our pipe and
//! ends with it, and the kernel then kills whatever runs inside. So nothing is left behind when a
//! test ends, panics or is killed.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    rc::Rc,
    time::Duration,
};

use base::Instant;
use kit::{
    process::{self, Signal},
    runtime,
};
use tempfile::TempDir;

/// Where programs are that no ordinary user's `PATH` names.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/lib/frr", "/usr/local/sbin"];
/// How long a laboratory lasts: whoever waits for something in it gives up then.
const LIFE: Duration = Duration::from_secs(30);
/// How long a question to a daemon may take.
const ANSWER: &str = "5";
/// Lines of each log shown after a failure.
const TAIL: usize = 15;

/// Where a program is, in `PATH` or where daemons are.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from));
    let mut files = folders.map(|folder| folder.join(name));
    files.find(|file| file.is_file())
}

/// The namespaces and their processes; gone when dropped.
pub struct Lab {
    inner: Rc<Inner>,
}

struct Inner {
    holder: Child,
    /// The first process inside, by its number outside.
    init: u32,
    root: bool,
    folder: TempDir,
    began: Instant,
}

/// One node: a network namespace and a folder.
#[derive(Clone)]
pub struct Node {
    inner: Rc<Inner>,
    name: String,
}

/// One veth pair. The first node has `.1` and `::1`, the second `.2` and `::2`.
#[derive(Clone, Copy, Debug)]
pub struct Link(u8);

impl Link {
    /// The n-th link of a laboratory, from 1.
    #[must_use]
    pub fn nth(number: u8) -> Self {
        Link(number)
    }

    /// The IPv4 address of the first (1) or second (2) node.
    #[must_use]
    pub fn v4(self, end: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, self.0, end).into()
    }

    /// The IPv6 address of the first (1) or second (2) node.
    #[must_use]
    pub fn v6(self, end: u8) -> IpAddr {
        Ipv6Addr::new(0xfd00, self.0.into(), 0, 0, 0, 0, 0, end.into()).into()
    }
}

impl Lab {
    /// Makes the nodes and the links between them; the n-th pair is [`Link::nth`]`(n)`.
    ///
    /// # Errors
    /// A sentence, when namespaces are forbidden here or a tool is missing.
    pub fn new(nodes: &[&str], links: &[(&str, &str)]) -> Result<Lab, String> {
        for tool in ["unshare", "nsenter", "ip", "timeout"] {
            program(tool).ok_or_else(|| format!("{tool} is not installed"))?;
        }
        let root = rustix::process::geteuid().is_root();
        let folder = tempfile::Builder::new().prefix("interop-").tempdir();
        let folder = folder.map_err(|error| format!("no temporary folder: {error}"))?;
        let mut command = Command::new("unshare");
        if !root {
            command.arg("-Ur");
        }
        let script = script(nodes, links);
        command.args(["-n", "-m", "-p", "-f", "--kill-child", "sh", "-ec", &script]);
        command.env("PATH", search_path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let holder = command.stderr(Stdio::piped()).spawn();
        let holder = holder.map_err(|error| format!("unshare: {error}"))?;
        let mut inner = Inner {
            holder,
            init: 0,
            root,
            folder,
            began: runtime::now(),
        };
        inner.wait_ready()?;
        for node in nodes {
            let made = fs::create_dir(inner.folder.path().join(node));
            made.map_err(|error| format!("no folder for {node}: {error}"))?;
        }
        Ok(Lab {
            inner: Rc::new(inner),
        })
    }

    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Node {
        Node {
            inner: Rc::clone(&self.inner),
            name: name.to_owned(),
        }
    }
}

/// What the first process inside does: the links, then it waits for the end of its input.
fn script(nodes: &[&str], links: &[(&str, &str)]) -> String {
    let mut lines = vec![
        "mount -t tmpfs -o mode=755 none /run".to_owned(),
        // OpenBGPD's processes want this one for their root.
        "mkdir -p /run/netns /run/openbgpd".to_owned(),
        // FRR's crash logs are named after its number, which is small here.
        "if [ -d /var/tmp/frr ]; then mount -t tmpfs none /var/tmp/frr; fi".to_owned(),
    ];
    for node in nodes {
        lines.push(format!("ip netns add {node}"));
        lines.push(format!("ip -n {node} link set lo up"));
    }
    for (number, (first, second)) in (1..).zip(links) {
        lines.push(format!(
            "ip -n {first} link add eth{number} type veth peer name eth{number} netns {second}"
        ));
        let link = Link(number);
        for (end, node) in [(1, first), (2, second)] {
            let (v4, v6) = (link.v4(end), link.v6(end));
            lines.push(format!("ip -n {node} addr add {v4}/24 dev eth{number}"));
            lines.push(format!(
                "ip -n {node} addr add {v6}/64 dev eth{number} nodad"
            ));
            lines.push(format!("ip -n {node} link set eth{number} up"));
        }
        // Some look for a way to every next hop.
        for via in [link.v4(1), link.v6(1)] {
            lines.push(format!(
                "ip -n {second} route add default via {via} || true"
            ));
        }
    }
    lines.push("echo ready; read _ || true".to_owned());
    lines.join("\n")
}

fn search_path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all = std::env::split_paths(&path).chain(FOLDERS.iter().map(PathBuf::from));
    std::env::join_paths(all).unwrap_or(path)
}

impl Inner {
    fn wait_ready(&mut self) -> Result<(), String> {
        let output = self.holder.stdout.take().expect("piped");
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        if read.is_ok() && line == "ready\n" {
            let children = process::descendants(self.holder.id());
            self.init = children.first().ok_or("the namespace has no process")?.pid;
            return Ok(());
        }
        let mut said = String::new();
        let mut errors = self.holder.stderr.take().expect("piped");
        errors.read_to_string(&mut said).ok();
        Err(format!(
            "network namespaces are not allowed here: {}",
            said.trim()
        ))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if std::thread::panicking() {
            show_logs(self.folder.path());
        }
        // Its child dies with it (`--kill-child`), and the pid namespace with that.
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

#[expect(clippy::print_stderr, reason = "for the reader of a failed test")]
fn show_logs(folder: &Path) {
    for node in fs::read_dir(folder).into_iter().flatten().flatten() {
        for file in fs::read_dir(node.path()).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension() != Some(OsStr::new("log")) {
                continue;
            }
            let text = fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<&str> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL)..];
            eprintln!("--- {}\n{}", path.display(), tail.join("\n"));
        }
    }
}

impl Node {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How much of the laboratory's 30 s is left.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        LIFE.saturating_sub(runtime::now().since(self.inner.began))
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.inner.folder.path().join(&self.name)
    }

    /// Whether we are root outside too: only then can a daemon become another user.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.inner.root
    }

    /// A command that runs inside; its working directory is `/`.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let init = self.inner.init;
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(init.to_string());
        if !self.inner.root {
            command.args(["-U", "--preserve-credentials"]);
        }
        // Named from outside: there is another /run inside.
        let inside = Path::new("/proc").join(init.to_string()).join("root");
        let net = inside.join("run/netns").join(&self.name);
        command
            .arg("-m")
            .arg("-p")
            .arg(format!("--net={}", net.display()));
        command.arg(program);
        command.env("PATH", search_path()).stdin(Stdio::null());
        command
    }

    /// Runs a command inside; what it printed.
    ///
    /// # Errors
    /// What it complained about, when it ended with anything but 0 or not at all.
    pub fn ask<I: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = I>,
    ) -> Result<String, String> {
        let mut command = self.command("timeout");
        let output = command.arg(ANSWER).arg(program).args(args).output();
        let output = output.map_err(|error| format!("{program}: {error}"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() {
            return Ok(text(&output.stdout));
        }
        let said = text(&output.stdout) + &text(&output.stderr);
        Err(format!("{program}: {}: {}", output.status, said.trim()))
    }

    /// Starts a daemon inside; what it prints goes to `NAME.log` in the node's folder.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        let path = self.folder().join(format!("{name}.log"));
        let log = File::options().create(true).append(true).open(&path);
        let log = log.expect("a log in our own folder");
        command
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log);
        let child = command.spawn().expect("nsenter starts");
        Process {
            child,
            _inner: Rc::clone(&self.inner),
        }
    }
}

impl Node {
    /// Starts a process inside whose input and output are pipes.
    pub(crate) fn pipe(&self, mut command: Command) -> (Process, ChildStdin, ChildStdout) {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().expect("nsenter starts");
        let input = child.stdin.take().expect("piped");
        let output = child.stdout.take().expect("piped");
        let _inner = Rc::clone(&self.inner);
        (Process { child, _inner }, input, output)
    }
}

/// A process inside, with its children; killed when dropped.
pub struct Process {
    child: Child,
    _inner: Rc<Inner>,
}

impl Process {
    /// Kills it and its children with SIGKILL, and waits until they are gone.
    pub fn kill(&mut self) {
        let inside = process::descendants(self.child.id());
        for one in inside.iter().filter(|one| one.is_alive()) {
            process::signal(one.pid, Signal::KILL);
        }
        self.child.kill().ok();
        self.child.wait().ok();
        kit::wait_until(
            "the processes are gone",
            Duration::from_secs(5),
            || match inside.iter().find(|one| one.is_alive()) {
                Some(one) => Err(format!("{} is still there", one.command)),
                None => Ok(()),
            },
        );
    }

    /// Sends a signal to the process itself.
    pub fn signal(&self, signal: Signal) {
        for one in process::descendants(self.child.id()).iter().take(1) {
            process::signal(one.pid, signal);
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// How it ended.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the daemon ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.check().is_ok() {
            self.kill();
        }
    }
}
