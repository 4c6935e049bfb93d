//! Just enough encoding: OPEN, KEEPALIVE, and the UPDATEs of a made-up table.
//!
//! Route `index` of a table has one NLRI, and [`index()`] finds the number again in what a daemon
//! sends. Routes of one set share their attributes.

use std::{net::Ipv4Addr, ops::Range};

/// KEEPALIVE.
pub(crate) const KEEPALIVE: [u8; HEADER] = {
    let mut message = [0xff; HEADER];
    message[16] = 0;
    message[17] = 19;
    message[18] = 4;
    message
};

/// Marker, length and type (RFC 4271 §4.1).
pub(crate) const HEADER: usize = 19;

/// The longest message without RFC 8654.
const MESSAGE: usize = 4096;

/// An AS of the fabric and of every internal session.
pub(crate) const ASN: u32 = 4_200_000_000;

/// Routes of one VRF.
const VRF: u32 = 5_000;

/// Endpoints of one tenant at one site.
const SITE: u32 = 1_000;

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// IPv4 unicast: consecutive /24.
    Ipv4,
    /// VPN-IPv4 (RFC 4364): the same /24s again in every VRF.
    Vpnv4,
    /// Endpoint routes of the MESH family.
    Mesh,
    /// Route-target constraint (RFC 4684); only the default is ever sent.
    Rtc,
}

impl Family {
    /// AFI and SAFI.
    pub(crate) fn code(self) -> (u16, u8) {
        match self {
            Family::Ipv4 => (1, 1),
            Family::Vpnv4 => (1, 128),
            Family::Mesh => (16397, 244),
            Family::Rtc => (1, 132),
        }
    }

    pub(crate) fn from_code(code: (u16, u8)) -> Option<Family> {
        let all = [Family::Ipv4, Family::Vpnv4, Family::Mesh, Family::Rtc];
        all.into_iter().find(|family| family.code() == code)
    }

    /// Routes that share one attribute set.
    fn set(self) -> u32 {
        match self {
            Family::Ipv4 | Family::Vpnv4 => 5,
            Family::Mesh => SITE,
            Family::Rtc => 1,
        }
    }
}

/// Who announces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin {
    pub(crate) asn: u32,
    pub(crate) address: Ipv4Addr,
}

impl Origin {
    fn internal(self) -> bool {
        self.asn == ASN
    }
}

/// OPEN with 4-octet AS numbers (RFC 6793) and the families (RFC 4760).
pub(crate) fn open(origin: Origin, families: &[Family]) -> Vec<u8> {
    let mut capabilities = Vec::new();
    for family in families {
        let (afi, safi) = family.code();
        let [high, low] = afi.to_be_bytes();
        capabilities.extend([1, 4, high, low, 0, safi]);
    }
    capabilities.extend([65, 4]);
    capabilities.extend(origin.asn.to_be_bytes());
    let mut out = Vec::new();
    message(&mut out, 1, |out| {
        out.push(4);
        let old = u16::try_from(origin.asn).unwrap_or(23456);
        out.extend(old.to_be_bytes());
        out.extend(900_u16.to_be_bytes());
        out.extend(origin.address.octets());
        let length = octet(capabilities.len());
        out.extend([length + 2, 2, length]);
        out.extend(&capabilities);
    });
    out
}

/// End-of-RIB (RFC 4724 §2).
pub(crate) fn end_of_rib(family: Family, out: &mut Vec<u8>) {
    message(out, 2, |out| {
        out.extend([0, 0]);
        sized(out, |out| {
            if family != Family::Ipv4 {
                multiprotocol(out, 15, family, |_| {});
            }
        });
    });
}

