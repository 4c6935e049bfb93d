//! Who may pass: the rules in front of load balancers and services.
//!
//! A [`Guard`] stands in front of a load balancer, which sees requests as clients send them, or of
//! a service, which sees them as its endpoints do. It has [`Policy`]s, each of which has
//! [`Rule`]s; [`judge`] asks them in order, and the first rule that matches decides.
//!
//! What a client can write in two ways is read in both: a path with an encoded slash or with path
//! parameters, a header or a parameter that is there twice. A rule that allows holds only if every
//! reading matches, any other if one does. So no spelling turns a denial into a pass.

mod paths;
mod prefix;
mod rate;
mod rule;

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use base::{Instant, QualifiedService, WallTime};
use http::StatusCode;

use crate::{
    Identity, RequestHead, Shown,
    jwt::{Claims, Verifier},
};

pub use paths::PathSet;
pub use prefix::{Prefix, PrefixError, PrefixSet};
pub use rate::{Buckets, Rate, RateKey};
pub use rule::{Hosts, Miss, Rule, RuleAction, When};

/// Rules that belong together.
#[derive(Debug)]
pub struct Policy {
    /// `namespace/name`.
    pub name: String,
    /// Say what it would decide, and decide nothing.
    pub shadow: bool,
    rules: Vec<Rule>,
    /// Of its tenant and its name.
    id: u64,
}

/// Which of several rules that match decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// The first.
    FirstMatch,
    /// Those that deny, then those that limit, then those that allow.
    DenyOverrides,
    /// Those that allow, then those that deny, then those that limit.
    AllowOverrides,
}

impl Policy {
    /// Put the rules in the order in which they are asked, so that the first match decides
    /// whatever the algorithm.
    #[must_use]
    pub fn build(
        tenant: &str,
        name: String,
        shadow: bool,
        algorithm: Algorithm,
        mut rules: Vec<Rule>,
    ) -> Self {
        rules.sort_by_key(|rule| match (algorithm, &rule.action) {
            (Algorithm::FirstMatch, _) => 0,
            (Algorithm::DenyOverrides, RuleAction::Deny(_))
            | (Algorithm::AllowOverrides, RuleAction::Allow) => 0,
            (Algorithm::DenyOverrides, RuleAction::Limit(_))
            | (Algorithm::AllowOverrides, RuleAction::Deny(_)) => 1,
            (Algorithm::DenyOverrides, RuleAction::Allow)
            | (Algorithm::AllowOverrides, RuleAction::Limit(_)) => 2,
        });
        Policy {
            id: balance::stable_hash(format!("{tenant}/{name}").as_bytes()),
            name,
            shadow,
            rules,
        }
    }

    /// The first rule that matches and has something to say.
    fn decide(
        &self,
        subject: &Subject<'_>,
        now: WallTime,
        meter: &Meter<'_>,
    ) -> Option<(&Rule, Verdict)> {
        let mut rules = self.rules.iter();
        rules.find_map(|rule| {
            rule.check(subject, now).ok()?;
            let verdict = match &rule.action {
                RuleAction::Allow => Verdict::Allow,
                RuleAction::Deny(status) => Verdict::Deny(*status),
                RuleAction::Limit(rate) => Verdict::Limit(meter.over(self, rule, rate, subject)?),
            };
            Some((rule, verdict))
        })
    }

    /// The rules in the order in which they are asked.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// What becomes of a request that no rule decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Undecided {
    /// It passes.
    #[default]
    Allow,
    /// It is denied.
    Deny,
    /// It is denied if it comes through a load balancer of another namespace than the service's.
    DenyForeign,
}

/// The policies in front of a load balancer or a service. The default lets everything pass.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    /// In the order in which they are asked.
    pub policies: Vec<Arc<Policy>>,
    /// What becomes of a request that none of them decides.
    pub undecided: Undecided,
    /// Whose tokens are believed, before any policy is asked.
    pub tokens: Option<Arc<Verifier>>,
}

impl Guard {
    /// Does everything pass, whatever it is?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.policies.is_empty() && self.undecided == Undecided::Allow && self.tokens.is_none()
    }
}

/// What is judged.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    head: &'a RequestHead<'a>,
    /// The load balancer it came through, `namespace/name`.
    lb: &'a str,
    client: Option<IpAddr>,
    identity: Shown<&'a Identity>,
    service: Option<&'a QualifiedService>,
    /// What its token says, verified.
    claims: Option<&'a Claims>,
    reading: paths::Reading,
}

