//! Rates of requests, counted by key.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use base::Instant;
use http::HeaderName;

use super::Subject;

/// Sets of the table, and cells of a set, which share a line of the cache: 131,072 cells of
/// 16 octets.
const SETS: usize = 1 << 15;
const CELLS: usize = 4;
/// How often a cell is looked for that another worker takes at the same time.
const TRIES: usize = 4;

/// So many requests in so much time, a bucket a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests …
    pub requests: u32,
    /// … in this time.
    pub per: Duration,
    /// How many may come at once after a rest; 0 counts as 1.
    pub burst: u32,
    /// What of a request says whose bucket it is; all together are the key. Empty: one bucket
    /// for all.
    pub key: Vec<RateKey>,
}

/// What of a request says whose bucket it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RateKey {
    /// The client's address; of IPv6 the first 64 bits, which is what one client has.
    Source,
    /// A header, all lines of it.
    Header(HeaderName),
    /// A claim of its token.
    Claim(String),
}

impl Rate {
    /// From one request to the next, in nanoseconds.
    fn interval(&self) -> u64 {
        let per = u64::try_from(self.per.as_nanos()).unwrap_or(u64::MAX);
        (per / u64::from(self.requests.max(1))).max(1)
    }

    pub(super) fn hash(&self, subject: &Subject<'_>, hasher: &mut DefaultHasher) {
        for key in &self.key {
            match key {
                RateKey::Source => match subject.client {
                    None => hasher.write_u8(0),
                    Some(IpAddr::V4(v4)) => v4.hash(hasher),
                    Some(IpAddr::V6(v6)) => (v6.to_bits() >> 64).hash(hasher),
                },
                RateKey::Claim(name) => {
                    let claims = subject.claims;
                    claims.and_then(|claims| claims.octets(name)).hash(hasher);
                }
                RateKey::Header(name) => {
                    let lines = subject.head.fields.get_all(name);
                    lines.for_each(|line| line.hash(hasher));
                    hasher.write_u8(0);
                }
            }
        }
    }
}

