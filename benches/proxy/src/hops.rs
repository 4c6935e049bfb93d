//! One hop and two, ours alone: a PoP, and a gateway that has joined it, each with one worker. Both
//! share the proxies' core, and what both use counts. And what a second PoP uses that passes streams
//! on to another gateway.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use bench_kit::{clock::Deadline, program::Program};

use crate::{
    contestant::{Found, HTTP, ORIGIN, origin, pinned, probe},
    load::wrk,
    scenario::{CONNECTIONS, Figures, Setting},
};

const API: u16 = 18_643;
const FABRIC: u16 = 18_743;
const TUNNEL: u16 = 17_443;
const SECOND_TUNNEL: u16 = 17_444;
/// The hosts whose endpoint is in the PoP's site, in the gateway's, and in that of the gateway behind
/// the second PoP.
const NEAR: &str = "near.example";
const FAR: &str = "far.example";
const BEHIND: &str = "behind.example";
/// Connections whose requests are passed on, all on one link.
const PASSED_ON: u32 = 256;
/// How long it may take until both hosts are served.
const START: Duration = Duration::from_secs(60);

/// Start controller, PoP and gateway, put them to work, measure.
pub(crate) fn run(setting: &Setting<'_>) -> Result<Figures> {
    let _origin = origin(&setting.folder)?;
    let planet = Planet::start(setting.found, &setting.folder)?;
    for host in [NEAR, FAR, BEHIND] {
        planet.wait(host)?;
    }
    let one = planet.work(NEAR, CONNECTIONS, setting.time)?;
    let two = planet.work(FAR, CONNECTIONS, setting.time)?;
    let behind = planet.work(BEHIND, PASSED_ON, setting.time)?;
    Ok(Figures::from([
        ("requests_per_s", two.requests_per_s),
        ("one_hop_us", one.cpu_us),
        ("two_hops_us", two.cpu_us),
        ("hops", two.cpu_us / one.cpu_us),
        ("relay_us", behind.relay_us),
        ("relay", behind.relay_us / one.cpu_us),
    ]))
}

struct Worked {
    requests_per_s: f64,
    /// What all of them used, and of it the second PoP.
    cpu_us: f64,
    relay_us: f64,
}

struct Planet {
    behind: Program,
    gateway: Program,
    relay: Program,
    pop: Program,
    _controller: Program,
}

impl Planet {
    fn start(found: &Found, folder: &Path) -> Result<Planet> {
        let manifests = folder.join("planet.yaml");
        fs::write(&manifests, planet()).context("the manifests")?;
        let words = format!(
            "controller --state controller --listen 127.0.0.1:{API} --fabric 127.0.0.1:{FABRIC}"
        );
        let controller = begin(found, "1", &words, folder, "controller")?;
        let deadline = Deadline::after(START);
        while !folder.join("controller/ready.json").exists() {
            ensure!(!deadline.passed(), "{}", controller.last_words());
            thread::sleep(Duration::from_millis(20));
        }
        let applied = Command::new(&found.program)
            .args(["apply", "-f", "planet.yaml"])
            .args(["--server", &format!("https://127.0.0.1:{API}")])
            .args(["--ca", "controller/api-ca.pem"])
            .args(["--token-file", "controller/admin.token"])
            .current_dir(folder)
            .output()
            .context("sealane apply")?;
        let said = String::from_utf8_lossy(&applied.stdout);
        let error = String::from_utf8_lossy(&applied.stderr);
        ensure!(applied.status.success(), "sealane apply: {error}");
        let mut tokens = said.lines().filter_map(|line| line.split_once("--token "));
        let mut node = |name: &str| {
            let (_, token) = tokens.next().context("no token for each site")?;
            let words = format!("node --state {name} --workers 1 --token {token}");
            begin(found, "0", &words, folder, name)
        };
        Ok(Planet {
            pop: node("pop")?,
            relay: node("relay")?,
            gateway: node("gateway")?,
            behind: node("behind")?,
            _controller: controller,
        })
    }

