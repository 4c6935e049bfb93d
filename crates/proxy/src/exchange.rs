//! One request's life at an ingress: decide, forward or answer, record.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

use balance::{Endpoint, EndpointKey};
use base::{Instant, LbId, SiteName};
use http::{HeaderValue, Method, StatusCode};
use l7::{
    AccessRecord, Cluster, Decision, Fault, Fields, Identity, Known, RequestHead, Respond, Route,
    Shown, Side, TrustId, VirtualHost, decide, headers,
    headers::{SpanContext, SpanId, TraceId},
    host_of, normal_path,
};

use crate::{
    alarm::Alarm,
    answer::{Answer, answer},
    connect,
    downstream::{Client, ConnInfo, Request},
    forward::{Asked, forward},
    guard,
    http1::Framing,
    spans::Tries,
    traffic::{Passed, Whose},
    turns::NOBODY,
    worker::{Current, Worker},
};

/// What is told about a request when it is over.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) tries: u8,
    pub(crate) endpoint: Option<(EndpointKey, SiteName)>,
    pub(crate) error: Option<(&'static str, Fault)>,
    /// The rule that decided last.
    pub(crate) policy: Option<String>,
    /// What the first of the shadow policies would have decided.
    pub(crate) shadow: Option<String>,
    trace: TraceId,
    /// If a collector is told of them.
    told: Option<Box<Tries>>,
    /// What is said of HTTP/3 to whoever came otherwise.
    pub(crate) elsewhere: Option<HeaderValue>,
    /// When all of the answer was handed over, if it was.
    pub(crate) over: Option<Instant>,
}

impl Story {
    /// One more try, on this endpoint; its span, if a collector is told of it.
    pub(crate) fn begin_try(
        &mut self,
        worker: &Worker,
        now: Instant,
        endpoint: &Endpoint,
    ) -> Option<SpanId> {
        self.tries = self.tries.saturating_add(1);
        let rng = &mut worker.rng.borrow_mut();
        let told = self.told.as_mut()?;
        told.begin(now, endpoint.key, &endpoint.site, rng)
    }

    /// A try on this endpoint is over.
    pub(crate) fn end_try(
        &mut self,
        endpoint: EndpointKey,
        end: impl FnOnce() -> Result<u16, &'static str>,
    ) {
        if let Some(told) = &mut self.told {
            told.end(endpoint, end());
        }
    }
}

/// A future in memory of its own, made where it stays: made first and then moved, the thousands of
/// octets that a request's life takes would be copied, most of them before they mean anything. (For
/// that `make` has to be a block, which begins with no more than what it takes along; a call is made
/// elsewhere.)
pub(crate) fn boxed<F: Future>(make: impl FnOnce() -> F) -> Pin<Box<F>> {
    let place = Box::new_uninit();
    Box::into_pin(Box::write(place, make()))
}

/// Serve one request of a client, whatever happens, and record it.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    info: &ConnInfo,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    mut request: Request,
) {
    worker.metrics.requests.inc();
    let _running = info.seat.as_ref().map(|seat| seat.run());
    if let Some(lb) = info.connect {
        return Box::pin(connect::serve(worker, info, lb, client, alarm, &request)).await;
    }
    let (started, time) = (runtime::now(), runtime::wall());
    let snapshot = worker.snapshot();
    let target = std::mem::take(&mut request.target);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (&*target, None),
    };
    let path = normal_path(path);
    let standing = info.standing(&snapshot, time);
    let trust = standing.as_ref().and_then(|standing| standing.trust());
    let identity = standing.as_ref().and_then(|s| s.identity.as_ref());
    let decision = decided(
        worker,
        &snapshot,
        (info, trust),
        &request,
        path.as_deref(),
        query,
    );
    let mut story = Story::default();
    let whose = decision.as_ref().ok().and_then(host);
    let tenant = whose.map_or(NOBODY, |host| host.tenant);
    worker.turns.serve(tenant).await;
    let crowded = crowded(worker, info, client, whose);
    let upgrade = upgrade_of(&request);
    story.elsewhere = elsewhere(info, &request, decision.as_ref().ok());
    let front = decision.as_ref().ok().and_then(|decision| {
        let host = host(decision).filter(|host| crowded.is_none() && !host.guard.is_open())?;
        let asked = guard::Asked {
            lb: &host.lb_name,
            client: Some(info.peer.ip()),
            identity: Shown::here(identity),
            method: &request.method,
            authority: &request.authority,
            path: path.as_deref().unwrap_or_default(),
            query,
            fields: &request.fields,
            now: time,
        };
        Some(guard::front(worker, host, decision, &asked, &mut story))
    });
    let guard::Front {
        reply,
        hide,
        claims,
    } = front.unwrap_or_default();
    // Boxed, so that the futures of those that pass stay small.
    let refused = crowded.or(reply).map(Box::new);
    let mut sent = fields_to_send(&mut request, upgrade.as_ref());
    if let Some(name) = hide {
        sent.remove(&name);
    }
    let context = trace(worker, &mut sent, started, &mut story);
    match (&decision, refused) {
        (_, Some(reply)) => {
            Box::pin(answer(client, &request.method, *reply, &mut story)).await;
        }
        (Ok(Decision::Forward(to)), None) => {
            let asked = Asked {
                info,
                request: &request,
                path: path.as_deref().unwrap_or_default(),
                query,
                standing: standing.as_ref(),
                upgrade,
                claims,
                time,
            };
            if wait(client, alarm, to.delay, &mut story).await {
                forward(worker, client, alarm, &asked, sent, *to, &mut story).await;
            }
        }
        (Ok(Decision::Respond(respond)), None) => {
            let reply = Answer::from(respond);
            if wait(client, alarm, respond.delay, &mut story).await {
                Box::pin(answer(client, &request.method, reply, &mut story)).await;
            }
        }
        (Err(refused), None) => {
            let reply = refused.answer();
            Box::pin(answer(client, &request.method, reply, &mut story)).await;
        }
    }
    let duration = story.over.unwrap_or_else(runtime::now).since(started);
    let told = Told {
        decision: decision.as_ref().ok(),
        info,
        identity,
        request: &request,
        target: &target,
        story: &story,
    };
    told.count(worker, duration);
    let record = told.record(time, duration);
    if let Some(records) = &worker.records {
        records.add(&record);
    }
    if let (Some(spans), Some(context)) = (&worker.spans, context) {
        let batches = &spans.batches;
        batches.add(|out| record.span(&context, Side::Ingress, duration, out));
        let tries = story.told.iter().flat_map(|tries| tries.told(duration));
        tries.for_each(|tried| batches.add(|out| record.attempt_span(&context, &tried, out)));
    }
}

