//! A route of a LoadBalancer, in the words of the Gateway API's `HTTPRoute`.

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Filter;
use crate::Span;

/// Requests that match go to the backends, or are answered by a filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Route {
    /// For logs and `why`; `route-N` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub name: Option<Name>,
    /// Any one has to match; every request matches if there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matches: Vec<RouteMatch>,
    /// What is done with a request and its response on the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(with = "Vec<super::filter::FilterFields>")]
    pub filters: Vec<Filter>,
    /// Services, by weight; none where a filter answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backend_refs: Vec<BackendRef>,
    /// How long things may take.
    #[serde(default)]
    pub timeouts: RouteTimeouts,
    /// When a request is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RouteRetry>,
    /// Take a request's body whole before an endpoint is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffer: Option<RouteBuffer>,
}

/// A request's body is taken whole before an endpoint is picked: a client that sends slowly keeps
/// none waiting, and a body of any length up to the bound can be sent again. What is longer is
/// answered with 413, and with 503 what there is no room for at the moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteBuffer {
    /// Octets of a body, 1 to 16777216 (16 MiB).
    pub max_bytes: u32,
}

impl Route {
    /// Every Service that requests are sent to: backends and mirrors.
    pub fn services(&self) -> impl Iterator<Item = (Option<&Name>, &Name)> {
        let backends = self.backend_refs.iter();
        let backends = backends.map(|to| (to.namespace.as_ref(), &to.name));
        let mirrors = self.filters.iter().filter_map(|filter| match filter {
            Filter::RequestMirror(mirror) => Some(&mirror.backend_ref),
            Filter::RequestHeaderModifier(_)
            | Filter::ResponseHeaderModifier(_)
            | Filter::RequestRedirect(_)
            | Filter::UrlRewrite(_)
            | Filter::Cors(_)
            | Filter::DirectResponse(_)
            | Filter::Fault(_) => None,
        });
        backends.chain(mirrors.map(|to| (to.namespace.as_ref(), &to.name)))
    }
}

/// Everything that is given has to match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteMatch {
    /// The path, after it was made normal: no `.` and `..` segments, no `//`, no needless `%XX`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathMatch>,
    /// Headers, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<ValueMatch>,
    /// Parameters of the query, all of them; of one that is there twice the first counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<ValueMatch>,
    /// The method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<HttpMethod>,
}

/// A path to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathMatch {
    /// How.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// What; begins with `/`, but for a regular expression.
    pub value: String,
}

/// How a path is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Whole segments from the start: `/a` matches `/a` and `/a/b`, not `/ab`.
    #[default]
    PathPrefix,
    /// The whole path, by a regular expression (the syntax of Rust's `regex`, without look-around
    /// and back references, so that it takes linear time).
    RegularExpression,
}

/// A header or a parameter that has to have this value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValueMatch {
    /// How the value is matched.
    #[serde(rename = "type", default)]
    pub kind: ValueMatchType,
    /// Its name; of a header in any case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// How a value is matched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueMatchType {
    /// The whole value.
    #[default]
    Exact,
    /// The whole value, by a regular expression.
    RegularExpression,
}

/// A method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "RFC 9110 §9 names them")]
pub enum HttpMethod {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Trace,
    Patch,
}

impl HttpMethod {
    /// The method as it stands in a request.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Options => "OPTIONS",
            HttpMethod::Trace => "TRACE",
            HttpMethod::Patch => "PATCH",
        }
    }
}

/// A Service that gets a share of the requests.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// The Service.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its namespace; the LoadBalancer's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub namespace: Option<Name>,
    /// Its share, 0 to 65,535; 1 by default.
    #[serde(default = "one")]
    pub weight: u16,
}

fn one() -> u16 {
    1
}

/// How long things may take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteTimeouts {
    /// From the request's head to the response's head, all tries together; 30 s by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Span>,
    /// The same for one try; a try that takes longer is repeated elsewhere if that is safe. At
    /// most `request`; no limit of its own by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Span>,
}

/// When a request is tried again, on another endpoint. A connection that cannot be made, or that
/// breaks under a request that may be repeated, always counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RouteRetry {
    /// How often at most, 0 to 10; 2 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u8>,
    /// Answers that count as failures, 400 to 599, if the method is idempotent (RFC 9110 §9.2.2)
    /// and no more than a fifth of the Service's requests are retries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<u16>,
    /// How long to wait after such an answer, at most 10 s: anything up to that, and twice as much
    /// the next time; 25 ms by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Span>,
    /// Ask another endpoint, too, when the first takes long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hedge: Option<RouteHedge>,
}

/// A second try beside one that takes long, on another endpoint: the first good answer wins, and
/// the other try is given up. For safe methods (RFC 9110 §9.2.1) whose body, if any, is at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RouteHedge {
    /// How long the first try has, 1 ms to 10 s.
    pub after: Span,
}
