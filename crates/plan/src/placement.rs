//! How a service is balanced, as `balance` and `l7` run it.

use std::time::Duration;

use api::{Balance, BalanceAlgorithm, BalanceScope, ServiceProtocol};
use balance::{Algorithm, BalancePolicy, Scope};
use http::{HeaderName, HeaderValue, Method};
use l7::{HashOn, Protocol};

use crate::route::{Wrong, wrong};

/// The longest a cookie of ours holds.
const MAX_TTL: Duration = Duration::from_secs(365 * 86_400);

/// Read how an endpoint is picked.
pub(crate) fn policy(spec: &Balance) -> BalancePolicy {
    BalancePolicy {
        scope: match spec.scope {
            BalanceScope::Local => Scope::Local,
            BalanceScope::PreferLocal => Scope::PreferLocal,
            BalanceScope::Distributed => Scope::Distributed,
        },
        algorithm: match spec.algorithm {
            BalanceAlgorithm::LeastRequest => Algorithm::LeastRequest,
            BalanceAlgorithm::RoundRobin => Algorithm::RoundRobin,
            BalanceAlgorithm::Random => Algorithm::Random,
            BalanceAlgorithm::RingHash => Algorithm::RingHash,
            BalanceAlgorithm::Maglev => Algorithm::Maglev,
        },
        panic: false,
    }
}

/// Read what endpoints speak.
pub(crate) const fn protocol(protocol: ServiceProtocol) -> Protocol {
    match protocol {
        ServiceProtocol::Http => Protocol::Http1,
        ServiceProtocol::Http2 | ServiceProtocol::Grpc => Protocol::Http2,
    }
}

/// Read what says where a request belongs.
pub(crate) fn hash_on(spec: &Balance) -> Result<Vec<HashOn>, Wrong> {
    let hashes = match spec.algorithm {
        BalanceAlgorithm::RingHash | BalanceAlgorithm::Maglev => true,
        BalanceAlgorithm::LeastRequest
        | BalanceAlgorithm::RoundRobin
        | BalanceAlgorithm::Random => false,
    };
    if hashes == spec.hash_on.is_empty() {
        let title = if hashes {
            "say what is hashed: a header, a cookie, a parameter or the client's address"
        } else {
            "goes only with the algorithms ringHash and maglev"
        };
        return Err(wrong("/hashOn", title));
    }
    if spec.hash_on.len() > 8 {
        return Err(wrong("/hashOn", "8 at most"));
    }
    let rules = spec.hash_on.iter().enumerate();
    let rules = rules.map(|(at, rule)| {
        let here = |field: &str| format!("/hashOn/{at}/{field}");
        match rule {
            api::HashOn::Header(name) => {
                let name = HeaderName::from_bytes(name.as_bytes());
                let name = name.map_err(|_| wrong(here("header"), "not a header's name"))?;
                Ok(HashOn::Header(name))
            }
            api::HashOn::QueryParam(name) if (1..=256).contains(&name.len()) => {
                Ok(HashOn::Query(name.clone()))
            }
            api::HashOn::QueryParam(_) => Err(wrong(here("queryParam"), "1 to 256 octets")),
            api::HashOn::SourceAddress(_) => Ok(HashOn::Source),
            api::HashOn::Cookie(cookie) => {
                // RFC 6265 §4.1.1: a token, which a method is too.
                if cookie.name.len() > 64 || Method::from_bytes(cookie.name.as_bytes()).is_err() {
                    return Err(wrong(
                        here("cookie/name"),
                        "a cookie's name, 64 octets at most",
                    ));
                }
                let path = cookie.path.clone().unwrap_or_else(|| "/".to_owned());
                let plain = HeaderValue::from_str(&path).is_ok() && !path.contains(';');
                if !path.starts_with('/') || !plain || path.len() > 256 {
                    let title = "a path that begins with '/', 256 octets at most";
                    return Err(wrong(here("cookie/path"), title));
                }
                if cookie.ttl.is_some_and(|ttl| ttl.0 > MAX_TTL) {
                    return Err(wrong(here("cookie/ttl"), "8760h at most"));
                }
                let session = cookie.ttl.map(|ttl| l7::Session { ttl: ttl.0, path });
                Ok(HashOn::Cookie(cookie.name.clone(), session))
            }
        }
    });
    rules.collect()
}
