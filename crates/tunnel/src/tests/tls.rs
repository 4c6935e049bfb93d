use std::time::Duration;

use runtime::{metrics::Metrics, net::Source};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::{
    Admit, Config, DialTarget, DownReason, JoinError, LinkEvent, MAX_JOIN_BYTES, OpenError, Tunnel,
    Uplink, join_dial,
};

#[tokio::test]
async fn a_gateway_dials_a_pop_and_both_open_streams() {
    let fabric = Fabric::new();
    let metrics = Metrics::default();
    let (mut par, address) = pop(&metrics, fabric.listening("par.fabric")).await;
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    let expected = Some(site("par.fabric"));
    let dial = vec![DialTarget {
        expected,
        addresses: vec![address],
        uplink: None,
    }];
    let config = Config {
        dial,
        ..fabric.config("aws.acme")
    };
    aws.control
        .configure(config.clone())
        .await
        .expect("configured");
    assert_eq!(up(&mut aws).await, identity("par.fabric"));
    assert_eq!(up(&mut par).await, identity("aws.acme"));
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    let (mut back, mut forth) = stream(&par, &mut aws, "aws.acme").await;
    echo(&mut near, &mut far).await;
    echo(&mut back, &mut forth).await;

    // New certificates on both sides cut nothing.
    let renewed = fabric.credentials(&identity("aws.acme"), runtime::wall());
    let renewed = Config {
        credentials: renewed,
        ..config
    };
    aws.control
        .configure(renewed.clone())
        .await
        .expect("configured");
    par.control
        .configure(fabric.listening("par.fabric"))
        .await
        .expect("configured");
    echo(&mut near, &mut far).await;
    echo(&mut back, &mut forth).await;
    counted(&metrics, "sealane_tunnel_links 1").await;

    // A target that is gone takes its link along.
    let gone = Config {
        dial: Vec::new(),
        ..renewed
    };
    aws.control.configure(gone).await.expect("configured");
    assert_eq!(down(&mut aws).await, DownReason::Removed);
    assert_eq!(down(&mut par).await, DownReason::Closed);
    assert!(near.read_u8().await.is_err() && far.read_u8().await.is_err());
    let error = par.links.open(&site("aws.acme"), &head()).await;
    assert!(matches!(error, Err(OpenError::NoLink(_))), "{error:?}");
}

/// The uplinks of the links to a site, by their shares.
fn uplinks(tunnel: &Tunnel, to: &str) -> Vec<(Option<String>, bool)> {
    let table = tunnel.links.table();
    let links = table.site(&site(to)).iter();
    let mut uplinks: Vec<(Option<String>, bool)> = links
        .map(|link| {
            let name = link.uplink.as_ref().map(|uplink| uplink.name.to_string());
            (name, link.share() > 0)
        })
        .collect();
    uplinks.sort();
    uplinks
}

