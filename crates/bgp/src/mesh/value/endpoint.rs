//! The value of an Endpoint route.

use super::{Value, head};
use crate::{
    cursor::Cursor,
    mesh::{Measure, Seq, State},
};

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

impl EndpointHealth {
    /// The octets up to and including seq, which is the last field.
    pub(in crate::mesh) const LEN: usize = 12;

    pub(super) fn encode(&self) -> Value {
        Value::of(&[
            &head(self.state, self.flags),
            &[self.weight],
            &[self.load],
            &self.rtt.bits().to_be_bytes(),
            &self.capacity.bits().to_be_bytes(),
            &self.seq.0.to_be_bytes(),
        ])
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(octets);
        Some(EndpointHealth {
            state: State::in_head(c.u8()?)?,
            flags: c.u8()?,
            weight: c.u8()?,
            load: c.u8()?,
            rtt: Measure::from_bits(c.u16()?),
            capacity: Measure::from_bits(c.u16()?),
            seq: Seq(c.u32()?),
        })
    }
}
