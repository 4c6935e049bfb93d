//! A planet in network namespaces: the Internet, a namespace a site, NAT before each gateway.
//!
//! ```text
//!   host ── outer 203.0.113.3 ─┐                ┌─ 203.0.113.10 ── par
//!   controller 203.0.113.2 ────┤   wan: our     ├─ 203.0.113.11 ── nyc
//!                              ├── own packets ─┤
//!   aws 10.0.0.2 ── aws-nat ───┘                └── shop-nat ── shop 10.0.0.2
//! ```
//! [`Plan`] is pure: who has which address. [`World::make`] makes it. Every gateway has the same
//! 10.0.0.0/24, of which nobody outside knows, and its router masquerades what goes out and drops
//! what nobody inside asked for.

use std::{
    collections::BTreeSet,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    time::Duration,
};

use crate::{
    netns::{Namespace, NetnsError},
    topology::{
        API_PORT, APP_PORT, FABRIC_PORT, HTTP_PORT, HTTPS_PORT, Layout, LayoutError, TUNNEL_PORT,
        Topology,
    },
    wan::{self, Shape, offloads_off},
};

/// The name of the controller's place, and of the one through which the host comes.
pub const CONTROLLER: &str = "controller";
/// Where what the host's loopback offers goes in.
pub const HOST: &str = "host";
/// The network between two routers, where one stands behind the other.
const BETWEEN: [u8; 3] = [10, 0, 1];
/// The network between a gateway and the router of its second uplink.
const SECOND: [u8; 3] = [10, 0, 2];
/// Every gateway's own network.
const LAN: [u8; 3] = [10, 0, 0];
/// The router's address in it, and the gateway's.
const ROUTER: u8 = 1;
const GATEWAY: u8 = 2;
/// The first endpoint's.
const FIRST_ENDPOINT: u8 = 11;
/// The Internet (RFC 5737).
const INTERNET: [u8; 3] = [203, 0, 113];

/// What the router before a gateway does.
const NAT: &str = r#"
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat;
    oifname "wan0" masquerade
  }
}
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname { "lo", "lan0" } accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname "lan0" accept
  }
}
"#;

/// Who is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is connected to the Internet: the name, and its address there. A gateway's is its
    /// router's.
    places: Vec<(String, Ipv4Addr)>,
    /// The gateways, and how many endpoints stand beside each.
    gateways: Vec<(String, u8)>,
    /// Those of them that are behind two routers.
    nested: BTreeSet<String>,
    /// Those with a second uplink: the name of its place, the gateway, the name of its interface there.
    seconds: Vec<(String, String, String)>,
    lines: Vec<(String, String, Duration)>,
    endpoints: Vec<SocketAddrV4>,
}

impl Plan {
    /// Gives everything in `topology` its address.
    ///
    /// # Errors
    /// There are more of one sort than addresses.
    pub fn new(topology: &Topology, layout: &Layout) -> Result<Self, LayoutError> {
        let mut places = vec![
            (CONTROLLER.to_owned(), internet(2)),
            (HOST.to_owned(), internet(3)),
        ];
        let room = |what, limit: u8| LayoutError::Room {
            what,
            limit: limit.into(),
        };
        for (nth, pop) in (10..=99).zip(&topology.pops) {
            places.push((pop.clone(), internet(nth)));
        }
        for (nth, gateway) in (100..=199).zip(&topology.gateways) {
            places.push((gateway.name.clone(), internet(nth)));
        }
        if places.len() != 2 + topology.pops.len() + topology.gateways.len() {
            return Err(room("PoPs or gateways", 90));
        }
        let seconds = topology.gateways.iter().filter_map(|gateway| {
            let interface = format!("{}0", gateway.second.as_ref()?);
            Some((gateway.second_place()?, gateway.name.clone(), interface))
        });
        let seconds: Vec<(String, String, String)> = seconds.collect();
        for (nth, (place, ..)) in (200..=254).zip(&seconds) {
            places.push((place.clone(), internet(nth)));
        }
        if seconds.len() > 55 {
            return Err(room("second uplinks", 55));
        }
        let mut gateways: Vec<(String, u8)> = topology
            .gateways
            .iter()
            .map(|gateway| (gateway.name.clone(), 0))
            .collect();
        let mut endpoints = Vec::new();
        for endpoint in &layout.endpoints {
            let site = gateways.iter_mut().find(|(name, _)| *name == endpoint.site);
            let Some((_, count)) = site.filter(|(_, count)| *count < 200) else {
                return Err(room("endpoints in one site", 200));
            };
            endpoints.push(SocketAddrV4::new(lan(FIRST_ENDPOINT + *count), APP_PORT));
            *count += 1;
        }
        let lines = topology.round_trips.iter();
        Ok(Plan {
            places,
            nested: topology
                .gateways
                .iter()
                .filter(|gateway| gateway.routers > 1)
                .map(|gateway| gateway.name.clone())
                .collect(),
            seconds,
            gateways,
            lines: lines
                .map(|far| (far.a.clone(), far.b.clone(), far.rtt / 2))
                .collect(),
            endpoints,
        })
    }

