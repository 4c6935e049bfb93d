//! The links that are up, and how to open a stream on them from any thread.

use std::{
    collections::BTreeMap,
    io,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use base::SiteName;
use bytes::Bytes;
use h2::client::SendRequest;
use http::StatusCode;
use path::{LinkQuality, Load, LoadEstimator, Loss, Turns};
use pki::Identity;
use runtime::h2io::{H2Stream, io_error};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::{
    config::Uplink,
    event::{DownReason, Gone, LinkId},
    head::{self, HeadError, StreamHead},
    metrics::PacketMetrics,
    packets::{Outlet, PacketError},
    quic::{self, QuicStream},
    routes::Routes,
    seal::Seal,
    standing::{Stand, Standing},
    trunk::Trunks,
};

/// How long the other side may take to accept or refuse a stream.
pub const OPEN_TIMEOUT: Duration = Duration::from_secs(5);

/// One link that is up. Reading it takes no lock.
#[derive(Debug)]
pub struct Link {
    /// Its number in this process.
    pub id: LinkId,
    /// The node at the other end.
    pub peer: Identity,
    /// Did this side dial?
    pub dialled: bool,
    /// Over what it goes.
    pub transport: Transport,
    /// Over which of the dialler's uplinks it goes, if that has several.
    pub uplink: Option<Uplink>,
    /// It is to go before a link of another transport.
    pub(crate) first: bool,
    /// Its number on the wire, which the dialler has drawn ([`crate::preface`]).
    pub(crate) wire_id: u64,
    /// The number that the process at the other end has drawn; 0: it does not say.
    pub(crate) process: u16,
    pub(crate) state: Arc<LinkState>,
    pub(crate) opener: Opener,
    pub(crate) control: Opener,
    /// How packets leave on it, if the other side takes any.
    pub(crate) outlet: Option<Outlet>,
}

/// Over what a link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TLS over TCP; between the parts of a node, pipes.
    Tls,
    /// QUIC.
    Quic,
}

/// What opens streams on a link.
#[derive(Clone, Debug)]
pub(crate) enum Opener {
    H2(SendRequest<Bytes>),
    Quic(quic::Opener),
}

/// The moving parts of a link.
#[derive(Debug, Default)]
pub(crate) struct LinkState {
    rtt_ns: AtomicU64,
    min_rtt_ns: AtomicU64,
    jitter_ns: AtomicU64,
    /// There and back ([`Loss`]); of what this side sends; of what the other side says it sends.
    loss: AtomicU16,
    own_loss: AtomicU16,
    their_loss: AtomicU16,
    /// The same in percent: how full it is ([`Load`]).
    load: AtomicU8,
    own_load: AtomicU8,
    their_load: AtomicU8,
    /// Octets a second that this side sends, all its connections together, and how many of them wait
    /// for the network; the first smoothed; and how many it could be, 0: that is not known.
    flows: AtomicU64,
    waiting: AtomicUsize,
    rate: AtomicU64,
    capacity: AtomicU64,
    /// Octets a packet may have; 0: it carries none.
    mtu: AtomicU16,
    /// The other side is to open nothing on it any more.
    retires: AtomicBool,
    /// Another link to the same site carries requests.
    beside: AtomicBool,
    /// What outlives it is to end.
    cut: AtomicBool,
    /// How this process stands, and the one at the other end.
    own: Stand,
    theirs: Stand,
    /// Told when the latter turns; whether it did since somebody looked; whether it was said at all,
    /// beside what the link began with.
    turned: Notify,
    turns: AtomicBool,
    settled: AtomicBool,
    samples: AtomicU64,
    /// Segments that its data connections sent, and lost.
    sent: AtomicU64,
    lost: AtomicU64,
    /// How much it carries of what goes to its site ([`path::share`]).
    share: AtomicU32,
    /// Told when that becomes nothing.
    pub(crate) rests: Notify,
    /// What was sent is not acknowledged in time.
    doubted: AtomicBool,
    /// Streams that there were, and those that are alive.
    opened: AtomicU64,
    streams: AtomicUsize,
    /// Of these, the reserved ones.
    reserved: AtomicUsize,
    down: AtomicBool,
    /// The other side has closed it: what it said last may still be under way.
    closed: AtomicBool,
    /// Nothing was heard on it: it may be again.
    silent: AtomicBool,
    /// Told when it goes down.
    gone: Notify,
}

