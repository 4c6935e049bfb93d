//! The certificates users bring for TLS termination: do chain and key belong together?

use std::fmt;

use base::WallTime;
use rcgen::KeyPair;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::extensions::GeneralName;

use crate::certificate::{CertificateError, Validity, chain_from_pem, parse};

/// The longest PEM text of a private key, in bytes.
const MAX_KEY_PEM_BYTES: usize = 64 * 1024;

/// A certificate and a key that belong together.
pub struct ServerCertificate {
    /// The chain in DER, the server's own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key in DER. Secret.
    pub key: PrivateKeyDer<'static>,
    /// The DNS names it is for, in lower case; may be empty or contain wildcards.
    pub hosts: Vec<String>,
    /// The first moment at which it holds.
    pub not_before: WallTime,
    /// The last moment at which it holds.
    pub not_after: WallTime,
}

impl Clone for ServerCertificate {
    fn clone(&self) -> Self {
        ServerCertificate {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
            hosts: self.hosts.clone(),
            not_before: self.not_before,
            not_after: self.not_after,
        }
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate")
            .field("hosts", &self.hosts)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Why a chain and a key cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The text of the chain holds no certificate.
    #[error("the chain holds no certificate")]
    NoCertificate,
    /// The chain is not PEM, is too large, or one of its certificates is not X.509.
    #[error("the chain cannot be read")]
    BadChain(#[source] CertificateError),
    /// The text of the key holds no private key.
    #[error("the key text holds no private key")]
    NoKey,
    /// The key is not PEM or too large.
    #[error("the private key is not PEM")]
    BadKeyPem(#[source] rustls_pki_types::pem::Error),
    /// The key is longer than 64 KiB.
    #[error("the private key has {0} bytes, more than {MAX_KEY_PEM_BYTES}")]
    KeyTooLarge(usize),
    /// The key is damaged or of a kind we do not serve.
    #[error(
        "the private key is not RSA (2048 to 8192 bits), ECDSA (P-256, P-384, P-521) or Ed25519"
    )]
    BadKey(#[source] rcgen::Error),
    /// The key is not the one of the first certificate.
    #[error("the private key does not belong to the first certificate of the chain")]
    Mismatch,
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {0}")]
    NotYetValid(WallTime),
    /// The certificate is over.
    #[error("the certificate expired at {0}")]
    Expired(WallTime),
}

/// Reads chain and key, checks that they belong together and that the certificate holds at `now`.
///
/// The chain is PEM of at most 256 KiB and 10 certificates; the key is PEM of at most 64 KiB in
/// PKCS#8, PKCS#1 or SEC1. Whether the chain leads to a public authority is not looked at.
///
/// # Errors
/// Which of these does not hold.
pub fn check_pair(
    chain_pem: &str,
    key_pem: &str,
    now: WallTime,
) -> Result<ServerCertificate, PairError> {
    let pair = parse_pair(chain_pem, key_pem)?;
    if now < pair.not_before {
        return Err(PairError::NotYetValid(pair.not_before));
    }
    if now > pair.not_after {
        return Err(PairError::Expired(pair.not_after));
    }
    Ok(pair)
}

/// Like [`check_pair`] without looking at the time: for what was accepted before and must still be
/// served when its end has passed.
///
/// # Errors
/// As [`check_pair`], but never for the time.
pub fn parse_pair(chain_pem: &str, key_pem: &str) -> Result<ServerCertificate, PairError> {
    let chain = chain_from_pem(chain_pem).map_err(|e| match e {
        CertificateError::Empty => PairError::NoCertificate,
        CertificateError::TooLarge(_)
        | CertificateError::Malformed(_)
        | CertificateError::Trailing(_)
        | CertificateError::Pem(_)
        | CertificateError::TooMany => PairError::BadChain(e),
    })?;
    let key = private_key(key_pem)?;
    let [leaf, ..] = chain.as_slice() else {
        return Err(PairError::NoCertificate);
    };
    let leaf = parse(leaf).map_err(PairError::BadChain)?;
    let pair = KeyPair::try_from(&key).map_err(PairError::BadKey)?;
    if leaf.public_key().subject_public_key.data != pair.public_key_raw() {
        return Err(PairError::Mismatch);
    }
    let Validity {
        not_before,
        not_after,
    } = Validity::from_parsed(&leaf);
    let names = leaf
        .subject_alternative_name()
        .map_err(|e| PairError::BadChain(e.into()))?;
    let hosts = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| {
            if let GeneralName::DNSName(host) = name {
                Some(host.to_ascii_lowercase())
            } else {
                None
            }
        })
        .collect();
    Ok(ServerCertificate {
        chain,
        key,
        hosts,
        not_before,
        not_after,
    })
}

fn private_key(key_pem: &str) -> Result<PrivateKeyDer<'static>, PairError> {
    if key_pem.len() > MAX_KEY_PEM_BYTES {
        return Err(PairError::KeyTooLarge(key_pem.len()));
    }
    match PrivateKeyDer::from_pem_slice(key_pem.as_bytes()) {
        Ok(key) => Ok(key),
        Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(PairError::NoKey),
        Err(e) => Err(PairError::BadKeyPem(e)),
    }
}
