//! Every rule: one good world, one change each, the code and the pointer that answer it.

mod layer4;

use super::*;
use crate::tests::{NOW, key, manifest, put, world};

/// Put `change` into the shared world (with `also` in it) and compare `CODE POINTER`.
fn check(also: &str, change: &str, expect: &str) {
    let mut world = world();
    if !also.is_empty() {
        world = put(&world, manifest(also));
    }
    let object = manifest(change);
    let said = match check_put(&world, &object, NOW) {
        Ok(()) => "good".to_owned(),
        Err(problem) => {
            assert_eq!(
                problem.object.as_deref(),
                Some(object.key().to_string().as_str())
            );
            let status = match problem.code.as_str() {
                "in-use" | "host-taken" | "port-taken" | "id-collision" => 409,
                "host-not-allowed" => 403,
                _ => 422,
            };
            assert_eq!(problem.status, status, "{problem}");
            format!("{} {}", problem.code, problem.pointer.unwrap_or_default())
        }
    };
    assert_eq!(said, expect, "{change}");
}

fn tenant(name: &str, hosts: &str) -> String {
    format!("{{kind: Tenant, metadata: {{name: {name}}}, spec: {{publicHosts: [{hosts}]}}}}")
}

#[test]
fn scopes() {
    for (change, expect) in [
        (
            "{kind: Tenant, metadata: {name: fabric}, spec: {}}",
            "reserved-name /metadata/name",
        ),
        (
            "{kind: Namespace, metadata: {tenant: fabric, name: a}, spec: {}}",
            "reserved-name /metadata/tenant",
        ),
        (
            "{kind: Namespace, metadata: {tenant: nobody, name: a}, spec: {}}",
            "dangling-reference /metadata/tenant",
        ),
        (
            "{kind: Namespace, metadata: {tenant: acme, name: fabric}, spec: {}}",
            "good",
        ),
        (
            "{kind: Service, metadata: {tenant: acme, namespace: none, name: a}, spec: {port: 1, origins: []}}",
            "dangling-reference /metadata/namespace",
        ),
        // A namespace of another tenant is none.
        (
            "{kind: Service, metadata: {tenant: blue, namespace: lab, name: a}, spec: {port: 1, origins: []}}",
            "dangling-reference /metadata/namespace",
        ),
    ] {
        check("", change, expect);
    }
}

#[test]
fn tenants() {
    check(
        "",
        &tenant("acme", "'*.acme.example', acme.example"),
        "good",
    );
    check("", &tenant("carol", "carol.example"), "good");
    check(
        "",
        &tenant("carol", "ok.example, a.acme.example"),
        "host-taken /spec/publicHosts/1",
    );
    check(
        "",
        &tenant("carol", "'*.example'"),
        "host-taken /spec/publicHosts/0",
    );
    check(
        "",
        &tenant("acme", "other.example"),
        "in-use /spec/publicHosts",
    );
    let many: Vec<String> = (0..1001).map(|n| format!("h{n}.example")).collect();
    check(
        "",
        &tenant("carol", &many.join(",")),
        "bad-value /spec/publicHosts",
    );
}

#[test]
fn tokens() {
    for (name, spec, expect) in [
        ("tenant: acme", "site: aws, node: n1", "good"),
        ("tenant: acme", "site: factory", "good"),
        ("tenant: acme", "site: aws", "bad-value /spec/node"),
        (
            "tenant: acme",
            "site: aws, node: n9",
            "dangling-reference /spec/node",
        ),
        (
            "tenant: acme",
            "site: gone",
            "dangling-reference /spec/site",
        ),
        (
            "tenant: acme",
            "site: shop",
            "dangling-reference /spec/site",
        ),
        ("tenant: acme", "site: par", "dangling-reference /spec/site"),
        (
            "tenant: acme",
            "site: factory, validFor: 0s",
            "bad-value /spec/validFor",
        ),
        (
            "tenant: acme",
            "site: factory, validFor: 169h",
            "bad-value /spec/validFor",
        ),
        ("labels: {}", "site: par", "good"),
        (
            "labels: {}",
            "site: aws, node: n1",
            "dangling-reference /spec/site",
        ),
    ] {
        let change = format!("{{kind: Token, metadata: {{{name}, name: t}}, spec: {{{spec}}}}}");
        check("", &change, expect);
    }
}

