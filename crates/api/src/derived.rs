//! Derived, read-only kinds: what sites report, shaped for `get` and `watch`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An endpoint's health, as one site sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView {
    /// `SERVICE.NAMESPACE.TENANT`.
    pub service: String,
    /// The site it is in, `SITE.TENANT`.
    pub site: String,
    /// Its address there.
    pub address: String,
    /// `healthy`, `unhealthy`, `unknown` …, or `ejected`: taken out here for its answers.
    pub health: String,
    /// Can the reporting site reach the endpoint's site?
    pub reachable: bool,
    /// The measured round trip to the endpoint's site, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// How loaded the service is in that site, as it says, in thousandths of its capacity; absent
    /// where nobody says, or nobody did lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_per_mille: Option<u16>,
    /// Of a thousand requests that would go to that site, how many the reporting site sends there;
    /// absent if it is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_per_mille: Option<u16>,
}

/// A tunnel, as one of its ends sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    /// The other end, `SITE.TENANT`.
    pub peer: String,
    /// The measured round trip, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// `tls` or `quic`.
    #[serde(default)]
    pub transport: String,
    /// Over which uplink it goes: of the gateway its name, of the PoP its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uplink: Option<String>,
    /// Of a million packets, there and back, how many are lost.
    #[serde(default, skip_serializing_if = "is_none_lost")]
    pub lost_ppm: u32,
    /// Kilobits a second that this end sends on it.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub sent_kbit_s: u64,
    /// Kilobits a second that this end could send on it; absent where nobody wanted more than there is
    /// in the last minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity_kbit_s: Option<u64>,
    /// How full it is, in percent, in the direction in which it is fuller: in tens, and absent below
    /// 70.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u8>,
    /// Octets that a packet of IP may have which goes over it; absent where it carries none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// How much it carries beside other links to the same site: 1000 if it is the best, 0 if it
    /// carries nothing new.
    #[serde(default)]
    pub share: u32,
    /// Streams that were opened over it since it is up, in both directions.
    #[serde(default)]
    pub opened: u64,
    /// Of what sort it is, such as `backbone` or `transit cost 2`; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_none_lost(ppm: &u32) -> bool {
    *ppm == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_nothing(rate: &u64) -> bool {
    *rate == 0
}

/// The way from a node to a site, as the node has chosen and measured it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PathView {
    /// The site at its end, `SITE.TENANT`.
    pub site: String,
    /// Every site on it, that at its end too, in order.
    pub hops: Vec<HopView>,
}

/// One stretch of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HopView {
    /// The site that it leads to, `SITE.TENANT`.
    pub site: String,
    /// Its measured round trip, in microseconds.
    pub rtt_us: u64,
    /// Of what sort it is, such as `backbone` or `transit cost 2`; absent where nobody said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// How full it is, in percent: in tens, and absent below 70.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u8>,
}

impl PathView {
    /// The round trip over all of it, in microseconds.
    #[must_use]
    pub fn rtt_us(&self) -> u64 {
        self.hops.iter().map(|hop| hop.rtt_us).sum()
    }

    /// The sites between its ends.
    pub fn over(&self) -> impl Iterator<Item = &str> {
        let between = self.hops.len().saturating_sub(1);
        self.hops.iter().take(between).map(|hop| hop.site.as_str())
    }
}

/// Keys of a token issuer, as a node has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeysView {
    /// Where they are published.
    pub uri: String,
    /// When they were fetched, RFC 3339; never, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<String>,
}

/// What one node says about itself: the upward half of site-sync, and `GET /api/v1/sitestatus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// When the node wrote this, RFC 3339.
    pub at: String,
    /// The revision it runs; 0 before the first.
    pub applied: u64,
    /// Why it refused a newer revision, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// The version of the binary.
    pub version: String,
    /// Whole days until the node's certificate ends.
    pub certificate_days: u64,
    /// Listeners that could not be bound: address and reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub listener_failures: Vec<String>,
    /// Keys of token issuers that it fetches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeysView>,
    /// Its tunnels.
    #[serde(default)]
    pub links: Vec<LinkView>,
    /// Its way to every site that it can reach.
    #[serde(default)]
    pub paths: Vec<PathView>,
    /// Every endpoint it knows.
    #[serde(default)]
    pub endpoints: Vec<EndpointView>,
}

/// One site in `GET /api/v1/sitestatus`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatusView {
    /// `SITE.TENANT`.
    pub site: String,
    /// The node.
    pub node: String,
    /// Is its site-sync stream open now?
    pub connected: bool,
    /// The revision the site should run.
    pub wanted: u64,
    /// What the node said last, if it ever did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,
}

/// A request that somebody wants explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Question {
    /// Where it goes: `http://` or `https://`, a host, and perhaps a logical port and a path.
    pub url: String,
    /// Its method; GET by default.
    #[serde(default = "get")]
    pub method: String,
    /// Its headers, names and values.
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    /// The address of its client; without it, one that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<std::net::IpAddr>,
    /// The names in its client's certificate, as `uri=URI`, `dns=NAME`, `commonName=NAME` or
    /// `sha256=DIGITS`; none: it has no certificate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub identity: Vec<String>,
}

fn get() -> String {
    "GET".to_owned()
}

/// What would become of it at one node, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// `forward to SERVICE.NAMESPACE.TENANT`, or a status and a code.
    pub verdict: String,
    /// Each step of the decision.
    pub steps: Vec<Step>,
    /// `SERVICE.NAMESPACE.TENANT` that answers, if it comes so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The endpoints of its service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<EndpointStanding>,
}

/// One step of a decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// What was looked at: `listener`, `host`, `route` …
    pub step: String,
    /// Did it fit?
    pub good: bool,
    /// What was found.
    pub text: String,
}

/// How an endpoint stands when one is picked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStanding {
    /// Its site, `SITE.TENANT`.
    pub site: String,
    /// Its address there.
    pub address: String,
    /// The round trip to its site by which it is placed, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// The way to its site, if it is another one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<HopView>,
    /// Requests of this node that run on it now.
    pub in_flight: u32,
    /// How loaded the service is in its site, in thousandths of its capacity, if the site says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_per_mille: Option<u16>,
    /// Of a thousand requests that would go to its site, how many do, because of that; absent if it
    /// is all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_per_mille: Option<u16>,
    /// Its share by weight, of a thousand requests.
    pub per_mille: u32,
    /// `picked`, or why it is not.
    pub why: String,
}
