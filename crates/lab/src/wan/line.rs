//! One direction of a line: when a packet arrives, if it does. Pure: time and chance are arguments.

use std::time::Duration;

use base::{Instant, Rng};
use serde::{Deserialize, Serialize};

/// The longest delay, jitter and queue each.
const LONGEST: Duration = Duration::from_secs(10);
/// The least rate, in kilobits a second.
const LEAST_RATE: u64 = 8;
/// What waits longer than this for a line with a rate is dropped, unless the line says otherwise.
const QUEUE: Duration = Duration::from_millis(100);
/// The least MTU (RFC 791 §3.2: what every host takes).
const LEAST_MTU: usize = 576;
/// All of them.
const MILLION: u32 = 1_000_000;

/// What a line does to packets, the same in both directions. Times are in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shape {
    /// One way.
    pub delay_us: u64,
    /// Up to so much more, evenly spread; the order stays.
    pub jitter_us: u64,
    /// Of a million packets so many are lost, each by itself.
    pub loss_ppm: u32,
    /// Kilobits a second; without it there is no limit.
    pub rate_kbit: Option<u64>,
    /// How long packets may wait for a line with a rate; 100 ms by default.
    pub queue_us: Option<u64>,
    /// The longest packet that fits, its IP header included; longer ones vanish.
    pub mtu: Option<usize>,
    /// Nothing arrives.
    pub cut: bool,
    /// Of UDP nothing does, as where a firewall knows TCP alone.
    pub no_udp: bool,
}

/// A shape says something that no line can do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} has to be {bound}")]
pub struct ShapeError {
    field: &'static str,
    bound: &'static str,
}

impl Shape {
    /// A line of nothing but distance.
    #[must_use]
    pub fn distance(one_way: Duration) -> Self {
        Shape {
            delay_us: u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX),
            ..Shape::default()
        }
    }

    /// Is it one that a line can have?
    ///
    /// # Errors
    /// The field and its bound.
    pub fn check(&self) -> Result<(), ShapeError> {
        let wrong = |field, bound| Err(ShapeError { field, bound });
        let times = [
            ("delay_us", self.delay_us),
            ("jitter_us", self.jitter_us),
            ("queue_us", self.queue_us.unwrap_or_default()),
        ];
        for (field, us) in times {
            if Duration::from_micros(us) > LONGEST {
                return wrong(field, "10,000,000 at most");
            }
        }
        if self.loss_ppm > MILLION {
            return wrong("loss_ppm", "1,000,000 at most");
        }
        if self.rate_kbit.is_some_and(|rate| rate < LEAST_RATE) {
            return wrong("rate_kbit", "8 at least");
        }
        if self.mtu.is_some_and(|mtu| mtu < LEAST_MTU) {
            return wrong("mtu", "576 at least");
        }
        Ok(())
    }

    /// How long a packet of `length` octets takes to get onto the line.
    fn takes(&self, length: usize) -> Duration {
        let nanos = |rate| (length as u64).saturating_mul(8_000_000) / rate;
        Duration::from_nanos(self.rate_kbit.map_or(0, nanos))
    }
}

/// What became of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Carried.
    pub packets: u64,
    /// Their octets.
    pub bytes: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Too many at once for the rate.
    pub overflowed: u64,
    /// Too long.
    pub too_long: u64,
    /// Sent while it was cut, or cut for UDP.
    pub cut: u64,
}

/// One direction of a line.
#[derive(Debug)]
pub(crate) struct Line {
    shape: Shape,
    rng: Rng,
    /// When what was sent so far is on the line.
    free: Instant,
    /// When the last one arrives.
    last: Instant,
    pub(crate) counts: Counts,
}

impl Line {
    /// # Errors
    /// See [`Shape::check`].
    pub(crate) fn new(shape: &Shape, seed: u64) -> Result<Self, ShapeError> {
        shape.check()?;
        Ok(Line {
            shape: *shape,
            rng: Rng::new(seed),
            free: Instant::ZERO,
            last: Instant::ZERO,
            counts: Counts::default(),
        })
    }

    /// What is on its way stays.
    ///
    /// # Errors
    /// See [`Shape::check`]; then nothing changed.
    pub(crate) fn reshape(&mut self, shape: &Shape) -> Result<(), ShapeError> {
        shape.check()?;
        self.shape = *shape;
        Ok(())
    }

