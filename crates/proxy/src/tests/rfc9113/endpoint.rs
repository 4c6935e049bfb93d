//! The other side: an endpoint that speaks HTTP/2 and breaks the rules. Its client gets 502 or a
//! broken answer, never a wrong one; a broken connection is dropped, and the next request goes on
//! a fresh one.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use balance::Health::Healthy;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::wire::*;
use crate::tests::world::{PATIENCE, World, message};

/// What it says once a request has come on stream 1 of a connection; before that it said `first`.
#[derive(Clone)]
struct Script {
    first: Vec<u8>,
    then: Vec<u8>,
    /// Close behind that.
    closes: bool,
}

/// Every second connection is good: 200 with `good`.
async fn endpoint(script: Script) -> (SocketAddr, Arc<AtomicUsize>, runtime::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let opened = Arc::new(AtomicUsize::new(0));
    let tasks = runtime::Tasks::new("endpoint");
    let (inner, count) = (tasks.clone(), Arc::clone(&opened));
    tasks.spawn("accept", async move {
        while let Ok((stream, _)) = listener.accept().await {
            let bad = count.fetch_add(1, Relaxed) == 0;
            let script = script.clone();
            inner.spawn("connection", async move {
                if bad {
                    play(Peer::of(stream), script).await;
                } else {
                    serve(Peer::of(stream)).await;
                }
            });
        }
    });
    (address, opened, tasks)
}

async fn play(mut peer: Peer, script: Script) {
    preface(&mut peer).await;
    peer.send(&script.first).await;
    while let Some(frame) = peer.next().await {
        if frame.kind != HEADERS {
            continue;
        }
        if frame.stream > 1 {
            peer.send(&answer(frame.stream, &[], b"good")).await;
            continue;
        }
        peer.send(&script.then).await;
        if script.closes {
            return;
        }
    }
}

async fn preface(peer: &mut Peer) {
    let mut octets = [0; 24];
    peer.stream
        .read_exact(&mut octets)
        .await
        .expect("a preface");
    assert_eq!(octets, PREFACE);
}

async fn serve(mut peer: Peer) {
    preface(&mut peer).await;
    peer.send(&[settings(&[]), frame(SETTINGS, ACK, 0, [])].concat())
        .await;
    while let Some(frame) = peer.next().await {
        if frame.kind == HEADERS {
            peer.send(&answer(frame.stream, &[], b"good")).await;
        }
    }
}

fn head(fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, block(fields))
}

fn answer(stream: u32, more: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let fields = [&[(":status", "200")][..], more].concat();
    [
        frame(HEADERS, END_HEADERS, stream, block(&fields)),
        data(stream, END_STREAM, body),
    ]
    .concat()
}

/// The answer that is none in between.
async fn ask(world: &World, method: &str) -> String {
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let request = format!("{method} / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let mut buf = Vec::new();
    loop {
        let answer = timeout(PATIENCE, message(&mut stream, &mut buf)).await;
        let answer = answer.expect("in time").unwrap_or_default();
        if !answer.starts_with("HTTP/1.1 1") {
            return answer;
        }
    }
}

/// What a client gets that asks while the endpoint does this, and what the next one gets.
async fn asked(script: Script, method: &str) -> (String, String) {
    let world = World::new().await;
    world.speak_http2();
    let (address, _, _tasks) = endpoint(script).await;
    world.endpoints(&[(address, Healthy)]);
    let first = ask(&world, method).await;
    (first, ask(&world, "GET").await)
}

/// An endpoint that begins well and then says this.
fn says(then: impl Into<Vec<u8>>) -> Script {
    Script {
        first: settings(&[]),
        then: then.into(),
        closes: false,
    }
}

/// The first is refused, and the second is served.
async fn refused(script: Script) {
    // Nothing that may be repeated, so that the first answer is the client's.
    let (first, second) = asked(script, "POST").await;
    assert!(first.starts_with("HTTP/1.1 502 "), "{first}");
    assert!(
        second.starts_with("HTTP/1.1 200 ") && second.contains("good"),
        "{second}"
    );
}

/// The first is broken off, and the second is served.
async fn broken(script: Script) {
    let (first, second) = asked(script, "POST").await;
    let whole = first.ends_with("\r\n0\r\n\r\n");
    assert!(!first.starts_with("HTTP/1.1 200 ") || !whole, "{first}");
    assert!(
        second.starts_with("HTTP/1.1 200 ") && second.contains("good"),
        "{second}"
    );
}

/// Rows of `name: script => function`.
macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident: $script:expr => $what:ident;)*) => {
        $(
            $(#[$doc])*
            #[tokio::test]
            async fn $name() {
                $what($script).await;
            }
        )*
    };
}