#[test]
fn sites() {
    let node = "name: n1, tunnel: {bind: ['127.9.0.1:1']}";
    let pop = |nodes: &str| format!("role: pop, nodes: [{nodes}]");
    let node_with = |more: &str| pop(&format!("{{{node}, {more}}}"));
    let gateway = |nodes: &str| format!("role: gateway, nodes: [{nodes}]");
    let fabric = "labels: {}, name: tyo";
    let acme = "tenant: acme, name: dc";
    let many: Vec<String> = (0..65).map(|n| format!("{{name: n{n}}}")).collect();
    let binds: Vec<String> = (1..=17).map(|n| format!("'127.9.0.1:{n}'")).collect();
    for (name, spec, expect) in [
        (fabric, pop(&format!("{{{node}}}")), "good"),
        (acme, gateway("{name: n1}"), "good"),
        (
            acme,
            pop(&format!("{{{node}}}")),
            "bad-value /metadata/tenant",
        ),
        (fabric, gateway("{name: n1}"), "bad-value /metadata/tenant"),
        (
            "tenant: acme, name: par",
            gateway("{name: n1}"),
            "bad-value /metadata/name",
        ),
        (
            "labels: {}, name: aws",
            pop(&format!("{{{node}}}")),
            "bad-value /metadata/name",
        ),
        (
            acme,
            gateway("{name: n1}") + ", attach: {count: 0}",
            "bad-value /spec/attach/count",
        ),
        (
            acme,
            gateway("{name: n1}") + ", attach: {count: 17}",
            "bad-value /spec/attach/count",
        ),
        (acme, gateway(""), "bad-value /spec/nodes"),
        (acme, gateway(&many.join(",")), "bad-value /spec/nodes"),
        (
            acme,
            gateway("{name: n1}, {name: n1}"),
            "bad-value /spec/nodes/1/name",
        ),
        (
            acme,
            gateway(&format!("{{{node}}}")),
            "bad-value /spec/nodes/0/tunnel",
        ),
        (
            acme,
            gateway(&format!("{{{node}}}")) + ", mesh: {topology: full}",
            "good",
        ),
        (
            acme,
            gateway("{name: n1, public: {bind: ['127.0.0.1']}}"),
            "bad-value /spec/nodes/0/public",
        ),
        (fabric, pop("{name: n1}"), "bad-value /spec/nodes/0"),
        (
            fabric,
            pop("{name: n1, tunnel: {bind: []}}"),
            "bad-value /spec/nodes/0/tunnel/bind",
        ),
        (
            fabric,
            pop(&format!(
                "{{name: n1, tunnel: {{bind: [{}]}}}}",
                binds.join(",")
            )),
            "bad-value /spec/nodes/0/tunnel/bind",
        ),
        (
            fabric,
            node_with("public: {bind: []}"),
            "bad-value /spec/nodes/0/public/bind",
        ),
        (
            fabric,
            node_with("public: {bind: ['127.0.0.1'], portMap: {80: 0}}"),
            "bad-value /spec/nodes/0/public/portMap",
        ),
        (
            fabric,
            node_with("public: {bind: ['127.0.0.1'], portMap: {80: 8080, 443: 8080}}"),
            "bad-value /spec/nodes/0/public/portMap",
        ),
    ] {
        let change = format!("{{kind: Site, metadata: {{{name}}}, spec: {{{spec}}}}}");
        check("", &change, expect);
    }
}

#[test]
fn places_of_pops_and_who_selects_them() {
    let node = "{name: n1, tunnel: {bind: ['127.9.0.1:7000']}}";
    let pop = |more: &str| {
        format!(
            "{{kind: Site, metadata: {{name: tyo}}, \
             spec: {{role: pop, nodes: [{node}], {more}}}}}"
        )
    };
    let gateway = |more: &str| {
        format!(
            "{{kind: Site, metadata: {{tenant: acme, name: dc}}, \
             spec: {{role: gateway, nodes: [{{name: n1}}], {more}}}}}"
        )
    };
    let where_it_is = "location: {region: asia}";
    let selects = |what: &str| format!("attach: {{popSelector: {{{what}}}}}");
    let tier = |operator: &str| {
        selects(&format!(
            "matchExpressions: [{{key: tier, operator: {operator}}}]"
        ))
    };
    let selector = "bad-value /spec/attach/popSelector";
    let values = "bad-value /spec/attach/popSelector/matchExpressions/0/values";
    for (change, expect) in [
        (pop(where_it_is), "good"),
        (pop("mesh: {topology: full}"), "bad-value /spec/mesh"),
        (gateway("mesh: {topology: full}"), "good"),
        (gateway(where_it_is), "bad-value /spec/location"),
        (gateway(&tier("DoesNotExist")), "good"),
        (gateway(&selects("matchLabels: {tier: edge}")), selector),
        (gateway(&tier("In")), values),
        (pop(&selects("")), selector),
    ] {
        check("", &change, expect);
    }
}

