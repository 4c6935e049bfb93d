//! Policies at the ingress and where a request leaves a tunnel, seen from both ends.

use std::sync::Arc;

use balance::Health::Healthy;
use base::WallTime;
use http::{HeaderName, Method, StatusCode};
use l7::{
    Action, Cors, HeaderMatch, Mirror, NewPath, Origin, PathMatch, Percent, Rewrite, ValueMatch,
    policy::{Algorithm, Guard, Policy, Prefix, Rate, RateKey, Rule, RuleAction, Undecided, When},
};
use serde_json::Value;

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    websocket,
    world::{Manner, PATIENCE, Spot, World},
};

pub(super) const DENY: RuleAction = RuleAction::Deny(StatusCode::FORBIDDEN);

pub(super) fn guard(name: &str, undecided: Undecided, action: RuleAction, when: When) -> Guard {
    let rule = Rule {
        name: "rule".to_owned(),
        when,
        action,
        expires_at: Some(WallTime::from_unix_seconds(100_000_000_000)),
    };
    let name = format!("shop/{name}");
    let policy = Policy::build("acme", name, false, Algorithm::FirstMatch, vec![rule]);
    Guard {
        policies: vec![Arc::new(policy)],
        undecided,
        tokens: None,
    }
}

pub(super) fn shadowed(guard: Guard) -> Guard {
    let policies = guard.policies.iter().map(|policy| {
        let rules = policy.rules().to_vec();
        let name = policy.name.clone();
        Arc::new(Policy::build(
            "acme",
            name,
            true,
            Algorithm::FirstMatch,
            rules,
        ))
    });
    Guard {
        policies: policies.collect(),
        ..guard
    }
}

pub(super) fn path(path: &str) -> When {
    When {
        paths: [PathMatch::Prefix(path.to_owned())].into_iter().collect(),
        ..When::default()
    }
}

pub(super) fn from(prefix: &str) -> When {
    let prefix: Prefix = prefix.parse().expect("a prefix");
    When {
        prefixes: [prefix].into_iter().collect(),
        ..When::default()
    }
}

pub(super) fn open() -> Guard {
    Guard::default()
}

async fn world() -> (World, Spot) {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    (world, spot)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n")
}

