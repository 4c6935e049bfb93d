//! Address families and their names.

use std::{fmt, str::FromStr};

/// An address family: AFI and SAFI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Family {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl Family {
    /// IPv4 unicast.
    pub const IPV4: Family = Family::new(1, 1);
    /// IPv6 unicast.
    pub const IPV6: Family = Family::new(2, 1);
    /// IPv4 in VPNs (RFC 4364).
    pub const VPNV4: Family = Family::new(1, 128);
    /// IPv6 in VPNs (RFC 4659).
    pub const VPNV6: Family = Family::new(2, 128);
    /// RT constraint (RFC 4684).
    pub const RTC: Family = Family::new(1, 132);
    /// FlowSpec for IPv4 (RFC 8955).
    pub const FLOW4: Family = Family::new(1, 133);
    /// FlowSpec for IPv6 (RFC 8956).
    pub const FLOW6: Family = Family::new(2, 133);
    /// FlowSpec for IPv4 in VPNs (RFC 8955 §8).
    pub const FLOWVPN4: Family = Family::new(1, 134);
    /// FlowSpec for IPv6 in VPNs (RFC 8956 §3).
    pub const FLOWVPN6: Family = Family::new(2, 134);
    /// The MESH family by its default numbers (private use).
    pub const MESH: Family = Family::new(16397, 244);

    /// Every family spoken here.
    pub const ALL: [Family; 10] = [
        Family::IPV4,
        Family::IPV6,
        Family::VPNV4,
        Family::VPNV6,
        Family::RTC,
        Family::FLOW4,
        Family::FLOW6,
        Family::FLOWVPN4,
        Family::FLOWVPN6,
        Family::MESH,
    ];

    const NAMES: [&str; 10] = [
        "ipv4", "ipv6", "vpnv4", "vpnv6", "rtc", "flow4", "flow6", "flowvpn4", "flowvpn6", "mesh",
    ];

    /// The family of these numbers.
    #[must_use]
    pub const fn new(afi: u16, safi: u8) -> Self {
        Family { afi, safi }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::ALL.iter().position(|family| family == self) {
            Some(at) => f.write_str(Self::NAMES[at]),
            None => write!(f, "{}/{}", self.afi, self.safi),
        }
    }
}

/// No name of a family, and no `AFI/SAFI`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a family: ipv4, ipv6, vpnv4, vpnv6, rtc, flow4, flow6, flowvpn4, flowvpn6, mesh")]
pub struct NoFamily;

impl FromStr for Family {
    type Err = NoFamily;

    fn from_str(text: &str) -> Result<Self, NoFamily> {
        if let Some(at) = Self::NAMES.iter().position(|name| *name == text) {
            return Ok(Self::ALL[at]);
        }
        let (afi, safi) = text.split_once('/').ok_or(NoFamily)?;
        let numbers = afi.parse().ok().zip(safi.parse().ok()).ok_or(NoFamily)?;
        Ok(Family::new(numbers.0, numbers.1))
    }
}
