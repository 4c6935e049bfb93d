//! The one line of `sealane up --json`, as its documentation promises it: written down here again
//! so that a change of the program's own type does not go unseen.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// Everything `up` started.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// From the start of `up` until everything answered, in milliseconds.
    pub startup_ms: u64,
    /// The folder of everything.
    pub home: PathBuf,
    /// The management plane.
    pub controller: Controller,
    /// What stands between the sites.
    pub relay: Relay,
    /// The PoPs.
    pub pops: Vec<Pop>,
    /// The gateways.
    pub gateways: Vec<Gateway>,
    /// The demo applications.
    pub apps: Vec<App>,
    /// What stands between the sites.
    pub net: Net,
}

/// What stands between the sites.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Net {
    /// `loopback` or `ns`.
    pub mode: String,
    /// Network namespaces by name.
    #[serde(default)]
    pub namespaces: BTreeMap<String, PathBuf>,
}

/// The management plane.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Controller {
    /// `https://HOST:PORT`.
    pub url: String,
    /// The PEM file of its CA.
    pub ca: PathBuf,
    /// The administrator's bearer token.
    pub token: String,
    /// Its process.
    pub pid: u32,
}

/// The relay.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// Its process.
    pub pid: u32,
}

/// A PoP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pop {
    /// Its name.
    pub name: String,
    /// Where it offers port 80.
    pub http: SocketAddr,
    /// Where it offers port 443.
    pub https: SocketAddr,
    /// Its process.
    pub pid: u32,
    /// That of its control part, if it is two processes.
    #[serde(default)]
    pub control_pid: Option<u32>,
}

/// A gateway.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Its name.
    pub name: String,
    /// Its tenant.
    pub tenant: String,
    /// Its process.
    pub pid: u32,
    /// That of its control part, if it is two processes.
    #[serde(default)]
    pub control_pid: Option<u32>,
}

/// A demo application.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Its published host.
    pub host: String,
    /// Its tenant.
    pub tenant: String,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A demo endpoint.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Its site.
    pub site: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
}
