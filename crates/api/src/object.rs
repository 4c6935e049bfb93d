//! The envelope that all kinds share, and where an object lives.

use std::{collections::BTreeMap, fmt, str::FromStr};

use base::{Name, Revision, SiteName};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Problem,
    kinds::{
        BgpPeerSpec, CertificateSpec, LinkSpec, LoadBalancerSpec, NamespaceSpec, ServicePolicySpec,
        ServiceSpec, SiteSpec, TenantSpec, TokenSpec,
    },
};

/// The closed set of kinds.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Kind {
    /// A customer: hard isolation.
    Tenant,
    /// A workspace inside a tenant.
    Namespace,
    /// Admission of a site, once.
    Token,
    /// A place with nodes.
    Site,
    /// Which requests may pass.
    ServicePolicy,
    /// An application address, and where its endpoints are.
    Service,
    /// Where and how a Service is offered.
    LoadBalancer,
    /// Keys and chains for TLS termination.
    Certificate,
    /// A router that a site has.
    #[serde(rename = "BGPPeer")]
    BgpPeer,
    /// Of what sort the link between two sites is.
    Link,
}

/// Which parts an object's path has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Neither tenant nor namespace.
    Global,
    /// A tenant.
    Tenant,
    /// A tenant, or none: a PoP's Site and Token, and Links between PoPs, belong to the fabric.
    TenantOrGlobal,
    /// A tenant and a namespace.
    Namespace,
}

impl Kind {
    /// Every kind, in the order in which a set of manifests is applied.
    pub const ALL: [Kind; 10] = [
        Kind::Tenant,
        Kind::Namespace,
        Kind::Site,
        Kind::Link,
        Kind::Token,
        Kind::BgpPeer,
        Kind::Certificate,
        Kind::ServicePolicy,
        Kind::Service,
        Kind::LoadBalancer,
    ];

    /// The kind as manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Tenant => "Tenant",
            Kind::Namespace => "Namespace",
            Kind::Token => "Token",
            Kind::Site => "Site",
            Kind::ServicePolicy => "ServicePolicy",
            Kind::Service => "Service",
            Kind::LoadBalancer => "LoadBalancer",
            Kind::Certificate => "Certificate",
            Kind::BgpPeer => "BGPPeer",
            Kind::Link => "Link",
        }
    }

    /// The kind as paths write it.
    #[must_use]
    pub fn plural(self) -> &'static str {
        match self {
            Kind::Tenant => "tenants",
            Kind::Namespace => "namespaces",
            Kind::Token => "tokens",
            Kind::Site => "sites",
            Kind::ServicePolicy => "servicepolicies",
            Kind::Service => "services",
            Kind::LoadBalancer => "loadbalancers",
            Kind::Certificate => "certificates",
            Kind::BgpPeer => "bgppeers",
            Kind::Link => "links",
        }
    }

    /// Which parts its path has.
    #[must_use]
    pub fn scope(self) -> Scope {
        match self {
            Kind::Tenant => Scope::Global,
            Kind::Site | Kind::Token | Kind::Link => Scope::TenantOrGlobal,
            Kind::Namespace | Kind::BgpPeer => Scope::Tenant,
            Kind::ServicePolicy | Kind::Service | Kind::LoadBalancer | Kind::Certificate => {
                Scope::Namespace
            }
        }
    }

    /// The kind that a path segment or a word on the command line means: `service`, `services`,
    /// `Service`, `lb`, `ns`, `cert`, `peer`, `policy`.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Kind> {
        let word = word.to_ascii_lowercase();
        let short = match word.as_str() {
            "lb" | "lbs" => Some(Kind::LoadBalancer),
            "ns" => Some(Kind::Namespace),
            "svc" => Some(Kind::Service),
            "cert" | "certs" => Some(Kind::Certificate),
            "peer" | "peers" => Some(Kind::BgpPeer),
            "policy" | "policies" => Some(Kind::ServicePolicy),
            _ => None,
        };
        short.or_else(|| {
            Kind::ALL
                .into_iter()
                .find(|k| k.plural() == word || k.as_str().eq_ignore_ascii_case(&word))
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who an object is. `uid`, `id`, `revision`, `created_at` and `updated_at` are the server's: on
/// an update, `revision` says which state the change was based on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The tenant; absent for global kinds and for PoPs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub tenant: Option<Name>,
    /// The namespace; absent for all but namespaced kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub namespace: Option<Name>,
    /// The name inside its scope.
    #[schemars(with = "String")]
    pub name: Name,
    /// Free words to select by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free words to remember.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The server's unique id of this incarnation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// The immutable number of a Tenant (u32), Site (u32) or LoadBalancer (u64).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// The store's revision of the last change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub revision: Option<Revision>,
    /// When it was created, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// When it last changed, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

/// What a user wants, by kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Spec {
    /// See [`TenantSpec`].
    Tenant(TenantSpec),
    /// See [`NamespaceSpec`].
    Namespace(NamespaceSpec),
    /// See [`TokenSpec`].
    Token(TokenSpec),
    /// See [`SiteSpec`].
    Site(SiteSpec),
    /// See [`ServicePolicySpec`].
    ServicePolicy(ServicePolicySpec),
    /// See [`ServiceSpec`].
    Service(ServiceSpec),
    /// See [`LoadBalancerSpec`].
    LoadBalancer(LoadBalancerSpec),
    /// See [`CertificateSpec`].
    Certificate(CertificateSpec),
    /// See [`BgpPeerSpec`].
    BgpPeer(Box<BgpPeerSpec>),
    /// See [`LinkSpec`].
    Link(LinkSpec),
}

impl Spec {
    /// The kind this is the spec of.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Spec::Tenant(_) => Kind::Tenant,
            Spec::Namespace(_) => Kind::Namespace,
            Spec::Token(_) => Kind::Token,
            Spec::Site(_) => Kind::Site,
            Spec::ServicePolicy(_) => Kind::ServicePolicy,
            Spec::Service(_) => Kind::Service,
            Spec::LoadBalancer(_) => Kind::LoadBalancer,
            Spec::Certificate(_) => Kind::Certificate,
            Spec::BgpPeer(_) => Kind::BgpPeer,
            Spec::Link(_) => Kind::Link,
        }
    }
}

