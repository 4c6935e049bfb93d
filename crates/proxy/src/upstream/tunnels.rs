//! The tunnels behind the border of [`super::connect`].

use std::{io, rc::Rc, time::Duration};

use base::{Name, SiteName};
use http::StatusCode;
use l7::Addresses;
use tokio::time::timeout;
use tunnel::{
    ClientRef, EndpointRef, Links, OpenError, SealedIncoming, StreamHead, TrunkIncoming, Trunks,
};

use super::connect::{Accepting, Ask, Dial, DialError, Dialing, Incoming, Passage, StreamRequest};
use crate::{
    attempt::Kind,
    io::BoxDuplex,
    turns::{Line, NOBODY},
    worker::Worker,
};

impl Dial for Links {
    fn open(&self, peer: &SiteName, ask: Ask) -> Dialing {
        let (links, peer) = (self.clone(), peer.clone());
        Box::pin(async move {
            match links.open(&peer, &head(ask)).await {
                Ok(stream) => Ok(Box::new(stream) as BoxDuplex),
                Err(error) => Err(error.into()),
            }
        })
    }

    fn trunks(&self) -> Trunks {
        Links::trunks(self)
    }
}

/// How long another way is waited for when a link is gone: the brain knows it a moment later than we.
const ANOTHER_WAY: Duration = Duration::from_millis(100);

/// Opens a stream of `tenant` to `site`, over others and sealed if that is the way.
///
/// # Errors
/// See [`DialError`].
pub(crate) async fn open(
    worker: &Worker,
    site: &SiteName,
    tenant: &Name,
    request: &StreamRequest,
) -> Result<BoxDuplex, DialError> {
    let routes = worker.trunks.routes();
    let before = routes.way(site);
    let opened = begin(worker, site, tenant, request).await;
    // Here, or where it was to be passed on.
    let no_link = match &opened {
        // Or it broke before the stream was accepted: of the request nothing was sent.
        Err(DialError::NoLink | DialError::Broken(_)) => true,
        Err(DialError::Refused { status, reason }) => {
            *status == StatusCode::SERVICE_UNAVAILABLE && reason == Kind::Link.code()
        }
        Ok(_) => false,
    };
    if !no_link {
        return opened;
    }
    match timeout(ANOTHER_WAY, routes.other(site, before)).await {
        Ok(()) => begin(worker, site, tenant, request).await,
        Err(_) => opened,
    }
}

async fn begin(
    worker: &Worker,
    site: &SiteName,
    tenant: &Name,
    request: &StreamRequest,
) -> Result<BoxDuplex, DialError> {
    let Some((first, via)) = worker.trunks.routes().over(site) else {
        return stretch(worker, site, Ask::Endpoint(request.clone())).await;
    };
    let passage = Passage {
        tenant: tenant.clone(),
        origin: None,
        via,
    };
    let stream = stretch(worker, &first, Ask::Sealed(passage)).await?;
    let head = head(Ask::Endpoint(request.clone()));
    let sealed = worker.trunks.seal().open(stream, site, &head).await?;
    worker.metrics.sealed.inc();
    Ok(Box::new(sealed))
}

/// Opens a stream to a site with a link, on this worker's own connections. Where there are none yet,
/// or one ended meanwhile, the links' shared ones serve.
///
/// # Errors
/// See [`DialError`].
pub(crate) async fn stretch(
    worker: &Worker,
    site: &SiteName,
    ask: Ask,
) -> Result<BoxDuplex, DialError> {
    match worker.trunks.open(site, &head(ask.clone())).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(OpenError::NoLink(_) | OpenError::Closed { .. }) => worker.dial.open(site, ask).await,
        Err(error) => Err(error.into()),
    }
}

fn head(ask: Ask) -> StreamHead {
    match ask {
        Ask::Endpoint(request) => StreamHead {
            endpoint: Some(EndpointRef {
                site: request.endpoint.site,
                network: request.endpoint.network,
                address: request.endpoint.address,
            }),
            lb: Some(request.lb),
            client: request.client.map(|client| ClientRef {
                source: client.source,
                destination: client.destination,
            }),
            ..StreamHead::to(request.authority)
        },
        Ask::Sealed(passage) => StreamHead {
            origin: passage.origin,
            via: passage.via,
            ..StreamHead::sealed(&passage.tenant)
        },
    }
}

