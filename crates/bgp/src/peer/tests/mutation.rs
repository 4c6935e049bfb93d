//! No octets make the machines fail, and none make them grow.

use std::sync::Arc;

use base::Rng;

use super::{Heard, at, config, feed, output, peer_config, update};
use crate::{
    Family,
    peer::{Connection, ConnectionId, ConnectionState, Peer},
    wire::{self, MessageKind, Notification, RefreshKind},
};

fn stream() -> Vec<u8> {
    [
        config(2).open().encode(),
        wire::keepalive(),
        update(),
        wire::route_refresh(Family::IPV6, RefreshKind::Request),
        wire::message(MessageKind::Update, &[0; 300]),
        wire::keepalive(),
        Notification::shutdown("enough").encode(),
    ]
    .concat()
}

fn mutate(octets: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(3) {
        let at = usize::try_from(rng.below(octets.len() as u64)).unwrap();
        match rng.below(4) {
            0 => octets[at] = (rng.next_u64() & 0xFF) as u8,
            1 => octets[at] ^= 1 << rng.below(8),
            2 => octets.truncate(at.max(1)),
            _ => octets.insert(at, (rng.next_u64() & 0xFF) as u8),
        }
    }
}

#[test]
fn mutated_streams_end_or_go_on() {
    let good = stream();
    for seed in 0..20_000 {
        let mut rng = Rng::new(seed);
        let mut octets = good.clone();
        mutate(&mut octets, &mut rng);
        let mut connection = Connection::new(Arc::new(config(1)), seed, at(0));
        let size = 1 + usize::try_from(rng.below(200)).unwrap();
        for part in octets.chunks(size) {
            feed(&mut connection, at(0), part);
            assert!(connection.kept() < wire::MAX_EXTENDED_MESSAGE);
        }
        let said = output(&mut connection);
        assert!(said.len() < 1000, "seed {seed}");
        if connection.state() == ConnectionState::Closed {
            assert!(feed(&mut connection, at(0), &good).is_empty());
        }
    }
}

#[test]
fn noise_is_answered_once() {
    for seed in 0..500 {
        let mut rng = Rng::new(seed);
        let mut peer = Peer::new(peer_config(config(1)), seed);
        peer.start(at(0));
        for id in 0..20 {
            let id = ConnectionId(id);
            let mut octets: Vec<u8> = (0..200).map(|_| (rng.next_u64() & 0xFF) as u8).collect();
            if rng.chance(1, 2) {
                octets[..16].fill(0xFF);
            }
            peer.handle_connected(at(0), id, rng.chance(2, 3));
            let mut list: Vec<Heard> = Vec::new();
            peer.handle_bytes(at(0), id, &octets, &mut |_, incoming| {
                list.push(super::heard(incoming));
                Ok(())
            });
            assert!(list.is_empty());
            let messages = std::iter::from_fn(|| peer.poll_transmit()).count();
            assert!(messages <= 4, "{messages}");
        }
        assert!(std::iter::from_fn(|| peer.poll_effect()).count() < 100);
    }
}
