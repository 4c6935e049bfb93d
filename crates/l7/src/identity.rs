//! Who a client is by its certificate, and which hosts ask for one.

use std::{fmt, str::FromStr};

use http::{HeaderName, HeaderValue};

use crate::{Fields, headers};

/// To the endpoint, of hosts that want it: who the client is, as Envoy writes it.
const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// The most names that an identity may be told with.
const MAX_NAMES: usize = 64;

/// Who issues the certificates of a host's clients, as a digest of everything that verification
/// depends on: two hosts with the same one know the same clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustId(pub [u8; 32]);

/// What a host asks its clients for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientCertificates {
    /// By whom they have to be issued.
    pub trust: TrustId,
    /// Is nobody served without one that is valid?
    pub required: bool,
    /// Is the endpoint told, in `x-forwarded-client-cert`?
    pub forward: bool,
}

/// What of a certificate a name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NameKind {
    /// A URI among its alternative names, such as a SPIFFE ID.
    Uri,
    /// A DNS name among its alternative names, in lower case.
    Dns,
    /// The common name of its subject.
    CommonName,
    /// The SHA-256 of the certificate, in lower-case hexadecimal digits.
    Sha256,
}

impl NameKind {
    const ALL: [NameKind; 4] = [
        NameKind::Uri,
        NameKind::Dns,
        NameKind::CommonName,
        NameKind::Sha256,
    ];

    /// Its word between ingress and egress and on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            NameKind::Uri => "uri",
            NameKind::Dns => "dns",
            NameKind::CommonName => "commonName",
            NameKind::Sha256 => "sha256",
        }
    }
}

/// One name of a client: `uri=spiffe://acme.example/cart`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientName {
    /// What of its certificate it is.
    pub kind: NameKind,
    /// The name, without control characters.
    pub value: String,
}

impl FromStr for ClientName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (word, value) = text.split_once('=').unwrap_or_default();
        let kind = NameKind::ALL.into_iter().find(|kind| kind.word() == word);
        let sound = !value.is_empty() && !value.chars().any(char::is_control);
        match kind.filter(|_| sound) {
            Some(kind) => Ok(ClientName {
                kind,
                value: value.to_owned(),
            }),
            None => Err(format!(
                "{:?} is none of uri=URI, dns=NAME, commonName=NAME and sha256=DIGITS",
                text.chars().take(80).collect::<String>()
            )),
        }
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind.word(), self.value)
    }
}

/// Who a client is: the names in a certificate that was verified. The first stands for all in logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity(pub Vec<ClientName>);

impl Identity {
    /// The name that stands for all: a URI if it has one, else a DNS name, else the common name,
    /// else the digest, if they came in that order.
    #[must_use]
    pub fn principal(&self) -> &str {
        self.0.first().map_or("", |name| &name.value)
    }

    /// Is this one of its names?
    #[must_use]
    pub fn has(&self, wanted: &NameMatch) -> bool {
        self.0.iter().any(|name| wanted.holds(name))
    }

    /// Tell the egress.
    pub fn tell(&self, fields: &mut Fields) {
        for name in &self.0 {
            fields.append_with(&headers::IDENTITY, |out| {
                out.extend_from_slice(name.kind.word().as_bytes());
                out.push(b'=');
                out.extend_from_slice(name.value.as_bytes());
            });
        }
    }

    /// What the ingress tells. For requests out of a tunnel only: anybody may write this.
    #[must_use]
    pub fn told(fields: &Fields) -> Shown<Identity> {
        // Who does not say where the client is says nothing of it.
        if !fields.contains(&headers::CLIENT) {
            return Shown::Unknown;
        }
        let mut names = Vec::new();
        for line in fields.get_all(&headers::IDENTITY) {
            let name = std::str::from_utf8(line).ok().and_then(|l| l.parse().ok());
            match name {
                Some(name) if names.len() < MAX_NAMES => names.push(name),
                Some(_) | None => return Shown::Unknown,
            }
        }
        match names.is_empty() {
            true => Shown::Nothing,
            false => Shown::Identity(Identity(names)),
        }
    }

    /// Tell the endpoint, as Envoy's `x-forwarded-client-cert` has it.
    pub fn forward(&self, fields: &mut Fields) {
        let mut text = String::new();
        // Its own order: Hash, Cert, Subject, URI, DNS.
        for kind in [
            NameKind::Sha256,
            NameKind::CommonName,
            NameKind::Uri,
            NameKind::Dns,
        ] {
            for name in self.0.iter().filter(|name| name.kind == kind) {
                if !text.is_empty() {
                    text.push(';');
                }
                let value = name.value.replace('\\', "\\\\").replace('"', "\\\"");
                let quoted = value.contains([',', ';', '=', '"', '\\']);
                text += &match kind {
                    NameKind::Sha256 => format!("Hash={value}"),
                    NameKind::CommonName => format!("Subject=\"CN={value}\""),
                    NameKind::Uri if quoted => format!("URI=\"{value}\""),
                    NameKind::Dns if quoted => format!("DNS=\"{value}\""),
                    NameKind::Uri => format!("URI={value}"),
                    NameKind::Dns => format!("DNS={value}"),
                };
            }
        }
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            fields.append(&X_FORWARDED_CLIENT_CERT, &value);
        }
    }
}

