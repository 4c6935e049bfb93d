//! Octets in any pieces, and what comes of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use base::Instant;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use l7::{Fields, Limits};

use super::{Code, Connection, Gone};
use crate::{hpack::Decoder, http1::Piece};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

#[derive(Debug, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let head = [length[1], length[2], length[3], kind, flags];
    [&head[..], &stream.to_be_bytes(), payload].concat()
}

fn frames(mut octets: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((head, rest)) = octets.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (payload, rest) = rest.split_at(length);
        frames.push(Frame {
            kind: head[3],
            flags: head[4],
            stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
            payload: payload.to_vec(),
        });
        octets = rest;
    }
    frames
}

/// `GET / HTTP/2` or `POST`, for `a.example`.
fn request(stream: u32, method: u8, flags: u8) -> Vec<u8> {
    let mut block = vec![0x80 | method, 0x86, 0x84, 0x01, 9];
    block.extend(b"a.example");
    frame(HEADERS, flags | END_HEADERS, stream, &block)
}

fn get(stream: u32) -> Vec<u8> {
    request(stream, 2, END_STREAM)
}

fn post(stream: u32) -> Vec<u8> {
    request(stream, 3, 0)
}

fn update(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

/// A connection that has begun, and whose preface was written.
fn begun() -> Connection {
    let mut connection = Connection::new(&Limits::default(), Instant::ZERO);
    assert!(feed(
        &mut connection,
        &[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
    ));
    assert!(connection.has_begun());
    let said = take(&mut connection);
    assert_eq!(said[0].kind, SETTINGS);
    connection
}

fn feed(connection: &mut Connection, octets: &[u8]) -> bool {
    connection.receive(octets, || Instant::ZERO)
}

/// What is to go out, as frames.
fn take(connection: &mut Connection) -> Vec<Frame> {
    let out = connection.out().to_vec();
    connection.written(out.len());
    frames(&out)
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn counted() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (Arc::clone(&count), Waker::from(count))
}

fn send(connection: &mut Connection, place: usize, pending: &mut Bytes) -> Poll<Result<(), Gone>> {
    let mut end = Some(None);
    connection.poll_send(
        place,
        pending,
        &mut end,
        &Context::from_waker(Waker::noop()),
    )
}

#[test]
fn pieces_do_not_matter() {
    let body = frame(DATA, 0, 3, &[7; 3000]);
    let bad = frame(PING, 0, 0, &[0; 7]);
    let octets = [
        PREFACE,
        &frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        &get(1),
        &post(3),
        &body,
        &frame(0xbb, 0, 3, &[1; 70]),
        &frame(DATA, END_STREAM, 3, b"x"),
        &frame(PING, 0, 0, &[9; 8]),
        &get(5),
        &bad,
        &get(7),
    ]
    .concat();
    let came = |step: usize| {
        let mut connection = Connection::new(&Limits::default(), Instant::ZERO);
        for piece in octets.chunks(step) {
            assert!(feed(&mut connection, piece));
        }
        let ended = connection.ended();
        (take(&mut connection), ended)
    };
    let (said, ended) = came(octets.len());
    assert_eq!(ended, Some(Code::FrameSizeError));
    let last = said.last().expect("a frame");
    assert_eq!((last.kind, &last.payload[..4]), (GOAWAY, &[0, 0, 0, 5][..]));
    for step in 1..200 {
        assert_eq!(came(step), came(octets.len()), "by {step}");
    }
}

#[test]
fn what_is_no_preface() {
    for begin in [&b"GET / HTTP/1.1\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSX"] {
        let mut connection = Connection::new(&Limits::default(), Instant::ZERO);
        assert!(!feed(&mut connection, begin), "{begin:?}");
    }
}

/// Windows are opened when half of them was taken, and what is not taken bounds what comes.
#[test]
fn a_body_fills_its_window_and_no_more() {
    let mut connection = begun();
    feed(&mut connection, &post(1));
    let opened = connection.next().expect("a request");
    let piece = frame(DATA, 0, 1, &[7; 1 << 14]);
    for _ in 0..16 {
        feed(&mut connection, &piece);
    }
    assert_eq!(take(&mut connection), []);
    let cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Ok(Piece::Data(body))) = connection.poll_piece(opened.place, &cx) else {
        panic!("there is a body");
    };
    assert_eq!(body.len(), 256 << 10);
    let said = take(&mut connection);
    let window = (256u32 << 10).to_be_bytes().to_vec();
    assert_eq!(said.len(), 1);
    assert_eq!(
        (said[0].kind, said[0].stream, &said[0].payload),
        (WINDOW_UPDATE, 1, &window)
    );
    for _ in 0..17 {
        feed(&mut connection, &piece);
    }
    let said = take(&mut connection);
    let reset = said.iter().find(|frame| frame.kind == RST_STREAM);
    assert_eq!(reset.expect("refused").payload, [0, 0, 0, 3]);
    assert_eq!(connection.ended(), None);
    let gone = Gone::Ours(Code::FlowControlError);
    assert_eq!(
        connection.poll_piece(opened.place, &cx),
        Poll::Ready(Err(gone))
    );
}

/// All that streams hold together is bounded as well; what a reset throws away is given back.
#[test]
fn what_nobody_takes_is_given_back() {
    let mut connection = begun();
    let piece = frame(DATA, 0, 1, &[7; 1 << 14]);
    for turn in 0..20u32 {
        let id = 1 + 2 * turn;
        let mut piece = piece.clone();
        piece[5..9].copy_from_slice(&id.to_be_bytes());
        feed(&mut connection, &post(id));
        let opened = connection.next().expect("a request");
        for _ in 0..16 {
            feed(&mut connection, &piece);
        }
        connection.release(opened.place);
        let said = take(&mut connection);
        let cancelled = said.iter().any(|frame| frame.kind == RST_STREAM);
        assert!(cancelled, "nobody serves it");
        // Some of it is still on its way.
        feed(&mut connection, &piece);
        assert_eq!(connection.ended(), None, "{turn}");
    }
    assert!(connection.is_at_rest());
}

#[test]
fn streams_take_turns() {
    let mut connection = begun();
    feed(&mut connection, &update(0, 1 << 20));
    feed(&mut connection, &[get(1), get(3)].concat());
    let places = [0, 1].map(|_| connection.next().expect("a request").place);
    let mut bodies = [0, 1].map(|_| Bytes::from(vec![7; 60_000]));
    for place in places {
        let head = connection.head(place, StatusCode::OK, &Fields::default(), false);
        assert_eq!(head, Ok(()));
    }
    let mut order = Vec::new();
    for _ in 0..10 {
        for (place, body) in places.iter().zip(&mut bodies) {
            if !body.is_empty() {
                let _ = send(&mut connection, *place, body);
            }
        }
        let said = take(&mut connection);
        order.extend(said.iter().filter(|f| f.kind == DATA).map(|f| f.stream));
    }
    assert!(bodies.iter().all(Bytes::is_empty));
    assert_eq!(order.len(), 8);
    // Neither waits for the other to end.
    let first = order.iter().position(|stream| *stream == 3).expect("sent");
    assert!(first < 6, "{order:?}");
}

/// A client that takes less than there is: what it was sent is not kept, and streams that share its
/// line get equal parts, however many they are.
#[test]
fn a_client_that_is_always_behind() {
    const STREAMS: usize = 7;
    let window = frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0, 0]);
    let mut connection = begun();
    feed(&mut connection, &[window, update(0, 1 << 30)].concat());
    for nth in 0..7 {
        feed(&mut connection, &get(1 + 2 * nth));
    }
    let places: Vec<usize> = (0..STREAMS)
        .map(|_| connection.next().expect("a request").place)
        .collect();
    let wakers: Vec<_> = (0..STREAMS).map(|_| counted()).collect();
    for place in &places {
        let head = connection.head(*place, StatusCode::OK, &Fields::default(), false);
        assert_eq!(head, Ok(()));
    }
    // As futures are polled: those that were woken, in the order in which they were.
    let mut said = Vec::new();
    let mut bodies = vec![Bytes::new(); STREAMS];
    let mut ready: std::collections::VecDeque<usize> = (0..STREAMS).collect();
    for _ in 0..400 {
        while let Some(nth) = ready.pop_front() {
            let (count, waker) = &wakers[nth];
            count.0.store(0, Ordering::Relaxed);
            loop {
                if bodies[nth].is_empty() {
                    // Each has pieces as long as a frame, without end.
                    bodies[nth] = Bytes::from(vec![7; 1 << 14]);
                }
                let cx = Context::from_waker(waker);
                let place = places[nth];
                if connection
                    .poll_send(place, &mut bodies[nth], &mut None, &cx)
                    .is_pending()
                {
                    break;
                }
            }
        }
        let some = connection.out().len() * 2 / 3;
        assert!(connection.out().len() <= 200 << 10, "it grows");
        said.extend_from_slice(&connection.out()[..some]);
        connection.written(some);
        assert!(connection.kept() <= 300 << 10, "what was sent is kept");
        let woken = |nth: &usize| wakers[*nth].0.0.load(Ordering::Relaxed) > 0;
        ready.extend((0..STREAMS).filter(woken));
    }
    said.extend_from_slice(connection.out());
    let mut sent = [0; STREAMS];
    for frame in frames(&said).iter().filter(|frame| frame.kind == DATA) {
        sent[(frame.stream as usize - 1) / 2] += frame.payload.len();
    }
    let (least, most) = (sent.iter().min(), sent.iter().max());
    assert!(
        least.expect("seven") * 2 > *most.expect("seven"),
        "{sent:?}"
    );
}

