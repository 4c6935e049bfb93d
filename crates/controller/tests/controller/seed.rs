//! Objects to put.

use serde_json::{Value, json};

pub(crate) fn tenant(name: &str) -> Value {
    json!({ "kind": "Tenant", "metadata": { "name": name },
        "spec": { "publicHosts": [format!("*.{name}.example")] } })
}

pub(crate) fn namespace(tenant: &str) -> Value {
    json!({ "kind": "Namespace", "metadata": { "tenant": tenant, "name": "shop" }, "spec": {} })
}

pub(crate) fn pop(name: &str, tunnel: &str) -> Value {
    json!({ "kind": "Site", "metadata": { "name": name }, "spec": { "role": "pop", "nodes": [{
        "name": "n0", "tunnel": { "bind": [tunnel] },
        "public": { "bind": ["127.0.0.1"], "portMap": { "80": 8080, "443": 8443 } } }] } })
}

pub(crate) fn gateway(tenant: &str, name: &str) -> Value {
    json!({ "kind": "Site", "metadata": { "tenant": tenant, "name": name },
        "spec": { "role": "gateway", "nodes": [{ "name": "n0" }] } })
}

pub(crate) fn service(tenant: &str, sites: &[&str], address: &str) -> Value {
    json!({ "kind": "Service",
        "metadata": { "tenant": tenant, "namespace": "shop", "name": "cart" },
        "spec": { "port": 8000, "origins": [{ "sites": sites, "addresses": [address] }] } })
}

pub(crate) fn load_balancer(tenant: &str) -> Value {
    json!({ "kind": "LoadBalancer",
        "metadata": { "tenant": tenant, "namespace": "shop", "name": "cart" },
        "spec": { "hosts": [format!("cart.{tenant}.example")],
            "tls": { "certificates": ["cart"] },
            "advertise": [{ "public": {} }],
            "routes": [{ "backendRefs": [{ "name": "cart" }] }] } })
}

pub(crate) fn self_signed(tenant: &str) -> Value {
    json!({ "kind": "Certificate",
        "metadata": { "tenant": tenant, "namespace": "shop", "name": "cart" },
        "spec": { "hosts": [format!("cart.{tenant}.example")], "source": "selfSigned" } })
}

pub(crate) fn token(name: &str, tenant: Option<&str>, site: &str) -> Value {
    let mut metadata = json!({ "name": name });
    if let Some(tenant) = tenant {
        metadata["tenant"] = json!(tenant);
    }
    json!({ "kind": "Token", "metadata": metadata, "spec": { "site": site } })
}

/// A PoP, two tenants, a gateway each, and a service that both of them call by the same name.
pub(crate) fn planet() -> Vec<Value> {
    let mut objects = vec![pop("par", "127.0.0.1:7000")];
    for (name, site) in [("acme", "aws"), ("blue", "shop")] {
        objects.extend([
            tenant(name),
            namespace(name),
            gateway(name, site),
            self_signed(name),
            service(name, &[site], "127.0.0.1:8001"),
            load_balancer(name),
        ]);
    }
    objects
}
