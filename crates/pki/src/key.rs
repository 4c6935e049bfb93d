//! Private keys of nodes and of the controller: ECDSA on P-256.

use std::fmt;

use aws_lc_rs::rand;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use crate::{certificate::pem, digest::sha256};

/// Why a key cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The generator or the algorithm failed.
    #[error("generating a private key failed")]
    Generate(#[source] rcgen::Error),
    /// The system's random generator failed.
    #[error("the random generator failed")]
    Random,
    /// Not a PEM text with one PKCS#8 key.
    #[error("not a PEM text with a PKCS#8 private key")]
    Pem(#[source] rustls_pki_types::pem::Error),
    /// Not an ECDSA P-256 key.
    #[error("not an ECDSA P-256 private key in PKCS#8")]
    Malformed(#[source] rcgen::Error),
    /// The signing request could not be made.
    #[error("signing a certificate request failed")]
    Request(#[source] rcgen::Error),
}

/// A private key: ECDSA on P-256. It prints nothing of itself.
pub struct NodeKey {
    pair: KeyPair,
}

impl NodeKey {
    /// A new key from the cryptographic generator.
    ///
    /// # Errors
    /// If the generator fails.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(KeyError::Generate)?;
        Ok(NodeKey { pair })
    }

    /// Reads PKCS#8 DER, as [`NodeKey::pkcs8_der`] gives it.
    ///
    /// # Errors
    /// If it is not an ECDSA P-256 key.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from(der);
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256)
            .map_err(KeyError::Malformed)?;
        Ok(NodeKey { pair })
    }

    /// Reads the first PKCS#8 key of a PEM text.
    ///
    /// # Errors
    /// If there is none, or it is not an ECDSA P-256 key.
    pub fn from_pem(text: &str) -> Result<Self, KeyError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes()).map_err(KeyError::Pem)?;
        Self::from_pkcs8_der(der.secret_pkcs8_der())
    }

    /// The key as PKCS#8 DER. Secret.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        self.pair.serialized_der()
    }

    /// The key as PKCS#8 PEM. Secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        pem("PRIVATE KEY", self.pkcs8_der())
    }

    /// A certificate signing request for this key, without any names: the authority decides those.
    ///
    /// # Errors
    /// If signing fails.
    pub fn csr_der(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params
            .serialize_request(&self.pair)
            .map_err(KeyError::Request)?;
        Ok(request.der().to_vec())
    }

    /// SHA-256 over the SubjectPublicKeyInfo.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        sha256(&self.pair.subject_public_key_info())
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeKey(secret)")
    }
}

/// `N` bytes from the cryptographic generator, for secrets and nonces.
///
/// # Errors
/// If the generator fails.
pub fn random<const N: usize>() -> Result<[u8; N], KeyError> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
    Ok(bytes)
}
