//! Sealed streams: those that are passed on by others, and that nobody on the way can read.
//!
//! Whoever begins one asks the first site on the way for a stream of which the head says for which
//! tenant it is and over which sites it goes, and nothing else ([`StreamHead::sealed`]). When the
//! destination has taken it both do a TLS handshake on it, each with its node's certificate
//! (`sealane-sealed/1`); what is asked for is said and answered inside (`spoken`). So the destination
//! knows by a certificate who asks, and believes nobody on the way.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use arc_swap::ArcSwapOption;
use base::SiteName;
use http::StatusCode;
use pki::Identity;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::{
    config::Active,
    head::{HeadError, StreamHead},
    links::OpenError,
    refusal::{PeerError, known},
    spoken::{self, YES},
};

/// The protocol that is offered inside the stream (RFC 7301).
pub(crate) const SEALED_ALPN: &[u8] = b"sealane-sealed/1";

/// Seals streams with the certificate that the tunnels have. Cheap to clone; every clone sees a new
/// configuration of theirs. Without one nothing is sealed.
#[derive(Clone, Default)]
pub struct Seal(Arc<ArcSwapOption<Active>>);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

/// A sealed stream.
pub type Sealed<S> = TlsStream<S>;

impl Seal {
    pub(crate) const fn new(active: Arc<ArcSwapOption<Active>>) -> Self {
        Seal(active)
    }

    fn active(&self) -> io::Result<Arc<Active>> {
        let none = || io::Error::other("the tunnels have no certificate yet");
        self.0.load_full().ok_or_else(none)
    }

    /// Asks a node of `site`, to which `stream` leads, for what `head` says, and waits for its
    /// answer: two round trips. Bound it in time.
    ///
    /// # Errors
    /// [`OpenError::Refused`], [`OpenError::Head`]; [`OpenError::Closed`] also if somebody else is at
    /// the other end.
    pub async fn open<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        site: &SiteName,
        head: &StreamHead,
    ) -> Result<Sealed<S>, OpenError> {
        let opening = spoken::opening(head).map_err(OpenError::Head)?;
        let sealing = async {
            let active = self.active()?;
            // Whose certificate it is, is looked at below.
            let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
            let connector = TlsConnector::from(active.seals().client());
            let tls = connector.connect(name, stream).await?;
            let peer = known(&active, tls.get_ref().1.peer_certificates());
            match peer.map_err(io::Error::other)? {
                peer if peer.site() == Some(site) => Ok(tls),
                found => Err(io::Error::other(PeerError::Unexpected {
                    found,
                    expected: site.clone(),
                })),
            }
        };
        let mut tls = sealing.await.map_err(|source| OpenError::Closed {
            head_sent: false,
            source,
        })?;
        spoken::ask(&mut tls, &opening).await?;
        Ok(tls.into())
    }

    /// Waits for what is asked for inside a stream that was taken for sealed. Bound it in time.
    ///
    /// # Errors
    /// It broke; or whoever asks is no node of the planet, or unknown here ([`crate::Config::hear`]).
    /// What it may have is up to the caller.
    pub async fn hear<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<SealedIncoming<S>> {
        let active = self.active()?;
        let acceptor = TlsAcceptor::from(active.seals().server());
        let mut tls = acceptor.accept(stream).await?;
        let peer = known(&active, tls.get_ref().1.peer_certificates());
        let peer = peer.map_err(io::Error::other)?;
        if !active.config.hear.admits(&peer) {
            return Err(io::Error::other(PeerError::NotAdmitted(peer)));
        }
        let head = spoken::hear(&mut tls).await?;
        let stream = tls.into();
        Ok(SealedIncoming { peer, head, stream })
    }
}

/// A sealed stream that the other side asks for. Dropping it without an answer refuses it.
#[derive(Debug)]
pub struct SealedIncoming<S> {
    /// Who asks.
    pub peer: Identity,
    /// What it asks for, or what is wrong with that.
    pub head: Result<StreamHead, HeadError>,
    stream: Sealed<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> SealedIncoming<S> {
    /// Says yes.
    ///
    /// # Errors
    /// It broke.
    pub async fn accept(mut self) -> io::Result<Sealed<S>> {
        self.stream.write_all(&[YES]).await?;
        self.stream.flush().await?;
        Ok(self.stream)
    }

    /// Says no with an HTTP status and a few words (visible ASCII, at most 256 bytes are sent).
    ///
    /// # Errors
    /// It broke.
    pub async fn refuse(mut self, status: StatusCode, reason: &str) -> io::Result<()> {
        let answer = spoken::refusal(status, reason);
        self.stream.write_all(&answer).await?;
        self.stream.shutdown().await
    }
}
