//! The workers: one thread a core, each with its own listeners, pool and waiting tries.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
    ops::Deref,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use balance::EndpointKey;
use base::{LbId, Name, Rng, ServiceId, SiteName, TenantId};
use http::StatusCode;
use l7::policy::Buckets;
use runtime::{Drain, Task, Tasks, Thread};
use tokio::sync::{mpsc, oneshot};
use tunnel::{Trunk, Trunks};

use crate::{
    access::{AccessLog, Batches, Records, Spans, Told},
    downstream::ConnInfo,
    egress,
    event::{FailureKind, ProxyEvent},
    listener::{Bound, Inherited, ListenerFailed, ListenerSpec, Listeners, Wanted},
    metrics::ProxyMetrics,
    offers::Offers,
    places::Places,
    quic::Quic,
    refusals::Refusals,
    seats::{Seat, Seats},
    snapshot::{Resolver, Snapshot},
    splice::Pipes,
    traffic::{self, Traffic},
    turns::{InTurn, Line, NOBODY, Turns},
    udp::Scratch,
    upstream::{
        Pool, Target, Waiting,
        connect::{Dial, Incoming},
        h2::Shared,
        tunnels::TunnelStream,
    },
};

/// Streams and listener changes waiting for a worker; a stream more is refused with 503.
const COMMANDS: usize = 1024;
/// News of endpoints waiting for a worker; when one is lost every waiting try looks again.
const NEWS: usize = 4096;
/// Events waiting for the node; more are dropped and counted.
const EVENTS: usize = 1024;
/// Descriptors that are not for connections of clients and to endpoints.
const KEPT_DESCRIPTORS: u64 = 256;
/// Why connections are not taken is said again after this.
const SAY_AGAIN: Duration = Duration::from_secs(10);
/// How long a worker goes on sending to other sites when all that it served has ended: at least, and
/// at most if there is time left.
const LAST_WORDS: Duration = Duration::from_secs(1);
const MOST_WORDS: Duration = Duration::from_secs(5);
/// How long a worker in a drain still takes streams of other sites, if it has ten times as long: a
/// process there that drains as well may have links to this one only, and connections of clients on
/// which a last request comes within half a minute.
const LATE_STREAMS: Duration = Duration::from_secs(40);
/// How often the reaper looks for connections idle too long.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// How the proxy is started.
pub struct Config {
    /// Threads, at least 1: as many as cores.
    pub workers: usize,
    /// What to serve by at first.
    pub snapshot: Arc<Snapshot>,
    /// The way to other sites.
    pub dial: Arc<dyn Dial>,
    /// The access log, if any.
    pub access_log: Option<AccessLog>,
    /// Where spans go, if anywhere.
    pub spans: Option<Spans>,
    /// Where counters are declared.
    pub metrics: runtime::metrics::Metrics,
    /// Seed of picks and trace ids.
    pub seed: u64,
    /// Listening sockets of the process before this one ([`Workers::sockets`]), by the address
    /// that they were asked for; those that the first listeners do not want are closed.
    pub inherited: Vec<(SocketAddr, TcpListener)>,
}

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system refused a thread.
    #[error("worker thread {index} cannot be started")]
    Thread {
        /// Its number.
        index: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The TLS front, or that of QUIC, cannot be made.
    #[error("the TLS front cannot be made")]
    Tls(#[source] runtime::tls::TlsError),
}

/// The running workers, from the outside. Methods may be called from any thread.
#[derive(Debug)]
pub struct Workers {
    store: Arc<ArcSwap<Snapshot>>,
    handles: Vec<Handle>,
    next: AtomicUsize,
    refusals: Arc<Refusals>,
    patience_ms: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Handle {
    thread: Thread,
    commands: mpsc::Sender<Command>,
    news: mpsc::Sender<Target>,
    news_lost: Arc<AtomicBool>,
}

enum Command {
    Listeners(Vec<Wanted>, oneshot::Sender<Vec<Bound>>),
    Sockets(oneshot::Sender<Vec<(SocketAddr, OwnedFd)>>),
    Stream(Box<dyn Incoming + Send>),
    Trunk(Trunk),
}

/// What a worker's thread begins with.
struct Start {
    store: Arc<ArcSwap<Snapshot>>,
    dial: Arc<dyn Dial>,
    log: Option<AccessLog>,
    spans: Option<Spans>,
    metrics: ProxyMetrics,
    traffic: traffic::All,
    tls: runtime::tls::Front,
    events: mpsc::Sender<ProxyEvent>,
    refusals: Arc<Refusals>,
    buckets: Arc<Buckets>,
    seed: u64,
    inherited: Inherited,
    quic: Quic,
    index: u16,
    most_seats: usize,
    patience_ms: Arc<AtomicU64>,
    commands: mpsc::Receiver<Command>,
    news: mpsc::Receiver<Target>,
    news_lost: Arc<AtomicBool>,
}

impl Workers {
    /// Start the threads. They serve nothing until listeners are set or streams are given.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(config: Config) -> Result<(Self, mpsc::Receiver<ProxyEvent>), StartError> {
        let store = Arc::new(ArcSwap::new(config.snapshot));
        let resolver = Arc::new(Resolver(Arc::clone(&store)));
        let tls =
            runtime::tls::front_server(resolver, &[b"h2", b"http/1.1"]).map_err(StartError::Tls)?;
        let quic = Quic::new(Arc::clone(&store)).map_err(StartError::Tls)?;
        let (events, received) = mpsc::channel(EVENTS);
        let metrics = ProxyMetrics::new(&config.metrics);
        let traffic = traffic::All::declare(&config.metrics);
        let refusals = Arc::new(Refusals::default());
        let mut seeds = Rng::new(config.seed);
        let patience_ms = Arc::new(AtomicU64::new(0));
        let buckets = Arc::new(Buckets::new(seeds.next_u64()));
        let mut handles = Vec::new();
        let workers = config.workers.max(1);
        let mut inherited: Vec<Inherited> = (0..workers).map(|_| Inherited::new()).collect();
        for (bind, socket) in config.inherited {
            // Who has fewest of this address gets it.
            let fewest = inherited
                .iter_mut()
                .min_by_key(|own| own.get(&bind).map_or(0, Vec::len));
            if let Some(own) = fewest {
                own.entry(bind).or_default().push(socket);
            }
        }
        // Of each connection of a client there may be one to an endpoint.
        let most_seats = runtime::process::descriptors().saturating_sub(KEPT_DESCRIPTORS) / 2;
        let most_seats = usize::try_from(most_seats)
            .unwrap_or(usize::MAX)
            .max(workers);
        for (index, inherited) in inherited.into_iter().enumerate() {
            let (commands, take_commands) = mpsc::channel(COMMANDS);
            let (news, take_news) = mpsc::channel(NEWS);
            let news_lost = Arc::new(AtomicBool::new(false));
            let start = Start {
                store: Arc::clone(&store),
                dial: Arc::clone(&config.dial),
                log: config.access_log.clone(),
                spans: config.spans.clone(),
                metrics: metrics.clone(),
                traffic: traffic.clone(),
                tls: tls.clone(),
                events: events.clone(),
                refusals: Arc::clone(&refusals),
                buckets: Arc::clone(&buckets),
                seed: seeds.next_u64(),
                inherited,
                quic: quic.clone(),
                index: u16::try_from(index).unwrap_or(u16::MAX),
                most_seats: most_seats / workers,
                patience_ms: Arc::clone(&patience_ms),
                commands: take_commands,
                news: take_news,
                news_lost: Arc::clone(&news_lost),
            };
            let thread = runtime::thread(&format!("proxy-{index}"), |tasks| run(tasks, start))
                .map_err(|source| StartError::Thread { index, source })?;
            handles.push(Handle {
                thread,
                commands,
                news,
                news_lost,
            });
        }
        let workers = Workers {
            store,
            handles,
            next: AtomicUsize::new(0),
            refusals,
            patience_ms,
        };
        Ok((workers, received))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.handles.len()
    }

    /// Serve by `snapshot` from the next request on.
    pub fn store(&self, snapshot: Arc<Snapshot>) {
        self.store.store(snapshot);
    }

    /// What is served by now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.store.load_full()
    }

    /// Listen on exactly these addresses. Listeners whose address stays are not touched, and no
    /// connection is, but for those that were handed over or are carried unread for a load balancer
    /// that is not offered on their port any more, by these and the last snapshot stored: they go on
    /// for [`l7::Limits::drain_timeout`] and are then reset, or ended if WebSocket is spoken on them.
    /// Those of them whose request would not be let through any more end at once. The answer has the
    /// bound address or the failure of each, in order.
    pub async fn set_listeners(
        &self,
        specs: &[ListenerSpec],
    ) -> Vec<Result<SocketAddr, ListenerFailed>> {
        let mut wanted: Vec<Wanted> = specs.iter().map(|spec| (*spec, spec.bind)).collect();
        let gone = |spec: &ListenerSpec| ListenerFailed {
            bind: spec.bind,
            error: "the worker has ended".to_owned(),
        };
        let mut all: Vec<Bound> = specs.iter().map(|spec| Ok(spec.bind)).collect();
        for handle in &self.handles {
            let (reply, replied) = oneshot::channel();
            // A worker that is gone leaves the reply unanswered.
            let _ = handle
                .commands
                .send(Command::Listeners(wanted.clone(), reply))
                .await;
            let bound = match replied.await {
                Ok(bound) => bound,
                Err(_) => specs.iter().map(|spec| Err(gone(spec))).collect(),
            };
            for (at, bound) in bound.into_iter().enumerate() {
                if let (Ok(address), Some(want)) = (&bound, wanted.get_mut(at)) {
                    want.1 = *address;
                }
                if let Some(entry) = all.get_mut(at).filter(|entry| entry.is_ok()) {
                    *entry = bound;
                }
            }
        }
        all
    }

    /// Copies of the listening sockets, by the address that they were asked for, for the process
    /// that comes after this one.
    pub async fn sockets(&self) -> Vec<(SocketAddr, OwnedFd)> {
        let mut all = Vec::new();
        for handle in &self.handles {
            let (reply, replied) = oneshot::channel();
            let _ = handle.commands.send(Command::Sockets(reply)).await;
            all.extend(replied.await.unwrap_or_default());
        }
        all
    }

    /// Serve a stream from another site on one of the workers, in turn.
    pub fn serve_stream(&self, incoming: Box<dyn Incoming + Send>) {
        let turn = self.next.fetch_add(1, Relaxed) % self.handles.len().max(1);
        let Some(handle) = self.handles.get(turn) else {
            return;
        };
        if let Err(error) = handle.commands.try_send(Command::Stream(incoming)) {
            let (mpsc::error::TrySendError::Full(command)
            | mpsc::error::TrySendError::Closed(command)) = error;
            if let Command::Stream(incoming) = command {
                incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "busy");
            }
        }
    }

    /// Serve a data connection of a link on the worker of its number; it is closed if that one has
    /// no room for it.
    pub fn serve_trunk(&self, trunk: Trunk) {
        let turn = trunk.index() % self.handles.len().max(1);
        if let Some(handle) = self.handles.get(turn) {
            // Closed: whoever has dialled it dials again.
            let _ = handle.commands.try_send(Command::Trunk(trunk));
        }
    }

    /// Call after an endpoint's cell says that it is sick, gone or out of reach: safe requests
    /// that wait for it are tried elsewhere at once. Never blocks.
    pub fn endpoint_down(&self, tenant: TenantId, service: ServiceId, endpoint: EndpointKey) {
        let target = Target {
            tenant,
            service,
            endpoint,
        };
        for handle in &self.handles {
            if handle.news.try_send(target).is_err() {
                handle.news_lost.store(true, Relaxed);
            }
        }
    }

    /// Tunnel streams refused so far, by peer and rule.
    #[must_use]
    pub fn refusals(&self) -> Vec<(SiteName, l7::Refusal, u64)> {
        self.refusals.list()
    }

    /// Stop accepting, finish what runs within `patience`, end. A connection on which nothing runs
    /// is told with its next answer, or closed after a quarter of that time (30 s at most): a
    /// request may be on its way.
    pub async fn drain(&self, patience: Duration) {
        let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
        self.patience_ms.store(patience, Relaxed);
        for handle in &self.handles {
            handle.thread.start_drain();
        }
        for handle in &self.handles {
            handle.thread.exited().await;
        }
    }
}

