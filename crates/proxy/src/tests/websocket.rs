//! WebSocket (RFC 6455) through a connection that was handed over: the proxy is no endpoint of it,
//! and every octet arrives as it was sent, over HTTP/1.1 and over HTTP/2 (RFC 8441).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use balance::Health::Healthy;
use base::SiteId;
use l7::{
    Limits,
    policy::{Rate, RuleAction, Undecided},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

use super::{
    policy::{DENY, from, guard, open, path, shadowed},
    rfc9113::wire::{
        CANCEL, DATA, END_HEADERS, END_STREAM, HEADERS, INITIAL_WINDOW_SIZE, Peer, RST_STREAM,
        block, data, frame, reset, status, window_update, word,
    },
    world::{PATIENCE, World},
};
use crate::Snapshot;

pub(super) const ASK: &str = "GET /talk HTTP/1.1\r\nHost: cart.acme.example\r\nConnection: Upgrade\r\n\
                   Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An endpoint that agrees to whoever asks and then is the test's.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    agreed: mpsc::Receiver<TcpStream>,
    _tasks: runtime::Tasks,
}

impl Endpoint {
    pub(super) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (agree, agreed) = mpsc::channel(8);
        let tasks = runtime::Tasks::new("endpoint");
        tasks.spawn("accept", async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.expect("a head"));
                }
                stream.write_all(AGREED.as_bytes()).await.expect("written");
                let _ = agree.send(stream).await;
            }
        });
        Endpoint {
            address,
            agreed,
            _tasks: tasks,
        }
    }

    pub(super) async fn next(&mut self) -> TcpStream {
        let agreed = timeout(PATIENCE, self.agreed.recv()).await;
        agreed.expect("in time").expect("a connection")
    }
}

/// Both ends of a connection that was handed over.
async fn handed_over() -> (World, Endpoint, TcpStream, TcpStream) {
    handed_over_within(Limits::default()).await
}

async fn handed_over_within(limits: Limits) -> (World, Endpoint, TcpStream, TcpStream) {
    let world = World::as_peer("par.fabric", limits).await;
    let mut endpoint = Endpoint::new().await;
    world.endpoints(&[(endpoint.address, Healthy)]);
    let client = TcpStream::connect(world.http).await.expect("connected");
    client.set_nodelay(true).expect("set");
    let (client, far) = handed_over_to(&mut endpoint, client, ASK).await;
    (world, endpoint, client, far)
}

/// A client's connection, handed over to what it asks for, and the other end.
pub(super) async fn handed_over_to<S: AsyncRead + AsyncWrite + Unpin>(
    endpoint: &mut Endpoint,
    mut client: S,
    ask: &str,
) -> (S, TcpStream) {
    client.write_all(ask.as_bytes()).await.expect("written");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.expect("a head"));
    }
    let head = String::from_utf8_lossy(&head);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let far = endpoint.next().await;
    far.set_nodelay(true).expect("set");
    (client, far)
}

