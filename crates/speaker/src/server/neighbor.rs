//! The task of one neighbour: its machine, its streams, its timers.

mod session;
mod stream;

use std::{
    cell::RefCell, collections::VecDeque, future::Future, io, net::SocketAddr, pin::Pin, rc::Rc,
    sync::Arc, time::Duration,
};

use base::Instant;
use bgp::{
    peer::{ConnectionId, Effect, Initiator, Peer, PeerState},
    table::{Notice, PeerIndex},
    wire::{Notification, Scratch},
};
use runtime::net::router;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
};

use self::{session::Session, stream::Stream};
use super::{
    NeighborConfig, ServerConfig,
    tasks::{READ, WORDS},
    view::SessionView,
    worker::Worker,
};
use crate::bfd::{Status, Watch, Watched};

/// How long one dial may take.
const DIAL: Duration = Duration::from_secs(10);
/// How long a stream gets to take the last words.
const FAREWELL: Duration = Duration::from_secs(1);
/// A timer that came this late may have come behind octets that wait to be read.
const LATE: Duration = Duration::from_millis(100);
/// A stream that takes nothing more is read so often for its last words.
const LAST_READS: usize = 64;

/// What a neighbour's task is told.
#[derive(Debug)]
pub(super) enum Word {
    /// It connected.
    Accepted(std::net::TcpStream),
    /// An operator wants something.
    Order(Order),
}

/// What an operator wants of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End it; it comes up again (Cease, administrative reset).
    Reset,
    /// Ask the neighbour for all its routes again.
    Refresh,
    /// End it for good (Cease, administrative shutdown).
    Shutdown,
}

/// The way to a neighbour's task.
#[derive(Clone)]
pub(super) struct Door {
    words: mpsc::Sender<Word>,
    notices: Rc<Notices>,
    view: Rc<RefCell<SessionView>>,
    since: Rc<RefCell<Instant>>,
    clock: fn() -> Instant,
}

/// What shards noticed: at most a few for each family of one session, so none is lost.
#[derive(Default)]
struct Notices {
    queue: RefCell<VecDeque<Notice>>,
    wake: Notify,
}

impl Door {
    /// A shard noticed something about its session of now.
    pub(super) fn notice(&self, notice: Notice) {
        self.notices.queue.borrow_mut().push_back(notice);
        self.notices.wake.notify_one();
    }

    /// Tell it something. A task that has not read for so long that its queue is full waits for
    /// another thread; what an operator or a newcomer wanted is lost then, and can be said again.
    pub(super) fn tell(&self, word: Word) {
        if let Err(error) = self.words.try_send(word) {
            tracing::warn!(%error, "a neighbour's task hears nothing");
        }
    }

    pub(super) fn view(&self) -> SessionView {
        let mut view = self.view.borrow().clone();
        view.since = (self.clock)().since(*self.since.borrow());
        view
    }

    /// The task has ended.
    pub(super) async fn closed(&self) {
        self.words.closed().await;
    }
}

/// Give a listener the keys of the neighbours that sign.
///
/// # Errors
/// The system refuses it.
pub(super) fn prepare_listener(
    listener: &TcpListener,
    address: SocketAddr,
    neighbors: &[NeighborConfig],
) -> io::Result<()> {
    let reachable = |n: &&NeighborConfig| n.address.is_ipv4() == address.is_ipv4();
    for neighbor in neighbors.iter().filter(reachable) {
        if let Some(key) = stream::key(neighbor) {
            router::set_md5(listener, neighbor.address, Some(&key))?;
        }
    }
    Ok(())
}

type Dial = Pin<Box<dyn Future<Output = io::Result<TcpStream>>>>;

struct Neighbor {
    worker: Rc<Worker>,
    index: PeerIndex,
    config: Arc<ServerConfig>,
    at: usize,
    peer: Peer,
    streams: Vec<Stream>,
    next: u64,
    dial: Option<Dial>,
    notices: Rc<Notices>,
    session: Session,
    /// The path to it, while the session is up.
    watched: Option<Watched>,
    scratch: Scratch,
    view: Rc<RefCell<SessionView>>,
    since: Rc<RefCell<Instant>>,
    stopping: bool,
}

