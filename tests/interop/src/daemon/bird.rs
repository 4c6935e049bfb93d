//! BIRD 2.

use std::{fmt::Write, net::IpAddr};

use kit::process::Signal;

use super::{Counters, Daemon, Family, Instance, Kind, Route, Seen, plain, wait_answer};
use crate::setup::Neighbor;

pub(super) struct Bird(pub(super) Instance);

/// Its word for a table and, with the same spelling, for the nets in it.
fn word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
        Family::Vpnv4 => "vpn4",
        Family::Vpnv6 => "vpn6",
        Family::Flow4 => "flow4",
        Family::Flow6 => "flow6",
        Family::Rtc => unreachable!("BIRD has no route target membership"),
    }
}

impl Bird {
    fn configuration(&self) -> String {
        let setup = &self.0.setup;
        let mut text = format!(
            "log stderr all;\ndebug protocols {{ states, events }};\nrouter id {};\ngraceful restart wait 3;\nprotocol device {{ }}\n",
            setup.id
        );
        for family in self.0.families() {
            let word = word(family);
            writeln!(text, "{word} table t_{word};\nprotocol static s_{word} {{").expect("text");
            writeln!(text, "  {word} {{ table t_{word}; }};").expect("text");
            for route in setup.routes.iter().filter(|route| route.family == family) {
                writeln!(text, "  route {};", self.route(route)).expect("text");
            }
            text += "}\n";
        }
        if setup.neighbors.iter().any(|neighbor| neighbor.bfd) {
            text += "protocol bfd {\n  interface \"*\" { interval 100 ms; idle tx interval 300 ms; };\n}\n";
        }
        for (number, neighbor) in setup.neighbors.iter().enumerate() {
            text += &self.protocol(number, neighbor);
        }
        text
    }

    fn route(&self, route: &Route) -> String {
        let own = self.0.setup.neighbors[0].local;
        let mut text = match &route.flow {
            Some(flow) => format!(
                "{} {{ dst {}; {} = {}; dport = {}; }}",
                word(route.family),
                flow.destination,
                if route.family.is_v6() {
                    "next header"
                } else {
                    "proto"
                },
                flow.protocol,
                flow.port
            ),
            None if route.rd.is_empty() => format!("{} blackhole", route.prefix),
            None => {
                let via = route.next_hop.unwrap_or(own);
                format!(
                    "{} {} via {via} mpls {}",
                    route.rd, route.prefix, route.label
                )
            }
        };
        let pair = |text: &str| text.replace(':', ",");
        text += " {";
        for community in &route.communities {
            text += &format!(" bgp_community.add(({}));", pair(community));
        }
        for target in &route.targets {
            text += &format!(" bgp_ext_community.add((rt,{}));", pair(target));
        }
        text + " }"
    }

    fn protocol(&self, number: usize, neighbor: &Neighbor) -> String {
        let mut text = format!("protocol bgp p{number} {{\n");
        let (local, address) = (neighbor.local, neighbor.address);
        let lines = [
            format!("local {local} as {}", self.0.setup.asn),
            format!("neighbor {address} as {}", neighbor.asn),
            "connect delay time 1; connect retry time 1; error wait time 1, 1".to_owned(),
            "enable extended messages on".to_owned(),
        ];
        for line in lines {
            writeln!(text, "  {line};").expect("text");
        }
        let mut option = |on: bool, line: &str| {
            if on {
                writeln!(text, "  {line};").expect("text");
            }
        };
        option(neighbor.client, "rr client");
        option(neighbor.passive, "passive on");
        option(neighbor.bfd, "bfd on");
        option(
            neighbor.graceful,
            "graceful restart on; graceful restart time 20",
        );
        if let Some(password) = &neighbor.password {
            option(true, &format!("password \"{password}\""));
        }
        for family in &neighbor.families {
            let word = word(*family);
            let labelled = matches!(family, Family::Vpnv4 | Family::Vpnv6);
            let mpls = if labelled { " mpls" } else { "" };
            let paths = if neighbor.add_path {
                " add paths on;"
            } else {
                ""
            };
            writeln!(
                text,
                "  {word}{mpls} {{ table t_{word}; import all; export all;{paths} }};"
            )
            .expect("text");
        }
        text + "}\n"
    }

    fn birdc(&self, words: &str) -> Result<String, String> {
        let socket = self.0.text("control");
        let args = ["-s", &socket].into_iter().chain(words.split(' '));
        self.0.node.ask("birdc", args)
    }

    fn reconfigure(&mut self) {
        self.0.write("bird.conf", &self.configuration());
        let process = self.0.process.as_ref().expect("started");
        process.signal(Signal::HUP);
    }
}

impl Daemon for Bird {
    fn kind(&self) -> Kind {
        Kind::Bird
    }

    fn instance(&mut self) -> &mut Instance {
        &mut self.0
    }

    fn launch(&mut self, restarting: bool) {
        let file = self.0.write("bird.conf", &self.configuration());
        let mut command = self.0.node.command("bird");
        command.arg("-f").arg("-c").arg(file);
        command.arg("-s").arg(self.0.path("control"));
        if restarting {
            command.arg("-R");
        }
        self.0.run("bird", command);
        let socket = self.0.text("control");
        wait_answer(&mut self.0, &["birdc", "-s", &socket, "show", "status"]);
    }

