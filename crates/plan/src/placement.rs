//! How a service is balanced, as `balance` and `l7` run it.

use std::time::Duration;

use api::{
    Balance, BalanceAlgorithm, BalanceScope, LbType, ProxyProtocol, ProxySenders, ServiceProtocol,
    ServiceSpec,
};
use balance::{Algorithm, BalancePolicy, Circuit, LoadPolicy, Outlier, Scope};
use http::{HeaderName, HeaderValue, Method};
use l7::{Expected, HashOn, Protocol, ProxyVersion, Senders};

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
        policy: policy(&spec.balance, spec.protocol).map_err(below)?,
        hash_on: hash_on(&spec.balance, spec.protocol).map_err(below)?,
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

fn policy(spec: &Balance, protocol: ServiceProtocol) -> Result<BalancePolicy, Wrong> {
    let hashes = hashes(spec.algorithm) || by_client(spec, protocol);
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
    let by_load = spec.algorithm == BalanceAlgorithm::WeightedByLoad;
    if by_load && !requests(protocol) {
        let title = "goes by what answers say, which this protocol has not";
        return Err(wrong("/algorithm", title));
    }
    Ok(BalancePolicy {
        scope: match spec.scope {
            BalanceScope::Local => Scope::Local,
            BalanceScope::PreferLocal => Scope::PreferLocal,
            BalanceScope::Distributed => Scope::Distributed,
        },
        algorithm: match spec.algorithm {
            BalanceAlgorithm::LeastRequest if by_client(spec, protocol) => Algorithm::Maglev,
            BalanceAlgorithm::LeastRequest => Algorithm::LeastRequest,
            BalanceAlgorithm::RoundRobin => Algorithm::RoundRobin,
            BalanceAlgorithm::Random => Algorithm::Random,
            BalanceAlgorithm::RingHash => Algorithm::RingHash,
            BalanceAlgorithm::Maglev => Algorithm::Maglev,
            BalanceAlgorithm::PeakEwma => Algorithm::PeakEwma,
            BalanceAlgorithm::WeightedByLoad => Algorithm::WeightedByLoad,
        },
        load: load(spec)?,
        spill_at: spec.spill_at,
        panic_below: spec.panic_threshold,
        slow_start: spec.slow_start.0,
    })
}

/// How reports of load are taken.
fn load(spec: &Balance) -> Result<LoadPolicy, Wrong> {
    let Some(reports) = spec.load_reports else {
        return Ok(LoadPolicy::default());
    };
    if spec.algorithm != BalanceAlgorithm::WeightedByLoad {
        return Err(wrong(
            "/loadReports",
            "goes only with the algorithm weightedByLoad",
        ));
    }
    let (blackout, expiry) = (reports.blackout.0, reports.expiry.0);
    if blackout > Duration::from_secs(3600) {
        return Err(wrong("/loadReports/blackout", "1h at most"));
    }
    if !(Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&expiry) {
        return Err(wrong("/loadReports/expiry", "1s to 24h"));
    }
    Ok(LoadPolicy { blackout, expiry })
}

const fn hashes(algorithm: BalanceAlgorithm) -> bool {
    match algorithm {
        BalanceAlgorithm::RingHash | BalanceAlgorithm::Maglev => true,
        BalanceAlgorithm::LeastRequest
        | BalanceAlgorithm::RoundRobin
        | BalanceAlgorithm::Random
        | BalanceAlgorithm::PeakEwma
        | BalanceAlgorithm::WeightedByLoad => false,
    }
}

/// Flows of datagrams go by the client's address where nothing is said, so that they stay where
/// they were when another worker or PoP gets them.
fn by_client(spec: &Balance, protocol: ServiceProtocol) -> bool {
    protocol == ServiceProtocol::Udp
        && spec.algorithm == BalanceAlgorithm::LeastRequest
        && spec.hash_on.is_empty()
}

/// Read what endpoints speak.
pub(crate) const fn protocol(protocol: ServiceProtocol) -> Protocol {
    match protocol {
        ServiceProtocol::Http => Protocol::Http1,
        ServiceProtocol::Http2 | ServiceProtocol::Grpc => Protocol::Http2,
        ServiceProtocol::Tcp | ServiceProtocol::Tls => Protocol::Tcp,
        ServiceProtocol::Udp => Protocol::Udp,
    }
}

