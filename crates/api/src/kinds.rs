//! One file a kind: the spec as its users write it, and nothing else.

mod bgp_peer;
mod certificate;
mod load_balancer;
mod service;
mod site;
mod tenant;
mod token;

pub use bgp_peer::{BgpPeerAuth, BgpPeerBfd, BgpPeerSpec, PolicyStatement};
pub use certificate::{CertificateSource, CertificateSpec};
pub use load_balancer::{
    Advertise, BackendRef, Everywhere, HeaderMatch, HttpMethod, LbType, LoadBalancerSpec,
    LoadBalancerTls, PathMatch, PathMatchType, Route, RouteMatch, RouteTimeouts, SiteVip,
};
pub use service::{
    Balance, BalanceAlgorithm, HealthCheck, HttpCheck, Origin, ServiceProtocol, ServiceSpec,
};
pub use site::{AdvertisedAddress, Attach, NodeSpec, NodeTunnel, PublicAddresses, Role, SiteSpec};
pub use tenant::{HostPattern, NamespaceSpec, TenantSpec};
pub use token::TokenSpec;
