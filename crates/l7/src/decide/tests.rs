//! Decisions by data.

use std::{collections::BTreeMap, sync::Arc};

use balance::empty_cell;
use base::{LbId, Rng, ServiceId, TenantId};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::decide;
use crate::{
    Backend, Cluster, Decision, HeaderMatch, Limits, Match, Offered, PathMatch, RequestHead, Route,
    Table, TableError, VirtualHost,
};

fn cluster(service: &str) -> Arc<Cluster> {
    Arc::new(Cluster {
        service: format!("{service}.ns.t").parse().expect("a service"),
        tenant: TenantId(1),
        id: ServiceId(1),
        port: 80,
        cell: empty_cell(),
    })
}

/// `=PATH` exact, `PATH` prefix, then `METHOD` and `name:value` words in any order.
fn matches(text: &str) -> Match {
    let mut m = Match::default();
    for word in text.split(' ') {
        if let Some(path) = word.strip_prefix('=') {
            m.path = PathMatch::Exact(path.into());
        } else if word.starts_with('/') {
            m.path = PathMatch::Prefix(word.into());
        } else if let Some((name, value)) = word.split_once(':') {
            m.headers.push(HeaderMatch {
                name: name.parse::<HeaderName>().expect("a name"),
                value: HeaderValue::from_str(value).expect("a value"),
            });
        } else {
            m.method = Some(word.parse().expect("a method"));
        }
    }
    m
}

/// Routes named by their match, each to a backend of its own.
fn host(tenant: u32, routes: &[&str]) -> Arc<VirtualHost> {
    let routes = routes
        .iter()
        .map(|text| Route {
            name: (*text).into(),
            matches: vec![matches(text)],
            backends: vec![Backend {
                cluster: cluster("a"),
                weight: 1,
            }],
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
    ] {
        let mut map = HeaderMap::new();
        for word in headers.split(' ').filter(|w| !w.is_empty()) {
            let (name, value) = word.split_once(':').expect("name:value");
            map.append(
                name.parse::<HeaderName>().expect("a name"),
                value.parse().expect("a value"),
            );
        }
        let method: Method = method.parse().expect("a method");
        let head = RequestHead {
            port: 80,
            tls: false,
            sni: None,
            method: &method,
            host: "h",
            path,
            headers: &map,
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
            method: &Method::GET,
            host,
            path: "/",
            headers: &HeaderMap::new(),
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
