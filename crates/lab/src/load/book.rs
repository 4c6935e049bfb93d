//! What became of requests, stretch by stretch.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base::Instant;
use serde::{Deserialize, Serialize};

/// The most stretches.
const STRETCHES: usize = 4_096;
/// The most different things that went wrong, and the most who answered, of one stretch; the rest is
/// counted together.
const KINDS: usize = 64;
/// A duration is known to one part in so many.
const PARTS: u64 = 64;
/// Under what the rest is counted.
const OTHERS: &str = "others";

/// What became of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Those that began.
    pub sent: u64,
    /// Those that were answered as wanted.
    pub good: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that have not ended.
    pub waiting: u64,
    /// How long the slowest good answer took, in microseconds.
    pub slowest_us: u64,
    /// What half of the good answers took at most; to one part in 64, as the next two.
    pub p50_us: u64,
    /// What nine of ten took at most.
    pub p90_us: u64,
    /// What 99 of a hundred took at most.
    pub p99_us: u64,
    /// When the last one that failed began, after the beginning of the first stretch.
    pub failed_until_us: Option<u64>,
    /// How long ago the last one that failed began.
    pub failed_ago_us: Option<u64>,
    /// How long ago the last one began that was answered as wanted.
    pub good_ago_us: Option<u64>,
    /// How long the one waits that waits longest.
    pub waits_us: u64,
    /// How much later than due a request began at most: the load's own lateness, which says how busy
    /// the machine is.
    pub late_us: u64,
    /// How often each demo application answered, as `ENDPOINT.SITE`.
    pub by: BTreeMap<String, u64>,
    /// What went wrong how often.
    pub errors: BTreeMap<String, u64>,
}

/// What became of the requests that began between two marks.
#[derive(Debug)]
struct Stretch {
    began: Instant,
    sent: u64,
    failed: u64,
    /// By a duration's bucket.
    took: BTreeMap<u64, u64>,
    slowest: Duration,
    late: Duration,
    last_failed: Option<Instant>,
    last_good: Option<Instant>,
    by: BTreeMap<String, u64>,
    errors: BTreeMap<String, u64>,
}

/// All stretches, and what has not ended.
#[derive(Debug)]
pub(super) struct Book {
    stretches: Vec<Stretch>,
    /// By number, which is by beginning: its stretch, and when it began.
    waiting: BTreeMap<u64, (usize, Instant)>,
    next: u64,
    stopped: bool,
}

pub(super) fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stretch {
    fn new(began: Instant) -> Self {
        Stretch {
            began,
            sent: 0,
            failed: 0,
            took: BTreeMap::new(),
            slowest: Duration::ZERO,
            late: Duration::ZERO,
            last_failed: None,
            last_good: None,
            by: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }
}

impl Book {
    /// The first stretch begins.
    pub(super) fn open(now: Instant) -> Self {
        Book {
            stretches: vec![Stretch::new(now)],
            waiting: BTreeMap::new(),
            next: 0,
            stopped: false,
        }
    }

    /// The next stretch begins; its number.
    pub(super) fn mark(&mut self, now: Instant) -> Option<usize> {
        if self.stretches.len() >= STRETCHES {
            return None;
        }
        self.stretches.push(Stretch::new(now));
        Some(self.stretches.len() - 1)
    }

    /// No request begins any more.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// A request begins, `late` after it was due: its number, unless none is to begin.
    pub(super) fn begin(&mut self, now: Instant, late: Duration) -> Option<u64> {
        if self.stopped {
            return None;
        }
        let at = self.stretches.len().checked_sub(1)?;
        let stretch = self.stretches.get_mut(at)?;
        stretch.sent += 1;
        stretch.late = stretch.late.max(late);
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, (at, now));
        Some(id)
    }

    /// A request ends: by whom it was answered, or what went wrong.
    pub(super) fn end(
        &mut self,
        now: Instant,
        id: u64,
        outcome: Result<Option<(String, String)>, String>,
    ) {
        let Some((at, began)) = self.waiting.remove(&id) else {
            return;
        };
        let Some(stretch) = self.stretches.get_mut(at) else {
            return;
        };
        match outcome {
            Ok(by) => {
                let took = now.since(began);
                *stretch.took.entry(bucket(micros(took))).or_default() += 1;
                stretch.slowest = stretch.slowest.max(took);
                stretch.last_good = stretch.last_good.max(Some(began));
                if let Some((endpoint, site)) = by {
                    count(&mut stretch.by, format!("{endpoint}.{site}"));
                }
            }
            Err(why) => {
                stretch.failed += 1;
                stretch.last_failed = stretch.last_failed.max(Some(began));
                count(&mut stretch.errors, why);
            }
        }
    }

    /// What became of those of the stretches from `since` to before `until`.
    pub(super) fn figures(&self, now: Instant, since: usize, until: Option<usize>) -> Figures {
        let until = until.unwrap_or(usize::MAX).min(self.stretches.len());
        let since = since.min(until);
        let meant = self.stretches.get(since..until).unwrap_or_default();
        let ago = |at: Instant| micros(now.since(at));
        let mut figures = Figures::default();
        let mut took: BTreeMap<u64, u64> = BTreeMap::new();
        for stretch in meant {
            figures.sent += stretch.sent;
            figures.failed += stretch.failed;
            figures.slowest_us = figures.slowest_us.max(micros(stretch.slowest));
            figures.late_us = figures.late_us.max(micros(stretch.late));
            add(&mut took, &stretch.took);
            add(&mut figures.by, &stretch.by);
            add(&mut figures.errors, &stretch.errors);
        }
        let last = |of: fn(&Stretch) -> Option<Instant>| meant.iter().filter_map(of).max();
        let failed = last(|stretch| stretch.last_failed);
        let began = meant.first().map(|stretch| stretch.began);
        figures.failed_until_us = failed
            .zip(began)
            .map(|(failed, began)| micros(failed.since(began)));
        figures.failed_ago_us = failed.map(ago);
        figures.good_ago_us = last(|stretch| stretch.last_good).map(ago);
        let waiting = self.waiting.values();
        let mut waiting = waiting.filter(|(at, _)| (since..until).contains(at));
        figures.waits_us = waiting.clone().next().map_or(0, |(_, began)| ago(*began));
        figures.waiting = waiting.by_ref().map(|_| 1_u64).sum();
        figures.good = took.values().sum();
        let share = |percent| share(&took, figures.good, percent).min(figures.slowest_us);
        let shares = [50, 90, 99].map(share);
        [figures.p50_us, figures.p90_us, figures.p99_us] = shares;
        figures
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn count(counts: &mut BTreeMap<String, u64>, what: String) {
    let room = counts.len() < KINDS || counts.contains_key(&what);
    let what = if room { what } else { OTHERS.to_owned() };
    *counts.entry(what).or_default() += 1;
}

fn add<K: Clone + Ord>(sum: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (what, n) in more {
        *sum.entry(what.clone()).or_default() += n;
    }
}

/// The longest duration, in microseconds, that counts as much as this one.
fn bucket(us: u64) -> u64 {
    let width = (us / PARTS).checked_ilog2().map_or(1, |log| 1 << log);
    us / width * width + (width - 1)
}

/// What so many of a hundred took at most.
fn share(took: &BTreeMap<u64, u64>, all: u64, percent: u64) -> u64 {
    let wanted = (all * percent).div_ceil(100);
    let mut seen = 0;
    let mut upto = took.iter().map(|(us, n)| {
        seen += n;
        (seen, *us)
    });
    upto.find(|(seen, _)| *seen >= wanted)
        .map_or(0, |(_, us)| us)
}
