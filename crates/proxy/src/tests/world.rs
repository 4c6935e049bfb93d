//! A small world: one PoP, one gateway, endpoints written by hand, streams in memory.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use balance::{BalancePolicy, Cell, Endpoint, EndpointKey, EndpointSet, Health, empty_cell};
use base::{LbId, NetworkId, ServiceId, SiteId, SiteName, TenantId};
use http::StatusCode;
use l7::{
    Action, Backend, Cluster, Egress, EgressService, Limits, ListenerProtocol, Offer, Offered,
    Route, Table, VirtualHost, policy::Guard,
};
use runtime::metrics::Metrics;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::fabric::Alone;
use crate::{
    Accepting, AccessLog, Ask, BoxDuplex, Certificates, Config, Dial, DialError, Dialing, Incoming,
    ListenerSpec, ProxyEvent, Snapshot, Spans, Workers,
};

pub(super) const POP: SiteId = SiteId(1);
pub(super) const GATEWAY: SiteId = SiteId(2);
pub(super) const TENANT: TenantId = TenantId(7);
pub(super) const SERVICE: ServiceId = ServiceId(9);
/// No wait in these tests is longer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

pub(super) fn key(site: SiteId, address: SocketAddr) -> EndpointKey {
    EndpointKey {
        site,
        network: NetworkId(0),
        address,
    }
}

/// Streams to the gateway's workers, by pipes in memory.
pub(super) struct Bridge {
    gateway: OnceLock<Arc<Workers>>,
    /// Who the ingress says it is.
    peer: SiteName,
    pub(super) opened: AtomicUsize,
}

struct Crossing {
    peer: SiteName,
    ask: Ask,
    far: tokio::io::DuplexStream,
    answer: oneshot::Sender<Result<(), (StatusCode, String)>>,
}

impl Dial for Bridge {
    fn open(&self, _: &SiteName, ask: Ask) -> Dialing {
        let Some(gateway) = self.gateway.get() else {
            return Box::pin(std::future::ready(Err(DialError::NoLink)));
        };
        self.opened.fetch_add(1, Relaxed);
        let (near, far) = tokio::io::duplex(64 << 10);
        let (answer, answered) = oneshot::channel();
        gateway.serve_stream(Box::new(Crossing {
            peer: self.peer.clone(),
            ask,
            far,
            answer,
        }));
        Box::pin(async move {
            match answered.await {
                Ok(Ok(())) => Ok(Box::new(near) as BoxDuplex),
                Ok(Err((status, reason))) => Err(DialError::Refused { status, reason }),
                Err(_) => Err(DialError::NoLink),
            }
        })
    }
}

impl Incoming for Crossing {
    fn peer(&self) -> &SiteName {
        &self.peer
    }

    fn ask(&self) -> Option<Ask> {
        Some(self.ask.clone())
    }

    fn accept(self: Box<Self>) -> Accepting {
        let _ = self.answer.send(Ok(()));
        Box::pin(std::future::ready(Ok(Box::new(self.far) as BoxDuplex)))
    }

    fn refuse(self: Box<Self>, status: StatusCode, code: &str) {
        let _ = self.answer.send(Err((status, code.to_owned())));
    }
}

/// What an endpoint does with each connection's requests.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// 200 with its name, and the request head and body it saw behind it.
    Echo,
    /// Read the request and say nothing.
    Hang,
    /// Read the request and close.
    Drop,
    /// Write these bytes after each request, then close if told so.
    Raw(&'static str, bool),
}

/// One endpoint on a TCP port of its own.
pub(super) struct Spot {
    pub(super) address: SocketAddr,
    pub(super) requests: Arc<AtomicUsize>,
    /// One message for each request that has arrived.
    pub(super) arrived: mpsc::Receiver<()>,
    task: runtime::Tasks,
}

