//! How full a link is.

use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

use base::{Ewma, Instant};

/// How fast the rate forgets, and how fast what is full does: a burst of half a second is no load.
const RATE: Duration = Duration::from_secs(1);
const FULL: Duration = Duration::from_secs(2);
/// How long it is known what a link could carry, in pieces of so much.
const WINDOW: Duration = Duration::from_secs(60);
const PIECE: Duration = Duration::from_secs(10);
/// What carries so many times what it could, and nothing waits, can carry more.
const REFUTED: f64 = 1.1;
/// Less is no load.
const FREE: f64 = 0.7;
/// A load rises at most once in the first, and falls at most once in the second.
const RISE: Duration = Duration::from_secs(1);
const FALL: Duration = Duration::from_secs(10);

/// How much of what a link could carry it carries, in percent: 0 to 100.
///
/// As [`LoadEstimator`] has it: 0 below 70, and then in tens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Load(u8);

impl Load {
    /// All that it can.
    pub const FULL: Load = Load(100);

    /// So many percent; more than 100 are 100.
    #[must_use]
    pub const fn of(percent: u8) -> Self {
        match percent {
            0..=100 => Load(percent),
            101.. => Load::FULL,
        }
    }

    /// From 0 to 100.
    #[must_use]
    pub const fn percent(self) -> u8 {
        self.0
    }

    /// How much longer what goes over it counts: as what waits in a queue grows (ρ / (1 − ρ)), from
    /// 60 % on, and 10 ms at most. At 80 % it is 1 ms.
    #[must_use]
    pub fn delay(self) -> Duration {
        const FROM: u32 = 60;
        const HALF: Duration = Duration::from_millis(1);
        const MOST: Duration = Duration::from_millis(10);
        let load = u32::from(self.0);
        let (over, left) = (load.saturating_sub(FROM), 100_u32.saturating_sub(load));
        match HALF.saturating_mul(over).checked_div(left) {
            Some(delay) => delay.min(MOST),
            None => MOST,
        }
    }
}

/// Turns what is carried into a [`Load`].
///
/// What a link could carry is seen only when somebody wants more of it: while what is to be sent
/// waits for the network, the link is full, and what it carries is what it can. The greatest such
/// rate of the last minute counts, as in BBR (draft-cardwell-iccrg-bbr-congestion-control §4.1). A
/// rate at which nothing waits lowers nothing; one that is clearly greater says that the link can do
/// more, and not how much: then nothing is known, as a minute after something waited last. A link of
/// which nothing is known is not loaded.
#[derive(Clone, Debug)]
pub struct LoadEstimator {
    rate: Ewma,
    full: Ewma,
    /// The greatest rates, each of a piece of time that began then: at most as many as there are
    /// pieces in the window, and one.
    most: VecDeque<(Instant, f64)>,
    load: Load,
    /// Since when it is looked whether it is less, and the most that was seen since.
    since: Instant,
    peak: Load,
}

impl Default for LoadEstimator {
    fn default() -> Self {
        LoadEstimator {
            rate: Ewma::new(RATE),
            full: Ewma::new(FULL),
            most: VecDeque::new(),
            load: Load::default(),
            since: Instant::ZERO,
            peak: Load::default(),
        }
    }
}

impl LoadEstimator {
    /// Until `now` so many octets a second were carried, and what was to be sent waited for the
    /// network, or did not.
    pub fn handle_rate(&mut self, now: Instant, octets: u64, waits: bool) {
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = self.rate.add(now, octets as f64);
        self.remember(now, rate, waits);
        let part = match self.most() {
            _ if waits => 1.0,
            Some(most) if most > 0.0 => (rate / most).min(1.0),
            Some(_) | None => 0.0,
        };
        let full = self.full.add(now, part);
        self.settle(now, in_tens(full));
    }

    fn remember(&mut self, now: Instant, rate: f64, waits: bool) {
        while let Some((began, _)) = self.most.front()
            && now.since(*began) > WINDOW
        {
            self.most.pop_front();
        }
        if !waits {
            if self.most().is_some_and(|most| rate > most * REFUTED) {
                self.most.clear();
            }
            return;
        }
        match self.most.back_mut() {
            Some((began, most)) if now.since(*began) < PIECE => *most = most.max(rate),
            Some(_) | None => self.most.push_back((now, rate)),
        }
    }

    fn settle(&mut self, now: Instant, load: Load) {
        let passed = now.since(self.since);
        self.peak = self.peak.max(load);
        if load > self.load && passed >= RISE {
            (self.load, self.peak, self.since) = (load, load, now);
        } else if passed >= FALL {
            (self.load, self.peak, self.since) = (self.peak.min(self.load), load, now);
        }
    }

    fn most(&self) -> Option<f64> {
        self.most.iter().map(|(_, most)| *most).reduce(f64::max)
    }

    /// Octets a second that are carried, time constant 1 s.
    #[must_use]
    pub fn rate(&self) -> u64 {
        whole(self.rate.mean().unwrap_or_default())
    }

