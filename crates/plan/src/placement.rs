//! How a service is balanced, as `balance` and `l7` run it.

use std::time::Duration;

use api::{Balance, BalanceAlgorithm, BalanceScope, ServiceProtocol, ServiceSpec};
use balance::{Algorithm, BalancePolicy, Circuit, Outlier, Scope};
use http::{HeaderName, HeaderValue, Method};
use l7::{HashOn, Protocol};

use crate::route::{Wrong, wrong};

/// The longest a cookie of ours holds.
const MAX_TTL: Duration = Duration::from_secs(365 * 86_400);

/// Who of a service's endpoints gets a request, and how many.
pub(crate) struct Placement {
    pub(crate) policy: BalancePolicy,
    pub(crate) hash_on: Vec<HashOn>,
    pub(crate) outlier: Option<Outlier>,
    pub(crate) circuit: Circuit,
}

/// Read how endpoints are picked and spared; pointers are below `/spec`.
pub(crate) fn placement(spec: &ServiceSpec) -> Result<Placement, Wrong> {
    let below = |wrong: Wrong| Wrong {
        pointer: format!("/balance{}", wrong.pointer),
        ..wrong
    };
    Ok(Placement {
        policy: policy(&spec.balance).map_err(below)?,
        hash_on: hash_on(&spec.balance).map_err(below)?,
        outlier: spec.outlier.as_ref().map(outlier).transpose()?,
        circuit: spec.circuit.as_ref().map_or_else(Circuit::default, circuit),
    })
}

fn outlier(spec: &api::Outlier) -> Result<Outlier, Wrong> {
    let (base, most) = (spec.ejection_time.0, spec.max_ejection_time.0);
    if !(1..=1000).contains(&spec.consecutive_failures) {
        return Err(wrong("/outlier/consecutiveFailures", "1 to 1000"));
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&base) {
        return Err(wrong("/outlier/ejectionTime", "1s to 1h"));
    }
    if !(base..=Duration::from_secs(86_400)).contains(&most) {
        let title = "from ejectionTime to 24h";
        return Err(wrong("/outlier/maxEjectionTime", title));
    }
    if !(1..=100).contains(&spec.max_ejected_percent) {
        return Err(wrong("/outlier/maxEjectedPercent", "1 to 100"));
    }
    Ok(Outlier {
        failures: spec.consecutive_failures,
        base,
        most,
        percent: spec.max_ejected_percent,
    })
}

fn circuit(spec: &api::Circuit) -> Circuit {
    Circuit {
        connections: spec.connections,
        pending: spec.pending,
        requests: spec.requests,
        retries: spec.retries,
    }
}

fn policy(spec: &Balance) -> Result<BalancePolicy, Wrong> {
    let hashes = hashes(spec.algorithm);
    if !(1..=100).contains(&spec.spill_at) {
        return Err(wrong("/spillAt", "1 to 100"));
    }
    if spec.panic_threshold > 100 {
        return Err(wrong("/panicThreshold", "0 to 100"));
    }
    if spec.slow_start.0 > Duration::from_secs(3600) {
        return Err(wrong("/slowStart", "1h at most"));
    }
    if hashes && spec.slow_start.0 > Duration::ZERO {
        let title = "does not go with ringHash and maglev: each step would move requests";
        return Err(wrong("/slowStart", title));
    }
    Ok(BalancePolicy {
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
            BalanceAlgorithm::PeakEwma => Algorithm::PeakEwma,
        },
        spill_at: spec.spill_at,
        panic_below: spec.panic_threshold,
        slow_start: spec.slow_start.0,
    })
}

const fn hashes(algorithm: BalanceAlgorithm) -> bool {
    match algorithm {
        BalanceAlgorithm::RingHash | BalanceAlgorithm::Maglev => true,
        BalanceAlgorithm::LeastRequest
        | BalanceAlgorithm::RoundRobin
        | BalanceAlgorithm::Random
        | BalanceAlgorithm::PeakEwma => false,
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
fn hash_on(spec: &Balance) -> Result<Vec<HashOn>, Wrong> {
    let hashes = hashes(spec.algorithm);
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
