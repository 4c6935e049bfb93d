use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use runtime::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{line::Line, support::*};
use crate::{
    Config, Link, LinkEvent, MAX_PACKET, Packet, PacketError, Prefer, Transport, Tunnel,
    packets::{AUTHORITY, Outlet, PINGS, UNREAD},
    preface::{self, Introduction, Part, Role},
};

/// What a packet may have over QUIC where all of an Ethernet's 1,500 octets pass, with IPv6.
const FULL: u16 = 1409;

/// A PoP with metrics, and a gateway with a link to it over TLS, or over that and QUIC.
async fn pair(prefer: Prefer) -> (Metrics, Tunnel, Tunnel) {
    let (fabric, metrics) = (Fabric::new(), Metrics::default());
    let (mut par, address) = pop(&metrics, fabric.listening("par.fabric")).await;
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    let config = Config {
        prefer,
        ..fabric.dialling("aws.acme", address)
    };
    aws.control.configure(config).await.expect("configured");
    let wanted = match prefer {
        Prefer::Tls => (Transport::Tls, MAX_PACKET),
        Prefer::Auto | Prefer::Quic => (Transport::Quic, FULL),
    };
    for (tunnel, to) in [(&mut aws, "par.fabric"), (&mut par, "aws.acme")] {
        until(|| carrier(tunnel, to).is_some_and(|link| is(&link, wanted))).await;
    }
    (metrics, par, aws)
}

fn carrier(tunnel: &Tunnel, to: &str) -> Option<Arc<Link>> {
    tunnel.links.table().carrier(&site(to)).cloned()
}

fn is(link: &Link, (transport, mtu): (Transport, u16)) -> bool {
    link.transport == transport && link.mtu() == Some(mtu)
}

async fn packet(tunnel: &mut Tunnel) -> Packet {
    let packet = tokio::time::timeout(BOUND, tunnel.packets.recv()).await;
    packet.expect("in time").expect("the tunnel runs")
}

fn counted_as(metrics: &Metrics, name: &str) -> u64 {
    let text = metrics.render();
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{text}"))
}

#[tokio::test]
async fn packets_go_both_ways_over_either_transport() {
    for (prefer, mtu) in [(Prefer::Quic, FULL), (Prefer::Tls, MAX_PACKET)] {
        let (metrics, mut par, mut aws) = pair(prefer).await;
        let (to_par, to_aws) = (site("par.fabric"), site("aws.acme"));
        for (n, length) in (0_u8..).zip([0, 1, 576, usize::from(mtu)]) {
            let (label, octets) = (u32::MAX - u32::from(n), vec![n; length]);
            aws.links.send(&to_par, label, &octets).expect("sent");
            let came = packet(&mut par).await;
            assert_eq!((came.label, &came.octets[..]), (label, &octets[..]));
            assert_eq!(came.link.peer, identity("aws.acme"));
            par.links.send(&to_aws, label, &octets).expect("sent");
            let came = packet(&mut aws).await;
            assert_eq!((came.label, &came.octets[..]), (label, &octets[..]));
        }
        let large = vec![0; usize::from(mtu) + 1];
        let refused = par.links.send(&to_aws, 7, &large);
        assert_eq!(refused, Err(PacketError::TooLarge { mtu }));
        let nobody = par.links.send(&site("nobody.acme"), 7, b"");
        assert_eq!(nobody, Err(PacketError::NoLink));
        let octets = 577 + u64::from(mtu);
        for (name, count) in [
            ("sent_total", 4),
            ("sent_bytes_total", octets),
            ("received_total", 4),
            ("received_bytes_total", octets),
            ("dropped_total{cause=\"too_large\"}", 1),
            ("dropped_total{cause=\"no_link\"}", 1),
        ] {
            let name = format!("sealane_tunnel_packets_{name}");
            assert_eq!(counted_as(&metrics, &name), count, "{name}");
        }
    }
}

