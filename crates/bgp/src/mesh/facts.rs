//! Static facts of a set of endpoints: the TLVs of attribute 244.

use crate::cursor::{Cursor, len8, len16};

/// What all endpoints announced with one set of attributes have in common. Reflectors pass it on
/// unread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Type 1: the zone they are in, at most 63 octets.
    pub zone: Option<String>,
    /// Type 2: the protocols they speak, by their ALPN names (RFC 7301 §6), the preferred one
    /// first; at most 16 of 1…255 octets.
    pub protocols: Vec<String>,
    /// Type 3: SHA-256 of the identity they must show.
    pub identity: Option<[u8; 32]>,
}

impl Facts {
    const ZONE: u8 = 1;
    const PROTOCOLS: u8 = 2;
    const IDENTITY: u8 = 3;
    const MAX_ZONE: usize = 63;
    const MAX_PROTOCOLS: usize = 16;

    /// The attribute's value; what is over its limit is left out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let zone = self.zone.as_ref().map(String::as_bytes);
        if let Some(zone) = zone.filter(|zone| zone.len() <= Self::MAX_ZONE) {
            put(&mut out, Self::ZONE, zone);
        }
        let mut names = Vec::new();
        let good = |name: &&String| (1..=255).contains(&name.len());
        for name in self.protocols.iter().filter(good).take(Self::MAX_PROTOCOLS) {
            names.push(len8(name.len()));
            names.extend_from_slice(name.as_bytes());
        }
        if !names.is_empty() {
            put(&mut out, Self::PROTOCOLS, &names);
        }
        if let Some(identity) = &self.identity {
            put(&mut out, Self::IDENTITY, identity);
        }
        out
    }

    /// Read the attribute's value. Unknown types are ignored, and of one type that comes twice
    /// the second. `None` if a TLV runs over the end or a known one is malformed: then nothing of
    /// it counts.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let mut facts = Facts::default();
        let mut seen = [false; 4];
        let mut cursor = Cursor::new(value);
        while !cursor.is_empty() {
            let (kind, len) = (cursor.u8()?, cursor.u16()?);
            let octets = cursor.take(usize::from(len))?;
            let first = match seen.get_mut(usize::from(kind)) {
                Some(seen) => !std::mem::replace(seen, true),
                None => false,
            };
            match kind {
                Self::ZONE if first => facts.zone = Some(zone(octets)?),
                Self::PROTOCOLS if first => facts.protocols = protocols(octets)?,
                Self::IDENTITY if first => facts.identity = Some(octets.try_into().ok()?),
                _ => {}
            }
        }
        Some(facts)
    }
}

fn zone(octets: &[u8]) -> Option<String> {
    (octets.len() <= Facts::MAX_ZONE).then(|| text(octets))?
}

fn protocols(octets: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut cursor = Cursor::new(octets);
    while !cursor.is_empty() {
        let len = cursor.u8()?;
        if len == 0 || names.len() == Facts::MAX_PROTOCOLS {
            return None;
        }
        names.push(text(cursor.take(usize::from(len))?)?);
    }
    Some(names)
}

fn text(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    (!text.chars().any(char::is_control)).then(|| text.to_owned())
}

fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.extend(len16(value.len()).to_be_bytes());
    out.extend_from_slice(value);
}