/// UPDATEs that announce the routes; another `variant` has other attributes.
pub(crate) fn announce(
    origin: Origin,
    family: Family,
    routes: Range<u32>,
    variant: u32,
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = routes.start;
    while next < routes.end {
        let set = next / family.set();
        let end = routes.end.min((set + 1) * family.set());
        let start = out.len();
        message(&mut out, 2, |out| {
            out.extend([0, 0]);
            let room = |out: &Vec<u8>| out.len() - start + 96 < MESSAGE;
            let mut fill = |out: &mut Vec<u8>| {
                while next < end && room(out) {
                    nlri(out, family, next, true);
                    next += 1;
                }
            };
            if family == Family::Ipv4 {
                sized(out, |out| {
                    attributes(out, origin, family, set, variant);
                });
                fill(out);
            } else {
                sized(out, |out| {
                    attribute(out, 0x90, 14, |out| {
                        let (afi, safi) = family.code();
                        out.extend(afi.to_be_bytes());
                        out.push(safi);
                        let vpn = family == Family::Vpnv4;
                        out.push(if vpn { 12 } else { 4 });
                        out.extend([0; 8].iter().take(if vpn { 8 } else { 0 }));
                        out.extend(origin.address.octets());
                        out.push(0);
                        fill(out);
                    });
                    attributes(out, origin, family, set, variant);
                });
            }
        });
    }
    out
}

/// UPDATEs that withdraw the routes, as many in one as fit.
pub(crate) fn withdraw(family: Family, routes: Range<u32>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut next = routes.start;
    while next < routes.end {
        let start = out.len();
        message(&mut out, 2, |out| {
            let mut fill = |out: &mut Vec<u8>| {
                while next < routes.end && out.len() - start + 48 < MESSAGE {
                    nlri(out, family, next, false);
                    next += 1;
                }
            };
            if family == Family::Ipv4 {
                sized(out, fill);
                out.extend([0, 0]);
            } else {
                out.extend([0, 0]);
                sized(out, |out| multiprotocol(out, 15, family, &mut fill));
            }
        });
    }
    out
}

fn multiprotocol(out: &mut Vec<u8>, code: u8, family: Family, fill: impl FnOnce(&mut Vec<u8>)) {
    attribute(out, 0x90, code, |out| {
        let (afi, safi) = family.code();
        out.extend(afi.to_be_bytes());
        out.push(safi);
        fill(out);
    });
}

/// All but MP_REACH_NLRI, in the order of their codes.
fn attributes(out: &mut Vec<u8>, origin: Origin, family: Family, set: u32, variant: u32) {
    attribute(out, 0x40, 1, |out| out.push(0));
    attribute(out, 0x40, 2, |out| {
        let hops = [
            origin.asn,
            100_000 + set % 1_000,
            200_000 + set % 7_919,
            300_000 + set,
        ];
        let hops = match (family, origin.internal()) {
            (Family::Mesh | Family::Rtc, _) => &[],
            (Family::Ipv4 | Family::Vpnv4, true) => &hops[1..],
            (Family::Ipv4 | Family::Vpnv4, false) => &hops[..],
        };
        if !hops.is_empty() {
            out.extend([2, octet(hops.len())]);
            out.extend(hops.iter().flat_map(|hop| hop.to_be_bytes()));
        }
    });
    if family == Family::Ipv4 {
        attribute(out, 0x40, 3, |out| out.extend(origin.address.octets()));
    }
    attribute(out, 0x80, 4, |out| out.extend(variant.to_be_bytes()));
    if origin.internal() {
        attribute(out, 0x40, 5, |out| out.extend(100_u32.to_be_bytes()));
    }
    match family {
        Family::Ipv4 | Family::Vpnv4 => attribute(out, 0xc0, 8, |out| {
            let communities = [0xfc00_0000 + set % 50, 0xfc01_0000 + set % 1_000, set];
            out.extend(
                communities
                    .iter()
                    .flat_map(|community| community.to_be_bytes()),
            );
        }),
        Family::Mesh | Family::Rtc => {}
    }
    match family {
        Family::Vpnv4 => attribute(out, 0xc0, 16, |out| {
            out.extend([0, 2, 0xfc, 0x00]);
            out.extend((set * family.set() / VRF).to_be_bytes());
        }),
        Family::Mesh => attribute(out, 0xc0, 16, |out| {
            out.extend([1, 2]);
            out.extend(tenant(set).to_be_bytes());
            out.extend(2_u16.to_be_bytes());
        }),
        Family::Ipv4 | Family::Rtc => {}
    }
}

