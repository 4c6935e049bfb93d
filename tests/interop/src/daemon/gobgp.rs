//! GoBGP, driven by its command line.

use std::{fmt::Write, net::IpAddr};

use serde_json::Value;

use super::{
    Counters, Daemon, Family, Instance, Kind, Route, Seen, json, number, plain, string, wait_answer,
};
use crate::setup::Neighbor;

pub(super) struct Gobgp(pub(super) Instance);

/// How its configuration names a family.
fn afi_safi(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4-unicast",
        Family::Ipv6 => "ipv6-unicast",
        Family::Vpnv4 => "l3vpn-ipv4-unicast",
        Family::Vpnv6 => "l3vpn-ipv6-unicast",
        Family::Rtc => "rtc",
        Family::Flow4 => "ipv4-flowspec",
        Family::Flow6 => "ipv6-flowspec",
    }
}

/// How its command line names a family.
fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
        Family::Vpnv4 => "vpnv4",
        Family::Vpnv6 => "vpnv6",
        Family::Rtc => "rtc",
        Family::Flow4 => "ipv4-flowspec",
        Family::Flow6 => "ipv6-flowspec",
    }
}

impl Gobgp {
    fn configuration(&self) -> String {
        let setup = &self.0.setup;
        let mut text = format!(
            "[global.config]\nas = {}\nrouter-id = \"{}\"\nlocal-address-list = [\"0.0.0.0\", \"::\"]\n",
            setup.asn, setup.id
        );
        for neighbor in &setup.neighbors {
            text += &section(neighbor, setup.id);
        }
        text
    }

    fn gobgp(&self, words: &str) -> Result<String, String> {
        self.0.node.ask("gobgp", words.split_whitespace())
    }

    fn originate(&self, route: &Route, verb: &str) {
        let mut words = format!("global rib {verb} -a {} ", word(route.family));
        match &route.flow {
            Some(flow) => write!(
                words,
                "match destination {} protocol =={} destination-port =={} then accept",
                flow.destination, flow.protocol, flow.port
            )
            .expect("text"),
            None => words += &route.prefix,
        }
        if !route.rd.is_empty() {
            write!(words, " label {} rd {}", route.label, route.rd).expect("text");
            for target in &route.targets {
                write!(words, " rt {target}").expect("text");
            }
        }
        if let Some(next_hop) = route.next_hop {
            write!(words, " nexthop {next_hop}").expect("text");
        }
        if !route.communities.is_empty() {
            write!(words, " community {}", route.communities.join(",")).expect("text");
        }
        self.gobgp(&words).expect("GoBGP takes the route");
    }

    /// Hides the neighbours (`add`) or shows them again (`del`): its routes come from the command
    /// line, and a neighbour that came before them would take an end of RIB for all there is.
    fn hide(&self, verb: &str) {
        for neighbor in &self.0.setup.neighbors {
            let address = neighbor.address.to_string();
            let words = ["route", verb, "blackhole", &address];
            self.0.node.ask("ip", words).expect("a route of ours");
        }
    }
}

fn section(neighbor: &Neighbor, id: IpAddr) -> String {
    let Neighbor {
        address,
        local,
        asn,
        passive,
        ..
    } = neighbor;
    let mut text = format!(
        "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n"
    );
    if let Some(password) = &neighbor.password {
        writeln!(text, "auth-password = \"{password}\"").expect("text");
    }
    text += "[neighbors.timers.config]\nconnect-retry = 1\nidle-hold-time-after-reset = 1\n";
    write!(
        text,
        "[neighbors.transport.config]\nlocal-address = \"{local}\"\npassive-mode = {passive}\n"
    )
    .expect("text");
    if neighbor.client {
        write!(
            text,
            "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
             route-reflector-cluster-id = \"{id}\"\n"
        )
        .expect("text");
    }
    if neighbor.graceful {
        text += "[neighbors.graceful-restart.config]\nenabled = true\nrestart-time = 20\n";
    }
    for family in &neighbor.families {
        let name = afi_safi(*family);
        write!(
            text,
            "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\"\n"
        )
        .expect("text");
        if neighbor.add_path {
            text += "[neighbors.afi-safis.add-paths.config]\nreceive = true\nsend-max = 8\n";
        }
        if neighbor.graceful {
            text += "[neighbors.afi-safis.mp-graceful-restart.config]\nenabled = true\n";
        }
    }
    text
}

impl Daemon for Gobgp {
    fn kind(&self) -> Kind {
        Kind::Gobgp
    }

    fn instance(&mut self) -> &mut Instance {
        &mut self.0
    }

    fn launch(&mut self, restarting: bool) {
        let file = self.0.write("gobgpd.toml", &self.configuration());
        let mut command = self.0.node.command("gobgpd");
        command.args([
            "-p",
            "--pprof-disable",
            "--api-hosts",
            "127.0.0.1:50051",
            "-f",
        ]);
        command.arg(file);
        if restarting {
            command.arg("-r");
            self.hide("add");
        }
        self.0.run("gobgpd", command);
        wait_answer(&mut self.0, &["gobgp", "global"]);
        for route in &self.0.setup.routes {
            self.originate(route, "add");
        }
        if restarting {
            self.hide("del");
        }
    }

