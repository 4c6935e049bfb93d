use std::{sync::Arc, time::Duration};

use super::{Heard, SECOND, at, config, end, events, feed, opened, output, update};
use crate::{
    Family, Notification,
    peer::{Close, Connection, ConnectionConfig, ConnectionEvent, ConnectionState, Incoming},
    wire::{self, MessageKind, RefreshKind},
};

#[test]
fn whole_messages_are_lent_out_of_the_octets_given() {
    let mut connection = opened(config(1), &config(2).open(), true);
    let octets = [update(), wire::keepalive(), update()].concat();
    let mut lent = Vec::new();
    connection.handle_bytes(at(0), &octets, &mut |_, incoming| {
        if let Incoming::Update(body) = incoming {
            lent.push(octets.as_ptr_range().contains(&body.as_ptr()));
        }
        Ok(())
    });
    assert_eq!(lent, [true, true]);
    assert_eq!(connection.kept(), 0);
}

#[test]
fn any_cut_gives_the_same() {
    let all = [
        config(2).open().encode(),
        wire::keepalive(),
        update(),
        wire::route_refresh(Family::IPV4, RefreshKind::Begin),
        wire::message(MessageKind::Update, &[7; 4000]),
        wire::route_refresh(Family::IPV4, RefreshKind::End),
    ]
    .concat();
    let expect = [
        Heard::Established,
        Heard::Update(vec![0; 4]),
        Heard::Refresh(Family::IPV4, RefreshKind::Begin),
        Heard::Update(vec![7; 4000]),
        Heard::Refresh(Family::IPV4, RefreshKind::End),
    ];
    for size in (1..60).chain([1000, 4096, 4097, all.len()]) {
        let mut connection = Connection::new(Arc::new(config(1)), 1, at(0));
        let mut list = Vec::new();
        for part in all.chunks(size) {
            list.extend(feed(&mut connection, at(0), part));
            assert!(connection.kept() <= 4019);
        }
        assert_eq!(list, expect, "by {size}");
    }
}

#[test]
fn long_messages_only_where_we_said_so() {
    let mut body = vec![0; 60_000];
    body[5] = 1;
    let mut long = vec![0xFF; 16];
    long.extend([(60_019_u16 >> 8) as u8, (60_019 & 0xFF) as u8, 2]);
    long.extend(&body);
    let mut connection = opened(config(1), &config(2).open(), true);
    let list: Vec<Heard> = long
        .chunks(9000)
        .flat_map(|part| feed(&mut connection, at(0), part))
        .collect();
    assert_eq!(list, [Heard::Update(body)]);
    let short = ConnectionConfig {
        extended_message: false,
        ..config(1)
    };
    let mut connection = opened(short, &config(2).open(), true);
    feed(&mut connection, at(0), &long);
    let bad_length = Notification::with_data(1, 2, &long[16..18]);
    assert_eq!(end(&mut connection), Some(Close::Sent(bad_length)));
}

#[test]
fn the_open_waits_for_delay_open_or_for_the_neighbours() {
    let delayed = || ConnectionConfig {
        delay_open: 5 * SECOND,
        ..config(1)
    };
    let mut connection = Connection::new(Arc::new(delayed()), 1, at(0));
    assert_eq!(connection.state(), ConnectionState::Delaying);
    assert!(output(&mut connection).is_empty());
    assert_eq!(connection.poll_timeout(), Some(at(5)));
    connection.handle_timeout(at(5));
    assert_eq!(connection.state(), ConnectionState::OpenSent);
    assert_eq!(output(&mut connection), delayed().open().encode());
    let mut connection = Connection::new(Arc::new(delayed()), 1, at(0));
    feed(&mut connection, at(1), &config(2).open().encode());
    assert_eq!(connection.state(), ConnectionState::OpenConfirm);
    let both = [delayed().open().encode(), wire::keepalive()].concat();
    assert_eq!(output(&mut connection), both);
}

#[test]
fn keepalives_go_out_at_a_third_and_never_pile_up() {
    let mut connection = opened(config(1), &config(2).open(), true);
    let _ = output(&mut connection);
    let mut now = at(0);
    for _ in 0..50 {
        let next = connection.poll_timeout().expect("it lives");
        let wait = next.since(now);
        assert!(
            (Duration::from_millis(22_500)..=30 * SECOND).contains(&wait),
            "{wait:?}"
        );
        now = next;
        connection.handle_timeout(now);
        feed(&mut connection, now, &wire::keepalive());
    }
    assert_eq!(output(&mut connection), wire::keepalive());
}

