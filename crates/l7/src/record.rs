//! The whole story of a request, in one record.

use std::{borrow::Cow, net::SocketAddr};

use base::WallTime;
use serde::{Serialize, Serializer};

/// Whose fault a failed request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The client sent nonsense, too much, or went away.
    Client,
    /// No endpoint answered, or one answered badly.
    Upstream,
    /// Ours: configuration, limits, bugs.
    Us,
}

/// One line of the access log. Borrowed: it is written out where the request ends.
#[derive(Clone, Debug, Serialize)]
pub struct AccessRecord<'a> {
    /// When the request head was complete.
    #[serde(serialize_with = "rfc3339")]
    pub time: WallTime,
    /// W3C trace id.
    pub trace: &'a str,
    /// The tenant's name; empty if no host was found.
    pub tenant: &'a str,
    /// The load balancer, `namespace/name`.
    pub lb: &'a str,
    /// The route's name.
    pub route: &'a str,
    /// The application address.
    pub service: Cow<'a, str>,
    /// The last endpoint tried: `address:port`.
    pub endpoint: Cow<'a, str>,
    /// The site of that endpoint: `SITE.TENANT`.
    pub site: Cow<'a, str>,
    /// The client: `address:port`.
    pub peer: SocketAddr,
    /// The method.
    pub method: &'a str,
    /// The path with its query.
    pub path: &'a str,
    /// The host as asked for.
    pub host: &'a str,
    /// `http/1.1` or `h2`.
    pub protocol: &'a str,
    /// What the client got; 0 if it got nothing.
    pub status: u16,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the complete request head to the last byte, in microseconds.
    pub duration_us: u64,
    /// Endpoints tried.
    pub tries: u8,
    /// A stable word for what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'a str>,
    /// Whose fault it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn rfc3339<S: Serializer>(time: &WallTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}