/// Streams that nobody reads hold a part of the connection's window; what is left goes round.
#[test]
fn what_nobody_reads_does_not_stop_the_others() {
    let mut connection = begun();
    let piece = |id: u32| frame(DATA, 0, id, &[7; 1 << 14]);
    for id in [1, 3, 5] {
        feed(&mut connection, &post(id));
        connection.next().expect("a request");
        for _ in 0..16 {
            feed(&mut connection, &piece(id));
        }
    }
    feed(&mut connection, &post(7));
    let place = connection.next().expect("a request").place;
    let cx = Context::from_waker(Waker::noop());
    // 256 KiB are left, of which all were taken: there have to be more.
    for _ in 0..16 {
        feed(&mut connection, &piece(7));
        assert!(connection.poll_piece(place, &cx).is_ready());
    }
    let said = take(&mut connection);
    assert!(
        said.iter()
            .any(|frame| (frame.kind, frame.stream) == (WINDOW_UPDATE, 0))
    );
    feed(&mut connection, &piece(7));
    assert_eq!(connection.ended(), None);
}

#[test]
fn who_waits_for_room_is_woken() {
    let mut connection = begun();
    feed(&mut connection, &[get(1), get(3)].concat());
    let places = [0, 1].map(|_| connection.next().expect("a request").place);
    let mut body = Bytes::from(vec![7; 70_000]);
    for place in places {
        let head = connection.head(place, StatusCode::OK, &Fields::default(), false);
        assert_eq!(head, Ok(()));
    }
    let (count, waker) = counted();
    let cx = Context::from_waker(&waker);
    let mut end = Some(None);
    // The window of the connection is 65,535.
    let sent = connection.poll_send(places[0], &mut body, &mut end, &cx);
    assert!(sent.is_pending());
    let _ = take(&mut connection);
    assert_eq!((body.len(), count.0.load(Ordering::Relaxed)), (4465, 0));
    feed(&mut connection, &update(1, 10_000));
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(
        connection
            .poll_send(places[0], &mut body, &mut end, &cx)
            .is_pending()
    );
    feed(&mut connection, &update(0, 10_000));
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
    let sent = connection.poll_send(places[0], &mut body, &mut end, &cx);
    assert_eq!(sent, Poll::Ready(Ok(())));
    let said = take(&mut connection);
    assert_eq!(said.last().expect("a frame").flags, END_STREAM);
}

