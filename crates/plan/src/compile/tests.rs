//! The shared world, compiled for each of its nodes.

mod layer4;

use base::{NetworkId, Rng};
use http::Method;
use l7::{Decision, RequestHead, StreamClaim, admit, decide};

use super::*;
use crate::{
    Ids,
    tests::{bundle, ids, manifest, put, site, world},
};

fn me(at: &str) -> Me {
    Me {
        site: site(at),
        node: "n1".parse().expect("a name"),
    }
}

fn built(world: &World, ids: &Ids, at: &str, cells: &Cells) -> Compiled {
    compile(&bundle(world, ids, at, 7), &me(at), cells).expect(at)
}

fn golden(at: &str) -> Compiled {
    let world = world();
    built(&world, &ids(&world), at, &Cells::new())
}

#[test]
fn a_pop_listens_and_accepts() {
    let par = golden("par.fabric");
    let listeners: Vec<String> = par
        .listeners
        .iter()
        .map(|l| format!("{} {} {:?}", l.bind, l.port, l.protocol))
        .collect();
    assert_eq!(
        listeners,
        ["127.1.0.1:8080 80 Http", "127.1.0.1:8443 443 Tls"]
    );
    let nyc = golden("nyc.fabric");
    let listeners: Vec<String> = nyc
        .listeners
        .iter()
        .map(|l| format!("{} {} {:?}", l.bind, l.port, l.protocol))
        .collect();
    assert_eq!(listeners, ["127.2.0.1:80 80 Http", "127.2.0.1:443 443 Tls"]);
    assert_eq!(par.revision, Revision(7));
    assert_eq!(par.certificates.len(), 1);
    assert_eq!(par.certificates[0].hosts, ["cart.acme.example"]);
    assert_eq!(par.targets, BTreeMap::new());
    assert_eq!(par.services.len(), 2);
    assert_eq!(nyc.services.len(), 1);
    assert_eq!(
        par.fabric.bind,
        ["127.1.0.1:7000".parse().expect("an address")]
    );
    assert!(par.numbers.pop && par.numbers.tenant == TenantId(0));
    // One tunnel a pair of PoPs: the one with the greater id dials.
    let dials =
        |c: &Compiled| -> Vec<String> { c.fabric.dial.keys().map(ToString::to_string).collect() };
    assert_eq!(
        (dials(&par), dials(&nyc)),
        (vec!["nyc.fabric".to_owned()], vec![])
    );
    assert_eq!(par.fabric.peers.len(), 4);
    let aws = par.fabric.neighbors[&site("aws.acme")];
    assert_eq!((aws.pop, aws.dial, aws.tenant.0 > 0), (false, false, true));
    assert_eq!(par.site_table.sites.len(), 5);
    assert_eq!(
        par.site_names[&par.site_ids[&site("aws.acme")]],
        site("aws.acme")
    );
}

#[test]
fn a_gateway_dials_and_probes() {
    let aws = golden("aws.acme");
    let dial: Vec<String> = aws
        .fabric
        .dial
        .iter()
        .map(|(s, a)| format!("{s} {}", a[0]))
        .collect();
    assert_eq!(
        dial,
        ["nyc.fabric 127.2.0.9:7000", "par.fabric 127.1.0.2:7000"]
    );
    assert!(aws.fabric.neighbors.values().all(|n| n.pop && n.dial));
    assert!(aws.fabric.bind.is_empty() && aws.listeners.is_empty() && aws.certificates.is_empty());
    let factory = golden("factory.acme").fabric;
    assert_eq!((factory.attach, factory.dial.len()), (Some(1), 1));
    let targets: Vec<String> = aws
        .targets
        .iter()
        .map(|(key, t)| {
            format!(
                "{} {} {:?} {}",
                key.address,
                t.weight,
                t.http.is_some(),
                t.slot
            )
        })
        .collect();
    let mut want = [
        "10.0.0.1:8080 50 true 0",
        "10.0.0.2:9090 50 true 0",
        "10.0.0.7:81 100 false 0",
    ];
    want.sort_unstable();
    let mut have = targets.clone();
    have.sort();
    assert_eq!(have, want);
    let cart = aws
        .targets
        .values()
        .find(|t| t.http.is_some())
        .expect("cart");
    assert_eq!(
        (cart.interval, cart.timeout),
        (Duration::from_millis(300), Duration::from_millis(300))
    );
    assert_eq!((cart.rise, cart.fall), (3, 2));
}

