//! What a stream says about itself: the head of its CONNECT request.

use std::{fmt, net::SocketAddr, str::FromStr};

use base::{Name, NetworkId, SiteId, SiteName};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header::HeaderName};

/// Authorities under this domain are for control, never for a Service.
pub const RESERVED_DOMAIN: &str = "sealane.internal";
/// The most bytes all fields of a head may have together (RFC 9113 §6.5.2 counting).
pub const MAX_HEAD_BYTES: u32 = 8 * 1024;

/// What the authority of a stream begins with of which no more than its tenant is to be known.
const SEALED: &str = "sealed.";

/// The most sites a stream is still to be passed on to.
pub const MAX_VIA: usize = path::MAX_HOPS - 1;

const MAX_AUTHORITY: usize = 255;
const MAX_FIELD: usize = 512;
/// Fields a head may have, those that are not known here among them.
const MAX_FIELDS: usize = 32;

const ENDPOINT: HeaderName = HeaderName::from_static("sealane-endpoint");
const LB: HeaderName = HeaderName::from_static("sealane-lb");
const CLIENT: HeaderName = HeaderName::from_static("sealane-client");
const TRACE: HeaderName = HeaderName::from_static("sealane-trace");
const ORIGIN: HeaderName = HeaderName::from_static("sealane-origin");
const VIA: HeaderName = HeaderName::from_static("sealane-via");
const NODE: HeaderName = HeaderName::from_static("sealane-node");
pub(crate) const REASON: HeaderName = HeaderName::from_static("sealane-reason");

/// One endpoint of a Service: where it is and how it is reached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointRef {
    /// The site that runs it.
    pub site: SiteId,
    /// The network inside that site; 0 is the site's own.
    pub network: NetworkId,
    /// Its address in that network.
    pub address: SocketAddr,
}

/// The two ends of a client's connection, as the client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRef {
    /// The client.
    pub source: SocketAddr,
    /// What it has connected to.
    pub destination: SocketAddr,
}

/// The head of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamHead {
    /// `SERVICE.NAMESPACE.TENANT:PORT`, `sealed.TENANT`, or a name under [`RESERVED_DOMAIN`]. At
    /// most 255 of `a-z 0-9 - .` and an optional port.
    pub authority: String,
    /// The endpoint the ingress picked.
    pub endpoint: Option<EndpointRef>,
    /// The load balancer the request came through. At most 512 visible ASCII characters.
    pub lb: Option<String>,
    /// Whose connection it is, where the endpoint is to be told.
    pub client: Option<ClientRef>,
    /// W3C `traceparent`. At most 512 visible ASCII characters.
    pub trace: Option<String>,
    /// The site a relay forwards for; the peer vouches for it.
    pub origin: Option<SiteName>,
    /// The node of that site.
    pub node: Option<Name>,
    /// The sites over which the receiver is to pass the stream on, the destination last; at most
    /// [`MAX_VIA`]. None: it is the destination.
    pub via: Vec<SiteName>,
}

/// Why a head is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not the text of a request.
    #[error("the head is malformed")]
    Text,
    /// Not a CONNECT request.
    #[error("the method is not CONNECT")]
    Method,
    /// The authority is missing, too long or has other characters.
    #[error("the authority is malformed")]
    Authority,
    /// A field is malformed or there twice.
    #[error("the field {0} is malformed")]
    Field(&'static str),
}

