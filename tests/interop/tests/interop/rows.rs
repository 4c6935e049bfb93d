//! The rows: each puts our speaker `s` between a daemon `d` and talkers, and looks at all ends.

use std::{net::IpAddr, time::Duration};

use interop::{
    Daemon, Family, Kind, Lab, Neighbor, Node, Route, Row, Seen, Support, Talker,
    wire::{self, Attribute},
};

use crate::stage::{OURS, Session, announcement, id, start};

/// The daemon's AS in the rows of eBGP.
const THEIRS: u32 = 65001;
/// A code that nobody has assigned.
const UNKNOWN: u8 = 244;

/// Any path at all.
fn some(paths: &[Seen]) -> bool {
    !paths.is_empty()
}

/// Not one path.
fn none(paths: &[Seen]) -> bool {
    paths.is_empty()
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|item| item == one)
}

/// The speaker between a daemon of another AS and a talker of a third: each hears of the others'
/// routes and of their end.
pub(crate) fn unicast(kind: Kind, v6: bool) {
    let lab = Lab::new(&["s", "d", "t"], &[("s", "d"), ("s", "t")]).expect("namespaces");
    let family = if v6 { Family::Ipv6 } else { Family::Ipv4 };
    let [ours, theirs, third] = if v6 {
        ["2001:db8:65::/48", "2001:db8:66::/48", "2001:db8:67::/48"]
    } else {
        ["10.65.0.0/16", "10.66.0.0/16", "10.67.0.0/16"]
    };
    let (to_d, to_t) = (Session::new(1, &[family]), Session::new(2, &[family]));
    let neighbors = vec![to_d.neighbor(1, THEIRS), to_t.talker(65002)];
    let routes = vec![Route::unicast(ours).community("65000:1")];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, routes);
    let mut d = start(
        kind,
        &lab,
        "d",
        THEIRS,
        vec![to_d.neighbor(2, OURS)],
        Vec::new(),
    );
    d.wait_established(to_d.end(1));
    s.wait_established(to_d.end(2));
    let t = to_t.dial(&lab, "t", 65002);

    let path = d.wait_route(family, ours, &some).remove(0);
    assert_eq!(path.as_path, "65000", "{path:?}");
    assert_eq!(path.next_hop, to_d.end(1).to_string(), "{path:?}");
    assert!(has(&path.communities, "65000:1"), "{path:?}");

    let route = Route::unicast(theirs)
        .community("65001:1")
        .next_hop(to_d.end(2));
    d.announce(&route);
    let path = s.wait_route(family, theirs, &some).remove(0);
    assert_eq!(path.as_path, "65001", "{path:?}");
    assert_eq!(path.next_hop, to_d.end(2).to_string(), "{path:?}");
    assert!(has(&path.communities, "65001:1"), "{path:?}");
    let heard = t.wait_announced(family, theirs);
    assert_eq!(heard.as_path(), [OURS, THEIRS]);
    assert_eq!(heard.next_hop(), Some(to_t.end(1)));

    t.say(&announcement(&to_t, 65002, third));
    let path = d.wait_route(family, third, &some).remove(0);
    assert_eq!(path.as_path, "65000 65002", "{path:?}");

    d.withdraw(&route);
    t.wait_withdrawn(family, theirs);
    s.wait_route(family, theirs, &none);
    t.say(&wire::withdraw(family, &wire::prefix(third)));
    d.wait_route(family, third, &none);
    d.wait_route(family, ours, &some);
}

