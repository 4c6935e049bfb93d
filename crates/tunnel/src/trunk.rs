//! Data connections: many streams on one connection of a link, on one thread.
//!
//! A link has as many as the busier side has workers. Each is dialled and admitted on the tunnels'
//! thread like the other connections of the link, and then moves to a worker's thread
//! ([`Trunk`] → [`Trunks::serve`]). From then on no other thread takes part: what a client sends
//! is written into the connection by the thread that read it, and read on the other side by the
//! thread that sends it on. On them there is no HTTP/2: `frame` says what is.
//!
//! ```text
//!  tunnel's thread                      a worker's thread
//!  dial / accept ─▶ Trunk ──channel──▶ serve: driver ─▶ on_stream(TrunkIncoming)
//!   ▲   again when it is gone                │ ▲
//!   └────────────────────────────────────────┘ └─ TrunkStream (Trunks::open)
//! ```
//! A stream that is bulk goes *aside*: over one of up to 16 spare connections that a data connection
//! has beside it (`mux::aside` decides, `spare` carries), which are dialled when there is bulk, on the
//! same thread, and closed when there was none for a minute.
//!
//! On a connection on which nothing was heard for three intervals no stream is opened; after 12 it
//! ends, and is dialled again as long as its link lives. It ends with its link, unless that fell
//! silent or the other side closed it, which may have missed our pings only: then it goes on as long as
//! it has streams and is heard, or a minute longer, and nothing begins on it. If it is silent for three
//! intervals itself, what waits for an answer is given up.

mod frame;
mod mux;
mod spare;
mod stream;

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use base::{Instant, SiteName};
use bytes::BytesMut;
use http::StatusCode;
use path::{DeadDetector, Liveness, Load, Loss, Turns};
use pki::Identity;
use runtime::{
    metrics::{Counter, Gauge},
    net::Segments,
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, Sleep, interval, sleep},
};
use tokio_rustls::TlsStream;

use crate::{
    event::Gone,
    flow::Flow,
    head::{HeadError, StreamHead},
    link::{Ground, PATIENCE_WITH_ONE, Side},
    links::{Link, LinkTable, OPEN_TIMEOUT, OpenError, next},
    routes::Routes,
    seal::Seal,
    socket::Socket,
    standing,
    transport::{Keys, Pipe},
};
use mux::{Answer, Mux};
use spare::{Shelf, Spare};
pub use stream::{Mover, Staleness, TrunkIncoming, TrunkStream};

/// Room for what is read; what a record of TLS holds at most (RFC 8446 §5.1).
const READ: usize = 64 << 10;
const RECORD: usize = 16 << 10;
/// How long a connection that outlives its link may be silent. With a timeout of 200 ms at first the
/// kernel sends again after 13, 25 and 51 s (RFC 6298 §5.5).
const LINGER: Duration = Duration::from_secs(60);
/// Reads in a row before the thread's other tasks have their turn.
const READS: usize = 8;

/// A data connection on its way to the thread that will serve it. Dropping it closes it.
pub struct Trunk {
    link: Arc<Link>,
    side: Side,
    index: u8,
    tls: Box<TlsStream<Socket>>,
    interval: Duration,
    keys: Keys,
    what: What,
    _counted: Counted,
}

/// What a connection is to the thread that serves it.
enum What {
    Data {
        /// How many streams went over spare connections.
        aside: Counter,
        /// Has a spare one dialled.
        dials: Dials,
        /// Dropped when it is gone: whoever dialled it may dial again.
        _gone: Option<oneshot::Sender<()>>,
    },
    Spare {
        number: u16,
        /// Dropped when another may be asked for.
        _asked: Option<Asked>,
    },
}

/// Asks for spare connections, one at a time; of those that were accepted nobody can be asked.
#[derive(Default)]
struct Dials {
    asks: Option<mpsc::Sender<Asked>>,
    under_way: Arc<AtomicBool>,
}

