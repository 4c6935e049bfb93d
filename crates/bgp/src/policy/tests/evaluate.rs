use std::num::NonZeroU32;

use super::{as_path, attributes};
use crate::{
    Origin,
    policy::{
        Action, AsnSet, Communities, Community, CommunitySet, Condition, Context, Decision,
        ExtendedCommunity, LargeCommunity, Med, NextHop, Outcome, Policy, PrefixSet, Prepended,
        Quantifier, Statement, Subject, Then, Verdict,
    },
    wire::Family,
};

const IPV4: Family = Family { afi: 1, safi: 1 };
const IPV6: Family = Family { afi: 2, safi: 1 };
const VPNV4: Family = Family { afi: 1, safi: 128 };
const VPNV6: Family = Family { afi: 2, safi: 128 };
const FLOW4: Family = Family { afi: 1, safi: 133 };

const CONTEXT: Context<'_> = Context {
    own_asn: 65000,
    own_next_hop: &[192, 0, 2, 9],
};

fn statement(
    name: &str,
    conditions: Vec<Condition>,
    actions: Vec<Action>,
    then: Then,
) -> Statement {
    Statement {
        name: name.to_owned(),
        conditions,
        actions,
        then,
    }
}

/// 10.7.0.0/16 from AS 65001, originated by 65003.
fn route() -> Vec<u8> {
    attributes(&[
        (0x40, 1, &[0]),
        (0x40, 2, &as_path("65001 65002 65003")),
        (0x80, 4, &[0, 0, 0, 50]),
        (0xE0, 8, &[0xFD, 0xE9, 0, 1, 0xFD, 0xE9, 0, 2]),
        (0x80, 14, &[192, 0, 2, 1]),
        (0xC0, 99, b"kept"),
    ])
}

fn ask<'p>(policy: &'p Policy, family: Family, attributes: &[u8]) -> (Decision<'p>, Vec<u8>) {
    let subject = Subject {
        family,
        key: &[16, 10, 7],
        attributes,
    };
    let mut out = b"old".to_vec();
    let decision = policy.evaluate(&subject, &CONTEXT, &mut out);
    assert_eq!(decision.outcome == Outcome::AcceptEdited, !out.is_empty());
    (decision, out)
}

/// The attributes after `actions`.
fn after(family: Family, before: &[u8], actions: Vec<Action>) -> Vec<u8> {
    let policy = Policy {
        statements: vec![statement("only", vec![], actions, Then::Accept)],
        default: Verdict::Reject,
    };
    let (decision, out) = ask(&policy, family, before);
    match decision.outcome {
        Outcome::Accept => before.to_vec(),
        Outcome::AcceptEdited => out,
        Outcome::Reject => panic!("rejected"),
    }
}

fn prefixes(ranges: &[&str]) -> std::sync::Arc<PrefixSet> {
    let ranges = ranges.iter().map(|text| text.parse().expect("a range"));
    std::sync::Arc::new(ranges.collect())
}

fn set(patterns: &[&str]) -> std::sync::Arc<CommunitySet> {
    let patterns = patterns.iter().map(|text| text.parse().expect("a pattern"));
    std::sync::Arc::new(CommunitySet::standard(patterns))
}

fn asns(asn: u32) -> AsnSet {
    [asn].into_iter().collect()
}

fn value(attributes: &[u8], code: u8) -> Option<Vec<u8>> {
    let working = crate::policy::working::Working::new(attributes);
    working.get(code).map(<[u8]>::to_vec)
}

#[test]
fn without_configuration_nothing_passes_outside() {
    let (outside, inside) = (
        Policy::without_configuration(true),
        Policy::without_configuration(false),
    );
    let (decision, _) = ask(&outside, IPV4, &route());
    let expect = Decision {
        outcome: Outcome::Reject,
        statement: None,
        next_hop: None,
        med: false,
    };
    assert_eq!(decision, expect);
    assert_eq!(ask(&inside, IPV4, &route()).0.outcome, Outcome::Accept);
    assert!(inside.accepts_everything() && !outside.accepts_everything());
    let plain = Policy {
        statements: vec![statement("all", vec![], vec![], Then::Accept)],
        default: Verdict::Reject,
    };
    assert!(plain.accepts_everything());
    assert_eq!(ask(&plain, IPV4, &route()).0.statement, Some("all"));
}

