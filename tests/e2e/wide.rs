//! Twenty-four sites on one machine: ready soon, and gateways that stay small though each knows, and
//! offers, the thousand Services of its tenant.

use std::{collections::BTreeSet, fmt::Write, fs, time::Duration};

use kit::{
    Planet, Turn, figure,
    http::Method,
    process::{pss_kib, rss_anon_kib, rss_kib},
    wait_until,
};

use crate::{SLACK, options, pass};

/// From the start of `up` until every site runs what it should and every host answers.
const READY: Duration = Duration::from_secs(20);
/// Of each tenant.
const SERVICES: usize = 1_000;
/// As many as a route may lead to.
const OF_A_ROUTE: usize = 50;
/// What a gateway's process may have in memory then: its own, and its part of what it shares. (The
/// pages of the program that are mapped are the same for all 24, and in VmRSS each time.)
const PSS_KIB: u64 = 20 * 1024;
/// After a change a node gives back what it needed for it.
const SETTLED: Duration = Duration::from_secs(6);
/// Until every gateway must have the Services, however busy the machine.
const LATE: Duration = Duration::from_secs(60);

/// The Services of a tenant, each in one of its sites, and a load balancer inside all of its sites that
/// leads to all of them.
fn manifests(tenant: &str, sites: &[&str]) -> [String; 2] {
    let mut text = String::new();
    let metadata = |name: &str| format!("{{ tenant: {tenant}, namespace: shop, name: {name} }}");
    let names: Vec<String> = (1..=SERVICES).map(|nth| format!("s-{nth}")).collect();
    for (name, site) in names.iter().zip(sites.iter().cycle()) {
        let metadata = metadata(name);
        write!(
            text,
            "---\nkind: Service\nmetadata: {metadata}\nspec:\n  port: 18000\n  healthCheck: {{ \
             interval: 5s }}\n  origins: [{{ sites: [{site}], addresses: [10.0.0.11] }}]\n"
        )
        .expect("a string");
    }
    let routes = names.chunks(OF_A_ROUTE).enumerate().map(|(nth, names)| {
        let refs: Vec<String> = names.iter().map(|n| format!("{{ name: {n} }}")).collect();
        let refs = refs.join(", ");
        format!("  - {{ matches: [{{ path: {{ value: /{nth} }} }}], backendRefs: [{refs}] }}\n")
    });
    let (metadata, sites) = (metadata("all"), sites.join(", "));
    let balancer = format!(
        "---\nkind: LoadBalancer\nmetadata: {metadata}\nspec:\n  hosts: [cart.{tenant}.example]\n  \
         ports: [8080]\n  advertise: [{{ sites: [{sites}], vip: 10.0.0.2 }}]\n  routes:\n{}",
        routes.collect::<String>()
    );
    [text, balancer]
}

#[test]
fn twenty_four_sites_are_ready_soon_and_small() {
    let turn = Turn::alone();
    let wide = options().arg("--net").arg("ns").arg("--topology");
    let planet = Planet::start(&turn, wide.arg("wide"));
    let (pops, gateways) = (&planet.report.pops, &planet.report.gateways);
    assert_eq!((pops.len(), gateways.len()), (4, 20));
    let ready = Duration::from_millis(planet.report.startup_ms);
    figure(format_args!("wide: 24 sites are ready after {ready:?}"));
    assert!(ready <= READY * SLACK, "{ready:?}");

    let began = kit::runtime::now();
    for tenant in ["acme", "blue"] {
        let sites = gateways.iter().filter(|gateway| gateway.tenant == tenant);
        let sites: Vec<&str> = sites.map(|gateway| &*gateway.name).collect();
        // One after the other: a file has a thousand documents at most.
        for text in manifests(tenant, &sites) {
            let file = planet.folder().join(format!("{tenant}.yaml"));
            fs::write(&file, text).expect("written");
            let file = file.to_str().expect("a plain path");
            let _ = planet.sealane(&["apply", "-f", file]).good();
        }
    }
    let applied = kit::runtime::now().since(began);
    for gateway in gateways {
        wait_until(&format!("the Services at {}", gateway.name), LATE, || {
            let all = planet.admin(&gateway.name, Method::GET, "/endpoints");
            let views = all.as_array().into_iter().flatten();
            let well =
                views.filter(|view| view["health"] == "healthy" && view["reachable"] == true);
            let names: BTreeSet<&str> = well.filter_map(|view| view["service"].as_str()).collect();
            // And the one of the planet.
            if names.len() > SERVICES {
                Ok(())
            } else {
                Err(names.len())
            }
        });
    }
    let everywhere = kit::runtime::now().since(began);
    let (_, settled) = wait_until("a planet that is well", LATE, || {
        match planet.sealane(&["status"]) {
            ran if ran.code == 0 => Ok(()),
            ran => Err(ran.stdout),
        }
    });
    pass(SETTLED);
    let range = |size: &dyn Fn(u32) -> Option<u64>| {
        let sizes = gateways.iter().map(|gateway| {
            let kib = size(gateway.pid).expect("a process");
            (kib, gateway.name.as_str())
        });
        let sizes: Vec<(u64, &str)> = sizes.collect();
        let (least, most) = (sizes.iter().min(), sizes.iter().max());
        let (least, most) = least.zip(most).expect("gateways");
        (least.0, most.0, most.1)
    };
    let [pss, own, rss] = [range(&pss_kib), range(&rss_anon_kib), range(&rss_kib)];
    figure(format_args!(
        "wide: {SERVICES} Services of each tenant applied in {applied:?}, all of them healthy at every \
         gateway of it after {everywhere:?}, all sites well {settled:?} later; a gateway's PSS is {} to \
         {} KiB, its RssAnon {} to {}, its VmRSS {} to {}",
        pss.0, pss.1, own.0, own.1, rss.0, rss.1,
    ));
    assert!(pss.1 <= PSS_KIB, "{pss:?}");
}
