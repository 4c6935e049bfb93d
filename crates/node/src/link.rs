//! The link between the two parts of a node when they are two processes: three connections to
//! `STATE/node.sock`, which the data part listens on.
//!
//! Each connection begins with nine octets: which pipe of the link it is, and a number that the
//! three of one link share. The socket is the node's user's alone, so nobody else is asked who he
//! is.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use runtime::Tasks;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::mpsc,
    time::timeout,
};
use tunnel::Pipes;

/// The data part's socket for its control part, in the state folder.
const SOCKET: &str = "node.sock";
/// How long the beginning of a connection may take.
const HELLO: Duration = Duration::from_secs(5);
/// Links of which not all pipes are there; the oldest goes.
const HALVES: usize = 8;
/// A data part that is not there is tried again after this.
const AGAIN: Duration = Duration::from_millis(100);

/// The data part's end: takes control parts, one after the other.
pub(crate) struct Door {
    socket: UnixListener,
}

impl Door {
    pub(crate) fn open(state: &Path) -> io::Result<Door> {
        let socket = runtime::net::unix_listener(&state.join(SOCKET))?;
        Ok(Door { socket })
    }

    /// Give each link that is complete to `links`.
    pub(crate) async fn serve(self, links: mpsc::Sender<Pipes>, tasks: Tasks) {
        let (arrivals, mut arrived) = mpsc::channel(HALVES);
        let mut halves: BTreeMap<(u64, u64), [Option<UnixStream>; 3]> = BTreeMap::new();
        let mut age = 0;
        loop {
            tokio::select! {
                accepted = self.socket.accept() => match accepted {
                    Ok((stream, _)) => {
                        let arrivals = arrivals.clone();
                        tasks.spawn("node-sock-hello", async move {
                            if let Some(arrival) = hello(stream).await {
                                let _ = arrivals.send(arrival).await;
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "node.sock refused a connection");
                        tokio::time::sleep(AGAIN).await;
                    }
                },
                Some((number, role, stream)) = arrived.recv() => {
                    let known = halves.keys().find(|(_, known)| *known == number).copied();
                    let key = known.unwrap_or((age, number));
                    age += 1;
                    let half = halves.entry(key).or_default();
                    half[role] = Some(stream);
                    if half.iter().all(Option::is_some)
                        && let Some([Some(control), Some(forward), Some(reverse)]) =
                            halves.remove(&key)
                    {
                        tracing::info!("the control part is there");
                        let pipes = pipes(control, forward, reverse);
                        if links.send(pipes).await.is_err() {
                            return;
                        }
                    }
                    if halves.len() > HALVES {
                        halves.pop_first();
                    }
                }
            }
        }
    }
}

/// Who a connection is: the link's number and its pipe.
async fn hello(mut stream: UnixStream) -> Option<(u64, usize, UnixStream)> {
    if !matches!(runtime::net::same_user(&stream), Ok(true)) {
        tracing::warn!("another user at node.sock");
        return None;
    }
    let mut octets = [0; 9];
    timeout(HELLO, stream.read_exact(&mut octets))
        .await
        .ok()?
        .ok()?;
    let [role, number @ ..] = octets;
    let role = usize::from(role);
    (role < 3).then_some((u64::from_be_bytes(number), role, stream))
}

/// The control part's end: waits until a data part is there.
pub(crate) async fn connect(state: &Path) -> Pipes {
    let path: PathBuf = state.join(SOCKET);
    let mut waited = false;
    loop {
        match dial(&path).await {
            Ok(pipes) => return pipes,
            Err(error) if !waited => {
                tracing::info!(%error, path = %path.display(), "waiting for the data part");
                waited = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn dial(path: &Path) -> io::Result<Pipes> {
    let number = runtime::seed();
    let mut all = Vec::new();
    for role in 0..3_u8 {
        let mut stream = UnixStream::connect(path).await?;
        let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
        stream.write_all(&[role, a, b, c, d, e, f, g, h]).await?;
        all.push(stream);
    }
    match <[UnixStream; 3]>::try_from(all) {
        Ok([control, forward, reverse]) => Ok(pipes(control, forward, reverse)),
        Err(_) => Err(io::ErrorKind::NotConnected.into()),
    }
}

fn pipes(control: UnixStream, forward: UnixStream, reverse: UnixStream) -> Pipes {
    Pipes {
        control: Box::new(control),
        forward: Box::new(forward),
        reverse: Box::new(reverse),
    }
}
