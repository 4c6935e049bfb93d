//! A request on its way to an endpoint: pick, try, hand over the response.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use balance::{Endpoint, EndpointKey, EndpointSet, InFlight, Retrying, pick};
use base::{Instant, LbId, SiteName, WallTime};
use http::{HeaderValue, StatusCode, header};
use l7::{
    Addresses, Affinity, Cluster, Fault, Fields, Forward, Identity, Known, Limits, Retry, Shown,
    VirtualHost, affinity, headers, host_of, jwt::Claims,
};
use tokio::time::{sleep, timeout};

use crate::{
    alarm::Alarm,
    answer::{Answer, answer},
    attempt::{Again, Failure, Kind, Order, Place, Stop, Told},
    buffer::{self, Held},
    clients::Standing,
    downstream::{Client, ClientError, ConnInfo, Request},
    exchange::Story,
    guard::{self, Denial, Sent},
    hedge,
    http1::{Framing, ResponseHead},
    load::Ear,
    mirror,
    offers::Ending,
    relay::{RelayError, Upload, part, respond, tunnel},
    spans::end_of,
    upstream::{PoolKey, UpConn, connect::StreamRequest},
    websocket::{GOING_AWAY, POLICY_VIOLATION, Talk},
    worker::{Current, Worker},
};

/// How long a client may take to take what is left of a broken response.
const LAST_FLUSH: Duration = Duration::from_secs(1);

/// What a client asked for.
pub(crate) struct Asked<'a> {
    pub(crate) info: &'a ConnInfo,
    pub(crate) request: &'a Request,
    /// Its path, made normal.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    /// How its client stands by its certificate.
    pub(crate) standing: Option<&'a Rc<Standing>>,
    /// What the connection is to speak afterwards.
    pub(crate) upgrade: Option<HeaderValue>,
    /// What its token says, if it was asked for one.
    pub(crate) claims: Option<Arc<Claims>>,
    /// When its head was complete.
    pub(crate) time: WallTime,
}

/// Where tries go.
#[derive(Clone, Copy)]
pub(crate) struct To<'t> {
    pub(crate) cluster: &'t Cluster,
    pub(crate) lb: LbId,
    pub(crate) lb_name: &'t str,
    pub(crate) retry: &'t Retry,
    /// How long one of them may take.
    pub(crate) patience: Option<Duration>,
    /// Where the request belongs.
    pub(crate) hash: Option<u64>,
    /// Whose connection it is, where endpoints are to be told.
    pub(crate) client: Option<Addresses>,
}

/// Send a request on and give its answer to the client.
pub(crate) async fn forward(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    asked: &Asked<'_>,
    mut sent: Fields,
    to: Forward<'_>,
    story: &mut Story,
) {
    let (limits, filters) = (&to.host.limits, &to.route.filters);
    let origin = filters
        .cors
        .as_ref()
        .and_then(|_| sent.first(Known::Origin));
    let origin = origin.map(<[u8]>::to_vec);
    let belongs = belongs(worker, asked, &sent, to.cluster);
    let Asked {
        info,
        request,
        standing,
        time,
        ..
    } = *asked;
    let upgrade = asked.upgrade.as_ref();
    headers::onward(&mut sent, upgrade);
    headers::forwarded(&mut sent, info.peer.ip(), info.tls);
    let identity = identified(to, standing, &mut sent);
    let host = filters.rewrite.host.as_ref().unwrap_or(&request.authority);
    if sent.first(Known::Host) != Some(host.as_bytes())
        && let Ok(host) = HeaderValue::from_str(host)
    {
        sent.insert(&header::HOST, &host);
    }
    filters.request.apply(&mut sent);
    let target = filters.rewrite.target(asked.path, asked.query, to.matched);
    let mut mirrors = mirror::drawn(worker, to, upgrade.is_some());
    let seen = || Sent {
        to,
        client: info.peer.ip(),
        identity,
        method: &request.method,
        authority: host,
        target: &target,
        fields: &sent,
        now: time,
    };
    let needs = guard::needs(to.cluster, &mirrors);
    // What becomes of an upgrade may be judged by a policy that is not there yet.
    let told = (needs || upgrade.is_some()).then(|| Told::of(info, standing));
    if needs && let Some(reply) = guard::back(worker, &seen(), &mut mirrors, story) {
        return Box::pin(answer(client, &request.method, reply, story)).await;
    }
    let body = body(worker, client, alarm, request, to, story);
    let Some((mut upload, framing, _held)) = body.await else {
        return;
    };
    let patience = to.route.timeouts.request;
    let order = Order {
        method: &request.method,
        target: &target,
        fields: &sent,
        framing,
        upgrades: upgrade.is_some(),
        limits,
        client: told,
        patience: patience.is_none().then_some(limits.request_timeout),
    };
    if framing == Framing::None {
        let mirrors = std::mem::take(&mut mirrors);
        mirror::send(worker, mirrors, &order, Some(<_>::default()));
    } else if !mirrors.is_empty() {
        upload.keep_all();
    }
    alarm.set(patience.unwrap_or(limits.request_timeout));
    let place = To {
        cluster: to.cluster,
        lb: to.host.lb,
        lb_name: &to.host.lb_name,
        retry: &to.route.retry,
        patience: to.route.timeouts.backend_request,
        hash: belongs.hash,
        client: to.cluster.proxy.map(|_| info.addresses()),
    };
    let tried = tries(worker, client, &order, place, &mut upload, alarm, story).await;
    match tried {
        Ok((key, up, mut head, _in_flight)) => {
            guard::hear(&up, &head, story);
            let token = clean(&mut head, upgrade.is_some());
            front(&mut head.fields, to, &belongs, origin.as_deref(), story);
            if let Some(token) = token {
                headers::upgrade(&mut head.fields, &token);
                let offered = || host_of_now(&worker.snapshot(), asked, to).is_some();
                let denied = || denied(worker, asked, &seen());
                let ending = worker.offers.ending(limits.drain_timeout, offered, denied);
                let handed = switch(client, alarm, up, (head, &token), limits, ending, story);
                Box::pin(handed).await;
            } else {
                deliver(
                    worker,
                    client,
                    alarm,
                    up,
                    key,
                    head,
                    &mut upload,
                    limits,
                    story,
                )
                .await;
            }
        }
        Err(Some(reply)) => Box::pin(answer(client, &request.method, reply, story)).await,
        Err(None) => {
            story.error = Some(("client-gone", Fault::Client));
            client.abort();
        }
    }
    mirror::send(worker, mirrors, &order, upload.copied());
    story.bytes_in += upload.taken();
}

