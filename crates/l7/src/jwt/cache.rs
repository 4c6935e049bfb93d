//! Tokens that were verified.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::digest::{Context, SHA256};
use base::WallTime;

use super::Claims;

/// The most tokens of a generation; there are two.
const MOST: usize = 512;

type Key = [u8; 32];
/// What a token says, and which provider issued it.
type Known = (Arc<Claims>, usize);

/// Tokens that were verified, the most recent at least 512, 1,024 at most; each until it expires.
/// One a worker.
#[derive(Debug, Default)]
pub struct Cache {
    young: BTreeMap<Key, (Known, WallTime)>,
    /// Those of before, of which whoever is asked for becomes young again.
    old: BTreeMap<Key, (Known, WallTime)>,
}

impl Cache {
    pub(super) fn find(&mut self, id: u64, token: &str, now: WallTime) -> Option<Known> {
        if self.young.is_empty() && self.old.is_empty() {
            return None;
        }
        let key = key(id, token);
        if let Some((known, until)) = self.young.get(&key) {
            return (now < *until).then(|| known.clone());
        }
        let (known, until) = self.old.remove(&key)?;
        if now >= until {
            return None;
        }
        self.insert(key, (known.clone(), until));
        Some(known)
    }

    pub(super) fn add(&mut self, id: u64, token: &str, known: Known, until: WallTime) {
        self.insert(key(id, token), (known, until));
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn insert(&mut self, key: Key, value: (Known, WallTime)) {
        if self.young.len() >= MOST {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

fn key(id: u64, token: &str) -> Key {
    let mut context = Context::new(&SHA256);
    context.update(&id.to_be_bytes());
    context.update(token.as_bytes());
    let mut key = [0; 32];
    key.copy_from_slice(context.finish().as_ref());
    key
}
