//! OpenBGPD's portable version. Its processes change their user, so it wants a real root.

use std::{fmt::Write, fs, net::IpAddr};

use serde_json::Value;

use super::{
    Counters, Daemon, Family, Instance, Kind, Route, Seen, json, number, plain, string, strings,
    wait_answer,
};
use crate::setup::Neighbor;

pub(super) struct Openbgpd(pub(super) Instance);

fn words(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "IPv4 unicast",
        Family::Ipv6 => "IPv6 unicast",
        Family::Vpnv4 => "IPv4 vpn",
        Family::Vpnv6 => "IPv6 vpn",
        Family::Rtc | Family::Flow4 | Family::Flow6 => unreachable!("OpenBGPD 7 has none"),
    }
}

impl Openbgpd {
    fn configuration(&self) -> String {
        let setup = &self.0.setup;
        let mut text = format!(
            "AS {}\nrouter-id {}\nfib-update no\nsocket \"{}\"\nconnect-retry 1\n",
            setup.asn,
            setup.id,
            self.0.text("socket")
        );
        // Without a kernel's routes it finds no next hop but by default.
        text += "nexthop qualify via default\n";
        for neighbor in &setup.neighbors {
            writeln!(text, "listen on {}", neighbor.local).expect("text");
        }
        for route in &setup.routes {
            let set = match set(route) {
                set if set.is_empty() => set,
                set => format!("set {{ {set} }}"),
            };
            writeln!(text, "network {} {set}", route.prefix).expect("text");
        }
        for neighbor in &setup.neighbors {
            text += &section(neighbor);
        }
        text + "allow from any\nallow to any\n"
    }

    fn bgpctl(&self, args: &str) -> Result<String, String> {
        let socket = self.0.text("socket");
        let args = ["-s", &socket].into_iter().chain(args.split_whitespace());
        self.0.node.ask("bgpctl", args)
    }

    fn neighbor(&self, address: IpAddr) -> Result<Value, String> {
        let all = json(&self.bgpctl(&format!("-j show neighbor {address}"))?)?;
        Ok(all["neighbors"][0].clone())
    }
}

fn set(route: &Route) -> String {
    let communities = route
        .communities
        .iter()
        .map(|one| format!("community {one}"));
    communities.collect::<Vec<_>>().join(" ")
}

fn section(neighbor: &Neighbor) -> String {
    let Neighbor {
        address,
        local,
        asn,
        ..
    } = neighbor;
    let mut text = format!(
        "neighbor {address} {{\n remote-as {asn}\n local-address {local}\n announce IPv4 none\n \
         announce IPv6 none\n announce enhanced refresh yes\n"
    );
    for family in &neighbor.families {
        writeln!(text, " announce {}", words(*family)).expect("text");
    }
    let mut option = |on: bool, words: &str| {
        if on {
            writeln!(text, " {words}").expect("text");
        }
    };
    option(neighbor.client, "route-reflector");
    option(neighbor.passive, "passive");
    option(
        neighbor.add_path,
        "announce add-path recv yes\n announce add-path send all",
    );
    if let Some(password) = &neighbor.password {
        option(true, &format!("tcp md5sig password {password}"));
    }
    text + "}\n"
}

fn seen(path: &Value) -> Seen {
    let prefix = string(&path["prefix"]);
    let extended = strings(&path["extended_communities"]);
    let targets = extended.iter().filter_map(|one| one.strip_prefix("rt "));
    Seen {
        route: prefix.strip_prefix("rd ").unwrap_or(&prefix).to_owned(),
        next_hop: plain(&string(&path["exit_nexthop"])),
        as_path: string(&path["aspath"]),
        communities: strings(&path["communities"]),
        targets: targets.map(str::to_owned).collect(),
        local_pref: number(&path["localpref"]),
        label: None,
        originator: path["originator"].as_str().map(str::to_owned),
        unknown: Vec::new(),
        stale: path["stale"].as_bool().unwrap_or(false),
    }
}

impl Daemon for Openbgpd {
    fn kind(&self) -> Kind {
        Kind::Openbgpd
    }

    fn instance(&mut self) -> &mut Instance {
        &mut self.0
    }

    fn launch(&mut self, _restarting: bool) {
        fs::remove_file(self.0.path("socket")).ok();
        let file = self.0.write("bgpd.conf", &self.configuration());
        let mut command = self.0.node.command("/usr/sbin/bgpd");
        command.arg("-d").arg("-f").arg(file);
        self.0.run("openbgpd", command);
        let socket = self.0.text("socket");
        wait_answer(&mut self.0, &["bgpctl", "-s", &socket, "show", "summary"]);
    }

    fn established(&mut self, neighbor: IpAddr) -> Result<(), String> {
        let state = string(&self.neighbor(neighbor)?["state"]);
        if state == "Established" {
            Ok(())
        } else {
            Err(state)
        }
    }

    fn rib(&mut self, family: Family) -> Result<Vec<Seen>, String> {
        let all = json(&self.bgpctl(&format!("-j show rib detail {}", table(family)))?)?;
        Ok(all["rib"]
            .as_array()
            .into_iter()
            .flatten()
            .map(seen)
            .collect())
    }

    fn announce(&mut self, route: &Route) {
        let said = self.bgpctl(&format!("network add {} {}", route.prefix, set(route)));
        said.expect("OpenBGPD takes the route");
        self.0.setup.routes.push(route.clone());
    }

    fn withdraw(&mut self, route: &Route) {
        let said = self.bgpctl(&format!("network delete {}", route.prefix));
        said.expect("OpenBGPD forgets the route");
        let name = route.name();
        self.0.setup.routes.retain(|one| one.name() != name);
    }

    fn refresh(&mut self, neighbor: IpAddr) -> Result<(), String> {
        self.bgpctl(&format!("neighbor {neighbor} refresh"))
            .map(drop)
    }

    fn counters(&mut self, neighbor: IpAddr) -> Result<Counters, String> {
        let all = self.neighbor(neighbor)?;
        let messages = &all["stats"]["message"];
        let count = |way: &str| messages[way]["updates"].as_u64().ok_or(all.to_string());
        Ok(Counters {
            sent: count("sent")?,
            received: count("received")?,
        })
    }
}

/// How `show rib` names a family.
fn table(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "inet",
        Family::Ipv6 => "inet6",
        Family::Vpnv4 => "VPNv4",
        Family::Vpnv6 => "VPNv6",
        Family::Rtc | Family::Flow4 | Family::Flow6 => unreachable!("OpenBGPD 7 has none"),
    }
}
