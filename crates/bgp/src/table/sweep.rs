//! Walks over a neighbour's own routes: what it did not say anew goes, or becomes stale.

use super::{PeerIndex, Shard};

/// Routes looked at in one turn.
const STEP: u32 = 2048;

/// One walk over one family.
#[derive(Debug)]
pub(super) struct Sweep {
    peer: PeerIndex,
    table: usize,
    cursor: u32,
    /// Old routes stay, as stale ones.
    keep: bool,
}

impl Sweep {
    pub(super) const fn new(peer: PeerIndex, table: usize, keep: bool) -> Self {
        Sweep {
            peer,
            table,
            cursor: 0,
            keep,
        }
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
        let Some(epoch) = peer
            .and_then(Option::as_ref)
            .filter(|peer| peer.routes[sweep.table] > 0)
            .map(|peer| peer.epochs[sweep.table])
        else {
            return !self.sweeps.is_empty();
        };
        for place in sweep.cursor..until {
            if sweep.keep {
                self.age(sweep.table, place, sweep.peer, epoch);
                continue;
            }
            while let Some(position) = self.old_path(&sweep, place, epoch) {
                self.drop_path(sweep.table, place, position);
            }
        }
        sweep.cursor = until;
        if until < end {
            self.sweeps.push_front(sweep);
        }
        !self.sweeps.is_empty()
    }

    fn old_path(&self, sweep: &Sweep, place: u32, epoch: u8) -> Option<usize> {
        let dest = self.tables[sweep.table].dests.get(place);
        let old = |path: &super::Path| path.peer == sweep.peer && path.epoch != epoch;
        dest.paths().iter().position(old)
    }

    fn age(&mut self, table: usize, place: u32, peer: PeerIndex, epoch: u8) {
        let dest = self.tables[table].dests.get_mut(place);
        let mut touched = false;
        for path in dest.paths_mut() {
            if path.peer == peer && path.epoch != epoch {
                path.stale = true;
                touched = true;
            }
        }
        if touched {
            // Staleness is our own knowledge: nobody is told unless another path wins.
            self.reselect(table, place, None);
        }
    }
}