impl LinkState {
    /// That of a link between processes that stand so.
    pub(crate) fn between(own: &Stand, theirs: Standing) -> Arc<Self> {
        Arc::new(LinkState {
            own: own.clone(),
            theirs: Stand::new(theirs),
            ..LinkState::default()
        })
    }

    pub(crate) fn store(&self, quality: &LinkQuality) {
        let ns = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.rtt_ns.store(ns(quality.rtt), Ordering::Relaxed);
        self.min_rtt_ns
            .store(ns(quality.min_rtt), Ordering::Relaxed);
        self.jitter_ns.store(ns(quality.jitter), Ordering::Relaxed);
        self.loss.store(quality.loss.0, Ordering::Relaxed);
        self.load.store(quality.load.percent(), Ordering::Relaxed);
        self.samples.store(quality.samples, Ordering::Relaxed);
    }

    /// A data connection sent so many segments more, and lost so many.
    pub(crate) fn count(&self, sent: u32, lost: u32) {
        self.sent.fetch_add(sent.into(), Ordering::Relaxed);
        self.lost.fetch_add(lost.into(), Ordering::Relaxed);
    }

    /// What data connections sent and lost.
    pub(crate) fn counted(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.sent), load(&self.lost))
    }

    /// A connection carries something else than before: octets a second, and whether what is to be
    /// sent on it waits for the network.
    pub(crate) fn flow(&self, before: (u64, bool), now: (u64, bool)) {
        let more = now.0.wrapping_sub(before.0);
        self.flows.fetch_add(more, Ordering::Relaxed);
        match (before.1, now.1) {
            (false, true) => self.waiting.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.waiting.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => 0,
        };
    }

    /// What its connections carry, and whether one of them waits.
    pub(crate) fn flows(&self) -> (u64, bool) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        (self.flows.load(Ordering::Relaxed), waiting > 0)
    }

    /// What this side sends, and could.
    pub(crate) fn set_loaded(&self, loaded: &LoadEstimator) {
        let capacity = loaded.capacity().map_or(0, |capacity| capacity.max(1));
        self.rate.store(loaded.rate(), Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
        let load = loaded.load().percent();
        self.own_load.store(load, Ordering::Relaxed);
    }

    /// How full it is for this side: what the other side is told.
    pub(crate) fn own_load(&self) -> Load {
        Load::of(self.own_load.load(Ordering::Relaxed))
    }

    /// How full it is for the other side, as that says.
    pub(crate) fn set_their_load(&self, load: Load) {
        self.their_load.store(load.percent(), Ordering::Relaxed);
    }

    pub(crate) fn their_load(&self) -> Load {
        Load::of(self.their_load.load(Ordering::Relaxed))
    }

    pub(crate) fn set_own_loss(&self, loss: Loss) {
        self.own_loss.store(loss.0, Ordering::Relaxed);
    }

    /// What it carries of packets.
    pub(crate) fn set_mtu(&self, mtu: Option<u16>) {
        self.mtu.store(mtu.unwrap_or_default(), Ordering::Relaxed);
    }

    /// Streams alive on it.
    pub(crate) fn live_streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Whether another link takes its place. True if it is news.
    pub(crate) fn set_retires(&self, retires: bool) -> bool {
        self.retires.swap(retires, Ordering::Relaxed) != retires
    }

    /// What the other side is told of what is lost of what this side sends: all, if the link is not
    /// to be used.
    pub(crate) fn own_loss(&self) -> Loss {
        match self.retires.load(Ordering::Relaxed) {
            true => Loss(u16::MAX),
            false => {
                let measured = Loss(self.own_loss.load(Ordering::Relaxed));
                self.own.now().word(measured)
            }
        }
    }

    /// What the other side says of what it loses, and so of how it stands.
    pub(crate) fn set_their_loss(&self, said: Loss) {
        let standing = self.theirs.now().after(said);
        if standing == Standing::Serves {
            self.their_loss.store(said.0, Ordering::Relaxed);
        }
        self.settled.store(true, Ordering::Release);
        if self.theirs.turn(standing) {
            self.turns.store(true, Ordering::Release);
            self.turned.notify_waiters();
        }
    }

    /// Ends what outlives it.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// Does another link to the same site carry requests?
    pub(crate) fn set_beside(&self, beside: bool) {
        self.beside.store(beside, Ordering::Relaxed);
    }

    /// How the process at the other end stands.
    pub(crate) fn theirs(&self) -> Standing {
        self.theirs.now()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down.load(Ordering::Acquire)
    }

    /// Has that changed since this was asked last?
    pub(crate) fn take_turn(&self) -> bool {
        self.turns.swap(false, Ordering::AcqRel)
    }

    /// Waits until the process at the other end leaves, or the link is down.
    pub(crate) async fn is_left(&self) {
        let mut gone = pin!(self.gone.notified());
        gone.as_mut().enable();
        loop {
            let mut turned = pin!(self.turned.notified());
            // From here on nothing is missed.
            turned.as_mut().enable();
            if self.theirs() == Standing::Leaves || self.down.load(Ordering::Acquire) {
                return;
            }
            tokio::select! {
                () = turned => {}
                () = gone.as_mut() => return,
            }
        }
    }

    pub(crate) fn their_loss(&self) -> Loss {
        Loss(self.their_loss.load(Ordering::Relaxed))
    }

    pub(crate) fn set_share(&self, share: u32) {
        self.share.store(share, Ordering::Release);
        if share == 0 {
            self.rests.notify_waiters();
        }
    }

    pub(crate) fn share(&self) -> u32 {
        self.share.load(Ordering::Acquire)
    }

    /// True if it is news.
    pub(crate) fn doubt(&self, doubted: bool) -> bool {
        self.doubted.swap(doubted, Ordering::AcqRel) != doubted
    }

    pub(crate) fn set_down(&self, reason: DownReason) {
        if reason == DownReason::Closed {
            self.closed.store(true, Ordering::Release);
        }
        if reason == DownReason::Silent {
            self.silent.store(true, Ordering::Release);
        }
        self.down.store(true, Ordering::Release);
        self.gone.notify_waiters();
    }

    /// Waits until the link is down, and how.
    pub(crate) async fn went_down(&self) -> Gone {
        let mut gone = pin!(self.gone.notified());
        // From here on nothing is missed.
        gone.as_mut().enable();
        if !self.down.load(Ordering::Acquire) {
            gone.await;
        }
        if self.closed.load(Ordering::Acquire) {
            Gone::Closed
        } else if self.silent.load(Ordering::Acquire) {
            Gone::Silent
        } else {
            Gone::Ended
        }
    }

    pub(crate) fn live(self: &Arc<Self>, reserved: bool) -> LiveStream {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.streams.fetch_add(1, Ordering::AcqRel);
        if reserved {
            self.reserved.fetch_add(1, Ordering::AcqRel);
        }
        LiveStream {
            state: Arc::clone(self),
            reserved,
        }
    }
}

