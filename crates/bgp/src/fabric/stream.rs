//! One stream with a neighbour: what comes in on it, and what waits to go out.

use std::{
    collections::{BTreeSet, VecDeque},
    mem,
    sync::Arc,
};

use base::Instant;
use bytes::Bytes;

use super::{Event, Fabric, Neighbor, PeerConfig, SUBSCRIBE, StreamId, route::own_attributes};
use crate::{
    peer::{Close, Connection, Incoming, Negotiated},
    table::PeerIndex,
    wire::{Decoded, Family, Notification, RefreshKind, UpdateError, decode},
};

/// Octets below which a neighbour takes bulk again.
const LOW_WATER: usize = 32 * 1024;
/// Octets above which a neighbour takes changes only.
const HIGH_WATER: usize = 128 * 1024;
/// Octets above which a neighbour takes nothing: it is owed one bit a route.
const LIMIT: usize = 4 * 1024 * 1024;

/// Another session of the same neighbour came up.
const REPLACED: (u8, u8) = (6, 7);

/// What a queue's length means for what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Ready,
    Busy,
    Full,
}

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) peer: PeerConfig,
    pub(super) connection: Connection,
    pub(super) session: Session,
    queue: VecDeque<Bytes>,
    octets: usize,
    level: Level,
}

/// What is known of an established session.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// Whose it is.
    pub(super) index: Option<PeerIndex>,
    /// Families whose whole table is not told yet.
    pub(super) owes_end: BTreeSet<Family>,
    /// Families whose routes cannot be told apart any more.
    disabled: Vec<Family>,
}

impl Stream {
    pub(super) fn new(peer: PeerConfig, connection: Connection) -> Self {
        Stream {
            peer,
            connection,
            session: Session::default(),
            queue: VecDeque::new(),
            octets: 0,
            level: Level::Ready,
        }
    }

    /// Queue whole messages; returns the new level if it changed.
    pub(super) fn push(&mut self, octets: Bytes) -> Option<Level> {
        self.octets += octets.len();
        self.queue.push_back(octets);
        let level = match self.level {
            _ if self.octets > LIMIT => Level::Full,
            Level::Ready if self.octets > HIGH_WATER => Level::Busy,
            level @ (Level::Ready | Level::Busy | Level::Full) => level,
        };
        self.change(level)
    }

    pub(super) fn pop(&mut self) -> Option<(Bytes, Option<Level>)> {
        let octets = self.queue.pop_front()?;
        self.octets -= octets.len();
        let level = if self.octets < LOW_WATER {
            Level::Ready
        } else {
            self.level
        };
        Some((octets, self.change(level)))
    }

    fn change(&mut self, level: Level) -> Option<Level> {
        (mem::replace(&mut self.level, level) != level).then_some(level)
    }

    pub(super) const fn queued(&self) -> usize {
        self.octets
    }
}

impl Fabric {
    /// What an established session says.
    pub(super) fn incoming(
        &mut self,
        now: Instant,
        id: StreamId,
        peer: &PeerConfig,
        session: &mut Session,
        negotiated: &Arc<Negotiated>,
        incoming: Incoming<'_>,
    ) -> Result<(), Notification> {
        match incoming {
            Incoming::Established => self.established(now, id, peer, session, negotiated),
            Incoming::Update(body) => {
                let index = session.index;
                let Some(index) = index.filter(|i| self.session_of(*i) == Some(id)) else {
                    return Ok(());
                };
                self.update(index, peer, session, negotiated, body)
            }
            Incoming::Refresh { family, kind } => {
                if let (Some(index), RefreshKind::Request) = (session.index, kind) {
                    self.shard.refresh(index, family);
                }
                Ok(())
            }
        }
    }

