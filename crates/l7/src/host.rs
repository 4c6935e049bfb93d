//! The host of a request, made comparable.

use std::borrow::Cow;

/// The host of an authority (`Host` header, `:authority`, SNI): without port and final dot, in
/// lower case. `None`: empty, over 255 octets, or with an octet that no host name, IPv4 or
/// bracketed IPv6 address has (RFC 3986 §3.2.2), or with a user part.
#[must_use]
pub fn host_of(authority: &str) -> Option<Cow<'_, str>> {
    let (host, port) = split_port(authority)?;
    if !port.bytes().all(|b| b.is_ascii_digit()) || port.len() > 5 {
        return None;
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let ok = match inner {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => (1..=255).contains(&host.len()) && host.bytes().all(plain),
    };
    if !ok {
        return None;
    }
    if host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Some(Cow::Owned(host.to_ascii_lowercase()));
    }
    Some(Cow::Borrowed(host))
}

fn split_port(authority: &str) -> Option<(&str, &str)> {
    if authority.starts_with('[') {
        let end = authority.find(']')? + 1;
        let (host, rest) = authority.split_at_checked(end)?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, port)),
            None if rest.is_empty() => Some((host, "")),
            None => None,
        };
    }
    Some(authority.split_once(':').unwrap_or((authority, "")))
}

#[cfg(test)]
mod tests {
    use super::host_of;

    #[test]
    fn hosts() {
        for (authority, host) in [
            ("cart.example", Some("cart.example")),
            ("Cart.Example.:8080", Some("cart.example")),
            ("127.0.0.1:80", Some("127.0.0.1")),
            ("[::1]:80", Some("[::1]")),
            ("[::1]", Some("[::1]")),
            ("cart.example:", Some("cart.example")),
            ("", None),
            (":80", None),
            ("a b", None),
            ("user@host", None),
            ("host:80:80", None),
            ("host:8o", None),
            ("[::1", None),
            ("[::1]x", None),
            ("[zz]", None),
            ("host/path", None),
            ("a\u{e4}.example", None),
        ] {
            assert_eq!(host_of(authority).as_deref(), host, "{authority:?}");
        }
    }
}
