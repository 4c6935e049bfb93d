//! The contract on one SQLite file: WAL, `synchronous=FULL`, held exclusively.
//!
//! Tables: `meta` (one row: the revision, and the last revision whose history is gone), `entry`
//! (the present) and `history` (the past: one row a change, its key `revision * 1024 + position`).
//! Keys are BLOBs, so that their order is the order of their bytes.

mod open;

use std::{collections::VecDeque, fs::File, sync::Arc};

use base::Revision;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::contract::{
    Entry, Event, Expect, Listing, MAX_OPS, Op, Options, StoreError, TransactError, WatchError,
};

/// Rows of `history` one revision has room for.
const POSITIONS: i64 = 1024;
const _: () = assert!(MAX_OPS <= 1024);
/// A page of history ends with the transaction that reaches one of these.
const PAGE_COMMITS: usize = 256;
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// An open database file. Every call blocks.
pub(crate) struct Database {
    connection: Connection,
    options: Options,
    /// The last revision, and the last one whose history is gone.
    marks: Marks,
    /// Held for as long as the database is open; released when the process dies.
    _lock: File,
}

#[derive(Clone, Copy)]
struct Marks {
    revision: i64,
    compacted: i64,
    history_bytes: u64,
}

/// A transaction that committed.
pub(crate) struct Commit {
    pub(crate) revision: Revision,
    /// What it changed, in the order of its operations.
    pub(crate) events: Vec<Event>,
}

type Outcome = Result<Commit, TransactError>;

impl Database {
    pub(crate) fn revision(&self) -> Revision {
        revision(self.marks.revision)
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        self.entry(key).map_err(failed("reading a key"))
    }

