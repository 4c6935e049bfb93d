//! Load balancers that carry octets as they are: a connection or a flow at a time, unread.

use std::net::{IpAddr, SocketAddr};

use base::{LbId, Rng, TenantId};

use crate::{Backend, Cluster, Fields, Limits, affinity, decide::backend, host_of};

/// What a socket for users speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerProtocol {
    /// HTTP in plain text, shared by host.
    Http,
    /// TLS, shared by server name.
    Tls,
    /// Octets, all of them this load balancer's.
    Tcp(LbId),
    /// QUIC, on the port of TLS, shared by server name.
    Quic,
    /// Datagrams, all of them this load balancer's.
    Udp(LbId),
    /// HTTP in plain text, of which CONNECT is served, all of it this load balancer's.
    Connect(LbId),
}

impl ListenerProtocol {
    /// Do datagrams come to it, and no connections?
    #[must_use]
    pub const fn is_datagrams(self) -> bool {
        match self {
            ListenerProtocol::Quic | ListenerProtocol::Udp(_) => true,
            ListenerProtocol::Http
            | ListenerProtocol::Tls
            | ListenerProtocol::Tcp(_)
            | ListenerProtocol::Connect(_) => false,
        }
    }
}

/// A load balancer that carries octets as they are.
#[derive(Clone, Debug)]
pub struct Layer4 {
    /// The load balancer.
    pub lb: LbId,
    /// Its name, `namespace/name`.
    pub lb_name: String,
    /// Its owner.
    pub tenant: TenantId,
    /// Its owner's name.
    pub tenant_name: String,
    /// Names under which clients may ask for its services, exact or `*.suffix`, in lower case.
    pub hosts: Vec<String>,
    /// The name of its route.
    pub route: String,
    /// What its clients may use.
    pub limits: Limits,
    /// Who gets a connection, by weight.
    pub backends: Vec<Backend>,
}

impl Layer4 {
    /// The service that gets the next connection; `None`: no weight at all.
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Option<&Cluster> {
        backend(&self.backends, rng)
    }

    /// The service that a client asks for: by its application address and port, or by one of the
    /// hosts and the port of a service.
    #[must_use]
    pub fn asked(&self, authority: &str) -> Option<&Cluster> {
        let (_, port) = authority.rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        let host = host_of(authority)?;
        let clusters = self.backends.iter().map(|backend| &*backend.cluster);
        let mut there = clusters.filter(|cluster| cluster.port == port);
        let covers = |pattern: &String| match pattern.strip_prefix('*') {
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => *pattern == *host,
        };
        if self.hosts.iter().any(covers) {
            // Of several on one port none is meant.
            let one = there.next()?;
            return there.next().is_none().then_some(one);
        }
        there.find(|cluster| cluster.service.to_string() == *host)
    }
}

/// The two ends of a client's connection, as the client sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it has connected to.
    pub destination: SocketAddr,
}

impl Cluster {
    /// Where the connections of a client belong, if the service goes by that.
    #[must_use]
    pub fn belongs(&self, client: IpAddr, rng: &mut Rng) -> Option<u64> {
        if self.hash_on.is_empty() {
            return None;
        }
        affinity(&self.hash_on, &Fields::default(), None, client, false, rng).hash
    }
}
