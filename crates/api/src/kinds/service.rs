//! Service: an application address, and where its endpoints are.

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;

/// An application address `SERVICE.NAMESPACE.TENANT`, and where its endpoints are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceSpec {
    /// The port of the application address; endpoints have this port where they name none.
    pub port: u16,
    /// What the endpoints speak.
    #[serde(default)]
    pub protocol: ServiceProtocol,
    /// Where the endpoints are.
    pub origins: Vec<Origin>,
    /// How an endpoint's health is found out; a TCP connect by default.
    #[serde(default)]
    pub health_check: HealthCheck,
    /// How an endpoint is picked.
    #[serde(default)]
    pub balance: Balance,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocol {
    /// HTTP/1.1 in plain text.
    #[default]
    Http,
}

/// Some endpoints: the same addresses in each of the named sites.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Origin {
    /// Gateways of the tenant.
    #[schemars(with = "Vec<String>")]
    pub sites: Vec<Name>,
    /// `IP` or `IP:PORT`, seen from those sites.
    pub addresses: Vec<String>,
    /// The port of addresses that name none; the Service's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The share of each endpoint, 1 to 255; 100 by default.
    #[serde(default = "hundred")]
    pub weight: u8,
}

fn hundred() -> u8 {
    100
}

/// How an endpoint's health is found out: one prober a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HealthCheck {
    /// Send a request; a connect alone if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
    /// From the start of one probe to the start of the next (± 10 %), 50 ms to 5 m.
    pub interval: Span,
    /// How long an answer may take, 10 ms to 1 m.
    pub timeout: Span,
    /// Successes in a row that make an unhealthy endpoint healthy, 1 to 20.
    pub rise: u8,
    /// Failures in a row that make a healthy endpoint unhealthy, 1 to 20; a refused connection
    /// counts as all of them.
    pub fall: u8,
}

impl Default for HealthCheck {
    fn default() -> Self {
        let ms = |ms| Span(std::time::Duration::from_millis(ms));
        HealthCheck {
            http: None,
            interval: ms(300),
            timeout: ms(300),
            rise: 3,
            fall: 2,
        }
    }
}

/// A probe by a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// The path that is asked for with GET.
    #[serde(default = "root")]
    pub path: String,
    /// The Host header; the endpoint's address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The status codes that mean healthy; 200 by default.
    #[serde(default = "ok")]
    pub expect: Vec<u16>,
}

fn root() -> String {
    "/".to_owned()
}

fn ok() -> Vec<u16> {
    vec![200]
}

/// How an endpoint is picked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Balance {
    /// The rule inside the nearest sites.
    #[serde(default)]
    pub algorithm: BalanceAlgorithm,
}

/// The rule inside the nearest sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum BalanceAlgorithm {
    /// The better of two at random, by requests in flight.
    #[default]
    LeastRequest,
}
