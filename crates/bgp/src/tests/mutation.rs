//! No octets make anything panic, whatever state it is in.

use base::{Instant, NodeId, Rng};

use super::{ASN, hex, pop, rib, table, wire};
use crate::{Session, SessionConfig, SessionEvent, SessionState, wire::HEADER};

/// Mutations of each golden message.
const ROUNDS: u64 = 4000;

fn established() -> Session {
    let mut session = Session::new(SessionConfig::new(NodeId(9), ASN), Instant::ZERO);
    session.handle_bytes(Instant::ZERO, &wire::open().encode());
    session.handle_bytes(Instant::ZERO, &crate::wire::keepalive());
    assert_eq!(session.state(), SessionState::Established);
    session
}

fn mutate(octets: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..=rng.below(4) {
        if octets.len() <= HEADER {
            return;
        }
        // Mostly behind the marker, which would only be refused at once.
        let from = if rng.chance(1, 20) { 0 } else { 16 };
        let at = from + usize::try_from(rng.below((octets.len() - from) as u64)).unwrap();
        let random = u8::try_from(rng.below(256)).unwrap();
        match rng.below(5) {
            0 => octets[at] ^= 1 << rng.below(8),
            1 => octets[at] = random,
            2 => octets[at] = [0, 1, 0x7F, 0x80, 0xFF][usize::try_from(rng.below(5)).unwrap()],
            3 => octets.insert(at, random),
            _ => drop(octets.remove(at)),
        }
    }
    if rng.chance(3, 4) {
        // A right length lets the mutation through to the layers above.
        let length = u16::try_from(octets.len()).unwrap().to_be_bytes();
        octets[16..18].copy_from_slice(&length);
    }
}

fn feed(session: &mut Session, octets: &[u8], rng: &mut Rng) {
    let mut rib = rib(9);
    let (id, config) = pop(0x0A00_0001);
    rib.set_site_table(table());
    rib.peer_up(Instant::ZERO, config);
    let mut rest = octets;
    while !rest.is_empty() {
        let n = 1 + usize::try_from(rng.below(rest.len() as u64)).unwrap();
        session.handle_bytes(Instant::ZERO, &rest[..n]);
        rest = &rest[n..];
    }
    while let Some(event) = session.poll_event() {
        if let SessionEvent::Update(update) = event {
            rib.handle_update(id, update);
        }
    }
    while rib.poll_change().is_some() {}
    while session.poll_transmit().is_some() {}
}

#[test]
fn truncated_messages() {
    let mut rng = Rng::new(1);
    for (_, golden) in wire::golden() {
        let golden = hex(&golden);
        for cut in 0..golden.len() {
            let mut octets = golden[..cut].to_vec();
            feed(&mut established(), &octets, &mut rng);
            if cut >= HEADER {
                let length = u16::try_from(cut).unwrap().to_be_bytes();
                octets[16..18].copy_from_slice(&length);
                feed(&mut established(), &octets, &mut rng);
            }
        }
    }
}

#[test]
fn mutated_messages() {
    let mut rng = Rng::new(2);
    for (_, golden) in wire::golden() {
        for round in 0..ROUNDS {
            let mut octets = hex(&golden);
            mutate(&mut octets, &mut rng);
            let mut session = if round % 4 == 0 {
                Session::new(SessionConfig::new(NodeId(9), ASN), Instant::ZERO)
            } else {
                established()
            };
            feed(&mut session, &octets, &mut rng);
        }
    }
}
