//! What a token says.

use std::time::Duration;

use base::WallTime;
use serde_json::{Map, Value};

use crate::ValueMatch;

/// What a verified token says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claims(pub(super) Map<String, Value>);

/// A claim that has to be there with this value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMatch {
    /// Its name; `a.b` is `b` in `a`, unless a claim is called `a.b`.
    pub name: String,
    /// Its value: a text, or a number, true or false as JSON writes it; of a list any entry; of
    /// `scope` any word (RFC 8693 §4.2).
    pub value: ValueMatch,
}

impl ClaimMatch {
    /// Is it there?
    #[must_use]
    pub fn holds(&self, claims: &Claims) -> bool {
        let Some(value) = claims.find(&self.name) else {
            return false;
        };
        match value {
            Value::Array(list) => list.iter().any(|one| self.is(one)),
            Value::String(words) if self.name == "scope" => {
                let mut words = words.split(' ');
                words.any(|word| self.value.holds(word.as_bytes()))
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => self.is(value),
        }
    }

    fn is(&self, value: &Value) -> bool {
        match value {
            Value::String(text) => self.value.holds(text.as_bytes()),
            Value::Bool(_) | Value::Number(_) => self.value.holds(value.to_string().as_bytes()),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}

impl Claims {
    /// Claims of an object; none of anything else.
    #[cfg(test)]
    pub(crate) fn of(value: Value) -> Self {
        match value {
            Value::Object(map) => Claims(map),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => Claims::default(),
        }
    }

    fn find(&self, path: &str) -> Option<&Value> {
        if let Some(value) = self.0.get(path) {
            return Some(value);
        }
        let (first, rest) = path.split_once('.')?;
        let first = self.0.get(first)?;
        rest.split('.')
            .try_fold(first, |value, name| value.get(name))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A text, or a list of them.
    pub(super) fn texts(&self, name: &str) -> impl Iterator<Item = &str> {
        let value = self.0.get(name);
        let list = value.and_then(Value::as_array).into_iter().flatten();
        value.into_iter().chain(list).filter_map(Value::as_str)
    }

    /// Seconds since 1970 (RFC 7519 §2).
    pub(super) fn time(&self, name: &str) -> Option<WallTime> {
        let value = self.0.get(name)?;
        let whole = value.as_u64();
        let part = || Some(Duration::try_from_secs_f64(value.as_f64()?).ok()?.as_secs());
        whole.or_else(part).map(WallTime::from_unix_seconds)
    }

    /// The octets of a claim, for the key of a rate.
    pub(crate) fn octets(&self, path: &str) -> Option<String> {
        match self.find(path)? {
            Value::String(text) => Some(text.clone()),
            value @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => Some(value.to_string()),
        }
    }
}
