//! An update group: neighbours of one family that are told the same, in the same octets.
//!
//! What the group was told stands once a route ([`Told`]); who of it heard a route follows from
//! its source (nobody is told what he said) and from RT constraint. A change is encoded once and
//! handed out with the set of its receivers. A neighbour that cannot follow is set aside with one
//! bit a route; those that come, come back, or ask again walk the table together.

use std::{cmp::Reverse, collections::BTreeMap, mem, sync::Arc, time::Duration};

use base::{Instant, NodeId};

use super::{
    changes::Changes,
    dest::{Dest, Path},
    emit::{Emit, Item, Target},
    filter::{Asking, Chosen, Filter, Outcome},
    interest::Interest,
    intern::{AttributesId, Interner},
    octets::Octets,
    peer_ref,
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
    /// They may be told of long-lived stale routes.
    pub(super) knows_long_lived: bool,
    /// Of RT constraint they are told only what we want ourselves.
    pub(super) own_wants: bool,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Added {
    pub(super) told: Told,
    /// The source's own path id.
    pub(super) path_id: u32,
    /// The one we tell.
    pub(super) own_id: u32,
    /// What was told beside the key.
    pub(super) value: Octets<14>,
}

/// Everything a group looks at beside itself.
pub(super) struct World<'a> {
    pub(super) family: Family,
    /// Does RT constraint apply to the family?
    pub(super) constrained: bool,
    /// Whoever said the best path is told that others said it too, or that we want it
    /// (RFC 4684 §3.2): RT constraint toward clients.
    pub(super) tells_source: bool,
    pub(super) dests: &'a Slab<Dest>,
    pub(super) attributes: &'a mut Interner,
    pub(super) interest: &'a mut Interest,
    pub(super) peers: &'a [Option<Peer>],
    pub(super) asn: u32,
    pub(super) node: NodeId,
}

