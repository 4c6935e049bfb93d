//! What is wrong is refused with a clear error, changes nothing, is counted and logged once.

use std::{fs, path::Path, time::Duration};

use kit::{
    LoneController, Planet, Turn, figure,
    http::Method,
    member::{self, Member, authority, foreign_authority, join_request, knock, run, until},
    pki::{NodeKey, Token, Verifier, self_signed},
    words::sync::JoinReply,
};
use serde_json::{Value, json};

use crate::{
    ACME, planet,
    support::{
        acme, api_metric, at, lines_with, logged, meta, node_metric, path_of, put, revision, token,
        try_put,
    },
};

const DAY: Duration = Duration::from_secs(86_400);
const CHANGES_REFUSED: &str = "sealane_controller_refused_total{cause=\"change\"}";

fn lone(folder: &Path) -> LoneController {
    LoneController::start(Path::new(env!("CARGO_BIN_EXE_sealane")), folder, &[])
}

fn tenant(name: &str) -> Value {
    json!({ "kind": "Tenant", "metadata": { "name": name },
        "spec": { "publicHosts": [format!("cart.{name}.example")] } })
}

fn namespace(tenant: &str) -> Value {
    json!({ "kind": "Namespace", "metadata": meta(Some(tenant), "shop"), "spec": {} })
}

fn pop(name: &str) -> Value {
    json!({ "kind": "Site", "metadata": { "name": name },
        "spec": { "role": "pop", "nodes": [
            { "name": "n0", "tunnel": { "bind": ["127.0.0.1:17443"] } }] } })
}

fn service(name: &str) -> Value {
    json!({ "kind": "Service", "metadata": acme(name),
        "spec": { "port": 80, "origins": [{ "sites": ["aws"], "addresses": ["127.0.0.1:80"] }] } })
}

fn balancer(tenant: &str, host: &str, service: &str) -> Value {
    json!({ "kind": "LoadBalancer",
        "metadata": { "tenant": tenant, "namespace": "shop", "name": "cart" },
        "spec": { "hosts": [host], "advertise": [{ "public": {} }],
            "routes": [{ "backendRefs": [{ "name": service }] }] } })
}

fn certificate(chain: &str, key: &str) -> Value {
    json!({ "kind": "Certificate", "metadata": acme("cart"),
        "spec": { "hosts": [ACME], "source": "pem", "certificate": chain, "privateKey": key } })
}

/// A bad object, and what is said about it: status, code, pointer, and words of the sentence.
struct Bad(
    &'static str,
    Value,
    u16,
    &'static str,
    &'static str,
    &'static str,
);

fn bad_objects() -> Vec<Bad> {
    let mut coloured = service("cart");
    coloured["spec"]["colour"] = json!("red");
    let mut texted = service("cart");
    texted["spec"]["port"] = json!("eighty");
    let mut elsewhere = service("cart");
    elsewhere["spec"]["origins"][0]["sites"] = json!(["moon"]);
    let mut greedy = tenant("blue");
    greedy["spec"]["publicHosts"] = json!([ACME]);
    let pair = || {
        let hosts = [ACME.to_owned()];
        self_signed(&hosts, kit::runtime::wall(), DAY).expect("a certificate")
    };
    let ((chain, _), (_, key)) = (pair(), pair());
    let large = json!({ "kind": "Namespace",
        "metadata": { "tenant": "acme", "name": "large",
            "annotations": { "text": "x".repeat(10_000_000) } }, "spec": {} });
    vec![
        Bad(
            "unknown field",
            coloured,
            422,
            "unknown-field",
            "/spec/colour",
            "colour",
        ),
        Bad("wrong type", texted, 422, "bad-value", "/spec/port", "u16"),
        Bad(
            "dangling site",
            elsewhere,
            422,
            "dangling-reference",
            "/spec/origins/0/sites/0",
            "moon",
        ),
        Bad(
            "dangling service",
            balancer("acme", ACME, "nowhere"),
            422,
            "dangling-reference",
            "/spec/routes/0/backendRefs/0/name",
            "shop/nowhere",
        ),
        Bad(
            "another tenant's host",
            balancer("blue", ACME, "cart"),
            403,
            "host-not-allowed",
            "/spec/hosts/0",
            "publicHosts",
        ),
        Bad(
            "claim of another tenant's host",
            greedy,
            409,
            "host-taken",
            "/spec/publicHosts/0",
            "another tenant",
        ),
        Bad(
            "key of another certificate",
            certificate(&chain, &key),
            422,
            "bad-value",
            "/spec/privateKey",
            "key",
        ),
        Bad("10 MB", large, 413, "too-large", "", "bytes"),
    ]
}