/// A frame (RFC 6455 §5.2); clients mask.
fn ws(first: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask = if masked { 0x80 } else { 0 };
    let mut out = vec![first];
    match payload.len() {
        short @ 0..=125 => out.push(mask | u8::try_from(short).expect("short")),
        middle @ 126..=0xFFFF => {
            out.push(mask | 126);
            out.extend(u16::try_from(middle).expect("middle").to_be_bytes());
        }
        long => {
            out.push(mask | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    if masked {
        let key = [0x37, 0xFA, 0x21, 0x3D];
        out.extend(key);
        out.extend(
            payload
                .iter()
                .zip(key.iter().cycle())
                .map(|(octet, key)| octet ^ key),
        );
    } else {
        out.extend_from_slice(payload);
    }
    out
}

/// Frames of every sort, good and bad: what they mean is between client and endpoint.
fn all_sorts(masked: bool) -> Vec<Vec<u8>> {
    let mut all = vec![
        ws(0x81, masked, b""),
        ws(0x81, masked, "tëxt".as_bytes()),
        ws(0x82, masked, &[0; 125]),
        ws(0x82, masked, &[1; 126]),
        ws(0x82, masked, &[2; 127]),
        // A message in fragments, a ping between them.
        ws(0x01, masked, b"frag"),
        ws(0x89, masked, b"ping"),
        ws(0x00, masked, b"men"),
        ws(0x8A, masked, b"ping"),
        ws(0x80, masked, b"ted"),
        // What no endpoint may send: reserved bits and kinds, no mask or one too many, text that
        // is none, a long ping, a continuation of nothing, a length in too many octets.
        ws(0xF1, masked, b"bits"),
        ws(0x83, masked, b"kind"),
        ws(0x8F, masked, b"kind"),
        ws(0x81, !masked, b"mask"),
        ws(0x81, masked, &[0xFF, 0xFE]),
        ws(0x89, masked, &[0; 126]),
        ws(0x09, masked, b"a ping in fragments"),
        ws(0x80, masked, b"nothing"),
        vec![0x82, 126, 0, 1, 7],
        vec![0x82, 127, 0, 0, 0, 0, 0, 0, 0, 1, 7],
        vec![0x82, 127, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF],
        // What looks like HTTP is none any more.
        b"GET /SMUGGLED HTTP/1.1\r\nHost: cart.acme.example\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        b"0\r\n\r\n".to_vec(),
    ];
    for code in [
        1000u16, 1001, 1002, 1003, 1005, 1006, 1007, 1015, 3000, 4999, 0, 999, 65_535,
    ] {
        let reason = [&code.to_be_bytes()[..], b"because"].concat();
        all.push(ws(0x88, masked, &reason));
    }
    all.push(ws(0x88, masked, b""));
    all.push(ws(0x88, masked, &[3]));
    all
}

pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), count: usize) -> Vec<u8> {
    let mut octets = vec![0; count];
    let read = timeout(PATIENCE, stream.read_exact(&mut octets)).await;
    read.expect("in time").expect("read");
    octets
}

async fn ended(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    let _ = end.expect("in time");
    assert_eq!(rest, b"");
}

#[tokio::test]
async fn frames_of_every_sort_pass_untouched() {
    let (_world, _endpoint, mut client, mut far) = handed_over().await;
    for (there, back) in all_sorts(true).into_iter().zip(all_sorts(false)) {
        client.write_all(&there).await.expect("written");
        assert_eq!(read(&mut far, there.len()).await, there);
        far.write_all(&back).await.expect("written");
        assert_eq!(read(&mut client, back.len()).await, back);
    }
}

#[tokio::test]
async fn frames_may_be_cut_between_any_two_octets() {
    let (_world, _endpoint, mut client, mut far) = handed_over().await;
    let (there, back) = (all_sorts(true).concat(), all_sorts(false).concat());
    for cut in 0..=there.len() {
        let (one, two) = there.split_at(cut);
        client.write_all(one).await.expect("written");
        // What came first is there before the rest is sent.
        let mut seen = read(&mut far, one.len()).await;
        client.write_all(two).await.expect("written");
        seen.extend(read(&mut far, two.len()).await);
        assert_eq!(seen, there, "cut at {cut}");
    }
    for octet in &back {
        far.write_all(&[*octet]).await.expect("written");
        assert_eq!(read(&mut client, 1).await, [*octet]);
    }
}

#[tokio::test]
async fn messages_of_all_sizes() {
    let (_world, _endpoint, client, far) = handed_over().await;
    let sizes = [0, 1, 125, 126, 65_535, 65_536, 1 << 20, 16 << 20];
    let frames = sizes.map(|size| ws(0x82, true, &vec![b'x'; size])).concat();
    let total = frames.len();
    let (mut read, mut write) = client.into_split();
    let (mut from, mut to) = far.into_split();
    // The endpoint sends back what it gets.
    let echo = async { tokio::io::copy(&mut from, &mut to).await.expect("copied") };
    let say = async {
        write.write_all(&frames).await.expect("written");
        write.shutdown().await.expect("ended");
    };
    let hear = async {
        let mut all = vec![0; total];
        read.read_exact(&mut all).await.expect("read");
        assert!(all == frames);
    };
    let all = async { tokio::join!(echo, say, hear) };
    timeout(PATIENCE * 3, all).await.expect("in time");
}

/// Each side hears that the other has ended, may still speak, and ends on its own.
#[tokio::test]
async fn an_end_is_passed_on_at_once() {
    for ours in [true, false] {
        let (_world, _endpoint, client, far) = handed_over().await;
        let (mut first, mut second) = if ours { (client, far) } else { (far, client) };
        let close = ws(0x88, ours, &[0x03, 0xE8]);
        first.write_all(&close).await.expect("written");
        first.shutdown().await.expect("ended");
        assert_eq!(read(&mut second, close.len()).await, close);
        ended(&mut second).await;
        // The half that is left still carries.
        second.write_all(b"still here").await.expect("written");
        assert_eq!(read(&mut first, 10).await, b"still here");
        second.shutdown().await.expect("ended");
        ended(&mut first).await;
    }
}

/// A connection that breaks is closed on the other side as well, without waiting for anything.
#[tokio::test]
async fn a_reset_is_passed_on_at_once() {
    for ours in [true, false] {
        let (_world, _endpoint, client, far) = handed_over().await;
        let (first, mut second) = if ours { (client, far) } else { (far, client) };
        // Closing with zero linger sends RST.
        socket_reset(first);
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, second.read_to_end(&mut rest)).await;
        let _ = end.expect("in time");
        assert_eq!(rest, b"");
    }
}

