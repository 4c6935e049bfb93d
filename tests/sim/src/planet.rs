//! The management plane of the simulation: resources, numbers, and what each site should run.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use api::{Object, Spec, sync::Bundle};
use base::{QualifiedService, Revision, Rng, SiteName, WallTime};
use plan::{Ids, Projection, World, check_put, project};

/// How many PoPs there are; they are the first sites.
pub(crate) const POPS: usize = 4;
const GATEWAYS: usize = 46;
const TENANTS: usize = 5;

/// When the simulation starts.
pub(crate) const WALL: WallTime = WallTime::from_unix_seconds(1_800_000_000);

/// One endpoint of one service, as configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Configured {
    pub(crate) service: QualifiedService,
    /// The node of its site.
    pub(crate) node: usize,
    pub(crate) address: SocketAddr,
}

#[derive(Debug)]
pub(crate) struct Planet {
    pub(crate) world: World,
    pub(crate) ids: Ids,
    /// By node: one node a site.
    pub(crate) sites: Vec<SiteName>,
    pub(crate) index: BTreeMap<SiteName, usize>,
    /// What each node should run, as it changed last for it.
    pub(crate) bundles: Vec<Bundle>,
    revision: u64,
}

impl Planet {
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let objects = api::manifest::parse(&manifests(rng)).expect("good manifests");
        let world = World::new(objects);
        let sites: Vec<SiteName> = (0..POPS + GATEWAYS)
            .map(|node| site_name(node).parse().expect("a site"))
            .collect();
        let mut planet = Planet {
            world,
            ids: Ids::default(),
            index: sites.iter().cloned().zip(0..).collect(),
            bundles: vec![Bundle::default(); sites.len()],
            sites,
            revision: 0,
        };
        planet.commit();
        planet
    }

    /// Change something, as a tenant would; true if it concerns any site.
    pub(crate) fn revise(&mut self, rng: &mut Rng) {
        let tenant = tenant_name(rng.below(TENANTS as u64));
        let kind = rng.below(4);
        let weight = u8::try_from(1 + rng.below(200)).unwrap_or(1);
        let key = |service: &str| {
            let path = format!("tenants/{tenant}/namespaces/shop/services/{service}");
            path.parse().expect("a path")
        };
        let mut object = match kind {
            0 | 1 => self.world.find(&key("cart")),
            _ => self.world.find(&key("api")),
        }
        .cloned()
        .expect("it is there from the start");
        if let Spec::Service(spec) = &mut object.spec {
            let origin = &mut spec.origins[0];
            match kind {
                0 => origin.weight = weight,
                1 if origin.addresses.len() > 2 => drop(origin.addresses.pop()),
                1 => origin.addresses.push("10.0.0.4".to_owned()),
                // One gateway fewer, until few are left: then all are back.
                2 if origin.sites.len() > 3 => drop(origin.sites.pop()),
                2 => origin.sites = gateways_of(&tenant),
                _ => spec.port = if spec.port == 9000 { 9001 } else { 9000 },
            }
        }
        self.put(object);
        self.commit();
    }

    /// Every endpoint there should be.
    pub(crate) fn endpoints(&self) -> Vec<Configured> {
        let mut all = Vec::new();
        for (object, spec) in self.world.services() {
            let (Some(tenant), Some(namespace)) =
                (&object.metadata.tenant, &object.metadata.namespace)
            else {
                continue;
            };
            let service = QualifiedService {
                tenant: tenant.clone(),
                namespace: namespace.clone(),
                service: object.metadata.name.clone(),
            };
            for origin in &spec.origins {
                for site in &origin.sites {
                    let site = SiteName {
                        tenant: tenant.clone(),
                        site: site.clone(),
                    };
                    for address in &origin.addresses {
                        let ip = address.parse().expect("an IP address");
                        all.push(Configured {
                            service: service.clone(),
                            node: self.index[&site],
                            address: SocketAddr::new(ip, spec.port),
                        });
                    }
                }
            }
        }
        all
    }

    fn put(&mut self, object: Object) {
        check_put(&self.world, &object, WALL).expect("what the simulation asks for is good");
        self.world.insert(object);
    }

    fn commit(&mut self) {
        self.revision += 1;
        self.ids.allocate(&self.world);
        for (site, bundle) in self.sites.iter().zip(&mut self.bundles) {
            let Projection { resources, sites } = project(&self.world, &self.ids, site);
            if resources != bundle.resources || sites != bundle.sites {
                *bundle = Bundle {
                    revision: Revision(self.revision),
                    resources,
                    sites,
                };
            }
        }
    }
}

