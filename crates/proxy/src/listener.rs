//! Listening: one `SO_REUSEPORT` socket a worker and address.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::{self, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    rc::{Rc, Weak},
    time::Duration,
};

use bytes::BytesMut;
use runtime::{
    Task,
    net::{Share, tcp_listener},
};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use crate::{
    downstream::{ConnInfo, Origin, h1, h2},
    io::Io,
    worker::Worker,
};

/// When the system has no file descriptor left, waiting helps more than asking again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// An address to serve on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Address and port to bind; this alone identifies a listener. Port 0 takes any free port.
    pub bind: SocketAddr,
    /// The logical port it offers.
    pub port: u16,
    /// Is TLS terminated here?
    pub tls: bool,
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
    open: BTreeMap<SocketAddr, Open>,
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
    sockets: Vec<(Weak<TcpListener>, Task)>,
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
        let all = self.open.iter().flat_map(|(bind, open)| {
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
        let keep: BTreeSet<SocketAddr> = wanted.iter().map(|(spec, _)| spec.bind).collect();
        self.open.retain(|bind, open| {
            let kept = keep.contains(bind);
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
        if let Some(open) = self.open.get(&spec.bind) {
            open.spec.set(spec);
            return Ok(open.local);
        }
        let failed = |error: io::Error| ListenerFailed {
            bind: spec.bind,
            error: error.to_string(),
        };
        let inherited = self.inherited.remove(&spec.bind).unwrap_or_default();
        let mut listeners = inherited
            .into_iter()
            .map(TcpListener::from_std)
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        if listeners.is_empty() {
            listeners.push(tcp_listener(address, Share::ReusePort).map_err(failed)?);
        }
        let local = match listeners.first() {
            Some(listener) => listener.local_addr().map_err(failed)?,
            None => address,
        };
        let shared = Rc::new(Cell::new(spec));
        let sockets = listeners.into_iter().map(|listener| {
            let listener = Rc::new(listener);
            let socket = Rc::downgrade(&listener);
            let run = accept(Rc::clone(worker), listener, Rc::clone(&shared));
            (socket, worker.tasks.spawn_local("listener", run))
        });
        let open = Open {
            sockets: sockets.collect(),
            spec: shared,
            local,
        };
        self.open.insert(spec.bind, open);
        Ok(local)
    }
}

async fn accept(worker: Rc<Worker>, listener: Rc<TcpListener>, spec: Rc<Cell<ListenerSpec>>) {
    let drain = worker.drain();
    loop {
        // On drain, who is connected already is still taken: closing would reset them.
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = drain.draining() => return,
        };
        match accepted {
            Ok((stream, peer)) => seat(&worker, stream, peer, spec.get()),
            Err(error) => {
                if worker.may_say() {
                    tracing::warn!(%error, "a client connection cannot be taken");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn seat(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, spec: ListenerSpec) {
    let Some(seat) = worker.seat() else {
        worker.metrics.connections_refused.inc();
        return;
    };
    let mine = Rc::clone(worker);
    worker.tasks.spawn_local("connection", async move {
        serve(mine, stream, peer, spec).await;
        drop(seat);
    });
}

async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr, spec: ListenerSpec) {
    // Without it small responses wait for acknowledgements; with a closed socket nothing matters.
    let _ = stream.set_nodelay(true);
    let mut info = ConnInfo {
        peer,
        port: spec.port,
        tls: spec.tls,
        sni: None,
    };
    if !spec.tls {
        h1::serve(worker, Io::Tcp(stream), Origin::Client(info)).await;
        return;
    }
    let patience = worker.snapshot().limits.handshake_timeout;
    let Ok(Ok(stream)) = timeout(patience, worker.acceptor.accept(stream)).await else {
        worker.metrics.handshakes_failed.inc();
        return;
    };
    let (_, session) = stream.get_ref();
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    info.sni = session
        .server_name()
        .and_then(l7::host_of)
        .map(|name| name.into_owned());
    let io = Io::Tls(Box::new(stream));
    if is_h2 {
        h2::serve(worker, io, BytesMut::new(), info).await;
    } else {
        h1::serve(worker, io, Origin::Client(info)).await;
    }
}
