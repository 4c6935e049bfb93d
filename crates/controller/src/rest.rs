//! The REST API: HTTP/1.1 and HTTP/2 over TLS 1.3, one bearer token.

mod answer;
mod body;
mod present;
mod target;
mod watch;

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use api::{Object, ObjectKey, Problem};
use base::Revision;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use runtime::{Drain, Tasks};
use rustls::ServerConfig;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch as channel},
};
use tokio_rustls::TlsAcceptor;

use self::{
    answer::{Body, created, found, json, no_content, text},
    target::{Query, Target},
};
use crate::{ledger::Ledger, metrics::Meters, planner::Board, redact, reports::Reports};

/// Connections at a time; more are closed at once.
const MAX_CONNECTIONS: usize = 512;
/// Open watches at a time; more are answered 429.
const MAX_WATCHES: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer about sites waits this long for the planner to have seen the newest change.
const SETTLE: Duration = Duration::from_secs(2);

/// What every request needs.
pub(crate) struct Rest {
    pub(crate) ledger: Ledger,
    pub(crate) board: channel::Receiver<Arc<Board>>,
    pub(crate) reports: Arc<Reports>,
    pub(crate) meters: Arc<Meters>,
    /// SHA-256 of the administrator's token: the comparison is then of constant length.
    pub(crate) token_hash: [u8; 32],
    pub(crate) openapi: Bytes,
    pub(crate) watches: Arc<Semaphore>,
    pub(crate) doors: channel::Receiver<Arc<ServerConfig>>,
    pub(crate) tasks: Tasks,
    pub(crate) drain: Drain,
}

/// Spawns what hyper wants spawned as named tasks.
#[derive(Clone)]
struct Executor(Tasks);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Executor {
    fn execute(&self, future: F) {
        self.0.spawn("api stream", future);
    }
}

