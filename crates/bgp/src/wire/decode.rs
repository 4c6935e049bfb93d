//! One UPDATE, judged in one pass (RFC 4271 §6.3 as revised by RFC 7606).
//!
//! | outcome | what becomes of it |
//! |---|---|
//! | attribute discard | counted, the rest stands |
//! | treat-as-withdraw | the sections stand without attributes |
//! | disable the family | [`UpdateError::DisableFamily`]: its NLRI cannot be split |
//! | session reset | [`UpdateError::Reset`]: the message itself cannot be |

use super::{
    Family, Notification,
    attribute::AsPath,
    nlri::{Section, check},
    rewrite::put,
};
use crate::cursor::{Cursor, len8, len16};

/// What the session agreed on, as far as UPDATEs are read by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateContext {
    /// AS numbers of 4 octets (RFC 6793).
    pub four_octet_as: bool,
    /// The neighbour is in another AS.
    pub ebgp: bool,
    /// Families agreed on; others are ignored and counted.
    pub families: Vec<Family>,
    /// Of these, those in which the neighbour sends path ids (RFC 7911).
    pub add_path: Vec<Family>,
    /// Of these, those of IPv4 whose next hop may be IPv6 (RFC 8950).
    pub extended_next_hop: Vec<Family>,
}

/// What was wrong in UPDATEs and did not end the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UpdateFindings {
    /// Attributes dropped, the routes kept.
    pub discarded_attributes: u64,
    /// Routes treated as withdrawn because of a bad attribute.
    pub treated_as_withdrawn: u64,
    /// Routes ignored because their key is bad.
    pub bad_keys: u64,
    /// Routes withdrawn because their value is bad.
    pub bad_values: u64,
    /// `MP_REACH` and `MP_UNREACH` of families that were not negotiated.
    pub foreign_families: u64,
    /// The last of all these, for the log.
    pub last: Option<Finding>,
}

impl UpdateFindings {
    pub(super) fn discard(&mut self, finding: Finding) {
        self.discarded_attributes += 1;
        self.last = Some(finding);
    }

    pub(super) fn treat_as_withdrawn(&mut self, finding: Finding) {
        self.treated_as_withdrawn += 1;
        self.last = Some(finding);
    }
}

/// Something wrong with an UPDATE that its session survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where in the message's body, octets from its beginning.
    pub offset: usize,
    /// The attribute's type code; 0 for none.
    pub code: u8,
    /// What it is.
    pub what: &'static str,
}

/// What an UPDATE says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded<'a> {
    /// Routes of the IPv4 body, and of MP_REACH.
    pub announced: [Option<Section<'a>>; 2],
    /// Withdrawn routes of the IPv4 body, and of MP_UNREACH.
    pub withdrawn: [Option<Section<'a>>; 2],
    /// Canonical attributes of each of `announced`; `None`: they are to be treated as withdrawn.
    pub attributes: [Option<&'a [u8]>; 2],
    /// The neighbour has sent all of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
}

/// An UPDATE that is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// End the session with this.
    Reset(Notification),
    /// Forget all routes of this family, and take no more (RFC 7606 §5.3, RFC 4760 §7).
    DisableFamily(Family, Finding),
}

/// Buffers that are used again for each message.
#[derive(Debug, Default)]
pub struct Scratch {
    attributes: [Vec<u8>; 2],
    path: Vec<u8>,
    aggregator: Vec<u8>,
}

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;
const PARTIAL: u8 = 0x20;
const EXTENDED_LENGTH: u8 = 0x10;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MED: u8 = 4;
const LOCAL_PREF: u8 = 5;
const ATOMIC_AGGREGATE: u8 = 6;
const AGGREGATOR: u8 = 7;
const COMMUNITIES: u8 = 8;
const ORIGINATOR_ID: u8 = 9;
const CLUSTER_LIST: u8 = 10;
const MP_REACH: u8 = 14;
const MP_UNREACH: u8 = 15;
const EXTENDED_COMMUNITIES: u8 = 16;
const AS4_PATH: u8 = 17;
const AS4_AGGREGATOR: u8 = 18;
const IPV6_EXTENDED_COMMUNITIES: u8 = 25;
const LARGE_COMMUNITIES: u8 = 32;
const ONLY_TO_CUSTOMER: u8 = 35;

/// Most attributes of one message that are kept.
const MAX_ATTRIBUTES: usize = 64;
/// Most of them that we do not know; more are discarded. Each of the known ones, which are fewer
/// than the rest, comes once.
const MAX_UNKNOWN: usize = 40;

#[derive(Clone, Copy)]
struct Kept<'a> {
    flags: u8,
    code: u8,
    value: &'a [u8],
}

