//! What an HTTP/2 client sends is looked at on its way ([`Frames`]), and what it is sent goes out
//! once a poll ([`runtime::h2io::Coalesced`]).

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use crate::io::Io;

/// A client's stream under its HTTP/2 connection.
pub(super) type Coalesced = runtime::h2io::Coalesced<Watched>;

/// A client's stream with somebody who looks at what comes.
#[derive(Debug)]
pub(super) struct Watched {
    io: Io,
    /// What was read before anybody knew what it is.
    early: BytesMut,
    frames: Frames,
    /// Why nothing more is read.
    refused: Option<Reason>,
}

impl Watched {
    pub(super) fn new(io: Io, early: BytesMut) -> Self {
        Watched {
            io,
            early,
            frames: Frames::new(runtime::now()),
            refused: None,
        }
    }

    /// Why the connection has to end, if it has. Nothing more is read of it.
    pub(super) const fn refused(&self) -> Option<Reason> {
        self.refused
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.refused.is_some() {
            return Poll::Pending;
        }
        let from = buf.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        } else {
            let count = this.early.len().min(buf.remaining());
            buf.put_slice(&this.early.split_to(count));
        }
        let came = buf.filled().get(from..).unwrap_or_default();
        if let Err(refused) = this.frames.look(came, runtime::now) {
            this.refused = Some(refused.reason);
            if refused.before == 0 {
                buf.set_filled(from);
                return Poll::Pending;
            }
            buf.set_filled(from + refused.before);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let count = ready!(Pin::new(&mut this.io).poll_write(cx, buf))?;
        this.frames.sent(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
