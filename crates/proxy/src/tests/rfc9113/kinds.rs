//! §6: the frames, kind by kind (flow control is in `flow`).

use l7::Limits;

use super::wire::Expect::{Answer, Connection, Ignored, Stream};
use super::wire::*;

/// A payload and its padding.
fn padded(pad: &[u8], payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(pad.len()).expect("short");
    [&[length][..], payload, pad].concat()
}

fn request() -> Vec<u8> {
    with("GET", &[])
}

cases! {
    // DATA.
    s6_1_data_on_stream_0_is_a_protocol_error: [data(0, 0, b"x")] => Connection(PROTOCOL_ERROR);
    s6_1_padding_as_long_as_the_payload_is_a_protocol_error:
        [post(1), data(1, PADDED | END_STREAM, &[5, 0, 0, 0, 0])] => Connection(PROTOCOL_ERROR);
    s6_1_nothing_but_padding: [post(1), data(1, PADDED | END_STREAM, &[4, 0, 0, 0, 0])] => Answer(1, 200);
    s6_1_empty_data_at_the_end: [post(1), data(1, 0, b"x"), data(1, END_STREAM, b"")] => Answer(1, 200);

    // HEADERS.
    s6_2_headers_on_stream_0_are_a_protocol_error:
        [frame(HEADERS, WHOLE, 0, request())] => Connection(PROTOCOL_ERROR);
    s6_2_padded_headers_with_a_priority:
        [frame(HEADERS, WHOLE | PADDED | WITH_PRIORITY, 1,
            padded(&[0; 7], &[&[0, 0, 0, 0, 1][..], &request()].concat()))] => Answer(1, 200);
    s6_2_padding_longer_than_the_payload_is_a_protocol_error:
        [frame(HEADERS, WHOLE | PADDED, 1, [9, 0x82])] => Connection(PROTOCOL_ERROR);
    s6_2_padding_over_the_priority_is_a_protocol_error:
        [frame(HEADERS, WHOLE | PADDED | WITH_PRIORITY, 1, [3, 0, 0, 0, 0, 1, 0x82])]
        => Connection(PROTOCOL_ERROR);

    // PRIORITY. §6.3 wants a stream error for a wrong length, which may be the connection's.
    s6_3_a_priority_on_stream_0_is_a_protocol_error:
        [frame(PRIORITY, 0, 0, [0, 0, 0, 0, 1])] => Connection(PROTOCOL_ERROR);
    s6_3_a_priority_of_another_length_is_a_frame_size_error:
        [get(1), frame(PRIORITY, 0, 1, [0, 0, 0, 0])] => Connection(FRAME_SIZE_ERROR);
    s6_3_a_longer_priority_is_a_frame_size_error:
        [get(1), frame(PRIORITY, 0, 1, [0, 0, 0, 0, 1, 1])] => Connection(FRAME_SIZE_ERROR);

    // RST_STREAM.
    s6_4_a_reset_of_stream_0_is_a_protocol_error: [reset(0, CANCEL)] => Connection(PROTOCOL_ERROR);
    s6_4_a_reset_of_another_length_is_a_frame_size_error:
        [post(1), frame(RST_STREAM, 0, 1, [0; 3])] => Connection(FRAME_SIZE_ERROR);
    s6_4_a_longer_reset_is_a_frame_size_error:
        [post(1), frame(RST_STREAM, 0, 1, [0; 5])] => Connection(FRAME_SIZE_ERROR);
    s7_a_reset_with_an_unknown_code_is_taken: [post(1), reset(1, 0xBBBB)] => Ignored;

    // SETTINGS.
    s6_5_an_acknowledgement_with_a_payload_is_a_frame_size_error:
        [frame(SETTINGS, ACK, 0, [0; 6])] => Connection(FRAME_SIZE_ERROR);
    s6_5_settings_on_a_stream_are_a_protocol_error:
        [frame(SETTINGS, 0, 1, [0, 3, 0, 0, 0, 9])] => Connection(PROTOCOL_ERROR);
    s6_5_settings_of_another_length_are_a_frame_size_error:
        [frame(SETTINGS, 0, 0, [0, 3, 0])] => Connection(FRAME_SIZE_ERROR);
    s6_5_settings_with_a_rest_are_a_frame_size_error:
        [frame(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 9, 0])] => Connection(FRAME_SIZE_ERROR);
    s6_5_an_acknowledgement_of_nothing_is_ignored: [frame(SETTINGS, ACK, 0, [])] => Ignored;
    s6_5_2_enable_push_above_1_is_a_protocol_error:
        [settings(&[(ENABLE_PUSH, 2)])] => Connection(PROTOCOL_ERROR);
    s6_5_2_initial_window_size_above_2_31_is_a_flow_control_error:
        [settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])] => Connection(FLOW_CONTROL_ERROR);
    s6_5_2_initial_window_size_of_all_ones_is_a_flow_control_error:
        [settings(&[(MAX_CONCURRENT_STREAMS, 9), (INITIAL_WINDOW_SIZE, u32::MAX)])]
        => Connection(FLOW_CONTROL_ERROR);
    s6_5_2_max_frame_size_below_2_14_is_a_protocol_error:
        [settings(&[(MAX_FRAME_SIZE, (1 << 14) - 1)])] => Connection(PROTOCOL_ERROR);
    s6_5_2_max_frame_size_of_0_is_a_protocol_error:
        [settings(&[(MAX_FRAME_SIZE, 0)])] => Connection(PROTOCOL_ERROR);
    s6_5_2_max_frame_size_of_2_24_is_a_protocol_error:
        [settings(&[(MAX_FRAME_SIZE, 1 << 24)])] => Connection(PROTOCOL_ERROR);
    s6_5_2_the_largest_max_frame_size: [settings(&[(MAX_FRAME_SIZE, (1 << 24) - 1)]), get(1)] => Answer(1, 200);
    s6_5_2_no_stream_may_be_pushed: [settings(&[(MAX_CONCURRENT_STREAMS, 0)]), get(1)] => Answer(1, 200);
    s6_5_3_the_last_of_two_values_counts:
        [settings(&[(ENABLE_PUSH, 1), (ENABLE_PUSH, 0)]), get(1)] => Answer(1, 200);
    rfc8441_s3_enable_connect_protocol_above_1_is_a_protocol_error:
        [settings(&[(ENABLE_CONNECT_PROTOCOL, 2)])] => Connection(PROTOCOL_ERROR);

    // PUSH_PROMISE.
    s8_4_a_push_promise_from_a_client_is_a_protocol_error:
        [post(1), frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &request()].concat())]
        => Connection(PROTOCOL_ERROR);
    s6_6_a_push_promise_on_stream_0_is_a_protocol_error:
        [frame(PUSH_PROMISE, END_HEADERS, 0, [&[0, 0, 0, 2][..], &request()].concat())]
        => Connection(PROTOCOL_ERROR);

    // PING.
    s6_7_an_acknowledgement_that_was_not_asked_for_is_ignored:
        [frame(PING, ACK, 0, *b"invalid!")] => Ignored;
    /// The octets with which `h2` ends a connection in order.
    s6_7_an_acknowledgement_of_the_last_ping_comes_too_early:
        [frame(PING, ACK, 0, [0x0B, 0x7B, 0xA2, 0xF0, 0x8B, 0x9B, 0xFE, 0x54])] => Ignored;
    s6_7_a_ping_on_a_stream_is_a_protocol_error:
        [frame(PING, 0, 1, [0; 8])] => Connection(PROTOCOL_ERROR);
    s6_7_a_short_ping_is_a_frame_size_error: [frame(PING, 0, 0, [0; 6])] => Connection(FRAME_SIZE_ERROR);
    s6_7_a_long_ping_is_a_frame_size_error: [frame(PING, 0, 0, [0; 9])] => Connection(FRAME_SIZE_ERROR);

    // GOAWAY.
    s6_8_a_goaway_on_a_stream_is_a_protocol_error:
        [frame(GOAWAY, 0, 1, [0; 8])] => Connection(PROTOCOL_ERROR);
    s6_8_a_short_goaway_is_a_frame_size_error: [frame(GOAWAY, 0, 0, [0; 7])] => Connection(FRAME_SIZE_ERROR);

    // CONTINUATION.
    s6_10_a_continuation_behind_a_whole_block_is_a_protocol_error:
        [frame(HEADERS, END_HEADERS, 1, request()), frame(CONTINUATION, END_HEADERS, 1, [])]
        => Connection(PROTOCOL_ERROR);
    s6_10_a_continuation_behind_the_last_is_a_protocol_error:
        [frame(HEADERS, END_STREAM, 1, request()), frame(CONTINUATION, END_HEADERS, 1, []),
            frame(CONTINUATION, END_HEADERS, 1, [])] => Connection(PROTOCOL_ERROR);
    s6_10_a_continuation_behind_data_is_a_protocol_error:
        [post(1), data(1, 0, b"x"), frame(CONTINUATION, END_HEADERS, 1, [])]
        => Connection(PROTOCOL_ERROR);
    s6_10_a_continuation_of_another_stream_is_a_protocol_error:
        [frame(HEADERS, END_STREAM, 1, request()), frame(CONTINUATION, END_HEADERS, 3, [])]
        => Connection(PROTOCOL_ERROR);
    s6_10_a_continuation_on_stream_0_is_a_protocol_error:
        [frame(HEADERS, END_STREAM, 1, request()), frame(CONTINUATION, END_HEADERS, 0, [])]
        => Connection(PROTOCOL_ERROR);
    s6_10_a_block_in_two_frames:
        [frame(HEADERS, END_STREAM, 1, request()), frame(CONTINUATION, END_HEADERS, 1, [])] => Answer(1, 200);
    s6_10_malformed_in_the_continuation:
        [frame(HEADERS, END_STREAM, 1, request()),
            frame(CONTINUATION, END_HEADERS, 1, block(&[("connection", "close")]))]
        => Stream(1, PROTOCOL_ERROR);
}

