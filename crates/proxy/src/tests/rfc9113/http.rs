//! §8: requests.

use balance::Health::Healthy;
use l7::Limits;

use super::wire::Expect::{Answer, Stream};
use super::wire::*;
use crate::tests::world::{Manner, Spot, World};

/// Malformed (§8.1.1).
const REFUSED: Expect = Stream(1, PROTOCOL_ERROR);

/// A request with a body and trailers.
fn trailed(trailers: &[(&str, &str)], flags: u8) -> Vec<u8> {
    let trailers = frame(HEADERS, flags | END_HEADERS, 1, block(trailers));
    [post(1), data(1, 0, b"x"), trailers].concat()
}

/// A body of these pieces behind a head that says how long it is.
fn long(length: &str, pieces: &[&[u8]]) -> Vec<u8> {
    let fields = [("content-length", length)];
    let flags = if pieces.is_empty() {
        WHOLE
    } else {
        END_HEADERS
    };
    let mut all = frame(HEADERS, flags, 1, with("POST", &fields));
    for (at, piece) in pieces.iter().enumerate() {
        let last = if at + 1 == pieces.len() {
            END_STREAM
        } else {
            0
        };
        all.extend(data(1, last, piece));
    }
    all
}

fn named(name: &[u8], value: &[u8]) -> Vec<u8> {
    let block = [with("GET", &[]), block(&[(name, value)])].concat();
    frame(HEADERS, WHOLE, 1, block)
}

const M: (&str, &str) = (":method", "GET");
const S: (&str, &str) = (":scheme", "http");
const P: (&str, &str) = (":path", "/");
const A: (&str, &str) = (":authority", "cart.acme.example");