#[test]
fn an_answer_longer_than_a_frame() {
    let mut connection = begun();
    feed(&mut connection, &get(1));
    let place = connection.next().expect("a request").place;
    let mut fields = Fields::default();
    let long = vec![b'v'; 40_000];
    fields.push(b"x-long", &long);
    fields.push(b"connection", b"close");
    assert_eq!(
        connection.head(place, StatusCode::OK, &fields, true),
        Ok(())
    );
    let said = take(&mut connection);
    let kinds: Vec<_> = said.iter().map(|frame| (frame.kind, frame.flags)).collect();
    let expected = [
        (HEADERS, END_STREAM),
        (CONTINUATION, 0),
        (CONTINUATION, END_HEADERS),
    ];
    assert_eq!(kinds, expected);
    let block: Vec<u8> = said.into_iter().flat_map(|frame| frame.payload).collect();
    let mut found = Vec::new();
    let take = |name: &[u8], value: &[u8]| found.push((name.to_vec(), value.to_vec()));
    assert_eq!(Decoder::new().decode(&block, take), Ok(()));
    let expected = [
        (b":status".to_vec(), b"200".to_vec()),
        (b"x-long".to_vec(), long),
    ];
    assert_eq!(found, expected);
    connection.release(place);
    assert!(connection.is_at_rest());
}

