//! The value of a Site route.

use super::{Value, head};
use crate::{
    cursor::Cursor,
    mesh::{Measure, Seq, State},
};

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

impl SiteHealth {
    /// The octets up to and including seq, which is the last field.
    pub(in crate::mesh) const LEN: usize = 12;

    pub(super) fn encode(&self) -> Value {
        Value::of(&[
            &head(self.state, self.flags),
            &self.load.to_be_bytes(),
            &self.capacity.bits().to_be_bytes(),
            &[0; 2],
            &self.seq.0.to_be_bytes(),
        ])
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(octets);
        let state = State::in_head(c.u8()?)?;
        let flags = c.u8()?;
        let load = c.u16()?;
        let capacity = Measure::from_bits(c.u16()?);
        let _reserved = c.take(2)?;
        let seq = Seq(c.u32()?);
        Some(SiteHealth {
            state,
            flags,
            load,
            capacity,
            seq,
        })
    }
}
