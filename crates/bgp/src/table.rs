//! The table: all routes of all neighbours, of every family, as octets.
//!
//! A [`Shard`] owns its maps, so there is no lock; a speaker has one or several, each with the
//! routes whose keys fall to it ([`shard_of`]). What comes in is a validated
//! [`Section`] with canonical attributes; what goes out is whole messages
//! for a set of neighbours, encoded once for each update group.
//!
//! ```text
//! announce / withdraw → paths of a route → selection → queue of each group → poll → octets
//! ```
//!
//! Memory: attributes are kept once (by their octets), a route is its key and its paths in
//! place, a group adds eight octets a route. Queues hold numbers of routes, each at most once,
//! so they are bounded by the table, and the table by [`PeerFamily::max_routes`].

mod changes;
mod dest;
mod emit;
mod filter;
mod group;
mod hops;
mod index;
mod interest;
mod intern;
mod judge;
mod octets;
mod paths;
mod peers;
mod review;
mod select;
mod slab;
mod sweep;
mod view;
mod walk;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base::{Instant, NodeId};
use foldhash::quality::FixedState;
use hashbrown::HashTable;

use self::{
    changes::Changes,
    dest::Path,
    emit::Emit,
    group::{Group, GroupKey, Turn, World},
    hops::Recheck,
    index::{Table, Trail},
    interest::Interest,
    intern::{AttributesId, Interner},
    judge::Judging,
    peers::Peer,
    review::Review,
    slab::{Bits, Slab},
    sweep::{Fate, Sweep},
};
use crate::{
    Refusal, SiteTable, Trust,
    wire::{AttributesView, Family, Nlri, Section},
};

pub use emit::Sink;
pub use filter::Filter;
pub use peers::{
    Kind, NextHop, OwnAddresses, PeerConfig, PeerFamily, PeerIndex, PeerSet, RouteCount,
};
pub use select::Why;
pub use view::{PathView, RouteView, Sizes};

/// How a table is configured.
#[derive(Clone, Debug)]
pub struct ShardConfig {
    /// Our AS.
    pub asn: u32,
    /// Our BGP Identifier, which is our cluster id too.
    pub node: NodeId,
    /// Every family kept.
    pub families: Vec<Family>,
    /// Keeps strangers from choosing keys that collide.
    pub seed: u64,
    /// Tell nothing before [`Shard::begin_telling`]: we have restarted, and what neighbours kept of us is
    /// to stay until we know again what is so (RFC 4724 §4.1).
    pub deferred: bool,
    /// Keep [`Notice::TableSent`] back before [`Shard::release_ends`]: we have started a short
    /// while ago and may not know yet what we knew before.
    pub holds_ends: bool,
    /// Families of whose best routes the owner hears ([`Shard::poll_change`]).
    pub watched: Vec<Family>,
    /// Tell RT constraint routes. Every shard has to hear them, but one of them tells them.
    pub tells_constraint: bool,
}

/// Something the owner is to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// All octets of the whole table were handed out for a neighbour: End-of-RIB may follow.
    TableSent(PeerIndex, Family),
    /// A neighbour has more routes than it may.
    TooMany(PeerIndex, Family),
    /// A neighbour's routes that were refused may be let in now: ask for all of them again.
    AskAgain(PeerIndex, Family),
}

/// Is there more to do?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Not before something comes in.
    Idle,
    /// Yes: call again when what came in has been taken.
    More,
    /// Not before this, or until a neighbour is ready.
    Wait(Instant),
}

/// Why routes of an update were not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Our AS in AS_PATH, our ORIGINATOR_ID or our cluster: it went in a circle (RFC 4271
    /// §9.1.2, RFC 4456 §8).
    Loop,
    /// The neighbour is not up, or does not speak this family.
    Unknown,
}

/// So many sets of attributes without a use may wait for one.
const DEAD: usize = 256 * 1024;
/// Sets given back in one turn.
const BURIED: usize = 1024;
/// Nothing to do for so long is a quiet moment.
const QUIET: Duration = Duration::from_millis(10);
/// The machine: updates in, messages out.
#[derive(Debug)]
pub struct Shard {
    config: ShardConfig,
    tables: Vec<Table>,
    peers: Vec<Option<Peer>>,
    attributes: Interner,
    interest: Interest,
    hasher: FixedState,
    sweeps: VecDeque<Sweep>,
    review: Review,
    next_review: Review,
    site_table: Option<SiteTable>,
    judging: Option<Judging>,
    recheck: Option<Recheck>,
    notices: VecDeque<Notice>,
    /// Since nothing was done until then, it is quiet.
    quiet_at: Instant,
    /// Room for one message's places.
    found: Vec<(u32, u32)>,
    oversized: u64,
    told: u64,
}

