//! The manifests of the planet: `examples/01-cart/`, `18-world/` or `19-wide/`, with this run's
//! addresses.
//!
//! The files are written for 127.80.1.0/24; a run replaces these addresses and nothing else.

use std::net::Ipv4Addr;

use crate::args::Shape;

/// The network the files are written for.
const EXAMPLE: &str = "127.80.1.";

/// Name and text of each file.
pub(crate) type Files = &'static [(&'static str, &'static str)];

/// Those of a topology.
pub(crate) const fn files(of: Shape) -> Files {
    match of {
        Shape::Small => SMALL,
        Shape::World => WORLD,
        Shape::Wide => WIDE,
    }
}

const SMALL: Files = &[
    (
        "10-tenants.yaml",
        include_str!("../../../../examples/01-cart/10-tenants.yaml"),
    ),
    (
        "20-sites.yaml",
        include_str!("../../../../examples/01-cart/20-sites.yaml"),
    ),
    (
        "30-tokens.yaml",
        include_str!("../../../../examples/01-cart/30-tokens.yaml"),
    ),
    (
        "40-cart-acme.yaml",
        include_str!("../../../../examples/01-cart/40-cart-acme.yaml"),
    ),
    (
        "50-cart-blue.yaml",
        include_str!("../../../../examples/01-cart/50-cart-blue.yaml"),
    ),
];

const WORLD: Files = &[
    (
        "10-tenants.yaml",
        include_str!("../../../../examples/18-world/10-tenants.yaml"),
    ),
    (
        "20-sites.yaml",
        include_str!("../../../../examples/18-world/20-sites.yaml"),
    ),
    (
        "25-links.yaml",
        include_str!("../../../../examples/18-world/25-links.yaml"),
    ),
    (
        "30-tokens.yaml",
        include_str!("../../../../examples/18-world/30-tokens.yaml"),
    ),
    (
        "40-acme.yaml",
        include_str!("../../../../examples/18-world/40-acme.yaml"),
    ),
    (
        "50-blue.yaml",
        include_str!("../../../../examples/18-world/50-blue.yaml"),
    ),
];

const WIDE: Files = &[
    (
        "10-tenants.yaml",
        include_str!("../../../../examples/19-wide/10-tenants.yaml"),
    ),
    (
        "20-sites.yaml",
        include_str!("../../../../examples/19-wide/20-sites.yaml"),
    ),
    (
        "30-tokens.yaml",
        include_str!("../../../../examples/19-wide/30-tokens.yaml"),
    ),
    (
        "40-acme.yaml",
        include_str!("../../../../examples/19-wide/40-acme.yaml"),
    ),
    (
        "50-blue.yaml",
        include_str!("../../../../examples/19-wide/50-blue.yaml"),
    ),
];

/// What ends a line that is of use only in network namespaces.
const NAMESPACES: &str = "# in namespaces";

/// A file as it is where there are no network namespaces.
pub(crate) fn on_loopback(text: &str) -> String {
    let lines = text.split_inclusive('\n');
    lines
        .filter(|line| !line.trim_end().ends_with(NAMESPACES))
        .collect()
}

