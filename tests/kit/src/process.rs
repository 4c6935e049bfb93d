//! Processes as `/proc` shows them, and signals.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{Ipv4Addr, SocketAddrV4},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

/// A process, told apart from a later one with the same number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number when it was looked at.
    pub parent: u32,
    /// Its arguments, joined by spaces; empty for a zombie.
    pub command: String,
    /// When it started, in ticks since boot.
    started: u64,
    zombie: bool,
}

impl Process {
    /// The process with this number, if there is one (zombies too).
    #[must_use]
    pub fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field may hold anything; the last parenthesis ends it (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        Some(Process {
            pid,
            parent: fields.get(1)?.parse().ok()?,
            command: command.trim_end().to_owned(),
            started: fields.get(19)?.parse().ok()?,
            zombie: matches!(*fields.first()?, "Z" | "X"),
        })
    }

    /// Whether this very process still runs (a zombie does not).
    #[must_use]
    pub fn is_alive(&self) -> bool {
        Process::read(self.pid).is_some_and(|now| now.started == self.started && !now.zombie)
    }
}

/// All descendants of a process, without itself, parents first.
#[must_use]
pub fn descendants(pid: u32) -> Vec<Process> {
    let mut children: BTreeMap<u32, Vec<Process>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(process) = number.and_then(Process::read) {
            children.entry(process.parent).or_default().push(process);
        }
    }
    let mut found = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in children.remove(&parent).unwrap_or_default() {
            parents.push(child.pid);
            found.push(child);
        }
    }
    found
}

/// The proportional set size in KiB; `None` if the process is gone or not ours.
#[must_use]
pub fn pss_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// What is resident of a process, shared or not, in KiB; `None` if it is gone.
#[must_use]
pub fn rss_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "VmRSS:")
}

/// What is resident of a process and comes from no file: its own memory, in KiB; `None` if it is
/// gone.
#[must_use]
pub fn rss_anon_kib(pid: u32) -> Option<u64> {
    status_kib(pid, "RssAnon:")
}

fn status_kib(pid: u32, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Sends a signal to one process.
///
/// # Panics
/// There is no such process, or it is not ours.
pub fn signal(pid: u32, signal: Signal) {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let number = number.expect("a process number");
    if let Err(error) = kill_process(number, signal) {
        panic!("process {pid} could not be sent {signal:?}: {error}");
    }
}

/// Inodes of the sockets a process holds.
#[must_use]
pub fn socket_inodes(pid: u32) -> BTreeSet<u64> {
    let links = fs::read_dir(format!("/proc/{pid}/fd"))
        .into_iter()
        .flatten()
        .flatten();
    links
        .filter_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            let text = link.to_str()?;
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        })
        .collect()
}

/// One row of `/proc/net/{tcp,tcp6,udp,udp6}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The table it was in: `tcp`, `tcp6`, `udp`, `udp6`.
    pub table: &'static str,
    /// The local address as the kernel writes it, hexadecimal.
    pub local: String,
    /// The kernel's number of its state: 10 (0x0A) is LISTEN, 7 is an unconnected UDP socket.
    pub state: u8,
    /// Its inode.
    pub inode: u64,
}

impl Socket {
    /// Whether strangers could reach it: TCP in LISTEN, or unconnected UDP.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self.table {
            "tcp" | "tcp6" => self.state == 0x0A,
            _ => self.state == 0x07,
        }
    }

    /// The local IPv4 address; `None` in IPv6 tables.
    #[must_use]
    pub fn local_v4(&self) -> Option<SocketAddrV4> {
        let (address, port) = self.local.split_once(':')?;
        if address.len() != 8 {
            return None;
        }
        // Printed as a native integer of the address in network order (proc_net(5)).
        let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(SocketAddrV4::new(Ipv4Addr::from(address), port))
    }
}

/// Every IP socket of this network namespace.
#[must_use]
pub fn sockets() -> Vec<Socket> {
    sockets_beside(std::process::id())
}

/// Every IP socket of the network namespace in which a process is; none if it is gone.
#[must_use]
pub fn sockets_beside(pid: u32) -> Vec<Socket> {
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else {
                continue;
            };
            if let (Ok(state), Ok(inode)) = (u8::from_str_radix(state, 16), inode.parse()) {
                let local = (*local).to_owned();
                found.push(Socket {
                    table,
                    local,
                    state,
                    inode,
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_seen_signalled_and_gone() {
        let me = std::process::id();
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .spawn()
            .expect("a child");
        let seen = descendants(me);
        let seen = seen.iter().find(|p| p.pid == child.id()).expect("seen");
        assert!(seen.is_alive() && seen.parent == me);
        assert!(pss_kib(me).is_some_and(|kib| kib > 100));
        let (own, all) = (rss_anon_kib(me), rss_kib(me));
        assert!(own.is_some_and(|kib| kib > 100) && own < all);
        signal(child.id(), Signal::KILL);
        child.wait().expect("reaped");
        assert!(!seen.is_alive());
    }

    #[test]
    fn sockets_are_found_by_address_and_inode() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        let address = listener.local_addr().expect("an address");
        let here = |socket: &Socket| socket.local_v4().map(Into::into) == Some(address);
        let all = sockets();
        let ours = all.iter().find(|socket| here(socket)).expect("listed");
        assert!(ours.is_open() && socket_inodes(std::process::id()).contains(&ours.inode));
    }
}
