//! An update group: neighbours of one family that are told the same, in the same octets.
//!
//! What the group was told stands once a route ([`Told`]); who of it heard a route follows from
//! its source (nobody is told what he said) and from RT constraint. A change is encoded once and
//! handed out with the set of its receivers. A neighbour that cannot follow is set aside with one
//! bit a route; those that come, come back, or ask again walk the table together.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

use base::{Instant, NodeId};

use super::{
    dest::{Dest, Path},
    emit::{Emit, Item, Target},
    filter::{Asking, Chosen, Filter, Outcome},
    interest::Interest,
    intern::{AttributesId, Interner},
    peers::{Kind, NextHop, Peer, PeerIndex, PeerSet},
    slab::{Bits, Column, Slab},
    walk::Walk,
};
use crate::wire::Family;

/// Routes looked at in one turn, so that equal attributes meet in one message.
pub(super) const WINDOW: usize = 1024;
/// How long changes wait for a receiver whose previous octets are still unwritten.
pub(super) const BATCH: Duration = Duration::from_millis(5);

/// What neighbours must have in common to be told the same octets.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GroupKey {
    pub(super) kind: Kind,
    pub(super) max_message: usize,
    pub(super) four_octet_as: bool,
    /// Paths told of a route (RFC 7911); 0: the best one, without path ids.
    pub(super) add_path: u8,
    pub(super) next_hop: NextHop,
    pub(super) export: Arc<Filter>,
}

/// What the group was told of a route: nothing, or these attributes from this source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) attributes: AttributesId,
    pub(super) source: PeerIndex,
    pub(super) chosen: Chosen,
}

/// A path that an add-path group was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) told: Told,
    /// The source's own path id.
    pub(super) path_id: u32,
    /// The one we tell.
    pub(super) own_id: u32,
}

/// Everything a group looks at beside itself.
pub(super) struct World<'a> {
    pub(super) family: Family,
    /// Does RT constraint apply to the family?
    pub(super) constrained: bool,
    pub(super) dests: &'a Slab<Dest>,
    pub(super) attributes: &'a mut Interner,
    pub(super) interest: &'a mut Interest,
    pub(super) peers: &'a [Option<Peer>],
    pub(super) asn: u32,
    pub(super) node: NodeId,
}

impl World<'_> {
    pub(super) fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.peers
            .get(usize::from(index.0))
            .and_then(Option::as_ref)
    }

    /// Is the octet queue of each of them short?
    pub(super) fn all_ready(&self, peers: &PeerSet) -> bool {
        peers.iter().all(|p| self.peer(p).is_some_and(|p| p.ready))
    }

    pub(super) fn release(&mut self, id: AttributesId) {
        if let Some(targets) = self.attributes.release(id) {
            self.interest.release(targets);
        }
    }

    pub(super) fn acquire(&mut self, octets: &[u8]) -> AttributesId {
        let interest = &mut *self.interest;
        self.attributes
            .acquire(octets, |view| interest.acquire(view))
    }
}

/// How a turn went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// There is nothing to do.
    Idle,
    /// Something was done; ask again.
    More,
    /// Not before this, or until a neighbour is ready.
    Wait(Instant),
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) members: PeerSet,
    /// Members that take nothing, and what they are owed.
    deaf: Vec<(PeerIndex, Bits)>,
    pub(super) told: Column<Told>,
    /// Add-path groups only, instead of `told`.
    pub(super) added: BTreeMap<u32, Vec<Added>>,
    pending: Bits,
    /// Down first, then all other changes.
    queue: [VecDeque<u32>; 2],
    /// A new group is told the whole table, from here on.
    seed: Option<u32>,
    /// Members whose whole table is sent when the seed is.
    seeded: PeerSet,
    pub(super) walk: Option<Walk>,
    /// Those that came since it began.
    pub(super) next_walk: Option<Walk>,
    blocked_since: Option<Instant>,
    items: Vec<Item>,
}

/// A change that overtakes others, or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Gone, or not to be chosen.
    Down = 0,
    Live = 1,
}

