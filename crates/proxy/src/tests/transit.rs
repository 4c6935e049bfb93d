//! Streams that are passed on to another site, sealed.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use balance::Health::Healthy;
use base::SiteName;
use http::StatusCode;
use l7::{Limits, Refusal};
use runtime::metrics::Metrics;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tunnel::{EndpointRef, OpenError, Seal, Sealed, StreamHead};

use super::{
    fabric::{Fabric, seal},
    world::{GATEWAY, Manner, Spot, World, key, message, site},
};
use crate::{Ask, Dial, DialError, Duplex, Passage, io::BoxDuplex};

fn passage(via: &[&str]) -> Passage {
    Passage {
        tenant: "acme".parse().expect("a tenant"),
        origin: None,
        via: via.iter().map(|name| site(name)).collect(),
    }
}

fn head(spot: &Spot) -> StreamHead {
    let endpoint = key(GATEWAY, spot.address);
    StreamHead {
        endpoint: Some(EndpointRef {
            site: endpoint.site,
            network: endpoint.network,
            address: endpoint.address,
        }),
        lb: Some("shop/web".to_owned()),
        ..StreamHead::to("cart.shop.acme:80")
    }
}

/// What a PoP sees of a stream that it passes on.
struct Tapped(BoxDuplex, Rc<RefCell<Vec<u8>>>);

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.0).poll_read(cx, buf))?;
        self.1.borrow_mut().extend(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.0).poll_write(cx, buf))?;
        self.1.borrow_mut().extend(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Duplex for Tapped {}

/// From `ingress` to the PoP of this world, which knows the gateway.
async fn pass(world: &World, ingress: &str, passage: Passage) -> Result<BoxDuplex, DialError> {
    let first = world.to_pop(ingress);
    first.open(&site("nyc.fabric"), Ask::Sealed(passage)).await
}

/// The same as whoever `seal` is of, to the gateway.
async fn open(
    world: &World,
    ingress: &str,
    seal: &Seal,
    head: &StreamHead,
) -> Result<Sealed<BoxDuplex>, OpenError> {
    let passed = pass(world, ingress, passage(&["aws.acme"])).await;
    let stream = passed.expect("it is passed on");
    seal.open(stream, &site("aws.acme"), head).await
}

async fn get(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> String {
    let request = b"GET /secret HTTP/1.1\r\nhost: cart.acme.example\r\n\r\n";
    stream.write_all(request).await.expect("written");
    stream.flush().await.expect("sent");
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

async fn world() -> (World, Spot) {
    let world = World::as_peer("nyc.fabric", Limits::default()).await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    (world, spot)
}

#[tokio::test]
async fn a_pop_passes_on_what_it_cannot_read() {
    let (world, spot) = world().await;
    let passed = pass(&world, "par.fabric", passage(&["aws.acme"])).await;
    let seen = Rc::<RefCell<Vec<u8>>>::default();
    let tapped = Tapped(passed.expect("a stream"), Rc::clone(&seen));
    let opened = seal("par.fabric")
        .await
        .open(tapped, &site("aws.acme"), &head(&spot))
        .await;
    let mut stream = opened.expect("accepted");
    for _ in 0..3 {
        let answer = get(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("/secret"), "{answer}");
    }
    // The end goes through.
    stream.shutdown().await.expect("ended");
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty());
    assert_eq!(spot.served(), 3);
    let seen = seen.borrow();
    assert!(seen.len() > 1000, "{}", seen.len());
    for secret in ["secret", "HTTP/1.1", "cart", "shop", "acme"] {
        let found = seen.windows(secret.len()).any(|w| w == secret.as_bytes());
        assert!(!found, "{secret} is read on the way");
    }
}

#[tokio::test]
async fn the_egress_judges_by_the_certificate_of_whoever_began_it() {
    let (world, spot) = world().await;
    let factory = seal("factory.acme").await;
    // The PoP says that it came in at a PoP, to which it is offered.
    for told in ["factory.acme", "par.fabric"] {
        let refused = open(&world, told, &factory, &head(&spot)).await;
        let Err(OpenError::Refused { status, reason }) = refused else {
            panic!("not offered there");
        };
        assert_eq!((status, &*reason), (StatusCode::FORBIDDEN, "not-offered"));
    }
    assert_eq!(
        refusals(&world, true),
        [(site("factory.acme"), Refusal::NotOffered)]
    );
    // It is offered to PoPs, whatever is said of where it came in.
    let par = seal("par.fabric").await;
    let stream = open(&world, "factory.acme", &par, &head(&spot)).await;
    let answer = get(&mut stream.expect("accepted")).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(spot.served(), 1);
}

#[tokio::test]
async fn whoever_has_no_certificate_of_ours_is_not_heard() {
    let (world, spot) = world().await;
    let foreign = Fabric::new().node("par.fabric").await;
    let foreign = foreign.links.trunks().seal().clone();
    let old = seal("old.fabric").await;
    let nobody = tunnel::start(&Metrics::default()).expect("a thread");
    let nobody = nobody.links.trunks().seal().clone();
    for seal in [foreign, old, nobody] {
        let refused = open(&world, "par.fabric", &seal, &head(&spot)).await;
        assert!(matches!(refused, Err(OpenError::Closed { .. })));
    }
    // Plain words are no handshake.
    let passed = pass(&world, "par.fabric", passage(&["aws.acme"])).await;
    let mut stream = passed.expect("passed on");
    let request = b"GET / HTTP/1.1\r\nhost: cart.acme.example\r\n\r\n";
    stream.write_all(request).await.expect("written");
    // An alert, perhaps, and the end.
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.len() < 32, "{answer:?}");
    assert_eq!(
        refusals(&world, true),
        [(site("nyc.fabric"), Refusal::BadSeal)]
    );
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn nothing_is_asked_of_whoever_is_not_the_destination() {
    let (world, spot) = world().await;
    let passed = pass(&world, "par.fabric", passage(&["aws.acme"])).await;
    let stream = passed.expect("passed on");
    // Had a PoP on the way passed it on to another site, or answered itself.
    let par = seal("par.fabric").await;
    let opened = par.open(stream, &site("gcp.acme"), &head(&spot)).await;
    let Err(OpenError::Closed { head_sent, source }) = opened else {
        panic!("it is taken for another");
    };
    assert!(!head_sent);
    let source = source.to_string();
    assert!(source.contains("site/aws/"), "{source}");
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn inside_is_asked_for_an_endpoint_and_nothing_else() {
    let (world, spot) = world().await;
    let par = seal("par.fabric").await;
    let again = StreamHead {
        via: vec![site("par.fabric")],
        ..StreamHead::sealed(&"acme".parse().expect("a tenant"))
    };
    let over = StreamHead {
        via: vec![site("par.fabric")],
        ..head(&spot)
    };
    let another = StreamHead {
        origin: Some(site("par.fabric")),
        ..head(&spot)
    };
    for head in [again, over, another, StreamHead::to("cart.shop.acme:80")] {
        let refused = open(&world, "par.fabric", &par, &head).await;
        let Err(OpenError::Refused { status, reason }) = refused else {
            panic!("{head:?} is taken");
        };
        assert_eq!((status, &*reason), (StatusCode::BAD_REQUEST, "bad-head"));
    }
    assert_eq!(spot.served(), 0);
}

#[tokio::test]
async fn whoever_has_a_link_gets_no_handshake_on_it() {
    let (world, _spot) = world().await;
    let forged = Passage {
        origin: Some(site("par.fabric")),
        ..passage(&[])
    };
    for (peer, passage) in [
        ("par.fabric", passage(&[])),
        ("factory.acme", forged.clone()),
    ] {
        let refused = pass(&world, peer, passage).await;
        let Err(DialError::Refused { status, reason }) = refused else {
            panic!("{peer} is heard");
        };
        assert_eq!((status, &*reason), (StatusCode::FORBIDDEN, "bad-seal"));
        assert!(refusals(&world, false).contains(&(site(peer), Refusal::BadSeal)));
    }
}

#[tokio::test]
async fn nothing_goes_from_one_tenant_to_another() {
    let (world, spot) = world().await;
    for (ingress, via, refusal) in [
        ("shop.blue", &["aws.acme"][..], Refusal::OtherTenant),
        ("par.fabric", &["shop.blue"], Refusal::OtherTenant),
        (
            "par.fabric",
            &["factory.acme", "aws.acme"],
            Refusal::NoTransit,
        ),
    ] {
        let refused = pass(&world, ingress, passage(via)).await;
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
    let (world, _spot) = world().await;
    let ask = Ask::Sealed(passage(&["par.fabric", "aws.acme"]));
    let refused = world.bridge.open(&site("aws.acme"), ask).await;
    let Err(DialError::Refused { status, reason }) = refused else {
        panic!("passed on");
    };
    assert_eq!((status, &*reason), (StatusCode::FORBIDDEN, "no-transit"));
}
