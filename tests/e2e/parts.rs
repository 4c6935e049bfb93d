//! Nodes in two processes, in a world where much goes over PoPs in between: no part that dies is
//! missed by a request, and each finds its way back.

use std::time::Duration;

use kit::{
    Client, Load, Planet, Record, Target, Turn, figure,
    http::Method,
    process::{Process, Signal},
    since_ms, wait_until,
};
use serde_json::{Value, json};

use crate::{
    ACME, BLUE, SLACK,
    faults::none_failed,
    namespaces::{takes, way},
    options, pass,
    support::{fetch, put},
};

/// acme's other application: one endpoint, in factory.
const PLANT: &str = "plant.acme.example";
/// Where it is in the API.
const PLANT_LB: &str = "/api/v1/tenants/acme/namespaces/shop/loadbalancers/plant";
/// While a part is away.
const AWAY: Duration = Duration::from_millis(700);
/// Before something happens, so that it happens to traffic.
const BEFORE: Duration = Duration::from_secs(1);
/// After it, so that what comes of it is seen.
const AFTER: Duration = Duration::from_secs(3);
/// Until something must be so, however busy the machine.
const LATE: Duration = Duration::from_secs(15);
/// Until a data part that died is gone for everybody else.
const GONE: Duration = Duration::from_secs(1);
/// Until one that is started again serves.
const BACK: Duration = Duration::from_secs(2);

fn world(turn: &Turn) -> Planet {
    let options = options().arg("--net").arg("ns").arg("--topology");
    let planet = Planet::start(turn, options.arg("world").arg("--split"));
    takes(&planet, &["nyc", "factory.acme"], LATE);
    planet
}

fn target(planet: &Planet, pop: &str, host: &str) -> Target {
    Target {
        address: planet.pop(pop).http,
        from: None,
        host: host.to_owned(),
        path: "/".to_owned(),
    }
}

fn pops(planet: &Planet) -> Vec<String> {
    planet.report.pops.iter().map(|p| p.name.clone()).collect()
}

/// The sessions of a node's control part are all up.
fn speaks(planet: &Planet, node: &str) -> Duration {
    let socket = planet.state(node).join("control.sock");
    let (_, took) = wait_until(&format!("the neighbours of {node}"), LATE, || {
        let reply = kit::admin::ask(&socket, Method::GET, "/neighbors")?;
        let all: Value = reply.json()?;
        let items = all["items"].as_array().cloned().unwrap_or_default();
        if !items.is_empty() && items.iter().all(|view| view["up"] == true) {
            Ok(())
        } else {
            Err(all.to_string())
        }
    });
    took
}

/// Changes a route, and waits until every PoP goes by it.
fn configures(planet: &Planet, version: usize) -> Duration {
    let mut lb = fetch(&planet.api(), PLANT_LB);
    lb["spec"]["routes"][0]["filters"] = json!([{ "type": "ResponseHeaderModifier",
        "responseHeaderModifier": { "set": [{ "name": "x-version", "value": version.to_string() }] },
    }]);
    let began = kit::runtime::now();
    put(&planet.api(), &lb);
    let mut client = Client::new();
    for pop in &planet.report.pops {
        wait_until(&format!("version {version} at {}", pop.name), LATE, || {
            let reply = client.get(pop.http, PLANT, "/")?;
            let said = reply.headers.get("x-version");
            let said = said.and_then(|text| text.to_str().ok()).map(str::to_owned);
            if said == Some(version.to_string()) {
                Ok(())
            } else {
                Err(format!("{} {said:?}", reply.status))
            }
        });
    }
    kit::runtime::now().since(began)
}

/// What a PoP says of the first endpoint in a site: its health, and whether a way leads there.
fn sees(planet: &Planet, pop: &str, site: &str) -> Result<(String, bool), String> {
    let all = planet.admin(pop, Method::GET, "/endpoints");
    let mut items = all.as_array().into_iter().flatten();
    let first = items.find(|view| view["site"] == site && view["address"] == "10.0.0.11:18000");
    let first = first.ok_or_else(|| format!("{pop} knows no endpoint in {site}: {all}"))?;
    let health = first["health"].as_str().unwrap_or_default().to_owned();
    Ok((health, first["reachable"] == true))
}

