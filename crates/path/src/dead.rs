//! When silence means death, and when only that we slept ourselves.

use std::time::Duration;

use base::Instant;

/// The verdict of [`DeadDetector::handle_timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Heard from within the deadline.
    Alive,
    /// Nothing heard until the deadline.
    Dead,
}

/// Declares one peer dead when nothing was heard from it for three intervals.
///
/// The shell calls [`handle_timeout`](Self::handle_timeout) once per interval (it is also when it
/// sends its own ping). If such a call comes later than planned by more than one interval, it was
/// this process that stood still, and whatever the peer sent lies unread in a socket: the deadline
/// moves by that lateness, and the stall is counted.
#[derive(Clone, Debug)]
pub struct DeadDetector {
    interval: Duration,
    heard: Instant,
    deadline: Instant,
    next: Instant,
    stalls: u64,
}

impl DeadDetector {
    /// The interval between pings unless told otherwise.
    pub const INTERVAL: Duration = Duration::from_millis(300);
    /// Intervals of silence that mean death.
    pub const MISSES: u32 = 3;

    /// A detector that heard the peer at `now`.
    #[must_use]
    pub fn new(now: Instant, interval: Duration) -> Self {
        DeadDetector {
            interval,
            heard: now,
            deadline: now + interval * Self::MISSES,
            next: now + interval,
            stalls: 0,
        }
    }

    /// Something came from the peer. What was heard before the last is ignored.
    pub fn handle_heard(&mut self, at: Instant) {
        self.heard = self.heard.max(at);
        self.deadline = self.deadline.max(at + self.interval * Self::MISSES);
    }

    /// The shell's timer fired.
    pub fn handle_timeout(&mut self, now: Instant) -> Liveness {
        let late = now.since(self.next);
        if late > self.interval {
            self.stalls += 1;
            self.deadline = self.deadline + late;
        }
        if now >= self.next {
            self.next = now + self.interval;
        }
        if now >= self.deadline {
            Liveness::Dead
        } else {
            Liveness::Alive
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next: the next interval, or the
    /// deadline if that is earlier.
    #[must_use]
    pub fn poll_timeout(&self) -> Instant {
        self.next.min(self.deadline)
    }

    /// When the peer was last heard.
    #[must_use]
    pub fn heard(&self) -> Instant {
        self.heard
    }

    /// How often this process stood still for more than an interval.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    fn detector() -> DeadDetector {
        DeadDetector::new(at(0), DeadDetector::INTERVAL)
    }

    /// Runs the timer as a punctual shell does, until death.
    fn death(detector: &mut DeadDetector) -> Instant {
        loop {
            let now = detector.poll_timeout();
            if detector.handle_timeout(now) == Liveness::Dead {
                return now;
            }
        }
    }

    #[test]
    fn silence_is_death_after_three_intervals() {
        assert_eq!(death(&mut detector()), at(900));
        let mut heard = detector();
        heard.handle_heard(at(450));
        assert_eq!(death(&mut heard), at(1350));
        assert_eq!(heard.heard(), at(450));
        assert_eq!(heard.stalls(), 0);
    }

    #[test]
    fn our_own_stall_is_not_the_peers_death() {
        let mut link = detector();
        assert_eq!(link.handle_timeout(at(300)), Liveness::Alive);
        // Planned for 600, woke at 10,600: the deadline moves from 900 to 10,900.
        assert_eq!(link.handle_timeout(at(10_600)), Liveness::Alive);
        assert_eq!(link.stalls(), 1);
        assert_eq!(death(&mut link), at(10_900));
    }

    #[test]
    fn small_lateness_moves_nothing() {
        let mut link = detector();
        assert_eq!(link.handle_timeout(at(500)), Liveness::Alive);
        assert_eq!(death(&mut link), at(900));
        assert_eq!(link.stalls(), 0);
    }

    #[test]
    fn an_old_reading_does_not_shorten_the_deadline() {
        let mut link = detector();
        link.handle_heard(at(600));
        link.handle_heard(at(100));
        assert_eq!(death(&mut link), at(1500));
    }
}
