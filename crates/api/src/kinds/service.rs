//! Service: an application address, and where its endpoints are.

use std::time::Duration;

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Reference;
use crate::Span;

/// An application address `SERVICE.NAMESPACE.TENANT`, and where its endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// The port of the application address; endpoints have this port where they name none.
    pub port: u16,
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: ServiceProtocol,
    /// Tell endpoints whose a connection is by the PROXY protocol, which they must understand.
    /// Their connections are not shared between clients then. Not with `http2`, `grpc` and `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Where the endpoints are.
    pub origins: Vec<Origin>,
    /// How an endpoint's health is found out; a TCP connect by default.
    #[serde(default)]
    pub health_check: HealthCheck,
    /// How an endpoint is picked.
    #[serde(default)]
    pub balance: Balance,
    /// Takes endpoints out for a while whose answers are bad; without it only probes decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outlier: Option<Outlier>,
    /// How much of the service each node uses at a time; without it as much as is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit: Option<Circuit>,
    /// ServicePolicies that a request has to pass, in this order, whichever load balancer leads
    /// it here; `NAME` or `NAMESPACE/NAME`, 16 at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Reference>,
}

/// When an endpoint is taken out because of its answers: a status of 500 or more, a connection
/// that is refused or breaks, no answer in time. Each node decides by what it sees itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Outlier {
    /// Bad answers in a row that do it, 1 to 1000; 5 by default.
    pub consecutive_failures: u32,
    /// How long it is out the first time, then twice as long, three times …; 1 s to 1 h, 30 s by
    /// default.
    pub ejection_time: Span,
    /// … and never longer than this. After so long without a fault the past is forgotten. 5 m by
    /// default, 24 h at most.
    pub max_ejection_time: Span,
    /// How many of the endpoints may be out at a time, in percent, 1 to 100, but one of two in any
    /// case and never all; 50 by default.
    pub max_ejected_percent: u8,
}

impl Default for Outlier {
    fn default() -> Self {
        Outlier {
            consecutive_failures: 5,
            ejection_time: Span(std::time::Duration::from_secs(30)),
            max_ejection_time: Span(std::time::Duration::from_secs(300)),
            max_ejected_percent: 50,
        }
    }
}

/// How much of a service each node uses at a time. What is over that is answered with 503 at
/// once; nothing waits. What is not said has no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Circuit {
    /// Connections to its endpoints, those kept for later included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<u32>,
    /// Connections that are being opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<u32>,
    /// Requests that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u32>,
    /// Tries that repeat another; a fifth of the requests that run by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocol {
    /// HTTP/1.1 in plain text.
    #[default]
    Http,
    /// HTTP/2 in plain text, from the first octet.
    Http2,
    /// gRPC, which is HTTP/2.
    Grpc,
    /// Anything over TCP: octets are carried as they are.
    Tcp,
    /// TLS, carried as it is: the endpoints hold the keys.
    Tls,
    /// Datagrams. With the balance algorithm `leastRequest`, the default, flows go by the client's
    /// address; without `healthCheck.port` the endpoints count as healthy.
    Udp,
}

impl ServiceProtocol {
    /// The word for it in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            ServiceProtocol::Http => "http",
            ServiceProtocol::Http2 => "http2",
            ServiceProtocol::Grpc => "grpc",
            ServiceProtocol::Tcp => "tcp",
            ServiceProtocol::Tls => "tls",
            ServiceProtocol::Udp => "udp",
        }
    }
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProxyProtocol {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// Some endpoints: the same addresses in each of the named sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    /// Gateways of the tenant.
    #[schemars(with = "Vec<String>")]
    pub sites: Vec<Name>,
    /// `IP` or `IP:PORT`, seen from those sites.
    pub addresses: Vec<String>,
    /// The port of addresses that name none; the Service's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The share of each endpoint, 1 to 255; 100 by default.
    #[serde(default = "hundred")]
    pub weight: u8,
    /// How many requests at a time each endpoint takes well, from whatever site they come (of `tcp`,
    /// `tls` and `udp`: connections and flows); 1 to 1000000. When as many run in a site, a part of
    /// what comes goes to the next-nearest one, as long as there is one with room. Without it nobody
    /// knows how loaded the site is, and nothing goes elsewhere because of that. In a site of several
    /// nodes one of them counts, what leaves its own tunnels: say what falls to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

fn hundred() -> u8 {
    100
}

/// How an endpoint's health is found out: one prober a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthCheck {
    /// Send a request; a connect alone if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// The port that is asked, if not the endpoint's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// From the start of one probe to the start of the next (± 10 %), 50 ms to 5 m.
    pub interval: Span,
    /// How long an answer may take, 10 ms to 1 m.
    pub timeout: Span,
    /// Successes in a row that make an unhealthy endpoint healthy, 1 to 20.
    pub rise: u8,
    /// Failures in a row that make a healthy endpoint unhealthy, 1 to 20; a refused connection
    /// counts as all of them.
    pub fall: u8,
}

impl Default for HealthCheck {
    fn default() -> Self {
        let ms = |ms| Span(std::time::Duration::from_millis(ms));
        HealthCheck {
            http: None,
            port: None,
            interval: ms(300),
            timeout: ms(300),
            rise: 3,
            fall: 2,
        }
    }
}

