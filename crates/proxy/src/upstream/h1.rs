//! One HTTP/1.1 connection as its client.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use l7::{Fields, Limits};
use tokio::net::TcpStream;

use crate::{
    http1::{
        BodyDecoder, BodyEncoder, Framing, Piece, ResponseHead, Wire, encode, head, wire::ReadError,
    },
    io::Io,
    upstream::conn::RecvError,
};

/// A connection on which requests run one after the other.
#[derive(Debug)]
pub(super) struct H1 {
    wire: Wire,
    decoder: BodyDecoder,
    encoder: BodyEncoder,
    used: bool,
    keep_alive: bool,
    request_ended: bool,
}

impl H1 {
    pub(super) fn new(io: Io) -> Self {
        H1 {
            wire: Wire::new(io),
            decoder: BodyDecoder::Done,
            encoder: BodyEncoder::Plain,
            used: false,
            keep_alive: true,
            request_ended: true,
        }
    }

    /// Did it carry a request before?
    pub(super) const fn is_used(&self) -> bool {
        self.used
    }

    /// Begin a request.
    pub(super) fn start(
        &mut self,
        method: &Method,
        target: &str,
        fields: &Fields,
        framing: Framing,
    ) {
        self.encoder = encode::request(&mut self.wire.output, method, target, fields, framing);
        self.request_ended = false;
        self.keep_alive = false;
    }

    pub(super) fn data(&mut self, piece: Bytes) {
        self.encoder.data(&mut self.wire, piece);
    }

    pub(super) fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.encoder.end(&mut self.wire.output, trailers);
        self.request_ended = true;
    }

    /// The connection speaks something else from now on: both ways octets go as they come.
    pub(super) fn switch(&mut self) {
        self.decoder = BodyDecoder::Close;
        self.encoder = BodyEncoder::Plain;
        self.keep_alive = false;
    }

    /// Say that nothing more comes; ready when everything is sent.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }

    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_room(cx)
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    /// The next response head, informational ones too.
    pub(super) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        to: &Method,
    ) -> Poll<Result<ResponseHead, RecvError>> {
        loop {
            let wire = &mut self.wire;
            match head::response(&mut wire.input, &mut wire.seen, limits, to) {
                Ok(Some(head)) => {
                    self.decoder = BodyDecoder::new(head.framing);
                    self.keep_alive = head.keep_alive;
                    return Poll::Ready(Ok(head));
                }
                Ok(None) => {}
                Err(error) => return Poll::Ready(Err(RecvError::Head(error))),
            }
            match ready!(self.wire.poll_fill(cx)) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(RecvError::Closed)),
                Err(error) => return Poll::Ready(Err(RecvError::Io(error))),
            }
        }
    }

    pub(super) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ReadError>> {
        self.wire.poll_body(cx, &mut self.decoder)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.decoder.is_done()
    }

    /// Its connection, and how much of the body is still to be read of it, if nothing but these
    /// octets comes next, in plain text.
    pub(super) fn splices(&self) -> Option<(&TcpStream, u64)> {
        let socket = self.wire.socket().filter(|_| self.wire.input.is_empty())?;
        Some((socket, self.decoder.left()?))
    }

    /// So much of the body was taken past us.
    pub(super) fn spliced(&mut self, count: u64) {
        self.decoder.skip(count);
    }

    /// Is it at rest, with nothing left over on either side?
    pub(super) fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.request_ended
            && self.decoder.is_done()
            && self.wire.input.is_empty()
            && self.wire.is_sent()
    }

    pub(super) fn rest(&mut self) {
        self.used = true;
        self.wire.rest();
    }

    pub(super) fn poll_unusable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_unusable(cx)
    }
}
