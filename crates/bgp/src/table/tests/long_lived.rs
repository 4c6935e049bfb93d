//! Long-lived stale routes (RFC 9494).

use super::model::{self, Planet, external, prefix};
use crate::{policy::Community, table::*};

/// Neighbour 1 asks for it, 2 knows it, 3 has never heard of it.
fn planet() -> Planet {
    let mut planet = Planet::new(65000, &[Family::IPV4]);
    for at in 1..=3 {
        planet.up(at, config(at));
    }
    planet
}

fn config(at: u16) -> PeerConfig {
    PeerConfig {
        knows_long_lived: at < 3,
        long_lived: [Family::IPV4][..usize::from(at == 1)].to_vec(),
        ..external(at, 65000 + u32::from(at))
    }
}

fn with(asn: u16, community: Community) -> Vec<u8> {
    let mut out = Vec::new();
    crate::policy::add_community(&model::attributes(asn.into(), 1), community, &mut out);
    out
}

/// Does a neighbour hold the route as a long-lived stale one?
fn stale(planet: &Planet, at: u16, key: &[u8]) -> Option<bool> {
    let held = planet.heard(at);
    let (attributes, _) = held.get(&(Family::IPV4, 0, key.to_vec()))?;
    let mut communities = AttributesView(attributes).communities();
    Some(communities.any(|community| community == Community::LLGR_STALE.0))
}

#[test]
fn long_lived_stale_routes_stand_behind_all_others_and_go_to_those_that_know() {
    let mut planet = planet();
    let [shared, alone, forbidden] = [10, 11, 12].map(|i| prefix(i, 8));
    let keys = [shared.clone(), alone.clone()];
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    let no = with(65001, Community::NO_LLGR);
    planet.announce(1, Family::IPV4, std::slice::from_ref(&forbidden), &no);
    planet.up(4, external(4, 65004));
    let longer = model::attributes(65004, 5);
    planet.announce(4, Family::IPV4, std::slice::from_ref(&shared), &longer);
    planet.settle();
    planet.down(1, &[Family::IPV4]);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 3, "stale is still told");
    planet.shard.outlive(PeerIndex(1), Family::IPV4);
    planet.settle();
    assert_eq!(stale(&planet, 2, &shared), Some(false), "the longer path");
    assert_eq!(stale(&planet, 2, &alone), Some(true));
    assert_eq!(stale(&planet, 2, &forbidden), None, "NO_LLGR");
    assert_eq!(stale(&planet, 3, &shared), Some(false));
    assert_eq!(stale(&planet, 3, &alone), None, "it does not know them");
    // Whoever comes now hears the same.
    planet.up(
        5,
        PeerConfig {
            knows_long_lived: true,
            ..external(5, 65005)
        },
    );
    planet.settle();
    assert_eq!(stale(&planet, 5, &alone), Some(true));
    // Back: what is said anew is as before, the rest goes.
    planet.up(1, config(1));
    planet.announce(
        1,
        Family::IPV4,
        std::slice::from_ref(&alone),
        &model::attributes(65001, 1),
    );
    planet.settle();
    assert_eq!(stale(&planet, 3, &alone), Some(false));
    planet.end_of_rib(1, Family::IPV4);
    planet.settle();
    assert_eq!(stale(&planet, 2, &alone), Some(false));
    assert_eq!(planet.shard.sizes().routes, 2);
    planet.check();
}

#[test]
fn a_session_that_ends_early_ends_no_long_lived_route() {
    let mut planet = planet();
    let keys = [10, 11].map(|i| prefix(i, 8));
    planet.announce(1, Family::IPV4, &keys, &model::attributes(65001, 1));
    planet.down(1, &[Family::IPV4]);
    planet.settle();
    planet.up(1, config(1));
    planet.announce(1, Family::IPV4, &keys[..1], &model::attributes(65001, 1));
    planet.down(1, &[Family::IPV4]);
    planet.settle();
    assert_eq!(planet.heard(3).len(), 2, "RFC 4724 alone would end one");
    planet.shard.outlive(PeerIndex(1), Family::IPV4);
    planet.settle();
    assert_eq!(planet.heard(3).len(), 0);
    for key in &keys {
        assert_eq!(stale(&planet, 2, key), Some(true));
    }
    // Its time is over.
    planet.end_of_rib(1, Family::IPV4);
    planet.settle();
    assert_eq!(planet.heard(2).len(), 0);
    assert_eq!(planet.shard.sizes().attributes, 0);
}