/// What is, written by the system only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Statements about the object, one a type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The revision of the object that the conditions speak of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<u64>")]
    pub observed_revision: Option<Revision>,
    /// What each concerned site says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<SiteReport>,
    /// Of a Token, once, in the answer to its creation: the line to give to `sealane node --token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// One statement about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: `Ready`, `Redeemed`, `Connected` …
    #[serde(rename = "type")]
    pub kind: String,
    /// Does it hold?
    pub status: bool,
    /// One CamelCase word.
    pub reason: String,
    /// One sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// What one site says about an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteReport {
    /// `SITE.TENANT`.
    pub site: String,
    /// The last revision the site runs.
    #[schemars(with = "u64")]
    pub applied: Revision,
    /// Why a newer revision was refused there, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// One resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Its kind; always that of `spec`.
    pub kind: Kind,
    /// Who it is.
    pub metadata: Metadata,
    /// What the user wants.
    pub spec: Spec,
    /// What is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
}

impl Object {
    /// An object as a user would write it: no server fields.
    #[must_use]
    pub fn new(tenant: Option<Name>, namespace: Option<Name>, name: Name, spec: Spec) -> Self {
        let metadata = Metadata {
            tenant,
            namespace,
            name,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            uid: None,
            id: None,
            revision: None,
            created_at: None,
            updated_at: None,
        };
        Object {
            kind: spec.kind(),
            metadata,
            spec,
            status: None,
        }
    }

