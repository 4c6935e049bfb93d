//! One request's life at an ingress: decide, pick, try, respond, record.

use std::{future::poll_fn, pin::pin, time::Duration};

use balance::{EndpointKey, EndpointSet, InFlight, pick};
use base::SiteName;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use l7::{AccessRecord, Decision, Fault, Forward, Limits, RequestHead, decide, headers, host_of};
use tokio::time::{sleep, timeout};

use crate::{
    attempt::{Again, Failure, Kind, Order, Place, Stop, attempt},
    downstream::{Client, ClientError, ConnInfo, Request},
    http1::{Framing, ResponseHead},
    relay::{RelayError, Upload, respond},
    upstream::{PoolKey, UpConn, connect::StreamRequest},
    worker::Worker,
};

/// How long a client may take to take an answer of ours, which is one short line.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it may take to take what is left of a broken response.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// What is told about a request when it is over.
#[derive(Debug, Default)]
pub(crate) struct Story {
    pub(crate) status: u16,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) tries: u8,
    pub(crate) endpoint: Option<(EndpointKey, SiteName)>,
    pub(crate) error: Option<(&'static str, Fault)>,
    trace: String,
}

/// An answer of our own.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) code: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) fault: Fault,
}

impl Answer {
    const fn new(
        status: StatusCode,
        code: &'static str,
        reason: &'static str,
        fault: Fault,
    ) -> Self {
        Answer {
            status,
            code,
            reason,
            fault,
        }
    }
}

