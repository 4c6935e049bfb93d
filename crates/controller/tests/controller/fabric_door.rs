//! Joins and site-sync.

use std::time::Duration;

use api::{
    Kind, ObjectKey,
    derived::{EndpointView, NodeStatus},
    sync::{Down, JOIN_AUTHORITY, JoinReply, Up},
};
use base::{Revision, WallTime};
use http::Method;
use pki::{Identity, NodeKey};
use serde_json::{Value, json};

use crate::{
    harness::{Controller, Lines, Node, Sync, der, join_request, soon, write_to},
    seed,
};

/// A controller with the planet, and its PoP's node.
async fn planet() -> (tempfile::TempDir, Controller, Node) {
    let home = tempfile::tempdir().expect("a folder");
    let c = Controller::start(home.path()).await;
    c.apply(&seed::planet()).await;
    let token = c.token_for("par", None, "par").await;
    assert_eq!(token.addresses, [c.ready.fabric.to_string()]);
    let pop = c.admit(&token).await;
    c.is_planned().await;
    (home, c, pop)
}

fn code(reply: &JoinReply) -> &str {
    match reply {
        JoinReply::Welcome { .. } => "welcome",
        JoinReply::Refused { code, .. } => code,
    }
}

#[tokio::test]
async fn a_token_is_good_once() {
    let home = tempfile::tempdir().expect("a folder");
    let c = Controller::start(home.path()).await;
    c.apply(&seed::planet()).await;
    let token = c.token_for("aws", Some("acme"), "aws").await;
    assert_eq!(
        token.addresses,
        ["127.0.0.1:7000"],
        "a gateway joins through PoPs"
    );
    let (_, shown) = c.get("/api/v1/tenants/acme/tokens/aws").await;
    assert!(shown["status"]["token"].is_null(), "shown once: {shown}");

    let key = NodeKey::generate().expect("a key");
    let request = join_request(&token, &key);
    let mut wrong = request.clone();
    wrong.secret = api::sync::encode(&[7; 32]);
    assert_eq!(code(&c.join(&wrong, &token).await), "token-unknown");
    wrong.secret.clone_from(&request.secret);
    wrong.csr = "AAAA".to_owned();
    assert_eq!(code(&c.join(&wrong, &token).await), "bad-request");
    let mut late = request.clone();
    late.time = runtime::wall() - Duration::from_secs(86_400);
    match c.join(&late, &token).await {
        JoinReply::Refused { code, reason, time } => {
            let minute = |time: WallTime| time.to_string()[..16].to_owned();
            assert_eq!(code, "clock");
            assert!(reason.contains(&minute(late.time)), "{reason}");
            assert!(reason.contains(&minute(time)), "{reason}");
        }
        welcome @ JoinReply::Welcome { .. } => panic!("{welcome:?}"),
    }

    let first = c.join(&request, &token).await;
    let JoinReply::Welcome { chain, planet, .. } = &first else {
        panic!("{first:?}")
    };
    let identity = Identity::from_certificate(&der(chain)[0]).expect("an identity");
    assert_eq!(
        identity.to_string(),
        "spiffe://earth.example/tenant/acme/site/aws/node/n0"
    );
    assert_eq!(planet, "earth.example");
    let again = c.join(&request, &token).await;
    let JoinReply::Welcome {
        chain: repeated, ..
    } = &again
    else {
        panic!("{again:?}")
    };
    assert_eq!(chain, repeated, "the same key gets the same certificate");
    let other = join_request(&token, &NodeKey::generate().expect("a key"));
    assert_eq!(code(&c.join(&other, &token).await), "token-spent");
    let (_, shown) = c.get("/api/v1/tenants/acme/tokens/aws").await;
    assert_eq!(shown["status"]["conditions"][0]["status"], true, "{shown}");
    let mut changed = seed::token("aws", Some("acme"), "aws");
    changed["spec"]["validFor"] = json!("2h");
    assert_eq!(c.put(&changed).await.1["code"], "immutable");

    c.stop().await;
    let c = Controller::start(home.path()).await;
    assert_eq!(
        code(&c.join(&other, &token).await),
        "token-spent",
        "also after a restart"
    );
    assert_eq!(code(&c.join(&request, &token).await), "welcome");
    c.stop().await;
}

