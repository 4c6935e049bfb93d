//! Values: the volatile state carried in an NLRI beside its key.

use std::{fmt, sync::Arc};

use super::{Key, Measure, Seq};
use crate::cursor::Cursor;

/// What an origin says about a site or an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// 0: not probed yet; chosen only if nothing is healthy or degraded.
    #[default]
    Unknown = 0,
    /// 1: selectable.
    Healthy = 1,
    /// 2: selectable at half weight.
    Degraded = 2,
    /// 3: existing sticky sessions only.
    Draining = 3,
    /// 4: never chosen.
    Maintenance = 4,
    /// 5: chosen only under panic, where the service allows it.
    Unhealthy = 5,
    /// 6: never chosen.
    Withdrawn = 6,
}

impl State {
    const ALL: [State; 7] = [
        State::Unknown,
        State::Healthy,
        State::Degraded,
        State::Draining,
        State::Maintenance,
        State::Unhealthy,
        State::Withdrawn,
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The state with this number on the wire.
    #[must_use]
    pub fn from_number(number: u8) -> Option<State> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// How bad it is to be chosen: of two values equally new, the one with the higher rank is
    /// believed.
    #[must_use]
    pub const fn badness(self) -> u8 {
        match self {
            State::Healthy => 0,
            State::Degraded => 1,
            State::Unknown => 2,
            State::Draining => 3,
            State::Unhealthy => 4,
            State::Maintenance => 5,
            State::Withdrawn => 6,
        }
    }

    /// May an ordinary request choose it?
    #[must_use]
    pub const fn is_selectable(self) -> bool {
        matches!(self, State::Healthy | State::Degraded)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Unknown => "unknown",
            State::Healthy => "healthy",
            State::Degraded => "degraded",
            State::Draining => "draining",
            State::Maintenance => "maintenance",
            State::Unhealthy => "unhealthy",
            State::Withdrawn => "withdrawn",
        })
    }
}

/// The value of a Site route (type 1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SiteHealth {
    /// The site's state.
    pub state: State,
    /// None is defined yet; sent as 0, received as they come.
    pub flags: u8,
    /// Load in 1/65535 of capacity.
    pub load: u16,
    /// Requests per second the site can take; 0 where nobody said.
    pub capacity: Measure,
    /// The value's age at its originator.
    pub seq: Seq,
}

/// The value of an Endpoint route (type 3): its health word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint's state.
    pub state: State,
    /// None is defined yet; sent as 0, received as they come.
    pub flags: u8,
    /// Relative weight; 0 takes no share.
    pub weight: u8,
    /// Load in 1/255 of capacity.
    pub load: u8,
    /// Round trip from the prober to the endpoint, in µs.
    pub rtt: Measure,
    /// Requests per second the endpoint can take; 0 where nobody said.
    pub capacity: Measure,
    /// The value's age at its originator.
    pub seq: Seq,
}

/// Why octets are not a value of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Ends before its last field, or is over 255 octets.
    #[error("the value has {0} octets")]
    Length(usize),
    /// A state number that is not defined.
    #[error("state {0} is not defined")]
    State(u8),
}

const INLINE: usize = 22;
/// Both known types: the octets up to and including seq.
const KNOWN_LEN: usize = 12;

#[derive(Clone)]
enum Octets {
    Inline(u8, [u8; INLINE]),
    Heap(Arc<[u8]>),
}

/// A value exactly as received, so that it is passed on unchanged, trailing octets included; at
/// most 255 octets, without an allocation up to 22.
#[derive(Clone)]
pub struct Value(Octets);

impl Value {
    /// The version of the head this node writes.
    pub const VERSION: u8 = 0;

    /// The value of a Site route.
    #[must_use]
    pub fn site(health: &SiteHealth) -> Value {
        let mut b = [0; KNOWN_LEN];
        b[0] = Self::VERSION << 4 | health.state.number();
        b[1] = health.flags;
        b[2..4].copy_from_slice(&health.load.to_be_bytes());
        b[4..6].copy_from_slice(&health.capacity.bits().to_be_bytes());
        b[8..12].copy_from_slice(&health.seq.0.to_be_bytes());
        Self::inline(&b)
    }

