//! Two OPENs make a session: what both sides agreed on, or why they do not (RFC 4271 §6.2,
//! RFC 5492 §3).

use std::time::Duration;

use base::NodeId;

use super::{
    close::{BAD_IDENTIFIER, BAD_PEER_AS, HOLD_TIME, UNSUPPORTED_CAPABILITY},
    config::{AFI_IPV6, ConnectionConfig},
    role::BgpRole,
};
use crate::wire::{
    Capabilities, Family, GracefulRestart, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, Notification,
    OpenMessage, UpdateContext,
};

/// What both sides of a session agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The neighbour's AS.
    pub peer_asn: u32,
    /// The neighbour's BGP Identifier.
    pub peer_node: NodeId,
    /// Are we in different ASs?
    pub ebgp: bool,
    /// How long silence is borne; zero: for ever.
    pub hold_time: Duration,
    /// The families both speak, in the order we configured them; never empty.
    pub families: Vec<Family>,
    /// ASs have four octets in UPDATEs, both ways (RFC 6793).
    pub four_octet_as: bool,
    /// The longest message the neighbour may send us (RFC 8654: we said so).
    pub max_message_in: usize,
    /// The longest message we may send (RFC 8654: the neighbour said so).
    pub max_message_out: usize,
    /// Families in which our routes carry path ids (RFC 7911).
    pub add_path_send: Vec<Family>,
    /// Families in which the neighbour's routes carry path ids.
    pub add_path_receive: Vec<Family>,
    /// Families that may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: Vec<Family>,
    /// The neighbour understands ROUTE-REFRESH.
    pub route_refresh: bool,
    /// Both mark begin and end of a refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// What the neighbour said of its restarts, if we take part (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
    /// Both keep routes after a NOTIFICATION (RFC 8538).
    pub notification_restart: bool,
    /// Negotiated families the neighbour's routes of which may become long-lived stale, whether it
    /// kept its forwarding, and for how many seconds, if we take part (RFC 9494).
    pub long_lived: Vec<(Family, bool, u32)>,
    /// The neighbour knows what a long-lived stale route is, so it may be told one (RFC 9494
    /// §4.3).
    pub knows_long_lived: bool,
    /// Our role, if one applies (RFC 9234).
    pub role: Option<BgpRole>,
    /// What the neighbour's software calls itself.
    pub software: Option<String>,
    /// How the neighbour's UPDATEs are to be read.
    pub context: UpdateContext,
}

impl Negotiated {
    /// How long routes of `family` may be long-lived stale; zero: not at all.
    #[must_use]
    pub fn long_lived(&self, family: Family) -> Duration {
        let found = self.long_lived.iter().find(|&&(f, _, _)| f == family);
        found.map_or(Duration::ZERO, |&(_, _, seconds)| {
            Duration::from_secs(u64::from(seconds))
        })
    }

    /// Does the neighbour, come back, say that its forwarding of `family` was kept? If not, its
    /// stale routes are void at once (RFC 4724 §4.2, RFC 9494 §4.2).
    #[must_use]
    pub fn forwarding_kept(&self, family: Family) -> bool {
        let short = self
            .graceful_restart
            .iter()
            .flat_map(|restart| restart.families.iter().copied());
        let long = self.long_lived.iter().map(|&(f, kept, _)| (f, kept));
        short.chain(long).any(|(f, kept)| f == family && kept)
    }
}

/// Judge the neighbour's OPEN against ours.
///
/// # Errors
/// The NOTIFICATION to refuse it with.
pub fn negotiate(
    config: &ConnectionConfig,
    ours: &OpenMessage,
    theirs: &OpenMessage,
) -> Result<Negotiated, Notification> {
    let (own, peer) = (&ours.capabilities, &theirs.capabilities);
    let peer_asn = peer.four_octet_as.unwrap_or(theirs.asn);
    if !config.peer_as.admits(config.asn, peer_asn) {
        return Err(BAD_PEER_AS.into());
    }
    let ebgp = peer_asn != config.asn;
    judge_identifier(config, theirs.node, ebgp)?;
    let hold_time = judge_hold_time(config, theirs.hold_time_s)?;
    let role = config.role.filter(|_| ebgp);
    if let Some(role) = role {
        role.judge(peer.role)?;
    }
    let families = common_families(config, own, peer)?;
    let four_octet_as = own.four_octet_as.is_some() && peer.four_octet_as.is_some();
    let (add_path_send, add_path_receive) = add_path(&families, own, peer);
    let extended_next_hop: Vec<Family> = both(&families, |family| {
        let entry = (family, AFI_IPV6);
        own.extended_next_hop.contains(&entry) && peer.extended_next_hop.contains(&entry)
    });
    let graceful_restart = peer
        .graceful_restart
        .clone()
        .filter(|_| own.graceful_restart.is_some());
    // RFC 9494 §3.1: void without the capability of RFC 4724 beside it.
    let long_lived = peer.long_lived.as_ref();
    let long_lived = long_lived.filter(|_| peer.graceful_restart.is_some());
    let takes_long = |family| {
        let own = own.long_lived.iter().flatten();
        families.contains(&family) && own.map(|own| own.0).any(|own| own == family)
    };
    Ok(Negotiated {
        peer_asn,
        peer_node: theirs.node,
        ebgp,
        hold_time,
        four_octet_as,
        max_message_in: longest(own.extended_message),
        max_message_out: longest(peer.extended_message),
        route_refresh: peer.route_refresh,
        enhanced_refresh: own.enhanced_refresh && peer.enhanced_refresh,
        notification_restart: [&own.graceful_restart, &graceful_restart]
            .iter()
            .all(|side| side.as_ref().is_some_and(|g| g.notification)),
        graceful_restart,
        knows_long_lived: long_lived.is_some(),
        long_lived: long_lived
            .into_iter()
            .flatten()
            .filter(|(family, _, _)| takes_long(*family))
            .copied()
            .collect(),
        role: role.map(|own| own.role),
        software: peer.software.clone(),
        context: UpdateContext {
            four_octet_as,
            ebgp,
            families: families.clone(),
            add_path: add_path_receive.clone(),
            extended_next_hop: extended_next_hop.clone(),
        },
        families,
        add_path_send,
        add_path_receive,
        extended_next_hop,
    })
}

