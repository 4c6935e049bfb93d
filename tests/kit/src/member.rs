//! A node of the fabric that a test plays itself, with a real certificate.

use std::{fs, future::Future, net::SocketAddr, path::Path, time::Duration};

use crate::connection::said;
use api::sync::{Down, Hello, JoinReply, JoinRequest, MAX_JOIN_BYTES, MAX_LINE_BYTES, Up};
use base::{Name, Revision, SiteName, WallTime};
use pki::{Authority, Identity, NodeKey, Planet, Token, Verifier};
use runtime::tls::Credentials;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf,
    WriteHalf,
};
use tunnel::{Admit, Config, DialTarget, LinkEvent, Tunnel};

/// How long anything of the fabric may take.
const SOON: Duration = Duration::from_secs(15);

/// Runs asynchronous work on a runtime of its own, tasks on this thread included.
pub fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only an epoll");
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// Waits for `work`, 15 s at most.
///
/// # Panics
/// It takes longer.
#[track_caller]
pub fn soon<T>(what: &str, work: impl Future<Output = T>) -> impl Future<Output = T> {
    let late = format!("{what}: not within {SOON:?}");
    async move { tokio::time::timeout(SOON, work).await.expect(&late) }
}

/// Lets time pass, and other tasks run.
pub async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Asks `look` until it says `Ok`, every 10 ms, as [`crate::wait_until`] does, and lets other
/// tasks of this thread run.
///
/// # Panics
/// With what `look` said last, after 15 s.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let began = runtime::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => {
                let passed = runtime::now().since(began);
                assert!(passed < SOON, "{what}: not within {SOON:?}; last: {last}");
            }
        }
        pause(Duration::from_millis(10)).await;
    }
}

