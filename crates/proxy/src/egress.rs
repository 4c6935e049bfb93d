//! The other end of a tunnel stream: the second look, then the endpoint.

use std::{io, rc::Rc};

use balance::InFlight;
use base::{LbId, SiteName, WallTime};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use l7::{
    AccessRecord, Admitted, Fault, Fields, Known, Limits, Protocol, Refusal, Side, StreamClaim,
    admit,
    headers::{self, SpanContext},
    published,
};
use tokio::time::timeout;

use crate::{
    alarm::Alarm,
    answer::{Answer, answer},
    attempt::{Again, ERROR, Failure, Kind, Order, Place, Stop, attempt},
    downstream::{Client, ClientError, Origin, Request, h1},
    exchange::{Story, fields_to_send, host_asked, upgrade_of},
    forward::{clean, deliver, switch},
    guard::{self, Denial},
    http1::Wire,
    io::Io,
    layer4,
    relay::Upload,
    transit, udp,
    upstream::{
        PoolKey,
        connect::{Ask, Incoming, Passage, StreamRequest},
        tunnels::Unsealed,
    },
    worker::Worker,
};

/// Sealed streams of one tenant that one PoP passed on, of which one worker does not know yet for
/// what they are.
const UNSEALING: usize = 128;

/// Look at a stream before anything of it is read; serve it if it may be.
pub(crate) async fn accept(worker: Rc<Worker>, incoming: Box<dyn Incoming>) {
    match incoming.ask() {
        Some(Ask::Endpoint(request)) => serve_stream(worker, incoming, request).await,
        Some(Ask::Sealed(passage)) if passage.via.is_empty() => {
            // Who has a link says on it what he wants: a handshake more is work for nothing.
            if passage.origin.is_none() || !incoming.peer().is_pop() {
                let (peer, refusal) = (incoming.peer(), Refusal::BadSeal);
                count(&worker, peer, passage.tenant.as_str(), refusal);
                return incoming.refuse(refusal.status(), refusal.code());
            }
            Box::pin(unseal(worker, incoming, passage)).await;
        }
        Some(Ask::Sealed(passage)) => Box::pin(transit::carry(&worker, incoming, passage)).await,
        None => misread(&worker, incoming),
    }
}

fn misread(worker: &Worker, incoming: Box<dyn Incoming>) {
    worker.metrics.streams_refused.inc();
    incoming.refuse(StatusCode::BAD_REQUEST, "bad-head");
}

/// A stream that others have passed on: who asks and for what is said inside, and what they said of
/// it does not count.
async fn unseal(worker: Rc<Worker>, incoming: Box<dyn Incoming>, passage: Passage) {
    let peer = incoming.peer().clone();
    let unsealed = {
        let whose = (peer.clone(), passage.tenant.clone());
        let Some(_seat) = worker.unsealing.take(whose, UNSEALING) else {
            let full = Failure::unsent(Kind::Full);
            return incoming.refuse(full.status(), full.kind.code());
        };
        // Whoever began it waits no longer.
        let patience = worker.snapshot().limits.connect_timeout;
        timeout(patience, Unsealed::take(&worker, incoming)).await
    };
    let unsealed = match unsealed.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(unsealed) => Box::new(unsealed),
        Err(error) => {
            worker.metrics.streams_refused.inc();
            worker.refusals.count(&peer, Refusal::BadSeal);
            let (tenant, error) = (passage.tenant, base::Chain(&error));
            tracing::debug!(%peer, %tenant, %error, "a sealed stream was not opened");
            return;
        }
    };
    worker.metrics.unsealed.inc();
    match unsealed.ask() {
        Some(Ask::Endpoint(request)) => serve_stream(worker, unsealed, request).await,
        Some(Ask::Sealed(_)) | None => misread(&worker, unsealed),
    }
}

