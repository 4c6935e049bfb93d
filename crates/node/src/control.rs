//! The control half: probes, announces, reflects, relays intent. Everything it knows it can learn
//! again; the data half serves without it.

mod fetch;
pub(crate) mod keys;
pub(crate) mod neighbors;
mod probe;
pub(crate) mod relay;
mod routers;

use std::{collections::BTreeSet, rc::Rc, sync::Arc, time::Duration};

use base::SiteName;
use http::StatusCode;
use plan::{Brain, Compiled, Effect, Event, Me, Part, TargetKey};
use runtime::Tasks;
use speaker::{Handle, PeerConfig, Speaker, SpeakerConfig};
use tokio::sync::{mpsc, watch};
use tunnel::{Incoming, LinkEvent, Pipes, Side, Tunnel};

use crate::{
    ASN,
    authority::{self, Ask},
    bundle::Fixed,
    state::State,
};
use keys::Keys;
use neighbors::Neighbors;
use relay::{Relay, Tap};
use routers::Routers;
pub(crate) use routers::Shown;

/// Answers of probes and compilers under way; full: they wait.
const EVENTS: usize = 1024;

/// Sequence numbers are kept on disk this far ahead, so that it is written rarely.
const SEQUENCE_AHEAD: u32 = 4096;

/// What the control half is made of.
pub(crate) struct Config {
    pub(crate) me: Me,
    pub(crate) identity: pki::Identity,
    pub(crate) state: State,
    /// None with `--bundle`: nothing is signed and nothing is relayed.
    pub(crate) verifier: Option<pki::Verifier>,
    /// With `--bundle`: what to run.
    pub(crate) fixed: Fixed,
    /// The link to the data part, the dialler's end.
    pub(crate) pipes: Pipes,
    pub(crate) metrics: runtime::metrics::Metrics,
    /// For the admin socket.
    pub(crate) speaker: Arc<watch::Sender<Option<Handle>>>,
    /// For the admin socket: the speakers toward routers.
    pub(crate) shown: Shown,
}

struct Control {
    config_me: Me,
    state: State,
    tasks: Tasks,
    brain: Brain,
    chain: plan::Chain,
    verifier: Option<pki::Verifier>,
    events: mpsc::Sender<Event>,
    relay: Option<Rc<Relay>>,
    upstreams: watch::Sender<Vec<String>>,
    /// The sites to which there is a link.
    linked: watch::Sender<BTreeSet<SiteName>>,
    neighbors: Neighbors,
    routers: Routers,
    keys: Keys,
    speaker: Arc<watch::Sender<Option<Handle>>>,
    saved_sequence: Option<plan::Seq>,
}

/// Run the control half on this thread until the drain.
pub(crate) async fn run(tasks: Tasks, config: Config) {
    start(tasks.clone(), config).await;
    // Probes and streams under way: nobody needs their outcome.
    tasks.drain(Duration::ZERO).await;
}

async fn start(tasks: Tasks, config: Config) {
    let tunnel = match tunnel::start(&runtime::metrics::Metrics::default()) {
        Ok(tunnel) => tunnel,
        Err(error) => {
            tracing::error!(%error, "the control half has no thread for its link");
            return;
        }
    };
    let attached = tunnel
        .control
        .attach(config.identity.clone(), Side::Dialler, config.pipes);
    if let Err(error) = attached.await {
        tracing::error!(error = %base::Chain(&error), "the control half has no link to its data half");
        return;
    }
    let saved = config.state.sequence();
    let start = plan::Sequence::start(runtime::wall(), saved);
    let seed = runtime::now().as_nanos() ^ u64::from(start.0);
    let (events, inbox) = mpsc::channel(EVENTS);
    let (upstreams, upstreams_) = watch::channel(authority::first_upstreams(&config.me.site));
    let linked = watch::Sender::default();
    let (tap, taps) = mpsc::channel(EVENTS);
    let relay = config.verifier.clone().map(|verifier| {
        Rc::new(Relay {
            me: config.me.site.clone(),
            links: tunnel.links.clone(),
            state: config.state.clone(),
            verifier,
            tasks: tasks.clone(),
            upstreams: upstreams_,
            tap: tap.clone(),
            refusals: relay::Refusals::declare(&config.metrics),
        })
    });
    // A PoP of a planet serves many tenants; from manifests on disk it serves their owner.
    let anywhere = config.verifier.is_none() || !config.me.site.is_pop();
    let mut control = Control {
        keys: Keys::new(tasks.clone(), anywhere, &config.metrics),
        brain: Brain::new(Part::Control, config.me.clone(), seed, start),
        neighbors: Neighbors::new(
            tasks.clone(),
            tunnel.links.clone(),
            config.me.site.clone(),
            linked.subscribe(),
        ),
        linked,
        routers: Routers::new(tasks.clone(), &config.state.path(""), config.shown),
        config_me: config.me,
        state: config.state,
        tasks,
        chain: plan::Chain::without_envelopes(),
        verifier: config.verifier,
        events,
        relay,
        upstreams,
        speaker: config.speaker,
        saved_sequence: saved,
    };
    let mut fixed = config.fixed;
    if let Some(bundle) = fixed.first() {
        control
            .brain
            .handle(runtime::now(), Event::Bundle(Box::new(bundle)));
        control.carry_out().await;
    }
    control.work(tunnel, inbox, taps, fixed).await;
}

