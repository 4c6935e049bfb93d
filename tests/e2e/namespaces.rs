//! A planet in network namespaces: real packets, real loss, real NAT, and no privileges.

use std::time::Duration;

use kit::{Client, Load, Planet, Target, Turn, figure, http::Method, process::Signal, wait_until};
use serde_json::{Value, json};

use crate::{
    ACME, BLUE,
    faults::none_failed,
    load, options, pass,
    support::{acme, at, put},
};

/// A download of 3 s.
const DOWNLOAD: &str = "/download?bytes=6000000&rate=2000000";
/// Before something happens, so that it happens to traffic.
const BEFORE: Duration = Duration::from_millis(500);
/// After it, so that what comes of it is seen.
const AFTER: Duration = Duration::from_secs(3);

fn lab(planet: &Planet, words: &[&str]) {
    let all: Vec<&str> = ["lab"].iter().chain(words).copied().collect();
    let _ = planet.sealane(&all).good();
}

#[test]
fn lines_that_are_cut_or_lossy_and_routers_that_forget_fail_nobody() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let net = &planet.report.net;
    assert_eq!(net.mode, "ns");
    for place in ["wan", "par", "aws", "aws-nat", "shop", "shop-nat"] {
        assert!(net.namespaces.contains_key(place), "{net:?}");
    }
    let figures = planet.report.startup_ms;
    figure(format_args!("namespaces: ready after {figures} ms"));
    for words in [
        &["degrade", "aws-par", "--loss", "5", "--jitter", "3ms"][..],
        &["flush-nat", "aws"],
        &["cut", "aws-par"],
        &["heal", "aws-par"],
    ] {
        let load = load(&planet);
        pass(BEFORE);
        lab(&planet, words);
        pass(AFTER);
        let records = load.stop();
        let longest = records.iter().map(kit::Record::took).max();
        let what = format!("namespaces: {}", words.join(" "));
        none_failed(&what, &records);
        figure(format_args!(
            "{what}: 0 of {} failed, the slowest took {:?}",
            records.len(),
            longest.unwrap_or_default()
        ));
    }
    let lines = planet.sealane(&["lab", "list"]).good().stdout;
    let line = lines.lines().find(|line| line.starts_with("aws-par "));
    let line = line.unwrap_or_else(|| panic!("{lines}"));
    assert!(
        line.contains(" open ") && line.contains(" 0.00% "),
        "{line}"
    );
    let lost = line.split_whitespace().next_back().map(str::parse::<u64>);
    assert!(matches!(lost, Some(Ok(1..))), "{line}");
}

#[test]
fn tenants_with_the_same_addresses_are_each_at_home() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--net").arg("ns"));
    let mut client = Client::new();
    for (host, site, tenant) in [(ACME, "aws", "acme"), (BLUE, "shop", "blue")] {
        let at = planet.pop("par").http;
        wait_until("the nearest answers", AFTER, || {
            let reply = client.get(at, host, "/");
            let story = reply.and_then(|reply| reply.story())?;
            // The first endpoints of both tenants have this very address.
            let first = story.address.to_string() == "10.0.0.11:18000";
            if story.site == site && story.tenant == tenant && first {
                Ok(())
            } else {
                Err(format!("{story:?}"))
            }
        });
    }
    let refused = planet.sealane(&["lab", "flush-nat", "par"]);
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("no router before \"par\""),
        "{refused:?}"
    );
    let refused = planet.sealane(&["lab", "cut", "aws-moon"]);
    assert!(
        refused.stderr.contains("there are aws-nyc, aws-par"),
        "{refused:?}"
    );
}

/// The sites over which a stream from one site to another goes now, itself the last.
fn way(planet: &Planet, from: &str, to: &str) -> Result<Vec<String>, String> {
    let paths = planet.admin(from, Method::GET, "/paths");
    let mut paths = paths.as_array().into_iter().flatten();
    let path = paths.find(|path| path["site"].as_str() == Some(to));
    let hops = path.and_then(|path| path["hops"].as_array());
    let name = |hop: &Value| hop["site"].as_str().map(|site| site.replace(".fabric", ""));
    let hops = hops.ok_or_else(|| format!("no way from {from} to {to}"))?;
    Ok(hops.iter().filter_map(name).collect())
}

/// How long until that is the way from `par` to acme's factory.
fn takes(planet: &Planet, wanted: &[&str], bound: Duration) -> Duration {
    let began = kit::runtime::now();
    wait_until(
        &format!("par reaches factory over {wanted:?}"),
        bound,
        || match way(planet, "par", "factory.acme")? {
            way if way == wanted => Ok(()),
            way => Err(format!("{way:?}")),
        },
    );
    kit::runtime::now().since(began)
}

