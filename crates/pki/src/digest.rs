//! SHA-256 and the numbers derived from it.

use aws_lc_rs::{constant_time, digest};
use base::ServiceId;

/// The SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// Are the two equal? Takes the same time wherever they differ; lengths are not hidden.
#[must_use]
pub fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(a, b).is_ok()
}

/// The id of a service inside its tenant: the first 64 bits of SHA-256 over `namespace/name`.
#[must_use]
pub fn service_id(namespace: &base::Name, name: &base::Name) -> ServiceId {
    ServiceId(derive_u64(namespace.as_str(), name.as_str()))
}

/// An id for manifests that carry none: the first 32 bits of SHA-256 over `label/name`, never 0.
///
/// Two names may collide; the caller refuses that.
#[must_use]
pub fn derive_u32(label: &str, name: &str) -> u32 {
    let [a, b, c, d, ..] = sha256(format!("{label}/{name}").as_bytes());
    u32::from_be_bytes([a, b, c, d]).max(1)
}

/// Like [`derive_u32`] with the first 64 bits.
#[must_use]
pub fn derive_u64(label: &str, name: &str) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha256(format!("{label}/{name}").as_bytes());
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1)
}
