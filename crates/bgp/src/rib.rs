//! All routes of all neighbours: the decision, reflection, and what each neighbour is still to
//! be told. One shard; it owns its maps, so there is no lock.

mod decide;
mod entry;
mod outgoing;
mod queue;
mod types;
mod view;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use base::Instant;

use self::{
    entry::{Entry, Path},
    outgoing::Outgoing,
    queue::{KeyQueue, Lane},
};
use crate::{Attributes, Key, Refusal, SiteTable, State, Trust, Value, wire::Update};

pub use decide::Why;
pub use types::{
    Change, LocalRoute, NeighborView, PathView, PeerConfig, PeerCounters, PeerId, RibConfig, Role,
    Route, RouteView, Source,
};

/// Where paths of a neighbour stand.
#[derive(Debug)]
struct Peer {
    config: PeerConfig,
    up: bool,
    /// Since its session came up: has it sent its whole table?
    synced: bool,
    /// Paths of it, refused ones included.
    paths: usize,
    /// Of these, kept only because another site table may let them in.
    waiting: usize,
    /// A waiting route was dropped for lack of room: ask for the table again with the next one.
    dropped: bool,
    refresh: bool,
    out: Outgoing,
    counters: PeerCounters,
    /// Its bit in [`Entry::told`].
    bit: usize,
}

/// The machine: updates in, changes and UPDATEs out.
///
/// Memory is bounded by the table: at most [`PeerConfig::max_routes`] paths a neighbour, and for
/// each neighbour a queue of keys in which every key is at most once.
#[derive(Debug)]
pub struct Rib {
    config: RibConfig,
    started: Instant,
    table: Option<SiteTable>,
    entries: BTreeMap<Key, Entry>,
    peers: BTreeMap<PeerId, Peer>,
    attributes: BTreeSet<Arc<Attributes>>,
    /// Sweep `attributes` when it has grown to this.
    sweep_at: usize,
    changes: KeyQueue,
    local: usize,
    /// No stale route is too old before this.
    stale_at: Option<Instant>,
}

impl Rib {
    /// An empty table that starts at `now`.
    #[must_use]
    pub fn new(config: RibConfig, now: Instant) -> Self {
        Rib {
            config,
            started: now,
            table: None,
            entries: BTreeMap::new(),
            peers: BTreeMap::new(),
            attributes: BTreeSet::new(),
            sweep_at: 1024,
            changes: KeyQueue::default(),
            local: 0,
            stale_at: None,
        }
    }

    /// How it is configured.
    #[must_use]
    pub const fn config(&self) -> &RibConfig {
        &self.config
    }

    /// A neighbour's session came up. Its queue starts with the whole table; stale routes of an
    /// earlier session stay until it refreshes them or says End-of-RIB.
    pub fn peer_up(&mut self, now: Instant, config: PeerConfig) {
        let id = config.id;
        if self.peers.get(&id).is_some_and(|peer| peer.up) {
            self.peer_down(now, id);
        }
        let bit = match self.peers.get(&id) {
            Some(peer) => peer.bit,
            None => self.free_bit(),
        };
        let policy_changed = self.peers.get(&id).is_some_and(|p| p.config != config);
        let peer = self
            .peers
            .entry(id)
            .or_insert_with(|| Peer::new(config.clone(), bit));
        peer.config = config;
        peer.up = true;
        peer.synced = false;
        peer.refresh = false;
        peer.out = Outgoing::default();
        if policy_changed {
            self.rejudge(Some(id));
        }
        self.queue_table(id);
    }

    /// A neighbour's session went down: its routes become stale and stay, below fresh ones, for
    /// [`RibConfig::stale_time`].
    pub fn peer_down(&mut self, now: Instant, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.up = false;
        peer.synced = false;
        peer.out = Outgoing::default();
        let bit = peer.bit;
        let until = now + self.config.stale_time;
        let concerned =
            |entry: &Entry| entry.told.contains(bit) || entry.path(Source::Peer(id)).is_some();
        let all = self.entries.iter();
        let keys: Vec<Key> = all
            .filter(|(_, e)| concerned(e))
            .map(|(k, _)| k.clone())
            .collect();
        for key in keys {
            self.with_entry(&key, |entry| {
                entry.told.remove(bit);
                if let Some(path) = entry.path_mut(Source::Peer(id)) {
                    path.stale_since.get_or_insert(now);
                }
            });
        }
        self.stale_at = Some(self.stale_at.map_or(until, |at| at.min(until)));
    }