/// What one pass over the attributes found.
struct Found<'a> {
    kept: [Kept<'a>; MAX_ATTRIBUTES],
    count: usize,
    unknown: usize,
    ascending: bool,
    seen: [u64; 4],
    next_hop: Option<&'a [u8]>,
    reach: Option<(usize, &'a [u8])>,
    unreach: Option<(usize, &'a [u8])>,
    as4_path: Option<&'a [u8]>,
    as4_aggregator: Option<&'a [u8]>,
    withdraw: Option<Finding>,
}

/// Judge the body of an UPDATE (what follows the header).
///
/// # Errors
/// See [`UpdateError`].
pub fn decode<'a>(
    body: &'a [u8],
    context: &UpdateContext,
    scratch: &'a mut Scratch,
    findings: &mut UpdateFindings,
) -> Result<Decoded<'a>, UpdateError> {
    let malformed = || UpdateError::Reset(Notification::new(3, 1));
    let mut cursor = Cursor::new(body);
    let length = cursor.u16().ok_or_else(malformed)?;
    let withdrawn = cursor.take(usize::from(length)).ok_or_else(malformed)?;
    let length = cursor.u16().ok_or_else(malformed)?;
    let attributes = cursor.take(usize::from(length)).ok_or_else(malformed)?;
    let nlri = cursor.rest();
    if body.len() == 4 {
        return Ok(Decoded {
            end_of_rib: context
                .families
                .contains(&Family::IPV4)
                .then_some(Family::IPV4),
            ..Decoded::default()
        });
    }
    let found = Found::scan(attributes, 4 + withdrawn.len(), context, findings)?;
    let mut decoded = Decoded::default();
    decoded.withdrawn[0] = body_section(withdrawn, false, context)?;
    decoded.announced[0] = body_section(nlri, true, context)?;
    if let Some((offset, octets)) = found.unreach {
        decoded.withdrawn[1] =
            multiprotocol(octets, offset, false, context, findings)?.map(|m| m.1);
        let ends =
            octets.len() == 3 && found.reach.is_none() && nlri.is_empty() && withdrawn.is_empty();
        if let (true, Some(section)) = (ends, decoded.withdrawn[1].take_if(|_| ends)) {
            decoded.end_of_rib = Some(section.family);
        }
    }
    let mut next_hop = None;
    if let Some((offset, octets)) = found.reach
        && let Some((hop, section)) = multiprotocol(octets, offset, true, context, findings)?
    {
        decoded.announced[1] = Some(section);
        next_hop = Some(hop);
    }
    found.check_routes(&decoded)?;
    found.judge(context, scratch, findings, &mut decoded, next_hop);
    Ok(decoded)
}

/// NLRI of the body: IPv4 unicast. One that cannot be split resets the session (RFC 7606 §5.3).
fn body_section<'a>(
    octets: &'a [u8],
    reach: bool,
    context: &UpdateContext,
) -> Result<Option<Section<'a>>, UpdateError> {
    if octets.is_empty() {
        return Ok(None);
    }
    let section = Section {
        family: Family::IPV4,
        add_path: context.add_path.contains(&Family::IPV4),
        octets,
    };
    match check(&section, reach) {
        Ok(_) if context.families.contains(&Family::IPV4) => Ok(Some(section)),
        Ok(_) => Ok(None),
        Err(_) => Err(UpdateError::Reset(Notification::new(3, 10))),
    }
}

