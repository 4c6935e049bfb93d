//! All resources there are, or all that one site has.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use api::{
    BgpPeerSpec, CertificateSpec, HostPattern, Isolation, Kind, LinkSpec, LoadBalancerSpec, Object,
    ObjectKey, Reference, ServicePolicySpec, ServiceSpec, SiteSpec, Spec, TenantSpec,
};
use base::{Name, SiteName};

/// Resources by key, with the look-ups that checking, projecting and compiling share.
#[derive(Clone, Debug, Default)]
pub struct World {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    /// Which load balancers name a host; made when first asked for, since only checking asks.
    publishers: OnceLock<HashMap<HostPattern, Vec<ObjectKey>>>,
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.objects == other.objects
    }
}

impl Eq for World {}

impl From<BTreeMap<ObjectKey, Arc<Object>>> for World {
    fn from(objects: BTreeMap<ObjectKey, Arc<Object>>) -> Self {
        World {
            objects,
            publishers: OnceLock::new(),
        }
    }
}

impl World {
    /// A world of these objects; of two with one key the last stays.
    #[must_use]
    pub fn new(objects: impl IntoIterator<Item = Object>) -> Self {
        let objects: BTreeMap<_, _> = {
            let objects = objects.into_iter();
            objects.map(|o| (o.key(), Arc::new(o))).collect()
        };
        World::from(objects)
    }

    /// Every object, by key.
    #[must_use]
    pub fn objects(&self) -> &BTreeMap<ObjectKey, Arc<Object>> {
        &self.objects
    }

