//! What crosses a process border: the kinds users write, the REST contract around them, the
//! problem body of every error, and the messages of site-sync.
//!
//! What it is not: it decides nothing. Whether a set of resources makes sense together is
//! `plan::check`; what a node does with it is `plan::compile`.
//!
//! Main types: [`Object`] (the envelope), [`Kind`] and [`Spec`] (the closed set of kinds),
//! [`ObjectKey`] (where an object lives), [`Problem`] (RFC 9457), [`sync`] (bundle, delta, ack,
//! status). A manifest travels `text → manifest::parse → Object → JSON → controller → Object →
//! bundle → node`, and is strict at each door: an unknown field is an error with a JSON Pointer.
//!
//! ```
//! let text = "kind: Namespace\nmetadata: {tenant: acme, name: shop}\nspec: {}\n";
//! let objects = api::manifest::parse(text).expect("one document");
//! assert_eq!(objects[0].key().to_string(), "tenants/acme/namespaces/shop");
//! let bad = api::manifest::parse("kind: Namespace\nmetadata: {name: shop}\nspec: {color: 1}");
//! assert_eq!(bad.unwrap_err().problem.pointer.as_deref(), Some("/spec/color"));
//! ```

pub mod derived;
mod duration;
mod kinds;
pub mod manifest;
mod object;
pub mod openapi;
mod problem;
pub mod sync;
mod timestamp;

pub use duration::Span;
pub use kinds::{
    Advertise, AdvertisedAddress, Attach, AttachTransport, BackendRef, Balance, BalanceAlgorithm,
    BalanceScope, BgpPeerAuth, BgpPeerBfd, BgpPeerSpec, CertificatePresence, CertificateSource,
    CertificateSpec, Circuit, ClientCertificateMode, ClientCertificates, Cors, DirectResponse,
    Everything, Everywhere, Fault, FaultAbort, FaultDelay, Filter, HashCookie, HashOn,
    HeaderModifier, HealthCheck, HostPattern, HttpCheck, HttpHeader, HttpMethod, IdentityMatch,
    IdentityMatchType, IdentityName, Isolation, JwtPresence, JwtProvider, JwtSource,
    LabelExpression, LabelOperator, LabelSelector, LbType, LinkKind, LinkSpec, LoadBalancerSpec,
    LoadBalancerTls, LoadReports, Location, Mesh, MeshTopology, MirrorRef, NamespaceSpec, NodeSpec,
    NodeTunnel, Origin, Outlier, PathMatch, PathMatchType, PathModifier, PolicyAction,
    PolicyAlgorithm, PolicyClient, PolicyDeny, PolicyEffect, PolicyRequest, PolicyRule,
    PolicyServer, PolicyStatement, ProxyProtocol, ProxySenders, PublicAddresses, RateLimit,
    RateLimitKey, Reference, RemoteJwks, RequestMirror, RequestRedirect, Role, Route, RouteBuffer,
    RouteHedge, RouteMatch, RouteRetry, RouteTimeouts, Scheme, ServicePolicySpec, ServiceProtocol,
    ServiceSpec, SiteSpec, SiteVip, TenantSpec, TokenSpec, UplinkSpec, UrlRewrite, ValueMatch,
    ValueMatchType,
};
pub use object::{
    Condition, Kind, Metadata, Object, ObjectKey, Scope, SiteReport, Spec, Status, path_pointer,
};
pub use problem::Problem;
pub use timestamp::Timestamp;

/// The largest manifest document, request body or bundle resource, in bytes.
pub const MAX_OBJECT_BYTES: usize = 1 << 20;
