//! What is not HTTP.

use super::{balancer, check, tenant};
use crate::{
    check_put,
    tests::{NOW, manifest, put, world},
};

/// acme's service `db`, with these fields.
fn db(fields: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: db}},
           spec: {{port: 5432, origins: [{{sites: [aws], addresses: ['10.0.0.9']}}], {fields}}}}}"
    )
}

/// acme's load balancer `lb` of type tcp, to `db`, with these fields.
fn tcp(fields: &[(&str, &str)]) -> String {
    let own = [
        ("hosts", "[]"),
        ("type", "tcp"),
        ("ports", "[5432]"),
        ("routes", "[{backendRefs: [{name: db}]}]"),
    ];
    balancer(&[&own[..], fields].concat())
}

#[test]
fn load_balancers_of_type_tcp() {
    let route = |more: &str| format!("[{{backendRefs: [{{name: db}}], {more}}}]");
    for (field, value, expect) in [
        ("ports", "[5432, 5433]", "good"),
        ("hosts", "[a.acme.example]", "bad-value /spec/hosts"),
        ("ports", "[]", "bad-value /spec/ports"),
        ("ports", "[0]", "bad-value /spec/ports"),
        ("ports", "[1, 1]", "bad-value /spec/ports"),
        // 8080 is where par's users reach port 80.
        ("ports", "[8080]", "port-taken /spec/ports"),
        ("tls", "{certificates: [web]}", "bad-value /spec/tls"),
        ("routes", "[]", "bad-value /spec/routes"),
        ("routes", "[{}]", "bad-value /spec/routes/0/backendRefs"),
        (
            "routes",
            "[{backendRefs: [{name: db}]}, {backendRefs: [{name: db}]}]",
            "bad-value /spec/routes",
        ),
        (
            "routes",
            "[{backendRefs: [{name: db}, {name: gone}]}]",
            "dangling-reference /spec/routes/0/backendRefs/1/name",
        ),
        // cart speaks HTTP.
        (
            "routes",
            "[{backendRefs: [{name: db}, {name: cart}]}]",
            "bad-value /spec/routes/0/backendRefs/1/name",
        ),
        (
            "routes",
            "[{backendRefs: [{name: db, weight: 0}]}]",
            "bad-value /spec/routes/0/backendRefs",
        ),
        ("routes", &route("name: all"), "good"),
        (
            "routes",
            &route("matches: [{path: {value: /}}]"),
            "bad-value /spec/routes/0/matches",
        ),
        (
            "routes",
            &route("filters: [{type: RequestRedirect, requestRedirect: {}}]"),
            "bad-value /spec/routes/0/filters",
        ),
        (
            "routes",
            &route("timeouts: {request: 1s}"),
            "bad-value /spec/routes/0/timeouts",
        ),
        (
            "routes",
            &route("retry: {}"),
            "bad-value /spec/routes/0/retry",
        ),
        (
            "routes",
            &route("buffer: {maxBytes: 1}"),
            "bad-value /spec/routes/0/buffer",
        ),
    ] {
        check(&db("protocol: tcp"), &tcp(&[(field, value)]), expect);
    }
    check(&db("protocol: tls"), &tcp(&[]), "good");
    // Nobody's port by default.
    let unnamed = tcp(&[]).replace("ports: [5432], ", "");
    check(&db("protocol: tcp"), &unnamed, "bad-value /spec/ports");
    // HTTP is not spoken to what is not looked into.
    let http = balancer(&[("routes", "[{backendRefs: [{name: db}]}]")]);
    let expect = "bad-value /spec/routes/0/backendRefs/0/name";
    check(&db("protocol: tcp"), &http, expect);
}