/// Does a load balancer of this type lead to Services that speak this?
pub(crate) const fn carries(kind: LbType, spoken: ServiceProtocol) -> bool {
    goes(kind, protocol(spoken))
}

/// The same, of what is spoken in the end.
pub(crate) const fn goes(kind: LbType, spoken: Protocol) -> bool {
    match (kind, spoken) {
        (LbType::Http, Protocol::Http1 | Protocol::Http2)
        | (LbType::Tcp | LbType::Tls | LbType::Connect, Protocol::Tcp)
        | (LbType::Udp, Protocol::Udp) => true,
        (LbType::Http, Protocol::Tcp | Protocol::Udp)
        | (
            LbType::Tcp | LbType::Tls | LbType::Connect,
            Protocol::Http1 | Protocol::Http2 | Protocol::Udp,
        )
        | (LbType::Udp, Protocol::Http1 | Protocol::Http2 | Protocol::Tcp) => false,
    }
}

/// The protocols that a type goes with, in words.
pub(crate) const fn words(kind: LbType) -> &'static str {
    match kind {
        LbType::Http => "protocol http, http2 or grpc",
        LbType::Tcp | LbType::Tls | LbType::Connect => "protocol tcp or tls",
        LbType::Udp => "protocol udp",
    }
}

/// Read how endpoints are told whose a connection is.
pub(crate) fn proxy(spec: &ServiceSpec) -> Result<Option<ProxyVersion>, Wrong> {
    let Some(version) = spec.proxy_protocol else {
        return Ok(None);
    };
    let title = match protocol(spec.protocol) {
        Protocol::Http1 | Protocol::Tcp => None,
        Protocol::Http2 => {
            Some("connections over HTTP/2 are shared between clients: remove it, or use http")
        }
        Protocol::Udp => Some("goes before the octets of a connection: remove it"),
    };
    if let Some(title) = title {
        return Err(wrong("/proxyProtocol", title));
    }
    Ok(Some(match version {
        ProxyProtocol::V1 => ProxyVersion::V1,
        ProxyProtocol::V2 => ProxyVersion::V2,
    }))
}

/// Read whose word about clients' addresses is taken.
pub(crate) fn senders(spec: &ProxySenders) -> Result<Senders, Wrong> {
    let mut senders = Senders::default();
    for (field, prefixes, expected) in [
        ("from", &spec.from, Expected::Header),
        ("optionalFrom", &spec.optional_from, Expected::Maybe),
    ] {
        if prefixes.len() > 64 {
            return Err(wrong(format!("/{field}"), "64 at most"));
        }
        for (at, prefix) in prefixes.iter().enumerate() {
            let read = senders.trust(prefix, expected);
            read.map_err(|error| wrong(format!("/{field}/{at}"), error.to_string()))?;
        }
    }
    if let Some(at) = spec
        .optional_from
        .iter()
        .position(|p| spec.from.contains(p))
    {
        let title = "must and may at once: remove it here or from `from`";
        return Err(wrong(format!("/optionalFrom/{at}"), title));
    }
    if senders.is_empty() {
        return Err(wrong(
            "",
            "name who stands before this node, in `from` or `optionalFrom`",
        ));
    }
    Ok(senders)
}

/// Are the requests of this protocol looked at?
const fn requests(protocol: ServiceProtocol) -> bool {
    carries(LbType::Http, protocol)
}

/// Read what says where a request, or else a connection, belongs.
fn hash_on(spec: &Balance, protocol: ServiceProtocol) -> Result<Vec<HashOn>, Wrong> {
    if by_client(spec, protocol) {
        return Ok(vec![HashOn::Source]);
    }
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
        if !requests(protocol) && !matches!(rule, api::HashOn::SourceAddress(_)) {
            let title = "only a request has that: a connection has `sourceAddress: {}`";
            return Err(wrong(format!("/hashOn/{at}"), title));
        }
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
