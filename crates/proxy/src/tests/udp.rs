//! Datagrams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use balance::Health::Healthy;
use base::LbId;
use l7::{Limits, ListenerProtocol, Protocol};
use tokio::{net::UdpSocket, time::timeout};

use super::{
    layer4::{layer4, records, stand_here},
    world::{PATIENCE, Spot, World, cluster, egress, plain},
};
use crate::{ListenerSpec, Snapshot};

const LB: LbId = LbId(5);

/// A world that carries datagrams, and where.
async fn carrying(limits: Limits) -> (World, SocketAddr) {
    let world = World::as_peer("par.fabric", limits).await;
    let now = world.pop.snapshot();
    let whose = layer4(cluster(&world.ingress_cell, Protocol::Udp), limits);
    let table = plain(&world.ingress_cell, limits).with_layer4(vec![whose]);
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(table),
        ..Snapshot::clone(&now)
    }));
    let now = world.gateway.snapshot();
    world.gateway.store(Arc::new(Snapshot {
        egress: Arc::new(egress(&world.egress_cell, Protocol::Udp)),
        ..Snapshot::clone(&now)
    }));
    let bind = "127.0.0.1:0".parse().expect("an address");
    let spec = ListenerSpec {
        bind,
        port: 53,
        protocol: ListenerProtocol::Udp(LB),
    };
    let bound = world.pop.set_listeners(&[spec]).await;
    let address = *bound[0].as_ref().expect("bound");
    (world, address)
}

/// Answers each datagram with who sent it and what was in it.
async fn echo() -> (SocketAddr, runtime::Tasks) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    let address = socket.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("echo");
    tasks.spawn("echo", async move {
        let mut room = vec![0; 70_000];
        while let Ok((count, from)) = socket.recv_from(&mut room).await {
            let said = [from.to_string().as_bytes(), b" ", &room[..count]].concat();
            let _ = socket.send_to(&said, from).await;
        }
    });
    (address, tasks)
}

/// A client whose answers come from where it has sent to, and from nowhere else.
async fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a port");
    socket.connect(to).await.expect("connected");
    socket
}

/// The sender that the endpoint saw, and what it got.
async fn ask(client: &UdpSocket, datagram: &[u8]) -> (String, Vec<u8>) {
    client.send(datagram).await.expect("sent");
    let mut room = vec![0; 70_000];
    let count = timeout(PATIENCE, client.recv(&mut room)).await;
    let said = &room[..count.expect("in time").expect("an answer")];
    let at = said
        .iter()
        .position(|octet| *octet == b' ')
        .expect("a sender");
    let from = String::from_utf8_lossy(&said[..at]).into_owned();
    (from, said[at + 1..].to_vec())
}

#[tokio::test]
async fn each_client_has_a_flow_of_its_own() {
    let limits = Limits {
        flow_idle_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let (world, address) = carrying(limits).await;
    let (endpoint, _tasks) = echo().await;
    for far in [true, false] {
        if far {
            world.endpoints(&[(endpoint, Healthy)]);
        } else {
            stand_here(&world.ingress_cell, &[endpoint]);
        }
        let (one, two) = (client(address).await, client(address).await);
        let (from_one, said) = ask(&one, b"hello").await;
        assert_eq!(said, b"hello");
        let (from_two, _) = ask(&two, b"").await;
        assert_ne!(from_one, from_two);
        // Whatever its size, and in the same flow.
        for size in [0, 1, 1500, 65_000] {
            let datagram = vec![7; size];
            let (from, said) = ask(&one, &datagram).await;
            assert_eq!((from, said.len()), (from_one.clone(), size));
        }
    }
    let records = records(&world, 4).await;
    let site = |record: &serde_json::Value| record["site"].as_str().map(str::to_owned);
    let far = records
        .iter()
        .filter(|r| site(r).as_deref() == Some("aws.acme"));
    assert_eq!(far.count(), 2);
    for record in &records {
        assert_eq!(record["protocol"], "udp");
        assert_eq!(record["service"], "cart.shop.acme");
        assert!(record.get("error").is_none(), "{record}");
    }
    let most = records.iter().filter(|record| record["bytes_in"] == 66_506);
    assert_eq!(most.count(), 2);
}

#[tokio::test]
async fn flows_have_a_limit_and_an_end() {
    let limits = Limits {
        lb_connections: 1,
        flow_idle_timeout: Duration::from_secs(1),
        ..Limits::default()
    };
    let (world, address) = carrying(limits).await;
    let (endpoint, _tasks) = echo().await;
    stand_here(&world.ingress_cell, &[endpoint]);
    let (one, two) = (client(address).await, client(address).await);
    ask(&one, b"1").await;
    two.send(b"2").await.expect("sent");
    let nothing = timeout(Duration::from_millis(200), two.recv(&mut [0; 64])).await;
    assert!(nothing.is_err(), "no place for a second flow");
    // The first ends by itself; then there is a place.
    records(&world, 1).await;
    let asked = async {
        loop {
            two.send(b"3").await.expect("sent");
            let answer = timeout(Duration::from_millis(100), two.recv(&mut [0; 64])).await;
            if answer.is_ok() {
                return;
            }
        }
    };
    timeout(PATIENCE, asked).await.expect("in time");
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_ends_a_flow() {
    let (world, address) = carrying(Limits::default()).await;
    let nobody = Spot::nobody().await;
    stand_here(&world.ingress_cell, &[nobody]);
    let one = client(address).await;
    let sent = async {
        // The system tells with the datagram after.
        loop {
            one.send(b"1").await.expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = sent => {}
        records = records(&world, 1) => assert_eq!(records[0]["error"], "reset"),
    }
    world.endpoints(&[]);
    client(address).await.send(b"1").await.expect("sent");
    let found = async {
        loop {
            let all = records(&world, 2).await;
            if all.iter().any(|record| record["error"] == "no-endpoint") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, found).await.expect("in time");
}

#[tokio::test]
async fn flows_end_when_they_are_withdrawn() {
    let (world, address) = carrying(Limits {
        flow_idle_timeout: Duration::from_secs(3600),
        drain_timeout: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    ask(&client(address).await, b"1").await;
    world.pop.set_listeners(&[]).await;
    let records = records(&world, 1).await;
    assert!(records[0].get("error").is_none(), "{}", records[0]);
}

#[tokio::test]
async fn a_drain_does_not_wait_for_flows() {
    let (world, address) = carrying(Limits::default()).await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    ask(&client(address).await, b"1").await;
    // Idle flows would last for 30 s.
    timeout(PATIENCE, world.pop.drain(PATIENCE))
        .await
        .expect("in time");
}
