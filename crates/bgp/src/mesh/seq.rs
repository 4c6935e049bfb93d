//! Serial number arithmetic (RFC 1982, `SERIAL_BITS` = 32).

use std::{cmp::Ordering, fmt};

/// The age of a value at its originator: the greater of two is the newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// RFC 1982 §3.2; `None` where it is undefined (exactly 2³¹ apart).
    #[must_use]
    pub fn compare(self, other: Seq) -> Option<Ordering> {
        match self.0.wrapping_sub(other.0) {
            0 => Some(Ordering::Equal),
            d if d < 1 << 31 => Some(Ordering::Greater),
            d if d > 1 << 31 => Some(Ordering::Less),
            _ => None,
        }
    }

    /// Is this one newer?
    #[must_use]
    pub fn is_after(self, other: Seq) -> bool {
        self.compare(other) == Some(Ordering::Greater)
    }

    /// The next one.
    #[must_use]
    pub const fn next(self) -> Seq {
        Seq(self.0.wrapping_add(1))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