#[test]
fn bad_resources_are_refused_and_change_nothing() {
    let _turn = Turn::beside();
    let folder = tempfile::tempdir().expect("a folder");
    let controller = lone(folder.path());
    let api = controller.api();
    for name in ["acme", "blue"] {
        put(&api, &tenant(name));
        put(&api, &namespace(name));
    }
    put(
        &api,
        &json!({ "kind": "Site", "metadata": meta(Some("acme"), "aws"),
        "spec": { "role": "gateway", "nodes": [{ "name": "n0" }] } }),
    );
    put(&api, &service("cart"));
    let cases = bad_objects();
    for Bad(what, object, status, code, pointer, words) in &cases {
        let before = (revision(&api), api.get("/api/v1/tenants")["items"].clone());
        let counted = api_metric(&api, CHANGES_REFUSED);
        for _ in 0..2 {
            let reply = try_put(&api, object);
            assert_eq!(
                reply.headers["content-type"], "application/problem+json",
                "{what}"
            );
            let problem: Value = reply.json().expect("a problem");
            assert_eq!(reply.status, *status, "{what}: {problem}");
            assert_eq!(problem["code"], *code, "{what}: {problem}");
            assert_eq!(
                problem["pointer"].as_str().unwrap_or(""),
                *pointer,
                "{what}: {problem}"
            );
            let title = problem["title"].as_str().expect("a sentence");
            assert!(title.contains(words), "{what}: {title}");
        }
        assert_eq!(api_metric(&api, CHANGES_REFUSED) - counted, 2, "{what}");
        assert_eq!(
            lines_with(&log(folder.path()), &["refused", code]).len(),
            1,
            "{what}"
        );
        by_command(&controller, folder.path(), what, object, pointer);
        let after = (revision(&api), api.get("/api/v1/tenants")["items"].clone());
        assert_eq!(after, before, "{what}");
    }
    figure(format_args!(
        "bad resources: {} kinds refused, nothing changed",
        cases.len()
    ));
}

fn log(folder: &Path) -> std::path::PathBuf {
    folder.join("controller.log")
}

/// `sealane apply` says it too: where, and what to do, and ends with 1 or 2.
fn by_command(
    controller: &LoneController,
    folder: &Path,
    what: &str,
    object: &Value,
    pointer: &str,
) {
    let file = folder.join("bad.json");
    fs::write(&file, object.to_string()).expect("written");
    let ran = controller.sealane(&["apply", "-f", file.to_str().expect("plain")]);
    assert!(ran.code == 1 || ran.code == 2, "{what}: {ran:?}");
    assert!(ran.stderr.starts_with("error: "), "{what}: {ran:?}");
    assert!(ran.stderr.contains(pointer), "{what}: {ran:?}");
}

#[test]
fn a_token_admits_once_and_clocks_must_agree() {
    let _turn = Turn::beside();
    let folder = tempfile::tempdir().expect("a folder");
    let controller = lone(folder.path());
    let api = controller.api();
    put(&api, &pop("par"));
    let line = token(&api, None, "par");
    let good: Token = line.parse().expect("a Token");
    let outcome =
        |word: &str| api_metric(&api, &format!("sealane_joins_total{{outcome=\"{word}\"}}"));
    let now = kit::runtime::wall();
    let start = revision(&api);
    run(async {
        let (first, second) = (NodeKey::generate(), NodeKey::generate());
        let (first, second) = (first.expect("a key"), second.expect("a key"));
        let mut early = join_request(&good, &first);
        early.time = now + DAY;
        let mut guess = join_request(&good, &first);
        guess.secret = kit::words::sync::encode(&[7; 32]);
        let mut torn = join_request(&good, &first);
        torn.csr = "AAAA".to_owned();
        let mut after = None;
        for (code, words, request) in [
            ("clock", "clock", &early),
            ("token-unknown", "create one", &guess),
            ("bad-request", "", &torn),
            (
                "token-spent",
                "create another one",
                &join_request(&good, &second),
            ),
        ] {
            if code == "token-spent" {
                let Member { chain, .. } = spend(&good, &first).await;
                // The same key again is an answer that was lost: the same certificate.
                assert_eq!(spend(&good, &first).await.chain, chain);
                after = Some(revision(&api));
            }
            let said = outcome(code);
            for _ in 0..2 {
                match member::ask_to_join(&good, request).await {
                    JoinReply::Refused {
                        code: found,
                        reason,
                        time,
                    } => {
                        assert_eq!(found, code, "{reason}");
                        assert!(reason.contains(words), "{reason}");
                        assert!(time.distance(now) < Duration::from_secs(60));
                        let day = early.time.to_string();
                        assert!(code != "clock" || reason.contains(&day), "{reason}");
                    }
                    welcome @ JoinReply::Welcome { .. } => panic!("{code}: {welcome:?}"),
                }
            }
            assert_eq!(outcome(code) - said, 2, "{code}");
            let cause = format!("\"cause\":\"{code}\"");
            assert_eq!(
                lines_with(&log(folder.path()), &[&cause]).len(),
                1,
                "{code}"
            );
            assert_eq!(revision(&api), after.unwrap_or(start), "{code}");
        }
        assert_eq!(after, Some(start + 1), "one join, one revision");
    });
}

