//! What people see.

use std::{collections::BTreeMap, time::Duration};

use bgp::{
    table::{PeerIndex, RouteView, Shard, Sizes},
    wire::Family,
};

use super::{neighbor::Door, worker::Worker};
use crate::bfd::Status;

/// Which routes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteQuery {
    /// Of this family.
    pub family: Family,
    /// Only the one with this canonical key.
    pub key: Option<Vec<u8>>,
    /// The most of each thread.
    pub limit: usize,
}

/// Routes of one thread.
#[derive(Debug, Default)]
pub struct Routes {
    /// At most as many as were asked for.
    pub items: Vec<RouteView>,
    /// There are more.
    pub more: bool,
}

/// What one thread knows of neighbours.
#[derive(Debug, Default)]
pub struct NeighborView {
    /// Sessions that live there.
    pub sessions: Vec<SessionView>,
    /// Routes said and told, by neighbour and family, of that thread's shard.
    pub counts: BTreeMap<(PeerIndex, Family), (usize, usize)>,
    /// How much its shard holds.
    pub sizes: Sizes,
}

/// A session.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// Whose.
    pub peer: PeerIndex,
    /// Where its machine stands: `idle`, `connect`, `active`, `open-sent`, `open-confirm`,
    /// `established`.
    pub state: String,
    /// The neighbour's BGP Identifier, while established.
    pub node: Option<base::NodeId>,
    /// Families agreed on, while established.
    pub families: Vec<Family>,
    /// For how long it has been up or down.
    pub since: Duration,
    /// Why it ended last.
    pub last_close: Option<String>,
    /// How often it came up.
    pub established: u64,
    /// How the path to it is, if that is watched.
    pub bfd: Option<Status>,
}

impl SessionView {
    pub(super) const fn idle(peer: PeerIndex) -> Self {
        SessionView {
            peer,
            state: String::new(),
            node: None,
            families: Vec::new(),
            since: Duration::ZERO,
            last_close: None,
            established: 0,
            bfd: None,
        }
    }
}

pub(super) fn routes(shard: &Shard, query: &RouteQuery) -> Routes {
    let wanted = |key: &[u8]| query.key.as_deref().is_none_or(|wanted| wanted == key);
    let (items, next) = shard.routes(query.family, 0, query.limit, wanted);
    Routes {
        items,
        more: next.is_some(),
    }
}

pub(super) fn neighbors(worker: &Worker) -> NeighborView {
    let shard = worker.shard.borrow();
    let mut counts = BTreeMap::new();
    for (peer, families) in &worker.families {
        // Every shard has what there is of RT constraint.
        let once = |family: &&Family| **family != Family::RTC || worker.index == 0;
        for family in families.iter().filter(once) {
            let count = shard.counts(*peer, *family);
            if count != (0, 0) {
                counts.insert((*peer, *family), count);
            }
        }
    }
    let doors = worker.doors.borrow();
    NeighborView {
        sessions: doors.values().map(Door::view).collect(),
        counts,
        sizes: shard.sizes(),
    }
}
