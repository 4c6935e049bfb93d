//! What a node is in the fabric, and what its neighbours are to it.

use std::{fmt, net::IpAddr, net::Ipv4Addr, sync::Arc, time::Duration};

use base::{NodeId, SiteId, TenantId};

use crate::{
    Trust,
    peer::{ConnectionConfig, Negotiated, PeerAs},
    table::{Filter, Kind, NextHop, PeerConfig as TableConfig, PeerFamily, RouteCount},
    wire::Family,
};

/// How long a stale route lives where nobody says otherwise.
const STALE_TIME: Duration = Duration::from_secs(7 * 24 * 3600);
/// What a neighbour may ask for: far more than it has tenants and networks.
const MAX_WISHES: u32 = 65_536;

/// A neighbour's number in this node; the shell chooses it: the neighbour's node id will do, and
/// 0 for our own other half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        NodeId(self.0).fmt(f)
    }
}

/// How a node's speaker is configured.
#[derive(Clone, Debug)]
pub struct FabricConfig {
    /// This node's id: originator of local routes, next hop, and cluster id.
    pub node: NodeId,
    /// The one AS.
    pub asn: u32,
    /// The hold time offered to neighbours; whole seconds from 3.
    pub hold_time: Duration,
    /// How long routes stay after their neighbour's session ended; 7 days.
    pub stale_time: Duration,
    /// No End-of-RIB before this long after start, nor before the site table is known: until then
    /// we may not know yet what we knew before a restart. 10 s.
    pub end_of_rib_delay: Duration,
    /// Keeps strangers from choosing keys that collide in the table's hashes.
    pub seed: u64,
}

impl FabricConfig {
    /// The defaults.
    #[must_use]
    pub const fn new(node: NodeId, asn: u32) -> Self {
        FabricConfig {
            node,
            asn,
            hold_time: Duration::from_secs(30),
            stale_time: STALE_TIME,
            end_of_rib_delay: Duration::from_secs(10),
            seed: 0,
        }
    }
}

/// A neighbour's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Its number here.
    pub id: PeerId,
    /// Its node id, which the stream below has proved.
    pub node: NodeId,
    /// What it is to us.
    pub kind: Kind,
    /// How far its word is taken.
    pub trust: Trust,
    /// The most MESH routes kept from it.
    pub max_routes: u32,
}

impl PeerConfig {
    const fn base(node: NodeId, kind: Kind, trust: Trust) -> Self {
        PeerConfig {
            id: PeerId(node.0),
            node,
            kind,
            trust,
            max_routes: 1_000_000,
        }
    }

    /// A gateway's node, as a `PoP` sees it: a client that speaks for `site` only, and may ask
    /// for what its own tenant may hear only.
    #[must_use]
    pub const fn gateway(node: NodeId, site: SiteId) -> Self {
        let mut config = Self::base(node, Kind::Client, Trust::Gateway { site });
        config.max_routes = 100_000;
        config
    }

    /// A `PoP` as another `PoP` sees it.
    #[must_use]
    pub const fn pop(node: NodeId) -> Self {
        Self::base(node, Kind::NonClient, Trust::Pop { only: None })
    }

    /// A `PoP` as a gateway of `tenant` sees it.
    #[must_use]
    pub const fn reflector(node: NodeId, tenant: TenantId) -> Self {
        let only = Some(tenant);
        Self::base(node, Kind::NonClient, Trust::Pop { only })
    }

    /// The other half of this node; neighbour number 0.
    #[must_use]
    pub const fn local(node: NodeId) -> Self {
        let mut config = Self::base(node, Kind::Local, Trust::Local);
        config.id = PeerId(0);
        config
    }

    /// What is spoken with it: MESH, and with other nodes who wants what of it.
    fn families(&self) -> &'static [Family] {
        match self.kind {
            Kind::Local => &[Family::MESH],
            Kind::External | Kind::RouteServerClient | Kind::Client | Kind::NonClient => {
                &[Family::MESH, Family::RTC]
            }
        }
    }

    /// What we ask it for, as RT constraint keys: a gateway for its tenant's routes and for Site
    /// and Link routes of the fabric, a `PoP` for everything.
    pub(super) fn wishes(&self) -> Vec<Vec<u8>> {
        match self.trust {
            Trust::Policy | Trust::Local => Vec::new(),
            Trust::Gateway { .. } | Trust::Pop { only: None } => vec![vec![0]],
            Trust::Pop { only: Some(tenant) } => {
                let [a, b, c, d] = tenant.0.to_be_bytes();
                vec![
                    vec![80, 0, 0, 0, 0, 1, 2, a, b, c, d],
                    vec![96, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 1],
                ]
            }
        }
    }

    /// How our end of a session with it presents itself.
    pub fn connection(&self, own: &FabricConfig) -> ConnectionConfig {
        let asn = PeerAs::Exactly(own.asn);
        let mut config = ConnectionConfig::new(own.node, own.asn, asn, self.families());
        config.peer_node = Some(self.node);
        config.hold_time = own.hold_time;
        // Nodes ask again for what another site table lets in: nothing is to be swept by that.
        config.enhanced_refresh = false;
        config.send_hold_time = Some(own.hold_time * 2);
        config
    }

    /// How the table sees it, once both agreed.
    pub(crate) fn in_table(&self, negotiated: &Negotiated) -> TableConfig {
        let families = negotiated.families.iter().map(|family| PeerFamily {
            family: *family,
            add_path_send: 0,
            max_routes: if *family == Family::MESH {
                self.max_routes
            } else {
                MAX_WISHES
            },
            count: RouteCount::default(),
        });
        TableConfig {
            asn: negotiated.peer_asn,
            node: self.node,
            address: IpAddr::V4(Ipv4Addr::from(self.node.0)),
            kind: self.kind,
            families: families.collect(),
            max_message: negotiated.max_message_out,
            four_octet_as: negotiated.four_octet_as,
            knows_long_lived: true,
            long_lived: Vec::new(),
            constrained: self.kind != Kind::Local,
            next_hop: NextHop::Unchanged,
            trust: self.trust,
            import: Arc::new(Filter::Accept),
            export: Arc::new(Filter::Accept),
        }
    }
}