const OK: (&str, &str) = (":status", "200");

fn good_head() -> Vec<u8> {
    head(&[OK])
}

/// A head with this, and a whole body.
fn with_field(name: &str, value: &str) -> Script {
    says(answer(1, &[(name, value)], b"bad"))
}

fn sized(length: &str, pieces: &[&[u8]]) -> Script {
    let mut all = head(&[OK, ("content-length", length)]);
    for (at, piece) in pieces.iter().enumerate() {
        let last = if at + 1 == pieces.len() {
            END_STREAM
        } else {
            0
        };
        all.extend(data(1, last, piece));
    }
    says(all)
}

endpoints! {
    s3_4_an_endpoint_that_closes_at_once: Script { first: Vec::new(), then: Vec::new(), closes: true } => refused;
    s3_4_an_endpoint_that_speaks_something_else:
        Script { first: b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), then: Vec::new(), closes: true } => refused;
    s4_1_an_unknown_frame_is_ignored: says([frame(0xBB, 0, 1, *b"what?"), answer(1, &[], b"good")].concat()) => served;
    s4_2_a_frame_that_is_too_long: says([good_head(), data(1, 0, &[b'x'; (1 << 14) + 1])].concat()) => broken;
    s4_3_a_block_that_cannot_be_decoded: says(frame(HEADERS, WHOLE, 1, [0x80])) => refused;
    s4_3_something_within_a_block:
        says([frame(HEADERS, 0, 1, block(&[OK])), frame(PING, 0, 0, [0; 8])].concat()) => refused;
    s5_1_data_before_a_head: says(data(1, END_STREAM, b"bad")) => refused;
    s5_1_an_answer_on_a_stream_that_nobody_opened: says(answer(7, &[], b"bad")) => refused;
    s5_1_an_answer_on_an_even_stream: says(answer(2, &[], b"bad")) => refused;
    s5_1_an_answer_on_stream_0: says(frame(HEADERS, WHOLE, 0, block(&[OK]))) => refused;
    s5_1_more_behind_the_end: says([answer(1, &[], b"good"), data(1, 0, b"SMUGGLED")].concat()) => clean;
    s5_1_a_second_answer_behind_the_end:
        says([answer(1, &[], b"good"), answer(1, &[], b"SMUGGLED")].concat()) => clean;
    s5_1_an_answer_to_what_nobody_has_asked_yet:
        says([answer(1, &[], b"good"), answer(3, &[], b"SMUGGLED")].concat()) => clean;
    s6_4_a_reset: says(reset(1, PROTOCOL_ERROR)) => refused_only;
    s6_4_a_reset_in_the_middle: says([good_head(), data(1, 0, b"x"), reset(1, CANCEL)].concat()) => broken_only;
    s6_4_a_reset_of_stream_0: says(reset(0, CANCEL)) => refused;
    s6_5_settings_of_another_length: says(frame(SETTINGS, 0, 0, [0; 5])) => refused;
    s6_5_2_a_window_above_2_31: says(settings(&[(INITIAL_WINDOW_SIZE, 1 << 31)])) => refused;
    s6_5_2_max_frame_size_of_0: says(settings(&[(MAX_FRAME_SIZE, 0)])) => refused;
    s6_5_2_a_server_does_not_enable_push: says(settings(&[(ENABLE_PUSH, 2)])) => refused;
    s6_6_a_push_is_refused:
        says(frame(PUSH_PROMISE, END_HEADERS, 1, [&[0, 0, 0, 2][..], &with("GET", &[])].concat())) => refused;
    s6_7_a_ping_of_another_length: says(frame(PING, 0, 0, [0; 7])) => refused;
    s6_8_a_goaway_before_the_request: says(goaway(0, NO_ERROR)) => served;
    s6_8_a_goaway_behind_the_request: says([goaway(1, NO_ERROR), answer(1, &[], b"good")].concat()) => served;
    s6_8_a_goaway_with_an_error_and_the_end: Script {
        first: settings(&[]), then: goaway(0x7FFF_FFFF, ENHANCE_YOUR_CALM), closes: true } => refused;
    s6_9_an_increment_of_0: says(window_update(0, 0)) => refused;
    s6_9_1_a_window_that_overflows: says(window_update(0, (1 << 31) - 1)) => refused;
    s6_10_a_continuation_of_nothing: says(frame(CONTINUATION, END_HEADERS, 1, block(&[OK]))) => refused;
    s8_1_no_head_but_the_end: says(data(1, END_STREAM, b"")) => refused;
    // §8.1 has them malformed; `h2` drops them, and nobody sees them.
    s8_1_trailers_with_a_status: says([good_head(), data(1, 0, b"good"),
        frame(HEADERS, WHOLE, 1, block(&[OK]))].concat()) => served;
    s8_1_two_heads: says([good_head(), good_head()].concat()) => broken_only;
    s8_1_an_interim_answer_that_ends_the_stream:
        says(frame(HEADERS, WHOLE, 1, block(&[(":status", "103")]))) => refused_only;
    s8_1_1_shorter_than_it_says: sized("5", &[b"bad"]) => broken_only;
    s8_1_1_longer_than_it_says: sized("2", &[b"bad"]) => broken_only;
    s8_1_1_in_pieces_longer_than_it_says: sized("4", &[b"ba", b"dly"]) => broken_only;
    s8_1_1_no_number: sized("x", &[b"bad"]) => refused_only;
    s8_1_1_a_sign: sized("+3", &[b"bad"]) => refused_only;
    s8_1_1_two_lengths: says([head(&[OK, ("content-length", "3"), ("content-length", "4")]),
        data(1, END_STREAM, b"bad")].concat()) => refused_only;
    s8_2_a_name_in_capitals: with_field("X-A", "1") => refused;
    s8_2_1_an_end_of_line_in_a_value: with_field("x-a", "1\r\nset-cookie: b") => refused;
    s8_2_1_an_end_of_line_in_a_name: with_field("x-a: 1\r\nb", "1") => refused;
    s8_2_1_a_nul_in_a_value: with_field("x-a", "a\0b") => refused;
    s8_2_1_a_colon_in_a_name: with_field("transfer-encoding:", "chunked") => refused;
    s8_2_1_a_quote_in_a_name: with_field("x\"a", "1") => refused_only;
    s8_2_1_a_space_before_a_value: with_field("x-a", " 1") => refused_only;
    s8_2_2_connection: with_field("connection", "x-a") => refused_only;
    s8_2_2_transfer_encoding: with_field("transfer-encoding", "chunked") => refused_only;
    s8_2_2_upgrade: with_field("upgrade", "websocket") => refused_only;
    s8_2_2_keep_alive: with_field("keep-alive", "timeout=9") => refused_only;
    s8_3_a_requests_method_is_dropped:
        says([head(&[OK, (":method", "GET")]), data(1, END_STREAM, b"good")].concat()) => served;
    s8_3_an_unknown_one: with_field(":other", "x") => refused;
    s8_3_2_no_status: says(head(&[("x-a", "1")])) => refused_only;
    s8_3_2_two_statuses: says(head(&[OK, OK])) => refused_only;
    s8_3_2_a_status_behind_a_field: says(head(&[("x-a", "1"), OK])) => refused_only;
    s8_3_2_a_status_of_two_digits: says(head(&[(":status", "20")])) => refused;
    s8_3_2_a_status_of_four_digits: says(head(&[(":status", "2000")])) => refused;
    s8_3_2_a_status_of_words: says(head(&[(":status", "abc")])) => refused;
    s8_6_switching_protocols: says([head(&[(":status", "101")]), data(1, 0, b"SMUGGLED")].concat()) => refused;
    s10_5_a_flood_of_continuations: says([frame(HEADERS, 0, 1, block(&[OK])),
        frame(CONTINUATION, 0, 1, block(&[("x-a", "y".repeat(8000))])).repeat(400)].concat()) => refused;
    s10_5_a_head_that_is_too_long: says([frame(HEADERS, 0, 1, block(&[OK])),
        frame(CONTINUATION, 0, 1, block(&[("x-a", "y".repeat(15_000))])).repeat(4),
        frame(CONTINUATION, END_HEADERS, 1, block(&[("x-a", "y".repeat(9000))]))].concat()) => refused_only;
    s10_5_a_flood_of_interim_answers: says(head(&[(":status", "103"), ("link", "</a>")]).repeat(5_000)) => refused_only;
}

