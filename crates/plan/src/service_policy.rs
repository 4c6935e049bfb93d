//! A policy as its user wrote it, as `l7` runs it.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    JwtPresence, Object, PathMatchType, PolicyAction, PolicyAlgorithm, PolicyEffect, PolicyRequest,
    PolicyRule, RateLimit, RateLimitKey, ServicePolicySpec, ValueMatch, ValueMatchType,
};
use base::{Name, QualifiedService};
use http::{HeaderName, StatusCode};
use l7::{
    jwt::ClaimMatch,
    policy::{Algorithm, Policy, Prefix, PrefixSet, Rate, RateKey, Rule, RuleAction, When},
};

use crate::{
    route::{Wrong, few, header_matches, method, path, query_matches, value, wrong},
    world::scope,
};

/// The most rules of a policy, and entries of a list.
const MAX_ENTRIES: usize = 256;
/// The most regular expressions of a policy: each may take 64 KiB.
const MAX_PATTERNS: usize = 64;

/// Read a policy.
pub(crate) fn policy(object: &Object, spec: &ServicePolicySpec) -> Result<Policy, Wrong> {
    let Some((tenant, namespace)) = scope(object) else {
        return Err(wrong("/metadata/namespace", "has no namespace"));
    };
    let here = "/spec/rules";
    if spec.rules.is_empty() {
        return Err(wrong(here, "no rule at all: it would never decide"));
    }
    few(here, spec.rules.len(), MAX_ENTRIES)?;
    if spec.rules.iter().map(patterns).sum::<usize>() > MAX_PATTERNS {
        let title = "64 regular expressions at most, all rules together";
        return Err(wrong(here, title));
    }
    let mut names = BTreeMap::new();
    let mut rules = Vec::new();
    for (at, one) in spec.rules.iter().enumerate() {
        let here = format!("{here}/{at}");
        if let Some(first) = names.insert(&one.name, at) {
            let title = format!("rule {first} has this name already");
            return Err(wrong(here + "/name", title));
        }
        rules.push(rule(tenant, namespace, one).map_err(|wrong| wrong.in_(&here))?);
    }
    let algorithm = match spec.algorithm {
        PolicyAlgorithm::FirstMatch => Algorithm::FirstMatch,
        PolicyAlgorithm::DenyOverrides => Algorithm::DenyOverrides,
        PolicyAlgorithm::AllowOverrides => Algorithm::AllowOverrides,
    };
    let shadow = spec.effect == PolicyEffect::Shadow;
    let name = format!("{namespace}/{}", object.metadata.name);
    let tenant = tenant.as_str();
    Ok(Policy::build(tenant, name, shadow, algorithm, rules))
}

/// Has the policy rules that go by tokens?
pub(crate) fn wants_tokens(spec: &ServicePolicySpec) -> bool {
    spec.rules.iter().any(|rule| {
        let request = &rule.request;
        let keyed = match &rule.action {
            PolicyAction::Allow(_) | PolicyAction::Deny(_) => false,
            PolicyAction::RateLimit(limit) => keyed_by_claims(limit),
        };
        request.jwt.is_some() || !request.claims.is_empty() || keyed
    })
}

/// Does the limit go by tokens?
pub(crate) fn keyed_by_claims(limit: &RateLimit) -> bool {
    let mut keys = limit.key.iter();
    keys.any(|key| matches!(key, RateLimitKey::Claim(_)))
}

/// The limit of a load balancer, as a policy of its name.
pub(crate) fn rate_limited(object: &Object, limit: &RateLimit) -> Result<Policy, Wrong> {
    let Some((tenant, namespace)) = scope(object) else {
        return Err(wrong("/metadata/namespace", "has no namespace"));
    };
    let rate = rate(limit).map_err(|wrong| wrong.in_("/spec/rateLimit"))?;
    let rule = Rule {
        // No rule of a policy has such a name.
        name: "rateLimit".to_owned(),
        when: When::default(),
        action: RuleAction::Limit(Box::new(rate)),
        expires_at: None,
    };
    let name = format!("{namespace}/{}", object.metadata.name);
    let (tenant, first) = (tenant.as_str(), Algorithm::FirstMatch);
    Ok(Policy::build(tenant, name, false, first, vec![rule]))
}

fn rate(limit: &RateLimit) -> Result<Rate, Wrong> {
    let most = 1_000_000;
    let burst = limit.burst.unwrap_or(limit.requests);
    for (field, number) in [("/requests", limit.requests), ("/burst", burst)] {
        if !(1..=most).contains(&number) {
            return Err(wrong(field, "1 to 1,000,000"));
        }
    }
    let per = limit.per.0;
    if !(1..=86_400).contains(&per.as_secs()) || per.subsec_nanos() > 0 {
        return Err(wrong("/per", "whole seconds, 1s to 24h"));
    }
    few("/key", limit.key.len(), 8)?;
    let keys = limit.key.iter().enumerate().map(|(at, key)| match key {
        RateLimitKey::SourceAddress(_) => Ok(RateKey::Source),
        RateLimitKey::Claim(name) if (1..=256).contains(&name.len()) => {
            Ok(RateKey::Claim(name.clone()))
        }
        RateLimitKey::Claim(_) => Err(wrong(format!("/key/{at}/claim"), "1 to 256 octets")),
        RateLimitKey::Header(name) => {
            let name = HeaderName::from_bytes(name.as_bytes());
            let here = || format!("/key/{at}/header");
            let name = name.map_err(|_| wrong(here(), "not a header's name"))?;
            Ok(RateKey::Header(name))
        }
    });
    Ok(Rate {
        requests: limit.requests,
        per,
        burst,
        key: keys.collect::<Result<_, _>>()?,
    })
}

