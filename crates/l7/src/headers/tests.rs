//! Header hygiene by data: `name: value` lines in, lines out.

use base::Rng;
use http::HeaderMap;

use super::{forwarded, strip_hop_by_hop, strip_internal, trace};

fn map(lines: &str) -> HeaderMap {
    let mut map = HeaderMap::new();
    for line in lines.lines() {
        let (name, value) = line.split_once(": ").expect("name: value");
        map.append(
            name.parse::<http::HeaderName>().expect("a name"),
            value.parse().expect("a value"),
        );
    }
    map
}

fn lines(map: &HeaderMap) -> String {
    let mut lines: Vec<String> = map
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("text")))
        .collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn hop_by_hop_headers_end_here() {
    for (input, expect) in [
        ("a: 1\nconnection: close\nkeep-alive: 5", "a: 1"),
        ("a: 1\nconnection: x, A\nx: 2\nb: 3", "b: 3"),
        (
            "connection: host, content-length\nhost: h\ncontent-length: 5",
            "content-length: 5\nhost: h",
        ),
        (
            "te: trailers\ntransfer-encoding: chunked\nupgrade: x\nproxy-authorization: y",
            "",
        ),
        ("connection: ,, (bad)\na: 1", "a: 1"),
    ] {
        let mut headers = map(input);
        strip_hop_by_hop(&mut headers);
        assert_eq!(lines(&headers), expect, "{input}");
    }
}

#[test]
fn internal_headers_never_pass() {
    let mut headers = map("sealane-error: x\nSealane-Lb: y\nx-sealane: z\nsealane: w");
    strip_internal(&mut headers);
    assert_eq!(lines(&headers), "sealane: w\nx-sealane: z");
}

#[test]
fn the_client_is_appended() {
    for (input, client, tls, expect) in [
        (
            "",
            "10.0.0.1",
            false,
            "x-forwarded-for: 10.0.0.1\nx-forwarded-proto: http",
        ),
        (
            "x-forwarded-for: a\nx-forwarded-for: b\nx-forwarded-proto: ftp",
            "::ffff:10.0.0.1",
            true,
            "x-forwarded-for: a, b, 10.0.0.1\nx-forwarded-proto: https",
        ),
    ] {
        let mut headers = map(input);
        forwarded(&mut headers, client.parse().expect("an address"), tls);
        assert_eq!(lines(&headers), expect);
    }
}

#[test]
fn trace_context() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    let good = format!("00-{id}-b7ad6b7169203331-01");
    for (value, kept) in [
        (good.clone(), true),
        (format!("cc-{id}-b7ad6b7169203331-01-more"), true),
        (format!("ff-{id}-b7ad6b7169203331-01"), false),
        (format!("{good}-more"), false),
        (good.to_uppercase(), false),
        (format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)), false),
        (format!("00-{id}-0000000000000000-01"), false),
        ("nonsense".into(), false),
    ] {
        let mut headers = map(&format!("traceparent: {value}\ntracestate: a=b"));
        let found = trace(&mut headers, &mut Rng::new(1));
        assert_eq!(found == id, kept, "{value}");
        assert_eq!(headers.contains_key("tracestate"), kept);
        let now = headers["traceparent"].to_str().expect("text").to_owned();
        assert_eq!(now == value, kept, "{now}");
        assert_eq!(now.len(), if kept { value.len() } else { 55 });
    }
}
