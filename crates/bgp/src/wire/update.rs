//! UPDATE (RFC 4271 §4.3, RFC 4760): one validation pass in, packed messages out.

use std::sync::Arc;

use base::NodeId;
use bytes::Bytes;

use super::{
    Family, Finding, HEADER, MAX_MESSAGE, MessageKind, Notification,
    attribute_decode::{
        AS_PATH, CLUSTER_LIST, EXTENDED, EXTENDED_COMMUNITIES, Found, LOCAL_PREF, MP_REACH,
        MP_UNREACH, OPTIONAL, ORIGIN, ORIGINATOR_ID, TRANSITIVE,
    },
    message,
};
use crate::{
    attributes::{Attributes, RawAttribute},
    cursor::{Cursor, len8, len16},
    mesh::{self, Key, Nlri, Overrun, Value},
};

/// Routes that came with one UPDATE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// What all of `announced` have in common.
    pub attributes: Option<Arc<Attributes>>,
    /// New or changed routes; empty if there are no attributes.
    pub announced: Vec<(Key, Value)>,
    /// Routes that exist no more, those treated as withdrawn included.
    pub withdrawn: Vec<Key>,
}

/// What an UPDATE says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOutcome {
    /// Routes.
    Routes(Update),
    /// The neighbour has sent its whole table (RFC 4724 §2).
    EndOfRib,
    /// The routes of the family cannot be told apart: the family is off until the session ends
    /// (RFC 7606 §5.3, RFC 4760 §7).
    FamilyDisabled,
    /// Nothing of our family.
    Nothing,
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

/// Read the body of an UPDATE.
///
/// # Errors
/// The NOTIFICATION to end the session with (RFC 7606 §2 "session reset").
pub fn decode_update(
    body: &[u8],
    family: Family,
    findings: &mut UpdateFindings,
) -> Result<UpdateOutcome, Notification> {
    let malformed = || Notification::new(3, 1);
    let mut cursor = Cursor::new(body);
    let withdrawn_len = cursor.u16().ok_or_else(malformed)?;
    cursor
        .take(usize::from(withdrawn_len))
        .ok_or_else(malformed)?;
    let attributes_len = cursor.u16().ok_or_else(malformed)?;
    let attributes = cursor
        .take(usize::from(attributes_len))
        .ok_or_else(malformed)?;
    if withdrawn_len != 0 || !cursor.is_empty() {
        // IPv4 unicast was not negotiated.
        findings.foreign_families += 1;
    }
    let found = Found::scan(attributes, findings)?;
    if found.overrun && found.reach.is_none() && found.unreach.is_none() {
        // RFC 7606 §5.2: which routes to withdraw cannot be told.
        return Err(malformed());
    }
    match routes(found, family, findings) {
        Ok(outcome) => outcome,
        Err(Overrun) => Ok(UpdateOutcome::FamilyDisabled),
    }
}

type Judged = Result<Result<UpdateOutcome, Notification>, Overrun>;

fn routes(found: Found<'_>, family: Family, findings: &mut UpdateFindings) -> Judged {
    let mut withdrawn = Vec::new();
    let mut end_of_rib = false;
    if let Some(octets) = found.unreach {
        match ours(octets, family) {
            None => return Ok(Err(Notification::new(3, 9))),
            Some(None) => findings.foreign_families += 1,
            Some(Some(nlri)) => {
                end_of_rib = nlri.is_empty() && found.reach.is_none();
                for route in mesh::decode_all(nlri, false, findings)? {
                    match route {
                        Nlri::Withdrawn(key) | Nlri::Announced(key, _) => withdrawn.push(key),
                    }
                }
            }
        }
    }
    if end_of_rib {
        return Ok(Ok(UpdateOutcome::EndOfRib));
    }
    let mut announced = Vec::new();
    let mut next_hop = None;
    if let Some(octets) = found.reach {
        match ours(octets, family) {
            None => return Ok(Err(Notification::new(3, 9))),
            Some(None) => findings.foreign_families += 1,
            Some(Some(rest)) => {
                let (hop, nlri) = reach(rest).ok_or(Overrun)?;
                next_hop = Some(hop);
                for route in mesh::decode_all(nlri, true, findings)? {
                    match route {
                        Nlri::Announced(key, value) => announced.push((key, value)),
                        Nlri::Withdrawn(key) => withdrawn.push(key),
                    }
                }
            }
        }
    }
    let usable = !found.withdraw && !announced.is_empty();
    let attributes = match next_hop {
        Some(next_hop) if usable => found.into_attributes(next_hop),
        _ => None,
    };
    if attributes.is_none() {
        findings.treated_as_withdrawn += announced.len() as u64;
        withdrawn.extend(announced.drain(..).map(|(key, _)| key));
    }
    if announced.is_empty() && withdrawn.is_empty() {
        return Ok(Ok(UpdateOutcome::Nothing));
    }
    Ok(Ok(UpdateOutcome::Routes(Update {
        attributes: attributes.map(Arc::new),
        announced,
        withdrawn,
    })))
}

