//! A route as its user wrote it, as `l7` runs it: for the check of what is written, and for the
//! table that is served.

use std::time::Duration;

use api::{
    Filter, HeaderModifier, HttpMethod, PathMatch, PathMatchType, PathModifier, Route, RouteMatch,
    ValueMatch, ValueMatchType,
};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, uri::PathAndQuery};
use l7::{NewPath, Percent};

/// The most octets of a path, a value or a host.
const MAX_TEXT: usize = 1024;
/// The most octets of an answer's body.
const MAX_BODY: usize = 16 << 10;
/// The most octets of a request's body that is taken whole.
const MAX_BUFFER: usize = 16 << 20;
/// The longest delay on purpose, and request.
const MAX_DELAY: Duration = Duration::from_secs(60);
const MAX_REQUEST: Duration = Duration::from_secs(3600);
const MIN_HEDGE: Duration = Duration::from_millis(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
const PLAIN_TEXT: &str = "text/plain; charset=utf-8";

/// What is wrong with a route: where in it, and what would be right.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub(crate) pointer: String,
    pub(crate) title: String,
}

pub(crate) fn wrong(pointer: impl Into<String>, title: impl Into<String>) -> Wrong {
    Wrong {
        pointer: pointer.into(),
        title: title.into(),
    }
}

impl Wrong {
    /// The same, `above` being around it.
    pub(crate) fn in_(self, above: &str) -> Wrong {
        wrong(format!("{above}{}", self.pointer), self.title)
    }
}

/// A route but for the Services that it names.
pub(crate) struct Parts {
    pub(crate) matches: Vec<l7::Match>,
    /// Without mirrors.
    pub(crate) filters: l7::Filters,
    /// What answers instead of a Service.
    pub(crate) answer: Option<l7::Action>,
    pub(crate) timeouts: l7::Timeouts,
    pub(crate) retry: l7::Retry,
    pub(crate) buffer: Option<usize>,
}

/// Read a route.
pub(crate) fn parts(route: &Route) -> Result<Parts, Wrong> {
    few("/matches", route.matches.len(), 64)?;
    let matches = route.matches.iter().enumerate().map(|(at, one)| {
        let read = matches(one);
        read.map_err(|wrong| wrong.in_(&format!("/matches/{at}")))
    });
    let matches: Vec<l7::Match> = matches.collect::<Result<_, _>>()?;
    few("/filters", route.filters.len(), 16)?;
    let mut parts = Parts {
        matches,
        filters: l7::Filters::default(),
        answer: None,
        timeouts: timeouts(route)?,
        retry: retry(route).map_err(|wrong| wrong.in_("/retry"))?,
        buffer: buffer(route)?,
    };
    for (at, filter) in route.filters.iter().enumerate() {
        let here = format!("/filters/{at}");
        let same =
            |other: &&Filter| std::mem::discriminant(*other) == std::mem::discriminant(filter);
        let repeats = matches!(filter, Filter::RequestMirror(_));
        if !repeats && route.filters[..at].iter().any(|other| same(&other)) {
            return Err(wrong(here, "there is one of this type already"));
        }
        let first = parts.answer.is_some();
        read_filter(filter, &mut parts).map_err(|wrong| wrong.in_(&here))?;
        if first
            && matches!(
                filter,
                Filter::RequestRedirect(_) | Filter::DirectResponse(_)
            )
        {
            return Err(wrong(here, "the filter before it answers already"));
        }
    }
    check_paths(route, &parts)?;
    Ok(parts)
}

pub(crate) fn few(pointer: &str, count: usize, most: usize) -> Result<(), Wrong> {
    if count > most {
        return Err(wrong(pointer, format!("{most} at most")));
    }
    Ok(())
}

