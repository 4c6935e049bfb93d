//! §5: streams and their states.

use balance::Health::Healthy;
use l7::Limits;

use super::wire::Expect::{Answer, Connection, Ignored};
use super::wire::*;
use crate::tests::world::{Manner, Spot, World};

cases! {
    s5_1_data_on_an_idle_stream_is_a_protocol_error:
        [data(1, END_STREAM, b"x")] => Connection(PROTOCOL_ERROR);
    s5_1_a_reset_of_an_idle_stream_is_a_protocol_error:
        [reset(1, CANCEL)] => Connection(PROTOCOL_ERROR);
    s5_1_a_window_update_on_an_idle_stream_is_a_protocol_error:
        [window_update(1, 1)] => Connection(PROTOCOL_ERROR);
    s5_1_a_continuation_on_an_idle_stream_is_a_protocol_error:
        [frame(CONTINUATION, END_HEADERS, 1, with("GET", &[]))] => Connection(PROTOCOL_ERROR);
    s5_1_a_priority_on_an_idle_stream_is_ignored:
        [frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1])] => Ignored;

    // Half-closed by the client.
    s5_1_data_behind_the_end_of_a_request_is_refused:
        [get(1), data(1, END_STREAM, b"x")] => Expect::Stream(1, STREAM_CLOSED);
    s5_1_data_behind_the_end_of_a_body_is_refused:
        [post(1), data(1, END_STREAM, b"x"), data(1, 0, b"y")] => Expect::Stream(1, STREAM_CLOSED);
    s5_1_headers_behind_the_end_of_a_request_are_refused:
        [get(1), get(1)] => Expect::Stream(1, STREAM_CLOSED);
    s5_1_a_continuation_behind_the_end_of_a_request_is_a_protocol_error:
        [get(1), frame(CONTINUATION, END_HEADERS, 1, with("GET", &[]))] => Connection(PROTOCOL_ERROR);
    s5_1_a_window_update_behind_the_end_of_a_request_is_taken:
        [get(1), window_update(1, 1)] => Answer(1, 200);
    s5_1_a_priority_behind_the_end_of_a_request_is_ignored:
        [get(1), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1])] => Answer(1, 200);
    s5_1_a_reset_behind_the_end_of_a_request_is_taken: [get(1), reset(1, CANCEL)] => Ignored;

    // Closed by the client's reset.
    s5_1_data_behind_a_reset_ends_nothing_else:
        [post(1), reset(1, CANCEL), data(1, END_STREAM, b"x"), get(3)] => Expect::Stream(1, STREAM_CLOSED);
    s5_1_headers_behind_a_reset_are_refused:
        [post(1), reset(1, CANCEL), get(1)] => Expect::Stream(1, STREAM_CLOSED);
    s5_1_a_window_update_behind_a_reset_is_ignored:
        [post(1), reset(1, CANCEL), window_update(1, 1)] => Ignored;
    s5_1_a_priority_behind_a_reset_is_ignored:
        [post(1), reset(1, CANCEL), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1])] => Ignored;
    s5_1_a_second_reset_is_ignored: [post(1), reset(1, CANCEL), reset(1, CANCEL)] => Ignored;
    s5_1_a_continuation_behind_a_reset_is_a_protocol_error:
        [post(1), reset(1, CANCEL), frame(CONTINUATION, END_HEADERS, 1, [])]
        => Connection(PROTOCOL_ERROR);

    s5_1_1_an_even_stream_is_a_protocol_error: [get(2)] => Connection(PROTOCOL_ERROR);
    s5_1_1_a_stream_lower_than_the_last_is_a_protocol_error:
        [get(5), get(3)] => Connection(PROTOCOL_ERROR);
    s5_1_1_streams_that_were_left_out_are_closed:
        [get(5), data(3, 0, b"x"), get(7)] => Expect::Stream(3, STREAM_CLOSED);
    s5_1_1_streams_may_be_left_out: [get(7), get(901)] => Answer(901, 200);

    // RFC 7540 §5.3.1; RFC 9113 §5.3.2 has no priorities any more.
    s5_3_2_a_dependency_is_ignored:
        [frame(HEADERS, WHOLE | WITH_PRIORITY, 1,
            [&[0x80, 0, 0, 9, 1][..], &with("GET", &[])].concat())] => Answer(1, 200);
    s5_3_2_headers_that_depend_on_themselves_are_a_stream_error:
        [frame(HEADERS, WHOLE | WITH_PRIORITY, 1,
            [&[0, 0, 0, 1, 1][..], &with("GET", &[])].concat())] => Expect::Stream(1, PROTOCOL_ERROR);
    s5_3_2_a_priority_on_the_stream_itself_is_a_stream_error:
        [post(1), frame(PRIORITY, 0, 1, [0, 0, 0, 1, 1])] => Expect::Stream(1, PROTOCOL_ERROR);
}

