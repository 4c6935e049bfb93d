//! A PoP's way to the controller: one HTTP/2 connection over mutual TLS, a stream a CONNECT.

use std::{cell::RefCell, io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use h2::{Ping, client::SendRequest};
use http::{Method, Request, StatusCode};
use runtime::{
    Tasks,
    h2io::H2Stream,
    tls::{self, Credentials},
};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

/// How long connecting and the handshakes may take, each.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that leaves pings unanswered for this long is closed.
const PING_EVERY: Duration = Duration::from_secs(5);

/// Opens streams to the controller.
pub(crate) struct Controller {
    addresses: Vec<SocketAddr>,
    roots: Vec<CertificateDer<'static>>,
    credentials: RefCell<Credentials>,
    tasks: Tasks,
    open: RefCell<Option<SendRequest<Bytes>>>,
    connecting: tokio::sync::Mutex<()>,
}

impl Controller {
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        roots: Vec<CertificateDer<'static>>,
        credentials: Credentials,
        tasks: Tasks,
    ) -> Self {
        Controller {
            addresses,
            roots,
            credentials: RefCell::new(credentials),
            tasks,
            open: RefCell::new(None),
            connecting: tokio::sync::Mutex::new(()),
        }
    }

    /// Use a renewed certificate for the next connection.
    pub(crate) fn renew(&self, credentials: Credentials) {
        self.credentials.replace(credentials);
    }

    /// A stream to `authority`.
    pub(crate) async fn open(&self, authority: &str) -> io::Result<H2Stream> {
        let sender = self.connection().await?;
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(authority)
            .body(());
        let request = request.map_err(io::Error::other)?;
        let asked = async {
            let mut sender = sender.ready().await?;
            let (response, send) = sender.send_request(request, false)?;
            Ok::<_, h2::Error>((response.await?, send))
        };
        let answer = tokio::time::timeout(TIMEOUT, asked).await?;
        let (response, send) = answer.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            let text = format!(
                "the controller answered {} to {authority}",
                response.status()
            );
            return Err(io::Error::other(text));
        }
        Ok(H2Stream::new(send, response.into_body()))
    }

    async fn connection(&self) -> io::Result<SendRequest<Bytes>> {
        let _one_at_a_time = self.connecting.lock().await;
        if let Some(sender) = self.open.borrow().clone() {
            return Ok(sender);
        }
        let mut last = io::Error::other("no address of the controller is known");
        for address in &self.addresses {
            match self.connect(*address).await {
                Ok(sender) => {
                    self.open.replace(Some(sender.clone()));
                    return Ok(sender);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<SendRequest<Bytes>> {
        let credentials = self.credentials.borrow().clone();
        let config =
            tls::fabric_client(&credentials, &self.roots, &[b"h2"]).map_err(io::Error::other)?;
        let tcp = runtime::net::tcp_connect(address, TIMEOUT).await?;
        let name = ServerName::IpAddress(address.ip().into());
        let handshake = TlsConnector::from(config).connect(name, tcp);
        let stream = tokio::time::timeout(TIMEOUT, handshake).await??;
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(<[_]>::first);
        let identity = leaf.and_then(|leaf| pki::Identity::from_certificate(leaf).ok());
        if !identity.is_some_and(|identity| identity.is_controller()) {
            return Err(io::Error::other(format!("{address} is not the controller")));
        }
        let (sender, mut connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await
            .map_err(io::Error::other)?;
        let pings = connection.ping_pong();
        self.tasks.spawn_local("controller-connection", async move {
            let alive = async {
                let Some(mut pings) = pings else { return std::future::pending().await };
                loop {
                    tokio::time::sleep(PING_EVERY).await;
                    let pong = tokio::time::timeout(PING_EVERY, pings.ping(Ping::opaque())).await;
                    if !matches!(pong, Ok(Ok(_))) {
                        return;
                    }
                }
            };
            tokio::select! {
                end = connection => tracing::debug!(error = ?end.err(), "controller connection ended"),
                () = alive => tracing::warn!("the controller is silent; the connection is closed"),
            }
        });
        Ok(sender)
    }

    /// Forget a connection on which a stream failed.
    pub(crate) fn forget(&self) {
        self.open.replace(None);
    }
}
