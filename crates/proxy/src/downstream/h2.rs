//! The HTTP/2 server side of one connection (RFC 9113), on the `h2` crate.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use h2::{
    Reason, RecvStream,
    ext::Protocol,
    server::{Connection, SendResponse},
};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use l7::{Fields, Known, Limits};
use tokio::time::timeout;

use super::{
    Client, ClientError, ConnInfo, Request,
    coalesce::{Coalesced, Watched},
};
use crate::{
    alarm::Alarm,
    exchange,
    h2stream::{Incoming, Outgoing, are_fields},
    http1::{Framing, Piece},
    io::Io,
    worker::Worker,
};

/// How a record calls an extended CONNECT.
pub(super) const EXTENDED: &str = "h2 connect";
/// Any sixteen octets: RFC 8441 §5.1 has no key, RFC 6455 wants one.
const WEBSOCKET_KEY: HeaderValue = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
/// Receive windows: one stream, and all streams of a connection together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BUFFER: usize = 64 << 10;
/// Resets by the peer that we have not taken up yet (CVE-2023-44487), and resets by us for its
/// errors; one more ends the connection.
const PENDING_RESETS: usize = 20;
const ERROR_RESETS: usize = 128;
/// How long a client may leave a GOAWAY unanswered when nothing of it runs.
const LEAVING: Duration = Duration::from_millis(300);
/// How long the last frames may take.
const GOODBYE: Duration = Duration::from_millis(300);

/// Those of streams that have ended, for the next ones.
type Alarms = Rc<RefCell<Vec<Alarm>>>;

/// One stream: a request and its response.
#[derive(Debug)]
pub(crate) struct H2 {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    outgoing: Option<Outgoing>,
    /// It asked to speak something else (RFC 8441).
    connects: bool,
    /// It waits for a word before it sends its body (RFC 9110 §10.1.1).
    expects_continue: bool,
}

/// Serve a connection until it ends; on drain it says GOAWAY and finishes its streams.
pub(crate) async fn serve(worker: Rc<Worker>, io: Io, early: BytesMut, info: ConnInfo) {
    let limits = worker.snapshot().limits;
    let wire = Coalesced::new(Watched::new(io, early));
    let shaking = builder(&limits).handshake::<_, Bytes>(wire.clone());
    let Ok(Ok(mut connection)) = timeout(limits.header_timeout, shaking).await else {
        worker.metrics.malformed.inc();
        return;
    };
    let drain = worker.drain();
    let mut draining = pin!(drain.draining());
    let info = Rc::new(info);
    let mut streams = FuturesUnordered::new();
    let alarms = Alarms::default();
    let mut alarm = Alarm::new(worker.bear(limits.idle_timeout, info.seat.as_ref()));
    let mut leaving = false;
    poll_fn(|cx| {
        loop {
            // First what is to be answered, so that it goes out with this poll.
            while let Poll::Ready(Some(())) = streams.poll_next_unpin(cx) {
                alarm.set(if leaving {
                    LEAVING
                } else {
                    limits.idle_timeout
                });
            }
            match next(&mut connection, &wire, cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    streams.extend(start(&worker, &info, &alarms, request, respond));
                    if worker.turns.is_long(cx) {
                        return Poll::Pending;
                    }
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            if let Some(reason) = wire.with(Watched::refused) {
                worker.metrics.malformed.inc();
                connection.abrupt_shutdown(reason);
                return Poll::Ready(());
            }
            let resting = streams.is_empty() && alarm.poll(cx).is_ready();
            if leaving {
                return if resting {
                    Poll::Ready(())
                } else {
                    Poll::Pending
                };
            }
            let stays = draining.as_mut().poll(cx).is_pending() && info.poll_leave(cx).is_pending();
            if !resting && stays {
                return Poll::Pending;
            }
            leaving = true;
            alarm.set(LEAVING);
            connection.graceful_shutdown();
        }
    })
    .await;
    finish(connection, &wire).await;
    // They have nobody left to answer, and end by that; each still has its record to write.
    while streams.next().await.is_some() {}
}

fn builder(limits: &Limits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.concurrent_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(ERROR_RESETS))
        .enable_connect_protocol();
    builder
}

