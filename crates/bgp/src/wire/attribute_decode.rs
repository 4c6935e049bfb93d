//! Path attributes off the wire, judged by RFC 7606 §7.

use base::NodeId;

use super::{Notification, UpdateFindings};
use crate::{
    attributes::{Attributes, Origin, RawAttribute, RouteTarget},
    cursor::Cursor,
};

pub(super) const OPTIONAL: u8 = 0x80;
pub(super) const TRANSITIVE: u8 = 0x40;
pub(super) const PARTIAL: u8 = 0x20;
pub(super) const EXTENDED: u8 = 0x10;

pub(super) const ORIGIN: u8 = 1;
pub(super) const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MED: u8 = 4;
pub(super) const LOCAL_PREF: u8 = 5;
const ATOMIC_AGGREGATE: u8 = 6;
const AGGREGATOR: u8 = 7;
const COMMUNITIES: u8 = 8;
pub(super) const ORIGINATOR_ID: u8 = 9;
pub(super) const CLUSTER_LIST: u8 = 10;
pub(super) const MP_REACH: u8 = 14;
pub(super) const MP_UNREACH: u8 = 15;
pub(super) const EXTENDED_COMMUNITIES: u8 = 16;

/// Our own OPEN insists on 4-octet AS numbers, so segments carry them.
const AS_OCTETS: usize = 4;

/// What one pass over the attributes found.
#[derive(Default)]
pub(super) struct Found<'a> {
    pub(super) reach: Option<&'a [u8]>,
    pub(super) unreach: Option<&'a [u8]>,
    /// At least one attribute says: treat the routes as withdrawn.
    pub(super) withdraw: bool,
    /// The attributes run over their end, so some may be missing.
    pub(super) overrun: bool,
    origin: Option<Origin>,
    as_path: Option<Vec<u8>>,
    local_pref: Option<u32>,
    originator: Option<NodeId>,
    clusters: Vec<NodeId>,
    route_targets: Vec<RouteTarget>,
    communities: Vec<[u8; 8]>,
    extra: Vec<RawAttribute>,
}