fn socket_reset(stream: TcpStream) {
    stream.set_zero_linger().expect("set");
    drop(stream);
}

/// Who does not read stops the other: what is on the way is bounded.
#[tokio::test]
async fn a_slow_reader_slows_the_sender() {
    for ours in [true, false] {
        let (_world, _endpoint, client, far) = handed_over().await;
        let (mut sender, mut reader) = if ours { (client, far) } else { (far, client) };
        let piece = vec![b'x'; 1 << 20];
        let mut sent = 0;
        // Until nothing goes any more: sockets, streams and we ourselves are full.
        while let Ok(wrote) = timeout(Duration::from_millis(500), sender.write(&piece)).await {
            sent += wrote.expect("written");
            assert!(sent < 256 << 20, "256 MiB went to nobody");
        }
        let all = timeout(PATIENCE * 3, async { read_all(&mut reader, sent).await }).await;
        all.expect("in time");
        // And then it goes on.
        sender.write_all(b"more").await.expect("written");
        assert_eq!(read(&mut reader, 4).await, b"more");
    }
}

async fn read_all(stream: &mut TcpStream, mut left: usize) {
    let mut buf = vec![0; 1 << 20];
    while left > 0 {
        let most = left.min(buf.len());
        left -= stream.read(&mut buf[..most]).await.expect("read");
    }
}

/// RFC 8441: a stream instead of a connection.
async fn over_http2(window: u32) -> (World, Endpoint, Peer, TcpStream) {
    over_http2_within(window, Limits::default()).await
}

async fn over_http2_within(window: u32, limits: Limits) -> (World, Endpoint, Peer, TcpStream) {
    let world = World::as_peer("par.fabric", limits).await;
    let mut endpoint = Endpoint::new().await;
    world.endpoints(&[(endpoint.address, Healthy)]);
    let mut peer = Peer::new(&world, &[(INITIAL_WINDOW_SIZE, window)]).await;
    let ask = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/talk"),
        (":authority", "cart.acme.example"),
        ("sec-websocket-version", "13"),
    ];
    peer.send(&frame(HEADERS, END_HEADERS, 1, block(&ask)))
        .await;
    let head = peer
        .until(1, &[HEADERS, RST_STREAM])
        .await
        .expect("a frame");
    assert_eq!((head.kind, status(&head.payload)), (HEADERS, 200));
    assert_eq!(head.flags & END_STREAM, 0);
    let far = endpoint.next().await;
    far.set_nodelay(true).expect("set");
    (world, endpoint, peer, far)
}