cases! {
    // §8.1: the shape of a message.
    s8_1_trailers: [trailed(&[("x-a", "1")], END_STREAM)] => Answer(1, 200);
    s8_1_trailers_that_do_not_end_the_request_are_malformed: [trailed(&[("x-a", "1")], 0)] => REFUSED;
    s8_1_pseudo_header_fields_in_trailers_are_malformed: [trailed(&[P], END_STREAM)] => REFUSED;
    s8_1_a_method_in_trailers_is_malformed:
        [trailed(&[("x-a", "1"), M], END_STREAM)] => REFUSED;
    s8_1_connection_specific_trailers_are_malformed:
        [trailed(&[("connection", "close")], END_STREAM)] => REFUSED;
    s8_1_trailers_without_a_body:
        [post(1), frame(HEADERS, WHOLE, 1, block(&[("x-a", "1")]))] => Answer(1, 200);
    s8_1_data_behind_trailers_is_refused:
        [trailed(&[("x-a", "1")], END_STREAM), data(1, END_STREAM, b"x")] => Stream(1, STREAM_CLOSED);

    // §8.1.1: content-length.
    s8_1_1_a_body_as_long_as_it_says: [long("5", &[b"he", b"llo"])] => Answer(1, 200);
    s8_1_1_a_body_shorter_than_it_says_is_malformed: [long("6", &[b"hello"])] => REFUSED;
    s8_1_1_a_body_in_pieces_shorter_than_it_says_is_malformed: [long("6", &[b"he", b"llo"])] => REFUSED;
    s8_1_1_a_body_longer_than_it_says_is_malformed: [long("4", &[b"hello"])] => REFUSED;
    s8_1_1_a_body_in_pieces_longer_than_it_says_is_malformed: [long("4", &[b"he", b"llo"])] => REFUSED;
    s8_1_1_no_body_where_it_says_one_is_malformed: [long("1", &[])] => REFUSED;
    s8_1_1_a_body_where_it_says_none_is_malformed: [long("0", &[b"x"])] => REFUSED;
    s8_1_1_trailers_before_the_body_is_whole_are_malformed:
        [frame(HEADERS, END_HEADERS, 1, with("POST", &[("content-length", "5")])), data(1, 0, b"x"),
            frame(HEADERS, WHOLE, 1, block(&[("x-a", "1")]))] => REFUSED;
    s8_1_1_no_number_is_malformed: [long("five", &[b"hello"])] => REFUSED;
    s8_1_1_a_sign_is_malformed: [long("+5", &[b"hello"])] => REFUSED;
    s8_1_1_a_negative_number_is_malformed: [long("-5", &[b"hello"])] => REFUSED;
    s8_1_1_a_list_is_malformed: [long("5, 5", &[b"hello"])] => REFUSED;
    s8_1_1_an_empty_number_is_malformed: [long("", &[b"hello"])] => REFUSED;
    s8_1_1_a_number_too_large_is_malformed: [long("18446744073709551621", &[b"hello"])] => REFUSED;
    s8_1_1_two_different_lengths_are_malformed:
        [frame(HEADERS, END_HEADERS, 1,
            with("POST", &[("content-length", "5"), ("content-length", "6")])),
            data(1, END_STREAM, b"hello")] => REFUSED;

    // §8.2.1: names and values.
    s8_2_a_name_in_capitals_is_malformed: [named(b"X-A", b"1")] => REFUSED;
    s8_2_1_an_empty_name_is_malformed: [named(b"", b"1")] => REFUSED;
    s8_2_1_a_space_in_a_name_is_malformed: [named(b"x a", b"1")] => REFUSED;
    s8_2_1_a_control_in_a_name_is_malformed: [named(b"x\x01a", b"1")] => REFUSED;
    s8_2_1_a_nul_in_a_name_is_malformed: [named(b"x\0a", b"1")] => REFUSED;
    s8_2_1_an_end_of_line_in_a_name_is_malformed: [named(b"x\r\nhost: b\r\nx", b"1")] => REFUSED;
    s8_2_1_a_colon_in_a_name_is_malformed: [named(b"x:a", b"1")] => REFUSED;
    s8_2_1_a_colon_behind_a_name_is_malformed: [named(b"transfer-encoding:", b"chunked")] => REFUSED;
    s8_2_1_del_in_a_name_is_malformed: [named(b"x\x7fa", b"1")] => REFUSED;
    s8_2_1_no_ascii_in_a_name_is_malformed: [named(b"x\xe4a", b"1")] => REFUSED;
    s8_2_1_a_nul_in_a_value_is_malformed: [named(b"x-a", b"a\0b")] => REFUSED;
    s8_2_1_a_line_feed_in_a_value_is_malformed: [named(b"x-a", b"a\nb")] => REFUSED;
    s8_2_1_a_carriage_return_in_a_value_is_malformed: [named(b"x-a", b"a\rb")] => REFUSED;
    s8_2_1_an_end_of_line_in_a_value_is_malformed:
        [named(b"x-a", b"1\r\ntransfer-encoding: chunked")] => REFUSED;
    s8_2_1_a_space_before_a_value_is_malformed: [named(b"x-a", b" 1")] => Answer(1, 400);
    s8_2_1_a_space_behind_a_value_is_malformed: [named(b"x-a", b"1 ")] => Answer(1, 400);
    s8_2_1_a_tab_before_a_value_is_malformed: [named(b"x-a", b"\t1")] => Answer(1, 400);
    s8_2_1_a_tab_behind_a_value_is_malformed: [named(b"x-a", b"1\t")] => Answer(1, 400);
    s8_2_1_a_value_of_a_space_is_malformed: [named(b"x-a", b" ")] => Answer(1, 400);
    s8_2_1_an_empty_value: [named(b"x-a", b"")] => Answer(1, 200);
    s8_2_1_no_ascii_in_a_value: [named(b"x-a", b"\xe4")] => Answer(1, 200);

    // §8.2.2: what concerns a connection.
    s8_2_2_connection_is_malformed: [also(&[("connection", "close")])] => REFUSED;
    s8_2_2_keep_alive_is_malformed: [also(&[("keep-alive", "timeout=5")])] => REFUSED;
    s8_2_2_proxy_connection_is_malformed: [also(&[("proxy-connection", "keep-alive")])] => REFUSED;
    s8_2_2_transfer_encoding_is_malformed: [also(&[("transfer-encoding", "chunked")])] => REFUSED;
    s8_2_2_upgrade_is_malformed: [also(&[("upgrade", "h2c")])] => REFUSED;
    s8_2_2_te_other_than_trailers_is_malformed: [also(&[("te", "trailers, deflate")])] => REFUSED;
    s8_2_2_te_trailers: [also(&[("te", "trailers")])] => Answer(1, 200);

    // §8.3: pseudo-header fields.
    s8_3_an_unknown_one_is_malformed: [whole(&[M, S, P, A, (":other", "x")])] => REFUSED;
    s8_3_a_responses_is_malformed: [whole(&[M, S, P, A, (":status", "200")])] => REFUSED;
    s8_3_one_behind_a_field_is_malformed: [whole(&[M, S, A, ("x-a", "1"), P])] => REFUSED;
    s8_3_one_twice_is_malformed: [whole(&[M, S, P, A, P])] => REFUSED;
    s8_3_two_methods_are_malformed: [whole(&[M, M, S, P, A])] => REFUSED;
    s8_3_two_schemes_are_malformed: [whole(&[M, S, P, A, S])] => REFUSED;
    s8_3_two_authorities_are_malformed: [whole(&[M, S, P, A, (":authority", "b.example")])] => REFUSED;
    s8_3_1_no_method_is_malformed: [whole(&[S, P, A])] => REFUSED;
    s8_3_1_no_scheme_is_malformed: [whole(&[M, P, A])] => REFUSED;
    s8_3_1_no_path_is_malformed: [whole(&[M, S, A])] => REFUSED;
    s8_3_1_nothing_is_malformed: [whole(&[])] => REFUSED;
    s8_3_1_an_empty_path_is_malformed: [whole(&[M, S, (":path", ""), A])] => REFUSED;
    s8_3_1_a_path_without_a_slash_is_malformed: [whole(&[M, S, (":path", "x"), A])] => REFUSED;
    s8_3_1_an_absolute_path_is_malformed:
        [whole(&[M, S, (":path", "http://b.example/"), A])] => REFUSED;
    s8_3_1_a_star_is_for_options_only: [whole(&[M, S, (":path", "*"), A])] => Answer(1, 400);
    s8_3_1_options_of_a_star: [whole(&[(":method", "OPTIONS"), S, (":path", "*"), A])] => Answer(1, 200);
    s8_3_1_a_space_in_the_path_is_malformed: [whole(&[M, S, (":path", "/a b"), A])] => REFUSED;
    s8_3_1_an_end_of_line_in_the_path_is_malformed:
        [whole(&[M, S, (":path", "/ HTTP/1.1\r\nhost: b\r\n\r\n"), A])] => REFUSED;
    s8_3_1_a_space_in_the_method_is_malformed: [whole(&[(":method", "GET /b"), S, P, A])] => REFUSED;
    s8_3_1_an_empty_method_is_malformed: [whole(&[(":method", ""), S, P, A])] => REFUSED;
    s8_3_1_a_user_in_the_authority_is_malformed:
        [whole(&[M, S, P, (":authority", "user@cart.acme.example")])] => Answer(1, 400);
    s8_3_1_an_empty_authority_is_malformed: [whole(&[M, S, P, (":authority", "")])] => REFUSED;
    s8_3_1_an_authority_with_a_path_is_malformed:
        [whole(&[M, S, P, (":authority", "cart.acme.example/x")])] => REFUSED;
    s8_3_1_no_authority_and_no_host_is_refused: [whole(&[M, S, P])] => Answer(1, 400);
    s8_3_1_a_host_instead_of_an_authority:
        [whole(&[M, S, P, ("host", "cart.acme.example")])] => Answer(1, 200);
    s8_3_1_a_host_that_differs_is_refused: [also(&[("host", "b.example")])] => Answer(1, 400);
    s8_3_1_two_hosts_are_refused:
        [also(&[("host", "cart.acme.example"), ("host", "cart.acme.example")])] => Answer(1, 400);
    s8_3_1_a_scheme_with_a_space_is_malformed:
        [whole(&[M, (":scheme", "http "), P, A])] => REFUSED;
    s8_3_1_a_scheme_with_a_path_is_malformed:
        [whole(&[M, (":scheme", "http://b.example/?"), P, A])] => REFUSED;

    // §8.5 and RFC 8441 §4: CONNECT.
    s8_5_connect_is_not_served: [whole(&[(":method", "CONNECT"), A])] => Answer(1, 405);
    s8_5_connect_with_a_scheme_is_malformed: [whole(&[(":method", "CONNECT"), S, A])] => REFUSED;
    s8_5_connect_with_a_path_is_malformed: [whole(&[(":method", "CONNECT"), P, A])] => REFUSED;
    s8_5_connect_without_an_authority_is_malformed: [whole(&[(":method", "CONNECT")])] => Answer(1, 400);
    rfc8441_s4_a_protocol_without_connect_is_malformed:
        [whole(&[M, S, P, A, (":protocol", "websocket")])] => REFUSED;
    rfc8441_s4_no_scheme_is_malformed:
        [whole(&[(":method", "CONNECT"), (":protocol", "websocket"), P, A])] => REFUSED;
    rfc8441_s4_no_path_is_malformed:
        [whole(&[(":method", "CONNECT"), (":protocol", "websocket"), S, A])] => REFUSED;
    rfc8441_s4_two_protocols_are_malformed:
        [whole(&[(":method", "CONNECT"), (":protocol", "a"), (":protocol", "b"), S, P, A])] => REFUSED;
    rfc8441_s4_a_protocol_that_is_no_token_is_malformed:
        [frame(HEADERS, END_HEADERS, 1, block(&[(":method", "CONNECT"), (":protocol", "a b"), S, P, A]))]
        => Answer(1, 400);
    rfc8441_s4_an_end_of_line_in_the_protocol_is_malformed:
        [frame(HEADERS, END_HEADERS, 1,
            block(&[(":method", "CONNECT"), (":protocol", "a\r\nx: y"), S, P, A]))] => Answer(1, 400);

    // A malformed request is nothing to the others (§8.1.1).
    s8_1_1_the_next_request_is_served: [also(&[("connection", "close")])] => REFUSED;
    s8_1_1_what_is_malformed_has_a_body_still:
        [frame(HEADERS, END_HEADERS, 1, with("POST", &[("upgrade", "x")])), data(1, END_STREAM, b"x")]
        => REFUSED;
}

