mod types;

use std::{cmp::Ordering, net::IpAddr};

use base::{Instant, NetworkId, ServiceId, SiteId, SlotId, WallTime};

use super::hex;
use crate::{
    EndpointHealth, Key, KeyError, Measure, Rd, Seq, Sequence, SiteHealth, State, Value,
    ValueError,
    wire::{Family, encode},
};

pub(super) fn encoded(key: &Key, value: Option<&Value>) -> Vec<u8> {
    let mut out = Vec::new();
    let value = value.map_or(&[][..], Value::as_bytes);
    let mut octets = vec![key.kind()];
    key.encode(&mut octets);
    encode(Family::MESH, None, &octets, value, &mut out);
    out
}

#[test]
fn site_golden() {
    let key = Key::Site {
        rd: Rd {
            site: SiteId(0x0A0B_0C0D),
            slot: SlotId(7),
        },
        site: SiteId(0x0A0B_0C0D),
    };
    let health = SiteHealth {
        state: State::Draining,
        flags: 0,
        load: 0x8000,
        capacity: Measure::new(5000),
        seq: Seq(0x0102_0304),
    };
    // 5000 = 2500 · 2¹ → 0x9C4 | 1.
    let golden = hex("01 000c 0c  0001 0a0b0c0d 0007 0a0b0c0d  03 00 8000 9c41 0000 01020304");
    assert_eq!(encoded(&key, Some(&Value::site(&health))), golden);
    assert_eq!(Value::site(&health).as_site(), Some(health));
    let withdrawal = hex("01 000c 00  0001 0a0b0c0d 0007 0a0b0c0d");
    assert_eq!(encoded(&key, None), withdrawal);
    assert_eq!(Key::decode(1, &golden[4..16]), Ok(key));
}

#[test]
fn endpoint_golden() {
    let v4 = Key::Endpoint {
        rd: Rd {
            site: SiteId(11),
            slot: SlotId(0),
        },
        service: ServiceId(0x0102_0304_0506_0708),
        site: SiteId(11),
        network: NetworkId(3),
        address: IpAddr::from([10, 0, 0, 9]),
        port: 8080,
        protocol: 6,
    };
    let health = EndpointHealth {
        state: State::Healthy,
        flags: 0,
        weight: 100,
        load: 16,
        rtt: Measure::new(250),
        capacity: Measure::new(0),
        seq: Seq(5),
    };
    let key = "0001 0000000b 0000 0102030405060708 0000000b 0003 04 0a000009 1f90 06";
    let value = "01 00 64 10 0fa0 0000 00000005";
    let golden = hex(&format!("03 001e 0c {key} {value}"));
    assert_eq!(encoded(&v4, Some(&Value::endpoint(&health))), golden);
    assert_eq!(Value::endpoint(&health).as_endpoint(), Some(health));
    assert_eq!(Key::decode(3, &hex(key)), Ok(v4));
    let key = "0001 0000000b 0000 0102030405060708 0000000b 0003 \
               10 20010db8000000000000000000000001 1f90 06";
    let v6 = Key::decode(3, &hex(key)).expect("a good key");
    assert_eq!(encoded(&v6, None), hex(&format!("03 002a 00 {key}")));
}

#[test]
fn bad_keys_and_values() {
    let check =
        |kind, key: &str, want| assert_eq!(Key::decode(kind, &hex(key)), Err(want), "{key}");
    check(1, "0001 0000000b 00", KeyError::Short);
    check(1, "0001 0000000b 0000 0000", KeyError::Short);
    check(1, "0001 0000000b 0000 0000000b 00", KeyError::Long);
    check(1, "0000 0000000b 0000 0000000b", KeyError::RdType(0));
    check(99, "0002 0000000b 0000", KeyError::RdType(2));
    let address = "0001 0000000b 0000 0102030405060708 0000000b 0003 05 0a00000900 1f90 06";
    check(3, address, KeyError::AddressLength(5));
    check(77, &"00".repeat(513), KeyError::Long);

    let site = Key::decode(1, &hex("0001 0000000b 0000 0000000b")).expect("a good key");
    assert_eq!(Value::decode(&site, &[1; 11]), Err(ValueError::Length(11)));
    assert_eq!(Value::decode(&site, &[7; 12]), Err(ValueError::State(7)));
    let longer = Value::decode(&site, &[1; 200]).expect("trailing octets are ignored");
    assert_eq!(longer.as_bytes(), [1; 200], "and passed on");
    assert_eq!(longer.state(), Some(State::Healthy));
}

#[test]
fn unknown_types_are_opaque() {
    let octets = hex("0001 0000000b 0000 deadbeef");
    let key = Key::decode(200, &octets).expect("any body");
    let value = Value::decode(&key, &[0xFF; 30]).expect("any value");
    assert_eq!(key.rd().site, SiteId(11));
    assert_eq!(value.seq(&key), None);
    assert_eq!(encoded(&key, Some(&value))[4..16], octets);
}

#[test]
fn measures_round_to_nearest() {
    for (quantity, bits, back) in [
        (0, 0x0000, 0),
        (1, 0x0010, 1),
        (4095, 0xFFF0, 4095),
        (4096, 0x8001, 4096),
        (4097, 0x8011, 4098),
        (8190, 0xFFF1, 8190),
        (8191, 0x8002, 8192),
        (1_000_000, 0xF428, 999_936),
        (u64::from(Measure::MAX), 0xFFFF, Measure::MAX),
        (u64::MAX, 0xFFFF, Measure::MAX),
    ] {
        let measure = Measure::new(quantity);
        assert_eq!(
            (measure.bits(), measure.quantity()),
            (bits, back),
            "{quantity}"
        );
        assert_eq!(Measure::new(u64::from(back)), measure, "{quantity} again");
    }
}

#[test]
fn serial_numbers_wrap() {
    for (a, b, want) in [
        (1, 1, Some(Ordering::Equal)),
        (2, 1, Some(Ordering::Greater)),
        (0, u32::MAX, Some(Ordering::Greater)),
        (u32::MAX, 0, Some(Ordering::Less)),
        (0x8000_0000, 1, Some(Ordering::Greater)),
        (0x8000_0000, 0, None),
    ] {
        assert_eq!(Seq(a).compare(Seq(b)), want, "{a} {b}");
    }
}

#[test]
fn sequences_start_by_the_clock_or_the_mark() {
    let wall = WallTime::from_unix_seconds(1_767_225_600 + 100);
    assert_eq!(Sequence::start(wall, None), Seq(1600));
    assert_eq!(Sequence::start(wall, Some(Seq(1599))), Seq(1600));
    assert_eq!(Sequence::start(wall, Some(Seq(2000))), Seq(2000));
    assert_eq!(
        Sequence::start(WallTime::from_unix_seconds(0), None)
            .next()
            .0
            % 16,
        1
    );
}

#[test]
fn sequences_keep_their_rate() {
    let second = 1_000_000_000;
    let mut sequence = Sequence::new(Seq(u32::MAX), Instant::ZERO);
    for n in 0..16 {
        assert_eq!(sequence.next(Instant::ZERO), Some(Seq(n)));
    }
    assert_eq!(sequence.next(Instant::ZERO), None);
    assert_eq!(sequence.ready_at(), Instant::from_nanos(second / 16));
    assert_eq!(
        sequence.next(Instant::from_nanos(second / 16)),
        Some(Seq(16))
    );
    let given = (0..1000).filter(|_| sequence.next(Instant::from_nanos(10 * second)).is_some());
    assert_eq!(17 + given.count(), 10 * 16 + 16);
}
