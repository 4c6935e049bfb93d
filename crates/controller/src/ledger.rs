//! The one writer: it holds the world in memory, decides, commits, publishes.
//!
//! A change is decided against the world at its revision (`change`, `join`: pure functions), then
//! committed in one transaction that expects exactly that world, then published as a new
//! [`State`]. Nothing else writes to the store, and the store lets nobody else open it.

mod change;
mod join;
mod records;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    Object, ObjectKey, Problem,
    sync::{JoinReply, JoinRequest, encode},
};
use base::{Revision, WallTime};
use pki::{Authority, Planet};
use plan::{Ids, World};
use runtime::Drain;
use store::{Op, Store, StoreError, TransactError};
use tokio::sync::{mpsc, oneshot, watch};

pub use self::records::LoadError;
pub(crate) use self::{
    join::SKEW,
    records::{OBJECTS, node_name, object_from},
};
use self::{
    join::{Admission, Refusal},
    records::{Material, TokenRecord},
};

use crate::metrics::Meters;

/// Commands that wait for the writer; full: the caller waits.
const COMMANDS: usize = 64;
/// How long a caller waits before it is told that the controller is busy.
const PATIENCE: Duration = Duration::from_secs(20);

/// Everything the controller knows, at one revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) revision: Revision,
    /// The objects with all their metadata and without status.
    pub(crate) world: World,
    pub(crate) ids: Ids,
    pub(crate) ids_revision: Option<Revision>,
    /// Keys and chains of certificates that the controller made.
    pub(crate) material: BTreeMap<ObjectKey, Material>,
    pub(crate) tokens: BTreeMap<ObjectKey, (TokenRecord, Revision)>,
    /// SHA-256 of the public key each node joined with, by [`records::node_name`].
    pub(crate) node_keys: BTreeMap<String, [u8; 32]>,
}

/// What the writer needs to make Tokens and certificates.
pub(crate) struct Issuer {
    pub(crate) authority: Arc<Authority>,
    pub(crate) planet: Planet,
    /// The fabric listener as PoPs dial it, for their Tokens.
    pub(crate) addresses: Vec<String>,
    pub(crate) lifetime: Duration,
}

/// The answer to a put.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) object: Object,
    pub(crate) created: bool,
    /// Of a new Token: the line to show once.
    pub(crate) token: Option<String>,
}

enum Command {
    Put {
        object: Box<Object>,
        dry_run: bool,
        reply: oneshot::Sender<Result<Put, Problem>>,
    },
    Delete {
        key: ObjectKey,
        based_on: Option<Revision>,
        dry_run: bool,
        reply: oneshot::Sender<Result<(), Problem>>,
    },
    Join {
        request: Box<JoinRequest>,
        reply: oneshot::Sender<JoinReply>,
    },
}

/// What the rest of the controller holds of the ledger; clones share it.
#[derive(Clone)]
pub(crate) struct Ledger {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<Arc<State>>,
    pub(crate) store: Store,
}

/// The task behind the ledger.
pub(crate) struct Writer {
    commands: mpsc::Receiver<Command>,
    state: Arc<State>,
    publish: watch::Sender<Arc<State>>,
    store: Store,
    issuer: Issuer,
    meters: Arc<Meters>,
    /// A commit failed half way: the world has to be read again.
    stale: bool,
}

/// Reads the world, and gives the handle and the task to run.
pub(crate) async fn open(
    store: Store,
    issuer: Issuer,
    meters: Arc<Meters>,
) -> Result<(Ledger, Writer), LoadError> {
    let state = Arc::new(records::load(&store).await?);
    meters
        .revision
        .set(i64::try_from(state.revision.0).unwrap_or(i64::MAX));
    let (publish, receiver) = watch::channel(Arc::clone(&state));
    let (sender, commands) = mpsc::channel(COMMANDS);
    let ledger = Ledger {
        commands: sender,
        state: receiver,
        store: store.clone(),
    };
    let writer = Writer {
        commands,
        state,
        publish,
        store,
        issuer,
        meters,
        stale: false,
    };
    Ok((ledger, writer))
}

