//! Policies: checked, projected to whoever needs them, compiled.

use http::Method;
use l7::{
    Decision, Fields, RequestHead, StreamClaim, admit, decide,
    policy::{Buckets, Guard, Meter, Subject, Undecided, Verdict, judge},
};

use super::*;
use crate::{Cells, Me, check_delete, compile};

const METADATA: &str = "metadata: {tenant: acme, namespace: shop, name: edge}";

fn policy(rules: &str) -> String {
    format!("{{kind: ServicePolicy, {METADATA}, spec: {{rules: [{rules}]}}}}")
}

fn service(policies: &str) -> String {
    format!(
        "{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: cart}},
          spec: {{port: 8080, policies: [{policies}],
                  origins: [{{sites: [aws], addresses: ['10.0.0.1']}}]}}}}"
    )
}

fn balancer(namespace: &str, policies: &str) -> String {
    format!(
        "{{kind: LoadBalancer, metadata: {{tenant: acme, namespace: {namespace}, name: other}},
          spec: {{hosts: [other.acme.example], advertise: [{{pops: [par]}}],
                  policies: [{policies}],
                  routes: [{{backendRefs: [{{namespace: shop, name: cart}}]}}]}}}}"
    )
}

fn namespace(isolation: &str) -> String {
    format!(
        "{{kind: Namespace, metadata: {{tenant: acme, name: shop}},
          spec: {{isolation: {isolation}}}}}"
    )
}

/// The shared world with these in it.
fn with(manifests: &[&str]) -> World {
    let objects = manifests.iter().map(|text| manifest(text));
    objects.fold(world(), |world, object| put(&world, object))
}

fn said(world: &World, text: &str) -> String {
    match check_put(world, &manifest(text), NOW) {
        Ok(()) => "good".to_owned(),
        Err(problem) => format!("{} {}", problem.code, problem.pointer.unwrap_or_default()),
    }
}

