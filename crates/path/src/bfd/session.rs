//! The machine of one session (RFC 5880 §6.8).

use std::{collections::VecDeque, time::Duration};

use base::{Instant, Rng};

use super::{
    Config, Counters, Diagnostic, Event, Packet, Role, State, Timers, negotiation::Negotiation,
};

/// Events kept for a shell that does not take them.
const MAX_EVENTS: usize = 16;

/// One BFD session with one neighbour. See the [module](super) for what the shell owes it.
#[derive(Clone, Debug)]
pub struct Session {
    config: Config,
    rng: Rng,
    state: State,
    diagnostic: Diagnostic,
    /// bfd.RemoteDiscr; 0: not known.
    remote_discriminator: u32,
    remote_state: State,
    remote_diagnostic: Diagnostic,
    remote_demand: bool,
    intervals: Negotiation,
    /// A packet is to be sent.
    due: bool,
    /// A packet with F is to be sent.
    final_due: bool,
    /// What was sent last, without P and F.
    said: Option<Packet>,
    /// When a packet was made due last, and the interval the next one was planned with.
    sent_at: Instant,
    interval: Duration,
    next_transmit: Instant,
    /// Were periodic packets allowed when last looked at?
    periodic: bool,
    /// When silence is death; `None`: nobody was heard.
    deadline: Option<Instant>,
    /// The latest we must be woken to know whether we slept ourselves.
    tick: Instant,
    /// Disabled: when the neighbour has been told often enough.
    quiet_at: Option<Instant>,
    /// What `poll_timeout` says.
    planned: Option<Instant>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Session {
    /// A session in state Down. An active one has its first packet ready.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let intervals = Negotiation::new(&config.timers, State::Down);
        let mut session = Session {
            config,
            rng: Rng::new(config.seed),
            state: State::Down,
            diagnostic: Diagnostic::None,
            remote_discriminator: 0,
            remote_state: State::Down,
            remote_diagnostic: Diagnostic::None,
            remote_demand: false,
            interval: intervals.transmit_interval(),
            intervals,
            due: false,
            final_due: false,
            said: None,
            sent_at: now,
            next_transmit: now,
            periodic: false,
            deadline: None,
            tick: now,
            quiet_at: None,
            planned: None,
            events: VecDeque::new(),
            counters: Counters::default(),
        };
        session.settle(now);
        session
    }

    /// A datagram from the neighbour, whose TTL the shell has checked. What is no packet for this
    /// session is counted and dropped.
    pub fn handle_packet(&mut self, now: Instant, octets: &[u8]) {
        let Ok(packet) = Packet::decode(octets) else {
            self.counters.malformed += 1;
            return;
        };
        if ![0, self.config.discriminator.get()].contains(&packet.your_discriminator) {
            self.counters.unknown_discriminator += 1;
            return;
        }
        if packet.authenticated {
            self.counters.authenticated += 1;
            return;
        }
        self.remote_discriminator = packet.my_discriminator;
        self.remote_state = packet.state;
        self.remote_diagnostic = packet.diagnostic;
        self.remote_demand = packet.demand;
        self.intervals.handle_packet(&packet);
        if self.state == State::AdminDown {
            self.counters.disabled += 1;
        } else {
            self.counters.received += 1;
            self.handle_state(packet.state);
            if self.deadline.is_none() {
                self.tick = now + self.intervals.receive_interval();
            }
        }
        self.final_due |= packet.poll;
        self.settle(now);
        if self.state != State::AdminDown {
            // With the intervals that hold after this packet (RFC 5880 §6.8.6).
            self.deadline = Some(now + self.intervals.detection_time());
            self.plan();
        }
    }

    /// The shell's timer fired.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forgive(now);
        if self.deadline.is_some_and(|deadline| now >= deadline) {
            self.expire();
        }
        if self.quiet_at.is_some_and(|quiet_at| now >= quiet_at) {
            self.quiet_at = None;
        }
        if self.may_transmit() && self.periodic && now >= self.next_transmit {
            self.transmit(now);
        }
        self.tick = now + self.intervals.receive_interval();
        self.settle(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next; `None`: there is nothing to wait
    /// for (disabled and said so, or passive and nobody there).
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.planned
    }

