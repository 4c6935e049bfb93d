//! What the proxy counts.

use runtime::metrics::{Counter, Gauge, Metrics};

use crate::{clients::Refusals, guard::Decisions, seats::Shed};

/// All counters of the proxy, shared by its workers. Labels: none but those of [`Refusals`], which
/// are five, and of [`Decisions`] and [`Shed`], which have their own bounds, so nothing grows.
#[derive(Clone, Debug)]
pub(crate) struct ProxyMetrics {
    pub(crate) connections: Gauge,
    pub(crate) connections_refused: Counter,
    pub(crate) shed: Shed,
    pub(crate) layer4: Counter,
    pub(crate) datagrams_dropped: Counter,
    pub(crate) requests: Counter,
    pub(crate) turns_waited: Counter,
    pub(crate) spliced: Counter,
    pub(crate) retries: Counter,
    pub(crate) hedges: Counter,
    pub(crate) retries_denied: Counter,
    pub(crate) failures: Counter,
    pub(crate) circuits_open: Counter,
    pub(crate) malformed: Counter,
    pub(crate) handshakes_failed: Counter,
    pub(crate) certificates_refused: Refusals,
    pub(crate) names_unknown: Counter,
    pub(crate) headers_refused: Counter,
    pub(crate) streams: Counter,
    pub(crate) streams_refused: Counter,
    pub(crate) sealed: Counter,
    pub(crate) unsealed: Counter,
    pub(crate) transit: Counter,
    pub(crate) transit_failed: Counter,
    pub(crate) transit_full: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) buffers_full: Counter,
    pub(crate) mirrored: Counter,
    pub(crate) mirrors_dropped: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) records_dropped: Counter,
    pub(crate) spans_dropped: Counter,
    pub(crate) decisions: Decisions,
}

impl ProxyMetrics {
    pub(crate) fn new(m: &Metrics) -> Self {
        ProxyMetrics {
            connections: m.gauge("proxy_connections", "Client connections open"),
            connections_refused: m.counter("proxy_connections_refused", "Closed at the limit"),
            shed: Shed::new(m),
            layer4: m.counter(
                "proxy_layer4",
                "Connections and flows carried unread, from clients",
            ),
            datagrams_dropped: m.counter(
                "proxy_datagrams_dropped",
                "Datagrams dropped for want of room, or of a place for their flow",
            ),
            requests: m.counter("proxy_requests", "Requests from clients"),
            turns_waited: m.counter(
                "proxy_turns_waited",
                "How often a connection waited for its tenant's turn, beside others",
            ),
            spliced: m.counter(
                "proxy_spliced_bytes",
                "Octets of long bodies that went from socket to socket without being copied",
            ),
            retries: m.counter("proxy_retries", "Tries after the first"),
            hedges: m.counter("proxy_hedges", "Tries beside one that takes long"),
            retries_denied: m.counter("proxy_retries_denied", "Tries over the budget, not made"),
            failures: m.counter("proxy_failures", "Tries that failed"),
            circuits_open: m.counter(
                "proxy_circuits_open",
                "Requests refused because their service has as many as it may",
            ),
            malformed: m.counter("proxy_malformed", "Messages refused by the codec"),
            handshakes_failed: m.counter("proxy_handshakes_failed", "TLS handshakes failed"),
            certificates_refused: Refusals::new(m),
            names_unknown: m.counter(
                "proxy_names_unknown",
                "TLS connections for no server name or an unknown one, where some are passed on",
            ),
            headers_refused: m.counter(
                "proxy_headers_refused",
                "Connections without the PROXY header that their sender must send",
            ),
            streams: m.counter("proxy_streams", "Tunnel streams admitted"),
            streams_refused: m.counter("proxy_streams_refused", "Tunnel streams refused"),
            sealed: m.counter(
                "proxy_sealed_streams",
                "Streams sealed here: they go to another site over a third",
            ),
            unsealed: m.counter(
                "proxy_unsealed_streams",
                "Sealed streams from other sites that were opened here",
            ),
            transit: m.counter(
                "proxy_transit_streams",
                "Tunnel streams passed on to another site",
            ),
            transit_full: m.counter(
                "proxy_transit_full",
                "Tunnel streams not passed on: the tenant has as many as it may",
            ),
            transit_failed: m.counter(
                "proxy_transit_failed",
                "Tunnel streams that could not be passed on: the next link is down",
            ),
            buffers_full: m.counter(
                "proxy_buffers_full",
                "Requests refused for want of room for bodies that are taken whole",
            ),
            mirrored: m.counter("proxy_mirrored", "Copies of requests sent to mirrors"),
            mirrors_dropped: m.counter(
                "proxy_mirrors_dropped",
                "Copies not sent: too many at once, or a body over 64 KiB",
            ),
            cancelled: m.counter("proxy_cancelled", "Tries given up on news of an endpoint"),
            events_dropped: m.counter("proxy_events_dropped", "Events lost to a full queue"),
            records_dropped: m.counter("proxy_records_dropped", "Access records lost"),
            spans_dropped: m.counter("proxy_spans_dropped", "Spans lost to a full queue"),
            decisions: Decisions::new(m),
        }
    }
}
