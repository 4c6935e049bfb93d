//! Peers that do not become links: counted by cause, logged once per cause and address.

use std::{io, net::SocketAddr, time::Duration};

use base::{Chain, SiteName};
use pki::{Identity, IdentityError};
use runtime::log::Limiter;
use rustls::{AlertDescription, CertificateError, Error as TlsError};
use rustls_pki_types::CertificateDer;

use crate::{
    config::Active,
    metrics::TunnelMetrics,
    preface::{Answer, PrefaceError},
};

/// A cause is logged again after this long.
const QUIET: Duration = Duration::from_secs(600);

/// Why a connection does not become part of a link.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("no connection")]
    Connect(#[source] io::Error),
    #[error("TLS handshake failed")]
    Tls(#[source] io::Error),
    #[error("no protocol of ours is offered")]
    Protocol,
    #[error("certificate carries no fabric identity")]
    Identity(#[source] IdentityError),
    #[error("peer shows no certificate")]
    NoCertificate,
    #[error("peer {0} is of another planet")]
    Planet(Identity),
    #[error("peer {0} is not a node")]
    NotANode(Identity),
    #[error("peer {0} is unknown here or revoked")]
    NotAdmitted(Identity),
    #[error("peer is {found}, expected a node of {expected}")]
    Unexpected { found: Identity, expected: SiteName },
    #[error("the connections of a link reach different nodes")]
    Torn,
    #[error("preface failed")]
    Preface(#[source] PrefaceError),
    #[error("peer refuses the link: {0:?}")]
    Answer(Answer),
    #[error("handshake took too long")]
    Timeout,
    #[error("too many handshakes at once")]
    Busy,
    #[error("too many joins from this address, or at once")]
    JoinRate,
    #[error("random generator failed")]
    Random(#[source] pki::KeyError),
}

impl PeerError {
    /// One word of a closed set.
    pub(crate) fn cause(&self) -> &'static str {
        match self {
            PeerError::Connect(_) => "connect",
            PeerError::Tls(error) => tls_cause(error),
            PeerError::Protocol => "protocol",
            PeerError::Identity(_) => "identity",
            PeerError::NoCertificate => "no-certificate",
            PeerError::Planet(_) => "planet",
            PeerError::NotANode(_) => "not-a-node",
            PeerError::NotAdmitted(_) => "not-admitted",
            PeerError::Unexpected { .. } => "unexpected-site",
            PeerError::Torn => "torn",
            PeerError::Preface(PrefaceError::Io(error)) => tls_cause(error),
            PeerError::Preface(_) => "preface",
            PeerError::Answer(Answer::NotAdmitted) => "refused-by-peer",
            PeerError::Answer(_) => "peer-busy",
            PeerError::Timeout => "timeout",
            PeerError::Busy => "busy",
            PeerError::JoinRate => "join-rate",
            PeerError::Random(_) => "random",
        }
    }
}

/// What TLS says, wrapped in an I/O error, as one word.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "rustls has dozens of errors; those an operator can act on have a word of their own"
)]
fn tls_cause(error: &io::Error) -> &'static str {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<TlsError>());
    let Some(inner) = inner else {
        return "broken";
    };
    if let TlsError::InvalidCertificate(cause) = inner {
        return match cause {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not-yet-valid"
            }
            // A CA of the same name with another key shows as a bad signature.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "foreign-ca",
            _ => "bad-certificate",
        };
    }
    match inner {
        TlsError::NoCertificatesPresented => "no-certificate",
        TlsError::AlertReceived(AlertDescription::CertificateExpired) => "own-expired",
        TlsError::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "own-foreign-ca"
        }
        TlsError::AlertReceived(_) => "alert",
        _ => "tls",
    }
}

/// Who the other side of a connection is, if it may have a link.
pub(crate) fn admit(
    active: &Active,
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<Identity, PeerError> {
    let peer = known(active, chain)?;
    if !active.config.admit.admits(&peer) {
        return Err(PeerError::NotAdmitted(peer));
    }
    Ok(peer)
}

/// Who the other side of a connection is, if it is a node of the planet.
pub(crate) fn known(
    active: &Active,
    chain: Option<&[CertificateDer<'_>]>,
) -> Result<Identity, PeerError> {
    let leaf = chain
        .and_then(<[_]>::first)
        .ok_or(PeerError::NoCertificate)?;
    let peer = Identity::from_certificate(leaf).map_err(PeerError::Identity)?;
    if *peer.planet() != active.config.planet {
        return Err(PeerError::Planet(peer));
    }
    if peer.site().is_none() {
        return Err(PeerError::NotANode(peer));
    }
    Ok(peer)
}

/// Counts and logs refusals.
#[derive(Debug)]
pub(crate) struct Refusals {
    pub(crate) metrics: TunnelMetrics,
    pub(crate) limiter: Limiter<(&'static str, std::net::IpAddr)>,
}

impl Refusals {
    pub(crate) fn new(metrics: TunnelMetrics) -> Self {
        Refusals {
            metrics,
            limiter: Limiter::new(QUIET),
        }
    }

    pub(crate) fn note(&self, address: SocketAddr, error: &PeerError) {
        let cause = error.cause();
        self.metrics.refused_peers.inc(cause);
        if let Some(more) = self.limiter.allow(runtime::now(), (cause, address.ip())) {
            let error = Chain(error);
            tracing::warn!(%address, cause, %error, more, "no link with this peer");
        }
    }
}
