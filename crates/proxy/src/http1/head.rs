//! Request and response heads.

use std::{mem::MaybeUninit, sync::LazyLock};

use bytes::{Buf, BytesMut};
use http::{Method, StatusCode};
use httparse::ParserConfig;
use l7::{Fields, Known, Limits, headers};
use memchr::memmem::Finder;

use super::body;

/// More header fields than this are never parsed, whatever the limits say.
const MAX_FIELDS: usize = 128;

/// The version a message was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V10,
    V11,
}

/// Where a body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// At the end of the connection; responses only.
    Close,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("{0}")]
    Bad(&'static str),
    #[error("the head is too large")]
    TooLarge,
    #[error("the request line is too long")]
    LineTooLong,
}

impl HeadError {
    pub(crate) const fn status(self) -> StatusCode {
        match self {
            HeadError::Bad(_) => StatusCode::BAD_REQUEST,
            HeadError::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            HeadError::LineTooLong => StatusCode::URI_TOO_LONG,
        }
    }
}

/// A request head, checked.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// Path and query, or `*`; empty for CONNECT.
    pub(crate) target: String,
    /// The host as asked for: of the target in absolute form, else of `Host`.
    pub(crate) authority: String,
    pub(crate) version: Version,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    pub(crate) expects_continue: bool,
}

/// A response head, checked.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
}

/// Take a request head off the front of `buf`. `seen` is how much of `buf` was searched before;
/// zero it with a new message.
pub(crate) fn request(
    buf: &mut BytesMut,
    seen: &mut usize,
    limits: &Limits,
) -> Result<Option<RequestHead>, HeadError> {
    // RFC 9112 §2.2: empty lines before a request are ignored. The first octet of one may have been
    // searched already.
    while *seen < 2 && buf.starts_with(b"\r\n") {
        buf.advance(2);
        *seen = 0;
    }
    let Some(end) = end_of_head(buf, seen, limits.header_bytes)? else {
        let line = buf.get(..=limits.request_line_bytes);
        if line.is_some_and(|line| !line.contains(&b'\n')) {
            return Err(HeadError::LineTooLong);
        }
        return Ok(None);
    };
    let raw = buf.get(..end).unwrap_or_default();
    let mut list = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let count = limits.header_count.min(MAX_FIELDS);
    let list = list.get_mut(..count).unwrap_or_default();
    let mut parsed = httparse::Request::new(&mut []);
    complete(parsed.parse_with_uninit_headers(raw, list), raw.len())?;
    let target = parsed.path.unwrap_or_default();
    if memchr::memchr(b'\n', raw).unwrap_or(0) > limits.request_line_bytes {
        return Err(HeadError::LineTooLong);
    }
    let method = Method::from_bytes(parsed.method.unwrap_or_default().as_bytes())
        .map_err(|_| HeadError::Bad("bad method"))?;
    let version = version(parsed.version)?;
    let fields = fields(raw, parsed.headers)?;
    let (authority, target) = target_of(&method, target, version, &fields)?;
    let framing = request_framing(&fields, version)?;
    let expects_continue = version == Version::V11
        && fields
            .first(Known::Expect)
            .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
    buf.advance(end);
    Ok(Some(RequestHead {
        keep_alive: keep_alive(&fields, version),
        method,
        target,
        authority,
        version,
        fields,
        framing,
        expects_continue,
    }))
}

/// Take a response head off the front of `buf`; `to` is the method it answers.
pub(crate) fn response(
    buf: &mut BytesMut,
    seen: &mut usize,
    limits: &Limits,
    to: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    let Some(end) = end_of_head(buf, seen, limits.header_bytes)? else {
        return Ok(None);
    };
    let raw = buf.get(..end).unwrap_or_default();
    let mut list = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    let done =
        ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, raw, &mut list);
    complete(done, raw.len())?;
    let status = StatusCode::from_u16(parsed.code.unwrap_or_default())
        .map_err(|_| HeadError::Bad("bad status"))?;
    let version = version(parsed.version)?;
    let fields = fields(raw, parsed.headers)?;
    let framing = response_framing(&fields, version, status, to)?;
    buf.advance(end);
    Ok(Some(ResponseHead {
        keep_alive: keep_alive(&fields, version)
            && framing != Framing::Close
            && !claims_body(status, &fields),
        status,
        fields,
        framing,
    }))
}

/// Made once: that takes longer than a search.
static END: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n\r\n"));

/// How many octets there are up to and with the empty line.
fn end_of_head(buf: &[u8], seen: &mut usize, max: usize) -> Result<Option<usize>, HeadError> {
    let from = seen.saturating_sub(3);
    let fresh = buf.get(from..).unwrap_or_default();
    let Some(at) = END.find(fresh) else {
        let before = *seen;
        *seen = buf.len();
        if buf.len() >= max {
            return Err(HeadError::TooLarge);
        }
        // Not to wait for an end that its sender believes to have sent.
        let halved = before > 0 && buf.get(before - 1) == Some(&b'\r');
        let fresh = buf.get(before - usize::from(halved)..).unwrap_or_default();
        let whole = fresh.strip_suffix(b"\r").unwrap_or(fresh);
        return only_crlf(whole).then_some(None).ok_or(LONE);
    };
    let end = from + at + 4;
    if end > max {
        return Err(HeadError::TooLarge);
    }
    *seen = 0;
    let head = buf.get(..end).unwrap_or_default();
    only_crlf(head).then_some(Some(end)).ok_or(LONE)
}

const LONE: HeadError = HeadError::Bad("CR or LF alone");

