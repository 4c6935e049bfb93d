//! Hot restart: the process that runs a node gives its listening sockets to the next one, which
//! serves from then on, and finishes what it has.
//!
//! ```text
//! next                          STATE/handover.sock                      running
//!  │ connect ───────────────────────────────────────────────────────────▶ │
//!  │ ◀────────────────────────── sockets (runtime::net::handover) ─────── │
//!  │ compile, listen, serve beside it                                     │
//!  │ "serving" ─────────────────────────────────────────────────────────▶ │ stops accepting,
//!  │                                                                      │ finishes, ends
//! ```
//! Whoever of the two dies before "serving", the other one goes on alone.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

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
const STARTS: Duration = Duration::from_secs(120);
const SERVING: &[u8; 8] = b"serving\n";

/// The process that runs the node so far.
#[derive(Debug)]
pub(crate) struct Running(UnixStream);

impl Running {
    /// Ask it for its sockets. `None`: nobody runs.
    ///
    /// # Errors
    /// It does not answer as it should; it runs on.
    pub(crate) async fn find(
        path: &Path,
    ) -> io::Result<Option<(Running, Vec<(SocketAddr, TcpListener)>)>> {
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
        let sockets = timeout(PATIENCE, handover::take(&mut stream)).await??;
        Ok(Some((Running(stream), sockets)))
    }

    /// It may go.
    pub(crate) async fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(SERVING).await
    }
}

/// Give sockets to whoever asks; tell when one of them serves.
pub(crate) async fn serve(
    socket: UnixListener,
    queries: mpsc::Sender<Query>,
    relieved: oneshot::Sender<()>,
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
            Ok(()) => {
                // Nobody listens when we end anyhow.
                let _ = relieved.send(());
                return;
            }
            Err(error) => tracing::warn!(%error, "the next process did not take over"),
        }
    }
}

async fn give(mut stream: UnixStream, queries: &mpsc::Sender<Query>) -> io::Result<()> {
    if !runtime::net::same_user(&stream)? {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let (reply, replied) = oneshot::channel();
    let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let asked = queries.send(Query::Sockets(reply)).await;
    asked.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    let sockets = replied.await.map_err(gone)?;
    tracing::info!(sockets = sockets.len(), "another process takes over");
    timeout(PATIENCE, handover::give(&mut stream, &sockets)).await??;
    // Ours stay open; the copies are the other's.
    drop(sockets);
    let mut word = [0; SERVING.len()];
    timeout(STARTS, stream.read_exact(&mut word)).await??;
    if word == *SERVING {
        return Ok(());
    }
    Err(io::ErrorKind::InvalidData.into())
}
