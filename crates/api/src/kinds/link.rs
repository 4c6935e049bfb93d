//! Link: of what sort the link between two sites is.

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is known of the link between two sites beside what is measured. Without tenant it is one
/// between two PoPs; a tenant's is one between a gateway of its own and a PoP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkSpec {
    /// Over what it goes. Ways prefer backbone and direct to peering, that to transit, and that to
    /// internet, as which every link counts of which nothing is said.
    pub kind: LinkKind,
    /// One end, a site.
    #[schemars(with = "String")]
    pub a: Name,
    /// The other one.
    #[schemars(with = "String")]
    pub b: Name,
    /// How many times as long as it is it counts, 1 to 1000.
    #[serde(
        default = "super::site::one",
        skip_serializing_if = "super::site::is_one"
    )]
    pub cost: u16,
}

impl LinkSpec {
    /// The greatest `cost`.
    pub const MOST_COST: u16 = 1000;
}

/// Over what a link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum LinkKind {
    /// A line of one's own, or one that is paid for its quality: 70 % of its length count.
    Backbone,
    /// The two networks meet: 80 %.
    Peering,
    /// Over a network that both pay: 90 %.
    Transit,
    /// A cable between the two: 70 %.
    Direct,
    /// Over whatever there is: all of it.
    Internet,
}

impl LinkKind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            LinkKind::Backbone => "backbone",
            LinkKind::Peering => "peering",
            LinkKind::Transit => "transit",
            LinkKind::Direct => "direct",
            LinkKind::Internet => "internet",
        }
    }
}