    /// Forget a neighbour and all its routes.
    pub fn remove_peer(&mut self, id: PeerId) {
        self.withdraw_where(id, |_| true);
        if let Some(peer) = self.peers.remove(&id) {
            for entry in self.entries.values_mut() {
                entry.told.remove(peer.bit);
            }
            self.entries.retain(|_, entry| !entry.is_empty());
        }
    }

    /// Routes came from a neighbour whose session is up.
    pub fn handle_update(&mut self, id: PeerId, update: Update) {
        if !self.peers.get(&id).is_some_and(|peer| peer.up) {
            return;
        }
        for key in &update.withdrawn {
            self.remove_path(key, Source::Peer(id));
        }
        let Some(attributes) = update.attributes else {
            return;
        };
        let attributes = self.intern(attributes);
        for (key, value) in update.announced {
            self.learn(id, &key, value, &attributes);
        }
    }

    /// The neighbour has sent its whole table: what it did not refresh is gone.
    pub fn handle_end_of_rib(&mut self, id: PeerId) {
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.up
        {
            peer.synced = true;
            self.withdraw_where(id, |path| path.stale_since.is_some());
        }
    }

    /// The neighbour's routes cannot be told apart any more: all of them are void.
    pub fn handle_family_disabled(&mut self, id: PeerId) {
        self.withdraw_where(id, |_| true);
    }

    /// The neighbour wants the whole table again (RFC 2918).
    pub fn handle_refresh(&mut self, id: PeerId) {
        self.queue_table(id);
    }

    /// Say something ourselves, or say it anew. Its next hop is this node.
    pub fn originate(&mut self, route: LocalRoute) {
        let own = Attributes::local(self.config.node, route.route_targets, route.extra);
        let attributes = self.intern(Arc::new(own));
        let path = Path {
            source: Source::Local,
            originator: self.config.node,
            attributes,
            value: route.value,
            stale_since: None,
            refusal: None,
        };
        let mut fresh = false;
        self.with_entry(&route.key, |entry| fresh = entry.put(path).is_none());
        self.local += usize::from(fresh);
    }

    /// Take back what [`Rib::originate`] said: it exists no more.
    pub fn withdraw(&mut self, key: &Key) {
        self.remove_path(key, Source::Local);
    }

    /// The site table arrived or changed: every route is judged again.
    pub fn set_site_table(&mut self, table: SiteTable) {
        if self.table.as_ref() == Some(&table) {
            return;
        }
        self.table = Some(table);
        self.rejudge(None);
        for peer in self.peers.values_mut() {
            peer.refresh |= std::mem::take(&mut peer.dropped) && peer.up;
        }
    }

