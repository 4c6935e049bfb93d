//! Filters of a route, in the words of the Gateway API's `HTTPRoute`, and two of our own
//! (`DirectResponse`, `Fault`).

use base::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Span;

/// What is done with a request and its response on the way: `type`, and the field of that name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "FilterFields", into = "FilterFields")]
pub enum Filter {
    /// Headers of the request.
    RequestHeaderModifier(HeaderModifier),
    /// Headers of the response.
    ResponseHeaderModifier(HeaderModifier),
    /// Answer with another place to ask.
    RequestRedirect(RequestRedirect),
    /// Host or path of the request, as the endpoint sees it.
    UrlRewrite(UrlRewrite),
    /// A copy of the request to another Service, whose answer is thrown away.
    RequestMirror(RequestMirror),
    /// Which foreign pages may read the answers (the Fetch standard's CORS protocol).
    Cors(Cors),
    /// Answer here.
    DirectResponse(DirectResponse),
    /// Break some requests on purpose.
    Fault(Fault),
}

/// Which filter it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
enum FilterType {
    RequestHeaderModifier,
    ResponseHeaderModifier,
    RequestRedirect,
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    RequestMirror,
    #[serde(rename = "CORS")]
    Cors,
    DirectResponse,
    Fault,
}

/// What is done with a request and its response on the way: `type`, and the field of that name.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Filter")]
pub(super) struct FilterFields {
    /// Which field is given.
    #[serde(rename = "type")]
    kind: FilterType,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_header_modifier: Option<HeaderModifier>,
    /// Headers of the response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_header_modifier: Option<HeaderModifier>,
    /// Answer with another place to ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_redirect: Option<RequestRedirect>,
    /// Host or path of the request, as the endpoint sees it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url_rewrite: Option<UrlRewrite>,
    /// A copy of the request to another Service, whose answer is thrown away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_mirror: Option<RequestMirror>,
    /// Which foreign pages may read the answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cors: Option<Cors>,
    /// Answer here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    direct_response: Option<DirectResponse>,
    /// Break some requests on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fault: Option<Fault>,
}

impl FilterFields {
    const fn new(kind: FilterType) -> Self {
        FilterFields {
            kind,
            request_header_modifier: None,
            response_header_modifier: None,
            request_redirect: None,
            url_rewrite: None,
            request_mirror: None,
            cors: None,
            direct_response: None,
            fault: None,
        }
    }

    /// How many of the fields are given.
    fn given(&self) -> usize {
        [
            self.request_header_modifier.is_some(),
            self.response_header_modifier.is_some(),
            self.request_redirect.is_some(),
            self.url_rewrite.is_some(),
            self.request_mirror.is_some(),
            self.cors.is_some(),
            self.direct_response.is_some(),
            self.fault.is_some(),
        ]
        .into_iter()
        .filter(|given| *given)
        .count()
    }
}

impl TryFrom<FilterFields> for Filter {
    type Error = String;

    fn try_from(fields: FilterFields) -> Result<Self, Self::Error> {
        let others = fields.given() > 1;
        let (filter, field) = match fields.kind {
            FilterType::RequestHeaderModifier => (
                fields
                    .request_header_modifier
                    .map(Filter::RequestHeaderModifier),
                "requestHeaderModifier",
            ),
            FilterType::ResponseHeaderModifier => (
                fields
                    .response_header_modifier
                    .map(Filter::ResponseHeaderModifier),
                "responseHeaderModifier",
            ),
            FilterType::RequestRedirect => (
                fields.request_redirect.map(Filter::RequestRedirect),
                "requestRedirect",
            ),
            FilterType::UrlRewrite => (fields.url_rewrite.map(Filter::UrlRewrite), "urlRewrite"),
            FilterType::RequestMirror => (
                fields.request_mirror.map(Filter::RequestMirror),
                "requestMirror",
            ),
            FilterType::Cors => (fields.cors.map(Filter::Cors), "cors"),
            FilterType::DirectResponse => (
                fields.direct_response.map(Filter::DirectResponse),
                "directResponse",
            ),
            FilterType::Fault => (fields.fault.map(Filter::Fault), "fault"),
        };
        match filter {
            Some(filter) if !others => Ok(filter),
            Some(_) | None => Err(format!(
                "beside this `type` stands `{field}: {{…}}`, and no other field"
            )),
        }
    }
}

