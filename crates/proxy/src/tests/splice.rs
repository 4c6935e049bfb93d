//! Long bodies go from socket to socket, whole and in order.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    layer4::stand_here,
    policy::record,
    world::{Manner, PATIENCE, Spot, World},
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";

/// A body in which each place can be told from the others nearby.
fn body(length: usize) -> String {
    let words = (0..length / 8 + 1).map(|n| format!("{n:07} "));
    let mut body: String = words.collect();
    body.truncate(length);
    body
}

/// An endpoint in this site that says `announced` and sends `sent` octets.
async fn answering(announced: usize, sent: usize, close: bool) -> (World, Spot) {
    let world = World::new().await;
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {announced}\r\n\r\n");
    let raw = String::leak(head + &body(sent));
    let spot = Spot::new("long", Manner::Raw(raw, close)).await;
    stand_here(&world.ingress_cell, &[spot.address]);
    (world, spot)
}

fn spliced(world: &World) -> usize {
    let text = world.metrics.render();
    let counts = text
        .lines()
        .filter_map(|line| line.strip_prefix("sealane_proxy_spliced_bytes_total "));
    counts.map(|n| n.parse::<usize>().expect("a number")).sum()
}

/// The next response's body of this length.
async fn answered(stream: &mut TcpStream, length: usize) -> String {
    let reading = async {
        let mut all = Vec::new();
        loop {
            let text = std::str::from_utf8(&all).expect("text");
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                if rest.len() >= length {
                    return rest.to_owned();
                }
            }
            assert!(stream.read_buf(&mut all).await.expect("read") > 0, "ended");
        }
    };
    timeout(PATIENCE, reading).await.expect("in time")
}

#[tokio::test]
async fn a_long_body_is_not_copied_and_its_connections_go_on() {
    const LENGTH: usize = 3_000_000;
    let (world, spot) = answering(LENGTH, LENGTH, false).await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    for nth in 1..=3 {
        stream.write_all(GET).await.expect("written");
        assert!(answered(&mut stream, LENGTH).await == body(LENGTH));
        assert_eq!(spot.served(), nth);
    }
    // What is read with the head is copied.
    assert!(
        spliced(&world) > 3 * (LENGTH - (64 << 10)),
        "{}",
        spliced(&world)
    );
}

#[tokio::test]
async fn a_short_body_is_copied() {
    const LENGTH: usize = 64 << 10;
    let (world, _spot) = answering(LENGTH, LENGTH, false).await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(GET).await.expect("written");
    assert!(answered(&mut stream, LENGTH).await == body(LENGTH));
    assert_eq!(spliced(&world), 0);
}

#[tokio::test]
async fn a_long_body_that_ends_early_is_seen_as_such() {
    const LENGTH: usize = 3_000_000;
    let (world, _spot) = answering(LENGTH, LENGTH / 2, true).await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(GET).await.expect("written");
    let mut all = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // What came is there; the client is told that it is not all by the end of its connection.
    let _ = ended.expect("in time");
    let text = std::str::from_utf8(&all).expect("text");
    let (_, got) = text.split_once("\r\n\r\n").expect("a head");
    assert!(body(LENGTH / 2).starts_with(got) && spliced(&world) > 0);
    let record = record(&world, 1).await;
    assert_eq!(record["error"], "truncated");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_the_endpoint_back_and_may_leave() {
    const LENGTH: usize = 64 << 20;
    let (world, _spot) = answering(LENGTH, LENGTH, false).await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(GET).await.expect("written");
    let filling = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            let now = spliced(&world);
            if now > 0 && now == before {
                return now;
            }
            before = now;
        }
    };
    let held = timeout(PATIENCE, filling).await.expect("in time");
    assert!(held < LENGTH / 2, "{held}");
    drop(stream);
    let record = record(&world, 1).await;
    assert_eq!(record["error"], "client-gone");
    // Another body does not get what was left of this one.
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(GET).await.expect("written");
    assert!(
        answered(&mut stream, 1 << 20)
            .await
            .starts_with(&body(1 << 20))
    );
}