#[tokio::test]
async fn over_tls_they_come_in_order_and_on_one_stream_alone() {
    let (_, mut par, aws) = pair(Prefer::Tls).await;
    let to = site("par.fabric");
    let began = 0..3_000_u32;
    for n in began.clone() {
        let octets = [7; 300];
        while aws.links.send(&to, n, &octets) == Err(PacketError::Full) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if n % 500 == 499 {
            for n in n - 499..=n {
                assert_eq!(packet(&mut par).await.label, n);
            }
        }
    }
    // One that waits for the first to end, and no more.
    let link = carrier(&aws, "par.fabric").expect("a link");
    let head = crate::StreamHead::to(AUTHORITY);
    let open = || crate::links::open_stream(&link, link.opener.clone(), &head);
    let waits = tokio::time::timeout(Duration::from_millis(300), open());
    let (waits, refused) = tokio::join!(waits, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        open().await
    });
    assert!(waits.is_err(), "{waits:?}");
    assert!(
        matches!(refused, Err(crate::OpenError::Refused { .. })),
        "{refused:?}"
    );
    aws.links.send(&to, 9, b"still").expect("sent");
    assert_eq!(packet(&mut par).await.label, 9);
}

#[tokio::test]
async fn what_nobody_reads_is_dropped_and_bounded() {
    for prefer in [Prefer::Quic, Prefer::Tls] {
        let (metrics, mut par, aws) = pair(prefer).await;
        let to = site("par.fabric");
        let unread = "sealane_tunnel_packets_dropped_total{cause=\"unread\"}";
        let mut sent = 0;
        while counted_as(&metrics, unread) == 0 {
            match aws.links.send(&to, sent, &[7; 64]) {
                Ok(()) => sent += 1,
                Err(PacketError::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(par.packets.len(), UNREAD);
        // Those that came first are there; and then others.
        assert_eq!(packet(&mut par).await.label, 0);
        while par.packets.try_recv().is_ok() {}
        aws.links.send(&to, u32::MAX, b"again").expect("sent");
        while packet(&mut par).await.label != u32::MAX {}
        drop(par.packets);
        let unattended = "sealane_tunnel_packets_dropped_total{cause=\"unattended\"}";
        aws.links.send(&to, 1, b"for nobody").expect("sent");
        counted_to(&metrics, unattended, 1).await;
    }
}

/// More than a link carries, from two threads; the link lives, its pings come back in time, and
/// streams get through.
#[tokio::test]
async fn a_flood_holds_up_neither_pings_nor_streams() {
    for prefer in [Prefer::Quic, Prefer::Tls] {
        let (metrics, mut par, mut aws) = pair(prefer).await;
        let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
        let ends = Arc::new(AtomicBool::new(false));
        let floods = [(); 2].map(|()| {
            let (links, ends) = (aws.links.clone(), Arc::clone(&ends));
            std::thread::spawn(move || {
                let (to, octets) = (site("par.fabric"), vec![7; 1_400]);
                let (mut sent, mut full) = (0_u32, 0_u32);
                while !ends.load(Ordering::Relaxed) {
                    match links.send(&to, sent, &octets) {
                        Ok(()) => sent += 1,
                        Err(PacketError::Full) => {
                            full += 1;
                            std::thread::sleep(Duration::from_micros(100));
                        }
                        Err(other) => panic!("{other}"),
                    }
                }
                (sent, full)
            })
        });
        let began = runtime::now();
        let mut slowest = Duration::ZERO;
        while runtime::now().since(began) < Duration::from_secs(3) {
            let before = runtime::now();
            echo(&mut near, &mut far).await;
            slowest = slowest.max(runtime::now().since(before));
            while par.packets.try_recv().is_ok() {}
        }
        let link = carrier(&aws, "par.fabric").expect("a link");
        let quality = link.quality().expect("measured");
        ends.store(true, Ordering::Relaxed);
        let counts = floods.map(|flood| flood.join().expect("no other error"));
        println!("{prefer:?}: {counts:?}, an echo took {slowest:?} at most, pings {quality:?}");
        let [(sent, full), _] = counts;
        assert!(sent > 1_000 && full > 100, "{counts:?}");
        assert!(slowest < Duration::from_secs(1), "{slowest:?}");
        assert!(quality.rtt < Duration::from_millis(500), "{quality:?}");
        stays_up(&mut aws);
        let received = counted_as(&metrics, "sealane_tunnel_packets_received_total");
        assert!(received > 1_000, "{received}");
    }
}

/// A PoP, and a gateway with a link to it over QUIC alone, along a line of so many octets a second.
async fn along(rate: u64) -> (Line, Tunnel, Tunnel) {
    let fabric = Fabric::new();
    let (mut par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let line = Line::to(address, rate).expect("a line");
    let aws = crate::start(&Metrics::default()).expect("a thread");
    let config = Config {
        prefer: Prefer::Quic,
        ..fabric.dialling("aws.acme", line.address)
    };
    aws.control.configure(config).await.expect("configured");
    up(&mut par).await;
    for (tunnel, to) in [(&aws, "par.fabric"), (&par, "aws.acme")] {
        until(|| carrier(tunnel, to).is_some_and(|link| link.mtu() == Some(FULL))).await;
    }
    (line, par, aws)
}

#[tokio::test]
async fn a_line_full_of_packets_leaves_streams_their_part() {
    // 10 Mbit/s.
    let (_line, mut par, mut aws) = along(1_250_000).await;
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    let ends = Arc::new(AtomicBool::new(false));
    let flood = {
        let (links, ends) = (aws.links.clone(), Arc::clone(&ends));
        std::thread::spawn(move || {
            let (to, octets) = (site("par.fabric"), vec![7; 1_100]);
            while !ends.load(Ordering::Relaxed) {
                match links.send(&to, 7, &octets) {
                    Ok(()) => {}
                    Err(PacketError::Full) => std::thread::sleep(Duration::from_millis(1)),
                    Err(other) => panic!("{other}"),
                }
            }
        })
    };
    let link = carrier(&aws, "par.fabric").expect("a link");
    let Some(Outlet::Quic(connection, _)) = &link.outlet else {
        panic!("it goes over QUIC");
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    while par.packets.try_recv().is_ok() {}
    let began = runtime::now();
    let (mut packets, mut octets, mut slowest) = (0, 0, Duration::ZERO);
    let mut least_room = usize::MAX;
    while runtime::now().since(began) < Duration::from_secs(3) {
        let before = runtime::now();
        near.write_all(&[7; 10_000]).await.expect("written");
        far.read_exact(&mut [0; 10_000]).await.expect("read");
        echo(&mut near, &mut far).await;
        octets += 10_000;
        least_room = least_room.min(connection.datagram_send_buffer_space());
        slowest = slowest.max(runtime::now().since(before));
        while par.packets.try_recv().is_ok() {
            packets += 1;
        }
    }
    let quality = link.quality().expect("measured");
    println!("{packets} packets, {octets} octets of a stream, {slowest:?} at most, {quality:?}");
    ends.store(true, Ordering::Relaxed);
    flood.join().expect("no other error");
    assert!(packets > 100, "{packets}");
    // Some hundred octets for pings that wait.
    assert!(least_room > PINGS / 2, "{least_room} octets left for pings");
    assert!(octets >= 20_000, "{octets}");
    assert!(slowest < Duration::from_secs(3), "{slowest:?}");
    assert!(quality.rtt < Duration::from_secs(2), "{quality:?}");
    stays_up(&mut aws);
}

fn stays_up(tunnel: &mut Tunnel) {
    while let Ok(event) = tunnel.events.try_recv() {
        assert!(!matches!(event, LinkEvent::Down { .. }), "{event:?}");
    }
}

/// Sends packets of a size until what the link carries is so, as it says and as its event says.
async fn mtu_becomes(aws: &mut Tunnel, length: usize, wanted: impl Fn(u16) -> bool) -> u16 {
    let told = async {
        loop {
            let sent = aws.links.send(&site("par.fabric"), 7, &vec![7; length]);
            if let Err(PacketError::TooLarge { mtu }) = sent {
                assert!(length > usize::from(mtu), "{length}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            match aws.events.try_recv() {
                Ok(LinkEvent::Mtu { mtu: Some(mtu), .. }) if wanted(mtu) => return mtu,
                Ok(event @ LinkEvent::Down { .. }) => panic!("{event:?}"),
                Ok(_) | Err(_) => {}
            }
        }
    };
    tokio::time::timeout(BOUND, told).await.expect("in time")
}

#[tokio::test]
async fn what_a_link_carries_follows_its_path() {
    let (line, mut par, mut aws) = along(12_500_000).await;
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    mtu_becomes(&mut aws, 0, |mtu| mtu == FULL).await;
    // As if a path took 1,350 octets of IPv6.
    line.takes(1_302);
    let full = usize::from(FULL);
    let less = mtu_becomes(&mut aws, full, |mtu| mtu < FULL).await;
    assert!((1_157..=1_302 - 43).contains(&less), "{less}");
    // And then as much as there is, to eight octets.
    let link = carrier(&aws, "par.fabric").expect("a link");
    until(|| link.mtu().is_some_and(|mtu| mtu > 1_302 - 43 - 12)).await;
    let most = link.mtu().expect("it carries packets");
    assert!(most <= 1_302 - 43, "{most}");
    while par.packets.try_recv().is_ok() {}
    let octets = vec![1; usize::from(most)];
    aws.links
        .send(&site("par.fabric"), 8, &octets)
        .expect("sent");
    while packet(&mut par).await.label != 8 {}
    echo(&mut near, &mut far).await;
}

/// A connection of QUIC that says what it likes, to a PoP.
async fn foreign(packets: bool) -> (Tunnel, quinn::Connection, impl Sized) {
    let fabric = Fabric::new();
    let (par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let credentials = fabric.credentials(&identity("aws.acme"), runtime::wall());
    let configs = crate::quic::Configs::new(&credentials, &[root(&fabric)]);
    let tasks = runtime::Tasks::new("test");
    let connecting = configs.expect("configured");
    let connection = connecting.connect(&tasks, address, None).await;
    let connection = connection.expect("connected");
    let (send, recv) = connection.open_bi().await.expect("a stream");
    let mut first = tokio::io::join(recv, send);
    let part = Part {
        link: 7,
        role: Role::Quic,
        trunk: 0,
        uplink: (0, 0),
        first: false,
        dialler: Introduction {
            packets,
            ..Introduction::default()
        },
    };
    let answered = preface::propose(&mut first, part).await.expect("answered");
    assert!(answered.acceptor.packets);
    first.flush().await.expect("sent");
    let _ = carrier(&par, "aws.acme");
    (par, connection, (tasks, first))
}

#[tokio::test]
async fn a_node_that_does_not_speak_of_packets_gets_none() {
    let (mut par, connection, _held) = foreign(false).await;
    up(&mut par).await;
    let to = site("aws.acme");
    until(|| par.links.table().reaches(&to)).await;
    let sent = par.links.send(&to, 7, b"packet");
    assert_eq!(sent, Err(PacketError::NoPackets));
    assert_eq!(carrier(&par, "aws.acme").map(|link| link.id), None);
    // What it hears are pings, as they always were.
    let heard = connection.read_datagram().await.expect("a ping");
    assert_eq!((heard.first(), heard.len()), (Some(&0), 12));
}

#[tokio::test]
async fn foreign_datagrams_are_passed_over() {
    let (mut par, connection, _held) = foreign(true).await;
    up(&mut par).await;
    let largest = connection.max_datagram_size().expect("datagrams");
    for datagram in [
        &[][..],
        &[2],
        &[2, 0, 0, 0],
        &[0],
        &[1; 11],
        &[3; 5],
        &vec![255; largest],
        &vec![0; largest],
        &[2, 0, 0, 0, 9, 1, 2],
    ] {
        let datagram = bytes::Bytes::copy_from_slice(datagram);
        connection.send_datagram(datagram).expect("sent");
    }
    let came = packet(&mut par).await;
    assert_eq!((came.label, &came.octets[..]), (9, &[1, 2][..]));
    assert!(came.link.is_up() && connection.close_reason().is_none());
}