impl Rest {
    pub(crate) fn watch_limit() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(MAX_WATCHES))
    }

    /// The OpenAPI document, made once.
    pub(crate) fn openapi() -> Bytes {
        Bytes::from(api::openapi::document().to_string())
    }

    /// Accepts until the drain begins.
    pub(crate) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.drain.draining() => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.meters.refuse("accept", "", &error);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let full = "too many connections";
                self.meters
                    .refuse("too-many-connections", &peer.ip().to_string(), &full);
                continue;
            };
            let rest = Arc::clone(&self);
            self.tasks.spawn("api connection", async move {
                if let Err(error) = rest.serve(stream, peer).await {
                    tracing::debug!(peer = %peer, error = %base::Chain(&*error), "API connection");
                }
                drop(place);
            });
        }
    }

    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        stream.set_nodelay(true)?;
        let acceptor = TlsAcceptor::from(Arc::clone(&*self.doors.borrow()));
        let tls = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let (drain, tasks) = (self.drain.clone(), self.tasks.clone());
        let service = service_fn(move |request| {
            let rest = Arc::clone(&self);
            async move { Ok::<_, Infallible>(rest.handle(request, peer.ip()).await) }
        });
        let io = TokioIo::new(tls);
        if http2 {
            let mut builder = hyper::server::conn::http2::Builder::new(Executor(tasks));
            builder.timer(TokioTimer::new()).max_concurrent_streams(64);
            builder
                .max_header_list_size(16 << 10)
                .keep_alive_interval(Duration::from_secs(20));
            let connection = builder.serve_connection(io, service);
            tokio::pin!(connection);
            tokio::select! {
                done = connection.as_mut() => return Ok(done?),
                () = drain.draining() => connection.as_mut().graceful_shutdown(),
            }
            return Ok(connection.await?);
        }
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT);
        builder.max_buf_size(64 << 10).max_headers(64);
        let connection = builder.serve_connection(io, service);
        tokio::pin!(connection);
        tokio::select! {
            done = connection.as_mut() => return Ok(done?),
            () = drain.draining() => connection.as_mut().graceful_shutdown(),
        }
        Ok(connection.await?)
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: IpAddr) -> Response<Body> {
        let meters = Arc::clone(&self.meters);
        // What only reads is refused without a word: `apply` looks for what is not there yet.
        let changes = *request.method() != Method::GET;
        let response = self.answer(request, peer).await.unwrap_or_else(|problem| {
            // Strangers are counted and logged where they are recognised.
            if changes && problem.status != StatusCode::UNAUTHORIZED.as_u16() {
                meters.refuse_change(peer, &problem);
            }
            answer::problem(&problem)
        });
        meters.answered(response.status().as_u16());
        response
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        peer: IpAddr,
    ) -> Result<Response<Body>, Problem> {
        let target: Target = request.uri().path().parse()?;
        let query = Query::parse(request.uri().query())?;
        let open = matches!(target, Target::Health | Target::OpenApi);
        if !open {
            self.authenticate(&request, peer)?;
        }
        let method = request.method().clone();
        match (&method, target) {
            (&Method::GET, Target::Health) => Ok(text("text/plain", "ok\n".into())),
            (&Method::GET, Target::OpenApi) => Ok(text("application/json", self.openapi.clone())),
            (&Method::GET, Target::Metrics) => Ok(text(
                runtime::metrics::CONTENT_TYPE,
                self.meters.all.render().into(),
            )),
            (&Method::GET, Target::SiteStatus) => {
                self.settle().await;
                let state = self.ledger.state();
                let items = present::site_status(&state, &self.board.borrow(), &self.reports);
                Ok(json(&json!({ "items": items, "revision": state.revision })))
            }
            (&Method::GET, Target::Endpoints) => {
                let items = present::endpoints(&self.reports, query.tenant.as_ref());
                Ok(json(
                    &json!({ "items": items, "revision": self.ledger.state().revision }),
                ))
            }
            (&Method::GET, Target::List(list)) if query.watch => {
                watch::start(&self, list, query.revision).await
            }
            (&Method::GET, Target::List(list)) => {
                self.settle().await;
                let state = self.ledger.state();
                let objects = state
                    .world
                    .objects()
                    .iter()
                    .filter(|(key, _)| list.holds(key));
                let items: Vec<Object> = objects
                    .map(|(_, object)| self.show((**object).clone()))
                    .collect();
                Ok(json(&json!({ "items": items, "revision": state.revision })))
            }
            (&Method::GET, Target::One(key)) => self.read(&key).await,
            (&Method::PUT, Target::One(key)) => self.put(&key, request, query.dry_run).await,
            (&Method::DELETE, Target::One(key)) => {
                self.ledger
                    .delete(key, query.revision, query.dry_run)
                    .await?;
                Ok(no_content())
            }
            (_, target) => Err(not_allowed(&method, &target)),
        }
    }

    fn authenticate(&self, request: &Request<Incoming>, peer: IpAddr) -> Result<(), Problem> {
        let value = request
            .headers()
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes());
        let presented = value.and_then(|value| {
            let (scheme, token) = value.split_at_checked(7)?;
            scheme
                .eq_ignore_ascii_case(b"bearer ")
                .then_some(token.trim_ascii())
        });
        let hash = pki::sha256(presented.unwrap_or_default());
        if presented.is_some() && pki::equal_in_constant_time(&hash, &self.token_hash) {
            return Ok(());
        }
        let title = match presented {
            None => "send the header \"Authorization: Bearer TOKEN\"",
            Some(_) => "the bearer token is not the one in the controller's admin.token",
        };
        self.meters
            .refuse("unauthorized", &peer.to_string(), &title);
        Err(Problem::new(401, "unauthorized", title))
    }

    async fn read(&self, key: &ObjectKey) -> Result<Response<Body>, Problem> {
        let absent = || {
            let problem = Problem::new(404, "not-found", format!("{key} does not exist"));
            problem.about(key.to_string())
        };
        // Of what is not there no site has anything to say: whoever makes many things waits for none.
        if self.ledger.state().world.find(key).is_none() {
            return Err(absent());
        }
        self.settle().await;
        match self.ledger.state().world.find(key) {
            Some(object) => Ok(found(&self.show(object.clone()))),
            None => Err(absent()),
        }
    }

    async fn put(
        &self,
        key: &ObjectKey,
        request: Request<Incoming>,
        dry_run: bool,
    ) -> Result<Response<Body>, Problem> {
        let object = Object::from_value(body::read(request).await?)
            .map_err(|problem| problem.about(key.to_string()))?;
        if object.key() != *key {
            let title = format!("the body is {}, the path {key}", object.key());
            return Err(Problem::field("path-mismatch", "/metadata", title).about(key.to_string()));
        }
        let put = self.ledger.put(object, dry_run).await?;
        let mut shown = self.show(put.object);
        if let Some(token) = put.token {
            shown.status.get_or_insert_default().token = Some(token);
        }
        Ok(if put.created {
            created(&shown)
        } else {
            found(&shown)
        })
    }

    /// The object as it is shown: with status, without secrets.
    fn show(&self, object: Object) -> Object {
        let state = self.ledger.state();
        redact::redact(present::object(
            &state,
            &self.board.borrow(),
            &self.reports,
            object,
        ))
    }

    /// Waits until the planner has seen the newest change, so that what is said about sites is
    /// about that.
    async fn settle(&self) {
        let newest: Revision = self.ledger.state().revision;
        let mut board = self.board.clone();
        if board.borrow().revision < newest {
            board.borrow().asked.notify_one();
        }
        let settled = board.wait_for(|board| board.revision >= newest);
        // Late: the answer shows what is known.
        let _ = tokio::time::timeout(SETTLE, settled).await;
    }
}

fn not_allowed(method: &Method, target: &Target) -> Problem {
    let allowed = match target {
        Target::One(_) => "GET, PUT or DELETE",
        Target::Health
        | Target::OpenApi
        | Target::Metrics
        | Target::SiteStatus
        | Target::Endpoints
        | Target::List(_) => "GET",
    };
    let status = StatusCode::METHOD_NOT_ALLOWED.as_u16();
    Problem::new(
        status,
        "method-not-allowed",
        format!("{method} is not possible here: {allowed}"),
    )
}
