//! Header hygiene by data: `name: value` lines in, lines out.

use base::Rng;
use http::HeaderName;

use super::{TRACEPARENT, forwarded, span, strip, trace};
use crate::{Fields, Known};

fn map(lines: &str) -> Fields {
    let mut fields = Fields::default();
    for line in lines.lines() {
        let (name, value) = line.split_once(": ").expect("name: value");
        let name: HeaderName = name.parse().expect("a name");
        fields.append(&name, &value.parse().expect("a value"));
    }
    fields
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).expect("text")
}

fn lines(fields: &Fields) -> String {
    let lines = fields.iter();
    let lines = lines.map(|(name, value)| format!("{}: {}", text(name), text(value)));
    let mut lines: Vec<String> = lines.collect();
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
        strip(&mut headers);
        assert_eq!(lines(&headers), expect, "{input}");
    }
}

#[test]
fn internal_headers_never_pass() {
    let mut headers = map("sealane-error: x\nSealane-Lb: y\nx-sealane: z\nsealane: w");
    strip(&mut headers);
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
        assert_eq!(found.to_string() == id, kept, "{value}");
        assert_eq!(headers.first(Known::Tracestate).is_some(), kept);
        let now = text(headers.get(&TRACEPARENT).expect("a parent"));
        assert_eq!(now == value, kept, "{now}");
        assert_eq!(now.len(), if kept { value.len() } else { 55 });
    }
}

#[test]
fn spans_go_by_their_parents() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    let all = 1 << 32;
    for (value, ratio, sampled, has_parent) in [
        (format!("00-{id}-b7ad6b7169203331-01"), 0, true, true),
        (format!("00-{id}-b7ad6b7169203331-03"), 0, true, true),
        (format!("00-{id}-b7ad6b7169203331-00"), all, false, true),
        (format!("ff-{id}-b7ad6b7169203331-01"), all, true, false),
        ("nonsense".to_owned(), 0, false, false),
    ] {
        let mut fields = map(&format!("traceparent: {value}\ntracestate: a=b"));
        let context = span(&mut fields, &mut Rng::new(1), ratio);
        assert_eq!(
            (context.sampled, context.parent.is_some()),
            (sampled, has_parent),
            "{value}"
        );
        assert_eq!(
            fields.first(Known::Tracestate).is_some(),
            has_parent,
            "{value}"
        );
        assert_eq!(context.trace.to_string() == id, has_parent, "{value}");
        let now = text(fields.get(&TRACEPARENT).expect("a parent")).to_owned();
        let digits = |digits: &[u8]| String::from_utf8(digits.to_vec()).expect("digits");
        let own = digits(&context.span.digits());
        if has_parent && !sampled {
            assert_eq!(now, value, "nothing is told, so nothing is changed");
            continue;
        }
        let flags = if has_parent {
            &value[53..]
        } else {
            if sampled { "01" } else { "00" }
        };
        assert_eq!(now, format!("00-{}-{own}-{flags}", context.trace));
        // Whoever is asked next has us for its parent.
        let next = span(&mut fields, &mut Rng::new(2), 0);
        let parent = next.parent.map(|parent| digits(&parent.digits()));
        assert_eq!((parent, next.trace), (Some(own), context.trace));
    }
    let mut rng = Rng::new(7);
    let drawn = (0..10_000).filter(|_| span(&mut Fields::default(), &mut rng, all / 4).sampled);
    let drawn = drawn.count();
    assert!((2300..2700).contains(&drawn), "{drawn}");
}
