//! The tunnels behind the border of [`super::connect`].

use std::{io, time::Duration};

use base::SiteName;
use http::StatusCode;
use l7::Addresses;
use tokio::time::timeout;
use tunnel::{ClientRef, EndpointRef, Links, OpenError, StreamHead, TrunkIncoming, Trunks};

use super::connect::{Accepting, Dial, DialError, Dialing, Incoming, StreamRequest};
use crate::{attempt::Kind, io::BoxDuplex, worker::Worker};

impl Dial for Links {
    fn open(&self, peer: &SiteName, request: StreamRequest) -> Dialing {
        let (links, peer) = (self.clone(), peer.clone());
        Box::pin(async move {
            match links.open(&peer, &head(request)).await {
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

/// Opens a stream to `site`, over others if that is the way.
///
/// # Errors
/// See [`DialError`].
pub(crate) async fn open(
    worker: &Worker,
    site: &SiteName,
    request: &StreamRequest,
) -> Result<BoxDuplex, DialError> {
    let routes = worker.trunks.routes();
    let before = routes.way(site);
    let opened = begin(worker, site, request).await;
    // Here, or where it was to be passed on.
    let no_link = match &opened {
        // Or it broke before the stream was accepted: of the request nothing was sent.
        Err(DialError::NoLink | DialError::Broken(_)) => true,
        Err(DialError::Refused { status, reason }) => {
            *status == StatusCode::SERVICE_UNAVAILABLE && reason == Kind::Link.code()
        }
        Ok(_) => false,
    };
    if !no_link || request.origin.is_some() {
        return opened;
    }
    match timeout(ANOTHER_WAY, routes.other(site, before)).await {
        Ok(()) => begin(worker, site, request).await,
        Err(_) => opened,
    }
}

/// On this worker's own connections. Where there are none yet, or one ended meanwhile, the links'
/// shared ones serve.
async fn begin(
    worker: &Worker,
    site: &SiteName,
    request: &StreamRequest,
) -> Result<BoxDuplex, DialError> {
    match worker.trunks.open(site, &head(request.clone())).await {
        Ok(stream) => Ok(Box::new(stream)),
        Err(OpenError::NoLink(_) | OpenError::Closed { .. }) => {
            worker.dial.open(site, request.clone()).await
        }
        Err(error) => Err(error.into()),
    }
}

fn head(request: StreamRequest) -> StreamHead {
    StreamHead {
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
        origin: request.origin,
        via: request.via,
        ..StreamHead::to(request.authority)
    }
}

/// `None` if it names no endpoint or load balancer.
fn request(head: &StreamHead) -> Option<StreamRequest> {
    let endpoint = head.endpoint?;
    Some(StreamRequest {
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
        origin: head.origin.clone(),
        via: head.via.clone(),
    })
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

    fn request(&self) -> Option<StreamRequest> {
        request(&self.incoming.head)
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

    fn request(&self) -> Option<StreamRequest> {
        request(&self.incoming.head)
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
