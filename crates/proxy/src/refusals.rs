//! Refused tunnel streams by peer: who asks for what is not its own.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use base::SiteName;
use l7::Refusal;

/// Peers counted apart; those beyond are counted by nobody but the total.
const MAX_PEERS: usize = 4096;

/// Counters by (peer, refusal). Behind a lock: nothing that is served comes here.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<BTreeMap<(SiteName, Refusal), u64>>);

impl Refusals {
    pub(crate) fn count(&self, peer: &SiteName, refusal: Refusal) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.clone(), refusal);
        if counts.len() < MAX_PEERS || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }

    pub(crate) fn list(&self) -> Vec<(SiteName, Refusal, u64)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|((peer, refusal), n)| (peer.clone(), *refusal, *n))
            .collect()
    }
}
