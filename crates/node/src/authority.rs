//! The reserved authorities: what control streams are called inside and between nodes.
//!
//! ```text
//! sync.sealane.internal, bgp.…, keys.…               of the node that is asked
//! sync.SITE.TENANT.sealane.internal, bgp.…           control → its data half → that site
//! sync.pop.sealane.internal                          control → data → any PoP there is a link to
//! sync.controller.…, join.controller.…               control, or a joining peer → data → controller
//! ```

use std::collections::BTreeSet;

use base::SiteName;
use plan::Compiled;
use tunnel::RESERVED_DOMAIN;

/// A control stream that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Sync,
    Bgp,
    /// Keys of token issuers, of the own node alone.
    Keys,
    SyncOf(SiteName),
    BgpOf(SiteName),
    SyncOfAnyPop,
    SyncOfController,
    JoinOfController,
}

impl Ask {
    pub(crate) fn parse(authority: &str) -> Option<Self> {
        let name = authority.strip_suffix(RESERVED_DOMAIN)?.strip_suffix('.')?;
        let (verb, whom) = name.split_once('.').unwrap_or((name, ""));
        match (verb, whom) {
            ("sync", "") => Some(Ask::Sync),
            ("bgp", "") => Some(Ask::Bgp),
            ("keys", "") => Some(Ask::Keys),
            ("sync", "pop") => Some(Ask::SyncOfAnyPop),
            ("sync", "controller") => Some(Ask::SyncOfController),
            ("join", "controller") => Some(Ask::JoinOfController),
            ("sync", site) => Some(Ask::SyncOf(site.parse().ok()?)),
            ("bgp", site) => Some(Ask::BgpOf(site.parse().ok()?)),
            _ => None,
        }
    }

    pub(crate) fn authority(&self) -> String {
        match self {
            Ask::Sync => format!("sync.{RESERVED_DOMAIN}"),
            Ask::Bgp => format!("bgp.{RESERVED_DOMAIN}"),
            Ask::Keys => format!("keys.{RESERVED_DOMAIN}"),
            Ask::SyncOf(site) => format!("sync.{site}.{RESERVED_DOMAIN}"),
            Ask::BgpOf(site) => format!("bgp.{site}.{RESERVED_DOMAIN}"),
            Ask::SyncOfAnyPop => format!("sync.pop.{RESERVED_DOMAIN}"),
            Ask::SyncOfController => format!("sync.controller.{RESERVED_DOMAIN}"),
            Ask::JoinOfController => format!("join.controller.{RESERVED_DOMAIN}"),
        }
    }
}

/// Whom a node asks for intent before it knows anything.
pub(crate) fn first_upstreams(me: &SiteName) -> Vec<String> {
    let ask = if me.is_pop() {
        Ask::SyncOfController
    } else {
        Ask::SyncOfAnyPop
    };
    vec![ask.authority()]
}

/// Whom a node asks for intent: a PoP the controller, a gateway each PoP to which it has a link.
pub(crate) fn upstreams(table: &Compiled, linked: &BTreeSet<SiteName>) -> Vec<String> {
    if table.numbers.pop {
        return vec![Ask::SyncOfController.authority()];
    }
    let pops = table.fabric.dial.keys();
    pops.filter(|site| linked.contains(*site))
        .map(|site| Ask::SyncOf(site.clone()).authority())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities_round_trip() {
        let site: SiteName = "par.fabric".parse().expect("a site");
        for ask in [
            Ask::Sync,
            Ask::Bgp,
            Ask::Keys,
            Ask::SyncOf(site.clone()),
            Ask::BgpOf(site),
            Ask::SyncOfAnyPop,
            Ask::SyncOfController,
            Ask::JoinOfController,
        ] {
            assert_eq!(Ask::parse(&ask.authority()), Some(ask));
        }
        for bad in [
            "sync",
            "x.sealane.internal",
            "join.sealane.internal",
            "bgp.a.b.c.sealane.internal",
        ] {
            assert_eq!(Ask::parse(bad), None, "{bad}");
        }
    }
}
