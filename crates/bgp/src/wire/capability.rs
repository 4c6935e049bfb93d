//! OPEN with every capability we speak (RFC 4271 §4.2, RFC 5492, RFC 9072).

use base::NodeId;
use bytes::Bytes;

use super::{Family, MessageKind, Notification, message};
use crate::cursor::{Cursor, len8, len16};

/// In place of an AS number that needs four octets (RFC 6793).
const AS_TRANS: u16 = 23456;
const CAPABILITIES: u8 = 2;
/// RFC 9072 §2: lengths of two octets follow.
const EXTENDED: u8 = 255;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const EXTENDED_MESSAGE: u8 = 6;
const ROLE: u8 = 9;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;
const ADD_PATH: u8 = 69;
const ENHANCED_REFRESH: u8 = 70;
const LONG_LIVED: u8 = 71;
const SOFTWARE: u8 = 75;

/// Most families that are kept.
const MAX_FAMILIES: usize = 64;
/// Most entries of a capability that are kept, and written: so many fit into one.
const MAX_ADD_PATH: usize = 255 / 4;
const MAX_NEXT_HOPS: usize = 255 / 6;
const MAX_RESTART: usize = (255 - 2) / 4;
const MAX_LONG_LIVED: usize = 255 / 7;
/// The longest name of software, in octets (draft-ietf-idr-bgp-software-version).
const MAX_SOFTWARE: usize = 64;

/// What one side says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenMessage {
    /// The AS number: from the 4-octet capability where there is one, else from My AS.
    pub asn: u32,
    /// Hold time in seconds; 0 for none.
    pub hold_time_s: u16,
    /// The BGP Identifier.
    pub node: NodeId,
    /// What it can.
    pub capabilities: Capabilities,
}

/// What one side can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Families (RFC 4760 §8).
    pub families: Vec<Family>,
    /// ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// ROUTE-REFRESH with beginning and end (RFC 7313).
    pub enhanced_refresh: bool,
    /// Messages of up to 65535 octets (RFC 8654).
    pub extended_message: bool,
    /// AS numbers of 4 octets, and its own (RFC 6793).
    pub four_octet_as: Option<u32>,
    /// Several paths of a route (RFC 7911).
    pub add_path: Vec<(Family, AddPath)>,
    /// Families whose next hop may be of another AFI (RFC 8950).
    pub extended_next_hop: Vec<(Family, u16)>,
    /// Routes may be kept over a restart (RFC 4724).
    pub graceful_restart: Option<GracefulRestart>,
    /// Long-lived graceful restart (RFC 9494): families whose routes may be kept for a long time,
    /// whether forwarding went on, and for how many seconds, 24 bits. Whoever sends the
    /// capability, even without a family, knows what a long-lived stale route is.
    pub long_lived: Option<Vec<(Family, bool, u32)>>,
    /// The business of the session (RFC 9234).
    pub role: Option<u8>,
    /// What its software calls itself (draft-ietf-idr-bgp-software-version).
    pub software: Option<String>,
}

impl Capabilities {
    /// The last that is said of a family counts (RFC 7911 §4).
    fn set_add_path(&mut self, family: Family, ways: AddPath) {
        if let Some(known) = self.add_path.iter_mut().find(|known| known.0 == family) {
            known.1 = ways;
        } else if self.add_path.len() < MAX_ADD_PATH {
            self.add_path.push((family, ways));
        }
    }
}

/// Which way several paths go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddPath {
    /// It can receive them.
    receive: bool,
    /// It can send them.
    send: bool,
}

impl AddPath {
    /// Both ways.
    #[must_use]
    pub const fn of(send: bool, receive: bool) -> Self {
        AddPath { receive, send }
    }

    /// It can send them.
    #[must_use]
    pub const fn sends(self) -> bool {
        self.send
    }

    /// It can receive them.
    #[must_use]
    pub const fn receives(self) -> bool {
        self.receive
    }
}

/// RFC 4724 §3, with the bit of RFC 8538 §2.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// It has just restarted.
    pub restarting: bool,
    /// A NOTIFICATION does not end graceful restart, unless it says so.
    pub notification: bool,
    /// How long to wait for it, in seconds; 12 bits.
    pub time_s: u16,
    /// Families, and whether forwarding went on.
    pub families: Vec<(Family, bool)>,
}

