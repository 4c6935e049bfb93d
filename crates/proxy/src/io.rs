//! The byte streams the proxy serves and dials, as one type.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tunnel::{Mover, Sealed, Staleness, TrunkStream};

use crate::gathered::Gathered;

/// A stream that somebody else made: a tunnel's, or a test's in memory.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {
    /// Had it better be begun anew, when it is at rest?
    fn is_stale(&self) -> bool {
        false
    }

    /// Sees when that begins, if it can be seen.
    fn staleness(&self) -> Option<Staleness> {
        None
    }

    /// Tells whoever opened it to begin it anew, if that can be said.
    fn mover(&self) -> Option<Mover> {
        None
    }
}

impl Duplex for DuplexStream {}

impl Duplex for tunnel::Stream {
    fn is_stale(&self) -> bool {
        tunnel::Stream::is_stale(self)
    }
}

impl Duplex for TrunkStream {
    fn is_stale(&self) -> bool {
        TrunkStream::is_stale(self)
    }

    fn staleness(&self) -> Option<Staleness> {
        Some(TrunkStream::staleness(self))
    }

    fn mover(&self) -> Option<Mover> {
        Some(TrunkStream::mover(self))
    }
}

impl Duplex for Sealed<BoxDuplex> {
    fn is_stale(&self) -> bool {
        self.get_ref().0.is_stale()
    }
}

/// A boxed [`Duplex`].
pub type BoxDuplex = Box<dyn Duplex>;

/// Any stream the proxy reads and writes.
pub(crate) enum Io {
    Tcp(TcpStream),
    Tls(Box<TlsStream<Gathered>>),
    Other(BoxDuplex),
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Io::Tcp(_) => "Tcp",
            Io::Tls(_) => "Tls",
            Io::Other(_) => "Other",
        })
    }
}

impl Io {
    /// Had it better be begun anew, when it is at rest?
    pub(crate) fn is_stale(&self) -> bool {
        match self {
            Io::Tcp(_) | Io::Tls(_) => false,
            Io::Other(io) => io.is_stale(),
        }
    }

    /// Have the peer see that this is no orderly end, when the stream is dropped. A tunnel's
    /// stream does so by itself.
    pub(crate) fn abort(&self) {
        match self {
            Io::Tcp(tcp) => runtime::net::reset_on_close(tcp),
            Io::Tls(_) | Io::Other(_) => {}
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Other(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Other(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Other(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Other(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Io::Tcp(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Other(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
