//! A controller in this process, and clients of it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use api::sync::{AUTHORITY, Down, JoinReply, JoinRequest, Up};
use bytes::Bytes;
use controller::{Config, Ready};
use http::{Method, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::{NodeKey, Token};
use runtime::{
    Tasks,
    h2io::H2Stream,
    net::tcp_connect,
    tls::{self, Credentials},
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::oneshot,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// The bound on everything a test waits for.
pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const PLANET: &str = "earth.example";

/// A running controller.
pub(crate) struct Controller {
    pub(crate) ready: Ready,
    pub(crate) token: String,
    roots: Vec<CertificateDer<'static>>,
    tasks: Tasks,
}

/// Waits for `future`, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(SOON, future).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: not within {SOON:?}"),
    }
}

impl Controller {
    pub(crate) async fn start(home: &Path) -> Self {
        let config = Config::new(home.to_owned(), PLANET);
        let tasks = Tasks::new("test");
        let (sender, receiver) = oneshot::channel();
        let drain = tasks.token();
        tasks.spawn("controller", async move {
            let ready = |ready: &Ready| sender.send(ready.clone()).expect("the test waits");
            controller::run(config, drain, ready)
                .await
                .expect("it runs");
        });
        let ready = soon("start", receiver).await.expect("it starts");
        let token = std::fs::read_to_string(&ready.token_file).expect("the token");
        let pem = std::fs::read(&ready.ca).expect("the CA");
        let roots = tls::pem::certificates(&pem).expect("certificates");
        Controller {
            ready,
            token: token.trim().to_owned(),
            roots,
            tasks,
        }
    }

    pub(crate) async fn stop(self) {
        let drained = self.tasks.drain(SOON).await;
        assert_eq!(drained.aborted, 0, "the controller drains");
    }

    fn api(&self) -> SocketAddr {
        let url = self.ready.url.strip_prefix("https://").expect("https");
        url.parse().expect("an address")
    }

    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> http::Response<Incoming> {
        let tcp = tcp_connect(self.api(), SOON).await.expect("connected");
        let config = tls::client(&self.roots, &[b"http/1.1"]).expect("TLS");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let tls = TlsConnector::from(config)
            .connect(name, tcp)
            .await
            .expect("TLS");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .expect("HTTP");
        self.tasks.spawn("client", async move {
            // The answer tells the test what went wrong.
            let _ = connection.await;
        });
        soon("an answer", sender.send_request(request))
            .await
            .expect("an answer")
    }

    pub(crate) fn request(&self, method: &Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .expect("a request")
    }

    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = self.send(self.request(&method, path, body.into())).await;
        let status = response.status().as_u16();
        (status, value(response).await)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Method::GET, path, None).await
    }

    /// Waits until what was put so far is on its way to the sites: who reads what they run asks for it.
    pub(crate) async fn is_planned(&self) {
        assert_eq!(self.get("/api/v1/sites/par").await.0, 200);
    }

    /// Puts an object where it belongs.
    pub(crate) async fn put(&self, object: &Value) -> (u16, Value) {
        self.call(Method::PUT, &path_of(object), Some(object)).await
    }

    /// Puts objects that must be accepted.
    pub(crate) async fn apply(&self, objects: &[Value]) {
        for object in objects {
            let (status, answer) = self.put(object).await;
            assert!(
                status == 200 || status == 201,
                "{object}\n{status} {answer}"
            );
        }
    }

    /// A new Token's line.
    pub(crate) async fn token_for(&self, name: &str, tenant: Option<&str>, site: &str) -> Token {
        let object = crate::seed::token(name, tenant, site);
        let (status, answer) = self.put(&object).await;
        assert_eq!(status, 201, "{answer}");
        let line = answer["status"]["token"].as_str().expect("the line");
        line.parse().expect("a token")
    }

    /// Joins at the fabric listener, as a PoP does.
    pub(crate) async fn join(&self, request: &JoinRequest, token: &Token) -> JoinReply {
        let config = tls::pinned_client(token.ca_sha256, &[b"sealane-join/1"]).expect("TLS");
        let mut tls = self.fabric_tls(config).await.expect("TLS");
        write(&mut tls, request).await;
        Lines::new(tls).next().await.expect("a reply")
    }

    /// Joins with a new key.
    pub(crate) async fn admit(&self, token: &Token) -> Node {
        let key = NodeKey::generate().expect("a key");
        match self.join(&join_request(token, &key), token).await {
            JoinReply::Welcome { chain, ca, .. } => Node {
                key,
                chain: der(&chain),
                ca: der(&[ca]),
            },
            refused @ JoinReply::Refused { .. } => panic!("{refused:?}"),
        }
    }

    async fn fabric_tls(
        &self,
        config: Arc<rustls::ClientConfig>,
    ) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
        let tcp = tcp_connect(self.ready.fabric, SOON).await?;
        let name = ServerName::try_from("fabric.sealane.internal").expect("a name");
        TlsConnector::from(config).connect(name, tcp).await
    }

    /// An HTTP/2 connection as `node`.
    pub(crate) async fn connect(&self, node: &Node) -> std::io::Result<Link> {
        let key = PrivatePkcs8KeyDer::from(node.key.pkcs8_der().to_vec()).into();
        let credentials = Credentials {
            chain: node.chain.clone(),
            key,
        };
        let config = tls::fabric_client(&credentials, &node.ca, &[b"h2"]).expect("TLS");
        let tls = self.fabric_tls(config).await?;
        let (sender, connection) = h2::client::handshake(tls)
            .await
            .map_err(runtime::h2io::io_error)?;
        self.tasks.spawn("h2 client", async move {
            // The streams tell the test what went wrong.
            let _ = connection.await;
        });
        Ok(Link(sender))
    }
}