#[test]
fn services_of_protocol_tcp() {
    for (fields, expect) in [
        ("protocol: tcp", "good"),
        ("protocol: tls", "good"),
        (
            "protocol: tcp, balance: {algorithm: maglev, hashOn: [{sourceAddress: {}}]}",
            "good",
        ),
        (
            "protocol: tcp, balance: {algorithm: maglev, hashOn: [{sourceAddress: {}}, {header: a}]}",
            "bad-value /spec/balance/hashOn/1",
        ),
        (
            "protocol: tls, balance: {algorithm: ringHash, hashOn: [{cookie: {name: a}}]}",
            "bad-value /spec/balance/hashOn/0",
        ),
        (
            "protocol: tcp, healthCheck: {http: {}}",
            "bad-value /spec/healthCheck/http",
        ),
    ] {
        check("", &db(fields), expect);
    }
    // The load balancer `web` leads to cart, with HTTP.
    let cart = db("protocol: tcp").replace("name: db", "name: cart");
    check("", &cart, "in-use /spec/protocol");
}

#[test]
fn a_port_that_is_not_shared_has_one_owner() {
    let blue = "{kind: LoadBalancer, metadata: {tenant: blue, namespace: shop, name: other},
        spec: {type: tcp, ports: [5432], advertise: [{public: {}}],
               routes: [{backendRefs: [{name: cart}]}]}}";
    let at = |advertise: &str| tcp(&[("advertise", advertise)]).replace("name: db", "name: cart");
    // Of whom, and with which service, is not said, and does not matter here.
    let taken = "port-taken /spec/ports";
    check(blue, &at("[{public: {}}]"), taken);
    check(blue, &at("[{pops: [nyc]}]"), taken);
    let blue = blue.replace("{public: {}}", "{pops: [par]}");
    check(&blue, &at("[{public: {}}]"), taken);
    check(&blue, &at("[{pops: [par, nyc]}]"), taken);
    let elsewhere = "bad-value /spec/routes/0/backendRefs/0/name";
    check(&blue, &at("[{pops: [nyc]}]"), elsewhere);
    check(&blue, &at("[{sites: [aws], vip: 10.0.0.200}]"), elsewhere);
    // Against HTTP at the same PoPs.
    let mut web = tcp(&[("ports", "[80]")]).replace("name: db", "name: cart");
    check("", &web, taken);
    web = web.replace("{public: {}}", "{sites: [aws], vip: 10.0.0.200}");
    check("", &web, elsewhere);
    let http = balancer(&[("ports", "[5432]")]);
    check(&blue, &http, taken);
    check(
        &blue.replace("par", "nyc"),
        &http.replace("{public: {}}", "{pops: [par]}"),
        "good",
    );
    // Of a tenant's own VIPs.
    let own = "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: other},
        spec: {type: tcp, ports: [5432], advertise: [{sites: [aws], vip: 10.0.0.200}],
               routes: [{backendRefs: [{name: cart}]}]}}";
    check(
        own,
        &at("[{sites: [aws, factory], vip: 10.0.0.200}]"),
        taken,
    );
    check(own, &at("[{sites: [factory], vip: 10.0.0.200}]"), elsewhere);
    check(own, &at("[{sites: [aws], vip: 10.0.0.201}]"), elsewhere);
}

#[test]
fn a_pops_port_map_leaves_what_is_offered() {
    let pop = |map: &str| {
        format!(
            "{{kind: Site, metadata: {{name: par}}, spec: {{role: pop, nodes: [{{name: n1,
               tunnel: {{bind: ['127.1.0.1:7000']}},
               public: {{bind: ['127.1.0.1'], portMap: {{{map}}}}}}}]}}}}"
        )
    };
    let tcp = tcp(&[]).replace("name: db", "name: cart");
    check(&tcp, &pop("80: 8080, 443: 8443"), "good");
    check(
        &tcp,
        &pop("80: 5432"),
        "in-use /spec/nodes/0/public/portMap",
    );
    check(&tcp, &pop("80: 5432, 5432: 80"), "good");
    check("", &tenant("acme", "'*.acme.example'"), "good");
}

