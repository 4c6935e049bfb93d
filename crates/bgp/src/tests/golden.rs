//! One route of each type and shape, with its octets as written by hand.

use std::{net::IpAddr, sync::Arc};

use base::{LbId, NetworkId, Revision, ServiceId, SiteId};

use super::rd;
use crate::{
    EndpointHealth, Host, HttpMatch, HttpTarget, Key, LinkGrade, LinkHealth, Measure, PathKind,
    PathMatch, PolicyReference, PolicySetId, Seq, ServiceHealth, SiteHealth, State, TunnelId,
    Value,
};

const SERVICE: ServiceId = ServiceId(0x0102_0304_0506_0708);
const SET: PolicySetId = PolicySetId([
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF,
]);

/// A route and the whole of its NLRI.
pub(super) struct Golden {
    pub(super) key: Key,
    pub(super) value: Value,
    pub(super) nlri: String,
}

impl Golden {
    fn new(key: Key, value: Value, nlri: impl Into<String>) -> Self {
        Golden {
            key,
            value,
            nlri: nlri.into(),
        }
    }

    /// How many octets of its value need not be there.
    pub(super) fn optional(&self) -> usize {
        let link = self.value.as_link();
        let link = link.filter(|_| matches!(self.key, Key::Link { .. }));
        let grade = 4 * usize::from(link.is_some_and(|link| link.grade.is_some()));
        grade + 2 * usize::from(link.is_some_and(|link| link.load > 0))
    }

    /// What a withdrawal of it looks like: the value's length is 0, and there is no value.
    pub(super) fn withdrawal(&self) -> Vec<u8> {
        let mut octets = super::hex(&self.nlri);
        octets.truncate(octets.len() - self.value.as_bytes().len());
        octets[3] = 0;
        octets
    }
}

/// All six types: Endpoint with both kinds of address, HTTP with a path and with a digest, Link with
/// and without its sort.
pub(super) fn routes() -> Vec<Golden> {
    vec![
        site(),
        service(),
        endpoint(
            IpAddr::from([10, 0, 0, 9]),
            "03 001e 0c 0001 0000000b 0000 0102030405060708 0000000b 0003 04 0a000009 1f90 06 \
             05 00 64 10 0fa0 0000 01020306",
        ),
        endpoint(
            IpAddr::from([0x2001, 0xDB8, 0, 0, 0, 0, 0, 1]),
            "03 002a 0c 0001 0000000b 0000 0102030405060708 0000000b 0003 10 \
             20010db8000000000000000000000001 1f90 06 05 00 64 10 0fa0 0000 01020306",
        ),
        http(
            "shop.example",
            "/api",
            "04 0024 28 0001 0000000b 0000 1112131415161718 0c 73686f702e6578616d706c65 \
             02 0004 2f617069",
        ),
        http(
            "",
            &format!("/{}", "x".repeat(200)),
            &format!(
                "04 0034 28 0001 0000000b 0000 1112131415161718 00 04 0020 {}",
                "d1".repeat(32)
            ),
        ),
        policy(),
        link(),
        graded_link(),
        loaded_link(),
    ]
}

fn site() -> Golden {
    let health = SiteHealth {
        state: State::Healthy,
        flags: 0,
        load: 0x4000,
        // 5000 = 2500 · 2¹ → 0x9C4 | 1.
        capacity: Measure::new(5000),
        seq: Seq(0x0102_0304),
    };
    let key = Key::Site {
        rd: rd(11),
        site: SiteId(11),
    };
    Golden::new(
        key,
        Value::site(&health),
        "01 000c 0c 0001 0000000b 0000 0000000b 01 00 4000 9c41 0000 01020304",
    )
}

fn service() -> Golden {
    let health = ServiceHealth {
        state: State::Degraded,
        flags: 0,
        load: 0x8000,
        healthy: 7,
        total: 9,
        weights: 700,
        rtt: Measure::new(250),
        capacity: Measure::new(5000),
        seq: Seq(0x0102_0305),
    };
    let key = Key::Service {
        rd: rd(11),
        service: SERVICE,
        site: SiteId(11),
    };
    Golden::new(
        key,
        Value::service(&health),
        "02 0014 18 0001 0000000b 0000 0102030405060708 0000000b \
         02 00 8000 00000007 00000009 000002bc 0fa0 9c41 01020305",
    )
}

