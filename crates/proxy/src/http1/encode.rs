//! Heads and bodies onto the wire.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use l7::{Fields, Known};

use super::{Framing, Wire};

/// Frames the body of the message being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEncoder {
    /// No body, or one whose length was announced, or that ends with the connection.
    Plain,
    Chunked,
}

impl BodyEncoder {
    pub(crate) fn data(self, wire: &mut Wire, piece: Bytes) {
        match self {
            BodyEncoder::Plain => wire.piece(piece),
            // An empty chunk would end the body.
            BodyEncoder::Chunked if piece.is_empty() => {}
            BodyEncoder::Chunked => {
                let out = &mut wire.output;
                out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                out.extend_from_slice(&piece);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    pub(crate) fn end(self, out: &mut BytesMut, trailers: Option<&HeaderMap>) {
        match self {
            BodyEncoder::Plain => {}
            BodyEncoder::Chunked => {
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    line(out, name.as_str().as_bytes(), value.as_bytes());
                }
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}

/// A request head; what frames in `fields` is ignored.
pub(crate) fn request(
    out: &mut BytesMut,
    method: &Method,
    target: &str,
    fields: &Fields,
    framing: Framing,
) -> BodyEncoder {
    out.reserve(256 + fields.len() * 48);
    out.extend_from_slice(method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    lines(out, fields);
    let wants_length = [Method::POST, Method::PUT, Method::PATCH].contains(method);
    let encoder = match framing {
        Framing::None | Framing::Close => {
            if wants_length {
                length(out, 0);
            }
            BodyEncoder::Plain
        }
        Framing::Length(n) => {
            length(out, n);
            BodyEncoder::Plain
        }
        Framing::Chunked => chunked(out),
    };
    out.extend_from_slice(b"\r\n");
    encoder
}

/// A response head; what frames in `fields` is ignored but for a bodiless answer, whose
/// `content-length` says what a body would have been (RFC 9110 §8.6).
pub(crate) fn response(
    out: &mut BytesMut,
    status: StatusCode,
    fields: &Fields,
    framing: Framing,
    close: bool,
    bodiless: bool,
) -> BodyEncoder {
    out.reserve(256 + fields.len() * 48);
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or("-").as_bytes());
    out.extend_from_slice(b"\r\n");
    lines(out, fields);
    let never = status.is_informational() || status == StatusCode::NO_CONTENT;
    let encoder = match framing {
        _ if never => BodyEncoder::Plain,
        _ if bodiless => {
            if let Some(value) = fields.first(Known::ContentLength) {
                line(out, b"content-length", value);
            }
            BodyEncoder::Plain
        }
        Framing::None => {
            length(out, 0);
            BodyEncoder::Plain
        }
        Framing::Length(n) => {
            length(out, n);
            BodyEncoder::Plain
        }
        Framing::Chunked => chunked(out),
        Framing::Close => BodyEncoder::Plain,
    };
    if close && !status.is_informational() {
        out.extend_from_slice(b"connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
    encoder
}

fn lines(out: &mut BytesMut, fields: &Fields) {
    for (name, value) in fields.iter_but(&[Known::ContentLength, Known::TransferEncoding]) {
        line(out, name, value);
    }
}

fn line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn length(out: &mut BytesMut, n: u64) {
    let mut digits = itoa::Buffer::new();
    line(out, b"content-length", digits.format(n).as_bytes());
}

fn chunked(out: &mut BytesMut) -> BodyEncoder {
    out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    BodyEncoder::Chunked
}
