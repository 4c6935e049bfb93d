//! Connections that are carried unread.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use balance::{
    BalancePolicy, Cell, Endpoint, EndpointSet,
    Health::{Healthy, Unhealthy},
};
use base::{LbId, SiteId};
use l7::{Backend, Cluster, Layer4, Limits, ListenerProtocol, Protocol};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::world::{
    GATEWAY, PATIENCE, POP, SERVICE, Spot, TENANT, World, egress_of, key, made, plain, site,
};
use crate::{ListenerSpec, Snapshot};

pub(super) const LB: LbId = LbId(5);

/// The load balancer `shop/web`, unread: to the service that the world's endpoints belong to.
pub(super) fn layer4(cluster: Arc<Cluster>, limits: Limits) -> Arc<Layer4> {
    Arc::new(Layer4 {
        lb: LB,
        lb_name: "shop/web".into(),
        tenant: TENANT,
        tenant_name: "acme".into(),
        hosts: Vec::new(),
        route: "all".into(),
        limits,
        backends: vec![Backend { cluster, weight: 1 }],
    })
}

/// A world that carries connections, and where.
async fn carrying(limits: Limits) -> (World, SocketAddr) {
    carrying_to(limits, |_| {}).await
}

/// The same, with a changed service.
pub(super) async fn carrying_to(
    limits: Limits,
    change: impl Fn(&mut Cluster),
) -> (World, SocketAddr) {
    let world = World::new().await;
    let changed = |cell| {
        let mut cluster = made(cell, Protocol::Tcp);
        change(&mut cluster);
        Arc::new(cluster)
    };
    let now = world.pop.snapshot();
    let table = plain(&world.ingress_cell, now.limits);
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(table.with_layer4(vec![layer4(changed(&world.ingress_cell), limits)])),
        ..Snapshot::clone(&now)
    }));
    let now = world.gateway.snapshot();
    world.gateway.store(Arc::new(Snapshot {
        egress: Arc::new(egress_of(changed(&world.egress_cell))),
        ..Snapshot::clone(&now)
    }));
    let bind = "127.0.0.1:0".parse().expect("an address");
    let spec = ListenerSpec {
        bind,
        port: 5432,
        protocol: ListenerProtocol::Tcp(LB),
    };
    let bound = world.pop.set_listeners(&[spec]).await;
    let address = *bound[0].as_ref().expect("bound");
    (world, address)
}

/// Endpoints that the ingress reaches by itself.
pub(super) fn stand_here(cell: &Cell, addresses: &[SocketAddr]) {
    let endpoint = |address: &SocketAddr| Endpoint {
        key: key(POP, *address),
        site: site("par.fabric"),
        health: Healthy,
        weight: 1,
        distance: None,
        reachable: true,
        ejected: false,
        share: balance::WHOLE,
        since: None,
        stats: Arc::default(),
    };
    let all = addresses.iter().map(endpoint).collect();
    let set = EndpointSet::build(&BalancePolicy::default(), base::Instant::ZERO, all);
    cell.store(Arc::new(set));
}

/// Says `first`, echoes what comes, says `last` when the client has ended, and ends.
pub(super) async fn echo() -> (SocketAddr, runtime::Tasks) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let tasks = runtime::Tasks::new("echo");
    let each = tasks.clone();
    tasks.spawn("accept", async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            each.spawn("connection", async move {
                let _ = stream.write_all(b"first").await;
                let mut piece = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut piece).await {
                    if stream.write_all(&piece[..count]).await.is_err() {
                        return;
                    }
                }
                let _ = stream.write_all(b"last").await;
            });
        }
    });
    (address, tasks)
}

pub(super) async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("connected")
}

pub(super) async fn expect(stream: &mut TcpStream, octets: &[u8]) {
    let mut seen = vec![0; octets.len()];
    let read = timeout(PATIENCE, stream.read_exact(&mut seen)).await;
    read.expect("in time").expect("read");
    assert!(seen == octets, "{}", String::from_utf8_lossy(&seen));
}

/// How a connection ends: the octets that still came, or what broke it.
pub(super) async fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, std::io::ErrorKind> {
    let mut seen = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut seen)).await;
    match read.expect("in time") {
        Ok(_) => Ok(seen),
        Err(error) => Err(error.kind()),
    }
}

/// What somebody gets who is not served: a reset, maybe before he knows that he was connected.
pub(super) async fn refused(address: SocketAddr) -> bool {
    let reset = std::io::ErrorKind::ConnectionReset;
    match TcpStream::connect(address).await {
        Ok(mut stream) => rest(&mut stream).await == Err(reset),
        Err(error) => error.kind() == reset,
    }
}

