use std::time::Duration;

use base::{Instant, NodeId};

use super::{announce, attributes, endpoint, gateway, health, local, pop, rib, table};
use crate::{
    Attributes, Key, PeerConfig, PeerId, Rib, Source, State, Update, Value, Why,
    wire::{Family, HEADER, UpdateFindings, UpdateOutcome, decode_update},
};

const T0: Instant = Instant::ZERO;

/// A copy: neighbour, originator, length of CLUSTER_LIST, state, seq, stale.
type Copy = (u32, u32, usize, State, u32, bool);

fn with(copies: &[Copy]) -> Rib {
    let mut rib = rib(100);
    rib.set_site_table(table());
    for &(peer, originator, clusters, state, seq, stale) in copies {
        let (id, config) = pop(peer);
        rib.peer_up(T0, config);
        let a = Attributes {
            originator: Some(NodeId(originator)),
            clusters: vec![NodeId(50); clusters],
            ..attributes(originator, 1)
        };
        rib.handle_update(id, announce(a, vec![(endpoint(11, 1), health(state, seq))]));
        if stale {
            rib.peer_down(T0, id);
        }
    }
    rib
}

#[test]
fn which_copy_wins() {
    use State::{Degraded, Healthy, Unhealthy};
    let check = |copies: &[Copy], winner: u32, why: Why| {
        let reversed: Vec<Copy> = copies.iter().rev().copied().collect();
        for copies in [copies, &reversed] {
            let view = with(copies).routes(None, 10).remove(0);
            assert_eq!(view.paths.len(), copies.len());
            let source = view.paths[0].route.source;
            assert_eq!(
                (source, view.why),
                (Source::Peer(PeerId(winner)), Some(why)),
                "{copies:?}"
            );
        }
    };
    check(&[(1, 9, 0, Healthy, 5, false)], 1, Why::Only);
    // One originator: greater seq, round the wrap, even if stale or worse placed.
    check(
        &[(1, 9, 0, Healthy, 5, false), (2, 9, 3, Unhealthy, 6, false)],
        2,
        Why::Newer,
    );
    check(
        &[
            (1, 9, 0, Healthy, u32::MAX, false),
            (2, 9, 0, Healthy, 3, false),
        ],
        2,
        Why::Newer,
    );
    check(
        &[(1, 9, 0, Healthy, 5, false), (2, 9, 0, Healthy, 6, true)],
        2,
        Why::Newer,
    );
    // Equal seq: the worse state, then fresh, then the shorter way, then the lower number.
    check(
        &[(1, 9, 0, Healthy, 5, false), (2, 9, 0, Degraded, 5, true)],
        2,
        Why::WorseState,
    );
    check(
        &[(1, 9, 0, Healthy, 5, true), (2, 9, 3, Healthy, 5, false)],
        2,
        Why::Fresh,
    );
    check(
        &[(1, 9, 2, Healthy, 5, false), (2, 9, 1, Healthy, 5, false)],
        2,
        Why::ShorterClusterList,
    );
    check(
        &[(1, 9, 1, Healthy, 5, false), (2, 9, 1, Healthy, 5, false)],
        1,
        Why::LowerPeer,
    );
    // Two originators: fresh, then the lowest node id; seqs of two nodes do not compare.
    check(
        &[(1, 8, 0, Healthy, 5, true), (2, 9, 0, Healthy, 1, false)],
        2,
        Why::Fresh,
    );
    check(
        &[(1, 9, 0, Healthy, 9, false), (2, 8, 2, Unhealthy, 1, false)],
        2,
        Why::ElectedProber,
    );
    // Each originator's newest word first: 8's fresh copy is old, its newest is stale.
    let three = [
        (1, 8, 0, Healthy, 5, false),
        (2, 8, 0, Unhealthy, 6, true),
        (3, 9, 0, Healthy, 1, false),
    ];
    check(&three, 3, Why::Fresh);
}

#[test]
fn a_withdrawal_removes_only_that_path() {
    let mut rib = with(&[
        (1, 9, 0, State::Healthy, 5, false),
        (2, 9, 0, State::Healthy, 4, false),
    ]);
    let gone = Update {
        attributes: None,
        announced: vec![],
        withdrawn: vec![endpoint(11, 1)],
    };
    rib.handle_update(PeerId(1), gone.clone());
    assert_eq!(
        rib.best(&endpoint(11, 1)).expect("one left").source,
        Source::Peer(PeerId(2))
    );
    rib.handle_update(PeerId(2), gone);
    assert_eq!((rib.best(&endpoint(11, 1)), rib.len()), (None, 0));
}

fn changes(rib: &mut Rib) -> Vec<(Key, Option<(Value, bool)>)> {
    std::iter::from_fn(|| rib.poll_change())
        .map(|change| {
            (
                change.key,
                change.best.map(|route| (route.value, route.stale)),
            )
        })
        .collect()
}

