//! Policies on the way of a request: at the ingress, and again where it leaves a tunnel.

use std::{
    borrow::Cow,
    cell::RefCell,
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use base::{QualifiedService, WallTime};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use l7::{
    Admitted, Cluster, Decision, Fault, Fields, Forward, Identity, Known, RequestHead, Shown,
    VirtualHost, headers, host_of,
    jwt::{Claims, TokenError},
    normal_path,
    policy::{Decided, Guard, Judgement, Meter, RuleAction, Subject, Verdict, judge},
};
use runtime::metrics::{Counter, Family, Metrics};

use crate::{
    answer::Answer, downstream::Request, exchange::Story, http1::ResponseHead, mirror::Mirror,
    upstream::UpConn, worker::Worker,
};

/// The codes of what policies refuse.
pub(crate) const DENIED: &str = "denied";
const LIMITED: &str = "rate-limited";
const BAD_TOKEN: &str = "bad-token";
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// Rules counted apart in a process; those beyond are counted together.
const MAX_SERIES: usize = 10_000;
/// Counters a worker has at hand; it begins anew when there are more.
const MAX_KNOWN: usize = 4096;

/// A request as a policy sees it.
pub(crate) struct Asked<'a> {
    /// `namespace/name`.
    pub(crate) lb: &'a str,
    pub(crate) client: Option<IpAddr>,
    pub(crate) identity: Shown<&'a Identity>,
    pub(crate) method: &'a Method,
    pub(crate) authority: &'a str,
    /// Made normal.
    pub(crate) path: &'a str,
    pub(crate) query: Option<&'a str>,
    pub(crate) fields: &'a Fields,
    pub(crate) now: WallTime,
}

/// A request as its service is to get it.
pub(crate) struct Sent<'a> {
    pub(crate) to: Forward<'a>,
    pub(crate) client: IpAddr,
    pub(crate) identity: Option<&'a Identity>,
    pub(crate) method: &'a Method,
    pub(crate) authority: &'a str,
    pub(crate) target: &'a str,
    pub(crate) fields: &'a Fields,
    pub(crate) now: WallTime,
}

impl Sent<'_> {
    /// As the policies of its service see it.
    fn asked<'a>(&'a self, path: &'a str, query: Option<&'a str>) -> Asked<'a> {
        Asked {
            lb: &self.to.host.lb_name,
            client: Some(self.client),
            identity: Shown::here(self.identity),
            method: self.method,
            authority: self.authority,
            path,
            query,
            fields: self.fields,
            now: self.now,
        }
    }
}

/// What the front of a load balancer says of a request.
#[derive(Default)]
pub(crate) struct Front {
    /// The answer, if it may not pass.
    pub(crate) reply: Option<Answer>,
    /// The header with its token, if the service is not to get that.
    pub(crate) hide: Option<HeaderName>,
    /// What its token says.
    pub(crate) claims: Option<Arc<Claims>>,
}

/// Look at the token of a request, and ask the policies of its load balancer. A preflight (Fetch
/// standard §3.3) is asked without what would let a request pass, and tells nothing but who may
/// ask: it always passes.
pub(crate) fn front(
    worker: &Worker,
    host: &VirtualHost,
    decision: &Decision<'_>,
    asked: &Asked<'_>,
    story: &mut Story,
) -> Front {
    let service = match decision {
        Decision::Forward(to) => Some(&to.cluster.service),
        Decision::Respond(respond) if respond.code == "preflight" => return Front::default(),
        Decision::Respond(_) => None,
    };
    let (tenant, guard) = (&host.tenant_name, &host.guard);
    let mut told = None;
    if let Some(verifier) = &guard.tokens {
        let cache = &mut worker.tokens.borrow_mut();
        match verifier.read(asked.fields, asked.query, asked.now, cache) {
            Ok(read) => told = read,
            Err(error) => {
                return Front {
                    reply: Some(bad_token(error)),
                    ..Front::default()
                };
            }
        }
    }
    let claims = told.as_ref().map(|told| &*told.claims);
    let reply = ask(worker, guard, asked, service, claims, tenant, story);
    let (claims, hide) = told.map(|told| (told.claims, told.hide)).unzip();
    Front {
        reply,
        hide: hide.flatten(),
        claims,
    }
}

