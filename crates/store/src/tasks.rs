//! The store's one thread and its queues.
//!
//! ```text
//!  callers ──▶ requests (64; full: the caller waits) ──▶ thread "store", owner of the database
//!     ▲                                                    │   │
//!     └──────────── one-shot answer each ◀─────────────────┘   │
//!  Watch ◀── live changes (1,024 transactions or 16 MiB;       │
//!              full: the queue is cut, the Watch reads the ◀───┘
//!              history again from where it stands)
//! ```
//!
//! The thread ends when [`crate::Store::close`] is called or every handle is gone; a panic in it is
//! logged and closes the store for every caller.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base::Revision;
use tokio::sync::{mpsc, oneshot};

use crate::{
    contract::{Entry, Event, Listing, Op, StoreError, TransactError, WatchError},
    sqlite::{Commit, Database},
};

/// Requests waiting for the thread, and the most that are committed together.
pub(crate) const REQUESTS: usize = 64;
/// Transactions waiting for one watch.
const LIVE_COMMITS: usize = 1024;
/// Bytes of keys and values waiting for one watch; one transaction always fits.
const LIVE_BYTES: usize = 16 * 1024 * 1024;
/// Open watches.
const MAX_WATCHES: usize = 4096;

/// What a caller asks the thread.
pub(crate) enum Request {
    Get {
        key: String,
        reply: oneshot::Sender<Result<Option<Entry>, StoreError>>,
    },
    List {
        prefix: String,
        reply: oneshot::Sender<Result<Listing, StoreError>>,
    },
    Transact {
        ops: Vec<Op>,
        reply: TransactReply,
    },
    Follow {
        prefix: String,
        after: Revision,
        reply: oneshot::Sender<Result<Page, WatchError>>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}

type TransactReply = oneshot::Sender<Result<Revision, TransactError>>;

/// A part of the history for a watch.
pub(crate) struct Page {
    /// The changes, one list a transaction.
    pub(crate) commits: VecDeque<Vec<Event>>,
    /// Nothing under the prefix is missing up to here.
    pub(crate) upto: Revision,
    /// What follows, if the page reaches the present; otherwise ask for the next page.
    pub(crate) live: Option<Live>,
}

/// The receiving end of live changes. It ends when the watch was too slow or the store closed.
pub(crate) struct Live {
    commits: mpsc::Receiver<Vec<Event>>,
    queued: Arc<AtomicUsize>,
}

impl Live {
    pub(crate) async fn recv(&mut self) -> Option<Vec<Event>> {
        let commit = self.commits.recv().await?;
        self.queued.fetch_sub(bytes_of(&commit), Ordering::Relaxed);
        Some(commit)
    }
}

/// The sending end.
struct Watcher {
    prefix: String,
    commits: mpsc::Sender<Vec<Event>>,
    queued: Arc<AtomicUsize>,
}

impl Watcher {
    fn new(prefix: String) -> (Self, Live) {
        let (sender, receiver) = mpsc::channel(LIVE_COMMITS);
        let queued = Arc::new(AtomicUsize::new(0));
        let live = Live {
            commits: receiver,
            queued: queued.clone(),
        };
        (
            Watcher {
                prefix,
                commits: sender,
                queued,
            },
            live,
        )
    }

    /// Hands over what concerns this watch; false if it is gone or too slow and must be dropped.
    fn offer(&self, commit: &[Event]) -> bool {
        if self.commits.is_closed() {
            return false;
        }
        let events: Vec<Event> = commit
            .iter()
            .filter(|event| event.key.starts_with(&self.prefix))
            .cloned()
            .collect();
        if events.is_empty() {
            return true;
        }
        let bytes = bytes_of(&events);
        let before = self.queued.fetch_add(bytes, Ordering::Relaxed);
        if before > 0 && before + bytes > LIVE_BYTES || self.commits.try_send(events).is_err() {
            tracing::debug!(prefix = %self.prefix, "a watch was too slow and reads the history");
            return false;
        }
        true
    }
}

fn bytes_of(events: &[Event]) -> usize {
    events.iter().map(Event::bytes).sum()
}

/// The thread's state: it alone owns the database.
pub(crate) struct Server {
    database: Database,
    requests: mpsc::Receiver<Request>,
    watchers: Vec<Watcher>,
}

impl Server {
    pub(crate) fn new(database: Database, requests: mpsc::Receiver<Request>) -> Self {
        Server {
            database,
            requests,
            watchers: Vec::new(),
        }
    }

    /// Serves until closed. Of what waits together, transactions go first and share one commit;
    /// the requests are concurrent, so any order is right, and reads then see the newest state.
    pub(crate) async fn run(mut self) {
        while let Some(first) = self.requests.recv().await {
            let (mut writes, mut reads, mut closing) = (Vec::new(), Vec::new(), None);
            let mut next = Some(first);
            let mut count = 0;
            while let Some(request) = next {
                match request {
                    Request::Transact { ops, reply } => writes.push((ops, reply)),
                    Request::Close { reply } => closing = Some(reply),
                    Request::Get { .. } | Request::List { .. } | Request::Follow { .. } => {
                        reads.push(request);
                    }
                }
                count += 1;
                next = if count < REQUESTS {
                    self.requests.try_recv().ok()
                } else {
                    None
                };
            }
            if !writes.is_empty() {
                self.write(writes);
            }
            reads.into_iter().for_each(|request| self.read(request));
            if let Some(reply) = closing {
                drop(self);
                // The caller may have given up waiting; the store is closed all the same.
                let _ = reply.send(());
                return;
            }
        }
    }

    fn write(&mut self, writes: Vec<(Vec<Op>, TransactReply)>) {
        let (group, replies): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        // A reply that nobody waits for any more is dropped: the transaction has happened.
        match self.database.transact(&group) {
            Ok(outcomes) => {
                for (outcome, reply) in outcomes.into_iter().zip(replies) {
                    let _ = reply.send(outcome.map(|commit| {
                        self.publish(&commit);
                        commit.revision
                    }));
                }
            }
            Err(error) => {
                tracing::error!(error = %base::Chain(&error), "the store could not commit");
                for reply in replies {
                    let _ = reply.send(Err(error.clone().into()));
                }
            }
        }
    }

    fn publish(&mut self, commit: &Commit) {
        if !commit.events.is_empty() {
            self.watchers
                .retain(|watcher| watcher.offer(&commit.events));
        }
    }

    fn read(&mut self, request: Request) {
        // A reply that nobody waits for any more is dropped.
        match request {
            Request::Get { key, reply } => {
                let _ = reply.send(self.database.get(&key));
            }
            Request::List { prefix, reply } => {
                let _ = reply.send(self.database.list(&prefix));
            }
            Request::Follow {
                prefix,
                after,
                reply,
            } => {
                let _ = reply.send(self.follow(prefix, after));
            }
            Request::Transact { .. } | Request::Close { .. } => {}
        }
    }

    fn follow(&mut self, prefix: String, after: Revision) -> Result<Page, WatchError> {
        let (commits, upto) = self.database.history(&prefix, after)?;
        let mut live = None;
        if upto == self.database.revision() {
            self.watchers.retain(|watcher| !watcher.commits.is_closed());
            if self.watchers.len() >= MAX_WATCHES {
                return Err(WatchError::TooMany(MAX_WATCHES));
            }
            let (watcher, receiver) = Watcher::new(prefix);
            self.watchers.push(watcher);
            live = Some(receiver);
        }
        Ok(Page {
            commits,
            upto,
            live,
        })
    }
}
