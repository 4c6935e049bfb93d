//! The table for people: `get routes`, `get neighbors`.

use super::{
    NeighborView, PathView, PeerId, Rib, RouteView, Why, decide,
    entry::{Entry, Path},
};
use crate::Key;

impl Rib {
    /// Every neighbour, in order of their numbers.
    #[must_use]
    pub fn neighbors(&self) -> Vec<NeighborView> {
        let view = |peer: &super::Peer| NeighborView {
            config: peer.config.clone(),
            up: peer.up,
            synced: peer.synced,
            routes: peer.paths,
            waiting: peer.waiting,
            queued: peer.out.queue.len(),
            counters: peer.counters,
        };
        self.peers.values().map(view).collect()
    }

    /// One neighbour.
    #[must_use]
    pub fn neighbor(&self, id: PeerId) -> Option<NeighborView> {
        self.neighbors()
            .into_iter()
            .find(|view| view.config.id == id)
    }

    /// At most `limit` routes with all their paths, in order of their keys, from the first after
    /// `after`.
    #[must_use]
    pub fn routes(&self, after: Option<&Key>, limit: usize) -> Vec<RouteView> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        let known = self.entries.range((from, Unbounded));
        let known = known.filter(|(_, entry)| !entry.paths.is_empty());
        known
            .take(limit)
            .map(|(key, entry)| view(key, entry))
            .collect()
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
            .values()
            .filter(|entry| !entry.paths.is_empty())
            .count()
    }

    /// Is there no route at all?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many routes this node says itself.
    #[must_use]
    pub const fn originated(&self) -> usize {
        self.local
    }
}

fn view(key: &Key, entry: &Entry) -> RouteView {
    let path_view = |path: &Path| PathView {
        route: path.route(key),
        refusal: path.refusal,
    };
    let Some(best) = entry.best() else {
        return RouteView {
            key: key.clone(),
            paths: entry.paths.iter().map(path_view).collect(),
            why: None,
        };
    };
    let others: Vec<Path> = entry
        .paths
        .iter()
        .filter(|path| path.source != best.source)
        .cloned()
        .collect();
    let second = decide::best(key, &others);
    let why = second.map_or(Why::Only, |i| decide::compare(key, best, &others[i]).1);
    let mut paths = vec![path_view(best)];
    paths.extend(others.iter().map(path_view));
    RouteView {
        key: key.clone(),
        paths,
        why: Some(why),
    }
}