    /// Time has come to [`Rib::poll_timeout`]: stale routes may have lived too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.stale_at.is_some_and(|at| now >= at) {
            let stale_time = self.config.stale_time;
            let old = |p: &Path| p.stale_since.is_some_and(|since| now >= since + stale_time);
            for id in self.peers.keys().copied().collect::<Vec<_>>() {
                self.withdraw_where(id, old);
            }
            let paths = self.entries.values().flat_map(|entry| &entry.paths);
            let oldest = paths.filter_map(|p| p.stale_since).min();
            self.stale_at = oldest.map(|since| since + stale_time);
        }
    }

    /// When to call [`Rib::handle_timeout`] and to look for UPDATEs again.
    #[must_use]
    pub fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let end_of_rib_at = self.started + self.config.end_of_rib_delay;
        let waiting = self
            .peers
            .values()
            .any(|peer| peer.up && peer.out.owes_end_of_rib());
        let end_of_rib = (waiting && now < end_of_rib_at).then_some(end_of_rib_at);
        [self.stale_at, end_of_rib].into_iter().flatten().min()
    }

    /// The next change of a best route; for a key that changed twice only the last. A change for
    /// the worse comes first.
    pub fn poll_change(&mut self) -> Option<Change> {
        let (key, _) = self.changes.pop()?;
        let best = self.best(&key);
        Some(Change { key, best })
    }

    /// Is there a change to poll?
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The best route of `key`.
    #[must_use]
    pub fn best(&self, key: &Key) -> Option<Route> {
        let best = self.entries.get(key)?.best()?;
        Some(best.route(key))
    }

    /// Is the neighbour to be asked for its whole table? True once.
    pub fn poll_refresh(&mut self, id: PeerId) -> bool {
        self.peers
            .get_mut(&id)
            .is_some_and(|peer| std::mem::take(&mut peer.refresh))
    }

    fn learn(&mut self, id: PeerId, key: &Key, value: Value, a: &Arc<Attributes>) {
        let source = Source::Peer(id);
        let exists = self.entries.get(key).and_then(|entry| entry.path(source));
        let was_waiting = exists.is_some_and(|path| path.refusal.is_some());
        let exists = exists.is_some();
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.counters.received += 1;
        let mut verdict = judge(&self.config, &peer.config, key, a, self.table.as_ref());
        if verdict.is_ok() && !exists && peer.paths >= peer.config.max_routes {
            verdict = Err(Refusal::Limit);
        }
        if let Err(refusal) = verdict {
            peer.counters.refused[refusal.index()] += 1;
            let room = was_waiting
                || (peer.waiting < peer.config.max_waiting
                    && (exists || peer.paths < peer.config.max_routes));
            peer.dropped |= refusal.may_change() && !room;
            if !refusal.may_change() || !room {
                self.remove_path(key, source);
                return;
            }
        }
        let path = Path {
            source,
            originator: a.originator.unwrap_or(peer.config.node),
            attributes: a.clone(),
            value,
            stale_since: None,
            refusal: verdict.err(),
        };
        peer.paths += usize::from(!exists);
        peer.waiting += usize::from(path.refusal.is_some());
        peer.waiting -= usize::from(was_waiting);
        self.with_entry(key, |entry| drop(entry.put(path)));
    }

    fn rejudge(&mut self, only: Option<PeerId>) {
        for key in self.keys() {
            let Some(mut entry) = self.entries.remove(&key) else {
                continue;
            };
            let before = entry.best().map(Path::fingerprint);
            for path in &mut entry.paths {
                let Source::Peer(id) = path.source else {
                    continue;
                };
                let Some(peer) = self.peers.get_mut(&id) else {
                    continue;
                };
                if only.is_some_and(|only| only != id) {
                    continue;
                }
                let table = self.table.as_ref();
                let verdict = judge(&self.config, &peer.config, &key, &path.attributes, table);
                peer.waiting -= usize::from(path.refusal.is_some());
                path.refusal = verdict.err();
                peer.waiting += usize::from(path.refusal.is_some());
            }
            self.settle(&key, entry, before);
        }
    }

    fn withdraw_where(&mut self, id: PeerId, when: impl Fn(&Path) -> bool) {
        let hit = |entry: &Entry| entry.path(Source::Peer(id)).is_some_and(&when);
        let all = self.entries.iter();
        let keys: Vec<Key> = all
            .filter(|(_, e)| hit(e))
            .map(|(k, _)| k.clone())
            .collect();
        for key in keys {
            self.remove_path(&key, Source::Peer(id));
        }
    }

    fn remove_path(&mut self, key: &Key, source: Source) {
        if !self.entries.contains_key(key) {
            return;
        }
        let mut removed = None;
        self.with_entry(key, |entry| removed = entry.take(source));
        let Some(path) = removed else {
            return;
        };
        match source {
            Source::Local => self.local -= 1,
            Source::Peer(id) => {
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.paths -= 1;
                    peer.waiting -= usize::from(path.refusal.is_some());
                }
            }
        }
    }

    /// Change an entry; what follows from it (decision, queues) is done here and nowhere else.
    fn with_entry(&mut self, key: &Key, change: impl FnOnce(&mut Entry)) {
        let mut entry = self.entries.remove(key).unwrap_or_default();
        let before = entry.best().map(Path::fingerprint);
        change(&mut entry);
        self.settle(key, entry, before);
    }

    fn settle(&mut self, key: &Key, mut entry: Entry, before: Option<entry::Fingerprint>) {
        entry.decide(key);
        let after = entry.best().map(Path::fingerprint);
        if after != before {
            let lane = lane_of(key, entry.best());
            self.changes.push(key, lane);
            // Staleness is our own knowledge; a neighbour's copy has not changed by it.
            let only_stale = match (&before, &after) {
                (Some(before), Some(after)) => before.same_on_the_wire(after),
                (None, _) | (_, None) => false,
            };
            for peer in self
                .peers
                .values_mut()
                .filter(|peer| peer.up && !only_stale)
            {
                let told = entry.told.contains(peer.bit);
                if told || entry.best().is_some_and(|path| peer.may_hear(key, path)) {
                    peer.out.queue.push(key, lane);
                }
            }
        }
        if !entry.is_empty() {
            self.entries.insert(key.clone(), entry);
        }
    }

    fn queue_table(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        for (key, entry) in &self.entries {
            if entry.best().is_some_and(|path| peer.may_hear(key, path)) {
                peer.out.queue.push(key, Lane::Bulk);
            }
        }
        peer.out.begin_table();
    }

    fn keys(&self) -> Vec<Key> {
        self.entries.keys().cloned().collect()
    }

    fn free_bit(&self) -> usize {
        let used: BTreeSet<usize> = self.peers.values().map(|peer| peer.bit).collect();
        (0..).find(|bit| !used.contains(bit)).unwrap_or(used.len())
    }

    fn intern(&mut self, attributes: Arc<Attributes>) -> Arc<Attributes> {
        if let Some(known) = self.attributes.get(&attributes) {
            return known.clone();
        }
        if self.attributes.len() >= self.sweep_at {
            self.attributes.retain(|set| Arc::strong_count(set) > 1);
            self.sweep_at = (self.attributes.len() * 2).max(1024);
        }
        self.attributes.insert(attributes.clone());
        attributes
    }
}

