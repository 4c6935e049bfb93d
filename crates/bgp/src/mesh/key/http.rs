//! What a request must look like to fall under an HTTP route (type 4).

use std::{fmt, sync::Arc};

use super::KeyError;
use crate::cursor::{Cursor, len8, len16};

/// A host as it stands in a key: lower case, no final dot, at most 255 octets of visible ASCII
/// (an international name in its A-label form). Empty: every host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(Arc<str>);

impl Host {
    /// The longest host.
    pub const MAX: usize = 255;

    /// Check a host; it is not changed, so upper case is an error.
    ///
    /// # Errors
    /// [`KeyError::Host`].
    pub fn new(host: &str) -> Result<Self, KeyError> {
        if Self::is_good(host.as_bytes()) {
            Ok(Host(host.into()))
        } else {
            Err(KeyError::Host)
        }
    }

    /// The host as it stands in the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(in crate::mesh) fn is_good(octets: &[u8]) -> bool {
        octets.len() <= Self::MAX
            && octets.last() != Some(&b'.')
            && octets
                .iter()
                .all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "*" } else { &self.0 })
    }
}

/// A path or a pattern short enough to stand in a key: at most 200 octets of UTF-8 without
/// control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathText(Arc<str>);

impl PathText {
    /// The longest path; a longer one goes as its digest.
    pub const MAX: usize = 200;

    /// Check a path.
    ///
    /// # Errors
    /// [`KeyError::Path`].
    pub fn new(path: &str) -> Result<Self, KeyError> {
        if Self::is_good(path.as_bytes()) {
            Ok(PathText(path.into()))
        } else {
            Err(KeyError::Path)
        }
    }

    /// The path as it stands in the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(in crate::mesh) fn is_good(octets: &[u8]) -> bool {
        octets.len() <= Self::MAX
            && std::str::from_utf8(octets).is_ok_and(|text| !text.chars().any(char::is_control))
    }
}

/// The three ways to match a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PathKind {
    /// 1: the whole path.
    Exact = 1,
    /// 2: how it begins.
    Prefix = 2,
    /// 3: a regular expression.
    Regex = 3,
}

/// Which paths an HTTP route takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PathMatch {
    /// Kind 1: the whole path.
    Exact(PathText),
    /// Kind 2: how it begins.
    Prefix(PathText),
    /// Kind 3: a regular expression.
    Regex(PathText),
    /// Kind 4: a path of over 200 octets, of which only the digest travels: SHA-256 over the
    /// octet of its own kind and its octets.
    Digest([u8; 32]),
}

impl PathMatch {
    pub(in crate::mesh) const EXACT: u8 = PathKind::Exact as u8;
    pub(in crate::mesh) const PREFIX: u8 = PathKind::Prefix as u8;
    pub(in crate::mesh) const REGEX: u8 = PathKind::Regex as u8;
    pub(in crate::mesh) const DIGEST: u8 = 4;
    pub(in crate::mesh) const DIGEST_LEN: usize = 32;

    /// A path of any length; over 200 octets it becomes its digest. The hash is an argument
    /// because this room knows no cryptography.
    ///
    /// # Errors
    /// [`KeyError::Path`] for control characters.
    pub fn new(
        kind: PathKind,
        path: &str,
        sha256: impl FnOnce(&[u8]) -> [u8; 32],
    ) -> Result<Self, KeyError> {
        if path.len() > PathText::MAX {
            if path.chars().any(char::is_control) {
                return Err(KeyError::Path);
            }
            let mut octets = Vec::with_capacity(1 + path.len());
            octets.push(kind as u8);
            octets.extend_from_slice(path.as_bytes());
            return Ok(PathMatch::Digest(sha256(&octets)));
        }
        let path = PathText::new(path)?;
        Ok(match kind {
            PathKind::Exact => PathMatch::Exact(path),
            PathKind::Prefix => PathMatch::Prefix(path),
            PathKind::Regex => PathMatch::Regex(path),
        })
    }

    const fn kind(&self) -> u8 {
        match self {
            PathMatch::Exact(_) => Self::EXACT,
            PathMatch::Prefix(_) => Self::PREFIX,
            PathMatch::Regex(_) => Self::REGEX,
            PathMatch::Digest(_) => Self::DIGEST,
        }
    }

    fn octets(&self) -> &[u8] {
        match self {
            PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Regex(path) => {
                path.0.as_bytes()
            }
            PathMatch::Digest(digest) => digest,
        }
    }

    fn decode(kind: u8, octets: &[u8]) -> Result<Self, KeyError> {
        let text = || {
            let text = std::str::from_utf8(octets).map_err(|_| KeyError::Path)?;
            PathText::new(text)
        };
        Ok(match kind {
            Self::EXACT => PathMatch::Exact(text()?),
            Self::PREFIX => PathMatch::Prefix(text()?),
            Self::REGEX => PathMatch::Regex(text()?),
            Self::DIGEST => PathMatch::Digest(octets.try_into().map_err(|_| KeyError::Path)?),
            other => return Err(KeyError::PathKind(other)),
        })
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathMatch::Exact(path) => write!(f, "exact {}", path.0),
            PathMatch::Prefix(path) => write!(f, "prefix {}", path.0),
            PathMatch::Regex(path) => write!(f, "regex {}", path.0),
            PathMatch::Digest(digest) => {
                f.write_str("digest ")?;
                super::write_hex(f, digest)
            }
        }
    }
}

/// What a request must look like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HttpMatch {
    /// Its host.
    pub host: Host,
    /// Its path.
    pub path: PathMatch,
}

impl HttpMatch {
    pub(super) fn decode(cursor: &mut Cursor<'_>) -> Result<Self, KeyError> {
        let len = usize::from(cursor.u8().ok_or(KeyError::Short)?);
        let host = cursor.take(len).ok_or(KeyError::Short)?;
        let host = Host::new(std::str::from_utf8(host).map_err(|_| KeyError::Host)?)?;
        let kind = cursor.u8().ok_or(KeyError::Short)?;
        let len = usize::from(cursor.u16().ok_or(KeyError::Short)?);
        let path = PathMatch::decode(kind, cursor.take(len).ok_or(KeyError::Short)?)?;
        Ok(HttpMatch { host, path })
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(len8(self.host.0.len()));
        out.extend_from_slice(self.host.0.as_bytes());
        out.push(self.path.kind());
        let path = self.path.octets();
        out.extend(len16(path.len()).to_be_bytes());
        out.extend_from_slice(path);
    }
}