fn tenant_name(tenant: u64) -> String {
    format!("t{tenant}")
}

fn site_name(node: usize) -> String {
    match node.checked_sub(POPS) {
        None => format!("p{node}.{}", SiteName::FABRIC),
        Some(gateway) => format!("g{gateway:02}.{}", tenant_name((gateway % TENANTS) as u64)),
    }
}

fn gateways_of(tenant: &str) -> Vec<base::Name> {
    (POPS..POPS + GATEWAYS)
        .map(|node| site_name(node).parse::<SiteName>().expect("a site"))
        .filter(|site| site.tenant.as_str() == tenant)
        .map(|site| site.site)
        .collect()
}

/// Every gateway is given the addresses of two PoPs, so that it attaches to these.
fn manifests(rng: &mut Rng) -> String {
    let mut readers: Vec<Vec<String>> = (0..POPS)
        .map(|_| (0..POPS).map(site_name).collect())
        .collect();
    let mut out = String::new();
    for node in POPS..POPS + GATEWAYS {
        let first = rng.below(POPS as u64);
        let second = (first + 1 + rng.below(POPS as u64 - 1)) % POPS as u64;
        for pop in [first, second] {
            readers[usize::try_from(pop).unwrap_or(0)].push(site_name(node));
        }
        let name = site_name(node);
        let (site, tenant) = name.split_once('.').expect("a site");
        let text = format!(
            "---\n{{kind: Site, metadata: {{tenant: {tenant}, name: {site}}}, \
             spec: {{role: gateway, nodes: [{{name: n1}}]}}}}"
        );
        writeln!(out, "{text}").expect("a String takes everything");
    }
    for (pop, readers) in readers.iter().enumerate() {
        let advertise: Vec<String> = readers
            .iter()
            .map(|from| format!("{{address: '192.0.2.{}:7000', from: {from}}}", pop + 1))
            .collect();
        let text = format!(
            "---\n{{kind: Site, metadata: {{name: p{pop}}}, spec: {{role: pop, nodes: [{{name: n1, \
             tunnel: {{bind: [], advertise: [{}]}}, public: {{bind: ['127.0.0.1']}}}}]}}}}",
            advertise.join(", ")
        );
        writeln!(out, "{text}").expect("a String takes everything");
    }
    for tenant in 0..TENANTS {
        let name = tenant_name(tenant as u64);
        let gateways: Vec<String> = gateways_of(&name).iter().map(ToString::to_string).collect();
        let advertise = if tenant == 0 {
            "{pops: [p0, p1, p2]}"
        } else {
            "{public: {}}"
        };
        writeln!(
            out,
            "{}",
            tenant_manifests(&name, &gateways.join(", "), advertise)
        )
        .expect("a String takes everything");
    }
    out
}

fn tenant_manifests(name: &str, gateways: &str, advertise: &str) -> String {
    let service = |service: &str, port: u16, addresses: &str| {
        format!(
            "---\n{{kind: Service, metadata: {{tenant: {name}, namespace: shop, name: {service}}}, \
             spec: {{port: {port}, origins: [{{sites: [{gateways}], addresses: [{addresses}]}}]}}}}"
        )
    };
    [
        format!("---\n{{kind: Tenant, metadata: {{name: {name}}}, spec: {{publicHosts: ['{name}.example']}}}}"),
        format!("---\n{{kind: Namespace, metadata: {{tenant: {name}, name: shop}}, spec: {{}}}}"),
        service("cart", 8080, "10.0.0.1, 10.0.0.2"),
        service("api", 9000, "10.0.0.3"),
        format!(
            "---\n{{kind: LoadBalancer, metadata: {{tenant: {name}, namespace: shop, name: web}}, \
             spec: {{hosts: [{name}.example], advertise: [{advertise}], routes: [\
             {{backendRefs: [{{name: cart}}]}}, \
             {{matches: [{{path: {{value: /api}}}}], backendRefs: [{{name: api}}]}}]}}}}"
        ),
    ]
    .join("\n")
}