/// RFC 6286 §2.2: any number but zero; inside an AS not ours.
fn judge_identifier(
    config: &ConnectionConfig,
    peer: NodeId,
    ebgp: bool,
) -> Result<(), Notification> {
    let expected = match config.peer_node {
        Some(node) => peer == node,
        None => ebgp || peer != config.node,
    };
    if peer == NodeId(0) || !expected {
        return Err(BAD_IDENTIFIER.into());
    }
    Ok(())
}

/// The lesser of both (RFC 4271 §4.2); one or two seconds are refused.
fn judge_hold_time(config: &ConnectionConfig, theirs_s: u16) -> Result<Duration, Notification> {
    let theirs = Duration::from_secs(u64::from(theirs_s));
    if matches!(theirs_s, 1 | 2) || theirs < config.min_hold_time {
        return Err(HOLD_TIME.into());
    }
    Ok(theirs.min(Duration::from_secs(u64::from(config.hold_time_s()))))
}

/// The families both speak; without a multiprotocol capability that is IPv4 unicast
/// (RFC 4760 §8).
fn common_families(
    config: &ConnectionConfig,
    own: &Capabilities,
    peer: &Capabilities,
) -> Result<Vec<Family>, Notification> {
    let spoken = |capabilities: &Capabilities| {
        if capabilities.families.is_empty() {
            vec![Family::IPV4]
        } else {
            capabilities.families.clone()
        }
    };
    let (own, peer) = (spoken(own), spoken(peer));
    let missing = |required: bool| {
        config
            .families
            .iter()
            .filter(|f| (f.required || !required) && !peer.contains(&f.family))
            .map(|f| f.family)
            .collect::<Vec<Family>>()
    };
    let required = missing(true);
    if !required.is_empty() {
        return Err(unsupported(&required));
    }
    let common = both(&own, |family| peer.contains(&family));
    if common.is_empty() {
        return Err(unsupported(&missing(false)));
    }
    Ok(common)
}

/// RFC 5492 §5: the capabilities the neighbour lacks, as they stand in an OPEN.
fn unsupported(families: &[Family]) -> Notification {
    let (code, subcode) = UNSUPPORTED_CAPABILITY;
    let data: Vec<u8> = families
        .iter()
        .flat_map(|family| {
            let [a, b] = family.afi.to_be_bytes();
            [MULTIPROTOCOL, 4, a, b, 0, family.safi]
        })
        .collect();
    Notification::with_data(code, subcode, &data)
}

/// Capability code 1 (RFC 4760 §8).
const MULTIPROTOCOL: u8 = 1;

fn longest(extended: bool) -> usize {
    if extended {
        MAX_EXTENDED_MESSAGE
    } else {
        MAX_MESSAGE
    }
}

fn both(families: &[Family], agreed: impl Fn(Family) -> bool) -> Vec<Family> {
    let mut list: Vec<Family> = Vec::new();
    for &family in families {
        if agreed(family) && !list.contains(&family) {
            list.push(family);
        }
    }
    list
}

/// Where we send and where we receive path ids: one side has to be able to send and the other
/// to receive (RFC 7911 §4).
fn add_path(
    families: &[Family],
    own: &Capabilities,
    peer: &Capabilities,
) -> (Vec<Family>, Vec<Family>) {
    let can = |capabilities: &Capabilities, family: Family, send: bool| {
        capabilities
            .add_path
            .iter()
            .any(|&(f, mode)| f == family && if send { mode.sends() } else { mode.receives() })
    };
    (
        both(families, |f| can(own, f, true) && can(peer, f, false)),
        both(families, |f| can(own, f, false) && can(peer, f, true)),
    )
}
