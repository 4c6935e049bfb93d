//! Site: a place with nodes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::LabelSelector;

/// A place with 1..n nodes: a PoP (global) or a gateway (of a tenant).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// What it is. A `pop` has no metadata.tenant, a `gateway` has one.
    pub role: Role,
    /// Its nodes, one at least.
    pub nodes: Vec<NodeSpec>,
    /// Of a PoP: where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// Of a gateway: to how many PoPs it is attached.
    #[serde(default)]
    pub attach: Attach,
    /// Of a gateway: whether it has links to other gateways of its tenant.
    #[serde(default, skip_serializing_if = "Mesh::is_hub")]
    pub mesh: Mesh,
    /// Of a gateway: its ways into the Internet, if it has several. To each PoP it keeps a tunnel
    /// over each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<UplinkSpec>,
}

/// Where a PoP is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Location {
    /// What shares a fate: of PoPs of one region a gateway is attached to one only, where another
    /// region is not much farther.
    #[schemars(with = "String")]
    pub region: Name,
}

/// A way of a gateway into the Internet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UplinkSpec {
    /// Its name inside the site.
    #[schemars(with = "String")]
    pub name: Name,
    /// An interface of each node (it needs a route, such as a default route with a metric), or an
    /// address of the node (then the system's routes by source decide).
    pub source: String,
    /// How many times as long as they are its tunnels count, 1 to 1000: one that is paid by volume
    /// carries nothing while another is not so many times worse.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub cost: u16,
}

pub(super) const fn one() -> u16 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(super) const fn is_one(cost: &u16) -> bool {
    *cost == 1
}

/// What a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A point of presence: accepts users and gateways.
    Pop,
    /// Beside the applications: dials out, and listens to nothing unless it is meshed.
    Gateway,
}

/// One machine of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Its name inside the site.
    #[schemars(with = "String")]
    pub name: Name,
    /// Of a PoP, and of a gateway that is meshed: where it accepts tunnels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<NodeTunnel>,
    /// Of a PoP: where it accepts users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<PublicAddresses>,
    /// Who stands before this node and says by the PROXY protocol for whom it connects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxySenders>,
}

/// Where a node accepts tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeTunnel {
    /// The addresses it listens on.
    #[schemars(with = "Vec<String>")]
    pub bind: Vec<SocketAddr>,
    /// The addresses others dial; the binds if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub advertise: Vec<AdvertisedAddress>,
}

/// An address that some sites, or any, dial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdvertisedAddress {
    /// The address to dial.
    #[schemars(with = "String")]
    pub address: SocketAddr,
    /// `any`, or the `SITE` or `SITE.TENANT` for which this address is (it goes before `any`).
    #[serde(default = "any")]
    pub from: String,
}

fn any() -> String {
    "any".to_owned()
}

/// Whose word about clients' addresses is taken: `ADDRESS` or `ADDRESS/LENGTH`, of two that fit
/// the longer one. On every port for users; from all others no header is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ProxySenders {
    /// Those that begin every connection with a PROXY header (version 1 or 2); one without is
    /// closed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// Those that may. Where neither side speaks first, such a connection waits for 10 s.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optional_from: Vec<String>,
}

/// Where a node accepts users.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PublicAddresses {
    /// The addresses its sockets are bound to.
    #[schemars(with = "Vec<String>")]
    pub bind: Vec<IpAddr>,
    /// Logical port → port of the socket, so that an unprivileged process can offer 80 and 443.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub port_map: BTreeMap<u16, u16>,
}

/// Whether a gateway has links to other gateways of its tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mesh {
    /// Which of them.
    #[serde(default)]
    pub topology: MeshTopology,
}

/// Which gateways of one tenant have links to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MeshTopology {
    /// None: it has links to PoPs alone, and everything goes over these.
    #[default]
    Hub,
    /// All that say so, where one of the two gives out addresses to the other.
    Full,
}

impl Mesh {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    const fn is_hub(&self) -> bool {
        !self.is_full()
    }

    /// Has it links to other gateways?
    #[must_use]
    pub const fn is_full(self) -> bool {
        matches!(self.topology, MeshTopology::Full)
    }
}

/// To how many PoPs a gateway is attached, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attach {
    /// 1 to 16; 2 by default.
    #[serde(default = "two")]
    pub count: u8,
    /// To which PoPs it may be attached, by their labels; to any by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pop_selector: Option<LabelSelector>,
    /// Over what its tunnels go.
    #[serde(default, skip_serializing_if = "AttachTransport::is_auto")]
    pub transport: AttachTransport,
}

const fn two() -> u8 {
    2
}

/// Over what a gateway's tunnels go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachTransport {
    /// Over TLS, and over QUIC while packets are lost. Both are kept.
    #[default]
    Auto,
    /// Over TLS alone.
    Tls,
    /// Over QUIC, and over TLS while UDP does not pass. Both are kept.
    Quic,
}

impl AttachTransport {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    const fn is_auto(&self) -> bool {
        matches!(self, AttachTransport::Auto)
    }
}

impl Default for Attach {
    fn default() -> Self {
        Attach {
            count: 2,
            pop_selector: None,
            transport: AttachTransport::Auto,
        }
    }
}