fn timeouts(route: &Route) -> Result<l7::Timeouts, Wrong> {
    let most = route.timeouts.request.map_or(MAX_REQUEST, |span| span.0);
    for (field, span, most, title) in [
        (
            "request",
            route.timeouts.request,
            MAX_REQUEST,
            "more than 0, 1h at most",
        ),
        (
            "backendRequest",
            route.timeouts.backend_request,
            most,
            "more than 0, at most `request` and 1h",
        ),
    ] {
        if span.is_some_and(|span| span.0.is_zero() || span.0 > most) {
            return Err(wrong(format!("/timeouts/{field}"), title));
        }
    }
    Ok(l7::Timeouts {
        request: route.timeouts.request.map(|span| span.0),
        backend_request: route.timeouts.backend_request.map(|span| span.0),
    })
}

fn buffer(route: &Route) -> Result<Option<usize>, Wrong> {
    let Some(buffer) = &route.buffer else {
        return Ok(None);
    };
    let most = usize::try_from(buffer.max_bytes).unwrap_or(usize::MAX);
    if !(1..=MAX_BUFFER).contains(&most) {
        return Err(wrong("/buffer/maxBytes", "1 to 16777216"));
    }
    if route.backend_refs.is_empty() {
        return Err(wrong("/buffer", "a filter answers here: remove it"));
    }
    Ok(Some(most))
}

fn retry(route: &Route) -> Result<l7::Retry, Wrong> {
    let mut retry = l7::Retry::default();
    let Some(spec) = &route.retry else {
        return Ok(retry);
    };
    if let Some(attempts) = spec.attempts {
        if attempts > 10 {
            return Err(wrong("/attempts", "0 to 10"));
        }
        retry.tries = attempts + 1;
    }
    few("/codes", spec.codes.len(), 32)?;
    for (at, code) in spec.codes.iter().enumerate() {
        let failure = StatusCode::from_u16(*code)
            .ok()
            .filter(|_| (400..=599).contains(code));
        let here = || format!("/codes/{at}");
        retry
            .codes
            .push(failure.ok_or_else(|| wrong(here(), "400 to 599"))?);
    }
    if let Some(backoff) = spec.backoff {
        if backoff.0 > MAX_BACKOFF {
            return Err(wrong("/backoff", "10s at most"));
        }
        retry.backoff = backoff.0;
    }
    if let Some(hedge) = &spec.hedge {
        if !(MIN_HEDGE..=MAX_BACKOFF).contains(&hedge.after.0) {
            return Err(wrong("/hedge/after", "1ms to 10s"));
        }
        retry.hedge = Some(hedge.after.0);
    }
    Ok(retry)
}

fn matches(one: &RouteMatch) -> Result<l7::Match, Wrong> {
    Ok(l7::Match {
        path: match &one.path {
            Some(one) => path(one).map_err(|wrong| wrong.in_("/path"))?,
            None => l7::Match::default().path,
        },
        method: one.method.map(|one| method("/method", one)).transpose()?,
        headers: header_matches(&one.headers)?,
        query: query_matches(&one.query_params)?,
    })
}

pub(crate) fn path(path: &PathMatch) -> Result<l7::PathMatch, Wrong> {
    let here = "/value";
    let value = &path.value;
    let normal = l7::normal_path(value).is_some_and(|normal| normal == value.as_str());
    if path.kind != PathMatchType::RegularExpression && !value.starts_with('/') {
        return Err(wrong(here, "begins with '/'"));
    }
    if value.len() > MAX_TEXT {
        return Err(wrong(here, "1,024 octets at most"));
    }
    if path.kind != PathMatchType::RegularExpression && !normal {
        let title = "no request has such a path: write it without '.' and '..' segments, '//', \
                     '\\' and needless '%XX'";
        return Err(wrong(here, title));
    }
    Ok(match path.kind {
        PathMatchType::Exact => l7::PathMatch::Exact(value.clone()),
        PathMatchType::PathPrefix => l7::PathMatch::Prefix(value.clone()),
        PathMatchType::RegularExpression => l7::PathMatch::Regex(pattern(here, value)?),
    })
}

pub(crate) fn method(here: &str, method: HttpMethod) -> Result<Method, Wrong> {
    let method = Method::from_bytes(method.as_str().as_bytes());
    method.map_err(|error| wrong(here, error.to_string()))
}