#[test]
fn links() {
    let link = |whose: &str, spec: &str| {
        format!("{{kind: Link, metadata: {{{whose}name: l}}, spec: {{kind: transit, {spec}}}}}")
    };
    let acme = "tenant: acme, ";
    for (change, expect) in [
        (link("", "a: par, b: nyc"), "good"),
        (link("", "a: par, b: nyc, cost: 1000"), "good"),
        (link(acme, "a: aws, b: nyc"), "good"),
        (link(acme, "a: nyc, b: aws"), "good"),
        (link("", "a: par, b: par"), "bad-value /spec/b"),
        (link("", "a: par, b: gone"), "dangling-reference /spec/b"),
        // A gateway is the tenant's to speak of, and another tenant's is none.
        (link("", "a: aws, b: par"), "dangling-reference /spec/a"),
        (link(acme, "a: shop, b: par"), "dangling-reference /spec/a"),
        (link(acme, "a: par, b: nyc"), "bad-value /spec/a"),
        (link(acme, "a: aws, b: factory"), "bad-value /spec/b"),
        (link("", "a: par, b: nyc, cost: 0"), "bad-value /spec/cost"),
        (
            link("", "a: par, b: nyc, cost: 1001"),
            "bad-value /spec/cost",
        ),
    ] {
        check("", &change, expect);
    }
    let other = "{kind: Link, metadata: {name: m}, spec: {kind: backbone, a: nyc, b: par}}";
    check(other, &link("", "a: par, b: nyc"), "bad-value /spec/a");
    // What somebody says of a site keeps it there.
    let world = put(&world(), manifest(&link(acme, "a: aws, b: nyc")));
    for site in ["sites/nyc", "tenants/acme/sites/aws"] {
        let problem = check_delete(&world, &key(site)).expect_err("it is used");
        assert_eq!(problem.code, "in-use", "{site}");
    }
}

fn service(spec: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: s}}, spec: {{{spec}}}}}"
    )
}

#[test]
fn services() {
    let origin = |origin: &str| service(&format!("port: 80, origins: [{{{origin}}}]"));
    let good = "sites: [aws], addresses: ['10.0.0.1']";
    let many: Vec<String> = (0..1001)
        .map(|n| format!("'10.0.{}.{}'", n / 250, n % 250))
        .collect();
    for (change, expect) in [
        (origin(good), "good"),
        (
            origin("sites: [aws, factory], addresses: ['::1', '[::2]:8', '10.0.0.1:9'], port: 7"),
            "good",
        ),
        (origin("sites: [par], addresses: ['10.0.0.1']"), "good"),
        (
            service(&format!("port: 0, origins: [{{{good}}}]")),
            "bad-value /spec/port",
        ),
        (service("port: 80, origins: []"), "bad-value /spec/origins"),
        (
            origin("sites: [], addresses: ['10.0.0.1']"),
            "bad-value /spec/origins/0/sites",
        ),
        (
            origin("sites: [aws, gone], addresses: ['10.0.0.1']"),
            "dangling-reference /spec/origins/0/sites/1",
        ),
        // blue's gateway does not exist for acme.
        (
            origin("sites: [shop], addresses: ['10.0.0.1']"),
            "dangling-reference /spec/origins/0/sites/0",
        ),
        (
            origin("sites: [aws], addresses: []"),
            "bad-value /spec/origins/0/addresses",
        ),
        (
            origin(&format!("sites: [aws], addresses: [{}]", many.join(","))),
            "bad-value /spec/origins/0/addresses",
        ),
        (
            origin("sites: [aws], addresses: ['10.0.0.1', host]"),
            "bad-value /spec/origins/0/addresses/1",
        ),
        (
            origin("sites: [aws], addresses: ['10.0.0.1:0']"),
            "bad-value /spec/origins/0/addresses/0",
        ),
        (
            origin(&format!("{good}, weight: 0")),
            "bad-value /spec/origins/0/weight",
        ),
        (
            origin(&format!("{good}, capacity: 0")),
            "bad-value /spec/origins/0/capacity",
        ),
        (
            origin(&format!("{good}, capacity: 1000001")),
            "bad-value /spec/origins/0/capacity",
        ),
        (origin(&format!("{good}, capacity: 1000000")), "good"),
        (
            origin(&format!("{good}, port: 0")),
            "bad-value /spec/origins/0/port",
        ),
    ] {
        check("", &change, expect);
    }
}

#[test]
fn health_checks() {
    for (check_spec, expect) in [
        ("interval: 50ms, timeout: 10ms, rise: 1, fall: 20", "good"),
        (
            "http: {path: '/a?b=c', host: a.example, expect: [200, 404]}",
            "good",
        ),
        ("interval: 49ms", "bad-value /spec/healthCheck/interval"),
        ("interval: 301s", "bad-value /spec/healthCheck/interval"),
        ("timeout: 9ms", "bad-value /spec/healthCheck/timeout"),
        ("timeout: 61s", "bad-value /spec/healthCheck/timeout"),
        ("rise: 0", "bad-value /spec/healthCheck/rise"),
        ("fall: 21", "bad-value /spec/healthCheck/fall"),
        (
            "http: {path: healthz}",
            "bad-value /spec/healthCheck/http/path",
        ),
        (
            "http: {path: '/a b'}",
            "bad-value /spec/healthCheck/http/path",
        ),
        (
            "http: {host: 'a b'}",
            "bad-value /spec/healthCheck/http/host",
        ),
        (
            "http: {host: \"a\\nb\"}",
            "bad-value /spec/healthCheck/http/host",
        ),
        (
            "http: {expect: []}",
            "bad-value /spec/healthCheck/http/expect",
        ),
        (
            "http: {expect: [200, 100]}",
            "bad-value /spec/healthCheck/http/expect",
        ),
        (
            "http: {expect: [600]}",
            "bad-value /spec/healthCheck/http/expect",
        ),
    ] {
        let spec = "port: 80, origins: [{sites: [aws], addresses: ['10.0.0.1']}]";
        check(
            "",
            &service(&format!("{spec}, healthCheck: {{{check_spec}}}")),
            expect,
        );
    }
}

