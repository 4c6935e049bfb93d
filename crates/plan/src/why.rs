//! One described request, decided as a real one would be, and each step of it.

use api::derived::{EndpointStanding, Explanation, Question, Step};
use balance::{Standing, WHOLE};
use base::{Rng, WallTime};
use http::{HeaderName, HeaderValue, Method, Uri};
use l7::{
    Decision, Fields, Forward, Identity, Miss, RequestHead, Shown, Table, VirtualHost, host_of,
    normal_path,
    policy::{Guard, RuleAction, Subject, Undecided},
};

/// Decide `question` by the table of an ingress as it would be at `wall`. Of several backends and
/// faults on purpose `seed` draws one. Nothing is counted: a rule with a rate is taken to have
/// room. The policies of a service see the request as it was asked, not as a route's filters
/// would change it.
///
/// # Errors
/// What of it is no request.
pub fn explain(
    table: &Table,
    question: &Question,
    wall: WallTime,
    seed: u64,
) -> Result<Explanation, String> {
    let asked = Asked::read(question)?;
    let mut steps = Steps::default();
    let (port, tls) = (asked.port, asked.tls);
    let kind = if tls { "TLS" } else { "plain text" };
    let served = table.ports().any(|served| served == (port, tls));
    steps.say(
        "listener",
        served,
        match served {
            true => format!("port {port}, {kind}"),
            false => format!("nothing is served on port {port} in {kind}"),
        },
    );
    let Some(path) = normal_path(&asked.path) else {
        steps.say("path", false, "the path is malformed".to_owned());
        return Ok(steps.end("400 bad-path".to_owned()));
    };
    if path != asked.path {
        steps.say("path", true, format!("{} is {path}", asked.path));
    }
    let clients = table
        .host(port, tls, &asked.host)
        .and_then(|host| host.clients);
    let clients = clients.filter(|_| tls);
    let head = RequestHead {
        port,
        tls,
        sni: tls.then_some(&*asked.host),
        trust: clients.as_ref().map(|clients| &clients.trust),
        method: &asked.method,
        host: &asked.host,
        authority: &asked.authority,
        path: &path,
        query: asked.query.as_deref(),
        fields: &asked.fields,
    };
    let Some(host) = table.host(port, tls, &asked.host) else {
        let text = format!("no load balancer has {} there", asked.host);
        steps.say("host", false, text);
        return Ok(steps.end("404 no-such-host".to_owned()));
    };
    let text = format!("{} of {}", host.lb_name, host.tenant_name);
    steps.say("host", true, text);
    let identity = asked.identity.as_ref().filter(|_| clients.is_some());
    if let Some(clients) = clients {
        let (good, text) = match identity {
            Some(identity) => (true, identity.principal().to_owned()),
            None => (
                !clients.required,
                "the client shows no certificate".to_owned(),
            ),
        };
        steps.say("client", good, text);
        if !good {
            return Ok(steps.end("no connection: certificate_required".to_owned()));
        }
    }
    for (route, miss) in host.tried(&head) {
        let text = match miss {
            None => route.name.clone(),
            Some(Miss::Path) => format!("{}: the path is another", route.name),
            Some(Miss::Method) => format!("{}: the method is another", route.name),
            Some(Miss::Header(name)) => {
                format!("{}: header {name} is missing or another", route.name)
            }
            Some(Miss::Query(name)) => {
                format!("{}: parameter {name} is missing or another", route.name)
            }
        };
        steps.say("route", miss.is_none(), text);
    }
    let decision = l7::decide(table, &head, &mut Rng::new(seed));
    let service = match &decision {
        Decision::Forward(to) => Some(&to.cluster.service),
        Decision::Respond(_) => None,
    };
    let subject = Subject::new(&head, &host.lb_name, question.client, service)
        .with_identity(Shown::here(identity));
    if let Some(verdict) = steps.guard(host, &host.guard, &subject, wall) {
        return Ok(steps.end(verdict));
    }
    Ok(match decision {
        Decision::Respond(respond) => {
            let verdict = format!("{} {}", respond.status.as_u16(), respond.code);
            steps.end(verdict)
        }
        Decision::Forward(to) => match steps.guard(host, &to.cluster.guard, &subject, wall) {
            Some(verdict) => steps.end(verdict),
            None => forwarded(steps, &to),
        },
    })
}