/// Serve one request of a client, whatever happens, and record it.
pub(crate) async fn serve(
    worker: &Worker,
    info: &ConnInfo,
    client: &mut Client<'_>,
    request: Request,
) {
    worker.metrics.requests.inc();
    let (started, time) = (runtime::now(), runtime::wall());
    let snapshot = worker.snapshot();
    let host = host_of(&request.authority).map(|host| host.into_owned());
    let path = request
        .target
        .split_once('?')
        .map_or(&*request.target, |(p, _)| p);
    let decision = match (refused(&request), host.as_deref()) {
        (Some(answer), _) => Err((answer, None)),
        (None, None) => Err((
            Answer::new(
                StatusCode::BAD_REQUEST,
                "bad-host",
                "the host is malformed",
                Fault::Client,
            ),
            None,
        )),
        (None, Some(host)) => {
            let head = RequestHead {
                port: info.port,
                tls: info.tls,
                sni: info.sni.as_deref(),
                method: &request.method,
                host,
                path,
                headers: &request.headers,
            };
            match decide(&snapshot.table, &head, &mut worker.rng.borrow_mut()) {
                Decision::Forward(forward) => Ok(forward),
                Decision::Respond(r) => {
                    let fault = match r.status {
                        StatusCode::SERVICE_UNAVAILABLE => Fault::Us,
                        _ => Fault::Client,
                    };
                    Err((Answer::new(r.status, r.code, r.reason, fault), r.host))
                }
            }
        }
    };
    let mut story = Story::default();
    let mut sent = request.headers.clone();
    story.trace = headers::trace(&mut sent, &mut worker.rng.borrow_mut());
    let (virtual_host, route) = match &decision {
        Ok(forward) => (Some(forward.host), Some(forward.route)),
        Err((_, host)) => (*host, None),
    };
    match &decision {
        Ok(f) => forward(worker, info, client, &request, sent, *f, &mut story).await,
        Err((reply, _)) => answer(client, &request.method, reply, None, &mut story).await,
    }
    if let Some(log) = &worker.log {
        let service = match &decision {
            Ok(f) => f.cluster.service.to_string(),
            Err(_) => String::new(),
        };
        let (endpoint, site) = match &story.endpoint {
            Some((key, site)) => (key.address.to_string(), site.to_string()),
            None => <(String, String)>::default(),
        };
        let record = AccessRecord {
            time,
            trace: &story.trace,
            tenant: virtual_host.map_or("", |h| &h.tenant_name),
            lb: virtual_host.map_or("", |h| &h.lb_name),
            route: route.map_or("", |r| &r.name),
            service: &service,
            endpoint: &endpoint,
            site: &site,
            peer: &info.peer.to_string(),
            method: request.method.as_str(),
            path: &request.target,
            host: &request.authority,
            protocol: request.protocol,
            status: story.status,
            bytes_in: story.bytes_in,
            bytes_out: story.bytes_out,
            duration_us: micros(runtime::now().since(started)),
            tries: story.tries,
            error: story.error.map(|(code, _)| code),
            fault: story.error.map(|(_, fault)| fault),
        };
        if !log.record(&record) {
            worker.metrics.records_dropped.inc();
        }
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

/// What a reverse proxy does not do.
fn refused(request: &Request) -> Option<Answer> {
    if request.method == Method::CONNECT {
        return Some(Answer::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "connect-refused",
            "CONNECT is not served here",
            Fault::Client,
        ));
    }
    // HTTP/2 clear-text upgrades are offers that may be ignored (RFC 9110 §7.8).
    let upgrade = request.headers.get(header::UPGRADE)?;
    (!upgrade.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| {
        Answer::new(
            StatusCode::NOT_IMPLEMENTED,
            "upgrade-refused",
            "protocol upgrades, websocket among them, are not served yet",
            Fault::Client,
        )
    })
}

async fn forward(
    worker: &Worker,
    info: &ConnInfo,
    client: &mut Client<'_>,
    request: &Request,
    mut sent: HeaderMap,
    to: Forward<'_>,
    story: &mut Story,
) {
    let limits = &to.host.limits;
    headers::strip_hop_by_hop(&mut sent);
    headers::strip_internal(&mut sent);
    sent.remove(header::EXPECT);
    headers::forwarded(&mut sent, info.peer.ip(), info.tls);
    if let Ok(host) = HeaderValue::from_str(&request.authority) {
        sent.insert(header::HOST, host);
    }
    let patience = to.route.timeouts.request;
    let order = Order {
        method: &request.method,
        target: &request.target,
        headers: &sent,
        framing: request.framing,
        limits,
        patience: patience.is_none().then_some(limits.request_timeout),
    };
    let mut upload = Upload::new(request.framing, limits.body_bytes);
    let deadline = pin!(sleep(patience.unwrap_or(limits.request_timeout)));
    let tried = tries(worker, client, &order, to, &mut upload, deadline, story).await;
    match tried {
        Ok((key, up, head, _in_flight)) => {
            deliver(worker, client, up, key, head, &mut upload, limits, story).await;
        }
        Err(reply) => match reply {
            Some(reply) => answer(client, &request.method, &reply, None, story).await,
            None => {
                story.error = Some(("client-gone", Fault::Client));
                client.abort();
            }
        },
    }
    story.bytes_in = upload.taken();
}

type Tried = (PoolKey, UpConn, ResponseHead, InFlight);

/// Try endpoints until one responds. `Err(None)`: the client is gone.
async fn tries(
    worker: &Worker,
    client: &mut Client<'_>,
    order: &Order<'_>,
    to: Forward<'_>,
    upload: &mut Upload,
    mut deadline: std::pin::Pin<&mut tokio::time::Sleep>,
    story: &mut Story,
) -> Result<Tried, Option<Answer>> {
    let most = to.route.retry.tries.max(1);
    let mut tried: Vec<EndpointKey> = Vec::new();
    let mut last: Option<Failure> = None;
    loop {
        let set = to.cluster.cell.load_full();
        let Some((place, in_flight, site)) = choose(worker, &set, to, &tried, last) else {
            return Err(Some(exhausted(last)));
        };
        story.tries = story.tries.saturating_add(1);
        if story.tries > 1 {
            worker.metrics.retries.inc();
        }
        let key = place.key;
        story.endpoint = Some((key.endpoint, site));
        let failure = match attempt(worker, &place, order, client, upload, deadline.as_mut()).await
        {
            Ok((up, head)) => return Ok((key, up, head, in_flight)),
            Err(Stop::Failure(failure)) => failure,
            Err(Stop::Client(error)) => return Err(client_fault(&error)),
            Err(Stop::Deadline) if upload.waits_for_client() => return Err(Some(slow_client())),
            Err(Stop::Deadline) => {
                in_flight.stats().failed();
                return Err(Some(exhausted(Some(Failure {
                    kind: Kind::Timeout,
                    again: Again::Never,
                }))));
            }
        };
        worker.metrics.failures.inc();
        in_flight.stats().failed();
        drop(in_flight);
        exclude(&mut tried, &set, key.endpoint, failure.kind);
        last = Some(failure);
        let may = match failure.again {
            Again::Any => true,
            Again::Safe => order.is_safe(),
            Again::Never => false,
        };
        if story.tries >= most || !may || !upload.rewind() {
            return Err(Some(exhausted(last)));
        }
    }
}

/// A site without a link takes all its endpoints with it.
fn exclude(tried: &mut Vec<EndpointKey>, set: &EndpointSet, key: EndpointKey, kind: Kind) {
    tried.push(key);
    if kind == Kind::Link {
        let of_site = set.endpoints().iter().map(|e| e.key);
        tried.extend(of_site.filter(|k| k.site == key.site));
    }
}

fn choose<'t>(
    worker: &Worker,
    set: &EndpointSet,
    to: Forward<'t>,
    tried: &[EndpointKey],
    last: Option<Failure>,
) -> Option<(Place<'t>, InFlight, SiteName)> {
    let mut rng = worker.rng.borrow_mut();
    let endpoint = pick(set, &mut rng, tried).or_else(|| {
        // Nothing else is left: once more on the same, if there was a first time.
        last.and_then(|_| pick(set, &mut rng, &[]))
    })?;
    let remote = (endpoint.key.site != worker.snapshot().site).then(|| {
        let request = StreamRequest {
            authority: format!("{}:{}", to.cluster.service, to.cluster.port),
            endpoint: endpoint.key,
            lb: to.host.lb_name.clone(),
        };
        (endpoint.site.clone(), request)
    });
    let place = Place {
        key: PoolKey {
            tenant: to.cluster.tenant,
            service: to.cluster.id,
            endpoint: endpoint.key,
            lb: to.host.lb,
        },
        cell: Some(&to.cluster.cell),
        remote,
    };
    let in_flight = InFlight::start(&endpoint.stats);
    Some((place, in_flight, endpoint.site.clone()))
}

