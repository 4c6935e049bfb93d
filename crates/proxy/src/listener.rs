//! Listening: one `SO_REUSEPORT` socket a worker and address.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    future::poll_fn,
    io,
    net::{self, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    rc::{Rc, Weak},
    time::Duration,
};

use bytes::BytesMut;
use l7::{HelloError, ListenerProtocol};
use runtime::{
    Task,
    net::{Share, tcp_listener, tune_listener, udp_listener},
};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    time::{sleep, timeout},
};
use tokio_rustls::server::TlsStream;

use crate::{
    clients,
    downstream::{ConnInfo, Origin, h1, h2},
    front::{Front, FrontError},
    gathered::Gathered,
    http1::Wire,
    io::Io,
    layer4, quic,
    turns::{Line, NOBODY},
    udp,
    worker::Worker,
};

/// When the system has no file descriptor left, waiting helps more than asking again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// An address to serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Address and port to bind; this, and whether datagrams come to it, identifies a listener.
    /// Port 0 takes any free port.
    pub bind: SocketAddr,
    /// The logical port it offers.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: ListenerProtocol,
}

impl ListenerSpec {
    const fn socket(&self) -> (SocketAddr, bool) {
        (self.bind, self.protocol.is_datagrams())
    }
}

/// A listener that does not serve; the others do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot listen on {bind}: {error}")]
pub struct ListenerFailed {
    /// The address asked for.
    pub bind: SocketAddr,
    /// What the system said.
    pub error: String,
}

/// What is asked of a worker: the spec, and the address its first worker got.
pub(crate) type Wanted = (ListenerSpec, SocketAddr);

/// What a worker says to each: where it listens, or why not.
pub(crate) type Bound = Result<SocketAddr, ListenerFailed>;

/// Listening sockets by the address that they were asked for.
pub(crate) type Inherited = BTreeMap<SocketAddr, Vec<net::TcpListener>>;

/// The listeners of one worker.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// By address, and whether datagrams come to it.
    open: BTreeMap<(SocketAddr, bool), Open>,
    /// Of the process before this one, until the first listeners are set.
    inherited: Inherited,
}

#[derive(Debug)]
struct Open {
    /// Read for every connection, so that a changed port or TLS needs no new socket.
    spec: Rc<Cell<ListenerSpec>>,
    local: SocketAddr,
    /// One, or those of several workers of the process before this one. A task that has ended has
    /// closed its socket.
    sockets: Vec<Served>,
}

impl Listeners {
    pub(crate) fn new(inherited: Inherited) -> Self {
        Listeners {
            inherited,
            ..Listeners::default()
        }
    }

    /// Copies of all sockets.
    pub(crate) fn sockets(&self) -> Vec<(SocketAddr, OwnedFd)> {
        let all = self.open.iter().flat_map(|((bind, _), open)| {
            let sockets = open.sockets.iter();
            sockets.filter_map(|(socket, _)| Some((*bind, socket.upgrade()?)))
        });
        let copies = all.filter_map(|(bind, socket)| {
            let copy = socket.as_fd().try_clone_to_owned();
            Some((bind, copy.ok()?))
        });
        copies.collect()
    }

    /// Make it so: unchanged ones are not touched, connections never.
    pub(crate) fn set(&mut self, worker: &Rc<Worker>, wanted: &[Wanted]) -> Vec<Bound> {
        let keep: BTreeSet<_> = wanted.iter().map(|(spec, _)| spec.socket()).collect();
        self.open.retain(|socket, open| {
            let kept = keep.contains(socket);
            if !kept {
                open.sockets.iter().for_each(|(_, task)| task.abort());
            }
            kept
        });
        let bound = wanted
            .iter()
            .map(|(spec, address)| self.open(worker, *spec, *address))
            .collect();
        self.inherited.clear();
        bound
    }

