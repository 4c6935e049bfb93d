//! Walks over a neighbour's own routes: what it did not say anew goes, or becomes stale.

use super::{Path, PeerIndex, Shard};

/// Routes looked at in one turn.
const STEP: u32 = 2048;

/// One walk over one family.
#[derive(Debug)]
pub(super) struct Sweep {
    peer: PeerIndex,
    table: usize,
    cursor: u32,
    /// Paths of an epoch before this are old.
    epoch: u32,
    /// Old routes stay, as stale ones; those that are stale already go (RFC 4724 §4.2).
    keep: bool,
    /// Also those that are stale already: their owner sees to their end.
    keeps_stale: bool,
}

impl Sweep {
    pub(super) const fn new(
        peer: PeerIndex,
        table: usize,
        epoch: u32,
        keep: bool,
        keeps_stale: bool,
    ) -> Self {
        Sweep {
            peer,
            table,
            cursor: 0,
            epoch,
            keep,
            keeps_stale,
        }
    }

    fn is_old(&self, path: &Path) -> bool {
        path.peer == self.peer && path.epoch < self.epoch
    }
}

impl Shard {
    /// One step of the first walk; is there more?
    pub(super) fn sweep(&mut self) -> bool {
        let Some(mut sweep) = self.sweeps.pop_front() else {
            return false;
        };
        let end = self.tables[sweep.table].dests.end();
        let until = end.min(sweep.cursor.saturating_add(STEP));
        let peer = self.peers.get(usize::from(sweep.peer.0));
        let peer = peer.and_then(Option::as_ref);
        if peer.is_none_or(|peer| peer.routes[sweep.table] == 0) {
            return !self.sweeps.is_empty();
        }
        for place in sweep.cursor..until {
            while let Some(position) = self.old_path(&sweep, place) {
                self.drop_path(sweep.table, place, position);
            }
            if sweep.keep {
                self.age(&sweep, place);
            }
        }
        sweep.cursor = until;
        if until < end {
            self.sweeps.push_front(sweep);
        }
        !self.sweeps.is_empty()
    }

    fn old_path(&self, sweep: &Sweep, place: u32) -> Option<usize> {
        let dest = self.tables[sweep.table].dests.get(place);
        let goes =
            |path: &Path| sweep.is_old(path) && (path.stale && !sweep.keeps_stale || !sweep.keep);
        dest.paths().iter().position(goes)
    }

    fn age(&mut self, sweep: &Sweep, place: u32) {
        let dest = self.tables[sweep.table].dests.get_mut(place);
        let mut touched = false;
        for path in dest.paths_mut() {
            if sweep.is_old(path) && !path.stale {
                path.stale = true;
                touched = true;
            }
        }
        if touched {
            // Staleness is our own knowledge: nobody is told unless another path wins.
            self.reselect(sweep.table, place, None);
        }
    }
}
