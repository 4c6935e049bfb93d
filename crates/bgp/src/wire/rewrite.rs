//! Canonical attributes in, canonical attributes out, changed on their way to a neighbour.

use base::NodeId;

use super::attribute::{Attribute, AttributesView};

/// What happens to a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Set {
    /// It stays as it is.
    #[default]
    Keep,
    /// It goes.
    Remove,
    /// It becomes this.
    To(u32),
}

/// All that can be changed; the default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edit<'a> {
    /// An AS number, so many times, in front of AS_PATH.
    pub prepend: Option<(u32, u8)>,
    /// Another next hop.
    pub next_hop: Option<&'a [u8]>,
    /// LOCAL_PREF.
    pub local_pref: Set,
    /// MULTI_EXIT_DISC.
    pub med: Set,
    /// ORIGINATOR_ID where there is none, or instead of the one in `strip`.
    pub originator: Option<NodeId>,
    /// A cluster id in front of CLUSTER_LIST.
    pub cluster: Option<NodeId>,
    /// Other communities; none if empty.
    pub communities: Option<&'a [u8]>,
    /// Other extended communities; none if empty.
    pub extended_communities: Option<&'a [u8]>,
    /// Other large communities; none if empty.
    pub large_communities: Option<&'a [u8]>,
    /// Type codes that go.
    pub strip: &'a [u8],
}

const AS_PATH: u8 = 2;
const MED: u8 = 4;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
const NEXT_HOP: u8 = 14;
const EXTENDED_COMMUNITIES: u8 = 16;
const LARGE_COMMUNITIES: u8 = 32;

/// Codes that an edit may add, ascending.
const ADDED: [u8; 8] = [
    MED,
    LOCAL_PREF,
    COMMUNITIES,
    ORIGINATOR_ID,
    CLUSTER_LIST,
    NEXT_HOP,
    EXTENDED_COMMUNITIES,
    LARGE_COMMUNITIES,
];

/// Append `canonical`, edited, to `out`.
pub fn rewrite(canonical: &[u8], edit: &Edit<'_>, out: &mut Vec<u8>) {
    let mut added = ADDED.iter().copied().peekable();
    for attribute in AttributesView(canonical).iter() {
        while let Some(code) = added.next_if(|code| *code < attribute.code) {
            add(code, edit, out);
        }
        added.next_if_eq(&attribute.code);
        change(attribute, edit, out);
    }
    for code in added {
        add(code, edit, out);
    }
}

/// An attribute that is not there yet.
fn add(code: u8, edit: &Edit<'_>, out: &mut Vec<u8>) {
    let (flags, value): (u8, &[u8]) = match (code, edit) {
        (
            MED,
            Edit {
                med: Set::To(number),
                ..
            },
        ) => return put(out, 0x80, code, &[&number.to_be_bytes()]),
        (
            LOCAL_PREF,
            Edit {
                local_pref: Set::To(number),
                ..
            },
        ) => {
            return put(out, 0x40, code, &[&number.to_be_bytes()]);
        }
        (
            ORIGINATOR_ID,
            Edit {
                originator: Some(id),
                ..
            },
        )
        | (
            CLUSTER_LIST,
            Edit {
                cluster: Some(id), ..
            },
        ) => {
            return put(out, 0x80, code, &[&id.0.to_be_bytes()]);
        }
        (
            NEXT_HOP,
            Edit {
                next_hop: Some(value),
                ..
            },
        ) => (0x80, value),
        (
            COMMUNITIES,
            Edit {
                communities: Some(value),
                ..
            },
        )
        | (
            EXTENDED_COMMUNITIES,
            Edit {
                extended_communities: Some(value),
                ..
            },
        )
        | (
            LARGE_COMMUNITIES,
            Edit {
                large_communities: Some(value),
                ..
            },
        ) if !value.is_empty() => (0xC0, value),
        _ => return,
    };
    put(out, flags, code, &[value]);
}

/// An attribute that is there.
fn change(attribute: Attribute<'_>, edit: &Edit<'_>, out: &mut Vec<u8>) {
    let Attribute { flags, code, value } = attribute;
    if edit.strip.contains(&code) {
        match (code, edit) {
            (
                MED,
                Edit {
                    med: Set::To(_), ..
                },
            ) => {}
            (
                ORIGINATOR_ID,
                Edit {
                    originator: Some(id),
                    ..
                },
            ) => return put(out, flags, code, &[&id.0.to_be_bytes()]),
            _ => return,
        }
    }
    let set = match code {
        MED => edit.med,
        LOCAL_PREF => edit.local_pref,
        _ => Set::Keep,
    };
    match set {
        Set::Keep => {}
        Set::Remove => return,
        Set::To(number) => return put(out, flags, code, &[&number.to_be_bytes()]),
    }
    let other = match code {
        COMMUNITIES => edit.communities,
        EXTENDED_COMMUNITIES => edit.extended_communities,
        LARGE_COMMUNITIES => edit.large_communities,
        NEXT_HOP => edit.next_hop,
        _ => None,
    };
    match (code, other, edit.cluster, edit.prepend) {
        (NEXT_HOP, Some(other), ..) => put(out, flags, code, &[other]),
        (_, Some([]), ..) => {}
        (_, Some(other), ..) => put(out, flags, code, &[other]),
        (CLUSTER_LIST, None, Some(cluster), _) => {
            put(out, flags, code, &[&cluster.0.to_be_bytes(), value]);
        }
        (AS_PATH, None, _, Some((asn, times))) if times > 0 => {
            prepend(out, flags, value, asn, times);
        }
        _ => put(out, flags, code, &[value]),
    }
}

/// RFC 4271 §5.1.2: into the leading sequence if there is one with room, else a new one.
fn prepend(out: &mut Vec<u8>, flags: u8, path: &[u8], asn: u32, times: u8) {
    let new = [asn.to_be_bytes()].repeat(usize::from(times)).concat();
    match path {
        [2, count, rest @ ..] if count.checked_add(times).is_some() => {
            put(out, flags, AS_PATH, &[&[2, count + times], &new, rest]);
        }
        _ => put(out, flags, AS_PATH, &[&[2, times], &new, path]),
    }
}

/// Append one attribute in canonical form. In a canonical set they stand in ascending order of
/// their codes, the next hop as code 14.
pub fn put_attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    put(out, flags, code, &[value]);
}

/// One attribute in canonical form, its value in parts.
pub(super) fn put(out: &mut Vec<u8>, flags: u8, code: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    match u8::try_from(length) {
        Ok(short) => out.extend([flags & !0x10, code, short]),
        Err(_) => {
            out.extend([flags | 0x10, code]);
            out.extend(crate::cursor::len16(length).to_be_bytes());
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
}
