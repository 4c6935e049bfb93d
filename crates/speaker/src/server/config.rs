//! How a speaker over TCP is configured.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    sync::Arc,
    time::Duration,
};

use crate::bfd::{Bfd, Reach};
use base::NodeId;
use bgp::{
    table::{Filter, Kind},
    wire::Family,
};
use path::bfd::Timers;

/// A speaker: whom it speaks to and what it says itself.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Our AS.
    pub asn: u32,
    /// Our BGP Identifier, and our cluster id.
    pub node: NodeId,
    /// Where neighbours find us; nowhere if empty.
    pub listen: Vec<SocketAddr>,
    /// Threads, each with its share of the table and of the sessions; at least 1.
    pub shards: usize,
    /// Everybody we speak to.
    pub neighbors: Vec<NeighborConfig>,
    /// Who watches paths for all speakers of this process; one of its own if none is given and a
    /// neighbour is to be watched.
    pub bfd: Option<Bfd>,
    /// Routes we say ourselves, to begin with.
    pub routes: Vec<StaticRoute>,
    /// Look so often whether the system has a way to each next hop of IP and VPN routes; routes to
    /// those it has none to are not used. `None`: next hops are not looked at, as befits a route
    /// server.
    pub next_hop_interval: Option<Duration>,
    /// We take the place of a speaker that ended a short while ago, and what it told still holds
    /// (RFC 4724 §4.1).
    pub restarted: bool,
}

/// Something that is not to be seen in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// A neighbour.
#[derive(Clone, Debug)]
pub struct NeighborConfig {
    /// Its address.
    pub address: IpAddr,
    /// The port to dial.
    pub port: u16,
    /// Its AS.
    pub asn: u32,
    /// What it is to us.
    pub kind: Kind,
    /// Wait for it instead of dialling.
    pub passive: bool,
    /// Our address to dial from.
    pub local_address: Option<IpAddr>,
    /// Sign every segment (RFC 2385).
    pub password: Option<Secret>,
    /// Take nothing that crossed a router (RFC 5082).
    pub gtsm: bool,
    /// The hold time we offer; 0 for none, else from 3 s.
    pub hold_time: Duration,
    /// What is spoken about.
    pub families: Vec<NeighborFamily>,
    /// What is taken from it.
    pub import: Arc<Filter>,
    /// What it is told.
    pub export: Arc<Filter>,
    /// Which next hop it is told.
    pub next_hop: NextHopChoice,
    /// Our addresses for [`NextHopChoice::Own`], beside the session's own.
    pub next_hop_addresses: Vec<IpAddr>,
    /// Offer messages of up to 65535 octets (RFC 8654).
    pub extended_messages: bool,
    /// Watch the path to it several times a second (RFC 5882): when it dies, so does the session.
    pub bfd: Option<BfdConfig>,
    /// The neighbour is to keep our routes for so long while we restart (RFC 4724). Its own are
    /// kept for as long as it asks for, if it does.
    pub restart_time: Option<Duration>,
    /// Behind the restart time the routes of both are kept for so long as long-lived stale, its
    /// own at most (RFC 9494); zero: not. Needs [`Self::restart_time`].
    pub long_lived: Duration,
}

/// How the path to a neighbour is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BfdConfig {
    /// How far away it may be.
    pub reach: Reach,
    /// What is offered and asked for.
    pub timers: Timers,
}

impl BfdConfig {
    /// The same interval both ways; with `multihop` the neighbour is so many hops away at most.
    #[must_use]
    pub fn new(interval: Duration, multiplier: NonZeroU8, multihop: Option<u8>) -> Self {
        BfdConfig {
            reach: multihop.map_or(Reach::OneHop, Reach::Hops),
            timers: Timers {
                desired_min_tx: interval,
                required_min_rx: interval,
                detect_multiplier: multiplier,
            },
        }
    }
}

/// A family spoken with a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighborFamily {
    /// The family.
    pub family: Family,
    /// How many paths of a route it is told, 0 for the best alone, 255 for all (RFC 7911).
    pub add_path_send: u8,
    /// Offer to hear several paths.
    pub add_path_receive: bool,
    /// More routes end the session (RFC 4486, subcode 1).
    pub max_routes: u32,
}

/// Which next hop a neighbour is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextHopChoice {
    /// Our own address.
    Own,
    /// The one we were told.
    Unchanged,
}

/// A route we say ourselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticRoute {
    /// IPv4 or IPv6 unicast.
    pub family: Family,
    /// Its canonical key.
    pub key: Vec<u8>,
    /// Where it leads.
    pub next_hop: IpAddr,
    /// Communities (RFC 1997).
    pub communities: Vec<u32>,
    /// LOCAL_PREF inside our AS.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
}

impl StaticRoute {
    /// Its canonical attributes.
    #[must_use]
    pub fn attributes(&self) -> Vec<u8> {
        let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 0];
        let mut put = |flags: u8, code: u8, value: &[u8]| {
            let length = value.len();
            match u8::try_from(length) {
                Ok(short) => out.extend([flags, code, short]),
                Err(_) => {
                    out.extend([flags | 0x10, code]);
                    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
                }
            }
            out.extend_from_slice(value);
        };
        if let Some(med) = self.med {
            put(0x80, 4, &med.to_be_bytes());
        }
        if let Some(local_pref) = self.local_pref {
            put(0x40, 5, &local_pref.to_be_bytes());
        }
        if !self.communities.is_empty() {
            let all = self.communities.iter().flat_map(|c| c.to_be_bytes());
            put(0xC0, 8, &all.collect::<Vec<u8>>());
        }
        match self.next_hop {
            IpAddr::V4(address) => put(0x80, 14, &address.octets()),
            IpAddr::V6(address) => put(0x80, 14, &address.octets()),
        }
        out
    }
}
