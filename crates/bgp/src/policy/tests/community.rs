use crate::policy::{
    Community, CommunityPattern, CommunitySet, ExtendedCommunity, ExtendedPattern, LargeCommunity,
    LargePattern, Quantifier,
};

fn standard(patterns: &[&str]) -> CommunitySet {
    CommunitySet::standard(patterns.iter().map(|text| text.parse().expect("a pattern")))
}

fn value(communities: &[&str]) -> Vec<u8> {
    let each = communities
        .iter()
        .map(|text| text.parse().expect("a community"));
    each.flat_map(|Community(number)| number.to_be_bytes())
        .collect()
}

#[test]
fn the_well_known_have_names() {
    for (name, number) in [
        ("NO_EXPORT", 0xFFFF_FF01),
        ("NO_ADVERTISE", 0xFFFF_FF02),
        ("NO_EXPORT_SUBCONFED", 0xFFFF_FF03),
        ("NOPEER", 0xFFFF_FF04),
        ("BLACKHOLE", 0xFFFF_029A),
        ("GRACEFUL_SHUTDOWN", 0xFFFF_0000),
        ("LLGR_STALE", 0xFFFF_0006),
        ("NO_LLGR", 0xFFFF_0007),
        ("65000:1", 0xFDE8_0001),
    ] {
        assert_eq!(name.parse(), Ok(Community(number)));
        assert_eq!(Community(number).to_string(), name);
    }
    assert_eq!("65535:666".parse(), Ok(Community::BLACKHOLE));
    for text in ["", "1", "65536:1", "1:2:3", "no_export", "*:1"] {
        assert!(text.parse::<Community>().is_err(), "{text}");
    }
}

#[test]
fn other_sizes_read_what_they_write() {
    let large = LargeCommunity([4_200_000_000, 2, 3]);
    assert_eq!("4200000000:2:3".parse(), Ok(large));
    assert_eq!(large.to_string(), "4200000000:2:3");
    assert_eq!(large.octets()[..5], [0xFA, 0x56, 0xEA, 0, 0]);
    for text in ["1:2", "1:2:*", "1:2:3:4", "1:2:4294967296", "+1:2:3"] {
        assert!(text.parse::<LargeCommunity>().is_err(), "{text}");
    }
    for (text, octets) in [
        ("rt:65000:70000", [0, 2, 0xFD, 0xE8, 0, 1, 0x11, 0x70]),
        ("rt:70000:1", [2, 2, 0, 1, 0x11, 0x70, 0, 1]),
        ("rt:65000L:1", [2, 2, 0, 0, 0xFD, 0xE8, 0, 1]),
        ("ro:192.0.2.1:9", [1, 3, 192, 0, 2, 1, 0, 9]),
        ("800600000001e240", [0x80, 6, 0, 0, 0, 1, 0xE2, 0x40]),
    ] {
        assert_eq!(text.parse(), Ok(ExtendedCommunity(octets)), "{text}");
        assert_eq!(ExtendedCommunity(octets).to_string(), text);
    }
    for text in [
        "rt:*:1",
        "rt:70000:70000",
        "rt:1",
        "xx02000000000001",
        "soo:1:1",
        "80é0000000000000",
    ] {
        assert!(text.parse::<ExtendedCommunity>().is_err(), "{text}");
    }
}

#[test]
fn quantifiers_count_both_ways() {
    use Quantifier::{AllOf, AnyOf, Exactly};
    for (patterns, communities, any, all, exactly) in [
        (&["1:1", "2:2"][..], &["1:1"][..], true, false, false),
        (&["1:1", "2:2"], &["1:1", "2:2"], true, true, true),
        (&["1:1", "2:2"], &["3:3", "2:2", "1:1"], true, true, false),
        (&["1:1"], &["3:3"], false, false, false),
        (&["1:*"], &["1:7", "1:8"], true, true, true),
        (&["*:7", "1:*"], &["1:7"], true, true, true),
        (&["*:*"], &["5:5"], true, true, true),
        (&["*:*"], &[], false, false, false),
        (&["NO_EXPORT"], &["65535:65281"], true, true, true),
        (&[], &["1:1"], false, true, false),
        (&[], &[], false, true, true),
    ] {
        let (set, value) = (standard(patterns), value(communities));
        for (quantifier, expect) in [(AnyOf, any), (AllOf, all), (Exactly, exactly)] {
            let found = set.matches(quantifier, &value);
            assert_eq!(
                found, expect,
                "{quantifier:?} {patterns:?} in {communities:?}"
            );
        }
    }
    for text in ["65536:*", "*", "1:*:2", "x:1"] {
        assert!(text.parse::<CommunityPattern>().is_err(), "{text}");
    }
}

#[test]
fn larger_patterns_have_wildcards_in_each_part() {
    for (pattern, community, expect) in [
        ("1:*:3", "1:2:3", true),
        ("1:*:3", "1:2:4", false),
        ("*:*:*", "9:9:9", true),
        ("1:2:3", "1:2:3", true),
    ] {
        let pattern: LargePattern = pattern.parse().expect("a pattern");
        let community: LargeCommunity = community.parse().expect("a community");
        let found = CommunitySet::large([pattern]).contains(&community.octets());
        assert_eq!(found, expect, "{pattern:?} {community}");
    }
    for (text, community, expect) in [
        ("rt:65000:1", "rt:65000:1", true),
        ("rt:65000:1", "rt:65000L:1", true),
        ("rt:65000L:1", "rt:65000:1", false),
        ("rt:65000:1", "ro:65000:1", false),
        ("rt:65000:*", "rt:65000:70000", true),
        ("rt:*:1", "rt:192.0.2.1:1", true),
        ("rt:*:1", "rt:70000:1", true),
        ("rt:*:1", "rt:70000:2", false),
        ("ro:192.0.2.1:*", "ro:192.0.2.1:9", true),
        ("8006xxxxxxxxxxxx", "800600000001e240", true),
        ("8006xxxxxxxxxxxx", "800700000001e240", false),
    ] {
        let pattern: ExtendedPattern = text.parse().expect("a pattern");
        let community: ExtendedCommunity = community.parse().expect("a community");
        let found = CommunitySet::extended([pattern]).contains(&community.0);
        assert_eq!(found, expect, "{text} {community}");
    }
}

#[test]
fn who_may_hear_a_route() {
    for (communities, ebgp, ibgp) in [
        (&[][..], true, true),
        (&["1:1", "GRACEFUL_SHUTDOWN"], true, true),
        (&["1:1", "NO_EXPORT"], false, true),
        (&["NO_EXPORT_SUBCONFED"], false, true),
        (&["NO_ADVERTISE", "1:1"], false, false),
    ] {
        let value = value(communities);
        assert_eq!(Community::allow_advertising(&value, true), ebgp);
        assert_eq!(Community::allow_advertising(&value, false), ibgp);
    }
}
