//! The second look: what may come out of a tunnel at a gateway.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use balance::{EndpointKey, EndpointStats};
use base::{Name, QualifiedService, SiteName};
use http::StatusCode;

use crate::Cluster;

/// To whom a load balancer offers a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Every PoP may ask for it (it is advertised publicly).
    pub all_pops: bool,
    /// These ingress sites may, PoPs or sites of the tenant.
    pub sites: BTreeSet<SiteName>,
}

/// A service that has endpoints in this site.
#[derive(Clone, Debug)]
pub struct EgressService {
    /// The service; its cell holds this site's own endpoints (others are ignored).
    pub cluster: Arc<Cluster>,
    /// By load balancer name (`namespace/name`); one may lead to many services.
    pub offers: BTreeMap<String, Arc<Offer>>,
}

/// Everything that may leave a tunnel in this site: published services and nothing else.
#[derive(Debug, Default)]
pub struct Egress {
    services: BTreeMap<QualifiedService, EgressService>,
    site: base::SiteId,
}

impl Egress {
    /// The egress table of site `site`. Of two entries for one service the last stays.
    #[must_use]
    pub fn build(site: base::SiteId, services: Vec<EgressService>) -> Self {
        let services = services
            .into_iter()
            .map(|s| (s.cluster.service.clone(), s))
            .collect();
        Egress { services, site }
    }
}

/// What the head of a tunnel stream claims.
#[derive(Clone, Copy, Debug)]
pub struct StreamClaim<'a> {
    /// `SERVICE.NAMESPACE.TENANT:PORT`.
    pub authority: &'a str,
    /// The endpoint the ingress chose.
    pub endpoint: EndpointKey,
    /// The load balancer it serves, `namespace/name`.
    pub lb: &'a str,
}

/// A stream that may go on, to this endpoint only.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// The service.
    pub cluster: Arc<Cluster>,
    /// The endpoint.
    pub endpoint: EndpointKey,
    /// Its counters in this site.
    pub stats: Arc<EndpointStats>,
}

/// Why a stream is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// The authority is not `SERVICE.NAMESPACE.TENANT:PORT`.
    #[error("the authority is not an application address")]
    BadAuthority,
    /// The peer is neither a PoP nor a site of the service's tenant.
    #[error("the peer may not ask for services of this tenant")]
    OtherTenant,
    /// The load balancer is not offered to that ingress site.
    #[error("the load balancer is not offered to this ingress site")]
    NotOffered,
    /// No such service, port or load balancer here.
    #[error("no such published service here")]
    NoService,
    /// The endpoint is not one of the service in this site.
    #[error("no such endpoint of the service here")]
    NoEndpoint,
    /// A sealed stream was opened by nobody who may, or not at all.
    #[error("the sealed stream is not opened by a node of the planet")]
    BadSeal,
    /// It is to be passed on by a site, or over one, that passes nothing on.
    #[error("streams are passed on by PoPs alone")]
    NoTransit,
}

impl Refusal {
    /// The status the peer gets.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Refusal::BadAuthority => StatusCode::BAD_REQUEST,
            Refusal::OtherTenant | Refusal::NotOffered | Refusal::NoTransit | Refusal::BadSeal => {
                StatusCode::FORBIDDEN
            }
            Refusal::NoService | Refusal::NoEndpoint => StatusCode::NOT_FOUND,
        }
    }

    /// A stable word for logs and counters.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Refusal::BadAuthority => "bad-authority",
            Refusal::OtherTenant => "other-tenant",
            Refusal::NotOffered => "not-offered",
            Refusal::NoService => "no-service",
            Refusal::NoEndpoint => "no-endpoint",
            Refusal::NoTransit => "no-transit",
            Refusal::BadSeal => "bad-seal",
        }
    }
}

/// May `peer` (as its certificate names it) have this stream? The tenant is checked before
/// anything is looked up, so a refusal tells a stranger nothing about what exists.
///
/// # Errors
/// The first rule that is broken.
pub fn admit(
    egress: &Egress,
    peer: &SiteName,
    claim: &StreamClaim<'_>,
) -> Result<Admitted, Refusal> {
    let cluster = published(egress, peer, claim)?;
    if claim.endpoint.site != egress.site {
        return Err(Refusal::NoEndpoint);
    }
    let set = cluster.cell.load();
    let endpoint = set.find(&claim.endpoint).ok_or(Refusal::NoEndpoint)?;
    Ok(Admitted {
        cluster: Arc::clone(cluster),
        endpoint: endpoint.key,
        stats: Arc::clone(&endpoint.stats),
    })
}

/// The Service that a stream is for, if it is published to `peer`, whether or not the endpoint is known.
///
/// # Errors
/// The first rule that is broken; never [`Refusal::NoEndpoint`].
pub fn published<'e>(
    egress: &'e Egress,
    peer: &SiteName,
    claim: &StreamClaim<'_>,
) -> Result<&'e Arc<Cluster>, Refusal> {
    let (service, port) = application(claim.authority)?;
    if !peer.is_pop() && peer.tenant != service.tenant {
        return Err(Refusal::OtherTenant);
    }
    let known = egress.services.get(&service).ok_or(Refusal::NoService)?;
    if known.cluster.port != port {
        return Err(Refusal::NoService);
    }
    let offer = known.offers.get(claim.lb).ok_or(Refusal::NoService)?;
    if !((offer.all_pops && peer.is_pop()) || offer.sites.contains(peer)) {
        return Err(Refusal::NotOffered);
    }
    Ok(&known.cluster)
}

/// May `ingress` have a stream of `tenant` passed on over these sites, the destination last? Whether
/// it may leave there is looked at there ([`admit`]). Nothing of one tenant is passed on to a site of
/// another, whoever asks.
///
/// # Errors
/// The first rule that is broken.
pub fn pass(ingress: &SiteName, tenant: &Name, via: &[SiteName]) -> Result<(), Refusal> {
    let (to, over) = via.split_last().ok_or(Refusal::NoTransit)?;
    let twice = |at: usize| {
        via.iter()
            .skip(at + 1)
            .any(|site| Some(site) == via.get(at))
    };
    let circle = via.contains(ingress) || (0..via.len()).any(twice);
    if circle || !over.iter().all(SiteName::is_pop) {
        return Err(Refusal::NoTransit);
    }
    let may = |site: &SiteName| site.is_pop() || site.tenant == *tenant;
    if may(ingress) && may(to) {
        Ok(())
    } else {
        Err(Refusal::OtherTenant)
    }
}

fn application(authority: &str) -> Result<(QualifiedService, u16), Refusal> {
    let (service, port) = authority.rsplit_once(':').ok_or(Refusal::BadAuthority)?;
    let service = service.parse().map_err(|_| Refusal::BadAuthority)?;
    let port = port.parse().map_err(|_| Refusal::BadAuthority)?;
    Ok((service, port))
}

#[cfg(test)]
mod tests;
