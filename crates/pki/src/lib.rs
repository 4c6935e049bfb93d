//! Who is who: identities, the fabric's certificate authority, node keys, signed bundles, join
//! tokens, and the check of the certificates users bring for TLS termination and their clients show.
//!
//! An engine: every function that depends on time takes `now` as an argument. The one thing it
//! takes from outside is the cryptographic generator of aws-lc-rs, for keys, serial numbers and
//! secrets. What it is not: it opens no file and no socket, configures no TLS (the tunnel and
//! runtime rooms do), and knows nothing of a tenant's own trust domain.
//!
//! # Main types
//! - [`Identity`]: `spiffe://PLANET/tenant/T/site/S/node/N` or `spiffe://PLANET/controller`.
//! - [`Authority`]: the fabric CA; it issues certificates to the keys in signing requests.
//! - [`NodeKey`]: a private key that never leaves its process except to its own disk.
//! - [`Verifier`]: the trust anchors; says which [`Identity`] a chain proves and whether a bundle
//!   was signed by the controller. [`Signer`] is the other side.
//! - [`Token`]: admission of a site, with the pin of the fabric CA.
//! - [`ServerCertificate`]: a user's certificate and key that belong together.
//! - [`ClientIssuers`], [`ClientNames`]: who issues certificates to a user's clients, and whose one is.
//!
//! # The way of a certificate
//! A node makes a [`NodeKey`], sends its request with the [`Token`]'s id and secret; the controller
//! compares the secret's hash and calls [`Authority::issue`]; the node checks the answer with a
//! [`Verifier`] pinned to the Token's hash. From then on each side of every link asks
//! [`Verifier::identify`] who the peer is, and [`renewal_due`] says when to ask for the next one.
//! The fabric has one level: the CA signs every certificate itself, so a chain is the certificate
//! followed by its CA.
//!
//! ```
//! use std::time::Duration;
//! use base::WallTime;
//! use pki::{Authority, Identity, NodeKey, Planet, Verifier};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let now = WallTime::from_unix_seconds(1_800_000_000);
//! let planet: Planet = "earth.example".parse()?;
//! let ca = Authority::create(&planet, now)?;
//! let key = NodeKey::generate()?;
//! let identity = Identity::node(planet, "aws.acme".parse()?, "n0".parse()?);
//! let chain = ca.issue(&key.csr_der()?, &identity, now, Duration::from_secs(90 * 86_400))?;
//! let verifier = Verifier::new(&[ca.certificate_der()])?;
//! assert_eq!(verifier.identify(&chain, now)?, identity);
//! # Ok(())
//! # }
//! ```

mod authority;
mod certificate;
mod client;
mod digest;
mod identity;
mod key;
mod pair;
mod token;
mod verify;

#[cfg(test)]
mod tests;

pub use authority::{Authority, IssueError, MAX_CSR_BYTES, csr_key_sha256, self_signed};
pub use certificate::{
    CertificateError, Validity, certificate_pem, chain_from_pem, chain_pem, remaining, renewal_due,
    spki_sha256,
};
pub use client::{ClientIssuers, ClientNames, IssuersError, NamesError, client_names};
pub use digest::{derive_u32, derive_u64, equal_in_constant_time, service_id, sha256};
pub use identity::{Identity, IdentityError, MAX_IDENTITY_BYTES, Planet, PlanetError};
pub use key::{KeyError, NodeKey, random};
pub use pair::{PairError, ServerCertificate, check_pair, parse_pair};
pub use token::{MAX_TOKEN_BYTES, NewToken, Token, TokenError};
pub use verify::{SIGNER_LIFETIME, Signer, Verifier, VerifyError};
