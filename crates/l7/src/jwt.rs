//! JSON Web Tokens: who a request says it is, and whether that is true (RFC 7519, RFC 8725).
//!
//! A [`Verifier`] has [`Provider`]s; each says who issues tokens, for whom, with which [`KeySet`],
//! and where in a request they stand. [`Verifier::read`] gives the [`Claims`] of a request's token,
//! nothing if it has none, and an error if it has a bad one. What a [`Cache`] has seen is not
//! verified again.

mod cache;
mod cell;
mod claims;
mod keys;
mod token;

use std::{sync::Arc, time::Duration};

use base::WallTime;
use http::HeaderName;

use crate::{Fields, Known, affinity::cookie, query::parameters};

pub use cache::Cache;
pub use cell::{KeyCell, Keys};
pub use claims::{ClaimMatch, Claims};
pub use keys::{KeySet, KeySetError};

/// The most octets of a token.
pub const MAX_TOKEN: usize = 8 << 10;

/// Somebody who issues tokens.
#[derive(Debug)]
pub struct Provider {
    /// What tokens have to say in `iss`.
    pub issuer: String,
    /// One of these has to stand in `aud`; empty: not looked at.
    pub audiences: Vec<String>,
    /// What they are signed with.
    pub keys: Keys,
    /// Where they stand; the first that is there counts.
    pub from: Vec<Source>,
    /// Does the service get the token too? Only headers can be taken out.
    pub forward: bool,
    /// How wrong the clocks of issuer and node may be.
    pub skew: Duration,
}

/// Where a token stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `Authorization: Bearer TOKEN` (RFC 6750 §2.1).
    Bearer,
    /// A header, with or without `Bearer ` in front.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There are two.
    #[error("more than one token")]
    Several,
    /// It is too long.
    #[error("a token of more than 8 KiB")]
    Long,
    /// It is not `HEADER.PAYLOAD.SIGNATURE` with JSON in it (RFC 7515 §7.1).
    #[error("not a signed token")]
    Syntax,
    /// It wants something that is not understood (RFC 7515 §4.1.11).
    #[error("the token has critical extensions")]
    Critical,
    /// Not signed, or by a method that needs a shared secret.
    #[error("the token's algorithm is not accepted")]
    Algorithm,
    /// Nobody who is known issued it.
    #[error("the token's issuer is unknown")]
    Issuer,
    /// It is for somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// The provider has no such key.
    #[error("the token's key is unknown")]
    Key,
    /// None were ever fetched.
    #[error("the issuer's keys are not known yet")]
    NoKeys,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// It has no end.
    #[error("the token never expires")]
    Endless,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not begun.
    #[error("the token is not valid yet")]
    Early,
}

/// All providers of a load balancer.
#[derive(Debug)]
pub struct Verifier {
    providers: Vec<Provider>,
    /// Of everything that verification depends on.
    id: u64,
}

/// What a request's token says, and what has to be taken out of the request.
#[derive(Clone, Debug)]
pub struct Told {
    /// What it says.
    pub claims: Arc<Claims>,
    /// The header that the service is not to get.
    pub hide: Option<HeaderName>,
}

impl Verifier {
    /// Providers in the order in which they are asked; `id` is another for any other
    /// configuration.
    #[must_use]
    pub fn new(providers: Vec<Provider>, id: u64) -> Self {
        Verifier { providers, id }
    }

    /// What the request's token says; `None`: it has none.
    ///
    /// # Errors
    /// It has one that is not to be believed.
    pub fn read(
        &self,
        fields: &Fields,
        query: Option<&str>,
        now: WallTime,
        cache: &mut Cache,
    ) -> Result<Option<Told>, TokenError> {
        let id = self.id();
        for provider in &self.providers {
            for source in &provider.from {
                let Some(token) = source.find(fields, query)? else {
                    continue;
                };
                if token.len() > MAX_TOKEN {
                    return Err(TokenError::Long);
                }
                let known = cache.find(id, &token, now);
                let (claims, issuer) = match known {
                    Some(known) => known,
                    None => {
                        let (claims, issuer, until) = self.verify(&token, source, now)?;
                        let claims = Arc::new(claims);
                        cache.add(id, &token, (Arc::clone(&claims), issuer), until);
                        (claims, issuer)
                    }
                };
                // One that is known may have stood elsewhere before.
                let issuer = self.providers.get(issuer);
                let issuer = issuer.filter(|one| one.from.contains(source));
                let hides = !issuer.ok_or(TokenError::Issuer)?.forward;
                let hide = source.header().filter(|_| hides);
                return Ok(Some(Told { claims, hide }));
            }
        }
        Ok(None)
    }

