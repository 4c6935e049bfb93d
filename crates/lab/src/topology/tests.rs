use std::collections::BTreeSet;

use super::*;

#[test]
fn the_demo_planet_is_complete() {
    let topology = Topology::demo();
    let layout = Layout::new(&topology, Ipv4Addr::new(127, 80, 7, 0)).expect("it fits");
    assert_eq!(topology.tenants(), ["acme", "blue"]);
    assert_eq!(layout.controller.to_string(), "127.80.7.2:16443");
    let pairs: Vec<(String, String, u128)> = layout
        .relays
        .iter()
        .map(|pair| {
            (
                pair.name(),
                pair.listen.ip().to_string(),
                pair.rtt.as_millis(),
            )
        })
        .collect();
    let expected = [
        ("aws-par", "127.80.7.100", 5),
        ("aws-nyc", "127.80.7.101", 40),
        ("factory-par", "127.80.7.102", 40),
        ("factory-nyc", "127.80.7.103", 5),
        ("shop-par", "127.80.7.104", 5),
        ("shop-nyc", "127.80.7.105", 40),
        ("par-nyc", "127.80.7.106", 40),
        ("nyc-par", "127.80.7.107", 40),
    ]
    .map(|(name, ip, rtt)| (name.to_owned(), ip.to_owned(), rtt));
    assert_eq!(pairs, expected);
    let endpoints: Vec<String> = layout
        .endpoints
        .iter()
        .map(|e| format!("{}/{}/{} {}", e.tenant, e.site, e.name, e.address))
        .collect();
    assert_eq!(
        endpoints,
        [
            "acme/aws/cart-1 127.80.7.200:18000",
            "acme/aws/cart-2 127.80.7.201:18000",
            "acme/aws/cart-3 127.80.7.202:18000",
            "acme/factory/cart-1 127.80.7.203:18000",
            "acme/factory/cart-2 127.80.7.204:18000",
            "blue/shop/cart-1 127.80.7.205:18000",
        ]
    );
    let config = layout.relay(None);
    assert_eq!(config.pairs[0].one_way, Duration::from_micros(2_500));
    assert_eq!(config.pairs[0].target, layout.pops[0].tunnel);
}

#[test]
fn no_address_is_given_twice() {
    let layout = Layout::new(&Topology::demo(), Ipv4Addr::new(127, 80, 7, 0)).expect("it fits");
    let mut all = vec![layout.controller];
    all.extend(
        layout
            .pops
            .iter()
            .flat_map(|pop| [pop.tunnel, pop.http, pop.https]),
    );
    all.extend(layout.relays.iter().map(|pair| pair.listen));
    all.extend(layout.endpoints.iter().map(|endpoint| endpoint.address));
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
}

#[test]
fn what_does_not_fit_is_refused() {
    let network = Ipv4Addr::new(127, 80, 7, 0);
    let mut topology = Topology::demo();
    topology.apps[0].origins[0].1 = 60;
    let error = Layout::new(&topology, network).expect_err("too many");
    assert!(
        matches!(
            error,
            LayoutError::Room {
                what: "endpoints",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn without_a_line_there_is_no_address_to_dial() {
    let network = Ipv4Addr::new(127, 80, 7, 0);
    let layout = Layout::new(&Topology::world(), network).expect("it fits");
    let from = |site: &str| -> Vec<&str> {
        let pairs = layout.relays.iter().filter(|pair| pair.from == site);
        pairs.map(|pair| pair.pop.as_str()).collect()
    };
    assert_eq!(from("factory"), ["nyc", "sin"]);
    assert_eq!(from("sin"), ["par", "nyc"]);
    assert_eq!(from("par"), ["lon", "nyc", "sin"]);
}

#[test]
fn the_wide_planet_has_twenty_gateways_with_two_ways_each() {
    let topology = Topology::wide();
    let layout = Layout::new(&topology, Ipv4Addr::new(127, 80, 7, 0)).expect("it fits");
    assert_eq!((topology.pops.len(), topology.gateways.len()), (4, 20));
    assert_eq!(topology.tenants(), ["acme", "blue"]);
    for gateway in &topology.gateways {
        let ways = layout.relays.iter().filter(|r| r.from == gateway.name);
        assert_eq!(ways.count(), 2, "{}", gateway.name);
        let here = layout.endpoints.iter().filter(|e| e.site == gateway.name);
        assert_eq!(here.count(), 1, "{}", gateway.name);
    }
}

#[test]
fn a_held_subnet_is_nobody_elses_until_dropped() {
    let held = Subnet::hold().expect("one is free");
    let [a, r, _, d] = held.network().octets();
    assert!(
        a == 127 && (64..=250).contains(&r) && d == 0,
        "{}",
        held.network()
    );
    assert!(
        Subnet::try_hold(held.network())
            .expect("no other error")
            .is_none()
    );
    let others: Vec<Subnet> = (0..20)
        .map(|_| Subnet::hold().expect("one is free"))
        .collect();
    let networks: BTreeSet<Ipv4Addr> = others.iter().chain([&held]).map(Subnet::network).collect();
    assert_eq!(networks.len(), 21, "all different");
    let network = held.network();
    drop(held);
    assert!(Subnet::try_hold(network).expect("no other error").is_some());
}
