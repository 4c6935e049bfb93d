//! Opening: the lock, the checks, the schema.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::{Database, Marks};
use crate::contract::{OpenError, Options};

/// "SEAL" in the header of the file.
const APPLICATION_ID: i64 = 0x5345_414c;
const SCHEMA: i64 = 1;
const PAGE_SIZE: u64 = 4096;
const CREATE: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        revision INTEGER NOT NULL,
        compacted INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE entry (
        key BLOB PRIMARY KEY NOT NULL,
        value BLOB NOT NULL,
        created INTEGER NOT NULL,
        modified INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE history (
        sequence INTEGER PRIMARY KEY,
        key BLOB NOT NULL,
        value BLOB
    ) STRICT;
    INSERT INTO meta (id, revision, compacted) VALUES (1, 0, 0);
    PRAGMA application_id = 0x5345414c;
    PRAGMA user_version = 1;
    COMMIT;
";

impl Database {
    /// Opens or creates the file; see [`crate::Store::open_sqlite`].
    pub(crate) fn open(path: &Path, options: Options) -> Result<Database, OpenError> {
        let lock = lock(path)?;
        create_file(path)?;
        let opening = Opening { path };
        let connection = opening.connect(options)?;
        opening.check(&connection)?;
        let marks = opening.marks(&connection)?;
        let mut database = Database {
            connection,
            options,
            marks,
            _lock: lock,
        };
        database.marks.history_bytes = database
            .history_bytes_before(i64::MAX)
            .map_err(opening.failed("reading it"))?;
        Ok(database)
    }
}

/// An advisory lock on a file beside the database: unlike SQLite's own it also holds within one
/// process, and nothing that merely reads the database file releases it.
fn lock(path: &Path) -> Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock_path = PathBuf::from(name);
    let refused = |source| OpenError::File {
        path: lock_path.clone(),
        step: "locking it",
        source,
    };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(refused)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(refused(source)),
    }
}

/// Creates the file with mode 0600 if there is none, and makes its name durable.
fn create_file(path: &Path) -> Result<(), OpenError> {
    let create = || {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    };
    create().map_err(|source| OpenError::File {
        path: path.to_owned(),
        step: "creating it",
        source,
    })
}

struct Opening<'a> {
    path: &'a Path,
}

impl Opening<'_> {
    fn connect(&self, options: Options) -> Result<Connection, OpenError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection =
            Connection::open_with_flags(self.path, flags).map_err(self.failed("opening it"))?;
        let pages = (options.max_bytes / PAGE_SIZE).max(64);
        // Nothing is written before the file is known to be ours, so WAL comes in `check`.
        connection
            .execute_batch(&format!(
                "PRAGMA locking_mode = EXCLUSIVE;
                 PRAGMA synchronous = FULL;
                 PRAGMA trusted_schema = OFF;
                 PRAGMA cell_size_check = ON;
                 PRAGMA temp_store = MEMORY;
                 PRAGMA max_page_count = {pages};
                 PRAGMA journal_size_limit = 67108864;"
            ))
            .map_err(self.failed("configuring it"))?;
        Ok(connection)
    }

    /// Is the file whole and ours? A new one gets the schema.
    fn check(&self, connection: &Connection) -> Result<(), OpenError> {
        let number = |sql: &str| {
            connection
                .query_row(sql, [], |row| row.get::<_, i64>(0))
                .map_err(self.failed("reading it"))
        };
        let id = number("PRAGMA application_id")?;
        let schema = number("PRAGMA user_version")?;
        let is_new = id == 0 && schema == 0 && number("SELECT COUNT(*) FROM sqlite_master")? == 0;
        if !is_new && id != APPLICATION_ID {
            return Err(OpenError::Foreign {
                path: self.path.to_owned(),
            });
        }
        if schema > SCHEMA {
            let (found, known) = (schema, SCHEMA);
            return Err(OpenError::Newer {
                path: self.path.to_owned(),
                found,
                known,
            });
        }
        if !is_new {
            let verdict: String = connection
                .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
                .map_err(self.failed("checking it"))?;
            if verdict != "ok" {
                return Err(self.corrupt(verdict));
            }
        }
        let mode: String = connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))
            .map_err(self.failed("switching to WAL"))?;
        if mode != "wal" {
            return Err(self.corrupt(format!("its journal mode is {mode} instead of WAL")));
        }
        if is_new {
            connection
                .execute_batch(CREATE)
                .map_err(self.failed("creating its tables"))?;
        }
        Ok(())
    }

    /// Reads the marks, which also takes SQLite's own exclusive lock.
    fn marks(&self, connection: &Connection) -> Result<Marks, OpenError> {
        connection
            .execute_batch("BEGIN EXCLUSIVE; COMMIT")
            .map_err(self.failed("taking the exclusive lock"))?;
        let (revision, compacted, newest): (i64, i64, i64) = connection
            .query_row(
                "SELECT revision, compacted, MAX(
                     (SELECT COALESCE(MAX(sequence), 0) / 1024 FROM history),
                     (SELECT COALESCE(MAX(modified), 0) FROM entry)) FROM meta",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
            .map_err(self.failed("reading its revision"))?;
        if compacted < 0 || compacted > revision || newest > revision {
            return Err(self.corrupt(format!(
                "it is at revision {revision}, compacted to {compacted}, and holds {newest}"
            )));
        }
        Ok(Marks {
            revision,
            compacted,
            history_bytes: 0,
        })
    }

    fn corrupt(&self, detail: String) -> OpenError {
        OpenError::Corrupt {
            path: self.path.to_owned(),
            detail,
        }
    }

    fn failed(&self, step: &'static str) -> impl Fn(rusqlite::Error) -> OpenError {
        let path = self.path.to_owned();
        move |error| {
            let path = path.clone();
            match error.sqlite_error_code() {
                Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Corrupt {
                    path,
                    detail: error.to_string(),
                },
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                    OpenError::InUse { path }
                }
                _ if matches!(error, rusqlite::Error::QueryReturnedNoRows) => OpenError::Corrupt {
                    path,
                    detail: "its meta row is missing".to_owned(),
                },
                _ => OpenError::Backend {
                    path,
                    step,
                    source: Arc::new(error),
                },
            }
        }
    }
}