impl<'a> Found<'a> {
    /// One pass over all attributes.
    pub(super) fn scan(
        octets: &'a [u8],
        findings: &mut UpdateFindings,
    ) -> Result<Found<'a>, Notification> {
        let mut found = Found::default();
        let mut seen = [false; 256];
        let mut cursor = Cursor::new(octets);
        while !cursor.is_empty() {
            let Some((flags, code, value)) = attribute(&mut cursor) else {
                // RFC 7606 §4: an overrun is treat-as-withdraw while the routes can be read.
                found.withdraw = true;
                found.overrun = true;
                break;
            };
            if std::mem::replace(&mut seen[usize::from(code)], true) {
                if matches!(code, MP_REACH | MP_UNREACH) {
                    return Err(Notification::new(3, 1));
                }
                findings.discarded_attributes += 1;
                continue;
            }
            found.take(flags, code, value, findings)?;
        }
        Ok(found)
    }

    fn take(
        &mut self,
        flags: u8,
        code: u8,
        value: &'a [u8],
        findings: &mut UpdateFindings,
    ) -> Result<(), Notification> {
        if let Some(expected) = flags_of(code) {
            let mask = if expected & TRANSITIVE != 0 && expected & OPTIONAL != 0 {
                OPTIONAL | TRANSITIVE
            } else {
                OPTIONAL | TRANSITIVE | PARTIAL
            };
            if flags & mask != expected {
                self.withdraw = true;
            }
        }
        let good = match code {
            ORIGIN => set(&mut self.origin, origin(value)),
            AS_PATH => set(&mut self.as_path, as_path(value)),
            NEXT_HOP => value.len() == 4,
            MED => value.len() == 4 && self.pass(flags, code, value),
            LOCAL_PREF => set(
                &mut self.local_pref,
                value.try_into().ok().map(u32::from_be_bytes),
            ),
            ATOMIC_AGGREGATE | AGGREGATOR => {
                let length = if code == AGGREGATOR { 8 } else { 0 };
                if value.len() == length {
                    self.pass(flags, code, value);
                } else {
                    findings.discarded_attributes += 1;
                }
                true
            }
            COMMUNITIES => {
                !value.is_empty() && value.len().is_multiple_of(4) && self.pass(flags, code, value)
            }
            ORIGINATOR_ID => {
                let id = value.try_into().ok().map(|o| NodeId(u32::from_be_bytes(o)));
                set(&mut self.originator, id)
            }
            CLUSTER_LIST => self.cluster_list(value),
            EXTENDED_COMMUNITIES => self.extended_communities(value),
            MP_REACH => {
                self.reach = Some(value);
                true
            }
            MP_UNREACH => {
                self.unreach = Some(value);
                true
            }
            _ if flags & OPTIONAL == 0 => return Err(unrecognized(flags, code, value)),
            RawAttribute::FACTS => self.pass(flags & !EXTENDED, code, value),
            // RFC 4271 §5: unknown and optional: transitive is passed on as partial, other is not.
            _ if flags & TRANSITIVE != 0 => self.pass((flags | PARTIAL) & !EXTENDED, code, value),
            _ => true,
        };
        self.withdraw |= !good;
        Ok(())
    }

    fn pass(&mut self, flags: u8, code: u8, value: &[u8]) -> bool {
        let flags = flags & (OPTIONAL | TRANSITIVE | PARTIAL);
        self.extra.push(RawAttribute {
            flags,
            code,
            value: value.to_vec(),
        });
        true
    }

    fn cluster_list(&mut self, value: &[u8]) -> bool {
        let (ids, rest) = value.as_chunks::<4>();
        self.clusters = ids
            .iter()
            .map(|id| NodeId(u32::from_be_bytes(*id)))
            .collect();
        rest.is_empty() && !ids.is_empty()
    }

    fn extended_communities(&mut self, value: &[u8]) -> bool {
        let (all, rest) = value.as_chunks::<8>();
        for community in all {
            match RouteTarget::from_community(*community) {
                Some(rt) => self.route_targets.push(rt),
                None => self.communities.push(*community),
            }
        }
        rest.is_empty() && !all.is_empty()
    }

    /// The set as routes have it; `None` if a mandatory attribute is missing.
    pub(super) fn into_attributes(mut self, next_hop: NodeId) -> Option<Attributes> {
        self.extra.sort();
        self.route_targets.sort();
        self.route_targets.dedup();
        self.communities.sort();
        self.communities.dedup();
        Some(Attributes {
            next_hop,
            origin: self.origin?,
            as_path: self.as_path?,
            local_pref: self.local_pref?,
            originator: self.originator,
            clusters: self.clusters,
            route_targets: self.route_targets,
            communities: self.communities,
            extra: self.extra,
        })
    }
}

fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    *field = value;
    field.is_some()
}

fn attribute<'a>(cursor: &mut Cursor<'a>) -> Option<(u8, u8, &'a [u8])> {
    let (flags, code) = (cursor.u8()?, cursor.u8()?);
    let length = if flags & EXTENDED != 0 {
        cursor.u16()?
    } else {
        u16::from(cursor.u8()?)
    };
    Some((flags, code, cursor.take(usize::from(length))?))
}

const fn flags_of(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MED | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH | MP_UNREACH => Some(OPTIONAL),
        AGGREGATOR | COMMUNITIES | EXTENDED_COMMUNITIES | RawAttribute::FACTS => {
            Some(OPTIONAL | TRANSITIVE)
        }
        _ => None,
    }
}

fn unrecognized(flags: u8, code: u8, value: &[u8]) -> Notification {
    let mut data = vec![
        flags & !EXTENDED,
        code,
        u8::try_from(value.len()).unwrap_or(u8::MAX),
    ];
    data.extend_from_slice(value);
    Notification::with_data(3, 2, &data)
}

const fn origin(value: &[u8]) -> Option<Origin> {
    match value {
        [0] => Some(Origin::Igp),
        [1] => Some(Origin::Egp),
        [2] => Some(Origin::Incomplete),
        _ => None,
    }
}

/// RFC 7606 §7.2: known segment types, no empty segment, no overrun.
fn as_path(value: &[u8]) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(value);
    while !cursor.is_empty() {
        let (kind, count) = (cursor.u8()?, usize::from(cursor.u8()?));
        if !(1..=4).contains(&kind) || count == 0 {
            return None;
        }
        cursor.take(count * AS_OCTETS)?;
    }
    Some(value.to_vec())
}