async fn serve_stream(worker: Rc<Worker>, incoming: Box<dyn Incoming>, request: StreamRequest) {
    let snapshot = worker.snapshot();
    let peer = incoming.peer().clone();
    let admitted = match admit(&snapshot.egress, &peer, &claim(&request)) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            count(&worker, &peer, &request.authority, refusal);
            incoming.refuse(refusal.status(), refusal.code());
            return;
        }
    };
    worker.metrics.streams.inc();
    worker.turns.serve(admitted.cluster.tenant).await;
    match admitted.cluster.protocol {
        Protocol::Http1 | Protocol::Http2 => {}
        Protocol::Tcp => {
            drop(snapshot);
            return Box::pin(layer4::leave(&worker, incoming, &request, admitted)).await;
        }
        Protocol::Udp => {
            drop(snapshot);
            return Box::pin(udp::leave(&worker, incoming, &request, admitted)).await;
        }
    }
    let accepting = timeout(snapshot.limits.handshake_timeout, incoming.accept());
    drop(snapshot);
    if let Ok(Ok(stream)) = accepting.await {
        let wire = Wire::new(Io::Other(stream));
        h1::serve(worker, wire, Origin::Site { peer, request }).await;
    }
}

fn claim(request: &StreamRequest) -> StreamClaim<'_> {
    StreamClaim {
        authority: &request.authority,
        endpoint: request.endpoint,
        lb: &request.lb,
    }
}

/// May what is carried on an admitted stream, unread or handed over, go on? Its endpoint need not be known any more.
pub(crate) fn goes_on(worker: &Worker, peer: &SiteName, request: &StreamRequest) -> bool {
    published(&worker.snapshot().egress, peer, &claim(request)).is_ok()
}

/// Why a request that has opened a connection would not be let through now, if so.
fn denied(worker: &Worker, leaving: Leaving<'_>) -> Option<Denial> {
    let (snapshot, request) = (worker.snapshot(), leaving.request);
    // What is not offered is withdrawn.
    let cluster = published(&snapshot.egress, leaving.peer, &claim(request)).ok()?;
    guard::denied_outside(cluster, &request.lb, leaving.message)
}

pub(crate) fn count(worker: &Worker, peer: &SiteName, service: &str, refusal: Refusal) {
    worker.metrics.streams_refused.inc();
    worker.refusals.count(peer, refusal);
    tracing::debug!(%peer, service, error = %refusal, "stream refused");
}

/// Serve one request on an admitted stream. It is admitted anew each time: a pooled stream must
/// not outlive what allowed it.
pub(crate) async fn serve(
    worker: &Rc<Worker>,
    peer: &SiteName,
    request: &StreamRequest,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    mut message: Request,
) {
    let snapshot = worker.snapshot();
    let mut story = Story::default();
    let admitted = match admit(&snapshot.egress, peer, &claim(request)) {
        Ok(admitted) => admitted,
        Err(refusal) => {
            count(worker, peer, &request.authority, refusal);
            let failure = Failure {
                kind: Kind::Denied,
                again: Again::Any,
            };
            fail(client, &message, failure, &mut story).await;
            return;
        }
    };
    worker.turns.serve(admitted.cluster.tenant).await;
    if let Err(refused) = host_asked(&message) {
        answer(client, &message.method, refused.answer(), &mut story).await;
        return;
    }
    if !admitted.cluster.guard.is_open()
        && let Err(reply) = guard::egress(worker, &admitted, &request.lb, &mut message)
    {
        return answer(client, &message.method, reply, &mut story).await;
    }
    let limits = &snapshot.limits;
    let upgrade = upgrade_of(&message);
    let mut sent = fields_to_send(&mut message, upgrade.as_ref());
    // A trace begins where a request comes in: here none is drawn.
    let spans = worker.spans.as_ref();
    let context = spans.map(|_| headers::span(&mut sent, &mut worker.rng.borrow_mut(), 0));
    let context = context.filter(|context| context.sampled);
    let begun = context.map(|context| (context, runtime::wall(), runtime::now()));
    headers::onward(&mut sent, upgrade.as_ref());
    // RFC 9112 §3.2.2: the host of an absolute target counts.
    if sent.first(Known::Host) != Some(message.authority.as_bytes())
        && let Ok(host) = HeaderValue::from_str(&message.authority)
    {
        sent.insert(&header::HOST, &host);
    }
    let leaving = Leaving {
        peer,
        request,
        message: &message,
        sent: &sent,
        upgrades: upgrade.is_some(),
        admitted: &admitted,
        limits,
    };
    leave(worker, leaving, client, alarm, &mut story).await;
    if let (Some((context, time, started)), Some(spans)) = (begun, &worker.spans) {
        let took = runtime::now().since(started);
        let record = record(&leaving, &context, time, &story);
        let write = |out: &mut Vec<u8>| record.span(&context, Side::Egress, took, out);
        spans.batches.add(write);
    }
}

