use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::Tasks;

/// Both ends of one stream over a pipe of 16 KiB.
async fn pair(tasks: &Tasks) -> (H2Stream, H2Stream) {
    let (near, far): (DuplexStream, DuplexStream) = tokio::io::duplex(16 * 1024);
    let (client, server) = tokio::join!(h2::client::handshake(near), async {
        h2::server::handshake(far).await
    });
    let (mut opener, connection) = client.expect("a client");
    let mut server = server.expect("a server");
    tasks.spawn("client", async move {
        let _ = connection.await;
    });
    let (response, send) = opener
        .send_request(Request::new(()), false)
        .expect("the head goes out");
    let (request, mut respond) = server.accept().await.expect("a stream").expect("a request");
    let back = respond
        .send_response(Response::new(()), false)
        .expect("answered");
    tasks.spawn(
        "server",
        async move { while server.accept().await.is_some() {} },
    );
    let recv = response.await.expect("an answer").into_body();
    (
        H2Stream::new(send, recv),
        H2Stream::new(back, request.into_body()),
    )
}

#[tokio::test]
async fn more_than_every_window_passes_both_ways_at_once() {
    let tasks = Tasks::new("test");
    let (mut near, mut far) = pair(&tasks).await;
    let big: Vec<u8> = (0..2_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
    let pump = async |stream: &mut H2Stream| {
        let (mut read, mut write) = tokio::io::split(stream);
        let mut got = Vec::new();
        let (wrote, read) = tokio::join!(
            async {
                write.write_all(&big).await?;
                write.shutdown().await
            },
            read.read_to_end(&mut got)
        );
        wrote.and(read).expect("both halves end");
        got
    };
    let (from_far, from_near) = tokio::join!(pump(&mut near), pump(&mut far));
    assert!(from_far == big && from_near == big);
    assert_eq!(
        near.write(b"more").await.expect_err("ended").kind(),
        io::ErrorKind::BrokenPipe
    );
}

#[tokio::test]
async fn a_slow_reader_stops_the_writer() {
    let tasks = Tasks::new("test");
    let (mut near, mut far) = pair(&tasks).await;
    let mut sent = 0;
    let piece = [1; 8192];
    let stuck = std::time::Duration::from_millis(200);
    while let Ok(wrote) = tokio::time::timeout(stuck, near.write(&piece)).await {
        sent += wrote.expect("open");
        assert!(sent < 1_000_000, "nothing bounds the writer");
    }
    let mut got = vec![0; sent];
    far.read_exact(&mut got).await.expect("all of it");
    near.write_all(b"on").await.expect("the window opened");
}

#[tokio::test]
async fn dropping_an_open_stream_resets_it() {
    let tasks = Tasks::new("test");
    let (near, mut far) = pair(&tasks).await;
    drop(near);
    let error = far.read_u8().await.expect_err("reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(far.write(b"x").await.is_err());
}

#[tokio::test]
async fn what_was_written_before_shutdown_arrives_after_drop() {
    let tasks = Tasks::new("test");
    let (mut near, mut far) = pair(&tasks).await;
    let text = vec![3; 50_000];
    near.write_all(&text).await.expect("written");
    near.shutdown().await.expect("ended");
    drop(near);
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.expect("whole");
    assert!(got == text);
    far.write_all(b"too late").await.expect("thrown away");
    far.shutdown().await.expect("ended");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_ends_is_cancelled() {
    let tasks = Tasks::new("test");
    let (near, mut far) = pair(&tasks).await;
    let guard = std::sync::Arc::new(());
    let mut near = near.with_guard(std::sync::Arc::clone(&guard));
    near.shutdown().await.expect("ended");
    drop(near);
    assert_eq!(far.read(&mut [0; 8]).await.expect("the end"), 0);
    assert_eq!(std::sync::Arc::strong_count(&guard), 2);
    let flood = async {
        loop {
            if far.write_all(&[0; 1024]).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(LINGER * 2, flood)
        .await
        .expect("cancelled");
    assert_eq!(std::sync::Arc::strong_count(&guard), 1);
}
