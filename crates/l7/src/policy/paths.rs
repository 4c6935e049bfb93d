//! Sets of paths, and the two ways to read one.

use std::collections::BTreeSet;

use crate::{PathMatch, Pattern, normal_path};

/// Paths: some by their whole, some by leading segments, some by regular expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PathSet {
    exact: BTreeSet<String>,
    /// Without a final `/`.
    prefixes: BTreeSet<String>,
    patterns: Vec<Pattern>,
}

impl PathSet {
    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.patterns.is_empty()
    }

    /// Is the path, which is normal, in it?
    #[must_use]
    pub fn contains(&self, path: &str) -> bool {
        let leads = |end: usize| path.get(..end).is_some_and(|s| self.prefixes.contains(s));
        let slashes = || path.match_indices('/').any(|(at, _)| leads(at));
        // The empty prefix is every path, that of `OPTIONS *` too.
        self.exact.contains(path)
            || (!self.prefixes.is_empty() && (leads(0) || leads(path.len()) || slashes()))
            || self.patterns.iter().any(|p| p.is_match(path.as_bytes()))
    }
}

impl FromIterator<PathMatch> for PathSet {
    fn from_iter<I: IntoIterator<Item = PathMatch>>(iter: I) -> Self {
        let mut set = PathSet::default();
        for one in iter {
            match one {
                PathMatch::Exact(path) => {
                    set.exact.insert(path);
                }
                PathMatch::Prefix(mut prefix) => {
                    prefix.truncate(prefix.trim_end_matches('/').len());
                    set.prefixes.insert(prefix);
                }
                PathMatch::Regex(pattern) => set.patterns.push(pattern),
            }
        }
        set
    }
}

/// How a lenient server reads a path: `%2F` and `%5C` are slashes, and what follows a `;` in a
/// segment is no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// As everybody does.
    Same,
    /// As another path.
    Other(String),
    /// As something outside of the root.
    Outside,
}

impl Reading {
    /// Of a path that is normal.
    pub(super) fn of(path: &str) -> Self {
        if !path.bytes().any(|octet| matches!(octet, b';' | b'%')) {
            return Reading::Same;
        }
        let plain = path.replace("%2F", "/").replace("%5C", "/");
        let plain = plain.replace("%3B", ";");
        let bare = plain.split('/').map(|segment| {
            let name = segment.split_once(';').map(|(name, _)| name);
            name.unwrap_or(segment)
        });
        let bare = bare.collect::<Vec<_>>().join("/");
        match normal_path(&bare) {
            None => Reading::Outside,
            Some(read) if read == path => Reading::Same,
            Some(read) => Reading::Other(read.into_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_in_sets() {
        let pattern = Pattern::new("/v[0-9]+/.*").expect("a pattern");
        let set: PathSet = [
            PathMatch::Exact("/only".into()),
            PathMatch::Prefix("/a".into()),
            PathMatch::Prefix("/b/c/".into()),
            PathMatch::Regex(pattern),
        ]
        .into_iter()
        .collect();
        for (path, inside) in [
            ("/only", true),
            ("/only/", false),
            ("/a", true),
            ("/a/", true),
            ("/a/x/y", true),
            ("/ab", false),
            ("/b", false),
            ("/b/c", true),
            ("/b/c/d", true),
            ("/b/cd", false),
            ("/v1/x", true),
            ("/v/x", false),
            ("/", false),
            ("*", false),
        ] {
            assert_eq!(set.contains(path), inside, "{path}");
        }
        let all: PathSet = [PathMatch::Prefix("/".into())].into_iter().collect();
        assert!(all.contains("/") && all.contains("/x/y") && all.contains("*"));
        assert!(!all.is_empty());
        assert!(PathSet::default().is_empty() && !PathSet::default().contains("/"));
    }

    #[test]
    fn lenient_servers_read_other_paths() {
        let other = |path: &str| Reading::Other(path.to_owned());
        for (path, expect) in [
            ("/a/b", Reading::Same),
            ("/a%20b", Reading::Same),
            ("/a%2Fb", other("/a/b")),
            ("/public%2F..%2Fadmin", other("/admin")),
            ("/public%5C..%5Cadmin", other("/admin")),
            ("/public/..;/admin", other("/admin")),
            ("/public/..;x=1/admin", other("/admin")),
            ("/public/..%3B/admin", other("/admin")),
            ("/admin;jsessionid=1", other("/admin")),
            ("/a;x/b;y/", other("/a/b/")),
            ("/a%2F%2Fb", other("/a/b")),
            ("/..;/a", Reading::Outside),
            ("/%2F..", Reading::Outside),
        ] {
            assert_eq!(Reading::of(path), expect, "{path}");
        }
    }
}