/// Buckets of every key, in a table of fixed size that all workers share without a lock. A key
/// has a cell while its bucket is not full; a bucket that is full again says nothing, and its cell
/// is free. When more than four keys that share a set are in use at a time, the one that is
/// nearest to full loses its cell and begins anew: a key may then get more than its rate, and none
/// gets less.
#[derive(Debug)]
pub struct Buckets {
    /// Mixed into each key, so that nobody can choose keys that collide.
    seed: u64,
    /// Made when the first request is counted.
    sets: OnceLock<Box<[Set]>>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Set([Cell; CELLS]);

/// The generic cell rate algorithm (ITU-T I.371 §A) in two words.
#[derive(Debug, Default)]
struct Cell {
    /// Whose it is; 0: nobody's.
    tag: AtomicU64,
    /// When the bucket is full again, in nanoseconds.
    full_at: AtomicU64,
}

impl Buckets {
    /// An empty table, with a seed that strangers do not know.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Buckets {
            seed,
            sets: OnceLock::new(),
        }
    }

    pub(super) fn hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        self.seed.hash(&mut hasher);
        hasher
    }

    /// Count a request of the key with this hash.
    ///
    /// # Errors
    /// It is too much: not counted, and how long until it would not be.
    pub(super) fn take(&self, key: u64, rate: &Rate, now: Instant) -> Result<(), Duration> {
        let now = now.as_nanos();
        let Some(cell) = self.cell(key, now) else {
            return Ok(());
        };
        let interval = rate.interval();
        let room = interval.saturating_mul(u64::from(rate.burst.max(1)));
        let after = |full_at: u64| full_at.max(now).saturating_add(interval);
        let counted = cell.full_at.fetch_update(Relaxed, Relaxed, |full_at| {
            Some(after(full_at)).filter(|after| after - now <= room)
        });
        counted
            .map(|_| ())
            .map_err(|full_at| Duration::from_nanos(after(full_at) - now - room))
    }

    /// The cell of a key; `None`: others took every one that was tried.
    fn cell(&self, key: u64, now: u64) -> Option<&Cell> {
        let sets = self.sets.get_or_init(|| {
            let sets = std::iter::repeat_with(Set::default);
            sets.take(SETS).collect()
        });
        let tag = key | 1;
        let at = usize::try_from(key >> 40).unwrap_or_default() % SETS;
        let Set(cells) = sets.get(at)?;
        for _ in 0..TRIES {
            if let Some(own) = cells.iter().find(|cell| cell.tag.load(Relaxed) == tag) {
                return Some(own);
            }
            let full_at = |cell: &&Cell| cell.full_at.load(Relaxed);
            let oldest = cells.iter().min_by_key(full_at)?;
            let was = oldest.tag.load(Relaxed);
            if was == tag {
                return Some(oldest);
            }
            let used = full_at(&oldest) > now;
            if oldest
                .tag
                .compare_exchange(was, tag, Relaxed, Relaxed)
                .is_ok()
            {
                if used {
                    oldest.full_at.store(now, Relaxed);
                }
                return Some(oldest);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(requests: u32, seconds: u64, burst: u32) -> Rate {
        Rate {
            requests,
            per: Duration::from_secs(seconds),
            burst,
            key: Vec::new(),
        }
    }

    fn at(ms: u64) -> Instant {
        Instant::from_nanos((1_000_000 + ms) * 1_000_000)
    }

    /// How many of `asked` requests pass at once.
    fn pass(buckets: &Buckets, key: u64, rate: &Rate, ms: u64, asked: usize) -> usize {
        let tries = (0..asked).map(|_| buckets.take(key, rate, at(ms)));
        tries.filter(Result::is_ok).count()
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let buckets = Buckets::new(7);
        let rate = rate(10, 1, 5);
        for (ms, asked, passed) in [
            (0, 8, 5),
            (99, 1, 0),
            (100, 2, 1),
            (150, 1, 0),
            (500, 9, 4),
            (10_000, 9, 5),
            // A clock that another worker read a little earlier.
            (9_990, 1, 0),
        ] {
            assert_eq!(pass(&buckets, 1 << 41, &rate, ms, asked), passed, "{ms}");
        }
        assert_eq!(
            buckets.take(1 << 41, &rate, at(10_000)),
            Err(Duration::from_millis(100))
        );
        assert_eq!(
            buckets.take(1 << 41, &rate, at(10_040)),
            Err(Duration::from_millis(60))
        );
    }

    #[test]
    fn keys_do_not_disturb_each_other() {
        let buckets = Buckets::new(7);
        let rate = rate(1, 60, 3);
        let mut rng = base::Rng::new(1);
        let keys: Vec<u64> = (0..10_000).map(|_| rng.next_u64()).collect();
        for key in &keys {
            assert_eq!(pass(&buckets, *key, &rate, 0, 3), 3);
        }
        let refused = keys
            .iter()
            .filter(|key| pass(&buckets, **key, &rate, 1, 1) == 0);
        // A few sets of four have five keys of 10,000.
        assert!(refused.count() > 9_900);
    }

    #[test]
    fn a_full_table_refuses_nobody_within_his_rate() {
        let buckets = Buckets::new(7);
        let rate = rate(1, 3600, 2);
        let mut rng = base::Rng::new(2);
        for _ in 0..4 * SETS * CELLS {
            assert_eq!(pass(&buckets, rng.next_u64(), &rate, 0, 2), 2);
        }
    }

    #[test]
    fn workers_share_a_bucket() {
        let buckets = Buckets::new(7);
        let rate = rate(1, 3600, 1000);
        let passed: usize = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| pass(&buckets, 9, &rate, 0, 500)))
                .collect();
            let counts = workers.into_iter();
            counts.map(|worker| worker.join().expect("no panic")).sum()
        });
        assert_eq!(passed, 1000);
    }
}
