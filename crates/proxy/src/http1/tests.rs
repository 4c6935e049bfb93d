//! The codec by data, above all what smuggles.

use bytes::BytesMut;
use http::{Method, StatusCode};
use l7::Limits;

use super::{BodyDecoder, BodyError, Framing, HeadError, Piece, RequestHead, head};

fn parse(raw: &str) -> Result<Option<RequestHead>, HeadError> {
    head::request(&mut BytesMut::from(raw), &mut 0, &Limits::default())
}

/// A request made of lines, `\n` standing for CRLF.
fn request(lines: &str) -> Result<RequestHead, HeadError> {
    let raw = lines.replace('\n', "\r\n");
    parse(&raw).map(|head| head.expect("a whole head"))
}

#[test]
fn good_requests() {
    for (lines, target, authority, framing, keep_alive) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "/", "a", Framing::None, true),
        (
            "\nGET / HTTP/1.1\nHost: a\n\n",
            "/",
            "a",
            Framing::None,
            true,
        ),
        (
            "GET /x?y=1 HTTP/1.1\nhost: a:80\nConnection: foo, Close\n\n",
            "/x?y=1",
            "a:80",
            Framing::None,
            false,
        ),
        ("GET / HTTP/1.0\n\n", "/", "", Framing::None, false),
        (
            "POST / HTTP/1.1\nHost: a\nContent-Length: 5\n\n",
            "/",
            "a",
            Framing::Length(5),
            true,
        ),
        (
            "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 5\n\n",
            "/",
            "a",
            Framing::Length(5),
            true,
        ),
        (
            "POST / HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
            "/",
            "a",
            Framing::None,
            true,
        ),
        (
            "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: Chunked\n\n",
            "/",
            "a",
            Framing::Chunked,
            true,
        ),
        (
            "GET http://b/c?d HTTP/1.1\nHost: a\n\n",
            "/c?d",
            "b",
            Framing::None,
            true,
        ),
        (
            "GET http://b HTTP/1.1\nHost: a\n\n",
            "/",
            "b",
            Framing::None,
            true,
        ),
        (
            "GET http://b?d HTTP/1.1\nHost: a\n\n",
            "/?d",
            "b",
            Framing::None,
            true,
        ),
        (
            "OPTIONS * HTTP/1.1\nHost: a\n\n",
            "*",
            "a",
            Framing::None,
            true,
        ),
        (
            "GET / HTTP/1.1\nHost: a\nX: \n\n",
            "/",
            "a",
            Framing::None,
            true,
        ),
    ] {
        let head = request(lines).expect(lines);
        assert_eq!(
            (
                &*head.target,
                &*head.authority,
                head.framing,
                head.keep_alive
            ),
            (target, authority, framing, keep_alive),
            "{lines}"
        );
    }
}

#[test]
fn what_two_parsers_read_in_two_ways_is_refused() {
    for lines in [
        // Framing.
        "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nTransfer-Encoding: chunked\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: 5\nContent-Length: 6\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: 5, 5\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: +5\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: -5\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: 0x5\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: 5 5\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length:\n\n",
        "POST / HTTP/1.1\nHost: a\nContent-Length: 99999999999999999999\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: gzip, chunked\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked, identity\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: xchunked\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: identity\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: \"chunked\"\n\n",
        "POST / HTTP/1.1\nHost: a\nTransfer-Encoding:\x0bchunked\n\n",
        "POST / HTTP/1.0\nHost: a\nTransfer-Encoding: chunked\n\n",
        // Names and values.
        "GET / HTTP/1.1\nHost: a\nTransfer-Encoding : chunked\n\n",
        "GET / HTTP/1.1\nHost: a\n X: folded\n\n",
        "GET / HTTP/1.1\nHost: a\nX: 1\n folded\n\n",
        "GET / HTTP/1.1\n Host: a\n\n",
        "GET / HTTP/1.1\nHost: a\nX: a\0b\n\n",
        "GET / HTTP/1.1\nHost: a\nX: a\x08b\n\n",
        "GET / HTTP/1.1\nHost: a\nX\0: b\n\n",
        "GET / HTTP/1.1\nHost: a\n: b\n\n",
        "GET / HTTP/1.1\nHost: a\nno colon\n\n",
        "GET / HTTP/1.1\nHost: a\nX(Y): b\n\n",
        "GET / HTTP/1.1\nHost: a\nX: b\rContent-Length: 5\n\n",
        // Host and target.
        "GET / HTTP/1.1\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: b\n\n",
        "GET / HTTP/1.1\nHost: a\nHost: a\n\n",
        "GET foo HTTP/1.1\nHost: a\n\n",
        "GET * HTTP/1.1\nHost: a\n\n",
        "GET ftp://b/ HTTP/1.1\nHost: a\n\n",
        "GET /a#b HTTP/1.1\nHost: a\n\n",
        "GET /\u{e4} HTTP/1.1\nHost: a\n\n",
        "GET /\x7f HTTP/1.1\nHost: a\n\n",
        // Request line.
        "GET  / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1 \nHost: a\n\n",
        "GET /a b HTTP/1.1\nHost: a\n\n",
        "GET\t/ HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/2.0\nHost: a\n\n",
        "GET / HTTP/1.2\nHost: a\n\n",
        "GET / http/1.1\nHost: a\n\n",
        "GET /\nHost: a\n\n",
        "G(T / HTTP/1.1\nHost: a\n\n",
        " GET / HTTP/1.1\nHost: a\n\n",
    ] {
        let error = request(lines).expect_err(lines);
        assert_eq!(error.status(), StatusCode::BAD_REQUEST, "{lines}");
    }
    for raw in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\n\rGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        // Nothing of it is awaited.
        "GET / HTTP/1.1\n",
        "GET / HTTP/1.1\r\nHost: a\n\n",
        "GET / HTTP/1.1\rHost: a",
    ] {
        assert!(parse(raw).is_err(), "{raw:?}");
    }
}