pub(crate) fn header_matches(headers: &[ValueMatch]) -> Result<Vec<l7::HeaderMatch>, Wrong> {
    few("/headers", headers.len(), 16)?;
    let mut out = Vec::new();
    for (at, header) in headers.iter().enumerate() {
        let here = format!("/headers/{at}");
        let name = HeaderName::from_bytes(header.name.as_bytes());
        if header.kind == ValueMatchType::Exact {
            header_value(&format!("{here}/value"), &header.value)?;
        }
        out.push(l7::HeaderMatch {
            name: name.map_err(|_| wrong(format!("{here}/name"), "not a header's name"))?,
            value: value(&here, header.kind, &header.value)?,
        });
    }
    Ok(out)
}

pub(crate) fn query_matches(params: &[ValueMatch]) -> Result<Vec<l7::QueryMatch>, Wrong> {
    few("/queryParams", params.len(), 16)?;
    let mut out = Vec::new();
    for (at, param) in params.iter().enumerate() {
        let here = format!("/queryParams/{at}");
        if !(1..=256).contains(&param.name.len()) {
            return Err(wrong(format!("{here}/name"), "1 to 256 octets"));
        }
        out.push(l7::QueryMatch {
            name: param.name.clone(),
            value: value(&here, param.kind, &param.value)?,
        });
    }
    Ok(out)
}

pub(crate) fn value(here: &str, kind: ValueMatchType, text: &str) -> Result<l7::ValueMatch, Wrong> {
    let here = format!("{here}/value");
    if text.len() > MAX_TEXT {
        return Err(wrong(here, "1,024 octets at most"));
    }
    match kind {
        ValueMatchType::Exact => Ok(l7::ValueMatch::Exact(text.as_bytes().to_vec())),
        ValueMatchType::RegularExpression => Ok(l7::ValueMatch::Regex(pattern(&here, text)?)),
    }
}

fn pattern(here: &str, text: &str) -> Result<l7::Pattern, Wrong> {
    l7::Pattern::new(text).map_err(|error| wrong(here, error.to_string()))
}

fn read_filter(filter: &Filter, parts: &mut Parts) -> Result<(), Wrong> {
    let filters = &mut parts.filters;
    match filter {
        Filter::RequestHeaderModifier(modifier) => {
            filters.request = edits(modifier).map_err(|w| w.in_("/requestHeaderModifier"))?;
        }
        Filter::ResponseHeaderModifier(modifier) => {
            filters.response = edits(modifier).map_err(|w| w.in_("/responseHeaderModifier"))?;
        }
        Filter::RequestRedirect(redirect) => {
            let read = redirected(redirect).map_err(|w| w.in_("/requestRedirect"))?;
            parts.answer = Some(l7::Action::Redirect(read));
        }
        Filter::UrlRewrite(rewrite) => {
            let host = rewrite.hostname.as_deref();
            let read = host.map(|host| hostname("/hostname", host)).transpose();
            let path = rewrite.path.as_ref().map(new_path).transpose();
            let (host, path) = read
                .and_then(|host| Ok((host, path?)))
                .map_err(|w| w.in_("/urlRewrite"))?;
            filters.rewrite = l7::Rewrite { host, path };
        }
        Filter::RequestMirror(mirror) => {
            percent("/requestMirror/percent", mirror.percent)?;
        }
        Filter::Cors(read) => {
            filters.cors = Some(cors(read).map_err(|w| w.in_("/cors"))?);
        }
        Filter::DirectResponse(direct) => {
            let read = direct_response(direct).map_err(|w| w.in_("/directResponse"))?;
            parts.answer = Some(l7::Action::Respond(read));
        }
        Filter::Fault(fault) => {
            if let Some(delay) = &fault.delay {
                if delay.duration.0 > MAX_DELAY {
                    return Err(wrong("/fault/delay/duration", "1m at most"));
                }
                filters.delay = Some(l7::Delay {
                    duration: delay.duration.0,
                    percent: percent("/fault/delay/percent", delay.percent)?,
                });
            }
            if let Some(abort) = &fault.abort {
                filters.abort = Some(l7::Abort {
                    status: status("/fault/abort/status", abort.status)?,
                    percent: percent("/fault/abort/percent", abort.percent)?,
                });
            }
        }
    }
    Ok(())
}

