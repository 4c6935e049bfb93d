//! HTTP/2: the proxy's machine, whose files are read here as they are, as those of
//! [`crate::http1`].

use base::Instant;
use bytes::Bytes;
use http::StatusCode;
use l7::{Fields, Limits};

#[path = "../../crates/proxy/src/http2/connection.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod connection;
#[path = "../../crates/proxy/src/http2/frame.rs"]
mod frame;
#[path = "../../crates/proxy/src/http2/serving.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod serving;
#[path = "../../crates/proxy/src/http2/streams.rs"]
mod streams;
#[path = "../../crates/proxy/src/http2/thrift.rs"]
mod thrift;

use std::task::{Context, Waker};

use connection::Connection;
use frame::Code;

use crate::message::Head;

const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// What may wait to be written when nobody has answered anything: for each octet that came, no more
/// than that each frame is answered with the longest that is not asked for.
const MOST: usize = 8;

pub(crate) fn limits() -> Limits {
    Limits {
        header_bytes: 256,
        header_count: 8,
        concurrent_streams: 4,
        ..Limits::default()
    }
}

/// What is said to frames that come in these pieces, and the machine behind them.
fn said<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Connection, Vec<u8>) {
    let mut connection = Connection::new(&limits(), Instant::ZERO);
    assert!(connection.receive(BEGIN, || Instant::ZERO));
    for piece in pieces {
        assert!(connection.receive(piece, || Instant::ZERO));
    }
    let out = connection.out().to_vec();
    connection.written(out.len());
    (connection, out)
}

/// Are these whole frames, none longer than 16 KiB?
fn are_frames(mut octets: &[u8]) -> bool {
    while let Some((head, rest)) = octets.split_first_chunk::<9>() {
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let Some((_, rest)) = rest.split_at_checked(length).filter(|_| length <= 1 << 14) else {
            return false;
        };
        octets = rest;
    }
    octets.is_empty()
}

/// Can it be written as a head of HTTP/1.1 that says the same?
pub(crate) fn plain(head: &Head) {
    let graphic = |text: &str| text.bytes().all(|octet| octet.is_ascii_graphic());
    assert!(graphic(head.method.as_str()) && graphic(&head.target) && graphic(&head.authority));
    assert!(head.fields.len() <= limits().header_count + 1);
    for (name, value) in head.fields.iter() {
        assert!(!name.is_empty() && name.iter().all(|octet| octet.is_ascii_graphic()));
        assert!(!name.contains(&b':') && !name.iter().any(u8::is_ascii_uppercase));
        assert!(!value.iter().any(|octet| matches!(octet, b'\r' | b'\n' | 0)));
    }
}

/// Frames in one piece, octet by octet, and cut at one place: the same each time; then each request
/// is answered, and nothing stays.
pub(crate) fn frames(octets: &[u8]) {
    let Some((cut, octets)) = octets.split_first() else {
        return;
    };
    let (mut connection, out) = said(std::iter::once(octets));
    let (one, two) = octets.split_at(usize::from(*cut).min(octets.len()));
    for (other, same) in [said(octets.chunks(1)), said([one, two].into_iter())] {
        assert_eq!(out, same);
        assert_eq!(connection.ended(), other.ended());
        assert_eq!(connection.is_at_rest(), other.is_at_rest());
    }
    assert!(are_frames(&out));
    assert!(
        out.len() <= 200 + MOST * octets.len(),
        "{} octets",
        out.len()
    );
    let cx = Context::from_waker(Waker::noop());
    while let Some(opened) = connection.next() {
        let place = opened.place;
        plain(&opened.head);
        let _ = connection.poll_piece(place, &cx);
        if opened.head.protocol.is_some() {
            connection.reset(place, Code::InternalError);
        }
        if connection
            .head(place, StatusCode::OK, &Fields::default(), false)
            .is_ok()
        {
            let (mut body, mut end) = (Bytes::from_static(&[7; 40_000]), Some(None));
            let _ = connection.poll_send(place, &mut body, &mut end, &cx);
        }
        assert!(are_frames(connection.out()));
        connection.release(place);
    }
    assert!(connection.is_at_rest());
    connection.end(Code::NoError);
}