/// Every PoP says that of the first endpoint in a site.
fn health_is(planet: &Planet, site: &str, wanted: &str) -> Duration {
    let began = kit::runtime::now();
    for pop in pops(planet) {
        wait_until(
            &format!("{site} is {wanted} at {pop}"),
            LATE,
            || match sees(planet, &pop, site)? {
                (health, _) if health == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            },
        );
    }
    kit::runtime::now().since(began)
}

#[test]
fn control_parts_that_die_one_after_the_other_are_missed_by_nobody() {
    let turn = Turn::alone();
    let mut planet = world(&turn);
    let gateways = planet.report.gateways.clone();
    let pops = pops(&planet);
    // Over nyc to factory from two sides, to the nearest, and of the other tenant.
    let targets = [("par", PLANT), ("lon", PLANT), ("lon", ACME), ("nyc", BLUE)];
    let targets = targets.map(|(pop, host)| target(&planet, pop, host));
    let load = Load::start(targets.to_vec(), 400);
    pass(BEFORE);
    let nodes = pops
        .iter()
        .chain(gateways.iter().map(|gateway| &gateway.name));
    let (mut spoken, mut configured, mut healed) = (Vec::new(), Vec::new(), Vec::new());
    for (version, node) in nodes.enumerate() {
        let part = format!("control.{node}");
        let data = planet.pid_of(node);
        planet.signal(&part, Signal::KILL);
        pass(AWAY);
        planet.restart(&part);
        spoken.push(speaks(&planet, node));
        configured.push(configures(&planet, version));
        // Health flows from here if this is a gateway, and through here if it is a PoP.
        let site = gateways.iter().find(|gateway| gateway.name == *node);
        let site = site.unwrap_or(&gateways[0]);
        let (endpoint, at) = (
            format!("cart-1.{}", site.name),
            format!("{}.{}", site.name, site.tenant),
        );
        let _ = planet.sealane(&["lab", "demo", &endpoint, "sick"]).good();
        healed.push(health_is(&planet, &at, "unhealthy"));
        let _ = planet.sealane(&["lab", "demo", &endpoint, "well"]).good();
        healed.push(health_is(&planet, &at, "healthy"));
        assert_eq!(planet.pid_of(node), data);
        assert!(Process::read(data).is_some_and(|process| process.is_alive()));
    }
    planet.signal("cart-1.aws", Signal::KILL);
    let dead = health_is(&planet, "aws.acme", "unhealthy");
    planet.restart("cart-1.aws");
    health_is(&planet, "aws.acme", "healthy");
    let records = load.stop();
    none_failed("kill -9 of every control part", &records);
    let most = |all: &[Duration]| all.iter().max().copied().unwrap_or_default();
    figure(format_args!(
        "parts: kill -9 of the control parts of all {} nodes, one after the other: 0 of {} failed, \
         the slowest took {:?}; sessions up again {:?} after a start at most, then a changed route \
         at every PoP within {:?}, a sick or healed endpoint within {:?}; a killed one within {dead:?}",
        spoken.len(),
        records.len(),
        records.iter().map(Record::took).max().unwrap_or_default(),
        most(&spoken),
        most(&configured),
        most(&healed),
    ));
    assert!(dead <= GONE * SLACK, "{dead:?}");
}

