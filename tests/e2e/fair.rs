//! What a flood of one tenant does to another's requests on the same node.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use kit::{Role, Turn, figure, wait_until};

use crate::{
    edge::{Edge, none_failed},
    examples::skip,
};

const BLUE: &str = "cart.blue.example";
/// What acme's application needs for an answer.
const WORK_MS: &str = "10";
/// How long each flood lasts: one of a hundred answers is more than come while it begins.
const FLOOD: Duration = Duration::from_secs(12);
/// It begins: its connections are opened, and the node finds memory for them.
const BEGINS: Duration = Duration::from_millis(100);

/// A tenant beside acme, with an application of its own that answers at once.
fn blue(edge: &Edge, folder: &Path) -> Role {
    let app = edge.at(18_003).to_string();
    let manifests = format!(
        "---
{{kind: Tenant, metadata: {{name: blue}}, spec: {{publicHosts: [{BLUE}]}}}}
---
{{kind: Namespace, metadata: {{tenant: blue, name: shop}}}}
---
{{kind: Service, metadata: {{tenant: blue, namespace: shop, name: cart}}, spec: {{port: 80,
  origins: [{{sites: [edge], addresses: ['{app}']}}]}}}}
---
{{kind: Certificate, metadata: {{tenant: blue, namespace: shop, name: web}},
  spec: {{hosts: [{BLUE}], source: selfSigned}}}}
---
{{kind: LoadBalancer, metadata: {{tenant: blue, namespace: shop, name: web}}, spec: {{hosts: [{BLUE}],
  tls: {{certificates: [web]}}, advertise: [{{public: {{}}}}], routes: [{{backendRefs: [{{name: cart}}]}}]}}}}
"
    );
    let before = fs::read_to_string(edge.manifests()).expect("manifests");
    fs::write(edge.manifests(), before + &manifests).expect("written");
    let args = [
        "lab", "demo", "--listen", &app, "--tenant", "blue", "--site", "edge", "--name", "cart-1",
    ];
    let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
    Role::start(program, &args, &folder.join("blue.log"))
}

/// A program that asks as fast as it can; dropped, it is killed. It gets what others leave, so that
/// what is measured is the node's doing: of a lower priority only, it would be let finish its
/// slice of some milliseconds before the clients and applications of others on its core.
struct Flood(Child);

impl Flood {
    fn start(address: SocketAddr, scheme: &str, more: &str) -> Flood {
        let connect = format!("--connect-to={address}");
        let seconds = format!("-D{}", 4 * FLOOD.as_secs());
        let mut command = Command::new("chrt");
        command.args(["--idle", "0", "h2load", "--h1", &seconds, &connect]);
        command.args(more.split_whitespace());
        command.arg(format!("{scheme}://{BLUE}/"));
        let started = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Flood(started.expect("h2load"))
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long acme waits beside a flood.
struct Waits {
    /// So long at most for 99 of 100 answers.
    most: Duration,
    /// So long at most while the flood begins.
    begins: Duration,
}

/// How long acme waits; nothing may fail. The flood begins when some answers have come.
fn answers<F>(edge: &Edge, flood: impl FnOnce() -> F) -> Waits {
    let load = edge.load();
    let some = || {
        (load.records().len() > 20)
            .then_some(())
            .ok_or("few answers")
    };
    wait_until("some answers", FLOOD, some);
    let began = kit::runtime::now();
    let flood = flood();
    crate::pass(FLOOD);
    let records = load.records();
    drop(flood);
    let _ = none_failed(load);
    let beside = records.iter().filter(|record| record.start >= began);
    let first = beside
        .clone()
        .filter(|record| record.start < began + BEGINS);
    let begins = first.map(kit::Record::took).max().expect("an answer");
    let mut took: Vec<Duration> = beside.map(kit::Record::took).collect();
    took.sort();
    let most = took[(took.len() - 1) * 99 / 100];
    Waits { most, begins }
}

/// Clients that go on until this is dropped.
struct Clients {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    /// On so many threads; what a client does is done again and again.
    fn start<C: FnMut() + Send + 'static>(number: usize, client: impl Fn() -> C) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let thread = |_| {
            let (mut step, over) = (client(), Arc::clone(&over));
            thread::spawn(move || {
                last_in_line();
                while !over.load(Ordering::Relaxed) {
                    step();
                }
            })
        };
        let threads = (0..number).map(thread).collect();
        Clients { over, threads }
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Had it failed, the flood would have been smaller, and nothing else.
            let _ = thread.join();
        }
    }
}

/// Clients that send an octet of a body now and then; who is cut comes again.
fn slow_bodies(address: SocketAddr) -> Clients {
    let head = format!("POST / HTTP/1.1\r\nhost: {BLUE}\r\ncontent-length: 1000000\r\n\r\nx");
    Clients::start(1, || {
        let (head, mut open) = (head.clone(), Vec::<TcpStream>::new());
        move || {
            open.retain_mut(|stream| stream.write_all(b"x").is_ok());
            let missing = open.len()..1000;
            open.extend(missing.map_while(|_| opened(address, &head)));
            thread::sleep(Duration::from_millis(500));
        }
    })
}

