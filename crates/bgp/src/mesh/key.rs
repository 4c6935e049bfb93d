//! Keys: what a route is about.

mod http;
mod rd;

use std::{fmt, net::IpAddr, sync::Arc};

use base::{LbId, NetworkId, ServiceId, SiteId};

use super::MAX_KEY;
use crate::cursor::{Cursor, len8};

pub use http::{Host, HttpMatch, PathKind, PathMatch, PathText};
pub use rd::Rd;

/// A set of policies; its 16 octets mean nothing here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicySetId(pub [u8; 16]);

impl fmt::Display for PolicySetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

/// One of several tunnels between two sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TunnelId(pub u32);

impl fmt::Display for TunnelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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
    /// Type 2: one service as far as it is in one site.
    Service {
        /// Who speaks.
        rd: Rd,
        /// The service.
        service: ServiceId,
        /// The site.
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
    /// Type 4: requests of a load balancer that one site can serve.
    HttpRoute {
        /// Who speaks.
        rd: Rd,
        /// The load balancer.
        lb: LbId,
        /// Which of its requests; shared, so that the keys of the common types stay small.
        http: Arc<HttpMatch>,
    },
    /// Type 5: which revision of a set of policies to enforce.
    Policy {
        /// Who speaks.
        rd: Rd,
        /// The set.
        set: PolicySetId,
    },
    /// Type 6: a tunnel in one direction.
    Link {
        /// Who speaks.
        rd: Rd,
        /// Site a, which measures and speaks: its site must be the RD's.
        from: SiteId,
        /// Site b.
        to: SiteId,
        /// Which of the tunnels between the two.
        tunnel: TunnelId,
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
    /// A host with upper case, a final dot or something invisible, or over 255 octets.
    #[error("a host that is not lower case ASCII without a final dot")]
    Host,
    /// A path over 200 octets, not UTF-8 or with control characters; a digest of not 32 octets.
    #[error("a path that is not at most 200 octets of UTF-8, or a digest that is not 32 octets")]
    Path,
    /// A kind of path that is not defined.
    #[error("path kind {0} is not defined")]
    PathKind(u8),
}

impl Key {
    /// Route type 1.
    pub const SITE: u8 = 1;
    /// Route type 2.
    pub const SERVICE: u8 = 2;
    /// Route type 3.
    pub const ENDPOINT: u8 = 3;
    /// Route type 4.
    pub const HTTP_ROUTE: u8 = 4;
    /// Route type 5.
    pub const POLICY: u8 = 5;
    /// Route type 6.
    pub const LINK: u8 = 6;

    /// The route type's number.
    #[must_use]
    pub const fn kind(&self) -> u8 {
        match self {
            Key::Site { .. } => Self::SITE,
            Key::Service { .. } => Self::SERVICE,
            Key::Endpoint { .. } => Self::ENDPOINT,
            Key::HttpRoute { .. } => Self::HTTP_ROUTE,
            Key::Policy { .. } => Self::POLICY,
            Key::Link { .. } => Self::LINK,
            Key::Unknown { kind, .. } => *kind,
        }
    }

    /// The route distinguisher.
    #[must_use]
    pub const fn rd(&self) -> Rd {
        match self {
            Key::Site { rd, .. }
            | Key::Service { rd, .. }
            | Key::Endpoint { rd, .. }
            | Key::HttpRoute { rd, .. }
            | Key::Policy { rd, .. }
            | Key::Link { rd, .. }
            | Key::Unknown { rd, .. } => *rd,
        }
    }

    /// The site the route is about, where the type says it; of a link the site that measures.
    #[must_use]
    pub const fn site(&self) -> Option<SiteId> {
        match self {
            Key::Site { site, .. } | Key::Service { site, .. } | Key::Endpoint { site, .. } => {
                Some(*site)
            }
            Key::Link { from, .. } => Some(*from),
            Key::HttpRoute { .. } | Key::Policy { .. } | Key::Unknown { .. } => None,
        }
    }

    /// Read a key of route type `kind`; the octets are all of the key, RD included.
    ///
    /// # Errors
    /// What is wrong with it; such a route is ignored and counted.
    pub fn decode(kind: u8, octets: &[u8]) -> Result<Self, KeyError> {
        if octets.len() > MAX_KEY {
            return Err(KeyError::Long);
        }
        let mut cursor = Cursor::new(octets);
        let rd = Rd::decode(&mut cursor)?;
        let key = match kind {
            Self::SITE => Key::Site {
                rd,
                site: site(&mut cursor)?,
            },
            Self::SERVICE => Key::Service {
                rd,
                service: service(&mut cursor)?,
                site: site(&mut cursor)?,
            },
            Self::ENDPOINT => Self::endpoint(rd, &mut cursor)?,
            Self::HTTP_ROUTE => Key::HttpRoute {
                rd,
                lb: LbId(cursor.u64().ok_or(KeyError::Short)?),
                http: Arc::new(HttpMatch::decode(&mut cursor)?),
            },
            Self::POLICY => Key::Policy {
                rd,
                set: PolicySetId(cursor.array().ok_or(KeyError::Short)?),
            },
            Self::LINK => Key::Link {
                rd,
                from: site(&mut cursor)?,
                to: site(&mut cursor)?,
                tunnel: TunnelId(cursor.u32().ok_or(KeyError::Short)?),
            },
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
        let (service, site) = (service(cursor)?, site(cursor)?);
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

    /// Append the key's octets, RD included.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.rd().encode(out);
        match self {
            Key::Site { site, .. } => out.extend(site.0.to_be_bytes()),
            Key::Service { service, site, .. } => {
                out.extend(service.0.to_be_bytes());
                out.extend(site.0.to_be_bytes());
            }
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
            Key::HttpRoute { lb, http, .. } => {
                out.extend(lb.0.to_be_bytes());
                http.encode(out);
            }
            Key::Policy { set, .. } => out.extend(set.0),
            Key::Link {
                from, to, tunnel, ..
            } => {
                out.extend(from.0.to_be_bytes());
                out.extend(to.0.to_be_bytes());
                out.extend(tunnel.0.to_be_bytes());
            }
            Key::Unknown { body, .. } => out.extend_from_slice(body),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Site { rd, site } => write!(f, "site {site} rd {rd}"),
            Key::Service { rd, service, site } => {
                write!(f, "service {:016x} site {site} rd {rd}", service.0)
            }
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
            Key::HttpRoute { rd, lb, http } => {
                let HttpMatch { host, path } = &**http;
                write!(f, "http {host} {path} lb {:016x} rd {rd}", lb.0)
            }
            Key::Policy { rd, set } => write!(f, "policy {set} rd {rd}"),
            Key::Link {
                rd,
                from,
                to,
                tunnel,
            } => write!(f, "link {from}→{to} tunnel {tunnel} rd {rd}"),
            Key::Unknown { rd, kind, body } => {
                write!(f, "type {kind} rd {rd} ({} octets)", body.len())
            }
        }
    }
}

fn service(cursor: &mut Cursor<'_>) -> Result<ServiceId, KeyError> {
    cursor.u64().map(ServiceId).ok_or(KeyError::Short)
}

fn site(cursor: &mut Cursor<'_>) -> Result<SiteId, KeyError> {
    cursor.u32().map(SiteId).ok_or(KeyError::Short)
}

fn write_hex(f: &mut fmt::Formatter<'_>, octets: &[u8]) -> fmt::Result {
    octets.iter().try_for_each(|b| write!(f, "{b:02x}"))
}