/// Tenants and sites of MESH: ten sites each.
fn tenant(set: u32) -> u32 {
    set / 10 + 1
}

fn site(set: u32) -> u32 {
    set % 10 + 1
}

/// Route `index`; a withdrawal has no label and no value.
fn nlri(out: &mut Vec<u8>, family: Family, index: u32, reach: bool) {
    match family {
        Family::Ipv4 => {
            let [a, b, c, _] = (0x1000_0000 + (index << 8)).to_be_bytes();
            out.extend([24, a, b, c]);
        }
        Family::Vpnv4 => {
            let label = ((16 + index / family.set() % 1_000) << 4) | 1;
            let [_, l1, l2, l3] = if reach { label } else { 0x80_0000 }.to_be_bytes();
            out.extend([112, l1, l2, l3, 0, 0, 0xfc, 0]);
            out.extend((index / VRF).to_be_bytes());
            let [a, b, c, _] = (0x0a00_0000 + ((index % VRF) << 8)).to_be_bytes();
            out.extend([a, b, c]);
        }
        Family::Mesh => {
            let set = index / SITE;
            let [_, _, slot @ ..] = tenant(set).to_be_bytes();
            out.extend([3, 0, 30, if reach { 12 } else { 0 }, 0, 1]);
            out.extend(site(set).to_be_bytes());
            out.extend(slot);
            out.extend((0x1234_5678_0000_0000_u64 + u64::from(index / 10)).to_be_bytes());
            out.extend(site(set).to_be_bytes());
            out.extend([0x80, 1, 4]);
            out.extend((0x0a00_0000 + index).to_be_bytes());
            out.extend([0x1f, 0x90, 6]);
            if reach {
                out.extend([0x10, 0, 100, 8, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 1]);
            }
        }
        Family::Rtc => out.push(0),
    }
}

/// The number of the route at the front, and how long its NLRI is; nothing if it overruns. A
/// route that is none of ours has the number `u32::MAX`.
pub(crate) fn index(family: Family, octets: &[u8]) -> Option<(u32, usize)> {
    let first = usize::from(*octets.first()?);
    let length = match family {
        Family::Ipv4 | Family::Vpnv4 | Family::Rtc => 1 + first.div_ceil(8),
        Family::Mesh => {
            let key = u16::from_be_bytes([*octets.get(1)?, *octets.get(2)?]);
            4 + usize::from(key) + usize::from(*octets.get(3)?)
        }
    };
    let nlri = octets.get(..length)?;
    let word = |at: usize| {
        let mut word = [0; 4];
        for (to, from) in word.iter_mut().zip(nlri.get(at..).unwrap_or_default()) {
            *to = *from;
        }
        u32::from_be_bytes(word)
    };
    let number = match (family, length) {
        (Family::Ipv4, 4) => word(1).wrapping_sub(0x1000_0000) >> 8,
        (Family::Vpnv4, 15) => word(8)
            .wrapping_mul(VRF)
            .wrapping_add(word(12).wrapping_sub(0x0a00_0000) >> 8),
        (Family::Mesh, 34 | 46) => word(27).wrapping_sub(0x0a00_0000),
        _ => u32::MAX,
    };
    Some((number, length))
}

fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0xff; 16]);
    out.extend([0, 0, kind]);
    body(out);
    let length = out.len() - start;
    patch(out, start + 16, length);
}

fn attribute(out: &mut Vec<u8>, flags: u8, code: u8, value: impl FnOnce(&mut Vec<u8>)) {
    out.extend([flags, code]);
    if flags & 0x10 == 0 {
        let at = out.len();
        out.push(0);
        value(out);
        out[at] = octet(out.len() - at - 1);
    } else {
        sized(out, value);
    }
}

/// Two octets of length, then the content.
fn sized(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend([0, 0]);
    content(out);
    let length = out.len() - at - 2;
    patch(out, at, length);
}

fn patch(out: &mut [u8], at: usize, length: usize) {
    let length = u16::try_from(length).expect("messages are at most 4096 octets");
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn octet(length: usize) -> u8 {
    u8::try_from(length).expect("short attributes are at most 255 octets")
}

#[cfg(test)]
mod tests;