impl World<'_> {
    pub(super) fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        peer_ref(self.peers, index)
    }

    /// Is the octet queue of each of them short?
    pub(super) fn all_ready(&self, peers: &PeerSet) -> bool {
        peers.iter().all(|p| self.peer(p).is_some_and(|p| p.ready))
    }

    pub(super) fn release(&mut self, id: AttributesId) {
        self.attributes.release(id);
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

/// A member that takes nothing for now.
#[derive(Debug)]
struct Deaf {
    peer: PeerIndex,
    /// Routes of which it is to hear later.
    owed: Bits,
    /// Of these, those that it may hold as they no longer are.
    holds: Bits,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) key: GroupKey,
    pub(super) members: PeerSet,
    /// Members that take nothing.
    deaf: Vec<Deaf>,
    pub(super) told: Column<Told>,
    /// Add-path groups only, instead of `told`.
    pub(super) added: BTreeMap<u32, Vec<Added>>,
    /// No path id above this was ever told.
    pub(super) highest_id: u32,
    pub(super) changes: Changes,
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

impl Group {
    pub(super) fn new(key: GroupKey) -> Self {
        Group {
            key,
            members: PeerSet::default(),
            deaf: Vec::new(),
            told: Column::default(),
            added: BTreeMap::new(),
            changes: Changes::default(),
            highest_id: 0,
            seed: Some(0),
            seeded: PeerSet::default(),
            walk: None,
            next_walk: None,
            blocked_since: None,
            items: Vec::new(),
        }
    }

    /// A route's place must stay its own while somebody is to hear of its end.
    pub(super) fn holds(&self, at: u32) -> bool {
        self.changes.contains(at)
            || self.told.get(at) != Told::default()
            || self.added.contains_key(&at)
            || self.deaf.iter().any(|deaf| deaf.owed.contains(at))
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
        self.owe(peer, &owed, None, ends);
    }

    /// A member is owed these routes, in the walk that begins next; of `holds` it may have heard
    /// what is no longer so.
    pub(super) fn owe(&mut self, peer: PeerIndex, owed: &Bits, holds: Option<&Bits>, ends: bool) {
        if let Some(deaf) = self.deaf.iter_mut().find(|deaf| deaf.peer == peer) {
            deaf.owed.extend(owed);
            deaf.holds.extend(holds.unwrap_or(&Bits::default()));
            if ends {
                self.seeded.insert(peer);
            }
            return;
        }
        let walk = self.next_walk.get_or_insert_default();
        walk.members.insert(peer);
        walk.owed.extend(owed);
        if let Some(holds) = holds {
            walk.correct(peer, holds);
        }
        if ends {
            walk.ends.insert(peer);
        }
    }

    pub(super) fn leave(&mut self, peer: PeerIndex) {
        self.members.remove(peer);
        self.seeded.remove(peer);
        self.deaf.retain(|deaf| deaf.peer != peer);
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
        if !self.members.contains(peer) || self.deaf.iter().any(|deaf| deaf.peer == peer) {
            return;
        }
        let (mut owed, mut holds) = (Bits::default(), Bits::default());
        let mut ends = false;
        for walk in [&mut self.walk, &mut self.next_walk].into_iter().flatten() {
            if walk.members.contains(peer) {
                owed.extend(&walk.owed);
                let corrects = walk.corrects.iter().filter(|(member, _)| *member == peer);
                corrects.for_each(|(_, bits)| holds.extend(bits));
                ends |= walk.ends.contains(peer);
                walk.leave(peer);
            }
        }
        if ends {
            self.seeded.insert(peer);
        }
        self.deaf.push(Deaf { peer, owed, holds });
    }

    /// It takes octets again.
    pub(super) fn take_back(&mut self, peer: PeerIndex) {
        let Some(at) = self.deaf.iter().position(|deaf| deaf.peer == peer) else {
            return;
        };
        let Deaf { owed, holds, .. } = self.deaf.swap_remove(at);
        let ends = self.seed.is_none() && self.seeded.contains(peer);
        if ends {
            self.seeded.remove(peer);
        }
        self.owe(peer, &owed, Some(&holds), ends);
    }

    /// Members that are told changes as they come.
    pub(super) fn hearing(&self) -> PeerSet {
        let mut hearing = self.members.clone();
        for deaf in &self.deaf {
            hearing.remove(deaf.peer);
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
        let live = !self.changes.is_drained() || self.seed.is_some();
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
            let first = items.len();
            let dest = world.dests.get(at);
            if self.key.add_path > 0 {
                self.compare_all(at, dest, world, &mut items, &mut released);
            } else {
                self.compare(at, dest, world, &mut items, &mut released);
            }
            self.owe_the_deaf(at, &items[first..], world);
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
            let done = mem::take(&mut self.seeded);
            for peer in done.iter() {
                self.end_table(peer, ended);
            }
        }
    }

    /// Nothing but what it walks over is missing to the whole table of a member: it is told so
    /// at the end of that walk, when it hears again, or now.
    pub(super) fn end_table(&mut self, peer: PeerIndex, ended: &mut PeerSet) {
        if self.deaf.iter().any(|deaf| deaf.peer == peer) {
            self.seeded.insert(peer);
            return;
        }
        let walks = [&mut self.next_walk, &mut self.walk].into_iter().flatten();
        let mut walks = walks.filter(|walk| walk.members.contains(peer));
        match walks.next() {
            Some(walk) => walk.ends.insert(peer),
            None => ended.insert(peer),
        }
    }

    /// Those that take nothing are owed what they would have heard, and nothing else: they are
    /// not to learn of others' routes by their withdrawal.
    fn owe_the_deaf(&mut self, at: u32, items: &[Item], world: &World<'_>) {
        if self.deaf.is_empty() {
            return;
        }
        let deaf: PeerSet = self.deaf.iter().map(|deaf| deaf.peer).collect();
        let mut concerned = PeerSet::default();
        for item in items {
            concerned = concerned.or(&item.target.resolve(world, &deaf));
        }
        for deaf in &mut self.deaf {
            if concerned.contains(deaf.peer) {
                deaf.owed.insert(at);
                deaf.holds.insert(at);
            }
        }
    }

    fn next_change(&mut self, end: u32) -> Option<u32> {
        if let Some(at) = self.changes.pop() {
            return Some(at);
        }
        let mut seed = self.seed?;
        // What was told since is either so, or waits in a queue.
        while seed < end && self.was_told(seed) {
            seed += 1;
        }
        self.seed = Some((seed + 1).min(end));
        (seed < end).then_some(seed)
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
        let new = self
            .tellers(dest, world.family, world.peers)
            .find_map(|path| self.exported(dest, path, world))
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
            let target = Target::heard(world, old);
            items.push(item(true, target, AttributesId::NONE));
            return;
        }
        items.push(item(false, Target::hearers(world, new), new.attributes));
        if world.tells_source {
            let item = self.answer(at, dest, new, world, released);
            items.push(item);
            return;
        }
        if old != Told::default()
            && let Some(target) = Target::losers(world, old, new)
        {
            items.push(item(true, target, AttributesId::NONE));
        }
    }

    /// The paths of which the group may hear one, the first that may be told it: the best, and no
    /// other. Of RT constraint, those that are not clients are told what others of them said only
    /// if no one else said it (RFC 4684 §3.2 ii), which then is not told at all.
    fn tellers<'d>(
        &self,
        dest: &'d Dest,
        family: Family,
        peers: &'d [Option<Peer>],
    ) -> impl Iterator<Item = &'d Path> + use<'d> {
        let constraint = family == Family::RTC;
        let own_wants = constraint && self.key.own_wants;
        let not_of_others = constraint && self.key.kind == Kind::NonClient;
        let kind = |path: &Path| peer_ref(peers, path.peer).map(|peer| peer.config.kind);
        let best_only = !own_wants && !not_of_others;
        let count = if best_only { 1 } else { usize::MAX };
        dest.paths().iter().take(count).filter(move |path| {
            let own = path.peer == PeerIndex::LOCAL;
            if own_wants {
                own
            } else {
                !not_of_others || kind(path) != Some(Kind::NonClient)
            }
        })
    }

    /// What the source of the best path hears of RT constraint: what somebody else said, or its
    /// own word, as ours (RFC 4684 §3.2 i).
    pub(super) fn answer(
        &self,
        at: u32,
        dest: &Dest,
        told: Told,
        world: &mut World<'_>,
        released: &mut Vec<AttributesId>,
    ) -> Item {
        let others = dest.paths().iter().filter(|p| p.peer != told.source);
        let other = others
            .filter_map(|path| self.exported(dest, path, world))
            .next();
        released.extend(other.map(|other| other.attributes));
        let said = other.unwrap_or(told);
        Item {
            withdraw: false,
            target: Target::Only(told.source),
            attributes: said.attributes,
            source: said.source,
            chosen: said.chosen,
            at,
            path: 0,
            own_id: 0,
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
            self.highest_id = self.highest_id.max(own_id);
            new.push(Added {
                told,
                path_id: path.path_id,
                own_id,
                value: path.value.clone(),
            });
            if known.is_some_and(|known| known.told == told && known.value == path.value) {
                continue;
            }
            let losers = known.and_then(|known| Target::losers(world, known.told, told));
            items.extend(losers.map(|target| Item {
                withdraw: true,
                target,
                attributes: AttributesId::NONE,
                source: told.source,
                chosen: Chosen::default(),
                at,
                path: 0,
                own_id,
            }));
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
                    target: Target::heard(world, gone.told),
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
        if !world.attributes.hops.is_reachable(world.family, facts.hop) {
            return None;
        }
        if facts.communities.long_lived_stale && !self.key.knows_long_lived {
            return None;
        }
        if world.family == Family::RTC && self.key.own_wants && path.peer != PeerIndex::LOCAL {
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