impl Dials {
    /// Asks for one, unless one is under way already.
    fn ask(&self) -> bool {
        let Some(asks) = &self.asks else { return false };
        if self.under_way.swap(true, Ordering::AcqRel) {
            return false;
        }
        // If nobody takes it, it is dropped.
        asks.try_send(Asked(Arc::clone(&self.under_way))).is_ok()
    }
}

/// Somebody asks for a spare connection; dropped when it is there, or is not to come.
#[derive(Debug)]
pub(crate) struct Asked(Arc<AtomicBool>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// What whoever dialled a data connection is to hear of it.
pub(crate) struct Calls {
    pub(crate) gone: oneshot::Receiver<()>,
    pub(crate) asked: mpsc::Receiver<Asked>,
}

/// One more, as long as it lives.
struct Counted(Gauge);

impl Counted {
    fn new(count: &Gauge) -> Self {
        count.inc();
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl std::fmt::Debug for Trunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Trunk({} {})", self.link.peer, self.index)
    }
}

impl Trunk {
    /// One that was dialled here, and what is to be heard of it.
    ///
    /// # Errors
    /// The socket does not leave this thread's runtime.
    pub(crate) fn dialled(
        link: Arc<Link>,
        index: u8,
        tls: Box<TlsStream<Socket>>,
        ground: &Ground,
    ) -> io::Result<(Trunk, Calls)> {
        let (gone, is_gone) = oneshot::channel();
        let (asks, asked) = mpsc::channel(1);
        let dials = Dials {
            asks: Some(asks),
            under_way: Arc::default(),
        };
        let mut trunk = Trunk::accepted(link, index, tls, ground)?;
        trunk.side = Side::Dialler;
        trunk.what = What::Data {
            aside: ground.sink.metrics.aside.clone(),
            dials,
            _gone: Some(gone),
        };
        let gone = is_gone;
        Ok((trunk, Calls { gone, asked }))
    }

    /// One that was dialled to us.
    ///
    /// # Errors
    /// See [`Trunk::dialled`].
    pub(crate) fn accepted(
        link: Arc<Link>,
        index: u8,
        mut tls: Box<TlsStream<Socket>>,
        ground: &Ground,
    ) -> io::Result<Trunk> {
        tls.get_mut().0.leave()?;
        Ok(Trunk {
            link,
            side: Side::Acceptor,
            index,
            tls,
            interval: ground.interval,
            keys: Keys::new(&ground.sink.metrics.rekeys, "data"),
            what: What::Data {
                aside: ground.sink.metrics.aside.clone(),
                dials: Dials::default(),
                _gone: None,
            },
            _counted: Counted::new(&ground.sink.metrics.trunks),
        })
    }

    /// A spare one: of which data connection of the link, and its own number.
    ///
    /// # Errors
    /// See [`Trunk::dialled`].
    pub(crate) fn spare(
        link: Arc<Link>,
        (index, number): (u8, u16),
        mut tls: Box<TlsStream<Socket>>,
        ground: &Ground,
        asked: Option<Asked>,
    ) -> io::Result<Trunk> {
        tls.get_mut().0.leave()?;
        Ok(Trunk {
            link,
            side: Side::Acceptor,
            index,
            tls,
            interval: ground.interval,
            keys: Keys::new(&ground.sink.metrics.rekeys, "spare"),
            what: What::Spare {
                number,
                _asked: asked,
            },
            _counted: Counted::new(&ground.sink.metrics.spares),
        })
    }

    #[cfg(test)]
    fn is_spare(&self) -> bool {
        matches!(self.what, What::Spare { .. })
    }

    /// The node at the other end.
    #[must_use]
    pub fn peer(&self) -> &Identity {
        &self.link.peer
    }

    /// Its number among those of its link, from 0: each is to be served by another worker.
    #[must_use]
    pub fn index(&self) -> usize {
        usize::from(self.index)
    }
}

/// A data connection that is served.
#[derive(Debug)]
struct Served {
    link: Arc<Link>,
    index: u8,
    mux: Rc<RefCell<Mux>>,
    shelf: Rc<Shelf>,
    heard: Rc<Cell<Instant>>,
    interval: Duration,
}

impl Served {
    /// May streams be opened on it?
    fn is_well(&self) -> bool {
        let silence = runtime::now().since(self.heard.get());
        self.link.is_up()
            && silence < self.interval * DeadDetector::MISSES
            && !self.mux.borrow().is_over()
    }
}

/// The data connections of one thread, and how to open a stream on them.
#[derive(Clone, Debug, Default)]
pub struct Trunks {
    served: Rc<RefCell<Vec<Served>>>,
    leaving: Rc<Cell<bool>>,
    routes: Routes,
    seal: Seal,
    /// All links: some have no data connections.
    table: Arc<ArcSwap<LinkTable>>,
    turns: Rc<Cell<Turns>>,
}

impl Trunks {
    /// None yet.
    pub(crate) fn new(routes: Routes, seal: Seal, table: Arc<ArcSwap<LinkTable>>) -> Self {
        Trunks {
            routes,
            seal,
            table,
            ..Trunks::default()
        }
    }

    /// The ways to sites that are reached over others.
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// What seals streams that go over others.
    #[must_use]
    pub const fn seal(&self) -> &Seal {
        &self.seal
    }

    /// Serve a connection on this thread until it is gone; streams that the other side opens are
    /// given to `on_stream`. Poll it on the thread's runtime.
    pub async fn serve(&self, trunk: Trunk, on_stream: impl Fn(TrunkIncoming)) {
        let Trunk {
            link,
            side,
            index,
            mut tls,
            interval,
            keys,
            what,
            _counted,
        } = trunk;
        if self.leaving.get() {
            return;
        }
        if let Err(error) = tls.get_mut().0.arrive() {
            tracing::debug!(peer = %link.peer, %error, "a data connection is lost");
            return;
        }
        let (aside, dials, _gone) = match what {
            What::Data {
                aside,
                dials,
                _gone,
            } => (aside, dials, _gone),
            What::Spare { number, _asked } => {
                drop(_asked);
                return self.serve_spare(&link, (index, number), tls, keys).await;
            }
        };
        let mux = Rc::new(RefCell::new(Mux::new(side)));
        mux.borrow_mut().greet();
        let shelf = Rc::new(Shelf::default());
        let heard = Rc::new(Cell::new(runtime::now()));
        // The other side has lost the one before, and may know it before we do.
        for before in self.served.borrow().iter() {
            if Arc::ptr_eq(&before.link, &link) && before.index == index {
                before
                    .mux
                    .borrow_mut()
                    .close(io::ErrorKind::ConnectionReset);
            }
        }
        self.served.borrow_mut().push(Served {
            link: Arc::clone(&link),
            index,
            mux: Rc::clone(&mux),
            shelf: Rc::clone(&shelf),
            heard: Rc::clone(&heard),
            interval,
        });
        // Also if this is dropped.
        let _leave = Leave(self, &mux);
        let driver = Driver {
            link: &link,
            mux: &mux,
            shelf: &shelf,
            dials,
            aside,
            heard: &heard,
            counted: tls.get_ref().0.segments().unwrap_or_default(),
            tls,
            inbound: BytesMut::new(),
            flow: Flow::new(Arc::clone(&link.state)),
            said: None,
            said_load: None,
            broken: None,
            outlives: false,
            keys,
            on_stream,
        };
        let ended = driver.run(side, interval).await;
        tracing::debug!(peer = %link.peer, link = %link.id, error = %ended, "data connection ended");
        match ended.kind() == io::ErrorKind::UnexpectedEof {
            true => mux.borrow_mut().ebb(ended.kind()),
            false => mux.borrow_mut().close(ended.kind()),
        }
    }

    /// Serve a spare connection until it, or the one that it belongs to, is gone.
    async fn serve_spare(
        &self,
        link: &Arc<Link>,
        (index, number): (u8, u16),
        tls: Box<TlsStream<Socket>>,
        keys: Keys,
    ) {
        let found = {
            let served = self.served.borrow();
            let is_its = |served: &&Served| {
                let same = Arc::ptr_eq(&served.link, link) && served.index == index;
                same && !served.mux.borrow().is_over()
            };
            let found = served.iter().find(is_its);
            found.map(|served| (Rc::clone(&served.mux), Rc::clone(&served.shelf)))
        };
        let Some((mux, shelf)) = found.filter(|(mux, _)| mux.borrow_mut().spare_comes(number))
        else {
            return;
        };
        let flow = Flow::new(Arc::clone(&link.state));
        let spare = Spare::new(number, Rc::clone(&shelf), tls, keys, flow);
        shelf.put(&spare);
        // Also if this is dropped.
        let _off = Off(&mux, &shelf, &spare);
        if let Err(error) = spare.run(&mux).await {
            if error.kind() == io::ErrorKind::InvalidData {
                tracing::warn!(peer = %link.peer, %error, "a spare connection is cut");
            }
            tracing::debug!(peer = %link.peer, link = %link.id, %error, "spare connection ended");
        }
    }

    /// Opens a stream to `site` on a data connection of one of the links there, each as often as it
    /// is good, and waits for the other side to accept it: a round trip to where it ends. Dropping the
    /// future gives it up.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::NoLink`] also if there is a link, and no data connection of
    /// it on this thread, or if it is the turn of a link that has none: [`crate::Links::open`] then.
    pub async fn open(&self, site: &SiteName, head: &StreamHead) -> Result<TrunkStream, OpenError> {
        let text = head.to_text().map_err(OpenError::Head)?;
        let Some(stream) = self.begin(site, &text) else {
            return Err(OpenError::NoLink(site.clone()));
        };
        let answer = poll_fn(|cx| stream.mux.borrow_mut().poll_answer(stream.id, cx));
        let Ok(answer) = tokio::time::timeout(OPEN_TIMEOUT, answer).await else {
            return Err(OpenError::Timeout { head_sent: true });
        };
        match answer {
            Ok(Answer::Yes) => Ok(stream),
            Ok(Answer::No(status, reason)) => Err(OpenError::Refused { status, reason }),
            Err(source) => Err(OpenError::Closed {
                head_sent: true,
                source,
            }),
        }
    }

    /// Has each connection end once what was written is sent and the other side has heard it; those
    /// that come later are closed.
    pub fn leave(&self) {
        self.leaving.set(true);
        for served in self.served.borrow().iter() {
            served.mux.borrow_mut().leave();
        }
    }

    /// The connection of the link whose turn it is; of several of one link the idlest.
    fn begin(&self, site: &SiteName, head: &[u8]) -> Option<TrunkStream> {
        let served = self.served.borrow();
        let to_site = served
            .iter()
            .filter(|served| served.link.peer.site() == Some(site) && served.is_well());
        let table = self.table.load();
        let links = to_site.clone().map(|served| &served.link);
        let mut turns = self.turns.get();
        let turn = next(&mut turns, links.clone().chain(table.over_quic(site)));
        self.turns.set(turns);
        let link = links.clone().nth(turn?)?;
        let best = to_site
            .filter(|served| Arc::ptr_eq(&served.link, link))
            .min_by_key(|served| served.mux.borrow().streams())?;
        let id = best.mux.borrow_mut().open(head)?;
        Some(TrunkStream {
            mux: Rc::clone(&best.mux),
            shelf: Rc::clone(&best.shelf),
            id,
            live: best.link.state.live(false),
        })
    }
}

/// Takes a connection out of the thread's when it ends.
struct Leave<'a>(&'a Trunks, &'a Rc<RefCell<Mux>>);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let Leave(trunks, mux) = self;
        if !mux.borrow().is_over() {
            mux.borrow_mut().close(io::ErrorKind::ConnectionAborted);
        }
        trunks
            .served
            .borrow_mut()
            .retain(|served| !Rc::ptr_eq(&served.mux, mux));
    }
}

