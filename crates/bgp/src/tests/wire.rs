use std::time::Duration;

use base::NodeId;

use super::{ASN, announce, attributes, endpoint, health, hex};
use crate::{
    Attributes, Family, Key, Notification, RawAttribute, RouteTarget, State, Update, Value,
    wire::{
        self, HEADER, MAX_MESSAGE, MessageKind, Open, OpenExpectation, UpdateFindings,
        UpdateOutcome, decode_update,
    },
};

pub(super) const MARKER: &str = "ffffffffffffffffffffffffffffffff";
const KEY: &str = "0001 0000000b 0000 0102030405060708 0000000b 0000 04 0a000001 1f90 06";
const VALUE: &str = "01 00 64 00 0000 0000 00000005";

pub(super) fn open() -> Open {
    Open {
        asn: ASN,
        four_octet_as: true,
        hold_time_s: 30,
        node: NodeId(0x0A00_0001),
        families: vec![Family::MESH],
        route_refresh: true,
    }
}

/// Every message, encoded by us, with its golden octets.
pub(super) fn golden() -> Vec<(Vec<u8>, String)> {
    let rich = Attributes {
        originator: Some(NodeId(7)),
        clusters: vec![NodeId(1), NodeId(2)],
        communities: vec![[0x03, 0x0C, 0, 0, 0, 0, 0, 8]],
        extra: vec![RawAttribute::facts(vec![1, 2, 3])],
        ..attributes(7, 1)
    };
    let routes = [(endpoint(11, 1), health(State::Healthy, 5))];
    let keys = [endpoint(11, 1)];
    let reach = |len: &str| format!("900e {len} 400d f4 04 00000007 00 03 001e 0c {KEY} {VALUE}");
    let announcement = |a: &Attributes| {
        wire::encode_announcement(Family::MESH, a, &routes)
            .expect("fits")
            .0
    };
    vec![
        (
            open().encode().to_vec(),
            format!(
                "{MARKER} 002d 01 04 5ba0 001e 0a000001 10 02 0e \
                 01 04 400d 00 f4  02 00  41 04 fa56ea00"
            ),
        ),
        (wire::keepalive().to_vec(), format!("{MARKER} 0013 04")),
        (
            Notification::with_data(6, 2, b"bye").encode().to_vec(),
            format!("{MARKER} 0018 03 06 02 627965"),
        ),
        (
            wire::route_refresh(Family::MESH, wire::RefreshKind::Request).to_vec(),
            format!("{MARKER} 0017 05 400d 00 f4"),
        ),
        (
            wire::end_of_rib(Family::MESH).to_vec(),
            format!("{MARKER} 001d 02 0000 0006 80 0f 03 400d f4"),
        ),
        (
            wire::encode_withdrawal(Family::MESH, &keys).0.to_vec(),
            format!("{MARKER} 0040 02 0000 0029 90 0f 0025 400d f4 03 001e 00 {KEY}"),
        ),
        (
            announcement(&attributes(7, 1)).to_vec(),
            format!(
                "{MARKER} 006b 02 0000 0054 {} 40 01 01 00  40 02 00  40 05 04 00000064 \
                 c0 10 08 0102 00000001 0002",
                reach("0037")
            ),
        ),
        (
            announcement(&rich).to_vec(),
            format!(
                "{MARKER} 008b 02 0000 0074 {} 40 01 01 00  40 02 00  40 05 04 00000064 \
                 80 09 04 00000007  80 0a 08 00000001 00000002 \
                 c0 10 10 0102 00000001 0002 030c 000000000008  c0 f4 03 010203",
                reach("0037")
            ),
        ),
    ]
}

#[test]
fn golden_octets() {
    for (ours, golden) in golden() {
        let golden = hex(&golden);
        assert_eq!(format!("{ours:02x?}"), format!("{golden:02x?}"));
        let (_, length) = wire::frame(&golden, 4096).expect("good").expect("whole");
        assert_eq!(length, golden.len());
        for cut in 0..golden.len() {
            assert_eq!(wire::frame(&golden[..cut], 4096), Ok(None));
        }
    }
}

