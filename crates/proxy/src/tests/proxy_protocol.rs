//! Whose connections are, told from outside and told on.

use std::{net::SocketAddr, sync::Arc};

use balance::Health::Healthy;
use l7::{Action, Addresses, Backend, Expected, Limits, ProxyHeader, ProxyVersion, Senders};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    layer4::{carrying_to, connect, rest, stand_here},
    world::{Manner, PATIENCE, Spot, World, egress_of, made, message},
};
use crate::Snapshot;

const ASK: &str = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
const LINE: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4000 80\r\n";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

/// A world that believes the local machine.
async fn believing(expected: Expected) -> (World, Spot) {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut senders = Senders::default();
    senders.trust("127.0.0.0/8", expected).expect("a prefix");
    let now = world.pop.snapshot();
    world.pop.store(Arc::new(Snapshot {
        senders: Arc::new(senders),
        ..Snapshot::clone(&now)
    }));
    (world, spot)
}

async fn answer<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
    let read = timeout(PATIENCE, message(stream, &mut Vec::new())).await;
    read.expect("in time").unwrap_or_default().to_lowercase()
}

#[tokio::test]
async fn the_word_of_a_trusted_sender_is_taken() {
    let mut binary = Vec::new();
    let client = Addresses {
        source: address("[2001:db8::9]:4000"),
        destination: address("[2001:db8::1]:80"),
    };
    ProxyVersion::V2.write(Some(&client), &mut binary);
    let mut own = Vec::new();
    ProxyVersion::V2.write(None, &mut own);
    for expected in [Expected::Header, Expected::Maybe] {
        let (world, spot) = believing(expected).await;
        for (header, from) in [
            (LINE.as_bytes(), "203.0.113.9"),
            (&binary, "2001:db8::9"),
            (&own, "127.0.0.1"),
        ] {
            let mut stream = connect(world.http).await;
            // In one piece, and the header apart.
            let whole = [header, ASK.as_bytes()].concat();
            stream.write_all(&whole).await.expect("written");
            let said = answer(&mut stream).await;
            let line = format!("x-forwarded-for: {from}\r\n");
            assert!(said.contains(&line), "{said}");
            let mut stream = connect(world.http).await;
            for octet in header {
                stream.write_all(&[*octet]).await.expect("written");
            }
            stream.write_all(ASK.as_bytes()).await.expect("written");
            assert!(answer(&mut stream).await.contains(&line));
            // Before TLS, too.
            let mut tcp = connect(world.https).await;
            tcp.write_all(header).await.expect("written");
            let root = std::slice::from_ref(&world.root);
            let config = runtime::tls::client(root, &[b"http/1.1"]).expect("a client");
            let name = "cart.acme.example".try_into().expect("a name");
            let tls = TlsConnector::from(config).connect(name, tcp);
            let mut stream = timeout(PATIENCE, tls).await.expect("in time").expect("TLS");
            stream.write_all(ASK.as_bytes()).await.expect("written");
            stream.flush().await.expect("written");
            assert!(answer(&mut stream).await.contains(&line));
        }
        // Without one.
        let before = spot.served();
        let mut stream = connect(world.http).await;
        stream.write_all(ASK.as_bytes()).await.expect("written");
        match expected {
            Expected::Header => {
                let ended = rest(&mut stream).await;
                assert!(ended.is_err() || ended == Ok(Vec::new()));
                assert_eq!(spot.served(), before);
            }
            Expected::Maybe => {
                let said = answer(&mut stream).await;
                assert!(said.contains("x-forwarded-for: 127.0.0.1\r\n"), "{said}");
            }
        }
        // A header that is broken is no header of anybody.
        let mut stream = connect(world.http).await;
        let broken = LINE.replace("TCP4", "TCP5") + ASK;
        stream.write_all(broken.as_bytes()).await.expect("written");
        let ended = rest(&mut stream).await;
        assert!(ended.is_err() || ended == Ok(Vec::new()));
    }
}

#[tokio::test]
async fn the_word_of_others_is_not() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let said = world.raw(&format!("{LINE}{ASK}")).await;
    assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
    assert_eq!(spot.served(), 0);
}

/// The header that an endpoint gets, and the first octets behind it.
async fn told(listener: &TcpListener) -> (ProxyHeader, Vec<u8>) {
    let (mut stream, _) = listener.accept().await.expect("accepted");
    let mut seen = Vec::new();
    loop {
        if let Ok(Some(header)) = ProxyHeader::read(&seen)
            && seen.len() > header.length
        {
            let behind = seen.split_off(header.length);
            return (header, behind);
        }
        let read = timeout(PATIENCE, stream.read_buf(&mut seen)).await;
        assert!(read.expect("in time").expect("read") > 0);
    }
}

#[tokio::test]
async fn endpoints_are_told_whose_a_connection_is() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let change = |cluster: &mut l7::Cluster| cluster.proxy = Some(version);
        let (world, listen) = carrying_to(Limits::default(), change).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = listener.local_addr().expect("an address");
        for far in [true, false] {
            if far {
                world.endpoints(&[(endpoint, Healthy)]);
            } else {
                stand_here(&world.ingress_cell, &[endpoint]);
            }
            let mut client = TcpStream::connect(listen).await.expect("connected");
            client.write_all(b"me").await.expect("written");
            let (header, behind) = told(&listener).await;
            let expect = Addresses {
                source: client.local_addr().expect("an address"),
                destination: listen,
            };
            assert_eq!(header.addresses, Some(expect), "{version:?} {far}");
            assert_eq!(behind, b"me");
        }
    }
}

#[tokio::test]
async fn connections_with_http_are_one_clients_alone() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let told = |cell| {
        let mut cluster = made(cell, l7::Protocol::Http1);
        cluster.proxy = Some(ProxyVersion::V1);
        Arc::new(cluster)
    };
    let backend = Backend {
        cluster: told(&world.ingress_cell),
        weight: 1,
    };
    world.route(|route| route.action = Action::Forward(vec![backend]));
    let now = world.gateway.snapshot();
    world.gateway.store(Arc::new(Snapshot {
        egress: Arc::new(egress_of(told(&world.egress_cell))),
        ..Snapshot::clone(&now)
    }));
    let mut streams = [connect(world.http).await, connect(world.http).await];
    for _ in 0..2 {
        for stream in &mut streams {
            let from = stream.local_addr().expect("an address");
            stream.write_all(ASK.as_bytes()).await.expect("written");
            let said = answer(stream).await;
            let line = format!(
                "proxy tcp4 127.0.0.1 127.0.0.1 {} {}\r\n",
                from.port(),
                world.http.port()
            );
            assert!(said.contains(&line), "{said}");
        }
    }
}
