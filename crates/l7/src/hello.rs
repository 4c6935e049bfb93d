//! What a client says first over TLS: for whom it asks, and what it can speak (RFC 8446 §4.1.2).
//!
//! Strict, and bounded: it decides whose connection this is. What an endpoint's TLS would read in
//! another way is refused.

use crate::host_of;

/// The most octets of a ClientHello with the records around it.
pub const MAX_HELLO: usize = 16 << 10;
/// The most extensions; today's clients send about twenty.
const MAX_EXTENSIONS: usize = 128;

/// Record and message types, extensions, name types (RFC 8446 §5.1, §4, §4.2; RFC 6066 §3).
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: u16 = 0;
const ALPN: u16 = 16;
const HOST_NAME: u8 = 0;

/// For whom a client asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// The server name, normalised by [`host_of`]; `None`: it names nobody.
    pub server_name: Option<String>,
    /// The protocols it can speak, as it prefers them (RFC 7301 §3.1).
    pub alpn: Vec<Vec<u8>>,
}

/// Why it is no ClientHello.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// Something else than TLS.
    #[error("not TLS")]
    NotTls,
    /// Longer than [`MAX_HELLO`].
    #[error("too long")]
    TooLong,
    /// A part of it is not as it should be.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

/// Reads one ClientHello, in however many records and pieces it comes. Each octet is looked at
/// once.
#[derive(Clone, Debug, Default)]
pub struct HelloReader {
    /// Where the next record begins.
    at: usize,
    /// The message without the records around it.
    message: Vec<u8>,
}

impl HelloReader {
    /// Read on; `octets` is all that came so far, from the first. `None`: there is more to come.
    ///
    /// # Errors
    /// See [`HelloError`].
    pub fn read(&mut self, octets: &[u8]) -> Result<Option<Hello>, HelloError> {
        loop {
            if let Some(body) = self.body()? {
                return parse(body).map(Some);
            }
            let rest = octets.get(self.at..).unwrap_or_default();
            let Some(payload) = record(rest)? else {
                let all = octets.len() >= MAX_HELLO;
                return if all {
                    Err(HelloError::TooLong)
                } else {
                    Ok(None)
                };
            };
            self.message.extend_from_slice(payload);
            self.at += RECORD_HEADER + payload.len();
        }
    }

    /// The body of the message, if it is all there.
    fn body(&self) -> Result<Option<&[u8]>, HelloError> {
        let Some((kind, rest)) = self.message.split_first() else {
            return Ok(None);
        };
        if *kind != CLIENT_HELLO {
            return Err(HelloError::NotTls);
        }
        let Some((length, rest)) = rest.split_first_chunk::<3>() else {
            return Ok(None);
        };
        let [a, b, c] = length.map(usize::from);
        let length = a << 16 | b << 8 | c;
        if length > MAX_HELLO {
            return Err(HelloError::TooLong);
        }
        Ok(rest.get(..length))
    }
}

const RECORD_HEADER: usize = 5;

/// The content of the next record (RFC 8446 §5.1), if it is all there.
fn record(octets: &[u8]) -> Result<Option<&[u8]>, HelloError> {
    if octets.first().is_some_and(|kind| *kind != HANDSHAKE)
        || octets.get(1).is_some_and(|major| *major != 3)
        || octets.get(2).is_some_and(|minor| *minor > 4)
    {
        return Err(HelloError::NotTls);
    }
    let Some((header, rest)) = octets.split_first_chunk::<RECORD_HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    if length == 0 {
        return Err(HelloError::Malformed("an empty record"));
    }
    if length > MAX_HELLO {
        return Err(HelloError::TooLong);
    }
    Ok(rest.get(..length))
}

fn parse(body: &[u8]) -> Result<Hello, HelloError> {
    let mut body = Octets(body);
    body.take(2, "version")?;
    body.take(32, "random")?;
    if body.vec8("session id")?.len() > 32 {
        return Err(HelloError::Malformed("session id"));
    }
    let suites = body.vec16("cipher suites")?;
    if suites.is_empty() || suites.len() % 2 != 0 {
        return Err(HelloError::Malformed("cipher suites"));
    }
    if body.vec8("compression methods")?.is_empty() {
        return Err(HelloError::Malformed("compression methods"));
    }
    let mut hello = Hello::default();
    if body.0.is_empty() {
        return Ok(hello);
    }
    let mut extensions = Octets(body.vec16("extensions")?);
    body.end("extensions")?;
    let mut seen: Vec<u16> = Vec::new();
    while !extensions.0.is_empty() {
        let kind = extensions.number("extensions")?;
        let data = extensions.vec16("extensions")?;
        if seen.contains(&kind) || seen.len() >= MAX_EXTENSIONS {
            return Err(HelloError::Malformed("extensions"));
        }
        seen.push(kind);
        match kind {
            SERVER_NAME => hello.server_name = Some(server_name(data)?),
            ALPN => hello.alpn = protocols(data)?,
            _ => {}
        }
    }
    Ok(hello)
}

/// One host name (RFC 6066 §3), which has no port.
fn server_name(data: &[u8]) -> Result<String, HelloError> {
    const WHAT: &str = "server name";
    let mut data = Octets(data);
    let mut list = Octets(data.vec16(WHAT)?);
    data.end(WHAT)?;
    if list.take(1, WHAT)? != [HOST_NAME] {
        return Err(HelloError::Malformed(WHAT));
    }
    let name = list.vec16(WHAT)?;
    list.end(WHAT)?;
    let name = std::str::from_utf8(name).ok();
    let name = name.filter(|name| !name.contains([':', '[']));
    let name = name.and_then(host_of).ok_or(HelloError::Malformed(WHAT))?;
    Ok(name.into_owned())
}

fn protocols(data: &[u8]) -> Result<Vec<Vec<u8>>, HelloError> {
    const WHAT: &str = "protocols";
    let mut data = Octets(data);
    let mut list = Octets(data.vec16(WHAT)?);
    data.end(WHAT)?;
    let mut protocols = Vec::new();
    while !list.0.is_empty() {
        let one = list.vec8(WHAT)?;
        if one.is_empty() {
            return Err(HelloError::Malformed(WHAT));
        }
        protocols.push(one.to_vec());
    }
    if protocols.is_empty() {
        return Err(HelloError::Malformed(WHAT));
    }
    Ok(protocols)
}

/// Octets to take from.
struct Octets<'a>(&'a [u8]);

impl<'a> Octets<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], HelloError> {
        let split = self.0.split_at_checked(count);
        let (taken, rest) = split.ok_or(HelloError::Malformed(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn number(&mut self, what: &'static str) -> Result<u16, HelloError> {
        let octets = self.take(2, what)?;
        Ok(octets
            .iter()
            .fold(0, |sum, octet| sum << 8 | u16::from(*octet)))
    }

    /// A vector with a length of one octet (RFC 8446 §3.4).
    fn vec8(&mut self, what: &'static str) -> Result<&'a [u8], HelloError> {
        let length = self
            .take(1, what)?
            .iter()
            .map(|octet| usize::from(*octet))
            .sum();
        self.take(length, what)
    }

    /// A vector with a length of two octets.
    fn vec16(&mut self, what: &'static str) -> Result<&'a [u8], HelloError> {
        let length = usize::from(self.number(what)?);
        self.take(length, what)
    }

    fn end(&self, what: &'static str) -> Result<(), HelloError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(HelloError::Malformed(what))
        }
    }
}

#[cfg(test)]
mod tests;