#[test]
fn headers_are_checked() {
    let check = |header: &str, code, subcode| {
        let got = wire::frame(&hex(header), 4096).expect_err(header);
        assert_eq!((got.code, got.subcode), (code, subcode), "{header}");
    };
    check("00ffffffffffffffffffffffffffffff 0013 04", 1, 1);
    check(&format!("{MARKER} 0012 04"), 1, 2);
    check(&format!("{MARKER} 1001 02"), 1, 2);
    check(&format!("{MARKER} 0014 04"), 1, 2);
    check(&format!("{MARKER} 001c 01"), 1, 2);
    check(&format!("{MARKER} 0013 06"), 1, 3);
}

#[test]
fn opens_are_judged() {
    let want = OpenExpectation {
        asn: ASN,
        own: NodeId(9),
        peer: None,
        family: Family::MESH,
    };
    let check = |open: Open, want: &OpenExpectation, expect: Result<u64, (u8, u8)>| {
        let open = Open::decode(&open.encode()[HEADER..]).expect("well formed");
        let got = open.judge(want, Duration::from_secs(90));
        assert_eq!(
            got.map(|d| d.as_secs()).map_err(|n| (n.code, n.subcode)),
            expect
        );
    };
    check(open(), &want, Ok(30));
    check(
        Open {
            hold_time_s: 180,
            ..open()
        },
        &want,
        Ok(90),
    );
    check(
        Open {
            asn: ASN + 1,
            ..open()
        },
        &want,
        Err((2, 2)),
    );
    check(
        Open {
            node: NodeId(0),
            ..open()
        },
        &want,
        Err((2, 3)),
    );
    check(
        Open {
            node: NodeId(9),
            ..open()
        },
        &want,
        Err((2, 3)),
    );
    let halves = OpenExpectation {
        peer: Some(NodeId(9)),
        ..want
    };
    check(
        Open {
            node: NodeId(9),
            ..open()
        },
        &halves,
        Ok(30),
    );
    check(open(), &halves, Err((2, 3)));
    check(
        Open {
            hold_time_s: 2,
            ..open()
        },
        &want,
        Err((2, 6)),
    );
    check(
        Open {
            hold_time_s: 0,
            ..open()
        },
        &want,
        Err((2, 6)),
    );
    check(
        Open {
            families: vec![Family { afi: 1, safi: 1 }],
            ..open()
        },
        &want,
        Err((2, 7)),
    );
    let old = OpenExpectation { asn: 64512, ..want };
    check(
        Open {
            asn: 64512,
            four_octet_as: false,
            ..open()
        },
        &old,
        Err((2, 7)),
    );
}

#[test]
fn opens_tolerate_and_refuse() {
    let check = |body: &str, expect: Result<u32, (u8, u8)>| {
        let got = Open::decode(&hex(body))
            .map(|o| o.asn)
            .map_err(|n| (n.code, n.subcode));
        assert_eq!(got, expect, "{body}");
    };
    check("04 fc00 001e 0a000001 00", Ok(64512));
    check("04 fc00 001e 0a000001 08 02 06 c8 04 deadbeef", Ok(64512));
    check("03 fc00 001e 0a000001 00", Err((2, 1)));
    check("04 fc00 001e 0a000001 03 01 01 00", Err((2, 4)));
    check("04 fc00 001e 0a000001 04 02 06 c8 04", Err((2, 0)));
    check("04 fc00 001e 0a000001 00 00", Err((2, 0)));
}

/// An UPDATE body around these path attributes.
fn body(attributes: &str) -> Vec<u8> {
    let attributes = hex(attributes);
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    [&[0, 0], &length[..], &attributes].concat()
}

fn decode(body: &[u8]) -> (Result<UpdateOutcome, (u8, u8)>, UpdateFindings) {
    let mut findings = UpdateFindings::default();
    let got = decode_update(body, Family::MESH, &mut findings);
    (got.map_err(|n| (n.code, n.subcode)), findings)
}

const ORIGIN: &str = "40 01 01 00";
const AS_PATH: &str = "40 02 00";
const LOCAL_PREF: &str = "40 05 04 00000064";
const TARGET: &str = "c0 10 08 0102 00000001 0002";

