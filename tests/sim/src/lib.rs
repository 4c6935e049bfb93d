//! A planet of fifty sites on a virtual clock: the real engines, no real time.
//!
//! What it is: four PoPs in a full mesh, forty-six gateways of five tenants, each attached to two
//! PoPs. Every node is what it is in production: a control half and a data half, each with its
//! own [`plan::Brain`] and its own [`bgp::Fabric`], sessions between the control halves
//! over tunnels that the data halves own, and one between the two halves of a node. Only the
//! shell differs: `node` carries out the Brain's effects with sockets, this crate with a heap of
//! events ordered by (time, number). It compiles, picks, decides and admits with the very
//! functions that `node` and `proxy` use.
//!
//! What it is not: it does not simulate packets. A stream is reliable and ordered, so a lost
//! packet is a delay of everything behind it; a cut link is silence until both ends notice.
//!
//! What goes wrong, all by the seed: latency and loss, clocks up to ten minutes apart, cut links,
//! halves of nodes that are killed or fall silent and restart from their disk, endpoints that die
//! and recover, and bundles that reach each node when they can. What is checked while it runs and
//! when it is quiet is listed at [`Checker`].
//!
//! # Replaying a seed
//! A run is a function of [`Options`] alone. When a test fails it prints the seed, the checker, the
//! virtual time and what was seen; `run(&Options::seed(N))` gives the same run again, event by
//! event, in a debugger too. `SEALANE_SIM_SEEDS=1000 cargo test --release -p sim` runs seeds 1 to
//! 1000; [`Report::digest`] is SHA-256 over every event and effect in order: two runs of one seed
//! with different digests mean that something in an engine is not a function of its arguments (the
//! clock, the iteration of a randomly seeded map).
//!
//! ```
//! let report = sim::run(&sim::Options { until_ms: Some(2000), ..sim::Options::seed(1) });
//! assert_eq!(report.violations, vec![]);
//! ```

mod agenda;
mod check;
mod faults;
mod network;
mod node;
mod planet;
mod shell;
mod trace;
mod traffic;

pub use check::{Checker, Violation};
pub use traffic::{Moves, Traffic};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Plant a bug: in the quiet time at the end, the shell of one PoP loses one "this endpoint is
    /// down" on its way into the data half's Brain.
    pub lose_one_down: bool,
    /// Stop at this virtual time, before it is quiet and so without the checks of the end.
    pub until_ms: Option<u64>,
    /// Nothing goes wrong, nobody asks, all lines are as long as each other, and this is sent; the run
    /// is as long as is said.
    pub traffic: Option<Traffic>,
}

impl Options {
    /// A whole run without a planted bug.
    #[must_use]
    pub fn seed(seed: u64) -> Self {
        Options {
            seed,
            lose_one_down: false,
            until_ms: None,
            traffic: None,
        }
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// SHA-256 over all events and effects in order, in hex.
    pub digest: String,
    /// What the checkers found, a few of each checker.
    pub violations: Vec<Violation>,
    /// Events handled.
    pub events: u64,
    /// Requests made at PoPs.
    pub requests: u64,
    /// Of these, answered by a living endpoint.
    pub answered: u64,
    /// The planted bug found its occasion.
    pub bug_fired: bool,
    /// What became of [`Options::traffic`].
    pub moves: Moves,
}

/// Run it.
#[must_use]
pub fn run(options: &Options) -> Report {
    shell::Sim::new(options).run()
}
