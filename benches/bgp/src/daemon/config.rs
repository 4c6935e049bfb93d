//! The same neighbours in five languages.

use std::{ffi::OsString, fmt::Write, fs, path::Path};

use anyhow::{Context, Result, ensure};

use super::{Found, Neighbour, Peer, Topology};
use crate::wire::{ASN, Family};

/// Writes the configuration; returns the daemon's arguments.
pub(super) fn write(found: &Found, topology: &Topology, folder: &Path) -> Result<Vec<OsString>> {
    let text = match found.peer {
        Peer::Bird => bird(topology),
        Peer::Frr => frr(topology),
        Peer::Gobgp => gobgp(topology),
        Peer::Openbgpd => openbgpd(topology, folder),
        Peer::Sealane => sealane(topology, found.shards),
    }?;
    let config = folder.join("config");
    fs::write(&config, text).with_context(|| format!("writing {}", config.display()))?;
    fs::create_dir_all(folder.join("state"))?;
    let ip = topology.address.ip();
    let line = match found.peer {
        Peer::Bird => "-f -c config -s socket -P pid".to_owned(),
        Peer::Frr => format!(
            "-S -Z -n -f config -i pid -P 0 --vty_socket state -l {ip} -p {}",
            topology.address.port()
        ),
        Peer::Gobgp => format!("-f config -t toml --api-hosts {ip}:50051"),
        Peer::Openbgpd => "-d -f config".to_owned(),
        Peer::Sealane => "bgp --config config --state state".to_owned(),
    };
    // Some daemons change their folder: every file is named in full.
    let words = line.split(' ').map(|word| match word {
        "config" | "socket" | "pid" | "state" => folder.join(word).into(),
        word => word.into(),
    });
    Ok(words.collect())
}

fn bird(topology: &Topology) -> Result<String> {
    let (ip, port) = (topology.address.ip(), topology.address.port());
    let mut text = format!(
        "log stderr {{ info, remote, warning, error, auth, fatal, bug }};\n\
         router id {ip};\nprotocol device {{ }}\n\
         ipv4 table hops;\nvpn4 table vpns;\n"
    );
    for (number, neighbour) in topology.neighbours.iter().enumerate() {
        let Neighbour { address, asn, .. } = neighbour;
        let client = if neighbour.internal() {
            " rr client;"
        } else {
            ""
        };
        writeln!(
            text,
            "protocol bgp n{number} {{\n  local {ip} port {port} as {ASN};\n  \
             neighbor {address} as {asn};\n  multihop; passive on; strict bind on;{client}\n  \
             hold time 600; startup hold time 600;"
        )?;
        for family in &neighbour.families {
            match family {
                Family::Ipv4 => {
                    writeln!(
                        text,
                        "  ipv4 {{ igp table hops; import all; export all; }};"
                    )?;
                }
                Family::Vpnv4 => writeln!(
                    text,
                    "  vpn4 mpls {{ table vpns; igp table hops; import all; export all; }};"
                )?,
                Family::Mesh | Family::Rtc => return refused(Peer::Bird, *family),
            }
        }
        text.push_str("}\n");
    }
    Ok(text)
}

fn frr(topology: &Topology) -> Result<String> {
    let mut text = format!(
        "router bgp {ASN}\n bgp router-id {}\n no bgp ebgp-requires-policy\n \
         no bgp default ipv4-unicast\n timers bgp 200 600\n",
        topology.address.ip()
    );
    let mut families = String::new();
    for family in [Family::Ipv4, Family::Vpnv4] {
        let name = if family == Family::Ipv4 {
            "unicast"
        } else {
            "vpn"
        };
        writeln!(families, " address-family ipv4 {name}")?;
        for Neighbour {
            address,
            families: theirs,
            asn,
            ..
        } in &topology.neighbours
        {
            if theirs.contains(&family) {
                writeln!(families, "  neighbor {address} activate")?;
                if *asn == ASN {
                    writeln!(families, "  neighbor {address} route-reflector-client")?;
                }
            }
        }
        families.push_str(" exit-address-family\n");
    }
    for neighbour in &topology.neighbours {
        for family in &neighbour.families {
            if let Family::Mesh | Family::Rtc = family {
                return refused(Peer::Frr, *family);
            }
        }
        let Neighbour { address, asn, .. } = neighbour;
        writeln!(
            text,
            " neighbor {address} remote-as {asn}\n neighbor {address} passive"
        )?;
        if !neighbour.internal() {
            writeln!(text, " neighbor {address} ebgp-multihop")?;
        }
    }
    Ok(text + &families)
}

