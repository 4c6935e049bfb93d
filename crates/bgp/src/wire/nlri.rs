//! NLRI of every family: split into canonical keys, checked, written, told to people.
//!
//! | family | key | value |
//! |---|---|---|
//! | unicast | bits, prefix | |
//! | VPN (RFC 4364, RFC 8277) | bits, RD (8), prefix | a label, 3 octets |
//! | RT constraint (RFC 4684) | bits, origin AS and route target | |
//! | FlowSpec (RFC 8955, RFC 8956) | RD (8) if VPN, components | |
//! | MESH | route type, key | value |
//!
//! Prefixes have their host bits cleared, so that equal routes have equal keys.

use std::fmt::Write as _;

use super::{Family, flowspec};
use crate::{
    cursor::{Cursor, len8, len16},
    mesh,
};

/// One route in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nlri<'a> {
    /// Its path id (RFC 7911); 0 without.
    pub path_id: u32,
    /// What it is about, canonical.
    pub key: &'a [u8],
    /// What travels beside the key.
    pub value: &'a [u8],
}

/// NLRI that were found good when they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Of this family.
    pub family: Family,
    /// With path ids.
    pub add_path: bool,
    /// As on the wire.
    pub octets: &'a [u8],
}

/// NLRI that cannot be split: where, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadNlri {
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
}

const RD: usize = 8;
const LABEL: usize = 3;
/// The longest key of a prefix: bits, RD, address.
const PREFIX_KEY: usize = 1 + RD + 16;

impl Section<'_> {
    /// Each route in turn; keys are lent. Routes whose key is bad though their frame is good
    /// (MESH) are left out. `reach`: they are announced.
    pub fn for_each(&self, reach: bool, mut f: impl FnMut(Nlri<'_>)) {
        let mut cursor = Cursor::new(self.octets);
        let mut mesh_key = Vec::new();
        while !cursor.is_empty() {
            let taken = one(
                self.family,
                self.add_path,
                reach,
                &mut cursor,
                &mut mesh_key,
                &mut f,
            );
            if taken.is_err() {
                return;
            }
        }
    }

    /// Are there no routes?
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }
}

/// Can all of it be split? Called once, when it comes.
pub(crate) fn check(section: &Section<'_>, reach: bool) -> Result<Checked, BadNlri> {
    let mut checked = Checked::default();
    let valued = reach && section.family == Family::MESH;
    let mut cursor = Cursor::new(section.octets);
    let mut mesh_key = Vec::new();
    while !cursor.is_empty() {
        let offset = section.octets.len() - cursor.rest().len();
        let bad = |what| BadNlri { offset, what };
        let count_one = &mut |route: Nlri<'_>| {
            let kind = route.key.first().copied().unwrap_or(0);
            let bad = valued && !mesh::bytes::value_fits(kind, route.value);
            checked.bad_values += u64::from(bad);
        };
        let good = one(
            section.family,
            section.add_path,
            reach,
            &mut cursor,
            &mut mesh_key,
            count_one,
        )
        .map_err(bad)?;
        checked.bad_keys += u64::from(!good);
    }
    Ok(checked)
}

/// What is wrong with single routes of a section that can be told apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// They are ignored.
    pub(crate) bad_keys: u64,
    /// They are treated as withdrawn.
    pub(crate) bad_values: u64,
}

