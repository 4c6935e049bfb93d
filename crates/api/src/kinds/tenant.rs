//! Tenant and Namespace.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A customer: hard isolation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TenantSpec {
    /// The host names it may publish: exact names, or `*.example.com` for everything below.
    #[serde(default)]
    pub public_hosts: Vec<HostPattern>,
}

/// A workspace inside a tenant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NamespaceSpec {
    /// What becomes of a request that no policy decides.
    #[serde(default)]
    pub isolation: Isolation,
}

/// What becomes of a request that no policy decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Isolation {
    /// It passes.
    #[default]
    Open,
    /// It is denied: at the namespace's LoadBalancers, and at its Services if it comes through a
    /// LoadBalancer of another namespace.
    Closed,
}

/// A host name in lower case, or `*.` and a host name (everything below it).
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct HostPattern(String);

impl HostPattern {
    /// The pattern as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does every host of `other` fall under this pattern?
    #[must_use]
    pub fn covers(&self, other: &HostPattern) -> bool {
        if self == other {
            return true;
        }
        let Some(parent) = self.0.strip_prefix("*.") else {
            return false;
        };
        other
            .0
            .strip_suffix(parent)
            .is_some_and(|head| head.len() > 1 && head.ends_with('.'))
    }
}

impl FromStr for HostPattern {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let host = s.strip_prefix("*.").unwrap_or(s);
        let ok = host.len() <= 253
            && host
                .split('.')
                .all(|label| label.parse::<base::Name>().is_ok());
        if ok {
            return Ok(HostPattern(s.to_owned()));
        }
        let shown: String = s.chars().take(80).collect();
        Err(format!(
            "{shown:?} is not a host: write a lower-case DNS name such as cart.example.com, or *.example.com"
        ))
    }
}

impl TryFrom<String> for HostPattern {
    type Error = String;

    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

impl From<HostPattern> for String {
    fn from(host: HostPattern) -> String {
        host.0
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_cover() {
        let host = |s: &str| s.parse::<HostPattern>().expect(s);
        for (a, b, covers) in [
            ("a.example", "a.example", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example", true),
            ("*.example", "*.b.example", true),
            ("*.example", "example", false),
            ("*.example", "aexample", false),
            ("a.example", "*.example", false),
        ] {
            assert_eq!(host(a).covers(&host(b)), covers, "{a} {b}");
        }
        for bad in ["", "*", "*.", "A.b", "a..b", "a.*.b", "a_b.c"] {
            assert!(bad.parse::<HostPattern>().is_err(), "{bad}");
        }
    }
}
