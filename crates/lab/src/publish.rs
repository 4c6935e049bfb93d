//! Doors on this machine's loopback into places in network namespaces, connection by connection.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use runtime::net::{self, Share};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
};

use crate::{netns::enter_path, tasks::Crew};

/// Connections of one door at once.
const CONNECTIONS: usize = 1024;
/// Sockets asked for and not made yet, of one namespace; whoever asks for more waits.
const ASKED: usize = 64;

/// All doors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Each has an address of its own.
    pub doors: Vec<Door>,
}

/// One door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Door {
    /// Where it is, in this process's namespace.
    pub listen: SocketAddr,
    /// Where it leads.
    pub target: SocketAddr,
    /// The namespace in which that is so, as [`Namespace::path`](crate::netns::Namespace::path).
    pub namespace: PathBuf,
}

/// Why there are no doors.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The configuration file could not be read.
    #[error("could not read the configuration {0}")]
    Read(String, #[source] io::Error),
    /// A door's address could not be listened on.
    #[error("could not listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// A namespace could not be entered.
    #[error("could not enter the namespace {0}")]
    Enter(String, #[source] io::Error),
}

impl Config {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// The file cannot be read, or has another shape.
    pub fn read(path: &Path) -> Result<Self, PublishError> {
        let read = std::fs::read(path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        read.map_err(|error| PublishError::Read(path.display().to_string(), error))
    }
}

/// Makes sockets in a namespace.
type Maker = mpsc::Sender<oneshot::Sender<io::Result<Socket>>>;

/// Doors that are open and lead nowhere until [`Doors::run`].
#[derive(Debug)]
pub struct Doors {
    doors: Vec<(TcpListener, SocketAddr, Maker)>,
}

impl Doors {
    /// Listens at every door.
    ///
    /// # Errors
    /// An address cannot be bound, or a namespace cannot be entered; then no door is open.
    pub fn open(config: &Config) -> Result<Self, PublishError> {
        let mut makers: BTreeMap<&Path, Maker> = BTreeMap::new();
        let mut doors = Vec::new();
        for door in &config.doors {
            let maker = match makers.get(&*door.namespace) {
                Some(maker) => maker.clone(),
                None => {
                    let made = maker(&door.namespace);
                    let name = || door.namespace.display().to_string();
                    let made = made.map_err(|error| PublishError::Enter(name(), error))?;
                    makers.entry(&door.namespace).or_insert(made).clone()
                }
            };
            let listener = net::tcp_listener(door.listen, Share::Exclusive)
                .map_err(|error| PublishError::Listen(door.listen, error))?;
            doors.push((listener, door.target, maker));
        }
        Ok(Doors { doors })
    }

    /// Lets connections through until dropped.
    pub async fn run(self) {
        let crew = Crew::new("publish", self.doors.len());
        for (listener, target, maker) in self.doors {
            let open = attend(listener, target, maker);
            crew.start("door", crew.place().await, open);
        }
        std::future::pending().await
    }
}

/// A thread inside, which ends with its last asker.
fn maker(namespace: &Path) -> io::Result<Maker> {
    let (asks, mut asked) = mpsc::channel::<oneshot::Sender<io::Result<Socket>>>(ASKED);
    let (entered, inside) = std::sync::mpsc::sync_channel(1);
    let path = namespace.to_owned();
    std::thread::Builder::new()
        .name("inside".to_owned())
        .spawn(move || {
            let enters = enter_path(&path);
            let is_inside = enters.is_ok();
            // Who asks waits for it.
            let _ = entered.send(enters);
            while let Some(answer) = asked.blocking_recv().filter(|_| is_inside) {
                let _ = answer.send(Socket::new(Domain::IPV4, Type::STREAM, None));
            }
        })?;
    inside.recv().map_err(io::Error::other)??;
    Ok(asks)
}

async fn attend(listener: TcpListener, target: SocketAddr, maker: Maker) {
    let crew = Crew::new("door", CONNECTIONS);
    loop {
        let place = crew.place().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let maker = maker.clone();
                crew.start("connection", place, async move {
                    if let Err(error) = pass(stream, target, &maker).await {
                        tracing::debug!(%target, %error, "a connection through a door ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a door could not accept");
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        }
    }
}

async fn pass(mut stream: TcpStream, target: SocketAddr, maker: &Maker) -> io::Result<()> {
    let (answer, made) = oneshot::channel();
    maker.send(answer).await.map_err(io::Error::other)?;
    let socket = made.await.map_err(io::Error::other)??;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    stream.set_nodelay(true)?;
    let mut inside = TcpSocket::from_std_stream(socket.into())
        .connect(target)
        .await?;
    copy_bidirectional(&mut stream, &mut inside).await?;
    Ok(())
}
