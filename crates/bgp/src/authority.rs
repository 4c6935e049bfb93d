//! Who may say what. Checked where a route enters ([`Trust`]); tenant isolation does not depend
//! on a neighbour's good behaviour. Who hears a route follows from what he may ask for: RT
//! constraint routes are held against the same table.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use base::{NodeId, SiteId, SlotId, TenantId};

use crate::{
    Rd, RouteTarget, mesh,
    wire::{AttributesView, Family},
};

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
    /// A router that is no node of ours: policies alone decide.
    Policy,
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

/// Why a route is treated as withdrawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// No site table yet; asked for again when it arrives.
    NoTable,
    /// The table does not know the RD's site, or does not give it this slot; asked for again with
    /// the next table.
    Ungranted,
    /// A route target is missing, of another tenant than the site's, or of another kind of route;
    /// asked for again with the next table.
    RouteTarget,
    /// The next hop is no node of the site; asked for again with the next table.
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

/// What the attributes of a route say that is held against the table; read once an UPDATE.
#[derive(Debug)]
pub(crate) struct Said {
    originator: Option<NodeId>,
    next_hop: Option<NodeId>,
    reflected: bool,
    targets: Vec<RouteTarget>,
}

impl Said {
    pub(crate) fn read(attributes: AttributesView<'_>) -> Self {
        // Of a VPN route it is behind a route distinguisher of zeros.
        let next_hop = match *attributes.next_hop() {
            [a, b, c, d] | [0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => Some([a, b, c, d]),
            _ => None,
        };
        Said {
            originator: attributes.originator(),
            next_hop: next_hop.map(|octets| NodeId(u32::from_be_bytes(octets))),
            reflected: !attributes.cluster_list().is_empty(),
            targets: attributes
                .extended_communities()
                .filter_map(RouteTarget::from_community)
                .collect(),
        }
    }
}

/// What a key says of where it belongs.
struct Place {
    rd: Rd,
    /// The site it is about, where it names one.
    site: Option<SiteId>,
}

fn place(family: Family, key: &[u8]) -> Option<Place> {
    match family.safi {
        244 => Some(Place {
            rd: mesh::bytes::rd(key)?,
            site: mesh::bytes::site(key),
        }),
        128 => Some(Place {
            rd: mesh::bytes::rd(key)?,
            site: None,
        }),
        _ => None,
    }
}

/// Does a route travel under this selector?
fn selector_fits(family: Family, key: &[u8], selector: u16) -> bool {
    if family.safi == 128 {
        return selector >= RouteTarget::NETWORK;
    }
    mesh::bytes::selector_fits(key.first().copied().unwrap_or(0), selector)
}

impl Trust {
    /// May the neighbour `sender` say this?
    pub(crate) fn judge(
        self,
        sender: NodeId,
        family: Family,
        key: &[u8],
        said: &Said,
        table: Option<&SiteTable>,
    ) -> Result<(), Refusal> {
        if family == Family::RTC {
            return self.judge_wish(sender, key, said, table);
        }
        let only = match self {
            Trust::Policy | Trust::Local => return Ok(()),
            Trust::Pop { only } => only,
            Trust::Gateway { .. } => None,
        };
        let Place { rd, site } = place(family, key).ok_or(Refusal::SiteMismatch)?;
        if let Trust::Gateway { site } = self {
            if rd.site != site {
                return Err(Refusal::ForeignSite);
            }
            said.is_own_word_of(sender)?;
        }
        if site.is_some_and(|site| site != rd.site) {
            return Err(Refusal::SiteMismatch);
        }
        let table = table.ok_or(Refusal::NoTable)?;
        let grant = table.sites.get(&rd.site).ok_or(Refusal::Ungranted)?;
        let tenant = *grant.slots.get(&rd.slot).ok_or(Refusal::Ungranted)?;
        let far = (family.safi == 244).then(|| mesh::bytes::far_end(key));
        let tenant = match far.flatten() {
            Some(far) => {
                let far = table.sites.get(&far).ok_or(Refusal::Ungranted)?.tenant;
                let gateway = matches!(self, Trust::Gateway { .. });
                // A gateway has links to PoPs, one that it measures itself to each.
                if gateway && (far != TenantId(0) || mesh::bytes::tunnel(key) != Some(sender.0)) {
                    return Err(Refusal::Ungranted);
                }
                // What a PoP says of a link is for those at the other end.
                if tenant == TenantId(0) { far } else { tenant }
            }
            None => tenant,
        };
        let agrees =
            |rt: &RouteTarget| rt.tenant == tenant && selector_fits(family, key, rt.selector);
        if said.targets.is_empty() || !said.targets.iter().all(agrees) {
            return Err(Refusal::RouteTarget);
        }
        let of_fabric = |rt: &RouteTarget| *rt == RouteTarget::FABRIC;
        let heard = |only: TenantId| {
            said.targets
                .iter()
                .any(|rt| rt.tenant == only || of_fabric(rt))
        };
        if only.is_some_and(|only| !heard(only)) {
            return Err(Refusal::RouteTarget);
        }
        let next_hop = said.next_hop.ok_or(Refusal::NextHop)?;
        if !grant.nodes.is_empty() && !grant.nodes.contains(&next_hop) {
            return Err(Refusal::NextHop);
        }
        Ok(())
    }

    /// May the neighbour ask for this? A gateway for all of its own tenant, or a part of it, and
    /// for Site and Link routes of the fabric.
    fn judge_wish(
        self,
        sender: NodeId,
        key: &[u8],
        said: &Said,
        table: Option<&SiteTable>,
    ) -> Result<(), Refusal> {
        let Trust::Gateway { site } = self else {
            return Ok(());
        };
        said.is_own_word_of(sender)?;
        let table = table.ok_or(Refusal::NoTable)?;
        let grant = table.sites.get(&site).ok_or(Refusal::Ungranted)?;
        let own = RouteTarget {
            tenant: grant.tenant,
            selector: 0,
        };
        let (own, fabric) = (own.to_community(), RouteTarget::FABRIC.to_community());
        // Behind the length in bits and the origin AS: 48 bits are the type and the tenant.
        match key {
            [80..=255, _, _, _, _, target @ ..] if target.starts_with(&own[..6]) => Ok(()),
            [96, _, _, _, _, target @ ..] if *target == fabric => Ok(()),
            _ => Err(Refusal::RouteTarget),
        }
    }
}

impl Said {
    /// Is it what a gateway says of itself, and passed on by nobody?
    fn is_own_word_of(&self, sender: NodeId) -> Result<(), Refusal> {
        let foreign = self.originator.is_some_and(|id| id != sender);
        if foreign || self.next_hop != Some(sender) || self.reflected {
            return Err(Refusal::Originator);
        }
        Ok(())
    }
}
