//! Which requests belong together, so that one endpoint gets them.

use std::{net::IpAddr, time::Duration};

use base::Rng;
use http::{HeaderName, HeaderValue};

use crate::{Fields, Known, query::parameter};

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashOn {
    /// A header's first line.
    Header(HeaderName),
    /// A cookie; with a session, clients that have none are given one.
    Cookie(String, Option<Session>),
    /// The first parameter of this name, decoded.
    Query(String),
    /// The client's address.
    Source,
}

/// A cookie of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// How long it holds; zero: until the browser ends.
    pub ttl: Duration,
    /// Below which path it is sent.
    pub path: String,
}

/// Where a request belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// `None`: anywhere.
    pub hash: Option<u64>,
    /// To be said with the answer, so that the next request belongs there too.
    pub set_cookie: Option<HeaderValue>,
}

/// Where a request belongs by the first of `rules` that it has something for.
#[must_use]
pub fn affinity(
    rules: &[HashOn],
    fields: &Fields,
    query: Option<&str>,
    client: IpAddr,
    tls: bool,
    rng: &mut Rng,
) -> Affinity {
    let by = |octets: &[u8]| Affinity {
        hash: Some(balance::stable_hash(octets)),
        set_cookie: None,
    };
    let mut rules = rules.iter();
    let found = rules.find_map(|rule| match rule {
        HashOn::Header(name) => fields.get(name).map(by),
        HashOn::Cookie(name, session) => match (cookie(fields, name), session) {
            (Some(value), _) => Some(by(value)),
            (None, Some(session)) => {
                let value = format!("{:016x}", rng.next_u64());
                Some(Affinity {
                    set_cookie: session.cookie(name, &value, tls),
                    ..by(value.as_bytes())
                })
            }
            (None, None) => None,
        },
        HashOn::Query(name) => parameter(query, name).map(|value| by(value.as_bytes())),
        HashOn::Source => Some(match client.to_canonical() {
            IpAddr::V4(v4) => by(&v4.octets()),
            IpAddr::V6(v6) => by(&v6.octets()),
        }),
    });
    found.unwrap_or_default()
}

impl Session {
    fn cookie(&self, name: &str, value: &str, tls: bool) -> Option<HeaderValue> {
        let mut text = format!("{name}={value}; Path={}; HttpOnly; SameSite=Lax", self.path);
        if !self.ttl.is_zero() {
            text += &format!("; Max-Age={}", self.ttl.as_secs());
        }
        if tls {
            text += "; Secure";
        }
        HeaderValue::try_from(text).ok()
    }
}

/// The value of a cookie (RFC 6265 §4.2.1).
pub(crate) fn cookie<'f>(fields: &'f Fields, name: &str) -> Option<&'f [u8]> {
    let lines = fields.all(Known::Cookie);
    let mut pairs = lines.flat_map(|line| line.split(|octet| *octet == b';'));
    pairs.find_map(|pair| {
        let pair = pair.trim_ascii();
        let value = pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn said(rules: &[HashOn], lines: &[(&str, &'static str)], query: Option<&str>) -> Affinity {
        let lines = lines.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_static(value))
        });
        let fields: Fields = lines.collect();
        let client = "10.0.0.1".parse().expect("an address");
        affinity(rules, &fields, query, client, true, &mut Rng::new(1))
    }

    #[test]
    fn the_first_rule_that_finds_something() {
        let rules = [
            HashOn::Header(header::FROM),
            HashOn::Cookie("id".into(), None),
            HashOn::Query("user".into()),
        ];
        let hash = |text: &str| Some(balance::stable_hash(text.as_bytes()));
        for (lines, query, expect) in [
            (&[("from", "a"), ("cookie", "id=b")][..], None, hash("a")),
            (&[("cookie", "x=1; id=b; y")], Some("user=c"), hash("b")),
            (&[("cookie", "x=1"), ("cookie", "id=b")], None, hash("b")),
            (
                &[("cookie", "xid=1; id=")],
                Some("user=%63&user=d"),
                hash("c"),
            ),
            (&[], None, None),
        ] {
            assert_eq!(said(&rules, lines, query).hash, expect, "{lines:?}");
        }
        let source = said(&[HashOn::Source], &[], None).hash;
        assert_eq!(source, Some(balance::stable_hash(&[10, 0, 0, 1])));
    }

    #[test]
    fn clients_are_given_a_session() {
        let session = Session {
            ttl: Duration::from_secs(60),
            path: "/shop".into(),
        };
        let rules = [HashOn::Cookie("id".into(), Some(session)), HashOn::Source];
        let given = said(&rules, &[], None);
        let cookie = given.set_cookie.expect("a cookie");
        let cookie = cookie.to_str().expect("text");
        let (pair, rest) = cookie.split_once(';').expect("attributes");
        assert_eq!(
            rest,
            " Path=/shop; HttpOnly; SameSite=Lax; Max-Age=60; Secure"
        );
        // The next request, which has it, belongs to the same place.
        let value = pair.strip_prefix("id=").expect("its name");
        assert_eq!(given.hash, Some(balance::stable_hash(value.as_bytes())));
    }
}
