//! What actions do.

use std::net::IpAddr;

use super::{
    Action, Communities, Community, CommunitySet, Context, Med, NextHop, Prepended,
    path::AS_SEQUENCE,
    working::{Working, code},
};
use crate::wire::Family;

impl Action {
    pub(super) fn apply(&self, family: Family, context: &Context<'_>, working: &mut Working<'_>) {
        match self {
            Action::LocalPref(preference) => {
                working.set(code::LOCAL_PREF, Some(preference.to_be_bytes().to_vec()));
            }
            Action::Med(med) => {
                let med = med.of(working.number(code::MED));
                working.set(code::MED, med.map(|med| med.to_be_bytes().to_vec()));
            }
            Action::Origin(origin) => working.set(code::ORIGIN, Some(vec![*origin as u8])),
            Action::AddCommunities(communities) => communities.add_to(working),
            Action::RemoveCommunities(set) => remove(set, working),
            Action::ReplaceCommunities(communities) => {
                working.set(communities.code(), None);
                communities.add_to(working);
            }
            Action::Prepend { asn, times } => {
                let asn = match asn {
                    Prepended::Own => context.own_asn,
                    Prepended::Asn(asn) => asn.get(),
                };
                let path = working.get(code::AS_PATH).unwrap_or_default();
                let path = prepended(path, asn, *times);
                working.set(code::AS_PATH, Some(path));
            }
            Action::NextHop(next_hop) => {
                if let Some(octets) = next_hop.octets(family, context) {
                    working.set(code::NEXT_HOP, Some(octets));
                }
            }
        }
    }
}

impl Med {
    fn of(self, before: Option<u32>) -> Option<u32> {
        match self {
            Med::Set(med) => Some(med),
            Med::Remove => None,
            Med::Add(by) => {
                let sum = i64::from(before.unwrap_or(0)).saturating_add(by);
                Some(u32::try_from(sum.max(0)).unwrap_or(u32::MAX))
            }
        }
    }
}

impl Communities {
    const fn code(&self) -> u8 {
        match self {
            Communities::Standard(_) => code::COMMUNITIES,
            Communities::Extended(_) => code::EXTENDED_COMMUNITIES,
            Communities::Large(_) => code::LARGE_COMMUNITIES,
        }
    }

    fn add_to(&self, working: &mut Working<'_>) {
        match self {
            Communities::Standard(list) => {
                add(self.code(), list.iter().map(|c| c.0.to_be_bytes()), working);
            }
            Communities::Extended(list) => add(self.code(), list.iter().map(|c| c.0), working),
            Communities::Large(list) => {
                add(self.code(), list.iter().map(|c| c.octets()), working);
            }
        }
    }
}

/// Writes canonical attributes with one community more behind `out`.
pub(crate) fn add_community(attributes: &[u8], community: Community, out: &mut Vec<u8>) {
    let mut working = Working::new(attributes);
    Communities::Standard(vec![community]).add_to(&mut working);
    let start = out.len();
    if working.write(out).is_none() {
        // 16,383 communities leave no room for another.
        out.truncate(start);
        out.extend_from_slice(attributes);
    }
}

/// Appends what is not there.
fn add<const N: usize>(
    code: u8,
    communities: impl Iterator<Item = [u8; N]>,
    working: &mut Working<'_>,
) {
    let mut value = working.get(code).unwrap_or_default().to_vec();
    let before = value.len();
    for community in communities {
        if !value.as_chunks::<N>().0.contains(&community) {
            value.extend(community);
        }
    }
    if value.len() > before {
        working.set(code, Some(value));
    }
}

fn remove(set: &CommunitySet, working: &mut Working<'_>) {
    let Some(value) = working.get(set.code()) else {
        return;
    };
    let each = value.chunks(set.size());
    let kept: Vec<u8> = each
        .filter(|community| !set.contains(community))
        .flatten()
        .copied()
        .collect();
    if kept.len() < value.len() {
        working.set(set.code(), (!kept.is_empty()).then_some(kept));
    }
}

/// `asn` put `times` times before a path: into its first segment if that is a sequence with room,
/// else as a segment of its own (RFC 4271 §5.1.2).
fn prepended(path: &[u8], asn: u32, times: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len() + 2 + 4 * usize::from(times));
    let joined = match path {
        [AS_SEQUENCE, count, ..] => count.checked_add(times),
        _ => None,
    };
    let (count, rest) = match joined {
        Some(count) => (count, path.get(2..).unwrap_or_default()),
        None => (times, path),
    };
    if count > 0 {
        out.extend([AS_SEQUENCE, count]);
    }
    for _ in 0..times {
        out.extend(asn.to_be_bytes());
    }
    out.extend_from_slice(rest);
    out
}

impl NextHop {
    /// The canonical next hop to write, if there is something to write.
    fn octets(self, family: Family, context: &Context<'_>) -> Option<Vec<u8>> {
        let address = match self {
            NextHop::Unchanged => return None,
            NextHop::Own => {
                return (!context.own_next_hop.is_empty()).then(|| context.own_next_hop.to_vec());
            }
            NextHop::Address(address) => address,
        };
        let mut octets = match family.safi {
            133 | 134 => return None,
            // A route distinguisher of 0 goes before (RFC 4364 §4.3.2, RFC 4659 §3.2.1).
            128 => vec![0; 8],
            _ => vec![],
        };
        match address {
            IpAddr::V4(ip) if family.afi == 2 => octets.extend(ip.to_ipv6_mapped().octets()),
            IpAddr::V4(ip) => octets.extend(ip.octets()),
            IpAddr::V6(_) if family == Family::MESH => return None,
            IpAddr::V6(ip) => octets.extend(ip.octets()),
        }
        Some(octets)
    }
}
