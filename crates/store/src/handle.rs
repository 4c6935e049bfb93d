//! What callers hold: the store and its watches.

use std::{collections::VecDeque, path::Path};

use base::Revision;
use tokio::sync::{mpsc, oneshot};

use crate::{
    contract::{
        Entry, Event, Listing, Op, OpenError, Options, StoreError, TransactError, WatchError,
        check_key, check_ops, check_prefix,
    },
    sqlite::Database,
    tasks::{Live, REQUESTS, Request, Server},
};

/// A handle on an open store; clones share it. It closes with [`Store::close`] or when the last
/// handle and the last [`Watch`] are gone.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    /// One file, owned by a thread of this process.
    Sqlite(mpsc::Sender<Request>),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.backend {
            Backend::Sqlite(_) => f.write_str("Store(SQLite)"),
        }
    }
}

impl Store {
    /// Opens or creates the database file at `path` (mode 0600, with `-wal` and `.lock` beside it),
    /// checks it, and starts its thread. Blocks while it recovers what a crash left; the folder
    /// must exist.
    ///
    /// # Errors
    /// If somebody else has it open, or it is damaged, foreign or newer: it is then unchanged.
    pub fn open_sqlite(path: &Path, options: Options) -> Result<Store, OpenError> {
        let database = Database::open(path, options)?;
        tracing::info!(path = %path.display(), revision = database.revision().0, "store opened");
        let (sender, receiver) = mpsc::channel(REQUESTS);
        let server = Server::new(database, receiver);
        runtime::thread("store", move |_| server.run()).map_err(|source| OpenError::File {
            path: path.to_owned(),
            step: "starting its thread",
            source,
        })?;
        Ok(Store {
            backend: Backend::Sqlite(sender),
        })
    }

    /// The entry of a key, if it exists.
    ///
    /// # Errors
    /// If the key is empty or too long, or the store fails or is closed.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        check_key(key)?;
        let key = key.to_owned();
        self.ask(|reply| Request::Get { key, reply }).await?
    }

    /// All entries whose key begins with `prefix`, in the order of their keys, at one revision.
    ///
    /// # Errors
    /// If the prefix is too long, or the store fails or is closed.
    pub async fn list(&self, prefix: &str) -> Result<Listing, StoreError> {
        check_prefix(prefix)?;
        let prefix = prefix.to_owned();
        self.ask(|reply| Request::List { prefix, reply }).await?
    }

    /// Commits all operations or none, and returns the new revision; if nothing changes (no
    /// operations, or only checks and deletions of absent keys) the present one. All conditions
    /// are checked against the state before the transaction. Waits while 64 requests are before it.
    ///
    /// If the returned future is dropped, the transaction may still commit.
    ///
    /// # Errors
    /// If a condition does not hold, a limit is exceeded, or the store fails or is closed.
    pub async fn transact(&self, ops: Vec<Op>) -> Result<Revision, TransactError> {
        check_ops(&ops)?;
        self.ask(|reply| Request::Transact { ops, reply }).await?
    }

    /// Every change of a key that begins with `prefix`, by a revision greater than `after`.
    ///
    /// # Errors
    /// If the history does not reach back to `after`, `after` is in the future, too many watches
    /// are open, or the store fails or is closed.
    pub async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        check_prefix(prefix)?;
        let mut watch = Watch {
            store: self.clone(),
            prefix: prefix.to_owned(),
            position: after,
            backlog: VecDeque::new(),
            upto: after,
            live: None,
        };
        watch.follow().await?;
        Ok(watch)
    }

    /// Commits what waits and closes the store for all handles; the file may be opened again when
    /// this returns. Closing twice is no error.
    pub async fn close(&self) {
        // An error means that it is closed already.
        let _ = self.ask(|reply| Request::Close { reply }).await;
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, StoreError> {
        let Backend::Sqlite(requests) = &self.backend;
        let (reply, answer) = oneshot::channel();
        requests
            .send(request(reply))
            .await
            .map_err(|_| StoreError::Closed)?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

/// Changes under a prefix, one transaction at a time.
pub struct Watch {
    store: Store,
    prefix: String,
    /// The last revision given out, or where the watch began.
    position: Revision,
    /// Read from the history and not yet given out.
    backlog: VecDeque<Vec<Event>>,
    /// Nothing is missing up to here once the backlog is given out.
    upto: Revision,
    live: Option<Live>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("prefix", &self.prefix)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

impl Watch {
    /// Waits for the next transaction that changed something under the prefix and returns those
    /// changes, at least one, all of one revision. Dropping the future loses nothing.
    ///
    /// A watch that was too slow for the live queue goes on from the history by itself.
    ///
    /// # Errors
    /// [`WatchError::Compacted`] if it was too slow even for the history: list and watch again.
    /// Otherwise if the store fails or is closed.
    pub async fn next(&mut self) -> Result<Vec<Event>, WatchError> {
        loop {
            if let Some(commit) = self.backlog.pop_front() {
                return Ok(self.give(commit));
            }
            self.position = self.position.max(self.upto);
            match &mut self.live {
                Some(live) => match live.recv().await {
                    Some(commit) => return Ok(self.give(commit)),
                    None => self.live = None,
                },
                None => self.follow().await?,
            }
        }
    }

    /// Where it stands: every change up to this revision has been given out.
    #[must_use]
    pub fn position(&self) -> Revision {
        self.position
    }

    fn give(&mut self, commit: Vec<Event>) -> Vec<Event> {
        if let Some(event) = commit.first() {
            self.position = event.revision;
        }
        commit
    }

    /// Reads on in the history, and joins the live changes at its end.
    async fn follow(&mut self) -> Result<(), WatchError> {
        let (prefix, after) = (self.prefix.clone(), self.position);
        let page = self
            .store
            .ask(|reply| Request::Follow {
                prefix,
                after,
                reply,
            })
            .await??;
        self.backlog = page.commits;
        self.upto = page.upto;
        self.live = page.live;
        Ok(())
    }
}
