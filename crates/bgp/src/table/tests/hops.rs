//! Next hops that can be reached, and those that cannot.

use std::net::{IpAddr, Ipv4Addr};

use base::Rng;

use super::model::{self, Planet, client, external, prefix};
use crate::table::*;

fn hop(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, last).into()
}

/// A path of this length by a next hop.
fn by(last: u8, asn: u32, length: u8) -> Vec<u8> {
    let mut attributes = model::attributes(asn, length);
    if let Some(octet) = attributes.last_mut() {
        *octet = last;
    }
    attributes
}

fn planet(families: &[Family]) -> Planet {
    let mut planet = Planet::new(65000, families);
    planet.shard.track_next_hops();
    planet
}

#[test]
fn a_route_is_used_while_its_next_hop_can_be_reached() {
    let mut planet = planet(&[Family::IPV4]);
    for at in 1..=3 {
        planet.up(at, external(at, 65000 + u32::from(at)));
    }
    let keys: Vec<Vec<u8>> = (0..5000).map(|i| prefix(i, 24)).collect();
    planet.announce(1, Family::IPV4, &keys, &by(1, 65001, 1));
    planet.settle();
    assert_eq!(planet.heard(3).len(), 0, "nothing is known of it yet");
    assert_eq!(planet.shard.take_fresh_next_hops(), [hop(1)]);
    assert!(!planet.shard.has_fresh_next_hops());
    assert!(planet.shard.set_next_hop(hop(1), true));
    assert!(!planet.shard.set_next_hop(hop(1), true), "no news");
    planet.settle();
    assert_eq!(planet.heard(3).len(), 5000);

    // A longer path by another way takes over, and gives back.
    planet.announce(2, Family::IPV4, &keys[..10], &by(2, 65002, 3));
    planet.shard.set_next_hop(hop(2), true);
    planet.settle();
    assert_eq!(planet.heard(3).len(), 5000);
    planet.shard.set_next_hop(hop(1), false);
    planet.settle();
    assert_eq!(planet.heard(3).len(), 10);
    assert_eq!(planet.heard(1).len(), 10);
    let (views, _) = planet.shard.routes(Family::IPV4, 0, 1, |_| true);
    assert_eq!(views[0].why, Some(Why::NextHop));
    assert!(views[0].paths[0].reachable && !views[0].paths[1].reachable);
    planet.check();
    // Whoever comes now hears no more than that.
    planet.up(4, external(4, 65004));
    planet.settle();
    assert_eq!(planet.heard(4).len(), 10);
    planet.shard.set_next_hop(hop(1), true);
    planet.settle();
    assert_eq!(planet.heard(4).len(), 5000);
    planet.check();

    // What nobody names any more is not asked about.
    planet.withdraw(1, Family::IPV4, &keys);
    planet.withdraw(2, Family::IPV4, &keys);
    planet.settle();
    assert_eq!(planet.shard.next_hops(), [] as [IpAddr; 0]);
    assert!(!planet.shard.set_next_hop(hop(1), false));
}

#[test]
fn the_next_hop_of_a_vpn_route_is_behind_a_distinguisher_and_constraint_has_none() {
    let mut planet = planet(&[Family::VPNV4, Family::RTC]);
    for at in 1..=2 {
        let mut config = client(at, 65000);
        config.constrained = at == 2;
        planet.up(at, config);
    }
    planet.announce(2, Family::RTC, &[model::wanted(1)], &model::internal(9));
    let keys: Vec<Vec<u8>> = (0..10).map(|i| model::vpn(1, i)).collect();
    planet.announce(1, Family::VPNV4, &keys, &model::with_target(1));
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 0);
    planet.shard.set_next_hop(hop(1), true);
    planet.settle();
    assert_eq!(planet.heard_of(2, Family::VPNV4), 10);
    planet.check();
}

#[test]
fn whatever_turns_in_whatever_order_all_hear_what_is_so() {
    for seed in 0..40 {
        let mut rng = Rng::new(seed);
        let mut pick = |below: u64| u8::try_from(rng.below(below)).unwrap_or(0);
        let mut planet = planet(&[Family::IPV4]);
        for at in 1..=4 {
            let mut config = external(at, 65000 + u32::from(at));
            if at == 4 {
                config.families[0].add_path_send = 2;
            }
            planet.up(at, config);
        }
        for _ in 0..200 {
            let at = 1 + u16::from(pick(3));
            let keys = [prefix(u32::from(pick(8)), 24)];
            match pick(6) {
                0 => planet.withdraw(at, Family::IPV4, &keys),
                1 | 2 => {
                    let attributes = by(pick(4), 65000 + u32::from(at), 1 + pick(3));
                    planet.announce(at, Family::IPV4, &keys, &attributes);
                }
                3 | 4 => {
                    planet.shard.set_next_hop(hop(pick(4)), pick(2) == 0);
                }
                _ => {
                    planet.turn();
                }
            }
        }
        planet.settle();
        planet.check();
    }
}
