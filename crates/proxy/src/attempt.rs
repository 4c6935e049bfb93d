//! One try of a request on one endpoint.

use std::{
    borrow::Cow,
    future::{Future, poll_fn},
    io,
    net::IpAddr,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use balance::{Cell, Connecting, Connection, EndpointStats};
use base::SiteName;
use http::{HeaderName, Method, StatusCode};
use l7::{Addresses, Cluster, Fields, Limits, Protocol, headers, headers::SpanId};
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    alarm::Alarm,
    clients::Standing,
    downstream::{Client, ClientError, ConnInfo},
    event::FailureKind,
    http1::{Framing, ResponseHead},
    io::Io,
    relay::{Upload, UploadError},
    upstream::{
        PoolKey, RecvError, Target, UpConn, Via,
        connect::{DialError, StreamRequest},
        h2::{self, NoStream},
        tunnels,
        waiting::WaitGuard,
    },
    worker::Worker,
};

/// From egress to ingress: what went wrong on the last leg.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("sealane-error");

/// Octets of interim responses that a request may bring: they are held until the client takes them.
const INTERIM: usize = 64 << 10;
/// Of those, what one takes beside its fields.
const LINE: usize = 32;

/// What went wrong with a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Refused,
    Reset,
    Timeout,
    /// No link to the site, or it broke: every endpoint of that site is out of reach.
    Link,
    /// The egress does not know or allow it.
    Denied,
    /// The endpoint does not speak HTTP.
    Protocol,
    /// Given up on news that the endpoint is down.
    Cancelled,
    /// It answered with what the route takes for a failure.
    Status,
    /// The service gets as much as it may.
    Full,
}

impl Kind {
    const ALL: [(Kind, &'static str); 9] = [
        (Kind::Refused, "refused"),
        (Kind::Reset, "reset"),
        (Kind::Timeout, "timeout"),
        (Kind::Link, "link"),
        (Kind::Denied, "denied"),
        (Kind::Protocol, "protocol"),
        (Kind::Cancelled, "cancelled"),
        (Kind::Status, "status"),
        (Kind::Full, "circuit-open"),
    ];

    pub(crate) const fn code(self) -> &'static str {
        match self {
            Kind::Refused => "refused",
            Kind::Reset => "reset",
            Kind::Timeout => "timeout",
            Kind::Link => "link",
            Kind::Denied => "denied",
            Kind::Protocol => "protocol",
            Kind::Cancelled => "cancelled",
            Kind::Status => "status",
            Kind::Full => "circuit-open",
        }
    }
}

impl Kind {
    /// Does it speak against the endpoint? Otherwise it is not its fault, or not known.
    pub(crate) const fn blames_endpoint(self) -> bool {
        match self {
            Kind::Refused | Kind::Reset | Kind::Timeout | Kind::Protocol | Kind::Status => true,
            Kind::Link | Kind::Denied | Kind::Cancelled | Kind::Full => false,
        }
    }
}

/// Who may repeat a failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// Any request: provably nothing reached the endpoint.
    Any,
    /// Safe methods only.
    Safe,
    /// Idempotent methods (RFC 9110 §9.2.2).
    Idempotent,
    Never,
}

/// A failed try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) again: Again,
}

impl Failure {
    pub(crate) const fn unsent(kind: Kind) -> Self {
        Failure {
            kind,
            again: Again::Any,
        }
    }

    pub(crate) const fn status(self) -> StatusCode {
        match self.kind {
            Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Kind::Full => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Refused
            | Kind::Reset
            | Kind::Link
            | Kind::Denied
            | Kind::Protocol
            | Kind::Cancelled
            | Kind::Status => StatusCode::BAD_GATEWAY,
        }
    }

    /// The value of [`ERROR`].
    pub(crate) fn to_header(self) -> String {
        let again = match self.again {
            Again::Any => "any",
            Again::Safe => "safe",
            Again::Idempotent => "idempotent",
            Again::Never => "never",
        };
        format!("{}; retry={again}", self.kind.code())
    }

    /// Read [`ERROR`]; unknown words are the harmless ones.
    pub(crate) fn from_header(text: &str) -> Self {
        let (word, retry) = text.split_once(';').unwrap_or((text, ""));
        let kind = Kind::ALL
            .iter()
            .find(|(_, code)| *code == word.trim())
            .map_or(Kind::Protocol, |(kind, _)| *kind);
        let again = match retry.trim() {
            "retry=any" => Again::Any,
            "retry=safe" => Again::Safe,
            "retry=idempotent" => Again::Idempotent,
            _ => Again::Never,
        };
        Failure { kind, again }
    }
}

/// Why there is no response head.
#[derive(Debug)]
pub(crate) enum Stop {
    Failure(Failure),
    Client(ClientError),
    Deadline,
}