    /// The next packet to send, if there is one.
    pub fn poll_transmit(&mut self) -> Option<[u8; 24]> {
        let said = self.contents();
        let mut packet = said;
        if std::mem::take(&mut self.final_due) {
            packet.final_ = true;
            // It says everything, unless there is a question too: P and F exclude each other.
            self.due &= self.intervals.polling();
        } else if std::mem::take(&mut self.due) {
            packet.poll = self.intervals.polling() && self.state != State::AdminDown;
        } else {
            return None;
        }
        self.said = Some(said);
        self.counters.sent += 1;
        Some(packet.encode())
    }

    /// The next thing the client must know, if there is one.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Holds the session down on purpose. The neighbour is told for a detection time; then
    /// [`poll_timeout`](Self::poll_timeout) is `None` and the session may be forgotten. There is no
    /// event: the client asked for it.
    pub fn disable(&mut self, now: Instant) {
        if self.state == State::AdminDown {
            return;
        }
        self.state = State::AdminDown;
        self.diagnostic = Diagnostic::AdministrativelyDown;
        self.deadline = None;
        self.settle(now);
        let told = self.interval * u32::from(self.config.timers.detect_multiplier.get());
        self.quiet_at = Some(now + told);
        self.settle(now);
    }

    /// Begins again after [`disable`](Self::disable).
    pub fn enable(&mut self, now: Instant) {
        if self.state != State::AdminDown {
            return;
        }
        self.state = State::Down;
        self.quiet_at = None;
        self.remote_discriminator = 0;
        self.remote_state = State::Down;
        self.remote_demand = false;
        self.intervals = Negotiation::new(&self.config.timers, self.state);
        self.periodic = false;
        self.next_transmit = now;
        self.settle(now);
    }

    /// Offers and asks for other intervals, by a Poll Sequence if the neighbour is there.
    pub fn set_timers(&mut self, now: Instant, timers: Timers) {
        self.config.timers = timers;
        self.settle(now);
    }

    /// Our state.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Our reason for the last change of state.
    #[must_use]
    pub const fn diagnostic(&self) -> Diagnostic {
        self.diagnostic
    }

    /// State and reason in the neighbour's last packet.
    #[must_use]
    pub const fn remote(&self) -> (State, Diagnostic) {
        (self.remote_state, self.remote_diagnostic)
    }

    /// The negotiated interval of our packets, before jitter.
    #[must_use]
    pub fn transmit_interval(&self) -> Duration {
        self.intervals.transmit_interval()
    }

    /// The silence of the neighbour that means death.
    #[must_use]
    pub fn detection_time(&self) -> Duration {
        self.intervals.detection_time()
    }

    /// What was seen so far.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// The state machine for a received state (RFC 5880 §6.8.6).
    fn handle_state(&mut self, remote: State) {
        match (self.state, remote) {
            (State::Init | State::Up, State::AdminDown) | (State::Up, State::Down) => {
                let was_up = self.state == State::Up;
                self.state = State::Down;
                self.diagnostic = Diagnostic::NeighborSignaledDown;
                if !was_up {
                    return;
                }
                self.tell(if remote == State::AdminDown {
                    Event::PeerDisabled
                } else {
                    Event::Down {
                        diagnostic: self.diagnostic,
                        remote: self.remote_diagnostic,
                    }
                });
            }
            (State::Down, State::Down) => self.state = State::Init,
            (State::Down, State::Init) | (State::Init, State::Init | State::Up) => {
                self.state = State::Up;
                self.diagnostic = Diagnostic::None;
                self.tell(Event::Up);
            }
            (State::AdminDown, _)
            | (State::Down, State::AdminDown | State::Up)
            | (State::Init, State::Down)
            | (State::Up, State::Init | State::Up) => {}
        }
    }

