//! The words every other room uses: ids, names, time, revisions, and three small tools
//! (backoff, EWMA, a seeded random generator).
//!
//! What it is not: a place for helpers. A type lives here only if two engines must agree on it
//! and neither owns it. Nothing here reads a clock, a socket, a file or ambient randomness.
//!
//! ```
//! use base::{Instant, Name};
//! use std::time::Duration;
//! let cart: Name = "cart".parse().expect("a DNS label");
//! let later = Instant::ZERO + Duration::from_millis(300);
//! assert_eq!(later.since(Instant::ZERO), Duration::from_millis(300));
//! assert_eq!(cart.as_str(), "cart");
//! ```

mod backoff;
mod error;
mod ewma;
mod id;
mod name;
mod rng;
mod time;

pub use backoff::Backoff;
pub use error::Chain;
pub use ewma::Ewma;
pub use id::{LbId, NetworkId, NodeId, Revision, ServiceId, SiteId, SlotId, TenantId};
pub use name::{Name, NameError, QualifiedService, SiteName};
pub use rng::Rng;
pub use time::{Instant, TimeError, WallTime};
