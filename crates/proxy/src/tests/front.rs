//! What clients see when all is well.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use balance::Health::Healthy;
use bytes::Bytes;
use http::{Request, StatusCode};
use l7::Limits;
use rustls::{ClientConfig, HandshakeKind, client::TicketRequest};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::world::{Manner, PATIENCE, Spot, World, message};
use crate::ListenerSpec;

#[tokio::test]
async fn a_request_reaches_an_endpoint_in_another_site() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let request = "GET /a?b=c HTTP/1.1\r\nHost: Cart.Acme.Example\r\nConnection: x-drop\r\n\
                   X-Drop: 1\r\nSealane-Lb: forged\r\nX-Forwarded-For: 9.9.9.9\r\nX-Keep: 1\r\n\r\n";
    let response = world.raw(request).await;
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert!(
        response.contains("\r\n\r\none\nGET /a?b=c HTTP/1.1\r\n"),
        "{response}"
    );
    for there in [
        "host: Cart.Acme.Example\r\n",
        "x-forwarded-for: 9.9.9.9, 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "traceparent: 00-",
        "x-keep: 1\r\n",
    ] {
        assert!(response.contains(there), "{there} in {response}");
    }
    for gone in ["x-drop", "sealane-", "connection:"] {
        assert!(!response.contains(gone), "{gone} in {response}");
    }
    drop(world.pop);
}

#[tokio::test]
async fn connections_are_kept_on_every_leg() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let mut buf = Vec::new();
    for path in ["/1", "/2", "/3"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let response = message(&mut stream, &mut buf).await.expect("a response");
        assert!(response.contains(&format!("GET {path} ")), "{response}");
    }
    assert_eq!(
        world
            .bridge
            .opened
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
}

#[tokio::test]
async fn bodies_go_both_ways() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let big = "x".repeat(1 << 20);
    let head = "POST / HTTP/1.1\r\nHost: cart.acme.example\r\n";
    let length = world
        .raw(&format!("{head}Content-Length: {}\r\n\r\n{big}", big.len()))
        .await;
    assert!(length.ends_with(&big), "{}", length.len());
    let chunked = world
        .raw(&format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n"
        ))
        .await;
    assert!(chunked.contains("hello") && chunked.contains("transfer-encoding: chunked"));
    let request = "HEAD / HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: close\r\n\r\n";
    let head_only = world.raw(request).await;
    assert!(head_only.contains("content-length: "), "{head_only}");
    assert!(head_only.ends_with("\r\n\r\n"), "{head_only}");
}

#[tokio::test]
async fn expect_continue_is_answered_when_the_body_is_wanted() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let head = "POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("written");
    let mut buf = Vec::new();
    let first = timeout(PATIENCE, message(&mut stream, &mut buf))
        .await
        .expect("in time");
    assert_eq!(first.as_deref(), Some("HTTP/1.1 100 Continue\r\n\r\n"));
    stream.write_all(b"hello").await.expect("written");
    let response = message(&mut stream, &mut buf).await.expect("a response");
    assert!(
        response.ends_with("hello") && !response.contains("expect"),
        "{response}"
    );
}

#[tokio::test]
async fn responses_are_framed_anew() {
    let world = World::new().await;
    for (raw, close, expect) in [
        (
            "HTTP/1.1 200 OK\r\n\r\nuntil the end",
            true,
            "d\r\nuntil the end\r\n0\r\n\r\n",
        ),
        (
            "HTTP/1.1 204 No Content\r\nsealane-x: 1\r\n\r\n",
            false,
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
        (
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            false,
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n",
        ),
        (
            "HTTP/1.1 200 OK\r\nkeep-alive: 1\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nab",
            false,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab",
        ),
    ] {
        let spot = Spot::new("raw", Manner::Raw(raw, close)).await;
        world.endpoints(&[(spot.address, Healthy)]);
        let response = world.ask("GET").await;
        assert!(response.ends_with(expect), "{raw:?} became {response:?}");
    }
}

#[tokio::test]
async fn our_own_answers() {
    let world = World::new().await;
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n", "404"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n", "503"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "405"),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400",
        ),
    ] {
        let response = world.raw(request).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{request} {response}"
        );
    }
    // A refused message ends the connection: nothing behind it is read.
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let two = "GET / HTTP/1.1\r\nHost : a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(two.as_bytes()).await.expect("written");
    let mut all = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut all)).await;
    assert!(read.expect("in time").is_ok());
    assert_eq!(all.matches("HTTP/1.1 ").count(), 1, "{all}");
}

