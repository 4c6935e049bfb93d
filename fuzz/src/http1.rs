//! HTTP/1.1: the proxy's codec, whose files are read here as they are. What is in them is the
//! proxy's own affair, so it has no door to them.

use bytes::BytesMut;
use http::Method;
use l7::Limits;

use crate::Choices;

#[path = "../../crates/proxy/src/http1/body.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
pub(crate) mod body;
#[path = "../../crates/proxy/src/http1/head.rs"]
#[expect(dead_code, reason = "the proxy uses more of it")]
mod head;

use body::BodyDecoder;
pub(crate) use body::Piece;
use head::Framing;

/// What a decoder makes of octets that come in pieces: what it read, and what is left; `None`: it
/// wants more.
type Read<T> = Result<Option<(T, Vec<u8>)>, ()>;

/// In one piece, octet by octet, and cut at one place: the same each time.
fn alike<T: PartialEq + std::fmt::Debug>(
    octets: &[u8],
    cut: u8,
    read: impl Fn(&mut dyn Iterator<Item = &[u8]>) -> Read<T>,
) -> Read<T> {
    let whole = read(&mut std::iter::once(octets));
    let single = read(&mut octets.chunks(1));
    let (one, two) = octets.split_at(usize::from(cut).min(octets.len()));
    let halves = read(&mut [one, two].into_iter());
    assert_eq!(whole, single, "octet by octet");
    assert_eq!(whole, halves, "cut at {cut}");
    whole
}

/// Feed pieces until something comes of them.
fn fed<T>(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    mut step: impl FnMut(&mut BytesMut) -> Result<Option<T>, ()>,
) -> Read<T> {
    let mut buf = BytesMut::new();
    loop {
        if let Some(value) = step(&mut buf)? {
            let rest = pieces.collect::<Vec<_>>().concat();
            return Ok(Some((value, [&buf[..], &rest].concat())));
        }
        let Some(piece) = pieces.next() else {
            return Ok(None);
        };
        buf.extend_from_slice(piece);
    }
}

fn limits() -> Limits {
    Limits {
        request_line_bytes: 256,
        header_bytes: 1024,
        header_count: 16,
        ..Limits::default()
    }
}

/// A head that was read has lines that all readers read alike.
fn checked(fields: &l7::Fields) {
    for (name, value) in fields.iter() {
        let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
        assert!(!name.is_empty() && name.iter().all(token), "{fields:?}");
        assert!(!name.iter().any(u8::is_ascii_uppercase), "{fields:?}");
        let control = |b: &u8| (*b < b' ' && *b != b'\t') || *b == 0x7F;
        assert!(!value.iter().any(control), "{fields:?}");
        let space = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        assert!(!space(value.first()) && !space(value.last()), "{fields:?}");
    }
}

fn count(fields: &l7::Fields, name: &str) -> usize {
    fields
        .iter()
        .filter(|(this, _)| *this == name.as_bytes())
        .count()
}

/// A request head: the same in pieces, and never ambiguous.
pub(crate) fn request(octets: &[u8]) {
    let mut choices = Choices(octets);
    let cut = choices.octet();
    let octets = choices.0;
    let read = alike(octets, cut, |pieces| {
        let mut seen = 0;
        fed(pieces, |buf| {
            let head = head::request(buf, &mut seen, &limits()).map_err(|_| ())?;
            Ok(head.map(|head| format!("{head:?}")))
        })
    });
    let mut buf = BytesMut::from(octets);
    let Ok(Some(head)) = head::request(&mut buf, &mut 0, &limits()) else {
        assert!(!matches!(read, Ok(Some(_))));
        return;
    };
    checked(&head.fields);
    assert!(count(&head.fields, "host") <= 1);
    let lengths = count(&head.fields, "content-length");
    let codings = count(&head.fields, "transfer-encoding");
    assert!(codings <= 1 && (codings == 0 || lengths == 0));
    match head.framing {
        Framing::Chunked => assert_eq!(codings, 1),
        Framing::Length(_) => assert!(lengths >= 1 && codings == 0),
        Framing::None => assert_eq!(codings, 0),
        Framing::Close => panic!("no request ends with its connection"),
    }
    let target = &head.target;
    assert!(target.bytes().all(|b| b.is_ascii_graphic() && b != b'#'));
    let shape = target.starts_with('/') || target == "*" || head.method == Method::CONNECT;
    assert!(shape, "{target:?}");
}

