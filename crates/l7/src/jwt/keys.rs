//! The keys of a provider (RFC 7517, RFC 7518 §6, RFC 8037).

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::Value;

use super::{TokenError, token::Token};

/// The most octets of a key set, and keys in it.
const MAX_OCTETS: usize = 64 << 10;
const MAX_KEYS: usize = 64;
/// The most keys that are tried on a token that names none.
const MAX_TRIED: usize = 4;

/// How a token is signed. `none` and what needs a shared secret are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::Rs384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::Rs512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::Ps384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::Ps512, &RSA_PSS_2048_8192_SHA512),
];

impl Algorithm {
    pub(super) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Algorithm::Rs256,
            "RS384" => Algorithm::Rs384,
            "RS512" => Algorithm::Rs512,
            "PS256" => Algorithm::Ps256,
            "PS384" => Algorithm::Ps384,
            "PS512" => Algorithm::Ps512,
            "ES256" => Algorithm::Es256,
            "ES384" => Algorithm::Es384,
            // RFC 9864 §2.2 gives it another name.
            "EdDSA" | "Ed25519" => Algorithm::EdDsa,
            _ => return None,
        })
    }
}

/// A key, ready for each algorithm that it may be used with: no token can choose another.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    ways: Vec<(Algorithm, ParsedPublicKey)>,
}

/// The keys of a provider.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
    version: u64,
}

/// Why a text is no key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It is too long.
    #[error("more than 64 KiB")]
    Long,
    /// It is not JSON with `keys`.
    #[error("not a JSON Web Key Set: {{\"keys\": [...]}} is expected")]
    Syntax,
    /// There are too many keys.
    #[error("more than 64 keys")]
    Many,
    /// None of them can verify a token.
    #[error("no key that verifies tokens: RSA of at least 2,048 bits, P-256, P-384 or Ed25519")]
    None,
}

impl KeySet {
    /// Read a JSON Web Key Set. Keys that cannot verify are left out (RFC 7517 §5).
    ///
    /// # Errors
    /// See [`KeySetError`].
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        if text.len() > MAX_OCTETS {
            return Err(KeySetError::Long);
        }
        let set: Value = serde_json::from_str(text).map_err(|_| KeySetError::Syntax)?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or(KeySetError::Syntax)?;
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::Many);
        }
        let keys: Vec<Key> = keys.iter().filter_map(Key::parse).collect();
        if keys.is_empty() {
            return Err(KeySetError::None);
        }
        Ok(KeySet {
            keys,
            version: balance::stable_hash(text.as_bytes()),
        })
    }

    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn verify(&self, token: &Token<'_>) -> Result<(), TokenError> {
        let named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        let keys = self.keys.iter().filter(named).filter_map(|key| {
            let mut ways = key.ways.iter();
            ways.find(|(algorithm, _)| *algorithm == token.algorithm)
        });
        let keys: Vec<_> = keys.collect();
        if keys.is_empty() || keys.len() > MAX_TRIED {
            return Err(TokenError::Key);
        }
        let message = token.signed.as_bytes();
        let mut keys = keys.iter();
        let fits = keys.any(|(_, key)| key.verify_sig(message, &token.signature).is_ok());
        if fits {
            Ok(())
        } else {
            Err(TokenError::Signature)
        }
    }
}

impl Key {
    /// A key that verifies; `None`: it is for something else.
    fn parse(key: &Value) -> Option<Self> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let octets = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        if text("use").is_some_and(|used| used != "sig") {
            return None;
        }
        let operations = key.get("key_ops").and_then(Value::as_array);
        if operations.is_some_and(|list| !list.iter().any(|one| one == "verify")) {
            return None;
        }
        let mut ways = match (text("kty")?, text("crv")) {
            ("RSA", _) => rsa(octets("n")?, octets("e")?)?,
            ("EC", Some("P-256")) => point(
                Algorithm::Es256,
                &ECDSA_P256_SHA256_FIXED,
                32,
                octets("x")?,
                octets("y")?,
            )?,
            ("EC", Some("P-384")) => point(
                Algorithm::Es384,
                &ECDSA_P384_SHA384_FIXED,
                48,
                octets("x")?,
                octets("y")?,
            )?,
            ("OKP", Some("Ed25519")) => {
                let key = ParsedPublicKey::new(&ED25519, octets("x")?).ok()?;
                vec![(Algorithm::EdDsa, key)]
            }
            _ => return None,
        };
        if let Some(only) = key.get("alg") {
            let only = only.as_str().and_then(Algorithm::of)?;
            ways.retain(|(algorithm, _)| *algorithm == only);
        }
        let id = text("kid").map(str::to_owned);
        (!ways.is_empty()).then_some(Key { id, ways })
    }
}

fn rsa(n: Vec<u8>, e: Vec<u8>) -> Option<Vec<(Algorithm, ParsedPublicKey)>> {
    // 2,048 to 8,192 bits; the exponent of everybody is 65,537.
    if !(256..=1024).contains(&n.len()) || e.len() > 8 {
        return None;
    }
    let key = RsaPublicKeyComponents { n, e };
    let ways = RSA.into_iter().map(|(algorithm, parameters)| {
        let key = key.to_parsed_public_key(parameters).ok()?;
        Some((algorithm, key))
    });
    ways.collect()
}

/// SEC 1 §2.3.3, uncompressed.
fn point(
    algorithm: Algorithm,
    way: &'static dyn VerificationAlgorithm,
    length: usize,
    x: Vec<u8>,
    y: Vec<u8>,
) -> Option<Vec<(Algorithm, ParsedPublicKey)>> {
    if x.len() != length || y.len() != length {
        return None;
    }
    let point = [vec![4], x, y].concat();
    let key = ParsedPublicKey::new(way, point).ok()?;
    Some(vec![(algorithm, key)])
}
