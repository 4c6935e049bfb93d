//! What one connection of a link carries now.

use std::{sync::Arc, time::Duration};

use base::Instant;
use runtime::net::Segments;

use crate::links::LinkState;

/// A rate over less time says nothing.
pub(crate) const LEAST: Duration = Duration::from_millis(50);

/// A connection over TCP, as its kernel counts it. What it adds to what its link carries is gone when
/// it is.
#[derive(Debug)]
pub(crate) struct Flow {
    link: Arc<LinkState>,
    counted: Option<(Instant, Segments)>,
    /// Octets a second, and whether what was to be sent waited for the network.
    rate: u64,
    waits: bool,
}

impl Flow {
    pub(crate) const fn new(link: Arc<LinkState>) -> Self {
        Flow {
            link,
            counted: None,
            rate: 0,
            waits: false,
        }
    }

    /// So much was counted until `now`.
    pub(crate) fn handle_counted(&mut self, now: Instant, segments: &Segments) {
        let Some((at, before)) = &self.counted else {
            self.counted = Some((now, *segments));
            return;
        };
        let passed = now.since(*at);
        if passed < LEAST {
            return;
        }
        let us = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
        let octets = segments.acknowledged.saturating_sub(before.acknowledged);
        let waits = segments.waited(before, us);
        self.counted = Some((now, *segments));
        self.set(octets.saturating_mul(1_000_000) / us, waits);
    }

    /// It carries nothing, as far as the link goes.
    pub(crate) fn stop(&mut self) {
        self.set(0, false);
    }

    fn set(&mut self, rate: u64, waits: bool) {
        self.link.flow((self.rate, self.waits), (rate, waits));
        (self.rate, self.waits) = (rate, waits);
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u32) -> Instant {
        Instant::ZERO + Duration::from_millis(1) * ms
    }

    /// A megabyte a second, with more to send.
    fn counted(ms: u64) -> Segments {
        Segments {
            acknowledged: ms * 1000,
            delivery_rate: 1_000_000,
            pacing_rate: 1_200_000,
            ..Segments::default()
        }
    }

    #[test]
    fn what_connections_carry_adds_up_and_is_gone_with_them() {
        let link = Arc::<LinkState>::default();
        let mut flows = [(); 2].map(|()| Flow::new(Arc::clone(&link)));
        for ms in [1000, 1300] {
            for flow in &mut flows {
                flow.handle_counted(at(ms), &counted(ms.into()));
            }
        }
        assert_eq!(link.flows(), (2_000_000, true));
        // Too soon to say anything.
        flows[0].handle_counted(at(1301), &counted(1301));
        assert_eq!(link.flows(), (2_000_000, true));
        // One has nothing more to send.
        flows[0].handle_counted(at(1600), &counted(1300));
        assert_eq!(link.flows(), (1_000_000, true));
        drop(flows);
        assert_eq!(link.flows(), (0, false));
    }
}