    /// A place's address in the Internet; that of the net itself for an unknown one.
    #[must_use]
    pub fn address(&self, name: &str) -> Ipv4Addr {
        let place = self.places.iter().find(|(place, _)| place == name);
        place.map_or(internet(0), |(_, address)| *address)
    }

    /// Where the controller's API is.
    #[must_use]
    pub fn api(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(CONTROLLER), API_PORT)
    }

    /// Where it takes `PoPs`.
    #[must_use]
    pub fn fabric(&self) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(CONTROLLER), FABRIC_PORT)
    }

    /// Where a `PoP` takes tunnels.
    #[must_use]
    pub fn tunnel(&self, pop: &str) -> SocketAddrV4 {
        SocketAddrV4::new(self.address(pop), TUNNEL_PORT)
    }

    /// Where a `PoP` offers port 80, and 443.
    #[must_use]
    pub fn public(&self, pop: &str) -> [SocketAddrV4; 2] {
        let address = self.address(pop);
        [HTTP_PORT, HTTPS_PORT].map(|port| SocketAddrV4::new(address, port))
    }

    /// Where the endpoints are, in the layout's order, each in its site's own network.
    #[must_use]
    pub fn endpoints(&self) -> &[SocketAddrV4] {
        &self.endpoints
    }
}

fn internet(host: u8) -> Ipv4Addr {
    let [a, b, c] = INTERNET;
    Ipv4Addr::new(a, b, c, host)
}

/// In the network between two routers.
fn between(host: u8) -> Ipv4Addr {
    let [a, b, c] = BETWEEN;
    Ipv4Addr::new(a, b, c, host)
}

fn lan(host: u8) -> Ipv4Addr {
    let [a, b, c] = LAN;
    Ipv4Addr::new(a, b, c, host)
}

/// The namespaces of a plan.
#[derive(Debug)]
pub struct World {
    wan: Namespace,
    /// By name: the controller, the host's door, `PoPs`, gateways.
    places: Vec<Namespace>,
    /// The gateways' routers, those that face the Internet, by their places.
    routers: Vec<(String, Namespace)>,
    /// Those behind them.
    inner: Vec<Namespace>,
}

impl World {
    /// Makes everything. Before, [`become_root`](crate::netns::become_root).
    ///
    /// # Errors
    /// The system does not allow it, or a program is missing.
    pub fn make(plan: &Plan) -> Result<Self, NetnsError> {
        let wan = Namespace::new("wan")?;
        let mut world = World {
            wan,
            places: Vec::new(),
            routers: Vec::new(),
            inner: Vec::new(),
        };
        for (nth, (name, address)) in plan.places.iter().enumerate() {
            if let Some((_, gateway, interface)) = plan.seconds.iter().find(|(at, ..)| at == name) {
                let router = Namespace::new(&format!("{name}-nat"))?;
                world.connect(nth, &router, *address)?;
                if let Some(place) = world.place(gateway) {
                    second(&router, place, interface)?;
                }
                world.routers.push((name.clone(), router));
                continue;
            }
            let place = Namespace::new(name)?;
            let endpoints = plan.gateways.iter().find(|(gateway, _)| gateway == name);
            let Some((_, endpoints)) = endpoints else {
                world.connect(nth, &place, *address)?;
                world.places.push(place);
                continue;
            };
            let router = Namespace::new(&format!("{name}-nat"))?;
            world.connect(nth, &router, *address)?;
            if plan.nested.contains(name) {
                let inner = Namespace::new(&format!("{name}-nat-2"))?;
                behind(&router, &inner)?;
                site(&inner, &place, *endpoints)?;
                world.inner.push(inner);
            } else {
                site(&router, &place, *endpoints)?;
            }
            world.places.push(place);
            world.routers.push((name.clone(), router));
        }
        Ok(world)
    }

    /// A line from a place into the Internet.
    fn connect(&self, nth: usize, place: &Namespace, address: Ipv4Addr) -> Result<(), NetnsError> {
        let (here, there) = (interface(nth), text(&mac(nth)));
        let path = place.path();
        self.wan.ip(&[
            format!("link add {here} type veth peer name wan0 address {there} netns {path}"),
            format!("link set {here} arp off up"),
        ])?;
        place.ip(&[
            "link set wan0 arp off up".to_owned(),
            format!("addr add {address}/24 dev wan0"),
        ])?;
        place.run(|| offloads_off("wan0"))
    }

