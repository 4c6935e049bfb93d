//! The daemons: how each is found, configured, started and ended.

mod config;

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use bench_kit::program::{Program, first, leashed};
use clap::ValueEnum;

use crate::{
    Arguments,
    wire::{ASN, Family},
};

/// A BGP daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Peer {
    /// BIRD 2 (`bird`).
    Bird,
    /// FRRouting's `bgpd`, without zebra.
    Frr,
    /// GoBGP's `gobgpd`.
    Gobgp,
    /// OpenBGPD's `bgpd`.
    Openbgpd,
    /// Ours (`sealane bgp`).
    Sealane,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Peer::Bird => "bird",
            Peer::Frr => "frr",
            Peer::Gobgp => "gobgp",
            Peer::Openbgpd => "openbgpd",
            Peer::Sealane => "sealane",
        })
    }
}

/// A daemon that is there.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) peer: Peer,
    pub(crate) version: String,
    program: PathBuf,
    shards: Option<usize>,
}

/// What the daemon is to know.
#[derive(Clone, Debug)]
pub(crate) struct Topology {
    pub(crate) address: SocketAddr,
    pub(crate) neighbours: Vec<Neighbour>,
}

/// A neighbour, which dials unless it is another of our own daemons.
#[derive(Clone, Debug)]
pub(crate) struct Neighbour {
    pub(crate) address: Ipv4Addr,
    /// The daemon's own: a client of the reflector it is.
    pub(crate) asn: u32,
    pub(crate) families: Vec<Family>,
    /// We dial it, at our own port.
    pub(crate) dialled: bool,
}

impl Neighbour {
    fn internal(&self) -> bool {
        self.asn == ASN
    }
}

/// The daemons asked for.
pub(crate) fn find(arguments: &Arguments) -> Result<Vec<Found>> {
    let find = |&peer: &Peer| {
        let program = match peer {
            Peer::Bird => first(&["/usr/sbin/bird", "/usr/local/sbin/bird"]),
            Peer::Frr => first(&["/usr/lib/frr/bgpd", "/usr/libexec/frr/bgpd"]),
            Peer::Gobgp => first(&["/usr/bin/gobgpd", "/usr/local/bin/gobgpd"]),
            Peer::Openbgpd => first(&["/usr/sbin/bgpd", "/usr/local/sbin/bgpd"]),
            Peer::Sealane => arguments.sealane.clone().or_else(beside),
        };
        let program = program.filter(|program| program.exists());
        let program = program.with_context(|| format!("{peer} is not installed"))?;
        Ok(Found {
            peer,
            version: version(peer, &program)?,
            program: fs::canonicalize(&program)?,
            shards: arguments.shards,
        })
    };
    arguments.peers.iter().map(find).collect()
}

/// `target/release/sealane` for `target/release/examples/bench-bgp`.
fn beside() -> Option<PathBuf> {
    let ours = std::env::current_exe().ok()?;
    Some(ours.parent()?.parent()?.join("sealane"))
}

fn version(peer: Peer, program: &Path) -> Result<String> {
    let option = match peer {
        Peer::Bird | Peer::Gobgp | Peer::Sealane => "--version",
        Peer::Frr => "-v",
        Peer::Openbgpd => "-V",
    };
    let output = Command::new(program)
        .arg(option)
        .output()
        .with_context(|| format!("{} could not be started", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default();
    let version = line
        .split_whitespace()
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    Ok(version.unwrap_or("unknown").to_owned())
}

/// Starts a daemon with its configuration and its files in `folder`.
pub(crate) fn start(found: &Found, topology: &Topology, folder: &Path) -> Result<Program> {
    let folder = fs::canonicalize(folder)?;
    let arguments = config::write(found, topology, &folder)?;
    let mut command = leashed(&found.program);
    command.args(arguments).current_dir(&folder);
    Program::start(command, folder.join("log"))
}
