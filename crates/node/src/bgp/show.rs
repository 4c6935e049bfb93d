//! Routes and neighbours as JSON.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use speaker::server::{
    Attribute, AttributesView, Family, Neighbor, Origin, PathView, RouteView, Routes, Server,
    describe,
};

pub(crate) fn neighbors(all: &[Neighbor]) -> Value {
    let items: Vec<Value> = all
        .iter()
        .map(|neighbor| {
            let count = |which: fn(&(usize, usize)) -> usize| {
                let counts = neighbor.counts.iter();
                counts
                    .map(|(family, pair)| (family.to_string(), json!(which(pair))))
                    .collect::<Map<String, Value>>()
            };
            let session = neighbor.session.as_ref();
            json!({
                "address": neighbor.address.to_string(),
                "asn": neighbor.asn,
                "role": format!("{:?}", neighbor.kind),
                "id": session.and_then(|s| s.node).map(|node| node.to_string()),
                "state": session.map_or("idle", |s| s.state.as_str()),
                "families": session.map(|s| s.families.iter().map(Family::to_string).collect::<Vec<_>>()),
                "received": count(|pair| pair.0),
                "advertised": count(|pair| pair.1),
                "since_s": session.map(|s| s.since.as_secs()),
                "established": session.map(|s| s.established),
                "bfd": session.and_then(|s| s.bfd).map(|bfd| json!({
                    "state": format!("{:?}", bfd.state).to_lowercase(),
                    "detection_ms": bfd.detection.as_millis(),
                })),
                "lastClose": session.and_then(|s| s.last_close.clone()),
            })
        })
        .collect();
    json!({ "items": items })
}

pub(crate) fn routes(server: &Server, found: &[Routes]) -> Value {
    let all = found.iter().flat_map(|routes| &routes.items);
    let items: Vec<Value> = all.map(|route| one(server, route)).collect();
    json!({
        "total": items.len(),
        "more": found.iter().any(|routes| routes.more),
        "items": items,
    })
}

fn one(server: &Server, route: &RouteView) -> Value {
    let paths = route.paths.iter().enumerate();
    let paths: Vec<Value> = paths
        .map(|(position, shown)| path(server, route.family, shown, position == 0))
        .collect();
    json!({
        "family": route.family.to_string(),
        "route": describe(route.family, &route.key),
        "why": route.why.map(|why| why.to_string()),
        "paths": paths,
    })
}

fn path(server: &Server, family: Family, path: &PathView, best: bool) -> Value {
    let view = AttributesView(&path.attributes);
    let from = server
        .address(path.peer)
        .map_or_else(|| "local".to_owned(), |address| address.to_string());
    let mut shown = json!({
        "from": from,
        "best": best,
        "stale": path.stale,
        "nextHop": next_hop(family, view.next_hop()),
        "asPath": view.as_path().to_string(),
        "origin": Origin::name(view.origin()),
        "localPref": view.local_pref(),
        "med": view.med(),
    });
    let Value::Object(fields) = &mut shown else {
        return shown;
    };
    let mut put = |name: &str, value: Value| {
        let empty = value.as_array().is_some_and(Vec::is_empty) || value.is_null();
        if !empty {
            fields.insert(name.to_owned(), value);
        }
    };
    let communities = view
        .communities()
        .map(|c| format!("{}:{}", c >> 16, c & 0xFFFF));
    put("communities", communities.collect());
    let large = view
        .large_communities()
        .map(|[a, b, c]| format!("{a}:{b}:{c}"));
    put("largeCommunities", large.collect());
    put(
        "extendedCommunities",
        view.extended_communities().map(extended).collect(),
    );
    put(
        "originatorId",
        view.originator()
            .map_or(Value::Null, |id| json!(id.to_string())),
    );
    let clusters = view.cluster_list().chunks_exact(4);
    put("clusterList", clusters.map(dotted).collect());
    if !path.reachable {
        put("nextHopReachable", json!(false));
    }
    if path.path_id != 0 {
        put("pathId", json!(path.path_id));
    }
    if !path.value.is_empty() {
        put("value", json!(hex(&path.value)));
    }
    let unknown = view.iter().filter(|attribute| !is_known(attribute.code));
    let unknown = unknown.map(|Attribute { flags, code, value }| {
        json!({ "code": code, "flags": flags, "value": hex(value) })
    });
    put("unknown", unknown.collect());
    shown
}

const fn is_known(code: u8) -> bool {
    matches!(code, 1..=10 | 14..=16 | 32)
}

fn extended(community: [u8; 8]) -> String {
    let [kind, sub, a, b, c, d, e, f] = community;
    let name = match sub {
        2 => "rt",
        3 => "ro",
        _ => return hex(&community),
    };
    let (low, high) = (u16::from_be_bytes([e, f]), u16::from_be_bytes([a, b]));
    match kind & 0x3F {
        0 => format!("{name}:{high}:{}", u32::from_be_bytes([c, d, e, f])),
        1 => format!("{name}:{a}.{b}.{c}.{d}:{low}"),
        2 => format!("{name}:{}:{low}", u32::from_be_bytes([a, b, c, d])),
        _ => hex(&community),
    }
}

/// The address in a next hop, without the RD of a VPN one (RFC 4364 §4.3.2) and the link-local
/// address behind a global one (RFC 2545 §3).
fn next_hop(family: Family, octets: &[u8]) -> String {
    let octets = match (family.safi, octets.len()) {
        (128, 12 | 24 | 48) => &octets[8..],
        _ => octets,
    };
    if let Ok(four) = <[u8; 4]>::try_from(octets) {
        return std::net::Ipv4Addr::from(four).to_string();
    }
    let first = octets.first_chunk::<16>();
    first.map_or_else(
        || hex(octets),
        |sixteen| std::net::Ipv6Addr::from(*sixteen).to_string(),
    )
}

fn dotted(octets: &[u8]) -> String {
    let parts: Vec<String> = octets.iter().map(u8::to_string).collect();
    parts.join(".")
}

fn hex(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{octet:02x}");
        text
    })
}
