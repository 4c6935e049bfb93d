//! What `l7` reads of a request: paths, hosts, parameters, cookies, patterns, and the decision.

use std::sync::{Arc, LazyLock};

use base::{LbId, Rng, TenantId};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use l7::{
    Action, Decision, DirectResponse, Fields, HashOn, HeaderMatch, Limits, Match, NewPath, Offered,
    PathMatch, Pattern, QueryMatch, Redirect, RequestHead, Route, Table, ValueMatch, VirtualHost,
    affinity, decide, host_of, normal_path,
};

use crate::Choices;

/// Text such as a checked target is made of.
fn visible(octets: &[u8]) -> Option<&str> {
    let good = octets.iter().all(|b| b.is_ascii_graphic() && *b != b'#');
    std::str::from_utf8(octets).ok().filter(|_| good)
}

/// A path has one spelling: nothing that another reader would resolve or decode is left, the
/// normal path of a normal path is itself, and a plain reading of RFC 3986 §6.2.2 has the same.
pub(crate) fn path(octets: &[u8]) {
    let Some(path) = visible(octets) else {
        return;
    };
    let normal = normal_path(path);
    assert_eq!(normal.as_deref(), plain(path).as_deref(), "{path}");
    let Some(normal) = normal else { return };
    if normal == "*" {
        return;
    }
    assert!(normal.starts_with('/') && !normal.contains("//") && !normal.contains('\\'));
    assert!(
        normal
            .split('/')
            .all(|segment| segment != "." && segment != "..")
    );
    assert_eq!(normal_path(&normal).as_deref(), Some(&*normal));
    for (at, _) in normal.match_indices('%') {
        let digits = &normal[at + 1..at + 3];
        let octet = u8::from_str_radix(digits, 16).expect("two digits");
        assert!(octet != 0 && !unreserved(octet) && digits == digits.to_uppercase());
    }
}

const fn unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

/// Decode what needs no encoding, then go through the segments.
fn plain(path: &str) -> Option<String> {
    if path == "*" {
        return Some(path.to_owned());
    }
    if path.contains('\\') {
        return None;
    }
    let mut decoded = String::new();
    let mut octets = path.bytes();
    while let Some(octet) = octets.next() {
        if octet != b'%' {
            decoded.push(char::from(octet));
            continue;
        }
        let digit = |octet: Option<u8>| char::from(octet?).to_digit(16);
        let octet = u8::try_from(digit(octets.next())? * 16 + digit(octets.next())?).ok()?;
        match octet {
            0 => return None,
            _ if unreserved(octet) => decoded.push(char::from(octet)),
            _ => decoded += &format!("%{octet:02X}"),
        }
    }
    let mut kept: Vec<&str> = Vec::new();
    let all: Vec<&str> = decoded.strip_prefix('/')?.split('/').collect();
    for segment in &all {
        match *segment {
            "" | "." => {}
            ".." => {
                kept.pop()?;
            }
            other => kept.push(other),
        }
    }
    // A folder stays one.
    let folder = matches!(all.last(), Some(&("" | "." | "..")));
    let end = if folder && !kept.is_empty() { "/" } else { "" };
    Some(format!("/{}{end}", kept.join("/")))
}

/// A host that is one has one spelling, and nothing of a URL in it.
pub(crate) fn host(octets: &[u8]) {
    let Ok(authority) = std::str::from_utf8(octets) else {
        return;
    };
    let Some(host) = host_of(authority) else {
        return;
    };
    assert!((1..=255).contains(&host.len()), "{authority:?}");
    let good = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    assert!(host.bytes().all(good), "{host:?}");
    assert!(!host.bytes().any(|b| b.is_ascii_uppercase()));
    assert!(
        host.starts_with('[') || !host.contains([':', '[', ']']),
        "{host:?}"
    );
    // A port, and letters of another size, say nothing.
    assert_eq!(
        host_of(&host.to_uppercase()).as_deref(),
        host_of(&host).as_deref()
    );
    if host_of(&host).as_deref() == Some(&*host) && !host.ends_with('.') {
        assert_eq!(host_of(&format!("{host}:80")).as_deref(), Some(&*host));
        assert_eq!(
            host_of(&format!("{host}.:80")).is_some(),
            !host.starts_with('[')
        );
    }
}