impl OpenMessage {
    /// Read the body of an OPEN. Capabilities that we do not know are ignored, and so are those
    /// of a wrong length (RFC 5492 §3).
    ///
    /// # Errors
    /// The NOTIFICATION of RFC 4271 §6.2 for what is malformed in itself, and of RFC 9234 §4.2 for
    /// two roles.
    pub fn decode(body: &[u8]) -> Result<OpenMessage, Notification> {
        let unspecific = || Notification::new(2, 0);
        let mut c = Cursor::new(body);
        if c.u8().ok_or_else(unspecific)? != 4 {
            return Err(Notification::with_data(2, 1, &[0, 4]));
        }
        let mut open = OpenMessage {
            asn: u32::from(c.u16().ok_or_else(unspecific)?),
            hold_time_s: c.u16().ok_or_else(unspecific)?,
            node: NodeId(c.u32().ok_or_else(unspecific)?),
            capabilities: Capabilities::default(),
        };
        let mut length = usize::from(c.u8().ok_or_else(unspecific)?);
        let wide = length > 0 && c.rest().first() == Some(&EXTENDED);
        if wide {
            c.u8().ok_or_else(unspecific)?;
            length = usize::from(c.u16().ok_or_else(unspecific)?);
        }
        let mut parameters = Cursor::new(c.take(length).ok_or_else(unspecific)?);
        if !c.is_empty() {
            return Err(unspecific());
        }
        while !parameters.is_empty() {
            let kind = parameters.u8().ok_or_else(unspecific)?;
            let length = if wide {
                parameters.u16()
            } else {
                parameters.u8().map(u16::from)
            };
            let length = usize::from(length.ok_or_else(unspecific)?);
            let value = parameters.take(length).ok_or_else(unspecific)?;
            if kind != CAPABILITIES {
                return Err(Notification::new(2, 4));
            }
            let mut all = Cursor::new(value);
            while !all.is_empty() {
                let code = all.u8().ok_or_else(unspecific)?;
                let length = usize::from(all.u8().ok_or_else(unspecific)?);
                let value = all.take(length).ok_or_else(unspecific)?;
                let role = open.capabilities.role;
                if code == ROLE && role.is_some_and(|role| value.len() == 1 && [role] != value) {
                    return Err(Notification::new(2, 11));
                }
                open.capability(code, value);
            }
        }
        Ok(open)
    }

    fn capability(&mut self, code: u8, value: &[u8]) {
        let can = &mut self.capabilities;
        match (code, value) {
            (MULTIPROTOCOL, &[a, b, _, safi]) if can.families.len() < MAX_FAMILIES => {
                let family = Family::new(u16::from_be_bytes([a, b]), safi);
                if !can.families.contains(&family) {
                    can.families.push(family);
                }
            }
            (ROUTE_REFRESH, []) => can.route_refresh = true,
            (ENHANCED_REFRESH, []) => can.enhanced_refresh = true,
            (EXTENDED_MESSAGE, []) => can.extended_message = true,
            (ROLE, &[role]) => can.role = Some(role),
            (FOUR_OCTET_AS, &[a, b, c, d]) => {
                self.asn = u32::from_be_bytes([a, b, c, d]);
                can.four_octet_as = Some(self.asn);
            }
            (EXTENDED_NEXT_HOP, _) => {
                let (all, _) = value.as_chunks::<6>();
                for &[a, b, _, safi, n0, n1] in all {
                    let family = Family::new(u16::from_be_bytes([a, b]), safi);
                    let pair = (family, u16::from_be_bytes([n0, n1]));
                    let known = can.extended_next_hop.contains(&pair);
                    if !known && can.extended_next_hop.len() < MAX_NEXT_HOPS {
                        can.extended_next_hop.push(pair);
                    }
                }
            }
            (ADD_PATH, _) => {
                let (all, _) = value.as_chunks::<4>();
                for &[a, b, safi, ways] in all {
                    // RFC 7911 §4: other numbers are ignored.
                    if (1..=3).contains(&ways) {
                        let family = Family::new(u16::from_be_bytes([a, b]), safi);
                        can.set_add_path(family, AddPath::of(ways & 2 != 0, ways & 1 != 0));
                    }
                }
            }
            (GRACEFUL_RESTART, [a, b, rest @ ..]) => {
                let (all, _) = rest.as_chunks::<4>();
                let families = all.iter().take(MAX_RESTART).map(|&[a, b, safi, flags]| {
                    let family = Family::new(u16::from_be_bytes([a, b]), safi);
                    (family, flags & 0x80 != 0)
                });
                can.graceful_restart = Some(GracefulRestart {
                    restarting: a & 0x80 != 0,
                    notification: a & 0x40 != 0,
                    time_s: u16::from_be_bytes([a & 0x0F, *b]),
                    families: families.collect(),
                });
            }
            (LONG_LIVED, _) => {
                let (all, _) = value.as_chunks::<7>();
                let known = can.long_lived.insert(Vec::new());
                for &[a, b, safi, flags, x, y, z] in all.iter().take(MAX_LONG_LIVED) {
                    let family = Family::new(u16::from_be_bytes([a, b]), safi);
                    let seconds = u32::from_be_bytes([0, x, y, z]);
                    known.push((family, flags & 0x80 != 0, seconds));
                }
            }
            (SOFTWARE, [length, text @ ..]) => {
                let text = text.get(..usize::from(*length)).unwrap_or(text);
                let text = String::from_utf8_lossy(text);
                let mut text: String = text.chars().filter(|c| !c.is_control()).collect();
                text.truncate(text.floor_char_boundary(MAX_SOFTWARE));
                can.software = Some(text);
            }
            _ => {}
        }
    }

