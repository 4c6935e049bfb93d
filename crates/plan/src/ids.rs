//! The numbers behind names: allocated once, never 0, never reused.

use std::collections::BTreeMap;

use api::{Kind, Object, ObjectKey};
use base::{LbId, Name, NodeId, SiteId, SiteName, SlotId, TenantId};
use serde::{Deserialize, Serialize};

use crate::World;

/// The allocation table. The controller keeps it in the store and extends it in the transaction
/// that creates an object; entries outlive their objects, so that a number is never reused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ids {
    tenants: BTreeMap<String, u32>,
    sites: BTreeMap<String, u32>,
    /// By `NODE.SITE.TENANT`.
    nodes: BTreeMap<String, u32>,
    /// By path of the object.
    load_balancers: BTreeMap<String, u64>,
    /// By `SITE.TENANT` of the site, then tenant; slot 0 is the owner's and not listed.
    slots: BTreeMap<String, BTreeMap<String, u16>>,
}

/// Two names got one derived number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} and {1} get the same derived id: rename one of them")]
pub struct Collision(String, String);

impl Ids {
    /// Give a number to everything in `world` that has none; true if anything was new.
    ///
    /// # Panics
    /// After 2³² sites, nodes or tenants, or 2¹⁶ tenants in one PoP.
    pub fn allocate(&mut self, world: &World) -> bool {
        let before = self.clone();
        for (tenant, _) in world.tenants() {
            next_u32(&mut self.tenants, tenant.metadata.name.to_string());
        }
        for (site, _, spec) in world.sites() {
            next_u32(&mut self.sites, site.to_string());
            for node in &spec.nodes {
                next_u32(&mut self.nodes, node_key(&site, &node.name));
            }
        }
        for (object, _) in world.load_balancers() {
            let next = self
                .load_balancers
                .values()
                .max()
                .map_or(1, |last| last + 1);
            self.load_balancers
                .entry(object.key().to_string())
                .or_insert(next);
        }
        for (site, tenant) in foreign_slots(world) {
            let slots = self.slots.entry(site.to_string()).or_default();
            let next = slots.values().max().map_or(1, |last| last + 1);
            slots.entry(tenant.to_string()).or_insert(next);
        }
        *self != before
    }

    /// Numbers derived by SHA-256, for a node that runs from manifests without a controller.
    ///
    /// # Errors
    /// Two names with one number.
    pub fn derive(world: &World) -> Result<Self, Collision> {
        let mut ids = Ids::default();
        for (tenant, _) in world.tenants() {
            derive_u32(&mut ids.tenants, "tenant", tenant.metadata.name.to_string())?;
        }
        for (site, _, spec) in world.sites() {
            derive_u32(&mut ids.sites, "site", site.to_string())?;
            for node in &spec.nodes {
                derive_u32(&mut ids.nodes, "node", node_key(&site, &node.name))?;
            }
        }
        for (object, _) in world.load_balancers() {
            let path = object.key().to_string();
            let id = pki::derive_u64("loadbalancer", &path);
            if let Some((other, _)) = ids.load_balancers.iter().find(|(_, have)| **have == id) {
                return Err(Collision(other.clone(), path));
            }
            ids.load_balancers.insert(path, id);
        }
        ids.slots.clear();
        for (site, tenant) in foreign_slots(world) {
            let slots = ids.slots.entry(site.to_string()).or_default();
            let next = slots.values().max().map_or(1, |last| last + 1);
            slots.entry(tenant.to_string()).or_insert(next);
        }
        Ok(ids)
    }

    /// A tenant's number; that of the fabric is 0.
    #[must_use]
    pub fn tenant(&self, name: &Name) -> Option<TenantId> {
        if name.as_str() == SiteName::FABRIC {
            return Some(TenantId(0));
        }
        self.tenants.get(name.as_str()).map(|id| TenantId(*id))
    }

    /// A site's number.
    #[must_use]
    pub fn site(&self, name: &SiteName) -> Option<SiteId> {
        self.sites.get(&name.to_string()).map(|id| SiteId(*id))
    }

    /// A node's BGP Identifier.
    #[must_use]
    pub fn node(&self, site: &SiteName, node: &Name) -> Option<NodeId> {
        self.nodes.get(&node_key(site, node)).map(|id| NodeId(*id))
    }

    /// A load balancer's number.
    #[must_use]
    pub fn load_balancer(&self, key: &ObjectKey) -> Option<LbId> {
        self.load_balancers
            .get(&key.to_string())
            .map(|id| LbId(*id))
    }

    /// The slots of a site beside the owner's slot 0: one a tenant that has endpoints there.
    pub fn slots(&self, site: &SiteName) -> impl Iterator<Item = (SlotId, TenantId)> {
        let of_site = self.slots.get(&site.to_string()).into_iter().flatten();
        of_site.filter_map(|(tenant, slot)| {
            Some((SlotId(*slot), TenantId(*self.tenants.get(tenant)?)))
        })
    }

    /// Write the object's number into its metadata, for the kinds that have one.
    pub fn stamp(&self, object: &mut Object) {
        let key = object.key();
        object.metadata.id = match object.kind {
            Kind::Tenant => self.tenant(&key.name).map(|id| u64::from(id.0)),
            Kind::Site => self.site(&key.site_name()).map(|id| u64::from(id.0)),
            Kind::LoadBalancer => self.load_balancer(&key).map(|id| id.0),
            Kind::Namespace | Kind::Token | Kind::ServicePolicy | Kind::Service => None,
            Kind::Certificate | Kind::BgpPeer | Kind::Link => None,
        };
    }
}

fn node_key(site: &SiteName, node: &Name) -> String {
    format!("{node}.{site}")
}

/// (PoP, tenant) for every tenant whose services have endpoints in a PoP.
fn foreign_slots(world: &World) -> Vec<(SiteName, Name)> {
    let mut pairs = Vec::new();
    for (object, spec) in world.services() {
        let Some(tenant) = &object.metadata.tenant else {
            continue;
        };
        for name in spec.origins.iter().flat_map(|origin| &origin.sites) {
            let site = world.site_for(tenant, name).filter(SiteName::is_pop);
            pairs.extend(site.map(|site| (site, tenant.clone())));
        }
    }
    pairs
}

fn next_u32(ids: &mut BTreeMap<String, u32>, name: String) {
    let next = ids.values().max().map_or(1, |last| last + 1);
    ids.entry(name).or_insert(next);
}

fn derive_u32(ids: &mut BTreeMap<String, u32>, label: &str, name: String) -> Result<(), Collision> {
    let id = pki::derive_u32(label, &name);
    if let Some((other, _)) = ids.iter().find(|(_, have)| **have == id) {
        return Err(Collision(other.clone(), name));
    }
    ids.insert(name, id);
    Ok(())
}
