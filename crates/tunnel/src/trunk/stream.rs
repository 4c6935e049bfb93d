//! Handles of streams on a data connection. They live on its thread.

use std::{
    cell::RefCell,
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use pki::Identity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    mux::{Mux, Way},
    spare::Shelf,
};
use crate::{
    head::StreamHead,
    links::{LinkState, LiveStream},
};

/// A stream of a [`Trunk`](crate::Trunk): bytes in order, both ways, each half closed on its own.
///
/// `shutdown` ends our half. Dropping a stream tells the other side that nothing more is sent or
/// read here; what was written before goes out, and is good if our half had ended.
pub struct TrunkStream {
    pub(super) mux: Rc<RefCell<Mux>>,
    /// Spare connections, over which it goes and comes while it is bulk.
    pub(super) shelf: Rc<Shelf>,
    pub(super) id: u32,
    pub(super) live: LiveStream,
}

impl TrunkStream {
    /// Had it better be begun anew, when it is at rest? Other links to the same site are so much
    /// better than the one it is on, or than one that it goes over further on.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.live.is_stale() || self.mux.borrow().moves(self.id)
    }

    /// Sees when that begins.
    #[must_use]
    pub fn staleness(&self) -> Staleness {
        Staleness {
            link: self.live.link(),
            mux: Rc::clone(&self.mux),
            id: self.id,
        }
    }

    /// Reads what has come aside; `false`: nothing, and what follows comes elsewhere.
    fn poll_read_aside(
        &self,
        number: u16,
        cx: &Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<bool>> {
        let before = buf.filled().len();
        let spare = self.shelf.find(number);
        let read = spare.map(|spare| spare.poll_read(buf));
        let mut mux = self.mux.borrow_mut();
        match read {
            Some(Poll::Ready(Ok(home))) => {
                let any = buf.filled().len() > before;
                if any {
                    mux.heard_aside(self.id);
                }
                if home {
                    mux.came_home(number);
                }
                Poll::Ready(Ok(any))
            }
            Some(Poll::Pending) => {
                mux.wait_to_read(self.id, cx);
                Poll::Pending
            }
            Some(Poll::Ready(Err(_))) | None => {
                mux.spare_gone(number);
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    fn poll_write_aside(
        &self,
        number: u16,
        cx: &Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let spare = self.shelf.find(number);
        let written = spare.map(|spare| spare.poll_write(bufs));
        let mut mux = self.mux.borrow_mut();
        match written {
            Some(Poll::Ready(Ok(count))) => {
                mux.wrote_aside(number, count);
                Poll::Ready(Ok(count))
            }
            Some(Poll::Pending) => {
                mux.wait_to_write(self.id, cx);
                Poll::Pending
            }
            Some(Poll::Ready(Err(_))) | None => {
                mux.spare_gone(number);
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            }
        }
    }

    /// Tells the other side, which opened it, to begin it anew.
    #[must_use]
    pub fn mover(&self) -> Mover {
        Mover {
            mux: Rc::clone(&self.mux),
            id: self.id,
        }
    }
}

/// Sees when a stream had better be begun anew: [`TrunkStream::is_stale`].
#[derive(Debug)]
pub struct Staleness {
    link: Arc<LinkState>,
    mux: Rc<RefCell<Mux>>,
    id: u32,
}

impl Staleness {
    /// Waits for it. Poll it in the task that reads the stream: what the other side says wakes that.
    pub async fn begins(self) {
        loop {
            let mut rests = pin!(self.link.rests.notified());
            // From here on nothing is missed.
            rests.as_mut().enable();
            let stale = poll_fn(|cx| {
                if self.link.share() == 0 || self.mux.borrow().moves(self.id) {
                    return Poll::Ready(true);
                }
                rests.as_mut().poll(cx).map(|()| false)
            });
            if stale.await {
                return;
            }
        }
    }
}

/// Tells whoever opened a stream that it had better be begun anew, since what it is passed on over
/// has become bad.
#[derive(Debug)]
pub struct Mover {
    mux: Rc<RefCell<Mux>>,
    id: u32,
}

impl Mover {
    /// Says so. If the stream is gone, nothing is said.
    pub fn say(self) {
        self.mux.borrow_mut().say_move(self.id);
    }
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
        while buf.remaining() > 0 {
            let way = ready!(self.mux.borrow_mut().poll_read(self.id, cx, buf))?;
            let Some(number) = way else { break };
            if ready!(self.poll_read_aside(number, cx, buf))? {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TrunkStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let way = ready!(self.mux.borrow_mut().poll_write(self.id, cx, bufs))?;
        match way {
            Way::Here(count) => Poll::Ready(Ok(count)),
            Way::Aside(number) => self.poll_write_aside(number, cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The connection's driver writes what is there.
        Poll::Ready(self.mux.borrow().check_open(self.id))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut mux = self.mux.borrow_mut();
        mux.end(self.id);
        // An end of something of which a part is lost is none.
        Poll::Ready(mux.check_whole(self.id))
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
