//! §5.2 and §6.9: flow control.

use l7::Limits;

use super::wire::Expect::{Answer, Connection, Stream};
use super::wire::*;

const MOST: u32 = (1 << 31) - 1;

/// So much of a body in frames of 16 KiB.
fn much(stream: u32, octets: usize) -> Vec<u8> {
    data(stream, 0, &[b'x'; 1 << 14]).repeat(octets.div_ceil(1 << 14))
}

cases! {
    s6_9_an_increment_of_0_on_a_stream_is_its_protocol_error:
        [post(1), window_update(1, 0)] => Stream(1, PROTOCOL_ERROR);
    s6_9_an_increment_of_0_on_the_connection_is_a_protocol_error:
        [window_update(0, 0)] => Connection(PROTOCOL_ERROR);
    s6_9_a_short_window_update_is_a_frame_size_error:
        [frame(WINDOW_UPDATE, 0, 0, [0, 0, 1])] => Connection(FRAME_SIZE_ERROR);
    s6_9_a_long_window_update_is_a_frame_size_error:
        [frame(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1, 0])] => Connection(FRAME_SIZE_ERROR);
    s6_9_1_a_window_of_the_connection_above_2_31_is_a_flow_control_error:
        [window_update(0, MOST)] => Connection(FLOW_CONTROL_ERROR);
    s6_9_1_a_window_of_a_stream_above_2_31_is_a_flow_control_error_of_the_stream:
        [post(1), window_update(1, MOST)] => Stream(1, FLOW_CONTROL_ERROR);
    s6_9_1_the_reserved_bit_is_ignored: [window_update(0, 1 | 1 << 31), get(1)] => Answer(1, 200);
    s6_9_2_a_window_above_2_31_by_settings_is_a_flow_control_error:
        [post(1), window_update(1, MOST - 65_535), settings(&[(INITIAL_WINDOW_SIZE, 65_536)])]
        => Connection(FLOW_CONTROL_ERROR);
}

/// §6.9.1: nobody sends more than there is room for; the endpoint's answer here is longer.
#[tokio::test]
async fn s6_9_1_no_more_is_sent_than_the_window_takes() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[(INITIAL_WINDOW_SIZE, 1)]).await;
    peer.send(&get(1)).await;
    let head = peer.until(1, &[HEADERS]).await.expect("a frame");
    assert_eq!(status(&head.payload), 200);
    let first = peer.until(1, &[DATA]).await.expect("a frame");
    assert_eq!(first.payload.len(), 1);
    for more in [3, 7] {
        peer.send(&window_update(1, more)).await;
        // What is answered behind it shows that no more has come.
        peer.send(&frame(PING, 0, 0, [9; 8])).await;
        let mut came = 0;
        loop {
            let frame = peer.next().await.expect("a frame");
            match frame.kind {
                DATA => came += frame.payload.len(),
                PING if came > 0 => break,
                PING => peer.send(&frame_ping()).await,
                _ => {}
            }
        }
        assert_eq!(came, more as usize);
    }
}

fn frame_ping() -> Vec<u8> {
    frame(PING, 0, 0, [9; 8])
}

/// §6.9.2: a smaller initial window makes windows negative; it takes as much to make them positive.
#[tokio::test]
async fn s6_9_2_a_window_may_become_negative() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[(INITIAL_WINDOW_SIZE, 10)]).await;
    peer.send(&get(1)).await;
    let first = peer.until(1, &[DATA]).await.expect("a frame");
    assert_eq!(first.payload.len(), 10);
    peer.send(
        &[
            settings(&[(INITIAL_WINDOW_SIZE, 4)]),
            window_update(1, 6),
            frame_ping(),
        ]
        .concat(),
    )
    .await;
    let pong = peer.until(0, &[PING]).await.expect("a frame");
    assert_eq!(pong.flags, ACK);
    // It is 0 now.
    peer.send(&window_update(1, 2)).await;
    let next = peer.until(1, &[DATA]).await.expect("a frame");
    assert_eq!(next.payload.len(), 2);
    peer.send(&settings(&[(INITIAL_WINDOW_SIZE, 9)])).await;
    let next = peer.until(1, &[DATA]).await.expect("a frame");
    assert_eq!(next.payload.len(), 5);
}

/// §6.9.1: the connection has a window as well.
#[tokio::test]
async fn s6_9_1_streams_share_the_window_of_the_connection() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    // Each echo is longer than its body.
    let body = vec![b'x'; 40_000];
    for stream in [1, 3] {
        peer.send(&post(stream)).await;
        for piece in body.chunks(10_000) {
            peer.send(&data(stream, 0, piece)).await;
        }
        peer.send(&data(stream, END_STREAM, b"")).await;
    }
    let mut came = 0;
    while came < 65_535 {
        let frame = peer.next().await.expect("a frame");
        if frame.kind == DATA {
            came += frame.payload.len();
        }
    }
    peer.send(&frame_ping()).await;
    let pong = peer.until(0, &[PING, DATA]).await.expect("a frame");
    assert_eq!((came, pong.kind), (65_535, PING));
}

/// §6.9: what comes beyond our window is refused; here the endpoint reads nothing.
#[tokio::test]
async fn s6_9_data_beyond_the_window_of_a_stream_is_a_flow_control_error() {
    use balance::Health::Healthy;

    use crate::tests::world::{PATIENCE, World};
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    world.endpoints(&[(listener.local_addr().expect("an address"), Healthy)]);
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&post(1)).await;
    let endpoint = tokio::time::timeout(PATIENCE, listener.accept()).await;
    let _endpoint = endpoint.expect("in time").expect("accepted");
    // Until every buffer on the way is full, windows are opened again; we look at none of that.
    let flood = async {
        for _ in 0..4096 {
            peer.send(&much(1, 256 << 10)).await;
        }
        peer
    };
    let mut peer = tokio::time::timeout(PATIENCE, flood)
        .await
        .expect("in time");
    let last = loop {
        match peer.next().await {
            Some(frame) if frame.kind == RST_STREAM => break word(&frame.payload),
            Some(frame) if frame.kind == GOAWAY => break word(&frame.payload[4..8]),
            Some(_) => {}
            // Its last words were lost with what it did not read.
            None => break FLOW_CONTROL_ERROR,
        }
    };
    assert_eq!(last, FLOW_CONTROL_ERROR);
}
