//! What is not HTTP, with peers of others: HAProxy on both sides of a node, and datagrams.

use std::{
    collections::BTreeMap,
    fs,
    net::UdpSocket,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bytes::Bytes;
use http::Request;
use kit::{Http2, Role, Turn, wait_until};

use crate::examples::{Example, SOON};

/// Is HAProxy installed? Where everything has to be, it has to.
fn has_haproxy() -> bool {
    let mut asked = Command::new("haproxy");
    asked.arg("-v").stdout(Stdio::null()).stderr(Stdio::null());
    let has = asked.status().is_ok_and(|status| status.success());
    let all = std::env::var_os("SEALANE_REQUIRE").is_some_and(|value| value == "all");
    assert!(
        has || !all,
        "SEALANE_REQUIRE=all, and yet haproxy is missing"
    );
    if !has {
        kit::figure(
            "skipped: the PROXY protocol with HAProxy, which is missing (apt install haproxy)",
        );
    }
    has
}

/// A client → HAProxy (both versions) → the node, which passes TLS on → HAProxy (both versions) →
/// the node, which ends it → the application, which sees the client's address all the way. Each
/// HAProxy connects from an address of its own.
#[test]
fn haproxy_before_and_behind() {
    if !has_haproxy() {
        return;
    }
    let _turn = Turn::beside();
    let example = Example::new("09-tls");
    let host = example.host.clone();
    let net = host.trim_end_matches(".9");
    let config = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n\
         listen v1\n  bind {net}.20:9001\n  server s {host}:18443 send-proxy source {net}.20\n\
         listen v2\n  bind {net}.20:9002\n  server s {host}:18443 send-proxy-v2 proxy-v2-options crc32c source {net}.20\n\
         listen behind\n  bind {net}.21:9003 accept-proxy\n  server s {host}:18444 send-proxy-v2 source {net}.21\n"
    );
    let file = example.folder.path().join("haproxy.cfg");
    fs::write(&file, config).expect("written");
    let manifest = example.folder.path().join("bundle/tls.yaml");
    let written = fs::read_to_string(&manifest).expect("the manifest");
    for version in ["v1", "v2"] {
        // Behind the node, HAProxy stands before who has the key.
        let text = written
            .replace(
                &format!("[\"{host}:18444\"]"),
                &format!("[\"{net}.21:9003\"]"),
            )
            .replace("proxyProtocol: v2", &format!("proxyProtocol: {version}"));
        fs::write(&manifest, text).expect("written");
        let args = ["-f", file.to_str().expect("a plain path")];
        let log = example.folder.path().join("haproxy.log");
        let _haproxy = Role::start(Path::new("haproxy"), &args, &log);
        let _demos = [("shop-1", 18001), ("safe-1", 18002)].map(|(name, port)| {
            let listen = format!("{host}:{port}");
            let args = [
                "lab", "demo", "--listen", &listen, "--tenant", "acme", "--site", "edge", "--name",
                name,
            ];
            example.start(name, &args)
        });
        let mut node = example.node();
        for (port, name, endpoint) in [
            (9001, "shop", "shop-1"),
            (9002, "shop", "shop-1"),
            (9001, "vault", "safe-1"),
            (9002, "vault", "safe-1"),
        ] {
            let to = format!("{net}.20:{port}").parse().expect("an address");
            let name = format!("{name}.acme.example");
            let what = format!("{version}: {name} through {to}");
            wait_until(&what, SOON, || {
                let request = Request::get(format!("https://{name}/"));
                let request = request.body(Bytes::new()).expect("a request");
                let story = Http2::connect(to, &name)?.send(request)?.story()?;
                // The client's own address, and none of those on the way.
                let from = story.headers["x-forwarded-for"].as_str();
                if story.endpoint == endpoint && from == Some("127.0.0.1") {
                    return Ok(());
                }
                Err(format!("{} for {from:?}", story.endpoint))
            });
        }
        assert_eq!(node.stop(), 0, "{}", node.log());
    }
}

/// The example's endpoints for datagrams, and where clients send to.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Datagrams {
    udp: String,
    endpoints: BTreeMap<String, String>,
}

/// Each client has one endpoint, which answers from where it was asked.
#[test]
fn datagrams() {
    let _turn = Turn::beside();
    let example = Example::new("08-tcp");
    let text = example.text(&example.source.join("expect/datagrams.json"));
    let expect: Datagrams = serde_json::from_str(&text).expect("JSON");
    for (name, address) in &expect.endpoints {
        let (name, socket) = (name.clone(), UdpSocket::bind(address).expect("bound"));
        // It ends with the process.
        std::thread::spawn(move || {
            let mut room = [0; 2048];
            while let Ok((_, from)) = socket.recv_from(&mut room) {
                let _ = socket.send_to(name.as_bytes(), from);
            }
        });
    }
    let mut node = example.node();
    let client = || {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("bound");
        let patience = Some(Duration::from_millis(200));
        socket.set_read_timeout(patience).expect("set");
        socket.connect(&expect.udp).expect("connected");
        socket
    };
    let ask = |client: &UdpSocket| -> Result<String, String> {
        let mut room = [0; 64];
        client.send(b"who?").map_err(|error| error.to_string())?;
        let count = client.recv(&mut room).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&room[..count]).into_owned())
    };
    let first = client();
    wait_until("an answer", SOON, || ask(&first).map(|_| ()));
    for client in [first, client(), client()] {
        let mut answered = String::new();
        wait_until("an answer", SOON, || {
            ask(&client).map(|name| answered = name)
        });
        assert!(expect.endpoints.contains_key(&answered), "{answered}");
        for _ in 0..10 {
            let mut again = String::new();
            // Datagrams may be lost; who answers does not change.
            wait_until("an answer", SOON, || ask(&client).map(|name| again = name));
            assert_eq!(again, answered);
        }
    }
    assert_eq!(node.stop(), 0, "{}", node.log());
}
