//! Clients by their certificates: who issues them, and which of them a rule means.

use api::{
    CertificatePresence, ClientCertificateMode, ClientCertificates, IdentityMatch,
    IdentityMatchType, IdentityName, PolicyClient, ServicePolicySpec,
};
use l7::{NameKind, NameMatch, NameValue, TrustId};
use pki::{ClientIssuers, IssuersError};

use crate::route::{Wrong, few, wrong};

/// By whom clients of some hosts are known.
#[derive(Debug)]
pub struct ClientTrust {
    /// Its digest, by which hosts refer to it.
    pub id: TrustId,
    /// Who issues their certificates.
    pub issuers: ClientIssuers,
    /// Has nobody a connection without one that is valid?
    pub required: bool,
}

/// Read what a load balancer asks its clients for.
pub(crate) fn trust(spec: &ClientCertificates) -> Result<ClientTrust, Wrong> {
    let issuers = ClientIssuers::from_pem(&spec.ca_certificates, spec.crls.as_deref());
    let issuers = issuers.map_err(|error| {
        let field = match error {
            IssuersError::Anchors(_) | IssuersError::NoAuthority(_) | IssuersError::Anchor(..) => {
                "/caCertificates"
            }
            IssuersError::Crls | IssuersError::Crl(..) => "/crls",
        };
        wrong(field, base::Chain(&error).to_string())
    })?;
    let required = match spec.mode {
        ClientCertificateMode::AllowValidOnly => true,
        ClientCertificateMode::AllowInsecureFallback => false,
    };
    let digest = [&issuers.digest()[..], &[u8::from(required)]].concat();
    Ok(ClientTrust {
        id: TrustId(pki::sha256(&digest)),
        issuers,
        required,
    })
}

/// Has the policy rules that go by clients' certificates?
pub(crate) fn wanted(spec: &ServicePolicySpec) -> bool {
    let by = |client: &PolicyClient| client.certificate.is_some() || !client.identities.is_empty();
    spec.rules.iter().any(|rule| by(&rule.client))
}

/// Does a rule mean clients with certificates, or those without?
pub(crate) fn presence(spec: &PolicyClient) -> Option<bool> {
    spec.certificate.map(|presence| match presence {
        CertificatePresence::Present => true,
        CertificatePresence::Absent => false,
    })
}

/// Read the names of a rule.
pub(crate) fn names(specs: &[IdentityMatch], most: usize) -> Result<Vec<NameMatch>, Wrong> {
    few("/client/identities", specs.len(), most)?;
    let names = specs
        .iter()
        .enumerate()
        .map(|(at, one)| name(one).map_err(|wrong| wrong.in_(&format!("/client/identities/{at}"))));
    names.collect()
}

fn name(spec: &IdentityMatch) -> Result<NameMatch, Wrong> {
    let text = &spec.value;
    if !(1..=2048).contains(&text.len()) || text.chars().any(char::is_control) {
        return Err(wrong(
            "/value",
            "1 to 2,048 octets without control characters",
        ));
    }
    let kind = match spec.name {
        IdentityName::Uri => NameKind::Uri,
        IdentityName::Dns => NameKind::Dns,
        IdentityName::CommonName => NameKind::CommonName,
        IdentityName::Sha256 => NameKind::Sha256,
    };
    let lower = |octet: u8| octet.is_ascii_digit() || (b'a'..=b'f').contains(&octet);
    match kind {
        NameKind::Uri if !text.contains(':') => {
            return Err(wrong(
                "/value",
                "no URI: begin with its scheme, such as spiffe://",
            ));
        }
        NameKind::Dns if text.bytes().any(|octet| octet.is_ascii_uppercase()) => {
            return Err(wrong(
                "/value",
                "names are compared in lower case: write it so",
            ));
        }
        NameKind::Sha256 if text.len() != 64 || !text.bytes().all(lower) => {
            return Err(wrong("/value", "64 hexadecimal digits in lower case"));
        }
        NameKind::Uri | NameKind::Dns | NameKind::CommonName | NameKind::Sha256 => {}
    }
    let value = match (spec.kind, kind) {
        (IdentityMatchType::Exact, _) => NameValue::Exact(text.clone()),
        (IdentityMatchType::Prefix, NameKind::Uri) => {
            NameValue::Prefix(text.trim_end_matches('/').to_owned())
        }
        (IdentityMatchType::Prefix, NameKind::Dns | NameKind::CommonName | NameKind::Sha256) => {
            return Err(wrong("/type", "only a uri has prefixes: write Exact"));
        }
    };
    Ok(NameMatch { kind, value })
}