/// Where the request stands in its trace, if that is to be told.
fn trace(
    worker: &Worker,
    sent: &mut Fields,
    started: Instant,
    story: &mut Story,
) -> Option<SpanContext> {
    let rng = &mut worker.rng.borrow_mut();
    let Some(spans) = &worker.spans else {
        story.trace = headers::trace(sent, rng);
        return None;
    };
    let context = headers::span(sent, rng, spans.ratio);
    story.trace = context.trace;
    let sampled = context.sampled;
    story.told = sampled.then(|| Box::new(Tries::new(started)));
    sampled.then_some(context)
}

/// What is answered if the connection is one more than its tenant may have.
fn crowded(
    worker: &Worker,
    info: &ConnInfo,
    client: &mut Client<'_>,
    host: Option<&VirtualHost>,
) -> Option<Answer> {
    let (host, seat) = (host?, info.seat.as_ref()?);
    if worker.claim(seat, host.tenant, &host.tenant_name) {
        return None;
    }
    worker.metrics.connections_refused.inc();
    client.last();
    seat.leave();
    let status = StatusCode::SERVICE_UNAVAILABLE;
    let reason = "too many connections are open here; try again";
    Some(Answer::refusal(status, "too-many", reason, Fault::Us))
}

/// What is refused before anybody's routes are looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Refused {
    Connect,
    Host,
    Path,
}

impl Refused {
    pub(crate) fn answer(self) -> Answer {
        let (status, code, reason) = match self {
            Refused::Connect => (
                StatusCode::METHOD_NOT_ALLOWED,
                "connect-refused",
                "CONNECT is not served here",
            ),
            Refused::Host => (StatusCode::BAD_REQUEST, "bad-host", "the host is malformed"),
            Refused::Path => (StatusCode::BAD_REQUEST, "bad-path", "the path is malformed"),
        };
        Answer::refusal(status, code, reason, Fault::Client)
    }
}

/// For whom a request is, if it is for anybody who may be asked.
pub(crate) fn host_asked(request: &Request) -> Result<Cow<'_, str>, Refused> {
    if request.method == Method::CONNECT {
        return Err(Refused::Connect);
    }
    host_of(&request.authority).ok_or(Refused::Host)
}

fn decided<'t>(
    worker: &Worker,
    snapshot: &'t Current,
    (info, trust): (&ConnInfo, Option<&TrustId>),
    request: &Request,
    path: Option<&str>,
    query: Option<&str>,
) -> Result<Decision<'t>, Refused> {
    let host = host_asked(request)?;
    let head = RequestHead {
        port: info.port,
        tls: info.tls,
        sni: info.sni.as_deref(),
        trust,
        method: &request.method,
        host: &host,
        authority: &request.authority,
        path: path.ok_or(Refused::Path)?,
        query,
        fields: &request.fields,
    };
    Ok(decide(&snapshot.table, &head, &mut worker.rng.borrow_mut()))
}