#[test]
fn a_new_pop_takes_nobodys_tunnels() {
    let world = world();
    let mut bundle = bundle(&world, &ids(&world), "factory.acme", 7);
    let compiled = |bundle: &Bundle| compile(bundle, &me("factory.acme"), &Cells::new());
    let before = compiled(&bundle).expect("it compiles").fabric.pops;
    let sites = |pops: Vec<crate::Candidate>| -> Vec<SiteName> {
        pops.into_iter().map(|pop| pop.site).collect()
    };
    assert_eq!(sites(before), [site("nyc.fabric")]);
    let mut row = bundle.sites.iter().find(|row| row.pop).cloned();
    if let Some(row) = &mut row {
        // The first by name, the youngest by id.
        row.name = site("aaa.fabric");
        row.id = base::SiteId(u32::MAX);
    }
    bundle.sites.splice(0..0, row);
    let after = compiled(&bundle).expect("it compiles").fabric.pops;
    assert_eq!(sites(after), [site("nyc.fabric"), site("aaa.fabric")]);
}

#[test]
fn hosts_lead_to_their_own_tenant() {
    let par = golden("par.fabric");
    let fields = l7::Fields::default();
    let ask = |port: u16, tls: bool, host: &str| {
        let sni = tls.then_some(host);
        let head = RequestHead {
            trust: None,
            port,
            tls,
            sni,
            method: &Method::GET,
            authority: "",
            query: None,
            host,
            path: "/x",
            fields: &fields,
        };
        match decide(&par.ingress, &head, &mut Rng::new(1)) {
            Decision::Forward(forward) => forward.cluster.service.to_string(),
            Decision::Respond(answer) => answer.status.to_string(),
        }
    };
    assert_eq!(ask(80, false, "cart.acme.example"), "cart.shop.acme");
    assert_eq!(ask(443, true, "cart.acme.example"), "cart.shop.acme");
    assert_eq!(ask(80, false, "cart.blue.example"), "cart.shop.blue");
    assert_eq!(ask(443, true, "cart.blue.example"), "404 Not Found");
    assert_eq!(ask(80, false, "other.example"), "404 Not Found");
}

#[test]
fn what_leaves_a_tunnel() {
    let world = world();
    let ids = ids(&world);
    let aws = built(&world, &ids, "aws.acme", &Cells::new());
    // The cells are filled by the brain; here by hand.
    for plan in aws.services.values() {
        let endpoint = |(key, weight): (&EndpointKey, &u8)| balance::Endpoint {
            key: *key,
            site: site("aws.acme"),
            health: balance::Health::Unknown,
            weight: u16::from(*weight),
            distance: None,
            reachable: true,
            ejected: false,
            share: balance::WHOLE,
            since: None,
            stats: Arc::default(),
        };
        let now = base::Instant::from_nanos(0);
        let endpoints = plan.own.iter().map(endpoint).collect();
        let set = balance::EndpointSet::build(&plan.policy, now, endpoints);
        plan.cell.store(Arc::new(set));
    }
    let here = aws.numbers.site;
    let there = aws.site_ids[&site("factory.acme")];
    let may = |peer: &str, authority: &str, lb: &str, at: SiteId, address: &str| {
        let address = address.parse().expect("an address");
        let endpoint = EndpointKey {
            site: at,
            network: NetworkId(0),
            address,
        };
        match admit(
            &aws.egress,
            &site(peer),
            &StreamClaim {
                authority,
                endpoint,
                lb,
            },
        ) {
            Ok(admitted) => admitted.endpoint.address.to_string(),
            Err(refusal) => refusal.code().to_owned(),
        }
    };
    let (cart, lb, one) = ("cart.shop.acme:8080", "shop/web", "10.0.0.1:8080");
    for (peer, authority, lb, at, address, want) in [
        ("par.fabric", cart, lb, here, one, one),
        (
            "nyc.fabric",
            cart,
            lb,
            here,
            "10.0.0.2:9090",
            "10.0.0.2:9090",
        ),
        ("par.fabric", cart, lb, here, "10.0.0.3:8080", "no-endpoint"),
        ("par.fabric", cart, lb, here, "127.0.0.1:22", "no-endpoint"),
        ("par.fabric", cart, lb, there, one, "no-endpoint"),
        (
            "par.fabric",
            "cart.shop.acme:22",
            lb,
            here,
            one,
            "no-service",
        ),
        ("par.fabric", cart, "shop/other", here, one, "no-service"),
        (
            "par.fabric",
            "hidden.shop.acme:81",
            lb,
            here,
            "10.0.0.7:81",
            "no-service",
        ),
        (
            "par.fabric",
            "cart.shop.blue:8080",
            lb,
            here,
            one,
            "no-service",
        ),
        ("factory.acme", cart, lb, here, one, "not-offered"),
        ("shop.blue", cart, lb, here, one, "other-tenant"),
        (
            "par.fabric",
            "cart.shop.acme",
            lb,
            here,
            one,
            "bad-authority",
        ),
    ] {
        assert_eq!(
            may(peer, authority, lb, at, address),
            want,
            "{peer} {authority} {address}"
        );
    }
}

