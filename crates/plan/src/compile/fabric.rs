//! Tunnels, neighbours and the site table.

use std::collections::BTreeMap;

use api::{
    NodeSpec, SiteSpec, UplinkSpec,
    sync::{Bundle, SiteEntry},
};
use base::SiteId;

use super::{Fabric, Me, Neighbor, Numbers, Uplink, UplinkSource};

pub(super) fn compile(
    bundle: &Bundle,
    me: &Me,
    numbers: Numbers,
    site: &SiteSpec,
    node: &NodeSpec,
) -> Fabric {
    let bind = node
        .tunnel
        .as_ref()
        .map(|tunnel| tunnel.bind.clone())
        .unwrap_or_default();
    let mut fabric = Fabric {
        bind,
        ..Fabric::default()
    };
    let others = || bundle.sites.iter().filter(|row| row.name != me.site);
    if numbers.pop {
        // Of two PoPs the one with the greater id dials, so that there is one tunnel a pair.
        for row in others() {
            let dial = row.pop && row.id < numbers.site;
            add(&mut fabric, row, dial);
        }
    } else {
        fabric.attach = Some(usize::from(site.attach.count));
        fabric.transport = site.attach.transport;
        let uplink = |uplink: &UplinkSpec| {
            Some(Uplink {
                name: uplink.name.clone(),
                source: UplinkSource::parse(&uplink.source)?,
                cost: uplink.cost,
            })
        };
        fabric.uplinks = site.uplinks.iter().filter_map(uplink).collect();
        let mut pops: Vec<&SiteEntry> = others()
            .filter(|row| row.pop && !addresses(row).is_empty())
            .collect();
        pops.sort_by_key(|row| row.id);
        let candidate = |row: &&SiteEntry| path::Candidate {
            site: row.name.clone(),
            region: row.region.clone(),
        };
        fabric.pops = pops.iter().map(candidate).collect();
        for row in pops {
            add(&mut fabric, row, true);
        }
        // Any PoP may be at the other end: one that it is not to be attached to any more, until there
        // is another link, and those that its Token names, when there is nobody else.
        let pops = others().filter(|row| row.pop).map(|row| row.name.clone());
        fabric.peers.extend(pops);
        for row in others().filter(|row| row.mesh) {
            fabric.peers.insert(row.name.clone());
            // If either could dial, the one with the greater id does.
            let addresses = addresses(row);
            let dials = row.id < numbers.site || crate::dial(node, &row.name).is_empty();
            if dials && !addresses.is_empty() {
                fabric.mesh.insert(row.name.clone(), addresses);
            }
        }
    }
    fabric
}

fn add(fabric: &mut Fabric, row: &SiteEntry, dial: bool) {
    fabric.peers.insert(row.name.clone());
    if dial {
        fabric.dial.insert(row.name.clone(), addresses(row));
    }
    let Some(node) = row.nodes.first().map(|node| node.id) else {
        return;
    };
    let neighbor = Neighbor {
        site: row.id,
        tenant: row.tenant,
        pop: row.pop,
        node,
        dial,
    };
    fabric.neighbors.insert(row.name.clone(), neighbor);
}

fn addresses(row: &SiteEntry) -> Vec<std::net::SocketAddr> {
    row.nodes
        .iter()
        .flat_map(|node| node.dial.iter().copied())
        .collect()
}

pub(super) fn site_table(bundle: &Bundle) -> bgp::SiteTable {
    let grant = |row: &SiteEntry| bgp::Grant {
        tenant: row.tenant,
        slots: row
            .slots
            .iter()
            .map(|slot| (slot.slot, slot.tenant))
            .collect(),
        nodes: row.nodes.iter().map(|node| node.id).collect(),
    };
    let sites: BTreeMap<SiteId, bgp::Grant> = bundle
        .sites
        .iter()
        .map(|row| (row.id, grant(row)))
        .collect();
    bgp::SiteTable { sites }
}