/// A snapshot as the tasks of one worker share it.
pub(crate) struct Current(Arc<Snapshot>);

impl Deref for Current {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// One worker, as its tasks see it.
pub(crate) struct Worker {
    store: Arc<ArcSwap<Snapshot>>,
    /// The snapshot this worker has seen last: cloning it touches no other core's memory.
    seen: RefCell<Rc<Current>>,
    pub(crate) dial: Arc<dyn Dial>,
    /// Its own connections to other sites.
    pub(crate) trunks: Trunks,
    pub(crate) records: Option<Records>,
    pub(crate) spans: Option<Told>,
    pub(crate) metrics: ProxyMetrics,
    pub(crate) traffic: Traffic,
    pub(crate) tls: runtime::tls::Front,
    pub(crate) quic: Quic,
    /// Its place among the workers.
    pub(crate) index: u16,
    /// Handshakes of QUIC under way.
    pub(crate) shaking: Rc<Cell<usize>>,
    pub(crate) refusals: Arc<Refusals>,
    /// Counts requests for policies that limit them, for all workers.
    pub(crate) buckets: Arc<Buckets>,
    /// Tokens that were verified.
    pub(crate) tokens: RefCell<l7::jwt::Cache>,
    events: mpsc::Sender<ProxyEvent>,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) pool: Pool,
    /// Connections that requests share.
    pub(crate) shared: Shared,
    pub(crate) waiting: Waiting,
    /// Streams that are passed on to other sites.
    pub(crate) passing: Places<Name>,
    /// Sealed streams of which it is not known yet for what they are, by who passed them on and
    /// whose they are.
    pub(crate) unsealing: Places<(SiteName, Name)>,
    /// Connections carried unread.
    pub(crate) layer4: Places<LbId>,
    pub(crate) offers: Offers,
    pub(crate) turns: Turns,
    pub(crate) scratch: Scratch,
    pub(crate) pipes: Pipes,
    pub(crate) tasks: Tasks,
    drain: Drain,
    /// Was there ever a stream of another site, or a connection for them?
    is_linked: Cell<bool>,
    /// When the drain began.
    drains_since: Cell<Option<base::Instant>>,
    patience_ms: Arc<AtomicU64>,
    /// Client connections, and how many the descriptors of this process are enough for.
    seats: Rc<Seats>,
    most_seats: usize,
    /// When something was said last about those that are not taken.
    said: Cell<Option<base::Instant>>,
    /// Copies of requests on their way.
    pub(crate) mirrors: Rc<Cell<usize>>,
    /// Octets of bodies that are taken whole.
    pub(crate) buffered: Rc<Cell<usize>>,
}

