//! A view over canonical attributes: ascending type codes, the next hop as code 14.

use std::fmt;

use base::NodeId;

use crate::cursor::Cursor;

/// One attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Optional 0x80, transitive 0x40, partial 0x20, extended length 0x10.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// Value.
    pub value: &'a [u8],
}

/// Canonical attributes, read in place. Octets that are not canonical end the iteration early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttributesView<'a>(pub &'a [u8]);

impl<'a> AttributesView<'a> {
    /// All attributes, ascending.
    pub fn iter(self) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
        let mut cursor = Cursor::new(self.0);
        std::iter::from_fn(move || next(&mut cursor))
    }

    /// The value of one.
    #[must_use]
    pub fn get(self, code: u8) -> Option<&'a [u8]> {
        self.iter()
            .take_while(|attribute| attribute.code <= code)
            .find(|attribute| attribute.code == code)
            .map(|attribute| attribute.value)
    }

    /// ORIGIN: 0 IGP, 1 EGP, 2 incomplete.
    #[must_use]
    pub fn origin(self) -> u8 {
        self.get(1).and_then(|v| v.first()).copied().unwrap_or(2)
    }

    /// AS_PATH, with 4-octet numbers.
    #[must_use]
    pub fn as_path(self) -> AsPath<'a> {
        AsPath(self.get(2).unwrap_or_default())
    }

    /// The next hop as it is in MP_REACH; empty if there is none.
    #[must_use]
    pub fn next_hop(self) -> &'a [u8] {
        self.get(14).unwrap_or_default()
    }

    /// LOCAL_PREF.
    #[must_use]
    pub fn local_pref(self) -> Option<u32> {
        self.number(5)
    }

    /// MULTI_EXIT_DISC.
    #[must_use]
    pub fn med(self) -> Option<u32> {
        self.number(4)
    }

    /// ORIGINATOR_ID (RFC 4456).
    #[must_use]
    pub fn originator(self) -> Option<NodeId> {
        self.number(9).map(NodeId)
    }

    /// CLUSTER_LIST: four octets each, nearest first (RFC 4456).
    #[must_use]
    pub fn cluster_list(self) -> &'a [u8] {
        self.get(10).unwrap_or_default()
    }

    /// Communities (RFC 1997).
    pub fn communities(self) -> impl Iterator<Item = u32> + use<'a> {
        let (all, _) = self.get(8).unwrap_or_default().as_chunks::<4>();
        all.iter().map(|octets| u32::from_be_bytes(*octets))
    }

    /// Extended communities (RFC 4360).
    pub fn extended_communities(self) -> impl Iterator<Item = [u8; 8]> + use<'a> {
        let (all, _) = self.get(16).unwrap_or_default().as_chunks::<8>();
        all.iter().copied()
    }

    /// Large communities (RFC 8092).
    pub fn large_communities(self) -> impl Iterator<Item = [u32; 3]> + use<'a> {
        let (all, _) = self.get(32).unwrap_or_default().as_chunks::<12>();
        all.iter().map(|octets| {
            let (parts, _) = octets.as_chunks::<4>();
            [0, 1, 2].map(|i| parts.get(i).map_or(0, |part| u32::from_be_bytes(*part)))
        })
    }

    fn number(self, code: u8) -> Option<u32> {
        let octets = self.get(code)?.try_into().ok()?;
        Some(u32::from_be_bytes(octets))
    }
}

pub(super) fn next<'a>(cursor: &mut Cursor<'a>) -> Option<Attribute<'a>> {
    let (flags, code) = (cursor.u8()?, cursor.u8()?);
    let length = if flags & 0x10 != 0 {
        cursor.u16()?
    } else {
        u16::from(cursor.u8()?)
    };
    let value = cursor.take(usize::from(length))?;
    Some(Attribute { flags, code, value })
}

/// AS_PATH: segments of type (1), count (1) and 4-octet AS numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsPath<'a>(pub &'a [u8]);

const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;

impl<'a> AsPath<'a> {
    pub(super) fn segments(self) -> impl Iterator<Item = (u8, &'a [[u8; 4]])> + use<'a> {
        let mut cursor = Cursor::new(self.0);
        std::iter::from_fn(move || {
            let (kind, count) = (cursor.u8()?, usize::from(cursor.u8()?));
            Some((kind, cursor.take(count * 4)?.as_chunks::<4>().0))
        })
    }

    /// Its length in the decision: a set counts one, confederation segments nothing (RFC 4271
    /// §9.1.2.2, RFC 5065 §5.3).
    #[must_use]
    pub fn len(self) -> usize {
        self.segments()
            .map(|(kind, numbers)| match kind {
                AS_SEQUENCE => numbers.len(),
                AS_SET => 1,
                _ => 0,
            })
            .sum()
    }

    /// Has it no segment?
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// The neighbouring AS: the first number of a leading sequence.
    #[must_use]
    pub fn first(self) -> Option<u32> {
        let (kind, numbers) = self.segments().next()?;
        let first = numbers.first().filter(|_| kind == AS_SEQUENCE)?;
        Some(u32::from_be_bytes(*first))
    }

    /// The AS where the route began: the last number of a trailing sequence.
    #[must_use]
    pub fn origin(self) -> Option<u32> {
        let (kind, numbers) = self.segments().last()?;
        let last = numbers.last().filter(|_| kind == AS_SEQUENCE)?;
        Some(u32::from_be_bytes(*last))
    }

    /// Is `asn` anywhere in it?
    #[must_use]
    pub fn contains(self, asn: u32) -> bool {
        let asn = asn.to_be_bytes();
        self.segments().any(|(_, numbers)| numbers.contains(&asn))
    }
}

impl fmt::Display for AsPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut space = "";
        for (kind, numbers) in self.segments() {
            let (open, close) = match kind {
                AS_SET => ("{", "}"),
                3 => ("(", ")"),
                4 => ("[", "]"),
                _ => ("", ""),
            };
            write!(f, "{space}{open}")?;
            space = "";
            for number in numbers {
                write!(f, "{space}{}", u32::from_be_bytes(*number))?;
                space = " ";
            }
            write!(f, "{close}")?;
            space = " ";
        }
        Ok(())
    }
}