    pub(crate) fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        let read = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT value, created, modified, key FROM entry
                 WHERE key >= ?1 AND key < ?2 ORDER BY key",
            )?;
            let (first, end) = range(prefix);
            statement
                .query_map(params![first, end], |row| {
                    Ok((key_of(row, 3)?, entry_of(row)?))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
        };
        let entries = read().map_err(failed("listing a prefix"))?;
        Ok(Listing {
            entries,
            revision: self.revision(),
        })
    }

    /// The changes under `prefix` after a revision, and up to which revision nothing is missing:
    /// the present one, or less when the page is full.
    pub(crate) fn history(
        &self,
        prefix: &str,
        after: Revision,
    ) -> Result<(VecDeque<Vec<Event>>, Revision), WatchError> {
        let (oldest, current) = (revision(self.marks.compacted), self.revision());
        if after < oldest {
            return Err(WatchError::Compacted { after, oldest });
        }
        if after > current {
            return Err(WatchError::Future { after, current });
        }
        Ok(self
            .page(prefix, after)
            .map_err(failed("reading the history"))?)
    }

    fn page(
        &self,
        prefix: &str,
        after: Revision,
    ) -> rusqlite::Result<(VecDeque<Vec<Event>>, Revision)> {
        let mut statement = self.connection.prepare_cached(
            "SELECT sequence, key, value FROM history
             WHERE sequence >= ?1 AND key >= ?2 AND key < ?3 ORDER BY sequence",
        )?;
        let (first, end) = range(prefix);
        let mut rows = statement.query(params![sequence(number(after) + 1), first, end])?;
        let mut commits: VecDeque<Vec<Event>> = VecDeque::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let value: Option<Vec<u8>> = row.get(2)?;
            let event = Event {
                revision: revision(row.get::<_, i64>(0)? / POSITIONS),
                key: key_of(row, 1)?.into(),
                value: value.map(Bytes::from),
            };
            let size = event.bytes();
            let full = commits.len() >= PAGE_COMMITS || bytes >= PAGE_BYTES;
            match commits.back_mut() {
                Some(last) if last.first().is_some_and(|e| e.revision == event.revision) => {
                    last.push(event);
                }
                Some(last) if full => {
                    let upto = last.first().map_or(after, |e| e.revision);
                    return Ok((commits, upto));
                }
                Some(_) | None => commits.push_back(vec![event]),
            }
            bytes += size;
        }
        Ok((commits, self.revision()))
    }

    /// Applies several transactions, each with its own revision, and commits them together. When
    /// this returns `Ok` they are on disk; on `Err` none of them has happened.
    pub(crate) fn transact(&mut self, group: &[Vec<Op>]) -> Result<Vec<Outcome>, StoreError> {
        let before = self.marks;
        let result = self.try_transact(group);
        if result.is_err() {
            self.marks = before;
            if !self.connection.is_autocommit()
                && let Err(error) = self.connection.execute_batch("ROLLBACK")
            {
                tracing::error!(%error, "the store could not roll back");
            }
        }
        result
    }

    fn try_transact(&mut self, group: &[Vec<Op>]) -> Result<Vec<Outcome>, StoreError> {
        let begin = self.marks.revision;
        self.connection
            .execute_batch("BEGIN IMMEDIATE")
            .map_err(failed("beginning"))?;
        let mut outcomes = Vec::with_capacity(group.len());
        for ops in group {
            outcomes.push(self.apply(ops).map_err(failed("applying a transaction"))?);
        }
        if self.marks.revision == begin {
            self.connection
                .execute_batch("ROLLBACK")
                .map_err(failed("ending"))?;
            return Ok(outcomes);
        }
        self.compact().map_err(failed("compacting the history"))?;
        self.write_marks()
            .map_err(failed("counting the revision"))?;
        self.connection
            .execute_batch("COMMIT")
            .map_err(failed("committing"))?;
        Ok(outcomes)
    }

    /// One transaction: first all conditions, then all changes, so a conflict leaves no trace.
    fn apply(&mut self, ops: &[Op]) -> rusqlite::Result<Outcome> {
        for op in ops {
            let Some(expect) = op.expected() else {
                continue;
            };
            let current = self
                .entry_revisions(op.key())?
                .map(|(_, modified)| revision(modified));
            let holds = match expect {
                Expect::Absent => current.is_none(),
                Expect::Revision(revision) => current == Some(revision),
            };
            if !holds {
                return Ok(Err(TransactError::Conflict {
                    key: op.key().to_owned(),
                    current,
                }));
            }
        }
        let next = self.marks.revision + 1;
        let mut events = Vec::new();
        for op in ops {
            let value = match op {
                Op::Put { key, value, .. } => {
                    self.put(key, value, next)?;
                    Some(value.clone())
                }
                Op::Delete { key, .. } if self.remove(key)? => None,
                Op::Delete { .. } | Op::Check { .. } => continue,
            };
            events.push(Event {
                revision: revision(next),
                key: op.key().into(),
                value,
            });
        }
        if !events.is_empty() {
            self.record(next, &events)?;
            self.marks.revision = next;
        }
        Ok(Ok(Commit {
            revision: self.revision(),
            events,
        }))
    }

    fn put(&self, key: &str, value: &[u8], next: i64) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached(
                "INSERT INTO entry (key, value, created, modified) VALUES (?1, ?2, ?3, ?3)
                 ON CONFLICT (key) DO UPDATE SET value = ?2, modified = ?3",
            )?
            .execute(params![key.as_bytes(), value, next])?;
        Ok(())
    }

    fn remove(&self, key: &str) -> rusqlite::Result<bool> {
        let mut statement = self
            .connection
            .prepare_cached("DELETE FROM entry WHERE key = ?1")?;
        Ok(statement.execute(params![key.as_bytes()])? > 0)
    }

    fn record(&mut self, next: i64, events: &[Event]) -> rusqlite::Result<()> {
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO history (sequence, key, value) VALUES (?1, ?2, ?3)")?;
        for (at, event) in (sequence(next)..).zip(events) {
            statement.execute(params![at, event.key.as_bytes(), event.value.as_deref()])?;
            self.marks.history_bytes += u64::try_from(event.bytes()).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Forgets what the history has too much of.
    fn compact(&mut self) -> rusqlite::Result<()> {
        let keep = i64::try_from(self.options.history_revisions.max(1)).unwrap_or(i64::MAX);
        if self.marks.revision - self.marks.compacted > keep {
            self.forget(self.marks.revision - keep)?;
        }
        while self.marks.history_bytes > self.options.history_bytes {
            let oldest: Option<i64> = self
                .connection
                .prepare_cached("SELECT MIN(sequence) FROM history")?
                .query_row([], |row| row.get(0))?;
            let Some(oldest) = oldest else { break };
            self.forget(oldest / POSITIONS)?;
        }
        Ok(())
    }

    /// Forgets the history up to and with a revision.
    fn forget(&mut self, last: i64) -> rusqlite::Result<()> {
        let end = sequence(last + 1);
        let bytes = self.history_bytes_before(end)?;
        self.connection
            .prepare_cached("DELETE FROM history WHERE sequence < ?1")?
            .execute(params![end])?;
        self.marks.history_bytes = self.marks.history_bytes.saturating_sub(bytes);
        self.marks.compacted = last;
        Ok(())
    }

    fn history_bytes_before(&self, end: i64) -> rusqlite::Result<u64> {
        let bytes: i64 = self
            .connection
            .prepare_cached(
                "SELECT COALESCE(SUM(LENGTH(key) + COALESCE(LENGTH(value), 0)), 0)
                 FROM history WHERE sequence < ?1",
            )?
            .query_row(params![end], |row| row.get(0))?;
        Ok(u64::try_from(bytes).unwrap_or(0))
    }

    fn write_marks(&self) -> rusqlite::Result<()> {
        self.connection
            .prepare_cached("UPDATE meta SET revision = ?1, compacted = ?2")?
            .execute(params![self.marks.revision, self.marks.compacted])?;
        Ok(())
    }

    fn entry(&self, key: &str) -> rusqlite::Result<Option<Entry>> {
        self.connection
            .prepare_cached("SELECT value, created, modified FROM entry WHERE key = ?1")?
            .query_row(params![key.as_bytes()], entry_of)
            .optional()
    }

    fn entry_revisions(&self, key: &str) -> rusqlite::Result<Option<(i64, i64)>> {
        self.connection
            .prepare_cached("SELECT created, modified FROM entry WHERE key = ?1")?
            .query_row(params![key.as_bytes()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()
    }
}

fn failed(step: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |error| StoreError::Backend {
        step,
        source: Arc::new(error),
    }
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        value: Bytes::from(row.get::<_, Vec<u8>>(0)?),
        created: revision(row.get(1)?),
        modified: revision(row.get(2)?),
    })
}

fn key_of(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    String::from_utf8(row.get(column)?).map_err(|e| rusqlite::Error::Utf8Error(e.utf8_error()))
}

/// The half-open range of all keys with a prefix: no byte of UTF-8 is 0xFF.
fn range(prefix: &str) -> (&[u8], Vec<u8>) {
    (prefix.as_bytes(), [prefix.as_bytes(), &[0xff]].concat())
}

/// SQLite's numbers are signed; revisions stay far below their end.
fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

/// The first key in `history` of a revision.
fn sequence(revision: i64) -> i64 {
    revision.saturating_mul(POSITIONS)
}
