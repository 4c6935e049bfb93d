//! RT constraint (RFC 4684): who wants to hear which route targets.

use std::collections::BTreeMap;

use super::peers::{PeerIndex, PeerSet};
use crate::wire::AttributesView;

/// The number of a set of route targets; 0 is the empty one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TargetsId(pub(super) u32);

impl TargetsId {
    pub(super) const NONE: TargetsId = TargetsId(0);
}

/// A subscription: an RT-constraint NLRI's key, `[bits, octets]` with the origin AS in front.
type Prefix = Box<[u8]>;

#[derive(Debug, Default)]
struct Targets {
    list: Box<[[u8; 8]]>,
    interested: PeerSet,
    /// Wanted them until a short while ago: there may be something to take back.
    leaving: PeerSet,
    uses: u32,
}

/// Sets of route targets in use, each with the neighbours that want one of them.
#[derive(Debug)]
pub(super) struct Interest {
    sets: Vec<Targets>,
    index: BTreeMap<Box<[[u8; 8]]>, TargetsId>,
    free: Vec<TargetsId>,
    /// Constrained neighbours and what they asked for.
    wants: BTreeMap<PeerIndex, Vec<Prefix>>,
    /// Neighbours that hear everything.
    unconstrained: PeerSet,
}

impl Interest {
    pub(super) fn new() -> Self {
        Interest {
            sets: vec![Targets::default()],
            index: BTreeMap::new(),
            free: Vec::new(),
            wants: BTreeMap::new(),
            unconstrained: PeerSet::default(),
        }
    }

    /// The number of the route targets in `attributes`, with one use more.
    pub(super) fn acquire(&mut self, attributes: AttributesView<'_>) -> TargetsId {
        let mut list: Vec<[u8; 8]> = attributes
            .extended_communities()
            .filter(is_route_target)
            .collect();
        if list.is_empty() {
            return TargetsId::NONE;
        }
        list.sort_unstable();
        list.dedup();
        if let Some(id) = self.index.get(list.as_slice()) {
            self.sets[id.0 as usize].uses += 1;
            return *id;
        }
        let list: Box<[[u8; 8]]> = list.into();
        let all = self.wants.keys().copied();
        let interested = all
            .filter(|peer| self.wants_one(*peer, &list))
            .chain(self.unconstrained.iter())
            .collect();
        let set = Targets {
            list: list.clone(),
            interested,
            leaving: PeerSet::default(),
            uses: 1,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.sets[id.0 as usize] = set;
                id
            }
            None => {
                self.sets.push(set);
                TargetsId(u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.index.insert(list, id);
        id
    }

    pub(super) fn release(&mut self, id: TargetsId) {
        if id == TargetsId::NONE {
            return;
        }
        let set = &mut self.sets[id.0 as usize];
        set.uses -= 1;
        if set.uses == 0 {
            let set = std::mem::take(set);
            self.index.remove(&set.list);
            self.free.push(id);
        }
    }

    /// Who wants one of these targets.
    pub(super) fn of(&self, id: TargetsId) -> &PeerSet {
        &self.sets[id.0 as usize].interested
    }

    /// Who wants one of these targets, or may still hold what it was told when it did.
    pub(super) fn heard(&self, id: TargetsId) -> PeerSet {
        let set = &self.sets[id.0 as usize];
        set.interested.clone().or(&set.leaving)
    }

    /// What was to be taken back from these neighbours was.
    pub(super) fn settle(&mut self, id: TargetsId, peers: &PeerSet) {
        let leaving = &mut self.sets[id.0 as usize].leaving;
        *leaving = std::mem::take(leaving).minus(peers);
    }

    /// A neighbour came.
    pub(super) fn join(&mut self, peer: PeerIndex, constrained: bool) {
        if constrained {
            self.wants.insert(peer, Vec::new());
        } else {
            self.unconstrained.insert(peer);
            for set in &mut self.sets {
                set.interested.insert(peer);
            }
        }
    }

    /// A neighbour went.
    pub(super) fn leave(&mut self, peer: PeerIndex) {
        self.wants.remove(&peer);
        self.unconstrained.remove(peer);
        for set in &mut self.sets {
            set.interested.remove(peer);
            set.leaving.remove(peer);
        }
    }

    /// A constrained neighbour wants this, or wants it no more; returns the sets whose answer
    /// for it changed.
    pub(super) fn change(&mut self, peer: PeerIndex, key: &[u8], wants: bool) -> Vec<TargetsId> {
        let Some(list) = self.wants.get_mut(&peer) else {
            return Vec::new();
        };
        let known = list.iter().position(|prefix| **prefix == *key);
        match (known, wants) {
            (None, true) => list.push(key.into()),
            (Some(at), false) => drop(list.swap_remove(at)),
            (Some(_), true) | (None, false) => return Vec::new(),
        }
        let mut changed = Vec::new();
        for at in 0..self.sets.len() {
            let now = self.wants_one(peer, &self.sets[at].list);
            let set = &mut self.sets[at];
            if set.interested.contains(peer) != now {
                if now {
                    set.interested.insert(peer);
                } else {
                    set.interested.remove(peer);
                    set.leaving.insert(peer);
                }
                changed.push(TargetsId(u32::try_from(at).unwrap_or(u32::MAX)));
            }
        }
        changed
    }

    fn wants_one(&self, peer: PeerIndex, list: &[[u8; 8]]) -> bool {
        let prefixes = self.wants.get(&peer).map_or(&[][..], Vec::as_slice);
        prefixes
            .iter()
            .any(|prefix| is_default(prefix) || list.iter().any(|target| covers(prefix, target)))
    }
}

/// The zero-length prefix asks for everything (RFC 4684 §4).
fn is_default(prefix: &[u8]) -> bool {
    prefix.first().is_some_and(|bits| *bits <= 32)
}

/// Does the part behind the origin AS cover the target?
fn covers(prefix: &[u8], target: &[u8; 8]) -> bool {
    let [bits, _, _, _, _, wanted @ ..] = prefix else {
        return false;
    };
    let bits = usize::from(bits.saturating_sub(32)).min(64);
    let whole = bits / 8;
    let rest = bits % 8;
    if wanted.len() < bits.div_ceil(8) || wanted[..whole] != target[..whole] {
        return false;
    }
    let mask = !(0xFF_u8
        .checked_shr(u32::try_from(rest).unwrap_or(0))
        .unwrap_or(0));
    rest == 0 || (wanted[whole] ^ target[whole]) & mask == 0
}

/// Sub-type 2 of the three types with an administrator (RFC 4360 §4, RFC 5668).
fn is_route_target(community: &[u8; 8]) -> bool {
    matches!(community, [0..=2, 2, ..])
}
