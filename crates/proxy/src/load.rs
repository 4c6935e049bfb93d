//! What an endpoint says of its load: for whoever picks, not for the client.

use std::sync::Arc;

use balance::{EndpointStats, LoadPolicy, LoadReport};
use http::HeaderMap;
use l7::{Fields, LOAD_METRICS, LOAD_METRICS_BIN, load_report, load_report_bin};

/// Who listens to an endpoint.
#[derive(Debug)]
pub(crate) struct Ear {
    stats: Arc<EndpointStats>,
    policy: LoadPolicy,
}

impl Ear {
    pub(crate) fn new(stats: &Arc<EndpointStats>, policy: &LoadPolicy) -> Self {
        Ear {
            stats: Arc::clone(stats),
            policy: *policy,
        }
    }

    /// Take it out of a response's head.
    pub(crate) fn head(&self, fields: &mut Fields) {
        let (text, octets) = (fields.get(&LOAD_METRICS), fields.get(&LOAD_METRICS_BIN));
        if text.is_none() && octets.is_none() {
            return;
        }
        self.hear(text, octets);
        fields.remove(&LOAD_METRICS);
        fields.remove(&LOAD_METRICS_BIN);
    }

    /// Take it out of trailers.
    pub(crate) fn trailers(&self, trailers: &mut HeaderMap) {
        let text = trailers.remove(LOAD_METRICS);
        let octets = trailers.remove(LOAD_METRICS_BIN);
        let (text, octets) = (text.as_ref(), octets.as_ref());
        self.hear(
            text.map(|value| value.as_bytes()),
            octets.map(|value| value.as_bytes()),
        );
    }

    fn hear(&self, text: Option<&[u8]>, octets: Option<&[u8]>) {
        let report: Option<LoadReport> = text.and_then(load_report);
        if let Some(report) = report.or_else(|| octets.and_then(load_report_bin)) {
            self.stats.reported(runtime::now(), report, &self.policy);
        }
    }
}
