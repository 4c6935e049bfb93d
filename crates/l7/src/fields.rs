//! The header fields of a message, as flat octets in the order in which they came.

use std::{borrow::Borrow, fmt};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::headers::INTERNAL_PREFIX;

/// Fields that somebody here looks for, so that their absence is one bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(
    missing_docs,
    reason = "RFC 7838, 9110, 9112 and 9113, W3C Trace Context and custom name them"
)]
pub enum Known {
    Host,
    Connection,
    KeepAlive,
    ProxyConnection,
    ProxyAuthorization,
    Te,
    TransferEncoding,
    Upgrade,
    Http2Settings,
    AltSvc,
    ContentLength,
    Expect,
    Cookie,
    Origin,
    Traceparent,
    Tracestate,
    XForwardedFor,
    XForwardedProto,
    XForwardedClientCert,
    /// One of ours, `sealane-…`.
    Internal,
    /// Any other.
    Other,
}

impl Known {
    /// By its name in lower case.
    pub(crate) fn of(name: &[u8]) -> Self {
        match name {
            b"host" => Known::Host,
            b"connection" => Known::Connection,
            b"keep-alive" => Known::KeepAlive,
            b"proxy-connection" => Known::ProxyConnection,
            b"proxy-authorization" => Known::ProxyAuthorization,
            b"te" => Known::Te,
            b"transfer-encoding" => Known::TransferEncoding,
            b"upgrade" => Known::Upgrade,
            b"http2-settings" => Known::Http2Settings,
            b"alt-svc" => Known::AltSvc,
            b"content-length" => Known::ContentLength,
            b"expect" => Known::Expect,
            b"cookie" => Known::Cookie,
            b"origin" => Known::Origin,
            b"traceparent" => Known::Traceparent,
            b"tracestate" => Known::Tracestate,
            b"x-forwarded-for" => Known::XForwardedFor,
            b"x-forwarded-proto" => Known::XForwardedProto,
            b"x-forwarded-client-cert" => Known::XForwardedClientCert,
            name if name.starts_with(INTERNAL_PREFIX.as_bytes()) => Known::Internal,
            _ => Known::Other,
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Several [`Known`] fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(u32);

impl Kinds {
    pub(crate) const fn of(kinds: &[Known]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < kinds.len() {
            bits |= kinds[at].bit();
            at += 1;
        }
        Kinds(bits)
    }

    const fn contains(self, known: Known) -> bool {
        self.0 & known.bit() != 0
    }
}

/// Where a field stands in the octets.
#[derive(Clone, Copy, Debug)]
struct Field {
    name: u32,
    value: u32,
    value_length: u32,
    name_length: u16,
    known: Known,
}

/// Header fields: names in lower case, values as they came. Two allocations, whatever their
/// number. Every name is a token and no value has a CR, an LF or a NUL: they come from parsers
/// that look, or from [`HeaderName`] and [`HeaderValue`].
#[derive(Clone, Default)]
pub struct Fields {
    octets: Vec<u8>,
    list: Vec<Field>,
    /// Which are there; a bit may be set in vain, never clear in vain.
    kinds: Kinds,
}

/// Octets that are added to a head on its way.
const ROOM: usize = 256;
const FIELDS: usize = 24;

impl Fields {
    /// Room for a head of `octets` octets and some more.
    #[must_use]
    pub fn with_head(head: &[u8]) -> Self {
        let mut octets = Vec::with_capacity(head.len() + ROOM);
        octets.extend_from_slice(head);
        Fields {
            octets,
            list: Vec::with_capacity(FIELDS),
            kinds: Kinds::default(),
        }
    }

    /// One field of the head that [`Fields::with_head`] was given: offsets of its name, which is
    /// a token, and of its value. False, and nothing done, if they are not in it.
    pub fn found(&mut self, name: std::ops::Range<usize>, value: std::ops::Range<usize>) -> bool {
        let Some(text) = self.octets.get_mut(name.clone()) else {
            return false;
        };
        text.make_ascii_lowercase();
        let known = Known::of(text);
        let offset = |at: usize| u32::try_from(at).ok();
        let (Some(start), Some(value_start), Some(value_length), Ok(name_length)) = (
            offset(name.start),
            offset(value.start),
            offset(value.len()),
            u16::try_from(name.len()),
        ) else {
            return false;
        };
        if value.end > self.octets.len() {
            return false;
        }
        self.kinds.0 |= known.bit();
        self.list.push(Field {
            name: start,
            value: value_start,
            value_length,
            name_length,
            known,
        });
        true
    }

    /// How many fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list
            .iter()
            .map(|field| (self.name(field), self.value(field)))
    }

    /// All fields but those of these kinds.
    pub fn iter_but(&self, kinds: &'static [Known]) -> impl Iterator<Item = (&[u8], &[u8])> {
        let kinds = Kinds::of(kinds);
        let list = self
            .list
            .iter()
            .filter(move |field| !kinds.contains(field.known));
        list.map(|field| (self.name(field), self.value(field)))
    }

    /// The first of this name.
    #[must_use]
    pub fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// All of this name.
    pub fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        let known = Known::of(name.as_str().as_bytes());
        let list: &[Field] = if self.kinds.contains(known) {
            &self.list
        } else {
            &[]
        };
        let same = move |field: &&Field| {
            field.known == known && self.name(field) == name.as_str().as_bytes()
        };
        list.iter().filter(same).map(|field| self.value(field))
    }

    /// All of one of the known names ([`Known::Other`]: of none).
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let list: &[Field] = if self.has(known) { &self.list } else { &[] };
        let same = move |field: &&Field| field.known == known;
        list.iter().filter(same).map(|field| self.value(field))
    }

