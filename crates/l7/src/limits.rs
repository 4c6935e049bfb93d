//! Everything has a limit.

use std::time::Duration;

/// What one client connection and one request may use. The defaults hold where nobody says
/// otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request line (HTTP/1.1): 8 KiB.
    pub request_line_bytes: usize,
    /// Bytes of a whole head, request line included: 32 KiB.
    pub header_bytes: usize,
    /// Header fields in a head: 100.
    pub header_count: usize,
    /// Bytes of a body, in either direction; `None` (the default) is unlimited: bodies stream and
    /// are never held.
    pub body_bytes: Option<u64>,
    /// Bytes of bodies that are taken whole, of all requests of a worker: 64 MiB.
    pub buffered_bytes: usize,
    /// From the first byte of a connection or head to its end: 10 s.
    pub header_timeout: Duration,
    /// A connection without a request, or a body without a byte: 60 s.
    pub idle_timeout: Duration,
    /// A connection that was upgraded, or whose octets are carried as they are, and on which
    /// nothing moves: 1 h.
    pub upgrade_idle_timeout: Duration,
    /// A flow of datagrams in which nothing moves: 30 s.
    pub flow_idle_timeout: Duration,
    /// What connections that were handed over, and connections and flows that are carried unread, get
    /// to finish when their load balancer is withdrawn, and requests when a node ends: 5 s.
    pub drain_timeout: Duration,
    /// From the end of the request head to the response head, all tries together: 30 s; a route
    /// may say otherwise.
    pub request_timeout: Duration,
    /// One attempt to reach an endpoint: 2 s.
    pub connect_timeout: Duration,
    /// A TLS handshake: 10 s.
    pub handshake_timeout: Duration,
    /// Client connections a worker holds; more are closed at once: 20,000.
    pub connections: usize,
    /// Of these, connections of one load balancer that carries them unread, or flows of
    /// datagrams on one of its sockets: 10,000.
    pub lb_connections: usize,
    /// Streams at a time on one HTTP/2 connection: 128.
    pub concurrent_streams: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            request_line_bytes: 8 << 10,
            header_bytes: 32 << 10,
            header_count: 100,
            body_bytes: None,
            buffered_bytes: 64 << 20,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            upgrade_idle_timeout: Duration::from_secs(3600),
            flow_idle_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            connections: 20_000,
            lb_connections: 10_000,
            concurrent_streams: 128,
        }
    }
}
