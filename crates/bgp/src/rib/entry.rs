//! All paths of one key.

use std::{mem, sync::Arc};

use base::{Instant, NodeId};

use super::{Role, Route, Source, decide};
use crate::{Attributes, Key, Refusal, Value};

/// One neighbour's (or our own) word about a key.
#[derive(Clone, Debug)]
pub(super) struct Path {
    pub(super) source: Source,
    pub(super) originator: NodeId,
    pub(super) attributes: Arc<Attributes>,
    pub(super) value: Value,
    pub(super) stale_since: Option<Instant>,
    /// Kept, but not in use.
    pub(super) refusal: Option<Refusal>,
}

/// What makes a best route another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint(Source, NodeId, Arc<Attributes>, Value, bool);

impl Fingerprint {
    /// Would a neighbour be told the same?
    pub(super) fn same_on_the_wire(&self, other: &Self) -> bool {
        (self.0, self.1, &self.2, &self.3) == (other.0, other.1, &other.2, &other.3)
    }
}

impl Path {
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint(
            self.source,
            self.originator,
            self.attributes.clone(),
            self.value.clone(),
            self.stale_since.is_some(),
        )
    }

    pub(super) fn route(&self, key: &Key) -> Route {
        Route {
            key: key.clone(),
            value: self.value.clone(),
            originator: self.originator,
            stale: self.stale_since.is_some(),
            source: self.source,
            attributes: self.attributes.clone(),
        }
    }
}

/// A set of neighbours by their bits; no allocation while empty.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerSet(Vec<u64>);

impl PeerSet {
    pub(super) fn contains(&self, bit: usize) -> bool {
        self.0
            .get(bit / 64)
            .is_some_and(|word| word & 1 << (bit % 64) != 0)
    }

    pub(super) fn insert(&mut self, bit: usize) {
        if self.0.len() <= bit / 64 {
            self.0.resize(bit / 64 + 1, 0);
        }
        self.0[bit / 64] |= 1 << (bit % 64);
    }

    pub(super) fn remove(&mut self, bit: usize) {
        if let Some(word) = self.0.get_mut(bit / 64) {
            *word &= !(1 << (bit % 64));
        }
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }
}

/// All paths of one key, which of them is best, and which neighbours were told one.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// In order of their sources.
    pub(super) paths: Vec<Path>,
    best: Option<usize>,
    pub(super) told: PeerSet,
}

impl Entry {
    pub(super) fn best(&self) -> Option<&Path> {
        self.paths.get(self.best?)
    }

    pub(super) fn path(&self, source: Source) -> Option<&Path> {
        self.paths.iter().find(|path| path.source == source)
    }

    pub(super) fn path_mut(&mut self, source: Source) -> Option<&mut Path> {
        self.paths.iter_mut().find(|path| path.source == source)
    }

    /// Add or replace a path; [`Entry::decide`] must follow.
    pub(super) fn put(&mut self, path: Path) -> Option<Path> {
        self.best = None;
        match self.paths.binary_search_by_key(&path.source, |p| p.source) {
            Ok(at) => Some(mem::replace(&mut self.paths[at], path)),
            Err(at) => {
                self.paths.insert(at, path);
                None
            }
        }
    }

    /// Take a path out; [`Entry::decide`] must follow.
    pub(super) fn take(&mut self, source: Source) -> Option<Path> {
        self.best = None;
        let at = self
            .paths
            .binary_search_by_key(&source, |p| p.source)
            .ok()?;
        Some(self.paths.remove(at))
    }

    pub(super) fn decide(&mut self, key: &Key) {
        self.best = decide::best(key, &self.paths);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty() && self.told.is_empty()
    }
}

impl super::Peer {
    /// Reflection (RFC 4456 §6), never back to where it came from, and the export policy.
    pub(super) fn may_hear(&self, key: &Key, path: &Path) -> bool {
        if path.source == Source::Peer(self.config.id) {
            return false;
        }
        self.config.export.allows(key, &path.attributes)
    }
}

/// Does a route learned from `from` go to `to`?
pub(super) const fn reflects(from: Role, to: Role) -> bool {
    match (from, to) {
        (Role::NonClient, Role::NonClient) => false,
        (Role::NonClient, Role::Client | Role::Local) | (Role::Client | Role::Local, _) => true,
    }
}
