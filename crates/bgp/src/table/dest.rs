//! All paths of one route.

use super::{intern::AttributesId, octets::Octets, peers::PeerIndex};

/// One neighbour's (or our own) word about a route.
#[derive(Clone, Debug)]
pub(super) struct Path {
    /// What travels beside the key: labels, or the state of a MESH route.
    pub(super) value: Octets<14>,
    pub(super) attributes: AttributesId,
    /// The neighbour's path id (RFC 7911), 0 without.
    pub(super) path_id: u32,
    pub(super) peer: PeerIndex,
    /// The session or refresh that said it.
    pub(super) epoch: u32,
    /// Its neighbour's session went down and nobody has said it anew.
    pub(super) stale: bool,
}

impl Path {
    pub(super) fn is_of(&self, peer: PeerIndex, path_id: u32) -> bool {
        self.peer == peer && self.path_id == path_id
    }
}

/// Nearly every route has one path; it takes no allocation of its own.
#[derive(Clone, Debug, Default)]
enum Paths {
    #[default]
    None,
    One(Path),
    Many(Vec<Path>),
}

/// A route: its key and its paths, the best one first.
#[derive(Clone, Debug)]
pub(super) struct Dest {
    pub(super) key: Octets<38>,
    paths: Paths,
}

impl Dest {
    pub(super) fn new(key: &[u8]) -> Self {
        Dest {
            key: Octets::new(key),
            paths: Paths::None,
        }
    }

    pub(super) fn paths(&self) -> &[Path] {
        match &self.paths {
            Paths::None => &[],
            Paths::One(path) => std::slice::from_ref(path),
            Paths::Many(paths) => paths,
        }
    }

    pub(super) fn paths_mut(&mut self) -> &mut [Path] {
        match &mut self.paths {
            Paths::None => &mut [],
            Paths::One(path) => std::slice::from_mut(path),
            Paths::Many(paths) => paths,
        }
    }

    /// The selected path.
    pub(super) fn best(&self) -> Option<&Path> {
        self.paths().first()
    }

    pub(super) fn position(&self, peer: PeerIndex, path_id: u32) -> Option<usize> {
        self.paths().iter().position(|p| p.is_of(peer, path_id))
    }

    pub(super) fn push(&mut self, path: Path) {
        self.paths = match std::mem::take(&mut self.paths) {
            Paths::None => Paths::One(path),
            Paths::One(first) => Paths::Many(vec![first, path]),
            Paths::Many(mut paths) => {
                paths.push(path);
                Paths::Many(paths)
            }
        };
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Path> {
        let (rest, removed) = match std::mem::take(&mut self.paths) {
            Paths::None => (Paths::None, None),
            Paths::One(path) if at == 0 => (Paths::None, Some(path)),
            Paths::One(path) => (Paths::One(path), None),
            Paths::Many(mut paths) => {
                let removed = (at < paths.len()).then(|| paths.remove(at));
                let one = if paths.len() == 1 { paths.pop() } else { None };
                (one.map_or(Paths::Many(paths), Paths::One), removed)
            }
        };
        self.paths = rest;
        removed
    }
}
