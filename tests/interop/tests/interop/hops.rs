//! Next hops, and a kernel that has a way to them or not.

use std::net::{IpAddr, Ipv4Addr};

use interop::{Family, Kind, Lab, Setup, require, wire};

use crate::stage::{OURS, Session, announcement, id};

#[test]
fn routes_come_and_go_with_the_way_to_their_next_hop() {
    let lab = match Lab::new(&["s", "t1", "t2"], &[("s", "t1"), ("s", "t2")]) {
        Ok(lab) => lab,
        Err(missing) => return require("next hops", &missing),
    };
    let [to_t1, to_t2] = [1, 2].map(|link| Session::new(link, &[Family::Ipv4]));
    let setup = Setup {
        asn: OURS,
        id: id(1),
        neighbors: vec![to_t1.talker(65002), to_t2.talker(65003)],
        routes: Vec::new(),
        tracks_next_hops: true,
    };
    let mut s = Kind::Sealane.on(lab.node("s"), setup);
    s.launch(false);
    let t1 = to_t1.dial(&lab, "t1", 65002);
    let t2 = to_t2.dial(&lab, "t2", 65003);
    let (near, far) = ("10.65.0.0/16", "10.66.0.0/16");
    // One by the neighbour itself, one by a router that it knows.
    let hop: IpAddr = Ipv4Addr::new(192, 0, 2, 77).into();
    let attributes = wire::Attribute::usual(&[65002]);
    let prefix = wire::prefix(far);
    t1.say(&wire::announce(
        Family::Ipv4,
        &prefix,
        Some(hop),
        &attributes,
    ));
    t1.say(&announcement(&to_t1, 65002, near));
    let _ = t2.wait_announced(Family::Ipv4, near);
    let of = |(_, route): &(Family, String)| route == far;
    let known = t2
        .updates()
        .iter()
        .any(|update| update.announced.iter().any(of));
    assert!(!known, "{:?}", t2.updates());
    let kept = |paths: &[interop::Seen]| !paths.is_empty();
    s.wait_route(Family::Ipv4, far, &kept);

    let via = to_t1.end(2).to_string();
    let way = ["192.0.2.0/24", "via", &via];
    let node = lab.node("s");
    node.ask("ip", [&["route", "add"][..], &way].concat())
        .expect("ours");
    let _ = t2.wait_announced(Family::Ipv4, far);
    node.ask("ip", [&["route", "del"][..], &way].concat())
        .expect("ours");
    t2.wait_withdrawn(Family::Ipv4, far);
    assert!(!t2.was_withdrawn(Family::Ipv4, near), "{:?}", t2.updates());
}
