//! What a node knows about the paths between sites: how long a round trip takes, what is lost, how
//! full a link is, and whether the other side is still there.
//!
//! What it is not: it sends no ping and keeps no timer; `tunnel` does, and hands the samples and
//! the time in.
//!
//! [`Ways`] chooses the way to every site, by one's own links and those that others announce
//! ([`Graph`]). [`Attachment`] chooses the PoPs of a gateway. [`share`] says how much each of several
//! links to one site carries.
//!
//! Toward foreign routers the question is asked in the standard's words: [`bfd`] (RFC 5880) is a
//! whole session, packets included.
//!
//! Two machines, one each per link: [`LinkEstimator`] turns ping samples, and what TCP counts, into a
//! [`LinkQuality`], and [`DeadDetector`] turns "heard something" into a deadline. The way of data: a pong arrives →
//! `estimator.handle_sample(now, rtt)` and `detector.handle_heard(now)`; the shell's timer fires →
//! `detector.handle_timeout(now)`.
//!
//! ```
//! use base::Instant;
//! use path::{DeadDetector, LinkEstimator, Liveness};
//! use std::time::Duration;
//!
//! let mut estimator = LinkEstimator::default();
//! estimator.handle_sample(Instant::ZERO, Duration::from_millis(5));
//! assert_eq!(estimator.quality().map(|q| q.rtt), Some(Duration::from_millis(5)));
//!
//! let mut detector = DeadDetector::new(Instant::ZERO, DeadDetector::INTERVAL);
//! assert_eq!(detector.handle_timeout(Instant::ZERO + DeadDetector::INTERVAL), Liveness::Alive);
//! ```

mod attachment;
pub mod bfd;
mod dead;
mod estimator;
mod grade;
mod load;
mod loss;
mod share;
mod ways;

pub use attachment::{Attachment, Candidate};
pub use dead::{DeadDetector, Liveness};
pub use estimator::{LinkEstimator, LinkQuality};
pub use grade::{Grade, LinkClass};
pub use load::{Load, LoadEstimator, Relief};
pub use loss::{Loss, LossEstimator};
pub use share::{Parallel, Turns, over_quic, share};
pub use ways::{Graph, MAX_HOPS, Way, Ways};
