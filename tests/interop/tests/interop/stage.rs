//! Who stands where: our speaker `s`, a daemon `d` and talkers.

use std::net::{IpAddr, Ipv4Addr};

use interop::{
    Daemon, Family, Kind, Lab, Link, Neighbor, Route, Setup, Talker,
    wire::{self, Open},
};

/// Our AS in every row.
pub(crate) const OURS: u32 = 65000;

/// One session of a stage: a link, who has which end, and what is spoken.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) link: Link,
    pub(crate) v6: bool,
    pub(crate) families: Vec<Family>,
}

impl Session {
    /// Over the n-th link; by IPv6 if the families are IPv6's.
    pub(crate) fn new(number: u8, families: &[Family]) -> Self {
        let v6 = families.iter().all(|family| family.is_v6());
        Session {
            link: Link::nth(number),
            v6,
            families: families.to_vec(),
        }
    }

    /// The address of an end, 1 or 2.
    pub(crate) fn end(&self, end: u8) -> IpAddr {
        if self.v6 {
            self.link.v6(end)
        } else {
            self.link.v4(end)
        }
    }

    /// As the neighbour that the given end configures.
    pub(crate) fn neighbor(&self, own: u8, asn: u32) -> Neighbor {
        Neighbor {
            local: self.end(own),
            address: self.end(3 - own),
            asn,
            families: self.families.clone(),
            client: false,
            passive: false,
            password: None,
            add_path: false,
            graceful: false,
            bfd: false,
        }
    }

    /// As the neighbour of end 1, which a talker at end 2 dials.
    pub(crate) fn talker(&self, asn: u32) -> Neighbor {
        Neighbor {
            passive: true,
            ..self.neighbor(1, asn)
        }
    }

    /// The same for a client of our reflector.
    pub(crate) fn client(&self) -> Neighbor {
        Neighbor {
            client: true,
            ..self.talker(OURS)
        }
    }

    /// A talker at end 2, once end 1 has taken it.
    pub(crate) fn dial(&self, lab: &Lab, node: &str, asn: u32) -> Talker {
        Talker::connect(lab.node(node), self.end(1), self.open(asn))
    }

    fn open(&self, asn: u32) -> Open {
        let IpAddr::V4(id) = self.link.v4(2) else {
            unreachable!("asked for IPv4")
        };
        Open {
            asn,
            id,
            families: self.families.clone(),
        }
    }
}

/// The identifier of the speaker and of the daemon.
pub(crate) fn id(host: u8) -> IpAddr {
    Ipv4Addr::new(10, 255, 0, host).into()
}

/// A daemon in a node, running.
pub(crate) fn start(
    kind: Kind,
    lab: &Lab,
    node: &str,
    asn: u32,
    neighbors: Vec<Neighbor>,
    routes: Vec<Route>,
) -> Box<dyn Daemon> {
    let host = if node == "s" { 1 } else { 2 };
    let setup = Setup {
        asn,
        id: id(host),
        neighbors,
        routes,
        tracks_next_hops: false,
    };
    let mut daemon = kind.on(lab.node(node), setup);
    daemon.launch(false);
    daemon
}

/// The octets that announce a prefix from a talker in this AS.
pub(crate) fn announcement(session: &Session, asn: u32, prefix: &str) -> Vec<u8> {
    let attributes = wire::Attribute::usual(&[asn]);
    let family = Route::unicast(prefix).family;
    wire::announce(
        family,
        &wire::prefix(prefix),
        Some(session.end(2)),
        &attributes,
    )
}
