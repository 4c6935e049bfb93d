//! Verdicts by data.

use http::{HeaderName, Method};

use super::*;
use crate::{
    Fields, HeaderMatch, NameKind, NameMatch, NameValue, PathMatch, Pattern, QueryMatch,
    ValueMatch, host_of, jwt::ClaimMatch, normal_path,
};

const NOW: WallTime = WallTime::from_unix_seconds(1_000);

fn value(text: &str) -> ValueMatch {
    match text.strip_prefix('~') {
        Some(pattern) => ValueMatch::Regex(Pattern::new(pattern).expect("a pattern")),
        None => ValueMatch::Exact(text.into()),
    }
}

/// `NAME ACTION WORD…`: `from:PREFIX`, `not:PREFIX`, `to:SERVICE`, `METHOD`, `host:HOST`,
/// `/PREFIX`, `=/EXACT`, `~PATTERN`, `head:name=value`, `?name=value`, `until:SECONDS`.
fn rule(text: &str) -> Rule {
    let mut words = text.split(' ');
    let name = words.next().expect("a name").to_owned();
    let action = match words.next().expect("an action") {
        "allow" => RuleAction::Allow,
        limit if limit.contains('/') => {
            let (requests, seconds) = limit.split_once('/').expect("REQUESTS/SECONDS");
            let requests = requests.parse().expect("a number");
            RuleAction::Limit(Box::new(Rate {
                requests,
                per: Duration::from_secs(seconds.parse().expect("seconds")),
                burst: requests,
                key: vec![RateKey::Source, RateKey::Header(http::header::FROM)],
            }))
        }
        code => RuleAction::Deny(code.parse().expect("a status")),
    };
    let mut rule = Rule {
        name,
        when: When::default(),
        action,
        expires_at: None,
    };
    let (mut from, mut not, mut hosts, mut paths) = (vec![], vec![], vec![], vec![]);
    for word in words {
        let prefix = |text: &str| text.parse::<Prefix>().expect("a prefix");
        if word.starts_with('/') {
            paths.push(PathMatch::Prefix(word.into()));
        } else if let Some(path) = word.strip_prefix('=') {
            paths.push(PathMatch::Exact(path.into()));
        } else if let Some(pattern) = word.strip_prefix('~') {
            paths.push(PathMatch::Regex(Pattern::new(pattern).expect("a pattern")));
        } else if let Some((name, text)) = word.strip_prefix('?').and_then(|w| w.split_once('=')) {
            rule.when.query.push(QueryMatch {
                name: name.into(),
                value: value(text),
            });
        } else if let Some((what, rest)) = word.split_once(':') {
            match what {
                "from" => from.push(prefix(rest)),
                "not" => not.push(prefix(rest)),
                "to" => _ = rule.when.services.insert(rest.parse().expect("a service")),
                "host" => hosts.push(rest),
                "until" => {
                    let at = rest.parse().expect("seconds");
                    rule.expires_at = Some(WallTime::from_unix_seconds(at));
                }
                _ => {
                    let (name, text) = rest.split_once('=').expect("name=value");
                    let name: HeaderName = name.parse().expect("a name");
                    let value = value(text);
                    rule.when.headers.push(HeaderMatch { name, value });
                }
            }
        } else {
            rule.when.methods.push(word.parse().expect("a method"));
        }
    }
    rule.when.prefixes = from.into_iter().collect();
    rule.when.not_prefixes = not.into_iter().collect();
    rule.when.hosts = hosts.into_iter().collect();
    rule.when.paths = paths.into_iter().collect();
    rule
}

fn policy(name: &str, shadow: bool, algorithm: Algorithm, rules: &[&str]) -> Arc<Policy> {
    let rules = rules.iter().map(|text| rule(text)).collect();
    let name = name.to_owned();
    Arc::new(Policy::build("acme", name, shadow, algorithm, rules))
}

fn guard(undecided: Undecided, rules: &[&str]) -> Guard {
    Guard {
        policies: vec![policy("ns/p", false, Algorithm::FirstMatch, rules)],
        undecided,
        tokens: None,
    }
}

/// `METHOD URL [name:value]…` as the proxy reads it, from `client` to `cart.shop.acme` through
/// load balancer `shop/web`, as the first request of all.
fn said(guard: &Guard, client: Option<&str>, request: &str) -> String {
    said_through(guard, "shop/web", client, request)
}