fn exhausted(last: Option<Failure>) -> Answer {
    let Some(failure) = last else {
        return Answer::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-endpoint",
            "no endpoint of the service is available",
            Fault::Upstream,
        );
    };
    let reason = match failure.kind {
        Kind::Timeout => "the service did not answer in time",
        Kind::Refused
        | Kind::Reset
        | Kind::Link
        | Kind::Denied
        | Kind::Protocol
        | Kind::Cancelled => "the service could not be reached",
    };
    let code = failure.kind.code();
    Answer::new(failure.status(), code, reason, Fault::Upstream)
}

fn client_fault(error: &ClientError) -> Option<Answer> {
    match error {
        ClientError::Gone(_) => None,
        ClientError::Body(_) => Some(Answer::new(
            StatusCode::BAD_REQUEST,
            "bad-body",
            "the body is malformed",
            Fault::Client,
        )),
        ClientError::TooLarge => Some(Answer::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "the body is too large",
            Fault::Client,
        )),
    }
}

fn slow_client() -> Answer {
    Answer::new(
        StatusCode::REQUEST_TIMEOUT,
        "slow-client",
        "the body did not arrive in time",
        Fault::Client,
    )
}

/// Hand a response over and put the connection back.
#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one exchange, each once"
)]
pub(crate) async fn deliver(
    worker: &Worker,
    client: &mut Client<'_>,
    mut up: UpConn,
    key: PoolKey,
    mut head: ResponseHead,
    upload: &mut Upload,
    limits: &Limits,
    story: &mut Story,
) {
    headers::strip_hop_by_hop(&mut head.headers);
    headers::strip_internal(&mut head.headers);
    story.status = head.status.as_u16();
    let bytes = &mut story.bytes_out;
    match respond(client, &mut up, upload, head, limits.idle_timeout, bytes).await {
        Ok(()) => {
            if up.is_reusable() && !worker.drain_begun() {
                worker.pool.put(key, up, runtime::now());
            }
        }
        Err(error) => {
            story.error = Some(match error {
                RelayError::Client(_) => ("client-gone", Fault::Client),
                RelayError::Upstream(_) => ("truncated", Fault::Upstream),
                RelayError::Idle => ("idle", Fault::Upstream),
            });
            // What came so far goes out; the missing rest tells the client.
            let _ = timeout(LAST_FLUSH, poll_fn(|cx| client.poll_flush(cx))).await;
            client.abort();
        }
    }
}

/// Answer ourselves, in plain text; with an internal `error` header, without a body.
pub(crate) async fn answer(
    client: &mut Client<'_>,
    method: &Method,
    reply: &Answer,
    error: Option<HeaderValue>,
    story: &mut Story,
) {
    story.status = reply.status.as_u16();
    story.error = Some((reply.code, reply.fault));
    let mut map = HeaderMap::new();
    let mut body = format!("{}\n", reply.reason);
    if let Some(error) = error {
        map.insert(crate::attempt::ERROR, error);
        body.clear();
    } else {
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        map.insert(header::CONTENT_TYPE, text);
    }
    map.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    let bodiless = method == Method::HEAD || body.is_empty();
    let framing = if bodiless {
        Framing::None
    } else {
        Framing::Length(body.len() as u64)
    };
    if client.head(reply.status, map, framing).is_err() {
        client.abort();
        return;
    }
    if !bodiless {
        story.bytes_out = body.len() as u64;
        client.data(Bytes::from(body));
        client.end(None);
    }
    let flushed = timeout(ANSWER_TIMEOUT, poll_fn(|cx| client.poll_flush(cx))).await;
    if !matches!(flushed, Ok(Ok(()))) {
        client.abort();
    }
}
