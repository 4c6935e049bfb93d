//! Durations as people write them.

use std::{fmt, str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A duration such as `300ms`, `10s`, `1m30s`, `2h` (Gateway API's GEP-2257: up to four parts of
/// `h`, `m`, `s`, `ms`, each up to five digits).
#[derive(
    Clone,
    Copy,
    Default,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || {
            let shown: String = s.chars().take(40).collect();
            format!("{shown:?} is not a duration: write for example 300ms, 10s, 1m30s or 2h")
        };
        let mut rest = s;
        let mut total = Duration::ZERO;
        for _ in 0..4 {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if !(1..=5).contains(&digits) {
                return Err(wrong());
            }
            let n: u64 = rest[..digits].parse().map_err(|_| wrong())?;
            rest = &rest[digits..];
            let (unit, ms) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)]
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))
                .ok_or_else(wrong)?;
            total += Duration::from_millis(n * ms);
            rest = &rest[unit.len()..];
            if rest.is_empty() {
                return Ok(Span(total));
            }
        }
        Err(wrong())
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> String {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        match (ms % 1000, ms / 1000) {
            (0, s) if s > 0 && s % 3600 == 0 && s / 3600 < 100_000 => write!(f, "{}h", s / 3600),
            (0, s) if s > 0 && s % 60 == 0 && s / 60 < 100_000 => write!(f, "{}m", s / 60),
            (0, s) if s > 0 => write!(f, "{s}s"),
            (ms, 0) => write!(f, "{ms}ms"),
            (ms, s) => write!(f, "{s}s{ms}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_and_print() {
        for (text, ms, printed) in [
            ("300ms", 300, "300ms"),
            ("10s", 10_000, "10s"),
            ("1m30s", 90_000, "90s"),
            ("2h", 7_200_000, "2h"),
            ("1s500ms", 1500, "1s500ms"),
            ("0s", 0, "0ms"),
        ] {
            let span: Span = text.parse().expect(text);
            assert_eq!(span.0, Duration::from_millis(ms), "{text}");
            assert_eq!(span.to_string(), printed);
        }
        for bad in ["", "10", "s", "-1s", "1.5s", "123456s", "1s1s1s1s1s", "1d"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
