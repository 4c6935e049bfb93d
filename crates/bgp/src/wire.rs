//! Messages: framing, OPEN, UPDATE, KEEPALIVE, NOTIFICATION, ROUTE-REFRESH.
//!
//! Decoding borrows; an UPDATE is validated in one pass that ends in one of RFC 7606's outcomes:
//! attribute discard and treat-as-withdraw are counted in [`UpdateFindings`], session reset is an
//! `Err` with the NOTIFICATION to send.

mod attribute;
mod build;
mod capability;
mod decode;
mod family;
mod flowspec;
mod nlri;
mod notification;
mod refresh;
mod rewrite;

use bytes::Bytes;

use crate::cursor::len16;

pub use attribute::{AsPath, Attribute, AttributesView};
pub use build::{Encoding, UpdateBuilder};
pub use capability::{AddPath, Capabilities, GracefulRestart, OpenMessage};
pub use decode::{Decoded, Finding, Scratch, UpdateContext, UpdateError, UpdateFindings, decode};
pub use family::{Family, NoFamily};
pub use nlri::{Nlri, Section, describe, encode, encoded_len, parse_prefix};
pub use notification::{Notification, NotificationName};
pub use refresh::{RefreshKind, read_route_refresh, route_refresh};
pub use rewrite::{Edit, Set, put_attribute, rewrite};

/// The longest message (RFC 4271 §4.1).
pub const MAX_MESSAGE: usize = 4096;
/// The longest message between those that agreed on it (RFC 8654).
pub const MAX_EXTENDED_MESSAGE: usize = 65535;
/// Marker, length and type.
pub const HEADER: usize = 19;

/// The five message types.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// 1.
    Open = 1,
    /// 2.
    Update = 2,
    /// 3.
    Notification = 3,
    /// 4.
    Keepalive = 4,
    /// 5 (RFC 2918).
    RouteRefresh = 5,
}

/// Look for one whole message at the start of `octets`: its kind and its length, header
/// included; `None` while octets are missing. `longest` is [`MAX_MESSAGE`] or
/// [`MAX_EXTENDED_MESSAGE`]; an OPEN and a KEEPALIVE are never longer than the first.
///
/// # Errors
/// The NOTIFICATION of RFC 4271 §6.1.
pub fn frame(octets: &[u8], longest: usize) -> Result<Option<(MessageKind, usize)>, Notification> {
    let Some(header) = octets.get(..HEADER) else {
        return Ok(None);
    };
    if header[..16] != [0xFF; 16] {
        return Err(Notification::new(1, 1));
    }
    let bad_length = || Notification::with_data(1, 2, &header[16..18]);
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    if !(HEADER..=longest).contains(&length) {
        return Err(bad_length());
    }
    let (kind, good) = match header[18] {
        1 => (MessageKind::Open, (29..=MAX_MESSAGE).contains(&length)),
        2 => (MessageKind::Update, length >= 23),
        3 => (MessageKind::Notification, length >= 21),
        4 => (MessageKind::Keepalive, length == HEADER),
        // Longer ones carry what was not negotiated (RFC 5291), or are RFC 7313 §5's business.
        5 => (MessageKind::RouteRefresh, length >= 23),
        _ => return Err(Notification::with_data(1, 3, &header[18..19])),
    };
    if !good {
        return Err(bad_length());
    }
    Ok((octets.len() >= length).then_some((kind, length)))
}

/// Put a header before `body`, which must fit.
pub(crate) fn message(kind: MessageKind, body: &[u8]) -> Bytes {
    debug_assert!(
        body.len() <= MAX_EXTENDED_MESSAGE - HEADER,
        "a message of {} octets",
        body.len()
    );
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend([0xFF; 16]);
    out.extend(len16(HEADER + body.len()).to_be_bytes());
    out.push(kind as u8);
    out.extend_from_slice(body);
    Bytes::from(out)
}

/// A KEEPALIVE.
#[must_use]
pub fn keepalive() -> Bytes {
    message(MessageKind::Keepalive, &[])
}

/// An End-of-RIB for `family`: an `MP_UNREACH` without routes, or for IPv4 unicast an empty UPDATE
/// (RFC 4724 §2).
#[must_use]
pub fn end_of_rib(family: Family) -> Bytes {
    if family == Family::IPV4 {
        return message(MessageKind::Update, &[0; 4]);
    }
    let [a, b] = family.afi.to_be_bytes();
    message(
        MessageKind::Update,
        &[0, 0, 0, 6, 0x80, 15, 3, a, b, family.safi],
    )
}