fn edits(modifier: &HeaderModifier) -> Result<l7::HeaderEdits, Wrong> {
    let mut edits = l7::HeaderEdits::default();
    let named = |here: &str, name: &str| {
        let here = format!("{here}/name");
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_| wrong(&*here, "not a header's name"))?;
        if !l7::HeaderEdits::may_name(&name) {
            let title = format!("{name} frames or routes a message: it cannot be edited");
            return Err(wrong(here, title));
        }
        Ok(name)
    };
    let lists = [("/set", &modifier.set), ("/add", &modifier.add)];
    for (list, headers) in lists {
        few(list, headers.len(), 32)?;
        for (at, header) in headers.iter().enumerate() {
            let here = format!("{list}/{at}");
            let name = named(&here, &header.name)?;
            let value = header_value(&format!("{here}/value"), &header.value)?;
            if list == "/set" {
                edits.set(name, value);
            } else {
                edits.add(name, value);
            }
        }
    }
    few("/remove", modifier.remove.len(), 32)?;
    for (at, name) in modifier.remove.iter().enumerate() {
        let name = named(&format!("/remove/{at}"), name);
        edits.remove(name.map_err(|w| wrong(format!("/remove/{at}"), w.title))?);
    }
    Ok(edits)
}

fn header_value(here: &str, text: &str) -> Result<HeaderValue, Wrong> {
    let value = HeaderValue::from_str(text).ok();
    let value = value.filter(|value| value.len() <= 4096);
    value.ok_or_else(|| wrong(here, "a header's value, 4,096 octets at most"))
}

fn redirected(redirect: &api::RequestRedirect) -> Result<l7::Redirect, Wrong> {
    let code = redirect.status_code.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&code) {
        return Err(wrong("/statusCode", "301, 302, 303, 307 or 308"));
    }
    if redirect.port == Some(0) {
        return Err(wrong("/port", "1 to 65535"));
    }
    let host = redirect.hostname.as_deref();
    Ok(l7::Redirect {
        tls: redirect.scheme.map(|scheme| scheme == api::Scheme::Https),
        host: host.map(|host| hostname("/hostname", host)).transpose()?,
        path: redirect.path.as_ref().map(new_path).transpose()?,
        port: redirect.port,
        status: status("/statusCode", code)?,
    })
}

/// A host with or without a port.
fn hostname(here: &str, text: &str) -> Result<String, Wrong> {
    let good = l7::host_of(text).is_some_and(|host| !host.starts_with('*'));
    if good && HeaderValue::from_str(text).is_ok() {
        return Ok(text.to_ascii_lowercase());
    }
    Err(wrong(here, "a host name"))
}

fn new_path(modifier: &PathModifier) -> Result<NewPath, Wrong> {
    let (field, text) = match modifier {
        PathModifier::ReplaceFullPath { replace_full_path } => {
            ("replaceFullPath", replace_full_path)
        }
        PathModifier::ReplacePrefixMatch {
            replace_prefix_match,
        } => ("replacePrefixMatch", replace_prefix_match),
    };
    let whole = matches!(modifier, PathModifier::ReplaceFullPath { .. });
    let empty = text.is_empty() && !whole;
    let path = text.parse::<PathAndQuery>();
    let path = path.is_ok_and(|path| path.query().is_none() && text.starts_with('/'));
    if !(empty || path) || text.len() > MAX_TEXT {
        let title = "a path that begins with '/', without a query, 1,024 octets at most";
        return Err(wrong(format!("/path/{field}"), title));
    }
    Ok(match modifier {
        PathModifier::ReplaceFullPath { .. } => NewPath::Full(text.clone()),
        PathModifier::ReplacePrefixMatch { .. } => NewPath::Prefix(text.clone()),
    })
}

fn percent(here: &str, percent: Option<u8>) -> Result<Percent, Wrong> {
    match percent.unwrap_or(100) {
        percent @ 0..=100 => Ok(Percent(percent)),
        _ => Err(wrong(here, "0 to 100")),
    }
}

