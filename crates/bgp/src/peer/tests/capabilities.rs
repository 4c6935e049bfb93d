use std::time::Duration;

use base::NodeId;

use super::{config, family, negotiated, refused};
use crate::{
    Family, Notification,
    peer::{
        BgpRole, ConnectionConfig, FamilyConfig, GracefulConfig, PeerAs, RoleConfig, negotiate,
    },
    wire::Capabilities,
};

fn ibgp(n: u32) -> ConnectionConfig {
    ConnectionConfig {
        asn: 65000,
        peer_as: PeerAs::Internal,
        ..config(n)
    }
}

#[test]
fn the_plain_case() {
    let terms = negotiated(&config(1), &config(2));
    assert_eq!((terms.peer_asn, terms.peer_node), (65002, NodeId(2)));
    assert!(terms.ebgp && terms.four_octet_as && terms.route_refresh && terms.enhanced_refresh);
    assert_eq!(terms.hold_time, Duration::from_secs(90));
    assert_eq!(terms.families, [Family::IPV4, Family::IPV6]);
    assert_eq!(
        (terms.max_message_in, terms.max_message_out),
        (65535, 65535)
    );
    assert_eq!(terms.graceful_restart, None);
    assert_eq!(terms.context.families, terms.families);
    assert!(terms.context.ebgp && terms.context.four_octet_as);
}

#[test]
fn four_octet_as_numbers() {
    let big = ConnectionConfig {
        asn: 4_200_000_001,
        ..config(2)
    };
    assert_eq!(negotiated(&config(1), &big).peer_asn, 4_200_000_001);
    let exactly = ConnectionConfig {
        peer_as: PeerAs::Exactly(4_200_000_001),
        ..config(1)
    };
    assert!(negotiated(&exactly, &big).four_octet_as);
    assert_eq!(refused(&exactly, &config(2)), Notification::new(2, 2));
}

#[test]
fn the_lesser_hold_time_is_kept() {
    for (ours, theirs, expect) in [
        (90, 30, 30),
        (30, 90, 30),
        (0, 90, 0),
        (90, 0, 0),
        (3, 3, 3),
    ] {
        let with = |n, s| ConnectionConfig {
            hold_time: Duration::from_secs(s),
            ..config(n)
        };
        let terms = negotiated(&with(1, ours), &with(2, theirs));
        assert_eq!(terms.hold_time, Duration::from_secs(expect));
    }
    let insists = ConnectionConfig {
        min_hold_time: Duration::from_secs(10),
        ..config(1)
    };
    for theirs in [0, 3, 9] {
        let short = ConnectionConfig {
            hold_time: Duration::from_secs(theirs),
            ..config(2)
        };
        assert_eq!(refused(&insists, &short), Notification::new(2, 6));
    }
}

#[test]
fn extended_messages_are_agreed_on_each_way() {
    let short = ConnectionConfig {
        extended_message: false,
        ..config(2)
    };
    let terms = negotiated(&config(1), &short);
    assert_eq!((terms.max_message_in, terms.max_message_out), (65535, 4096));
    let terms = negotiated(&short, &config(1));
    assert_eq!((terms.max_message_in, terms.max_message_out), (4096, 65535));
}

#[test]
fn path_ids_are_agreed_on_each_way_and_family() {
    let with = |n, send, receive| ConnectionConfig {
        families: vec![
            FamilyConfig {
                add_path_send: send,
                add_path_receive: receive,
                ..family(Family::IPV4)
            },
            family(Family::IPV6),
        ],
        ..config(n)
    };
    for (ours, theirs, send, receive) in [
        ((true, true), (true, true), true, true),
        ((true, false), (false, true), true, false),
        ((false, true), (true, false), false, true),
        ((true, false), (true, false), false, false),
        ((true, true), (false, false), false, false),
    ] {
        let terms = negotiated(&with(1, ours.0, ours.1), &with(2, theirs.0, theirs.1));
        let list = |on| if on { vec![Family::IPV4] } else { vec![] };
        assert_eq!(terms.add_path_send, list(send));
        assert_eq!(terms.add_path_receive, list(receive));
        assert_eq!(terms.context.add_path, list(receive));
    }
}

#[test]
fn ipv6_next_hops_need_both() {
    let with = |n, on| ConnectionConfig {
        families: vec![FamilyConfig {
            extended_next_hop: on,
            ..family(Family::IPV4)
        }],
        ..config(n)
    };
    for (ours, theirs) in [(true, true), (true, false), (false, true), (false, false)] {
        let terms = negotiated(&with(1, ours), &with(2, theirs));
        assert_eq!(terms.extended_next_hop.is_empty(), !(ours && theirs));
        assert_eq!(terms.context.extended_next_hop, terms.extended_next_hop);
    }
}