/// Counts a stream as long as it lives.
#[derive(Debug)]
pub(crate) struct LiveStream {
    state: Arc<LinkState>,
    reserved: bool,
}

impl LiveStream {
    pub(crate) fn link(&self) -> Arc<LinkState> {
        Arc::clone(&self.state)
    }

    /// Does its link carry nothing new, since others to the same site are so much better?
    pub(crate) fn is_stale(&self) -> bool {
        self.state.share() == 0
    }
}

impl Drop for LiveStream {
    fn drop(&mut self) {
        if self.reserved {
            self.state.reserved.fetch_sub(1, Ordering::AcqRel);
        }
        self.state.streams.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Link {
    /// What is measured; the fields are read one by one and may be of neighbouring samples. On one
    /// that is not to be used any more all is lost.
    #[must_use]
    pub fn quality(&self) -> Option<LinkQuality> {
        let load = |ns: &AtomicU64| Duration::from_nanos(ns.load(Ordering::Relaxed));
        let samples = self.state.samples.load(Ordering::Relaxed);
        (samples > 0).then(|| LinkQuality {
            rtt: load(&self.state.rtt_ns),
            min_rtt: load(&self.state.min_rtt_ns),
            jitter: load(&self.state.jitter_ns),
            loss: match self.state.retires.load(Ordering::Relaxed) {
                true => Loss(u16::MAX),
                false => Loss(self.state.loss.load(Ordering::Relaxed)),
            },
            load: Load::of(self.state.load.load(Ordering::Relaxed)),
            samples,
        })
    }

    /// Octets a second that this side sends on it, averaged over a second.
    #[must_use]
    pub fn rate(&self) -> u64 {
        self.state.rate.load(Ordering::Relaxed)
    }

    /// Octets a second that this side could send on it, if that was seen in the last minute.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        let capacity = self.state.capacity.load(Ordering::Relaxed);
        (capacity > 0).then_some(capacity)
    }

    /// Octets that a packet may have which goes over it; `None`: it carries none, since the other side
    /// takes none, or as long as the stream for them is not there. Over QUIC it follows the path
    /// (RFC 8899), and grows from 1157 as that is probed; over TLS it is 1500.
    #[must_use]
    pub fn mtu(&self) -> Option<u16> {
        let mtu = self.state.mtu.load(Ordering::Relaxed);
        (mtu > 0).then_some(mtu)
    }

    /// Has the link gone down since the table was made?
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.state.down.load(Ordering::Acquire)
    }