    /// Where something runs.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<&Namespace> {
        self.places.iter().find(|place| place.name() == name)
    }

    /// Where the Internet runs.
    #[must_use]
    pub const fn wan(&self) -> &Namespace {
        &self.wan
    }

    /// All namespaces.
    pub fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let routers = self.routers.iter().map(|(_, router)| router);
        std::iter::once(&self.wan)
            .chain(&self.places)
            .chain(routers)
            .chain(&self.inner)
    }

    /// What the Internet is told.
    #[must_use]
    pub fn config(&self, plan: &Plan, control: PathBuf) -> wan::Config {
        let places = plan.places.iter().enumerate();
        let places = places.map(|(nth, (name, address))| wan::Place {
            name: name.clone(),
            interface: interface(nth),
            mac: mac(nth),
            address: *address,
            nat: self
                .routers
                .iter()
                .find(|(gateway, _)| gateway == name)
                .map(|(_, router)| router.path().into()),
        });
        let lines = plan.lines.iter().map(|(a, b, one_way)| wan::LineConfig {
            a: a.clone(),
            b: b.clone(),
            shape: Shape::distance(*one_way),
        });
        wan::Config {
            control: Some(control),
            seed: 1,
            places: places.collect(),
            lines: lines.collect(),
        }
    }
}

/// A router behind another.
fn behind(outer: &Namespace, inner: &Namespace) -> Result<(), NetnsError> {
    let path = inner.path();
    let [near, far] = [ROUTER, GATEWAY].map(between);
    outer.ip(&[
        format!("link add lan0 type veth peer name wan0 netns {path}"),
        format!("addr add {near}/24 dev lan0"),
        "link set lan0 up".to_owned(),
    ])?;
    inner.ip(&[
        format!("addr add {far}/24 dev wan0"),
        "link set wan0 up".to_owned(),
        format!("route add default via {near}"),
    ])?;
    translate(outer)
}

/// A gateway's second uplink, by an interface of its own: what does not ask for it takes the first.
fn second(router: &Namespace, place: &Namespace, interface: &str) -> Result<(), NetnsError> {
    let path = place.path();
    let [near, far] = [ROUTER, GATEWAY].map(|host| {
        let [a, b, c] = SECOND;
        Ipv4Addr::new(a, b, c, host)
    });
    router.ip(&[
        format!("link add lan0 type veth peer name {interface} netns {path}"),
        format!("addr add {near}/24 dev lan0"),
        "link set lan0 up".to_owned(),
    ])?;
    place.ip(&[
        format!("addr add {far}/24 dev {interface}"),
        format!("link set {interface} up"),
        format!("route add default via {near} dev {interface} metric 100"),
    ])?;
    // What comes from far away comes by both (RFC 3704 §2.4): some systems drop that by default.
    place.run(|| std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "2"))?;
    translate(router)
}

/// It forwards, and translates.
fn translate(router: &Namespace) -> Result<(), NetnsError> {
    router.run(|| -> io::Result<()> { std::fs::write("/proc/sys/net/ipv4/ip_forward", "1") })?;
    router.nft(NAT)
}

/// A gateway's site: its network, and the router before it.
fn site(router: &Namespace, place: &Namespace, endpoints: u8) -> Result<(), NetnsError> {
    let path = place.path();
    router.ip(&[
        format!("link add lan0 type veth peer name lan0 netns {path}"),
        format!("addr add {}/24 dev lan0", lan(ROUTER)),
        "link set lan0 up".to_owned(),
    ])?;
    let own = std::iter::once(GATEWAY).chain(FIRST_ENDPOINT..FIRST_ENDPOINT + endpoints);
    let mut lines: Vec<String> = own
        .map(|host| format!("addr add {}/24 dev lan0", lan(host)))
        .collect();
    lines.push("link set lan0 up".to_owned());
    lines.push(format!(
        "route add default via {} src {}",
        lan(ROUTER),
        lan(GATEWAY)
    ));
    place.ip(&lines)?;
    translate(router)
}

/// The Internet's end of the line of the nth place.
fn interface(nth: usize) -> String {
    format!("p{nth}")
}

/// The hardware address of its own end, locally administered.
fn mac(nth: usize) -> [u8; 6] {
    let [.., high, low] = nth.to_be_bytes();
    [2, 0, 0, 0, high, low]
}

fn text(mac: &[u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_in_the_internet_and_every_site_has_the_same_addresses() {
        let topology = Topology::demo();
        let layout = Layout::new(&topology, Ipv4Addr::new(127, 80, 1, 0)).expect("a layout");
        let plan = Plan::new(&topology, &layout).expect("a plan");
        assert_eq!(plan.tunnel("par").to_string(), "203.0.113.10:17443");
        assert_eq!(plan.public("nyc")[1].to_string(), "203.0.113.11:18443");
        assert_eq!(plan.api().to_string(), "203.0.113.2:16443");
        let first: Vec<_> = plan
            .endpoints()
            .iter()
            .zip(&layout.endpoints)
            .filter(|(address, _)| address.to_string() == "10.0.0.11:18000")
            .map(|(_, endpoint)| endpoint.site.as_str())
            .collect();
        assert_eq!(first, ["aws", "factory", "shop"]);
        assert_eq!(plan.gateways[0], ("aws".to_owned(), 3));
        assert_eq!(text(&mac(258)), "02:00:00:00:01:02");
    }
}