impl Control {
    async fn work(
        &mut self,
        mut tunnel: Tunnel,
        mut inbox: mpsc::Receiver<Event>,
        mut taps: mpsc::Receiver<Tap>,
        mut fixed: Fixed,
    ) {
        let token = self.tasks.token();
        loop {
            let now = runtime::now();
            let timer = self.brain.poll_timeout().map(|at| at.since(now));
            tokio::select! {
                () = token.draining() => break,
                Some(event) = inbox.recv() => self.brain.handle(runtime::now(), event),
                Some(tap) = taps.recv() => self.hear(tap).await,
                bundle = fixed.next() => {
                    let event = Event::Bundle(Box::new(bundle));
                    self.brain.handle(runtime::now(), event);
                }
                Some(incoming) = tunnel.reserved.recv() => self.answer(incoming),
                Some(incoming) = tunnel.services.recv() => {
                    incoming.refuse(StatusCode::NOT_FOUND, "control carries no service");
                }
                Some(event) = tunnel.events.recv() => {
                    // Without the data part there is nothing to work for.
                    if matches!(event, LinkEvent::Down { .. }) {
                        tracing::warn!("the data part is gone");
                        break;
                    }
                }
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {
                    self.brain.handle_timeout(runtime::now());
                }
            }
            self.carry_out().await;
        }
        self.speaker.send_replace(None);
        self.routers.stop().await;
        tunnel.control.drain().await;
    }

    async fn hear(&mut self, tap: Tap) {
        match tap {
            Tap::Signed(signed) => {
                let Some(verifier) = &self.verifier else {
                    return;
                };
                let site = &self.config_me.site;
                if let Ok(true) = self.chain.take(verifier, site, signed, runtime::wall()) {
                    let bundle = Box::new(self.chain.bundle().clone());
                    self.brain.handle(runtime::now(), Event::Bundle(bundle));
                }
            }
            Tap::Vips(up) => self.routers.tell(up).await,
            Tap::Links(up) => {
                let linked: BTreeSet<SiteName> = up.iter().map(|link| link.peer.clone()).collect();
                if *self.linked.borrow() != linked {
                    self.linked.send_replace(linked);
                    self.ask_upstreams();
                }
                self.brain.handle(runtime::now(), Event::Links(up));
            }
            Tap::Running(running) => {
                self.brain.handle(runtime::now(), Event::Running(running));
            }
            Tap::Trouble(trouble) => {
                let key = TargetKey {
                    tenant: trouble.tenant,
                    service: trouble.service,
                    address: trouble.address,
                };
                self.brain
                    .handle(runtime::now(), Event::Trouble(key, trouble.kind));
            }
        }
    }

    /// A stream from the data half: its own, or passed on from another site.
    fn answer(&mut self, incoming: Incoming) {
        let origin = incoming.head.origin.clone();
        match Ask::parse(&incoming.head.authority) {
            Some(Ask::Sync) => {
                let Some(relay) = self.relay.clone() else {
                    incoming.refuse(StatusCode::NOT_FOUND, "this node runs from a fixed bundle");
                    return;
                };
                let pop = self.config_me.site.is_pop();
                if origin.as_ref().is_some_and(|site| !pop || site.is_pop()) {
                    let why = "intent is passed on by PoPs, to gateways";
                    incoming.refuse(StatusCode::NOT_FOUND, why);
                    return;
                }
                let site = origin.unwrap_or_else(|| self.config_me.site.clone());
                let node = incoming
                    .head
                    .node
                    .clone()
                    .unwrap_or_else(|| self.config_me.node.clone());
                let Ok(stream) = incoming.accept() else {
                    return;
                };
                self.tasks.spawn_local("sync-downstream", async move {
                    let end = relay.serve(site.clone(), node, stream).await;
                    tracing::debug!(%site, error = ?end.err(), "site-sync downstream ended");
                });
            }
            Some(Ask::Bgp) => {
                let Some((handle, peer)) = self.bgp_peer(origin.as_ref()) else {
                    incoming.refuse(StatusCode::SERVICE_UNAVAILABLE, "not a neighbour yet");
                    return;
                };
                let Ok(stream) = incoming.accept() else {
                    return;
                };
                self.tasks.spawn_local("bgp-session", async move {
                    let close = handle.session(peer, stream).await;
                    tracing::info!(peer = ?origin.map(|o| o.to_string()), %close, "BGP session ended");
                });
            }
            Some(Ask::Keys) if origin.is_none() => {
                let shared = self.keys.shared();
                let Ok(stream) = incoming.accept() else {
                    return;
                };
                self.tasks.spawn_local("keys-downstream", async move {
                    let end = shared.serve(stream).await;
                    tracing::debug!(error = ?end.err(), "the stream of keys ended");
                });
            }
            Some(
                Ask::Keys
                | Ask::SyncOf(_)
                | Ask::BgpOf(_)
                | Ask::SyncOfController
                | Ask::JoinOfController,
            )
            | Some(Ask::SyncOfAnyPop)
            | None => incoming.refuse(StatusCode::NOT_FOUND, "no such control stream"),
        }
    }