#[test]
fn each_condition_holds_when_it_should() {
    use Quantifier::{AllOf, Exactly};
    let standard = |quantifier, patterns| Condition::Communities(quantifier, set(patterns));
    let regex = |text: &str| Condition::Path(std::sync::Arc::new(text.parse().expect("regex")));
    for (condition, expect) in [
        (Condition::Family(vec![IPV6, IPV4]), true),
        (Condition::Family(vec![IPV6]), false),
        (Condition::Prefix(prefixes(&["10.0.0.0/8 le 16"])), true),
        (Condition::Prefix(prefixes(&["10.0.0.0/8 le 15"])), false),
        (standard(AllOf, &["65001:1"]), true),
        (standard(Exactly, &["65001:1"]), false),
        (Condition::PathContains(asns(65002)), true),
        (Condition::PathContains(asns(65004)), false),
        (Condition::OriginAs(asns(65003)), true),
        (Condition::OriginAs(asns(65001)), false),
        (Condition::NeighborAs(asns(65001)), true),
        (Condition::NeighborAs(asns(65003)), false),
        (Condition::PathLength(3..=3), true),
        (Condition::PathLength(4..=usize::MAX), false),
        (regex("^65001 .* 65003$"), true),
        (regex("^65002"), false),
        (Condition::NextHop(prefixes(&["192.0.2.0/24 le 32"])), true),
        (Condition::NextHop(prefixes(&["192.0.2.0/24"])), false),
        (Condition::Origin(Origin::Igp), true),
        (Condition::Origin(Origin::Incomplete), false),
        (Condition::LocalPref(0..=u32::MAX), false),
        (Condition::Med(50..=50), true),
        (Condition::Med(51..=90), false),
        (Condition::AnyOf(vec![]), false),
        (
            Condition::AnyOf(vec![Condition::Med(0..=1), Condition::Origin(Origin::Igp)]),
            true,
        ),
        (Condition::Not(Box::new(Condition::Med(50..=50))), false),
    ] {
        let policy = Policy {
            statements: vec![statement(
                "it",
                vec![condition.clone()],
                vec![],
                Then::Accept,
            )],
            default: Verdict::Reject,
        };
        let (decision, _) = ask(&policy, IPV4, &route());
        let found = decision.outcome == Outcome::Accept;
        assert_eq!(found, expect, "{condition:?}");
        assert_eq!(decision.statement.is_some(), expect);
    }
}