/// Wait on purpose, if at all; false if the client did not.
async fn wait(
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    delay: Option<Duration>,
    story: &mut Story,
) -> bool {
    let Some(delay) = delay else {
        return true;
    };
    alarm.set(delay);
    let stayed = poll_fn(|cx| {
        if client.poll_gone(cx).is_ready() {
            return Poll::Ready(false);
        }
        alarm.poll(cx).map(|()| true)
    });
    let stayed = stayed.await;
    if !stayed {
        story.error = Some(("client-gone", Fault::Client));
        client.abort();
    }
    stayed
}

/// Whose host it is.
fn host<'t>(decision: &Decision<'t>) -> Option<&'t VirtualHost> {
    match decision {
        Decision::Forward(to) => Some(to.host),
        Decision::Respond(respond) => respond.host,
    }
}

/// Where else the host is served (RFC 7838 §3), for clients that came over another version.
fn elsewhere(
    info: &ConnInfo,
    request: &Request,
    decision: Option<&Decision<'_>>,
) -> Option<HeaderValue> {
    const USUAL: HeaderValue = HeaderValue::from_static("h3=\":443\"; ma=86400");
    let offered = info.tls && decision.and_then(host).is_some_and(|host| host.http3);
    if !offered || request.protocol.starts_with("h3") {
        return None;
    }
    match info.port {
        443 => Some(USUAL),
        port => HeaderValue::try_from(format!("h3=\":{port}\"; ma=86400")).ok(),
    }
}

/// All that a record is made of.
struct Told<'a> {
    decision: Option<&'a Decision<'a>>,
    info: &'a ConnInfo,
    identity: Option<&'a Identity>,
    request: &'a Request,
    target: &'a str,
    story: &'a Story,
}

impl Told<'_> {
    fn route(&self) -> (Option<&Route>, Option<&Cluster>) {
        match self.decision {
            Some(Decision::Forward(to)) => (Some(to.route), Some(to.cluster)),
            Some(Decision::Respond(Respond { route, .. })) => (*route, None),
            None => (None, None),
        }
    }

    fn count(&self, worker: &Worker, took: Duration) {
        let (host, (_, service)) = (self.decision.and_then(host), self.route());
        let whose = Whose {
            tenant: host.map_or(NOBODY, |h| h.tenant),
            lb: host.map_or(LbId(0), |h| h.lb),
            service: service.map(|cluster| cluster.id),
        };
        let story = self.story;
        let passed = Passed {
            status: story.status,
            tries: story.tries,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            took,
        };
        worker.traffic.count(whose, &passed, || {
            let service = service.map(|cluster| cluster.service.to_string());
            host.map_or(("", "", String::new()), |h| {
                (&*h.tenant_name, &*h.lb_name, service.unwrap_or_default())
            })
        });
    }

    fn record(&self, time: base::WallTime, duration: Duration) -> AccessRecord<'_> {
        let host = self.decision.and_then(host);
        let (route, service) = self.route();
        let (request, story) = (self.request, self.story);
        AccessRecord {
            time,
            trace: story.trace,
            tenant: host.map_or("", |h| &h.tenant_name),
            lb: host.map_or("", |h| &h.lb_name),
            route: route.map_or("", |r| &r.name),
            service: service.map(|cluster| &cluster.service),
            endpoint: story
                .endpoint
                .as_ref()
                .map(|(key, site)| (key.address, site)),
            peer: self.info.peer,
            method: request.method.as_str(),
            path: self.target,
            host: &request.authority,
            protocol: request.protocol,
            status: story.status,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
            tries: story.tries,
            error: story.error,
            policy: story.policy.as_deref(),
            shadow: story.shadow.as_deref(),
            identity: self.identity.map(Identity::principal),
        }
    }
}

/// The token of the upgrade that a request asks for (RFC 9110 §7.8). HTTP/2 in plain text is an
/// offer that may be ignored, and is: whoever took it would be asked past us.
pub(crate) fn upgrade_of(request: &Request) -> Option<HeaderValue> {
    let token = request.fields.first(Known::Upgrade)?;
    let mut options = headers::options(&request.fields);
    let ours = options.any(|option| option.eq_ignore_ascii_case(b"upgrade"))
        && request.method == Method::GET
        && request.framing == Framing::None
        && !token.split(|octet| *octet == b',').any(is_http2);
    HeaderValue::from_bytes(token).ok().filter(|_| ours)
}

/// The fields of a request, for what is sent on. Those of an upgrade also stay as they came: what
/// becomes of it may be judged again.
pub(crate) fn fields_to_send(request: &mut Request, upgrade: Option<&HeaderValue>) -> Fields {
    match upgrade {
        Some(_) => request.fields.clone(),
        None => std::mem::take(&mut request.fields),
    }
}

fn is_http2(token: &[u8]) -> bool {
    let token = token.trim_ascii();
    [&b"h2c"[..], b"h2"]
        .iter()
        .any(|name| token.eq_ignore_ascii_case(name))
}
