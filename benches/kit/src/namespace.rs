//! A network of its own, so that port 179 and every address are free.

use std::{
    env, fs,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

/// What TCP has here for connections that choose nothing else, and in a new network namespace what
/// the machine happens to have.
pub(crate) const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Where the daemons and their neighbours live.
#[derive(Clone, Copy, Debug)]
pub struct Namespace {
    /// A network namespace of our own?
    pub own: bool,
    first: [u8; 2],
}

/// The `/24` of one run.
#[derive(Clone, Copy, Debug)]
pub struct Subnet([u8; 3]);

impl Subnet {
    /// One of its addresses.
    #[must_use]
    pub fn host(self, number: u8) -> Ipv4Addr {
        let [a, b, c] = self.0;
        Ipv4Addr::new(a, b, c, number)
    }
}

impl Namespace {
    /// Each run its own; the 254th is the first again.
    pub fn subnet(self, run: u32) -> Subnet {
        let [a, b] = self.first;
        Subnet([a, b, u8::try_from(run % 254).unwrap_or(0) + 1])
    }
}

/// Starts this program again inside a new network namespace, or, where that is not allowed, stays
/// and uses loopback addresses that hardly anybody else uses.
///
/// Inside, the benchmarking range of RFC 2544 (198.18.0.0/15) is local, since some daemons refuse
/// next hops in 127.0.0.0/8, and TCP has this congestion control: a new namespace has what the machine
/// has, and machines differ. The report says what it is in the end.
pub fn enter(inside: bool, congestion_control: &str) -> Result<Namespace> {
    if inside {
        ip(&["link", "set", "lo", "up"])?;
        ip(&["address", "add", "198.18.0.0/15", "dev", "lo"])?;
        if let Err(error) = fs::write(CONGESTION_CONTROL, congestion_control) {
            eprintln!("TCP stays as the machine has it, without {congestion_control}: {error}");
        }
        return Ok(Namespace {
            own: true,
            first: [198, 18],
        });
    }
    let options: &[&[&str]] = &[&["--net"], &["--net", "--map-root-user"]];
    for options in options {
        if allowed(options) {
            let program = env::current_exe().context("the path of this program")?;
            let error = Command::new("unshare")
                .args(*options)
                .arg("--")
                .arg(program)
                .args(env::args_os().skip(1))
                .arg("--inside")
                .exec();
            return Err(error).context("unshare could not be started");
        }
    }
    eprintln!("no network namespace of our own: using 127.0.0.0/8");
    let block = 64 + u8::try_from(std::process::id() % 128).unwrap_or(0);
    Ok(Namespace {
        own: false,
        first: [127, block],
    })
}

fn allowed(options: &[&str]) -> bool {
    Command::new("unshare")
        .args(options)
        .args(["--", "ip", "link", "set", "lo", "up"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = Command::new("ip")
        .args(arguments)
        .status()
        .context("ip could not be started")?;
    ensure!(
        status.success(),
        "ip {} ended with {status}",
        arguments.join(" ")
    );
    Ok(())
}
