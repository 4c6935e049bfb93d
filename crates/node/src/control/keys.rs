//! Keys of token issuers, fetched for the data part: on time, and when a token names one that is
//! not there. The data part keeps what was fetched last, and serves by it without us.

use std::{cell::RefCell, collections::BTreeMap, io, rc::Rc, sync::Arc, time::Duration};

use base::{Backoff, Rng};
use plan::{Compiled, KeySource};
use runtime::{
    Tasks,
    metrics::{CounterBy, Metrics},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Notify, watch},
};

use super::fetch::{self, FetchError, fetch};
use crate::{
    keys::{Fetched, Wanted},
    lines::{Lines, send},
};

/// The longest line that the data part sends.
const MAX_LINE: usize = 1 << 10;
/// A source is asked no more often than this, whatever tokens say.
const SELDOM: Duration = Duration::from_secs(10);
/// After a failure it is asked again after 1 s to 1 min.
const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(60);

type All = BTreeMap<String, Arc<Fetched>>;

/// What is fetched, and what has come of it.
pub(crate) struct Keys {
    tasks: Tasks,
    /// May private addresses be asked?
    anywhere: bool,
    sources: BTreeMap<String, Source>,
    shared: Rc<Shared>,
}

struct Source {
    source: Arc<KeySource>,
    wanted: Rc<Notify>,
    task: runtime::Task,
}

pub(crate) struct Shared {
    latest: watch::Sender<All>,
    wanted: RefCell<BTreeMap<String, Rc<Notify>>>,
    fetches: CounterBy,
}

impl Keys {
    pub(crate) fn new(tasks: Tasks, anywhere: bool, metrics: &Metrics) -> Self {
        let help = "Fetches of token issuers' keys, by what came of them";
        Keys {
            tasks,
            anywhere,
            sources: BTreeMap::new(),
            shared: Rc::new(Shared {
                latest: watch::Sender::new(All::new()),
                wanted: RefCell::default(),
                fetches: metrics.counter_by("key_fetches", help, "outcome"),
            }),
        }
    }

    /// Fetch for this table, and for no other.
    pub(crate) fn apply(&mut self, table: &Compiled) {
        self.sources.retain(|id, running| {
            let stays = table
                .keys
                .get(id)
                .is_some_and(|(one, _)| *one == running.source);
            if !stays {
                running.task.abort();
            }
            stays
        });
        for (id, (source, _)) in &table.keys {
            if self.sources.contains_key(id) {
                continue;
            }
            let wanted = Rc::new(Notify::new());
            let keep = watched(
                id.clone(),
                Arc::clone(source),
                self.anywhere,
                Rc::clone(&wanted),
                Rc::clone(&self.shared),
            );
            let task = self.tasks.spawn_local("keys", keep);
            let running = Source {
                source: Arc::clone(source),
                wanted,
                task,
            };
            self.sources.insert(id.clone(), running);
        }
        let sources = self.sources.iter();
        let wanted = sources.map(|(id, one)| (id.clone(), Rc::clone(&one.wanted)));
        self.shared.wanted.replace(wanted.collect());
        let known = |id: &String| self.sources.contains_key(id);
        self.shared.latest.send_if_modified(|all| {
            let before = all.len();
            all.retain(|id, _| known(id));
            all.len() != before
        });
    }

    pub(crate) fn shared(&self) -> Rc<Shared> {
        Rc::clone(&self.shared)
    }
}

/// Keep the keys of one source fresh.
async fn watched(
    id: String,
    source: Arc<KeySource>,
    anywhere: bool,
    wanted: Rc<Notify>,
    shared: Rc<Shared>,
) {
    let mut backoff = Backoff::new(FIRST, MOST);
    let mut rng = Rng::new(runtime::now().as_nanos());
    let mut said = None;
    loop {
        let wait = match fetch(&source, anywhere).await {
            Ok(jwks) => {
                shared.fetches.inc("fetched");
                backoff.reset();
                said = None;
                let fetched = Arc::new(Fetched {
                    id: id.clone(),
                    at: runtime::wall(),
                    jwks,
                });
                shared.latest.send_modify(|all| {
                    all.insert(id.clone(), fetched);
                });
                source.refresh
            }
            Err(error) => {
                let word = error.word();
                shared.fetches.inc(word);
                // Once for each way to fail of each document, until it goes well.
                let way = Some((word, matches!(error, FetchError::Keys(..))));
                if said != way {
                    let error = base::Chain(&error);
                    tracing::warn!(uri = source.uri, %error, "keys are not fetched; the last ones stay");
                    said = way;
                }
                backoff.next_wait(&mut rng).min(source.refresh)
            }
        };
        tokio::time::sleep(wait.min(SELDOM)).await;
        tokio::select! {
            () = tokio::time::sleep(wait.saturating_sub(SELDOM)) => {}
            () = wanted.notified() => {}
        }
    }
}

impl Shared {
    /// Serve the data part: everything there is, then what changes.
    pub(crate) async fn serve<S>(self: Rc<Self>, stream: S) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut lines = Lines::new(reader, MAX_LINE);
        let mut latest = self.latest.subscribe();
        latest.mark_changed();
        let mut told = All::new();
        loop {
            tokio::select! {
                line = lines.next::<Wanted>() => match line? {
                    None => return Ok(()),
                    Some(Wanted { id }) => {
                        if let Some(source) = self.wanted.borrow().get(&id) {
                            source.notify_one();
                        }
                    }
                },
                changed = latest.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let all = latest.borrow_and_update().clone();
                    for (id, fetched) in &all {
                        if told.get(id).is_none_or(|before| !Arc::ptr_eq(before, fetched)) {
                            send(&mut writer, &**fetched).await?;
                        }
                    }
                    told = all;
                }
            }
        }
    }
}

/// The longest line that is sent: JSON may write each octet as six.
pub(crate) const MAX_FETCHED: usize = 6 * fetch::MAX_OCTETS + MAX_LINE;
