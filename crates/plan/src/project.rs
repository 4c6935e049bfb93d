//! What one site needs to know, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use api::{
    Advertise, AdvertisedAddress, LoadBalancerSpec, NodeSpec, Object, ObjectKey, Reference, Route,
    ServiceSpec, SiteVip, Spec, TenantSpec,
    sync::{NodeEntry, SiteEntry, SlotEntry},
};
use base::{NetworkId, SiteName, SlotId};

use crate::{
    Ids, World,
    world::{is_own, key, scope},
};

/// What one site should run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {
    /// Its resources, cut down to what it needs, with ids in their metadata.
    pub resources: BTreeMap<ObjectKey, Arc<Object>>,
    /// Its view of the site table.
    pub sites: Vec<SiteEntry>,
}

/// What `site` needs of `world`. Empty if the site does not exist.
///
/// Each gets the load balancers advertised there, their services and certificates, and the
/// services that have endpoints there with the offers that lead to them, and what is said of its links.
/// A PoP gets every site; a gateway the PoPs, the sites of its own tenant, and its routers. Neither gets server fields
/// other than `id`, so that an update that changes nothing for a site is no update.
#[must_use]
pub fn project(world: &World, ids: &Ids, site: &SiteName) -> Projection {
    let Some((object, _)) = world.site(site) else {
        return Projection::default();
    };
    let mut out = Projection::default();
    add(&mut out, ids, object.clone());
    ingress(&mut out, world, ids, site);
    for (object, _) in world.routers_of(site) {
        add(&mut out, ids, object.clone());
    }
    for (object, ..) in world.links_of(site) {
        add(&mut out, ids, object.clone());
    }
    egress(&mut out, world, ids, site);
    out.sites = site_table(world, ids, site);
    out
}

/// Is the load balancer offered at this site?
#[must_use]
pub(crate) fn offered_at(object: &Object, spec: &LoadBalancerSpec, site: &SiteName) -> bool {
    spec.advertise.iter().any(|place| match place {
        Advertise::Public(_) => site.is_pop(),
        Advertise::Pops(pops) => site.is_pop() && pops.contains(&site.site),
        Advertise::Sites(at) => at.sites.iter().any(|name| is_own(object, name, site)),
    })
}

/// The VIPs of a load balancer at this site.
pub(crate) fn vips_at(
    object: &Object,
    spec: &LoadBalancerSpec,
    site: &SiteName,
) -> BTreeSet<IpAddr> {
    let own = |at: &&SiteVip| at.sites.iter().any(|name| is_own(object, name, site));
    let all = spec.advertise.iter().filter_map(|place| match place {
        Advertise::Public(_) | Advertise::Pops(_) => None,
        Advertise::Sites(at) => Some(at).filter(own).map(|at| at.vip),
    });
    all.collect()
}

/// The keys of the services a load balancer leads to.
pub(crate) fn backends(object: &Object, spec: &LoadBalancerSpec) -> Vec<ObjectKey> {
    let Some((tenant, namespace)) = scope(object) else {
        return Vec::new();
    };
    let refs = spec.routes.iter().flat_map(Route::services);
    refs.map(|(of, name)| {
        let namespace = of.unwrap_or(namespace);
        key(api::Kind::Service, tenant, Some(namespace), name)
    })
    .collect()
}

fn ingress(out: &mut Projection, world: &World, ids: &Ids, site: &SiteName) {
    for (object, spec) in world
        .load_balancers()
        .filter(|(object, spec)| offered_at(object, spec, site))
    {
        let Some((tenant, namespace)) = scope(object) else {
            continue;
        };
        add(out, ids, object.clone());
        add_tenant(out, world, ids, object);
        add_policies(out, world, ids, object, &spec.policies);
        for name in spec.tls.iter().flat_map(|tls| &tls.certificates) {
            let key = key(api::Kind::Certificate, tenant, Some(namespace), name);
            out.resources
                .extend(world.find(&key).map(|o| (key, Arc::new(bare(o.clone())))));
        }
        for service in backends(object, spec) {
            if let Some(object) = world.find(&service) {
                add_service(out, world, ids, site, object);
            }
        }
    }
}

/// Services with endpoints in `site`, and the offers that lead to them.
fn egress(out: &mut Projection, world: &World, ids: &Ids, site: &SiteName) {
    let mut here = BTreeSet::new();
    for (object, spec) in world.services() {
        if has_origin_in(world, object, spec, site) {
            add_service(out, world, ids, site, object);
            add_tenant(out, world, ids, object);
            here.insert(object.key());
        }
    }
    for (object, spec) in world.load_balancers() {
        let mut services = backends(object, spec);
        services.retain(|key| here.contains(key));
        // What is offered at this very site is there already, whole.
        if !services.is_empty() && !out.resources.contains_key(&object.key()) {
            add(out, ids, offer_of(object.clone(), spec, &services));
        }
    }
}

/// The load balancer as the egress needs it: who offers which services where.
fn offer_of(mut object: Object, spec: &LoadBalancerSpec, services: &[ObjectKey]) -> Object {
    let own = object.metadata.namespace.clone();
    let backend_refs = services.iter().map(|service| api::BackendRef {
        name: service.name.clone(),
        namespace: service
            .namespace
            .clone()
            .filter(|ns| own.as_ref() != Some(ns)),
        weight: 1,
    });
    let backend_refs: BTreeSet<_> = backend_refs.collect();
    let route = Route {
        backend_refs: backend_refs.into_iter().collect(),
        ..Route::default()
    };
    object.spec = Spec::LoadBalancer(LoadBalancerSpec {
        tls: None,
        routes: vec![route],
        policies: Vec::new(),
        rate_limit: None,
        jwt: Vec::new(),
        ..spec.clone()
    });
    object
}