/// §5.1.2: more streams than allowed are refused, and may be tried again (§8.7).
#[tokio::test]
async fn s5_1_2_streams_beyond_the_limit_are_refused() {
    let limits = Limits {
        concurrent_streams: 3,
        ..Limits::default()
    };
    let world = World::as_peer("par.fabric", limits).await;
    let mut spot = Spot::new("one", Manner::Hang).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&[get(1), get(3), get(5), get(7), get(9)].concat())
        .await;
    for stream in [7, 9] {
        let frame = peer
            .until(stream, &[RST_STREAM, HEADERS])
            .await
            .expect("a frame");
        assert_eq!(
            (frame.kind, word(&frame.payload)),
            (RST_STREAM, REFUSED_STREAM)
        );
    }
    for _ in 0..3 {
        spot.arrived.recv().await.expect("a request");
    }
    // One that ends makes room for another.
    peer.send(&[reset(1, CANCEL), get(11)].concat()).await;
    spot.arrived.recv().await.expect("a request");
    assert_eq!(spot.served(), 4);
}

/// §5.1.1: the identifiers are used up, and nothing else of the connection is.
#[tokio::test]
async fn s5_1_1_the_last_stream_of_a_connection_is_served() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    assert!(peer.is_alive((1 << 31) - 1).await);
    peer.send(&get(1)).await;
    assert_eq!(peer.ending().await, Some(PROTOCOL_ERROR));
}

/// §5.4.1: the one who ends the connection says up to where it has worked.
#[tokio::test]
async fn s5_4_1_a_goaway_names_the_last_stream() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    assert!(peer.is_alive(1).await && peer.is_alive(3).await);
    peer.send(&frame(PING, 0, 0, [0; 7])).await;
    let frame = peer.until(0, &[GOAWAY]).await.expect("a frame");
    assert_eq!(word(&frame.payload[..4]), 3);
    assert_eq!(peer.next().await, None);
}

/// §5.1.1: what one connection does is nothing to another.
#[tokio::test]
async fn s5_4_1_another_connection_goes_on() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut good = Peer::new(&world, &[]).await;
    let mut bad = Peer::new(&world, &[]).await;
    assert!(good.is_alive(1).await);
    bad.send(&frame(PING, 0, 0, [0; 7])).await;
    assert_eq!(bad.ending().await, Some(FRAME_SIZE_ERROR));
    assert!(good.is_alive(3).await);
}

/// §5.1: what was sent on a stream behind both its ends cannot have crossed anything.
#[tokio::test]
async fn s5_1_frames_on_a_stream_that_both_have_ended_end_the_connection() {
    let (world, _recorder) = world(Limits::default()).await;
    for late in [data(1, END_STREAM, b"x"), get(1)] {
        let mut peer = Peer::new(&world, &[]).await;
        assert!(peer.is_alive(1).await);
        while peer.until(1, &[DATA]).await.expect("a frame").flags & END_STREAM == 0 {}
        peer.send(&late).await;
        assert_eq!(peer.ending().await, Some(STREAM_CLOSED));
    }
    // What may have crossed its end is nothing.
    let mut peer = Peer::new(&world, &[]).await;
    assert!(peer.is_alive(1).await);
    while peer.until(1, &[DATA]).await.expect("a frame").flags & END_STREAM == 0 {}
    peer.send(&[window_update(1, 7), reset(1, CANCEL)].concat())
        .await;
    assert!(peer.is_alive(3).await);
}
