//! What does not come out of a tunnel.

use balance::Health::Healthy;
use l7::{Limits, Refusal};

use super::world::{Manner, Spot, World, site};

#[tokio::test]
async fn another_tenants_site_is_refused_and_counted() {
    let world = World::as_peer("shop.blue", Limits::default()).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    assert_eq!(spot.served(), 0);
    let refusals = world.gateway.refusals();
    assert_eq!(refusals.len(), 1);
    assert_eq!(
        (&refusals[0].0, refusals[0].1),
        (&site("shop.blue"), Refusal::OtherTenant)
    );
}

#[tokio::test]
async fn a_stream_does_not_outlive_what_allowed_it() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    assert!(world.ask("GET").await.starts_with("HTTP/1.1 200 "));
    let old = world.gateway.snapshot();
    let empty = crate::Snapshot {
        egress: std::sync::Arc::default(),
        ..(*old).clone()
    };
    world.gateway.store(std::sync::Arc::new(empty));
    let response = world.ask("GET").await;
    assert!(response.starts_with("HTTP/1.1 502 "), "{response}");
    assert_eq!(spot.served(), 1);
}
