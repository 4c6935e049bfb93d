//! Certificate: keys and chains for TLS termination.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kinds::HostPattern;

/// A key and its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CertificateSpec {
    /// The hosts it is for.
    pub hosts: Vec<HostPattern>,
    /// Where key and chain come from.
    pub source: CertificateSource,
    /// With `source: pem`: the chain, the leaf first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// With `source: pem`: the leaf's key (PKCS#8, PKCS#1 or SEC1). Never shown again: reading
    /// returns [`CertificateSpec::redacted_key`] in its place, which may be sent back unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub private_key: Option<String>,
}

impl CertificateSpec {
    /// What stands in the place of a key whose SHA-256 is `digest`.
    #[must_use]
    pub fn redacted_key(digest: [u8; 32]) -> String {
        let hex: String = digest[..16].iter().map(|b| format!("{b:02x}")).collect();
        format!("redacted, sha256 {hex}")
    }
}

/// Where key and chain come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CertificateSource {
    /// Given here.
    Pem,
    /// Made by the controller, for tests and demonstrations: no browser trusts it.
    SelfSigned,
}