/// What is known of who a client is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown<I> {
    /// It has shown no certificate that was verified.
    #[default]
    Nothing,
    /// It has shown this one.
    Identity(I),
    /// Whoever knows does not say.
    Unknown,
}

impl<'i> Shown<&'i Identity> {
    /// What was verified here, if anything was.
    #[must_use]
    pub fn here(identity: Option<&'i Identity>) -> Self {
        identity.map_or(Shown::Nothing, Shown::Identity)
    }
}

impl Shown<Identity> {
    /// The same, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> Shown<&Identity> {
        match self {
            Shown::Nothing => Shown::Nothing,
            Shown::Identity(identity) => Shown::Identity(identity),
            Shown::Unknown => Shown::Unknown,
        }
    }
}

/// Names of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameMatch {
    /// What of a certificate.
    pub kind: NameKind,
    /// Which.
    pub value: NameValue,
}

/// Which names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameValue {
    /// This one, octet by octet.
    Exact(String),
    /// This one and all below it: `spiffe://a/b` is a prefix of `spiffe://a/b/c`, not of
    /// `spiffe://a/bc`. Without a final `/`.
    Prefix(String),
}

impl NameMatch {
    fn holds(&self, name: &ClientName) -> bool {
        self.kind == name.kind
            && match &self.value {
                NameValue::Exact(exact) => name.value == *exact,
                NameValue::Prefix(prefix) => name
                    .value
                    .strip_prefix(prefix.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(names: &[&str]) -> Identity {
        Identity(names.iter().map(|n| n.parse().expect(n)).collect())
    }

    #[test]
    fn what_is_told_is_heard() {
        let spiffe = "uri=spiffe://acme.example/ns/shop/sa/cart";
        let both = identity(&[spiffe, "dns=cart", "commonName=Käthe, \"K\"", "sha256=00ff"]);
        let mut fields = Fields::default();
        assert_eq!(Identity::told(&fields), Shown::Unknown);
        headers::tell_client(&mut fields, [192, 0, 2, 1].into());
        assert_eq!(Identity::told(&fields), Shown::Nothing);
        both.tell(&mut fields);
        assert_eq!(Identity::told(&fields), Shown::Identity(both.clone()));
        assert_eq!(both.principal(), &spiffe[4..]);
        let name = headers::IDENTITY;
        fields.append(&name, &HeaderValue::from_static("email=a@example.com"));
        assert_eq!(
            Identity::told(&fields),
            Shown::Unknown,
            "a kind of tomorrow"
        );
        headers::strip(&mut fields);
        assert!(fields.is_empty(), "{fields:?}");
        let mut many = Fields::default();
        headers::tell_client(&mut many, [192, 0, 2, 1].into());
        for _ in 0..=MAX_NAMES {
            many.append(&name, &HeaderValue::from_static("dns=a"));
        }
        assert_eq!(Identity::told(&many), Shown::Unknown);
    }

    #[test]
    fn endpoints_are_told_as_by_envoy() {
        for (names, expect) in [
            (vec!["sha256=00ff"], "Hash=00ff"),
            (
                vec![
                    "uri=spiffe://a/b",
                    "dns=a.example",
                    "dns=b",
                    "commonName=a",
                    "sha256=00",
                ],
                "Hash=00;Subject=\"CN=a\";URI=spiffe://a/b;DNS=a.example;DNS=b",
            ),
            (
                vec![
                    "uri=https://a/?b=c,d;\"",
                    "commonName=a\\b\",CN=c",
                    "sha256=00",
                ],
                "Hash=00;Subject=\"CN=a\\\\b\\\",CN=c\";URI=\"https://a/?b=c,d;\\\"\"",
            ),
        ] {
            let mut fields = Fields::default();
            identity(&names).forward(&mut fields);
            let value = fields.get(&X_FORWARDED_CLIENT_CERT).expect("a value");
            assert_eq!(std::str::from_utf8(value), Ok(expect));
        }
    }

    #[test]
    fn names_are_matched_whole_or_by_segments() {
        let client = identity(&["uri=spiffe://a/b/c", "dns=b.example"]);
        let wanted = |kind, value| NameMatch { kind, value };
        let exact = |text: &str| NameValue::Exact(text.to_owned());
        let prefix = |text: &str| NameValue::Prefix(text.to_owned());
        for (kind, value, expect) in [
            (NameKind::Uri, exact("spiffe://a/b/c"), true),
            (NameKind::Uri, exact("spiffe://a/b"), false),
            (NameKind::Dns, exact("spiffe://a/b/c"), false),
            (NameKind::Dns, exact("b.example"), true),
            (NameKind::Uri, prefix("spiffe://a/b/c"), true),
            (NameKind::Uri, prefix("spiffe://a/b"), true),
            (NameKind::Uri, prefix("spiffe://a"), true),
            (NameKind::Uri, prefix("spiffe://a/b/"), false),
            (NameKind::Uri, prefix("spiffe://a/bc"), false),
            (NameKind::Uri, prefix("spiffe:/"), true),
            (NameKind::Uri, prefix("spiffe://a/b/c/d"), false),
            (NameKind::Sha256, exact(""), false),
        ] {
            let wanted = wanted(kind, value);
            assert_eq!(client.has(&wanted), expect, "{wanted:?}");
        }
        for bad in ["", "uri", "uri=", "uri=a\u{7f}", "mail=a", "URI=a"] {
            assert!(bad.parse::<ClientName>().is_err(), "{bad}");
        }
    }
}
