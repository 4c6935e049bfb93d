//! The REST API.

use http::Method;
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::{
    harness::{Controller, path_of, soon, value},
    seed,
};

async fn fresh() -> (tempfile::TempDir, Controller) {
    let home = tempfile::tempdir().expect("a folder");
    let controller = Controller::start(home.path()).await;
    (home, controller)
}

#[tokio::test]
async fn objects_are_created_changed_and_deleted() {
    let (_home, c) = fresh().await;
    let tenant = seed::tenant("acme");
    let path = path_of(&tenant);
    assert_eq!(
        c.call(Method::PUT, &format!("{path}?dryRun=true"), Some(&tenant))
            .await
            .0,
        201
    );
    assert_eq!(c.get(&path).await.0, 404, "a dry run changes nothing");
    let (status, created) = c.put(&tenant).await;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["metadata"]["id"], 1);
    let first = created["metadata"]["revision"].clone();

    let (status, same) = c.put(&tenant).await;
    assert_eq!((status, &same), (200, &created), "unchanged is not written");
    assert_eq!(c.get("/api/v1/tenants").await.1["revision"], first);
    let (status, same) = c.put(&created).await;
    assert_eq!(
        (status, &same),
        (200, &created),
        "what was read may be sent back"
    );

    let mut changed = created.clone();
    changed["metadata"]["labels"] = json!({ "tier": "gold" });
    let (status, second) = c.put(&changed).await;
    assert_eq!(status, 200);
    assert_eq!(second["metadata"]["uid"], created["metadata"]["uid"]);
    assert!(second["metadata"]["revision"].as_u64() > first.as_u64());
    changed["metadata"]["labels"] = json!({ "tier": "silver" });
    let (status, problem) = c.put(&changed).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("conflict")),
        "{problem}"
    );
    let current = second["metadata"]["revision"].to_string();
    assert!(
        problem["title"]
            .as_str()
            .is_some_and(|t| t.contains(&current)),
        "{problem}"
    );

    assert_eq!(
        c.call(Method::DELETE, &format!("{path}?revision={first}"), None)
            .await
            .0,
        409
    );
    assert_eq!(c.call(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(c.call(Method::DELETE, &path, None).await.0, 404);
    assert_eq!(c.get("/api/v1/tenants").await.1["items"], json!([]));
    let (status, problem) = c.put(&second).await;
    assert_eq!(
        (status, &problem["code"]),
        (409, &json!("conflict")),
        "based on what is gone"
    );
    c.stop().await;
}

#[tokio::test]
async fn lists_span_scopes() {
    let (_home, c) = fresh().await;
    c.apply(&seed::planet()).await;
    for (path, expect) in [
        ("/api/v1/sites", "par aws shop"),
        ("/api/v1/tenants/acme/sites", "aws"),
        ("/api/v1/services", "cart cart"),
        ("/api/v1/tenants/blue/services", "cart"),
        ("/api/v1/tenants/blue/namespaces/shop/services", "cart"),
        ("/api/v1/tenants/blue/namespaces/none/services", ""),
    ] {
        let (status, list) = c.get(path).await;
        assert_eq!(status, 200, "{path}");
        let items = list["items"].as_array().expect("items");
        let names: Vec<&str> = items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        assert_eq!(names.join(" "), expect, "{path}");
    }
    let (_, sites) = c.get("/api/v1/sites").await;
    let ids: std::collections::BTreeSet<u64> = sites["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|site| site["metadata"]["id"].as_u64())
        .collect();
    assert_eq!(ids.len(), 3, "each site has its own id: {sites}");
    c.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let (_home, c) = fresh().await;
    c.apply(&seed::planet()).await;
    let before = c.get("/api/v1/services").await.1["revision"].clone();
    let mut unknown = seed::tenant("red");
    unknown["spec"]["color"] = json!(1);
    let mut wrong = seed::service("acme", &["aws"], "127.0.0.1:1");
    wrong["spec"]["port"] = json!("x");
    let mut pair = seed::self_signed("acme");
    let (chain, _) = self_signed("cart.acme.example");
    let (_, key) = self_signed("cart.acme.example");
    pair["spec"] = json!({ "hosts": ["cart.acme.example"], "source": "pem",
        "certificate": chain, "privateKey": key });
    let mut stand_in = pair.clone();
    stand_in["spec"]["privateKey"] = json!("redacted, sha256 00");
    let mut stolen = seed::load_balancer("acme");
    stolen["metadata"]["name"] = json!("thief");
    stolen["spec"]["hosts"] = json!(["cart.blue.example"]);
    for (object, status, code, pointer) in [
        (unknown, 422, "unknown-field", "/spec/color"),
        (wrong, 422, "bad-value", "/spec/port"),
        (
            seed::namespace("nobody"),
            422,
            "dangling-reference",
            "/metadata/tenant",
        ),
        (pair, 422, "bad-value", "/spec/privateKey"),
        (stand_in, 422, "bad-value", "/spec/privateKey"),
        (stolen, 403, "host-not-allowed", "/spec/hosts/0"),
        (
            seed::tenant("fabric"),
            422,
            "reserved-name",
            "/metadata/name",
        ),
    ] {
        let path = raw_path(&object);
        let (got, problem) = c.call(Method::PUT, &path, Some(&object)).await;
        let have = (got, problem["code"].as_str(), problem["pointer"].as_str());
        assert_eq!(
            have,
            (status, Some(code), Some(pointer)),
            "{object}\n{problem}"
        );
        assert!(problem["title"].is_string(), "{problem}");
    }
    assert_eq!(
        c.call(Method::DELETE, "/api/v1/tenants/acme", None).await.0,
        409,
        "in use"
    );
    assert_eq!(
        c.get("/api/v1/services").await.1["revision"],
        before,
        "nothing was written"
    );
    c.stop().await;
}

#[tokio::test]
async fn requests_that_are_not_for_us() {
    let (_home, c) = fresh().await;
    let tenant = seed::tenant("acme");
    for (method, path, body, status, code) in [
        (Method::GET, "/nothing", "", 404, "no-such-path"),
        (
            Method::GET,
            "/api/v1/tenants/acme/cars",
            "",
            404,
            "no-such-path",
        ),
        (
            Method::GET,
            "/api/v1/tenants?wach=true",
            "",
            400,
            "unknown-parameter",
        ),
        (
            Method::POST,
            "/api/v1/tenants",
            "{}",
            405,
            "method-not-allowed",
        ),
        (Method::PUT, "/api/v1/tenants/acme", "{", 400, "bad-json"),
        (
            Method::PUT,
            "/api/v1/tenants/blue",
            &tenant.to_string(),
            422,
            "path-mismatch",
        ),
        (
            Method::GET,
            "/api/v1/tenants?watch=true&revision=99",
            "",
            410,
            "gone",
        ),
    ] {
        let response = c
            .send(c.request(&method, path, body.to_owned().into()))
            .await;
        let media_type = response.headers()["content-type"].clone();
        assert_eq!(media_type, api::Problem::MEDIA_TYPE, "{path}");
        assert_eq!(response.status().as_u16(), status, "{path}");
        assert_eq!(value(response).await["code"], code, "{path}");
    }
    for header in ["Bearer wrong", "Basic x", "bearer"] {
        let mut request = c.request(&Method::GET, "/api/v1/tenants", Default::default());
        request
            .headers_mut()
            .insert("authorization", header.parse().expect("a header"));
        let response = c.send(request).await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
        assert_eq!(response.status(), 401, "{header}");
    }
    let huge = vec![b' '; 10 << 20];
    let response = c
        .send(c.request(&Method::PUT, "/api/v1/tenants/acme", huge.into()))
        .await;
    assert_eq!(response.status(), 413);
    assert_eq!(value(response).await["code"], "too-large");
    let mut request = c.request(&Method::GET, "/healthz", Default::default());
    request.headers_mut().remove("authorization");
    assert_eq!(c.send(request).await.status(), 200);
    let (status, document) = c.get("/api/v1/openapi.json").await;
    assert_eq!((status, &document["openapi"]), (200, &json!("3.1.0")));
    let (status, metrics) = c.get("/metrics").await;
    let metrics = metrics.as_str().unwrap_or_default();
    let counted = "sealane_controller_refused_total{cause=\"unauthorized\"} 3";
    assert!(status == 200 && metrics.contains(counted), "{metrics}");
    c.stop().await;
}

#[tokio::test]
async fn a_watch_has_no_gaps() {
    let (_home, c) = fresh().await;
    c.apply(&[
        seed::tenant("acme"),
        seed::tenant("blue"),
        seed::namespace("acme"),
    ])
    .await;
    let path = "/api/v1/tenants?watch=true&revision=1";
    let response = c
        .send(c.request(&Method::GET, path, Default::default()))
        .await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    c.apply(&[seed::tenant("red")]).await;
    assert_eq!(
        c.call(Method::DELETE, "/api/v1/tenants/red", None).await.0,
        204
    );
    let (mut body, mut text) = (response.into_body(), String::new());
    while !text.contains("event: delete") {
        let frame = soon("an event", body.frame())
            .await
            .expect("more")
            .expect("a frame");
        text += &String::from_utf8_lossy(&frame.into_data().expect("data"));
    }
    let events: Vec<(String, String, Value)> = text
        .split("\n\n")
        .filter(|event| event.starts_with("event: "))
        .map(|event| {
            let field = |name| {
                let line = event.lines().find_map(|line| line.strip_prefix(name));
                line.expect("the field").to_owned()
            };
            let data = serde_json::from_str(&field("data: ")).expect("JSON");
            (field("event: "), field("id: "), data)
        })
        .collect();
    let told: Vec<String> = events
        .iter()
        .map(|(kind, id, data)| format!("{kind} {id} {}", data["metadata"]["name"]))
        .collect();
    assert_eq!(
        told,
        ["put 2 \"blue\"", "put 4 \"red\"", "delete 5 \"red\""],
        "{text}"
    );
    drop(body);
    c.stop().await;
}

#[tokio::test]
async fn private_keys_never_come_out() {
    let (_home, c) = fresh().await;
    c.apply(&[seed::tenant("acme"), seed::namespace("acme")])
        .await;
    let (chain, key) = self_signed("cart.acme.example");
    let mut object = seed::self_signed("acme");
    object["spec"] = json!({ "hosts": ["cart.acme.example"], "source": "pem",
        "certificate": chain, "privateKey": key });
    let (status, created) = c.put(&object).await;
    assert_eq!(status, 201, "{created}");
    let shown = created["spec"]["privateKey"]
        .as_str()
        .expect("a stand-in")
        .to_owned();
    assert!(shown.starts_with("redacted, sha256 "), "{shown}");
    let (_, list) = c.get("/api/v1/certificates").await;
    assert!(!list.to_string().contains("PRIVATE KEY"), "{list}");
    let mut changed = created.clone();
    changed["metadata"]["labels"] = json!({ "a": "b" });
    let (status, answer) = c.put(&changed).await;
    assert_eq!(
        (status, &answer["spec"]["privateKey"]),
        (200, &json!(shown)),
        "{answer}"
    );
    let (status, answer) = c.put(&object).await;
    assert_eq!(
        status, 200,
        "the manifest with the key itself still fits: {answer}"
    );
    c.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_everything() {
    let home = tempfile::tempdir().expect("a folder");
    let c = Controller::start(home.path()).await;
    c.apply(&seed::planet()).await;
    let token = c.token_for("join", None, "par").await;
    c.admit(&token).await;
    let second = controller::Config::new(home.path().to_owned(), crate::harness::PLANET);
    let drain = runtime::Tasks::new("second").token();
    let error = controller::run(second, drain, |_| ())
        .await
        .expect_err("one at a time");
    assert!(error.to_string().contains("in use"), "{error}");
    assert!(
        home.path().join("ready.json").exists(),
        "the first one is still ready"
    );
    let mut before = Vec::new();
    for kind in api::Kind::ALL {
        before.push(c.get(&format!("/api/v1/{}", kind.plural())).await.1);
    }
    let (secret, ca) = (c.token.clone(), std::fs::read(&c.ready.ca).expect("the CA"));
    c.stop().await;
    assert!(
        !home.path().join("ready.json").exists(),
        "not ready any more"
    );
    let c = Controller::start(home.path()).await;
    assert_eq!(
        (c.token.clone(), std::fs::read(&c.ready.ca).expect("the CA")),
        (secret, ca)
    );
    for (kind, before) in api::Kind::ALL.into_iter().zip(before) {
        assert_eq!(
            c.get(&format!("/api/v1/{}", kind.plural())).await.1,
            before,
            "{kind}"
        );
    }
    c.apply(&[seed::gateway("acme", "factory")]).await;
    let (_, site) = c.get("/api/v1/tenants/acme/sites/factory").await;
    assert_eq!(site["metadata"]["id"], 4, "ids go on where they were");
    c.stop().await;
}

/// The path of something that `api` would refuse.
fn raw_path(object: &Value) -> String {
    let kind = object["kind"]
        .as_str()
        .and_then(api::Kind::from_word)
        .expect("a kind");
    let mut path = String::from("/api/v1/");
    for (plural, field) in [("tenants", "tenant"), ("namespaces", "namespace")] {
        if let Some(name) = object["metadata"][field].as_str() {
            path += &format!("{plural}/{name}/");
        }
    }
    path + kind.plural() + "/" + object["metadata"]["name"].as_str().expect("a name")
}

fn self_signed(host: &str) -> (String, String) {
    let year = std::time::Duration::from_secs(365 * 86_400);
    pki::self_signed(&[host.to_owned()], runtime::wall(), year).expect("a certificate")
}
