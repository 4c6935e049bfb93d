//! Whatever happens to two neighbours, they come together when it is over.

use std::{collections::BTreeSet, time::Duration};

use base::Rng;

use super::{SECOND, config, family, net::Net, peer_config};
use crate::{
    Family, Notification,
    peer::{
        ConnectionConfig, ConnectionId, Effect, FamilyConfig, GracefulConfig, Peer, PeerConfig,
    },
};

fn any_config(n: u32, graceful: bool, rng: &mut Rng) -> PeerConfig {
    let connection = ConnectionConfig {
        hold_time: 9 * SECOND,
        delay_open: Duration::from_millis(rng.below(3) * 20),
        graceful_restart: graceful.then_some(GracefulConfig {
            restart_time: 30 * SECOND,
            restarting: rng.chance(1, 2),
            forwarding: true,
            notification: rng.chance(1, 2),
        }),
        families: vec![FamilyConfig {
            graceful,
            ..family(Family::IPV4)
        }],
        ..config(n)
    };
    peer_config(connection)
}

/// One thing that happens.
fn happen(net: &mut Net, rng: &mut Rng, graceful: bool) {
    let side = usize::from(rng.chance(1, 2));
    match rng.below(9) {
        0 => net.cut = !net.cut,
        1 => net.mute = !net.mute,
        2 => net.listens[side] = !net.listens[side],
        3 => net.act(side, |peer, now| peer.stop(now, "chaos")),
        4 | 5 => net.act(side, Peer::start),
        6 => net.act(side, |peer, now| peer.reset(now, "chaos")),
        7 => {
            let n = if side == 0 { 1 } else { 2 };
            check_effects(net, side);
            let config = any_config(n, graceful, rng);
            net.effects[side].clear();
            net.reboot(side, config, rng.next_u64());
            net.act(side, Peer::start);
        }
        _ => net.act(side, |peer, now| {
            let subcode = u8::try_from(rng.below(12)).unwrap();
            peer.close(now, &Notification::new(6, subcode));
        }),
    }
}

/// Established and Down alternate, on the same stream; a stream is closed once.
fn check_effects(net: &Net, side: usize) {
    let mut up: Option<ConnectionId> = None;
    let mut closed = BTreeSet::new();
    for (_, effect) in &net.effects[side] {
        match effect {
            Effect::Established { id, .. } => {
                assert_eq!(up, None);
                up = Some(*id);
            }
            Effect::Down { id, .. } => assert_eq!(up.take(), Some(*id)),
            Effect::Failed { id, .. } => assert_ne!(up, Some(*id)),
            Effect::Close(id) => assert!(closed.insert(*id), "{id:?} twice"),
            Effect::Dial | Effect::CancelDial => {}
        }
    }
    assert_eq!(up, net.peers[side].established().map(|(id, _)| id));
}

#[test]
fn two_neighbours_come_together_when_it_is_over() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let graceful = rng.chance(1, 2);
        let configs = [1, 2].map(|n| any_config(n, graceful, &mut rng));
        let mut net = Net::new(configs, seed);
        net.latency = |rng| Duration::from_micros(rng.below(80_000));
        net.start();
        for _ in 0..60 {
            net.run(Duration::from_millis(rng.below(4) * rng.below(2000)));
            happen(&mut net, &mut rng, graceful);
        }
        (net.cut, net.mute, net.listens) = (false, false, [true; 2]);
        net.start();
        net.run(600 * SECOND);
        let common = net.common();
        assert!(common.is_some(), "seed {seed}: {:?}", net.states());
        assert_eq!(net.open_streams(), 1, "seed {seed}");
        net.run(600 * SECOND);
        assert_eq!(net.common(), common, "seed {seed}");
        check_effects(&net, 0);
        check_effects(&net, 1);
    }
}
