//! Routes of one family by their keys, in places that do not move.

use std::hash::{BuildHasher, Hash, Hasher};

use foldhash::quality::FixedState;
use hashbrown::HashTable;

use super::{
    changes::Changes,
    dest::Dest,
    group::Group,
    slab::{Bits, Slab},
};
use crate::wire::Family;

/// So many places without a path may wait for a quiet moment, or seven eighths of all if that is
/// more.
const TOMBS: usize = 64 * 1024;
/// Places given back in one turn.
const CLEARED: usize = 2048;

/// Where a key is. Its hash stays beside it, so that the index grows without a look at the keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    hash: u32,
    place: u32,
}

impl Slot {
    /// The index takes the place from the low bits and a tag from the highest seven.
    const fn spread(hash: u32) -> u64 {
        let tag = (hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) & 0xFE00_0000_0000_0000;
        tag | hash as u64
    }
}

/// All routes of one family.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) family: Family,
    pub(super) constrained: bool,
    pub(super) dests: Slab<Dest>,
    pub(super) index: HashTable<Slot>,
    /// Places without a path: somebody is still to hear of their end, or they wait for a quiet
    /// moment to be given back.
    pub(super) tombs: Bits,
    /// Where to look for the next of them.
    pub(super) tomb: u32,
    pub(super) groups: Vec<Group>,
    /// What the owner is to hear.
    pub(super) watch: Option<Changes>,
}

/// The last place that was found and how far it was from the one before. Neighbours take a table
/// back in the order in which they said it, so the next place is mostly as far again, and needs no
/// look at the index.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trail {
    last: u32,
    step: u32,
}

impl Trail {
    const fn next(self) -> u32 {
        self.last.wrapping_add(self.step)
    }

    const fn follow(&mut self, place: u32) {
        self.step = place.wrapping_sub(self.last);
        self.last = place;
    }
}

impl Table {
    pub(super) fn find(&self, key: &[u8], hasher: &FixedState) -> Option<u32> {
        self.find_hashed(hash_of(key, hasher), key)
    }

    /// The same for one of many keys, `trail` being where the others were.
    pub(super) fn find_along(
        &self,
        trail: &mut Trail,
        key: &[u8],
        hasher: &FixedState,
    ) -> Option<u32> {
        let next = trail.next();
        let place = if next < self.dests.end() && *self.dests.get(next).key == *key {
            next
        } else {
            self.find(key, hasher)?
        };
        trail.follow(place);
        Some(place)
    }

    fn find_hashed(&self, hash: u32, key: &[u8]) -> Option<u32> {
        let same = |slot: &Slot| slot.hash == hash && *self.dests.get(slot.place).key == *key;
        let slot = self.index.find(Slot::spread(hash), same)?;
        Some(slot.place)
    }

    /// The place of a key, which may be new.
    pub(super) fn place_of(&mut self, key: &[u8], hasher: &FixedState) -> u32 {
        let hash = hash_of(key, hasher);
        if let Some(place) = self.find_hashed(hash, key) {
            self.tombs.remove(place);
            return place;
        }
        let place = self.dests.insert(Dest::new(key));
        let slot = Slot { hash, place };
        self.index
            .insert_unique(Slot::spread(hash), slot, |slot| Slot::spread(slot.hash));
        place
    }

    /// Are there so many places without a path that they cannot wait for a quiet moment?
    pub(super) fn is_crowded(&self) -> bool {
        self.tombs.len() > TOMBS.max(self.dests.end() as usize / 8 * 7)
    }

    /// Give back some of the places that nobody has, hears of or is to hear of; were there any?
    pub(super) fn clear_tombs(&mut self, hasher: &FixedState) -> bool {
        let mut cleared = false;
        for _ in 0..CLEARED {
            let Some(place) = self.tombs.next(self.tomb) else {
                self.tomb = 0;
                break;
            };
            self.tomb = place + 1;
            cleared |= self.free(place, hasher);
        }
        cleared
    }

    fn free(&mut self, place: u32, hasher: &FixedState) -> bool {
        let dest = self.dests.get(place);
        if dest.best().is_some() {
            self.tombs.remove(place);
            return true;
        }
        let watched = self.watch.as_ref().is_some_and(|w| w.contains(place));
        if watched || self.groups.iter().any(|group| group.holds(place)) {
            return false;
        }
        self.tombs.remove(place);
        let hash = Slot::spread(hash_of(&dest.key, hasher));
        if let Ok(entry) = self.index.find_entry(hash, |slot| slot.place == place) {
            entry.remove();
            self.dests.remove(place, Dest::new(&[]));
        }
        true
    }
}

/// The hash of a key, its low four bits those of the last octet of its address: sixteen
/// neighbours share their lines of cache, and routes come and go together with their neighbours.
#[expect(clippy::cast_possible_truncation, reason = "28 bits are kept")]
fn hash_of(key: &[u8], hasher: &FixedState) -> u32 {
    // Behind an endpoint's address are its port and protocol.
    let behind = if key.len() > 26 { 4 } else { 1 };
    let (head, tail) = key.split_at(key.len().saturating_sub(behind));
    let near = tail.first().copied().unwrap_or(0);
    let rest = tail
        .iter()
        .fold(0, |rest, octet| rest << 8 | u64::from(*octet));
    let masked = rest & !(0x0F << (8 * (tail.len().max(1) - 1)));
    let hash = hasher.hash_one(Words(head, masked));
    (hash ^ hash >> 32) as u32 & !0x0F | u32::from(near & 0x0F)
}

/// A key as few words, which hash faster than octets.
struct Words<'a>(&'a [u8], u64);

impl Hash for Words<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let (words, rest) = self.0.as_chunks::<8>();
        for word in words {
            state.write_u64(u64::from_le_bytes(*word));
        }
        let last = rest.iter().fold(self.0.len() as u64, |word, octet| {
            word << 8 | u64::from(*octet)
        });
        state.write_u64(last);
        state.write_u64(self.1);
    }
}