/// One route; false if it can be told from the next, but its key is bad.
fn one(
    family: Family,
    add_path: bool,
    reach: bool,
    cursor: &mut Cursor<'_>,
    mesh_key: &mut Vec<u8>,
    f: &mut impl FnMut(Nlri<'_>),
) -> Result<bool, &'static str> {
    let path_id = if add_path {
        cursor.u32().ok_or("a path id that overruns")?
    } else {
        0
    };
    match (family.afi, family.safi) {
        (afi @ (1 | 2), 1) => {
            let most = if afi == 1 { 32 } else { 128 };
            let bits = cursor.u8().ok_or("no length")?;
            let mut key = [0; PREFIX_KEY];
            let length = prefix(bits, most, cursor, &mut key, 1)?;
            f(Nlri {
                path_id,
                key: &key[..length],
                value: &[],
            });
        }
        (afi @ (1 | 2), 128) => {
            let most = if afi == 1 { 32 } else { 128 };
            vpn(path_id, most, reach, cursor, f)?;
        }
        (1, 132) => {
            let bits = cursor.u8().ok_or("no length")?;
            if bits != 0 && !(32..=96).contains(&bits) {
                return Err("an RT-constraint prefix is 0 or 32 to 96 bits long");
            }
            let mut key = [0; PREFIX_KEY];
            let length = prefix(bits, 96, cursor, &mut key, 1)?;
            f(Nlri {
                path_id,
                key: &key[..length],
                value: &[],
            });
        }
        (afi @ (1 | 2), safi @ (133 | 134)) => {
            let key = flowspec::take(cursor)?;
            flowspec::check(key, afi == 2, safi == 134)?;
            f(Nlri {
                path_id,
                key,
                value: &[],
            });
        }
        _ if family == Family::MESH => {
            let kind = cursor.u8().ok_or("no route type")?;
            let key = cursor.u16().ok_or("no key length")?;
            let value = cursor.u8().ok_or("no value length")?;
            let octets = cursor.take(usize::from(key)).ok_or("a key that overruns")?;
            let value = cursor
                .take(usize::from(value))
                .ok_or("a value that overruns")?;
            mesh_key.clear();
            mesh_key.push(kind);
            mesh_key.extend_from_slice(octets);
            if !mesh::bytes::is_well_formed(mesh_key) {
                return Ok(false);
            }
            f(Nlri {
                path_id,
                key: mesh_key,
                value,
            });
        }
        _ => return Err("a family that is not spoken here"),
    }
    Ok(true)
}

/// `bits` of a prefix behind `at` octets of `key`, whose first octet becomes its length; returns
/// the key's length.
fn prefix(
    bits: u8,
    most: u8,
    cursor: &mut Cursor<'_>,
    key: &mut [u8; PREFIX_KEY],
    at: usize,
) -> Result<usize, &'static str> {
    if bits > most {
        return Err("a prefix longer than its address");
    }
    let octets = usize::from(bits).div_ceil(8);
    let given = cursor.take(octets).ok_or("a prefix that overruns")?;
    key[0] = bits;
    key[at..at + octets].copy_from_slice(given);
    let spare = (8 - bits % 8) % 8;
    if let Some(last) = key[at..at + octets].last_mut() {
        *last &= 0xFF << spare;
    }
    Ok(at + octets)
}

fn vpn(
    path_id: u32,
    most: u8,
    reach: bool,
    cursor: &mut Cursor<'_>,
    f: &mut impl FnMut(Nlri<'_>),
) -> Result<(), &'static str> {
    let bits = usize::from(cursor.u8().ok_or("no length")?);
    // RFC 8277 §2.2: one label, whatever its bottom-of-stack bit says, for nobody has agreed with
    // us on several; §2.4: and one field in a withdrawal, whatever is in it.
    let label = cursor.take(LABEL).ok_or("a label that overruns")?;
    let bits = bits
        .checked_sub(24)
        .ok_or("a length shorter than its label")?
        .checked_sub(64)
        .ok_or("a length shorter than its route distinguisher")?;
    let rd = cursor
        .take(RD)
        .ok_or("a route distinguisher that overruns")?;
    let mut key = [0; PREFIX_KEY];
    key[1..=RD].copy_from_slice(rd);
    let bits = u8::try_from(bits).unwrap_or(u8::MAX);
    let length = prefix(bits, most, cursor, &mut key, 1 + RD)?;
    let value = if reach { label } else { &[][..] };
    f(Nlri {
        path_id,
        key: &key[..length],
        value,
    });
    Ok(())
}

/// The octets one route takes.
#[must_use]
pub fn encoded_len(family: Family, add_path: bool, key: &[u8], value: &[u8]) -> usize {
    let id = if add_path { 4 } else { 0 };
    id + match family.safi {
        128 => key.len() + value.len().max(LABEL),
        133 | 134 if key.len() < 240 => 1 + key.len(),
        133 | 134 => 2 + key.len(),
        244 => 3 + key.len() + value.len(),
        _ => key.len(),
    }
}