/// What the front has to say with an endpoint's answer.
fn front(
    fields: &mut Fields,
    to: Forward<'_>,
    belongs: &Affinity,
    origin: Option<&[u8]>,
    story: &Story,
) {
    let filters = &to.route.filters;
    if let Some(cookie) = &belongs.set_cookie {
        fields.append(&header::SET_COOKIE, cookie);
    }
    filters.response.apply(fields);
    if let Some(cors) = &filters.cors {
        cors.apply(origin, fields);
    }
    if let Some(elsewhere) = &story.elsewhere {
        fields.insert(&header::ALT_SVC, elsewhere);
    }
}

/// The body of a request: as it comes, or whole, if its route says so. `None`: it has its answer.
async fn body(
    worker: &Worker,
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    request: &Request,
    to: Forward<'_>,
    story: &mut Story,
) -> Option<(Upload, Framing, Option<Held>)> {
    let (framing, limits) = (request.framing, &to.host.limits);
    let most = to.route.buffer.filter(|_| framing != Framing::None);
    let Some(most) = most else {
        let upload = Upload::new(framing, limits.body_bytes);
        return Some((upload, framing, None));
    };
    let whole = buffer::whole(worker, client, alarm, framing, most, limits);
    match Box::pin(whole).await {
        Ok(whole) => return Some((whole.upload, whole.framing, Some(whole.held))),
        Err(Some(reply)) => Box::pin(answer(client, &request.method, reply, story)).await,
        Err(None) => {
            story.error = Some(("client-gone", Fault::Client));
            client.abort();
        }
    }
    None
}

/// Who the client is by its certificate; the endpoint is told, if its host wants that.
fn identified<'s>(
    to: Forward<'_>,
    standing: Option<&'s Rc<Standing>>,
    sent: &mut Fields,
) -> Option<&'s Identity> {
    let identity = standing?.identity.as_ref()?;
    if to.host.clients.is_some_and(|clients| clients.forward) {
        identity.forward(sent);
    }
    Some(identity)
}

/// Where a request belongs, if its service goes by that.
fn belongs(worker: &Worker, asked: &Asked<'_>, sent: &Fields, to: &Cluster) -> Affinity {
    if to.hash_on.is_empty() {
        return Affinity::default();
    }
    let (client, tls) = (asked.info.peer.ip(), asked.info.tls);
    let rng = &mut worker.rng.borrow_mut();
    affinity(&to.hash_on, sent, asked.query, client, tls, rng)
}

