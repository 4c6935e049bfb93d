//! Route distinguishers: who speaks, and for what.

use std::fmt;

use base::{SiteId, SlotId};

use super::KeyError;
use crate::cursor::Cursor;

/// A route distinguisher of type 1 (RFC 4364 §4.2): site (4) and slot (2). Two sites never
/// compete for one NLRI, two networks of one tenant never collide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rd {
    /// The site that speaks.
    pub site: SiteId,
    /// Which of its (tenant, network) it speaks for; 0 for the owner's application facts.
    pub slot: SlotId,
}

impl Rd {
    /// The type field of every route distinguisher here.
    pub(in crate::mesh) const TYPE: u16 = 1;

    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, KeyError> {
        let kind = cursor.u16().ok_or(KeyError::Short)?;
        if kind != Self::TYPE {
            return Err(KeyError::RdType(kind));
        }
        Ok(Rd {
            site: SiteId(cursor.u32().ok_or(KeyError::Short)?),
            slot: SlotId(cursor.u16().ok_or(KeyError::Short)?),
        })
    }

    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend(Self::TYPE.to_be_bytes());
        out.extend(self.site.0.to_be_bytes());
        out.extend(self.slot.0.to_be_bytes());
    }
}

impl fmt::Display for Rd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.site, self.slot)
    }
}
