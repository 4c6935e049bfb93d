//! The story of one request, for the access log.

use std::{io::Write as _, net::SocketAddr, str::FromStr};

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
    /// Who the client is by its certificate: [`crate::Identity::principal`].
    pub identity: Option<&'a str>,
}

/// Which fields a line has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordFields(u32);

impl Default for RecordFields {
    /// All of them.
    fn default() -> Self {
        RecordFields(u32::MAX)
    }
}

/// Their names, in the order of a line; the place of a name is its bit.
const NAMES: [&str; 22] = [
    "time",
    "trace",
    "tenant",
    "lb",
    "route",
    "service",
    "endpoint",
    "site",
    "peer",
    "method",
    "path",
    "host",
    "protocol",
    "status",
    "bytes_in",
    "bytes_out",
    "duration_us",
    "tries",
    "error",
    "policy",
    "shadow",
    "identity",
];

impl FromStr for RecordFields {
    type Err = String;

    /// Names with commas between them; `error` brings `fault` along.
    fn from_str(list: &str) -> Result<Self, Self::Err> {
        let mut fields = 0;
        for name in list.split(',').map(str::trim) {
            let at = NAMES.iter().position(|known| *known == name);
            let at = at.ok_or_else(|| {
                format!("{name:?} is not a field of a record: {}", NAMES.join(", "))
            })?;
            fields |= 1 << at;
        }
        Ok(RecordFields(fields))
    }
}

/// A line, field by field.
struct Line<'o> {
    out: &'o mut Vec<u8>,
    fields: RecordFields,
    at: u32,
}

impl Line<'_> {
    /// Is the next field wanted? Asked once for each, in order.
    fn wants(&mut self) -> bool {
        let wanted = self.fields.0 & (1 << self.at) != 0;
        self.at += 1;
        wanted
    }

    /// The beginning of the next field, if it is wanted.
    fn field(&mut self) -> Option<&mut Vec<u8>> {
        let name = NAMES.get(self.at as usize).copied().unwrap_or_default();
        self.wants().then(|| {
            begin(self.out, name);
            &mut *self.out
        })
    }

    fn quoted(&mut self, octets: &[u8]) {
        if let Some(out) = self.field() {
            out.push(b'"');
            out.extend_from_slice(octets);
            out.push(b'"');
        }
    }

    fn text(&mut self, value: &str) {
        if let Some(out) = self.field() {
            text(out, value);
        }
    }

    fn number(&mut self, value: u64) {
        if let Some(out) = self.field() {
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// A field that is there only if there is something to say.
    fn seldom(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.text(value),
            None => self.at += 1,
        }
    }
}

impl AccessRecord<'_> {
    /// Append it as one line of JSON with these fields. A field is always there, with an empty text
    /// where nothing is known, but for `error`, `fault`, `policy`, `shadow` and `identity`. By hand,
    /// since a line is written for every request.
    pub fn write(&self, fields: RecordFields, out: &mut Vec<u8>) {
        out.push(b'{');
        let mut line = Line { out, fields, at: 0 };
        line.quoted(&self.time.rfc3339());
        line.quoted(&self.trace.digits());
        line.text(self.tenant);
        line.text(self.lb);
        line.text(self.route);
        if let Some(out) = line.field() {
            out.push(b'"');
            if let Some(service) = self.service {
                let names = [&service.service, &service.namespace, &service.tenant];
                dotted(out, &names.map(|name| name.as_str()));
            }
            out.push(b'"');
        }
        if let Some(out) = line.field() {
            out.push(b'"');
            if let Some((address, _)) = self.endpoint {
                socket(out, address);
            }
            out.push(b'"');
        }
        if let Some(out) = line.field() {
            out.push(b'"');
            if let Some((_, site)) = self.endpoint {
                dotted(out, &[site.site.as_str(), site.tenant.as_str()]);
            }
            out.push(b'"');
        }
        if let Some(out) = line.field() {
            out.push(b'"');
            socket(out, self.peer);
            out.push(b'"');
        }
        line.text(self.method);
        line.text(self.path);
        line.text(self.host);
        line.text(self.protocol);
        line.number(u64::from(self.status));
        line.number(self.bytes_in);
        line.number(self.bytes_out);
        line.number(self.duration_us);
        line.number(u64::from(self.tries));
        let wants_error = line.wants();
        if let Some((error, fault)) = self.error.filter(|_| wants_error) {
            begin(line.out, "error");
            text(line.out, error);
            begin(line.out, "fault");
            text(line.out, fault.word());
        }
        line.seldom(self.policy);
        line.seldom(self.shadow);
        line.seldom(self.identity);
        out.extend_from_slice(b"}\n");
    }
}

/// The name of a field, and what separates it from the one before.
fn begin(out: &mut Vec<u8>, name: &str) {
    if out.last() != Some(&b'{') {
        out.push(b',');
    }
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

/// A text of JSON.
pub(crate) fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
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
            identity: None,
        };
        let full = AccessRecord {
            service: Some(&service),
            endpoint: Some(("10.0.200.7:80".parse().expect("an address"), &site)),
            peer: "127.0.0.1:1".parse().expect("an address"),
            error: Some(("refused", Fault::Upstream)),
            policy: Some("shop/edge/office"),
            shadow: Some("shop/next/all deny"),
            identity: Some("spiffe://acme/cart"),
            ..bare.clone()
        };
        let read = |record: &AccessRecord<'_>| -> serde_json::Value {
            let mut line = Vec::new();
            record.write(RecordFields::default(), &mut line);
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
        let seldom = ["policy", "shadow", "identity"];
        assert!(seldom.iter().all(|name| value.get(name).is_none()));
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
        let only = |list: &str| {
            let fields: RecordFields = list.parse().expect(list);
            let mut line = Vec::new();
            full.write(fields, &mut line);
            String::from_utf8(line).expect("text")
        };
        assert_eq!(
            only("status, path,service"),
            "{\"service\":\"cart.shop.acme\",\"path\":\"/\\u0022\\u005c\\u0001\\u007fä\",\"status\":200}\n"
        );
        assert_eq!(
            only("error,shadow,identity"),
            "{\"error\":\"refused\",\"fault\":\"upstream\",\"shadow\":\"shop/next/all deny\",\
             \"identity\":\"spiffe://acme/cart\"}\n"
        );
        for name in NAMES {
            let line: serde_json::Value = serde_json::from_str(&only(name)).expect(name);
            assert!(line.get(name).is_some(), "{name}: {line}");
        }
        let error = "status,size".parse::<RecordFields>().expect_err("no field");
        assert!(
            error.starts_with("\"size\" is not a field of a record: time, trace,"),
            "{error}"
        );
    }
}