    /// How the process at the other end stands, while one takes another's place.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.state.theirs()
    }

    /// Is it measured, and has the other side said how it stands? Then streams may go over it as
    /// they will.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.state.settled.load(Ordering::Acquire) && self.quality().is_some()
    }

    /// Is it likely that nothing passes any more? Nothing that was sent is acknowledged, though it
    /// is not long enough to give it up. What begins now had better go elsewhere.
    #[must_use]
    pub fn is_doubted(&self) -> bool {
        self.state.doubted.load(Ordering::Acquire)
    }

    /// Streams that there were on it since it is up, of both directions.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.state.opened.load(Ordering::Relaxed)
    }

    /// Streams alive on it, of both directions.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.state.live_streams()
    }

    /// Streams that carry somebody's request. Reserved streams live as long as the link, so a
    /// drain does not wait for them.
    pub(crate) fn requests(&self) -> usize {
        let reserved = self.state.reserved.load(Ordering::Acquire);
        self.streams().saturating_sub(reserved)
    }

    /// Is it to be looked at often: does it carry requests, or another link to the same site, which
    /// would go over this one next?
    pub(crate) fn is_watched(&self) -> bool {
        self.requests() > 0 || self.state.beside.load(Ordering::Relaxed)
    }

    /// How much it carries of what goes to its site, beside other links there: 1000 if it is the
    /// best, less as it is worse, 0 if others are so much better that it carries nothing new.
    #[must_use]
    pub fn share(&self) -> u32 {
        self.state.share()
    }

    /// Is it the link over the other transport, with the same process of the same node over the
    /// same uplink?
    pub(crate) fn is_twin(&self, other: &Link) -> bool {
        self.transport != other.transport
            && self.peer == other.peer
            && self.dialled == other.dialled
            && self.uplink == other.uplink
            && self.process == other.process
            && self.standing() == other.standing()
    }

    /// How long the way over it counts, once it is measured.
    pub(crate) fn cost(&self) -> Option<Duration> {
        let times = self.uplink.as_ref().map_or(1, |uplink| uplink.cost);
        self.quality()
            .map(|quality| quality.cost().saturating_mul(times.into()))
    }

    /// Of those that carry packets, the smallest first: not doubted, to be used at all, to a process
    /// that serves, cheap.
    fn packet_rank(&self) -> (bool, bool, u8, Duration) {
        let standing = match self.standing() {
            Standing::Serves => 0,
            Standing::Leaves => 1,
            Standing::StandsBy => 2,
        };
        let cost = self.cost().unwrap_or(Duration::MAX);
        (self.is_doubted(), self.is_given_up(), standing, cost)
    }

    /// Either side says that nothing is to begin on it.
    fn is_given_up(&self) -> bool {
        let quality = self.quality();
        quality.is_some_and(|quality| quality.loss == Loss(u16::MAX))
    }

    /// The smallest first: not doubted, carrying something, cheap.
    pub(crate) fn rank(&self) -> (bool, bool, Duration) {
        let cost = self.cost().unwrap_or(Duration::MAX);
        (self.is_doubted(), self.share() == 0, cost)
    }
}