/// Takes a spare connection from its data connection when it ends.
struct Off<'a>(&'a Rc<RefCell<Mux>>, &'a Shelf, &'a Rc<Spare>);

impl Drop for Off<'_> {
    fn drop(&mut self) {
        let Off(mux, shelf, spare) = self;
        shelf.take(spare);
        mux.borrow_mut().spare_gone(spare.number());
    }
}

struct Driver<'a, F> {
    link: &'a Arc<Link>,
    mux: &'a Rc<RefCell<Mux>>,
    shelf: &'a Rc<Shelf>,
    dials: Dials,
    aside: Counter,
    heard: &'a Cell<Instant>,
    tls: Box<TlsStream<Socket>>,
    inbound: BytesMut,
    /// What TCP had counted at the last look.
    counted: Segments,
    /// What the other side knows of what this side loses on the link; `None`: not from here.
    said: Option<Loss>,
    /// The same of how full the link is for this side.
    said_load: Option<Load>,
    /// What it carries.
    flow: Flow,
    /// Why nothing can be sent any more. What the other side said before is still read.
    broken: Option<io::Error>,
    /// The link is gone, and not by us: what runs here may go on, and nothing begins.
    outlives: bool,
    keys: Keys,
    on_stream: F,
}

impl<F: Fn(TrunkIncoming)> Driver<'_, F> {
    /// Read, write and ping until something ends it.
    async fn run(mut self, side: Side, every: Duration) -> io::Error {
        let mut detector = DeadDetector::new(runtime::now(), every * PATIENCE_WITH_ONE);
        let mut ticks = interval(every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut down = pin!(self.link.state.went_down());
        let mut ebb: Option<Pin<Box<Sleep>>> = None;
        let mut lingers = false;
        poll_fn(|cx| {
            let heard = match self.poll_in(cx) {
                Ok(heard) => heard,
                Err(error) => return Poll::Ready(self.broken.take().unwrap_or(error)),
            };
            if heard {
                self.heard.set(runtime::now());
            }
            if ebb.is_none()
                && let Poll::Ready(gone) = down.as_mut().poll(cx)
            {
                // Who has died closes this connection as well; who has not heard us in time does not.
                self.outlives = gone != Gone::Ended;
                ebb = Some(Box::pin(sleep(match self.outlives {
                    true => LINGER,
                    false => Duration::ZERO,
                })));
                if gone == Gone::Silent {
                    lingers = true;
                    self.mux.borrow_mut().linger();
                }
            }
            // As long as it goes on it may take its time.
            let heard = self.shelf.take_heard() || heard;
            let leaves = self.mux.borrow().is_leaving();
            if let (true, Some(ebb)) = (heard && self.outlives && !leaves, &mut ebb) {
                ebb.as_mut().reset(tokio::time::Instant::now() + LINGER);
            }
            let ebbed = ebb
                .as_mut()
                .is_some_and(|ebb| ebb.as_mut().poll(cx).is_ready());
            if ebbed || self.mux.borrow().is_over() {
                return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
            }
            if self.outlives && self.mux.borrow().streams() == 0 {
                // What they wrote is still to be sent.
                self.mux.borrow_mut().leave();
            }
            while ticks.poll_tick(cx).is_ready() {
                self.count();
                self.keys.look(|| self.tls.rekey());
                self.shelf.tick(&self.link.state, lingers);
                let mut mux = self.mux.borrow_mut();
                mux.tick();
                self.aside.inc_by(mux.take_asides());
                drop(mux);
                // A router that translates remembers what comes from inside.
                if side == Side::Dialler {
                    self.mux.borrow_mut().ping();
                }
                detector.handle_heard(self.heard.get());
                if self.outlives {
                    if self.link.state.is_cut() {
                        return Poll::Ready(io::ErrorKind::ConnectionAborted.into());
                    }
                    let silence = runtime::now().since(self.heard.get());
                    if !lingers && silence >= every * DeadDetector::MISSES {
                        lingers = true;
                        self.mux.borrow_mut().linger();
                    }
                }
                if lingers {
                    continue;
                }
                if runtime::now() >= detector.poll_timeout()
                    && detector.handle_timeout(runtime::now()) == Liveness::Dead
                {
                    return Poll::Ready(io::ErrorKind::TimedOut.into());
                }
            }
            if self.broken.is_none()
                && let Poll::Ready(Err(error)) = self.poll_out(cx)
            {
                self.mux.borrow_mut().mute(error.kind());
                self.broken = Some(error);
            }
            let mut mux = self.mux.borrow_mut();
            if mux.wants_spare() && self.dials.ask() {
                mux.dials_spare();
            }
            mux.watch(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Tell the link what TCP has counted here, and the other side what the link loses.
    fn count(&mut self) {
        let state = &self.link.state;
        if let Some(now) = self.tls.get_ref().0.segments() {
            let sent = now.sent.wrapping_sub(self.counted.sent);
            let lost = now.lost.saturating_sub(self.counted.lost);
            state.count(sent, lost);
            self.flow.handle_counted(runtime::now(), &now);
            let lost = now.lost.max(self.counted.lost);
            self.counted = Segments { lost, ..now };
        }
        let loss = state.own_loss();
        if self.said.is_none_or(|said| standing::is_news(loss, said)) {
            self.said = Some(loss);
            self.mux.borrow_mut().say_loss(loss);
        }
        if let Some(loss) = self.mux.borrow_mut().take_their_loss() {
            state.set_their_loss(loss);
        }
        let load = state.own_load();
        if self.said_load != Some(load) {
            self.said_load = Some(load);
            self.mux.borrow_mut().say_load(load);
        }
        if let Some(load) = self.mux.borrow_mut().take_their_load() {
            state.set_their_load(load);
        }
    }

    /// Take in what has come; did anything?
    fn poll_in(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut any = false;
        for _ in 0..READS {
            // A record is read at a time, and some are kept where they are.
            if self.inbound.capacity() - self.inbound.len() < RECORD {
                self.inbound.reserve(READ);
            }
            let read = pin!(self.tls.read_buf(&mut self.inbound)).poll(cx);
            let Poll::Ready(read) = read else {
                return Ok(any);
            };
            if read? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            any = true;
            let received = self.mux.borrow_mut().receive(&mut self.inbound);
            received.map_err(|violation| {
                tracing::warn!(peer = %self.link.peer, %violation, "a data connection is cut");
                io::Error::new(io::ErrorKind::InvalidData, violation)
            })?;
            self.hand_out();
        }
        cx.waker().wake_by_ref();
        Ok(any)
    }

    fn hand_out(&mut self) {
        loop {
            // Not held while the stream is taken.
            let opened = self.mux.borrow_mut().arrived();
            let Some(opened) = opened else { return };
            let stream = TrunkStream {
                mux: Rc::clone(self.mux),
                shelf: Rc::clone(self.shelf),
                id: opened.id,
                live: self.link.state.live(false),
            };
            if self.outlives {
                let mut mux = stream.mux.borrow_mut();
                mux.refuse(
                    opened.id,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the link is down",
                );
                continue;
            }
            let head = StreamHead::from_text(&opened.head);
            let head = head.and_then(|head| match head.is_reserved() {
                true => Err(HeadError::Authority),
                false => Ok(head),
            });
            match head {
                Ok(head) => (self.on_stream)(TrunkIncoming {
                    peer: self.link.peer.clone(),
                    head,
                    stream,
                }),
                Err(error) => {
                    let mut mux = stream.mux.borrow_mut();
                    mux.refuse(opened.id, error.status(), &error.to_string());
                }
            }
        }
    }

    /// Send what is there, and say goodbye if that is all there will be; ready when all is sent.
    fn poll_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut mux = self.mux.borrow_mut();
        while !mux.out().is_empty() {
            match ready!(Pin::new(&mut self.tls).poll_write(cx, mux.out()))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => mux.sent(count),
            }
        }
        ready!(Pin::new(&mut self.tls).poll_flush(cx))?;
        let ends = mux.is_leaving() || mux.is_spent() && mux.streams() == 0;
        // What is aside is sent before the goodbye.
        if ends && !mux.sends_aside() {
            // The other side closes when it has read all: who closes before loses what is under way.
            mux.leave();
            mux.mute(io::ErrorKind::ConnectionAborted);
            return Pin::new(&mut self.tls).poll_shutdown(cx);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
