//! What foreign octets can reach, as functions that must not panic, whatever they are given.
//!
//! Each target checks more than that: what was read is written and read again the same, typed and
//! octet-wise views agree, the state machine's events have an order, every neighbour of a table ends
//! up holding what the table says, and what decides about a request reads it as a plain reader does. `cargo xtask fuzz TARGET` looks for octets that
//! break it, guided by coverage; `fuzz/corpus` holds what it found worth keeping, and
//! `cargo test -p fuzz` runs all of that again.

pub mod differential;
mod front;
mod fsm;
mod hpack;
mod http1;
mod http2;
mod http3;
mod load;
#[path = "../../crates/proxy/src/message.rs"]
mod message;
mod reflector;
mod requests;
mod wire;

/// One function to be fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its folder in `fuzz/corpus`.
    pub name: &'static str,
    /// What it covers.
    pub about: &'static str,
    /// Runs it; a panic is a finding.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 26] = [
    Target {
        name: "open",
        about: "OPEN: decoded, encoded and decoded again the same",
        run: wire::open,
    },
    Target {
        name: "update",
        about: "UPDATE of every family under every kind of session: a fixpoint of decoding",
        run: wire::update,
    },
    Target {
        name: "differential",
        about: "UPDATE, read by us and by netgauze-bgp-pkt",
        run: differential::run,
    },
    Target {
        name: "flowspec",
        about: "FlowSpec and FlowSpec-VPN rules: checked, described, kept",
        run: wire::flowspec,
    },
    Target {
        name: "mesh",
        about: "MESH keys and values: types and octets say the same",
        run: wire::mesh,
    },
    Target {
        name: "messages",
        about: "framing in pieces, NOTIFICATION and ROUTE-REFRESH",
        run: wire::messages,
    },
    Target {
        name: "policy",
        about: "AS-path patterns: parsed, and matched against any path",
        run: wire::policy,
    },
    Target {
        name: "fsm",
        about: "the state machine of a neighbour under octets, ends, dials and time",
        run: fsm::run,
    },
    Target {
        name: "reflector",
        about: "a table under announcements, ends, refreshes, stalls and subscriptions",
        run: reflector::run,
    },
    Target {
        name: "hello",
        about: "ClientHello: the same in one piece and in many",
        run: front::hello,
    },
    Target {
        name: "proxy-header",
        about: "the PROXY protocol's headers: bounded, written again the same",
        run: front::proxy_header,
    },
    Target {
        name: "http-request",
        about: "a request head: the same in pieces, and never ambiguous",
        run: http1::request,
    },
    Target {
        name: "http-response",
        about: "a response head: the same in pieces, with a body only where there may be one",
        run: http1::response,
    },
    Target {
        name: "http-body",
        about: "bodies of every framing: the same in pieces, and as read plainly",
        run: http1::body,
    },
    Target {
        name: "http2",
        about: "a client's frames of HTTP/2: the same in pieces, and nothing of a stream stays",
        run: http2::frames,
    },
    Target {
        name: "header-block",
        about: "HPACK with its table: written again the same",
        run: hpack::blocks,
    },
    Target {
        name: "http3-request",
        about: "frames of HTTP/3: the same in pieces, and never held beyond the limit",
        run: http3::request,
    },
    Target {
        name: "http3-control",
        about: "a client's control and QPACK streams: the same in pieces",
        run: http3::control,
    },
    Target {
        name: "field-section",
        about: "QPACK without a table: bounded, written again the same, and never an ambiguous request",
        run: http3::section,
    },
    Target {
        name: "path",
        about: "paths: one spelling each, and as read plainly",
        run: requests::path,
    },
    Target {
        name: "host",
        about: "hosts: one spelling each, and nothing of a URL in them",
        run: requests::host,
    },
    Target {
        name: "query",
        about: "parameters: the first of a name, and as read plainly",
        run: requests::query,
    },
    Target {
        name: "cookies",
        about: "cookies: in one line or in crumbs the same",
        run: requests::cookies,
    },
    Target {
        name: "pattern",
        about: "patterns: the whole is compared, whatever they say",
        run: requests::pattern,
    },
    Target {
        name: "load-report",
        about: "load reports: as text and in octets, and as they were written",
        run: load::report,
    },
    Target {
        name: "decision",
        about: "a request against a fixed table, beside a plain reading of the precedence",
        run: requests::decision,
    },
];

/// Octets to make choices from; zeros when there are no more.
struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn octet(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    /// At most so many of the octets that follow.
    fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