/// All links that are up, by site.
#[derive(Debug, Default)]
pub struct LinkTable {
    sites: BTreeMap<SiteName, Vec<Arc<Link>>>,
}

impl LinkTable {
    pub(crate) fn new(links: impl Iterator<Item = Arc<Link>>) -> Self {
        let mut sites: BTreeMap<SiteName, Vec<Arc<Link>>> = BTreeMap::new();
        for link in links {
            if let Some(site) = link.peer.site() {
                sites.entry(site.clone()).or_default().push(link);
            }
        }
        LinkTable { sites }
    }

    /// Sites and their links, by name.
    pub fn sites(&self) -> impl Iterator<Item = (&SiteName, &[Arc<Link>])> {
        self.sites.iter().map(|(site, links)| (site, &**links))
    }

    /// Every link.
    pub fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.sites.values().flatten()
    }

    /// The links to a site.
    #[must_use]
    pub fn site(&self, site: &SiteName) -> &[Arc<Link>] {
        self.sites.get(site).map_or(&[], |links| links)
    }

    /// The best link to a site: one that is doubted only if all are, then by distance and loss.
    #[must_use]
    pub fn best(&self, site: &SiteName) -> Option<&Arc<Link>> {
        self.site(site)
            .iter()
            .filter(|link| link.is_up())
            .min_by_key(|link| link.rank())
    }

    /// Of the links to a site that carry what begins the one that is least full, and of these the
    /// best: as long as it has room the site is not far.
    #[must_use]
    pub fn idlest(&self, site: &SiteName) -> Option<&Arc<Link>> {
        let carries = |link: &&Arc<Link>| link.is_up() && link.share() > 0;
        let load = |link: &Link| link.quality().map(|quality| quality.load);
        let carrying = self.site(site).iter().filter(carries);
        let idlest = carrying.min_by_key(|link| (load(link).unwrap_or_default(), link.rank()));
        idlest.or_else(|| self.best(site))
    }

    /// The link to a site over which packets go ([`Links::send`]): the best, over QUIC where it has
    /// that, as a stream holds up all that come after one that is lost.
    #[must_use]
    pub fn carrier(&self, site: &SiteName) -> Option<&Arc<Link>> {
        let links = self.site(site).iter();
        let links = links.filter(|link| link.is_up() && link.mtu().is_some());
        let best = links.clone().min_by_key(|link| link.packet_rank())?;
        let over_quic = links.clone().find(|link| {
            let is_good = !link.is_doubted() && !link.is_given_up();
            link.transport == Transport::Quic && link.is_twin(best) && is_good
        });
        over_quic.or(Some(best))
    }

    /// The links to a site that have no data connections.
    pub(crate) fn over_quic(&self, site: &SiteName) -> impl Iterator<Item = &Arc<Link>> + Clone {
        let links = self.site(site).iter();
        links.filter(|link| link.transport == Transport::Quic && link.is_up())
    }

    /// Is there a link to the site?
    #[must_use]
    pub fn reaches(&self, site: &SiteName) -> bool {
        self.best(site).is_some()
    }
}

