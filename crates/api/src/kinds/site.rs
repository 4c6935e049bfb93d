//! Site: a place with nodes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A place with 1..n nodes: a PoP (global) or a gateway (of a tenant).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteSpec {
    /// What it is. A `pop` has no metadata.tenant, a `gateway` has one.
    pub role: Role,
    /// Its nodes, one at least.
    pub nodes: Vec<NodeSpec>,
    /// Of a gateway: to how many PoPs it is attached.
    #[serde(default)]
    pub attach: Attach,
}

/// What a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// A point of presence: accepts users and gateways.
    Pop,
    /// Beside the applications: dials out and listens to nothing.
    Gateway,
}

/// One machine of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeSpec {
    /// Its name inside the site.
    #[schemars(with = "String")]
    pub name: Name,
    /// Of a PoP: where it accepts tunnels.
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

/// To how many PoPs a gateway is attached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attach {
    /// 1 to 16; 2 by default.
    pub count: u8,
}

impl Default for Attach {
    fn default() -> Self {
        Attach { count: 2 }
    }
}