fn said_through(guard: &Guard, lb: &str, client: Option<&str>, request: &str) -> String {
    said_after(&Buckets::new(1), guard, lb, client, request)
}

fn said_after(
    buckets: &Buckets,
    guard: &Guard,
    lb: &str,
    client: Option<&str>,
    request: &str,
) -> String {
    let mut words = request.split(' ');
    let method: Method = words.next().expect("a method").parse().expect("a method");
    let url = words.next().expect("a URL");
    let (authority, target) = url.split_at(url.find('/').expect("a path"));
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut fields = Fields::default();
    for word in words {
        let (name, value) = word.split_once(':').expect("name:value");
        let name = name.parse::<HeaderName>().expect("a name");
        fields.append(&name, &value.parse().expect("a value"));
    }
    let Some(path) = normal_path(path) else {
        return "bad path".to_owned();
    };
    let head = RequestHead {
        port: 80,
        tls: false,
        sni: None,
        trust: None,
        method: &method,
        host: &host_of(authority).expect("a host"),
        authority,
        path: &path,
        query,
        fields: &fields,
    };
    let service = "cart.shop.acme".parse().expect("a service");
    let client = client.map(|client| client.parse().expect("an address"));
    let subject = Subject::new(&head, lb, client, Some(&service));
    let now = Instant::from_nanos(1_000_000_000);
    let buckets = Some(buckets);
    let judgement = judge(guard, &subject, NOW, &Meter { buckets, now });
    let by = judgement
        .by
        .map_or("nobody".to_owned(), |by| by.to_string());
    let shadow: Vec<String> = judgement.shadow.iter().map(ToString::to_string).collect();
    let verdict = match judgement.verdict {
        Verdict::Allow => "allow".to_owned(),
        Verdict::Deny(status) => status.as_str().to_owned(),
        Verdict::Limit(wait) => format!("wait {wait:?}"),
    };
    let mut text = format!("{verdict} {by}");
    if !shadow.is_empty() {
        text += &format!(" ({})", shadow.join(" "));
    }
    text
}

#[test]
fn every_part_of_a_rule() {
    for (text, request, matches) in [
        ("r allow", "GET h/", true),
        ("r allow from:10.0.0.0/8 from:192.0.2.1", "GET h/", true),
        ("r allow from:10.0.1.0/24", "GET h/", false),
        ("r allow from:10.0.0.0/8 not:10.0.0.1", "GET h/", false),
        ("r allow not:10.0.0.2", "GET h/", true),
        ("r allow to:cart.shop.acme", "GET h/", true),
        (
            "r allow to:cart.shop.blue to:cart.lab.acme",
            "GET h/",
            false,
        ),
        ("r allow GET HEAD", "HEAD h/", true),
        ("r allow GET HEAD", "POST h/", false),
        (
            "r allow host:a.example host:*.b.example",
            "GET A.Example.:81/",
            true,
        ),
        (
            "r allow host:a.example host:*.b.example",
            "GET x.y.b.example/",
            true,
        ),
        (
            "r allow host:a.example host:*.b.example",
            "GET b.example/",
            false,
        ),
        (
            "r allow host:a.example host:*.b.example",
            "GET x.a.example/",
            false,
        ),
        ("r allow /a =/b", "GET h/a/c", true),
        ("r allow /a =/b", "GET h/b", true),
        ("r allow /a =/b", "GET h/b/c", false),
        ("r allow ~/v[0-9]+", "GET h/v7", true),
        (
            "r allow head:x-a=1 head:x-b=~[0-9]",
            "GET h/ x-a:1 x-b:2",
            true,
        ),
        ("r allow head:x-a=1 head:x-b=~[0-9]", "GET h/ x-a:1", false),
        ("r allow ?a=1", "GET h/?b=2&a=1", true),
        ("r allow ?a=1", "GET h/?a=2", false),
        ("r allow until:1001", "GET h/", true),
        ("r allow until:1000", "GET h/", false),
        // All of them together.
        ("r allow GET /a host:h", "GET h/a", true),
        ("r allow GET /a host:h", "GET g/a", false),
    ] {
        let guard = guard(Undecided::Deny, &[text]);
        let expect = if matches {
            "allow ns/p/r"
        } else {
            "403 nobody"
        };
        assert_eq!(
            said(&guard, Some("::ffff:10.0.0.1"), request),
            expect,
            "{text}: {request}"
        );
    }
}

