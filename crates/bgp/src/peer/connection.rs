//! One connected byte stream with a neighbour: `OpenSent` to `Established`.

use std::{collections::VecDeque, fmt, sync::Arc, time::Duration};

use base::{Instant, NodeId, Rng};
use bytes::Bytes;

use super::{
    assembly::{Assembly, Message, Piece},
    close::{self, Close},
    config::ConnectionConfig,
    negotiate::{Negotiated, negotiate},
    timers::{Timer, earliest, jitter},
};
use crate::wire::{self, Family, MAX_MESSAGE, MessageKind, Notification, OpenMessage, RefreshKind};

/// RFC 4271 §8.2.2, from the moment the stream is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionState {
    /// Connected; our OPEN is held back until the neighbour's came or `DelayOpen` is over. The
    /// RFC calls this Connect or Active.
    Delaying,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and good, KEEPALIVE sent.
    OpenConfirm,
    /// Routes flow.
    Established,
    /// It is over.
    Closed,
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ConnectionState::Delaying => "delaying",
            ConnectionState::OpenSent => "open-sent",
            ConnectionState::OpenConfirm => "open-confirm",
            ConnectionState::Established => "established",
            ConnectionState::Closed => "closed",
        })
    }
}

/// What an established session hears, in the order of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// Both sides agreed; the first thing heard, once.
    Established,
    /// The body of an UPDATE, borrowed from the octets it came in, unread.
    Update(&'a [u8]),
    /// A ROUTE-REFRESH for a negotiated family; begin and end only if both sides know them.
    Refresh {
        /// The family.
        family: Family,
        /// A wish for our routes, or a mark around the neighbour's.
        kind: RefreshKind,
    },
}

/// Who takes what comes in. An `Err` ends the session with that NOTIFICATION.
pub type Sink<'s> = &'s mut dyn FnMut(&Arc<Negotiated>, Incoming<'_>) -> Result<(), Notification>;

/// What a connection tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// The neighbour's OPEN came and is good: time to look for a collision (RFC 4271 §6.8).
    Opened(Arc<Negotiated>),
    /// Both sides agreed.
    Established(Arc<Negotiated>),
    /// It is over. The last event.
    Closed(Close),
}

/// What went through a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionCounters {
    /// Messages in.
    pub received: u64,
    /// Messages out, without those the owner writes itself.
    pub sent: u64,
    /// UPDATEs in.
    pub updates: u64,
    /// ROUTE-REFRESHes in that say nothing to us: a family or a kind not negotiated.
    pub ignored_refreshes: u64,
}

#[derive(Debug, Default)]
struct Timers {
    delay_open: Timer,
    hold: Timer,
    keepalive: Timer,
    send_hold: Timer,
}

/// The machine. Feed it octets and time, take octets and events; it never blocks, and no octets
/// make it fail: they end it with a NOTIFICATION.
///
/// It keeps at most one torn message. Its output holds an OPEN, a KEEPALIVE, a NOTIFICATION and
/// one ROUTE-REFRESH a family at most. UPDATEs are written by the owner, between the messages
/// of [`Connection::poll_transmit`].
#[derive(Debug)]
pub struct Connection {
    config: Arc<ConnectionConfig>,
    ours: OpenMessage,
    state: ConnectionState,
    negotiated: Option<Arc<Negotiated>>,
    rng: Rng,
    timers: Timers,
    input: Assembly,
    output: VecDeque<Bytes>,
    events: VecDeque<ConnectionEvent>,
    counters: ConnectionCounters,
}

