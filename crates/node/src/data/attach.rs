//! The PoPs of a gateway: measured, chosen, and told to the tunnels.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use base::{Instant, SiteName};
use plan::{Attachment, Fabric, UplinkSource};
use runtime::{Tasks, net::Source};
use tokio::sync::mpsc;
use tunnel::{Config, DialTarget, LinkTable, Uplink};

/// Measurements that wait to be taken in.
const MEASURED: usize = 64;

/// What was measured of one PoP.
pub(super) type Measured = (SiteName, Option<Duration>);

/// The attachment of a gateway; of a PoP it does nothing.
pub(super) struct Attach {
    machine: Attachment,
    tasks: Tasks,
    measured: mpsc::Sender<Measured>,
    /// Who was asked, at which addresses.
    asked: BTreeMap<SiteName, Vec<SocketAddr>>,
}

impl Attach {
    pub(super) fn new(tasks: Tasks) -> (Self, mpsc::Receiver<Measured>) {
        let (measured, take) = mpsc::channel(MEASURED);
        let attach = Attach {
            machine: Attachment::default(),
            tasks,
            measured,
            asked: BTreeMap::new(),
        };
        (attach, take)
    }

    /// The PoPs that a table names.
    pub(super) fn want(&mut self, fabric: &Fabric) {
        if let Some(count) = fabric.attach {
            self.machine
                .want(runtime::now(), count, fabric.pops.clone());
        }
    }

    /// Measure what is to be measured, as tunnels would be made.
    pub(super) fn measure(&mut self, config: &Config, fabric: &Fabric) {
        let machine = &self.machine;
        self.asked.retain(|site, addresses| {
            let again = machine.is_unanswered(site);
            !again && fabric.dial.get(site) == Some(addresses)
        });
        let unmeasured: Vec<SiteName> = self.machine.unmeasured().cloned().collect();
        for site in unmeasured {
            let Some(addresses) = fabric.dial.get(&site) else {
                continue;
            };
            if self.asked.contains_key(&site) {
                continue;
            }
            self.asked.insert(site.clone(), addresses.clone());
            let (measured, config) = (self.measured.clone(), config.clone());
            let targets = targets(fabric, &site, addresses);
            self.tasks.spawn_local("attach-measure", async move {
                let mut nearest: Option<Duration> = None;
                for target in &targets {
                    let rtt = tunnel::measure(&config, target).await;
                    nearest = nearest.into_iter().chain(rtt).min();
                }
                // Nobody listens: the node ends.
                let _ = measured.send((site, nearest)).await;
            });
        }
    }

    /// What was measured. This and what follows is true if others than before are to be dialled.
    pub(super) fn handle_measured(&mut self, (site, rtt): Measured) -> bool {
        self.change(|machine, now| machine.handle_measured(now, site, rtt))
    }

    pub(super) fn handle_links(&mut self, site: &SiteName, table: &LinkTable) -> bool {
        let up = table.reaches(site);
        self.change(|machine, now| machine.handle_link(now, site, up))
    }

    pub(super) fn handle_timeout(&mut self) -> bool {
        self.change(Attachment::handle_timeout)
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.machine.poll_timeout()
    }

    fn change(&mut self, change: impl FnOnce(&mut Attachment, Instant)) -> bool {
        let before: Vec<SiteName> = self.machine.chosen().keys().cloned().collect();
        change(&mut self.machine, runtime::now());
        let after = self.machine.chosen().keys();
        let changed = !after.eq(before.iter());
        if changed {
            let pops: Vec<String> = self
                .machine
                .chosen()
                .keys()
                .map(ToString::to_string)
                .collect();
            tracing::info!(pops = pops.join(" "), "attached to other PoPs");
        }
        changed
    }

    /// Whom to dial; `None` while that is not known.
    pub(super) fn dial(&self, fabric: &Fabric) -> Option<Vec<DialTarget>> {
        let chosen = self.machine.chosen();
        if fabric.attach.is_some() && chosen.is_empty() {
            return None;
        }
        let wanted = |site: &SiteName| fabric.attach.is_none() || chosen.contains_key(site);
        let dial = fabric.dial.iter().filter(|(site, _)| wanted(site));
        let targets = dial.flat_map(|(site, addresses)| targets(fabric, site, addresses));
        Some(targets.collect())
    }
}

/// A link to a site over each uplink.
fn targets(fabric: &Fabric, site: &SiteName, addresses: &[SocketAddr]) -> Vec<DialTarget> {
    let target = |uplink| DialTarget {
        expected: Some(site.clone()),
        addresses: addresses.to_vec(),
        uplink,
    };
    if fabric.uplinks.is_empty() {
        return vec![target(None)];
    }
    let over = (1..).zip(&fabric.uplinks).map(|(number, uplink)| {
        let name = uplink.name.to_string().into();
        let cost = uplink.cost;
        let source = match &uplink.source {
            UplinkSource::Address(address) => Source::Address(*address),
            UplinkSource::Interface(name) => Source::Interface(name.clone()),
        };
        target(Some((Uplink { number, name, cost }, source)))
    });
    over.collect()
}
