//! What part of the packets is lost on a link.

use std::time::Duration;

use base::Instant;

/// A part of the packets, in 1/65535: 0 none, 65535 all (the unit of MESH's Link routes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loss(pub u16);

/// What losing every packet would cost: a request is some four packets, and each that is lost comes
/// after the 200 ms that TCP waits at least (RFC 6298 has a second, Linux a fifth of it).
const ALL_LOST: Duration = Duration::from_secs(1);

impl Loss {
    /// From 0 to 1; what is outside counts as the nearer end.
    #[must_use]
    pub fn of(part: f64) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is between 0 and 65535"
        )]
        let bits = (part.clamp(0.0, 1.0) * f64::from(u16::MAX)).round() as u16;
        Loss(bits)
    }

    /// From 0 to 1.
    #[must_use]
    pub fn part(self) -> f64 {
        f64::from(self.0) / f64::from(u16::MAX)
    }

    /// Of what goes there and back: this on one way, `other` on the other.
    #[must_use]
    pub fn and(self, other: Loss) -> Self {
        Loss::of(1.0 - (1.0 - self.part()) * (1.0 - other.part()))
    }

    /// How much longer a request takes for it, on average.
    #[must_use]
    pub fn delay(self) -> Duration {
        ALL_LOST.mul_f64(self.part())
    }

    /// Is it another one than `before`? A quarter of it, or half of a hundredth, is noise; that (next
    /// to) nothing is lost any more is none.
    #[must_use]
    pub fn is_news(self, before: Loss) -> bool {
        const NOTHING: u16 = u16::MAX / 1000;
        let over = before.0 > NOTHING && self.0 <= NOTHING;
        over || self.0.abs_diff(before.0) > (before.0 / 4).max(u16::MAX / 200)
    }
}

/// Turns what TCP counts into a [`Loss`].
///
/// Two averages, of a second and of eight: what begins is seen within a second, and what ends is
/// believed after some. Few packets prove little, so each begins with some that were not lost.
#[derive(Clone, Debug)]
pub struct LossEstimator {
    fast: Decayed,
    slow: Decayed,
    /// What was counted when it was looked at last; `None`: never. What was lost before that, while
    /// the link was made, says nothing of the link.
    counted: Option<(u64, u64)>,
}

impl Default for LossEstimator {
    fn default() -> Self {
        LossEstimator {
            fast: Decayed::new(Duration::from_secs(1), 10.0),
            slow: Decayed::new(Duration::from_secs(8), 20.0),
            counted: None,
        }
    }
}

impl LossEstimator {
    /// So many packets were sent until `now`, and so many of them lost, since the link began.
    pub fn handle_counts(&mut self, now: Instant, sent: u64, lost: u64) {
        let (before_sent, before_lost) = self.counted.unwrap_or((sent, lost));
        // One that turns out not to have been lost is not lost again.
        self.counted = Some((sent, lost.max(before_lost)));
        #[expect(
            clippy::cast_precision_loss,
            reason = "a ratio of what was sent in a moment"
        )]
        let new = |now: u64, before: u64| now.saturating_sub(before) as f64;
        let (sent, lost) = (new(sent, before_sent), new(lost, before_lost));
        for average in [&mut self.fast, &mut self.slow] {
            average.add(now, sent, lost.min(sent));
        }
    }

    /// The greater of the two.
    #[must_use]
    pub fn loss(&self) -> Loss {
        self.fast.loss().max(self.slow.loss())
    }
}

/// Sums in which what is older counts less.
#[derive(Clone, Debug)]
struct Decayed {
    tau: Duration,
    /// Packets that were never sent, and not lost.
    grain: f64,
    at: Instant,
    sent: f64,
    lost: f64,
}

impl Decayed {
    const fn new(tau: Duration, grain: f64) -> Self {
        Decayed {
            tau,
            grain,
            at: Instant::ZERO,
            sent: 0.0,
            lost: 0.0,
        }
    }

    fn add(&mut self, now: Instant, sent: f64, lost: f64) {
        let left = (-now.since(self.at).div_duration_f64(self.tau)).exp();
        self.at = now;
        self.sent = self.sent * left + sent;
        self.lost = self.lost * left + lost;
    }

    fn loss(&self) -> Loss {
        Loss::of(self.lost / (self.sent + self.grain))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A link that sends 20 packets a second, of which this part is lost.
    struct Line {
        estimator: LossEstimator,
        rng: base::Rng,
        now: Instant,
        sent: u64,
        lost: u64,
    }

    impl Line {
        fn new(seed: u64) -> Self {
            Line {
                estimator: LossEstimator::default(),
                rng: base::Rng::new(seed),
                now: Instant::ZERO,
                sent: 0,
                lost: 0,
            }
        }

        /// The greatest loss that was seen in these seconds.
        fn run(&mut self, seconds: u32, percent: u64) -> Loss {
            let mut greatest = Loss::default();
            for _ in 0..seconds * 10 {
                self.now = self.now + MS * 100;
                for _ in 0..2 {
                    self.sent += 1;
                    self.lost += u64::from(self.rng.below(100) < percent);
                }
                self.estimator.handle_counts(self.now, self.sent, self.lost);
                greatest = greatest.max(self.estimator.loss());
            }
            greatest
        }
    }

    #[test]
    fn a_line_that_begins_to_lose_is_seen_within_two_seconds_and_forgiven_after_some() {
        for seed in 0..100 {
            let mut line = Line::new(seed);
            assert_eq!(line.run(30, 0), Loss::default());
            line.run(2, 20);
            let seen = line.estimator.loss().part();
            assert!(seen > 0.03, "seed {seed}: {seen}");
            line.run(20, 20);
            let settled = line.estimator.loss().part();
            assert!((0.07..0.4).contains(&settled), "seed {seed}: {settled}");
            line.run(40, 0);
            let after = line.estimator.loss().part();
            assert!(after < 0.005, "seed {seed}: {after}");
        }
    }

    #[test]
    fn one_packet_is_not_a_loss_of_everything() {
        let mut line = Line::new(0);
        line.estimator.handle_counts(line.now, 10, 9);
        assert_eq!(line.estimator.loss(), Loss::default());
        line.now = Instant::ZERO + MS * 10;
        line.estimator.handle_counts(line.now, 12, 10);
        assert!(line.estimator.loss().part() < 0.1);
        // Counters that went back say nothing.
        line.estimator.handle_counts(line.now + MS, 1, 0);
        assert!(line.estimator.loss().part() < 0.1);
    }

    #[test]
    fn both_ways_and_what_it_costs() {
        let fifth = Loss::of(0.2);
        assert!((fifth.and(fifth).part() - 0.36).abs() < 0.001);
        assert_eq!(fifth.and(Loss::default()), fifth);
        assert!(fifth.delay() > 199 * MS && fifth.delay() < 201 * MS);
        assert_eq!(Loss::of(-1.0), Loss(0));
        assert_eq!(Loss::of(f64::from(7)), Loss(u16::MAX));
        assert!(!Loss(100).is_news(Loss(0)) && Loss(1000).is_news(Loss(0)));
        assert!(!Loss(200).is_news(Loss(320)) && Loss(20).is_news(Loss(320)));
    }
}