#[tokio::test]
async fn slow_heads_and_large_bodies_are_refused() {
    let limits = Limits {
        header_timeout: Duration::from_millis(50),
        body_bytes: Some(10),
        ..Limits::default()
    };
    let world = World::as_peer("par.fabric", limits).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let slow = world.raw("GET / HTTP/1.1\r\nHost: cart.acme").await;
    assert!(slow.starts_with("HTTP/1.1 408 "), "{slow}");
    let large = world
        .raw("POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 11\r\n\r\nhello world")
        .await;
    assert!(large.starts_with("HTTP/1.1 413 "), "{large}");
}

async fn tls(world: &World, name: &'static str, alpn: &[&[u8]]) -> Option<TlsStream<TcpStream>> {
    let config = runtime::tls::client(std::slice::from_ref(&world.root), alpn).expect("a client");
    let stream = TcpStream::connect(world.https).await.expect("connected");
    let name = name.try_into().expect("a name");
    TlsConnector::from(config).connect(name, stream).await.ok()
}

#[tokio::test]
async fn tls_by_server_name() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut stream = tls(&world, "cart.acme.example", &[b"http/1.1"])
        .await
        .expect("TLS");
    for (host, status) in [("cart.acme.example", "200"), ("other.example", "421")] {
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let response = message(&mut stream, &mut Vec::new())
            .await
            .expect("a response");
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
    }
    assert!(
        tls(&world, "unknown.example", &[b"http/1.1"])
            .await
            .is_none()
    );
}

/// The session of a connection that has answered a request: tickets come before the answer.
async fn answered(world: &World, config: Arc<ClientConfig>) -> (Option<HandshakeKind>, u32) {
    let tcp = TcpStream::connect(world.https).await.expect("connected");
    let name = "cart.acme.example".try_into().expect("a name");
    let connector = TlsConnector::from(config);
    let mut stream = connector.connect(name, tcp).await.expect("TLS");
    let request = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("written");
    let response = message(&mut stream, &mut Vec::new()).await;
    assert!(response.is_some_and(|response| response.starts_with("HTTP/1.1 200 ")));
    let session = stream.get_ref().1;
    (session.handshake_kind(), session.tls13_tickets_received())
}

#[tokio::test]
async fn sessions_are_resumed_with_a_ticket_of_each_connection_or_up_to_four_for_the_asking() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let root = std::slice::from_ref(&world.root);
    let config = runtime::tls::client(root, &[b"http/1.1"]).expect("a client");
    let mut config = Arc::unwrap_or_clone(config);
    config.resumption = rustls::client::Resumption::in_memory_sessions(4);
    let (full, resumed) = (Some(HandshakeKind::Full), Some(HandshakeKind::Resumed));
    let one = Arc::new(config.clone());
    assert_eq!(answered(&world, Arc::clone(&one)).await, (full, 1));
    assert_eq!(answered(&world, Arc::clone(&one)).await, (resumed, 1));
    assert_eq!(answered(&world, one).await, (resumed, 1));
    for (asked, first, second) in [
        (0, (full, 0), (full, 0)),
        (1, (full, 1), (resumed, 3)),
        (3, (full, 3), (resumed, 3)),
        (200, (full, 4), (resumed, 3)),
    ] {
        // RFC 9149 §3.
        config.send_ticket_request = Some(TicketRequest {
            new_session_count: asked,
            resumption_count: 3,
        });
        config.resumption = rustls::client::Resumption::in_memory_sessions(4);
        let client = Arc::new(config.clone());
        for expect in [first, second] {
            let client = Arc::clone(&client);
            assert_eq!(answered(&world, client).await, expect, "{asked}");
        }
    }
}