#[test]
fn a_cut_between_pops_is_gone_round_and_come_back_from() {
    let turn = Turn::alone();
    let world = options()
        .arg("--net")
        .arg("ns")
        .arg("--topology")
        .arg("world");
    let planet = Planet::start(&turn, world);
    figure(format_args!(
        "world: ready after {} ms",
        planet.report.startup_ms
    ));
    let direct = ["nyc", "factory.acme"];
    takes(&planet, &direct, AFTER);
    // Behind two routers, the one before the Internet forgetting everything.
    assert!(planet.report.net.namespaces.contains_key("market-nat-2"));
    for _ in 0..2 {
        let reply = Client::new().get(planet.pop("sin").http, BLUE, "/");
        let story = reply.and_then(|reply| reply.story());
        assert_eq!(story.expect("an answer").site, "market");
        lab(&planet, &["flush-nat", "market"]);
    }
    let plant = Target {
        address: planet.pop("par").http,
        from: None,
        host: "plant.acme.example".to_owned(),
        path: "/".to_owned(),
    };
    let (http, host) = (plant.address, plant.host.clone());
    let download = std::thread::spawn(move || Client::new().get(http, &host, DOWNLOAD));
    let load = Load::start(vec![plant], 500);
    pass(BEFORE);
    lab(&planet, &["cut", "par-nyc"]);
    let cut = takes(&planet, &["lon", "nyc", "factory.acme"], AFTER);
    pass(AFTER);
    lab(&planet, &["heal", "par-nyc"]);
    let healed = takes(&planet, &direct, Duration::from_secs(20));
    pass(AFTER);
    let now = way(&planet, "par", "factory.acme");
    assert_eq!(now.as_deref(), Ok(&direct.map(str::to_owned)[..]));
    let records = load.stop();
    none_failed("world: par-nyc cut and healed", &records);
    let download = download.join().expect("no panic").expect("not cut");
    assert_eq!((download.status, download.body.len()), (200, 6_000_000));
    let longest = records.iter().map(kit::Record::took).max();
    figure(format_args!(
        "world: par-nyc cut: over lon after {cut:?}, healed: back after {healed:?}; 0 of {} failed, \
         the slowest took {:?}; a download went on",
        records.len(),
        longest.unwrap_or_default()
    ));
}

/// The PoPs to which a gateway has a link.
fn attached(planet: &Planet, gateway: &str) -> Vec<String> {
    let status = planet.admin(gateway, Method::GET, "/status");
    let links = status["links"].as_array().into_iter().flatten();
    let peers = links.filter_map(|link| link["peer"].as_str());
    let mut peers: Vec<String> = peers.map(str::to_owned).collect();
    peers.sort();
    peers
}

#[test]
fn another_pop_stands_in_for_one_that_dies() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    // The nearest two of the three to which it has a line, not the first.
    wait_until("shop is attached", AFTER, || {
        match attached(&planet, "shop") {
            pops if pops == ["lon.fabric", "par.fabric"] => Ok(()),
            pops => Err(format!("{pops:?}")),
        }
    });
    let blue = Target {
        address: planet.pop("nyc").http,
        from: None,
        host: BLUE.to_owned(),
        path: "/".to_owned(),
    };
    let load = Load::start(vec![blue], 100);
    pass(BEFORE);
    let began = kit::runtime::now();
    planet.signal("lon", Signal::KILL);
    wait_until(
        "nyc stands in",
        Duration::from_secs(10),
        || match attached(&planet, "shop") {
            pops if pops == ["nyc.fabric", "par.fabric"] => Ok(()),
            pops => Err(format!("{pops:?}")),
        },
    );
    let took = kit::runtime::now().since(began);
    pass(BEFORE);
    let records = load.stop();
    none_failed("world: lon killed", &records);
    figure(format_args!(
        "world: lon killed: shop is attached to nyc in its place after {took:?}; 0 of {} failed",
        records.len()
    ));
}

#[test]
fn an_application_in_one_gateway_is_reached_from_another() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    let api = planet.api();
    let vip = at(&planet, 80, 8080);
    put(
        &api,
        &json!({ "kind": "LoadBalancer", "metadata": acme("plant-inside"), "spec": {
            "hosts": ["plant.acme.example"],
            "ports": [vip.port()],
            "advertise": [{ "sites": ["aws"], "vip": vip.ip() }],
            "routes": [{ "backendRefs": [{ "name": "plant" }] }],
        } }),
    );
    let mut client = Client::new();
    wait_until("aws reaches factory", Duration::from_secs(10), || {
        let reply = client.get(vip, "plant.acme.example", "/");
        match reply.and_then(|reply| reply.story())? {
            story if story.site == "factory" => Ok(()),
            story => Err(format!("{story:?}")),
        }
    });
    let hops = way(&planet, "aws", "factory.acme").expect("a way");
    assert_eq!(hops.last().map(String::as_str), Some("factory.acme"));
    assert!(hops.len() >= 2, "{hops:?}");
    let shown = planet
        .sealane(&["get", "paths", "aws", "-t", "acme"])
        .good()
        .stdout;
    let line = shown
        .lines()
        .find(|line| line.starts_with("aws.acme") && line.contains(" factory.acme "));
    assert!(line.is_some_and(|line| line.contains("fabric")), "{shown}");
    // Nothing of it looked wrong to anybody.
    let refused = planet.admin("factory", Method::GET, "/refusals");
    assert_eq!(refused["items"], json!([]));
}
