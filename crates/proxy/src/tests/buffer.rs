//! Bodies that are taken whole before an endpoint is asked.

use balance::Health::Healthy;
use l7::{Limits, Retry};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

use super::world::{Manner, PATIENCE, Spot, World, message};

const HEAD: &str = "HTTP/1.1\r\nHost: cart.acme.example\r\n";

async fn world(most: usize, limits: Limits) -> (World, Spot) {
    let world = World::as_peer("par.fabric", limits).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    world.route(|route| route.buffer = Some(most));
    (world, spot)
}

async fn send(world: &World, octets: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(octets.as_bytes()).await.expect("written");
    stream
}

async fn reply(stream: &mut TcpStream) -> String {
    let reply = timeout(PATIENCE, message(stream, &mut Vec::new())).await;
    reply.expect("in time").expect("a reply")
}

#[tokio::test]
async fn a_slow_client_holds_no_endpoint() {
    let (world, spot) = world(1000, Limits::default()).await;
    let asked = format!("POST /slow {HEAD}Content-Length: 10\r\n\r\nfirst");
    let mut slow = send(&world, &asked).await;
    let chunked = format!("POST /chunks {HEAD}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n");
    let mut chunks = send(&world, &chunked).await;
    // One worker serves all of them: whoever comes later is answered first.
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 200 "));
    assert_eq!(spot.served(), 1);
    slow.write_all(b"other").await.expect("written");
    let answer = reply(&mut slow).await;
    assert!(
        answer.contains("POST /slow ") && answer.ends_with("firstother"),
        "{answer}"
    );
    // Its length is known by then.
    chunks
        .write_all(b"1\r\nc\r\n0\r\n\r\n")
        .await
        .expect("written");
    let answer = reply(&mut chunks).await;
    assert!(
        answer.contains("content-length: 3\r\n") && answer.ends_with("abc"),
        "{answer}"
    );
    assert_eq!(spot.served(), 3);
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_anybody_is_asked() {
    let (world, spot) = world(100, Limits::default()).await;
    let long = "x".repeat(101);
    for asked in [
        // What is announced is not even waited for.
        format!("POST / {HEAD}Content-Length: 101\r\n\r\n"),
        format!("POST / {HEAD}Transfer-Encoding: chunked\r\n\r\n65\r\n{long}\r\n"),
    ] {
        let answer = reply(&mut send(&world, &asked).await).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    }
    let fits = format!("POST / {HEAD}Content-Length: 100\r\n\r\n{}", &long[1..]);
    let answer = reply(&mut send(&world, &fits).await).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(spot.served(), 1);
}

#[tokio::test]
async fn any_length_can_be_tried_again() {
    let (world, good) = world(1 << 20, Limits::default()).await;
    let busy = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    let bad = Spot::new("bad", Manner::Raw(busy, false)).await;
    world.endpoints(&[(bad.address, Healthy), (good.address, Healthy)]);
    world.route(|route| {
        route.buffer = Some(1 << 20);
        route.retry = Retry {
            codes: vec![http::StatusCode::SERVICE_UNAVAILABLE],
            ..Retry::default()
        };
    });
    let body = "0123456789".repeat(30_000);
    let asked = format!("PUT / {HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
    let answer = reply(&mut send(&world, &asked).await).await;
    assert!(
        answer.contains("\r\n\r\none\nPUT / ") && answer.ends_with(&body),
        "{}",
        &answer[..200]
    );
    assert_eq!((bad.served(), good.served()), (1, 1));
}

#[tokio::test]
async fn all_of_a_worker_have_a_bound() {
    let limits = Limits {
        buffered_bytes: 100 << 10,
        ..Limits::default()
    };
    let (world, spot) = world(1 << 20, limits).await;
    let half = "y".repeat(60 << 10);
    let asked = format!("POST / {HEAD}Content-Length: {}\r\n\r\n{half}", 64 << 10);
    let mut first = send(&world, &asked).await;
    let wait = async {
        // It is being held when another is refused.
        loop {
            let answer = reply(&mut send(&world, &asked).await).await;
            if answer.starts_with("HTTP/1.1 503 ") {
                return;
            }
        }
    };
    timeout(PATIENCE, wait).await.expect("in time");
    let rest = "y".repeat(4 << 10);
    first.write_all(rest.as_bytes()).await.expect("written");
    assert!(reply(&mut first).await.starts_with("HTTP/1.1 200 "));
    // There is room again.
    let whole = asked + &rest;
    assert!(
        reply(&mut send(&world, &whole).await)
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert_eq!(spot.served(), 2);
}