async fn heard(peer: &mut Peer, count: usize) -> Vec<u8> {
    let mut octets = Vec::new();
    while octets.len() < count {
        let frame = peer.until(1, &[DATA, RST_STREAM]).await.expect("a frame");
        assert_eq!((frame.kind, frame.flags & END_STREAM), (DATA, 0));
        octets.extend(frame.payload);
    }
    octets
}

#[tokio::test]
async fn http2_frames_of_every_sort_pass_untouched() {
    let (_world, _endpoint, mut peer, mut far) = over_http2(65_535).await;
    for (there, back) in all_sorts(true).into_iter().zip(all_sorts(false)) {
        peer.send(&data(1, 0, &there)).await;
        assert_eq!(read(&mut far, there.len()).await, there);
        far.write_all(&back).await.expect("written");
        assert_eq!(heard(&mut peer, back.len()).await, back);
    }
    let there = all_sorts(true).concat();
    for octet in &there {
        peer.send(&data(1, 0, &[*octet])).await;
    }
    assert_eq!(read(&mut far, there.len()).await, there);
}

/// RFC 8441 §5: the end of a stream is the end of a connection's half, a reset its break.
#[tokio::test]
async fn http2_ends_are_passed_on_at_once() {
    let (_world, _endpoint, mut peer, mut far) = over_http2(65_535).await;
    peer.send(&data(1, END_STREAM, b"bye")).await;
    assert_eq!(read(&mut far, 3).await, b"bye");
    ended(&mut far).await;
    far.write_all(b"still here").await.expect("written");
    assert_eq!(heard(&mut peer, 10).await, b"still here");
    drop(far);
    let end = peer.until(1, &[DATA, RST_STREAM]).await.expect("a frame");
    assert_eq!(
        (end.kind, end.flags & END_STREAM, end.payload.len()),
        (DATA, END_STREAM, 0)
    );

    let (_world, _endpoint, mut peer, mut far) = over_http2(65_535).await;
    peer.send(&reset(1, CANCEL)).await;
    let mut rest = Vec::new();
    let end = timeout(PATIENCE, far.read_to_end(&mut rest)).await;
    let _ = end.expect("in time");

    let (_world, _endpoint, mut peer, far) = over_http2(65_535).await;
    socket_reset(far);
    loop {
        let end = peer.until(1, &[DATA, RST_STREAM]).await.expect("a frame");
        if end.kind == RST_STREAM {
            // §5 of RFC 8441 has CANCEL for it; any code says that it did not end in order.
            assert_ne!(word(&end.payload), 0);
            break;
        }
        if end.flags & END_STREAM != 0 {
            break;
        }
    }
}

/// A window that is full stops the endpoint.
#[tokio::test]
async fn http2_a_full_window_slows_the_endpoint() {
    let (_world, _endpoint, mut peer, mut far) = over_http2(10).await;
    let piece = vec![b'x'; 1 << 20];
    let mut sent = 0;
    while let Ok(wrote) = timeout(Duration::from_millis(500), far.write(&piece)).await {
        sent += wrote.expect("written");
        assert!(sent < 256 << 20, "256 MiB went to nobody");
    }
    assert_eq!(heard(&mut peer, 10).await.len(), 10);
    peer.send(&window_update(1, 1000)).await;
    assert_eq!(heard(&mut peer, 1000).await.len(), 1000);
}

/// How long what is withdrawn goes on.
const DRAIN: Duration = Duration::from_millis(50);

fn short() -> Limits {
    Limits {
        drain_timeout: DRAIN,
        ..Limits::default()
    }
}

/// Close, going away, from an endpoint and from a client.
const AWAY: [u8; 4] = [0x88, 2, 0x03, 0xE9];
const AWAY_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE9];

/// Its load balancer is not there any more.
async fn withdraw(world: &World) {
    let now = world.pop.snapshot();
    world.pop.store(Arc::new(Snapshot {
        table: Arc::default(),
        ..Snapshot::clone(&now)
    }));
    world.pop.set_listeners(&[]).await;
}

async fn recorded(world: &World) -> serde_json::Value {
    let path = world.log.path().join("access.log");
    let line = async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                break serde_json::from_str(line).expect("JSON");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, line).await.expect("in time")
}