#[test]
fn rules_are_checked() {
    let all = "name: all, action: {allow: {}}";
    let rules = |count: usize| {
        let rules = (0..count).map(|n| format!("{{name: r{n}, action: {{allow: {{}}}}}}"));
        rules.collect::<Vec<_>>().join(",")
    };
    let list = |field: &str, count: usize, entry: &dyn Fn(usize) -> String| {
        let entries: Vec<String> = (0..count).map(entry).collect();
        format!("{{{all}, request: {{{field}: [{}]}}}}", entries.join(","))
    };
    let regular = |n: usize| format!("{{type: RegularExpression, value: '/{n}'}}");
    for (rules, expect) in [
        (format!("{{{all}}}"), "good"),
        (rules(256), "good"),
        (rules(257), "bad-value /spec/rules"),
        (String::new(), "bad-value /spec/rules"),
        (
            format!("{{{all}}}, {{{all}}}"),
            "bad-value /spec/rules/1/name",
        ),
        (
            format!(
                "{{{all}, client: {{prefixes: [10.0.0.0/8, '::1'], notPrefixes: [10.1.0.0/16]}}}}"
            ),
            "good",
        ),
        (
            format!("{{{all}, client: {{prefixes: [10.0.0.0/8, 10.0.0.1/8]}}}}"),
            "bad-value /spec/rules/0/client/prefixes/1",
        ),
        (
            format!("{{{all}, client: {{notPrefixes: ['::1', '::1']}}}}"),
            "bad-value /spec/rules/0/client/notPrefixes/1",
        ),
        (
            format!("{{{all}, server: {{services: [cart, lab/cart, gone]}}}}"),
            "good",
        ),
        (
            "{name: all, action: {deny: {status: 399}}}".to_owned(),
            "bad-value /spec/rules/0/action/deny/status",
        ),
        (
            "{name: all, action: {deny: {status: 500}}}".to_owned(),
            "bad-value /spec/rules/0/action/deny/status",
        ),
        (
            format!("{{{all}, expiresAt: '2026-12-31T23:59:59+01:00'}}"),
            "good",
        ),
        (
            format!(
                "{{{all}, request: {{methods: [GET], hosts: ['*.example'], paths: [{{value: /a}}],
                   headers: [{{name: X-A, value: a}}], queryParams: [{{name: a, value: b}}]}}}}"
            ),
            "good",
        ),
        (
            format!("{{{all}, request: {{paths: [{{value: /a}}, {{value: /a/../b}}]}}}}"),
            "bad-value /spec/rules/0/request/paths/1/value",
        ),
        (
            format!("{{{all}, request: {{headers: [{{name: Sealane-Client, value: a}}]}}}}"),
            "bad-value /spec/rules/0/request/headers/0/name",
        ),
        (
            format!("{{{all}, request: {{headers: [{{name: 'a b', value: a}}]}}}}"),
            "bad-value /spec/rules/0/request/headers/0/name",
        ),
        (list("paths", 64, &regular), "good"),
        (list("paths", 65, &regular), "bad-value /spec/rules"),
        (
            list("paths", 257, &|n| format!("{{value: /{n}}}")),
            "bad-value /spec/rules/0/request/paths",
        ),
        (
            list("hosts", 257, &|n| format!("h{n}.example")),
            "bad-value /spec/rules/0/request/hosts",
        ),
    ] {
        let text = policy(&rules);
        let shown: String = text.chars().take(300).collect();
        assert_eq!(said(&world(), &text), expect, "{shown}");
    }
    for (text, pointer) in [
        ("{name: a, action: {}}", "/spec/rules/0/action"),
        (
            "{name: a, action: {allow: {}, deny: {}}}",
            "/spec/rules/0/action",
        ),
        (
            "{name: a, action: {deny: {code: 1}}}",
            "/spec/rules/0/action",
        ),
        ("{name: a}", "/spec/rules/0/action"),
        ("{name: A, action: {allow: {}}}", "/spec/rules/0/name"),
        (
            "{name: a, action: {allow: {}}, client: {labels: {}}}",
            "/spec/rules/0/client/labels",
        ),
        (
            "{name: a, action: {allow: {}}, expiresAt: tomorrow}",
            "/spec/rules/0/expiresAt",
        ),
        (
            "{name: a, action: {allow: {}}, server: {services: [a/b/c]}}",
            "/spec/rules/0/server/services/0",
        ),
    ] {
        let refused = api::manifest::parse(&policy(text)).expect_err(text);
        let place = refused.problem.pointer.unwrap_or_default();
        assert!(place.starts_with(pointer), "{text}: {place}");
    }
}

#[test]
fn names_are_checked() {
    let edge = policy("{name: all, action: {deny: {}}}");
    let there = with(&[&edge]);
    for (world, text, expect) in [
        (&there, service("edge"), "good"),
        (&there, service("shop/edge"), "good"),
        (&there, balancer("lab", "shop/edge"), "good"),
        (
            &there,
            balancer("lab", "edge"),
            "dangling-reference /spec/policies/0",
        ),
        (
            &there,
            service("edge, gone"),
            "dangling-reference /spec/policies/1",
        ),
        (
            &there,
            service("edge, shop/edge"),
            "bad-value /spec/policies/1",
        ),
        (
            &there,
            service(&vec!["edge"; 17].join(",")),
            "bad-value /spec/policies",
        ),
    ] {
        assert_eq!(said(world, &text), expect, "{text}");
    }
    let path = key("tenants/acme/namespaces/shop/servicepolicies/edge");
    check_delete(&there, &path).expect("nobody names it");
    for (user, name) in [
        (service("edge"), "services/cart"),
        (balancer("lab", "shop/edge"), "loadbalancers/other"),
    ] {
        let problem = check_delete(&with(&[&edge, &user]), &path).expect_err("it is named");
        assert_eq!((problem.status, &*problem.code), (409, "in-use"));
        assert!(problem.title.contains(name), "{problem}");
    }
}

