//! Who may say what, and who may hear it. Checked where a route enters (`Trust`) and where it
//! leaves (`Export`); tenant isolation does not depend on a neighbour's good behaviour.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base::{NodeId, SiteId, SlotId, TenantId};

use crate::{Attributes, Key, RouteTarget};

/// What the controller gave to one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    /// The tenant that owns the site; 0 for a `PoP`.
    pub tenant: TenantId,
    /// The slots it may use in route distinguishers, and whose facts each carries: its owner's, or
    /// at a `PoP` those of a tenant that has endpoints there.
    pub slots: BTreeMap<SlotId, TenantId>,
    /// Its nodes: a route's next hop must be one of them. Empty: any.
    pub nodes: BTreeSet<NodeId>,
}

/// The signed site table as far as routes are concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SiteTable {
    /// One grant a site.
    pub sites: BTreeMap<SiteId, Grant>,
}

/// How far a neighbour's word is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Our own other half: everything.
    Local,
    /// A node of the fabric: the RD's site must exist and the route targets agree with it. At a
    /// gateway `only` is its own tenant: routes of other tenants are refused, Site and Link routes
    /// of the fabric are not.
    Pop {
        /// Refuse other tenants than this.
        only: Option<TenantId>,
    },
    /// A node of a gateway: only what the table gives to the site in its certificate, and only
    /// originated by that node.
    Gateway {
        /// The site in its certificate.
        site: SiteId,
    },
}

/// What a neighbour may hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Export {
    /// Everything: to the fabric, to our other half, and from a gateway to its reflectors.
    All,
    /// Routes of this tenant, and Site and Link routes of the fabric.
    Tenant(TenantId),
}

/// Why a route is treated as withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No site table yet; judged again when it arrives.
    NoTable,
    /// The table does not know the RD's site, or does not give it this slot; judged again with
    /// the next table.
    Ungranted,
    /// A route target is missing, of another tenant than the site's, or of another kind of route;
    /// judged again with the next table.
    RouteTarget,
    /// The next hop is no node of the site; judged again with the next table.
    NextHop,
    /// The RD's site is not the site in the neighbour's certificate.
    ForeignSite,
    /// The key's site, of a Link route the one that measures, is not its RD's.
    SiteMismatch,
    /// `ORIGINATOR_ID` is not the gateway's own.
    Originator,
    /// Our own `ORIGINATOR_ID`, our own cluster, or our own AS in `AS_PATH`: it went in a circle.
    Loop,
    /// More routes than the neighbour may have.
    Limit,
}

impl Refusal {
    /// Every reason, in the order of [`Refusal::index`].
    pub const ALL: [Refusal; 9] = [
        Refusal::NoTable,
        Refusal::Ungranted,
        Refusal::RouteTarget,
        Refusal::NextHop,
        Refusal::ForeignSite,
        Refusal::SiteMismatch,
        Refusal::Originator,
        Refusal::Loop,
        Refusal::Limit,
    ];

    /// A dense number, for counters.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Can another site table change the verdict?
    pub(crate) const fn may_change(self) -> bool {
        match self {
            Refusal::NoTable | Refusal::Ungranted | Refusal::RouteTarget | Refusal::NextHop => true,
            Refusal::ForeignSite
            | Refusal::SiteMismatch
            | Refusal::Originator
            | Refusal::Loop
            | Refusal::Limit => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::NoTable => "no site table yet",
            Refusal::Ungranted => "site or slot not granted",
            Refusal::RouteTarget => "route target not granted",
            Refusal::NextHop => "next hop is no node of the site",
            Refusal::ForeignSite => "speaks for another site",
            Refusal::SiteMismatch => "key and RD name different sites",
            Refusal::Originator => "originated by another node",
            Refusal::Loop => "went in a circle",
            Refusal::Limit => "too many routes",
        })
    }
}

impl Trust {
    /// May the neighbour `sender` say this?
    pub(crate) fn judge(
        self,
        sender: NodeId,
        key: &Key,
        attributes: &Attributes,
        table: Option<&SiteTable>,
    ) -> Result<(), Refusal> {
        let rd = key.rd();
        let only = match self {
            Trust::Local => return Ok(()),
            Trust::Pop { only } => only,
            Trust::Gateway { site } => {
                if rd.site != site {
                    return Err(Refusal::ForeignSite);
                }
                if attributes.originator.is_some_and(|id| id != sender)
                    || attributes.next_hop != sender
                    || !attributes.clusters.is_empty()
                {
                    return Err(Refusal::Originator);
                }
                None
            }
        };
        if key.site().is_some_and(|site| site != rd.site) {
            return Err(Refusal::SiteMismatch);
        }
        let table = table.ok_or(Refusal::NoTable)?;
        let grant = table.sites.get(&rd.site).ok_or(Refusal::Ungranted)?;
        let tenant = *grant.slots.get(&rd.slot).ok_or(Refusal::Ungranted)?;
        let targets = &attributes.route_targets;
        let agrees = |rt: &RouteTarget| rt.tenant == tenant && selector_fits(key, rt.selector);
        if targets.is_empty() || !targets.iter().all(agrees) {
            return Err(Refusal::RouteTarget);
        }
        let heard = |tenant| Export::Tenant(tenant).allows(key, attributes);
        if only.is_some_and(|tenant| !heard(tenant)) {
            return Err(Refusal::RouteTarget);
        }
        if !grant.nodes.is_empty() && !grant.nodes.contains(&attributes.next_hop) {
            return Err(Refusal::NextHop);
        }
        Ok(())
    }
}

/// Does a route of this type travel under this selector? Types we cannot read may use any.
const fn selector_fits(key: &Key, selector: u16) -> bool {
    match key {
        Key::Site { .. } | Key::Link { .. } => selector == RouteTarget::SITE,
        Key::Service { .. } | Key::Endpoint { .. } | Key::HttpRoute { .. } => {
            selector == RouteTarget::SERVICE
        }
        Key::Policy { .. } => selector == RouteTarget::POLICY,
        Key::Unknown { .. } => selector != 0,
    }
}

impl Export {
    /// May a neighbour under this policy hear the route?
    pub(crate) fn allows(self, key: &Key, attributes: &Attributes) -> bool {
        let Export::Tenant(tenant) = self else {
            return true;
        };
        let of_fabric = matches!(key, Key::Site { .. } | Key::Link { .. });
        attributes
            .route_targets
            .iter()
            .any(|rt| rt.tenant == tenant || (of_fabric && rt.tenant.0 == 0))
    }
}
