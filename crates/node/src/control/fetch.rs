//! Small public documents, from whoever publishes them: the keys of an issuer, and the configuration
//! that says where they are.

use std::{io, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use plan::KeySource;
use runtime::tls::TlsError;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use crate::web::{Place, place};

/// The most octets of a document.
pub(super) const MAX_OCTETS: usize = 64 << 10;
/// The most octets of an address that a document says.
const MAX_URI: usize = 1 << 10;
/// All of it together.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("it took more than 10 s")]
    Slow,
    #[error("the address is not one that may be fetched from")]
    Address,
    #[error("the name cannot be resolved")]
    Name(#[source] io::Error),
    #[error("{0} may not be reached from here: it is not a public address")]
    NotPublic(IpAddr),
    #[error("cannot be reached")]
    Connect(#[source] io::Error),
    #[error("its authorities cannot be used")]
    Authorities(#[source] TlsError),
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    #[error("HTTP failed")]
    Http(#[source] hyper::Error),
    #[error("answered with {0} instead of 200: redirects are not followed")]
    Status(StatusCode),
    #[error("the body is broken, or longer than 64 KiB")]
    Body,
    #[error("is no OpenID configuration: a JSON object with `issuer` and `jwks_uri`")]
    Configuration,
    #[error("is the configuration of another issuer, {0:?}")]
    Issuer(String),
    #[error("its `jwks_uri` is not https://, or longer than 1,024 octets")]
    Insecure,
    #[error("it says that the keys are at {0}")]
    Keys(String, #[source] Box<FetchError>),
}

impl FetchError {
    /// Its word in metrics.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            FetchError::Slow => "timeout",
            FetchError::Address | FetchError::NotPublic(_) => "address",
            FetchError::Name(_) => "name",
            FetchError::Connect(_) => "connect",
            FetchError::Authorities(_) | FetchError::Tls(_) => "tls",
            FetchError::Http(_) => "http",
            FetchError::Status(_) => "status",
            FetchError::Body => "body",
            FetchError::Configuration => "configuration",
            FetchError::Issuer(_) => "issuer",
            FetchError::Insecure => "address",
            FetchError::Keys(_, error) => error.word(),
        }
    }
}

/// Fetch it; `anywhere`: private addresses and this machine's own too.
pub(super) async fn fetch(source: &KeySource, anywhere: bool) -> Result<String, FetchError> {
    let fetched = tokio::time::timeout(PATIENCE, whole(source, anywhere)).await;
    fetched.unwrap_or(Err(FetchError::Slow))
}

async fn whole(source: &KeySource, anywhere: bool) -> Result<String, FetchError> {
    let first = document(&source.uri, &source.anchors, anywhere).await?;
    let Some(issuer) = &source.issuer else {
        return Ok(first);
    };
    let keys = keys_of(issuer, &first)?;
    let fetched = document(&keys, &source.anchors, anywhere).await;
    fetched.map_err(|error| FetchError::Keys(keys, Box::new(error)))
}

/// What counts of an OpenID configuration (OpenID Connect Discovery 1.0 §3).
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// Where an issuer's keys are by its configuration, which has to be its own (§4.3).
fn keys_of(issuer: &str, configuration: &str) -> Result<String, FetchError> {
    let said: Configuration =
        serde_json::from_str(configuration).map_err(|_| FetchError::Configuration)?;
    if said.issuer != issuer {
        let begin = said.issuer.chars().take(100).collect();
        return Err(FetchError::Issuer(begin));
    }
    let is = |uri: &str, scheme| {
        let uri = uri.parse::<Uri>();
        uri.is_ok_and(|uri| uri.scheme_str() == Some(scheme))
    };
    let plain = is(issuer, "http") && is(&said.jwks_uri, "http");
    if said.jwks_uri.len() <= MAX_URI && (plain || is(&said.jwks_uri, "https")) {
        Ok(said.jwks_uri)
    } else {
        Err(FetchError::Insecure)
    }
}

async fn document(
    uri: &str,
    anchors: &[CertificateDer<'static>],
    anywhere: bool,
) -> Result<String, FetchError> {
    let uri: Uri = uri.parse().map_err(|_| FetchError::Address)?;
    let Place { secure, host, port } = place(&uri).ok_or(FetchError::Address)?;
    let addresses = tokio::net::lookup_host((host, port)).await;
    let addresses = addresses.map_err(FetchError::Name)?;
    let mut last = FetchError::Name(io::ErrorKind::NotFound.into());
    for address in addresses {
        let ip = address.ip().to_canonical();
        // What is asked is what was looked at: the name is not resolved again.
        if !may_reach(ip, secure, anywhere) {
            last = FetchError::NotPublic(ip);
            continue;
        }
        let tcp = match TcpStream::connect(address).await {
            Ok(tcp) => tcp,
            Err(error) => {
                last = FetchError::Connect(error);
                continue;
            }
        };
        if !secure {
            return get(tcp, &uri).await;
        }
        let config = runtime::tls::web_client(anchors).map_err(FetchError::Authorities)?;
        let name = rustls_pki_types::ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| FetchError::Address)?;
        let tls = TlsConnector::from(config).connect(name, tcp).await;
        return get(tls.map_err(FetchError::Tls)?, &uri).await;
    }
    Err(last)
}

/// A PoP serves many tenants: none of them is to look around in its network by it.
fn may_reach(ip: IpAddr, secure: bool, anywhere: bool) -> bool {
    if !secure && !ip.is_loopback() {
        return false;
    }
    let private = match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || a == 0
                || a >= 240
                // RFC 6598: behind a carrier's NAT.
                || (a == 100 && (64..128).contains(&b))
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unique_local()
                || v6.is_unicast_link_local()
        }
    };
    anywhere || !private
}

async fn get<S>(stream: S, uri: &Uri) -> Result<String, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(FetchError::Http)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, "sealane")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Address)?;
    let answer = async {
        let response = sender
            .send_request(request)
            .await
            .map_err(FetchError::Http)?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_OCTETS)
            .collect()
            .await;
        let body = body.map_err(|_| FetchError::Body)?.to_bytes();
        String::from_utf8(body.to_vec()).map_err(|_| FetchError::Body)
    };
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // Over before the answer is read: what is there already still counts.
        _ = connection => answer.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_looks_around_in_a_pops_network() {
        for (ip, public) in [
            ("192.0.2.1", true),
            ("2001:db8::1", true),
            ("127.0.0.1", false),
            ("10.0.0.1", false),
            ("172.16.0.1", false),
            ("192.168.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
            ("::1", false),
            ("::", false),
            ("fd00::1", false),
            ("fe80::1", false),
        ] {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(may_reach(ip, true, false), public, "{ip}");
            assert!(may_reach(ip, true, true), "{ip}");
            assert_eq!(may_reach(ip, false, true), ip.is_loopback(), "{ip}");
        }
    }
    /// A server that gives everybody these octets; its address.
    async fn server(
        answer: String,
        tls: Option<runtime::tls::Credentials>,
    ) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = tls.map(|pair| {
            let config = runtime::tls::server(&pair, &[]).expect("a pair");
            tokio_rustls::TlsAcceptor::from(config)
        });
        let tasks = runtime::Tasks::new("server");
        tasks.clone().spawn("server", async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (answer, acceptor) = (answer.clone(), acceptor.clone());
                tasks.spawn("connection", async move {
                    match acceptor {
                        None => say(tcp, &answer).await,
                        Some(acceptor) => {
                            if let Ok(tls) = acceptor.accept(tcp).await {
                                say(tls, &answer).await;
                            }
                        }
                    }
                });
            }
        });
        address
    }

    async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read_buf(&mut request).await {
                Ok(1..) => {}
                Ok(0) | Err(_) => return,
            }
        }
        // Who does not want to hear it all has gone.
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }

    fn from(uri: String, anchors: &[Vec<u8>]) -> KeySource {
        KeySource {
            uri,
            issuer: None,
            refresh: Duration::from_secs(60),
            anchors: anchors.iter().map(|der| der.clone().into()).collect(),
        }
    }

    #[tokio::test]
    async fn only_a_short_answer_of_200_counts() {
        let ok = |body: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        let full = "x".repeat(MAX_OCTETS);
        for (answer, expect) in [
            (ok("{}"), Ok("{}".to_owned())),
            (
                "HTTP/1.1 200 OK\r\n\r\nuntil the end".to_owned(),
                Ok("until the end".to_owned()),
            ),
            (ok(&full), Ok(full.clone())),
            (ok(&format!("{full}x")), Err("body")),
            (format!("HTTP/1.1 200 OK\r\n\r\n{full}x"), Err("body")),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort".to_owned(),
                Err("body"),
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".to_owned(),
                Err("status"),
            ),
            (
                "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
                Err("status"),
            ),
            ("nonsense\r\n\r\n".to_owned(), Err("http")),
            (String::new(), Err("http")),
        ] {
            let shown: String = answer.chars().take(60).collect();
            let address = server(answer, None).await;
            let source = from(format!("http://{address}/keys"), &[]);
            let fetched = fetch(&source, true).await.map_err(|error| error.word());
            assert_eq!(fetched, expect, "{shown}");
            assert_eq!(
                fetch(&source, false).await.map_err(|e| e.word()),
                Err("address")
            );
        }
        let gone = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let address = gone.local_addr().expect("an address");
        drop(gone);
        let nobody = from(format!("http://{address}/keys"), &[]);
        assert_eq!(
            fetch(&nobody, true).await.map_err(|e| e.word()),
            Err("connect")
        );
    }

    #[test]
    fn a_configuration_is_its_issuers_own() {
        let (https, http) = ("https://id.example", "http://127.0.0.1:1");
        let said = |issuer: &str, keys: &str| {
            format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{keys}", "scopes_supported": []}}"#)
        };
        let long = format!("https://id.example/{}", "k".repeat(MAX_URI));
        for (issuer, text, expect) in [
            (
                https,
                said(https, "https://keys.example/1"),
                Ok("https://keys.example/1"),
            ),
            (
                http,
                said(http, "http://127.0.0.1:2/"),
                Ok("http://127.0.0.1:2/"),
            ),
            (
                http,
                said(http, "https://keys.example"),
                Ok("https://keys.example"),
            ),
            // Not even by a slash.
            (
                https,
                said("https://id.example/", "https://id.example/k"),
                Err("issuer"),
            ),
            (
                https,
                said("https://evil.example", "https://id.example/k"),
                Err("issuer"),
            ),
            (https, said(https, "http://id.example/k"), Err("address")),
            (https, said(https, "http://127.0.0.1/k"), Err("address")),
            (https, said(https, "ftp://id.example/k"), Err("address")),
            (https, said(https, "/k"), Err("address")),
            (https, said(https, &long), Err("address")),
            (
                https,
                format!(r#"{{"issuer": "{https}"}}"#),
                Err("configuration"),
            ),
            (
                https,
                format!(r#"{{"issuer": "{https}", "jwks_uri": 7}}"#),
                Err("configuration"),
            ),
            (https, r#"{"keys": []}"#.to_owned(), Err("configuration")),
            (https, "[".repeat(10_000), Err("configuration")),
            (https, String::new(), Err("configuration")),
        ] {
            let found = keys_of(issuer, &text);
            let found = found.as_deref().map_err(FetchError::word);
            assert_eq!(found, expect, "{text}");
        }
    }

    #[tokio::test]
    async fn keys_are_where_the_configuration_says() {
        let ok = |body: &str| {
            let length = body.len();
            format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}")
        };
        let keys = server(ok("keys"), None).await;
        let gone = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n".to_owned();
        let gone = server(gone, None).await;
        let issuer = "http://127.0.0.1";
        for (at, expect, told) in [
            (keys, Ok("keys"), ""),
            (
                gone,
                Err("status"),
                ": answered with 410 Gone instead of 200: redirects are not followed",
            ),
        ] {
            let at = format!("http://{at}/");
            let body = format!(r#"{{"issuer": "{issuer}", "jwks_uri": "{at}"}}"#);
            let address = server(ok(&body), None).await;
            let source = KeySource {
                issuer: Some(issuer.to_owned()),
                ..from(
                    format!("http://{address}/.well-known/openid-configuration"),
                    &[],
                )
            };
            let fetched = fetch(&source, true).await;
            assert_eq!(fetched.as_deref().map_err(FetchError::word), expect);
            if let Err(error) = fetched {
                let said = base::Chain(&error).to_string();
                assert_eq!(said, format!("it says that the keys are at {at}{told}"));
            }
            // Neither the one nor the other is looked for in a PoP's network.
            let kept = fetch(&source, false).await;
            assert_eq!(kept.map_err(|error| error.word()), Err("address"));
        }
    }

    #[tokio::test]
    async fn who_vouches_for_the_server_is_looked_at() {
        let made = |host: &str| {
            let day = Duration::from_secs(86_400);
            let pair = pki::self_signed(&[host.to_owned()], runtime::wall(), day);
            let (chain, key) = pair.expect("a certificate");
            let pair = pki::parse_pair(&chain, &key).expect("a pair");
            runtime::tls::Credentials {
                chain: pair.chain,
                key: pair.key,
            }
        };
        let (ours, other) = (made("localhost"), made("localhost"));
        let anchor = |pair: &runtime::tls::Credentials| vec![pair.chain[0].to_vec()];
        let (trusted, stranger) = (anchor(&ours), anchor(&other));
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned();
        let port = server(answer, Some(ours)).await.port();
        let by_name = format!("https://localhost:{port}/keys");
        for (uri, anchors, expect) in [
            (by_name.clone(), &trusted[..], Ok("{}".to_owned())),
            (by_name.clone(), &stranger[..], Err("tls")),
            // By those that browsers trust.
            (by_name, &[][..], Err("tls")),
            // It has no such name.
            (
                format!("https://127.0.0.1:{port}/keys"),
                &trusted[..],
                Err("tls"),
            ),
        ] {
            let fetched = fetch(&from(uri.clone(), anchors), true).await;
            assert_eq!(fetched.map_err(|error| error.word()), expect, "{uri}");
        }
    }
}
