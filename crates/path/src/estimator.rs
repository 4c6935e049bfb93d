//! Round-trip time, its floor and its jitter.

use std::{collections::VecDeque, time::Duration};

use base::{Ewma, Instant};

use crate::{Load, LoadEstimator, Loss, LossEstimator};

/// How fast the averages forget: a changed path shows within a few seconds.
const TAU: Duration = Duration::from_secs(2);
/// The floor is the smallest sample of this long: what a busy machine adds is not in it, and a path
/// that became longer shows after it.
const FLOOR_WINDOW: Duration = Duration::from_secs(5);
/// Samples above this say more about a stall than about the path; they count as this.
const MAX_SAMPLE: Duration = Duration::from_secs(10);

/// What is known about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkQuality {
    /// Smoothed round-trip time, time constant 2 s.
    pub rtt: Duration,
    /// The smallest round-trip time of the last 5 s: the distance.
    pub min_rtt: Duration,
    /// Smoothed difference of neighbouring samples (RFC 3550 §6.4.1, with the same time constant).
    pub jitter: Duration,
    /// The part of what goes there and back that is lost.
    pub loss: Loss,
    /// How full it is, in the direction in which it is fuller.
    pub load: Load,
    /// Samples taken in.
    pub samples: u64,
}

impl LinkQuality {
    /// How long a request's way over the link counts: the distance, and what losses cost.
    #[must_use]
    pub fn cost(&self) -> Duration {
        self.min_rtt + self.loss.delay()
    }
}

/// Turns ping samples of one link, and what TCP counts on it, into a [`LinkQuality`].
#[derive(Clone, Debug)]
pub struct LinkEstimator {
    rtt: Ewma,
    jitter: Ewma,
    last: Option<Duration>,
    /// Candidates for the floor: time and sample both ascending, so at most one per sample in the
    /// window and the front is the floor.
    floor: VecDeque<(Instant, Duration)>,
    lost: LossEstimator,
    /// What the other side lost.
    theirs: Loss,
    loaded: LoadEstimator,
    /// How full it is for the other side.
    their_load: Load,
    samples: u64,
}

impl Default for LinkEstimator {
    fn default() -> Self {
        LinkEstimator {
            rtt: Ewma::new(TAU),
            jitter: Ewma::new(TAU),
            last: None,
            floor: VecDeque::new(),
            lost: LossEstimator::default(),
            theirs: Loss::default(),
            loaded: LoadEstimator::default(),
            their_load: Load::default(),
            samples: 0,
        }
    }
}

impl LinkEstimator {
    /// Bound on the floor's candidates; the oldest go first.
    const MAX_FLOOR: usize = 256;

    /// Takes in one round trip that ended at `now`.
    pub fn handle_sample(&mut self, now: Instant, rtt: Duration) {
        let rtt = rtt.min(MAX_SAMPLE);
        self.samples += 1;
        self.rtt.add(now, rtt.as_secs_f64());
        if let Some(last) = self.last.replace(rtt) {
            self.jitter.add(now, rtt.abs_diff(last).as_secs_f64());
        }
        while self.floor.back().is_some_and(|(_, sample)| *sample >= rtt) {
            self.floor.pop_back();
        }
        self.floor.push_back((now, rtt));
        while self.floor.len() > Self::MAX_FLOOR
            || self
                .floor
                .front()
                .is_some_and(|(at, _)| now.since(*at) > FLOOR_WINDOW)
        {
            self.floor.pop_front();
        }
    }

    /// So many packets were sent until `now`, and so many of them lost, since the link began.
    pub fn handle_counts(&mut self, now: Instant, sent: u64, lost: u64) {
        self.lost.handle_counts(now, sent, lost);
    }

    /// The other side says that it loses so much.
    pub const fn handle_their_loss(&mut self, loss: Loss) {
        self.theirs = loss;
    }

    /// See [`LoadEstimator::handle_rate`].
    pub fn handle_rate(&mut self, now: Instant, octets: u64, waits: bool) {
        self.loaded.handle_rate(now, octets, waits);
    }

    /// The other side says that the link is so full for it.
    pub const fn handle_their_load(&mut self, load: Load) {
        self.their_load = load;
    }

    /// What this side sends over it, and could.
    #[must_use]
    pub const fn loaded(&self) -> &LoadEstimator {
        &self.loaded
    }

    /// What is lost of what this side sends.
    #[must_use]
    pub fn own_loss(&self) -> Loss {
        self.lost.loss()
    }

    /// What is known, once there was a sample.
    #[must_use]
    pub fn quality(&self) -> Option<LinkQuality> {
        Some(LinkQuality {
            rtt: Duration::from_secs_f64(self.rtt.mean()?.max(0.0)),
            min_rtt: self.floor.front()?.1,
            jitter: Duration::from_secs_f64(self.jitter.mean().unwrap_or(0.0).max(0.0)),
            loss: self.own_loss().and(self.theirs),
            load: self.loaded.load().max(self.their_load),
            samples: self.samples,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(ms: u32) -> Instant {
        Instant::ZERO + MS * ms
    }

    fn close(a: Duration, b: Duration) -> bool {
        a.abs_diff(b) <= b / 20
    }

    #[test]
    fn follows_a_changed_path_within_ten_seconds() {
        let mut link = LinkEstimator::default();
        assert_eq!(link.quality(), None);
        for n in 0..100 {
            link.handle_sample(at(n * 300), 5 * MS);
        }
        let quality = link.quality().expect("samples");
        assert!(
            close(quality.rtt, 5 * MS) && quality.jitter < MS,
            "{quality:?}"
        );
        for n in 100..134 {
            link.handle_sample(at(n * 300), 40 * MS);
        }
        let quality = link.quality().expect("samples");
        assert!(close(quality.rtt, 40 * MS), "{quality:?}");
        assert_eq!(quality.min_rtt, 40 * MS);
        assert_eq!(quality.samples, 134);
    }

    #[test]
    fn the_floor_forgets_after_its_window() {
        let mut link = LinkEstimator::default();
        link.handle_sample(at(0), 5 * MS);
        link.handle_sample(at(1000), 7 * MS);
        link.handle_sample(at(5500), 9 * MS);
        assert_eq!(link.quality().expect("samples").min_rtt, 7 * MS);
        for n in 0..10_000 {
            link.handle_sample(at(6000 + n), (10 + n) * MS);
        }
        assert!(link.floor.len() <= LinkEstimator::MAX_FLOOR);
    }

    #[test]
    fn jitter_sees_what_the_mean_hides() {
        let mut link = LinkEstimator::default();
        for n in 0..100 {
            link.handle_sample(at(n * 300), if n % 2 == 0 { 5 * MS } else { 15 * MS });
        }
        let quality = link.quality().expect("samples");
        assert!(quality.rtt > 9 * MS && quality.rtt < 11 * MS, "{quality:?}");
        assert!(close(quality.jitter, 10 * MS), "{quality:?}");
    }
}