impl Group {
    pub(super) fn new(key: GroupKey) -> Self {
        Group {
            key,
            members: PeerSet::default(),
            deaf: Vec::new(),
            told: Column::default(),
            added: BTreeMap::new(),
            pending: Bits::default(),
            queue: [VecDeque::new(), VecDeque::new()],
            seed: Some(0),
            seeded: PeerSet::default(),
            walk: None,
            next_walk: None,
            blocked_since: None,
            items: Vec::new(),
        }
    }

    /// A route changed.
    pub(super) fn push(&mut self, at: u32, lane: Lane) {
        let fresh = self.pending.insert(at);
        if fresh || lane == Lane::Down {
            self.queue[lane as usize].push_back(at);
        }
    }

    /// Routes waiting to be told.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A route's place must stay its own while somebody is to hear of its end.
    pub(super) fn holds(&self, at: u32) -> bool {
        self.pending.contains(at)
            || self.told.get(at) != Told::default()
            || self.added.contains_key(&at)
            || self.deaf.iter().any(|(_, owed)| owed.contains(at))
            || self.walk.as_ref().is_some_and(|w| w.owed.contains(at))
            || self.next_walk.as_ref().is_some_and(|w| w.owed.contains(at))
    }

    pub(super) fn was_told(&self, at: u32) -> bool {
        self.told.get(at) != Told::default() || self.added.contains_key(&at)
    }

    /// A neighbour came, and is to hear everything.
    pub(super) fn join(&mut self, peer: PeerIndex, end: u32) {
        self.members.insert(peer);
        if self.seed.is_some() {
            self.seeded.insert(peer);
        }
        if self.seed.is_none_or(|seed| seed > 0) {
            self.send_table(peer, end, self.seed.is_none());
        }
    }

    /// Tell a member everything (again); `ends`: it is then told that this was all.
    pub(super) fn send_table(&mut self, peer: PeerIndex, end: u32, ends: bool) {
        let mut owed = Bits::default();
        for at in (0..end).filter(|at| self.was_told(*at)) {
            owed.insert(at);
        }
        self.owe(peer, &owed, false, ends);
    }

    /// A member is owed these routes, in the walk that begins next.
    pub(super) fn owe(&mut self, peer: PeerIndex, owed: &Bits, corrects: bool, ends: bool) {
        let walk = self.next_walk.get_or_insert_default();
        walk.members.insert(peer);
        walk.owed.extend(owed);
        walk.corrects |= corrects;
        if ends {
            walk.ends.insert(peer);
        }
    }

    pub(super) fn leave(&mut self, peer: PeerIndex) {
        self.members.remove(peer);
        self.seeded.remove(peer);
        self.deaf.retain(|(deaf, _)| *deaf != peer);
        for walk in [&mut self.walk, &mut self.next_walk] {
            if let Some(inner) = walk {
                inner.leave(peer);
                if inner.members.is_empty() {
                    *walk = None;
                }
            }
        }
    }

    /// A member takes nothing for now: note what it is owed instead.
    pub(super) fn set_aside(&mut self, peer: PeerIndex) {
        if !self.members.contains(peer) || self.deaf.iter().any(|(deaf, _)| *deaf == peer) {
            return;
        }
        let mut owed = Bits::default();
        let mut ends = false;
        for walk in [&mut self.walk, &mut self.next_walk].into_iter().flatten() {
            if walk.members.contains(peer) {
                owed.extend(&walk.owed);
                ends |= walk.ends.contains(peer);
                walk.leave(peer);
            }
        }
        if ends {
            self.seeded.insert(peer);
        }
        self.deaf.push((peer, owed));
    }

    /// It takes octets again.
    pub(super) fn take_back(&mut self, peer: PeerIndex) {
        let Some(at) = self.deaf.iter().position(|(deaf, _)| *deaf == peer) else {
            return;
        };
        let (_, owed) = self.deaf.swap_remove(at);
        let ends = self.seed.is_none() && self.seeded.contains(peer);
        if ends {
            self.seeded.remove(peer);
        }
        self.owe(peer, &owed, true, ends);
    }