/// A probe by a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// The path that is asked for with GET.
    #[serde(default = "root")]
    pub path: String,
    /// The Host header; the endpoint's address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The status codes that mean healthy; 200 by default.
    #[serde(default = "ok")]
    pub expect: Vec<u16>,
}

fn root() -> String {
    "/".to_owned()
}

fn ok() -> Vec<u16> {
    vec![200]
}

/// How an endpoint is picked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Balance {
    /// The rule inside the nearest sites.
    #[serde(default)]
    pub algorithm: BalanceAlgorithm,
    /// How far a request may travel.
    #[serde(default)]
    pub scope: BalanceScope,
    /// From how many healthy endpoints downward, in percent of the nearest sites', a part of the
    /// requests goes to the next-nearest: as many as would bring more to an endpoint than its
    /// share, divided by this. 1 to 100; 70 by default; with 100 none ever gets more than its
    /// share.
    #[serde(default = "seventy")]
    pub spill_at: u8,
    /// Below how many healthy endpoints, in percent, the others are used too, since it is more
    /// likely that the probes are wrong; 0 to 100, 0 by default: never.
    #[serde(default)]
    pub panic_threshold: u8,
    /// How long an endpoint that has become healthy takes to its full share, 1 h at most; no time
    /// by default.
    #[serde(default)]
    pub slow_start: Span,
    /// What of a request says where it belongs, for `ringHash` and `maglev`: the first that it
    /// has. One that has none goes anywhere.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<HashOnFields>")]
    pub hash_on: Vec<HashOn>,
    /// How `weightedByLoad` takes what endpoints say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_reports: Option<LoadReports>,
}

/// How reports of load are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LoadReports {
    /// What an endpoint says first counts after this, when it has come to its usual work; 1 h at
    /// most, 10 s by default.
    pub blackout: Span,
    /// What was said so long ago counts no more: 1 s to 24 h, 3 m by default.
    pub expiry: Span,
}

impl Default for LoadReports {
    fn default() -> Self {
        LoadReports {
            blackout: Span(Duration::from_secs(10)),
            expiry: Span(Duration::from_secs(180)),
        }
    }
}

fn seventy() -> u8 {
    70
}

impl Default for Balance {
    fn default() -> Self {
        Balance {
            algorithm: BalanceAlgorithm::default(),
            scope: BalanceScope::default(),
            spill_at: seventy(),
            panic_threshold: 0,
            slow_start: Span::default(),
            hash_on: Vec::new(),
            load_reports: None,
        }
    }
}

/// The rule inside the nearest sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BalanceAlgorithm {
    /// The better of two at random, by requests in flight.
    #[default]
    LeastRequest,
    /// Everyone in turn, by weight.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// By a hash of the request on a ring: when an endpoint goes, only its own requests go
    /// elsewhere.
    RingHash,
    /// By a hash of the request in a table: nearly the same, and more even.
    Maglev,
    /// The better of two at random, by how long answers take (the average, that a slow answer
    /// raises at once) and requests in flight.
    PeakEwma,
    /// Any, by weight and by what endpoints say of their load with their answers, in headers or
    /// trailers `endpoint-load-metrics` or `endpoint-load-metrics-bin` (ORCA).
    WeightedByLoad,
}

/// How far a request may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BalanceScope {
    /// Only to endpoints of the site where it comes in.
    Local,
    /// To the nearest sites that have a healthy endpoint.
    #[default]
    PreferLocal,
    /// To all sites alike.
    Distributed,
}

/// What of a request is hashed; one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "HashOnFields")]
pub enum HashOn {
    /// A header.
    Header(String),
    /// A cookie.
    Cookie(HashCookie),
    /// A parameter of the query.
    QueryParam(String),
    /// The client's address.
    SourceAddress(Everything),
}

/// What of a request is hashed; one of the fields.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "HashOn")]
struct HashOnFields {
    /// A header.
    header: Option<String>,
    /// A cookie.
    cookie: Option<HashCookie>,
    /// A parameter of the query.
    query_param: Option<String>,
    /// The client's address: written `{}`.
    source_address: Option<Everything>,
}

impl TryFrom<HashOnFields> for HashOn {
    type Error = &'static str;

    fn try_from(fields: HashOnFields) -> Result<Self, Self::Error> {
        match (
            fields.header,
            fields.cookie,
            fields.query_param,
            fields.source_address,
        ) {
            (Some(name), None, None, None) => Ok(HashOn::Header(name)),
            (None, Some(cookie), None, None) => Ok(HashOn::Cookie(cookie)),
            (None, None, Some(name), None) => Ok(HashOn::QueryParam(name)),
            (None, None, None, Some(all)) => Ok(HashOn::SourceAddress(all)),
            _ => Err(
                "one of `header: NAME`, `cookie: {name: NAME}`, `queryParam: NAME` or \
                 `sourceAddress: {}`",
            ),
        }
    }
}

/// No choice to make: written `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Everything {}

/// A cookie that says where a request belongs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HashCookie {
    /// Its name.
    pub name: String,
    /// Clients that have none are given one that holds so long; `0s`: until the browser ends.
    /// Without it, no cookie is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Span>,
    /// Below which path the cookie is sent; `/` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}