#[test]
fn a_closed_namespace_is_no_backend_unless_a_policy_allows() {
    let closed = namespace("closed");
    let allows = policy("{name: lab, request: {methods: [GET]}, action: {allow: {}}}");
    let denies = policy("{name: lab, action: {deny: {}}}");
    let shadow = allows.replace("rules:", "effect: shadow, rules:");
    let edge = service("edge");
    let refused = "namespace-closed /spec/routes/0/backendRefs/0/name";
    for (there, from, expect) in [
        (vec![], "lab", "good"),
        (vec![&closed], "lab", refused),
        (vec![&closed], "shop", "good"),
        (vec![&closed, &denies, &edge], "lab", refused),
        (vec![&closed, &shadow, &edge], "lab", refused),
        (vec![&closed, &allows], "lab", refused),
        (vec![&closed, &allows, &edge], "lab", "good"),
    ] {
        let there: Vec<&str> = there.iter().map(|text| text.as_str()).collect();
        assert_eq!(
            said(&with(&there), &balancer(from, "")),
            expect,
            "{there:?}"
        );
    }
    // Who closes a namespace needs nobody's leave.
    let open = with(&[&balancer("lab", "")]);
    assert_eq!(said(&open, &closed), "good");
}

#[test]
fn each_site_gets_the_policies_that_it_enforces() {
    let edge = policy("{name: all, action: {allow: {}}}");
    let front = edge.replace("name: edge", "name: front");
    let unused = edge.replace("name: edge", "name: unused");
    let closed = namespace("closed");
    let world = with(&[
        &edge,
        &front,
        &unused,
        &service("edge"),
        &balancer("shop", "front"),
        &closed,
    ]);
    let ids = ids(&world);
    for (at, expect) in [
        ("par.fabric", vec!["edge", "front", "shop"]),
        // Only the load balancer that names no policy is offered there, or leads there.
        ("nyc.fabric", vec!["edge", "shop"]),
        ("aws.acme", vec!["edge", "shop"]),
        ("factory.acme", vec![]),
        ("shop.blue", vec![]),
    ] {
        let resources = project(&world, &ids, &site(at)).resources;
        let kinds = [api::Kind::ServicePolicy, api::Kind::Namespace];
        let names = resources.keys().filter(|key| kinds.contains(&key.kind));
        let mut names: Vec<&str> = names.map(|key| key.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, expect, "{at}");
    }
}

/// What a guard says of `METHOD PATH` from 10.0.0.1.
fn verdict(guard: &Guard, request: &str) -> String {
    let (method, path) = request.split_once(' ').expect("METHOD PATH");
    let method: Method = method.parse().expect("a method");
    let fields = Fields::default();
    let head = head(&method, path, &fields);
    let service = "cart.shop.acme".parse().expect("a service");
    let client = "10.0.0.1".parse().ok();
    let subject = Subject::new(&head, "shop/other", client, Some(&service));
    let meter = Meter {
        buckets: Some(&Buckets::new(1)),
        now: base::Instant::ZERO,
    };
    let judgement = judge(guard, &subject, NOW, &meter);
    match (judgement.verdict, judgement.by) {
        (Verdict::Allow, None) => "pass".to_owned(),
        (Verdict::Allow, Some(by)) => format!("allow {by}"),
        (Verdict::Deny(status), by) => {
            let by = by.map(|by| format!(" {by}")).unwrap_or_default();
            format!("{}{by}", status.as_str())
        }
        (Verdict::Limit(_), _) => "429".to_owned(),
    }
}

fn head<'a>(method: &'a Method, path: &'a str, fields: &'a Fields) -> RequestHead<'a> {
    RequestHead {
        port: 80,
        tls: false,
        sni: None,
        trust: None,
        method,
        host: "other.acme.example",
        authority: "other.acme.example",
        path,
        query: None,
        fields,
    }
}

