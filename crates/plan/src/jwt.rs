//! Who issues tokens, as `l7` verifies them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use api::{JwtProvider, JwtSource, RemoteJwks};
use http::{HeaderName, Method, Uri, header};
use l7::jwt::{KeyCell, KeySet, Keys, Provider, Source, Verifier};
use rustls_pki_types::CertificateDer;

use crate::route::{Wrong, few, wrong};

const MAX_SKEW: Duration = Duration::from_secs(300);
const MAX_TEXT: usize = 1024;

/// Where keys are published, or it is published where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySource {
    /// `https://…`, or `http://` and an address of this machine.
    pub uri: String,
    /// There is the OpenID configuration of this issuer, which says where the keys are.
    pub issuer: Option<String>,
    /// From one fetch to the next.
    pub refresh: Duration,
    /// Who vouches for the servers, in DER; empty: those that browsers trust.
    pub anchors: Vec<CertificateDer<'static>>,
}

/// The keys that a node fetches: by a name of hexadecimal digits, which other addresses or
/// authorities do not share.
pub type KeySources = BTreeMap<String, (Arc<KeySource>, Arc<KeyCell>)>;

/// Read the providers of a load balancer; `None`: there are none. Where their keys are published
/// is added to `sources`.
pub(crate) fn verifier(
    specs: &[JwtProvider],
    sources: &mut KeySources,
) -> Result<Option<Arc<Verifier>>, Wrong> {
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
        providers.push(provider(spec, sources).map_err(|wrong| wrong.in_(&here))?);
    }
    // Whatever verification depends on is in there.
    let id = balance::stable_hash(format!("{specs:?}").as_bytes());
    Ok(Some(Arc::new(Verifier::new(providers, id))))
}

fn provider(spec: &JwtProvider, sources: &mut KeySources) -> Result<Provider, Wrong> {
    let text = |here: String, text: &String| match text.len() {
        1..=MAX_TEXT => Ok(()),
        _ => Err(wrong(here, "1 to 1,024 octets")),
    };
    text("/issuer".to_owned(), &spec.issuer)?;
    few("/audiences", spec.audiences.len(), 16)?;
    for (at, audience) in spec.audiences.iter().enumerate() {
        text(format!("/audiences/{at}"), audience)?;
    }
    let keys = match (&spec.jwks, &spec.remote_jwks) {
        (Some(jwks), None) => {
            let keys = KeySet::parse(jwks).map_err(|error| wrong("/jwks", error.to_string()))?;
            Keys::Given(keys)
        }
        (None, Some(remote)) => Keys::Fetched(source_of(spec, remote, sources)?),
        (None, None) | (Some(_), Some(_)) => {
            return Err(wrong(
                "/jwks",
                "give the keys here, or say in remoteJwks where they are; with `remoteJwks: {}` the \
                 issuer says it",
            ));
        }
    };
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

/// Where a provider's keys are published, and the cell in which they will be.
fn source_of(
    provider: &JwtProvider,
    spec: &RemoteJwks,
    sources: &mut KeySources,
) -> Result<Arc<KeyCell>, Wrong> {
    let (uri, issuer) = match &spec.uri {
        Some(uri) => {
            place(uri, "/remoteJwks/uri")?;
            (uri.clone(), None)
        }
        None => {
            let issuer = &provider.issuer;
            (configuration(issuer)?, Some(issuer.clone()))
        }
    };
    let here = |field: &str| format!("/remoteJwks/{field}");
    let refresh = spec.refresh.0;
    if !(Duration::from_secs(60)..=Duration::from_secs(86_400)).contains(&refresh) {
        return Err(wrong(here("refresh"), "1m to 24h"));
    }
    let anchors = match &spec.ca_certificates {
        None => Vec::new(),
        Some(pem) => {
            let issuers = pki::ClientIssuers::from_pem(pem, None);
            let issuers = issuers
                .map_err(|error| wrong(here("caCertificates"), base::Chain(&error).to_string()))?;
            issuers.anchors
        }
    };
    let vouching: Vec<u8> = anchors.iter().flat_map(|der| pki::sha256(der)).collect();
    // Two issuers may have one address, with and without a slash at their end.
    let whose = issuer.iter().flat_map(|issuer| [b"\0", issuer.as_bytes()]);
    let whose: Vec<u8> = whose.flatten().copied().collect();
    let told = [uri.as_bytes(), &[0], &vouching, &whose].concat();
    let name = pki::sha256(&told)[..16]
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let source = KeySource {
        uri,
        issuer,
        refresh,
        anchors,
    };
    // Of several that fetch the same, the most eager decides how often.
    let (known, cell) = sources
        .entry(name)
        .or_insert_with(|| (Arc::new(source), Arc::default()));
    if refresh < known.refresh {
        Arc::make_mut(known).refresh = refresh;
    }
    Ok(Arc::clone(cell))
}

/// From there keys may be fetched, and what says where they are.
fn place(text: &str, here: &str) -> Result<Uri, Wrong> {
    if text.len() > MAX_TEXT {
        return Err(wrong(here, "1,024 octets at most"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong(here, "not a URL"))?;
    let host = uri.host().unwrap_or_default();
    if host.is_empty()
        || uri
            .authority()
            .is_some_and(|all| all.as_str().contains('@'))
    {
        return Err(wrong(here, "a URL with a host, and without a user"));
    }
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    let own = literal.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") if own => Ok(uri),
        _ => {
            let title = "keys come over https://, or over http:// from 127.0.0.1 or [::1]";
            Err(wrong(here, title))
        }
    }
}

/// Where an issuer's configuration is (OpenID Connect Discovery 1.0 §4).
fn configuration(issuer: &str) -> Result<String, Wrong> {
    let url = place(issuer, "/issuer").map_err(|Wrong { pointer, title }| {
        let why = "without `remoteJwks.uri` the keys are found by the issuer";
        wrong(pointer, format!("{why}: {title}"))
    })?;
    if url.query().is_some() || issuer.contains('#') {
        let title = "an issuer whose keys are found by it has neither query nor fragment";
        return Err(wrong("/issuer", title));
    }
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    Ok(format!("{base}/.well-known/openid-configuration"))
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
