use std::{net::SocketAddr, time::Duration};

use base::SiteName;
use http::StatusCode;
use runtime::metrics::Metrics;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::{
    Config, DialTarget, DownReason, LinkEvent, OpenError, Prefer, Stream, Transport, Tunnel,
};

fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

/// A PoP, and a gateway with a link to it over each transport, of which QUIC goes first.
async fn pair(fabric: &Fabric) -> (Tunnel, Tunnel, SocketAddr, Config) {
    metered(&Metrics::default(), fabric).await
}

/// The same, with the metrics of the PoP.
async fn metered(metrics: &Metrics, fabric: &Fabric) -> (Tunnel, Tunnel, SocketAddr, Config) {
    let (mut par, address) = pop(metrics, fabric.listening("par.fabric")).await;
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    let config = Config {
        dial: vec![DialTarget {
            expected: Some(site("par.fabric")),
            ..target(address)
        }],
        prefer: Prefer::Quic,
        ..fabric.config("aws.acme")
    };
    let configured = aws.control.configure(config.clone()).await;
    configured.expect("configured");
    for tunnel in [&mut aws, &mut par] {
        up(tunnel).await;
        up(tunnel).await;
    }
    until(|| carries(&aws, "par.fabric") == [Transport::Quic]).await;
    until(|| carries(&par, "aws.acme") == [Transport::Quic]).await;
    (par, aws, address, config)
}

/// Over what new streams to a site go.
fn carries(tunnel: &Tunnel, to: &str) -> Vec<Transport> {
    let table = tunnel.links.table();
    let links = table.site(&site(to)).iter();
    let mut carries: Vec<Transport> = links
        .filter(|link| link.share() > 0)
        .map(|link| link.transport)
        .collect();
    carries.sort();
    carries
}

async fn stream(from: &Tunnel, to: &mut Tunnel, name: &str) -> (Stream, Stream) {
    let (name, head) = (site(name), head());
    let (near, far) = tokio::join!(from.links.open(&name, &head), async {
        service(to).await.accept().expect("accepted")
    });
    (near.expect("a stream"), far)
}

#[tokio::test]
async fn keys_are_replaced_under_what_is_sent() {
    let metrics = Metrics::default();
    let (mut par, aws, ..) = metered(&metrics, &Fabric::new()).await;
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    for times in 1..=3 {
        let name = "sealane_tunnel_rekeys_total{connection=\"quic\"}";
        counted_to(&metrics, name, times).await;
        near.write_all(b"there").await.expect("written");
        far.read_exact(&mut [0; 5]).await.expect("read");
        far.write_all(b"back").await.expect("written");
        near.read_exact(&mut [0; 4]).await.expect("read");
    }
}

#[tokio::test]
async fn streams_go_both_ways_and_end_half_by_half() {
    let fabric = Fabric::new();
    let (mut par, mut aws, ..) = pair(&fabric).await;
    for from_gateway in [true, false] {
        let (mut near, mut far) = match from_gateway {
            true => stream(&aws, &mut par, "par.fabric").await,
            false => stream(&par, &mut aws, "aws.acme").await,
        };
        let sent: Vec<u8> = (0..5_000_000_u32)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let (got, ()) = tokio::join!(
            async {
                let mut got = Vec::new();
                far.read_to_end(&mut got).await.expect("read");
                far.write_all(b"thanks").await.expect("written");
                far.shutdown().await.expect("ended");
                got
            },
            async {
                near.write_all(&sent).await.expect("written");
                near.shutdown().await.expect("ended");
                let mut words = Vec::new();
                near.read_to_end(&mut words).await.expect("read");
                assert_eq!(words, b"thanks");
            }
        );
        assert!(got == sent, "{} of {}", got.len(), sent.len());
    }
}

