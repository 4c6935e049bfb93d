//! Ten thousand hosts on one node: how soon it serves, how large it is, how long a change takes.

use std::{fmt::Write, fs, net::Ipv4Addr, path::Path, time::Duration};

use kit::{Client, Role, Subnet, Turn, figure, process, wait_until};

use crate::SLACK;

/// Load balancers, of a hundred hosts each.
const LOAD_BALANCERS: usize = 100;
const SOON: Duration = Duration::from_secs(10);
/// Promises: from its start to the first answer, the size, from SIGHUP to the changed answer.
const START: Duration = Duration::from_millis(500);
const SIZE_KIB: u64 = 60 << 10;
const CHANGE: Duration = Duration::from_millis(50);
const CHANGES: u32 = 10;

/// The first load balancer answers by itself and says `version`.
fn manifests(host: Ipv4Addr, version: u32) -> String {
    let mut text = format!(
        "{{kind: Tenant, metadata: {{name: acme}}, spec: {{publicHosts: ['*.acme.example']}}}}
---
{{kind: Namespace, metadata: {{tenant: acme, name: shop}}}}
---
{{kind: Site, metadata: {{name: edge}}, spec: {{role: pop, nodes: [{{name: n1,
  tunnel: {{bind: ['{host}:17443']}}, public: {{bind: [{host}], portMap: {{80: 18080}}}}}}]}}}}
---
{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: cart}},
  spec: {{port: 80, origins: [{{sites: [edge], addresses: ['{host}:18001']}}]}}}}
"
    );
    for lb in 0..LOAD_BALANCERS {
        let hosts: Vec<String> = (0..100)
            .map(|nth| format!("h{}.acme.example", lb * 100 + nth))
            .collect();
        let route = match lb {
            0 => format!(
                "{{filters: [{{type: DirectResponse, directResponse: {{status: 200, body: 'v{version}'}}}}]}}"
            ),
            _ => "{backendRefs: [{name: cart}]}".to_owned(),
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "---
{{kind: LoadBalancer, metadata: {{tenant: acme, namespace: shop, name: m{lb}}}, spec: {{
  hosts: [{}], advertise: [{{public: {{}}}}], routes: [{route}]}}}}
",
            hosts.join(", ")
        );
    }
    text
}

#[test]
fn ten_thousand_hosts() {
    let _turn = Turn::alone();
    let folder = tempfile::tempdir().expect("a folder");
    let subnet = Subnet::hold().expect("a loopback network");
    let [a, b, c, _] = subnet.network().octets();
    let host = Ipv4Addr::new(a, b, c, 9);
    let file = folder.path().join("hosts.yaml");
    let configure = |version| fs::write(&file, manifests(host, version)).expect("written");
    configure(0);
    let (state, bundle) = (folder.path().join("state"), file.display().to_string());
    let state = state.display().to_string();
    let args = [
        "node", "--state", &state, "--bundle", &bundle, "--site", "edge",
    ];
    let mut client = Client::new();
    let mut says = |version: u32| {
        let (_, took) = wait_until("the first host", SOON, || {
            let reply = client.get((host, 18_080).into(), "h5.acme.example", "/")?;
            let said = String::from_utf8_lossy(&reply.body).into_owned();
            (said == format!("v{version}")).then_some(()).ok_or(said)
        });
        took
    };
    let program = Path::new(env!("CARGO_BIN_EXE_sealane"));
    let mut node = Role::start(program, &args, &folder.path().join("node.log"));
    let started = says(0);
    let size = process::pss_kib(node.pid()).expect("it runs");
    let mut changes = Vec::new();
    for version in 1..=CHANGES {
        configure(version);
        process::signal(node.pid(), kit::process::Signal::HUP);
        changes.push(says(version));
    }
    changes.sort();
    let (usual, longest) = (changes[changes.len() / 2], changes[changes.len() - 1]);
    figure(format_args!(
        "10,000 hosts: first answer {started:.0?} after the start (promised: {START:?}), {size} KiB \
         (promised: {SIZE_KIB}), {CHANGES} changes of the manifests served within {usual:.0?}, \
         {longest:.0?} at most (promised: {CHANGE:?})"
    ));
    assert!(started <= START * SLACK && usual <= CHANGE * SLACK);
    assert!(size <= SIZE_KIB, "{size}");
    assert_eq!(node.stop(), 0, "{}", node.log());
}
