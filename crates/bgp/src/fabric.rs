//! A node of ours as a speaker: one machine around the table and the sessions with other nodes.
//!
//! Between our own nodes BGP runs over streams that somebody else opened and whose far end is
//! proved (a reserved stream of a tunnel, or an in-memory one between the halves of a node). A
//! [`Fabric`] owns a [`Shard`] and a [`Connection`] for each stream; it opens nothing, reads no
//! clock, and never waits: octets and time are arguments.
//!
//! # What the owner does
//! [`Fabric::connected`] for each stream, [`Fabric::handle_bytes`] with what comes off it, and
//! after each call: [`Fabric::drive`] while it says that there is more, [`Fabric::transmit`] for
//! each stream that takes octets, [`Fabric::poll_event`], [`Fabric::poll_change`], and a timer
//! for [`Fabric::poll_timeout`].
//!
//! # What differs from a speaker toward routers
//! - The word of a node is held against the signed site table, route by route ([`crate::Trust`]).
//! - Routes of a session that ended stay, stale and below fresh ones, whatever the neighbour
//!   asked for: whether a site lives is known from the tunnels to it.
//! - RT constraint is spoken by every node. It says what *we* want and is passed on by nobody:
//!   every `PoP` wants everything.
//!
//! ```
//! use base::{Instant, NodeId, SiteId, SlotId, TenantId};
//! use bgp::{Fabric, FabricConfig, Key, LocalRoute, Rd, RouteTarget, SiteHealth, State, Value};
//! let mut fabric = Fabric::new(FabricConfig::new(NodeId(1), 4_200_000_000), Instant::ZERO);
//! let rd = Rd { site: SiteId(7), slot: SlotId(0) };
//! fabric.originate(&LocalRoute {
//!     key: Key::Site { rd, site: SiteId(7) },
//!     value: Value::site(&SiteHealth { state: State::Healthy, ..SiteHealth::default() }),
//!     route_targets: vec![RouteTarget { tenant: TenantId(3), selector: RouteTarget::SITE }],
//!     extra: vec![],
//! });
//! let change = fabric.poll_change().expect("our own route is the best one");
//! assert_eq!(change.best.expect("it exists").originator, NodeId(1));
//! ```

mod config;
mod route;
mod stream;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use base::{Instant, Rng};
use bytes::Bytes;

use crate::{
    Key, SiteTable,
    peer::{Close, Connection, ConnectionEvent},
    table::{Notice, PeerIndex, Poll, Shard, ShardConfig},
    wire::{Family, Notification, Scratch, UpdateFindings, end_of_rib},
};
use stream::{Level, Stream};

pub use config::{FabricConfig, PeerConfig, PeerId};
pub use route::{Change, LocalRoute, Route, Source};
pub use view::{NeighborView, RouteView};

/// How long we wait for what a neighbour wants to hear, until we say that it has heard all
/// (RFC 4684 §6).
const SUBSCRIBE: Duration = Duration::from_secs(60);

/// One stream, as the owner numbers it; later ones have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// What the owner hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A neighbour's session is established.
    Up(PeerId),
    /// A neighbour has sent its whole table.
    Synced(PeerId),
    /// A neighbour's session ended; its routes are stale now.
    Down(PeerId, Close),
    /// A stream is over: write these last octets, within a second, and close it.
    Closed(StreamId, Close, Vec<Bytes>),
}

#[derive(Debug)]
struct Neighbor {
    index: PeerIndex,
    config: PeerConfig,
    /// Its established session.
    session: Option<StreamId>,
    /// Since that came up: has it sent its whole table?
    synced: bool,
    /// When its stale routes are too old.
    stale_until: Option<Instant>,
    /// When we no longer wait for what it wants to hear.
    subscribe_by: Option<Instant>,
}

/// The machine of one node.
#[derive(Debug)]
pub struct Fabric {
    config: FabricConfig,
    shard: Shard,
    neighbors: BTreeMap<PeerId, Neighbor>,
    /// Numbers in the table that are not in use.
    free: Vec<PeerIndex>,
    streams: BTreeMap<StreamId, Stream>,
    /// Established sessions by their neighbour's number in the table.
    sessions: Vec<Option<StreamId>>,
    /// What we have asked for.
    wishes: BTreeSet<Vec<u8>>,
    events: VecDeque<Event>,
    findings: UpdateFindings,
    scratch: Scratch,
    rng: Rng,
    /// When End-of-RIB may be said, until it may.
    ends_at: Option<Instant>,
    has_site_table: bool,
    /// The table has something to do, at once or then.
    work: Option<Instant>,
}

impl Fabric {
    /// An empty table that starts at `now`.
    #[must_use]
    pub fn new(config: FabricConfig, now: Instant) -> Self {
        let shard = Shard::new(ShardConfig {
            asn: config.asn,
            node: config.node,
            families: vec![Family::MESH, Family::RTC],
            seed: config.seed,
            deferred: false,
            holds_ends: true,
            watched: vec![Family::MESH],
            tells_constraint: true,
        });
        Fabric {
            shard,
            neighbors: BTreeMap::new(),
            free: Vec::new(),
            streams: BTreeMap::new(),
            sessions: Vec::new(),
            wishes: BTreeSet::new(),
            events: VecDeque::new(),
            findings: UpdateFindings::default(),
            scratch: Scratch::default(),
            rng: Rng::new(config.seed ^ u64::from(config.node.0)),
            ends_at: Some(now + config.end_of_rib_delay),
            has_site_table: false,
            work: None,
            config,
        }
    }

