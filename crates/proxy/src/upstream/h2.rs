//! HTTP/2 toward endpoints that speak it from the first octet (RFC 9113 §3.3): connections that
//! many requests share, and one request's stream.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use balance::Connection as Counted;
use base::Instant;
use bytes::Bytes;
use h2::{
    Reason,
    client::{Builder, Connection, ResponseFuture, SendRequest},
};
use http::{HeaderValue, Method, Request, StatusCode, Uri, header, response::Parts, uri};
use l7::{Fields, Known};
use runtime::h2io::io_error;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{PoolKey, conn::RecvError};
use crate::{
    attempt::Place,
    h2stream::{Incoming, Outgoing, are_fields},
    http1::{Framing, HeadError, Piece, ResponseHead, head::content_length, wire::ReadError},
    turns::Line,
    worker::Worker,
};

/// Receive windows: one stream, and all streams of a connection together.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const SEND_BUFFER: usize = 64 << 10;
/// The largest head of a response.
const MAX_HEAD: u32 = 64 << 10;
/// Connections a worker has to one endpoint; when all are full, requests wait for a place.
const MOST: usize = 8;
/// A connection on which nothing runs for so long is closed.
const IDLE: Duration = Duration::from_secs(30);

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Shared(RefCell<BTreeMap<PoolKey, Vec<Open>>>);

/// One of them: whoever has a stream on it holds it too.
#[derive(Clone)]
struct Open {
    send: SendRequest<Bytes>,
    used_at: Rc<Cell<Instant>>,
}

impl std::fmt::Debug for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Open")
    }
}

/// Why there is no stream.
#[derive(Debug)]
pub(crate) enum NoStream {
    /// Nobody listens, or not in time.
    Connect(io::Error),
    /// It does not speak HTTP/2.
    Protocol,
    /// The service has as many connections as it may.
    Full,
}

impl Shared {
    /// A connection with room for one more stream.
    fn ready(&self, key: &PoolKey) -> Option<SendRequest<Bytes>> {
        let mut all = self.0.borrow_mut();
        let open = all.get_mut(key)?;
        let mut cx = Context::from_waker(Waker::noop());
        let mut found = None;
        open.retain_mut(|open| {
            if found.is_some() {
                return true;
            }
            match open.send.poll_ready(&mut cx) {
                Poll::Ready(Ok(())) => {
                    open.used_at.set(runtime::now());
                    found = Some(open.send.clone());
                    true
                }
                Poll::Ready(Err(_)) => false,
                Poll::Pending => true,
            }
        });
        found
    }

    /// One to wait for, if there may be no more of them.
    fn full(&self, key: &PoolKey) -> Option<SendRequest<Bytes>> {
        let all = self.0.borrow();
        let open = all.get(key).filter(|open| open.len() >= MOST)?;
        open.first().map(|open| open.send.clone())
    }

    fn put(&self, key: PoolKey, open: Open) {
        self.0.borrow_mut().entry(key).or_default().push(open);
    }

    /// Give no more streams to this one; it ends with those that it has.
    fn forget(&self, key: &PoolKey, used_at: &Rc<Cell<Instant>>) {
        let mut all = self.0.borrow_mut();
        if let Some(open) = all.get_mut(key) {
            open.retain(|open| !Rc::ptr_eq(&open.used_at, used_at));
            if open.is_empty() {
                all.remove(key);
            }
        }
    }

    /// Give no more streams to any.
    pub(crate) fn clear(&self) {
        self.0.borrow_mut().clear();
    }
}

