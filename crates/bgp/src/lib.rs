//! The BGP engine: what neighbours say to each other, and which copy of a fact is believed.
//!
//! Facts travel between sites by BGP-4 (RFC 4271) in one private AS: every `PoP` is a route
//! reflector (RFC 4456), every gateway a client of two of them, and one family, MESH, carries
//! which site and which endpoint is alive.
//!
//! What it is not: it opens no socket, reads no clock and starts no thread. Bytes, time and
//! configuration are arguments; the shell that owns the streams is the room `speaker`. It does
//! not know what a fact is good for either: that is the business of `plan`.
//!
//! # Two tables, for now
//! [`table::Shard`] with [`peer::Peer`] and [`wire::decode`] is the speaker for every family: routes
//! are octets, update groups encode once. [`Rib`] with [`Session`] is the first table, for MESH
//! alone, with the authority checks between our own nodes; nodes run it until these checks have
//! moved (`docs/adr/0011-a-table-of-octets.md`).
//!
//! # The main types
//! - [`table`]: routes of every family, selection, update groups, RT constraint, add-path.
//! - [`peer`]: a configured neighbour, RFC 4271's state machine around its connections.
//! - [`policy`]: what is taken from a neighbour and what it is told.
//! - [`wire`]: the messages; one validation pass over an UPDATE with RFC 7606's three outcomes.
//! - [`Key`], [`Value`], [`State`], [`Seq`]: the MESH family. The key is the identity of a route,
//!   the value its volatile state.
//! - [`Session`]: one neighbour over one connected, reliable byte stream.
//! - [`Rib`]: all routes of all neighbours, the decision, reflection, and one queue of *keys* a
//!   neighbour (never a copy of the table).
//! - [`Trust`], [`Export`], [`SiteTable`]: who may say what, and who may hear it.
//! - [`policy::Policy`]: which routes pass between us and foreign routers, and what is changed on
//!   them.
//! - [`Sequence`]: the seq numbers an origin gives to its own routes.
//!
//! # The way of a route
//! bytes → [`Session::handle_bytes`] → [`SessionEvent::Update`] → [`Rib::handle_update`] (loops,
//! authority, limits) → decision → [`Rib::poll_change`] for ourselves and
//! [`Rib::poll_update`] for each neighbour → [`Session::send`] → bytes.
//!
//! # States on the wire
//! 0 unknown, 1 healthy, 2 degraded, 3 draining, 4 maintenance, 5 unhealthy, 6 withdrawn. A value
//! with another number, or shorter than its type, counts as withdrawn.
//!
//! ```
//! use base::{Instant, NodeId, SiteId, SlotId, TenantId};
//! use bgp::{Key, LocalRoute, Rd, Rib, RibConfig, RouteTarget, SiteHealth, State, Value};
//! let mut rib = Rib::new(RibConfig::new(NodeId(1), 4_200_000_000), Instant::ZERO);
//! let rd = Rd { site: SiteId(7), slot: SlotId(0) };
//! rib.originate(LocalRoute {
//!     key: Key::Site { rd, site: SiteId(7) },
//!     value: Value::site(&SiteHealth { state: State::Healthy, ..SiteHealth::default() }),
//!     route_targets: vec![RouteTarget { tenant: TenantId(3), selector: RouteTarget::SITE }],
//!     extra: vec![],
//! });
//! let change = rib.poll_change().expect("our own route is the best one");
//! assert_eq!(change.best.expect("it exists").originator, NodeId(1));
//! ```
#![forbid(unsafe_code)]

mod attributes;
mod authority;
mod cursor;
pub mod mesh;
pub mod peer;
pub mod policy;
mod rib;
mod sequence;
mod session;
pub mod table;
pub mod wire;

#[cfg(test)]
mod tests;

pub use attributes::{Attributes, Origin, RawAttribute, RouteTarget};
pub use authority::{Export, Grant, Refusal, SiteTable, Trust};
pub use mesh::{
    EndpointHealth, Facts, Host, HttpMatch, HttpTarget, Key, KeyError, LinkHealth, Measure,
    PathKind, PathMatch, PathText, PolicyReference, PolicySetId, Rd, Seq, ServiceHealth,
    SiteHealth, State, TunnelId, Value, ValueError,
};
pub use rib::{
    Change, LocalRoute, NeighborView, PathView, PeerConfig, PeerCounters, PeerId, Rib, RibConfig,
    Role, Route, RouteView, Source, Why,
};
pub use sequence::Sequence;
pub use session::{Close, Session, SessionConfig, SessionCounters, SessionEvent, SessionState};
pub use wire::{Family, Notification, Update};