#[test]
fn policies_are_compiled_where_they_are_enforced() {
    let edge = policy(
        "{name: old, expiresAt: '2000-01-01T00:00:00Z', action: {deny: {}}},
         {name: read, client: {prefixes: [10.0.0.0/8]}, request: {methods: [GET]},
          server: {services: [cart]}, action: {allow: {}}},
         {name: admin, request: {paths: [{value: /admin}]}, action: {deny: {status: 404}}}",
    )
    .replace("rules:", "algorithm: denyOverrides, rules:");
    let world = with(&[
        &edge,
        &service("edge"),
        &balancer("shop", "shop/edge"),
        &namespace("closed"),
    ]);
    let ids = ids(&world);
    let compiled = |at: &str| {
        let me = Me {
            site: site(at),
            node: "n1".parse().expect("a name"),
        };
        compile(&bundle(&world, &ids, at, 7), &me, &Cells::new()).expect(at)
    };
    let par = compiled("par.fabric");
    let (method, fields) = (Method::GET, Fields::default());
    let head = head(&method, "/", &fields);
    let Decision::Forward(to) = decide(&par.ingress, &head, &mut base::Rng::new(1)) else {
        panic!("it is forwarded");
    };
    let (front, back) = (&to.host.guard, &to.cluster.guard);
    assert_eq!(
        (front.undecided, back.undecided),
        (Undecided::Deny, Undecided::DenyForeign)
    );
    let aws = compiled("aws.acme");
    let plan = &aws.services[&(to.cluster.tenant, to.cluster.id)];
    let endpoint = *plan.own.keys().next().expect("an endpoint");
    let set = balance::EndpointSet::build(
        &plan.policy,
        base::Instant::ZERO,
        vec![balance::Endpoint {
            key: endpoint,
            site: site("aws.acme"),
            health: balance::Health::Healthy,
            weight: 1,
            distance: None,
            reachable: true,
            since: None,
            ejected: false,
            share: balance::WHOLE,
            stats: std::sync::Arc::default(),
        }],
    );
    plan.cell.store(std::sync::Arc::new(set));
    let claim = StreamClaim {
        authority: "cart.shop.acme:8080",
        endpoint,
        lb: "shop/other",
    };
    let admitted = admit(&aws.egress, &site("par.fabric"), &claim).expect("admitted");
    for (guard, undecided) in [
        (front, "403"),
        (back, "pass"),
        (&admitted.cluster.guard, "pass"),
    ] {
        assert_eq!(verdict(guard, "GET /a"), "allow shop/edge/read");
        assert_eq!(verdict(guard, "GET /admin"), "404 shop/edge/admin");
        assert_eq!(verdict(guard, "POST /a"), undecided);
    }
}

#[test]
fn rates_are_checked() {
    let limited = |limit: &str| {
        let inside = policy(&format!(
            "{{name: all, action: {{rateLimit: {{{limit}}}}}}}"
        ));
        let lb = balancer("lab", "").replace("policies: []", &format!("rateLimit: {{{limit}}}"));
        [said(&world(), &inside), said(&world(), &lb)]
    };
    for (limit, expect) in [
        ("requests: 1, per: 1s", "good"),
        (
            "requests: 1000000, per: 24h, burst: 1, key: [{sourceAddress: {}}, {header: X-A}]",
            "good",
        ),
        ("requests: 0, per: 1s", "/requests"),
        ("requests: 1000001, per: 1s", "/requests"),
        ("requests: 1, per: 1s, burst: 0", "/burst"),
        ("requests: 1, per: 500ms", "/per"),
        ("requests: 1, per: 1s500ms", "/per"),
        ("requests: 1, per: 25h", "/per"),
        (
            "requests: 1, per: 1s, key: [{header: 'a b'}]",
            "/key/0/header",
        ),
    ] {
        let [inside, lb] = limited(limit);
        let at = |above: &str| match expect {
            "good" => expect.to_owned(),
            place => format!("bad-value {above}{place}"),
        };
        assert_eq!(inside, at("/spec/rules/0/action/rateLimit"), "{limit}");
        assert_eq!(lb, at("/spec/rateLimit"), "{limit}");
    }
}

const KEYS: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "_0LoFStupKSgKZEu0AYWx47SFBsDGZY9GxJ-vtosndo"}]}"#;

