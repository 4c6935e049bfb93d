//! HTTP/2 beside hyper: a stream as a byte stream, and what connections write, coalesced.

mod coalesced;

use std::{
    any::Any,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
pub use coalesced::{Coalesced, HOLD};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most one `poll_write` takes: what `h2` may then hold for us beyond its send buffer.
const MAX_WRITE: usize = 64 * 1024;

/// How long a stream that was shut down and dropped waits for its peer to end too.
const LINGER: Duration = Duration::from_secs(5);

/// Both halves of an `h2` stream as `AsyncRead + AsyncWrite`.
///
/// Flow control is released as bytes are read, so a slow reader slows its peer. A write takes at
/// most the granted capacity and 64 KiB. `shutdown` sends END_STREAM. Dropping the stream before
/// that sends RST_STREAM(CANCEL) and forgets what is queued. Dropping it after that while the peer
/// still sends works like closing a socket: what is queued goes out, what still comes is thrown
/// away, and after 5 s without an end the stream is cancelled.
pub struct H2Stream {
    /// `None` only while it is dropped.
    halves: Option<Halves>,
}

struct Halves {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received, not yet read.
    rest: Bytes,
    recv_done: bool,
    send_done: bool,
    /// Lives as long as the stream, its lingering included.
    guard: Option<Box<dyn Any + Send + Sync>>,
}

impl H2Stream {
    /// Joins the halves of one stream.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        let (recv_done, send_done, rest, guard) = (false, false, Bytes::new(), None);
        H2Stream {
            halves: Some(Halves {
                send,
                recv,
                rest,
                recv_done,
                send_done,
                guard,
            }),
        }
    }

    /// The same, with something that is dropped when the stream is gone for good.
    #[must_use]
    pub fn with_guard(mut self, guard: impl Any + Send + Sync) -> Self {
        self.halves().guard = Some(Box::new(guard));
        self
    }

    /// Gives up on the stream with `reason` instead of CANCEL.
    pub fn reset(&mut self, reason: Reason) {
        let halves = self.halves();
        halves.send.send_reset(reason);
        (halves.send_done, halves.recv_done) = (true, true);
    }

    /// The next piece as it was received, without copying; `None` at the end. Its flow control is
    /// released at once: the caller holds at most what it asked for.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        self.halves().poll_bytes(cx)
    }

    fn halves(&mut self) -> &mut Halves {
        self.halves
            .as_mut()
            .expect("there until the stream is dropped")
    }
}

impl std::fmt::Debug for H2Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.halves.as_ref().map(|halves| halves.send.stream_id());
        f.debug_struct("H2Stream")
            .field("id", &id)
            .finish_non_exhaustive()
    }
}

impl Halves {
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.rest.is_empty() {
            let piece = std::mem::take(&mut self.rest);
            self.release(piece.len());
            return Poll::Ready(Some(Ok(piece)));
        }
        match ready!(self.poll_piece(cx)) {
            Ok(Some(piece)) => {
                self.release(piece.len());
                Poll::Ready(Some(Ok(piece)))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn release(&mut self, bytes: usize) {
        // Fails only when the stream is gone, and then there is no window to open.
        let _ = self.recv.flow_control().release_capacity(bytes);
    }

    /// The next non-empty piece; `None` at the end.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        if self.recv_done {
            return Poll::Ready(Ok(None));
        }
        loop {
            match ready!(self.recv.poll_data(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => return Poll::Ready(Ok(Some(piece))),
                Some(Err(error)) => {
                    self.recv_done = true;
                    return Poll::Ready(Err(io_error(error)));
                }
                None => {
                    self.recv_done = true;
                    return Poll::Ready(Ok(None));
                }
            }
        }
    }
}

impl AsyncRead for H2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut().halves();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.rest.is_empty() {
            match ready!(this.poll_piece(cx))? {
                Some(piece) => this.rest = piece,
                None => return Poll::Ready(Ok(())),
            }
        }
        // Whatever else is already here goes into the same read.
        while !this.rest.is_empty() {
            let len = this.rest.len().min(buf.remaining());
            buf.put_slice(&this.rest[..len]);
            this.rest.advance(len);
            this.release(len);
            if buf.remaining() == 0 {
                break;
            }
            if let Poll::Ready(Ok(Some(piece))) = this.poll_piece(cx) {
                this.rest = piece;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H2Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut().halves();
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.send_done {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let want = buf.len().min(MAX_WRITE);
        this.send.reserve_capacity(want);
        while this.send.capacity() == 0 {
            match ready!(this.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let len = want.min(this.send.capacity());
        this.send
            .send_data(Bytes::copy_from_slice(&buf[..len]), false)
            .map_err(io_error)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's task writes what is queued.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut().halves();
        if !this.send_done {
            this.send_done = true;
            this.send.send_data(Bytes::new(), true).map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        let Some(mut halves) = self.halves.take() else {
            return;
        };
        if !halves.send_done {
            halves.send.send_reset(Reason::CANCEL);
        } else if !halves.recv_done && !halves.recv.is_end_stream() {
            linger(halves);
        }
    }
}

/// Holds on to a stream until its peer has ended it: `h2` forgets what is queued for sending when
/// the last handle of an unfinished stream goes. A drop has no task group; this ends by itself.
fn linger(halves: Halves) {
    let Ok(handle) = tokio::runtime::Handle::try_current() else {
        return;
    };
    handle.spawn(async move {
        // All of it, not only the field used below.
        let mut halves = halves;
        // What comes is dropped and its window stays closed, so the peer stops soon.
        let end = poll_fn(|cx| {
            while let Some(Ok(_)) = ready!(halves.recv.poll_data(cx)) {}
            Poll::Ready(())
        });
        let _ = tokio::time::timeout(LINGER, end).await;
    });
}

/// An `h2` error as an I/O error: a reset stream is `ConnectionReset`, a reset with NO_ERROR
/// (RFC 9113 §8.1) `BrokenPipe`, a lost connection what the socket said.
#[must_use]
pub fn io_error(error: h2::Error) -> io::Error {
    if error.is_io() {
        return error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into());
    }
    let kind = match error.reason() {
        Some(Reason::NO_ERROR) => io::ErrorKind::BrokenPipe,
        Some(_) => io::ErrorKind::ConnectionReset,
        None => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests;