/// The door of a neighbour and its task.
pub(super) fn open(
    worker: Rc<Worker>,
    index: PeerIndex,
    config: Arc<ServerConfig>,
    at: usize,
) -> (Door, impl Future<Output = ()>) {
    let (words, inbox) = mpsc::channel(WORDS);
    let clock = worker.clock;
    let view = Rc::new(RefCell::new(SessionView::idle(index)));
    let since = Rc::new(RefCell::new(clock()));
    let notices = Rc::new(Notices::default());
    let door = Door {
        words,
        notices: notices.clone(),
        view: view.clone(),
        since: since.clone(),
        clock,
    };
    let peer = Peer::new(session::machine(&config, at), u64::from(index.0) + 1);
    let neighbor = Neighbor {
        notices,
        session: Session::new(index, worker.threads.len()),
        worker,
        index,
        config,
        at,
        peer,
        watched: None,
        streams: Vec::new(),
        next: 0,
        dial: None,
        scratch: Scratch::default(),
        view,
        since,
        stopping: false,
    };
    (door, neighbor.run(inbox))
}

impl Neighbor {
    fn settings(&self) -> &NeighborConfig {
        &self.config.neighbors[self.at]
    }

    fn now(&self) -> Instant {
        (self.worker.clock)()
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Word>) {
        self.peer.start(self.now());
        let notices = self.notices.clone();
        loop {
            self.carry_out().await;
            if self.stopping && self.streams.is_empty() {
                return;
            }
            let timer = [self.peer.poll_timeout(), self.session.poll_timeout()];
            let timer = timer.into_iter().flatten().min();
            let wait = timer.map(|at| at.since(self.now()));
            let [first, second, third] = [0, 1, 2].map(|at| self.streams.get(at));
            let event = tokio::select! {
                id = stream::ready(first) => Event::Stream(id),
                id = stream::ready(second) => Event::Stream(id),
                id = stream::ready(third) => Event::Stream(id),
                word = inbox.recv() => Event::Word(word),
                () = notices.wake.notified() => Event::Notices,
                status = path(&mut self.watched) => Event::Path(status),
                dialled = dialled(&mut self.dial) => Event::Dialled(dialled),
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => Event::Time,
            };
            match event {
                Event::Stream(id) => self.serve(id).await,
                Event::Word(Some(word)) => self.hear(word).await,
                Event::Word(None) => return,
                Event::Path(status) => self.path_changed(status),
                Event::Notices => {
                    while let Some(notice) = { notices.queue.borrow_mut().pop_front() } {
                        self.notice(notice).await;
                    }
                }
                Event::Dialled(Ok(stream)) => {
                    self.dial = None;
                    self.connected(stream, Initiator::Us);
                }
                Event::Dialled(Err(error)) => {
                    self.dial = None;
                    tracing::debug!(neighbour = %self.settings().address, %error, "dial failed");
                    self.peer.handle_connect_failed(self.now());
                }
                Event::Time => {
                    if timer.is_some_and(|at| self.now().since(at) > LATE) {
                        self.read_what_waits().await;
                    }
                    self.peer.handle_timeout(self.now());
                    self.session.handle_timeout(self.now(), &self.worker).await;
                }
            }
        }
    }

    fn connected(&mut self, stream: TcpStream, initiator: Initiator) {
        let id = ConnectionId(self.next);
        self.next += 1;
        self.streams.push(Stream::new(id, stream));
        let incoming = initiator == Initiator::Them;
        let forwarding = self.config.restarted || !self.session.is_first();
        self.peer
            .set_restarting(self.worker.restart.is_under_way(), forwarding);
        self.peer.handle_connected(self.now(), id, incoming);
    }

    async fn hear(&mut self, word: Word) {
        match word {
            Word::Accepted(stream) => {
                let options = stream::options(self.settings());
                let prepared = TcpStream::from_std(stream).and_then(|stream| {
                    router::prepare(&stream, &options)?;
                    Ok(stream)
                });
                match prepared {
                    Ok(stream) => self.connected(stream, Initiator::Them),
                    Err(error) => tracing::warn!(%error, "a connection is lost"),
                }
            }
            Word::Order(Order::Reset) => {
                // One that is held back, for too many routes maybe, tries again at once.
                let held = self.peer.state() == PeerState::Idle;
                self.peer.reset(self.now(), "");
                if held {
                    self.peer.start(self.now());
                }
            }
            Word::Order(Order::Shutdown) => {
                self.stopping = true;
                self.peer.stop(self.now(), "the speaker ends");
            }
            Word::Order(Order::Refresh) => {
                let families = self.session.families().to_vec();
                for family in families {
                    self.peer.request_refresh(family);
                }
            }
        }
    }