fn forwarded(mut steps: Steps, to: &Forward<'_>) -> Explanation {
    let service = &to.cluster.service;
    let set = to.cluster.cell.load();
    let standings: Vec<EndpointStanding> = set
        .standings()
        .map(|(endpoint, standing)| {
            let (per_mille, why) = match standing {
                Standing::Picked(part) => (part, "picked".to_owned()),
                Standing::Farther => (0, "nearer ones can take all".to_owned()),
                Standing::Unreachable => (0, "no tunnel to its site".to_owned()),
                Standing::Weightless => (0, "its weight is 0".to_owned()),
                Standing::Elsewhere => (0, "the service keeps to its own site".to_owned()),
                Standing::Ejected => (0, "out for a while, for its answers".to_owned()),
                Standing::Unfit(health) => (0, format!("{health:?}").to_lowercase()),
            };
            EndpointStanding {
                site: endpoint.site.to_string(),
                address: endpoint.key.address.to_string(),
                rtt_us: endpoint
                    .distance
                    .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
                path: Vec::new(),
                in_flight: endpoint.stats.in_flight(),
                load_per_mille: None,
                share_per_mille: (endpoint.share < WHOLE).then_some(endpoint.share),
                per_mille,
                why,
            }
        })
        .collect();
    let some = standings.iter().filter(|one| one.per_mille > 0).count();
    let text = format!("{service}: {some} of {} endpoints", standings.len());
    steps.say("service", some > 0, text);
    if !to.cluster.circuit.takes_request(&set) {
        let text = "the service has as many requests as it may".to_owned();
        steps.say("circuit", false, text);
        return steps.end("503 circuit-open".to_owned());
    }
    let mut explanation = steps.end(match some {
        0 => "503 no-endpoint".to_owned(),
        _ => format!("forward to {service}"),
    });
    explanation.service = Some(service.to_string());
    explanation.endpoints = standings;
    explanation
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn say(&mut self, step: &str, good: bool, text: String) {
        self.0.push(Step {
            step: step.to_owned(),
            good,
            text,
        });
    }

    /// The rules of a guard up to the one that decides; what becomes of the request, if it may not
    /// pass.
    fn guard(
        &mut self,
        host: &VirtualHost,
        guard: &Guard,
        subject: &Subject<'_>,
        wall: WallTime,
    ) -> Option<String> {
        for policy in &guard.policies {
            for rule in policy.rules() {
                let name = format!("{}/{}", policy.name, rule.name);
                if let Err(miss) = rule.check(subject, wall) {
                    self.say("policy", false, format!("{name}: {miss}"));
                    continue;
                }
                let shadow = if policy.shadow { ", in the shadow" } else { "" };
                let text = format!("{name}: {}{shadow}", rule.action.word());
                self.say("policy", true, text);
                match &rule.action {
                    RuleAction::Limit(_) => continue,
                    RuleAction::Allow | RuleAction::Deny(_) if policy.shadow => break,
                    RuleAction::Allow => return None,
                    RuleAction::Deny(status) => {
                        return Some(format!("{} denied by {name}", status.as_u16()));
                    }
                }
            }
        }
        let namespace = host.lb_name.split('/').next();
        let home = subject.service().map(|service| service.namespace.as_str());
        let denied = match guard.undecided {
            Undecided::Allow => false,
            Undecided::Deny => true,
            Undecided::DenyForeign => namespace != home,
        };
        if denied {
            let text = "no rule allows it, and the namespace is closed".to_owned();
            self.say("policy", false, text);
        }
        denied.then(|| "403 denied".to_owned())
    }

    fn end(self, verdict: String) -> Explanation {
        Explanation {
            verdict,
            steps: self.0,
            service: None,
            endpoints: Vec::new(),
        }
    }
}