/// The access log's last record, when it has `count`.
pub(super) async fn record(world: &World, count: usize) -> Value {
    let path = world.log.path().join("access.log");
    let read = async {
        loop {
            let text = std::fs::read_to_string(&path).expect("a log");
            let lines: Vec<&str> = text.lines().collect();
            if lines.len() >= count && text.ends_with('\n') {
                return serde_json::from_str(lines[count - 1]).expect("JSON");
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("in time")
}

#[tokio::test]
async fn a_load_balancers_policy_denies() {
    let (world, spot) = world().await;
    let denies = guard("edge", Undecided::Allow, DENY, path("/admin"));
    world.guard(denies, open(), open());
    let response = world.raw(&get("/admin")).await;
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert!(response.ends_with("a policy does not allow this request\n"));
    assert!(!response.contains("sealane-"), "{response}");
    let told = record(&world, 1).await;
    assert_eq!(told["error"], "denied");
    assert_eq!(told["fault"], "client");
    assert_eq!(told["policy"], "shop/edge/rule");
    assert_eq!(
        (&told["lb"], &told["tries"]),
        (&"shop/web".into(), &0.into())
    );
    assert!(world.raw(&get("/a")).await.starts_with("HTTP/1.1 200 "));
    assert!(record(&world, 2).await.get("policy").is_none());
    assert_eq!(spot.served(), 1);
    let text = world.metrics.render();
    let count = "sealane_policy_decisions_total{tenant=\"acme\",lb=\"shop/web\",\
                 policy=\"shop/edge\",rule=\"rule\",action=\"deny\",effect=\"enforce\"} 1";
    assert!(text.contains(count), "{text}");
}

#[tokio::test]
async fn the_egress_judges_by_its_own_configuration() {
    let (world, spot) = world().await;
    let denies = guard("inner", Undecided::Allow, DENY, path("/admin"));
    world.guard(open(), open(), denies.clone());
    let response = world.raw(&get("/admin")).await;
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert!(!response.contains("sealane-"), "{response}");
    let told = record(&world, 1).await;
    assert_eq!(
        (&told["error"], &told["fault"]),
        (&"denied".into(), &"client".into())
    );
    assert_eq!(told["policy"], "shop/inner/rule");
    // The stream is used again, and each of its requests is judged.
    assert!(world.raw(&get("/a")).await.starts_with("HTTP/1.1 200 "));
    assert!(world.raw(&get("/admin")).await.starts_with("HTTP/1.1 403 "));
    // The ingress, once it knows, does not ask.
    let opened = world
        .bridge
        .opened
        .load(std::sync::atomic::Ordering::Relaxed);
    world.guard(open(), denies.clone(), denies);
    assert!(world.raw(&get("/admin")).await.starts_with("HTTP/1.1 403 "));
    let now = world
        .bridge
        .opened
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!((now, spot.served()), (opened, 1));
}

#[tokio::test]
async fn a_closed_namespace_denies_what_nobody_allows() {
    let (world, spot) = world().await;
    let closed = |undecided| Guard {
        undecided,
        ..Guard::default()
    };
    for (lb, ingress, egress, status) in [
        (Undecided::Deny, Undecided::Allow, Undecided::Allow, 403),
        // The load balancer is of the service's own namespace.
        (
            Undecided::Allow,
            Undecided::DenyForeign,
            Undecided::DenyForeign,
            200,
        ),
    ] {
        world.guard(closed(lb), closed(ingress), closed(egress));
        let response = world.raw(&get("/")).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
    }
    let told = record(&world, 1).await;
    assert_eq!(told["error"], "denied");
    assert!(told.get("policy").is_none(), "no rule decided");
    assert_eq!(spot.served(), 1);
}

#[tokio::test]
async fn the_client_is_who_the_ingress_says() {
    let (world, spot) = world().await;
    let allows = |prefix: &str| guard("office", Undecided::Deny, RuleAction::Allow, from(prefix));
    let forged = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\nSealane-Client: 10.0.0.1\r\n\
                  X-Forwarded-For: 10.0.0.1\r\n\r\n";
    for (ingress, egress, status) in [
        (open(), allows("10.0.0.0/8"), 403),
        (allows("10.0.0.0/8"), allows("10.0.0.0/8"), 403),
        (allows("127.0.0.0/8"), allows("10.0.0.0/8"), 403),
        (open(), allows("127.0.0.1"), 200),
        (allows("127.0.0.1"), allows("127.0.0.1"), 200),
    ] {
        world.guard(open(), ingress, egress);
        let response = world.raw(forged).await;
        assert!(
            response.starts_with(&format!("HTTP/1.1 {status} ")),
            "{response}"
        );
        assert!(
            !response.contains("sealane-"),
            "the endpoint saw it: {response}"
        );
    }
    assert_eq!(spot.served(), 2);
    // Where the route hides who it is, the ingress says it all the same; one that does not know
    // that the egress wants it is not believed to be anybody.
    world.route(|route| {
        route
            .filters
            .request
            .remove(HeaderName::from_static("x-forwarded-for"))
    });
    world.guard_egress(allows("127.0.0.1"));
    assert!(world.raw(&get("/")).await.starts_with("HTTP/1.1 403 "));
    assert_eq!(spot.served(), 2);
}

#[tokio::test]
async fn no_spelling_gets_past() {
    let (world, spot) = world().await;
    let when = When {
        hosts: ["cart.acme.example"].into_iter().collect(),
        ..path("/admin")
    };
    let denies = guard("edge", Undecided::Allow, DENY, when);
    let mut tried = Vec::new();
    for target in [
        "/admin",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/%61dmin",
        "/x/%2e%2e/admin",
        "/x/%2e%2E%2fadmin",
        "/x%2f..%2fadmin",
        "/x/..;/admin",
        "/admin;x=1",
        "/admin?x",
        "/admin/%20",
        "http://cart.acme.example/admin",
        "HTTP://CART.acme.example.:81//admin",
    ] {
        tried.push(get(target));
    }
    for host in [
        "CART.acme.Example",
        "cart.acme.example.",
        "cart.acme.example:80",
        "cart.acme.example.:8080",
    ] {
        tried.push(format!("GET /admin HTTP/1.1\r\nhOsT: {host}\r\n\r\n"));
    }
    // The target's authority counts (RFC 9112 §3.2.2), whatever Host says.
    tried.push(
        "GET http://cart.acme.example/admin HTTP/1.1\r\nHost: other.example\r\n\r\n".to_owned(),
    );
    for (lb, service) in [(denies.clone(), open()), (open(), denies)] {
        world.guard(lb, service.clone(), service);
        for request in &tried {
            let response = world.raw(request).await;
            assert!(response.starts_with("HTTP/1.1 403 "), "{request}{response}");
        }
        for request in [
            "GET /admin HTTP/1.1\r\nHost: cart.acme.example\r\nHost: other.example\r\n\r\n",
            "GET /admin HTTP/1.1\r\nHost: cart.acme.example, other\r\n\r\n",
            "GET /x/../../admin HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n",
            "GET \\admin HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n",
            "GET /x\\..\\admin HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n",
            "GET /admin%00 HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n",
        ] {
            let response = world.raw(request).await;
            assert!(response.starts_with("HTTP/1.1 400 "), "{request}{response}");
        }
    }
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn headers_that_are_there_twice() {
    let (world, spot) = world().await;
    let when = |value: &str| When {
        headers: vec![HeaderMatch {
            name: HeaderName::from_static("x-role"),
            value: ValueMatch::Exact(value.into()),
        }],
        ..When::default()
    };
    let head = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\nX-ROLE: user\r\nx-Role: admin\r\n\r\n";
    for (action, value, undecided) in [
        (DENY, "admin", Undecided::Allow),
        (DENY, "user", Undecided::Allow),
        (RuleAction::Allow, "user", Undecided::Deny),
        (RuleAction::Allow, "admin", Undecided::Deny),
    ] {
        world.guard(
            guard("edge", undecided, action.clone(), when(value)),
            open(),
            open(),
        );
        assert!(
            world.raw(head).await.starts_with("HTTP/1.1 403 "),
            "{action:?} {value}"
        );
    }
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn a_service_sees_what_its_endpoints_see() {
    let (world, spot) = world().await;
    world.route(|route| {
        route.filters.rewrite = Rewrite {
            host: Some("inner.example:81".into()),
            path: Some(NewPath::Prefix("/inner".into())),
        };
    });
    let when = || When {
        hosts: ["inner.example"].into_iter().collect(),
        ..path("/inner")
    };
    let allows = guard("inner", Undecided::Deny, RuleAction::Allow, when());
    world.guard_egress(allows);
    assert!(world.raw(&get("/a")).await.starts_with("HTTP/1.1 200 "));
    let denies = guard("inner", Undecided::Allow, DENY, path("/a"));
    world.guard_egress(denies);
    assert!(world.raw(&get("/a")).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(spot.served(), 2);
}

#[tokio::test]
async fn a_shadow_only_says_what_it_would_do() {
    let (world, spot) = world().await;
    let denies = shadowed(guard("next", Undecided::Allow, DENY, When::default()));
    world.guard(denies.clone(), denies, open());
    assert!(world.raw(&get("/")).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(spot.served(), 1);
    let told = record(&world, 1).await;
    assert_eq!(told["shadow"], "shop/next/rule deny");
    assert!(told.get("policy").is_none() && told.get("error").is_none());
    let count = "rule=\"rule\",action=\"deny\",effect=\"shadow\"} 2";
    assert!(world.metrics.render().contains(count));
}

#[tokio::test]
async fn preflights_pass_and_other_answers_do_not() {
    let (world, spot) = world().await;
    let cors = Cors {
        origins: vec![Origin::new("https://shop.example").expect("an origin")],
        methods: Some("PUT".parse().expect("a value")),
        ..Cors::default()
    };
    world.route(|route| route.filters.cors = Some(cors));
    let when = When {
        methods: vec![Method::OPTIONS, Method::PUT],
        ..When::default()
    };
    world.guard_front(guard("edge", Undecided::Allow, DENY, when));
    let preflight = "OPTIONS / HTTP/1.1\r\nHost: cart.acme.example\r\n\
                     Origin: https://shop.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n";
    assert!(world.raw(preflight).await.starts_with("HTTP/1.1 204 "));
    assert!(world.ask("PUT").await.starts_with("HTTP/1.1 403 "));
    world.route(|route| {
        route.action = Action::Redirect(l7::Redirect {
            tls: Some(true),
            host: None,
            path: None,
            port: None,
            status: StatusCode::FOUND,
        });
    });
    world.guard_front(guard("edge", Undecided::Allow, DENY, When::default()));
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 403 "));
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn who_would_deny_gets_no_copy() {
    let (world, mut spot) = world().await;
    let other = world.other_cluster(guard("other", Undecided::Allow, DENY, path("/secret")));
    world.route(|route| {
        route.filters.mirrors.push(Mirror {
            cluster: other,
            percent: Percent(100),
        });
    });
    assert!(
        world
            .raw(&get("/secret"))
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert!(world.raw(&get("/a")).await.starts_with("HTTP/1.1 200 "));
    // One of the secret, two of the other.
    for _ in 0..3 {
        spot.arrived.recv().await.expect("arrives");
    }
    assert_eq!(spot.served(), 3);
}

#[tokio::test]
async fn upgrades_are_judged_too() {
    let (world, spot) = world().await;
    let denies = guard("edge", Undecided::Allow, DENY, path("/socket"));
    world.guard(open(), open(), denies);
    let response = world
        .raw(
            "GET /socket HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: upgrade\r\n\
             Upgrade: websocket\r\n\r\n",
        )
        .await;
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn one_too_many() {
    let (world, spot) = world().await;
    let limits = || {
        let rate = Rate {
            requests: 2,
            per: std::time::Duration::from_secs(3600),
            burst: 2,
            key: vec![
                RateKey::Source,
                RateKey::Header(HeaderName::from_static("x-user")),
            ],
        };
        let action = RuleAction::Limit(Box::new(rate));
        guard("edge", Undecided::Allow, action, When::default())
    };
    let ask =
        |user: &str| format!("GET / HTTP/1.1\r\nHost: cart.acme.example\r\nX-User: {user}\r\n\r\n");
    // At the load balancer, and at the egress alone.
    for (at, lb, egress) in [(0, limits(), open()), (1, open(), limits())] {
        world.guard(lb, open(), egress);
        for status in [200, 200, 429] {
            let response = world.raw(&ask("a")).await;
            assert!(
                response.starts_with(&format!("HTTP/1.1 {status} ")),
                "{response}"
            );
            if status == 429 {
                for field in [
                    "retry-after: 1800",
                    "ratelimit-policy: \"rule\";q=2;w=3600",
                    "ratelimit: \"rule\";r=0;t=1800",
                ] {
                    assert!(response.contains(&format!("\r\n{field}\r\n")), "{response}");
                }
            }
        }
        let told = record(&world, 4 * at + 3).await;
        assert_eq!(told["error"], "rate-limited");
        assert_eq!(told["policy"], "shop/edge/rule");
        assert!(world.raw(&ask("b")).await.starts_with("HTTP/1.1 200 "));
    }
    // A new table does not fill the buckets.
    world.guard(limits(), open(), open());
    assert!(world.raw(&ask("a")).await.starts_with("HTTP/1.1 429 "));
    assert_eq!(spot.served(), 6);
}

/// A token that `KEYS` verifies, for `sub: ann`, until 2100.
const TOKEN: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6Im9uZSJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUiLCJhdWQiOiJzaG9wIiwiZXhwIjo0MTAyNDQ0ODAwLCJzdWIiOiJhbm4iLCJncm91cHMiOlsic3RhZmYiXX0._TiIT__aC5vz52m-T7Q9TlLD0Wc6rbnatUC8a7CMf1LzjKnRol6DV0-51L2tVOLyCWP8FZMePyiHhR_WinklAQ";
const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "_0LoFStupKSgKZEu0AYWx47SFBsDGZY9GxJ-vtosndo"}]}"#;

#[tokio::test]
async fn tokens_are_verified() {
    let (world, spot) = world().await;
    let mut claims = guard(
        "edge",
        Undecided::Deny,
        RuleAction::Allow,
        When {
            claims: vec![l7::jwt::ClaimMatch {
                name: "sub".to_owned(),
                value: ValueMatch::Exact("ann".into()),
            }],
            ..When::default()
        },
    );
    let provider = |forward| l7::jwt::Provider {
        issuer: "https://id.example".to_owned(),
        audiences: vec!["shop".to_owned()],
        keys: l7::jwt::Keys::Given(l7::jwt::KeySet::parse(KEYS).expect("keys")),
        from: vec![l7::jwt::Source::Bearer],
        forward,
        skew: std::time::Duration::from_secs(60),
    };
    let ask = |token: &str| {
        let token = match token {
            "" => String::new(),
            token => format!("Authorization: Bearer {token}\r\n"),
        };
        format!("GET / HTTP/1.1\r\nHost: cart.acme.example\r\n{token}\r\n")
    };
    for forward in [true, false] {
        let verifier = l7::jwt::Verifier::new(vec![provider(forward)], 1);
        claims.tokens = Some(Arc::new(verifier));
        world.guard(claims.clone(), open(), open());
        // The second time it is known.
        for _ in 0..2 {
            let response = world.raw(&ask(TOKEN)).await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            assert_eq!(response.contains(TOKEN), forward, "{response}");
        }
    }
    let response = world.raw(&ask("")).await;
    assert!(response.starts_with("HTTP/1.1 403 "), "{response}");
    let bad = TOKEN.replace('.', ".A");
    let response = world.raw(&ask(&bad)).await;
    assert!(response.starts_with("HTTP/1.1 401 "), "{response}");
    let challenge = "\r\nwww-authenticate: Bearer error=\"invalid_token\", error_description=";
    assert!(response.contains(challenge), "{response}");
    assert_eq!(record(&world, 6).await["error"], "bad-token");
    // Who denies with 401 says what is missing.
    let when = When {
        token: Some(false),
        ..When::default()
    };
    let deny = RuleAction::Deny(StatusCode::UNAUTHORIZED);
    let mut needs = guard("edge", Undecided::Allow, deny, when);
    needs.tokens = claims.tokens.clone();
    world.guard(needs, open(), open());
    let response = world.raw(&ask("")).await;
    assert!(
        response.contains("\r\nwww-authenticate: Bearer\r\n"),
        "{response}"
    );
    assert!(world.raw(&ask(TOKEN)).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(spot.served(), 5);
    // What it said when a connection was opened counts for as long as that lasts.
    let mut endpoint = websocket::Endpoint::new().await;
    world.endpoints(&[(endpoint.address, Healthy)]);
    world.guard(claims.clone(), open(), open());
    let upgrade =
        websocket::ASK.replacen("\r\n", &format!("\r\nAuthorization: Bearer {TOKEN}\r\n"), 1);
    let client = TcpStream::connect(world.http).await.expect("connected");
    let (mut client, mut far) = websocket::handed_over_to(&mut endpoint, client, &upgrade).await;
    claims.tokens = Some(Arc::new(l7::jwt::Verifier::new(Vec::new(), 2)));
    world.guard(claims, open(), open());
    world.pop.set_listeners(&[]).await;
    client
        .write_all(&[0x81, 0x80, 0, 0, 0, 0])
        .await
        .expect("written");
    assert_eq!(websocket::read(&mut far, 6).await, [0x81, 0x80, 0, 0, 0, 0]);
    let when = When {
        token: Some(true),
        ..When::default()
    };
    let denies = guard("edge", Undecided::Allow, DENY, when);
    world.guard(denies, open(), open());
    world.pop.set_listeners(&[]).await;
    assert_eq!(websocket::read(&mut client, 4).await, websocket::DENIED);
}