/// Who asks, as the other end of a tunnel is told.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    address: IpAddr,
    standing: Option<Rc<Standing>>,
}

impl Told {
    pub(crate) fn of(info: &ConnInfo, standing: Option<&Rc<Standing>>) -> Self {
        Told {
            address: info.peer.ip(),
            standing: standing.cloned(),
        }
    }

    fn tell(&self, fields: &mut Fields) {
        headers::tell_client(fields, self.address);
        let standing = self.standing.as_ref();
        if let Some(identity) = standing.and_then(|standing| standing.identity.as_ref()) {
            identity.tell(fields);
        }
    }
}

/// What is sent.
pub(crate) struct Order<'a> {
    pub(crate) method: &'a Method,
    pub(crate) target: &'a str,
    pub(crate) fields: &'a Fields,
    pub(crate) framing: Framing,
    /// The connection is to speak something else afterwards.
    pub(crate) upgrades: bool,
    pub(crate) limits: &'a Limits,
    /// Whom the other end of a tunnel is told of, for its policies.
    pub(crate) client: Option<Told>,
    /// Each step of the upload gives the deadline this much more.
    pub(crate) patience: Option<Duration>,
}

impl Order<'_> {
    /// RFC 9110 §9.2.1.
    pub(crate) fn is_safe(&self) -> bool {
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE].contains(self.method)
    }

    /// May it be sent again after this?
    pub(crate) fn may_repeat(&self, failure: Failure) -> bool {
        match failure.again {
            Again::Any => true,
            Again::Safe => self.is_safe(),
            Again::Idempotent => self.is_idempotent(),
            Again::Never => false,
        }
    }

    /// RFC 9110 §9.2.2.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.is_safe() || [Method::PUT, Method::DELETE].contains(self.method)
    }
}

/// Where it is sent.
pub(crate) struct Place<'a> {
    pub(crate) key: PoolKey,
    /// Watched for news of the endpoint.
    pub(crate) cell: Option<&'a Cell>,
    /// Its service, and how many connections that may have.
    pub(crate) cluster: &'a Cluster,
    /// The endpoint's counters.
    pub(crate) stats: &'a Arc<EndpointStats>,
    /// Whose connection it is, where the endpoint is told.
    pub(crate) client: Option<Addresses>,
    /// The span of the try, if it is told of.
    pub(crate) span: Option<SpanId>,
    /// The other site and what to ask it for; `None`: this site.
    pub(crate) remote: Option<(SiteName, StreamRequest)>,
}

impl Place<'_> {
    pub(crate) const fn target(&self) -> Target {
        Target {
            tenant: self.key.tenant,
            service: self.key.service,
            endpoint: self.key.endpoint,
        }
    }

    /// One more connection is to be opened, if the service may have it.
    pub(crate) fn connecting(&self) -> Option<Connecting<'_>> {
        let set = self.cluster.cell.load();
        let may = self.cluster.circuit.takes_connection(&set);
        may.then(|| Connecting::start(self.stats))
    }

    fn is_down(&self) -> bool {
        self.cell
            .is_some_and(|cell| !cell.load().is_alive(&self.key.endpoint))
    }
}

/// Send the order and wait for the response head. A pooled connection that turns out to be dead
/// is replaced by a fresh one once, if the request may be repeated.
pub(crate) async fn attempt(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    order: &Order<'_>,
    client: &mut Client<'_>,
    upload: &mut Upload,
    deadline: &mut Alarm,
) -> Result<(Box<UpConn>, ResponseHead), Stop> {
    let guard = worker.waiting.register(place.target());
    let mut fields = Cow::Borrowed(order.fields);
    if let (Some(client), Some(_)) = (&order.client, &place.remote) {
        client.tell(fields.to_mut());
    }
    if let Some(span) = place.span {
        headers::below(fields.to_mut(), span);
    }
    let mut pooled = match place.cluster.proxy {
        None => {
            let remote = place.remote.as_ref();
            let way = remote.map(|(site, _)| worker.trunks.routes().way(site));
            worker.pool.take(&place.key, way)
        }
        Some(_) => None,
    };
    loop {
        let mut up = match pooled.take() {
            Some(up) => up,
            // Boxed, as what is seldom needed is everywhere here: a request's future stays small.
            None => Box::pin(connect(worker, place, order, &guard, deadline)).await?,
        };
        up.start(order.method, order.target, &fields, order.framing);
        let drive = Drive {
            worker,
            place,
            order,
            guard: &guard,
        };
        let result = drive.response(&mut up, client, upload, deadline).await;
        match result {
            Ok(head) => return judged(up, head),
            Err(Stop::Failure(failure))
                if up.is_used()
                    && matches!(failure.kind, Kind::Reset | Kind::Link)
                    && order.is_safe()
                    && upload.rewind() => {}
            Err(stop) => {
                if let Stop::Failure(Failure { kind, .. }) = &stop {
                    tell(worker, place, *kind);
                }
                return Err(stop);
            }
        }
    }
}