impl Connection {
    /// A connection whose stream is connected at `now`. Its OPEN is ready to be sent, unless
    /// `DelayOpen` holds it back. `seed` shifts its keepalives.
    #[must_use]
    pub fn new(config: Arc<ConnectionConfig>, seed: u64, now: Instant) -> Self {
        let mut connection = Connection {
            ours: config.open(),
            state: ConnectionState::Delaying,
            negotiated: None,
            rng: Rng::new(seed),
            timers: Timers::default(),
            input: Assembly::default(),
            output: VecDeque::new(),
            events: VecDeque::new(),
            counters: ConnectionCounters::default(),
            config,
        };
        if connection.config.delay_open.is_zero() {
            connection.send_open(now);
        } else {
            connection.timers.delay_open = Timer::at(now + connection.config.delay_open);
        }
        connection
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> ConnectionState {
        self.state
    }

    /// What was agreed on, once the neighbour's OPEN came; kept when the connection is over.
    #[must_use]
    pub const fn negotiated(&self) -> Option<&Arc<Negotiated>> {
        self.negotiated.as_ref()
    }

    /// What went through.
    #[must_use]
    pub const fn counters(&self) -> ConnectionCounters {
        self.counters
    }

    /// Octets of a torn message that wait for the rest of it.
    #[must_use]
    pub const fn kept(&self) -> usize {
        self.input.kept()
    }

    /// Take in octets off the stream, as they come.
    pub fn handle_bytes(&mut self, now: Instant, mut octets: &[u8], sink: Sink<'_>) {
        while self.advance(now, &mut octets, sink) {}
    }

    /// Take in octets up to the next event; false if all are taken or the connection is over.
    pub(super) fn advance(&mut self, now: Instant, octets: &mut &[u8], sink: Sink<'_>) -> bool {
        let mut input = std::mem::take(&mut self.input);
        let before = self.events.len();
        while self.state != ConnectionState::Closed && self.events.len() == before {
            match input.take(octets, self.max_message_in()) {
                Piece::Whole(message) => self.handle_message(now, &message, sink),
                Piece::Torn => {
                    self.input = input;
                    return false;
                }
                Piece::Bad(notification) => self.close(notification),
            }
        }
        let over = self.state == ConnectionState::Closed;
        if !over {
            self.input = input;
        }
        !over
    }

    /// The stream ended.
    pub fn handle_end_of_stream(&mut self) {
        self.finish(Close::StreamEnded);
    }

    /// The stream took octets of ours: the other side reads (RFC 9687).
    pub fn handle_sent(&mut self, _now: Instant) {
        self.timers.send_hold = Timer::STOPPED;
    }

    /// The stream takes no more octets although there are some to write; unless
    /// [`Connection::handle_sent`] follows, the connection ends (RFC 9687 §4).
    pub fn handle_blocked(&mut self, now: Instant) {
        if self.state == ConnectionState::Closed || self.timers.send_hold.runs() {
            return;
        }
        let hold_time = self
            .negotiated
            .as_ref()
            .map_or(Duration::ZERO, |n| n.hold_time);
        if let Some(time) = self.config.send_hold_time(hold_time) {
            self.timers.send_hold = Timer::at(now + time);
        }
    }

    /// Time has come to [`Connection::poll_timeout`] (or not; then nothing happens).
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.timers.send_hold.expired(now) {
            self.close(Notification::SEND_HOLD_TIMER.into());
        }
        if self.timers.hold.expired(now) {
            self.close(Notification::HOLD_TIMER.into());
        }
        if self.timers.delay_open.expired(now) {
            self.send_open(now);
        }
        if self.timers.keepalive.expired(now) {
            self.keepalive(now);
        }
    }