#[test]
fn the_reason_why_a_rule_does_not_match() {
    let fields = Fields::default();
    let head = RequestHead {
        port: 80,
        tls: false,
        sni: None,
        trust: None,
        method: &Method::GET,
        host: "h",
        authority: "h",
        path: "/",
        query: None,
        fields: &fields,
    };
    let subject = Subject::new(&head, "shop/web", None, None);
    for (text, miss) in [
        ("r allow until:1", Miss::Expired),
        ("r allow from:10.0.0.0/8", Miss::Client),
        ("r allow to:cart.shop.acme", Miss::Service),
        ("r allow POST", Miss::Method),
        ("r allow host:g", Miss::Host),
        ("r allow /a", Miss::Path),
        ("r allow head:a=1", Miss::Header(0)),
        ("r allow ?a=1", Miss::Query(0)),
    ] {
        assert_eq!(rule(text).check(&subject, NOW), Err(miss), "{text}");
    }
}

#[test]
fn algorithms() {
    let rules = ["a allow /a", "b 418 GET", "c allow GET"];
    for (algorithm, a, b) in [
        (Algorithm::FirstMatch, "allow ns/p/a", "418 ns/p/b"),
        (Algorithm::DenyOverrides, "418 ns/p/b", "418 ns/p/b"),
        (Algorithm::AllowOverrides, "allow ns/p/a", "allow ns/p/c"),
    ] {
        let guard = Guard {
            policies: vec![policy("ns/p", false, algorithm, &rules)],
            ..Guard::default()
        };
        assert_eq!(said(&guard, None, "GET h/a"), a, "{algorithm:?}");
        assert_eq!(said(&guard, None, "GET h/b"), b, "{algorithm:?}");
        assert_eq!(
            said(&guard, None, "PUT h/b"),
            "allow nobody",
            "{algorithm:?}"
        );
    }
}

#[test]
fn policies_in_order_and_shadows_beside() {
    let first = Algorithm::FirstMatch;
    let guard = Guard {
        policies: vec![
            policy("ns/one", false, first, &["a allow /a"]),
            policy("ns/two", true, first, &["all 403"]),
            policy("ns/three", false, first, &["b 403 /b"]),
        ],
        ..Guard::default()
    };
    assert_eq!(said(&guard, None, "GET h/a"), "allow ns/one/a");
    assert_eq!(said(&guard, None, "GET h/b"), "403 ns/three/b (ns/two/all)");
    assert_eq!(said(&guard, None, "GET h/c"), "allow nobody (ns/two/all)");
}

#[test]
fn what_nobody_decides() {
    for (undecided, own, foreign) in [
        (Undecided::Allow, "allow nobody", "allow nobody"),
        (Undecided::Deny, "403 nobody", "403 nobody"),
        (Undecided::DenyForeign, "allow nobody", "403 nobody"),
    ] {
        let guard = guard(undecided, &["a allow /a"]);
        for (lb, expect) in [("shop/web", own), ("lab/web", foreign), ("", foreign)] {
            assert_eq!(
                said_through(&guard, lb, None, "GET h/"),
                expect,
                "{undecided:?} {lb}"
            );
            assert_eq!(said_through(&guard, lb, None, "GET h/a"), "allow ns/p/a");
        }
    }
    assert!(Guard::default().is_open());
    assert!(!guard(Undecided::Allow, &[]).is_open());
}

