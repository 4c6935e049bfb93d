//! Where a body ends, piece by piece.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::{Framing, head::only_crlf};

/// A chunk's size line, extensions included.
const MAX_CHUNK_LINE: usize = 1024;
/// All trailers together.
const MAX_TRAILERS: usize = 8 << 10;
const MAX_TRAILER_FIELDS: usize = 32;

/// A piece of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The end, with trailers if there were any.
    End(Option<HeaderMap>),
}

/// Why a body is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("malformed chunk")]
    Chunk,
    #[error("malformed or too many trailers")]
    Trailers,
    #[error("the body ends early")]
    Truncated,
}

/// Takes a body out of the bytes of a connection.
#[derive(Debug)]
pub(crate) enum BodyDecoder {
    Done,
    Length(u64),
    Close,
    Chunk(Chunk),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Chunk {
    Size,
    Data(u64),
    DataEnd,
    Trailers,
}

impl BodyDecoder {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => BodyDecoder::Done,
            Framing::Length(length) => BodyDecoder::Length(length),
            Framing::Chunked => BodyDecoder::Chunk(Chunk::Size),
            Framing::Close => BodyDecoder::Close,
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, BodyDecoder::Done)
    }

    /// How much is left of a body whose length was announced.
    pub(crate) const fn left(&self) -> Option<u64> {
        match self {
            BodyDecoder::Length(left) => Some(*left),
            BodyDecoder::Done | BodyDecoder::Close | BodyDecoder::Chunk(_) => None,
        }
    }

    /// So much of what is left went another way.
    pub(crate) fn skip(&mut self, count: u64) {
        if let BodyDecoder::Length(left) = self {
            *left = left.saturating_sub(count);
            if *left == 0 {
                *self = BodyDecoder::Done;
            }
        }
    }

    /// The next piece in `buf`; `None` asks for more bytes.
    pub(crate) fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, BodyError> {
        loop {
            match self {
                BodyDecoder::Done => return Ok(Some(Piece::End(None))),
                _ if buf.is_empty() => return Ok(None),
                BodyDecoder::Close => return Ok(Some(Piece::Data(buf.split().freeze()))),
                BodyDecoder::Length(left) => {
                    let piece = take(buf, left);
                    if *left == 0 {
                        *self = BodyDecoder::Done;
                    }
                    return Ok(Some(Piece::Data(piece)));
                }
                BodyDecoder::Chunk(Chunk::Data(left)) => {
                    let piece = take(buf, left);
                    if *left == 0 {
                        *self = BodyDecoder::Chunk(Chunk::DataEnd);
                    }
                    return Ok(Some(Piece::Data(piece)));
                }
                BodyDecoder::Chunk(Chunk::DataEnd) => {
                    if buf.len() < 2 {
                        return Ok(None);
                    }
                    if !buf.starts_with(b"\r\n") {
                        return Err(BodyError::Chunk);
                    }
                    buf.advance(2);
                    *self = BodyDecoder::Chunk(Chunk::Size);
                }
                BodyDecoder::Chunk(Chunk::Size) => match chunk_size(buf)? {
                    None => return Ok(None),
                    Some(0) => *self = BodyDecoder::Chunk(Chunk::Trailers),
                    Some(size) => *self = BodyDecoder::Chunk(Chunk::Data(size)),
                },
                BodyDecoder::Chunk(Chunk::Trailers) => {
                    let Some(trailers) = trailers(buf)? else {
                        return Ok(None);
                    };
                    *self = BodyDecoder::Done;
                    return Ok(Some(Piece::End(trailers)));
                }
            }
        }
    }

    /// The connection ended.
    pub(crate) fn eof(&mut self) -> Result<Piece, BodyError> {
        match self {
            BodyDecoder::Done | BodyDecoder::Close => {
                *self = BodyDecoder::Done;
                Ok(Piece::End(None))
            }
            BodyDecoder::Length(_) | BodyDecoder::Chunk(_) => Err(BodyError::Truncated),
        }
    }
}

fn take(buf: &mut BytesMut, left: &mut u64) -> Bytes {
    let here = usize::try_from(*left).map_or(buf.len(), |left| left.min(buf.len()));
    *left -= here as u64;
    buf.split_to(here).freeze()
}

