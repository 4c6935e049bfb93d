//! A node from manifests on disk, without any controller: `examples/02-edge` at other addresses.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use kit::{Client, Http2, Role, Subnet, Turn, wait_until};

use crate::ACME;

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