/// A pattern compares the whole, whatever it says: what the expression alone does not find, it
/// does not match; a text without signs matches itself only; and nobody closes our parenthesis.
pub(crate) fn pattern(octets: &[u8]) {
    let mut choices = Choices(octets);
    let length = usize::from(choices.octet());
    let Ok(text) = std::str::from_utf8(choices.take(length)) else {
        return;
    };
    let against = choices.0;
    let Ok(pattern) = Pattern::new(text) else {
        return;
    };
    assert_eq!(pattern.as_str(), text);
    let signs = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b' ' | b'-');
    if text.bytes().all(signs) {
        assert!(pattern.is_match(text.as_bytes()));
        assert_eq!(pattern.is_match(against), against == text.as_bytes());
    }
    if pattern.is_match(against) {
        // Anything around it is to be matched too.
        let either = Pattern::new(&format!("(?:{text})|zz"));
        assert!(either.is_ok_and(|either| either.is_match(against) && either.is_match(b"zz")));
        let alone = regex::bytes::RegexBuilder::new(text).unicode(false).build();
        assert!(alone.expect("it is one").is_match(against));
    }
}

/// The hash of this, as of a header's value.
fn hash(value: &[u8]) -> Option<u64> {
    let name = HeaderName::from_static("x-reference");
    let value = HeaderValue::from_bytes(value).ok()?;
    let fields: Fields = [(&name, value)].into_iter().collect();
    by(&HashOn::Header(name), &fields, None)
}

fn by(rule: &HashOn, fields: &Fields, query: Option<&str>) -> Option<u64> {
    let client = [10, 0, 0, 1].into();
    let found = affinity(
        std::slice::from_ref(rule),
        fields,
        query,
        client,
        false,
        &mut Rng::new(1),
    );
    assert_eq!(found.set_cookie, None);
    found.hash
}

/// Cookies: in one line or in crumbs the same, others before and behind say nothing, and what is
/// found stands there.
pub(crate) fn cookies(octets: &[u8]) {
    let lines: Vec<HeaderValue> = octets
        .split(|b| *b == b'\n')
        .filter_map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    let fields = |lines: &[HeaderValue]| -> Fields {
        let named = lines.iter().map(|line| (&header::COOKIE, line));
        named.collect()
    };
    let rule = HashOn::Cookie("id".to_owned(), None);
    let found = by(&rule, &fields(&lines), None);
    let joined = lines
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    let joined = HeaderValue::from_bytes(&joined).expect("of values");
    assert_eq!(
        found,
        by(&rule, &fields(std::slice::from_ref(&joined)), None)
    );
    let mut more = vec![HeaderValue::from_static("xid=1; id=; idx=2")];
    more.extend(lines);
    assert_eq!(found, by(&rule, &fields(&more), None));
    // A plain reading of RFC 6265 §4.2.1.
    let pairs = joined
        .as_bytes()
        .split(|b| *b == b';')
        .map(<[u8]>::trim_ascii);
    let values = pairs
        .filter_map(|pair| pair.strip_prefix(b"id="))
        .filter(|v| !v.is_empty());
    assert_eq!(found, values.map(hash).next().flatten());
}

/// Parameters: what is written for one is found, and what stands behind it says nothing.
pub(crate) fn query(octets: &[u8]) {
    let Some(query) = visible(octets) else {
        return;
    };
    let rule = HashOn::Query("user".to_owned());
    let none = Fields::default();
    let found = by(&rule, &none, Some(query));
    let first = plain_parameter(query);
    match (&found, &first) {
        (None, None) => {}
        (Some(found), Some(value)) => {
            let written: String = form_urlencoded::byte_serialize(value.as_bytes()).collect();
            let again = by(&rule, &none, Some(&format!("a=b&user={written}&user=c")));
            assert_eq!(Some(*found), again);
            assert_eq!(
                by(&rule, &none, Some(&format!("{query}&user=other"))),
                Some(*found)
            );
        }
        _ => panic!("{found:?} and {first:?} of {query}"),
    }
    assert_eq!(
        by(&rule, &none, Some(&format!("us%65r=x&{query}"))),
        hash(b"x")
    );
}

