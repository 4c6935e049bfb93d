//! A TCP connection that can move to another thread's runtime, and is read in large pieces.

use std::{
    io,
    os::fd::AsFd,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use runtime::net::Segments;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// TLS asks for 4 KiB at a time: so much is read at once, and then handed out.
const PIECE: usize = 16 << 10;
/// The same for connections on which many streams run.
const WIDE: usize = 64 << 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct Socket {
    tcp: Tcp,
    /// Read, not yet handed out.
    early: BytesMut,
    /// How much is read at once; 0: as much as is asked for.
    piece: usize,
}

#[derive(Debug)]
enum Tcp {
    Here(TcpStream),
    Moving(std::net::TcpStream),
    Lost,
}

impl Socket {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Socket {
            tcp: Tcp::Here(tcp),
            early: BytesMut::new(),
            piece: PIECE,
        }
    }

    /// Does something that was sent wait to be acknowledged?
    pub(crate) fn waits(&self) -> bool {
        match &self.tcp {
            Tcp::Here(tcp) => runtime::net::unacknowledged(tcp.as_fd()).is_ok_and(|n| n > 0),
            Tcp::Moving(_) | Tcp::Lost => false,
        }
    }

    /// What TCP counted on it, if that is known.
    pub(crate) fn segments(&self) -> Option<Segments> {
        match &self.tcp {
            Tcp::Here(tcp) => runtime::net::segments(tcp.as_fd()).ok(),
            Tcp::Moving(_) | Tcp::Lost => None,
        }
    }

    /// It is for one stream that is long: nothing urgent waits behind what the system has of it, and
    /// reading in TLS's pieces costs no more than to copy from a larger one. (Whoever reads faster
    /// than comes what is read sleeps again and again, and is woken by the sender each time.)
    pub(crate) fn carries_bulk(&mut self) {
        self.piece = 0;
        match &self.tcp {
            Tcp::Here(tcp) => runtime::net::tune_bulk(tcp),
            Tcp::Moving(_) | Tcp::Lost => {}
        }
    }

    /// Leaves this thread's runtime; until [`Socket::arrive`] it cannot be used.
    ///
    /// # Errors
    /// What the system said; then it is lost.
    pub(crate) fn leave(&mut self) -> io::Result<()> {
        self.tcp = match std::mem::replace(&mut self.tcp, Tcp::Lost) {
            Tcp::Here(tcp) => Tcp::Moving(tcp.into_std()?),
            other @ (Tcp::Moving(_) | Tcp::Lost) => other,
        };
        Ok(())
    }

    /// Joins this thread's runtime, to carry many streams.
    ///
    /// # Errors
    /// What the system said; then it is lost.
    pub(crate) fn arrive(&mut self) -> io::Result<()> {
        self.piece = WIDE;
        self.tcp = match std::mem::replace(&mut self.tcp, Tcp::Lost) {
            Tcp::Moving(tcp) => Tcp::Here(TcpStream::from_std(tcp)?),
            other @ (Tcp::Here(_) | Tcp::Lost) => other,
        };
        Ok(())
    }

    fn here(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        match &mut self.tcp {
            Tcp::Here(tcp) => Ok(Pin::new(tcp)),
            Tcp::Moving(_) | Tcp::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            if buf.remaining() >= this.piece {
                return this.here()?.poll_read(cx, buf);
            }
            this.early.reserve(this.piece);
            let Tcp::Here(tcp) = &mut this.tcp else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            let read = ready!(pin!(tcp.read_buf(&mut this.early)).poll(cx))?;
            if read == 0 {
                return Poll::Ready(Ok(()));
            }
        }
        let count = this.early.len().min(buf.remaining());
        buf.put_slice(this.early.get(..count).unwrap_or_default());
        this.early.advance(count);
        if this.early.is_empty() && this.piece < WIDE {
            // Most of these connections are silent most of the time.
            this.early = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().here()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().here()?.poll_shutdown(cx)
    }
}
