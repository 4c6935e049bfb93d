//! The value of an HTTP route.

use base::{Revision, ServiceId};

use super::{Value, head};
use crate::{
    cursor::Cursor,
    mesh::{PolicySetId, Seq, State},
};

/// The value of an HTTP route (type 4): where its requests go and what holds for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpTarget {
    /// Can the site serve it?
    pub state: State,
    /// None is defined yet; sent as 0, received as they come.
    pub flags: u8,
    /// The greater one is preferred where several routes match.
    pub priority: u16,
    /// The service that answers.
    pub service: ServiceId,
    /// The set of policies to enforce; all zero: none.
    pub policy: PolicySetId,
    /// The revision of the load balancer the route was compiled from.
    pub revision: Revision,
    /// The value's age at its originator.
    pub seq: Seq,
}

impl HttpTarget {
    /// The octets up to and including seq, which is the last field.
    pub(in crate::mesh) const LEN: usize = 40;

    pub(super) fn encode(&self) -> Value {
        Value::of(&[
            &head(self.state, self.flags),
            &self.priority.to_be_bytes(),
            &self.service.0.to_be_bytes(),
            &self.policy.0,
            &self.revision.0.to_be_bytes(),
            &self.seq.0.to_be_bytes(),
        ])
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(octets);
        Some(HttpTarget {
            state: State::in_head(c.u8()?)?,
            flags: c.u8()?,
            priority: c.u16()?,
            service: ServiceId(c.u64()?),
            policy: PolicySetId(c.array()?),
            revision: Revision(c.u64()?),
            seq: Seq(c.u32()?),
        })
    }
}
