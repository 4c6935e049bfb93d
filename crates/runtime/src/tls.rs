//! TLS configurations: one provider (aws-lc-rs), TLS 1.3 inside the fabric, 1.2 and 1.3 in front.
//!
//! Inside the fabric a peer is who its certificate's URI SAN says; host names are not looked at.
//! These builders check that the chain leads to the fabric CA and is valid now; the caller reads
//! the identity afterwards. Sessions are never resumed there, so that every connection is checked
//! against today's roots.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    server::{ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};

mod front;
pub mod pem;
mod schedule;
mod verify;

pub use front::Front;
pub use verify::{lenient, spki_sha256};

/// Session tickets of a connection at most, however many its client asks for.
const TICKETS: usize = 4;

/// Why a configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A root is no certificate.
    #[error("trust root {index} is not usable")]
    Root {
        /// Its place in the list.
        index: usize,
        /// What is wrong with it.
        #[source]
        source: rustls::Error,
    },
    /// There is no trust root.
    #[error("there is no trust root")]
    NoRoots,
    /// The chain is empty, the key is unusable, or they do not belong together.
    #[error("certificate chain and key are not usable together")]
    Credentials(#[source] rustls::Error),
    /// The client certificate verifier could not be built.
    #[error("trust roots make no client verifier")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
    /// The provider offers none of the protocol versions.
    #[error("protocol versions are not supported")]
    Versions(#[source] rustls::Error),
    /// The system gives no randomness for the keys of session tickets.
    #[error("keys for session tickets cannot be made")]
    Tickets(#[source] rustls::Error),
    /// The provider has not what QUIC begins with.
    #[error("QUIC is not supported")]
    Quic,
}

/// A certificate chain, leaf first, and its private key.
#[derive(Debug)]
pub struct Credentials {
    /// DER certificates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The leaf's key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Credentials {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// The one provider of cryptography.
#[must_use]
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        for suite in &mut provider.cipher_suites {
            *suite = schedule::prepared(*suite);
        }
        Arc::new(provider)
    }))
}

/// A server inside the fabric: TLS 1.3, client certificate required, chain to one of `roots`.
///
/// # Errors
/// See [`TlsError`].
pub fn fabric_server(
    credentials: &Credentials,
    roots: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = WebPkiClientVerifier::builder_with_provider(store(roots)?, provider())
        .build()
        .map_err(TlsError::Verifier)?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(single(credentials)?);
    harden(&mut config, alpn);
    Ok(Arc::new(config))
}

/// A client inside the fabric: TLS 1.3, shows `credentials`, wants a chain to one of `roots`,
/// looks at no host name.
///
/// # Errors
/// See [`TlsError`].
pub fn fabric_client(
    credentials: &Credentials,
    roots: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = verify::ChainVerifier::new(store(roots)?);
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(single(credentials)?);
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = owned(alpn);
    Ok(Arc::new(config))
}

/// A server that asks for no client certificate: TLS 1.3 (the API; joining).
///
/// # Errors
/// See [`TlsError`].
pub fn server(credentials: &Credentials, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Versions)?
        .with_no_client_auth()
        .with_cert_resolver(single(credentials)?);
    harden(&mut config, alpn);
    Ok(Arc::new(config))
}

/// A client without a certificate that checks chain and host name against `roots`: TLS 1.3.
///
/// # Errors
/// See [`TlsError`].
pub fn client(
    roots: &[CertificateDer<'static>],
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Versions)?
        .with_root_certificates(store(roots)?)
        .with_no_client_auth();
    config.alpn_protocols = owned(alpn);
    Ok(Arc::new(config))
}

/// A client of servers of the web: TLS 1.2 and 1.3, host names are checked; by `roots`, or by those
/// that browsers trust if there are none.
///
/// # Errors
/// See [`TlsError`].
pub fn web_client(roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = if roots.is_empty() {
        let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
        Arc::new(RootCertStore { roots })
    } else {
        store(roots)?
    };
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(TlsError::Versions)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// A client that knows only the SHA-256 of a CA's public key (its SubjectPublicKeyInfo): the
/// server must present that CA in its chain, and the chain must lead to it. TLS 1.3, no client
/// certificate, no host name.
///
/// # Errors
/// See [`TlsError`].
pub fn pinned_client(pin: [u8; 32], alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, TlsError> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::PinVerifier::new(pin)))
        .with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = owned(alpn);
    Ok(Arc::new(config))
}

