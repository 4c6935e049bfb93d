//! The certificates that a user's own clients show: by whom they are issued, and whose they are.

use base::WallTime;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject};
use x509_parser::extensions::GeneralName;

use crate::{
    certificate::{CertificateError, Validity, chain_from_pem, parse},
    digest::sha256,
};

/// The longest PEM text of revocation lists, in bytes.
const MAX_CRLS_PEM_BYTES: usize = 256 * 1024;
/// The most revocation lists.
const MAX_CRLS: usize = 10;
/// The most names of one kind that a certificate may have.
const MAX_NAMES: usize = 16;
/// The longest of them, in bytes (SPIFFE-ID §2.3: 2,048 for a URI).
const MAX_NAME_BYTES: usize = 2048;
/// All of them together, in bytes: they travel in the head of a request.
const MAX_NAMES_BYTES: usize = 4096;

/// Who issues certificates to clients, and which of them hold no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIssuers {
    /// The certificates of the authorities in DER.
    pub anchors: Vec<CertificateDer<'static>>,
    /// Their revocation lists in DER; a certificate whose issuer has none here is not revoked.
    pub crls: Vec<CertificateRevocationListDer<'static>>,
}

/// Why nobody can be told by these issuers.
#[derive(Debug, thiserror::Error)]
pub enum IssuersError {
    /// They are no list of certificates.
    #[error("the authorities cannot be read")]
    Anchors(#[source] CertificateError),
    /// This one, counted from 0, is nobody who issues certificates.
    #[error("certificate {0} is not an authority's: its basic constraints do not say CA")]
    NoAuthority(usize),
    /// This one, counted from 0, cannot be trusted by what verifies chains.
    #[error("certificate {0} cannot be a trust anchor")]
    Anchor(usize, #[source] webpki::Error),
    /// The lists are not PEM, or too many or too long.
    #[error("the revocation lists are not PEM of 256 KiB and 10 lists at most")]
    Crls,
    /// This list, counted from 0, cannot be used.
    #[error("revocation list {0} cannot be used")]
    Crl(usize, #[source] webpki::Error),
}

impl ClientIssuers {
    /// Reads 1 to 10 authorities, and revocation lists if there are some, from PEM texts of 256 KiB
    /// at most each. Whether authorities have expired is not looked at: who trusts them by name
    /// trusts them until they are taken out.
    ///
    /// # Errors
    /// See [`IssuersError`].
    pub fn from_pem(anchors: &str, crls: Option<&str>) -> Result<Self, IssuersError> {
        let anchors = chain_from_pem(anchors).map_err(IssuersError::Anchors)?;
        for (at, anchor) in anchors.iter().enumerate() {
            let parsed = parse(anchor).map_err(IssuersError::Anchors)?;
            if !parsed.is_ca() {
                return Err(IssuersError::NoAuthority(at));
            }
            webpki::anchor_from_trusted_cert(anchor)
                .map_err(|error| IssuersError::Anchor(at, error))?;
        }
        let crls = crls.map_or(Ok(Vec::new()), lists)?;
        Ok(ClientIssuers { anchors, crls })
    }

    /// A digest of everything that verification depends on.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let anchors = self.anchors.iter().map(|der| sha256(der));
        let crls = self.crls.iter().map(|der| sha256(der));
        // The number keeps an authority from standing for a list.
        let count = [u8::try_from(self.anchors.len()).unwrap_or(u8::MAX); 32];
        let all: Vec<u8> = [count]
            .into_iter()
            .chain(anchors)
            .chain(crls)
            .collect::<Vec<_>>()
            .concat();
        sha256(&all)
    }
}

fn lists(pem: &str) -> Result<Vec<CertificateRevocationListDer<'static>>, IssuersError> {
    if pem.len() > MAX_CRLS_PEM_BYTES {
        return Err(IssuersError::Crls);
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(pem.as_bytes());
    let lists = lists.take(MAX_CRLS + 1).collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|_| IssuersError::Crls)?;
    if lists.is_empty() || lists.len() > MAX_CRLS {
        return Err(IssuersError::Crls);
    }
    for (at, list) in lists.iter().enumerate() {
        webpki::OwnedCertRevocationList::from_der(list)
            .map_err(|error| IssuersError::Crl(at, error))?;
    }
    Ok(lists)
}

/// Whose a client's certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientNames {
    /// URIs among its alternative names, such as SPIFFE IDs.
    pub uris: Vec<String>,
    /// DNS names among its alternative names.
    pub dns: Vec<String>,
    /// The common name of its subject, if there is one and only one.
    pub common_name: Option<String>,
    /// SHA-256 of the certificate.
    pub sha256: [u8; 32],
    /// The last moment at which it holds.
    pub not_after: WallTime,
}

/// Why a certificate does not say whose it is.
#[derive(Debug, thiserror::Error)]
pub enum NamesError {
    /// It cannot be read.
    #[error("the client's certificate cannot be read")]
    Unreadable(#[from] CertificateError),
    /// A name is too long, or there are too many, or it has spaces or control characters.
    #[error("a name of the client's certificate is malformed, too long, or one too many")]
    Names,
}

/// Reads the names in a client's certificate in DER: at most 16 URIs and 16 DNS names of 2,048
/// visible ASCII characters, 4 KiB with the common name. Whoever issued it is not looked at.
///
/// # Errors
/// See [`NamesError`]: of a certificate with names that are not understood none counts.
pub fn client_names(der: &[u8]) -> Result<ClientNames, NamesError> {
    let parsed = parse(der)?;
    let alternative = parsed.subject_alternative_name();
    let alternative = alternative.map_err(CertificateError::from)?;
    let (mut uris, mut dns) = (Vec::new(), Vec::new());
    for name in alternative
        .iter()
        .flat_map(|names| &names.value.general_names)
    {
        let (list, name) = match name {
            GeneralName::URI(uri) => (&mut uris, (*uri).to_owned()),
            GeneralName::DNSName(host) => (&mut dns, host.to_ascii_lowercase()),
            GeneralName::OtherName(..)
            | GeneralName::RFC822Name(_)
            | GeneralName::X400Address(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EDIPartyName(_)
            | GeneralName::IPAddress(_)
            | GeneralName::RegisteredID(_) => continue,
            GeneralName::Invalid(..) => return Err(NamesError::Names),
        };
        let visible = (1..=MAX_NAME_BYTES).contains(&name.len())
            && name.bytes().all(|octet| octet.is_ascii_graphic());
        if !visible || list.len() == MAX_NAMES {
            return Err(NamesError::Names);
        }
        list.push(name);
    }
    let mut common = parsed.subject().iter_common_name();
    let common_name = match (common.next(), common.next()) {
        (Some(one), None) => one.as_str().ok().map(ToOwned::to_owned),
        _ => None,
    };
    if common_name.as_ref().is_some_and(|name| {
        name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control)
    }) {
        return Err(NamesError::Names);
    }
    let all = uris.iter().chain(&dns).chain(&common_name);
    if all.map(String::len).sum::<usize>() > MAX_NAMES_BYTES {
        return Err(NamesError::Names);
    }
    Ok(ClientNames {
        uris,
        dns,
        common_name,
        sha256: sha256(der),
        not_after: Validity::from_parsed(&parsed).not_after,
    })
}
