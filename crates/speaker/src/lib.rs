//! The BGP speaker: the shell that drives `bgp`'s machines over streams somebody else opened.
//!
//! Between our own nodes it dials nothing, listens on nothing and spawns nothing: a stream to a
//! neighbour comes in (a reserved stream of a tunnel, or an in-memory duplex between the halves
//! of a node), facts come out. What a fact is good for is `plan`'s business.
//!
//! Toward routers, and for `sealane bgp`, [`server`] owns sockets and threads.
//!
//! # The main types
//! - [`Speaker`]: the actor that owns the node's one [`bgp::Fabric`]; the node spawns
//!   [`Speaker::run`].
//! - [`Handle`]: `Send + Clone`; originate, withdraw, set the site table, look, reset.
//! - [`Handle::session`]: the loop of one neighbour over one stream; the node spawns it too.
//! - [`Event`]: what the node's Brain hears.
//!
//! # The way of a route
//! stream → session loop → bounded queue → actor (`Fabric`) → [`Event::Change`] for this node, and
//! for each neighbour that can take them, octets → session loop → stream. `tasks.rs` has the
//! picture of tasks and queues.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(async {
//! use base::NodeId;
//! use speaker::{Event, PeerConfig, Speaker, SpeakerConfig};
//! let (speaker, handle, mut events) = Speaker::new(SpeakerConfig::new(NodeId(1), 4_200_000_000));
//! let (ours, theirs) = tokio::io::duplex(4096);
//! let run = async {
//!     let session = handle.session(PeerConfig::pop(NodeId(2)), ours);
//!     drop(theirs); // the neighbour hangs up
//!     session.await
//! };
//! let (_, close) = tokio::join!(async { tokio::time::timeout(std::time::Duration::from_millis(20), speaker.run()).await.ok() }, run);
//! assert_eq!(close.to_string(), "the stream ended");
//! # let _ = &mut events;
//! # });
//! ```

mod actor;
pub mod bfd;
mod handle;
pub mod server;
mod session;
mod tasks;

#[cfg(test)]
mod tests;

use base::{Instant, NodeId};
use bgp::{FabricConfig, peer::Close};

pub use actor::Speaker;
pub use bgp::{
    Change, Key, LocalRoute, NeighborView, PeerConfig, PeerId, Refusal, RouteView, SiteTable,
};
pub use handle::{Handle, SpeakerGone};

/// How a speaker is configured.
#[derive(Clone, Debug)]
pub struct SpeakerConfig {
    /// The table's and the sessions' configuration.
    pub fabric: FabricConfig,
    /// The monotonic clock.
    pub clock: fn() -> Instant,
}

impl SpeakerConfig {
    /// The defaults: hold time 30 s, the process's clock.
    #[must_use]
    pub fn new(node: NodeId, asn: u32) -> Self {
        let mut fabric = FabricConfig::new(node, asn);
        fabric.seed = runtime::seed();
        SpeakerConfig {
            fabric,
            clock: runtime::now,
        }
    }
}

/// What the node hears. Changes of one key are coalesced while nobody listens, and so are the
/// ups and downs of one neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The best route of a key changed.
    Change(Change),
    /// A neighbour's session is established.
    Up(PeerId),
    /// A neighbour has sent its whole table.
    Synced(PeerId),
    /// A neighbour's session ended; its routes are stale now.
    Down(PeerId, Close),
}

/// A neighbour as `get neighbors` shows it.
#[derive(Clone, Debug)]
pub struct Neighbor {
    /// Its place in the table.
    pub view: NeighborView,
    /// When its session came up or went down.
    pub since: Instant,
    /// Why its last session ended.
    pub last_close: Option<Close>,
}

/// Neighbours and routes as plain data.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// All neighbours.
    pub neighbors: Vec<Neighbor>,
    /// Routes, at most as many as were asked for.
    pub routes: Vec<RouteView>,
    /// How many routes there are.
    pub total: usize,
}
