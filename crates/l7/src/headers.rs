//! Hygiene of headers: what a proxy removes, adds and passes on.

use std::{fmt::Write as _, io::Write as _, net::IpAddr};

use base::Rng;
use http::{HeaderName, HeaderValue, header};

use crate::fields::{Fields, Kinds, Known};

/// Our own headers between ingress and egress begin with this and never come from or reach a
/// client or an endpoint.
pub const INTERNAL_PREFIX: &str = "sealane-";

/// From ingress to egress: the address of the client.
pub const CLIENT: HeaderName = HeaderName::from_static("sealane-client");
/// From ingress to egress: a name of the client, by the certificate that it has shown; may come
/// more than once.
pub const IDENTITY: HeaderName = HeaderName::from_static("sealane-identity");
/// From egress to ingress: why the request was refused there, as a code and, if a rule decided,
/// a space and the rule.
pub const REFUSED: HeaderName = HeaderName::from_static("sealane-refused");

/// W3C Trace Context §3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// RFC 9110 §7.6.1, what older proxies understood, where else the sender is found (RFC 7838 §3:
/// behind us that says nothing to whoever is in front), and our own.
const STRIPPED: [Known; 10] = [
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::ProxyAuthorization,
    Known::Te,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::Http2Settings,
    Known::AltSvc,
    Known::Internal,
];

/// Does [`strip`] remove it?
pub(crate) fn is_stripped(name: &HeaderName) -> bool {
    STRIPPED.contains(&Known::of(name.as_str().as_bytes()))
}

/// Remove what concerns one connection only, whatever `Connection` names, and every `sealane-*`.
/// `Host` and the framing cannot be named away.
pub fn strip(fields: &mut Fields) {
    if fields.has(Known::Connection) {
        let named: Vec<HeaderName> = options(fields)
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
            .collect();
        for name in named {
            fields.remove(&name);
        }
    }
    fields.strip(const { Kinds::of(&STRIPPED) });
}

/// What goes on to the next hop: stripped, without an expectation that was met here, and with the
/// upgrade that is asked for, if any.
pub fn onward(fields: &mut Fields, upgrade: Option<&HeaderValue>) {
    strip(fields);
    fields.remove(&header::EXPECT);
    if let Some(token) = upgrade {
        self::upgrade(fields, token);
    }
}

/// Does a field belong to a connection of HTTP/1.1, so that a message of HTTP/2 or HTTP/3 that has
/// it is malformed (RFC 9113 §8.2.2, RFC 9114 §4.2)?
#[must_use]
pub fn is_of_connection(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"connection" | b"keep-alive" | b"proxy-connection" | b"transfer-encoding" | b"upgrade" => {
            true
        }
        b"te" => !value.eq_ignore_ascii_case(b"trailers"),
        _ => false,
    }
}

/// Is there space before or behind a value, which HTTP/1.1 would lose and HTTP/2 does not have
/// (RFC 9113 §8.2.1)?
#[must_use]
pub fn is_padded(value: &[u8]) -> bool {
    let space = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    space(value.first()) || space(value.last())
}

/// Crumbs of cookies, as HTTP/2 and HTTP/3 may send them, as one line (RFC 9113 §8.2.3).
pub fn join_cookies(fields: &mut Fields) {
    if fields.all(Known::Cookie).nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = fields.all(Known::Cookie).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(&header::COOKIE, &joined);
    }
}

/// The options that `Connection` names (RFC 9110 §7.6.1).
pub fn options(fields: &Fields) -> impl Iterator<Item = &[u8]> {
    let lines = fields.all(Known::Connection);
    let options = lines.flat_map(|line| line.split(|octet| *octet == b','));
    options.map(<[u8]>::trim_ascii)
}

/// Say again, on the next connection, that this one is to speak something else.
pub fn upgrade(fields: &mut Fields, token: &HeaderValue) {
    let upgrade = HeaderValue::from_static("upgrade");
    fields.insert(&header::CONNECTION, &upgrade);
    fields.insert(&header::UPGRADE, token);
}