#[test]
fn limits_hold() {
    let limits = Limits::default();
    let long = "a".repeat(limits.request_line_bytes);
    let wide = "a".repeat(limits.header_bytes);
    let many = "X: y\r\n".repeat(limits.header_count + 1);
    for (raw, error) in [
        (format!("GET /{long}"), HeadError::LineTooLong),
        (
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            HeadError::LineTooLong,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {wide}\r\n\r\n"),
            HeadError::TooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {wide}"),
            HeadError::TooLarge,
        ),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
            HeadError::TooLarge,
        ),
    ] {
        assert_eq!(parse(&raw).expect_err("too much"), error);
    }
}

#[test]
fn the_longest_line_may_come_in_pieces() {
    let limits = Limits::default();
    for (more, fits) in [(0, true), (1, false)] {
        let path = "a".repeat(limits.request_line_bytes - "GET / HTTP/1.1\r".len() + more);
        let raw = format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(parse(&raw).is_ok(), fits);
        let mut buf = BytesMut::new();
        let mut seen = 0;
        let read = raw.bytes().find_map(|octet| {
            buf.extend_from_slice(&[octet]);
            head::request(&mut buf, &mut seen, &limits).transpose()
        });
        assert_eq!(read.expect("an end").is_ok(), fits);
    }
}

#[test]
fn heads_come_in_pieces_and_leave_the_rest() {
    let raw = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /next";
    let limits = Limits::default();
    for cut in 0..raw.len() {
        let mut buf = BytesMut::from(&raw[..cut]);
        let mut seen = 0;
        let early = head::request(&mut buf, &mut seen, &limits).expect("good");
        buf.extend_from_slice(&raw[cut..]);
        let head = match early {
            Some(head) => head,
            None => head::request(&mut buf, &mut seen, &limits)
                .expect("good")
                .expect("whole"),
        };
        assert_eq!(head.target, "/");
        assert_eq!(&buf[..], b"GET /next", "cut at {cut}");
    }
}

#[test]
fn responses() {
    let check = |lines: &str, to: Method| {
        let raw = lines.replace('\n', "\r\n");
        let mut buf = BytesMut::from(&raw[..]);
        head::response(&mut buf, &mut 0, &Limits::default(), &to)
            .map(|head| head.expect("whole"))
            .map(|head| (head.status.as_u16(), head.framing, head.keep_alive))
    };
    for (lines, to, expect) in [
        (
            "HTTP/1.1 200 OK\nContent-Length: 3\n\n",
            Method::GET,
            (200, Framing::Length(3), true),
        ),
        (
            "HTTP/1.1 200\nContent-Length: 0\n\n",
            Method::GET,
            (200, Framing::None, true),
        ),
        (
            "HTTP/1.1 200 OK\nTransfer-Encoding: chunked\n\n",
            Method::GET,
            (200, Framing::Chunked, true),
        ),
        (
            "HTTP/1.1 200 OK\n\n",
            Method::GET,
            (200, Framing::Close, false),
        ),
        (
            "HTTP/1.0 200 OK\nContent-Length: 3\n\n",
            Method::GET,
            (200, Framing::Length(3), false),
        ),
        (
            "HTTP/1.1 200 OK\nContent-Length: 3\n\n",
            Method::HEAD,
            (200, Framing::None, true),
        ),
        (
            "HTTP/1.1 204 No Content\n\n",
            Method::GET,
            (204, Framing::None, true),
        ),
        (
            "HTTP/1.1 304 Not Modified\nContent-Length: 9\n\n",
            Method::GET,
            (304, Framing::None, true),
        ),
        (
            "HTTP/1.1 100 Continue\n\n",
            Method::POST,
            (100, Framing::None, true),
        ),
    ] {
        assert_eq!(check(lines, to), Ok(expect), "{lines}");
    }
    for lines in [
        "HTTP/1.1 200 OK\nContent-Length: 3\nTransfer-Encoding: chunked\n\n",
        "HTTP/1.1 200 OK\nContent-Length: 3\nContent-Length: 4\n\n",
        "HTTP/1.1 200 OK\nTransfer-Encoding: gzip\n\n",
        "HTTP/1.1 99 OK\n\n",
        "HTTP/1.1 20 OK\n\n",
        "HTTP/2 200 OK\n\n",
        "HTTP/1.1 200 OK\nX : y\n\n",
        "HTTP/1.1 200 OK\nX: y\n z\n\n",
        "nonsense\n\n",
    ] {
        assert!(check(lines, Method::GET).is_err(), "{lines}");
    }
}