/// The first `user`, decoded.
fn plain_parameter(query: &str) -> Option<String> {
    let decoded = |text: &str| {
        let (mut out, octets) = (Vec::new(), text.as_bytes());
        let mut at = 0;
        while let Some(octet) = octets.get(at) {
            let digit = |at: usize| octets.get(at).and_then(|b| char::from(*b).to_digit(16));
            at += 1;
            match (octet, digit(at), digit(at + 1)) {
                (b'+', _, _) => out.push(b' '),
                (b'%', Some(high), Some(low)) => {
                    out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                    at += 2;
                }
                _ => out.push(*octet),
            }
        }
        String::from_utf8_lossy(&out).into_owned()
    };
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decoded(name) == "user").then(|| decoded(value))
    })
}

/// Routes of every sort; a route's answer is its own number, so that it is seen which one it was.
static ROUTES: LazyLock<Vec<Route>> = LazyLock::new(|| {
    let path = |path: PathMatch| Match {
        path,
        ..Match::default()
    };
    let pattern = |text: &str| Pattern::new(text).expect("a pattern");
    let prefix = |text: &str| path(PathMatch::Prefix(text.to_owned()));
    let header = |value| HeaderMatch {
        name: HeaderName::from_static("x-a"),
        value,
    };
    let parameter = |value| QueryMatch {
        name: "q".to_owned(),
        value,
    };
    let matches = [
        prefix("/a"),
        prefix("/a/"),
        prefix("/a/b"),
        prefix("/"),
        path(PathMatch::Exact("/a".to_owned())),
        path(PathMatch::Exact("/a/b/".to_owned())),
        path(PathMatch::Regex(pattern("/[ab]+/.*"))),
        path(PathMatch::Regex(pattern("(?i)/C.?"))),
        Match {
            method: Some(Method::POST),
            ..prefix("/a")
        },
        Match {
            headers: vec![header(ValueMatch::Exact(b"1".to_vec()))],
            ..prefix("/a/b")
        },
        Match {
            headers: vec![header(ValueMatch::Regex(pattern("[0-9]+")))],
            query: vec![parameter(ValueMatch::Exact(b"a b".to_vec()))],
            ..prefix("/")
        },
        Match {
            query: vec![parameter(ValueMatch::Regex(pattern("a.*")))],
            ..prefix("/a")
        },
    ];
    let answers = matches.into_iter().zip(200u16..).map(|(m, status)| {
        let status = StatusCode::from_u16(status).expect("a status");
        Route {
            name: status.to_string(),
            matches: vec![m],
            action: Action::Respond(DirectResponse {
                status,
                content_type: HeaderValue::from_static("text/plain"),
                body: Bytes::new(),
            }),
            ..Route::default()
        }
    });
    let elsewhere = Route {
        name: "elsewhere".to_owned(),
        matches: vec![prefix("/to")],
        action: Action::Redirect(Redirect {
            tls: Some(true),
            host: None,
            path: Some(NewPath::Prefix("/from".to_owned())),
            port: None,
            status: StatusCode::FOUND,
        }),
        ..Route::default()
    };
    answers.chain([elsewhere]).collect()
});

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let host = |tenant: u32, hosts: &[&str], routes| Offered {
        port: 443,
        tls: true,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        host: Arc::new(VirtualHost::build(
            LbId(u64::from(tenant)),
            "shop/web".to_owned(),
            TenantId(tenant),
            "acme".to_owned(),
            Limits::default(),
            routes,
        )),
    };
    let offers = vec![
        host(1, &["a.example", "*.a.example"], ROUTES.clone()),
        host(2, &["b.a.example", "c.example"], Vec::new()),
    ];
    Table::build(offers).expect("no conflict")
});