/// Every way to write a request that should be denied, against a rule that denies it and against
/// rules that allow others only.
#[test]
fn no_spelling_passes() {
    let denies = guard(
        Undecided::Allow,
        &[
            "admin 403 /admin host:h",
            "debug 403 ?debug=1",
            "robot 403 head:x-kind=robot",
        ],
    );
    let allows = guard(
        Undecided::Deny,
        &["public allow /public host:h ?debug=0 head:x-kind=human"],
    );
    let good = "GET h/public?debug=0 x-kind:human";
    assert_eq!(said(&denies, None, good), "allow nobody");
    assert_eq!(said(&allows, None, good), "allow ns/p/public");
    for path in [
        "h/admin",
        "h/admin/",
        "H.:8080/admin/x",
        "h//admin",
        "h/./admin",
        "h/public/../admin",
        "h/%61dmin",
        "h/%61%64%6d%69%6e",
        "h/public/%2e%2e/admin",
        "h/public/%2E./admin",
        "h/public%2F..%2fadmin",
        "h/public%5c..%5Cadmin",
        "h/public/..;/admin",
        "h/public/..;a=b/admin",
        "h/public/..%3b/admin",
        "h/admin;x",
        "h/admin%2f",
        "h/public/..%2f..%2fadmin",
    ] {
        let tried = format!("GET {path}?debug=0 x-kind:human");
        let denied = said(&denies, None, &tried);
        assert!(
            ["403 ns/p/admin", "bad path"].contains(&&*denied),
            "{path}: {denied}"
        );
        let denied = said(&allows, None, &tried);
        assert!(
            ["403 nobody", "bad path"].contains(&&*denied),
            "{path}: {denied}"
        );
    }
    for (request, by) in [
        ("GET h/public?debug=0&debug=1 x-kind:human", "debug"),
        ("GET h/public?debug=1&debug=0 x-kind:human", "debug"),
        ("GET h/public?debug=0&de%62ug=%31 x-kind:human", "debug"),
        ("GET h/public?debug=0 x-kind:human X-Kind:robot", "robot"),
        ("GET h/public?debug=0 X-KIND:robot x-kind:human", "robot"),
    ] {
        assert_eq!(
            said(&denies, None, request),
            format!("403 ns/p/{by}"),
            "{request}"
        );
        assert_eq!(said(&allows, None, request), "403 nobody", "{request}");
    }
    // A client of whom nothing is known.
    let allows = guard(Undecided::Deny, &["office allow from:10.0.0.0/8"]);
    let denies = guard(Undecided::Allow, &["office 403 from:10.0.0.0/8"]);
    let others = guard(Undecided::Allow, &["others 403 not:10.0.0.0/8"]);
    assert_eq!(said(&allows, None, "GET h/"), "403 nobody");
    assert_eq!(said(&denies, None, "GET h/"), "403 ns/p/office");
    assert_eq!(said(&others, None, "GET h/"), "403 ns/p/others");
}

#[test]
fn rates_by_key() {
    let first = Algorithm::FirstMatch;
    let guard = Guard {
        policies: vec![
            policy(
                "ns/p",
                false,
                first,
                &["two 2/10 /a", "a allow /a/x", "none 403 /a/y"],
            ),
            policy("ns/q", true, first, &["one 1/10"]),
        ],
        ..Guard::default()
    };
    let buckets = Buckets::new(7);
    let client = Some("2001:db8::1");
    for (client, request, expect) in [
        (client, "GET h/a", "allow nobody"),
        // What another rule denies afterwards has been counted.
        (client, "GET h/a/y", "403 ns/p/none"),
        (client, "GET h/a/x", "wait 5s ns/p/two"),
        (client, "GET h/b", "allow nobody (ns/q/one)"),
        // One client has 64 bits of addresses.
        (Some("2001:db8::ffff"), "GET h/a", "wait 5s ns/p/two"),
        (Some("2001:db8:0:1::1"), "GET h/a", "allow nobody"),
        (client, "GET h/a from:me", "allow nobody"),
        (client, "GET h/a/x from:me", "allow ns/p/a"),
        (client, "GET h/a from:me", "wait 5s ns/p/two"),
        (
            client,
            "GET h/a from:me from:you",
            "allow nobody (ns/q/one)",
        ),
        (None, "GET h/a", "allow nobody"),
        (Some("10.0.0.1"), "GET h/a", "allow nobody"),
    ] {
        let said = said_after(&buckets, &guard, "shop/web", client, request);
        let said = said.replace(" (ns/q/one)", "");
        let expect = expect.replace(" (ns/q/one)", "");
        assert_eq!(said, expect, "{request}");
    }
    // The same policy of another tenant counts apart.
    let rules = vec![rule("two 2/10 /a")];
    let other = Guard {
        policies: vec![Arc::new(Policy::build(
            "blue",
            "ns/p".into(),
            false,
            first,
            rules,
        ))],
        ..Guard::default()
    };
    assert_eq!(
        said_after(&buckets, &other, "shop/web", client, "GET h/a"),
        "allow nobody"
    );
}

