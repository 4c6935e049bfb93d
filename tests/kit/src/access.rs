//! The access log of a PoP.

use std::{fs, path::PathBuf};

use base::WallTime;
use serde::Deserialize;

/// What tests look at in one record.
#[derive(Clone, Debug, Deserialize)]
pub struct Access {
    /// When the request head was complete: RFC 3339 with milliseconds, so that text order is time
    /// order.
    pub time: String,
    /// The last endpoint tried: `address:port`.
    pub endpoint: String,
    /// Its site, `SITE.TENANT`.
    pub site: String,
    /// What the client got; 0 if it got nothing.
    pub status: u16,
    /// From the complete request head to the last byte, in microseconds.
    pub duration_us: u64,
    /// Endpoints tried.
    pub tries: u8,
    /// What went wrong.
    pub error: Option<String>,
    /// The path with its query.
    pub path: String,
    /// The host asked for.
    pub host: String,
    /// W3C trace id.
    pub trace: String,
}

/// The access log of one node.
#[derive(Clone, Debug)]
pub struct AccessLog(PathBuf);

impl AccessLog {
    /// The log in this file.
    #[must_use]
    pub fn at(path: PathBuf) -> Self {
        AccessLog(path)
    }

    /// Every whole record.
    ///
    /// # Panics
    /// The file cannot be read or holds something else.
    #[must_use]
    pub fn records(&self) -> Vec<Access> {
        let text = fs::read_to_string(&self.0).expect("an access log");
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a record"))
            .collect()
    }

    /// The records of requests that began at `from` or later.
    #[must_use]
    pub fn since(&self, from: WallTime) -> Vec<Access> {
        let from = from.to_string();
        let mut records = self.records();
        records.retain(|record| record.time >= from);
        records
    }
}

/// Milliseconds from `from` to a record's time; negative if it was earlier. For times less than
/// half a day apart.
///
/// # Panics
/// `time` is no RFC 3339 time with milliseconds.
#[must_use]
pub fn since_ms(from: WallTime, time: &str) -> i64 {
    const DAY: i64 = 86_400_000;
    let apart = (of_day(time) - of_day(&from.to_string())).rem_euclid(DAY);
    if apart > DAY / 2 { apart - DAY } else { apart }
}

/// The milliseconds since midnight of `2026-01-02T03:04:05.678Z`.
fn of_day(time: &str) -> i64 {
    let number = |from: usize, to: usize| -> i64 {
        let digits = time.get(from..to).and_then(|digits| digits.parse().ok());
        digits.unwrap_or_else(|| panic!("{time:?} is no time with milliseconds"))
    };
    ((number(11, 13) * 60 + number(14, 16)) * 60 + number(17, 19)) * 1000 + number(20, 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_subtracted() {
        let from = WallTime::from_unix_millis(1_799_999_999_900);
        for ms in [0, 1, 99, 100, 86_000] {
            let later = from + std::time::Duration::from_millis(ms);
            let ms = i64::try_from(ms).expect("small");
            assert_eq!(since_ms(from, &later.to_string()), ms);
            assert_eq!(since_ms(later, &from.to_string()), -ms);
        }
    }
}
