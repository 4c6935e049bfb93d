//! The PROXY protocol, versions 1 and 2: whoever passes a connection on says whose it is
//! (HAProxy's `proxy-protocol.txt`).
//!
//! Strict, and bounded: a header that somebody could read in another way is refused, and with it
//! the connection.

mod senders;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use senders::{Expected, SenderError, Senders};

use crate::Addresses;

/// The most octets of a header of version 1 (§2.1).
pub const MAX_V1: usize = 107;
/// The most octets of a header of version 2 that are taken.
pub const MAX_V2: usize = 536;

/// What a header begins with (§2.1, §2.2).
const V1: &[u8] = b"PROXY ";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Octets of version 2 before the addresses.
const V2_HEAD: usize = 16;
/// The type that checks the whole header (§2.2.3).
const TLV_CRC32C: u8 = 3;

/// Which of the two is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary.
    V2,
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader {
    /// Whose connection it is; `None`: the sender's own (LOCAL), or nobody knows.
    pub addresses: Option<Addresses>,
    /// Octets that the header has.
    pub length: usize,
}

/// Why it is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// It does not begin like one.
    #[error("not a PROXY header")]
    Absent,
    /// Longer than it may be.
    #[error("too long")]
    TooLong,
    /// A part of it is not as it should be.
    #[error("malformed: {0}")]
    Malformed(&'static str),
}

impl ProxyHeader {
    /// Read the header that `octets` begin with; `None`: there is more to come.
    ///
    /// # Errors
    /// See [`ProxyError`].
    pub fn read(octets: &[u8]) -> Result<Option<Self>, ProxyError> {
        let begins = |whole: &[u8]| octets.iter().zip(whole).all(|(a, b)| a == b);
        if begins(V1) {
            return v1(octets);
        }
        if begins(V2) {
            return v2(octets);
        }
        Err(ProxyError::Absent)
    }
}

fn v1(octets: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    let seen = octets.get(..MAX_V1).unwrap_or(octets);
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if seen.len() == MAX_V1 {
            Err(ProxyError::TooLong)
        } else {
            Ok(None)
        };
    };
    let line = octets.get(V1.len()..end);
    let line = line.and_then(|line| std::str::from_utf8(line).ok());
    let line = line.ok_or(ProxyError::Malformed("the line"))?;
    let header = |addresses| {
        Ok(Some(ProxyHeader {
            addresses,
            length: end + 2,
        }))
    };
    // What stands behind it is to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return header(None);
    }
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (family, source, destination) = (word(), word(), word());
    let (from, to) = (port(word())?, port(word())?);
    if words.next().is_some() {
        return Err(ProxyError::Malformed("the line"));
    }
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (Some(source), Some(destination)) = (ip(source), ip(destination)) else {
        return Err(ProxyError::Malformed("the addresses"));
    };
    header(Some(Addresses {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    }))
}

/// Digits alone, and no needless ones.
fn port(text: &str) -> Result<u16, ProxyError> {
    let plain = text.bytes().all(|octet| octet.is_ascii_digit());
    let short = text == "0" || !text.starts_with('0');
    let port = text.parse().ok().filter(|_| plain && short);
    port.ok_or(ProxyError::Malformed("the ports"))
}

fn v2(octets: &[u8]) -> Result<Option<ProxyHeader>, ProxyError> {
    // The version and its command are looked at before what they announce has come.
    let command = octets.get(V2.len());
    if command.is_some_and(|command| !matches!(command, 0x20 | 0x21)) {
        return Err(ProxyError::Malformed("the version or command"));
    }
    let Some(&[_, family, high, low]) = octets.get(V2.len()..V2_HEAD) else {
        return Ok(None);
    };
    let length = V2_HEAD + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(ProxyError::TooLong);
    }
    let Some(whole) = octets.get(..length) else {
        return Ok(None);
    };
    let body = whole.get(V2_HEAD..).unwrap_or_default();
    let addresses = if command == Some(&0x20) {
        None
    } else {
        let (addresses, rest) = ends(family, body)?;
        extras(whole, rest)?;
        addresses
    };
    Ok(Some(ProxyHeader { addresses, length }))
}

