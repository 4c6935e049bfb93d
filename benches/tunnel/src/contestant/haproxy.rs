//! A proxy hop of HAProxy: TLS of both nodes ends there, and is made anew.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bench_kit::{
    clock::Deadline,
    program::{Program, first, leashed},
};
use tempfile::TempDir;

use super::{ANYWHERE, Trust};

/// How long it may take to serve.
const START: Duration = Duration::from_secs(10);

pub(super) struct Hop {
    pub(super) at: SocketAddr,
    program: Program,
    _folder: TempDir,
}

impl Hop {
    /// Passes on to `next`.
    pub(super) fn start(trust: &Trust, next: SocketAddr) -> Result<Hop> {
        let haproxy = first(&["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]);
        let haproxy = haproxy.context("haproxy is not installed")?;
        let folder = TempDir::new()?;
        let file = |name: &str| folder.path().join(name);
        fs::write(file("hop.pem"), &trust.relay_pem)?;
        fs::write(file("roots.pem"), &trust.roots_pem)?;
        // Nobody else is in this network namespace to take it meanwhile.
        let at = TcpListener::bind(ANYWHERE)?.local_addr()?;
        fs::write(file("haproxy.cfg"), config(folder.path(), at, next))?;
        let mut command = leashed(&haproxy);
        command.arg("-f").arg(file("haproxy.cfg"));
        let mut program = Program::start(command, file("log"))?;
        let deadline = Deadline::after(START);
        while TcpStream::connect(at).is_err() {
            program.check()?;
            if deadline.passed() {
                bail!("it does not listen: {}", program.last_words());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Hop {
            at,
            program,
            _folder: folder,
        })
    }

    /// Of its only thread, below `/proc`.
    pub(super) fn place(&self) -> PathBuf {
        let pid = self.program.family().pid;
        format!("{pid}/task/{pid}").into()
    }
}

/// One thread, and pieces as large as those of the others.
fn config(folder: &Path, at: SocketAddr, next: SocketAddr) -> String {
    let folder = folder.display();
    let tls =
        format!("ssl crt {folder}/hop.pem ca-file {folder}/roots.pem verify required alpn bench");
    format!(
        "global
  nbthread 1
  tune.bufsize {}
  ssl-default-bind-options ssl-min-ver TLSv1.3
defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend near
  bind {at} {tls}
  default_backend far
backend far
  server one {next} {tls}
",
        crate::work::PIECE
    )
}
