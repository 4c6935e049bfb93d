//! What goes into the table and what comes out.

use std::{fmt, sync::Arc, time::Duration};

use base::{NodeId, SiteId, TenantId};

use super::{STALE_TIME, Why};
use crate::{
    Attributes, Export, Key, RawAttribute, Refusal, RouteTarget, Trust, Value, wire::Family,
};

/// A neighbour's number in this node; the lower wins the last tie-break. The shell chooses it;
/// the neighbour's node id will do, and 0 for our own other half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

/// What a neighbour is to us in the one AS (RFC 4456 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We reflect everything to it and what it says to everybody.
    Client,
    /// Gets our own routes and our clients'.
    NonClient,
    /// The other half of this node: gets everything, and what it says is our own.
    Local,
}

/// The table's configuration.
#[derive(Clone, Debug)]
pub struct RibConfig {
    /// This node's id: originator of local routes, next hop, and cluster id.
    pub node: NodeId,
    /// Our AS.
    pub asn: u32,
    /// The family of the routes.
    pub family: Family,
    /// How long routes stay after their neighbour's session ended; 7 days.
    pub stale_time: Duration,
    /// No End-of-RIB before this long after start, nor before the site table is known: until then
    /// we may not know yet what we knew before a restart. 10 s.
    pub end_of_rib_delay: Duration,
}

impl RibConfig {
    /// The defaults.
    #[must_use]
    pub const fn new(node: NodeId, asn: u32) -> Self {
        RibConfig {
            node,
            asn,
            family: Family::MESH,
            stale_time: STALE_TIME,
            end_of_rib_delay: Duration::from_secs(10),
        }
    }
}

/// A neighbour's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its number here.
    pub id: PeerId,
    /// Its node id.
    pub node: NodeId,
    /// What it is to us.
    pub role: Role,
    /// How far its word is taken.
    pub trust: Trust,
    /// What it may hear.
    pub export: Export,
    /// The most routes kept from it.
    pub max_routes: usize,
    /// Of these, the most kept only because another site table may let them in.
    pub max_waiting: usize,
}

impl PeerConfig {
    const fn base(node: NodeId, role: Role, trust: Trust, export: Export) -> Self {
        PeerConfig {
            id: PeerId(node.0),
            node,
            role,
            trust,
            export,
            max_routes: 1_000_000,
            max_waiting: 65_536,
        }
    }

    /// A gateway's node, as a `PoP` sees it: a client that speaks for `site` only and hears its
    /// own tenant only.
    #[must_use]
    pub const fn gateway(node: NodeId, site: SiteId, tenant: TenantId) -> Self {
        let mut config = Self::base(
            node,
            Role::Client,
            Trust::Gateway { site },
            Export::Tenant(tenant),
        );
        config.max_routes = 100_000;
        config
    }

    /// A `PoP` as another `PoP` sees it.
    #[must_use]
    pub const fn pop(node: NodeId) -> Self {
        Self::base(
            node,
            Role::NonClient,
            Trust::Pop { only: None },
            Export::All,
        )
    }

    /// A `PoP` as a gateway of `tenant` sees it.
    #[must_use]
    pub const fn reflector(node: NodeId, tenant: TenantId) -> Self {
        Self::base(
            node,
            Role::NonClient,
            Trust::Pop { only: Some(tenant) },
            Export::All,
        )
    }

    /// The other half of this node; neighbour number 0.
    #[must_use]
    pub const fn local(node: NodeId) -> Self {
        let mut config = Self::base(node, Role::Local, Trust::Local, Export::All);
        config.id = PeerId(0);
        config
    }
}

/// A route this node says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    /// What it is about.
    pub key: Key,
    /// What it says.
    pub value: Value,
    /// Who may hear it.
    pub route_targets: Vec<RouteTarget>,
    /// Attributes passed on unread, such as [`RawAttribute::facts`].
    pub extra: Vec<RawAttribute>,
}

/// A route as it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is about.
    pub key: Key,
    /// What it says.
    pub value: Value,
    /// The node that says it.
    pub originator: NodeId,
    /// Its neighbour's session is down and nobody has said it anew since.
    pub stale: bool,
    /// Where it came from.
    pub source: Source,
    /// Next hop, route targets and the rest.
    pub attributes: Arc<Attributes>,
}

impl Route {
    /// The node to hand the traffic to.
    #[must_use]
    pub fn next_hop(&self) -> NodeId {
        self.attributes.next_hop
    }

    /// Whose it is.
    #[must_use]
    pub fn route_targets(&self) -> &[RouteTarget] {
        &self.attributes.route_targets
    }

    /// Attributes passed through.
    #[must_use]
    pub fn extra(&self) -> &[RawAttribute] {
        &self.attributes.extra
    }
}

/// Where a path came from. Ours before neighbours', these by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// [`super::Rib::originate`].
    Local,
    /// A neighbour.
    Peer(PeerId),
}

/// The best route of a key is another one, has another value, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// What is believed now.
    pub best: Option<Route>,
}

/// What a neighbour did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Announced routes, refused ones included.
    pub received: u64,
    /// Routes treated as withdrawn, by [`Refusal::index`].
    pub refused: [u64; Refusal::ALL.len()],
    /// Routes announced to it.
    pub announced: u64,
    /// Routes withdrawn from it.
    pub withdrawn: u64,
    /// Routes whose attributes leave no room for them in a message; not sent.
    pub oversized: u64,
}

/// A neighbour, for people.
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
    /// Of these, not in use because the site table does not allow them.
    pub waiting: usize,
    /// Keys it is still to be told about.
    pub queued: usize,
    /// What it did.
    pub counters: PeerCounters,
}

/// All paths of a key, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteView {
    /// The key.
    pub key: Key,
    /// All paths, the best first if there is one.
    pub paths: Vec<PathView>,
    /// Why the best is the best; `None` if there is none.
    pub why: Option<Why>,
}

/// A path, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathView {
    /// The route as this path has it.
    pub route: Route,
    /// Why it is not in use.
    pub refusal: Option<Refusal>,
}