    async fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::TableSent(_, family) => {
                self.session.table_sent(family, &self.worker).await;
            }
            Notice::TooMany(_, family) if self.session.connection().is_some() => {
                let settings = self.settings();
                let most = settings.families.iter().find(|f| f.family == family);
                let most = most.map_or(0, |family| family.max_routes);
                tracing::error!(neighbour = %settings.address, %family, most, "too many routes");
                // RFC 4486 §4: the family and the limit.
                let mut data = [family.afi.to_be_bytes().as_slice(), &[family.safi]].concat();
                data.extend(most.to_be_bytes());
                let cease = Notification::with_data(6, 1, &data);
                self.peer.close(self.now(), &cease);
            }
            // No word of a router is held against a site table.
            Notice::TooMany(..) | Notice::AskAgain(..) => {}
        }
    }

    /// The thread slept, or was busy: a timer is not to win over a KEEPALIVE that lies there.
    async fn read_what_waits(&mut self) {
        // The runtime looks at its sockets when it has nothing else to do.
        tokio::time::sleep(Duration::from_millis(1)).await;
        let ids: Vec<ConnectionId> = self.streams.iter().map(|stream| stream.id).collect();
        for id in ids {
            self.serve(id).await;
        }
    }

    fn established(&self) -> Option<&Stream> {
        let (id, _) = self.peer.established()?;
        self.streams.iter().find(|stream| stream.id == id)
    }

    /// Read and write what is possible now.
    async fn serve(&mut self, id: ConnectionId) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else {
            return;
        };
        let failed = !self.write(at, id);
        let mut ended = false;
        let mut buffer = std::mem::take(&mut *self.worker.buffer.borrow_mut());
        buffer.resize(READ, 0);
        // Behind a stream that takes nothing more may lie the reason: a NOTIFICATION.
        for _ in 0..if failed { LAST_READS } else { 1 } {
            match self.streams[at].tcp.try_read(&mut buffer) {
                Ok(0) => ended = true,
                Ok(count) => self.take_in(at, id, &buffer[..count]),
                Err(error) => ended = failed || error.kind() != io::ErrorKind::WouldBlock,
            }
            if ended {
                break;
            }
        }
        ended |= failed;
        *self.worker.buffer.borrow_mut() = buffer;
        if ended {
            self.peer.handle_closed(self.now(), id);
            self.streams.retain(|stream| stream.id != id);
        }
        // Where another thread's mail is full we wait here, and read no more meanwhile.
        let mut mail = std::mem::take(&mut self.session.mail);
        self.worker.post(&mut mail).await;
        self.session.mail = mail;
        // What was read is told before more is read.
        tokio::task::yield_now().await;
    }

    fn take_in(&mut self, at: usize, id: ConnectionId, octets: &[u8]) {
        let now = self.now();
        let local = self.streams[at].local;
        let outbox = self.streams[at].outbox.clone();
        let (session, worker, scratch) = (&mut self.session, &self.worker, &mut self.scratch);
        let settings = &self.config.neighbors[self.at];
        let mut sink = |negotiated: &Arc<_>, incoming: bgp::peer::Incoming<'_>| {
            session.incoming(
                worker, settings, id, local, &outbox, scratch, negotiated, incoming,
            )
        };
        self.peer.handle_bytes(now, id, octets, &mut sink);
    }

    /// Write; false if the stream is over.
    fn write(&mut self, at: usize, id: ConnectionId) -> bool {
        let stream = &self.streams[at];
        if stream.outbox.is_empty() {
            return true;
        }
        let now = (self.worker.clock)();
        match stream.outbox.write(&stream.tcp) {
            Ok((written, level)) => {
                if written > 0 {
                    self.peer.handle_sent(now, id);
                }
                if !stream.outbox.is_empty() {
                    self.peer.handle_blocked(now, id);
                }
                if let Some(level) = level
                    && self.established().is_some_and(|stream| stream.id == id)
                {
                    self.worker.level(self.index, level);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Do what the machine wants.
    async fn carry_out(&mut self) {
        let mut touched = false;
        loop {
            while let Some((id, octets)) = self.peer.poll_transmit() {
                if let Some(stream) = self.streams.iter().find(|stream| stream.id == id) {
                    stream.outbox.push_first(octets);
                }
            }
            let Some(effect) = self.peer.poll_effect() else {
                break;
            };
            touched = true;
            self.carry_out_one(effect).await;
        }
        if touched || self.view.borrow().state != self.peer.state().to_string() {
            self.show();
        }
        let mut mail = std::mem::take(&mut self.session.mail);
        self.worker.post(&mut mail).await;
        self.session.mail = mail;
    }

    async fn carry_out_one(&mut self, effect: Effect) {
        let address = self.settings().address;
        match effect {
            Effect::Dial => self.dial = Some(stream::dial(self.settings(), DIAL)),
            Effect::CancelDial => self.dial = None,
            Effect::Close(id) => {
                if let Some(at) = self.streams.iter().position(|stream| stream.id == id) {
                    let stream = self.streams.swap_remove(at);
                    stream.farewell(FAREWELL).await;
                }
            }
            Effect::Established { negotiated, .. } => {
                let families = negotiated.families.iter();
                let families: Vec<String> = families.map(ToString::to_string).collect();
                tracing::info!(neighbour = %address, families = families.join(" "), "session is up");
                *self.since.borrow_mut() = self.now();
                self.watch_path().await;
            }
            Effect::Down {
                id,
                reason,
                graceful,
            } => {
                tracing::info!(neighbour = %address, %reason, kept = graceful.is_some(), "session is down");
                *self.since.borrow_mut() = self.now();
                self.view.borrow_mut().last_close = Some(reason.to_string());
                if self.peer.established().is_none() {
                    self.watched = None;
                }
                // A session that took its place has seen to it already.
                if self.session.connection() == Some(id) {
                    self.worker.outboxes.borrow_mut().remove(&self.index);
                    let (now, long_lived) = (self.now(), self.settings().long_lived);
                    self.session
                        .down(now, &self.worker, long_lived, graceful.as_ref());
                }
            }
            Effect::Failed { reason, .. } => {
                tracing::debug!(neighbour = %address, %reason, "connection failed");
                self.view.borrow_mut().last_close = Some(reason.to_string());
            }
        }
    }

    /// Watch the path of the established session, if it is configured.
    async fn watch_path(&mut self) {
        let settings = self.settings();
        let (Some(bfd), Some(config)) = (&self.worker.bfd, settings.bfd) else {
            return;
        };
        let session = self.established().and_then(|stream| stream.local);
        let watch = Watch {
            neighbor: settings.address,
            local: session.map(|local| local.ip().to_canonical()),
            reach: config.reach,
            timers: config.timers,
        };
        // Of a session that takes another's place the path is another one.
        let watched = bfd.watch(watch).await;
        self.watched = Some(watched);
    }

    /// RFC 5882 §4.1: when the path dies, the session need not wait for its hold time. Before it
    /// was up, or when the neighbour took BFD down on purpose, nothing is known of the path.
    fn path_changed(&mut self, status: Status) {
        if status.deaths > 0 && self.peer.established().is_some() {
            tracing::warn!(neighbour = %self.settings().address, "the path is dead");
            self.watched = None;
            self.peer.close(self.now(), &Notification::BFD_DOWN.into());
        }
        self.show();
    }

    fn show(&self) {
        let mut view = self.view.borrow_mut();
        view.bfd = self.watched.as_ref().map(Watched::status);
        view.state = self.peer.state().to_string();
        view.established = self.peer.counters().established;
        let established = self.peer.established();
        view.node = established.map(|(_, negotiated)| negotiated.peer_node);
        view.families = established.map_or_else(Vec::new, |(_, n)| n.families.clone());
    }
}

enum Event {
    Stream(ConnectionId),
    Word(Option<Word>),
    Notices,
    Path(Status),
    Dialled(io::Result<TcpStream>),
    Time,
}

async fn path(watched: &mut Option<Watched>) -> Status {
    match watched {
        Some(watched) => watched.changed().await,
        None => std::future::pending().await,
    }
}

async fn dialled(dial: &mut Option<Dial>) -> io::Result<TcpStream> {
    match dial {
        Some(dial) => dial.await,
        None => std::future::pending().await,
    }
}