#[test]
fn changes_are_coalesced_and_the_bad_ones_first() {
    let mut rib = rib(1);
    for n in 0..4 {
        rib.originate(local(endpoint(11, n), health(State::Healthy, 1), 1));
    }
    rib.originate(local(endpoint(11, 3), health(State::Degraded, 2), 1));
    rib.originate(local(endpoint(11, 2), health(State::Unhealthy, 2), 1));
    rib.withdraw(&endpoint(11, 1));
    let want = vec![
        (endpoint(11, 2), Some((health(State::Unhealthy, 2), false))),
        (endpoint(11, 1), None),
        (endpoint(11, 0), Some((health(State::Healthy, 1), false))),
        (endpoint(11, 3), Some((health(State::Degraded, 2), false))),
    ];
    assert_eq!(changes(&mut rib), want);
    rib.originate(local(endpoint(11, 3), health(State::Degraded, 2), 1));
    assert_eq!(changes(&mut rib), vec![], "the same again is no change");
    assert_eq!(rib.originated(), 3);
}

#[test]
fn stale_routes_live_until_swept_refreshed_or_too_old() {
    let mut rib = rib(100);
    rib.set_site_table(table());
    let (id, config) = gateway(1, 11, 1);
    let say = |rib: &mut Rib, n, seq| {
        let routes = vec![(endpoint(11, n), health(State::Healthy, seq))];
        rib.handle_update(id, announce(attributes(1, 1), routes));
    };
    rib.peer_up(T0, config.clone());
    for n in 0..3 {
        say(&mut rib, n, 1);
    }
    rib.peer_down(T0, id);
    assert!((0..3).all(|n| rib.best(&endpoint(11, n)).expect("kept").stale));
    say(&mut rib, 0, 9);
    assert!(
        rib.best(&endpoint(11, 0)).expect("kept").stale,
        "no session, no word"
    );
    rib.peer_up(T0, config.clone());
    say(&mut rib, 0, 2);
    let stale = |rib: &Rib, n| rib.best(&endpoint(11, n)).map(|route| route.stale);
    assert_eq!(
        [0, 1, 2].map(|n| stale(&rib, n)),
        [Some(false), Some(true), Some(true)]
    );
    rib.handle_end_of_rib(id);
    assert_eq!([0, 1, 2].map(|n| stale(&rib, n)), [Some(false), None, None]);

    let down = T0 + Duration::from_secs(60);
    rib.peer_down(down, id);
    let early = rib.poll_timeout(down).expect("a limit");
    rib.handle_timeout(early);
    let end = rib.poll_timeout(early).expect("a limit");
    assert_eq!(end.since(down), Duration::from_secs(7 * 24 * 3600));
    rib.handle_timeout(end - Duration::from_secs(1));
    assert_eq!(stale(&rib, 0), Some(true));
    rib.handle_timeout(end);
    assert_eq!((rib.len(), rib.poll_timeout(end)), (0, None));
    assert_eq!(rib.neighbor(id).expect("known").routes, 0);
}

/// All UPDATEs for a neighbour, decoded; an End-of-RIB is `None`.
pub(super) fn told(rib: &mut Rib, now: Instant, id: PeerId) -> Vec<Option<Update>> {
    let mut all = Vec::new();
    while let Some(message) = rib.poll_update(now, id) {
        let mut findings = UpdateFindings::default();
        let outcome = decode_update(&message[HEADER..], Family::MESH, &mut findings);
        assert_eq!(findings, UpdateFindings::default());
        match outcome.expect("our own message is good") {
            UpdateOutcome::Routes(update) => all.push(Some(update)),
            UpdateOutcome::EndOfRib => all.push(None),
            UpdateOutcome::FamilyDisabled | UpdateOutcome::Nothing => panic!("neither"),
        }
    }
    all
}

#[test]
fn a_joining_neighbour_gets_the_table_and_its_end() {
    let mut rib = rib(1);
    for n in 0..200 {
        rib.originate(local(endpoint(11, n), health(State::Healthy, 1), 1));
    }
    let (id, config) = pop(2);
    rib.peer_up(T0, config);
    // A change for the worse overtakes the table, which is not over before the change is out.
    rib.originate(local(endpoint(11, 150), health(State::Unhealthy, 2), 1));
    let first = told(&mut rib, T0, id);
    assert!(
        first.iter().all(Option::is_some),
        "no End-of-RIB without a site table"
    );
    let first: Vec<Update> = first.into_iter().flatten().collect();
    assert_eq!(first.len(), 4);
    assert_eq!(
        first[0].announced,
        [(endpoint(11, 150), health(State::Unhealthy, 2))]
    );
    let mut keys: Vec<Key> = first
        .iter()
        .flat_map(|u| &u.announced)
        .map(|(k, _)| k.clone())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 200);
    rib.set_site_table(table());
    assert_eq!(told(&mut rib, T0, id), [None]);
    assert!(!rib.has_updates(T0, id));

    rib.handle_refresh(id);
    let again = told(&mut rib, T0, id);
    assert_eq!(
        again
            .iter()
            .flatten()
            .map(|u| u.announced.len())
            .sum::<usize>(),
        200
    );
    assert_eq!(again.last(), Some(&None));
}