impl Ledger {
    /// The newest state.
    pub(crate) fn state(&self) -> Arc<State> {
        Arc::clone(&self.state.borrow())
    }

    /// The states as they come; some may be left out.
    pub(crate) fn states(&self) -> watch::Receiver<Arc<State>> {
        self.state.clone()
    }

    pub(crate) async fn put(&self, object: Object, dry_run: bool) -> Result<Put, Problem> {
        let object = Box::new(object);
        self.ask(|reply| Command::Put {
            object,
            dry_run,
            reply,
        })
        .await?
    }

    pub(crate) async fn delete(
        &self,
        key: ObjectKey,
        based_on: Option<Revision>,
        dry_run: bool,
    ) -> Result<(), Problem> {
        self.ask(|reply| Command::Delete {
            key,
            based_on,
            dry_run,
            reply,
        })
        .await?
    }

    pub(crate) async fn join(&self, request: JoinRequest) -> Result<JoinReply, Problem> {
        let request = Box::new(request);
        self.ask(|reply| Command::Join { request, reply }).await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.commands.send(command(reply)).await.ok()?;
            answer.await.ok()
        };
        let busy = || unavailable("the controller is busy; try again in a few seconds");
        let answer = tokio::time::timeout(PATIENCE, asked)
            .await
            .map_err(|_| busy())?;
        answer.ok_or_else(|| unavailable("the controller is stopping; try again"))
    }
}

impl Writer {
    /// Serves until every [`Ledger`] is gone, or the drain has begun and nothing waits.
    pub(crate) async fn run(mut self, drain: Drain) {
        loop {
            let command = tokio::select! {
                biased;
                command = self.commands.recv() => command,
                () = drain.draining() => self.commands.try_recv().ok(),
            };
            let Some(command) = command else { break };
            self.serve(command).await;
        }
        self.store.close().await;
    }

    async fn serve(&mut self, command: Command) {
        let now = runtime::wall();
        // An answer that nobody waits for any more is dropped: the change has happened.
        match command {
            Command::Put {
                object,
                dry_run,
                reply,
            } => {
                let _ = reply.send(self.put(*object, dry_run, now).await);
            }
            Command::Delete {
                key,
                based_on,
                dry_run,
                reply,
            } => {
                let _ = reply.send(self.delete(&key, based_on, dry_run).await);
            }
            Command::Join { request, reply } => {
                let _ = reply.send(self.join(&request, now).await);
            }
        }
    }

    async fn put(&mut self, object: Object, dry_run: bool, now: WallTime) -> Result<Put, Problem> {
        self.refresh().await?;
        let (ops, mut change) = match change::put(&self.state, &self.issuer, object, now)? {
            change::Decision::Unchanged(object) => {
                return Ok(Put {
                    object: *object,
                    created: false,
                    token: None,
                });
            }
            change::Decision::Change(ops, change) => (ops, change),
        };
        let (created, token) = (change.created, change.token.take());
        if dry_run {
            return Ok(Put {
                object: change.object,
                created,
                token: None,
            });
        }
        let key = change.object.key();
        self.commit(ops, |state, revision| change.apply(state, revision))
            .await?;
        let object = self.state.world.find(&key).cloned();
        let object = object.ok_or_else(|| unavailable("the object vanished; try again"))?;
        tracing::info!(object = %key, revision = self.state.revision.0, created, "object put");
        Ok(Put {
            object,
            created,
            token,
        })
    }

