//! A walk through the table for those that came, came back, or asked again: one walk for all of
//! them, at the pace at which they read, behind all live changes.

use base::Instant;

use super::{
    emit::{Emit, Item, Target},
    filter::Chosen,
    group::{BATCH, Group, Told, Turn, WINDOW, World},
    intern::AttributesId,
    peers::{PeerIndex, PeerSet},
    slab::Bits,
};
use crate::wire::Family;

/// Who walks, and over what.
#[derive(Clone, Debug, Default)]
pub(super) struct Walk {
    pub(super) members: PeerSet,
    /// Routes still to be told.
    pub(super) owed: Bits,
    /// Members that may have heard what is no longer so: of these routes, those that they are not
    /// to have are withdrawn.
    pub(super) corrects: Vec<(PeerIndex, Bits)>,
    /// Those that are told at the end that this was all.
    pub(super) ends: PeerSet,
    cursor: u32,
    blocked_since: Option<Instant>,
}

impl Walk {
    pub(super) fn leave(&mut self, peer: PeerIndex) {
        self.members.remove(peer);
        self.ends.remove(peer);
        self.corrects.retain(|(member, _)| *member != peer);
    }

    pub(super) fn correct(&mut self, peer: PeerIndex, routes: &Bits) {
        match self.corrects.iter_mut().find(|(member, _)| *member == peer) {
            Some((_, known)) => known.extend(routes),
            None => self.corrects.push((peer, routes.clone())),
        }
    }

    /// Members that may hold the route at `at`.
    fn holders(&self, at: u32) -> PeerSet {
        let holders = self.corrects.iter().filter(|(_, bits)| bits.contains(at));
        holders.map(|(peer, _)| *peer).collect()
    }
}

impl Group {
    /// One step of the walk, if its members can follow. Those that cannot for a while are set
    /// aside, so that they do not hold up the others.
    pub(super) fn walk_on(
        &mut self,
        now: Instant,
        world: &mut World<'_>,
        emit: &mut Emit<'_>,
        loose: &mut Vec<u32>,
        ended: &mut PeerSet,
    ) -> Turn {
        if self.walk.is_none() {
            self.walk = self.next_walk.take();
        }
        let Some(walk) = self.walk.as_mut() else {
            return Turn::Idle;
        };
        if !world.all_ready(&walk.members) {
            let until = *walk.blocked_since.get_or_insert(now) + BATCH;
            if now < until {
                return Turn::Wait(until);
            }
            let late: Vec<PeerIndex> = walk
                .members
                .iter()
                .filter(|p| !world.peer(*p).is_some_and(|p| p.ready))
                .collect();
            if late.len() == walk.members.len() {
                // Nobody waits for anybody.
                return Turn::Wait(now + BATCH);
            }
            walk.blocked_since = None;
            for peer in late {
                self.set_aside(peer);
            }
            return Turn::More;
        }
        walk.blocked_since = None;
        self.step(world, emit, loose);
        if let Some(walk) = self.walk.take_if(|walk| walk.owed.is_empty()) {
            for peer in walk.ends.iter() {
                ended.insert(peer);
            }
        }
        Turn::More
    }

    fn step(&mut self, world: &mut World<'_>, emit: &mut Emit<'_>, loose: &mut Vec<u32>) {
        let Some(mut walk) = self.walk.take() else {
            return;
        };
        let mut items = Vec::with_capacity(WINDOW);
        let mut released = Vec::new();
        for _ in 0..WINDOW {
            let Some(at) = walk.owed.next(walk.cursor) else {
                walk.cursor = 0;
                break;
            };
            walk.cursor = at + 1;
            walk.owed.remove(at);
            let dest = world.dests.get(at);
            if dest.best().is_none() {
                loose.push(at);
            }
            self.owed_of(at, &walk, world, &mut items, &mut released);
        }
        emit.tell(&self.key, world, &walk.members, &mut items);
        for id in released {
            world.release(id);
        }
        self.walk = Some(walk);
    }

    /// What a walker hears of a route: what the group was told of it. A change that waits in the
    /// queue reaches it from there.
    fn owed_of(
        &self,
        at: u32,
        walk: &Walk,
        world: &mut World<'_>,
        items: &mut Vec<Item>,
        released: &mut Vec<AttributesId>,
    ) {
        let announce = |target, told: Told, path: usize, own_id| Item {
            withdraw: false,
            target,
            attributes: told.attributes,
            source: told.source,
            chosen: told.chosen,
            at,
            path: u32::try_from(path).unwrap_or(0),
            own_id,
        };
        let withdraw = |target, own_id| Item {
            withdraw: true,
            target,
            attributes: AttributesId::NONE,
            source: PeerIndex::LOCAL,
            chosen: Chosen::default(),
            at,
            path: 0,
            own_id,
        };
        let dest = world.dests.get(at);
        let mut holders = walk.holders(at);
        // Each of them is told alone: no one else is to learn of the route.
        let take_back = |holders: &PeerSet, own_id, items: &mut Vec<Item>| {
            items.extend(
                holders
                    .iter()
                    .map(|peer| withdraw(Target::Only(peer), own_id)),
            );
        };
        if self.key.add_path > 0 {
            let all = self.added.get(&at).map_or(&[][..], Vec::as_slice);
            for added in all {
                let target = Target::hearers(world, added.told);
                if let Some(path) = dest.position(added.told.source, added.path_id) {
                    items.push(announce(target, added.told, path, added.own_id));
                }
                let hear = target.resolve(world, &holders);
                take_back(&holders.clone().minus(&hear), added.own_id, items);
            }
            let unused = |id: &u32| all.iter().all(|a| a.own_id != *id);
            for id in (1..=self.highest_id).filter(unused) {
                take_back(&holders, id, items);
            }
            return;
        }
        let told = self.told.get(at);
        if told == Told::default() {
            take_back(&holders, 0, items);
            return;
        }
        let target = Target::hearers(world, told);
        if world.family == Family::RTC || dest.best().is_some_and(|b| b.peer == told.source) {
            items.push(announce(target, told, 0, 0));
        }
        if world.tells_source {
            let answer = self.answer(at, dest, told, world, released);
            items.push(answer);
            return;
        }
        holders = holders.minus(&target.resolve(world, &walk.members));
        take_back(&holders, 0, items);
    }
}