    fn open(&mut self, worker: &Rc<Worker>, spec: ListenerSpec, address: SocketAddr) -> Bound {
        if let Some(open) = self.open.get(&spec.socket()) {
            if open.spec.replace(spec).protocol != spec.protocol {
                let sockets = open.sockets.iter();
                for listener in sockets.filter_map(|(socket, _)| socket.upgrade()) {
                    tune(&listener, spec.protocol);
                }
            }
            return Ok(open.local);
        }
        let failed = |error: io::Error| ListenerFailed {
            bind: spec.bind,
            error: error.to_string(),
        };
        let shared = Rc::new(Cell::new(spec));
        let opened = match spec.protocol {
            ListenerProtocol::Udp(_) => datagram_socket(worker, &shared, address),
            ListenerProtocol::Quic => quic_socket(worker, &shared, address),
            ListenerProtocol::Http
            | ListenerProtocol::Tls
            | ListenerProtocol::Tcp(_)
            | ListenerProtocol::Connect(_) => {
                let inherited = self.inherited.remove(&spec.bind).unwrap_or_default();
                sockets(worker, &shared, address, inherited)
            }
        };
        let (local, sockets) = opened.map_err(failed)?;
        let open = Open {
            sockets,
            spec: shared,
            local,
        };
        self.open.insert(spec.socket(), open);
        Ok(local)
    }
}

/// A socket and the task that serves it; one for datagrams is its task's alone.
type Served = (Weak<TcpListener>, Task);

/// Listen on the sockets that were handed over, or else on a new one.
fn sockets(
    worker: &Rc<Worker>,
    spec: &Rc<Cell<ListenerSpec>>,
    address: SocketAddr,
    inherited: Vec<net::TcpListener>,
) -> io::Result<(SocketAddr, Vec<Served>)> {
    let mut listeners = inherited
        .into_iter()
        .map(TcpListener::from_std)
        .collect::<io::Result<Vec<_>>>()?;
    if listeners.is_empty() {
        listeners.push(tcp_listener(address, Share::ReusePort)?);
    }
    let local = match listeners.first() {
        Some(listener) => listener.local_addr()?,
        None => address,
    };
    let sockets = listeners.into_iter().map(|listener| {
        tune(&listener, spec.get().protocol);
        let listener = Rc::new(listener);
        let socket = Rc::downgrade(&listener);
        let run = accept(Rc::clone(worker), listener, local, Rc::clone(spec));
        (
            socket,
            worker.spawn("listener", (NOBODY, Line::default()), run),
        )
    });
    Ok((local, sockets.collect()))
}

/// Over TLS clients speak first, and at once. A client of HTTP may have connected ahead of its
/// first request: it is taken, so that a drain does not reset it.
fn tune(listener: &TcpListener, protocol: ListenerProtocol) {
    tune_listener(listener, protocol == ListenerProtocol::Tls);
}

/// Take datagrams. Such a socket is not handed over: the next process has its own at the same
/// address, and flows find their way anew.
fn datagram_socket(
    worker: &Rc<Worker>,
    spec: &Rc<Cell<ListenerSpec>>,
    address: SocketAddr,
) -> io::Result<(SocketAddr, Vec<Served>)> {
    let socket = udp_listener(address, Share::ReusePort)?;
    let local = socket.local_addr()?;
    let run = datagrams(Rc::clone(worker), socket, local, Rc::clone(spec));
    let task = worker.tasks.spawn_local("datagrams", run);
    Ok((local, vec![(Weak::new(), task)]))
}

/// Take QUIC. The next process has its own socket here, too; connections stay with this one.
fn quic_socket(
    worker: &Rc<Worker>,
    spec: &Rc<Cell<ListenerSpec>>,
    address: SocketAddr,
) -> io::Result<(SocketAddr, Vec<Served>)> {
    let socket = udp_listener(address, Share::ReusePort)?;
    let local = socket.local_addr()?;
    let run = quic::listen(Rc::clone(worker), socket, Rc::clone(spec))?;
    let task = worker.spawn("quic-listener", (NOBODY, Line::default()), run);
    Ok((local, vec![(Weak::new(), task)]))
}

