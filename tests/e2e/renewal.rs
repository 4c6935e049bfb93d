//! Node certificates renew by themselves, and nobody notices.

use std::{fs, net::Ipv4Addr, path::Path, time::Duration};

use base::Instant;
use kit::{Api, Client, Load, LoneController, Role, Subnet, Target, Turn, figure, wait_until};
use serde_json::json;

use crate::support::{lines_with, meta, put, token};

const HOST: &str = "cart.acme.example";
/// Renewal comes after a third of it.
const LIFETIME: &str = "30s";

#[test]
fn a_certificate_renews_while_requests_go_on() {
    let _turn = Turn::beside();
    let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
    let folder = tempfile::tempdir().expect("a folder");
    let subnet = Subnet::hold().expect("a loopback network");
    let [a, b, c, _] = subnet.network().octets();
    let at = |host: u8, port: u16| format!("{}:{port}", Ipv4Addr::new(a, b, c, host));
    let more = ["--node-certificate-lifetime", LIFETIME];
    let mut controller = LoneController::start(program, folder.path(), &more);
    let demo = [
        "lab",
        "demo",
        "--listen",
        &at(200, 18_000),
        "--tenant",
        "acme",
    ];
    let demo = [&demo[..], &["--site", "par", "--name", "cart-1"]].concat();
    let _demo = Role::start(program, &demo, &folder.path().join("demo.log"));
    let api = controller.api();
    configure(&api, &at);
    let admission = token(&api, None, "par");
    let state = folder.path().join("par");
    let node = [
        "node",
        "--state",
        state.to_str().expect("plain"),
        "--token",
        &admission,
    ];
    let log = folder.path().join("par.log");
    let mut par = Role::start(program, &node, &log);
    let http = at(10, 18_080).parse().expect("an address");
    wait_until("par serves", Duration::from_secs(15), || {
        let reply = Client::new().get(http, HOST, "/")?;
        if reply.status == 200 {
            Ok(())
        } else {
            Err(reply.status.to_string())
        }
    });
    let chain = || fs::read(state.join("node.pem")).expect("a certificate");
    let (first, began) = (chain(), kit::runtime::now());
    let target = Target {
        address: http,
        from: None,
        host: HOST.to_owned(),
        path: "/".to_owned(),
    };
    let load = Load::start(vec![target], 100);
    wait_until("a renewed certificate", Duration::from_secs(20), || {
        if chain() == first {
            Err("it is the same")
        } else {
            Ok(())
        }
    });
    let renewed: Instant = kit::runtime::now();
    wait_until(
        "the first certificate ends",
        Duration::from_secs(35),
        || {
            let left = left(&first);
            if left.is_zero() {
                Ok(())
            } else {
                Err(format!("{left:?} left"))
            }
        },
    );
    assert!(
        left(&chain()) > Duration::from_secs(5),
        "{:?} left",
        left(&chain())
    );
    let said = |log: &Path| lines_with(log, &["certificate renewed"]).len();
    let renewals = said(&log);
    assert!(renewals >= 1);
    let records = load.stop();
    let failed: Vec<_> = records
        .iter()
        .filter(|record| record.has_failed())
        .collect();
    figure(format_args!(
        "renewal: a certificate of {LIFETIME} is renewed after {:?}; {} renewals until its end; \
         {} requests meanwhile, {} failed",
        renewed.since(began),
        renewals,
        records.len(),
        failed.len()
    ));
    assert!(failed.is_empty(), "{:?}", failed.first());
    // Started again, it is known by what it got.
    assert_eq!(par.stop(), 0);
    let opened = || lines_with(&folder.path().join("controller.log"), &["site-sync open"]).len();
    let before = opened();
    let node = &node[..3];
    let mut par = Role::start(program, node, &log);
    wait_until(
        "par asks for its intent again",
        Duration::from_secs(10),
        || {
            if opened() > before {
                Ok(())
            } else {
                Err("not yet")
            }
        },
    );
    assert_eq!((par.stop(), controller.role.stop()), (0, 0));
}

/// A PoP that is also where the application runs.
fn configure(api: &Api, address: &impl Fn(u8, u16) -> String) {
    put(
        api,
        &json!({ "kind": "Tenant", "metadata": { "name": "acme" },
        "spec": { "publicHosts": [HOST] } }),
    );
    put(
        api,
        &json!({ "kind": "Namespace", "metadata": meta(Some("acme"), "shop"), "spec": {} }),
    );
    put(
        api,
        &json!({ "kind": "Site", "metadata": { "name": "par" },
        "spec": { "role": "pop", "nodes": [{ "name": "n0",
            "tunnel": { "bind": [address(10, 17_443)] },
            "public": { "bind": [address(10, 0).trim_end_matches(":0")], "portMap": { "80": 18_080 } } }] } }),
    );
    let cart = json!({ "tenant": "acme", "namespace": "shop", "name": "cart" });
    put(
        api,
        &json!({ "kind": "Service", "metadata": cart,
        "spec": { "port": 18_000, "origins": [
            { "sites": ["par"], "addresses": [address(200, 18_000)] }] } }),
    );
    put(
        api,
        &json!({ "kind": "LoadBalancer", "metadata": cart,
        "spec": { "hosts": [HOST], "advertise": [{ "public": {} }],
            "routes": [{ "backendRefs": [{ "name": "cart" }] }] } }),
    );
}

/// How long the first certificate of a chain still holds.
fn left(pem: &[u8]) -> Duration {
    let text = std::str::from_utf8(pem).expect("text");
    let leaf = kit::pki::chain_from_pem(text).expect("a chain").remove(0);
    kit::pki::remaining(leaf.as_ref(), kit::runtime::wall())
}
