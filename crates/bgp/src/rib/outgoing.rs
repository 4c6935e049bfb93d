//! What a neighbour is told: its queue of keys, turned into UPDATEs when it can take one.

use std::sync::Arc;

use base::Instant;
use bytes::Bytes;

use super::{
    PeerConfig, PeerId, Rib, Role, Source,
    entry::{Path, reflects},
    queue::{KeyQueue, Lane},
};
use crate::{Attributes, Key, Value, wire};

/// How many keys are looked at to fill one UPDATE with routes of equal attributes.
const WINDOW: usize = 512;

/// No more of the shortest routes fit one UPDATE.
const MOST_ROUTES: usize = 145;

/// The End-of-RIB that is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Owed {
    #[default]
    Nothing,
    /// The table is still in the queue.
    Table,
    /// All of the table was sent or overtaken by changes; those before this number come first.
    Changes(u64),
}

#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pub(super) queue: KeyQueue,
    owed: Owed,
}

impl Outgoing {
    pub(super) fn begin_table(&mut self) {
        self.owed = Owed::Table;
    }

    pub(super) fn owes_end_of_rib(&self) -> bool {
        self.owed != Owed::Nothing
    }

    /// Has everything of the table gone out? Then the debt is paid by the caller.
    fn take_end_of_rib(&mut self) -> bool {
        if self.owed == Owed::Table && !self.queue.has_before(Lane::Bulk, u64::MAX) {
            self.owed = Owed::Changes(self.queue.next_number());
        }
        let Owed::Changes(before) = self.owed else {
            return false;
        };
        let open = [Lane::Down, Lane::Live]
            .iter()
            .any(|l| self.queue.has_before(*l, before));
        if !open {
            self.owed = Owed::Nothing;
        }
        !open
    }
}

/// What a key comes to for one neighbour.
enum Say {
    Nothing,
    Withdraw,
    Announce(Source, Arc<Attributes>, Value),
}

impl Rib {
    /// Is there anything to tell the neighbour? (It may come to nothing.)
    #[must_use]
    pub fn has_updates(&self, now: Instant, id: PeerId) -> bool {
        let Some(peer) = self.peers.get(&id) else {
            return false;
        };
        !peer.out.queue.is_empty() || (peer.out.owes_end_of_rib() && self.may_end(now))
    }

    /// The next whole UPDATE for a neighbour, at most 4096 octets. Call it when the neighbour can
    /// take one: what changes in the meantime is coalesced.
    pub fn poll_update(&mut self, now: Instant, id: PeerId) -> Option<Bytes> {
        loop {
            let may_end = self.may_end(now);
            let family = self.config.family;
            let peer = self.peers.get_mut(&id).filter(|peer| peer.up)?;
            if may_end && peer.out.take_end_of_rib() {
                return Some(wire::end_of_rib(family));
            }
            let first = peer.out.queue.peek(1).next()?.clone();
            let message = match self.say(id, &first) {
                Say::Nothing => {
                    self.unqueue(id, &first);
                    None
                }
                Say::Withdraw => Some(self.withdrawals(id)),
                Say::Announce(source, attributes, _) => {
                    self.announcements(id, &first, source, &attributes)
                }
            };
            if message.is_some() {
                return message;
            }
        }
    }

    fn may_end(&self, now: Instant) -> bool {
        self.table.is_some() && now >= self.started + self.config.end_of_rib_delay
    }

    fn say(&self, id: PeerId, key: &Key) -> Say {
        let (Some(peer), Some(entry)) = (self.peers.get(&id), self.entries.get(key)) else {
            return Say::Nothing;
        };
        match entry.best() {
            Some(path) if peer.may_hear(key, path) && self.reflects(&peer.config, path) => {
                Say::Announce(path.source, path.attributes.clone(), path.value.clone())
            }
            Some(_) | None if entry.told.contains(peer.bit) => Say::Withdraw,
            Some(_) | None => Say::Nothing,
        }
    }

    fn reflects(&self, to: &PeerConfig, path: &Path) -> bool {
        match path.source {
            Source::Local => true,
            Source::Peer(from) => self
                .peers
                .get(&from)
                .is_some_and(|from| reflects(from.config.role, to.role)),
        }
    }

    fn withdrawals(&mut self, id: PeerId) -> Bytes {
        let keys: Vec<Key> = self
            .window(id)
            .into_iter()
            .filter(|key| matches!(self.say(id, key), Say::Withdraw))
            .collect();
        let (message, count) = wire::encode_withdrawal(self.config.family, &keys);
        let Some(peer) = self.peers.get_mut(&id) else {
            return message;
        };
        peer.counters.withdrawn += count as u64;
        for key in &keys[..count] {
            peer.out.queue.remove(key);
            if let Some(entry) = self.entries.get_mut(key) {
                entry.told.remove(peer.bit);
                if entry.is_empty() {
                    self.entries.remove(key);
                }
            }
        }
        message
    }

    fn announcements(
        &mut self,
        id: PeerId,
        first: &Key,
        source: Source,
        attributes: &Arc<Attributes>,
    ) -> Option<Bytes> {
        let mut routes = Vec::new();
        for key in self.window(id) {
            match self.say(id, &key) {
                // Interned, so equal sets are the same set.
                Say::Announce(s, a, value) if s == source && Arc::ptr_eq(&a, attributes) => {
                    routes.push((key, value));
                    if routes.len() == MOST_ROUTES {
                        break;
                    }
                }
                Say::Announce(..) | Say::Withdraw | Say::Nothing => {}
            }
        }
        let outgoing = self.outgoing_attributes(id, source, attributes);
        let packed = wire::encode_announcement(self.config.family, &outgoing, &routes);
        let peer = self.peers.get_mut(&id)?;
        let Some((message, count)) = packed else {
            peer.counters.oversized += 1;
            self.unqueue(id, first);
            return None;
        };
        peer.counters.announced += count as u64;
        for (key, _) in &routes[..count] {
            peer.out.queue.remove(key);
            if let Some(entry) = self.entries.get_mut(key) {
                entry.told.insert(peer.bit);
            }
        }
        Some(message)
    }

    /// RFC 4456 §8: a reflector adds `ORIGINATOR_ID` where there is none and its cluster id.
    /// Between the halves of one node nothing but the originator is added.
    fn outgoing_attributes(
        &self,
        id: PeerId,
        source: Source,
        attributes: &Arc<Attributes>,
    ) -> Arc<Attributes> {
        let Source::Peer(from) = source else {
            return attributes.clone();
        };
        let (Some(from), Some(to)) = (self.peers.get(&from), self.peers.get(&id)) else {
            return attributes.clone();
        };
        if from.config.role == Role::Local && to.config.role != Role::Local {
            return attributes.clone();
        }
        let mut own = Attributes::clone(attributes);
        own.originator = own.originator.or(Some(from.config.node));
        if to.config.role != Role::Local {
            own.clusters.insert(0, self.config.node);
        }
        Arc::new(own)
    }

    fn window(&self, id: PeerId) -> Vec<Key> {
        self.peers
            .get(&id)
            .map_or_else(Vec::new, |p| p.out.queue.peek(WINDOW).cloned().collect())
    }

    fn unqueue(&mut self, id: PeerId, key: &Key) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.out.queue.remove(key);
        }
    }
}
