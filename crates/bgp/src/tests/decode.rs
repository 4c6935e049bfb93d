//! RFC 7606 as a table: each attribute, each way to get it wrong, and what is to become of it.

use super::{again, hex};
use crate::wire::{AsPath, AttributesView, Family, Notification, UpdateContext, UpdateError};

/// What is to become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The routes stand with these attribute codes.
    Good(&'static [u8]),
    /// The routes stand with these codes, something was left out and counted.
    Discard(&'static [u8]),
    /// The routes are to be treated as withdrawn.
    Withdraw,
    /// The family is off.
    Disable(Family),
    /// The session ends with this code and subcode.
    Reset(u8, u8),
}
use Outcome::{Disable, Discard, Good, Reset, Withdraw};

const ORIGIN: &str = "400101 00";
const PATH: &str = "400206 0201 00010001";
const PATH_2: &str = "400204 0201 0001";
const HOP: &str = "400304 0a000001";
const LOCAL: &str = "400504 00000064";
const NLRI: &str = "08 0a";
/// 2001:db8::/32 by 2001:db8::1.
const REACH: &str = "800e1a 0002 01 10 20010db8000000000000000000000001 00 20 20010db8";

/// The body of an UPDATE.
fn body(withdrawn: &str, attributes: &str, nlri: &str) -> Vec<u8> {
    let with_length = |text: &str| {
        let octets = hex(text);
        let length = u16::try_from(octets.len()).expect("short").to_be_bytes();
        [&length[..], &octets].concat()
    };
    [with_length(withdrawn), with_length(attributes), hex(nlri)].concat()
}

fn outcome(body: &[u8], context: &UpdateContext) -> (&'static str, Vec<u8>, String) {
    let (routes, findings) = again::read(body, context);
    let routes = match routes {
        Ok(routes) => routes,
        Err(UpdateError::Reset(n)) => return ("reset", vec![n.code, n.subcode], n.to_string()),
        Err(UpdateError::DisableFamily(family, finding)) => {
            return ("disable", vec![], format!("{family} {}", finding.what));
        }
    };
    let all = |some: bool| routes.announced.iter().all(|(_, a)| a.is_some() == some);
    let told = format!("{findings:?}");
    if !routes.announced.is_empty() && all(false) {
        assert_eq!(findings.treated_as_withdrawn, 1);
        return ("withdraw", vec![], told);
    }
    assert!(all(true));
    assert_eq!(findings.treated_as_withdrawn, 0, "{told}");
    again::check(body, context);
    let first = routes
        .announced
        .first()
        .and_then(|(_, a)| a.as_deref())
        .unwrap_or_default();
    let codes = AttributesView(first).iter().map(|a| a.code).collect();
    (
        if findings.discarded_attributes > 0 {
            "discard"
        } else {
            "good"
        },
        codes,
        told,
    )
}

fn check_in(what: &str, body: &[u8], context: &UpdateContext, expect: Outcome) {
    let (kind, codes, told) = outcome(body, context);
    let expected = match expect {
        Good(codes) => ("good", codes.to_vec()),
        Discard(codes) => ("discard", codes.to_vec()),
        Withdraw => ("withdraw", vec![]),
        Disable(family) => {
            assert!(told.starts_with(&family.to_string()), "{what}: {told}");
            ("disable", vec![])
        }
        Reset(code, subcode) => ("reset", vec![code, subcode]),
    };
    assert_eq!(
        (kind, codes),
        expected,
        "{what}, ebgp {}: {told}",
        context.ebgp
    );
}

/// A row: what, the attributes but for ORIGIN, AS_PATH, NEXT_HOP and LOCAL_PREF, and the outcome
/// inside an AS and between two.
type Row = (&'static str, &'static str, Outcome, Outcome);

fn rows(rows: &[Row], base: [&str; 4]) {
    for (what, attributes, ibgp, ebgp) in rows {
        for (external, expect) in [(false, ibgp), (true, ebgp)] {
            let local = if external { "" } else { base[3] };
            let [origin, path, hop, _] = base;
            let all = [origin, path, hop, local, attributes].concat();
            check_in(
                what,
                &body("", &all, NLRI),
                &again::context(external),
                *expect,
            );
        }
    }
}

const I: &[u8] = &[1, 2, 5, 14];
const E: &[u8] = &[1, 2, 14];

#[test]
fn origin() {
    let (w, good) = (Withdraw, (Good(I), Good(E)));
    rows(
        &[
            ("IGP", "400101 00", good.0, good.1),
            ("incomplete", "400101 02", good.0, good.1),
            ("extended length", "50010001 00", good.0, good.1),
            ("an unknown one", "400101 03", w, w),
            ("empty", "400100", w, w),
            ("two octets", "400102 0000", w, w),
            ("optional", "c00101 00", w, w),
            ("not transitive", "000101 00", w, w),
            ("partial is not looked at", "600101 00", good.0, good.1),
            ("missing", "", w, w),
            ("twice", "400101 00 400101 01", Discard(I), Discard(E)),
            (
                "twice, the second bad",
                "400101 00 400101 07",
                Discard(I),
                Discard(E),
            ),
        ],
        ["", PATH, HOP, LOCAL],
    );
}

#[test]
fn as_path() {
    let (w, good) = (Withdraw, (Good(I), Good(E)));
    rows(
        &[
            ("empty", "400200", good.0, good.1),
            (
                "a sequence",
                "40020a 0202 00010001 00010002",
                good.0,
                good.1,
            ),
            ("a set", "400206 0101 00010001", good.0, good.1),
            ("an unknown segment", "400206 0501 00010001", w, w),
            ("segment type 0", "400206 0001 00010001", w, w),
            ("a segment that overruns", "400206 0202 00010001", w, w),
            ("one octet too many", "400207 0201 00010001 02", w, w),
            ("an empty segment", "400202 0200", w, w),
            ("AS 0 (RFC 7607)", "400206 0201 00000000", w, w),
            ("AS 0 in a set", "40020a 0102 00010001 00000000", w, w),
            (
                "a confederation of others (RFC 5065 §5)",
                "400206 0301 00010001",
                good.0,
                w,
            ),
            ("missing", "", w, w),
            ("optional", "c00206 0201 00010001", w, w),
        ],
        [ORIGIN, "", HOP, LOCAL],
    );
}

#[test]
fn next_hop() {
    let (w, good) = (Withdraw, (Good(I), Good(E)));
    rows(
        &[
            ("good", HOP, good.0, good.1),
            ("missing", "", w, w),
            ("three octets", "400303 0a0000", w, w),
            (
                "sixteen octets",
                "400310 20010db8000000000000000000000001",
                w,
                w,
            ),
            ("empty", "400300", w, w),
            ("optional", "c00304 0a000001", w, w),
        ],
        [ORIGIN, PATH, "", LOCAL],
    );
}

#[test]
fn local_pref() {
    let rows: [Row; 5] = [
        ("good", LOCAL, Good(I), Discard(E)),
        ("missing", "", Withdraw, Good(E)),
        ("two octets", "400502 0064", Withdraw, Discard(E)),
        ("empty", "400500", Withdraw, Discard(E)),
        (
            "twice",
            "400504 00000064 400504 00000065",
            Discard(I),
            Discard(E),
        ),
    ];
    self::rows(&rows, [ORIGIN, PATH, HOP, ""]);
}

#[test]
fn attributes_that_may_be_there() {
    const LARGE: &str = "c0200c 00000001 00000002 00000003";
    const IPV6: &str = "c01914 0002 20010db8000000000000000000000001 0001";
    let w = Withdraw;
    let kept = |i, e| (Good(i), Good(e));
    let med = kept(&[1, 2, 4, 5, 14], &[1, 2, 4, 14]);
    let atomic = kept(&[1, 2, 5, 6, 14], &[1, 2, 6, 14]);
    let aggregator = kept(&[1, 2, 5, 7, 14], &[1, 2, 7, 14]);
    let communities = kept(&[1, 2, 5, 8, 14], &[1, 2, 8, 14]);
    let extended = kept(&[1, 2, 5, 14, 16], &[1, 2, 14, 16]);
    let ipv6 = kept(&[1, 2, 5, 14, 25], &[1, 2, 14, 25]);
    let large = kept(&[1, 2, 5, 14, 32], &[1, 2, 14, 32]);
    let unknown = kept(&[1, 2, 5, 14, 99], &[1, 2, 14, 99]);
    let (di, de) = (Discard(I), Discard(E));
    let table: &[Row] = &[
        ("MED", "800404 00000001", med.0, med.1),
        ("MED of 3 octets", "800403 000001", w, w),
        ("empty MED", "800400", w, w),
        ("transitive MED", "c00404 00000001", w, w),
        ("well-known MED", "400404 00000001", w, w),
        ("ATOMIC_AGGREGATE", "400600", atomic.0, atomic.1),
        ("ATOMIC_AGGREGATE with a value", "400601 00", di, de),
        ("optional ATOMIC_AGGREGATE", "c00600", w, w),
        (
            "AGGREGATOR",
            "c00708 00010001 0a000001",
            aggregator.0,
            aggregator.1,
        ),
        (
            "partial AGGREGATOR",
            "e00708 00010001 0a000001",
            aggregator.0,
            aggregator.1,
        ),
        (
            "AGGREGATOR of an old speaker",
            "c00706 0001 0a000001",
            di,
            de,
        ),
        ("empty AGGREGATOR", "c00700", di, de),
        (
            "AGGREGATOR in AS 0 (RFC 7607)",
            "c00708 00000000 0a000001",
            di,
            de,
        ),
        (
            "AGGREGATOR not transitive",
            "800708 00010001 0a000001",
            w,
            w,
        ),
        (
            "communities",
            "c00808 00010001 00010002",
            communities.0,
            communities.1,
        ),
        ("no communities", "c00800", w, w),
        ("communities of 5 octets", "c00805 0001000100", w, w),
        ("communities not transitive", "800804 00010001", w, w),
        (
            "extended communities",
            "c01008 0002000100000001",
            extended.0,
            extended.1,
        ),
        ("no extended communities", "c01000", w, w),
        (
            "extended communities of 12 octets",
            "c0100c 000200010000000100000000",
            w,
            w,
        ),
        ("IPv6 extended communities", IPV6, ipv6.0, ipv6.1),
        (
            "IPv6 extended communities of 8 octets",
            "c01908 0002000100000001",
            w,
            w,
        ),
        ("large communities", LARGE, large.0, large.1),
        ("no large communities", "c02000", w, w),
        (
            "only-to-customer of 8 octets",
            "c02308 0000000100000002",
            w,
            w,
        ),
        (
            "large communities of 8 octets",
            "c02008 0000000100000002",
            w,
            w,
        ),
        ("AS4_PATH of a new speaker", "c01106 0201 00010001", di, de),
        (
            "AS4_AGGREGATOR of a new speaker",
            "c01208 00010001 0a000001",
            di,
            de,
        ),
        ("unknown, transitive", "c06301 00", unknown.0, unknown.1),
        ("unknown, transitive, empty", "c06300", unknown.0, unknown.1),
        ("unknown, not transitive", "806301 00", Good(I), Good(E)),
        ("unknown, well-known", "406301 00", Reset(3, 2), Reset(3, 2)),
    ];
    rows(table, [ORIGIN, PATH, HOP, LOCAL]);
}

#[test]
fn reflection_stays_inside() {
    let table: &[Row] = &[
        (
            "ORIGINATOR_ID",
            "800904 00000001",
            Good(&[1, 2, 5, 9, 14]),
            Discard(E),
        ),
        (
            "ORIGINATOR_ID of 3 octets",
            "800903 000001",
            Withdraw,
            Discard(E),
        ),
        (
            "CLUSTER_LIST",
            "800a08 00000001 00000002",
            Good(&[1, 2, 5, 10, 14]),
            Discard(E),
        ),
        ("empty CLUSTER_LIST", "800a00", Withdraw, Discard(E)),
        (
            "CLUSTER_LIST of 5 octets",
            "800a05 0000000100",
            Withdraw,
            Discard(E),
        ),
        (
            "transitive CLUSTER_LIST",
            "c00a04 00000001",
            Withdraw,
            Withdraw,
        ),
    ];
    rows(table, [ORIGIN, PATH, HOP, LOCAL]);
}

#[test]
fn frames() {
    let context = again::context(true);
    let base = [ORIGIN, PATH, HOP].concat();
    let mut over = body("", &base, NLRI);
    over[3] = 0xFF;
    check_in(
        "attributes longer than the message",
        &over,
        &context,
        Reset(3, 1),
    );
    check_in(
        "withdrawn longer than the message",
        &hex("0009 08 0a"),
        &context,
        Reset(3, 1),
    );
    check_in("cut off", &hex("0000 00"), &context, Reset(3, 1));
    check_in("empty", &[], &context, Reset(3, 1));
    for tail in ["40", "4006", "500600", "c008ff 00", "c00804 000000"] {
        let attributes = [&base, tail].concat();
        check_in(
            "an attribute that overruns",
            &body("", &attributes, NLRI),
            &context,
            Withdraw,
        );
    }
    check_in(
        "NLRI of 33 bits",
        &body("", &base, "21 0a00000100"),
        &context,
        Reset(3, 10),
    );
    check_in(
        "NLRI that overruns",
        &body("", &base, "18 0a00"),
        &context,
        Reset(3, 10),
    );
    check_in(
        "withdrawn of 33 bits",
        &body("21 0a00000100", "", ""),
        &context,
        Reset(3, 10),
    );
    check_in("host bits", &body("", &base, "09 0aff"), &context, Good(E));
}

/// RFC 7606 §5.2: an error in a message whose routes cannot be found resets the session.
#[test]
fn an_error_without_routes() {
    let context = again::context(true);
    let check = |what, withdrawn, attributes: &str, expect| {
        check_in(what, &body(withdrawn, attributes, ""), &context, expect);
    };
    check("no error", "", &[ORIGIN, PATH].concat(), Good(&[]));
    check("a bad ORIGIN", "", "400101 07", Reset(3, 1));
    check(
        "a bad ORIGIN and a withdrawal",
        "08 0a",
        "400101 07",
        Reset(3, 1),
    );
    check("an overrun", "08 0a", "4001", Reset(3, 1));
    check("only a discard", "08 0a", "400601 00", Discard(&[]));
    check(
        "MP_REACH without routes",
        "",
        "400101 07 800e09 0001 01 04 0a000001 00",
        Reset(3, 1),
    );
    check(
        "only MP_UNREACH, its flags wrong",
        "",
        "c00f05 0001 01 08 0a",
        Good(&[]),
    );
    check(
        "MP_UNREACH and a bad MED",
        "",
        "800f04 0002 01 00 800400",
        Reset(3, 1),
    );
    let foreign = ["400101 07 800e09 0001 02 04 0a000001 00", ""].concat();
    check("routes of a family not agreed on", "", &foreign, Good(&[]));
}

#[test]
fn multiprotocol() {
    let inside = again::context(false);
    let base = [ORIGIN, PATH, LOCAL].concat();
    let check = |what, attributes: &str, expect| {
        let all = [&base, attributes].concat();
        check_in(what, &body("", &all, ""), &inside, expect);
    };
    check("good", REACH, Good(I));
    check("transitive", &REACH.replacen("80", "c0", 1), Withdraw);
    check("well-known", &REACH.replacen("80", "40", 1), Withdraw);
    check("twice", &[REACH, REACH].concat(), Reset(3, 1));
    check("unreach twice", "800f03 000201 800f03 000201", Reset(3, 1));
    check("short", "800e02 0002", Reset(3, 9));
    check("no next hop", "800e03 0002 01", Reset(3, 9));
    check(
        "a next hop that overruns",
        "800e05 0002 01 10 00",
        Reset(3, 9),
    );
    check(
        "no reserved octet",
        "800e08 0001 01 04 0a000001",
        Reset(3, 9),
    );
    check("short unreach", "800f02 0002", Reset(3, 9));
    check(
        "NLRI that overruns",
        "800f05 0002 01 20 20",
        Disable(Family::IPV6),
    );
    check(
        "NLRI of 129 bits",
        "800f04 0002 01 81",
        Disable(Family::IPV6),
    );
    check(
        "label only",
        "800f07 0001 80 18 800000",
        Disable(Family::VPNV4),
    );
    check(
        "RTC of 31 bits",
        "800f08 0001 84 1f 00000000",
        Disable(Family::RTC),
    );
    check(
        "RTC of 97 bits",
        "800f11 0001 84 61 00000000000000000000000000",
        Disable(Family::RTC),
    );
    check(
        "routes that overrun the attributes",
        "800eff 0001 01 04",
        Reset(3, 1),
    );
    check(
        "a family not agreed on",
        "800e09 0001 02 04 0a000001 00",
        Good(&[]),
    );
}

#[test]
fn next_hops_of_each_family() {
    let lengths: [(Family, &[usize], &str); 10] = [
        (Family::IPV4, &[4, 16, 32], "08 0a"),
        (Family::IPV6, &[16, 32], "20 20010db8"),
        (
            Family::VPNV4,
            &[12, 24, 48],
            "60 000101 0000000100000001 0a",
        ),
        (Family::VPNV6, &[24, 48], "60 000101 0000000100000001 20"),
        (Family::RTC, &[4, 16], "00"),
        (Family::FLOW4, &[0, 4, 16, 32], "03 03 81 06"),
        (Family::FLOW6, &[0, 4, 16, 32], "03 03 81 06"),
        (
            Family::FLOWVPN4,
            &[0, 4, 16, 32],
            "0b 0000000100000001 03 81 06",
        ),
        (
            Family::FLOWVPN6,
            &[0, 4, 16, 32],
            "0b 0000000100000001 03 81 06",
        ),
        (Family::MESH, &[4], ""),
    ];
    for (family, good, nlri) in lengths {
        for length in 0..=64 {
            let mut value = family.afi.to_be_bytes().to_vec();
            value.extend([family.safi, u8::try_from(length).expect("small")]);
            value.extend(vec![0; length]);
            value.push(0);
            value.extend(hex(nlri.split("  ").next().unwrap_or_default()));
            let mut attributes = hex(&[ORIGIN, PATH, LOCAL].concat());
            attributes.extend([0x80, 14, u8::try_from(value.len()).expect("short")]);
            attributes.extend(value);
            let octets = u16::try_from(attributes.len())
                .expect("short")
                .to_be_bytes();
            let message = [&[0, 0][..], &octets, &attributes].concat();
            let expect = match (good.contains(&length), nlri.is_empty()) {
                (true, true) => Good(&[]),
                (true, false) => Good(I),
                (false, _) => Disable(family),
            };
            check_in(
                &format!("{family} by {length}"),
                &message,
                &again::context(false),
                expect,
            );
            if [Family::IPV4, Family::VPNV4].contains(&family) && length % 12 != 0 && length != 4 {
                let mut plain = again::context(false);
                plain.extended_next_hop.clear();
                check_in("RFC 8950 not agreed on", &message, &plain, Disable(family));
            }
        }
    }
}

#[test]
fn filters() {
    let filters: &[(&str, Family, bool)] = &[
        ("05 01 18 c00002", Family::FLOW4, true),
        ("08 01 18 c00002 03 81 06", Family::FLOW4, true),
        ("08 03 81 06 01 18 c00002", Family::FLOW4, false),
        ("06 03 81 06 03 81 06", Family::FLOW4, false),
        ("04 01 21 c000", Family::FLOW4, false),
        ("03 03 01 06", Family::FLOW4, false),
        ("04 03 91 06", Family::FLOW4, false),
        ("03 0d 81 06", Family::FLOW4, false),
        ("03 0d 81 06", Family::FLOW6, true),
        ("03 0e 81 06", Family::FLOW6, false),
        ("03 00 81 06", Family::FLOW4, false),
        ("00", Family::FLOW4, false),
        ("08 0000000100000001", Family::FLOWVPN4, false),
        ("07 00000001000000", Family::FLOWVPN4, false),
        ("07 01 20 00 20010db8", Family::FLOW6, true),
        ("04 01 48 40 ff", Family::FLOW6, true),
        ("03 01 00 00", Family::FLOW6, true),
        ("03 01 20 20", Family::FLOW6, false),
        ("03 01 20 21", Family::FLOW6, false),
        ("f003 03 81 06", Family::FLOW4, true),
        ("f0", Family::FLOW4, false),
        ("04 03 81 06", Family::FLOW4, false),
    ];
    for (nlri, family, good) in filters {
        let value = format!("{:04x}{:02x}{nlri}", family.afi, family.safi);
        let attributes = format!("800f{:02x}{value}", hex(&value).len());
        let expect = if *good { Good(&[]) } else { Disable(*family) };
        let message = body("", &attributes, "");
        check_in(
            &format!("{family} {nlri}"),
            &message,
            &again::context(true),
            expect,
        );
    }
}

#[test]
fn many_unknown_attributes_displace_no_known_one() {
    let mut unknown = String::new();
    for code in 100..=243 {
        unknown += &format!("c0{code:02x}01 00 ");
    }
    let known = "400600 c00708 00010001 0a000001 c00804 00010001 c0200c 000000010000000200000003";
    let all = [&unknown, ORIGIN, PATH, HOP, LOCAL, known, REACH].concat();
    let (routes, findings) = again::read(&body("", &all, NLRI), &again::context(false));
    let routes = routes.expect("routes");
    assert!(findings.discarded_attributes > 0);
    assert_eq!(routes.announced.len(), 2);
    for (_, attributes) in &routes.announced {
        let view = AttributesView(attributes.as_ref().expect("good"));
        for code in [1, 2, 5, 6, 7, 8, 14, 32] {
            assert!(view.get(code).is_some(), "{code}");
        }
    }
}

#[test]
fn flags_are_kept_or_set() {
    let flags_of = |attributes: &str, code: u8| {
        let all = [ORIGIN, PATH, HOP, LOCAL, attributes].concat();
        let routes = again::read(&body("", &all, NLRI), &again::context(false))
            .0
            .expect("good");
        let attributes = routes.announced[0].1.clone().expect("good");
        AttributesView(&attributes)
            .iter()
            .find(|a| a.code == code)
            .expect("it is there")
            .flags
    };
    assert_eq!(
        flags_of("c06301 00", 99),
        0xE0,
        "unknown: partial from here on"
    );
    assert_eq!(flags_of("c00804 00010001", 8), 0xC0);
    assert_eq!(flags_of("e00804 00010001", 8), 0xE0);
    assert_eq!(
        flags_of("a00404 00010001", 4),
        0x80,
        "not transitive: never partial"
    );
    assert_eq!(
        flags_of("d0080004 00010001", 8),
        0xC0,
        "one octet of length is enough"
    );
}

#[test]
fn end_of_rib() {
    let context = again::context(true);
    let end = |body: &[u8]| again::read(body, &context).0.expect("good").end_of_rib;
    assert_eq!(end(&[0; 4]), Some(Family::IPV4));
    for family in Family::ALL {
        let message = crate::wire::end_of_rib(family);
        assert_eq!(end(&message[19..]), Some(family));
    }
    assert_eq!(end(&body("08 0a", "800f03 000201", "")), None);
    let mut v6 = context.clone();
    v6.families = vec![Family::IPV6];
    let routes = again::read(&[0; 4], &v6).0.expect("good");
    assert_eq!(routes.end_of_rib, None, "a family not agreed on");
}

/// RFC 6793 §4.2.3: what an old speaker passed on. AS_TRANS is 23456 (0x5ba0).
#[test]
fn as4_paths_are_merged() {
    let check = |what: &str, path: &str, more: &str, expect: &str, aggregator: Option<&str>| {
        let mut context = again::context(true);
        context.four_octet_as = false;
        let all = [ORIGIN, path, HOP, more].concat();
        let message = body("", &all, NLRI);
        let routes = again::read(&message, &context).0.expect(what);
        let attributes = routes.announced[0].1.clone().expect(what);
        let view = AttributesView(&attributes);
        assert_eq!(view.as_path().to_string(), expect, "{what}");
        assert_eq!(
            view.get(7).map(<[u8]>::to_vec),
            aggregator.map(hex),
            "{what}"
        );
        assert!(view.get(17).is_none() && view.get(18).is_none());
        again::check(&message, &context);
    };
    check("widened", PATH_2, "", "1", None);
    check("empty", "400200", "", "", None);
    let path = "40020a 0204 fde8 5ba0 5ba0 fde9";
    check(
        "as long",
        path,
        "c01112 0204 0000fde8 00010001 00010002 0000fde9",
        "65000 65537 65538 65001",
        None,
    );
    check(
        "shorter: an old speaker came after",
        path,
        "c0110a 0202 00010002 0000fde9",
        "65000 23456 65538 65001",
        None,
    );
    check(
        "longer: it is ignored",
        "400204 0201 fde8",
        "c0110a 0202 00010001 00010002",
        "65000",
        None,
    );
    check(
        "malformed: it is ignored",
        path,
        "c01105 0201 000100",
        "65000 23456 23456 65001",
        None,
    );
    check(
        "AS 0: it is ignored",
        path,
        "c01106 0201 00000000",
        "65000 23456 23456 65001",
        None,
    );
    check(
        "a set counts one",
        "40020c 0202 fde8 5ba0 0102 5ba0 fde9",
        "c01110 0201 00010001 0102 00010002 0000fde9",
        "65000 65537 {65538 65001}",
        None,
    );
    check(
        "a set in front stays whole",
        "40020a 0102 fde8 fde9 0201 5ba0",
        "c01106 0201 00010001",
        "{65000 65001} 65537",
        None,
    );
}

#[test]
fn as4_aggregators_are_merged() {
    let check = |what: &str, more: &str, path: &str, aggregator: Option<&str>| {
        let mut context = again::context(true);
        context.four_octet_as = false;
        let all = [ORIGIN, "400206 0202 fde8 5ba0", HOP, more].concat();
        let routes = again::read(&body("", &all, NLRI), &context).0.expect(what);
        let attributes = routes.announced[0].1.clone().expect(what);
        let view = AttributesView(&attributes);
        assert_eq!(view.as_path().to_string(), path, "{what}");
        assert_eq!(
            view.get(7).map(<[u8]>::to_vec),
            aggregator.map(hex),
            "{what}"
        );
    };
    let trans = "c00706 5ba0 0a000001";
    let true_ = "c01208 00010001 0a000001";
    let path = "c01106 0201 00010001";
    check(
        "widened",
        "c00706 fde8 0a000001",
        "65000 23456",
        Some("0000fde8 0a000001"),
    );
    check(
        "the true one",
        &[trans, true_, path].concat(),
        "65000 65537",
        Some("00010001 0a000001"),
    );
    check(
        "another aggregator: both are ignored",
        &["c00706 fde8 0a000001", true_, path].concat(),
        "65000 23456",
        Some("0000fde8 0a000001"),
    );
    check(
        "without AGGREGATOR",
        &[true_, path].concat(),
        "65000 65537",
        None,
    );
    check(
        "a bad one",
        &[trans, "c01207 00010001 0a0000", path].concat(),
        "65000 65537",
        Some("00005ba0 0a000001"),
    );
    check(
        "AS 0 (RFC 7607)",
        &[trans, "c01208 00000000 0a000001", path].concat(),
        "65000 65537",
        Some("00005ba0 0a000001"),
    );
    check(
        "8 octets from an old speaker",
        "c00708 00010001 0a000001",
        "65000 23456",
        None,
    );
}

/// RFC 6793 §3, §6: confederation segments in AS4_PATH are left out; those in front of AS_PATH
/// stay in front (§4.2.3).
#[test]
fn confederations_in_as4_path() {
    let mut context = again::context(false);
    context.four_octet_as = false;
    let check = |path: &str, long: &str, expect: &str| {
        let all = [ORIGIN, path, HOP, LOCAL, long].concat();
        let routes = again::read(&body("", &all, NLRI), &context)
            .0
            .expect("good");
        let attributes = routes.announced[0].1.clone().expect("good");
        assert_eq!(AttributesView(&attributes).as_path().to_string(), expect);
    };
    let confederated = "400208 0301 fde8 0201 5ba0";
    check(confederated, "c01106 0201 00010001", "(65000) 65537");
    check(
        confederated,
        "c0110c 0301 0000fde8 0201 00010001",
        "(65000) 65537",
    );
    check(
        "40020c 0201 fde7 0301 fde8 0201 5ba0",
        "c01106 0201 00010001",
        "64999 (65000) 65537",
    );
}

#[test]
fn the_unknown_well_known_is_told_back() {
    for (attribute, data) in [
        ("406302 abcd", "406302abcd"),
        ("50630002 abcd", "50630002abcd"),
    ] {
        let all = [ORIGIN, PATH, HOP, LOCAL, attribute].concat();
        let error = again::read(&body("", &all, NLRI), &again::context(false)).0;
        let expect = Notification::with_data(3, 2, &hex(data));
        assert_eq!(error, Err(UpdateError::Reset(expect)));
    }
}

#[test]
fn paths_have_their_length() {
    for (path, length, first, origin) in [
        ("", 0, None, None),
        ("0202 00000001 00000002", 2, Some(1), Some(2)),
        ("0102 00000001 00000002", 1, None, None),
        ("0301 00000001 0201 00000002", 1, None, Some(2)),
        ("0201 00000001 0102 00000002 00000003", 2, Some(1), None),
    ] {
        let path = hex(path);
        let path = AsPath(&path);
        assert_eq!(
            (path.len(), path.first(), path.origin()),
            (length, first, origin)
        );
    }
}
