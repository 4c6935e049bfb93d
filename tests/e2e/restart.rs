//! A node that changes under load: new processes, new configuration, new certificates. Nothing is
//! refused, nothing is cut, nothing fails.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use kit::{
    Http2, Role, Turn, figure,
    process::{self, Signal},
    wait_until,
};

use crate::edge::{Edge, HOST, SOON, none_failed};

/// How long a process that was relieved may take to end: idle connections get 30 s.
const END: Duration = Duration::from_secs(60);
/// How the client says that it has been told to leave.
const LEAVES: &str = "connection error received: not a result of an error";

fn waits_for(role: &Role, word: &str) {
    wait_until(word, SOON, || {
        let log = role.log();
        if log.contains(word) { Ok(()) } else { Err(log) }
    });
}

/// New TLS connections, one after the other, each with a few requests, until told to stop; how
/// many requests were answered, and what went wrong.
struct Handshakes {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU32>,
    thread: JoinHandle<Vec<String>>,
}

impl Handshakes {
    fn start(to: SocketAddr) -> Self {
        let (stop, done) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (stops, counts) = (Arc::clone(&stop), Arc::clone(&done));
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stops.load(Relaxed) {
                let asked = Http2::connect(to, HOST).and_then(|mut connection| {
                    for _ in 0..5 {
                        match connection.get("/") {
                            Ok(reply) if reply.status == 200 => counts.fetch_add(1, Relaxed),
                            Ok(reply) => return Err(reply.status.to_string()),
                            // A GOAWAY came before this one was sent (RFC 9113 §6.8): clients go
                            // to a new connection with it.
                            Err(error) if error.contains(LEAVES) => break,
                            Err(error) => return Err(error),
                        };
                    }
                    Ok(())
                });
                wrong.extend(asked.err());
            }
            wrong
        });
        Handshakes { stop, done, thread }
    }

    fn stop(self) -> u32 {
        self.stop.store(true, Relaxed);
        let wrong = self.thread.join().expect("the thread");
        assert!(
            wrong.is_empty(),
            "{} failed: {:?}",
            wrong.len(),
            wrong.first()
        );
        self.done.load(Relaxed)
    }
}

#[test]
fn twenty_processes_one_after_the_other() {
    let _turn = Turn::beside();
    let edge = Edge::new();
    let mut nodes = vec![edge.node(0, &["--take-over"])];
    edge.says(0);
    // A download that lasts as long as all of them.
    let mut download = TcpStream::connect(edge.http()).expect("connected");
    download.set_read_timeout(Some(SOON)).expect("set");
    let ask = format!("GET /download?bytes=4000000&rate=200000 HTTP/1.1\r\nhost: {HOST}\r\n\r\n");
    download.write_all(ask.as_bytes()).expect("written");
    let downloaded = std::thread::spawn(move || {
        let mut all = Vec::new();
        let mut buffer = [0; 65_536];
        while all.len() < 4_000_000 {
            match download.read(&mut buffer) {
                Ok(0) => return Err("the end".to_owned()),
                Ok(n) => all.extend_from_slice(&buffer[..n]),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(all.len())
    });
    let (load, handshakes) = (edge.load(), Handshakes::start(edge.https()));
    for nth in 1..=20_usize {
        edge.configure(u32::try_from(nth).expect("small"));
        let next = edge.node(nth, &["--take-over"]);
        waits_for(&next, "node is ready");
        waits_for(&nodes[nth - 1], "finishes what it has");
        nodes.push(next);
    }
    edge.says(20);
    let handshakes = handshakes.stop();
    let requests = none_failed(load);
    let bytes = downloaded
        .join()
        .expect("the thread")
        .expect("the whole download");
    assert!(bytes > 4_000_000, "{bytes}");
    let mut last = nodes.pop().expect("the last one");
    for (nth, node) in nodes.iter_mut().enumerate() {
        let ended = || node.ended().ok_or_else(|| format!("process {nth} runs"));
        let (code, _) = wait_until("the end of a relieved process", END, ended);
        assert_eq!(code, 0, "process {nth}: {}", node.log());
    }
    assert_eq!(last.stop(), 0, "{}", last.log());
    figure(format_args!(
        "20 hot restarts: 0 of {requests} requests and 0 of {handshakes} over new TLS \
         connections failed, a download went on"
    ));
}

#[test]
fn a_hundred_configurations_and_as_many_certificates() {
    let _turn = Turn::beside();
    let edge = Edge::new();
    let mut node = edge.node(0, &[]);
    edge.says(0);
    let mut held = Http2::connect(edge.https(), HOST).expect("HTTP/2 over TLS");
    let (load, handshakes) = (edge.load(), Handshakes::start(edge.https()));
    let mut slowest = Duration::ZERO;
    for version in 1..=100 {
        edge.configure(version);
        process::signal(node.pid(), Signal::HUP);
        slowest = slowest.max(edge.says(version));
    }
    // Nonsense changes nothing, and says so.
    let manifests = edge.manifests();
    fs::write(
        &manifests,
        "{kind: Tenant, metadata: {name: acme}, spec: {nonsense: 1}}",
    )
    .expect("written");
    process::signal(node.pid(), Signal::HUP);
    waits_for(&node, "the last good ones serve");
    edge.says(100);
    assert_eq!(held.get("/").expect("it was never closed").status, 200);
    let handshakes = handshakes.stop();
    let requests = none_failed(load);
    assert_eq!(node.stop(), 0, "{}", node.log());
    figure(format_args!(
        "100 changes, each with a new certificate: 0 of {requests} requests and 0 of \
         {handshakes} over new TLS connections failed; the slowest was seen after {slowest:?}"
    ));
}