#[tokio::test]
async fn a_pop_passes_a_join_on() {
    let (_home, c, pop) = planet().await;
    let token = c.token_for("aws", Some("acme"), "aws").await;
    let key = NodeKey::generate().expect("a key");
    let mut link = c.connect(&pop).await.expect("connected");
    let mut stream = link.open(JOIN_AUTHORITY).await.expect("a stream");
    write_to(&mut stream, &join_request(&token, &key)).await;
    let reply: JoinReply = Lines::new(stream).next().await.expect("a reply");
    let JoinReply::Welcome { chain, ca, .. } = reply else {
        panic!("{reply:?}")
    };
    let gateway = Node {
        key,
        chain: der(&chain),
        ca: der(&[ca]),
    };
    let mut link = c.connect(&gateway).await.expect("connected");
    assert_eq!(
        link.open(JOIN_AUTHORITY).await.err(),
        Some(403),
        "only PoPs pass joins on"
    );
    assert_eq!(link.open("else.sealane.internal").await.err(), Some(404));
    c.stop().await;
}

#[tokio::test]
async fn a_change_becomes_a_signed_delta() {
    let (_home, c, pop) = planet().await;
    let mut link = c.connect(&pop).await.expect("connected");
    let mut par = link.sync("par.fabric", "n0", None).await;
    let full = par.update(&pop, "par.fabric").await;
    assert_eq!((full.base, full.delete.len()), (None, 0));
    let sites = full.sites.as_ref().expect("the site table");
    assert_eq!(sites.len(), 3);
    let kinds: Vec<Kind> = full.put.iter().map(|object| object.kind).collect();
    assert!(
        kinds.contains(&Kind::LoadBalancer) && !kinds.contains(&Kind::Token),
        "{kinds:?}"
    );
    let keys = serde_json::to_string(&full.put).expect("JSON");
    assert_eq!(
        keys.matches("BEGIN PRIVATE KEY").count(),
        2,
        "self-signed keys are filled in"
    );

    let mut aws = link.sync("aws.acme", "n0", None).await;
    let mut shop = link.sync("shop.blue", "n0", None).await;
    let aws_full = aws.update(&pop, "aws.acme").await;
    shop.update(&pop, "shop.blue").await;
    let text = serde_json::to_string(&aws_full).expect("JSON");
    assert!(
        !text.contains("blue") && !text.contains("PRIVATE"),
        "only what the site needs"
    );

    let began = runtime::now();
    c.apply(&[seed::service("acme", &["aws"], "127.0.0.1:9009")])
        .await;
    let put = runtime::now();
    let delta = aws.update(&pop, "aws.acme").await;
    println!(
        "put {:?}, then live {:?}",
        put.since(began),
        runtime::now().since(put)
    );
    assert_eq!(delta.base, Some(aws_full.revision));
    let key: ObjectKey = "tenants/acme/namespaces/shop/services/cart"
        .parse()
        .expect("a key");
    let puts: Vec<ObjectKey> = delta.put.iter().map(api::Object::key).collect();
    assert_eq!((puts, delta.sites), (vec![key], None));

    // What does not concern blue's gateway is not sent there: its next update is another one.
    c.apply(&[seed::service("blue", &["shop"], "127.0.0.1:9010")])
        .await;
    let text = serde_json::to_string(&shop.update(&pop, "shop.blue").await).expect("JSON");
    assert!(text.contains("9010") && !text.contains("9009"), "{text}");

    // Whoever has the full update gets the deltas; whoever has the newest gets nothing.
    let mut behind = link.sync("aws.acme", "n0", Some(aws_full.revision.0)).await;
    assert_eq!(
        behind.update(&pop, "aws.acme").await.revision,
        delta.revision
    );
    let mut even = link.sync("aws.acme", "n0", Some(delta.revision.0)).await;
    c.apply(&[seed::service("acme", &["aws"], "127.0.0.1:9011")])
        .await;
    let next = even.update(&pop, "aws.acme").await;
    assert_eq!(next.base, Some(delta.revision), "nothing came before it");
    let mut stranger = link.sync("aws.acme", "n0", Some(1)).await;
    assert_eq!(stranger.update(&pop, "aws.acme").await.base, None);
    c.stop().await;
}

