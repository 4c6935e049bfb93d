//! Two clocks, both arguments: a monotonic one for timers and a wall clock for certificates.

use std::{
    fmt,
    ops::{Add, Range, Sub},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// A point on the monotonic clock, in nanoseconds since an origin the shell chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Instant = Instant(0);

    /// A point `ns` nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Self {
        Instant(ns)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, d: Duration) -> Instant {
        Instant(
            self.0
                .saturating_add(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    fn sub(self, d: Duration) -> Instant {
        Instant(
            self.0
                .saturating_sub(u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}

/// A point on the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct WallTime(u64);

impl WallTime {
    /// A point `ms` milliseconds after the Unix epoch.
    #[must_use]
    pub const fn from_unix_millis(ms: u64) -> Self {
        WallTime(ms)
    }

    /// A point `s` seconds after the Unix epoch.
    #[must_use]
    pub const fn from_unix_seconds(s: u64) -> Self {
        WallTime(s.saturating_mul(1000))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub const fn unix_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    #[must_use]
    pub const fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// The distance to `other`, whichever is later.
    #[must_use]
    pub const fn distance(self, other: WallTime) -> Duration {
        Duration::from_millis(self.0.abs_diff(other.0))
    }

    /// The time that passed since `earlier`; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: WallTime) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for WallTime {
    type Output = WallTime;

    fn add(self, d: Duration) -> WallTime {
        WallTime(
            self.0
                .saturating_add(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl Sub<Duration> for WallTime {
    type Output = WallTime;

    fn sub(self, d: Duration) -> WallTime {
        WallTime(
            self.0
                .saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
        )
    }
}

impl WallTime {
    /// RFC 3339 in UTC with milliseconds (`2026-01-31T23:59:59.999Z`), by Howard Hinnant's
    /// `civil_from_days`. Years after 9999 are not written right.
    #[must_use]
    pub fn rfc3339(self) -> [u8; 24] {
        let (ms, secs) = (self.0 % 1000, self.0 / 1000);
        let (days, day_secs) = (secs / 86_400, secs % 86_400);
        let z = days + 719_468;
        let (era, doe) = (z / 146_097, z % 146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + u64::from(month <= 2);
        let mut text = *b"0000-00-00T00:00:00.000Z";
        let parts = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, day_secs / 3600),
            (14..16, day_secs / 60 % 60),
            (17..19, day_secs % 60),
            (20..23, ms),
        ];
        for (places, mut number) in parts {
            for digit in text[places].iter_mut().rev() {
                *digit += (number % 10) as u8;
                number /= 10;
            }
        }
        text
    }
}

/// Not a point in time between 1970 and 9999 as RFC 3339 writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeError;

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a time as RFC 3339 writes it, between 1970 and 9999")
    }
}

impl std::error::Error for TimeError {}

impl FromStr for WallTime {
    type Err = TimeError;

    /// RFC 3339 §5.6, `2026-01-31T23:59:59.999Z` or with an offset such as `+02:00`. Fractions
    /// beyond milliseconds are cut off; a leap second is the second after it.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let octets = text.as_bytes();
        let number = |places: Range<usize>| -> Option<u64> {
            let digits = octets.get(places)?;
            let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
            let all = digits.iter().all(u8::is_ascii_digit);
            all.then(|| digits.iter().fold(0, value))
        };
        let parse = || -> Option<u64> {
            let between = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
            let fits = between.iter().all(|(at, b)| octets.get(*at) == Some(b));
            let t = octets.get(10)?.eq_ignore_ascii_case(&b'T');
            let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
            let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
            let days = days_of(year, month, day).filter(|_| fits && t)?;
            if hour > 23 || minute > 59 || second > 60 {
                return None;
            }
            let mut rest = text.get(19..)?;
            let mut ms = 0;
            if let Some(fraction) = rest.strip_prefix('.') {
                let count = fraction.bytes().take_while(u8::is_ascii_digit).count();
                let digits = fraction.get(..count).filter(|_| (1..=9).contains(&count))?;
                ms = format!("{digits}00").get(..3)?.parse().ok()?;
                rest = fraction.get(count..)?;
            }
            let seconds = days * 86_400 + hour * 3600 + minute * 60 + second;
            let seconds = match rest.as_bytes() {
                b"Z" | b"z" => seconds,
                [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
                    let at = octets.len() - 5;
                    let (hours, minutes) = (number(at..at + 2)?, number(at + 3..at + 5)?);
                    let offset = Some(hours * 3600 + minutes * 60);
                    let offset = offset.filter(|_| hours < 24 && minutes < 60)?;
                    if *sign == b'+' {
                        seconds.checked_sub(offset)?
                    } else {
                        seconds + offset
                    }
                }
                _ => return None,
            };
            Some(seconds * 1000 + ms)
        };
        parse().map(WallTime).ok_or(TimeError)
    }
}

/// Days since 1970-01-01 of a day that exists, by Howard Hinnant's `days_from_civil`.
fn days_of(year: u64, month: u64, day: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || !(1..=length).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year / 400, year % 400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468)
}

impl fmt::Display for WallTime {
    /// [`WallTime::rfc3339`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.rfc3339()).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_prints_rfc_3339() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(WallTime::from_unix_millis(ms).to_string(), text);
            assert_eq!(text.parse(), Ok(WallTime::from_unix_millis(ms)));
        }
    }

    #[test]
    fn wall_time_reads_rfc_3339() {
        for (text, printed) in [
            ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59.000Z"),
            ("2026-01-31t23:59:59.5z", "2026-01-31T23:59:59.500Z"),
            ("2026-01-31T23:59:59.123456789Z", "2026-01-31T23:59:59.123Z"),
            ("2026-01-01T01:30:00+02:00", "2025-12-31T23:30:00.000Z"),
            ("2024-02-29T23:30:00-01:00", "2024-03-01T00:30:00.000Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00.000Z"),
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
        ] {
            let time: WallTime = text.parse().expect(text);
            assert_eq!(time.to_string(), printed, "{text}");
        }
        for bad in [
            "",
            "2026-01-31",
            "2026-01-31T23:59:59",
            "2026-01-31 23:59:59Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+01:00",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "2026-01-01T00:00:00+2:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00Zz",
            "+026-01-01T00:00:00Z",
            "2026-01-01T00:00:0\u{e4}",
        ] {
            assert_eq!(bad.parse::<WallTime>(), Err(TimeError), "{bad}");
        }
    }

    #[test]
    fn instants_saturate() {
        assert_eq!(Instant::ZERO - Duration::from_secs(1), Instant::ZERO);
        assert_eq!(Instant::ZERO.since(Instant::from_nanos(5)), Duration::ZERO);
    }
}
