//! The story of one request, for the access log.

use std::{io::Write as _, net::SocketAddr, str::FromStr};

use base::{QualifiedService, SiteName, WallTime};

use crate::headers::{self, TraceId};

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

/// Room for a line, mostly.
const USUAL: usize = 640;

/// A line, field by field.
struct Line<'o> {
    out: &'o mut Vec<u8>,
    fields: RecordFields,
    at: u32,
}

/// What stands before the value of a field: literals, so that their lengths are known where they
/// are written.
macro_rules! key {
    ($name:literal) => {
        concat!(",\"", $name, "\":").as_bytes()
    };
}

/// The same before a text in which nothing has to be written otherwise.
macro_rules! quote {
    ($name:literal) => {
        concat!(",\"", $name, "\":\"").as_bytes()
    };
}

impl Line<'_> {
    /// The next field, after this, if it is wanted. Asked once for each, in the order of [`NAMES`].
    #[inline]
    fn field(&mut self, key: &'static [u8]) -> Option<&mut Vec<u8>> {
        let wanted = self.fields.0 & (1 << self.at) != 0;
        self.at += 1;
        wanted.then(|| {
            self.out.extend_from_slice(key);
            &mut *self.out
        })
    }

    /// After a [`quote`].
    #[inline]
    fn quoted(&mut self, key: &'static [u8], write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(out) = self.field(key) {
            write(out);
            out.push(b'"');
        }
    }

    /// After a [`quote`]: a name, a token, a word of ours.
    #[inline]
    fn plain(&mut self, key: &'static [u8], value: &str) {
        self.quoted(key, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// After a [`key`], as are the others.
    #[inline]
    fn text(&mut self, key: &'static [u8], value: &str) {
        if let Some(out) = self.field(key) {
            text(out, value);
        }
    }

    #[inline]
    fn number(&mut self, key: &'static [u8], value: u64) {
        if let Some(out) = self.field(key) {
            out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        }
    }

    /// A field that is there only if there is something to say.
    fn seldom(&mut self, key: &'static [u8], value: Option<&str>) {
        match value {
            Some(value) => self.text(key, value),
            None => self.at += 1,
        }
    }
}

impl AccessRecord<'_> {
    /// Append it as one line of JSON with these fields. A field is always there, with an empty text
    /// where nothing is known, but for `error`, `fault`, `policy`, `shadow` and `identity`. By hand,
    /// since a line is written for every request.
    pub fn write(&self, fields: RecordFields, out: &mut Vec<u8>) {
        out.reserve(USUAL);
        let begin = out.len();
        let mut line = Line { out, fields, at: 0 };
        line.quoted(quote!("time"), |out| {
            out.extend_from_slice(&self.time.rfc3339());
        });
        line.quoted(quote!("trace"), |out| {
            out.extend_from_slice(&self.trace.digits());
        });
        line.plain(quote!("tenant"), self.tenant);
        line.plain(quote!("lb"), self.lb);
        line.text(key!("route"), self.route);
        line.quoted(quote!("service"), |out| {
            if let Some(service) = self.service {
                let names = [&service.service, &service.namespace, &service.tenant];
                dotted(out, &names.map(|name| name.as_str()));
            }
        });
        line.quoted(quote!("endpoint"), |out| {
            if let Some((address, _)) = self.endpoint {
                socket(out, address);
            }
        });
        line.quoted(quote!("site"), |out| {
            if let Some((_, site)) = self.endpoint {
                dotted(out, &[site.site.as_str(), site.tenant.as_str()]);
            }
        });
        line.quoted(quote!("peer"), |out| socket(out, self.peer));
        line.plain(quote!("method"), self.method);
        line.text(key!("path"), self.path);
        line.text(key!("host"), self.host);
        line.plain(quote!("protocol"), self.protocol);
        line.number(key!("status"), u64::from(self.status));
        line.number(key!("bytes_in"), self.bytes_in);
        line.number(key!("bytes_out"), self.bytes_out);
        line.number(key!("duration_us"), self.duration_us);
        line.number(key!("tries"), u64::from(self.tries));
        match self.error {
            Some((error, fault)) => {
                if let Some(out) = line.field(key!("error")) {
                    text(out, error);
                    out.extend_from_slice(quote!("fault"));
                    out.extend_from_slice(fault.word().as_bytes());
                    out.push(b'"');
                }
            }
            None => line.at += 1,
        }
        line.seldom(key!("policy"), self.policy);
        line.seldom(key!("shadow"), self.shadow);
        line.seldom(key!("identity"), self.identity);
        // Each field begins with a comma; the first one's is where the line begins.
        match out.get_mut(begin) {
            Some(comma) => *comma = b'{',
            None => out.push(b'{'),
        }
        out.extend_from_slice(b"}\n");
    }
}

/// A text of JSON.
pub(crate) fn text(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    let mut rest = value.as_bytes();
    // RFC 8259 §7; DEL too, which terminals act on.
    let odd = |octet: &u8| *octet < b' ' || matches!(octet, b'"' | b'\\' | 0x7F);
    // Mostly there is none, which is seen without a way out in the middle: many octets at a time.
    if rest.iter().fold(false, |any, octet| any | odd(octet)) {
        while let Some(at) = rest.iter().position(odd) {
            let (before, from) = rest.split_at(at);
            out.extend_from_slice(before);
            // Into memory: it cannot fail.
            let _ = write!(out, "\\u{:04x}", from[0]);
            rest = &from[1..];
        }
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
            headers::address(out, (*v4.ip()).into());
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
