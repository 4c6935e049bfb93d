//! One write for everything a poll of an HTTP/2 connection produced.
//!
//! `h2` flushes before the next frame once a DATA frame has 256 bytes or more: a write a response.
//! Here its flushes only mark, and whoever polls the connection flushes once afterwards. What the
//! client sends is looked at on its way ([`Frames`]).

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use crate::io::Io;

/// Held back at most; beyond that writes go out as they come.
const HOLD: usize = 64 << 10;

#[derive(Debug)]
struct Inner {
    io: Io,
    /// What was read before anybody knew what it is.
    early: BytesMut,
    held: BytesMut,
    dirty: bool,
    frames: Frames,
    /// Why nothing more is read.
    refused: Option<Reason>,
}

/// A stream whose flushes wait for [`Coalesced::poll_flush_now`]; clones are the same stream.
#[derive(Clone, Debug)]
pub(super) struct Coalesced(Rc<RefCell<Inner>>);

impl Coalesced {
    pub(super) fn new(io: Io, early: BytesMut) -> Self {
        Coalesced(Rc::new(RefCell::new(Inner {
            io,
            early,
            held: BytesMut::new(),
            dirty: false,
            frames: Frames::new(runtime::now()),
            refused: None,
        })))
    }

    /// Why the connection has to end, if it has. Nothing more is read of it.
    pub(super) fn refused(&self) -> Option<Reason> {
        self.0.borrow().refused
    }

    /// Send what is held; ready when all is sent.
    pub(super) fn poll_flush_now(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }
}

impl Inner {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        if self.dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Coalesced {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.refused.is_some() {
            return Poll::Pending;
        }
        let from = buf.filled().len();
        if inner.early.is_empty() {
            ready!(Pin::new(&mut inner.io).poll_read(cx, buf))?;
        } else {
            let count = inner.early.len().min(buf.remaining());
            buf.put_slice(&inner.early.split_to(count));
        }
        let came = buf.filled().get(from..).unwrap_or_default();
        if let Err(refused) = inner.frames.look(came, runtime::now) {
            inner.refused = Some(refused.reason);
            if refused.before == 0 {
                buf.set_filled(from);
                return Poll::Pending;
            }
            buf.set_filled(from + refused.before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Coalesced {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.held.len() >= HOLD {
            ready!(inner.poll_flush(cx))?;
        }
        inner.held.extend_from_slice(buf);
        inner.frames.sent(buf.len());
        inner.dirty = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        if inner.held.len() < HOLD {
            return Poll::Ready(Ok(()));
        }
        inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
