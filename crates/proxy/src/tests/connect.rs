//! CONNECT, at a listener that is for it alone.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use balance::Health::Healthy;
use bytes::Bytes;
use http::{Method, Request, StatusCode};
use l7::{Layer4, Limits, ListenerProtocol};
use tokio::{io::AsyncWriteExt, time::timeout};

use super::{
    layer4::{LB, carrying_to, connect, echo, expect, records, rest},
    world::{PATIENCE, World, message, plain},
};
use crate::{ListenerSpec, Snapshot};

/// A world that carries what is asked for by name.
async fn asking() -> (World, SocketAddr) {
    asking_by(Limits::default()).await
}

async fn asking_by(limits: Limits) -> (World, SocketAddr) {
    let (world, _) = carrying_to(limits, |_| {}).await;
    let now = world.pop.snapshot();
    let unnamed = now.table.layer4(LB).expect("it is there");
    let named = Layer4 {
        hosts: vec!["*.db.acme.example".into()],
        ..Layer4::clone(unnamed)
    };
    let table = plain(&world.ingress_cell, now.limits);
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(table.with_layer4(vec![Arc::new(named)])),
        ..Snapshot::clone(&now)
    }));
    let bind = "127.0.0.1:0".parse().expect("an address");
    let spec = ListenerSpec {
        bind,
        port: 3128,
        protocol: ListenerProtocol::Connect(LB),
    };
    let bound = world.pop.set_listeners(&[spec]).await;
    let address = *bound[0].as_ref().expect("bound");
    (world, address)
}

#[tokio::test]
async fn published_services_are_reached_by_name() {
    let (world, address) = asking().await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    for name in [
        "cart.shop.acme:80",
        "CART.shop.acme:80",
        "one.db.acme.example:80",
    ] {
        let mut stream = connect(address).await;
        // What follows at once is for the service; the Host of others does not count.
        let ask = format!("CONNECT {name} HTTP/1.1\r\nHost: elsewhere.example\r\n\r\nearly");
        stream.write_all(ask.as_bytes()).await.expect("written");
        expect(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nfirstearly").await;
        stream.write_all(b"more").await.expect("written");
        expect(&mut stream, b"more").await;
        stream.shutdown().await.expect("ended");
        assert_eq!(rest(&mut stream).await, Ok(b"last".to_vec()));
    }
    let record = &records(&world, 3).await[0];
    for (field, value) in [
        ("method", "CONNECT"),
        ("host", "cart.shop.acme:80"),
        ("service", "cart.shop.acme"),
        ("protocol", "http/1.1"),
        ("site", "aws.acme"),
    ] {
        assert_eq!(record[field], value, "{record}");
    }
    assert_eq!(
        (&record["status"], &record["bytes_in"]),
        (&200.into(), &9.into())
    );
    assert!(record.get("error").is_none(), "{record}");
}

#[tokio::test]
async fn nothing_else_is_served() {
    let (world, address) = asking().await;
    for (ask, status) in [
        (
            "CONNECT other.shop.acme:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "403",
        ),
        (
            "CONNECT cart.shop.acme:81 HTTP/1.1\r\nHost: a\r\n\r\n",
            "403",
        ),
        ("CONNECT cart.shop.acme HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        ("CONNECT 127.0.0.1:80 HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        ("CONNECT [::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n", "403"),
        (
            "CONNECT db.acme.example:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "403",
        ),
        // Whose name the Host has is not asked.
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: cart.shop.acme:80\r\n\r\n",
            "403",
        ),
        (
            "GET http://cart.shop.acme:80/ HTTP/1.1\r\nHost: cart.shop.acme:80\r\n\r\n",
            "405",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: cart.shop.acme:80\r\n\r\n",
            "405",
        ),
        (
            "CONNECT cart.shop.acme:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
            "400",
        ),
        // It is published, and nobody is there.
        (
            "CONNECT cart.shop.acme:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "503",
        ),
    ] {
        let mut stream = connect(address).await;
        stream.write_all(ask.as_bytes()).await.expect("written");
        let read = timeout(PATIENCE, message(&mut stream, &mut Vec::new())).await;
        let said = read.expect("in time").unwrap_or_default();
        assert!(
            said.starts_with(&format!("HTTP/1.1 {status} ")),
            "{ask}{said}"
        );
        assert_eq!(
            said.contains("allow: CONNECT\r\n"),
            status == "405",
            "{said}"
        );
    }
    let records = records(&world, 11).await;
    let codes = records.iter().map(|record| record["error"].as_str());
    let refused = codes.filter(|code| *code == Some("not-published"));
    assert_eq!(refused.count(), 7);
    assert_eq!(records[10]["error"], "no-endpoint");
}

#[tokio::test]
async fn what_is_withdrawn_ends_and_is_not_served_again() {
    let (world, address) = asking_by(Limits {
        drain_timeout: Duration::from_millis(50),
        ..Limits::default()
    })
    .await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    let mut stream = connect(address).await;
    let ask = "CONNECT cart.shop.acme:80 HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("written");
    expect(&mut stream, b"HTTP/1.1 200 OK\r\n\r\nfirst").await;
    world.pop.set_listeners(&[]).await;
    let ended = rest(&mut stream).await;
    assert!(ended.is_err() || ended == Ok(Vec::new()), "{ended:?}");
    assert_eq!(records(&world, 1).await[0]["error"], "withdrawn");
}

/// RFC 9113 §8.5.
#[tokio::test]
async fn over_http2() {
    let (world, address) = asking().await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    let tcp = connect(address).await;
    let (client, connection) = h2::client::handshake(tcp).await.expect("h2");
    let tasks = runtime::Tasks::new("client");
    tasks.spawn("connection", async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await.expect("ready");
    let ask = |name: &str| {
        let request = Request::builder().method(Method::CONNECT).uri(name);
        request.body(()).expect("a request")
    };
    // Two at once, on one connection.
    let mut both = Vec::new();
    for _ in 0..2 {
        let asked = client.send_request(ask("cart.shop.acme:80"), false);
        both.push(asked.expect("sent"));
        client = client.ready().await.expect("ready");
    }
    for (response, mut send) in both {
        let response = timeout(PATIENCE, response).await.expect("in time");
        let response = response.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        send.send_data(Bytes::from_static(b"hello"), false)
            .expect("sent");
        send.send_data(Bytes::new(), true).expect("sent");
        let mut body = response.into_body();
        let mut seen = Vec::new();
        while let Some(piece) = timeout(PATIENCE, body.data()).await.expect("in time") {
            seen.extend_from_slice(&piece.expect("a piece"));
        }
        assert_eq!(seen, b"firsthellolast");
    }
    let (response, _send) = client
        .send_request(ask("other.shop.acme:80"), false)
        .expect("sent");
    let response = timeout(PATIENCE, response).await.expect("in time");
    assert_eq!(
        response.expect("a response").status(),
        StatusCode::FORBIDDEN
    );
}
