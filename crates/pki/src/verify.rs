//! Who a chain proves somebody to be, and signatures of the controller.

use std::{fmt, time::Duration};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey,
    },
};
use base::WallTime;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;

use crate::{
    authority::planet_of,
    certificate::{
        CertificateError, MAX_CHAIN, Validity, chain_from_pem, chain_pem, parse, spki_sha256,
    },
    identity::{Identity, IdentityError, Planet, uri_of},
    key::NodeKey,
};

/// How long the controller's signing certificate holds: ten years, so that the last good bundle can
/// be verified by a node that restarts long after the controller has gone.
pub const SIGNER_LIFETIME: Duration = Duration::from_secs(3652 * 86_400);
/// Put before every signed payload, so that no signature made for another purpose fits.
const CONTEXT: &[u8] = b"sealane bundle signature 1\0";

/// Why a chain or a signature is not to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// No trust anchor was given, or more than 10.
    #[error("{0} trust anchors: expected 1 to {MAX_CHAIN}")]
    Anchors(usize),
    /// A trust anchor is not the certificate of a fabric CA.
    #[error("trust anchor is not the certificate of a fabric CA")]
    AnchorName(#[source] IdentityError),
    /// A trust anchor cannot be read.
    #[error("trust anchor cannot be read")]
    Anchor(#[source] CertificateError),
    /// The trust anchors name different planets.
    #[error("trust anchors name planets {0} and {1}")]
    AnchorPlanets(Planet, Planet),
    /// None of the presented certificates has the pinned public key.
    #[error("none of the presented certificates has the pinned public key of the fabric CA")]
    NotPinned,
    /// The chain is empty or longer than 10 certificates.
    #[error("chain has {0} certificates: expected 1 to {MAX_CHAIN}")]
    ChainLength(usize),
    /// The first certificate of the chain cannot be read.
    #[error("presented certificate cannot be read")]
    Certificate(#[source] CertificateError),
    /// The certificate is not signed by a trust anchor.
    #[error("certificate of {subject:?} is not signed by a trusted fabric CA of planet {planet}")]
    UnknownAuthority {
        /// What the certificate says of itself.
        subject: String,
        /// The planet of the trust anchors.
        planet: Planet,
    },
    /// A certificate is not valid yet.
    #[error("{what} is not valid before {not_before}, and it is {now}")]
    NotYetValid {
        /// Which certificate.
        what: &'static str,
        /// Its first moment.
        not_before: WallTime,
        /// The time of the check.
        now: WallTime,
    },
    /// A certificate is over.
    #[error("{what} expired at {not_after}, and it is {now}")]
    Expired {
        /// Which certificate.
        what: &'static str,
        /// Its last moment.
        not_after: WallTime,
        /// The time of the check.
        now: WallTime,
    },
    /// The certificate of an authority was presented as somebody's own.
    #[error("presented certificate is an authority's")]
    IsAuthority,
    /// The certificate does not name a fabric identity.
    #[error("presented certificate carries no fabric identity")]
    Identity(#[source] IdentityError),
    /// The identity belongs to another planet.
    #[error("identity {identity} does not belong to planet {planet}")]
    OtherPlanet {
        /// Whom the certificate names.
        identity: Box<Identity>,
        /// The planet of the trust anchors.
        planet: Planet,
    },
    /// Only the controller may sign; this is somebody else.
    #[error("signer {0} is not the controller")]
    NotController(Box<Identity>),
    /// The signature does not fit payload and signer.
    #[error("signature does not fit the payload and its signer")]
    Signature,
    /// The signing key does not belong to the first certificate of its chain.
    #[error("signing key does not belong to the first certificate of its chain")]
    SignerKey,
    /// The signing operation failed.
    #[error("signing failed")]
    Sign,
}

/// The trust anchors of one planet: says whom a chain proves somebody to be.
#[derive(Clone, Debug)]
pub struct Verifier {
    planet: Planet,
    anchors: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts 1–10 fabric CAs of one planet, each a certificate in DER.
    ///
    /// # Errors
    /// If there are none or too many, one is not a fabric CA, or they name different planets.
    pub fn new<T: AsRef<[u8]>>(anchors: &[T]) -> Result<Self, VerifyError> {
        let [first, ..] = anchors else {
            return Err(VerifyError::Anchors(0));
        };
        if anchors.len() > MAX_CHAIN {
            return Err(VerifyError::Anchors(anchors.len()));
        }
        let planet = anchor_planet(first.as_ref())?;
        for anchor in anchors {
            let other = anchor_planet(anchor.as_ref())?;
            if other != planet {
                return Err(VerifyError::AnchorPlanets(planet, other));
            }
        }
        let anchors = anchors
            .iter()
            .map(|a| CertificateDer::from(a.as_ref().to_vec()))
            .collect();
        Ok(Verifier { planet, anchors })
    }

    /// Like [`Verifier::new`] from a PEM text.
    ///
    /// # Errors
    /// As [`Verifier::new`], and if the text is not PEM.
    pub fn from_pem(pem: &str) -> Result<Self, VerifyError> {
        Self::new(&chain_from_pem(pem).map_err(VerifyError::Anchor)?)
    }

    /// Trusts that certificate of a presented chain whose public key has the hash a Token pins.
    ///
    /// # Errors
    /// If none has it, or it is not a fabric CA.
    pub fn pinned<T: AsRef<[u8]>>(chain: &[T], ca_sha256: &[u8; 32]) -> Result<Self, VerifyError> {
        if chain.is_empty() || chain.len() > MAX_CHAIN {
            return Err(VerifyError::ChainLength(chain.len()));
        }
        let pinned = chain
            .iter()
            .find(|der| spki_sha256(der.as_ref()).is_ok_and(|hash| hash == *ca_sha256))
            .ok_or(VerifyError::NotPinned)?;
        Self::new(&[pinned.as_ref()])
    }

    /// The planet of the trust anchors.
    #[must_use]
    pub fn planet(&self) -> &Planet {
        &self.planet
    }

    /// The trust anchors in DER, for a TLS stack's own list of roots.
    #[must_use]
    pub fn anchors(&self) -> &[CertificateDer<'static>] {
        &self.anchors
    }

    /// The trust anchors as PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        chain_pem(&self.anchors)
    }

    /// Whom the first certificate of `chain` (DER) names, if a trust anchor signed it, both hold at
    /// `now`, and it names exactly one identity of this planet. That the presenter owns its key is
    /// for the caller to check: TLS does, and [`Verifier::verify`].
    ///
    /// # Errors
    /// Which of these does not hold.
    pub fn identify<T: AsRef<[u8]>>(
        &self,
        chain: &[T],
        now: WallTime,
    ) -> Result<Identity, VerifyError> {
        let certificate = leaf(chain)?;
        self.check(&certificate, now)
    }

    /// Was `payload` signed by the controller of this planet? `signature` and `chain` are what
    /// [`Signer`] gave. Returns the controller's identity.
    ///
    /// # Errors
    /// If the chain does not hold (see [`Verifier::identify`]), names somebody else than the
    /// controller, or the signature does not fit.
    pub fn verify<T: AsRef<[u8]>>(
        &self,
        payload: &[u8],
        signature: &[u8],
        chain: &[T],
        now: WallTime,
    ) -> Result<Identity, VerifyError> {
        let certificate = leaf(chain)?;
        let identity = self.check(&certificate, now)?;
        if !identity.is_controller() {
            return Err(VerifyError::NotController(Box::new(identity)));
        }
        let point = &certificate.public_key().subject_public_key.data;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
            .verify(&in_context(payload), signature)
            .map_err(|_| VerifyError::Signature)?;
        Ok(identity)
    }

    fn check(
        &self,
        certificate: &X509Certificate<'_>,
        now: WallTime,
    ) -> Result<Identity, VerifyError> {
        self.check_authority(certificate, now)?;
        holds(
            "presented certificate",
            Validity::from_parsed(certificate),
            now,
        )?;
        if certificate.is_ca() {
            return Err(VerifyError::IsAuthority);
        }
        let identity = Identity::from_parsed(certificate).map_err(VerifyError::Identity)?;
        if identity.planet() != &self.planet {
            let (identity, planet) = (Box::new(identity), self.planet.clone());
            return Err(VerifyError::OtherPlanet { identity, planet });
        }
        Ok(identity)
    }

    /// A trust anchor that holds at `now` must have signed `certificate`.
    fn check_authority(
        &self,
        certificate: &X509Certificate<'_>,
        now: WallTime,
    ) -> Result<(), VerifyError> {
        for anchor in &self.anchors {
            let anchor = parse(anchor).map_err(VerifyError::Anchor)?;
            if certificate.issuer().as_raw() == anchor.subject().as_raw()
                && certificate
                    .verify_signature(Some(anchor.public_key()))
                    .is_ok()
            {
                return holds(
                    "the fabric CA's certificate",
                    Validity::from_parsed(&anchor),
                    now,
                );
            }
        }
        let subject = certificate
            .subject()
            .to_string()
            .chars()
            .take(120)
            .collect();
        Err(VerifyError::UnknownAuthority {
            subject,
            planet: self.planet.clone(),
        })
    }
}

/// The controller's signing key with its chain.
pub struct Signer {
    key: EcdsaKeyPair,
    chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(secret)")
    }
}

impl Signer {
    /// `chain` is what [`crate::Authority::issue_signer`] gave for `key`.
    ///
    /// # Errors
    /// If the key does not belong to the chain's first certificate, or that does not name a
    /// controller.
    pub fn new(key: &NodeKey, chain: Vec<CertificateDer<'static>>) -> Result<Self, VerifyError> {
        let certificate = leaf(&chain)?;
        let identity = Identity::from_parsed(&certificate).map_err(VerifyError::Identity)?;
        if !identity.is_controller() {
            return Err(VerifyError::NotController(Box::new(identity)));
        }
        if crate::sha256(certificate.public_key().raw) != key.spki_sha256() {
            return Err(VerifyError::SignerKey);
        }
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.pkcs8_der())
            .map_err(|_| VerifyError::SignerKey)?;
        Ok(Signer { key, chain })
    }

    /// The signature over `payload`: ECDSA P-256 with SHA-256, the two numbers of 32 bytes one after
    /// the other.
    ///
    /// # Errors
    /// If the generator or the operation fails.
    pub fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, VerifyError> {
        let signature = self
            .key
            .sign(&SystemRandom::new(), &in_context(payload))
            .map_err(|_| VerifyError::Sign)?;
        Ok(signature.as_ref().to_vec())
    }

    /// The chain that goes with every signature.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

fn in_context(payload: &[u8]) -> Vec<u8> {
    [CONTEXT, payload].concat()
}

fn leaf<T: AsRef<[u8]>>(chain: &[T]) -> Result<X509Certificate<'_>, VerifyError> {
    match chain {
        [leaf, ..] if chain.len() <= MAX_CHAIN => {
            parse(leaf.as_ref()).map_err(VerifyError::Certificate)
        }
        _ => Err(VerifyError::ChainLength(chain.len())),
    }
}

/// The planet of a fabric CA's certificate.
fn anchor_planet(der: &[u8]) -> Result<Planet, VerifyError> {
    let certificate = parse(der).map_err(VerifyError::Anchor)?;
    if !certificate.is_ca() {
        return Err(VerifyError::AnchorName(IdentityError::Form(
            "not an authority".to_owned(),
        )));
    }
    uri_of(&certificate)
        .and_then(planet_of)
        .map_err(VerifyError::AnchorName)
}

fn holds(what: &'static str, validity: Validity, now: WallTime) -> Result<(), VerifyError> {
    let Validity {
        not_before,
        not_after,
    } = validity;
    if now < not_before {
        return Err(VerifyError::NotYetValid {
            what,
            not_before,
            now,
        });
    }
    if now > not_after {
        return Err(VerifyError::Expired {
            what,
            not_after,
            now,
        });
    }
    Ok(())
}
