//! Sites that are reached over others, and how.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use base::SiteName;
use tokio::sync::Notify;

/// Which way a stream took: the same number as long as the way to its site is the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WayId(u64);

/// The ways to sites that are not reached directly. Cheap to clone; every clone sees what is set on
/// any. Reading takes no lock.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    ways: Arc<ArcSwap<Ways>>,
    next: Arc<AtomicU64>,
    changed: Arc<Notify>,
}

type Ways = BTreeMap<SiteName, Way>;

#[derive(Clone, Debug)]
struct Way {
    id: WayId,
    /// The sites on it, the destination last; two at least.
    hops: Vec<SiteName>,
}

impl Routes {
    /// From now on streams to these sites go over these others, the destination last, and to all
    /// the rest directly.
    pub fn set(&self, hops: BTreeMap<SiteName, Vec<SiteName>>) {
        let before = self.ways.load();
        let way = |(site, hops): (SiteName, Vec<SiteName>)| {
            let same = before.get(&site).filter(|way| way.hops == hops);
            let id = match same {
                Some(way) => way.id,
                None => WayId(self.next.fetch_add(1, Ordering::Relaxed) + 1),
            };
            (hops.len() > 1).then_some((site, Way { id, hops }))
        };
        let ways: Ways = hops.into_iter().filter_map(way).collect();
        self.ways.store(Arc::new(ways));
        self.changed.notify_waiters();
    }

    /// The way that a stream to `site` takes now.
    #[must_use]
    pub fn way(&self, site: &SiteName) -> WayId {
        self.ways
            .load()
            .get(site)
            .map_or(WayId::default(), |way| way.id)
    }

    /// Waits until the way to `site` is another one than `before`.
    pub async fn other(&self, site: &SiteName, before: WayId) {
        loop {
            let mut changed = pin!(self.changed.notified());
            // From here on nothing is missed.
            changed.as_mut().enable();
            if self.way(site) != before {
                return;
            }
            changed.await;
        }
    }

    /// Whom to ask for a stream to `site`, and over which it is passed on there, `site` last; `None`:
    /// the site itself.
    #[must_use]
    pub fn over(&self, site: &SiteName) -> Option<(SiteName, Vec<SiteName>)> {
        let ways = self.ways.load();
        let (first, rest) = ways.get(site)?.hops.split_first()?;
        Some((first.clone(), rest.to_vec()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().expect("a site")
    }

    #[test]
    fn a_way_keeps_its_number_as_long_as_it_is_the_same() {
        let routes = Routes::default();
        let (shop, par, lon) = (site("shop.acme"), site("par.fabric"), site("lon.fabric"));
        let over = |hops: &[&SiteName]| {
            let hops = hops.iter().map(|hop| (*hop).clone()).collect();
            routes.set(BTreeMap::from([(shop.clone(), hops)]));
            routes.way(&shop)
        };
        let direct = routes.way(&shop);
        let first = over(&[&par, &shop]);
        assert_ne!(first, direct);
        assert_eq!(over(&[&par, &shop]), first);
        let second = over(&[&lon, &par, &shop]);
        assert!(second != first && second != direct);
        let rest = vec![par.clone(), shop.clone()];
        assert_eq!(routes.over(&shop), Some((lon.clone(), rest)));
        assert_eq!(over(&[&shop]), direct);
        assert_eq!(routes.over(&shop), None);
    }
}