impl From<Filter> for FilterFields {
    fn from(filter: Filter) -> Self {
        match filter {
            Filter::RequestHeaderModifier(modifier) => FilterFields {
                request_header_modifier: Some(modifier),
                ..FilterFields::new(FilterType::RequestHeaderModifier)
            },
            Filter::ResponseHeaderModifier(modifier) => FilterFields {
                response_header_modifier: Some(modifier),
                ..FilterFields::new(FilterType::ResponseHeaderModifier)
            },
            Filter::RequestRedirect(redirect) => FilterFields {
                request_redirect: Some(redirect),
                ..FilterFields::new(FilterType::RequestRedirect)
            },
            Filter::UrlRewrite(rewrite) => FilterFields {
                url_rewrite: Some(rewrite),
                ..FilterFields::new(FilterType::UrlRewrite)
            },
            Filter::RequestMirror(mirror) => FilterFields {
                request_mirror: Some(mirror),
                ..FilterFields::new(FilterType::RequestMirror)
            },
            Filter::Cors(cors) => FilterFields {
                cors: Some(cors),
                ..FilterFields::new(FilterType::Cors)
            },
            Filter::DirectResponse(response) => FilterFields {
                direct_response: Some(response),
                ..FilterFields::new(FilterType::DirectResponse)
            },
            Filter::Fault(fault) => FilterFields {
                fault: Some(fault),
                ..FilterFields::new(FilterType::Fault)
            },
        }
    }
}

/// Headers are set (instead of what was there), added, removed, in this order. Framing, `Host`
/// and what concerns one connection cannot be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HeaderModifier {
    /// Instead of all that have this name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<HttpHeader>,
    /// One more.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<HttpHeader>,
    /// All of this name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHeader {
    /// Its name, in any case.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where the client is sent; what is not given stays as it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RequestRedirect {
    /// `http` or `https`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The path; the query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
    /// The port; with `scheme` that scheme's own, else the one that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// 301, 302 (the default), 303, 307 or 308.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
}

/// A scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

/// What the endpoint sees instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct UrlRewrite {
    /// In the `Host` header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// As the path; the query stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum PathModifier {
    /// The whole path.
    ReplaceFullPath {
        /// The new path.
        replace_full_path: String,
    },
    /// The part that the route's `PathPrefix` matched.
    ReplacePrefixMatch {
        /// What stands in its place.
        replace_prefix_match: String,
    },
}

/// A copy of the request to another Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RequestMirror {
    /// The Service.
    pub backend_ref: MirrorRef,
    /// Of so many of a hundred requests; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// A Service that gets copies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MirrorRef {
    /// The Service.
    #[schemars(with = "String")]
    pub name: Name,
    /// Its namespace; the LoadBalancer's by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub namespace: Option<Name>,
}

/// Which foreign pages may read the answers; preflights are answered here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Cors {
    /// `*`, `https://shop.example`, `https://*.example`, with a port where it is not the scheme's
    /// own.
    pub allow_origins: Vec<String>,
    /// May they send cookies?
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_credentials: bool,
    /// Methods beside the safelisted ones; `*` for every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_methods: Vec<String>,
    /// Request headers beside the safelisted ones; `*` for every one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allow_headers: Vec<String>,
    /// Response headers that they may read beside the safelisted ones.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose_headers: Vec<String>,
    /// How many seconds a preflight's answer holds; 5 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<u32>,
}

/// An answer from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DirectResponse {
    /// 200 to 599.
    pub status: u16,
    /// At most 16 KiB; none by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `text/plain; charset=utf-8` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Requests broken on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// They wait first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<FaultDelay>,
    /// They are answered here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
}

/// Some requests wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultDelay {
    /// So long, 1 m at most.
    pub duration: Span,
    /// So many of a hundred; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}

/// Some requests are answered here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultAbort {
    /// 200 to 599.
    pub status: u16,
    /// So many of a hundred; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent: Option<u8>,
}
