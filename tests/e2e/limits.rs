//! What clients that do nothing, or nothing good, cost: memory, and nobody else's time.
//!
//! Memory is the growth of the proportional set size, 5 s after the last connection, divided by
//! their number; twice the promise is asserted, the figure is printed.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use kit::{Connection, Role, Turn, figure, member::run, process, runtime};

use crate::{
    SLACK,
    edge::{Edge, HOST, none_failed},
};

const CONNECTIONS: usize = 2000;
/// From the first octet of a head to its end.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

fn pss(node: &Role) -> u64 {
    process::pss_kib(node.pid()).expect("it runs") * 1024
}

/// The node after a first request over each port, and its size then.
fn warm(edge: &Edge) -> (Role, u64) {
    let node = edge.node(0, &[]);
    edge.says(0);
    let before = pss(&node);
    (node, before)
}

/// Octets for each connection, which should be at most `promise`.
fn each(what: &str, node: &Role, before: u64, promise: u64) {
    crate::pass(Duration::from_secs(5));
    let each = pss(node).saturating_sub(before) / CONNECTIONS as u64;
    figure(format_args!(
        "{CONNECTIONS} {what} connections: {each} octets each (promised: {promise})"
    ));
    assert!(
        each <= promise * u64::from(SLACK),
        "{what}: {each} > {promise}"
    );
}

#[test]
fn slow_clients_are_cut_and_hurt_nobody() {
    let _turn = Turn::alone();
    let edge = Edge::new();
    let (mut node, before) = warm(&edge);
    let load = edge.load();
    let began = runtime::now();
    let mut slow: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|_| {
            let stream = TcpStream::connect(edge.http()).expect("connected");
            stream.set_nonblocking(true).expect("set");
            stream
        })
        .collect();
    let connected = runtime::now();
    let mut octets =
        b"GET / HTTP/1.1\r\nhost: cart.acme.example\r\nx-slow: aaaaaaaaaaaaaaaa".iter();
    let mut measured = false;
    let mut last = connected;
    while !slow.is_empty() {
        let octet = [*octets.next().expect("they were cut before")];
        slow.retain_mut(|stream| {
            let open = match stream.read(&mut [0; 512]) {
                Err(error) => error.kind() == ErrorKind::WouldBlock,
                Ok(_) => false,
            };
            if !open {
                last = runtime::now();
                // It may be closed at the other end already.
                let _ = stream.shutdown(Shutdown::Both);
            }
            // Nor need this one arrive.
            open && stream.write(&octet).is_ok()
        });
        crate::pass(Duration::from_secs(1));
        if !measured && runtime::now().since(connected) > Duration::from_secs(2) {
            let each = pss(&node).saturating_sub(before) / CONNECTIONS as u64;
            figure(format_args!(
                "{CONNECTIONS} slow connections: {each} octets each"
            ));
            assert!(each <= 6000 * u64::from(SLACK), "{each}");
            measured = true;
        }
    }
    let cut = last.since(began);
    assert!(
        measured && cut < (HEAD_TIMEOUT + Duration::from_secs(2)) * SLACK,
        "{cut:?}"
    );
    let requests = none_failed(load);
    figure(format_args!(
        "{CONNECTIONS} clients of one octet a second: all cut after {cut:?}, 0 of {requests} \
         requests beside them failed"
    ));
    assert_eq!(node.stop(), 0, "{}", node.log());
}

#[test]
fn idle_connections_cost_little() {
    let _turn = Turn::alone();
    for (what, tls, promise) in [("idle plain", false, 8000), ("idle TLS", true, 24_000)] {
        let edge = Edge::new();
        let (mut node, before) = warm(&edge);
        run(async {
            let tasks = runtime::Tasks::new("idle");
            let mut held = Vec::new();
            for _ in 0..CONNECTIONS {
                let connected = match tls {
                    false => Connection::plain(&tasks, None, edge.http()).await,
                    true => Connection::tls(&tasks, edge.https(), HOST).await,
                };
                let mut connection = connected.expect("connected");
                let request = Request::get("/").header("host", HOST);
                let request = request.body(Bytes::new()).expect("a request");
                let reply = connection.send(request).await.expect("an answer");
                assert_eq!(reply.status, 200);
                held.push(connection);
            }
            each(what, &node, before, promise);
            assert!(held.iter().all(Connection::is_open));
        });
        assert_eq!(node.stop(), 0, "{}", node.log());
    }
}
