//! The table through its door: whatever happens, in whatever order, everybody has in the end
//! heard what is so.

mod hops;
mod long_lived;
mod mended;
mod model;
mod policy;
mod random;

use base::Instant;

use self::model::{Planet, client, external, prefix};
use super::*;

#[test]
fn a_route_goes_to_everybody_but_its_source() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    for at in 1..=3 {
        planet.up(at, external(at, 65000 + u32::from(at)));
    }
    planet.announce(
        1,
        Family::IPV4,
        &[prefix(10, 8)],
        &model::attributes(65001, 1),
    );
    planet.settle();
    assert_eq!(planet.heard(1).len(), 0);
    assert_eq!(planet.heard(2).len(), 1);
    assert_eq!(planet.heard(3).len(), 1);
    planet.withdraw(1, Family::IPV4, &[prefix(10, 8)]);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 0);
    assert_eq!(planet.shard.sizes().routes, 0);
    assert_eq!(planet.shard.sizes().attributes, 0);
}

#[test]
fn the_better_path_takes_over_and_its_source_hears_the_end_of_the_other() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    for at in 1..=3 {
        planet.up(at, external(at, 65000 + u32::from(at)));
    }
    planet.announce(
        1,
        Family::IPV4,
        &[prefix(10, 8)],
        &model::attributes(65001, 3),
    );
    planet.settle();
    assert_eq!(planet.heard(2).len(), 1);
    planet.announce(
        2,
        Family::IPV4,
        &[prefix(10, 8)],
        &model::attributes(65002, 1),
    );
    planet.settle();
    assert_eq!(
        planet.heard(2).len(),
        0,
        "its own route is the best one now"
    );
    assert_eq!(planet.heard(1).len(), 1);
    let (views, _) = planet.shard.routes(Family::IPV4, 0, 10, |_| true);
    assert_eq!(views[0].paths.len(), 2);
    assert_eq!(views[0].why, Some(Why::AsPath));
    planet.check();
}

#[test]
fn what_changes_while_it_waits_is_told_once() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    planet.settle();
    let before = planet.shard.sizes().told;
    for round in 1..=50 {
        planet.announce(
            1,
            Family::IPV4,
            &[prefix(10, 8)],
            &model::attributes(65001, round),
        );
    }
    planet.settle();
    assert_eq!(planet.shard.sizes().told - before, 1);
    planet.check();
}

#[test]
fn routes_of_equal_attributes_share_messages() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    let keys: Vec<Vec<u8>> = (0..1000).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    planet.settle();
    assert_eq!(planet.heard(2).len(), 1000);
    assert!(planet.messages(2) <= 3, "{} messages", planet.messages(2));
}

#[test]
fn routes_are_taken_back_in_whatever_order() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    let all: Vec<Vec<u8>> = (0..60).map(|i| prefix(i, 24)).collect();
    let every = |from: usize, step: usize| -> Vec<Vec<u8>> {
        all.iter().skip(from).step_by(step).cloned().collect()
    };
    let mut holes = every(0, 1);
    holes.drain(20..25);
    let backwards: Vec<Vec<u8>> = all.iter().rev().cloned().collect();
    // The last of them are not there, and some are said twice.
    let more = (50..70).chain(40..60).map(|i| prefix(i, 24)).collect();
    let mut keys = all.clone();
    for gone in [every(0, 1), every(1, 3), holes, backwards, more] {
        // Places are used again in another order than the one in which they were given back.
        keys.rotate_left(7);
        planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
        planet.settle();
        assert_eq!(planet.heard(2).len(), 60);
        planet.withdraw(1, Family::IPV4, &gone);
        planet.settle();
        let left = all.iter().filter(|key| !gone.contains(key)).count();
        assert_eq!(planet.heard(2).len(), left);
        assert_eq!(planet.shard.sizes().routes, left);
        planet.check();
    }
}

#[test]
fn many_joiners_are_served_by_one_walk() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    let keys: Vec<Vec<u8>> = (0..5000).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    planet.settle();
    let before = planet.shard.sizes().told;
    for at in 3..=12 {
        planet.up(at, external(at, 65000 + u32::from(at)));
    }
    planet.settle();
    assert_eq!(planet.shard.sizes().told - before, 5000);
    for at in 3..=12 {
        assert_eq!(planet.heard(at).len(), 5000);
        assert!(planet.ended(at), "{at} was told that this was all");
    }
    planet.check();
}

#[test]
fn graceful_restart_withdraws_nothing() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    let keys: Vec<Vec<u8>> = (0..100).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    planet.settle();
    let before = planet.shard.sizes().told;
    planet.down(1, &[Family::IPV4]);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 100);
    planet.up(1, external(1, 65001));
    planet.announce(1, Family::IPV4, &keys[..60], &model::attributes(65001, 1));
    planet.settle();
    assert_eq!(
        planet.heard(2).len(),
        100,
        "nothing was said yet about the rest"
    );
    assert_eq!(planet.shard.sizes().told, before, "nothing new was to tell");
    planet.end_of_rib(1, Family::IPV4);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 60);
    planet.check();
}

#[test]
fn a_reflector_marks_and_refuses_circles() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, client(1, 65000));
    planet.up(2, client(2, 65000));
    planet.announce(1, Family::IPV4, &[prefix(10, 8)], &model::internal(1));
    planet.settle();
    let heard = planet.heard(2);
    let (attributes, _) = heard.values().next().expect("one route");
    let view = AttributesView(attributes);
    assert_eq!(view.originator(), Some(NodeId(1)));
    assert_eq!(view.cluster_list(), &[0, 0, 0, 99]);
    let back = attributes.clone();
    planet.announce(2, Family::IPV4, &[prefix(11, 8)], &back);
    planet.settle();
    assert_eq!(planet.heard(1).len(), 0, "our own cluster is in it");
}

