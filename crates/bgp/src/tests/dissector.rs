//! tshark with `docs/protocol/mesh.lua` reads what we wrote: every field of every type as it was
//! sent, and nothing malformed.

mod pcap;

use std::{
    collections::BTreeSet,
    io::Write as _,
    process::{Command, Stdio},
};

use serde_json::Value as Json;

use super::{ASN, golden};
use crate::{
    FabricConfig, Facts, Family, Key, Notification, PeerConfig, RawAttribute, RouteTarget, Value,
    tests::{golden::Golden, hex},
    wire,
};

/// What tshark 4.0 prints for these octets of a stream, a packet a line of the list; `None`
/// without tshark, which is a failure where everything is required.
fn tshark(capture: &[u8], options: &[&str]) -> Option<Vec<Json>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/protocol/mesh.lua");
    let child = Command::new("tshark")
        .args(["-n", "-r", "-", "-X"])
        .arg(format!("lua_script:{script}"))
        .args(["-T", "json", "--no-duplicate-keys"])
        .args(options)
        // Nobody's own profile, preferences or plugins.
        .env("WIRESHARK_CONFIG_DIR", "/nonexistent")
        .env("HOME", "/nonexistent")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let required = std::env::var("SEALANE_REQUIRE").is_ok_and(|what| what == "all");
            assert!(!required, "tshark is required and not installed");
            println!("skipped: tshark is not installed");
            return None;
        }
        Err(error) => panic!("tshark does not start: {error}"),
    };
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(capture).expect("tshark reads");
    drop(stdin);
    let output = child.wait_with_output().expect("tshark ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tshark: {stderr}");
    assert!(!stderr.contains("Lua"), "tshark: {stderr}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(!text.contains("Lua Error"), "{text}");
    Some(serde_json::from_str(&text).expect("JSON"))
}

/// The objects and values under `name` wherever it is, in order.
fn under<'a>(json: &'a Json, name: &str, found: &mut Vec<&'a Json>) {
    match json {
        Json::Object(fields) => {
            for (key, value) in fields {
                if key != name {
                    under(value, name, found);
                } else if let Json::Array(all) = value {
                    found.extend(all);
                } else {
                    found.push(value);
                }
            }
        }
        Json::Array(all) => all.iter().for_each(|json| under(json, name, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn all<'a>(json: impl IntoIterator<Item = &'a Json>, name: &str) -> Vec<&'a Json> {
    let mut found = Vec::new();
    json.into_iter().for_each(|j| under(j, name, &mut found));
    found
}

fn texts<'a>(json: impl IntoIterator<Item = &'a Json>, name: &str) -> Vec<&'a str> {
    let found = all(json, name).into_iter();
    found.map(|json| json.as_str().expect("text")).collect()
}

/// Neither the script nor the built-in dissector has anything to remark on.
fn assert_clean(packets: &[Json]) {
    for name in ["_ws.malformed", "_ws.expert"] {
        let found = all(packets, name);
        assert!(found.is_empty(), "{name}: {found:#?}");
    }
}

fn facts() -> Facts {
    Facts {
        zone: Some("eu-1a".to_owned()),
        protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
        identity: Some([0xD3; 32]),
    }
}

/// Of a route that two reflectors have passed on.
fn reflected() -> Vec<u8> {
    let mut out = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
    let target = super::target(1, RouteTarget::SERVICE).to_community();
    let targets = [target, [0x03, 0x0C, 0, 0, 0, 0, 0, 8]].concat();
    wire::put_attribute(&mut out, 0x80, 9, &[0, 0, 0, 7]);
    wire::put_attribute(&mut out, 0x80, 10, &[0, 0, 0, 1, 0, 0, 0, 2]);
    wire::put_attribute(&mut out, 0x80, 14, &[0, 0, 0, 7]);
    wire::put_attribute(&mut out, 0xC0, 16, &targets);
    let RawAttribute { flags, code, value } = RawAttribute::facts(facts().encode());
    wire::put_attribute(&mut out, flags, code, &value);
    out
}

fn encoding() -> wire::Encoding {
    wire::Encoding {
        max_message: wire::MAX_MESSAGE,
        four_octet_as: true,
        add_path: false,
    }
}

fn octets(key: &Key) -> Vec<u8> {
    let mut out = vec![key.kind()];
    key.encode(&mut out);
    out
}