impl Spot {
    pub(super) async fn new(name: &'static str, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let requests = Arc::new(AtomicUsize::new(0));
        let (arrive, arrived) = mpsc::channel(64);
        let task = runtime::Tasks::new("spot");
        let (tasks, seen) = (task.clone(), Arc::clone(&requests));
        task.spawn("accept", async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (manner, seen, arrive) = (manner.clone(), Arc::clone(&seen), arrive.clone());
                tasks.spawn("connection", async move {
                    attend(name, stream, manner, seen, arrive).await;
                });
            }
        });
        Spot {
            address,
            requests,
            arrived,
            task,
        }
    }

    pub(super) fn served(&self) -> usize {
        self.requests.load(Relaxed)
    }

    /// Close everything, as if the process were killed.
    pub(super) async fn kill(&self) {
        self.task.drain(Duration::ZERO).await;
    }

    /// A port where nobody listens.
    pub(super) async fn nobody() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("an address")
    }
}

async fn attend(
    name: &str,
    mut stream: TcpStream,
    manner: Manner,
    seen: Arc<AtomicUsize>,
    arrive: mpsc::Sender<()>,
) {
    let mut buf = Vec::new();
    while let Some(request) = message(&mut stream, &mut buf).await {
        seen.fetch_add(1, Relaxed);
        let _ = arrive.try_send(());
        let close = match &manner {
            Manner::Echo => {
                let body = format!("{name}\n{request}");
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
                let body = if request.starts_with("HEAD ") {
                    ""
                } else {
                    &body
                };
                let whole = format!("{head}{body}");
                stream.write_all(whole.as_bytes()).await.is_err()
            }
            Manner::Hang => {
                std::future::pending::<()>().await;
                true
            }
            Manner::Drop => true,
            Manner::Raw(bytes, close) => {
                stream.write_all(bytes.as_bytes()).await.is_err() || *close
            }
        };
        if close {
            return;
        }
    }
}

/// Read one message with its head and (length or chunked) body, both as text.
pub(super) async fn message<S: AsyncReadExt + Unpin>(
    stream: &mut S,
    buf: &mut Vec<u8>,
) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buf).into_owned();
        if let Some(end) = text.find("\r\n\r\n").map(|at| at + 4) {
            let head = text[..end].to_lowercase();
            let length = head
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok());
            let whole = if head.contains("transfer-encoding: chunked") {
                text[end..].find("0\r\n\r\n").map(|at| end + at + 5)
            } else {
                Some(end + length.unwrap_or(0)).filter(|whole| buf.len() >= *whole)
            };
            if let Some(whole) = whole {
                let message = String::from_utf8_lossy(&buf[..whole]).into_owned();
                buf.drain(..whole);
                return Some(message);
            }
        }
        let count = stream.read_buf(buf).await.ok()?;
        if count == 0 {
            return (!buf.is_empty()).then(|| String::from_utf8_lossy(buf).into_owned());
        }
    }
}

/// The world.
pub(super) struct World {
    pub(super) pop: Arc<Workers>,
    pub(super) gateway: Arc<Workers>,
    /// What the gateway noticed, and the PoP.
    pub(super) events: mpsc::Receiver<ProxyEvent>,
    pub(super) pop_events: mpsc::Receiver<ProxyEvent>,
    pub(super) ingress_cell: Cell,
    pub(super) egress_cell: Cell,
    pub(super) http: SocketAddr,
    pub(super) https: SocketAddr,
    pub(super) bridge: Arc<Bridge>,
    route: Mutex<Route>,
    pub(super) log: tempfile::TempDir,
    /// Those of the PoP.
    pub(super) metrics: Metrics,
    pub(super) root: rustls_pki_types::CertificateDer<'static>,
}

/// `cart.acme.example` is served by service `cart.shop.acme`, whose endpoints the tests set.
impl World {
    pub(super) async fn new() -> Self {
        World::as_peer("par.fabric", Limits::default()).await
    }