/// §8.1.1: nothing malformed is passed on.
#[tokio::test]
async fn s8_1_1_a_malformed_request_never_reaches_an_endpoint() {
    let (world, recorder) = world(Limits::default()).await;
    for frames in [
        also(&[("transfer-encoding", "chunked")]),
        also(&[("te", "gzip")]),
        named(b"x-a", b" 1"),
        whole(&[M, S, (":path", "x"), A]),
        long("1", &[]),
        whole(&[M, M, S, P, A]),
    ] {
        let mut peer = Peer::new(&world, &[]).await;
        peer.send(&frames).await;
        let _ = peer.until(1, &[HEADERS, RST_STREAM]).await;
    }
    assert!(recorder.take().0.is_empty());
}

/// §8.2.3: crumbs become one line.
#[tokio::test]
async fn s8_2_3_crumbs_of_cookies_are_one_line_again() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&also(&[
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("cookie", "c=3"),
    ]))
    .await;
    let body = peer.until(1, &[DATA]).await.expect("a frame");
    let body = String::from_utf8(body.payload).expect("text");
    assert!(body.contains("\r\ncookie: a=1; b=2; c=3\r\n"), "{body}");
}

/// §8.1: an early answer is whole, and the rest of the request is not wanted: RST_STREAM(NO_ERROR).
#[tokio::test]
async fn s8_1_an_early_answer_ends_the_request() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    let elsewhere = block(&[(":method", "POST"), S, P, (":authority", "b.example")]);
    peer.send(&frame(HEADERS, END_HEADERS, 1, elsewhere)).await;
    let head = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((head.kind, status(&head.payload)), (HEADERS, 404));
    let reset = peer.until(1, &[RST_STREAM]).await.expect("a frame");
    assert_eq!(word(&reset.payload), NO_ERROR);
    assert!(peer.is_alive(3).await);
}

