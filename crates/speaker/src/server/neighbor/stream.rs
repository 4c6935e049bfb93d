//! One TCP connection with a neighbour.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use bgp::peer::ConnectionId;
use runtime::net::router::{self, Md5Key, Options, Reach};
use tokio::{
    io::{AsyncWriteExt, Interest},
    net::TcpStream,
};

use crate::server::{NeighborConfig, outbox::Outbox};

pub(super) struct Stream {
    pub(super) id: ConnectionId,
    pub(super) tcp: TcpStream,
    pub(super) outbox: Rc<Outbox>,
    pub(super) local: Option<SocketAddr>,
}

impl Stream {
    pub(super) fn new(id: ConnectionId, tcp: TcpStream) -> Self {
        Stream {
            id,
            local: tcp.local_addr().ok(),
            tcp,
            outbox: Rc::new(Outbox::new()),
        }
    }

    /// Write the last words, within `time`.
    pub(super) async fn farewell(mut self, time: Duration) {
        self.outbox.keep_first();
        let last_words = async {
            while !self.outbox.is_empty() {
                self.tcp.writable().await?;
                self.outbox.write(&self.tcp)?;
            }
            self.tcp.shutdown().await
        };
        // The neighbour may be gone; there is nobody to tell.
        let _ = tokio::time::timeout(time, last_words).await;
    }
}

/// Wait until something can be done with the stream; for ever if there is none.
pub(super) async fn ready(stream: Option<&Stream>) -> ConnectionId {
    let Some(stream) = stream else {
        return std::future::pending().await;
    };
    let interest = if stream.outbox.is_empty() {
        Interest::READABLE
    } else {
        Interest::READABLE | Interest::WRITABLE
    };
    tokio::select! {
        // An error shows itself in the read that follows.
        _ = stream.tcp.ready(interest) => {}
        () = stream.outbox.wake.notified() => {}
    }
    stream.id
}

/// What a neighbour's connections need of the system.
pub(super) fn options(neighbor: &NeighborConfig) -> Options {
    Options {
        md5: key(neighbor),
        reach: if neighbor.gtsm {
            Reach::Within { hops: 1 }
        } else {
            Reach::Any
        },
        source: neighbor
            .local_address
            .map(|address| SocketAddr::new(address, 0)),
        user_timeout: None,
    }
}

/// The key that signs a neighbour's segments. The configuration has checked its length.
pub(super) fn key(neighbor: &NeighborConfig) -> Option<Md5Key> {
    let password = neighbor.password.as_ref()?;
    Md5Key::new(password.0.as_bytes()).ok()
}

/// Connect to a neighbour as it is configured.
pub(super) fn dial(neighbor: &NeighborConfig, time: Duration) -> super::Dial {
    let options = options(neighbor);
    let to = SocketAddr::new(neighbor.address, neighbor.port);
    Box::pin(async move { router::connect(to, &options, time).await })
}
