//! Names: DNS labels and the application address `SERVICE.NAMESPACE.TENANT`.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// A DNS label (RFC 1123 §2.1): 1–63 of `a-z 0-9 -`, not starting or ending with `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// The label itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a DNS label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a name: use 1 to 63 lower-case letters, digits and '-', \
             not starting or ending with '-'",
            self.0
        )
    }
}

impl std::error::Error for NameError {}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let edge = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ok = (1..=63).contains(&s.len())
            && s.bytes().all(|b| edge(b) || b == b'-')
            && s.bytes().next().is_some_and(edge)
            && s.bytes().last().is_some_and(edge);
        if ok {
            Ok(Name(s.into()))
        } else {
            Err(NameError(s.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(s: String) -> Result<Self, NameError> {
        s.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An application address: `SERVICE.NAMESPACE.TENANT`. It stays the same when every IP address
/// behind it changes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QualifiedService {
    /// The tenant.
    pub tenant: Name,
    /// The namespace inside the tenant.
    pub namespace: Name,
    /// The service inside the namespace.
    pub service: Name,
}

impl fmt::Display for QualifiedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.service, self.namespace, self.tenant)
    }
}

impl FromStr for QualifiedService {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let mut parts = s.splitn(3, '.');
        let mut part = || {
            parts
                .next()
                .ok_or_else(|| NameError(s.chars().take(80).collect()))
        };
        let (service, namespace, tenant) = (part()?.parse()?, part()?.parse()?, part()?.parse()?);
        Ok(QualifiedService {
            tenant,
            namespace,
            service,
        })
    }
}

/// A site by name. PoPs belong to the reserved tenant `fabric`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SiteName {
    /// The tenant that owns the site; [`SiteName::FABRIC`] for a PoP.
    pub tenant: Name,
    /// The site inside its tenant.
    pub site: Name,
}

impl SiteName {
    /// The reserved tenant that owns PoPs.
    pub const FABRIC: &'static str = "fabric";

    /// Is this a PoP?
    #[must_use]
    pub fn is_pop(&self) -> bool {
        self.tenant.as_str() == Self::FABRIC
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.site, self.tenant)
    }
}

impl FromStr for SiteName {
    type Err = NameError;

    fn from_str(s: &str) -> Result<Self, NameError> {
        let (site, tenant) = s
            .split_once('.')
            .ok_or_else(|| NameError(s.chars().take(80).collect()))?;
        Ok(SiteName {
            tenant: tenant.parse()?,
            site: site.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "cart", "a-b", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn application_address_round_trips() {
        let address: QualifiedService = "cart.shop.acme".parse().expect("three labels");
        assert_eq!(address.to_string(), "cart.shop.acme");
        for bad in ["cart", "cart.shop", "cart.shop.acme.x", "cart..acme"] {
            assert!(bad.parse::<QualifiedService>().is_err(), "{bad}");
        }
    }
}