    /// The value of an Endpoint route.
    #[must_use]
    pub fn endpoint(health: &EndpointHealth) -> Value {
        let mut b = [0; KNOWN_LEN];
        b[0] = Self::VERSION << 4 | health.state.number();
        b[1] = health.flags;
        b[2] = health.weight;
        b[3] = health.load;
        b[4..6].copy_from_slice(&health.rtt.bits().to_be_bytes());
        b[6..8].copy_from_slice(&health.capacity.bits().to_be_bytes());
        b[8..12].copy_from_slice(&health.seq.0.to_be_bytes());
        Self::inline(&b)
    }

    fn inline(octets: &[u8; KNOWN_LEN]) -> Value {
        let mut all = [0; INLINE];
        all[..KNOWN_LEN].copy_from_slice(octets);
        Value(Octets::Inline(12, all))
    }

    /// Judge the octets that came with `key`; of an unknown type any octets are good.
    pub fn decode(key: &Key, octets: &[u8]) -> Result<Value, ValueError> {
        match key {
            Key::Site { .. } | Key::Endpoint { .. } => {
                if octets.len() < KNOWN_LEN {
                    return Err(ValueError::Length(octets.len()));
                }
                let state = octets[0] & 0xF;
                State::from_number(state).ok_or(ValueError::State(state))?;
            }
            Key::Unknown { .. } => {}
        }
        let Ok(len) = u8::try_from(octets.len()) else {
            return Err(ValueError::Length(octets.len()));
        };
        if octets.len() > INLINE {
            return Ok(Value(Octets::Heap(octets.into())));
        }
        let mut all = [0; INLINE];
        all[..octets.len()].copy_from_slice(octets);
        Ok(Value(Octets::Inline(len, all)))
    }

    /// The octets on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Octets::Inline(len, all) => &all[..usize::from(*len)],
            Octets::Heap(all) => all,
        }
    }

    /// The head's version (0…15) if there is a head.
    #[must_use]
    pub fn version(&self) -> Option<u8> {
        self.as_bytes().first().map(|b| b >> 4)
    }

    /// The state in the head; `None` if there is no head or its number is not defined.
    #[must_use]
    pub fn state(&self) -> Option<State> {
        self.as_bytes()
            .first()
            .and_then(|b| State::from_number(b & 0xF))
    }

    /// Read as the value of a Site route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_site(&self) -> Option<SiteHealth> {
        let mut c = Cursor::new(self.as_bytes());
        let (head, flags) = (c.u8()?, c.u8()?);
        let (load, capacity, _reserved) = (c.u16()?, c.u16()?, c.u16()?);
        Some(SiteHealth {
            state: State::from_number(head & 0xF)?,
            flags,
            load,
            capacity: Measure::from_bits(capacity),
            seq: Seq(c.u32()?),
        })
    }

    /// Read as the value of an Endpoint route; `None` if it is not long enough to be one.
    #[must_use]
    pub fn as_endpoint(&self) -> Option<EndpointHealth> {
        let mut c = Cursor::new(self.as_bytes());
        Some(EndpointHealth {
            state: State::from_number(c.u8()? & 0xF)?,
            flags: c.u8()?,
            weight: c.u8()?,
            load: c.u8()?,
            rtt: Measure::from_bits(c.u16()?),
            capacity: Measure::from_bits(c.u16()?),
            seq: Seq(c.u32()?),
        })
    }

    /// The seq of a value that came with `key`; `None` for unknown types.
    #[must_use]
    pub fn seq(&self, key: &Key) -> Option<Seq> {
        match key {
            Key::Site { .. } => self.as_site().map(|v| v.seq),
            Key::Endpoint { .. } => self.as_endpoint().map(|v| v.seq),
            Key::Unknown { .. } => None,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Value {}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Value(")?;
        for b in self.as_bytes() {
            write!(f, "{b:02x}")?;
        }
        f.write_str(")")
    }
}
