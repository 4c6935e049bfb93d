//! How much of a service this node uses at a time (circuit breaking).

use crate::EndpointSet;

/// Bounds on what this node does to a service at one moment; what is over them is refused at
/// once, so that a service in trouble is not buried and nobody waits for it. `None`: no bound.
/// Relaxed: a few too many at the same moment do no harm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    /// Connections, open or being opened, those of pools included.
    pub connections: Option<u32>,
    /// Connections being opened.
    pub pending: Option<u32>,
    /// Requests running.
    pub requests: Option<u32>,
    /// Tries that repeat another; without it a fifth of what runs.
    pub retries: Option<u32>,
}

impl Circuit {
    /// May one more request run?
    #[must_use]
    pub fn takes_request(&self, set: &EndpointSet) -> bool {
        self.requests.is_none_or(|most| set.running() < most)
    }

    /// May one more connection be opened?
    #[must_use]
    pub fn takes_connection(&self, set: &EndpointSet) -> bool {
        let stats = || set.endpoints().iter().map(|endpoint| &endpoint.stats);
        let connecting = || stats().map(|stats| stats.connecting()).sum::<u32>();
        let open = || stats().map(|stats| stats.connections()).sum::<u32>();
        self.pending.is_none_or(|most| connecting() < most)
            && self
                .connections
                .is_none_or(|most| open() + connecting() < most)
    }
}
