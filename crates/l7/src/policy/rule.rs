//! One rule: when it matches, and what it says then.

use std::{collections::BTreeSet, net::IpAddr};

use base::{QualifiedService, WallTime};
use http::{Method, StatusCode};

use super::{PathSet, PrefixSet, Rate, Subject, paths::Reading};
use crate::{
    HeaderMatch, Identity, NameMatch, QueryMatch, Shown, ValueMatch, jwt::ClaimMatch,
    query::parameters,
};

/// What a rule that matches does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleAction {
    /// The request passes.
    Allow,
    /// The request is answered with this.
    Deny(StatusCode),
    /// The request is answered with 429 if it is one too many; else the next rule is asked.
    Limit(Box<Rate>),
}

impl RuleAction {
    /// Its word in metrics and records.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            RuleAction::Allow => "allow",
            RuleAction::Deny(_) => "deny",
            RuleAction::Limit(_) => "rateLimit",
        }
    }
}

/// One rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Its name inside its policy.
    pub name: String,
    /// When it matches.
    pub when: When,
    /// What it does then.
    pub action: RuleAction,
    /// From then on it does not match.
    pub expires_at: Option<WallTime>,
}

/// Everything has to hold; what is empty always does.
#[derive(Clone, Debug, Default)]
pub struct When {
    /// The client's address is one of these …
    pub prefixes: PrefixSet,
    /// … and none of these.
    pub not_prefixes: PrefixSet,
    /// It has shown a certificate that was verified, or has shown none.
    pub certificate: Option<bool>,
    /// Its certificate has one of these names.
    pub identities: Vec<NameMatch>,
    /// It goes to one of these services.
    pub services: BTreeSet<QualifiedService>,
    /// It has one of these methods.
    pub methods: Vec<Method>,
    /// It asks for one of these hosts.
    pub hosts: Hosts,
    /// It asks for one of these paths.
    pub paths: PathSet,
    /// It has all of these headers.
    pub headers: Vec<HeaderMatch>,
    /// It has all of these parameters.
    pub query: Vec<QueryMatch>,
    /// It has a token, or has none.
    pub token: Option<bool>,
    /// Its token has all of these claims.
    pub claims: Vec<ClaimMatch>,
}

/// Hosts, some of them with all below.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts {
    exact: BTreeSet<String>,
    /// Without `*.`.
    below: BTreeSet<String>,
}

impl Hosts {
    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// Is the host, normalised, in it?
    #[must_use]
    pub fn contains(&self, host: &str) -> bool {
        let suffix = |(at, _): (usize, &str)| host.get(at + 1..);
        let mut suffixes = host.match_indices('.').filter_map(suffix);
        self.exact.contains(host)
            || (!self.below.is_empty() && suffixes.any(|suffix| self.below.contains(suffix)))
    }
}

impl<'h> FromIterator<&'h str> for Hosts {
    /// Hosts in lower case, or `*.` and a host: everything below it.
    fn from_iter<I: IntoIterator<Item = &'h str>>(iter: I) -> Self {
        let mut hosts = Hosts::default();
        for host in iter {
            match host.strip_prefix("*.") {
                Some(suffix) => hosts.below.insert(suffix.to_owned()),
                None => hosts.exact.insert(host.to_owned()),
            };
        }
        hosts
    }
}

/// Why a rule does not match: the first of its parts that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Miss {
    /// Its time is over.
    #[error("the rule has expired")]
    Expired,
    /// The client is another.
    #[error("the client's address is another")]
    Client,
    /// The client has no certificate, or has one.
    #[error("there is no client certificate, or there is one")]
    Certificate,
    /// The client's certificate has none of the names.
    #[error("the client's identity is another")]
    Identity,
    /// The service is another.
    #[error("the service is another")]
    Service,
    /// The method is another.
    #[error("the method is another")]
    Method,
    /// The host is another.
    #[error("the host is another")]
    Host,
    /// The path is another.
    #[error("the path is another")]
    Path,
    /// This header, counted from 0, is missing or another.
    #[error("header {0} is missing or another")]
    Header(usize),
    /// This parameter, counted from 0, is missing or another.
    #[error("parameter {0} is missing or another")]
    Query(usize),
    /// It has no token, or has one.
    #[error("there is no token, or there is one")]
    Token,
    /// This claim, counted from 0, is missing or another.
    #[error("claim {0} is missing or another")]
    Claim(usize),
}

