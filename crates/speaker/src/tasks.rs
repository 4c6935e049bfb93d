//! The tasks of this room and the queues between them. The node spawns all of them.
//!
//! ```text
//!                  commands (256)                        events (256)
//! Handle ───────────────┐                          ┌───────────────▶ node (Brain)
//! session loop N ───────┼──▶ actor: owns the Fabric ┤
//!        ▲              │                          │
//!        └──────────────┼── outbox (2 chunks)  ◀───┘  one a session
//!                       └── last (one shot)           one a session
//! ```
//!
//! | queue | bound | when full |
//! |---|---|---|
//! | commands | [`COMMANDS`] | the sender waits: a session stops reading its stream |
//! | outbox | [`OUTBOX`] chunks a session | the machine queues up to 4 MiB of octets, shared with others of its group, then only bits; the session wakes the actor when it has taken one |
//! | events | [`EVENTS`] | the actor leaves the keys in the table's queue of changes, where they coalesce; ups and downs are kept once a neighbour |
//!
//! The actor never waits for anybody, so there is no circle. A neighbour that reads nothing for
//! the send hold time is cut (RFC 9687).

/// Commands and neighbours' routes on their way to the actor.
pub(crate) const COMMANDS: usize = 256;
/// Chunks of octets on their way to one session.
pub(crate) const OUTBOX: usize = 2;
/// Events on their way to the node.
pub(crate) const EVENTS: usize = 256;
/// Commands taken in one turn before neighbours are served.
pub(crate) const TURN: usize = 64;
