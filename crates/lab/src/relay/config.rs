//! What a relay is told at its start: a struct, or a JSON file of the same shape.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::RelayError;

/// The longest one-way delay.
pub(super) const DELAY_LIMIT: Duration = Duration::from_secs(10);

/// A relay: its pairs and its control socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Path of the Unix control socket; without it there is no control.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// The pairs, each with a name of its own.
    pub pairs: Vec<Pair>,
}

/// One distance: from a dialling site to a `PoP`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The dialling site and the `PoP`, such as `aws-par`.
    pub name: String,
    /// The address that the site dials.
    pub listen: SocketAddr,
    /// The `PoP`'s real address.
    pub target: SocketAddr,
    /// Half the round trip, at most 10 s; `one_way_us` (whole microseconds) in JSON.
    #[serde(rename = "one_way_us", with = "micros")]
    pub one_way: Duration,
}

impl Config {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// The file cannot be read, or has another shape.
    pub fn read(path: &Path) -> Result<Self, RelayError> {
        let name = || path.display().to_string();
        let text = fs::read(path).map_err(|source| RelayError::Read {
            path: name(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| RelayError::Parse {
            path: name(),
            source,
        })
    }

    /// Refuses what could not be told apart or would wait for ever.
    pub(super) fn check(&self) -> Result<(), RelayError> {
        let mut names = BTreeSet::new();
        for pair in &self.pairs {
            if !names.insert(&pair.name) {
                return Err(RelayError::Duplicate(pair.name.clone()));
            }
            if pair.one_way > DELAY_LIMIT {
                return Err(RelayError::Delay(pair.name.clone()));
            }
        }
        Ok(())
    }
}

mod micros {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(d: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