#[test]
fn tokens_are_checked() {
    let provider = |change: (&str, &str)| {
        let good = format!("issuer: 'https://id.example', audiences: [shop], jwks: '{KEYS}'");
        let list = format!("jwt: [{{{good}}}], policies: []");
        balancer("shop", "").replace("policies: []", &list.replace(change.0, change.1))
    };
    for (change, expect) in [
        (("", ""), "good"),
        (
            (
                "audiences: [shop]",
                "from: [{header: X-A}, {header: authorization}], forward: false",
            ),
            "good",
        ),
        (
            (
                "audiences: [shop]",
                "from: [{cookie: a}, {queryParam: b}], clockSkew: 5m",
            ),
            "good",
        ),
        (
            ("audiences: [shop]", "from: [{cookie: a}], forward: false"),
            "bad-value /spec/jwt/0/forward",
        ),
        (
            ("audiences: [shop]", "clockSkew: 301s"),
            "bad-value /spec/jwt/0/clockSkew",
        ),
        (
            (
                "audiences: [shop]",
                "from: [{header: X-A}, {header: connection}]",
            ),
            "bad-value /spec/jwt/0/from/1/header",
        ),
        (
            ("audiences: [shop]", "from: [{cookie: 'a b'}]"),
            "bad-value /spec/jwt/0/from/0/cookie",
        ),
        (
            ("audiences: [shop]", "audiences: [a, '']"),
            "bad-value /spec/jwt/0/audiences/1",
        ),
        (("https://id.example", ""), "bad-value /spec/jwt/0/issuer"),
        (("Ed25519", "X25519"), "bad-value /spec/jwt/0/jwks"),
        (("\"keys\"", "\"key\""), "bad-value /spec/jwt/0/jwks"),
        (
            (
                "policies: []",
                "rateLimit: {requests: 1, per: 1s, key: [{claim: sub}]}",
            ),
            "good",
        ),
    ] {
        assert_eq!(said(&world(), &provider(change)), expect, "{change:?}");
    }
    let twice = provider(("", "")).replace(
        "jwt: [",
        &format!("jwt: [{{issuer: 'https://id.example', jwks: '{KEYS}'}}, "),
    );
    assert_eq!(said(&world(), &twice), "bad-value /spec/jwt/1/issuer");
    let limit = "rateLimit: {requests: 1, per: 1s, key: [{claim: sub}]}";
    let limited = balancer("shop", "").replace("policies: []", limit);
    assert_eq!(said(&world(), &limited), "bad-value /spec/rateLimit/key");
}

#[test]
fn rules_about_tokens_go_where_tokens_are_verified() {
    let plain = policy("{name: all, action: {allow: {}}}");
    let with_jwt = |policies: &str| {
        let list = format!(
            "jwt: [{{issuer: 'https://id.example', jwks: '{KEYS}'}}], policies: [{policies}]"
        );
        balancer("shop", "").replace("policies: []", &list)
    };
    for rule in [
        "request: {jwt: present}, action: {allow: {}}",
        "request: {claims: [{name: sub, value: ann}]}, action: {allow: {}}",
        "action: {rateLimit: {requests: 1, per: 1s, key: [{claim: sub}]}}",
    ] {
        let claims = policy(&format!("{{name: all, {rule}}}"));
        let there = with(&[&claims]);
        let refused = "bad-value /spec/policies/0";
        for (user, expect) in [
            (with_jwt("edge"), "good"),
            (balancer("shop", "edge"), refused),
            (service("edge"), refused),
        ] {
            assert_eq!(said(&there, &user), expect, "{rule}: {user}");
            // The same when the policy comes after.
            let after = with(&[&plain, &user]);
            let expect = if expect == "good" {
                expect
            } else {
                "bad-value /spec/rules"
            };
            assert_eq!(said(&after, &claims), expect, "{rule}: {user}");
        }
    }
    let bad = policy("{name: all, request: {claims: [{name: '', value: a}]}, action: {allow: {}}}");
    let place = "bad-value /spec/rules/0/request/claims/0/name";
    assert_eq!(said(&world(), &bad), place);
    // Keys go where tokens are verified, and nowhere else.
    let world = with(&[&plain, &with_jwt("edge"), &service("")]);
    let ids = ids(&world);
    for (at, has) in [("par.fabric", true), ("aws.acme", false)] {
        let text = format!("{:?}", project(&world, &ids, &site(at)));
        assert_eq!(text.contains("id.example"), has, "{at}");
    }
}