    /// Another for any other configuration and keys.
    fn id(&self) -> u64 {
        let versions = self.providers.iter().map(|one| one.keys.version());
        versions.fold(self.id, |id, version| id.rotate_left(7) ^ version)
    }

    /// Verify a token by the provider that issued it and looks for it there; until when that holds.
    fn verify(
        &self,
        token: &str,
        source: &Source,
        now: WallTime,
    ) -> Result<(Claims, usize, WallTime), TokenError> {
        let token = token::Token::parse(token)?;
        let issuer = token.claims.text("iss").ok_or(TokenError::Issuer)?;
        let mut providers = self.providers.iter().enumerate();
        let (at, provider) = providers
            .find(|(_, one)| one.issuer == issuer && one.from.contains(source))
            .ok_or(TokenError::Issuer)?;
        let until = provider.check(&token, now)?;
        Ok((token.claims, at, until))
    }
}

impl Provider {
    /// Signature first: what an unsigned token says is nobody's word.
    fn check(&self, token: &token::Token<'_>, now: WallTime) -> Result<WallTime, TokenError> {
        self.keys.verify(token)?;
        let claims = &token.claims;
        let ours = |audience: &str| self.audiences.iter().any(|one| one == audience);
        if !self.audiences.is_empty() && !claims.texts("aud").any(ours) {
            return Err(TokenError::Audience);
        }
        let until = claims.time("exp").ok_or(TokenError::Endless)? + self.skew;
        if now >= until {
            return Err(TokenError::Expired);
        }
        for name in ["nbf", "iat"] {
            if claims.has(name) && claims.time(name).is_none_or(|from| now + self.skew < from) {
                return Err(TokenError::Early);
            }
        }
        Ok(until)
    }
}

impl Source {
    fn find(&self, fields: &Fields, query: Option<&str>) -> Result<Option<String>, TokenError> {
        let text = |value: &[u8]| {
            let text = std::str::from_utf8(value).map_err(|_| TokenError::Syntax)?;
            Ok(Some(text.to_owned()))
        };
        match self {
            Source::Bearer => {
                let name = http::header::AUTHORIZATION;
                let mut lines = fields.get_all(&name).filter_map(bearer);
                match (lines.next(), lines.next()) {
                    (None, _) => Ok(None),
                    (Some(one), None) => text(one),
                    (Some(_), Some(_)) => Err(TokenError::Several),
                }
            }
            Source::Header(name) => {
                let mut lines = fields.get_all(name);
                match (lines.next(), lines.next()) {
                    (None, _) => Ok(None),
                    (Some(one), None) => text(bearer(one).unwrap_or(one)),
                    (Some(_), Some(_)) => Err(TokenError::Several),
                }
            }
            Source::Cookie(name) if fields.has(Known::Cookie) => {
                cookie(fields, name).map_or(Ok(None), text)
            }
            Source::Cookie(_) => Ok(None),
            Source::Query(name) => {
                let mut values = parameters(query, name);
                match (values.next(), values.next()) {
                    (None, _) => Ok(None),
                    (Some(one), None) => Ok(Some(one.into_owned())),
                    (Some(_), Some(_)) => Err(TokenError::Several),
                }
            }
        }
    }

    fn header(&self) -> Option<HeaderName> {
        match self {
            Source::Bearer => Some(http::header::AUTHORIZATION),
            Source::Header(name) => Some(name.clone()),
            Source::Cookie(_) | Source::Query(_) => None,
        }
    }
}

/// What stands behind `Bearer ` (RFC 9110 §11.4: the scheme in any case).
fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = line.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests;
