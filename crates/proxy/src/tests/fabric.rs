//! Nodes with certificates of one planet, for what is sealed.

use std::time::Duration;

use pki::{Authority, Identity, NodeKey, Planet};
use runtime::{metrics::Metrics, tls::Credentials};
use rustls_pki_types::PrivateKeyDer;
use tokio::sync::OnceCell;
use tunnel::{Admit, Links, Prefer, Seal, Trunks, Tunnel};

use super::world::site;
use crate::{Ask, Dial, DialError, Dialing};

/// A planet's certificates.
pub(super) struct Fabric(Authority, Planet);

impl Fabric {
    pub(super) fn new() -> Self {
        let planet: Planet = "test.example".parse().expect("a planet");
        let authority = Authority::create(&planet, runtime::wall());
        Fabric(authority.expect("a CA"), planet)
    }

    /// The one of most tests.
    async fn shared() -> &'static Fabric {
        static SHARED: OnceCell<Fabric> = OnceCell::const_new();
        SHARED.get_or_init(async || Fabric::new()).await
    }

    /// The tunnels of a node, without links. It knows all sites but `old.fabric`.
    pub(super) async fn node(&self, name: &str) -> Tunnel {
        let node = "node-1".parse().expect("a name");
        let identity = Identity::node(self.1.clone(), site(name), node);
        let key = NodeKey::generate().expect("a key");
        let csr = key.csr_der().expect("a request");
        let life = Duration::from_secs(86_400);
        let chain = self.0.issue(&csr, &identity, runtime::wall(), life);
        let key = PrivateKeyDer::try_from(key.pkcs8_der().to_vec()).expect("PKCS#8");
        let tunnel = tunnel::start(&Metrics::default()).expect("a thread");
        let config = tunnel::Config {
            planet: self.1.clone(),
            credentials: Credentials {
                chain: chain.expect("issued"),
                key,
            },
            roots: vec![self.0.certificate_der().clone()],
            listen: Vec::new(),
            dial: Vec::new(),
            admit: Admit::all(),
            hear: Admit::when(|peer| *peer.site().expect("a node") != site("old.fabric")),
            joins: false,
            prefer: Prefer::Tls,
            trunks: 0,
        };
        tunnel.control.configure(config).await.expect("configured");
        tunnel
    }
}

/// What seals streams of a node of the planet that all tests share.
pub(super) async fn seal(name: &str) -> Seal {
    let tunnel = Fabric::shared().await.node(name).await;
    tunnel.links.trunks().seal().clone()
}

/// A node of that planet that reaches nobody, and opens what is sealed for it.
pub(super) struct Alone(Links);

impl Alone {
    pub(super) async fn new() -> Self {
        static GATEWAY: OnceCell<Tunnel> = OnceCell::const_new();
        let made = GATEWAY.get_or_init(async || Fabric::shared().await.node("aws.acme").await);
        Alone(made.await.links.clone())
    }
}

impl Dial for Alone {
    fn open(&self, _: &base::SiteName, _: Ask) -> Dialing {
        Box::pin(std::future::ready(Err(DialError::NoLink)))
    }

    fn trunks(&self) -> Trunks {
        self.0.trunks()
    }
}