/// §8.6: 101 has no place here; an endpoint that switches unasked gets nobody to.
#[tokio::test]
async fn s8_6_switching_protocols_is_never_said() {
    let world = World::new().await;
    let switches = "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let spot = Spot::new("rogue", Manner::Raw(switches, false)).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&get(1)).await;
    let head = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((head.kind, status(&head.payload)), (HEADERS, 502));
}

/// §10.5.1: a list of fields longer than we said is refused, and is nothing to others.
#[tokio::test]
async fn s10_5_1_fields_longer_than_allowed_are_refused() {
    let (world, recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    let long = "x".repeat(10_000);
    let fields: Vec<_> = (0..4).map(|_| ("x-a", &*long)).collect();
    let block = with("GET", &fields);
    let mut pieces = block.chunks(16_000);
    let first = pieces.next().expect("a piece");
    peer.send(&frame(HEADERS, END_STREAM, 1, first)).await;
    for piece in pieces {
        peer.send(&frame(CONTINUATION, 0, 1, piece)).await;
    }
    peer.send(&frame(CONTINUATION, END_HEADERS, 1, [])).await;
    let head = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((head.kind, status(&head.payload)), (HEADERS, 431));
    assert!(recorder.take().0.is_empty());
    assert!(peer.is_alive(3).await);
}

/// RFC 9110 §10.1.1: who waits for a word before it sends its body hears it.
#[tokio::test]
async fn s8_1_an_expectation_is_answered() {
    let (world, _recorder) = world(Limits::default()).await;
    let mut peer = Peer::new(&world, &[]).await;
    let expects = with("POST", &[("expect", "100-continue")]);
    peer.send(&frame(HEADERS, END_HEADERS, 1, expects)).await;
    let word = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((word.kind, status(&word.payload)), (HEADERS, 100));
    peer.send(&data(1, END_STREAM, b"hello")).await;
    let head = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((head.kind, status(&head.payload)), (HEADERS, 200));
}