/// Append the client to `x-forwarded-for` and say in `x-forwarded-proto` how it came. What it says
/// of its certificate in `x-forwarded-client-cert` is gone: that is not its to say. `Via` is not
/// added: it would tell the endpoint nothing it may use.
pub fn forwarded(fields: &mut Fields, client: IpAddr, tls: bool) {
    let client = client.to_canonical();
    let mut list = Vec::new();
    for value in fields.all(Known::XForwardedFor) {
        if value.is_ascii() {
            list.extend_from_slice(value);
            list.extend_from_slice(b", ");
        }
    }
    fields.strip(
        const {
            Kinds::of(&[
                Known::XForwardedFor,
                Known::XForwardedProto,
                Known::XForwardedClientCert,
            ])
        },
    );
    fields.append_with(&X_FORWARDED_FOR, |out| {
        out.extend_from_slice(&list);
        address(out, client);
    });
    let proto = if tls { "https" } else { "http" };
    fields.append(&X_FORWARDED_PROTO, &HeaderValue::from_static(proto));
}

/// Tell the egress who the client is.
pub fn tell_client(fields: &mut Fields, client: IpAddr) {
    fields.append_with(&CLIENT, |out| address(out, client.to_canonical()));
}

/// Who the client is, as the ingress says; if it does not, whom it appended to
/// `x-forwarded-for`. For requests out of a tunnel only: anybody may write these.
#[must_use]
pub fn told_client(fields: &Fields) -> Option<IpAddr> {
    let name = CLIENT;
    let mut told = fields.get_all(&name);
    let value = match (told.next(), told.next()) {
        (Some(one), None) => one,
        (Some(_), Some(_)) => return None,
        (None, _) => {
            let line = fields.all(Known::XForwardedFor).last()?;
            line.rsplit(|octet| *octet == b',').next()?.trim_ascii()
        }
    };
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The trace id of a request: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceId([u8; 16]);

impl TraceId {
    fn drawn(rng: &mut Rng) -> Self {
        let trace = u128::from(rng.next_u64()) << 64 | u128::from(rng.next_u64() | 1);
        TraceId(trace.to_be_bytes())
    }

    /// Its digits.
    #[must_use]
    pub fn digits(self) -> [u8; 32] {
        hex(u128::from_be_bytes(self.0))
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.digits()
            .iter()
            .try_for_each(|d| f.write_char(char::from(*d)))
    }
}

/// The id of a span: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(u64);

impl SpanId {
    /// Any.
    pub fn drawn(rng: &mut Rng) -> Self {
        SpanId(rng.next_u64() | 1)
    }

    /// Its digits.
    #[must_use]
    pub fn digits(self) -> [u8; 16] {
        let mut digits = [0; 16];
        digits.copy_from_slice(&hex(u128::from(self.0))[16..]);
        digits
    }
}

/// Where a request stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// What happens here.
    pub span: SpanId,
    /// Whoever asked, if it said so.
    pub parent: Option<SpanId>,
    /// Is it to be told to a collector?
    pub sampled: bool,
}

/// Where the request stands. One with a valid `traceparent` is told if that says so, and whoever
/// is asked next has us for its parent then; of others as many as `ratio` of 2^32 are told, and
/// their trace begins here, without `tracestate`.
pub fn span(fields: &mut Fields, rng: &mut Rng, ratio: u64) -> SpanContext {
    let mut lines = fields.all(Known::Traceparent);
    let given = match (lines.next(), lines.next()) {
        (Some(value), None) => parent(value),
        _ => None,
    };
    drop(lines);
    let own = SpanId::drawn(rng);
    let (context, flags) = match given {
        Some((trace, parent, flags)) => {
            let context = SpanContext {
                trace,
                span: own,
                parent: Some(parent),
                sampled: flags & 1 != 0,
            };
            if !context.sampled {
                return context;
            }
            fields.strip(Kinds::of(&[Known::Traceparent]));
            (context, flags)
        }
        None => {
            fields.strip(Kinds::of(&[Known::Traceparent, Known::Tracestate]));
            let trace = TraceId::drawn(rng);
            let sampled = rng.below(1 << 32) < ratio;
            let context = SpanContext {
                trace,
                span: own,
                parent: None,
                sampled,
            };
            (context, u8::from(sampled))
        }
    };
    say(fields, context.trace, context.span, flags);
    context
}

