//! Subscriptions changed (RFC 4684): a walk over all constrained routes finds those that somebody
//! is to hear now, or no more.

use std::collections::BTreeMap;

use super::{
    Notice, PeerIndex, Shard, Table,
    interest::{Interest, TargetsId},
    intern::{AttributesId, Interner},
    peer_mut,
    peers::PeerSet,
    slab::Bits,
};

/// Routes looked at in one turn.
const STEP: u32 = 2048;

/// What changed since the last walk began, or the walk itself.
#[derive(Debug, Default)]
pub(super) struct Review {
    /// Whose answer changed, by set of route targets.
    changed: BTreeMap<TargetsId, PeerSet>,
    /// Some of them want less than before.
    corrects: PeerSet,
    /// They have said all they want: when this walk is done, what they are owed is all.
    subscribed: PeerSet,
    table: usize,
    cursor: u32,
}

impl Review {
    pub(super) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.subscribed.is_empty()
    }

    /// A neighbour wants this, or wants it no more.
    pub(super) fn note(
        &mut self,
        interest: &mut Interest,
        peer: PeerIndex,
        key: &[u8],
        wants: bool,
    ) {
        let changed = interest.change(peer, key, wants);
        if !wants && !changed.is_empty() {
            self.corrects.insert(peer);
        }
        for targets in changed {
            self.changed.entry(targets).or_default().insert(peer);
        }
    }
}

impl Shard {
    /// The neighbour has said all it wants to hear, or has had the time to: when it has been told
    /// the routes of a constrained family, that was all (RFC 4684 §6).
    pub fn subscribed(&mut self, index: PeerIndex) {
        if peer_mut(&mut self.peers, index).is_some_and(|peer| peer.up && peer.unsubscribed) {
            self.next_review.subscribed.insert(index);
        }
    }

    /// One step of the walk; is there more?
    pub(super) fn review(&mut self) -> bool {
        if self.review.is_empty() {
            if self.next_review.is_empty() {
                return false;
            }
            self.review = std::mem::take(&mut self.next_review);
        }
        let Some(table) = self.tables.get_mut(self.review.table) else {
            self.end_review();
            return true;
        };
        let until = table.dests.end().min(self.review.cursor + STEP);
        if table.constrained && !self.review.changed.is_empty() {
            step(table, &self.review, until, &self.attributes);
        }
        if until == table.dests.end() || !table.constrained {
            self.review.table += 1;
            self.review.cursor = 0;
        } else {
            self.review.cursor = until;
        }
        true
    }

    fn end_review(&mut self) {
        let review = std::mem::take(&mut self.review);
        for (targets, peers) in &review.changed {
            let again = self.next_review.changed.get(targets);
            let peers = peers.clone().minus(again.unwrap_or(&PeerSet::default()));
            self.interest.settle(*targets, &peers);
        }
        for peer in review.subscribed.iter() {
            let known = peer_mut(&mut self.peers, peer);
            let Some(known) = known.filter(|known| known.up) else {
                continue;
            };
            known.unsubscribed = false;
            self.end_held(peer);
        }
    }

    /// Tell a neighbour the ends that were held back, as far as nothing holds them any more.
    pub(super) fn end_held(&mut self, index: PeerIndex) {
        let Some(peer) = peer_mut(&mut self.peers, index) else {
            return;
        };
        let (held, unsubscribed) = (std::mem::take(&mut peer.held), peer.unsubscribed);
        let mut still = Vec::new();
        for at in held {
            let table = &mut self.tables[at];
            if self.config.holds_ends || table.constrained && unsubscribed {
                still.push(at);
                continue;
            }
            let mut ended = PeerSet::default();
            for group in &mut table.groups {
                if group.members.contains(index) {
                    group.end_table(index, &mut ended);
                }
            }
            let family = table.family;
            let sent = ended.iter().map(|peer| Notice::TableSent(peer, family));
            self.notices.extend(sent);
        }
        if let Some(peer) = peer_mut(&mut self.peers, index) {
            peer.held = still;
        }
    }
}

/// The routes from the cursor on to `until` that one of the neighbours is owed.
fn step(table: &mut Table, review: &Review, until: u32, attributes: &Interner) {
    for group in &mut table.groups {
        let mut owed: BTreeMap<PeerIndex, Bits> = BTreeMap::new();
        let mut look = |at: u32, told: AttributesId| {
            if told == AttributesId::NONE {
                return;
            }
            let Some(peers) = review.changed.get(&attributes.facts(told).targets) else {
                return;
            };
            for peer in peers.iter() {
                owed.entry(peer).or_default().insert(at);
            }
        };
        if group.key.add_path > 0 {
            let added = group.added.range(review.cursor..until);
            for (at, added) in added {
                added.iter().for_each(|a| look(*at, a.told.attributes));
            }
        } else {
            for at in review.cursor..until {
                look(at, group.told.get(at).attributes);
            }
        }
        let members = group.members.clone();
        for (peer, owed) in owed {
            if members.contains(peer) {
                let holds = review.corrects.contains(peer).then_some(&owed);
                group.owe(peer, &owed, holds, false);
            }
        }
    }
}
