//! The states a value can have.

use std::fmt;

/// What an origin says about what its route is about.
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

    /// The state in the first octet of a value, beside the head's version.
    pub(super) fn in_head(octet: u8) -> Option<State> {
        Self::from_number(octet & 0xF)
    }

    /// Is it news that must not wait: nobody new is to be sent there?
    #[must_use]
    pub const fn is_down(self) -> bool {
        match self {
            State::Draining | State::Maintenance | State::Unhealthy | State::Withdrawn => true,
            State::Healthy | State::Degraded | State::Unknown => false,
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
