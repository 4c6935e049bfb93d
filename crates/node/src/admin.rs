//! The admin socket: HTTP on `STATE/admin.sock`, for the machine's owner only.
//!
//! `GET /status`, `/endpoints`, `/routes`, `/neighbors`, `/refusals`, `/metrics`, `/healthz`;
//! `POST /bgp/reset?peer=NODE-ID`, `/why` with a [`Question`](api::derived::Question).

use std::{convert::Infallible, fmt::Display};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use runtime::{Tasks, metrics::Metrics};
use serde::Serialize;
use serde_json::{Value, json};
use speaker::{
    Handle, PeerId, Snapshot,
    server::{Family, RouteQuery},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
};

use crate::{bgp::show, control::Shown, data::Query};

/// The most octets of a question.
const MAX_QUESTION: usize = 64 << 10;
/// Routes shown at once.
const MAX_ROUTES: usize = 10_000;

/// Whom the socket asks.
#[derive(Clone)]
pub(crate) struct Admin {
    pub(crate) queries: mpsc::Sender<Query>,
    pub(crate) speaker: watch::Receiver<Option<Handle>>,
    pub(crate) metrics: Metrics,
    pub(crate) routers: Shown,
}

/// Which half of what a speaker knows.
#[derive(Clone, Copy)]
enum Shows {
    Neighbors,
    Routes,
}

type Answer = Response<Full<Bytes>>;