/// Drive the connection, and then send what that produced in one go.
fn next(
    connection: &mut Connection<Coalesced, Bytes>,
    wire: &Coalesced,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Accepted, h2::Error>>> {
    let accepted = connection.poll_accept(cx);
    if accepted.is_pending()
        && let Poll::Ready(Err(_)) = wire.poll_flush_now(cx)
    {
        return Poll::Ready(None);
    }
    accepted
}

type Accepted = (http::Request<RecvStream>, SendResponse<Bytes>);

/// Let what is queued go out. The peer may be gone already; nothing depends on it.
async fn finish(mut connection: Connection<Coalesced, Bytes>, wire: &Coalesced) {
    let closing = poll_fn(|cx| {
        let closed = connection.poll_closed(cx).is_ready();
        let flushed = ready!(wire.poll_flush_now(cx));
        if closed || flushed.is_err() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    let _ = timeout(GOODBYE, closing).await;
}

/// The life of a stream, unless it ended with its head.
fn start(
    worker: &Rc<Worker>,
    info: &Rc<ConnInfo>,
    alarms: &Alarms,
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Option<Pin<Box<impl Future<Output = ()> + use<>>>> {
    let (mut parts, recv) = request.into_parts();
    let protocol = parts.extensions.remove::<Protocol>();
    let incoming = Incoming::new(recv);
    let checked = checked(parts, incoming.is_done(), &worker.snapshot().limits);
    let request = match checked.and_then(|request| upgraded(request, protocol)) {
        Ok(request) => request,
        Err(status) => {
            let mut answer = Response::new(());
            *answer.status_mut() = status;
            // The peer may have reset the stream: then there is nobody to tell.
            let _ = respond.send_response(answer, true);
            worker.metrics.malformed.inc();
            return None;
        }
    };
    let extended = request.protocol == EXTENDED;
    let expects = request.fields.first(Known::Expect);
    let expects_continue = !incoming.is_done()
        && expects.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    let mut stream = H2 {
        incoming,
        respond,
        outgoing: None,
        connects: extended,
        expects_continue,
    };
    let (worker, info, alarms) = (Rc::clone(worker), Rc::clone(info), Rc::clone(alarms));
    let mut alarm = {
        let patience = worker.snapshot().limits.request_timeout;
        let free = alarms.borrow_mut().pop();
        let mut alarm = free.unwrap_or_else(|| Alarm::new(patience));
        alarm.set(patience);
        alarm
    };
    Some(exchange::boxed(move || async move {
        {
            let client = &mut Client::H2(&mut stream);
            let serving = exchange::serve(&worker, &info, client, &mut alarm, request);
            let mut serving = pin!(serving);
            // Streams of one connection that are ready together are more than a turn.
            poll_fn(|cx| {
                ready!(worker.turns.poll_short(cx));
                serving.as_mut().poll(cx)
            })
            .await;
        }
        alarms.borrow_mut().push(alarm);
    }))
}

/// An extended CONNECT (RFC 8441 §4) as the upgrade that an HTTP/1.1 endpoint knows; the key is
/// only there to be echoed.
pub(super) fn upgraded(
    mut request: Request,
    protocol: Option<Protocol>,
) -> Result<Request, StatusCode> {
    let Some(protocol) = protocol else {
        return Ok(request);
    };
    if request.method != Method::CONNECT || request.target.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    // It becomes a line of a head: a token, and one that means the same there.
    let token = Some(protocol.as_str()).filter(|token| is_token(token) && *token != "h2c");
    let token = token.ok_or(StatusCode::BAD_REQUEST)?;
    let token = HeaderValue::from_str(token).map_err(|_| StatusCode::BAD_REQUEST)?;
    l7::headers::upgrade(&mut request.fields, &token);
    if token == "websocket" {
        let fields = &mut request.fields;
        fields.insert(&header::SEC_WEBSOCKET_KEY, &WEBSOCKET_KEY);
    }
    request.method = Method::GET;
    request.protocol = EXTENDED;
    Ok(request)
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(good)
}

/// What `h2` leaves to check, and the shape an HTTP/1.1 upstream needs.
pub(super) fn checked(
    parts: Parts,
    bodiless: bool,
    limits: &Limits,
) -> Result<Request, StatusCode> {
    let Parts {
        method,
        uri,
        headers,
        ..
    } = parts;
    if headers.len() > limits.header_count {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    if !are_fields(&headers) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let target = uri.path_and_query().map_or("", |p| p.as_str());
    if target.len() > limits.request_line_bytes {
        return Err(StatusCode::URI_TOO_LONG);
    }
    if !target.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(StatusCode::BAD_REQUEST);
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => Some(host.to_str().map_err(|_| StatusCode::BAD_REQUEST)?),
        (Some(_), Some(_)) => return Err(StatusCode::BAD_REQUEST),
    };
    let authority = match (uri.authority(), host) {
        (Some(a), Some(host)) if !a.as_str().eq_ignore_ascii_case(host) => {
            return Err(StatusCode::BAD_REQUEST);
        }
        (Some(a), _) => a.as_str().to_owned(),
        (None, Some(host)) => host.to_owned(),
        (None, None) => return Err(StatusCode::BAD_REQUEST),
    };
    let host = HeaderValue::from_str(&authority).map_err(|_| StatusCode::BAD_REQUEST)?;
    let framing = framing(&method, &headers, bodiless)?;
    let mut fields = Fields::from(&headers);
    fields.insert(&header::HOST, &host);
    join_cookies(&mut fields);
    Ok(Request {
        target: target.to_owned(),
        method,
        authority,
        fields,
        framing,
        protocol: "h2",
    })
}

fn framing(method: &Method, headers: &HeaderMap, bodiless: bool) -> Result<Framing, StatusCode> {
    if bodiless || method == Method::CONNECT {
        return Ok(Framing::None);
    }
    // `h2` holds the body to its content-length.
    match headers.get(header::CONTENT_LENGTH) {
        None => Ok(Framing::Chunked),
        Some(value) => {
            let length = value.to_str().ok().and_then(|v| v.parse().ok());
            length.map(Framing::Length).ok_or(StatusCode::BAD_REQUEST)
        }
    }
}

/// RFC 9113 §8.2.3: cookie crumbs become one line again.
fn join_cookies(fields: &mut Fields) {
    if fields.all(Known::Cookie).nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = fields.all(Known::Cookie).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        fields.insert(&header::COOKIE, &joined);
    }
}

fn gone(error: h2::Error) -> ClientError {
    ClientError::Gone(runtime::h2io::io_error(error))
}

impl H2 {
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        if std::mem::take(&mut self.expects_continue) {
            self.inform(StatusCode::CONTINUE, &Fields::default());
        }
        self.incoming.poll_piece(cx).map_err(gone)
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        let reset = match &mut self.outgoing {
            Some(outgoing) => ready!(outgoing.poll_reset(cx)),
            None => ready!(self.respond.poll_reset(cx)),
        };
        Poll::Ready(match reset {
            Ok(_) => ClientError::Gone(io::ErrorKind::ConnectionReset.into()),
            Err(error) => gone(error),
        })
    }

    pub(super) fn inform(&mut self, status: StatusCode, fields: &Fields) {
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = fields.to_map();
        // A hint that cannot be sent is no loss.
        let _ = self.respond.send_informational(response);
    }

    pub(super) fn head(
        &mut self,
        status: StatusCode,
        fields: &Fields,
        framing: Framing,
    ) -> Result<(), ClientError> {
        let mut response = Response::new(());
        // A success would say that the stream speaks something else now (RFC 8441 §5).
        let refused = self.connects && status.is_success();
        *response.status_mut() = if refused {
            StatusCode::BAD_GATEWAY
        } else {
            status
        };
        *response.headers_mut() = fields.to_map();
        let send = self
            .respond
            .send_response(response, framing == Framing::None)
            .map_err(gone)?;
        self.outgoing = Some(Outgoing::new(send));
        Ok(())
    }

    /// The stream speaks something else from now on.
    pub(super) fn switch(&mut self, mut fields: Fields) -> Result<(), ClientError> {
        l7::headers::strip(&mut fields);
        fields.remove(&header::SEC_WEBSOCKET_ACCEPT);
        self.connects = false;
        self.head(StatusCode::OK, &fields, Framing::Close)
    }

    pub(super) fn data(&mut self, piece: Bytes) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.data(piece);
        }
    }

    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.end(trailers);
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        let Some(outgoing) = &mut self.outgoing else {
            return Poll::Ready(Ok(()));
        };
        match ready!(outgoing.poll_flush(cx)) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Ready(Err(ClientError::Gone(io::ErrorKind::BrokenPipe.into()))),
            Err(error) => Poll::Ready(Err(gone(error))),
        }
    }

    pub(super) fn abort(&mut self) {
        match &mut self.outgoing {
            Some(outgoing) => outgoing.reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
