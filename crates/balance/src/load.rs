//! Weights by what endpoints say of their own load (gRFC A58, over the reports of A51).

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use base::{Instant, Rng};

use crate::{Endpoint, set::Member};

/// A new report moves a weight by a part in e after so long.
const SMOOTH: Duration = Duration::from_secs(1);
/// What is known of all members together is worked out anew after this.
const UPDATE: Duration = Duration::from_secs(1);
/// No weight counts for more than so many times the mean of all.
const MAX_RATIO: f64 = 10.0;
/// Draws until somebody is taken whoever it is: one in a thousand gets there where the heaviest
/// weighs ten times the mean. One that outweighs all others together gets less than its weight
/// says, not more.
const DRAWS: usize = 64;

/// What an endpoint says with an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LoadReport {
    /// How much of it is in use, 1 being all; more is possible.
    pub utilization: f64,
    /// Requests that it answers in a second.
    pub qps: f64,
    /// Of these, the ones that fail.
    pub eps: f64,
}

impl LoadReport {
    /// Requests a second for a whole endpoint in use, where failures count as use: `None` if it
    /// does not say enough (A58).
    fn weight(self) -> Option<f64> {
        let failing = if self.eps > 0.0 {
            self.eps / self.qps
        } else {
            0.0
        };
        let weight = self.qps / (self.utilization + failing);
        let said = self.qps > 0.0 && self.utilization > 0.0;
        Some(weight).filter(|weight| said && weight.is_finite() && *weight > 0.0)
    }
}

/// How reports are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadPolicy {
    /// What one says first counts after this, when it has come to its usual work: 10 s by default.
    pub blackout: Duration,
    /// What was said so long ago counts no more: 3 min by default.
    pub expiry: Duration,
}

impl Default for LoadPolicy {
    fn default() -> Self {
        LoadPolicy {
            blackout: Duration::from_secs(10),
            expiry: Duration::from_secs(180),
        }
    }
}

/// What one endpoint has said. Relaxed: of two reports at the same moment one may be lost.
#[derive(Debug, Default)]
pub(crate) struct Reported {
    /// An `f64`; 0: nothing.
    weight: AtomicU64,
    /// When it spoke last, and since when without a long pause.
    last: AtomicU64,
    since: AtomicU64,
}

impl Reported {
    pub(crate) fn add(&self, now: Instant, report: LoadReport, policy: &LoadPolicy) {
        let Some(new) = report.weight() else { return };
        let before = f64::from_bits(self.weight.load(Relaxed));
        let pause = self.pause(now);
        let weight = if before == 0.0 || pause >= policy.expiry {
            self.since.store(now.as_nanos(), Relaxed);
            new
        } else {
            let kept = (-pause.as_secs_f64() / SMOOTH.as_secs_f64()).exp();
            // Of many in one moment each counts a little, too.
            new + (before - new) * kept.min(0.99)
        };
        self.weight.store(weight.to_bits(), Relaxed);
        self.last.store(now.as_nanos(), Relaxed);
    }

    pub(crate) fn weight(&self, now: Instant, policy: &LoadPolicy) -> Option<f64> {
        let weight = f64::from_bits(self.weight.load(Relaxed));
        let begun = now.since(Instant::from_nanos(self.since.load(Relaxed)));
        let counts = begun >= policy.blackout && self.pause(now) < policy.expiry;
        Some(weight).filter(|weight| *weight > 0.0 && counts)
    }

    fn pause(&self, now: Instant) -> Duration {
        now.since(Instant::from_nanos(self.last.load(Relaxed)))
    }
}

/// What the members of a tier have said, all together.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    /// When this was worked out; 0: never.
    at: AtomicU64,
    /// `f64`s; 0: fewer than two have said anything.
    mean: AtomicU64,
    most: AtomicU64,
}

impl Loads {
    /// A member in proportion to its configured weight and what it says; of those who say nothing
    /// the mean is assumed. `draw` gives one by configured weight.
    pub(crate) fn choose<'m>(
        &self,
        endpoints: &[Endpoint],
        members: &[Member],
        (now, policy): (Instant, &LoadPolicy),
        rng: &mut Rng,
        mut draw: impl FnMut(&mut Rng) -> Option<&'m Member>,
    ) -> Option<usize> {
        self.update(endpoints, members, now, policy);
        let mean = f64::from_bits(self.mean.load(Relaxed));
        let most = f64::from_bits(self.most.load(Relaxed));
        let mut drawn = draw(rng)?;
        for _ in 1..DRAWS {
            let said = endpoints.get(drawn.index);
            let said = said.and_then(|endpoint| endpoint.stats.load(now, policy));
            let part = said.unwrap_or(mean) / most;
            // Without anything to go by this is no number, and whoever was drawn is taken.
            #[expect(clippy::cast_precision_loss, reason = "53 bits are chance enough")]
            let point = rng.below(1 << 53) as f64 / (1_u64 << 53) as f64;
            let declined = part <= point;
            if !declined {
                break;
            }
            drawn = draw(rng)?;
        }
        Some(drawn.index)
    }

    fn update(
        &self,
        endpoints: &[Endpoint],
        members: &[Member],
        now: Instant,
        policy: &LoadPolicy,
    ) {
        let at = self.at.load(Relaxed);
        let fresh = at != 0 && now.since(Instant::from_nanos(at)) < UPDATE;
        let mine = || {
            let now = now.as_nanos().max(1);
            self.at.compare_exchange(at, now, Relaxed, Relaxed).is_ok()
        };
        if fresh || !mine() {
            return;
        }
        let said = members.iter().filter_map(|member| {
            let endpoint = endpoints.get(member.index)?;
            endpoint.stats.load(now, policy)
        });
        let (mut count, mut sum, mut most) = (0.0, 0.0, 0.0_f64);
        for weight in said {
            count += 1.0;
            sum += weight;
            most = most.max(weight);
        }
        let mean = if count < 2.0 { 0.0 } else { sum / count };
        let most = most.min(mean * MAX_RATIO);
        self.mean.store(mean.to_bits(), Relaxed);
        self.most.store(most.to_bits(), Relaxed);
    }
}