fn endpoint(address: IpAddr, nlri: &str) -> Golden {
    let health = EndpointHealth {
        state: State::Unhealthy,
        flags: 0,
        weight: 100,
        load: 16,
        rtt: Measure::new(250),
        capacity: Measure::new(0),
        seq: Seq(0x0102_0306),
    };
    let key = Key::Endpoint {
        rd: rd(11),
        service: SERVICE,
        site: SiteId(11),
        network: NetworkId(3),
        address,
        port: 8080,
        protocol: 6,
    };
    Golden::new(key, Value::endpoint(&health), nlri)
}

fn http(host: &str, path: &str, frame_and_key: &str) -> Golden {
    let target = HttpTarget {
        state: State::Healthy,
        flags: 0,
        priority: 10,
        service: SERVICE,
        policy: SET,
        revision: Revision(42),
        seq: Seq(0x0102_0307),
    };
    let path = PathMatch::new(PathKind::Prefix, path, |_| [0xD1; 32]).expect("a good path");
    let key = Key::HttpRoute {
        rd: rd(11),
        lb: LbId(0x1112_1314_1516_1718),
        http: Arc::new(HttpMatch {
            host: Host::new(host).expect("a good host"),
            path,
        }),
    };
    Golden::new(
        key,
        Value::http_route(&target),
        format!(
            "{frame_and_key} 01 00 000a 0102030405060708 00112233445566778899aabbccddeeff \
             000000000000002a 01020307"
        ),
    )
}

fn policy() -> Golden {
    let reference = PolicyReference {
        state: State::Healthy,
        flags: 0,
        urgency: 5,
        revision: Revision(42),
        digest: [0xD2; 32],
        seq: Seq(0x0102_0308),
    };
    let key = Key::Policy {
        rd: rd(11),
        set: SET,
    };
    Golden::new(
        key,
        Value::policy(&reference),
        format!(
            "05 0018 30 0001 0000000b 0000 00112233445566778899aabbccddeeff \
             01 00 05 00 000000000000002a {} 01020308",
            "d2".repeat(32)
        ),
    )
}

fn link() -> Golden {
    let health = LinkHealth {
        state: State::Healthy,
        flags: 0,
        // 12000 = 3000 · 2² → 0xBB8 | 2.
        rtt: Measure::new(12_000),
        jitter: Measure::new(300),
        loss: 327,
        bandwidth_kbit_s: 1_000_000,
        seq: Seq(0x0102_0309),
        grade: None,
        load: 0,
    };
    let key = Key::Link {
        rd: rd(11),
        from: SiteId(11),
        to: SiteId(12),
        tunnel: TunnelId(3),
    };
    Golden::new(
        key,
        Value::link(&health),
        "06 0014 10 0001 0000000b 0000 0000000b 0000000c 00000003 \
         01 00 bb82 12c0 0147 000f4240 01020309",
    )
}

fn graded_link() -> Golden {
    let health = LinkHealth {
        state: State::Healthy,
        rtt: Measure::new(12_000),
        jitter: Measure::new(300),
        seq: Seq(0x0102_0309),
        grade: Some(LinkGrade { class: 1, cost: 2 }),
        ..LinkHealth::default()
    };
    let key = Key::Link {
        rd: rd(11),
        from: SiteId(11),
        to: SiteId(12),
        tunnel: TunnelId(4),
    };
    Golden::new(
        key,
        Value::link(&health),
        "06 0014 14 0001 0000000b 0000 0000000b 0000000c 00000004 \
         01 00 bb82 12c0 0000 00000000 01020309 01 00 0002",
    )
}

fn loaded_link() -> Golden {
    let health = LinkHealth {
        state: State::Healthy,
        rtt: Measure::new(12_000),
        jitter: Measure::new(300),
        bandwidth_kbit_s: 100_000,
        seq: Seq(0x0102_0309),
        grade: Some(LinkGrade { class: 0, cost: 1 }),
        // 9/10.
        load: 58_982,
        ..LinkHealth::default()
    };
    let key = Key::Link {
        rd: rd(11),
        from: SiteId(11),
        to: SiteId(12),
        tunnel: TunnelId(5),
    };
    Golden::new(
        key,
        Value::link(&health),
        "06 0014 16 0001 0000000b 0000 0000000b 0000000c 00000005 \
         01 00 bb82 12c0 0000 000186a0 01020309 00 00 0001 e666",
    )
}
