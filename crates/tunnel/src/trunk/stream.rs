//! Handles of streams on a data connection. They live on its thread.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use http::StatusCode;
use pki::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::mux::Mux;
use crate::{head::StreamHead, links::LiveStream};

/// A stream of a [`Trunk`](crate::Trunk): bytes in order, both ways, each half closed on its own.
///
/// `shutdown` ends our half. Dropping a stream tells the other side that nothing more is sent or
/// read here; what was written before goes out, and is good if our half had ended.
pub struct TrunkStream {
    pub(super) mux: Rc<RefCell<Mux>>,
    pub(super) id: u32,
    pub(super) _live: LiveStream,
}

impl std::fmt::Debug for TrunkStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TrunkStream({})", self.id)
    }
}

impl Drop for TrunkStream {
    fn drop(&mut self) {
        self.mux.borrow_mut().release(self.id);
    }
}

impl AsyncRead for TrunkStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.mux.borrow_mut().poll_read(self.id, cx, buf)
    }
}

impl AsyncWrite for TrunkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let bufs = [IoSlice::new(buf)];
        self.mux.borrow_mut().poll_write(self.id, cx, &bufs)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.mux.borrow_mut().poll_write(self.id, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's driver writes what is there.
        Poll::Ready(self.mux.borrow().check_open(self.id))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.mux.borrow_mut().end(self.id);
        Poll::Ready(Ok(()))
    }
}

/// A stream that the other side asks for on a [`Trunk`](crate::Trunk). Dropping it without an
/// answer resets it.
#[derive(Debug)]
pub struct TrunkIncoming {
    /// Who asks.
    pub peer: Identity,
    /// What it asks for.
    pub head: StreamHead,
    pub(super) stream: TrunkStream,
}

impl TrunkIncoming {
    /// Says yes.
    ///
    /// # Errors
    /// The peer gave up, or the connection is gone.
    pub fn accept(self) -> io::Result<TrunkStream> {
        let stream = self.stream;
        stream.mux.borrow_mut().accept(stream.id)?;
        Ok(stream)
    }

    /// Says no with an HTTP status and a few words (visible ASCII, at most 256 bytes are sent).
    pub fn refuse(self, status: StatusCode, reason: &str) {
        let stream = self.stream;
        stream.mux.borrow_mut().refuse(stream.id, status, reason);
    }
}
