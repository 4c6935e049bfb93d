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
    /// Where PoPs are dialled.
    addresses: BTreeMap<SiteName, Vec<SocketAddr>>,
}

impl Attach {
    pub(super) fn new(tasks: Tasks, seed: u64) -> (Self, mpsc::Receiver<Measured>) {
        let (measured, take) = mpsc::channel(MEASURED);
        let attach = Attach {
            machine: Attachment::new(seed),
            tasks,
            measured,
            addresses: BTreeMap::new(),
        };
        (attach, take)
    }

    /// The PoPs that a table names.
    pub(super) fn want(&mut self, fabric: &Fabric) {
        let Some(count) = fabric.attach else { return };
        for (site, addresses) in &self.addresses {
            if fabric.dial.get(site).is_some_and(|now| now != addresses) {
                self.machine.forget(runtime::now(), site);
            }
        }
        self.addresses.clone_from(&fabric.dial);
        self.machine
            .want(runtime::now(), count, fabric.pops.clone());
    }

    /// Measure what is to be measured, as tunnels would be made.
    pub(super) fn measure(&mut self, config: &Config, fabric: &Fabric) {
        for site in self.machine.take_due() {
            let addresses = fabric.dial.get(&site);
            let targets = addresses.map(|addresses| targets(fabric, &site, addresses));
            let targets = targets.unwrap_or_default();
            let (measured, config) = (self.measured.clone(), config.clone());
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

    /// What was measured. This and what follows is true if others than before are to be dialled, or
    /// measured.
    pub(super) fn handle_measured(&mut self, (site, rtt): Measured) -> bool {
        self.change(|machine, now| machine.handle_measured(now, &site, rtt))
    }

    pub(super) fn handle_links(&mut self, site: &SiteName, table: &LinkTable) -> bool {
        let up = table.reaches(site);
        let links = table.site(site).iter().filter(|link| link.is_up());
        let rtt = links.filter_map(|link| Some(link.quality()?.min_rtt)).min();
        self.change(|machine, now| machine.handle_link(now, site, up, rtt))
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
        changed || self.machine.is_due()
    }

    /// Whom to dial: `first` while no PoP is known.
    pub(super) fn dial(&self, fabric: &Fabric, first: Vec<DialTarget>) -> Vec<DialTarget> {
        let chosen = self.machine.chosen();
        let first = if fabric.attach.is_some() && chosen.is_empty() {
            first
        } else {
            Vec::new()
        };
        let wanted = |site: &SiteName| fabric.attach.is_none() || chosen.contains_key(site);
        let dial = fabric.dial.iter().filter(|(site, _)| wanted(site));
        let dial = dial.chain(&fabric.mesh);
        let targets = dial.flat_map(|(site, addresses)| targets(fabric, site, addresses));
        first.into_iter().chain(targets).collect()
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