/// `None`: no room for a family; `Some(None)`: another family; else what follows it.
fn ours(octets: &[u8], family: Family) -> Option<Option<&[u8]>> {
    let mut cursor = Cursor::new(octets);
    let is = Family {
        afi: cursor.u16()?,
        safi: cursor.u8()?,
    };
    Some((is == family).then_some(cursor.rest()))
}

/// Next hop and NLRI; a next hop that is not a node id hides where the NLRI starts
/// (RFC 7606 §7.11).
fn reach(octets: &[u8]) -> Option<(NodeId, &[u8])> {
    let mut cursor = Cursor::new(octets);
    if cursor.u8()? != 4 {
        return None;
    }
    let next_hop = NodeId(cursor.u32()?);
    let _reserved = cursor.u8()?;
    Some((next_hop, cursor.rest()))
}

/// Pack routes from the front of `routes` into one UPDATE; returns it and how many fitted, or
/// `None` if the attributes leave no room even for the first.
pub(crate) fn encode_announcement(
    family: Family,
    attributes: &Attributes,
    routes: &[(Key, Value)],
) -> Option<(Bytes, usize)> {
    let others = encode_attributes(attributes);
    // Two lengths of the UPDATE, head of MP_REACH, family, next hop, reserved.
    let fixed = HEADER + 4 + 4 + 3 + 5 + 1 + others.len();
    let mut nlri = Vec::new();
    let mut count = 0;
    for (key, value) in routes {
        if fixed + nlri.len() + mesh::encoded_len(key, Some(value)) > MAX_MESSAGE {
            break;
        }
        mesh::encode(key, Some(value), &mut nlri);
        count += 1;
    }
    if count == 0 {
        return None;
    }
    let mut reach = Vec::with_capacity(9 + nlri.len());
    reach.extend(family.afi.to_be_bytes());
    reach.extend([family.safi, 4]);
    reach.extend(attributes.next_hop.0.to_be_bytes());
    reach.push(0);
    reach.extend(nlri);
    let mut all = Vec::with_capacity(MAX_MESSAGE);
    put_long(&mut all, OPTIONAL, MP_REACH, &reach);
    all.extend(others);
    Some((update(&all), count))
}

/// Pack withdrawals from the front of `keys` into one UPDATE; returns it and how many fitted.
pub(crate) fn encode_withdrawal(family: Family, keys: &[Key]) -> (Bytes, usize) {
    let fixed = HEADER + 4 + 4 + 3;
    let mut unreach = Vec::new();
    unreach.extend(family.afi.to_be_bytes());
    unreach.push(family.safi);
    let mut count = 0;
    for key in keys {
        if fixed + unreach.len() - 3 + mesh::encoded_len(key, None) > MAX_MESSAGE {
            break;
        }
        mesh::encode(key, None, &mut unreach);
        count += 1;
    }
    let mut all = Vec::new();
    put_long(&mut all, OPTIONAL, MP_UNREACH, &unreach);
    (update(&all), count)
}

fn update(attributes: &[u8]) -> Bytes {
    let mut body = Vec::with_capacity(4 + attributes.len());
    body.extend([0, 0]);
    body.extend(len16(attributes.len()).to_be_bytes());
    body.extend_from_slice(attributes);
    message(MessageKind::Update, &body)
}

/// All attributes but `MP_REACH`, in order of their codes.
fn encode_attributes(a: &Attributes) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, TRANSITIVE, ORIGIN, &[a.origin as u8]);
    put(&mut out, TRANSITIVE, AS_PATH, &a.as_path);
    let mut rest: Vec<RawAttribute> = a.extra.clone();
    let mut own = |flags, code, value| rest.push(RawAttribute { flags, code, value });
    own(TRANSITIVE, LOCAL_PREF, a.local_pref.to_be_bytes().to_vec());
    if let Some(id) = a.originator {
        own(OPTIONAL, ORIGINATOR_ID, id.0.to_be_bytes().to_vec());
    }
    if !a.clusters.is_empty() {
        let ids = a
            .clusters
            .iter()
            .flat_map(|id| id.0.to_be_bytes())
            .collect();
        own(OPTIONAL, CLUSTER_LIST, ids);
    }
    let mut communities: Vec<[u8; 8]> = a.communities.clone();
    communities.extend(a.route_targets.iter().map(|rt| rt.to_community()));
    if !communities.is_empty() {
        communities.sort_unstable();
        own(
            OPTIONAL | TRANSITIVE,
            EXTENDED_COMMUNITIES,
            communities.concat(),
        );
    }
    rest.sort_by_key(|attribute| attribute.code);
    for attribute in rest {
        put(&mut out, attribute.flags, attribute.code, &attribute.value);
    }
    out
}

fn put(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    if value.len() > 255 {
        put_long(out, flags, code, value);
        return;
    }
    out.extend([flags, code, len8(value.len())]);
    out.extend_from_slice(value);
}

fn put_long(out: &mut Vec<u8>, flags: u8, code: u8, value: &[u8]) {
    out.extend([flags | EXTENDED, code]);
    out.extend(len16(value.len()).to_be_bytes());
    out.extend_from_slice(value);
}