#[test]
fn an_open_that_never_comes_and_a_keepalive_that_never_comes() {
    let hold_expired = || Some(Close::Sent(Notification::HOLD_TIMER.into()));
    let mut connection = Connection::new(Arc::new(config(1)), 1, at(0));
    connection.handle_timeout(at(239));
    assert_eq!(connection.state(), ConnectionState::OpenSent);
    connection.handle_timeout(at(240));
    assert_eq!(end(&mut connection), hold_expired());
    for hold_s in [0, 30] {
        let theirs = ConnectionConfig {
            hold_time: hold_s * SECOND,
            ..config(2)
        };
        let mut connection = opened(config(1), &theirs.open(), false);
        connection.handle_timeout(at(if hold_s == 0 { 240 } else { 30 }));
        assert_eq!(end(&mut connection), hold_expired(), "{hold_s}");
    }
}

#[test]
fn a_neighbour_that_does_not_read_is_cut() {
    let mut connection = opened(config(1), &config(2).open(), true);
    let live = |connection: &mut Connection, now| {
        feed(connection, now, &wire::keepalive());
        connection.handle_timeout(now);
    };
    connection.handle_blocked(at(0));
    for s in 1..48 {
        live(&mut connection, at(10 * s));
        connection.handle_blocked(at(10 * s));
    }
    connection.handle_sent(at(479));
    live(&mut connection, at(480));
    assert_eq!(connection.state(), ConnectionState::Established);
    connection.handle_blocked(at(480));
    for s in 49..97 {
        live(&mut connection, at(10 * s));
    }
    let expected = Close::Sent(Notification::new(8, 0));
    assert_eq!(end(&mut connection), Some(expected));
}

#[test]
fn the_send_hold_time_is_twice_the_hold_time_but_at_least_eight_minutes() {
    let time = |send, hold| {
        ConnectionConfig {
            send_hold_time: send,
            ..config(1)
        }
        .send_hold_time(hold)
    };
    assert_eq!(time(None, 90 * SECOND), Some(480 * SECOND));
    assert_eq!(time(None, 300 * SECOND), Some(600 * SECOND));
    assert_eq!(time(Some(SECOND), 90 * SECOND), Some(SECOND));
    assert_eq!(time(Some(Duration::ZERO), 90 * SECOND), None);
}

#[test]
fn refreshes_that_were_not_negotiated_are_ignored() {
    let plain = ConnectionConfig {
        enhanced_refresh: false,
        ..config(2)
    };
    let mut connection = opened(config(1), &plain.open(), true);
    let list = feed(
        &mut connection,
        at(0),
        &[
            wire::route_refresh(Family::VPNV4, RefreshKind::Request),
            wire::route_refresh(Family::IPV4, RefreshKind::Begin),
            wire::message(MessageKind::RouteRefresh, &[0, 1, 9, 1]),
            wire::route_refresh(Family::IPV4, RefreshKind::Request),
        ]
        .concat(),
    );
    assert_eq!(list, [Heard::Refresh(Family::IPV4, RefreshKind::Request)]);
    assert_eq!(connection.counters().ignored_refreshes, 3);
}

#[test]
fn wishes_for_a_refresh_do_not_pile_up() {
    let mut connection = opened(config(1), &config(2).open(), true);
    let _ = output(&mut connection);
    for _ in 0..5 {
        assert!(connection.request_refresh(Family::IPV4));
    }
    assert!(!connection.request_refresh(Family::MESH));
    let wish = wire::route_refresh(Family::IPV4, RefreshKind::Request);
    assert_eq!(output(&mut connection), wish);
}

#[test]
fn a_collision_leaves_no_keepalive_behind() {
    let mut connection = opened(config(1), &config(2).open(), false);
    connection.close(Notification::new(6, 7));
    let expected = [config(1).open().encode(), Notification::new(6, 7).encode()].concat();
    assert_eq!(output(&mut connection), expected);
}

#[test]
fn a_notification_ends_it_and_nothing_follows() {
    let mut connection = opened(config(1), &config(2).open(), true);
    let _ = (events(&mut connection), output(&mut connection));
    let cease = Notification::shutdown("bye");
    let list = feed(&mut connection, at(0), &[cease.encode(), update()].concat());
    assert!(list.is_empty());
    connection.handle_end_of_stream();
    connection.close(Notification::new(6, 0));
    let expected = ConnectionEvent::Closed(Close::Received(cease));
    assert_eq!(events(&mut connection), [expected]);
    assert!(output(&mut connection).is_empty());
    assert_eq!(connection.poll_timeout(), None);
}
