//! What `up` says when everything is ready.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
};

use lab::topology::{Layout, Topology};
use serde::{Deserialize, Serialize};

use super::process::Crew;
use crate::args::Net;

/// The one line of `sealane up --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// From the start of `up` until everything answered, in milliseconds.
    pub startup_ms: u64,
    /// The folder of everything.
    pub home: PathBuf,
    /// The management plane.
    pub controller: ControllerReport,
    /// What stands between the sites.
    pub relay: RelayReport,
    /// The PoPs.
    pub pops: Vec<PopReport>,
    /// The gateways.
    pub gateways: Vec<GatewayReport>,
    /// The demo applications.
    pub apps: Vec<AppReport>,
    /// What stands between the sites.
    #[serde(default)]
    pub net: NetReport,
}

/// What stands between the sites.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetReport {
    /// `loopback` or `ns`.
    pub mode: Net,
    /// The network namespaces by name, each as a path that `nsenter --net=PATH` takes (after
    /// `nsenter -U` into the user namespace of `up`, if it made one).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, PathBuf>,
}

/// The management plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControllerReport {
    /// Its API.
    pub url: String,
    /// The PEM file of the only CA to trust there.
    pub ca: PathBuf,
    /// The administrator's bearer token. Secret.
    pub token: String,
    /// Its process.
    pub pid: u32,
}

/// The relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RelayReport {
    /// Its process.
    pub pid: u32,
}

/// A PoP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PopReport {
    /// Its name.
    pub name: String,
    /// Where it offers port 80.
    pub http: SocketAddr,
    /// Where it offers port 443.
    pub https: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// That of its control part, if it is two processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_pid: Option<u32>,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayReport {
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Its process.
    pub pid: u32,
    /// That of its control part, if it is two processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_pid: Option<u32>,
}

/// A demo application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppReport {
    /// Its published host.
    pub host: String,
    /// Its tenant.
    pub tenant: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// A demo endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Its site.
    pub site: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
}

/// The name of an endpoint's process: `cart-1.aws`.
pub(super) fn endpoint_name(name: &str, site: &str) -> String {
    format!("{name}.{site}")
}

/// The name of the process of a node's control part: `control.aws`.
pub(super) fn control_name(site: &str) -> String {
    format!("control.{site}")
}

impl Report {
    pub(super) fn new(
        topology: &Topology,
        layout: &Layout,
        crew: &Crew,
        home: &Path,
        controller: ControllerReport,
    ) -> Self {
        let control = |site: &str| Some(crew.pid(&control_name(site))).filter(|pid| *pid != 0);
        let pops = layout.pops.iter().map(|pop| PopReport {
            name: pop.name.clone(),
            http: pop.http,
            https: pop.https,
            pid: crew.pid(&pop.name),
            control_pid: control(&pop.name),
        });
        let gateways = topology.gateways.iter().map(|gateway| GatewayReport {
            name: gateway.name.clone(),
            tenant: gateway.tenant.clone(),
            pid: crew.pid(&gateway.name),
            control_pid: control(&gateway.name),
        });
        let apps = topology.apps.iter().enumerate().map(|(index, app)| {
            let endpoints = layout
                .endpoints
                .iter()
                .filter(|endpoint| endpoint.app == index);
            AppReport {
                host: app.host.clone(),
                tenant: app.tenant.clone(),
                endpoints: endpoints
                    .map(|endpoint| EndpointReport {
                        site: endpoint.site.clone(),
                        address: endpoint.address,
                        pid: crew.pid(&endpoint_name(&endpoint.name, &endpoint.site)),
                    })
                    .collect(),
            }
        });
        Report {
            startup_ms: 0,
            home: home.to_owned(),
            controller,
            // Whichever of the two there is.
            relay: RelayReport {
                pid: crew.pid("relay").max(crew.pid("wan")),
            },
            pops: pops.collect(),
            gateways: gateways.collect(),
            apps: apps.collect(),
            net: NetReport::default(),
        }
    }

