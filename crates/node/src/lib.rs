//! One node of a site: the process that carries the traffic.
//!
//! What it is: the place where the rooms meet. A node has two halves. The *data* half (`data`)
//! owns tunnels, listeners, the node's key and the last good state, and runs
//! `plan::Brain` for importing; the *control* half (`control`) owns probes, BGP and site-sync,
//! and runs the same `Brain` for originating. They talk over what is `node.sock` when they are two
//! processes and memory when they are one: a tunnel link with streams for site-sync, one BGP
//! session, and CONNECT by which control reaches the tunnels that data owns.
//!
//! What it is not: it decides nothing. Decisions are `plan`'s, bytes are the shells'.
//!
//! The way of data: `Token → join → certificate → tunnel → site-sync → bundle → compile → serve`,
//! and beside it `probe → announce → reflect → import → endpoint set → next pick`. See `tasks.rs`
//! for the picture of threads, tasks and queues.
//!
//! ```no_run
//! # async fn example() -> Result<(), node::NodeError> {
//! let config = node::Config::joined("/var/lib/sealane".into());
//! node::run(config, async { /* until this ends */ }).await
//! # }
//! ```

mod admin;
mod authority;
pub mod bgp;
mod bundle;
mod control;
mod data;
mod handover;
mod join;
mod keys;
mod lines;
mod link;
mod mark;
mod otlp;
mod state;
pub mod tasks;
mod web;

use std::{
    future::Future,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use api::sync::Bundle;
use base::Name;
use plan::{Cells, Event, Me};
use runtime::{Tasks, Thread, metrics::Metrics};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot, watch},
};

pub use bundle::BundleError;
pub use join::JoinFailure;
pub use otlp::Otlp;
pub use proxy::RecordFields;
pub use state::StateError;

use state::State;

/// The private AS that every node of a fabric is in (RFC 6996).
const ASN: u32 = 4_200_000_000;

/// How long the halves get to finish after what requests get.
const DRAIN: Duration = Duration::from_secs(5);
/// What requests get to finish when another process goes on.
const RELIEVED: Duration = Duration::from_secs(600);

/// What requests get to finish, said when that begins.
#[derive(Clone, Debug, Default)]
pub(crate) struct Patience(Arc<OnceLock<Duration>>);

impl Patience {
    pub(crate) fn get(&self) -> Duration {
        let ends = || plan::Limits::default().drain_timeout;
        self.0.get().copied().unwrap_or_else(ends)
    }
}

/// How long the process before may wait for this one's links and configuration: less than it does.
const SUCCEEDS: Duration = Duration::from_secs(60);
/// How long a control half that was relieved may take to end.
const FALLS_SILENT: Duration = Duration::from_secs(3);
/// How long a process that was relieved still takes what comes over its links: until everybody at
/// their other ends has heard.
const NEWS: Duration = Duration::from_secs(3);

/// How a node is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder that keeps its state.
    pub state: PathBuf,
    /// The Token to join with, if it has not joined yet.
    pub token: Option<String>,
    /// Run from manifests in this folder, without a controller.
    pub bundle: Option<FixedBundle>,
    /// Proxy threads; the number of cores by default.
    pub workers: usize,
    /// Where the access log goes; `STATE/access.log` by default, none if empty.
    pub access_log: Option<PathBuf>,
    /// Which fields its records have; all by default.
    pub access_fields: RecordFields,
    /// Where spans of requests go, if anywhere.
    pub otlp: Option<Otlp>,
    /// Which parts of the node this process is.
    pub parts: Parts,
    /// Take the listening sockets of the process that runs this node, serve, and let it end. Both
    /// parts in one process only.
    pub take_over: bool,
}

/// The parts of a node: what probes and announces, and what carries traffic. The second goes on
/// without the first; whichever is started again finds the other at `STATE/node.sock`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parts {
    /// Both in one process.
    #[default]
    Both,
    /// Probes, BGP and site-sync.
    Control,
    /// Tunnels, listeners and the proxy.
    Data,
}

