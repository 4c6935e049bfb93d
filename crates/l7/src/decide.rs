//! The decision at an ingress.

use base::Rng;
use http::{HeaderMap, Method, StatusCode};

use crate::{Backend, Cluster, Route, Table, VirtualHost};

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The logical port of the listener.
    pub port: u16,
    /// Did TLS end here?
    pub tls: bool,
    /// The server name of the handshake, normalised by [`crate::host_of`].
    pub sni: Option<&'a str>,
    /// The method.
    pub method: &'a Method,
    /// The host, normalised by [`crate::host_of`].
    pub host: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// Send the request on.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'t> {
    /// Whose host it is.
    pub host: &'t VirtualHost,
    /// The route that matched.
    pub route: &'t Route,
    /// The service it goes to.
    pub cluster: &'t Cluster,
}

/// Answer without asking anybody.
#[derive(Clone, Copy, Debug)]
pub struct Respond<'t> {
    /// The status.
    pub status: StatusCode,
    /// A stable word for machines.
    pub code: &'static str,
    /// A sentence for people; names nothing that is not the client's own.
    pub reason: &'static str,
    /// Whose host it was, if one was found.
    pub host: Option<&'t VirtualHost>,
}

/// What to do with a request.
#[derive(Clone, Copy, Debug)]
pub enum Decision<'t> {
    /// Send it on.
    Forward(Forward<'t>),
    /// Answer it here.
    Respond(Respond<'t>),
}

/// Decide on one request. Deterministic but for the draw among weighted backends.
#[must_use]
pub fn decide<'t>(table: &'t Table, head: &RequestHead<'_>, rng: &mut Rng) -> Decision<'t> {
    let host = table.host(head.port, head.tls, head.host);
    if misdirected(table, head, host) {
        return respond(
            StatusCode::MISDIRECTED_REQUEST,
            "misdirected",
            "this connection was opened for another host",
            None,
        );
    }
    let Some(host) = host else {
        return respond(StatusCode::NOT_FOUND, "no-such-host", "no such host", None);
    };
    let Some(route) = host.route(head) else {
        let reason = "no route of this host matches the request";
        return respond(StatusCode::NOT_FOUND, "no-route", reason, Some(host));
    };
    match backend(&route.backends, rng) {
        Some(cluster) => Decision::Forward(Forward {
            host,
            route,
            cluster,
        }),
        None => respond(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-backend",
            "the route has no backend with a weight",
            Some(host),
        ),
    }
}

/// One TLS connection serves hosts of one owner (RFC 9110 §15.5.20). Hosts of others and hosts
/// that nobody has look the same from here.
fn misdirected(table: &Table, head: &RequestHead<'_>, host: Option<&VirtualHost>) -> bool {
    let Some(sni) = head.sni.filter(|sni| *sni != head.host) else {
        return false;
    };
    table
        .host(head.port, head.tls, sni)
        .is_some_and(|owner| host.is_none_or(|host| host.tenant != owner.tenant))
}

fn respond<'t>(
    status: StatusCode,
    code: &'static str,
    reason: &'static str,
    host: Option<&'t VirtualHost>,
) -> Decision<'t> {
    Decision::Respond(Respond {
        status,
        code,
        reason,
        host,
    })
}

fn backend<'t>(backends: &'t [Backend], rng: &mut Rng) -> Option<&'t Cluster> {
    if let [only] = backends {
        return (only.weight > 0).then_some(&*only.cluster);
    }
    let total: u64 = backends.iter().map(|b| u64::from(b.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut point = rng.below(total);
    backends
        .iter()
        .find(|b| {
            let here = point < u64::from(b.weight);
            point = point.saturating_sub(u64::from(b.weight));
            here
        })
        .map(|b| &*b.cluster)
}

#[cfg(test)]
mod tests;
