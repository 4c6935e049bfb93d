//! A request as a span of its trace, for collectors (OpenTelemetry Protocol 1.x, its JSON form).

use std::{io::Write as _, time::Duration};

use crate::{AccessRecord, headers::SpanContext, record::text};

/// Where in the way of a request a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Where it comes in.
    Ingress,
    /// Where it leaves a tunnel.
    Egress,
}

/// `SPAN_KIND_SERVER` and `STATUS_CODE_ERROR` of opentelemetry-proto.
const SERVER: u8 = 2;
const ERROR: u8 = 2;

impl AccessRecord<'_> {
    /// Append it as a span (`opentelemetry.proto.trace.v1.Span`) and a comma. Attributes have the
    /// names of OpenTelemetry's semantic conventions where it has some. The query is left out, for
    /// it may hold what is secret. `took` is how long the request took; at an egress `peer` is the
    /// endpoint.
    pub fn span(&self, context: &SpanContext, side: Side, took: Duration, out: &mut Vec<u8>) {
        let start = u128::from(self.time.unix_millis()) * 1_000_000;
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
            ",\"kind\":{SERVER},\"startTimeUnixNano\":\"{start}\",\"endTimeUnixNano\":\"{end}\",\
             \"attributes\":["
        );
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
        // The comma of the last one.
        out.pop();
        let failed = self.status == 0 || self.status >= 500;
        let status = if failed { ERROR } else { 0 };
        let _ = write!(out, "],\"status\":{{\"code\":{status}}}}},");
    }
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
        let of = |name: &str| {
            let found = attributes.iter().find(|one| one["key"] == name)?;
            let value = &found["value"];
            value.get("stringValue").or(value.get("intValue"))?.as_str()
        };
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
    }
}
