//! One neighbour over one connected, reliable byte stream: the finite state machine of RFC 4271
//! §8 without its TCP half.

use std::{collections::VecDeque, fmt, time::Duration};

use base::{Instant, NodeId};
use bytes::Bytes;

use crate::wire::{
    self, Family, MAX_MESSAGE, MessageKind, Notification, Open, OpenExpectation, Update,
    UpdateFindings, UpdateOutcome,
};

/// How a session presents itself and what it insists on.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Our AS, the neighbour's too.
    pub asn: u32,
    /// Our node id, sent as BGP Identifier.
    pub node: NodeId,
    /// The neighbour's node id, where the stream below already proved it. Our own id is accepted
    /// only if it is expected here (the two halves of one node).
    pub peer: Option<NodeId>,
    /// The hold time we offer; whole seconds from 3 to 65535.
    pub hold_time: Duration,
    /// The family spoken.
    pub family: Family,
}

impl SessionConfig {
    /// Hold time where nobody says otherwise.
    pub const HOLD_TIME: Duration = Duration::from_secs(30);

    /// The MESH family with the default hold time and any neighbour.
    #[must_use]
    pub const fn new(node: NodeId, asn: u32) -> Self {
        SessionConfig {
            asn,
            node,
            peer: None,
            hold_time: Self::HOLD_TIME,
            family: Family::MESH,
        }
    }

    fn hold_time_s(&self) -> u16 {
        u16::try_from(self.hold_time.as_secs())
            .unwrap_or(u16::MAX)
            .max(3)
    }
}

/// RFC 4271 §8.2.2, without the states of TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// The session is over; a new stream needs a new session.
    Idle,
    /// OPEN sent.
    OpenSent,
    /// OPEN received and good.
    OpenConfirm,
    /// Routes flow.
    Established,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SessionState::Idle => "idle",
            SessionState::OpenSent => "open-sent",
            SessionState::OpenConfirm => "open-confirm",
            SessionState::Established => "established",
        })
    }
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Close {
    /// The stream ended without a NOTIFICATION.
    StreamEnded,
    /// We ended it, with this.
    Sent(Notification),
    /// The neighbour ended it, with this.
    Received(Notification),
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Close::StreamEnded => f.write_str("the stream ended"),
            Close::Sent(n) => write!(f, "sent {n}"),
            Close::Received(n) => write!(f, "received {n}"),
        }
    }
}

/// What a session tells its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionEvent {
    /// Both sides agreed.
    Established {
        /// The neighbour's BGP Identifier.
        peer: NodeId,
        /// The family both speak.
        family: Family,
        /// The hold time both keep.
        hold_time: Duration,
        /// Does the neighbour understand ROUTE-REFRESH?
        route_refresh: bool,
    },
    /// Routes came.
    Update(Update),
    /// The neighbour has sent its whole table.
    EndOfRib,
    /// The neighbour wants our whole table again.
    RefreshRequested,
    /// All routes of the neighbour are void and no more are accepted in this session.
    FamilyDisabled,
    /// The session is over. The last event.
    Closed(Close),
}

/// What went through a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Messages in.
    pub received: u64,
    /// Messages out.
    pub sent: u64,
    /// UPDATEs in.
    pub updates: u64,
    /// What was wrong in them.
    pub findings: UpdateFindings,
}

/// The machine. Feed it octets and time, take octets and events; it never blocks and no octets
/// make it fail: they end it with a NOTIFICATION.
///
/// Its input buffer never exceeds one message; its output and event queues grow only by what one
/// call was given, so drain them after each call.
#[derive(Debug)]
pub struct Session {
    config: SessionConfig,
    state: SessionState,
    peer: Option<NodeId>,
    route_refresh: bool,
    disabled: bool,
    hold_time: Duration,
    hold_at: Instant,
    keepalive_at: Option<Instant>,
    input: Vec<u8>,
    output: VecDeque<Bytes>,
    events: VecDeque<SessionEvent>,
    counters: SessionCounters,
}

/// RFC 4271 §8.2.2: "a large value", until the hold time is agreed on.
const OPEN_HOLD_TIME: Duration = Duration::from_secs(240);

