//! One HTTP/1.1 connection as its client.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, Method};
use l7::{Fields, Limits};

use crate::{
    http1::{
        BodyDecoder, BodyEncoder, Framing, HeadError, Piece, ResponseHead, Wire, encode, head,
        wire::ReadError,
    },
    io::Io,
};

/// How the connection reaches the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// TCP, in this site.
    Tcp,
    /// A tunnel stream to the egress of its site.
    Tunnel,
}

/// Why there is no response head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecvError {
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error("the connection was closed before a response")]
    Closed,
    #[error("the response is malformed")]
    Head(#[source] HeadError),
}

/// A connection on which requests run one after the other.
#[derive(Debug)]
pub(crate) struct UpConn {
    wire: Wire,
    decoder: BodyDecoder,
    encoder: BodyEncoder,
    via: Via,
    used: bool,
    keep_alive: bool,
    request_ended: bool,
}

impl UpConn {
    pub(crate) fn new(io: Io, via: Via) -> Self {
        UpConn {
            wire: Wire::new(io),
            decoder: BodyDecoder::Done,
            encoder: BodyEncoder::Plain,
            via,
            used: false,
            keep_alive: true,
            request_ended: true,
        }
    }

    pub(crate) const fn via(&self) -> Via {
        self.via
    }

    /// Did it carry a request before?
    pub(crate) const fn is_used(&self) -> bool {
        self.used
    }

    /// Begin a request.
    pub(crate) fn start(
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

    pub(crate) fn data(&mut self, piece: Bytes) {
        self.encoder.data(&mut self.wire, piece);
    }

    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) {
        self.encoder.end(&mut self.wire.output, trailers);
        self.request_ended = true;
    }

    /// The connection speaks something else from now on: both ways octets go as they come.
    pub(crate) fn switch(&mut self) {
        self.decoder = BodyDecoder::Close;
        self.encoder = BodyEncoder::Plain;
        self.keep_alive = false;
    }

    /// Say that nothing more comes; ready when everything is sent.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_shutdown(cx)
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_room(cx)
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    /// The next response head, informational ones too.
    pub(crate) fn poll_response(
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

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ReadError>> {
        self.wire.poll_body(cx, &mut self.decoder)
    }

    /// Is it at rest, with nothing left over on either side?
    pub(crate) fn is_reusable(&self) -> bool {
        self.keep_alive
            && self.request_ended
            && self.decoder.is_done()
            && self.wire.input.is_empty()
            && self.wire.is_sent()
    }

    pub(crate) fn rest(&mut self) {
        self.used = true;
    }

    pub(crate) fn poll_unusable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_unusable(cx)
    }
}
