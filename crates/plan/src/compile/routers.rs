//! Routers beside this site.

use std::{collections::BTreeMap, net::SocketAddr, num::NonZeroU8, sync::Arc};

use api::{BgpPeerSpec, PolicyStatement};
use base::{Name, SiteName};
use bgp::table::Filter;

use super::{CompileError, Router, RouterBfd};
use crate::{World, policy};

pub(super) fn compile(
    world: &World,
    site: &SiteName,
) -> Result<BTreeMap<Name, Router>, CompileError> {
    let here = world.routers_of(site);
    here.map(|(object, spec)| {
        let router = router(spec).map_err(|title| CompileError::Resource(object.key(), title))?;
        Ok((object.metadata.name.clone(), router))
    })
    .collect()
}

fn router(spec: &BgpPeerSpec) -> Result<Router, String> {
    Ok(Router {
        address: SocketAddr::new(spec.peer_address, spec.peer_port),
        asn: spec.peer_asn,
        local_asn: spec.local_asn,
        local_address: spec.local_address,
        password: spec.auth.as_ref().map(|auth| auth.password.clone()),
        gtsm: spec.gtsm,
        hold_time: spec.hold_time.0,
        restart_time: spec.restart_time.0,
        bfd: spec.bfd.as_ref().map(|bfd| RouterBfd {
            interval: bfd.interval.0,
            multiplier: NonZeroU8::new(bfd.multiplier).unwrap_or(NonZeroU8::MIN),
            multihop: bfd.multihop,
        }),
        import: Arc::new(filter(&spec.import, Filter::Reject)?),
        export: Arc::new(filter(&spec.export, Filter::Accept)?),
    })
}

fn filter(statements: &[PolicyStatement], without: Filter) -> Result<Filter, String> {
    if statements.is_empty() {
        return Ok(without);
    }
    let policy = policy::of_statements(statements);
    let policy = policy.map_err(|(at, sentence)| format!("{at}: {sentence}"))?;
    Ok(policy.filter())
}