/// A load balancer of acme: by default a good one, with these fields instead.
fn balancer(fields: &[(&str, &str)]) -> String {
    let mut spec = vec![
        ("hosts", "[a.acme.example]"),
        ("advertise", "[{public: {}}]"),
        ("routes", "[{backendRefs: [{name: cart}]}]"),
    ];
    for field in fields {
        spec.retain(|(name, _)| name != &field.0);
        spec.push(*field);
    }
    let spec: Vec<String> = spec
        .iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    format!(
        "{{kind: LoadBalancer, metadata: {{tenant: acme, namespace: shop, name: lb}}, spec: {{{}}}}}",
        spec.join(", ")
    )
}

#[test]
fn load_balancers() {
    for (field, value, expect) in [
        ("ports", "[80]", "good"),
        ("ports", "[80, 8081]", "good"),
        ("hosts", "[]", "bad-value /spec/hosts"),
        (
            "hosts",
            "[a.acme.example, b.acme.example, a.acme.example]",
            "bad-value /spec/hosts/2",
        ),
        (
            "hosts",
            "[a.acme.example, evil.blue.example]",
            "host-not-allowed /spec/hosts/1",
        ),
        ("hosts", "[acme.example]", "host-not-allowed /spec/hosts/0"),
        ("hosts", "[cart.acme.example]", "host-taken /spec/hosts/0"),
        ("ports", "[]", "bad-value /spec/ports"),
        ("ports", "[0]", "bad-value /spec/ports"),
        ("ports", "[80, 81, 80]", "bad-value /spec/ports"),
        (
            "ports",
            "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
            "bad-value /spec/ports",
        ),
        ("ports", "[443]", "port-taken /spec/ports"),
        (
            "tls",
            "{ports: [80], certificates: [web]}",
            "bad-value /spec/tls/ports",
        ),
        (
            "tls",
            "{ports: [443, 443], certificates: [web]}",
            "bad-value /spec/tls/ports",
        ),
        (
            "tls",
            "{certificates: []}",
            "bad-value /spec/tls/certificates",
        ),
        (
            "tls",
            "{certificates: [web, none]}",
            "dangling-reference /spec/tls/certificates/1",
        ),
        (
            "tls",
            "{certificates: [web]}",
            "bad-value /spec/tls/certificates",
        ),
        ("advertise", "[]", "bad-value /spec/advertise"),
        (
            "advertise",
            "[{pops: []}]",
            "bad-value /spec/advertise/0/pops",
        ),
        (
            "advertise",
            "[{public: {}}, {pops: [par, tyo]}]",
            "dangling-reference /spec/advertise/1/pops/1",
        ),
        (
            "advertise",
            "[{pops: [aws]}]",
            "dangling-reference /spec/advertise/0/pops/0",
        ),
        (
            "advertise",
            "[{sites: [aws, factory], vip: 192.0.2.1}]",
            "good",
        ),
        (
            "advertise",
            "[{sites: [], vip: 192.0.2.1}]",
            "bad-value /spec/advertise/0/sites",
        ),
        // A PoP is no gateway, and another tenant's is none of ours.
        (
            "advertise",
            "[{sites: [aws, par], vip: 192.0.2.1}]",
            "dangling-reference /spec/advertise/0/sites/1",
        ),
        (
            "advertise",
            "[{sites: [shop], vip: 192.0.2.1}]",
            "dangling-reference /spec/advertise/0/sites/0",
        ),
        (
            "advertise",
            "[{sites: [aws], vip: 224.0.0.1}]",
            "bad-value /spec/advertise/0/vip",
        ),
        ("routes", "[]", "bad-value /spec/routes"),
    ] {
        check("", &balancer(&[(field, value)]), expect);
    }
    let of_blue =
        balancer(&[("hosts", "[a.blue.example]")]).replace("tenant: acme", "tenant: blue");
    check("", &of_blue, "good");
    // The same host on other ports is one owner's business.
    let again = balancer(&[("hosts", "[cart.acme.example]"), ("ports", "[8081]")]);
    check("", &again, "good");
    check(
        "",
        &again.replace("8081", "8081, 443"),
        "host-taken /spec/hosts/0",
    );
}

