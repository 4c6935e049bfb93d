//! Routes as octets, for those who hold very many of them: what [`Key`] and [`Value`] say, read
//! in place, in constant time and without an allocation.
//!
//! A key is `[route type, RD (8), …]`, so that two keys are the same route if and only if these
//! octets are the same; a value is what came in the NLRI.
//!
//! [`Value`]: super::Value

use base::{SiteId, SlotId};

use super::{
    EndpointHealth, Host, HttpTarget, Key, LinkHealth, MAX_KEY, PathMatch, PathText,
    PolicyReference, RD_LEN, Rd, Seq, ServiceHealth, SiteHealth, State,
};
use crate::{RouteTarget, cursor::Cursor};

/// The longest value: its length is one octet.
const MAX_VALUE: usize = 255;

/// Would [`Key::decode`] take it? What it refuses is ignored and counted.
#[must_use]
pub fn is_well_formed(key: &[u8]) -> bool {
    let Some((kind, octets)) = key.split_first() else {
        return false;
    };
    if octets.len() > MAX_KEY || rd(key).is_none() {
        return false;
    }
    let body = &octets[RD_LEN..];
    match *kind {
        Key::SITE => body.len() == 4,
        Key::SERVICE | Key::LINK => body.len() == 12,
        Key::ENDPOINT => matches!((body.get(14), body.len()), (Some(4), 22) | (Some(16), 34)),
        Key::HTTP_ROUTE => http_route(body).is_some_and(|good| good),
        Key::POLICY => body.len() == 16,
        _ => true,
    }
}

/// `None` if it ends before its last field.
fn http_route(body: &[u8]) -> Option<bool> {
    let mut cursor = Cursor::new(body);
    let _lb = cursor.u64()?;
    let len = cursor.u8()?;
    let host = cursor.take(usize::from(len))?;
    let kind = cursor.u8()?;
    let len = cursor.u16()?;
    let path = cursor.take(usize::from(len))?;
    let good_path = match kind {
        PathMatch::EXACT | PathMatch::PREFIX | PathMatch::REGEX => PathText::is_good(path),
        PathMatch::DIGEST => path.len() == PathMatch::DIGEST_LEN,
        _ => false,
    };
    Some(cursor.is_empty() && good_path && Host::is_good(host))
}

/// Who speaks; `None` if it is too short for a route distinguisher or has one of another type
/// than 1.
#[must_use]
pub fn rd(key: &[u8]) -> Option<Rd> {
    let mut cursor = Cursor::new(key.get(1..)?);
    if cursor.u16()? != Rd::TYPE {
        return None;
    }
    Some(Rd {
        site: SiteId(cursor.u32()?),
        slot: SlotId(cursor.u16()?),
    })
}

/// The site a well-formed key is about, as [`Key::site`] says.
#[must_use]
pub fn site(key: &[u8]) -> Option<SiteId> {
    let (kind, octets) = key.split_first()?;
    let at = match *kind {
        Key::SITE | Key::LINK => RD_LEN,
        Key::SERVICE | Key::ENDPOINT => RD_LEN + 8,
        _ => return None,
    };
    let mut cursor = Cursor::new(octets.get(at..)?);
    cursor.u32().map(SiteId)
}

/// The other end of a Link route.
#[must_use]
pub fn far_end(key: &[u8]) -> Option<SiteId> {
    let (kind, octets) = key.split_first()?;
    let mut cursor = Cursor::new(octets.get(RD_LEN + 4..)?);
    (*kind == Key::LINK).then(|| cursor.u32().map(SiteId))?
}

/// Which node measures the link of a Link route.
#[must_use]
pub fn tunnel(key: &[u8]) -> Option<u32> {
    let (kind, octets) = key.split_first()?;
    let mut cursor = Cursor::new(octets.get(RD_LEN + 8..)?);
    (*kind == Key::LINK).then(|| cursor.u32())?
}

/// Would [`Value::decode`] take it beside a key of this type? What it refuses is treated as
/// withdrawn.
///
/// [`Value::decode`]: super::Value::decode
#[must_use]
pub fn value_fits(kind: u8, value: &[u8]) -> bool {
    match least(kind) {
        Some(_) => fields(kind, value).is_some(),
        None => value.len() <= MAX_VALUE,
    }
}

/// The state in the head of a value that fits; `None` for unknown types.
#[must_use]
pub fn state(kind: u8, value: &[u8]) -> Option<State> {
    fields(kind, value).and_then(|fields| State::in_head(*fields.first()?))
}

/// The seq of a value that fits; `None` for unknown types.
#[must_use]
pub fn seq(kind: u8, value: &[u8]) -> Option<Seq> {
    let last = *fields(kind, value)?.last_chunk::<4>()?;
    Some(Seq(u32::from_be_bytes(last)))
}

/// Does a route of this type travel under a route target with this selector? Types we cannot
/// read may use any but 0.
#[must_use]
pub const fn selector_fits(kind: u8, selector: u16) -> bool {
    match kind {
        Key::SITE | Key::LINK => selector == RouteTarget::SITE,
        Key::SERVICE | Key::ENDPOINT | Key::HTTP_ROUTE => selector == RouteTarget::SERVICE,
        Key::POLICY => selector == RouteTarget::POLICY,
        _ => selector != 0,
    }
}

/// The fields of a known type's value without what trails, if they are all there and the state
/// is defined. Seq is always the last of them.
fn fields(kind: u8, value: &[u8]) -> Option<&[u8]> {
    if value.len() > MAX_VALUE {
        return None;
    }
    let fields = value.get(..least(kind)?)?;
    State::in_head(*fields.first()?).map(|_| fields)
}

/// The octets that a value of this type has at least; `None` for unknown types.
const fn least(kind: u8) -> Option<usize> {
    match kind {
        Key::SITE => Some(SiteHealth::LEN),
        Key::SERVICE => Some(ServiceHealth::LEN),
        Key::ENDPOINT => Some(EndpointHealth::LEN),
        Key::HTTP_ROUTE => Some(HttpTarget::LEN),
        Key::POLICY => Some(PolicyReference::LEN),
        Key::LINK => Some(LinkHealth::LEN),
        _ => None,
    }
}
