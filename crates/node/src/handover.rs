//! Hot restart: the process that runs a node gives its listening sockets to the next one, which
//! serves from then on, and finishes what it has.
//!
//! ```text
//! next                          STATE/handover.sock                      running
//!  │ connect ───────────────────────────────────────────────────────────▶ │
//!  │ ◀────────────────────────── sockets (runtime::net::handover) ─────── │
//!  │ ◀─── of a node that has joined: sockets for links, routes, peers ─── │ leaves its links
//!  │ compile, link, listen, serve beside it                               │
//!  │ "serving" ─────────────────────────────────────────────────────────▶ │ its control half ends
//!  │ ◀──────────────────────── of a node that has joined: "silent" ────── │
//!  │ its control half begins                                              │ stops accepting,
//!  │                                                                      │ finishes, ends
//! ```
//! Whoever of the two dies before "serving", the other one goes on alone.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::Path,
    time::Duration,
};

use pki::Identity;
use runtime::{Tasks, net::handover};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::data::Query;

/// How long sockets may take to go over.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the next process may take until it serves.
pub(crate) const STARTS: Duration = Duration::from_secs(75);
/// The most that is taken of what was announced.
const MOST: u32 = 256 << 20;
const SERVING: &[u8; 8] = b"serving\n";
const SILENT: &[u8; 7] = b"silent\n";

/// What a process gives to the next one.
#[derive(Debug)]
pub(crate) struct Bequest {
    /// Its listening sockets, by the address that they were asked for.
    pub(crate) sockets: Vec<(SocketAddr, OwnedFd)>,
    /// Of a node that has joined.
    pub(crate) joined: Option<Joined<OwnedFd>>,
}

/// What only a node that has joined has.
#[derive(Debug)]
pub(crate) struct Joined<Socket> {
    /// The sockets that listen for links.
    pub(crate) tunnels: Vec<(SocketAddr, Socket)>,
    /// What was announced last ([`plan::facts`]).
    pub(crate) facts: Vec<u8>,
    /// The nodes at the other ends of its links.
    pub(crate) linked: Vec<Identity>,
}

/// The process that runs the node so far.
#[derive(Debug)]
pub(crate) struct Running(UnixStream);

/// What the process before this one has given.
#[derive(Debug, Default)]
pub(crate) struct Inheritance {
    pub(crate) sockets: Vec<(SocketAddr, TcpListener)>,
    pub(crate) joined: Option<Joined<TcpListener>>,
}

impl Running {
    /// Ask it for what it has. `None`: nobody runs.
    ///
    /// # Errors
    /// It does not answer as it should; it runs on.
    pub(crate) async fn find(
        path: &Path,
        has_joined: bool,
    ) -> io::Result<Option<(Running, Inheritance)>> {
        let mut stream = match UnixStream::connect(path).await {
            Ok(stream) => stream,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let inheritance = timeout(PATIENCE, take(&mut stream, has_joined)).await??;
        Ok(Some((Running(stream), inheritance)))
    }

    /// It may go.
    pub(crate) async fn relieve(&mut self) -> io::Result<()> {
        self.0.write_all(SERVING).await
    }

    /// Wait until its control half has ended.
    pub(crate) async fn until_silent(mut self) -> io::Result<()> {
        let mut word = [0; SILENT.len()];
        timeout(PATIENCE, self.0.read_exact(&mut word)).await??;
        match word == *SILENT {
            true => Ok(()),
            false => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The process that takes this one's place.
#[derive(Debug)]
pub(crate) struct Successor(UnixStream);

impl Successor {
    /// Our control half has ended.
    pub(crate) async fn tell_silent(mut self) -> io::Result<()> {
        self.0.write_all(SILENT).await
    }
}

async fn take(stream: &mut UnixStream, has_joined: bool) -> io::Result<Inheritance> {
    let sockets = handover::take(stream).await?;
    let joined = match has_joined {
        false => None,
        true => {
            let tunnels = handover::take(stream).await?;
            let facts = take_octets(stream).await?;
            let linked = String::from_utf8(take_octets(stream).await?);
            let linked = linked.map_err(|_| io::ErrorKind::InvalidData)?;
            let linked = linked.lines().map(str::parse).collect::<Result<_, _>>();
            Some(Joined {
                tunnels,
                facts,
                linked: linked.map_err(|_| io::ErrorKind::InvalidData)?,
            })
        }
    };
    Ok(Inheritance { sockets, joined })
}

async fn take_octets(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    if length > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut octets = Vec::new();
    stream.take(length.into()).read_to_end(&mut octets).await?;
    match u32::try_from(octets.len()) == Ok(length) {
        true => Ok(octets),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

async fn give_octets(stream: &mut UnixStream, octets: &[u8]) -> io::Result<()> {
    let length = u32::try_from(octets.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    stream.write_u32(length).await?;
    stream.write_all(octets).await
}

/// Give what there is to whoever asks; tell when one of them serves.
pub(crate) async fn serve(
    socket: UnixListener,
    queries: mpsc::Sender<Query>,
    relieved: oneshot::Sender<Successor>,
    tasks: Tasks,
) {
    let token = tasks.token();
    loop {
        let accepted = tokio::select! {
            () = token.draining() => return,
            accepted = socket.accept() => accepted,
        };
        // One at a time.
        let given = match accepted {
            Ok((stream, _)) => give(stream, &queries).await,
            Err(error) => Err(error),
        };
        match given {
            Ok(successor) => {
                // Nobody listens when we end anyhow.
                let _ = relieved.send(successor);
                return;
            }
            Err(error) => tracing::warn!(%error, "the next process did not take over"),
        }
    }
}

async fn give(mut stream: UnixStream, queries: &mpsc::Sender<Query>) -> io::Result<Successor> {
    if !runtime::net::same_user(&stream)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let given = offer(&mut stream, queries).await;
    // An error means that the data half is gone, and we with it.
    let _ = queries
        .send(match given {
            Ok(()) => Query::Relieved,
            Err(_) => Query::Stays,
        })
        .await;
    given.map(|()| Successor(stream))
}

/// Give everything, and wait until the other serves.
async fn offer(stream: &mut UnixStream, queries: &mpsc::Sender<Query>) -> io::Result<()> {
    let (reply, replied) = oneshot::channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let asked = queries.send(Query::Bequest(reply)).await;
    asked.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    let Bequest { sockets, joined } = replied.await.map_err(gone)?;
    tracing::info!(sockets = sockets.len(), "another process takes over");
    timeout(PATIENCE, async {
        handover::give(stream, &sockets).await?;
        let Some(joined) = joined else { return Ok(()) };
        handover::give(stream, &joined.tunnels).await?;
        give_octets(stream, &joined.facts).await?;
        let linked = joined.linked.iter().map(|peer| format!("{peer}\n"));
        give_octets(stream, linked.collect::<String>().as_bytes()).await
    })
    .await??;
    // Ours stay open; the copies are the other's.
    drop(sockets);
    let mut word = [0; SERVING.len()];
    timeout(STARTS, stream.read_exact(&mut word)).await??;
    if word == *SERVING {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}
