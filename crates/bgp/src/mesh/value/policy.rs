//! The value of a policy reference.

use base::Revision;

use super::{Value, head};
use crate::{
    cursor::Cursor,
    mesh::{Seq, State},
};

/// The value of a policy reference (type 5): which revision to enforce. The body comes by site-sync.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyReference {
    /// Is the revision in force?
    pub state: State,
    /// None is defined yet; sent as 0, received as they come.
    pub flags: u8,
    /// 0: with the next bundle; the greater, the sooner.
    pub urgency: u8,
    /// The revision to enforce.
    pub revision: Revision,
    /// SHA-256 of the revision's body.
    pub digest: [u8; 32],
    /// The value's age at its originator.
    pub seq: Seq,
}

impl PolicyReference {
    /// The octets up to and including seq, which is the last field.
    pub(in crate::mesh) const LEN: usize = 48;

    pub(super) fn encode(&self) -> Value {
        Value::of(&[
            &head(self.state, self.flags),
            &[self.urgency],
            &[0],
            &self.revision.0.to_be_bytes(),
            &self.digest,
            &self.seq.0.to_be_bytes(),
        ])
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let mut c = Cursor::new(octets);
        let state = State::in_head(c.u8()?)?;
        let flags = c.u8()?;
        let urgency = c.u8()?;
        let _reserved = c.take(1)?;
        let revision = Revision(c.u64()?);
        let digest = c.array()?;
        let seq = Seq(c.u32()?);
        Some(PolicyReference {
            state,
            flags,
            urgency,
            revision,
            digest,
            seq,
        })
    }
}