/// Clients that open a connection for each request.
fn connections(address: SocketAddr) -> Clients {
    let head = format!("GET / HTTP/1.1\r\nhost: {BLUE}\r\nconnection: close\r\n\r\n");
    Clients::start(8, || {
        let head = head.clone();
        move || {
            let answer =
                opened(address, &head).map(|mut stream| stream.read_to_end(&mut Vec::new()));
            if !matches!(answer, Some(Ok(_))) {
                thread::sleep(Duration::from_millis(1));
            }
        }
    })
}

fn opened(address: SocketAddr, head: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(FLOOD)).ok()?;
    stream.write_all(head.as_bytes()).ok()?;
    Some(stream)
}

/// This thread gets what time others leave.
fn last_in_line() {
    let myself = fs::read_link("/proc/thread-self").expect("a thread");
    let myself = myself.file_name().expect("its number").to_string_lossy();
    run("chrt", &["--idle", "--pid", "0", &myself]);
}

fn run(program: &str, arguments: &[&str]) {
    let ran = Command::new(program).args(arguments).output();
    let ran = ran.unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(ran.status.success(), "{program}: {ran:?}");
}

/// All threads of a process, and what it starts from then on.
fn on_core(core: &str, pid: u32) {
    run("taskset", &["-a", "-c", "-p", core, &pid.to_string()]);
}

/// As long as this is there, this process has the second core alone, and what it starts too.
struct Apart;

impl Apart {
    fn new() -> Self {
        on_core("1", std::process::id());
        Apart
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // Had it failed, a test that fails already would not be told why.
        let pid = std::process::id().to_string();
        let _ = Command::new("taskset")
            .args(["-a", "-c", "-p", "0-1", &pid])
            .output();
    }
}

#[test]
fn a_flood_of_one_tenant_does_not_hold_up_another() {
    let _turn = Turn::alone();
    let there = Command::new("h2load").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        return skip("floods", "h2load (apt install nghttp2-client)");
    }
    // The node has a machine of its own, and its clients and applications another, where what blue
    // asks and answers gets the rest.
    let _apart = Apart::new();
    let edge = Edge::new();
    let folder = tempfile::tempdir().expect("a folder");
    let app = blue(&edge, folder.path());
    let mut node = edge.node(0, &["--workers", "1"]);
    edge.says(0);
    on_core("0", node.pid());
    let blue = app.pid().to_string();
    run("chrt", &["--idle", "--all-tasks", "--pid", "0", &blue]);
    for port in [18_001, 18_002] {
        let address = edge.at(port).to_string();
        let slower = ["lab", "demo", &address, "slow", WORK_MS];
        run(env!("CARGO_BIN_EXE_sealane"), &slower);
    }
    let big = format!("-c64 -H x-big:{}", "y".repeat(60_000));
    let sorts: [(&str, &[(&str, &str)]); 5] = [
        ("connections", &[]),
        ("requests", &[("http", "-c256")]),
        ("huge heads", &[("http", &big)]),
        ("slow bodies", &[]),
        (
            "all at once",
            &[("http", "-c256"), ("https", "-c64"), ("http", &big)],
        ),
    ];
    for (what, floods) in sorts {
        let all = what == "all at once";
        let flood = |http, https| {
            let start = |(scheme, more): &(&str, &str)| {
                let address = if *scheme == "https" { https } else { http };
                Flood::start(address, scheme, more)
            };
            let floods: Vec<Flood> = floods.iter().map(start).collect();
            let slow = (all || what == "slow bodies").then(|| slow_bodies(http));
            let short = (all || what == "connections").then(|| connections(http));
            (floods, slow, short)
        };
        // What a flood does to the clients and applications on their core is none of the node's.
        let past = answers(&edge, || flood(edge.at(18_003), edge.at(18_003)));
        let beside = answers(&edge, || flood(edge.http(), edge.https()));
        let more = (beside.most.as_secs_f64() / past.most.as_secs_f64() - 1.0) * 100.0;
        figure(format_args!(
            "a flood of another tenant ({what}): 99 of 100 answers within {:.1?}, {:.1?} when it goes \
             past the node ({more:+.0} %; promised: less than +20 %); all of its first tenth of a \
             second within {:.1?}, {:.1?} past the node",
            beside.most, past.most, beside.begins, past.begins,
        ));
        // What other work on this machine does is not to fail it.
        let (beside, past) = (beside.most, past.most);
        assert!(beside < past * 10, "{what}: {beside:?}, {past:?} past it");
    }
    assert_eq!(node.stop(), 0, "{}", node.log());
}