#[tokio::test]
async fn s6_7_a_ping_is_acknowledged_with_its_octets() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    for octets in [*b"01234567", [0; 8], [0xFF; 8]] {
        peer.send(&frame(PING, 0, 0, octets)).await;
        let pong = peer.until(0, &[PING]).await.expect("a frame");
        assert_eq!((pong.flags, &pong.payload[..]), (ACK, &octets[..]));
    }
}

/// What runs is finished; so is what the client still begins, though it said it would not.
#[tokio::test]
async fn s6_8_a_clients_goaway_lets_what_runs_end() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&[post(1), goaway(0, NO_ERROR), data(1, END_STREAM, b"x")].concat())
        .await;
    let head = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((head.kind, status(&head.payload)), (HEADERS, 200));
}

#[tokio::test]
async fn s6_1_padding_is_no_part_of_the_body() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    let body = [
        post(1),
        data(1, PADDED, &padded(b"PADDING", b"he")),
        data(1, PADDED | END_STREAM, &padded(b"PADDING", b"llo")),
    ];
    peer.send(&body.concat()).await;
    let mut seen = Vec::new();
    loop {
        let frame = peer.until(1, &[DATA]).await.expect("a frame");
        seen.extend(frame.payload);
        if frame.flags & END_STREAM != 0 {
            break;
        }
    }
    let seen = String::from_utf8(seen).expect("text");
    assert!(!seen.contains("PADDING"), "{seen}");
    let pieces: Vec<&str> = seen.split("\r\n").collect();
    assert!(
        pieces.concat().contains("he") && seen.contains("llo"),
        "{seen}"
    );
}
