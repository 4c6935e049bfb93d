//! LoadBalancer: where and how a Service is offered.

use std::net::IpAddr;

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Span, kinds::HostPattern};

/// Where and how Services are offered. Routes are those of the Gateway API's `HTTPRoute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerSpec {
    /// What users speak.
    #[serde(rename = "type", default)]
    pub kind: LbType,
    /// The names users ask for; each under a `publicHosts` entry of the tenant, each with one
    /// owner in the whole network.
    pub hosts: Vec<HostPattern>,
    /// The logical ports in plain text; 80 by default, none with `[]`.
    #[serde(default = "eighty")]
    pub ports: Vec<u16>,
    /// TLS, on ports of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<LoadBalancerTls>,
    /// Where it is offered.
    #[schemars(with = "Vec<AdvertiseFields>")]
    pub advertise: Vec<Advertise>,
    /// Where requests go; the most specific match wins, as the Gateway API says.
    pub routes: Vec<Route>,
}

fn eighty() -> Vec<u16> {
    vec![80]
}

/// What users speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LbType {
    /// HTTP/1.1 and HTTP/2.
    #[default]
    Http,
}

/// TLS termination at the ingress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerTls {
    /// The logical ports with TLS; 443 by default.
    #[serde(default = "https")]
    pub ports: Vec<u16>,
    /// Certificates of the same namespace; together they cover the hosts.
    #[schemars(with = "Vec<String>")]
    pub certificates: Vec<Name>,
}

fn https() -> Vec<u16> {
    vec![443]
}

/// One place where it is offered: `public`, `pops`, or `sites` with `vip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "AdvertiseFields")]
pub enum Advertise {
    /// At every PoP, to everybody.
    Public(Everywhere),
    /// At the named PoPs.
    Pops(Vec<Name>),
    /// At gateways of the tenant, on an address of their own, which the gateways' BGPPeers are
    /// told while there is a healthy endpoint.
    #[serde(untagged)]
    Sites(SiteVip),
}

/// One place where it is offered: `public`, `pops`, or `sites` with `vip`.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Advertise")]
struct AdvertiseFields {
    /// At every PoP, to everybody.
    public: Option<Everywhere>,
    /// At the named PoPs.
    #[schemars(with = "Option<Vec<String>>")]
    pops: Option<Vec<Name>>,
    /// At these gateways of the tenant, on `vip`.
    #[schemars(with = "Option<Vec<String>>")]
    sites: Option<Vec<Name>>,
    /// An address of their own, which the gateways' BGPPeers are told while there is a healthy
    /// endpoint. Each node of the gateways has it, for example on its loopback interface.
    vip: Option<IpAddr>,
}

impl TryFrom<AdvertiseFields> for Advertise {
    type Error = &'static str;

    fn try_from(fields: AdvertiseFields) -> Result<Self, Self::Error> {
        match (fields.public, fields.pops, fields.sites, fields.vip) {
            (Some(everywhere), None, None, None) => Ok(Advertise::Public(everywhere)),
            (None, Some(pops), None, None) => Ok(Advertise::Pops(pops)),
            (None, None, Some(sites), Some(vip)) => Ok(Advertise::Sites(SiteVip { sites, vip })),
            (None, None, Some(_), None) => Err("with `sites` goes `vip`, the address there"),
            _ => Err("one of `public: {}`, `pops: [NAME]`, or `sites: [NAME]` with `vip: ADDRESS`"),
        }
    }
}

/// An address at gateways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteVip {
    /// The gateways.
    pub sites: Vec<Name>,
    /// The virtual IP address. Each node of the gateways has it, for example on its loopback
    /// interface.
    pub vip: IpAddr,
}

/// No choice to make: written `{}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Everywhere {}

/// Requests that match go to the backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// For logs and `why`; `route-N` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub name: Option<Name>,
    /// Any one has to match; every request matches if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
    /// Services, by weight.
    pub backend_refs: Vec<BackendRef>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
}

/// Everything that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Headers, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderMatch>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
}

/// A path to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// What; begins with `/`.
    pub value: String,
}

/// How a path is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole segments from the start: `/a` matches `/a` and `/a/b`, not `/ab`.
    #[default]
    PathPrefix,
}

/// A header that has to have exactly this value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeaderMatch {
    /// Its name, in any case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "RFC 9110 §9 names them")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// The method as it stands in a request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Options => "OPTIONS",
            HttpMethod::Trace => "TRACE",
            HttpMethod::Patch => "PATCH",
        }
    }
}

/// A Service that gets a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// The Service.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its namespace; the LoadBalancer's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub namespace: Option<Name>,
    /// Its share, 0 to 65,535; 1 by default.
    #[serde(default = "one")]
    pub weight: u16,
}

fn one() -> u16 {
    1
}

/// How long things may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTimeouts {
    /// From the request's head to the response's head, all tries together; 30 s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
}
