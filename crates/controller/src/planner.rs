//! What each site should run, as a chain of signed updates; on a thread of its own.
//!
//! For every new state of the world (states that come while it works are taken together, and when
//! changes do not end it works a tenth of the time) each site is projected anew. Where that differs
//! from the end of its chain, the difference is signed
//! and becomes the next link; after [`MAX_DELTAS`] links a new chain begins, and with it comes a
//! full update. Streams look at the [`Board`] and send what their node lacks: the links after what
//! it has, or a full update, which is signed when it is first asked for. So a slow stream holds
//! nobody up and holds no queue.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use api::{
    CertificateSource, ObjectKey, Spec,
    sync::{Down, MAX_DELTAS, MAX_LINE_BYTES, Signed, Update},
};
use base::{Instant, Revision, SiteName, WallTime};
use bytes::Bytes;
use pki::Signer;
use plan::Projection;
use runtime::Drain;
use tokio::sync::{Notify, watch};

use crate::{ledger::State, metrics::Meters};

/// So many turns follow each other at once: somebody changes a few things, and wants to see it.
const AT_ONCE: u32 = 8;
/// And then one in this time, or in ten times what one takes if that is longer: each is an update that
/// every site concerned takes in whole, so a thousand changes one after the other are to be far fewer
/// of them, the larger the planet.
const THEN_EVERY: Duration = Duration::from_millis(100);
const TIMES: u32 = 10;
/// But never rarer than so.
const RARELY: Duration = Duration::from_secs(1);

/// All chains, as of one state of the world.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// The state they stand for.
    pub(crate) revision: Revision,
    pub(crate) chains: BTreeMap<SiteName, Arc<Chain>>,
    /// Somebody waits for a newer one: the next turn is at once.
    pub(crate) asked: Arc<Notify>,
}

/// What one site should run, and the updates that lead there.
#[derive(Debug)]
pub(crate) struct Chain {
    site: SiteName,
    content: Arc<Projection>,
    /// The revision the first link is based on.
    start: Revision,
    /// Deltas; each is based on the one before it.
    links: Vec<Link>,
    /// The full update to the head, once somebody needed it.
    full: OnceLock<Result<Bytes, String>>,
}

/// One signed delta.
#[derive(Clone, Debug)]
struct Link {
    revision: Revision,
    /// [`Down::Signed`] as it goes over the wire, with its line feed.
    line: Bytes,
}

impl Chain {
    fn new(site: SiteName, content: Projection, start: Revision, links: Vec<Link>) -> Self {
        Chain {
            site,
            content: Arc::new(content),
            start,
            links,
            full: OnceLock::new(),
        }
    }

    /// The revision the site should run.
    pub(crate) fn head(&self) -> Revision {
        self.links.last().map_or(self.start, |link| link.revision)
    }

    /// Does the site need this object?
    pub(crate) fn concerns(&self, key: &ObjectKey) -> bool {
        self.content.resources.contains_key(key)
    }

    /// The revision a site has to run so that a change made by `revision` holds there.
    pub(crate) fn carries(&self, revision: Revision) -> Revision {
        let first = self.links.iter().find(|link| link.revision >= revision);
        first.map_or(self.head(), |link| link.revision)
    }

    /// The lines that lead a node from `have` to the head: the links after it, or one full update
    /// if it stands outside of this chain.
    ///
    /// # Errors
    /// The full update cannot be made: one sentence.
    pub(crate) fn after(
        &self,
        have: Option<Revision>,
        author: &Author,
    ) -> Result<Vec<Bytes>, String> {
        let from = match have {
            Some(have) if have == self.start => Some(0),
            Some(have) => self
                .links
                .iter()
                .position(|l| l.revision == have)
                .map(|at| at + 1),
            None => None,
        };
        let Some(from) = from else {
            let full = self.full.get_or_init(|| author.full(self, runtime::wall()));
            return full.clone().map(|line| vec![line]);
        };
        Ok(self.links[from..]
            .iter()
            .map(|link| link.line.clone())
            .collect())
    }
}

/// Writes and signs updates.
pub(crate) struct Author {
    pub(crate) planet: String,
    pub(crate) signer: Signer,
    pub(crate) meters: Arc<Meters>,
}

impl Author {
    fn full(&self, chain: &Chain, now: WallTime) -> Result<Bytes, String> {
        let (content, revision) = (&chain.content, chain.head());
        let update = Update {
            put: content.resources.values().map(|o| (**o).clone()).collect(),
            sites: Some(content.sites.clone()),
            ..self.empty(&chain.site, None, revision, now)
        };
        self.sign(&update)
    }

    fn delta(
        &self,
        old: &Chain,
        content: &Projection,
        revision: Revision,
        now: WallTime,
    ) -> Result<Bytes, String> {
        let (was, is) = (&old.content.resources, &content.resources);
        let update = Update {
            put: is
                .iter()
                .filter(|(key, object)| was.get(key) != Some(object))
                .map(|(_, object)| (**object).clone())
                .collect(),
            delete: was
                .keys()
                .filter(|key| !is.contains_key(key))
                .cloned()
                .collect(),
            sites: (old.content.sites != content.sites).then(|| content.sites.clone()),
            ..self.empty(&old.site, Some(old.head()), revision, now)
        };
        self.sign(&update)
    }

    fn empty(
        &self,
        site: &SiteName,
        base: Option<Revision>,
        revision: Revision,
        issued: WallTime,
    ) -> Update {
        Update {
            planet: self.planet.clone(),
            site: site.clone(),
            base,
            revision,
            issued,
            put: Vec::new(),
            delete: Vec::new(),
            sites: None,
        }
    }

