//! Requests, and what comes of them.

use std::time::Duration;

use balance::Health::Healthy;
use l7::Limits;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::talker::{CANCELLED, HOST, Talker, config, endpoint, head, raw, reply, section};
use crate::tests::world::{Manner, PATIENCE, Spot, World, message};

#[tokio::test]
async fn a_request_goes_the_way_of_all_others() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let more = [
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("sealane-client", "192.0.2.1"),
    ];
    let reply = talker.ask(&head("GET", "/a//b?c", &more)).await;
    let reply = reply.expect("a reply");
    assert_eq!(reply.status, "200");
    assert!(
        reply.body.starts_with("one\nGET /a/b?c HTTP/1.1\r\n"),
        "{reply:?}"
    );
    for line in [
        "host: cart.acme.example\r\n",
        "cookie: a=1; b=2\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: https\r\n",
    ] {
        assert!(reply.body.to_lowercase().contains(line), "{line} {reply:?}");
    }
    assert!(!reply.body.contains("192.0.2.1"), "{reply:?}");
    assert_eq!(reply.field("alt-svc"), None);
    // HEAD has no body, and many go beside each other.
    let bodiless = talker.ask(&head("HEAD", "/", &[])).await.expect("a reply");
    assert_eq!(
        (bodiless.status.as_str(), bodiless.body.as_str()),
        ("200", "")
    );
    let mut open = Vec::new();
    for nth in 0..20 {
        let (mut send, recv) = talker.say(&head("GET", &format!("/{nth}"), &[])).await;
        send.finish().expect("not over");
        open.push(recv);
    }
    for (nth, recv) in open.into_iter().enumerate().rev() {
        let reply = self::reply(recv).await.expect("a reply");
        assert!(reply.body.contains(&format!("GET /{nth} ")), "{reply:?}");
    }
    let path = world.log.path().join("access.log");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    while lines().lines().count() < 22 {
        tokio::task::yield_now().await;
    }
    let first: serde_json::Value =
        serde_json::from_str(lines().lines().next().expect("a line")).expect("JSON");
    for (field, value) in [("protocol", "h3"), ("host", HOST), ("path", "/a//b?c")] {
        assert_eq!(first[field], value, "{first}");
    }
}

#[tokio::test]
async fn bodies_and_trailers_both_ways() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let body = "y".repeat(300 << 10);
    let length = body.len().to_string();
    // With a length, and in several frames; without one, and with trailers.
    let told = [
        head("POST", "/", &[("content-length", &length)]),
        raw(0, &body.as_bytes()[..1000]),
        raw(0, &[]),
        raw(0x21, b"nobody knows this"),
        raw(0, &body.as_bytes()[1000..]),
    ];
    let reply = talker.ask(&told.concat()).await.expect("a reply");
    assert!(
        reply
            .body
            .contains(&format!("content-length: {length}\r\n")),
        "{}",
        &reply.body[..300]
    );
    assert!(reply.body.ends_with(&body));
    let (address, _tasks) = listener("x-late: 1\r\n\r\n").await;
    world.endpoints(&[(address, Healthy)]);
    let told = [
        head("POST", "/", &[]),
        raw(0, b"some"),
        raw(1, &section(&[("x-late", "1"), ("host", "evil")])),
    ];
    let reply = talker.ask(&told.concat()).await.expect("a reply");
    let (_, after) = reply.body.split_once("\r\n\r\n").expect("a body");
    assert_eq!(after, "4\r\nsome\r\n0\r\nx-late: 1\r\n\r\n");
    // From the endpoint.
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nalt-svc: h3=\":1\"\r\n\
                   \r\n4\r\nmore\r\n0\r\nx-said: 2\r\n\r\n";
    let spot = Spot::new("two", Manner::Raw(chunked, false)).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let reply = talker.get("/").await;
    assert_eq!(
        (reply.body.as_str(), &reply.trailers[..]),
        ("more", &[("x-said".into(), "2".into())][..])
    );
    assert_eq!(reply.field("alt-svc"), None, "{reply:?}");
    assert_eq!(reply.field("transfer-encoding"), None, "{reply:?}");
}

/// An endpoint that reads to this end, and answers with all that came.
async fn listener(end: &'static str) -> (std::net::SocketAddr, runtime::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("listener");
    tasks.spawn("accept", async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut all = Vec::new();
        while !all.ends_with(end.as_bytes()) {
            stream.read_buf(&mut all).await.expect("more");
        }
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", all.len());
        let answer = [head.as_bytes(), &all].concat();
        stream.write_all(&answer).await.expect("written");
        std::future::pending::<()>().await;
    });
    (address, tasks)
}

#[tokio::test]
async fn a_response_that_breaks_is_reset() {
    let world = World::new().await;
    let broken = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort";
    let spot = Spot::new("one", Manner::Raw(broken, true)).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    assert_eq!(talker.reset(&head("GET", "/", &[])).await, 0x102);
}