    /// Nothing was heard for the detection time (RFC 5880 §6.8.4, §6.8.1 for the discriminator).
    fn expire(&mut self) {
        self.deadline = None;
        self.remote_discriminator = 0;
        let was = self.state;
        match was {
            State::AdminDown | State::Down => return,
            State::Init | State::Up => {}
        }
        self.state = State::Down;
        self.diagnostic = Diagnostic::DetectionTimeExpired;
        self.counters.expired += 1;
        if was == State::Up {
            self.tell(Event::Down {
                diagnostic: self.diagnostic,
                remote: self.remote_diagnostic,
            });
        }
    }

    /// Moves the deadline if we were the ones who slept.
    fn forgive(&mut self, now: Instant) {
        let (Some(deadline), Some(planned)) = (self.deadline, self.planned) else {
            return;
        };
        let late = now.since(planned);
        if late > self.intervals.receive_interval() {
            self.counters.stalls += 1;
            let latest = now + self.intervals.detection_time();
            self.deadline = Some(deadline.max(latest.min(deadline + late)));
        }
    }

    /// Brings everything that follows from the state up to date.
    fn settle(&mut self, now: Instant) {
        let known = self.remote_discriminator != 0 && self.state != State::AdminDown;
        let polled = self.intervals.adopt(&self.config.timers, self.state, known);
        let interval = self.intervals.transmit_interval();
        if interval != self.interval {
            self.interval = interval;
            self.next_transmit = now.max(self.sent_at + self.jittered());
        }
        let periodic = self.is_periodic();
        if periodic && !self.periodic {
            self.next_transmit = self.next_transmit.max(now);
        }
        self.periodic = periodic;
        // Changes are not kept until the next period (RFC 5880 §6.8.7).
        let news = self.said.is_none_or(|said| said != self.contents());
        if self.may_transmit() && (polled || news) && !self.due {
            self.transmit(now);
        }
        self.tick = self.tick.min(now + self.intervals.receive_interval());
        self.plan();
    }

    fn plan(&mut self) {
        self.planned = [
            self.periodic.then_some(self.next_transmit),
            self.quiet_at,
            self.deadline,
            self.deadline.map(|_| self.tick),
        ]
        .into_iter()
        .flatten()
        .min();
    }

    /// Makes a packet due and plans the next one.
    fn transmit(&mut self, now: Instant) {
        self.due = true;
        self.sent_at = now;
        self.next_transmit = now + self.jittered();
    }

    /// The interval less 0 to 25 %, or 10 to 25 % if one lost packet means death
    /// (RFC 5880 §6.8.7).
    fn jittered(&mut self) -> Duration {
        let percent = if self.config.timers.detect_multiplier.get() == 1 {
            15
        } else {
            25
        };
        let spread = self.interval * percent / 100;
        let spread = u64::try_from(spread.as_nanos()).unwrap_or(u64::MAX - 1);
        self.interval * 3 / 4 + Duration::from_nanos(self.rng.below(spread + 1))
    }

    /// May anything but an F be sent?
    fn may_transmit(&self) -> bool {
        let heard = self.config.role == Role::Active || self.remote_discriminator != 0;
        let talking = self.state != State::AdminDown || self.quiet_at.is_some();
        heard && talking
    }

    /// Are packets to be sent from time to time (RFC 5880 §6.8.7)?
    fn is_periodic(&self) -> bool {
        let demanded_silence = self.remote_demand
            && self.state == State::Up
            && self.remote_state == State::Up
            && !self.intervals.polling();
        self.may_transmit() && self.intervals.wanted() && !demanded_silence
    }

    /// What a packet says now, without P and F.
    fn contents(&self) -> Packet {
        let (desired_min_tx, required_min_rx) = self.intervals.advertised();
        Packet {
            diagnostic: self.diagnostic,
            state: self.state,
            control_plane_independent: self.config.control_plane_independent,
            detect_multiplier: self.config.timers.detect_multiplier.get(),
            my_discriminator: self.config.discriminator.get(),
            your_discriminator: self.remote_discriminator,
            desired_min_tx,
            required_min_rx,
            ..Packet::default()
        }
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
            self.counters.lost_events += 1;
        }
        self.events.push_back(event);
    }
}