    /// The first of one of the known names.
    #[must_use]
    pub fn first(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// May there be one?
    #[must_use]
    pub fn has(&self, known: Known) -> bool {
        known != Known::Other && self.kinds.contains(known)
    }

    /// Is there one of this name?
    #[must_use]
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// One more at the end.
    pub fn append(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.append_with(name, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// One more at the end: a name that is a token, and a value without CR, LF and NUL.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let start = self.octets.len();
        self.octets.extend_from_slice(name);
        let middle = self.octets.len();
        self.octets.extend_from_slice(value);
        let end = self.octets.len();
        self.found(start..middle, middle..end);
    }

    /// One more at the end, whose value `write` appends to the octets: visible ASCII and spaces.
    pub fn append_with(&mut self, name: &HeaderName, write: impl FnOnce(&mut Vec<u8>)) {
        let name = name.as_str().as_bytes();
        let start = self.octets.len();
        self.octets.extend_from_slice(name);
        let value = self.octets.len();
        write(&mut self.octets);
        debug_assert!(
            !self.octets[value..]
                .iter()
                .any(|b| matches!(b, b'\r' | b'\n' | 0)),
            "a value of ours has no end of line"
        );
        let end = self.octets.len();
        self.found(start..value, value..end);
    }

    /// Instead of all of this name, at the end.
    pub fn insert(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.remove(name);
        self.append(name, value);
    }

    /// All of this name.
    pub fn remove(&mut self, name: &HeaderName) {
        let name = name.as_str().as_bytes();
        let known = Known::of(name);
        if self.kinds.contains(known) {
            let octets = &self.octets;
            let same = |field: &Field| field.known == known && text(octets, field) == name;
            self.list.retain(|field| !same(field));
        }
    }

    /// All of these kinds.
    pub(crate) fn strip(&mut self, kinds: Kinds) {
        if self.kinds.0 & kinds.0 != 0 {
            self.list.retain(|field| !kinds.contains(field.known));
            self.kinds.0 &= !kinds.0;
        }
    }

    fn name(&self, field: &Field) -> &[u8] {
        text(&self.octets, field)
    }

    fn value(&self, field: &Field) -> &[u8] {
        let start = field.value as usize;
        self.octets
            .get(start..start + field.value_length as usize)
            .unwrap_or_default()
    }

    /// As a map; fields that are none, which cannot be, are left out.
    #[must_use]
    pub fn to_map(&self) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.list.len());
        let shared = bytes::Bytes::copy_from_slice(&self.octets);
        for field in &self.list {
            let start = field.value as usize;
            let value = shared.slice(start..start + field.value_length as usize);
            let value = HeaderValue::from_maybe_shared(value);
            let name = HeaderName::from_lowercase(self.name(field));
            if let (Ok(name), Ok(value)) = (name, value) {
                map.append(name, value);
            }
        }
        map
    }
}

fn text<'o>(octets: &'o [u8], field: &Field) -> &'o [u8] {
    let start = field.name as usize;
    octets
        .get(start..start + usize::from(field.name_length))
        .unwrap_or_default()
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        map.iter().collect()
    }
}

impl<N: Borrow<HeaderName>, V: Borrow<HeaderValue>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(iter: I) -> Self {
        let mut fields = Fields::with_head(&[]);
        for (name, value) in iter {
            fields.append(name.borrow(), value.borrow());
        }
        fields
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |octets| String::from_utf8_lossy(octets).into_owned();
        let list = self.iter().map(|(name, value)| (text(name), text(value)));
        f.debug_map().entries(list).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn lines(fields: &Fields) -> String {
        let text = |octets| String::from_utf8_lossy(octets).into_owned();
        let lines = fields
            .iter()
            .map(|(name, value)| format!("{}={};", text(name), text(value)));
        lines.collect()
    }

    #[test]
    fn fields_keep_their_order() {
        let mut fields = Fields::with_head(b"Host: a\r\nX-B: 1\r\nCookie: c\r\n");
        assert!(fields.found(0..4, 6..7));
        assert!(fields.found(9..12, 14..15));
        assert!(fields.found(17..23, 25..26));
        assert!(!fields.found(17..23, 25..126));
        assert!(!fields.found(100..101, 0..1));
        assert_eq!(lines(&fields), "host=a;x-b=1;cookie=c;");
        let b = HeaderName::from_static("x-b");
        fields.append(&b, &HeaderValue::from_static("2"));
        assert_eq!(fields.get(&b), Some(&b"1"[..]));
        assert_eq!(fields.get_all(&b).count(), 2);
        assert_eq!(fields.first(Known::Host), Some(&b"a"[..]));
        fields.insert(&b, &HeaderValue::from_static("3"));
        fields.remove(&header::COOKIE);
        fields.remove(&header::EXPECT);
        assert_eq!(lines(&fields), "host=a;x-b=3;");
        assert!(!fields.contains(&header::COOKIE));
        assert_eq!(fields.all(Known::Other).count(), 0);
        let map = fields.to_map();
        assert_eq!((map.len(), map["host"].as_bytes()), (2, &b"a"[..]));
        assert_eq!(lines(&Fields::from(&map)), lines(&fields));
    }
}
