//! By data, through the room's door.

mod again;
mod authority;
mod corpus;
mod decode;
mod dissector;
mod fabric;
mod golden;
mod mesh;
mod noise;
mod open;

use std::net::IpAddr;

use base::{NetworkId, ServiceId, SiteId, SlotId, TenantId};

use crate::{
    EndpointHealth, Grant, Key, LocalRoute, Rd, RouteTarget, Seq, SiteTable, State, Value,
};

const ASN: u32 = 4_200_000_000;

/// Octets from hex; blanks and line ends between them do not count.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|d| u8::try_from(d).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

fn rd(site: u32) -> Rd {
    Rd {
        site: SiteId(site),
        slot: SlotId(0),
    }
}

fn endpoint(site: u32, n: u8) -> Key {
    Key::Endpoint {
        rd: rd(site),
        service: ServiceId(0x0102_0304_0506_0708),
        site: SiteId(site),
        network: NetworkId(0),
        address: IpAddr::from([10, 0, 0, n]),
        port: 8080,
        protocol: 6,
    }
}

fn health(state: State, seq: u32) -> Value {
    Value::endpoint(&EndpointHealth {
        state,
        weight: 100,
        seq: Seq(seq),
        ..EndpointHealth::default()
    })
}

fn target(tenant: u32, selector: u16) -> RouteTarget {
    RouteTarget {
        tenant: TenantId(tenant),
        selector,
    }
}

fn local(key: Key, value: Value, tenant: u32) -> LocalRoute {
    LocalRoute {
        key,
        value,
        route_targets: vec![target(tenant, RouteTarget::SERVICE)],
        extra: vec![],
    }
}

/// Sites 11 and 12 of tenant 1, site 21 of tenant 2, site 91 of the fabric; slot 0 each.
fn table() -> SiteTable {
    let grant = |tenant| Grant {
        tenant: TenantId(tenant),
        slots: [(SlotId(0), TenantId(tenant))].into(),
        nodes: [].into(),
    };
    let sites = [(11, 1), (12, 1), (21, 2), (91, 0)];
    SiteTable {
        sites: sites
            .map(|(site, tenant)| (SiteId(site), grant(tenant)))
            .into(),
    }
}
