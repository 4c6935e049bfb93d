//! Whole speakers over in-memory streams, on tokio's paused clock.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use base::{NetworkId, NodeId, ServiceId, SiteId, SlotId, TenantId};
use bgp::{
    EndpointHealth, Grant, Key, LocalRoute, Rd, RouteTarget, Seq, SiteTable, State, Value,
    peer::Close,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use crate::{Event, Handle, PeerConfig, PeerId, Speaker, SpeakerConfig};

const ASN: u32 = 4_200_000_000;

fn table() -> SiteTable {
    let grant = |tenant| Grant {
        tenant: TenantId(tenant),
        slots: [(SlotId(0), TenantId(tenant))].into(),
        nodes: [].into(),
    };
    SiteTable {
        sites: [(11, 1), (12, 1), (91, 0)]
            .map(|(s, t)| (SiteId(s), grant(t)))
            .into(),
    }
}

fn key(site: u32, n: u16) -> Key {
    Key::Endpoint {
        rd: Rd {
            site: SiteId(site),
            slot: SlotId(0),
        },
        service: ServiceId(7),
        site: SiteId(site),
        network: NetworkId(0),
        address: [10, 0, 0, 1].into(),
        port: n,
        protocol: 6,
    }
}

fn route(site: u32, n: u16, state: State, seq: u32) -> LocalRoute {
    let health = EndpointHealth {
        state,
        seq: Seq(seq),
        ..EndpointHealth::default()
    };
    LocalRoute {
        key: key(site, n),
        value: Value::endpoint(&health),
        route_targets: vec![RouteTarget {
            tenant: TenantId(1),
            selector: RouteTarget::SERVICE,
        }],
        extra: vec![],
    }
}

struct Node {
    handle: Handle,
    events: mpsc::Receiver<Event>,
}

struct Net {
    tasks: JoinSet<Option<Close>>,
}

impl Net {
    fn new() -> Net {
        Net {
            tasks: JoinSet::new(),
        }
    }

    async fn node(&mut self, id: u32) -> Node {
        let mut config = SpeakerConfig::new(NodeId(id), ASN);
        config.fabric.hold_time = Duration::from_secs(9);
        config.fabric.end_of_rib_delay = Duration::ZERO;
        let (speaker, handle, events) = Speaker::new(config);
        self.tasks.spawn(async {
            speaker.run().await;
            None
        });
        handle.set_site_table(table()).await.expect("it runs");
        Node { handle, events }
    }

    fn session(&mut self, node: &Node, peer: PeerConfig, stream: DuplexStream) -> AbortHandle {
        let session = node.handle.session(peer, stream);
        self.tasks.spawn(async { Some(session.await) })
    }

    /// A gateway (site 11 or 12) and a `PoP`.
    fn attach(&mut self, pop: (&Node, u32), gateway: (&Node, u32, u32)) -> [AbortHandle; 2] {
        let (near, far) = duplex(4096);
        let client = PeerConfig::gateway(NodeId(gateway.1), SiteId(gateway.2));
        let reflector = PeerConfig::reflector(NodeId(pop.1), TenantId(1));
        [
            self.session(pop.0, client, near),
            self.session(gateway.0, reflector, far),
        ]
    }
}

impl Node {
    /// The next event for which `f` has an answer; within a minute of the paused clock.
    async fn wait<T>(&mut self, mut f: impl FnMut(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.events.recv().await.expect("it runs");
                if let Some(found) = f(&event) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(60), search)
            .await
            .expect("it happens")
    }

    /// Wait until the best route of `key` is this, (state, stale).
    async fn wait_route(&mut self, key: &Key, want: Option<(State, bool)>) {
        self.wait(|event| match event {
            Event::Change(change) if change.key == *key => {
                let best = change.best.as_ref();
                let got = best.map(|r| (r.value.state().expect("a head"), r.stale));
                (got == want).then_some(())
            }
            Event::Change(_) | Event::Up(_) | Event::Synced(_) | Event::Down(..) => None,
        })
        .await;
    }

    async fn wait_down(&mut self) -> (PeerId, Close) {
        self.wait(|event| match event {
            Event::Down(id, close) => Some((*id, close.clone())),
            Event::Change(_) | Event::Up(_) | Event::Synced(_) => None,
        })
        .await
    }
}

#[tokio::test(start_paused = true)]
async fn routes_are_exchanged_and_reflected() {
    let mut net = Net::new();
    let (mut pop, mut a, mut b) = (net.node(91).await, net.node(1).await, net.node(2).await);
    net.attach((&pop, 91), (&a, 1, 11));
    net.attach((&pop, 91), (&b, 2, 12));
    a.handle
        .originate(route(11, 1, State::Healthy, 1))
        .await
        .expect("it runs");
    pop.wait_route(&key(11, 1), Some((State::Healthy, false)))
        .await;
    b.wait_route(&key(11, 1), Some((State::Healthy, false)))
        .await;
    a.wait(|event| (*event == Event::Synced(PeerId(91))).then_some(()))
        .await;

    a.handle
        .originate(route(11, 1, State::Unhealthy, 2))
        .await
        .expect("it runs");
    b.wait_route(&key(11, 1), Some((State::Unhealthy, false)))
        .await;
    a.handle.withdraw(key(11, 1)).await.expect("it runs");
    b.wait_route(&key(11, 1), None).await;
    assert_eq!(pop.handle.snapshot(10).await.expect("it runs").total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_killed_session_leaves_stale_routes_until_it_is_back() {
    let mut net = Net::new();
    let (mut pop, a) = (net.node(91).await, net.node(1).await);
    let sessions = net.attach((&pop, 91), (&a, 1, 11));
    for n in [1, 2] {
        a.handle
            .originate(route(11, n, State::Healthy, 1))
            .await
            .expect("it runs");
        pop.wait_route(&key(11, n), Some((State::Healthy, false)))
            .await;
    }
    sessions[1].abort();
    let (id, close) = pop.wait_down().await;
    assert_eq!((id, close), (PeerId(1), Close::StreamEnded));
    let snapshot = pop.handle.snapshot(10).await.expect("it runs");
    let stale = |view: &crate::RouteView| view.paths.iter().all(|path| path.stale);
    assert_eq!(snapshot.routes.len(), 2);
    assert!(snapshot.routes.iter().all(stale), "{:?}", snapshot.routes);
    // Gone meanwhile: the End-of-RIB after the session is back says so.
    a.handle.withdraw(key(11, 2)).await.expect("it runs");
    net.attach((&pop, 91), (&a, 1, 11));
    pop.wait_route(&key(11, 2), None).await;
    let snapshot = pop.handle.snapshot(10).await.expect("it runs");
    assert_eq!((snapshot.total, stale(&snapshot.routes[0])), (1, false));
}

#[tokio::test(start_paused = true)]
async fn an_aborted_session_of_our_own_counts_as_ended() {
    let mut net = Net::new();
    let (mut pop, a) = (net.node(91).await, net.node(1).await);
    let sessions = net.attach((&pop, 91), (&a, 1, 11));
    pop.wait(|event| (*event == Event::Up(PeerId(1))).then_some(()))
        .await;
    sessions[0].abort();
    assert_eq!(pop.wait_down().await, (PeerId(1), Close::StreamEnded));
}

/// Speak BGP by hand up to Established.
async fn by_hand(stream: &mut DuplexStream) {
    let own = bgp::FabricConfig::new(NodeId(1), ASN);
    let open = PeerConfig::reflector(NodeId(91), TenantId(1))
        .connection(&own)
        .open();
    stream.write_all(&open.encode()).await.expect("it reads");
    stream
        .write_all(&bgp::wire::keepalive())
        .await
        .expect("it reads");
    stream.write_all(&wish()).await.expect("it reads");
}

/// An UPDATE that asks for all routes of tenant 1 (RFC 4684).
fn wish() -> Vec<u8> {
    let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
    bgp::wire::put_attribute(&mut attributes, 0x80, 14, &[0, 0, 0, 1]);
    let encoding = bgp::wire::Encoding {
        max_message: 4096,
        four_octet_as: true,
        add_path: false,
    };
    let mut out = Vec::new();
    let mut update =
        bgp::wire::UpdateBuilder::announce(&mut out, bgp::Family::RTC, &encoding, &attributes)
            .expect("small attributes");
    assert!(update.push(0, &[80, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1], &[]));
    update.finish();
    out
}

fn client() -> PeerConfig {
    PeerConfig::gateway(NodeId(1), SiteId(11))
}

#[tokio::test(start_paused = true)]
async fn silence_ends_the_session_after_the_hold_time() {
    let mut net = Net::new();
    let mut pop = net.node(91).await;
    let (near, mut far) = duplex(4096);
    net.session(&pop, client(), near);
    by_hand(&mut far).await;
    pop.wait(|event| (*event == Event::Up(PeerId(1))).then_some(()))
        .await;
    let up = tokio::time::Instant::now();
    let (_, close) = pop.wait_down().await;
    assert_eq!(close, Close::Sent(bgp::Notification::from((4, 0))));
    let took = up.elapsed();
    assert!(
        took >= Duration::from_secs(9) && took < Duration::from_millis(9100),
        "{took:?}"
    );
    let mut said = Vec::new();
    far.read_to_end(&mut said).await.expect("it closes");
    assert!(said.ends_with(&bgp::Notification::from((4, 0)).encode()));
}

#[tokio::test(start_paused = true)]
async fn a_neighbour_that_takes_nothing_is_cut() {
    let mut net = Net::new();
    let mut pop = net.node(91).await;
    let (near, mut far) = duplex(256);
    net.session(&pop, client(), near);
    by_hand(&mut far).await;
    pop.wait(|event| (*event == Event::Up(PeerId(1))).then_some(()))
        .await;
    let (mut reader, mut writer) = tokio::io::split(far);
    let mut got = [0; 200];
    reader
        .read_exact(&mut got[..64])
        .await
        .expect("OPEN and KEEPALIVE");
    for n in 0..1000 {
        pop.handle
            .originate(route(12, n, State::Healthy, 1))
            .await
            .expect("it runs");
    }
    let up = tokio::time::Instant::now();
    let keep_talking = async {
        loop {
            tokio::time::sleep(Duration::from_secs(3)).await;
            if writer.write_all(&bgp::wire::keepalive()).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let (_, close) = tokio::select! {
        down = pop.wait_down() => down,
        () = keep_talking => unreachable!("it talks for ever"),
    };
    assert_eq!(close, Close::Sent(bgp::Notification::new(8, 0)));
    let took = up.elapsed();
    assert!(
        took >= Duration::from_secs(18) && took < Duration::from_secs(20),
        "{took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn resets_and_replacements() {
    let mut net = Net::new();
    let (mut pop, mut a) = (net.node(91).await, net.node(1).await);
    net.attach((&pop, 91), (&a, 1, 11));
    pop.wait(|event| (*event == Event::Up(PeerId(1))).then_some(()))
        .await;
    pop.handle.reset(PeerId(1)).await.expect("it runs");
    let reset = bgp::Notification::new(6, 4);
    assert_eq!(
        a.wait_down().await,
        (PeerId(91), Close::Received(reset.clone()))
    );
    assert_eq!(pop.wait_down().await, (PeerId(1), Close::Sent(reset)));

    net.attach((&pop, 91), (&a, 1, 11));
    pop.wait(|event| (*event == Event::Up(PeerId(1))).then_some(()))
        .await;
    net.attach((&pop, 91), (&a, 1, 11));
    let (_, close) = pop.wait_down().await;
    assert_eq!(close, Close::Sent(bgp::Notification::new(6, 7)));
    pop.wait(|event| (*event == Event::Up(PeerId(1))).then_some(()))
        .await;
    let neighbors = pop.handle.snapshot(0).await.expect("it runs").neighbors;
    assert!(neighbors.len() == 1 && neighbors[0].view.up);

    pop.handle.remove(PeerId(1)).await.expect("it runs");
    a.wait_down().await;
    assert!(
        pop.handle
            .snapshot(0)
            .await
            .expect("it runs")
            .neighbors
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn the_wrong_neighbour_is_refused() {
    let mut net = Net::new();
    let pop = net.node(91).await;
    let (near, mut far) = duplex(4096);
    let expected = PeerConfig::gateway(NodeId(2), SiteId(12));
    let session = pop.handle.session(expected, near);
    by_hand(&mut far).await;
    assert_eq!(session.await, Close::Sent(bgp::Notification::from((2, 3))));
}

#[tokio::test(start_paused = true)]
async fn nobody_listening_and_a_large_table() {
    let mut net = Net::new();
    let (mut pop, a) = (net.node(91).await, net.node(1).await);
    net.attach((&pop, 91), (&a, 1, 11));
    // Far more than the event queue holds; nobody reads `a`'s events at all.
    for seq in 1..=2 {
        for n in 0..3000 {
            a.handle
                .originate(route(11, n, State::Healthy, seq))
                .await
                .expect("it runs");
        }
    }
    let last = route(11, 2999, State::Healthy, 2);
    pop.wait(|event| match event {
        Event::Change(change) if change.key == last.key => change
            .best
            .as_ref()
            .filter(|route| route.value == last.value)
            .map(|_| ()),
        Event::Change(_) | Event::Up(_) | Event::Synced(_) | Event::Down(..) => None,
    })
    .await;
    let snapshot = pop.handle.snapshot(10).await.expect("it runs");
    assert_eq!((snapshot.total, snapshot.routes.len()), (3000, 10));
}

/// Counts wake-ups of a future that is polled by hand.
struct Count(Arc<AtomicUsize>);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_speaker_sleeps() {
    let (speaker, handle, _events) = Speaker::new(SpeakerConfig::new(NodeId(1), ASN));
    let wakes = Arc::new(AtomicUsize::new(0));
    let waker = Waker::from(Arc::new(Count(wakes.clone())));
    let mut run = Box::pin(speaker.run());
    let mut poll = || run.as_mut().poll(&mut Context::from_waker(&waker));
    assert_eq!(poll(), Poll::Pending);
    assert_eq!(wakes.load(Ordering::Relaxed), 0);
    drop(handle);
    assert_eq!(wakes.load(Ordering::Relaxed), 1);
    assert_eq!(poll(), Poll::Ready(()), "without handles it ends");
}