#[tokio::test]
async fn what_nodes_say_is_shown() {
    let (_home, c, pop) = planet().await;
    let mut link = c.connect(&pop).await.expect("connected");
    let mut aws = link.sync("aws.acme", "n0", None).await;
    let full = aws.update(&pop, "aws.acme").await;
    aws.send(&Up::Ack(full.revision)).await;
    let view = |service: &str| EndpointView {
        service: service.to_owned(),
        site: "aws.acme".to_owned(),
        address: "127.0.0.1:8001".to_owned(),
        health: "healthy".to_owned(),
        reachable: true,
        rtt_us: None,
        load_per_mille: None,
        share_per_mille: None,
    };
    let status = NodeStatus {
        applied: full.revision.0,
        endpoints: vec![view("cart.shop.acme"), view("cart.shop.blue")],
        ..NodeStatus::default()
    };
    aws.send(&Up::Status(Box::new(status))).await;
    let shown = |status: &Value| {
        let aws = status["items"]
            .as_array()?
            .iter()
            .find(|i| i["site"] == "aws.acme")?
            .clone();
        (aws["connected"] == true && aws["status"]["applied"] == aws["wanted"]).then_some(aws)
    };
    until(&c, "/api/v1/sitestatus", |status| shown(status).is_some()).await;
    let (_, endpoints) = c.get("/api/v1/endpoints").await;
    let items = endpoints["items"].as_array().expect("items");
    assert_eq!(
        items.len(),
        1,
        "a gateway speaks of its own tenant alone: {endpoints}"
    );
    assert_eq!(items[0]["seenBy"], "aws.acme");
    assert_eq!(
        c.get("/api/v1/endpoints?tenant=blue").await.1["items"],
        json!([])
    );

    c.apply(&[seed::service("acme", &["aws"], "127.0.0.1:9009")])
        .await;
    let delta = aws.update(&pop, "aws.acme").await;
    let reason = "it does not compile".to_owned();
    aws.send(&Up::Reject {
        revision: delta.revision,
        reason,
    })
    .await;
    let path = "/api/v1/tenants/acme/namespaces/shop/services/cart";
    let refused = |object: &Value| {
        let text = object["status"].to_string();
        text.contains("Refused") && text.contains("it does not compile")
    };
    until(&c, path, refused).await;
    drop((aws, link));
    until(&c, "/api/v1/sitestatus", |status| {
        status["items"]
            .as_array()
            .is_some_and(|items| items.iter().all(|i| i["connected"] == false))
    })
    .await;
    c.stop().await;
}

