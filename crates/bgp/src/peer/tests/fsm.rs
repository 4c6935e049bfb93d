use std::time::Duration;

use base::{Instant, NodeId};

use super::{Heard, SECOND, at, config, family, net::Net, peer_config};
use crate::{
    Family, Notification,
    peer::{
        Close, ConnectionConfig, ConnectionId, Effect, FamilyConfig, Peer, PeerAs, PeerConfig,
        PeerState,
    },
    wire::{self, OpenMessage, RefreshKind},
};

fn pair() -> Net {
    let mut passive = peer_config(config(2));
    passive.passive = true;
    let mut net = Net::new([peer_config(config(1)), passive], 5);
    net.start();
    net.run(SECOND);
    assert!(net.common().is_some(), "{:?}", net.states());
    net
}

fn effects(peer: &mut Peer) -> Vec<Effect> {
    std::iter::from_fn(|| peer.poll_effect()).collect()
}

fn said(peer: &mut Peer, id: u64) -> Vec<u8> {
    std::iter::from_fn(|| peer.poll_transmit())
        .filter(|(to, _)| *to == ConnectionId(id))
        .flat_map(|(_, octets)| octets.to_vec())
        .collect()
}

fn ignore(peer: &mut Peer, now: Instant, id: u64, octets: &[u8]) {
    peer.handle_bytes(now, ConnectionId(id), octets, &mut |_, _| Ok(()));
}

#[test]
fn it_goes_through_all_states() {
    let mut peer = Peer::new(peer_config(config(1)), 1);
    assert_eq!(peer.state(), PeerState::Idle);
    assert_eq!(peer.poll_timeout(), None);
    peer.start(at(0));
    assert_eq!(peer.state(), PeerState::Connect);
    assert_eq!(effects(&mut peer), [Effect::Dial]);
    peer.handle_connect_failed(at(1));
    assert_eq!(peer.state(), PeerState::Active);
    let retry = peer.poll_timeout().expect("ConnectRetry runs");
    assert!((at(8)..=at(11)).contains(&retry), "{retry:?}");
    peer.handle_timeout(retry);
    assert_eq!(peer.state(), PeerState::Connect);
    assert_eq!(effects(&mut peer), [Effect::Dial]);
    let now = at(12);
    peer.handle_connected(now, ConnectionId(1), false);
    assert_eq!(peer.state(), PeerState::OpenSent);
    assert_eq!(said(&mut peer, 1), config(1).open().encode());
    ignore(&mut peer, now, 1, &config(2).open().encode());
    assert_eq!(peer.state(), PeerState::OpenConfirm);
    assert_eq!(said(&mut peer, 1), wire::keepalive());
    ignore(&mut peer, now, 1, &wire::keepalive());
    assert_eq!(peer.state(), PeerState::Established);
    let (id, terms) = peer.established().expect("it is");
    assert_eq!((id, terms.peer_node), (ConnectionId(1), NodeId(2)));
    peer.handle_closed(at(13), ConnectionId(1));
    assert_eq!(peer.state(), PeerState::Idle);
    let wake = peer.poll_timeout().expect("IdleHold runs");
    assert!(wake > at(13) && wake <= at(14), "{wake:?}");
    peer.handle_timeout(wake);
    assert_eq!(peer.state(), PeerState::Connect);
}

#[test]
fn a_dial_that_takes_too_long_is_begun_anew() {
    let mut peer = Peer::new(peer_config(config(1)), 1);
    peer.start(at(0));
    let retry = peer.poll_timeout().unwrap();
    peer.handle_timeout(retry);
    assert_eq!(effects(&mut peer), [Effect::Dial, Effect::Dial]);
    assert_eq!(
        (peer.counters().dials, peer.counters().failed_dials),
        (2, 1)
    );
    peer.handle_connected(at(20), ConnectionId(1), false);
    peer.handle_connected(at(20), ConnectionId(2), false);
    assert_eq!(effects(&mut peer), [Effect::Close(ConnectionId(2))]);
}

#[test]
fn the_sink_hears_established_first_and_updates_in_the_same_octets() {
    let mut peer = Peer::new(peer_config(config(1)), 1);
    peer.start(at(0));
    peer.handle_connected(at(0), ConnectionId(1), true);
    let all = [
        config(2).open().encode(),
        wire::keepalive(),
        super::update(),
        super::update(),
    ]
    .concat();
    let mut list = Vec::new();
    peer.handle_bytes(at(0), ConnectionId(1), &all, &mut |_, incoming| {
        list.push(super::heard(incoming));
        Ok(())
    });
    let empty = Heard::Update(vec![0; 4]);
    assert_eq!(list, [Heard::Established, empty.clone(), empty]);
    let told = effects(&mut peer);
    assert!(
        matches!(
            &told[..],
            [Effect::Dial, Effect::CancelDial, Effect::Established { .. }]
        ),
        "{told:?}"
    );
}

