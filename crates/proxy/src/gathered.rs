//! What a handshake says, gathered until its peer is waited for.
//!
//! A server's last words in a handshake of TLS 1.3, its session tickets, answer nothing (RFC 8446
//! §4.6.1): they go out with the first answer, in one packet instead of two.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::front::Front;

/// A client's connection under TLS.
pub(crate) struct Gathered {
    front: Front,
    held: Vec<u8>,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The handshake is not over.
    Shakes,
    /// It is, and nobody waits for what is held.
    Over,
    /// What is written goes out at once.
    Passes,
}

/// Buffers that go out with what was held.
const BUFS: usize = 8;

impl Gathered {
    pub(crate) const fn new(front: Front) -> Self {
        Gathered {
            front,
            held: Vec::new(),
            phase: Phase::Shakes,
        }
    }

    /// The handshake is over: what is written from now on goes out then, and what is held with the
    /// first of it, unless the peer `waits` for that.
    pub(crate) const fn pass(&mut self, waits: bool) {
        self.phase = match waits {
            true => Phase::Passes,
            false => Phase::Over,
        };
    }

    /// Write what was held, and `more` behind it; how much of that went.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        while !self.held.is_empty() {
            let mut all = [IoSlice::new(&[]); 1 + BUFS];
            for (place, buf) in all.iter_mut().skip(1).zip(more) {
                *place = *buf;
            }
            all[0] = IoSlice::new(&self.held);
            let all = all.get(..=more.len()).unwrap_or(&all);
            let count = ready!(Pin::new(&mut self.front).poll_write_vectored(cx, all))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            match count.checked_sub(self.held.len()) {
                Some(rest) => {
                    self.held = Vec::new();
                    return Poll::Ready(Ok(rest));
                }
                None => drop(self.held.drain(..count)),
            }
        }
        Poll::Ready(Ok(0))
    }
}

/// An alert that ends a handshake is what is held then.
impl Drop for Gathered {
    fn drop(&mut self) {
        if self.phase == Phase::Shakes && !self.held.is_empty() {
            // There is room, or nobody who reads.
            let _ = self.front.tcp.try_write(&self.held);
        }
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let read = Pin::new(&mut this.front).poll_read(cx, buf);
        if read.is_pending() && this.phase != Phase::Over {
            // Who waits has to have said all.
            ready!(this.poll_drain(cx, &[]))?;
        }
        read
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.phase == Phase::Shakes {
            this.held.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        this.phase = Phase::Passes;
        match ready!(this.poll_drain(cx, &[IoSlice::new(buf)]))? {
            0 => Pin::new(&mut this.front).poll_write(cx, buf),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.phase == Phase::Shakes {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return Pin::new(this).poll_write(cx, first.map_or(&[], |buf| buf));
        }
        this.phase = Phase::Passes;
        match ready!(this.poll_drain(cx, bufs))? {
            0 => Pin::new(&mut this.front).poll_write_vectored(cx, bufs),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.front.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.phase != Phase::Passes {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_drain(cx, &[]))?;
        Pin::new(&mut this.front).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx, &[]))?;
        Pin::new(&mut this.front).poll_shutdown(cx)
    }
}