#[test]
fn routes() {
    for (route, expect) in [
        (
            "backendRefs: [{name: cart}, {name: hidden, weight: 0}]",
            "good",
        ),
        (
            "backendRefs: [{name: cart}], matches: [{path: {type: Exact, value: /a}, method: GET}]",
            "good",
        ),
        ("backendRefs: []", "bad-value /spec/routes/0/backendRefs"),
        (
            "backendRefs: [{name: cart, weight: 0}]",
            "bad-value /spec/routes/0/backendRefs",
        ),
        (
            "backendRefs: [{name: cart}, {name: none}]",
            "dangling-reference /spec/routes/0/backendRefs/1/name",
        ),
        (
            "backendRefs: [{name: cart, namespace: lab}]",
            "dangling-reference /spec/routes/0/backendRefs/0/name",
        ),
        (
            "backendRefs: [{name: cart}], retry: {hedge: {after: 50ms}}",
            "good",
        ),
        (
            "backendRefs: [{name: cart}], retry: {hedge: {after: 0s}}",
            "bad-value /spec/routes/0/retry/hedge/after",
        ),
        (
            "backendRefs: [{name: cart}], retry: {hedge: {after: 11s}}",
            "bad-value /spec/routes/0/retry/hedge/after",
        ),
        ("backendRefs: [{name: cart}], buffer: {maxBytes: 1}", "good"),
        (
            "backendRefs: [{name: cart}], buffer: {maxBytes: 16777216}",
            "good",
        ),
        (
            "backendRefs: [{name: cart}], buffer: {maxBytes: 0}",
            "bad-value /spec/routes/0/buffer/maxBytes",
        ),
        (
            "backendRefs: [{name: cart}], buffer: {maxBytes: 16777217}",
            "bad-value /spec/routes/0/buffer/maxBytes",
        ),
        (
            "buffer: {maxBytes: 1}, filters: [{type: DirectResponse, directResponse: {status: 200}}]",
            "bad-value /spec/routes/0/buffer",
        ),
        (
            "backendRefs: [{name: cart}], timeouts: {request: 0s}",
            "bad-value /spec/routes/0/timeouts/request",
        ),
        (
            "backendRefs: [{name: cart}], timeouts: {request: 2h}",
            "bad-value /spec/routes/0/timeouts/request",
        ),
        (
            "backendRefs: [{name: cart}], matches: [{path: {value: a}}]",
            "bad-value /spec/routes/0/matches/0/path/value",
        ),
        (
            "backendRefs: [{name: cart}], matches: [{}, {headers: [{name: 'a b', value: c}]}]",
            "bad-value /spec/routes/0/matches/1/headers/0/name",
        ),
        (
            "backendRefs: [{name: cart}], matches: [{headers: [{name: a, value: \"b\\nc\"}]}]",
            "bad-value /spec/routes/0/matches/0/headers/0/value",
        ),
    ] {
        check(
            "",
            &balancer(&[("routes", &format!("[{{{route}}}]"))]),
            expect,
        );
    }
    let many = |n: usize, what: &str| vec![what; n].join(",");
    let routes = |inner: &str| balancer(&[("routes", &format!("[{inner}]"))]);
    let route = "{backendRefs: [{name: cart}]}";
    check("", &routes(&many(256, route)), "good");
    check("", &routes(&many(257, route)), "bad-value /spec/routes");
    let matches = format!(
        "{{backendRefs: [{{name: cart}}], matches: [{}]}}",
        many(65, "{}")
    );
    check("", &routes(&matches), "bad-value /spec/routes/0/matches");
    let headers = many(17, "{name: a, value: b}");
    let headers = format!("{{backendRefs: [{{name: cart}}], matches: [{{headers: [{headers}]}}]}}");
    check(
        "",
        &routes(&headers),
        "bad-value /spec/routes/0/matches/0/headers",
    );
}

#[test]
fn balances() {
    for (balance, expect) in [
        ("algorithm: roundRobin, scope: distributed", "good"),
        (
            "algorithm: maglev, hashOn: [{header: x-a}, {sourceAddress: {}}, {queryParam: q}]",
            "good",
        ),
        (
            "algorithm: ringHash, hashOn: [{cookie: {name: id, ttl: 1h, path: /a}}]",
            "good",
        ),
        ("algorithm: maglev", "/hashOn"),
        ("algorithm: weightedByLoad", "good"),
        (
            "algorithm: weightedByLoad, loadReports: {blackout: 0s, expiry: 24h}",
            "good",
        ),
        (
            "algorithm: weightedByLoad, loadReports: {blackout: 61m}",
            "/loadReports/blackout",
        ),
        (
            "algorithm: weightedByLoad, loadReports: {expiry: 999ms}",
            "/loadReports/expiry",
        ),
        ("algorithm: random, loadReports: {}", "/loadReports"),
        ("hashOn: [{header: x-a}]", "/hashOn"),
        (
            "algorithm: maglev, hashOn: [{header: 'x a'}]",
            "/hashOn/0/header",
        ),
        (
            "algorithm: maglev, hashOn: [{queryParam: ''}]",
            "/hashOn/0/queryParam",
        ),
        (
            "algorithm: maglev, hashOn: [{cookie: {name: 'a;b'}}]",
            "/hashOn/0/cookie/name",
        ),
        (
            "algorithm: maglev, hashOn: [{cookie: {name: a, ttl: 9999h}}]",
            "/hashOn/0/cookie/ttl",
        ),
        (
            "algorithm: maglev, hashOn: [{cookie: {name: a, path: '/;x'}}]",
            "/hashOn/0/cookie/path",
        ),
        (
            "algorithm: peakEwma, spillAt: 100, panicThreshold: 50, slowStart: 1h",
            "good",
        ),
        ("spillAt: 0", "/spillAt"),
        ("spillAt: 101", "/spillAt"),
        ("panicThreshold: 101", "/panicThreshold"),
        ("slowStart: 61m", "/slowStart"),
        (
            "algorithm: maglev, hashOn: [{header: x-a}], slowStart: 1s",
            "/slowStart",
        ),
    ] {
        let expect = match expect {
            "good" => "good".to_owned(),
            pointer => format!("bad-value /spec/balance{pointer}"),
        };
        let spec = "port: 80, origins: [{sites: [aws], addresses: ['10.0.0.1']}]";
        check(
            "",
            &service(&format!("{spec}, balance: {{{balance}}}")),
            &expect,
        );
    }
}