/// Without what concerns the endpoint's connection alone; the upgrade it agreed to, if one was
/// asked for.
pub(crate) fn clean(head: &mut ResponseHead, upgrades: bool) -> Option<HeaderValue> {
    let switches = upgrades && head.status == StatusCode::SWITCHING_PROTOCOLS;
    let token = head.fields.first(Known::Upgrade);
    let token = token.and_then(|token| HeaderValue::from_bytes(token).ok());
    headers::strip(&mut head.fields);
    token.filter(|_| switches)
}

pub(crate) type Tried = (PoolKey, Box<UpConn>, ResponseHead, InFlight);

/// Try endpoints until one responds. `Err(None)`: the client is gone.
pub(crate) async fn tries(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    order: &Order<'_>,
    to: To<'_>,
    upload: &mut Upload,
    alarm: &mut Alarm,
    story: &mut Story,
) -> Result<Tried, Option<Answer>> {
    let most = to.retry.tries.max(1);
    let mut tried: Vec<EndpointKey> = Vec::new();
    let mut last: Option<Failure> = None;
    // Held as long as the try that it was taken for.
    let mut permit = None;
    loop {
        let set = to.cluster.cell.load_full();
        if !to.cluster.circuit.takes_request(&set) {
            worker.metrics.circuits_open.inc();
            return Err(Some(exhausted(Some(Failure::unsent(Kind::Full)))));
        }
        let now = runtime::now();
        let Some((endpoint, remote)) = choose(worker, &set, to, now, &tried, last) else {
            return Err(Some(exhausted(last)));
        };
        let mut in_flight = InFlight::start(&endpoint.stats);
        let mut place = to.place(endpoint, remote);
        place.span = story.begin_try(worker, now, endpoint);
        if story.tries > 1 {
            worker.metrics.retries.inc();
        }
        let mut key = place.key;
        story.endpoint = Some((key.endpoint, endpoint.site.clone()));
        let mut began = now;
        let beside = hedge::Beside::of(worker, &set, to, order, upload, &tried);
        let mut ended = match beside {
            None => {
                let patience = to.patience;
                hedge::alone(worker, &place, order, patience, client, upload, alarm).await
            }
            Some(beside) => {
                let race = beside.race(&place, client, upload, alarm, story);
                let raced = Box::pin(race).await;
                if let Some((key, kind)) = raced.failed {
                    story.end_try(key, || Err(kind.code()));
                    exclude(&mut tried, &set, key, kind);
                }
                if let Some(second) = raced.second {
                    (place, in_flight, began) = (second.place, second.in_flight, second.began);
                    permit = Some(second.permit);
                    key = place.key;
                    story.endpoint = Some((key.endpoint, second.site));
                }
                raced.ended
            }
        };
        story.end_try(key.endpoint, || end_of(&ended));
        if set.is_timed() && ended.is_ok() {
            let over = runtime::now();
            place.stats.answered(over, over.since(began));
        }
        if let (Some(policy), Ok((up, head))) = (set.by_load(), &mut ended) {
            up.listen(Ear::new(place.stats, policy), head);
        }
        if let Some(most) = to.cluster.outlier {
            judge(worker, most, &place, &ended);
        }
        let failure = match ended {
            Ok((up, head)) => {
                let bad = to.retry.codes.contains(&head.status);
                if !bad || story.tries >= most || !order.is_idempotent() || !upload.is_whole() {
                    return Ok((key, up, head, in_flight));
                }
                // Rather this answer than more work for a service in trouble.
                let Some(place) = to.repeats(&set) else {
                    return Ok((key, up, head, in_flight));
                };
                permit = Some(place);
                Failure {
                    kind: Kind::Status,
                    again: Again::Idempotent,
                }
            }
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
        if story.tries >= most || !order.may_repeat(failure) || !upload.rewind() {
            return Err(Some(exhausted(last)));
        }
        // Whoever is slow or says that it cannot is not to be asked more often than it bears.
        if matches!(failure.kind, Kind::Status | Kind::Timeout) {
            if permit.is_none() {
                permit = to.repeats(&set);
            }
            if permit.is_none() {
                worker.metrics.retries_denied.inc();
                return Err(Some(exhausted(last)));
            }
            let pause = to
                .retry
                .pause(story.tries + 1, &mut worker.rng.borrow_mut());
            Box::pin(rest(client, alarm, pause, last)).await?;
        } else {
            permit = None;
        }
    }
}

/// Wait before the next try, while there is time and somebody who waits.
async fn rest(
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    pause: Duration,
    last: Option<Failure>,
) -> Result<(), Option<Answer>> {
    let mut timer = pin!(sleep(pause));
    poll_fn(|cx| {
        if let Poll::Ready(error) = client.poll_gone(cx) {
            return Poll::Ready(Err(client_fault(&error)));
        }
        if alarm.poll(cx).is_ready() {
            return Poll::Ready(Err(Some(exhausted(last))));
        }
        timer.as_mut().poll(cx).map(Ok)
    })
    .await
}

/// A site without a link takes all its endpoints with it.
pub(crate) fn exclude(
    tried: &mut Vec<EndpointKey>,
    set: &EndpointSet,
    key: EndpointKey,
    kind: Kind,
) {
    tried.push(key);
    if kind == Kind::Link {
        let of_site = set.endpoints().iter().map(|e| e.key);
        tried.extend(of_site.filter(|k| k.site == key.site));
    }
}

/// Whom to ask next, but for those in `tried`.
pub(crate) fn choose<'s>(
    worker: &Worker,
    set: &'s EndpointSet,
    to: To<'_>,
    now: Instant,
    tried: &[EndpointKey],
    last: Option<Failure>,
) -> Option<(&'s Endpoint, Option<(SiteName, StreamRequest)>)> {
    let mut rng = worker.rng.borrow_mut();
    let endpoint = pick(set, now, &mut rng, tried, to.hash).or_else(|| {
        // Nothing else is left: once more on the same, if there was a first time.
        last.and_then(|_| pick(set, now, &mut rng, &[], to.hash))
    })?;
    let remote = (endpoint.key.site != worker.snapshot().site).then(|| {
        let request = StreamRequest {
            authority: format!("{}:{}", to.cluster.service, to.cluster.port),
            endpoint: endpoint.key,
            lb: to.lb_name.to_owned(),
            client: to.client,
        };
        (endpoint.site.clone(), request)
    });
    Some((endpoint, remote))
}

