//! Thousands of damaged messages: none makes a decoder panic, and what is read is written and
//! read again the same.

use base::Rng;

use super::{again, hex};
use crate::wire::{
    Family, HEADER, MAX_EXTENDED_MESSAGE, MAX_MESSAGE, MessageKind, Notification, OpenMessage,
    UpdateContext, describe, frame, read_route_refresh,
};

/// Damaged copies of each message.
const ROUNDS: u64 = 200;

fn messages() -> Vec<Vec<u8>> {
    let lines = include_str!("data/exabgp-messages.txt").lines();
    lines
        .filter_map(|line| line.split_once(' '))
        .map(|(_, octets)| hex(octets))
        .collect()
}

/// Changes a few octets, and lengths with some luck.
fn damage(octets: &mut Vec<u8>, other: &[u8], rng: &mut Rng) {
    let below = |rng: &mut Rng, n: usize| usize::try_from(rng.below(n as u64)).expect("small");
    for _ in 0..=rng.below(4) {
        if octets.len() <= HEADER {
            return;
        }
        let at = HEADER + below(rng, octets.len() - HEADER);
        let random = u8::try_from(rng.below(256)).expect("an octet");
        match rng.below(8) {
            0 => octets[at] ^= 1 << rng.below(8),
            1 => octets[at] = random,
            2 => octets[at] = [0, 1, 0x7F, 0x80, 0xFF][below(rng, 5)],
            3 => octets.insert(at, random),
            4 => drop(octets.remove(at)),
            5 => octets[at] = octets[at].wrapping_add(1),
            6 => octets[at] = octets[at].wrapping_sub(1),
            _ => {
                let from = below(rng, other.len());
                let length = below(rng, 40).min(other.len() - from);
                octets.splice(at..at, other[from..from + length].iter().copied());
            }
        }
    }
}

fn contexts(rng: &mut Rng) -> UpdateContext {
    let some = |rng: &mut Rng| -> Vec<Family> {
        Family::ALL
            .into_iter()
            .filter(|_| rng.chance(1, 4))
            .collect()
    };
    let mut context = again::context(rng.chance(1, 2));
    context.four_octet_as = rng.chance(3, 4);
    if rng.chance(1, 3) {
        context.add_path = some(rng);
    }
    if rng.chance(1, 8) {
        context.families = some(rng);
    }
    context
}

fn feed(kind: MessageKind, body: &[u8], rng: &mut Rng) {
    match kind {
        MessageKind::Update => {
            let context = contexts(rng);
            if let Ok(routes) = again::read(body, &context).0 {
                for route in &routes.withdrawn {
                    assert!(!describe(route.family, &route.key).is_empty());
                }
                for (route, _) in &routes.announced {
                    assert!(!describe(route.family, &route.key).is_empty());
                }
            }
            again::check(body, &context);
        }
        MessageKind::Open => {
            if let Ok(open) = OpenMessage::decode(body) {
                let octets = open.encode();
                assert!(octets.len() <= MAX_MESSAGE);
                assert_eq!(OpenMessage::decode(&octets[HEADER..]), Ok(open));
            }
        }
        MessageKind::Notification => {
            let notification = Notification::decode(body);
            assert!(!notification.to_string().is_empty());
            assert_eq!(
                Notification::decode(&notification.encode()[HEADER..]),
                notification
            );
        }
        MessageKind::RouteRefresh => drop(read_route_refresh(body)),
        MessageKind::Keepalive => {}
    }
}

#[test]
fn damaged_messages() {
    let messages = messages();
    let mut rng = Rng::new(7606);
    for message in &messages {
        let kind = frame(message, MAX_EXTENDED_MESSAGE)
            .expect("good")
            .expect("whole")
            .0;
        for _ in 0..ROUNDS {
            let other = usize::try_from(rng.below(messages.len() as u64)).expect("small");
            let mut octets = message.clone();
            damage(&mut octets, &messages[other][HEADER..], &mut rng);
            if octets.len() > HEADER {
                feed(kind, &octets[HEADER..], &mut rng);
            }
        }
    }
}

/// OPENs are few among the messages, so they get rounds of their own.
#[test]
fn damaged_opens() {
    let mut rng = Rng::new(5492);
    let messages = messages();
    let opens: Vec<_> = messages.iter().filter(|message| message[18] == 1).collect();
    for round in 0..20_000 {
        let mut octets = opens[round % opens.len()].clone();
        if rng.chance(1, 2) {
            let text = "4004 8078 45040001 0103 0506 0001 0001 0002 4707 0001 01 80 000e10 0901 02";
            octets.extend(hex(text));
            // The last parameter and the parameters are that much longer.
            let grown = u8::try_from(hex(text).len()).expect("short");
            octets[28] = octets[28].wrapping_add(grown);
            octets[30] = octets[30].wrapping_add(grown);
        }
        let other = octets[29..].to_vec();
        damage(&mut octets, &other, &mut rng);
        feed(MessageKind::Open, &octets[HEADER..], &mut rng);
    }
}

/// Noise where NLRI stand: FlowSpec, VPN, MESH and the rest.
#[test]
fn noise_as_nlri() {
    let mut rng = Rng::new(8955);
    for round in 0..60_000 {
        let family = Family::ALL[round % Family::ALL.len()];
        let mut value = family.afi.to_be_bytes().to_vec();
        value.push(family.safi);
        for _ in 0..rng.below(40) {
            // Small numbers are lengths and types more often.
            let most = if rng.chance(1, 2) { 16 } else { 256 };
            value.push(u8::try_from(rng.below(most)).expect("an octet"));
        }
        let mut attributes = vec![0x80, 15, u8::try_from(value.len()).expect("short")];
        attributes.extend(value);
        let length = u16::try_from(attributes.len())
            .expect("short")
            .to_be_bytes();
        let body = [&[0, 0][..], &length, &attributes].concat();
        feed(MessageKind::Update, &body, &mut rng);
    }
}