    /// When a packet of `length` octets (IP header included) that is sent now arrives; `None`: it
    /// does not.
    pub(crate) fn carry(&mut self, now: Instant, length: usize, udp: bool) -> Option<Instant> {
        let shape = self.shape;
        if shape.cut || shape.no_udp && udp {
            self.counts.cut += 1;
            return None;
        }
        if shape.mtu.is_some_and(|mtu| length > mtu) {
            self.counts.too_long += 1;
            return None;
        }
        let begins = self.free.max(now);
        if begins.since(now) > shape.queue_us.map_or(QUEUE, Duration::from_micros) {
            self.counts.overflowed += 1;
            return None;
        }
        self.free = begins + shape.takes(length);
        if self.rng.chance(shape.loss_ppm.into(), MILLION.into()) {
            self.counts.lost += 1;
            return None;
        }
        let more = self.rng.below(shape.jitter_us.saturating_add(1));
        let way = Duration::from_micros(shape.delay_us + more);
        // Routers do not reorder what takes one way.
        self.last = self.last.max(self.free + way);
        self.counts.packets += 1;
        self.counts.bytes += length as u64;
        Some(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(micros: u64) -> Instant {
        Instant::ZERO + Duration::from_micros(micros)
    }

    fn line(shape: Shape) -> Line {
        Line::new(&shape, 7).expect("a line")
    }

    #[test]
    fn distance_is_a_delay() {
        let mut line = line(Shape::distance(Duration::from_micros(2_500)));
        assert_eq!(line.carry(at(10), 1500, false), Some(at(2_510)));
        assert_eq!(line.carry(at(20), 40, false), Some(at(2_520)));
    }

    #[test]
    fn a_rate_makes_a_queue_that_is_bounded() {
        // 8 Mbit/s: a microsecond an octet.
        let mut line = line(Shape {
            rate_kbit: Some(8_000),
            queue_us: Some(2_000),
            ..Shape::default()
        });
        let arrivals: Vec<_> = (0..4).map(|_| line.carry(at(0), 1000, false)).collect();
        assert_eq!(
            arrivals,
            [Some(at(1000)), Some(at(2000)), Some(at(3000)), None]
        );
        assert_eq!((line.counts.packets, line.counts.overflowed), (3, 1));
        assert_eq!(line.carry(at(5000), 1000, false), Some(at(6000)));
    }

    #[test]
    fn loss_is_a_share_and_repeats_with_its_seed() {
        let lossy = || {
            let mut line = line(Shape {
                loss_ppm: 200_000,
                ..Shape::default()
            });
            (0..10_000)
                .map(|n| line.carry(at(n), 100, false).is_none())
                .collect::<Vec<_>>()
        };
        let lost = lossy().into_iter().filter(|lost| *lost).count();
        assert!((1_850..2_150).contains(&lost), "{lost}");
        assert_eq!(lossy(), lossy());
    }

    #[test]
    fn jitter_keeps_the_order() {
        let mut line = line(Shape {
            delay_us: 5_000,
            jitter_us: 10_000,
            ..Shape::default()
        });
        let mut last = at(0);
        for n in 0..1_000 {
            let sent = at(n * 100);
            let arrives = line.carry(sent, 100, false).expect("carried");
            assert!(arrives >= last && arrives.since(sent) <= Duration::from_millis(15));
            last = arrives;
        }
    }

    #[test]
    fn what_is_cut_or_too_long_does_not_arrive() {
        let mut line = line(Shape {
            mtu: Some(1400),
            ..Shape::default()
        });
        assert_eq!(line.carry(at(0), 1401, false), None);
        assert!(line.carry(at(0), 1400, false).is_some());
        let cut = Shape {
            cut: true,
            ..Shape::default()
        };
        line.reshape(&cut).expect("reshaped");
        assert_eq!(line.carry(at(0), 100, false), None);
        assert_eq!((line.counts.too_long, line.counts.cut), (1, 1));
    }

    #[test]
    fn what_no_line_can_do_is_refused() {
        let bad = |change: fn(&mut Shape)| {
            let mut shape = Shape::default();
            change(&mut shape);
            shape.check().expect_err("refused").to_string()
        };
        assert_eq!(
            bad(|s| s.loss_ppm = 2_000_000),
            "loss_ppm has to be 1,000,000 at most"
        );
        assert!(bad(|s| s.delay_us = u64::MAX).starts_with("delay_us"));
        assert!(bad(|s| s.jitter_us = 20_000_000).starts_with("jitter_us"));
        assert!(bad(|s| s.rate_kbit = Some(0)).starts_with("rate_kbit"));
        assert!(bad(|s| s.mtu = Some(100)).starts_with("mtu"));
    }

    #[test]
    fn a_firewall_that_knows_tcp_alone() {
        let mut firewall = line(Shape {
            no_udp: true,
            ..Shape::default()
        });
        assert_eq!(firewall.carry(at(5), 100, true), None);
        assert_eq!(firewall.carry(at(5), 100, false), Some(at(5)));
        assert_eq!((firewall.counts.cut, firewall.counts.packets), (1, 1));
    }
}