#[tokio::test]
async fn over_each_uplink_there_is_a_link_and_both_carry_streams() {
    let fabric = Fabric::new();
    let (mut par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let over = |number: u8, name: &str, cost: u16| {
        let name = name.into();
        let source = Source::Address([127, 0, 0, 1 + number].into());
        DialTarget {
            expected: Some(site("par.fabric")),
            uplink: Some((Uplink { number, name, cost }, source)),
            ..target(address)
        }
    };
    let (cable, lte) = (over(1, "cable", 1), over(2, "lte", 1));
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    let mut config = Config {
        dial: vec![cable.clone(), lte],
        ..fabric.config("aws.acme")
    };
    let configured = aws.control.configure(config.clone()).await;
    configured.expect("configured");
    for tunnel in [&mut aws, &mut par] {
        up(tunnel).await;
        up(tunnel).await;
    }
    let named = |names: &[(&str, bool)]| -> Vec<(Option<String>, bool)> {
        let named = names.iter();
        named
            .map(|(name, serves)| (Some((*name).to_owned()), *serves))
            .collect()
    };
    // Both are measured at once, and as good as each other.
    until(|| uplinks(&aws, "par.fabric") == named(&[("cable", true), ("lte", true)])).await;
    until(|| uplinks(&par, "aws.acme") == named(&[("1", true), ("2", true)])).await;
    for (from, to, name) in [(true, "par.fabric", "aws"), (false, "aws.acme", "par")] {
        let mut links = std::collections::BTreeMap::new();
        for _ in 0..20 {
            let (near, _far) = match from {
                true => stream(&aws, &mut par, to).await,
                false => stream(&par, &mut aws, to).await,
            };
            *links.entry(near.link()).or_insert(0) += 1;
        }
        let counts: Vec<i32> = links.into_values().collect();
        assert!(
            counts.len() == 2 && counts.iter().all(|n| *n >= 3),
            "{name}: {counts:?}"
        );
    }
    // One that is dear rests, at both ends.
    config.dial = vec![cable.clone(), over(2, "lte", 1000)];
    let configured = aws.control.configure(config.clone()).await;
    configured.expect("configured");
    up(&mut aws).await;
    // Whoever is first replaces it.
    let gone = down(&mut aws).await;
    assert!(matches!(gone, DownReason::Replaced | DownReason::Closed));
    until(|| uplinks(&aws, "par.fabric") == named(&[("cable", true), ("lte", false)])).await;
    until(|| uplinks(&par, "aws.acme") == named(&[("1", true), ("2", false)])).await;
    // One that does not work takes nobody's place.
    let nowhere = Source::Interface("sealane-none".to_owned());
    let mut lost = over(1, "cable", 1);
    lost.uplink = lost.uplink.map(|(uplink, _)| (uplink, nowhere));
    config.dial = vec![lost];
    let configured = aws.control.configure(config.clone()).await;
    configured.expect("configured");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert!(aws.links.table().reaches(&site("par.fabric")));
    // Where another takes their place, what runs over them goes on until it ends.
    let (mut near, mut far) = stream(&par, &mut aws, "aws.acme").await;
    config.dial = vec![over(3, "fibre", 1)];
    let configured = aws.control.configure(config).await;
    configured.expect("configured");
    let rest = [("cable", false), ("fibre", true), ("lte", false)];
    until(|| uplinks(&aws, "par.fabric") == named(&rest)).await;
    echo(&mut near, &mut far).await;
    drop((near, far));
    until(|| uplinks(&aws, "par.fabric") == named(&[("fibre", true)])).await;
    until(|| uplinks(&par, "aws.acme") == named(&[("3", true)])).await;
    let (mut near, mut far) = stream(&par, &mut aws, "aws.acme").await;
    echo(&mut near, &mut far).await;
}

#[tokio::test]
async fn who_is_let_go_hears_of_it_and_keeps_its_streams_for_a_while() {
    let fabric = Fabric::new();
    let (mut par, at_par) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let (mut lon, at_lon) = pop(&Metrics::default(), fabric.listening("lon.fabric")).await;
    let to = |name: &str, address| DialTarget {
        expected: Some(site(name)),
        ..target(address)
    };
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    let mut config = Config {
        dial: vec![to("par.fabric", at_par)],
        ..fabric.config("aws.acme")
    };
    let configured = aws.control.configure(config.clone()).await;
    configured.expect("configured");
    up(&mut aws).await;
    up(&mut par).await;
    let (mut near, mut far) = stream(&par, &mut aws, "aws.acme").await;
    // One that leads nowhere takes nobody's place.
    config.dial = vec![to("lon.fabric", ([127, 0, 0, 1], 1).into())];
    let configured = aws.control.configure(config.clone()).await;
    configured.expect("configured");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(uplinks(&aws, "par.fabric"), [(None, true)]);
    config.dial = vec![to("lon.fabric", at_lon)];
    let configured = aws.control.configure(config).await;
    configured.expect("configured");
    up(&mut aws).await;
    up(&mut lon).await;
    // The old one is not to be used any more.
    until(|| uplinks(&aws, "par.fabric") == [(None, false)]).await;
    let lost = |tunnel: &Tunnel, to: &str| {
        let table = tunnel.links.table();
        let quality = table.best(&site(to)).and_then(|link| link.quality());
        quality.is_some_and(|quality| quality.loss == path::Loss(u16::MAX))
    };
    until(|| lost(&aws, "par.fabric")).await;
    echo(&mut near, &mut far).await;
    drop((near, far));
    assert_eq!(down(&mut aws).await, DownReason::Removed);
    assert_eq!(down(&mut par).await, DownReason::Closed);
    assert!(aws.links.table().reaches(&site("lon.fabric")));
}

#[tokio::test]
async fn a_dead_process_is_noticed_at_once_and_dialled_again() {
    let fabric = Fabric::new();
    let (par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    let config = fabric.dialling("aws.acme", address);
    aws.control.configure(config).await.expect("configured");
    up(&mut aws).await;
    let began = runtime::now();
    par.control.drain().await;
    assert_eq!(down(&mut aws).await, DownReason::Closed);
    assert!(runtime::now().since(began) < Duration::from_secs(2));
    let again = Config {
        listen: vec![address],
        ..fabric.config("par.fabric")
    };
    let (mut par, _) = pop(&Metrics::default(), again).await;
    up(&mut aws).await;
    up(&mut par).await;
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    echo(&mut near, &mut far).await;
}

#[tokio::test]
async fn two_nodes_may_dial_each_other() {
    let fabric = Fabric::new();
    let (mut par, to_par) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let (mut nyc, to_nyc) = pop(&Metrics::default(), fabric.listening("nyc.fabric")).await;
    let dial = |to, name| Config {
        dial: vec![target(to)],
        ..fabric.listening(name)
    };
    par.control
        .configure(dial(to_nyc, "par.fabric"))
        .await
        .expect("configured");
    nyc.control
        .configure(dial(to_par, "nyc.fabric"))
        .await
        .expect("configured");
    for tunnel in [&mut par, &mut nyc] {
        up(tunnel).await;
        up(tunnel).await;
    }
    let (mut near, mut far) = stream(&par, &mut nyc, "nyc.fabric").await;
    echo(&mut near, &mut far).await;
    assert_eq!(par.links.table().site(&site("nyc.fabric")).len(), 2);
}

/// A gateway with `config` gets no link; `par` counts `at_pop`, the gateway `at_gateway`.
async fn refused(fabric: &Fabric, config: Config, at_pop: &str, at_gateway: &str) {
    let metrics = Metrics::default();
    let (mut par, address) = pop(&metrics, fabric.listening("par.fabric")).await;
    let own = Metrics::default();
    let aws = crate::start(&own).expect("a thread");
    let config = Config {
        dial: vec![target(address)],
        ..config
    };
    aws.control.configure(config).await.expect("configured");
    let line = |cause| format!("sealane_tunnel_peers_refused_total{{cause=\"{cause}\"}}");
    if !at_pop.is_empty() {
        counted(&metrics, &line(at_pop)).await;
    }
    counted(&own, &line(at_gateway)).await;
    assert!(par.events.try_recv().is_err());
    assert_eq!(par.links.table().links().count(), 0);
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let fabric = Fabric::new();
    let long_ago = runtime::wall() - YEAR;
    let mut config = fabric.config("aws.acme");
    let old = pki::Authority::create(&planet(), long_ago).expect("a CA");
    let old = Fabric(old);
    config.credentials = old.credentials(&identity("aws.acme"), long_ago);
    config.roots = vec![root(&old)];
    let mut pop_config = old.listening("par.fabric");
    pop_config.roots = vec![root(&old)];
    let metrics = Metrics::default();
    let (par, address) = pop(&metrics, pop_config).await;
    let own = Metrics::default();
    let aws = crate::start(&own).expect("a thread");
    config.dial = vec![target(address)];
    aws.control.configure(config).await.expect("configured");
    counted(
        &metrics,
        "sealane_tunnel_peers_refused_total{cause=\"expired\"}",
    )
    .await;
    counted(
        &own,
        "sealane_tunnel_peers_refused_total{cause=\"own-expired\"}",
    )
    .await;
    assert_eq!(par.links.table().links().count(), 0);
}

#[tokio::test]
async fn a_foreign_ca_is_refused_by_both() {
    let (fabric, foreign) = (Fabric::new(), Fabric::new());
    let mut config = foreign.config("aws.acme");
    refused(&fabric, config.clone(), "", "foreign-ca").await;
    // Even if it trusts us, we do not trust it.
    config.roots.push(root(&fabric));
    refused(&fabric, config, "foreign-ca", "own-foreign-ca").await;
}

#[tokio::test]
async fn another_planet_an_unknown_site_and_a_controller_are_refused() {
    let fabric = Fabric::new();
    let now = runtime::wall();
    let mars = pki::Identity::node(
        "mars".parse().expect("a planet"),
        site("aws.acme"),
        "n0".parse().expect("a node"),
    );
    // The authority signs for its own planet only; the peer's configuration is the other one.
    assert!(
        fabric
            .0
            .issue(
                &pki::NodeKey::generate()
                    .expect("key")
                    .csr_der()
                    .expect("csr"),
                &mars,
                now,
                Duration::from_secs(60)
            )
            .is_err()
    );
    let config = Config {
        planet: mars.planet().clone(),
        ..fabric.config("aws.acme")
    };
    refused(&fabric, config, "", "planet").await;
    let controller = pki::Identity::controller(planet());
    let credentials = fabric.credentials(&controller, now);
    let config = Config {
        credentials,
        ..fabric.config("aws.acme")
    };
    refused(&fabric, config, "not-a-node", "refused-by-peer").await;

    let metrics = Metrics::default();
    let par = Config {
        admit: Admit::when(|peer| peer.is_pop()),
        ..fabric.listening("par.fabric")
    };
    let (_par, address) = pop(&metrics, par).await;
    let own = Metrics::default();
    let aws = crate::start(&own).expect("a thread");
    aws.control
        .configure(fabric.dialling("aws.acme", address))
        .await
        .expect("configured");
    counted(
        &metrics,
        "sealane_tunnel_peers_refused_total{cause=\"not-admitted\"}",
    )
    .await;
    counted(
        &own,
        "sealane_tunnel_peers_refused_total{cause=\"refused-by-peer\"}",
    )
    .await;
}

#[tokio::test]
async fn the_expected_site_must_answer() {
    let fabric = Fabric::new();
    let (_par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let own = Metrics::default();
    let aws = crate::start(&own).expect("a thread");
    let dial = vec![DialTarget {
        expected: Some(site("nyc.fabric")),
        addresses: vec![address],
        uplink: None,
    }];
    aws.control
        .configure(Config {
            dial,
            ..fabric.config("aws.acme")
        })
        .await
        .expect("configured");
    counted(
        &own,
        "sealane_tunnel_peers_refused_total{cause=\"unexpected-site\"}",
    )
    .await;
}

#[tokio::test]
async fn revocation_cuts_a_link() {
    let fabric = Fabric::new();
    let (mut par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    aws.control
        .configure(fabric.dialling("aws.acme", address))
        .await
        .expect("configured");
    up(&mut aws).await;
    up(&mut par).await;
    let admit = Admit::when(|peer| *peer != identity("aws.acme"));
    let config = Config {
        admit,
        listen: vec![any_port()],
        ..fabric.config("par.fabric")
    };
    par.control.configure(config).await.expect("configured");
    assert_eq!(down(&mut par).await, DownReason::Removed);
    assert_eq!(down(&mut aws).await, DownReason::Closed);
}

#[tokio::test]
async fn joining_pins_the_ca_and_is_bounded() {
    let fabric = Fabric::new();
    let metrics = Metrics::default();
    let (mut par, address) = pop(&metrics, fabric.listening("par.fabric")).await;
    let pin = pki::spki_sha256(fabric.0.certificate_der()).expect("a CA");
    let wrong = join_dial(address, [0; 32]).await;
    assert!(
        matches!(wrong, Err(JoinError::Handshake { .. })),
        "{wrong:?}"
    );
    let mut joiner = join_dial(address, pin).await.expect("pinned");
    let joining = par.joins.recv().await.expect("a join");
    let mut served = joining.stream;
    joiner.write_all(b"token").await.expect("written");
    let mut word = [0; 5];
    served.read_exact(&mut word).await.expect("read");
    served.write_all(&word).await.expect("answered");
    served.flush().await.expect("answered");
    joiner.read_exact(&mut word).await.expect("read");
    assert_eq!(&word, b"token");
    let flood = vec![0; MAX_JOIN_BYTES];
    let (_, error) = tokio::join!(joiner.write_all(&flood), async {
        served
            .read_to_end(&mut Vec::new())
            .await
            .expect_err("too much")
    });
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
    counted(&metrics, "sealane_tunnel_joins_total 1").await;
    // Nobody without a certificate gets further than that.
    assert!(matches!(
        par.events.try_recv(),
        Err(_) | Ok(LinkEvent::Rtt { .. })
    ));
}

#[tokio::test]
async fn strangers_get_nothing() {
    let fabric = Fabric::new();
    let metrics = Metrics::default();
    let (_par, address) = pop(&metrics, fabric.listening("par.fabric")).await;
    let dial = || runtime::net::tcp_connect(address, BOUND);
    let mut stranger = dial().await.expect("connected");
    stranger
        .write_all(b"GET / HTTP/1.1\r\n\r\n")
        .await
        .expect("written");
    let _ = stranger.read_to_end(&mut Vec::new()).await;
    counted(
        &metrics,
        "sealane_tunnel_peers_refused_total{cause=\"tls\"}",
    )
    .await;
    drop(dial().await.expect("connected"));
    counted(
        &metrics,
        "sealane_tunnel_peers_refused_total{cause=\"broken\"}",
    )
    .await;
}

#[tokio::test]
async fn a_drain_lets_streams_end() {
    let fabric = Fabric::new();
    let (mut par, address) = pop(&Metrics::default(), fabric.listening("par.fabric")).await;
    let mut aws = crate::start(&Metrics::default()).expect("a thread");
    aws.control
        .configure(fabric.dialling("aws.acme", address))
        .await
        .expect("configured");
    up(&mut aws).await;
    let (mut near, mut far) = stream(&aws, &mut par, "par.fabric").await;
    let control = par.control.clone();
    let began = runtime::now();
    let (exit, ()) = tokio::join!(control.drain(), async {
        while runtime::net::tcp_connect(address, BOUND).await.is_ok() {
            tokio::task::yield_now().await;
        }
        echo(&mut near, &mut far).await;
        drop((near, far));
    });
    assert_eq!(exit, runtime::ThreadExit::Finished);
    assert!(
        runtime::now().since(began) < Duration::from_secs(4),
        "did not wait for the bound"
    );
    assert_eq!(down(&mut aws).await, DownReason::Closed);
}