    /// The whole message; of each list what fits into one capability: 63 families with several
    /// paths, 42 next hops, 63 families of graceful restart, 36 long-lived ones, 64 octets of
    /// software. Capabilities that need more than 255 octets go the way of RFC 9072.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let capabilities = self.encode_capabilities();
        let mut body = vec![4];
        body.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
        body.extend(self.hold_time_s.to_be_bytes());
        body.extend(self.node.0.to_be_bytes());
        if capabilities.is_empty() {
            body.push(0);
        } else if capabilities.len() <= 253 {
            body.push(len8(capabilities.len() + 2));
            body.extend([CAPABILITIES, len8(capabilities.len())]);
        } else {
            body.extend([EXTENDED, EXTENDED]);
            body.extend(len16(capabilities.len() + 3).to_be_bytes());
            body.push(CAPABILITIES);
            body.extend(len16(capabilities.len()).to_be_bytes());
        }
        body.extend(capabilities);
        message(MessageKind::Open, &body)
    }

    fn encode_capabilities(&self) -> Vec<u8> {
        let can = &self.capabilities;
        let mut out = Vec::new();
        let mut put = |code: u8, value: &[u8]| {
            out.extend([code, len8(value.len())]);
            out.extend_from_slice(value);
        };
        for family in &can.families {
            let [a, b] = family.afi.to_be_bytes();
            put(MULTIPROTOCOL, &[a, b, 0, family.safi]);
        }
        for (given, code) in [
            (can.route_refresh, ROUTE_REFRESH),
            (can.extended_message, EXTENDED_MESSAGE),
            (can.enhanced_refresh, ENHANCED_REFRESH),
        ] {
            if given {
                put(code, &[]);
            }
        }
        if let Some(asn) = can.four_octet_as {
            put(FOUR_OCTET_AS, &asn.to_be_bytes());
        }
        if let Some(role) = can.role {
            put(ROLE, &[role]);
        }
        let four = |family: &Family, last: u8| {
            let [a, b] = family.afi.to_be_bytes();
            [a, b, family.safi, last]
        };
        if !can.add_path.is_empty() {
            let all = can.add_path.iter().take(MAX_ADD_PATH);
            let all =
                all.map(|(f, ways)| four(f, u8::from(ways.receive) | u8::from(ways.send) << 1));
            put(ADD_PATH, all.collect::<Vec<_>>().as_flattened());
        }
        if !can.extended_next_hop.is_empty() {
            let all = can
                .extended_next_hop
                .iter()
                .take(MAX_NEXT_HOPS)
                .map(|(family, next_hop)| {
                    let ([a, b], [c, d]) = (family.afi.to_be_bytes(), next_hop.to_be_bytes());
                    [a, b, 0, family.safi, c, d]
                });
            put(EXTENDED_NEXT_HOP, all.collect::<Vec<_>>().as_flattened());
        }
        if let Some(restart) = &can.graceful_restart {
            let flags = u16::from(restart.restarting) << 15 | u16::from(restart.notification) << 14;
            let mut value = (flags | restart.time_s.min(0x0FFF)).to_be_bytes().to_vec();
            for (family, forwarding) in restart.families.iter().take(MAX_RESTART) {
                value.extend(four(family, u8::from(*forwarding) << 7));
            }
            put(GRACEFUL_RESTART, &value);
        }
        if let Some(long_lived) = &can.long_lived {
            let all = long_lived.iter().take(MAX_LONG_LIVED);
            let all = all.map(|(family, forwarding, stale_s)| {
                let [_, x, y, z] = stale_s.to_be_bytes();
                let [a, b, safi, flags] = four(family, u8::from(*forwarding) << 7);
                [a, b, safi, flags, x, y, z]
            });
            put(LONG_LIVED, all.collect::<Vec<_>>().as_flattened());
        }
        if let Some(software) = &can.software {
            let text = &software.as_bytes()[..software.floor_char_boundary(MAX_SOFTWARE)];
            put(SOFTWARE, &[&[len8(text.len())], text].concat());
        }
        out
    }
}