/// One file with its addresses where `place` says, by their last octets.
pub(crate) fn text(text: &str, place: &impl Fn(u8) -> Ipv4Addr) -> String {
    let mut parts = text.split(EXAMPLE);
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.find(|c: char| !c.is_ascii_digit());
        let (host, rest) = part.split_at(digits.unwrap_or(part.len()));
        match host.parse() {
            Ok(host) => all += &place(host).to_string(),
            Err(_) => all += &format!("{EXAMPLE}{host}"),
        }
        all += rest;
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use api::{Role, Spec};
    use lab::topology::{Layout, Topology};

    use super::*;
    use crate::{error::Failure, files::Document};

    #[test]
    fn the_small_example_is_the_small_topology() {
        the_example_is_the_topology(Shape::Small, &Topology::demo());
    }

    #[test]
    fn the_world_example_is_the_world_topology() {
        the_example_is_the_topology(Shape::World, &Topology::world());
    }

    #[test]
    fn the_wide_example_is_the_wide_topology() {
        the_example_is_the_topology(Shape::Wide, &Topology::wide());
    }

    /// All documents, in the order in which they are applied.
    fn documents(of: Shape, place: &impl Fn(u8) -> Ipv4Addr) -> Result<Vec<Document>, Failure> {
        let mut documents = Vec::new();
        for (name, example) in files(of) {
            documents.extend(crate::files::parse(
                name,
                &text(&on_loopback(example), place),
            )?);
        }
        crate::files::sort(&mut documents);
        Ok(documents)
    }

    /// The files and the topology are two views of one planet.
    fn the_example_is_the_topology(of: Shape, topology: &Topology) {
        let network = Ipv4Addr::new(127, 99, 7, 0);
        let layout = Layout::new(topology, network).expect("a layout");
        let mut dialled = BTreeSet::new();
        let mut sites = Vec::new();
        let mut endpoints = Vec::new();
        let mut hosts = Vec::new();
        let place = |host| Ipv4Addr::new(127, 99, 7, host);
        for document in documents(of, &place).expect("they parse") {
            let name = document.object.metadata.name.to_string();
            let tenant = document
                .object
                .metadata
                .tenant
                .as_ref()
                .map(ToString::to_string);
            match document.object.spec {
                Spec::Site(site) => {
                    sites.push((name.clone(), tenant));
                    let node = &site.nodes[0];
                    if site.role == Role::Gateway {
                        assert!(node.tunnel.is_none() && node.public.is_none());
                        continue;
                    }
                    let pop = layout
                        .pops
                        .iter()
                        .find(|pop| pop.name == name)
                        .expect("a PoP");
                    let tunnel = node.tunnel.as_ref().expect("a tunnel");
                    let public = node.public.as_ref().expect("public");
                    assert_eq!(
                        (tunnel.bind[0], public.bind[0]),
                        (pop.tunnel, pop.http.ip())
                    );
                    assert_eq!(public.port_map[&80], pop.http.port());
                    assert_eq!(public.port_map[&443], pop.https.port());
                    for way in &tunnel.advertise {
                        // Whoever comes later, without a relay.
                        if way.from == "any" {
                            assert_eq!(way.address, pop.tunnel);
                            continue;
                        }
                        dialled.insert((way.from.clone(), name.clone(), way.address));
                    }
                }
                Spec::Service(service) => {
                    for origin in service.origins {
                        let site = origin.sites[0].to_string();
                        let tenant = tenant.clone().expect("a tenant");
                        endpoints.extend(
                            origin
                                .addresses
                                .into_iter()
                                .map(|address| (tenant.clone(), site.clone(), address)),
                        );
                    }
                }
                Spec::LoadBalancer(lb) => hosts.extend(lb.hosts.iter().map(ToString::to_string)),
                Spec::Tenant(_) | Spec::Namespace(_) | Spec::Token(_) | Spec::Link(_) => {}
                Spec::Certificate(_) | Spec::BgpPeer(_) | Spec::ServicePolicy(_) => {}
            }
        }
        let from = |site: &str| match topology.gateways.iter().find(|g| g.name == site) {
            Some(gateway) => format!("{site}.{}", gateway.tenant),
            None => site.to_owned(),
        };
        let relays = layout
            .relays
            .iter()
            .map(|r| (from(&r.from), r.pop.clone(), r.listen));
        assert_eq!(dialled, relays.collect());
        let all = topology.pops.iter().map(|pop| (pop.clone(), None));
        let all = all.chain(
            topology
                .gateways
                .iter()
                .map(|g| (g.name.clone(), Some(g.tenant.clone()))),
        );
        assert_eq!(sites, all.collect::<Vec<_>>());
        let expected = layout
            .endpoints
            .iter()
            .map(|e| (e.tenant.clone(), e.site.clone(), e.address.to_string()));
        assert_eq!(endpoints, expected.collect::<Vec<_>>());
        assert_eq!(
            hosts,
            topology
                .apps
                .iter()
                .map(|app| app.host.clone())
                .collect::<Vec<_>>()
        );
    }
}
