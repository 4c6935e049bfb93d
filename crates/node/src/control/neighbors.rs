//! BGP neighbours: sessions this node opens, kept open.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use base::{Backoff, Rng, SiteName};
use plan::{Compiled, Neighbor};
use runtime::{Task, Tasks};
use speaker::{Handle, PeerConfig, PeerId};
use tokio::sync::watch;
use tunnel::{Links, StreamHead};

use crate::authority::Ask;

/// A neighbour that cannot be reached is tried again after 50 ms to 2 s.
const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

/// The neighbours in force.
pub(crate) struct Neighbors {
    tasks: Tasks,
    links: Links,
    me: SiteName,
    /// The sites to which there is a link.
    linked: watch::Receiver<BTreeSet<SiteName>>,
    now: BTreeMap<SiteName, (Neighbor, Option<Task>)>,
}

impl Neighbors {
    pub(crate) fn new(
        tasks: Tasks,
        links: Links,
        me: SiteName,
        linked: watch::Receiver<BTreeSet<SiteName>>,
    ) -> Self {
        Neighbors {
            tasks,
            links,
            me,
            linked,
            now: BTreeMap::new(),
        }
    }

    /// Make the neighbours those of `table`.
    pub(crate) async fn apply(&mut self, table: &Compiled, handle: &Handle) {
        let wanted = &table.fabric.neighbors;
        let gone: Vec<SiteName> = self
            .now
            .iter()
            .filter(|(site, (neighbor, _))| wanted.get(*site) != Some(neighbor))
            .map(|(site, _)| site.clone())
            .collect();
        for site in gone {
            let Some((neighbor, task)) = self.now.remove(&site) else {
                continue;
            };
            if let Some(task) = task {
                task.abort();
            }
            if !wanted.contains_key(&site) {
                let _ = handle.remove(PeerId(neighbor.node.0)).await;
            }
        }
        for (site, neighbor) in wanted {
            if self.now.contains_key(site) {
                continue;
            }
            let task = neighbor.dial.then(|| {
                let peer = peer_config(table, neighbor);
                let session = Session {
                    links: self.links.clone(),
                    me: self.me.clone(),
                    site: site.clone(),
                    linked: self.linked.clone(),
                };
                let session = session.keep(peer, handle.clone());
                self.tasks.spawn_local("bgp-neighbor", session)
            });
            self.now.insert(site.clone(), (*neighbor, task));
        }
    }
}

/// How far a neighbour is trusted, and what it hears.
pub(crate) fn peer_config(table: &Compiled, neighbor: &Neighbor) -> PeerConfig {
    match (table.numbers.pop, neighbor.pop) {
        (true, true) => PeerConfig::pop(neighbor.node),
        (true, false) => PeerConfig::gateway(neighbor.node, neighbor.site),
        (false, true | false) => PeerConfig::reflector(neighbor.node, table.numbers.tenant),
    }
}

/// A session that this node opens.
struct Session {
    links: Links,
    me: SiteName,
    site: SiteName,
    linked: watch::Receiver<BTreeSet<SiteName>>,
}

impl Session {
    async fn keep(mut self, peer: PeerConfig, handle: Handle) {
        let mut backoff = Backoff::new(FIRST, MOST);
        let mut rng = Rng::new(runtime::now().as_nanos());
        let site = self.site.clone();
        let head = StreamHead::to(Ask::BgpOf(site.clone()).authority());
        // Between PoPs it goes over others where there is no link.
        let over = self.me.is_pop();
        loop {
            let linked = self
                .linked
                .wait_for(|linked| over || linked.contains(&site));
            if linked.await.is_err() {
                return;
            }
            match self.links.open_control(&self.me, &head).await {
                Ok(stream) => {
                    tracing::info!(peer = %site, "BGP session opened");
                    let started = runtime::now();
                    let close = handle.session(peer.clone(), stream).await;
                    tracing::info!(peer = %site, %close, "BGP session ended");
                    if runtime::now().since(started) > MOST {
                        backoff.reset();
                    }
                }
                Err(error) => {
                    let error = base::Chain(&error);
                    tracing::debug!(peer = %site, %error, "BGP neighbour is not there");
                }
            }
            tokio::time::sleep(backoff.next_wait(&mut rng)).await;
        }
    }
}
