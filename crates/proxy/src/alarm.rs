//! One timer for a connection, however many requests it carries.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// A deadline that moves with every request. The timer behind it is not touched when the deadline
/// moves away: it rings too early once, and is set anew.
pub(crate) struct Alarm {
    timer: Pin<Box<Sleep>>,
    at: Instant,
    /// Set, and not looked at since: the clock is read when that is done.
    after: Option<Duration>,
}

impl Alarm {
    pub(crate) fn new(after: Duration) -> Self {
        let at = Instant::now() + after;
        Alarm {
            timer: Box::pin(sleep_until(at)),
            at,
            after: None,
        }
    }

    /// Ring so long from when it is polled next, and not before: what has to wait for nothing does
    /// not read the clock for it.
    pub(crate) fn set(&mut self, after: Duration) {
        self.after = Some(after);
    }

    /// How long it is until it rings.
    pub(crate) fn left(&self) -> Duration {
        self.after
            .unwrap_or_else(|| self.at.saturating_duration_since(Instant::now()))
    }

    /// Ready when it is time.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(after) = self.after.take() {
            self.at = Instant::now() + after;
        }
        if self.timer.deadline() > self.at {
            self.timer.as_mut().reset(self.at);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.at);
        }
        Poll::Pending
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Alarm({:?})", self.at)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn it_rings_when_it_was_set_to_last() {
        let began = Instant::now();
        let mut alarm = Alarm::new(SECOND);
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 1);
        // Later, and then sooner than the timer stands.
        alarm.set(5 * SECOND);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
        alarm.set(2 * SECOND);
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 3);
        // Moved on again and again before it rings.
        alarm.set(2 * SECOND);
        assert!(poll_fn(|cx| Poll::Ready(alarm.poll(cx))).await.is_pending());
        alarm.set(10 * SECOND);
        poll_fn(|cx| alarm.poll(cx)).await;
        assert_eq!(began.elapsed().as_secs(), 13);
    }
}
