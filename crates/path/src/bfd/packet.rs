//! The Control packet (RFC 5880 §4.1), without authentication.

/// What one side believes about the session (RFC 5880 §6.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Held down on purpose.
    AdminDown = 0,
    /// Not heard yet, or no more.
    #[default]
    Down = 1,
    /// Heard; the other side has not said that it hears us.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

/// Why a state was left last (RFC 5880 §4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Diagnostic {
    /// 0.
    #[default]
    None,
    /// 1: nothing was heard for the detection time.
    DetectionTimeExpired,
    /// 2.
    EchoFailed,
    /// 3: the other side said that its session is down.
    NeighborSignaledDown,
    /// 4.
    ForwardingPlaneReset,
    /// 5.
    PathDown,
    /// 6.
    ConcatenatedPathDown,
    /// 7.
    AdministrativelyDown,
    /// 8.
    ReverseConcatenatedPathDown,
    /// 9 to 31: nothing yet.
    Reserved(u8),
}

impl Diagnostic {
    /// The five bits of a packet; higher ones are ignored.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code & 0x1F {
            0 => Diagnostic::None,
            1 => Diagnostic::DetectionTimeExpired,
            2 => Diagnostic::EchoFailed,
            3 => Diagnostic::NeighborSignaledDown,
            4 => Diagnostic::ForwardingPlaneReset,
            5 => Diagnostic::PathDown,
            6 => Diagnostic::ConcatenatedPathDown,
            7 => Diagnostic::AdministrativelyDown,
            8 => Diagnostic::ReverseConcatenatedPathDown,
            other => Diagnostic::Reserved(other),
        }
    }

    /// Its number, 0 to 31.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Diagnostic::None => 0,
            Diagnostic::DetectionTimeExpired => 1,
            Diagnostic::EchoFailed => 2,
            Diagnostic::NeighborSignaledDown => 3,
            Diagnostic::ForwardingPlaneReset => 4,
            Diagnostic::PathDown => 5,
            Diagnostic::ConcatenatedPathDown => 6,
            Diagnostic::AdministrativelyDown => 7,
            Diagnostic::ReverseConcatenatedPathDown => 8,
            Diagnostic::Reserved(code) => code & 0x1F,
        }
    }
}

/// Why octets are no Control packet; they are dropped (RFC 5880 §6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// Fewer octets than a packet has, or than this one claims.
    #[error("{0} octets are too few")]
    Short(usize),
    /// Not version 1.
    #[error("version {0} instead of 1")]
    Version(u8),
    /// The length field is below 24 (26 with authentication).
    #[error("a length of {0} octets")]
    Length(u8),
    /// Detect Mult is 0.
    #[error("a detect multiplier of 0")]
    Multiplier,
    /// The M bit is set.
    #[error("the multipoint bit")]
    Multipoint,
    /// My Discriminator is 0.
    #[error("no discriminator of its sender")]
    Anonymous,
    /// Your Discriminator is 0 in a state where the sender must know it.
    #[error("no discriminator of ours in state {0:?}")]
    Unaddressed(State),
}

/// One Control packet. Intervals are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The sender's reason for its last change of state.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: answer with F at once.
    pub poll: bool,
    /// F: the answer to P.
    pub final_: bool,
    /// C: the sender's BFD does not share fate with its control plane.
    pub control_plane_independent: bool,
    /// A: an authentication section follows. Read only, never written.
    pub authenticated: bool,
    /// D: the sender wants no periodic packets while the session is up.
    pub demand: bool,
    /// Packets in a row whose loss means death.
    pub detect_multiplier: u8,
    /// The sender's name of the session; not 0.
    pub my_discriminator: u32,
    /// The receiver's name of it; 0: not known to the sender.
    pub your_discriminator: u32,
    /// The least interval at which the sender wants to send.
    pub desired_min_tx: u32,
    /// The least interval at which it can receive; 0: it wants no periodic packets.
    pub required_min_rx: u32,
    /// The same for Echo packets; 0: it takes none.
    pub required_min_echo_rx: u32,
}

impl Packet {
    /// Octets of a packet without authentication.
    pub const LENGTH: usize = 24;

    const POLL: u8 = 0x20;
    const FINAL: u8 = 0x10;
    const INDEPENDENT: u8 = 0x08;
    const AUTHENTICATED: u8 = 0x04;
    const DEMAND: u8 = 0x02;
    const MULTIPOINT: u8 = 0x01;

    /// Reads the payload of one UDP datagram. Octets behind the packet's own length are ignored.
    ///
    /// # Errors
    /// The first rule of RFC 5880 §6.8.6 that it breaks.
    pub fn decode(octets: &[u8]) -> Result<Self, PacketError> {
        let Some((head, _)) = octets.split_first_chunk::<{ Self::LENGTH }>() else {
            return Err(PacketError::Short(octets.len()));
        };
        let [first, flags, detect_multiplier, length, ..] = *head;
        let word =
            |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let authenticated = flags & Self::AUTHENTICATED != 0;
        let state = match flags >> 6 {
            0 => State::AdminDown,
            1 => State::Down,
            2 => State::Init,
            _ => State::Up,
        };
        let packet = Packet {
            diagnostic: Diagnostic::from_code(first),
            state,
            poll: flags & Self::POLL != 0,
            final_: flags & Self::FINAL != 0,
            control_plane_independent: flags & Self::INDEPENDENT != 0,
            authenticated,
            demand: flags & Self::DEMAND != 0,
            detect_multiplier,
            my_discriminator: word(4),
            your_discriminator: word(8),
            desired_min_tx: word(12),
            required_min_rx: word(16),
            required_min_echo_rx: word(20),
        };
        if first >> 5 != 1 {
            return Err(PacketError::Version(first >> 5));
        }
        if length < if authenticated { 26 } else { 24 } {
            return Err(PacketError::Length(length));
        }
        if usize::from(length) > octets.len() {
            return Err(PacketError::Short(octets.len()));
        }
        if detect_multiplier == 0 {
            return Err(PacketError::Multiplier);
        }
        if flags & Self::MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        if packet.my_discriminator == 0 {
            return Err(PacketError::Anonymous);
        }
        if packet.your_discriminator == 0 && matches!(state, State::Init | State::Up) {
            return Err(PacketError::Unaddressed(state));
        }
        Ok(packet)
    }

    /// Its octets; `authenticated` is not among them.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | flag(self.poll, Self::POLL)
            | flag(self.final_, Self::FINAL)
            | flag(self.control_plane_independent, Self::INDEPENDENT)
            | flag(self.demand, Self::DEMAND);
        let mut octets = [0; Self::LENGTH];
        octets[..4].copy_from_slice(&[
            1 << 5 | self.diagnostic.code(),
            flags,
            self.detect_multiplier,
            24,
        ]);
        let words = [
            self.my_discriminator,
            self.your_discriminator,
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        for (to, word) in octets[4..].chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&word.to_be_bytes());
        }
        octets
    }
}