impl Peer {
    fn new(config: PeerConfig, bit: usize) -> Self {
        Peer {
            config,
            up: false,
            synced: false,
            paths: 0,
            waiting: 0,
            dropped: false,
            refresh: false,
            out: Outgoing::default(),
            counters: PeerCounters::default(),
            bit,
        }
    }
}

/// Loops first (RFC 4456 §8), then authority. Between the two halves of one node nothing loops:
/// they share a node id and never give a route back.
fn judge(
    config: &RibConfig,
    peer: &PeerConfig,
    key: &Key,
    attributes: &Attributes,
    table: Option<&SiteTable>,
) -> Result<(), Refusal> {
    if peer.trust != Trust::Local
        && (attributes.originator == Some(config.node)
            || attributes.clusters.contains(&config.node)
            || attributes.passed_through(config.asn))
    {
        return Err(Refusal::Loop);
    }
    peer.trust.judge(peer.node, key, attributes, table)
}

/// A route that is gone or may not be chosen overtakes all others.
fn lane_of(key: &Key, best: Option<&Path>) -> Lane {
    let Some(path) = best else {
        return Lane::Down;
    };
    match (key, path.value.state()) {
        (Key::Unknown { .. }, _) => Lane::Live,
        (_, Some(State::Healthy | State::Degraded | State::Unknown)) => Lane::Live,
        (_, Some(State::Draining | State::Maintenance | State::Unhealthy | State::Withdrawn)) => {
            Lane::Down
        }
        (_, None) => Lane::Live,
    }
}

/// How long a stale route lives where nobody says otherwise.
const STALE_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
