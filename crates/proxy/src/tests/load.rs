//! What endpoints say of their load, in heads and in trailers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use balance::{Algorithm, BalancePolicy, EndpointSet, EndpointStats, Health::Healthy, LoadPolicy};
use http::{HeaderMap, StatusCode};
use tokio::time::timeout;

use super::{
    http2,
    world::{Manner, PATIENCE, POP, Spot, World, key, site},
};

fn policy() -> BalancePolicy {
    BalancePolicy {
        algorithm: Algorithm::WeightedByLoad,
        load: LoadPolicy {
            blackout: Duration::ZERO,
            ..<_>::default()
        },
        ..<_>::default()
    }
}

/// From now on what the endpoint says counts; where it is counted.
fn listen(world: &World) -> Arc<EndpointStats> {
    let endpoints = world.ingress_cell.load().endpoints().to_vec();
    let stats = Arc::clone(&endpoints[0].stats);
    assert_eq!(weight(&stats), None);
    let set = EndpointSet::build(&policy(), runtime::now(), endpoints);
    world.ingress_cell.store(Arc::new(set));
    stats
}

fn weight(stats: &EndpointStats) -> Option<f64> {
    stats.load(runtime::now(), &policy().load)
}

/// An answer with its trailers.
async fn whole(world: &World) -> String {
    let request = "GET / HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: close\r\n\r\n";
    world.raw(request).await
}

#[tokio::test]
async fn what_endpoints_say_of_their_load_is_not_for_clients() {
    for says in [
        "HTTP/1.1 200 OK\r\nx-own: 1\r\ncontent-length: 0\r\n\
         Endpoint-Load-Metrics: TEXT cpu_utilization=0.5,rps_fractional=10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-own: 1\r\ncontent-length: 0\r\n\
         Endpoint-Load-Metrics: BIN CQAAAAAAAOA/MQAAAAAAACRA\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-own: 1\r\ncontent-length: 0\r\n\
         Endpoint-Load-Metrics-Bin: CQAAAAAAAOA/MQAAAAAAACRA\r\n\r\n",
        // What is not understood of the one does not hide the other.
        "HTTP/1.1 200 OK\r\nx-own: 1\r\ncontent-length: 0\r\n\
         Endpoint-Load-Metrics: WORDS fine\r\n\
         Endpoint-Load-Metrics-Bin: CQAAAAAAAOA/MQAAAAAAACRA\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-own: 1\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nx-last: 1\r\n\
         endpoint-load-metrics: TEXT cpu_utilization=0.5,rps_fractional=10\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-own: 1\r\ntransfer-encoding: chunked\r\n\r\n\
         2\r\nhi\r\n0\r\nendpoint-load-metrics-bin: CQAAAAAAAOA/MQAAAAAAACRA\r\n\r\n",
    ] {
        let world = World::new().await;
        let spot = Spot::new("raw", Manner::Raw(says, false)).await;
        world.endpoints(&[(spot.address, Healthy)]);
        // To nobody here it means anything.
        let response = whole(&world).await;
        assert!(response.contains("endpoint-load-metrics"), "{response}");
        let stats = listen(&world);
        let response = whole(&world).await;
        assert!(response.contains("x-own: 1"), "{response}");
        assert!(!response.contains("load-metrics"), "{response}");
        assert_eq!(response.contains("x-last: 1"), says.contains("x-last: 1"));
        assert_eq!(weight(&stats), Some(20.0), "{says}");
    }
}

/// The trailers of an answer to `/loaded`.
async fn loaded(world: &World) -> HeaderMap {
    let (mut client, _tasks) = http2::client(world).await;
    let (response, _) = client
        .send_request(http2::post("/loaded"), true)
        .expect("sent");
    let response = timeout(PATIENCE, response).await.expect("in time");
    let response = response.expect("a response");
    assert_eq!(response.status(), StatusCode::OK);
    let mut body = response.into_body();
    while let Some(piece) = timeout(PATIENCE, body.data()).await.expect("in time") {
        let piece = piece.expect("no error");
        let _ = body.flow_control().release_capacity(piece.len());
    }
    let trailers = timeout(PATIENCE, body.trailers()).await.expect("in time");
    trailers.expect("no error").expect("trailers")
}

async fn heard_in_trailers(world: &World) {
    assert!(
        loaded(world)
            .await
            .contains_key("endpoint-load-metrics-bin")
    );
    let stats = listen(world);
    let trailers = loaded(world).await;
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers.len(), 1, "{trailers:?}");
    assert_eq!(weight(&stats), Some(20.0));
}

#[tokio::test]
async fn http2_trailers_through_a_tunnel() {
    let world = World::new().await;
    let (address, _endpoint) = http2::endpoint().await;
    world.speak_http2();
    world.endpoints(&[(address, Healthy)]);
    heard_in_trailers(&world).await;
}

#[tokio::test]
async fn http2_trailers_in_this_site() {
    let world = World::new().await;
    let (address, _endpoint) = http2::endpoint().await;
    world.endpoints(&[(address, Healthy)]);
    here(&world, address);
    world.service(|cluster| cluster.protocol = l7::Protocol::Http2);
    heard_in_trailers(&world).await;
}

/// The endpoint stands where the requests come in.
fn here(world: &World, address: SocketAddr) {
    let mut endpoints = world.ingress_cell.load().endpoints().to_vec();
    for endpoint in &mut endpoints {
        endpoint.key = key(POP, address);
        endpoint.site = site("par.fabric");
    }
    let set = EndpointSet::build(&<_>::default(), runtime::now(), endpoints);
    world.ingress_cell.store(Arc::new(set));
}
