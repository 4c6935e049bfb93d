//! Reading certificates: validity, public keys, PEM.

use std::time::Duration;

use base::WallTime;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use x509_parser::{certificate::X509Certificate, error::X509Error, prelude::FromDer};

use crate::digest::sha256;

/// The largest certificate accepted, in bytes.
const MAX_CERTIFICATE_BYTES: usize = 64 * 1024;
/// The largest PEM text of certificates accepted, in bytes.
pub(crate) const MAX_CHAIN_PEM_BYTES: usize = 256 * 1024;
/// The most certificates accepted in one chain or list of anchors.
pub(crate) const MAX_CHAIN: usize = 10;

/// Why a certificate, or a list of them, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Larger than any certificate we accept.
    #[error("certificate or list has {0} bytes, which is too large")]
    TooLarge(usize),
    /// Not a DER X.509 certificate.
    #[error("not an X.509 certificate")]
    Malformed(#[from] X509Error),
    /// Bytes follow the certificate.
    #[error("{0} bytes follow the certificate")]
    Trailing(usize),
    /// Not PEM.
    #[error("not a PEM text")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// The text holds no certificate.
    #[error("the text holds no certificate")]
    Empty,
    /// The text holds too many certificates.
    #[error("more than {MAX_CHAIN} certificates")]
    TooMany,
}

/// From when to when a certificate holds; both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment.
    pub not_before: WallTime,
    /// The last moment.
    pub not_after: WallTime,
}

impl Validity {
    /// The validity of a certificate in DER.
    ///
    /// # Errors
    /// If it is not a certificate.
    pub fn from_certificate(der: &[u8]) -> Result<Self, CertificateError> {
        Ok(Self::from_parsed(&parse(der)?))
    }

    pub(crate) fn from_parsed(certificate: &X509Certificate<'_>) -> Self {
        let wall = |seconds: i64| WallTime::from_unix_seconds(u64::try_from(seconds).unwrap_or(0));
        let validity = certificate.validity();
        Validity {
            not_before: wall(validity.not_before.timestamp()),
            not_after: wall(validity.not_after.timestamp()),
        }
    }

    /// Does it hold at `now`?
    #[must_use]
    pub fn contains(&self, now: WallTime) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The time left; zero once expired.
    #[must_use]
    pub fn remaining(&self, now: WallTime) -> Duration {
        self.not_after.since(now)
    }

    /// Is a third of the lifetime used, or is it over?
    #[must_use]
    pub fn renewal_due(&self, now: WallTime) -> bool {
        now.since(self.not_before) >= self.not_after.since(self.not_before) / 3
    }
}

/// Is it time to renew the certificate in DER: a third of its lifetime is used, or it cannot be
/// read at all?
#[must_use]
pub fn renewal_due(der: &[u8], now: WallTime) -> bool {
    Validity::from_certificate(der).map_or(true, |validity| validity.renewal_due(now))
}

/// How long the certificate in DER still holds; zero once expired or if it cannot be read.
#[must_use]
pub fn remaining(der: &[u8], now: WallTime) -> Duration {
    Validity::from_certificate(der).map_or(Duration::ZERO, |validity| validity.remaining(now))
}

/// SHA-256 over the SubjectPublicKeyInfo of a certificate in DER: what a Token pins.
///
/// # Errors
/// If it is not a certificate.
pub fn spki_sha256(der: &[u8]) -> Result<[u8; 32], CertificateError> {
    Ok(sha256(parse(der)?.public_key().raw))
}

/// Parses exactly one certificate.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLarge(der.len()));
    }
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|e| match e {
        x509_parser::nom::Err::Error(e) | x509_parser::nom::Err::Failure(e) => e,
        x509_parser::nom::Err::Incomplete(_) => X509Error::InvalidCertificate,
    })?;
    if rest.is_empty() {
        Ok(certificate)
    } else {
        Err(CertificateError::Trailing(rest.len()))
    }
}

/// Reads 1–10 certificates from a PEM text of at most 256 KiB; other sections are skipped.
///
/// # Errors
/// If the text is not PEM, or holds no or too many certificates, or one that is not X.509.
pub fn chain_from_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    if pem.len() > MAX_CHAIN_PEM_BYTES {
        return Err(CertificateError::TooLarge(pem.len()));
    }
    let mut chain = Vec::new();
    for der in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let der = der.map_err(CertificateError::Pem)?;
        parse(&der)?;
        if chain.len() == MAX_CHAIN {
            return Err(CertificateError::TooMany);
        }
        chain.push(der);
    }
    if chain.is_empty() {
        Err(CertificateError::Empty)
    } else {
        Ok(chain)
    }
}

/// One certificate in DER as PEM.
#[must_use]
pub fn certificate_pem(der: &[u8]) -> String {
    pem("CERTIFICATE", der)
}

/// A chain in DER as PEM, in the same order.
#[must_use]
pub fn chain_pem<T: AsRef<[u8]>>(chain: &[T]) -> String {
    chain
        .iter()
        .map(|der| certificate_pem(der.as_ref()))
        .collect()
}

/// RFC 7468 §2, lines of 64 characters.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
