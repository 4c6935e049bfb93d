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
//! # The main types
//! - [`wire`]: the messages; one validation pass over an UPDATE with RFC 7606's three outcomes.
//! - [`peer`]: a configured neighbour, RFC 4271's state machine around its connections.
//! - [`table`]: routes of every family as octets, selection, update groups, RT constraint,
//!   add-path, authority.
//! - [`policy`]: what is taken from a router and what it is told.
//! - [`Key`], [`Value`], [`State`], [`Seq`]: the MESH family. The key is the identity of a route,
//!   the value its volatile state.
//! - [`Fabric`]: one node of ours as a speaker: a table and its sessions with other nodes.
//! - [`Trust`], [`SiteTable`]: who may say what.
//! - [`Sequence`]: the seq numbers an origin gives to its own routes.
//!
//! # The way of a route
//! octets → [`peer::Connection`] → [`wire::decode`] → [`table::Shard::announce`] (loops, authority,
//! policy, limits) → selection → the queue of each update group → [`table::Shard::poll`] → octets
//! for a set of neighbours. Toward routers `speaker` drives a [`peer::Peer`] a neighbour and a
//! shard a thread; between our own nodes [`Fabric`] drives both.
//!
//! # States on the wire
//! 0 unknown, 1 healthy, 2 degraded, 3 draining, 4 maintenance, 5 unhealthy, 6 withdrawn. A value
//! with another number, or shorter than its type, counts as withdrawn.
//!
#![forbid(unsafe_code)]

mod attributes;
mod authority;
mod cursor;
pub mod fabric;
pub mod mesh;
pub mod peer;
pub mod policy;
mod sequence;
pub mod table;
pub mod wire;

#[cfg(test)]
mod tests;

pub use attributes::{Origin, RawAttribute, RouteTarget};
pub use authority::{Grant, Refusal, SiteTable, Trust};
pub use fabric::{
    Change, Event, Fabric, FabricConfig, LocalRoute, NeighborView, PeerConfig, PeerId, Route,
    RouteView, Source, StreamId,
};
pub use mesh::{
    EndpointHealth, Facts, Host, HttpMatch, HttpTarget, Key, KeyError, LinkGrade, LinkHealth,
    Measure, PathKind, PathMatch, PathText, PolicyReference, PolicySetId, Rd, Seq, ServiceHealth,
    SiteHealth, State, TunnelId, Value, ValueError,
};
pub use sequence::Sequence;
pub use wire::{Family, Notification};
