//! PEM files (RFC 7468).

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// The most certificates one file may hold.
const MAX_CERTIFICATES: usize = 64;

/// Why a PEM text is not what we want.
#[derive(Debug, thiserror::Error)]
pub enum PemError {
    /// A section is broken.
    #[error("PEM text is broken")]
    Broken(#[source] rustls_pki_types::pem::Error),
    /// There is no certificate in it.
    #[error("PEM text has no CERTIFICATE section")]
    NoCertificate,
    /// There is no private key in it.
    #[error("PEM text has no private key section")]
    NoKey(#[source] rustls_pki_types::pem::Error),
    /// There are more than 64 certificates in it.
    #[error("PEM text has more than 64 certificates")]
    TooMany,
}

/// The certificates in `text`, in its order; at least one, at most 64.
///
/// # Errors
/// See [`PemError`].
pub fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let chain = CertificateDer::pem_slice_iter(text)
        .take(MAX_CERTIFICATES + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(PemError::Broken)?;
    match chain.len() {
        0 => Err(PemError::NoCertificate),
        1..=MAX_CERTIFICATES => Ok(chain),
        _ => Err(PemError::TooMany),
    }
}

/// The first private key in `text` (PKCS#8, SEC1 or PKCS#1).
///
/// # Errors
/// See [`PemError`].
pub fn private_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(text).map_err(PemError::NoKey)
}
