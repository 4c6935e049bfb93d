//! Routers beside the site: a speaker over TCP toward each, told of the VIPs that are up.
//!
//! Nothing that one router says reaches another: each has a speaker of its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use base::{Name, NodeId};
use plan::{Compiled, Router};
use runtime::Tasks;
use speaker::server::{
    Bfd, BfdConfig, Family, Kind, NeighborConfig, NeighborFamily, NextHopChoice, Secret, Server,
    ServerConfig, StaticRoute,
};
use tokio::sync::{mpsc, watch};

use crate::mark::Mark;

/// How long a session gets to say that it ends.
const DRAIN: Duration = Duration::from_secs(2);
/// The most routes kept of one router and family.
const MAX_ROUTES: u32 = 100_000;

/// The speakers by the names of the BGPPeers, for people.
pub(crate) type Shown = Arc<watch::Sender<BTreeMap<Name, Server>>>;

/// The routers in force.
pub(crate) struct Routers {
    tasks: Tasks,
    node: NodeId,
    wanted: BTreeMap<Name, Router>,
    running: BTreeMap<Name, (Router, Server)>,
    shown: Shown,
    /// The VIPs that are up; nobody is told anything before that is known.
    up: Option<BTreeSet<IpAddr>>,
    bfd: Option<Bfd>,
    mark: Mark,
    /// The control part before this one ended without a word: routers keep what it told.
    restarted: bool,
}

impl Routers {
    pub(crate) fn new(tasks: Tasks, state: &Path, shown: Shown) -> Self {
        let mark = Mark::new(state);
        Routers {
            tasks,
            node: NodeId(0),
            wanted: BTreeMap::new(),
            running: BTreeMap::new(),
            shown,
            up: None,
            bfd: None,
            restarted: mark.is_ours(),
            mark,
        }
    }

    /// Speak to the routers of `table`.
    pub(crate) async fn apply(&mut self, table: &Compiled) {
        self.node = table.numbers.node;
        self.wanted.clone_from(&table.routers);
        self.reconcile().await;
    }

    /// These VIPs, and no others, have a healthy endpoint.
    pub(crate) async fn tell(&mut self, up: BTreeSet<IpAddr>) {
        let Some(before) = self.up.replace(up.clone()) else {
            self.reconcile().await;
            return;
        };
        if before == up {
            return;
        }
        for (_, server) in self.running.values() {
            for gone in before.difference(&up) {
                let (family, key) = host_route(*gone);
                server.retract(family, key).await;
            }
            for vip in up.difference(&before) {
                server.originate(route(*vip)).await;
            }
        }
        tracing::info!(up = up.len(), "VIPs that routers are told of");
    }

    async fn reconcile(&mut self) {
        let Some(up) = self.up.clone() else { return };
        let wanted = &self.wanted;
        let gone = self
            .running
            .extract_if(.., |name, (router, _)| wanted.get(name) != Some(router));
        for (name, (_, server)) in gone {
            tracing::info!(%name, "the session with a router ends");
            self.tasks
                .spawn_local("router-stop", async move { server.stop(DRAIN).await });
        }
        for (name, router) in &self.wanted {
            if self.running.contains_key(name) {
                continue;
            }
            if self.bfd.is_none() && router.bfd.is_some() {
                self.bfd = Bfd::start()
                    .inspect_err(
                        |error| tracing::error!(%error, "paths to routers are not watched"),
                    )
                    .ok();
            }
            if let Err(error) = self.mark.set() {
                tracing::warn!(%error, "a restart will not be told to routers");
            }
            let routes = up.iter().map(|vip| route(*vip)).collect();
            let config = config(self.node, router, routes, self.bfd.clone(), self.restarted);
            match Server::start(config).await {
                Ok(server) => {
                    tracing::info!(%name, router = %router.address, "speaking to a router");
                    self.running.insert(name.clone(), (router.clone(), server));
                }
                Err(error) => {
                    let error = base::Chain(&error);
                    tracing::error!(%name, %error, "a router is not spoken to");
                }
            }
        }
        // Whoever comes later has kept nothing for us.
        self.restarted = false;
        self.show();
    }

    fn show(&self) {
        let running = self.running.iter();
        let all = running.map(|(name, (_, server))| (name.clone(), server.clone()));
        self.shown.send_replace(all.collect());
    }

    /// Say good-bye to all: what they were told is withdrawn.
    pub(crate) async fn stop(&mut self) {
        let running = std::mem::take(&mut self.running);
        self.show();
        let (working, mut done) = mpsc::channel::<()>(1);
        for (_, server) in running.into_values() {
            let working = working.clone();
            self.tasks.spawn_local("router-stop", async move {
                server.stop(DRAIN).await;
                drop(working);
            });
        }
        drop(working);
        // Nobody sends: it ends when all have ended.
        let _ = done.recv().await;
        if let Err(error) = self.mark.remove() {
            tracing::debug!(%error, "no mark to take away");
        }
    }
}

fn host_route(vip: IpAddr) -> (Family, Vec<u8>) {
    match vip {
        IpAddr::V4(v4) => (Family::IPV4, [&[32][..], &v4.octets()].concat()),
        IpAddr::V6(v6) => (Family::IPV6, [&[128][..], &v6.octets()].concat()),
    }
}

fn route(vip: IpAddr) -> StaticRoute {
    let (family, key) = host_route(vip);
    StaticRoute {
        family,
        key,
        // Toward a router that is our address on the session.
        next_hop: vip,
        communities: Vec::new(),
        local_pref: None,
        med: None,
    }
}

fn config(
    node: NodeId,
    router: &Router,
    routes: Vec<StaticRoute>,
    bfd: Option<Bfd>,
    restarted: bool,
) -> ServerConfig {
    let family = match router.address.ip() {
        IpAddr::V4(_) => Family::IPV4,
        IpAddr::V6(_) => Family::IPV6,
    };
    let kind = if router.asn == router.local_asn {
        Kind::NonClient
    } else {
        Kind::External
    };
    let neighbor = NeighborConfig {
        address: router.address.ip(),
        port: router.address.port(),
        asn: router.asn,
        kind,
        passive: false,
        local_address: router.local_address,
        password: router.password.clone().map(Secret),
        gtsm: router.gtsm,
        hold_time: router.hold_time,
        families: vec![NeighborFamily {
            family,
            add_path_send: 0,
            add_path_receive: false,
            max_routes: MAX_ROUTES,
        }],
        import: router.import.clone(),
        export: router.export.clone(),
        next_hop: NextHopChoice::Own,
        next_hop_addresses: Vec::new(),
        extended_messages: true,
        bfd: router
            .bfd
            .map(|bfd| BfdConfig::new(bfd.interval, bfd.multiplier, bfd.multihop)),
        restart_time: (!router.restart_time.is_zero()).then_some(router.restart_time),
        long_lived: Duration::ZERO,
    };
    ServerConfig {
        asn: router.local_asn,
        node,
        listen: Vec::new(),
        shards: 1,
        neighbors: vec![neighbor],
        bfd,
        routes,
        next_hop_interval: None,
        restarted,
    }
}
