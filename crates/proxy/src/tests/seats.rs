//! Places of connections, and tenants that share them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use base::{LbId, TenantId};
use l7::{Limits, ListenerProtocol, Offered, Table, VirtualHost};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    http2,
    layer4::{LB, connect, echo, expect, layer4, refused, stand_here},
    world::{PATIENCE, TENANT, World, made, message},
};
use crate::{ListenerSpec, Snapshot};

pub(super) const ACME: &str = "cart.acme.example";
pub(super) const BLUE: &str = "cart.blue.example";

/// A worker with sixteen places, and hosts of two tenants that answer 404 to everything.
pub(super) async fn sixteen() -> World {
    let limits = Limits {
        connections: 16,
        ..Limits::default()
    };
    let world = World::as_peer("par.fabric", limits).await;
    let offer = |port, lb, name: &str, tenant| {
        let name = name.to_owned();
        let hosts = vec![format!("cart.{name}.example")];
        let mut host = VirtualHost::build(LbId(lb), name.clone(), tenant, name, limits, Vec::new());
        host.http3 = true;
        Offered {
            port,
            tls: port == 443,
            hosts,
            host: Arc::new(host),
        }
    };
    let table = Table::build(vec![
        offer(80, 3, "acme", TENANT),
        offer(443, 3, "acme", TENANT),
        offer(80, 4, "blue", TenantId(8)),
    ])
    .expect("no conflict");
    let unread = layer4(
        Arc::new(made(&world.ingress_cell, l7::Protocol::Tcp)),
        limits,
    );
    let now = world.pop.snapshot();
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(table.with_layer4(vec![unread])),
        ..Snapshot::clone(&now)
    }));
    world
}

/// A connection on which one request was answered: its answer's head in full.
async fn visit(to: SocketAddr, host: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(to).await.expect("connected");
    let said = ask(&mut stream, host).await;
    (stream, said)
}

pub(super) async fn ask(stream: &mut TcpStream, host: &str) -> String {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("written");
    let answer = timeout(PATIENCE, message(stream, &mut Vec::new())).await;
    answer.expect("in time").expect("an answer")
}

pub(super) async fn guests(world: &World, host: &str, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        let (stream, said) = visit(world.http, host).await;
        assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
        all.push(stream);
    }
    all
}

async fn ended(stream: &mut TcpStream) {
    let read = timeout(PATIENCE, stream.read(&mut [0; 1])).await;
    assert_eq!(read.expect("in time").expect("in order"), 0);
}

#[tokio::test]
async fn idle_connections_of_who_has_too_many_go_and_no_more_come() {
    let world = sixteen().await;
    // Alone a tenant may have more than half.
    let mut acme = guests(&world, ACME, 10).await;
    let mut blue = guests(&world, BLUE, 1).await;
    // Now each may have eight, and two too many are there.
    for stream in &mut acme[..2] {
        ended(stream).await;
    }
    for stream in &mut acme[2..] {
        assert!(ask(stream, ACME).await.starts_with("HTTP/1.1 404 "));
    }
    let (mut more, said) = visit(world.http, ACME).await;
    assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
    assert!(said.contains("connection: close\r\n"), "{said}");
    ended(&mut more).await;
    blue.extend(guests(&world, BLUE, 2).await);
    for stream in &mut blue {
        assert!(ask(stream, BLUE).await.starts_with("HTTP/1.1 404 "));
    }
    let counted = [
        r#"proxy_connections_shed_total{tenant="acme",how="ended"} 2"#,
        r#"proxy_connections_shed_total{tenant="acme",how="refused"} 1"#,
    ];
    let added_up = async {
        while !counted
            .iter()
            .all(|line| world.metrics.render().contains(line))
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, added_up).await.expect("counted");
}

#[tokio::test]
async fn over_http2_they_are_asked_to_go_and_no_more_come() {
    let world = sixteen().await;
    let ask = async || {
        let (mut client, connection) = http2::client(&world).await;
        let (response, _) = client.send_request(http2::post("/"), true).expect("sent");
        let response = timeout(PATIENCE, response).await.expect("in time");
        (response.expect("an answer").status(), client, connection)
    };
    let gone = async |connection: &runtime::Tasks| {
        let gone = async {
            while connection.live() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, gone).await.expect("in time");
    };
    let (status, _client, connection) = ask().await;
    assert_eq!(status, 404);
    let _acme = guests(&world, ACME, 8).await;
    let _blue = guests(&world, BLUE, 1).await;
    gone(&connection).await;
    let (status, _client, connection) = ask().await;
    assert_eq!(status, 503);
    gone(&connection).await;
}

#[tokio::test]
async fn connections_that_nobody_reads_count_as_well() {
    let world = sixteen().await;
    let spec = |bind: &str, port, protocol| ListenerSpec {
        bind: bind.parse().expect("an address"),
        port,
        protocol,
    };
    let listeners = [
        spec("127.0.0.1:0", 80, ListenerProtocol::Http),
        spec("127.0.0.3:0", 5432, ListenerProtocol::Tcp(LB)),
    ];
    let bound = world.pop.set_listeners(&listeners).await;
    let unread = *bound[1].as_ref().expect("bound");
    let (endpoint, _tasks) = echo().await;
    stand_here(&world.ingress_cell, &[endpoint]);
    let _blue = guests(&world, BLUE, 1).await;
    let mut acme = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(unread).await;
        expect(&mut stream, b"first").await;
        acme.push(stream);
    }
    assert!(refused(unread).await);
    // They are never idle.
    for stream in &mut acme {
        stream.write_all(b"still").await.expect("written");
        expect(stream, b"still").await;
    }
}