/// A request on its last leg.
#[derive(Clone, Copy)]
struct Leaving<'a> {
    peer: &'a SiteName,
    request: &'a StreamRequest,
    message: &'a Request,
    sent: &'a Fields,
    upgrades: bool,
    admitted: &'a Admitted,
    limits: &'a Limits,
}

/// What a span is made of.
fn record<'a>(
    leaving: &Leaving<'a>,
    context: &SpanContext,
    time: WallTime,
    story: &'a Story,
) -> AccessRecord<'a> {
    let Leaving {
        request, message, ..
    } = leaving;
    let service = &leaving.admitted.cluster.service;
    AccessRecord {
        time,
        trace: context.trace,
        tenant: service.tenant.as_str(),
        lb: &request.lb,
        route: "",
        service: Some(service),
        endpoint: None,
        // Where the request is sent on to.
        peer: leaving.admitted.endpoint.address,
        method: message.method.as_str(),
        path: &message.target,
        host: &message.authority,
        protocol: message.protocol,
        status: story.status,
        bytes_in: story.bytes_in,
        bytes_out: story.bytes_out,
        duration_us: 0,
        tries: 1,
        error: story.error,
        policy: None,
        shadow: None,
        identity: None,
    }
}

async fn leave(
    worker: &Rc<Worker>,
    leaving: Leaving<'_>,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    story: &mut Story,
) {
    let Leaving {
        request,
        message,
        sent,
        upgrades,
        admitted,
        limits,
        ..
    } = leaving;
    let order = Order {
        method: &message.method,
        target: &message.target,
        fields: sent,
        framing: message.framing,
        upgrades,
        limits,
        client: None,
        patience: Some(limits.request_timeout),
    };
    let key = PoolKey {
        tenant: admitted.cluster.tenant,
        service: admitted.cluster.id,
        endpoint: admitted.endpoint,
        lb: LbId(0),
    };
    let place = Place {
        key,
        cell: None,
        cluster: &admitted.cluster,
        stats: &admitted.stats,
        client: request.client,
        span: None,
        remote: None,
    };
    let cluster = &admitted.cluster;
    if !cluster.circuit.takes_request(&cluster.cell.load()) {
        fail(client, message, Failure::unsent(Kind::Full), story).await;
        return;
    }
    let in_flight = InFlight::start(&admitted.stats);
    let mut upload = Upload::new(message.framing, limits.body_bytes);
    alarm.set(limits.request_timeout);
    match attempt(worker, &place, &order, client, &mut upload, alarm).await {
        Ok((up, mut head)) => {
            let upload = &mut upload;
            if let Some(token) = clean(&mut head, order.upgrades) {
                headers::upgrade(&mut head.fields, &token);
                let (peer, drain) = (leaving.peer, limits.drain_timeout);
                let offered = || goes_on(worker, peer, request);
                let denied = || denied(worker, leaving);
                let ending = worker.offers.ending(drain, offered, denied);
                let handed = switch(client, alarm, up, (head, &token), limits, ending, story);
                Box::pin(handed).await;
            } else {
                deliver(worker, client, alarm, up, key, head, upload, limits, story).await;
            }
        }
        Err(Stop::Failure(failure)) => {
            in_flight.stats().failed();
            worker.metrics.failures.inc();
            fail(client, message, failure, story).await;
        }
        Err(Stop::Deadline) => {
            let failure = Failure {
                kind: Kind::Timeout,
                again: Again::Never,
            };
            in_flight.stats().failed();
            fail(client, message, failure, story).await;
        }
        Err(Stop::Client(ClientError::Gone(_))) => client.abort(),
        Err(Stop::Client(ClientError::Body(_) | ClientError::TooLarge)) => {
            let failure = Failure {
                kind: Kind::Protocol,
                again: Again::Never,
            };
            fail(client, message, failure, story).await;
        }
    }
}

/// Tell the ingress what happened, in a header it keeps to itself.
async fn fail(client: &mut Client<'_>, message: &Request, failure: Failure, story: &mut Story) {
    let error = HeaderValue::try_from(failure.to_header());
    let reply = Answer {
        status: failure.status(),
        fields: error.into_iter().map(|error| (ERROR, error)).collect(),
        body: Bytes::new(),
        error: Some((failure.kind.code(), Fault::Upstream)),
    };
    answer(client, &message.method, reply, story).await;
}
