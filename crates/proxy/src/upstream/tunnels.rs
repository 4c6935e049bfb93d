//! The tunnels behind the border of [`super::connect`].

use base::SiteName;
use http::StatusCode;
use l7::Addresses;
use tunnel::{ClientRef, EndpointRef, Links, OpenError, StreamHead};

use super::connect::{Accepting, Dial, DialError, Dialing, Incoming, StreamRequest};
use crate::io::BoxDuplex;

impl Dial for Links {
    fn open(&self, peer: &SiteName, request: StreamRequest) -> Dialing {
        let (links, peer) = (self.clone(), peer.clone());
        let head = StreamHead {
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
        };
        Box::pin(async move {
            match links.open(&peer, &head).await {
                Ok(stream) => Ok(Box::new(stream) as BoxDuplex),
                Err(OpenError::Refused { status, reason }) => {
                    Err(DialError::Refused { status, reason })
                }
                Err(OpenError::Head(error)) => Err(DialError::Refused {
                    status: error.status(),
                    reason: error.to_string(),
                }),
                Err(OpenError::NoLink(_)) => Err(DialError::NoLink),
                Err(OpenError::Closed { source, .. }) => {
                    Err(DialError::Broken(runtime::h2io::io_error(source)))
                }
                Err(OpenError::Timeout { .. }) => {
                    Err(DialError::Broken(std::io::ErrorKind::TimedOut.into()))
                }
            }
        })
    }
}

/// A stream of a tunnel as the workers take it.
#[derive(Debug)]
pub struct TunnelStream {
    peer: SiteName,
    incoming: tunnel::Incoming,
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

impl Incoming for TunnelStream {
    fn peer(&self) -> &SiteName {
        &self.peer
    }

    fn request(&self) -> Option<StreamRequest> {
        let head = &self.incoming.head;
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
        })
    }

    fn accept(self: Box<Self>) -> Accepting {
        let accepted = self.incoming.accept();
        Box::pin(std::future::ready(match accepted {
            Ok(stream) => Ok(Box::new(stream) as BoxDuplex),
            Err(error) => Err(runtime::h2io::io_error(error)),
        }))
    }

    fn refuse(self: Box<Self>, status: StatusCode, code: &'static str) {
        self.incoming.refuse(status, code);
    }
}
