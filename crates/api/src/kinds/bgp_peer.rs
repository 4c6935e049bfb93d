//! BGPPeer: a router that a site has.

use std::net::IpAddr;

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Span;

/// A router beside a site, to which the site's nodes open BGP sessions. It is told the VIPs that
/// load balancers advertise in the site, each while it has a healthy endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerSpec {
    /// The site, of the BGPPeer's own tenant.
    #[schemars(with = "String")]
    pub site: Name,
    /// The router's address.
    pub peer_address: IpAddr,
    /// Its port; 179 by default.
    #[serde(default = "bgp_port")]
    pub peer_port: u16,
    /// Its AS.
    #[serde(rename = "peerASN")]
    pub peer_asn: u32,
    /// Ours, as the router knows it.
    #[serde(rename = "localASN")]
    pub local_asn: u32,
    /// The address of the node to speak from; whichever leads there by default. With a site of
    /// several nodes leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// What is taken from it; nothing by default (RFC 8212).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub import: Vec<PolicyStatement>,
    /// What it is told of the VIPs, and how; without a statement every VIP as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub export: Vec<PolicyStatement>,
    /// Watch the path to it several times a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<BgpPeerBfd>,
    /// How both prove who they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<BgpPeerAuth>,
    /// Take nothing from it that crossed another router (RFC 5082); both sides need it.
    #[serde(default)]
    pub gtsm: bool,
    /// How long silence is borne: `0s` for ever, else from 3 s; 90 s by default.
    #[serde(default = "hold_time")]
    pub hold_time: Span,
    /// How long it is to keep our VIPs while the node's control part restarts (RFC 4724): also when
    /// the whole node has died without a word, so not at all by default.
    #[serde(default)]
    pub restart_time: Span,
}

fn bgp_port() -> u16 {
    179
}

fn hold_time() -> Span {
    Span(std::time::Duration::from_secs(90))
}

/// One statement of a policy: `name`, `match`, `set` and `then`, in the words of the policies of
/// `sealane bgp`; what none decides is rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct PolicyStatement(pub Map<String, Value>);

/// BFD (RFC 5880): when the path dies, so does the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerBfd {
    /// From one packet to the next, both ways, 10 ms to 60 s; 300 ms by default.
    #[serde(default = "interval")]
    pub interval: Span,
    /// So many missing packets are a dead path, 1 to 255; 3 by default.
    #[serde(default = "three")]
    pub multiplier: u8,
    /// The router is this many hops away at most (RFC 5883); without it, on the same link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multihop: Option<u8>,
}

fn interval() -> Span {
    Span(std::time::Duration::from_millis(300))
}

fn three() -> u8 {
    3
}

/// How both prove who they are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BgpPeerAuth {
    /// Sign every segment with it (RFC 2385); 80 bytes at most. Never shown again: reading returns
    /// a stand-in, which may be sent back unchanged.
    pub password: String,
}

impl std::fmt::Debug for BgpPeerAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BgpPeerAuth")
    }
}
