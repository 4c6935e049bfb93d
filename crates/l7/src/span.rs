//! A request as a span of its trace, for collectors (OpenTelemetry Protocol 1.x, its JSON form).

use std::{io::Write as _, net::SocketAddr, time::Duration};

use base::SiteName;

use crate::{
    AccessRecord,
    headers::{SpanContext, SpanId},
    record::text,
};

/// Where in the way of a request a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes in.
    Ingress,
    /// Where it leaves a tunnel.
    Egress,
}

/// One try of a request on an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Its own span.
    pub span: SpanId,
    /// Who was asked.
    pub endpoint: SocketAddr,
    /// In which site.
    pub site: &'a SiteName,
    /// How many there were before it.
    pub before: u8,
    /// When it began, from the request's head on.
    pub after: Duration,
    /// How long it took to the head of its answer, or its end.
    pub took: Duration,
    /// The status that was answered, or a word for what there was instead.
    pub end: Result<u16, &'static str>,
}

/// `SPAN_KIND_SERVER`, `SPAN_KIND_CLIENT` and `STATUS_CODE_ERROR` of opentelemetry-proto.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

impl AccessRecord<'_> {
    /// Append it as a span (`opentelemetry.proto.trace.v1.Span`) and a comma. Attributes have the
    /// names of OpenTelemetry's semantic conventions where it has some. The query is left out, for
    /// it may hold what is secret. `took` is how long the request took; at an egress `peer` is the
    /// endpoint.
    pub fn span(&self, context: &SpanContext, side: Side, took: Duration, out: &mut Vec<u8>) {
        self.begin(context, SERVER, Duration::ZERO, took, out);
        let word = match side {
            Side::Ingress => "ingress",
            Side::Egress => "egress",
        };
        string(out, "sealane.side", word);
        string(out, "http.request.method", self.method);
        let (path, _) = self.path.split_once('?').unwrap_or((self.path, ""));
        string(out, "url.path", path);
        string(out, "server.address", self.host);
        match side {
            Side::Ingress => string(out, "client.address", &self.peer.ip().to_string()),
            Side::Egress => string(out, "sealane.endpoint", &self.peer.to_string()),
        }
        if self.status != 0 {
            number(out, "http.response.status_code", u64::from(self.status));
        }
        number(out, "sealane.tries", u64::from(self.tries));
        for (name, value) in [
            ("sealane.tenant", self.tenant),
            ("sealane.lb", self.lb),
            ("sealane.route", self.route),
            ("sealane.identity", self.identity.unwrap_or_default()),
        ] {
            if !value.is_empty() {
                string(out, name, value);
            }
        }
        if let Some(service) = self.service {
            string(out, "sealane.service", &service.to_string());
        }
        if let Some((endpoint, site)) = self.endpoint {
            string(out, "sealane.endpoint", &endpoint.to_string());
            string(out, "sealane.site", &site.to_string());
        }
        if let Some((error, _)) = self.error {
            string(out, "error.type", error);
        }
        end(out, self.status == 0 || self.status >= 500);
    }

    /// Append one of its tries as a span below that of the request, and a comma.
    pub fn attempt_span(&self, context: &SpanContext, tried: &Attempt<'_>, out: &mut Vec<u8>) {
        let own = SpanContext {
            span: tried.span,
            parent: Some(context.span),
            ..*context
        };
        self.begin(&own, CLIENT, tried.after, tried.took, out);
        string(out, "http.request.method", self.method);
        string(out, "server.address", &tried.endpoint.ip().to_string());
        number(out, "server.port", u64::from(tried.endpoint.port()));
        string(out, "sealane.site", &tried.site.to_string());
        if let Some(service) = self.service {
            string(out, "sealane.service", &service.to_string());
        }
        if tried.before > 0 {
            number(out, "http.request.resend_count", u64::from(tried.before));
        }
        match tried.end {
            Ok(status) => number(out, "http.response.status_code", u64::from(status)),
            Err(error) => string(out, "error.type", error),
        }
        // Semantic conventions: of a client's span that is an error which a server's is not.
        end(
            out,
            tried.end.is_ok_and(|status| status >= 400) || tried.end.is_err(),
        );
    }

    /// Up to the first attribute, of a span that begins so long after the request.
    fn begin(
        &self,
        context: &SpanContext,
        kind: u8,
        after: Duration,
        took: Duration,
        out: &mut Vec<u8>,
    ) {
        let start = u128::from(self.time.unix_millis()) * 1_000_000 + after.as_nanos();
        let end = start + took.as_nanos();
        let trace = context.trace.digits();
        out.extend_from_slice(b"{\"traceId\":\"");
        out.extend_from_slice(&trace);
        out.extend_from_slice(b"\",\"spanId\":\"");
        out.extend_from_slice(&context.span.digits());
        if let Some(parent) = context.parent {
            out.extend_from_slice(b"\",\"parentSpanId\":\"");
            out.extend_from_slice(&parent.digits());
        }
        out.extend_from_slice(b"\",\"name\":");
        text(out, self.method);
        // Into memory: it cannot fail. 64-bit numbers are texts in JSON (protobuf's mapping).
        let _ = write!(
            out,
            ",\"kind\":{kind},\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{end}\",\
             \"attributes\":["
        );
    }
}