/// Decode `raw` given in pieces of every size; the body and what is left behind it.
fn body(framing: Framing, raw: &[u8]) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
    let mut results = Vec::new();
    for step in 1..=raw.len().max(1) {
        results.push(body_in_steps(framing, raw, step));
    }
    let first = results.first().cloned().expect("one step at least");
    for result in results {
        let same = matches!((&result, &first), (Err(_), Err(_))) || result == first;
        assert!(same, "pieces matter: {result:?} {first:?}");
    }
    first
}

fn body_in_steps(
    framing: Framing,
    raw: &[u8],
    step: usize,
) -> Result<(Vec<u8>, Vec<u8>), BodyError> {
    let mut decoder = BodyDecoder::new(framing);
    let mut buf = BytesMut::new();
    let mut out = Vec::new();
    let mut pieces = raw.chunks(step);
    loop {
        match decoder.decode(&mut buf)? {
            Some(Piece::Data(data)) => out.extend_from_slice(&data),
            Some(Piece::End(_)) => break,
            None => match pieces.next() {
                Some(piece) => buf.extend_from_slice(piece),
                None => {
                    decoder.eof()?;
                    break;
                }
            },
        }
    }
    buf.extend_from_slice(&pieces.collect::<Vec<_>>().concat());
    Ok((out, buf.to_vec()))
}

#[test]
fn bodies() {
    let good = |framing, raw: &str, expect: &str, rest: &str| {
        let (body, left) = body(framing, raw.as_bytes()).expect(raw);
        assert_eq!(
            (&body[..], &left[..]),
            (expect.as_bytes(), rest.as_bytes()),
            "{raw}"
        );
    };
    good(Framing::None, "GET", "", "GET");
    good(Framing::Length(3), "abcGET", "abc", "GET");
    good(Framing::Close, "abc", "abc", "");
    good(Framing::Chunked, "3\r\nabc\r\n0\r\n\r\nGET", "abc", "GET");
    good(
        Framing::Chunked,
        "3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "abc0123456789",
        "",
    );
    good(
        Framing::Chunked,
        "3;x=\"y\"\r\nabc\r\n000\r\n\r\n",
        "abc",
        "",
    );
    good(
        Framing::Chunked,
        "3 ;x\r\nabc\r\n0\r\nX: y\r\n\r\nGET",
        "abc",
        "GET",
    );
    for raw in [
        "3\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "3\r\nabc\r\n0\r\n",
        "3\r\nabc",
        "\r\nabc",
        "x\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc\r\n0\r\n\r\n",
        "3 3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;a\0\r\nabc\r\n0\r\n\r\n",
        "1000000000000000\r\nabc",
        "ffffffffffffffffff\r\nabc",
        "0\r\nbad trailer\r\n\r\n",
    ] {
        assert!(body(Framing::Chunked, raw.as_bytes()).is_err(), "{raw:?}");
    }
    assert!(body(Framing::Length(4), b"abc").is_err());
}

#[test]
fn chunk_lines_and_trailers_are_bounded() {
    let line = format!("3;{}", "x".repeat(4096));
    assert_eq!(
        body_in_steps(Framing::Chunked, line.as_bytes(), 512),
        Err(BodyError::Chunk)
    );
    let trailers = format!("0\r\nX: {}", "x".repeat(16 << 10));
    assert_eq!(
        body_in_steps(Framing::Chunked, trailers.as_bytes(), 512),
        Err(BodyError::Trailers)
    );
}

#[test]
fn trailers_that_frame_or_route_are_dropped() {
    let raw = "0\r\nContent-Length: 5\r\nHost: b\r\nsealane-error: x\r\ngrpc-status: 0\r\n\r\n";
    let mut decoder = BodyDecoder::new(Framing::Chunked);
    let piece = decoder.decode(&mut BytesMut::from(raw)).expect("good");
    let Some(Piece::End(Some(trailers))) = piece else {
        panic!("no trailers: {piece:?}");
    };
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn a_length_is_digits_of_63_bits() {
    for (value, expect) in [
        ("0", Some(0)),
        ("007", Some(7)),
        ("9223372036854775807", Some(u64::MAX >> 1)),
        ("9223372036854775808", None),
        ("18446744073709551615", None),
        ("00000000000000000000", None),
        ("", None),
        ("+1", None),
        ("-1", None),
        (" 1", None),
        ("1 ", None),
        ("1,1", None),
        ("0x1", None),
    ] {
        assert_eq!(super::body::length(value.as_bytes()), expect, "{value}");
    }
    assert_eq!(super::body::length(&[0xb2]), None);
}