    /// The URLs and what to try, for people. `program` is how this binary is called here.
    /// Nobody will try anything where it is `unattended`.
    pub(super) fn tell(
        &self,
        program: &str,
        unattended: bool,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        writeln!(
            out,
            "\nready after {} ms; everything is below {}\n",
            self.startup_ms,
            self.home.display()
        )?;
        for pop in &self.pops {
            writeln!(
                out,
                "  PoP {:<18} http://{}   https://{}",
                pop.name, pop.http, pop.https
            )?;
        }
        writeln!(out, "  API                    {}", self.controller.url)?;
        for app in &self.apps {
            let mut sites: Vec<(&str, usize)> = Vec::new();
            for endpoint in &app.endpoints {
                match sites.last_mut() {
                    Some((site, count)) if *site == endpoint.site => *count += 1,
                    Some(_) | None => sites.push((&endpoint.site, 1)),
                }
            }
            let sites: Vec<String> = sites
                .iter()
                .map(|(site, n)| format!("{n} in {site}"))
                .collect();
            writeln!(
                out,
                "  {:<22} tenant {}, endpoints: {}",
                app.host,
                app.tenant,
                sites.join(", ")
            )?;
        }
        let (Some(pop), Some(app)) = (self.pops.first(), self.apps.first()) else {
            return Ok(());
        };
        if unattended {
            return Ok(());
        }
        writeln!(out, "\ntry, in another terminal:")?;
        writeln!(out, "  curl -H 'Host: {}' http://{}/", app.host, pop.http)?;
        if let Some(endpoint) = app.endpoints.first() {
            writeln!(
                out,
                "  kill -9 {}      # one endpoint in {}; then ask again: another answers",
                endpoint.pid, endpoint.site
            )?;
        }
        writeln!(out, "  {program} get endpoints -t {} --watch", app.tenant)?;
        if self.pops.len() > 2 {
            let site = &pop.name;
            writeln!(
                out,
                "  {program} get paths {site}      # each way that begins or ends there"
            )?;
        }
        writeln!(out, "\nCtrl-C stops everything.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let address = |text: &str| text.parse().expect("an address");
        Report {
            startup_ms: 1234,
            home: "/tmp/h".into(),
            controller: ControllerReport {
                url: "https://127.80.1.2:16443".to_owned(),
                ca: "/tmp/h/ca".into(),
                token: "t".to_owned(),
                pid: 2,
            },
            relay: RelayReport { pid: 3 },
            pops: vec![PopReport {
                name: "par".to_owned(),
                http: address("127.80.1.10:18080"),
                https: address("127.80.1.10:18443"),
                pid: 4,
                control_pid: None,
            }],
            gateways: vec![GatewayReport {
                name: "aws".to_owned(),
                tenant: "acme".to_owned(),
                pid: 5,
                control_pid: None,
            }],
            apps: vec![AppReport {
                host: "cart.acme.example".to_owned(),
                tenant: "acme".to_owned(),
                endpoints: vec![EndpointReport {
                    site: "aws".to_owned(),
                    address: address("127.80.1.200:18000"),
                    pid: 6,
                }],
            }],
            net: NetReport::default(),
        }
    }

    #[test]
    fn the_line_has_its_shape() {
        assert_eq!(
            serde_json::to_string(&report()).expect("JSON"),
            r#"{"startup_ms":1234,"home":"/tmp/h","controller":{"url":"https://127.80.1.2:16443","ca":"/tmp/h/ca","token":"t","pid":2},"relay":{"pid":3},"pops":[{"name":"par","http":"127.80.1.10:18080","https":"127.80.1.10:18443","pid":4}],"gateways":[{"name":"aws","tenant":"acme","pid":5}],"apps":[{"host":"cart.acme.example","tenant":"acme","endpoints":[{"site":"aws","address":"127.80.1.200:18000","pid":6}]}],"net":{"mode":"loopback"}}"#
        );
    }

    #[test]
    fn people_get_three_commands() {
        let mut out = Vec::new();
        report().tell("sealane", false, &mut out).expect("written");
        let text = String::from_utf8(out).expect("text");
        for line in [
            "ready after 1234 ms; everything is below /tmp/h",
            "  cart.acme.example      tenant acme, endpoints: 1 in aws",
            "  curl -H 'Host: cart.acme.example' http://127.80.1.10:18080/",
            "  kill -9 6      # one endpoint in aws; then ask again: another answers",
            "  sealane get endpoints -t acme --watch",
        ] {
            assert!(
                text.lines().any(|l| l == line),
                "{line:?} is missing in\n{text}"
            );
        }
    }
}
