//! From single probe results to health: neither one lost packet nor one lucky answer decides.

use crate::Health;

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The expected answer in time.
    Success,
    /// No answer, a wrong one, or a late one.
    Failure,
    /// The connection was refused: nobody listens. Counts as `fall` failures at once.
    Refused,
}

/// The state machine of one probed endpoint: `rise` successes in a row make it healthy, `fall`
/// failures in a row make it unhealthy, and the very first result decides at once.
#[derive(Clone, Debug)]
pub struct Hysteresis {
    rise: u32,
    fall: u32,
    health: Health,
    run: u32,
}

impl Hysteresis {
    /// A machine in [`Health::Unknown`]; `rise` and `fall` below 1 count as 1.
    #[must_use]
    pub fn new(rise: u32, fall: u32) -> Self {
        Hysteresis {
            rise: rise.max(1),
            fall: fall.max(1),
            health: Health::Unknown,
            run: 0,
        }
    }

    /// The state now: `Unknown`, `Healthy` or `Unhealthy`.
    #[must_use]
    pub const fn health(&self) -> Health {
        self.health
    }

    /// Take in one result; the new state if it changed.
    pub fn observe(&mut self, outcome: ProbeOutcome) -> Option<Health> {
        let toward = match outcome {
            ProbeOutcome::Success => Health::Healthy,
            ProbeOutcome::Failure | ProbeOutcome::Refused => Health::Unhealthy,
        };
        if toward == self.health {
            self.run = 0;
            return None;
        }
        let (needed, counts) = match outcome {
            ProbeOutcome::Success => (self.rise, 1),
            ProbeOutcome::Failure => (self.fall, 1),
            ProbeOutcome::Refused => (self.fall, self.fall),
        };
        self.run = self.run.saturating_add(counts);
        if self.run < needed && self.health != Health::Unknown {
            return None;
        }
        self.run = 0;
        self.health = toward;
        Some(toward)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rise: u32, fall: u32, input: &str, expect: &str) {
        let mut machine = Hysteresis::new(rise, fall);
        let states: String = input
            .chars()
            .map(|c| {
                machine.observe(match c {
                    '+' => ProbeOutcome::Success,
                    '-' => ProbeOutcome::Failure,
                    _ => ProbeOutcome::Refused,
                });
                if machine.health() == Health::Healthy {
                    'H'
                } else {
                    'U'
                }
            })
            .collect();
        assert_eq!(states, expect, "rise {rise}, fall {fall}, probes {input}");
    }

    #[test]
    fn transitions() {
        check(3, 2, "+", "H");
        check(3, 2, "-", "U");
        check(3, 2, "+-+-+--", "HHHHHHU");
        check(3, 2, "+--++-+++", "HHUUUUUUH");
        check(3, 2, "+x", "HU");
        check(3, 2, "x++x+++", "UUUUUUH");
        check(0, 0, "+-+", "HUH");
    }
}
