//! What a controller is started with, and what it says when it is up.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Serialize;

/// What a controller is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The folder with its state; created with mode 0700 if it does not exist.
    pub home: PathBuf,
    /// The name of the whole installation, a lower-case DNS name. It cannot change afterwards.
    pub planet: String,
    /// Where the API listens; port 0 takes any.
    pub api: SocketAddr,
    /// More host names and addresses for the API's certificate, beside the listening one and
    /// `localhost`.
    pub api_hosts: Vec<String>,
    /// Where PoPs reach the fabric listener; port 0 takes any.
    pub fabric: SocketAddr,
    /// `HOST:PORT`s of the fabric listener as PoPs dial them, for their Tokens; the listening
    /// address if empty.
    pub advertise: Vec<String>,
    /// How long a node's certificate holds; [`Config::NODE_CERTIFICATE_LIFETIME`] by default.
    pub node_certificate_lifetime: Duration,
}

impl Config {
    /// 90 days; nodes renew after a third of it.
    pub const NODE_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

    /// A controller of `planet` on free loopback ports.
    #[must_use]
    pub fn new(home: PathBuf, planet: &str) -> Self {
        Config {
            home,
            planet: planet.to_owned(),
            api: ([127, 0, 0, 1], 0).into(),
            api_hosts: Vec::new(),
            fabric: ([127, 0, 0, 1], 0).into(),
            advertise: Vec::new(),
            node_certificate_lifetime: Config::NODE_CERTIFICATE_LIFETIME,
        }
    }
}

/// What a controller says once it serves; also written to `HOME/ready.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ready {
    /// The API's base, without a final slash: `https://127.0.0.1:7443`.
    pub url: String,
    /// The PEM file with the certificate that signed the API's.
    pub ca: PathBuf,
    /// The file with the administrator's bearer token.
    pub token_file: PathBuf,
    /// The fabric listener.
    pub fabric: SocketAddr,
    /// The process.
    pub pid: u32,
}
