//! The server against neighbours that follow a script, over loopback.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use base::NodeId;
use bgp::{
    table::{Filter, Kind},
    wire::{
        Encoding, Family, MessageKind, OpenMessage, Scratch, UpdateBuilder, UpdateContext,
        UpdateFindings, decode, end_of_rib, frame,
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::*;

const ASN: u32 = 65000;
const SOON: Duration = Duration::from_secs(20);

/// The address of the `at`th neighbour.
fn address(at: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 77, at)
}

fn neighbor(at: u8) -> NeighborConfig {
    NeighborConfig {
        address: IpAddr::V4(address(at)),
        port: 179,
        asn: ASN,
        kind: Kind::Client,
        passive: true,
        local_address: None,
        password: None,
        gtsm: false,
        hold_time: Duration::from_secs(90),
        families: vec![NeighborFamily {
            family: Family::IPV4,
            add_path_send: 0,
            add_path_receive: false,
            max_routes: 1_000_000,
        }],
        import: Arc::new(Filter::Accept),
        export: Arc::new(Filter::Accept),
        next_hop: NextHopChoice::Unchanged,
        next_hop_addresses: Vec::new(),
        extended_messages: false,
        bfd: None,
        restart_time: Some(Duration::from_secs(120)),
        long_lived: Duration::ZERO,
    }
}

async fn serve(shards: usize, neighbors: Vec<NeighborConfig>) -> (Server, SocketAddr) {
    serve_again(shards, neighbors, false).await
}

async fn serve_again(
    shards: usize,
    neighbors: Vec<NeighborConfig>,
    restarted: bool,
) -> (Server, SocketAddr) {
    for _ in 0..20 {
        // A port that was free a moment ago.
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a socket");
        let listen = free.local_addr().expect("an address");
        drop(free);
        let config = ServerConfig {
            asn: ASN,
            node: NodeId(99),
            listen: vec![listen],
            shards,
            neighbors: neighbors.clone(),
            bfd: None,
            next_hop_interval: None,
            routes: Vec::new(),
            restarted,
        };
        if let Ok(server) = Server::start(config).await {
            return (server, listen);
        }
    }
    panic!("no port is free");
}

/// A neighbour's end of a session.
struct Script {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What it holds: keys and the last octet of their next hops.
    heard: BTreeMap<Vec<u8>, u8>,
    /// Keys of it that are long-lived stale.
    stale: BTreeSet<Vec<u8>>,
    ended: usize,
    /// The flags of the server's graceful restart capability.
    restart_bits: Option<u8>,
}

impl Script {
    async fn connect(at: u8, to: SocketAddr) -> Script {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .bind(SocketAddr::from((address(at), 0)))
            .expect("loopback has this address");
        let stream = socket.connect(to).await.expect("the server listens");
        Script {
            stream,
            buffer: Vec::new(),
            heard: BTreeMap::new(),
            stale: BTreeSet::new(),
            ended: 0,
            restart_bits: None,
        }
    }

    /// OPEN with IPv4, 4-octet AS and graceful restart, and KEEPALIVE in the same write;
    /// `restarted`: with the R bit.
    async fn open(at: u8, to: SocketAddr, restarted: bool) -> Script {
        let restart = [64, 6, u8::from(restarted) << 7, 120, 0, 1, 1, 0x80];
        Script::open_with(at, to, &restart).await
    }

    /// The same with graceful restart for a second, and long-lived for three more.
    async fn open_long_lived(at: u8, to: SocketAddr) -> Script {
        let restart = [64, 6, 0, 1, 0, 1, 1, 0x80];
        let long_lived = [71, 7, 0, 1, 1, 0x80, 0, 0, 3];
        Script::open_with(at, to, &[&restart[..], &long_lived].concat()).await
    }

    /// OPEN with these capabilities beside IPv4 and 4-octet AS.
    async fn open_with(at: u8, to: SocketAddr, more: &[u8]) -> Script {
        let mut script = Script::connect(at, to).await;
        let asn = u16::try_from(ASN).expect("small").to_be_bytes();
        let mut body = vec![4, asn[0], asn[1], 0, 90];
        body.extend([10, 0, 0, at]);
        let mut capabilities = vec![1, 4, 0, 1, 0, 1, 65, 4];
        capabilities.extend(ASN.to_be_bytes());
        capabilities.extend_from_slice(more);
        let length = u8::try_from(capabilities.len()).expect("small");
        body.extend([length + 2, 2, length]);
        body.extend(capabilities);
        let mut octets = message(1, &body);
        octets.extend(message(4, &[]));
        script.stream.write_all(&octets).await.expect("it reads");
        script
    }

    async fn say(&mut self, keys: impl Iterator<Item = u16>, next_hop: u8, announce: bool) {
        let encoding = Encoding {
            max_message: 4096,
            four_octet_as: true,
            add_path: false,
        };
        let mut attributes = vec![0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100];
        attributes.extend([0x80, 14, 4, 10, 0, 0, next_hop]);
        let mut out = Vec::new();
        let mut update = if announce {
            UpdateBuilder::announce(&mut out, Family::IPV4, &encoding, &attributes)
                .expect("small attributes")
        } else {
            UpdateBuilder::withdraw(&mut out, Family::IPV4, &encoding)
        };
        for key in keys {
            let [a, b] = key.to_be_bytes();
            assert!(update.push(0, &[24, 20, a, b], &[]), "a small message");
        }
        update.finish();
        self.stream.write_all(&out).await.expect("it reads");
    }

    async fn end_of_rib(&mut self) {
        let end = end_of_rib(Family::IPV4);
        self.stream.write_all(&end).await.expect("it reads");
    }

    /// Read until `done`, or fail.
    async fn until(&mut self, what: &str, done: impl Fn(&Script) -> bool) {
        let read = async {
            while !done(self) {
                let count = self.stream.read_buf(&mut self.buffer).await;
                assert!(count.is_ok_and(|count| count > 0), "{what}: closed");
                self.take();
            }
        };
        assert!(timeout(SOON, read).await.is_ok(), "{what}: never");
    }

    /// Read for a while, whatever comes.
    async fn for_a_while(&mut self, time: Duration) {
        let read = async {
            while let Ok(1..) = self.stream.read_buf(&mut self.buffer).await {
                self.take();
            }
        };
        let _ = timeout(time, read).await;
    }

    fn take(&mut self) {
        let context = UpdateContext {
            four_octet_as: true,
            ebgp: false,
            families: vec![Family::IPV4],
            add_path: Vec::new(),
            extended_next_hop: Vec::new(),
        };
        while let Some((kind, length)) = frame(&self.buffer, 4096).expect("a good frame") {
            let body: Vec<u8> = self.buffer.drain(..length).skip(19).collect();
            if kind != MessageKind::Update {
                if kind == MessageKind::Open {
                    let open = OpenMessage::decode(&body).expect("a good OPEN");
                    let restart = open.capabilities.graceful_restart;
                    self.restart_bits = restart.map(|restart| {
                        u8::from(restart.restarting) << 7 | u8::from(restart.notification) << 6
                    });
                }
                assert_ne!(kind, MessageKind::Notification, "NOTIFICATION {body:?}");
                continue;
            }
            let mut scratch = Scratch::default();
            let mut findings = UpdateFindings::default();
            let update = decode(&body, &context, &mut scratch, &mut findings).expect("good");
            self.ended += usize::from(update.end_of_rib.is_some());
            for section in update.withdrawn.iter().flatten() {
                section.for_each(false, |nlri| {
                    self.heard.remove(nlri.key);
                    self.stale.remove(nlri.key);
                });
            }
            for (section, attributes) in update.announced.iter().zip(update.attributes) {
                let view = AttributesView(attributes.unwrap_or_default());
                let stale = view.communities().any(|one| one == 0xFFFF_0006);
                let last = view.next_hop().last().copied().unwrap_or(0);
                if let Some(section) = section {
                    section.for_each(true, |nlri| {
                        self.heard.insert(nlri.key.to_vec(), last);
                        self.stale.remove(nlri.key);
                        if stale {
                            self.stale.insert(nlri.key.to_vec());
                        }
                    });
                }
            }
        }
    }
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![0xFF; 16];
    let length = u16::try_from(19 + body.len()).expect("small");
    out.extend(length.to_be_bytes());
    out.push(kind);
    out.extend_from_slice(body);
    out
}

#[tokio::test]
async fn a_neighbour_that_restarts_unnoticed_is_told_everything_again() {
    for shards in [1, 2] {
        let (server, to) = serve(shards, vec![neighbor(1), neighbor(2)]).await;
        let mut first = Script::open(1, to, false).await;
        let mut second = Script::open(2, to, false).await;
        second.say(0..50, 2, true).await;
        first.say(100..150, 1, true).await;
        first
            .until("the routes", |s| s.heard.len() == 50 && s.ended == 1)
            .await;
        second
            .until("the routes", |s| s.heard.len() == 50 && s.ended == 1)
            .await;
        // Its OPEN and KEEPALIVE come in one read, before the old connection ends.
        let mut again = Script::open(1, to, true).await;
        again
            .until("the whole table", |s| s.heard.len() == 50 && s.ended == 1)
            .await;
        second.for_a_while(Duration::from_millis(200)).await;
        assert_eq!(second.heard.len(), 50, "kept while it restarts");
        again.say(100..120, 1, true).await;
        again.end_of_rib().await;
        second
            .until("the end of the others", |s| s.heard.len() == 20)
            .await;
        second.say(60..61, 2, true).await;
        again.until("a change", |s| s.heard.len() == 51).await;
        drop(first);
        server.stop(Duration::from_secs(2)).await;
    }
}

#[tokio::test]
async fn nothing_of_an_old_session_reaches_the_new_one() {
    let (server, to) = serve(2, vec![neighbor(1), neighbor(2), neighbor(3)]).await;
    let mut source = Script::open(1, to, false).await;
    source.until("its end", |s| s.ended == 1).await;
    let mut old = None;
    for round in 0..40_u8 {
        // Changes are on their way to both neighbours' sessions while these begin anew.
        source.say(0..400, round, true).await;
        source.say(400..800, round, round % 2 == 0).await;
        // They take the place of those before, which have not ended yet.
        let mut sinks = [
            Script::open(2, to, round % 2 == 1).await,
            Script::open(3, to, round % 2 == 1).await,
        ];
        for sink in &mut sinks {
            let count = if round % 2 == 0 { 800 } else { 400 };
            let right = |s: &Script| {
                s.ended == 1 && s.heard.len() == count && s.heard.values().all(|n| *n == round)
            };
            sink.until("the table of this round", right).await;
        }
        source.say(0..400, 200, true).await;
        // Only every other session is known to be a restart; the rest end first.
        old = (round % 2 == 0).then_some(sinks);
        if round % 2 == 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            for at in [2, 3] {
                // Not held back for having ended so soon.
                server.order(IpAddr::V4(address(at)), Order::Reset).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    drop(old);
    server.stop(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn too_many_routes_end_the_session_and_a_reset_begins_it_again() {
    let mut limited = neighbor(1);
    limited.families[0].max_routes = 10;
    let (server, to) = serve(2, vec![limited]).await;
    let mut script = Script::open(1, to, false).await;
    script.until("its end", |s| s.ended == 1).await;
    script.say(0..50, 1, true).await;
    let mut last = Vec::new();
    let read = timeout(SOON, script.stream.read_to_end(&mut last)).await;
    assert!(read.is_ok(), "the session ends");
    let cease = &last[last.len() - 28..];
    assert_eq!(cease[18..], [3, 6, 1, 0, 1, 1, 0, 0, 0, 10]);
    // It stays away until somebody says otherwise.
    let mut refused = Script::connect(1, to).await;
    let mut words = Vec::new();
    let _ = timeout(SOON, refused.stream.read_to_end(&mut words)).await;
    assert_eq!(
        words.get(18..21),
        Some(&[3, 6, 5][..]),
        "connection rejected"
    );
    assert!(server.order(IpAddr::V4(address(1)), Order::Reset).await);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut script = Script::open(1, to, false).await;
    script.until("its end", |s| s.ended == 1).await;
    server.stop(Duration::from_secs(2)).await;
}

#[test]
fn octets_that_another_thread_sent_before_it_knew_the_session_are_dropped() {
    let (mail, _boxes): (Vec<_>, Vec<_>) = (0..2).map(|_| mpsc::channel(8)).unzip();
    let peer = PeerIndex(2);
    let shard = Shard::new(ShardConfig {
        asn: ASN,
        node: NodeId(99),
        families: vec![Family::IPV4],
        seed: 1,
        deferred: false,
        holds_ends: false,
        watched: Vec::new(),
        tells_constraint: true,
    });
    let worker = Worker::new(
        0,
        shard,
        &[neighbor(1), neighbor(2)],
        mail,
        Arc::new(Restart::new(std::iter::empty())),
        None,
    );
    let octets = || Mail::Octets(1, vec![peer], bytes::Bytes::from_static(b"octets"));
    let outbox = || Rc::new(outbox::Outbox::new());
    let (first, second) = (outbox(), outbox());
    worker
        .outboxes
        .borrow_mut()
        .insert(peer, (1, first.clone()));
    worker.open(Mail::Joined(1, peer, 1));
    worker.open(octets());
    assert!(!first.is_empty());
    worker
        .outboxes
        .borrow_mut()
        .insert(peer, (2, second.clone()));
    worker.open(octets());
    assert!(second.is_empty(), "they are the old session's");
    worker.open(Mail::Joined(1, peer, 2));
    worker.open(octets());
    assert!(!second.is_empty());
}

#[tokio::test]
async fn after_a_restart_nothing_is_told_before_all_have_said_all() {
    let neighbors = vec![neighbor(1), neighbor(2), neighbor(3)];
    let (server, to) = serve_again(2, neighbors, true).await;
    let mut first = Script::open(1, to, false).await;
    // This one restarts as well: nobody waits for it.
    let mut second = Script::open(2, to, true).await;
    let mut third = Script::open(3, to, false).await;
    first.say(0..50, 1, true).await;
    first.end_of_rib().await;
    second.for_a_while(Duration::from_millis(300)).await;
    assert_eq!((second.heard.len(), second.ended), (0, 0));
    assert_eq!(second.restart_bits, Some(0x80 | 0x40), "R and N");
    third.say(50..60, 3, true).await;
    third.end_of_rib().await;
    second.until("all of it", |s| s.ended == 1).await;
    assert_eq!(second.heard.len(), 60);
    drop(second);
    tokio::time::sleep(Duration::from_millis(50)).await;
    server.order(IpAddr::V4(address(2)), Order::Reset).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut again = Script::open(2, to, false).await;
    again.until("all of it", |s| s.ended == 1).await;
    assert_eq!(again.restart_bits, Some(0x40), "the restart is over");
    server.stop(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn routes_outlive_a_neighbour_that_asks_for_it_behind_all_others() {
    let long_lived = |at| NeighborConfig {
        long_lived: Duration::from_secs(3600),
        ..neighbor(at)
    };
    let (server, to) = serve(2, vec![long_lived(1), long_lived(2), neighbor(3)]).await;
    let mut source = Script::open_long_lived(1, to).await;
    let mut knows = Script::open_long_lived(2, to).await;
    let mut does_not = Script::open(3, to, false).await;
    source.say(0..50, 1, true).await;
    source.end_of_rib().await;
    let all = |s: &Script| s.heard.len() == 50 && s.ended == 1 && s.stale.is_empty();
    knows.until("the routes", all).await;
    does_not.until("the routes", all).await;
    let began = runtime::now();
    drop(source);
    knows
        .until("long-lived stale routes", |s| s.stale.len() == 50)
        .await;
    let after = runtime::now().since(began);
    assert!(after > Duration::from_millis(900), "not at once");
    does_not
        .until("the end of what it would not know", |s| s.heard.is_empty())
        .await;
    // Not held back for having ended so soon.
    server.order(IpAddr::V4(address(1)), Order::Reset).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // It comes back, says some of them, and goes without having said all.
    let mut source = Script::open_long_lived(1, to).await;
    source.until("its end", |s| s.ended == 1).await;
    source.say(0..10, 1, true).await;
    knows.until("fresh routes", |s| s.stale.len() == 40).await;
    drop(source);
    // The time that began with the first end is over for all.
    knows.until("their end", |s| s.heard.is_empty()).await;
    server.stop(Duration::from_secs(2)).await;
}