    fn established(&mut self, neighbor: IpAddr) -> Result<(), String> {
        let name = format!("p{}", self.0.position(neighbor));
        let text = self.birdc(&format!("show protocols {name}"))?;
        if text.contains("Established") {
            Ok(())
        } else {
            Err(text)
        }
    }

    fn rib(&mut self, family: Family) -> Result<Vec<Seen>, String> {
        let text = self.birdc(&format!("show route all table t_{}", word(family)))?;
        Ok(paths(family, &text))
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
        let name = format!("p{}", self.0.position(neighbor));
        self.birdc(&format!("reload in {name}")).map(drop)
    }

    fn counters(&mut self, neighbor: IpAddr) -> Result<Counters, String> {
        let name = format!("p{}", self.0.position(neighbor));
        let text = self.birdc(&format!("show protocols all {name}"))?;
        // It counts no messages, only routes.
        let sum = |title: &str| -> u64 {
            let rows = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix(title));
            let first = rows.filter_map(|row| row.split_whitespace().next()?.parse::<u64>().ok());
            first.sum()
        };
        Ok(Counters {
            sent: sum("Export updates:"),
            received: sum("Import updates:"),
        })
    }
}

/// Reads `show route all`: a net, or only its indentation for a further path, then attributes.
fn paths(family: Family, text: &str) -> Vec<Seen> {
    let mut found: Vec<Seen> = Vec::new();
    let mut net = String::new();
    for line in text.lines() {
        if line.starts_with("BIRD ") || line.starts_with("Table ") || line.is_empty() {
            continue;
        }
        if let Some(attribute) = line.strip_prefix('\t') {
            if let Some(path) = found.last_mut() {
                read_attribute(path, attribute);
            }
            continue;
        }
        if !line.starts_with(' ') {
            net = name(family, line);
        }
        found.push(Seen {
            route: net.clone(),
            ..Seen::default()
        });
    }
    found
}

/// The name of a net at the start of a line.
fn name(family: Family, line: &str) -> String {
    match family {
        Family::Flow4 | Family::Flow6 => {
            let after = |word: &str| {
                let rest = line.split_once(word).map_or("", |(_, rest)| rest);
                rest.split_once(';').map_or("", |(value, _)| value.trim())
            };
            let protocol = if family.is_v6() {
                "next header "
            } else {
                "proto "
            };
            let (protocol, port) = (after(protocol), after("dport "));
            format!("{} protocol {protocol} port {port}", after("dst "))
        }
        Family::Vpnv4 | Family::Vpnv6 => {
            let words: Vec<&str> = line.split_whitespace().take(2).collect();
            words.join(" ")
        }
        Family::Ipv4 | Family::Ipv6 | Family::Rtc => line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

fn read_attribute(path: &mut Seen, line: &str) {
    let Some((name, value)) = line.trim().split_once(": ") else {
        return;
    };
    let pairs = || -> Vec<String> {
        let values = value.split(") (").map(|one| one.trim_matches(['(', ')']));
        values
            .map(|one| one.replace(' ', "").replace(',', ":"))
            .collect()
    };
    match name {
        "BGP.next_hop" => {
            path.next_hop = plain(value.split_whitespace().next().unwrap_or_default());
        }
        "BGP.as_path" => path.as_path = value.trim().to_owned(),
        "BGP.local_pref" => path.local_pref = value.trim().parse().ok(),
        "BGP.originator_id" => path.originator = Some(value.trim().to_owned()),
        "BGP.mpls_label_stack" => path.label = value.trim().parse().ok(),
        "BGP.community" => path.communities = pairs(),
        "BGP.ext_community" => {
            let targets = pairs();
            let targets = targets.iter().filter_map(|one| one.strip_prefix("rt:"));
            path.targets = targets.map(str::to_owned).collect();
        }
        _ => {
            // `BGP.244 [t]: de ad`, RFC 4271's unrecognised ones.
            let code = name
                .strip_prefix("BGP.")
                .and_then(|name| name.split(' ').next()?.parse().ok());
            if let Some(code) = code {
                path.unknown.push((code, value.replace(' ', "")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read() {
        let text = "BIRD 2.0.12 ready.\nTable t_ipv4:\n\
            10.1.0.0/16          unicast [p0 03:17:22.835] * (100) [AS65003i]\n\
            \tvia 10.0.1.1 on eth0\n\tBGP.as_path: 65000 65003\n\
            \tBGP.next_hop: 10.0.1.1\n\tBGP.community: (65003,1) (65003,2)\n\
            \tBGP.244 [t]: de ad\n\
            \x20                    unicast [p1 03:17:22.835] (100) [AS65004i]\n\
            \tBGP.as_path: 65004\n";
        let found = paths(Family::Ipv4, text);
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|path| path.route == "10.1.0.0/16"));
        assert_eq!(found[0].communities, ["65003:1", "65003:2"]);
        assert_eq!(found[0].unknown, [(244, "dead".to_owned())]);
        assert_eq!(found[1].as_path, "65004");
    }

    #[test]
    fn flows_have_a_name() {
        let line = "flow4 { dst 10.66.1.0/24; proto 6; dport 80; }  [sf4 03:17:14.822] * (200)";
        assert_eq!(name(Family::Flow4, line), "10.66.1.0/24 protocol 6 port 80");
    }
}
