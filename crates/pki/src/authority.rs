//! The fabric CA, and certificates signed by their own key.

use std::{fmt, time::Duration};

use base::WallTime;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
    string::Ia5String,
};
use rustls_pki_types::CertificateDer;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use crate::{
    certificate::{CertificateError, Validity, certificate_pem, chain_from_pem, parse},
    digest::sha256,
    identity::{Identity, IdentityError, Planet, uri_of},
    key::{KeyError, NodeKey, random},
};

/// The largest certificate signing request accepted, in bytes.
pub const MAX_CSR_BYTES: usize = 16 * 1024;
/// The CA outlives every signing certificate it issues in its first ten years.
const CA_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Certificates hold from a little earlier than now, for peers whose clock is behind.
const BACKDATING: Duration = Duration::from_secs(300);
/// The last second of the year 9999, the end of X.509's time (RFC 5280 §4.1.2.5).
const END_OF_TIME: u64 = 253_402_300_799;
/// The most extra host names in one certificate.
const MAX_HOSTS: usize = 100;

/// Why a certificate could not be issued, or the authority not be read.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// Making or reading a key failed.
    #[error("the key of the certificate cannot be used")]
    Key(#[source] KeyError),
    /// The request is longer than [`MAX_CSR_BYTES`].
    #[error("certificate request has {0} bytes, more than {MAX_CSR_BYTES}")]
    RequestTooLarge(usize),
    /// The request is not a PKCS#10 request in DER.
    #[error("certificate request is malformed")]
    RequestMalformed,
    /// The request is not signed by the key it carries.
    #[error("certificate request is not signed by its own key")]
    RequestSignature,
    /// The request's key is not ECDSA P-256.
    #[error("certificate request has a key other than ECDSA P-256")]
    RequestKey(#[source] rcgen::Error),
    /// The identity belongs to another planet than the authority.
    #[error("identity {identity} does not belong to planet {planet}")]
    OtherPlanet {
        /// Whose certificate was asked for.
        identity: Box<Identity>,
        /// The authority's planet.
        planet: Planet,
    },
    /// Signing needs the identity of the controller; this one is a node's.
    #[error("identity {0} is not the controller")]
    NotController(Box<Identity>),
    /// The authority's own certificate is over.
    #[error("the authority's certificate does not hold now; it ended at {0}")]
    AuthorityExpired(WallTime),
    /// A host cannot be written into a certificate, or there are too many.
    #[error("host {0:?} cannot be written into a certificate")]
    Host(String),
    /// Building or signing the certificate failed.
    #[error("signing the certificate failed")]
    Sign(#[source] rcgen::Error),
    /// The authority's certificate cannot be read.
    #[error("the authority's certificate cannot be read")]
    AuthorityCertificate(#[source] CertificateError),
    /// The authority's certificate names no planet.
    #[error("the authority's certificate names no planet")]
    AuthorityName(#[source] IdentityError),
    /// The authority's key does not belong to its certificate.
    #[error("the authority's key does not belong to its certificate")]
    AuthorityKey,
}

/// The fabric CA: one self-signed ECDSA P-256 certificate named `spiffe://PLANET`, which signs every
/// certificate of the fabric itself (path length 0).
pub struct Authority {
    planet: Planet,
    certificate: CertificateDer<'static>,
    validity: Validity,
    key: NodeKey,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("planet", &self.planet)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// A new authority with a new key, holding for 20 years.
    ///
    /// # Errors
    /// If the generator or the signature fails.
    pub fn create(planet: &Planet, now: WallTime) -> Result<Self, IssueError> {
        let key = NodeKey::generate().map_err(IssueError::Key)?;
        let mut params = params(&format!("fabric CA of {planet}"), now, CA_LIFETIME)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{planet}"))?];
        let certificate = params.self_signed(key.pair()).map_err(IssueError::Sign)?;
        Self::from_parts(certificate.der().clone(), key)
    }

    /// Reads what [`Authority::to_pem`] gave.
    ///
    /// # Errors
    /// If either part is missing or malformed, or they do not belong together.
    pub fn from_pem(pem: &str) -> Result<Self, IssueError> {
        let mut chain = chain_from_pem(pem).map_err(IssueError::AuthorityCertificate)?;
        let key = NodeKey::from_pem(pem).map_err(IssueError::Key)?;
        Self::from_parts(chain.swap_remove(0), key)
    }

    fn from_parts(certificate: CertificateDer<'static>, key: NodeKey) -> Result<Self, IssueError> {
        let parsed = parse(&certificate).map_err(IssueError::AuthorityCertificate)?;
        if sha256(parsed.public_key().raw) != key.spki_sha256() {
            return Err(IssueError::AuthorityKey);
        }
        let planet = planet_of(uri_of(&parsed).map_err(IssueError::AuthorityName)?)
            .map_err(IssueError::AuthorityName)?;
        let validity = Validity::from_parsed(&parsed);
        Ok(Authority {
            planet,
            certificate,
            validity,
            key,
        })
    }

    /// Certificate and private key as PEM. Secret.
    #[must_use]
    pub fn to_pem(&self) -> String {
        certificate_pem(&self.certificate) + &self.key.to_pem()
    }

    /// The certificate alone as PEM, for whoever must trust it.
    #[must_use]
    pub fn certificate_pem(&self) -> String {
        certificate_pem(&self.certificate)
    }

    /// The certificate in DER.
    #[must_use]
    pub fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// SHA-256 over the certificate's SubjectPublicKeyInfo: the pin a [`crate::Token`] carries.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        self.key.spki_sha256()
    }

    /// The planet whose identities this authority issues.
    #[must_use]
    pub fn planet(&self) -> &Planet {
        &self.planet
    }

    /// From when to when the authority itself holds.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Issues a certificate for the key in `csr_der` and returns the chain: the certificate, then
    /// the authority's own. It names `identity` and nothing else: names in the request are ignored.
    /// It holds from five minutes before `now` for `lifetime`, but not longer than the authority,
    /// and serves both ends of TLS.
    ///
    /// # Errors
    /// If the request is too large, malformed, not signed by its own key or not ECDSA P-256, if the
    /// identity is of another planet, or if the authority has expired.
    pub fn issue(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        self.issue_with_hosts(csr_der, identity, &[], now, lifetime)
    }

    /// Like [`Authority::issue`], and the certificate also names up to 100 DNS names or IP
    /// addresses, for servers that ordinary TLS clients reach (the API).
    ///
    /// # Errors
    /// As [`Authority::issue`], and if a host cannot be written into a certificate.
    pub fn issue_with_hosts(
        &self,
        csr_der: &[u8],
        identity: &Identity,
        hosts: &[String],
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let public_key = requested_key(csr_der)?;
        self.certify(&public_key, identity, hosts, now, lifetime)
    }

    /// The chain of the controller's signing key: [`crate::SIGNER_LIFETIME`] long, so that bundles
    /// can be verified however long the controller is gone. To be passed to
    /// [`crate::Signer::new`].
    ///
    /// # Errors
    /// If the authority has expired or signing fails.
    pub fn issue_signer(
        &self,
        key: &NodeKey,
        now: WallTime,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let controller = Identity::controller(self.planet.clone());
        self.certify(key.pair(), &controller, &[], now, crate::SIGNER_LIFETIME)
    }

    fn certify(
        &self,
        public_key: &impl PublicKeyData,
        identity: &Identity,
        hosts: &[String],
        now: WallTime,
        lifetime: Duration,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if identity.planet() != &self.planet {
            let (identity, planet) = (Box::new(identity.clone()), self.planet.clone());
            return Err(IssueError::OtherPlanet { identity, planet });
        }
        if !self.validity.contains(now) {
            return Err(IssueError::AuthorityExpired(self.validity.not_after));
        }
        let lifetime = lifetime.min(self.validity.remaining(now));
        let mut params = params(&common_name(identity), now, lifetime)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = host_names(hosts)?;
        params
            .subject_alt_names
            .insert(0, uri(&identity.to_string())?);
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.key.pair())
            .map_err(IssueError::Sign)?;
        let certificate = params
            .signed_by(public_key, &issuer)
            .map_err(IssueError::Sign)?;
        Ok(vec![certificate.der().clone(), self.certificate.clone()])
    }
}

/// SHA-256 over the public key (SubjectPublicKeyInfo) of a signing request whose own signature
/// holds: a join repeated with the same key is recognised by it.
///
/// # Errors
/// If the request is too large, malformed, not signed by its own key or not ECDSA P-256.
pub fn csr_key_sha256(csr_der: &[u8]) -> Result<[u8; 32], IssueError> {
    Ok(sha256(&requested_key(csr_der)?.subject_public_key_info()))
}

/// A certificate signed by its own key for 1–100 hosts (DNS names, wildcards, IP addresses), with
/// the key: `(chain PEM, PKCS#8 PEM)`.
///
/// # Errors
/// If a host cannot be written into a certificate, or the generator or the signature fails.
pub fn self_signed(
    hosts: &[String],
    now: WallTime,
    lifetime: Duration,
) -> Result<(String, String), IssueError> {
    let key = NodeKey::generate().map_err(IssueError::Key)?;
    let first = hosts
        .first()
        .ok_or_else(|| IssueError::Host(String::new()))?;
    let mut params = params(first, now, lifetime)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = host_names(hosts)?;
    let certificate = params.self_signed(key.pair()).map_err(IssueError::Sign)?;
    Ok((certificate_pem(certificate.der()), key.to_pem()))
}

/// What every certificate has: a random serial number, a subject, a validity.
fn params(
    common_name: &str,
    now: WallTime,
    lifetime: Duration,
) -> Result<CertificateParams, IssueError> {
    let mut serial: [u8; 16] = random().map_err(IssueError::Key)?;
    serial[0] = serial[0] & 0x7f | 0x40; // positive and of constant length (RFC 5280 §4.1.2.2)
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    // RFC 5280 A.1: a common name has at most 64 characters.
    let common_name: String = common_name.chars().take(64).collect();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    let at = |time: WallTime| {
        rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(time.unix_seconds().min(END_OF_TIME))
    };
    // Never so much that a short life is due for renewal when it begins.
    params.not_before = at(now - BACKDATING.min(lifetime / 10));
    params.not_after = at(now + lifetime);
    Ok(params)
}

fn common_name(identity: &Identity) -> String {
    match identity {
        Identity::Node { site, node, .. } => format!("{node}.{site}"),
        Identity::Controller { planet } => format!("controller of {planet}"),
    }
}

/// `spiffe://PLANET`, without a path, as the authority's own certificate carries it.
pub(crate) fn planet_of(uri: &str) -> Result<Planet, IdentityError> {
    let planet = uri
        .strip_prefix("spiffe://")
        .ok_or_else(|| IdentityError::Form(uri.chars().take(120).collect()))?;
    planet.parse().map_err(IdentityError::Planet)
}

fn uri(text: &str) -> Result<SanType, IssueError> {
    Ok(SanType::URI(
        Ia5String::try_from(text).map_err(IssueError::Sign)?,
    ))
}

fn host_names(hosts: &[String]) -> Result<Vec<SanType>, IssueError> {
    if let Some(extra) = hosts.get(MAX_HOSTS) {
        return Err(IssueError::Host(extra.chars().take(80).collect()));
    }
    let name = |host: &String| {
        let refused = || IssueError::Host(host.chars().take(80).collect());
        if host.is_empty() || host.len() > 253 {
            return Err(refused());
        }
        if let Ok(address) = host.parse() {
            return Ok(SanType::IpAddress(address));
        }
        let labels = host.strip_prefix("*.").unwrap_or(host);
        if !labels
            .split('.')
            .all(|label| label.parse::<base::Name>().is_ok())
        {
            return Err(refused());
        }
        Ia5String::try_from(host.as_str())
            .map(SanType::DnsName)
            .map_err(|_| refused())
    };
    hosts.iter().map(name).collect()
}

/// The key of a signing request whose own signature holds.
fn requested_key(csr_der: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    if csr_der.len() > MAX_CSR_BYTES {
        return Err(IssueError::RequestTooLarge(csr_der.len()));
    }
    let Ok((b"", request)) = X509CertificationRequest::from_der(csr_der) else {
        return Err(IssueError::RequestMalformed);
    };
    request
        .verify_signature()
        .map_err(|_| IssueError::RequestSignature)?;
    let key = SubjectPublicKeyInfo::from_der(request.certification_request_info.subject_pki.raw)
        .map_err(IssueError::RequestKey)?;
    if key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
        return Err(IssueError::RequestKey(
            rcgen::Error::UnsupportedSignatureAlgorithm,
        ));
    }
    Ok(key)
}