/// `None` if it names no endpoint or load balancer, or is to be passed on and not sealed.
fn ask(head: &StreamHead) -> Option<Ask> {
    if let Some(tenant) = head.tenant_of_sealed() {
        return Some(Ask::Sealed(Passage {
            tenant,
            origin: head.origin.clone(),
            via: head.via.clone(),
        }));
    }
    if head.origin.is_some() || !head.via.is_empty() {
        return None;
    }
    let endpoint = head.endpoint?;
    Some(Ask::Endpoint(StreamRequest {
        authority: head.authority.clone(),
        endpoint: balance::EndpointKey {
            site: endpoint.site,
            network: endpoint.network,
            address: endpoint.address,
        },
        lb: head.lb.clone()?,
        client: head.client.map(|client| Addresses {
            source: client.source,
            destination: client.destination,
        }),
    }))
}

impl From<OpenError> for DialError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Refused { status, reason } => DialError::Refused { status, reason },
            OpenError::Head(error) => DialError::Refused {
                status: error.status(),
                reason: error.to_string(),
            },
            OpenError::NoLink(_) => DialError::NoLink,
            OpenError::Closed { source, .. } => DialError::Broken(source),
            OpenError::Timeout { .. } => DialError::Broken(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// A stream of a tunnel as the workers take it.
#[derive(Debug)]
pub struct TunnelStream<T = tunnel::Incoming> {
    peer: SiteName,
    incoming: T,
}

impl TunnelStream {
    /// `None` (and the stream is reset) if the peer is no site's node. Whom a head claims to speak
    /// for does not count: only the certificate does.
    #[must_use]
    pub fn new(incoming: tunnel::Incoming) -> Option<Self> {
        let peer = incoming.peer.site()?.clone();
        Some(TunnelStream { peer, incoming })
    }
}

impl TunnelStream<TrunkIncoming> {
    /// The same.
    pub(crate) fn on_trunk(incoming: TrunkIncoming) -> Option<Self> {
        let peer = incoming.peer.site()?.clone();
        Some(TunnelStream { peer, incoming })
    }
}

impl Incoming for TunnelStream {
    fn peer(&self) -> &SiteName {
        &self.peer
    }

    fn ask(&self) -> Option<Ask> {
        ask(&self.incoming.head)
    }

    fn accept(self: Box<Self>) -> Accepting {
        let accepted = self.incoming.accept();
        Box::pin(std::future::ready(match accepted {
            Ok(stream) => Ok(Box::new(stream) as BoxDuplex),
            Err(error) => Err(error),
        }))
    }

    fn refuse(self: Box<Self>, status: StatusCode, code: &str) {
        self.incoming.refuse(status, code);
    }
}

impl Incoming for TunnelStream<TrunkIncoming> {
    fn peer(&self) -> &SiteName {
        &self.peer
    }

    fn ask(&self) -> Option<Ask> {
        ask(&self.incoming.head)
    }

    fn accept(self: Box<Self>) -> Accepting {
        let accepted = self.incoming.accept();
        Box::pin(std::future::ready(match accepted {
            Ok(stream) => Ok(Box::new(stream) as BoxDuplex),
            Err(error) => Err(error),
        }))
    }

    fn refuse(self: Box<Self>, status: StatusCode, code: &str) {
        self.incoming.refuse(status, code);
    }
}

/// What is asked for inside a sealed stream: by whoever began it, wherever it has come through.
pub(crate) struct Unsealed {
    worker: Rc<Worker>,
    peer: SiteName,
    incoming: SealedIncoming<BoxDuplex>,
}

impl Unsealed {
    /// Takes a stream that is sealed, and waits for what it is for.
    ///
    /// # Errors
    /// It broke, or whoever asks is no node of ours.
    pub(crate) async fn take(worker: &Rc<Worker>, stream: Box<dyn Incoming>) -> io::Result<Self> {
        let stream = stream.accept().await?;
        let incoming = worker.trunks.seal().hear(stream).await?;
        let peer = incoming.peer.site().cloned();
        Ok(Unsealed {
            worker: Rc::clone(worker),
            peer: peer.ok_or(io::ErrorKind::PermissionDenied)?,
            incoming,
        })
    }
}

impl Incoming for Unsealed {
    fn peer(&self) -> &SiteName {
        &self.peer
    }

    fn ask(&self) -> Option<Ask> {
        self.incoming.head.as_ref().ok().and_then(ask)
    }

    fn accept(self: Box<Self>) -> Accepting {
        Box::pin(async move {
            let stream = self.incoming.accept().await?;
            Ok(Box::new(stream) as BoxDuplex)
        })
    }

    fn refuse(self: Box<Self>, status: StatusCode, code: &str) {
        let (worker, code) = (self.worker, code.to_owned());
        let patience = worker.snapshot().limits.handshake_timeout;
        let incoming = self.incoming;
        worker.spawn("refusal", (NOBODY, Line::default()), async move {
            // Whoever began it sees that it is over, if it is not told why.
            let _ = timeout(patience, incoming.refuse(status, &code)).await;
        });
    }
}
