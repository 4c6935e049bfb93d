//! The HTTP/1.1 server side of one connection.

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use l7::{Fields, Limits};
use tokio::{net::TcpStream, time::timeout};

use super::{Client, ClientError, Origin, Request, h2};
use crate::{
    alarm::Alarm,
    egress, exchange,
    http1::{
        BodyDecoder, BodyEncoder, Framing, HeadError, Piece, RequestHead, Version, Wire, encode,
        head, wire::ReadError,
    },
    seats::Seat,
    worker::Worker,
};

/// After an early answer the client may still be sending: read on this long, so that it gets to
/// read the answer before a reset.
const LINGER: Duration = Duration::from_millis(500);
const LINGER_BYTES: usize = 256 << 10;
/// How a client says that it speaks HTTP/2 (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The connection and where its current message stands.
#[derive(Debug)]
pub(crate) struct H1 {
    wire: Wire,
    decoder: BodyDecoder,
    encoder: BodyEncoder,
    version: Version,
    to_head: bool,
    expects_continue: bool,
    close: bool,
    aborted: bool,
}

/// How waiting for a request ended.
enum Next {
    Request(Box<RequestHead>),
    Refused(HeadError),
    /// It speaks HTTP/2 (RFC 9113 §3.3).
    Http2,
    /// Too slow after it had begun.
    Slow,
    /// Nothing has begun for a while, and the worker drains; or there is no place for it any more.
    Leave,
    /// Nothing more to do.
    Over,
}

/// Serve a connection until it ends or the worker drains.
pub(crate) async fn serve(worker: Rc<Worker>, wire: Wire, origin: Origin) {
    let mut conn = H1 {
        wire,
        decoder: BodyDecoder::Done,
        encoder: BodyEncoder::Plain,
        version: Version::V11,
        to_head: false,
        expects_continue: false,
        close: false,
        aborted: false,
    };
    let drain = worker.drain();
    let mut draining = pin!(drain.draining());
    let limits = worker.snapshot().limits;
    let mut patience = worker.bear(limits.header_timeout, origin.seat());
    let alarm = &mut Alarm::new(patience);
    // Only a client in plain text may begin with HTTP/2: over TLS it says so in the handshake.
    let mut fresh = matches!(&origin, Origin::Client(info) if !info.tls);
    while !conn.close {
        // Requests may come in one piece, more of them than are a turn.
        poll_fn(|cx| worker.turns.poll_short(cx)).await;
        let head = match conn
            .next(
                (&worker, origin.seat()),
                &limits,
                alarm,
                patience,
                fresh,
                draining.as_mut(),
            )
            .await
        {
            Next::Request(head) => head,
            Next::Http2 => {
                if let Origin::Client(info) = origin {
                    let (io, early) = conn.wire.into_parts();
                    Box::pin(h2::serve(worker, io, early, info)).await;
                }
                return;
            }
            Next::Refused(error) => {
                conn.refuse(error.status()).await;
                worker.metrics.malformed.inc();
                break;
            }
            Next::Slow => {
                conn.refuse(StatusCode::REQUEST_TIMEOUT).await;
                break;
            }
            Next::Leave => break,
            Next::Over => return,
        };
        patience = worker.bear(limits.idle_timeout, origin.seat());
        fresh = false;
        let request = conn.begin(*head);
        conn.close |= drain.is_draining() || origin.seat().is_some_and(|seat| seat.leaves());
        // Boxed: most connections carry no request at the moment.
        let (worker, client, alarm) = (&worker, &mut Client::H1(&mut conn), &mut *alarm);
        match &origin {
            Origin::Client(info) => {
                exchange::boxed(move || async move {
                    exchange::serve(worker, info, client, alarm, request).await;
                })
                .await;
            }
            Origin::Site {
                peer,
                request: claim,
            } => {
                exchange::boxed(move || async move {
                    egress::serve(worker, peer, claim, client, alarm, request).await;
                })
                .await;
            }
        }
        if conn.aborted {
            return;
        }
    }
    conn.goodbye().await;
}

/// Does `input`, as far as it goes, begin with `whole`? Nothing does not.
fn begins(whole: &[u8], input: &[u8]) -> bool {
    let both = whole.len().min(input.len());
    both > 0 && whole.get(..both) == input.get(..both)
}

