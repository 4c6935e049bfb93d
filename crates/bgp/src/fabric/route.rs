//! Routes of the MESH family as our own nodes name them, and as octets.

use base::NodeId;

use crate::{
    Key, PeerId, RawAttribute, RouteTarget, Value,
    wire::{AttributesView, put_attribute},
};

/// A route this node says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalRoute {
    /// What it is about.
    pub key: Key,
    /// What it says.
    pub value: Value,
    /// Who may hear it.
    pub route_targets: Vec<RouteTarget>,
    /// Attributes passed on unread, such as [`RawAttribute::facts`]; their codes above 16.
    pub extra: Vec<RawAttribute>,
}

impl LocalRoute {
    /// Canonical attributes, with this node as the next hop.
    #[must_use]
    pub fn attributes(&self, node: NodeId) -> Vec<u8> {
        let mut out = own_attributes(node);
        let targets: Vec<u8> = self
            .route_targets
            .iter()
            .flat_map(|target| target.to_community())
            .collect();
        if !targets.is_empty() {
            put_attribute(&mut out, 0xC0, EXTENDED_COMMUNITIES, &targets);
        }
        let mut extra: Vec<&RawAttribute> = self.extra.iter().collect();
        extra.sort_by_key(|attribute| attribute.code);
        for RawAttribute { flags, code, value } in extra {
            put_attribute(&mut out, *flags, *code, value);
        }
        out
    }
}

const EXTENDED_COMMUNITIES: u8 = 16;

/// What every route of our own has: it is ours, and we are its next hop.
pub(super) fn own_attributes(node: NodeId) -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
    put_attribute(&mut out, 0x80, 14, &node.0.to_be_bytes());
    out
}

/// Where a path came from. Ours before neighbours', these by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// This node.
    Local,
    /// A neighbour.
    Peer(PeerId),
}

/// A route as it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it says.
    pub value: Value,
    /// The node that says it.
    pub originator: NodeId,
    /// The node to hand the traffic to.
    pub next_hop: NodeId,
    /// Whose it is.
    pub route_targets: Vec<RouteTarget>,
    /// Its neighbour's session is down and nobody has said it anew since.
    pub stale: bool,
    /// Where it came from.
    pub source: Source,
}

/// The best route of a key is another one, has another value, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// What is believed now.
    pub best: Option<Route>,
}

impl Route {
    /// From what the table keeps; `None` if the value does not fit the key, which is then none of
    /// a table's own.
    pub(super) fn read(
        key: &Key,
        value: &[u8],
        attributes: &[u8],
        source: Source,
        sender: NodeId,
        stale: bool,
    ) -> Option<Route> {
        let view = AttributesView(attributes);
        let next_hop = view.next_hop().try_into().map(u32::from_be_bytes);
        Some(Route {
            value: Value::decode(key, value).ok()?,
            originator: view.originator().unwrap_or(sender),
            next_hop: NodeId(next_hop.unwrap_or(0)),
            route_targets: view
                .extended_communities()
                .filter_map(RouteTarget::from_community)
                .collect(),
            stale,
            source,
        })
    }
}

/// A key from the table's octets.
pub(super) fn key(octets: &[u8]) -> Option<Key> {
    let (kind, rest) = octets.split_first()?;
    Key::decode(*kind, rest).ok()
}

/// The table's octets of a key.
pub(super) fn octets(key: &Key) -> Vec<u8> {
    let mut out = vec![key.kind()];
    key.encode(&mut out);
    out
}
