//! The body of `/download`: so many bytes, at such a pace.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

/// The largest piece given at once.
const PIECE: u64 = 16 << 10;

static ZEROS: [u8; 16 << 10] = [0; 16 << 10];

/// So many zero bytes, at most `rate` of them a second since the start.
pub(super) struct Download {
    left: u64,
    sent: u64,
    rate: Option<u64>,
    started: Instant,
    pause: Pin<Box<Sleep>>,
}

impl Download {
    /// `length` bytes at `rate` bytes a second; as fast as they are taken without one.
    pub(super) fn new(length: u64, rate: Option<u64>) -> Self {
        let started = Instant::now();
        Download {
            left: length,
            sent: 0,
            rate,
            started,
            pause: Box::pin(sleep_until(started)),
        }
    }

    /// The next piece: a fiftieth of a second's worth, so that a slow pace is even.
    fn piece(&self) -> u64 {
        let even = self.rate.map_or(PIECE, |rate| (rate / 50).clamp(1, PIECE));
        even.min(self.left)
    }
}

impl Body for Download {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        if let Some(rate) = self.rate {
            let due = self.started + worth(self.sent, rate);
            if self.pause.deadline() != due {
                self.pause.as_mut().reset(due);
            }
            if self.pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let piece = self.piece();
        self.left -= piece;
        self.sent += piece;
        let length = usize::try_from(piece)
            .unwrap_or(ZEROS.len())
            .min(ZEROS.len());
        Poll::Ready(Some(Ok(Frame::data(
            Bytes::from_static(&ZEROS).slice(..length),
        ))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// How long `bytes` last at `rate` a second.
fn worth(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}