    /// Members that are told changes as they come.
    pub(super) fn hearing(&self) -> PeerSet {
        let mut hearing = self.members.clone();
        for (deaf, _) in &self.deaf {
            hearing.remove(*deaf);
        }
        hearing
    }

    /// Do some of what is to do. Places that may be free now are added to `loose`; neighbours
    /// whose whole table was sent to `ended`.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        world: &mut World<'_>,
        emit: &mut Emit<'_>,
        loose: &mut Vec<u32>,
        ended: &mut PeerSet,
    ) -> Turn {
        let live = !self.queue.iter().all(VecDeque::is_empty) || self.seed.is_some();
        if !live {
            self.blocked_since = None;
            return self.walk_on(now, world, emit, loose, ended);
        }
        let hearing = self.hearing();
        if !world.all_ready(&hearing) {
            let until = *self.blocked_since.get_or_insert(now) + BATCH;
            if now < until {
                return Turn::Wait(until);
            }
        }
        self.blocked_since = None;
        self.tell_changes(&hearing, world, emit, loose, ended);
        Turn::More
    }

    fn tell_changes(
        &mut self,
        hearing: &PeerSet,
        world: &mut World<'_>,
        emit: &mut Emit<'_>,
        loose: &mut Vec<u32>,
        ended: &mut PeerSet,
    ) {
        let mut released = Vec::new();
        let mut items = mem::take(&mut self.items);
        let mut taken = 0;
        while taken < WINDOW {
            let Some(at) = self.next_change(world.dests.end()) else {
                break;
            };
            taken += 1;
            for (_, owed) in &mut self.deaf {
                owed.insert(at);
            }
            let dest = world.dests.get(at);
            if self.key.add_path > 0 {
                self.compare_all(at, dest, world, &mut items, &mut released);
            } else {
                self.compare(at, dest, world, &mut items, &mut released);
            }
            if dest.best().is_none() {
                loose.push(at);
            }
        }
        emit.tell(&self.key, world, hearing, &mut items);
        items.clear();
        self.items = items;
        for id in released {
            world.release(id);
        }
        if self.seed.is_some_and(|seed| seed >= world.dests.end()) {
            self.seed = None;
            let deaf: PeerSet = self.deaf.iter().map(|(peer, _)| *peer).collect();
            let done = mem::take(&mut self.seeded);
            for peer in done.iter() {
                if deaf.contains(peer) {
                    self.seeded.insert(peer);
                } else {
                    ended_insert(ended, peer);
                }
            }
        }
    }

    fn next_change(&mut self, end: u32) -> Option<u32> {
        for lane in &mut self.queue {
            while let Some(at) = lane.pop_front() {
                if self.pending.remove(at) {
                    return Some(at);
                }
            }
            // A burst's room is given back.
            if lane.capacity() > 16 * WINDOW {
                lane.shrink_to(WINDOW);
            }
        }
        let seed = self.seed.as_mut()?;
        (*seed < end).then(|| {
            *seed += 1;
            *seed - 1
        })
    }

    /// What follows for the group from a route as it is now.
    fn compare(
        &mut self,
        at: u32,
        dest: &Dest,
        world: &mut World<'_>,
        items: &mut Vec<Item>,
        released: &mut Vec<AttributesId>,
    ) {
        let old = self.told.get(at);
        let new = dest
            .best()
            .and_then(|path| self.exported(dest, path, world))
            .unwrap_or_default();
        if old == Told::default() && new == Told::default() {
            return;
        }
        self.told.set(at, new);
        if old != Told::default() {
            released.push(old.attributes);
        }
        let item = |withdraw, target, attributes| Item {
            withdraw,
            target,
            attributes,
            source: new.source,
            chosen: new.chosen,
            at,
            path: 0,
            own_id: 0,
        };
        if new == Told::default() {
            let target = Target::hearers(world, old);
            items.push(item(true, target, AttributesId::NONE));
            return;
        }
        items.push(item(false, Target::hearers(world, new), new.attributes));
        if old != Told::default()
            && let Some(target) = Target::losers(world, old, new)
        {
            items.push(item(true, target, AttributesId::NONE));
        }
    }

    /// The same for a group that hears several paths.
    fn compare_all(
        &mut self,
        at: u32,
        dest: &Dest,
        world: &mut World<'_>,
        items: &mut Vec<Item>,
        released: &mut Vec<AttributesId>,
    ) {
        let old = self.added.remove(&at).unwrap_or_default();
        let mut new: Vec<Added> = Vec::new();
        for (position, path) in dest.paths().iter().enumerate() {
            if new.len() >= usize::from(self.key.add_path) {
                break;
            }
            let Some(told) = self.exported(dest, path, world) else {
                continue;
            };
            let known = old
                .iter()
                .find(|a| a.told.source == path.peer && a.path_id == path.path_id);
            let own_id = known.map_or_else(
                || {
                    let used = |id: &u32| old.iter().chain(&new).any(|a| a.own_id == *id);
                    (1..).find(|id| !used(id)).unwrap_or(u32::MAX)
                },
                |known| known.own_id,
            );
            new.push(Added {
                told,
                path_id: path.path_id,
                own_id,
            });
            items.push(Item {
                withdraw: false,
                target: Target::hearers(world, told),
                attributes: told.attributes,
                source: told.source,
                chosen: told.chosen,
                at,
                path: u32::try_from(position).unwrap_or(0),
                own_id,
            });
        }
        for gone in &old {
            released.push(gone.told.attributes);
            if !new.iter().any(|a| a.own_id == gone.own_id) {
                items.push(Item {
                    withdraw: true,
                    target: Target::hearers(world, gone.told),
                    attributes: AttributesId::NONE,
                    source: gone.told.source,
                    chosen: Chosen::default(),
                    at,
                    path: 0,
                    own_id: gone.own_id,
                });
            }
        }
        if !new.is_empty() {
            self.added.insert(at, new);
        }
    }

    /// The attributes under which the group may hear a path, with one use more; what is the same
    /// for all routes (own AS, next hop, reflection) is added when they are encoded.
    fn exported(&self, dest: &Dest, path: &Path, world: &mut World<'_>) -> Option<Told> {
        let facts = world.attributes.facts(path.attributes);
        let external = self.key.kind.is_external();
        if facts.communities.no_advertise || (external && facts.communities.no_export) {
            return None;
        }
        let source = world.peer(path.peer).map(|peer| peer.config.kind);
        if source == Some(Kind::NonClient) && self.key.kind == Kind::NonClient {
            return None;
        }
        let asking = Asking {
            asn: world.asn,
            next_hop: &self.key.next_hop,
        };
        let octets = world.attributes.octets(path.attributes);
        let mut out = Vec::new();
        let export = &self.key.export;
        let (attributes, chosen) =
            match export.apply(asking, world.family, &dest.key, octets, &mut out) {
                Outcome::Reject => return None,
                Outcome::Accept(chosen) => {
                    world.attributes.keep(path.attributes);
                    (path.attributes, chosen)
                }
                Outcome::Edited(chosen) => (world.acquire(&out), chosen),
            };
        Some(Told {
            attributes,
            source: path.peer,
            chosen,
        })
    }

    /// Forget everything; returns what was in use.
    pub(super) fn dissolve(&mut self, end: u32) -> Vec<AttributesId> {
        let told = mem::take(&mut self.told);
        let added = mem::take(&mut self.added);
        (0..end)
            .map(|at| told.get(at).attributes)
            .chain(added.values().flatten().map(|a| a.told.attributes))
            .filter(|id| *id != AttributesId::NONE)
            .collect()
    }
}

fn ended_insert(ended: &mut PeerSet, peer: PeerIndex) {
    ended.insert(peer);
}

/// Withdrawals first, then what goes to the same receivers under the same attributes together.
pub(super) fn order(item: &Item) -> (Reverse<bool>, Target, PeerIndex, AttributesId, Chosen) {
    (
        Reverse(item.withdraw),
        item.target,
        item.source,
        item.attributes,
        item.chosen,
    )
}
