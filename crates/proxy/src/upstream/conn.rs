//! A connection toward an endpoint, or a stream of one: what one request runs on.

use std::{
    io,
    task::{Context, Poll},
};

use balance::Connection;
use bytes::Bytes;
use http::{HeaderMap, Method};
use l7::{Fields, Limits};
use tokio::net::TcpStream;
use tunnel::WayId;

use super::{h1::H1, h2::H2};
use crate::{
    http1::{Framing, HeadError, Piece, ResponseHead, wire::ReadError},
    io::Io,
    load::Ear,
};

/// How the connection reaches the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    /// TCP, in this site.
    Tcp,
    /// A tunnel stream to the egress of its site, and over which others.
    Tunnel(WayId),
}

impl Via {
    pub(crate) const fn is_tunnel(self) -> bool {
        matches!(self, Via::Tunnel(_))
    }
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
    /// HTTP/2: the endpoint says that it has not looked at it (RFC 9113 §8.7).
    #[error("the endpoint took no more requests")]
    Refused,
}

/// What one request runs on.
#[derive(Debug)]
pub(crate) struct UpConn {
    via: Via,
    /// It is one client's, and the endpoint knows whose.
    private: bool,
    speaks: Speaks,
    /// Who listens to what the response says of its endpoint's load.
    ear: Option<Ear>,
    /// Of a stream, its connection is counted where that is.
    _counted: Option<Connection>,
}

#[derive(Debug)]
enum Speaks {
    /// A connection on which requests run one after the other.
    One(H1),
    /// A stream of its own.
    Two(H2),
}

impl UpConn {
    pub(crate) fn http1(io: Io, via: Via, counted: Connection) -> Self {
        UpConn {
            via,
            _counted: Some(counted),
            private: false,
            speaks: Speaks::One(H1::new(io)),
            ear: None,
        }
    }

    /// For one client alone: nobody else gets it afterwards.
    pub(crate) fn private(self) -> Self {
        UpConn {
            private: true,
            ..self
        }
    }

    pub(crate) const fn http2(stream: H2) -> Self {
        UpConn {
            via: Via::Tcp,
            private: false,
            speaks: Speaks::Two(stream),
            ear: None,
            _counted: None,
        }
    }

    pub(crate) const fn via(&self) -> Via {
        self.via
    }

    /// Did it carry a request before?
    pub(crate) const fn is_used(&self) -> bool {
        match &self.speaks {
            Speaks::One(conn) => conn.is_used(),
            Speaks::Two(stream) => stream.is_used(),
        }
    }

    /// Begin a request.
    pub(crate) fn start(
        &mut self,
        method: &Method,
        target: &str,
        fields: &Fields,
        framing: Framing,
    ) {
        match &mut self.speaks {
            Speaks::One(conn) => conn.start(method, target, fields, framing),
            Speaks::Two(stream) => stream.start(method, target, fields, framing),
        }
    }

    /// A piece of the request's body; there has to be room.
    pub(crate) fn data(&mut self, piece: Bytes) {
        match &mut self.speaks {
            Speaks::One(conn) => conn.data(piece),
            Speaks::Two(stream) => stream.data(piece),
        }
    }

    /// The request ends.
    pub(crate) fn end(&mut self, trailers: Option<&HeaderMap>) {
        match &mut self.speaks {
            Speaks::One(conn) => conn.end(trailers),
            Speaks::Two(stream) => stream.end(trailers.cloned()),
        }
    }

    /// The connection speaks something else from now on: both ways octets go as they come. (A
    /// stream of HTTP/2 is never asked to.)
    pub(crate) fn switch(&mut self) {
        if let Speaks::One(conn) = &mut self.speaks {
            conn.switch();
        }
    }

    /// Say that nothing more comes; ready when everything is sent.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.speaks {
            Speaks::One(conn) => conn.poll_shutdown(cx),
            Speaks::Two(stream) => stream.poll_flush(cx),
        }
    }

    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.speaks {
            Speaks::One(conn) => conn.poll_room(cx),
            Speaks::Two(stream) => stream.poll_flush(cx),
        }
    }

    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.speaks {
            Speaks::One(conn) => conn.poll_flush(cx),
            Speaks::Two(stream) => stream.poll_flush(cx),
        }
    }

    /// The next response head, informational ones too.
    pub(crate) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        limits: &Limits,
        to: &Method,
    ) -> Poll<Result<ResponseHead, RecvError>> {
        match &mut self.speaks {
            Speaks::One(conn) => conn.poll_response(cx, limits, to),
            Speaks::Two(stream) => stream.poll_response(cx, to),
        }
    }

    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ReadError>> {
        match &mut self.speaks {
            Speaks::One(conn) => conn.poll_body(cx),
            Speaks::Two(stream) => stream.poll_body(cx),
        }
    }

    /// Is there provably nothing more of the body to come, trailers neither?
    pub(crate) fn is_at_end(&self) -> bool {
        match &self.speaks {
            Speaks::One(conn) => conn.is_at_end(),
            Speaks::Two(stream) => stream.is_at_end(),
        }
    }

    /// Its connection, and how much of the body is still to be read of it, if nothing but these
    /// octets comes next, in plain text.
    pub(crate) fn splices(&self) -> Option<(&TcpStream, u64)> {
        match &self.speaks {
            Speaks::One(conn) => conn.splices(),
            Speaks::Two(_) => None,
        }
    }

    /// So much of the body was taken past us.
    pub(crate) fn spliced(&mut self, count: u64) {
        if let Speaks::One(conn) = &mut self.speaks {
            conn.spliced(count);
        }
    }

    /// Hear what its response says of the endpoint's load, here in its head and later in trailers.
    pub(crate) fn listen(&mut self, ear: Ear, head: &mut ResponseHead) {
        ear.head(&mut head.fields);
        self.ear = Some(ear);
    }

    /// These are its response's trailers: what is not for the client is taken out.
    pub(crate) fn trailed(&self, trailers: &mut HeaderMap) {
        if let Some(ear) = &self.ear {
            ear.trailers(trailers);
        }
    }

    /// Is it to be put back, and at rest, with nothing left over on either side? The connection
    /// of a stream is in the pool all the time.
    pub(crate) fn is_reusable(&self) -> bool {
        match &self.speaks {
            Speaks::One(conn) => !self.private && conn.is_reusable(),
            Speaks::Two(_) => false,
        }
    }

    pub(crate) fn rest(&mut self) {
        self.ear = None;
        if let Speaks::One(conn) = &mut self.speaks {
            conn.rest();
        }
    }

    pub(crate) fn poll_unusable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.speaks {
            Speaks::One(conn) => conn.poll_unusable(cx),
            Speaks::Two(_) => Poll::Ready(()),
        }
    }
}
