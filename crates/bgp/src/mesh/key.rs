//! Keys: what a route is about.

use std::{fmt, net::IpAddr, sync::Arc};

use base::{NetworkId, ServiceId, SiteId, SlotId};

use super::{MAX_KEY, RD_LEN};
use crate::cursor::{Cursor, len8};

/// A route distinguisher of type 1 (RFC 4364 §4.2): site (4) and slot (2). Two sites never
/// compete for one NLRI, two networks of one tenant never collide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rd {
    /// The site that speaks.
    pub site: SiteId,
    /// Which of its (tenant, network) it speaks for; 0 for the owner's application facts.
    pub slot: SlotId,
}

impl Rd {
    const TYPE: u16 = 1;

    fn decode(cursor: &mut Cursor<'_>) -> Result<Self, KeyError> {
        let kind = cursor.u16().ok_or(KeyError::Short)?;
        if kind != Self::TYPE {
            return Err(KeyError::RdType(kind));
        }
        Ok(Rd {
            site: SiteId(cursor.u32().ok_or(KeyError::Short)?),
            slot: SlotId(cursor.u16().ok_or(KeyError::Short)?),
        })
    }

    fn encode(self, out: &mut Vec<u8>) {
        out.extend(Self::TYPE.to_be_bytes());
        out.extend(self.site.0.to_be_bytes());
        out.extend(self.slot.0.to_be_bytes());
    }
}

impl fmt::Display for Rd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.site, self.slot)
    }
}

/// The identity of a MESH route. Ordered and hashable; two keys are the same route if and only if
/// their octets are the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Type 1: a site as a whole.
    Site {
        /// Who speaks.
        rd: Rd,
        /// The site the route is about.
        site: SiteId,
    },
    /// Type 3: one endpoint of one service in one site.
    Endpoint {
        /// Who speaks.
        rd: Rd,
        /// The service.
        service: ServiceId,
        /// The site the endpoint lives in.
        site: SiteId,
        /// The network inside that site's tenant; 0 is the site's default network.
        network: NetworkId,
        /// The endpoint's address inside that network.
        address: IpAddr,
        /// Its port.
        port: u16,
        /// Its IP protocol number (6 TCP, 17 UDP).
        protocol: u8,
    },
    /// A type this node does not know; reflected unread.
    Unknown {
        /// Who speaks.
        rd: Rd,
        /// The route type.
        kind: u8,
        /// What follows the RD; at most 504 octets.
        body: Arc<[u8]>,
    },
}

/// Why octets are not a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Ends before its last field.
    #[error("the key ends before its last field")]
    Short,
    /// Octets after the last field, or more than 512 in all.
    #[error("the key is longer than its type says")]
    Long,
    /// A route distinguisher of another type than 1.
    #[error("route distinguisher type {0} instead of 1")]
    RdType(u16),
    /// An address that is neither 4 nor 16 octets long.
    #[error("an address of {0} octets")]
    AddressLength(u8),
}

impl Key {
    /// Route type 1.
    pub const SITE: u8 = 1;
    /// Route type 3.
    pub const ENDPOINT: u8 = 3;

    /// The route type's number.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Key::Site { .. } => Self::SITE,
            Key::Endpoint { .. } => Self::ENDPOINT,
            Key::Unknown { kind, .. } => *kind,
        }
    }

    /// The route distinguisher.
    #[must_use]
    pub const fn rd(&self) -> Rd {
        match self {
            Key::Site { rd, .. } | Key::Endpoint { rd, .. } | Key::Unknown { rd, .. } => *rd,
        }
    }

    /// The site the route is about, where the type says it.
    #[must_use]
    pub const fn site(&self) -> Option<SiteId> {
        match self {
            Key::Site { site, .. } | Key::Endpoint { site, .. } => Some(*site),
            Key::Unknown { .. } => None,
        }
    }

    /// Read a key of route type `kind`; the octets are all of the key, RD included.
    pub fn decode(kind: u8, octets: &[u8]) -> Result<Self, KeyError> {
        if octets.len() > MAX_KEY {
            return Err(KeyError::Long);
        }
        let mut cursor = Cursor::new(octets);
        let rd = Rd::decode(&mut cursor)?;
        let key = match kind {
            Self::SITE => Key::Site {
                rd,
                site: SiteId(cursor.u32().ok_or(KeyError::Short)?),
            },
            Self::ENDPOINT => Self::endpoint(rd, &mut cursor)?,
            kind => {
                return Ok(Key::Unknown {
                    rd,
                    kind,
                    body: cursor.rest().into(),
                });
            }
        };
        if cursor.is_empty() {
            Ok(key)
        } else {
            Err(KeyError::Long)
        }
    }

    fn endpoint(rd: Rd, cursor: &mut Cursor<'_>) -> Result<Self, KeyError> {
        let service = ServiceId(cursor.u64().ok_or(KeyError::Short)?);
        let site = SiteId(cursor.u32().ok_or(KeyError::Short)?);
        let network = NetworkId(cursor.u16().ok_or(KeyError::Short)?);
        let address = match cursor.u8().ok_or(KeyError::Short)? {
            4 => IpAddr::from(cursor.array::<4>().ok_or(KeyError::Short)?),
            16 => IpAddr::from(cursor.array::<16>().ok_or(KeyError::Short)?),
            other => return Err(KeyError::AddressLength(other)),
        };
        let port = cursor.u16().ok_or(KeyError::Short)?;
        let protocol = cursor.u8().ok_or(KeyError::Short)?;
        Ok(Key::Endpoint {
            rd,
            service,
            site,
            network,
            address,
            port,
            protocol,
        })
    }

    pub(crate) fn encoded_len(&self) -> usize {
        RD_LEN
            + match self {
                Key::Site { .. } => 4,
                Key::Endpoint {
                    address: IpAddr::V4(_),
                    ..
                } => 22,
                Key::Endpoint {
                    address: IpAddr::V6(_),
                    ..
                } => 34,
                Key::Unknown { body, .. } => body.len(),
            }
    }

    /// Append the key's octets, RD included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.rd().encode(out);
        match self {
            Key::Site { site, .. } => out.extend(site.0.to_be_bytes()),
            Key::Endpoint {
                service,
                site,
                network,
                address,
                port,
                protocol,
                ..
            } => {
                out.extend(service.0.to_be_bytes());
                out.extend(site.0.to_be_bytes());
                out.extend(network.0.to_be_bytes());
                match address {
                    IpAddr::V4(a) => {
                        out.push(len8(4));
                        out.extend(a.octets());
                    }
                    IpAddr::V6(a) => {
                        out.push(len8(16));
                        out.extend(a.octets());
                    }
                }
                out.extend(port.to_be_bytes());
                out.push(*protocol);
            }
            Key::Unknown { body, .. } => out.extend_from_slice(body),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Site { rd, site } => write!(f, "site {site} rd {rd}"),
            Key::Endpoint {
                rd,
                service,
                site,
                network,
                address,
                port,
                protocol,
            } => write!(
                f,
                "endpoint {address} port {port}/{protocol} network {network} site {site} \
                 service {:016x} rd {rd}",
                service.0
            ),
            Key::Unknown { rd, kind, body } => {
                write!(f, "type {kind} rd {rd} ({} octets)", body.len())
            }
        }
    }
}
