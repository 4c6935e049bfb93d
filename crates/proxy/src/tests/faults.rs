//! What clients do not see when something fails.

use balance::Health::{Healthy, Unhealthy};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::world::{GATEWAY, Manner, PATIENCE, SERVICE, Spot, TENANT, World, key};
use crate::{FailureKind, ProxyEvent};

#[tokio::test]
async fn a_refused_connection_is_retried_for_every_method() {
    let mut world = World::new().await;
    let spot = Spot::new("two", Manner::Echo).await;
    let nobody = Spot::nobody().await;
    world.endpoints(&[(nobody, Healthy), (spot.address, Healthy)]);
    assert!(world.ask("GET").await.contains("two\nGET"));
    let post = world
        .raw("POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    assert!(
        post.contains("two\nPOST") && post.ends_with("hello"),
        "{post}"
    );
    assert_eq!(
        world.event().await,
        ProxyEvent::EndpointFailed {
            tenant: TENANT,
            service: SERVICE,
            key: key(GATEWAY, nobody),
            kind: FailureKind::Refused,
        }
    );
}

#[tokio::test]
async fn a_broken_connection_is_retried_for_safe_methods_only() {
    let world = World::new().await;
    let bad = Spot::new("one", Manner::Drop).await;
    let good = Spot::new("two", Manner::Echo).await;
    world.endpoints(&[(bad.address, Healthy), (good.address, Healthy)]);
    assert!(world.ask("GET").await.contains("two\nGET"));
    let post = world.ask("POST").await;
    assert!(post.starts_with("HTTP/1.1 502 "), "{post}");
    assert!(!post.contains("sealane-"), "{post}");
    assert_eq!((bad.served(), good.served()), (2, 1));
}

#[tokio::test]
async fn news_of_a_dead_endpoint_moves_waiting_requests() {
    let world = World::new().await;
    let mut silent = Spot::new("one", Manner::Hang).await;
    let good = Spot::new("two", Manner::Echo).await;
    world.endpoints(&[(silent.address, Healthy), (good.address, Healthy)]);
    let asking = world.ask("GET");
    let telling = async {
        silent.arrived.recv().await.expect("arrived");
        // News without a reason change nothing.
        let dead = key(GATEWAY, silent.address);
        world.pop.endpoint_down(TENANT, SERVICE, dead);
        world.endpoints(&[(silent.address, Unhealthy), (good.address, Healthy)]);
        world.pop.endpoint_down(TENANT, SERVICE, dead);
    };
    let (response, ()) = tokio::join!(asking, telling);
    assert!(response.contains("two\nGET"), "{response}");
}

#[tokio::test]
async fn without_another_endpoint_the_fault_is_told() {
    let world = World::new().await;
    let nobody = Spot::nobody().await;
    world.endpoints(&[(nobody, Healthy)]);
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    let nonsense = Spot::new("one", Manner::Raw("SSH-2.0\r\n\r\n", true)).await;
    world.endpoints(&[(nonsense.address, Healthy)]);
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 502 "));
    // The story is in the log.
    world.pop.drain(PATIENCE).await;
    let path = world.log.path().join("access.log");
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    while lines().lines().count() < 2 {
        tokio::task::yield_now().await;
    }
    let text = lines();
    let first: serde_json::Value =
        serde_json::from_str(text.lines().next().expect("a line")).expect("JSON");
    for (field, value) in [
        ("tenant", "acme"),
        ("lb", "shop/web"),
        ("route", "all"),
        ("service", "cart.shop.acme"),
        ("site", "aws.acme"),
        ("error", "refused"),
        ("fault", "upstream"),
    ] {
        assert_eq!(first[field], value, "{first}");
    }
    assert_eq!(
        (&first["status"], &first["tries"]),
        (&502.into(), &3.into())
    );
}

