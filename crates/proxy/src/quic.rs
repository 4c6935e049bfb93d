//! QUIC (RFC 9000) toward the clients: endpoints on sockets that the workers share.
//!
//! Each worker has its own endpoint at an address, as it has its own socket for TCP. Their IDs say
//! whose a connection is (`ids`), so that one which moves stays with its worker (`socket`). A
//! client that has not shown that its address is its own costs a handshake's state; when many
//! are under way it is asked to show it first (RFC 9000 §8.1.2). Early data is never taken.

mod ids;
mod session;
mod socket;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt,
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use l7::{Expected, Limits};
use quinn::{
    AsyncUdpSocket, Connecting, Connection, ConnectionError, Endpoint, EndpointConfig, IdleTimeout,
    Incoming, TransportConfig, VarInt, crypto::rustls::QuicServerConfig,
};
use runtime::{Task, Tasks, quic::On};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::CertificateDer;
use tokio::{net::UdpSocket, sync::watch, time::timeout};

use crate::{
    clients::{self, Asking, Cause, Certificate},
    counted::Counted,
    downstream::{ConnInfo, h3},
    http3::Code,
    listener::ListenerSpec,
    seats::Seat,
    snapshot::Snapshot,
    turns::{Line, NOBODY},
    worker::Worker,
};
use ids::{Generator, Ids};
use session::{Sessions, Told};
use socket::{Peers, Socket};

/// What is spoken (RFC 9114 §3.1).
pub(crate) const ALPN: &[&[u8]] = &[b"h3"];
/// Handshakes of a worker at a time without more being asked of new clients.
const UNPROVEN: usize = 64;
/// Clients that wait to be looked at, and octets that wait with each and with all.
const WAITING: usize = 256;
const WAITING_OCTETS: u64 = 16 << 10;
const ALL_WAITING_OCTETS: u64 = 1 << 20;
/// A client's control stream, its two of QPACK, and what it makes up (RFC 9114 §6.2.3).
const UNI_STREAMS: u32 = 8;
/// Receive windows: one stream, and all streams of a connection before its first request.
const STREAM_WINDOW: u32 = 256 << 10;
const FIRST_WINDOW: u32 = 64 << 10;
/// How much longer than a connection without requests one without datagrams lasts.
const SILENCE: Duration = Duration::from_secs(5);
/// Octets of a connection that the client has not acknowledged.
const SEND_WINDOW: u64 = 1 << 20;

/// What the workers of a process have in common.
#[derive(Clone)]
pub(crate) struct Quic {
    store: Arc<ArcSwap<Snapshot>>,
    /// For hosts that ask for no certificates.
    tls: Arc<QuicServerConfig>,
    ids: Ids,
    peers: Arc<Peers>,
}

impl Quic {
    /// # Errors
    /// See [`runtime::tls::TlsError`].
    pub(crate) fn new(store: Arc<ArcSwap<Snapshot>>) -> Result<Self, runtime::tls::TlsError> {
        let tls = runtime::tls::quic_server(Arc::new(Resolver(Arc::clone(&store))), ALPN)?;
        let tls = QuicServerConfig::try_from(tls).map_err(|_| runtime::tls::TlsError::Quic)?;
        Ok(Quic {
            store,
            tls: Arc::new(tls),
            ids: Ids::default(),
            peers: Arc::default(),
        })
    }

    /// For a logical port.
    fn server(&self, limits: &Limits, port: u16) -> quinn::ServerConfig {
        let mut transport = TransportConfig::default();
        // Connections on which nothing runs are told before they end.
        let idle = IdleTimeout::try_from(limits.idle_timeout + SILENCE).ok();
        transport
            .max_concurrent_bidi_streams(VarInt::from_u32(limits.concurrent_streams))
            .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
            .max_idle_timeout(idle)
            .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
            .receive_window(VarInt::from_u32(FIRST_WINDOW))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(None);
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(Sessions {
            store: Arc::clone(&self.store),
            port,
            plain: Arc::clone(&self.tls),
        }));
        server
            .max_incoming(WAITING)
            .incoming_buffer_size(WAITING_OCTETS)
            .incoming_buffer_size_total(ALL_WAITING_OCTETS)
            .transport_config(Arc::new(transport));
        server
    }
}