impl HeadError {
    /// The status that answers it.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            HeadError::Method => StatusCode::METHOD_NOT_ALLOWED,
            HeadError::Text | HeadError::Authority | HeadError::Field(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl StreamHead {
    /// A head with nothing but an authority.
    #[must_use]
    pub fn to(authority: impl Into<String>) -> Self {
        StreamHead {
            authority: authority.into(),
            ..StreamHead::default()
        }
    }

    /// The head of a stream of this tenant that is sealed: what it is for is said inside ([`Seal`]).
    ///
    /// [`Seal`]: crate::Seal
    #[must_use]
    pub fn sealed(tenant: &Name) -> Self {
        StreamHead::to(format!("{SEALED}{tenant}"))
    }

    /// Whose stream it is, if it is sealed. An application address has one label more, and a port.
    #[must_use]
    pub fn tenant_of_sealed(&self) -> Option<Name> {
        self.authority.strip_prefix(SEALED)?.parse().ok()
    }

    /// Is the authority for control?
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        let host = self
            .authority
            .rsplit_once(':')
            .map_or(&*self.authority, |(host, _)| host);
        host.strip_suffix(RESERVED_DOMAIN)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }

    /// The CONNECT request that carries this head.
    ///
    /// # Errors
    /// A part does not keep its bounds.
    pub fn to_request(&self) -> Result<Request<()>, HeadError> {
        check_authority(&self.authority)?;
        let uri: Uri = self.authority.parse().map_err(|_| HeadError::Authority)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        if let Some(endpoint) = &self.endpoint {
            headers.insert(ENDPOINT, value(&endpoint.to_string(), "sealane-endpoint")?);
        }
        if let Some(lb) = &self.lb {
            headers.insert(LB, value(lb, "sealane-lb")?);
        }
        if let Some(client) = &self.client {
            headers.insert(CLIENT, value(&client.to_string(), "sealane-client")?);
        }
        if let Some(trace) = &self.trace {
            headers.insert(TRACE, value(trace, "sealane-trace")?);
        }
        if let Some(origin) = &self.origin {
            headers.insert(ORIGIN, value(&origin.to_string(), "sealane-origin")?);
        }
        if let Some(node) = &self.node {
            headers.insert(NODE, value(node.as_str(), "sealane-node")?);
        }
        if !self.via.is_empty() {
            headers.insert(VIA, value(&written(&self.via)?, "sealane-via")?);
        }
        Ok(request)
    }

    /// The same request as text, as HTTP/1.1 writes it (RFC 9112 §2.1).
    ///
    /// # Errors
    /// A part does not keep its bounds.
    pub(crate) fn to_text(&self) -> Result<Vec<u8>, HeadError> {
        let request = self.to_request()?;
        let mut text = format!("CONNECT {} HTTP/1.1\r\n", self.authority).into_bytes();
        for (name, value) in request.headers() {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        Ok(text)
    }

    /// The head that such a text is, and nothing else.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub(crate) fn from_text(text: &[u8]) -> Result<Self, HeadError> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        match parsed.parse(text) {
            Ok(httparse::Status::Complete(length)) if length == text.len() => {}
            Ok(_) | Err(_) => return Err(HeadError::Text),
        }
        if parsed.method != Some("CONNECT") {
            return Err(HeadError::Method);
        }
        let authority = parsed.path.ok_or(HeadError::Authority)?;
        check_authority(authority)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = authority.parse().map_err(|_| HeadError::Authority)?;
        for field in parsed.headers.iter() {
            let name =
                HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Text)?;
            let value = HeaderValue::from_bytes(field.value).map_err(|_| HeadError::Text)?;
            request.headers_mut().append(name, value);
        }
        StreamHead::from_request(&request)
    }

    /// The head a CONNECT request carries. Fields it does not know are ignored, a known one that
    /// is malformed or there twice is not.
    ///
    /// # Errors
    /// See [`HeadError`].
    pub fn from_request<B>(request: &Request<B>) -> Result<Self, HeadError> {
        if request.method() != Method::CONNECT {
            return Err(HeadError::Method);
        }
        let authority = request
            .uri()
            .authority()
            .ok_or(HeadError::Authority)?
            .as_str();
        check_authority(authority)?;
        let headers = request.headers();
        Ok(StreamHead {
            authority: authority.to_owned(),
            endpoint: parsed(headers, &ENDPOINT, "sealane-endpoint")?,
            lb: text(headers, &LB, "sealane-lb")?.map(str::to_owned),
            client: parsed(headers, &CLIENT, "sealane-client")?,
            trace: text(headers, &TRACE, "sealane-trace")?.map(str::to_owned),
            origin: parsed(headers, &ORIGIN, "sealane-origin")?,
            node: parsed(headers, &NODE, "sealane-node")?,
            via: read(headers)?,
        })
    }
}

