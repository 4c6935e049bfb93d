//! Decisions by data.

use std::{collections::BTreeMap, sync::Arc};

use balance::empty_cell;
use base::{LbId, Rng, ServiceId, TenantId};
use http::{HeaderName, HeaderValue, Method};

use super::decide;
use crate::{
    Abort, Action, Backend, ClientCertificates, Cluster, Cors, Decision, Delay, DirectResponse,
    Fields, HeaderMatch, Limits, Match, NewPath, Offered, Origin, PathMatch, Pattern, Percent,
    QueryMatch, Redirect, RequestHead, Rewrite, Route, Table, TableError, TrustId, ValueMatch,
    VirtualHost,
};

fn cluster(service: &str) -> Arc<Cluster> {
    Arc::new(Cluster {
        service: format!("{service}.ns.t").parse().expect("a service"),
        tenant: TenantId(1),
        id: ServiceId(1),
        port: 80,
        protocol: crate::Protocol::Http1,
        proxy: None,
        hash_on: Vec::new(),
        outlier: None,
        circuit: <_>::default(),
        retries: <_>::default(),
        guard: <_>::default(),
        cell: empty_cell(),
    })
}

fn value(text: &str) -> ValueMatch {
    match text.strip_prefix('~') {
        Some(pattern) => ValueMatch::Regex(Pattern::new(pattern).expect("a pattern")),
        None => ValueMatch::Exact(text.into()),
    }
}

/// `=PATH` exact, `~PATH` regular expression, `PATH` prefix, then `METHOD`, `name:value` and
/// `?name=value` words in any order.
fn matches(text: &str) -> Match {
    let mut m = Match::default();
    for word in text.split(' ') {
        if let Some(path) = word.strip_prefix('=') {
            m.path = PathMatch::Exact(path.into());
        } else if let Some(pattern) = word.strip_prefix('~') {
            m.path = PathMatch::Regex(Pattern::new(pattern).expect("a pattern"));
        } else if let Some((name, text)) = word.strip_prefix('?').and_then(|w| w.split_once('=')) {
            m.query.push(QueryMatch {
                name: name.into(),
                value: value(text),
            });
        } else if word.starts_with('/') {
            m.path = PathMatch::Prefix(word.into());
        } else if let Some((name, text)) = word.split_once(':') {
            m.headers.push(HeaderMatch {
                name: name.parse::<HeaderName>().expect("a name"),
                value: value(text),
            });
        } else {
            m.method = Some(word.parse().expect("a method"));
        }
    }
    m
}

fn to(service: &str) -> Action {
    Action::Forward(vec![Backend {
        cluster: cluster(service),
        weight: 1,
    }])
}

/// A GET of a URL of host `h` in plain text.
fn get<'a>(target: &'a str, fields: &'a Fields) -> RequestHead<'a> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    RequestHead {
        port: 80,
        tls: false,
        sni: None,
        trust: None,
        method: &Method::GET,
        host: "h",
        authority: "h:18080",
        path,
        query,
        fields,
    }
}

/// Routes named by their match, each to a backend of its own.
fn host(tenant: u32, routes: &[&str]) -> Arc<VirtualHost> {
    let routes = routes
        .iter()
        .map(|text| Route {
            name: (*text).into(),
            matches: vec![matches(text)],
            action: to("a"),
            ..Route::default()
        })
        .collect();
    let name = format!("t{tenant}");
    Arc::new(VirtualHost::build(
        LbId(1),
        "ns/lb".into(),
        TenantId(tenant),
        name,
        Limits::default(),
        routes,
    ))
}

fn offer(port: u16, tls: bool, hosts: &[&str], host: &Arc<VirtualHost>) -> Offered {
    Offered {
        port,
        tls,
        hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
        host: Arc::clone(host),
    }
}