/// Does `work` for each item, `at_once` at a time; results in the order in which they come.
pub async fn each<I, F, T>(items: impl IntoIterator<Item = I>, at_once: usize, work: F) -> Vec<T>
where
    F: AsyncFn(I) -> T,
{
    let items = std::cell::RefCell::new(items.into_iter());
    let results = std::cell::RefCell::new(Vec::new());
    let worker = async || {
        loop {
            let Some(item) = items.borrow_mut().next() else {
                return;
            };
            let result = work(item).await;
            results.borrow_mut().push(result);
        }
    };
    let mut workers: Vec<_> = (0..at_once).map(|_| Box::pin(worker())).collect();
    std::future::poll_fn(|cx| {
        workers.retain_mut(|worker| worker.as_mut().poll(cx).is_pending());
        if workers.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    drop(workers);
    results.into_inner()
}

/// Key, certificate and CA of a node.
#[derive(Debug)]
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// Its key.
    pub key: NodeKey,
    /// Its chain, DER, its own certificate first.
    pub chain: Vec<Vec<u8>>,
    /// Trusts the fabric CA.
    pub verifier: Verifier,
}

impl Member {
    /// Joins with the text of a Token, as a new node does.
    ///
    /// # Panics
    /// It is refused, or nobody answers.
    pub async fn join(token: &str) -> Self {
        let token: Token = token.parse().expect("a Token");
        let key = NodeKey::generate().expect("a key");
        match ask_to_join(&token, &join_request(&token, &key)).await {
            JoinReply::Welcome { chain, ca, .. } => {
                let chain = api::sync::decode_chain(&chain).expect("base64");
                let ca = api::sync::decode(&ca).expect("base64");
                let verifier = Verifier::pinned(&[ca], &token.ca_sha256).expect("the pinned CA");
                let identity = verifier.identify(&chain, runtime::wall());
                Member {
                    identity: identity.expect("a certificate"),
                    key,
                    chain,
                    verifier,
                }
            }
            refused @ JoinReply::Refused { .. } => panic!("{refused:?}"),
        }
    }

    /// A node whose certificate `authority` issued at `from`, for `lifetime`.
    ///
    /// # Panics
    /// It cannot be issued.
    #[must_use]
    pub fn issued(
        authority: &Authority,
        site: &str,
        node: &str,
        from: WallTime,
        lifetime: Duration,
    ) -> Self {
        let (site, node) = (site.parse().expect("a site"), node.parse().expect("a node"));
        let identity = Identity::node(authority.planet().clone(), site, node);
        let key = NodeKey::generate().expect("a key");
        let csr = key.csr_der().expect("a request");
        let chain = authority.issue(&csr, &identity, from, lifetime);
        Member {
            identity,
            key,
            chain: chain
                .expect("issued")
                .iter()
                .map(|der| der.to_vec())
                .collect(),
            verifier: Verifier::new(&[authority.certificate_der()]).expect("a CA"),
        }
    }

    /// Its site.
    ///
    /// # Panics
    /// It is no node's certificate.
    #[must_use]
    pub fn site(&self) -> &SiteName {
        self.identity.site().expect("a node's certificate")
    }

    /// Its name in its site.
    ///
    /// # Panics
    /// It is no node's certificate.
    #[must_use]
    pub fn node(&self) -> &Name {
        self.identity.node_name().expect("a node's certificate")
    }

    /// Key and chain for TLS.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        let der = |der: &Vec<u8>| CertificateDer::from(der.clone());
        Credentials {
            chain: self.chain.iter().map(der).collect(),
            key: PrivatePkcs8KeyDer::from(self.key.pkcs8_der().to_vec()).into(),
        }
    }

    /// Tunnels with this certificate that trust `verifier`'s CA and admit everybody.
    #[must_use]
    pub fn tunnels(&self, trust: &Verifier, listen: &[SocketAddr], dial: &[SocketAddr]) -> Config {
        let target = |address: &SocketAddr| DialTarget {
            expected: None,
            addresses: vec![*address],
            uplink: None,
        };
        Config {
            planet: self.identity.planet().clone(),
            credentials: self.credentials(),
            roots: trust.anchors().to_vec(),
            listen: listen.to_vec(),
            dial: dial.iter().map(target).collect(),
            admit: Admit::all(),
            hear: Admit::all(),
            joins: false,
            prefer: tunnel::Prefer::Tls,
            trunks: 0,
        }
    }

    /// Tunnels that run.
    ///
    /// # Panics
    /// They cannot be set up.
    pub async fn start(&self, listen: &[SocketAddr], dial: &[SocketAddr]) -> Tunnel {
        let tunnel = tunnel::start(&runtime::metrics::Metrics::default()).expect("a thread");
        let config = self.tunnels(&self.verifier, listen, dial);
        let listening = tunnel.control.configure(config).await.expect("configured");
        assert!(listening.failed.is_empty(), "{listening:?}");
        tunnel
    }

    /// What it says first on a site-sync stream.
    #[must_use]
    pub fn hello(&self, have: Option<Revision>) -> Up {
        Up::Hello(Hello {
            site: self.site().clone(),
            node: self.node().clone(),
            have,
            time: runtime::wall(),
        })
    }
}

/// The CA of a planet from its controller's state folder.
///
/// # Panics
/// There is none.
#[must_use]
pub fn authority(controller: &Path) -> Authority {
    let pem = fs::read_to_string(controller.join("ca.pem")).expect("the CA's file");
    Authority::from_pem(&pem).expect("the fabric CA")
}

/// A CA that nobody trusts, of a planet with the same name.
///
/// # Panics
/// The generator failed.
#[must_use]
pub fn foreign_authority(planet: &Planet) -> Authority {
    Authority::create(planet, runtime::wall()).expect("a CA")
}

/// The next link that comes up.
///
/// # Panics
/// None within 15 s.
pub async fn link_up(tunnel: &mut Tunnel) -> Identity {
    soon("a link", async {
        loop {
            match tunnel.events.recv().await.expect("the tunnels run") {
                LinkEvent::Up { peer, .. } => return peer,
                LinkEvent::Down { .. } | LinkEvent::Rtt { .. } | LinkEvent::Mtu { .. } => {}
            }
        }
    })
    .await
}

