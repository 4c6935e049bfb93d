//! The certificates of a LoadBalancer's clients, and the rules that go by them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Clients are asked for certificates (the Gateway API's frontend validation).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientCertificates {
    /// Who issues them: PEM, 1 to 10 certificates of authorities. Those between them and the
    /// clients' own, the clients show.
    pub ca_certificates: String,
    /// What becomes of clients without one that is valid.
    #[serde(default)]
    pub mode: ClientCertificateMode,
    /// Which of them hold no longer: PEM, 1 to 10 revocation lists (`X509 CRL`) of these
    /// authorities or of those between, the newest of each. Of an issuer that has none here
    /// everything holds, and a list that is over still counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crls: Option<String>,
    /// Are endpoints told whose it is, in `x-forwarded-client-cert` as Envoy writes it? What
    /// clients write there is taken out always.
    #[serde(default)]
    pub forward: bool,
}

/// What becomes of clients without a certificate that is valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ClientCertificateMode {
    /// They have no connection.
    #[default]
    AllowValidOnly,
    /// They are served like those who show none: rules may ask for one.
    AllowInsecureFallback,
}

/// Has a client a certificate?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum CertificatePresence {
    /// It has shown one, which was verified.
    Present,
    /// It has not.
    Absent,
}

/// A name in a client's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IdentityMatch {
    /// What of it.
    pub name: IdentityName,
    /// How it is compared.
    #[serde(rename = "type", default)]
    pub kind: IdentityMatchType,
    /// With what.
    pub value: String,
}

/// What of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum IdentityName {
    /// A URI among its alternative names, such as the SPIFFE ID.
    Uri,
    /// A DNS name among its alternative names, in lower case.
    Dns,
    /// The common name of its subject, if it has one and only one.
    CommonName,
    /// The SHA-256 of the certificate in DER, as 64 hexadecimal digits in lower case.
    Sha256,
}

/// How a name is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum IdentityMatchType {
    /// It is this one.
    #[default]
    Exact,
    /// Of a `uri`: it is this one or below it, by whole segments: `spiffe://a/b` and
    /// `spiffe://a/b/c`, not `spiffe://a/bc`.
    Prefix,
}
