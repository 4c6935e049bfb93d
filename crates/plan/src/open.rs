//! Opening a signed envelope: what a node believes, and what it refuses.

use api::sync::{Bundle, FitError, NotBase64, Signed, Update};
use base::{SiteName, WallTime};

/// Why an envelope, or what is in it, is refused. The last good bundle stays.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Not base64.
    #[error("the envelope is damaged")]
    Damaged(#[from] NotBase64),
    /// Not signed by this planet's controller.
    #[error("the signature does not hold")]
    Forged(#[source] pki::VerifyError),
    /// Signed, but not an update.
    #[error("the payload is not an update")]
    Payload(#[source] serde_json::Error),
    /// Signed for somebody else.
    #[error("the update is for {0} of planet {1}")]
    NotForUs(SiteName, String),
    /// It does not follow what is here.
    #[error("the update does not fit")]
    Fit(#[from] FitError),
}

/// The update in `signed`, if this planet's controller signed it for `site`.
///
/// # Errors
/// See [`OpenError`].
pub fn open(
    verifier: &pki::Verifier,
    site: &SiteName,
    signed: &Signed,
    now: WallTime,
) -> Result<Update, OpenError> {
    let (signature, chain) = (signed.signature_bytes()?, signed.chain_der()?);
    verifier
        .verify(signed.payload.as_bytes(), &signature, &chain, now)
        .map_err(OpenError::Forged)?;
    let update: Update = serde_json::from_str(&signed.payload).map_err(OpenError::Payload)?;
    if update.site != *site || update.planet != verifier.planet().as_str() {
        return Err(OpenError::NotForUs(update.site, update.planet));
    }
    Ok(update)
}

/// The bundle that a stored chain of envelopes adds up to, and how many of them were good: what
/// follows the first bad one is dropped.
#[must_use]
pub fn replay(
    verifier: &pki::Verifier,
    site: &SiteName,
    chain: &[Signed],
    now: WallTime,
) -> (Bundle, usize, Option<OpenError>) {
    let mut bundle = Bundle::default();
    for (at, signed) in chain.iter().enumerate() {
        let next = open(verifier, site, signed, now).and_then(|u| Ok(bundle.with(&u)?));
        match next {
            Ok(next) => bundle = next,
            Err(error) => return (bundle, at, Some(error)),
        }
    }
    (bundle, chain.len(), None)
}
