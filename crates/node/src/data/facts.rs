//! What was announced, as it was last, on disk: by it a data part that starts again serves while its
//! control part is away.

use std::{cell::Cell, collections::BTreeSet, rc::Rc, time::Duration};

use base::Instant;
use plan::{Brain, Event, RouteKey, facts};
use runtime::Tasks;

use crate::state::State;

/// The file in the state folder.
const FILE: &str = "facts";
/// Changes are written so long after the first of them, and for each route a little later: a
/// hundredth of the time then goes into it at most.
const PAUSE: Duration = Duration::from_secs(2);
const PAUSE_A_ROUTE: Duration = Duration::from_micros(100);

/// The routes on disk. Only of a data part that is a process of its own: in one process with its
/// control part it hears everything anew as soon as it could serve, or begins with what the process
/// before it has heard.
pub(super) struct Facts {
    state: Option<State>,
    /// What it began with, and was not heard since.
    old: BTreeSet<RouteKey>,
    /// Something is other than on disk, since then.
    changed: Option<Instant>,
    writing: Rc<Cell<bool>>,
}

impl Facts {
    pub(super) fn new(state: Option<State>) -> Self {
        Facts {
            state,
            old: BTreeSet::new(),
            changed: None,
            writing: Rc::default(),
        }
    }

    /// Tells the brain what was announced last: as the process before says, or as it is on disk.
    pub(super) fn begin(&mut self, brain: &mut Brain, inherited: Option<Vec<u8>>) {
        let on_disk = |state: &&State| state.path(FILE).exists();
        let octets = match (inherited, self.state.as_ref().filter(on_disk)) {
            (Some(octets), _) => octets,
            (None, None) => return,
            (None, Some(state)) => state.read(FILE).unwrap_or_else(|error| {
                tracing::warn!(error = %base::Chain(&error), "what was announced last is not known");
                Vec::new()
            }),
        };
        let (routes, damaged) = facts::read(&octets);
        if damaged > 0 {
            tracing::warn!(
                octets = damaged,
                "of what was announced last some is damaged"
            );
        }
        tracing::info!(routes = routes.len(), "serving by what was announced last");
        for (key, value) in routes {
            self.old.insert(key.clone());
            brain.handle(runtime::now(), Event::Route(key, Some(value)));
        }
    }

    /// This is announced, or is not any more.
    pub(super) fn heard(&mut self, key: &RouteKey) {
        self.old.remove(key);
        self.changed.get_or_insert_with(runtime::now);
    }

    /// The control part has said everything: what it did not say is not true any more.
    pub(super) fn heard_all(&mut self, brain: &mut Brain) {
        for key in std::mem::take(&mut self.old) {
            self.changed.get_or_insert_with(runtime::now);
            brain.handle(runtime::now(), Event::Route(key, None));
        }
    }

    /// Writes what changed, if it is time.
    pub(super) fn tick(&mut self, brain: &Brain, tasks: &Tasks) {
        let Some(state) = self.state.clone().filter(|_| !self.writing.get()) else {
            return;
        };
        let count = u32::try_from(brain.routes().count()).unwrap_or(u32::MAX);
        let pause = PAUSE + PAUSE_A_ROUTE.saturating_mul(count);
        let is_due = |since: &mut Instant| runtime::now().since(*since) >= pause;
        if self.changed.take_if(is_due).is_none() {
            return;
        }
        let octets = facts::write(brain.routes());
        self.writing.set(true);
        let writing = Rc::clone(&self.writing);
        tasks.spawn_local("facts", async move {
            let write = move || state.write(FILE, &octets, 0o600);
            if let Ok(Err(error)) = tokio::task::spawn_blocking(write).await {
                let error = base::Chain(&error).to_string();
                tracing::error!(error, "what is announced cannot be kept on disk");
            }
            writing.set(false);
        });
    }
}
