//! Next hops of routes, and which of them can be reached: a route whose next hop cannot is told
//! to nobody and loses against all others (RFC 4271 §9.1.2). A next hop that goes or comes back
//! is one word of the owner, however many routes lead there.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use super::{
    Shard,
    slab::{Bits, Slab},
};
use crate::wire::Family;

/// Routes looked at in one turn.
const STEP: u32 = 2048;

/// The number of a next hop; 0: one that is not tracked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct HopId(u32);

#[derive(Debug)]
struct Hop {
    address: IpAddr,
    /// Sets of attributes that name it.
    uses: u32,
    reachable: bool,
}

/// All next hops that sets of attributes name.
#[derive(Debug)]
pub(super) struct NextHops {
    tracked: bool,
    index: BTreeMap<IpAddr, HopId>,
    /// The first stands for all that are not tracked.
    all: Slab<Hop>,
    /// Those of which nothing is known yet.
    fresh: Vec<IpAddr>,
    /// Those whose routes are to be looked at again.
    turned: Bits,
}

/// A walk over all routes to next hops that turned.
#[derive(Debug)]
pub(super) struct Recheck {
    hops: Bits,
    table: usize,
    cursor: u32,
}

impl Hop {
    /// No next hop: nothing that could not be reached.
    const NONE: Hop = Hop {
        address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        uses: 0,
        reachable: true,
    };
}

impl Default for NextHops {
    fn default() -> Self {
        let mut all = Slab::default();
        let none = all.insert(Hop::NONE);
        debug_assert_eq!(HopId(none), HopId::default());
        NextHops {
            tracked: false,
            index: BTreeMap::new(),
            all,
            fresh: Vec::new(),
            turned: Bits::default(),
        }
    }
}

impl NextHops {
    /// The number of a canonical next hop, with one use more. What was never asked for counts as
    /// not to be reached.
    pub(super) fn acquire(&mut self, octets: &[u8]) -> HopId {
        let Some(address) = address_of(octets).filter(|_| self.tracked) else {
            return HopId::default();
        };
        if let Some(id) = self.index.get(&address) {
            self.all.get_mut(id.0).uses += 1;
            return *id;
        }
        let id = HopId(self.all.insert(Hop {
            address,
            uses: 1,
            reachable: false,
        }));
        self.fresh.push(address);
        self.index.insert(address, id);
        id
    }

    pub(super) fn release(&mut self, id: HopId) {
        if id == HopId::default() {
            return;
        }
        let hop = self.all.get_mut(id.0);
        hop.uses -= 1;
        if hop.uses == 0 {
            let gone = self.all.remove(id.0, Hop::NONE);
            self.index.remove(&gone.address);
        }
    }

    /// Can routes of a family with this next hop be used?
    pub(super) fn is_reachable(&self, family: Family, id: HopId) -> bool {
        !is_tracked(family) || self.all.get(id.0).reachable
    }
}

/// Of the others the next hop is no address to send to: that of MESH is a node.
const fn is_tracked(family: Family) -> bool {
    matches!(family.safi, 1 | 128)
}

/// Unicast and VPN next hops; a route distinguisher goes before, a link-local address may follow.
fn address_of(octets: &[u8]) -> Option<IpAddr> {
    let v4 = |octets: &[u8]| Some(Ipv4Addr::from(*octets.first_chunk::<4>()?).into());
    let v6 = |octets: &[u8]| Some(Ipv6Addr::from(*octets.first_chunk::<16>()?).into());
    match octets.len() {
        4 => v4(octets),
        12 => v4(&octets[8..]),
        16 | 32 => v6(octets),
        24 | 48 => v6(&octets[8..]),
        _ => None,
    }
}

impl Shard {
    /// From now on next hops count as reachable only when [`Shard::set_next_hop`] says so. To be
    /// called before there are routes.
    pub const fn track_next_hops(&mut self) {
        self.attributes.hops.tracked = true;
    }

    /// Every next hop that is tracked, once.
    pub fn next_hops(&self) -> Vec<IpAddr> {
        self.attributes.hops.index.keys().copied().collect()
    }

    /// Next hops of which nothing was said yet, each once.
    pub fn take_fresh_next_hops(&mut self) -> Vec<IpAddr> {
        std::mem::take(&mut self.attributes.hops.fresh)
    }

    /// Are there some?
    #[must_use]
    pub const fn has_fresh_next_hops(&self) -> bool {
        !self.attributes.hops.fresh.is_empty()
    }

    /// Can a next hop be reached? Returns whether that is news.
    pub fn set_next_hop(&mut self, address: IpAddr, reachable: bool) -> bool {
        let hops = &mut self.attributes.hops;
        let Some(id) = hops.index.get(&address) else {
            return false;
        };
        let hop = hops.all.get_mut(id.0);
        let turned = std::mem::replace(&mut hop.reachable, reachable) != reachable;
        if turned {
            hops.turned.insert(id.0);
        }
        turned
    }

    /// One step over the routes to next hops that turned; is there more?
    pub(super) fn recheck(&mut self) -> bool {
        let turned = &mut self.attributes.hops.turned;
        if self.recheck.is_none() && !turned.is_empty() {
            self.recheck = Some(Recheck {
                hops: std::mem::take(turned),
                table: 0,
                cursor: 0,
            });
        }
        let Some(mut recheck) = self.recheck.take() else {
            return false;
        };
        let Some(table) = self.tables.get(recheck.table) else {
            return !self.attributes.hops.turned.is_empty();
        };
        let end = if is_tracked(table.family) {
            table.dests.end()
        } else {
            0
        };
        let until = end.min(recheck.cursor.saturating_add(STEP));
        for place in recheck.cursor..until {
            let dest = self.tables[recheck.table].dests.get(place);
            let mut paths = dest.paths().iter();
            let concerned = paths.any(|path| {
                let hop = self.attributes.facts(path.attributes).hop;
                recheck.hops.contains(hop.0)
            });
            if concerned {
                self.reselect(recheck.table, place, Some(0));
            }
        }
        recheck.cursor = until;
        if until == end {
            (recheck.table, recheck.cursor) = (recheck.table + 1, 0);
        }
        self.recheck = Some(recheck);
        true
    }
}
