//! Hosts, routes, services, endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use api::{
    Filter, LbType, LoadBalancerSpec, NodeSpec, Object, ObjectKey, Origin, Reference, Route,
    ServiceProtocol, ServiceSpec, sync::Bundle,
};
use balance::EndpointKey;
use base::{LbId, Name, NetworkId, QualifiedService, ServiceId, SlotId, TenantId};
use l7::policy::{Guard, Policy, Undecided};

use super::{
    Cells, CompileError, FrontCertificate, HttpProbe, Listener, Me, Numbers, ServicePlan, Target,
    TargetKey, Vips, endpoint_addresses,
};
use crate::{
    ClientTrust, KeySources, World,
    project::{backends, offered_at, vips_at},
    route::Wrong,
    world::{gateway, scope},
};

pub(super) struct Delivery {
    pub(super) ingress: l7::Table,
    pub(super) egress: l7::Egress,
    pub(super) certificates: Vec<FrontCertificate>,
    pub(super) clients: BTreeMap<l7::TrustId, ClientTrust>,
    pub(super) keys: KeySources,
    pub(super) listeners: BTreeSet<Listener>,
    pub(super) vips: Vips,
    pub(super) senders: l7::Senders,
    pub(super) targets: BTreeMap<TargetKey, Target>,
    pub(super) services: BTreeMap<(TenantId, ServiceId), ServicePlan>,
}

struct Compiler<'a> {
    world: &'a World,
    me: &'a Me,
    numbers: Numbers,
    node: &'a NodeSpec,
    tenants: BTreeMap<&'a Name, TenantId>,
    /// The slot of this site under which a tenant's facts are announced.
    slots: BTreeMap<TenantId, SlotId>,
    clusters: BTreeMap<ObjectKey, Arc<l7::Cluster>>,
    policies: BTreeMap<ObjectKey, Arc<Policy>>,
    ids: BTreeSet<(TenantId, ServiceId)>,
    plans: Vec<((TenantId, ServiceId), ServicePlan)>,
    out: Delivery,
}

pub(super) fn compile(
    world: &World,
    bundle: &Bundle,
    me: &Me,
    numbers: Numbers,
    node: &NodeSpec,
    cells: &Cells,
) -> Result<Delivery, CompileError> {
    let tenants = world.tenants().filter_map(|(object, _)| {
        let id = u32::try_from(object.metadata.id?).ok()?;
        Some((&object.metadata.name, TenantId(id)))
    });
    let row = bundle.sites.iter().find(|row| row.id == numbers.site);
    let slots = row
        .into_iter()
        .flat_map(|row| row.slots.iter().map(|s| (s.tenant, s.slot)));
    let mut compiler = Compiler {
        world,
        me,
        numbers,
        node,
        tenants: tenants.collect(),
        slots: slots.collect(),
        clusters: BTreeMap::new(),
        policies: BTreeMap::new(),
        ids: BTreeSet::new(),
        plans: Vec::new(),
        out: Delivery {
            ingress: l7::Table::default(),
            egress: l7::Egress::default(),
            certificates: Vec::new(),
            clients: BTreeMap::new(),
            keys: KeySources::new(),
            listeners: BTreeSet::new(),
            vips: Vips::new(),
            senders: l7::Senders::default(),
            targets: BTreeMap::new(),
            services: BTreeMap::new(),
        },
    };
    for (object, spec) in world.services() {
        compiler.service(object, spec, cells)?;
    }
    // A map that is made of all at once is a third smaller than one that grew.
    compiler.out.services = mem::take(&mut compiler.plans).into_iter().collect();
    if let Some(senders) = &node.proxy_protocol {
        let read = crate::placement::senders(senders);
        let senders =
            read.map_err(|w| CompileError::Senders(format!("{}: {}", w.pointer, w.title)))?;
        compiler.out.senders = senders;
    }
    compiler.ingress()?;
    compiler.egress();
    Ok(compiler.out)
}

