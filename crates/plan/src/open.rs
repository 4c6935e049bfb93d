//! Opening a signed envelope: what a node believes, and what it refuses.

use std::sync::Arc;

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

/// What one site runs, and the envelopes that prove it: a full update and the deltas after it.
///
/// It never goes back: an older full update is held aside, and takes over only when deltas have
/// led from it beyond what runs now. That is how a node catches up from a cache that is older than
/// itself.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    now: Link,
    aside: Option<Link>,
    /// Keep no envelopes.
    forgets: bool,
}

#[derive(Clone, Debug, Default)]
struct Link {
    bundle: Bundle,
    /// Whole updates are as large as all that they say: they are shared, not copied.
    envelopes: Vec<Arc<Signed>>,
}

impl Link {
    fn with(&self, update: Update, signed: Option<Arc<Signed>>) -> Result<Link, FitError> {
        let before: &[Arc<Signed>] = if update.base.is_none() {
            &[]
        } else {
            &self.envelopes
        };
        let bundle = self.bundle.with(update)?;
        Ok(Link {
            bundle,
            envelopes: before.iter().cloned().chain(signed).collect(),
        })
    }
}

impl Chain {
    /// A chain of which only the end counts, for those who neither store it nor pass it on.
    #[must_use]
    pub fn without_envelopes() -> Self {
        Chain {
            forgets: true,
            ..Chain::default()
        }
    }

    /// What runs now.
    #[must_use]
    pub fn bundle(&self) -> &Bundle {
        &self.now.bundle
    }

    /// The envelopes that lead to it, the full one first.
    #[must_use]
    pub fn envelopes(&self) -> &[Arc<Signed>] {
        &self.now.envelopes
    }

    /// Take in an envelope; true if what runs now is newer than before.
    ///
    /// # Errors
    /// See [`OpenError`]; then nothing changed. [`FitError::Gap`] asks for a full update,
    /// [`FitError::Replay`] is what the second of two upstreams says.
    pub fn take(
        &mut self,
        verifier: &pki::Verifier,
        site: &SiteName,
        signed: Signed,
        now: WallTime,
    ) -> Result<bool, OpenError> {
        let update = open(verifier, site, &signed, now)?;
        let signed = (!self.forgets).then(|| Arc::new(signed));
        let have = self.now.bundle.revision;
        if update.base.is_some_and(|base| base == have)
            || update.base.is_none() && update.revision > have
        {
            self.now = self.now.with(update, signed)?;
            self.aside = None;
            return Ok(true);
        }
        if update.base.is_none() && update.revision < have {
            self.aside = Some(Link::default().with(update, signed)?);
            return Ok(false);
        }
        let led_on = self
            .aside
            .as_ref()
            .filter(|aside| update.base == Some(aside.bundle.revision));
        if let Some(aside) = led_on {
            let next = aside.with(update, signed)?;
            if next.bundle.revision > have {
                self.now = next;
                self.aside = None;
                return Ok(true);
            }
            self.aside = Some(next);
            return Ok(false);
        }
        match update.base {
            Some(base) if update.revision > have => Err(FitError::Gap { base, have }.into()),
            Some(_) | None => Err(FitError::Replay {
                revision: update.revision,
                have,
            }
            .into()),
        }
    }
}