    fn bgp_peer(&self, origin: Option<&SiteName>) -> Option<(Handle, PeerConfig)> {
        let table = self.brain.table()?;
        let handle = self.speaker.borrow().clone()?;
        let peer = match origin {
            None => PeerConfig::local(table.numbers.node),
            Some(site) => neighbors::peer_config(table, table.fabric.neighbors.get(site)?),
        };
        Some((handle, peer))
    }

    async fn carry_out(&mut self) {
        while let Some(effect) = self.brain.poll_effect() {
            match effect {
                Effect::Compile { bundle, cells } => {
                    let (me, events) = (self.config_me.clone(), self.events.clone());
                    crate::compile_elsewhere(&self.tasks, bundle, me, cells, events);
                }
                Effect::Publish(table) => self.publish(&table).await,
                Effect::Reject(revision, error) => {
                    let error = base::Chain(&error).to_string();
                    tracing::warn!(%revision, error, "the bundle does not compile; probing as before");
                }
                Effect::Probe(key, target) => {
                    let events = self.events.clone();
                    self.tasks.spawn_local("probe", async move {
                        let result = probe::probe(key, &target).await;
                        let _ = events.send(Event::Probed(key, result)).await;
                    });
                }
                // The table that makes the speaker comes out before anything is announced by it.
                // An error means that the speaker is gone, and this node with it.
                Effect::Originate(route) => {
                    let handle = self.speaker.borrow().clone();
                    if let Some(handle) = handle {
                        let _ = handle.originate(route).await;
                    }
                }
                Effect::Withdraw(key) => {
                    let handle = self.speaker.borrow().clone();
                    if let Some(handle) = handle {
                        let _ = handle.withdraw(key).await;
                    }
                }
                // A control half serves nobody.
                Effect::Endpoints { .. }
                | Effect::EndpointDown { .. }
                | Effect::Vips(_)
                | Effect::Ways(_) => {}
            }
        }
        self.save_sequence();
    }

    async fn publish(&mut self, table: &Arc<Compiled>) {
        let running = self.speaker.borrow().clone();
        let handle = match running {
            Some(handle) => handle,
            None => {
                let config = SpeakerConfig::new(table.numbers.node, ASN);
                let (speaker, handle, mut events) = Speaker::new(config);
                self.tasks.spawn_local("speaker", speaker.run());
                // Changes are the data half's business; here they are only let go.
                self.tasks.spawn_local("speaker-events", async move {
                    while events.recv().await.is_some() {}
                });
                self.speaker.send_replace(Some(handle.clone()));
                handle
            }
        };
        let _ = handle.set_site_table(table.site_table.clone()).await;
        self.neighbors.apply(table, &handle).await;
        self.routers.apply(table).await;
        self.keys.apply(table);
        self.ask_upstreams();
        // What was made for this table alone is let go.
        runtime::memory::churned();
    }

    /// Ask those for intent to whom there is a link.
    fn ask_upstreams(&self) {
        let Some(table) = self.brain.table() else {
            return;
        };
        let wanted = authority::upstreams(table, &self.linked.borrow());
        self.upstreams.send_if_modified(|now| {
            let changed = *now != wanted;
            now.clone_from(&wanted);
            changed
        });
    }

    fn save_sequence(&mut self) {
        let Some(high) = self.brain.sequence() else {
            return;
        };
        if self
            .saved_sequence
            .is_some_and(|saved| !high.is_after(saved))
        {
            return;
        }
        let mark = plan::Seq(high.0.wrapping_add(SEQUENCE_AHEAD));
        match self.state.save_sequence(mark) {
            Ok(()) => self.saved_sequence = Some(mark),
            Err(e) => tracing::warn!(error = %base::Chain(&e), "sequence cannot be kept"),
        }
    }
}