    async fn delete(
        &mut self,
        key: &ObjectKey,
        based_on: Option<Revision>,
        dry_run: bool,
    ) -> Result<(), Problem> {
        self.refresh().await?;
        let ops = change::delete(&self.state, key, based_on)?;
        if dry_run {
            return Ok(());
        }
        self.commit(ops, |state, _| {
            state.world.remove(key);
            state.material.remove(key);
            state.tokens.remove(key);
        })
        .await?;
        tracing::info!(object = %key, revision = self.state.revision.0, "object deleted");
        Ok(())
    }

    async fn join(&mut self, request: &JoinRequest, now: WallTime) -> JoinReply {
        match self.admit(request, now).await {
            Ok(chain) => JoinReply::Welcome {
                chain,
                ca: encode(self.issuer.authority.certificate_der()),
                planet: self.issuer.planet.to_string(),
                time: now,
            },
            Err(Refusal { code, reason }) => JoinReply::Refused {
                code: code.to_owned(),
                reason,
                time: now,
            },
        }
    }

    /// The Token is spent in the transaction that remembers what was issued for it.
    async fn admit(
        &mut self,
        request: &JoinRequest,
        now: WallTime,
    ) -> Result<Vec<String>, Refusal> {
        self.refresh().await?;
        match join::decide(&self.state, &self.issuer, request, now)? {
            Admission::Repeat { chain, node } => {
                tracing::info!(node, "join repeated: the same certificate again");
                Ok(chain)
            }
            Admission::New { key, record, node } => {
                let was = self.state.tokens.get(&key).map(|(_, revision)| *revision);
                let chain = record.chain().to_vec();
                let mut ops = vec![records::token_op(&key, &record, was)?];
                let key_hash = record.spent.as_ref().map(|spent| spent.key_hash);
                if let Some(key_hash) = &key_hash {
                    ops.push(records::node_key_op(&node, key_hash)?);
                }
                self.commit(ops, |state, revision| {
                    state.tokens.insert(key, (*record, revision));
                    state
                        .node_keys
                        .extend(key_hash.map(|hash| (node.clone(), hash)));
                })
                .await?;
                tracing::info!(node, "node joined");
                Ok(chain)
            }
        }
    }

    /// One transaction, then the same change to a new state, then everybody sees it.
    async fn commit(
        &mut self,
        ops: Vec<Op>,
        change: impl FnOnce(&mut State, Revision),
    ) -> Result<(), Problem> {
        let revision = match self.store.transact(ops).await {
            Ok(revision) => revision,
            Err(error) => return Err(self.failed(&error)),
        };
        let mut next = State::clone(&self.state);
        change(&mut next, revision);
        next.revision = revision;
        self.show(next);
        Ok(())
    }

    fn show(&mut self, state: State) {
        self.meters
            .revision
            .set(i64::try_from(state.revision.0).unwrap_or(i64::MAX));
        self.state = Arc::new(state);
        self.publish.send_replace(Arc::clone(&self.state));
    }

    fn failed(&mut self, error: &TransactError) -> Problem {
        match error {
            TransactError::Store(StoreError::Limit { .. }) => {
                return Problem::new(413, "too-large", error.to_string());
            }
            TransactError::Conflict { .. }
            | TransactError::Duplicate(_)
            | TransactError::Store(StoreError::Closed | StoreError::Backend { .. }) => {}
        }
        tracing::error!(error = %base::Chain(error), "a change was not committed");
        self.stale = true;
        unavailable("the store did not take the change; the controller's log says why")
    }

    /// After a commit of unknown outcome the store is asked what is true.
    async fn refresh(&mut self) -> Result<(), Problem> {
        if !self.stale {
            return Ok(());
        }
        match records::load(&self.store).await {
            Ok(state) => {
                self.stale = false;
                self.show(state);
                Ok(())
            }
            Err(error) => {
                tracing::error!(error = %base::Chain(&error), "the store cannot be read");
                Err(unavailable(
                    "the store cannot be read; the controller's log says why",
                ))
            }
        }
    }
}

fn unavailable(title: &str) -> Problem {
    Problem::new(503, "unavailable", title)
}
