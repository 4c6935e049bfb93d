use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use runtime::Tasks;
use tokio::time::{Instant, timeout};

use super::*;

struct Client {
    send: http1::SendRequest<Full<Bytes>>,
    address: SocketAddr,
    _tasks: Tasks,
}

impl Client {
    /// A demo application and one kept-alive connection to it.
    async fn new() -> Self {
        let identity = Identity {
            tenant: "acme".to_owned(),
            site: "aws".to_owned(),
            endpoint: "cart-1".to_owned(),
        };
        let demo = Demo::bind(identity, "127.0.0.1:0".parse().expect("an address")).expect("binds");
        let address = demo.address();
        let tasks = Tasks::new("test");
        tasks.spawn("demo", demo.run());
        let stream = TcpStream::connect(address).await.expect("it listens");
        let (send, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("no bytes yet");
        tasks.spawn("client", async move {
            connection.await.ok();
        });
        Client {
            send,
            address,
            _tasks: tasks,
        }
    }

    async fn ask(&mut self, method: &str, path: &str, body: &'static [u8]) -> Response<Bytes> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "cart.acme.example")
            .header("x-two", "1")
            .header("x-two", "2")
            .body(Full::from(body))
            .expect("a request");
        let asked = async {
            self.send.ready().await.expect("kept alive");
            let (head, body) = self
                .send
                .send_request(request)
                .await
                .expect("answered")
                .into_parts();
            Response::from_parts(head, body.collect().await.expect("whole").to_bytes())
        };
        timeout(Duration::from_secs(20), asked)
            .await
            .expect("in time")
    }
}

#[tokio::test]
async fn it_says_who_it_is_and_what_was_asked() {
    let mut client = Client::new().await;
    for (method, path) in [("GET", "/"), ("DELETE", "/any/thing?x=1")] {
        let answer = client.ask(method, path, b"").await;
        assert_eq!(answer.status(), StatusCode::OK);
        let story: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        let expected = serde_json::json!({
            "tenant": "acme", "site": "aws", "endpoint": "cart-1",
            "address": client.address.to_string(), "method": method, "path": path,
        });
        for (field, value) in expected.as_object().expect("an object") {
            assert_eq!(&story[field], value, "{field}");
        }
        assert_eq!(story["headers"]["host"], "cart.acme.example");
        assert_eq!(story["headers"]["x-two"], "1, 2");
    }
}

#[tokio::test]
async fn it_can_be_told_to_be_sick_and_slow() {
    let mut client = Client::new().await;
    assert_eq!(client.ask("GET", "/healthz", b"").await.body(), "ok");
    let told = client
        .ask("POST", "/control", br#"{"sick":true,"delay_ms":80}"#)
        .await;
    assert_eq!(told.status(), StatusCode::NO_CONTENT);
    let health = client.ask("GET", "/healthz", b"").await;
    assert_eq!(health.status(), StatusCode::SERVICE_UNAVAILABLE);
    let start = Instant::now();
    assert_eq!(client.ask("GET", "/", b"").await.status(), StatusCode::OK);
    assert!(start.elapsed() >= Duration::from_millis(80));
    client.ask("POST", "/control", br#"{"sick":false}"#).await;
    assert_eq!(
        client.ask("GET", "/healthz", b"").await.status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_a_sentence() {
    let mut client = Client::new().await;
    let long: &'static [u8] = &[b' '; 2000];
    for (method, path, body) in [
        ("GET", "/control", &b""[..]),
        ("POST", "/control", b"{\"ill\":true}"),
        ("POST", "/control", b"{\"delay_ms\":60001}"),
        ("POST", "/control", long),
        ("GET", "/download?bytes=x", b""),
        ("GET", "/download?rate=0", b""),
        ("GET", "/download?speed=1", b""),
    ] {
        // A body that was not read to its end closes the connection.
        if body.len() > 1024 {
            client = Client::new().await;
        }
        let answer = client.ask(method, path, body).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{method} {path}");
        assert!(!answer.body().is_empty());
        if body.len() > 1024 {
            client = Client::new().await;
        }
    }
}

#[tokio::test]
async fn downloads_have_their_length_and_their_pace() {
    let mut client = Client::new().await;
    let answer = client.ask("GET", "/download?bytes=3000000", b"").await;
    assert_eq!(answer.headers()["content-length"], "3000000");
    assert_eq!(answer.body().len(), 3_000_000);
    let start = Instant::now();
    let answer = client
        .ask("GET", "/download?bytes=50000&rate=250000", b"")
        .await;
    assert_eq!(answer.body().len(), 50_000);
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(150),
        "{took:?} for 200 ms worth of bytes"
    );
    assert!(
        took <= Duration::from_millis(400),
        "{took:?} for 200 ms worth of bytes"
    );
    assert!(client.ask("GET", "/download", b"").await.body().is_empty());
}

#[tokio::test]
async fn an_echo_counts_and_sums() {
    let mut client = Client::new().await;
    for (body, sum) in [
        (&b""[..], 0xcbf2_9ce4_8422_2325_u64),
        (b"foobar", 0x8594_4171_f739_67e8),
    ] {
        let answer = client.ask("POST", "/echo", body).await;
        let echo: serde_json::Value = serde_json::from_slice(answer.body()).expect("JSON");
        assert_eq!(
            echo,
            serde_json::json!({ "length": body.len(), "sum": sum })
        );
    }
}
