use std::time::Duration;

use super::{SECOND, config, end, family, net::Net, opened, peer_config};
use crate::{
    Family, Notification,
    peer::{Close, ConnectionConfig, FamilyConfig, Graceful, GracefulConfig, StaleFamily},
};

/// IPv4 graceful and long-lived, IPv6 long-lived only, VPNv4 neither.
fn with(n: u32, notification: bool) -> ConnectionConfig {
    let long = |f| FamilyConfig {
        long_lived: 3600 * SECOND,
        ..family(f)
    };
    ConnectionConfig {
        graceful_restart: Some(GracefulConfig {
            restart_time: 120 * SECOND,
            restarting: false,
            forwarding: true,
            notification,
        }),
        families: vec![
            FamilyConfig {
                graceful: true,
                ..long(Family::IPV4)
            },
            long(Family::IPV6),
            family(Family::VPNV4),
        ],
        ..config(n)
    }
}

fn kept() -> Option<Graceful> {
    let stale = |family, restart| StaleFamily {
        family,
        restart,
        long_lived: 3600 * SECOND,
    };
    Some(Graceful {
        families: vec![
            stale(Family::IPV4, 120 * SECOND),
            stale(Family::IPV6, Duration::ZERO),
        ],
    })
}

fn check(notification: bool, close: &Close, expect: &Option<Graceful>) {
    let connection = opened(with(1, notification), &with(2, true).open(), true);
    let terms = connection.negotiated().expect("it is established");
    assert_eq!(
        &super::super::close::graceful(terms, close),
        expect,
        "{close} with N {notification}"
    );
}

#[test]
fn which_ends_keep_routes() {
    let hard = Notification::with_data(6, 9, &[6, 2]);
    let ordinary: [Notification; 4] = [
        Notification::new(6, 4),
        Notification::HOLD_TIMER.into(),
        Notification::SEND_HOLD_TIMER.into(),
        Notification::new(3, 1),
    ];
    for n in [false, true] {
        check(n, &Close::StreamEnded, &kept());
        check(n, &Close::Replaced, &kept());
        // Of two connections one goes, and the neighbour lives on the other.
        let collision = Notification::new(6, 7);
        check(n, &Close::Sent(collision.clone()), &kept());
        check(n, &Close::Received(collision), &kept());
        for hard in [Close::Sent(hard.clone()), Close::Received(hard.clone())] {
            check(n, &hard, &None);
        }
        for soft in &ordinary {
            let expect = if n { kept() } else { None };
            check(n, &Close::Sent(soft.clone()), &expect);
            check(n, &Close::Received(soft.clone()), &expect);
        }
    }
    let without = opened(config(1), &with(2, true).open(), true);
    let terms = without.negotiated().expect("it is established");
    assert_eq!(
        super::super::close::graceful(terms, &Close::StreamEnded),
        None
    );
}

#[test]
fn final_ceases_become_hard_resets() {
    for (subcode, hard) in [
        (1, true),
        (2, true),
        (3, true),
        (4, false),
        (6, false),
        (8, false),
        (10, true),
    ] {
        for n in [false, true] {
            let mut connection = opened(with(1, n), &with(2, true).open(), true);
            connection.close(Notification::with_data(6, subcode, b"\x02hi"));
            let plain = Notification::with_data(6, subcode, b"\x02hi");
            let sent = match end(&mut connection) {
                Some(Close::Sent(sent)) => sent,
                other => panic!("{other:?}"),
            };
            if hard && n {
                let mut data = vec![6, subcode];
                data.extend(b"\x02hi");
                assert_eq!(sent, Notification::with_data(6, 9, &data));
                assert_eq!(Close::Sent(sent).cause(), Some(plain));
            } else {
                assert_eq!(sent, plain);
            }
        }
    }
}

#[test]
fn a_long_shutdown_text_survives_the_hard_reset() {
    let text = "ä".repeat(200);
    let mut net = Net::new([peer_config(with(1, true)), peer_config(with(2, true))], 8);
    net.start();
    net.run(SECOND);
    net.act(0, |peer, now| peer.stop(now, &text));
    net.run(SECOND);
    let [(reason, graceful)] = net.downs(1).try_into().expect("it went down");
    assert_eq!(graceful, None);
    let expected = Notification::shutdown(&text);
    assert_eq!(
        expected.data.len(),
        1 + 254,
        "whole characters, at most 255 octets"
    );
    assert_eq!(reason.cause(), Some(expected));
}

#[test]
fn nothing_is_hardened_before_it_is_established() {
    let mut connection = opened(with(1, true), &with(2, true).open(), false);
    connection.close(Notification::shutdown("no"));
    let expected = Close::Sent(Notification::shutdown("no"));
    assert_eq!(end(&mut connection), Some(expected));
}

#[test]
fn a_cut_stream_keeps_routes_at_both_ends() {
    let mut net = Net::new([peer_config(with(1, true)), peer_config(with(2, true))], 8);
    net.start();
    net.run(SECOND);
    net.cut = true;
    net.run(100 * SECOND);
    for side in 0..2 {
        assert_eq!(net.downs(side)[0].1, kept());
    }
}
