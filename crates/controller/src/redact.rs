//! Private keys and passwords go in and never come out.

use api::{CertificateSpec, Object, Problem, Spec};

/// What every stand-in begins with.
const PREFIX: &str = "redacted, ";

/// The object as it may be shown.
pub(crate) fn redact(mut object: Object) -> Object {
    if let Some((_, secret)) = secret_mut(&mut object) {
        *secret = stand_in(secret);
    }
    object
}

/// The object with the secret that its stand-in means, if it was sent back unchanged.
pub(crate) fn restore(mut object: Object, existing: Option<&Object>) -> Result<Object, Problem> {
    let about = object.key().to_string();
    let Some((pointer, secret)) = secret_mut(&mut object) else {
        return Ok(object);
    };
    if !secret.starts_with(PREFIX) {
        return Ok(object);
    }
    let mut stored = existing.cloned();
    let stored = stored.as_mut().and_then(secret_mut);
    let Some((_, stored)) = stored.filter(|(_, stored)| stand_in(stored) == *secret) else {
        let title = "the stand-in of a secret means nothing here: send the secret itself";
        return Err(Problem::field("bad-value", pointer, title).about(about));
    };
    secret.clone_from(stored);
    Ok(object)
}

fn stand_in(key: &str) -> String {
    CertificateSpec::redacted_key(pki::sha256(key.as_bytes()))
}

/// What nobody is to see of an object, and where it is.
fn secret_mut(object: &mut Object) -> Option<(&'static str, &mut String)> {
    match &mut object.spec {
        Spec::Certificate(spec) => Some(("/spec/privateKey", spec.private_key.as_mut()?)),
        Spec::BgpPeer(spec) => Some(("/spec/auth/password", &mut spec.auth.as_mut()?.password)),
        Spec::Tenant(_)
        | Spec::Namespace(_)
        | Spec::Token(_)
        | Spec::Site(_)
        | Spec::ServicePolicy(_)
        | Spec::Service(_)
        | Spec::LoadBalancer(_)
        | Spec::Link(_) => None,
    }
}
