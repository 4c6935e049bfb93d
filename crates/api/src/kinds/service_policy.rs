//! ServicePolicy: which requests may pass.

use std::{fmt, str::FromStr};

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    CertificatePresence, Everything, HostPattern, HttpMethod, IdentityMatch, JwtPresence,
    PathMatch, ValueMatch,
};
use crate::{Span, Timestamp};

/// Which requests may pass. It does nothing until a LoadBalancer or a Service names it in its
/// `policies`: a LoadBalancer's see requests as clients send them, a Service's as its endpoints
/// get them, at the ingress and again in the site of the endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServicePolicySpec {
    /// Which of several rules that match decides.
    #[serde(default)]
    pub algorithm: PolicyAlgorithm,
    /// `shadow`: count and log what it would decide, and decide nothing.
    #[serde(default)]
    pub effect: PolicyEffect,
    /// The rules, 256 at most.
    pub rules: Vec<PolicyRule>,
}

/// Which of several rules that match decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyAlgorithm {
    /// The first.
    #[default]
    FirstMatch,
    /// Those that deny are asked first, then those that limit, then those that allow.
    DenyOverrides,
    /// Those that allow are asked first, then those that deny, then those that limit.
    AllowOverrides,
}

/// Does a policy act?
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PolicyEffect {
    /// It does.
    #[default]
    Enforce,
    /// It only says what it would do.
    Shadow,
}

/// One rule: everything in it has to hold; a list holds when any entry does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyRule {
    /// Its name, once in the policy: for logs and metrics.
    #[schemars(with = "String")]
    pub name: Name,
    /// Who asks.
    #[serde(default)]
    pub client: PolicyClient,
    /// Where it goes.
    #[serde(default)]
    pub server: PolicyServer,
    /// What is asked.
    #[serde(default)]
    pub request: PolicyRequest,
    /// What becomes of it.
    #[schemars(with = "PolicyActionFields")]
    pub action: PolicyAction,
    /// From then on the rule does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyClient {
    /// Its address is one of these: `10.0.0.0/8`, `2001:db8::/32`, `192.0.2.1`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// Its address is none of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub not_prefixes: Vec<String>,
    /// It has shown a certificate that the LoadBalancer's `tls.clientCertificates` accept, or has
    /// not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<CertificatePresence>,
    /// That certificate has one of these names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<IdentityMatch>,
}

/// Where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyServer {
    /// Services of the tenant: `NAME` in the policy's namespace, or `NAMESPACE/NAME`. A name that
    /// no Service has matches nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Reference>,
}

/// What is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PolicyRequest {
    /// The methods.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<HttpMethod>,
    /// The hosts: exact names, or `*.example.com` for everything below.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// The paths, after they were made normal: no `.` and `..` segments, no `//`, no needless
    /// `%XX`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathMatch>,
    /// Headers, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query, all of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatch>,
    /// It has a token of one of the LoadBalancer's `jwt` providers, or has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtPresence>,
    /// Claims of its token, all of them: `sub`, or `a.b` for `b` in `a`. A value is a text, or a
    /// number, `true` or `false` as JSON writes it; of a list any entry counts, of `scope` any
    /// word.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ValueMatch>,
}

/// What becomes of a request; one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "PolicyActionFields")]
pub enum PolicyAction {
    /// It passes.
    Allow(Everything),
    /// It is refused.
    Deny(PolicyDeny),
    /// It is refused if it is one too many; else the next rule is asked.
    RateLimit(RateLimit),
}

/// What becomes of a request; one of the fields.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "PolicyAction")]
struct PolicyActionFields {
    /// It passes: written `{}`.
    allow: Option<Everything>,
    /// It is refused.
    deny: Option<PolicyDeny>,
    /// It is refused if it is one too many; else the next rule is asked.
    rate_limit: Option<RateLimit>,
}

impl TryFrom<PolicyActionFields> for PolicyAction {
    type Error = &'static str;

    fn try_from(fields: PolicyActionFields) -> Result<Self, Self::Error> {
        match (fields.allow, fields.deny, fields.rate_limit) {
            (Some(all), None, None) => Ok(PolicyAction::Allow(all)),
            (None, Some(deny), None) => Ok(PolicyAction::Deny(deny)),
            (None, None, Some(limit)) => Ok(PolicyAction::RateLimit(limit)),
            _ => Err(
                "one of `allow: {}`, `deny: {status: 403}` or `rateLimit: {requests: 100, per: 1s}`",
            ),
        }
    }
}

/// How a request is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PolicyDeny {
    /// The status, 400 to 499; 403 by default.
    #[serde(default = "forbidden")]
    pub status: u16,
}

fn forbidden() -> u16 {
    403
}

/// So many requests in so much time, counted by each node for itself. One too many is answered
/// with 429 and `Retry-After`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    /// Requests, 1 to 1,000,000 …
    pub requests: u32,
    /// … in this time: whole seconds, 1 s to 24 h.
    pub per: Span,
    /// How many may come at once after a rest, 1 to 1,000,000; `requests` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// What of a request says whose bucket it is, 8 at most: requests that have the same of all
    /// of these share one. Without it all that the rule matches do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<RateLimitKeyFields>")]
    pub key: Vec<RateLimitKey>,
}

/// What of a request says whose bucket it is; one of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "RateLimitKeyFields")]
pub enum RateLimitKey {
    /// The client's address; of IPv6 the first 64 bits.
    SourceAddress(Everything),
    /// A header.
    Header(String),
    /// A claim of its token.
    Claim(String),
}

/// What of a request says whose bucket it is; one of the fields.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "RateLimitKey")]
struct RateLimitKeyFields {
    /// The client's address; of IPv6 the first 64 bits. Written `{}`.
    source_address: Option<Everything>,
    /// A header.
    header: Option<String>,
    /// A claim of its token.
    claim: Option<String>,
}

impl TryFrom<RateLimitKeyFields> for RateLimitKey {
    type Error = &'static str;

    fn try_from(fields: RateLimitKeyFields) -> Result<Self, Self::Error> {
        match (fields.source_address, fields.header, fields.claim) {
            (Some(all), None, None) => Ok(RateLimitKey::SourceAddress(all)),
            (None, Some(name), None) => Ok(RateLimitKey::Header(name)),
            (None, None, Some(name)) => Ok(RateLimitKey::Claim(name)),
            _ => Err("one of `sourceAddress: {}`, `header: NAME` or `claim: NAME`"),
        }
    }
}

/// An object of the tenant: `NAME` in the same namespace, or `NAMESPACE/NAME`.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Reference {
    /// Its namespace; that of who refers to it if absent.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

impl FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        let wrong = |_| {
            let shown: String = text.chars().take(80).collect();
            format!("{shown:?} is not a name: write NAME or NAMESPACE/NAME")
        };
        Ok(Reference {
            namespace: namespace.map(str::parse).transpose().map_err(wrong)?,
            name: name.parse().map_err(wrong)?,
        })
    }
}

impl TryFrom<String> for Reference {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{namespace}/{}", self.name),
            None => self.name.fmt(f),
        }
    }
}