#[tokio::test]
async fn both_sides_of_one_that_is_withdrawn_are_told() {
    let (world, _endpoint, mut client, mut far) = handed_over_within(short()).await;
    // Others come and go, and it stays.
    world.route(|_| {});
    world.pop.set_listeners(&[]).await;
    tokio::time::sleep(4 * DRAIN).await;
    for (octets, masked) in [
        (ws(0x81, true, b"there"), true),
        (ws(0x01, false, b"back"), false),
    ] {
        let (from, to) = match masked {
            true => (&mut client, &mut far),
            false => (&mut far, &mut client),
        };
        from.write_all(&octets).await.expect("written");
        assert_eq!(read(to, octets.len()).await, octets);
    }
    withdraw(&world).await;
    assert_eq!(read(&mut client, 4).await, AWAY);
    ended(&mut client).await;
    assert_eq!(read(&mut far, 8).await, AWAY_MASKED);
    ended(&mut far).await;
    // They have their answer taken, and are not reset.
    for (side, masked) in [(&mut client, true), (&mut far, false)] {
        side.write_all(&ws(0x88, masked, &[0x03, 0xE9]))
            .await
            .expect("written");
        side.shutdown().await.expect("ended");
    }
    let record = recorded(&world).await;
    assert_eq!(
        (&record["error"], &record["fault"]),
        (&"withdrawn".into(), &"us".into())
    );
}

#[tokio::test]
async fn nothing_is_said_within_a_frame_or_after_a_close() {
    let long = ws(0x81, false, b"a long message");
    for (said, cut) in [
        (long.clone(), long.len() - 1),
        (ws(0x88, false, &[0x03, 0xE8]), 4),
    ] {
        let (world, _endpoint, mut client, mut far) = handed_over_within(short()).await;
        far.write_all(&said[..cut]).await.expect("written");
        assert_eq!(read(&mut client, cut).await, said[..cut]);
        withdraw(&world).await;
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, client.read_to_end(&mut rest)).await;
        let error = end.expect("in time").expect_err("a reset");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        assert_eq!(rest, b"");
        assert_eq!(recorded(&world).await["error"], "withdrawn");
    }
}

/// What the first stream says until it ends in order.
async fn last_said(peer: &mut Peer) -> Vec<u8> {
    let mut said = Vec::new();
    loop {
        let frame = peer.until(1, &[DATA, RST_STREAM]).await.expect("a frame");
        assert_eq!(frame.kind, DATA);
        said.extend(frame.payload);
        if frame.flags & END_STREAM != 0 {
            return said;
        }
    }
}

#[tokio::test]
async fn http2_one_that_is_withdrawn_ends_in_order() {
    let (world, _endpoint, mut peer, mut far) = over_http2_within(65_535, short()).await;
    withdraw(&world).await;
    assert_eq!(last_said(&mut peer).await, AWAY);
    assert_eq!(read(&mut far, 8).await, AWAY_MASKED);
    ended(&mut far).await;
}

/// Close, by a policy, from an endpoint and from a client.
pub(super) const DENIED: [u8; 4] = [0x88, 2, 0x03, 0xF0];
const DENIED_MASKED: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xF0];

/// What is withdrawn would go on for longer than any test.
fn long() -> Limits {
    Limits {
        drain_timeout: 100 * PATIENCE,
        ..Limits::default()
    }
}

/// What the client says comes out at the other end.
async fn passes(client: &mut TcpStream, far: &mut TcpStream) {
    let frame = ws(0x81, true, b"x");
    client.write_all(&frame).await.expect("written");
    assert_eq!(read(far, frame.len()).await, frame);
}

/// Both sites look at what they carry.
async fn look(world: &World) {
    world.pop.set_listeners(&[]).await;
    world.gateway.set_listeners(&[]).await;
}

