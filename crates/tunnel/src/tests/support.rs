use std::{future::Future, net::SocketAddr, time::Duration};

use base::{SiteName, WallTime};
use bytes::Bytes;
use h2::client::SendRequest;
use path::DeadDetector;
use pki::{Authority, Identity, NodeKey, Planet};
use runtime::{Tasks, metrics::Metrics, tls::Credentials};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::LocalSet,
};

use crate::{
    Admit, Config, DialTarget, DownReason, Incoming, LinkEvent, Prefer, Stream, StreamHead, Tunnel,
    links::Opener, metrics::TunnelMetrics, tasks::assemble,
};

/// Nothing in these tests takes longer.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
pub(crate) const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(crate) fn identity(site: &str) -> Identity {
    Identity::node(
        planet(),
        site.parse().expect("a site"),
        "n0".parse().expect("a node"),
    )
}

pub(crate) fn planet() -> Planet {
    "earth".parse().expect("a planet")
}

pub(crate) fn head() -> StreamHead {
    StreamHead {
        endpoint: "7/0/10.0.0.1:80".parse().ok(),
        lb: Some("shop/cart".to_owned()),
        ..StreamHead::to("cart.shop.acme:80")
    }
}

/// A tunnel on the current `LocalSet`, under its clock.
pub(crate) fn local(tasks: &Tasks) -> Tunnel {
    let metrics = TunnelMetrics::declare(&Metrics::default());
    let (tunnel, body) = assemble(metrics, DeadDetector::INTERVAL);
    tasks.spawn_local("tunnel", body.run(tasks.clone()));
    tunnel
}

/// Runs a test on a `LocalSet` within the bound.
pub(crate) async fn run(test: impl Future<Output = ()>) {
    let bounded = tokio::time::timeout(BOUND, test);
    LocalSet::new().run_until(bounded).await.expect("in time");
}

/// The next event that is no measurement.
pub(crate) async fn change(tunnel: &mut Tunnel) -> LinkEvent {
    loop {
        let event = tokio::time::timeout(BOUND, tunnel.events.recv())
            .await
            .expect("in time");
        match event.expect("the tunnel runs") {
            LinkEvent::Rtt { .. } | LinkEvent::Mtu { .. } => {}
            event @ (LinkEvent::Up { .. } | LinkEvent::Down { .. }) => return event,
        }
    }
}

pub(crate) async fn up(tunnel: &mut Tunnel) -> Identity {
    match change(tunnel).await {
        LinkEvent::Up { peer, .. } => peer,
        event @ (LinkEvent::Down { .. } | LinkEvent::Rtt { .. } | LinkEvent::Mtu { .. }) => {
            panic!("{event:?}")
        }
    }
}

pub(crate) async fn down(tunnel: &mut Tunnel) -> DownReason {
    match change(tunnel).await {
        LinkEvent::Down { reason, .. } => reason,
        event @ (LinkEvent::Up { .. } | LinkEvent::Rtt { .. } | LinkEvent::Mtu { .. }) => {
            panic!("{event:?}")
        }
    }
}

pub(crate) async fn service(tunnel: &mut Tunnel) -> Incoming {
    let incoming = tokio::time::timeout(BOUND, tunnel.services.recv())
        .await
        .expect("in time");
    incoming.expect("the tunnel runs")
}

pub(crate) fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

/// A stream that was opened and accepted.
pub(crate) async fn stream(from: &Tunnel, to: &mut Tunnel, name: &str) -> (Stream, Stream) {
    let (name, head) = (site(name), head());
    let (near, far) = tokio::join!(from.links.open(&name, &head), async {
        service(to).await.accept().expect("accepted")
    });
    (near.expect("a stream"), far)
}

/// Octets go there and come back.
pub(crate) async fn echo(near: &mut Stream, far: &mut Stream) {
    near.write_all(b"ping").await.expect("written");
    let mut word = [0; 4];
    far.read_exact(&mut word).await.expect("read");
    far.write_all(&word).await.expect("written");
    near.read_exact(&mut word).await.expect("read");
    assert_eq!(&word, b"ping");
}

/// A certificate authority of a planet.
pub(crate) struct Fabric(pub(super) Authority);

impl Fabric {
    pub(crate) fn new() -> Self {
        Fabric(Authority::create(&planet(), runtime::wall()).expect("a CA"))
    }

    pub(crate) fn credentials(&self, identity: &Identity, from: WallTime) -> Credentials {
        let key = NodeKey::generate().expect("a key");
        let csr = key.csr_der().expect("a request");
        let chain = self
            .0
            .issue(&csr, identity, from, Duration::from_secs(90 * 86_400));
        let key = PrivateKeyDer::try_from(key.pkcs8_der().to_vec()).expect("PKCS#8");
        Credentials {
            chain: chain.expect("issued"),
            key,
        }
    }

    pub(crate) fn config(&self, site: &str) -> Config {
        Config {
            planet: planet(),
            credentials: self.credentials(&identity(site), runtime::wall()),
            roots: vec![self.0.certificate_der().clone()],
            listen: Vec::new(),
            dial: Vec::new(),
            admit: Admit::all(),
            hear: Admit::all(),
            joins: false,
            prefer: Prefer::Tls,
            trunks: 0,
        }
    }

    pub(crate) fn listening(&self, site: &str) -> Config {
        Config {
            listen: vec![any_port()],
            joins: true,
            ..self.config(site)
        }
    }

    pub(crate) fn dialling(&self, site: &str, to: SocketAddr) -> Config {
        Config {
            dial: vec![target(to)],
            ..self.config(site)
        }
    }
}

pub(crate) fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

pub(crate) fn target(address: SocketAddr) -> DialTarget {
    DialTarget {
        expected: None,
        addresses: vec![address],
        uplink: None,
    }
}

/// A PoP that listens, and where.
pub(crate) async fn pop(metrics: &Metrics, config: Config) -> (Tunnel, SocketAddr) {
    let tunnel = crate::start(metrics).expect("a thread");
    let listening = tunnel.control.configure(config).await.expect("configured");
    assert!(listening.failed.is_empty(), "{listening:?}");
    (tunnel, listening.bound[0].1)
}

/// Waits until it is so.
pub(crate) async fn until(mut so: impl FnMut() -> bool) {
    let waiting = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(BOUND, waiting).await.expect("in time");
}

/// Waits until the metrics have `line`.
pub(crate) async fn counted(metrics: &Metrics, line: &str) {
    let found = async {
        while !metrics.render().lines().any(|have| have.starts_with(line)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(BOUND, found).await;
    assert!(found.is_ok(), "no {line} in\n{}", metrics.render());
}

/// Waits until what is counted as `name` is so much.
pub(crate) async fn counted_to(metrics: &Metrics, name: &str, most: u64) {
    let value = || {
        let text = metrics.render();
        let mut lines = text.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let found = async {
        while value().is_none_or(|value| value < most) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(BOUND, found).await;
    assert!(found.is_ok(), "no {name} {most} in\n{}", metrics.render());
}

/// What opens streams on a link over HTTP/2.
pub(crate) fn h2(opener: &Opener) -> SendRequest<Bytes> {
    match opener {
        Opener::H2(opener) => opener.clone(),
        Opener::Quic(_) => panic!("it goes over QUIC"),
    }
}

pub(crate) fn root(fabric: &Fabric) -> CertificateDer<'static> {
    fabric.0.certificate_der().clone()
}