/// Whatever it said, the answer is good.
async fn served(script: Script) {
    let (first, second) = asked(script, "GET").await;
    for said in [first, second] {
        assert!(
            said.starts_with("HTTP/1.1 200 ") && said.contains("good"),
            "{said}"
        );
    }
}

/// Whatever it said behind the answer, nobody gets that.
async fn clean(script: Script) {
    let (first, second) = asked(script, "POST").await;
    for said in [first, second] {
        assert!(
            said.starts_with("HTTP/1.1 200 ") && said.contains("good"),
            "{said}"
        );
        assert!(!said.contains("SMUGGLED"), "{said}");
    }
}

/// The connection lives on, and the endpoint says nothing on it any more.
async fn refused_only(script: Script) {
    let world = World::new().await;
    world.speak_http2();
    let (address, _, _tasks) = endpoint(script).await;
    world.endpoints(&[(address, Healthy)]);
    let first = ask(&world, "POST").await;
    assert!(first.starts_with("HTTP/1.1 502 "), "{first}");
}

async fn broken_only(script: Script) {
    let world = World::new().await;
    world.speak_http2();
    let (address, _, _tasks) = endpoint(script).await;
    world.endpoints(&[(address, Healthy)]);
    let first = ask(&world, "POST").await;
    let whole = first.ends_with("\r\n0\r\n\r\n");
    assert!(!first.starts_with("HTTP/1.1 200 ") || !whole, "{first}");
}