/// VPN routes of a talker and of the daemon, through our reflector: label, target and next hop
/// stay.
pub(crate) fn vpn(kind: Kind, v6: bool) {
    let lab = Lab::new(&["s", "d", "t"], &[("s", "d"), ("s", "t")]).expect("namespaces");
    let family = if v6 { Family::Vpnv6 } else { Family::Vpnv4 };
    let (to_d, to_t) = (Session::new(1, &[family]), Session::new(2, &[family]));
    let client = Neighbor {
        client: true,
        ..to_d.neighbor(1, OURS)
    };
    let neighbors = vec![client, to_t.client()];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, Vec::new());
    let mut d = start(
        kind,
        &lab,
        "d",
        OURS,
        vec![to_d.neighbor(2, OURS)],
        Vec::new(),
    );
    s.wait_established(to_d.end(2));
    let t = to_t.dial(&lab, "t", OURS);

    let [theirs, third] = if v6 {
        ["2001:db8:66::/48", "2001:db8:67::/48"]
    } else {
        ["10.66.0.0/16", "10.67.0.0/16"]
    };
    let mut attributes = Attribute::usual(&[]);
    attributes.push(wire::targets(&["65000:7", "65000:8"]));
    let nlri = wire::vpn("65002:7", third, 777);
    t.say(&wire::announce(
        family,
        &nlri,
        Some(to_t.end(2)),
        &attributes,
    ));
    let name = format!("65002:7 {third}");
    let path = d.wait_route(family, &name, &some).remove(0);
    assert_eq!(path.next_hop, to_t.end(2).to_string(), "{path:?}");
    assert!(path.label.is_none_or(|label| label == 777), "{path:?}");
    assert!(
        path.targets.iter().any(|target| target == "65000:8"),
        "{path:?}"
    );

    if Row::Vpnv4.originates(kind) {
        let route = Route::vpn("65001:6", theirs, 666, "65000:6").next_hop(to_d.end(2));
        d.announce(&route);
        let path = s.wait_route(family, &route.name(), &some).remove(0);
        assert!(
            path.targets.iter().any(|target| target == "65000:6"),
            "{path:?}"
        );
        let heard = t.wait_announced(family, &route.name());
        assert_eq!(
            heard.value(16),
            Some(wire::targets(&["65000:6"]).value.as_slice())
        );
        d.withdraw(&route);
        t.wait_withdrawn(family, &route.name());
    }
    t.say(&wire::withdraw(family, &nlri));
    if kind != Kind::Openbgpd {
        d.wait_route(family, &name, &none);
    }
}

/// Two reflectors in a row, ours and the daemon, with a talker at each end.
struct Chain {
    /// `t1` – `s` – `d` – `t2`, all of one AS.
    s: Box<dyn Daemon>,
    d: Box<dyn Daemon>,
    t1: Talker,
    t2: Talker,
    /// Another client of ours.
    t3: Talker,
    first: IpAddr,
    last: IpAddr,
    _lab: Lab,
}