/// What a node with this key sends to join.
///
/// # Panics
/// The key makes no request.
#[must_use]
pub fn join_request(token: &Token, key: &NodeKey) -> JoinRequest {
    JoinRequest {
        token: token.id.clone(),
        secret: api::sync::encode(&token.secret),
        csr: api::sync::encode(&key.csr_der().expect("a request")),
        time: runtime::wall(),
    }
}

/// Sends a request to join to the first address of the Token.
///
/// # Panics
/// No answer.
pub async fn ask_to_join(token: &Token, request: &JoinRequest) -> JoinReply {
    let address = token.addresses.first().expect("an address");
    let address = address.parse().expect("an address and port");
    let asked = async {
        let mut stream = tunnel::join_dial(address, token.ca_sha256)
            .await
            .expect("a connection");
        write_line(&mut stream, request).await.expect("sent");
        read_line(&mut BufReader::new(stream), MAX_JOIN_BYTES).await
    };
    soon("an answer to joining", asked)
        .await
        .expect("an answer")
}

/// Asks a controller for site-sync as this member, trusting `trust`'s CA.
///
/// # Errors
/// Why there is no stream: the handshake, or the answer.
pub async fn knock(address: SocketAddr, member: &Member, trust: &Verifier) -> Result<(), String> {
    let config = runtime::tls::fabric_client(&member.credentials(), trust.anchors(), &[b"h2"]);
    let tcp = tokio::net::TcpStream::connect(address)
        .await
        .map_err(said)?;
    let tls = tokio_rustls::TlsConnector::from(config.map_err(said)?)
        .connect(address.ip().into(), tcp)
        .await
        .map_err(said)?;
    let (sender, connection) = h2::client::handshake(tls).await.map_err(said)?;
    let asked = async {
        let mut sender: h2::client::SendRequest<bytes::Bytes> = sender.ready().await?;
        let request = http::Request::connect(api::sync::AUTHORITY).body(());
        let request = request.expect("a constant request");
        sender.send_request(request, false)?.0.await
    };
    let answer = soon("an answer", async {
        tokio::select! {
            // With TLS 1.3 a server's refusal comes after the handshake (RFC 8446 §4.4.2.4).
            end = connection => Err(end.err().map_or("closed".to_owned(), said)),
            answer = asked => answer.map_err(said),
        }
    });
    match answer.await?.status() {
        http::StatusCode::OK => Ok(()),
        status => Err(status.to_string()),
    }
}

/// One end of a site-sync stream.
#[derive(Debug)]
pub struct SyncStream<S> {
    reader: BufReader<ReadHalf<S>>,
    writer: WriteHalf<S>,
}

impl<S: AsyncRead + AsyncWrite> SyncStream<S> {
    /// Lines on this stream.
    #[must_use]
    pub fn on(stream: S) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        SyncStream {
            reader: BufReader::new(reader),
            writer,
        }
    }

    /// Says one line, as a node or as whom it syncs with.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn send(&mut self, line: &impl Serialize) -> std::io::Result<()> {
        write_line(&mut self.writer, line).await
    }

    /// Says bytes that need not be a line.
    ///
    /// # Errors
    /// The other end is gone.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writer.write_all(bytes).await?;
        self.writer.flush().await
    }

    /// The next line of the other side; `None` when the stream has ended.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<T> {
        let line = read_line(&mut self.reader, MAX_LINE_BYTES);
        soon("a line of site-sync", line).await.ok()
    }

    /// The next line that is not the clock.
    pub async fn next_down(&mut self) -> Option<Down> {
        loop {
            match self.next().await {
                Some(Down::Time(_)) => {}
                other => return other,
            }
        }
    }
}

async fn write_line(
    to: &mut (impl AsyncWrite + Unpin),
    line: &impl Serialize,
) -> std::io::Result<()> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    to.write_all(&bytes).await?;
    to.flush().await
}

async fn read_line<T: DeserializeOwned>(
    from: &mut (impl AsyncBufReadExt + Unpin),
    most: usize,
) -> std::io::Result<T> {
    let mut line = Vec::new();
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    from.take(most).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}
