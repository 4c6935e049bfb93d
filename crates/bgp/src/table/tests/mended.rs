//! What was wrong once.

use base::Instant;

use super::model::{self, Planet, client, external, prefix, spoken, vpn, wanted, with_target};
use crate::table::*;

#[test]
fn the_table_does_not_end_before_what_was_told_before_the_newcomer_came() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    let keys: Vec<Vec<u8>> = (0..5000).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    // A group of its own, whose seed is under way when the third comes.
    planet.up(2, client(2, 65000));
    planet.turn();
    planet.up(3, client(3, 65000));
    planet.settle();
    assert_eq!(planet.heard(3).len(), 5000);
    assert_eq!(planet.ended_of(3, Family::IPV4), 1);
    planet.check();
}

#[test]
fn what_a_deaf_neighbour_is_owed_waits_until_it_hears_again() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    for at in 1..=3 {
        planet.up(at, external(at, 65000 + u32::from(at)));
    }
    let keys: Vec<Vec<u8>> = (0..300).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    planet.settle();
    planet.shard.pause(PeerIndex(3));
    planet.shard.refresh(PeerIndex(3), Family::IPV4);
    let before = planet.messages(3);
    planet.up(4, external(4, 65004));
    planet.settle();
    assert_eq!(planet.heard(4).len(), 300, "the deaf one holds up nobody");
    assert_eq!(planet.messages(3), before, "and is told nothing");
    planet.shard.resume(PeerIndex(3));
    planet.settle();
    assert!(planet.messages(3) > before);
    assert_eq!(planet.ended_of(3, Family::IPV4), 2);
}

#[test]
fn whoever_asks_first_hears_that_others_ask_too() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    for at in 1..=2 {
        planet.up(at, client(at, 65000));
    }
    planet.announce(1, Family::RTC, &[wanted(1)], &model::internal(1));
    planet.settle();
    let own = planet.heard(1).get(&(Family::RTC, 0, wanted(1)));
    let (attributes, _) = own.expect("RFC 4684 section 3.2 i");
    let view = AttributesView(attributes);
    assert_eq!(view.originator(), Some(NodeId(99)));
    assert_eq!(view.next_hop(), [0, 0, 0, 99]);
    planet.announce(2, Family::RTC, &[wanted(1)], &model::internal(2));
    planet.settle();
    let clusters = |planet: &Planet, at: u16| {
        let (attributes, _) = &planet.heard(at)[&(Family::RTC, 0, wanted(1))];
        AttributesView(attributes).cluster_list().to_vec()
    };
    assert_eq!(clusters(&planet, 1), [0, 0, 0, 99]);
    planet.withdraw(2, Family::RTC, &[wanted(1)]);
    planet.settle();
    assert_eq!(planet.heard_of(1, Family::RTC), 1, "its own is left");
    planet.withdraw(1, Family::RTC, &[wanted(1)]);
    planet.settle();
    assert_eq!(planet.heard_of(1, Family::RTC), 0);
    planet.check();
}

#[test]
fn one_that_is_no_client_hears_of_a_clients_wish_behind_anothers() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    for at in 1..=3 {
        let mut config = client(at, 65000);
        if at < 3 {
            config.kind = Kind::NonClient;
        }
        planet.up(at, config);
    }
    planet.announce(1, Family::RTC, &[wanted(1)], &model::internal(1));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::RTC), 0);
    planet.announce(3, Family::RTC, &[wanted(1)], &model::internal(3));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::RTC), 1);
    assert_eq!(planet.heard_of(1, Family::RTC), 1);
    planet.withdraw(3, Family::RTC, &[wanted(1)]);
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::RTC), 0);
}

#[test]
fn what_no_longer_fits_into_a_message_is_withdrawn() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    let mut long = external(1, 65001);
    long.max_message = 65535;
    planet.up(1, long);
    planet.up(2, external(2, 65002));
    planet.announce(
        1,
        Family::IPV4,
        &[prefix(10, 8)],
        &model::attributes(65001, 1),
    );
    planet.settle();
    assert_eq!(planet.heard(2).len(), 1);
    let mut attributes = model::attributes(65001, 1);
    attributes.extend([0xD0, 32]);
    attributes.extend(4800_u16.to_be_bytes());
    attributes.extend((0..1200_u32).flat_map(u32::to_be_bytes));
    planet.announce(1, Family::IPV4, &[prefix(10, 8)], &attributes);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 0);
    assert_eq!(planet.shard.sizes().oversized, 1);
}