fn authority(planet: &str) -> String {
    let planet = planet.parse().expect("a planet");
    let made = pki::Authority::create(&planet, NOW).expect("an authority");
    pki::certificate_pem(made.certificate_der())
}

/// A load balancer whose clients show certificates, with these fields.
fn asking(fields: &str, policies: &str) -> String {
    let tls = format!("ports: [], tls: {{certificates: [web], clientCertificates: {{{fields}}}}}");
    let lb = balancer("shop", policies).replace("name: other", "name: web");
    lb.replace("other.acme.example", "cart.acme.example")
        .replace("advertise:", &format!("{tls}, advertise:"))
}

#[test]
fn client_certificates_are_checked() {
    let ca = authority("earth.example");
    let good = format!("caCertificates: {ca:?}");
    let leaf = pki::self_signed(
        &["a.example".to_owned()],
        NOW,
        std::time::Duration::from_secs(60),
    );
    let leaf = leaf.expect("a certificate").0;
    let ten = ca.repeat(10);
    let at = |field: &str| format!("bad-value /spec/tls/clientCertificates/{field}");
    for (fields, expect) in [
        (good.clone(), "good".to_owned()),
        (
            format!("{good}, mode: AllowInsecureFallback, forward: true"),
            "good".to_owned(),
        ),
        (format!("caCertificates: {ten:?}"), "good".to_owned()),
        (
            format!("caCertificates: {:?}", ten + &ca),
            at("caCertificates"),
        ),
        (format!("caCertificates: {leaf:?}"), at("caCertificates")),
        ("caCertificates: ''".to_owned(), at("caCertificates")),
        (format!("{good}, crls: {ca:?}"), at("crls")),
        (format!("{good}, crls: ''"), at("crls")),
    ] {
        assert_eq!(said(&world(), &asking(&fields, "")), expect, "{fields}");
    }
    let quic = asking(&good, "").replace("certificates: [web]", "http3: true, certificates: [web]");
    assert_eq!(said(&world(), &quic), "good");
    // Nobody shows a certificate in plain text.
    let plain = |mode: &str| {
        let fields = format!("{good}, mode: {mode}");
        asking(&fields, "").replace("ports: []", "ports: [80]")
    };
    assert_eq!(
        said(&world(), &plain("AllowValidOnly")),
        "bad-value /spec/ports"
    );
    assert_eq!(said(&world(), &plain("AllowInsecureFallback")), "good");
}

#[test]
fn rules_about_identities_are_checked() {
    let named = |name: &str| {
        policy(&format!(
            "{{name: all, client: {{identities: [{name}]}}, action: {{allow: {{}}}}}}"
        ))
    };
    let digest = "0f".repeat(32);
    let at = |field: &str| format!("bad-value /spec/rules/0/client/identities/0/{field}");
    for (name, expect) in [
        (
            "{name: uri, value: 'spiffe://acme.example/cart'}".to_owned(),
            "good".to_owned(),
        ),
        (
            "{name: uri, type: Prefix, value: 'spiffe://acme.example/'}".to_owned(),
            "good".to_owned(),
        ),
        (
            "{name: dns, value: a.example}".to_owned(),
            "good".to_owned(),
        ),
        (
            "{name: commonName, value: Käthe}".to_owned(),
            "good".to_owned(),
        ),
        (
            format!("{{name: sha256, value: '{digest}'}}"),
            "good".to_owned(),
        ),
        ("{name: uri, value: cart}".to_owned(), at("value")),
        ("{name: uri, value: ''}".to_owned(), at("value")),
        ("{name: dns, value: A.example}".to_owned(), at("value")),
        ("{name: sha256, value: 0f}".to_owned(), at("value")),
        (
            "{name: commonName, value: \"a\\nb\"}".to_owned(),
            at("value"),
        ),
        ("{name: dns, type: Prefix, value: a}".to_owned(), at("type")),
    ] {
        assert_eq!(said(&world(), &named(&name)), expect, "{name}");
    }
    // They go where clients are asked; a Service's where the LoadBalancers say.
    let fields = format!("caCertificates: {:?}", authority("earth.example"));
    let plain = policy("{name: all, action: {allow: {}}}");
    for rule in [
        "client: {certificate: present}",
        "client: {identities: [{name: dns, value: a}]}",
    ] {
        let rule = policy(&format!("{{name: all, {rule}, action: {{allow: {{}}}}}}"));
        for (user, expect, after) in [
            (asking(&fields, "edge"), "good", "good"),
            (service("edge"), "good", "good"),
            (
                balancer("shop", "edge"),
                "bad-value /spec/policies/0",
                "bad-value /spec/rules",
            ),
        ] {
            assert_eq!(said(&with(&[&rule]), &user), expect, "{user}");
            assert_eq!(said(&with(&[&plain, &user]), &rule), after, "{user}");
        }
    }
}

