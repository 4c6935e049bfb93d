//! The fabric listener: where PoPs bring site-sync streams and joins.
//!
//! The client's ALPN chooses: `sealane-join/1` without a certificate, one message each way; or
//! `h2` with a certificate of the fabric CA, on which every stream is a CONNECT to a reserved
//! authority.

mod join;
mod lines;
mod sync;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use api::sync::{AUTHORITY, JOIN_AUTHORITY};
use base::{Name, SiteName};
use bytes::Bytes;
use h2::server::SendResponse;
use http::{Method, Request, Response, StatusCode};
use pki::{Authority, Identity};
use runtime::{Drain, Tasks, h2io::H2Stream};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

pub(crate) use lines::line;

use crate::{
    ledger::{Ledger, State},
    limit::{Rate, Sources},
    metrics::Meters,
    planner::{Author, Board},
    reports::Reports,
};

/// ALPN of a join without a certificate.
pub(crate) const JOIN_ALPN: &[u8] = b"sealane-join/1";
/// ALPN of everything else.
pub(crate) const H2_ALPN: &[u8] = b"h2";
/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 4096;
/// Streams on one connection: a PoP opens one for each node attached to it.
const MAX_STREAMS: u32 = 4096;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A peer that leaves a ping unanswered this long is gone.
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const PING_EVERY: Duration = Duration::from_secs(5);
/// Joins without a certificate, from one address.
const JOINS: Rate = Rate {
    burst: 20,
    every: Duration::from_millis(200),
};
/// Joins that the PoP at one address passes on: it has limited each node's own already.
const PASSED_ON: Rate = Rate {
    burst: 200,
    every: Duration::from_millis(20),
};

/// The two ways in, made anew when the controller's certificate is.
pub(crate) struct Doors {
    pub(crate) join: Arc<ServerConfig>,
    pub(crate) mutual: Arc<ServerConfig>,
}

/// What every connection needs.
pub(crate) struct Fabric {
    pub(crate) ledger: Ledger,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) meters: Arc<Meters>,
    pub(crate) author: Arc<Author>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) lifetime: Duration,
    pub(crate) doors: watch::Receiver<Arc<Doors>>,
    pub(crate) joins: JoinLimits,
    pub(crate) tasks: Tasks,
}

/// How often nodes may ask to join.
pub(crate) struct JoinLimits {
    direct: Mutex<Sources>,
    passed_on: Mutex<Sources>,
}

impl Default for JoinLimits {
    fn default() -> Self {
        JoinLimits {
            direct: Mutex::new(Sources::new(JOINS)),
            passed_on: Mutex::new(Sources::new(PASSED_ON)),
        }
    }
}

