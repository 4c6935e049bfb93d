//! Spans to a collector: OTLP over HTTP, in its JSON form, from a thread of its own.
//!
//! ```text
//! workers ── batches (256; full: dropped, counted) ──▶ one POST at a time ──▶ collector
//! ```
//! A batch that the collector does not take at once is tried once more; then it is dropped and
//! counted. Nothing waits for it but the batches behind it.

use std::{io, time::Duration};

use base::SiteName;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use runtime::{
    Tasks,
    metrics::{Counter, Metrics},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::TlsConnector;

use crate::web::{Place, place};

/// One POST, its connection included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between the two tries of a batch.
const PAUSE: Duration = Duration::from_secs(1);
/// Of an answer no more is read.
const MAX_ANSWER: usize = 64 << 10;

/// Where spans go, and how many of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// `http://HOST:PORT/v1/traces`, or `https://…`.
    pub uri: Uri,
    /// Of the requests that begin a trace, 0 to 1.
    pub ratio: f64,
}

/// Why spans are not taken.
#[derive(Debug, thiserror::Error)]
enum SendError {
    #[error("it took more than 10 s")]
    Slow,
    #[error("the collector cannot be reached")]
    Connect(#[source] io::Error),
    #[error("HTTP failed")]
    Http(#[source] hyper::Error),
    #[error("the collector answered with {0}")]
    Status(StatusCode),
    #[error("the address is none")]
    Address,
}

impl SendError {
    const fn word(&self) -> &'static str {
        match self {
            SendError::Slow => "timeout",
            SendError::Connect(_) => "connect",
            SendError::Http(_) => "http",
            SendError::Status(_) => "status",
            SendError::Address => "address",
        }
    }
}

/// Send what comes out of `batches`, until their last sender is gone.
///
/// # Errors
/// There is no thread for it.
pub(crate) fn start(
    otlp: Otlp,
    site: &SiteName,
    node: &str,
    batches: mpsc::Receiver<(Bytes, u64)>,
    metrics: &Metrics,
) -> io::Result<()> {
    let attribute =
        |key: &str, value: &str| serde_json::json!({"key": key, "value": {"stringValue": value}});
    let resource = serde_json::json!({"attributes": [
        attribute("service.name", "sealane"),
        attribute("service.version", env!("CARGO_PKG_VERSION")),
        attribute("service.instance.id", &format!("{node}.{site}")),
        attribute("sealane.site", &site.to_string()),
    ]});
    let exporter = Exporter {
        uri: otlp.uri,
        head: format!(
            "{{\"resourceSpans\":[{{\"resource\":{resource},\"scopeSpans\":[{{\"scope\":\
             {{\"name\":\"sealane\"}},\"spans\":["
        ),
        open: None,
        sent: metrics.counter("spans_sent", "Spans that a collector has taken"),
        lost: metrics.counter("spans_lost", "Spans that the collector did not take"),
        said: None,
    };
    runtime::thread("otlp", |tasks| exporter.run(tasks, batches))?;
    Ok(())
}

/// What closes a document after its spans.
const TAIL: &[u8] = b"]}]}]}";

struct Exporter {
    uri: Uri,
    /// What stands before the spans.
    head: String,
    open: Option<SendRequest<Full<Bytes>>>,
    sent: Counter,
    lost: Counter,
    /// The failure that was logged last, until it goes well again.
    said: Option<&'static str>,
}

impl Exporter {
    async fn run(mut self, tasks: Tasks, mut batches: mpsc::Receiver<(Bytes, u64)>) {
        while let Some((spans, count)) = batches.recv().await {
            let spans = spans.strip_suffix(b",").unwrap_or(&spans);
            let document = Bytes::from([self.head.as_bytes(), spans, TAIL].concat());
            let mut sent = self.send(&tasks, &document).await;
            if sent.is_err() {
                tokio::time::sleep(PAUSE).await;
                sent = self.send(&tasks, &document).await;
            }
            match sent {
                Ok(()) => {
                    self.sent.inc_by(count);
                    self.said = None;
                }
                Err(error) => {
                    self.lost.inc_by(count);
                    if self.said != Some(error.word()) {
                        self.said = Some(error.word());
                        let error = base::Chain(&error);
                        tracing::warn!(uri = %self.uri, %error, "spans are lost");
                    }
                }
            }
        }
    }

    async fn send(&mut self, tasks: &Tasks, document: &Bytes) -> Result<(), SendError> {
        let sent = tokio::time::timeout(PATIENCE, self.post(tasks, document)).await;
        let sent = sent.unwrap_or(Err(SendError::Slow));
        if sent.is_err() {
            self.open = None;
        }
        sent
    }

    async fn post(&mut self, tasks: &Tasks, document: &Bytes) -> Result<(), SendError> {
        let mut sender = match self.open.take().filter(|open| !open.is_closed()) {
            Some(open) => open,
            None => connect(tasks, &self.uri).await?,
        };
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |all| all.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, "sealane")
            .body(Full::new(document.clone()))
            .map_err(|_| SendError::Address)?;
        let response = sender
            .send_request(request)
            .await
            .map_err(SendError::Http)?;
        let status = response.status();
        // The connection is used again if its answer was short.
        let rest = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await;
        if rest.is_ok() {
            self.open = Some(sender);
        }
        match status {
            StatusCode::OK | StatusCode::ACCEPTED | StatusCode::NO_CONTENT => Ok(()),
            status => Err(SendError::Status(status)),
        }
    }
}

async fn connect(tasks: &Tasks, uri: &Uri) -> Result<SendRequest<Full<Bytes>>, SendError> {
    let Place { secure, host, port } = place(uri).ok_or(SendError::Address)?;
    let tcp = TcpStream::connect((host, port)).await;
    let tcp = tcp.map_err(SendError::Connect)?;
    if !secure {
        return handshake(tasks, tcp).await;
    }
    let config = runtime::tls::web_client(&[]).map_err(|_| SendError::Address)?;
    let name = rustls_pki_types::ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| SendError::Address)?;
    let tls = TlsConnector::from(config).connect(name, tcp).await;
    handshake(tasks, tls.map_err(SendError::Connect)?).await
}

async fn handshake<S>(tasks: &Tasks, stream: S) -> Result<SendRequest<Full<Bytes>>, SendError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(SendError::Http)?;
    // It ends with its sender.
    tasks.spawn_local("otlp-connection", async move {
        let _ = connection.await;
    });
    Ok(sender)
}
