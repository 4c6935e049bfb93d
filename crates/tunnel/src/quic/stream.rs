//! Streams of a QUIC connection: what each begins with is in [`crate::spoken`].

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use http::StatusCode;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};

use crate::{
    head::{HeadError, StreamHead},
    links::{LiveStream, OpenError},
    spoken::{self, YES},
};

/// Reserved streams go before what others carry.
const URGENT: i32 = 1;

/// How long a stream waits for room among those of its connection.
const ROOM: Duration = Duration::from_millis(500);

/// Where halves go that have ended and of which not all is acknowledged: a link that ends waits for
/// them.
pub(crate) type Ebb = mpsc::Sender<(SendStream, LiveStream)>;

/// What opens streams on a connection.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) connection: Connection,
    pub(crate) ebb: Ebb,
}

/// Bytes in order, both ways. Dropped before its end it is reset.
#[derive(Debug)]
pub(crate) struct QuicStream {
    /// Taken when it is dropped.
    send: Option<SendStream>,
    recv: RecvStream,
    ebb: Ebb,
    /// Counts it as long as something of it may be under way.
    live: Option<LiveStream>,
    /// The other side is still to hear that we said yes.
    owed: bool,
    /// Has our half ended?
    ended: bool,
}

impl QuicStream {
    const fn new(send: SendStream, recv: RecvStream, ebb: Ebb) -> Self {
        QuicStream {
            send: Some(send),
            recv,
            ebb,
            live: None,
            owed: false,
            ended: false,
        }
    }

    fn sending(&mut self) -> io::Result<&mut SendStream> {
        self.send.as_mut().ok_or(io::ErrorKind::NotConnected.into())
    }

    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.owed {
            ready!(AsyncWrite::poll_write(
                Pin::new(self.sending()?),
                cx,
                &[YES]
            ))?;
            self.owed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for QuicStream {
    fn drop(&mut self) {
        // It may be over already, which is as good.
        let _ = self.recv.stop(VarInt::from_u32(0));
        let Some(mut send) = self.send.take() else {
            return;
        };
        if !self.ended {
            let _ = send.reset(VarInt::from_u32(0));
        } else if let Some(live) = self.live.take() {
            // Full, or nobody is there any more: it is not waited for.
            let _ = self.ebb.try_send((send, live));
        }
    }
}

impl AsyncRead for QuicStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_owed(cx))?;
        AsyncRead::poll_read(Pin::new(&mut self.recv), cx, buf)
    }
}

impl AsyncWrite for QuicStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_owed(cx))?;
        AsyncWrite::poll_write(Pin::new(self.sending()?), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_owed(cx))?;
        AsyncWrite::poll_flush(Pin::new(self.sending()?), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_owed(cx))?;
        self.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(self.sending()?), cx)
    }
}

/// Opens a stream and waits for the answer. `head_sent` becomes true when the other side may have
/// heard of it.
///
/// # Errors
/// [`OpenError`].
pub(crate) async fn open(
    opener: &Opener,
    head: &StreamHead,
    live: LiveStream,
    head_sent: &mut bool,
) -> Result<QuicStream, OpenError> {
    let opening = spoken::opening(head).map_err(OpenError::Head)?;
    let closed = |source| OpenError::Closed {
        head_sent: false,
        source,
    };
    // There are as many as there may be: whoever asks had better go elsewhere.
    let opened = tokio::time::timeout(ROOM, opener.connection.open_bi()).await;
    let opened = opened.map_err(|_| io::ErrorKind::TimedOut.into());
    let opened = opened.and_then(|opened| opened.map_err(io::Error::from));
    let (send, recv) = opened.map_err(closed)?;
    if head.is_reserved() {
        // Fails only if it is over.
        let _ = send.set_priority(URGENT);
    }
    let mut stream = QuicStream::new(send, recv, opener.ebb.clone());
    stream.live = Some(live);
    *head_sent = true;
    spoken::ask(&mut stream, &opening).await?;
    Ok(stream)
}

/// A stream that the other side asks for, not answered yet.
#[derive(Debug)]
pub(crate) struct Asked(QuicStream);

impl Asked {
    /// Waits for the head of a stream that has begun.
    ///
    /// # Errors
    /// It broke; or what is wrong with the head, and then it has been refused.
    pub(crate) async fn hear(
        (send, recv): (SendStream, RecvStream),
        ebb: Ebb,
    ) -> io::Result<Result<(StreamHead, Asked), HeadError>> {
        let mut stream = QuicStream::new(send, recv, ebb);
        let heard = spoken::hear(&mut stream).await?;
        let asked = Asked(stream);
        match heard {
            Ok(head) => Ok(Ok((head, asked))),
            Err(error) => {
                asked.refuse(error.status(), &error.to_string());
                Ok(Err(error))
            }
        }
    }

    /// Says yes: at once, or where there is no room, with the first octets or when it is read.
    pub(crate) fn accept(self, head: &StreamHead, live: LiveStream) -> QuicStream {
        let Asked(mut stream) = self;
        if let (true, Some(send)) = (head.is_reserved(), &stream.send) {
            // Fails only if it is over.
            let _ = send.set_priority(URGENT);
        }
        stream.live = Some(live);
        stream.owed = true;
        // What fails here fails again where it is used.
        let _ = stream.poll_owed(&mut Context::from_waker(Waker::noop()));
        stream
    }

    /// Says no.
    pub(crate) fn refuse(self, status: StatusCode, reason: &str) {
        let Asked(mut stream) = self;
        let answer = spoken::refusal(status, reason);
        let Some(send) = &mut stream.send else { return };
        let mut cx = Context::from_waker(Waker::noop());
        let said = AsyncWrite::poll_write(Pin::new(send), &mut cx, &answer);
        // Where there is no room for so little, being reset says enough.
        let whole = matches!(said, Poll::Ready(Ok(count)) if count == answer.len());
        stream.ended = whole && send.finish().is_ok();
    }
}
