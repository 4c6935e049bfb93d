//! Routers beside a site.

use std::net::IpAddr;

use api::{BgpPeerSpec, Object, Problem};

use super::{bad, dangling};
use crate::{World, policy, world::gateway};

/// The most statements of one policy.
const MAX_STATEMENTS: usize = 256;

pub(super) fn bgp_peer(world: &World, object: &Object, spec: &BgpPeerSpec) -> Result<(), Problem> {
    let Some(tenant) = &object.metadata.tenant else {
        return Ok(());
    };
    if world.site(&gateway(tenant, &spec.site)).is_none() {
        return Err(dangling("/spec/site", "gateway", spec.site.as_str()));
    }
    if !is_host(spec.peer_address) {
        return Err(bad("/spec/peerAddress", "the address of one router"));
    }
    if spec.peer_port == 0 {
        return Err(bad("/spec/peerPort", "1 to 65535"));
    }
    let twin = world.bgp_peers().find(|(other, s)| {
        other.key() != object.key()
            && other.metadata.tenant == object.metadata.tenant
            && (&s.site, s.peer_address, s.peer_port)
                == (&spec.site, spec.peer_address, spec.peer_port)
    });
    if let Some((twin, _)) = twin {
        let title = format!("{} is this router already", twin.key());
        return Err(bad("/spec/peerAddress", title));
    }
    for (pointer, asn) in [
        ("/spec/peerASN", spec.peer_asn),
        ("/spec/localASN", spec.local_asn),
    ] {
        if asn == 0 {
            return Err(bad(pointer, "AS 0 is nobody's (RFC 7607)"));
        }
    }
    if let Some(local) = spec.local_address
        && (!is_host(local) || local.is_ipv4() != spec.peer_address.is_ipv4())
    {
        let title = "an address of the node, of the same family as peerAddress";
        return Err(bad("/spec/localAddress", title));
    }
    let hold = spec.hold_time.0;
    if !hold.is_zero() && !(3..=65_535).contains(&hold.as_secs()) {
        let title = "0s (never), or from 3s to 65535s (RFC 4271 §4.2)";
        return Err(bad("/spec/holdTime", title));
    }
    if spec.restart_time.0.as_secs() > 4095 {
        return Err(bad("/spec/restartTime", "at most 4095s (RFC 4724 §3)"));
    }
    if let Some(auth) = &spec.auth
        && !(1..=80).contains(&auth.password.len())
    {
        let title = "1 to 80 bytes (RFC 2385 in Linux)";
        return Err(bad("/spec/auth/password", title));
    }
    if let Some(bfd) = &spec.bfd {
        if !(10..=60_000).contains(&bfd.interval.0.as_millis()) {
            return Err(bad("/spec/bfd/interval", "10ms to 60s"));
        }
        if bfd.multiplier == 0 {
            return Err(bad("/spec/bfd/multiplier", "1 to 255"));
        }
        if bfd.multihop == Some(0) {
            return Err(bad("/spec/bfd/multihop", "1 to 255 hops"));
        }
    }
    for (field, statements) in [("import", &spec.import), ("export", &spec.export)] {
        if statements.len() > MAX_STATEMENTS {
            return Err(bad(format!("/spec/{field}"), "256 statements at most"));
        }
        policy::of_statements(statements)
            .map_err(|(inner, sentence)| bad(format!("/spec/{field}{inner}"), sentence))?;
    }
    Ok(())
}

/// An address that one host may have.
pub(super) const fn is_host(address: IpAddr) -> bool {
    !address.is_unspecified()
        && !address.is_multicast()
        && !matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}
