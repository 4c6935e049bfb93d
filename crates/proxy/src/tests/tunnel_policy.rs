//! What does not come out of a tunnel.

use balance::Health::Healthy;
use l7::{Limits, Refusal};
use tokio::io::AsyncWriteExt;

use super::world::{GATEWAY, Manner, Spot, World, key, message, site};
use crate::{Ask, Dial, StreamRequest};

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

/// Whoever speaks into a tunnel stream is not believed to be an ingress of ours.
#[tokio::test]
async fn the_other_end_parses_for_itself() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let ask = async |lines: &str| {
        let request = StreamRequest {
            authority: "cart.shop.acme:80".to_owned(),
            endpoint: key(GATEWAY, spot.address),
            lb: "shop/web".to_owned(),
            client: None,
        };
        let stream = world
            .bridge
            .open(&site("aws.acme"), Ask::Endpoint(request))
            .await;
        let mut stream = stream.expect("a stream");
        let octets = lines.replace('\n', "\r\n");
        stream.write_all(octets.as_bytes()).await.expect("written");
        let answer = message(&mut stream, &mut Vec::new()).await;
        answer.expect("an answer")
    };
    // RFC 9112 §3.2.2: the host of an absolute target counts.
    let absolute = ask("GET http://cart.acme.example/a HTTP/1.1\nHost: other.example\n\n").await;
    assert!(absolute.contains("GET /a HTTP/1.1\r\n"), "{absolute}");
    assert!(
        absolute.contains("host: cart.acme.example\r\n"),
        "{absolute}"
    );
    assert!(!absolute.contains("other.example"), "{absolute}");
    let connect = ask("CONNECT cart.acme.example:80 HTTP/1.1\nHost: cart.acme.example\n\n").await;
    assert!(connect.starts_with("HTTP/1.1 405 "), "{connect}");
    let host = ask("GET / HTTP/1.1\nHost: user@cart.acme.example\n\n").await;
    assert!(host.starts_with("HTTP/1.1 400 "), "{host}");
    assert_eq!(spot.served(), 1);
}
