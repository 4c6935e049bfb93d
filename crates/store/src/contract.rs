//! The words of the contract, its limits and its errors.

use std::{collections::BTreeSet, error::Error, io, path::PathBuf, sync::Arc};

use base::Revision;
use bytes::Bytes;

/// The longest key and the longest prefix, in bytes.
pub const MAX_KEY_BYTES: usize = 512;
/// The largest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1024 * 1024;
/// The most operations in one transaction.
pub const MAX_OPS: usize = 512;
/// The largest transaction: keys and values together, in bytes.
pub const MAX_TRANSACTION_BYTES: usize = 4 * 1024 * 1024;

/// A key's value and its place in history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The bytes that were put.
    pub value: Bytes,
    /// The revision that put the key after it had been absent.
    pub created: Revision,
    /// The revision that put this value.
    pub modified: Revision,
}

/// All entries under a prefix at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The entries in the byte order of their keys.
    pub entries: Vec<(String, Entry)>,
    /// The store's revision they were read at: where a watch goes on.
    pub revision: Revision,
}

/// What a key must be for a transaction to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key was last modified by this revision.
    Revision(Revision),
}

/// One operation of a transaction. A transaction names each key at most once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Sets the value; a change even if the value is the same.
    Put {
        /// 1–512 bytes.
        key: String,
        /// At most 1 MiB.
        value: Bytes,
        /// What the key must be; nothing is required by default.
        expect: Option<Expect>,
    },
    /// Removes the key; no change if it does not exist.
    Delete {
        /// 1–512 bytes.
        key: String,
        /// What the key must be; nothing is required by default.
        expect: Option<Expect>,
    },
    /// Changes nothing: lets the transaction depend on another key.
    Check {
        /// 1–512 bytes.
        key: String,
        /// What the key must be.
        expect: Expect,
    },
}

impl Op {
    /// Sets a value unconditionally.
    #[must_use]
    pub fn put(key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        Op::Put {
            key: key.into(),
            value: value.into(),
            expect: None,
        }
    }

    /// Removes a key unconditionally.
    #[must_use]
    pub fn delete(key: impl Into<String>) -> Self {
        Op::Delete {
            key: key.into(),
            expect: None,
        }
    }

    /// The same operation under a condition.
    #[must_use]
    pub fn expect(self, expect: Expect) -> Self {
        match self {
            Op::Put { key, value, .. } => Op::Put {
                key,
                value,
                expect: Some(expect),
            },
            Op::Delete { key, .. } => Op::Delete {
                key,
                expect: Some(expect),
            },
            Op::Check { key, .. } => Op::Check { key, expect },
        }
    }

    /// The key it is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Op::Put { key, .. } | Op::Delete { key, .. } | Op::Check { key, .. } => key,
        }
    }

    /// The condition, if there is one.
    #[must_use]
    pub fn expected(&self) -> Option<Expect> {
        match self {
            Op::Put { expect, .. } | Op::Delete { expect, .. } => *expect,
            Op::Check { expect, .. } => Some(*expect),
        }
    }

    fn value_bytes(&self) -> usize {
        match self {
            Op::Put { value, .. } => value.len(),
            Op::Delete { .. } | Op::Check { .. } => 0,
        }
    }
}

/// One change, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The transaction that made it.
    pub revision: Revision,
    /// The key.
    pub key: Arc<str>,
    /// The new value; `None` if the key was deleted.
    pub value: Option<Bytes>,
}

impl Event {
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// The bounds of one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many revisions a watch can go back; 10,000 by default, at least 1.
    pub history_revisions: u64,
    /// How many bytes of keys and values the history holds at most; 256 MiB by default.
    pub history_bytes: u64,
    /// How large the database may grow, in bytes; 2 GiB by default. Above it transactions fail.
    pub max_bytes: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            history_revisions: 10_000,
            history_bytes: 256 << 20,
            max_bytes: 2 << 30,
        }
    }
}

