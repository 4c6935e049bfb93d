//! ROUTE-REFRESH (RFC 2918, RFC 7313).

use bytes::Bytes;

use super::{Family, MessageKind, message};

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RefreshKind {
    /// Send everything again.
    Request = 0,
    /// What was asked for begins.
    Begin = 1,
    /// It is complete.
    End = 2,
}

/// A ROUTE-REFRESH for `family`.
#[must_use]
pub fn route_refresh(family: Family, kind: RefreshKind) -> Bytes {
    let [a, b] = family.afi.to_be_bytes();
    message(MessageKind::RouteRefresh, &[a, b, kind as u8, family.safi])
}

/// Read the body of one; `None` if it has another length, or a number that means nothing.
#[must_use]
pub fn read_route_refresh(body: &[u8]) -> Option<(Family, RefreshKind)> {
    let &[a, b, kind, safi] = body else {
        return None;
    };
    let kind = match kind {
        0 => RefreshKind::Request,
        1 => RefreshKind::Begin,
        2 => RefreshKind::End,
        _ => return None,
    };
    Some((Family::new(u16::from_be_bytes([a, b]), safi), kind))
}