#[test]
fn outliers_and_circuits() {
    for (fields, expect) in [
        ("outlier: {}, circuit: {}", "good"),
        (
            "outlier: {consecutiveFailures: 1, ejectionTime: 1s, maxEjectionTime: 24h, \
             maxEjectedPercent: 100}",
            "good",
        ),
        (
            "circuit: {connections: 0, pending: 1, requests: 100, retries: 3}",
            "good",
        ),
        (
            "outlier: {consecutiveFailures: 0}",
            "/outlier/consecutiveFailures",
        ),
        ("outlier: {ejectionTime: 500ms}", "/outlier/ejectionTime"),
        (
            "outlier: {maxEjectionTime: 29s}",
            "/outlier/maxEjectionTime",
        ),
        (
            "outlier: {maxEjectedPercent: 0}",
            "/outlier/maxEjectedPercent",
        ),
    ] {
        let expect = match expect {
            "good" => "good".to_owned(),
            pointer => format!("bad-value /spec{pointer}"),
        };
        let spec = "port: 80, origins: [{sites: [aws], addresses: ['10.0.0.1']}]";
        check("", &service(&format!("{spec}, {fields}")), &expect);
    }
}

#[test]
fn matches() {
    for (route, expect) in [
        (
            "matches: [{path: {type: RegularExpression, value: '/v[0-9]+/.*'}}]",
            "good",
        ),
        (
            "matches: [{path: {type: RegularExpression, value: '('}}]",
            "/matches/0/path/value",
        ),
        (
            "matches: [{path: {type: RegularExpression, value: '(a{999}){999}'}}]",
            "/matches/0/path/value",
        ),
        (
            "matches: [{path: {value: '/a/../b'}}]",
            "/matches/0/path/value",
        ),
        ("matches: [{path: {value: '//a'}}]", "/matches/0/path/value"),
        (
            "matches: [{path: {value: '/%61'}}]",
            "/matches/0/path/value",
        ),
        ("matches: [{queryParams: [{name: a, value: b}]}]", "good"),
        (
            "matches: [{queryParams: [{name: '', value: b}]}]",
            "/matches/0/queryParams/0/name",
        ),
        (
            "matches: [{headers: [{name: a, type: RegularExpression, value: '['}]}]",
            "/matches/0/headers/0/value",
        ),
        ("timeouts: {request: 5s, backendRequest: 1s}", "good"),
        (
            "timeouts: {request: 1s, backendRequest: 5s}",
            "/timeouts/backendRequest",
        ),
        (
            "retry: {attempts: 3, codes: [502, 503], backoff: 50ms}",
            "good",
        ),
        ("retry: {attempts: 11}", "/retry/attempts"),
        ("retry: {codes: [500, 200]}", "/retry/codes/1"),
        ("retry: {backoff: 1m}", "/retry/backoff"),
    ] {
        with(route, expect);
    }
}

/// A route to a Service, with this beside it.
fn with(route: &str, expect: &str) {
    let expect = match expect {
        "good" => "good".to_owned(),
        pointer if pointer.ends_with("backendRef/name") => {
            format!("dangling-reference /spec/routes/0{pointer}")
        }
        pointer => format!("bad-value /spec/routes/0{pointer}"),
    };
    let routes = format!("[{{backendRefs: [{{name: cart}}], {route}}}]");
    check("", &balancer(&[("routes", &routes)]), &expect);
}