#[test]
fn routes_by_precedence() {
    let routes = [
        "/q ?a=1",
        "/q ?a=1 ?b=~[0-9]+",
        "/q",
        "~/a/[xy].*",
        "/a/x/long/prefix",
        "/h x:~v[0-9]",
        "/",
        "/a",
        "/a/b/",
        "=/a/b",
        "/a POST",
        "/a x:1",
        "/a x:1 y:2",
        "/a POST x:1",
    ];
    let vhost = host(1, &routes);
    let table = Table::build(vec![offer(80, false, &["h"], &vhost)]).expect("built");
    for (method, path, headers, expect) in [
        ("GET", "/", "", "/"),
        ("GET", "/ab", "", "/"),
        ("GET", "/a", "", "/a"),
        ("GET", "/a/", "", "/a"),
        ("GET", "/a/c", "", "/a"),
        ("GET", "/a/b", "", "=/a/b"),
        ("GET", "/a/b/", "", "/a/b/"),
        ("GET", "/a/b/c", "x:1", "/a/b/"),
        ("GET", "/a/bc", "", "/a"),
        ("POST", "/a", "", "/a POST"),
        ("GET", "/a", "x:1", "/a x:1"),
        ("GET", "/a", "x:2", "/a"),
        ("GET", "/a", "x:1 y:2", "/a x:1 y:2"),
        ("POST", "/a", "x:1 y:2", "/a POST x:1"),
        ("GET", "/a/x/long/prefix/1", "", "~/a/[xy].*"),
        ("GET", "/a/z/x", "", "/a"),
        ("GET", "/h", "x:v1", "/h x:~v[0-9]"),
        ("GET", "/h", "x:v12", "/"),
        ("GET", "/q", "", "/q"),
        ("GET", "/q?", "", "/q"),
        ("GET", "/q?a=1", "", "/q ?a=1"),
        ("GET", "/q?x&%61=%31&a=2", "", "/q ?a=1"),
        ("GET", "/q?a=2&a=1", "", "/q"),
        ("GET", "/q?b=77&a=1", "", "/q ?a=1 ?b=~[0-9]+"),
        ("GET", "/q?b=x&a=1", "", "/q ?a=1"),
    ] {
        let mut map = Fields::default();
        for word in headers.split(' ').filter(|w| !w.is_empty()) {
            let (name, value) = word.split_once(':').expect("name:value");
            map.append(
                &name.parse().expect("a name"),
                &value.parse().expect("a value"),
            );
        }
        let method: Method = method.parse().expect("a method");
        let head = RequestHead {
            method: &method,
            ..get(path, &map)
        };
        let Decision::Forward(to) = decide(&table, &head, &mut Rng::new(1)) else {
            panic!("no route for {path}");
        };
        assert_eq!(to.route.name, expect, "{method} {path} {headers}");
    }
}

#[test]
fn hosts_and_owners() {
    let (one, two) = (host(1, &["/"]), host(2, &["/x"]));
    let table = Table::build(vec![
        offer(80, false, &["a.example", "*.wild.example"], &one),
        offer(443, true, &["A.example", "*.wild.example"], &one),
        offer(443, true, &["b.example", "deep.wild.example"], &two),
    ])
    .expect("built");
    let none = &Fields::default();
    for (port, tls, sni, host, expect) in [
        (80, false, None, "a.example", "t1"),
        (80, false, None, "b.example", "404 no-such-host"),
        (81, false, None, "a.example", "404 no-such-host"),
        (80, true, None, "a.example", "404 no-such-host"),
        (80, false, None, "x.wild.example", "t1"),
        (80, false, None, "y.x.wild.example", "t1"),
        (80, false, None, "wild.example", "404 no-such-host"),
        (443, true, Some("a.example"), "a.example", "t1"),
        (443, true, Some("a.example"), "x.wild.example", "t1"),
        (443, true, Some("a.example"), "b.example", "421 misdirected"),
        (
            443,
            true,
            Some("a.example"),
            "nobody.example",
            "421 misdirected",
        ),
        (
            443,
            true,
            Some("x.wild.example"),
            "deep.wild.example",
            "421 misdirected",
        ),
        (443, true, Some("b.example"), "b.example", "404 no-route"),
        (443, true, None, "a.example", "t1"),
    ] {
        let head = RequestHead {
            port,
            tls,
            sni,
            host,
            ..get("/", none)
        };
        let found = match decide(&table, &head, &mut Rng::new(1)) {
            Decision::Forward(to) => to.host.tenant_name.clone(),
            Decision::Respond(r) => format!("{} {}", r.status.as_u16(), r.code),
        };
        assert_eq!(found, expect, "{port} {sni:?} {host}");
    }
}

