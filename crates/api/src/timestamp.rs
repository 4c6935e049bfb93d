//! Points in time as people write them.

use std::fmt;

use base::WallTime;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A point in time as RFC 3339 writes it, such as `2026-12-31T23:59:59Z`.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Timestamp(pub WallTime);

impl TryFrom<String> for Timestamp {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Timestamp).map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            format!("{shown:?} is not a time: write for example 2026-12-31T23:59:59Z")
        })
    }
}

impl From<Timestamp> for String {
    fn from(time: Timestamp) -> String {
        time.to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