/// A stream to the endpoint: on a connection that is there, or on a new one.
pub(crate) async fn stream(
    worker: &Rc<Worker>,
    place: &Place<'_>,
    patience: Duration,
) -> Result<H2, NoStream> {
    let key = place.key;
    if let Some(send) = worker.shared.ready(&key) {
        return Ok(H2::new(send, true));
    }
    if let Some(send) = worker.shared.full(&key)
        && let Ok(Ok(send)) = timeout(patience, send.ready()).await
    {
        return Ok(H2::new(send, true));
    }
    let _connecting = place.connecting().ok_or(NoStream::Full)?;
    let counted = Counted::open(place.stats);
    let address = key.endpoint.address;
    let tcp = runtime::net::tcp_connect(address, patience)
        .await
        .map_err(NoStream::Connect)?;
    let shaking = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .enable_push(false)
        .handshake::<_, Bytes>(tcp);
    let (send, connection) = match timeout(patience, shaking).await {
        Ok(Ok(both)) => both,
        Ok(Err(_)) | Err(_) => return Err(NoStream::Protocol),
    };
    let used_at = Rc::new(Cell::new(runtime::now()));
    let drive = drive(Rc::clone(worker), key, connection, Rc::clone(&used_at));
    worker.spawn("h2-upstream", (key.tenant, Line::default()), async move {
        drive.await;
        drop(counted);
    });
    let send = send.ready().await.map_err(|_| NoStream::Protocol)?;
    let open = Open {
        send: send.clone(),
        used_at,
    };
    worker.shared.put(key, open);
    Ok(H2::new(send, false))
}

/// Drive a connection until it ends: by its peer, or, when it rests or the worker leaves, with the
/// last of those that have a stream on it.
async fn drive(
    worker: Rc<Worker>,
    key: PoolKey,
    connection: Connection<TcpStream, Bytes>,
    used_at: Rc<Cell<Instant>>,
) {
    let drain = worker.drain();
    let mut connection = pin!(connection);
    let mut draining = pin!(drain.draining());
    let mut leaving = false;
    loop {
        let rests_at = used_at.get() + IDLE;
        tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(endpoint = %key.endpoint, %error, "a connection ended");
                }
                worker.shared.forget(&key, &used_at);
                return;
            }
            () = &mut draining, if !leaving => leaving = true,
            () = sleep(rests_at.since(runtime::now())), if !leaving => {
                leaving = runtime::now().since(used_at.get()) >= IDLE;
            }
        }
        if leaving {
            worker.shared.forget(&key, &used_at);
        }
    }
}

/// One request's stream.
pub(crate) struct H2 {
    send: SendRequest<Bytes>,
    used: bool,
    response: Option<Result<ResponseFuture, h2::Error>>,
    outgoing: Option<Outgoing>,
    incoming: Option<Incoming>,
}

impl std::fmt::Debug for H2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("H2")
    }
}

impl H2 {
    const fn new(send: SendRequest<Bytes>, used: bool) -> Self {
        H2 {
            send,
            used,
            response: None,
            outgoing: None,
            incoming: None,
        }
    }

    pub(super) const fn is_used(&self) -> bool {
        self.used
    }

    pub(super) fn start(
        &mut self,
        method: &Method,
        target: &str,
        fields: &Fields,
        framing: Framing,
    ) {
        let Some(request) = request(method, target, fields) else {
            self.response = Some(Err(Reason::INTERNAL_ERROR.into()));
            return;
        };
        let bodiless = framing == Framing::None;
        match self.send.send_request(request, bodiless) {
            Ok((response, send)) => {
                self.response = Some(Ok(response));
                self.outgoing = (!bodiless).then(|| Outgoing::new(send));
            }
            Err(error) => self.response = Some(Err(error)),
        }
    }

