//! UPDATE messages written one behind the other into one buffer.

use super::{
    Family, HEADER, MessageKind,
    attribute::{AsPath, Attribute, AttributesView},
    nlri,
    rewrite::put,
};
use crate::cursor::{len8, len16};

/// What a neighbour's session agreed on, as far as messages to it differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// The longest message: 4096, or 65535 (RFC 8654).
    pub max_message: usize,
    /// AS numbers of 4 octets (RFC 6793).
    pub four_octet_as: bool,
    /// Path ids in this family (RFC 7911).
    pub add_path: bool,
}

const NEXT_HOP: u8 = 3;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const AS_PATH: u8 = 2;
const AGGREGATOR: u8 = 7;
const AS4_PATH: u8 = 17;
const AS4_AGGREGATOR: u8 = 18;
const AS_TRANS: u16 = 23456;

/// Where the NLRI stand, so where lengths are to be patched.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// Behind the attributes.
    Body,
    /// In the withdrawn field in front of them.
    Withdrawn,
    /// In the attribute whose value begins here. It is written last, so that it can grow, and
    /// brought to the front when it is complete (RFC 7606 §5.1).
    Multiprotocol(usize),
}

/// One message in the making; dropping it without [`UpdateBuilder::finish`] leaves it unfinished.
#[derive(Debug)]
pub struct UpdateBuilder<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    limit: usize,
    family: Family,
    add_path: bool,
    withdraw: bool,
    place: Place,
    count: usize,
}

impl<'o> UpdateBuilder<'o> {
    /// An announcement under canonical `attributes`; `None` if they alone fill a message.
    /// IPv4 routes with a 4-octet next hop go the classic way, all others into MP_REACH.
    pub fn announce(
        out: &'o mut Vec<u8>,
        family: Family,
        encoding: &Encoding,
        attributes: &[u8],
    ) -> Option<Self> {
        let start = begin(out);
        out.extend([0, 0, 0, 0]);
        let view = AttributesView(attributes);
        let next_hop = view.next_hop();
        let classic = family == Family::IPV4 && next_hop.len() == 4;
        let from = out.len();
        let mut owes_next_hop = classic;
        for attribute in view.iter() {
            if attribute.code > NEXT_HOP && std::mem::take(&mut owes_next_hop) {
                put(out, 0x40, NEXT_HOP, &[next_hop]);
            }
            if attribute.code != MP_REACH {
                attribute_for(attribute, encoding.four_octet_as, out);
            }
        }
        if !encoding.four_octet_as {
            as4(view, out);
        }
        let place = if classic {
            let length = len16((out.len() - from).min(0xFFFF));
            out[start + HEADER + 2..from].copy_from_slice(&length.to_be_bytes());
            Place::Body
        } else {
            out.extend([0x90, MP_REACH, 0, 0]);
            let value = out.len();
            out.extend(family.afi.to_be_bytes());
            out.extend([family.safi, len8(next_hop.len().min(255))]);
            out.extend_from_slice(next_hop);
            out.push(0);
            Place::Multiprotocol(value)
        };
        if out.len() - start >= encoding.max_message {
            out.truncate(start);
            return None;
        }
        Some(Self::new(out, start, family, encoding, false, place))
    }

    /// A withdrawal.
    pub fn withdraw(out: &'o mut Vec<u8>, family: Family, encoding: &Encoding) -> Self {
        let start = begin(out);
        out.extend([0, 0]);
        let place = if family == Family::IPV4 {
            Place::Withdrawn
        } else {
            out.extend([0, 0, 0x90, MP_UNREACH, 0, 0]);
            let value = out.len();
            out.extend(family.afi.to_be_bytes());
            out.push(family.safi);
            Place::Multiprotocol(value)
        };
        Self::new(out, start, family, encoding, true, place)
    }

