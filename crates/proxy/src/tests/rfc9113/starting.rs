//! §3: how a connection begins.

use l7::Limits;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::wire::Expect::{Connection, Cut};
use super::wire::*;

/// What comes of a connection that begins with these octets.
async fn begins(octets: &[&[u8]], expect: Expect) {
    let (world, _recorder) = world(Limits::default()).await;
    let stream = TcpStream::connect(world.http).await.expect("connected");
    let mut peer = Peer::of(stream);
    peer.send(&octets.concat()).await;
    see(&mut peer, expect).await;
}

#[tokio::test]
async fn s3_4_the_servers_preface_is_settings_that_allow_extended_connect() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(PREFACE).await.expect("written");
    stream.write_all(&settings(&[])).await.expect("written");
    let mut peer = Peer::of(stream);
    let first = peer.next().await.expect("a frame");
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    let mut allowed = false;
    for setting in first.payload.chunks(6) {
        let id = u16::from_be_bytes([setting[0], setting[1]]);
        let value = word(&setting[2..]);
        // §6.5.2: a server does not say that it takes pushes.
        assert!(id != ENABLE_PUSH || value == 0);
        allowed |= id == ENABLE_CONNECT_PROTOCOL && value == 1;
    }
    assert!(allowed, "RFC 8441 §3");
    // §6.5.3: ours is acknowledged.
    let acknowledged = peer.until(0, &[SETTINGS]).await.expect("a frame");
    assert_eq!((acknowledged.flags, acknowledged.payload.len()), (ACK, 0));
}

#[tokio::test]
async fn s3_4_a_client_may_go_on_before_it_has_heard_anything() {
    begins(
        &[PREFACE, &settings(&[(HEADER_TABLE_SIZE, 0)]), &get(1)],
        Expect::Answer(1, 200),
    )
    .await;
}

#[tokio::test]
async fn s3_4_another_preface_is_cut() {
    begins(&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX", &settings(&[])], Cut).await;
    begins(&[b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n", &settings(&[])], Cut).await;
    begins(&[&settings(&[]), b"\r\n\r\n"], Cut).await;
}

#[tokio::test]
async fn s3_4_a_preface_without_settings_is_a_protocol_error() {
    for first in [
        get(1),
        frame(PING, 0, 0, [0; 8]),
        frame(SETTINGS, ACK, 0, []),
        frame(0xBB, 0, 0, []),
        window_update(0, 1),
    ] {
        begins(&[PREFACE, &first], Connection(PROTOCOL_ERROR)).await;
    }
}

#[tokio::test]
async fn s3_4_a_preface_comes_in_pieces() {
    let (world, _recorder) = world(Limits::default()).await;
    let stream = TcpStream::connect(world.http).await.expect("connected");
    stream.set_nodelay(true).expect("set");
    let mut peer = Peer::of(stream);
    for octet in [PREFACE, &settings(&[(HEADER_TABLE_SIZE, 0)]), &get(1)].concat() {
        peer.send(&[octet]).await;
        tokio::task::yield_now().await;
    }
    see(&mut peer, Expect::Answer(1, 200)).await;
}