#[test]
fn filters() {
    for (route, expect) in [
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-a, value: b}], remove: [x-c]}}]",
            "good",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: Host, value: b}]}}]",
            "/filters/0/requestHeaderModifier/set/0/name",
        ),
        (
            "filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Transfer-Encoding]}}]",
            "/filters/0/requestHeaderModifier/remove/0",
        ),
        (
            "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: sealane-x, value: b}]}}]",
            "/filters/0/responseHeaderModifier/add/0/name",
        ),
        (
            "filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {add: [{name: x, value: \"a\\nb\"}]}}]",
            "/filters/0/responseHeaderModifier/add/0/value",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {hostname: inner.example, path: {type: ReplaceFullPath, replaceFullPath: /x}}}]",
            "good",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {hostname: 'a b'}}]",
            "/filters/0/urlRewrite/hostname",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: 'x?y'}}}]",
            "/filters/0/urlRewrite/path/replaceFullPath",
        ),
        (
            "matches: [{path: {type: Exact, value: /a}}], filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x}}}]",
            "/filters",
        ),
        (
            "filters: [{type: URLRewrite, urlRewrite: {}}, {type: URLRewrite, urlRewrite: {}}]",
            "/filters/1",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: hidden}, percent: 10}}]",
            "good",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: none}}}]",
            "/filters/0/requestMirror/backendRef/name",
        ),
        (
            "filters: [{type: RequestMirror, requestMirror: {backendRef: {name: hidden}, percent: 101}}]",
            "/filters/0/requestMirror/percent",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['https://*.a.example'], allowMethods: [GET], maxAge: 60}}]",
            "good",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: []}}]",
            "/filters/0/cors/allowOrigins",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['a.example']}}]",
            "/filters/0/cors/allowOrigins/0",
        ),
        (
            "filters: [{type: CORS, cors: {allowOrigins: ['*'], allowHeaders: ['x y']}}]",
            "/filters/0/cors/allowHeaders/0",
        ),
        (
            "filters: [{type: Fault, fault: {delay: {duration: 1s}, abort: {status: 503, percent: 5}}}]",
            "good",
        ),
        (
            "filters: [{type: Fault, fault: {delay: {duration: 2m}}}]",
            "/filters/0/fault/delay/duration",
        ),
        (
            "filters: [{type: Fault, fault: {abort: {status: 100}}}]",
            "/filters/0/fault/abort/status",
        ),
        (
            "filters: [{type: RequestRedirect, requestRedirect: {}}]",
            "/backendRefs",
        ),
    ] {
        with(route, expect);
    }
}

#[test]
fn filters_that_answer() {
    for (filter, expect) in [
        (
            "{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 301}}",
            "good",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {statusCode: 200}}",
            "bad-value /spec/routes/0/filters/0/requestRedirect/statusCode",
        ),
        (
            "{type: DirectResponse, directResponse: {status: 200, body: hello}}",
            "good",
        ),
        (
            "{type: DirectResponse, directResponse: {status: 204, body: hello}}",
            "bad-value /spec/routes/0/filters/0/directResponse/body",
        ),
        (
            "{type: DirectResponse, directResponse: {status: 99}}",
            "bad-value /spec/routes/0/filters/0/directResponse/status",
        ),
        (
            "{type: RequestRedirect, requestRedirect: {}}, {type: DirectResponse, directResponse: {status: 200}}",
            "bad-value /spec/routes/0/filters/1",
        ),
    ] {
        let routes = format!("[{{filters: [{filter}]}}]");
        check("", &balancer(&[("routes", &routes)]), expect);
    }
}

#[test]
fn certificates() {
    let world = world();
    let stored = world
        .find(&key("tenants/acme/namespaces/shop/certificates/web"))
        .expect("stored");
    let try_it = |change: &dyn Fn(&mut api::CertificateSpec)| {
        let mut object = stored.clone();
        let Spec::Certificate(spec) = &mut object.spec else {
            panic!("a certificate")
        };
        change(spec);
        match check_put(&world, &object, NOW) {
            Ok(()) => "good".to_owned(),
            Err(p) => format!("{} {}", p.code, p.pointer.unwrap_or_default()),
        }
    };
    let day = std::time::Duration::from_secs(86_400);
    let (other, _) = pki::self_signed(&["x.acme.example".to_owned()], NOW, day).expect("a pair");
    let (old, old_key) =
        pki::self_signed(&["cart.acme.example".to_owned()], NOW - day * 9, day).expect("a pair");
    let self_signed = |spec: &mut api::CertificateSpec| {
        spec.source = api::CertificateSource::SelfSigned;
        spec.private_key = None;
    };
    assert_eq!(try_it(&|_| ()), "good");
    assert_eq!(try_it(&|s| s.hosts.clear()), "bad-value /spec/hosts");
    // A load balancer serves cart.acme.example with it.
    let other_host: api::HostPattern = "x.acme.example".parse().expect("a host");
    assert_eq!(
        try_it(&|s| s.hosts = vec![other_host.clone()]),
        "in-use /spec/hosts"
    );
    let foreign = "x.blue.example"
        .parse::<api::HostPattern>()
        .expect("a host");
    assert_eq!(
        try_it(&|s| s.hosts.push(foreign.clone())),
        "bad-value /spec/hosts"
    );
    assert_eq!(
        try_it(&|s| s.certificate = None),
        "missing-field /spec/certificate"
    );
    assert_eq!(
        try_it(&|s| s.private_key = None),
        "missing-field /spec/privateKey"
    );
    assert_eq!(
        try_it(&|s| s.certificate = Some("x".into())),
        "bad-value /spec/certificate"
    );
    assert_eq!(
        try_it(&|s| s.private_key = Some("x".into())),
        "bad-value /spec/privateKey"
    );
    assert_eq!(
        try_it(&|s| s.certificate = Some(other.clone())),
        "bad-value /spec/privateKey"
    );
    let expired = |s: &mut api::CertificateSpec| {
        (s.certificate, s.private_key) = (Some(old.clone()), Some(old_key.clone()));
    };
    assert_eq!(try_it(&expired), "bad-value /spec/certificate");
    assert_eq!(try_it(&self_signed), "bad-value /spec/source");
    let complete = |s: &mut api::CertificateSpec| {
        self_signed(s);
        s.certificate = None;
    };
    assert_eq!(try_it(&complete), "good");
}

