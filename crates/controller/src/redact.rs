//! Private keys go in and never come out.

use api::{CertificateSpec, Object, Problem, Spec};

/// What every redacted key begins with.
const PREFIX: &str = "redacted, ";

/// The object as it may be shown.
pub(crate) fn redact(mut object: Object) -> Object {
    if let Some(CertificateSpec {
        private_key: Some(key),
        ..
    }) = certificate_mut(&mut object)
    {
        *key = stand_in(key);
    }
    object
}

/// The object with the key that its stand-in means, if it was sent back unchanged.
pub(crate) fn restore(mut object: Object, existing: Option<&Object>) -> Result<Object, Problem> {
    let about = object.key().to_string();
    let Some(CertificateSpec {
        private_key: Some(key),
        ..
    }) = certificate_mut(&mut object)
    else {
        return Ok(object);
    };
    if !key.starts_with(PREFIX) {
        return Ok(object);
    }
    let stored = existing.and_then(|existing| match &existing.spec {
        Spec::Certificate(spec) => spec.private_key.as_ref(),
        Spec::Tenant(_)
        | Spec::Namespace(_)
        | Spec::Token(_)
        | Spec::Site(_)
        | Spec::Service(_)
        | Spec::LoadBalancer(_) => None,
    });
    let Some(stored) = stored.filter(|stored| stand_in(stored) == *key) else {
        let title = "the stand-in of a private key means nothing here: send the key itself";
        return Err(Problem::field("bad-value", "/spec/privateKey", title).about(about));
    };
    key.clone_from(stored);
    Ok(object)
}

fn stand_in(key: &str) -> String {
    CertificateSpec::redacted_key(pki::sha256(key.as_bytes()))
}

fn certificate_mut(object: &mut Object) -> Option<&mut CertificateSpec> {
    match &mut object.spec {
        Spec::Certificate(spec) => Some(spec),
        Spec::Tenant(_)
        | Spec::Namespace(_)
        | Spec::Token(_)
        | Spec::Site(_)
        | Spec::Service(_)
        | Spec::LoadBalancer(_) => None,
    }
}
