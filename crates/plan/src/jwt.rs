//! Who issues tokens, as `l7` verifies them.

use std::{sync::Arc, time::Duration};

use api::{JwtProvider, JwtSource};
use http::{HeaderName, Method, header};
use l7::jwt::{KeySet, Provider, Source, Verifier};

use crate::route::{Wrong, few, wrong};

const MAX_SKEW: Duration = Duration::from_secs(300);
const MAX_TEXT: usize = 1024;

/// Read the providers of a load balancer; `None`: there are none.
pub(crate) fn verifier(specs: &[JwtProvider]) -> Result<Option<Arc<Verifier>>, Wrong> {
    if specs.is_empty() {
        return Ok(None);
    }
    few("/spec/jwt", specs.len(), 8)?;
    let mut providers = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        let here = format!("/spec/jwt/{at}");
        if specs[..at].iter().any(|other| other.issuer == spec.issuer) {
            let title = "there is a provider with this issuer already";
            return Err(wrong(here + "/issuer", title));
        }
        providers.push(provider(spec).map_err(|wrong| wrong.in_(&here))?);
    }
    // Whatever verification depends on is in there.
    let id = balance::stable_hash(format!("{specs:?}").as_bytes());
    Ok(Some(Arc::new(Verifier::new(providers, id))))
}

fn provider(spec: &JwtProvider) -> Result<Provider, Wrong> {
    let text = |here: String, text: &String| match text.len() {
        1..=MAX_TEXT => Ok(()),
        _ => Err(wrong(here, "1 to 1,024 octets")),
    };
    text("/issuer".to_owned(), &spec.issuer)?;
    few("/audiences", spec.audiences.len(), 16)?;
    for (at, audience) in spec.audiences.iter().enumerate() {
        text(format!("/audiences/{at}"), audience)?;
    }
    let keys = KeySet::parse(&spec.jwks).map_err(|error| wrong("/jwks", error.to_string()))?;
    few("/from", spec.from.len(), 4)?;
    let from = spec
        .from
        .iter()
        .enumerate()
        .map(|(at, one)| source(at, one));
    let mut from = from.collect::<Result<Vec<_>, _>>()?;
    if from.is_empty() {
        from.push(Source::Bearer);
    }
    let beside = |one: &&Source| matches!(one, Source::Cookie(_) | Source::Query(_));
    if !spec.forward && from.iter().any(|one| beside(&one)) {
        let title = "only a token in a header can be taken out of a request";
        return Err(wrong("/forward", title));
    }
    if spec.clock_skew.0 > MAX_SKEW {
        return Err(wrong("/clockSkew", "5m at most"));
    }
    Ok(Provider {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        keys,
        from,
        forward: spec.forward,
        skew: spec.clock_skew.0,
    })
}

fn source(at: usize, spec: &JwtSource) -> Result<Source, Wrong> {
    let here = |field: &str| format!("/from/{at}/{field}");
    match spec {
        JwtSource::Header(name) => {
            let name = HeaderName::from_bytes(name.as_bytes());
            let name = name.map_err(|_| wrong(here("header"), "not a header's name"))?;
            if name == header::AUTHORIZATION {
                return Ok(Source::Bearer);
            }
            if !l7::HeaderEdits::may_name(&name) {
                let title = format!("{name} frames or routes a message: no token stands there");
                return Err(wrong(here("header"), title));
            }
            Ok(Source::Header(name))
        }
        // RFC 6265 §4.1.1: a token, which a method is too.
        JwtSource::Cookie(name) if Method::from_bytes(name.as_bytes()).is_ok() => {
            Ok(Source::Cookie(name.clone()))
        }
        JwtSource::Cookie(_) => Err(wrong(here("cookie"), "not a cookie's name")),
        JwtSource::QueryParam(name) if (1..=256).contains(&name.len()) => {
            Ok(Source::Query(name.clone()))
        }
        JwtSource::QueryParam(_) => Err(wrong(here("queryParam"), "1 to 256 octets")),
    }
}