/// Kills the data part of a node whose control part is gone already, under load; nothing may fail.
/// How long after it some PoP chose it last, by `is_victim`.
fn dies(
    planet: &Planet,
    node: &str,
    targets: &[Target],
    gone: impl Fn(&str) -> Result<(), String>,
    chosen: impl Fn(&kit::Access) -> bool,
) {
    planet.signal(&format!("control.{node}"), Signal::KILL);
    let load = Load::start(targets.to_vec(), 400);
    pass(BEFORE);
    let (at, began) = (kit::runtime::wall(), kit::runtime::now());
    planet.signal(node, Signal::KILL);
    let others: Vec<String> = pops(planet).into_iter().filter(|pop| pop != node).collect();
    for pop in &others {
        wait_until(&format!("{node} is gone at {pop}"), LATE, || gone(pop));
    }
    let known = kit::runtime::now().since(began);
    pass(AFTER);
    let records = load.stop();
    none_failed(&format!("kill -9 of the data part of {node}"), &records);
    let mut last = 0;
    for pop in &others {
        let log = planet.access_log(pop).since(at);
        let times = log.iter().filter(|access| chosen(access));
        last = last.max(
            times
                .map(|access| since_ms(at, &access.time))
                .max()
                .unwrap_or(0),
        );
    }
    figure(format_args!(
        "parts: kill -9 of the data part of {node}, its control part gone before: gone at every \
         other PoP after {known:?}, last asked for {last} ms after; 0 of {} failed, the slowest \
         took {:?}",
        records.len(),
        records.iter().map(Record::took).max().unwrap_or_default()
    ));
    let last = Duration::from_millis(u64::try_from(last).unwrap_or_default());
    assert!(known.max(last) <= GONE * SLACK, "{known:?}, {last:?}");
}

/// Waits until a host is answered from a site at a PoP.
fn answers(planet: &Planet, pop: &str, host: &str, site: &str) {
    let mut client = Client::new();
    wait_until(&format!("{host} from {site} at {pop}"), LATE, || {
        let reply = client.get(planet.pop(pop).http, host, "/");
        match reply.and_then(|reply| reply.story())? {
            story if story.site == site => Ok(()),
            story => Err(format!("{story:?}")),
        }
    });
}

#[test]
fn data_parts_that_die_are_gone_at_once_and_serve_again_without_the_other() {
    let turn = Turn::alone();
    let mut planet = world(&turn);
    let hosts = |host| pops(&planet).into_iter().map(move |pop| (pop, host));
    let carts: Vec<Target> = hosts(ACME)
        .map(|(pop, host)| target(&planet, &pop, host))
        .collect();
    // A gateway, whose application another one has too.
    answers(&planet, "par", ACME, "aws");
    let unreachable = |pop: &str| match sees(&planet, pop, "aws.acme")? {
        (_, false) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    dies(&planet, "aws", &carts, unreachable, |access| {
        access.site == "aws.acme" || access.tries > 1
    });
    let began = kit::runtime::now();
    planet.restart("aws");
    answers(&planet, "par", ACME, "aws");
    answers(&planet, "lon", ACME, "aws");
    let back = kit::runtime::now().since(began);
    figure(format_args!(
        "parts: the data part of aws alone serves par and lon again {back:?} after its restart \
         begins"
    ));
    assert!(back <= BACK * SLACK, "{back:?}");

    // A PoP over which others reach factory.
    let others = ["par", "lon", "sin"];
    let plants: Vec<Target> = others
        .iter()
        .flat_map(|pop| [(pop, PLANT), (pop, ACME)])
        .map(|(pop, host)| target(&planet, pop, host))
        .collect();
    let elsewhere = |pop: &str| match way(&planet, pop, "factory.acme")? {
        way if !way.iter().any(|hop| hop == "nyc") => Ok(()),
        way => Err(format!("{way:?}")),
    };
    dies(&planet, "nyc", &plants, elsewhere, |access| {
        access.tries > 1
    });
    let began = kit::runtime::now();
    planet.restart("nyc");
    answers(&planet, "nyc", PLANT, "factory");
    answers(&planet, "nyc", ACME, "factory");
    let back = kit::runtime::now().since(began);
    let relays = takes(&planet, &["nyc", "factory.acme"], Duration::from_secs(25));
    figure(format_args!(
        "parts: the data part of nyc alone serves again {back:?} after its restart begins, and par \
         reaches factory over it {relays:?} later"
    ));
    assert!(back <= BACK * SLACK, "{back:?}");
    let load = Load::start(plants, 200);
    pass(BEFORE);
    for node in ["aws", "nyc"] {
        planet.restart(&format!("control.{node}"));
        speaks(&planet, node);
    }
    configures(&planet, 1);
    pass(BEFORE);
    none_failed("control parts come back", &load.stop());
}