/// Next hop and NLRI of MP_REACH, or NLRI of MP_UNREACH; `None` for a family not agreed on.
fn multiprotocol<'a>(
    octets: &'a [u8],
    offset: usize,
    reach: bool,
    context: &UpdateContext,
    findings: &mut UpdateFindings,
) -> Result<Option<(&'a [u8], Section<'a>)>, UpdateError> {
    let mut cursor = Cursor::new(octets);
    let code = if reach { MP_REACH } else { MP_UNREACH };
    let short = || UpdateError::Reset(Notification::new(3, 9));
    let family = Family {
        afi: cursor.u16().ok_or_else(short)?,
        safi: cursor.u8().ok_or_else(short)?,
    };
    if !context.families.contains(&family) {
        findings.foreign_families += 1;
        return Ok(None);
    }
    let disable = |offset, what| UpdateError::DisableFamily(family, Finding { offset, code, what });
    let mut next_hop = &[][..];
    if reach {
        let length = usize::from(cursor.u8().ok_or_else(short)?);
        if !next_hop_fits(family, length, context) {
            return Err(disable(offset, "a next hop of a wrong length"));
        }
        next_hop = cursor.take(length).ok_or_else(short)?;
        cursor.u8().ok_or_else(short)?;
    }
    let section = Section {
        family,
        add_path: context.add_path.contains(&family),
        octets: cursor.rest(),
    };
    let checked = check(&section, reach).map_err(|bad| {
        disable(
            offset + octets.len() - section.octets.len() + bad.offset,
            bad.what,
        )
    })?;
    findings.bad_keys += checked.bad_keys;
    findings.bad_values += checked.bad_values;
    Ok(Some((next_hop, section)))
}

/// RFC 4760 §3, RFC 2545 §3, RFC 4364 §4.3.2, RFC 4659 §3.2.1, RFC 8950 §3.
fn next_hop_fits(family: Family, length: usize, context: &UpdateContext) -> bool {
    let extended = context.extended_next_hop.contains(&family);
    match (family.afi, family.safi) {
        (1, 1) => length == 4 || (extended && matches!(length, 16 | 32)),
        (2, 1) => matches!(length, 16 | 32),
        (1, 128) => length == 12 || (extended && matches!(length, 24 | 48)),
        (2, 128) => matches!(length, 24 | 48),
        (1, 132) => matches!(length, 4 | 16),
        (_, 133 | 134) => matches!(length, 0 | 4 | 16 | 32),
        _ => length == 4,
    }
}

impl<'a> Found<'a> {
    fn scan(
        octets: &'a [u8],
        base: usize,
        context: &UpdateContext,
        findings: &mut UpdateFindings,
    ) -> Result<Self, UpdateError> {
        let none = Kept {
            flags: 0,
            code: 0,
            value: &[],
        };
        let mut found = Found {
            kept: [none; MAX_ATTRIBUTES],
            count: 0,
            unknown: 0,
            ascending: true,
            seen: [0; 4],
            next_hop: None,
            reach: None,
            unreach: None,
            as4_path: None,
            as4_aggregator: None,
            withdraw: None,
        };
        let mut cursor = Cursor::new(octets);
        while !cursor.is_empty() {
            let offset = base + octets.len() - cursor.rest().len();
            let Some(attribute) = super::attribute::next(&mut cursor) else {
                // RFC 7606 §4: while the routes can be found, they are withdrawn; these cannot
                // (§5.3).
                if let [_, MP_REACH | MP_UNREACH, ..] = octets[offset - base..] {
                    return Err(UpdateError::Reset(Notification::new(3, 1)));
                }
                let what = "attributes that overrun";
                found.withdraw.get_or_insert(Finding {
                    offset,
                    code: 0,
                    what,
                });
                break;
            };
            let (flags, code, value) = (attribute.flags, attribute.code, attribute.value);
            let bit = 1_u64 << (code % 64);
            let seen = &mut found.seen[usize::from(code / 64)];
            if *seen & bit != 0 {
                if matches!(code, MP_REACH | MP_UNREACH) {
                    return Err(UpdateError::Reset(Notification::new(3, 1)));
                }
                findings.discard(Finding {
                    offset,
                    code,
                    what: "an attribute said twice",
                });
                continue;
            }
            *seen |= bit;
            found.take(offset, flags, code, value, context, findings)?;
        }
        Ok(found)
    }

