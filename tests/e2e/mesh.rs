//! Gateways that have links to each other.

use std::{net::SocketAddr, time::Duration};

use kit::{Client, Planet, Turn, http::Method, process::Socket, wait_until};
use serde_json::{Value, json};

use crate::{
    namespaces::{plant_inside, way},
    options,
    support::{at, fetch, put},
};

const SOON: Duration = Duration::from_secs(15);

#[test]
fn meshed_gateways_of_a_tenant_reach_each_other_without_a_pop() {
    let turn = Turn::beside();
    let planet = Planet::start(&turn, options().arg("--topology").arg("world"));
    let api = planet.api();
    let vip = plant_inside(&planet);
    let mut client = Client::new();
    let mut answers = |what: &str| {
        wait_until(what, SOON, || {
            let reply = client.get(vip, "plant.acme.example", "/");
            match reply.and_then(|reply| reply.story())? {
                story if story.site == "factory" => Ok(()),
                story => Err(format!("{story:?}")),
            }
        });
    };
    let hops = |wanted: usize| {
        let what = format!("a way of {wanted}");
        wait_until(&what, SOON, || match way(&planet, "aws", "factory.acme") {
            Ok(hops) if hops.len() == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        });
    };
    answers("aws reaches factory");
    hops(3);
    let path = |site: &str| format!("/api/v1/tenants/acme/sites/{site}");
    let (aws, factory) = (fetch(&api, &path("aws")), fetch(&api, &path("factory")));
    let listens = at(&planet, 81, 17443);
    let is_listening = || {
        let sockets = planet.listening();
        let mut sockets = sockets.iter().filter_map(Socket::local_v4);
        sockets.any(|socket| SocketAddr::V4(socket) == listens)
    };
    assert!(!is_listening());
    let mut meshed = factory.clone();
    meshed["spec"]["mesh"] = json!({ "topology": "full" });
    meshed["spec"]["nodes"][0]["tunnel"] = json!({ "bind": [listens] });
    put(&api, &meshed);
    let mut meshed = aws.clone();
    meshed["spec"]["mesh"] = json!({ "topology": "full" });
    put(&api, &meshed);
    hops(1);
    assert!(is_listening());
    let opened = || {
        let status = planet.admin("factory", Method::GET, "/status");
        let links = status["links"].as_array().cloned().unwrap_or_default();
        let its = links.iter().filter(|link| link["peer"] == "aws.acme");
        its.filter_map(|link| link["opened"].as_u64()).sum::<u64>()
    };
    let before = opened();
    answers("aws reaches factory itself");
    wait_until("over the link", SOON, || match opened() {
        now if now > before => Ok(()),
        now => Err(now),
    });
    // Nothing of it looked wrong to anybody.
    for node in ["factory", "aws", "par", "nyc"] {
        let refused = planet.admin(node, Method::GET, "/refusals");
        assert_eq!(refused["items"], json!([]), "{node}");
    }
    // And as it was.
    let plain = |object: &Value| {
        let mut object = object.clone();
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.remove("revision");
        put(&api, &object);
    };
    plain(&factory);
    plain(&aws);
    hops(3);
    wait_until("nothing listens", SOON, || match is_listening() {
        false => Ok(()),
        true => Err("it does"),
    });
    answers("aws reaches factory over PoPs");
}
