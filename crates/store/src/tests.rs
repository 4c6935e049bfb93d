//! The contract, what SQLite adds to it, and kill -9.

mod conformance;
mod crash;
mod file;

use std::path::Path;

use base::Revision;

use crate::{Event, Options, Store, Watch};

fn open(folder: &Path, options: Options) -> Store {
    Store::open_sqlite(&folder.join("store.db"), options).expect("a store")
}

/// A fresh store in a folder that lives as long as the test.
fn fresh(options: Options) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), options);
    (folder, store)
}

async fn revision(store: &Store) -> Revision {
    store.list("none/").await.expect("a listing").revision
}

/// The next transaction as `REVISION KEY=VALUE KEY-`, for short comparisons.
async fn next(watch: &mut Watch) -> String {
    text(&watch.next().await.expect("changes"))
}

fn text(events: &[Event]) -> String {
    let mut out = events
        .first()
        .map_or(String::new(), |event| event.revision.to_string());
    for Event { key, value, .. } in events {
        match value {
            Some(value) => out += &format!(" {key}={}", String::from_utf8_lossy(value)),
            None => out += &format!(" {key}-"),
        }
    }
    out
}
