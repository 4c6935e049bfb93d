//! Walks over a neighbour's own routes: what it did not say anew goes, or becomes stale.

use super::{AttributesId, Path, PeerIndex, Shard, peer_ref};
use crate::policy::{self, Community};

/// Routes looked at in one turn.
const STEP: u32 = 2048;

/// What becomes of routes that were not said anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They go.
    Gone,
    /// They stay, as stale ones.
    Stale {
        /// Also those that are stale already.
        again: bool,
    },
    /// They stay, behind all others, unless they forbid it (RFC 9494 §4.2).
    LongLived,
}

/// One walk over one family.
#[derive(Debug)]
pub(super) struct Sweep {
    peer: PeerIndex,
    table: usize,
    cursor: u32,
    /// Paths of an epoch before this are old.
    epoch: u32,
    fate: Fate,
    /// Attributes that were marked, and what became of them: routes in a row often share them.
    last: (AttributesId, AttributesId),
}

impl Sweep {
    pub(super) const fn new(peer: PeerIndex, table: usize, epoch: u32, fate: Fate) -> Self {
        Sweep {
            peer,
            table,
            cursor: 0,
            epoch,
            fate,
            last: (AttributesId::NONE, AttributesId::NONE),
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
        let peer = peer_ref(&self.peers, sweep.peer);
        if peer.is_none_or(|peer| peer.routes[sweep.table] == 0) {
            return self.end_sweep(&sweep);
        }
        for place in sweep.cursor..until {
            while let Some(position) = self.ending(&sweep, place) {
                self.drop_path(sweep.table, place, position);
            }
            match sweep.fate {
                Fate::Gone => {}
                Fate::Stale { .. } => self.age(&sweep, place),
                Fate::LongLived => self.mark(&mut sweep, place),
            }
        }
        if until == end {
            return self.end_sweep(&sweep);
        }
        sweep.cursor = until;
        self.sweeps.push_front(sweep);
        true
    }

    /// Give back what a walk held; is there another one?
    fn end_sweep(&mut self, sweep: &Sweep) -> bool {
        self.release(sweep.last.0);
        self.release(sweep.last.1);
        !self.sweeps.is_empty()
    }

    /// The position of a path that goes.
    fn ending(&self, sweep: &Sweep, place: u32) -> Option<usize> {
        let dest = self.tables[sweep.table].dests.get(place);
        let goes = |path: &Path| match sweep.fate {
            Fate::Gone => true,
            Fate::Stale { again } => path.stale && !again,
            Fate::LongLived => {
                let facts = self.attributes.facts(path.attributes);
                facts.communities.no_long_lived
            }
        };
        let mut paths = dest.paths().iter();
        paths.position(|path| sweep.is_old(path) && goes(path))
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

    /// Mark the old paths of a route with LLGR_STALE, which everybody is to hear of.
    fn mark(&mut self, sweep: &mut Sweep, place: u32) {
        let mut touched = None;
        let count = self.tables[sweep.table].dests.get(place).paths().len();
        for position in (0..count).rev() {
            let path = &self.tables[sweep.table].dests.get(place).paths()[position];
            let before = path.attributes;
            let facts = self.attributes.facts(before);
            if !sweep.is_old(path) || facts.communities.long_lived_stale {
                continue;
            }
            let marked = self.marked(sweep, before);
            let dest = self.tables[sweep.table].dests.get_mut(place);
            let path = &mut dest.paths_mut()[position];
            (path.attributes, path.stale) = (marked, true);
            self.attributes.keep(marked);
            self.release(before);
            touched = Some(position);
        }
        if touched.is_some() {
            self.reselect(sweep.table, place, touched);
        }
    }

    /// The same attributes with LLGR_STALE.
    fn marked(&mut self, sweep: &mut Sweep, before: AttributesId) -> AttributesId {
        if sweep.last.0 != before {
            let mut octets = Vec::new();
            let plain = self.attributes.octets(before);
            policy::add_community(plain, Community::LLGR_STALE, &mut octets);
            let marked = self.acquire(&octets);
            self.attributes.keep(before);
            let last = std::mem::replace(&mut sweep.last, (before, marked));
            self.release(last.0);
            self.release(last.1);
        }
        sweep.last.1
    }
}