async fn accept(
    worker: Rc<Worker>,
    listener: Rc<TcpListener>,
    local: SocketAddr,
    spec: Rc<Cell<ListenerSpec>>,
) {
    let drain = worker.drain();
    loop {
        // On drain, who is connected already is still taken: closing would reset them.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = drain.draining() => return,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let spec = spec.get();
                let info = info(&tcp, peer, local, spec);
                seat(&worker, tcp, info, spec.protocol);
                poll_fn(|cx| worker.turns.poll_short(cx)).await;
            }
            Err(error) => {
                if worker.may_say() {
                    tracing::warn!(%error, "a client connection cannot be taken");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serve the datagrams that come to a socket.
async fn datagrams(
    worker: Rc<Worker>,
    socket: UdpSocket,
    local: SocketAddr,
    spec: Rc<Cell<ListenerSpec>>,
) {
    let mine = Rc::clone(&worker);
    let whose = move |peer| {
        let spec = spec.get();
        let info = ConnInfo {
            peer,
            local,
            port: spec.port,
            tls: false,
            connect: None,
            sni: None,
            seat: None,
            shown: None,
        };
        let to = match spec.protocol {
            ListenerProtocol::Udp(lb) => mine.snapshot().table.layer4(lb).cloned(),
            ListenerProtocol::Http
            | ListenerProtocol::Tls
            | ListenerProtocol::Quic
            | ListenerProtocol::Tcp(_)
            | ListenerProtocol::Connect(_) => None,
        };
        (info, to)
    };
    udp::listen(worker, socket, whose).await;
}

fn seat(worker: &Rc<Worker>, tcp: TcpStream, mut info: ConnInfo, protocol: ListenerProtocol) {
    info.seat = worker.seat();
    if info.seat.is_none() {
        worker.metrics.connections_refused.inc();
        return;
    }
    let first = (NOBODY, Line::of(info.peer.ip()));
    let run = serve(Rc::clone(worker), tcp, info, protocol);
    worker.spawn("connection", first, run);
}

/// What is known of a connection when it is accepted.
fn info(tcp: &TcpStream, peer: SocketAddr, local: SocketAddr, spec: ListenerSpec) -> ConnInfo {
    // The system is asked only where the listener does not know.
    let asked = local.ip().is_unspecified().then(|| tcp.local_addr().ok());
    ConnInfo {
        peer,
        local: asked.flatten().unwrap_or(local),
        port: spec.port,
        tls: spec.protocol == ListenerProtocol::Tls,
        connect: match spec.protocol {
            ListenerProtocol::Connect(lb) => Some(lb),
            ListenerProtocol::Http
            | ListenerProtocol::Tls
            | ListenerProtocol::Quic
            | ListenerProtocol::Tcp(_)
            | ListenerProtocol::Udp(_) => None,
        },
        sni: None,
        seat: None,
        shown: None,
    }
}

async fn serve(worker: Rc<Worker>, tcp: TcpStream, mut info: ConnInfo, protocol: ListenerProtocol) {
    let mut front = Front {
        early: BytesMut::new(),
        tcp,
    };
    let expected = worker.snapshot().senders.expect(info.peer.ip());
    if let Some(expected) = expected {
        let patience = worker.snapshot().limits.header_timeout;
        match Box::pin(front.header(expected, patience)).await {
            Ok(None) => {}
            Ok(Some(client)) => (info.peer, info.local) = (client.source, client.destination),
            // Whoever asks whether somebody listens says nothing.
            Err(FrontError::Gone) => return,
            Err(error) => {
                worker.metrics.headers_refused.inc();
                tracing::debug!(peer = %info.peer, error = %base::Chain(&error), "closed");
                return;
            }
        }
    }
    match protocol {
        ListenerProtocol::Http | ListenerProtocol::Connect(_) => {
            let wire = Wire::begun(Io::Tcp(front.tcp), front.early);
            h1::serve(worker, wire, Origin::Client(info)).await;
        }
        ListenerProtocol::Tls => {
            // Boxed, and over before the first request: what most connections are at most times,
            // waiting for one, is to be small.
            let Some((stream, info)) = Box::pin(unsealed(&worker, front, info)).await else {
                return;
            };
            let is_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = Io::Tls(stream);
            if is_h2 {
                Box::pin(h2::serve(worker, io, BytesMut::new(), info)).await;
            } else {
                h1::serve(worker, Wire::new(io), Origin::Client(info)).await;
            }
        }
        ListenerProtocol::Tcp(lb) => {
            let to = worker.snapshot().table.layer4(lb).cloned();
            let wire = Wire::begun(Io::Tcp(front.tcp), front.early);
            match to {
                Some(to) => Box::pin(layer4::serve(&worker, wire, &info, to, "tcp")).await,
                // Its load balancer is gone, and soon the listener.
                None => wire.abort(),
            }
        }
        // No connections come where datagrams do.
        ListenerProtocol::Udp(_) | ListenerProtocol::Quic => {}
    }
}

/// Alerts (RFC 8446 §6).
const DECODE_ERROR: u8 = 50;
const UNRECOGNIZED_NAME: u8 = 112;

/// A client behind TLS that ends here, whose handshake was good.
type Unsealed = Option<(Box<TlsStream<Gathered>>, ConnInfo)>;

/// TLS, which somebody else may end: then this serves the connection.
async fn unsealed(worker: &Rc<Worker>, mut front: Front, mut info: ConnInfo) -> Unsealed {
    if worker.snapshot().table.passes(info.port) {
        (front, info) = Box::pin(by_name(worker, front, info)).await?;
    }
    secure(worker, front, info).await
}

/// TLS on a port where the server name says who ends it; the connection, if it is us.
async fn by_name(
    worker: &Rc<Worker>,
    mut front: Front,
    mut info: ConnInfo,
) -> Option<(Front, ConnInfo)> {
    let patience = worker.snapshot().limits.header_timeout;
    let hello = match front.hello(patience).await {
        Ok(hello) => hello,
        Err(error) => {
            worker.metrics.handshakes_failed.inc();
            tracing::debug!(peer = %info.peer, error = %base::Chain(&error), "closed");
            // Who does not speak TLS does not understand an alert either.
            if matches!(
                error,
                FrontError::Hello(HelloError::Malformed(_) | HelloError::TooLong)
            ) {
                front.alert(DECODE_ERROR, patience).await;
            }
            return None;
        }
    };
    let snapshot = worker.snapshot();
    let name = hello.server_name.as_deref();
    let passed = name.and_then(|name| snapshot.table.passed(info.port, name));
    if let Some(to) = passed.cloned() {
        drop(snapshot);
        info.sni = hello.server_name;
        let wire = Wire::begun(Io::Tcp(front.tcp), front.early);
        layer4::serve(worker, wire, &info, to, "tls").await;
        return None;
    }
    let known = name.is_some_and(|name| snapshot.certificates.find(name).is_some());
    drop(snapshot);
    if !known {
        worker.metrics.names_unknown.inc();
        front.alert(UNRECOGNIZED_NAME, patience).await;
        return None;
    }
    Some((front, info))
}

/// TLS that ends here.
async fn secure(worker: &Worker, front: Front, mut info: ConnInfo) -> Unsealed {
    let patience = worker.snapshot().limits.handshake_timeout;
    let patience = worker.bear(patience, info.seat.as_ref());
    let shaken = timeout(patience, clients::handshake(worker, front, info.port)).await;
    let refusals = &worker.metrics.certificates_refused;
    let (stream, asking) = match shaken {
        Ok(Ok(done)) => done,
        failed => {
            worker.metrics.handshakes_failed.inc();
            if let Ok(Err(error)) = failed {
                refusals.failed(&error);
            }
            return None;
        }
    };
    let (_, session) = stream.get_ref();
    if let Some(asking) = &asking {
        match clients::shown(asking, session.peer_certificates().unwrap_or(&[]), refusals) {
            Ok(shown) => info.shown = Some(shown),
            Err(cause) => {
                worker.metrics.handshakes_failed.inc();
                refusals.count(cause);
                return None;
            }
        }
    }
    info.sni = session
        .server_name()
        .and_then(l7::host_of)
        .map(|name| name.into_owned());
    worker.named(&info);
    Some((Box::new(stream), info))
}
