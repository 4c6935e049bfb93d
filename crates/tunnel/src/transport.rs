//! The byte pipes under a link: TLS over TCP, a Unix socket, or memory.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use base::Instant;
use runtime::{metrics::CounterBy, net::Segments};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf},
    net::UnixStream,
};
use tokio_rustls::{TlsStream, client, server};

use crate::socket::Socket;

/// What a link can run over.
pub trait Pipe: AsyncRead + AsyncWrite + Send + Unpin {
    /// Does something that was sent wait for the other side's kernel? Not known: no.
    fn waits(&self) -> bool {
        false
    }

    /// What its transport counted, if it counts.
    fn segments(&self) -> Option<Segments> {
        None
    }

    /// Goes on with new keys (RFC 8446 §4.6.3); `false`: it has none.
    fn rekey(&mut self) -> bool {
        false
    }
}

/// So long what is sent is encrypted with the same keys, at most, as long as something is sent.
const KEY_LIFE: Duration = if cfg!(test) {
    Duration::from_millis(20)
} else {
    Duration::from_secs(3600)
};

/// How old the keys of a connection are.
pub(crate) struct Keys {
    since: Instant,
    rekeys: CounterBy,
    /// What sort of connection it is, for who counts.
    connection: &'static str,
}

impl Keys {
    pub(crate) fn new(rekeys: &CounterBy, connection: &'static str) -> Self {
        Keys {
            since: runtime::now(),
            rekeys: rekeys.clone(),
            connection,
        }
    }

    /// If they are old, `rekey` has the connection go on with new ones; `false`: it has none.
    pub(crate) fn look(&mut self, rekey: impl FnOnce() -> bool) {
        let now = runtime::now();
        if now.since(self.since) < KEY_LIFE {
            return;
        }
        self.since = now;
        if rekey() {
            self.rekeys.inc(self.connection);
        }
    }
}

impl Pipe for DuplexStream {}

impl Pipe for UnixStream {}

impl Pipe for client::TlsStream<Socket> {
    fn waits(&self) -> bool {
        self.get_ref().0.waits()
    }

    fn segments(&self) -> Option<Segments> {
        self.get_ref().0.segments()
    }

    fn rekey(&mut self) -> bool {
        self.get_mut().1.refresh_traffic_keys().is_ok()
    }
}

impl Pipe for server::TlsStream<Socket> {
    fn waits(&self) -> bool {
        self.get_ref().0.waits()
    }

    fn segments(&self) -> Option<Segments> {
        self.get_ref().0.segments()
    }

    fn rekey(&mut self) -> bool {
        self.get_mut().1.refresh_traffic_keys().is_ok()
    }
}

impl Pipe for TlsStream<Socket> {
    fn waits(&self) -> bool {
        self.get_ref().0.waits()
    }

    fn segments(&self) -> Option<Segments> {
        self.get_ref().0.segments()
    }

    fn rekey(&mut self) -> bool {
        let renewed = match self {
            TlsStream::Client(tls) => tls.get_mut().1.refresh_traffic_keys(),
            TlsStream::Server(tls) => tls.get_mut().1.refresh_traffic_keys(),
        };
        renewed.is_ok()
    }
}

/// One of the pipes of a link.
pub type BoxPipe = Box<dyn Pipe>;

/// Bytes that fit into each pipe of [`Pipes::in_memory`], each way.
///
/// `h2` reads nothing while a ping of its own waits to be written. So a pipe that its reader has
/// emptied must take at once all that may be held to be written ([`runtime::h2io::HOLD`], and a
/// frame): else two ends that write much and ping at the same time wait for each other for ever.
const MEMORY_PIPE: usize = 64 * 1024;
const _: () = assert!(MEMORY_PIPE > runtime::h2io::HOLD + crate::link::FRAME as usize + 1024);

/// The three pipes of a link, ready to speak HTTP/2 on.
pub struct Pipes {
    /// Pings and reserved streams; the dialler is the HTTP/2 client.
    pub control: BoxPipe,
    /// Streams the dialler opens.
    pub forward: BoxPipe,
    /// Streams the acceptor opens; the dialler is the HTTP/2 server.
    pub reverse: BoxPipe,
}

impl Pipes {
    /// Both ends of a link inside one process: the dialler's, the acceptor's.
    #[must_use]
    pub fn in_memory() -> (Pipes, Pipes) {
        let pipe = || tokio::io::duplex(MEMORY_PIPE);
        let ((control, control_), (forward, forward_), (reverse, reverse_)) =
            (pipe(), pipe(), pipe());
        (
            Pipes {
                control: Box::new(control),
                forward: Box::new(forward),
                reverse: Box::new(reverse),
            },
            Pipes {
                control: Box::new(control_),
                forward: Box::new(forward_),
                reverse: Box::new(reverse_),
            },
        )
    }
}

impl std::fmt::Debug for Pipes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pipes")
    }
}

/// When anything was last read from any pipe of a link.
#[derive(Clone, Debug)]
pub(crate) struct Heard(Arc<AtomicU64>);

impl Heard {
    pub(crate) fn new(now: Instant) -> Self {
        Heard(Arc::new(AtomicU64::new(now.as_nanos())))
    }

    pub(crate) fn last(&self) -> Instant {
        Instant::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn watch(&self, pipe: BoxPipe, rekeys: &CounterBy) -> Watched {
        Watched {
            pipe,
            heard: self.clone(),
            keys: Keys::new(rekeys, "http2"),
        }
    }
}

/// A pipe that notes when it hears something, and does not keep its keys for ever.
pub(crate) struct Watched {
    pipe: BoxPipe,
    heard: Heard,
    keys: Keys,
}

impl Watched {
    /// Does something that was sent wait for the other side's kernel?
    pub(crate) fn waits(&self) -> bool {
        self.pipe.waits()
    }

    /// What its transport counted.
    pub(crate) fn segments(&self) -> Option<Segments> {
        self.pipe.segments()
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.pipe).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.heard
                .0
                .fetch_max(runtime::now().as_nanos(), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Watched { pipe, keys, .. } = &mut *self;
        keys.look(|| pipe.rekey());
        Pin::new(pipe).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Watched { pipe, keys, .. } = &mut *self;
        keys.look(|| pipe.rekey());
        Pin::new(pipe).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.pipe.is_write_vectored()
    }
}
