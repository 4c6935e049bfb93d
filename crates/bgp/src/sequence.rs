//! The seq numbers an origin gives to its own routes.

use std::time::Duration;

use base::{Instant, WallTime};

use crate::Seq;

/// The seq of one key at its originator: it grows by one a change, at most 16 a second averaged
/// since start (with one second's worth ahead), and starts above everything an earlier run said.
#[derive(Clone, Copy, Debug)]
pub struct Sequence {
    last: Seq,
    started: Instant,
    given: u64,
}

impl Sequence {
    /// Changes a second, averaged since start.
    pub const RATE: u64 = 16;
    /// 2026-01-01T00:00:00Z in seconds since the Unix epoch.
    const EPOCH: u64 = 1_767_225_600;

    /// Where a run begins: (`wall` in seconds − 2026-01-01) · 16 mod 2³², or `stored`, the
    /// high-water mark on disk, if that is greater (RFC 1982).
    #[must_use]
    pub fn start(wall: WallTime, stored: Option<Seq>) -> Seq {
        let ticks = wall.unix_seconds().wrapping_sub(Self::EPOCH) << 4;
        let by_clock = Seq(u32::try_from(ticks & u64::from(u32::MAX)).unwrap_or(0));
        match stored {
            Some(mark) if mark.is_after(by_clock) => mark,
            Some(_) | None => by_clock,
        }
    }

    /// A key whose first seq is the one after `start`.
    #[must_use]
    pub const fn new(start: Seq, started: Instant) -> Self {
        Sequence {
            last: start,
            started,
            given: 0,
        }
    }

    /// The seq of a change at `now`; `None` if the rate is used up: try again at
    /// [`Sequence::ready_at`], with whatever is true then.
    pub fn next(&mut self, now: Instant) -> Option<Seq> {
        if now < self.ready_at() {
            return None;
        }
        self.given += 1;
        self.last = self.last.next();
        Some(self.last)
    }

    /// When the next change may be said; in the past if it may be said now.
    #[must_use]
    pub fn ready_at(&self) -> Instant {
        let ahead = self.given.saturating_add(1).saturating_sub(Self::RATE);
        let wait = ahead.saturating_mul(1_000_000_000) / Self::RATE;
        self.started + Duration::from_nanos(wait)
    }

    /// The last seq given, or the start: what to keep on disk as high-water mark.
    #[must_use]
    pub const fn last(&self) -> Seq {
        self.last
    }
}