impl Session {
    /// A session over a stream that is connected at `now`; its OPEN is ready to be sent.
    #[must_use]
    pub fn new(config: SessionConfig, now: Instant) -> Self {
        let open = Open {
            asn: config.asn,
            four_octet_as: true,
            hold_time_s: config.hold_time_s(),
            node: config.node,
            families: vec![config.family],
            route_refresh: true,
        };
        let mut session = Session {
            state: SessionState::OpenSent,
            peer: None,
            route_refresh: false,
            disabled: false,
            hold_time: OPEN_HOLD_TIME,
            hold_at: now + OPEN_HOLD_TIME,
            keepalive_at: None,
            input: Vec::new(),
            output: VecDeque::new(),
            events: VecDeque::new(),
            counters: SessionCounters::default(),
            config,
        };
        session.transmit(open.encode());
        session
    }

    /// Where it stands.
    #[must_use]
    pub const fn state(&self) -> SessionState {
        self.state
    }

    /// The neighbour's BGP Identifier, once its OPEN came.
    #[must_use]
    pub const fn peer(&self) -> Option<NodeId> {
        self.peer
    }

    /// The agreed hold time; 240 s until then.
    #[must_use]
    pub const fn hold_time(&self) -> Duration {
        self.hold_time
    }

    /// What went through.
    #[must_use]
    pub const fn counters(&self) -> SessionCounters {
        self.counters
    }

    /// Take in octets off the stream, as they come.
    pub fn handle_bytes(&mut self, now: Instant, mut octets: &[u8]) {
        while self.state != SessionState::Idle {
            // Whole messages straight from the caller's octets; only a torn one is kept.
            let from_input = !self.input.is_empty();
            if from_input {
                let room = missing(&self.input).min(octets.len());
                self.input.extend_from_slice(&octets[..room]);
                octets = &octets[room..];
            }
            let buffered = std::mem::take(&mut self.input);
            let source: &[u8] = if from_input { &buffered } else { octets };
            match wire::frame(source, MAX_MESSAGE) {
                Ok(Some((kind, length))) => {
                    self.handle_message(now, kind, &source[wire::HEADER..length]);
                    // What is kept is completed to exactly one message.
                    if !from_input {
                        octets = &octets[length..];
                    }
                }
                Ok(None) => {
                    // Fewer octets than one message, so at most MAX_MESSAGE of them.
                    let torn = if from_input {
                        buffered
                    } else {
                        std::mem::take(&mut octets).to_vec()
                    };
                    self.input = torn;
                    if octets.is_empty() {
                        return;
                    }
                }
                Err(notification) => self.close(notification),
            }
        }
    }

    /// The stream ended.
    pub fn handle_end_of_stream(&mut self) {
        self.finish(Close::StreamEnded);
    }