    /// Octets a second that could be carried, if that is known.
    #[must_use]
    pub fn capacity(&self) -> Option<u64> {
        self.most().map(whole)
    }

    /// How much of that is carried: it rises at most once a second, and falls after ten.
    #[must_use]
    pub const fn load(&self) -> Load {
        self.load
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "casts saturate, and rates are not negative"
)]
fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// Of a part between 0 and 1; full is what is nearly so, since an average never gets there.
fn in_tens(part: f64) -> Load {
    if part < FREE {
        return Load::default();
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 7 and 10"
    )]
    let tens = (part.min(1.0) * 10.0 + 0.3).floor() as u8;
    Load::of(tens * 10)
}

/// How much of its share a link to a site gets beside others there, because of its load.
///
/// Less is given to one that is full while another has room, and more again when all have. Load
/// follows shares late, so they move slowly: the first step is taken at once, each other one ten
/// seconds after the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relief {
    part: u32,
    changed: Option<Instant>,
}

impl Default for Relief {
    fn default() -> Self {
        Relief {
            part: Relief::WHOLE,
            changed: None,
        }
    }
}

impl Relief {
    /// All of it.
    pub const WHOLE: u32 = 1000;
    /// What is left of it at least: a link that gets nothing would not be seen to be good again.
    pub const LEAST: u32 = 250;

    const HIGH: Load = Load(90);
    const LOW: Load = Load(70);
    const STEP: Duration = Duration::from_secs(10);

