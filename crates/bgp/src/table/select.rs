//! Which path is the best one.
//!
//! Addresses: RFC 4271 §9.1.2.2 with RFC 4456 §9 and RFC 9494 §4.3. MESH: of copies from one
//! originator the greater seq (RFC 1982 arithmetic), then the worse state, then the one that came by
//! fewer reflectors, stale or not; between originators a fresh one, then the lower node id.

use std::{cmp::Ordering, fmt};

use base::NodeId;

use super::{
    dest::{Dest, Path},
    intern::{Facts, Interner},
    peer_ref,
    peers::Peer,
};
use crate::{mesh, wire::Family};

/// The rule by which the best path beat the second best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no other.
    Only,
    /// Nobody can reach the other's next hop.
    NextHop,
    /// Greater seq of the same originator.
    Newer,
    /// The same seq, and a worse state.
    WorseState,
    /// The other is stale.
    Fresh,
    /// The lower node id of a site's nodes.
    ElectedProber,
    /// Greater LOCAL_PREF.
    LocalPref,
    /// Shorter AS_PATH.
    AsPath,
    /// Lower ORIGIN.
    Origin,
    /// Lower MED from the same neighbouring AS.
    Med,
    /// Learned from another AS rather than inside ours.
    External,
    /// Lower BGP Identifier of the originator.
    RouterId,
    /// Fewer reflectors on its way.
    ClusterList,
    /// Lower address of the neighbour, then lower path id.
    Address,
    /// The same word by another way of the same length: the one that was believed stays.
    Known,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Only => "only path",
            Why::NextHop => "next hop can be reached",
            Why::Newer => "greater seq",
            Why::WorseState => "worse state at the same seq",
            Why::Fresh => "fresh before stale",
            Why::ElectedProber => "elected prober (lowest node id)",
            Why::LocalPref => "greater LOCAL_PREF",
            Why::AsPath => "shorter AS_PATH",
            Why::Origin => "lower ORIGIN",
            Why::Med => "lower MED",
            Why::External => "external before internal",
            Why::RouterId => "lower BGP Identifier",
            Why::ClusterList => "shorter CLUSTER_LIST",
            Why::Address => "lower neighbour address",
            Why::Known => "the same, and known before",
        })
    }
}

/// What a comparison needs beside the paths.
pub(super) struct Selection<'a> {
    pub(super) family: Family,
    pub(super) peers: &'a [Option<Peer>],
    pub(super) attributes: &'a Interner,
    /// Who says our own routes.
    pub(super) node: NodeId,
}

/// What is compared of a path.
struct Candidate<'a> {
    path: &'a Path,
    facts: &'a Facts,
    originator: NodeId,
    external: bool,
    reachable: bool,
}

impl Selection<'_> {
    /// Put the best path first. With two paths or more, each is compared with the best of those
    /// before it, inside its neighbouring AS first, so that MED makes a total order.
    pub(super) fn select(&self, dest: &mut Dest) {
        let best = self.best(dest.paths(), &dest.key);
        let paths = dest.paths();
        // Two ways to one word are no reason to tell it twice.
        let same = |a: &Path, b: &Path| {
            self.family == Family::MESH && self.compare(&dest.key, a, b).1 == Why::Address
        };
        if best != 0 && !same(&paths[0], &paths[best]) {
            dest.paths_mut().swap(0, best);
        }
    }

    /// Why the first path is the best one.
    pub(super) fn why(&self, dest: &Dest) -> Option<Why> {
        let [best, rest @ ..] = dest.paths() else {
            return None;
        };
        if rest.is_empty() {
            return Some(Why::Only);
        }
        let second = &rest[self.best(rest, &dest.key)];
        match self.compare(&dest.key, best, second) {
            (Ordering::Greater, _) => Some(Why::Known),
            (Ordering::Less | Ordering::Equal, why) => Some(why),
        }
    }

    fn best(&self, paths: &[Path], key: &[u8]) -> usize {
        if paths.len() < 2 {
            return 0;
        }
        let group = |path: &Path| {
            if self.family == Family::MESH {
                self.candidate(path).originator.0
            } else {
                self.candidate(path).facts.neighbor_as
            }
        };
        let mut best: Option<usize> = None;
        for (at, path) in paths.iter().enumerate() {
            if paths[..at]
                .iter()
                .any(|before| group(before) == group(path))
            {
                continue;
            }
            let mut champion = at;
            for (other, rival) in paths.iter().enumerate().skip(at + 1) {
                if group(rival) == group(path)
                    && self.compare(key, rival, &paths[champion]).0 == Ordering::Less
                {
                    champion = other;
                }
            }
            let better =
                |best: usize| self.compare(key, &paths[champion], &paths[best]).0 == Ordering::Less;
            if best.is_none_or(better) {
                best = Some(champion);
            }
        }
        best.unwrap_or(0)
    }

    fn candidate<'p>(&'p self, path: &'p Path) -> Candidate<'p> {
        let facts = self.attributes.facts(path.attributes);
        let peer = peer_ref(self.peers, path.peer).map(|peer| &peer.config);
        Candidate {
            path,
            facts,
            originator: facts
                .originator
                .or(peer.map(|peer| peer.node))
                .unwrap_or(self.node),
            external: peer.is_some_and(|peer| peer.kind.is_external()),
            reachable: self.attributes.hops.is_reachable(self.family, facts.hop),
        }
    }

    /// `Less` if `a` is preferred, and by which rule.
    fn compare(&self, key: &[u8], a: &Path, b: &Path) -> (Ordering, Why) {
        let (a, b) = (self.candidate(a), self.candidate(b));
        let (order, why) = if self.family == Family::MESH {
            compare_mesh(key, &a, &b)
        } else {
            compare_paths(&a, &b)
        };
        if order != Ordering::Equal {
            return (order, why);
        }
        let address = |candidate: &Candidate<'_>| {
            let peer = peer_ref(self.peers, candidate.path.peer);
            (peer.map(|peer| peer.config.address), candidate.path.path_id)
        };
        (address(&a).cmp(&address(&b)), Why::Address)
    }
}

