//! From a bundle to the snapshots a node serves by: all or nothing.

mod delivery;
mod fabric;
pub(crate) mod links;
mod routers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU8,
    sync::Arc,
    time::Duration,
};

use api::{
    AttachTransport, ObjectKey, Origin, ServiceSpec,
    sync::{Bundle, Running},
};
use balance::{BalancePolicy, Cell, EndpointKey, Outlier};
use base::{Name, NodeId, Revision, ServiceId, SiteId, SiteName, SlotId, TenantId};

use crate::{ClientTrust, KeySources, World};

/// Which node this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Me {
    /// Its site.
    pub site: SiteName,
    /// Its name inside the site.
    pub node: Name,
}

/// The cells that outlive tables, by tenant and service.
pub type Cells = BTreeMap<(TenantId, ServiceId), Cell>;

/// VIPs, each with the services of which one at least has to have a healthy endpoint.
pub type Vips = BTreeMap<IpAddr, BTreeSet<(TenantId, ServiceId)>>;

/// Everything one node runs. Not serialisable: it is made from a [`Bundle`] wherever it is needed.
/// The brain of a control half keeps nothing of what only the data half serves.
#[derive(Debug)]
pub struct Compiled {
    /// The bundle's revision.
    pub revision: Revision,
    /// This node, by numbers.
    pub numbers: Numbers,
    /// What users may ask for here.
    pub ingress: Arc<l7::Table>,
    /// What may leave a tunnel here.
    pub egress: Arc<l7::Egress>,
    /// Certificates for users' TLS.
    pub certificates: Vec<FrontCertificate>,
    /// By whom users' clients are known, of hosts that ask for certificates.
    pub clients: BTreeMap<l7::TrustId, ClientTrust>,
    /// Keys of token issuers that it fetches.
    pub keys: KeySources,
    /// Sockets for users.
    pub listeners: BTreeSet<Listener>,
    /// Addresses of its own that it offers, by what has to be healthy.
    pub vips: Vips,
    /// Who stands before this node and is believed whose connections it passes on.
    pub senders: Arc<l7::Senders>,
    /// Routers that are told of these, by the name of the `BGPPeer`.
    pub routers: BTreeMap<Name, Router>,
    /// Tunnels.
    pub fabric: Fabric,
    /// The site table, for `bgp`'s authority check.
    pub site_table: bgp::SiteTable,
    /// What this node probes.
    pub targets: BTreeMap<TargetKey, Target>,
    /// Every service that is served here or through here.
    pub services: BTreeMap<(TenantId, ServiceId), ServicePlan>,
    /// Numbers of sites by name.
    pub site_ids: BTreeMap<SiteName, SiteId>,
    /// Names of sites, by number.
    pub site_names: BTreeMap<SiteId, SiteName>,
    /// Whose facts a (site, slot) carries.
    pub slots: BTreeMap<(SiteId, SlotId), TenantId>,
}

/// This node, by numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbers {
    /// Its site.
    pub site: SiteId,
    /// The site's owner; 0 for a PoP.
    pub tenant: TenantId,
    /// The node: its BGP Identifier.
    pub node: NodeId,
    /// Is the site a PoP?
    pub pop: bool,
}

/// A socket for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// What the socket is bound to.
    pub bind: SocketAddr,
    /// The logical port it stands for.
    pub port: u16,
    /// What users speak on it.
    pub protocol: l7::ListenerProtocol,
}

/// A key and chain for users' TLS.
#[derive(Debug)]
pub struct FrontCertificate {
    /// The hosts it is for, exact or `*.suffix`.
    pub hosts: Vec<String>,
    /// The pair.
    pub pair: pki::ServerCertificate,
}

/// A router of this site.
#[derive(Clone, PartialEq, Eq)]
pub struct Router {
    /// Its address.
    pub address: SocketAddr,
    /// Its AS.
    pub asn: u32,
    /// Ours toward it.
    pub local_asn: u32,
    /// Where to speak from.
    pub local_address: Option<IpAddr>,
    /// What both sign with (RFC 2385).
    pub password: Option<String>,
    /// Take nothing that crossed another router (RFC 5082).
    pub gtsm: bool,
    /// How long silence is borne; zero: for ever.
    pub hold_time: Duration,
    /// How long it keeps our routes while we restart; zero: not.
    pub restart_time: Duration,
    /// Watch the path to it.
    pub bfd: Option<RouterBfd>,
    /// What is taken from it.
    pub import: Arc<bgp::table::Filter>,
    /// What it is told.
    pub export: Arc<bgp::table::Filter>,
}

impl std::fmt::Debug for Router {
    /// Without the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Router {} AS {}", self.address, self.asn)
    }
}