fn chain(kind: Kind) -> Chain {
    let links = [("s", "d"), ("s", "t1"), ("d", "t2"), ("s", "t3")];
    let lab = Lab::new(&["s", "d", "t1", "t2", "t3"], &links).expect("namespaces");
    let [to_d, to_t1, to_t2, to_t3] = [1, 2, 3, 4].map(|link| Session::new(link, &[Family::Ipv4]));
    let client = |session: &Session, own| Neighbor {
        client: true,
        ..session.neighbor(own, OURS)
    };
    let neighbors = vec![client(&to_d, 1), to_t1.client(), to_t3.client()];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, Vec::new());
    let neighbors = vec![client(&to_d, 2), to_t2.client()];
    let d = start(kind, &lab, "d", OURS, neighbors, Vec::new());
    s.wait_established(to_d.end(2));
    let t1 = to_t1.dial(&lab, "t1", OURS);
    let t2 = to_t2.dial(&lab, "t2", OURS);
    let t3 = to_t3.dial(&lab, "t3", OURS);
    let (first, last) = (to_t1.end(2), to_t2.end(2));
    Chain {
        s,
        d,
        t1,
        t2,
        t3,
        first,
        last,
        _lab: lab,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 4456 and RFC 4271 §9: what the first talker said reaches the last one whole.
pub(crate) fn reflection(kind: Kind) {
    let Chain {
        s,
        mut d,
        t1,
        t2,
        t3,
        first,
        last: _,
        _lab,
    } = chain(kind);
    let mut attributes = Attribute::usual(&[]);
    attributes[2].value = 150_u32.to_be_bytes().to_vec();
    attributes.push(Attribute::new(0xc0, 8, [0xfd, 0xe8, 0, 9]));
    attributes.push(Attribute::new(0xc0, UNKNOWN, [0xde, 0xad, 0xbe, 0xef]));
    attributes.push(Attribute::new(0x80, UNKNOWN + 1, [1]));
    let nlri = wire::prefix("10.66.0.0/16");
    t1.say(&wire::announce(
        Family::Ipv4,
        &nlri,
        Some(first),
        &attributes,
    ));

    // Ours alone, to the octet.
    let heard = t3.wait_announced(Family::Ipv4, "10.66.0.0/16");
    assert_eq!(heard.next_hop(), Some(first), "{heard:?}");
    assert_eq!(heard.value(9), Some(octets(first).as_slice()), "{heard:?}");
    assert_eq!(heard.value(10), Some(octets(id(1)).as_slice()), "{heard:?}");
    assert_eq!(
        heard.value(5),
        Some(150_u32.to_be_bytes().as_slice()),
        "{heard:?}"
    );
    // GoBGP, in our place, keeps its hands off both.
    if s.kind() != Kind::Gobgp {
        let unknown = Attribute::new(0xe0, UNKNOWN, [0xde, 0xad, 0xbe, 0xef]);
        assert!(
            heard.attributes.contains(&unknown),
            "partial now: {heard:?}"
        );
        assert_eq!(heard.value(UNKNOWN + 1), None, "not transitive: {heard:?}");
    }

    // The daemon, and behind it.
    let path = d.wait_route(Family::Ipv4, "10.66.0.0/16", &some).remove(0);
    assert!(path.originator.is_none_or(|id| id == first.to_string()));
    let heard = t2.wait_announced(Family::Ipv4, "10.66.0.0/16");
    let clusters = [octets(id(2)), octets(id(1))].concat();
    assert_eq!(heard.value(10), Some(clusters.as_slice()), "{heard:?}");
    assert_eq!(heard.value(9), Some(octets(first).as_slice()), "{heard:?}");
    assert_eq!(
        heard.value(UNKNOWN),
        Some([0xde, 0xad, 0xbe, 0xef].as_slice()),
        "{heard:?}"
    );
    assert!(!t1.was_withdrawn(Family::Ipv4, "10.66.0.0/16"));
    t1.say(&wire::withdraw(Family::Ipv4, &nlri));
    t2.wait_withdrawn(Family::Ipv4, "10.66.0.0/16");
}

/// RFC 8654: 1,500 communities, 6,000 octets, there and back.
pub(crate) fn extended(kind: Kind) {
    let Chain {
        s: _s,
        mut d,
        t1,
        t2,
        t3: _t3,
        first,
        last,
        _lab,
    } = chain(kind);
    let value: Vec<u8> = (0..1500_u16)
        .flat_map(|n| [[0xfd, 0xe8], n.to_be_bytes()].concat())
        .collect();
    let mut attributes = Attribute::usual(&[]);
    attributes.push(Attribute::new(0xc0, 8, value.clone()));
    let nlri = wire::prefix("10.66.0.0/16");
    t1.say(&wire::announce(
        Family::Ipv4,
        &nlri,
        Some(first),
        &attributes,
    ));
    d.wait_route(Family::Ipv4, "10.66.0.0/16", &some);
    let heard = t2.wait_announced(Family::Ipv4, "10.66.0.0/16");
    assert_eq!(heard.value(8), Some(value.as_slice()));
    let nlri = wire::prefix("10.67.0.0/16");
    t2.say(&wire::announce(
        Family::Ipv4,
        &nlri,
        Some(last),
        &attributes,
    ));
    let heard = t1.wait_announced(Family::Ipv4, "10.67.0.0/16");
    assert_eq!(heard.value(8), Some(value.as_slice()));
}

/// RFC 7911: two talkers at the speaker and two at the daemon, each pair with one prefix.
pub(crate) fn add_path(kind: Kind) {
    let links = [
        ("s", "d"),
        ("s", "t1"),
        ("s", "t2"),
        ("d", "t3"),
        ("d", "t4"),
    ];
    let lab = Lab::new(&["s", "d", "t1", "t2", "t3", "t4"], &links).expect("namespaces");
    let sessions = [1, 2, 3, 4, 5].map(|link| Session::new(link, &[Family::Ipv4]));
    let [to_d, t1, t2, t3, t4] = &sessions;
    let several = |neighbor| Neighbor {
        add_path: true,
        ..neighbor
    };
    let neighbors = vec![
        several(to_d.neighbor(1, THEIRS)),
        t1.talker(65002),
        t2.talker(65003),
    ];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, Vec::new());
    let neighbors = vec![
        several(to_d.neighbor(2, OURS)),
        t3.talker(65004),
        t4.talker(65005),
    ];
    let mut d = start(kind, &lab, "d", THEIRS, neighbors, Vec::new());
    s.wait_established(to_d.end(2));
    let mut talkers = Vec::new();
    for (session, node, asn, prefix) in [
        (t1, "t1", 65002, "10.66.0.0/16"),
        (t2, "t2", 65003, "10.66.0.0/16"),
        (t3, "t3", 65004, "10.67.0.0/16"),
        (t4, "t4", 65005, "10.67.0.0/16"),
    ] {
        let talker = session.dial(&lab, node, asn);
        talker.say(&announcement(session, asn, prefix));
        talkers.push(talker);
    }
    let both = |first: &'static str, second: &'static str| {
        move |paths: &[Seen]| {
            let with = |path| paths.iter().any(|one| one.as_path == path);
            with(first) && with(second)
        }
    };
    d.wait_route(
        Family::Ipv4,
        "10.66.0.0/16",
        &both("65000 65002", "65000 65003"),
    );
    s.wait_route(
        Family::Ipv4,
        "10.67.0.0/16",
        &both("65001 65004", "65001 65005"),
    );
    // One of two goes, the other stays.
    talkers[0].say(&wire::withdraw(Family::Ipv4, &wire::prefix("10.66.0.0/16")));
    talkers[2].say(&wire::withdraw(Family::Ipv4, &wire::prefix("10.67.0.0/16")));
    let only =
        |path: &'static str| move |paths: &[Seen]| matches!(paths, [one] if one.as_path == path);
    d.wait_route(Family::Ipv4, "10.66.0.0/16", &only("65000 65003"));
    s.wait_route(Family::Ipv4, "10.67.0.0/16", &only("65001 65005"));
}

