//! The compact form of a signed token (RFC 7515 §7.1).

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{Claims, TokenError, keys::Algorithm};

/// A token, taken apart; nothing in it is to be believed before its signature was verified.
pub(super) struct Token<'t> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    pub(super) claims: Claims,
    /// What is signed.
    pub(super) signed: &'t str,
    pub(super) signature: Vec<u8>,
}

impl<'t> Token<'t> {
    pub(super) fn parse(text: &'t str) -> Result<Self, TokenError> {
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Syntax)?;
        let (header, payload) = signed.split_once('.').ok_or(TokenError::Syntax)?;
        let header = object(header)?;
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let algorithm = header.get("alg").and_then(Value::as_str);
        let algorithm = algorithm.ok_or(TokenError::Syntax)?;
        let algorithm = Algorithm::of(algorithm).ok_or(TokenError::Algorithm)?;
        let key_id = match header.get("kid") {
            None => None,
            Some(Value::String(id)) => Some(id.clone()),
            Some(_) => return Err(TokenError::Syntax),
        };
        Ok(Token {
            algorithm,
            key_id,
            claims: Claims(object(payload)?),
            signed,
            signature: octets(signature)?,
        })
    }
}

/// Without padding, and with one spelling only.
fn octets(text: &str) -> Result<Vec<u8>, TokenError> {
    let read = BASE64_URL_SAFE_NO_PAD.decode(text);
    read.map_err(|_| TokenError::Syntax)
}

fn object(text: &str) -> Result<Map<String, Value>, TokenError> {
    serde_json::from_slice(&octets(text)?).map_err(|_| TokenError::Syntax)
}