/// Append one route. A VPN route without labels is a withdrawal and gets the field 0x800000
/// (RFC 8277 §2.4).
pub fn encode(family: Family, path_id: Option<u32>, key: &[u8], value: &[u8], out: &mut Vec<u8>) {
    if let Some(id) = path_id {
        out.extend(id.to_be_bytes());
    }
    match (family.safi, key) {
        (128, [bits, rest @ ..]) => {
            let labels = if value.is_empty() {
                &[0x80, 0, 0][..]
            } else {
                value
            };
            out.push(len8(usize::from(*bits) + 8 * labels.len() + 64));
            out.extend_from_slice(labels);
            out.extend_from_slice(rest);
        }
        (133 | 134, _) => {
            if key.len() < 240 {
                out.push(len8(key.len()));
            } else {
                out.extend((0xF000 | len16(key.len())).to_be_bytes());
            }
            out.extend_from_slice(key);
        }
        (244, [kind, rest @ ..]) => {
            out.push(*kind);
            out.extend(len16(rest.len()).to_be_bytes());
            out.push(len8(value.len()));
            out.extend_from_slice(rest);
            out.extend_from_slice(value);
        }
        _ => out.extend_from_slice(key),
    }
}

/// A key, for people.
#[must_use]
pub fn describe(family: Family, key: &[u8]) -> String {
    match (family.safi, key) {
        (1, [bits, rest @ ..]) => address(family.afi, *bits, rest),
        (128, [bits, rest @ ..]) if rest.len() >= RD => {
            let (rd, rest) = rest.split_at(RD);
            format!("{} {}", rd_text(rd), address(family.afi, *bits, rest))
        }
        (132, [0]) => "default".to_owned(),
        (132, [bits, rest @ ..]) => format!("{}/{bits}", hex(rest)),
        (134, _) if key.len() >= RD => {
            let (rd, rest) = key.split_at(RD);
            format!(
                "{} {}",
                rd_text(rd),
                flowspec::describe(rest, family.afi == 2)
            )
        }
        (133, _) => flowspec::describe(key, family.afi == 2),
        (244, [kind, rest @ ..]) => {
            mesh::Key::decode(*kind, rest).map_or_else(|_| hex(key), |key| key.to_string())
        }
        _ => hex(key),
    }
}

pub(super) fn address(afi: u16, bits: u8, prefix: &[u8]) -> String {
    if afi == 1 {
        let mut octets = [0; 4];
        let length = prefix.len().min(4);
        octets[..length].copy_from_slice(&prefix[..length]);
        return format!("{}/{bits}", std::net::Ipv4Addr::from(octets));
    }
    let mut octets = [0; 16];
    let length = prefix.len().min(16);
    octets[..length].copy_from_slice(&prefix[..length]);
    format!("{}/{bits}", std::net::Ipv6Addr::from(octets))
}

/// RFC 4364 §4.2: three types.
fn rd_text(rd: &[u8]) -> String {
    let [k0, k1, a, b, c, d, e, f] = *rd else {
        return hex(rd);
    };
    let low = u16::from_be_bytes([e, f]);
    match u16::from_be_bytes([k0, k1]) {
        0 => format!(
            "{}:{}",
            u16::from_be_bytes([a, b]),
            u32::from_be_bytes([c, d, e, f])
        ),
        1 => format!("{a}.{b}.{c}.{d}:{low}"),
        2 => format!("{}:{low}", u32::from_be_bytes([a, b, c, d])),
        _ => hex(rd),
    }
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}

/// `10.0.0.0/8` or `2001:db8::/32` as family and canonical key.
#[must_use]
pub fn parse_prefix(text: &str) -> Option<(Family, Vec<u8>)> {
    let (address, bits) = text.split_once('/')?;
    let bits: u8 = bits.parse().ok()?;
    let (family, most, octets) = match address.parse().ok()? {
        std::net::IpAddr::V4(address) => (Family::IPV4, 32, address.octets().to_vec()),
        std::net::IpAddr::V6(address) => (Family::IPV6, 128, address.octets().to_vec()),
    };
    let mut key = [0; PREFIX_KEY];
    let length = prefix(bits, most, &mut Cursor::new(&octets), &mut key, 1).ok()?;
    Some((family, key[..length].to_vec()))
}
