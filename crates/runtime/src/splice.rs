//! Octets from socket to socket that never come into our memory: splice(2) through a pipe.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// What a pipe holds at most, in octets. A user without privileges has 64 MiB for all pipes
/// (pipe(7), `pipe-user-pages-soft`).
const SIZE: usize = 256 << 10;

/// A pipe between two sockets: filled from one only while it is empty, and then drained into the
/// other.
#[derive(Debug)]
pub struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    inside: usize,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// There are no descriptors left, or the user has as much memory in pipes as it may.
    pub fn new() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        fcntl_setpipe_size(&into, SIZE)?;
        let inside = 0;
        Ok(Pipe { out, into, inside })
    }

    /// Is nothing on its way?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.inside == 0
    }

    /// Takes what `from` has, up to `most` octets, into an empty pipe: how many octets, none at
    /// the end of the stream.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &TcpStream,
        most: u64,
    ) -> Poll<io::Result<usize>> {
        let most = usize::try_from(most).map_or(SIZE, |most| most.min(SIZE));
        let count = loop {
            ready!(from.poll_read_ready(cx))?;
            let moved = from.try_io(Interest::READABLE, || pass(from, &self.into, most));
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                moved => break moved?,
            }
        };
        self.inside += count;
        Poll::Ready(Ok(count))
    }

    /// Gives `to` what is inside; ready when it has all of it.
    ///
    /// # Errors
    /// The connection broke.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, to: &TcpStream) -> Poll<io::Result<()>> {
        while self.inside > 0 {
            ready!(to.poll_write_ready(cx))?;
            let moved = to.try_io(Interest::WRITABLE, || pass(&self.out, to, self.inside));
            match moved {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => self.inside -= count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }
}

fn pass(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    Ok(splice(from, None, to, None, most, flags)?)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("an address");
        let (one, other) = tokio::join!(TcpStream::connect(address), listener.accept());
        (one.expect("connected"), other.expect("accepted").0)
    }

    #[tokio::test]
    async fn octets_arrive_in_order_and_then_the_end() {
        let ((mut source, from), (to, mut sink)) = (pair().await, pair().await);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        let all = &sent;
        let writing = async move {
            source.write_all(all).await.expect("written");
        };
        let reading = async move {
            let mut got = Vec::new();
            sink.read_to_end(&mut got).await.expect("read");
            got
        };
        let moving = async move {
            let mut pipe = Pipe::new().expect("a pipe");
            let mut moved = 0;
            loop {
                let count = poll_fn(|cx| pipe.poll_fill(cx, &from, 100_000)).await;
                let count = count.expect("filled");
                assert!(count <= 100_000);
                if count == 0 {
                    drop(to);
                    return moved;
                }
                moved += count;
                poll_fn(|cx| pipe.poll_drain(cx, &to))
                    .await
                    .expect("drained");
                assert!(pipe.is_empty());
            }
        };
        let ((), got, moved) = tokio::join!(writing, reading, moving);
        assert_eq!(moved, sent.len());
        assert!(got == sent);
    }

    #[tokio::test]
    async fn who_is_gone_is_an_error_and_no_signal() {
        let ((mut source, from), (to, sink)) = (pair().await, pair().await);
        drop(sink);
        let mut pipe = Pipe::new().expect("a pipe");
        let broken = loop {
            source.write_all(&[7; 1000]).await.expect("written");
            let filled = poll_fn(|cx| pipe.poll_fill(cx, &from, 1000)).await;
            assert!(filled.expect("filled") > 0);
            if let Err(error) = poll_fn(|cx| pipe.poll_drain(cx, &to)).await {
                break error;
            }
        };
        let kinds = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        assert!(kinds.contains(&broken.kind()), "{broken}");
        assert!(!pipe.is_empty());
    }
}