impl H1 {
    async fn next<F: Future<Output = ()>>(
        &mut self,
        (worker, seat): (&Worker, Option<&Rc<Seat>>),
        limits: &Limits,
        alarm: &mut Alarm,
        patience: Duration,
        fresh: bool,
        mut draining: Pin<&mut F>,
    ) -> Next {
        alarm.set(patience);
        self.wire.rest();
        let (mut begun, mut leaving) = (false, false);
        poll_fn(|cx| {
            loop {
                let wire = &mut self.wire;
                if fresh && begins(PREFACE, &wire.input) {
                    if wire.input.len() >= PREFACE.len() {
                        return Poll::Ready(Next::Http2);
                    }
                } else {
                    match head::request(&mut wire.input, &mut wire.seen, limits) {
                        Ok(Some(head)) => return Poll::Ready(Next::Request(Box::new(head))),
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Next::Refused(error)),
                    }
                }
                if !begun && !wire.input.is_empty() {
                    begun = true;
                    alarm.set(limits.header_timeout);
                }
                match wire.poll_fill(cx) {
                    Poll::Ready(Ok(true)) => continue,
                    Poll::Ready(Ok(false) | Err(_)) => return Poll::Ready(Next::Over),
                    Poll::Pending => {}
                }
                if !begun && seat.is_some_and(|seat| seat.poll_leave(cx).is_ready()) {
                    return Poll::Ready(Next::Leave);
                }
                if !begun && !leaving && draining.as_mut().poll(cx).is_ready() {
                    leaving = true;
                    alarm.set(worker.grace().min(patience));
                }
                ready!(alarm.poll(cx));
                return Poll::Ready(match (begun, leaving) {
                    (true, _) => Next::Slow,
                    (false, true) => Next::Leave,
                    (false, false) => Next::Over,
                });
            }
        })
        .await
    }

    fn begin(&mut self, head: RequestHead) -> Request {
        self.decoder = BodyDecoder::new(head.framing);
        self.version = head.version;
        self.to_head = head.method == Method::HEAD;
        self.expects_continue = head.expects_continue && !self.decoder.is_done();
        // Whoever asks for a tunnel may send into it already: that is no request.
        self.close = !head.keep_alive || head.method == Method::CONNECT;
        Request {
            method: head.method,
            target: head.target,
            authority: head.authority,
            fields: head.fields,
            framing: head.framing,
            protocol: "http/1.1",
        }
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        if std::mem::take(&mut self.expects_continue) && self.wire.input.is_empty() {
            self.wire
                .output
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        if !self.wire.is_sent() && !self.decoder.is_done() {
            // The 100 must be out before we wait for what it asks for.
            if let Poll::Ready(Err(error)) = self.wire.poll_flush(cx) {
                return Poll::Ready(Err(ClientError::Gone(error)));
            }
        }
        self.wire
            .poll_body(cx, &mut self.decoder)
            .map_err(|error| match error {
                ReadError::Io(error) => ClientError::Gone(error),
                ReadError::Body(error) => ClientError::Body(error),
            })
    }

    /// The end of its stream means that the client gave up: one that closes its half early is so
    /// rare that the endpoint's time is worth more.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        if !self.decoder.is_done() || !self.wire.input.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill(cx)) {
            Ok(true) => Poll::Pending,
            Ok(false) => Poll::Ready(ClientError::Gone(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => Poll::Ready(ClientError::Gone(error)),
        }
    }

    pub(super) const fn last(&mut self) {
        self.close = true;
    }

    pub(super) fn inform(&mut self, status: StatusCode, fields: &Fields) {
        if self.version == Version::V11 {
            let out = &mut self.wire.output;
            encode::response(out, status, fields, Framing::None, false, true);
        }
    }

    pub(super) fn head(&mut self, status: StatusCode, fields: &Fields, framing: Framing) {
        // What is not read by now may never come; the connection cannot be used again.
        self.close |= !self.decoder.is_done();
        let bodiless = self.to_head || status == StatusCode::NOT_MODIFIED;
        let framing = match (framing, self.version) {
            (Framing::None | Framing::Length(_), _) => framing,
            (Framing::Chunked | Framing::Close, Version::V11) => Framing::Chunked,
            (Framing::Chunked | Framing::Close, Version::V10) => {
                self.close = true;
                Framing::Close
            }
        };
        let out = &mut self.wire.output;
        self.encoder = encode::response(out, status, fields, framing, self.close, bodiless);
    }

    /// The connection speaks something else from now on: both ways octets go as they come.
    pub(super) fn switch(&mut self, fields: &Fields) {
        self.hand_over(StatusCode::SWITCHING_PROTOCOLS, fields);
    }

    /// A CONNECT is granted (RFC 9110 §9.3.6).
    pub(super) fn connected(&mut self) {
        self.hand_over(StatusCode::OK, &Fields::default());
    }

    fn hand_over(&mut self, status: StatusCode, fields: &Fields) {
        let out = &mut self.wire.output;
        self.encoder = encode::response(out, status, fields, Framing::None, false, true);
        self.decoder = BodyDecoder::Close;
        self.close = true;
    }

    /// Say that nothing more comes, and go on reading.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.wire.poll_shutdown(cx).map_err(ClientError::Gone)
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.wire.poll_room(cx).map_err(ClientError::Gone)
    }

    pub(super) fn data(&mut self, piece: Bytes) {
        self.encoder.data(&mut self.wire, piece);
    }

    /// Its connection, if octets of the response may go into it as they are, in plain text.
    pub(super) fn splices(&self) -> Option<&TcpStream> {
        let plain = matches!(self.encoder, BodyEncoder::Plain);
        self.wire.socket().filter(|_| plain)
    }

    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.encoder.end(&mut self.wire.output, trailers);
        self.encoder = BodyEncoder::Plain;
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        self.wire.poll_flush(cx).map_err(ClientError::Gone)
    }

    pub(super) fn abort(&mut self) {
        // What was handed over has no other way to say that this is not all there was.
        if matches!(self.decoder, BodyDecoder::Close) {
            self.wire.abort();
        }
        self.close = true;
        self.aborted = true;
    }

    /// Answer a head that is none.
    async fn refuse(&mut self, status: StatusCode) {
        self.close = true;
        self.decoder = BodyDecoder::Close;
        let out = &mut self.wire.output;
        encode::response(out, status, &Fields::default(), Framing::None, true, false);
    }

    /// Close in order; never longer than [`LINGER`].
    async fn goodbye(&mut self) {
        let unread = !self.decoder.is_done();
        let farewell = poll_fn(|cx| -> Poll<io::Result<()>> {
            ready!(self.wire.poll_shutdown(cx))?;
            let mut left = LINGER_BYTES;
            while unread && left > 0 {
                self.wire.input.clear();
                if !ready!(self.wire.poll_fill(cx))? {
                    break;
                }
                left = left.saturating_sub(self.wire.input.len());
            }
            Poll::Ready(Ok(()))
        });
        // Whether the client heard it or not, the connection is over.
        let _ = timeout(LINGER, farewell).await;
    }
}
