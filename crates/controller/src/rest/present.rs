//! Objects with their status, and the derived kinds: the world seen together with what nodes say.

use std::collections::BTreeMap;

use api::{
    Condition, Object, ObjectKey, SiteReport, SiteSpec, Spec, Status,
    derived::{EndpointView, SiteStatusView},
};
use base::{Name, Revision, SiteName};
use serde::Serialize;

use crate::{
    ledger::{SKEW, State},
    planner::{Board, Chain},
    reports::{Report, Reports},
};

/// An endpoint and who sees it so.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SeenEndpoint {
    /// The reporting site, `SITE.TENANT`.
    seen_by: String,
    /// The reporting node.
    node: String,
    #[serde(flatten)]
    view: EndpointView,
}

/// The object with its status.
pub(super) fn object(
    state: &State,
    board: &Board,
    reports: &Reports,
    mut object: Object,
) -> Object {
    let key = object.key();
    let revision = object.metadata.revision.unwrap_or_default();
    let status = match &object.spec {
        Spec::Tenant(_) | Spec::Namespace(_) => Status {
            conditions: vec![condition("Ready", true, "Accepted", String::new())],
            observed_revision: Some(revision),
            ..Status::default()
        },
        Spec::Token(_) => token(state, &key),
        Spec::Site(spec) => site(board, reports, &key.site_name(), spec, revision),
        Spec::ServicePolicy(_)
        | Spec::Service(_)
        | Spec::LoadBalancer(_)
        | Spec::Certificate(_)
        | Spec::BgpPeer(_)
        | Spec::Link(_) => delivery(state, board, reports, &key, revision),
    };
    object.status = Some(status);
    object
}

/// Every node of every site: what it said last.
pub(super) fn site_status(state: &State, board: &Board, reports: &Reports) -> Vec<SiteStatusView> {
    let mut views = Vec::new();
    for (site, _, spec) in state.world.sites() {
        let wanted = board.chains.get(&site).map_or(0, |chain| chain.head().0);
        for node in &spec.nodes {
            let report = reports.of(&site, &node.name).unwrap_or_default();
            let status = report.status.map(|mut status| {
                status.applied = report.applied.0;
                status.refused = report.refused.map(|(_, why)| why);
                status
            });
            views.push(SiteStatusView {
                site: site.to_string(),
                node: node.name.to_string(),
                connected: report.streams > 0,
                wanted,
                status,
            });
        }
    }
    views
}

/// Every endpoint as each node sees it; of one tenant's services, or all.
pub(super) fn endpoints(reports: &Reports, tenant: Option<&Name>) -> Vec<SeenEndpoint> {
    let mine = |view: &EndpointView| {
        let owner = view.service.rsplit_once('.').map(|(_, owner)| owner);
        tenant.is_none_or(|tenant| owner == Some(tenant.as_str()))
    };
    let mut seen = Vec::new();
    for ((site, node), report) in reports.all() {
        let views = report
            .status
            .map(|status| status.endpoints)
            .unwrap_or_default();
        seen.extend(views.into_iter().filter(mine).map(|view| SeenEndpoint {
            seen_by: site.to_string(),
            node: node.to_string(),
            view,
        }));
    }
    seen
}

fn token(state: &State, key: &ObjectKey) -> Status {
    let redeemed = match state.tokens.get(key).map(|(record, _)| record) {
        Some(record) => match &record.spent {
            Some(spent) => {
                let message = format!("node {} joined at {}", record.node, spent.at);
                condition("Redeemed", true, "Joined", message)
            }
            None => {
                let message = format!("good until {}", record.expires_at);
                condition("Redeemed", false, "NotUsed", message)
            }
        },
        None => condition(
            "Redeemed",
            false,
            "NoSecret",
            "create the token again".to_owned(),
        ),
    };
    Status {
        conditions: vec![redeemed],
        ..Status::default()
    }
}