fn announcement(routes: &[(Key, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    let (family, attributes) = (Family::MESH, reflected());
    let mut update = wire::UpdateBuilder::announce(&mut out, family, &encoding(), &attributes)
        .expect("room for one");
    for (key, value) in routes {
        assert!(update.push(0, &octets(key), value.as_bytes()), "all fit");
    }
    update.finish();
    out
}

fn withdrawal(keys: &[Key]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut update = wire::UpdateBuilder::withdraw(&mut out, Family::MESH, &encoding());
    for key in keys {
        assert!(update.push(0, &octets(key), &[]), "all fit");
    }
    update.finish();
    out
}

/// What a node of ours opens a session with.
fn open() -> wire::OpenMessage {
    let own = FabricConfig::new(base::NodeId(0x0A00_0001), ASN);
    PeerConfig::pop(base::NodeId(8)).connection(&own).open()
}

/// Every sort of message, the routes of [`golden::routes`] in each direction.
fn session() -> Vec<Vec<u8>> {
    let routes: Vec<(Key, Value)> = golden::routes()
        .into_iter()
        .map(|r| (r.key, r.value))
        .collect();
    let keys: Vec<Key> = routes.iter().map(|(key, _)| key.clone()).collect();
    vec![
        open().encode().to_vec(),
        wire::keepalive().to_vec(),
        wire::route_refresh(Family::MESH, wire::RefreshKind::Request).to_vec(),
        announcement(&routes),
        wire::end_of_rib(Family::MESH).to_vec(),
        withdrawal(&keys),
        Notification::with_data(6, 2, b"\x03bye").encode().to_vec(),
    ]
}

/// The fields of a route as tshark prints them; those of the value only if it is announced.
fn fields(route: &Golden, announced: bool) -> Vec<(&'static str, String)> {
    let rd = route.key.rd();
    let mut all = vec![
        ("type", route.key.kind().to_string()),
        ("rd", format!("{}:{}", rd.site, rd.slot)),
        ("rd.type", "1".to_owned()),
        ("rd.site", rd.site.to_string()),
        ("rd.slot", rd.slot.to_string()),
    ];
    match &route.key {
        Key::Site { site, .. } => all.push(("site", site.to_string())),
        Key::Service { service, site, .. } => {
            all.push(("service", format!("0x{:016x}", service.0)));
            all.push(("site", site.to_string()));
        }
        Key::Endpoint {
            service,
            site,
            network,
            address,
            port,
            protocol,
            ..
        } => {
            let address_field = if address.is_ipv4() {
                "address.ipv4"
            } else {
                "address.ipv6"
            };
            all.extend([
                ("service", format!("0x{:016x}", service.0)),
                ("site", site.to_string()),
                ("network", network.to_string()),
                (address_field, address.to_string()),
                ("port", port.to_string()),
                ("protocol", protocol.to_string()),
            ]);
        }
        Key::HttpRoute { lb, http, .. } => {
            all.push(("lb", format!("0x{:016x}", lb.0)));
            all.push(("host", http.host.as_str().to_owned()));
            all.extend(path(&http.path));
        }
        Key::Policy { set, .. } => all.push(("set", colons(&set.0))),
        Key::Link {
            from, to, tunnel, ..
        } => all.extend([
            ("link.from", from.to_string()),
            ("link.to", to.to_string()),
            ("tunnel", tunnel.to_string()),
        ]),
        Key::Unknown { .. } => unreachable!("every golden route has a known type"),
    }
    if announced {
        all.push(("action", "1".to_owned()));
        all.extend(value_fields(route));
    } else {
        all.push(("action", "0".to_owned()));
        all.push(("value_length", "0".to_owned()));
    }
    all
}

fn path(path: &crate::PathMatch) -> [(&'static str, String); 2] {
    use crate::PathMatch::{Digest, Exact, Prefix, Regex};
    let (kind, text) = match path {
        Exact(path) => ("1", ("path", path.as_str().to_owned())),
        Prefix(path) => ("2", ("path", path.as_str().to_owned())),
        Regex(path) => ("3", ("path", path.as_str().to_owned())),
        Digest(digest) => ("4", ("path.digest", colons(digest))),
    };
    [("path.kind", kind.to_owned()), text]
}

fn value_fields(route: &Golden) -> Vec<(&'static str, String)> {
    let v = &route.value;
    let state = v.state().expect("a state").number().to_string();
    let seq = v.seq(&route.key).expect("a seq").to_string();
    let length = v.as_bytes().len().to_string();
    let mut all = vec![
        ("version", "0".to_owned()),
        ("state", state),
        ("flags", "0x00".to_owned()),
        ("seq", seq),
        ("value_length", length),
    ];
    let mut put = |name, value: &dyn ToString| all.push((name, value.to_string()));
    match route.key {
        Key::Site { .. } => {
            let v = v.as_site().expect("a site's");
            put("load", &v.load);
            put("capacity", &v.capacity.quantity());
        }
        Key::Service { .. } => {
            let v = v.as_service().expect("a service's");
            put("load", &v.load);
            put("healthy", &v.healthy);
            put("total", &v.total);
            put("weights", &v.weights);
            put("rtt", &v.rtt.quantity());
            put("capacity", &v.capacity.quantity());
        }
        Key::Endpoint { .. } => {
            let v = v.as_endpoint().expect("an endpoint's");
            put("weight", &v.weight);
            put("load8", &v.load);
            put("rtt", &v.rtt.quantity());
            put("capacity", &v.capacity.quantity());
        }
        Key::HttpRoute { .. } => {
            let v = v.as_http_route().expect("an HTTP route's");
            put("priority", &v.priority);
            put("service", &format!("0x{:016x}", v.service.0));
            put("policy", &colons(&v.policy.0));
            put("revision", &v.revision);
        }
        Key::Policy { .. } => {
            let v = v.as_policy().expect("a policy's");
            put("urgency", &v.urgency);
            put("revision", &v.revision);
            put("digest", &colons(&v.digest));
        }
        Key::Link { .. } => {
            let v = v.as_link().expect("a link's");
            put("rtt", &v.rtt.quantity());
            put("jitter", &v.jitter.quantity());
            put("loss", &v.loss);
            put("bandwidth", &v.bandwidth_kbit_s);
            if let Some(grade) = v.grade {
                put("link.class", &grade.class);
                put("link.cost", &grade.cost);
            }
            if v.load > 0 {
                put("load", &v.load);
            }
        }
        Key::Unknown { .. } => unreachable!("every golden route has a known type"),
    }
    all
}

fn colons(octets: &[u8]) -> String {
    let all: Vec<String> = octets.iter().map(|b| format!("{b:02x}")).collect();
    all.join(":")
}

/// What tshark says of one route: our fields, each once, and no other but the lengths and
/// summaries that carry no news.
fn assert_route(json: &Json, want: &Golden, announced: bool) {
    let want_fields = fields(want, announced);
    for (name, value) in &want_fields {
        let got = texts([json], &format!("bgpmesh.{name}"));
        assert_eq!(got, [value], "bgpmesh.{name} of {}", want.key);
    }
    let mut names = BTreeSet::new();
    field_names(json, &mut names);
    for (name, _) in &want_fields {
        names.remove(&format!("bgpmesh.{name}"));
    }
    let furniture = [
        "summary",
        "key",
        "key_tree",
        "key_length",
        "value",
        "value_tree",
        "address_length",
        "host_length",
        "path_length",
        "reserved",
        "rd_tree",
    ];
    names.retain(|name| furniture.iter().all(|f| *name != format!("bgpmesh.{f}")));
    assert!(names.is_empty(), "unexpected {names:?} of {}", want.key);
    let summary = texts([json], "bgpmesh.summary")[0];
    let action = if announced { "announce " } else { "withdraw " };
    assert!(summary.starts_with(action), "{summary}");
}

fn field_names(json: &Json, names: &mut BTreeSet<String>) {
    if let Json::Object(fields) = json {
        for (name, value) in fields {
            names.insert(name.clone());
            field_names(value, names);
        }
    }
}

fn assert_session(packets: &[Json]) {
    assert_clean(packets);
    let routes = all(packets, "bgpmesh.route");
    let want = golden::routes();
    assert_eq!(routes.len(), 2 * want.len(), "announced and withdrawn");
    for (json, want) in routes[..want.len()].iter().zip(&want) {
        assert_route(json, want, true);
    }
    for (json, want) in routes[want.len()..].iter().zip(&want) {
        assert_route(json, want, false);
    }
    let check = |name: &str, want: &[&str]| assert_eq!(texts(packets, name), want, "{name}");
    check("bgpmesh.next_hop", &["0.0.0.7"]);
    check("bgpmesh.end_of_rib", &["1"]);
    check("bgpmesh.origin", &["0"]);
    check("bgpmesh.local_pref", &["100"]);
    check("bgpmesh.originator", &["0.0.0.7"]);
    check("bgpmesh.cluster", &["0.0.0.1", "0.0.0.2"]);
    check("bgpmesh.route_target", &["1:2"]);
    check("bgpmesh.community", &["03:0c:00:00:00:00:00:08"]);
    check("bgpmesh.facts.zone", &["eu-1a"]);
    check("bgpmesh.facts.protocol", &["h2", "http/1.1"]);
    check("bgpmesh.facts.identity", &[&colons(&[0xD3; 32])]);
    // The built-in dissector keeps what it knows: OPEN, KEEPALIVE, ROUTE-REFRESH, NOTIFICATION.
    check("bgp.type", &["1", "4", "5", "3"]);
    check("bgp.open.identifier", &["10.0.0.1"]);
    check("bgp.cap.mp.afi", &["16397", "1"]);
    check("bgp.cap.mp.safi", &["244", "132"]);
    check("bgp.route_refresh.afi", &["16397"]);
    check("bgp.notify.communication", &["bye"]);
}

#[test]
fn every_message_in_its_own_segment() {
    if let Some(packets) = tshark(&pcap::capture(&session()), &[]) {
        assert_eq!(packets.len(), session().len());
        assert_session(&packets);
    }
}

#[test]
fn messages_across_segments() {
    let stream = session().concat();
    for size in [64, 1448] {
        let segments: Vec<Vec<u8>> = stream.chunks(size).map(<[u8]>::to_vec).collect();
        let Some(packets) = tshark(&pcap::capture(&segments), &[]) else {
            return;
        };
        assert_session(&packets);
    }
}

#[test]
fn a_capture_that_begins_inside_a_message() {
    let mut messages = session();
    messages[0].drain(..40);
    if let Some(packets) = tshark(&pcap::capture(&[messages.concat()]), &[]) {
        assert_clean(&packets);
        let routes = all(&packets, "bgpmesh.route");
        assert_eq!(routes.len(), 2 * golden::routes().len());
    }
}

/// A whole UPDATE around these attributes, of any length (RFC 8654).
fn update(attributes: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    let length = |n: usize| u16::try_from(n).expect("two octets").to_be_bytes();
    out.extend(length(wire::HEADER + 4 + attributes.len()));
    out.extend([2, 0, 0]);
    out.extend(length(attributes.len()));
    out.extend_from_slice(attributes);
    out
}

fn reach(nlri: &[u8]) -> Vec<u8> {
    let length = u16::try_from(9 + nlri.len()).expect("two octets");
    let mut out = hex("90 0e");
    out.extend(length.to_be_bytes());
    out.extend(hex("400d f4 04 00000007 00"));
    out.extend_from_slice(nlri);
    out.extend(hex("40 01 01 00 40 02 00 40 05 04 00000064"));
    out
}

#[test]
fn long_messages_and_path_identifiers() {
    let mut nlri = Vec::new();
    for n in 0..200u32 {
        for route in golden::routes() {
            nlri.extend(n.to_be_bytes());
            nlri.extend(hex(&route.nlri));
        }
    }
    let long = update(&reach(&nlri[..nlri.len() / 2]));
    assert!(long.len() > wire::MAX_MESSAGE);
    let add_path = ["-o", "bgpmesh.add_path:TRUE"];
    let Some(packets) = tshark(&pcap::capture(&[long]), &add_path) else {
        return;
    };
    assert_clean(&packets);
    let want = golden::routes();
    let routes = all(&packets, "bgpmesh.route");
    assert_eq!(routes.len(), 100 * want.len());
    for (n, json) in routes.iter().enumerate() {
        let got = texts([*json], "bgpmesh.path_id");
        assert_eq!(got, [(n / want.len()).to_string()]);
    }
}

#[test]
fn what_is_wrong_is_said() {
    let good = hex(&golden::routes()[0].nlri);
    let mut bad_key = good.clone();
    bad_key[5] = 2;
    let mut bad_value = good.clone();
    bad_value[16] = 7;
    let cut = &good[..good.len() - 1];
    let unknown = hex("c8 000c 02 0001 0000000b 0000 deadbeef 0102");
    let messages = [&good[..], &bad_key, &bad_value, cut, &unknown].map(|n| update(&reach(n)));
    let Some(packets) = tshark(&pcap::capture(&messages), &[]) else {
        return;
    };
    assert!(all(&packets, "_ws.malformed").is_empty());
    let said = |packet: &Json| {
        let names = ["bgpmesh.bad_key", "bgpmesh.bad_value", "bgpmesh.overrun"];
        let found = names.into_iter().filter(|n| !all([packet], n).is_empty());
        found.collect::<Vec<_>>()
    };
    let got: Vec<Vec<&str>> = packets.iter().map(said).collect();
    let want: [&[&str]; 5] = [
        &[],
        &["bgpmesh.bad_key"],
        &["bgpmesh.bad_value"],
        &["bgpmesh.overrun"],
        &[],
    ];
    assert_eq!(got, want);
    assert_eq!(texts(&packets[4..], "bgpmesh.body"), ["de:ad:be:ef"]);
}