/// BFD toward a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterBfd {
    /// From one packet to the next.
    pub interval: Duration,
    /// So many missing ones are a dead path.
    pub multiplier: NonZeroU8,
    /// The most hops; `None`: on the same link.
    pub multihop: Option<u8>,
}

/// What the tunnel shell should do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fabric {
    /// Where this node accepts tunnels.
    pub bind: Vec<SocketAddr>,
    /// Which sites it dials, and where; a gateway only those that it attaches to.
    pub dial: BTreeMap<SiteName, Vec<SocketAddr>>,
    /// Of a gateway: other gateways that it dials, and where.
    pub mesh: BTreeMap<SiteName, Vec<SocketAddr>>,
    /// Of a gateway: to how many PoPs it is attached.
    pub attach: Option<usize>,
    /// Over what links go that are dialled from here.
    pub transport: AttachTransport,
    /// Of a gateway with several: its uplinks.
    pub uplinks: Vec<Uplink>,
    /// Of a gateway: the PoPs that it may attach to, the eldest first.
    pub pops: Vec<path::Candidate>,
    /// Of what sort links to sites are, where that was said.
    pub grades: BTreeMap<SiteName, path::Grade>,
    /// Which sites it may have tunnels with.
    pub peers: BTreeSet<SiteName>,
    /// With whom it speaks BGP.
    pub neighbors: BTreeMap<SiteName, Neighbor>,
}

/// A way of a gateway into the Internet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its name.
    pub name: Name,
    /// Where connections over it leave the node.
    pub source: UplinkSource,
    /// How many times as long as they are its links count.
    pub cost: u16,
}

/// Where connections over an uplink leave the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UplinkSource {
    /// From this address of it.
    Address(IpAddr),
    /// Through this interface.
    Interface(String),
}

impl UplinkSource {
    /// As it is written: an address, or else an interface's name. `None`: it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(UplinkSource::Address(address));
        }
        // As the kernel takes them (IFNAMSIZ).
        let allowed = |c: char| c.is_ascii_graphic() && c != '/' && c != ':';
        let good = (1..=15).contains(&text.len()) && text.chars().all(allowed);
        (good && text != "." && text != "..").then(|| UplinkSource::Interface(text.to_owned()))
    }
}

/// One BGP neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbor {
    /// Its site.
    pub site: SiteId,
    /// Its owner; 0 for a PoP.
    pub tenant: TenantId,
    /// Is it a PoP?
    pub pop: bool,
    /// Its node: the first of the site.
    pub node: NodeId,
    /// Does this node open the session?
    pub dial: bool,
}

/// One endpoint to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// The owner.
    pub tenant: TenantId,
    /// The service.
    pub service: ServiceId,
    /// The endpoint, in this site.
    pub address: SocketAddr,
}

/// How one endpoint is probed and announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The slot its facts are announced under.
    pub slot: SlotId,
    /// Its share, 1 to 255.
    pub weight: u8,
    /// Requests at a time that it takes well, if that was said.
    pub capacity: Option<u32>,
    /// The port that is asked, if not the endpoint's own.
    pub port: Option<u16>,
    /// What is said first, where endpoints are told whose a connection is: nobody's but ours.
    pub preamble: Vec<u8>,
    /// There is nothing to ask: it counts as healthy.
    pub blind: bool,
    /// The request to send; `None`: a connect alone.
    pub http: Option<HttpProbe>,
    /// From the start of one probe to the start of the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Successes that make it healthy.
    pub rise: u8,
    /// Failures that make it unhealthy.
    pub fall: u8,
}

/// A probe by a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpProbe {
    /// Its path.
    pub path: String,
    /// Its Host; the endpoint's address if absent.
    pub host: Option<String>,
    /// The status codes that mean healthy.
    pub expect: Vec<u16>,
}

/// One service as `import` fills its cell.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    /// Its application address.
    pub name: base::QualifiedService,
    /// Where its endpoints are published to the workers.
    pub cell: Cell,
    /// How it is balanced.
    pub policy: BalancePolicy,
    /// When endpoints are taken out for their answers.
    pub outlier: Option<Outlier>,
    /// Its endpoints in this site, with their weights: the configuration's, whatever routes say.
    pub own: BTreeMap<EndpointKey, u8>,
    /// Those of them of which it is said how much they take well.
    pub gauged: BTreeSet<EndpointKey>,
}

/// Why a bundle does not compile here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The bundle is not for this node.
    #[error("the site table has no node {0} in site {1}")]
    NotMe(Name, SiteName),
    /// A resource cannot be run.
    #[error("{0}: {1}")]
    Resource(ObjectKey, String),
    /// Resources do not fit together.
    #[error("the load balancers do not fit together")]
    Table(#[source] l7::TableError),
    /// The node's `proxyProtocol` cannot be run.
    #[error("the node's proxyProtocol{0}")]
    Senders(String),
    /// One socket cannot stand for two ports, or speak two things.
    #[error("{0} is wanted for two ports or protocols")]
    Socket(SocketAddr),
}

