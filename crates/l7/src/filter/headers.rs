//! Edits of headers.

use http::{HeaderName, HeaderValue, header};

use crate::{Fields, headers::is_stripped};

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
        *name != header::HOST && *name != header::CONTENT_LENGTH && !is_stripped(name)
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
    pub fn apply(&self, fields: &mut Fields) {
        for (name, value) in &self.set {
            fields.insert(name, value);
        }
        for (name, value) in &self.add {
            fields.append(name, value);
        }
        for name in &self.remove {
            fields.remove(name);
        }
    }
}