    pub(super) async fn as_peer(peer: &str, limits: Limits) -> Self {
        World::told(peer, limits, [None, None]).await
    }

    /// The PoP and the gateway send spans there.
    pub(super) async fn told(peer: &str, limits: Limits, spans: [Option<Spans>; 2]) -> Self {
        let [pop_spans, gateway_spans] = spans;
        let (ingress_cell, egress_cell) = (empty_cell(), empty_cell());
        let bridge = Arc::new(Bridge {
            gateway: OnceLock::new(),
            peer: site(peer),
            opened: AtomicUsize::new(0),
        });
        let log = tempfile::tempdir().expect("a folder");
        let (certificates, root) = certificates();
        let route = default_route(cluster(&ingress_cell, l7::Protocol::Http1));
        let pop = Snapshot {
            site: POP,
            relays: true,
            table: Arc::new(table(limits, route.clone(), Guard::default())),
            certificates,
            egress: Arc::default(),
            senders: Arc::default(),
            clients: Arc::default(),
            limits,
        };
        let gateway = Snapshot {
            egress: Arc::new(egress(&egress_cell, l7::Protocol::Http1)),
            limits,
            ..Snapshot::empty(GATEWAY)
        };
        let target = crate::AccessTarget::File(log.path().join("access.log"));
        let access = AccessLog::open(&target, <_>::default()).expect("a log");
        let metrics = Metrics::default();
        let (pop, pop_events) = start(
            pop,
            bridge.clone(),
            (Some(access), pop_spans),
            metrics.clone(),
        );
        let (gateway, events) = start(
            gateway,
            Arc::new(Alone::new().await),
            (None, gateway_spans),
            Metrics::default(),
        );
        let _ = bridge.gateway.set(Arc::clone(&gateway));
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let other: SocketAddr = "127.0.0.2:0".parse().expect("an address");
        let bound = pop
            .set_listeners(&[
                ListenerSpec {
                    bind: any,
                    port: 80,
                    protocol: ListenerProtocol::Http,
                },
                ListenerSpec {
                    bind: other,
                    port: 443,
                    protocol: ListenerProtocol::Tls,
                },
            ])
            .await;
        let bound: Vec<SocketAddr> = bound.into_iter().map(|b| b.expect("bound")).collect();
        World {
            pop,
            gateway,
            events,
            pop_events,
            ingress_cell,
            egress_cell,
            http: bound[0],
            https: bound[1],
            bridge,
            route: Mutex::new(route),
            log,
            metrics,
            root,
        }
    }

    /// Streams to the PoP's workers from `peer`.
    pub(super) fn to_pop(&self, peer: &str) -> Bridge {
        let bridge = Bridge {
            gateway: OnceLock::new(),
            peer: site(peer),
            opened: AtomicUsize::new(0),
        };
        let _ = bridge.gateway.set(Arc::clone(&self.pop));
        bridge
    }

    /// Serve HTTP/3 beside everything else: where.
    pub(super) async fn quic(&self) -> SocketAddr {
        let spec = |bind: &str, port, protocol| ListenerSpec {
            bind: bind.parse().expect("an address"),
            port,
            protocol,
        };
        let listeners = [
            spec("127.0.0.1:0", 80, ListenerProtocol::Http),
            spec("127.0.0.2:0", 443, ListenerProtocol::Tls),
            spec("127.0.0.2:0", 443, ListenerProtocol::Quic),
        ];
        let bound = self.pop.set_listeners(&listeners).await;
        let quic = bound.into_iter().next_back().expect("three");
        quic.expect("bound")
    }