impl<'a> Subject<'a> {
    /// A request that came through load balancer `lb` (`namespace/name`): its head, normalised;
    /// the address of its client, if that is known; the service to which it goes, if it goes to
    /// one.
    #[must_use]
    pub fn new(
        head: &'a RequestHead<'a>,
        lb: &'a str,
        client: Option<IpAddr>,
        service: Option<&'a QualifiedService>,
    ) -> Self {
        Subject {
            head,
            lb,
            client: client.map(|client| client.to_canonical()),
            identity: Shown::Nothing,
            service,
            claims: None,
            reading: paths::Reading::of(head.path),
        }
    }

    /// The service to which it goes.
    #[must_use]
    pub fn service(&self) -> Option<&'a QualifiedService> {
        self.service
    }

    /// The same request, with what its token says.
    #[must_use]
    pub fn with_claims(self, claims: Option<&'a Claims>) -> Self {
        Subject { claims, ..self }
    }

    /// The same request, of a client of whom this is known.
    #[must_use]
    pub fn with_identity(self, identity: Shown<&'a Identity>) -> Self {
        Subject { identity, ..self }
    }

    fn is_foreign(&self) -> bool {
        let namespace = self.lb.split_once('/').map(|(namespace, _)| namespace);
        self.service
            .is_none_or(|service| namespace != Some(service.namespace.as_str()))
    }
}

/// What counts requests.
#[derive(Clone, Copy, Debug)]
pub struct Meter<'b> {
    /// The buckets of this process; without any nothing is counted, and nothing is too much.
    pub buckets: Option<&'b Buckets>,
    /// Now.
    pub now: Instant,
}

impl Meter<'_> {
    /// Count a request; if that is too much, how long until it would not be.
    fn over(
        &self,
        policy: &Policy,
        rule: &Rule,
        rate: &Rate,
        subject: &Subject<'_>,
    ) -> Option<Duration> {
        let buckets = self.buckets?;
        let mut hasher = buckets.hasher();
        (policy.id, &rule.name).hash(&mut hasher);
        rate.hash(subject, &mut hasher);
        buckets.take(hasher.finish(), rate, self.now).err()
    }
}

/// A rule that decided.
#[derive(Clone, Copy, Debug)]
pub struct Decided<'g> {
    /// Whose rule it is.
    pub policy: &'g Policy,
    /// The rule.
    pub rule: &'g Rule,
}

impl fmt::Display for Decided<'_> {
    /// `namespace/policy/rule`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.policy.name, self.rule.name)
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow,
    /// It is answered with this.
    Deny(StatusCode),
    /// It is one too many; after this time it would not be.
    Limit(Duration),
}

/// A verdict, and who gave it.
#[derive(Clone, Debug)]
pub struct Judgement<'g> {
    /// What becomes of the request.
    pub verdict: Verdict,
    /// The rule that decided so; `None`: none did.
    pub by: Option<Decided<'g>>,
    /// What rules of shadow policies would have decided.
    pub shadow: Vec<Decided<'g>>,
}

/// May this request pass? Policies are asked in order, in each of them the first rule that
/// matches decides (one that limits only if it is over its limit), and what no rule decides goes
/// by [`Guard::undecided`].
#[must_use]
pub fn judge<'g>(
    guard: &'g Guard,
    subject: &Subject<'_>,
    now: WallTime,
    meter: &Meter<'_>,
) -> Judgement<'g> {
    let mut judgement = Judgement {
        verdict: Verdict::Allow,
        by: None,
        shadow: Vec::new(),
    };
    for policy in &guard.policies {
        let Some((rule, verdict)) = policy.decide(subject, now, meter) else {
            continue;
        };
        let decided = Decided { policy, rule };
        if policy.shadow {
            judgement.shadow.push(decided);
            continue;
        }
        judgement.by = Some(decided);
        judgement.verdict = verdict;
        return judgement;
    }
    let denied = match guard.undecided {
        Undecided::Allow => false,
        Undecided::Deny => true,
        Undecided::DenyForeign => subject.is_foreign(),
    };
    if denied {
        judgement.verdict = Verdict::Deny(StatusCode::FORBIDDEN);
    }
    judgement
}

#[cfg(test)]
mod tests;
