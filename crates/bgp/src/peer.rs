//! One neighbour: the finite state machine of RFC 4271 §8 around the streams that lead to it.
//!
//! A [`Connection`] is one connected byte stream: OPEN, capabilities, KEEPALIVE, the messages of
//! an established session. A [`Peer`] is one configured neighbour: it decides when to dial, when
//! to stay away, which of two connections stays ([`survivor`]) and what an end means for the
//! routes ([`Graceful`]). Neither opens a socket, reads a clock or knows what an UPDATE says:
//! bodies of UPDATEs go, borrowed, to a [`Sink`].
//!
//! # What the owner does
//! After each call: write all of [`Peer::poll_transmit`], then carry out all of
//! [`Peer::poll_effect`], then arm a timer for [`Peer::poll_timeout`]. [`ConnectionId`]s are the
//! owner's and are not used twice.
//!
//! # The states
//! | state | here |
//! |---|---|
//! | Idle | stopped, or held back after a failure (`IdleHold`); connections are rejected |
//! | Connect | a dial is under way, `ConnectRetry` runs |
//! | Active | waiting: for the neighbour's dial, and for `ConnectRetry` to dial ourselves |
//! | `OpenSent`, `OpenConfirm`, Established | of the connection that got farthest |
//!
//! Where it departs from the letter: a dial that fails leads to Active, not to Idle, and so does a
//! connection that ended before the neighbour's OPEN came or was rejected; were both ends to
//! reject the other while they hold back, they would meet by accident only.
//!
//! ```
//! use std::sync::Arc;
//! use base::{Instant, NodeId};
//! use bgp::{Family, peer::{ConnectionConfig, Effect, Peer, PeerAs, PeerConfig}};
//! let config = ConnectionConfig::new(NodeId(1), 65001, PeerAs::External, &[Family::IPV4]);
//! let mut peer = Peer::new(PeerConfig::new(Arc::new(config)), 7);
//! peer.start(Instant::ZERO);
//! assert_eq!(peer.poll_effect(), Some(Effect::Dial));
//! ```

mod assembly;
mod close;
mod collision;
mod config;
mod connection;
mod negotiate;
mod role;
mod slots;
mod timers;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt, sync::Arc};

use base::{Backoff, Instant, Rng};
use bytes::Bytes;

use crate::wire::{Family, Notification};
use slots::{Slot, Slots};
use timers::{Timer, earliest, jitter};

pub use close::{Close, Graceful, StaleFamily, graceful};
pub use collision::{Initiator, survivor};
pub use config::{ConnectionConfig, FamilyConfig, GracefulConfig, PeerAs, PeerConfig};
pub use connection::{
    Connection, ConnectionCounters, ConnectionEvent, ConnectionState, Incoming, Sink,
};
pub use negotiate::{Negotiated, negotiate};
pub use role::{BgpRole, RoleConfig};

/// One stream, as the owner numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// RFC 4271 §8.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerState {
    /// Stopped or held back.
    Idle,
    /// Dialling.
    Connect,
    /// Waiting.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and good.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PeerState::Idle => "idle",
            PeerState::Connect => "connect",
            PeerState::Active => "active",
            PeerState::OpenSent => "open-sent",
            PeerState::OpenConfirm => "open-confirm",
            PeerState::Established => "established",
        })
    }
}

/// What the owner has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Connect to the neighbour; give up an attempt that is still under way.
    Dial,
    /// Give up the attempt to connect.
    CancelDial,
    /// Close this stream, once what there is to write is written. It is forgotten here.
    Close(ConnectionId),
    /// Routes may flow. The sink heard it already, before the first UPDATE.
    Established {
        /// Over this stream.
        id: ConnectionId,
        /// Under these terms.
        negotiated: Arc<Negotiated>,
    },
    /// The session that was established is over.
    Down {
        /// Its stream.
        id: ConnectionId,
        /// Why.
        reason: Close,
        /// What outlives it; `None`: all its routes are gone.
        graceful: Option<Graceful>,
    },
    /// A connection ended before it was established.
    Failed {
        /// Its stream.
        id: ConnectionId,
        /// Why.
        reason: Close,
    },
}

/// What happened to a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Dials begun.
    pub dials: u64,
    /// Dials that failed or took too long.
    pub failed_dials: u64,
    /// Sessions established.
    pub established: u64,
    /// Connections closed because of another one (RFC 4271 §6.8).
    pub collisions: u64,
    /// Connections of the neighbour rejected because of our state.
    pub rejected: u64,
}

/// Do we try?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stopped,
    Held(Timer),
    Running,
}

/// What a connection's end means for the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Listen,
    HoldBack,
    StayAway,
}

