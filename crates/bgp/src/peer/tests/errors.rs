//! Each error code and subcode, from the octets that earn it to the octets that tell it.

use std::sync::Arc;

use super::{at, config, end, feed, opened, output, update};
use crate::{
    Family, Notification,
    peer::{BgpRole, Close, Connection, ConnectionConfig, RoleConfig},
    wire::{self, MessageKind},
};

#[derive(Clone, Copy)]
enum In {
    Delaying,
    OpenSent,
    OpenConfirm,
    Established,
}

fn connection(state: In) -> Connection {
    let delayed = ConnectionConfig {
        delay_open: super::SECOND,
        ..config(1)
    };
    match state {
        In::Delaying => Connection::new(Arc::new(delayed), 1, at(0)),
        In::OpenSent => Connection::new(Arc::new(config(1)), 1, at(0)),
        In::OpenConfirm => opened(config(1), &config(2).open(), false),
        In::Established => opened(config(1), &config(2).open(), true),
    }
}

fn check(state: In, octets: &[u8], expect: &Notification) {
    let mut connection = connection(state);
    let _ = output(&mut connection);
    feed(&mut connection, at(0), octets);
    assert_eq!(end(&mut connection), Some(Close::Sent(expect.clone())));
    let told = output(&mut connection);
    assert!(told.ends_with(&expect.encode()), "{told:?}");
    feed(&mut connection, at(0), octets);
    assert!(output(&mut connection).is_empty(), "once is enough");
}

fn edited(message: &[u8], at: usize, octets: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    message[at..at + octets.len()].copy_from_slice(octets);
    message
}

#[test]
fn message_header() {
    let states = [In::Delaying, In::OpenSent, In::OpenConfirm, In::Established];
    let keepalive = wire::keepalive();
    for state in states {
        let check = |octets: &[u8], n: &Notification| check(state, octets, n);
        check(&edited(&keepalive, 3, &[0]), &Notification::new(1, 1));
        for length in [[0, 0], [0, 18], [0, 20], [0xFF, 0xFF]] {
            let expect = Notification::with_data(1, 2, &length);
            check(&edited(&keepalive, 16, &length), &expect);
        }
        let open = edited(&config(2).open().encode(), 16, &[0x10, 0x01]);
        check(&open, &Notification::with_data(1, 2, &[0x10, 0x01]));
        for kind in [0, 6, 255] {
            let expect = Notification::with_data(1, 3, &[kind]);
            check(&edited(&keepalive, 18, &[kind]), &expect);
        }
    }
}

#[test]
fn open_message() {
    let open = config(2).open().encode();
    for state in [In::Delaying, In::OpenSent] {
        let check = |octets: &[u8], n: &Notification| check(state, octets, n);
        let version = Notification::with_data(2, 1, &[0, 4]);
        check(&edited(&open, 19, &[3]), &version);
        let in_as = |asn| ConnectionConfig { asn, ..config(2) }.open().encode();
        check(&in_as(65001), &Notification::new(2, 2));
        check(&in_as(0), &Notification::new(2, 2));
        check(&edited(&open, 24, &[0; 4]), &Notification::new(2, 3));
        check(&edited(&open, 29, &[1]), &Notification::new(2, 4));
        for hold in [1, 2] {
            check(&edited(&open, 22, &[0, hold]), &Notification::new(2, 6));
        }
        check(&edited(&open, 28, &[1]), &Notification::new(2, 0));
    }
}

#[test]
fn open_message_without_what_we_need() {
    let theirs = ConnectionConfig {
        families: vec![super::family(Family::VPNV4)],
        ..config(2)
    };
    let both = [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1];
    let lacks = Notification::with_data(2, 7, &both);
    check(In::OpenSent, &theirs.open().encode(), &lacks);
    let ours = ConnectionConfig {
        role: Some(RoleConfig {
            role: BgpRole::Provider,
            strict: true,
        }),
        ..config(1)
    };
    for role in [None, Some(0), Some(4), Some(77)] {
        let mut open = config(2).open();
        open.capabilities.role = role;
        let mut connection = opened(ours.clone(), &open, false);
        let mismatch = Notification::new(2, 11);
        assert_eq!(end(&mut connection), Some(Close::Sent(mismatch)));
    }
}

#[test]
fn route_refresh_of_a_wrong_length() {
    for kind in [1, 2] {
        let long = wire::message(MessageKind::RouteRefresh, &[0, 1, kind, 1, 0]);
        let expect = Notification::with_data(7, 1, &long);
        check(In::Established, &long, &expect);
    }
    let wish = wire::message(MessageKind::RouteRefresh, &[0, 1, 0, 1, 1, 2, 0, 0]);
    let mut connection = connection(In::Established);
    assert!(feed(&mut connection, at(0), &wish).is_empty());
    assert_eq!(connection.counters().ignored_refreshes, 1);
    let short = wire::message(MessageKind::RouteRefresh, &[0, 1, 0]);
    let expect = Notification::with_data(1, 2, &[0, 22]);
    check(In::Established, &short, &expect);
}

#[test]
fn state_machine() {
    let open = config(2).open().encode();
    let (keepalive, refresh) = (
        wire::keepalive(),
        wire::message(MessageKind::RouteRefresh, &[0, 1, 0, 1]),
    );
    for (state, subcode, messages) in [
        (In::Delaying, 0, vec![&keepalive, &refresh]),
        (In::OpenSent, 1, vec![&keepalive, &refresh]),
        (In::OpenConfirm, 2, vec![&open, &refresh]),
        (In::Established, 3, vec![&open]),
    ] {
        for message in messages {
            let expect = Notification::with_data(5, subcode, &[message[18]]);
            check(state, message, &expect);
        }
        if !matches!(state, In::Established) {
            let expect = Notification::with_data(5, subcode, &[2]);
            check(state, &update(), &expect);
        }
    }
}

#[test]
fn what_the_sink_says() {
    for (code, subcode) in [(3, 1), (3, 9), (6, 1), (6, 8)] {
        let mut connection = connection(In::Established);
        let _ = output(&mut connection);
        let octets = [update(), update()].concat();
        let mut calls = 0;
        connection.handle_bytes(at(0), &octets, &mut |_, _| {
            calls += 1;
            Err(Notification::new(code, subcode))
        });
        let expected = Notification::new(code, subcode);
        assert_eq!(calls, 1);
        assert_eq!(output(&mut connection), expected.encode());
        assert_eq!(end(&mut connection), Some(Close::Sent(expected)));
    }
}