/// A response head: the same in pieces, and with a body only where there may be one.
pub(crate) fn response(octets: &[u8]) {
    let mut choices = Choices(octets);
    let cut = choices.octet();
    let to = if choices.octet() & 1 == 0 {
        Method::GET
    } else {
        Method::HEAD
    };
    let octets = choices.0;
    let _ = alike(octets, cut, |pieces| {
        let mut seen = 0;
        fed(pieces, |buf| {
            let head = head::response(buf, &mut seen, &limits(), &to).map_err(|_| ())?;
            Ok(head.map(|head| format!("{head:?}")))
        })
    });
    let mut buf = BytesMut::from(octets);
    let Ok(Some(head)) = head::response(&mut buf, &mut 0, &limits(), &to) else {
        return;
    };
    checked(&head.fields);
    let status = head.status.as_u16();
    if status < 200 || status == 204 || status == 304 || to == Method::HEAD {
        assert_eq!(head.framing, Framing::None);
    }
    if head.framing == Framing::Close {
        assert!(!head.keep_alive, "there is nothing behind the end");
    }
    let codings = count(&head.fields, "transfer-encoding");
    assert!(codings <= 1 && (codings == 0 || count(&head.fields, "content-length") == 0));
}

/// A body and its trailers, as text.
type Body = (Vec<u8>, String);

fn decoded(framing: Framing, pieces: &mut dyn Iterator<Item = &[u8]>) -> Read<Body> {
    let mut decoder = BodyDecoder::new(framing);
    let mut body = Vec::new();
    fed(pieces, |buf| {
        loop {
            match decoder.decode(buf).map_err(|_| ())? {
                None => return Ok(None),
                Some(Piece::Data(data)) => body.extend_from_slice(&data),
                Some(Piece::End(trailers)) => {
                    for name in trailers.iter().flat_map(|map| map.keys()) {
                        assert!(body::may_trail(name), "{name}");
                    }
                    return Ok(Some((body.clone(), format!("{trailers:?}"))));
                }
            }
        }
    })
}

/// Bodies: the same in pieces; chunks as a plain reading of RFC 9112 §7.1 has them.
pub(crate) fn body(octets: &[u8]) {
    let mut choices = Choices(octets);
    let (cut, bits) = (choices.octet(), choices.octet());
    let octets = choices.0;
    let framing = match bits & 3 {
        0 => Framing::Length(u64::from(bits >> 2)),
        1 => Framing::None,
        _ => Framing::Chunked,
    };
    let read = alike(octets, cut, |pieces| decoded(framing, pieces));
    match (framing, read) {
        (Framing::Length(length), Ok(Some(((body, _), rest)))) => {
            assert_eq!(body.len() as u64, length);
            assert_eq!([&body[..], &rest].concat(), octets);
        }
        (Framing::Chunked, Ok(Some(((body, _), rest)))) => {
            let (plain, used) = plain(octets).expect("we took it");
            assert_eq!(body, plain);
            assert_eq!(rest, octets[used..]);
        }
        (Framing::None, read) => assert_eq!(
            read,
            Ok(Some(((Vec::new(), "None".into()), octets.to_vec())))
        ),
        _ => {}
    }
}

/// Chunks read without looking for mistakes: what is in them, and where they end.
fn plain(octets: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |at: usize| {
        let rest = octets.get(at..)?;
        rest.windows(2)
            .position(|end| end == b"\r\n")
            .map(|length| &rest[..length])
    };
    loop {
        let size = line(at)?;
        at += size.len() + 2;
        let digits = size.iter().take_while(|b| b.is_ascii_hexdigit());
        let size = digits.fold(0, |size, digit| {
            size * 16 + char::from(*digit).to_digit(16).unwrap_or(0) as usize
        });
        if size == 0 {
            break;
        }
        body.extend_from_slice(octets.get(at..at + size)?);
        assert_eq!(octets.get(at + size..at + size + 2), Some(&b"\r\n"[..]));
        at += size + 2;
    }
    loop {
        let trailer = line(at)?;
        at += trailer.len() + 2;
        if trailer.is_empty() {
            return Some((body, at));
        }
    }
}
