//! Connections that are handed over: WebSocket and others.

use balance::Health::Healthy;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::world::{Manner, PATIENCE, Spot, World};

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: keep-alive, Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Reads a head, switches, and then echoes what comes, until it ends.
async fn switcher() -> (std::net::SocketAddr, runtime::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("switcher");
    tasks.spawn("accept", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.expect("a head"));
            }
            let head = String::from_utf8(head).expect("text").to_lowercase();
            let good = head.contains("\r\nconnection: upgrade\r\n")
                && head.contains("\r\nupgrade: websocket\r\n")
                && head.contains("\r\nsec-websocket-key: ");
            let answer = if good {
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nfirst"
            } else {
                "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
            };
            stream.write_all(answer.as_bytes()).await.expect("written");
            let mut piece = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut piece).await {
                stream.write_all(&piece[..count]).await.expect("written");
            }
            stream.write_all(b"last").await.expect("written");
        }
    });
    (address, tasks)
}

async fn until(stream: &mut (impl AsyncReadExt + Unpin), seen: &mut Vec<u8>, end: &str) {
    while !seen.ends_with(end.as_bytes()) {
        let count = timeout(PATIENCE, stream.read_buf(seen)).await;
        let count = count.expect("in time").expect("read");
        assert!(count > 0, "ended after {}", String::from_utf8_lossy(seen));
    }
}

#[tokio::test]
async fn octets_pass_both_ways_and_ends_are_passed_on() {
    let world = World::new().await;
    let (address, _tasks) = switcher().await;
    world.endpoints(&[(address, Healthy)]);
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    // What is sent before the answer is not lost.
    stream.write_all(ASK.as_bytes()).await.expect("written");
    stream.write_all(b"early").await.expect("written");
    let mut seen = Vec::new();
    until(&mut stream, &mut seen, "\r\n\r\nfirstearly").await;
    let head = String::from_utf8_lossy(&seen).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(
        head.contains("\r\nconnection: upgrade\r\n") && head.contains("\r\nupgrade: websocket\r\n")
    );
    seen.clear();
    let long = "y".repeat(300 << 10);
    let (mut read, mut write) = stream.split();
    let write = async {
        write.write_all(long.as_bytes()).await.expect("written");
        write.shutdown().await.expect("ended");
    };
    let read = async {
        let all = timeout(PATIENCE, read.read_to_end(&mut seen)).await;
        all.expect("in time").expect("read");
    };
    tokio::join!(write, read);
    // The endpoint saw our end, said its last word, and closed.
    assert_eq!(seen.len(), long.len() + 4);
    assert!(seen.ends_with(b"ylast"));
}

#[tokio::test]
async fn who_does_not_switch_answers() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let response = world.raw(ASK).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // An offer of HTTP/2 in plain text is not passed on; nor is an upgrade with a body.
    for (upgrade, more) in [("h2c", ""), ("websocket", "Content-Length: 1\r\n")] {
        let body = if more.is_empty() { "" } else { "x" };
        let response = world
            .raw(&format!(
                "GET / HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: upgrade\r\n\
                 Upgrade: {upgrade}\r\n{more}\r\n{body}"
            ))
            .await;
        assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
        assert!(!response.contains("upgrade"), "{response}");
    }
    // An endpoint that switches without being asked is none.
    let rogue = Spot::new(
        "rogue",
        Manner::Raw("HTTP/1.1 101 No\r\nUpgrade: x\r\n\r\n", false),
    )
    .await;
    world.endpoints(&[(rogue.address, Healthy)]);
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 502 "));
}

/// RFC 8441.
#[tokio::test]
async fn over_http2() {
    let world = World::new().await;
    let (address, _tasks) = switcher().await;
    world.endpoints(&[(address, Healthy)]);
    let root = std::slice::from_ref(&world.root);
    let config = runtime::tls::client(root, &[b"h2"]).expect("a client");
    let tcp = TcpStream::connect(world.https).await.expect("connected");
    let name = "cart.acme.example".try_into().expect("a name");
    let tls = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .expect("TLS");
    let (client, connection) = h2::client::handshake(tls).await.expect("h2");
    let tasks = runtime::Tasks::new("client");
    tasks.spawn("connection", async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await.expect("ready");
    let ask = || {
        Request::builder()
            .method(Method::CONNECT)
            .uri("https://cart.acme.example/chat")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .expect("a request")
    };
    let (response, mut send) = client.send_request(ask(), false).expect("sent");
    let response = timeout(PATIENCE, response)
        .await
        .expect("in time")
        .expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("upgrade"));
    assert!(!response.headers().contains_key("sec-websocket-accept"));
    send.send_data(Bytes::from_static(b"hello"), false)
        .expect("sent");
    send.send_data(Bytes::new(), true).expect("sent");
    let mut body = response.into_body();
    let mut seen = Vec::new();
    while let Some(piece) = timeout(PATIENCE, body.data()).await.expect("in time") {
        seen.extend_from_slice(&piece.expect("a piece"));
    }
    assert_eq!(seen, b"firsthellolast");
    // An endpoint that answers as if nothing had been asked has not switched.
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut client = client.ready().await.expect("ready");
    let (response, _send) = client.send_request(ask(), false).expect("sent");
    let response = timeout(PATIENCE, response)
        .await
        .expect("in time")
        .expect("a response");
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
}