#[test]
fn offers_that_conflict_are_refused() {
    let one = host(1, &["/"]);
    let taken = Table::build(vec![
        offer(80, false, &["a.example"], &one),
        offer(80, false, &["A.Example."], &one),
    ]);
    assert!(matches!(taken, Err(TableError::HostTaken { port: 80, .. })));
    for bad in ["", "a b", "*", "*.", "a.*.example", "user@a"] {
        let built = Table::build(vec![offer(80, false, &[bad], &one)]);
        assert!(matches!(built, Err(TableError::BadHost(_))), "{bad:?}");
    }
}

#[test]
fn backends_share_by_weight() {
    let backend = |name, weight| Backend {
        cluster: cluster(name),
        weight,
    };
    for (backends, expect) in [
        (
            vec![backend("a", 1), backend("b", 3), backend("c", 0)],
            vec![("a", 25), ("b", 75)],
        ),
        (vec![backend("a", 0)], vec![]),
        (vec![backend("a", 0), backend("b", 0)], vec![]),
        (vec![], vec![]),
    ] {
        let mut rng = Rng::new(3);
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..10_000 {
            if let Some(cluster) = super::backend(&backends, &mut rng) {
                *seen.entry(cluster.service.service.to_string()).or_default() += 1;
            }
        }
        let shares: Vec<(&str, u32)> = seen
            .iter()
            .map(|(name, n)| (&**name, (n + 50) / 100))
            .collect();
        let close = shares.len() == expect.len()
            && shares
                .iter()
                .zip(&expect)
                .all(|(a, b)| a.0 == b.0 && a.1.abs_diff(b.1) <= 2);
        assert!(close, "{shares:?} {expect:?}");
    }
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).expect("text")
}

/// The decision on a GET when `change` was done to the only route, which has prefix `/a`.
fn decided(change: impl FnOnce(&mut Route), target: &str, headers: &[(&str, &str)]) -> String {
    let mut route = Route {
        matches: vec![matches("/a")],
        action: to("a"),
        ..Route::default()
    };
    change(&mut route);
    let host = VirtualHost::build(
        LbId(1),
        "ns/lb".into(),
        TenantId(1),
        "t".into(),
        Limits::default(),
        vec![route],
    );
    let table = Table::build(vec![offer(80, false, &["h"], &Arc::new(host))]).expect("built");
    let headers = headers.iter().map(|(name, value)| {
        let name: HeaderName = name.parse().expect("a name");
        (name, HeaderValue::from_str(value).expect("a value"))
    });
    let headers: Fields = headers.collect();
    let preflight = headers.contains(&http::header::ACCESS_CONTROL_REQUEST_METHOD);
    let head = RequestHead {
        method: if preflight {
            &Method::OPTIONS
        } else {
            &Method::GET
        },
        ..get(target, &headers)
    };
    match decide(&table, &head, &mut Rng::new(1)) {
        Decision::Forward(to) => {
            let target = to
                .route
                .filters
                .rewrite
                .target(head.path, head.query, to.matched);
            format!("to {target} {:?}", to.delay)
        }
        Decision::Respond(r) => {
            let mut lines: Vec<String> = r
                .fields
                .iter()
                .map(|(name, value)| format!("; {}: {}", text(name), text(value)))
                .collect();
            lines.sort();
            format!("{} {}{}", r.status.as_u16(), r.code, lines.concat())
        }
    }
}

#[test]
fn paths_are_rewritten() {
    let full = |path: &str| NewPath::Full(path.into());
    let prefix = |path: &str| NewPath::Prefix(path.into());
    for (new, target, expect) in [
        (full("/x"), "/a/b?q=1", "/x?q=1"),
        (full("/x"), "/a?", "/x?"),
        (prefix("/xyz"), "/a/bar", "/xyz/bar"),
        (prefix("/xyz/"), "/a/bar", "/xyz/bar"),
        (prefix("/xyz"), "/a", "/xyz"),
        (prefix("/xyz"), "/a/", "/xyz/"),
        (prefix(""), "/a/bar?q", "/bar?q"),
        (prefix(""), "/a", "/"),
        (prefix("/"), "/a", "/"),
        (prefix("/"), "/a/", "/"),
        (prefix("/"), "/a/bar", "/bar"),
    ] {
        let said = decided(
            |route| {
                route.filters.rewrite = Rewrite {
                    host: None,
                    path: Some(new.clone()),
                }
            },
            target,
            &[],
        );
        assert_eq!(said, format!("to {expect} None"), "{new:?} {target}");
    }
}