#[test]
fn next_hops_of_all_lengths_are_understood() {
    let global = [0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let both = [global, [0xFE; 16]].concat();
    let rd = [0; 8];
    for (octets, range, expect) in [
        (&[192, 0, 2, 1][..], "192.0.2.1/32", true),
        (&global, "2001:db8::1/128", true),
        (&both, "2001:db8::1/128", true),
        (&[&rd[..], &[192, 0, 2, 1]].concat(), "192.0.2.1/32", true),
        (&[&rd[..], &global].concat(), "2001:db8::1/128", true),
        (
            &[&rd[..], &global, &rd, &[0xFE; 16]].concat(),
            "2001:db8::1/128",
            true,
        ),
        (&[], "0.0.0.0/0 le 32", false),
    ] {
        let policy = Policy {
            statements: vec![statement(
                "it",
                vec![Condition::NextHop(prefixes(&[range]))],
                vec![],
                Then::Accept,
            )],
            default: Verdict::Reject,
        };
        let (decision, _) = ask(&policy, IPV4, &attributes(&[(0x80, 14, octets)]));
        assert_eq!(decision.statement.is_some(), expect, "{octets:?}");
    }
}

#[test]
fn statements_are_asked_in_order_and_see_earlier_changes() {
    let tagged = || vec![Condition::Communities(Quantifier::AnyOf, set(&["65000:9"]))];
    let add = Action::AddCommunities(Communities::Standard(vec!["65000:9".parse().expect("c")]));
    let policy = Policy {
        statements: vec![
            statement("too early", tagged(), vec![], Then::Reject),
            statement("tag", vec![], vec![add], Then::Next),
            statement("other", vec![Condition::Med(0..=49)], vec![], Then::Reject),
            statement(
                "prefer",
                tagged(),
                vec![Action::LocalPref(300)],
                Then::Accept,
            ),
            statement("never", vec![], vec![], Then::Reject),
        ],
        default: Verdict::Reject,
    };
    let (decision, out) = ask(&policy, IPV4, &route());
    assert_eq!(decision.statement, Some("prefer"));
    let expect = attributes(&[
        (0x40, 1, &[0]),
        (0x40, 2, &as_path("65001 65002 65003")),
        (0x80, 4, &[0, 0, 0, 50]),
        (0x40, 5, &300_u32.to_be_bytes()),
        // The flags, partial among them, stay.
        (
            0xE0,
            8,
            &[0xFD, 0xE9, 0, 1, 0xFD, 0xE9, 0, 2, 0xFD, 0xE8, 0, 9],
        ),
        (0x80, 14, &[192, 0, 2, 1]),
        (0xC0, 99, b"kept"),
    ]);
    assert_eq!(out, expect);
    // What a rejected route would have been does not matter, and the default counts changes.
    let falls_through = Policy {
        statements: policy.statements[1..2].to_vec(),
        default: Verdict::Accept,
    };
    let (decision, out) = ask(&falls_through, IPV4, &route());
    assert_eq!(
        (decision.outcome, decision.statement),
        (Outcome::AcceptEdited, None)
    );
    assert_eq!(value(&out, 8).map(|value| value.len()), Some(12));
}

#[test]
fn numbers_and_origin_are_set() {
    for (action, code, expect) in [
        (Action::LocalPref(7), 5, Some(vec![0, 0, 0, 7])),
        (Action::Med(Med::Set(9)), 4, Some(vec![0, 0, 0, 9])),
        (Action::Med(Med::Add(6)), 4, Some(vec![0, 0, 0, 56])),
        (Action::Med(Med::Add(-60)), 4, Some(vec![0; 4])),
        (Action::Med(Med::Add(i64::MAX)), 4, Some(vec![255; 4])),
        (Action::Med(Med::Remove), 4, None),
        (Action::Origin(Origin::Incomplete), 1, Some(vec![2])),
    ] {
        let out = after(IPV4, &route(), vec![action.clone()]);
        assert_eq!(value(&out, code), expect, "{action:?}");
        assert_eq!(value(&out, 99).as_deref(), Some(&b"kept"[..]));
    }
    let bare = after(
        IPV4,
        &[],
        vec![Action::Med(Med::Add(5)), Action::LocalPref(1)],
    );
    let expect = attributes(&[(0x80, 4, &[0, 0, 0, 5]), (0x40, 5, &[0, 0, 0, 1])]);
    assert_eq!(bare, expect);
}

#[test]
fn what_changes_nothing_is_no_edit() {
    let policy = Policy {
        statements: vec![statement(
            "same",
            vec![],
            vec![
                Action::Med(Med::Set(50)),
                Action::Origin(Origin::Igp),
                Action::AddCommunities(Communities::Standard(vec![Community(0xFDE9_0001)])),
                Action::RemoveCommunities(set(&["9:9"])),
                Action::Prepend {
                    asn: Prepended::Own,
                    times: 0,
                },
                Action::NextHop(NextHop::Unchanged),
            ],
            Then::Accept,
        )],
        default: Verdict::Reject,
    };
    let (decision, _) = ask(&policy, IPV4, &route());
    assert_eq!(decision.outcome, Outcome::Accept);
    assert_eq!(decision.next_hop, Some(NextHop::Unchanged));
}

#[test]
fn communities_of_all_sizes_are_edited() {
    let (one, two) = (Community(0xFDE9_0001), Community(0xFDE9_0002));
    let blackhole = Communities::Standard(vec![Community::BLACKHOLE, one]);
    let standard = |list: &[Community]| {
        let octets: Vec<u8> = list.iter().flat_map(|c| c.0.to_be_bytes()).collect();
        Some(octets).filter(|octets| !octets.is_empty())
    };
    for (action, expect) in [
        (
            Action::AddCommunities(blackhole.clone()),
            vec![one, two, Community::BLACKHOLE],
        ),
        (Action::RemoveCommunities(set(&["*:1"])), vec![two]),
        (Action::RemoveCommunities(set(&["65001:*"])), vec![]),
        (
            Action::ReplaceCommunities(blackhole),
            vec![Community::BLACKHOLE, one],
        ),
        (
            Action::ReplaceCommunities(Communities::Standard(vec![])),
            vec![],
        ),
    ] {
        let out = after(IPV4, &route(), vec![action.clone()]);
        assert_eq!(value(&out, 8), standard(&expect), "{action:?}");
    }
    let target: ExtendedCommunity = "rt:65000:1".parse().expect("a target");
    let large = LargeCommunity([1, 2, 3]);
    let pattern = "1:*:3".parse().expect("a pattern");
    let add = vec![
        Action::AddCommunities(Communities::Extended(vec![target, target])),
        Action::AddCommunities(Communities::Large(vec![LargeCommunity([1, 2, 4]), large])),
        Action::RemoveCommunities(CommunitySet::large([pattern]).into()),
    ];
    let out = after(IPV4, &[], add);
    let kept = LargeCommunity([1, 2, 4]).octets();
    assert_eq!(out, attributes(&[(0xC0, 16, &target.0), (0xC0, 32, &kept)]));
}

#[test]
fn a_path_grows_at_the_near_end() {
    let prepend = |asn, times| Action::Prepend { asn, times };
    let other = Prepended::Asn(NonZeroU32::new(7).expect("not 0"));
    for (before, actions, expect) in [
        ("1 2", vec![prepend(Prepended::Own, 2)], "65000 65000 1 2"),
        ("", vec![prepend(other, 3)], "7 7 7"),
        ("{1 2} 3", vec![prepend(other, 1)], "7 {1 2} 3"),
        (
            "1",
            vec![prepend(other, 1), prepend(Prepended::Own, 1)],
            "65000 7 1",
        ),
        ("(9) 1", vec![prepend(other, 1)], "7 (9) 1"),
    ] {
        let attribute = attributes(&[(0x40, 2, &as_path(before))]);
        let out = after(IPV4, &attribute, actions);
        assert_eq!(value(&out, 2), Some(as_path(expect)), "{before}");
    }
    // A full segment gets another before it, and the attribute a longer length.
    let full = [&[2, 250][..], &[0, 0, 0, 1].repeat(250)].concat();
    let before = [&[0x50, 2, 3, 0xEA][..], &full].concat();
    let out = after(IPV4, &before, vec![prepend(other, 6)]);
    let expect = [&[0x50, 2, 4, 4, 2, 6][..], &[0, 0, 0, 7].repeat(6), &full].concat();
    assert_eq!(out, expect);
    let out = after(IPV4, &before, vec![prepend(other, 5)]);
    assert_eq!(out[..10], [0x50, 2, 3, 0xFE, 2, 255, 0, 0, 0, 7]);
}

#[test]
fn the_next_hop_has_the_shape_of_its_family() {
    let v4 = NextHop::Address("192.0.2.7".parse().expect("an address"));
    let v6 = NextHop::Address("2001:db8::7".parse().expect("an address"));
    let short = [192, 0, 2, 7];
    let long = [0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    let mapped = [&[0; 10][..], &[0xFF, 0xFF], &short].concat();
    let before = [192, 0, 2, 1];
    for (family, next_hop, expect) in [
        (IPV4, NextHop::Own, &[192, 0, 2, 9][..]),
        (IPV4, v4, &short),
        (IPV4, v6, &long),
        (IPV6, v6, &long),
        (IPV6, v4, &mapped),
        (VPNV4, v4, &[&[0; 8][..], &short].concat()),
        (VPNV4, v6, &[&[0; 8][..], &long].concat()),
        (VPNV6, v6, &[&[0; 8][..], &long].concat()),
        (Family::MESH, v4, &short),
        (Family::MESH, v6, &before),
        (FLOW4, v4, &before),
    ] {
        let out = after(family, &route(), vec![Action::NextHop(next_hop)]);
        assert_eq!(
            value(&out, 14).as_deref(),
            Some(expect),
            "{family:?} {next_hop:?}"
        );
    }
}

#[test]
fn a_value_that_fits_no_attribute_is_rejected() {
    let many = |n: u32| Communities::Standard((0..n).map(Community).collect());
    for (count, outcome) in [(16_383, Outcome::AcceptEdited), (16_384, Outcome::Reject)] {
        let actions = vec![Action::ReplaceCommunities(many(count))];
        let policy = Policy {
            statements: vec![statement("many", vec![], actions, Then::Accept)],
            default: Verdict::Reject,
        };
        let (decision, _) = ask(&policy, IPV4, &route());
        assert_eq!(
            (decision.outcome, decision.statement),
            (outcome, Some("many"))
        );
    }
}

#[test]
fn broken_attributes_never_panic() {
    let mut rng = base::Rng::new(9);
    let everything = Policy {
        statements: vec![
            statement(
                "look",
                vec![
                    Condition::PathLength(0..=0),
                    Condition::NextHop(prefixes(&["0.0.0.0/0 le 32"])),
                    Condition::Communities(Quantifier::Exactly, set(&["1:*"])),
                    Condition::Med(0..=7),
                ],
                vec![],
                Then::Reject,
            ),
            statement(
                "touch",
                vec![],
                vec![
                    Action::Prepend {
                        asn: Prepended::Own,
                        times: 255,
                    },
                    Action::RemoveCommunities(set(&["*:1"])),
                    Action::AddCommunities(Communities::Standard(vec![Community(1)])),
                    Action::Med(Med::Add(1)),
                ],
                Then::Accept,
            ),
        ],
        default: Verdict::Reject,
    };
    for _ in 0..5_000 {
        let mut octets = route();
        for _ in 0..=rng.below(5) {
            let length = u64::try_from(octets.len()).expect("small");
            let place = usize::try_from(rng.below(length)).expect("small");
            octets[place] = rng.next_u64().to_le_bytes()[0];
        }
        let length = u64::try_from(octets.len()).expect("small");
        octets.truncate(usize::try_from(rng.below(length)).expect("small"));
        ask(&everything, IPV4, &octets);
    }
}