/// Looks certificates up in the snapshot of the moment, of hosts that are offered over HTTP/3.
struct Resolver(Arc<ArcSwap<Snapshot>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = l7::host_of(hello.server_name()?)?;
        let snapshot = self.0.load();
        let offered = snapshot.table.offers_http3(&name);
        let key = snapshot.certificates.find(&name).filter(|_| offered);
        key.cloned()
    }
}

/// A worker's part of an address.
struct Listening {
    socket: Arc<Socket>,
    /// Connections, and what hears their clients once the address is others'.
    live: RefCell<BTreeMap<usize, (Connection, Option<Task>)>>,
    gone: watch::Sender<bool>,
    tasks: Tasks,
}

impl Listening {
    /// The address is others' from now on: connections stay as long as they have something to do.
    fn leave(&self) {
        // A runtime that is torn down has nobody left to hear.
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        for (connection, kept) in self.live.borrow_mut().values_mut() {
            let client = connection.remote_address();
            match self.socket.keep(&self.tasks, client, connection.local_ip()) {
                Ok(task) => *kept = Some(task),
                Err(error) => tracing::debug!(%error, "a client of HTTP/3 may not be heard"),
            }
        }
        self.socket.retire();
        self.gone.send_replace(true);
    }
}

/// One of its connections; dropping it ends what is kept for it.
struct Live(Rc<Listening>, usize);

impl Live {
    fn enter(listening: &Rc<Listening>, connection: &Connection) -> Self {
        let id = connection.stable_id();
        let entry = (connection.clone(), None);
        listening.live.borrow_mut().insert(id, entry);
        Live(Rc::clone(listening), id)
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let gone = self.0.live.borrow_mut().remove(&self.1);
        if let Some((_, Some(task))) = gone {
            task.abort();
        }
    }
}

/// The end of a listener, however it comes.
struct Leave(Rc<Listening>);

impl Drop for Leave {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Take the connections that come to a socket, until the worker drains or this is dropped.
///
/// # Errors
/// The system does not let the socket be prepared.
pub(crate) fn listen(
    worker: Rc<Worker>,
    io: UdpSocket,
    spec: Rc<Cell<ListenerSpec>>,
) -> io::Result<impl Future<Output = ()> + 'static> {
    let quic = &worker.quic;
    let dropped = worker.metrics.datagrams_dropped.clone();
    let (ids, peers) = (quic.ids.clone(), Arc::clone(&quic.peers));
    let socket = Arc::new(Socket::new(io, worker.index, ids, peers, dropped)?);
    let (ids, owner) = (quic.ids.clone(), worker.index);
    let mut config = EndpointConfig::default();
    config.cid_generator(move || {
        let ids = ids.clone();
        Box::new(Generator { ids, owner })
    });
    let mut port = spec.get().port;
    let server = quic.server(&worker.snapshot().limits, port);
    let shared: Arc<dyn AsyncUdpSocket> = Arc::clone(&socket) as _;
    let on = Arc::new(On::new(worker.tasks.clone()));
    let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), shared, on)?;
    let listening = Rc::new(Listening {
        socket,
        live: RefCell::default(),
        gone: watch::Sender::new(false),
        tasks: worker.tasks.clone(),
    });
    Ok(async move {
        let leave = Leave(listening);
        let drain = worker.drain();
        let mut draining = std::pin::pin!(drain.draining());
        loop {
            let incoming = tokio::select! {
                biased;
                () = &mut draining => break,
                incoming = endpoint.accept() => incoming,
            };
            match incoming {
                Some(incoming) => {
                    let spec = spec.get();
                    if spec.port != port {
                        port = spec.port;
                        let server = worker.quic.server(&worker.snapshot().limits, port);
                        endpoint.set_server_config(Some(server));
                    }
                    admit(&worker, &leave.0, incoming, spec);
                }
                None => break,
            }
            poll_fn(|cx| worker.turns.poll_short(cx)).await;
        }
        endpoint.set_server_config(None);
    })
}