/// A response that the egress wrote is a failure, not a response.
fn judged(up: Box<UpConn>, head: ResponseHead) -> Result<(Box<UpConn>, ResponseHead), Stop> {
    if up.via().is_tunnel()
        && let Some(value) = head.fields.get(&ERROR)
    {
        let failure = Failure::from_header(std::str::from_utf8(value).unwrap_or_default());
        return Err(Stop::Failure(failure));
    }
    Ok((up, head))
}

/// Tell the prober about an endpoint of this site.
pub(crate) fn tell(worker: &Worker, place: &Place<'_>, kind: Kind) {
    let kind = match kind {
        Kind::Refused => FailureKind::Refused,
        Kind::Reset => FailureKind::Reset,
        Kind::Timeout => FailureKind::Timeout,
        Kind::Link
        | Kind::Denied
        | Kind::Protocol
        | Kind::Cancelled
        | Kind::Status
        | Kind::Full => return,
    };
    if place.remote.is_none() {
        worker.endpoint_failed(place.target(), kind);
    }
}

async fn connect(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    order: &Order<'_>,
    guard: &WaitGuard<'_>,
    deadline: &mut Alarm,
) -> Result<Box<UpConn>, Stop> {
    let mut dialling = pin!(dial(worker, place, order.limits.connect_timeout));
    let result = poll_fn(|cx| {
        if let Poll::Ready(result) = dialling.as_mut().poll(cx) {
            return Poll::Ready(result.map_err(Stop::Failure));
        }
        while guard.poll_look(cx).is_ready() {
            if place.is_down() {
                return Poll::Ready(Err(Stop::Failure(Failure::unsent(Kind::Cancelled))));
            }
        }
        deadline.poll(cx).map(|()| Err(Stop::Deadline))
    })
    .await;
    if let Err(Stop::Failure(failure)) = &result {
        tell(worker, place, failure.kind);
    }
    result
}

async fn dial(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    patience: Duration,
) -> Result<Box<UpConn>, Failure> {
    if place.remote.is_none() && place.cluster.protocol == Protocol::Http2 {
        return match h2::stream(worker, place, patience).await {
            Ok(stream) => Ok(Box::new(UpConn::http2(stream))),
            Err(NoStream::Protocol) => Err(Failure::unsent(Kind::Protocol)),
            Err(NoStream::Connect(error)) => Err(unreached(&error)),
            Err(NoStream::Full) => Err(Failure::unsent(Kind::Full)),
        };
    }
    let via = match place.remote {
        Some((ref site, _)) => Via::Tunnel(worker.trunks.routes().way(site)),
        None => Via::Tcp,
    };
    let (io, counted) = open(worker, place, patience).await?;
    let up = UpConn::http1(io, via, counted);
    Ok(Box::new(match place.cluster.proxy {
        None => up,
        Some(_) => up.private(),
    }))
}

/// A connection to the place, or a stream to its site, on which nothing was said yet.
pub(crate) async fn open(
    worker: &Worker,
    place: &Place<'_>,
    patience: Duration,
) -> Result<(Io, Connection), Failure> {
    let _connecting = place.connecting().ok_or(Failure::unsent(Kind::Full))?;
    let counted = Connection::open(place.stats);
    let Some((site, request)) = &place.remote else {
        let connected = runtime::net::tcp_connect(place.key.endpoint.address, patience).await;
        let mut stream = connected.map_err(|error| unreached(&error))?;
        if let Some(version) = place.cluster.proxy {
            let mut header = Vec::new();
            version.write(place.client.as_ref(), &mut header);
            // A socket that is new has room for it.
            let written = stream.write_all(&header).await;
            written.map_err(|error| unreached(&error))?;
        }
        return Ok((Io::Tcp(stream), counted));
    };
    let tenant = &place.cluster.service.tenant;
    match timeout(patience, tunnels::open(worker, site, tenant, request)).await {
        Ok(Ok(stream)) => Ok((Io::Other(stream), counted)),
        Ok(Err(DialError::Refused { status, reason })) => {
            tracing::debug!(%site, %status, reason, "stream refused");
            Err(Failure::unsent(match status {
                StatusCode::SERVICE_UNAVAILABLE if reason == Kind::Full.code() => Kind::Full,
                // A site that drains or is too busy says so for all its endpoints.
                StatusCode::SERVICE_UNAVAILABLE => Kind::Link,
                // What the endpoint did, where the other site asks it first.
                StatusCode::BAD_GATEWAY => Kind::Refused,
                StatusCode::GATEWAY_TIMEOUT => Kind::Timeout,
                _ => Kind::Denied,
            }))
        }
        Ok(Err(DialError::NoLink | DialError::Broken(_))) | Err(_) => {
            Err(Failure::unsent(Kind::Link))
        }
    }
}

