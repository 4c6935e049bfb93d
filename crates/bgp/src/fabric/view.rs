//! The node's table and neighbours, for people.

use base::NodeId;

use super::{Fabric, PeerConfig, PeerId, Route, Source, route};
use crate::{
    Key, Refusal, table,
    table::{PeerIndex, Why},
    wire::Family,
};

/// A neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeighborView {
    /// Its configuration.
    pub config: PeerConfig,
    /// Is its session up?
    pub up: bool,
    /// Has it sent its whole table since?
    pub synced: bool,
    /// Routes kept from it.
    pub routes: usize,
    /// Routes it was told.
    pub told: usize,
    /// Octets on their way to it.
    pub queued: usize,
    /// Routes that came, refused ones included.
    pub received: u64,
    /// Of these, treated as withdrawn, by [`Refusal::index`].
    pub refused: [u64; Refusal::ALL.len()],
}

/// All paths of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// The key.
    pub key: Key,
    /// All paths, the best first.
    pub paths: Vec<Route>,
    /// Why the best is the best.
    pub why: Option<Why>,
}

impl Fabric {
    /// All neighbours that were ever up and are not removed.
    #[must_use]
    pub fn neighbors(&self) -> Vec<NeighborView> {
        let view = |neighbor: &super::Neighbor| {
            let (routes, told) = self.shard.counts(neighbor.index, Family::MESH);
            let (refused, received) = self.shard.judged(neighbor.index);
            let stream = neighbor.session.and_then(|id| self.streams.get(&id));
            NeighborView {
                config: neighbor.config.clone(),
                up: neighbor.session.is_some(),
                synced: neighbor.synced,
                routes,
                told,
                queued: stream.map_or(0, super::Stream::queued),
                received,
                refused,
            }
        };
        self.neighbors.values().map(view).collect()
    }

    /// At most `limit` MESH routes, in the order of their arrival.
    #[must_use]
    pub fn routes(&self, limit: usize) -> Vec<RouteView> {
        let (views, _) = self.shard.routes(Family::MESH, 0, limit, |_| true);
        let view = |view: table::RouteView| {
            let key = route::key(&view.key)?;
            let paths = view.paths.iter().filter_map(|path| self.route(&key, path));
            Some(RouteView {
                paths: paths.collect(),
                why: view.why,
                key,
            })
        };
        views.into_iter().filter_map(view).collect()
    }

    /// How many MESH routes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shard.len(Family::MESH)
    }

    /// Is there no route?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The best route of a key.
    #[must_use]
    pub fn best(&self, key: &Key) -> Option<Route> {
        let octets = route::octets(key);
        let view = self.shard.route(Family::MESH, &octets)?;
        view.paths.first().and_then(|path| self.route(key, path))
    }

    pub(super) fn route(&self, key: &Key, path: &table::PathView) -> Option<Route> {
        let (source, sender) = self.source(path.peer);
        Route::read(
            key,
            &path.value,
            &path.attributes,
            source,
            sender,
            path.stale,
        )
    }

    fn source(&self, index: PeerIndex) -> (Source, NodeId) {
        let mut all = self.neighbors.values();
        match all.find(|neighbor| neighbor.index == index) {
            Some(neighbor) => (Source::Peer(neighbor.config.id), neighbor.config.node),
            None => (Source::Local, self.config.node),
        }
    }
}

impl PeerId {
    /// Is it our own other half?
    #[must_use]
    pub const fn is_local(self) -> bool {
        self.0 == 0
    }
}