#[tokio::test]
async fn bad_answers_in_a_row_are_told() {
    let mut world = World::new().await;
    let raw = "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";
    let bad = Spot::new("one", Manner::Raw(raw, false)).await;
    world.endpoints(&[(bad.address, Healthy)]);
    world.service(|service| service.outlier = Some(3));
    for _ in 0..3 {
        assert!(world.ask("GET").await.starts_with("HTTP/1.1 500 "));
    }
    let outlier = ProxyEvent::EndpointOutlier {
        tenant: TENANT,
        service: SERVICE,
        key: key(GATEWAY, bad.address),
    };
    let told = timeout(PATIENCE, world.pop_events.recv()).await;
    assert_eq!(told, Ok(Some(outlier)));
    // Until somebody listens, each three more say it again; a good answer begins anew.
    let set = world.ingress_cell.load_full();
    assert_eq!(set.endpoints()[0].stats.judged(true), 0);
    world.ask("GET").await;
    assert_eq!(set.endpoints()[0].stats.judged(false), 2);
}

#[tokio::test]
async fn what_is_over_the_circuit_is_refused_at_once() {
    let world = World::new().await;
    let mut silent = Spot::new("one", Manner::Hang).await;
    world.endpoints(&[(silent.address, Healthy)]);
    world.service(|service| service.circuit.requests = Some(1));
    let head = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    let mut first = TcpStream::connect(world.http).await.expect("connected");
    first.write_all(head.as_bytes()).await.expect("written");
    silent.arrived.recv().await.expect("arrived");
    let refused = world.ask("GET").await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("as many requests as it may"), "{refused}");
    // No connection at all.
    world.service(|service| service.circuit.connections = Some(1));
    let refused = world.ask("GET").await;
    assert!(refused.contains("as many requests as it may"), "{refused}");
    drop(first);
    let set = world.ingress_cell.load_full();
    let leaving = async {
        while set.endpoints()[0].stats.connections() > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(
        timeout(PATIENCE, leaving).await.is_ok(),
        "it is counted down"
    );
}

#[tokio::test]
async fn a_closed_idle_connection_is_suspect_and_replaced() {
    let mut world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    let other = Spot::new("two", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy), (other.address, Healthy)]);
    assert!(world.ask("GET").await.contains("one\nGET"));
    spot.kill().await;
    assert_eq!(
        world.event().await,
        ProxyEvent::EndpointSuspect {
            tenant: TENANT,
            service: SERVICE,
            key: key(GATEWAY, spot.address),
        }
    );
    assert!(world.ask("GET").await.contains("two\nGET"));
}

#[tokio::test]
async fn a_truncated_response_is_seen_as_such() {
    let world = World::new().await;
    let raw = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf";
    let spot = Spot::new("one", Manner::Raw(raw, true)).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    let request = b"GET / HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n";
    stream.write_all(request).await.expect("written");
    let mut all = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut all))
        .await
        .expect("in time");
    let text = String::from_utf8_lossy(&all);
    assert!(ended.is_err() || text.ends_with("half"), "{text}");
    assert!(text.contains("content-length: 10\r\n"), "{text}");
}

#[tokio::test]
async fn a_client_that_leaves_frees_the_endpoint() {
    let world = World::new().await;
    let mut silent = Spot::new("one", Manner::Hang).await;
    world.endpoints(&[(silent.address, Healthy)]);
    let set = world.egress_cell.load_full();
    let stats = set.endpoints()[0].stats.clone();
    let head = "POST / HTTP/1.1\r\nHost: cart.acme.example\r\nContent-Length: 0\r\n\r\n";
    let mut stream = TcpStream::connect(world.http).await.expect("connected");
    stream.write_all(head.as_bytes()).await.expect("written");
    silent.arrived.recv().await.expect("arrived");
    assert_eq!(stats.in_flight(), 1);
    drop(stream);
    let leaving = async {
        while stats.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(PATIENCE, leaving).await.is_ok());
}
