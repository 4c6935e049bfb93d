//! A moving average that forgets with time, not with the number of samples.

use std::time::Duration;

use crate::Instant;

/// Exponentially weighted moving average with a time constant: a sample that comes `tau` after
/// the last one moves the mean 63 % of the way.
#[derive(Clone, Debug)]
pub struct Ewma {
    tau: Duration,
    state: Option<(Instant, f64)>,
}

impl Ewma {
    /// An empty average with time constant `tau`.
    #[must_use]
    pub const fn new(tau: Duration) -> Self {
        Ewma { tau, state: None }
    }

    /// Take in `sample` seen at `now`; returns the new mean.
    pub fn add(&mut self, now: Instant, sample: f64) -> f64 {
        let mean = match self.state {
            None => sample,
            Some((last, mean)) => {
                let keep = (-now.since(last).as_secs_f64() / self.tau.as_secs_f64()).exp();
                mean * keep + sample * (1.0 - keep)
            }
        };
        self.state = Some((now, mean));
        mean
    }

    /// The mean, if there was a sample.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        self.state.map(|(_, mean)| mean)
    }
}
