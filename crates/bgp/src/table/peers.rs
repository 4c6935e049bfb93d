//! Neighbours as the table sees them, and sets of them.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use base::NodeId;

use super::Filter;
use crate::{Refusal, Trust, wire::Family};

/// A neighbour's dense number in a table; 0 is this speaker itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u16);

impl PeerIndex {
    /// This speaker: routes it originates.
    pub const LOCAL: PeerIndex = PeerIndex(0);
}

/// A set of neighbours, one bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PeerSet(Vec<u64>);

impl PeerSet {
    /// Is it in?
    #[must_use]
    pub fn contains(&self, peer: PeerIndex) -> bool {
        self.0
            .get(usize::from(peer.0) / 64)
            .is_some_and(|word| word & (1 << (peer.0 % 64)) != 0)
    }

    pub(super) fn insert(&mut self, peer: PeerIndex) {
        let word = usize::from(peer.0) / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (peer.0 % 64);
    }

    pub(super) fn remove(&mut self, peer: PeerIndex) {
        if let Some(word) = self.0.get_mut(usize::from(peer.0) / 64) {
            *word &= !(1 << (peer.0 % 64));
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    /// Is nobody in?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// How many are in.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Those in, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = PeerIndex> + '_ {
        self.0.iter().enumerate().flat_map(|(index, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros())?;
                rest &= rest - 1;
                u16::try_from(index * 64 + bit as usize).ok().map(PeerIndex)
            })
        })
    }

    /// Those in both.
    pub(super) fn and(mut self, other: &PeerSet) -> PeerSet {
        self.0.truncate(other.0.len());
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    /// Those in one or the other.
    pub(super) fn or(mut self, other: &PeerSet) -> PeerSet {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word |= other;
        }
        self
    }

    /// Those in, but not in `other`.
    pub(super) fn minus(mut self, other: &PeerSet) -> PeerSet {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= !other;
        }
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
        self
    }

    pub(super) fn without(mut self, peer: PeerIndex) -> PeerSet {
        self.remove(peer);
        self
    }
}

impl FromIterator<PeerIndex> for PeerSet {
    fn from_iter<I: IntoIterator<Item = PeerIndex>>(peers: I) -> Self {
        let mut set = PeerSet::default();
        for peer in peers {
            set.insert(peer);
        }
        set
    }
}

/// What a neighbour is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// In another AS.
    External,
    /// In another AS, and we are its route server: nothing is prepended, next hops stay
    /// (RFC 7947 §2.2).
    RouteServerClient,
    /// In our AS; we reflect everything to it and what it says to everybody (RFC 4456 §6).
    Client,
    /// In our AS; gets our own routes and those of clients and external neighbours.
    NonClient,
    /// The other half of this node: hears everything as we did, and its word is ours.
    Local,
}

impl Kind {
    /// In another AS?
    #[must_use]
    pub const fn is_external(self) -> bool {
        matches!(self, Kind::External | Kind::RouteServerClient)
    }
}

/// Addresses of ours, to be told as next hops. A family without one keeps what we were told.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnAddresses {
    /// The IPv4 address.
    pub v4: Option<[u8; 4]>,
    /// The IPv6 address, and a link-local one behind it if the subnet is shared (RFC 2545 §3).
    pub v6: Option<Vec<u8>>,
}

/// Which next hop a neighbour is told where no policy says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// The one that we were told.
    Unchanged,
    /// The same, and a policy that says "ourselves" means these addresses. Neighbours with
    /// different ones are in different groups, so this is for those whose policy says so.
    UnchangedUnlessAsked(OwnAddresses),
    /// These addresses of ours.
    Own(OwnAddresses),
}

impl NextHop {
    /// Ours, as far as they are known.
    pub(super) const fn addresses(&self) -> Option<&OwnAddresses> {
        match self {
            NextHop::Unchanged => None,
            NextHop::UnchangedUnlessAsked(own) | NextHop::Own(own) => Some(own),
        }
    }
}

/// What a neighbour says and hears of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFamily {
    /// The family.
    pub family: Family,
    /// How many paths of a route it is told (RFC 7911); 0: the best one, without path ids.
    pub add_path_send: u8,
    /// The most routes kept of it; more is told as [`super::Notice::TooMany`].
    pub max_routes: u32,
    /// How many there are: the shards of one speaker share it, and take from it in small lots, so
    /// the limit is kept to a thousandth.
    pub count: RouteCount,
}

