//! The table, for people.

use super::{PeerIndex, Shard, Why, dest::Path, peer_ref, select::Selection};
use crate::wire::Family;

/// All paths of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// Its family.
    pub family: Family,
    /// Its key.
    pub key: Vec<u8>,
    /// All paths, the best one first.
    pub paths: Vec<PathView>,
    /// Why it is the best one.
    pub why: Option<Why>,
}

/// A path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// Who says it.
    pub peer: PeerIndex,
    /// Its path id; 0 without (RFC 7911).
    pub path_id: u32,
    /// Labels, or the state of a MESH route.
    pub value: Vec<u8>,
    /// Canonical attributes, for [`crate::wire::AttributesView`].
    pub attributes: Vec<u8>,
    /// Its neighbour's session is down and nobody has said it anew.
    pub stale: bool,
    /// Its next hop can be reached, or is not tracked.
    pub reachable: bool,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Routes, all families.
    pub routes: usize,
    /// Sets of attributes.
    pub attributes: usize,
    /// Changes waiting to be told, all groups.
    pub pending: usize,
    /// Routes told or withdrawn so far, each once a group.
    pub told: u64,
    /// Routes not told because their attributes leave no room in a message.
    pub oversized: u64,
}

impl Shard {
    /// Routes of a family whose keys pass `wanted`, from place `from` on, at most `limit`, and
    /// where to go on. The order is that of arrival.
    pub fn routes(
        &self,
        family: Family,
        from: u32,
        limit: usize,
        wanted: impl Fn(&[u8]) -> bool,
    ) -> (Vec<RouteView>, Option<u32>) {
        let mut routes = Vec::new();
        let Some(at) = self.position(family) else {
            return (routes, None);
        };
        let table = &self.tables[at];
        for place in from..table.dests.end() {
            let dest = table.dests.get(place);
            if dest.best().is_none() || !wanted(&dest.key) {
                continue;
            }
            if routes.len() == limit {
                return (routes, Some(place));
            }
            routes.push(self.route_at(at, place));
        }
        (routes, None)
    }

    pub(super) fn route_at(&self, at: usize, place: u32) -> RouteView {
        let table = &self.tables[at];
        let dest = table.dests.get(place);
        let selection = Selection {
            family: table.family,
            peers: &self.peers,
            attributes: &self.attributes,
            node: self.config.node,
        };
        RouteView {
            family: table.family,
            key: dest.key.to_vec(),
            paths: dest
                .paths()
                .iter()
                .map(|path| self.view(table.family, path))
                .collect(),
            why: selection.why(dest),
        }
    }

    /// The route of a key.
    #[must_use]
    pub fn route(&self, family: Family, key: &[u8]) -> Option<RouteView> {
        let at = self.position(family)?;
        let place = self.tables[at].find(key, &self.hasher)?;
        let view = self.route_at(at, place);
        (!view.paths.is_empty()).then_some(view)
    }

    /// How many routes of a family there are.
    #[must_use]
    pub fn len(&self, family: Family) -> usize {
        let table = self.position(family).map(|at| &self.tables[at]);
        table.map_or(0, |table| {
            table.dests.len().saturating_sub(table.tombs.len())
        })
    }

    fn view(&self, family: Family, path: &Path) -> PathView {
        let hop = self.attributes.facts(path.attributes).hop;
        PathView {
            peer: path.peer,
            path_id: path.path_id,
            value: path.value.to_vec(),
            attributes: self.attributes.octets(path.attributes).to_vec(),
            stale: path.stale,
            reachable: self.attributes.hops.is_reachable(family, hop),
        }
    }

    /// Routes of a family that a neighbour said, and that it was told.
    #[must_use]
    pub fn counts(&self, index: PeerIndex, family: Family) -> (usize, usize) {
        let Some(at) = self.position(family) else {
            return (0, 0);
        };
        let said = peer_ref(&self.peers, index).map_or(0, |peer| peer.routes[at] as usize);
        let table = &self.tables[at];
        let group = table.groups.iter().find(|g| g.members.contains(index));
        let told = group.map_or(0, |group| {
            let heard = |source: PeerIndex, targets| {
                source != index && (!table.constrained || self.interest.of(targets).contains(index))
            };
            let one = |place: &u32| {
                let told = group.told.get(*place);
                let targets = self.attributes.facts(told.attributes).targets;
                told.attributes.0 != 0 && heard(told.source, targets)
            };
            let added = group.added.values().flatten();
            let places = 0..table.dests.end();
            places.filter(one).count() + added.filter(|a| a.told.source != index).count()
        });
        (said, told)
    }

    /// How much there is of everything.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let groups = self.tables.iter().flat_map(|table| &table.groups);
        Sizes {
            routes: self
                .tables
                .iter()
                .map(|t| t.dests.len().saturating_sub(t.tombs.len()))
                .sum(),
            attributes: self.attributes.len(),
            pending: groups.map(|group| group.changes.len()).sum(),
            told: self.told,
            oversized: self.oversized,
        }
    }
}
