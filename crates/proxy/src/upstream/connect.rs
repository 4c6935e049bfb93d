//! The border to the tunnels: how a stream to another site is asked for and taken.

use std::{future::Future, io, pin::Pin};

use balance::EndpointKey;
use base::{Name, SiteName};
use http::StatusCode;
use l7::Addresses;

use crate::io::BoxDuplex;

/// What is asked of another site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A stream to an endpoint.
    Endpoint(StreamRequest),
    /// One of which only those at its ends know for what it is.
    Sealed(Passage),
}

/// The way of a sealed stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Whose stream it is.
    pub tenant: Name,
    /// The site where it began, if others have passed it on. Whoever passes it on next goes by it;
    /// where it ends it is of no account.
    pub origin: Option<SiteName>,
    /// The sites over which the receiver is to pass it on, the destination last; none: it ends there.
    pub via: Vec<SiteName>,
}

impl Passage {
    /// The site where it began, when `peer` asks for it: PoPs are believed for whom they ask.
    pub(crate) fn ingress<'a>(&'a self, peer: &'a SiteName) -> &'a SiteName {
        let vouched = self.origin.as_ref().filter(|_| peer.is_pop());
        vouched.unwrap_or(peer)
    }
}

/// What a stream between sites is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamRequest {
    /// The application address, `SERVICE.NAMESPACE.TENANT:PORT`.
    pub authority: String,
    /// The endpoint at the other side.
    pub endpoint: EndpointKey,
    /// The load balancer the traffic came through, `namespace/name`.
    pub lb: String,
    /// Whose connection it is, where the endpoint is to be told.
    pub client: Option<Addresses>,
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No living link to that site.
    #[error("no link to the site is up")]
    NoLink,
    /// The other side answered, and not with 200.
    #[error("the other side refused the stream with {status}: {reason}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its word for it.
        reason: String,
    },
    /// The link broke meanwhile.
    #[error("the link broke")]
    Broken(#[source] io::Error),
}

/// A stream being opened, on the worker that asked for it.
pub type Dialing = Pin<Box<dyn Future<Output = Result<BoxDuplex, DialError>>>>;

/// Opens streams to other sites. Called from every worker; must not block.
pub trait Dial: Send + Sync {
    /// Open a stream to site `peer`. Dropping the future gives up.
    fn open(&self, peer: &SiteName, ask: Ask) -> Dialing;

    /// What serves the data connections of one worker.
    fn trunks(&self) -> tunnel::Trunks {
        tunnel::Trunks::default()
    }
}

/// A dialler for a node without tunnels: every site is unreachable.
#[derive(Clone, Copy, Debug)]
pub struct NoTunnels;

impl Dial for NoTunnels {
    fn open(&self, _: &SiteName, _: Ask) -> Dialing {
        Box::pin(std::future::ready(Err(DialError::NoLink)))
    }
}

/// A stream being accepted.
pub type Accepting = Pin<Box<dyn Future<Output = io::Result<BoxDuplex>>>>;

/// A stream that another site asks for, not yet answered. Dropping it refuses it.
pub trait Incoming {
    /// Who asks, by its certificate.
    fn peer(&self) -> &SiteName;
    /// For what; `None` if the head does not say it.
    fn ask(&self) -> Option<Ask>;
    /// Answer 200 and take the stream.
    fn accept(self: Box<Self>) -> Accepting;
    /// Answer `status`, with a word for machines.
    fn refuse(self: Box<Self>, status: StatusCode, code: &str);
}
