//! The ground every shell and process stands on: what touches the operating system, once.
//!
//! What it is: the clock ([`now`], [`wall`]), named tasks that drain ([`Tasks`]), threads with
//! their own single-threaded runtime ([`thread`]), the allocator ([`Allocator`]) and what it gives
//! back after a burst ([`memory`]), TLS configurations ([`tls`]), sockets ([`net`]), files that are
//! never half written ([`mod@file`]), byte streams over HTTP/2 ([`h2io`]), signals, logs and
//! metrics.
//!
//! What it is not: it knows no site, no tenant, no resource. It decides nothing; the rooms above
//! pass it addresses, keys and futures. It is the only room outside `router` and `lab` that may
//! use `unsafe`, and does so in two places: what sockets can do without a safe wrapper ([`net`]),
//! and the allocator ([`Allocator`]).
//!
//! The way of a process: `log::init` → `Tasks::new` → `tasks.spawn(…)`, `thread(…)` →
//! `signal::shutdown().await` → `tasks.drain(deadline).await`.
//!
//! ```
//! # let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # rt.block_on(async {
//! use std::time::Duration;
//! let tasks = runtime::Tasks::new("example");
//! let drain = tasks.token();
//! tasks.spawn("waiter", async move { drain.draining().await });
//! let drained = tasks.drain(Duration::from_secs(1)).await;
//! assert_eq!(drained.aborted, 0);
//! # });
//! ```

mod alloc;
mod clock;
pub mod file;
pub mod h2io;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod process;
pub mod quic;
pub mod signal;
pub mod splice;
mod tasks;
mod threads;
pub mod tls;

pub use alloc::Allocator;
pub use clock::{now, seed, wall};
pub use tasks::{Drain, Drained, Task, Tasks};
pub use threads::{Thread, ThreadExit, thread};
