//! Expressions over AS paths.

mod automaton;
mod parse;

use std::{fmt, iter, ops::RangeInclusive, str::FromStr};

use automaton::{Automaton, Symbol};

/// A regular expression whose letters are AS numbers.
///
/// | text | meaning |
/// |---|---|
/// | `65001` | that AS |
/// | `.` | any AS |
/// | `[65001 65100-65199]`, `[^65001]` | one of these, none of these |
/// | `a b`, `a_b` | a, then b |
/// | `a\|b`, `(a b)` | a or b; a group |
/// | `*`, `+`, `?`, `{2}`, `{2,}`, `{2,4}` | repetition of what is before it |
/// | `^`, `$` | the near end (our neighbour) and the far end (the origin) |
///
/// It matches anywhere in the path unless tied with `^` and `$`: `^$` is the empty path,
/// `^65001 .*$` all from neighbour 65001, `65001` all that passed it. An AS_SET is one letter that
/// is each of its members at once; confederation segments are not seen. Matching takes time
/// linear in the path: all states at once (Glushkov's automaton), no going back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AsPathRegex {
    text: String,
    automaton: Automaton,
}

/// Why a text is no [`AsPathRegex`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AsPathRegexError {
    /// Something else was expected.
    #[error("at octet {at}: expected {expected}")]
    Syntax {
        /// At which octet of the text, from 0.
        at: usize,
        /// What.
        expected: &'static str,
    },
    /// Too many letters with all repetitions written out.
    #[error("more than {max} AS numbers with all repetitions written out", max = Automaton::MAX)]
    TooLong,
    /// Groups within groups within groups.
    #[error("groups are nested deeper than {max}", max = parse::MAX_DEPTH)]
    TooDeep,
}

impl AsPathRegex {
    /// Does it match the path in this AS_PATH value (4-octet AS numbers, whole segments)?
    #[must_use]
    pub fn matches(&self, as_path: &[u8]) -> bool {
        let symbols = segments(as_path).flat_map(|segment| {
            // A set is one letter, a sequence as many as it has members.
            let size = match segment.kind {
                AS_SET => segment.members.len().max(1),
                _ => 1,
            };
            segment.members.chunks(size).map(Symbol::As)
        });
        self.automaton.finds(
            iter::once(Symbol::Start)
                .chain(symbols)
                .chain([Symbol::End]),
        )
    }
}

impl FromStr for AsPathRegex {
    type Err = AsPathRegexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(AsPathRegex {
            text: text.to_owned(),
            automaton: Automaton::new(&parse::parse(text)?).ok_or(AsPathRegexError::TooLong)?,
        })
    }
}

impl fmt::Display for AsPathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A set of AS numbers, as sorted ranges that do not touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AsnSet(Vec<(u32, u32)>);

impl AsnSet {
    /// Is it in the set?
    #[must_use]
    pub fn contains(&self, asn: u32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= asn);
        let range = after.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|(_, last)| asn <= *last)
    }

    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<RangeInclusive<u32>> for AsnSet {
    /// A range from high to low is empty.
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u32>>>(ranges: I) -> Self {
        let ranges = ranges.into_iter().filter(|range| !range.is_empty());
        let mut ranges: Vec<_> = ranges.map(RangeInclusive::into_inner).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joined = next.0 <= kept.1.saturating_add(1);
            if joined {
                kept.1 = kept.1.max(next.1);
            }
            joined
        });
        AsnSet(ranges)
    }
}

impl FromIterator<u32> for AsnSet {
    fn from_iter<I: IntoIterator<Item = u32>>(asns: I) -> Self {
        asns.into_iter().map(|asn| asn..=asn).collect()
    }
}

/// Segment types (RFC 4271 §4.3).
const AS_SET: u8 = 1;
/// An ordered segment.
pub(super) const AS_SEQUENCE: u8 = 2;

struct Segment<'a> {
    kind: u8,
    members: &'a [[u8; 4]],
}

/// The segments outside confederations, near end first; stops where the octets are no path.
fn segments(as_path: &[u8]) -> impl Iterator<Item = Segment<'_>> {
    let mut rest = as_path;
    iter::from_fn(move || {
        let (&[kind, count], tail) = rest.split_first_chunk()?;
        let (members, tail) = tail.split_at_checked(usize::from(count) * 4)?;
        rest = tail;
        let members = members.as_chunks().0;
        Some(Segment { kind, members })
    })
    .filter(|segment| matches!(segment.kind, AS_SET | AS_SEQUENCE))
}

/// Is one of `asns` in the path?
pub(super) fn contains(as_path: &[u8], asns: &AsnSet) -> bool {
    let mut members = segments(as_path).flat_map(|segment| segment.members);
    members.any(|asn| asns.contains(u32::from_be_bytes(*asn)))
}

/// The AS at the far end, if it is one.
pub(super) fn origin(as_path: &[u8]) -> Option<u32> {
    let last = segments(as_path).last()?;
    let asn = last.members.last().filter(|_| last.kind == AS_SEQUENCE)?;
    Some(u32::from_be_bytes(*asn))
}

/// The AS at the near end, if it is one.
pub(super) fn neighbor(as_path: &[u8]) -> Option<u32> {
    let first = segments(as_path).next()?;
    let asn = first
        .members
        .first()
        .filter(|_| first.kind == AS_SEQUENCE)?;
    Some(u32::from_be_bytes(*asn))
}

/// The length the decision counts (RFC 4271 §9.1.2.2): a set is 1.
pub(super) fn length(as_path: &[u8]) -> usize {
    segments(as_path)
        .map(|segment| match segment.kind {
            AS_SET => 1,
            _ => segment.members.len(),
        })
        .sum()
}
