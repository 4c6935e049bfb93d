//! What several of these tests ask a planet.

use std::{fs, net::SocketAddr, path::Path};

use kit::{Api, Planet, Reply, http::Method};
use serde_json::{Value, json};

/// The value of a metric such as `sealane_joins_total{outcome="clock"}`; 0 if it is not there.
pub(crate) fn metric(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

/// A metric of a node.
pub(crate) fn node_metric(planet: &Planet, node: &str, name: &str) -> u64 {
    let socket = planet.state(node).join("admin.sock");
    let reply = kit::admin::ask(&socket, Method::GET, "/metrics").expect("metrics");
    metric(&String::from_utf8_lossy(&reply.body), name)
}

/// A metric of the controller.
pub(crate) fn api_metric(api: &Api, name: &str) -> u64 {
    let reply = api.ask(Method::GET, "/metrics", None).expect("metrics");
    metric(&String::from_utf8_lossy(&reply.body), name)
}

/// The store's revision.
pub(crate) fn revision(api: &Api) -> u64 {
    api.get("/api/v1/tenants")["revision"]
        .as_u64()
        .expect("a revision")
}

/// Where an object is in the API.
pub(crate) fn path_of(object: &Value) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let meta = &object["metadata"];
    let kind = text(&object["kind"]).expect("a kind").to_lowercase() + "s";
    let name = text(&meta["name"]).expect("a name");
    let mut path = "/api/v1".to_owned();
    if let Some(tenant) = text(&meta["tenant"]) {
        path += &format!("/tenants/{tenant}");
    }
    if let Some(namespace) = text(&meta["namespace"]) {
        path += &format!("/namespaces/{namespace}");
    }
    path + &format!("/{kind}/{name}")
}

/// Puts an object; the answer.
pub(crate) fn try_put(api: &Api, object: &Value) -> Reply {
    let reply = api.ask(Method::PUT, &path_of(object), Some(object));
    reply.expect("the API answers")
}

/// Puts an object, which must be taken; as it is now.
pub(crate) fn put(api: &Api, object: &Value) -> Value {
    let reply = try_put(api, object);
    let text = String::from_utf8_lossy(&reply.body);
    assert!(
        reply.status == 200 || reply.status == 201,
        "{object}: {text}"
    );
    reply.json().expect("JSON")
}

/// A new Token for a site; its secret line.
pub(crate) fn token(api: &Api, tenant: Option<&str>, site: &str) -> String {
    let object = json!({ "kind": "Token", "metadata": meta(tenant, site),
        "spec": { "site": site } });
    let answer = put(api, &object);
    answer["status"]["token"]
        .as_str()
        .expect("a secret")
        .to_owned()
}

/// Metadata with a tenant or without.
pub(crate) fn meta(tenant: Option<&str>, name: &str) -> Value {
    match tenant {
        Some(tenant) => json!({ "tenant": tenant, "name": name }),
        None => json!({ "name": name }),
    }
}

/// Metadata in acme's namespace.
pub(crate) fn acme(name: &str) -> Value {
    json!({ "tenant": "acme", "namespace": "shop", "name": name })
}

/// An object as it is, to be put again with changes.
pub(crate) fn fetch(api: &Api, path: &str) -> Value {
    let mut object = api.get(path);
    let fields = object.as_object_mut().expect("an object");
    fields.remove("status");
    object
}

/// An address of the planet's own network.
pub(crate) fn at(planet: &Planet, host: u8, port: u16) -> SocketAddr {
    let [a, b, c] = planet.network();
    ([a, b, c, host], port).into()
}

/// Lines of a process's log that hold all of these words.
pub(crate) fn logged(planet: &Planet, process: &str, words: &[&str]) -> Vec<String> {
    lines_with(&planet.home().join(format!("logs/{process}.log")), words)
}

/// Lines of a file that hold all of these words.
pub(crate) fn lines_with(file: &Path, words: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines();
    let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
    lines.map(str::to_owned).collect()
}
