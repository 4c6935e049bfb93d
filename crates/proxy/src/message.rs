//! What a request's field section says over HTTP/2 (RFC 9113 §8.2, §8.3) and over HTTP/3 (RFC 9114
//! §4.2, §4.3), whose rules are the same.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    uri::{Authority, PathAndQuery, Scheme},
};
use l7::{Fields, Limits};

use crate::http1::body::{length, may_trail};

/// What a field costs beside its octets (RFC 9113 §6.5.2, RFC 9114 §4.2.2).
const OVERHEAD: usize = 32;

/// Why there is no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The message is malformed (RFC 9113 §8.1.1, RFC 9114 §4.1.2): the stream ends.
    Malformed,
    /// It is answered with this.
    Status(StatusCode),
}

const MALFORMED: Refusal = Refusal::Malformed;
const BAD: Refusal = Refusal::Status(StatusCode::BAD_REQUEST);

/// A request, as HTTP/1.1 has it: its authority is a field too.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) authority: String,
    pub(crate) fields: Fields,
    /// What it wants to speak (RFC 8441 §4, RFC 9220 §3).
    pub(crate) protocol: Option<String>,
    /// Octets that its body has to have.
    pub(crate) length: Option<u64>,
}

/// A field section on its way to a request. After the first fault nothing is kept, so that what a
/// small block says again and again costs nothing.
pub(crate) struct Draft {
    octets: usize,
    fields_left: usize,
    target_octets: usize,
    method: Option<Method>,
    scheme: bool,
    authority: Option<String>,
    path: Option<Result<String, Refusal>>,
    protocol: Option<String>,
    host: Option<String>,
    length: Option<u64>,
    fields: Fields,
    regular: bool,
    refusal: Option<Refusal>,
    /// Octets that were decoded after that.
    vain: usize,
}

impl Draft {
    pub(crate) fn new(limits: &Limits) -> Self {
        Draft {
            octets: limits.header_bytes,
            fields_left: limits.header_count,
            target_octets: limits.request_line_bytes,
            method: None,
            scheme: false,
            authority: None,
            path: None,
            protocol: None,
            host: None,
            length: None,
            fields: Fields::with_head(&[]),
            regular: false,
            refusal: None,
            vain: 0,
        }
    }

    /// One more field of the section.
    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + OVERHEAD;
        // The first fault is it.
        if self.refusal.is_some() {
            self.vain = self.vain.saturating_add(cost);
            return;
        }
        match self.octets.checked_sub(cost) {
            Some(left) => self.octets = left,
            None => {
                let too_large = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                self.refusal = Some(Refusal::Status(too_large));
                return;
            }
        }
        let taken = match name.first() {
            Some(b':') => self.pseudo(name, value),
            _ => self.regular(name, value),
        };
        if let Err(refusal) = taken {
            self.refusal = Some(refusal);
        }
    }

    /// One of a request's, once, before all fields (RFC 9113 §8.3).
    fn pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        let twice = match name {
            b":method" => {
                let method = Method::from_bytes(value).map_err(|_| MALFORMED)?;
                self.method.replace(method).is_some()
            }
            b":scheme" => {
                if !matches!(value, b"https" | b"http") {
                    Scheme::try_from(value).map_err(|_| MALFORMED)?;
                }
                std::mem::replace(&mut self.scheme, true)
            }
            b":authority" => self.authority.replace(authority(value)?).is_some(),
            b":path" => {
                let path = path(value, self.target_octets);
                self.path.replace(path).is_some()
            }
            b":protocol" => {
                let text = std::str::from_utf8(value).map_err(|_| BAD)?;
                self.protocol.replace(text.to_owned()).is_some()
            }
            _ => return Err(MALFORMED),
        };
        let good = !twice && !self.regular;
        good.then_some(()).ok_or(MALFORMED)
    }

    fn regular(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
        self.regular = true;
        if !is_name(name) || !is_value(value) {
            return Err(MALFORMED);
        }
        let too_many = Refusal::Status(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        self.fields_left = self.fields_left.checked_sub(1).ok_or(too_many)?;
        if l7::headers::is_of_connection(name, value) {
            return Err(MALFORMED);
        }
        match name {
            b"content-length" => {
                let length = length(value).ok_or(MALFORMED)?;
                // One number, however often it is said.
                if self
                    .length
                    .replace(length)
                    .is_some_and(|said| said != length)
                {
                    return Err(MALFORMED);
                }
            }
            b"host" => {
                let host = authority(value).map_err(|_| BAD)?;
                let twice = self.host.replace(host).is_some();
                return (!twice).then_some(()).ok_or(BAD);
            }
            _ => {}
        }
        // Malformed too (RFC 9113 §8.2.1), but nothing is lost by an answer that says so.
        if l7::headers::is_padded(value) {
            return Err(BAD);
        }
        self.fields.push(name, value);
        Ok(())
    }

    /// Octets that were decoded for nothing: a small block may say much (RFC 9113 §10.5.1).
    pub(crate) const fn in_vain(&self) -> usize {
        self.vain
    }

    /// The request, if nothing was wrong with it; `bodiless`: its stream has ended with it.
    pub(crate) fn finish(mut self, bodiless: bool) -> Result<Head, Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let method = self.method.take().ok_or(MALFORMED)?;
        let connects = method == Method::CONNECT;
        let target = match (self.path.take(), &self.protocol) {
            // RFC 9113 §8.5: CONNECT has only an authority.
            (None, None) if connects && !self.scheme => String::new(),
            (Some(path), protocol) if self.scheme && connects == protocol.is_some() => {
                let path = path?;
                if path == "*" && method != Method::OPTIONS {
                    return Err(BAD);
                }
                path
            }
            _ => return Err(MALFORMED),
        };
        // A message that ends with its head has no octet of a body (RFC 9113 §8.1.1).
        if bodiless && self.length.is_some_and(|length| length > 0) {
            return Err(MALFORMED);
        }
        let authority = match (self.authority.take(), self.host.take()) {
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(&host) => {
                return Err(BAD);
            }
            (Some(authority), _) | (None, Some(authority)) => authority,
            (None, None) => return Err(BAD),
        };
        self.fields.push(b"host", authority.as_bytes());
        l7::headers::join_cookies(&mut self.fields);
        Ok(Head {
            method,
            target,
            authority,
            fields: self.fields,
            protocol: self.protocol,
            length: self.length,
        })
    }
}

