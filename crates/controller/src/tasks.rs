//! The controller's tasks and queues.
//!
//! ```text
//!  API connections (512) ─┐ commands (64; full: the caller       ┌─▶ store ─▶ disk
//!  joins, rate limited ───┴─▶ waits, 503 after 20 s) ─▶ writer ──┤
//!                                                                └─▶ State (newest only)
//!  watches (256) ◀── store's history, 16 events ahead                     │
//!                                                                         ▼
//!  site-sync streams ◀── Board (newest only) ◀──────────────── thread "planner": sign
//!      │ at most one line under way each; 30 s without progress: cut
//!      └──▶ Reports (the last word of each node) ──▶ answers of the API
//! ```
//! At the drain the listeners close first, then connections and streams end, then the writer
//! finishes what waits and closes the store.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use base::WallTime;
use pki::{Authority, Identity, NodeKey, Planet, Signer};
use runtime::{
    Drain, Tasks,
    net::{Share, tcp_listener},
    tls::{self, Credentials},
};
use rustls::ServerConfig;
use rustls_pki_types::PrivatePkcs8KeyDer;
use store::Store;
use tokio::{net::TcpListener, sync::watch};

use crate::{
    Config, Ready, RunError,
    fabric::{Doors, Fabric, H2_ALPN, JOIN_ALPN, JoinLimits},
    home::Home,
    ledger::{self, Issuer, Ledger},
    metrics::Meters,
    planner::{Author, Board, Planner},
    reports::Reports,
    rest::Rest,
};

/// What connections get to finish after the drain began, and the writer after them.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the controller's own certificates hold, and how often their age is looked at.
const OWN_LIFETIME: Duration = Duration::from_secs(90 * 86_400);
const OWN_CHECK: Duration = Duration::from_secs(6 * 3600);

/// Runs a controller until `drain` begins, then drains it. `ready` is called once it serves.
///
/// # Errors
/// See [`RunError`]: nothing is served then.
pub async fn run(
    config: Config,
    drain: Drain,
    ready: impl FnOnce(&Ready) + Send,
) -> Result<(), RunError> {
    let now = runtime::wall();
    let Ground {
        planet,
        home,
        store,
        api,
        fabric,
    } = Ground::open(&config, now).await?;
    let addresses = match config.advertise.as_slice() {
        [] => vec![fabric.1.to_string()],
        given => given.to_vec(),
    };
    let Home {
        authority,
        key,
        admin_token,
        ..
    } = &home;
    let authority = Arc::clone(authority);
    let own = Own {
        authority: Arc::clone(&authority),
        key,
        planet,
        hosts: hosts(&config, api.1),
    };
    let (api_door, fabric_doors) = own.doors(now)?;
    let signer = own.signer(now)?;
    let meters = Arc::new(Meters::default());
    let issuer = Issuer {
        authority: Arc::clone(&authority),
        planet: own.planet.clone(),
        addresses,
        lifetime: config.node_certificate_lifetime,
    };
    let (ledger, writer) = ledger::open(store, issuer, Arc::clone(&meters)).await?;
    let (tasks, writing) = (Tasks::new("controller"), Tasks::new("ledger"));
    writing.spawn("writer", writer.run(writing.token()));
    let reports = Arc::new(Reports::default());
    let author = Author {
        planet: own.planet.to_string(),
        signer,
        meters: Arc::clone(&meters),
    };
    let author = Arc::new(author);
    let (board, thread) = start_planner(&author, &ledger)?;
    let (api_sender, api_doors) = watch::channel(api_door);
    let (fabric_sender, fabric_doors) = watch::channel(fabric_doors);
    let rest = Arc::new(Rest {
        ledger: ledger.clone(),
        board: board.clone(),
        reports: Arc::clone(&reports),
        meters: Arc::clone(&meters),
        token_hash: pki::sha256(admin_token.as_bytes()),
        openapi: Rest::openapi(),
        watches: Rest::watch_limit(),
        doors: api_doors,
        tasks: tasks.clone(),
        drain: tasks.token(),
    });
    let fabric_server = Arc::new(Fabric {
        ledger: ledger.clone(),
        board,
        reports: Arc::clone(&reports),
        meters,
        author,
        authority,
        lifetime: config.node_certificate_lifetime,
        doors: fabric_doors,
        joins: JoinLimits::default(),
        tasks: tasks.clone(),
    });
    tasks.spawn("api listener", rest.accept(api.0));
    tasks.spawn(
        "fabric listener",
        fabric_server.accept(fabric.0, tasks.token()),
    );
    tasks.spawn("forget", forget(ledger, reports, tasks.token()));
    let info = announce(&home, api.1, fabric.1)?;
    tracing::info!(url = %info.url, fabric = %info.fabric, "controller ready");
    ready(&info);
    while tokio::time::timeout(OWN_CHECK, drain.draining())
        .await
        .is_err()
    {
        own.renew(&api_sender, &fabric_sender);
    }
    tracing::info!("controller drains");
    home.remove("ready.json")?;
    tasks.drain(DRAIN).await;
    thread.start_drain();
    thread.exited().await;
    writing.drain(DRAIN).await;
    Ok(())
}

/// What a controller stands on.
struct Ground {
    planet: Planet,
    home: Home,
    store: Store,
    api: (TcpListener, SocketAddr),
    fabric: (TcpListener, SocketAddr),
}