/// A node that has joined.
pub(crate) struct Node {
    pub(crate) key: NodeKey,
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) ca: Vec<CertificateDer<'static>>,
}

/// A connection to the fabric listener.
pub(crate) struct Link(h2::client::SendRequest<Bytes>);

impl Link {
    /// CONNECT to a reserved authority.
    pub(crate) async fn open(&mut self, authority: &str) -> Result<H2Stream, u16> {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .body(());
        let mut sender = self.0.clone().ready().await.map_err(|_| 0_u16)?;
        let sent = sender.send_request(request.expect("a request"), false);
        let (response, body) = sent.map_err(|_| 0_u16)?;
        let response = soon("CONNECT", response).await.map_err(|_| 0_u16)?;
        match response.status().as_u16() {
            200 => Ok(H2Stream::new(body, response.into_body())),
            refused => Err(refused),
        }
    }

    /// Opens a site-sync stream.
    pub(crate) async fn sync(&mut self, site: &str, node: &str, have: Option<u64>) -> Sync {
        let stream = self.open(AUTHORITY).await.expect("a stream");
        let (reader, writer) = tokio::io::split(stream);
        let mut sync = Sync {
            lines: Lines::new(reader),
            writer,
        };
        let hello = api::sync::Hello {
            site: site.parse().expect("a site"),
            node: node.parse().expect("a node"),
            have: have.map(base::Revision),
            time: runtime::wall(),
        };
        sync.send(&Up::Hello(hello)).await;
        sync
    }
}

/// The node's end of a site-sync stream.
pub(crate) struct Sync {
    lines: Lines<tokio::io::ReadHalf<H2Stream>>,
    writer: tokio::io::WriteHalf<H2Stream>,
}

impl Sync {
    pub(crate) async fn send(&mut self, up: &Up) {
        write(&mut self.writer, up).await;
    }

    /// The next message that is not the clock.
    pub(crate) async fn next(&mut self) -> Option<Down> {
        loop {
            match self.lines.next().await {
                Some(Down::Time(_)) => {}
                other => return other,
            }
        }
    }

    /// The next message, which must be an update; checked as a node does.
    pub(crate) async fn update(&mut self, node: &Node, site: &str) -> api::sync::Update {
        let signed = match self.next().await {
            Some(Down::Signed(signed)) => signed,
            other => panic!("not an update: {other:?}"),
        };
        let verifier = pki::Verifier::new(&node.ca).expect("a verifier");
        let site = site.parse().expect("a site");
        plan::open(&verifier, &site, &signed, runtime::wall()).expect("signed for this site")
    }
}

/// JSON lines.
pub(crate) struct Lines<R> {
    from: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(from: R) -> Self {
        Lines {
            from,
            buffer: Vec::new(),
        }
    }

    /// The next message; `None` when the stream has ended.
    pub(crate) async fn next<T: serde::de::DeserializeOwned>(&mut self) -> Option<T> {
        loop {
            if let Some(at) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("a message"));
            }
            match soon("a line", self.from.read_buf(&mut self.buffer)).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), message: &impl serde::Serialize) {
    let mut line = serde_json::to_vec(message).expect("JSON");
    line.push(b'\n');
    to.write_all(&line).await.expect("written");
    to.flush().await.expect("written");
}

pub(crate) async fn write_to(to: &mut (impl AsyncWrite + Unpin), message: &impl serde::Serialize) {
    write(to, message).await;
}

pub(crate) fn join_request(token: &Token, key: &NodeKey) -> JoinRequest {
    use base64::Engine as _;
    JoinRequest {
        token: token.id.clone(),
        secret: base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token.secret),
        csr: api::sync::encode(&key.csr_der().expect("a request")),
        time: runtime::wall(),
    }
}

pub(crate) fn der(chain: &[String]) -> Vec<CertificateDer<'static>> {
    let chain = api::sync::decode_chain(chain).expect("base64");
    chain.into_iter().map(CertificateDer::from).collect()
}

pub(crate) async fn value(response: http::Response<Incoming>) -> Value {
    let body = soon("a body", response.into_body().collect())
        .await
        .expect("a body")
        .to_bytes();
    serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()))
}

/// The path of an object as a user would put it.
pub(crate) fn path_of(object: &Value) -> String {
    let object = api::Object::from_value(object.clone());
    format!("/api/v1/{}", object.expect("an object").key())
}
