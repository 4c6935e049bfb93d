//! What a flood of one tenant does to another's requests on the same node.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
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
/// How long each flood lasts.
const FLOOD: Duration = Duration::from_secs(4);

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

/// Within what 99 of 100 of acme's answers come; nothing may fail. The flood begins when some have
/// come.
fn answers<F>(edge: &Edge, flood: impl FnOnce() -> F) -> Duration {
    let load = edge.load();
    let some = || {
        (load.records().len() > 20)
            .then_some(())
            .ok_or("few answers")
    };
    wait_until("some answers", FLOOD, some);
    let flood = flood();
    crate::pass(FLOOD);
    let mut took: Vec<Duration> = load.records().iter().map(kit::Record::took).collect();
    drop(flood);
    let _ = none_failed(load);
    took.sort();
    took[(took.len() - 1) * 99 / 100]
}

/// Clients that send a body of which there is always more.
fn slow_bodies(address: SocketAddr) -> JoinHandle<Vec<TcpStream>> {
    let head = format!("POST / HTTP/1.1\r\nhost: {BLUE}\r\ncontent-length: 1000000\r\n\r\nx");
    thread::spawn(move || {
        last_in_line();
        (0..1000).map_while(|_| opened(address, &head)).collect()
    })
}

/// Clients that open a connection for each request.
fn connections(address: SocketAddr) -> Vec<JoinHandle<()>> {
    let head = format!("GET / HTTP/1.1\r\nhost: {BLUE}\r\nconnection: close\r\n\r\n");
    let client = |_| {
        let head = head.clone();
        thread::spawn(move || {
            last_in_line();
            for _ in 0..1000 {
                // In the end the node is not there any more.
                let Some(mut stream) = opened(address, &head) else {
                    return;
                };
                let _ = stream.read_to_end(&mut Vec::new());
            }
        })
    };
    (0..8).map(client).collect()
}

fn opened(address: SocketAddr, head: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).ok()?;
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

/// All threads of a process; what it starts later follows.
fn on_core(core: &str, pid: u32) {
    run("taskset", &["-a", "-c", "-p", core, &pid.to_string()]);
}

#[test]
fn a_flood_of_one_tenant_does_not_hold_up_another() {
    let _turn = Turn::alone();
    let there = Command::new("h2load").arg("--version").output();
    if !there.is_ok_and(|output| output.status.success()) {
        return skip("floods", "h2load (apt install nghttp2-client)");
    }
    let edge = Edge::new();
    let folder = tempfile::tempdir().expect("a folder");
    let app = blue(&edge, folder.path());
    let mut node = edge.node(0, &["--workers", "1"]);
    edge.says(0);
    // As if the node had a machine of its own, and what blue asks and answers the rest of another.
    on_core("0", node.pid());
    on_core("1", std::process::id());
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
        let more = (beside.as_secs_f64() / past.as_secs_f64() - 1.0) * 100.0;
        figure(format_args!(
            "a flood of another tenant ({what}): 99 of 100 answers within {beside:.1?}, {past:.1?} \
             when it goes past the node ({more:+.0} %; promised: less than +20 %)"
        ));
        // What other work on this machine does is not to fail it.
        assert!(beside < past * 10, "{what}: {beside:?}, {past:?} past it");
    }
    on_core("0-1", std::process::id());
    assert_eq!(node.stop(), 0, "{}", node.log());
}