    /// These endpoints stand in the gateway's site, all healthy there; the ingress sees them as
    /// told (in order of preference: each a tier farther than the one before).
    pub(super) fn endpoints(&self, endpoints: &[(SocketAddr, Health)]) {
        let made = |far: bool| -> Vec<Endpoint> {
            (1u64..)
                .zip(endpoints)
                .map(|(nth, (address, health))| Endpoint {
                    key: key(GATEWAY, *address),
                    site: site("aws.acme"),
                    health: if far { *health } else { Health::Healthy },
                    weight: 1,
                    distance: far.then(|| Duration::from_millis(100 * nth * nth)),
                    reachable: true,
                    ejected: false,
                    share: balance::WHOLE,
                    since: None,
                    stats: Arc::default(),
                })
                .collect()
        };
        let policy = BalancePolicy::default();
        self.ingress_cell.store(Arc::new(EndpointSet::build(
            &policy,
            runtime::now(),
            made(true),
        )));
        self.egress_cell.store(Arc::new(EndpointSet::build(
            &policy,
            runtime::now(),
            made(false),
        )));
    }

    /// The PoP's only route, changed.
    pub(super) fn route(&self, change: impl FnOnce(&mut Route)) {
        let mut changed = default_route(cluster(&self.ingress_cell, l7::Protocol::Http1));
        change(&mut changed);
        *self.route.lock().expect("no panic before") = changed;
        self.guard_front(Guard::default());
    }

    /// Policies: the load balancer's, the service's at the ingress, and those at the egress.
    pub(super) fn guard(&self, lb: Guard, service: Guard, egress: Guard) {
        let cluster = guarded(&self.ingress_cell, service);
        let backends = vec![Backend { cluster, weight: 1 }];
        self.route.lock().expect("no panic before").action = Action::Forward(backends);
        self.guard_front(lb);
        self.guard_egress(egress);
    }

    /// The load balancer's policies.
    pub(super) fn guard_front(&self, guard: Guard) {
        let now = self.pop.snapshot();
        let route = self.route.lock().expect("no panic before").clone();
        let table = table(now.limits, route, guard);
        self.pop.store(Arc::new(Snapshot {
            table: Arc::new(table),
            ..Snapshot::clone(&now)
        }));
    }

    /// The service's policies at the egress.
    pub(super) fn guard_egress(&self, guard: Guard) {
        let now = self.gateway.snapshot();
        let service = EgressService {
            cluster: guarded(&self.egress_cell, guard),
            offers: BTreeMap::from([("shop/web".to_owned(), offer())]),
        };
        self.gateway.store(Arc::new(Snapshot {
            egress: Arc::new(Egress::build(GATEWAY, vec![service])),
            ..Snapshot::clone(&now)
        }));
    }

    /// The service of that route, with policies of its own.
    pub(super) fn other_cluster(&self, guard: Guard) -> Arc<Cluster> {
        guarded(&self.ingress_cell, guard)
    }

    /// The service's endpoints speak HTTP/2.
    pub(super) fn speak_http2(&self) {
        let now = self.gateway.snapshot();
        self.gateway.store(Arc::new(Snapshot {
            egress: Arc::new(egress(&self.egress_cell, l7::Protocol::Http2)),
            ..Snapshot::clone(&now)
        }));
    }

    /// The PoP's service, changed.
    pub(super) fn service(&self, change: impl FnOnce(&mut Cluster)) {
        let mut changed = made(&self.ingress_cell, l7::Protocol::Http1);
        change(&mut changed);
        self.route(|route| {
            route.action = Action::Forward(vec![Backend {
                cluster: Arc::new(changed),
                weight: 1,
            }]);
        });
    }

    /// The service of that route.
    pub(super) fn cluster(&self) -> Arc<Cluster> {
        cluster(&self.ingress_cell, l7::Protocol::Http1)
    }