fn has_origin_in(world: &World, object: &Object, spec: &ServiceSpec, site: &SiteName) -> bool {
    let tenant = object.metadata.tenant.as_ref();
    let mut names = spec.origins.iter().flat_map(|origin| &origin.sites);
    names.any(|name| tenant.and_then(|t| world.site_for(t, name)).as_ref() == Some(site))
}

/// The service with only the endpoints of `site`.
fn with_origins_in(mut object: Object, world: &World, site: &SiteName) -> Object {
    let tenant = object.metadata.tenant.clone();
    if let Spec::Service(spec) = &mut object.spec {
        for origin in &mut spec.origins {
            origin.sites.retain(|name| {
                tenant
                    .as_ref()
                    .and_then(|t| world.site_for(t, name))
                    .as_ref()
                    == Some(site)
            });
        }
        spec.origins.retain(|origin| !origin.sites.is_empty());
    }
    object
}

/// A service with its endpoints in `site`, and what guards it wherever requests for it pass.
fn add_service(out: &mut Projection, world: &World, ids: &Ids, site: &SiteName, object: &Object) {
    add(out, ids, with_origins_in(object.clone(), world, site));
    if let Spec::Service(spec) = &object.spec {
        add_policies(out, world, ids, object, &spec.policies);
    }
}

/// The policies that an object names, and its namespace if that is closed.
fn add_policies(
    out: &mut Projection,
    world: &World,
    ids: &Ids,
    object: &Object,
    policies: &[Reference],
) {
    let Some((tenant, namespace)) = scope(object) else {
        return;
    };
    for policy in policies {
        if let Some((policy, _)) = world.service_policy(tenant, namespace, policy) {
            add(out, ids, policy.clone());
        }
    }
    if let Some(closed) = world.closed(tenant, namespace) {
        add(out, ids, closed.clone());
    }
}

fn add_tenant(out: &mut Projection, world: &World, ids: &Ids, of: &Object) {
    let tenant = of.metadata.tenant.as_ref();
    let found = world
        .tenants()
        .find(|(o, _)| Some(&o.metadata.name) == tenant);
    if let Some((object, _)) = found {
        let mut object = object.clone();
        object.spec = Spec::Tenant(TenantSpec::default());
        add(out, ids, object);
    }
}

fn add(out: &mut Projection, ids: &Ids, object: Object) {
    let mut object = bare(object);
    ids.stamp(&mut object);
    out.resources.insert(object.key(), Arc::new(object));
}

/// The object without what the server wrote on it.
fn bare(object: Object) -> Object {
    let mut bare = Object::new(
        object.metadata.tenant,
        object.metadata.namespace,
        object.metadata.name,
        object.spec,
    );
    bare.metadata.labels = object.metadata.labels;
    bare
}

fn site_table(world: &World, ids: &Ids, reader: &SiteName) -> Vec<SiteEntry> {
    let mut table = Vec::new();
    let own = world.site(reader).map(|(_, spec)| spec);
    let selector = own.and_then(|spec| spec.attach.pop_selector.as_ref());
    let is_meshed = own.is_some_and(|spec| spec.mesh.is_full());
    for (name, object, spec) in world.sites() {
        if !(reader.is_pop() || name.is_pop() || name.tenant == reader.tenant) {
            continue;
        }
        let (Some(id), Some(tenant)) = (ids.site(&name), ids.tenant(&name.tenant)) else {
            continue;
        };
        let network = NetworkId(0);
        let mut slots = vec![SlotEntry {
            slot: SlotId(0),
            tenant,
            network,
        }];
        slots.extend(ids.slots(&name).map(|(slot, tenant)| SlotEntry {
            slot,
            tenant,
            network,
        }));
        let mesh = is_meshed && spec.mesh.is_full() && name != *reader;
        // Who gets no addresses does not dial.
        let selected = match name.is_pop() {
            true => selector.is_none_or(|selector| selector.selects(&object.metadata.labels)),
            false => mesh,
        };
        let nodes = spec.nodes.iter().filter_map(|node| {
            let id = ids.node(&name, &node.name)?;
            let dial = if selected {
                dial(node, reader)
            } else {
                Vec::new()
            };
            Some(NodeEntry {
                name: node.name.clone(),
                id,
                dial,
            })
        });
        let region = spec.location.as_ref().map(|location| &location.region);
        table.push(SiteEntry {
            pop: name.is_pop(),
            mesh,
            region: region.filter(|_| !reader.is_pop()).cloned(),
            nodes: nodes.collect(),
            name,
            id,
            tenant,
            slots,
        });
    }
    table
}

/// The addresses at which `reader` reaches `node`: those given out for it, else those for any; where
/// none are given out to anybody, those where the node listens.
#[must_use]
pub fn dial(node: &NodeSpec, reader: &SiteName) -> Vec<SocketAddr> {
    let Some(tunnel) = &node.tunnel else {
        return Vec::new();
    };
    let full = reader.to_string();
    let given = |wanted: &dyn Fn(&AdvertisedAddress) -> bool| -> Vec<SocketAddr> {
        tunnel
            .advertise
            .iter()
            .filter(|a| wanted(a))
            .map(|a| a.address)
            .collect()
    };
    let own = given(&|a| a.from == full || a.from == reader.site.as_str());
    if !own.is_empty() {
        return own;
    }
    let any = given(&|a| a.from == "any");
    if tunnel.advertise.is_empty() {
        tunnel.bind.clone()
    } else {
        any
    }
}