#[test]
fn clients_are_known_where_they_are_asked() {
    let (one, other) = (authority("earth.example"), authority("mars.example"));
    let compiled = |fields: &str| serving(&with(&[&asking(fields, "")]));
    let asked = |fields: &str| {
        let compiled = compiled(fields);
        let asked = compiled.ingress.clients(443, "cart.acme.example");
        let asked = *asked.expect("clients are asked");
        let trust = &compiled.clients[&asked.trust];
        assert_eq!(trust.required, asked.required);
        (asked, trust.issuers.anchors.len())
    };
    let plain = asked(&format!("caCertificates: {one:?}"));
    assert_eq!(
        (plain.0.required, plain.0.forward, plain.1),
        (true, false, 1)
    );
    assert_eq!(
        asked(&format!("caCertificates: {one:?}")),
        plain,
        "the same is the same"
    );
    // Whatever decides about a client makes another digest.
    let both = one.clone() + &other;
    let mut seen = vec![plain.0.trust];
    for fields in [
        format!("caCertificates: {other:?}"),
        format!("caCertificates: {both:?}"),
        format!("caCertificates: {one:?}, mode: AllowInsecureFallback"),
    ] {
        let trust = asked(&fields).0.trust;
        assert!(!seen.contains(&trust), "{fields}");
        seen.push(trust);
    }
    // A gateway verifies nobody's clients.
    let world = with(&[&asking(&format!("caCertificates: {one:?}"), "")]);
    let text = format!("{:?}", project(&world, &ids(&world), &site("aws.acme")));
    assert!(!text.contains("BEGIN CERTIFICATE"), "{text}");
}

/// A load balancer whose issuer publishes its keys, with these fields.
fn publishing(fields: &str) -> String {
    let list = format!("jwt: [{{issuer: 'https://id.example', remoteJwks: {{{fields}}}}}]");
    balancer("shop", "").replace("policies: []", &list)
}

#[test]
fn places_of_keys_are_checked() {
    let ca = authority("earth.example");
    let at = |field: &str| format!("bad-value /spec/jwt/0/remoteJwks/{field}");
    for (fields, expect) in [
        (
            "uri: 'https://id.example/keys'".to_owned(),
            "good".to_owned(),
        ),
        (
            format!(
                "uri: 'https://id.example:8443/keys?a=b', refresh: 24h, caCertificates: {ca:?}"
            ),
            "good".to_owned(),
        ),
        (
            "uri: 'http://127.0.0.1:8080/keys'".to_owned(),
            "good".to_owned(),
        ),
        ("uri: 'http://[::1]/keys'".to_owned(), "good".to_owned()),
        ("uri: 'http://id.example/keys'".to_owned(), at("uri")),
        ("uri: 'http://10.0.0.1/keys'".to_owned(), at("uri")),
        (
            "uri: 'https://ann:secret@id.example/keys'".to_owned(),
            at("uri"),
        ),
        ("uri: 'ftp://id.example/keys'".to_owned(), at("uri")),
        ("uri: /keys".to_owned(), at("uri")),
        ("uri: ''".to_owned(), at("uri")),
        (
            "uri: 'https://id.example', refresh: 59s".to_owned(),
            at("refresh"),
        ),
        (
            "uri: 'https://id.example', refresh: 25h".to_owned(),
            at("refresh"),
        ),
        (
            "uri: 'https://id.example', caCertificates: x".to_owned(),
            at("caCertificates"),
        ),
    ] {
        assert_eq!(said(&world(), &publishing(&fields)), expect, "{fields}");
    }
    let jwks = "bad-value /spec/jwt/0/jwks";
    let good = publishing("uri: 'https://id.example'");
    let both = good.replace("remoteJwks", &format!("jwks: '{KEYS}', remoteJwks"));
    assert_eq!(said(&world(), &both), jwks);
    let neither = good.replace(", remoteJwks: {uri: 'https://id.example'}", "");
    assert_eq!(said(&world(), &neither), jwks);
}

