//! Fabric identities as SPIFFE ids, and the planet they belong to.

use std::{fmt, str::FromStr, sync::Arc};

use base::{Name, NameError, SiteName};
use serde::{Deserialize, Serialize};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName};

use crate::certificate::{CertificateError, parse};

/// The longest identity accepted, in bytes (SPIFFE-ID §2.3 allows 2,048).
pub const MAX_IDENTITY_BYTES: usize = 1024;

/// The name of a whole installation: the trust domain of its SPIFFE ids, a lower-case DNS name of
/// at most 253 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Planet(Arc<str>);

/// Why a text is not the name of a planet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of a planet: use a lower-case DNS name of at most 253 characters")]
pub struct PlanetError(String);

impl Planet {
    /// The DNS name itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Planet {
    type Err = PlanetError;

    fn from_str(s: &str) -> Result<Self, PlanetError> {
        if s.len() <= 253 && s.split('.').all(|label| label.parse::<Name>().is_ok()) {
            Ok(Planet(s.into()))
        } else {
            Err(PlanetError(s.chars().take(80).collect()))
        }
    }
}

impl TryFrom<String> for Planet {
    type Error = PlanetError;

    fn try_from(s: String) -> Result<Self, PlanetError> {
        s.parse()
    }
}

impl From<Planet> for String {
    fn from(planet: Planet) -> String {
        planet.0.as_ref().to_owned()
    }
}

impl fmt::Display for Planet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Planet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// Who somebody is inside the fabric, as its certificate says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Identity {
    /// A node of a site: `spiffe://PLANET/tenant/T/site/S/node/N`. PoPs have tenant `fabric`.
    Node {
        /// The planet.
        planet: Planet,
        /// The site.
        site: SiteName,
        /// The node inside its site.
        node: Name,
    },
    /// The management plane: `spiffe://PLANET/controller`.
    Controller {
        /// The planet.
        planet: Planet,
    },
}

/// Why a text or a certificate is not a fabric identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Longer than [`MAX_IDENTITY_BYTES`].
    #[error("identity has {0} bytes, more than {MAX_IDENTITY_BYTES}")]
    TooLong(usize),
    /// Neither of the two forms.
    #[error(
        "{0:?} is not a fabric identity: expected spiffe://PLANET/tenant/T/site/S/node/N \
         or spiffe://PLANET/controller"
    )]
    Form(String),
    /// The trust domain is not a DNS name.
    #[error("trust domain of the identity is malformed")]
    Planet(#[source] PlanetError),
    /// A part of the path is not a DNS label.
    #[error("{part} of the identity is malformed")]
    Part {
        /// `tenant`, `site` or `node`.
        part: &'static str,
        /// What is wrong with it.
        #[source]
        source: NameError,
    },
    /// The certificate cannot be read.
    #[error("certificate with the identity is malformed")]
    Certificate(#[source] CertificateError),
    /// A certificate must have exactly one URI among its alternative names (X509-SVID §2).
    #[error("certificate carries {0} URIs instead of exactly one")]
    UriCount(usize),
}

impl Identity {
    /// A node of a site.
    #[must_use]
    pub fn node(planet: Planet, site: SiteName, node: Name) -> Self {
        Identity::Node { planet, site, node }
    }

    /// The management plane.
    #[must_use]
    pub fn controller(planet: Planet) -> Self {
        Identity::Controller { planet }
    }

    /// The planet it belongs to.
    #[must_use]
    pub fn planet(&self) -> &Planet {
        match self {
            Identity::Node { planet, .. } | Identity::Controller { planet } => planet,
        }
    }

    /// The site of a node.
    #[must_use]
    pub fn site(&self) -> Option<&SiteName> {
        match self {
            Identity::Node { site, .. } => Some(site),
            Identity::Controller { .. } => None,
        }
    }

    /// The name of a node inside its site.
    #[must_use]
    pub fn node_name(&self) -> Option<&Name> {
        match self {
            Identity::Node { node, .. } => Some(node),
            Identity::Controller { .. } => None,
        }
    }

    /// Is this a node of a PoP?
    #[must_use]
    pub fn is_pop(&self) -> bool {
        self.site().is_some_and(SiteName::is_pop)
    }

    /// Is this the management plane?
    #[must_use]
    pub fn is_controller(&self) -> bool {
        match self {
            Identity::Controller { .. } => true,
            Identity::Node { .. } => false,
        }
    }

    /// Reads the one URI among the alternative names of a certificate in DER. Nothing is verified:
    /// that is [`crate::Verifier::identify`], or the TLS stack that accepted the certificate.
    ///
    /// # Errors
    /// If the certificate is malformed or does not carry exactly one URI of the right form.
    pub fn from_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let certificate = parse(der).map_err(IdentityError::Certificate)?;
        Self::from_parsed(&certificate)
    }

    pub(crate) fn from_parsed(certificate: &X509Certificate<'_>) -> Result<Self, IdentityError> {
        uri_of(certificate)?.parse()
    }
}

/// The one URI among the alternative names.
pub(crate) fn uri_of<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str, IdentityError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|e| IdentityError::Certificate(CertificateError::from(e)))?;
    let mut uris = names
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| {
            if let GeneralName::URI(uri) = name {
                Some(*uri)
            } else {
                None
            }
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => Ok(uri),
        (first, rest) => Err(IdentityError::UriCount(usize::from(first.is_some()) + rest)),
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Node { planet, site, node } => {
                let SiteName { tenant, site } = site;
                write!(
                    f,
                    "spiffe://{planet}/tenant/{tenant}/site/{site}/node/{node}"
                )
            }
            Identity::Controller { planet } => write!(f, "spiffe://{planet}/controller"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(s: &str) -> Result<Self, IdentityError> {
        if s.len() > MAX_IDENTITY_BYTES {
            return Err(IdentityError::TooLong(s.len()));
        }
        let form = || IdentityError::Form(s.chars().take(120).collect());
        let rest = s.strip_prefix("spiffe://").ok_or_else(form)?;
        let (planet, path) = rest.split_once('/').ok_or_else(form)?;
        let planet = planet.parse().map_err(IdentityError::Planet)?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["controller"] => Ok(Identity::Controller { planet }),
            ["tenant", tenant, "site", site, "node", node] => {
                let part = |part, text: &str| {
                    text.parse::<Name>()
                        .map_err(|source| IdentityError::Part { part, source })
                };
                Ok(Identity::Node {
                    planet,
                    site: SiteName {
                        tenant: part("tenant", tenant)?,
                        site: part("site", site)?,
                    },
                    node: part("node", node)?,
                })
            }
            _ => Err(form()),
        }
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;

    fn try_from(s: String) -> Result<Self, IdentityError> {
        s.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}
