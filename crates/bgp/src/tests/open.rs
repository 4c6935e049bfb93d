//! OPENs that others send, and what of them comes back.

use base::NodeId;

use super::hex;
use crate::wire::{
    AddPath, Capabilities, Family, GracefulRestart, HEADER, MAX_MESSAGE, MessageKind, Notification,
    OpenMessage, frame,
};

/// Version 4, AS 1, hold time 90, identifier 1.
const HEAD: &str = "04 0001 005a 00000001";

fn decode(rest: &str) -> Result<OpenMessage, Notification> {
    OpenMessage::decode(&hex(&format!("{HEAD}{rest}")))
}

fn check(open: &OpenMessage) {
    let octets = open.encode();
    assert!(octets.len() <= MAX_MESSAGE);
    assert_eq!(
        frame(&octets, MAX_MESSAGE),
        Ok(Some((MessageKind::Open, octets.len())))
    );
    assert_eq!(OpenMessage::decode(&octets[HEADER..]).as_ref(), Ok(open));
}

#[test]
fn packings() {
    let v6 = "0104 0002 00 01";
    let both = "0104 0001 00 01 0104 0002 00 01";
    for (what, rest, count) in [
        ("none", "00".to_owned(), 0),
        ("one", format!("08 0206 {v6}"), 1),
        ("two in one parameter", format!("0e 020c {both}"), 2),
        (
            "two parameters",
            "10 0206 01040001 0001 0206 01040002 0001".to_owned(),
            2,
        ),
        ("the same twice", format!("10 0206 {v6} 0206 {v6}"), 1),
        ("an empty parameter", "02 0200".to_owned(), 0),
        ("RFC 9072", format!("ff ff 0009 02 0006 {v6}"), 1),
        (
            "RFC 9072 with a short length",
            format!("01 ff 0009 02 0006 {v6}"),
            1,
        ),
        ("unknown", "04 0202 fe00".to_owned(), 0),
        ("of a wrong length", "05 0203 0101 00".to_owned(), 0),
    ] {
        let open = decode(&rest).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(open.capabilities.families.len(), count, "{what}");
        check(&open);
    }
    for (what, rest, subcode) in [
        ("authentication (RFC 4271 §6.2)", "02 0100", 4),
        ("no length", "", 0),
        ("parameters that overrun", "08 0206", 0),
        ("a capability that overruns", "04 0202 0104", 0),
        ("octets behind", "00 00", 0),
    ] {
        let error = decode(rest).expect_err(what);
        assert_eq!((error.code, error.subcode), (2, subcode), "{what}");
    }
    let error = OpenMessage::decode(&hex("03 0001 005a 00000001 00"));
    assert_eq!(error, Err(Notification::with_data(2, 1, &[0, 4])));
}

/// RFC 9234 §4.2: the same role twice is one, two roles are a mismatch.
#[test]
fn roles() {
    let open = decode("08 0206 090100 090100").expect("one role");
    assert_eq!(open.capabilities.role, Some(0));
    assert_eq!(
        decode("08 0206 090100 090103"),
        Err(Notification::new(2, 11))
    );
}

#[test]
fn software_is_short_and_plain() {
    let long = "é".repeat(100);
    let hex_text: String = long.bytes().map(|b| format!("{b:02x}")).collect();
    let open = decode(&format!("cd 02cb 4bc9 c8 {hex_text}")).expect("good");
    assert_eq!(open.capabilities.software, Some("é".repeat(32)));
    check(&open);
    let open = decode("08 0206 4b04 03 1b5b41").expect("good");
    assert_eq!(
        open.capabilities.software.as_deref(),
        Some("[A"),
        "no control characters"
    );
    check(&open);
    let open = decode("07 0205 4b03 02 ffff").expect("good");
    check(&open);
}

#[test]
fn all_that_fits_comes_back() {
    let families: Vec<Family> = (0..64).map(|safi| Family::new(1, safi)).collect();
    let restart = GracefulRestart {
        restarting: true,
        notification: true,
        time_s: 4095,
        families: families.iter().take(63).map(|f| (*f, true)).collect(),
    };
    let all = Capabilities {
        families: families.clone(),
        route_refresh: true,
        enhanced_refresh: true,
        extended_message: true,
        four_octet_as: Some(4_200_000_000),
        add_path: families
            .iter()
            .take(63)
            .map(|f| (*f, AddPath::of(true, true)))
            .collect(),
        extended_next_hop: families.iter().take(42).map(|f| (*f, 2)).collect(),
        graceful_restart: Some(restart),
        long_lived: Some(
            families
                .iter()
                .take(36)
                .map(|f| (*f, false, 0x00FF_FFFF))
                .collect(),
        ),
        role: Some(4),
        software: Some("Sealane".to_owned()),
    };
    check(&OpenMessage {
        asn: 4_200_000_000,
        hold_time_s: 0,
        node: NodeId(1),
        capabilities: all,
    });
}

/// Lists stay bounded however many capabilities bring them.
#[test]
fn many_capabilities_are_bounded() {
    let one = [&hex("45fc")[..], &hex("00010103").repeat(63)].concat();
    let many = one.repeat(15);
    let mut body = hex(HEAD);
    body.extend([0xFF, 0xFF]);
    body.extend(u16::try_from(many.len() + 3).expect("short").to_be_bytes());
    body.push(2);
    body.extend(u16::try_from(many.len()).expect("short").to_be_bytes());
    body.extend(many);
    let open = OpenMessage::decode(&body).expect("good");
    assert_eq!(
        open.capabilities.add_path.len(),
        1,
        "the last of a family counts (RFC 7911 §4)"
    );
    check(&open);
}