/// Which node of which manifests to run.
#[derive(Clone, Debug)]
pub struct FixedBundle {
    /// The folder of manifests.
    pub dir: PathBuf,
    /// The site, `SITE` for a PoP or `SITE.TENANT`.
    pub site: String,
    /// The node; the site's only one by default.
    pub node: Option<Name>,
}

impl Config {
    /// A node that has joined before, with the defaults.
    #[must_use]
    pub fn joined(state: PathBuf) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let access_log = Some(state.join("access.log"));
        Config {
            state,
            token: None,
            bundle: None,
            workers,
            access_log,
            access_fields: RecordFields::default(),
            otlp: None,
            parts: Parts::Both,
            take_over: false,
        }
    }
}

/// Why a node does not run.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The folder is not usable.
    #[error("the state cannot be used")]
    State(#[from] StateError),
    /// It could not join.
    #[error("the node cannot join")]
    Join(#[from] JoinFailure),
    /// It never joined.
    #[error("{0} holds no node: join with --token, or run manifests with --bundle")]
    NotJoined(PathBuf),
    /// The manifests do not make a node.
    #[error("the manifests cannot be run")]
    Bundle(#[from] BundleError),
    /// The system refused a thread or a socket.
    #[error("the node cannot start: {0}")]
    Start(&'static str, #[source] io::Error),
    /// A part of a node cannot take another's place.
    #[error(
        "--take-over is for a node in one process: of one with --part, stop one part and start it \
         again; traffic goes on while the control part is away, and by other sites while the data \
         part is"
    )]
    TakesOverApart,
    /// The process before this one goes on.
    #[error("this process could not serve within {}s: the one before goes on", .0.as_secs())]
    Late(Duration),
    /// A half ended by itself.
    #[error("the {0} half ended: see the log")]
    Ended(&'static str),
}

/// Run a node, or one part of it, until `stop` ends, then drain it.
///
/// # Errors
/// See [`NodeError`].
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    if config.take_over && config.parts != Parts::Both {
        return Err(NodeError::TakesOverApart);
    }
    let mut stop = std::pin::pin!(stop);
    let node = Node::prepare(&config).await?;
    tracing::info!(site = %node.me.site, node = %node.me.node, parts = ?config.parts, "node starts");
    let group = Tasks::new("node");
    let (queries, take_queries) = mpsc::channel(16);
    let (speaker, speaker_) = watch::channel(None);
    let speaker = Arc::new(speaker);
    let shown = control::Shown::default();
    let admin = admin::Admin {
        queries,
        routers: shown.clone(),
        speaker: speaker_,
        metrics: node.metrics.clone(),
    };
    let socket = match config.parts {
        Parts::Both | Parts::Data => "admin.sock",
        Parts::Control => "control.sock",
    };
    let (handover, has_joined) = (node.state.path("handover.sock"), node.material.is_some());
    let (running, inherited) = match config.take_over {
        true => handover::Running::find(&handover, has_joined).await,
        false => Ok(None),
    }
    .map_err(|e| NodeError::Start("taking over from the process that runs", e))?
    .unzip();
    let (relieve, relieved) = oneshot::channel();
    let whole = config.parts == Parts::Both;
    let doors = Doors {
        admin: (node.state.path(socket), admin),
        handover: whole.then_some((handover, relieve)),
    };
    let takes_over = running.is_some();
    let take_over = match running {
        Some(running) => Some((running, doors)),
        None => {
            doors.open(runtime::net::unix_listener, &group)?;
            None
        }
    };
    let patience = Patience::default();
    let fixed = node.manifests(config.bundle.clone(), &group)?;
    let (to_data, parts) = mpsc::channel(4);
    let mut threads = Vec::new();
    if config.parts != Parts::Control {
        let (ready, is_ready) = oneshot::channel();
        let data = Begin {
            parts,
            queries: take_queries,
            ready,
            fixed: fixed.clone(),
            inherited: inherited.unwrap_or_default(),
            patience: patience.clone(),
        };
        threads.push(("data", node.start_data(config, data)?));
        let serving = serving(take_over, has_joined, group.clone());
        if has_joined && takes_over {
            // Until then the other one's control half speaks for this node.
            let ready = tokio::select! {
                () = &mut stop => Err(None),
                what = ended(&threads) => Err(Some(NodeError::Ended(what))),
                ready = tokio::time::timeout(SUCCEEDS, is_ready) => match ready {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(Some(NodeError::Ended("data"))),
                    Err(_) => Err(Some(NodeError::Late(SUCCEEDS))),
                },
            };
            if let Err(error) = ready {
                node.leave(&threads, &group, patience.get() + DRAIN).await;
                return error.map_or(Ok(()), Err);
            }
            // From here on there is no way back: the other one goes.
            serving.await;
        } else {
            group.spawn("ready", async move {
                if is_ready.await.is_ok() {
                    serving.await;
                }
            });
        }
        if node.parts == Parts::Both {
            let (control, data) = tunnel::Pipes::in_memory();
            let _ = to_data.send(data).await;
            let control = node.start_control(control, speaker.clone(), shown.clone(), fixed)?;
            threads.push(("control", control));
        } else {
            let door = link::Door::open(&node.state.path(""));
            let door = door.map_err(|e| NodeError::Start("node.sock", e))?;
            group.spawn("node-sock", door.serve(to_data, group.clone()));
        }
    }
    let ended = tokio::select! {
        () = stop => None,
        Ok(successor) = relieved => {
            tracing::info!("another process serves; this one finishes what it has");
            let _ = patience.0.set(RELIEVED);
            if has_joined {
                fall_silent(&threads, successor).await;
            }
            None
        }
        what = ended(&threads) => Some(what),
        result = node.keep_control(speaker, shown) => return result,
    };
    node.leave(&threads, &group, patience.get() + DRAIN).await;
    match ended {
        None => Ok(()),
        Some(half) => Err(NodeError::Ended(half)),
    }
}

/// Once the first listeners serve: take the place of the process before this one, and let it go.
async fn serving(take_over: Option<(handover::Running, Doors)>, has_joined: bool, tasks: Tasks) {
    tracing::info!("node is ready");
    let Some((mut running, doors)) = take_over else {
        return;
    };
    if let Err(error) = doors.open(runtime::net::unix_listener_instead, &tasks) {
        tracing::error!(error = %base::Chain(&error), "a socket of this machine is missing");
    }
    if let Err(error) = running.relieve().await {
        tracing::warn!(%error, "the process that ran before did not hear that it may go");
        return;
    }
    if has_joined && let Err(error) = running.until_silent().await {
        tracing::warn!(%error, "the process that ran before does not say that it is silent");
    }
}

/// Of a node that has joined: only one control half speaks for it. Ours ends, the other one begins,
/// and this process still takes what comes until its neighbours have heard of the other.
async fn fall_silent(threads: &[(&'static str, Thread)], successor: handover::Successor) {
    for (name, thread) in threads {
        if *name == "control" {
            thread.start_drain();
            if tokio::time::timeout(FALLS_SILENT, thread.exited())
                .await
                .is_err()
            {
                tracing::warn!("the control half did not end in time");
            }
        }
    }
    if let Err(error) = successor.tell_silent().await {
        tracing::warn!(%error, "the next process did not hear that this one is silent");
    }
    tokio::time::sleep(NEWS).await;
}

/// Until one of the threads has ended; for ever if there is none.
async fn ended(threads: &[(&'static str, Thread)]) -> &'static str {
    match threads {
        [] => std::future::pending().await,
        [(name, only)] => {
            only.exited().await;
            name
        }
        [(first, one), (second, other), ..] => tokio::select! {
            _ = one.exited() => first,
            _ = other.exited() => second,
        },
    }
}

/// Where others on this machine ask.
struct Doors {
    admin: (PathBuf, admin::Admin),
    handover: Option<(PathBuf, oneshot::Sender<handover::Successor>)>,
}

impl Doors {
    fn open(
        self,
        listen: impl Fn(&Path) -> io::Result<UnixListener>,
        tasks: &Tasks,
    ) -> Result<(), NodeError> {
        let (path, admin) = self.admin;
        let socket = listen(&path).map_err(|e| NodeError::Start("admin socket", e))?;
        let queries = admin.queries.clone();
        tasks.spawn("admin", admin.serve(socket, tasks.clone()));
        if let Some((path, relieve)) = self.handover {
            let socket = listen(&path).map_err(|e| NodeError::Start("handover.sock", e))?;
            let serve = handover::serve(socket, queries, relieve, tasks.clone());
            tasks.spawn("handover", serve);
        }
        Ok(())
    }
}

/// What the data half begins with, beside what the node is made of.
struct Begin {
    parts: mpsc::Receiver<tunnel::Pipes>,
    queries: mpsc::Receiver<data::Query>,
    ready: oneshot::Sender<()>,
    fixed: bundle::Fixed,
    inherited: handover::Inheritance,
    patience: Patience,
}

/// What both halves are made of.
struct Node {
    parts: Parts,
    state: State,
    me: Me,
    identity: pki::Identity,
    material: Option<state::Material>,
    bundle: Option<Bundle>,
    metrics: Metrics,
    /// As the control part: what works now.
    working: Mutex<Option<Arc<Thread>>>,
}

impl Node {
    /// Join if that is to be done, and read what there is on disk.
    async fn prepare(config: &Config) -> Result<Node, NodeError> {
        let state = State::open(&config.state)?;
        let fixed = config.bundle.as_ref().map(bundle::load).transpose()?;
        if fixed.is_none() && !state.has_joined() {
            match (&config.token, config.parts) {
                (Some(token), Parts::Both | Parts::Data) => join::join(&state, token).await?,
                (_, Parts::Control) => {
                    tracing::info!("waiting for the data part to join");
                    while !state.has_joined() {
                        tokio::time::sleep(Duration::from_millis(200)).await;
                    }
                }
                (None, Parts::Both | Parts::Data) => {
                    return Err(NodeError::NotJoined(config.state.clone()));
                }
            }
        }
        let (me, planet, material, bundle) = match fixed {
            Some((me, bundle)) => (
                me,
                "local".parse().expect("a constant planet"),
                None,
                Some(bundle),
            ),
            None => {
                let material = state.material()?;
                let (site, node) = (material.node.site.clone(), material.node.node.clone());
                let planet = material.verifier.planet().clone();
                (Me { site, node }, planet, Some(material), None)
            }
        };
        let identity = pki::Identity::node(planet, me.site.clone(), me.node.clone());
        Ok(Node {
            parts: config.parts,
            state,
            me,
            identity,
            material,
            bundle,
            metrics: Metrics::default(),
            working: Mutex::default(),
        })
    }

    /// What the manifests say, as often as they are read again.
    fn manifests(
        &self,
        folder: Option<FixedBundle>,
        group: &Tasks,
    ) -> Result<bundle::Fixed, NodeError> {
        let (says, fixed) = bundle::Fixed::new(self.bundle.clone());
        if let Some(folder) = folder {
            let hangups = runtime::signal::Reload::hear();
            let hangups = hangups.map_err(|e| NodeError::Start("SIGHUP", e))?;
            let reload = bundle::reload(hangups, folder, says);
            let token = group.token();
            group.spawn("reload", async move {
                tokio::select! {
                    () = token.draining() => {}
                    () = reload => {}
                }
            });
        }
        Ok(fixed)
    }

    fn start_data(&self, config: Config, begin: Begin) -> Result<Thread, NodeError> {
        let material = self.material.as_ref().map(|_| self.state.material());
        let data = data::Config {
            me: self.me.clone(),
            state: self.state.clone(),
            fixed: begin.fixed,
            inherited: begin.inherited,
            patience: begin.patience,
            identity: self.identity.clone(),
            parts: begin.parts,
            is_apart: self.parts == Parts::Data,
            queries: begin.queries,
            metrics: self.metrics.clone(),
            workers: config.workers,
            access_log: config.access_log,
            access_fields: config.access_fields,
            otlp: config.otlp,
            ready: begin.ready,
            material: material.transpose()?,
        };
        runtime::thread("data", move |tasks| data::run(tasks, data))
            .map_err(|e| NodeError::Start("data thread", e))
    }

    fn start_control(
        &self,
        pipes: tunnel::Pipes,
        speaker: Arc<watch::Sender<Option<speaker::Handle>>>,
        shown: control::Shown,
        fixed: bundle::Fixed,
    ) -> Result<Thread, NodeError> {
        let verifier = self.material.as_ref().map(|m| m.verifier.clone());
        let control = control::Config {
            me: self.me.clone(),
            identity: self.identity.clone(),
            state: self.state.clone(),
            verifier,
            fixed,
            pipes,
            metrics: self.metrics.clone(),
            speaker,
            shown,
        };
        runtime::thread("control", move |tasks| control::run(tasks, control))
            .map_err(|e| NodeError::Start("control thread", e))
    }

    /// Drain everything.
    async fn leave(&self, threads: &[(&'static str, Thread)], group: &Tasks, within: Duration) {
        tracing::info!("node drains");
        // The control half first: it drains by the tunnels of the other.
        let working = self.set_working(None);
        if let Some(control) = &working {
            control.start_drain();
        }
        for (_, thread) in threads.iter().rev() {
            thread.start_drain();
        }
        let all = async {
            if let Some(control) = &working {
                control.exited().await;
            }
            for (_, thread) in threads {
                thread.exited().await;
            }
            group.drain(Duration::from_millis(500)).await;
        };
        if tokio::time::timeout(within, all).await.is_err() {
            tracing::warn!("the halves did not finish in time");
        }
    }

    fn set_working(&self, thread: Option<Arc<Thread>>) -> Option<Arc<Thread>> {
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *working, thread)
    }

    /// As the control part: work while a data part is there, and wait for the next one. In
    /// other processes nothing happens here.
    async fn keep_control(
        &self,
        speaker: Arc<watch::Sender<Option<speaker::Handle>>>,
        shown: control::Shown,
    ) -> Result<(), NodeError> {
        if self.parts != Parts::Control {
            return std::future::pending().await;
        }
        loop {
            let pipes = link::connect(&self.state.path("")).await;
            let (_, fixed) = bundle::Fixed::new(self.bundle.clone());
            let thread = self.start_control(pipes, speaker.clone(), shown.clone(), fixed)?;
            let thread = Arc::new(thread);
            self.set_working(Some(thread.clone()));
            thread.exited().await;
            self.set_working(None);
        }
    }
}

/// Look at manifests as `--bundle` would, and say what a node would do.
///
/// # Errors
/// What is wrong with them.
pub fn check(fixed: &FixedBundle) -> Result<String, BundleError> {
    let (me, bundle) = bundle::load(fixed)?;
    Ok(format!(
        "{} of {} compiles: {} resources",
        me.node,
        me.site,
        bundle.resources.len()
    ))
}

/// Compile on a thread that may take its time, and send the answer.
fn compile_elsewhere(
    tasks: &Tasks,
    bundle: Box<Bundle>,
    me: Me,
    cells: Cells,
    events: mpsc::Sender<Event>,
) {
    tasks.spawn_local("compile", async move {
        let revision = bundle.revision;
        let work = move || plan::compile(&bundle, &me, &cells).map(Box::new);
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => {
                let _ = events.send(Event::Compiled(revision, result)).await;
            }
            Err(error) => tracing::error!(%error, "the compiler ended badly"),
        }
    });
}
