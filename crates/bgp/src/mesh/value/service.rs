//! The value of a Service-at-site route.

use super::{Value, head};
use crate::{
    cursor::Cursor,
    mesh::{Measure, Seq, State},
};

/// The value of a Service-at-site route (type 2): its endpoints there, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceHealth {
    /// The state of the service in this site.
    pub state: State,
    /// None is defined yet; sent as 0, received as they come.
    pub flags: u8,
    /// Load in 1/65535 of capacity.
    pub load: u16,
    /// Endpoints that are healthy or degraded.
    pub healthy: u32,
    /// Endpoints in all.
    pub total: u32,
    /// The sum of the weights of those that are healthy or degraded.
    pub weights: u32,
    /// Typical round trip from the prober to an endpoint, in µs.
    pub rtt: Measure,
    /// Requests at a time that its healthy endpoints take well; 0 where nobody said.
    pub capacity: Measure,
    /// The value's age at its originator.
    pub seq: Seq,
}

impl ServiceHealth {
    /// The octets up to and including seq, which is the last field.
    pub(in crate::mesh) const LEN: usize = 24;

    pub(super) fn encode(&self) -> Value {
        Value::of(&[
            &head(self.state, self.flags),
            &self.load.to_be_bytes(),
            &self.healthy.to_be_bytes(),
            &self.total.to_be_bytes(),
            &self.weights.to_be_bytes(),
            &self.rtt.bits().to_be_bytes(),
            &self.capacity.bits().to_be_bytes(),
            &self.seq.0.to_be_bytes(),
        ])
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(octets);
        Some(ServiceHealth {
            state: State::in_head(c.u8()?)?,
            flags: c.u8()?,
            load: c.u16()?,
            healthy: c.u32()?,
            total: c.u32()?,
            weights: c.u32()?,
            rtt: Measure::from_bits(c.u16()?),
            capacity: Measure::from_bits(c.u16()?),
            seq: Seq(c.u32()?),
        })
    }
}
