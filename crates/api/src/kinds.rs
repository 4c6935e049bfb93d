//! One file a kind: the spec as its users write it, and nothing else.

mod bgp_peer;
mod certificate;
mod client_certificates;
mod filter;
mod jwt;
mod link;
mod load_balancer;
mod route;
mod selector;
mod service;
mod service_policy;
mod site;
mod tenant;
mod token;

pub use bgp_peer::{BgpPeerAuth, BgpPeerBfd, BgpPeerSpec, PolicyStatement};
pub use certificate::{CertificateSource, CertificateSpec};
pub use client_certificates::{
    CertificatePresence, ClientCertificateMode, ClientCertificates, IdentityMatch,
    IdentityMatchType, IdentityName,
};
pub use filter::{
    Cors, DirectResponse, Fault, FaultAbort, FaultDelay, Filter, HeaderModifier, HttpHeader,
    MirrorRef, PathModifier, RequestMirror, RequestRedirect, Scheme, UrlRewrite,
};
pub use jwt::{JwtPresence, JwtProvider, JwtSource, RemoteJwks};
pub use link::{LinkKind, LinkSpec};
pub use load_balancer::{
    Advertise, Everywhere, LbType, LoadBalancerSpec, LoadBalancerTls, SiteVip,
};
pub use route::{
    BackendRef, HttpMethod, PathMatch, PathMatchType, Route, RouteBuffer, RouteHedge, RouteMatch,
    RouteRetry, RouteTimeouts, ValueMatch, ValueMatchType,
};
pub use selector::{LabelExpression, LabelOperator, LabelSelector};
pub use service::{
    Balance, BalanceAlgorithm, BalanceScope, Circuit, Everything, HashCookie, HashOn, HealthCheck,
    HttpCheck, LoadReports, Origin, Outlier, ProxyProtocol, ServiceProtocol, ServiceSpec,
};
pub use service_policy::{
    PolicyAction, PolicyAlgorithm, PolicyClient, PolicyDeny, PolicyEffect, PolicyRequest,
    PolicyRule, PolicyServer, RateLimit, RateLimitKey, Reference, ServicePolicySpec,
};
pub use site::{
    AdvertisedAddress, Attach, AttachTransport, Location, Mesh, MeshTopology, NodeSpec, NodeTunnel,
    ProxySenders, PublicAddresses, Role, SiteSpec, UplinkSpec,
};
pub use tenant::{HostPattern, Isolation, NamespaceSpec, TenantSpec};
pub use token::TokenSpec;
