use serde_json::{Value, json};

use super::*;

fn parse(value: &Value) -> Result<Object, Problem> {
    Object::from_value(value.clone())
}

fn service() -> Value {
    json!({ "kind": "Service",
        "metadata": { "tenant": "acme", "namespace": "shop", "name": "cart" },
        "spec": { "port": 8080, "origins": [{ "sites": ["aws"], "addresses": ["10.0.0.1"] }] } })
}

/// `service()` with the value at a JSON Pointer replaced or added.
fn with(place: &str, value: Value) -> Value {
    let mut object = service();
    let (parent, last) = place.rsplit_once('/').expect("a pointer");
    let parent = object.pointer_mut(parent).expect("its parent");
    parent[last] = value;
    object
}

#[test]
fn what_is_wrong_is_pointed_at() {
    for (object, code, place) in [
        (json!([]), "bad-value", ""),
        (
            json!({ "metadata": { "name": "a" } }),
            "missing-field",
            "/kind",
        ),
        (json!({ "kind": 7 }), "bad-value", "/kind"),
        (json!({ "kind": "Car" }), "unknown-kind", "/kind"),
        (json!({ "kind": "service" }), "unknown-kind", "/kind"),
        (with("/color", json!(1)), "unknown-field", "/color"),
        (with("/a~b", json!(1)), "unknown-field", "/a~0b"),
        (
            json!({ "kind": "Tenant" }),
            "missing-field",
            "/metadata/name",
        ),
        (
            with("/metadata/name", json!("A")),
            "bad-value",
            "/metadata/name",
        ),
        (
            with("/metadata/name", json!(7)),
            "bad-value",
            "/metadata/name",
        ),
        (
            with("/metadata/color", json!(7)),
            "unknown-field",
            "/metadata/color",
        ),
        (
            with("/metadata/namespace", Value::Null),
            "missing-field",
            "/metadata/namespace",
        ),
        (
            with("/metadata/labels", json!({ "a": 1 })),
            "bad-value",
            "/metadata/labels/a",
        ),
        (with("/spec/port", json!(65_536)), "bad-value", "/spec/port"),
        (
            with("/spec/prot", json!("http")),
            "unknown-field",
            "/spec/prot",
        ),
        (
            with("/spec/protocol", json!("sctp")),
            "bad-value",
            "/spec/protocol",
        ),
        (
            with("/spec/origins", json!([{ "sites": [] }])),
            "missing-field",
            "/spec/origins/0/addresses",
        ),
        (
            with(
                "/spec/origins",
                json!([{ "sites": ["-"], "addresses": [] }]),
            ),
            "bad-value",
            "/spec/origins/0/sites/0",
        ),
        (
            with("/spec/healthCheck", json!({ "http": { "pth": "/" } })),
            "unknown-field",
            "/spec/healthCheck/http/pth",
        ),
        (
            with("/spec/healthCheck", json!({ "interval": 3 })),
            "bad-value",
            "/spec/healthCheck/interval",
        ),
        (with("/spec", json!("x")), "bad-value", "/spec"),
    ] {
        let problem = parse(&object).expect_err(&object.to_string());
        let found = (problem.code.as_str(), problem.pointer.as_deref());
        assert_eq!(found, (code, Some(place)), "{object}\n{problem}");
        assert_eq!(problem.status, 422);
    }
}

#[test]
fn scopes_are_strict() {
    for (kind, tenant, namespace, wrong) in [
        ("Tenant", false, false, None),
        ("Tenant", true, false, Some("/metadata/tenant")),
        ("Namespace", true, false, None),
        ("Namespace", false, false, Some("/metadata/tenant")),
        ("Namespace", true, true, Some("/metadata/namespace")),
        ("Token", false, false, None),
        ("Token", true, false, None),
        ("Token", true, true, Some("/metadata/namespace")),
    ] {
        let mut metadata = json!({ "name": "a" });
        if tenant {
            metadata["tenant"] = json!("t");
        }
        if namespace {
            metadata["namespace"] = json!("n");
        }
        let spec = if kind == "Token" {
            json!({ "site": "s" })
        } else {
            json!({})
        };
        let object = json!({ "kind": kind, "metadata": metadata, "spec": spec });
        let problem = parse(&object).err();
        assert_eq!(
            problem.and_then(|p| p.pointer).as_deref(),
            wrong,
            "{object}"
        );
    }
}

