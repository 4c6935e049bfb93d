//! Which endpoint of a service a request goes to, and when an endpoint counts as healthy.
//!
//! What it is: the pure arithmetic of load balancing. [`EndpointSet`] is an immutable snapshot of
//! one service's endpoints with everything a pick needs computed beforehand: who is eligible,
//! at which half or full weight, and in which tier of distance. [`Hysteresis`] turns single probe
//! results into [`Health`] transitions, and [`Admission`] what sites say of their load into the
//! share of requests that each is given.
//!
//! What it is not: it opens no connection, sends no probe, reads no clock and no randomness (the
//! caller hands in a [`base::Rng`]). It does not know where distances or health come from, nor
//! does it smooth distances: whoever builds the set decides when a distance has changed.
//!
//! The way of data: `plan` learns health and distance, builds an [`EndpointSet`] and stores it in
//! the service's [`Cell`]; `proxy` loads the cell once a request and calls [`pick`]; while the
//! request runs it holds an [`InFlight`] guard on the endpoint's [`EndpointStats`], relaxed atomics
//! that live on when the set is replaced.
//!
//! ```
//! use std::sync::Arc;
//! use balance::{BalancePolicy, Endpoint, EndpointKey, EndpointSet, Health, InFlight, pick};
//! use base::{Instant, NetworkId, Rng, SiteId};
//! let endpoint = Endpoint {
//!     key: EndpointKey {
//!         site: SiteId(7),
//!         network: NetworkId(0),
//!         address: "10.0.0.1:8080".parse().expect("an address"),
//!     },
//!     site: "aws.acme".parse().expect("a site"),
//!     health: Health::Healthy,
//!     weight: 1,
//!     distance: None,
//!     reachable: true,
//!     ejected: false,
//!     share: balance::WHOLE,
//!     since: None,
//!     stats: Arc::default(),
//! };
//! let now = Instant::from_nanos(0);
//! let set = EndpointSet::build(&BalancePolicy::default(), now, vec![endpoint]);
//! let chosen = pick(&set, now, &mut Rng::new(1), &[], None).expect("one endpoint is healthy");
//! let _running = InFlight::start(&chosen.stats);
//! ```

mod admission;
mod budget;
mod endpoint;
mod hysteresis;
mod limits;
mod load;
mod order;
mod outlier;
mod pick;
mod set;
mod standing;

pub use admission::{Admission, WHOLE};
pub use budget::{RetryBudget, Retrying};
pub use endpoint::{
    Connecting, Connection, Endpoint, EndpointKey, EndpointStats, Health, InFlight,
};
pub use hysteresis::{Hysteresis, ProbeOutcome};
pub use limits::Circuit;
pub use load::{LoadPolicy, LoadReport};
pub use order::stable_hash;
pub use outlier::{Ejections, Outlier};
pub use pick::pick;
pub use set::{Algorithm, BalancePolicy, Cell, EndpointSet, Scope, empty_cell};
pub use standing::Standing;