/// A message that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Trailers on their way, without what may not be one.
#[derive(Debug)]
pub(crate) struct Trailers {
    octets: usize,
    map: HeaderMap,
    malformed: bool,
}

impl Trailers {
    pub(crate) fn new(limits: &Limits) -> Self {
        Trailers {
            octets: limits.header_bytes,
            map: HeaderMap::new(),
            malformed: false,
        }
    }

    pub(crate) fn take(&mut self, name: &[u8], value: &[u8]) {
        let cost = name.len() + value.len() + OVERHEAD;
        let left = self.octets.checked_sub(cost).filter(|_| !self.malformed);
        let Some(left) = left else {
            self.malformed = true;
            return;
        };
        self.octets = left;
        self.malformed |= self.add(name, value).is_none();
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Option<()> {
        // RFC 9113 §8.1: no pseudo-header field, which is no name either.
        if !is_name(name) || !is_value(value) || l7::headers::is_of_connection(name, value) {
            return None;
        }
        let name = HeaderName::from_lowercase(name).ok()?;
        // They are no reason to lose the message that is whole without them.
        if may_trail(&name) && !l7::headers::is_padded(value) {
            let value = HeaderValue::from_bytes(value).ok()?;
            self.map.try_append(name, value).ok()?;
        }
        Some(())
    }

    /// `Ok(None)`: there are none. `Err`: they are malformed.
    pub(crate) fn finish(self) -> Result<Option<HeaderMap>, Malformed> {
        if self.malformed {
            return Err(Malformed);
        }
        Ok(Some(self.map).filter(|map| !map.is_empty()))
    }
}

/// The digits, the lower case, and these.
#[expect(clippy::cast_possible_truncation, reason = "every octet")]
const fn class(more: &[u8], upper: bool) -> [bool; 256] {
    let mut class = [false; 256];
    let mut octet = 0;
    while octet < 256 {
        let this = octet as u8;
        class[octet] = this.is_ascii_lowercase()
            || this.is_ascii_digit()
            || (upper && this.is_ascii_uppercase());
        octet += 1;
    }
    let mut at = 0;
    while at < more.len() {
        class[more[at] as usize] = true;
        at += 1;
    }
    class
}

/// RFC 9110 §5.6.2, in lower case (RFC 9113 §8.2.1).
static NAME: [bool; 256] = class(b"!#$%&'*+-.^_`|~", false);
/// What is in a target as it is (RFC 3986 §3.3, §3.4).
static TARGET: [bool; 256] = class(b"-._~!$&'()*+,;=:@/%?", true);
/// What is in a name of a host.
static HOST: [bool; 256] = class(b"-.", true);

fn all(octets: &[u8], class: &[bool; 256]) -> bool {
    octets.iter().all(|octet| class[usize::from(*octet)])
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && all(name, &NAME)
}

/// RFC 9110 §5.5, and no control beside the tabulator.
fn is_value(value: &[u8]) -> bool {
    let good = |octet: &u8| (*octet >= 0x20 && *octet != 0x7f) || *octet == b'\t';
    // Without an early end the loop is done many octets at a time.
    value.iter().fold(true, |all, octet| all & good(octet))
}

fn authority(value: &[u8]) -> Result<String, Refusal> {
    let (name, port) = match value.iter().position(|octet| *octet == b':') {
        Some(at) => (
            value.get(..at).unwrap_or_default(),
            value.get(at + 1..).unwrap_or_default(),
        ),
        None => (value, &b""[..]),
    };
    let plain = !name.is_empty() && all(name, &HOST) && port.iter().all(u8::is_ascii_digit);
    if plain && let Ok(text) = std::str::from_utf8(value) {
        return Ok(text.to_owned());
    }
    let authority = Authority::try_from(value).map_err(|_| MALFORMED)?;
    Ok(authority.as_str().to_owned())
}

fn path(value: &[u8], most: usize) -> Result<String, Refusal> {
    if !value.starts_with(b"/") && value != b"*" {
        return Err(MALFORMED);
    }
    if value.len() > most {
        return Err(Refusal::Status(StatusCode::URI_TOO_LONG));
    }
    if all(value, &TARGET)
        && let Ok(text) = std::str::from_utf8(value)
    {
        return Ok(text.to_owned());
    }
    // A fragment, which nobody sends, is left out there.
    let path = PathAndQuery::try_from(value).map_err(|_| MALFORMED)?;
    let path = path.as_str();
    let graphic = path.bytes().all(|octet| octet.is_ascii_graphic());
    graphic.then(|| path.to_owned()).ok_or(BAD)
}