#[tokio::test]
async fn one_that_a_policy_denies_now_ends_at_once() {
    let denies = || guard("new", Undecided::Allow, DENY, path("/talk"));
    for (which, guards) in [
        ("load balancer", [denies(), open(), open()]),
        ("service", [open(), denies(), open()]),
        ("endpoint's site", [open(), open(), denies()]),
    ] {
        let (world, _endpoint, mut client, mut far) = handed_over_within(long()).await;
        let [front, back, egress] = guards;
        world.guard(front, back, egress);
        look(&world).await;
        assert_eq!(read(&mut client, 4).await, DENIED, "{which}");
        ended(&mut client).await;
        assert_eq!(read(&mut far, 8).await, DENIED_MASKED, "{which}");
        ended(&mut far).await;
        drop((client, far));
        let record = recorded(&world).await;
        let expect = match which {
            "endpoint's site" => [None; 3],
            _ => [Some("denied"), Some("client"), Some("shop/new/rule")],
        };
        let told = ["error", "fault", "policy"];
        let told = told.map(|name| record.get(name).and_then(|value| value.as_str()));
        assert_eq!(told, expect, "{which}: {record}");
    }
}

/// Nobody knows its endpoint any more, and it goes on nevertheless.
#[tokio::test]
async fn one_whose_endpoint_is_gone_is_judged_too() {
    let (world, _endpoint, mut client, mut far) = handed_over_within(long()).await;
    world.endpoints(&[]);
    look(&world).await;
    passes(&mut client, &mut far).await;
    world.guard_egress(guard("new", Undecided::Allow, DENY, path("/talk")));
    look(&world).await;
    assert_eq!(read(&mut far, 8).await, DENIED_MASKED);
    assert_eq!(read(&mut client, 4).await, DENIED);
}

#[tokio::test]
async fn http2_one_that_a_policy_denies_now_ends_in_order() {
    let (world, _endpoint, mut peer, mut far) = over_http2_within(65_535, long()).await;
    world.guard_front(guard("new", Undecided::Allow, DENY, path("/talk")));
    look(&world).await;
    assert_eq!(last_said(&mut peer).await, DENIED);
    assert_eq!(read(&mut far, 8).await, DENIED_MASKED);
}

#[tokio::test]
async fn one_that_its_policies_let_through_stays() {
    let (world, _endpoint, mut client, mut far) = handed_over_within(long()).await;
    for guards in [
        || guard("allows", Undecided::Deny, RuleAction::Allow, path("/talk")),
        || guard("denies", Undecided::Allow, DENY, path("/admin")),
        || shadowed(guard("would", Undecided::Allow, DENY, path("/talk"))),
        // There was no policy when it began, and its client is known nevertheless.
        || {
            guard(
                "near",
                Undecided::Deny,
                RuleAction::Allow,
                from("127.0.0.0/8"),
            )
        },
        || guard("far", Undecided::Allow, DENY, from("10.0.0.0/8")),
    ] {
        world.guard(guards(), guards(), guards());
        look(&world).await;
        passes(&mut client, &mut far).await;
    }
    // It was one request, and is no other now.
    let limit = RuleAction::Limit(Box::new(Rate {
        requests: 1,
        per: Duration::from_secs(3600),
        burst: 1,
        key: Vec::new(),
    }));
    let limits = guard("limits", Undecided::Allow, limit, path("/talk"));
    for _ in 0..3 {
        world.guard(limits.clone(), limits.clone(), limits.clone());
        look(&world).await;
        passes(&mut client, &mut far).await;
    }
    let text = world.metrics.render();
    assert!(!text.contains("sealane_policy_decisions_total{"), "{text}");
}

/// The site of the endpoint looks by itself.
#[tokio::test]
async fn the_other_site_ends_what_it_does_not_offer_any_more() {
    let (world, _endpoint, mut client, mut far) = handed_over_within(short()).await;
    let limits = world.gateway.snapshot().limits;
    world.gateway.store(Arc::new(Snapshot {
        limits,
        ..Snapshot::empty(SiteId(2))
    }));
    world.gateway.set_listeners(&[]).await;
    assert_eq!(read(&mut far, 8).await, AWAY_MASKED);
    assert_eq!(read(&mut client, 4).await, AWAY);
    ended(&mut client).await;
}
