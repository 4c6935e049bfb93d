//! The HTTP/2 server side of one connection: [`crate::http2`] over a client's stream.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::FuturesUnordered};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use l7::{Fields, Known};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::timeout,
};

use super::{Client, ClientError, ConnInfo, Request};
use crate::{
    alarm::Alarm,
    exchange,
    http1::{Framing, Piece},
    http2::{Code, Connection, Gone, Opened},
    io::Io,
    message::Head,
    worker::Worker,
};

/// How a record calls an extended CONNECT.
pub(super) const EXTENDED: &str = "h2 connect";
/// Any sixteen octets: RFC 8441 §5.1 has no key, RFC 6455 wants one.
const WEBSOCKET_KEY: HeaderValue = HeaderValue::from_static("AAAAAAAAAAAAAAAAAAAAAA==");
/// Octets that are read at once.
const READ: usize = 16 << 10;
/// How long a client may leave a GOAWAY unanswered when nothing of it runs.
const LEAVING: Duration = Duration::from_millis(300);
/// How long the last frames may take, and how long if there may be something of an answer in them.
const GOODBYE: Duration = Duration::from_millis(300);
const LONG_GOODBYE: Duration = Duration::from_secs(10);

/// Those of streams that have ended, for the next ones.
type Alarms = Rc<RefCell<Vec<Alarm>>>;

type Shared = Rc<RefCell<Connection>>;

/// One stream: a request and its response.
#[derive(Debug)]
pub(crate) struct H2 {
    connection: Shared,
    place: usize,
    /// What goes: one piece at a time, as far as the client's window lets it.
    pending: Bytes,
    end: Option<Option<HeaderMap>>,
    /// It asked to speak something else (RFC 8441).
    connects: bool,
    /// It waits for a word before it sends its body (RFC 9110 §10.1.1).
    expects_continue: bool,
}

/// A client's stream under its connection.
struct Wire {
    io: Io,
    /// What was read before anybody knew what it is.
    early: BytesMut,
    flushed: bool,
}