#[test]
fn a_session_lives_on_keepalives_alone() {
    let mut net = pair();
    let first = net.common();
    net.run(3600 * SECOND);
    assert_eq!(net.common(), first);
}

#[test]
fn silence_ends_it_at_the_hold_time() {
    let mut net = pair();
    net.cut = true;
    net.run(89 * SECOND - SECOND * 30);
    assert_eq!(net.states(), [PeerState::Established; 2]);
    net.run(31 * SECOND);
    for side in 0..2 {
        let expected = Close::Sent(Notification::HOLD_TIMER.into());
        assert_eq!(net.reasons(side), [expected]);
    }
    net.cut = false;
    net.run(60 * SECOND);
    assert!(net.common().is_some(), "it comes back");
}

#[test]
fn without_hold_time_there_are_no_keepalives_and_no_end() {
    let with = |n| ConnectionConfig {
        hold_time: Duration::ZERO,
        ..config(n)
    };
    let mut net = Net::new([peer_config(with(1)), peer_config(config(2))], 5);
    net.start();
    net.run(SECOND);
    assert!(net.common().is_some());
    net.cut = true;
    net.run(100_000 * SECOND);
    assert_eq!(net.states(), [PeerState::Established; 2]);
}

#[test]
fn waits_grow_while_the_neighbour_does_not_fit() {
    let stranger = ConnectionConfig {
        peer_as: PeerAs::Exactly(1),
        ..config(2)
    };
    let mut net = Net::new([peer_config(config(1)), peer_config(stranger)], 5);
    net.peers[1] = Peer::new(
        PeerConfig {
            passive: true,
            idle_hold: Duration::from_millis(1),
            max_idle_hold: Duration::from_millis(1),
            ..peer_config(ConnectionConfig {
                peer_as: PeerAs::Exactly(1),
                ..config(2)
            })
        },
        9,
    );
    net.start();
    net.run(3600 * SECOND);
    let dials: Vec<Instant> = net.effects[0]
        .iter()
        .filter(|(_, effect)| *effect == Effect::Dial)
        .map(|(at, _)| *at)
        .collect();
    let waits: Vec<Duration> = dials.windows(2).map(|w| w[1].since(w[0])).collect();
    for (n, wait) in waits.iter().enumerate() {
        let step = (SECOND * (1 << n.min(10))).min(120 * SECOND);
        let most = step + Duration::from_millis(200);
        assert!((step / 2..=most).contains(wait), "{n}: {wait:?}");
    }
    assert!((30..80).contains(&waits.len()), "{}", waits.len());
    let refused = Close::Received(Notification::new(2, 2));
    assert!(net.reasons(0).iter().all(|r| *r == refused));
}

#[test]
fn two_that_hold_back_meet_again() {
    for seed in 0..50 {
        let mut net = Net::new([peer_config(config(1)), peer_config(config(2))], seed);
        net.start();
        net.run(SECOND);
        for turn in 0..12 {
            let side = turn % 2;
            net.act(side, |peer, now| {
                peer.close(now, &Notification::new(6, 0));
            });
            net.run(Duration::from_millis(
                50 + 130 * u64::try_from(turn).unwrap(),
            ));
        }
        net.run(150 * SECOND);
        assert!(net.common().is_some(), "seed {seed}: {:?}", net.states());
    }
}

#[test]
fn stopping_tells_why_and_stays_down() {
    let mut net = pair();
    net.act(0, |peer, now| peer.stop(now, "wartung, bis später"));
    net.run(600 * SECOND);
    assert_eq!(net.peers[0].state(), PeerState::Idle);
    assert_eq!(net.peers[0].poll_timeout(), None);
    let expected = Notification::shutdown("wartung, bis später");
    assert_eq!(net.reasons(0), [Close::Sent(expected.clone())]);
    assert_eq!(net.reasons(1)[0], Close::Received(expected));
    net.act(0, |peer, now| peer.start(now));
    net.run(SECOND);
    assert!(net.common().is_some());
}

#[test]
fn a_reset_comes_back_and_a_deconfigured_neighbour_does_not() {
    let mut net = pair();
    net.act(1, |peer, now| peer.reset(now, "again"));
    net.run(10 * SECOND);
    assert!(net.common().is_some());
    assert_eq!(
        net.reasons(0),
        [Close::Received(Notification::reset("again"))]
    );
    net.act(1, Peer::deconfigure);
    net.run(60 * SECOND);
    assert_eq!(net.peers[1].state(), PeerState::Idle);
    assert_eq!(net.reasons(0)[1], Close::Received(Notification::new(6, 3)));
}