/// RFC 6750 §3.
fn bad_token(error: TokenError) -> Answer {
    let status = StatusCode::UNAUTHORIZED;
    let reason = "the token of this request is not accepted";
    let mut answer = Answer::refusal(status, BAD_TOKEN, reason, Fault::Client);
    let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{error}\"");
    if let Ok(value) = HeaderValue::try_from(challenge) {
        answer.fields.append(&header::WWW_AUTHENTICATE, &value);
    }
    answer
}

/// Has anybody policies to whom this request goes?
pub(crate) fn needs(cluster: &Cluster, mirrors: &[Mirror]) -> bool {
    !cluster.guard.is_open() || mirrors.iter().any(|m| !m.cluster.guard.is_open())
}

/// Ask the policies of a service, and those of the services that get copies: who denies gets none.
pub(crate) fn back(
    worker: &Worker,
    sent: &Sent<'_>,
    mirrors: &mut Vec<Mirror>,
    story: &mut Story,
) -> Option<Answer> {
    let (path, query) = split(sent.target);
    let path = normal_path(path);
    let asked = sent.asked(path.as_deref().unwrap_or_default(), query);
    let tenant = &sent.to.host.tenant_name;
    let passes = |cluster: &Cluster, story: &mut Story| {
        if cluster.guard.is_open() {
            return None;
        }
        let service = Some(&cluster.service);
        ask(worker, &cluster.guard, &asked, service, None, tenant, story)
    };
    let refused = passes(sent.to.cluster, story);
    if refused.is_none() {
        mirrors.retain(|mirror| passes(&mirror.cluster, &mut Story::default()).is_none());
    }
    refused
}

/// Ask the policies of a service about a request out of a tunnel: by this site's own
/// configuration, whatever the ingress thinks. What is judged is what is sent on.
pub(crate) fn egress(
    worker: &Worker,
    admitted: &Admitted,
    lb: &str,
    message: &mut Request,
) -> Result<(), Answer> {
    let (path, query) = split(&message.target);
    let Some(path) = normal_path(path) else {
        let reason = "the path is malformed";
        let status = StatusCode::BAD_REQUEST;
        return Err(Answer::refusal(status, "bad-path", reason, Fault::Client));
    };
    let identity = Identity::told(&message.fields);
    let asked = told(message, identity.as_ref(), lb, (&path, query));
    let (story, service) = (&mut Story::default(), &admitted.cluster.service);
    let tenant = service.tenant.as_str();
    if let Some(mut reply) = ask(
        worker,
        &admitted.cluster.guard,
        &asked,
        Some(service),
        None,
        tenant,
        story,
    ) {
        let code = reply.error.map_or("", |(code, _)| code);
        let rule = story.policy.as_deref().unwrap_or_default();
        if let Ok(value) = HeaderValue::try_from(format!("{code} {rule}")) {
            reply.fields.append(&headers::REFUSED, &value);
        }
        return Err(reply);
    }
    if let Cow::Owned(path) = path {
        message.target = match query {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
    }
    Ok(())
}

/// A request out of a tunnel, as a policy sees it.
fn told<'a>(
    message: &'a Request,
    identity: Shown<&'a Identity>,
    lb: &'a str,
    (path, query): (&'a str, Option<&'a str>),
) -> Asked<'a> {
    Asked {
        lb,
        client: headers::told_client(&message.fields),
        identity,
        method: &message.method,
        authority: &message.authority,
        path,
        query,
        fields: &message.fields,
        now: runtime::wall(),
    }
}

/// Why what a request has opened may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denial {
    /// The rule that decided so, if one did.
    pub(crate) policy: Option<String>,
}

/// Why the policies of now would not let through what has opened a connection, if so: those of its
/// load balancer, which is `host` now, or those of its service. What its token said counts for as
/// long as that lasts. Nothing is counted, so no rate is too much.
pub(crate) fn denied(
    worker: &Worker,
    host: &VirtualHost,
    asked: &Asked<'_>,
    claims: Option<&Arc<Claims>>,
    sent: &Sent<'_>,
) -> Option<Denial> {
    let service = &sent.to.cluster.service;
    // Nobody has asked for it before.
    let verifier = host.guard.tokens.as_ref().filter(|_| claims.is_none());
    let read = verifier.and_then(|verifier| {
        let cache = &mut worker.tokens.borrow_mut();
        verifier
            .read(asked.fields, asked.query, sent.now, cache)
            .ok()
    });
    let claims = claims.cloned().or(read.flatten().map(|told| told.claims));
    let front = denial(&host.guard, asked, service, claims.as_deref());
    front.or_else(|| {
        let (path, query) = split(sent.target);
        let path = normal_path(path);
        let back = Asked {
            identity: asked.identity,
            now: asked.now,
            ..sent.asked(path.as_deref().unwrap_or_default(), query)
        };
        let cluster = host.cluster(sent.to.cluster.id)?;
        denial(&cluster.guard, &back, service, None)
    })
}