#[tokio::test]
async fn a_gateway_speaks_for_itself_alone() {
    let (_home, c, pop) = planet().await;
    let aws = c
        .admit(&c.token_for("aws", Some("acme"), "aws").await)
        .await;
    let mut link = c.connect(&aws).await.expect("connected");
    for (site, node) in [
        ("shop.blue", "n0"),
        ("par.fabric", "n0"),
        ("aws.acme", "n1"),
    ] {
        let mut sync = link.sync(site, node, None).await;
        assert!(refused(&mut sync).await, "{site}");
    }
    let mut sync = link.sync("aws.acme", "n0", None).await;
    sync.update(&aws, "aws.acme").await;

    // Who relays for a node cannot have a certificate in its name: only its own key is renewed.
    let stranger = NodeKey::generate().expect("a key");
    let csr = api::sync::encode(&stranger.csr_der().expect("a request"));
    sync.send(&Up::Renew { csr }).await;
    assert!(refused(&mut sync).await, "another key");

    // A renewal is for the same identity, whatever the request says.
    let mut sync = link.sync("aws.acme", "n0", None).await;
    sync.update(&aws, "aws.acme").await;
    let csr = api::sync::encode(&aws.key.csr_der().expect("a request"));
    sync.send(&Up::Renew { csr }).await;
    let Some(Down::Certificate { chain }) = sync.next().await else {
        panic!("no certificate")
    };
    let identity = Identity::from_certificate(&der(&chain)[0]).expect("an identity");
    assert_eq!(
        identity.to_string(),
        "spiffe://earth.example/tenant/acme/site/aws/node/n0"
    );
    sync.send(&Up::Renew {
        csr: "AAAA".to_owned(),
    })
    .await;
    assert!(refused(&mut sync).await, "a bad request ends the stream");

    // A node that is deleted is cut.
    let mut sync = link.sync("aws.acme", "n0", None).await;
    sync.update(&aws, "aws.acme").await;
    for path in ["loadbalancers/cart", "services/cart"] {
        let path = format!("/api/v1/tenants/acme/namespaces/shop/{path}");
        assert_eq!(c.call(Method::DELETE, &path, None).await.0, 204);
    }
    for path in ["tokens/aws", "sites/aws"] {
        let path = format!("/api/v1/tenants/acme/{path}");
        assert_eq!(c.call(Method::DELETE, &path, None).await.0, 204, "{path}");
    }
    loop {
        match sync.next().await {
            Some(Down::Signed(_)) => {}
            Some(Down::Refused { .. }) | None => break,
            other => panic!("{other:?}"),
        }
    }
    let mut pop_link = c.connect(&pop).await.expect("connected");
    let mut sync = pop_link.sync("aws.acme", "n0", None).await;
    assert!(refused(&mut sync).await, "nobody speaks for what is gone");
    c.stop().await;
}

#[tokio::test]
async fn strangers_stay_outside() {
    let (_home, c, pop) = planet().await;
    let now = runtime::wall();
    let other = pki::Authority::create(&"earth.example".parse().expect("a planet"), now)
        .expect("another authority");
    let key = NodeKey::generate().expect("a key");
    let csr = key.csr_der().expect("a request");
    let identity = Identity::from_certificate(&pop.chain[0]).expect("an identity");
    let year = Duration::from_secs(365 * 86_400);
    let chain = other.issue(&csr, &identity, now, year).expect("issued");
    let stranger = Node {
        key,
        chain,
        ca: pop.ca.clone(),
    };
    assert!(
        outside(&c, &stranger).await,
        "another authority's certificate"
    );
    let metrics = c.get("/metrics").await.1;
    let counted = "sealane_controller_refused_total{cause=\"handshake\"}";
    assert!(
        metrics.as_str().is_some_and(|text| text.contains(counted)),
        "{metrics}"
    );
    c.stop().await;
}

#[tokio::test]
async fn long_chains_begin_anew() {
    let (_home, c, pop) = planet().await;
    let mut link = c.connect(&pop).await.expect("connected");
    let mut aws = link.sync("aws.acme", "n0", None).await;
    let mut last = aws.update(&pop, "aws.acme").await;
    let mut full = 0;
    for port in 0..70 {
        let address = format!("127.0.0.1:{}", 10_000 + port);
        c.apply(&[seed::service("acme", &["aws"], &address)]).await;
        c.is_planned().await;
        let update = aws.update(&pop, "aws.acme").await;
        assert!(
            update.base.is_none_or(|base| base == last.revision),
            "no gap"
        );
        full += usize::from(update.base.is_none());
        last = update;
    }
    assert_eq!(
        full,
        1,
        "one full update after {} deltas",
        api::sync::MAX_DELTAS
    );
    assert!(last.revision > Revision(70));
    c.stop().await;
}

async fn refused(sync: &mut Sync) -> bool {
    match sync.next().await {
        Some(Down::Refused { reason }) => {
            assert!(reason.len() > 10, "{reason}");
            sync.next().await.is_none()
        }
        other => panic!("{other:?}"),
    }
}

/// In TLS 1.3 the client learns only with its first read that its certificate was refused.
async fn outside(c: &Controller, node: &Node) -> bool {
    match c.connect(node).await {
        Err(_) => true,
        Ok(mut link) => link.open(api::sync::AUTHORITY).await.is_err(),
    }
}

async fn until(c: &Controller, path: &str, holds: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    let holds = async {
        loop {
            last = c.get(path).await.1;
            if holds(&last) {
                return;
            }
        }
    };
    soon(path, holds).await;
}