#[test]
fn load_balancers_of_type_tls() {
    let tls = |fields: &[(&str, &str)]| {
        let own = [("type", "tls"), ("routes", "[{backendRefs: [{name: db}]}]")];
        balancer(&[&own[..], fields].concat())
    };
    for (field, value, expect) in [
        // 443 is shared with the TLS that ends there.
        ("ports", "[443]", "good"),
        ("ports", "[443, 6443]", "good"),
        ("ports", "[80]", "port-taken /spec/ports"),
        ("ports", "[]", "bad-value /spec/ports"),
        ("hosts", "[]", "bad-value /spec/hosts"),
        ("hosts", "['*.acme.example']", "good"),
        ("hosts", "[cart.acme.example]", "host-taken /spec/hosts/0"),
        (
            "hosts",
            "[cart.blue.example]",
            "host-not-allowed /spec/hosts/0",
        ),
        ("tls", "{certificates: [web]}", "bad-value /spec/tls"),
        (
            "routes",
            "[{backendRefs: [{name: cart}]}]",
            "bad-value /spec/routes/0/backendRefs/0/name",
        ),
    ] {
        check(&db("protocol: tls"), &tls(&[(field, value)]), expect);
    }
    check(&db("protocol: tcp"), &tls(&[]), "good");
    // Neither a port that another has to itself.
    let whole = tcp(&[("ports", "[443]")]).replace("name: db", "name: cart");
    check(
        &whole.replace("name: lb", "name: other"),
        &tls(&[]).replace("name: db", "name: cart"),
        "port-taken /spec/ports",
    );
}

#[test]
fn the_proxy_protocol() {
    for (fields, expect) in [
        ("protocol: tcp, proxyProtocol: v1", "good"),
        ("protocol: tls, proxyProtocol: v2", "good"),
        ("protocol: http, proxyProtocol: v2", "good"),
        (
            "protocol: http2, proxyProtocol: v2",
            "bad-value /spec/proxyProtocol",
        ),
        (
            "protocol: grpc, proxyProtocol: v1",
            "bad-value /spec/proxyProtocol",
        ),
    ] {
        check("", &db(fields), expect);
    }
    let here = "/spec/nodes/0/proxyProtocol";
    for (senders, expect) in [
        ("{from: [10.0.0.0/8, '2001:db8::1']}", "good".to_owned()),
        (
            "{optionalFrom: [10.0.0.0/8], from: [10.1.0.0/16]}",
            "good".to_owned(),
        ),
        ("{}", format!("bad-value {here}")),
        ("{from: [10.0.0.1/8]}", format!("bad-value {here}/from/0")),
        (
            "{optionalFrom: [10.0.0.0/8, lb]}",
            format!("bad-value {here}/optionalFrom/1"),
        ),
        (
            "{from: [10.0.0.0/8], optionalFrom: [10.0.0.0/8]}",
            format!("bad-value {here}/optionalFrom/0"),
        ),
    ] {
        let pop = format!(
            "{{kind: Site, metadata: {{name: par}}, spec: {{role: pop, nodes: [{{name: n1,
               tunnel: {{bind: ['127.1.0.1:7000']}}, proxyProtocol: {senders}}}]}}}}"
        );
        check("", &pop, &expect);
        let gateway = format!(
            "{{kind: Site, metadata: {{tenant: acme, name: aws}},
               spec: {{role: gateway, nodes: [{{name: n1, proxyProtocol: {senders}}}]}}}}"
        );
        check("", &gateway, &expect);
    }
}

