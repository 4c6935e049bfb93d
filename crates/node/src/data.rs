//! The data half: owns the tunnels, the listeners, the node's key and the last good state, and
//! serves by them whatever becomes of everything else.

mod attach;
mod controller;
mod door;
mod facts;
mod intent;
mod keys;
mod report;
mod succession;
mod vips;

use std::{collections::BTreeSet, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use api::{
    AttachTransport,
    derived::LinkView,
    sync::{self, Down, Trouble, TroubleKind, Up},
};
use base::{Revision, SiteName};
use plan::{Brain, Compiled, Effect, Event, Me, OpenError, Part};
use proxy::{FailureKind, ListenerSpec, ProxyEvent, Snapshot, TunnelStream, Workers};
use runtime::{
    Tasks,
    metrics::{Counter, Metrics},
    tls::Credentials,
};
use speaker::{Handle, PeerConfig, Speaker, SpeakerConfig};
use tokio::sync::{mpsc, oneshot};
use tunnel::{
    DialTarget, Incoming, Joining, LinkEvent, LinkTable, Pipes, Prefer, Side, Standing, StreamHead,
    Tunnel,
};

use crate::{
    ASN, Patience,
    authority::Ask,
    bundle::Fixed,
    handover::{Bequest, Inheritance, Joined},
    keys::Fetched,
    otlp::Otlp,
    state::{Material, State, credentials},
};
use attach::{Attach, Measured};
use door::Door;
use facts::Facts;
use intent::Intent;
use keys::Keys;
pub(crate) use report::{Query, Report};
use succession::Succession;
use vips::Vips;

/// Changes of routes that are taken in before sets are built.
const BURST: usize = 1024;

/// Answers of compilers under way; full: they wait.
const EVENTS: usize = 16;

/// Status goes up at most this often.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// A session between the halves that ended is opened again after this.
const AGAIN: Duration = Duration::from_millis(50);

/// What the data half is made of.
pub(crate) struct Config {
    pub(crate) me: Me,
    pub(crate) state: State,
    /// None with `--bundle`: no tunnels.
    pub(crate) material: Option<Material>,
    /// With `--bundle`: what to run.
    pub(crate) fixed: Fixed,
    /// What the process before this one has given.
    pub(crate) inherited: Inheritance,
    /// What requests get to finish when this process ends.
    pub(crate) patience: Patience,
    pub(crate) identity: pki::Identity,
    /// Links to control parts, the acceptor's end, one after the other.
    pub(crate) parts: mpsc::Receiver<Pipes>,
    /// The control part is another process, and may be away when this one starts.
    pub(crate) is_apart: bool,
    pub(crate) queries: mpsc::Receiver<Query>,
    pub(crate) metrics: Metrics,
    pub(crate) workers: usize,
    pub(crate) access_log: Option<PathBuf>,
    pub(crate) access_fields: proxy::RecordFields,
    pub(crate) otlp: Option<Otlp>,
    /// Told once the first listeners serve (or there is nothing to serve).
    pub(crate) ready: oneshot::Sender<()>,
}

pub(crate) struct Data {
    me: Me,
    state: State,
    tasks: Tasks,
    brain: Brain,
    chain: plan::Chain,
    /// Envelopes of revisions that are being compiled: what to keep once they serve.
    unsaved: Vec<(Revision, Vec<Arc<sync::Signed>>)>,
    trust: Option<Trust>,
    workers: Rc<Workers>,
    links: tunnel::Links,
    control: tunnel::Control,
    events: mpsc::Sender<Event>,
    intent: Intent,
    attach: Attach,
    vips: Vips,
    keys: Keys,
    speaker: Option<Handle>,
    changes: mpsc::Sender<speaker::Event>,
    report: Report,
    facts: Facts,
    door: Rc<Door>,
    updates_refused: Counter,
    ready: Option<oneshot::Sender<()>>,
    /// What is waited for before the place of another process is taken.
    succession: Option<Succession>,
}

/// Key, certificate and CA: what tunnels are made with.
struct Trust {
    planet: pki::Planet,
    key: pki::NodeKey,
    credentials: Credentials,
    verifier: pki::Verifier,
    bootstrap: Vec<std::net::SocketAddr>,
}

/// Run the data half on this thread until the drain.
pub(crate) async fn run(tasks: Tasks, config: Config) {
    if let Err(error) = start(tasks.clone(), config).await {
        tracing::error!(error, "the data half cannot start");
    }
    // What is left keeps streams open that are gone by now.
    tasks.drain(Duration::ZERO).await;
}

async fn start(tasks: Tasks, config: Config) -> Result<(), String> {
    let words = |error: &dyn std::error::Error| base::Chain(error).to_string();
    let Inheritance { sockets, joined } = config.inherited;
    let begun = begin_tunnels(&config.metrics, joined);
    let (tunnel, facts, succession) = begun.map_err(|e| words(&e))?;
    let (control, identity, mut parts) = (tunnel.control.clone(), config.identity, config.parts);
    tasks.spawn_local("control-part", async move {
        while let Some(pipes) = parts.recv().await {
            let attached = control.attach(identity.clone(), Side::Acceptor, pipes);
            if let Err(error) = attached.await {
                tracing::error!(error = %base::Chain(&error), "the control part is not attached");
            }
        }
    });
    let access_log = match &config.access_log {
        None => None,
        Some(path) => {
            let target = proxy::AccessTarget::File(path.clone());
            Some(proxy::AccessLog::open(&target, config.access_fields).map_err(|e| words(&e))?)
        }
    };
    let spans = match config.otlp {
        None => None,
        Some(otlp) => {
            let (spans, batches) = proxy::Spans::new(otlp.ratio);
            let (site, node) = (&config.me.site, config.me.node.as_str());
            let started = crate::otlp::start(otlp, site, node, batches, &config.metrics);
            started.map_err(|e| words(&e))?;
            Some(spans)
        }
    };
    let (workers, proxy_events) = Workers::start(proxy::Config {
        workers: config.workers,
        snapshot: Arc::new(Snapshot::empty(base::SiteId(0))),
        dial: Arc::new(tunnel.links.clone()),
        access_log,
        spans,
        metrics: config.metrics.clone(),
        seed: runtime::now().as_nanos() ^ runtime::wall().unix_millis(),
        inherited: sockets,
    })
    .map_err(|e| words(&e))?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let (changes, changed) = mpsc::channel(EVENTS);
    let trust = config.material.map(|material| Trust {
        planet: material.verifier.planet().clone(),
        key: material.key,
        credentials: material.credentials,
        verifier: material.verifier,
        bootstrap: material.node.bootstrap,
    });
    let door = Rc::new(Door::new(
        &config.me.site,
        &tunnel.links,
        trust.as_ref(),
        &tasks,
        &config.metrics,
    ));
    let (intent, downs) = Intent::start(&tasks, tunnel.links.clone(), config.me.clone());
    let (keys, fetched) = Keys::start(
        &tasks,
        tunnel.links.clone(),
        config.me.clone(),
        config.state.clone(),
        &config.metrics,
    );
    let seed = runtime::now().as_nanos() ^ runtime::wall().unix_millis();
    let (attach, measured) = Attach::new(tasks.clone(), seed);
    let mut data = Data {
        keys,
        attach,
        brain: Brain::new(Part::Data, config.me.clone(), 0, bgp_start()),
        report: Report::new(),
        facts: Facts::new(config.is_apart.then(|| config.state.clone())),
        me: config.me,
        state: config.state,
        tasks,
        chain: plan::Chain::default(),
        unsaved: Vec::new(),
        trust,
        workers: Rc::new(workers),
        links: tunnel.links.clone(),
        control: tunnel.control.clone(),
        events,
        intent,
        vips: Vips::default(),
        speaker: None,
        changes,
        door,
        updates_refused: config.metrics.counter(
            "updates_refused",
            "Updates that are not the controller's, or damaged",
        ),
        ready: Some(config.ready),
        succession,
    };
    let mut fixed = config.fixed;
    data.begin(fixed.first(), facts).await;
    // Nobody reads any yet: what comes is counted, and not kept.
    drop(tunnel.packets);
    let queues = Queues {
        links: tunnel.events,
        services: tunnel.services,
        trunks: tunnel.trunks,
        reserved: tunnel.reserved,
        joins: tunnel.joins,
        inbox,
        changed,
        downs,
        fetched,
        measured,
        proxy_events,
        queries: config.queries,
        fixed,
    };
    data.work(queues, config.patience).await;
    Ok(())
}

/// See [`begin_tunnels`].
type Begun = (Tunnel, Option<Vec<u8>>, Option<Succession>);

/// The tunnels, the routes to begin with, and what is waited for before this process serves.
fn begin_tunnels(
    metrics: &Metrics,
    joined: Option<Joined<std::net::TcpListener>>,
) -> std::io::Result<Begun> {
    let Some(joined) = joined else {
        return Ok((tunnel::start(metrics)?, None, None));
    };
    let tunnel = tunnel::succeed(metrics, joined.tunnels)?;
    let succession = Succession::new(runtime::now(), joined.linked);
    Ok((tunnel, Some(joined.facts), Some(succession)))
}

/// A data half announces nothing: its numbers never leave it.
fn bgp_start() -> plan::Seq {
    plan::Seq::default()
}

/// Everything the data half listens to.
struct Queues {
    links: mpsc::Receiver<LinkEvent>,
    services: mpsc::Receiver<Incoming>,
    trunks: mpsc::Receiver<tunnel::Trunk>,
    reserved: mpsc::Receiver<Incoming>,
    joins: mpsc::Receiver<Joining>,
    inbox: mpsc::Receiver<Event>,
    changed: mpsc::Receiver<speaker::Event>,
    downs: mpsc::Receiver<Down>,
    fetched: mpsc::Receiver<Fetched>,
    measured: mpsc::Receiver<Measured>,
    proxy_events: mpsc::Receiver<ProxyEvent>,
    queries: mpsc::Receiver<Query>,
    fixed: Fixed,
}

impl Data {
    /// Serve the last good state; without one, dial whom the Token named.
    async fn begin(&mut self, fixed: Option<sync::Bundle>, facts: Option<Vec<u8>>) {
        if let Some(bundle) = fixed {
            self.brain
                .handle(runtime::now(), Event::Bundle(Box::new(bundle)));
        }
        if let Some(trust) = &self.trust {
            for signed in self.state.chain("bundle.ndjson") {
                let wall = runtime::wall();
                let taken = self
                    .chain
                    .take(&trust.verifier, &self.me.site, signed, wall);
                if let Err(error) = taken {
                    self.updates_refused.inc();
                    let error = base::Chain(&error).to_string();
                    tracing::warn!(
                        error,
                        "an envelope on disk is refused; what follows is not used"
                    );
                    break;
                }
            }
            self.intent
                .keep(self.chain.bundle().revision, self.chain.envelopes());
            if self.chain.bundle().revision == Revision(0) {
                self.configure_tunnels(None).await;
            } else {
                self.want_compiled();
            }
        }
        self.facts.begin(&mut self.brain, facts);
        self.intent.open();
        self.carry_out().await;
    }

    async fn work(&mut self, mut queues: Queues, patience: Patience) {
        let (token, workers) = (self.tasks.token(), Rc::clone(&self.workers));
        let tunnels = self.control.clone();
        // While workers and tunnels finish, what comes is still answered: new streams with a refusal,
        // which is tried elsewhere at once.
        let mut leaving = std::pin::pin!(async {
            token.draining().await;
            workers.drain(patience.get()).await;
            tunnels.drain().await;
        });
        // A task of its own: streams of users never wait for a configuration.
        let (mut services, to) = (queues.services, Rc::clone(&self.workers));
        self.tasks.spawn_local("tunnel-streams", async move {
            while let Some(incoming) = services.recv().await {
                if let Some(stream) = TunnelStream::new(incoming) {
                    to.serve_stream(Box::new(stream));
                }
            }
        });
        let (mut trunks, to) = (queues.trunks, Rc::clone(&self.workers));
        self.tasks.spawn_local("tunnel-trunks", async move {
            while let Some(trunk) = trunks.recv().await {
                to.serve_trunk(trunk);
            }
        });
        let mut ticks = tokio::time::interval(REPORT_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let now = runtime::now();
            let due = [self.brain.poll_timeout(), self.attach.poll_timeout()];
            let timer = due.into_iter().flatten().min().map(|at| at.since(now));
            tokio::select! {
                () = &mut leaving => break,
                Some(event) = queues.inbox.recv() => self.brain.handle(runtime::now(), event),
                Some(event) = queues.links.recv() => {
                    if self.reached(&event) {
                        self.attach_anew().await;
                    }
                    self.succeed().await;
                }
                Some(measured) = queues.measured.recv() => {
                    if self.attach.handle_measured(measured) {
                        self.attach_anew().await;
                    }
                }
                Some(event) = queues.changed.recv() => {
                    self.learned(event);
                    // A burst is taken in whole, so that each set is built once.
                    for _ in 0..BURST {
                        let Ok(event) = queues.changed.try_recv() else { break };
                        self.learned(event);
                    }
                }
                Some(incoming) = queues.reserved.recv() => self.door.pass(incoming),
                Some(joining) = queues.joins.recv() => self.door.join(joining),
                Some(down) = queues.downs.recv() => self.told(down).await,
                Some(fetched) = queues.fetched.recv() => self.keys.take(fetched),
                Some(event) = queues.proxy_events.recv() => self.noticed(&event),
                Some(query) = queues.queries.recv() => self.tell(query).await,
                bundle = queues.fixed.next() => {
                    let event = Event::Bundle(Box::new(bundle));
                    self.brain.handle(runtime::now(), event);
                }
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {
                    self.brain.handle_timeout(runtime::now());
                    if self.attach.handle_timeout() {
                        self.attach_anew().await;
                    }
                }
                _ = ticks.tick() => {
                    self.tick();
                    self.succeed().await;
                    let late = |table: &&Arc<Compiled>| self.vips.is_missing(&table.vips);
                    let serves = self.succession.is_none();
                    if let Some(table) = self.brain.table().filter(late).filter(|_| serves).cloned() {
                        self.listen(&table).await;
                    }
                }
            }
            self.carry_out().await;
        }
    }

    /// Takes the place of the process before this one, once nothing is missing.
    async fn succeed(&mut self) {
        let table = self.brain.table().filter(|_| self.succession.is_some());
        let Some(table) = table.cloned() else { return };
        let links = self.links.table();
        let settled = |peer: &pki::Identity| {
            let mut to_peer = links.links().filter(|link| link.peer == *peer);
            to_peer.any(|link| link.is_up() && link.is_settled())
        };
        let is_over = |succession: &mut Succession| succession.is_over(runtime::now(), settled);
        if self.succession.take_if(is_over).is_none() {
            return;
        }
        self.stand(Standing::Serves).await;
        self.listen(&table).await;
        self.is_ready();
    }

    fn is_ready(&mut self) {
        if let Some(ready) = self.ready.take() {
            let _ = ready.send(());
        }
    }

    /// What a process gets that takes this one's place. From now on this one takes in no links.
    async fn bequeath(&self) -> Bequest {
        let sockets = self.workers.sockets().await;
        if self.trust.is_none() {
            return Bequest {
                sockets,
                joined: None,
            };
        }
        let tunnels = self.control.sockets().await.unwrap_or_default();
        self.stand(Standing::Leaves).await;
        let links = self.links.table();
        let peers = links.links().filter(|link| {
            let serves = link.standing() == Standing::Serves && link.is_up();
            serves && link.peer.site() != Some(&self.me.site)
        });
        let linked: BTreeSet<pki::Identity> = peers.map(|link| link.peer.clone()).collect();
        Bequest {
            sockets,
            joined: Some(Joined {
                tunnels,
                facts: plan::facts::write(self.brain.routes()),
                linked: linked.into_iter().collect(),
            }),
        }
    }

    /// Says how this process stands, if it has tunnels.
    async fn stand(&self, standing: Standing) {
        if self.trust.is_some()
            && let Err(error) = self.control.stand(standing).await
        {
            tracing::error!(error = %base::Chain(&error), "tunnels do not say how this process stands");
        }
    }

    /// Answers the admin socket; its client may be gone.
    async fn tell(&self, query: Query) {
        match query {
            Query::Status(reply) => {
                let _ = reply.send(self.report.status(
                    &self.brain,
                    &self.credentials_of(),
                    self.keys.view(),
                    self.links_view(),
                ));
            }
            Query::Refusals(reply) => {
                let all = self.workers.refusals().into_iter();
                let _ = reply.send(all.map(|(peer, rule, n)| (peer, rule.code(), n)).collect());
            }
            Query::Why(question, reply) => {
                let snapshot = self.workers.snapshot();
                let seed = runtime::now().as_nanos();
                let mut said = plan::explain(&snapshot.table, &question, runtime::wall(), seed);
                if let Ok(said) = &mut said {
                    report::complete(said, &self.brain);
                }
                let _ = reply.send(said);
            }
            Query::Bequest(reply) => {
                let _ = reply.send(self.bequeath().await);
            }
            Query::Stays => self.stand(Standing::Serves).await,
            Query::Relieved => {
                // An error means that there are none any more.
                let _ = self.control.relieved().await;
            }
        }
    }

    fn links_view(&self) -> Vec<LinkView> {
        let compiled = self.brain.table().map(|table| &**table);
        report::links(&self.links.table(), &self.me.site, compiled)
    }

    fn credentials_of(&self) -> Vec<u8> {
        let leaf = self
            .trust
            .as_ref()
            .and_then(|trust| trust.credentials.chain.first());
        leaf.map(|der| der.to_vec()).unwrap_or_default()
    }

    /// Other PoPs than before are to be dialled.
    async fn attach_anew(&mut self) {
        if let Some(table) = self.brain.table().cloned() {
            self.configure_tunnels(Some(&table)).await;
        }
    }

    /// A tunnel came, went, or was measured: the brain hears the best way to the site. True if
    /// others are to be dialled.
    fn reached(&mut self, event: &LinkEvent) -> bool {
        let (LinkEvent::Up { peer, .. }
        | LinkEvent::Down { peer, .. }
        | LinkEvent::Rtt { peer, .. }
        | LinkEvent::Mtu { peer, .. }) = event;
        let Some(site) = peer.site().filter(|site| **site != self.me.site) else {
            return false;
        };
        match event {
            LinkEvent::Up { .. } => tracing::info!(peer = %site, "tunnel up"),
            LinkEvent::Down { reason, .. } => {
                tracing::warn!(peer = %site, reason = reason.as_str(), "tunnel down");
            }
            LinkEvent::Rtt { .. } => {}
            // Nobody sends packets yet, and it changes no way.
            LinkEvent::Mtu { .. } => return false,
        }
        let table = self.links.table();
        // The floor is the distance: a busy machine at either end moves nothing far away. Not
        // measured yet is far away, but reachable.
        let rtt = table.best(site).map(|link| {
            link.quality()
                .map_or(Duration::from_secs(1), |quality| quality.min_rtt)
        });
        self.brain
            .handle(runtime::now(), Event::Reach(site.clone(), rtt));
        let best = table.best(site);
        let doubted = best.is_some_and(|link| link.is_doubted());
        let loss = best.and_then(|link| link.quality());
        let loss = loss.map(|quality| quality.loss).unwrap_or_default();
        self.brain
            .handle(runtime::now(), Event::Doubt(site.clone(), doubted));
        self.brain
            .handle(runtime::now(), Event::Loss(site.clone(), loss));
        let idlest = table.idlest(site).and_then(|link| link.quality());
        let load = idlest.map(|quality| quality.load).unwrap_or_default();
        self.brain
            .handle(runtime::now(), Event::Load(site.clone(), load));
        self.intent.links(measured(&table, &self.me.site));
        self.attach.handle_links(site, &table)
    }

    fn learned(&mut self, event: speaker::Event) {
        match event {
            speaker::Event::Change(change) => {
                self.facts.heard(&change.key);
                let value = change.best.map(|route| route.value);
                self.brain
                    .handle(runtime::now(), Event::Route(change.key, value));
            }
            speaker::Event::Synced(_) => self.facts.heard_all(&mut self.brain),
            speaker::Event::Up(_) | speaker::Event::Down(..) => {}
        }
    }

    /// A line of site-sync, from the control half.
    async fn told(&mut self, down: Down) {
        match down {
            Down::Time(theirs) => self.report.clock(theirs),
            Down::Signed(signed) => {
                let Some(trust) = &self.trust else { return };
                let site = &self.me.site;
                match self
                    .chain
                    .take(&trust.verifier, site, signed, runtime::wall())
                {
                    Ok(true) => self.want_compiled(),
                    Ok(false) => {}
                    Err(error) => self.refuse(&error),
                }
            }
            Down::Certificate { chain } => self.renewed(&chain).await,
            Down::Refused { reason } => tracing::warn!(reason, "site-sync was refused"),
        }
    }

    fn want_compiled(&mut self) {
        let bundle = self.chain.bundle().clone();
        // The brain compiles one and keeps the newest of those that come meanwhile; so do we.
        self.unsaved.truncate(1);
        self.unsaved
            .push((bundle.revision, self.chain.envelopes().to_vec()));
        self.brain
            .handle(runtime::now(), Event::Bundle(Box::new(bundle)));
    }

    fn refuse(&mut self, error: &OpenError) {
        match error {
            // What the second of two upstreams says.
            OpenError::Fit(sync::FitError::Replay { .. }) => {
                tracing::debug!(error = %base::Chain(error), "a known update came again");
            }
            OpenError::Fit(sync::FitError::Gap { .. }) => {
                tracing::info!(error = %base::Chain(error), "asking for a full update");
                self.intent.ask_for_all();
            }
            OpenError::Damaged(_)
            | OpenError::Forged(_)
            | OpenError::Payload(_)
            | OpenError::NotForUs(..) => {
                self.updates_refused.inc();
                let reason = base::Chain(error).to_string();
                tracing::error!(
                    error = reason,
                    "an update is refused; the last good one serves"
                );
                self.intent.send(Up::Reject {
                    revision: Revision(0),
                    reason,
                });
            }
        }
    }

    fn noticed(&mut self, event: &ProxyEvent) {
        let (tenant, service, key, kind) = match event {
            ProxyEvent::EndpointOutlier {
                tenant,
                service,
                key,
            } => {
                let event = Event::Outlier(*tenant, *service, *key);
                self.brain.handle(runtime::now(), event);
                return;
            }
            ProxyEvent::EndpointFailed {
                tenant,
                service,
                key,
                kind,
            } => {
                let kind = match kind {
                    FailureKind::Refused => TroubleKind::Refused,
                    FailureKind::Reset | FailureKind::Timeout => TroubleKind::Failed,
                };
                (tenant, service, key, kind)
            }
            ProxyEvent::EndpointSuspect {
                tenant,
                service,
                key,
            } => (tenant, service, key, TroubleKind::Suspect),
        };
        let (tenant, service, address) = (*tenant, *service, key.address);
        self.intent.send(Up::Trouble(Trouble {
            tenant,
            service,
            address,
            kind,
        }));
    }

    fn tick(&mut self) {
        let leaf = self.credentials_of();
        self.keys.tick();
        self.facts.tick(&self.brain, &self.tasks);
        let running = self.brain.table().and_then(|table| table.running());
        self.intent.running(running);
        let (keys, links) = (self.keys.view(), self.links_view());
        if let Some(status) = self.report.due(&self.brain, &leaf, keys, links) {
            self.intent.send(Up::Status(Box::new(status)));
        }
        let Some(trust) = &self.trust else { return };
        if pki::renewal_due(&leaf, runtime::wall()) && self.report.may_ask_renewal() {
            match trust.key.csr_der() {
                Ok(csr) => self.intent.send(Up::Renew {
                    csr: sync::encode(&csr),
                }),
                Err(e) => tracing::error!(error = %base::Chain(&e), "no renewal can be asked for"),
            }
        }
    }

    /// A renewed certificate: kept, and used for new connections; open tunnels stay.
    async fn renewed(&mut self, chain: &[String]) {
        let (Some(trust), Some(chain)) = (&mut self.trust, sync::decode_chain(chain)) else {
            return;
        };
        let same_key = chain
            .first()
            .and_then(|leaf| pki::spki_sha256(leaf).ok())
            .is_some_and(|hash| hash == trust.key.spki_sha256());
        let identity = trust.verifier.identify(&chain, runtime::wall());
        let ours = identity.as_ref().is_ok_and(|identity| {
            identity.site() == Some(&self.me.site) && identity.node_name() == Some(&self.me.node)
        });
        if !same_key || !ours {
            tracing::error!("a renewed certificate is not this node's; the old one stays");
            return;
        }
        if let Err(e) = self.state.save_chain(&chain) {
            tracing::error!(error = %base::Chain(&e), "a renewed certificate cannot be kept");
            return;
        }
        trust.credentials = credentials(&trust.key, chain);
        self.door.renew(trust.credentials.clone());
        self.report.renewed();
        tracing::info!("certificate renewed");
        let table = self.brain.table().cloned();
        self.configure_tunnels(table.as_deref()).await;
    }

    async fn carry_out(&mut self) {
        while let Some(effect) = self.brain.poll_effect() {
            match effect {
                Effect::Compile { bundle, cells } => {
                    let (me, events) = (self.me.clone(), self.events.clone());
                    crate::compile_elsewhere(&self.tasks, bundle, me, cells, events);
                }
                Effect::Publish(table) => self.publish(&table).await,
                Effect::Reject(revision, error) => {
                    let reason = base::Chain(&error).to_string();
                    tracing::error!(%revision, error = reason, "a bundle does not compile; the last good one serves");
                    self.unsaved.retain(|(unsaved, _)| *unsaved != revision);
                    self.report.refused(revision, &reason);
                    self.intent.send(Up::Reject { revision, reason });
                    if self.brain.table().is_none() {
                        // Nothing serves, so nothing says whom to dial: begin as after joining.
                        self.configure_tunnels(None).await;
                    }
                }
                Effect::Endpoints { cell, set } => cell.store(set),
                Effect::EndpointDown {
                    tenant,
                    service,
                    endpoint,
                } => {
                    self.workers.endpoint_down(tenant, service, endpoint);
                }
                Effect::Vips(up) => {
                    self.vips.set_up(up);
                    self.intent.vips(self.vips.told());
                }
                Effect::Ways(over) => self.links.routes().set(over),
                // A data half probes nothing and announces nothing.
                Effect::Probe(..) | Effect::Originate(_) | Effect::Withdraw(_) => {}
            }
        }
    }

    async fn publish(&mut self, table: &Arc<Compiled>) {
        let certificates = Arc::new(certificates(table));
        let clients = clients(table, &certificates);
        self.keys.fill(table);
        self.workers.store(Arc::new(Snapshot {
            site: table.numbers.site,
            relays: table.numbers.pop,
            table: Arc::clone(&table.ingress),
            certificates,
            clients: Arc::new(clients),
            egress: Arc::clone(&table.egress),
            senders: Arc::clone(&table.senders),
            limits: plan::Limits::default(),
        }));
        if self.succession.is_none() {
            self.listen(table).await;
        }
        self.attach.want(&table.fabric);
        self.configure_tunnels(Some(table)).await;
        self.open_speaker(table).await;
        if let Some(at) = self
            .unsaved
            .iter()
            .position(|(revision, _)| *revision == table.revision)
        {
            let (_, envelopes) = self.unsaved.swap_remove(at);
            self.unsaved
                .retain(|(revision, _)| *revision > table.revision);
            self.intent.keep(table.revision, &envelopes);
            let state = self.state.clone();
            let save = move || state.save_signed("bundle.ndjson", &envelopes);
            if let Ok(Err(e)) = tokio::task::spawn_blocking(save).await {
                tracing::error!(error = %base::Chain(&e), "the bundle cannot be kept on disk");
            }
        }
        self.report.applied(table.revision);
        self.intent.send(Up::Ack(table.revision));
        if self.succession.is_none() {
            self.is_ready();
        }
        runtime::memory::churned();
        tracing::info!(revision = %table.revision, "serving");
    }

    /// Open the listeners of the table that are not open.
    async fn listen(&mut self, table: &Compiled) {
        let listeners = table.listeners.iter().map(|l| ListenerSpec {
            bind: l.bind,
            port: l.port,
            protocol: l.protocol,
        });
        let listeners: Vec<ListenerSpec> = listeners.collect();
        let bound = self.workers.set_listeners(&listeners).await;
        let failed = || bound.iter().filter_map(|bound| bound.as_ref().err());
        self.report.listeners(failed());
        self.vips.opened(&listeners, failed());
        self.intent.vips(self.vips.told());
    }

    async fn configure_tunnels(&mut self, table: Option<&Compiled>) {
        let Some(trust) = &self.trust else { return };
        let own = self.me.site.clone();
        // Whom the Token named: as long as nobody else is known.
        let first = || {
            let targets = trust.bootstrap.iter().map(|address| DialTarget {
                expected: None,
                addresses: vec![*address],
                uplink: None,
            });
            // A PoP's bootstrap addresses are the controller's: no tunnel goes there.
            let targets = targets.filter(|_| !own.is_pop());
            targets.collect::<Vec<DialTarget>>()
        };
        let (listen, dial, peers): (_, _, Option<BTreeSet<SiteName>>) = match table {
            Some(table) => {
                let fabric = &table.fabric;
                let dial = self.attach.dial(fabric, first());
                (fabric.bind.clone(), dial, Some(fabric.peers.clone()))
            }
            None => (Vec::new(), first(), None),
        };
        let admit = tunnel::Admit::when(move |peer| {
            let Some(site) = peer.site().filter(|site| **site != own) else {
                return false;
            };
            peers
                .as_ref()
                .map_or(site.is_pop(), |peers| peers.contains(site))
        });
        // Every site that the bundle tells of: its tenant's own, and PoPs.
        let known: BTreeSet<SiteName> = table
            .iter()
            .flat_map(|table| table.site_ids.keys().cloned())
            .collect();
        let hear =
            tunnel::Admit::when(move |peer| peer.site().is_some_and(|site| known.contains(site)));
        let config = tunnel::Config {
            planet: trust.planet.clone(),
            credentials: trust.credentials.clone(),
            roots: trust.verifier.anchors().to_vec(),
            listen,
            dial,
            admit,
            hear,
            joins: self.me.site.is_pop(),
            prefer: table.map_or(Prefer::Auto, |table| match table.fabric.transport {
                AttachTransport::Auto => Prefer::Auto,
                AttachTransport::Tls => Prefer::Tls,
                AttachTransport::Quic => Prefer::Quic,
            }),
            trunks: u8::try_from(self.workers.count()).unwrap_or(u8::MAX),
        };
        if let Some(table) = table {
            self.attach.measure(&config, &table.fabric);
        }
        match self.control.configure(config).await {
            Ok(listening) => {
                for (address, error) in &listening.failed {
                    tracing::error!(%address, %error, "cannot listen for tunnels");
                }
                self.report.tunnels(&listening.failed);
            }
            Err(e) => tracing::error!(error = %base::Chain(&e), "tunnels keep their configuration"),
        }
    }

    /// The session with the control half, by which routes come in.
    async fn open_speaker(&mut self, table: &Compiled) {
        if let Some(handle) = &self.speaker {
            let _ = handle.set_site_table(table.site_table.clone()).await;
            return;
        }
        let (speaker, handle, mut events) =
            Speaker::new(SpeakerConfig::new(table.numbers.node, ASN));
        self.tasks.spawn_local("speaker", speaker.run());
        let _ = handle.set_site_table(table.site_table.clone()).await;
        let changes = self.changes.clone();
        self.tasks.spawn_local("speaker-events", async move {
            while let Some(event) = events.recv().await {
                if changes.send(event).await.is_err() {
                    return;
                }
            }
        });
        let (links, me, node) = (self.links.clone(), self.me.site.clone(), table.numbers.node);
        let session = handle.clone();
        self.tasks.spawn_local("bgp-control", async move {
            let head = StreamHead::to(Ask::Bgp.authority());
            loop {
                if let Ok(stream) = links.open_control(&me, &head).await {
                    let close = session.session(PeerConfig::local(node), stream).await;
                    tracing::info!(%close, "BGP session with the control half ended");
                }
                tokio::time::sleep(AGAIN).await;
            }
        });
        self.speaker = Some(handle);
    }
}

/// The best link to each other site, and how full the idlest is.
fn measured(table: &LinkTable, me: &SiteName) -> Vec<sync::Link> {
    let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
    let links = table.sites().filter(|(site, _)| *site != me);
    let links = links.filter_map(|(site, _)| {
        let quality = table.best(site)?.quality();
        let idlest = table.idlest(site)?;
        let load = idlest.quality().map(|quality| quality.load.percent());
        let capacity = idlest.capacity().map(report::kbit_s);
        Some(sync::Link {
            peer: site.clone(),
            rtt_us: quality.map(|quality| micros(quality.min_rtt)),
            jitter_us: quality.map_or(0, |quality| micros(quality.jitter)),
            loss: quality.map_or(0, |quality| quality.loss.0),
            load: load.unwrap_or_default(),
            capacity_kbit_s: capacity.map_or(0, |rate| u32::try_from(rate).unwrap_or(u32::MAX)),
        })
    });
    links.collect()
}

/// By whom clients are known; whoever cannot be used is left out, and then nobody is served where
/// they are asked for.
fn clients(table: &Compiled, certificates: &Arc<proxy::Certificates>) -> proxy::Clients {
    let made = table.clients.iter().filter_map(|(id, trust)| {
        let made =
            proxy::ClientTrust::new(Arc::clone(certificates), &trust.issuers, trust.required);
        match made {
            Ok(made) => Some((*id, Arc::new(made))),
            Err(e) => {
                tracing::error!(
                    error = %base::Chain(&e),
                    "client certificates cannot be verified: their hosts serve nobody"
                );
                None
            }
        }
    });
    made.collect()
}

/// Certificates as TLS takes them; one that it does not take is left out and logged.
fn certificates(table: &Compiled) -> proxy::Certificates {
    let mut out = proxy::Certificates::default();
    for certificate in &table.certificates {
        let pair = Credentials {
            chain: certificate.pair.chain.clone(),
            key: certificate.pair.key.clone_key(),
        };
        match runtime::tls::certified_key(&pair) {
            Ok(key) => {
                for host in &certificate.hosts {
                    out.insert(host, Arc::clone(&key));
                }
            }
            Err(e) => tracing::error!(
                error = %base::Chain(&e),
                hosts = certificate.hosts.join(" "),
                "a certificate cannot be served"
            ),
        }
    }
    out
}