    fn new(
        out: &'o mut Vec<u8>,
        start: usize,
        family: Family,
        encoding: &Encoding,
        withdraw: bool,
        place: Place,
    ) -> Self {
        // The two octets of attribute length follow the withdrawn field.
        let tail = if matches!(place, Place::Withdrawn) {
            2
        } else {
            0
        };
        UpdateBuilder {
            limit: start + encoding.max_message - tail,
            out,
            start,
            family,
            add_path: encoding.add_path,
            withdraw,
            place,
            count: 0,
        }
    }

    /// Add a route; false if there is no room for it, and then nothing was written.
    pub fn push(&mut self, path_id: u32, key: &[u8], value: &[u8]) -> bool {
        let value = if self.withdraw { &[][..] } else { value };
        let length = nlri::encoded_len(self.family, self.add_path, key, value);
        if self.out.len() + length > self.limit {
            return false;
        }
        let path_id = self.add_path.then_some(path_id);
        nlri::encode(self.family, path_id, key, value, self.out);
        self.count += 1;
        true
    }

    /// Routes in it.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Complete it; one without a route disappears.
    pub fn finish(self) {
        let UpdateBuilder { out, start, .. } = self;
        if self.count == 0 {
            out.truncate(start);
            return;
        }
        let fields = start + HEADER;
        match self.place {
            Place::Body => {}
            Place::Withdrawn => {
                let length = len16(out.len() - fields - 2);
                out[fields..fields + 2].copy_from_slice(&length.to_be_bytes());
                out.extend([0, 0]);
            }
            Place::Multiprotocol(value) => {
                let length = len16(out.len() - value);
                out[value - 2..value].copy_from_slice(&length.to_be_bytes());
                let attributes = fields + 4;
                let length = len16(out.len() - attributes);
                out[attributes - 2..attributes].copy_from_slice(&length.to_be_bytes());
                out[attributes..].rotate_left(value - 4 - attributes);
            }
        }
        let length = len16(out.len() - start);
        out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
    }
}

fn begin(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend([0xFF; 16]);
    out.extend([0, 0, MessageKind::Update as u8]);
    start
}

/// An attribute as this neighbour reads it.
fn attribute_for(attribute: Attribute<'_>, four_octet_as: bool, out: &mut Vec<u8>) {
    let Attribute { flags, code, value } = attribute;
    match (four_octet_as, code) {
        (false, AS_PATH) => put(out, flags, code, &[&short_path(AsPath(value))]),
        (false, AGGREGATOR) if value.len() == 8 => {
            let asn = u32::from_be_bytes([value[0], value[1], value[2], value[3]]);
            put(out, flags, code, &[&short(asn).to_be_bytes(), &value[4..]]);
        }
        _ => put(out, flags, code, &[value]),
    }
}

fn short(asn: u32) -> u16 {
    u16::try_from(asn).unwrap_or(AS_TRANS)
}

/// RFC 6793 §4.2.2: numbers that do not fit become AS_TRANS.
fn short_path(path: AsPath<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.0.len());
    for (kind, numbers) in path.segments() {
        out.extend([kind, len8(numbers.len())]);
        for number in numbers {
            out.extend(short(u32::from_be_bytes(*number)).to_be_bytes());
        }
    }
    out
}

/// RFC 6793 §4.2.2: the true path beside it, where a number did not fit; without confederation
/// segments.
fn as4(view: AttributesView<'_>, out: &mut Vec<u8>) {
    let path = view.as_path();
    let long = |numbers: &[[u8; 4]]| numbers.iter().any(|n| n[0] != 0 || n[1] != 0);
    if path.segments().any(|(_, numbers)| long(numbers)) {
        let mut value = Vec::with_capacity(path.0.len());
        for (kind, numbers) in path.segments().filter(|(kind, _)| *kind <= 2) {
            value.extend([kind, len8(numbers.len())]);
            value.extend(numbers.iter().flatten());
        }
        if !value.is_empty() {
            put(out, 0xC0, AS4_PATH, &[&value]);
        }
    }
    if let Some(aggregator) = view.get(AGGREGATOR)
        && aggregator.len() == 8
        && (aggregator[0] != 0 || aggregator[1] != 0)
    {
        put(out, 0xC0, AS4_AGGREGATOR, &[aggregator]);
    }
}
