//! What nodes said last: soft state, gone with the process and there again within ten seconds.
//!
//! Bounded by the nodes that exist: only a node of the world gets a stream, and [`Reports::retain`]
//! forgets those that are no more.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::derived::NodeStatus;
use base::{Name, Revision, SiteName};

/// One node.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// Its open streams: one for itself, or one through each PoP it is attached to.
    pub(crate) streams: u32,
    pub(crate) applied: Revision,
    /// The revision it refused last and why, unless it runs a newer one.
    pub(crate) refused: Option<(Revision, String)>,
    pub(crate) status: Option<NodeStatus>,
    /// How far its clock was off when it said hello.
    pub(crate) skew: Duration,
}

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Reports(Mutex<BTreeMap<(SiteName, Name), Report>>);

impl Reports {
    pub(crate) fn of(&self, site: &SiteName, node: &Name) -> Option<Report> {
        self.lock().get(&(site.clone(), node.clone())).cloned()
    }

    /// Everything, for the answers that show everything.
    pub(crate) fn all(&self) -> BTreeMap<(SiteName, Name), Report> {
        self.lock().clone()
    }

    pub(crate) fn connected(&self, site: &SiteName, node: &Name, skew: Duration) {
        self.change(site, node, |report| {
            report.streams += 1;
            report.skew = skew;
        });
    }

    pub(crate) fn disconnected(&self, site: &SiteName, node: &Name) {
        let mut reports = self.lock();
        if let Some(report) = reports.get_mut(&(site.clone(), node.clone())) {
            report.streams = report.streams.saturating_sub(1);
        }
    }

    pub(crate) fn applied(&self, site: &SiteName, node: &Name, revision: Revision) {
        self.change(site, node, |report| {
            report.applied = revision;
            report.refused.take_if(|(refused, _)| *refused <= revision);
        });
    }

    pub(crate) fn refused(&self, site: &SiteName, node: &Name, revision: Revision, why: String) {
        self.change(site, node, |report| report.refused = Some((revision, why)));
    }

    pub(crate) fn status(&self, site: &SiteName, node: &Name, status: NodeStatus) {
        self.change(site, node, |report| {
            report.applied = Revision(status.applied);
            match &status.refused {
                None => report.refused = None,
                Some(why) if report.refused.is_none() => {
                    report.refused = Some((Revision(status.applied + 1), why.clone()));
                }
                Some(_) => {}
            }
            report.status = Some(status);
        });
    }

    /// Forgets every node for which `exists` says no.
    pub(crate) fn retain(&self, exists: impl Fn(&SiteName, &Name) -> bool) {
        self.lock()
            .retain(|(site, node), report| report.streams > 0 || exists(site, node));
    }

    fn change(&self, site: &SiteName, node: &Name, change: impl FnOnce(&mut Report)) {
        change(self.lock().entry((site.clone(), node.clone())).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(SiteName, Name), Report>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
