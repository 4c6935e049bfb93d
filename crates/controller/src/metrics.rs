//! What the controller counts, and one log line for each cause of refusal.

use std::{fmt, net::IpAddr, time::Duration};

use api::Problem;
use runtime::{
    log::Limiter,
    metrics::{Counter, Family, Gauge, Metrics},
};

/// One label from a closed set of words.
type By = Family<[(&'static str, &'static str); 1], Counter>;

/// Counters and gauges of the controller; clones share them.
pub(crate) struct Meters {
    pub(crate) all: Metrics,
    requests: By,
    refused: By,
    joins: By,
    pub(crate) revision: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) watches: Gauge,
    pub(crate) updates: Counter,
    pub(crate) renewals: Counter,
    limiter: Limiter<(&'static str, String)>,
}

impl Default for Meters {
    fn default() -> Self {
        let all = Metrics::default();
        let by = |name: &str, help: &str| {
            let family = By::default();
            all.register(name, help, family.clone());
            family
        };
        Meters {
            requests: by("api_requests", "Answered API requests, by class of status"),
            refused: by(
                "controller_refused",
                "Peers and messages turned away, by cause",
            ),
            joins: by("joins", "Nodes that asked to join, by outcome"),
            revision: all.gauge("store_revision", "The last committed revision"),
            streams: all.gauge("sync_streams", "Open site-sync streams"),
            watches: all.gauge("api_watches", "Open watches"),
            updates: all.counter("sync_updates", "Signed updates made"),
            renewals: all.counter("certificate_renewals", "Node certificates renewed"),
            limiter: Limiter::new(Duration::from_secs(60)),
            all,
        }
    }
}

impl Meters {
    pub(crate) fn answered(&self, status: u16) {
        let class = match status {
            0..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            500.. => "5xx",
        };
        self.requests.get_or_create(&[("status", class)]).inc();
    }

    pub(crate) fn joined(&self, outcome: &'static str) {
        self.joins.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Counts a change that was turned away, and logs it unless `peer` was told the same code
    /// within a minute.
    pub(crate) fn refuse_change(&self, peer: IpAddr, problem: &Problem) {
        let cause = "change";
        self.refused.get_or_create(&[("cause", cause)]).inc();
        let what = (cause, format!("{peer} {}", problem.code));
        if let Some(suppressed) = self.limiter.allow(runtime::now(), what) {
            tracing::warn!(cause, %peer, code = problem.code, error = %problem, suppressed, "refused");
        }
    }

    /// Counts a refusal, and logs it unless the same cause from the same peer was logged within a
    /// minute.
    pub(crate) fn refuse(&self, cause: &'static str, peer: &str, error: &dyn fmt::Display) {
        self.refused.get_or_create(&[("cause", cause)]).inc();
        if let Some(suppressed) = self.limiter.allow(runtime::now(), (cause, peer.to_owned())) {
            tracing::warn!(cause, peer, %error, suppressed, "refused");
        }
    }
}
