//! What may leave a tunnel, by data.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use balance::{BalancePolicy, Endpoint, EndpointKey, EndpointSet, Health, empty_cell};
use base::{NetworkId, ServiceId, SiteId, TenantId};

use super::{Egress, EgressService, Offer, Refusal, StreamClaim, admit, pass};
use crate::Cluster;

fn key(site: u32, port: u16) -> EndpointKey {
    EndpointKey {
        site: SiteId(site),
        network: NetworkId(0),
        address: ([10, 0, 0, 1], port).into(),
    }
}

fn egress() -> Egress {
    let cell = empty_cell();
    let endpoint = |site, port, health| Endpoint {
        key: key(site, port),
        site: "aws.acme".parse().expect("a site"),
        health,
        weight: 1,
        distance: Some(Duration::ZERO),
        reachable: true,
        ejected: false,
        share: balance::WHOLE,
        since: None,
        stats: Arc::default(),
    };
    let endpoints = vec![
        endpoint(5, 8080, Health::Healthy),
        endpoint(5, 8081, Health::Unhealthy),
        endpoint(6, 8080, Health::Healthy),
    ];
    cell.store(Arc::new(EndpointSet::build(
        &BalancePolicy::default(),
        base::Instant::from_nanos(0),
        endpoints,
    )));
    let offers = BTreeMap::from([
        (
            "shop/public".to_owned(),
            Arc::new(Offer {
                all_pops: true,
                ..Offer::default()
            }),
        ),
        (
            "shop/inner".to_owned(),
            Arc::new(Offer {
                sites: ["factory.acme".parse().expect("a site")].into(),
                ..Offer::default()
            }),
        ),
    ]);
    let cluster = Arc::new(Cluster {
        service: "cart.shop.acme".parse().expect("a service"),
        tenant: TenantId(1),
        id: ServiceId(2),
        port: 80,
        protocol: crate::Protocol::Http1,
        proxy: None,
        hash_on: Vec::new(),
        outlier: None,
        circuit: <_>::default(),
        retries: <_>::default(),
        guard: <_>::default(),
        cell,
    });
    Egress::build(SiteId(5), vec![EgressService { cluster, offers }])
}

#[test]
fn only_what_is_published_leaves() {
    let egress = egress();
    let cart = "cart.shop.acme:80";
    for (peer, authority, endpoint, lb, expect) in [
        ("par.fabric", cart, key(5, 8080), "shop/public", None),
        // Health is the ingress's business; a set member may be tried.
        ("par.fabric", cart, key(5, 8081), "shop/public", None),
        ("factory.acme", cart, key(5, 8080), "shop/inner", None),
        (
            "factory.acme",
            cart,
            key(5, 8080),
            "shop/public",
            Some(Refusal::NotOffered),
        ),
        (
            "par.fabric",
            cart,
            key(5, 8080),
            "shop/inner",
            Some(Refusal::NotOffered),
        ),
        (
            "aws.acme",
            cart,
            key(5, 8080),
            "shop/inner",
            Some(Refusal::NotOffered),
        ),
        (
            "shop.blue",
            cart,
            key(5, 8080),
            "shop/public",
            Some(Refusal::OtherTenant),
        ),
        (
            "shop.blue",
            "no.such.acme:80",
            key(5, 8080),
            "x",
            Some(Refusal::OtherTenant),
        ),
        (
            "par.fabric",
            "no.such.acme:80",
            key(5, 8080),
            "shop/public",
            Some(Refusal::NoService),
        ),
        (
            "par.fabric",
            "cart.shop.blue:80",
            key(5, 8080),
            "shop/public",
            Some(Refusal::NoService),
        ),
        (
            "par.fabric",
            "cart.shop.acme:81",
            key(5, 8080),
            "shop/public",
            Some(Refusal::NoService),
        ),
        (
            "par.fabric",
            cart,
            key(5, 8080),
            "shop/none",
            Some(Refusal::NoService),
        ),
        (
            "par.fabric",
            cart,
            key(5, 22),
            "shop/public",
            Some(Refusal::NoEndpoint),
        ),
        (
            "par.fabric",
            cart,
            key(6, 8080),
            "shop/public",
            Some(Refusal::NoEndpoint),
        ),
        (
            "par.fabric",
            "cart.shop.acme",
            key(5, 8080),
            "shop/public",
            Some(Refusal::BadAuthority),
        ),
        (
            "par.fabric",
            "10.0.0.1:80",
            key(5, 8080),
            "shop/public",
            Some(Refusal::BadAuthority),
        ),
        (
            "par.fabric",
            "a.b.c:99999",
            key(5, 8080),
            "shop/public",
            Some(Refusal::BadAuthority),
        ),
    ] {
        let claim = StreamClaim {
            authority,
            endpoint,
            lb,
        };
        let peer = peer.parse().expect("a site");
        let refused = admit(&egress, &peer, &claim).err();
        assert_eq!(refused, expect, "{peer} {claim:?}");
    }
}

#[test]
fn nothing_of_a_tenant_is_passed_on_to_another() {
    let other = Some(Refusal::OtherTenant);
    for (ingress, tenant, via, expect) in [
        ("par.fabric", "acme", "aws.acme", None),
        ("par.fabric", "acme", "nyc.fabric aws.acme", None),
        ("par.fabric", "acme", "nyc.fabric", None),
        ("factory.acme", "acme", "nyc.fabric aws.acme", None),
        ("shop.blue", "acme", "nyc.fabric aws.acme", other),
        ("par.fabric", "acme", "shop.blue", other),
        ("factory.acme", "acme", "shop.blue", other),
        // Its own name for it does not help.
        ("shop.blue", "blue", "aws.acme", other),
        ("par.fabric", "acme", "", Some(Refusal::NoTransit)),
        // Nothing goes where it has been.
        (
            "par.fabric",
            "acme",
            "nyc.fabric lon.fabric nyc.fabric",
            Some(Refusal::NoTransit),
        ),
        (
            "factory.acme",
            "acme",
            "nyc.fabric factory.acme",
            Some(Refusal::NoTransit),
        ),
        (
            "par.fabric",
            "acme",
            "aws.acme factory.acme",
            Some(Refusal::NoTransit),
        ),
    ] {
        let ingress = ingress.parse().expect("a site");
        let sites = via.split_whitespace().map(|site| site.parse());
        let sites: Result<Vec<_>, _> = sites.collect();
        let owner = tenant.parse().expect("a tenant");
        let refused = pass(&ingress, &owner, &sites.expect("sites")).err();
        assert_eq!(refused, expect, "{ingress} {tenant} {via}");
    }
}