    /// Where it lives.
    #[must_use]
    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: self.kind,
            tenant: self.metadata.tenant.clone(),
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone(),
        }
    }

    /// The site this object is, for a Site.
    #[must_use]
    pub fn site_name(&self) -> Option<SiteName> {
        match self.spec {
            Spec::Site(_) => Some(self.key().site_name()),
            Spec::Tenant(_)
            | Spec::Namespace(_)
            | Spec::Token(_)
            | Spec::ServicePolicy(_)
            | Spec::Service(_)
            | Spec::LoadBalancer(_)
            | Spec::Certificate(_)
            | Spec::BgpPeer(_)
            | Spec::Link(_) => None,
        }
    }

    /// Parse and check the shape of one object.
    ///
    /// # Errors
    /// A [`Problem`] with a JSON Pointer to the first field that is unknown, missing or of a
    /// wrong type, or to a scope the kind does not have.
    pub fn from_value(value: Value) -> Result<Self, Problem> {
        let Value::Object(mut map) = value else {
            return Err(Problem::field(
                "bad-value",
                "",
                "a resource is a mapping of kind, metadata and spec",
            ));
        };
        if let Some(unknown) = map
            .keys()
            .find(|k| !["kind", "metadata", "spec", "status"].contains(&k.as_str()))
        {
            let title = format!(
                "unknown field {unknown:?}: a resource has kind, metadata, spec and status"
            );
            return Err(Problem::field(
                "unknown-field",
                pointer(&["", unknown]),
                title,
            ));
        }
        let kind = kind_of(&map)?;
        let metadata: Metadata = parse_part("/metadata", map.remove("metadata"))?;
        let spec = parse_spec(kind, map.remove("spec"))?;
        let status = match map.remove("status") {
            None | Some(Value::Null) => None,
            some => Some(parse_part("/status", some)?),
        };
        let object = Object {
            kind,
            metadata,
            spec,
            status,
        };
        object.check_scope()?;
        object.check_texts()?;
        Ok(object)
    }

    fn check_scope(&self) -> Result<(), Problem> {
        let (tenant, namespace) = (&self.metadata.tenant, &self.metadata.namespace);
        let (wants_tenant, wants_namespace) = match self.kind.scope() {
            Scope::Global => (Some(false), false),
            Scope::Tenant => (Some(true), false),
            Scope::Namespace => (Some(true), true),
            Scope::TenantOrGlobal => (None, false),
        };
        let kind = self.kind;
        for (field, wanted, have) in [
            ("tenant", wants_tenant, tenant.is_some()),
            ("namespace", Some(wants_namespace), namespace.is_some()),
        ] {
            match (wanted, have) {
                (Some(true), false) => {
                    let title = format!("a {kind} needs metadata.{field}");
                    return Err(Problem::field(
                        "missing-field",
                        format!("/metadata/{field}"),
                        title,
                    ));
                }
                (Some(false), true) => {
                    let title = format!("a {kind} has no metadata.{field}: remove it");
                    return Err(Problem::field(
                        "unknown-field",
                        format!("/metadata/{field}"),
                        title,
                    ));
                }
                (Some(true), true) | (Some(false), false) | (None, _) => {}
            }
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), Problem> {
        for (field, texts) in [
            ("labels", &self.metadata.labels),
            ("annotations", &self.metadata.annotations),
        ] {
            if texts.len() > 64 || texts.iter().any(|(k, v)| k.len() > 253 || v.len() > 4096) {
                let title = "at most 64 entries, keys to 253 and values to 4,096 bytes";
                return Err(Problem::field(
                    "too-large",
                    format!("/metadata/{field}"),
                    title,
                ));
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Object::from_value(value).map_err(serde::de::Error::custom)
    }
}

/// Where an object lives. Prints and parses as its REST path below `/api/v1/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its tenant, if its scope has one.
    pub tenant: Option<Name>,
    /// Its namespace, if its scope has one.
    pub namespace: Option<Name>,
    /// Its name.
    pub name: Name,
}

impl ObjectKey {
    /// The site a key of kind Site (or a Token's scope) names; no tenant means the fabric.
    #[must_use]
    pub fn site_name(&self) -> SiteName {
        let fabric = || {
            SiteName::FABRIC
                .parse()
                .expect("the constant is a DNS label")
        };
        SiteName {
            tenant: self.tenant.clone().unwrap_or_else(fabric),
            site: self.name.clone(),
        }
    }

    /// The path of the collection it is in, without a final slash.
    #[must_use]
    pub fn collection(&self) -> String {
        collection(self.kind, self.tenant.as_ref(), self.namespace.as_ref())
    }
}

/// The path of a collection below `/api/v1/`.
#[must_use]
pub(crate) fn collection(kind: Kind, tenant: Option<&Name>, namespace: Option<&Name>) -> String {
    let mut path = String::new();
    if let Some(tenant) = tenant {
        path = format!("tenants/{tenant}/");
    }
    if let Some(namespace) = namespace {
        path = format!("{path}namespaces/{namespace}/");
    }
    path + kind.plural()
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.collection(), self.name)
    }
}

impl FromStr for ObjectKey {
    type Err = Problem;