    fn sign(&self, update: &Update) -> Result<Bytes, String> {
        let payload = serde_json::to_string(update).map_err(|e| e.to_string())?;
        let signature = self
            .signer
            .sign(payload.as_bytes())
            .map_err(|e| base::Chain(&e).to_string())?;
        let signed = Signed::new(payload, &signature, self.signer.chain());
        let line = crate::fabric::line(&Down::Signed(signed)).map_err(|e| e.to_string())?;
        if line.len() > MAX_LINE_BYTES {
            return Err(format!(
                "the update has {} bytes, {MAX_LINE_BYTES} at most",
                line.len()
            ));
        }
        self.meters.updates.inc();
        Ok(line)
    }
}

/// How soon the next turn may be.
struct Pace {
    /// Turns that may still follow at once.
    left: u32,
    /// Since when there is one more in every [`THEN_EVERY`].
    since: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Pace {
            left: AT_ONCE,
            since: now,
        }
    }

    /// A turn that `took` so long ended at `now`; how long the next one has to wait.
    fn turned(&mut self, now: Instant, took: Duration) -> Duration {
        let every = (took * TIMES).clamp(THEN_EVERY, RARELY);
        let more = now.since(self.since).as_nanos() / every.as_nanos();
        let more = u32::try_from(more).unwrap_or(AT_ONCE).min(AT_ONCE);
        if more > 0 {
            self.since = now;
            self.left = (self.left + more).min(AT_ONCE);
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Duration::ZERO
            }
            None => {
                // The one that comes then is the next one.
                self.since = self.since + every;
                self.since.since(now)
            }
        }
    }
}

/// The task's own things.
pub(crate) struct Planner {
    pub(crate) author: Arc<Author>,
    pub(crate) states: watch::Receiver<Arc<State>>,
    pub(crate) board: watch::Sender<Arc<Board>>,
}

impl Planner {
    /// Works until the drain begins or the ledger is gone.
    pub(crate) async fn run(mut self, drain: Drain) {
        let mut pace = Pace::new(runtime::now());
        loop {
            let state = Arc::clone(&self.states.borrow_and_update());
            let began = runtime::now();
            let next = self.turn(&state, runtime::wall());
            self.board.send_replace(Arc::new(next));
            runtime::memory::churned();
            let now = runtime::now();
            let wait = pace.turned(now, now.since(began));
            if !wait.is_zero() {
                let asked = Arc::clone(&self.board.borrow().asked);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = asked.notified() => {}
                    () = drain.draining() => return,
                }
            }
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return },
                () = drain.draining() => return,
            }
        }
    }

    fn turn(&self, state: &State, now: WallTime) -> Board {
        let before = Arc::clone(&self.board.borrow());
        let mut board = Board {
            revision: state.revision,
            chains: BTreeMap::new(),
            asked: Arc::clone(&before.asked),
        };
        for (site, ..) in state.world.sites() {
            let content = content(state, &site);
            let chain = match before.chains.get(&site) {
                Some(old) if *old.content == content => Arc::clone(old),
                Some(old) => Arc::new(self.extend(old, content, state.revision, now)),
                None => Arc::new(Chain::new(
                    site.clone(),
                    content,
                    state.revision,
                    Vec::new(),
                )),
            };
            board.chains.insert(site, chain);
        }
        board
    }

    fn extend(&self, old: &Chain, content: Projection, revision: Revision, now: WallTime) -> Chain {
        let site = old.site.clone();
        if old.links.len() >= MAX_DELTAS {
            return Chain::new(site, content, revision, Vec::new());
        }
        match self.author.delta(old, &content, revision, now) {
            Ok(line) => {
                let mut links = old.links.clone();
                links.push(Link { revision, line });
                Chain::new(site, content, old.start, links)
            }
            Err(error) => {
                tracing::error!(%site, error, "no delta can be made: a new chain begins");
                Chain::new(site, content, revision, Vec::new())
            }
        }
    }
}

/// The projection, with the keys and chains that the controller made filled in.
fn content(state: &State, site: &SiteName) -> Projection {
    let mut projection = plan::project(&state.world, &state.ids, site);
    for (key, object) in &mut projection.resources {
        let Some(made) = state.material.get(key) else {
            continue;
        };
        let Spec::Certificate(spec) = &mut Arc::make_mut(object).spec else {
            continue;
        };
        spec.source = CertificateSource::Pem;
        spec.certificate = Some(made.certificate.clone());
        spec.private_key = Some(made.private_key.clone());
    }
    projection
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_turns_are_at_once_and_many_are_spread() {
        for (took, every) in [(1, 100), (40, 400), (500, 1000)]
            .map(|(took, every)| (Duration::from_millis(took), Duration::from_millis(every)))
        {
            let mut now = Instant::ZERO;
            let mut pace = Pace::new(now);
            for _ in 0..AT_ONCE {
                assert_eq!(pace.turned(now, took), Duration::ZERO);
            }
            let mut turns = 0;
            while now.since(Instant::ZERO) < every * 20 {
                now = now + pace.turned(now, took).max(Duration::from_millis(1));
                turns += 1;
            }
            assert!((19..=22).contains(&turns), "{turns} turns");
            now = now + every * AT_ONCE;
            for _ in 0..AT_ONCE {
                assert_eq!(pace.turned(now, took), Duration::ZERO);
            }
        }
    }
}
