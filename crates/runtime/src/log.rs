//! Logs on stderr, and a limiter for causes that repeat.

use std::{
    collections::HashMap,
    hash::Hash,
    io::IsTerminal,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use base::Instant;
use tracing_subscriber::EnvFilter;

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The filter does not parse.
    #[error("log filter {0:?} is not valid")]
    Filter(String, #[source] tracing_subscriber::filter::ParseError),
    /// There is a subscriber already.
    #[error("logging is set up already")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends the process's `tracing` events to stderr. `filter` is like `info,tunnel=debug`.
///
/// # Errors
/// See [`InitError`].
pub fn init(format: Format, filter: &str) -> Result<(), InitError> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| InitError::Filter(filter.to_owned(), error))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match format {
        Format::Json => builder.json().flatten_event(true).try_init(),
        Format::Text => builder.try_init(),
    }
    .map_err(InitError::Twice)
}

/// Lets one cause through once per interval and counts the rest.
///
/// Bounded: with more than 1,024 causes in one interval the surplus shares one slot.
#[derive(Debug)]
pub struct Limiter<K> {
    interval: Duration,
    causes: Mutex<HashMap<Option<K>, Cause>>,
}

#[derive(Debug)]
struct Cause {
    logged: Instant,
    suppressed: u64,
}

const MAX_CAUSES: usize = 1024;

impl<K: Hash + Eq> Limiter<K> {
    /// A limiter of one line per cause and `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Limiter {
            interval,
            causes: Mutex::new(HashMap::new()),
        }
    }

    /// `Some(how many were kept back since the last)` if `cause` shall be logged now.
    pub fn allow(&self, now: Instant, cause: K) -> Option<u64> {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slot = Some(cause);
        if causes.len() >= MAX_CAUSES && !causes.contains_key(&slot) {
            causes.retain(|_, cause| now.since(cause.logged) < self.interval);
            if causes.len() >= MAX_CAUSES {
                slot = None;
            }
        }
        match causes.get_mut(&slot) {
            Some(cause) if now.since(cause.logged) < self.interval => {
                cause.suppressed += 1;
                None
            }
            Some(cause) => {
                cause.logged = now;
                Some(std::mem::take(&mut cause.suppressed))
            }
            None => {
                causes.insert(
                    slot,
                    Cause {
                        logged: now,
                        suppressed: 0,
                    },
                );
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_cause_and_interval() {
        let limiter = Limiter::new(Duration::from_secs(10));
        let at = |s| Instant::ZERO + Duration::from_secs(s);
        assert_eq!(limiter.allow(at(0), "expired"), Some(0));
        assert_eq!(limiter.allow(at(1), "expired"), None);
        assert_eq!(limiter.allow(at(1), "foreign"), Some(0));
        assert_eq!(limiter.allow(at(10), "expired"), Some(1));
        assert_eq!(limiter.allow(at(21), "expired"), Some(0));
    }

    #[test]
    fn causes_are_bounded() {
        let limiter = Limiter::new(Duration::from_secs(10));
        let passed = (0..5000)
            .filter(|n| limiter.allow(Instant::ZERO, *n).is_some())
            .count();
        assert_eq!(passed, MAX_CAUSES + 1);
    }
}
