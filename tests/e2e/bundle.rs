//! A node from manifests on disk, without any controller: `examples/02-edge` at other addresses.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use kit::{
    Client, Http2, Role, Subnet, Turn,
    process::{self, Signal},
    wait_until,
};

use crate::{ACME, examples::Example};

/// How long the node may take to know its endpoint.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_node_runs_from_manifests_alone() {
    let _turn = Turn::beside();
    let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
    let folder = tempfile::tempdir().expect("a folder");
    let subnet = Subnet::hold().expect("a loopback network");
    let [a, b, c, _] = subnet.network().octets();
    let host = Ipv4Addr::new(a, b, c, 9);
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../examples/02-edge/edge.yaml"
    );
    let manifests = fs::read_to_string(example).expect("the example");
    let manifests = manifests.replace("127.0.0.9", &host.to_string());
    let bundle = folder.path().join("edge.yaml");
    fs::write(&bundle, &manifests).expect("written");
    let (state, bundle_text) = (
        folder.path().join("state"),
        bundle.to_str().expect("a plain path"),
    );
    let state = state.to_str().expect("a plain path");
    let args = [
        "node",
        "--state",
        state,
        "--bundle",
        bundle_text,
        "--site",
        "edge",
    ];

    let mut node = Role::start(program, &args, &folder.path().join("node.log"));
    let (http, https) = ((host, 18_080).into(), (host, 18_443).into());
    let mut client = Client::new();
    let mut status = |wanted: u16| {
        wait_until(&format!("{wanted} from the edge"), SOON, || {
            match client.get(http, ACME, "/") {
                Ok(reply) if reply.status == wanted => Ok(()),
                Ok(reply) => Err(reply.status.to_string()),
                Err(error) => Err(error),
            }
        })
    };
    status(503);
    let listen = format!("{host}:18000");
    let demo = [
        "lab", "demo", "--listen", &listen, "--tenant", "acme", "--site", "edge", "--name",
        "cart-1",
    ];
    let mut demo = Role::start(program, &demo, &folder.path().join("demo.log"));
    status(200);
    let mut http2 = Http2::connect(https, ACME).expect("HTTP/2 over TLS");
    assert_eq!(http2.get("/").expect("an answer").status, 200);
    let why = |url: &str| {
        let asked = Command::new(program)
            .args(["why", url, "--node-state", state])
            .output()
            .expect("it runs");
        String::from_utf8_lossy(&[asked.stdout, asked.stderr].concat()).into_owned()
    };
    let said = why(&format!("http://{ACME}/a/../b"));
    for line in [
        "ok  listener  port 80, plain text",
        "ok  path      /a/../b is /b",
        &format!("    {host}:18000 in edge.fabric"),
        "100.0 %  0 in flight  picked",
        "=>  forward to cart.shop.acme",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    let said = why("http://nobody.example/");
    assert!(said.ends_with("=>  404 no-such-host\n"), "{said}");
    let said = why("nobody.example");
    assert!(said.contains("begins with http:// or https://"), "{said}");
    demo.kill();
    status(503);
    assert_eq!(node.stop(), 0, "{}", node.log());

    // What makes no sense is said before anything runs.
    fs::write(
        &bundle,
        manifests.replace("name: cart }] }]", "name: nothing }] }]"),
    )
    .expect("written");
    let mut check = Role::start(program, &args, &folder.path().join("check.log"));
    let (code, _) = wait_until("a refusal", SOON, || check.ended().ok_or("it runs"));
    assert_eq!(code, 1, "{}", check.log());
    for word in [
        "/spec/routes/0/backendRefs/0/name",
        "shop/nothing",
        "create it first",
    ] {
        assert!(check.log().contains(word), "{word}: {}", check.log());
    }
}

fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    let mut octet = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut octet)?;
        head.push(octet[0]);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// Whoever agrees to what is asked of it and then says nothing more.
fn agrees(listener: &TcpListener) {
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        thread::spawn(move || {
            // A probe says nothing.
            if read_head(&mut stream).is_err() {
                return;
            }
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\
                          Upgrade: websocket\r\n\r\n";
            let _ = stream.write_all(agreed.as_bytes());
            let _ = stream.read_to_end(&mut Vec::new());
        });
    }
}

#[test]
fn a_policy_that_comes_later_ends_a_websocket() {
    let _turn = Turn::beside();
    let example = Example::new("11-websocket");
    let listener = TcpListener::bind(format!("{}:18000", example.host)).expect("a port");
    thread::spawn(move || agrees(&listener));
    let mut node = example.node();
    let open = || -> Result<TcpStream, String> {
        let http = format!("{}:18080", example.host);
        let mut stream = TcpStream::connect(http).map_err(|error| error.to_string())?;
        let patience = Some(SOON);
        stream.set_read_timeout(patience).expect("a time");
        let ask = "GET /talk HTTP/1.1\r\nHost: talk.acme.example\r\nConnection: upgrade\r\n\
                   Upgrade: websocket\r\n\r\n";
        stream.write_all(ask.as_bytes()).expect("written");
        let head = read_head(&mut stream).expect("a head");
        head.starts_with("HTTP/1.1 101 ")
            .then_some(stream)
            .ok_or(head)
    };
    let (mut stream, _) = wait_until("a connection that is handed over", SOON, open);
    let file = example.folder.path().join("bundle/websocket.yaml");
    let text = fs::read_to_string(&file).expect("the example");
    let named = text.replace("  routes: [", "  policies: [nobody]\n  routes: [");
    assert_ne!(named, text);
    let policy = "---\nkind: ServicePolicy\nmetadata: { tenant: acme, namespace: shop, name: nobody }\n\
                  spec: { rules: [{ name: talk, request: { paths: [{ value: /talk }] }, action: { deny: {} } }] }\n";
    fs::write(&file, named + policy).expect("written");
    process::signal(node.pid(), Signal::HUP);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said).expect("an end in order");
    // Close, by a policy.
    assert_eq!(said, [0x88, 2, 0x03, 0xF0], "{}", node.log());
    drop(stream);
    assert_eq!(node.stop(), 0, "{}", node.log());
}
