//! BFD: is the neighbour still there? Asked several times a second, in RFC 5880's words.
//!
//! What it is: [`Session`], the machine of one session in asynchronous mode, and [`Packet`], what
//! it says. Both sides are active unless told otherwise; periods are negotiated, changes run
//! through a Poll Sequence, and silence for the detection time is [`Event::Down`].
//!
//! What it is not: it sends no Echo packets and asks for none (we say a Required Min Echo RX
//! Interval of 0), never asks for Demand mode but obeys a neighbour that does, and refuses
//! authenticated packets, which it counts (RFC 5880 §6.8.6: with no authentication in use they
//! are to be dropped). It opens no socket: the shell does, by these rules.
//!
//! # What the shell owes the machine
//! - One hop (RFC 5881): UDP to port [`PORT`] from one port of [`SOURCE_PORTS`] that stays the same
//!   for the session; sent with TTL [`TTL`], and **received with TTL 255 or dropped**. Several hops
//!   (RFC 5883): [`MULTIHOP_PORT`], TTL 255 when sending; what is received has passed at most as
//!   many routers as configured.
//! - Which session a packet is for: [`Packet::your_discriminator`] if it is not 0, else the
//!   neighbour's address (and the interface, for one hop; RFC 5881 §3, RFC 5883 §4). A packet for no
//!   session is counted and dropped. A session checks its discriminator itself too.
//! - After every `handle_*` (and [`Session::enable`], [`disable`](Session::disable),
//!   [`set_timers`](Session::set_timers)): send all that [`Session::poll_transmit`] gives, act on all
//!   that [`Session::poll_event`] gives, and set one timer by [`Session::poll_timeout`].
//! - What [`Event::Down`] does to BGP is the speaker's business (RFC 9384: Cease, subcode 10).
//!   [`Event::PeerDisabled`] is no failure: the client goes on as if there were no BFD
//!   (RFC 5882 §3.2, §4.1).
//!
//! # When we were the ones who slept
//! A shell that wakes later than [`Session::poll_timeout`] said, by more than one of the
//! neighbour's intervals, finds its packets unread in a socket. Then the deadline moves by that
//! lateness (never beyond a whole detection time from now) and [`Counters::stalls`] grows.
//!
//! ```
//! use base::Instant;
//! use path::bfd::{Config, Event, Session, State};
//! use std::num::NonZeroU32;
//!
//! let now = Instant::ZERO;
//! let [mut a, mut b] = [1, 2].map(|n| {
//!     Session::new(Config::new(NonZeroU32::new(n).expect("not 0"), u64::from(n)), now)
//! });
//! // Down, Init, Up: three packets.
//! for _ in 0..3 {
//!     while let Some(octets) = a.poll_transmit() {
//!         b.handle_packet(now, &octets);
//!     }
//!     while let Some(octets) = b.poll_transmit() {
//!         a.handle_packet(now, &octets);
//!     }
//! }
//! assert_eq!((a.state(), b.state()), (State::Up, State::Up));
//! assert_eq!(a.poll_event(), Some(Event::Up));
//! ```

mod negotiation;
mod packet;
mod session;
#[cfg(test)]
mod tests;

use std::{
    num::{NonZeroU8, NonZeroU32},
    ops::RangeInclusive,
    time::Duration,
};

pub use packet::{Diagnostic, Packet, PacketError, State};
pub use session::Session;

/// UDP port of Control packets over one hop (RFC 5881 §4).
pub const PORT: u16 = 3784;
/// UDP port of Control packets over several hops (RFC 5883 §5).
pub const MULTIHOP_PORT: u16 = 4784;
/// Where the source port of a session is to lie (RFC 5881 §4).
pub const SOURCE_PORTS: RangeInclusive<u16> = 49152..=65535;
/// The TTL of every packet sent, and over one hop of every packet received (RFC 5881 §5).
pub const TTL: u8 = 255;

/// Who begins (RFC 5880 §6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Sends from the start; what RFC 5881 §3 asks of both sides of one hop.
    #[default]
    Active,
    /// Says nothing before it has heard the neighbour.
    Passive,
}

/// What we offer and ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// The least interval between our packets: 1 ms at least, 4,294 s at most. Until the session is
    /// up one second at least is used (RFC 5880 §6.8.3).
    pub desired_min_tx: Duration,
    /// The least interval between the neighbour's packets that we can take in: 1 ms at least,
    /// 4,294 s at most.
    pub required_min_rx: Duration,
    /// How many of our packets in a row the neighbour must miss to call us dead.
    pub detect_multiplier: NonZeroU8,
}

impl Default for Timers {
    /// 3 × 300 ms.
    fn default() -> Self {
        Timers {
            desired_min_tx: Duration::from_millis(300),
            required_min_rx: Duration::from_millis(300),
            detect_multiplier: NonZeroU8::MIN.saturating_add(2),
        }
    }
}

/// One session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How the neighbour names this session: no other session of this node has it. It is to be
    /// hard to guess over several hops (RFC 5883 §4 leaves it to us).
    pub discriminator: NonZeroU32,
    /// What we offer and ask for.
    pub timers: Timers,
    /// Who begins.
    pub role: Role,
    /// Does BFD here survive a restart of the control half (the C bit, RFC 5880 §4.1)?
    pub control_plane_independent: bool,
    /// Where the jitter begins.
    pub seed: u64,
}

impl Config {
    /// An active session, 3 × 300 ms, that falls with the control half.
    #[must_use]
    pub fn new(discriminator: NonZeroU32, seed: u64) -> Self {
        Config {
            discriminator,
            timers: Timers::default(),
            role: Role::Active,
            control_plane_independent: false,
            seed,
        }
    }
}

/// What the session's client must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Both directions work.
    Up,
    /// They did, and do no more: the detection time passed, or the neighbour says so.
    Down {
        /// Our reason: detection time expired, or neighbour signalled.
        diagnostic: Diagnostic,
        /// The neighbour's reason in its last packet.
        remote: Diagnostic,
    },
    /// The neighbour took its session down on purpose. It says nothing about the path.
    PeerDisabled,
}

/// What a session has seen; read by the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets that were believed.
    pub received: u64,
    /// Packets given to the shell.
    pub sent: u64,
    /// Octets that are no BFD packet (RFC 5880 §6.8.6).
    pub malformed: u64,
    /// Packets for another discriminator than ours.
    pub unknown_discriminator: u64,
    /// Packets with authentication, which we do not have.
    pub authenticated: u64,
    /// Packets that came while we are administratively down.
    pub disabled: u64,
    /// Times the detection time passed while the session was up or nearly.
    pub expired: u64,
    /// Times our own timer came late by more than one interval.
    pub stalls: u64,
    /// Events nobody took; the oldest of 16 goes first.
    pub lost_events: u64,
}