/// Joins with this key, which must be welcome.
async fn spend(token: &Token, key: &NodeKey) -> Member {
    match member::ask_to_join(token, &join_request(token, key)).await {
        JoinReply::Welcome { chain, ca, .. } => {
            let chain = kit::words::sync::decode_chain(&chain).expect("base64");
            let ca = kit::words::sync::decode(&ca).expect("base64");
            let verifier = Verifier::pinned(&[ca], &token.ca_sha256).expect("the pinned CA");
            let identity = verifier
                .identify(&chain, kit::runtime::wall())
                .expect("a certificate");
            let key = NodeKey::from_pkcs8_der(key.pkcs8_der()).expect("the same key");
            Member {
                identity,
                key,
                chain,
                verifier,
            }
        }
        refused @ JoinReply::Refused { .. } => panic!("{refused:?}"),
    }
}

#[test]
fn peers_with_a_wrong_or_expired_certificate_get_nothing() {
    let turn = Turn::beside();
    let planet = planet(&turn);
    let api = planet.api();
    let state = planet.home().join("controller");
    let real = authority(&state);
    let trust = Verifier::new(&[real.certificate_der()]).expect("the CA");
    let now = kit::runtime::wall();
    let foreign = foreign_authority(real.planet());
    let before = revision(&api);
    let fabric = at(&planet, 2, 16_444);
    let gone = Member::issued(&real, "moon.acme", "n0", now, DAY);
    let over = Member::issued(&real, "aws.acme", "aws-1", now, Duration::from_secs(1));
    let members = [
        (
            "foreign-ca",
            Member::issued(&foreign, "aws.acme", "aws-1", now, DAY),
        ),
        ("expired", over),
        ("not-admitted", gone),
    ];
    std::thread::sleep(Duration::from_millis(1500));
    run(async {
        for (cause, member) in &members {
            let tunnel = kit::tunnel::start(&kit::runtime::metrics::Metrics::default());
            let tunnel = tunnel.expect("a thread");
            let config = member.tunnels(&trust, &[], &[at(&planet, 10, 17_443)]);
            tunnel.control.configure(config).await.expect("configured");
            let name = format!("sealane_tunnel_peers_refused_total{{cause=\"{cause}\"}}");
            until(cause, || match node_metric(&planet, "par", &name) {
                0 | 1 => Err("not refused twice".to_owned()),
                _ => Ok(()),
            })
            .await;
            assert_eq!(tunnel.links.table().links().count(), 0, "{cause}");
            tunnel.control.drain().await;
            let told = logged(&planet, "par", &["no link with this peer", cause]);
            assert_eq!(told.len(), 1, "{told:?}");
        }
        let refused = |cause: &str| {
            api_metric(
                &api,
                &format!("sealane_controller_refused_total{{cause=\"{cause}\"}}"),
            )
        };
        for ((_, member), cause) in members
            .iter()
            .zip(["handshake", "handshake", "unknown-node"])
        {
            let counted = refused(cause);
            let why = knock(fabric, member, &trust).await.expect_err("refused");
            assert!(!why.is_empty());
            until(cause, || match refused(cause) - counted {
                0 => Err("not counted".to_owned()),
                _ => Ok(()),
            })
            .await;
        }
        // Both of a kind from one address: one line.
        assert_eq!(
            logged(&planet, "controller", &["refused", "handshake"]).len(),
            1
        );
        assert_eq!(
            logged(&planet, "controller", &["refused", "unknown-node"]).len(),
            1
        );
    });
    assert_eq!(revision(&api), before);
    serves(&planet);
    figure(
        "bad peers: a foreign CA, an expired certificate and an unknown site refused by par and the controller",
    );
}

fn serves(planet: &Planet) {
    let reply = kit::Client::new()
        .get(planet.pop("par").http, ACME, "/")
        .expect("an answer");
    assert_eq!(reply.status, 200);
    let reply = planet
        .api()
        .ask(Method::GET, &path_of(&tenant("acme")), None);
    assert_eq!(reply.expect("an answer").status, 200);
}