/// The machine of one neighbour. It holds at most two connections; its queues grow only by what
/// one call was given, so drain them after each call.
#[derive(Debug)]
pub struct Peer {
    config: PeerConfig,
    phase: Phase,
    dialing: bool,
    connect_retry: Timer,
    slots: Slots,
    backoff: Backoff,
    rng: Rng,
    /// The neighbour refused optional parameters: the next OPEN has none (RFC 5492 §3).
    plain: bool,
    parting: VecDeque<(ConnectionId, Bytes)>,
    effects: VecDeque<Effect>,
    last_close: Option<(Instant, Close)>,
    counters: PeerCounters,
}

impl Peer {
    /// A neighbour, stopped. `seed` shifts its timers; give each neighbour its own.
    #[must_use]
    pub fn new(config: PeerConfig, seed: u64) -> Self {
        Peer {
            backoff: Backoff::new(config.idle_hold, config.max_idle_hold),
            phase: Phase::Stopped,
            dialing: false,
            connect_retry: Timer::STOPPED,
            slots: Slots::default(),
            rng: Rng::new(seed),
            plain: false,
            parting: VecDeque::new(),
            effects: VecDeque::new(),
            last_close: None,
            counters: PeerCounters::default(),
            config,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> PeerState {
        match self.slots.farthest() {
            Some(ConnectionState::Established) => return PeerState::Established,
            Some(ConnectionState::OpenConfirm) => return PeerState::OpenConfirm,
            Some(ConnectionState::OpenSent) => return PeerState::OpenSent,
            Some(ConnectionState::Delaying | ConnectionState::Closed) | None => {}
        }
        match self.phase {
            Phase::Stopped | Phase::Held(_) => PeerState::Idle,
            Phase::Running if self.dialing => PeerState::Connect,
            Phase::Running => PeerState::Active,
        }
    }

    /// The established session.
    #[must_use]
    pub fn established(&self) -> Option<(ConnectionId, &Arc<Negotiated>)> {
        let slot = self.slots.established()?;
        slot.connection.negotiated().map(|n| (slot.id, n))
    }

    /// The last connection that ended, collisions aside: when and why.
    #[must_use]
    pub const fn last_close(&self) -> Option<&(Instant, Close)> {
        self.last_close.as_ref()
    }

    /// What happened.
    #[must_use]
    pub const fn counters(&self) -> PeerCounters {
        self.counters
    }

    /// What goes through a connection.
    #[must_use]
    pub fn connection_counters(&self, id: ConnectionId) -> Option<ConnectionCounters> {
        self.slots.get(id).map(|slot| slot.connection.counters())
    }

    /// Begin at once (`ManualStart`, with or without passive), also out of any hold.
    pub fn start(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            self.backoff.reset();
            self.run(now);
        }
    }

    /// End all and stay down (`ManualStop`); `text` tells the neighbour why (RFC 9003), at most
    /// 255 octets of it.
    pub fn stop(&mut self, now: Instant, text: &str) {
        self.halt(now, &Notification::shutdown(text));
    }

    /// End all and stay down: the neighbour is configured no more (RFC 4486).
    pub fn deconfigure(&mut self, now: Instant) {
        self.halt(now, &close::DECONFIGURED.into());
    }

    /// End the session and begin again (RFC 4486, RFC 9003); `text` tells the neighbour why.
    pub fn reset(&mut self, now: Instant, text: &str) {
        self.close(now, &Notification::reset(text));
    }

    /// End the session with this NOTIFICATION; another attempt follows.
    pub fn close(&mut self, now: Instant, notification: &Notification) {
        self.slots.close_all(notification);
        self.settle(now);
    }

    /// The R and F bits of the OPENs to come (RFC 4724 §3, §4.1): `restarting` from our start
    /// until we have heard what the neighbours kept for us; `forwarding`: what we told in the
    /// session before still holds.
    pub fn set_restarting(&mut self, restarting: bool, forwarding: bool) {
        let connection = Arc::make_mut(&mut self.config.connection);
        if let Some(graceful) = &mut connection.graceful_restart {
            graceful.restarting = restarting;
            graceful.forwarding = forwarding;
        }
    }

    /// A stream to the neighbour is connected: the one we dialled, or, `incoming`, one it
    /// dialled.
    pub fn handle_connected(&mut self, now: Instant, id: ConnectionId, incoming: bool) {
        if incoming {
            self.admit(now, id);
        } else if self.dialing {
            self.dialing = false;
            self.connect_retry = Timer::STOPPED;
            self.open(now, id, Initiator::Us);
        } else {
            // Given up before it came about; nothing was said on it.
            self.effects.push_back(Effect::Close(id));
        }
        self.settle(now);
    }

    /// The dial failed.
    pub fn handle_connect_failed(&mut self, now: Instant) {
        if self.dialing {
            self.dialing = false;
            self.counters.failed_dials += 1;
            self.connect_retry = Timer::STOPPED;
            self.settle(now);
        }
    }

    /// Take in octets off a stream, as they come.
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        id: ConnectionId,
        mut octets: &[u8],
        sink: Sink<'_>,
    ) {
        while let Some(slot) = self.slots.get_mut(id) {
            let more = slot.connection.advance(now, &mut octets, sink);
            self.settle(now);
            if !more {
                return;
            }
        }
    }

