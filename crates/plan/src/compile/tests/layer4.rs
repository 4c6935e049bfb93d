//! What is not HTTP, compiled.

use base::{LbId, Rng};
use l7::{ListenerProtocol, Protocol};

use super::*;

const DB: &str = "
kind: Service
metadata: {tenant: acme, namespace: shop, name: db}
spec: {port: 5432, protocol: tcp, origins: [{sites: [aws], addresses: ['10.0.0.9']}]}";
const LB: &str = "
kind: LoadBalancer
metadata: {tenant: acme, namespace: shop, name: db}
spec:
  type: tcp
  ports: [5432]
  advertise: [{pops: [par]}, {sites: [factory], vip: 10.0.0.200}]
  routes: [{name: all, backendRefs: [{name: db}]}]";

#[test]
fn a_tcp_load_balancer_has_its_own_listeners() {
    let mut world = world();
    for text in [DB, LB] {
        let object = manifest(text);
        crate::check_put(&world, &object, crate::tests::NOW).expect("good");
        world = put(&world, object);
    }
    let ids = ids(&world);
    let unread = |compiled: &Compiled| -> Vec<String> {
        let listeners = compiled.listeners.iter();
        let lbs = listeners.filter_map(|listener| match listener.protocol {
            ListenerProtocol::Http
            | ListenerProtocol::Tls
            | ListenerProtocol::Quic
            | ListenerProtocol::Udp(_)
            | ListenerProtocol::Connect(_) => None,
            ListenerProtocol::Tcp(lb) => Some((listener.bind, lb)),
        });
        let named = |(bind, lb): (SocketAddr, LbId)| {
            let layer4 = compiled.ingress.layer4(lb).expect("it is known");
            let cluster = layer4.draw(&mut Rng::new(1)).expect("it has a weight");
            assert_eq!((cluster.protocol, cluster.port), (Protocol::Tcp, 5432));
            let (lb, route) = (&layer4.lb_name, &layer4.route);
            format!("{bind} {lb} {route} {}", cluster.service)
        };
        lbs.map(named).collect()
    };
    for (at, expect) in [
        (
            "par.fabric",
            &["127.1.0.1:5432 shop/db all db.shop.acme"][..],
        ),
        ("nyc.fabric", &[]),
        ("aws.acme", &[]),
        (
            "factory.acme",
            &["10.0.0.200:5432 shop/db all db.shop.acme"],
        ),
    ] {
        let compiled = built(&world, &ids, at, &Cells::new());
        assert_eq!(unread(&compiled), expect, "{at}");
    }
    // The egress knows that nothing is to be read of what comes out of the tunnel.
    let aws = built(&world, &ids, "aws.acme", &Cells::new());
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
        let own = plan.own.iter().map(endpoint).collect();
        let set = balance::EndpointSet::build(&plan.policy, base::Instant::ZERO, own);
        plan.cell.store(Arc::new(set));
    }
    let claim = StreamClaim {
        authority: "db.shop.acme:5432",
        endpoint: EndpointKey {
            site: aws.numbers.site,
            network: NetworkId(0),
            address: "10.0.0.9:5432".parse().expect("an address"),
        },
        lb: "shop/db",
    };
    let admitted = admit(&aws.egress, &site("par.fabric"), &claim).expect("admitted");
    assert_eq!(admitted.cluster.protocol, Protocol::Tcp);
    assert!(admit(&aws.egress, &site("nyc.fabric"), &claim).is_err());
    assert!(admit(&aws.egress, &site("factory.acme"), &claim).is_ok());
}

