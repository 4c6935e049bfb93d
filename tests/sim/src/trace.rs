//! A digest over everything that happens, in order.

use std::fmt::{self, Write as _};

use base::Instant;

/// When the buffer is this long it is folded into the state.
const FOLD_AT: usize = 1 << 16;

/// SHA-256 over the run: each fold is the hash of the state before it and what came since.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    state: [u8; 32],
    buffer: Vec<u8>,
}

impl Trace {
    pub(crate) fn line(&mut self, now: Instant, what: fmt::Arguments<'_>) {
        let mut text = String::new();
        let written = writeln!(text, "{} {what}", now.as_nanos());
        written.expect("a String takes everything");
        self.octets(text.as_bytes());
    }

    pub(crate) fn octets(&mut self, octets: &[u8]) {
        self.buffer.extend_from_slice(octets);
        if self.buffer.len() >= FOLD_AT {
            self.fold();
        }
    }

    pub(crate) fn finish(mut self) -> String {
        self.fold();
        self.state
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect()
    }

    fn fold(&mut self) {
        let before = std::mem::take(&mut self.buffer);
        self.state = pki::sha256(&[&self.state[..], &before].concat());
    }
}
