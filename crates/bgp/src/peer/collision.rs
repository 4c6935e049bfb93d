//! Two connections with one neighbour: which one stays (RFC 4271 §6.8).

use base::NodeId;

/// Who dialled a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initiator {
    /// We.
    Us,
    /// The neighbour.
    Them,
}

/// Whose connection survives: that of the greater BGP Identifier, of the greater AS number where
/// the identifiers are the same (RFC 6286 §2.3); `None` where these are the same too.
///
/// Both ends come to the same answer, whenever they ask, which is why it is asked about an
/// established connection too (`CollisionDetectEstablishedState`): one end may be established
/// where the other is not yet.
#[must_use]
pub fn survivor(ours: (NodeId, u32), theirs: (NodeId, u32)) -> Option<Initiator> {
    match (ours.0.0, ours.1).cmp(&(theirs.0.0, theirs.1)) {
        std::cmp::Ordering::Greater => Some(Initiator::Us),
        std::cmp::Ordering::Less => Some(Initiator::Them),
        std::cmp::Ordering::Equal => None,
    }
}