    fn established(
        &mut self,
        now: Instant,
        id: StreamId,
        peer: &PeerConfig,
        session: &mut Session,
        negotiated: &Arc<Negotiated>,
    ) -> Result<(), Notification> {
        let older = self.neighbors.get(&peer.id).and_then(|n| n.session);
        if older.is_some_and(|older| older > id) {
            // Two sessions came up in the wrong order: the newer stream stays.
            return Err(Notification::from(REPLACED));
        }
        if let Some(older) = older {
            let notification = Notification::from(REPLACED);
            self.down(now, peer.id, older, &Close::Sent(notification.clone()));
            self.close_stream(now, older, &notification);
        }
        let index = self.number(peer);
        self.shard.peer_up(index, peer.in_table(negotiated));
        session.index = Some(index);
        let at = usize::from(index.0);
        if self.sessions.len() <= at {
            self.sessions.resize(at + 1, None);
        }
        self.sessions[at] = Some(id);
        session.owes_end = negotiated.families.iter().copied().collect();
        let neighbor = Neighbor {
            index,
            config: peer.clone(),
            session: Some(id),
            synced: false,
            stale_until: self.neighbors.get(&peer.id).and_then(|n| n.stale_until),
            subscribe_by: negotiated
                .families
                .contains(&Family::RTC)
                .then_some(now + SUBSCRIBE),
        };
        self.neighbors.insert(peer.id, neighbor);
        self.wish(peer);
        self.events.push_back(Event::Up(peer.id));
        Ok(())
    }

    /// A neighbour's number in the table, which may be new.
    fn number(&mut self, peer: &PeerConfig) -> PeerIndex {
        if let Some(known) = self.neighbors.get(&peer.id) {
            return known.index;
        }
        let next = u16::try_from(self.neighbors.len() + 1).unwrap_or(u16::MAX);
        self.free.pop().unwrap_or(PeerIndex(next))
    }

    /// Ask for what such a neighbour can tell us.
    fn wish(&mut self, peer: &PeerConfig) {
        for key in peer.wishes() {
            if self.wishes.insert(key.clone()) {
                let own = own_attributes(self.config.node);
                self.shard.originate(Family::RTC, &key, &[], &own);
            }
        }
    }

    fn update(
        &mut self,
        index: PeerIndex,
        peer: &PeerConfig,
        session: &mut Session,
        negotiated: &Negotiated,
        body: &[u8],
    ) -> Result<(), Notification> {
        let mut scratch = mem::take(&mut self.scratch);
        let decoded = decode(body, &negotiated.context, &mut scratch, &mut self.findings);
        let result = match decoded {
            Ok(decoded) => {
                self.take(index, peer, session, &decoded);
                Ok(())
            }
            Err(UpdateError::Reset(notification)) => Err(notification),
            Err(UpdateError::DisableFamily(family, finding)) => {
                tracing::error!(
                    peer = %peer.id, %family, offset = finding.offset, reason = finding.what,
                    "routes cannot be told apart: the family is off until the session ends"
                );
                session.disabled.push(family);
                self.shard.forget(index, family);
                Ok(())
            }
        };
        self.scratch = scratch;
        if let Some(finding) = self.findings.last.take() {
            tracing::warn!(
                peer = %peer.id, offset = finding.offset, code = finding.code,
                reason = finding.what, "something in an UPDATE is wrong"
            );
        }
        result
    }

    fn take(
        &mut self,
        index: PeerIndex,
        peer: &PeerConfig,
        session: &Session,
        update: &Decoded<'_>,
    ) {
        let on = |section: &&_| -> bool {
            let section: &crate::wire::Section<'_> = section;
            !session.disabled.contains(&section.family)
        };
        for section in update.withdrawn.iter().flatten().filter(on) {
            self.shard.withdraw(index, section, |_| true);
        }
        for (section, attributes) in update.announced.iter().zip(update.attributes) {
            let Some(section) = section.as_ref().filter(on) else {
                continue;
            };
            match attributes {
                Some(attributes) => {
                    // What is wrong with it is counted.
                    let _ = self.shard.announce(index, section, attributes, |_| true);
                }
                None => self.shard.withdraw(index, section, |_| true),
            }
        }
        if let Some(family) = update.end_of_rib {
            self.shard.end_of_rib(index, family);
            let neighbor = self.neighbors.get_mut(&peer.id);
            match (neighbor, family) {
                (Some(neighbor), Family::MESH) => {
                    neighbor.synced = true;
                    neighbor.stale_until = None;
                    self.events.push_back(Event::Synced(peer.id));
                }
                (Some(neighbor), Family::RTC) => neighbor.subscribe_by = None,
                (Some(_) | None, _) => {}
            }
        }
    }
}
