//! What a field section says (RFC 9114 §4.2, §4.3).

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri, header,
    request::Parts,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::qpack::Section;
use crate::http1::body::may_trail;

/// A message that is none: it is never forwarded (RFC 9114 §4.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A request's head.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) parts: Parts,
    /// Of an extended CONNECT (RFC 9220).
    pub(crate) protocol: Option<String>,
    /// Octets that its body has to have.
    pub(crate) length: Option<u64>,
}

#[derive(Debug, Default)]
struct Pseudo<'s> {
    method: Option<&'s [u8]>,
    scheme: Option<&'s [u8]>,
    authority: Option<&'s [u8]>,
    path: Option<&'s [u8]>,
    protocol: Option<&'s [u8]>,
}

impl<'s> Pseudo<'s> {
    /// One of a request's, once (RFC 9114 §4.3.1).
    fn take(&mut self, name: &[u8], value: &'s [u8]) -> Result<(), Malformed> {
        let place = match name {
            b":method" => &mut self.method,
            b":scheme" => &mut self.scheme,
            b":authority" => &mut self.authority,
            b":path" => &mut self.path,
            b":protocol" => &mut self.protocol,
            _ => return Err(Malformed),
        };
        let twice = place.replace(value).is_some();
        (!twice).then_some(()).ok_or(Malformed)
    }

    fn method(&self) -> Result<Method, Malformed> {
        Method::from_bytes(self.method.ok_or(Malformed)?).map_err(|_| Malformed)
    }

    /// The target, of which CONNECT has only the authority (RFC 9114 §4.4).
    fn uri(&self, method: &Method) -> Result<Uri, Malformed> {
        let connects = *method == Method::CONNECT && self.protocol.is_none();
        if connects {
            let bare = self.scheme.is_none() && self.path.is_none();
            let authority = self.authority.filter(|_| bare).ok_or(Malformed)?;
            return Uri::try_from(authority).map_err(|_| Malformed);
        }
        if self.protocol.is_some() && *method != Method::CONNECT {
            return Err(Malformed);
        }
        let scheme = Scheme::try_from(self.scheme.ok_or(Malformed)?).map_err(|_| Malformed)?;
        let path = self.path.ok_or(Malformed)?;
        let good = path.starts_with(b"/") || (path == b"*" && *method == Method::OPTIONS);
        if !good {
            return Err(Malformed);
        }
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(PathAndQuery::try_from(path).map_err(|_| Malformed)?);
        if let Some(authority) = self.authority {
            parts.authority = Some(Authority::try_from(authority).map_err(|_| Malformed)?);
            parts.scheme = Some(scheme);
        }
        Uri::from_parts(parts).map_err(|_| Malformed)
    }
}

/// The head of a request.
pub(crate) fn head(section: &Section) -> Result<Head, Malformed> {
    let (mut pseudo, mut headers) = (Pseudo::default(), HeaderMap::new());
    for (name, value) in section.iter() {
        if name.starts_with(b":") {
            // RFC 9114 §4.3: they come first.
            if !headers.is_empty() {
                return Err(Malformed);
            }
            pseudo.take(name, value)?;
            continue;
        }
        if l7::headers::is_of_connection(name, value) {
            return Err(Malformed);
        }
        let (name, value) = field(name, value)?;
        headers.try_append(name, value).map_err(|_| Malformed)?;
    }
    let method = pseudo.method()?;
    let uri = pseudo.uri(&method)?;
    let protocol = pseudo.protocol.map(|text| std::str::from_utf8(text));
    let protocol = protocol.transpose().map_err(|_| Malformed)?;
    let protocol = protocol.map(str::to_owned);
    let length = length(&headers)?;
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.headers = headers;
    Ok(Head {
        parts,
        protocol,
        length,
    })
}

/// Trailers, without what may not be one.
pub(crate) fn trailers(section: &Section) -> Result<Option<HeaderMap>, Malformed> {
    let mut headers = HeaderMap::new();
    for (name, value) in section.iter() {
        // RFC 9114 §4.3: no pseudo-header field, which is no name either.
        let (name, value) = field(name, value)?;
        if may_trail(&name) {
            headers.try_append(name, value).map_err(|_| Malformed)?;
        }
    }
    Ok(Some(headers).filter(|headers| !headers.is_empty()))
}

/// A name in lower case and a value, as RFC 9110 §5.1 and §5.5 say.
fn field(name: &[u8], value: &[u8]) -> Result<(HeaderName, HeaderValue), Malformed> {
    let name = HeaderName::from_lowercase(name).map_err(|_| Malformed)?;
    let value = HeaderValue::from_bytes(value).map_err(|_| Malformed)?;
    Ok((name, value))
}

/// `content-length`: one number, however often it is said.
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut length = None;
    for value in headers.get_all(header::CONTENT_LENGTH) {
        let digits = !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
        let text = value.to_str().ok().filter(|_| digits);
        let said = text.and_then(|text| text.parse().ok()).ok_or(Malformed)?;
        if length.is_some_and(|before| before != said) {
            return Err(Malformed);
        }
        length = Some(said);
    }
    Ok(length)
}