#[test]
fn a_required_family_has_to_be_there() {
    let insists = ConnectionConfig {
        families: vec![
            family(Family::IPV4),
            FamilyConfig {
                required: true,
                ..family(Family::MESH)
            },
        ],
        ..config(1)
    };
    let lacks = Notification::with_data(2, 7, &[1, 4, 0x40, 0x0D, 0, 244]);
    assert_eq!(refused(&insists, &config(2)), lacks);
    assert_eq!(negotiated(&config(2), &insists).families, [Family::IPV4]);
}

#[test]
fn an_open_without_capabilities_means_ipv4() {
    let mut old = config(2).open();
    old.capabilities = Capabilities::default();
    let terms = negotiate(&config(1), &config(1).open(), &old).expect("RFC 4271 alone will do");
    assert_eq!(terms.families, [Family::IPV4]);
    assert!(!terms.four_octet_as && !terms.route_refresh);
    assert_eq!((terms.max_message_in, terms.max_message_out), (65535, 4096));
}

#[test]
fn identifiers() {
    let (zero, twin) = (NodeId(0), NodeId(1));
    let with = |base: ConnectionConfig, node| ConnectionConfig { node, ..base };
    let bad = Notification::new(2, 3);
    assert_eq!(refused(&config(1), &with(config(2), zero)), bad);
    assert_eq!(refused(&ibgp(1), &with(ibgp(2), twin)), bad);
    // RFC 6286: unique inside an AS only.
    assert!(negotiated(&config(1), &with(config(2), twin)).ebgp);
    let expects = |node| ConnectionConfig {
        peer_node: Some(node),
        ..ibgp(1)
    };
    assert!(!negotiated(&expects(NodeId(2)), &ibgp(2)).ebgp);
    assert_eq!(refused(&expects(NodeId(3)), &ibgp(2)), bad);
    assert!(!negotiated(&expects(twin), &ibgp(1)).ebgp, "two halves");
}

#[test]
fn roles() {
    use BgpRole::{Customer, Peer, Provider, RouteServer, RouteServerClient};
    let all = [Provider, RouteServer, RouteServerClient, Customer, Peer];
    let with = |n, role, strict| ConnectionConfig {
        role: Some(RoleConfig { role, strict }),
        ..config(n)
    };
    for ours in all {
        assert_eq!(BgpRole::from_code(ours.code()), Some(ours));
        for theirs in all {
            let (a, b) = (with(1, ours, false), with(2, theirs, false));
            if theirs == ours.counterpart() {
                assert_eq!(negotiated(&a, &b).role, Some(ours));
            } else {
                assert_eq!(refused(&a, &b), Notification::new(2, 11));
            }
        }
        let lax = negotiated(&with(1, ours, false), &config(2));
        assert_eq!(lax.role, Some(ours));
        let strict = with(1, ours, true);
        assert_eq!(refused(&strict, &config(2)), Notification::new(2, 11));
    }
    let inside = ConnectionConfig {
        role: with(1, Peer, true).role,
        ..ibgp(1)
    };
    assert_eq!(negotiated(&inside, &ibgp(2)).role, None);
}

#[test]
fn graceful_restart_needs_both_and_long_lived_needs_it() {
    let with = |n, graceful: bool, notification, long: u64| ConnectionConfig {
        graceful_restart: graceful.then_some(GracefulConfig {
            restart_time: Duration::from_secs(9999),
            restarting: false,
            forwarding: true,
            notification,
        }),
        families: vec![FamilyConfig {
            graceful: true,
            long_lived: Duration::from_secs(long),
            ..family(Family::IPV4)
        }],
        ..config(n)
    };
    let terms = negotiated(&with(1, true, true, 5), &with(2, true, true, 1 << 40));
    let theirs = terms.graceful_restart.clone().expect("both take part");
    assert_eq!(theirs.time_s, 4095, "twelve bits");
    assert_eq!(theirs.families, [(Family::IPV4, true)]);
    assert!(terms.notification_restart && terms.forwarding_kept(Family::IPV4));
    assert_eq!(terms.long_lived, [(Family::IPV4, true, 0xFF_FFFF)]);
    assert!(!negotiated(&with(1, true, false, 5), &with(2, true, true, 5)).notification_restart);
    for (ours, theirs) in [(false, true), (true, false)] {
        let terms = negotiated(&with(1, ours, true, 5), &with(2, theirs, true, 5));
        assert_eq!(terms.graceful_restart, None);
        assert!(terms.long_lived.is_empty() && !terms.notification_restart);
    }
    let terms = negotiated(&with(1, true, true, 0), &with(2, true, true, 5));
    assert!(terms.long_lived.is_empty(), "we take no part in RFC 9494");
    assert!(terms.knows_long_lived, "but it may be told of stale routes");
}
