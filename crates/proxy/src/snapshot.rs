//! What the workers serve by: one pointer.

use std::{collections::BTreeMap, fmt, sync::Arc};

use arc_swap::ArcSwap;
use base::SiteId;
use l7::{Egress, Limits, Senders, Table, host_of};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::Clients;

/// Certificates by server name: exact, or `*.suffix` for one label.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    names: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    /// Serve `key` for `host` (any case, `*.` allowed). The last one given stays.
    pub fn insert(&mut self, host: &str, key: Arc<CertifiedKey>) {
        self.names.insert(host.to_ascii_lowercase(), key);
    }

    /// The certificate for a server name in lower case: exact before wildcard.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        self.names.get(name).or_else(|| {
            let (_, suffix) = name.split_once('.')?;
            self.names.get(&format!("*.{suffix}"))
        })
    }
}

/// Everything compiled that the proxy serves by. Replaced as a whole by [`crate::Workers::store`].
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// This site: its endpoints are reached by TCP, all others through tunnels.
    pub site: SiteId,
    /// Streams between other sites are passed on here.
    pub relays: bool,
    /// What is served to clients.
    pub table: Arc<Table>,
    /// With which certificates.
    pub certificates: Arc<Certificates>,
    /// By whom clients are known, of hosts that ask for certificates; where one is missing, nobody.
    pub clients: Arc<Clients>,
    /// What may come out of tunnels.
    pub egress: Arc<Egress>,
    /// Whose word about clients' addresses is taken.
    pub senders: Arc<Senders>,
    /// Limits of connections, before a host is known, and of tunnel streams.
    pub limits: Limits,
}

impl Snapshot {
    /// A snapshot that serves nothing.
    #[must_use]
    pub fn empty(site: SiteId) -> Self {
        Snapshot {
            site,
            relays: false,
            table: Arc::default(),
            certificates: Arc::default(),
            clients: Arc::default(),
            egress: Arc::default(),
            senders: Arc::default(),
            limits: Limits::default(),
        }
    }
}

/// No name or an unknown one: no certificate.
impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = host_of(hello.server_name()?)?;
        self.find(&name).cloned()
    }
}

/// Looks certificates up in the snapshot of the moment.
pub(crate) struct Resolver(pub(crate) Arc<ArcSwap<Snapshot>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().certificates.resolve(hello)
    }
}
