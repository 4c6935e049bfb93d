//! The parameters of a request.

use std::borrow::Cow;

/// The first parameter of this name, decoded.
pub(crate) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    let mut pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let first = pairs.find(|(this, _)| this == name);
    first.map(|(_, value)| value)
}
