use std::time::Duration;

use base::{NodeId, Rng};

use super::{SECOND, config, family, net::Net, peer_config};
use crate::{
    Family,
    peer::{Close, ConnectionConfig, FamilyConfig, GracefulConfig, Initiator, PeerState, survivor},
};

#[test]
fn the_greater_identifier_then_the_greater_as_wins() {
    for (ours, theirs, expect) in [
        ((1, 9), (2, 1), Some(Initiator::Them)),
        ((2, 1), (1, 9), Some(Initiator::Us)),
        ((0x8000_0000, 1), (0x7FFF_FFFF, 1), Some(Initiator::Us)),
        ((1, 65001), (1, 65002), Some(Initiator::Them)),
        ((1, 1), (1, 1), None),
    ] {
        let id = |(node, asn)| (NodeId(node), asn);
        assert_eq!(survivor(id(ours), id(theirs)), expect);
    }
}

fn any_latency(rng: &mut Rng) -> Duration {
    Duration::from_micros(rng.below(40_000))
}

/// Both dial at once: exactly one connection survives, the same at both ends, and stays.
fn race(a: &ConnectionConfig, b: &ConnectionConfig, seeds: u64) -> u64 {
    let mut collisions = 0;
    for seed in 0..seeds {
        let mut net = Net::new([peer_config(a.clone()), peer_config(b.clone())], seed);
        net.latency = any_latency;
        net.start();
        // Sooner than anybody who held back could try again.
        net.run(Duration::from_millis(450));
        let first = net.common();
        assert!(
            first.is_some(),
            "seed {seed}: {:?} {:#?}",
            net.states(),
            net.effects
        );
        assert_eq!(net.open_streams(), 1, "seed {seed}");
        net.run(300 * SECOND);
        assert_eq!(net.common(), first, "seed {seed}: it stays");
        collisions += net.peers[0].counters().collisions;
    }
    collisions
}

#[test]
fn of_two_dials_at_once_one_survives() {
    assert!(race(&config(1), &config(2), 500) > 100);
}

#[test]
fn of_two_dials_at_once_one_survives_with_equal_identifiers() {
    let twin = ConnectionConfig {
        node: NodeId(1),
        ..config(2)
    };
    assert!(race(&config(1), &twin, 200) > 40);
}

#[test]
fn of_two_dials_at_once_one_survives_with_graceful_restart() {
    let with = |n| ConnectionConfig {
        graceful_restart: Some(GracefulConfig {
            restart_time: 60 * SECOND,
            restarting: true,
            forwarding: true,
            notification: true,
        }),
        families: vec![FamilyConfig {
            graceful: true,
            ..family(Family::IPV4)
        }],
        ..config(n)
    };
    race(&with(1), &with(2), 200);
}

#[test]
fn of_two_dials_at_once_one_survives_with_delayed_opens() {
    let with = |n| ConnectionConfig {
        delay_open: Duration::from_millis(25),
        ..config(n)
    };
    race(&with(1), &with(2), 200);
    race(&config(1), &with(2), 200);
    race(&with(1), &config(2), 200);
}

#[test]
fn a_passive_neighbour_never_dials_and_never_collides() {
    let mut passive = peer_config(config(1));
    passive.passive = true;
    let mut net = Net::new([passive, peer_config(config(2))], 1);
    net.start();
    net.run(10 * SECOND);
    assert!(net.common().is_some());
    assert_eq!(net.peers[0].counters().dials, 0);
    assert_eq!(net.peers[1].counters().collisions, 0);
}

/// A neighbour that restarted without a word, seen only by its new connection.
fn rebooted(graceful: bool) -> Net {
    let with = |n| ConnectionConfig {
        graceful_restart: graceful.then_some(GracefulConfig {
            restart_time: 60 * SECOND,
            restarting: false,
            forwarding: true,
            notification: false,
        }),
        families: vec![FamilyConfig {
            graceful,
            ..family(Family::IPV4)
        }],
        ..config(n)
    };
    let mut net = Net::new([peer_config(with(2)), peer_config(with(1))], 3);
    net.start();
    net.run(20 * SECOND);
    assert!(net.common().is_some());
    net.mute = true;
    net.reboot(1, peer_config(with(1)), 4);
    net.act(1, |peer, now| peer.start(now));
    net.run(20 * SECOND);
    net
}

#[test]
fn a_restarted_neighbour_takes_the_place_of_its_old_self() {
    let net = rebooted(true);
    assert!(net.common().is_some(), "{:#?}", net.effects);
    let [(reason, graceful)] = net.downs(0).try_into().expect("the old one went down");
    assert_eq!(reason, Close::Replaced);
    let kept = graceful.expect("its routes stay").families;
    assert_eq!(
        (kept[0].family, kept[0].restart),
        (Family::IPV4, 60 * SECOND)
    );
}

#[test]
fn without_graceful_restart_the_old_connection_stays_until_it_times_out() {
    let mut net = rebooted(false);
    assert_eq!(net.states()[0], PeerState::Established);
    assert_eq!(net.common(), None);
    net.run(100 * SECOND);
    assert!(net.common().is_some());
}
