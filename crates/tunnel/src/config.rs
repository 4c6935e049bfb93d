//! What a node tells its tunnels, replaceable at run time.

use std::{fmt, net::SocketAddr, sync::Arc};

use base::SiteName;
use pki::{Identity, Planet};
use runtime::{
    net::Source,
    tls::{self, Credentials, TlsError},
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::{join::JOIN_ALPN, preface::Role, quic, seal::SEALED_ALPN};

/// Says whether a peer whose certificate is good may speak to us: known and not revoked.
#[derive(Clone)]
pub struct Admit(Arc<dyn Fn(&Identity) -> bool + Send + Sync>);

impl Admit {
    /// Admits whom `rule` says.
    pub fn when(rule: impl Fn(&Identity) -> bool + Send + Sync + 'static) -> Self {
        Admit(Arc::new(rule))
    }

    /// Admits every node of the planet.
    #[must_use]
    pub fn all() -> Self {
        Admit::when(|_| true)
    }

    pub(crate) fn admits(&self, peer: &Identity) -> bool {
        (self.0)(peer)
    }
}

impl fmt::Debug for Admit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admit")
    }
}

/// A node to keep a link to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialTarget {
    /// The site that must answer; `None` takes any site that is admitted.
    pub expected: Option<SiteName>,
    /// Its addresses, tried in turn.
    pub addresses: Vec<SocketAddr>,
    /// Over which of several uplinks; `None`: as the system's routes say.
    pub uplink: Option<(Uplink, Source)>,
}

/// One of a site's ways into the Internet. Both ends of a link know which of them it goes over; of
/// each a node may have a link to the same node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its number among those of its site, from 1.
    pub number: u8,
    /// Its name; where the other side dialled, its number.
    pub name: Arc<str>,
    /// How many times as long as it is its links count.
    pub cost: u16,
}

impl Uplink {
    /// What the dialler said of it; 0: it has but one.
    pub(crate) fn announced(number: u8, cost: u16) -> Option<Self> {
        (number > 0).then(|| Uplink {
            number,
            name: number.to_string().into(),
            cost: cost.max(1),
        })
    }
}

/// Over what a node's links go, where both would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Prefer {
    /// There is one over TLS and one over QUIC; the latter carries what begins while packets are
    /// lost.
    #[default]
    Auto,
    /// None goes over QUIC.
    Tls,
    /// There are both; the one over TLS carries what begins while there is no other.
    Quic,
}

/// Everything a node's tunnels need to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Peers of another planet are refused.
    pub planet: Planet,
    /// This node's certificate chain and key.
    pub credentials: Credentials,
    /// The fabric's CAs.
    pub roots: Vec<CertificateDer<'static>>,
    /// Addresses to listen on; empty for a gateway.
    pub listen: Vec<SocketAddr>,
    /// Nodes to dial, all at once.
    pub dial: Vec<DialTarget>,
    /// Who may have a link.
    pub admit: Admit,
    /// Who may ask for something over others, by a stream that is sealed.
    pub hear: Admit,
    /// Whether nodes without a certificate may ask to join here.
    pub joins: bool,
    /// Over what links go that are dialled from here.
    pub prefer: Prefer,
    /// Data connections each link shall have: one for each thread that serves streams. None if
    /// either side asks for none, else as many as the side that asks for more.
    pub trunks: u8,
}

/// A configuration with its TLS made.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) config: Config,
    servers: [Arc<ServerConfig>; 5],
    clients: [Arc<ClientConfig>; 5],
    quic: quic::Configs,
    seals: Seals,
    join: Option<Arc<ServerConfig>>,
}

impl Active {
    pub(crate) fn new(config: Config) -> Result<Self, TlsError> {
        let Config {
            credentials, roots, ..
        } = &config;
        let server = |role: Role| tls::fabric_server(credentials, roots, &[role.alpn()]);
        let client = |role: Role| tls::fabric_client(credentials, roots, &[role.alpn()]);
        let [control, forward, reverse, data, spare] = Role::ALL;
        Ok(Active {
            servers: [
                server(control)?,
                server(forward)?,
                server(reverse)?,
                server(data)?,
                server(spare)?,
            ],
            clients: [
                client(control)?,
                client(forward)?,
                client(reverse)?,
                client(data)?,
                client(spare)?,
            ],
            quic: quic::Configs::new(credentials, roots)?,
            seals: Seals {
                server: tls::fabric_server(credentials, roots, &[SEALED_ALPN])?,
                client: tls::fabric_client(credentials, roots, &[SEALED_ALPN])?,
            },
            join: if config.joins {
                Some(join_server(&config)?)
            } else {
                None
            },
            config,
        })
    }

    pub(crate) fn server(&self, role: Role) -> Arc<ServerConfig> {
        Arc::clone(&self.servers[role.index()])
    }

    pub(crate) fn client(&self, role: Role) -> Arc<ClientConfig> {
        Arc::clone(&self.clients[role.index()])
    }

    pub(crate) const fn quic(&self) -> &quic::Configs {
        &self.quic
    }

    pub(crate) const fn seals(&self) -> &Seals {
        &self.seals
    }

    pub(crate) fn join(&self) -> Option<Arc<ServerConfig>> {
        self.join.clone()
    }
}

/// What streams are sealed with.
#[derive(Debug)]
pub(crate) struct Seals {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Seals {
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }
}

/// Who joins knows the CA by its hash only, so the chain it is shown ends with the CA itself.
fn join_server(config: &Config) -> Result<Arc<ServerConfig>, TlsError> {
    let mut credentials = config.credentials.clone();
    for root in &config.roots {
        if !credentials.chain.contains(root) {
            credentials.chain.push(root.clone());
        }
    }
    tls::server(&credentials, &[JOIN_ALPN])
}
