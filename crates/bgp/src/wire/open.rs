//! OPEN (RFC 4271 §4.2) and its capabilities (RFC 5492).

use std::time::Duration;

use base::NodeId;
use bytes::Bytes;

use super::{Family, MessageKind, Notification, message};
use crate::cursor::{Cursor, len8};

/// In place of an AS number that needs four octets (RFC 6793).
const AS_TRANS: u16 = 23456;
const CAPABILITIES: u8 = 2;
const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const FOUR_OCTET_AS: u8 = 65;

/// What one side says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The AS number: from the 4-octet capability where there is one, else from My AS.
    pub asn: u32,
    /// Was the 4-octet AS capability there?
    pub four_octet_as: bool,
    /// Hold time in seconds.
    pub hold_time_s: u16,
    /// The BGP Identifier.
    pub node: NodeId,
    /// Families of the multiprotocol capability; at most 16 are kept.
    pub families: Vec<Family>,
    /// Does it understand ROUTE-REFRESH (RFC 2918)?
    pub route_refresh: bool,
}

/// What we insist on in a neighbour's OPEN.
#[derive(Clone, Copy, Debug)]
pub struct OpenExpectation {
    /// Our AS, the neighbour's too.
    pub asn: u32,
    /// Our own identifier, which a neighbour must not have (RFC 6286 §2.1), unless `peer` says so.
    pub own: NodeId,
    /// The neighbour's identifier, where its certificate already told.
    pub peer: Option<NodeId>,
    /// The family that must be there.
    pub family: Family,
}

impl Open {
    const MAX_FAMILIES: usize = 16;

    /// Read the body of an OPEN. Unknown capabilities are ignored.
    ///
    /// # Errors
    /// The NOTIFICATION of RFC 4271 §6.2 for what is malformed in itself.
    pub fn decode(body: &[u8]) -> Result<Open, Notification> {
        let unspecific = || Notification::new(2, 0);
        let mut c = Cursor::new(body);
        if c.u8().ok_or_else(unspecific)? != 4 {
            return Err(Notification::with_data(2, 1, &[0, 4]));
        }
        let mut open = Open {
            asn: u32::from(c.u16().ok_or_else(unspecific)?),
            four_octet_as: false,
            hold_time_s: c.u16().ok_or_else(unspecific)?,
            node: NodeId(c.u32().ok_or_else(unspecific)?),
            families: Vec::new(),
            route_refresh: false,
        };
        let length = c.u8().ok_or_else(unspecific)?;
        let mut parameters = Cursor::new(c.take(usize::from(length)).ok_or_else(unspecific)?);
        if !c.is_empty() {
            return Err(unspecific());
        }
        while !parameters.is_empty() {
            let (kind, value) = tlv(&mut parameters).ok_or_else(unspecific)?;
            if kind != CAPABILITIES {
                return Err(Notification::new(2, 4));
            }
            let mut capabilities = Cursor::new(value);
            while !capabilities.is_empty() {
                let (code, value) = tlv(&mut capabilities).ok_or_else(unspecific)?;
                open.capability(code, value);
            }
        }
        Ok(open)
    }

    fn capability(&mut self, code: u8, value: &[u8]) {
        match (code, value) {
            (MULTIPROTOCOL, &[a, b, _, safi]) if self.families.len() < Self::MAX_FAMILIES => {
                self.families.push(Family {
                    afi: u16::from_be_bytes([a, b]),
                    safi,
                });
            }
            (ROUTE_REFRESH, []) => self.route_refresh = true,
            (FOUR_OCTET_AS, &[a, b, c, d]) => {
                self.asn = u32::from_be_bytes([a, b, c, d]);
                self.four_octet_as = true;
            }
            _ => {}
        }
    }

    /// Is it what we insist on? Returns the hold time of the session, the lesser of both.
    ///
    /// # Errors
    /// The NOTIFICATION of RFC 4271 §6.2 and RFC 5492 §5.
    pub fn judge(&self, want: &OpenExpectation, ours: Duration) -> Result<Duration, Notification> {
        if self.asn != want.asn {
            return Err(Notification::new(2, 2));
        }
        let expected = match want.peer {
            Some(peer) => self.node == peer,
            None => self.node != want.own,
        };
        if self.node == NodeId(0) || !expected {
            return Err(Notification::new(2, 3));
        }
        // 0 would switch the hold timer off; a session without a limit on silence is refused.
        if self.hold_time_s < 3 {
            return Err(Notification::new(2, 6));
        }
        if !self.four_octet_as {
            let [a, b, c, d] = want.asn.to_be_bytes();
            return Err(Notification::with_data(
                2,
                7,
                &[FOUR_OCTET_AS, 4, a, b, c, d],
            ));
        }
        if !self.families.contains(&want.family) {
            let [a, b] = want.family.afi.to_be_bytes();
            return Err(Notification::with_data(
                2,
                7,
                &[MULTIPROTOCOL, 4, a, b, 0, want.family.safi],
            ));
        }
        Ok(Duration::from_secs(u64::from(self.hold_time_s)).min(ours))
    }

    /// The whole message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut capabilities = Vec::new();
        for family in &self.families {
            let [a, b] = family.afi.to_be_bytes();
            capabilities.extend([MULTIPROTOCOL, 4, a, b, 0, family.safi]);
        }
        if self.route_refresh {
            capabilities.extend([ROUTE_REFRESH, 0]);
        }
        if self.four_octet_as {
            let [a, b, c, d] = self.asn.to_be_bytes();
            capabilities.extend([FOUR_OCTET_AS, 4, a, b, c, d]);
        }
        let mut body = vec![4];
        body.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        body.extend(self.hold_time_s.to_be_bytes());
        body.extend(self.node.0.to_be_bytes());
        body.push(len8(capabilities.len() + 2));
        body.extend([CAPABILITIES, len8(capabilities.len())]);
        body.extend(capabilities);
        message(MessageKind::Open, &body)
    }
}

fn tlv<'a>(c: &mut Cursor<'a>) -> Option<(u8, &'a [u8])> {
    let (kind, length) = (c.u8()?, c.u8()?);
    Some((kind, c.take(usize::from(length))?))
}