/// RFC 2918 and RFC 7313: whoever is asked sends its routes again; the daemon counts them.
pub(crate) fn refresh(kind: Kind) {
    let lab = Lab::new(&["s", "d"], &[("s", "d")]).expect("namespaces");
    let to_d = Session::new(1, &[Family::Ipv4]);
    let routes = |prefix| vec![Route::unicast(prefix)];
    // FRR ignores a request until it has sent End-of-RIB, and sends that to whoever knows graceful
    // restart alone.
    let heeded = |neighbor| Neighbor {
        graceful: kind == Kind::Frr,
        ..neighbor
    };
    let neighbors = vec![heeded(to_d.neighbor(1, THEIRS))];
    let mut s = start(
        Kind::speaker(),
        &lab,
        "s",
        OURS,
        neighbors,
        routes("10.65.0.0/16"),
    );
    let neighbors = vec![heeded(to_d.neighbor(2, OURS))];
    let mut d = start(kind, &lab, "d", THEIRS, neighbors, routes("10.66.0.0/16"));
    s.wait_route(Family::Ipv4, "10.66.0.0/16", &some);
    d.wait_route(Family::Ipv4, "10.65.0.0/16", &some);

    let bound = lab.node("s").remaining();
    if kind != Kind::Openbgpd {
        kit::wait_until("the daemon has said all", bound, || d.counters(to_d.end(1)));
        let before = d.counters(to_d.end(1)).expect("counters");
        s.refresh(to_d.end(2)).expect("a request");
        kit::wait_until("the daemon sends again", bound, || {
            let now = d.counters(to_d.end(1))?;
            let again = now.sent > before.sent;
            if again {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            }
        });
    }
    if kind == Kind::Gobgp {
        return;
    }
    let before = d.counters(to_d.end(1)).expect("counters");
    d.refresh(to_d.end(1)).expect("a request");
    kit::wait_until("the speaker sends again", bound, || {
        let now = d.counters(to_d.end(1))?;
        if now.received > before.received {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
    s.wait_route(Family::Ipv4, "10.66.0.0/16", &some);
    d.wait_route(Family::Ipv4, "10.65.0.0/16", &some);
}

/// RFC 2385: the wrong secret is refused by the kernel, the right one is not.
pub(crate) fn md5(kind: Kind) {
    let lab = Lab::new(&["s", "d"], &[("s", "d")]).expect("namespaces");
    let to_d = Session::new(1, &[Family::Ipv4]);
    let with = |neighbor, password: &str| {
        vec![Neighbor {
            password: Some(password.to_owned()),
            ..neighbor
        }]
    };
    let neighbors = with(to_d.neighbor(1, THEIRS), "correct-horse");
    let routes = vec![Route::unicast("10.65.0.0/16")];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, routes);
    let mut d = start(
        kind,
        &lab,
        "d",
        THEIRS,
        with(to_d.neighbor(2, OURS), "wrong"),
        Vec::new(),
    );
    let nodes = [lab.node("s"), lab.node("d")];
    let bound = lab.node("s").remaining();
    kit::wait_until("the kernel refuses a segment", bound, || {
        let refused = nodes.iter().map(refused).sum::<u64>();
        if refused > 0 {
            Ok(())
        } else {
            Err("none refused")
        }
    });
    assert!(d.established(to_d.end(1)).is_err(), "the secrets differ");
    d.kill();
    let mut d = start(
        kind,
        &lab,
        "d",
        THEIRS,
        with(to_d.neighbor(2, OURS), "correct-horse"),
        Vec::new(),
    );
    d.wait_route(Family::Ipv4, "10.65.0.0/16", &some);
    s.wait_established(to_d.end(2));
}

/// Segments that a node's kernel dropped for their MD5 option, or for the lack of it.
fn refused(node: &Node) -> u64 {
    let text = node
        .ask("cat", ["/proc/self/net/netstat"])
        .expect("counters");
    let mut rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("TcpExt: "));
    let (names, values) = (
        rows.next().unwrap_or_default(),
        rows.next().unwrap_or_default(),
    );
    let pairs = names.split(' ').zip(values.split(' '));
    let ours = pairs.filter(|(name, _)| name.starts_with("TCPMD5"));
    ours.filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// RFC 5882: the path dies without a word, and so does the session, long before its hold time;
/// when the path is back, so are both.
pub(crate) fn bfd(kind: Kind) {
    let lab = Lab::new(&["s", "d"], &[("s", "d")]).expect("namespaces");
    let to_d = Session::new(1, &[Family::Ipv4]);
    let watched = |neighbor| {
        vec![Neighbor {
            bfd: true,
            ..neighbor
        }]
    };
    let neighbors = watched(to_d.neighbor(1, THEIRS));
    let routes = vec![Route::unicast("10.65.0.0/16")];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, routes);
    let neighbors = watched(to_d.neighbor(2, OURS));
    let mut d = start(kind, &lab, "d", THEIRS, neighbors, Vec::new());
    let bound = lab.node("s").remaining();
    for round in 0..2 {
        d.wait_route(Family::Ipv4, "10.65.0.0/16", &some);
        kit::wait_until("BFD is up", bound, || s.sees_path(to_d.end(2)));
        if round > 0 {
            return;
        }
        // One end goes dark: nobody says a word to the other.
        let d = lab.node("d");
        d.ask("ip", ["link", "set", "eth1", "down"]).expect("ours");
        let (_, took) = kit::wait_until("the session ends", bound, || {
            match s.established(to_d.end(2)) {
                Ok(()) => Err("still established".to_owned()),
                Err(state) => Ok(state),
            }
        });
        // 3 times 100 ms, and what it takes to ask; the hold time is 90 s.
        assert!(took < Duration::from_secs(10), "{took:?}");
        kit::figure(format_args!(
            "BFD with {}: the session is gone after {took:?}",
            kind.name()
        ));
        d.ask("ip", ["link", "set", "eth1", "up"]).expect("ours");
    }
}

/// RFC 4724: either end is killed and comes back; whoever stands behind the other hears no
/// withdrawal.
pub(crate) fn graceful(kind: Kind) {
    let links = [("s", "d"), ("s", "t1"), ("d", "t2")];
    let lab = Lab::new(&["s", "d", "t1", "t2"], &links).expect("namespaces");
    let [to_d, to_t1, to_t2] = [1, 2, 3].map(|link| Session::new(link, &[Family::Ipv4]));
    let graceful = |neighbor| Neighbor {
        graceful: true,
        ..neighbor
    };
    let [ours, theirs] = ["10.65.0.0/16", "10.66.0.0/16"];
    let neighbors = vec![graceful(to_d.neighbor(1, THEIRS)), to_t1.talker(65002)];
    let routes = vec![Route::unicast(ours)];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, routes);
    let neighbors = vec![graceful(to_d.neighbor(2, OURS)), to_t2.talker(65003)];
    let routes = vec![Route::unicast(theirs)];
    let mut d = start(kind, &lab, "d", THEIRS, neighbors, routes);
    s.wait_established(to_d.end(2));
    let t1 = to_t1.dial(&lab, "t1", 65002);
    let t2 = to_t2.dial(&lab, "t2", 65003);
    let _ = t1.wait_announced(Family::Ipv4, theirs);
    let _ = t2.wait_announced(Family::Ipv4, ours);

    // The speaker goes: the daemon keeps what it said.
    s.kill();
    t1.wait_closed();
    d.wait_route(Family::Ipv4, ours, &some);
    s.launch(true);
    s.wait_established(to_d.end(2));
    let t1 = to_t1.dial(&lab, "t1", 65002);
    t1.say(&announcement(&to_t1, 65002, "10.67.0.0/16"));
    // What comes after the restart has overtaken nothing.
    let _ = t2.wait_announced(Family::Ipv4, "10.67.0.0/16");
    assert!(!t2.was_withdrawn(Family::Ipv4, ours), "{:?}", t2.updates());
    if Row::Graceful.support(kind) == Support::Whole {
        let _ = t1.wait_announced(Family::Ipv4, theirs);
        d.kill();
        t2.wait_closed();
        comes_back(s.as_mut(), d.as_mut(), to_d.end(2), theirs, &t1);
    }
}

