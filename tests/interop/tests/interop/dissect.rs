//! Wireshark's dissector reads every octet that our speaker says.

use interop::{
    Family, Kind, Lab, Route, pcap, program, require,
    wire::{self, Attribute},
};

use crate::stage::{OURS, Session, start};

/// A session of every family on IPv4 and on IPv6, with a goodbye.
#[test]
fn nothing_we_say_is_malformed() {
    let kind = Kind::speaker();
    let missing = kind
        .version()
        .and_then(|_| Lab::new(&[], &[]).map(drop))
        .err();
    let missing = missing.or_else(|| program("tshark").is_none().then(|| "no tshark".to_owned()));
    if let Some(missing) = missing {
        return require("the dissection", &missing);
    }
    let v4 = match kind {
        Kind::Sealane | Kind::Gobgp => {
            vec![Family::Rtc, Family::Ipv4, Family::Vpnv4, Family::Flow4]
        }
        Kind::Bird | Kind::Frr => vec![Family::Ipv4, Family::Vpnv4, Family::Flow4],
        Kind::Openbgpd => vec![Family::Ipv4],
    };
    let v6: Vec<Family> = match kind {
        Kind::Openbgpd => vec![Family::Ipv6],
        Kind::Sealane | Kind::Gobgp | Kind::Bird | Kind::Frr => {
            vec![Family::Ipv6, Family::Vpnv6, Family::Flow6]
        }
    };
    let lab = Lab::new(&["s", "t1", "t2"], &[("s", "t1"), ("s", "t2")]).expect("namespaces");
    for families in [v4, v6] {
        let (from, to) = (Session::new(1, &families), Session::new(2, &families));
        let mut s = start(
            kind,
            &lab,
            "s",
            OURS,
            vec![from.client(), to.client()],
            Vec::new(),
        );
        let (t1, t2) = (from.dial(&lab, "t1", OURS), to.dial(&lab, "t2", OURS));
        for family in &families {
            let (nlri, name) = sample(*family);
            let hop = (!matches!(family, Family::Flow4 | Family::Flow6)).then(|| from.end(2));
            t1.say(&wire::announce(*family, &nlri, hop, &attributes(*family)));
            if *family == Family::Rtc {
                t2.say(&wire::announce(
                    *family,
                    &nlri,
                    Some(to.end(2)),
                    &Attribute::usual(&[]),
                ));
                t2.say(&wire::end_of_rib(*family));
                continue;
            }
            let _ = t2.wait_announced(*family, &name);
        }
        for family in families.iter().filter(|family| **family != Family::Rtc) {
            let (nlri, name) = sample(*family);
            t1.say(&wire::withdraw(*family, &nlri));
            t2.wait_withdrawn(*family, &name);
        }
        // An unknown message type is answered with a NOTIFICATION.
        let mut unknown = wire::keepalive();
        unknown[18] = 99;
        t2.say(&unknown);
        t2.wait_closed();
        let wrong = pcap::dissect(&lab.node("t2").folder(), &t2.octets()).expect("tshark");
        assert!(wrong.is_empty(), "{}: {wrong:#?}", kind.name());
        s.kill();
    }
}

fn sample(family: Family) -> (Vec<u8>, String) {
    let prefix = if family.is_v6() {
        "2001:db8::/33"
    } else {
        "10.66.0.0/15"
    };
    match family {
        Family::Ipv4 | Family::Ipv6 => (wire::prefix(prefix), prefix.to_owned()),
        Family::Vpnv4 | Family::Vpnv6 => (
            wire::vpn("65000:1", prefix, 100),
            format!("65000:1 {prefix}"),
        ),
        Family::Rtc => (
            wire::membership(OURS, "65000:1"),
            "65000:65000:1".to_owned(),
        ),
        Family::Flow4 | Family::Flow6 => (
            wire::flow(prefix, 6, 8080),
            Route::flow(prefix, 6, 8080).name(),
        ),
    }
}

/// One of everything that Wireshark knows, and one of what it does not.
fn attributes(family: Family) -> Vec<Attribute> {
    let mut all = Attribute::usual(&[]);
    all[1].value = [
        &[2, 2][..],
        &65010_u32.to_be_bytes(),
        &4_200_000_000_u32.to_be_bytes(),
    ]
    .concat();
    all.push(Attribute::new(0x80, 4, 7_u32.to_be_bytes()));
    all.push(Attribute::new(0xc0, 8, [0xfd, 0xe8, 0, 9]));
    if family != Family::Rtc {
        all.push(wire::targets(&["65000:1"]));
    }
    all.push(Attribute::new(
        0xc0,
        32,
        [0, 0, 0xfd, 0xe8, 0, 0, 0, 1, 0, 0, 0, 2],
    ));
    all.push(Attribute::new(0xc0, 244, [0xde, 0xad]));
    all
}