/// A question as a request.
struct Asked {
    port: u16,
    tls: bool,
    method: Method,
    host: String,
    authority: String,
    path: String,
    query: Option<String>,
    fields: Fields,
    identity: Option<Identity>,
}

impl Asked {
    fn read(question: &Question) -> Result<Self, String> {
        let wrong = |what: &str| format!("{:?} is not {what}", question.url);
        let uri: Uri = question.url.parse().map_err(|_| wrong("a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("a URL that begins with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("a URL with a host"))?;
        let host = host_of(authority.as_str()).ok_or_else(|| wrong("a URL with a good host"))?;
        let method = Method::from_bytes(question.method.as_bytes());
        let method = method.map_err(|_| format!("{:?} is not a method", question.method))?;
        let mut fields = Fields::default();
        for (name, value) in &question.headers {
            let bad = |_| format!("{name:?}: {value:?} is not a header");
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
            let value = HeaderValue::from_str(value).map_err(|e| bad(e.to_string()))?;
            fields.append(&name, &value);
        }
        let names = question.identity.iter().map(|name| name.parse());
        let names = names.collect::<Result<Vec<_>, _>>()?;
        Ok(Asked {
            identity: (!names.is_empty()).then_some(Identity(names)),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            method,
            host: host.into_owned(),
            authority: authority.to_string(),
            path: uri.path().to_owned(),
            query: uri.query().map(ToOwned::to_owned),
            fields,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Cells, Me, compile,
        tests::{bundle, ids, site, world},
    };

    fn explained(url: &str, method: &str) -> String {
        let world = world();
        let bundle = bundle(&world, &ids(&world), "par.fabric", 1);
        let me = Me {
            site: site("par.fabric"),
            node: "n1".parse().expect("a name"),
        };
        let compiled = compile(&bundle, &me, &Cells::new()).expect("it compiles");
        let question = Question {
            url: url.to_owned(),
            method: method.to_owned(),
            headers: Vec::new(),
            client: None,
            identity: Vec::new(),
        };
        match explain(&compiled.ingress, &question, crate::tests::NOW, 1) {
            Err(error) => format!("error: {error}"),
            Ok(said) => {
                let steps = said.steps.iter().map(|step| {
                    let mark = if step.good { "" } else { "!" };
                    format!("{mark}{}", step.step)
                });
                let steps: Vec<String> = steps.collect();
                format!("{} => {}", steps.join(" "), said.verdict)
            }
        }
    }

    #[test]
    fn each_step_is_told() {
        for (url, method, expect) in [
            // Nobody has filled the cell.
            (
                "http://cart.acme.example/",
                "GET",
                "listener host route !service => 503 no-endpoint",
            ),
            (
                "https://Cart.acme.example./a/../%61",
                "POST",
                "listener path host route !service => 503 no-endpoint",
            ),
            (
                "http://nobody.example/",
                "GET",
                "listener !host => 404 no-such-host",
            ),
            (
                "http://cart.acme.example:81/",
                "GET",
                "!listener !host => 404 no-such-host",
            ),
            (
                "http://cart.acme.example/a%00",
                "GET",
                "listener !path => 400 bad-path",
            ),
            (
                "cart.acme.example/",
                "GET",
                "error: \"cart.acme.example/\" is not a URL",
            ),
            (
                "ftp://cart.acme.example/",
                "GET",
                "error: \"ftp://cart.acme.example/\" is not a URL that begins with http:// or \
                 https://",
            ),
            (
                "http://cart.acme.example/",
                "G T",
                "error: \"G T\" is not a method",
            ),
        ] {
            assert_eq!(explained(url, method), expect, "{method} {url}");
        }
    }
}