fn written(via: &[SiteName]) -> Result<String, HeadError> {
    if via.len() > MAX_VIA {
        return Err(HeadError::Field("sealane-via"));
    }
    let sites: Vec<String> = via.iter().map(SiteName::to_string).collect();
    Ok(sites.join(","))
}

fn read(headers: &HeaderMap) -> Result<Vec<SiteName>, HeadError> {
    let malformed = HeadError::Field("sealane-via");
    let Some(text) = text(headers, &VIA, "sealane-via")? else {
        return Ok(Vec::new());
    };
    let mut via = Vec::new();
    for site in text.split(',') {
        if via.len() == MAX_VIA {
            return Err(malformed);
        }
        via.push(site.parse().map_err(|_| malformed.clone())?);
    }
    Ok(via)
}

fn check_authority(authority: &str) -> Result<(), HeadError> {
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.');
    let host_ok = !host.is_empty() && host.len() <= MAX_AUTHORITY && host.bytes().all(plain);
    let port_ok = port.is_none_or(|port| {
        !port.starts_with('0') && !port.starts_with('+') && port.parse::<u16>().is_ok()
    });
    if host_ok && port_ok {
        Ok(())
    } else {
        Err(HeadError::Authority)
    }
}

fn check_text(text: &str) -> bool {
    (1..=MAX_FIELD).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn value(text: &str, field: &'static str) -> Result<HeaderValue, HeadError> {
    if !check_text(text) {
        return Err(HeadError::Field(field));
    }
    HeaderValue::from_str(text).map_err(|_| HeadError::Field(field))
}

fn text<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    field: &'static str,
) -> Result<Option<&'a str>, HeadError> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Ok(None);
    };
    let text = first.to_str().ok().filter(|text| check_text(text));
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text)),
        _ => Err(HeadError::Field(field)),
    }
}

fn parsed<T: FromStr>(
    headers: &HeaderMap,
    name: &HeaderName,
    field: &'static str,
) -> Result<Option<T>, HeadError> {
    let parse = |text: &str| text.parse().map_err(|_| HeadError::Field(field));
    text(headers, name, field)?.map(parse).transpose()
}

impl fmt::Display for EndpointRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.site, self.network, self.address)
    }
}

/// A text is not `SITE/NETWORK/ADDRESS:PORT` in its one canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not SITE/NETWORK/ADDRESS:PORT")]
pub struct EndpointRefError;

impl FromStr for EndpointRef {
    type Err = EndpointRefError;

    fn from_str(s: &str) -> Result<Self, EndpointRefError> {
        let mut parts = s.splitn(3, '/');
        let mut part = || parts.next().ok_or(EndpointRefError);
        let (site, network, address) = (part()?, part()?, part()?);
        let endpoint = EndpointRef {
            site: SiteId(site.parse().map_err(|_| EndpointRefError)?),
            network: NetworkId(network.parse().map_err(|_| EndpointRefError)?),
            address: address.parse().map_err(|_| EndpointRefError)?,
        };
        if endpoint.to_string() == s {
            Ok(endpoint)
        } else {
            Err(EndpointRefError)
        }
    }
}

impl fmt::Display for ClientRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.destination)
    }
}

/// A text is not `SOURCE:PORT/DESTINATION:PORT` in its one canonical form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not SOURCE:PORT/DESTINATION:PORT")]
pub struct ClientRefError;

impl FromStr for ClientRef {
    type Err = ClientRefError;

    fn from_str(s: &str) -> Result<Self, ClientRefError> {
        let (source, destination) = s.split_once('/').ok_or(ClientRefError)?;
        let client = ClientRef {
            source: source.parse().map_err(|_| ClientRefError)?,
            destination: destination.parse().map_err(|_| ClientRefError)?,
        };
        if client.to_string() == s {
            Ok(client)
        } else {
            Err(ClientRefError)
        }
    }
}

#[cfg(test)]
mod tests;