/// The daemon was killed: the speaker keeps its route, stale, until it is back.
fn comes_back(s: &mut dyn Daemon, d: &mut dyn Daemon, at: IpAddr, route: &str, behind: &Talker) {
    // Not every stand-in shows that a route is stale.
    let ours = s.kind() == Kind::Sealane;
    let kept = |paths: &[Seen]| paths.iter().any(|path| path.stale || !ours);
    s.wait_route(Family::Ipv4, route, &kept);
    d.launch(true);
    s.wait_established(at);
    d.announce(&Route::unicast("10.68.0.0/16"));
    let _ = behind.wait_announced(Family::Ipv4, "10.68.0.0/16");
    let heard = behind.updates();
    assert!(!behind.was_withdrawn(Family::Ipv4, route), "{heard:?}");
    let fresh = |paths: &[Seen]| paths.iter().any(|path| !path.stale);
    s.wait_route(Family::Ipv4, route, &fresh);
}

/// RFC 8955 and RFC 8956, through our reflector; each flow with the unicast route that validates
/// it (RFC 8955 §6).
pub(crate) fn flowspec(kind: Kind) {
    let lab = Lab::new(&["s", "d", "t"], &[("s", "d"), ("s", "t")]).expect("namespaces");
    let families = [[Family::Ipv4, Family::Flow4], [Family::Ipv6, Family::Flow6]];
    let sessions =
        families.map(|families| (Session::new(1, &families), Session::new(2, &families)));
    let neighbors = sessions.iter().flat_map(|(to_d, to_t)| {
        [
            Neighbor {
                client: true,
                ..to_d.neighbor(1, OURS)
            },
            to_t.client(),
        ]
    });
    let mut s = start(
        Kind::speaker(),
        &lab,
        "s",
        OURS,
        neighbors.collect(),
        Vec::new(),
    );
    let neighbors = sessions.iter().map(|(to_d, _)| to_d.neighbor(2, OURS));
    let mut d = start(kind, &lab, "d", OURS, neighbors.collect(), Vec::new());
    for (to_d, to_t) in &sessions {
        let [unicast, family] = [to_d.families[0], to_d.families[1]];
        s.wait_established(to_d.end(2));
        let t = to_t.dial(&lab, "t", OURS);
        let [wide, narrow] = if to_d.v6 {
            ["2001:db8::/32", "2001:db8:1::/48"]
        } else {
            ["10.66.0.0/16", "10.66.1.0/24"]
        };
        let usual = Attribute::usual(&[]);
        t.say(&wire::announce(
            unicast,
            &wire::prefix(wide),
            Some(to_t.end(2)),
            &usual,
        ));
        let nlri = wire::flow(narrow, 6, 80);
        t.say(&wire::announce(family, &nlri, None, &usual));
        let name = Route::flow(narrow, 6, 80).name();
        d.wait_route(family, &name, &some);
        if Row::Flowspec.originates(kind) {
            let [wide, narrow] = if to_d.v6 {
                ["2001:db9::/32", "2001:db9:1::/48"]
            } else {
                ["10.67.0.0/16", "10.67.1.0/24"]
            };
            d.announce(&Route::unicast(wide).next_hop(to_d.end(2)));
            let flow = Route::flow(narrow, 17, 8080);
            d.announce(&flow);
            let _ = t.wait_announced(family, &flow.name());
            d.withdraw(&flow);
            t.wait_withdrawn(family, &flow.name());
        }
        t.say(&wire::withdraw(family, &nlri));
        d.wait_route(family, &name, &none);
    }
}