fn reach() -> String {
    format!("900e 0037 400d f4 04 00000007 00 03 001e 0c {KEY} {VALUE}")
}

fn announced(attributes: Attributes) -> UpdateOutcome {
    UpdateOutcome::Routes(announce(
        attributes,
        vec![(endpoint(11, 1), health(State::Healthy, 5))],
    ))
}

fn withdrawn() -> UpdateOutcome {
    UpdateOutcome::Routes(Update {
        attributes: None,
        announced: vec![],
        withdrawn: vec![endpoint(11, 1)],
    })
}

/// RFC 7606, attribute by attribute, each beside a good set of the others.
#[test]
fn treat_as_withdraw() {
    let reach = reach();
    for bad in [
        format!("{AS_PATH} {LOCAL_PREF} {TARGET}"),
        format!("{ORIGIN} {LOCAL_PREF} {TARGET}"),
        format!("{ORIGIN} {AS_PATH} {TARGET}"),
        format!("40 01 01 03 {AS_PATH} {LOCAL_PREF} {TARGET}"),
        format!("40 01 02 0000 {AS_PATH} {LOCAL_PREF} {TARGET}"),
        format!("c0 01 01 00 {AS_PATH} {LOCAL_PREF} {TARGET}"),
        format!("{ORIGIN} 40 02 02 0200 {LOCAL_PREF} {TARGET}"),
        format!("{ORIGIN} 40 02 06 0202 0000fc00 {LOCAL_PREF} {TARGET}"),
        format!("{ORIGIN} 40 02 06 0901 0000fc00 {LOCAL_PREF} {TARGET}"),
        format!("{ORIGIN} {AS_PATH} 40 05 03 000064 {TARGET}"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} c0 10 07 0102 00000001 00"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} c0 10 00"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET} 80 09 03 000000"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET} 80 0a 00"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET} 80 0a 05 0000000000"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET} 80 04 01 00"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET} c0 08 03 000000"),
        format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET} c0 f4 09 00"),
    ] {
        let (outcome, findings) = decode(&body(&format!("{reach} {bad}")));
        assert_eq!(outcome, Ok(withdrawn()), "{bad}");
        assert_eq!(findings.treated_as_withdrawn, 1, "{bad}");
    }
}

#[test]
fn attributes_are_discarded_or_passed_on() {
    let good = format!("{} {ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET}", reach());
    let check = |more: &str, extra: Vec<RawAttribute>, discarded| {
        let (outcome, findings) = decode(&body(&format!("{good} {more}")));
        assert_eq!(
            outcome,
            Ok(announced(Attributes {
                extra,
                ..attributes(7, 1)
            })),
            "{more}"
        );
        assert_eq!(findings.discarded_attributes, discarded, "{more}");
    };
    check("", vec![], 0);
    check("40 06 01 00", vec![], 1);
    check("c0 07 06 000000000000", vec![], 1);
    check("40 01 01 02", vec![], 1);
    check("40 03 04 0a000001", vec![], 0);
    check("80 e6 01 00", vec![], 0);
    let unknown = |flags| RawAttribute {
        flags,
        code: 0xE6,
        value: vec![9],
    };
    check("c0 e6 01 09", vec![unknown(0xE0)], 0);
    check("d0 e6 0001 09", vec![unknown(0xE0)], 0);
    check(
        "c0 f4 03 010203",
        vec![RawAttribute::facts(vec![1, 2, 3])],
        0,
    );
}

#[test]
fn session_resets() {
    let check = |octets: Vec<u8>, expect| assert_eq!(decode(&octets).0, Err(expect));
    check(hex("0001 0000"), (3, 1));
    check(hex("0000 0005 40"), (3, 1));
    check(body("40 01 05 00"), (3, 1));
    check(body(&format!("{0} {0}", reach())), (3, 1));
    check(body("40 e6 01 00"), (3, 2));
    check(body("80 0f 02 400d"), (3, 9));
    check(body("80 0e 00"), (3, 9));
}

