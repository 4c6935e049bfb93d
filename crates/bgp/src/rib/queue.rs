//! A queue of keys in which each key is at most once, so it never outgrows the table.

use std::collections::{
    BTreeMap,
    btree_map::Entry::{Occupied, Vacant},
};

use crate::Key;

/// How urgent; the first lane goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Gone, or not to be chosen any more.
    Down,
    /// Every other change.
    Live,
    /// The table, for a neighbour that joins or asks again.
    Bulk,
}

/// Lanes of keys, first come first served inside a lane.
#[derive(Debug, Default)]
pub(super) struct KeyQueue {
    order: BTreeMap<(Lane, u64), Key>,
    place: BTreeMap<Key, (Lane, u64)>,
    next: u64,
}

impl KeyQueue {
    /// Queue `key`; one that is queued already keeps its place or moves to a more urgent lane.
    pub(super) fn push(&mut self, key: &Key, lane: Lane) {
        let place = (lane, self.next);
        match self.place.entry(key.clone()) {
            Occupied(slot) if slot.get().0 <= lane => return,
            Occupied(mut slot) => {
                self.order.remove(slot.get());
                slot.insert(place);
            }
            Vacant(slot) => {
                slot.insert(place);
            }
        }
        self.next += 1;
        self.order.insert(place, key.clone());
    }

    pub(super) fn pop(&mut self) -> Option<(Key, Lane)> {
        let ((lane, _), key) = self.order.pop_first()?;
        self.place.remove(&key);
        Some((key, lane))
    }

    pub(super) fn remove(&mut self, key: &Key) {
        if let Some(place) = self.place.remove(key) {
            self.order.remove(&place);
        }
    }

    /// The keys of the first lane that has any, at most `n`, in order.
    pub(super) fn peek(&self, n: usize) -> impl Iterator<Item = &Key> {
        let lane = self.order.first_key_value().map(|((lane, _), _)| *lane);
        let same = move |((l, _), _): &(&(Lane, u64), &Key)| Some(*l) == lane;
        self.order
            .iter()
            .take_while(same)
            .take(n)
            .map(|(_, key)| key)
    }

    /// The number the next key gets.
    pub(super) const fn next_number(&self) -> u64 {
        self.next
    }

    /// Is a key queued in `lane` that came before number `before`?
    pub(super) fn has_before(&self, lane: Lane, before: u64) -> bool {
        self.order.range((lane, 0)..(lane, before)).next().is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