/// Compile `bundle` for node `me`, reusing the cells of services that are known.
///
/// # Errors
/// The first thing that cannot be run; nothing is half done.
pub fn compile(bundle: &Bundle, me: &Me, cells: &Cells) -> Result<Compiled, CompileError> {
    let not_me = || CompileError::NotMe(me.node.clone(), me.site.clone());
    let row = bundle
        .sites
        .iter()
        .find(|row| row.name == me.site)
        .ok_or_else(not_me)?;
    let node = row
        .nodes
        .iter()
        .find(|node| node.name == me.node)
        .ok_or_else(not_me)?;
    let numbers = Numbers {
        site: row.id,
        tenant: row.tenant,
        node: node.id,
        pop: row.pop,
    };
    let world = World::from(bundle.resources.clone());
    let (_, site) = world.site(&me.site).ok_or_else(not_me)?;
    let node_spec = site
        .nodes
        .iter()
        .find(|node| node.name == me.node)
        .ok_or_else(not_me)?;
    let delivery = delivery::compile(&world, bundle, me, numbers, node_spec, cells)?;
    let fabric = Fabric {
        grades: links::compile(&world, &me.site),
        ..fabric::compile(bundle, me, numbers, site, node_spec)
    };
    Ok(Compiled {
        revision: bundle.revision,
        numbers,
        ingress: Arc::new(delivery.ingress),
        egress: Arc::new(delivery.egress),
        certificates: delivery.certificates,
        clients: delivery.clients,
        keys: delivery.keys,
        listeners: delivery.listeners,
        vips: delivery.vips,
        senders: Arc::new(delivery.senders),
        routers: routers::compile(&world, &me.site)?,
        fabric,
        site_table: fabric::site_table(bundle),
        targets: delivery.targets,
        services: delivery.services,
        site_ids: bundle
            .sites
            .iter()
            .map(|row| (row.name.clone(), row.id))
            .collect(),
        site_names: bundle
            .sites
            .iter()
            .map(|row| (row.id, row.name.clone()))
            .collect(),
        slots: bundle
            .sites
            .iter()
            .flat_map(|row| {
                row.slots
                    .iter()
                    .map(|slot| ((row.id, slot.slot), slot.tenant))
            })
            .collect(),
    })
}

impl Compiled {
    /// What the control half needs: nothing of what only the data half serves.
    pub(crate) fn without_delivery(self) -> Self {
        Compiled {
            ingress: Arc::default(),
            egress: Arc::default(),
            certificates: Vec::new(),
            clients: BTreeMap::new(),
            listeners: BTreeSet::new(),
            senders: Arc::default(),
            services: BTreeMap::new(),
            ..self
        }
    }

    /// The cells of its services.
    #[must_use]
    pub fn cells(&self) -> Cells {
        self.services
            .iter()
            .map(|(key, plan)| (*key, Arc::clone(&plan.cell)))
            .collect()
    }

    /// What runs now at this site's own endpoints, whichever ingress it came from: of each service
    /// that says how much these take well, unless it is nothing. `None`: no service says that.
    #[must_use]
    pub fn running(&self) -> Option<Vec<Running>> {
        let says = |plan: &ServicePlan| !plan.gauged.is_empty();
        self.services.values().any(says).then_some(())?;
        let gauged = self.services.iter().filter(|(_, plan)| says(plan));
        let running = gauged.map(|(&(tenant, service), plan)| {
            let set = plan.cell.load();
            let endpoints = plan.gauged.iter().filter_map(|key| set.find(key));
            let requests = endpoints.map(|endpoint| endpoint.stats.in_flight()).sum();
            Running {
                tenant,
                service,
                requests,
            }
        });
        Some(running.filter(|one| one.requests > 0).collect())
    }
}

/// The addresses of an origin with their ports.
///
/// # Errors
/// The index of the first that is neither `IP` nor `IP:PORT`, and a sentence.
pub(crate) fn endpoint_addresses(
    spec: &ServiceSpec,
    origin: &Origin,
) -> Result<Vec<SocketAddr>, (usize, String)> {
    let default_port = origin.port.unwrap_or(spec.port);
    let parse = |(at, text): (usize, &String)| {
        let whole = text.parse::<SocketAddr>().ok();
        let address =
            whole.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, default_port)));
        let shown: String = text.chars().take(80).collect();
        match address {
            Some(address) if address.port() != 0 => Ok(address),
            Some(_) => Err((at, format!("{shown:?}: no port is 0"))),
            None => Err((at, format!("{shown:?} is neither IP nor IP:PORT"))),
        }
    };
    origin.addresses.iter().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests;
