//! The parameters of a request.

use std::borrow::Cow;

/// The first parameter of this name, decoded.
pub(crate) fn parameter<'q>(query: Option<&'q str>, name: &str) -> Option<Cow<'q, str>> {
    parameters(query, name).next()
}

/// All parameters of this name, decoded.
pub(crate) fn parameters<'q>(
    query: Option<&'q str>,
    name: &str,
) -> impl Iterator<Item = Cow<'q, str>> {
    let pairs = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
    let same = pairs.filter(move |(this, _)| this == name);
    same.map(|(_, value)| value)
}
