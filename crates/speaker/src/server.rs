//! The speaker over TCP: for `sealane bgp`, and toward routers that a site or a `PoP` has.
//!
//! Threads own shards of the table and the sessions of their neighbours (`tasks.rs` has the
//! picture). A neighbour's UPDATE is validated on the thread of its session, its routes go to
//! the shards that own them, and what these say goes back as octets that are shared by all
//! receivers.

mod config;
mod hops;
mod neighbor;
mod outbox;
mod restart;
mod tasks;
mod view;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bgp::table::{PeerIndex, Shard, ShardConfig, shard_of};
use runtime::{Tasks, Thread, net::router};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use self::{
    neighbor::{Door, Word},
    restart::Restart,
    tasks::MAIL,
    worker::{Mail, Worker},
};

pub use crate::bfd::{Bfd, Reach};
pub use bgp::{
    Origin, policy,
    table::{Filter, Kind, PathView, RouteView, Sizes, Why},
    wire::{Attribute, AttributesView, Family, describe, parse_prefix},
};
pub use config::{
    BfdConfig, NeighborConfig, NeighborFamily, NextHopChoice, Secret, ServerConfig, StaticRoute,
};
pub use neighbor::Order;
pub use path::bfd::Timers;
pub use view::{NeighborView, RouteQuery, Routes, SessionView};

/// Why a speaker does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The system refused a thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// BFD has no thread.
    #[error("cannot start BFD")]
    Bfd(#[source] io::Error),
    /// More neighbours than a table can number.
    #[error("more than 65535 neighbours")]
    TooMany,
}

/// A running speaker; dropping all handles leaves it running.
#[derive(Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
    mail: Vec<mpsc::Sender<Mail>>,
    threads: Arc<Vec<Thread>>,
    listeners: Tasks,
}

/// A neighbour, for people.
#[derive(Clone, Debug)]
pub struct Neighbor {
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: u32,
    /// What it is to us.
    pub kind: Kind,
    /// Its session, if its thread answers.
    pub session: Option<SessionView>,
    /// Routes it said, and that it was told, by family.
    pub counts: BTreeMap<Family, (usize, usize)>,
}

impl Server {
    /// Listen, start the threads, and begin to dial.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(config: ServerConfig) -> Result<Server, ServerError> {
        if config.neighbors.len() >= usize::from(u16::MAX) {
            return Err(ServerError::TooMany);
        }
        let config = Arc::new(config);
        let count = config.shards.max(1);
        let (mail, boxes): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(MAIL)).unzip();
        let mut listeners = Vec::new();
        for address in &config.listen {
            let listener =
                router::listener(*address).map_err(|error| ServerError::Listen(*address, error))?;
            neighbor::prepare_listener(&listener, *address, &config.neighbors)
                .map_err(|error| ServerError::Listen(*address, error))?;
            listeners.push(listener);
        }
        let numbered = (1..).map(PeerIndex).zip(&config.neighbors);
        let keeps =
            |(_, n): &(PeerIndex, &NeighborConfig)| config.restarted && n.restart_time.is_some();
        let awaited = numbered.filter(keeps).map(|(peer, _)| peer);
        let restart = Arc::new(Restart::new(awaited));
        let watches = config.neighbors.iter().any(|n| n.bfd.is_some());
        let bfd = match &config.bfd {
            Some(bfd) => Some(bfd.clone()),
            None if watches => Some(Bfd::start().map_err(ServerError::Bfd)?),
            None => None,
        };
        let mut threads = Vec::new();
        for (index, mailbox) in boxes.into_iter().enumerate() {
            let (config, mail) = (config.clone(), mail.clone());
            let (restart, bfd) = (restart.clone(), bfd.clone());
            let thread = runtime::thread(&format!("bgp-{index}"), move |tasks| {
                work(tasks, index, config, mail, mailbox, restart, bfd)
            });
            threads.push(thread.map_err(ServerError::Thread)?);
        }
        let server = Server {
            config,
            mail,
            threads: Arc::new(threads),
            listeners: Tasks::new("bgp-listen"),
        };
        for listener in listeners {
            let accept = server.clone().accept(listener);
            server.listeners.spawn("accept", accept);
        }
        Ok(server)
    }

    /// Say good-bye to every neighbour and end, within `deadline`.
    pub async fn stop(&self, deadline: Duration) {
        for thread in &*self.threads {
            thread.start_drain();
        }
        let ended = async {
            for thread in &*self.threads {
                thread.exited().await;
            }
        };
        let both = async { tokio::join!(ended, self.listeners.drain(Duration::from_millis(100))) };
        if tokio::time::timeout(deadline, both).await.is_err() {
            tracing::warn!("the speaker's threads did not finish in time");
        }
    }

    /// Say a route, or say it anew.
    pub async fn originate(&self, route: StaticRoute) {
        let thread = shard_of(route.family, &route.key, self.mail.len());
        // A thread that is gone speaks to nobody.
        let _ = self.mail[thread]
            .send(Mail::Originate(Box::new(route)))
            .await;
    }

    /// Take back what we said.
    pub async fn retract(&self, family: Family, key: Vec<u8>) {
        let thread = shard_of(family, &key, self.mail.len());
        let _ = self.mail[thread].send(Mail::Retract(family, key)).await;
    }

    /// Who a number stands for.
    #[must_use]
    pub fn address(&self, peer: PeerIndex) -> Option<IpAddr> {
        let at = usize::from(peer.0).checked_sub(1)?;
        self.config.neighbors.get(at).map(|n| n.address)
    }

    /// Do something to a neighbour's session; is there such a neighbour?
    pub async fn order(&self, address: IpAddr, order: Order) -> bool {
        let Some(peer) = self.peer(address) else {
            return false;
        };
        let home = home_of(peer, self.mail.len());
        self.mail[home]
            .send(Mail::Neighbor(peer, Word::Order(order)))
            .await
            .is_ok()
    }

    /// Routes, of all threads.
    pub async fn routes(&self, query: RouteQuery) -> Routes {
        let mut all = Routes::default();
        // Every shard has what there is of RT constraint.
        let threads = if query.family == Family::RTC {
            &self.mail[..1]
        } else {
            &self.mail[..]
        };
        for thread in threads {
            let (reply, answer) = oneshot::channel();
            if thread.send(Mail::Query(query.clone(), reply)).await.is_ok()
                && let Ok(found) = answer.await
            {
                all.more |= found.more;
                all.items.extend(found.items);
            }
        }
        all
    }

    /// All neighbours.
    pub async fn neighbors(&self) -> Vec<Neighbor> {
        let all = self.config.neighbors.iter().map(|neighbor| Neighbor {
            address: neighbor.address,
            asn: neighbor.asn,
            kind: neighbor.kind,
            session: None,
            counts: BTreeMap::new(),
        });
        let mut all: Vec<Neighbor> = all.collect();
        for thread in &self.mail {
            let (reply, answer) = oneshot::channel();
            if thread.send(Mail::Neighbors(reply)).await.is_err() {
                continue;
            }
            let Ok(view) = answer.await else {
                continue;
            };
            for session in view.sessions {
                let at = usize::from(session.peer.0).wrapping_sub(1);
                if let Some(neighbor) = all.get_mut(at) {
                    neighbor.session = Some(session);
                }
            }
            for ((peer, family), (said, told)) in view.counts {
                if let Some(neighbor) = all.get_mut(usize::from(peer.0).wrapping_sub(1)) {
                    let sum = neighbor.counts.entry(family).or_default();
                    *sum = (sum.0 + said, sum.1 + told);
                }
            }
        }
        all
    }

    fn peer(&self, address: IpAddr) -> Option<PeerIndex> {
        let at = self
            .config
            .neighbors
            .iter()
            .position(|neighbor| neighbor.address == address)?;
        u16::try_from(at + 1).ok().map(PeerIndex)
    }

    async fn accept(self, listener: TcpListener) {
        let token = self.listeners.token();
        loop {
            let accepted = tokio::select! {
                () = token.draining() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection is not accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Some(peer) = self.peer(from.ip().to_canonical()) else {
                tracing::debug!(%from, "nobody we speak to");
                continue;
            };
            // To the thread of its session, whose epoll is another one.
            match stream.into_std() {
                Ok(stream) => {
                    let word = Word::Accepted(stream);
                    let home = home_of(peer, self.mail.len());
                    drop(self.mail[home].send(Mail::Neighbor(peer, word)).await);
                }
                Err(error) => tracing::warn!(%error, "a connection is lost"),
            }
        }
    }
}