    fn take(
        &mut self,
        offset: usize,
        flags: u8,
        code: u8,
        value: &'a [u8],
        context: &UpdateContext,
        findings: &mut UpdateFindings,
    ) -> Result<(), UpdateError> {
        let finding = |what| Finding { offset, code, what };
        if let Some(expected) = flags_of(code) {
            if flags & (OPTIONAL | TRANSITIVE) != expected {
                // RFC 7606 §3 (c).
                self.withdraw
                    .get_or_insert(finding("attribute flags that contradict its type"));
                // Its routes are to be found all the same.
                self.routes(offset, code, value);
                return Ok(());
            }
        } else if flags & OPTIONAL == 0 {
            let length = len16(value.len()).to_be_bytes();
            let length = if flags & EXTENDED_LENGTH == 0 {
                &length[1..]
            } else {
                &length
            };
            let data = [&[flags, code], length, value].concat();
            return Err(UpdateError::Reset(Notification::with_data(3, 2, &data)));
        }
        // RFC 7606 §7.5, §7.9, §7.10: from another AS these mean nothing.
        if context.ebgp && matches!(code, LOCAL_PREF | ORIGINATOR_ID | CLUSTER_LIST) {
            findings.discard(finding("an attribute that stays inside an AS"));
            return Ok(());
        }
        let good = match code {
            ORIGIN => matches!(value, [0..=2]),
            AS_PATH => path_is_good(value, context.four_octet_as, !context.ebgp),
            NEXT_HOP => value.len() == 4,
            // ONLY_TO_CUSTOMER: RFC 9234 §5.
            MED | LOCAL_PREF | ORIGINATOR_ID | ONLY_TO_CUSTOMER => value.len() == 4,
            COMMUNITIES | CLUSTER_LIST => is_list(value, 4),
            EXTENDED_COMMUNITIES => is_list(value, 8),
            LARGE_COMMUNITIES => is_list(value, 12),
            IPV6_EXTENDED_COMMUNITIES => is_list(value, 20),
            _ => true,
        };
        if !good {
            self.withdraw
                .get_or_insert(finding("a value that its type does not allow"));
            return Ok(());
        }
        let discarded = match code {
            ATOMIC_AGGREGATE => !value.is_empty(),
            AGGREGATOR => !aggregator_is_good(value, context.four_octet_as),
            // RFC 6793 §6: shorter than one number.
            AS4_PATH => {
                context.four_octet_as || value.len() < 6 || !path_is_good(value, true, true)
            }
            AS4_AGGREGATOR => context.four_octet_as || !aggregator_is_good(value, true),
            _ => flags_of(code).is_none() && self.unknown == MAX_UNKNOWN,
        };
        if discarded {
            findings.discard(finding("an attribute that is left out"));
            return Ok(());
        }
        match code {
            NEXT_HOP => self.next_hop = Some(value),
            MP_REACH | MP_UNREACH => self.routes(offset, code, value),
            AS4_PATH => self.as4_path = Some(value),
            AS4_AGGREGATOR => self.as4_aggregator = Some(value),
            _ => self.keep(flags, code, value),
        }
        Ok(())
    }

    const fn routes(&mut self, offset: usize, code: u8, value: &'a [u8]) {
        match code {
            MP_REACH => self.reach = Some((offset, value)),
            MP_UNREACH => self.unreach = Some((offset, value)),
            _ => {}
        }
    }

    /// RFC 4271 §5: what we do not know is passed on as partial if it is transitive, and is left
    /// out if not.
    fn keep(&mut self, flags: u8, code: u8, value: &'a [u8]) {
        let known = flags_of(code).is_some();
        if !known && flags & TRANSITIVE == 0 {
            return;
        }
        let mut flags = flags & (OPTIONAL | TRANSITIVE | PARTIAL);
        if !known {
            flags |= PARTIAL;
            self.unknown += 1;
        }
        if flags & (OPTIONAL | TRANSITIVE) != OPTIONAL | TRANSITIVE {
            flags &= !PARTIAL;
        }
        let last = self.count.checked_sub(1).map(|at| self.kept[at].code);
        self.ascending &= last.is_none_or(|last| last < code);
        self.kept[self.count] = Kept { flags, code, value };
        self.count += 1;
    }

