//! Tokens: the admission of a site as one line of text.

use std::{fmt, str::FromStr};

use base::{SiteName, WallTime};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use crate::{
    digest::{equal_in_constant_time, sha256},
    identity::Planet,
    key::{KeyError, random},
};

/// The longest text of a token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
const PREFIX: &str = "sealane1.";
/// The most tunnel addresses in a token.
const MAX_ADDRESSES: usize = 16;
/// The longest address and the longest id, in bytes.
const MAX_TEXT_BYTES: usize = 262;

/// The admission of one site: what a new node is started with. It prints itself as one line,
/// `sealane1.` and base64url; its `Debug` form hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Which Token resource this is; 1–262 visible ASCII characters.
    pub id: String,
    /// What proves it. Secret: keep only [`Token::secret_hash`].
    pub secret: [u8; 32],
    /// SHA-256 over the SubjectPublicKeyInfo of the fabric CA.
    pub ca_sha256: [u8; 32],
    /// Where to join: 1–16 addresses `HOST:PORT`, of PoPs (for a PoP: of the controller).
    pub addresses: Vec<String>,
    /// When it ends.
    pub expires_at: WallTime,
    /// The site it admits to.
    pub site: SiteName,
    /// The planet of that site.
    pub planet: Planet,
}

/// Everything of a [`Token`] but the secret, which [`Token::generate`] adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// As in [`Token`].
    pub id: String,
    /// As in [`Token`].
    pub ca_sha256: [u8; 32],
    /// As in [`Token`].
    pub addresses: Vec<String>,
    /// As in [`Token`].
    pub expires_at: WallTime,
    /// As in [`Token`].
    pub site: SiteName,
    /// As in [`Token`].
    pub planet: Planet,
}

/// Why a text is not a token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN_BYTES`].
    #[error("token has {0} bytes, more than {MAX_TOKEN_BYTES}")]
    TooLong(usize),
    /// Does not begin with `sealane1.`.
    #[error("token does not begin with {PREFIX:?}: was it copied whole?")]
    Prefix,
    /// The rest is not base64url.
    #[error("token is not base64url after {PREFIX:?}: was it copied whole?")]
    Base64(#[source] base64::DecodeError),
    /// The content does not have the right fields.
    #[error("content of the token is malformed")]
    Content(#[source] serde_json::Error),
    /// A field is out of bounds.
    #[error("{0} of the token is out of bounds")]
    Field(&'static str),
    /// The secret could not be generated.
    #[error("the secret of the token could not be generated")]
    Secret(#[source] KeyError),
}

/// The content of the text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Content {
    id: String,
    secret: String,
    ca_sha256: String,
    addresses: Vec<String>,
    expires_at: WallTime,
    site: SiteName,
    planet: Planet,
}

impl Token {
    /// A token with a new secret from the cryptographic generator.
    ///
    /// # Errors
    /// If a field is out of bounds or the generator fails.
    pub fn generate(new: NewToken) -> Result<Self, TokenError> {
        let NewToken {
            id,
            ca_sha256,
            addresses,
            expires_at,
            site,
            planet,
        } = new;
        let secret = random().map_err(TokenError::Secret)?;
        let token = Token {
            id,
            secret,
            ca_sha256,
            addresses,
            expires_at,
            site,
            planet,
        };
        token.checked()
    }

    /// What the controller keeps of the secret: its SHA-256. The secret has 256 random bits, so no
    /// slow hash is needed.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        sha256(&self.secret)
    }

    /// Does a presented secret have this hash? In constant time.
    #[must_use]
    pub fn secret_matches(secret_hash: &[u8; 32], presented: &[u8]) -> bool {
        equal_in_constant_time(secret_hash, &sha256(presented))
    }

    /// Has it ended?
    #[must_use]
    pub fn is_expired(&self, now: WallTime) -> bool {
        now >= self.expires_at
    }

    fn checked(self) -> Result<Self, TokenError> {
        let visible = |text: &str| {
            (1..=MAX_TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        };
        if !visible(&self.id) {
            return Err(TokenError::Field("id"));
        }
        let count = self.addresses.len();
        if !(1..=MAX_ADDRESSES).contains(&count) || !self.addresses.iter().all(|a| is_address(a)) {
            return Err(TokenError::Field("addresses"));
        }
        let length = self.to_string().len();
        if length > MAX_TOKEN_BYTES {
            Err(TokenError::TooLong(length))
        } else {
            Ok(self)
        }
    }
}

/// `HOST:PORT` with a port from 1; the host is a DNS name, an IPv4 address or `[IPv6]`.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_port =
        port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
    let is_host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.split('.').all(|l| l.parse::<base::Name>().is_ok()),
    };
    is_port && is_host
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let content = Content {
            id: self.id.clone(),
            secret: URL_SAFE_NO_PAD.encode(self.secret),
            ca_sha256: URL_SAFE_NO_PAD.encode(self.ca_sha256),
            addresses: self.addresses.clone(),
            expires_at: self.expires_at,
            site: self.site.clone(),
            planet: self.planet.clone(),
        };
        let json = serde_json::to_vec(&content).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    /// Reads a token; white space around it is ignored.
    fn from_str(s: &str) -> Result<Self, TokenError> {
        if s.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLong(s.len()));
        }
        let text = s
            .trim_ascii()
            .strip_prefix(PREFIX)
            .ok_or(TokenError::Prefix)?;
        let json = URL_SAFE_NO_PAD.decode(text).map_err(TokenError::Base64)?;
        let content: Content = serde_json::from_slice(&json).map_err(TokenError::Content)?;
        let bytes = |text: &str, field| {
            let decoded = URL_SAFE_NO_PAD.decode(text).map_err(TokenError::Base64)?;
            <[u8; 32]>::try_from(decoded).map_err(|_| TokenError::Field(field))
        };
        let token = Token {
            secret: bytes(&content.secret, "secret")?,
            ca_sha256: bytes(&content.ca_sha256, "caSha256")?,
            id: content.id,
            addresses: content.addresses,
            expires_at: content.expires_at,
            site: content.site,
            planet: content.planet,
        };
        token.checked()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .field("site", &self.site)
            .field("planet", &self.planet)
            .field("addresses", &self.addresses)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}
