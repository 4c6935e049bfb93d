//! One node from manifests and two applications behind it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Client, Load, Role, Subnet, Target, wait_until};

/// How long a process may take to serve, a change to be seen.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// What it serves.
pub(crate) const HOST: &str = "cart.acme.example";

/// A node `edge` and two demo applications.
pub(crate) struct Edge {
    folder: tempfile::TempDir,
    host: Ipv4Addr,
    _demos: Vec<Role>,
    _subnet: Subnet,
}

impl Edge {
    pub(crate) fn new() -> Self {
        let subnet = Subnet::hold().expect("a loopback network");
        let [a, b, c, _] = subnet.network().octets();
        let (folder, host) = (
            tempfile::tempdir().expect("a folder"),
            Ipv4Addr::new(a, b, c, 9),
        );
        let demos = [18_001, 18_002].map(|port| {
            let (listen, name) = (format!("{host}:{port}"), format!("cart-{port}"));
            let args = [
                "lab", "demo", "--listen", &listen, "--tenant", "acme", "--site", "edge", "--name",
                &name,
            ];
            Role::start(
                &program(),
                &args,
                &folder.path().join(format!("{name}.log")),
            )
        });
        let edge = Edge {
            folder,
            host,
            _demos: demos.into(),
            _subnet: subnet,
        };
        edge.configure(0);
        edge
    }

    pub(crate) fn http(&self) -> SocketAddr {
        (self.host, 18_080).into()
    }

    pub(crate) fn https(&self) -> SocketAddr {
        (self.host, 18_443).into()
    }

    /// A port of its host.
    pub(crate) fn at(&self, port: u16) -> SocketAddr {
        (self.host, port).into()
    }

    /// Where its manifests are.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.folder.path().join("edge.yaml")
    }

    /// 200 requests a second.
    pub(crate) fn load(&self) -> Load {
        let [a, b, c, _] = self.host.octets();
        let target = Target {
            address: self.http(),
            // Where no other client of these tests is.
            from: Some([a, b, c, 10].into()),
            host: HOST.to_owned(),
            path: "/".to_owned(),
        };
        Load::start(vec![target], 200)
    }

    /// Manifests whose answers say `version`. Each time they are read there is a new certificate.
    pub(crate) fn configure(&self, version: u32) {
        let host = self.host;
        let text = format!(
            "
{{kind: Tenant, metadata: {{name: acme}}, spec: {{publicHosts: ['*.acme.example']}}}}
---
{{kind: Namespace, metadata: {{tenant: acme, name: shop}}}}
---
{{kind: Site, metadata: {{name: edge}}, spec: {{role: pop, nodes: [{{name: n1,
  tunnel: {{bind: ['{host}:17443']}},
  public: {{bind: [{host}], portMap: {{80: 18080, 443: 18443}}}}}}]}}}}
---
{{kind: Service, metadata: {{tenant: acme, namespace: shop, name: cart}}, spec: {{port: 80,
  origins: [{{sites: [edge], addresses: ['{host}:18001', '{host}:18002']}}]}}}}
---
{{kind: Certificate, metadata: {{tenant: acme, namespace: shop, name: web}},
  spec: {{hosts: [{HOST}], source: selfSigned}}}}
---
kind: LoadBalancer
metadata: {{tenant: acme, namespace: shop, name: web}}
spec:
  hosts: [{HOST}]
  tls: {{certificates: [web]}}
  advertise: [{{public: {{}}}}]
  routes:
  - backendRefs: [{{name: cart}}]
    filters: [{{type: ResponseHeaderModifier,
      responseHeaderModifier: {{set: [{{name: x-version, value: '{version}'}}]}}}}]
"
        );
        fs::write(self.manifests(), text).expect("written");
    }

    pub(crate) fn node(&self, nth: usize, more: &[&str]) -> Role {
        let path = |name: &str| {
            let path: PathBuf = self.folder.path().join(name);
            path.to_str().expect("a plain path").to_owned()
        };
        let (state, bundle) = (path("state"), path("edge.yaml"));
        let mut args = vec![
            "node", "--state", &state, "--bundle", &bundle, "--site", "edge",
        ];
        if !more.contains(&"--workers") {
            args.extend(["--workers", "2"]);
        }
        args.extend(more);
        Role::start(
            &program(),
            &args,
            Path::new(&path(&format!("node-{nth}.log"))),
        )
    }

    /// Until an answer says `version`, and how long that took.
    pub(crate) fn says(&self, version: u32) -> Duration {
        let (mut client, version) = (Client::new(), version.to_string());
        let (_, took) = wait_until("the new configuration", SOON, || {
            let reply = client.get(self.http(), HOST, "/")?;
            let said = reply.headers.get("x-version");
            match said.and_then(|said| said.to_str().ok()) {
                Some(said) if reply.status == 200 && said == version => Ok(()),
                said => Err(format!("{} {said:?}", reply.status)),
            }
        });
        took
    }
}

fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_sealane").into()
}

/// Stops a load of which nothing has failed; how many requests it made.
pub(crate) fn none_failed(load: Load) -> usize {
    let records = load.stop();
    let failed: Vec<_> = records
        .iter()
        .filter(|record| record.has_failed())
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} failed: {:?}",
        failed.len(),
        records.len(),
        failed.first()
    );
    records.len()
}