    fn from_str(path: &str) -> Result<Self, Problem> {
        let not_found = || {
            Problem::new(
                404,
                "no-such-path",
                format!("{path:?} is not the path of an object"),
            )
        };
        let parts: Vec<&str> = path.split('/').collect();
        let (tenant, namespace, kind, name) = match parts.as_slice() {
            [kind, name] => (None, None, kind, name),
            ["tenants", tenant, kind, name] => (Some(tenant), None, kind, name),
            ["tenants", tenant, "namespaces", namespace, kind, name] => {
                (Some(tenant), Some(namespace), kind, name)
            }
            _ => return Err(not_found()),
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|k| k.plural() == *kind)
            .ok_or_else(|| {
                Problem::new(
                    404,
                    "no-such-kind",
                    format!("no kind has the path segment {kind:?}"),
                )
            })?;
        let label = |s: &&str| {
            s.parse::<Name>()
                .map_err(|e| Problem::new(404, "no-such-path", e.to_string()))
        };
        let key = ObjectKey {
            kind,
            tenant: tenant.map(label).transpose()?,
            namespace: namespace.map(label).transpose()?,
            name: label(name)?,
        };
        let fits = match kind.scope() {
            Scope::Global => key.tenant.is_none() && key.namespace.is_none(),
            Scope::Tenant => key.tenant.is_some() && key.namespace.is_none(),
            Scope::TenantOrGlobal => key.namespace.is_none(),
            Scope::Namespace => key.tenant.is_some() && key.namespace.is_some(),
        };
        if fits { Ok(key) } else { Err(not_found()) }
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

fn kind_of(map: &serde_json::Map<String, Value>) -> Result<Kind, Problem> {
    let known = || Kind::ALL.map(Kind::as_str).join(", ");
    match map.get("kind") {
        None => Err(Problem::field(
            "missing-field",
            "/kind",
            format!("kind is missing: one of {}", known()),
        )),
        Some(Value::String(word)) => Kind::ALL
            .into_iter()
            .find(|k| k.as_str() == word)
            .ok_or_else(|| {
                let shown: String = word.chars().take(80).collect();
                Problem::field(
                    "unknown-kind",
                    "/kind",
                    format!("unknown kind {shown:?}: one of {}", known()),
                )
            }),
        Some(_) => Err(Problem::field(
            "bad-value",
            "/kind",
            format!("kind is a word: one of {}", known()),
        )),
    }
}

fn parse_spec(kind: Kind, value: Option<Value>) -> Result<Spec, Problem> {
    Ok(match kind {
        Kind::Tenant => Spec::Tenant(parse_part("/spec", value)?),
        Kind::Namespace => Spec::Namespace(parse_part("/spec", value)?),
        Kind::Token => Spec::Token(parse_part("/spec", value)?),
        Kind::Site => Spec::Site(parse_part("/spec", value)?),
        Kind::ServicePolicy => Spec::ServicePolicy(parse_part("/spec", value)?),
        Kind::Service => Spec::Service(parse_part("/spec", value)?),
        Kind::LoadBalancer => Spec::LoadBalancer(parse_part("/spec", value)?),
        Kind::Certificate => Spec::Certificate(parse_part("/spec", value)?),
        Kind::BgpPeer => Spec::BgpPeer(parse_part("/spec", value)?),
        Kind::Link => Spec::Link(parse_part("/spec", value)?),
    })
}

fn parse_part<T: serde::de::DeserializeOwned>(
    at: &str,
    value: Option<Value>,
) -> Result<T, Problem> {
    let value = match value {
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        Some(value) => value,
    };
    serde_path_to_error::deserialize(value).map_err(|e| {
        let mut place = at.to_owned() + &path_pointer(e.path());
        let message = e.inner().to_string();
        let quoted = message.split('`').nth(1).unwrap_or_default().to_owned();
        if message.starts_with("unknown field") || message.starts_with("missing field") {
            let code = if message.starts_with("unknown") {
                "unknown-field"
            } else {
                "missing-field"
            };
            let last = pointer(&["", &quoted]);
            if !place.ends_with(&last) {
                place += &last;
            }
            return Problem::field(code, place, message);
        }
        Problem::field("bad-value", place, message)
    })
}

/// The place of an error as a JSON Pointer: maps and lists, which is all that JSON shows.
#[must_use]
pub fn path_pointer(path: &serde_path_to_error::Path) -> String {
    let segment = |segment: &serde_path_to_error::Segment| match segment {
        serde_path_to_error::Segment::Map { key } => pointer(&["", key]),
        serde_path_to_error::Segment::Seq { index } => format!("/{index}"),
        serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => {
            String::new()
        }
    };
    path.iter().map(segment).collect()
}

/// A JSON Pointer of `parts`, escaped as RFC 6901 §3 says.
fn pointer(parts: &[&str]) -> String {
    parts
        .iter()
        .map(|p| p.replace('~', "~0").replace('/', "~1"))
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests;