    fn wait(&self, host: &str) -> Result<()> {
        let deadline = Deadline::after(START);
        while !probe(host).is_ok_and(|status| status == "200") {
            ensure!(
                !deadline.passed(),
                "{host} is not served: {} | {}",
                self.pop.last_words(),
                self.gateway.last_words()
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn work(&self, host: &str, connections: u32, time: Duration) -> Result<Worked> {
        let url = format!("http://localhost:{HTTP}/");
        let more = ["-H".to_owned(), format!("Host: {host}")];
        wrk(&url, connections, Duration::from_secs(1), &more)?;
        let (before, relay) = (self.cpu_s()?, self.relay.family().cpu_s()?);
        let answered = wrk(&url, connections, time, &more)?;
        thread::sleep(Duration::from_millis(300));
        let used = self.cpu_s()? - before;
        let relayed = self.relay.family().cpu_s()? - relay;
        Ok(Worked {
            requests_per_s: answered.requests / answered.seconds,
            cpu_us: used * 1e6 / answered.requests,
            relay_us: relayed * 1e6 / answered.requests,
        })
    }

    fn cpu_s(&self) -> Result<f64> {
        let programs = [&self.pop, &self.relay, &self.gateway, &self.behind];
        programs
            .iter()
            .map(|program| program.family().cpu_s())
            .sum()
    }
}

fn begin(found: &Found, core: &str, words: &str, folder: &Path, name: &str) -> Result<Program> {
    let mut command = pinned(core, &found.program);
    command.args(words.split(' ')).current_dir(folder);
    Program::start(command, folder.join(format!("{name}.log")))
}

fn planet() -> String {
    let service = |name: &str, site: &str, host: &str| {
        format!(
            "---
kind: Service
metadata: {{tenant: t, namespace: n, name: {name}}}
spec: {{port: 80, origins: [{{sites: [{site}], addresses: ['127.0.0.1:{ORIGIN}']}}]}}
---
kind: LoadBalancer
metadata: {{tenant: t, namespace: n, name: {name}}}
spec:
  hosts: [{host}]
  advertise: [{{public: {{}}}}]
  routes: [{{backendRefs: [{{name: {name}}}]}}]
"
        )
    };
    format!(
        "{{kind: Tenant, metadata: {{name: t}}, spec: {{publicHosts: ['*.example']}}}}
---
{{kind: Namespace, metadata: {{tenant: t, name: n}}}}
---
kind: Site
metadata: {{name: pop}}
spec:
  role: pop
  nodes:
  - name: n1
    tunnel:
      bind: ['127.0.0.1:{TUNNEL}']
      advertise:
      - {{address: '127.0.0.1:{TUNNEL}', from: relay}}
      - {{address: '127.0.0.1:{TUNNEL}', from: inner.t}}
    public: {{bind: [127.0.0.1], portMap: {{80: {HTTP}}}}}
---
kind: Site
metadata: {{name: relay}}
spec:
  role: pop
  nodes:
  - name: n1
    tunnel:
      bind: ['127.0.0.1:{SECOND_TUNNEL}']
      advertise:
      - {{address: '127.0.0.1:{SECOND_TUNNEL}', from: pop}}
      - {{address: '127.0.0.1:{SECOND_TUNNEL}', from: behind.t}}
---
kind: Site
metadata: {{tenant: t, name: inner}}
spec: {{role: gateway, nodes: [{{name: n1}}]}}
---
kind: Site
metadata: {{tenant: t, name: behind}}
spec: {{role: gateway, nodes: [{{name: n1}}]}}
---
{{kind: Token, metadata: {{name: pop}}, spec: {{site: pop}}}}
---
{{kind: Token, metadata: {{name: relay}}, spec: {{site: relay}}}}
---
{{kind: Token, metadata: {{tenant: t, name: inner}}, spec: {{site: inner}}}}
---
{{kind: Token, metadata: {{tenant: t, name: behind}}, spec: {{site: behind}}}}
{}{}{}",
        service("near", "pop", NEAR),
        service("far", "inner", FAR),
        service("behind", "behind", BEHIND)
    )
}
