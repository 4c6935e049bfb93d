use std::net::IpAddr;

use base::Rng;

use crate::{
    policy::{PrefixRange, PrefixRangeError, PrefixSet},
    wire::Family,
};

const IPV4: Family = Family { afi: 1, safi: 1 };
const VPNV4: Family = Family { afi: 1, safi: 128 };
const IPV6: Family = Family { afi: 2, safi: 1 };
const FLOW4: Family = Family { afi: 1, safi: 133 };

fn range(text: &str) -> PrefixRange {
    text.parse().expect("a range")
}

/// The canonical key of `10.0.0.0/8`.
fn key(text: &str) -> (Family, Vec<u8>) {
    let (address, bits) = text.split_once('/').expect("a prefix");
    let bits: u8 = bits.parse().expect("bits");
    let (family, octets) = match address.parse().expect("an address") {
        IpAddr::V4(ip) => (IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => (IPV6, ip.octets().to_vec()),
    };
    let octets = &octets[..usize::from(bits.div_ceil(8))];
    (family, [&[bits], octets].concat())
}

#[test]
fn ranges_read_what_they_write() {
    for (text, written) in [
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.0/8 le 24", "10.0.0.0/8 le 24"),
        ("10.0.0.0/8  ge 16 le 24", "10.0.0.0/8 ge 16 le 24"),
        ("10.0.0.0/8 le 24 ge 24", "10.0.0.0/8 ge 24 le 24"),
        ("10.0.0.0/8 ge 9", "10.0.0.0/8 ge 9 le 32"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("::/0 le 128", "::/0 le 128"),
        ("2001:db8::/32 ge 48 le 48", "2001:db8::/32 ge 48 le 48"),
    ] {
        assert_eq!(range(text).to_string(), written);
        assert_eq!(range(written), range(text));
    }
    for text in [
        "",
        "10.0.0.0",
        "10.0.0.0/x",
        "10.0.0.0/8 le",
        "10.0.0.0/8 lt 9",
        "10/8",
    ] {
        let error = text.parse::<PrefixRange>().expect_err(text);
        assert_eq!(error, PrefixRangeError::Syntax(text.to_owned()));
    }
    for (text, error) in [
        ("10.0.0.0/33", "/33 is longer than an address of 32 bits"),
        ("10.0.0.1/8", "10.0.0.1/8 has bits set behind its prefix"),
        ("10.0.0.0/8 le 7", "lengths 8 to 7 are not within 8 to 32"),
        (
            "10.0.0.0/8 ge 25 le 24",
            "lengths 25 to 24 are not within 8 to 32",
        ),
        ("10.0.0.0/8 le 33", "lengths 8 to 33 are not within 8 to 32"),
    ] {
        let found = text.parse::<PrefixRange>().expect_err(text);
        assert_eq!(found.to_string(), error);
    }
}

#[test]
fn a_set_contains_what_its_ranges_say() {
    let set: PrefixSet = [
        "10.0.0.0/8",
        "10.1.0.0/16 ge 20 le 24",
        "10.1.0.0/16 ge 28 le 28",
        "10.1.2.0/24",
        "192.168.0.0/16 le 32",
        "2001:db8::/32 ge 48 le 48",
        "2001:db8::/32 ge 128",
    ]
    .map(range)
    .into_iter()
    .collect();
    for (prefix, expect) in [
        ("10.0.0.0/8", true),
        ("10.0.0.0/9", false),
        ("0.0.0.0/0", false),
        ("10.1.0.0/16", false),
        ("10.1.0.0/19", false),
        ("10.1.0.0/20", true),
        ("10.1.2.0/24", true),
        ("10.1.2.0/25", false),
        ("10.1.2.16/28", true),
        ("10.2.0.0/20", false),
        ("192.168.255.255/32", true),
        ("192.169.0.0/16", false),
        ("2001:db8:7::/48", true),
        ("2001:db8:7::/49", false),
        ("2001:db8::1/128", true),
        ("::/0", false),
    ] {
        let (family, key) = key(prefix);
        assert_eq!(set.contains_key(family, &key), expect, "{prefix}");
    }
    let vpn = [&[20][..], &[0, 0, 1, 2, 0, 0, 0, 7], &[10, 1, 16]].concat();
    assert!(set.contains_key(VPNV4, &vpn));
    assert!(!set.contains_key(FLOW4, &[8, 10]), "no prefixes there");
    for broken in [&[][..], &[33, 1, 2, 3, 4, 5], &[8; 40]] {
        assert!(!set.contains_key(IPV4, broken));
    }
    assert!(set.contains_address("192.168.3.4".parse().expect("an address")));
    assert!(!set.contains_address("10.0.0.1".parse().expect("an address")));
    assert!(!PrefixSet::default().contains_key(IPV4, &[0]));
}

#[test]
fn a_large_set_agrees_with_a_plain_list() {
    let mut rng = Rng::new(5);
    let mut random = |least: u8, most: u8, wide: u8| {
        let bits = u64::from(most - least) + 1;
        let bits = least + u8::try_from(rng.below(bits)).expect("small");
        let address = u32::try_from(rng.below(1 << 16)).expect("small") << 16;
        let address = if bits == 0 {
            0
        } else {
            address >> (32 - bits) << (32 - bits)
        };
        let more = u8::try_from(rng.below(u64::from(wide.min(32 - bits)) + 1)).expect("small");
        (address, bits, bits + more)
    };
    let list: Vec<_> = (0..2000).map(|_| random(4, 20, 8)).collect();
    let ranges = list.iter().map(|(address, bits, le)| {
        let address = std::net::Ipv4Addr::from_bits(*address);
        PrefixRange::new(address.into(), *bits, *bits, *le).expect("a range")
    });
    let set: PrefixSet = ranges.collect();
    let mut found = 0;
    for _ in 0..3000 {
        let (address, bits, _) = random(0, 32, 0);
        let expect = list.iter().any(|(first, length, le)| {
            let inside = *length == 0 || (address ^ first) >> (32 - length) == 0;
            inside && (*length..=*le).contains(&bits)
        });
        let octets = &address.to_be_bytes()[..usize::from(bits.div_ceil(8))];
        let key = [&[bits], octets].concat();
        assert_eq!(set.contains_key(IPV4, &key), expect, "{address:x}/{bits}");
        found += u32::from(expect);
    }
    assert!((300..2900).contains(&found), "{found}");
}