#[test]
fn trailers_go_behind_what_is_left() {
    let mut connection = begun();
    feed(&mut connection, &get(1));
    let place = connection.next().expect("a request").place;
    let head = connection.head(place, StatusCode::OK, &Fields::default(), false);
    assert_eq!(head, Ok(()));
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().expect("a value"));
    let (mut pending, mut end) = (Bytes::from_static(b"hello"), Some(Some(trailers)));
    let cx = Context::from_waker(Waker::noop());
    let sent = connection.poll_send(place, &mut pending, &mut end, &cx);
    assert_eq!(sent, Poll::Ready(Ok(())));
    let said = take(&mut connection);
    let kinds: Vec<_> = said.iter().map(|frame| (frame.kind, frame.flags)).collect();
    let expected = [
        (HEADERS, END_HEADERS),
        (DATA, 0),
        (HEADERS, END_HEADERS | END_STREAM),
    ];
    assert_eq!(kinds, expected);
}

/// First GOAWAY for nothing in particular, and when the client has seen that, for what came.
#[test]
fn leaving_in_order() {
    let mut connection = begun();
    feed(&mut connection, &get(1));
    connection.leave();
    let said = take(&mut connection);
    assert_eq!((said[0].kind, said[1].kind), (GOAWAY, PING));
    assert_eq!(said[0].payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    // What was on its way is served.
    feed(&mut connection, &get(3));
    feed(&mut connection, &frame(PING, 1, 0, &said[1].payload));
    let said = take(&mut connection);
    assert_eq!(said[0].payload, [0, 0, 0, 3, 0, 0, 0, 0]);
    assert!(connection.is_leaving() && !connection.is_at_rest());
    feed(&mut connection, &get(5));
    let said = take(&mut connection);
    assert_eq!(
        (said[0].kind, said[0].stream, &said[0].payload[..]),
        (RST_STREAM, 5, &[0, 0, 0, 7][..])
    );
    for _ in 0..2 {
        let place = connection.next().expect("a request").place;
        let head = connection.head(place, StatusCode::OK, &Fields::default(), true);
        assert_eq!(head, Ok(()));
        connection.release(place);
    }
    assert!(connection.is_at_rest());
}

/// CVE-2023-44487: requests that are taken back before anybody has begun with them.
#[test]
fn resets_of_what_nobody_began() {
    let mut connection = begun();
    let reset = |id| frame(RST_STREAM, 0, id, &[0, 0, 0, 8]);
    for turn in 0..21 {
        assert_eq!(connection.ended(), None);
        let id = 1 + 2 * turn;
        feed(&mut connection, &[get(id), reset(id)].concat());
    }
    assert_eq!(connection.ended(), Some(Code::EnhanceYourCalm));
    assert!(connection.next().is_none() && connection.is_at_rest());
}

/// A connection that ends takes all of its streams with it, whoever waits on them.
#[test]
fn the_end_is_told_to_all() {
    let mut connection = begun();
    feed(&mut connection, &[post(1), get(3)].concat());
    let places = [0, 1].map(|_| connection.next().expect("a request").place);
    let (count, waker) = counted();
    let cx = Context::from_waker(&waker);
    assert!(connection.poll_piece(places[0], &cx).is_pending());
    assert!(connection.poll_gone(places[1], &cx).is_pending());
    connection.end(Code::NoError);
    assert_eq!(count.0.load(Ordering::Relaxed), 2);
    for place in places {
        assert_eq!(
            connection.poll_gone(place, &cx),
            Poll::Ready(Gone::Connection)
        );
        connection.release(place);
    }
    assert!(connection.is_at_rest());
}