impl Compiler<'_> {
    fn tenant(&self, object: &Object) -> Result<TenantId, CompileError> {
        let known = object
            .metadata
            .tenant
            .as_ref()
            .and_then(|name| self.tenants.get(name));
        known
            .copied()
            .ok_or_else(|| wrong(object, "its tenant has no id in this bundle"))
    }

    fn service(
        &mut self,
        object: &Object,
        spec: &ServiceSpec,
        cells: &Cells,
    ) -> Result<(), CompileError> {
        let Some((tenant_name, namespace)) = scope(object) else {
            return Ok(());
        };
        let tenant = self.tenant(object)?;
        let id = pki::service_id(namespace, &object.metadata.name);
        let cell = cells
            .get(&(tenant, id))
            .map_or_else(balance::empty_cell, Arc::clone);
        let (mut own, mut gauged) = (BTreeMap::new(), BTreeSet::new());
        for origin in &spec.origins {
            let here =
                |site| self.world.site_for(tenant_name, site).as_ref() == Some(&self.me.site);
            if !origin.sites.iter().any(here) {
                continue;
            }
            let addresses =
                endpoint_addresses(spec, origin).map_err(|(_, title)| wrong(object, title))?;
            let slot = self.slots.get(&tenant).copied();
            let slot = slot.ok_or_else(|| wrong(object, "this site has no slot for its tenant"))?;
            for address in addresses {
                let key = EndpointKey {
                    site: self.numbers.site,
                    network: NetworkId(0),
                    address,
                };
                own.insert(key, origin.weight);
                match origin.capacity {
                    Some(_) => gauged.insert(key),
                    None => gauged.remove(&key),
                };
                let target = target(spec, slot, origin);
                self.out.targets.insert(
                    TargetKey {
                        tenant,
                        service: id,
                        address,
                    },
                    target,
                );
            }
        }
        let below = |w: crate::route::Wrong| {
            let title = format!("/spec{}: {}", w.pointer, w.title);
            wrong(object, title)
        };
        let placement = crate::placement::placement(spec).map_err(below)?;
        let proxy = crate::placement::proxy(spec).map_err(below)?;
        let service = QualifiedService {
            tenant: tenant_name.clone(),
            namespace: namespace.clone(),
            service: object.metadata.name.clone(),
        };
        let plan = ServicePlan {
            name: service.clone(),
            cell: Arc::clone(&cell),
            policy: placement.policy,
            outlier: placement.outlier,
            own,
            gauged,
        };
        if !self.ids.insert((tenant, id)) {
            return Err(wrong(
                object,
                "another service of the tenant has the same id",
            ));
        }
        let cluster = l7::Cluster {
            service,
            tenant,
            id,
            port: spec.port,
            protocol: crate::placement::protocol(spec.protocol),
            proxy,
            hash_on: placement.hash_on,
            outlier: placement.outlier.map(|outlier| outlier.failures),
            circuit: placement.circuit,
            retries: balance::RetryBudget::default(),
            guard: self.guard(object, &spec.policies, Undecided::DenyForeign)?,
            cell,
        };
        self.clusters.insert(object.key(), Arc::new(cluster));
        self.plans.push(((tenant, id), plan));
        Ok(())
    }

    fn ingress(&mut self) -> Result<(), CompileError> {
        let (mut offers, mut layer4, mut passed) = (Vec::new(), Vec::new(), Vec::new());
        let mut used = BTreeSet::new();
        for (object, spec) in self.world.load_balancers() {
            if !offered_at(object, spec, &self.me.site) {
                continue;
            }
            let vips = vips_at(object, spec, &self.me.site);
            for vip in &vips {
                let services = self.out.vips.entry(*vip).or_default();
                for service in backends(object, spec) {
                    let cluster = self.clusters.get(&service);
                    services.extend(cluster.map(|cluster| (cluster.tenant, cluster.id)));
                }
            }
            let own = match spec.kind {
                LbType::Http => l7::ListenerProtocol::Http,
                LbType::Tls => l7::ListenerProtocol::Tls,
                LbType::Tcp | LbType::Udp | LbType::Connect => {
                    let one = self.layer4(object, spec)?;
                    let lb = one.lb;
                    layer4.push(Arc::new(one));
                    match spec.kind {
                        LbType::Udp => l7::ListenerProtocol::Udp(lb),
                        LbType::Connect => l7::ListenerProtocol::Connect(lb),
                        LbType::Http | LbType::Tls | LbType::Tcp => l7::ListenerProtocol::Tcp(lb),
                    }
                }
            };
            let tls = l7::ListenerProtocol::Tls;
            let own_ports = spec.ports().iter().map(|port| (*port, own));
            let tls_ports = spec.tls_ports().iter().map(|port| (*port, tls));
            let ports: Vec<_> = own_ports.chain(tls_ports).collect();
            for (port, protocol) in &ports {
                let sockets = self.sockets(&vips, *port, *protocol);
                self.out.listeners.extend(sockets);
            }
            if spec.http3() {
                for port in spec.tls_ports() {
                    let sockets = self.sockets(&vips, *port, l7::ListenerProtocol::Quic);
                    self.out.listeners.extend(sockets);
                }
            }
            let hosts: Vec<String> = spec.hosts.iter().map(ToString::to_string).collect();
            if spec.kind == LbType::Tls {
                let to = Arc::new(self.layer4(object, spec)?);
                passed.extend(ports.iter().map(|(port, _)| l7::Passed {
                    port: *port,
                    hosts: hosts.clone(),
                    to: Arc::clone(&to),
                }));
            }
            if spec.kind == LbType::Http {
                let host = Arc::new(self.virtual_host(object, spec)?);
                offers.extend(ports.iter().map(|(port, protocol)| l7::Offered {
                    port: *port,
                    tls: *protocol == tls,
                    hosts: hosts.clone(),
                    host: Arc::clone(&host),
                }));
            }
            for name in spec.tls.iter().flat_map(|tls| &tls.certificates) {
                if let Some((tenant, namespace)) = scope(object) {
                    used.insert((tenant.clone(), namespace.clone(), name.clone()));
                }
            }
        }
        let mut binds = BTreeSet::new();
        let socket = |l: &Listener| (l.bind, l.protocol.is_datagrams());
        let mut listeners = self.out.listeners.iter();
        if let Some(twice) = listeners.find(|l| !binds.insert(socket(l))) {
            return Err(CompileError::Socket(twice.bind));
        }
        let table = l7::Table::build(offers).and_then(|table| table.with_passed(passed));
        let table = table.map_err(CompileError::Table)?;
        self.out.ingress = table.with_layer4(layer4);
        for (tenant, namespace, name) in used {
            let key = crate::world::key(api::Kind::Certificate, &tenant, Some(&namespace), &name);
            let wrong = |title: String| CompileError::Resource(key.clone(), title);
            let spec = self.world.certificate(&tenant, &namespace, &name);
            let spec = spec.ok_or_else(|| wrong("is not in this bundle".to_owned()))?;
            let (Some(chain), Some(private)) = (&spec.certificate, &spec.private_key) else {
                return Err(wrong("has no chain or key in this bundle".to_owned()));
            };
            // Its end is not looked at: what served yesterday serves today.
            let pair =
                pki::parse_pair(chain, private).map_err(|e| wrong(base::Chain(&e).to_string()))?;
            let hosts = spec.hosts.iter().map(ToString::to_string).collect();
            self.out.certificates.push(FrontCertificate { hosts, pair });
        }
        Ok(())
    }

    /// At a PoP on the addresses for users, at a gateway on those of its own.
    fn sockets(
        &self,
        vips: &BTreeSet<IpAddr>,
        port: u16,
        protocol: l7::ListenerProtocol,
    ) -> Vec<Listener> {
        let listener = |ip: &IpAddr, bound| Listener {
            bind: SocketAddr::new(*ip, bound),
            port,
            protocol,
        };
        let public = self.node.public.iter().flat_map(|public| {
            let bound = public.port_map.get(&port).copied().unwrap_or(port);
            public.bind.iter().map(move |ip| listener(ip, bound))
        });
        public
            .chain(vips.iter().map(|ip| listener(ip, port)))
            .collect()
    }

    fn virtual_host(
        &mut self,
        object: &Object,
        spec: &LoadBalancerSpec,
    ) -> Result<l7::VirtualHost, CompileError> {
        let tenant = self.tenant(object)?;
        let mut routes = Vec::new();
        for (at, route) in spec.routes.iter().enumerate() {
            let name = route
                .name
                .as_ref()
                .map_or_else(|| format!("route-{at}"), ToString::to_string);
            let parts = crate::route::parts(route);
            let mut parts = parts.map_err(|wrong| {
                let pointer = format!("/spec/routes/{at}{}", wrong.pointer);
                self::wrong(object, format!("{pointer}: {}", wrong.title))
            })?;
            for filter in &route.filters {
                if let Filter::RequestMirror(mirror) = filter {
                    let to = &mirror.backend_ref;
                    parts.filters.mirrors.push(l7::Mirror {
                        cluster: self.cluster(object, to.namespace.as_ref(), &to.name)?,
                        percent: l7::Percent(mirror.percent.unwrap_or(100)),
                    });
                }
            }
            let backends = self.backends(object, spec, route)?;
            routes.push(l7::Route {
                name,
                matches: parts.matches,
                action: parts.answer.unwrap_or(l7::Action::Forward(backends)),
                filters: parts.filters,
                timeouts: parts.timeouts,
                retry: parts.retry,
                buffer: parts.buffer,
            });
        }
        let mut host = l7::VirtualHost::build(
            LbId(object.metadata.id.unwrap_or(0)),
            lb_name(object),
            tenant,
            object
                .metadata
                .tenant
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            l7::Limits::default(),
            routes,
        );
        host.http3 = spec.http3();
        let asked = spec
            .tls
            .as_ref()
            .and_then(|tls| tls.client_certificates.as_ref());
        if let Some(asked) = asked {
            let trust = crate::clients::trust(asked);
            let here = "/spec/tls/clientCertificates";
            let trust =
                trust.map_err(|w| wrong(object, format!("{here}{}: {}", w.pointer, w.title)))?;
            host.clients = Some(l7::ClientCertificates {
                trust: trust.id,
                required: trust.required,
                forward: asked.forward,
            });
            self.out.clients.insert(trust.id, trust);
        }
        host.guard = self.guard(object, &spec.policies, Undecided::Deny)?;
        let tokens = crate::jwt::verifier(&spec.jwt, &mut self.out.keys);
        let title = |w: Wrong| wrong(object, format!("{}: {}", w.pointer, w.title));
        host.guard.tokens = tokens.map_err(title)?;
        if let Some(limit) = &spec.rate_limit {
            let policy = crate::service_policy::rate_limited(object, limit);
            let title = |w: Wrong| wrong(object, format!("{}: {}", w.pointer, w.title));
            let policy = Arc::new(policy.map_err(title)?);
            host.guard.policies.insert(0, policy);
        }
        Ok(host)
    }

    /// The policies that an object names; `closed` holds if its namespace is closed.
    fn guard(
        &mut self,
        object: &Object,
        policies: &[Reference],
        closed: Undecided,
    ) -> Result<Guard, CompileError> {
        let Some((tenant, namespace)) = scope(object) else {
            return Ok(Guard::default());
        };
        let mut guard = Guard::default();
        if self.world.closed(tenant, namespace).is_some() {
            guard.undecided = closed;
        }
        for reference in policies {
            let found = self.world.service_policy(tenant, namespace, reference);
            let (policy, spec) = found.ok_or_else(|| {
                let title = format!("names policy {reference}, which is not in this bundle");
                wrong(object, title)
            })?;
            let built = match self.policies.get(&policy.key()) {
                Some(built) => Arc::clone(built),
                None => {
                    let built = crate::service_policy::policy(policy, spec);
                    let title = |w: Wrong| wrong(policy, format!("{}: {}", w.pointer, w.title));
                    Arc::new(built.map_err(title)?)
                }
            };
            self.policies.insert(policy.key(), Arc::clone(&built));
            guard.policies.push(built);
        }
        Ok(guard)
    }

    /// A load balancer that carries octets as they are.
    fn layer4(&self, object: &Object, spec: &LoadBalancerSpec) -> Result<l7::Layer4, CompileError> {
        let [route] = &spec.routes[..] else {
            return Err(wrong(object, "has not one route"));
        };
        let (name, tenant) = (route.name.as_ref(), object.metadata.tenant.as_ref());
        Ok(l7::Layer4 {
            lb: LbId(object.metadata.id.unwrap_or(0)),
            lb_name: lb_name(object),
            tenant: self.tenant(object)?,
            tenant_name: tenant.map(ToString::to_string).unwrap_or_default(),
            hosts: spec.hosts.iter().map(ToString::to_string).collect(),
            route: name.map_or_else(|| "route-0".to_owned(), ToString::to_string),
            limits: l7::Limits::default(),
            backends: self.backends(object, spec, route)?,
        })
    }

    fn backends(
        &self,
        object: &Object,
        spec: &LoadBalancerSpec,
        route: &Route,
    ) -> Result<Vec<l7::Backend>, CompileError> {
        let backends = route.backend_refs.iter().map(|backend| {
            let cluster = self.cluster(object, backend.namespace.as_ref(), &backend.name)?;
            if !crate::placement::goes(spec.kind, cluster.protocol) {
                let title = format!(
                    "leads to {}, which speaks another protocol",
                    cluster.service
                );
                return Err(wrong(object, title));
            }
            let weight = u32::from(backend.weight);
            Ok(l7::Backend { cluster, weight })
        });
        backends.collect()
    }

    fn cluster(
        &self,
        object: &Object,
        namespace: Option<&Name>,
        name: &Name,
    ) -> Result<Arc<l7::Cluster>, CompileError> {
        let Some((tenant, own)) = scope(object) else {
            return Err(wrong(object, "has no namespace"));
        };
        let namespace = namespace.unwrap_or(own);
        let key = crate::world::key(api::Kind::Service, tenant, Some(namespace), name);
        let known = self.clusters.get(&key).map(Arc::clone);
        known.ok_or_else(|| {
            wrong(
                object,
                format!("leads to {key}, which is not in this bundle"),
            )
        })
    }

    /// Services with endpoints here, and to whom load balancers offer them.
    fn egress(&mut self) {
        let plan = |cluster: &l7::Cluster| self.out.services.get(&(cluster.tenant, cluster.id));
        let here = self
            .clusters
            .iter()
            .filter(|(_, cluster)| plan(cluster).is_some_and(|plan| !plan.own.is_empty()));
        let service = |cluster| l7::EgressService {
            cluster: Arc::clone(cluster),
            offers: BTreeMap::new(),
        };
        let mut services: BTreeMap<&ObjectKey, l7::EgressService> =
            here.map(|(key, cluster)| (key, service(cluster))).collect();
        for (object, spec) in self.world.load_balancers() {
            let offer = Arc::new(offer(object, spec));
            for key in backends(object, spec) {
                if let Some(service) = services.get_mut(&key) {
                    service.offers.insert(lb_name(object), Arc::clone(&offer));
                }
            }
        }
        self.out.egress = l7::Egress::build(self.numbers.site, services.into_values().collect());
    }
}

