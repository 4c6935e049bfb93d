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
mod join;
mod lines;
mod state;
pub mod tasks;

use std::{future::Future, io, path::PathBuf, time::Duration};

use api::sync::Bundle;
use base::Name;
use plan::{Cells, Event, Me};
use runtime::{Tasks, metrics::Metrics};
use tokio::sync::{mpsc, oneshot, watch};

pub use bundle::BundleError;
pub use join::JoinFailure;
pub use state::StateError;

use state::State;

/// The private AS that every node of a fabric is in (RFC 6996).
const ASN: u32 = 4_200_000_000;

/// How long the halves get to finish.
const DRAIN: Duration = Duration::from_secs(10);

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
    /// A half ended by itself.
    #[error("the {0} half ended: see the log")]
    Ended(&'static str),
}

/// Run a node until `stop` ends, then drain it.
///
/// # Errors
/// See [`NodeError`].
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), NodeError> {
    let state = State::open(&config.state)?;
    let fixed = config.bundle.as_ref().map(bundle::load).transpose()?;
    if fixed.is_none() && !state.has_joined() {
        let Some(token) = &config.token else {
            return Err(NodeError::NotJoined(config.state));
        };
        join::join(&state, token).await?;
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
    tracing::info!(site = %me.site, node = %me.node, "node starts");
    let identity = pki::Identity::node(planet, me.site.clone(), me.node.clone());
    let (control_end, data_end) = tunnel::Pipes::in_memory();
    let (queries, take_queries) = mpsc::channel(16);
    let (speaker, speaker_) = watch::channel(None);
    let (ready, is_ready) = oneshot::channel();
    let metrics = Metrics::default();
    let data = data::Config {
        me: me.clone(),
        state: state.clone(),
        fixed: bundle.clone(),
        identity: identity.clone(),
        pipes: data_end,
        queries: take_queries,
        metrics: metrics.clone(),
        workers: config.workers,
        access_log: config.access_log,
        ready,
        material,
    };
    let verifier = data
        .material
        .as_ref()
        .map(|material| material.verifier.clone());
    let control = control::Config {
        me,
        identity,
        state: state.clone(),
        verifier,
        fixed: bundle,
        pipes: control_end,
        metrics: metrics.clone(),
        speaker,
    };
    let started = |what| move |e| NodeError::Start(what, e);
    let data = runtime::thread("data", move |tasks| data::run(tasks, data))
        .map_err(started("data thread"))?;
    let control = runtime::thread("control", move |tasks| control::run(tasks, control))
        .map_err(started("control thread"))?;
    let admin = admin::Admin {
        queries,
        speaker: speaker_,
        metrics,
    };
    let group = Tasks::new("node");
    let socket =
        runtime::net::unix_listener(&state.path("admin.sock")).map_err(started("admin socket"))?;
    group.spawn("admin", admin.serve(socket, group.clone()));
    group.spawn("ready", async move {
        if is_ready.await.is_ok() {
            tracing::info!("node is ready");
        }
    });
    let ended = tokio::select! {
        () = stop => None,
        _ = data.exited() => Some("data"),
        _ = control.exited() => Some("control"),
    };
    tracing::info!("node drains");
    control.start_drain();
    data.start_drain();
    let both = async {
        tokio::join!(
            data.exited(),
            control.exited(),
            group.drain(Duration::from_millis(500))
        )
    };
    if tokio::time::timeout(DRAIN, both).await.is_err() {
        tracing::warn!("the halves did not finish in time");
    }
    match ended {
        None => Ok(()),
        Some(half) => Err(NodeError::Ended(half)),
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