impl Wire {
    /// Let the connection have what comes; false at the end.
    fn poll_read(&mut self, connection: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        let came = if self.early.is_empty() {
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
            read.filled()
        } else {
            &self.early
        };
        if came.is_empty() {
            return Poll::Ready(Ok(false));
        }
        let good = connection.borrow_mut().receive(came, runtime::now);
        self.early = BytesMut::new();
        match good {
            true => Poll::Ready(Ok(true)),
            false => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Ready when all is written that is to go out.
    fn poll_flush(&mut self, connection: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut connection = connection.borrow_mut();
            if connection.out().is_empty() {
                connection.written(0);
                break;
            }
            self.flushed = false;
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, connection.out()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            connection.written(count);
        }
        if !self.flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Serve a connection until it ends; on drain it says GOAWAY and finishes its streams.
pub(crate) async fn serve(worker: Rc<Worker>, io: Io, early: BytesMut, info: ConnInfo) {
    let limits = worker.snapshot().limits;
    let connection = Rc::new(RefCell::new(Connection::new(&limits, runtime::now())));
    let mut wire = Wire {
        io,
        early,
        flushed: true,
    };
    let beginning = poll_fn(|cx| poll_begin(&mut wire, &connection, cx));
    let Ok(Ok(())) = timeout(limits.header_timeout, beginning).await else {
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
            let opened = connection.borrow_mut().next();
            if let Some(opened) = opened {
                streams.extend(start(&worker, &info, &alarms, &connection, opened));
                if worker.turns.is_long(cx) {
                    return Poll::Pending;
                }
                continue;
            }
            let (ended, full, over) = {
                let connection = connection.borrow();
                let over = connection.is_leaving() && connection.is_at_rest();
                (connection.ended().is_some(), connection.is_full(), over)
            };
            if ended || over {
                return Poll::Ready(());
            }
            // Who reads nothing is not read either.
            if !full {
                match wire.poll_read(&connection, cx) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(()),
                    Poll::Pending => {}
                }
            }
            match wire.poll_flush(&connection, cx) {
                Poll::Ready(Err(_)) => return Poll::Ready(()),
                // There is room again.
                Poll::Ready(Ok(())) if full => continue,
                Poll::Ready(Ok(())) | Poll::Pending => {}
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
            connection.borrow_mut().leave();
        }
    })
    .await;
    if connection.borrow().ended().is_some() {
        worker.metrics.malformed.inc();
    }
    finish(&mut wire, &connection).await;
    // They have nobody left to answer, and end by that; each still has its record to write.
    while streams.next().await.is_some() {}
}

/// Until the client's preface and its settings are here.
fn poll_begin(wire: &mut Wire, connection: &Shared, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    loop {
        let begun = {
            let connection = connection.borrow();
            connection.has_begun() || connection.ended().is_some()
        };
        if begun {
            return Poll::Ready(Ok(()));
        }
        match wire.poll_read(connection, cx) {
            Poll::Ready(Ok(true)) => {}
            Poll::Ready(Ok(false)) => {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            // Our settings need not wait for the client's.
            Poll::Pending => {
                let _ = wire.poll_flush(connection, cx)?;
                return Poll::Pending;
            }
        }
    }
}

/// Say what is the last stream, and let what is queued go out. The peer may be gone already; but if
/// all was served the end of an answer may be among it, and on a full socket room comes seldom.
async fn finish(wire: &mut Wire, connection: &Shared) {
    let patience = {
        let mut connection = connection.borrow_mut();
        let served = connection.ended().is_none() && connection.is_at_rest();
        if connection.ended().is_none() {
            connection.tell();
        }
        connection.end(Code::NoError);
        if served { LONG_GOODBYE } else { GOODBYE }
    };
    let closing = poll_fn(|cx| {
        ready!(wire.poll_flush(connection, cx))?;
        Pin::new(&mut wire.io).poll_shutdown(cx)
    });
    let _ = timeout(patience, closing).await;
}

/// The life of a stream, unless it ended with its head.
fn start(
    worker: &Rc<Worker>,
    info: &Rc<ConnInfo>,
    alarms: &Alarms,
    connection: &Shared,
    opened: Opened,
) -> Option<Pin<Box<impl Future<Output = ()> + use<>>>> {
    let Opened {
        place,
        head,
        is_whole,
    } = opened;
    let mut stream = H2 {
        connection: Rc::clone(connection),
        place,
        pending: Bytes::new(),
        end: None,
        connects: false,
        expects_continue: false,
    };
    let request = match request(head, is_whole, "h2") {
        Ok(request) => request,
        Err(status) => {
            // The client may have reset the stream: then there is nobody to tell.
            let _ = stream.head(status, &Fields::default(), Framing::None);
            worker.metrics.malformed.inc();
            return None;
        }
    };
    stream.connects = request.protocol == EXTENDED;
    let expects = request.fields.first(Known::Expect);
    stream.expects_continue =
        !is_whole && expects.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
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

/// What a stream asks for by its head, over this protocol; nothing comes after that if it `is_whole`.
///
/// # Errors
/// The status of the answer.
pub(super) fn request(
    head: Head,
    is_whole: bool,
    protocol: &'static str,
) -> Result<Request, StatusCode> {
    let framing = match head.length {
        _ if is_whole || head.method == Method::CONNECT => Framing::None,
        None => Framing::Chunked,
        // The stream holds the body to it.
        Some(length) => Framing::Length(length),
    };
    let request = Request {
        method: head.method,
        target: head.target,
        authority: head.authority,
        fields: head.fields,
        framing,
        protocol,
    };
    upgraded(request, head.protocol.as_deref())
}

/// An extended CONNECT (RFC 8441 §4) as the upgrade that an HTTP/1.1 endpoint knows; the key is
/// only there to be echoed.
fn upgraded(mut request: Request, protocol: Option<&str>) -> Result<Request, StatusCode> {
    let Some(protocol) = protocol else {
        return Ok(request);
    };
    if request.method != Method::CONNECT || request.target.is_empty() {
        return Err(StatusCode::BAD_REQUEST);
    }
    // It becomes a line of a head: a token, and one that means the same there.
    let token = Some(protocol).filter(|token| is_token(token) && *token != "h2c");
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

/// A stream that is over as an I/O error; the kinds are those of [`runtime::h2io::io_error`].
fn gone(gone: Gone) -> ClientError {
    let kind = match gone {
        Gone::Reset(code) if code == Code::NoError as u32 => io::ErrorKind::BrokenPipe,
        Gone::Reset(_) | Gone::Ours(_) => io::ErrorKind::ConnectionReset,
        Gone::Connection => io::ErrorKind::ConnectionAborted,
    };
    ClientError::Gone(kind.into())
}

impl H2 {
    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        if std::mem::take(&mut self.expects_continue) {
            self.inform(StatusCode::CONTINUE, &Fields::default());
        }
        let mut connection = self.connection.borrow_mut();
        connection.poll_piece(self.place, cx).map_err(gone)
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        let mut connection = self.connection.borrow_mut();
        connection.poll_gone(self.place, cx).map(gone)
    }

    pub(super) fn inform(&mut self, status: StatusCode, fields: &Fields) {
        let mut connection = self.connection.borrow_mut();
        // A hint that cannot be sent is no loss.
        let _ = connection.head(self.place, status, fields, false);
    }

    pub(super) fn head(
        &mut self,
        status: StatusCode,
        fields: &Fields,
        framing: Framing,
    ) -> Result<(), ClientError> {
        // A success would say that the stream speaks something else now (RFC 8441 §5).
        let status = match self.connects && status.is_success() {
            true => StatusCode::BAD_GATEWAY,
            false => status,
        };
        self.expects_continue = false;
        let mut connection = self.connection.borrow_mut();
        let ends = framing == Framing::None;
        connection
            .head(self.place, status, fields, ends)
            .map_err(gone)
    }

    /// The stream speaks something else from now on.
    pub(super) fn switch(&mut self, mut fields: Fields) -> Result<(), ClientError> {
        l7::headers::strip(&mut fields);
        fields.remove(&header::SEC_WEBSOCKET_ACCEPT);
        self.connects = false;
        self.head(StatusCode::OK, &fields, Framing::Close)
    }

    /// There has to be room: [`H2::poll_flush`] was ready.
    pub(super) fn data(&mut self, piece: Bytes) {
        debug_assert!(self.pending.is_empty(), "there is room");
        self.pending = piece;
    }

    pub(super) fn end(&mut self, trailers: Option<HeaderMap>) {
        self.end = Some(trailers);
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.pending.is_empty() && self.end.is_none() {
            return Poll::Ready(Ok(()));
        }
        let mut connection = self.connection.borrow_mut();
        connection
            .poll_send(self.place, &mut self.pending, &mut self.end, cx)
            .map_err(gone)
    }

    pub(super) fn abort(&mut self) {
        let mut connection = self.connection.borrow_mut();
        connection.reset(self.place, Code::InternalError);
    }
}

impl Drop for H2 {
    fn drop(&mut self) {
        self.connection.borrow_mut().release(self.place);
    }
}

#[cfg(test)]
mod tests;
