//! FRRouting's bgpd, alone: without zebra every next hop counts as reachable.

use std::{fmt::Write, fs, net::IpAddr, path::PathBuf};

use serde_json::Value;

use super::{
    Counters, Daemon, Family, Instance, Kind, Route, Seen, json, number, plain, string, strings,
    wait_answer,
};
use crate::setup::Neighbor;

pub(super) struct Frr(pub(super) Instance);

/// Its bgpd; OpenBGPD's has the same name elsewhere.
pub(super) fn bgpd() -> Option<PathBuf> {
    let files = ["/usr/lib/frr/bgpd", "/usr/libexec/frr/bgpd"].map(PathBuf::from);
    files.into_iter().find(|file| file.is_file())
}

fn words(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4 unicast",
        Family::Ipv6 => "ipv6 unicast",
        Family::Vpnv4 => "ipv4 vpn",
        Family::Vpnv6 => "ipv6 vpn",
        Family::Flow4 => "ipv4 flowspec",
        Family::Flow6 => "ipv6 flowspec",
        Family::Rtc => unreachable!("FRR has no route target membership"),
    }
}

impl Frr {
    fn configuration(&self) -> String {
        let setup = &self.0.setup;
        let mut text = format!(
            "log stdout\nrouter bgp {}\n bgp router-id {}\n",
            setup.asn, setup.id
        );
        text += " no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n";
        text += " no bgp network import-check\n no bgp suppress-duplicates\n";
        if setup.neighbors.iter().any(|neighbor| neighbor.graceful) {
            text += " bgp graceful-restart\n bgp graceful-restart preserve-fw-state\n";
        } else {
            text += " bgp graceful-restart-disable\n";
        }
        for neighbor in &setup.neighbors {
            text += &session(neighbor);
        }
        for family in self.0.families() {
            writeln!(text, " address-family {}", words(family)).expect("text");
            for route in setup.routes.iter().filter(|route| route.family == family) {
                writeln!(text, "  {}", network(route)).expect("text");
            }
            let speak = |neighbor: &&Neighbor| neighbor.families.contains(&family);
            for neighbor in setup.neighbors.iter().filter(speak) {
                let address = neighbor.address;
                writeln!(text, "  neighbor {address} activate").expect("text");
                if neighbor.client {
                    writeln!(text, "  neighbor {address} route-reflector-client").expect("text");
                }
                if neighbor.add_path {
                    writeln!(text, "  neighbor {address} addpath-tx-all-paths").expect("text");
                }
            }
            text += " exit-address-family\n";
        }
        text += "exit\n";
        for route in setup.routes.iter().filter(|route| has_map(route)) {
            text += &route_map(route);
        }
        text
    }

    fn vtysh(&self, commands: &[&str]) -> Result<String, String> {
        let folder = self.0.text("vty");
        let mut args = vec!["--vty_socket", &folder, "-d", "bgpd"];
        for command in commands {
            args.extend(["-c", command]);
        }
        self.0.node.ask("vtysh", args)
    }

    fn originate(&self, route: &Route, no: &str) {
        let router = format!("router bgp {}", self.0.setup.asn);
        let family = format!("address-family {}", words(route.family));
        let network = match no {
            "" => network(route),
            _ => format!("{no}{}", plain_network(route)),
        };
        let map = route_map(route);
        let mut commands = vec!["configure terminal"];
        if has_map(route) && no.is_empty() {
            commands.extend(map.lines());
        }
        commands.extend([router.as_str(), &family, &network]);
        let said = self.vtysh(&commands);
        said.expect("FRR takes the route");
    }

    fn detail(&self, family: Family, route: &str) -> Result<Vec<Seen>, String> {
        let prefix = route.rsplit(' ').next().unwrap_or(route);
        let text = self.vtysh(&[&format!("show bgp {} {prefix} json", words(family))])?;
        let all = json(&text)?;
        let entry = match route.split_once(' ') {
            Some((rd, _)) => &all[rd],
            None => &all,
        };
        let paths = entry["paths"].as_array().into_iter().flatten();
        Ok(paths.map(|path| seen(route, path)).collect())
    }
}

fn session(neighbor: &Neighbor) -> String {
    let Neighbor { address, asn, .. } = neighbor;
    let mut text = format!(" neighbor {address} remote-as {asn}\n");
    let mut option = |on: bool, words: &str| {
        if on {
            writeln!(text, " neighbor {address} {words}").expect("text");
        }
    };
    option(true, "timers connect 1");
    option(true, "advertisement-interval 0");
    option(true, &format!("update-source {}", neighbor.local));
    option(neighbor.passive, "passive");
    if let Some(password) = &neighbor.password {
        option(true, &format!("password {password}"));
    }
    text
}

fn has_map(route: &Route) -> bool {
    !route.communities.is_empty() || !route.targets.is_empty()
}

fn map_name(route: &Route) -> String {
    route.name().replace([' ', ':', '/', '.'], "-")
}

fn route_map(route: &Route) -> String {
    let mut text = format!("route-map {} permit 10\n", map_name(route));
    if !route.communities.is_empty() {
        writeln!(text, " set community {}", route.communities.join(" ")).expect("text");
    }
    if !route.targets.is_empty() {
        writeln!(text, " set extcommunity rt {}", route.targets.join(" ")).expect("text");
    }
    text + "exit\n"
}

fn network(route: &Route) -> String {
    let text = plain_network(route);
    if has_map(route) {
        format!("{text} route-map {}", map_name(route))
    } else {
        text
    }
}

