//! LoadBalancer: where and how a Service is offered.

use std::net::IpAddr;

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClientCertificates, HostPattern, JwtProvider, RateLimit, Reference, Route};

/// Where and how Services are offered. Routes are those of the Gateway API's `HTTPRoute`; of other
/// types than `http` there is one, with `backendRefs` alone, as in its `TCPRoute` and `TLSRoute`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoadBalancerSpec {
    /// What users speak.
    #[serde(rename = "type", default)]
    pub kind: LbType,
    /// The names users ask for; each under a `publicHosts` entry of the tenant, each with one
    /// owner in the whole network. Type `tls`: server names. With types `tcp` and `udp` there
    /// are none; with type `connect` there may be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// The logical ports. Type `http`: those in plain text, 80 by default, none with `[]`. Type
    /// `tls`: 443 by default, shared with the TLS of type `http`. Types `tcp`, `udp` and `connect`: to be
    /// named, and its own in the whole network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<u16>>,
    /// TLS, on ports of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<LoadBalancerTls>,
    /// Where it is offered.
    #[schemars(with = "Vec<AdvertiseFields>")]
    pub advertise: Vec<Advertise>,
    /// Where requests go; the most specific match wins, as the Gateway API says.
    pub routes: Vec<Route>,
    /// ServicePolicies that a request has to pass, in this order; `NAME` or `NAMESPACE/NAME`, 16
    /// at most.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Reference>,
    /// Who issues tokens to its clients, 8 at most: their claims are what the `policies` above can
    /// go by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub jwt: Vec<JwtProvider>,
    /// How many requests it takes, before any policy is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

impl LoadBalancerSpec {
    /// The logical ports that are not TLS to be ended here; by default those of the type.
    #[must_use]
    pub fn ports(&self) -> &[u16] {
        match (&self.ports, self.kind) {
            (Some(ports), _) => ports,
            (None, LbType::Http) => &[80],
            (None, LbType::Tls) => &[443],
            (None, LbType::Tcp | LbType::Udp | LbType::Connect) => &[],
        }
    }

    /// The logical ports where TLS is ended here.
    #[must_use]
    pub fn tls_ports(&self) -> &[u16] {
        self.tls.as_ref().map_or(&[], |tls| &tls.ports)
    }

    /// Is HTTP/3 offered on those, too?
    #[must_use]
    pub fn http3(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.http3)
    }
}

/// What users speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LbType {
    /// HTTP/1.1 and HTTP/2, and HTTP/3 where `tls.http3` says so.
    #[default]
    Http,
    /// Octets that are carried as they are, a connection at a time.
    Tcp,
    /// TLS that is carried as it is, to whom its server name leads: nothing is decrypted here.
    Tls,
    /// Datagrams; those from one address of a client are a flow, until 30 s pass without one.
    Udp,
    /// CONNECT, over HTTP/1.1 and HTTP/2: clients ask for one of the route's Services by its
    /// application address `SERVICE.NAMESPACE.TENANT:PORT`, or by one of the hosts and its port.
    Connect,
}

impl LbType {
    /// The word for it in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            LbType::Http => "http",
            LbType::Tcp => "tcp",
            LbType::Tls => "tls",
            LbType::Udp => "udp",
            LbType::Connect => "connect",
        }
    }
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
    /// Offer HTTP/3, too, on the same ports of UDP: answers over HTTP/1.1 and HTTP/2 say so
    /// (`alt-svc`). Not by default: nothing else needs UDP to reach a PoP.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http3: bool,
    /// Clients are asked for certificates of their own. Then, but with `AllowInsecureFallback`,
    /// there are no ports in plain text: `ports: []`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<ClientCertificates>,
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
