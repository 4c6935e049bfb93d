//! The threads of a speaker, their tasks, and the queues between them.
//!
//! ```text
//!            ┌── thread bgp-0: shard 0, its tasks share it without a lock ─────────────┐
//!  accept ──▶│ neighbour N: FSM, sockets ──▶ shard ──▶ pump ──▶ outboxes of neighbours  │
//!            └───────▲───────────┬──────────────────────┬──────────────────────────────┘
//!                    │ routes    ▼ mail (1024)          ▼ octets for neighbours elsewhere
//!            ┌── thread bgp-1: shard 1 ... ────────────────────────────────────────────┐
//! ```
//!
//! | queue | bound | when full |
//! |---|---|---|
//! | mail of a thread | [`MAIL`] | a neighbour that says routes stops being read; the pump keeps its routes in the groups' queues, where changes coalesce |
//! | words to a neighbour's task | [`WORDS`] | what an operator or a newcomer wanted is lost, with a warning |
//! | outbox of a neighbour | [`HIGH_WATER`], [`LIMIT`] octets, shared with others of its groups | above the first only changes follow, above the second nothing: it is owed one bit a route |
//!
//! Each thread also has a task that asks the system about next hops, if that is wanted: what it
//! asks is bounded by the sets of attributes that the table keeps.
//!
//! The task that reads a thread's mail never waits for another thread, so there is no circle.

/// Messages on their way to one thread.
pub(super) const MAIL: usize = 1024;
/// Words on their way to one neighbour's task.
pub(super) const WORDS: usize = 256;
/// Octets below which a neighbour takes bulk again.
pub(super) const LOW_WATER: usize = 64 * 1024;
/// Octets above which a neighbour takes changes only.
pub(super) const HIGH_WATER: usize = 128 * 1024;
/// Octets above which a neighbour takes nothing.
pub(super) const LIMIT: usize = 16 * 1024 * 1024;
/// Octets read at once from a neighbour.
pub(super) const READ: usize = 64 * 1024;
/// Turns of the pump, a thousand routes each, before the neighbours' tasks have theirs.
pub(super) const TURNS: usize = 8;