/// The addresses, and what follows them.
fn ends(family: u8, body: &[u8]) -> Result<(Option<Addresses>, &[u8]), ProxyError> {
    let short = ProxyError::Malformed("the addresses");
    let port = |octets: &[u8]| {
        octets
            .iter()
            .fold(0, |sum, octet| sum << 8 | u16::from(*octet))
    };
    match family {
        0x11 => {
            let (a, rest) = body.split_first_chunk::<12>().ok_or(short)?;
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(a[at], a[at + 1], a[at + 2], a[at + 3]));
            let addresses = Addresses {
                source: SocketAddr::new(ip(0), port(&a[8..10])),
                destination: SocketAddr::new(ip(4), port(&a[10..])),
            };
            Ok((Some(addresses), rest))
        }
        0x21 => {
            let (source, rest) = body.split_first_chunk::<16>().ok_or(short)?;
            let (destination, rest) = rest.split_first_chunk::<16>().ok_or(short)?;
            let (ports, rest) = rest.split_first_chunk::<4>().ok_or(short)?;
            let ip = |octets: &[u8; 16]| IpAddr::V6(Ipv6Addr::from(*octets));
            let addresses = Addresses {
                source: SocketAddr::new(ip(source), port(&ports[..2])),
                destination: SocketAddr::new(ip(destination), port(&ports[2..])),
            };
            Ok((Some(addresses), rest))
        }
        // A socket of the sender's own machine says nothing to us.
        0x31 => Ok((None, body.get(216..).ok_or(short)?)),
        0x00 => Ok((None, body)),
        _ => Err(ProxyError::Malformed("the family")),
    }
}

/// What follows the addresses is passed over, but for the check of the whole (§2.2).
fn extras(whole: &[u8], mut rest: &[u8]) -> Result<(), ProxyError> {
    let bad = ProxyError::Malformed("what follows the addresses");
    let mut checked = false;
    while !rest.is_empty() {
        let (head, more) = rest.split_first_chunk::<3>().ok_or(bad)?;
        let length = usize::from(u16::from_be_bytes([head[1], head[2]]));
        let (value, more) = more.split_at_checked(length).ok_or(bad)?;
        if head[0] == TLV_CRC32C {
            let value: &[u8; 4] = value.try_into().map_err(|_| bad)?;
            let at = whole.len() - more.len() - value.len();
            if checked || crc32c(whole, at) != u32::from_be_bytes(*value) {
                return Err(ProxyError::Malformed("the checksum"));
            }
            checked = true;
        }
        rest = more;
    }
    Ok(())
}

/// CRC-32C (RFC 4960 appendix B), the four octets from `zeroed` on taken for zeros.
fn crc32c(octets: &[u8], zeroed: usize) -> u32 {
    let hidden = zeroed..zeroed + 4;
    let taken = octets.iter().enumerate();
    let taken = taken.map(|(at, octet)| if hidden.contains(&at) { 0 } else { *octet });
    !taken.fold(u32::MAX, |crc, octet| {
        (0..8).fold(crc ^ u32::from(octet), |crc, _| {
            (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 }
        })
    })
}

impl ProxyVersion {
    /// Append the header that says whose a connection is; `None`: ours. Of two address families
    /// the longer one is spoken, in which the shorter one has a place.
    pub fn write(self, addresses: Option<&Addresses>, out: &mut Vec<u8>) {
        let Some(addresses) = addresses else {
            match self {
                ProxyVersion::V1 => out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
                ProxyVersion::V2 => {
                    out.extend_from_slice(V2);
                    out.extend_from_slice(&[0x20, 0, 0, 0]);
                }
            }
            return;
        };
        let (source, destination) = (addresses.source, addresses.destination);
        let ports = [source.port(), destination.port()];
        let ips = (source.ip().to_canonical(), destination.ip().to_canonical());
        match (self, ips) {
            (ProxyVersion::V1, (IpAddr::V4(a), IpAddr::V4(b))) => {
                let line = format!("PROXY TCP4 {a} {b} {} {}\r\n", ports[0], ports[1]);
                out.extend_from_slice(line.as_bytes());
            }
            (ProxyVersion::V1, (a, b)) => {
                let (a, b) = (mapped(a), mapped(b));
                let line = format!("PROXY TCP6 {a} {b} {} {}\r\n", ports[0], ports[1]);
                out.extend_from_slice(line.as_bytes());
            }
            (ProxyVersion::V2, (IpAddr::V4(a), IpAddr::V4(b))) => {
                binary(out, 0x11, &[a.octets(), b.octets()].concat(), ports);
            }
            (ProxyVersion::V2, (a, b)) => {
                let both = [mapped(a).octets(), mapped(b).octets()].concat();
                binary(out, 0x21, &both, ports);
            }
        }
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

fn binary(out: &mut Vec<u8>, family: u8, ips: &[u8], ports: [u16; 2]) {
    let length = if family == 0x11 { 12 } else { 36 };
    out.extend_from_slice(V2);
    out.extend_from_slice(&[0x21, family, 0, length]);
    out.extend_from_slice(ips);
    for port in ports {
        out.extend_from_slice(&port.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
