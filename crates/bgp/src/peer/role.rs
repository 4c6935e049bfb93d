//! BGP Roles (RFC 9234 §4): who is whose customer.

use std::fmt;

use super::close;
use crate::wire::Notification;

/// What we are to an external neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BgpRole {
    /// 0: we sell transit to it.
    Provider = 0,
    /// 1: we are its route server.
    RouteServer = 1,
    /// 2: it is our route server.
    RouteServerClient = 2,
    /// 3: we buy transit from it.
    Customer = 3,
    /// 4: we exchange our own and our customers' routes.
    Peer = 4,
}

impl BgpRole {
    /// The number on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The role with this number.
    #[must_use]
    pub const fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            0 => BgpRole::Provider,
            1 => BgpRole::RouteServer,
            2 => BgpRole::RouteServerClient,
            3 => BgpRole::Customer,
            4 => BgpRole::Peer,
            _ => return None,
        })
    }

    /// What the neighbour has to be to us (RFC 9234 §4.2, table 2).
    #[must_use]
    pub const fn counterpart(self) -> Self {
        match self {
            BgpRole::Provider => BgpRole::Customer,
            BgpRole::RouteServer => BgpRole::RouteServerClient,
            BgpRole::RouteServerClient => BgpRole::RouteServer,
            BgpRole::Customer => BgpRole::Provider,
            BgpRole::Peer => BgpRole::Peer,
        }
    }
}

impl fmt::Display for BgpRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BgpRole::Provider => "provider",
            BgpRole::RouteServer => "route-server",
            BgpRole::RouteServerClient => "route-server-client",
            BgpRole::Customer => "customer",
            BgpRole::Peer => "peer",
        })
    }
}

/// Our role and how much we insist on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleConfig {
    /// What we are.
    pub role: BgpRole,
    /// Refuse a neighbour that does not say what it is.
    pub strict: bool,
}

impl RoleConfig {
    /// Does what the neighbour says of itself fit?
    pub(super) fn judge(self, theirs: Option<u8>) -> Result<(), Notification> {
        let fits = match theirs {
            None => !self.strict,
            Some(code) => BgpRole::from_code(code) == Some(self.role.counterpart()),
        };
        if fits {
            Ok(())
        } else {
            Err(close::ROLE_MISMATCH.into())
        }
    }
}