/// The first records, when there are so many.
pub(super) async fn records(world: &World, count: usize) -> Vec<Value> {
    let path = world.log.path().join("access.log");
    let read = async {
        loop {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<Value> = text
                .lines()
                .map_while(|line| serde_json::from_str(line).ok())
                .collect();
            if lines.len() >= count {
                return lines;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, read).await.expect("in time")
}

#[tokio::test]
async fn octets_pass_both_ways_and_ends_are_passed_on() {
    let (world, address) = carrying(Limits::default()).await;
    let (endpoint, _tasks) = echo().await;
    for far in [true, false] {
        if far {
            world.endpoints(&[(endpoint, Healthy)]);
        } else {
            stand_here(&world.ingress_cell, &[endpoint]);
        }
        let mut stream = connect(address).await;
        // The endpoint may be the first to speak.
        expect(&mut stream, b"first").await;
        let long = "y".repeat(300 << 10);
        let (mut read, mut write) = stream.split();
        let mut seen = Vec::new();
        let write = async {
            write.write_all(long.as_bytes()).await.expect("written");
            write.shutdown().await.expect("ended");
        };
        let read = async {
            let all = timeout(PATIENCE, read.read_to_end(&mut seen)).await;
            all.expect("in time").expect("read");
        };
        tokio::join!(write, read);
        assert_eq!(seen.len(), long.len() + 4);
        assert!(seen.ends_with(b"ylast"));
    }
    let records = records(&world, 2).await;
    for (record, site) in records.iter().zip(["aws.acme", "par.fabric"]) {
        for (field, value) in [
            ("tenant", "acme"),
            ("lb", "shop/web"),
            ("route", "all"),
            ("service", "cart.shop.acme"),
            ("protocol", "tcp"),
            ("site", site),
        ] {
            assert_eq!(record[field], value, "{record}");
        }
        assert_eq!(record["endpoint"], endpoint.to_string());
        assert_eq!(record["bytes_in"], 300 << 10);
        assert_eq!(record["bytes_out"], (300 << 10) + 9);
        assert_eq!(
            (&record["tries"], &record["status"]),
            (&1.into(), &0.into())
        );
        assert!(record.get("error").is_none(), "{record}");
    }
}

#[tokio::test]
async fn servers_that_speak_first_are_heard_at_once() {
    let (world, _) = carrying(Limits::default()).await;
    let (endpoint, _tasks) = echo().await;
    stand_here(&world.ingress_cell, &[endpoint]);
    let bind = "127.0.0.3:0".parse().expect("an address");
    let mut address = None;
    // Also at an address where clients spoke first before.
    for protocol in [ListenerProtocol::Tls, ListenerProtocol::Tcp(LB)] {
        let spec = ListenerSpec {
            bind,
            port: 5432,
            protocol,
        };
        let bound = world.pop.set_listeners(&[spec]).await;
        let now = *bound[0].as_ref().expect("bound");
        assert_eq!(*address.get_or_insert(now), now);
    }
    let clients_first = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    runtime::net::tune_listener(&clients_first, true);
    let _silent = connect(clients_first.local_addr().expect("an address")).await;
    let mut client = connect(address.expect("bound")).await;
    let mut first = [0; 5];
    tokio::select! {
        biased;
        heard = client.read_exact(&mut first) => assert_eq!(heard.expect("read"), first.len()),
        _ = clients_first.accept() => panic!("it waited for the client's first octets"),
    }
}

#[tokio::test]
async fn another_endpoint_is_tried_while_nothing_was_sent() {
    let (world, address) = carrying(Limits::default()).await;
    let (endpoint, _tasks) = echo().await;
    let nobody = Spot::nobody().await;
    // In another site, whose egress asks its endpoint before it says yes; and in this one.
    world.endpoints(&[(nobody, Healthy), (endpoint, Healthy)]);
    let mut stream = connect(address).await;
    stream.shutdown().await.expect("ended");
    assert_eq!(rest(&mut stream).await, Ok(b"firstlast".to_vec()));
    stand_here(&world.ingress_cell, &[nobody]);
    assert!(refused(address).await);
    world.endpoints(&[]);
    assert!(refused(address).await);
    let mut errors = Vec::new();
    for record in records(&world, 3).await {
        let error = record["error"].as_str().unwrap_or_default().to_owned();
        errors.push((record["tries"].as_u64().unwrap_or(9), error));
    }
    errors.sort();
    let expected = [
        (0, "no-endpoint".to_owned()),
        (2, String::new()),
        (3, "refused".to_owned()),
    ];
    assert_eq!(errors, expected);
}

#[tokio::test]
async fn a_reset_is_passed_on() {
    let (world, address) = carrying(Limits::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let endpoint = listener.local_addr().expect("an address");
    for far in [true, false] {
        if far {
            world.endpoints(&[(endpoint, Healthy)]);
        } else {
            stand_here(&world.ingress_cell, &[endpoint]);
        }
        let both = async || {
            let mut client = connect(address).await;
            let (mut endpoint, _) = listener.accept().await.expect("accepted");
            // A connection that breaks before anything was sent is tried again.
            endpoint.write_all(b"hello").await.expect("written");
            expect(&mut client, b"hello").await;
            (client, endpoint)
        };
        let (client, mut endpoint) = both().await;
        runtime::net::reset_on_close(&client);
        drop(client);
        // Streams in memory have no reset: there it is an end.
        let ended = rest(&mut endpoint).await;
        assert!(far || ended == Err(std::io::ErrorKind::ConnectionReset));
        drop(endpoint);
        let (mut client, endpoint) = both().await;
        runtime::net::reset_on_close(&endpoint);
        drop(endpoint);
        let ended = rest(&mut client).await;
        assert!(far || ended == Err(std::io::ErrorKind::ConnectionReset));
    }
}

#[tokio::test]
async fn a_connection_waits_for_whoever_is_slow() {
    let (world, address) = carrying(Limits::default()).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    world.endpoints(&[(listener.local_addr().expect("an address"), Healthy)]);
    let mut client = connect(address).await;
    let (mut endpoint, _) = listener.accept().await.expect("accepted");
    let piece = vec![1; 256 << 10];
    let mut sent = 0;
    // What the kernel and we hold is bounded: at some time nothing more is taken.
    while let Ok(wrote) = timeout(Duration::from_millis(500), client.write(&piece)).await {
        sent += wrote.expect("open");
        assert!(sent < 256 << 20, "nothing bounds what is held");
    }
    client.shutdown().await.expect("ended");
    let got = timeout(PATIENCE, async {
        let (mut got, mut piece) = (0, vec![0; 256 << 10]);
        while let count @ 1.. = endpoint.read(&mut piece).await.expect("read") {
            got += count;
        }
        got
    });
    assert_eq!(got.await.expect("in time"), sent);
}

#[tokio::test]
async fn a_load_balancer_has_a_limit_of_its_own() {
    let limits = Limits {
        lb_connections: 1,
        ..Limits::default()
    };
    let (world, address) = carrying(limits).await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    let mut first = connect(address).await;
    expect(&mut first, b"first").await;
    assert!(refused(address).await);
    first.shutdown().await.expect("ended");
    assert_eq!(rest(&mut first).await, Ok(b"last".to_vec()));
    // The place is free a moment after the client has seen the end.
    records(&world, 2).await;
    expect(&mut connect(address).await, b"first").await;
}

#[tokio::test]
async fn running_connections_outlive_news_changes_and_the_beginning_of_a_drain() {
    let (world, address) = carrying(Limits::default()).await;
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    let mut stream = connect(address).await;
    expect(&mut stream, b"first").await;
    world.endpoints(&[(endpoint, Unhealthy)]);
    world
        .pop
        .endpoint_down(TENANT, SERVICE, key(GATEWAY, endpoint));
    stream.write_all(b"still").await.expect("written");
    expect(&mut stream, b"still").await;
    world.pop.store(Arc::new(Snapshot::empty(SiteId(1))));
    world.pop.set_listeners(&[]).await;
    stream.write_all(b"here").await.expect("written");
    expect(&mut stream, b"here").await;
    let drained = async { world.pop.drain(PATIENCE).await };
    let last = async {
        stream.write_all(b"and now").await.expect("written");
        expect(&mut stream, b"and now").await;
        stream.shutdown().await.expect("ended");
        assert_eq!(rest(&mut stream).await, Ok(b"last".to_vec()));
    };
    tokio::join!(drained, last);
}

/// The world's load balancer, if it is there at all, with or without its port.
async fn offer(world: &World, there: bool, ports: &[u16], limits: Limits) {
    let now = world.pop.snapshot();
    let mut all = Vec::new();
    if there {
        // Changed, and still itself.
        let cluster = Arc::new(made(&balance::empty_cell(), Protocol::Tcp));
        all.push(layer4(cluster, limits));
    }
    let table = plain(&world.ingress_cell, now.limits).with_layer4(all);
    world.pop.store(Arc::new(Snapshot {
        table: Arc::new(table),
        ..Snapshot::clone(&now)
    }));
    let specs = ports.iter().map(|port| ListenerSpec {
        bind: "127.0.0.1:0".parse().expect("an address"),
        port: *port,
        protocol: ListenerProtocol::Tcp(LB),
    });
    let specs: Vec<_> = specs.collect();
    for bound in world.pop.set_listeners(&specs).await {
        bound.expect("bound");
    }
}

#[tokio::test]
async fn what_is_withdrawn_is_reset_in_the_end() {
    for far in [true, false] {
        let limits = Limits {
            drain_timeout: Duration::from_millis(50),
            ..Limits::default()
        };
        let (world, address) = carrying(limits).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = listener.local_addr().expect("an address");
        if far {
            world.endpoints(&[(endpoint, Healthy)]);
        } else {
            stand_here(&world.ingress_cell, &[endpoint]);
        }
        let mut client = connect(address).await;
        let (mut endpoint, _) = listener.accept().await.expect("accepted");
        endpoint.write_all(b"hello").await.expect("written");
        expect(&mut client, b"hello").await;
        // Other routes and other ports do not concern it.
        offer(&world, true, &[5432], limits).await;
        offer(&world, true, &[5432, 5433], limits).await;
        tokio::time::sleep(4 * limits.drain_timeout).await;
        client.write_all(b"still").await.expect("written");
        expect(&mut endpoint, b"still").await;
        offer(&world, false, &[], limits).await;
        let reset = Err(std::io::ErrorKind::ConnectionReset);
        assert_eq!(rest(&mut client).await, reset);
        let ended = rest(&mut endpoint).await;
        assert!(far || ended == reset, "{ended:?}");
        let records = records(&world, 1).await;
        assert_eq!(records[0]["error"], "withdrawn");
        assert_eq!(records[0]["fault"], "us");
    }
}

#[tokio::test]
async fn a_port_that_is_withdrawn_takes_its_connections_along() {
    let limits = Limits {
        drain_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let (world, address) = carrying(limits).await;
    let (endpoint, _tasks) = echo().await;
    stand_here(&world.ingress_cell, &[endpoint]);
    let mut client = connect(address).await;
    expect(&mut client, b"first").await;
    offer(&world, true, &[5433], limits).await;
    let ended = rest(&mut client).await;
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn the_other_site_takes_a_stream_back_that_it_does_not_offer_any_more() {
    let (world, address) = carrying(Limits::default()).await;
    let now = world.gateway.snapshot();
    let limits = Limits {
        drain_timeout: Duration::from_millis(50),
        ..now.limits
    };
    world.gateway.store(Arc::new(Snapshot {
        limits,
        ..Snapshot::clone(&now)
    }));
    let (endpoint, _tasks) = echo().await;
    world.endpoints(&[(endpoint, Healthy)]);
    let mut client = connect(address).await;
    expect(&mut client, b"first").await;
    // An endpoint that it does not know any more keeps what it has.
    world.egress_cell.store(Arc::new(EndpointSet::build(
        &BalancePolicy::default(),
        base::Instant::ZERO,
        Vec::new(),
    )));
    world.gateway.set_listeners(&[]).await;
    tokio::time::sleep(4 * limits.drain_timeout).await;
    client.write_all(b"still").await.expect("written");
    expect(&mut client, b"still").await;
    world.gateway.store(Arc::new(Snapshot {
        limits,
        ..Snapshot::empty(GATEWAY)
    }));
    world.gateway.set_listeners(&[]).await;
    // Streams in memory have no reset.
    let ended = rest(&mut client).await;
    assert!(
        !matches!(ended, Err(std::io::ErrorKind::TimedOut)),
        "{ended:?}"
    );
}

#[tokio::test]
async fn silence_has_an_end() {
    let limits = Limits {
        upgrade_idle_timeout: Duration::from_millis(200),
        ..Limits::default()
    };
    let (world, address) = carrying(limits).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    stand_here(
        &world.ingress_cell,
        &[listener.local_addr().expect("an address")],
    );
    let mut client = connect(address).await;
    let (mut endpoint, _) = listener.accept().await.expect("accepted");
    let ended = rest(&mut client).await;
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    let ended = rest(&mut endpoint).await;
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(records(&world, 1).await[0]["error"], "idle");
}