/// The same where it left a tunnel, by this site's own configuration.
pub(crate) fn denied_outside(cluster: &Cluster, lb: &str, message: &Request) -> Option<Denial> {
    let (path, query) = split(&message.target);
    let Some(path) = normal_path(path) else {
        return Some(Denial { policy: None });
    };
    let identity = Identity::told(&message.fields);
    let asked = told(message, identity.as_ref(), lb, (&path, query));
    denial(&cluster.guard, &asked, &cluster.service, None)
}

fn denial(
    guard: &Guard,
    asked: &Asked<'_>,
    service: &QualifiedService,
    claims: Option<&Claims>,
) -> Option<Denial> {
    if guard.is_open() {
        return None;
    }
    let meter = Meter {
        buckets: None,
        now: runtime::now(),
    };
    let judgement = judged(guard, asked, Some(service), claims, &meter);
    let Some(judgement) = judgement else {
        return Some(Denial { policy: None });
    };
    match judgement.verdict {
        Verdict::Allow | Verdict::Limit(_) => None,
        Verdict::Deny(_) => Some(Denial {
            policy: judgement.by.map(|by| by.to_string()),
        }),
    }
}

/// Take note of a refusal at the other end of a tunnel.
pub(crate) fn hear(up: &UpConn, head: &ResponseHead, story: &mut Story) {
    if !head.fields.has(Known::Internal) || !up.via().is_tunnel() {
        return;
    }
    let value = head.fields.get(&headers::REFUSED);
    let Some(text) = value.and_then(|value| std::str::from_utf8(value).ok()) else {
        return;
    };
    let (code, rule) = text.split_once(' ').unwrap_or((text, ""));
    let code = [DENIED, LIMITED].into_iter().find(|known| *known == code);
    story.error = Some((code.unwrap_or(DENIED), Fault::Client));
    if !rule.is_empty() {
        story.policy = Some(rule.to_owned());
    }
}

fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// What a guard says; `None`: the host is malformed.
fn judged<'g>(
    guard: &'g Guard,
    asked: &Asked<'_>,
    service: Option<&QualifiedService>,
    claims: Option<&Claims>,
    meter: &Meter<'_>,
) -> Option<Judgement<'g>> {
    let host = host_of(asked.authority)?;
    let head = RequestHead {
        port: 0,
        tls: false,
        sni: None,
        trust: None,
        method: asked.method,
        host: &host,
        authority: asked.authority,
        path: asked.path,
        query: asked.query,
        fields: asked.fields,
    };
    let subject = Subject::new(&head, asked.lb, asked.client, service)
        .with_identity(asked.identity)
        .with_claims(claims);
    Some(judge(guard, &subject, asked.now, meter))
}

