//! Whom gateways are attached to, and of what sort their links are, while traffic flows.

use std::time::Duration;

use kit::{Planet, Turn, figure, http::Method, wait_until};
use serde_json::{Value, json};

use crate::{
    faults::none_failed,
    load,
    namespaces::{attached, way},
    options, pass,
    support::{fetch, meta, put},
};

/// Links are let go ten seconds after at the latest.
const SOON: Duration = Duration::from_secs(20);

#[test]
fn a_smaller_count_lets_go_of_the_farthest_and_no_request_fails() {
    let turn = Turn::alone();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    let both = ["lon.fabric", "par.fabric"];
    wait_until("aws is attached", SOON, || match attached(&planet, "aws") {
        pops if pops == both => Ok(()),
        pops => Err(format!("{pops:?}")),
    });
    let load = load(&planet);
    pass(Duration::from_secs(1));
    let api = planet.api();
    let count = |count: u8| {
        let mut aws = fetch(&api, "/api/v1/tenants/acme/sites/aws");
        aws["spec"]["attach"]["count"] = json!(count);
        put(&api, &aws);
    };
    let began = kit::runtime::now();
    count(1);
    wait_until("the nearest stays", SOON, || {
        match attached(&planet, "aws") {
            pops if pops == ["par.fabric"] => Ok(()),
            pops => Err(format!("{pops:?}")),
        }
    });
    let took = kit::runtime::now().since(began);
    pass(Duration::from_secs(2));
    count(2);
    wait_until("the other is back", SOON, || {
        match attached(&planet, "aws") {
            pops if pops == both => Ok(()),
            pops => Err(format!("{pops:?}")),
        }
    });
    // And another instead of it, by its labels.
    let mut lon = fetch(&api, "/api/v1/sites/lon");
    lon["metadata"]["labels"] = json!({ "tier": "old" });
    put(&api, &lon);
    let mut aws = fetch(&api, "/api/v1/tenants/acme/sites/aws");
    aws["spec"]["attach"]["popSelector"] = json!({ "matchExpressions": [
        { "key": "tier", "operator": "NotIn", "values": ["old"] }] });
    put(&api, &aws);
    wait_until("lon is let go", SOON, || match attached(&planet, "aws") {
        pops if pops == ["par.fabric"] => Ok(()),
        pops => Err(format!("{pops:?}")),
    });
    pass(Duration::from_secs(1));
    let records = load.stop();
    none_failed("links are let go", &records);
    figure(format_args!(
        "world: a link is let go within {took:?}; 0 of {} failed",
        records.len()
    ));
}

#[test]
fn what_is_said_of_a_link_moves_the_ways_of_all() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    // Next to aws there are par and lon.
    let over = |from: &str, to: &str, wanted: &str| {
        let what = format!("from {from} to {to} over {wanted}, beside aws");
        wait_until(&what, SOON, || match way(&planet, from, to) {
            Ok(hops) => {
                let mut all = hops.iter().map(String::as_str);
                let beside = match from {
                    "aws" => all.next(),
                    _ => all.nth_back(1),
                };
                let is_so = beside == Some(wanted);
                is_so.then_some(()).ok_or_else(|| format!("{hops:?}"))
            }
            Err(error) => Err(error),
        });
    };
    let shown = |from: &str| {
        let paths = planet.admin(from, Method::GET, "/paths");
        let all = paths.as_array().cloned().unwrap_or_default();
        let to = |path: &&Value| path["site"].as_str() == Some("factory.acme");
        let path = all.iter().find(to).cloned().unwrap_or_default();
        let hops = path["hops"].as_array().cloned().unwrap_or_default();
        let class = |hop: &Value| hop["class"].as_str().unwrap_or("-").to_owned();
        hops.iter().map(class).collect::<Vec<String>>()
    };
    over("aws", "factory.acme", "par");
    over("nyc", "aws.acme", "par");
    wait_until("the backbone shows", SOON, || match shown("aws") {
        classes if classes == ["-", "backbone", "-"] => Ok(()),
        classes => Err(format!("{classes:?}")),
    });
    put(
        &planet.api(),
        &json!({ "kind": "Link", "metadata": meta(Some("acme"), "aws-par"),
            "spec": { "kind": "internet", "a": "aws", "b": "par", "cost": 10 } }),
    );
    // At both ends, and where others tell of it.
    over("aws", "factory.acme", "lon");
    over("nyc", "aws.acme", "lon");
    over("par", "aws.acme", "lon");
    wait_until("status says it", SOON, || {
        let said = planet.sealane(&["status"]).good().stdout;
        let mut lines = said.lines();
        let is_said =
            lines.any(|line| line.starts_with("aws.acme") && line.contains("internet cost 10"));
        is_said.then_some(()).ok_or(said)
    });
}
