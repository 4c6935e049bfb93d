//! Streams that are passed on to another site.

use balance::Health::Healthy;
use base::SiteName;
use http::StatusCode;
use l7::{Limits, Refusal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::world::{GATEWAY, Manner, Spot, World, key, message, site};
use crate::{Dial, DialError, StreamRequest, io::BoxDuplex};

fn asked(spot: &Spot, via: &[&str]) -> StreamRequest {
    StreamRequest {
        authority: "cart.shop.acme:80".to_owned(),
        endpoint: key(GATEWAY, spot.address),
        lb: "shop/web".to_owned(),
        client: None,
        origin: None,
        via: via.iter().map(|name| site(name)).collect(),
    }
}

/// From `ingress` to the PoP of this world, which knows the gateway.
async fn open(
    world: &World,
    ingress: &str,
    request: StreamRequest,
) -> Result<BoxDuplex, DialError> {
    let first = world.to_pop(ingress);
    first.open(&site("nyc.fabric"), request).await
}

async fn get(stream: &mut BoxDuplex) -> String {
    let request = b"GET /a HTTP/1.1\r\nhost: cart.acme.example\r\n\r\n";
    stream.write_all(request).await.expect("written");
    message(stream, &mut Vec::new()).await.expect("an answer")
}

fn refusals(world: &World, at_gateway: bool) -> Vec<(SiteName, Refusal)> {
    let workers = if at_gateway {
        &world.gateway
    } else {
        &world.pop
    };
    let all = workers.refusals().into_iter();
    all.map(|(peer, rule, _)| (peer, rule)).collect()
}

#[tokio::test]
async fn a_pop_passes_on_what_one_asks_of_a_gateway() {
    let world = World::as_peer("nyc.fabric", Limits::default()).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let request = asked(&spot, &["aws.acme"]);
    let mut stream = open(&world, "par.fabric", request).await.expect("a stream");
    for _ in 0..3 {
        let answer = get(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    // The end goes through, and comes back.
    stream.shutdown().await.expect("ended");
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("an end");
    assert_eq!(spot.served(), 3);
}

#[tokio::test]
async fn the_egress_judges_by_where_it_came_in() {
    let world = World::as_peer("nyc.fabric", Limits::default()).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let refused = open(&world, "factory.acme", asked(&spot, &["aws.acme"])).await;
    let Err(DialError::Refused { status, reason }) = refused else {
        panic!("not offered there");
    };
    assert_eq!((status, &*reason), (StatusCode::FORBIDDEN, "not-offered"));
    assert_eq!(
        refusals(&world, true),
        [(site("factory.acme"), Refusal::NotOffered)]
    );
    // What a gateway says of where it came in is not believed.
    let forged = StreamRequest {
        origin: Some(site("par.fabric")),
        ..asked(&spot, &["aws.acme"])
    };
    assert!(open(&world, "factory.acme", forged).await.is_err());
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn nothing_goes_from_one_tenant_to_another() {
    let world = World::as_peer("nyc.fabric", Limits::default()).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    for (ingress, via, refusal) in [
        ("shop.blue", &["aws.acme"][..], Refusal::OtherTenant),
        ("par.fabric", &["shop.blue"], Refusal::OtherTenant),
        (
            "par.fabric",
            &["factory.acme", "aws.acme"],
            Refusal::NoTransit,
        ),
    ] {
        let refused = open(&world, ingress, asked(&spot, via)).await;
        let Err(DialError::Refused { status, reason }) = refused else {
            panic!("{ingress} {via:?} is passed on");
        };
        assert_eq!((status, &*reason), (refusal.status(), refusal.code()));
        assert!(refusals(&world, false).contains(&(site(ingress), refusal)));
    }
    assert!(refusals(&world, true).is_empty());
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn a_gateway_passes_nothing_on() {
    let world = World::as_peer("nyc.fabric", Limits::default()).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let request = asked(&spot, &["par.fabric", "aws.acme"]);
    let refused = world.bridge.open(&site("aws.acme"), request).await;
    let Err(DialError::Refused { status, reason }) = refused else {
        panic!("passed on");
    };
    assert_eq!((status, &*reason), (StatusCode::FORBIDDEN, "no-transit"));
}
