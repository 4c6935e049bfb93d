//! Tokens of a LoadBalancer's clients: who issues them, and where they stand.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;

/// Somebody who issues JSON Web Tokens. A request whose token is not to be believed is answered
/// with 401; one without a token passes, and has no claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtProvider {
    /// What tokens say in `iss`.
    pub issuer: String,
    /// One of these stands in `aud`; without any, `aud` is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    /// The keys, a JSON Web Key Set (RFC 7517) as text, 64 KiB and 64 keys at most: RSA of 2,048
    /// to 8,192 bits, P-256, P-384, Ed25519. This, or `remoteJwks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<String>,
    /// Where the keys are published; `{}`: where the issuer's OpenID configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_jwks: Option<RemoteJwks>,
    /// Where a token stands, the first that is there; `Authorization: Bearer TOKEN` by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<JwtSourceFields>")]
    pub from: Vec<JwtSource>,
    /// Does the Service get the token too? `true` by default; only headers can be taken out.
    #[serde(default = "yes")]
    pub forward: bool,
    /// How wrong the clocks may be, 5 m at most; 60 s by default.
    #[serde(default = "minute")]
    pub clock_skew: Span,
}

/// Keys that nodes fetch from where they are published (`jwks_uri` of OpenID Connect).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RemoteJwks {
    /// `https://…`; `http://` of this machine's own addresses alone. No redirect is followed. Without
    /// it the `issuer` is such a URL, and its configuration at
    /// `ISSUER/.well-known/openid-configuration` says in `jwks_uri` where the keys are (OpenID
    /// Connect Discovery 1.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// How often they are fetched, 1 m to 24 h; 10 m by default.
    #[serde(default = "ten_minutes")]
    pub refresh: Span,
    /// Who vouches for the servers of configuration and keys: PEM, 1 to 10 certificates of authorities; those that browsers
    /// trust, by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_certificates: Option<String>,
}

fn ten_minutes() -> Span {
    Span(std::time::Duration::from_secs(600))
}

fn yes() -> bool {
    true
}

fn minute() -> Span {
    Span(std::time::Duration::from_secs(60))
}

/// Where a token stands; one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "JwtSourceFields")]
pub enum JwtSource {
    /// A header, with or without `Bearer ` in front; of `Authorization` only with it.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    QueryParam(String),
}

/// Where a token stands; one of the fields.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "JwtSource")]
struct JwtSourceFields {
    /// A header, with or without `Bearer ` in front; of `Authorization` only with it.
    header: Option<String>,
    /// A cookie.
    cookie: Option<String>,
    /// A parameter of the query.
    query_param: Option<String>,
}

impl TryFrom<JwtSourceFields> for JwtSource {
    type Error = &'static str;

    fn try_from(fields: JwtSourceFields) -> Result<Self, Self::Error> {
        match (fields.header, fields.cookie, fields.query_param) {
            (Some(name), None, None) => Ok(JwtSource::Header(name)),
            (None, Some(name), None) => Ok(JwtSource::Cookie(name)),
            (None, None, Some(name)) => Ok(JwtSource::QueryParam(name)),
            _ => Err("one of `header: NAME`, `cookie: NAME` or `queryParam: NAME`"),
        }
    }
}

/// Has a request a token?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum JwtPresence {
    /// It has one, which was verified.
    Present,
    /// It has none.
    Absent,
}
