//! Authority where a route enters: what a node of ours may say is held against the signed site
//! table, route by route, when it comes and whenever the table changes.

use super::{Notice, PeerIndex, Shard, Table, peer_mut, peer_ref};
use crate::{
    Refusal, SiteTable, Trust,
    authority::Said,
    wire::{AttributesView, Family, Section},
};

/// Routes looked at in one turn.
const STEP: u32 = 2048;

/// Where a walk that judges everything anew stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Judging {
    table: usize,
    cursor: u32,
}

impl Shard {
    /// The site table arrived or changed: every route is judged again, and neighbours whose
    /// routes it may let in are asked for them ([`Notice::AskAgain`]).
    pub fn set_site_table(&mut self, table: SiteTable) {
        if self.site_table.as_ref() == Some(&table) {
            return;
        }
        self.site_table = Some(table);
        self.judging = Some(Judging::default());
    }

    /// Routes of a neighbour that a table has refused, by [`Refusal::index`], and how many came
    /// (those that say what it wants to hear not counted).
    #[must_use]
    pub fn judged(&self, index: PeerIndex) -> ([u64; Refusal::ALL.len()], u64) {
        let peer = peer_ref(&self.peers, index);
        peer.map_or_else(Default::default, |peer| (peer.refused, peer.received))
    }

    /// Take what the table lets a node of ours say; what it said before of the rest is gone.
    pub(super) fn import_judged(
        &mut self,
        at: usize,
        index: PeerIndex,
        section: &Section<'_>,
        attributes: &[u8],
        mine: impl Fn(&[u8]) -> bool,
    ) {
        let said = Said::read(AttributesView(attributes));
        let id = self.acquire(attributes);
        section.for_each(true, |nlri| {
            let Some(peer) = peer_mut(&mut self.peers, index).filter(|_| mine(nlri.key)) else {
                return;
            };
            peer.received += u64::from(section.family != Family::RTC);
            let (trust, node) = (peer.config.trust, peer.config.node);
            let table = self.site_table.as_ref();
            match trust.judge(node, section.family, nlri.key, &said, table) {
                Ok(()) => self.put(at, index, &nlri, id),
                Err(refusal) => {
                    peer.refuse(at, refusal);
                    self.take(at, index, nlri.key, nlri.path_id);
                }
            }
        });
        self.release(id);
    }

    /// One step of the walk; is there more?
    pub(super) fn judge(&mut self) -> bool {
        let Some(mut judging) = self.judging else {
            return false;
        };
        let Some(table) = self.tables.get(judging.table) else {
            self.judging = None;
            self.ask_again();
            return true;
        };
        let until = table.dests.end().min(judging.cursor + STEP);
        for place in judging.cursor..until {
            while let Some((position, refusal)) = self.refused(judging.table, place) {
                let table = &self.tables[judging.table];
                let peer = table.dests.get(place).paths()[position].peer;
                if let Some(peer) = peer_mut(&mut self.peers, peer) {
                    peer.refuse(judging.table, refusal);
                }
                self.drop_path(judging.table, place, position);
            }
        }
        if until == self.tables[judging.table].dests.end() {
            judging = Judging {
                table: judging.table + 1,
                cursor: 0,
            };
        } else {
            judging.cursor = until;
        }
        self.judging = Some(judging);
        true
    }

    /// The first path of a route that the table of now refuses.
    fn refused(&self, at: usize, place: u32) -> Option<(usize, Refusal)> {
        let Table { dests, family, .. } = &self.tables[at];
        let dest = dests.get(place);
        dest.paths()
            .iter()
            .enumerate()
            .find_map(|(position, path)| {
                let peer = peer_ref(&self.peers, path.peer)?;
                if !peer.config.trust.is_judged() {
                    return None;
                }
                let said = Said::read(AttributesView(self.attributes.octets(path.attributes)));
                let (trust, node) = (peer.config.trust, peer.config.node);
                let verdict =
                    trust.judge(node, *family, &dest.key, &said, self.site_table.as_ref());
                verdict.err().map(|refusal| (position, refusal))
            })
    }

    /// Ask for what was refused and may be let in now.
    fn ask_again(&mut self) {
        for (index, peer) in (0_u16..).zip(&mut self.peers) {
            let Some(peer) = peer.as_mut().filter(|peer| peer.up) else {
                continue;
            };
            for (table, dropped) in self.tables.iter().zip(&mut peer.dropped) {
                if std::mem::take(dropped) {
                    let notice = Notice::AskAgain(PeerIndex(index), table.family);
                    self.notices.push_back(notice);
                }
            }
        }
    }
}

impl Trust {
    /// Is its word held against the table?
    pub(super) const fn is_judged(self) -> bool {
        match self {
            Trust::Policy | Trust::Local => false,
            Trust::Pop { .. } | Trust::Gateway { .. } => true,
        }
    }
}