#[test]
fn tls_is_passed_on_beside_what_ends_here() {
    let mut world = world();
    let tls = LB.replace("type: tcp", "type: tls").replace(
        "ports: [5432]",
        "hosts: [vault.acme.example, '*.deep.acme.example']",
    );
    let told = DB.replace("protocol: tcp", "protocol: tls, proxyProtocol: v2");
    for text in [&told, &tls] {
        let object = manifest(text);
        crate::check_put(&world, &object, crate::tests::NOW).expect("good");
        world = put(&world, object);
    }
    let ids = ids(&world);
    let par = built(&world, &ids, "par.fabric", &Cells::new());
    let listeners = par.listeners.iter();
    let tls = listeners.filter(|listener| listener.protocol == ListenerProtocol::Tls);
    assert_eq!(tls.count(), 1, "shared");
    let table = &par.ingress;
    assert!(table.passes(443) && !table.passes(80));
    let passed = |name: &str| {
        let to = table.passed(443, name)?;
        let cluster = to.draw(&mut Rng::new(1)).expect("it has a weight");
        assert_eq!(cluster.proxy, Some(l7::ProxyVersion::V2));
        Some(cluster.service.to_string())
    };
    let db = Some("db.shop.acme".to_owned());
    assert_eq!(passed("vault.acme.example"), db);
    assert_eq!(passed("a.b.deep.acme.example"), db);
    assert_eq!(passed("cart.acme.example"), None);
    assert!(table.host(443, true, "cart.acme.example").is_some());
    assert!(table.host(443, true, "vault.acme.example").is_none());
    // Where nothing is passed on, nobody looks.
    let nyc = built(&world, &ids, "nyc.fabric", &Cells::new());
    assert!(!nyc.ingress.passes(443));
}

#[test]
fn datagrams_have_listeners_of_their_own() {
    let mut world = world();
    let second = LB.replace("name: db}\nspec", "name: dns}\nspec");
    let udp = second.replace("type: tcp", "type: udp");
    let udp = udp.replace("backendRefs: [{name: db}]", "backendRefs: [{name: dns}]");
    let dns = DB
        .replace("name: db", "name: dns")
        .replace("protocol: tcp", "protocol: udp");
    for text in [DB, LB, &dns, &udp] {
        let object = manifest(text);
        crate::check_put(&world, &object, crate::tests::NOW).expect("good");
        world = put(&world, object);
    }
    let ids = ids(&world);
    let par = built(&world, &ids, "par.fabric", &Cells::new());
    let on_it = par
        .listeners
        .iter()
        .filter(|listener| listener.port == 5432);
    assert_eq!(on_it.count(), 2, "of TCP and of UDP");
    let aws = built(&world, &ids, "aws.acme", &Cells::new());
    let blind = |service: &str| {
        let id = pki::service_id(
            &"shop".parse().expect("a name"),
            &service.parse().expect("a name"),
        );
        let mut targets = aws.targets.iter().filter(|(key, _)| key.service == id);
        targets.all(|(_, target)| target.blind)
    };
    assert_eq!((blind("dns"), blind("db")), (true, false));
    let policy = |service: &str| {
        let plans = aws.services.values();
        let mut plans = plans.filter(|plan| plan.name.service.as_str() == service);
        plans.next().map(|plan| plan.policy.algorithm)
    };
    assert_eq!(policy("dns"), Some(balance::Algorithm::Maglev));
    assert_eq!(policy("db"), Some(balance::Algorithm::LeastRequest));
}

#[test]
fn quic_stands_beside_tls_where_it_is_asked_for() {
    let web = |http3: &str| {
        manifest(&format!(
            "{{kind: LoadBalancer, metadata: {{tenant: acme, namespace: shop, name: web}},
              spec: {{hosts: [cart.acme.example], tls: {{certificates: [web]{http3}}},
                      advertise: [{{public: {{}}}}], routes: [{{backendRefs: [{{name: cart}}]}}]}}}}"
        ))
    };
    for (http3, expect) in [
        ("", false),
        (", http3: false", false),
        (", http3: true", true),
    ] {
        let object = web(http3);
        crate::check_put(&world(), &object, crate::tests::NOW).expect("good");
        let world = put(&world(), object);
        let par = built(&world, &ids(&world), "par.fabric", &Cells::new());
        let quic = par.listeners.iter();
        let quic = quic.filter(|listener| listener.protocol == ListenerProtocol::Quic);
        let quic: Vec<_> = quic.map(|l| (l.bind.to_string(), l.port)).collect();
        let wanted = [("127.1.0.1:8443".to_owned(), 443)];
        assert_eq!(quic == wanted, expect, "{quic:?}");
        assert_eq!(par.ingress.offers_http3("cart.acme.example"), expect);
        assert!(!par.ingress.offers_http3("cart.blue.example"));
    }
}