impl<'t> To<'t> {
    pub(crate) fn place<'p>(
        self,
        endpoint: &'p Endpoint,
        remote: Option<(SiteName, StreamRequest)>,
    ) -> Place<'p>
    where
        't: 'p,
    {
        Place {
            key: PoolKey {
                tenant: self.cluster.tenant,
                service: self.cluster.id,
                endpoint: endpoint.key,
                lb: self.lb,
            },
            cell: Some(&self.cluster.cell),
            cluster: self.cluster,
            stats: &endpoint.stats,
            client: self.client,
            span: None,
            remote,
        }
    }

    /// May one more try repeat another?
    pub(crate) fn repeats(&self, set: &EndpointSet) -> Option<Retrying<'t>> {
        let most = self.cluster.circuit.retries;
        self.cluster.retries.take(set.running(), most)
    }
}

/// What the end of a try says about its endpoint.
fn judge(
    worker: &Worker,
    most: u32,
    place: &Place<'_>,
    ended: &Result<(Box<UpConn>, ResponseHead), Stop>,
) {
    let good = match ended {
        Ok((_, head)) => !head.status.is_server_error(),
        Err(Stop::Failure(failure)) if !failure.kind.blames_endpoint() => return,
        Err(Stop::Failure(_) | Stop::Deadline) => false,
        Err(Stop::Client(_)) => return,
    };
    verdict(worker, most, place, good);
}

/// Every so many bad ones in a row, whoever spares endpoints is told.
pub(crate) fn verdict(worker: &Worker, most: u32, place: &Place<'_>, good: bool) {
    let in_row = place.stats.judged(good);
    if in_row > 0 && in_row.is_multiple_of(most.max(1)) {
        worker.endpoint_outlier(place.target());
    }
}

fn exhausted(last: Option<Failure>) -> Answer {
    let Some(failure) = last else {
        return Answer::refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "no-endpoint",
            "no endpoint of the service is available",
            Fault::Upstream,
        );
    };
    let reason = match failure.kind {
        Kind::Timeout => "the service did not answer in time",
        Kind::Status => "the service answered with an error",
        Kind::Full => "the service has as many requests as it may",
        Kind::Refused
        | Kind::Reset
        | Kind::Link
        | Kind::Denied
        | Kind::Protocol
        | Kind::Cancelled => "the service could not be reached",
    };
    let code = failure.kind.code();
    Answer::refusal(failure.status(), code, reason, Fault::Upstream)
}

pub(crate) fn client_fault(error: &ClientError) -> Option<Answer> {
    match error {
        ClientError::Gone(_) => None,
        ClientError::Body(_) => Some(Answer::refusal(
            StatusCode::BAD_REQUEST,
            "bad-body",
            "the body is malformed",
            Fault::Client,
        )),
        ClientError::TooLarge => Some(Answer::refusal(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body-too-large",
            "the body is too large",
            Fault::Client,
        )),
    }
}