#[test]
fn an_offer_at_some_pops_is_for_those() {
    let world = world();
    let ids = ids(&world);
    let shop = built(&world, &ids, "shop.blue", &Cells::new());
    let endpoint = EndpointKey {
        site: shop.numbers.site,
        network: NetworkId(0),
        address: "10.0.0.1:8080".parse().expect("an address"),
    };
    let claim = StreamClaim {
        authority: "cart.shop.blue:8080",
        endpoint,
        lb: "shop/web",
    };
    let refused = admit(&shop.egress, &site("nyc.fabric"), &claim).expect_err("par alone");
    assert_eq!(refused, l7::Refusal::NotOffered);
    // From par it would be looked for; the cell is still empty.
    let refused = admit(&shop.egress, &site("par.fabric"), &claim).expect_err("no set yet");
    assert_eq!(refused, l7::Refusal::NoEndpoint);
}

#[test]
fn a_vip_is_listened_on_and_its_routers_are_told() {
    let mut world = world();
    for text in [
        "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: inside},
          spec: {hosts: [in.acme.example], ports: [80, 8081],
                 advertise: [{pops: [par]}, {sites: [factory], vip: 192.0.2.10}],
                 routes: [{backendRefs: [{name: cart}, {name: hidden}]}]}}",
        "{kind: BGPPeer, metadata: {tenant: acme, name: tor},
          spec: {site: factory, peerAddress: 192.0.2.1, peerASN: 65001, localASN: 65010,
                 auth: {password: secret}, bfd: {multiplier: 5},
                 export: [{name: far, set: {prepend: 2}, then: accept}]}}",
    ] {
        world = put(&world, manifest(text));
    }
    let mut ids = ids(&world);
    ids.allocate(&world);
    let factory = built(&world, &ids, "factory.acme", &Cells::new());
    let listeners: Vec<String> = factory
        .listeners
        .iter()
        .map(|l| l.bind.to_string())
        .collect();
    assert_eq!(listeners, ["192.0.2.10:80", "192.0.2.10:8081"]);
    assert_eq!(factory.vips.len(), 1);
    let (vip, services) = factory.vips.first_key_value().expect("a VIP");
    assert_eq!(vip.to_string(), "192.0.2.10");
    assert_eq!(services.len(), 2);
    let router = &factory.routers[&"tor".parse().expect("a name")];
    assert_eq!(router.address.to_string(), "192.0.2.1:179");
    assert_eq!(*router.import, bgp::table::Filter::Reject, "RFC 8212");
    assert!(matches!(*router.export, bgp::table::Filter::Policy(_)));
    assert_eq!(router.bfd.expect("BFD").multiplier.get(), 5);
    assert!(!format!("{router:?}").contains("secret"));
    let par = built(&world, &ids, "par.fabric", &Cells::new());
    assert!(par.vips.is_empty() && par.routers.is_empty());
    assert!(par.listeners.iter().all(|l| l.bind.ip() != *vip));
    // Where the endpoints are, requests of that gateway may come out of a tunnel.
    let aws = built(&world, &ids, "aws.acme", &Cells::new());
    assert!(aws.vips.is_empty() && aws.listeners.is_empty());
}

