//! Our own restart (RFC 4724 §4.1): neighbours keep what we told before. It is told again when we
//! have heard what they say, or have waited long enough, so that nobody hears half of it.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bgp::table::PeerIndex;
use tokio::sync::Notify;

/// One for all threads of a speaker.
#[derive(Debug)]
pub(super) struct Restart {
    under_way: AtomicBool,
    /// Neighbours that have not said their whole table.
    awaited: Mutex<BTreeSet<PeerIndex>>,
    changed: Notify,
}

impl Restart {
    /// Wait for these; nobody: it is no restart.
    pub(super) fn new(awaited: impl Iterator<Item = PeerIndex>) -> Self {
        let awaited: BTreeSet<PeerIndex> = awaited.collect();
        Restart {
            under_way: AtomicBool::new(!awaited.is_empty()),
            awaited: Mutex::new(awaited),
            changed: Notify::new(),
        }
    }

    pub(super) fn is_under_way(&self) -> bool {
        // Relaxed: it orders nothing; a connection a moment too late says so in its OPEN.
        self.under_way.load(Ordering::Relaxed)
    }

    /// A neighbour has said all, or we do not wait for it.
    pub(super) fn heard(&self, peer: PeerIndex) {
        if !self.is_under_way() {
            return;
        }
        let mut awaited = self.awaited.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.remove(&peer);
        if awaited.is_empty() {
            self.changed.notify_one();
        }
    }

    /// Until all have said all, or for `time`.
    pub(super) async fn end(&self, time: Duration) {
        if self.is_under_way() {
            let all = tokio::time::timeout(time, self.changed.notified()).await;
            tracing::info!(all = all.is_ok(), "restarted: routes are told from now on");
            self.under_way.store(false, Ordering::Relaxed);
        }
    }
}