fn gobgp(topology: &Topology) -> Result<String> {
    let ip = topology.address.ip();
    let mut text = format!(
        "[global.config]\nas = {ASN}\nrouter-id = \"{ip}\"\nport = {}\n\
         local-address-list = [\"{ip}\"]\n",
        topology.address.port()
    );
    for neighbour in &topology.neighbours {
        let Neighbour { address, asn, .. } = neighbour;
        writeln!(
            text,
            "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n\
             [neighbors.transport.config]\npassive-mode = true\nlocal-address = \"{ip}\"\n\
             [neighbors.timers.config]\nhold-time = 600.0\nkeepalive-interval = 200.0"
        )?;
        if neighbour.internal() {
            writeln!(
                text,
                "[neighbors.route-reflector.config]\nroute-reflector-client = true\n\
                 route-reflector-cluster-id = \"{ip}\""
            )?;
        } else {
            writeln!(
                text,
                "[neighbors.ebgp-multihop.config]\nenabled = true\nmultihop-ttl = 10"
            )?;
        }
        for family in &neighbour.families {
            let name = match family {
                Family::Ipv4 => "ipv4-unicast",
                Family::Vpnv4 => "l3vpn-ipv4-unicast",
                Family::Rtc => "rtc",
                Family::Mesh => return refused(Peer::Gobgp, *family),
            };
            writeln!(
                text,
                "[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{name}\""
            )?;
        }
    }
    Ok(text)
}

fn openbgpd(topology: &Topology, folder: &Path) -> Result<String> {
    let (ip, port) = (topology.address.ip(), topology.address.port());
    ensure!(port == 179, "openbgpd needs a network namespace");
    let folder = folder.display();
    let mut text = format!(
        "AS {ASN}\nrouter-id {ip}\nlisten on {ip}\nholdtime 600\nfib-update no\n\
         socket \"{folder}/socket\"\n"
    );
    for neighbour in &topology.neighbours {
        let Neighbour { address, asn, .. } = neighbour;
        writeln!(text, "neighbor {address} {{\n  remote-as {asn}\n  passive")?;
        if neighbour.internal() {
            text.push_str("  route-reflector\n");
        } else {
            text.push_str("  multihop 10\n  enforce neighbor-as no\n");
        }
        text.push_str("  announce IPv4 none\n");
        for family in &neighbour.families {
            match family {
                Family::Ipv4 => text.push_str("  announce IPv4 unicast\n"),
                Family::Vpnv4 => text.push_str("  announce IPv4 vpn\n"),
                Family::Mesh | Family::Rtc => return refused(Peer::Openbgpd, *family),
            }
        }
        text.push_str("}\n");
    }
    text.push_str("allow from any\nallow to any\n");
    Ok(text)
}

fn sealane(topology: &Topology, shards: Option<usize>) -> Result<String> {
    let mut text = format!(
        "asn: {ASN}\nrouterId: {}\nlisten: {}\n",
        topology.address.ip(),
        topology.address
    );
    if let Some(shards) = shards {
        writeln!(text, "shards: {shards}")?;
    }
    text.push_str("neighbors:\n");
    for neighbour in &topology.neighbours {
        let names = neighbour.families.iter().map(|family| match family {
            Family::Ipv4 => "ipv4",
            Family::Vpnv4 => "vpnv4",
            Family::Mesh => "mesh",
            Family::Rtc => "rtc",
        });
        let families = names.collect::<Vec<_>>().join(", ");
        let Neighbour { address, asn, .. } = neighbour;
        write!(
            text,
            "- address: {address}\n  asn: {asn}\n  families: [{families}]\n  \
             import: accept\n  export: accept\n"
        )?;
        let (ip, port) = (topology.address.ip(), topology.address.port());
        if neighbour.dialled {
            write!(text, "  port: {port}\n  localAddress: {ip}\n")?;
        } else {
            text.push_str("  passive: true\n");
        }
        if neighbour.internal() {
            text.push_str("  client: true\n");
        }
    }
    Ok(text)
}

fn refused<T>(peer: Peer, family: Family) -> Result<T> {
    anyhow::bail!("{peer} does not speak {family:?}")
}
