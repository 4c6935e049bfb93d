//! What foreign octets can reach, as functions that must not panic, whatever they are given.
//!
//! Each target checks more than that: what was read is written and read again the same, typed and
//! octet-wise views agree, the state machine's events have an order, and every neighbour of a
//! table ends up holding what the table says. `cargo xtask fuzz TARGET` looks for octets that
//! break it, guided by coverage; `fuzz/corpus` holds what it found worth keeping, and
//! `cargo test -p fuzz` runs all of that again.

pub mod differential;
mod front;
mod fsm;
mod reflector;
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
pub const TARGETS: [Target; 11] = [
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
