//! Hygiene of headers: what a proxy removes, adds and passes on.

use std::{fmt::Write as _, net::IpAddr};

use base::Rng;
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// Our own headers between ingress and egress begin with this and never come from or reach a
/// client or an endpoint.
pub const INTERNAL_PREFIX: &str = "sealane-";

/// W3C Trace Context §3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// RFC 9110 §7.6.1, and what older proxies understood.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Does it concern one connection only?
pub(crate) fn is_hop_by_hop(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name)
}

/// Remove what concerns one connection only, and whatever `Connection` names. `Host` and the
/// framing cannot be named away.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Say again, on the next connection, that this one is to speak something else.
pub fn upgrade(headers: &mut HeaderMap, token: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, token.clone());
}

/// Remove every `sealane-*` header.
pub fn strip_internal(headers: &mut HeaderMap) {
    let internal: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(INTERNAL_PREFIX))
        .cloned()
        .collect();
    for name in internal {
        headers.remove(name);
    }
}

/// Append the client to `x-forwarded-for` and say in `x-forwarded-proto` how it came. `Via` is not
/// added: it would tell the endpoint nothing it may use.
pub fn forwarded(headers: &mut HeaderMap, client: IpAddr, tls: bool) {
    let client = client.to_canonical();
    let mut list = String::new();
    for value in headers.get_all(X_FORWARDED_FOR) {
        if let Ok(value) = value.to_str() {
            let _ = write!(list, "{value}, ");
        }
    }
    let _ = write!(list, "{client}");
    if let Ok(value) = HeaderValue::try_from(list) {
        headers.insert(X_FORWARDED_FOR, value);
    }
    let proto = if tls { "https" } else { "http" };
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
}

/// The trace id (32 hexadecimal digits) of the request: its valid `traceparent` is passed on as it
/// is; a missing or invalid one is replaced by a new, and then `tracestate` is dropped.
pub fn trace(headers: &mut HeaderMap, rng: &mut Rng) -> String {
    let mut lines = headers.get_all(TRACEPARENT).iter();
    if let (Some(value), None) = (lines.next(), lines.next())
        && let Some(id) = value.to_str().ok().and_then(trace_id)
    {
        return id.to_owned();
    }
    headers.remove(TRACESTATE);
    let id = format!("{:016x}{:016x}", rng.next_u64(), rng.next_u64() | 1);
    let parent = format!("00-{id}-{:016x}-01", rng.next_u64() | 1);
    if let Ok(value) = HeaderValue::try_from(parent) {
        headers.insert(TRACEPARENT, value);
    }
    id
}

/// `VERSION-TRACE-PARENT-FLAGS`; version 00 has nothing after the flags, `ff` is invalid, ids of
/// zeros are invalid.
fn trace_id(value: &str) -> Option<&str> {
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
    ok.then_some(trace)
}

#[cfg(test)]
mod tests;