fn home_of(peer: PeerIndex, threads: usize) -> usize {
    usize::from(peer.0) % threads
}

/// One thread.
fn work(
    tasks: Tasks,
    index: usize,
    config: Arc<ServerConfig>,
    threads: Vec<mpsc::Sender<Mail>>,
    mailbox: mpsc::Receiver<Mail>,
    restart: Arc<Restart>,
    bfd: Option<Bfd>,
) -> impl Future<Output = ()> {
    let mut families: Vec<Family> = Family::ALL.to_vec();
    let named = config.neighbors.iter().flat_map(|n| &n.families);
    families.extend(named.map(|named| named.family));
    families.sort_unstable();
    families.dedup();
    let mut shard = Shard::new(ShardConfig {
        asn: config.asn,
        node: config.node,
        families,
        seed: runtime::seed(),
        deferred: restart.is_under_way(),
        holds_ends: false,
        watched: Vec::new(),
        tells_constraint: index == 0,
    });
    if config.next_hop_interval.is_some() {
        shard.track_next_hops();
    }
    let count = threads.len();
    for route in &config.routes {
        if shard_of(route.family, &route.key, count) == index {
            shard.originate(route.family, &route.key, &[], &route.attributes());
        }
    }
    let worker = Rc::new(Worker::new(
        index,
        shard,
        &config.neighbors,
        threads,
        restart,
        bfd,
    ));
    for (at, peer) in (0..config.neighbors.len()).zip((1..).map(PeerIndex)) {
        if home_of(peer, count) == index {
            let (door, task) = neighbor::open(worker.clone(), peer, config.clone(), at);
            worker.doors.borrow_mut().insert(peer, door);
            tasks.spawn_local("neighbour", task);
        }
    }
    if index == 0 {
        // What they keep they keep no longer than this.
        let times = config.neighbors.iter().filter_map(|n| n.restart_time);
        let longest = times.max().unwrap_or_default();
        tasks.spawn_local("restart", worker.clone().end_restart(longest));
    }
    if let Some(interval) = config.next_hop_interval {
        tasks.spawn_local("next-hops", worker.clone().track_next_hops(interval));
    }
    tasks.spawn_local("pump", worker.clone().pump());
    tasks.spawn_local("levels", worker.clone().tell_levels());
    let token = tasks.token();
    async move {
        tokio::select! {
            () = worker.clone().read_mail(mailbox) => {}
            () = token.draining() => {
                let doors: Vec<Door> = worker.doors.borrow().values().cloned().collect();
                for door in &doors {
                    door.tell(Word::Order(Order::Shutdown));
                }
                for door in &doors {
                    door.closed().await;
                }
            }
        }
    }
}