/// The first rule that tells them apart.
fn first(rules: impl IntoIterator<Item = (Ordering, Why)>) -> (Ordering, Why) {
    let decides = |(order, _): &(Ordering, Why)| *order != Ordering::Equal;
    rules
        .into_iter()
        .find(decides)
        .unwrap_or((Ordering::Equal, Why::Address))
}

fn compare_paths(a: &Candidate<'_>, b: &Candidate<'_>) -> (Ordering, Why) {
    let long_lived = |c: &Candidate<'_>| c.facts.communities.long_lived_stale;
    let (fa, fb) = (a.facts, b.facts);
    let med = if fa.neighbor_as == fb.neighbor_as {
        fa.med.cmp(&fb.med)
    } else {
        Ordering::Equal
    };
    first([
        (b.reachable.cmp(&a.reachable), Why::NextHop),
        (long_lived(a).cmp(&long_lived(b)), Why::Fresh),
        (fb.local_pref.cmp(&fa.local_pref), Why::LocalPref),
        (fa.as_path_length.cmp(&fb.as_path_length), Why::AsPath),
        (fa.origin.cmp(&fb.origin), Why::Origin),
        (med, Why::Med),
        (b.external.cmp(&a.external), Why::External),
        (a.originator.cmp(&b.originator), Why::RouterId),
        (fa.clusters.cmp(&fb.clusters), Why::ClusterList),
    ])
}

fn compare_mesh(key: &[u8], a: &Candidate<'_>, b: &Candidate<'_>) -> (Ordering, Why) {
    let stale = |c: &Candidate<'_>| c.path.stale || c.facts.communities.long_lived_stale;
    let fresh = (stale(a).cmp(&stale(b)), Why::Fresh);
    let local_pref = (b.facts.local_pref.cmp(&a.facts.local_pref), Why::LocalPref);
    let clusters = (a.facts.clusters.cmp(&b.facts.clusters), Why::ClusterList);
    if a.originator != b.originator {
        return first([
            fresh,
            (a.originator.cmp(&b.originator), Why::ElectedProber),
            clusters,
        ]);
    }
    let kind = key.first().copied().unwrap_or(0);
    let seq = |c: &Candidate<'_>| mesh::bytes::seq(kind, &c.path.value);
    let newer = seq(b)
        .zip(seq(a))
        .and_then(|(b, a)| b.compare(a))
        .unwrap_or(Ordering::Equal);
    let badness =
        |c: &Candidate<'_>| mesh::bytes::state(kind, &c.path.value).map(|state| state.badness());
    first([
        (newer, Why::Newer),
        (badness(b).cmp(&badness(a)), Why::WorseState),
        local_pref,
        // Before fresh: it is the same word, and two reflectors that lost the one who said it would
        // else each believe the other, take their own copy back, and so on for ever.
        clusters,
        fresh,
    ])
}
