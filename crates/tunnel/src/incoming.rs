//! Streams the other side opens.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Request, Response, StatusCode};
use pki::Identity;
use runtime::{h2io::H2Stream, log::Limiter};
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::{
    event::LinkId,
    head::{REASON, StreamHead},
    links::{LinkState, LiveStream, Stream},
    metrics::TunnelMetrics,
    preface::Role,
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
    respond: SendResponse<Bytes>,
    body: RecvStream,
    live: LiveStream,
}

impl Incoming {
    /// Says yes.
    ///
    /// # Errors
    /// The peer gave up, or the link is down.
    pub fn accept(mut self) -> Result<Stream, h2::Error> {
        let send = self.respond.send_response(Response::new(()), false)?;
        Ok(Stream::new(
            H2Stream::new(send, self.body),
            self.link,
            self.live,
        ))
    }

    /// Says no with an HTTP status and a few words (visible ASCII, at most 256 bytes are sent).
    pub fn refuse(self, status: StatusCode, reason: &str) {
        refuse(self.respond, status, reason);
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
    pub(crate) fn deliver(
        &self,
        source: &Source<'_>,
        state: &Arc<LinkState>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) {
        let head = match StreamHead::from_request(&request) {
            Ok(head) => head,
            Err(error) => {
                self.refused(source.peer, "malformed");
                return refuse(respond, error.status(), &error.to_string());
            }
        };
        let queue = match (head.is_reserved(), source.role) {
            (true, _) => &self.reserved,
            (false, Role::Forward | Role::Reverse) => &self.services,
            (false, Role::Control | Role::Data) => {
                self.refused(source.peer, "misdirected");
                return refuse(
                    respond,
                    StatusCode::MISDIRECTED_REQUEST,
                    "control streams only",
                );
            }
        };
        if !head.is_reserved() && self.draining.load(Ordering::Relaxed) {
            return refuse(respond, StatusCode::SERVICE_UNAVAILABLE, "draining");
        }
        let live = state.live(head.is_reserved());
        let peer = source.peer.clone();
        let body = request.into_body();
        let incoming = Incoming {
            peer,
            link: source.link,
            head,
            respond,
            body,
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

    fn refused(&self, peer: &Identity, cause: &'static str) {
        self.metrics.refused_streams.inc(cause);
        if let Some(more) = self.limiter.allow(runtime::now(), (peer.clone(), cause)) {
            tracing::warn!(%peer, cause, more, "stream refused");
        }
    }
}