impl Fabric {
    /// Accepts until the drain begins.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener, drain: Drain) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.draining() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.meters.refuse("accept", "", &error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let full = "too many connections";
                self.meters
                    .refuse("too-many-connections", &peer.ip().to_string(), &full);
                continue;
            };
            let (fabric, drain) = (Arc::clone(&self), drain.clone());
            self.tasks.spawn("fabric connection", async move {
                fabric.serve(stream, peer, drain).await;
                drop(place);
            });
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, drain: Drain) {
        let address = peer.ip().to_string();
        let handshake = tokio::time::timeout(HANDSHAKE, self.handshake(stream)).await;
        let tls = match handshake.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(tls) => tls,
            Err(error) => return self.meters.refuse("handshake", &address, &error),
        };
        let (_, connection) = tls.get_ref();
        if connection.alpn_protocol() == Some(JOIN_ALPN) {
            return self.join_directly(tls, peer.ip()).await;
        }
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        let identity = leaf.map(|leaf| Identity::from_certificate(leaf));
        let (site, node) = match identity {
            Some(Ok(Identity::Node { planet, site, node }))
                if planet == *self.authority.planet() =>
            {
                (site, node)
            }
            Some(Ok(_)) | None => {
                let wrong = "the certificate is not that of a node of this planet";
                return self.meters.refuse("identity", &address, &wrong);
            }
            Some(Err(error)) => {
                return self
                    .meters
                    .refuse("identity", &address, &base::Chain(&error));
            }
        };
        let peer = Peer {
            address: peer.ip(),
            site,
            node,
        };
        if !exists(&self.ledger.state(), &peer.site, &peer.node) {
            let gone = "the node of this certificate does not exist any more";
            return self.meters.refuse("unknown-node", &peer.name(), &gone);
        }
        let name = peer.name();
        tracing::debug!(peer = %name, "fabric connection");
        if let Err(error) = self.streams(tls, peer, drain).await {
            tracing::debug!(peer = %name, %error, "fabric connection ended");
        }
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
        let joins = start
            .client_hello()
            .alpn()
            .is_some_and(|mut protocols| protocols.any(|protocol| protocol == JOIN_ALPN));
        let doors = Arc::clone(&self.doors.borrow());
        let door = if joins { &doors.join } else { &doors.mutual };
        let tls = start.into_stream(Arc::clone(door)).await?;
        if tls.get_ref().1.alpn_protocol().is_none() {
            let error = "the peer speaks neither h2 nor sealane-join/1";
            return Err(io::Error::new(io::ErrorKind::InvalidData, error));
        }
        Ok(tls)
    }

    async fn join_directly(&self, tls: TlsStream<TcpStream>, peer: IpAddr) {
        if !self.may_join(&self.joins.direct, peer) {
            return;
        }
        join::answer(tls, &self.ledger, &self.meters, &peer.to_string()).await;
    }

    fn may_join(&self, limits: &Mutex<Sources>, peer: IpAddr) -> bool {
        let mut limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = limits.take(peer, runtime::now());
        if !allowed {
            self.meters.joined("rate-limited");
            self.meters
                .refuse("join-rate", &peer.to_string(), &"too many joins");
        }
        allowed
    }

    /// Serves the streams of one connection until it ends or the drain begins.
    async fn streams(
        self: Arc<Self>,
        tls: TlsStream<TcpStream>,
        peer: Peer,
        drain: Drain,
    ) -> io::Result<()> {
        let mut connection = h2::server::Builder::new()
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(8 << 10)
            .initial_window_size(256 << 10)
            .initial_connection_window_size(4 << 20)
            .handshake::<_, Bytes>(tls)
            .await
            .map_err(runtime::h2io::io_error)?;
        let mut pings = connection.ping_pong();
        let peer = Arc::new(peer);
        let silence = async {
            let Some(pings) = &mut pings else {
                return std::future::pending().await;
            };
            loop {
                tokio::time::sleep(PING_EVERY).await;
                let pong = pings.ping(h2::Ping::opaque());
                match tokio::time::timeout(PING_TIMEOUT, pong).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) | Err(_) => return,
                }
            }
        };
        tokio::pin!(silence);
        let mut draining = false;
        loop {
            tokio::select! {
                accepted = connection.accept() => match accepted {
                    None => return Ok(()),
                    Some(Err(error)) => return Err(runtime::h2io::io_error(error)),
                    Some(Ok((request, respond))) => {
                        self.dispatch(request, respond, &peer, &drain);
                    }
                },
                () = &mut silence => return Err(io::ErrorKind::TimedOut.into()),
                () = drain.draining(), if !draining => {
                    draining = true;
                    connection.graceful_shutdown();
                }
            }
        }
    }

    fn dispatch(
        self: &Arc<Self>,
        request: Request<h2::RecvStream>,
        mut respond: SendResponse<Bytes>,
        peer: &Arc<Peer>,
        drain: &Drain,
    ) {
        let host = request.uri().host().unwrap_or_default();
        let status = match (request.method(), host) {
            (&Method::CONNECT, AUTHORITY) => StatusCode::OK,
            (&Method::CONNECT, JOIN_AUTHORITY) if peer.site.is_pop() => {
                match self.may_join(&self.joins.passed_on, peer.address) {
                    true => StatusCode::OK,
                    false => StatusCode::TOO_MANY_REQUESTS,
                }
            }
            (&Method::CONNECT, JOIN_AUTHORITY) => StatusCode::FORBIDDEN,
            (&Method::CONNECT, _) => StatusCode::NOT_FOUND,
            (_, _) => StatusCode::METHOD_NOT_ALLOWED,
        };
        let joins = host == JOIN_AUTHORITY;
        let mut head = Response::new(());
        *head.status_mut() = status;
        // A response fails only on a stream that the peer has reset.
        let Ok(send) = respond.send_response(head, status != StatusCode::OK) else {
            return;
        };
        if status != StatusCode::OK {
            return self.meters.refuse("stream", &peer.name(), &status);
        }
        let stream = H2Stream::new(send, request.into_body());
        let (fabric, peer, drain) = (Arc::clone(self), Arc::clone(peer), drain.clone());
        if joins {
            self.tasks.spawn("join", async move {
                join::answer(stream, &fabric.ledger, &fabric.meters, &peer.name()).await;
            });
        } else {
            self.tasks.spawn("site-sync", async move {
                sync::serve(fabric, stream, peer, drain).await
            });
        }
    }
}

/// The node at the other end, as its certificate says.
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    pub(crate) site: SiteName,
    pub(crate) node: Name,
}

impl Peer {
    pub(crate) fn name(&self) -> String {
        format!("{}.{}", self.node, self.site)
    }
}

/// Is there such a node now?
pub(crate) fn exists(state: &State, site: &SiteName, node: &Name) -> bool {
    let site = state.world.site(site);
    site.is_some_and(|(_, spec)| spec.nodes.iter().any(|one| one.name == *node))
}