    fn has(&self, code: u8) -> bool {
        self.seen[usize::from(code / 64)] & (1 << (code % 64)) != 0
    }

    /// RFC 7606 §5.2: with an error in a message that has attributes and announces nothing, who
    /// knows what it was meant to announce.
    fn check_routes(&self, decoded: &Decoded<'_>) -> Result<(), UpdateError> {
        let Some(finding) = self.withdraw else {
            return Ok(());
        };
        let some = decoded
            .announced
            .iter()
            .flatten()
            .any(|section| !section.is_empty());
        let foreign = self.reach.is_some() && decoded.announced[1].is_none();
        let only_unreach = self.seen == [1 << MP_UNREACH, 0, 0, 0] && finding.code != 0;
        if some || foreign || only_unreach {
            return Ok(());
        }
        Err(UpdateError::Reset(Notification::new(3, 1)))
    }

    /// Is there all that a route needs? Then write it down.
    fn judge(
        mut self,
        context: &UpdateContext,
        scratch: &'a mut Scratch,
        findings: &mut UpdateFindings,
        decoded: &mut Decoded<'a>,
        next_hop: Option<&'a [u8]>,
    ) {
        let hops = [
            decoded.announced[0].and(self.next_hop),
            decoded.announced[1].and(next_hop),
        ];
        if decoded.announced == [None, None] {
            return;
        }
        let mandatory = [ORIGIN, AS_PATH]
            .into_iter()
            .chain((!context.ebgp).then_some(LOCAL_PREF))
            .chain(decoded.announced[0].is_some().then_some(NEXT_HOP));
        for code in mandatory {
            if !self.has(code) {
                let what = "a mandatory attribute that is missing";
                self.withdraw.get_or_insert(Finding {
                    offset: 0,
                    code,
                    what,
                });
            }
        }
        if let Some(finding) = self.withdraw {
            findings.treat_as_withdrawn(finding);
            return;
        }
        self.merge_as4(context, &mut scratch.path, &mut scratch.aggregator);
        if !self.ascending {
            self.kept[..self.count].sort_by_key(|kept| kept.code);
        }
        let Scratch {
            attributes,
            path,
            aggregator,
        } = scratch;
        for (out, hop) in attributes.iter_mut().zip(hops) {
            out.clear();
            let Some(hop) = hop else {
                continue;
            };
            let mut owes_hop = true;
            for kept in &self.kept[..self.count] {
                if kept.code > MP_REACH && std::mem::take(&mut owes_hop) {
                    put(out, OPTIONAL, MP_REACH, &[hop]);
                }
                let value = match kept.code {
                    AS_PATH if !path.is_empty() => path.as_slice(),
                    AGGREGATOR if !aggregator.is_empty() => aggregator.as_slice(),
                    _ => kept.value,
                };
                put(out, kept.flags, kept.code, &[value]);
            }
            if owes_hop {
                put(out, OPTIONAL, MP_REACH, &[hop]);
            }
        }
        let [first, second] = &*attributes;
        decoded.attributes = [hops[0].map(|_| &first[..]), hops[1].map(|_| &second[..])];
    }