/// After the last attribute.
fn end(out: &mut Vec<u8>, failed: bool) {
    // Its comma.
    out.pop();
    let status = if failed { ERROR } else { 0 };
    let _ = write!(out, "],\"status\":{{\"code\":{status}}}}},");
}

fn string(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b"{\"key\":");
    text(out, name);
    out.extend_from_slice(b",\"value\":{\"stringValue\":");
    text(out, value);
    out.extend_from_slice(b"}},");
}

fn number(out: &mut Vec<u8>, name: &str, value: u64) {
    out.extend_from_slice(b"{\"key\":");
    text(out, name);
    let _ = write!(out, ",\"value\":{{\"intValue\":\"{value}\"}}}},");
}

#[cfg(test)]
mod tests {
    use base::{Rng, WallTime};
    use serde_json::Value;

    use super::*;
    use crate::{Fault, Fields, headers};

    fn attribute<'v>(attributes: &'v [Value], name: &str) -> Option<&'v str> {
        let found = attributes.iter().find(|one| one["key"] == name)?;
        let value = &found["value"];
        value.get("stringValue").or(value.get("intValue"))?.as_str()
    }

    #[test]
    fn a_span_is_json_that_collectors_read() {
        let mut fields = Fields::default();
        let context = headers::span(&mut fields, &mut Rng::new(1), 1 << 32);
        let service = "cart.shop.acme".parse().expect("a service");
        let site = "aws.acme".parse().expect("a site");
        let record = AccessRecord {
            time: WallTime::from_unix_millis(1_767_225_599_999),
            trace: context.trace,
            tenant: "acme",
            lb: "shop/web",
            route: "",
            service: Some(&service),
            endpoint: Some(("10.0.0.1:80".parse().expect("an address"), &site)),
            peer: "[2001:db8::1]:65535".parse().expect("an address"),
            method: "GET",
            path: "/a\"b?secret=1",
            host: "cart.example",
            protocol: "h2",
            status: 503,
            bytes_in: 0,
            bytes_out: 1,
            duration_us: 12,
            tries: 3,
            error: Some(("refused", Fault::Upstream)),
            policy: None,
            shadow: None,
            identity: None,
        };
        let mut out = Vec::new();
        let took = Duration::from_nanos(1_500_000_001);
        record.span(&context, Side::Ingress, took, &mut out);
        assert_eq!(out.pop(), Some(b','));
        let span: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(span["traceId"].as_str().map(str::len), Some(32));
        assert_eq!(span["spanId"].as_str().map(str::len), Some(16));
        assert_eq!(span.get("parentSpanId"), None);
        assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &2.into()));
        assert_eq!(span["startTimeUnixNano"], "1767225599999000000");
        assert_eq!(span["endTimeUnixNano"], "1767225601499000001");
        assert_eq!(span["status"]["code"], 2);
        let attributes = span["attributes"].as_array().expect("a list");
        let of = |name: &str| attribute(attributes, name);
        for (name, expect) in [
            ("url.path", Some("/a\"b")),
            ("client.address", Some("2001:db8::1")),
            ("http.response.status_code", Some("503")),
            ("sealane.side", Some("ingress")),
            ("sealane.service", Some("cart.shop.acme")),
            ("sealane.site", Some("aws.acme")),
            ("sealane.route", None),
            ("error.type", Some("refused")),
        ] {
            assert_eq!(of(name), expect, "{name}");
        }
        assert!(!String::from_utf8_lossy(&out).contains("secret"));
        let mut attempt = Attempt {
            span: headers::SpanId::drawn(&mut Rng::new(2)),
            endpoint: "[2001:db8::2]:80".parse().expect("an address"),
            site: &site,
            before: 1,
            after: Duration::from_nanos(1),
            took: Duration::from_millis(1),
            end: Err("refused"),
        };
        for (end, status, error, code) in [
            (Err("refused"), None, Some("refused"), 2),
            (Ok(404), Some("404"), None, 2),
            (Ok(200), Some("200"), None, 0),
        ] {
            attempt.end = end;
            let mut out = Vec::new();
            record.attempt_span(&context, &attempt, &mut out);
            assert_eq!(out.pop(), Some(b','));
            let below: Value = serde_json::from_slice(&out).expect("JSON");
            assert_eq!(below["traceId"], span["traceId"]);
            assert_eq!(below["parentSpanId"], span["spanId"]);
            assert_ne!(below["spanId"], span["spanId"]);
            assert_eq!(below["kind"], 3);
            assert_eq!(below["startTimeUnixNano"], "1767225599999000001");
            assert_eq!(below["endTimeUnixNano"], "1767225600000000001");
            assert_eq!(below["status"]["code"], code);
            let attributes = below["attributes"].as_array().expect("a list");
            for (name, expect) in [
                ("server.address", Some("2001:db8::2")),
                ("server.port", Some("80")),
                ("http.request.resend_count", Some("1")),
                ("sealane.site", Some("aws.acme")),
                ("http.response.status_code", status),
                ("error.type", error),
            ] {
                assert_eq!(attribute(attributes, name), expect, "{name}");
            }
        }
    }
}