#[tokio::test]
async fn who_gives_up_is_noticed() {
    let world = World::new().await;
    let mut spot = Spot::new("one", Manner::Hang).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let (mut send, mut recv) = talker.say(&head("GET", "/", &[])).await;
    send.finish().expect("not over");
    timeout(PATIENCE, spot.arrived.recv())
        .await
        .expect("in time");
    recv.stop(CANCELLED).expect("not over");
    let path = world.log.path().join("access.log");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    let wait = async {
        while !lines().contains("client-gone") {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, wait).await.expect("it is recorded");
}

#[tokio::test]
async fn unknown_names_and_hosts_of_others() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let to = world.quic().await;
    let endpoint = endpoint();
    let unknown = endpoint.connect_with(config(&world.root), to, "unknown.example");
    assert!(unknown.expect("an address").await.is_err());
    let talker = Talker::new(&world, to).await;
    let other = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "other.example"),
        (":path", "/"),
    ];
    let reply = talker
        .ask(&raw(1, &section(&other)))
        .await
        .expect("a reply");
    assert_eq!(reply.status, "421");
    let mut both = other;
    both[2].1 = HOST;
    let contradicts = [&both[..], &[("host", "other.example")]].concat();
    let reply = talker
        .ask(&raw(1, &section(&contradicts)))
        .await
        .expect("a reply");
    assert_eq!(reply.status, "400");
    let connect = raw(
        1,
        &section(&[(":method", "CONNECT"), (":authority", "a:1")]),
    );
    let reply = talker.ask(&connect).await.expect("a reply");
    assert_eq!(reply.status, "405");
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn others_are_told_of_it_over_tls_alone() {
    let world = World::new().await;
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nalt-svc: h3=\":1\"\r\n\r\n";
    let spot = Spot::new("one", Manner::Raw(answer, false)).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let plain = world.ask("GET").await;
    assert!(
        plain.starts_with("HTTP/1.1 200 ") && !plain.contains("alt-svc"),
        "{plain}"
    );
    let root = std::slice::from_ref(&world.root);
    let config = runtime::tls::client(root, &[b"http/1.1"]).expect("a client");
    let tcp = TcpStream::connect(world.https).await.expect("connected");
    let name = HOST.try_into().expect("a name");
    let mut tls = TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .expect("TLS");
    for answered_here in [false, true] {
        if answered_here {
            world.route(|route| {
                route.action = l7::Action::Respond(l7::DirectResponse {
                    status: http::StatusCode::OK,
                    body: bytes::Bytes::new(),
                    content_type: http::HeaderValue::from_static("text/plain"),
                });
            });
        }
        let request = format!("GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
        tls.write_all(request.as_bytes()).await.expect("written");
        let reply = message(&mut tls, &mut Vec::new()).await.expect("a reply");
        let said = reply.matches("alt-svc: h3=\":443\"; ma=86400\r\n").count();
        assert_eq!((said, reply.matches("alt-svc").count()), (1, 1), "{reply}");
    }
    assert_eq!(spot.served(), 2);
}

/// An endpoint that switches to whatever is asked for, and echoes.
async fn switcher() -> (std::net::SocketAddr, runtime::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("switcher");
    tasks.spawn("accept", async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let head = message(&mut stream, &mut Vec::new()).await.expect("a head");
        assert!(
            head.to_lowercase().contains("\r\nupgrade: websocket\r\n"),
            "{head}"
        );
        let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                      upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.expect("written");
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    });
    (address, tasks)
}

#[tokio::test]
async fn rfc9220_a_websocket_on_a_stream() {
    let world = World::new().await;
    let (address, _tasks) = switcher().await;
    world.endpoints(&[(address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let asked = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/chat"),
        ("sec-websocket-version", "13"),
    ];
    let (mut send, recv) = talker.say(&raw(1, &section(&asked))).await;
    send.write_all(&raw(0, b"hello")).await.expect("written");
    send.write_all(&raw(0, b" world")).await.expect("written");
    send.finish().expect("not over");
    let reply = reply(recv).await.expect("a reply");
    assert_eq!(
        (reply.status.as_str(), reply.body.as_str()),
        ("200", "hello world")
    );
    assert_eq!(reply.field("upgrade"), None);
}

#[tokio::test]
async fn slow_and_large_heads_are_refused() {
    let limits = Limits {
        header_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let world = World::as_peer("par.fabric", limits).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let long = "z".repeat(40 << 10);
    let many: Vec<(&str, &str)> = vec![("x-a", "1"); 101];
    for more in [&[("x-long", long.as_str())][..], &many] {
        let reply = talker.ask(&head("GET", "/", more)).await.expect("a reply");
        assert_eq!(reply.status, "431");
    }
    // Its end is never waited for.
    let (_send, recv) = talker.say(&raw(1, &[0; 9])[..0]).await;
    drop(recv);
    let endless = [&[1u8, 0xc0, 0, 0, 0, 0x40, 0, 0, 0][..], &[0; 100]].concat();
    let (_open, recv) = talker.say(&endless).await;
    assert_eq!(reply(recv).await.expect("a reply").status, "431");
    let (_open, recv) = talker.say(&head("GET", "/", &[])[..10]).await;
    match reply(recv).await {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => {
            assert_eq!(code.into_inner(), 0x10c);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused() {
    let limits = Limits {
        body_bytes: Some(1000),
        ..Limits::default()
    };
    let world = World::as_peer("par.fabric", limits).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let talker = Talker::new(&world, world.quic().await).await;
    let told = [head("POST", "/", &[]), raw(0, &[7; 2000])].concat();
    let reply = talker.ask(&told).await.expect("a reply");
    assert_eq!(reply.status, "413");
}
