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
    links::{Link, LinkState, LiveStream, Stream, StreamIo},
    metrics::{Received, TunnelMetrics},
    packets::{self, MAX_PACKET, Packet},
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

/// Where incoming streams go: two bounded queues; a full one refuses with 503. And packets: one, and
/// when it is full they are dropped.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) reserved: mpsc::Sender<Incoming>,
    pub(crate) services: mpsc::Sender<Incoming>,
    pub(crate) trunks: mpsc::Sender<Trunk>,
    pub(crate) packets: mpsc::Sender<Packet>,
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
    /// Who takes a stream for packets, if there is to be one.
    pub(crate) packets: Option<&'a mpsc::Sender<packets::Asked>>,
}

impl Sink {
    /// Foreign octets: of any length, with any label.
    pub(crate) fn deliver_packet(&self, link: &Arc<Link>, label: u32, octets: &[u8]) {
        let received = match octets.len() <= usize::from(MAX_PACKET) {
            false => Received::TooLarge,
            true => {
                // Copied, or a few octets keep a whole buffer of QUIC's.
                let packet = Packet {
                    link: Arc::clone(link),
                    label,
                    octets: Bytes::copy_from_slice(octets),
                };
                match self.packets.try_send(packet) {
                    Ok(()) => Received::Read,
                    Err(TrySendError::Full(_)) => Received::Unread,
                    Err(TrySendError::Closed(_)) => Received::Unattended,
                }
            }
        };
        self.metrics.packets.received(octets.len(), received);
    }

    pub(crate) fn deliver_request(
        &self,
        source: &Source<'_>,
        state: &Arc<LinkState>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) {
        match StreamHead::from_request(&request) {
            Ok(head) => {
                let body = request.into_body();
                if head.authority == packets::AUTHORITY {
                    return self.deliver_packets(source, respond, body);
                }
                self.deliver(source, state, head, Asked::H2(respond, body));
            }
            Err(error) => {
                self.refused(source.peer, "malformed");
                refuse(respond, error.status(), &error.to_string());
            }
        }
    }

    /// A stream for packets: one at a time, and one that waits for its end.
    fn deliver_packets(&self, source: &Source<'_>, respond: SendResponse<Bytes>, body: RecvStream) {
        let refused = match source.packets {
            Some(takes) => match takes.try_send((respond, body)) {
                Ok(()) => return,
                Err(TrySendError::Full(asked) | TrySendError::Closed(asked)) => asked.0,
            },
            None => respond,
        };
        self.refused(source.peer, "packets");
        refuse(refused, StatusCode::CONFLICT, "no stream for packets here");
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