    /// Send raw bytes to the HTTP port, read one response.
    pub(super) async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.http).await.expect("connected");
        stream.write_all(request.as_bytes()).await.expect("written");
        timeout(PATIENCE, message(&mut stream, &mut Vec::new()))
            .await
            .expect("in time")
            .unwrap_or_default()
    }

    /// A request of this method to the cart.
    pub(super) async fn ask(&self, method: &str) -> String {
        self.raw(&format!(
            "{method} / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n"
        ))
        .await
    }

    /// The next event.
    pub(super) async fn event(&mut self) -> ProxyEvent {
        timeout(PATIENCE, self.events.recv())
            .await
            .expect("in time")
            .expect("running")
    }
}

fn start(
    snapshot: Snapshot,
    dial: Arc<dyn Dial>,
    (access_log, spans): (Option<AccessLog>, Option<Spans>),
    metrics: Metrics,
) -> (Arc<Workers>, mpsc::Receiver<ProxyEvent>) {
    let (workers, events) = Workers::start(Config {
        workers: 1,
        snapshot: Arc::new(snapshot),
        dial,
        access_log,
        spans,
        metrics,
        seed: 1,
        inherited: Vec::new(),
    })
    .expect("started");
    (Arc::new(workers), events)
}

pub(super) fn cluster(cell: &Cell, protocol: l7::Protocol) -> Arc<Cluster> {
    Arc::new(made(cell, protocol))
}

pub(super) fn made(cell: &Cell, protocol: l7::Protocol) -> Cluster {
    Cluster {
        service: "cart.shop.acme".parse().expect("a service"),
        tenant: TENANT,
        id: SERVICE,
        port: 80,
        protocol,
        proxy: None,
        hash_on: Vec::new(),
        outlier: None,
        circuit: <_>::default(),
        retries: <_>::default(),
        guard: <_>::default(),
        cell: Arc::clone(cell),
    }
}

fn guarded(cell: &Cell, guard: Guard) -> Arc<Cluster> {
    let mut cluster = cluster(cell, l7::Protocol::Http1);
    Arc::get_mut(&mut cluster)
        .expect("nobody else has it")
        .guard = guard;
    cluster
}

fn default_route(cluster: Arc<Cluster>) -> Route {
    Route {
        name: "all".into(),
        action: Action::Forward(vec![Backend { cluster, weight: 1 }]),
        ..Route::default()
    }
}

/// The PoP's table, with nothing changed.
pub(super) fn plain(cell: &Cell, limits: Limits) -> Table {
    let route = default_route(cluster(cell, l7::Protocol::Http1));
    table(limits, route, Guard::default())
}

fn table(limits: Limits, route: Route, guard: Guard) -> Table {
    let mut host = VirtualHost::build(
        LbId(3),
        "shop/web".into(),
        TENANT,
        "acme".into(),
        limits,
        vec![route],
    );
    host.guard = guard;
    host.http3 = true;
    let host = Arc::new(host);
    let offer = |port, tls| Offered {
        port,
        tls,
        hosts: vec!["cart.acme.example".into()],
        host: Arc::clone(&host),
    };
    Table::build(vec![offer(80, false), offer(443, true)]).expect("no conflict")
}

fn offer() -> Arc<Offer> {
    Arc::new(Offer {
        all_pops: true,
        ..Offer::default()
    })
}

pub(super) fn egress(cell: &Cell, protocol: l7::Protocol) -> Egress {
    egress_of(cluster(cell, protocol))
}

pub(super) fn egress_of(cluster: Arc<Cluster>) -> Egress {
    let service = EgressService {
        cluster,
        offers: BTreeMap::from([("shop/web".to_owned(), offer())]),
    };
    Egress::build(GATEWAY, vec![service])
}

fn certificates() -> (Arc<Certificates>, rustls_pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["cart.acme.example".to_owned()])
        .expect("a certificate");
    let der = made.cert.der().clone();
    let credentials = runtime::tls::Credentials {
        chain: vec![der.clone()],
        key: rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()),
    };
    let mut certificates = Certificates::default();
    let key = runtime::tls::certified_key(&credentials).expect("a pair");
    certificates.insert("cart.acme.example", key);
    (Arc::new(certificates), der)
}
