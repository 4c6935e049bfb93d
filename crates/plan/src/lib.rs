//! The brain of a node: where intent (a bundle) and facts (routes, probes, links) meet.
//!
//! What it is: pure functions and one machine. [`check_put`] says whether a resource makes sense
//! (the API asks before it stores), [`project()`] what one site needs of all resources (the
//! controller asks before it signs), [`open()`] whether a signed update is to be believed,
//! [`compile()`] turns a bundle into the snapshots of the engines, all or nothing, and [`Brain`]
//! keeps a node's snapshots true while facts change.
//!
//! What it is not: it dials nobody, reads no clock and writes no file. [`Event`]s come in,
//! [`Effect`]s go out; `node` carries them out for real and the simulator in virtual time, with the
//! very same `Brain`.
//!
//! The way of data: `Signed → open → Update → Bundle → Event::Bundle → Effect::Compile →
//! compile → Event::Compiled → Effect::Publish`, and beside it, without any management plane,
//! `probe → Event::Probed → Effect::Originate → BGP → Event::Route → Effect::Endpoints`.
//!
//! The same `Brain` runs in both halves of a node: [`Part::Control`] probes and originates,
//! [`Part::Data`] imports. Both compile.
//!
//! ```
//! use base::Instant;
//! use plan::{Brain, Effect, Event, Me, Part};
//! let me = Me {
//!     site: "aws.acme".parse().expect("a site"),
//!     node: "n1".parse().expect("a name"),
//! };
//! let mut brain = Brain::new(Part::Data, me, 7, bgp::Seq(1));
//! brain.handle(Instant::ZERO, Event::Bundle(Box::default()));
//! assert!(matches!(brain.poll_effect(), Some(Effect::Compile { .. })));
//! ```

mod brain;
mod check;
mod clients;
mod compile;
pub mod facts;
mod ids;
mod jwt;
mod open;
mod placement;
pub mod policy;
mod project;
mod route;
mod service_policy;
mod why;
mod world;

#[cfg(test)]
mod tests;

/// Words of the engines below that `node` needs, so that it has no edge of its own to them.
pub use balance::ProbeOutcome;
pub use bgp::{Key as RouteKey, Seq, Sequence};
pub use brain::{Brain, Effect, EndpointFact, Event, Part, ProbeResult, WayFact};
pub use check::{check_delete, check_put};
pub use clients::ClientTrust;
pub use compile::{
    Cells, CompileError, Compiled, Fabric, FrontCertificate, HttpProbe, Listener, Me, Neighbor,
    Numbers, Router, RouterBfd, ServicePlan, Target, TargetKey, Uplink, UplinkSource, Vips,
    compile,
};
pub use ids::{Collision, Ids};
pub use jwt::{KeySource, KeySources};
pub use l7::{
    Limits,
    jwt::{KeyCell, KeySet},
};
pub use open::{Chain, OpenError, open};
pub use path::{Attachment, Candidate, Grade, Load};
pub use project::{Projection, dial, project};
pub use why::explain;
pub use world::World;