/// The cause of a failure in a backend; shared by all who waited for the same commit.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process, or another handle of this one, has it open.
    #[error("store {path} is in use by another controller")]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("store {path}: {step} failed")]
    File {
        /// The file concerned.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is a database of some other program.
    #[error("store {path} is a database, but not one of Sealane's")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// The file is damaged, or not a database. It was not changed.
    #[error("store {path} is damaged ({detail}); restore it from a backup")]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// The file was written by a newer version. It was not changed.
    #[error("store {path} has schema {found}, this version knows up to {known}: upgrade Sealane")]
    Newer {
        /// The database file.
        path: PathBuf,
        /// The schema of the file.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// The backend refused.
    #[error("store {path}: {step} failed")]
    Backend {
        /// The database file.
        path: PathBuf,
        /// What was tried.
        step: &'static str,
        /// What the backend said.
        #[source]
        source: Cause,
    },
}

/// Why a request to the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The store was closed, or its thread ended. Whether a transaction that was under way has
    /// committed is not known.
    #[error("the store is closed")]
    Closed,
    /// Something is larger than the contract allows, or a key is empty. Nothing changed.
    #[error("{what} is {size}, outside of 1 to {limit}")]
    Limit {
        /// What, with its unit.
        what: &'static str,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
    },
    /// The backend failed. A transaction has not been acknowledged; after a failed commit it may
    /// still be found after the next start.
    #[error("the store failed while {step}")]
    Backend {
        /// What it was doing.
        step: &'static str,
        /// What the backend said.
        #[source]
        source: Cause,
    },
}

/// Why a transaction did not commit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransactError {
    /// A condition does not hold; nothing changed.
    #[error("key {key:?} is not as expected: {}", current_text(.current))]
    Conflict {
        /// The first key that is not as expected.
        key: String,
        /// The revision that last modified it; `None` if it does not exist.
        current: Option<Revision>,
    },
    /// A key is named twice; nothing changed.
    #[error("key {0:?} is named twice in one transaction")]
    Duplicate(String),
    /// The request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn current_text(current: &Option<Revision>) -> String {
    current.map_or("it does not exist".to_owned(), |r| {
        format!("it was modified by revision {r}")
    })
}

/// Why a watch ended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum WatchError {
    /// The history after this revision is gone: list, and watch from there.
    #[error("history after revision {after} is gone; it begins after {oldest}")]
    Compacted {
        /// Where the watch stood.
        after: Revision,
        /// The oldest revision a watch can start from.
        oldest: Revision,
    },
    /// The store has not come that far: it is another one, or was restored from a backup. List.
    #[error("revision {after} is in the future; the store is at {current}")]
    Future {
        /// Where the watch stood.
        after: Revision,
        /// The store's revision.
        current: Revision,
    },
    /// As many watches as a store carries are open.
    #[error("too many watches are open: {0}")]
    TooMany(usize),
    /// The request failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    check_size("bytes in a key", key.len(), MAX_KEY_BYTES)?;
    if key.is_empty() {
        return Err(StoreError::Limit {
            what: "bytes in a key",
            size: 0,
            limit: MAX_KEY_BYTES,
        });
    }
    Ok(())
}

pub(crate) fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    check_size("bytes in a prefix", prefix.len(), MAX_KEY_BYTES)
}

/// The limits of a transaction, and each key once.
pub(crate) fn check_ops(ops: &[Op]) -> Result<(), TransactError> {
    check_size("operations in a transaction", ops.len(), MAX_OPS)?;
    let mut keys = BTreeSet::new();
    let mut bytes = 0;
    for op in ops {
        check_key(op.key())?;
        check_size("bytes in a value", op.value_bytes(), MAX_VALUE_BYTES)?;
        bytes += op.key().len() + op.value_bytes();
        if !keys.insert(op.key()) {
            return Err(TransactError::Duplicate(op.key().to_owned()));
        }
    }
    Ok(check_size(
        "bytes in a transaction",
        bytes,
        MAX_TRANSACTION_BYTES,
    )?)
}

fn check_size(what: &'static str, size: usize, limit: usize) -> Result<(), StoreError> {
    if size > limit {
        Err(StoreError::Limit { what, size, limit })
    } else {
        Ok(())
    }
}
