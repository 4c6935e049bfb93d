//! A timer finer than the runtime's millisecond: one `timerfd` a connection.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::Instant,
};

/// Waits for points in time with some ten microseconds of lateness.
#[derive(Debug)]
pub(crate) struct Timer(AsyncFd<OwnedFd>);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// No descriptor is left.
    #[expect(
        unsafe_code,
        reason = "the safe constructor is deprecated in favour of this one"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let fd = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        // SAFETY: the descriptor is open, and the `AsyncFd` owns it: nobody closes or replaces it
        // before the `AsyncFd` is dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        Ok(Timer(fd.map_err(io::Error::from)?))
    }

    /// Waits until `at`; for ever without one. Cancel safe: the next call sets it anew.
    pub(crate) async fn until(&mut self, at: Option<Instant>) {
        let Some(at) = at else {
            return std::future::pending().await;
        };
        loop {
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() || self.set(left).is_err() {
                return;
            }
            let Ok(mut guard) = self.0.readable().await else {
                return;
            };
            let mut ticks = [0; 8];
            // Reading takes the tick; a stale one (of a setting given up) ends as WouldBlock.
            if rustix::io::read(guard.get_inner(), &mut ticks).is_err() {
                guard.clear_ready();
            }
        }
    }

    /// Setting clears what had expired before (timerfd_create(2)).
    fn set(&self, left: Duration) -> io::Result<()> {
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let spec = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }
}