    /// When to call [`Connection::handle_timeout`]; `None` if nothing is to come.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let timers = &self.timers;
        earliest([
            timers.delay_open,
            timers.hold,
            timers.keepalive,
            timers.send_hold,
        ])
    }

    /// The next whole message to write.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<ConnectionEvent> {
        self.events.pop_front()
    }

    /// Ask the neighbour for its routes of `family` again; false if it does not understand that
    /// or no session of that family is established. Asking again before the first wish is
    /// written changes nothing.
    pub fn request_refresh(&mut self, family: Family) -> bool {
        let can = self.state == ConnectionState::Established
            && self
                .negotiated
                .as_ref()
                .is_some_and(|n| n.route_refresh && n.families.contains(&family));
        if can {
            let wish = wire::route_refresh(family, RefreshKind::Request);
            if !self.output.contains(&wish) {
                self.transmit(wish);
            }
        }
        can
    }

    /// End it with this NOTIFICATION; put into a hard reset where the neighbour would otherwise
    /// keep routes it has to forget (RFC 8538 §3).
    pub fn close(&mut self, notification: Notification) {
        if self.state == ConnectionState::Closed {
            return;
        }
        let notification = match &self.negotiated {
            Some(negotiated) if self.state == ConnectionState::Established => {
                close::hardened(notification, negotiated)
            }
            Some(_) | None => notification,
        };
        // A KEEPALIVE would make the neighbour established for a moment.
        self.output.retain(|m| is_kind(m, MessageKind::Open));
        self.transmit(notification.encode());
        self.finish(Close::Sent(notification));
    }

    /// End it without a word: the neighbour that held it is no more.
    pub(super) fn replace(&mut self) {
        self.output.clear();
        self.finish(Close::Replaced);
    }

    fn finish(&mut self, close: Close) {
        if self.state != ConnectionState::Closed {
            self.state = ConnectionState::Closed;
            self.timers = Timers::default();
            self.input = Assembly::default();
            self.events.push_back(ConnectionEvent::Closed(close));
        }
    }

    fn transmit(&mut self, message: Bytes) {
        self.counters.sent += 1;
        self.output.push_back(message);
    }

    fn send_open(&mut self, now: Instant) {
        self.transmit(self.ours.encode());
        self.state = ConnectionState::OpenSent;
        self.timers.delay_open = Timer::STOPPED;
        self.timers.hold = Timer::at(now + self.config.open_hold_time);
    }

    fn keepalive(&mut self, now: Instant) {
        if !self
            .output
            .iter()
            .any(|m| is_kind(m, MessageKind::Keepalive))
        {
            self.transmit(wire::keepalive());
        }
        let hold_time = self.hold_time();
        self.timers.keepalive = if hold_time.is_zero() {
            Timer::STOPPED
        } else {
            Timer::at(now + jitter(hold_time / 3, &mut self.rng))
        };
    }

    fn hold_time(&self) -> Duration {
        self.negotiated
            .as_ref()
            .map_or(Duration::ZERO, |n| n.hold_time)
    }

    fn restart_hold(&mut self, now: Instant) {
        let hold_time = self.hold_time();
        self.timers.hold = if hold_time.is_zero() {
            Timer::STOPPED
        } else {
            Timer::at(now + hold_time)
        };
    }

    fn max_message_in(&self) -> usize {
        self.negotiated
            .as_ref()
            .map_or(MAX_MESSAGE, |n| n.max_message_in)
    }

    /// RFC 4271 §8.2.2, the events a message makes.
    fn handle_message(&mut self, now: Instant, message: &Message<'_>, sink: Sink<'_>) {
        self.counters.received += 1;
        let outcome = match (self.state, message.kind) {
            (ConnectionState::Closed, _) => Ok(()),
            (_, MessageKind::Notification) => {
                self.output.clear();
                self.finish(Close::Received(Notification::decode(message.body)));
                Ok(())
            }
            (ConnectionState::Delaying, MessageKind::Open) => {
                self.send_open(now);
                self.handle_open(now, message.body)
            }
            (ConnectionState::OpenSent, MessageKind::Open) => self.handle_open(now, message.body),
            (ConnectionState::OpenConfirm, MessageKind::Keepalive) => {
                self.restart_hold(now);
                self.establish(sink)
            }
            (ConnectionState::Established, MessageKind::Keepalive) => {
                self.restart_hold(now);
                Ok(())
            }
            (ConnectionState::Established, MessageKind::Update) => {
                self.restart_hold(now);
                self.counters.updates += 1;
                self.tell(sink, Incoming::Update(message.body))
            }
            (ConnectionState::Established, MessageKind::RouteRefresh) => {
                self.handle_refresh(message.body, sink)
            }
            (
                ConnectionState::Delaying
                | ConnectionState::OpenSent
                | ConnectionState::OpenConfirm
                | ConnectionState::Established,
                MessageKind::Open
                | MessageKind::Update
                | MessageKind::Keepalive
                | MessageKind::RouteRefresh,
            ) => Err(self.unexpected(message.kind)),
        };
        if let Err(notification) = outcome {
            self.close(notification);
        }
    }

    /// RFC 6608 §4; the data is the type of the message.
    fn unexpected(&self, kind: MessageKind) -> Notification {
        let subcode = match self.state {
            ConnectionState::Delaying | ConnectionState::Closed => 0,
            ConnectionState::OpenSent => 1,
            ConnectionState::OpenConfirm => 2,
            ConnectionState::Established => 3,
        };
        Notification::with_data(close::STATE_MACHINE, subcode, &[kind as u8])
    }

    fn handle_open(&mut self, now: Instant, body: &[u8]) -> Result<(), Notification> {
        let theirs = OpenMessage::decode(body)?;
        let negotiated = Arc::new(negotiate(&self.config, &self.ours, &theirs)?);
        self.negotiated = Some(Arc::clone(&negotiated));
        self.state = ConnectionState::OpenConfirm;
        // Without a hold time, the timer of OpenSent goes on until the KEEPALIVE comes.
        if !negotiated.hold_time.is_zero() {
            self.restart_hold(now);
        }
        self.keepalive(now);
        self.events.push_back(ConnectionEvent::Opened(negotiated));
        Ok(())
    }

    fn establish(&mut self, sink: Sink<'_>) -> Result<(), Notification> {
        self.state = ConnectionState::Established;
        if let Some(negotiated) = &self.negotiated {
            let event = ConnectionEvent::Established(Arc::clone(negotiated));
            self.events.push_back(event);
        }
        self.tell(sink, Incoming::Established)
    }

    fn tell(&self, sink: Sink<'_>, incoming: Incoming<'_>) -> Result<(), Notification> {
        match &self.negotiated {
            Some(negotiated) => sink(negotiated, incoming),
            None => Ok(()),
        }
    }

    /// RFC 2918 §4 and RFC 7313 §4 and §5: what was not negotiated is ignored.
    fn handle_refresh(&mut self, body: &[u8], sink: Sink<'_>) -> Result<(), Notification> {
        let Some(negotiated) = &self.negotiated else {
            return Ok(());
        };
        let heard = wire::read_route_refresh(body);
        let wanted = heard.filter(|&(family, kind)| {
            negotiated.families.contains(&family)
                && match kind {
                    RefreshKind::Request => self.ours.capabilities.route_refresh,
                    RefreshKind::Begin | RefreshKind::End => negotiated.enhanced_refresh,
                }
        });
        if let Some((family, kind)) = wanted {
            return self.tell(sink, Incoming::Refresh { family, kind });
        }
        if heard.is_none() && negotiated.enhanced_refresh && matches!(body.get(2), Some(1 | 2)) {
            // RFC 7313 §5: the data is the whole message.
            let (code, subcode) = close::REFRESH_LENGTH;
            let whole = wire::message(MessageKind::RouteRefresh, body);
            return Err(Notification::with_data(code, subcode, &whole));
        }
        self.counters.ignored_refreshes += 1;
        Ok(())
    }
}

fn is_kind(message: &Bytes, kind: MessageKind) -> bool {
    message.get(wire::HEADER - 1) == Some(&(kind as u8))
}

/// The neighbour as a collision sees it.
pub(super) fn identity(negotiated: &Negotiated) -> (NodeId, u32) {
    (negotiated.peer_node, negotiated.peer_asn)
}