    /// The stream ended or failed.
    pub fn handle_closed(&mut self, now: Instant, id: ConnectionId) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.connection.handle_end_of_stream();
            self.settle(now);
        }
    }

    /// See [`Connection::handle_sent`].
    pub fn handle_sent(&mut self, now: Instant, id: ConnectionId) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.connection.handle_sent(now);
        }
    }

    /// See [`Connection::handle_blocked`].
    pub fn handle_blocked(&mut self, now: Instant, id: ConnectionId) {
        if let Some(slot) = self.slots.get_mut(id) {
            slot.connection.handle_blocked(now);
        }
    }

    /// Time has come to [`Peer::poll_timeout`] (or not; then nothing happens).
    pub fn handle_timeout(&mut self, now: Instant) {
        for slot in self.slots.iter_mut() {
            slot.connection.handle_timeout(now);
        }
        match self.phase {
            Phase::Held(timer) if timer.expired(now) => self.run(now),
            Phase::Running if self.connect_retry.expired(now) => {
                if std::mem::take(&mut self.dialing) {
                    self.counters.failed_dials += 1;
                }
                self.dial(now);
            }
            Phase::Stopped | Phase::Held(_) | Phase::Running => {}
        }
        self.settle(now);
    }

    /// When to call [`Peer::handle_timeout`]; `None` if nothing is to come.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Stopped | Phase::Running => Timer::STOPPED,
            Phase::Held(timer) => timer,
        };
        let own = earliest([phase, self.connect_retry]);
        let theirs = self
            .slots
            .iter()
            .filter_map(|slot| slot.connection.poll_timeout());
        theirs.chain(own).min()
    }

    /// The next whole message to write and the stream to write it to.
    pub fn poll_transmit(&mut self) -> Option<(ConnectionId, Bytes)> {
        self.parting
            .pop_front()
            .or_else(|| self.slots.poll_transmit())
    }

    /// The next thing to do.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// Ask the neighbour for its routes of `family` again; false if that is not possible.
    pub fn request_refresh(&mut self, family: Family) -> bool {
        self.slots
            .established_mut()
            .is_some_and(|slot| slot.connection.request_refresh(family))
    }

    fn run(&mut self, now: Instant) {
        self.phase = Phase::Running;
        self.dial(now);
    }

    /// Dial unless we are passive or have a connection that makes it needless.
    fn dial(&mut self, now: Instant) {
        self.connect_retry = Timer::STOPPED;
        if self.config.passive || self.slots.needs_no_dial() {
            return;
        }
        self.dialing = true;
        self.counters.dials += 1;
        self.arm_connect_retry(now);
        self.effects.push_back(Effect::Dial);
    }

    fn arm_connect_retry(&mut self, now: Instant) {
        self.connect_retry = Timer::at(now + jitter(self.config.connect_retry, &mut self.rng));
    }

    fn cancel_dial(&mut self) {
        self.connect_retry = Timer::STOPPED;
        if std::mem::take(&mut self.dialing) {
            self.effects.push_back(Effect::CancelDial);
        }
    }

    fn halt(&mut self, now: Instant, notification: &Notification) {
        self.phase = Phase::Stopped;
        self.cancel_dial();
        self.close(now, notification);
    }

    /// A stream the neighbour dialled.
    fn admit(&mut self, now: Instant, id: ConnectionId) {
        if self.phase != Phase::Running {
            self.reject(id);
            return;
        }
        if let Some(silent) = self.slots.silent_incoming() {
            // The neighbour has begun anew before it said a word on the first one.
            silent.connection.close(close::COLLISION.into());
            self.counters.collisions += 1;
            self.settle(now);
        }
        if self.slots.full_for_incoming() {
            self.reject(id);
            return;
        }
        self.open(now, id, Initiator::Them);
    }

    /// RFC 4271 §8.2.2: connections are refused; RFC 4486 §4: and told so.
    fn reject(&mut self, id: ConnectionId) {
        self.counters.rejected += 1;
        let rejected = Notification::from(close::REJECTED).encode();
        self.parting.push_back((id, rejected));
        self.effects.push_back(Effect::Close(id));
    }

    fn open(&mut self, now: Instant, id: ConnectionId, initiator: Initiator) {
        let mut config = Arc::clone(&self.config.connection);
        if self.plain {
            Arc::make_mut(&mut config).capabilities = false;
        }
        self.slots.push(Slot {
            id,
            initiator,
            connection: Connection::new(config, self.rng.next_u64(), now),
            established_at: None,
        });
    }

    /// Take what the connections tell, until they are silent.
    fn settle(&mut self, now: Instant) {
        while let Some((id, event)) = self.slots.poll_event() {
            match event {
                ConnectionEvent::Opened(negotiated) => self.opened(now, id, &negotiated),
                ConnectionEvent::Established(negotiated) => {
                    self.counters.established += 1;
                    if let Some(slot) = self.slots.get_mut(id) {
                        slot.established_at = Some(now);
                    }
                    self.effects
                        .push_back(Effect::Established { id, negotiated });
                }
                ConnectionEvent::Closed(reason) => self.closed(now, id, reason),
            }
        }
        let waits = self.phase == Phase::Running
            && !self.config.passive
            && !self.slots.needs_no_dial()
            && !self.connect_retry.runs();
        if waits {
            self.arm_connect_retry(now);
        }
    }

    /// A good OPEN: no more dials, and of two connections one goes (RFC 4271 §6.8).
    fn opened(&mut self, now: Instant, id: ConnectionId, negotiated: &Negotiated) {
        self.cancel_dial();
        let own = (self.config.connection.node, self.config.connection.asn);
        let winner = survivor(own, connection::identity(negotiated));
        self.counters.collisions += self.slots.resolve(now, id, winner);
    }

    /// A connection is over.
    fn closed(&mut self, now: Instant, id: ConnectionId, reason: Close) {
        let Some(mut slot) = self.slots.remove(id) else {
            return;
        };
        while let Some(message) = slot.connection.poll_transmit() {
            self.parting.push_back((id, message));
        }
        let next = self.judge_end(now, &slot, &reason);
        self.effects.push_back(match slot.established_at {
            Some(_) => Effect::Down {
                id,
                graceful: slot
                    .connection
                    .negotiated()
                    .and_then(|negotiated| close::graceful(negotiated, &reason)),
                reason: reason.clone(),
            },
            None => Effect::Failed {
                id,
                reason: reason.clone(),
            },
        });
        self.effects.push_back(Effect::Close(id));
        if !reason.sent(close::COLLISION) && !reason.received(close::COLLISION) {
            self.last_close = Some((now, reason));
        }
        if self.phase == Phase::Running && self.slots.is_empty() {
            self.go_on(now, next);
        }
    }

    fn go_on(&mut self, now: Instant, next: Next) {
        let hold = match next {
            // The dial, if there is one, goes on; else settle() arms ConnectRetry.
            Next::Listen => return,
            Next::HoldBack => Timer::at(now + self.backoff.next_wait(&mut self.rng)),
            Next::StayAway => self
                .config
                .max_prefix_restart
                .map_or(Timer::STOPPED, |wait| Timer::at(now + wait)),
        };
        self.cancel_dial();
        self.phase = Phase::Held(hold);
    }

    fn judge_end(&mut self, now: Instant, slot: &Slot, reason: &Close) -> Next {
        let opened = slot.connection.negotiated().is_some();
        // RFC 5492 §3: try without capabilities, and with them again if that fails too.
        let refused = !opened && reason.received(close::UNSUPPORTED_PARAMETER);
        if opened || refused || reason.cause().is_some() {
            let can = self.config.connection.speaks(Family::IPV4);
            self.plain = refused && !self.plain && can;
        }
        let lasted = slot
            .established_at
            .is_some_and(|at| now.since(at) >= self.config.stable);
        if lasted {
            self.backoff.reset();
        }
        let turned_away = slot.established_at.is_none()
            && (reason.received(close::REJECTED) || reason.received(close::COLLISION));
        match reason {
            Close::Sent(_) if reason.sent(close::MAX_PREFIXES) => Next::StayAway,
            Close::Sent(_) if reason.sent(close::COLLISION) => Next::Listen,
            Close::Received(_) if turned_away => Next::Listen,
            Close::StreamEnded if !opened => Next::Listen,
            Close::StreamEnded | Close::Replaced | Close::Sent(_) | Close::Received(_) => {
                Next::HoldBack
            }
        }
    }
}
