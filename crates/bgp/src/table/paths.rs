//! A path comes, changes or goes: what it means for its route, and who is to hear of it.

use super::{
    Notice, PeerIndex, Shard,
    changes::Lane,
    dest::{Dest, Path},
    intern::{AttributesId, Interner},
    octets::Octets,
    peer_mut,
    select::Selection,
};
use crate::{
    Refusal, mesh,
    wire::{Family, Nlri},
};

impl Shard {
    /// A path came, or came anew; of MESH one whose value is bad counts as gone.
    pub(super) fn put(&mut self, at: usize, index: PeerIndex, nlri: &Nlri<'_>, id: AttributesId) {
        let table = &mut self.tables[at];
        let kind = nlri.key.first().copied().unwrap_or(0);
        if table.family == Family::MESH && !mesh::bytes::value_fits(kind, nlri.value) {
            self.take(at, index, nlri.key, nlri.path_id);
            return;
        }
        let place = table.place_of(nlri.key, &self.hasher);
        let dest = table.dests.get_mut(place);
        let mut peer = peer_mut(&mut self.peers, index);
        let epoch = peer.as_ref().map_or(0, |peer| peer.epochs[at]);
        let family = table.family;
        let position = dest.position(index, nlri.path_id);
        let known = position.map(|position| dest.paths()[position].epoch);
        let admitted = match &mut peer {
            Some(peer) if known.is_none_or(|epoch| epoch < peer.since[at]) => {
                peer.admit(at, family)
            }
            Some(_) | None => true,
        };
        if !admitted {
            if let Some(peer) = peer {
                peer.refuse(at, Refusal::Limit);
                if !std::mem::replace(&mut peer.told_too_many, true) {
                    self.notices.push_back(Notice::TooMany(index, family));
                }
            }
            if dest.best().is_none() {
                table.tombs.insert(place);
            }
            return;
        }
        let path = Path {
            value: Octets::new(nlri.value),
            attributes: id,
            path_id: nlri.path_id,
            peer: index,
            epoch,
            stale: false,
        };
        let before = dest.paths().len();
        let changed = if let Some(position) = position {
            let known = &mut dest.paths_mut()[position];
            known.epoch = epoch;
            if known.attributes == id && *known.value == *nlri.value {
                if std::mem::take(&mut known.stale) {
                    // It may win now, but it says nothing new.
                    self.reselect(at, place, None);
                }
                return;
            }
            let old = std::mem::replace(known, path);
            self.attributes.keep(id);
            self.attributes.release(old.attributes);
            position
        } else {
            if let Some(peer) = peer {
                peer.routes[at] += 1;
            }
            dest.push(path);
            self.attributes.keep(id);
            before
        };
        if family == Family::RTC && index != PeerIndex::LOCAL {
            self.next_review
                .note(&mut self.interest, index, nlri.key, true);
        }
        self.reselect(at, place, Some(changed));
    }

    /// A path is gone.
    pub(super) fn take(&mut self, at: usize, index: PeerIndex, key: &[u8], path_id: u32) {
        let table = &self.tables[at];
        let Some(place) = table.find(key, &self.hasher) else {
            return;
        };
        if let Some(position) = table.dests.get(place).position(index, path_id) {
            self.drop_path(at, place, position);
        }
    }

    pub(super) fn drop_path(&mut self, at: usize, place: u32, position: usize) {
        let table = &mut self.tables[at];
        let dest = table.dests.get_mut(place);
        let Some(path) = dest.remove(position) else {
            return;
        };
        if let Some(peer) = peer_mut(&mut self.peers, path.peer) {
            peer.routes[at] = peer.routes[at].saturating_sub(1);
            if path.epoch >= peer.since[at] {
                peer.discharge(at, table.family);
            }
        }
        if table.family == Family::RTC && !dest.paths().iter().any(|p| p.peer == path.peer) {
            self.next_review
                .note(&mut self.interest, path.peer, &dest.key, false);
        }
        self.release(path.attributes);
        // All paths behind the removed one have moved: only the first is known to be as it was.
        self.reselect(at, place, (position == 0).then_some(0));
        let table = &mut self.tables[at];
        if table.dests.get(place).best().is_none() {
            table.tombs.insert(place);
        }
    }

    /// Select anew after the path at `touched` came, changed or went, and tell the groups if the
    /// best one is another or says something else.
    pub(super) fn reselect(&mut self, at: usize, place: u32, touched: Option<usize>) {
        let table = &mut self.tables[at];
        let dest = table.dests.get_mut(place);
        let before = dest.best().map(|path| (path.peer, path.path_id));
        let selection = Selection {
            family: table.family,
            peers: &self.peers,
            attributes: &self.attributes,
            node: self.config.node,
        };
        let mut changed = touched == Some(0);
        if dest.paths().len() > 1 {
            selection.select(dest);
            changed |= dest.best().map(|path| (path.peer, path.path_id)) != before;
        }
        let lane = lane_of(table.family, dest, &self.attributes);
        for group in &mut table.groups {
            // Of RT constraint, some are told other paths than the best.
            if changed || group.key.add_path > 0 || table.family == Family::RTC {
                group.changes.push(place, lane);
            }
        }
        if let Some(watch) = table.watch.as_mut().filter(|_| changed) {
            watch.push(place, lane);
        }
    }
}

/// A route that is gone or may not be chosen overtakes all others.
fn lane_of(family: Family, dest: &Dest, attributes: &Interner) -> Lane {
    let Some(best) = dest.best() else {
        return Lane::Down;
    };
    let hop = attributes.facts(best.attributes).hop;
    if !attributes.hops.is_reachable(family, hop) {
        return Lane::Down;
    }
    let kind = dest.key.first().copied().unwrap_or(0);
    let down = family == Family::MESH
        && mesh::bytes::state(kind, &best.value).is_some_and(|state| state.is_down());
    if down { Lane::Down } else { Lane::Live }
}
