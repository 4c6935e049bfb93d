//! The story of one request, for the access log.

use std::{io::Write as _, net::SocketAddr};

use base::{QualifiedService, SiteName, WallTime};

use crate::headers::TraceId;

/// Whose fault a failed request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client sent nonsense, too much, or went away.
    Client,
    /// No endpoint answered, or one answered badly.
    Upstream,
    /// Ours: configuration, limits, bugs.
    Us,
}

impl Fault {
    const fn word(self) -> &'static str {
        match self {
            Fault::Client => "client",
            Fault::Upstream => "upstream",
            Fault::Us => "us",
        }
    }
}

/// One line of the access log. Borrowed: it is written out where the request ends.
#[derive(Clone, Debug)]
pub struct AccessRecord<'a> {
    /// When the request head was complete.
    pub time: WallTime,
    /// W3C trace id.
    pub trace: TraceId,
    /// The tenant's name; empty if no host was found.
    pub tenant: &'a str,
    /// The load balancer, `namespace/name`.
    pub lb: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The application address.
    pub service: Option<&'a QualifiedService>,
    /// The last endpoint tried, and its site.
    pub endpoint: Option<(SocketAddr, &'a SiteName)>,
    /// The client.
    pub peer: SocketAddr,
    /// The method.
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The host as asked for.
    pub host: &'a str,
    /// `http/1.1` or `h2`.
    pub protocol: &'a str,
    /// What the client got; 0 if it got nothing.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the complete request head to the last byte, in microseconds.
    pub duration_us: u64,
    /// Endpoints tried.
    pub tries: u8,
    /// A stable word for what went wrong, and whose fault it was.
    pub error: Option<(&'a str, Fault)>,
    /// The rule of a policy that decided last, `namespace/policy/rule`.
    pub policy: Option<&'a str>,
    /// What a rule of a shadow policy would have decided: its name, a space, and its action.
    pub shadow: Option<&'a str>,
}

impl AccessRecord<'_> {
    /// Append it as one line of JSON. A field is always there, with an empty text where nothing is
    /// known, but for `error`, `fault`, `policy` and `shadow`. By hand, since a line is written for every request.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"time\":\"");
        out.extend_from_slice(&self.time.rfc3339());
        out.extend_from_slice(b"\",\"trace\":\"");
        out.extend_from_slice(&self.trace.digits());
        out.push(b'"');
        text(out, "tenant", self.tenant);
        text(out, "lb", self.lb);
        text(out, "route", self.route);
        name(out, "service");
        if let Some(service) = self.service {
            let names = [&service.service, &service.namespace, &service.tenant];
            dotted(out, &names.map(|name| name.as_str()));
        }
        out.push(b'"');
        name(out, "endpoint");
        if let Some((address, _)) = self.endpoint {
            socket(out, address);
        }
        out.push(b'"');
        name(out, "site");
        if let Some((_, site)) = self.endpoint {
            dotted(out, &[site.site.as_str(), site.tenant.as_str()]);
        }
        out.push(b'"');
        name(out, "peer");
        socket(out, self.peer);
        out.push(b'"');
        text(out, "method", self.method);
        text(out, "path", self.path);
        text(out, "host", self.host);
        text(out, "protocol", self.protocol);
        number(out, "status", u64::from(self.status));
        number(out, "bytes_in", self.bytes_in);
        number(out, "bytes_out", self.bytes_out);
        number(out, "duration_us", self.duration_us);
        number(out, "tries", u64::from(self.tries));
        if let Some((error, fault)) = self.error {
            text(out, "error", error);
            text(out, "fault", fault.word());
        }
        for (field, value) in [("policy", self.policy), ("shadow", self.shadow)] {
            if let Some(value) = value {
                text(out, field, value);
            }
        }
        out.extend_from_slice(b"}\n");
    }
}

/// The beginning of a field whose value is a text.
fn name(out: &mut Vec<u8>, name: &str) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
}

fn text(out: &mut Vec<u8>, field: &str, value: &str) {
    name(out, field);
    let mut rest = value.as_bytes();
    // RFC 8259 §7; DEL too, which terminals act on.
    let odd = |octet: &u8| *octet < b' ' || matches!(octet, b'"' | b'\\' | 0x7F);
    while let Some(at) = rest.iter().position(odd) {
        let (before, from) = rest.split_at(at);
        out.extend_from_slice(before);
        // Into memory: it cannot fail.
        let _ = write!(out, "\\u{:04x}", from[0]);
        rest = &from[1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Names have only letters, digits and `-`.
fn dotted(out: &mut Vec<u8>, names: &[&str]) {
    for (at, name) in names.iter().enumerate() {
        if at > 0 {
            out.push(b'.');
        }
        out.extend_from_slice(name.as_bytes());
    }
}

fn socket(out: &mut Vec<u8>, address: SocketAddr) {
    match address {
        SocketAddr::V4(v4) => {
            for (at, octet) in v4.ip().octets().into_iter().enumerate() {
                if at > 0 {
                    out.push(b'.');
                }
                out.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(v4.port()).as_bytes());
        }
        SocketAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_line_of_json() {
        let service = "cart.shop.acme".parse().expect("a service");
        let site = "aws.acme".parse().expect("a site");
        let bare = AccessRecord {
            time: WallTime::from_unix_millis(1_767_225_599_999),
            trace: TraceId::default(),
            tenant: "",
            lb: "",
            route: "",
            service: None,
            endpoint: None,
            peer: "[2001:db8::1]:65535".parse().expect("an address"),
            method: "GET",
            path: "/\"\\\u{1}\u{7f}ä",
            host: "a",
            protocol: "h2",
            status: 200,
            bytes_in: 0,
            bytes_out: u64::MAX,
            duration_us: 12,
            tries: 1,
            error: None,
            policy: None,
            shadow: None,
        };
        let full = AccessRecord {
            service: Some(&service),
            endpoint: Some(("10.0.200.7:80".parse().expect("an address"), &site)),
            peer: "127.0.0.1:1".parse().expect("an address"),
            error: Some(("refused", Fault::Upstream)),
            policy: Some("shop/edge/office"),
            shadow: Some("shop/next/all deny"),
            ..bare.clone()
        };
        let read = |record: &AccessRecord<'_>| -> serde_json::Value {
            let mut line = Vec::new();
            record.write(&mut line);
            assert_eq!(line.pop(), Some(b'\n'));
            serde_json::from_slice(&line).expect("JSON")
        };
        let value = read(&bare);
        assert_eq!(value["time"], "2025-12-31T23:59:59.999Z");
        assert_eq!(value["trace"], "0".repeat(32));
        assert_eq!(value["path"], "/\"\\\u{1}\u{7f}ä");
        assert_eq!(value["peer"], "[2001:db8::1]:65535");
        assert_eq!(value["bytes_out"], u64::MAX);
        assert_eq!(
            (&value["service"], &value["site"]),
            (&"".into(), &"".into())
        );
        assert!(value.get("error").is_none());
        assert!(value.get("policy").is_none() && value.get("shadow").is_none());
        let value = read(&full);
        assert_eq!(value["service"], "cart.shop.acme");
        assert_eq!(value["endpoint"], "10.0.200.7:80");
        assert_eq!(value["site"], "aws.acme");
        assert_eq!(value["peer"], "127.0.0.1:1");
        assert_eq!(
            (&value["error"], &value["fault"]),
            (&"refused".into(), &"upstream".into())
        );
        assert_eq!(
            (&value["policy"], &value["shadow"]),
            (&"shop/edge/office".into(), &"shop/next/all deny".into())
        );
    }
}