fn offer(object: &Object, spec: &LoadBalancerSpec) -> l7::Offer {
    let mut offer = l7::Offer::default();
    for place in &spec.advertise {
        match place {
            api::Advertise::Public(_) => offer.all_pops = true,
            api::Advertise::Pops(pops) => offer.sites.extend(pops.iter().map(crate::world::pop)),
            api::Advertise::Sites(at) => {
                let tenant = object.metadata.tenant.as_ref();
                let sites = at.sites.iter();
                offer
                    .sites
                    .extend(sites.filter_map(|site| Some(gateway(tenant?, site))));
            }
        }
    }
    offer
}

fn target(spec: &ServiceSpec, slot: SlotId, origin: &Origin) -> Target {
    let check = &spec.health_check;
    let mut preamble = Vec::new();
    // Another port may be somebody's who knows nothing of it.
    if check.port.is_none()
        && let Ok(Some(version)) = crate::placement::proxy(spec)
    {
        version.write(None, &mut preamble);
    }
    let http = check.http.as_ref().map(|http| HttpProbe {
        path: http.path.clone(),
        host: http.host.clone(),
        expect: http.expect.clone(),
    });
    Target {
        slot,
        weight: origin.weight,
        capacity: origin.capacity,
        port: check.port,
        preamble,
        blind: spec.protocol == ServiceProtocol::Udp && check.port.is_none(),
        http,
        interval: check.interval.0,
        timeout: check.timeout.0,
        rise: check.rise,
        fall: check.fall,
    }
}

/// A load balancer's name in stream heads, logs and tables: `namespace/name`.
fn lb_name(object: &Object) -> String {
    let namespace = object.metadata.namespace.as_ref();
    namespace.map_or_else(String::new, |ns| format!("{ns}/{}", object.metadata.name))
}

fn wrong(object: &Object, title: impl Into<String>) -> CompileError {
    CompileError::Resource(object.key(), title.into())
}