impl Worker {
    /// The snapshot of the moment; hold it for one request.
    pub(crate) fn snapshot(&self) -> Rc<Current> {
        let now = self.store.load();
        let mut seen = self.seen.borrow_mut();
        if !Arc::ptr_eq(&now, &seen.0) {
            *seen = Rc::new(Current(Arc::clone(&now)));
        }
        Rc::clone(&seen)
    }

    /// What is gathered to be written or sent on.
    fn batches(&self) -> impl Iterator<Item = &Batches> {
        let records = self.records.iter().map(|records| &records.batches);
        records.chain(self.spans.iter().map(|spans| &spans.batches))
    }

    pub(crate) fn drain(&self) -> Drain {
        self.drain.clone()
    }

    pub(crate) fn drain_begun(&self) -> bool {
        self.drain.is_draining()
    }

    /// In a drain: are streams of other sites still taken?
    fn takes_late_streams(&self) -> bool {
        let since = self.drains_since.get().unwrap_or_else(runtime::now);
        self.is_linked.get() && runtime::now().since(since) < late_streams(self.patience())
    }

    /// How long connections on which nothing runs stay open in a drain.
    pub(crate) fn grace(&self) -> Duration {
        const MOST: Duration = Duration::from_secs(30);
        (self.patience() / 4).min(MOST)
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms.load(Relaxed))
    }

    /// A place for one more client connection, unless the limit is reached.
    pub(crate) fn seat(&self) -> Option<Rc<Seat>> {
        let (taken, most) = (self.seats.taken(), self.most_seats());
        if taken >= most && self.may_say() {
            tracing::warn!(
                most,
                "client connections are refused: this worker has as many as it may; raise the \
                 limit of open files, or add nodes"
            );
        }
        (taken < most).then(|| self.seats.take(&self.metrics.connections))
    }

    fn most_seats(&self) -> usize {
        self.snapshot().limits.connections.min(self.most_seats)
    }

    /// The connection is this tenant's, as shows now; false: it has as many as it may have.
    pub(crate) fn claim(&self, seat: &Rc<Seat>, tenant: TenantId, name: &str) -> bool {
        if seat.is_claimed_by(tenant) {
            return true;
        }
        let may = seat.claim(tenant, name, self.most_seats());
        if !may {
            seat.refused(tenant);
        }
        may
    }

    /// The server name says whose a connection is, if that may have one more; whoever may not hears
    /// it with the first request.
    pub(crate) fn named(&self, info: &ConnInfo) {
        let snapshot = self.snapshot();
        let name = info.sni.as_deref();
        let host = name.and_then(|name| snapshot.table.host(info.port, true, name));
        if let (Some(host), Some(seat)) = (host, &info.seat) {
            seat.claim(host.tenant, &host.tenant_name, self.most_seats());
        }
    }

    /// Run what serves a connection, in turns: those of `whose` at first, in this line.
    pub(crate) fn spawn<F: Future<Output = ()> + 'static>(
        self: &Rc<Self>,
        name: &'static str,
        whose: (TenantId, Line),
        serving: F,
    ) -> Task {
        let turn = InTurn::new(self, whose, serving);
        self.tasks.spawn_local(name, turn)
    }

    /// How long a connection may wait for what makes it useful: less where places are few, or where
    /// many wait of which it is not known whose they are.
    pub(crate) fn bear(&self, patience: Duration, seat: Option<&Rc<Seat>>) -> Duration {
        const CROWDED: Duration = Duration::from_secs(1);
        let most = self.most_seats();
        let unclaimed = seat.is_some_and(|seat| seat.is_unclaimed());
        if self.seats.taken() > most / 4 * 3 || unclaimed && self.seats.many_unclaimed(most) {
            patience.min(CROWDED)
        } else {
            patience
        }
    }

    /// Is it long enough ago that something was said about connections that are not taken?
    pub(crate) fn may_say(&self) -> bool {
        let now = runtime::now();
        let may = self
            .said
            .get()
            .is_none_or(|said| now.since(said) >= SAY_AGAIN);
        if may {
            self.said.set(Some(now));
        }
        may
    }

    pub(crate) fn endpoint_failed(&self, target: Target, kind: FailureKind) {
        self.tell(ProxyEvent::EndpointFailed {
            tenant: target.tenant,
            service: target.service,
            key: target.endpoint,
            kind,
        });
    }

    pub(crate) fn endpoint_outlier(&self, target: Target) {
        self.tell(ProxyEvent::EndpointOutlier {
            tenant: target.tenant,
            service: target.service,
            key: target.endpoint,
        });
    }

    fn tell(&self, event: ProxyEvent) {
        if self.events.try_send(event).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

async fn run(tasks: Tasks, start: Start) {
    let Start {
        mut commands,
        mut news,
        news_lost,
        inherited,
        ..
    } = start;
    let worker = Rc::new(Worker {
        seen: RefCell::new(Rc::new(Current(start.store.load_full()))),
        store: start.store,
        trunks: start.dial.trunks(),
        dial: start.dial,
        records: start
            .log
            .map(|log| Records::new(log, start.metrics.records_dropped.clone())),
        spans: start
            .spans
            .map(|spans| Told::new(spans, start.metrics.spans_dropped.clone())),
        metrics: start.metrics,
        traffic: Traffic::new(start.traffic),
        tls: start.tls,
        quic: start.quic,
        index: start.index,
        shaking: Rc::default(),
        refusals: start.refusals,
        buckets: start.buckets,
        tokens: RefCell::default(),
        events: start.events,
        rng: RefCell::new(Rng::new(start.seed)),
        pool: Pool::default(),
        shared: Shared::default(),
        waiting: Waiting::default(),
        passing: Places::default(),
        unsealing: Places::default(),
        layer4: Places::default(),
        offers: Offers::default(),
        turns: Turns::default(),
        scratch: Scratch::default(),
        pipes: Pipes::default(),
        drain: tasks.token(),
        is_linked: Cell::default(),
        drains_since: Cell::default(),
        patience_ms: start.patience_ms,
        tasks: tasks.clone(),
        seats: Rc::default(),
        most_seats: start.most_seats,
        said: Cell::default(),
        mirrors: Rc::default(),
        buffered: Rc::default(),
    });
    tasks.spawn_local("reaper", reap(Rc::clone(&worker)));
    for at in 0..worker.batches().count() {
        tasks.spawn_local("records", gather(Rc::clone(&worker), at));
    }
    tasks.spawn_local("traffic", tally(Rc::clone(&worker)));
    tasks.spawn_local("turns", take_turns(Rc::clone(&worker)));
    let mut listeners = Listeners::new(inherited);
    // They have no end of their own: what they carry has.
    let carriers = Tasks::new("trunks");
    let draining = worker.drain();
    let mut leaving = std::pin::pin!(async {
        draining.draining().await;
        let began = runtime::now();
        worker.drains_since.set(Some(began));
        if worker.is_linked.get() {
            // It counts as something that runs.
            let late = tokio::time::sleep(late_streams(worker.patience()));
            tasks.spawn_local("late-streams", late);
        }
        tasks.drain(worker.patience()).await;
        began
    });
    let began = loop {
        tokio::select! {
            biased;
            Some(target) = news.recv() => {
                worker.waiting.look(target);
                if news_lost.swap(false, Relaxed) {
                    worker.waiting.look_all();
                }
            }
            Some(command) = commands.recv() => match command {
                Command::Listeners(wanted, reply) => {
                    // Nobody waits for the reply when its caller was dropped.
                    let _ = reply.send(listeners.set(&worker, &wanted));
                    let offered = wanted.iter().map(|(spec, _)| (spec.port, spec.protocol));
                    worker.offers.set(offered);
                }
                // Nor for these.
                Command::Sockets(reply) => drop(reply.send(listeners.sockets())),
                Command::Stream(incoming) => take(&worker, incoming),
                Command::Trunk(trunk) => {
                    carriers.spawn_local("trunk", carry(Rc::clone(&worker), trunk));
                }
            },
            began = &mut leaving => break began,
        }
    };
    worker.shared.clear();
    worker.trunks.leave();
    let left = worker
        .patience()
        .saturating_sub(runtime::now().since(began));
    carriers.drain(left.clamp(LAST_WORDS, MOST_WORDS)).await;
    for batches in worker.batches() {
        batches.flush();
    }
    worker.traffic.flush();
}

/// How long a drain of such a length takes streams of other sites.
fn late_streams(patience: Duration) -> Duration {
    match patience >= LATE_STREAMS * 10 {
        true => LATE_STREAMS,
        false => Duration::ZERO,
    }
}

async fn carry(worker: Rc<Worker>, trunk: Trunk) {
    worker.is_linked.set(true);
    let on_stream = |incoming| {
        if let Some(stream) = TunnelStream::on_trunk(incoming) {
            take(&worker, Box::new(stream));
        }
    };
    worker.trunks.serve(trunk, on_stream).await;
}

fn take(worker: &Rc<Worker>, incoming: Box<dyn Incoming>) {
    if worker.drain_begun() && !worker.takes_late_streams() {
        incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "draining");
        return;
    }
    worker.is_linked.set(true);
    let run = egress::accept(Rc::clone(worker), incoming);
    worker.spawn("stream", (NOBODY, Line::default()), run);
}