/// `1*HEXDIG [ chunk-ext ] CRLF` (RFC 9112 §7.1); extensions are dropped.
fn chunk_size(buf: &mut BytesMut) -> Result<Option<u64>, BodyError> {
    let window = buf.get(..MAX_CHUNK_LINE.min(buf.len())).unwrap_or_default();
    let Some(lf) = window.iter().position(|b| *b == b'\n') else {
        return if buf.len() >= MAX_CHUNK_LINE {
            Err(BodyError::Chunk)
        } else {
            Ok(None)
        };
    };
    let line = window
        .get(..lf)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(BodyError::Chunk)?;
    let digits = line
        .iter()
        .position(|b| !b.is_ascii_hexdigit())
        .unwrap_or(line.len());
    let (number, rest) = line.split_at(digits);
    let extension = rest.is_empty() || matches!(rest.first(), Some(b';' | b' ' | b'\t'));
    let clean = rest
        .iter()
        .all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
    let padded_only = rest
        .iter()
        .find(|b| !matches!(b, b' ' | b'\t'))
        .is_none_or(|b| *b == b';');
    if !(1..=15).contains(&digits) || !extension || !clean || !padded_only {
        return Err(BodyError::Chunk);
    }
    let number = std::str::from_utf8(number).map_err(|_| BodyError::Chunk)?;
    let size = u64::from_str_radix(number, 16).map_err(|_| BodyError::Chunk)?;
    buf.advance(lf + 1);
    Ok(Some(size))
}

#[expect(
    clippy::option_option,
    reason = "needs more bytes | no trailers | trailers"
)]
fn trailers(buf: &mut BytesMut) -> Result<Option<Option<HeaderMap>>, BodyError> {
    if buf.starts_with(b"\r\n") {
        buf.advance(2);
        return Ok(Some(None));
    }
    let Some(at) = buf.windows(4).position(|w| w == b"\r\n\r\n") else {
        let lines = buf.strip_suffix(b"\r").unwrap_or(buf);
        return if buf.len() >= MAX_TRAILERS || !only_crlf(lines) {
            Err(BodyError::Trailers)
        } else {
            Ok(None)
        };
    };
    if at + 4 > MAX_TRAILERS {
        return Err(BodyError::Trailers);
    }
    let raw = buf.split_to(at + 4);
    let mut fields = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let Ok(httparse::Status::Complete((used, fields))) = httparse::parse_headers(&raw, &mut fields)
    else {
        return Err(BodyError::Trailers);
    };
    if used != raw.len() || !only_crlf(&raw) {
        return Err(BodyError::Trailers);
    }
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name =
            HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BodyError::Trailers)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| BodyError::Trailers)?;
        if may_trail(&name) {
            map.append(name, value);
        }
    }
    Ok(Some((!map.is_empty()).then_some(map)))
}

/// What a `content-length` says (RFC 9110 §8.6): digits alone, and no more than fits into 63 bits, since
/// others count in those.
pub(crate) fn length(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok()?;
    if !(1..=19).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let length = digits.parse().ok()?;
    (length <= i64::MAX.unsigned_abs()).then_some(length)
}

/// RFC 9110 §6.5.1: nothing that frames, routes, authenticates, controls, says what the content is,
/// or is ours.
pub(crate) fn may_trail(name: &HeaderName) -> bool {
    const NEVER: [HeaderName; 20] = [
        header::TRANSFER_ENCODING,
        header::CONTENT_LENGTH,
        header::HOST,
        header::CONNECTION,
        header::TE,
        header::TRAILER,
        header::UPGRADE,
        header::EXPECT,
        header::AUTHORIZATION,
        header::COOKIE,
        header::SET_COOKIE,
        header::CONTENT_ENCODING,
        header::CONTENT_TYPE,
        header::CONTENT_RANGE,
        header::PROXY_AUTHORIZATION,
        header::CACHE_CONTROL,
        header::LOCATION,
        header::RANGE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    const BEGIN: [&str; 2] = [l7::headers::INTERNAL_PREFIX, "x-forwarded-"];
    let text = name.as_str();
    !NEVER.contains(name) && !BEGIN.iter().any(|begin| text.starts_with(begin))
}