fn site(
    board: &Board,
    reports: &Reports,
    name: &SiteName,
    spec: &SiteSpec,
    revision: Revision,
) -> Status {
    let nodes: Vec<(&Name, Report)> = spec
        .nodes
        .iter()
        .map(|node| (&node.name, reports.of(name, &node.name).unwrap_or_default()))
        .collect();
    let named = |is: &dyn Fn(&Report) -> bool| {
        let names: Vec<&str> = nodes
            .iter()
            .filter(|(_, r)| is(r))
            .map(|(name, _)| name.as_str())
            .collect();
        names.join(", ")
    };
    let away = named(&|report| report.streams == 0);
    let connected = match away.as_str() {
        "" => condition("Connected", true, "Connected", String::new()),
        away => condition(
            "Connected",
            false,
            "NotConnected",
            format!("not connected: {away}"),
        ),
    };
    let report = of_site(board.chains.get(name).map(|c| &**c), &nodes, name, revision);
    let mut conditions = vec![ready(std::slice::from_ref(&report)), connected];
    let skewed = named(&|report| report.skew > SKEW);
    if !skewed.is_empty() {
        let message = format!("more than five minutes from the controller's clock: {skewed}");
        conditions.push(condition("ClockSkewed", true, "ClockOff", message));
    }
    let failures: Vec<String> = nodes
        .iter()
        .filter_map(|(_, report)| report.status.as_ref())
        .flat_map(|status| status.listener_failures.iter().cloned())
        .collect();
    if !failures.is_empty() {
        conditions.push(condition(
            "ListenerFailed",
            true,
            "BindFailed",
            failures.join("; "),
        ));
    }
    finish(conditions, vec![report], revision)
}

/// A Service, LoadBalancer or Certificate: is it live in every site that needs it?
fn delivery(
    state: &State,
    board: &Board,
    reports: &Reports,
    key: &ObjectKey,
    revision: Revision,
) -> Status {
    let mut sites = Vec::new();
    for (name, chain) in board.chains.iter().filter(|(_, chain)| chain.concerns(key)) {
        let Some((_, spec)) = state.world.site(name) else {
            continue;
        };
        let nodes: Vec<(&Name, Report)> = spec
            .nodes
            .iter()
            .map(|node| (&node.name, reports.of(name, &node.name).unwrap_or_default()))
            .collect();
        sites.push(of_site(Some(chain), &nodes, name, revision));
    }
    finish(vec![ready(&sites)], sites, revision)
}

/// A site's own word, and whether it runs what the object's revision needs.
struct Word {
    report: SiteReport,
    runs: bool,
}

fn of_site(
    chain: Option<&Chain>,
    nodes: &[(&Name, Report)],
    name: &SiteName,
    revision: Revision,
) -> Word {
    let applied = nodes
        .iter()
        .map(|(_, r)| r.applied)
        .min()
        .unwrap_or_default();
    let refused = nodes
        .iter()
        .find_map(|(_, r)| r.refused.as_ref().map(|(_, why)| why.clone()));
    let needed = chain.map_or(revision, |chain| chain.carries(revision));
    let runs = applied >= needed;
    Word {
        report: SiteReport {
            site: name.to_string(),
            applied,
            refused,
        },
        runs,
    }
}

fn ready(words: &[Word]) -> Condition {
    let named = |is: &dyn Fn(&Word) -> bool| {
        let names: Vec<&str> = words
            .iter()
            .filter(|w| is(w))
            .map(|w| w.report.site.as_str())
            .collect();
        names.join(", ")
    };
    let refused = named(&|word| !word.runs && word.report.refused.is_some());
    let waiting = named(&|word| !word.runs && word.report.refused.is_none());
    match (refused.as_str(), waiting.as_str()) {
        ("", "") => condition("Ready", true, "Applied", String::new()),
        ("", waiting) => condition("Ready", false, "Rolling", format!("not yet at {waiting}")),
        (refused, _) => condition("Ready", false, "Refused", format!("refused by {refused}")),
    }
}

fn finish(conditions: Vec<Condition>, words: Vec<Word>, revision: Revision) -> Status {
    let observed = words.iter().all(|word| word.runs).then_some(revision);
    let by_site: BTreeMap<String, SiteReport> = words
        .into_iter()
        .map(|word| (word.report.site.clone(), word.report))
        .collect();
    Status {
        conditions,
        observed_revision: observed,
        sites: by_site.into_values().collect(),
        token: None,
    }
}

fn condition(kind: &str, status: bool, reason: &str, message: String) -> Condition {
    Condition {
        kind: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message,
    }
}
