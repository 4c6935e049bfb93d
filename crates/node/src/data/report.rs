//! What the node says about itself.

use std::{sync::Arc, time::Duration};

use api::derived::{
    EndpointView, Explanation, HopView, KeysView, LinkView, NodeStatus, PathView, Question,
};
use base::{Instant, Revision, SiteName, WallTime};
use plan::{Brain, Compiled, EndpointFact, Grade, Load, WayFact};
use proxy::ListenerFailed;
use tokio::sync::oneshot;
use tunnel::{Link, LinkTable, Transport};

use crate::handover::Bequest;

/// Status is said again after this, changed or not.
const REPEAT: Duration = Duration::from_secs(10);

/// A renewal that was not answered is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// A clock this far from the controller's is worth a warning.
const CLOCK: Duration = Duration::from_secs(300);

/// A question of the admin socket.
pub(crate) enum Query {
    /// How are you?
    Status(oneshot::Sender<NodeStatus>),
    /// Whom did you refuse a tunnel stream, by which rule, how often?
    Refusals(oneshot::Sender<Vec<(SiteName, &'static str, u64)>>),
    /// What would become of this request, and why? The error says what of it is no request.
    Why(Box<Question>, oneshot::Sender<Result<Explanation, String>>),
    /// What do you give to a process that takes your place? It is about to.
    Bequest(oneshot::Sender<Bequest>),
    /// It did not: go on.
    Stays,
    /// It does.
    Relieved,
}

/// What was said last, and what to say next.
pub(crate) struct Report {
    applied: Revision,
    refused: Option<String>,
    listeners: Vec<String>,
    tunnels: Vec<String>,
    last: Option<(Instant, NodeStatus)>,
    asked_renewal: Option<Instant>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Report {
            applied: Revision(0),
            refused: None,
            listeners: Vec::new(),
            tunnels: Vec::new(),
            last: None,
            asked_renewal: None,
        }
    }

    pub(crate) fn applied(&mut self, revision: Revision) {
        self.applied = revision;
        self.refused = None;
    }

    pub(crate) fn refused(&mut self, revision: Revision, reason: &str) {
        self.refused = Some(format!("revision {revision}: {reason}"));
    }

    pub(crate) fn listeners<'a>(&mut self, failed: impl Iterator<Item = &'a ListenerFailed>) {
        self.listeners = failed.map(ToString::to_string).collect();
        for failure in &self.listeners {
            tracing::error!(error = failure, "ListenerFailed");
        }
    }

    pub(crate) fn tunnels(&mut self, failed: &[(std::net::SocketAddr, std::io::Error)]) {
        self.tunnels = failed
            .iter()
            .map(|(address, e)| format!("cannot listen on {address}: {e}"))
            .collect();
    }

    pub(crate) fn clock(&self, theirs: WallTime) {
        let ours = runtime::wall();
        if ours.distance(theirs) > CLOCK {
            tracing::warn!(%ours, %theirs, "this node's clock is far from the controller's");
        }
    }

    /// May a renewal be asked for now? Then it counts as asked.
    pub(crate) fn may_ask_renewal(&mut self) -> bool {
        let now = runtime::now();
        let may = self
            .asked_renewal
            .is_none_or(|at| now.since(at) >= ASK_AGAIN);
        if may {
            self.asked_renewal = Some(now);
        }
        may
    }

    /// A renewal was answered: the next one may be asked for when it is due.
    pub(crate) fn renewed(&mut self) {
        self.asked_renewal = None;
    }

    /// The status now.
    pub(crate) fn status(
        &self,
        brain: &Brain,
        leaf: &[u8],
        keys: Vec<KeysView>,
        links: Vec<LinkView>,
    ) -> NodeStatus {
        let days = pki::remaining(leaf, runtime::wall()).as_secs() / 86_400;
        NodeStatus {
            at: runtime::wall().to_string(),
            applied: self.applied.0,
            refused: self.refused.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            certificate_days: days,
            listener_failures: self
                .listeners
                .iter()
                .chain(&self.tunnels)
                .cloned()
                .collect(),
            keys,
            links,
            paths: brain.ways().iter().filter_map(path).collect(),
            endpoints: brain.endpoints().iter().map(view).collect(),
        }
    }