impl PeerFamily {
    fn lot(&self) -> u32 {
        (self.max_routes / 4096).clamp(1, 64)
    }
}

/// How many routes of one family a session has said, in all shards.
#[derive(Clone, Debug, Default)]
pub struct RouteCount(Arc<AtomicU32>);

impl PartialEq for RouteCount {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for RouteCount {}

/// A neighbour, once its session is established.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerConfig {
    /// Its AS.
    pub asn: u32,
    /// Its BGP Identifier.
    pub node: NodeId,
    /// Its address: the last tie-break.
    pub address: IpAddr,
    /// What it is to us.
    pub kind: Kind,
    /// What it says and hears.
    pub families: Vec<PeerFamily>,
    /// The longest message it takes.
    pub max_message: usize,
    /// Does it understand 4-octet AS numbers?
    pub four_octet_as: bool,
    /// Does it know what a long-lived stale route is? Others are told of none (RFC 9494 §4.3).
    pub knows_long_lived: bool,
    /// Families whose routes may become long-lived stale ([`super::Shard::outlive`]).
    pub long_lived: Vec<Family>,
    /// Has it negotiated RT constraint (RFC 4684)? Then it hears of VPN-like routes only what it
    /// asked for.
    pub constrained: bool,
    /// The next hop it is told.
    pub next_hop: NextHop,
    /// How far its word is taken, where it is a node of ours.
    pub trust: Trust,
    /// What is taken from it.
    pub import: Arc<Filter>,
    /// What it is told.
    pub export: Arc<Filter>,
}

/// A neighbour's place.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) config: PeerConfig,
    pub(super) up: bool,
    /// Which of its sessions, or of its refreshes, is the current one, by the position of the
    /// family's table; a path of another is old.
    pub(super) epochs: Vec<u32>,
    /// The epochs with which this session began: what is older counts toward no limit.
    pub(super) since: Vec<u32>,
    /// There may be paths of an epoch that ended.
    pub(super) aged: Vec<bool>,
    /// Its queue of octets is short: bulk may follow.
    pub(super) ready: bool,
    /// Routes of it, by the position of the family's table.
    pub(super) routes: Vec<u32>,
    pub(super) told_too_many: bool,
    /// Routes by table that are counted already and not there: shards count in lots, so that
    /// they do not wait for each other's cache lines.
    pub(super) credit: Vec<u32>,
    /// It may not have said yet what it wants to hear.
    pub(super) unsubscribed: bool,
    /// Tables whose end it is not told before that.
    pub(super) held: Vec<usize>,
    /// Routes that came of a node of ours, and those that were refused, by the reason.
    pub(super) received: u64,
    pub(super) refused: [u64; Refusal::ALL.len()],
    /// By table: some of these may be let in by another site table.
    pub(super) dropped: Vec<bool>,
}

impl Peer {
    /// A route is refused.
    pub(super) fn refuse(&mut self, table: usize, refusal: Refusal) {
        self.refused[refusal.index()] += 1;
        self.dropped[table] |= refusal.may_change();
    }

    /// One route more, if it may have it.
    pub(super) fn admit(&mut self, table: usize, family: Family) -> bool {
        if let Some(left) = self.credit[table].checked_sub(1) {
            self.credit[table] = left;
            return true;
        }
        let Some(spoken) = self.config.families.iter().find(|f| f.family == family) else {
            return true;
        };
        for lot in [spoken.lot(), 1] {
            // Relaxed: a counter, which orders nothing else.
            let before = spoken.count.0.fetch_add(lot, Ordering::Relaxed);
            if before.saturating_add(lot) <= spoken.max_routes {
                self.credit[table] += lot - 1;
                return true;
            }
            spoken.count.0.fetch_sub(lot, Ordering::Relaxed);
        }
        false
    }

    /// One route less.
    pub(super) fn discharge(&mut self, table: usize, family: Family) {
        self.credit[table] += 1;
        let spoken = self.config.families.iter().find(|f| f.family == family);
        if let Some(spoken) = spoken.filter(|spoken| self.credit[table] >= 2 * spoken.lot()) {
            self.credit[table] -= spoken.lot();
            spoken.count.0.fetch_sub(spoken.lot(), Ordering::Relaxed);
        }
    }

    pub(super) fn speaks(&self, family: Family) -> bool {
        self.config.families.iter().any(|f| f.family == family)
    }
}