/// A router of acme's aws with these fields.
fn router(fields: &str) -> String {
    let given = |name: &str| fields.contains(&format!("{name}:"));
    let defaults = [
        ("site", "aws"),
        ("peerAddress", "192.0.2.254"),
        ("peerASN", "65001"),
        ("localASN", "65010"),
    ];
    let missing = defaults.iter().filter(|(name, _)| !given(name));
    let missing: String = missing
        .map(|(name, value)| format!("{name}: {value}, "))
        .collect();
    format!("{{kind: BGPPeer, metadata: {{tenant: acme, name: tor}}, spec: {{{missing}{fields}}}}}")
}

#[test]
fn routers() {
    let statement = "{name: a, match: {prefixes: [192.0.2.0/24 le 32]}, then: accept}";
    for (fields, expect) in [
        ("", "good"),
        ("site: par", "dangling-reference /spec/site"),
        ("site: shop", "dangling-reference /spec/site"),
        ("peerAddress: '0.0.0.0'", "bad-value /spec/peerAddress"),
        ("peerAddress: 'ff02::1'", "bad-value /spec/peerAddress"),
        ("peerPort: 0", "bad-value /spec/peerPort"),
        ("peerASN: 0", "bad-value /spec/peerASN"),
        ("localASN: 0", "bad-value /spec/localASN"),
        ("localAddress: 192.0.2.1", "good"),
        (
            "localAddress: '2001:db8::1'",
            "bad-value /spec/localAddress",
        ),
        ("holdTime: 0s", "good"),
        ("holdTime: 2s", "bad-value /spec/holdTime"),
        ("restartTime: 2h", "bad-value /spec/restartTime"),
        ("auth: {password: ''}", "bad-value /spec/auth/password"),
        ("auth: {password: secret}", "good"),
        ("bfd: {}", "good"),
        ("bfd: {interval: 1ms}", "bad-value /spec/bfd/interval"),
        ("bfd: {multiplier: 0}", "bad-value /spec/bfd/multiplier"),
        ("bfd: {multihop: 0}", "bad-value /spec/bfd/multihop"),
        (&format!("export: [{statement}]"), "good"),
        (
            &format!("export: [{statement}, {{name: b, then: perhaps}}]"),
            "bad-value /spec/export/1/then",
        ),
        (
            &format!("import: [{}]", statement.replace("/24", "/33")),
            "bad-value /spec/import/0/match/prefixes/0",
        ),
        (
            "export: [{name: a, colour: 1, then: accept}]",
            "bad-value /spec/export/0/colour",
        ),
    ] {
        check("", &router(fields), expect);
    }
    let twin = router("").replace("name: tor", "name: other");
    check(&twin, &router(""), "bad-value /spec/peerAddress");
    check(&twin, &router("peerPort: 1179"), "good");
    check(&twin, &router("site: factory"), "good");
}

#[test]
fn nothing_in_use_is_deleted() {
    let world = put(&world(), manifest(&router("site: factory")));
    for (path, user) in [
        ("tenants/acme/bgppeers/tor", ""),
        ("tenants/acme", "acme"),
        ("tenants/acme/namespaces/shop", "shop"),
        ("tenants/acme/namespaces/lab", ""),
        ("sites/par", "loadbalancers"),
        ("sites/nyc", ""),
        ("tenants/acme/sites/aws", "services"),
        ("tenants/acme/sites/factory", "acme"),
        ("tenants/acme/tokens/join", ""),
        (
            "tenants/acme/namespaces/shop/services/cart",
            "loadbalancers/web",
        ),
        ("tenants/acme/namespaces/shop/services/hidden", ""),
        (
            "tenants/acme/namespaces/shop/certificates/web",
            "loadbalancers/web",
        ),
        ("tenants/acme/namespaces/shop/loadbalancers/web", ""),
        ("tenants/acme/namespaces/shop/services/unheard-of", ""),
    ] {
        match check_delete(&world, &key(path)) {
            Ok(()) => assert_eq!(user, "", "{path}"),
            Err(problem) => {
                assert_eq!(
                    (problem.status, problem.code.as_str()),
                    (409, "in-use"),
                    "{path}"
                );
                assert!(
                    !user.is_empty() && problem.title.contains(user),
                    "{path}: {problem}"
                );
                assert_eq!(problem.object.as_deref(), Some(path));
            }
        }
    }
}
