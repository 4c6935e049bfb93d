//! Sets of path attributes, each kept once, as canonical octets.

use base::NodeId;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use std::hash::BuildHasher;

use super::{
    hops::{HopId, NextHops},
    interest::TargetsId,
    slab::Slab,
};
use crate::{policy::Community, wire::AttributesView};

/// The number of a set; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct AttributesId(pub(super) u32);

impl AttributesId {
    pub(super) const NONE: AttributesId = AttributesId(0);
}

/// What the decision and the export ask of a set, read once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub(super) local_pref: u32,
    pub(super) as_path_length: u16,
    pub(super) origin: u8,
    pub(super) communities: WellKnown,
    pub(super) med: u32,
    pub(super) neighbor_as: u32,
    pub(super) originator: Option<NodeId>,
    pub(super) clusters: u16,
    pub(super) targets: TargetsId,
    pub(super) hop: HopId,
}

/// Well-known communities that limit where a route goes, and how long it stays (RFC 1997,
/// RFC 9494 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WellKnown {
    pub(super) no_export: bool,
    pub(super) no_advertise: bool,
    pub(super) long_lived_stale: bool,
    /// It may not become long-lived stale.
    pub(super) no_long_lived: bool,
}

/// What a route without LOCAL_PREF counts as.
pub(super) const DEFAULT_LOCAL_PREF: u32 = 100;

#[derive(Debug)]
struct Set {
    octets: Box<[u8]>,
    /// It is among those that may be buried.
    listed: bool,
    facts: Facts,
}

#[derive(Debug)]
pub(super) struct Interner {
    sets: Slab<Set>,
    /// How many use a set, by its number: beside each other, since every route that comes or goes
    /// counts.
    uses: Vec<u32>,
    index: HashTable<u32>,
    hasher: FixedState,
    /// The next hops that they name.
    pub(super) hops: NextHops,
    /// Sets that had no use left: what is gone is told first, they are given back in a quiet
    /// moment. Some may be in use again.
    dead: Vec<AttributesId>,
}

impl Interner {
    pub(super) fn new(seed: u64) -> Self {
        let mut sets = Slab::default();
        let none = sets.insert(Set::empty());
        debug_assert_eq!(none, 0);
        Interner {
            sets,
            uses: vec![0],
            index: HashTable::new(),
            hasher: FixedState::with_seed(seed),
            hops: NextHops::default(),
            dead: Vec::new(),
        }
    }

    /// The number of this set, with one use more; `targets` gives the number of its route
    /// targets if the set is new.
    pub(super) fn acquire(
        &mut self,
        octets: &[u8],
        targets: impl FnOnce(AttributesView<'_>) -> TargetsId,
    ) -> AttributesId {
        let hash = self.hasher.hash_one(octets);
        let sets = &mut self.sets;
        if let Some(&at) = self.index.find(hash, |&at| *sets.get(at).octets == *octets) {
            self.uses[at as usize] += 1;
            return AttributesId(at);
        }
        let view = AttributesView(octets);
        let hop = self.hops.acquire(view.next_hop());
        let sets = &mut self.sets;
        let at = sets.insert(Set {
            octets: octets.into(),
            listed: false,
            facts: Facts::read(view, targets(view), hop),
        });
        if self.uses.len() <= at as usize {
            self.uses.resize(at as usize + 1, 0);
        }
        self.uses[at as usize] = 1;
        let hasher = &self.hasher;
        self.index
            .insert_unique(hash, at, |&at| hasher.hash_one(&*sets.get(at).octets));
        AttributesId(at)
    }

    /// One use more of a set in use.
    pub(super) fn keep(&mut self, id: AttributesId) {
        if id != AttributesId::NONE {
            self.uses[id.0 as usize] += 1;
        }
    }

    /// One use less.
    pub(super) fn release(&mut self, id: AttributesId) {
        if id == AttributesId::NONE {
            return;
        }
        let uses = &mut self.uses[id.0 as usize];
        *uses -= 1;
        if *uses == 0 && !std::mem::replace(&mut self.sets.get_mut(id.0).listed, true) {
            self.dead.push(id);
        }
    }

    /// Sets that may be buried.
    pub(super) const fn dead(&self) -> usize {
        self.dead.len()
    }

    /// Give back at most so many sets without a use; `buried` takes their route targets' numbers.
    pub(super) fn bury(&mut self, most: usize, mut buried: impl FnMut(TargetsId)) {
        for id in self.dead.drain(self.dead.len().saturating_sub(most)..) {
            let set = self.sets.get_mut(id.0);
            set.listed = false;
            if self.uses[id.0 as usize] > 0 {
                continue;
            }
            buried(set.facts.targets);
            self.hops.release(set.facts.hop);
            let hash = self.hasher.hash_one(&*set.octets);
            if let Ok(entry) = self.index.find_entry(hash, |&at| at == id.0) {
                entry.remove();
            }
            self.sets.remove(id.0, Set::empty());
        }
        if self.dead.is_empty() {
            self.dead = Vec::new();
        }
    }

    pub(super) fn octets(&self, id: AttributesId) -> &[u8] {
        &self.sets.get(id.0).octets
    }

    pub(super) fn facts(&self, id: AttributesId) -> &Facts {
        &self.sets.get(id.0).facts
    }

    /// Sets in use.
    pub(super) fn len(&self) -> usize {
        self.sets.len() - 1
    }
}

impl Set {
    fn empty() -> Self {
        Set {
            octets: Box::default(),
            listed: false,
            facts: Facts {
                local_pref: DEFAULT_LOCAL_PREF,
                as_path_length: 0,
                origin: 0,
                communities: WellKnown::default(),
                med: 0,
                neighbor_as: 0,
                originator: None,
                clusters: 0,
                targets: TargetsId::NONE,
                hop: HopId::default(),
            },
        }
    }
}

impl Facts {
    fn read(view: AttributesView<'_>, targets: TargetsId, hop: HopId) -> Self {
        let path = view.as_path();
        let mut communities = WellKnown::default();
        for community in view.communities() {
            match Community(community) {
                Community::NO_EXPORT | Community::NO_EXPORT_SUBCONFED => {
                    communities.no_export = true;
                }
                Community::NO_ADVERTISE => communities.no_advertise = true,
                Community::LLGR_STALE => communities.long_lived_stale = true,
                Community::NO_LLGR => communities.no_long_lived = true,
                _ => {}
            }
        }
        Facts {
            local_pref: view.local_pref().unwrap_or(DEFAULT_LOCAL_PREF),
            as_path_length: u16::try_from(path.len()).unwrap_or(u16::MAX),
            origin: view.origin(),
            communities,
            med: view.med().unwrap_or(0),
            neighbor_as: path.first().unwrap_or(0),
            originator: view.originator(),
            clusters: u16::try_from(view.cluster_list().len() / 4).unwrap_or(u16::MAX),
            targets,
            hop,
        }
    }
}