fn plain_network(route: &Route) -> String {
    if route.rd.is_empty() {
        return format!("network {}", route.prefix);
    }
    format!(
        "network {} rd {} label {}",
        route.prefix, route.rd, route.label
    )
}

fn seen(route: &str, path: &Value) -> Seen {
    let targets = string(&path["extendedCommunity"]["string"]);
    let targets = targets.split(' ').filter_map(|one| one.strip_prefix("RT:"));
    Seen {
        route: route.to_owned(),
        next_hop: plain(&string(&path["nexthops"][0]["ip"])),
        as_path: string(&path["aspath"]["string"]),
        communities: strings(&path["community"]["list"]),
        targets: targets.map(str::to_owned).collect(),
        local_pref: number(&path["locPrf"]),
        label: number(&path["remoteLabel"]),
        originator: path["originatorId"].as_str().map(str::to_owned),
        unknown: Vec::new(),
        stale: path["stale"].as_bool().unwrap_or(false),
    }
}

/// `= 6 ` as FRR writes one numeric component.
fn equal(value: &Value) -> String {
    string(value).trim_start_matches('=').trim().to_owned()
}

fn flows(routes: &Value) -> Vec<Seen> {
    let paths = routes.as_object().into_iter().flatten();
    let paths = paths.flat_map(|(_, paths)| paths.as_array().into_iter().flatten());
    paths
        .map(|path| Seen {
            route: format!(
                "{} protocol {} port {}",
                string(&path["to"]).trim_end_matches("/off 0"),
                equal(&path["proto"]),
                equal(&path["dstp"])
            ),
            as_path: string(&path["path"]),
            ..Seen::default()
        })
        .collect()
}

impl Daemon for Frr {
    fn kind(&self) -> Kind {
        Kind::Frr
    }

    fn instance(&mut self) -> &mut Instance {
        &mut self.0
    }

    fn launch(&mut self, _restarting: bool) {
        let file = self.0.write("frr.conf", &self.configuration());
        let vty = self.0.path("vty");
        // A predecessor that was killed leaves its socket and its lock.
        fs::remove_dir_all(&vty).ok();
        fs::create_dir(&vty).expect("our own folder");
        let mut command = self.0.node.command(bgpd().expect("FRR is installed"));
        // -S: stay who we are; -Z, -n: no zebra, no kernel.
        command.args(["-S", "-Z", "-n", "-P", "0", "--log", "stdout"]);
        command.arg("-f").arg(file).arg("--vty_socket").arg(&vty);
        command.arg("-i").arg(vty.join("pid"));
        self.0.run("frr", command);
        let folder = self.0.text("vty");
        let ask = [
            "vtysh",
            "--vty_socket",
            &folder,
            "-d",
            "bgpd",
            "-c",
            "show bgp summary json",
        ];
        wait_answer(&mut self.0, &ask);
    }

    fn established(&mut self, neighbor: IpAddr) -> Result<(), String> {
        let text = self.vtysh(&[&format!("show bgp neighbors {neighbor} json")])?;
        let state = string(&json(&text)?[neighbor.to_string()]["bgpState"]);
        if state == "Established" {
            Ok(())
        } else {
            Err(state)
        }
    }

    fn rib(&mut self, family: Family) -> Result<Vec<Seen>, String> {
        let all = json(&self.vtysh(&[&format!("show bgp {} json", words(family))])?)?;
        let routes = &all["routes"];
        if matches!(family, Family::Flow4 | Family::Flow6) {
            return Ok(flows(routes));
        }
        let mut found = Vec::new();
        let vpn = routes["routeDistinguishers"].as_object();
        for (rd, routes) in vpn.into_iter().flatten() {
            for prefix in routes
                .as_object()
                .into_iter()
                .flatten()
                .map(|(prefix, _)| prefix)
            {
                found.extend(self.detail(family, &format!("{rd} {prefix}"))?);
            }
        }
        let unicast = routes.as_object().filter(|_| vpn.is_none());
        for (prefix, _) in unicast.into_iter().flatten() {
            found.extend(self.detail(family, prefix)?);
        }
        Ok(found)
    }

    fn announce(&mut self, route: &Route) {
        self.0.setup.routes.push(route.clone());
        self.originate(route, "");
    }

    fn withdraw(&mut self, route: &Route) {
        let name = route.name();
        self.0.setup.routes.retain(|one| one.name() != name);
        self.originate(route, "no ");
    }

    fn refresh(&mut self, neighbor: IpAddr) -> Result<(), String> {
        for family in self.0.setup.neighbors[self.0.position(neighbor)]
            .families
            .clone()
        {
            self.vtysh(&[&format!("clear bgp {} {neighbor} soft in", words(family))])?;
        }
        Ok(())
    }

    fn counters(&mut self, neighbor: IpAddr) -> Result<Counters, String> {
        let text = self.vtysh(&[&format!("show bgp neighbors {neighbor} json")])?;
        let all = json(&text)?;
        let one = &self.0.setup.neighbors[self.0.position(neighbor)];
        let ended = &all[neighbor.to_string()]["gracefulRestartInfo"]["endOfRibSend"];
        if one.graceful && ended["ipv4Unicast"] != true {
            return Err(format!("no End-of-RIB sent: {ended}"));
        }
        let messages = &all[neighbor.to_string()]["messageStats"];
        let count = |name: &str| messages[name].as_u64().ok_or(text.clone());
        Ok(Counters {
            sent: count("updatesSent")?,
            received: count("updatesRecv")?,
        })
    }
}