/// Does one match hold, read plainly?
fn holds(m: &Match, head: &RequestHead<'_>) -> bool {
    let path = match &m.path {
        PathMatch::Exact(path) => path == head.path,
        PathMatch::Regex(pattern) => pattern.is_match(head.path.as_bytes()),
        PathMatch::Prefix(prefix) => {
            let wanted = prefix.split('/').filter(|segment| !segment.is_empty());
            let mut segments = head.path.split('/').skip(1);
            wanted
                .into_iter()
                .all(|segment| segments.next() == Some(segment))
        }
    };
    let mut parameters = form_urlencoded::parse(head.query.unwrap_or_default().as_bytes());
    let first = parameters
        .find(|(name, _)| name == "q")
        .map(|(_, value)| value);
    path && m.method.as_ref().is_none_or(|method| method == head.method)
        && m.headers.iter().all(|header| {
            head.fields
                .get_all(&header.name)
                .any(|line| header.value.holds(line))
        })
        && m.query.iter().all(|query| {
            first
                .as_ref()
                .is_some_and(|value| query.value.holds(value.as_bytes()))
        })
}

/// The Gateway API's precedence, read plainly: greater is first.
fn rank(m: &Match) -> (u8, usize, bool, usize, usize) {
    let (kind, length) = match &m.path {
        PathMatch::Exact(path) => (2, path.len()),
        PathMatch::Regex(pattern) => (1, pattern.as_str().len()),
        PathMatch::Prefix(prefix) => (0, prefix.trim_end_matches('/').len()),
    };
    (
        kind,
        length,
        m.method.is_some(),
        m.headers.len(),
        m.query.len(),
    )
}

/// A request against a fixed table: the route is the first by precedence of those that hold, an
/// unknown host has none, and where it sends a client is one URL.
pub(crate) fn decision(octets: &[u8]) {
    const HOSTS: [&str; 8] = [
        "a.example",
        "x.a.example",
        "b.a.example",
        "c.example",
        "d.example",
        "example",
        "[::1]",
        "y.x.a.example",
    ];
    let mut choices = Choices(octets);
    let bits = choices.octet();
    let host = HOSTS[usize::from(bits & 7)];
    let sni = (bits & 8 != 0).then(|| HOSTS[usize::from(choices.octet() & 7)]);
    let (port, tls) = if bits & 16 == 0 {
        (443, true)
    } else {
        (80, false)
    };
    let method = if bits & 32 == 0 {
        Method::GET
    } else {
        Method::POST
    };
    let length = usize::from(choices.octet());
    let value = HeaderValue::from_bytes(choices.take(usize::from(bits >> 6))).ok();
    let name = HeaderName::from_static("x-a");
    let fields: Fields = value.iter().map(|value| (&name, value)).collect();
    let (path, query) = (visible(choices.take(length)), visible(choices.0));
    let Some(path) = path.and_then(normal_path) else {
        return;
    };
    let head = RequestHead {
        port,
        tls,
        sni,
        trust: None,
        method: &method,
        host,
        authority: host,
        path: &path,
        query,
        fields: &fields,
    };
    let Decision::Respond(answer) = decide(&TABLE, &head, &mut Rng::new(1)) else {
        panic!("nobody forwards here");
    };
    let owner = |host: &str| match host {
        "b.a.example" | "c.example" => Some(2),
        _ if port == 443 && host.ends_with("a.example") => Some(1),
        _ => None,
    };
    let owner = |host: &str| owner(host).filter(|_| port == 443);
    let astray =
        sni.is_some_and(|sni| sni != host && owner(sni).is_some() && owner(sni) != owner(host));
    if astray {
        assert_eq!(answer.code, "misdirected");
        return;
    }
    match owner(host) {
        None => assert_eq!(answer.code, "no-such-host"),
        // It has no routes at all.
        Some(2) => assert_eq!(answer.code, "no-route"),
        Some(_) => {
            let held = ROUTES
                .iter()
                .filter(|route| holds(&route.matches[0], &head));
            // Of equals the first.
            let best = held.rev().max_by_key(|route| rank(&route.matches[0]));
            assert_eq!(
                answer.route.map(|route| &route.name),
                best.map(|route| &route.name)
            );
        }
    }
    let location = answer.fields.get(&header::LOCATION);
    if let Some(location) = location.and_then(|l| std::str::from_utf8(l).ok()) {
        let url: http::Uri = location.parse().unwrap_or_default();
        assert!(
            location.starts_with(&format!("https://{host}/from")),
            "{location}"
        );
        assert!(location.bytes().all(|b| b.is_ascii_graphic()), "{location}");
        assert!(url.host().is_none_or(|h| h == host), "{location}");
    }
}