/// Opens streams; cheap to clone, usable from any thread.
#[derive(Clone, Debug)]
pub struct Links {
    table: Arc<ArcSwap<LinkTable>>,
    routes: Routes,
    seal: Seal,
    /// Streams that were opened here.
    opened: Arc<AtomicU32>,
    metrics: PacketMetrics,
}

/// Why a stream could not be opened. In no case was a byte of the stream itself sent: the head
/// goes first and alone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The head does not keep its bounds.
    #[error("stream head is not valid")]
    Head(#[source] HeadError),
    /// There is no link to that site.
    #[error("no link to site {0}")]
    NoLink(SiteName),
    /// The other side said no.
    #[error("stream refused with status {status}: {reason}")]
    Refused {
        /// An HTTP status.
        status: StatusCode,
        /// Its words, at most 256 bytes; may be empty.
        reason: String,
    },
    /// The link went down, or the other side dropped the stream without an answer.
    #[error("link closed while a stream was opened")]
    Closed {
        /// Whether the head may have arrived.
        head_sent: bool,
        /// What the link said.
        #[source]
        source: io::Error,
    },
    /// No answer within [`OPEN_TIMEOUT`].
    #[error("stream was not answered in time")]
    Timeout {
        /// Whether the head may have arrived.
        head_sent: bool,
    },
}

impl OpenError {
    /// Did the other side certainly see nothing, not even the head?
    #[must_use]
    pub const fn nothing_sent(&self) -> bool {
        match self {
            OpenError::Head(_) | OpenError::NoLink(_) => true,
            OpenError::Refused { .. } => false,
            OpenError::Closed { head_sent, .. } | OpenError::Timeout { head_sent } => !*head_sent,
        }
    }
}

impl Links {
    pub(crate) fn new(table: Arc<ArcSwap<LinkTable>>, seal: Seal, metrics: PacketMetrics) -> Self {
        Links {
            table,
            routes: Routes::default(),
            seal,
            opened: Arc::default(),
            metrics,
        }
    }

    /// The links that are up now.
    #[must_use]
    pub fn table(&self) -> Arc<LinkTable> {
        self.table.load_full()
    }

