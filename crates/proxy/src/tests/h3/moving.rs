//! Several workers at one address, and clients that change theirs.

use std::{
    collections::BTreeSet,
    io::IoSliceMut,
    net::{SocketAddr, UdpSocket},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use balance::Health::Healthy;
use l7::ListenerProtocol;
use quinn::{
    AsyncUdpSocket, Endpoint, EndpointConfig, Runtime, TokioRuntime, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::talker::{SETTINGS, Talker, config};
use crate::{
    Config, ListenerSpec, Workers,
    tests::world::{Manner, Spot, World},
};

/// Workers beside those of the world, by what they serve by, and where.
async fn several(world: &World, workers: usize) -> (Workers, SocketAddr) {
    let (several, _events) = Workers::start(Config {
        workers,
        snapshot: world.pop.snapshot(),
        dial: Arc::clone(&world.bridge) as _,
        access_log: None,
        spans: None,
        metrics: world.metrics.clone(),
        seed: 3,
        inherited: Vec::new(),
    })
    .expect("started");
    let spec = ListenerSpec {
        bind: "127.0.0.3:0".parse().expect("an address"),
        port: 443,
        protocol: ListenerProtocol::Quic,
    };
    let bound = several.set_listeners(&[spec]).await;
    let to = bound.into_iter().next().expect("one").expect("bound");
    (several, to)
}

/// RFC 9000 §9.3, and a NAT that forgets: with four workers, of each four new addresses three lead
/// to another worker.
#[tokio::test]
async fn rfc9000_9_3_a_connection_stays_with_its_worker() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let (several, to) = several(&world, 4).await;
    let talker = Talker::new(&world, to).await;
    let mut ports = BTreeSet::new();
    for nth in 0..24 {
        let reply = talker.get(&format!("/{nth}")).await;
        assert!(reply.body.contains(&format!("GET /{nth} ")), "{reply:?}");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        ports.insert(socket.local_addr().expect("an address").port());
        talker.endpoint.rebind(socket).expect("bound");
    }
    // The system draws ports at random, and may draw one again.
    assert!(ports.len() > 12, "{ports:?}");
    assert_eq!(talker.get("/last").await.status, "200");
    several.drain(std::time::Duration::ZERO).await;
}

/// A socket that notes what comes first to it, and takes nothing if it is deaf.
#[derive(Debug)]
struct Observed {
    inner: Arc<dyn AsyncUdpSocket>,
    deaf: bool,
    first: Arc<Mutex<Option<u8>>>,
}

impl AsyncUdpSocket for Observed {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> std::io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<std::io::Result<usize>> {
        if self.deaf {
            return Poll::Pending;
        }
        let polled = self.inner.poll_recv(cx, bufs, metas);
        if let Poll::Ready(Ok(1..)) = polled {
            let mut first = self.first.lock().expect("no panic before");
            first.get_or_insert(bufs[0][0]);
        }
        polled
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

fn observed(deaf: bool) -> (Endpoint, Arc<Mutex<Option<u8>>>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let runtime = Arc::new(TokioRuntime);
    let first = Arc::default();
    let socket = Arc::new(Observed {
        inner: runtime.wrap_udp_socket(socket).expect("a socket"),
        deaf,
        first: Arc::clone(&first),
    });
    let config = EndpointConfig::default();
    let made = Endpoint::new_with_abstract_socket(config, None, socket, runtime);
    (made.expect("an endpoint"), first)
}

/// Is it a Retry (RFC 9000 §17.2.5)?
fn is_retry(first: &Mutex<Option<u8>>) -> bool {
    let first = first.lock().expect("no panic before");
    first.is_some_and(|octet| octet & 0xb0 == 0xb0)
}

#[tokio::test]
async fn rfc9000_8_1_2_addresses_are_asked_for_when_many_handshakes_are_under_way() {
    let world = World::new().await;
    let spot = Spot::new("one", Manner::Echo).await;
    world.endpoints(&[(spot.address, Healthy)]);
    let to = world.quic().await;
    let (client, first) = observed(false);
    let talker = Talker::with(client, &config(&world.root), to, SETTINGS).await;
    assert_eq!(talker.get("/").await.status, "200");
    assert!(!is_retry(&first), "nothing was under way");
    // Handshakes that never end.
    let (deaf, _) = observed(true);
    let mut waiting = Vec::new();
    // More than the limit: a socket's buffer does not hold the first datagrams of all.
    for _ in 0..200 {
        tokio::task::yield_now().await;
        let connecting = deaf.connect_with(config(&world.root), to, super::talker::HOST);
        waiting.push(connecting.expect("an address"));
    }
    // They are on their way: until they are there, nobody is asked.
    let mut asked = false;
    for _ in 0..500 {
        let (client, first) = observed(false);
        let talker = Talker::with(client, &config(&world.root), to, SETTINGS).await;
        assert_eq!(talker.get("/").await.status, "200");
        asked = is_retry(&first);
        if asked {
            break;
        }
    }
    assert!(asked);
    drop(waiting);
}