    /// The object, if it exists.
    #[must_use]
    pub fn find(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key).map(|object| &**object)
    }

    /// Put an object in its place; what was there goes.
    pub fn insert(&mut self, object: Object) {
        let key = object.key();
        self.remove(&key);
        if let Some(publishers) = self.publishers.get_mut() {
            publish(publishers, &key, &object);
        }
        self.objects.insert(key, Arc::new(object));
    }

    /// Take an object out.
    pub fn remove(&mut self, key: &ObjectKey) {
        let gone = self.objects.remove(key);
        let (Some(gone), Some(publishers)) = (gone, self.publishers.get_mut()) else {
            return;
        };
        for host in hosts(&gone) {
            if let Some(named) = publishers.get_mut(host) {
                named.retain(|other| other != key);
                if named.is_empty() {
                    publishers.remove(host);
                }
            }
        }
    }

    /// The load balancers that name this host, at whichever ports.
    pub fn publishers(
        &self,
        host: &HostPattern,
    ) -> impl Iterator<Item = (&Object, &LoadBalancerSpec)> {
        let publishers = self.publishers.get_or_init(|| {
            let mut publishers = HashMap::new();
            for (key, object) in &self.objects {
                publish(&mut publishers, key, object);
            }
            publishers
        });
        let named = publishers.get(host).into_iter().flatten();
        named.filter_map(|key| {
            let object = self.find(key)?;
            load_balancer(object).map(|spec| (object, spec))
        })
    }

    /// Every tenant.
    pub fn tenants(&self) -> impl Iterator<Item = (&Object, &TenantSpec)> {
        self.objects.values().filter_map(|o| match &o.spec {
            Spec::Tenant(spec) => Some((&**o, spec)),
            Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => None,
            Spec::ServicePolicy(_) | Spec::Service(_) | Spec::LoadBalancer(_) => None,
            Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => None,
        })
    }

    /// Every site.
    pub fn sites(&self) -> impl Iterator<Item = (SiteName, &Object, &SiteSpec)> {
        self.objects.values().filter_map(|o| match &o.spec {
            Spec::Site(spec) => Some((o.key().site_name(), &**o, spec)),
            Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) => None,
            Spec::ServicePolicy(_) | Spec::Service(_) | Spec::LoadBalancer(_) => None,
            Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => None,
        })
    }

    /// Every service.
    pub fn services(&self) -> impl Iterator<Item = (&Object, &ServiceSpec)> {
        self.objects.values().filter_map(|o| match &o.spec {
            Spec::Service(spec) => Some((&**o, spec)),
            Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) => None,
            Spec::Site(_) | Spec::ServicePolicy(_) | Spec::LoadBalancer(_) => None,
            Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => None,
        })
    }

    /// Every load balancer.
    pub fn load_balancers(&self) -> impl Iterator<Item = (&Object, &LoadBalancerSpec)> {
        let objects = self.objects.values();
        objects.filter_map(|o| load_balancer(o).map(|spec| (&**o, spec)))
    }

    /// Every router of a site.
    pub fn bgp_peers(&self) -> impl Iterator<Item = (&Object, &BgpPeerSpec)> {
        self.objects.values().filter_map(|o| match &o.spec {
            Spec::BgpPeer(spec) => Some((&**o, &**spec)),
            Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => None,
            Spec::ServicePolicy(_) | Spec::Service(_) => None,
            Spec::LoadBalancer(_) | Spec::Certificate(_) | Spec::Link(_) => None,
        })
    }

    /// The routers of a site.
    pub fn routers_of(&self, site: &SiteName) -> impl Iterator<Item = (&Object, &BgpPeerSpec)> {
        let own = |(object, spec): &(&Object, &BgpPeerSpec)| is_own(object, &spec.site, site);
        self.bgp_peers().filter(own)
    }

    /// Every link of which something is said.
    pub fn links(&self) -> impl Iterator<Item = (&Object, &LinkSpec)> {
        self.objects.values().filter_map(|o| match &o.spec {
            Spec::Link(spec) => Some((&**o, spec)),
            Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Site(_) => None,
            Spec::ServicePolicy(_) | Spec::Service(_) | Spec::LoadBalancer(_) => None,
            Spec::Certificate(_) | Spec::BgpPeer(_) => None,
        })
    }

    /// The links of a site of which something is said, and where they lead.
    pub fn links_of(
        &self,
        site: &SiteName,
    ) -> impl Iterator<Item = (&Object, &LinkSpec, SiteName)> {
        self.links().filter_map(|(object, spec)| {
            far_end(self, object, spec, site).map(|far| (object, spec, far))
        })
    }

    /// A site by name.
    #[must_use]
    pub fn site(&self, name: &SiteName) -> Option<(&Object, &SiteSpec)> {
        let tenant = (!name.is_pop()).then(|| name.tenant.clone());
        let key = ObjectKey {
            kind: Kind::Site,
            tenant,
            namespace: None,
            name: name.site.clone(),
        };
        match self.find(&key) {
            Some(
                object @ Object {
                    spec: Spec::Site(spec),
                    ..
                },
            ) => Some((object, spec)),
            Some(_) | None => None,
        }
    }

    /// The site that `name` means inside `tenant`: a gateway of the tenant, or else a PoP.
    #[must_use]
    pub fn site_for(&self, tenant: &Name, name: &Name) -> Option<SiteName> {
        let own = gateway(tenant, name);
        let pop = pop(name);
        [own, pop]
            .into_iter()
            .find(|site| self.site(site).is_some())
    }

    /// A certificate of a namespace.
    #[must_use]
    pub fn certificate(
        &self,
        tenant: &Name,
        namespace: &Name,
        name: &Name,
    ) -> Option<&CertificateSpec> {
        match self.find(&key(Kind::Certificate, tenant, Some(namespace), name)) {
            Some(Object {
                spec: Spec::Certificate(spec),
                ..
            }) => Some(spec),
            Some(_) | None => None,
        }
    }
}

impl World {
    /// A policy of a tenant, as an object of namespace `from` refers to it.
    #[must_use]
    pub fn service_policy(
        &self,
        tenant: &Name,
        from: &Name,
        reference: &Reference,
    ) -> Option<(&Object, &ServicePolicySpec)> {
        match self.find(&referred(Kind::ServicePolicy, tenant, from, reference)) {
            Some(
                object @ Object {
                    spec: Spec::ServicePolicy(spec),
                    ..
                },
            ) => Some((object, spec)),
            Some(_) | None => None,
        }
    }