/// Ask a guard, count and note what it says: the answer, if the request may not pass.
fn ask(
    worker: &Worker,
    guard: &Guard,
    asked: &Asked<'_>,
    service: Option<&QualifiedService>,
    claims: Option<&Claims>,
    tenant: &str,
    story: &mut Story,
) -> Option<Answer> {
    let meter = Meter {
        buckets: Some(&worker.buckets),
        now: runtime::now(),
    };
    let Some(judgement) = judged(guard, asked, service, claims, &meter) else {
        let reason = "the host is malformed";
        let status = StatusCode::BAD_REQUEST;
        return Some(Answer::refusal(status, "bad-host", reason, Fault::Client));
    };
    let decisions = &worker.metrics.decisions;
    for decided in &judgement.shadow {
        decisions.count(tenant, asked.lb, Some(decided), "shadow");
        story.shadow.get_or_insert_with(|| {
            let action = decided.rule.action.word();
            format!("{decided} {action}")
        });
    }
    if let Some(decided) = &judgement.by {
        story.policy = Some(decided.to_string());
    }
    match judgement.verdict {
        Verdict::Allow => {
            if let Some(decided) = &judgement.by {
                decisions.count(tenant, asked.lb, Some(decided), "enforce");
            }
            None
        }
        Verdict::Deny(status) => {
            decisions.count(tenant, asked.lb, judgement.by.as_ref(), "enforce");
            let reason = "a policy does not allow this request";
            let mut answer = Answer::refusal(status, DENIED, reason, Fault::Client);
            if status == StatusCode::UNAUTHORIZED {
                // RFC 9110 §11.6.1.
                let challenge = HeaderValue::from_static("Bearer");
                answer.fields.append(&header::WWW_AUTHENTICATE, &challenge);
            }
            Some(answer)
        }
        Verdict::Limit(wait) => {
            decisions.count(tenant, asked.lb, judgement.by.as_ref(), "enforce");
            Some(limited(judgement.by.as_ref(), wait))
        }
    }
}

/// One too many (RFC 6585 §4), with the fields of draft-ietf-httpapi-ratelimit-headers-10.
fn limited(by: Option<&Decided<'_>>, wait: Duration) -> Answer {
    let status = StatusCode::TOO_MANY_REQUESTS;
    let reason = "too many requests: try again later";
    let mut answer = Answer::refusal(status, LIMITED, reason, Fault::Client);
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let fields = &mut answer.fields;
    fields.append(&header::RETRY_AFTER, &HeaderValue::from(seconds));
    if let Some(Decided { rule, .. }) = by
        && let RuleAction::Limit(rate) = &rule.action
    {
        let (name, quota, window) = (&rule.name, rate.requests, rate.per.as_secs());
        for (field, text) in [
            (
                RATE_LIMIT_POLICY,
                format!("\"{name}\";q={quota};w={window}"),
            ),
            (RATE_LIMIT, format!("\"{name}\";r=0;t={seconds}")),
        ] {
            if let Ok(value) = HeaderValue::try_from(text) {
                fields.append(&field, &value);
            }
        }
    }
    answer
}

/// `sealane_policy_decisions_total`: what rules decided. A worker finds a counter without a lock
/// once it has used it.
#[derive(Clone, Debug)]
pub(crate) struct Decisions {
    family: Family<Labels, Counter>,
    series: Arc<AtomicUsize>,
    known: RefCell<HashMap<u64, (Labels, Counter)>>,
}

type Labels = [(&'static str, String); 6];

impl Decisions {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let family = Family::default();
        let help = "What the rules of policies decided, or would have (effect \"shadow\")";
        metrics.register("policy_decisions", help, family.clone());
        Decisions {
            family,
            series: Arc::default(),
            known: RefCell::default(),
        }
    }

    /// Without a rule: a closed namespace denied.
    fn count(&self, tenant: &str, lb: &str, by: Option<&Decided<'_>>, effect: &'static str) {
        let (policy, rule, action) = match by {
            Some(by) => (&*by.policy.name, &*by.rule.name, by.rule.action.word()),
            None => ("", "", "deny"),
        };
        let values = [tenant, lb, policy, rule, action, effect];
        let mut hasher = DefaultHasher::new();
        values.hash(&mut hasher);
        let key = hasher.finish();
        let mut known = self.known.borrow_mut();
        if let Some((labels, counter)) = known.get(&key)
            && labels.iter().map(|(_, value)| value.as_str()).eq(values)
        {
            counter.inc();
            return;
        }
        let labels = self.labels(values);
        let counter = self.family.get_or_create(&labels).clone();
        counter.inc();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(key, (labels, counter));
    }

    fn labels(&self, values: [&str; 6]) -> Labels {
        let names = ["tenant", "lb", "policy", "rule", "action", "effect"];
        let labels = |values: [&str; 6]| {
            let mut values = values.into_iter();
            names.map(|name| (name, values.next().unwrap_or_default().to_owned()))
        };
        let wanted = labels(values);
        if self.family.get(&wanted).is_some() {
            return wanted;
        }
        if self.series.fetch_add(1, Relaxed) < MAX_SERIES {
            return wanted;
        }
        labels(["", "", "", "(other)", "", ""])
    }
}
