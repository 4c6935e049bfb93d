//! `sealane bgp`: the speaker alone, as a route server, a reflector, or a mirror to measure
//! others by. It knows no site and no tenant; its admin socket is a node's.
//!
//! `GET /neighbors`, `/routes?family=F&prefix=P&limit=N`, `/healthz`;
//! `POST /bgp/reset?peer=ADDRESS`, `/bgp/refresh?peer=ADDRESS`.

mod config;
pub(crate) mod show;

use std::{convert::Infallible, future::Future, io, net::IpAddr, path::PathBuf, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use runtime::Tasks;
use speaker::server::{Family, Order, RouteQuery, Server, ServerError, parse_prefix};
use tokio::net::{UnixListener, UnixStream};

use crate::{
    admin::{good, problem, text},
    mark::Mark,
};

pub use config::ConfigError;

/// Routes shown where nobody says how many.
const ROUTES: usize = 1000;
/// The most routes shown at once.
const MAX_ROUTES: usize = 100_000;
/// How long sessions get to say that they end.
const DRAIN: Duration = Duration::from_secs(5);

/// How the speaker alone is run.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its file.
    pub file: PathBuf,
    /// Where its admin socket is; none without.
    pub state: Option<PathBuf>,
}

/// Why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum BgpError {
    /// The file is wrong.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The system refused a socket or a thread.
    #[error("the speaker cannot start")]
    Start(#[from] ServerError),
    /// The state folder cannot be used.
    #[error("{0}: cannot be used")]
    State(PathBuf, #[source] io::Error),
}

/// Look at a file and say what it would do.
///
/// # Errors
/// What is wrong with it.
pub fn check(file: &std::path::Path) -> Result<String, ConfigError> {
    let config = config::load(file)?;
    Ok(format!(
        "AS {} as {}: {} neighbours, {} routes of its own, {} threads",
        config.asn,
        config.node,
        config.neighbors.len(),
        config.routes.len(),
        config.shards
    ))
}

/// Speak until `stop` ends, then say good-bye to every neighbour.
///
/// # Errors
/// See [`BgpError`].
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> Result<(), BgpError> {
    let mut settings = config::load(&config.file)?;
    let mark = match &config.state {
        Some(state) => {
            let lost = |error| BgpError::State(state.clone(), error);
            std::fs::create_dir_all(state).map_err(lost)?;
            let mark = Mark::new(state);
            settings.restarted = mark.is_ours();
            mark.set().map_err(lost)?;
            Some(mark)
        }
        None => None,
    };
    let group = Tasks::new("bgp");
    let server = Server::start(settings).await?;
    if let Some(state) = &config.state {
        let lost = |error| BgpError::State(state.clone(), error);
        let socket = runtime::net::unix_listener(&state.join("admin.sock")).map_err(lost)?;
        group.spawn("admin", serve(socket, server.clone(), group.clone()));
    }
    tracing::info!("the speaker is ready");
    stop.await;
    tracing::info!("the speaker drains");
    tokio::join!(server.stop(DRAIN), group.drain(Duration::from_millis(500)));
    // Neighbours were told that we end: the next start is no restart.
    drop(mark.map(|mark| mark.remove()));
    Ok(())
}

async fn serve(socket: UnixListener, server: Server, tasks: Tasks) {
    let token = tasks.token();
    loop {
        let accepted = tokio::select! {
            () = token.draining() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let server = server.clone();
                tasks.spawn("admin-client", converse(stream, server));
            }
            Err(error) => {
                tracing::warn!(%error, "the admin socket refused a client");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, server: Server) {
    if !matches!(runtime::net::same_user(&stream), Ok(true)) {
        tracing::warn!("another user at the admin socket");
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let server = server.clone();
        async move { Ok::<_, Infallible>(answer(&server, &request).await) }
    });
    if let Err(error) = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "an admin client ended");
    }
}

async fn answer(server: &Server, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
        (&Method::GET, "/neighbors") => good(&show::neighbors(&server.neighbors().await)),
        (&Method::GET, "/routes") => match routes(query) {
            Ok(queries) => {
                let mut found = Vec::new();
                for query in queries {
                    found.push(server.routes(query).await);
                }
                good(&show::routes(server, &found))
            }
            Err(sentence) => problem(StatusCode::BAD_REQUEST, sentence),
        },
        (&Method::POST, "/bgp/reset") => order(server, query, Order::Reset).await,
        (&Method::POST, "/bgp/refresh") => order(server, query, Order::Refresh).await,
        _ => problem(
            StatusCode::NOT_FOUND,
            "see /routes /neighbors /bgp/reset /bgp/refresh",
        ),
    }
}

async fn order(server: &Server, query: &str, order: Order) -> Response<Full<Bytes>> {
    let address = field(query, "peer").and_then(|peer| peer.parse::<IpAddr>().ok());
    let Some(address) = address else {
        return problem(StatusCode::BAD_REQUEST, "?peer=ADDRESS, one of /neighbors");
    };
    if server.order(address, order).await {
        good(&serde_json::json!({ "peer": address.to_string() }))
    } else {
        problem(StatusCode::NOT_FOUND, "no neighbour has this address")
    }
}

/// The value of a field of a query; prefixes may be written with `/` or `%2F`, `:` or `%3A`.
fn field(query: &str, name: &str) -> Option<String> {
    let mut fields = query.split('&').filter_map(|field| field.split_once('='));
    let (_, value) = fields.find(|(key, _)| *key == name)?;
    let value = value.replace("%2F", "/").replace("%2f", "/");
    Some(value.replace("%3A", ":").replace("%3a", ":"))
}

fn routes(query: &str) -> Result<Vec<RouteQuery>, String> {
    let limit = match field(query, "limit") {
        Some(limit) => limit.parse().map_err(|_| "limit: a number".to_owned())?,
        None => ROUTES,
    };
    let prefix = field(query, "prefix")
        .map(|prefix| parse_prefix(&prefix).ok_or("prefix: such as 10.0.0.0/8"))
        .transpose()?;
    let family = field(query, "family")
        .map(|family| family.parse().map_err(|_| "family: such as ipv4 or mesh"))
        .transpose()?;
    let families: Vec<Family> = match (family, &prefix) {
        (Some(family), _) => vec![family],
        (None, Some((family, _))) => vec![*family],
        (None, None) => Family::ALL.to_vec(),
    };
    let key = prefix.map(|(_, key)| key);
    let query = |family| RouteQuery {
        family,
        key: key.clone(),
        limit: limit.min(MAX_ROUTES),
    };
    Ok(families.into_iter().map(query).collect())
}