#[tokio::test]
async fn http2_streams_beside_each_other() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let stream = tls(&world, "cart.acme.example", &[b"h2"])
        .await
        .expect("TLS");
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(stream)
        .await
        .expect("h2");
    let tasks = runtime::Tasks::new("client");
    tasks.spawn("connection", async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await.expect("ready");
    let mut running = Vec::new();
    let body = Bytes::from("y".repeat(100 << 10));
    for nth in 0..5 {
        let request = Request::post(format!("https://cart.acme.example/{nth}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(())
            .expect("a request");
        let (response, mut send) = client.send_request(request, false).expect("sent");
        send.send_data(body.clone(), true).expect("sent");
        running.push(response);
    }
    for (nth, response) in running.into_iter().enumerate() {
        let response = response.await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a piece");
            body.flow_control()
                .release_capacity(piece.len())
                .expect("released");
            text.extend_from_slice(&piece);
        }
        let text = String::from_utf8(text).expect("text");
        assert!(
            text.starts_with(&format!("one\nPOST /{nth} HTTP/1.1\r\n")),
            "{:.200}",
            text
        );
        assert!(text.contains("cookie: a=1; b=2\r\n"));
        assert_eq!(text.matches('y').count(), 100 << 10);
    }
}

#[tokio::test]
async fn listeners_change_without_touching_connections() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut kept = TcpStream::connect(world.http).await.expect("connected");
    let request = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    kept.write_all(request.as_bytes()).await.expect("written");
    assert!(message(&mut kept, &mut Vec::new()).await.is_some());
    let taken = TcpStream::connect(world.https).await.expect("connected");
    let spec = |bind: SocketAddr, port| ListenerSpec {
        bind,
        port,
        protocol: l7::ListenerProtocol::Http,
    };
    let foreign = "192.0.2.1:80".parse().expect("not ours");
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let bound = world
        .pop
        .set_listeners(&[spec(foreign, 80), spec(any, 81)])
        .await;
    assert_eq!(bound[0].as_ref().expect_err("not ours").bind, foreign);
    assert_eq!(bound[1].as_ref().expect("kept"), &world.http);
    kept.write_all(request.as_bytes()).await.expect("written");
    let response = message(&mut kept, &mut Vec::new())
        .await
        .expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    // The same address now offers another logical port, on which nobody has a host.
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 404 "));
    drop(taken);
}

#[tokio::test]
async fn drain_finishes_what_runs() {
    let world = World::new().await;
    let mut spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut idle = TcpStream::connect(world.http).await.expect("connected");
    let mut busy = TcpStream::connect(world.http).await.expect("connected");
    let head = "POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 5\r\n\
                Expect: 100-continue\r\n\r\n";
    let warm = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    idle.write_all(warm.as_bytes()).await.expect("written");
    assert!(message(&mut idle, &mut Vec::new()).await.is_some());
    spot.arrived.recv().await.expect("arrived");
    let mut late = TcpStream::connect(world.http).await.expect("connected");
    late.write_all(warm.as_bytes()).await.expect("written");
    assert!(message(&mut late, &mut Vec::new()).await.is_some());
    busy.write_all(head.as_bytes()).await.expect("written");
    let mut buf = Vec::new();
    let first = message(&mut busy, &mut buf).await;
    assert!(first.is_some_and(|first| first.starts_with("HTTP/1.1 100 ")));
    let pop = Arc::clone(&world.pop);
    let drained = async {
        timeout(PATIENCE, pop.drain(PATIENCE))
            .await
            .expect("in time");
    };
    let finish = async {
        // Nobody is let in any more; who is in gets one more answer.
        while TcpStream::connect(world.http).await.is_ok() {}
        late.write_all(warm.as_bytes()).await.expect("written");
        let last = message(&mut late, &mut Vec::new()).await.expect("answered");
        assert!(last.contains("connection: close\r\n"), "{last}");
        let mut rest = Vec::new();
        timeout(PATIENCE, idle.read_to_end(&mut rest))
            .await
            .expect("in time")
            .expect("closed");
        busy.write_all(b"hello").await.expect("written");
        message(&mut busy, &mut buf).await.expect("a response")
    };
    let ((), response) = tokio::join!(drained, finish);
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
}