async fn gather(worker: Rc<Worker>, at: usize) {
    let drain = worker.drain();
    if let Some(batches) = worker.batches().nth(at) {
        tokio::select! {
            () = drain.draining() => {}
            () = batches.run() => {}
        }
    }
}

async fn tally(worker: Rc<Worker>) {
    let drain = worker.drain();
    let mut draining = std::pin::pin!(drain.draining());
    loop {
        tokio::select! {
            () = &mut draining => return,
            () = tokio::time::sleep(traffic::EVERY) => {
                worker.traffic.flush();
                worker.seats.thin(worker.most_seats());
                worker.seats.count(&worker.metrics.shed);
            }
        }
    }
}

async fn take_turns(worker: Rc<Worker>) {
    let drain = worker.drain();
    tokio::select! {
        () = drain.draining() => {}
        () = worker.turns.run() => {}
    }
    worker.turns.end();
}

async fn reap(worker: Rc<Worker>) {
    let drain = worker.drain();
    let mut draining = std::pin::pin!(drain.draining());
    loop {
        let closed = poll_fn(|cx| worker.pool.poll_reap(cx, runtime::now()));
        let closed = tokio::select! {
            // Others that drain may wait for what is kept here to end.
            () = &mut draining => return worker.pool.close(),
            closed = tokio::time::timeout(REAP_EVERY, closed) => closed.unwrap_or_default(),
        };
        for key in closed {
            worker.tell(ProxyEvent::EndpointSuspect {
                tenant: key.tenant,
                service: key.service,
                key: key.endpoint,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_drain_with_time_takes_streams_of_others() {
        for (patience, late) in [(5, 0), (399, 0), (400, 40), (600, 40)] {
            let patience = Duration::from_secs(patience);
            assert_eq!(late_streams(patience), Duration::from_secs(late));
        }
    }
}
