//! What a neighbour is configured to be, and what an OPEN of ours says of it.

use std::{sync::Arc, time::Duration};

use base::NodeId;

use super::role::RoleConfig;
use crate::wire::{AddPath, Capabilities, Family, GracefulRestart, OpenMessage};

/// Which AS the neighbour may be in (RFC 4271 §6.2, "Bad Peer AS").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAs {
    /// This one.
    Exactly(u32),
    /// Ours, whichever that is.
    Internal,
    /// Any but ours.
    External,
}

impl PeerAs {
    /// May a neighbour of ours in AS `own` be in AS `peer`? Never in AS 0 (RFC 7607).
    #[must_use]
    pub const fn admits(self, own: u32, peer: u32) -> bool {
        peer != 0
            && match self {
                PeerAs::Exactly(asn) => asn == peer,
                PeerAs::Internal => own == peer,
                PeerAs::External => own != peer,
            }
    }
}

/// One address family a session may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyConfig {
    /// The family.
    pub family: Family,
    /// Refuse the session if the neighbour does not speak it (RFC 5492 §5).
    pub required: bool,
    /// We can send several paths a prefix (RFC 7911).
    pub add_path_send: bool,
    /// We can take in several paths a prefix (RFC 7911).
    pub add_path_receive: bool,
    /// Accept IPv6 next hops for it (RFC 8950).
    pub extended_next_hop: bool,
    /// Our forwarding of it survives a restart of this speaker (RFC 4724).
    pub graceful: bool,
    /// How long our routes of it may be kept as long-lived stale; zero: not (RFC 9494). At most
    /// 2²⁴ − 1 seconds.
    pub long_lived: Duration,
}

impl FamilyConfig {
    /// The family and none of its options.
    #[must_use]
    pub const fn new(family: Family) -> Self {
        FamilyConfig {
            family,
            required: false,
            add_path_send: false,
            add_path_receive: false,
            extended_next_hop: false,
            graceful: false,
            long_lived: Duration::ZERO,
        }
    }
}

/// How we take part in graceful restart (RFC 4724). With no family marked
/// [`FamilyConfig::graceful`] we only help neighbours that restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GracefulConfig {
    /// How long a neighbour should wait for us; at most 4095 s.
    pub restart_time: Duration,
    /// We have just restarted and wait for End-of-RIB (the R bit).
    pub restarting: bool,
    /// What we told before is still forwarded (the F bit).
    pub forwarding: bool,
    /// Keep routes also when the session ends with a NOTIFICATION (the N bit, RFC 8538).
    pub notification: bool,
}

/// How a connection presents itself and what it insists on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Our AS toward this neighbour.
    pub asn: u32,
    /// Our BGP Identifier; not zero.
    pub node: NodeId,
    /// Which AS the neighbour may be in.
    pub peer_as: PeerAs,
    /// The neighbour's BGP Identifier, where the stream below already proved it. Our own is
    /// accepted inside one AS only if it is expected here (two halves of one node).
    pub peer_node: Option<NodeId>,
    /// The hold time we offer: zero (no keepalives) or 3 s to 65535 s.
    pub hold_time: Duration,
    /// The least hold time we accept. Zero: whatever RFC 4271 allows, no keepalives included.
    pub min_hold_time: Duration,
    /// How long to wait for the neighbour's OPEN (RFC 4271 §8.2.2: "a large value", 4 minutes).
    pub open_hold_time: Duration,
    /// How long a blocked stream is borne; `None`: RFC 9687's default, the greater of 8 minutes
    /// and twice the hold time; zero: for ever.
    pub send_hold_time: Option<Duration>,
    /// How long to wait for the neighbour's OPEN before we send ours (`DelayOpen`); zero: not.
    pub delay_open: Duration,
    /// The families we speak; at most 32.
    pub families: Vec<FamilyConfig>,
    /// Offer capabilities at all; without them the session is IPv4 unicast with 2-octet ASs.
    pub capabilities: bool,
    /// We understand ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// We understand the marks around a refresh (RFC 7313).
    pub enhanced_refresh: bool,
    /// We take messages up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// We take part in graceful restart.
    pub graceful_restart: Option<GracefulConfig>,
    /// Our role toward an external neighbour (RFC 9234).
    pub role: Option<RoleConfig>,
    /// What we call ourselves (draft-ietf-idr-bgp-software-version).
    pub software: Option<String>,
}

impl ConnectionConfig {
    /// Hold time where nobody says otherwise (RFC 4271 §10).
    pub const HOLD_TIME: Duration = Duration::from_secs(90);
    /// Families one session may carry.
    pub const MAX_FAMILIES: usize = 32;

