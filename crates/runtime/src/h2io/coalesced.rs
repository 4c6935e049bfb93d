//! One write for everything a poll of an HTTP/2 connection produced.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held back at most, and what is written then; beyond that writes go out as they come. A record of
/// TLS is as large.
pub const HOLD: usize = 16 << 10;
/// A flush of no more than this needs no buffer of over twice as much: what a burst needed is
/// given back.
const SMALL: usize = 8 << 10;

#[derive(Debug)]
struct Inner<T> {
    io: T,
    held: BytesMut,
    dirty: bool,
}

/// A stream under an HTTP/2 connection whose flushes wait for [`Coalesced::poll_flush_now`].
///
/// `h2` flushes before the next frame once a DATA frame has 256 bytes or more: a write, and over
/// TLS a record, for each message. Here its flushes only mark, and whoever polls the connection
/// flushes once afterwards. Clones are the same stream.
#[derive(Debug)]
pub struct Coalesced<T>(Rc<RefCell<Inner<T>>>);

impl<T> Clone for Coalesced<T> {
    fn clone(&self) -> Self {
        Coalesced(Rc::clone(&self.0))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Coalesced<T> {
    /// Nothing is held.
    #[must_use]
    pub fn new(io: T) -> Self {
        Coalesced(Rc::new(RefCell::new(Inner {
            io,
            held: BytesMut::new(),
            dirty: false,
        })))
    }

    /// Looks at the stream itself. Not from inside it.
    pub fn with<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.0.borrow().io)
    }

    /// Sends what is held; ready when all is sent.
    ///
    /// # Errors
    /// The stream broke.
    pub fn poll_flush_now(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    /// Does `work`, which writes here, and sends what it has written whenever it waits or is done.
    ///
    /// # Errors
    /// The stream broke while `work` was waiting.
    pub async fn drive<F: Future>(&self, work: F) -> io::Result<F::Output> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let done = work.as_mut().poll(cx);
            let sent = self.poll_flush_now(cx);
            match (done, sent) {
                (Poll::Ready(done), _) => Poll::Ready(Ok(done)),
                (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
                (Poll::Pending, Poll::Ready(Ok(())) | Poll::Pending) => Poll::Pending,
            }
        })
        .await
    }
}

impl<T: AsyncWrite + Unpin> Inner<T> {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let small = self.held.len() <= SMALL;
        while !self.held.is_empty() {
            let count = ready!(Pin::new(&mut self.io).poll_write(cx, &self.held))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(count);
        }
        if small && self.held.capacity() > 2 * SMALL {
            self.held = BytesMut::new();
        }
        if self.dirty {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.dirty = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Coalesced<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Coalesced<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.held.len() >= HOLD {
            ready!(inner.poll_flush(cx))?;
        }
        inner.held.extend_from_slice(buf);
        inner.dirty = true;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        if inner.held.len() < HOLD {
            return Poll::Ready(Ok(()));
        }
        inner.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &mut *self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_flushed_waits_until_it_is_sent() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut ours = Coalesced::new(ours);
        for _ in 0..3 {
            ours.write_all(b"abc").await.expect("held");
            ours.flush().await.expect("marked");
        }
        let mut got = [0; 16];
        let early = theirs.read(&mut got);
        let early = tokio::time::timeout(std::time::Duration::from_millis(20), early).await;
        assert!(early.is_err(), "nothing is there yet");
        poll_fn(|cx| ours.poll_flush_now(cx)).await.expect("sent");
        assert_eq!(theirs.read(&mut got).await.expect("read"), 9);
    }

    #[tokio::test]
    async fn more_than_is_held_back_goes_out_by_itself() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut ours = Coalesced::new(ours);
        ours.write_all(&[7; HOLD]).await.expect("held");
        ours.write_all(b"more").await.expect("sent before");
        let mut got = vec![0; HOLD];
        theirs.read_exact(&mut got).await.expect("read");
        assert_eq!(got, vec![7; HOLD]);
    }

    #[tokio::test]
    async fn what_a_burst_needed_is_not_kept_for_what_is_small() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let mut ours = Coalesced::new(ours);
        let room = |ours: &Coalesced<_>| ours.0.borrow().held.capacity();
        for size in [HOLD, 100, 100] {
            ours.write_all(&vec![7; size]).await.expect("held");
            assert!(room(&ours) >= size);
            poll_fn(|cx| ours.poll_flush_now(cx)).await.expect("sent");
            let mut got = vec![0; size];
            theirs.read_exact(&mut got).await.expect("read");
            assert_eq!(got, vec![7; size]);
        }
        assert!(room(&ours) <= 2 * SMALL, "{}", room(&ours));
    }

    #[tokio::test]
    async fn work_is_heard_while_it_waits() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let ours = Coalesced::new(ours);
        let mut talks = ours.clone();
        let asks = async move {
            talks.write_all(b"ping").await.expect("held");
            let mut answer = [0; 4];
            talks.read_exact(&mut answer).await.expect("answered");
            talks.write_all(&answer).await.expect("held");
        };
        let answers = async {
            let mut asked = [0; 4];
            theirs.read_exact(&mut asked).await.expect("asked");
            theirs.write_all(b"pong").await.expect("written");
            theirs.read_exact(&mut asked).await.expect("the last word");
            asked
        };
        let (asked, answered) = tokio::join!(ours.drive(asks), answers);
        asked.expect("driven");
        assert_eq!(&answered, b"pong");
        drop(ours);
        let gone = Coalesced::new(tokio::io::duplex(1).0);
        let mut lost = gone.clone();
        let work = async move {
            lost.write_all(b"x").await.expect("held");
            std::future::pending::<()>().await;
        };
        assert!(gone.drive(work).await.is_err(), "nobody is there");
    }
}