/// A CR or LF alone ends a line for some and not for others (RFC 9112 §2.2).
pub(super) fn only_crlf(octets: &[u8]) -> bool {
    let (Some(first), Some(last)) = (octets.first(), octets.last()) else {
        return true;
    };
    // Without a way out in the middle: many octets are looked at at a time.
    let pairs = octets.iter().zip(octets.get(1..).unwrap_or_default());
    let odd = pairs.fold(false, |odd, (before, after)| {
        odd | ((*before == b'\r') != (*after == b'\n'))
    });
    !odd && *first != b'\n' && *last != b'\r'
}

fn complete(
    parsed: Result<httparse::Status<usize>, httparse::Error>,
    length: usize,
) -> Result<(), HeadError> {
    match parsed {
        Ok(httparse::Status::Complete(used)) if used == length => Ok(()),
        Ok(_) => Err(HeadError::Bad("malformed head")),
        Err(httparse::Error::TooManyHeaders) => Err(HeadError::TooLarge),
        Err(_) => Err(HeadError::Bad("malformed head")),
    }
}

fn version(minor: Option<u8>) -> Result<Version, HeadError> {
    match minor {
        Some(0) => Ok(Version::V10),
        Some(1) => Ok(Version::V11),
        _ => Err(HeadError::Bad("unsupported version")),
    }
}

/// The fields that were found in `raw`.
fn fields(raw: &[u8], found: &[httparse::Header<'_>]) -> Result<Fields, HeadError> {
    let mut fields = Fields::with_head(raw);
    let within = |part: &[u8]| {
        let start = part.as_ptr().addr().wrapping_sub(raw.as_ptr().addr());
        start..start.wrapping_add(part.len())
    };
    for field in found {
        let value = if field.value.is_empty() {
            0..0
        } else {
            within(field.value)
        };
        if !fields.found(within(field.name.as_bytes()), value) {
            return Err(HeadError::Bad("malformed header"));
        }
    }
    Ok(fields)
}

/// Authority and target (RFC 9112 §3.2).
fn target_of(
    method: &Method,
    target: &str,
    version: Version,
    fields: &Fields,
) -> Result<(String, String), HeadError> {
    if !target.bytes().all(|b| b.is_ascii_graphic() && b != b'#') {
        return Err(HeadError::Bad("bad request target"));
    }
    let mut hosts = fields.all(Known::Host);
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => std::str::from_utf8(host)
            .ok()
            .filter(|host| host.is_ascii())
            .ok_or(HeadError::Bad("bad host"))?
            .to_owned(),
        (None, _) if version == Version::V10 => String::new(),
        (None, _) => return Err(HeadError::Bad("no host")),
        (Some(_), Some(_)) => return Err(HeadError::Bad("two hosts")),
    };
    // The target names whom it is for, whatever Host says (RFC 9112 §3.2.3).
    if method == Method::CONNECT {
        return Ok((target.to_owned(), String::new()));
    }
    if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) {
        return Ok((host, target.to_owned()));
    }
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            let (head, rest) = target.split_at_checked(scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then_some(rest)
        })
        .ok_or(HeadError::Bad("bad request target"))?;
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok((authority.to_owned(), format!("{slash}{path}")))
}

/// RFC 9112 §6.1: an answer that has no body and speaks of one may be followed by it.
fn claims_body(status: StatusCode, fields: &Fields) -> bool {
    status == StatusCode::NO_CONTENT
        && (fields.first(Known::TransferEncoding).is_some()
            || content_length(fields).is_ok_and(|length| length.is_some_and(|n| n > 0)))
}

fn request_framing(fields: &Fields, version: Version) -> Result<Framing, HeadError> {
    match (chunked(fields, version)?, content_length(fields)?) {
        (true, Some(_)) => Err(HeadError::Bad("both content-length and transfer-encoding")),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(0) | None) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
    }
}

fn response_framing(
    fields: &Fields,
    version: Version,
    status: StatusCode,
    to: &Method,
) -> Result<Framing, HeadError> {
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || to == Method::HEAD;
    match (chunked(fields, version)?, content_length(fields)?) {
        // RFC 9112 §6.1, RFC 9110 §8.6: what claims a body here may have sent one.
        (true, _) | (_, Some(1..)) if status.is_informational() => {
            Err(HeadError::Bad("an interim response with a body"))
        }
        (true, Some(_)) => Err(HeadError::Bad("both content-length and transfer-encoding")),
        _ if bodiless => Ok(Framing::None),
        (true, None) => Ok(Framing::Chunked),
        (false, Some(0)) => Ok(Framing::None),
        (false, Some(length)) => Ok(Framing::Length(length)),
        (false, None) => Ok(Framing::Close),
    }
}

/// Only `chunked`, once: no other coding is understood the same by everybody.
fn chunked(fields: &Fields, version: Version) -> Result<bool, HeadError> {
    let mut lines = fields.all(Known::TransferEncoding);
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(value), None)
            if version == Version::V11 && value.eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(true)
        }
        _ => Err(HeadError::Bad("bad transfer-encoding")),
    }
}

/// How long a body is by its head; several lines must agree.
pub(crate) fn content_length(fields: &Fields) -> Result<Option<u64>, HeadError> {
    let bad = HeadError::Bad("bad content-length");
    let mut length = None;
    for value in fields.all(Known::ContentLength) {
        let this = body::length(value).ok_or(bad)?;
        if length.is_some_and(|other| other != this) {
            return Err(bad);
        }
        length = Some(this);
    }
    Ok(length)
}

fn keep_alive(fields: &Fields, version: Version) -> bool {
    let close = headers::options(fields).any(|option| option.eq_ignore_ascii_case(b"close"));
    version == Version::V11 && !close
}
