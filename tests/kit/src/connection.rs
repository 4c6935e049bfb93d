//! One client connection: HTTP/1.1 or HTTP/2, plain or over TLS. Async; see [`crate::Client`] and
//! [`crate::Http2`] for the blocking form.

use std::{
    fmt::Display,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use runtime::Tasks;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream},
};

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What a demo endpoint says at `/`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Story {
    /// Its tenant.
    pub tenant: String,
    /// Its site.
    pub site: String,
    /// Its name, unique in its site.
    pub endpoint: String,
    /// Its address.
    pub address: SocketAddr,
    /// The request's headers as they arrived.
    pub headers: serde_json::Map<String, serde_json::Value>,
}

impl Reply {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is something else; with its text.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_slice(&self.body)
            .map_err(|error| format!("{error} in {}", String::from_utf8_lossy(&self.body)))
    }

    /// The story of the demo endpoint that answered with 200.
    ///
    /// # Errors
    /// Another status or another body.
    pub fn story(&self) -> Result<Story, String> {
        if self.status != 200 {
            let body = String::from_utf8_lossy(&self.body);
            return Err(format!("{}: {body}", self.status));
        }
        self.json()
    }
}

/// One connection; its driver runs as a task of the given group.
#[derive(Debug)]
pub struct Connection(Kind);

#[derive(Debug)]
enum Kind {
    One(http1::SendRequest<Full<Bytes>>),
    Two(h2::client::SendRequest<Bytes>),
}

impl Connection {
    /// HTTP/1.1 without TLS, from this address if there is one.
    ///
    /// # Errors
    /// A sentence.
    pub async fn plain(
        tasks: &Tasks,
        from: Option<IpAddr>,
        address: SocketAddr,
    ) -> Result<Self, String> {
        let stream = dial(from, address).await?;
        Self::http1(tasks, stream).await
    }

    /// HTTP/2 over TLS with this server name; any certificate is accepted, the signature must
    /// still fit it.
    ///
    /// # Errors
    /// A sentence.
    pub async fn http2(tasks: &Tasks, address: SocketAddr, host: &str) -> Result<Self, String> {
        let stream = tls(address, host, anybody(&[b"h2"])?).await?;
        let (send, connection) = h2::client::handshake(stream).await.map_err(said)?;
        tasks.spawn("h2", async move {
            connection.await.ok(); // requests see the error too
        });
        Ok(Connection(Kind::Two(send)))
    }

    /// HTTP/1.1 over TLS with this server name; any certificate is accepted, the signature must
    /// still fit it.
    ///
    /// # Errors
    /// A sentence.
    pub async fn tls(tasks: &Tasks, address: SocketAddr, host: &str) -> Result<Self, String> {
        Self::secure(tasks, address, host, anybody(&[b"http/1.1"])?).await
    }

    /// HTTP/1.1 over TLS with this configuration.
    ///
    /// # Errors
    /// A sentence.
    pub async fn secure(
        tasks: &Tasks,
        address: SocketAddr,
        host: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Self, String> {
        let stream = tls(address, host, config).await?;
        Self::http1(tasks, stream).await
    }

    /// HTTP/1.1 over an open stream.
    ///
    /// # Errors
    /// A sentence.
    pub async fn http1<S>(tasks: &Tasks, stream: S) -> Result<Self, String>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (send, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
        tasks.spawn("http1", async move {
            connection.await.ok(); // requests see the error too
        });
        Ok(Connection(Kind::One(send)))
    }

    /// Whether it can take another request.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match &self.0 {
            Kind::One(send) => !send.is_closed(),
            Kind::Two(_) => true, // a request will tell
        }
    }

    /// Sends one request and reads the whole answer. For HTTP/1.1 the request's URI should be a
    /// path and it should have a `host`; for HTTP/2 the URI should be whole.
    ///
    /// # Errors
    /// A sentence, when no whole answer came.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Reply, String> {
        match &mut self.0 {
            Kind::One(send) => {
                send.ready().await.map_err(said)?;
                let answer = send
                    .send_request(request.map(Full::new))
                    .await
                    .map_err(said)?;
                let (head, body) = answer.into_parts();
                let body = body.collect().await.map_err(said)?.to_bytes();
                Ok(Reply {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    body,
                })
            }
            Kind::Two(send) => {
                let mut ready = send.clone().ready().await.map_err(said)?;
                let (head, body) = request.into_parts();
                let ends = body.is_empty();
                let (answer, mut upload) = ready
                    .send_request(Request::from_parts(head, ()), ends)
                    .map_err(said)?;
                if !ends {
                    upload.send_data(body, true).map_err(said)?;
                }
                let (head, mut stream) = answer.await.map_err(said)?.into_parts();
                let mut body = BytesMut::new();
                while let Some(data) = stream.data().await {
                    let data = data.map_err(said)?;
                    stream
                        .flow_control()
                        .release_capacity(data.len())
                        .map_err(said)?;
                    body.extend_from_slice(&data);
                }
                let body = body.freeze();
                Ok(Reply {
                    status: head.status.as_u16(),
                    headers: head.headers,
                    body,
                })
            }
        }
    }
}

async fn dial(from: Option<IpAddr>, address: SocketAddr) -> Result<TcpStream, String> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(said)?;
    if let Some(from) = from {
        socket.bind((from, 0).into()).map_err(said)?;
    }
    let stream = socket.connect(address).await.map_err(said)?;
    stream.set_nodelay(true).map_err(said)?;
    Ok(stream)
}

async fn tls(
    address: SocketAddr,
    host: &str,
    config: Arc<ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(said)?;
    let stream = dial(None, address).await?;
    tokio_rustls::TlsConnector::from(config)
        .connect(name, stream)
        .await
        .map_err(said)
}

pub(crate) fn said(error: impl std::error::Error) -> String {
    let error: &dyn std::error::Error = &error;
    let chain: &dyn Display = &base::Chain(error);
    chain.to_string()
}

/// A client of servers whose certificates nobody vouches for.
fn anybody(alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
    let mut config = ClientConfig::builder_with_provider(runtime::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(said)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &runtime::tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &runtime::tls::provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        runtime::tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