    /// The ways to sites that are reached over others.
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Opens a stream to `site` on one of the links there that have no data connections
    /// ([`Trunks::open`] asks the others), else on any, each as often as it is good (on the next best
    /// if that one just went down), and waits for the other side to accept it: one round trip.
    /// Dropping the future gives the stream up.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, site: &SiteName, head: &StreamHead) -> Result<Stream, OpenError> {
        let turn = self.opened.fetch_add(1, Ordering::Relaxed);
        self.open_on(site, head, Some(Turns::after(turn)), |link| {
            link.opener.clone()
        })
        .await
    }

    /// Sends a packet to the neighbour at `site` over the best link that carries packets, with a label
    /// that says there what it belongs to. It arrives at most once, or not at all, and others may pass
    /// it. Never waits, and takes no lock but that of the link's connection over QUIC.
    ///
    /// # Errors
    /// Why it was not sent, and so is lost ([`PacketError`]); that is counted.
    pub fn send(&self, site: &SiteName, label: u32, packet: &[u8]) -> Result<(), PacketError> {
        let table = self.table.load();
        let sent = match table.carrier(site) {
            Some(link) => link.send(label, packet),
            None if table.reaches(site) => Err(PacketError::NoPackets),
            None => Err(PacketError::NoLink),
        };
        self.metrics.sent(packet.len(), sent);
        sent
    }

    /// What serves the data connections of a thread; none yet.
    #[must_use]
    pub fn trunks(&self) -> Trunks {
        let (routes, seal) = (self.routes.clone(), self.seal.clone());
        Trunks::new(routes, seal, Arc::clone(&self.table))
    }

    /// Opens a reserved stream over others, to a site without a link; to one with a link as
    /// [`Links::open_control`] does.
    ///
    /// # Errors
    /// See [`Links::open_control`].
    pub async fn open_control_over(
        &self,
        site: &SiteName,
        head: &StreamHead,
    ) -> Result<Stream, OpenError> {
        let linked = self.table.load().reaches(site);
        // Who passes a stream on for another follows what its head says, to the end.
        let begins = head.via.is_empty() && head.origin.is_none();
        match self.routes.over(site).filter(|_| begins && !linked) {
            Some((first, via)) => {
                let head = StreamHead {
                    via,
                    ..head.clone()
                };
                self.open_control(&first, &head).await
            }
            None => self.open_control(site, head).await,
        }
    }

    /// Opens a reserved stream: on the control connection if this side dialled, else on the
    /// reverse one.
    ///
    /// # Errors
    /// See [`OpenError`]; [`OpenError::Head`] if the authority is not reserved.
    pub async fn open_control(
        &self,
        site: &SiteName,
        head: &StreamHead,
    ) -> Result<Stream, OpenError> {
        if !head.is_reserved() {
            return Err(OpenError::Head(HeadError::Authority));
        }
        self.open_on(site, head, None, |link| link.control.clone())
            .await
    }

    async fn open_on(
        &self,
        site: &SiteName,
        head: &StreamHead,
        turns: Option<Turns>,
        pick: impl Fn(&Link) -> Opener,
    ) -> Result<Stream, OpenError> {
        let table = self.table.load_full();
        let mut links: Vec<&Arc<Link>> = table
            .site(site)
            .iter()
            .filter(|link| link.is_up())
            .collect();
        links.sort_by_key(|link| link.rank());
        if let Some(mut turns) = turns {
            // Those that have data connections had their turn there.
            let over_quic = |link: &Link| {
                link.transport == Transport::Quic && link.share() > 0 && !link.is_doubted()
            };
            let first = links.iter().filter(|link| over_quic(link)).count();
            links.sort_by_key(|link| !over_quic(link));
            let among = links.get(..first).filter(|first| !first.is_empty());
            let among = among.unwrap_or(&links).iter().copied();
            if let Some(index) = next(&mut turns, among) {
                links.swap(0, index);
            }
        }
        let mut outcome = Err(OpenError::NoLink(site.clone()));
        for link in links {
            outcome = open_stream(link, pick(link), head).await;
            // A link that just went down saw nothing: the next best may serve.
            let unseen = matches!(&outcome, Err(error) if error.nothing_sent());
            if !unseen {
                break;
            }
        }
        outcome
    }
}

impl Link {
    /// Sends a packet on it.
    fn send(&self, label: u32, packet: &[u8]) -> Result<(), PacketError> {
        let (Some(outlet), Some(mtu)) = (&self.outlet, self.mtu()) else {
            return Err(PacketError::NoPackets);
        };
        if packet.len() > usize::from(mtu) {
            return Err(PacketError::TooLarge { mtu });
        }
        outlet.send(&self.state, label, packet)
    }

