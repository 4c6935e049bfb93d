//! Which copy wins.
//!
//! Of copies from one originator the greater seq (RFC 1982), then the worse state, then a fresh
//! one. Between originators (two nodes of a site) a fresh one, then the site's elected prober:
//! the lowest live node id. Then RFC 4271 §9.1.2.2 and RFC 4456 §9 as far as they apply inside
//! one AS: greater LOCAL_PREF, shorter CLUSTER_LIST, lower neighbour number.

use std::{
    cmp::Ordering::{self, Greater, Less},
    fmt,
};

use super::entry::Path;
use crate::Key;

/// The rule by which the best path beat the second best.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// There is no other.
    Only,
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
    /// Fewer reflectors on its way.
    ShorterClusterList,
    /// Our own, or the lower neighbour number.
    LowerPeer,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Why::Only => "only path",
            Why::Newer => "greater seq",
            Why::WorseState => "worse state at the same seq",
            Why::Fresh => "fresh before stale",
            Why::ElectedProber => "elected prober (lowest node id)",
            Why::LocalPref => "greater LOCAL_PREF",
            Why::ShorterClusterList => "shorter CLUSTER_LIST",
            Why::LowerPeer => "lower neighbour number",
        })
    }
}

/// The index of the best usable path. Each originator's best copy is found first, because its
/// newest word counts before anything between originators; the order of paths is that of their
/// sources, so the result does not depend on the order of arrival.
pub(super) fn best(key: &Key, paths: &[Path]) -> Option<usize> {
    let mut best: Option<usize> = None;
    for (i, path) in paths
        .iter()
        .enumerate()
        .filter(|(_, path)| path.refusal.is_none())
    {
        let first = !paths[..i]
            .iter()
            .any(|p| p.refusal.is_none() && p.originator == path.originator);
        if !first {
            continue;
        }
        let champion = champion(key, paths, i);
        if best.is_none_or(|b| compare(key, &paths[champion], &paths[b]).0 == Greater) {
            best = Some(champion);
        }
    }
    best
}

/// The best usable copy of the originator of `paths[first]`.
fn champion(key: &Key, paths: &[Path], first: usize) -> usize {
    let mut best = first;
    for (i, path) in paths.iter().enumerate().skip(first + 1) {
        if path.refusal.is_none()
            && path.originator == paths[first].originator
            && compare(key, path, &paths[best]).0 == Greater
        {
            best = i;
        }
    }
    best
}

/// `Greater` if `a` is to be believed rather than `b`, and by which rule.
pub(super) fn compare(key: &Key, a: &Path, b: &Path) -> (Ordering, Why) {
    let fresh = b.stale_since.is_some().cmp(&a.stale_since.is_some());
    let rules: [(Ordering, Why); 4] = if a.originator == b.originator {
        let seqs = a.value.seq(key).zip(b.value.seq(key));
        let newer = seqs
            .and_then(|(a, b)| a.compare(b))
            .unwrap_or(Ordering::Equal);
        let badness = |p: &Path| match key {
            Key::Site { .. }
            | Key::Service { .. }
            | Key::Endpoint { .. }
            | Key::HttpRoute { .. }
            | Key::Policy { .. }
            | Key::Link { .. } => p.value.state().map(|s| s.badness()),
            Key::Unknown { .. } => None,
        };
        [
            (newer, Why::Newer),
            (badness(a).cmp(&badness(b)), Why::WorseState),
            (fresh, Why::Fresh),
            (
                a.attributes.local_pref.cmp(&b.attributes.local_pref),
                Why::LocalPref,
            ),
        ]
    } else {
        [
            (fresh, Why::Fresh),
            (b.originator.cmp(&a.originator), Why::ElectedProber),
            (Ordering::Equal, Why::Only),
            (Ordering::Equal, Why::Only),
        ]
    };
    let clusters = b
        .attributes
        .clusters
        .len()
        .cmp(&a.attributes.clusters.len());
    let last = [
        (clusters, Why::ShorterClusterList),
        (b.source.cmp(&a.source), Why::LowerPeer),
    ];
    rules
        .into_iter()
        .chain(last)
        .find(|(order, _)| matches!(order, Less | Greater))
        .unwrap_or((Ordering::Equal, Why::Only))
}
