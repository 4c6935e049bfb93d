//! The client against an API that says what the test wants, over real TLS.

use std::{convert::Infallible, net::SocketAddr};

use http::Response;
use hyper::service::service_fn;
use runtime::tls::Credentials;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

/// An API on a free port with a certificate of its own.
struct Fake {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    ca: String,
}

type Answer = (u16, &'static str);

impl Fake {
    async fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("made");
        let credentials = Credentials {
            chain: vec![made.cert.der().clone()],
            key: rustls::pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()),
        };
        let config = runtime::tls::server(&credentials, &[b"http/1.1"]).expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Fake {
            listener,
            acceptor: config.into(),
            ca: made.cert.pem(),
        }
    }

    fn client(&self, ca: &str) -> Client {
        let address = self.listener.local_addr().expect("an address");
        Client::new(context(address, ca)).expect("a client")
    }

    /// Answers every request on every connection.
    async fn serve(&self, answer: impl Fn(&Request<Incoming>) -> Answer + Copy) {
        loop {
            let (stream, _) = self.listener.accept().await.expect("accepted");
            let Ok(stream) = self.acceptor.accept(stream).await else {
                continue;
            };
            let service = service_fn(move |request| async move {
                assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer secret");
                let (status, body) = answer(&request);
                let mut response = Response::new(Full::new(Bytes::from(body)));
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                Ok::<_, Infallible>(response)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            connection
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        }
    }

    /// Serves as long as `work` takes.
    async fn during<T>(
        &self,
        answer: impl Fn(&Request<Incoming>) -> Answer + Copy,
        work: impl Future<Output = T>,
    ) -> T {
        tokio::select! {
            () = self.serve(answer) => panic!("it serves for ever"),
            done = work => done,
        }
    }
}

fn context(address: SocketAddr, ca: &str) -> Context {
    Context {
        server: format!("https://{address}").parse().expect("a URL"),
        ca: ca.as_bytes().to_vec(),
        token: "secret".to_owned(),
    }
}

fn tenant() -> Object {
    let text = "kind: Tenant\nmetadata: {name: acme}\nspec: {}\n";
    api::manifest::parse(text).expect("parses").remove(0)
}

const TENANT: &str = r#"{"kind":"Tenant","metadata":{"name":"acme","revision":7},"spec":{}}"#;

#[tokio::test]
async fn answers_become_objects() {
    let fake = Fake::new().await;
    let mut client = fake.client(&fake.ca);
    let key = tenant().key();
    let answer =
        |request: &Request<Incoming>| match (request.method().as_str(), request.uri().path()) {
            ("PUT", "/api/v1/tenants/acme") if request.uri().query() == Some("dryRun=true") => {
                (200, TENANT)
            }
            ("PUT", "/api/v1/tenants/acme") => (201, TENANT),
            ("GET", "/api/v1/tenants") => (200, r#"{"items":[],"revision":9}"#),
            ("DELETE", "/api/v1/tenants/acme") => (204, ""),
            (_, _) => (
                404,
                r#"{"status":404,"code":"not-found","title":"it does not exist"}"#,
            ),
        };
    let work = async {
        assert!(client.put(&tenant(), false).await.expect("put").created);
        assert!(!client.put(&tenant(), true).await.expect("put").created);
        assert_eq!(client.read(&key).await.expect("asked"), None);
        assert_eq!(
            client.list("tenants").await.expect("listed"),
            (Vec::new(), Revision(9))
        );
        assert!(client.delete(&key).await.expect("deleted"));
        let failure = client.sites().await.expect_err("no such path");
        assert_eq!(failure.to_string(), "error: it does not exist (not-found)");
    };
    fake.during(answer, work).await;
}

#[tokio::test]
async fn a_refusal_is_told() {
    let fake = Fake::new().await;
    let mut client = fake.client(&fake.ca);
    let body =
        r#"{"status":409,"code":"conflict","title":"based on 3, is 5","object":"tenants/acme"}"#;
    let failure = fake
        .during(move |_| (409, body), client.put(&tenant(), false))
        .await
        .expect_err("refused");
    let text = failure.to_string();
    assert!(
        text.starts_with("error: based on 3, is 5 (conflict)\n  where: tenants/acme\n  to do: "),
        "{text}"
    );
    assert_eq!(failure.exit().code(), 1);
}

#[tokio::test]
async fn another_ca_is_not_believed() {
    let (fake, other) = (Fake::new().await, Fake::new().await);
    let mut client = fake.client(&other.ca);
    let failure = fake
        .during(|_| (200, TENANT), client.sites())
        .await
        .expect_err("refused");
    assert_eq!(failure.exit().code(), 3);
    assert!(failure.to_string().contains("certificate"), "{failure}");
}

#[tokio::test]
async fn a_closed_port_cannot_be_reached() {
    let fake = Fake::new().await;
    let mut client = fake.client(&fake.ca);
    drop(fake);
    let failure = client.sites().await.expect_err("nobody there");
    assert_eq!(failure.exit().code(), 3);
    assert!(failure.to_string().contains("refused"), "{failure}");
}

#[test]
fn what_is_no_problem_is_quoted() {
    let text = problem(StatusCode::BAD_GATEWAY, "/x", b"<html>").to_string();
    assert!(
        text.contains("502 Bad Gateway") && text.contains("<html>"),
        "{text}"
    );
}
