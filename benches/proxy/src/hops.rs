//! One hop and two, ours alone: a PoP, and a gateway that has joined it, each with one worker. Both
//! share the proxies' core, and what both use counts.

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
/// The host whose endpoint is in the PoP's site, and the one whose endpoint is in the gateway's.
const NEAR: &str = "near.example";
const FAR: &str = "far.example";
/// How long it may take until both hosts are served.
const START: Duration = Duration::from_secs(60);

/// Start controller, PoP and gateway, put them to work, measure.
pub(crate) fn run(setting: &Setting<'_>) -> Result<Figures> {
    let _origin = origin(&setting.folder)?;
    let planet = Planet::start(setting.found, &setting.folder)?;
    for host in [NEAR, FAR] {
        planet.wait(host)?;
    }
    let one = planet.work(NEAR, setting.time)?;
    let two = planet.work(FAR, setting.time)?;
    Ok(Figures::from([
        ("requests_per_s", two.requests_per_s),
        ("one_hop_us", one.cpu_us),
        ("two_hops_us", two.cpu_us),
        ("hops", two.cpu_us / one.cpu_us),
    ]))
}

struct Worked {
    requests_per_s: f64,
    cpu_us: f64,
}

struct Planet {
    gateway: Program,
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
            gateway: node("gateway")?,
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

    fn work(&self, host: &str, time: Duration) -> Result<Worked> {
        let url = format!("http://localhost:{HTTP}/");
        let more = ["-H".to_owned(), format!("Host: {host}")];
        wrk(&url, CONNECTIONS, Duration::from_secs(1), &more)?;
        let before = self.cpu_s()?;
        let answered = wrk(&url, CONNECTIONS, time, &more)?;
        thread::sleep(Duration::from_millis(300));
        let used = self.cpu_s()? - before;
        Ok(Worked {
            requests_per_s: answered.requests / answered.seconds,
            cpu_us: used * 1e6 / answered.requests,
        })
    }

    fn cpu_s(&self) -> Result<f64> {
        Ok(self.pop.family().cpu_s()? + self.gateway.family().cpu_s()?)
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
      advertise: [{{address: '127.0.0.1:{TUNNEL}', from: any}}]
    public: {{bind: [127.0.0.1], portMap: {{80: {HTTP}}}}}
---
kind: Site
metadata: {{tenant: t, name: inner}}
spec: {{role: gateway, nodes: [{{name: n1}}]}}
---
{{kind: Token, metadata: {{name: pop}}, spec: {{site: pop}}}}
---
{{kind: Token, metadata: {{tenant: t, name: inner}}, spec: {{site: inner}}}}
{}{}",
        service("near", "pop", NEAR),
        service("far", "inner", FAR)
    )
}
