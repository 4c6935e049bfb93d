//! Edits of headers.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::headers::{INTERNAL_PREFIX, is_hop_by_hop};

/// Edits in the order set, add, remove (Gateway API `HTTPHeaderFilter`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    set: Vec<(HeaderName, HeaderValue)>,
    add: Vec<(HeaderName, HeaderValue)>,
    remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// May a user edit this header? Not what frames a message, routes it, concerns one connection
    /// or is ours.
    #[must_use]
    pub fn may_name(name: &HeaderName) -> bool {
        *name != header::HOST
            && *name != header::CONTENT_LENGTH
            && !is_hop_by_hop(name)
            && !name.as_str().starts_with(INTERNAL_PREFIX)
    }

    /// Instead of all that have this name.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.set.push((name, value));
    }

    /// One more.
    pub fn add(&mut self, name: HeaderName, value: HeaderValue) {
        self.add.push((name, value));
    }

    /// All that have this name.
    pub fn remove(&mut self, name: HeaderName) {
        self.remove.push(name);
    }

    /// Do it.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}