    /// A session for one family with RFC 4271's defaults and every message extension on.
    #[must_use]
    pub fn new(node: NodeId, asn: u32, peer_as: PeerAs, families: &[Family]) -> Self {
        ConnectionConfig {
            asn,
            node,
            peer_as,
            peer_node: None,
            hold_time: Self::HOLD_TIME,
            min_hold_time: Duration::ZERO,
            open_hold_time: Duration::from_secs(240),
            send_hold_time: None,
            delay_open: Duration::ZERO,
            families: families.iter().map(|&f| FamilyConfig::new(f)).collect(),
            capabilities: true,
            route_refresh: true,
            enhanced_refresh: true,
            extended_message: true,
            graceful_restart: None,
            role: None,
            software: None,
        }
    }

    /// The hold time as the wire carries it: zero, or at least 3.
    #[must_use]
    pub fn hold_time_s(&self) -> u16 {
        if self.hold_time.is_zero() {
            return 0;
        }
        u16::try_from(self.hold_time.as_secs())
            .unwrap_or(u16::MAX)
            .max(3)
    }

    /// How long a blocked stream is borne under the agreed hold time; `None`: for ever.
    #[must_use]
    pub fn send_hold_time(&self, hold_time: Duration) -> Option<Duration> {
        let time = self
            .send_hold_time
            .unwrap_or_else(|| Duration::from_secs(480).max(hold_time * 2));
        (!time.is_zero()).then_some(time)
    }

    /// Do we speak `family`?
    #[must_use]
    pub fn speaks(&self, family: Family) -> bool {
        self.families.iter().any(|f| f.family == family)
    }

    /// The OPEN we send.
    #[must_use]
    pub fn open(&self) -> OpenMessage {
        OpenMessage {
            asn: self.asn,
            hold_time_s: self.hold_time_s(),
            node: self.node,
            capabilities: self.offer(),
        }
    }

    /// What we offer.
    fn offer(&self) -> Capabilities {
        if !self.capabilities {
            return Capabilities::default();
        }
        let families = || self.families.iter().take(Self::MAX_FAMILIES);
        Capabilities {
            families: families().map(|f| f.family).collect(),
            route_refresh: self.route_refresh,
            enhanced_refresh: self.enhanced_refresh,
            extended_message: self.extended_message,
            four_octet_as: Some(self.asn),
            add_path: families()
                .filter(|f| f.add_path_send || f.add_path_receive)
                .map(|f| (f.family, AddPath::of(f.add_path_send, f.add_path_receive)))
                .collect(),
            extended_next_hop: families()
                .filter(|f| f.extended_next_hop)
                .map(|f| (f.family, AFI_IPV6))
                .collect(),
            graceful_restart: self.graceful_restart.map(|own| GracefulRestart {
                restarting: own.restarting,
                notification: own.notification,
                time_s: seconds(own.restart_time, 0xFFF),
                families: families()
                    .filter(|f| f.graceful)
                    .map(|f| (f.family, own.forwarding))
                    .collect(),
            }),
            // Also without a family: we know what a long-lived stale route is.
            long_lived: self.graceful_restart.map(|own| {
                families()
                    .filter(|f| !f.long_lived.is_zero())
                    .map(|f| (f.family, own.forwarding, long_lived_s(f.long_lived)))
                    .collect()
            }),
            role: self.role.map(|own| own.role.code()),
            software: self.software.clone(),
        }
    }
}

/// The next hop AFI of RFC 8950.
pub(super) const AFI_IPV6: u16 = 2;

fn seconds(time: Duration, most: u16) -> u16 {
    u16::try_from(time.as_secs()).unwrap_or(most).min(most)
}

fn long_lived_s(time: Duration) -> u32 {
    u32::try_from(time.as_secs())
        .unwrap_or(u32::MAX)
        .min(0xFF_FFFF)
}

/// One configured neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// What each of its connections says and wants.
    pub connection: Arc<ConnectionConfig>,
    /// Never dial, only accept (`PassiveTcpEstablishment`).
    pub passive: bool,
    /// How long a dial may take, and how long to wait after one that failed; the timer runs for
    /// 75 to 100 % of it (RFC 4271 §10).
    pub connect_retry: Duration,
    /// The first wait after a session that failed (`IdleHoldTime`); it doubles with each failure
    /// (`DampPeerOscillations`) and runs for 50 to 100 % of its step.
    pub idle_hold: Duration,
    /// The longest such wait.
    pub max_idle_hold: Duration,
    /// A session that lasted so long was a good one: the waits start again from the first.
    pub stable: Duration,
    /// How long to stay away after the neighbour sent too many prefixes; `None`: until
    /// [`super::Peer::start`].
    pub max_prefix_restart: Option<Duration>,
}

impl PeerConfig {
    /// An active neighbour: dials fail after 10 s, waits grow from 1 s to 2 minutes.
    #[must_use]
    pub const fn new(connection: Arc<ConnectionConfig>) -> Self {
        PeerConfig {
            connection,
            passive: false,
            connect_retry: Duration::from_secs(10),
            idle_hold: Duration::from_secs(1),
            max_idle_hold: Duration::from_secs(120),
            stable: Duration::from_secs(30),
            max_prefix_restart: None,
        }
    }
}
