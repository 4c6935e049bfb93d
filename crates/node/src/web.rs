//! Where a URI of the web leads.

use http::Uri;

/// Whom to connect to.
pub(crate) struct Place<'u> {
    /// By TLS.
    pub(crate) secure: bool,
    /// A name, or an address without brackets.
    pub(crate) host: &'u str,
    pub(crate) port: u16,
}

/// Whom it names; `None`: nobody.
pub(crate) fn place(uri: &Uri) -> Option<Place<'_>> {
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Some(Place { secure, host, port })
}