    fn established(&mut self, neighbor: IpAddr) -> Result<(), String> {
        let state = json(&self.gobgp(&format!("neighbor {neighbor} -j"))?)?;
        let state = &state["state"]["session_state"];
        if state == 6 {
            Ok(())
        } else {
            Err(format!("state {state} of 6"))
        }
    }

    fn rib(&mut self, family: Family) -> Result<Vec<Seen>, String> {
        let text = self.gobgp(&format!("global rib -a {} -j", word(family)))?;
        // It says so in words when there is nothing.
        if !text.trim_start().starts_with('{') {
            return Ok(Vec::new());
        }
        let all = json(&text)?;
        let paths = all.as_object().into_iter().flatten();
        let paths = paths.flat_map(|(_, paths)| paths.as_array().into_iter().flatten());
        Ok(paths.map(|path| seen(family, path)).collect())
    }

    fn announce(&mut self, route: &Route) {
        self.originate(route, "add");
        self.0.setup.routes.push(route.clone());
    }

    fn withdraw(&mut self, route: &Route) {
        let name = route.name();
        self.0.setup.routes.retain(|one| one.name() != name);
        self.originate(route, "del");
    }

    fn refresh(&mut self, neighbor: IpAddr) -> Result<(), String> {
        for family in self.0.setup.neighbors[self.0.position(neighbor)]
            .families
            .clone()
        {
            self.gobgp(&format!(
                "neighbor {neighbor} softresetin -a {}",
                word(family)
            ))?;
        }
        Ok(())
    }

    fn counters(&mut self, neighbor: IpAddr) -> Result<Counters, String> {
        let all = json(&self.gobgp(&format!("neighbor {neighbor} -j"))?)?;
        let messages = &all["state"]["messages"];
        // Zeroes are left out.
        let count = |way: &str| messages[way]["update"].as_u64().unwrap_or(0);
        Ok(Counters {
            sent: count("sent"),
            received: count("received"),
        })
    }
}

fn seen(family: Family, path: &Value) -> Seen {
    let mut seen = Seen {
        route: name(family, &path["nlri"]),
        label: number(&path["nlri"]["labels"][0]),
        stale: path["stale"].as_bool().unwrap_or(false),
        ..Seen::default()
    };
    for attribute in path["attrs"].as_array().into_iter().flatten() {
        let value = &attribute["value"];
        match attribute["type"].as_u64().unwrap_or(0) {
            1 | 4 | 6 | 7 | 10 => {}
            2 => {
                let segments = attribute["as_paths"].as_array().into_iter().flatten();
                let asns = segments.flat_map(|one| one["asns"].as_array().into_iter().flatten());
                seen.as_path = asns.map(string).collect::<Vec<_>>().join(" ");
            }
            3 | 14 => seen.next_hop = plain(&string(&attribute["nexthop"])),
            5 => seen.local_pref = number(value),
            8 => {
                let all = attribute["communities"].as_array().into_iter().flatten();
                let all = all.filter_map(number);
                let pairs = all.map(|one| format!("{}:{}", one >> 16, one & 0xffff));
                seen.communities = pairs.collect();
            }
            9 => seen.originator = Some(string(value)),
            16 => {
                let all = value.as_array().into_iter().flatten();
                let targets = all.filter(|one| one["subtype"] == 2);
                seen.targets = targets.map(|one| string(&one["value"])).collect();
            }
            code => {
                let code = u8::try_from(code).unwrap_or(0);
                seen.unknown.push((code, hexadecimal(value)));
            }
        }
    }
    seen
}

/// What it writes for an unknown attribute's octets: base64, as Go's JSON does.
fn hexadecimal(value: &Value) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = string(value);
    let digits = text
        .bytes()
        .filter_map(|digit| ALPHABET.iter().position(|one| *one == digit));
    let bits: Vec<usize> = digits
        .flat_map(|digit| (0..6).rev().map(move |bit| digit >> bit & 1))
        .collect();
    let octets = bits
        .chunks_exact(8)
        .map(|bits| bits.iter().fold(0, |all, bit| all << 1 | bit));
    octets.map(|octet| format!("{octet:02x}")).collect()
}

fn name(family: Family, nlri: &Value) -> String {
    match family {
        Family::Ipv4 | Family::Ipv6 | Family::Rtc => string(&nlri["prefix"]),
        Family::Vpnv4 | Family::Vpnv6 => {
            let rd = &nlri["rd"];
            format!(
                "{}:{} {}",
                string(&rd["admin"]),
                rd["assigned"],
                string(&nlri["prefix"])
            )
        }
        Family::Flow4 | Family::Flow6 => {
            let component = |code: u64| -> &Value {
                let mut all = nlri["value"].as_array().into_iter().flatten();
                let found = all.find(|one| one["type"] == code);
                found.map_or(&Value::Null, |one| &one["value"])
            };
            let destination = string(&component(1)["prefix"]);
            let (protocol, port) = (&component(3)[0]["value"], &component(5)[0]["value"]);
            // An IPv6 prefix is written with its offset, `2001:db8::/32/0`.
            let slashes = destination.matches('/').count();
            let end = if slashes == 2 {
                destination.rfind('/')
            } else {
                None
            };
            let destination = &destination[..end.unwrap_or(destination.len())];
            format!("{destination} protocol {protocol} port {port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_are_read() {
        assert_eq!(hexadecimal(&Value::from("3q2+7w==")), "deadbeef");
        assert_eq!(hexadecimal(&Value::from("3g==")), "de");
    }
}