/// A client that comes.
fn admit(worker: &Rc<Worker>, listening: &Rc<Listening>, incoming: Incoming, spec: ListenerSpec) {
    let peer = incoming.remote_address();
    // Whoever must say by the PROXY protocol for whom he comes cannot say so here.
    let expected = worker.snapshot().senders.expect(peer.ip());
    if expected == Some(Expected::Header) {
        worker.metrics.headers_refused.inc();
        return incoming.refuse();
    }
    let proven = incoming.remote_address_validated() || !incoming.may_retry();
    if !proven && worker.shaking.get() >= UNPROVEN {
        // It may, as was asked.
        let _ = incoming.retry();
        return;
    }
    let Some(seat) = worker.seat() else {
        worker.metrics.connections_refused.inc();
        return incoming.refuse();
    };
    let Ok(connecting) = incoming.accept() else {
        worker.metrics.handshakes_failed.inc();
        return;
    };
    let run = serve(
        Rc::clone(worker),
        Rc::clone(listening),
        connecting,
        spec,
        seat,
    );
    worker.spawn("quic-connection", (NOBODY, Line::of(peer.ip())), run);
}

async fn serve(
    worker: Rc<Worker>,
    listening: Rc<Listening>,
    connecting: Connecting,
    spec: ListenerSpec,
    seat: Rc<Seat>,
) {
    let mut gone = listening.gone.subscribe();
    let refusals = &worker.metrics.certificates_refused;
    let patience = worker.snapshot().limits.handshake_timeout;
    let patience = worker.bear(patience, Some(&seat));
    let shaking = Counted::one(&worker.shaking);
    let shaken = tokio::select! {
        shaken = timeout(patience, connecting) => shaken,
        // Whoever has the address now knows nothing of it: the client is to begin again.
        _ = gone.wait_for(|gone| *gone) => return,
    };
    drop(shaking);
    let connection = match shaken {
        Ok(Ok(connection)) => connection,
        failed => {
            worker.metrics.handshakes_failed.inc();
            if let Ok(Err(ConnectionError::TransportError(error))) = failed {
                refusals.alerted(error.code.into());
            }
            return;
        }
    };
    let told = told(&connection);
    let shown = match told
        .asking
        .as_ref()
        .map(|asking| shown(asking, &connection, refusals))
    {
        None => None,
        Some(Ok(shown)) => Some(shown),
        Some(Err(cause)) => {
            worker.metrics.handshakes_failed.inc();
            refusals.count(cause);
            return connection.close(h3::error(Code::NoError), b"");
        }
    };
    let live = Live::enter(&listening, &connection);
    let bound = listening.socket.local_addr();
    let local = bound.unwrap_or(spec.bind);
    let info = ConnInfo {
        peer: connection.remote_address(),
        local: SocketAddr::new(connection.local_ip().unwrap_or(local.ip()), local.port()),
        port: spec.port,
        tls: true,
        connect: None,
        sni: told
            .name
            .and_then(|name| Some(l7::host_of(&name)?.into_owned())),
        seat: Some(seat),
        shown,
    };
    worker.named(&info);
    h3::serve(worker, connection, info, gone).await;
    drop(live);
}

/// What its handshake has told.
fn told(connection: &Connection) -> Told {
    let data = connection.handshake_data();
    let told = data.and_then(|data| data.downcast::<Told>().ok());
    told.map_or_else(Told::default, |told| *told)
}

/// What its client has shown who was asked.
///
/// # Errors
/// It may not be served.
fn shown(
    asking: &Asking,
    connection: &Connection,
    refusals: &clients::Refusals,
) -> Result<Rc<Certificate>, Cause> {
    let chain = connection.peer_identity();
    let chain = chain.and_then(|chain| chain.downcast::<Vec<CertificateDer<'static>>>().ok());
    let chain = chain.as_ref().map_or(&[][..], |chain| &chain[..]);
    clients::shown(asking, chain, refusals)
}