#[test]
fn rates_among_other_rules() {
    let rules = ["a allow /a", "limit 1/10 GET", "deny 403 /b", "c allow"];
    for (algorithm, a, b, c) in [
        (
            Algorithm::FirstMatch,
            "allow ns/p/a",
            "wait 10s ns/p/limit",
            "wait 10s ns/p/limit",
        ),
        (
            Algorithm::DenyOverrides,
            "wait 10s ns/p/limit",
            "403 ns/p/deny",
            "wait 10s ns/p/limit",
        ),
        (
            Algorithm::AllowOverrides,
            "allow ns/p/a",
            "allow ns/p/c",
            "allow ns/p/c",
        ),
    ] {
        let guard = Guard {
            policies: vec![policy("ns/p", false, algorithm, &rules)],
            ..Guard::default()
        };
        let buckets = Buckets::new(7);
        let said = |request| said_after(&buckets, &guard, "shop/web", None, request);
        said("GET h/first");
        for (request, expect) in [("GET h/a", a), ("GET h/b", b), ("GET h/c", c)] {
            assert_eq!(said(request), expect, "{algorithm:?} {request}");
        }
    }
}

#[test]
fn claims_and_tokens() {
    let fields = Fields::default();
    let head = RequestHead {
        port: 80,
        tls: false,
        sni: None,
        trust: None,
        method: &Method::GET,
        host: "h",
        authority: "h",
        path: "/",
        query: None,
        fields: &fields,
    };
    let ann = Claims::of(serde_json::json!({"sub": "ann", "team": {"name": "shop"}}));
    let claim = |name: &str, value: &str| ClaimMatch {
        name: name.to_owned(),
        value: ValueMatch::Exact(value.into()),
    };
    for (token, claims, with, without) in [
        (Some(true), vec![], Ok(()), Err(Miss::Token)),
        (Some(false), vec![], Err(Miss::Token), Ok(())),
        (
            None,
            vec![claim("sub", "ann"), claim("team.name", "shop")],
            Ok(()),
            Err(Miss::Claim(0)),
        ),
        (
            None,
            vec![claim("sub", "ann"), claim("team.name", "bank")],
            Err(Miss::Claim(1)),
            Err(Miss::Claim(0)),
        ),
    ] {
        for action in ["r allow", "r 403"] {
            let mut rule = rule(action);
            (rule.when.token, rule.when.claims) = (token, claims.clone());
            let subject = Subject::new(&head, "shop/web", None, None);
            assert_eq!(rule.check(&subject, NOW), without, "{action} {claims:?}");
            let subject = subject.with_claims(Some(&ann));
            assert_eq!(rule.check(&subject, NOW), with, "{action} {claims:?}");
        }
    }
}

#[test]
fn who_is_not_known_is_nobody_who_is_allowed() {
    let fields = Fields::default();
    let head = RequestHead {
        port: 443,
        tls: true,
        sni: None,
        trust: None,
        method: &Method::GET,
        host: "h",
        authority: "h",
        path: "/",
        query: None,
        fields: &fields,
    };
    let cart = Identity(vec!["uri=spiffe://a/cart".parse().expect("a name")]);
    let till = Identity(vec!["uri=spiffe://a/till".parse().expect("a name")]);
    let named = When {
        identities: vec![NameMatch {
            kind: NameKind::Uri,
            value: NameValue::Exact("spiffe://a/cart".to_owned()),
        }],
        ..When::default()
    };
    let certificate = |wanted| When {
        certificate: Some(wanted),
        ..When::default()
    };
    // Nothing shown, cart, till, unknown; for a rule that allows, and for one that denies.
    for (when, allows, denies) in [
        (
            named,
            [false, true, false, false],
            [false, true, false, true],
        ),
        (
            certificate(true),
            [false, true, true, false],
            [false, true, true, true],
        ),
        (
            certificate(false),
            [true, false, false, false],
            [true, false, false, true],
        ),
    ] {
        for (action, expect) in [
            (RuleAction::Allow, allows),
            (RuleAction::Deny(StatusCode::FORBIDDEN), denies),
        ] {
            let rule = Rule {
                name: "r".to_owned(),
                when: when.clone(),
                action,
                expires_at: None,
            };
            let shown = [
                Shown::Nothing,
                Shown::Identity(&cart),
                Shown::Identity(&till),
                Shown::Unknown,
            ];
            let found = shown.map(|shown| {
                let subject = Subject::new(&head, "shop/web", None, None).with_identity(shown);
                rule.check(&subject, NOW).is_ok()
            });
            assert_eq!(found, expect, "{rule:?}");
        }
    }
}