impl Admin {
    pub(crate) async fn serve(self, socket: UnixListener, tasks: Tasks) {
        let token = tasks.token();
        loop {
            let accepted = tokio::select! {
                () = token.draining() => return,
                accepted = socket.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let admin = self.clone();
                    tasks.spawn("admin-client", async move { admin.converse(stream).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "the admin socket refused a client");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn converse(self, stream: UnixStream) {
        if !matches!(runtime::net::same_user(&stream), Ok(true)) {
            tracing::warn!("another user at the admin socket");
            return;
        }
        let service = service_fn(move |request| {
            let admin = self.clone();
            async move { Ok::<_, Infallible>(admin.answer(request).await) }
        });
        if let Err(error) = http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await
        {
            tracing::debug!(%error, "an admin client ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/healthz") => text(StatusCode::OK, "text/plain", "ok\n".to_owned()),
            (&Method::GET, "/status") => match self.status().await {
                Some(status) => good(&status),
                None => busy(),
            },
            (&Method::GET, "/endpoints") => match self.status().await {
                Some(status) => good(&status.endpoints),
                None => busy(),
            },
            (&Method::GET, "/paths") => match self.status().await {
                Some(status) => good(&status.paths),
                None => busy(),
            },
            (&Method::GET, "/refusals") => match self.ask(Query::Refusals).await {
                Some(all) => good(&refusals(&all)),
                None => busy(),
            },
            (&Method::GET, "/metrics") => text(
                StatusCode::OK,
                runtime::metrics::CONTENT_TYPE,
                self.metrics.render(),
            ),
            (&Method::GET, "/routes") => match self.snapshot().await {
                Some(snapshot) => {
                    let mut all = routes(&snapshot);
                    self.add_routers(&mut all, Shows::Routes).await;
                    good(&all)
                }
                None => busy(),
            },
            (&Method::GET, "/neighbors") => match self.snapshot().await {
                Some(snapshot) => {
                    let mut all = neighbors(&snapshot);
                    self.add_routers(&mut all, Shows::Neighbors).await;
                    good(&all)
                }
                None => busy(),
            },
            (&Method::POST, "/why") => self.why(request.into_body()).await,
            (&Method::POST, "/bgp/reset") => self.reset(request.uri().query()).await,
            _ => problem(
                StatusCode::NOT_FOUND,
                "see /status /endpoints /routes /neighbors /refusals /metrics",
            ),
        }
    }

    async fn why(&self, body: Incoming) -> Answer {
        let body = Limited::new(body, MAX_QUESTION).collect().await;
        let question = match body {
            Ok(body) => serde_json::from_slice(&body.to_bytes()).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let question = match question {
            Ok(question) => Box::new(question),
            Err(error) => return problem(StatusCode::BAD_REQUEST, error),
        };
        match self.ask(|reply| Query::Why(question, reply)).await {
            Some(Ok(explanation)) => good(&explanation),
            Some(Err(error)) => problem(StatusCode::BAD_REQUEST, error),
            None => busy(),
        }
    }

    async fn status(&self) -> Option<api::derived::NodeStatus> {
        self.ask(Query::Status).await
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(query(reply)).await.ok()?;
        answer.await.ok()
    }

    /// What there is of the routers beside the site, each item with the router's name.
    async fn add_routers(&self, all: &mut Value, what: Shows) {
        let routers = self.routers.borrow().clone();
        for (name, server) in routers {
            let mut shown = match what {
                Shows::Neighbors => show::neighbors(&server.neighbors().await),
                Shows::Routes => {
                    let mut found = Vec::new();
                    for family in [Family::IPV4, Family::IPV6] {
                        let query = RouteQuery {
                            family,
                            key: None,
                            limit: MAX_ROUTES,
                        };
                        found.push(server.routes(query).await);
                    }
                    show::routes(&server, &found)
                }
            };
            let items = shown["items"].as_array_mut().map(std::mem::take);
            let list = all["items"].as_array_mut();
            if let (Some(items), Some(list)) = (items, list) {
                list.extend(items.into_iter().map(|mut item| {
                    item["router"] = json!(name.to_string());
                    item
                }));
            }
        }
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let handle = self.speaker.borrow().clone()?;
        handle.snapshot(MAX_ROUTES).await.ok()
    }

    async fn reset(&self, query: Option<&str>) -> Answer {
        let peer = query.and_then(|query| query.strip_prefix("peer="));
        let peer = peer.and_then(|peer| {
            let dotted = peer.parse::<std::net::Ipv4Addr>().map(u32::from);
            dotted.or_else(|_| peer.parse()).ok()
        });
        let handle = self.speaker.borrow().clone();
        let (Some(peer), Some(handle)) = (peer, handle) else {
            return problem(
                StatusCode::BAD_REQUEST,
                "POST /bgp/reset?peer=ID, an id of /neighbors",
            );
        };
        match handle.reset(PeerId(peer)).await {
            Ok(()) => good(&json!({ "reset": PeerId(peer).to_string() })),
            Err(error) => problem(StatusCode::SERVICE_UNAVAILABLE, error),
        }
    }
}

fn routes(snapshot: &Snapshot) -> Value {
    let route = |view: &speaker::RouteView| {
        let paths: Vec<Value> = view
            .paths
            .iter()
            .map(|path| {
                json!({
                    "from": format!("{:?}", path.source),
                    "originator": path.originator.to_string(),
                    "state": path.value.state().map(|state| state.to_string()),
                    "seq": path.value.seq(&view.key).map(|seq| seq.0),
                    "stale": path.stale,
                })
            })
            .collect();
        json!({
            "key": view.key.to_string(),
            "why": view.why.as_ref().map(|why| why.to_string()),
            "paths": paths,
        })
    };
    json!({ "total": snapshot.total, "items": snapshot.routes.iter().map(route).collect::<Vec<_>>() })
}

fn neighbors(snapshot: &Snapshot) -> Value {
    let now = runtime::now();
    let neighbor = |n: &speaker::Neighbor| {
        json!({
            "id": n.view.config.id.to_string(),
            "role": format!("{:?}", n.view.config.kind),
            "up": n.view.up,
            "synced": n.view.synced,
            "routes": n.view.routes,
            "told": n.view.told,
            "queued": n.view.queued,
            "received": n.view.received,
            "refused": refused(&n.view.refused),
            "since_s": now.since(n.since).as_secs(),
            "lastClose": n.last_close.as_ref().map(ToString::to_string),
        })
    };
    json!({ "items": snapshot.neighbors.iter().map(neighbor).collect::<Vec<_>>() })
}

/// Routes treated as withdrawn, by reason.
fn refused(counts: &[u64]) -> Value {
    let all = speaker::Refusal::ALL.into_iter();
    let some = all.filter_map(|reason| {
        let count = *counts.get(reason.index())?;
        (count > 0).then(|| (reason.to_string(), Value::from(count)))
    });
    Value::Object(some.collect())
}

/// Tunnel streams refused, by peer and rule.
fn refusals(all: &[(base::SiteName, &'static str, u64)]) -> Value {
    let item = |(peer, rule, count): &(base::SiteName, &'static str, u64)| json!({ "peer": peer.to_string(), "rule": rule, "count": count });
    json!({ "items": all.iter().map(item).collect::<Vec<_>>() })
}

pub(crate) fn good(value: &impl Serialize) -> Answer {
    match serde_json::to_string(value) {
        Ok(body) => text(StatusCode::OK, "application/json", body + "\n"),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn busy() -> Answer {
    problem(
        StatusCode::SERVICE_UNAVAILABLE,
        "the node is starting or ending",
    )
}

pub(crate) fn problem(status: StatusCode, title: impl Display) -> Answer {
    let problem = api::Problem::new(status.as_u16(), "admin", title.to_string());
    let body = serde_json::to_string(&problem).unwrap_or_default();
    text(status, api::Problem::MEDIA_TYPE, body + "\n")
}

pub(crate) fn text(status: StatusCode, media: &'static str, body: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let media = http::HeaderValue::from_static(media);
    response.headers_mut().insert(header::CONTENT_TYPE, media);
    response
}