#[test]
fn idle_rejects_connections() {
    let mut peer = Peer::new(peer_config(config(1)), 1);
    peer.handle_connected(at(0), ConnectionId(4), true);
    assert_eq!(said(&mut peer, 4), Notification::new(6, 5).encode());
    assert_eq!(effects(&mut peer), [Effect::Close(ConnectionId(4))]);
    assert_eq!(peer.counters().rejected, 1);
}

#[test]
fn at_most_two_connections_are_held() {
    let mut peer = Peer::new(peer_config(config(1)), 1);
    peer.start(at(0));
    for id in 1..100 {
        peer.handle_connected(at(0), ConnectionId(id), true);
    }
    let closed = effects(&mut peer)
        .iter()
        .filter(|effect| matches!(effect, Effect::Close(_)))
        .count();
    assert_eq!(closed, 98, "the newest that said nothing is kept");
    ignore(&mut peer, at(0), 99, &config(2).open().encode());
    assert_eq!(peer.state(), PeerState::OpenConfirm);
    peer.handle_connected(at(0), ConnectionId(100), true);
    assert!(effects(&mut peer).contains(&Effect::Close(ConnectionId(100))));
    ignore(&mut peer, at(0), 99, &wire::keepalive());
    for id in 101..200 {
        peer.handle_connected(at(0), ConnectionId(id), true);
    }
    assert_eq!(peer.state(), PeerState::Established);
}

#[test]
fn too_many_prefixes_keep_it_away() {
    for (restart, back) in [(None, false), (Some(300 * SECOND), true)] {
        let mut net = Net::new(
            [
                PeerConfig {
                    max_prefix_restart: restart,
                    ..peer_config(config(1))
                },
                peer_config(config(2)),
            ],
            5,
        );
        net.start();
        net.run(SECOND);
        net.act(0, |peer, now| {
            peer.close(now, &Notification::with_data(6, 1, &[0, 1, 1, 0, 0, 0, 9]));
        });
        net.run(290 * SECOND);
        assert_eq!(net.peers[0].state(), PeerState::Idle);
        net.run(200 * SECOND);
        assert_eq!(net.common().is_some(), back);
        net.act(0, |peer, now| peer.start(now));
        net.run(200 * SECOND);
        assert!(net.common().is_some(), "start() brings it back");
    }
}

#[test]
fn a_neighbour_without_optional_parameters_is_asked_without() {
    let mut peer = Peer::new(peer_config(config(1)), 1);
    peer.start(at(0));
    peer.handle_connected(at(0), ConnectionId(1), false);
    let _ = said(&mut peer, 1);
    ignore(&mut peer, at(0), 1, &Notification::new(2, 4).encode());
    let now = peer.poll_timeout().unwrap();
    peer.handle_timeout(now);
    peer.handle_connected(now, ConnectionId(2), false);
    let open = said(&mut peer, 2);
    assert_eq!(open.len(), 29, "no parameters");
    let plain = OpenMessage {
        capabilities: wire::Capabilities::default(),
        ..config(2).open()
    };
    ignore(&mut peer, now, 2, &plain.encode());
    ignore(&mut peer, now, 2, &wire::keepalive());
    let (_, terms) = peer.established().expect("IPv4 alone goes");
    assert_eq!(terms.families, [Family::IPV4]);
    assert!(!terms.four_octet_as);
}

#[test]
fn a_refresh_reaches_the_other_sink() {
    let mut net = pair();
    net.act(0, |peer, _| assert!(peer.request_refresh(Family::IPV6)));
    net.act(0, |peer, _| assert!(!peer.request_refresh(Family::VPNV4)));
    net.run(SECOND);
    let expected = Heard::Refresh(Family::IPV6, RefreshKind::Request);
    assert_eq!(net.heard[1], [Heard::Established, expected]);
}

#[test]
fn no_common_family_is_refused_politely() {
    let mut net = Net::new(
        [
            peer_config(ConnectionConfig {
                families: vec![family(Family::IPV4)],
                ..config(1)
            }),
            peer_config(ConnectionConfig {
                families: vec![FamilyConfig::new(Family::VPNV4)],
                ..config(2)
            }),
        ],
        5,
    );
    net.listens[1] = false;
    net.start();
    net.run(Duration::from_millis(200));
    let v4 = Notification::with_data(2, 7, &[1, 4, 0, 1, 0, 1]);
    let vpn = Notification::with_data(2, 7, &[1, 4, 0, 1, 0, 128]);
    let told = net.reasons(0);
    assert!(
        told == [Close::Sent(v4)] || told == [Close::Received(vpn)],
        "{told:?}"
    );
    // One end holds back longer and longer; the other, turned away, dials at its ConnectRetry.
    net.run(3600 * SECOND);
    assert!(net.count(1, |effect| *effect == Effect::Dial) < 500);
    assert!(net.reasons(0).len() < 80);
}
