//! What the proxy notices about endpoints and tells whoever probes them.

use balance::EndpointKey;
use base::{ServiceId, TenantId};

/// How an endpoint failed a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The connection was refused.
    Refused,
    /// The connection broke before a response.
    Reset,
    /// No connection or no response in time.
    Timeout,
}

/// Seen on connections to endpoints. The queue holds 1024; when it is full
/// events are dropped and counted, since the prober finds out by itself a little later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProxyEvent {
    /// A request failed on the endpoint, which is of this site.
    EndpointFailed {
        /// The owner.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
        /// The endpoint.
        key: EndpointKey,
        /// How.
        kind: FailureKind,
    },
    /// The endpoint, of whatever site, answered badly as often in a row as its service bears.
    EndpointOutlier {
        /// The owner.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
        /// The endpoint.
        key: EndpointKey,
    },
    /// The endpoint closed an idle connection: it may have died, or just tidied up.
    EndpointSuspect {
        /// The owner.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
        /// The endpoint.
        key: EndpointKey,
    },
}