pub(crate) fn slow_client() -> Answer {
    Answer::refusal(
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
    alarm: &mut Alarm,
    mut up: Box<UpConn>,
    key: PoolKey,
    head: ResponseHead,
    upload: &mut Upload,
    limits: &Limits,
    story: &mut Story,
) {
    story.status = head.status.as_u16();
    let bytes = &mut story.bytes_out;
    let alarm = (alarm, limits.idle_timeout);
    match respond(worker, client, alarm, &mut up, upload, head, bytes).await {
        Ok(()) => {
            let now = runtime::now();
            story.over = Some(now);
            if up.is_reusable() && !worker.drain_begun() {
                worker.pool.put(key, up, now);
            }
        }
        Err(error) => Box::pin(broken(client, story, &error)).await,
    }
}

/// The host that a request was for, if it is still this load balancer's where its client has come to.
fn host_of_now<'t>(
    now: &'t Current,
    asked: &Asked<'_>,
    to: Forward<'_>,
) -> Option<&'t VirtualHost> {
    let (info, name) = (asked.info, host_of(&asked.request.authority)?);
    let host = now.table.host(info.port, info.tls, &name)?;
    (host.lb == to.host.lb).then_some(host)
}

/// Why a request that has opened a connection would not be let through now, if so. Its token and its
/// certificate count as when it came, unless the host has other issuers.
fn denied(worker: &Worker, asked: &Asked<'_>, seen: &Sent<'_>) -> Option<Denial> {
    let (snapshot, info) = (worker.snapshot(), asked.info);
    // What is not offered is withdrawn.
    let host = host_of_now(&snapshot, asked, seen.to)?;
    let mut standing = None;
    if let Some(clients) = &host.clients {
        let shown = info.shown.as_ref();
        let came = (asked.standing, asked.time);
        standing = shown.and_then(|shown| shown.standing_still(clients, &snapshot, came));
        let served = standing.as_ref().is_some_and(|s| s.trust().is_some());
        if clients.required && !served {
            return Some(Denial { policy: None });
        }
    }
    let front = guard::Asked {
        lb: &host.lb_name,
        client: Some(info.peer.ip()),
        identity: Shown::here(standing.as_ref().and_then(|s| s.identity.as_ref())),
        method: &asked.request.method,
        authority: &asked.request.authority,
        path: asked.path,
        query: asked.query,
        fields: &asked.request.fields,
        now: runtime::wall(),
    };
    guard::denied(worker, host, &front, asked.claims.as_ref(), seen)
}

/// Hand a whole connection over, to what is spoken by this token: from now on its octets mean nothing
/// to us. When it has to end a WebSocket is told why (RFC 6455 §7.4.1), anything else is reset.
pub(crate) async fn switch(
    client: &mut Client<'_>,
    alarm: &mut Alarm,
    mut up: Box<UpConn>,
    (head, token): (ResponseHead, &HeaderValue),
    limits: &Limits,
    ending: impl Future<Output = Ending>,
    story: &mut Story,
) {
    story.status = head.status.as_u16();
    if client.switch(head.fields).is_err() {
        client.abort();
        return;
    }
    up.switch();
    let idle = limits.upgrade_idle_timeout;
    let is_websocket = token.as_bytes().eq_ignore_ascii_case(b"websocket");
    let mut talk = is_websocket.then(Talk::default);
    let moved = tokio::select! {
        // First: what moves octets uses up its turn, each time.
        biased;
        ending = ending => Err(ending),
        moved = tunnel(client, alarm, &mut up, idle, talk.as_mut(), story) => Ok(moved),
    };
    match moved {
        Ok(Ok(())) => {}
        Ok(Err(error)) => broken(client, story, &error).await,
        Err(ending) => {
            story.error = Some(ending.error());
            let code = match ending {
                Ending::Withdrawn => GOING_AWAY,
                Ending::Denied(denial) => {
                    story.policy = denial.policy;
                    POLICY_VIOLATION
                }
            };
            let told = talk.is_some_and(|talk| talk.may_end());
            if !told
                || timeout(LAST_FLUSH, part(client, &mut up, code))
                    .await
                    .is_err()
            {
                client.abort();
            }
        }
    }
}

async fn broken(client: &mut Client<'_>, story: &mut Story, error: &RelayError) {
    story.error = Some(match error {
        RelayError::Client(_) => ("client-gone", Fault::Client),
        RelayError::Upstream(_) => ("truncated", Fault::Upstream),
        RelayError::Idle => ("idle", Fault::Upstream),
    });
    // What came so far goes out; the missing rest tells the client.
    let _ = timeout(LAST_FLUSH, poll_fn(|cx| client.poll_flush(cx))).await;
    client.abort();
}
