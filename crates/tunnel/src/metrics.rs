//! What the tunnels count.

use runtime::metrics::{Counter, CounterBy, Gauge, Metrics};

use crate::packets::PacketError;

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
    pub(crate) packets: PacketMetrics,
}

/// What is counted of packets: counters at hand, since there may be a million a second.
#[derive(Clone, Debug)]
pub(crate) struct PacketMetrics {
    sent: Counter,
    sent_octets: Counter,
    received: Counter,
    received_octets: Counter,
    dropped: Dropped,
}

/// Those that got no further, by cause.
#[derive(Clone, Debug)]
struct Dropped {
    no_link: Counter,
    no_packets: Counter,
    too_large: Counter,
    full: Counter,
    unread: Counter,
    unattended: Counter,
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
            packets: PacketMetrics::declare(metrics),
        }
    }
}

impl PacketMetrics {
    fn declare(metrics: &Metrics) -> Self {
        let dropped = metrics.counter_by(
            "tunnel_packets_dropped",
            "Packets that were not sent, or had come and were not read",
            "cause",
        );
        PacketMetrics {
            sent: metrics.counter("tunnel_packets_sent", "Packets that were put on a link"),
            sent_octets: metrics.counter("tunnel_packets_sent_bytes", "Their octets"),
            received: metrics.counter("tunnel_packets_received", "Packets that have come"),
            received_octets: metrics.counter("tunnel_packets_received_bytes", "Their octets"),
            dropped: Dropped {
                no_link: dropped.of("no_link"),
                no_packets: dropped.of("no_packets"),
                too_large: dropped.of("too_large"),
                full: dropped.of("full"),
                unread: dropped.of("unread"),
                unattended: dropped.of("unattended"),
            },
        }
    }

    /// What became of a packet of so many octets that was to be sent.
    pub(crate) fn sent(&self, octets: usize, sent: Result<(), PacketError>) {
        let counter = match sent {
            Ok(()) => {
                self.sent_octets.inc_by(octets as u64);
                &self.sent
            }
            Err(PacketError::NoLink) => &self.dropped.no_link,
            Err(PacketError::NoPackets) => &self.dropped.no_packets,
            Err(PacketError::TooLarge { .. }) => &self.dropped.too_large,
            Err(PacketError::Full) => &self.dropped.full,
        };
        counter.inc();
    }

    /// What became of one that has come.
    pub(crate) fn received(&self, octets: usize, received: Received) {
        let counter = match received {
            Received::Read => {
                self.received_octets.inc_by(octets as u64);
                &self.received
            }
            Received::TooLarge => &self.dropped.too_large,
            Received::Unread => &self.dropped.unread,
            Received::Unattended => &self.dropped.unattended,
        };
        counter.inc();
    }
}

/// What becomes of a packet that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Received {
    /// It waits for whoever reads packets.
    Read,
    /// It is larger than any that is sent.
    TooLarge,
    /// Too many wait.
    Unread,
    /// Nobody reads any.
    Unattended,
}
