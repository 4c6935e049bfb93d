//! Counters and gauges, rendered as OpenMetrics text (which Prometheus reads).
//!
//! Increments are relaxed atomics; only registering and rendering take a lock. A counter's name
//! gets the suffix `_total`. Labels come from closed sets: a family never grows with the traffic.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicU64};

use prometheus_client::{encoding::text, registry::Registry};

/// What only grows.
pub type Counter = prometheus_client::metrics::counter::Counter<u64, AtomicU64>;

/// What goes up and down.
pub type Gauge = prometheus_client::metrics::gauge::Gauge;

pub use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::{MetricType as Kind, family::Family, histogram::Histogram},
};

/// Counters apart by one label, whose values are words of a closed set.
#[derive(Clone, Debug)]
pub struct CounterBy {
    label: &'static str,
    family: Family<[(&'static str, &'static str); 1], Counter>,
}

impl CounterBy {
    /// Counters that are not declared anywhere yet, apart by `label`.
    #[must_use]
    pub fn new(label: &'static str) -> Self {
        CounterBy {
            label,
            family: Family::default(),
        }
    }

    /// Counts one more of `value`. Takes a short read lock to find the counter: for events that
    /// are rare, or hold on to [`CounterBy::of`].
    pub fn inc(&self, value: &'static str) {
        self.family.get_or_create(&[(self.label, value)]).inc();
    }

    /// The counter of `value`, to be kept.
    #[must_use]
    pub fn of(&self, value: &'static str) -> Counter {
        self.family.get_or_create(&[(self.label, value)]).clone()
    }
}

/// The content type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a process; clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            registry: Arc::new(Mutex::new(Registry::with_prefix("sealane"))),
        }
    }
}

impl Metrics {
    /// Declares a counter `sealane_NAME_total`.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.register(name, help, counter.clone());
        counter
    }

    /// Declares a gauge `sealane_NAME`.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        self.register(name, help, gauge.clone());
        gauge
    }

    /// Declares counters `sealane_NAME_total{label="…"}`.
    #[must_use]
    pub fn counter_by(&self, name: &str, help: &str, label: &'static str) -> CounterBy {
        let counters = CounterBy::new(label);
        self.register(name, help, counters.family.clone());
        counters
    }

    /// Declares any metric, such as a [`Family`] of counters by label.
    pub fn register(
        &self,
        name: &str,
        help: &str,
        metric: impl prometheus_client::registry::Metric,
    ) {
        self.lock().register(name, help, metric);
    }

    /// Declares whatever `collector` says when somebody asks.
    pub fn collect(&self, collector: impl Collector) {
        self.lock().register_collector(Box::new(collector));
    }

    /// Everything as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut out, &self.lock());
        out
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_render() {
        let metrics = Metrics::default();
        metrics.counter("tunnel_refused", "Refused peers").inc_by(3);
        metrics.gauge("tunnel_links", "Links up").set(2);
        metrics
            .counter_by("refused", "By cause", "cause")
            .inc("expired");
        let text = metrics.render();
        assert!(
            text.contains("sealane_refused_total{cause=\"expired\"} 1"),
            "{text}"
        );
        assert!(text.contains("sealane_tunnel_refused_total 3"), "{text}");
        assert!(text.contains("sealane_tunnel_links 2"), "{text}");
    }
}
