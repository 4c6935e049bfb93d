//! The decision at an ingress.

use std::time::Duration;

use base::Rng;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use crate::{Action, Backend, Cluster, Fields, Route, Table, TrustId, VirtualHost};

/// What the decision looks at.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// The logical port of the listener.
    pub port: u16,
    /// Did TLS end here?
    pub tls: bool,
    /// The server name of the handshake, normalised by [`crate::host_of`].
    pub sni: Option<&'a str>,
    /// By which issuers the client was asked for a certificate in the handshake; `None`: it was
    /// not, or has shown none where one is required, or what it has shown holds no longer.
    pub trust: Option<&'a TrustId>,
    /// The method.
    pub method: &'a Method,
    /// The host, normalised by [`crate::host_of`].
    pub host: &'a str,
    /// The host as it was asked for, with a port.
    pub authority: &'a str,
    /// The path, normalised by [`crate::normal_path`], without the query.
    pub path: &'a str,
    /// What stands behind the `?`.
    pub query: Option<&'a str>,
    /// The headers.
    pub fields: &'a Fields,
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
    /// Octets of the path that the route's prefix has.
    pub matched: usize,
    /// To wait first, on purpose.
    pub delay: Option<Duration>,
}

/// Answer without asking anybody.
#[derive(Clone, Debug)]
pub struct Respond<'t> {
    /// The status.
    pub status: StatusCode,
    /// A stable word for machines.
    pub code: &'static str,
    /// Headers beside the framing.
    pub fields: Fields,
    /// What is said: a sentence for people that names nothing but the client's own, or what the
    /// owner of the host wants said.
    pub body: Bytes,
    /// Is this what the owner of the host wants, not a fault?
    pub wanted: bool,
    /// Whose host it was, if one was found.
    pub host: Option<&'t VirtualHost>,
    /// The route, if one matched.
    pub route: Option<&'t Route>,
    /// To wait first, on purpose.
    pub delay: Option<Duration>,
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Decision<'t> {
    /// Send it on.
    Forward(Forward<'t>),
    /// Answer it here.
    Respond(Respond<'t>),
}

/// Decide on one request. Deterministic but for the draws: among weighted backends, and of the
/// requests that are broken on purpose.
#[must_use]
pub fn decide<'t>(table: &'t Table, head: &RequestHead<'_>, rng: &mut Rng) -> Decision<'t> {
    let host = table.host(head.port, head.tls, head.host);
    if misdirected(table, head, host) {
        let reason = "this connection was opened for another host";
        let status = StatusCode::MISDIRECTED_REQUEST;
        return Decision::Respond(refusal(status, "misdirected", reason, None));
    }
    let Some(host) = host else {
        let refusal = refusal(StatusCode::NOT_FOUND, "no-such-host", "no such host", None);
        return Decision::Respond(refusal);
    };
    if unasked(head, host) {
        let reason = "this connection was opened without the client certificate of this host";
        let status = StatusCode::MISDIRECTED_REQUEST;
        // Its policies are not asked about a client that nobody knows.
        return Decision::Respond(refusal(status, "misdirected", reason, None));
    }
    let Some((route, matched)) = host.route(head) else {
        let reason = "no route of this host matches the request";
        let refusal = refusal(StatusCode::NOT_FOUND, "no-route", reason, Some(host));
        return Decision::Respond(refusal);
    };
    by_route(host, route, matched, head, rng)
}

fn by_route<'t>(
    host: &'t VirtualHost,
    route: &'t Route,
    matched: usize,
    head: &RequestHead<'_>,
    rng: &mut Rng,
) -> Decision<'t> {
    let filters = &route.filters;
    let delay = filters.delay.filter(|delay| delay.percent.is_drawn(rng));
    let delay = delay.map(|delay| delay.duration);
    let respond = |respond: Respond<'t>| {
        Decision::Respond(Respond {
            host: Some(host),
            route: Some(route),
            delay,
            ..respond
        })
    };
    if let Some(abort) = filters.abort.filter(|abort| abort.percent.is_drawn(rng)) {
        let reason = "the owner of this host breaks some requests on purpose";
        return respond(refusal(abort.status, "fault-injected", reason, None));
    }
    let cors = filters.cors.as_ref();
    if let Some(fields) = cors.and_then(|cors| cors.preflight(head.method, head.fields)) {
        let answer = answer(StatusCode::NO_CONTENT, "preflight", fields, Bytes::new());
        return respond(answer);
    }
    match &route.action {
        Action::Redirect(redirect) => {
            let location = HeaderValue::try_from(redirect.location(head, matched));
            let fields = location.map(|location| (header::LOCATION, location));
            let fields = fields.into_iter().collect();
            respond(answer(redirect.status, "redirect", fields, Bytes::new()))
        }
        Action::Respond(direct) => {
            let mut fields = Fields::default();
            if !direct.body.is_empty() {
                fields.append(&header::CONTENT_TYPE, &direct.content_type);
            }
            let body = direct.body.clone();
            respond(answer(direct.status, "direct-response", fields, body))
        }
        Action::Forward(backends) => match backend(backends, rng) {
            Some(cluster) => Decision::Forward(Forward {
                host,
                route,
                cluster,
                matched,
                delay,
            }),
            None => {
                let reason = "the route has no backend with a weight";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                respond(refusal(status, "no-backend", reason, None))
            }
        },
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

/// A host knows the clients of the connections that were opened for it, or for another that knows
/// them by the same issuers. In plain text there are none.
fn unasked(head: &RequestHead<'_>, host: &VirtualHost) -> bool {
    host.clients
        .as_ref()
        .is_some_and(|asked| head.trust != Some(&asked.trust) && (head.tls || asked.required))
}

/// What somebody is to know who asked for something that is not served.
fn refusal<'t>(
    status: StatusCode,
    code: &'static str,
    reason: &'static str,
    host: Option<&'t VirtualHost>,
) -> Respond<'t> {
    Respond {
        host,
        wanted: false,
        ..answer(
            status,
            code,
            Fields::default(),
            Bytes::from_static(reason.as_bytes()),
        )
    }
}

fn answer<'t>(status: StatusCode, code: &'static str, fields: Fields, body: Bytes) -> Respond<'t> {
    Respond {
        status,
        code,
        fields,
        body,
        wanted: true,
        host: None,
        route: None,
        delay: None,
    }
}

/// One of them, by weight.
pub(crate) fn backend<'t>(backends: &'t [Backend], rng: &mut Rng) -> Option<&'t Cluster> {
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
