//! What the tunnels count.

use runtime::metrics::{Counter, CounterBy, Gauge, Metrics};

/// The room's metrics; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct TunnelMetrics {
    pub(crate) refused_peers: CounterBy,
    pub(crate) refused_streams: CounterBy,
    pub(crate) downs: CounterBy,
    pub(crate) links: Gauge,
    pub(crate) trunks: Gauge,
    pub(crate) spares: Gauge,
    pub(crate) aside: Counter,
    pub(crate) stalls: Counter,
    pub(crate) rekeys: CounterBy,
    pub(crate) joins: Counter,
}

impl TunnelMetrics {
    pub(crate) fn declare(metrics: &Metrics) -> Self {
        let by_cause = |name, help| metrics.counter_by(name, help, "cause");
        TunnelMetrics {
            refused_peers: by_cause("tunnel_peers_refused", "Connections that made no link"),
            refused_streams: by_cause("tunnel_streams_refused", "Streams refused here"),
            downs: by_cause("tunnel_links_down", "Links that went down"),
            links: metrics.gauge("tunnel_links", "Links that are up"),
            trunks: metrics.gauge(
                "tunnel_data_connections",
                "Data connections of links, those that linger among them",
            ),
            spares: metrics.gauge(
                "tunnel_spare_connections",
                "Connections beside data connections, for bulk",
            ),
            aside: metrics.counter(
                "tunnel_streams_aside",
                "Times that a stream went over to a spare connection",
            ),
            stalls: metrics.counter("tunnel_stalls", "Timers of links that fired too late"),
            rekeys: metrics.counter_by(
                "tunnel_rekeys",
                "Times that connections went on with new keys",
                "connection",
            ),
            joins: metrics.counter("tunnel_joins", "Connections that asked to join"),
        }
    }
}