fn unreached(error: &io::Error) -> Failure {
    let in_time = error.kind() != io::ErrorKind::TimedOut;
    Failure::unsent(if in_time {
        Kind::Refused
    } else {
        Kind::Timeout
    })
}

/// A request on a connection, until its response head.
struct Drive<'a> {
    worker: &'a Worker,
    place: &'a Place<'a>,
    order: &'a Order<'a>,
    guard: &'a WaitGuard<'a>,
}

impl Drive<'_> {
    async fn response(
        &self,
        up: &mut UpConn,
        client: &mut Client<'_>,
        upload: &mut Upload,
        deadline: &mut Alarm,
    ) -> Result<ResponseHead, Stop> {
        let mut uploading = true;
        let mut interim = 0;
        poll_fn(|cx| {
            while self.guard.poll_look(cx).is_ready() {
                if self.place.is_down() && self.order.is_safe() && upload.is_whole() {
                    self.worker.metrics.cancelled.inc();
                    return Poll::Ready(Err(sent(Kind::Cancelled)));
                }
            }
            if uploading {
                let before = upload.taken();
                match upload.poll(cx, client, up) {
                    Poll::Ready(Err(UploadError::Client(error))) => {
                        return Poll::Ready(Err(Stop::Client(error)));
                    }
                    // The endpoint may have answered before it closed: its answer counts.
                    Poll::Ready(Ok(()) | Err(UploadError::Upstream(_))) => uploading = false,
                    Poll::Pending => {}
                }
                if let Some(more) = self.order.patience.filter(|_| upload.taken() > before) {
                    deadline.set(more);
                }
            }
            if let Poll::Ready(result) = self.poll_head(cx, up, client, &mut interim) {
                return Poll::Ready(result);
            }
            if let Poll::Ready(error) = client.poll_gone(cx) {
                return Poll::Ready(Err(Stop::Client(error)));
            }
            // Informational responses go out at once; a failure shows later.
            let _ = client.poll_flush(cx);
            if deadline.poll(cx).is_ready() {
                if !upload.waits_for_client() {
                    tell(self.worker, self.place, Kind::Timeout);
                }
                return Poll::Ready(Err(Stop::Deadline));
            }
            Poll::Pending
        })
        .await
    }

    fn poll_head(
        &self,
        cx: &mut Context<'_>,
        up: &mut UpConn,
        client: &mut Client<'_>,
        interim: &mut usize,
    ) -> Poll<Result<ResponseHead, Stop>> {
        loop {
            let polled = up.poll_response(cx, self.order.limits, self.order.method);
            let head = match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(head)) => head,
                Poll::Ready(Err(RecvError::Head(error))) => {
                    tracing::debug!(%error, "malformed response");
                    return Poll::Ready(Err(Stop::Failure(Failure {
                        kind: Kind::Protocol,
                        again: Again::Never,
                    })));
                }
                Poll::Ready(Err(RecvError::Refused)) => {
                    return Poll::Ready(Err(Stop::Failure(Failure::unsent(Kind::Reset))));
                }
                Poll::Ready(Err(RecvError::Io(_) | RecvError::Closed)) => {
                    let kind = match up.via() {
                        Via::Tcp => Kind::Reset,
                        Via::Tunnel(_) => Kind::Link,
                    };
                    return Poll::Ready(Err(sent(kind)));
                }
            };
            if head.status.is_informational() {
                let fields = head.fields.iter();
                let octets = fields.map(|(name, value)| name.len() + value.len());
                *interim += octets.sum::<usize>() + LINE;
                if *interim > INTERIM {
                    return Poll::Ready(Err(Stop::Failure(Failure {
                        kind: Kind::Protocol,
                        again: Again::Never,
                    })));
                }
            }
            match head.status {
                StatusCode::CONTINUE => {}
                StatusCode::SWITCHING_PROTOCOLS if self.order.upgrades => {
                    return Poll::Ready(Ok(head));
                }
                StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(Err(Stop::Failure(Failure {
                        kind: Kind::Protocol,
                        again: Again::Never,
                    })));
                }
                status if status.is_informational() => {
                    let mut fields = head.fields;
                    l7::headers::strip(&mut fields);
                    client.inform(status, &fields);
                }
                _ => return Poll::Ready(Ok(head)),
            }
        }
    }
}

const fn sent(kind: Kind) -> Stop {
    Stop::Failure(Failure {
        kind,
        again: Again::Safe,
    })
}
