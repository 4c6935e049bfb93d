//! What comes before anything else on a client's connection: who passes it on for whom, and to
//! whom TLS is asked to lead.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use l7::{Addresses, Expected, Hello, HelloError, HelloReader, ProxyError, ProxyHeader};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout,
};

/// Octets read at a time; what is to be read is seldom longer.
const PIECE: usize = 2 << 10;

/// A client's connection, of which some octets were read already.
pub(crate) struct Front {
    pub(crate) early: BytesMut,
    pub(crate) tcp: TcpStream,
}

/// Why a connection ends before it has begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FrontError {
    #[error("the connection ended or broke")]
    Gone,
    #[error("too slow")]
    Slow,
    #[error("no PROXY header from who must send one")]
    Header(#[source] ProxyError),
    #[error("no ClientHello")]
    Hello(#[source] HelloError),
}

impl Front {
    /// Take the PROXY header of a trusted sender, if there is one: whose connection it is.
    pub(crate) async fn header(
        &mut self,
        expected: Expected,
        patience: Duration,
    ) -> Result<Option<Addresses>, FrontError> {
        let read = self.read(patience, |octets| match ProxyHeader::read(octets) {
            Err(ProxyError::Absent) if expected == Expected::Maybe => Ok(Some(None)),
            Ok(header) => Ok(header.map(Some)),
            Err(error) => Err(FrontError::Header(error)),
        });
        let header = match read.await {
            // It waits for the other side to speak first.
            Err(FrontError::Slow) if expected == Expected::Maybe && self.early.is_empty() => None,
            read => read?,
        };
        let Some(header) = header else {
            return Ok(None);
        };
        self.early.advance(header.length);
        Ok(header.addresses)
    }

    /// Look at the ClientHello; it stays to be read.
    pub(crate) async fn hello(&mut self, patience: Duration) -> Result<Hello, FrontError> {
        let mut reader = HelloReader::default();
        self.read(patience, |octets| {
            reader.read(octets).map_err(FrontError::Hello)
        })
        .await
    }

    /// Read until `parse` has found what it looks for; it bounds what is read.
    async fn read<T>(
        &mut self,
        patience: Duration,
        mut parse: impl FnMut(&[u8]) -> Result<Option<T>, FrontError>,
    ) -> Result<T, FrontError> {
        let found = async {
            loop {
                // Nothing at all is not looked at: it may become anything.
                if !self.early.is_empty()
                    && let Some(found) = parse(&self.early)?
                {
                    return Ok(found);
                }
                self.early.reserve(PIECE);
                match self.tcp.read_buf(&mut self.early).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Err(FrontError::Gone),
                }
            }
        };
        timeout(patience, found)
            .await
            .unwrap_or(Err(FrontError::Slow))
    }

    /// Say in TLS why there will be none (RFC 8446 §6), and end.
    pub(crate) async fn alert(mut self, description: u8, patience: Duration) {
        let record = [21, 3, 3, 0, 2, 2, description];
        let told = async {
            self.tcp.write_all(&record).await?;
            self.tcp.shutdown().await
        };
        // Whether the client heard it or not, the connection is over.
        let _ = timeout(patience, told).await;
    }
}

impl AsyncRead for Front {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        let count = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early.split_to(count));
        if this.early.is_empty() {
            // Its memory is not wanted again.
            this.early = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Front {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