#[test]
fn cells_are_carried_over() {
    let world = world();
    let mut ids = ids(&world);
    let before = built(&world, &ids, "par.fabric", &Cells::new());
    let changed = put(
        &world,
        manifest(
            "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: more},
              spec: {hosts: [x.acme.example], advertise: [{public: {}}],
                     routes: [{backendRefs: [{name: hidden}, {name: cart}]}]}}",
        ),
    );
    ids.allocate(&changed);
    let after = built(&changed, &ids, "par.fabric", &before.cells());
    assert_eq!((before.services.len(), after.services.len()), (2, 3));
    for (key, plan) in &before.services {
        assert!(
            Arc::ptr_eq(&plan.cell, &after.services[key].cell),
            "{}",
            plan.name
        );
    }
    // The workers' way to the cell is the same one.
    let fields = l7::Fields::default();
    let host = "cart.acme.example";
    let head = RequestHead {
        port: 80,
        tls: false,
        sni: None,
        trust: None,
        method: &Method::GET,
        authority: "",
        query: None,
        host,
        path: "/",
        fields: &fields,
    };
    let Decision::Forward(forward) = decide(&after.ingress, &head, &mut Rng::new(1)) else {
        panic!("a route");
    };
    let plan = &before.services[&(forward.cluster.tenant, forward.cluster.id)];
    assert!(Arc::ptr_eq(&forward.cluster.cell, &plan.cell));
    // A service that goes and comes back gets a new cell: nobody filled the old one meanwhile.
    let fresh = built(&world, &ids, "par.fabric", &Cells::new());
    let key = before.services.keys().next().expect("a service");
    assert!(!Arc::ptr_eq(
        &before.services[key].cell,
        &fresh.services[key].cell
    ));
}

#[test]
fn a_bundle_compiles_whole_or_not_at_all() {
    let world = world();
    let ids = ids(&world);
    let good = |at: &str| bundle(&world, &ids, at, 7);
    let refused = |at: &str, bundle: &Bundle| {
        compile(bundle, &me(at), &Cells::new())
            .expect_err("refused")
            .to_string()
    };
    // For another node, another site, and no site at all.
    let not_me = |node: &str, at: &str| format!("the site table has no node {node} in site {at}");
    assert_eq!(
        refused("shop.blue", &good("aws.acme")),
        not_me("n1", "shop.blue")
    );
    assert_eq!(
        refused("factory.acme", &good("aws.acme")),
        not_me("n1", "factory.acme")
    );
    assert_eq!(
        refused("aws.acme", &Bundle::default()),
        not_me("n1", "aws.acme")
    );
    let stranger = Me {
        site: site("aws.acme"),
        node: "n9".parse().expect("a name"),
    };
    let error = compile(&good("aws.acme"), &stranger, &Cells::new()).expect_err("refused");
    assert_eq!(error.to_string(), not_me("n9", "aws.acme"));
    // Something it needs is missing.
    for (missing, says) in [
        ("tenants/acme", "its tenant has no id"),
        (
            "tenants/acme/namespaces/shop/certificates/web",
            "is not in this bundle",
        ),
        (
            "tenants/blue/namespaces/shop/services/cart",
            "which is not in this bundle",
        ),
    ] {
        let mut bundle = good("par.fabric");
        assert!(
            bundle
                .resources
                .remove(&crate::tests::key(missing))
                .is_some()
        );
        let said = refused("par.fabric", &bundle);
        assert!(said.contains(says), "{missing}: {said}");
    }
    let mut slotless = good("aws.acme");
    for row in &mut slotless.sites {
        row.slots.clear();
    }
    assert!(refused("aws.acme", &slotless).contains("no slot"));
    let mut broken = good("par.fabric");
    for object in broken.resources.values_mut() {
        if let api::Spec::Certificate(spec) = &mut Arc::make_mut(object).spec {
            spec.private_key = Some("no key".to_owned());
        }
    }
    assert!(refused("par.fabric", &broken).contains("certificates/web"));
}