    pub(super) fn data(&mut self, piece: Bytes) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.data(piece);
        }
    }

    pub(super) fn end(&mut self, trailers: Option<http::HeaderMap>) {
        if let Some(outgoing) = &mut self.outgoing {
            outgoing.end(trailers);
        }
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(outgoing) = &mut self.outgoing else {
            return Poll::Ready(Ok(()));
        };
        match ready!(outgoing.poll_flush(cx)) {
            Ok(true) => Poll::Ready(Ok(())),
            Ok(false) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Err(error) => Poll::Ready(Err(io_error(error))),
        }
    }

    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        to: &Method,
    ) -> Poll<Result<ResponseHead, RecvError>> {
        let response = match &mut self.response {
            Some(Ok(response)) => {
                if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(cx) {
                    return Poll::Ready(interim_head(interim.into_parts().0));
                }
                ready!(Pin::new(response).poll(cx))
            }
            Some(Err(_)) | None => match self.response.take() {
                Some(Err(error)) => Err(error),
                Some(Ok(_)) | None => return Poll::Ready(Err(RecvError::Closed)),
            },
        };
        self.response = None;
        let response = match response {
            Ok(response) => response,
            Err(error) if error.reason() == Some(Reason::REFUSED_STREAM) => {
                return Poll::Ready(Err(RecvError::Refused));
            }
            Err(error) => return Poll::Ready(Err(RecvError::Io(io_error(error)))),
        };
        let (parts, recv) = response.into_parts();
        if !are_fields(&parts.headers) {
            let error = HeadError::Bad("a malformed field");
            return Poll::Ready(Err(RecvError::Head(error)));
        }
        let incoming = Incoming::new(recv);
        let bodiless = to == Method::HEAD
            || matches!(
                parts.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let fields = Fields::from(&parts.headers);
        let length = match content_length(&fields) {
            Ok(length) => length,
            Err(error) => return Poll::Ready(Err(RecvError::Head(error))),
        };
        let framing = match length {
            _ if bodiless || incoming.is_done() => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        self.incoming = Some(incoming);
        Poll::Ready(Ok(ResponseHead {
            status: parts.status,
            fields,
            framing,
            keep_alive: true,
        }))
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.incoming.as_ref().is_some_and(Incoming::is_at_end)
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ReadError>> {
        let Some(incoming) = &mut self.incoming else {
            return Poll::Ready(Ok(Piece::End(None)));
        };
        let piece = ready!(incoming.poll_piece(cx));
        Poll::Ready(piece.map_err(|error| ReadError::Io(io_error(error))))
    }
}

/// RFC 9110 §15.2: interim responses are passed on, but not 101 (RFC 9113 §8.6).
fn interim_head(parts: Parts) -> Result<ResponseHead, RecvError> {
    if parts.status == StatusCode::SWITCHING_PROTOCOLS || !are_fields(&parts.headers) {
        let error = HeadError::Bad("a malformed interim response");
        return Err(RecvError::Head(error));
    }
    Ok(ResponseHead {
        status: parts.status,
        fields: Fields::from(&parts.headers),
        framing: Framing::None,
        keep_alive: true,
    })
}

/// What concerns an HTTP/1.1 connection has no place here (RFC 9113 §8.2.2); that trailers are
/// understood has, since gRPC's servers want to hear it. `None`: the target cannot be said.
fn request(method: &Method, target: &str, fields: &Fields) -> Option<Request<()>> {
    let mut headers = fields.to_map();
    let host = headers.remove(header::HOST);
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(name);
    }
    if fields.first(Known::Te).is_none() {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let mut parts = uri::Parts::default();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    let star = target == "*" && method == Method::OPTIONS;
    let target = if star { "*" } else { target };
    let parsed = target.parse().or_else(|_| escaped(target).parse());
    parts.path_and_query = Some(parsed.ok()?);
    if parts.authority.is_none() {
        parts.scheme = None;
    }
    let mut request = Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = Uri::from_parts(parts).ok()?;
    *request.headers_mut() = headers;
    Some(request)
}

/// A target that has what no URI has (RFC 3986 §2) and clients of HTTP/1.1 send all the same.
fn escaped(target: &str) -> String {
    let mut out = String::with_capacity(target.len() + 16);
    for octet in target.chars() {
        match octet {
            '"' => out.push_str("%22"),
            '<' => out.push_str("%3C"),
            '>' => out.push_str("%3E"),
            '\\' => out.push_str("%5C"),
            '^' => out.push_str("%5E"),
            '`' => out.push_str("%60"),
            '{' => out.push_str("%7B"),
            '|' => out.push_str("%7C"),
            '}' => out.push_str("%7D"),
            other => out.push(other),
        }
    }
    out
}
