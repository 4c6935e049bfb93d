//! Policies at the table's doors.

use std::{num::NonZeroU32, sync::Arc};

use super::model::{Planet, attributes, client, external, internal, prefix};
use crate::{
    policy::{Action, Condition, Med, NextHop as Hop, Policy, Prepended, Statement, Then, Verdict},
    table::*,
    wire::{Edit, Set, rewrite},
};

/// Everything in `10.0.0.0/8` passes with these actions, and nothing else.
fn ten(actions: Vec<Action>) -> Arc<Filter> {
    let range = "10.0.0.0/8 le 32".parse().expect("a range");
    let policy = Policy {
        statements: vec![Statement {
            name: "ten".to_owned(),
            conditions: vec![Condition::Prefix(Arc::new([range].into_iter().collect()))],
            actions,
            then: Then::Accept,
        }],
        default: Verdict::Reject,
    };
    Arc::new(Filter::from(policy))
}

fn only(planet: &Planet, at: u16) -> Vec<u8> {
    let heard = planet.heard(at);
    assert_eq!(heard.len(), 1, "neighbour {at}");
    let (attributes, _) = heard.values().next().expect("one route");
    attributes.clone()
}

fn with_med(attributes: &[u8], med: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let edit = Edit {
        med: Set::To(med),
        ..Edit::default()
    };
    rewrite(attributes, &edit, &mut out);
    out
}

#[test]
fn an_import_policy_takes_some_and_changes_them() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    let mut config = external(1, 65001);
    config.import = ten(vec![Action::LocalPref(300)]);
    planet.up(1, config);
    planet.up(2, client(2, 65000));
    let ten: Vec<Vec<u8>> = (0..50).map(|i| prefix(0x0A_0000 + i, 24)).collect();
    let eleven: Vec<Vec<u8>> = (0..50).map(|i| prefix(0x0B_0000 + i, 24)).collect();
    let both = [ten, eleven].concat();
    planet.announce(1, Family::IPV4, &both, &attributes(65001, 2));
    planet.settle();
    assert_eq!(
        planet.shard.sizes().attributes,
        1,
        "one set for all that came out alike"
    );
    assert_eq!(planet.heard(2).len(), 50);
    for (told, _) in planet.heard(2).values() {
        assert_eq!(AttributesView(told).local_pref(), Some(300));
    }
    assert!(planet.heard(2).keys().all(|(_, _, key)| key[1] == 10));
    planet.withdraw(1, Family::IPV4, &both);
    planet.settle();
    assert_eq!(planet.shard.sizes().attributes, 0);
}

#[test]
fn what_an_import_policy_refuses_takes_back_what_was_said_before() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    let policy = Policy {
        statements: vec![Statement {
            name: "too long".to_owned(),
            conditions: vec![Condition::PathLength(3..=usize::MAX)],
            actions: Vec::new(),
            then: Then::Reject,
        }],
        default: Verdict::Accept,
    };
    let mut config = external(1, 65001);
    config.import = Arc::new(policy.into());
    planet.up(1, config);
    planet.up(2, external(2, 65002));
    planet.announce(1, Family::IPV4, &[prefix(10, 8)], &attributes(65001, 2));
    planet.settle();
    assert_eq!(planet.heard(2).len(), 1);
    planet.announce(1, Family::IPV4, &[prefix(10, 8)], &attributes(65001, 3));
    planet.settle();
    assert_eq!(planet.heard(2).len(), 0);
    assert_eq!(planet.shard.sizes().routes, 0);
    assert_eq!(planet.shard.sizes().attributes, 0);
}

#[test]
fn an_export_policy_s_med_and_next_hop_are_what_is_told() {
    let address = "192.0.2.7".parse().expect("an address");
    let prepend = Action::Prepend {
        asn: Prepended::Own,
        times: 2,
    };
    let exports = [
        (2, vec![Action::Med(Med::Set(50)), prepend]),
        (3, vec![Action::NextHop(Hop::Unchanged)]),
        (4, vec![Action::NextHop(Hop::Address(address))]),
        (5, vec![Action::NextHop(Hop::Own)]),
        (6, vec![]),
    ];
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    for (at, actions) in exports {
        let mut config = external(at, 65000 + u32::from(at));
        config.export = ten(actions);
        planet.up(at, config);
    }
    let said = with_med(&attributes(65001, 1), 50);
    planet.announce(1, Family::IPV4, &[prefix(10, 8), prefix(11, 8)], &said);
    planet.settle();
    let told = |at: u16| {
        let told = only(&planet, at);
        let view = AttributesView(&told);
        (
            view.med(),
            view.next_hop().to_vec(),
            view.as_path().to_string(),
        )
    };
    let ours = vec![127, 0, 0, 99];
    assert_eq!(
        told(2),
        (Some(50), ours.clone(), "65000 65000 65000 65001".to_owned())
    );
    assert_eq!(told(3), (None, vec![10, 0, 0, 1], "65000 65001".to_owned()));
    assert_eq!(
        told(4),
        (None, vec![192, 0, 2, 7], "65000 65001".to_owned())
    );
    assert_eq!(told(5), (None, ours.clone(), "65000 65001".to_owned()));
    assert_eq!(told(6), (None, ours, "65000 65001".to_owned()));
    // Those that come later hear the same in a walk.
    let mut late = external(7, 65007);
    late.export = ten(vec![Action::NextHop(Hop::Unchanged)]);
    planet.up(7, late);
    planet.settle();
    assert_eq!(AttributesView(&only(&planet, 7)).next_hop(), [10, 0, 0, 1]);
}

#[test]
fn a_client_is_told_our_own_next_hop_where_its_policy_says_so() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, client(1, 65000));
    let own = OwnAddresses {
        v4: Some([127, 0, 0, 99]),
        v6: None,
    };
    let mut config = client(2, 65000);
    config.export = ten(vec![Action::NextHop(Hop::Own)]);
    config.next_hop = NextHop::UnchangedUnlessAsked(own);
    planet.up(2, config);
    planet.up(3, client(3, 65000));
    planet.announce(1, Family::IPV4, &[prefix(10, 8)], &internal(1));
    planet.settle();
    assert_eq!(
        AttributesView(&only(&planet, 2)).next_hop(),
        [127, 0, 0, 99]
    );
    assert_eq!(AttributesView(&only(&planet, 3)).next_hop(), [10, 0, 0, 1]);
}

#[test]
fn a_policy_that_need_not_be_asked_is_not() {
    assert_eq!(Filter::from(Policy::ACCEPT), Filter::Accept);
    assert_eq!(Filter::from(Policy::REJECT), Filter::Reject);
    let asn = Prepended::Asn(NonZeroU32::MIN);
    let policy = Policy {
        statements: vec![Statement {
            name: "longer".to_owned(),
            conditions: Vec::new(),
            actions: vec![Action::Prepend { asn, times: 1 }],
            then: Then::Accept,
        }],
        default: Verdict::Reject,
    };
    assert_eq!(Filter::from(policy.clone()), Filter::Policy(policy));
}