/// How many regular expressions a rule has.
fn patterns(rule: &PolicyRule) -> usize {
    let request = &rule.request;
    let regular = |one: &&ValueMatch| one.kind == ValueMatchType::RegularExpression;
    let paths = request.paths.iter();
    let paths = paths.filter(|path| path.kind == PathMatchType::RegularExpression);
    let values = request.headers.iter().chain(&request.query_params);
    let values = values.chain(&request.claims);
    paths.count() + values.filter(regular).count()
}

fn rule(tenant: &Name, namespace: &Name, spec: &PolicyRule) -> Result<Rule, Wrong> {
    let mut when = request(&spec.request).map_err(|wrong| wrong.in_("/request"))?;
    when.prefixes = prefixes("/client/prefixes", &spec.client.prefixes)?;
    when.not_prefixes = prefixes("/client/notPrefixes", &spec.client.not_prefixes)?;
    when.certificate = crate::clients::presence(&spec.client);
    when.identities = crate::clients::names(&spec.client.identities, MAX_ENTRIES)?;
    let services = &spec.server.services;
    few("/server/services", services.len(), MAX_ENTRIES)?;
    let services = services.iter().map(|service| QualifiedService {
        tenant: tenant.clone(),
        namespace: service.namespace.as_ref().unwrap_or(namespace).clone(),
        service: service.name.clone(),
    });
    when.services = services.collect();
    let action = match &spec.action {
        PolicyAction::Allow(_) => RuleAction::Allow,
        PolicyAction::Deny(deny) => {
            let status = StatusCode::from_u16(deny.status).ok();
            let status = status.filter(|_| (400..=499).contains(&deny.status));
            let status = status.ok_or_else(|| wrong("/action/deny/status", "400 to 499"))?;
            RuleAction::Deny(status)
        }
        PolicyAction::RateLimit(limit) => {
            let rate = rate(limit).map_err(|wrong| wrong.in_("/action/rateLimit"))?;
            RuleAction::Limit(Box::new(rate))
        }
    };
    Ok(Rule {
        name: spec.name.to_string(),
        when,
        action,
        expires_at: spec.expires_at.map(|time| time.0),
    })
}

fn request(spec: &PolicyRequest) -> Result<When, Wrong> {
    few("/methods", spec.methods.len(), MAX_ENTRIES)?;
    let methods = spec.methods.iter().enumerate();
    let methods = methods.map(|(at, one)| method(&format!("/methods/{at}"), *one));
    let methods = methods.collect::<Result<_, _>>()?;
    few("/hosts", spec.hosts.len(), MAX_ENTRIES)?;
    few("/paths", spec.paths.len(), MAX_ENTRIES)?;
    let paths = spec.paths.iter().enumerate().map(|(at, one)| {
        let read = path(one);
        read.map_err(|wrong| wrong.in_(&format!("/paths/{at}")))
    });
    let paths = paths.collect::<Result<Vec<_>, _>>()?;
    let headers = header_matches(&spec.headers)?;
    if let Some(at) = headers.iter().position(|header| {
        let name = header.name.as_str();
        name.starts_with(l7::headers::INTERNAL_PREFIX)
    }) {
        let title = "headers that begin with `sealane-` never come from clients";
        return Err(wrong(format!("/headers/{at}/name"), title));
    }
    few("/claims", spec.claims.len(), 16)?;
    let claims = spec.claims.iter().enumerate().map(|(at, claim)| {
        let here = format!("/claims/{at}");
        if !(1..=256).contains(&claim.name.len()) {
            return Err(wrong(here + "/name", "1 to 256 octets"));
        }
        Ok(ClaimMatch {
            name: claim.name.clone(),
            value: value(&here, claim.kind, &claim.value)?,
        })
    });
    Ok(When {
        token: spec.jwt.map(|jwt| jwt == JwtPresence::Present),
        claims: claims.collect::<Result<_, _>>()?,
        methods,
        hosts: spec.hosts.iter().map(|host| host.as_str()).collect(),
        paths: paths.into_iter().collect(),
        headers,
        query: query_matches(&spec.query_params)?,
        ..When::default()
    })
}

fn prefixes(here: &str, texts: &[String]) -> Result<PrefixSet, Wrong> {
    few(here, texts.len(), MAX_ENTRIES)?;
    let mut seen = BTreeSet::new();
    let prefixes = texts.iter().enumerate().map(|(at, text)| {
        let here = format!("{here}/{at}");
        let shown: String = text.chars().take(80).collect();
        if !seen.insert(text) {
            return Err(wrong(here, format!("{shown} is named twice")));
        }
        let read = text.parse::<Prefix>();
        read.map_err(|error| wrong(here, format!("{shown:?} {error}")))
    });
    prefixes.collect()
}