/// RFC 4684: the daemon's VRF wants one target and gets one route of two; a talker wants the other.
pub(crate) fn targets(kind: Kind) {
    let lab = Lab::new(&["s", "d", "t"], &[("s", "d"), ("s", "t")]).expect("namespaces");
    let families = [Family::Vpnv4, Family::Rtc];
    let (to_d, to_t) = (Session::new(1, &families), Session::new(2, &families));
    let client = Neighbor {
        client: true,
        ..to_d.neighbor(1, OURS)
    };
    let neighbors = vec![client, to_t.client()];
    let mut s = start(Kind::speaker(), &lab, "s", OURS, neighbors, Vec::new());
    let mut d = start(
        kind,
        &lab,
        "d",
        OURS,
        vec![to_d.neighbor(2, OURS)],
        Vec::new(),
    );
    let vrf = [
        "vrf", "add", "blue", "rd", "65000:5", "rt", "both", "65000:5",
    ];
    lab.node("d").ask("gobgp", vrf).expect("a VRF");
    s.wait_established(to_d.end(2));
    let t = to_t.dial(&lab, "t", OURS);
    let usual = Attribute::usual(&[]);
    // It wants 65000:6 and has a route of each colour.
    let nlri = wire::membership(OURS, "65000:6");
    t.say(&wire::announce(
        Family::Rtc,
        &nlri,
        Some(to_t.end(2)),
        &usual,
    ));
    t.say(&wire::end_of_rib(Family::Rtc));
    let _ = t.wait_announced(Family::Rtc, "65000:65000:5");
    for (target, prefix) in [("65000:7", "10.77.0.0/16"), ("65000:5", "10.75.0.0/16")] {
        let attributes = [usual.clone(), vec![wire::targets(&[target])]].concat();
        let nlri = wire::vpn("65002:1", prefix, 100);
        t.say(&wire::announce(
            Family::Vpnv4,
            &nlri,
            Some(to_t.end(2)),
            &attributes,
        ));
    }
    t.say(&wire::end_of_rib(Family::Vpnv4));
    // The one it wants was said later: the other would have been there before.
    d.wait_route(Family::Vpnv4, "65002:1 10.75.0.0/16", &some);
    d.wait_route(Family::Vpnv4, "65002:1 10.77.0.0/16", &none);
    d.wait_route(Family::Rtc, "65000:65000:6", &some);
    let route =
        |target: &str, prefix| Route::vpn("65001:1", prefix, 200, target).next_hop(to_d.end(2));
    d.announce(&route("65000:8", "10.88.0.0/16"));
    d.announce(&route("65000:6", "10.86.0.0/16"));
    let _ = t.wait_announced(Family::Vpnv4, "65001:1 10.86.0.0/16");
    let other = |update: &interop::Update| {
        update
            .announced
            .iter()
            .any(|(_, name)| name == "65001:1 10.88.0.0/16")
    };
    assert!(!t.updates().iter().any(other), "nobody asked for it");
}