    /// Opens a stream on this link and no other; see [`Links::open`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(&self, head: &StreamHead) -> Result<Stream, OpenError> {
        open_stream(self, self.opener.clone(), head).await
    }

    /// Opens a reserved stream on this link and no other; see [`Links::open_control`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_control(&self, head: &StreamHead) -> Result<Stream, OpenError> {
        if !head.is_reserved() {
            return Err(OpenError::Head(HeadError::Authority));
        }
        open_stream(self, self.control.clone(), head).await
    }
}

/// The index of the link whose turn it is; of doubted ones only if all are. `None`: nobody's.
pub(crate) fn next<'a>(
    turns: &mut Turns,
    links: impl Iterator<Item = &'a Arc<Link>> + Clone,
) -> Option<usize> {
    let doubted = links.clone().all(|link| link.is_doubted());
    turns.next(links.map(|link| match link.is_doubted() && !doubted {
        true => 0,
        false => link.share(),
    }))
}

pub(crate) async fn open_stream(
    link: &Link,
    opener: Opener,
    head: &StreamHead,
) -> Result<Stream, OpenError> {
    let mut head_sent = false;
    let live = link.state.live(head.is_reserved());
    let answer = async {
        match opener {
            Opener::H2(opener) => request_stream(opener, head, &mut head_sent)
                .await
                .map(|io| StreamIo::H2(io.with_guard(live))),
            Opener::Quic(opener) => quic::open(&opener, head, live, &mut head_sent)
                .await
                .map(StreamIo::Quic),
        }
    };
    let answered = tokio::time::timeout(OPEN_TIMEOUT, answer).await;
    match answered {
        Ok(answered) => Ok(Stream::new(answered?, link.id, Arc::clone(&link.state))),
        Err(_) => Err(OpenError::Timeout { head_sent }),
    }
}

/// Opens a stream over HTTP/2. `head_sent` becomes true when the other side may have heard of it.
pub(crate) async fn request_stream(
    opener: SendRequest<Bytes>,
    head: &StreamHead,
    head_sent: &mut bool,
) -> Result<H2Stream, OpenError> {
    let request = head.to_request().map_err(OpenError::Head)?;
    let closed = |head_sent| {
        move |error| OpenError::Closed {
            head_sent,
            source: io_error(error),
        }
    };
    let mut opener = opener.ready().await.map_err(closed(false))?;
    let (response, send) = opener.send_request(request, false).map_err(closed(false))?;
    *head_sent = true;
    let response = response.await.map_err(closed(true))?;
    if response.status() != StatusCode::OK {
        let reason = response
            .headers()
            .get(head::REASON)
            .and_then(|reason| reason.to_str().ok());
        return Err(OpenError::Refused {
            status: response.status(),
            reason: reason.unwrap_or_default().chars().take(256).collect(),
        });
    }
    Ok(H2Stream::new(send, response.into_body()))
}

/// A stream over a link: bytes in order, both ways, each half closed on its own.
///
/// `shutdown` ends our half. Dropping a stream before that resets it; dropping it after that lets
/// what was written go out.
#[derive(Debug)]
pub struct Stream {
    io: StreamIo,
    link: LinkId,
    state: Arc<LinkState>,
}

#[derive(Debug)]
pub(crate) enum StreamIo {
    H2(H2Stream),
    Quic(QuicStream),
}

impl Stream {
    pub(crate) const fn new(io: StreamIo, link: LinkId, state: Arc<LinkState>) -> Self {
        Stream { io, link, state }
    }

    /// The link it runs on.
    #[must_use]
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Had it better be begun anew, when it is at rest? Other links to the same site are so much
    /// better than the one it is on.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.state.share() == 0
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            StreamIo::H2(io) => Pin::new(io).poll_read(cx, buf),
            StreamIo::Quic(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            StreamIo::H2(io) => Pin::new(io).poll_write(cx, buf),
            StreamIo::Quic(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            StreamIo::H2(io) => Pin::new(io).poll_flush(cx),
            StreamIo::Quic(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            StreamIo::H2(io) => Pin::new(io).poll_shutdown(cx),
            StreamIo::Quic(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
