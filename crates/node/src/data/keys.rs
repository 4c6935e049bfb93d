//! Keys of token issuers, as the control part fetches them: into the cells that workers look at,
//! and onto the disk, so that a start without control or issuer has them.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use api::derived::KeysView;
use base::WallTime;
use plan::{Compiled, KeyCell, KeySet, KeySource, Me};
use runtime::{
    Tasks,
    metrics::{Family, Gauge, Metrics},
};
use tokio::sync::mpsc;
use tunnel::{Links, StreamHead};

use crate::{
    authority::Ask,
    control::keys::MAX_FETCHED,
    keys::{Fetched, Wanted},
    lines::{Lines, send},
    state::State,
};

/// Lines under way in each direction. To the control part: full drops it, it is wanted again by
/// the next token. From it: full waits.
const LINES: usize = 64;
/// A stream that ended is opened again after this.
const AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct Keys {
    state: State,
    tasks: Tasks,
    wants: mpsc::Sender<Wanted>,
    /// Those of the table that serves.
    cells: BTreeMap<String, (Arc<KeySource>, Arc<KeyCell>)>,
    known: BTreeMap<String, (WallTime, Arc<KeySet>)>,
    ages: Family<[(&'static str, String); 1], Gauge>,
}

impl Keys {
    pub(crate) fn start(
        tasks: &Tasks,
        links: Links,
        me: Me,
        state: State,
        metrics: &Metrics,
    ) -> (Self, mpsc::Receiver<Fetched>) {
        let (wants, mut take_wants) = mpsc::channel(LINES);
        let (fetched, take_fetched) = mpsc::channel(LINES);
        tasks.spawn_local("keys", async move {
            loop {
                let end = talk(&links, &me, &mut take_wants, &fetched).await;
                if let Err(error) = end {
                    tracing::debug!(%error, "no keys from the control part");
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        let ages = Family::default();
        let help = "Seconds since a token issuer's keys were fetched";
        metrics.register("keys_age_seconds", help, ages.clone());
        let keys = Keys {
            state,
            tasks: tasks.clone(),
            wants,
            cells: BTreeMap::new(),
            known: BTreeMap::new(),
            ages,
        };
        (keys, take_fetched)
    }

    /// Before a table serves: its cells are filled with what is known, if need be from disk.
    pub(crate) fn fill(&mut self, table: &Compiled) {
        self.known.retain(|id, _| table.keys.contains_key(id));
        for (id, (source, cell)) in &table.keys {
            if !self.known.contains_key(id) {
                let read = self.state.read(&file(id)).ok();
                let fetched = read.and_then(|text| serde_json::from_slice::<Fetched>(&text).ok());
                if let Some(fetched) = fetched.filter(|fetched| fetched.id == *id) {
                    self.learn(&source.uri, &fetched);
                }
            }
            if let Some((_, keys)) = self.known.get(id) {
                cell.store(Arc::clone(keys));
            }
        }
        self.cells.clone_from(&table.keys);
        self.ages.clear();
    }

    /// The control part has fetched some.
    pub(crate) fn take(&mut self, fetched: Fetched) {
        let Some((source, cell)) = self.cells.get(&fetched.id).cloned() else {
            return;
        };
        if !self.learn(&source.uri, &fetched) {
            return;
        }
        if let Some((_, keys)) = self.known.get(&fetched.id) {
            cell.store(Arc::clone(keys));
        }
        let state = self.state.clone();
        self.tasks.spawn_local("keys-save", async move {
            let save = move || {
                let text = serde_json::to_vec(&fetched).unwrap_or_default();
                state.write(&file(&fetched.id), &text, 0o600)
            };
            if let Ok(Err(error)) = tokio::task::spawn_blocking(save).await {
                tracing::error!(error = %base::Chain(&error), "keys cannot be kept on disk");
            }
        });
    }

    /// True if they are keys; if not, the last ones stay.
    fn learn(&mut self, uri: &str, fetched: &Fetched) -> bool {
        match KeySet::parse(&fetched.jwks) {
            Ok(keys) => {
                let known = (fetched.at, Arc::new(keys));
                self.known.insert(fetched.id.clone(), known);
                true
            }
            Err(error) => {
                tracing::warn!(uri, %error, "what was fetched are no keys; the last ones stay");
                false
            }
        }
    }

    /// Ask for what tokens named and was not there, and say how old all is.
    pub(crate) fn tick(&self) {
        let now = runtime::wall();
        for (id, (source, cell)) in &self.cells {
            if cell.take_wanted() {
                let _ = self.wants.try_send(Wanted { id: id.clone() });
            }
            if let Some((at, _)) = self.known.get(id) {
                let age = self.ages.get_or_create(&[("uri", source.uri.clone())]);
                age.set(i64::try_from(now.since(*at).as_secs()).unwrap_or(i64::MAX));
            }
        }
    }

    /// For the status.
    pub(crate) fn view(&self) -> Vec<KeysView> {
        let cells = self.cells.iter();
        let view = cells.map(|(id, (source, _))| KeysView {
            uri: source.uri.clone(),
            fetched: self.known.get(id).map(|(at, _)| at.to_string()),
        });
        view.collect()
    }
}

/// `id` is hexadecimal digits.
fn file(id: &str) -> String {
    format!("keys/{id}.json")
}

async fn talk(
    links: &Links,
    me: &Me,
    wants: &mut mpsc::Receiver<Wanted>,
    fetched: &mpsc::Sender<Fetched>,
) -> io::Result<()> {
    let head = StreamHead::to(Ask::Keys.authority());
    let stream = links.open_control(&me.site, &head).await;
    let (reader, mut writer) = tokio::io::split(stream.map_err(io::Error::other)?);
    let mut lines = Lines::new(reader, MAX_FETCHED);
    loop {
        tokio::select! {
            line = lines.next::<Fetched>() => match line? {
                None => return Ok(()),
                Some(line) => {
                    if fetched.send(line).await.is_err() {
                        return Ok(());
                    }
                }
            },
            Some(want) = wants.recv() => send(&mut writer, &want).await?,
        }
    }
}