#[tokio::test]
async fn a_stream_is_refused_with_words_and_one_that_is_dropped_is_reset() {
    let fabric = Fabric::new();
    let (mut par, aws, ..) = pair(&fabric).await;
    let (to, head) = (site("par.fabric"), head());
    let (refused, ()) = tokio::join!(aws.links.open(&to, &head), async {
        let incoming = service(&mut par).await;
        assert_eq!(incoming.head, head);
        incoming.refuse(StatusCode::FORBIDDEN, "not for you");
    });
    match refused {
        Err(OpenError::Refused { status, reason }) => {
            assert_eq!(
                (status, reason.as_str()),
                (StatusCode::FORBIDDEN, "not for you")
            );
        }
        other => panic!("{other:?}"),
    }
    let (near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    drop(near);
    let mut rest = Vec::new();
    assert!(far.read_to_end(&mut rest).await.is_err());
    // Reserved ones have a queue of their own.
    let reserved = crate::StreamHead::to("ping.sealane.internal");
    let (near, far) = tokio::join!(aws.links.open_control(&to, &reserved), async {
        let incoming = par.reserved.recv().await.expect("a stream");
        let mut far = incoming.accept().expect("accepted");
        far.write_all(b"hello").await.expect("written");
        far
    });
    let (mut near, far) = (near.expect("a stream"), far);
    let mut word = [0; 5];
    near.read_exact(&mut word).await.expect("read");
    assert_eq!(&word, b"hello");
    drop(far);
    assert!(near.read_u8().await.is_err());
}

#[tokio::test]
async fn what_was_said_before_a_drain_arrives() {
    let fabric = Fabric::new();
    let (mut par, aws, ..) = pair(&fabric).await;
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    let answer = vec![7; 200_000];
    far.write_all(&answer).await.expect("written");
    far.shutdown().await.expect("ended");
    drop(far);
    let (ended, got) = tokio::join!(par.control.drain(), async {
        // The other side has all of it before it is read here.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.map(|_| got.len())
    });
    assert_eq!(got.expect("all of it"), answer.len());
    assert!(matches!(ended, runtime::ThreadExit::Finished));
}

#[tokio::test]
async fn readers_that_stand_still_hold_up_nobody_else() {
    let fabric = Fabric::new();
    let (mut par, mut aws, ..) = pair(&fabric).await;
    let mut still = Vec::new();
    for _ in 0..64 {
        let (mut near, far) = stream(&aws, &mut par, "par.fabric").await;
        let full = async {
            let octets = vec![0; 64 << 10];
            while near.write_all(&octets).await.is_ok() {}
        };
        let full = tokio::time::timeout(Duration::from_millis(30), full).await;
        assert!(full.is_err(), "its window is full");
        still.push((near, far));
    }
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    near.write_all(b"well").await.expect("written");
    let mut word = [0; 4];
    far.read_exact(&mut word).await.expect("read");
    assert_eq!(&word, b"well");
    // Nor does the link believe that nobody is there.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(carries(&aws, "par.fabric"), [Transport::Quic]);
    while let Ok(event) = aws.events.try_recv() {
        assert!(!matches!(event, LinkEvent::Down { .. }), "{event:?}");
    }
}

#[tokio::test]
async fn a_link_that_is_used_carries_more_streams_at_once_than_one_that_is_not() {
    let fabric = Fabric::new();
    let (mut par, aws, ..) = pair(&fabric).await;
    let mut open = Vec::new();
    for _ in 0..600 {
        let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
        near.write_all(b"well").await.expect("written");
        let mut word = [0; 4];
        far.read_exact(&mut word).await.expect("read");
        open.push((near, far));
    }
    assert_eq!(carries(&aws, "par.fabric"), [Transport::Quic]);
}

#[tokio::test]
async fn the_link_that_would_be_next_is_looked_at_as_often_as_the_one_that_is_used() {
    let fabric = Fabric::new();
    let (mut par, aws, ..) = pair(&fabric).await;
    let samples = || {
        let (table, par) = (aws.links.table(), site("par.fabric"));
        let mut links = table.site(&par).iter();
        let tls = links.find(|link| link.transport == Transport::Tls);
        let quality = tls.expect("a link").quality();
        quality.expect("measured").samples
    };
    let second = async || {
        let before = samples();
        tokio::time::sleep(Duration::from_secs(1)).await;
        samples() - before
    };
    assert!(second().await <= 5, "it is pinged every 300 ms");
    let _open = stream(&aws, &mut par, "par.fabric").await;
    let often = async { while second().await < 6 {} };
    let often = tokio::time::timeout(BOUND, often).await;
    often.expect("it is looked at three times as often");
}

#[tokio::test]
async fn a_side_that_leaves_says_so_and_both_transports_are_dialled_again() {
    let fabric = Fabric::new();
    let (par, mut aws, address, _) = pair(&fabric).await;
    let began = runtime::now();
    par.control.drain().await;
    assert_eq!(down(&mut aws).await, DownReason::Closed);
    assert_eq!(down(&mut aws).await, DownReason::Closed);
    assert!(runtime::now().since(began) < Duration::from_secs(2));
    let again = Config {
        listen: vec![address],
        ..fabric.config("par.fabric")
    };
    let (mut par, _) = pop(&Metrics::default(), again).await;
    for tunnel in [&mut aws, &mut par] {
        up(tunnel).await;
        up(tunnel).await;
    }
}

#[tokio::test]
async fn tls_alone_where_that_is_wanted_and_quic_again_where_it_is_not() {
    let fabric = Fabric::new();
    let (_par, mut aws, _, config) = pair(&fabric).await;
    let tls = Config {
        prefer: Prefer::Tls,
        ..config.clone()
    };
    aws.control.configure(tls).await.expect("configured");
    assert_eq!(down(&mut aws).await, DownReason::Removed);
    until(|| carries(&aws, "par.fabric") == [Transport::Tls]).await;
    // Where nothing is lost TLS costs less; what the other wants is dialled anew.
    let auto = Config {
        prefer: Prefer::Auto,
        ..config.clone()
    };
    aws.control.configure(auto).await.expect("configured");
    up(&mut aws).await;
    until(|| aws.links.table().links().count() == 2).await;
    assert_eq!(carries(&aws, "par.fabric"), [Transport::Tls]);
    let quic = Config {
        prefer: Prefer::Quic,
        ..config
    };
    aws.control.configure(quic).await.expect("configured");
    assert_eq!(down(&mut aws).await, DownReason::Removed);
    up(&mut aws).await;
    until(|| carries(&aws, "par.fabric") == [Transport::Quic]).await;
}

#[tokio::test]
async fn strangers_are_refused_over_quic_too() {
    let (fabric, other) = (Fabric::new(), Fabric::new());
    let (mut par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let strange = crate::quic::Configs::new(
        &other.credentials(&identity("aws.acme"), runtime::wall()),
        &[root(&fabric)],
    );
    let tasks = runtime::Tasks::new("test");
    // TLS 1.3 lets a client believe that it is in until it hears otherwise.
    let strange = strange.expect("configured");
    match strange.connect(&tasks, address, None).await {
        Ok(connection) => drop(connection.closed().await),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let unknown = Config {
        admit: crate::Admit::when(|peer| peer.site() != Some(&site("evil.acme"))),
        listen: vec![address],
        ..fabric.config("par.fabric")
    };
    par.control.configure(unknown).await.expect("configured");
    let evil = crate::start(&Metrics::default()).expect("a thread");
    let config = Config {
        prefer: Prefer::Quic,
        ..fabric.dialling("evil.acme", address)
    };
    evil.control.configure(config).await.expect("configured");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(evil.links.table().links().count(), 0);
    assert!(!matches!(par.events.try_recv(), Ok(LinkEvent::Up { .. })));
}
