//! The planet that `up` starts: sites, tenants, applications, round trips and addresses.
//!
//! [`Topology`] is pure: who there is and how far apart. [`Layout`] gives everything an address
//! inside one 127.R.S.0/24, which [`Subnet::hold`] keeps for this run alone.

mod subnet;

#[cfg(test)]
mod tests;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

pub use subnet::{Subnet, SubnetError};

use crate::relay;

/// The port of the controller's API.
pub const API_PORT: u16 = 16_443;
/// The port on which the controller takes `PoPs`.
pub const FABRIC_PORT: u16 = 16_444;
/// The port on which `PoPs` take tunnels; on a relay's address, the port that gateways dial.
pub const TUNNEL_PORT: u16 = 17_443;
/// The port on which `PoPs` offer port 80.
pub const HTTP_PORT: u16 = 18_080;
/// The port on which `PoPs` offer port 443.
pub const HTTPS_PORT: u16 = 18_443;
/// The port of every demo endpoint.
pub const APP_PORT: u16 = 18_000;

/// A site behind NAT, of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Its name, unique on this planet.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// How many routers that translate stand before it, one behind the other: 1 or 2. Only in
    /// network namespaces.
    pub routers: u8,
    /// A second uplink beside the first, if it has one: its name. Only in network namespaces.
    pub second: Option<String>,
}

impl Gateway {
    /// Where its second uplink goes into the Internet: the name of a place, such as `factory-lte`.
    #[must_use]
    pub fn second_place(&self) -> Option<String> {
        let second = self.second.as_ref()?;
        Some(format!("{}-{second}", self.name))
    }
}

/// An application: one Service and its published host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct App {
    /// The tenant.
    pub tenant: String,
    /// The namespace inside the tenant.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The host under which the `PoPs` offer it.
    pub host: String,
    /// Where its endpoints are: a gateway and how many.
    pub origins: Vec<(String, usize)>,
}

/// How far a site is from another, whoever dials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoundTrip {
    /// One site.
    pub a: String,
    /// The other.
    pub b: String,
    /// There and back.
    pub rtt: Duration,
}

/// Who there is and how far apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The `PoPs`' names.
    pub pops: Vec<String>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// The applications.
    pub apps: Vec<App>,
    /// The lines, from sites (and second uplinks) to `PoPs` and between `PoPs`, and how long each is.
    /// Sites without one do not reach each other.
    pub round_trips: Vec<RoundTrip>,
}

impl Topology {
    /// The planet of `up`: two `PoPs`, two tenants, three gateways, and an application with the
    /// same names in both tenants.
    #[must_use]
    pub fn demo() -> Self {
        Topology {
            pops: vec!["par".to_owned(), "nyc".to_owned()],
            gateways: vec![
                gateway("aws", "acme"),
                gateway("factory", "acme"),
                gateway("shop", "blue"),
            ],
            apps: vec![
                app("acme", "cart", &[("aws", 3), ("factory", 2)]),
                app("blue", "cart", &[("shop", 1)]),
            ],
            round_trips: vec![
                far("aws", "par", 5),
                far("aws", "nyc", 40),
                far("factory", "nyc", 5),
                far("factory", "par", 40),
                far("shop", "par", 5),
                far("shop", "nyc", 40),
                far("par", "nyc", 40),
            ],
        }
    }

    /// The planet of `up --topology world`: four `PoPs` with a backbone, and four gateways of two
    /// tenants, each attached to two of them.
    #[must_use]
    pub fn world() -> Self {
        Topology {
            pops: ["par", "lon", "nyc", "sin"].map(str::to_owned).into(),
            gateways: vec![
                gateway("aws", "acme"),
                Gateway {
                    second: Some("lte".to_owned()),
                    ..gateway("factory", "acme")
                },
                gateway("shop", "blue"),
                Gateway {
                    routers: 2,
                    ..gateway("market", "blue")
                },
            ],
            apps: vec![
                app("acme", "cart", &[("aws", 2), ("factory", 2)]),
                app("acme", "plant", &[("factory", 1)]),
                app("blue", "cart", &[("shop", 1), ("market", 1)]),
            ],
            round_trips: vec![
                far("aws", "par", 5),
                far("aws", "lon", 9),
                far("factory", "nyc", 5),
                far("factory", "sin", 112),
                far("factory-lte", "nyc", 15),
                far("factory-lte", "sin", 124),
                far("shop", "lon", 5),
                far("shop", "par", 9),
                far("shop", "nyc", 41),
                far("market", "sin", 5),
                far("market", "nyc", 112),
                far("par", "lon", 5),
                far("par", "nyc", 40),
                far("lon", "nyc", 38),
                far("nyc", "sin", 110),
                far("par", "sin", 90),
            ],
        }
    }

