//! What a daemon is to be, and what it has seen, in words that all of them share.

use std::{fmt, net::IpAddr};

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4 unicast.
    Ipv4,
    /// IPv6 unicast.
    Ipv6,
    /// VPN-IPv4, RFC 4364.
    Vpnv4,
    /// VPN-IPv6, RFC 4659.
    Vpnv6,
    /// Route targets, RFC 4684.
    Rtc,
    /// FlowSpec for IPv4, RFC 8955.
    Flow4,
    /// FlowSpec for IPv6, RFC 8956.
    Flow6,
}

impl Family {
    /// Its AFI and SAFI.
    #[must_use]
    pub fn numbers(self) -> (u16, u8) {
        match self {
            Family::Ipv4 => (1, 1),
            Family::Ipv6 => (2, 1),
            Family::Vpnv4 => (1, 128),
            Family::Vpnv6 => (2, 128),
            Family::Rtc => (1, 132),
            Family::Flow4 => (1, 133),
            Family::Flow6 => (2, 133),
        }
    }

    /// The name Sealane gives it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
            Family::Vpnv4 => "vpnv4",
            Family::Vpnv6 => "vpnv6",
            Family::Rtc => "rtc",
            Family::Flow4 => "flow4",
            Family::Flow6 => "flow6",
        }
    }

    /// IPv6's rather than IPv4's?
    #[must_use]
    pub fn is_v6(self) -> bool {
        self.numbers().0 == 2
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The whole configuration of one daemon.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its autonomous system.
    pub asn: u32,
    /// Its BGP identifier.
    pub id: IpAddr,
    /// Its neighbours.
    pub neighbors: Vec<Neighbor>,
    /// What it originates from the start.
    pub routes: Vec<Route>,
    /// Sealane's only: look every 100 ms whether there is a way to each next hop.
    pub tracks_next_hops: bool,
}

/// One neighbour of a daemon.
#[derive(Clone, Debug)]
pub struct Neighbor {
    /// Our end of the session.
    pub local: IpAddr,
    /// The other end.
    pub address: IpAddr,
    /// Its autonomous system.
    pub asn: u32,
    /// What is spoken about.
    pub families: Vec<Family>,
    /// A client of our reflector?
    pub client: bool,
    /// Never dialled by us?
    pub passive: bool,
    /// The secret of TCP MD5, RFC 2385.
    pub password: Option<String>,
    /// Several paths both ways, RFC 7911?
    pub add_path: bool,
    /// Graceful restart, RFC 4724?
    pub graceful: bool,
    /// Is the path watched, RFC 5882?
    pub bfd: bool,
}

/// A FlowSpec rule of three components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Its destination.
    pub destination: String,
    /// Its protocol's number.
    pub protocol: u8,
    /// Its destination port.
    pub port: u16,
}

/// What a daemon originates.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its family.
    pub family: Family,
    /// Its prefix; empty for FlowSpec.
    pub prefix: String,
    /// Its route distinguisher; empty outside VPNs.
    pub rd: String,
    /// Its label; 0 outside VPNs.
    pub label: u32,
    /// Where it leads.
    pub next_hop: Option<IpAddr>,
    /// Its route targets, such as `65000:1`.
    pub targets: Vec<String>,
    /// Its communities, such as `65000:1`.
    pub communities: Vec<String>,
    /// What it matches, for FlowSpec.
    pub flow: Option<Flow>,
}

impl Route {
    /// A unicast route, of the family its prefix has.
    #[must_use]
    pub fn unicast(prefix: &str) -> Self {
        let family = if prefix.contains(':') {
            Family::Ipv6
        } else {
            Family::Ipv4
        };
        Route {
            family,
            prefix: prefix.to_owned(),
            rd: String::new(),
            label: 0,
            next_hop: None,
            targets: Vec::new(),
            communities: Vec::new(),
            flow: None,
        }
    }

    /// A VPN route with one route target.
    #[must_use]
    pub fn vpn(rd: &str, prefix: &str, label: u32, target: &str) -> Self {
        let unicast = Route::unicast(prefix);
        let family = if unicast.family.is_v6() {
            Family::Vpnv6
        } else {
            Family::Vpnv4
        };
        let (rd, targets) = (rd.to_owned(), vec![target.to_owned()]);
        Route {
            family,
            rd,
            label,
            targets,
            ..unicast
        }
    }

    /// A FlowSpec rule, of the family its destination has.
    #[must_use]
    pub fn flow(destination: &str, protocol: u8, port: u16) -> Self {
        let unicast = Route::unicast(destination);
        let family = if unicast.family.is_v6() {
            Family::Flow6
        } else {
            Family::Flow4
        };
        let flow = Flow {
            destination: destination.to_owned(),
            protocol,
            port,
        };
        Route {
            family,
            prefix: String::new(),
            flow: Some(flow),
            ..unicast
        }
    }

    /// With a community.
    #[must_use]
    pub fn community(mut self, community: &str) -> Self {
        self.communities.push(community.to_owned());
        self
    }

    /// With a next hop.
    #[must_use]
    pub fn next_hop(mut self, next_hop: IpAddr) -> Self {
        self.next_hop = Some(next_hop);
        self
    }

    /// How [`Seen::route`] names it.
    #[must_use]
    pub fn name(&self) -> String {
        match &self.flow {
            Some(Flow {
                destination,
                protocol,
                port,
            }) => {
                format!("{destination} protocol {protocol} port {port}")
            }
            None if self.rd.is_empty() => self.prefix.clone(),
            None => format!("{} {}", self.rd, self.prefix),
        }
    }
}

/// One path as a daemon shows it. What a daemon does not show is empty.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// `10.0.0.0/8`, `65000:1 10.0.0.0/8`, or a flow by [`Route::name`].
    pub route: String,
    /// Its next hop, without a distinguisher.
    pub next_hop: String,
    /// `65001 65002`.
    pub as_path: String,
    /// `65000:1`.
    pub communities: Vec<String>,
    /// The route targets, `65000:1`.
    pub targets: Vec<String>,
    /// The preference inside the system.
    pub local_pref: Option<u32>,
    /// The label.
    pub label: Option<u32>,
    /// The originator.
    pub originator: Option<String>,
    /// Attributes the daemon has no name for: code, value in hexadecimal.
    pub unknown: Vec<(u8, String)>,
    /// Kept only until its neighbour is back?
    pub stale: bool,
}

/// How much a daemon has exchanged with one neighbour; only growth means anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// UPDATE messages, or routes, sent.
    pub sent: u64,
    /// UPDATE messages, or routes, received.
    pub received: u64,
}