    /// How it is configured.
    #[must_use]
    pub const fn config(&self) -> &FabricConfig {
        &self.config
    }

    /// A stream to a neighbour is connected. When both agreed, it takes the place of an older
    /// one.
    pub fn connected(&mut self, now: Instant, id: StreamId, peer: PeerConfig) {
        let connection = Arc::new(peer.connection(&self.config));
        let connection = Connection::new(connection, self.rng.next_u64(), now);
        self.streams.insert(id, Stream::new(peer, connection));
    }

    /// Take in octets off a stream, as they come.
    pub fn handle_bytes(&mut self, now: Instant, id: StreamId, octets: &[u8]) {
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        let Stream {
            peer,
            connection,
            session,
            ..
        } = &mut stream;
        connection.handle_bytes(now, octets, &mut |negotiated, incoming| {
            self.incoming(now, id, peer, session, negotiated, incoming)
        });
        self.streams.insert(id, stream);
        self.work = Some(now);
        self.settle(now, id);
    }

    /// The stream ended or failed.
    pub fn handle_closed(&mut self, now: Instant, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.connection.handle_end_of_stream();
            self.settle(now, id);
        }
    }

    /// Octets of the stream were written.
    pub fn handle_sent(&mut self, now: Instant, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.connection.handle_sent(now);
        }
    }

    /// The stream takes no octets: from now on it may for a while only (RFC 9687).
    pub fn handle_blocked(&mut self, now: Instant, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.connection.handle_blocked(now);
        }
    }

    /// Time has come to [`Fabric::poll_timeout`] (or not; then nothing happens).
    pub fn handle_timeout(&mut self, now: Instant) {
        for id in self.streams.keys().copied().collect::<Vec<_>>() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.connection.handle_timeout(now);
                self.settle(now, id);
            }
        }
        for neighbor in self.neighbors.values_mut() {
            if neighbor.subscribe_by.take_if(|by| *by <= now).is_some() {
                self.shard.subscribed(neighbor.index);
                self.work = Some(now);
            }
            if neighbor
                .stale_until
                .take_if(|until| *until <= now)
                .is_some()
            {
                self.shard.end_of_rib(neighbor.index, Family::MESH);
                self.work = Some(now);
            }
        }
        self.release_ends(now);
    }

    /// When to call [`Fabric::handle_timeout`], and [`Fabric::drive`] again.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let streams = self.streams.values();
        let timers = streams.filter_map(|stream| stream.connection.poll_timeout());
        let neighbors = self.neighbors.values();
        let neighbors =
            neighbors.flat_map(|n| [n.stale_until, n.subscribe_by].into_iter().flatten());
        let ends = self.ends_at.filter(|_| self.has_site_table);
        timers.chain(neighbors).chain(ends).chain(self.work).min()
    }

    /// Do a bounded part of what is to do in the table; is there more?
    pub fn drive(&mut self, now: Instant) -> bool {
        if self.work.is_none_or(|at| at > now) {
            return false;
        }
        let mut out = Vec::new();
        let poll = self
            .shard
            .poll(now, &mut |to, octets| out.push((to.clone(), octets)));
        for (to, octets) in out {
            for peer in to.iter() {
                self.queue(peer, octets.clone());
            }
        }
        while let Some(notice) = self.shard.poll_notice() {
            self.notice(notice);
        }
        self.work = match poll {
            Poll::Idle => None,
            Poll::More => Some(now),
            Poll::Wait(until) => Some(until),
        };
        poll == Poll::More
    }

    /// The next octets for a stream, whole messages.
    pub fn transmit(&mut self, id: StreamId) -> Option<Bytes> {
        let stream = self.streams.get_mut(&id)?;
        if let Some(message) = stream.connection.poll_transmit() {
            return Some(message);
        }
        let (octets, level) = stream.pop()?;
        if let (Some(level), Some(index)) = (level, self.index_of(id)) {
            self.set_level(index, level);
        }
        Some(octets)
    }

    /// Something the owner is to know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next change of a best route; for a key that changed twice only the last. A change for
    /// the worse comes first.
    pub fn poll_change(&mut self) -> Option<Change> {
        while let Some(view) = self.shard.poll_change() {
            if let Some(key) = route::key(&view.key) {
                let best = view.paths.first().and_then(|path| self.route(&key, path));
                return Some(Change { key, best });
            }
        }
        None
    }

    /// Say something ourselves, or say it anew. Its next hop is this node.
    pub fn originate(&mut self, route: &LocalRoute) {
        let attributes = route.attributes(self.config.node);
        let key = route::octets(&route.key);
        let value = route.value.as_bytes();
        self.shard.originate(Family::MESH, &key, value, &attributes);
        self.work = Some(Instant::ZERO);
    }

    /// Take back what [`Fabric::originate`] said: it exists no more.
    pub fn withdraw(&mut self, key: &Key) {
        self.shard.retract(Family::MESH, &route::octets(key));
        self.work = Some(Instant::ZERO);
    }

    /// The site table arrived or changed: every route is judged again.
    pub fn set_site_table(&mut self, now: Instant, table: SiteTable) {
        self.shard.set_site_table(table);
        self.has_site_table = true;
        self.work = Some(now);
        self.release_ends(now);
    }

    /// End the neighbour's session with this; its routes become stale.
    pub fn close(&mut self, now: Instant, peer: PeerId, notification: &Notification) {
        let session = self.neighbors.get(&peer).and_then(|n| n.session);
        if let Some(id) = session {
            self.close_stream(now, id, notification);
        }
    }

    /// End whatever there is with a neighbour and forget it and all its routes.
    pub fn remove(&mut self, now: Instant, peer: PeerId, notification: &Notification) {
        let of_peer = |(_, stream): &(&StreamId, &Stream)| stream.peer.id == peer;
        let streams = self.streams.iter().filter(of_peer);
        for id in streams.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.close_stream(now, id, notification);
        }
        if let Some(neighbor) = self.neighbors.remove(&peer) {
            for family in [Family::MESH, Family::RTC] {
                self.shard.forget(neighbor.index, family);
            }
            self.free.push(neighbor.index);
            self.work = Some(now);
        }
    }

    fn close_stream(&mut self, now: Instant, id: StreamId, notification: &Notification) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.connection.close(notification.clone());
            self.settle(now, id);
        }
    }

    /// Take what the connection of a stream tells.
    fn settle(&mut self, now: Instant, id: StreamId) {
        let mut closed = None;
        while let Some(stream) = self.streams.get_mut(&id) {
            match stream.connection.poll_event() {
                Some(ConnectionEvent::Opened(_) | ConnectionEvent::Established(_)) => {}
                Some(ConnectionEvent::Closed(close)) => closed = Some(close),
                None => break,
            }
        }
        let Some(close) = closed else { return };
        let Some(mut stream) = self.streams.remove(&id) else {
            return;
        };
        let rest = std::iter::from_fn(|| stream.connection.poll_transmit());
        let rest = rest.collect();
        self.down(now, stream.peer.id, id, &close);
        self.events.push_back(Event::Closed(id, close, rest));
    }

    /// A session is over, if the stream carried one.
    fn down(&mut self, now: Instant, peer: PeerId, id: StreamId, close: &Close) {
        let Some(neighbor) = self.neighbors.get_mut(&peer) else {
            return;
        };
        if neighbor.session != Some(id) {
            return;
        }
        neighbor.session = None;
        self.sessions[usize::from(neighbor.index.0)] = None;
        neighbor.synced = false;
        neighbor.subscribe_by = None;
        neighbor.stale_until = Some(now + self.config.stale_time);
        self.shard.peer_down(neighbor.index, &[Family::MESH]);
        self.work = Some(now);
        self.events.push_back(Event::Down(peer, close.clone()));
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::TableSent(index, family) => {
                let session = self.session_of(index);
                let stream = session.and_then(|id| self.streams.get_mut(&id));
                if stream.is_some_and(|stream| stream.session.owes_end.remove(&family)) {
                    self.queue(index, end_of_rib(family));
                }
            }
            Notice::TooMany(index, family) => {
                let peer = self.neighbors.iter().find(|(_, n)| n.index == index);
                let peer = peer.map(|(id, _)| *id);
                tracing::error!(?peer, %family, "more routes than it may have: the rest is ignored");
            }
            Notice::AskAgain(index, family) => {
                if let Some(stream) = self
                    .session_of(index)
                    .and_then(|id| self.streams.get_mut(&id))
                {
                    stream.connection.request_refresh(family);
                }
            }
        }
    }

    fn release_ends(&mut self, now: Instant) {
        if self.has_site_table && self.ends_at.take_if(|at| *at <= now).is_some() {
            self.shard.release_ends();
            self.work = Some(now);
        }
    }

    /// Octets for a neighbour's session.
    fn queue(&mut self, index: PeerIndex, octets: Bytes) {
        let Some(stream) = self
            .session_of(index)
            .and_then(|id| self.streams.get_mut(&id))
        else {
            return;
        };
        if let Some(level) = stream.push(octets) {
            self.set_level(index, level);
        }
    }

    fn set_level(&mut self, index: PeerIndex, level: Level) {
        match level {
            Level::Ready => self.shard.resume(index),
            Level::Busy => self.shard.set_ready(index, false),
            Level::Full => self.shard.pause(index),
        }
        self.work = Some(Instant::ZERO);
    }

    fn session_of(&self, index: PeerIndex) -> Option<StreamId> {
        self.sessions.get(usize::from(index.0)).copied().flatten()
    }

    /// Whose session a stream carries.
    fn index_of(&self, id: StreamId) -> Option<PeerIndex> {
        let index = self.streams.get(&id)?.session.index?;
        (self.session_of(index) == Some(id)).then_some(index)
    }
}