#[test]
fn a_deaf_neighbour_costs_bits_and_hears_the_rest_later() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    for at in 1..=3 {
        planet.up(at, external(at, 65000 + u32::from(at)));
    }
    let keys: Vec<Vec<u8>> = (0..300).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    planet.settle();
    planet.shard.pause(PeerIndex(3));
    planet.withdraw(1, Family::IPV4, &keys[..100]);
    planet.announce(
        1,
        Family::IPV4,
        &keys[100..200],
        &model::attributes(65001, 2),
    );
    planet.settle();
    assert_eq!(planet.heard(2).len(), 200);
    assert_eq!(planet.heard(3).len(), 300);
    planet.shard.resume(PeerIndex(3));
    planet.settle();
    assert_eq!(planet.heard(3).len(), 200);
    planet.check();
    assert_eq!(
        planet.shard.sizes().routes,
        200,
        "no place is held any more"
    );
}

#[test]
fn only_what_was_asked_for_is_heard() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    for at in 1..=3 {
        let mut config = client(at, 65000);
        config.constrained = at != 1;
        planet.up(at, config);
    }
    for tenant in 1..=2 {
        let keys: Vec<Vec<u8>> = (0..10).map(|i| model::vpn(tenant, i)).collect();
        planet.announce(1, Family::VPNV4, &keys, &model::with_target(tenant));
    }
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
    planet.announce(2, Family::RTC, &[model::wanted(1)], &model::internal(2));
    planet.announce(3, Family::RTC, &[model::wanted(2)], &model::internal(3));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 10);
    assert_eq!(planet.heard_of(3, Family::VPNV4), 10);
    planet.withdraw(2, Family::RTC, &[model::wanted(1)]);
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
    planet.announce(2, Family::RTC, &[vec![0]], &model::internal(2));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 20);
    planet.check();
}

#[test]
fn each_of_thirty_receivers_hears_its_own_and_nothing_else() {
    let mut planet = Planet::new(65000, &[Family::VPNV4, Family::RTC]);
    planet.up(100, client(100, 65000));
    for tenant in 1..=30 {
        let mut config = client(tenant.into(), 65000);
        config.constrained = true;
        planet.up(tenant.into(), config);
        let wish = [model::wanted(tenant)];
        planet.announce(tenant.into(), Family::RTC, &wish, &model::internal(tenant));
    }
    for tenant in 1..=40 {
        let keys: Vec<Vec<u8>> = (0..100).map(|i| model::vpn(tenant, i)).collect();
        planet.announce(100, Family::VPNV4, &keys, &model::with_target(tenant));
    }
    planet.settle();
    for tenant in 1..=30_u8 {
        let heard = planet.heard(tenant.into());
        let of_family = heard.keys().filter(|key| key.0 == Family::VPNV4);
        let theirs: Vec<Vec<u8>> = of_family.map(|key| key.2.clone()).collect();
        assert_eq!(theirs.len(), 100, "tenant {tenant}");
        let own: Vec<Vec<u8>> = (0..100).map(|i| model::vpn(tenant, i)).collect();
        assert!(
            theirs.iter().all(|key| own.contains(key)),
            "tenant {tenant}"
        );
    }
    planet.check();
}

#[test]
fn changes_wait_for_unwritten_octets_but_not_long() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    planet.up(1, external(1, 65001));
    planet.up(2, external(2, 65002));
    planet.settle();
    planet.shard.set_ready(PeerIndex(2), false);
    planet.announce(
        1,
        Family::IPV4,
        &[prefix(10, 8)],
        &model::attributes(65001, 1),
    );
    let now = Instant::from_nanos(1);
    let mut heard = 0;
    let poll = planet.shard.poll(now, &mut |_, _| heard += 1);
    assert_eq!(poll, Poll::Wait(now + group::BATCH));
    assert_eq!(heard, 0);
    planet
        .shard
        .poll(now + group::BATCH, &mut |_, _| heard += 1);
    assert_eq!(heard, 1);
}

#[test]
fn too_many_routes_are_noticed_once() {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    let mut config = external(1, 65001);
    config.families[0].max_routes = 5;
    planet.up(1, config);
    let keys: Vec<Vec<u8>> = (0..9).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    assert_eq!(planet.shard.sizes().routes, 5);
    let notice = planet.shard.poll_notice();
    assert_eq!(notice, Some(Notice::TooMany(PeerIndex(1), Family::IPV4)));
    assert_eq!(planet.shard.poll_notice(), None);
}

#[test]
fn keys_that_follow_each_other_are_spread_over_all_shards() {
    for (family, key) in [
        (Family::IPV4, (|i| prefix(i, 24)) as fn(u32) -> Vec<u8>),
        (Family::VPNV4, |i| {
            model::vpn(1, u8::try_from(i % 256).unwrap_or(0))
        }),
    ] {
        let mut counts = [0; 3];
        for i in 0..256 {
            counts[shard_of(family, &key(i), 3)] += 1;
        }
        assert!(
            counts.iter().all(|count| (60..120).contains(count)),
            "{counts:?}"
        );
    }
}

#[test]
fn a_route_and_its_small_parts_stay_small() {
    assert!(size_of::<dest::Dest>() <= 72, "{}", size_of::<dest::Dest>());
    assert!(size_of::<dest::Path>() <= 32, "{}", size_of::<dest::Path>());
}