#[test]
fn a_constrained_table_does_not_end_before_the_neighbour_has_asked() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    planet.up(1, client(1, 65000));
    let keys: Vec<Vec<u8>> = (0..9).map(|i| vpn(1, i)).collect();
    planet.announce(1, Family::VPNV4, &keys, &with_target(1));
    let mut config = client(2, 65000);
    config.constrained = true;
    planet.up(2, config);
    planet.settle();
    assert_eq!(planet.ended_of(2, Family::VPNV4), 0);
    assert_eq!(planet.ended_of(2, Family::RTC), 1);
    planet.announce(2, Family::RTC, &[wanted(1)], &model::internal(2));
    planet.end_of_rib(2, Family::RTC);
    while planet.ended_of(2, Family::VPNV4) == 0 {
        assert!(planet.turn(), "the end never comes");
    }
    assert_eq!(planet.heard_of(2, Family::VPNV4), 9);
    planet.end_of_rib(2, Family::RTC);
    planet.settle();
    assert_eq!(planet.ended_of(2, Family::VPNV4), 1);
}

#[test]
fn what_two_restarts_did_not_say_anew_goes() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(2, external(2, 65002));
    planet.up(1, external(1, 65001));
    let keys: Vec<Vec<u8>> = (0..10).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    for round in 0..2 {
        planet.down(1, &[Family::IPV4]);
        planet.up(1, external(1, 65001));
        if round == 0 {
            planet.announce(1, Family::IPV4, &keys[..4], &model::attributes(65001, 1));
        }
    }
    planet.settle();
    assert_eq!(planet.heard(2).len(), 4, "said in the last session but one");
    planet.end_of_rib(1, Family::IPV4);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 0);
}

#[test]
fn several_paths_go_to_those_that_want_them() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    planet.up(1, client(1, 65000));
    let mut config = client(2, 65000);
    config.constrained = true;
    config.families = vec![spoken(Family::VPNV4), spoken(Family::RTC)];
    config.families[0].add_path_send = 2;
    planet.up(2, config);
    planet.say(1, Family::VPNV4, 1, &[vpn(1, 1)], Some(&with_target(1)));
    planet.say(1, Family::VPNV4, 2, &[vpn(1, 1)], Some(&with_target(2)));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
    planet.announce(2, Family::RTC, &[wanted(1), wanted(2)], &model::internal(2));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 2);
    // A path whose targets are no longer wanted is taken back.
    planet.say(1, Family::VPNV4, 1, &[vpn(1, 1)], Some(&with_target(3)));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 1);
    let told = planet.shard.sizes().told;
    planet.say(1, Family::VPNV4, 1, &[vpn(1, 1)], Some(&with_target(4)));
    planet.settle();
    let more = planet.shard.sizes().told - told;
    assert!(more <= 1, "an unchanged path is not told again: {more}");
    planet.withdraw(2, Family::RTC, &[wanted(2)]);
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
}

#[test]
fn nobody_learns_of_anothers_routes_by_their_withdrawal() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    for at in 1..=3_u8 {
        let mut config = client(u16::from(at), 65000);
        config.constrained = at != 1;
        planet.up(u16::from(at), config);
        let own = model::internal(at);
        planet.announce(u16::from(at), Family::RTC, &[wanted(at)], &own);
    }
    let keys: Vec<Vec<u8>> = (0..9).map(|i| vpn(2, i)).collect();
    planet.announce(1, Family::VPNV4, &keys, &with_target(2));
    planet.settle();
    let named = |planet: &Planet| planet.named(3, Family::VPNV4);
    planet.shard.pause(PeerIndex(3));
    planet.shard.pause(PeerIndex(2));
    planet.withdraw(1, Family::VPNV4, &keys[..5]);
    planet.settle();
    planet.shard.resume(PeerIndex(3));
    planet.shard.resume(PeerIndex(2));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 4);
    assert_eq!(named(&planet), 0);
    // In one walk with one that is owed them, and in one with one that wants them no more.
    planet.shard.refresh(PeerIndex(3), Family::VPNV4);
    planet.withdraw(2, Family::RTC, &[wanted(2)]);
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
    assert_eq!(named(&planet), 0);
}