/// Which of `shards` tables a key falls to: its octets without the RD, so that a route of a VRF
/// and its VPN copy are neighbours. RT constraint is kept by the first alone.
#[must_use]
pub fn shard_of(family: Family, key: &[u8], shards: usize) -> usize {
    if shards < 2 || family == Family::RTC {
        return 0;
    }
    let (head, rest) = match family.safi {
        128 => (key.get(..1), key.get(9..)),
        134 => (None, key.get(8..)),
        244 => (key.get(..1), key.get(9..)),
        _ => (None, Some(key)),
    };
    // FNV-1a: the same in every process, and good enough for a handful of shards.
    let octets = head.into_iter().chain(rest).flatten();
    let hash = octets.fold(0xCBF2_9CE4_8422_2325_u64, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01B3)
    });
    // Keys that follow each other differ in few bits: one more round spreads them.
    let hash = (hash ^ (hash >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    usize::try_from((hash >> 32) % shards as u64).unwrap_or(0)
}

impl Shard {
    /// An empty table.
    #[must_use]
    pub fn new(config: ShardConfig) -> Self {
        let tables = config.families.iter().map(|family| Table {
            family: *family,
            constrained: is_constrained(*family),
            dests: Slab::default(),
            index: HashTable::new(),
            tombs: Bits::default(),
            tomb: 0,
            groups: Vec::new(),
            watch: config.watched.contains(family).then(Changes::default),
        });
        Shard {
            tables: tables.collect(),
            // Place 0 is this speaker: no neighbour.
            peers: vec![None],
            attributes: Interner::new(config.seed),
            interest: Interest::new(),
            hasher: FixedState::with_seed(config.seed.rotate_left(32)),
            sweeps: VecDeque::new(),
            review: Review::default(),
            next_review: Review::default(),
            site_table: None,
            judging: None,
            recheck: None,
            notices: VecDeque::new(),
            quiet_at: Instant::ZERO,
            found: Vec::new(),
            oversized: 0,
            told: 0,
            config,
        }
    }

    /// A neighbour's session came up: it is told the whole table. Routes of an earlier session
    /// that were kept stay until it says them anew or [`Shard::end_of_rib`].
    pub fn peer_up(&mut self, index: PeerIndex, config: PeerConfig) {
        let at = usize::from(index.0);
        if at == 0 {
            return;
        }
        if self.peers.len() <= at {
            self.peers.resize_with(at + 1, || None);
        }
        let count = self.tables.len();
        let peer = self.peers[at].get_or_insert_with(|| Peer {
            config: config.clone(),
            up: false,
            epochs: vec![0; count],
            since: vec![0; count],
            aged: vec![false; count],
            ready: true,
            routes: vec![0; count],
            told_too_many: false,
            credit: vec![0; count],
            unsubscribed: false,
            held: Vec::new(),
            received: 0,
            refused: [0; Refusal::ALL.len()],
            dropped: vec![false; count],
        });
        if peer.config.trust != config.trust {
            self.judging = Some(Judging::default());
        }
        peer.config = config;
        peer.up = true;
        peer.since.clone_from(&peer.epochs);
        peer.ready = true;
        peer.told_too_many = false;
        peer.credit.fill(0);
        peer.unsubscribed = peer.config.constrained;
        peer.held.clear();
        self.interest.join(index, peer.config.constrained);
        let config = peer.config.clone();
        // What it asked for in a session before this one, if that was kept.
        if let Some(table) = self.tables.iter().find(|t| t.family == Family::RTC) {
            for place in 0..table.dests.end() {
                let dest = table.dests.get(place);
                if dest.paths().iter().any(|path| path.peer == index) {
                    self.interest.change(index, &dest.key, true);
                }
            }
        }
        for family in &config.families {
            if family.family == Family::RTC && !self.config.tells_constraint {
                continue;
            }
            let Some(table) = self.tables.iter_mut().find(|t| t.family == family.family) else {
                continue;
            };
            let key = GroupKey {
                kind: config.kind,
                max_message: config.max_message,
                four_octet_as: config.four_octet_as,
                add_path: family.add_path_send,
                next_hop: config.next_hop.clone(),
                knows_long_lived: config.knows_long_lived,
                own_wants: config.trust != Trust::Policy,
                export: config.export.clone(),
            };
            let end = table.dests.end();
            match table.groups.iter_mut().find(|group| group.key == key) {
                Some(group) => group.join(index, end),
                None => {
                    let mut group = Group::new(key);
                    group.join(index, end);
                    table.groups.push(group);
                }
            }
        }
    }

    /// A neighbour's session ended. Its routes go, but for the families in `keep`: these stay,
    /// stale. Those that were stale already go (RFC 4724 §4.2), unless they may become long-lived
    /// stale (RFC 9494 §4.2).
    pub fn peer_down(&mut self, index: PeerIndex, keep: &[Family]) {
        let Some(peer) = peer_mut(&mut self.peers, index).filter(|peer| peer.up) else {
            return;
        };
        peer.up = false;
        for epoch in &mut peer.epochs {
            *epoch += 1;
        }
        let epochs = peer.epochs.clone();
        let keeps_all = peer.config.trust != Trust::Policy;
        let long_lived = peer.config.long_lived.clone();
        self.interest.leave(index);
        for (at, epoch) in epochs.into_iter().enumerate() {
            let table = &mut self.tables[at];
            for group in &mut table.groups {
                group.leave(index);
            }
            let end = table.dests.end();
            let dissolved = table
                .groups
                .extract_if(.., |group| group.members.is_empty());
            let used: Vec<AttributesId> = dissolved.flat_map(|mut g| g.dissolve(end)).collect();
            for id in used {
                self.release(id);
            }
            let family = self.tables[at].family;
            let kept = keep.contains(&family);
            if let Some(peer) = peer_mut(&mut self.peers, index) {
                peer.aged[at] = kept;
            }
            let fate = if kept {
                let again = keeps_all || long_lived.contains(&family);
                Fate::Stale { again }
            } else {
                Fate::Gone
            };
            self.sweeps.push_back(Sweep::new(index, at, epoch, fate));
        }
    }

    /// The neighbour has sent its whole table, or what it was asked for again: what it did not
    /// say anew is gone (RFC 4724 §4.2, RFC 7313 §4).
    pub fn end_of_rib(&mut self, index: PeerIndex, family: Family) {
        let at = self.position(family);
        if let (Some(at), Some(peer)) = (at, peer_mut(&mut self.peers, index))
            && std::mem::take(&mut peer.aged[at])
        {
            let epoch = peer.epochs[at];
            self.sweeps
                .push_back(Sweep::new(index, at, epoch, Fate::Gone));
        }
        if family == Family::RTC {
            self.subscribed(index);
        }
    }

    /// The neighbour's stale routes have waited long enough for it: those that may become
    /// long-lived stale, behind all others and for those that know what that is; the rest goes
    /// (RFC 9494 §4.2).
    pub fn outlive(&mut self, index: PeerIndex, family: Family) {
        let at = self.position(family);
        if let (Some(at), Some(peer)) = (at, peer_mut(&mut self.peers, index))
            && peer.aged[at]
        {
            let epoch = peer.epochs[at];
            self.sweeps
                .push_back(Sweep::new(index, at, epoch, Fate::LongLived));
        }
    }

    /// Nothing the neighbour has said of this family counts any more (RFC 7606 §5.3, or a
    /// restart that took too long).
    pub fn forget(&mut self, index: PeerIndex, family: Family) {
        self.refresh_begins(index, family);
        self.end_of_rib(index, family);
    }

    /// The neighbour begins to say everything anew (RFC 7313 §4): what it says from now on counts.
    pub fn refresh_begins(&mut self, index: PeerIndex, family: Family) {
        let at = self.position(family);
        if let (Some(at), Some(peer)) = (at, peer_mut(&mut self.peers, index)) {
            peer.epochs[at] += 1;
            peer.aged[at] = true;
        }
    }

    /// The neighbour wants to hear everything again (RFC 2918); [`Notice::TableSent`] follows.
    pub fn refresh(&mut self, index: PeerIndex, family: Family) {
        let Some(at) = self.position(family) else {
            return;
        };
        let table = &mut self.tables[at];
        let end = table.dests.end();
        for group in &mut table.groups {
            if group.members.contains(index) {
                group.send_table(index, end, true);
            }
        }
    }

    /// Is the neighbour's queue of octets short? Bulk goes only to those that are ready.
    pub fn set_ready(&mut self, index: PeerIndex, ready: bool) {
        if let Some(peer) = peer_mut(&mut self.peers, index) {
            peer.ready = ready;
        }
    }

    /// The neighbour takes nothing: its queue of octets is as long as it may be. From now on it
    /// is owed what changes, one bit a route, until [`Shard::resume`].
    pub fn pause(&mut self, index: PeerIndex) {
        self.set_ready(index, false);
        for group in self.tables.iter_mut().flat_map(|t| &mut t.groups) {
            group.set_aside(index);
        }
    }

    /// The neighbour takes octets again.
    pub fn resume(&mut self, index: PeerIndex) {
        self.set_ready(index, true);
        for group in self.tables.iter_mut().flat_map(|t| &mut t.groups) {
            group.take_back(index);
        }
    }

    /// Routes of a neighbour, all under these canonical attributes; of them the ones for which
    /// `mine` holds ([`shard_of`]).
    ///
    /// # Errors
    /// None of them was taken, and what the neighbour said of them before is gone.
    pub fn announce(
        &mut self,
        index: PeerIndex,
        section: &Section<'_>,
        attributes: &[u8],
        mine: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Ignored> {
        let Some(at) = self.position(section.family) else {
            return Err(Ignored::Unknown);
        };
        let Some(peer) = peer_mut(&mut self.peers, index).filter(|peer| peer.up) else {
            return Err(Ignored::Unknown);
        };
        if !peer.speaks(section.family) {
            return Err(Ignored::Unknown);
        }
        let trust = peer.config.trust;
        if trust != Trust::Local && went_in_a_circle(&self.config, AttributesView(attributes)) {
            section.for_each(true, |_| peer.refuse(at, Refusal::Loop));
            self.withdraw(index, section, mine);
            return Err(Ignored::Loop);
        }
        if trust.is_judged() {
            self.import_judged(at, index, section, attributes, mine);
        } else {
            self.import(at, index, section, attributes, mine);
        }
        Ok(())
    }

    /// Routes of a neighbour that are no more; the section may have the form of an announcement
    /// (RFC 7606's treat-as-withdraw).
    pub fn withdraw(
        &mut self,
        index: PeerIndex,
        section: &Section<'_>,
        mine: impl Fn(&[u8]) -> bool,
    ) {
        let Some(at) = self.position(section.family) else {
            return;
        };
        // All places first: these look-ups do not wait for each other, so their cache misses
        // overlap.
        let mut found = std::mem::take(&mut self.found);
        let table = &self.tables[at];
        let mut trail = Trail::default();
        section.for_each(false, |nlri| {
            if mine(nlri.key)
                && let Some(place) = table.find_along(&mut trail, nlri.key, &self.hasher)
            {
                found.push((place, nlri.path_id));
            }
        });
        for (place, path_id) in found.drain(..) {
            let dest = self.tables[at].dests.get(place);
            if let Some(position) = dest.position(index, path_id) {
                self.drop_path(at, place, position);
            }
        }
        self.found = found;
    }

    /// Say a route ourselves, or say it anew.
    pub fn originate(&mut self, family: Family, key: &[u8], value: &[u8], attributes: &[u8]) {
        let Some(at) = self.position(family) else {
            return;
        };
        let id = self.acquire(attributes);
        let nlri = Nlri {
            path_id: 0,
            key,
            value,
        };
        self.put(at, PeerIndex::LOCAL, &nlri, id);
        self.release(id);
    }

    /// Take back what we said.
    pub fn retract(&mut self, family: Family, key: &[u8]) {
        if let Some(at) = self.position(family) {
            self.take(at, PeerIndex::LOCAL, key, 0);
        }
    }

    /// Tell what is so from now on, if that was deferred.
    pub const fn begin_telling(&mut self) {
        self.config.deferred = false;
    }

    /// What was told is the whole table from now on.
    pub fn release_ends(&mut self) {
        if std::mem::take(&mut self.config.holds_ends) {
            for index in 1..self.peers.len() {
                self.end_held(PeerIndex(u16::try_from(index).unwrap_or(u16::MAX)));
            }
        }
    }

    /// The next best route that changed, of a watched family; one that changed twice comes once,
    /// and one that is gone or not to be chosen first.
    pub fn poll_change(&mut self) -> Option<RouteView> {
        for at in 0..self.tables.len() {
            let table = &mut self.tables[at];
            let Some(place) = table.watch.as_mut().and_then(Changes::pop) else {
                continue;
            };
            if table.dests.get(place).best().is_none() {
                table.tombs.insert(place);
            }
            return Some(self.route_at(at, place));
        }
        None
    }

    /// Something to know.
    pub fn poll_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Do a bounded part of what is to do; octets go into `sink`.
    pub fn poll(&mut self, now: Instant, sink: &mut Sink<'_>) -> Poll {
        let mut poll = Poll::Idle;
        if self.sweep() | self.judge() | self.review() | self.recheck() {
            poll = Poll::More;
        }
        let mut emit = Emit::new(sink);
        let mut loose = Vec::new();
        let telling = if self.config.deferred {
            0
        } else {
            self.tables.len()
        };
        for at in 0..telling {
            let table = &mut self.tables[at];
            let mut groups = std::mem::take(&mut table.groups);
            for group in &mut groups {
                let mut ended = PeerSet::default();
                let mut world = World {
                    family: table.family,
                    tells_source: table.family == Family::RTC && group.key.kind == Kind::Client,
                    constrained: table.constrained,
                    dests: &table.dests,
                    attributes: &mut self.attributes,
                    interest: &mut self.interest,
                    peers: &self.peers,
                    asn: self.config.asn,
                    node: self.config.node,
                };
                let turn = group.turn(now, &mut world, &mut emit, &mut loose, &mut ended);
                poll = poll.and(turn);
                let (family, constrained) = (table.family, table.constrained);
                for index in ended.iter() {
                    let Some(peer) = peer_mut(&mut self.peers, index) else {
                        continue;
                    };
                    if self.config.holds_ends || constrained && peer.unsubscribed {
                        peer.held.push(at);
                    } else {
                        self.notices.push_back(Notice::TableSent(index, family));
                    }
                }
            }
            table.groups = groups;
            for place in loose.drain(..) {
                // One that is free already has no key.
                if !table.dests.get(place).key.is_empty() {
                    table.tombs.insert(place);
                }
            }
        }
        poll = self.clear_tombs(now, poll);
        self.oversized += emit.oversized;
        self.told += emit.routes;
        poll
    }

    /// What is gone is told first; its places are given back when it has been quiet for a while,
    /// or when there are too many of them.
    fn clear_tombs(&mut self, now: Instant, poll: Poll) -> Poll {
        if poll == Poll::More {
            self.quiet_at = now + QUIET;
        }
        let quiet = poll != Poll::More && now >= self.quiet_at;
        let (mut cleared, mut waits) = (false, false);
        for table in &mut self.tables {
            if quiet || table.is_crowded() {
                cleared |= table.clear_tombs(&self.hasher);
            } else {
                waits |= !table.tombs.is_empty();
            }
        }
        let dead = self.attributes.dead();
        if dead > 0 && (quiet || dead > DEAD) {
            let interest = &mut self.interest;
            self.attributes
                .bury(BURIED, |targets| interest.release(targets));
            cleared = true;
        } else {
            waits |= dead > 0;
        }
        match poll {
            Poll::Idle | Poll::Wait(_) if cleared => Poll::More,
            Poll::Idle if waits => Poll::Wait(self.quiet_at),
            Poll::Wait(until) if waits => Poll::Wait(until.min(self.quiet_at)),
            Poll::Idle | Poll::Wait(_) | Poll::More => poll,
        }
    }

    fn position(&self, family: Family) -> Option<usize> {
        self.tables.iter().position(|table| table.family == family)
    }

    fn release(&mut self, id: AttributesId) {
        self.attributes.release(id);
    }
}

impl Poll {
    fn and(self, turn: Turn) -> Poll {
        match (self, turn) {
            (Poll::More, _) | (_, Turn::More) => Poll::More,
            (Poll::Idle, Turn::Wait(at)) => Poll::Wait(at),
            (Poll::Wait(a), Turn::Wait(b)) => Poll::Wait(a.min(b)),
            (poll, Turn::Idle) => poll,
        }
    }
}

fn peer_mut(peers: &mut [Option<Peer>], index: PeerIndex) -> Option<&mut Peer> {
    peers.get_mut(usize::from(index.0)).and_then(Option::as_mut)
}

fn peer_ref(peers: &[Option<Peer>], index: PeerIndex) -> Option<&Peer> {
    peers.get(usize::from(index.0)).and_then(Option::as_ref)
}

/// Families whose routes carry route targets and are told to those that want them.
const fn is_constrained(family: Family) -> bool {
    matches!(family.safi, 128 | 134 | 244)
}

fn went_in_a_circle(config: &ShardConfig, attributes: AttributesView<'_>) -> bool {
    let own = config.node.0.to_be_bytes();
    let (clusters, _) = attributes.cluster_list().as_chunks::<4>();
    attributes.originator() == Some(config.node)
        || clusters.contains(&own)
        || attributes.as_path().contains(config.asn)
}

/// One filter for all that take or tell everything.
#[must_use]
pub fn accept() -> Arc<Filter> {
    Arc::new(Filter::Accept)
}