#[test]
fn the_end_of_rib_waits_after_start() {
    let mut config = crate::RibConfig::new(NodeId(1), super::ASN);
    config.end_of_rib_delay = Duration::from_secs(10);
    let mut rib = Rib::new(config, T0);
    rib.set_site_table(table());
    let (id, peer) = pop(2);
    rib.peer_up(T0, peer);
    assert_eq!(rib.poll_update(T0, id), None);
    let at = rib.poll_timeout(T0).expect("an End-of-RIB is owed");
    assert_eq!(at, T0 + Duration::from_secs(10));
    assert_eq!(told(&mut rib, at, id), [None]);
    assert_eq!(rib.poll_timeout(at), None);
}

#[test]
fn a_slow_neighbour_gets_only_the_last_word() {
    let mut rib = rib(1);
    rib.set_site_table(table());
    let (id, config) = pop(2);
    rib.peer_up(T0, config);
    told(&mut rib, T0, id);
    for seq in 0..1000 {
        for n in 0..3 {
            rib.originate(local(endpoint(11, n), health(State::Healthy, seq), 1));
        }
    }
    rib.withdraw(&endpoint(11, 2));
    assert_eq!(rib.neighbor(id).expect("known").queued, 3);
    let updates = told(&mut rib, T0, id);
    let [Some(update)] = &updates[..] else {
        panic!("one UPDATE: {updates:?}")
    };
    let last = |n| (endpoint(11, n), health(State::Healthy, 999));
    assert_eq!(update.announced, [last(0), last(1)]);
    assert_eq!(update.withdrawn, [], "it never heard of the third");

    rib.originate(local(endpoint(11, 0), health(State::Healthy, 1000), 1));
    rib.withdraw(&endpoint(11, 1));
    let updates: Vec<Update> = told(&mut rib, T0, id).into_iter().flatten().collect();
    assert_eq!(updates[0].withdrawn, [endpoint(11, 1)], "down first");
    assert_eq!(
        updates[1].announced,
        [(endpoint(11, 0), health(State::Healthy, 1000))]
    );
}

#[test]
fn routes_with_equal_attributes_share_updates() {
    let mut rib = rib(1);
    for n in 0..100 {
        rib.originate(local(endpoint(11, n), health(State::Healthy, 1), 1));
        rib.originate(local(endpoint(21, n), health(State::Healthy, 1), 2));
    }
    let (id, config) = pop(2);
    rib.peer_up(T0, config);
    assert_eq!(
        told(&mut rib, T0, id).len(),
        4,
        "two tenants, two UPDATEs each"
    );
}

#[test]
fn the_other_half_hears_everything_and_speaks_for_us() {
    let mut rib = rib(1);
    rib.set_site_table(table());
    let half = PeerConfig::local(NodeId(1));
    let (half_id, (pop_id, pop)) = (half.id, pop(2));
    rib.peer_up(T0, half);
    rib.peer_up(T0, pop);
    told(&mut rib, T0, half_id);
    told(&mut rib, T0, pop_id);
    rib.handle_update(
        half_id,
        announce(
            attributes(1, 1),
            vec![(endpoint(11, 1), health(State::Healthy, 1))],
        ),
    );
    let reflected = Attributes {
        originator: Some(NodeId(9)),
        clusters: vec![NodeId(2)],
        ..attributes(9, 2)
    };
    let foreign = announce(
        reflected.clone(),
        vec![(endpoint(21, 1), health(State::Healthy, 1))],
    );
    rib.handle_update(pop_id, foreign.clone());
    assert_eq!(told(&mut rib, T0, half_id), [Some(foreign)]);
    let ours = announce(
        attributes(1, 1),
        vec![(endpoint(11, 1), health(State::Healthy, 1))],
    );
    assert_eq!(
        told(&mut rib, T0, pop_id),
        [Some(ours)],
        "as if we had said it"
    );
}

#[test]
fn a_forgotten_neighbour_leaves_nothing() {
    let mut rib = with(&[
        (1, 9, 0, State::Healthy, 5, false),
        (2, 8, 0, State::Healthy, 4, true),
    ]);
    rib.remove_peer(PeerId(1));
    rib.remove_peer(PeerId(2));
    assert!(rib.is_empty() && rib.neighbors().is_empty());
    rib.handle_family_disabled(PeerId(1));
    rib.peer_down(T0, PeerId(1));
}
