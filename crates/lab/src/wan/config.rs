//! What the Internet is told at its start: a struct, or a JSON file of the same shape.

use std::{
    collections::{BTreeMap, BinaryHeap},
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Both, Shape, State, WanError, line::Line as Direction};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Path of the Unix control socket; without it there is no control.
    #[serde(default)]
    pub control: Option<PathBuf>,
    /// What chance begins with.
    pub seed: u64,
    /// Who is connected.
    pub places: Vec<Place>,
    /// The lines between them. Two places without one reach each other at once.
    pub lines: Vec<Line>,
}

/// Somebody who is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// The interface that leads to it.
    pub interface: String,
    /// The hardware address of its own interface.
    pub mac: [u8; 6],
    /// Its address.
    pub address: Ipv4Addr,
    /// The network namespace of the router that translates for it, if one does.
    #[serde(default)]
    pub nat: Option<PathBuf>,
}

/// A line between two places; its name is `A-B`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// One.
    pub a: String,
    /// The other.
    pub b: String,
    /// What it does to packets.
    #[serde(default)]
    pub shape: Shape,
}

impl Config {
    /// Reads a JSON file.
    ///
    /// # Errors
    /// The file cannot be read, or has another shape.
    pub fn read(path: &Path) -> Result<Self, WanError> {
        let name = || path.display().to_string();
        let text = std::fs::read(path).map_err(|source| WanError::Read {
            path: name(),
            source,
        })?;
        serde_json::from_slice(&text).map_err(|source| WanError::Parse {
            path: name(),
            source,
        })
    }

    pub(super) fn state(&self) -> Result<State, WanError> {
        let mut by_name = BTreeMap::new();
        let mut by_address = BTreeMap::new();
        for (at, place) in self.places.iter().enumerate() {
            if by_name.insert(&place.name, at).is_some() {
                return Err(WanError::Twice(format!("the name {:?}", place.name)));
            }
            if by_address.insert(place.address, at).is_some() {
                return Err(WanError::Twice(format!("the address {}", place.address)));
            }
        }
        let place = |name: &String| {
            let at = by_name.get(name).copied();
            at.ok_or_else(|| WanError::NoPlace(name.clone()))
        };
        let mut lines = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (nth, line) in (0..).zip(&self.lines) {
            let name = format!("{}-{}", line.a, line.b);
            let (a, b) = (place(&line.a)?, place(&line.b)?);
            let key = (a.min(b), a.max(b));
            let direction = |way: u64| {
                let seed = self.seed.wrapping_add(2 * nth + way);
                Direction::new(&line.shape, seed).map_err(|source| WanError::Shape {
                    line: name.clone(),
                    source,
                })
            };
            let both = Both {
                shape: line.shape,
                whole: Shape {
                    cut: false,
                    ..line.shape
                },
                there: direction(0)?,
                back: direction(1)?,
            };
            if a == b || lines.insert(key, both).is_some() {
                return Err(WanError::Twice(format!("the line {name}")));
            }
            names.insert(name, key);
        }
        Ok(State {
            by_address,
            macs: self.places.iter().map(|place| place.mac).collect(),
            lines,
            names,
            on_their_way: BinaryHeap::new(),
            octets: 0,
            nth: 0,
            routers: self
                .places
                .iter()
                .filter_map(|place| Some((place.name.clone(), place.nat.clone()?)))
                .collect(),
        })
    }
}