/// The front: TLS 1.2 and 1.3, certificates by SNI from `resolver`, sessions resumed by stateless
/// tickets (RFC 8446 §2.2, RFC 5077), no early data.
///
/// # Errors
/// See [`TlsError`].
pub fn front_server(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Front, TlsError> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    front(resolver, alpn, &versions).map(Front::new)
}

/// The same inside QUIC (RFC 9001): TLS 1.3 alone.
///
/// # Errors
/// See [`TlsError`].
pub fn quic_server(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, TlsError> {
    front(resolver, alpn, &[&rustls::version::TLS13]).map(Arc::new)
}

fn front(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(front::provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Versions)?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = owned(alpn);
    // Sessions are kept by the clients, sealed with keys of this process that change by
    // themselves: workers share no memory, and no number of clients fills it.
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(TlsError::Tickets)?;
    // One with each connection, for the next one, and more to those who ask for them (RFC 9149).
    config.send_tls13_tickets = 1;
    config.max_tls13_tickets = TICKETS;
    Ok(config)
}

/// Who accepts client certificates that chain to one of `roots`. A certificate on the way that a
/// list of its issuer in `crls` names is refused; where an issuer has none nothing is revoked, and
/// a list that is over still counts, since there may be no way to a newer one.
///
/// # Errors
/// See [`TlsError`].
pub fn client_verifier(
    roots: &[CertificateDer<'static>],
    crls: Vec<CertificateRevocationListDer<'static>>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    WebPkiClientVerifier::builder_with_provider(store(roots)?, provider())
        .with_crls(crls)
        .allow_unknown_revocation_status()
        .build()
        .map_err(TlsError::Verifier)
}

/// The front for hosts that ask clients for certificates: as [`front_server`], but no session is
/// ever resumed, so that `verifier` is asked about each.
///
/// # Errors
/// See [`TlsError`].
pub fn asking_server(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Front, TlsError> {
    let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
    asking(resolver, alpn, verifier, &versions).map(Front::new)
}

/// The same inside QUIC: TLS 1.3 alone.
///
/// # Errors
/// See [`TlsError`].
pub fn asking_quic_server(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    verifier: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, TlsError> {
    asking(resolver, alpn, verifier, &[&rustls::version::TLS13]).map(Arc::new)
}

fn asking(
    resolver: Arc<dyn ResolvesServerCert>,
    alpn: &[&[u8]],
    verifier: Arc<dyn ClientCertVerifier>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<ServerConfig, TlsError> {
    let mut config = ServerConfig::builder_with_provider(front::provider())
        .with_protocol_versions(versions)
        .map_err(TlsError::Versions)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    harden(&mut config, alpn);
    Ok(config)
}

/// A chain with its key loaded, for a certificate resolver; refuses a key that does not match.
///
/// # Errors
/// [`TlsError::Credentials`].
pub fn certified_key(credentials: &Credentials) -> Result<Arc<CertifiedKey>, TlsError> {
    let Credentials { chain, key } = credentials.clone();
    CertifiedKey::from_der(chain, key, &provider())
        .map(Arc::new)
        .map_err(TlsError::Credentials)
}

fn single(credentials: &Credentials) -> Result<Arc<rustls::sign::SingleCertAndKey>, TlsError> {
    let key = Arc::unwrap_or_clone(certified_key(credentials)?);
    Ok(Arc::new(rustls::sign::SingleCertAndKey::from(key)))
}

fn harden(config: &mut ServerConfig, alpn: &[&[u8]]) {
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = owned(alpn);
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}

fn store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, TlsError> {
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let mut store = RootCertStore::empty();
    for (index, root) in roots.iter().enumerate() {
        store
            .add(root.clone())
            .map_err(|source| TlsError::Root { index, source })?;
    }
    Ok(Arc::new(store))
}

#[cfg(test)]
mod tests;
