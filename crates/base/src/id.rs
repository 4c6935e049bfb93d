//! Ids the controller allocates once and never reuses. Zero is never a valid allocated id.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A tenant. 0 is the fabric itself (PoPs).
    TenantId(u32)
);
id!(
    /// A site (PoP or gateway).
    SiteId(u32)
);
id!(
    /// A network (VRF) inside its tenant. 0 is the site's own default network.
    NetworkId(u16)
);
id!(
    /// What a route distinguisher carries beside the site: one per (site, tenant, network); 0 is
    /// the owner's application facts.
    SlotId(u16)
);
id!(
    /// A service inside its tenant: the first 64 bits of SHA-256 over `namespace/name`.
    ServiceId(u64)
);
id!(
    /// A load balancer.
    LbId(u64)
);
id!(
    /// A position in the store's history; grows by one with every committed change.
    Revision(u64)
);

/// A node of a site; also its BGP Identifier, printed like an IPv4 address.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::Ipv4Addr::from(self.0).fmt(f)
    }
}