    /// The status, if it is to be said now: because it changed, or because time has passed.
    pub(crate) fn due(
        &mut self,
        brain: &Brain,
        leaf: &[u8],
        keys: Vec<KeysView>,
        links: Vec<LinkView>,
    ) -> Option<NodeStatus> {
        let (now, status) = (runtime::now(), self.status(brain, leaf, keys, links));
        let due = self.last.as_ref().is_none_or(|(at, last)| {
            let same = NodeStatus {
                at: status.at.clone(),
                links: status.links.clone(),
                ..last.clone()
            } == status;
            // Of a link it is no news how long it is now.
            let known = |status: &NodeStatus| -> Vec<LinkView> {
                let links = status.links.iter();
                let serves = |link: &LinkView| LinkView {
                    share: u32::from(link.share > 0),
                    rtt_us: None,
                    lost_ppm: 0,
                    sent_kbit_s: 0,
                    capacity_kbit_s: None,
                    load_percent: None,
                    opened: 0,
                    ..link.clone()
                };
                links.map(serves).collect()
            };
            let same = same && known(last) == known(&status);
            !same || now.since(*at) >= REPEAT
        });
        due.then(|| {
            self.last = Some((now, status.clone()));
            status
        })
    }
}

/// Every link to another site.
pub(super) fn links(
    table: &LinkTable,
    me: &SiteName,
    compiled: Option<&Compiled>,
) -> Vec<LinkView> {
    let grade = |site: &SiteName| compiled?.fabric.grades.get(site).copied();
    let links = table.sites().filter(|(site, _)| *site != me);
    let links = links.flat_map(|(site, links)| links.iter().map(move |link| (site, link)));
    let view = |(site, link): (&SiteName, &Arc<Link>)| {
        let quality = link.quality();
        let lost = quality.map_or(0.0, |quality| quality.loss.part());
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a part is between 0 and 1"
        )]
        let lost_ppm = (lost * 1e6).round() as u32;
        LinkView {
            peer: site.to_string(),
            rtt_us: quality.map(|quality| micros(quality.min_rtt)),
            transport: match link.transport {
                Transport::Tls => "tls",
                Transport::Quic => "quic",
            }
            .to_owned(),
            uplink: link.uplink.as_ref().map(|uplink| uplink.name.to_string()),
            lost_ppm,
            sent_kbit_s: kbit_s(link.rate()),
            capacity_kbit_s: link.capacity().map(kbit_s),
            load_percent: quality.and_then(|quality| percent(quality.load)),
            mtu: link.mtu(),
            share: link.share(),
            opened: link.opened(),
            class: grade(site).and_then(class),
        }
    };
    links.map(view).collect()
}

/// Add what the table of an ingress does not know: the way to each endpoint, and the load there.
pub(super) fn complete(said: &mut Explanation, brain: &Brain) {
    let (ways, facts) = (brain.ways(), brain.endpoints());
    let paths: Vec<PathView> = ways.iter().filter_map(path).collect();
    let views = facts.iter().map(view);
    let own = views.filter(|view| Some(&view.service) == said.service.as_ref());
    let own: Vec<EndpointView> = own.collect();
    for endpoint in &mut said.endpoints {
        let path = paths.iter().find(|path| path.site == endpoint.site);
        endpoint.path = path.map(|path| path.hops.clone()).unwrap_or_default();
        let there = own.iter().find(|view| view.site == endpoint.site);
        endpoint.load_per_mille = there.and_then(|view| view.load_per_mille);
    }
}

fn path(way: &WayFact) -> Option<PathView> {
    let hops = way.hops.iter().zip(&way.rtts);
    let hops = hops.zip(way.grades.iter().zip(&way.loads));
    let hops = hops.map(|((site, rtt), (grade, load))| HopView {
        site: site.to_string(),
        rtt_us: micros(*rtt),
        class: class(*grade),
        load_percent: percent(*load),
    });
    Some(PathView {
        site: way.hops.last()?.to_string(),
        hops: hops.collect(),
    })
}

/// How full a link is, if it is.
fn percent(load: Load) -> Option<u8> {
    (load > Load::default()).then_some(load.percent())
}

/// Of octets a second.
pub(super) const fn kbit_s(octets: u64) -> u64 {
    octets / 125
}

/// Of what sort a link is, where somebody said so.
fn class(grade: Grade) -> Option<String> {
    (grade != Grade::default()).then(|| grade.to_string())
}

fn view(fact: &EndpointFact) -> EndpointView {
    EndpointView {
        service: fact.service.to_string(),
        site: fact.site.to_string(),
        address: fact.address.to_string(),
        health: if fact.ejected {
            "ejected".to_owned()
        } else {
            format!("{:?}", fact.health).to_lowercase()
        },
        reachable: fact.reachable,
        rtt_us: fact.distance.map(micros),
        load_per_mille: fact.load.map(per_mille),
        share_per_mille: fact.share,
    }
}

/// Of 65535 parts, in thousandths.
fn per_mille(part: u16) -> u16 {
    let rounded = (u32::from(part) * 1000 + u32::from(u16::MAX / 2)) / u32::from(u16::MAX);
    u16::try_from(rounded).unwrap_or(1000)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