#[test]
fn clients_are_sent_elsewhere() {
    let stay = Redirect {
        tls: None,
        host: None,
        path: None,
        port: None,
        status: http::StatusCode::FOUND,
    };
    for (redirect, expect) in [
        (stay.clone(), "http://h:18080/a/b?q"),
        (
            Redirect {
                tls: Some(true),
                ..stay.clone()
            },
            "https://h/a/b?q",
        ),
        (
            Redirect {
                host: Some("new.example".into()),
                ..stay.clone()
            },
            "http://new.example/a/b?q",
        ),
        (
            Redirect {
                tls: Some(true),
                port: Some(8443),
                ..stay.clone()
            },
            "https://h:8443/a/b?q",
        ),
        (
            Redirect {
                port: Some(80),
                path: Some(NewPath::Prefix("/new".into())),
                ..stay
            },
            "http://h/new/b?q",
        ),
    ] {
        let said = decided(
            |route| route.action = Action::Redirect(redirect.clone()),
            "/a/b?q",
            &[],
        );
        assert_eq!(said, format!("302 redirect; location: {expect}"));
    }
}

#[test]
fn some_are_answered_or_broken() {
    let direct = DirectResponse {
        status: http::StatusCode::OK,
        content_type: HeaderValue::from_static("text/html"),
        body: "hello".into(),
    };
    let said = decided(|route| route.action = Action::Respond(direct), "/a", &[]);
    assert_eq!(said, "200 direct-response; content-type: text/html");
    let delay = |percent| Delay {
        duration: std::time::Duration::from_secs(2),
        percent: Percent(percent),
    };
    let said = decided(|route| route.filters.delay = Some(delay(100)), "/a", &[]);
    assert_eq!(said, "to /a Some(2s)");
    let said = decided(|route| route.filters.delay = Some(delay(0)), "/a", &[]);
    assert_eq!(said, "to /a None");
    let abort = Abort {
        status: http::StatusCode::IM_A_TEAPOT,
        percent: Percent(100),
    };
    let said = decided(|route| route.filters.abort = Some(abort), "/a", &[]);
    assert_eq!(said, "418 fault-injected");
    let half = Percent(50);
    let mut rng = Rng::new(1);
    let drawn = (0..10_000).filter(|_| half.is_drawn(&mut rng)).count();
    assert!((4_800..5_200).contains(&drawn), "{drawn}");
}

#[test]
fn foreign_pages() {
    let cors = |origins: &[&str], credentials: bool| Cors {
        origins: origins
            .iter()
            .map(|o| Origin::new(o).expect("an origin"))
            .collect(),
        credentials,
        methods: Some(HeaderValue::from_static("*")),
        headers: Some(HeaderValue::from_static("x-a, x-b")),
        expose: Some(HeaderValue::from_static("x-c")),
        max_age: Some(HeaderValue::from_static("60")),
    };
    let asks = |origin| [("origin", origin), ("access-control-request-method", "PUT")];
    let lists = "; access-control-allow-headers: x-a, x-b; access-control-allow-methods: ";
    for (origins, credentials, origin, expect) in [
        (
            &["*"][..],
            false,
            "https://any.example",
            format!("{lists}*; access-control-allow-origin: *; access-control-max-age: 60"),
        ),
        (
            &["https://shop.example", "https://*.app.example:8443"],
            true,
            "https://x.y.app.example:8443",
            format!(
                "; access-control-allow-credentials: true{lists}PUT; \
                 access-control-allow-origin: https://x.y.app.example:8443; \
                 access-control-max-age: 60; vary: origin"
            ),
        ),
        (
            &["https://*.app.example"],
            false,
            "https://app.example",
            "; vary: origin".into(),
        ),
        (
            &["https://*.app.example"],
            false,
            "http://x.app.example",
            "; vary: origin".into(),
        ),
        (
            &["https://*.app.example"],
            false,
            "https://evil/.app.example",
            "; vary: origin".into(),
        ),
        (
            &["https://shop.example"],
            false,
            "null",
            "; vary: origin".into(),
        ),
    ] {
        let said = decided(
            |route| route.filters.cors = Some(cors(origins, credentials)),
            "/a",
            &asks(origin),
        );
        assert_eq!(said, format!("204 preflight{expect}"), "{origin}");
    }
    // Not a preflight: an OPTIONS without a wanted method, or a request that is none.
    let open = |route: &mut Route| route.filters.cors = Some(cors(&["*"], false));
    let said = decided(open, "/a", &[("origin", "https://x.example")]);
    assert_eq!(said, "to /a None");
    let allowed = http::header::ACCESS_CONTROL_ALLOW_ORIGIN;
    let mut answer = Fields::default();
    answer.append(&allowed, &HeaderValue::from_static("https://own"));
    let strict = cors(&["https://shop.example"], false);
    strict.apply(Some(b"https://evil.example"), &mut answer);
    assert!(!answer.contains(&allowed));
    strict.apply(Some(b"https://Shop.example"), &mut answer);
    assert_eq!(answer.get(&allowed), Some(&b"https://Shop.example"[..]));
    let exposed = http::header::ACCESS_CONTROL_EXPOSE_HEADERS;
    assert_eq!(answer.get(&exposed), Some(&b"x-c"[..]));
    for text in [
        "",
        "shop.example",
        "https://",
        "https://*",
        "https://*shop",
        "https://a/b",
        "https://a b",
    ] {
        assert!(Origin::new(text).is_err(), "{text}");
    }
}