    /// The planet of `up --topology wide`: the `PoPs` of [`Topology::world`], and twenty gateways of
    /// two tenants, each attached to two of them; each tenant's application is in all its sites.
    #[must_use]
    pub fn wide() -> Self {
        let world = Topology::world();
        let is_backbone =
            |far: &RoundTrip| [&far.a, &far.b].iter().all(|at| world.pops.contains(at));
        let backbone = world.round_trips.iter().filter(|far| is_backbone(far));
        let mut topology = Topology {
            round_trips: backbone.cloned().collect(),
            pops: world.pops,
            gateways: Vec::new(),
            apps: Vec::new(),
        };
        let nearest = [
            ("par", "lon", 9),
            ("lon", "par", 9),
            ("nyc", "lon", 42),
            ("sin", "par", 94),
        ];
        let mut nearest = nearest.iter().cycle();
        for (tenant, kind) in [("acme", "store"), ("blue", "depot")] {
            let sites: Vec<String> = (1..=10).map(|nth| format!("{kind}-{nth:02}")).collect();
            let origins: Vec<(&str, usize)> = sites.iter().map(|site| (&**site, 1)).collect();
            topology.apps.push(app(tenant, "cart", &origins));
            for (site, (near, next, ms)) in sites.iter().zip(&mut nearest) {
                topology.gateways.push(gateway(site, tenant));
                let lines = [far(site, near, 5), far(site, next, *ms)];
                topology.round_trips.extend(lines);
            }
        }
        topology
    }

    /// The round trip between two sites, whoever dials; `None` if it is not described.
    #[must_use]
    pub fn round_trip(&self, one: &str, other: &str) -> Option<Duration> {
        let found = self
            .round_trips
            .iter()
            .find(|far| (far.a == one && far.b == other) || (far.a == other && far.b == one));
        found.map(|far| far.rtt)
    }

    /// The tenants, each once, in the order of their gateways.
    #[must_use]
    pub fn tenants(&self) -> Vec<&str> {
        let mut tenants: Vec<&str> = Vec::new();
        for gateway in &self.gateways {
            if !tenants.contains(&gateway.tenant.as_str()) {
                tenants.push(&gateway.tenant);
            }
        }
        tenants
    }
}

fn gateway(name: &str, tenant: &str) -> Gateway {
    Gateway {
        name: name.to_owned(),
        tenant: tenant.to_owned(),
        routers: 1,
        second: None,
    }
}

fn app(tenant: &str, service: &str, origins: &[(&str, usize)]) -> App {
    App {
        tenant: tenant.to_owned(),
        namespace: "shop".to_owned(),
        service: service.to_owned(),
        host: format!("{service}.{tenant}.example"),
        origins: origins
            .iter()
            .map(|(site, n)| ((*site).to_owned(), *n))
            .collect(),
    }
}

fn far(a: &str, b: &str, ms: u64) -> RoundTrip {
    RoundTrip {
        a: a.to_owned(),
        b: b.to_owned(),
        rtt: Duration::from_millis(ms),
    }
}

/// A `PoP` with its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PopLayout {
    /// The `PoP`.
    pub name: String,
    /// Where it takes tunnels; nobody dials it but the relay.
    pub tunnel: SocketAddr,
    /// Where it offers port 80.
    pub http: SocketAddr,
    /// Where it offers port 443.
    pub https: SocketAddr,
}

/// The address by which one site dials one `PoP`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayLayout {
    /// The dialling site (a gateway or another `PoP`).
    pub from: String,
    /// The `PoP`.
    pub pop: String,
    /// Where the site dials: `advertise.address` with `from` of the `PoP`'s Site.
    pub listen: SocketAddr,
    /// The `PoP`'s tunnel address.
    pub target: SocketAddr,
    /// The round trip.
    pub rtt: Duration,
}

impl RelayLayout {
    /// The pair's name at the relay, such as `aws-par`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.from, self.pop)
    }
}

/// One demo endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointLayout {
    /// The index of its application in [`Topology::apps`].
    pub app: usize,
    /// The application's tenant.
    pub tenant: String,
    /// Its site.
    pub site: String,
    /// Its name, such as `cart-1`; unique in its site.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// Everything's address in one /24: the controller at .2, `PoPs` from .10, the relay's from