    /// A namespace that is closed.
    #[must_use]
    pub fn closed(&self, tenant: &Name, namespace: &Name) -> Option<&Object> {
        let found = self.find(&key(Kind::Namespace, tenant, None, namespace))?;
        match &found.spec {
            Spec::Namespace(spec) => (spec.isolation == Isolation::Closed).then_some(found),
            Spec::Tenant(_) | Spec::Token(_) | Spec::Site(_) | Spec::ServicePolicy(_) => None,
            Spec::Service(_) | Spec::LoadBalancer(_) => None,
            Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => None,
        }
    }
}

fn load_balancer(object: &Object) -> Option<&LoadBalancerSpec> {
    match &object.spec {
        Spec::LoadBalancer(spec) => Some(spec),
        Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) => None,
        Spec::Site(_) | Spec::ServicePolicy(_) | Spec::Service(_) => None,
        Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::Link(_) => None,
    }
}

/// The hosts that an object publishes.
fn hosts(object: &Object) -> &[HostPattern] {
    load_balancer(object).map_or(&[], |spec| &spec.hosts)
}

fn publish(
    publishers: &mut HashMap<HostPattern, Vec<ObjectKey>>,
    key: &ObjectKey,
    object: &Object,
) {
    for host in hosts(object) {
        let named = publishers.entry(host.clone()).or_default();
        named.push(key.clone());
    }
}

/// The key of what an object of namespace `from` refers to.
#[must_use]
pub(crate) fn referred(kind: Kind, tenant: &Name, from: &Name, reference: &Reference) -> ObjectKey {
    let namespace = reference.namespace.as_ref().unwrap_or(from);
    key(kind, tenant, Some(namespace), &reference.name)
}

/// The key of an object of a tenant.
#[must_use]
pub(crate) fn key(kind: Kind, tenant: &Name, namespace: Option<&Name>, name: &Name) -> ObjectKey {
    ObjectKey {
        kind,
        tenant: Some(tenant.clone()),
        namespace: namespace.cloned(),
        name: name.clone(),
    }
}

/// The PoP of this name.
#[must_use]
pub(crate) fn pop(name: &Name) -> SiteName {
    let fabric = SiteName::FABRIC
        .parse()
        .expect("the constant is a DNS label");
    SiteName {
        tenant: fabric,
        site: name.clone(),
    }
}

/// The gateway of this name.
#[must_use]
pub(crate) fn gateway(tenant: &Name, name: &Name) -> SiteName {
    SiteName {
        tenant: tenant.clone(),
        site: name.clone(),
    }
}

/// Is `site` the one that `name` means among those of the object's own tenant?
pub(crate) fn is_own(object: &Object, name: &Name, site: &SiteName) -> bool {
    object.metadata.tenant.as_ref() == Some(&site.tenant) && *name == site.site
}

/// Where the link leads from `near`, if that is one of its ends.
pub(crate) fn far_end(
    world: &World,
    object: &Object,
    spec: &LinkSpec,
    near: &SiteName,
) -> Option<SiteName> {
    let far = match &near.site {
        site if *site == spec.a => &spec.b,
        site if *site == spec.b => &spec.a,
        _ => return None,
    };
    match (&object.metadata.tenant, near.is_pop()) {
        (None, true) => Some(pop(far)),
        (None, false) => None,
        // A gateway of the tenant may have the name of a PoP, and then it is meant.
        (Some(tenant), true) => {
            let own = world.site(&gateway(tenant, &near.site));
            own.is_none().then(|| gateway(tenant, far))
        }
        (Some(tenant), false) => (near.tenant == *tenant).then(|| pop(far)),
    }
}

/// Tenant and namespace of a namespaced object.
///
/// `api` refuses such an object without them, so this fails for other kinds only.
#[must_use]
pub(crate) fn scope(object: &Object) -> Option<(&Name, &Name)> {
    Some((
        object.metadata.tenant.as_ref()?,
        object.metadata.namespace.as_ref()?,
    ))
}
