//! Ours: `sealane bgp`.

use std::{fs, net::IpAddr, path::PathBuf};

use kit::{admin, http::Method, process::Signal};
use serde_json::{Value, json};

use super::{
    Counters, Daemon, Family, Instance, Kind, Route, Seen, number, plain, string, strings,
};
use crate::setup::Neighbor;

pub(super) struct Sealane(pub(super) Instance);

/// The binary: `SEALANE_BIN`, or what cargo built beside the tests.
pub(super) fn binary() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("SEALANE_BIN") {
        return Ok(named.into());
    }
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    let file = test
        .parent()
        .and_then(|deps| deps.parent())
        .map(|folder| folder.join("sealane"));
    let file = file.filter(|file| file.is_file());
    file.ok_or_else(|| "sealane is not built (cargo build -p sealane)".to_owned())
}

impl Sealane {
    fn configuration(&self) -> String {
        let setup = &self.0.setup;
        let listen = setup.neighbors.iter().map(|neighbor| match neighbor.local {
            IpAddr::V4(address) => format!("{address}:179"),
            IpAddr::V6(address) => format!("[{address}]:179"),
        });
        let mut listen: Vec<String> = listen.collect();
        listen.sort();
        listen.dedup();
        // JSON is YAML.
        let tracking = setup
            .tracks_next_hops
            .then(|| json!({ "interval": "100ms" }));
        json!({
            "asn": setup.asn,
            "nextHopTracking": tracking,
            "routerId": setup.id,
            "listen": listen,
            "shards": 2,
            "neighbors": setup.neighbors.iter().map(neighbor).collect::<Vec<_>>(),
            "routes": setup.routes.iter().map(|one| self.route(one)).collect::<Vec<_>>(),
        })
        .to_string()
    }

    fn route(&self, route: &Route) -> Value {
        let v6 = route.family.is_v6();
        let mut own = self.0.setup.neighbors.iter().map(|neighbor| neighbor.local);
        let next_hop = route
            .next_hop
            .or_else(|| own.find(|own| own.is_ipv6() == v6));
        let mut all = json!({ "prefix": route.prefix, "communities": route.communities });
        if let Some(next_hop) = next_hop {
            all["nextHop"] = json!(next_hop);
        }
        if !route.rd.is_empty() {
            all["rd"] = json!(route.rd);
            all["label"] = json!(route.label);
            all["routeTargets"] = json!(route.targets);
        }
        all
    }

    fn reconfigure(&mut self) {
        self.0.write("bgp.yaml", &self.configuration());
        let process = self.0.process.as_ref().expect("started");
        process.signal(Signal::HUP);
    }

    fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let reply = admin::ask(&self.0.path("state").join("admin.sock"), method, path)?;
        let text = String::from_utf8_lossy(&reply.body).into_owned();
        if reply.status >= 300 {
            return Err(format!("{path}: {}: {text}", reply.status));
        }
        if text.trim().is_empty() {
            Ok(Value::Null)
        } else {
            super::json(&text)
        }
    }

    fn neighbor(&self, address: IpAddr) -> Result<Value, String> {
        let all = self.ask(Method::GET, "/neighbors")?;
        let mut items = all["items"].as_array().into_iter().flatten();
        let found = items.find(|one| one["address"] == address.to_string());
        found
            .cloned()
            .ok_or_else(|| format!("{address} is not among {all}"))
    }
}

fn neighbor(neighbor: &Neighbor) -> Value {
    let families: Vec<&str> = neighbor
        .families
        .iter()
        .map(|family| family.name())
        .collect();
    let mut all = json!({
        "address": neighbor.address,
        "localAddress": neighbor.local,
        "asn": neighbor.asn,
        "families": families,
        "import": "accept",
        "export": "accept",
    });
    let mut option = |on: bool, name: &str, value: Value| {
        if on {
            all[name] = value;
        }
    };
    option(neighbor.passive, "passive", json!(true));
    option(neighbor.client, "client", json!(true));
    option(
        neighbor.add_path,
        "addPath",
        json!({ "send": "all", "receive": true }),
    );
    option(
        neighbor.graceful,
        "gracefulRestart",
        json!({ "restartTime": "20s" }),
    );
    option(neighbor.bfd, "bfd", json!({ "interval": "100ms" }));
    option(
        neighbor.password.is_some(),
        "password",
        json!(neighbor.password),
    );
    all
}

fn seen(route: &str, path: &Value) -> Seen {
    let extended = strings(&path["extendedCommunities"]);
    let targets = extended.iter().filter_map(|one| one.strip_prefix("rt:"));
    let unknown = path["unknown"].as_array().into_iter().flatten().map(|one| {
        let code = number(&one["code"]).and_then(|code| code.try_into().ok());
        (code.unwrap_or(0), string(&one["value"]))
    });
    Seen {
        route: route.to_owned(),
        next_hop: plain(&string(&path["nextHop"])),
        as_path: string(&path["asPath"]),
        communities: strings(&path["communities"]),
        targets: targets.map(str::to_owned).collect(),
        local_pref: number(&path["localPref"]),
        label: number(&path["label"]),
        originator: path["originator"].as_str().map(str::to_owned),
        unknown: unknown.collect(),
        stale: path["stale"].as_bool().unwrap_or(false),
    }
}

impl Daemon for Sealane {
    fn kind(&self) -> Kind {
        Kind::Sealane
    }

    fn instance(&mut self) -> &mut Instance {
        &mut self.0
    }

    fn launch(&mut self, _restarting: bool) {
        let file = self.0.write("bgp.yaml", &self.configuration());
        let state = self.0.path("state");
        fs::create_dir_all(&state).expect("our own folder");
        let mut command = self.0.node.command(binary().expect("the binary is there"));
        command
            .arg("bgp")
            .arg("--config")
            .arg(file)
            .arg("--state")
            .arg(state);
        self.0.run("sealane", command);
        let bound = self.0.node.remaining();
        kit::wait_until("sealane bgp answers", bound, || {
            self.0.check();
            self.ask(Method::GET, "/neighbors")
        });
    }

    fn established(&mut self, neighbor: IpAddr) -> Result<(), String> {
        let all = self.neighbor(neighbor)?;
        if all["state"] == "established" {
            Ok(())
        } else {
            Err(all.to_string())
        }
    }

    fn sees_path(&mut self, neighbor: IpAddr) -> Result<(), String> {
        let all = self.neighbor(neighbor)?;
        if all["bfd"]["state"] == "up" {
            Ok(())
        } else {
            Err(all.to_string())
        }
    }

    fn rib(&mut self, family: Family) -> Result<Vec<Seen>, String> {
        let all = self.ask(Method::GET, &format!("/routes?family={family}"))?;
        let mut found = Vec::new();
        for item in all["items"].as_array().into_iter().flatten() {
            let route = string(&item["route"]);
            let paths = item["paths"].as_array().into_iter().flatten();
            found.extend(paths.map(|path| seen(&route, path)));
        }
        Ok(found)
    }

    fn announce(&mut self, route: &Route) {
        self.0.setup.routes.push(route.clone());
        self.reconfigure();
    }

    fn withdraw(&mut self, route: &Route) {
        let name = route.name();
        self.0.setup.routes.retain(|one| one.name() != name);
        self.reconfigure();
    }

    fn refresh(&mut self, neighbor: IpAddr) -> Result<(), String> {
        self.ask(Method::POST, &format!("/bgp/refresh?peer={neighbor}"))
            .map(drop)
    }

    fn counters(&mut self, _neighbor: IpAddr) -> Result<Counters, String> {
        Err("the other end counts".to_owned())
    }
}
