//! Joining: the one thing a peer without a certificate may do.
//!
//! The stream is raw; what is said on it is the node's business. It is bounded on the serving
//! side: 16 KiB in all to read, 10 s from the handshake on.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use base::Instant;
use runtime::tls::{self, TlsError};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::{TlsConnector, client, server};

use crate::socket::Socket;

/// The name of joining in TLS.
pub const JOIN_ALPN: &[u8] = b"sealane-join/1";
/// What a joining peer may send in all.
pub const MAX_JOIN_BYTES: usize = 16 * 1024;
/// How long a joining peer may take in all.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections from one address in a burst; then one a second.
const BURST: u32 = 20;
const REFILL: Duration = Duration::from_secs(1);
/// Addresses remembered at once.
const MAX_ADDRESSES: usize = 4096;

/// Somebody without a certificate who wants to join.
#[derive(Debug)]
pub struct Joining {
    /// Where it comes from.
    pub address: SocketAddr,
    /// What it says, bounded.
    pub stream: JoinStream,
}

/// The serving side of a join.
#[derive(Debug)]
pub struct JoinStream {
    io: server::TlsStream<Socket>,
    left: usize,
    deadline: Pin<Box<Sleep>>,
}

/// Why a join could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The TLS configuration could not be made.
    #[error("TLS for joining cannot be set up")]
    Tls(#[source] TlsError),
    /// No connection.
    #[error("cannot connect to {address}")]
    Connect {
        /// Who was dialled.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The peer did not prove the pinned CA, or does not take joins.
    #[error("{address} does not prove the pinned fabric CA, or takes no joins")]
    Handshake {
        /// Who was dialled.
        address: SocketAddr,
        /// What TLS said.
        #[source]
        source: io::Error,
    },
}

/// Dials `address` for joining, within 10 s. It must show a chain to a CA whose public key
/// (SubjectPublicKeyInfo) has the SHA-256 `pin`.
///
/// # Errors
/// See [`JoinError`].
pub async fn join_dial(
    address: SocketAddr,
    pin: [u8; 32],
) -> Result<client::TlsStream<TcpStream>, JoinError> {
    let config = tls::pinned_client(pin, &[JOIN_ALPN]).map_err(JoinError::Tls)?;
    let tcp = runtime::net::tcp_connect(address, JOIN_TIMEOUT)
        .await
        .map_err(|source| JoinError::Connect { address, source })?;
    let name = ServerName::IpAddress(address.ip().into());
    let handshake = TlsConnector::from(config).connect(name, tcp);
    tokio::time::timeout(JOIN_TIMEOUT, handshake)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        .map_err(|source| JoinError::Handshake { address, source })
}

impl JoinStream {
    pub(crate) fn new(io: server::TlsStream<Socket>) -> Self {
        let deadline = Box::pin(tokio::time::sleep(JOIN_TIMEOUT));
        JoinStream {
            io,
            left: MAX_JOIN_BYTES,
            deadline,
        }
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for JoinStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_time(cx)?;
        if self.left == 0 {
            let mut over = [0];
            let mut over = ReadBuf::new(&mut over);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut over))?;
            let more = !over.filled().is_empty();
            let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
            return Poll::Ready(if more { Err(too_large()) } else { Ok(()) });
        }
        let room = self.left.min(buf.remaining());
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(room));
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        self.left -= read;
        buf.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for JoinStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_time(cx)?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_time(cx)?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_time(cx)?;
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A token bucket for each address.
#[derive(Debug, Default)]
pub(crate) struct JoinRate {
    buckets: BTreeMap<IpAddr, Bucket>,
}

#[derive(Debug)]
struct Bucket {
    left: u32,
    filled: Instant,
}

impl JoinRate {
    /// May `address` try now? With too many addresses at once, a new one may not.
    pub(crate) fn allow(&mut self, now: Instant, address: IpAddr) -> bool {
        if self.buckets.len() >= MAX_ADDRESSES && !self.buckets.contains_key(&address) {
            self.buckets
                .retain(|_, bucket| now.since(bucket.filled) < REFILL * BURST);
            if self.buckets.len() >= MAX_ADDRESSES {
                return false;
            }
        }
        let bucket = self.buckets.entry(address).or_insert(Bucket {
            left: BURST,
            filled: now,
        });
        let steps = now.since(bucket.filled).as_nanos() / REFILL.as_nanos();
        let steps = u32::try_from(steps).unwrap_or(u32::MAX).min(BURST);
        if steps > 0 {
            bucket.left = (bucket.left + steps).min(BURST);
            bucket.filled = now;
        }
        let allowed = bucket.left > 0;
        bucket.left = bucket.left.saturating_sub(1);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_are_limited_by_address() {
        let mut rate = JoinRate::default();
        let one = IpAddr::from([192, 0, 2, 1]);
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        let burst = (0..100).filter(|_| rate.allow(at(0), one)).count();
        assert_eq!(burst, 20);
        assert!(rate.allow(at(0), IpAddr::from([192, 0, 2, 2])));
        assert!(rate.allow(at(1), one) && !rate.allow(at(1), one));
        for n in 0..10_000u32 {
            rate.allow(at(2), IpAddr::from(n.to_be_bytes()));
        }
        assert!(rate.buckets.len() <= MAX_ADDRESSES);
        assert!(rate.allow(at(60), IpAddr::from([198, 51, 100, 1])));
    }
}
