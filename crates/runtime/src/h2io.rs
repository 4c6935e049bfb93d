//! An HTTP/2 stream as a byte stream.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{Reason, RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most one `poll_write` takes: what `h2` may then hold for us beyond its send buffer.
const MAX_WRITE: usize = 64 * 1024;

/// Both halves of an `h2` stream as `AsyncRead + AsyncWrite`.
///
/// Flow control is released as bytes are read, so a slow reader slows its peer. A write takes at
/// most the granted capacity and 64 KiB. `shutdown` sends END_STREAM; dropping the stream before
/// that sends RST_STREAM(CANCEL); dropping it after that, with the peer still sending, lets what
/// is queued go out and then cancels.
#[derive(Debug)]
pub struct H2Stream {
    send: SendStream<Bytes>,
    recv: RecvStream,
    /// Received, not yet read.
    rest: Bytes,
    recv_done: bool,
    send_done: bool,
}

impl H2Stream {
    /// Joins the halves of one stream.
    #[must_use]
    pub fn new(send: SendStream<Bytes>, recv: RecvStream) -> Self {
        H2Stream {
            send,
            recv,
            rest: Bytes::new(),
            recv_done: false,
            send_done: false,
        }
    }

    /// Gives up on the stream with `reason` instead of CANCEL.
    pub fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
        self.send_done = true;
    }

    /// The next piece as it was received, without copying; `None` at the end. Its flow control is
    /// released at once: the caller holds at most what it asked for.
    pub fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
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
        let this = self.get_mut();
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
        let this = self.get_mut();
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
        let this = self.get_mut();
        if !this.send_done {
            this.send_done = true;
            this.send.send_data(Bytes::new(), true).map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for H2Stream {
    fn drop(&mut self) {
        if !self.send_done {
            self.send.send_reset(Reason::CANCEL);
        }
    }
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