impl Rule {
    /// Does it match?
    ///
    /// # Errors
    /// The first of its parts that does not hold.
    pub fn check(&self, subject: &Subject<'_>, now: WallTime) -> Result<(), Miss> {
        let hold = |holds: bool, miss: Miss| if holds { Ok(()) } else { Err(miss) };
        let (when, head) = (&self.when, subject.head);
        hold(self.expires_at.is_none_or(|end| now < end), Miss::Expired)?;
        hold(self.is_client(subject.client), Miss::Client)?;
        hold(self.is_shown(subject.identity), Miss::Certificate)?;
        hold(self.is_identity(subject.identity), Miss::Identity)?;
        let service = subject.service;
        hold(
            when.services.is_empty() || service.is_some_and(|s| when.services.contains(s)),
            Miss::Service,
        )?;
        hold(
            when.methods.is_empty() || when.methods.contains(head.method),
            Miss::Method,
        )?;
        hold(
            when.hosts.is_empty() || when.hosts.contains(head.host),
            Miss::Host,
        )?;
        hold(self.is_path(subject), Miss::Path)?;
        for (at, header) in when.headers.iter().enumerate() {
            let lines = head.fields.get_all(&header.name);
            hold(self.holds(&header.value, lines), Miss::Header(at))?;
        }
        for (at, param) in when.query.iter().enumerate() {
            let values: Vec<_> = parameters(head.query, &param.name).collect();
            let values = values.iter().map(|value| value.as_bytes());
            hold(self.holds(&param.value, values), Miss::Query(at))?;
        }
        let claims = subject.claims;
        let token = when.token.is_none_or(|wanted| wanted == claims.is_some());
        hold(token, Miss::Token)?;
        for (at, claim) in when.claims.iter().enumerate() {
            let holds = claims.is_some_and(|claims| claim.holds(claims));
            hold(holds, Miss::Claim(at))?;
        }
        Ok(())
    }

    /// Has every reading to match?
    fn is_careful(&self) -> bool {
        match self.action {
            RuleAction::Allow => true,
            RuleAction::Deny(_) | RuleAction::Limit(_) => false,
        }
    }

    /// A client of whom nothing is known is nobody who is allowed, and anybody else.
    fn is_client(&self, client: Option<IpAddr>) -> bool {
        let (those, not) = (&self.when.prefixes, &self.when.not_prefixes);
        if those.is_empty() && not.is_empty() {
            return true;
        }
        client.map_or(!self.is_careful(), |client| {
            (those.is_empty() || those.contains(client)) && !not.contains(client)
        })
    }

    fn is_shown(&self, shown: Shown<&Identity>) -> bool {
        self.when.certificate.is_none_or(|wanted| match shown {
            Shown::Nothing => !wanted,
            Shown::Identity(_) => wanted,
            Shown::Unknown => !self.is_careful(),
        })
    }

    fn is_identity(&self, shown: Shown<&Identity>) -> bool {
        let names = &self.when.identities;
        names.is_empty()
            || match shown {
                Shown::Nothing => false,
                Shown::Identity(identity) => names.iter().any(|name| identity.has(name)),
                Shown::Unknown => !self.is_careful(),
            }
    }

    fn is_path(&self, subject: &Subject<'_>) -> bool {
        let paths = &self.when.paths;
        if paths.is_empty() {
            return true;
        }
        let here = paths.contains(subject.head.path);
        let there = match &subject.reading {
            Reading::Same => here,
            Reading::Other(path) => paths.contains(path),
            Reading::Outside => !self.is_careful(),
        };
        self.both(here, there)
    }

    /// Several values of one name: servers take the first, the last or all.
    fn holds<'v>(&self, wanted: &ValueMatch, mut values: impl Iterator<Item = &'v [u8]>) -> bool {
        let Some(first) = values.next() else {
            return false;
        };
        values.fold(wanted.holds(first), |so_far, value| {
            self.both(so_far, wanted.holds(value))
        })
    }

    fn both(&self, one: bool, other: bool) -> bool {
        if self.is_careful() {
            one && other
        } else {
            one || other
        }
    }
}