    /// Time has come to [`Session::poll_timeout`] (or not; then nothing happens).
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.state == SessionState::Idle {
            return;
        }
        if now >= self.hold_at {
            self.close(Notification::HOLD_TIMER.into());
            return;
        }
        if self.keepalive_at.is_some_and(|at| now >= at) {
            self.keepalive(now);
        }
    }

    /// When to call [`Session::handle_timeout`]; `None` once it is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            SessionState::Idle => None,
            SessionState::OpenSent | SessionState::OpenConfirm | SessionState::Established => Some(
                self.keepalive_at
                    .map_or(self.hold_at, |at| at.min(self.hold_at)),
            ),
        }
    }

    /// The next whole message to write.
    pub fn poll_transmit(&mut self) -> Option<Bytes> {
        self.output.pop_front()
    }

    /// The next thing to know.
    pub fn poll_event(&mut self) -> Option<SessionEvent> {
        self.events.pop_front()
    }

    /// Send a message that [`crate::Rib`] encoded; dropped unless Established.
    pub fn send(&mut self, message: Bytes) {
        if self.state == SessionState::Established {
            self.transmit(message);
        }
    }

    /// Ask the neighbour for its whole table; false if it does not understand that.
    pub fn request_refresh(&mut self) -> bool {
        let can = self.route_refresh && self.state == SessionState::Established;
        if can {
            self.transmit(wire::route_refresh(
                self.config.family,
                wire::RefreshKind::Request,
            ));
        }
        can
    }

    /// End the session with this NOTIFICATION.
    pub fn close(&mut self, notification: Notification) {
        if self.state != SessionState::Idle {
            self.output.clear();
            self.transmit(notification.encode());
            self.finish(Close::Sent(notification));
        }
    }

    fn finish(&mut self, close: Close) {
        if self.state != SessionState::Idle {
            self.state = SessionState::Idle;
            self.input = Vec::new();
            self.events.push_back(SessionEvent::Closed(close));
        }
    }

    fn transmit(&mut self, message: Bytes) {
        self.counters.sent += 1;
        self.output.push_back(message);
    }

    fn keepalive(&mut self, now: Instant) {
        self.transmit(wire::keepalive());
        self.keepalive_at = Some(now + self.hold_time / 3);
    }

    fn handle_message(&mut self, now: Instant, kind: MessageKind, body: &[u8]) {
        self.counters.received += 1;
        let outcome = match (self.state, kind) {
            (SessionState::Idle, _) => Ok(()),
            (_, MessageKind::Notification) => {
                self.output.clear();
                self.finish(Close::Received(Notification::decode(body)));
                Ok(())
            }
            (SessionState::OpenSent, MessageKind::Open) => self.handle_open(now, body),
            (SessionState::OpenConfirm, MessageKind::Keepalive) => {
                self.hold_at = now + self.hold_time;
                self.establish();
                Ok(())
            }
            (SessionState::Established, MessageKind::Keepalive) => {
                self.hold_at = now + self.hold_time;
                Ok(())
            }
            (SessionState::Established, MessageKind::Update) => {
                self.hold_at = now + self.hold_time;
                self.handle_update(body)
            }
            (SessionState::Established, MessageKind::RouteRefresh) => {
                self.handle_refresh(body);
                Ok(())
            }
            // RFC 6608: the subcode says in which state the message came.
            (SessionState::OpenSent, _) => Err(Notification::with_data(5, 1, &[kind as u8])),
            (SessionState::OpenConfirm, _) => Err(Notification::with_data(5, 2, &[kind as u8])),
            (SessionState::Established, _) => Err(Notification::with_data(5, 3, &[kind as u8])),
        };
        if let Err(notification) = outcome {
            self.close(notification);
        }
    }

    fn handle_open(&mut self, now: Instant, body: &[u8]) -> Result<(), Notification> {
        let open = Open::decode(body)?;
        let want = OpenExpectation {
            asn: self.config.asn,
            own: self.config.node,
            peer: self.config.peer,
            family: self.config.family,
        };
        let ours = Duration::from_secs(u64::from(self.config.hold_time_s()));
        self.hold_time = open.judge(&want, ours)?;
        self.peer = Some(open.node);
        self.route_refresh = open.route_refresh;
        self.state = SessionState::OpenConfirm;
        self.hold_at = now + self.hold_time;
        self.keepalive(now);
        Ok(())
    }

    fn establish(&mut self) {
        self.state = SessionState::Established;
        if let Some(peer) = self.peer {
            self.events.push_back(SessionEvent::Established {
                peer,
                family: self.config.family,
                hold_time: self.hold_time,
                route_refresh: self.route_refresh,
            });
        }
    }

    fn handle_update(&mut self, body: &[u8]) -> Result<(), Notification> {
        self.counters.updates += 1;
        let findings = &mut self.counters.findings;
        let outcome = wire::decode_update(body, self.config.family, findings)?;
        if self.disabled {
            return Ok(());
        }
        match outcome {
            UpdateOutcome::Routes(update) => self.events.push_back(SessionEvent::Update(update)),
            UpdateOutcome::EndOfRib => self.events.push_back(SessionEvent::EndOfRib),
            UpdateOutcome::FamilyDisabled => {
                self.disabled = true;
                self.events.push_back(SessionEvent::FamilyDisabled);
            }
            UpdateOutcome::Nothing => {}
        }
        Ok(())
    }

    fn handle_refresh(&mut self, body: &[u8]) {
        let [a, b, _, safi] = body else {
            return;
        };
        let family = Family {
            afi: u16::from_be_bytes([*a, *b]),
            safi: *safi,
        };
        if family == self.config.family {
            self.events.push_back(SessionEvent::RefreshRequested);
        }
    }
}

/// How many octets a torn message lacks: to its header first, then to its end.
fn missing(input: &[u8]) -> usize {
    let whole = match input.get(16..18) {
        Some(length) if input.len() >= wire::HEADER => {
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        }
        Some(_) | None => wire::HEADER,
    };
    whole.min(MAX_MESSAGE).saturating_sub(input.len())
}
