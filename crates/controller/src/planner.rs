//! What each site should run, as a signed chain of updates; on a thread of its own.
//!
//! For every new state of the world (states that come while it works are taken together) each
//! site is projected anew. Where that differs from the end of its chain, the difference is signed
//! and becomes the next link; after [`MAX_DELTAS`] links a full update begins a new chain. Streams
//! look at the [`Board`] and send what their node lacks, so a slow one holds nobody up and holds
//! no queue.

use std::{collections::BTreeMap, sync::Arc};

use api::{
    CertificateSource, ObjectKey, Spec,
    sync::{Down, MAX_DELTAS, MAX_LINE_BYTES, Signed, Update},
};
use base::{Revision, SiteName, WallTime};
use bytes::Bytes;
use pki::Signer;
use plan::Projection;
use runtime::Drain;
use tokio::sync::watch;

use crate::{ledger::State, metrics::Meters};

/// All chains, as of one state of the world.
#[derive(Debug, Default)]
pub(crate) struct Board {
    /// The state they stand for.
    pub(crate) revision: Revision,
    pub(crate) chains: BTreeMap<SiteName, Arc<Chain>>,
}

/// What one site should run, and the updates that lead there.
#[derive(Debug)]
pub(crate) struct Chain {
    content: Arc<Projection>,
    /// The first is full; each is based on the one before it.
    links: Vec<Link>,
}

/// One signed update.
#[derive(Clone, Debug)]
struct Link {
    revision: Revision,
    /// [`Down::Signed`] as it goes over the wire, with its line feed.
    line: Bytes,
}

impl Chain {
    /// The revision the site should run.
    pub(crate) fn head(&self) -> Revision {
        self.links.last().map_or(Revision(0), |link| link.revision)
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

    /// The lines that lead from `have` to the head: the links after it, or all of them if it is
    /// none of this chain.
    pub(crate) fn after(&self, have: Option<Revision>) -> impl Iterator<Item = (Revision, Bytes)> {
        let at = self.links.iter().position(|link| Some(link.revision) == have);
        let rest = &self.links[at.map_or(0, |at| at + 1)..];
        rest.iter().map(|link| (link.revision, link.line.clone()))
    }
}

/// The task's own things.
pub(crate) struct Planner {
    pub(crate) planet: String,
    pub(crate) signer: Signer,
    pub(crate) states: watch::Receiver<Arc<State>>,
    pub(crate) board: watch::Sender<Arc<Board>>,
    pub(crate) meters: Arc<Meters>,
}

impl Planner {
    /// Works until the drain begins or the ledger is gone.
    pub(crate) async fn run(mut self, drain: Drain) {
        loop {
            let state = Arc::clone(&self.states.borrow_and_update());
            let next = self.turn(&state, runtime::wall());
            self.board.send_replace(Arc::new(next));
            tokio::select! {
                changed = self.states.changed() => if changed.is_err() { return },
                () = drain.draining() => return,
            }
        }
    }

    fn turn(&self, state: &State, now: WallTime) -> Board {
        let before = Arc::clone(&self.board.borrow());
        let mut board = Board { revision: state.revision, chains: BTreeMap::new() };
        for (site, ..) in state.world.sites() {
            let content = content(state, &site);
            let old = before.chains.get(&site);
            let chain = match old {
                Some(old) if *old.content == content => Some(Arc::clone(old)),
                old => match self.extend(old, content, &site, state.revision, now) {
                    Ok(chain) => Some(Arc::new(chain)),
                    Err(error) => {
                        let site = site.to_string();
                        tracing::error!(site, error, "no update can be made for a site");
                        old.cloned()
                    }
                },
            };
            board.chains.extend(chain.map(|chain| (site, chain)));
        }
        board
    }

    fn extend(
        &self,
        old: Option<&Arc<Chain>>,
        content: Projection,
        site: &SiteName,
        revision: Revision,
        now: WallTime,
    ) -> Result<Chain, String> {
        let full = Update {
            planet: self.planet.clone(),
            site: site.clone(),
            base: None,
            revision,
            issued: now,
            put: Vec::new(),
            delete: Vec::new(),
            sites: None,
        };
        let old = old.filter(|old| old.links.len() <= MAX_DELTAS && old.head() < revision);
        let (update, mut links) = match old {
            Some(old) => (delta(full, old, &content), old.links.clone()),
            None => {
                let put = content.resources.values().cloned().collect();
                (Update { put, sites: Some(content.sites.clone()), ..full }, Vec::new())
            }
        };
        links.push(Link { revision, line: self.sign(&update)? });
        self.meters.updates.inc();
        Ok(Chain { content: Arc::new(content), links })
    }

    fn sign(&self, update: &Update) -> Result<Bytes, String> {
        let payload = serde_json::to_string(update).map_err(|e| e.to_string())?;
        let signature =
            self.signer.sign(payload.as_bytes()).map_err(|e| base::Chain(&e).to_string())?;
        let signed = Signed {
            payload,
            signature: crate::base64(signature),
            chain: self.signer.chain().iter().map(crate::base64).collect(),
        };
        let line = crate::fabric::line(&Down::Signed(signed)).map_err(|e| e.to_string())?;
        if line.len() > MAX_LINE_BYTES {
            return Err(format!("the update has {} bytes, {MAX_LINE_BYTES} at most", line.len()));
        }
        Ok(line)
    }
}

/// What changed since the end of the chain.
fn delta(empty: Update, old: &Chain, content: &Projection) -> Update {
    let (was, is) = (&old.content.resources, &content.resources);
    Update {
        base: Some(old.head()),
        put: is
            .iter()
            .filter(|(key, object)| was.get(key) != Some(object))
            .map(|(_, object)| object.clone())
            .collect(),
        delete: was.keys().filter(|key| !is.contains_key(key)).cloned().collect(),
        sites: (old.content.sites != content.sites).then(|| content.sites.clone()),
        ..empty
    }
}

/// The projection, with the keys and chains that the controller made filled in.
fn content(state: &State, site: &SiteName) -> Projection {
    let mut projection = plan::project(&state.world, &state.ids, site);
    for (key, object) in &mut projection.resources {
        let (Spec::Certificate(spec), Some(made)) = (&mut object.spec, state.material.get(key))
        else {
            continue;
        };
        spec.source = CertificateSource::Pem;
        spec.certificate = Some(made.certificate.clone());
        spec.private_key = Some(made.private_key.clone());
    }
    projection
}
