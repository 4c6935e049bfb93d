//! Most of the nearest endpoints die at once: nobody notices, the last of them gets no more than
//! before, and the rest goes to the next-nearest site.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use kit::{Load, Planet, Role, Subnet, Target, Turn, figure, wait_until};
use serde_json::Value;

use crate::{pass, planet};

const HOST: &str = "wide.acme.example";
/// The nearest, which is the PoP's own site, and who comes next.
const NEAR: &str = "par";
const NEXT: &str = "aws";
const ENDPOINTS: u16 = 8;
const SOON: Duration = Duration::from_secs(15);
/// Load after the deaths.
const AFTER: Duration = Duration::from_secs(5);

/// Demo applications in four sites, eight in the nearest, two in each of the others.
fn applications(host: Ipv4Addr, folder: &Path) -> (String, Vec<Role>, Vec<Role>) {
    let (mut near, mut others, mut origins) = (Vec::new(), Vec::new(), Vec::new());
    let mut port = 18_100;
    for (site, count) in [(NEAR, ENDPOINTS), (NEXT, 2), ("factory", 2), ("nyc", 2)] {
        let mut addresses = Vec::new();
        for nth in 0..count {
            port += 1;
            let (listen, name) = (format!("{host}:{port}"), format!("wide-{nth}"));
            let args = [
                "lab", "demo", "--listen", &listen, "--tenant", "acme", "--site", site, "--name",
                &name,
            ];
            let log = folder.join(format!("{site}-{name}.log"));
            let role = Role::start(Path::new(env!("CARGO_BIN_EXE_sealane")), &args, &log);
            if site == NEAR {
                near.push(role);
            } else {
                others.push(role);
            }
            addresses.push(format!("'{listen}'"));
        }
        let addresses = addresses.join(", ");
        origins.push(format!("{{sites: [{site}], addresses: [{addresses}]}}"));
    }
    let manifests = format!(
        "
{{kind: Tenant, metadata: {{name: acme}},
  spec: {{publicHosts: [cart.acme.example, {HOST}]}}}}
---
kind: Service
metadata: {{tenant: acme, namespace: shop, name: wide}}
spec:
  port: 80
  balance: {{spillAt: 100}}
  origins: [{}]
---
kind: LoadBalancer
metadata: {{tenant: acme, namespace: shop, name: wide}}
spec:
  hosts: [{HOST}]
  advertise: [{{public: {{}}}}]
  routes: [{{backendRefs: [{{name: wide}}]}}]
",
        origins.join(", ")
    );
    (manifests, near, others)
}

/// What `why` says of the endpoints at the PoP: site and share of a thousand.
fn shares(planet: &Planet) -> Result<Vec<(String, u64)>, String> {
    let url = format!("http://{HOST}/");
    let ran = planet.sealane(&["why", &url, "--node-state", NEAR, "-o", "json"]);
    if ran.code != 0 {
        return Err(ran.stderr);
    }
    let said = ran.json();
    let all = said["endpoints"]
        .as_array()
        .ok_or_else(|| ran.stdout.clone())?;
    let share = |one: &Value| {
        let site = one["site"].as_str().unwrap_or_default();
        let site = site.split('.').next().unwrap_or_default();
        (site.to_owned(), one["perMille"].as_u64().unwrap_or(0))
    };
    Ok(all.iter().map(share).collect())
}

#[test]
fn seven_of_eight_die_and_the_eighth_gets_no_more_than_its_share() {
    let turn = Turn::alone();
    let planet = planet(&turn);
    let subnet = Subnet::hold().expect("a loopback network");
    let [a, b, c, _] = subnet.network().octets();
    let host = Ipv4Addr::new(a, b, c, 9);
    let (manifests, mut near, _others) = applications(host, planet.folder());
    let _ = planet
        .sealane_with(&["apply", "-f", "-"], &manifests)
        .good();
    wait_until("eight endpoints nearby, all well", SOON, || {
        let shares = shares(&planet)?;
        let near = shares
            .iter()
            .filter(|(site, part)| site == NEAR && *part == 125);
        if shares.len() == 14 && near.count() == usize::from(ENDPOINTS) {
            return Ok(());
        }
        Err(format!("{shares:?}"))
    });
    let target = Target {
        address: planet.pop(NEAR).http,
        host: HOST.to_owned(),
        path: "/".to_owned(),
    };
    let load = Load::start(vec![target], 200);
    pass(Duration::from_secs(2));
    let survivor = near.pop().expect("the eighth");
    let killed = kit::runtime::now();
    near.iter_mut().for_each(Role::kill);
    pass(AFTER);
    let records = load.stop();
    drop(survivor);
    let failed = records.iter().filter(|record| record.has_failed()).count();
    let told = records
        .iter()
        .filter_map(|record| Some((record.start, record.story()?)));
    let (before, after): (Vec<_>, Vec<_>) = told.partition(|(start, _)| *start < killed);
    // Those that were on their way to the dead went elsewhere; after that it is settled.
    let settled = killed + Duration::from_secs(1);
    let after: Vec<_> = after
        .iter()
        .filter(|(start, _)| *start >= settled)
        .collect();
    let at = |site: &str| after.iter().filter(|(_, story)| story.site == site).count();
    let percent = |part: usize| part * 100 / after.len().max(1);
    let (eighth, next) = (percent(at(NEAR)), percent(at(NEXT)));
    figure(format_args!(
        "spill: 7 of 8 endpoints in the nearest of 4 sites killed: {failed} of {} failed; the \
         eighth got {eighth} % (its share is 12), the next-nearest site {next} %",
        records.len()
    ));
    assert!(before.iter().all(|(_, story)| story.site == NEAR));
    assert_eq!(failed, 0);
    // 800 requests: four standard deviations are 5 %.
    assert!((6..=18).contains(&eighth), "{eighth} %");
    assert_eq!(at(NEAR) + at(NEXT), after.len(), "and none farther");
}
