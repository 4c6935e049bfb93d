//! Other hosts and paths: for the endpoint, or for the client to ask again.

use std::borrow::Cow;

use http::StatusCode;

use crate::RequestHead;

/// Another path (Gateway API `HTTPPathModifier`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPath {
    /// The whole path.
    Full(String),
    /// What the route's prefix matched.
    Prefix(String),
}

impl NewPath {
    /// The new path of `path`, of which the route's prefix has `matched` octets.
    #[must_use]
    pub fn of(&self, path: &str, matched: usize) -> String {
        match self {
            NewPath::Full(full) => full.clone(),
            NewPath::Prefix(prefix) => {
                let rest = path.get(matched..).unwrap_or_default();
                let new = format!("{}{rest}", prefix.trim_end_matches('/'));
                if new.is_empty() { "/".to_owned() } else { new }
            }
        }
    }
}

/// Host and path as the endpoint sees them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrite {
    /// The host, with a port where it is not the service's own.
    pub host: Option<String>,
    /// The path.
    pub path: Option<NewPath>,
}

impl Rewrite {
    /// Path and query as the endpoint sees them.
    #[must_use]
    pub fn target<'a>(&self, path: &'a str, query: Option<&str>, matched: usize) -> Cow<'a, str> {
        let path = match &self.path {
            None => Cow::Borrowed(path),
            Some(new) => Cow::Owned(new.of(path, matched)),
        };
        match query {
            None => path,
            Some(query) => Cow::Owned(format!("{path}?{query}")),
        }
    }
}

/// Another place to ask; what is not said stays as it was asked for (Gateway API
/// `HTTPRequestRedirectFilter`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Over TLS?
    pub tls: Option<bool>,
    /// The host.
    pub host: Option<String>,
    /// The path; the query stays.
    pub path: Option<NewPath>,
    /// The port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

impl Redirect {
    /// The URL for a request whose route's prefix has `matched` octets.
    #[must_use]
    pub fn location(&self, head: &RequestHead<'_>, matched: usize) -> String {
        let tls = self.tls.unwrap_or(head.tls);
        let scheme = if tls { "https" } else { "http" };
        let well_known = if tls { 443 } else { 80 };
        let path = match &self.path {
            None => Cow::Borrowed(head.path),
            Some(new) => Cow::Owned(new.of(head.path, matched)),
        };
        let (mark, query) = head.query.map_or(("", ""), |query| ("?", query));
        let port = match (self.port, self.tls) {
            (Some(port), _) => Some(port),
            // Another scheme is at home on its own port.
            (None, Some(_)) => None,
            // The client may know us under another port than we do.
            (None, None) if self.host.is_none() => {
                let authority = head.authority;
                return format!("{scheme}://{authority}{path}{mark}{query}");
            }
            (None, None) => Some(head.port),
        };
        let host = self.host.as_deref().unwrap_or(head.host);
        match port.filter(|port| *port != well_known) {
            None => format!("{scheme}://{host}{path}{mark}{query}"),
            Some(port) => format!("{scheme}://{host}:{port}{path}{mark}{query}"),
        }
    }
}
