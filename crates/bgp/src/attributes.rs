//! What attributes carry, as our own nodes name it.

use std::fmt;

use base::TenantId;

/// A route target of type 0x0102 (RFC 4360 §4, RFC 5668): tenant (4) and selector (2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteTarget {
    /// Whose route; 0 is the fabric.
    pub tenant: TenantId,
    /// What kind of route.
    pub selector: u16,
}

impl RouteTarget {
    /// Selector of Site and Link routes.
    pub const SITE: u16 = 1;
    /// Selector of Service, Endpoint and HTTP routes.
    pub const SERVICE: u16 = 2;
    /// Selector of policy references.
    pub const POLICY: u16 = 3;
    /// Selectors from here on are networks of the tenant.
    pub const NETWORK: u16 = 0x8000;

    /// What every node may hear: Site and Link routes of the fabric.
    pub const FABRIC: RouteTarget = RouteTarget {
        tenant: TenantId(0),
        selector: Self::SITE,
    };

    const TYPE: [u8; 2] = [0x01, 0x02];

    pub(crate) fn from_community(octets: [u8; 8]) -> Option<Self> {
        let [t0, t1, a, b, c, d, e, f] = octets;
        ([t0, t1] == Self::TYPE).then_some(RouteTarget {
            tenant: TenantId(u32::from_be_bytes([a, b, c, d])),
            selector: u16::from_be_bytes([e, f]),
        })
    }

    pub(crate) fn to_community(self) -> [u8; 8] {
        let [a, b, c, d] = self.tenant.0.to_be_bytes();
        let [e, f] = self.selector.to_be_bytes();
        [Self::TYPE[0], Self::TYPE[1], a, b, c, d, e, f]
    }
}

impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.tenant, self.selector)
    }
}

/// ORIGIN (RFC 4271 §5.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Origin {
    /// Interior: what our own nodes say.
    #[default]
    Igp = 0,
    /// Learned by EGP.
    Egp = 1,
    /// Otherwise.
    Incomplete = 2,
}

impl Origin {
    /// The name of a number on the wire.
    #[must_use]
    pub const fn name(number: u8) -> &'static str {
        match number {
            0 => "igp",
            1 => "egp",
            _ => "incomplete",
        }
    }
}

/// An attribute that is passed on unread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RawAttribute {
    /// Its flags: optional 0x80, transitive 0x40, partial 0x20.
    pub flags: u8,
    /// Its type code.
    pub code: u8,
    /// Its value.
    pub value: Vec<u8>,
}

impl RawAttribute {
    /// Type code of the optional transitive attribute with static facts of endpoints, as TLVs.
    pub const FACTS: u8 = 244;

    /// Static facts that this node gives to its own routes.
    #[must_use]
    pub const fn facts(value: Vec<u8>) -> Self {
        RawAttribute {
            flags: 0xC0,
            code: Self::FACTS,
            value,
        }
    }
}
