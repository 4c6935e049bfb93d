//! Which VIPs routers may be told of: somebody is healthy behind them, and they are listened on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxy::{ListenerFailed, ListenerSpec};

/// What decides whether a VIP is told.
#[derive(Default)]
pub(super) struct Vips {
    /// Those with a healthy endpoint.
    up: BTreeSet<IpAddr>,
    /// Addresses, and whether all of their listeners are open.
    open: BTreeMap<IpAddr, bool>,
}

impl Vips {
    /// Of these listeners all are open but those that failed.
    pub(super) fn opened<'a>(
        &mut self,
        listeners: &[ListenerSpec],
        failed: impl Iterator<Item = &'a ListenerFailed>,
    ) {
        let all = listeners.iter().map(|spec| (spec.bind.ip(), true));
        self.open = all.collect();
        self.open
            .extend(failed.map(|failed| (failed.bind.ip(), false)));
    }

    /// These, and no others, have a healthy endpoint.
    pub(super) fn set_up(&mut self, up: BTreeSet<IpAddr>) {
        self.up = up;
    }

    /// What routers are told.
    pub(super) fn told(&self) -> BTreeSet<IpAddr> {
        let open = |vip: &&IpAddr| self.open.get(vip) == Some(&true);
        self.up.iter().filter(open).copied().collect()
    }

    /// Is a VIP not listened on? Its address may come to this machine later than the VIP.
    pub(super) fn is_missing(&self, vips: &plan::Vips) -> bool {
        vips.keys().any(|vip| self.open.get(vip) == Some(&false))
    }
}