/// §5.4.2: what is wrong with one stream is nothing to the others of its connection.
#[tokio::test]
async fn s5_4_2_other_streams_go_on() {
    let world = World::new().await;
    world.speak_http2();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    world.endpoints(&[(listener.local_addr().expect("an address"), Healthy)]);
    let (begun, begins) = tokio::sync::oneshot::channel();
    let endpoint = async {
        let (stream, _) = listener.accept().await.expect("accepted");
        let mut peer = Peer::of(stream);
        preface(&mut peer).await;
        peer.send(&settings(&[])).await;
        let first = peer.until(1, &[HEADERS]).await;
        assert!(first.is_some() && begun.send(()).is_ok());
        let second = peer.until(3, &[HEADERS]).await;
        assert!(second.is_some());
        peer.send(&frame(
            HEADERS,
            END_HEADERS,
            1,
            block(&[OK, ("connection", "close")]),
        ))
        .await;
        peer.send(&answer(3, &[], b"good")).await;
        // Both stay until they have seen it.
        while peer.next().await.is_some() {}
    };
    let clients = async {
        let mut peer = Peer::new(&world, &[]).await;
        peer.send(&[post(1), data(1, END_STREAM, b"x")].concat())
            .await;
        // The second goes on the same connection once that is there.
        begins.await.expect("a request");
        peer.send(&[post(3), data(3, END_STREAM, b"y")].concat())
            .await;
        // In either order.
        let mut answers = std::collections::BTreeMap::new();
        while answers.len() < 2 {
            let frame = peer.next().await.expect("a frame");
            assert_ne!(frame.kind, RST_STREAM);
            if frame.kind == HEADERS {
                answers.insert(frame.stream, status(&frame.payload));
            }
        }
        assert_eq!(
            answers.into_iter().collect::<Vec<_>>(),
            [(1, 502), (3, 200)]
        );
    };
    tokio::select! {
        () = endpoint => panic!("the endpoint ended first"),
        () = clients => {}
    }
}

/// RFC 9110 §15.2: interim answers are passed on, before the answer.
#[tokio::test]
async fn s8_1_an_interim_answer_is_passed_on() {
    let interim = head(&[(":status", "103"), ("link", "</a>")]);
    let script = says([interim, answer(1, &[], b"good")].concat());
    let world = World::new().await;
    world.speak_http2();
    let (address, _, _tasks) = endpoint(script).await;
    world.endpoints(&[(address, Healthy)]);
    let mut peer = Peer::new(&world, &[]).await;
    peer.send(&get(1)).await;
    let first = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((first.kind, status(&first.payload)), (HEADERS, 103));
    let second = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((second.kind, status(&second.payload)), (HEADERS, 200));
}