fn status(here: &str, code: u16) -> Result<StatusCode, Wrong> {
    let status = StatusCode::from_u16(code).ok();
    let status = status.filter(|status| (200..=599).contains(&status.as_u16()));
    status.ok_or_else(|| wrong(here, "a final status: 200 to 599"))
}

fn direct_response(direct: &api::DirectResponse) -> Result<l7::DirectResponse, Wrong> {
    let body = direct.body.clone().unwrap_or_default();
    if body.len() > MAX_BODY {
        return Err(wrong("/body", "16 KiB at most"));
    }
    let status = status("/status", direct.status)?;
    let never = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if never.contains(&status) && !body.is_empty() {
        return Err(wrong("/body", format!("an answer of {status} has none")));
    }
    let content_type = direct.content_type.as_deref().unwrap_or(PLAIN_TEXT);
    Ok(l7::DirectResponse {
        status,
        content_type: header_value("/contentType", content_type)?,
        body: Bytes::from(body),
    })
}

fn cors(cors: &api::Cors) -> Result<l7::Cors, Wrong> {
    if cors.allow_origins.is_empty() {
        return Err(wrong("/allowOrigins", "name at least one, or `*`"));
    }
    few("/allowOrigins", cors.allow_origins.len(), 64)?;
    let mut origins = Vec::new();
    for (at, origin) in cors.allow_origins.iter().enumerate() {
        let origin = l7::Origin::new(origin);
        let here = || format!("/allowOrigins/{at}");
        origins.push(origin.map_err(|error| wrong(here(), error.to_string()))?);
    }
    let list = |here: &str, names: &[String]| -> Result<Option<HeaderValue>, Wrong> {
        few(here, names.len(), 64)?;
        // Methods and header names are both tokens; `*` is one too.
        let token = |name: &String| Method::from_bytes(name.as_bytes()).is_ok();
        if let Some(at) = names.iter().position(|name| !token(name)) {
            return Err(wrong(format!("{here}/{at}"), "not a name, and not `*`"));
        }
        let star = names.iter().any(|name| name == "*");
        let text = if star {
            "*".to_owned()
        } else {
            names.join(", ")
        };
        Ok((!names.is_empty()).then_some(header_value(here, &text)?))
    };
    Ok(l7::Cors {
        origins,
        credentials: cors.allow_credentials,
        methods: list("/allowMethods", &cors.allow_methods)?,
        headers: list("/allowHeaders", &cors.allow_headers)?,
        expose: list("/exposeHeaders", &cors.expose_headers)?,
        max_age: cors.max_age.map(HeaderValue::from),
    })
}

/// What only some of the route's matches allow, and what a route needs to have.
fn check_paths(route: &Route, parts: &Parts) -> Result<(), Wrong> {
    let of_prefix = |path: &Option<NewPath>| matches!(path, Some(NewPath::Prefix(_)));
    let redirect = match &parts.answer {
        Some(l7::Action::Redirect(redirect)) => Some(redirect),
        Some(l7::Action::Forward(_) | l7::Action::Respond(_)) | None => None,
    };
    let replaces = of_prefix(&parts.filters.rewrite.path)
        || redirect.is_some_and(|redirect| of_prefix(&redirect.path));
    let prefixes = |m: &l7::Match| matches!(m.path, l7::PathMatch::Prefix(_));
    if replaces && !parts.matches.iter().all(prefixes) {
        let title = "ReplacePrefixMatch goes only with matches of type PathPrefix";
        return Err(wrong("/filters", title));
    }
    match (&parts.answer, route.backend_refs.is_empty()) {
        (Some(_), false) => {
            let title = "a filter of this route answers: nothing would get here";
            Err(wrong("/backendRefs", title))
        }
        (None, true) => {
            let title = "name a Service, or answer with a filter (RequestRedirect, DirectResponse)";
            Err(wrong("/backendRefs", title))
        }
        (Some(_), true) | (None, false) => Ok(()),
    }
}