#[test]
fn routes_are_judged_one_by_one() {
    let rest = format!("{ORIGIN} {AS_PATH} {LOCAL_PREF} {TARGET}");
    let update = |routes: &str| {
        let length = 9 + hex(routes).len();
        body(&format!(
            "900e {length:04x} 400d f4 04 00000007 00 {routes} {rest}"
        ))
    };
    let good = format!("03 001e 0c {KEY} {VALUE}");
    let bad_key = "01 000b 0c 0001 0000000b 0000 000000 010000000000000000000000";
    let (outcome, findings) = decode(&update(&format!("{bad_key} {good}")));
    assert_eq!(
        (outcome, findings.bad_keys),
        (Ok(announced(attributes(7, 1))), 1)
    );

    let bad_value = format!("03 001e 0c {KEY} 0f 00 64 00 0000 0000 00000005");
    let (outcome, findings) = decode(&update(&bad_value));
    assert_eq!((outcome, findings.bad_values), (Ok(withdrawn()), 1));

    for overrun in ["03 001e 0d", "03 ffff 0c", "03 00"] {
        let routes = format!("{overrun} {}", if overrun.len() > 5 { KEY } else { "" });
        assert_eq!(
            decode(&update(&routes)).0,
            Ok(UpdateOutcome::FamilyDisabled),
            "{overrun}"
        );
    }
    let next_hop = body(&format!("80 0e 09 400d f4 03 000007 00 00 {rest}"));
    assert_eq!(decode(&next_hop).0, Ok(UpdateOutcome::FamilyDisabled));
}

#[test]
fn end_of_rib_and_other_families() {
    assert_eq!(
        decode(&body("80 0f 03 400d f4")).0,
        Ok(UpdateOutcome::EndOfRib)
    );
    let (outcome, findings) = decode(&body("80 0f 03 0001 01"));
    assert_eq!(
        (outcome, findings.foreign_families),
        (Ok(UpdateOutcome::Nothing), 1)
    );
    assert_eq!(decode(&body("")).0, Ok(UpdateOutcome::Nothing));
    let (outcome, findings) = decode(&hex("0000 0000 18 0a0000"));
    assert_eq!(
        (outcome, findings.foreign_families),
        (Ok(UpdateOutcome::Nothing), 1)
    );
}

#[test]
fn updates_are_packed() {
    let routes: Vec<(Key, Value)> = (0..200)
        .map(|n| (endpoint(11, n), health(State::Healthy, 1)))
        .collect();
    let (message, count) =
        wire::encode_announcement(Family::MESH, &attributes(7, 1), &routes).expect("fits");
    assert!(
        message.len() <= MAX_MESSAGE && count >= 85,
        "{count} in {}",
        message.len()
    );
    let (kind, length) = wire::frame(&message, 4096).expect("good").expect("whole");
    assert_eq!((kind, length), (MessageKind::Update, message.len()));
    let want = announce(attributes(7, 1), routes[..count].to_vec());
    assert_eq!(
        decode(&message[HEADER..]).0,
        Ok(UpdateOutcome::Routes(want))
    );

    let keys: Vec<Key> = routes.iter().map(|(key, _)| key.clone()).collect();
    let (message, count) = wire::encode_withdrawal(Family::MESH, &keys);
    assert!(
        message.len() <= MAX_MESSAGE && count >= 115,
        "{count} in {}",
        message.len()
    );
    let want = Update {
        attributes: None,
        announced: vec![],
        withdrawn: keys[..count].to_vec(),
    };
    assert_eq!(
        decode(&message[HEADER..]).0,
        Ok(UpdateOutcome::Routes(want))
    );

    let mut huge = attributes(7, 1);
    huge.extra.push(RawAttribute::facts(vec![0; 4060]));
    assert!(wire::encode_announcement(Family::MESH, &huge, &routes).is_none());
}

#[test]
fn route_targets_round_trip() {
    let rt = RouteTarget {
        tenant: base::TenantId(0x0102_0304),
        selector: 0x8005,
    };
    assert_eq!(rt.to_community(), [1, 2, 1, 2, 3, 4, 0x80, 5]);
    assert_eq!(RouteTarget::from_community(rt.to_community()), Some(rt));
    assert_eq!(
        RouteTarget::from_community([0, 2, 1, 2, 3, 4, 0x80, 5]),
        None
    );
}