#[test]
fn texts_are_bounded() {
    let many: Value = (0..65)
        .map(|n| (n.to_string(), json!("")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    for labels in [
        many,
        json!({ "k": "v".repeat(4097) }),
        json!({ "k".repeat(254): "v" }),
    ] {
        let problem = parse(&with("/metadata/labels", labels)).expect_err("too large");
        assert_eq!(problem.code, "too-large");
    }
}

#[test]
fn objects_and_their_keys_round_trip() {
    let object = parse(&service()).expect("good");
    let text = serde_json::to_string(&object).expect("JSON");
    assert_eq!(serde_json::from_str::<Object>(&text).expect("good"), object);
    let key = object.key();
    assert_eq!(
        key.to_string(),
        "tenants/acme/namespaces/shop/services/cart"
    );
    assert_eq!(key.to_string().parse::<ObjectKey>().expect("a key"), key);
    let json = serde_json::to_string(&key).expect("JSON");
    assert_eq!(
        serde_json::from_str::<ObjectKey>(&json).expect("a key"),
        key
    );
}

#[test]
fn keys_are_paths() {
    for good in [
        "tenants/acme",
        "sites/par",
        "tokens/par",
        "tenants/acme/sites/aws",
        "tenants/acme/namespaces/shop",
        "tenants/acme/namespaces/shop/loadbalancers/cart",
    ] {
        assert_eq!(good.parse::<ObjectKey>().expect(good).to_string(), good);
    }
    for bad in [
        "",
        "tenants",
        "tenants/",
        "/tenants/acme",
        "tenants/acme/",
        "services/cart",
        "tenants/acme/services/cart",
        "tenants/acme/namespaces/shop/sites/aws",
        "tenants/acme/tenants/blue",
        "tenants/ACME",
        "Tenant/acme",
        "cars/a",
        "tenants/acme/rooms/shop/services/cart",
        "tenants/../sites/aws",
    ] {
        assert_eq!(
            bad.parse::<ObjectKey>().expect_err(bad).status,
            404,
            "{bad}"
        );
    }
    let pop: ObjectKey = "sites/par".parse().expect("a key");
    assert_eq!(pop.site_name().to_string(), "par.fabric");
    let gateway: ObjectKey = "tenants/acme/sites/aws".parse().expect("a key");
    assert_eq!(gateway.site_name().to_string(), "aws.acme");
}

#[test]
fn words_mean_kinds() {
    for kind in Kind::ALL {
        for word in [kind.as_str(), kind.plural()] {
            assert_eq!(Kind::from_word(word), Some(kind), "{word}");
        }
    }
    assert_eq!(Kind::from_word("lb"), Some(Kind::LoadBalancer));
    assert_eq!(Kind::from_word("car"), None);
}

#[test]
fn every_kind_begins_with_its_defaults() {
    let host = json!(["a.example"]);
    for (kind, spec) in [
        ("Tenant", json!({})),
        ("Namespace", json!({})),
        (
            "Site",
            json!({ "role": "gateway", "nodes": [{ "name": "n0" }] }),
        ),
        ("Token", json!({ "site": "aws" })),
        (
            "Certificate",
            json!({ "hosts": host, "source": "selfSigned" }),
        ),
        ("Service", service()["spec"].clone()),
        (
            "LoadBalancer",
            json!({ "hosts": host, "advertise": [{ "public": {} }, { "pops": ["par"] }],
                "routes": [{ "backendRefs": [{ "name": "cart" }] }] }),
        ),
    ] {
        let kind_of = Kind::from_word(kind).expect("a kind");
        let metadata = match kind_of.scope() {
            Scope::Global => json!({ "name": "a" }),
            Scope::Tenant | Scope::TenantOrGlobal => json!({ "tenant": "t", "name": "a" }),
            Scope::Namespace => json!({ "tenant": "t", "namespace": "n", "name": "a" }),
        };
        let object = parse(&json!({ "kind": kind, "metadata": metadata, "spec": spec }));
        let object = object.expect(kind);
        // What is written out in full means the same.
        let full = serde_json::to_value(&object).expect("JSON");
        assert_eq!(parse(&full).expect(kind), object);
        assert_eq!(object.spec.kind(), kind_of);
    }
}
