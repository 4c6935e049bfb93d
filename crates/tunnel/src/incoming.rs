//! Streams the other side opens.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Request, Response, StatusCode};
use pki::Identity;
use runtime::{
    h2io::{H2Stream, io_error},
    log::Limiter,
};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    event::LinkId,
    head::{REASON, StreamHead},
    links::{LinkState, LiveStream, Stream, StreamIo},
    metrics::TunnelMetrics,
    preface::Role,
    quic,
    trunk::Trunk,
};

/// A stream the other side asks for. Dropping it without an answer resets it.
#[derive(Debug)]
pub struct Incoming {
    /// Who asks.
    pub peer: Identity,
    /// The link it came on.
    pub link: LinkId,
    /// What it asks for.
    pub head: StreamHead,
    asked: Asked,
    live: LiveStream,
}

/// What is to be answered.
#[derive(Debug)]
pub(crate) enum Asked {
    H2(SendResponse<Bytes>, RecvStream),
    Quic(quic::Asked),
}

impl Incoming {
    /// Says yes.
    ///
    /// # Errors
    /// The peer gave up, or the link is down.
    pub fn accept(self) -> io::Result<Stream> {
        let state = self.live.link();
        let io = match self.asked {
            Asked::H2(mut respond, body) => {
                let send = respond.send_response(Response::new(()), false);
                let io = H2Stream::new(send.map_err(io_error)?, body);
                StreamIo::H2(io.with_guard(self.live))
            }
            Asked::Quic(asked) => StreamIo::Quic(asked.accept(&self.head, self.live)),
        };
        Ok(Stream::new(io, self.link, state))
    }

    /// Says no with an HTTP status and a few words (visible ASCII, at most 256 bytes are sent).
    pub fn refuse(self, status: StatusCode, reason: &str) {
        self.asked.refuse(status, reason);
    }
}

impl Asked {
    fn refuse(self, status: StatusCode, reason: &str) {
        match self {
            Asked::H2(respond, _) => refuse(respond, status, reason),
            Asked::Quic(asked) => asked.refuse(status, reason),
        }
    }
}

fn refuse(mut respond: SendResponse<Bytes>, status: StatusCode, reason: &str) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let visible = |c: &char| c.is_ascii_graphic() || *c == ' ';
    let words: String = reason.chars().filter(visible).take(256).collect();
    if let Ok(words) = HeaderValue::from_str(&words) {
        response.headers_mut().insert(REASON, words);
    }
    // Fails only if the peer gave up already.
    let _ = respond.send_response(response, true);
}

/// Where incoming streams go: two bounded queues; a full one refuses with 503.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) reserved: mpsc::Sender<Incoming>,
    pub(crate) services: mpsc::Sender<Incoming>,
    pub(crate) trunks: mpsc::Sender<Trunk>,
    pub(crate) metrics: TunnelMetrics,
    pub(crate) limiter: Limiter<(Identity, &'static str)>,
    /// Set in a drain: a new request is better off elsewhere, at once.
    pub(crate) draining: AtomicBool,
}

/// The link a stream came on.
pub(crate) struct Source<'a> {
    pub(crate) peer: &'a Identity,
    pub(crate) link: LinkId,
    pub(crate) role: Role,
}

impl Sink {
    pub(crate) fn deliver_request(
        &self,
        source: &Source<'_>,
        state: &Arc<LinkState>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) {
        match StreamHead::from_request(&request) {
            Ok(head) => {
                let asked = Asked::H2(respond, request.into_body());
                self.deliver(source, state, head, asked);
            }
            Err(error) => {
                self.refused(source.peer, "malformed");
                refuse(respond, error.status(), &error.to_string());
            }
        }
    }

    pub(crate) fn deliver(
        &self,
        source: &Source<'_>,
        state: &Arc<LinkState>,
        head: StreamHead,
        asked: Asked,
    ) {
        let queue = match (head.is_reserved(), source.role) {
            (true, _) => &self.reserved,
            (false, Role::Forward | Role::Reverse | Role::Quic) => &self.services,
            (false, Role::Control | Role::Data | Role::Spare) => {
                self.refused(source.peer, "misdirected");
                return asked.refuse(StatusCode::MISDIRECTED_REQUEST, "control streams only");
            }
        };
        if !head.is_reserved() && self.draining.load(Ordering::Relaxed) {
            return asked.refuse(StatusCode::SERVICE_UNAVAILABLE, "draining");
        }
        let live = state.live(head.is_reserved());
        let peer = source.peer.clone();
        let incoming = Incoming {
            peer,
            link: source.link,
            head,
            asked,
            live,
        };
        match queue.try_send(incoming) {
            Ok(()) => {}
            Err(TrySendError::Full(incoming)) => {
                self.refused(source.peer, "overload");
                incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "too many new streams");
            }
            Err(TrySendError::Closed(incoming)) => {
                self.refused(source.peer, "unattended");
                incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "nobody serves this here");
            }
        }
    }

    pub(crate) fn refused(&self, peer: &Identity, cause: &'static str) {
        self.metrics.refused_streams.inc(cause);
        if let Some(more) = self.limiter.allow(runtime::now(), (peer.clone(), cause)) {
            tracing::warn!(%peer, cause, more, "stream refused");
        }
    }
}