#[test]
fn what_was_wanted_until_now_is_taken_back_though_it_changes_meanwhile() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    planet.up(1, client(1, 65000));
    let mut config = client(2, 65000);
    config.constrained = true;
    planet.up(2, config);
    planet.announce(2, Family::RTC, &[wanted(1)], &model::internal(2));
    let keys: Vec<Vec<u8>> = (0..9).map(|i| vpn(1, i)).collect();
    planet.announce(1, Family::VPNV4, &keys, &with_target(1));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 9);
    planet.withdraw(2, Family::RTC, &[wanted(1)]);
    planet.withdraw(1, Family::VPNV4, &keys[..3]);
    planet.announce(1, Family::VPNV4, &keys[3..6], &with_target(2));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
}

#[test]
fn the_limit_is_that_of_all_shards_and_of_this_session() {
    let config = |seed| ShardConfig {
        asn: 65000,
        node: NodeId(99),
        families: vec![Family::IPV4],
        seed,
        deferred: false,
        holds_ends: false,
        watched: Vec::new(),
        tells_constraint: true,
    };
    let mut shards = [Shard::new(config(1)), Shard::new(config(2))];
    let up = |shards: &mut [Shard; 2]| {
        let mut peer = external(1, 65001);
        peer.families[0].max_routes = 6;
        for shard in shards {
            shard.peer_up(PeerIndex(1), peer.clone());
        }
    };
    let say = |shards: &mut [Shard; 2], from: u32| {
        let mut octets = Vec::new();
        for i in from..from + 4 {
            crate::wire::encode(Family::IPV4, None, &prefix(i, 24), &[], &mut octets);
        }
        let section = Section {
            family: Family::IPV4,
            add_path: false,
            octets: &octets,
        };
        let at = (from / 4 % 2) as usize;
        let attributes = model::attributes(65001, 1);
        let _ = shards[at].announce(PeerIndex(1), &section, &attributes, |_| true);
    };
    up(&mut shards);
    say(&mut shards, 0);
    say(&mut shards, 4);
    let routes = |shards: &[Shard; 2]| shards.iter().map(|s| s.sizes().routes).sum::<usize>();
    assert_eq!(routes(&shards), 6);
    for shard in &mut shards {
        shard.peer_down(PeerIndex(1), &[Family::IPV4]);
        while shard.poll(Instant::from_nanos(1), &mut |_, _| {}) == Poll::More {}
    }
    up(&mut shards);
    while shards[1].poll_notice().is_some() {}
    // What was kept of the session before counts for nothing.
    say(&mut shards, 8);
    say(&mut shards, 0);
    assert_eq!(
        shards[0].poll_notice(),
        Some(Notice::TooMany(PeerIndex(1), Family::IPV4))
    );
    assert_eq!(routes(&shards), 6 + 4);
}

#[test]
fn a_route_that_flaps_while_it_waits_waits_once() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    planet.settle();
    planet.shard.set_ready(PeerIndex(2), false);
    for _ in 0..100 {
        planet.announce(
            1,
            Family::IPV4,
            &[prefix(10, 8)],
            &model::attributes(65001, 1),
        );
        planet.withdraw(1, Family::IPV4, &[prefix(10, 8)]);
    }
    let queued: usize = planet.shard.tables[0]
        .groups
        .iter()
        .map(|group| group.changes.queued())
        .sum();
    assert!(queued <= 4, "{queued} entries for one route and two groups");
}

#[test]
fn routes_come_before_their_attributes() {
    // RFC 7606 section 5.1: they are to be found when an attribute is damaged.
    let encoding = crate::wire::Encoding {
        max_message: 4096,
        four_octet_as: true,
        add_path: false,
    };
    let mut out = Vec::new();
    let mut update =
        crate::wire::UpdateBuilder::announce(&mut out, Family::VPNV4, &encoding, &with_target(1))
            .expect("small attributes");
    assert!(update.push(0, &vpn(1, 1), &[0, 1, 1]));
    update.finish();
    assert_eq!(out[23..25], [0x90, 14], "behind the header and two lengths");
}
