use std::time::Duration;

use base::{Instant, NodeId};

use super::{ASN, hex, wire::MARKER};
use crate::{
    Close, Family, Notification, Session, SessionConfig, SessionEvent, SessionState, wire,
};

fn config(node: u32) -> SessionConfig {
    SessionConfig {
        hold_time: Duration::from_secs(9),
        ..SessionConfig::new(NodeId(node), ASN)
    }
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

/// Carry octets both ways, `chunk` at a time, until both are silent.
fn carry(now: Instant, a: &mut Session, b: &mut Session, chunk: usize) {
    loop {
        let mut moved = false;
        while let Some(message) = a.poll_transmit() {
            message
                .chunks(chunk)
                .for_each(|part| b.handle_bytes(now, part));
            moved = true;
        }
        while let Some(message) = b.poll_transmit() {
            message
                .chunks(chunk)
                .for_each(|part| a.handle_bytes(now, part));
            moved = true;
        }
        if !moved {
            return;
        }
    }
}

fn pair() -> (Session, Session) {
    let (mut a, mut b) = (
        Session::new(config(1), at(0)),
        Session::new(config(2), at(0)),
    );
    carry(at(0), &mut a, &mut b, 4096);
    for (session, peer) in [(&mut a, 2), (&mut b, 1)] {
        let established = SessionEvent::Established {
            peer: NodeId(peer),
            family: Family::MESH,
            hold_time: Duration::from_secs(9),
            route_refresh: true,
        };
        assert_eq!(session.poll_event(), Some(established));
        assert_eq!(session.state(), SessionState::Established);
    }
    (a, b)
}

#[test]
fn establishes_octet_by_octet() {
    let (mut a, mut b) = (
        Session::new(config(1), at(0)),
        Session::new(config(2), at(0)),
    );
    carry(at(0), &mut a, &mut b, 1);
    assert_eq!(a.state(), SessionState::Established);
    assert_eq!(b.state(), SessionState::Established);
}

#[test]
fn keepalives_keep_it_alive_and_silence_ends_it() {
    let (mut a, mut b) = pair();
    for second in 1..30 {
        a.handle_timeout(at(second));
        b.handle_timeout(at(second));
        carry(at(second), &mut a, &mut b, 4096);
    }
    assert_eq!(a.state(), SessionState::Established);
    let mut last = at(29);
    while let Some(next) = a.poll_timeout() {
        last = next;
        a.handle_timeout(next);
    }
    assert!(last.since(at(29)) <= Duration::from_secs(9));
    assert_eq!(
        a.poll_event(),
        Some(SessionEvent::Closed(Close::Sent(Notification::new(4, 0))))
    );
    carry(last, &mut a, &mut b, 4096);
    let told = Close::Received(Notification::new(4, 0));
    assert_eq!(b.poll_event(), Some(SessionEvent::Closed(told)));
}

#[test]
fn silence_before_open_ends_it_too() {
    let mut a = Session::new(config(1), at(0));
    a.handle_timeout(at(239));
    assert_eq!(a.state(), SessionState::OpenSent);
    a.handle_timeout(at(240));
    assert_eq!(a.state(), SessionState::Idle);
    assert_eq!(a.poll_timeout(), None);
}

#[test]
fn messages_in_the_wrong_state() {
    let mut a = Session::new(config(1), at(0));
    a.handle_bytes(at(0), &wire::keepalive());
    let close = Close::Sent(Notification::with_data(5, 1, &[4]));
    assert_eq!(a.poll_event(), Some(SessionEvent::Closed(close)));

    let (mut a, _) = pair();
    a.handle_bytes(at(0), &super::wire::open().encode());
    let close = Close::Sent(Notification::with_data(5, 3, &[1]));
    assert_eq!(a.poll_event(), Some(SessionEvent::Closed(close)));
    assert_eq!(
        a.poll_transmit(),
        Some(Notification::with_data(5, 3, &[1]).encode())
    );
    a.handle_bytes(at(0), &wire::keepalive());
    a.handle_end_of_stream();
    assert_eq!(a.poll_event(), None, "closed is the last event");
}

#[test]
fn an_overrun_disables_the_family() {
    let (mut a, _) = pair();
    let overrun = "0000 0010 80 0e 0d 400d f4 04 00000007 00 03 ffff 00";
    let update = hex(&format!("{MARKER} 0027 02 {overrun}"));
    a.handle_bytes(at(0), &update);
    assert_eq!(a.poll_event(), Some(SessionEvent::FamilyDisabled));
    a.handle_bytes(at(0), &wire::end_of_rib(Family::MESH));
    assert_eq!(a.poll_event(), None);
    assert_eq!(a.state(), SessionState::Established);
}

#[test]
fn refresh_is_asked_for_and_heard() {
    let (mut a, mut b) = pair();
    assert!(a.request_refresh());
    carry(at(0), &mut a, &mut b, 7);
    assert_eq!(b.poll_event(), Some(SessionEvent::RefreshRequested));
}

#[test]
fn many_messages_in_one_piece() {
    let (mut a, _) = pair();
    let mut octets = wire::end_of_rib(Family::MESH).repeat(1000);
    octets.extend(wire::keepalive().slice(..10));
    a.handle_bytes(at(0), &octets);
    let mut count = 0;
    while a.poll_event().is_some() {
        count += 1;
    }
    assert_eq!(count, 1000);
    octets = wire::keepalive().slice(10..).to_vec();
    octets.extend(wire::end_of_rib(Family::MESH));
    a.handle_bytes(at(0), &octets);
    assert_eq!(a.poll_event(), Some(SessionEvent::EndOfRib));
}