    /// RFC 6793 §4.2.3: AS numbers of 4 octets out of both attributes.
    fn merge_as4(&self, context: &UpdateContext, path: &mut Vec<u8>, aggregator: &mut Vec<u8>) {
        path.clear();
        aggregator.clear();
        if context.four_octet_as {
            return;
        }
        let value = |code| {
            let kept = self.kept[..self.count]
                .iter()
                .find(|kept| kept.code == code);
            kept.map_or(&[][..], |kept| kept.value)
        };
        let mut ignore = false;
        if let [a, b, id @ ..] = value(AGGREGATOR) {
            let asn = u16::from_be_bytes([*a, *b]);
            ignore = asn != 23456 && self.as4_aggregator.is_some();
            match self.as4_aggregator {
                Some(long) if !ignore => aggregator.extend_from_slice(long),
                Some(_) | None => {
                    aggregator.extend(u32::from(asn).to_be_bytes());
                    aggregator.extend_from_slice(id);
                }
            }
        }
        widen(value(AS_PATH), path);
        let Some(long) = self.as4_path.filter(|_| !ignore) else {
            return;
        };
        let (have, true_) = (AsPath(path).len(), AsPath(long).len());
        if have >= true_ {
            let mut merged = Vec::with_capacity(path.len());
            leading(AsPath(path), have - true_, &mut merged);
            // RFC 6793 §6: confederation segments are no part of it.
            for (kind, numbers) in AsPath(long).segments().filter(|(kind, _)| *kind <= 2) {
                merged.extend([kind, len8(numbers.len())]);
                merged.extend(numbers.iter().flatten());
            }
            *path = merged;
        }
    }
}

/// The first `count` numbers of a path, a set counting one; confederation segments in front of or
/// behind what is taken come along (RFC 6793 §4.2.3).
fn leading(path: AsPath<'_>, mut count: usize, out: &mut Vec<u8>) {
    for (kind, numbers) in path.segments() {
        let (cost, taken) = match kind {
            2 => (numbers.len().min(count), numbers.len().min(count)),
            1 => (1, numbers.len()),
            _ => (0, numbers.len()),
        };
        if cost > count || taken == 0 {
            return;
        }
        count -= cost;
        out.extend([kind, len8(taken)]);
        out.extend(numbers[..taken].iter().flatten());
        if taken < numbers.len() {
            return;
        }
    }
}

/// A path of 2-octet numbers as one of 4-octet numbers.
fn widen(short: &[u8], out: &mut Vec<u8>) {
    let mut cursor = Cursor::new(short);
    while let (Some(kind), Some(count)) = (cursor.u8(), cursor.u8()) {
        out.extend([kind, count]);
        for _ in 0..count {
            out.extend(u32::from(cursor.u16().unwrap_or(0)).to_be_bytes());
        }
    }
}

/// RFC 7606 §7.2: known segment types, none empty, none that overruns; RFC 7607: no AS 0;
/// RFC 5065 §5: no confederation segments from outside.
fn path_is_good(value: &[u8], four_octets: bool, confederation: bool) -> bool {
    let mut cursor = Cursor::new(value);
    while !cursor.is_empty() {
        let (Some(kind), Some(count @ 1..)) = (cursor.u8(), cursor.u8()) else {
            return false;
        };
        let most = if confederation { 4 } else { 2 };
        if !(1..=most).contains(&kind) {
            return false;
        }
        let width = if four_octets { 4 } else { 2 };
        let Some(numbers) = cursor.take(usize::from(count) * width) else {
            return false;
        };
        if numbers
            .chunks_exact(width)
            .any(|n| n.iter().all(|o| *o == 0))
        {
            return false;
        }
    }
    true
}

/// RFC 7606 §7.7; RFC 7607: no AS 0.
fn aggregator_is_good(value: &[u8], four_octets: bool) -> bool {
    let width = if four_octets { 4 } else { 2 };
    value.len() == width + 4 && value[..width].iter().any(|octet| *octet != 0)
}

fn is_list(value: &[u8], of: usize) -> bool {
    !value.is_empty() && value.len().is_multiple_of(of)
}

/// Which flags a known attribute has.
const fn flags_of(code: u8) -> Option<u8> {
    match code {
        ORIGIN | AS_PATH | NEXT_HOP | LOCAL_PREF | ATOMIC_AGGREGATE => Some(TRANSITIVE),
        MED | ORIGINATOR_ID | CLUSTER_LIST | MP_REACH | MP_UNREACH => Some(OPTIONAL),
        AGGREGATOR
        | COMMUNITIES
        | EXTENDED_COMMUNITIES
        | AS4_PATH
        | AS4_AGGREGATOR
        | IPV6_EXTENDED_COMMUNITIES
        | LARGE_COMMUNITIES => Some(OPTIONAL | TRANSITIVE),
        _ => None,
    }
}