    /// Its load is so much `now`, and the least and the greatest of all of them. What comes back is
    /// what is left of its share, of 1000.
    pub fn handle_load(&mut self, now: Instant, load: Load, all: RangeInclusive<Load>) -> u32 {
        if self.changed.is_none_or(|at| now.since(at) >= Relief::STEP) {
            let part = if load >= Relief::HIGH && *all.start() < Relief::LOW {
                (self.part * 2 / 3).max(Relief::LEAST)
            } else if *all.end() < Relief::LOW {
                (self.part + Relief::WHOLE / 8).min(Relief::WHOLE)
            } else {
                self.part
            };
            if part != self.part {
                (self.part, self.changed) = (part, Some(now));
            }
        }
        self.part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(300);
    const MBIT: u64 = 125_000;

    /// A line that carries so much at most.
    struct Line {
        estimator: LoadEstimator,
        now: Instant,
        capacity: u64,
    }

    impl Line {
        fn new(mbit: u64) -> Self {
            Line {
                estimator: LoadEstimator::default(),
                now: Instant::ZERO + Duration::from_secs(1000),
                capacity: mbit * MBIT,
            }
        }

        /// For so long somebody wants to send so much; the changes of the load.
        fn run(&mut self, seconds: u32, mbit: u64) -> Vec<u8> {
            let mut changes = Vec::new();
            let wanted = mbit * MBIT;
            let end = self.now + Duration::from_secs(seconds.into());
            while self.now < end {
                self.now = self.now + TICK;
                let carried = wanted.min(self.capacity);
                let before = self.estimator.load();
                let waits = wanted > self.capacity;
                self.estimator.handle_rate(self.now, carried, waits);
                let load = self.estimator.load();
                if load != before {
                    changes.push(load.percent());
                }
            }
            changes
        }

        fn knows(&self) -> Option<u64> {
            self.estimator.capacity().map(|rate| rate / MBIT)
        }
    }

    #[test]
    fn a_link_that_nobody_filled_is_not_loaded_whatever_it_carries() {
        let mut line = Line::new(100);
        assert_eq!(line.run(60, 99), []);
        assert_eq!((line.knows(), line.estimator.load()), (None, Load(0)));
        assert_eq!(line.estimator.rate(), 99 * MBIT);
    }

    #[test]
    fn a_link_that_is_filled_is_full_within_five_seconds_and_free_after_ten() {
        let mut line = Line::new(100);
        line.run(20, 10);
        // A burst is none.
        assert_eq!(line.run(1, 200), []);
        assert_eq!(line.knows().map(|known| known > 40), Some(true));
        line.run(20, 10);
        line.run(7, 200);
        assert_eq!(line.estimator.load(), Load::FULL);
        assert!(
            line.knows()
                .is_some_and(|known| (98..=100).contains(&known))
        );
        assert_eq!(line.run(8, 10), [], "it may come again");
        assert_eq!(line.run(14, 10), [0]);
        // What waits for nothing is measured by what there was.
        let changes = line.run(30, 85);
        assert_eq!(changes.last(), Some(&80), "{changes:?}");
        assert!(line.knows().is_some_and(|known| known >= 98));
        // Nobody has filled it for a minute.
        line.run(40, 85);
        assert_eq!((line.knows(), line.estimator.load()), (None, Load(0)));
    }

    #[test]
    fn what_waits_for_nothing_lowers_nothing_and_refutes_what_is_too_little() {
        let mut line = Line::new(10);
        line.run(10, 20);
        let known = line.knows();
        assert!(known.is_some_and(|known| known >= 9));
        line.run(30, 1);
        assert_eq!((line.knows(), line.estimator.load()), (known, Load(0)));
        line.capacity = 100 * MBIT;
        line.run(10, 50);
        assert_eq!((line.knows(), line.estimator.load()), (None, Load(0)));
        line.run(10, 150);
        line.run(30, 1);
        assert_eq!(line.estimator.load(), Load(0));
        // A line that became worse is full at once, and known to be worse after its minute.
        line.capacity = 20 * MBIT;
        line.run(8, 50);
        assert_eq!(line.estimator.load(), Load::FULL);
        assert!(line.knows().is_some_and(|known| known >= 98));
        line.run(70, 50);
        assert!(line.knows().is_some_and(|known| (19..=20).contains(&known)));
        assert!(line.estimator.most.len() <= 8);
    }

    #[test]
    fn traffic_that_comes_and_goes_changes_a_load_rarely() {
        let mut line = Line::new(100);
        let mut changes = Vec::new();
        for n in 0..100 {
            changes.extend(line.run(3, if n % 2 == 0 { 200 } else { 0 }));
        }
        // In five minutes.
        assert!(changes.len() <= 10, "{changes:?}");
        assert!(line.estimator.load() >= Load(70));
    }

    #[test]
    fn what_a_load_costs_grows_to_a_bound() {
        let micros = |percent| Load::of(percent).delay().as_micros();
        assert_eq!([0, 60].map(micros), [0, 0]);
        assert_eq!([70, 80, 90].map(micros), [333, 1_000, 3_000]);
        assert_eq!([99, 100, 255].map(micros), [10_000; 3]);
    }

    /// Two links of the same capacity, and streams that live for seconds: what each carries of what
    /// it can.
    fn settle(demand: f64, lives: f64, minutes: u32) -> (Vec<u32>, [f64; 2]) {
        let mut loads = [demand, 0.0];
        let mut estimators = [LoadEstimator::default(), LoadEstimator::default()];
        let mut reliefs = [Relief::default(), Relief::default()];
        let mut now = Instant::ZERO + Duration::from_secs(1000);
        let mut changes = Vec::new();
        let mut before = [Relief::WHOLE; 2];
        for tick in 0..minutes * 60 {
            now = now + Duration::from_secs(1);
            let mut parts = [0; 2];
            for n in 0..2 {
                let carried = (loads[n].min(1.0) * 1e6).round();
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a million at most"
                )]
                estimators[n].handle_rate(now, carried as u64, loads[n] > 1.0);
            }
            let known = [0, 1].map(|n: usize| estimators[n].load());
            for n in 0..2 {
                let all = known[0].min(known[1])..=known[0].max(known[1]);
                parts[n] = reliefs[n].handle_load(now, known[n], all);
            }
            if parts != before {
                changes.push(tick);
                before = parts;
            }
            // Of what ends as much begins anew, by the parts.
            let [a, b] = parts.map(f64::from);
            let first = demand * a / (a + b);
            loads[0] += (first - loads[0]) / lives;
            loads[1] += (demand - first - loads[1]) / lives;
        }
        (changes, loads)
    }

    #[test]
    fn what_is_full_among_full_ones_keeps_its_share() {
        let at = |second: u64| Instant::ZERO + Duration::from_secs(second);
        let (none, full) = (Load(0), Load::FULL);
        let mut relief = Relief::default();
        assert_eq!(relief.handle_load(at(0), full, Load(70)..=full), 1000);
        assert_eq!(relief.handle_load(at(0), full, none..=full), 666);
        assert_eq!(relief.handle_load(at(9), full, none..=full), 666);
        assert_eq!(relief.handle_load(at(10), full, none..=full), 444);
        for second in 20..99 {
            relief.handle_load(at(second), full, none..=full);
        }
        assert_eq!(relief.part, Relief::LEAST);
        // One of them is full: this one gets no more yet.
        assert_eq!(relief.handle_load(at(200), none, none..=full), 250);
        assert_eq!(relief.handle_load(at(200), none, none..=none), 375);
    }

    #[test]
    fn two_links_share_a_load_and_leave_it_so() {
        for lives in [2.0, 10.0, 60.0] {
            for demand in [0.5, 1.2, 1.5, 1.7] {
                let (changes, loads) = settle(demand, lives, 20);
                let late = changes.iter().filter(|tick| **tick > 600).count();
                assert!(late <= 2, "{demand} {lives}: {changes:?}");
                assert!(
                    loads.iter().all(|load| *load <= 1.0),
                    "{demand} {lives}: {loads:?}"
                );
            }
            // More than both can: each carries what it can.
            let (changes, loads) = settle(3.0, lives, 20);
            let late = changes.iter().filter(|tick| **tick > 600).count();
            assert!(late <= 2, "{lives}: {changes:?}");
            assert!(loads.iter().all(|load| *load >= 1.0), "{lives}: {loads:?}");
        }
    }
}