/// Whoever is asked has `span` for its parent, in the trace that the fields name.
pub fn below(fields: &mut Fields, span: SpanId) {
    if let Some((trace, _, flags)) = fields.first(Known::Traceparent).and_then(parent) {
        fields.strip(Kinds::of(&[Known::Traceparent]));
        say(fields, trace, span, flags);
    }
}

fn say(fields: &mut Fields, trace: TraceId, span: SpanId, flags: u8) {
    fields.append_with(&TRACEPARENT, |out| {
        out.extend_from_slice(b"00-");
        out.extend_from_slice(&trace.digits());
        out.push(b'-');
        out.extend_from_slice(&span.digits());
        let [high, low] = pair(flags);
        out.extend_from_slice(&[b'-', high, low]);
    });
}

/// The trace, the parent and the flags of a valid `traceparent`.
fn parent(value: &[u8]) -> Option<(TraceId, SpanId, u8)> {
    let trace = trace_id(value)?;
    let value = std::str::from_utf8(value).ok()?;
    let mut parts = value.split('-').skip(2);
    let parent = u64::from_str_radix(parts.next()?, 16).ok()?;
    let flags = u8::from_str_radix(parts.next()?, 16).ok()?;
    Some((trace, SpanId(parent), flags))
}

/// The first 32 digits of a number.
fn hex(number: u128) -> [u8; 32] {
    let mut digits = [0; 32];
    let octets = number.to_be_bytes();
    for (place, octet) in digits.as_chunks_mut().0.iter_mut().zip(octets) {
        *place = pair(octet);
    }
    digits
}

/// The two digits of an octet.
const fn pair(octet: u8) -> [u8; 2] {
    PAIRS[octet as usize]
}

const PAIRS: [[u8; 2]; 256] = {
    let digits = *b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut octet = 0;
    while octet < 256 {
        pairs[octet] = [digits[octet >> 4], digits[octet & 15]];
        octet += 1;
    }
    pairs
};

/// An address in figures, by hand for IPv4: each request has some of them.
pub(crate) fn address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(v4) => {
            for (at, octet) in v4.octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(v6) => {
            // Into memory: it cannot fail.
            let _ = write!(out, "{v6}");
        }
    }
}

/// The trace id of the request: its valid `traceparent` is passed on as it is; a missing or
/// invalid one is replaced by a new, and then `tracestate` is dropped.
pub fn trace(fields: &mut Fields, rng: &mut Rng) -> TraceId {
    let mut lines = fields.all(Known::Traceparent);
    if let (Some(value), None) = (lines.next(), lines.next())
        && let Some(id) = trace_id(value)
    {
        return id;
    }
    drop(lines);
    fields.strip(Kinds::of(&[Known::Traceparent, Known::Tracestate]));
    let trace = TraceId::drawn(rng);
    say(fields, trace, SpanId::drawn(rng), 1);
    trace
}

/// `VERSION-TRACE-PARENT-FLAGS`; version 00 has nothing after the flags, `ff` is invalid, ids of
/// zeros are invalid.
fn trace_id(value: &[u8]) -> Option<TraceId> {
    let value = std::str::from_utf8(value).ok()?;
    let mut parts = value.split('-');
    let (version, trace, parent, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let hex = |s: &str, n: usize| {
        s.len() == n
            && s.bytes()
                .all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
    };
    let set = |s: &str| s.bytes().any(|b| b != b'0');
    let ok = hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && hex(trace, 32)
        && set(trace)
        && hex(parent, 16)
        && set(parent)
        && hex(flags, 2);
    let id = u128::from_str_radix(trace, 16).ok();
    id.filter(|_| ok).map(|id| TraceId(id.to_be_bytes()))
}

#[cfg(test)]
mod tests;