#[test]
fn datagrams() {
    let udp = |fields: &[(&str, &str)]| tcp(&[&[("type", "udp")], fields].concat());
    for (field, value, expect) in [
        ("ports", "[53]", "good"),
        // Connections come to 8080 and 443, datagrams do not.
        ("ports", "[8080, 443]", "good"),
        ("hosts", "[a.acme.example]", "bad-value /spec/hosts"),
        ("tls", "{certificates: [web]}", "bad-value /spec/tls"),
    ] {
        check(&db("protocol: udp"), &udp(&[(field, value)]), expect);
    }
    let unnamed = udp(&[]).replace("ports: [5432], ", "");
    check(&db("protocol: udp"), &unnamed, "bad-value /spec/ports");
    let backend = "bad-value /spec/routes/0/backendRefs/0/name";
    check(&db("protocol: tcp"), &udp(&[]), backend);
    check(&db("protocol: udp"), &tcp(&[]), backend);
    let other = |text: String| {
        let other = text.replace("name: lb", "name: other");
        other.replace("name: db", "name: cart")
    };
    let here = udp(&[]).replace("name: db", "name: cart");
    check(&other(udp(&[])), &here, "port-taken /spec/ports");
    check(&other(tcp(&[])), &here, backend);
    for (fields, expect) in [
        ("protocol: udp", "good"),
        (
            "protocol: udp, proxyProtocol: v2",
            "bad-value /spec/proxyProtocol",
        ),
        ("protocol: udp, balance: {algorithm: roundRobin}", "good"),
        (
            "protocol: udp, balance: {algorithm: maglev, hashOn: [{header: a}]}",
            "bad-value /spec/balance/hashOn/0",
        ),
        ("protocol: udp, healthCheck: {port: 8080}", "good"),
        ("protocol: udp, healthCheck: {port: 8080, http: {}}", "good"),
        ("protocol: tcp, healthCheck: {port: 8080, http: {}}", "good"),
        (
            "protocol: udp, healthCheck: {http: {}}",
            "bad-value /spec/healthCheck/http",
        ),
        (
            "protocol: udp, healthCheck: {port: 0}",
            "bad-value /spec/healthCheck/port",
        ),
    ] {
        check("", &db(fields), expect);
    }
}

#[test]
fn load_balancers_of_type_connect() {
    let connect = |fields: &[(&str, &str)]| {
        let own = [("type", "connect"), ("ports", "[3128]")];
        tcp(&[&own[..], fields].concat())
    };
    for (field, value, expect) in [
        ("ports", "[3128, 3129]", "good"),
        ("ports", "[80]", "port-taken /spec/ports"),
        ("ports", "[]", "bad-value /spec/ports"),
        ("hosts", "[db.acme.example]", "good"),
        (
            "hosts",
            "[db.blue.example]",
            "host-not-allowed /spec/hosts/0",
        ),
        ("tls", "{certificates: [web]}", "bad-value /spec/tls"),
        (
            "routes",
            "[{backendRefs: [{name: db, weight: 2}]}]",
            "bad-value /spec/routes/0/backendRefs/0/weight",
        ),
        (
            "routes",
            "[{backendRefs: [{name: cart}]}]",
            "bad-value /spec/routes/0/backendRefs/0/name",
        ),
    ] {
        check(&db("protocol: tcp"), &connect(&[(field, value)]), expect);
    }
}

#[test]
fn the_port_of_http3_has_no_other_datagrams() {
    let udp =
        |port: &str| tcp(&[("type", "udp"), ("ports", port)]).replace("name: db", "name: cart");
    let web = "{kind: LoadBalancer, metadata: {tenant: acme, namespace: shop, name: web},
        spec: {hosts: [cart.acme.example], tls: {certificates: [web], http3: true},
               advertise: [{public: {}}], routes: [{backendRefs: [{name: cart}]}]}}";
    // 8443 is where par's users reach port 443.
    for (port, expect) in [
        ("[443]", "port-taken /spec/ports"),
        ("[8443]", "port-taken /spec/ports"),
        ("[444]", "good"),
    ] {
        check(&udp(port), web, expect);
    }
    for (port, expect) in [
        ("[443]", "port-taken /spec/ports"),
        ("[8443]", "port-taken /spec/ports"),
        ("[80]", "bad-value /spec/routes/0/backendRefs/0/name"),
    ] {
        check(web, &udp(port), expect);
    }
    // Without HTTP/3 all of them are free.
    let plain = web.replace(", http3: true", "");
    check(&udp("[8443]"), &plain, "good");
    // The map may not lead there later, either.
    let par = "{kind: Site, metadata: {name: par}, spec: {role: pop, nodes: [{name: n1,
        tunnel: {bind: ['127.1.0.1:7000']},
        public: {bind: ['127.1.0.1'], portMap: {80: 8080, 443: 444}}}]}}";
    let both = put(&put(&world(), manifest(&udp("[444]"))), manifest(web));
    let problem = check_put(&both, &manifest(par), NOW).expect_err("taken");
    assert_eq!(problem.code, "in-use");
}
