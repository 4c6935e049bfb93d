//! Toward the clients: HTTP/1.1, HTTP/2 and HTTP/3 servers that look the same to an exchange.

pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod h3;

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
};

use base::{LbId, SiteName, WallTime};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use l7::{Addresses, Fields};
use tokio::net::TcpStream;

use crate::{
    clients::{Certificate, Standing},
    http1::{BodyError, Framing, Piece},
    seats::Seat,
    snapshot::Snapshot,
    upstream::connect::StreamRequest,
};

/// What is known about a connection before its first request.
#[derive(Debug)]
pub(crate) struct ConnInfo {
    /// The client: who has connected, or who was passed on.
    pub(crate) peer: SocketAddr,
    /// What it has connected to.
    pub(crate) local: SocketAddr,
    /// Logical port.
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// Only CONNECT is served here, of this load balancer.
    pub(crate) connect: Option<LbId>,
    /// Normalised server name.
    pub(crate) sni: Option<String>,
    /// Its place; datagrams have none.
    pub(crate) seat: Option<Rc<Seat>>,
    /// What it has shown, if it was asked for a certificate.
    pub(crate) shown: Option<Rc<Certificate>>,
}

impl ConnInfo {
    /// How the client stands by its certificate now, if it was asked for one.
    pub(crate) fn standing(&self, snapshot: &Snapshot, now: WallTime) -> Option<Rc<Standing>> {
        self.shown.as_ref()?.standing(self, snapshot, now)
    }

    /// Ready when the connection has to go.
    pub(crate) fn poll_leave(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.seat {
            Some(seat) => seat.poll_leave(cx),
            None => Poll::Pending,
        }
    }

    pub(crate) const fn addresses(&self) -> Addresses {
        Addresses {
            source: self.peer,
            destination: self.local,
        }
    }
}

/// On whose behalf requests come.
#[derive(Debug)]
pub(crate) enum Origin {
    /// A client's connection to a listener.
    Client(ConnInfo),
    /// A tunnel stream, fixed to one endpoint.
    Site {
        peer: SiteName,
        request: StreamRequest,
    },
}

impl Origin {
    /// A client's place.
    pub(crate) const fn seat(&self) -> Option<&Rc<Seat>> {
        match self {
            Origin::Client(info) => info.seat.as_ref(),
            Origin::Site { .. } => None,
        }
    }
}

/// A request, parsed and checked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    /// As asked for.
    pub(crate) authority: String,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) protocol: &'static str,
}

/// What can go wrong on a client's side.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("the client is gone")]
    Gone(#[source] io::Error),
    #[error("the client's body is malformed")]
    Body(#[source] BodyError),
    #[error("the client's body is too large")]
    TooLarge,
}

/// One request's client: where its body comes from and its response goes to.
pub(crate) enum Client<'a> {
    H1(&'a mut h1::H1),
    H2(&'a mut h2::H2),
    H3(&'a mut h3::H3),
    /// Nobody waits for the response, as with a copy of a request.
    Nobody,
}

impl Client<'_> {
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, ClientError>> {
        match self {
            Client::H1(c) => c.poll_body(cx),
            Client::H2(c) => c.poll_body(cx),
            Client::H3(c) => c.poll_body(cx),
            Client::Nobody => Poll::Ready(Ok(Piece::End(None))),
        }
    }

    /// Ready when the client has given up, as far as that can be seen.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<ClientError> {
        match self {
            Client::H1(c) => c.poll_gone(cx),
            Client::H2(c) => c.poll_gone(cx),
            Client::H3(c) => c.poll_gone(cx),
            Client::Nobody => Poll::Pending,
        }
    }

    /// What is answered now is the last on its connection, where that can be said with it.
    pub(crate) const fn last(&mut self) {
        match self {
            Client::H1(c) => c.last(),
            Client::H2(_) | Client::H3(_) | Client::Nobody => {}
        }
    }

    /// An informational response.
    pub(crate) fn inform(&mut self, status: StatusCode, fields: &Fields) {
        match self {
            Client::H1(c) => c.inform(status, fields),
            Client::H2(c) => c.inform(status, fields),
            Client::H3(c) => c.inform(status, fields),
            Client::Nobody => {}
        }
    }

    /// The response head; after `Framing::None` no body follows.
    pub(crate) fn head(
        &mut self,
        status: StatusCode,
        fields: &Fields,
        framing: Framing,
    ) -> Result<(), ClientError> {
        match self {
            Client::H1(c) => {
                c.head(status, fields, framing);
                Ok(())
            }
            Client::H2(c) => c.head(status, fields, framing),
            Client::H3(c) => c.head(status, fields, framing),
            Client::Nobody => Ok(()),
        }
    }

    /// The endpoint has agreed to speak something else: from now on `data` and `poll_body` are
    /// the octets of the connection.
    pub(crate) fn switch(&mut self, fields: Fields) -> Result<(), ClientError> {
        match self {
            Client::H1(c) => {
                c.switch(&fields);
                Ok(())
            }
            Client::H2(c) => c.switch(fields),
            Client::H3(c) => c.switch(fields),
            Client::Nobody => Ok(()),
        }
    }

    /// Its CONNECT is granted: from now on `data` and `poll_body` are the octets of a connection.
    pub(crate) fn connected(&mut self) -> Result<(), ClientError> {
        match self {
            Client::H1(c) => {
                c.connected();
                Ok(())
            }
            Client::H2(c) => c.switch(Fields::default()),
            Client::H3(c) => c.switch(Fields::default()),
            Client::Nobody => Ok(()),
        }
    }

    /// After [`Client::switch`]: nothing more comes from the endpoint.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Client::H1(c) => c.poll_shutdown(cx),
            Client::H2(c) => c.poll_flush(cx),
            Client::H3(c) => c.poll_flush(cx),
            Client::Nobody => Poll::Ready(Ok(())),
        }
    }

    /// Ready when another piece may be given.
    pub(crate) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Client::H1(c) => c.poll_room(cx),
            Client::H2(c) => c.poll_flush(cx),
            Client::H3(c) => c.poll_flush(cx),
            Client::Nobody => Poll::Ready(Ok(())),
        }
    }

    pub(crate) fn data(&mut self, piece: Bytes) {
        match self {
            Client::H1(c) => c.data(piece),
            Client::H2(c) => c.data(piece),
            Client::H3(c) => c.data(piece),
            Client::Nobody => {}
        }
    }

    /// Its connection, if octets of the response may go into it as they are, in plain text.
    pub(crate) fn splices(&self) -> Option<&TcpStream> {
        match self {
            Client::H1(c) => c.splices(),
            Client::H2(_) | Client::H3(_) | Client::Nobody => None,
        }
    }

    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) {
        match self {
            Client::H1(c) => c.end(trailers.as_ref()),
            Client::H2(c) => c.end(trailers),
            Client::H3(c) => c.end(trailers),
            Client::Nobody => {}
        }
    }

    /// Ready when everything given is on its way.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        match self {
            Client::H1(c) => c.poll_flush(cx),
            Client::H2(c) => c.poll_flush(cx),
            Client::H3(c) => c.poll_flush(cx),
            Client::Nobody => Poll::Ready(Ok(())),
        }
    }

    /// End the response so that the client sees it is not whole.
    pub(crate) fn abort(&mut self) {
        match self {
            Client::H1(c) => c.abort(),
            Client::H2(c) => c.abort(),
            Client::H3(c) => c.abort(),
            Client::Nobody => {}
        }
    }
}
