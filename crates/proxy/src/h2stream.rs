//! The two halves of an HTTP/2 stream (RFC 9113), alike on both sides of the proxy.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use crate::http1::{Piece, body::may_trail};

/// Is every field one in HTTP/1.1 too? `http` takes a `"` into names, which are tokens (RFC 9110
/// §5.6.2), and spaces around values, which are malformed (RFC 9113 §8.2.1) and would be lost.
pub(crate) fn are_fields(headers: &HeaderMap) -> bool {
    headers.iter().all(|(name, value)| {
        !name.as_str().contains('"') && !l7::headers::is_padded(value.as_bytes())
    })
}

/// What comes: pieces, and trailers in the end.
#[derive(Debug)]
pub(crate) struct Incoming {
    recv: RecvStream,
    done: bool,
}

impl Incoming {
    pub(crate) fn new(recv: RecvStream) -> Self {
        let done = recv.is_end_stream();
        Incoming { recv, done }
    }

    pub(crate) const fn is_done(&self) -> bool {
        self.done
    }

    /// Is there nothing more to come, trailers neither?
    pub(crate) fn is_at_end(&self) -> bool {
        self.done || self.recv.is_end_stream()
    }

    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, h2::Error>> {
        if self.done {
            return Poll::Ready(Ok(Piece::End(None)));
        }
        if let Some(piece) = ready!(self.recv.poll_data(cx)) {
            let piece = piece?;
            // Fails only when the stream is gone, and then there is no window to open.
            let _ = self.recv.flow_control().release_capacity(piece.len());
            return Poll::Ready(Ok(Piece::Data(piece)));
        }
        let mut trailers = ready!(self.recv.poll_trailers(cx))?;
        self.done = true;
        // Malformed trailers are no reason to lose the message that is whole without them.
        trailers = trailers.filter(are_fields);
        if let Some(trailers) = &mut trailers {
            let never: Vec<_> = trailers
                .keys()
                .filter(|name| !may_trail(name))
                .cloned()
                .collect();
            for name in never {
                trailers.remove(name);
            }
        }
        Poll::Ready(Ok(Piece::End(trailers.filter(|t| !t.is_empty()))))
    }
}

/// What goes: one piece at a time, as far as the peer's window lets it.
#[derive(Debug)]
pub(crate) struct Outgoing {
    send: SendStream<Bytes>,
    pending: Bytes,
    end: Option<Option<HeaderMap>>,
}

impl Outgoing {
    pub(crate) const fn new(send: SendStream<Bytes>) -> Self {
        Outgoing {
            send,
            pending: Bytes::new(),
            end: None,
        }
    }

    /// There has to be room: [`Outgoing::poll_flush`] was ready.
    pub(crate) fn data(&mut self, piece: Bytes) {
        debug_assert!(self.pending.is_empty(), "there is room");
        self.pending = piece;
    }

    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) {
        self.end = Some(trailers);
    }

    /// Hand to `h2` what the peer's window takes; `Ok(false)`: the stream is gone.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, h2::Error>> {
        let send = &mut self.send;
        while !self.pending.is_empty() {
            send.reserve_capacity(self.pending.len());
            if send.capacity() == 0 {
                match ready!(send.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(false)),
                }
            }
            let now = send.capacity().min(self.pending.len());
            let now = self.pending.split_to(now);
            let last = self.pending.is_empty() && matches!(self.end, Some(None));
            send.send_data(now, last)?;
            if last {
                self.end = None;
            }
        }
        match self.end.take() {
            None => {}
            Some(None) => send.send_data(Bytes::new(), true)?,
            Some(Some(trailers)) => send.send_trailers(trailers)?,
        }
        Poll::Ready(Ok(true))
    }
}