#[test]
fn hosts_know_the_clients_of_their_own_issuers() {
    let asking = |trust: u8, required: bool| {
        let host = host(1, &["/"]);
        let mut host = Arc::into_inner(host).expect("nobody else has it");
        host.clients = Some(ClientCertificates {
            trust: TrustId([trust; 32]),
            required,
            forward: false,
        });
        Arc::new(host)
    };
    let table = Table::build(vec![
        offer(443, true, &["open.example"], &host(1, &["/"])),
        offer(443, true, &["a.example", "*.a.example"], &asking(1, true)),
        offer(443, true, &["same.example"], &asking(1, true)),
        offer(443, true, &["b.example"], &asking(2, true)),
        offer(443, true, &["soft.example"], &asking(3, false)),
        offer(80, false, &["a.example"], &asking(1, true)),
        offer(80, false, &["soft.example"], &asking(3, false)),
    ])
    .expect("no conflict");
    let wanted = table.clients(443, "x.a.example").map(|asked| asked.trust);
    assert_eq!(wanted, Some(TrustId([1; 32])));
    assert_eq!(table.clients(443, "open.example"), None);
    let none = &Fields::default();
    for (port, sni, trust, host, expect) in [
        (443, "open.example", None, "open.example", "t1"),
        (443, "open.example", None, "a.example", "421 misdirected"),
        (443, "a.example", Some(1), "a.example", "t1"),
        (443, "a.example", None, "a.example", "421 misdirected"),
        (443, "a.example", Some(1), "deep.x.a.example", "t1"),
        (443, "a.example", Some(1), "same.example", "t1"),
        (443, "a.example", Some(1), "b.example", "421 misdirected"),
        (443, "a.example", Some(1), "soft.example", "421 misdirected"),
        (443, "a.example", Some(1), "open.example", "t1"),
        (443, "soft.example", Some(3), "soft.example", "t1"),
        (443, "soft.example", None, "soft.example", "421 misdirected"),
        // The API refuses it, and if it were not so nobody would be let in.
        (80, "", None, "a.example", "421 misdirected"),
        (80, "", None, "soft.example", "t1"),
    ] {
        let trust = trust.map(|one| TrustId([one; 32]));
        let tls = port == 443;
        let head = RequestHead {
            port,
            tls,
            sni: tls.then_some(sni),
            trust: trust.as_ref(),
            host,
            ..get("/", none)
        };
        let found = match decide(&table, &head, &mut Rng::new(1)) {
            Decision::Forward(to) => to.host.tenant_name.clone(),
            Decision::Respond(r) => format!("{} {}", r.status.as_u16(), r.code),
        };
        assert_eq!(found, expect, "{port} {sni} {host}");
    }
}