/// What a PoP serves by.
fn serving(world: &World) -> crate::Compiled {
    let bundle = bundle(world, &ids(world), "par.fabric", 1);
    let me = Me {
        site: site("par.fabric"),
        node: "n1".parse().expect("a name"),
    };
    compile(&bundle, &me, &Cells::new()).expect("it compiles")
}

#[test]
fn keys_are_found_by_an_issuer_that_is_a_url() {
    let issuer = |text: &str| publishing("").replace("https://id.example", text);
    for (text, expect) in [
        ("https://id.example", "good"),
        ("https://id.example:8443/shop/", "good"),
        ("http://127.0.0.1:8080", "good"),
        ("http://id.example", "bad-value /spec/jwt/0/issuer"),
        ("id.example", "bad-value /spec/jwt/0/issuer"),
        ("https://ann@id.example", "bad-value /spec/jwt/0/issuer"),
        ("https://id.example/?a=b", "bad-value /spec/jwt/0/issuer"),
        ("https://id.example/#a", "bad-value /spec/jwt/0/issuer"),
    ] {
        assert_eq!(said(&world(), &issuer(text)), expect, "{text}");
        // Whoever says where his keys are may be called what he likes.
        let said_there =
            issuer(text).replace("remoteJwks: {}", "remoteJwks: {uri: 'https://a.example'}");
        assert_eq!(said(&world(), &said_there), "good", "{text}");
    }
    let found = |text: &str| {
        let sources = serving(&with(&[&issuer(text)])).keys.into_iter();
        let sources =
            sources.map(|(id, (source, _))| (id, source.uri.clone(), source.issuer.clone()));
        sources.collect::<Vec<_>>()
    };
    let [plain, slash] = [
        found("https://id.example/a"),
        found("https://id.example/a/"),
    ];
    let uri = "https://id.example/a/.well-known/openid-configuration";
    for (one, issuer) in [
        (&plain, "https://id.example/a"),
        (&slash, "https://id.example/a/"),
    ] {
        assert_eq!(one.len(), 1);
        assert_eq!(
            (one[0].1.as_str(), one[0].2.as_deref()),
            (uri, Some(issuer))
        );
    }
    // What one says is not what the other says.
    assert_ne!(plain[0].0, slash[0].0);
}

#[test]
fn keys_are_fetched_once_for_all() {
    let ca = authority("earth.example");
    let second = |fields: &str| {
        let lb = publishing(fields).replace("name: other", "name: another");
        lb.replace("other.acme.example", "another.acme.example")
    };
    let sources = |one: &str, two: &str| {
        let compiled = serving(&with(&[&publishing(one), &second(two)]));
        let keys = compiled.keys.values();
        let refresh = keys.map(|(source, _)| source.refresh.as_secs());
        let mut refresh: Vec<u64> = refresh.collect();
        refresh.sort_unstable();
        refresh
    };
    let uri = "uri: 'https://id.example/keys'";
    let often = format!("{uri}, refresh: 1m");
    assert_eq!(sources(uri, &often), [60], "the more eager one decides");
    assert_eq!(sources(&often, uri), [60]);
    assert_eq!(
        sources(uri, "uri: 'https://id.example/other', refresh: 2m"),
        [120, 600]
    );
    let by_own = format!("{often}, caCertificates: {ca:?}");
    assert_eq!(
        sources(uri, &by_own),
        [60, 600],
        "who vouches is part of it"
    );
}