/// How long a file in use is asked for again.
const IN_USE: Duration = Duration::from_secs(2);

impl Ground {
    async fn open(config: &Config, now: WallTime) -> Result<Self, RunError> {
        let planet: Planet = config.planet.parse().map_err(RunError::Planet)?;
        let home = Home::open(&config.home, &planet, now)?;
        let database = home.path("store.db");
        let store = open_store(database).await?;
        // The folder is ours now: what another controller announced here is over.
        home.remove("ready.json")?;
        let api = listen("API", config.api)?;
        let fabric = listen("fabric", config.fabric)?;
        Ok(Ground {
            planet,
            home,
            store,
            api,
            fabric,
        })
    }
}

/// Opens the store. A controller that was killed lets go of its file a moment after it counts as
/// dead, so a file in use is asked for again for a while.
async fn open_store(database: std::path::PathBuf) -> Result<Store, RunError> {
    let began = runtime::now();
    loop {
        let path = database.clone();
        let open = move || Store::open_sqlite(&path, store::Options::default());
        let opened = tokio::task::spawn_blocking(open).await;
        match opened.map_err(|_| RunError::Interrupted)? {
            Err(store::OpenError::InUse { .. }) if runtime::now().since(began) < IN_USE => {
                tokio::time::sleep(IN_USE / 20).await;
            }
            opened => return Ok(opened?),
        }
    }
}

/// The controller's own key, and what it is certified as.
struct Own<'a> {
    authority: Arc<Authority>,
    key: &'a NodeKey,
    planet: Planet,
    hosts: Vec<String>,
}

impl Own<'_> {
    fn doors(&self, now: WallTime) -> Result<(Arc<ServerConfig>, Arc<Doors>), RunError> {
        let request = self.key.csr_der().map_err(RunError::Key)?;
        let identity = Identity::controller(self.planet.clone());
        let chain = self
            .authority
            .issue_with_hosts(&request, &identity, &self.hosts, now, OWN_LIFETIME)
            .map_err(RunError::Issue)?;
        let key = PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec()).into();
        let credentials = Credentials { chain, key };
        let roots = [self.authority.certificate_der().clone()];
        let api = tls::server(&credentials, &[b"h2", b"http/1.1"])?;
        let doors = Doors {
            join: tls::server(&credentials, &[JOIN_ALPN])?,
            mutual: tls::fabric_server(&credentials, &roots, &[H2_ALPN])?,
        };
        Ok((api, Arc::new(doors)))
    }

    fn signer(&self, now: WallTime) -> Result<Signer, RunError> {
        let chain = self
            .authority
            .issue_signer(self.key, now)
            .map_err(RunError::Issue)?;
        Signer::new(self.key, chain).map_err(RunError::Signer)
    }

    /// New certificates for new connections, long before the old ones end.
    fn renew(&self, api: &watch::Sender<Arc<ServerConfig>>, fabric: &watch::Sender<Arc<Doors>>) {
        match self.doors(runtime::wall()) {
            Ok((api_door, doors)) => {
                api.send_replace(api_door);
                fabric.send_replace(doors);
            }
            Err(error) => {
                tracing::error!(error = %base::Chain(&error), "own certificate not renewed");
            }
        }
    }
}

fn start_planner(
    author: &Arc<Author>,
    ledger: &Ledger,
) -> Result<(watch::Receiver<Arc<Board>>, runtime::Thread), RunError> {
    let (sender, board) = watch::channel(Arc::new(Board::default()));
    let planner = Planner {
        author: Arc::clone(author),
        states: ledger.states(),
        board: sender,
    };
    let thread =
        runtime::thread("planner", |tasks| planner.run(tasks.token())).map_err(RunError::Thread)?;
    Ok((board, thread))
}

/// Forgets what deleted nodes said.
async fn forget(ledger: Ledger, reports: Arc<Reports>, drain: Drain) {
    let mut states = ledger.states();
    loop {
        let state = Arc::clone(&states.borrow_and_update());
        reports.retain(|site, node| crate::fabric::exists(&state, site, node));
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            () = drain.draining() => return,
        }
    }
}

fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let failed = |source: io::Error| RunError::Listen {
        what,
        address,
        source,
    };
    let listener = tcp_listener(address, Share::Exclusive).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// The names of the API's certificate.
fn hosts(config: &Config, api: SocketAddr) -> Vec<String> {
    let mut hosts = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    if !api.ip().is_unspecified() {
        hosts.push(api.ip().to_string());
    }
    hosts.extend(config.api_hosts.iter().cloned());
    hosts.sort();
    hosts.dedup();
    hosts
}

fn announce(home: &Home, api: SocketAddr, fabric: SocketAddr) -> Result<Ready, RunError> {
    let reachable = match (api.ip().is_unspecified(), api.is_ipv4()) {
        (false, _) => api,
        (true, true) => SocketAddr::from(([127, 0, 0, 1], api.port())),
        (true, false) => SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, api.port())),
    };
    let ready = Ready {
        url: format!("https://{reachable}"),
        ca: home.path("api-ca.pem"),
        token_file: home.path("admin.token"),
        fabric,
        pid: std::process::id(),
    };
    let json = serde_json::to_vec(&ready).map_err(RunError::Announce)?;
    home.write("ready.json", &json, 0o600)?;
    Ok(ready)
}