/// .100 (one a directed pair of site and `PoP` with a line), endpoints from .200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The controller's API.
    pub controller: SocketAddr,
    /// The `PoPs`, in the topology's order.
    pub pops: Vec<PopLayout>,
    /// The relay's pairs: of every gateway, then of every other `PoP`.
    pub relays: Vec<RelayLayout>,
    /// The demo endpoints, application by application.
    pub endpoints: Vec<EndpointLayout>,
}

/// Why a topology has no layout.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// More of one sort than the /24 has addresses for.
    #[error("a planet on one machine has room for {limit} {what} and no more")]
    Room {
        /// The sort: PoPs, relay pairs, endpoints.
        what: &'static str,
        /// How many there are addresses for.
        limit: usize,
    },
}

impl Layout {
    /// Gives everything in `topology` its address inside `network`, a /24 (its last octet is
    /// not looked at).
    ///
    /// # Errors
    /// The /24 is too small, or a distance is missing.
    pub fn new(topology: &Topology, network: Ipv4Addr) -> Result<Self, LayoutError> {
        let mut hosts = Hosts {
            network,
            what: "PoPs",
            base: 10,
            limit: 90,
            next: 0,
        };
        let mut pops = Vec::new();
        for name in &topology.pops {
            let at = hosts.take()?;
            pops.push(PopLayout {
                name: name.clone(),
                tunnel: (at, TUNNEL_PORT).into(),
                http: (at, HTTP_PORT).into(),
                https: (at, HTTPS_PORT).into(),
            });
        }
        let [a, b, c, _] = network.octets();
        Ok(Layout {
            controller: (Ipv4Addr::new(a, b, c, 2), API_PORT).into(),
            relays: relays(topology, network, &pops)?,
            endpoints: endpoints(topology, network)?,
            pops,
        })
    }

    /// The relay's configuration.
    #[must_use]
    pub fn relay(&self, control: Option<std::path::PathBuf>) -> relay::Config {
        let pairs = self.relays.iter().map(|pair| relay::Pair {
            name: pair.name(),
            listen: pair.listen,
            target: pair.target,
            one_way: pair.rtt / 2,
        });
        relay::Config {
            control,
            pairs: pairs.collect(),
        }
    }
}

fn relays(
    topology: &Topology,
    network: Ipv4Addr,
    pops: &[PopLayout],
) -> Result<Vec<RelayLayout>, LayoutError> {
    let mut hosts = Hosts {
        network,
        what: "relay pairs",
        base: 100,
        limit: 100,
        next: 0,
    };
    let mut relays = Vec::new();
    let gateways = topology.gateways.iter().map(|gateway| &gateway.name);
    for from in gateways.chain(&topology.pops) {
        for pop in pops.iter().filter(|pop| pop.name != *from) {
            let Some(rtt) = topology.round_trip(from, &pop.name) else {
                continue;
            };
            relays.push(RelayLayout {
                from: from.clone(),
                pop: pop.name.clone(),
                listen: (hosts.take()?, TUNNEL_PORT).into(),
                target: pop.tunnel,
                rtt,
            });
        }
    }
    Ok(relays)
}

fn endpoints(topology: &Topology, network: Ipv4Addr) -> Result<Vec<EndpointLayout>, LayoutError> {
    let mut hosts = Hosts {
        network,
        what: "endpoints",
        base: 200,
        limit: 54,
        next: 0,
    };
    let mut endpoints = Vec::new();
    for (app, spec) in topology.apps.iter().enumerate() {
        for (site, count) in &spec.origins {
            for n in 1..=*count {
                endpoints.push(EndpointLayout {
                    app,
                    tenant: spec.tenant.clone(),
                    site: site.clone(),
                    name: format!("{}-{n}", spec.service),
                    address: (hosts.take()?, APP_PORT).into(),
                });
            }
        }
    }
    Ok(endpoints)
}

/// Addresses of one sort.
struct Hosts {
    network: Ipv4Addr,
    what: &'static str,
    base: u8,
    limit: u8,
    next: u8,
}

impl Hosts {
    fn take(&mut self) -> Result<Ipv4Addr, LayoutError> {
        if self.next >= self.limit {
            return Err(LayoutError::Room {
                what: self.what,
                limit: usize::from(self.limit),
            });
        }
        let [a, b, c, _] = self.network.octets();
        let host = self.base + self.next;
        self.next += 1;
        Ok(Ipv4Addr::new(a, b, c, host))
    }
}
