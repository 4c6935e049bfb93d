//! A small versioned key-value store with watch: where the management plane keeps what users said.
//!
//! One contract, [`Store`], over a closed set of backends; today SQLite in one file, for one
//! controller. What it is not: it does not know kinds, tenants or JSON (a value is bytes), it is no
//! cache and no queue, and nothing on the way of a user's request waits for it.
//!
//! # The contract
//! - A *revision* counts committed transactions that changed something: 1, 2, 3, without gaps.
//! - [`Store::transact`] is atomic: all its [`Op`]s or none. An [`Expect`] makes it a
//!   compare-and-set. When it returns, the change is on disk and survives `kill -9` and power loss.
//! - [`Store::get`] and [`Store::list`] see every transaction acknowledged before they were called.
//! - [`Store::watch`] gives each change under a prefix after a revision, in order, without gaps, one
//!   transaction at a time. List, then watch from the list's revision, and nothing is missed.
//! - The history behind watch is bounded ([`Options`]); a watcher that needs more of it gets
//!   [`WatchError::Compacted`] and lists again. A slow watcher holds a bounded queue; when that is
//!   full it falls back to reading the history, and slows nobody down.
//!
//! # The way of data
//! A caller's request goes through a bounded channel to the store's own thread, which alone owns the
//! database. It takes what is waiting (up to 64 requests), commits all transactions among it with
//! one fsync, answers, hands the changes to the watchers, then answers the reads. `tasks.rs` has
//! the picture.
//!
//! ```
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("store.db");
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! use store::{Expect, Op, Options, Store};
//! let store = Store::open_sqlite(&path, Options::default())?;
//! let listing = store.list("site/").await?;
//! let mut watch = store.watch("site/", listing.revision).await?;
//! let revision = store.transact(vec![Op::put("site/par", "{}").expect(Expect::Absent)]).await?;
//! let events = watch.next().await?;
//! assert_eq!((events[0].revision, &*events[0].key), (revision, "site/par"));
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

mod contract;
mod handle;
mod sqlite;
mod tasks;

#[cfg(test)]
mod tests;

pub use contract::{
    Entry, Event, Expect, Listing, MAX_KEY_BYTES, MAX_OPS, MAX_TRANSACTION_BYTES, MAX_VALUE_BYTES,
    Op, OpenError, Options, StoreError, TransactError, WatchError,
};
pub use handle::{Store, Watch};
