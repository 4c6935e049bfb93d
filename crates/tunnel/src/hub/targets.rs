//! Whom the hub has dialled, and how those go that are not wanted any more.

use std::{collections::BTreeMap, rc::Rc, sync::Arc, time::Duration};

use base::{Instant, SiteName};
use tokio::sync::watch;

use super::{Entry, Hub, Origin, Target};
use crate::{config::DialTarget, dial::Dialler, event::DownReason, links::Transport};

/// How long a link that is not wanted any more is kept for its streams.
const RETIRE: Duration = Duration::from_secs(10);
/// How long one is kept although there are none, where its site is to be reached another way: until
/// others have heard.
const NEWS: Duration = Duration::from_secs(2);

impl Hub {
    /// Dials exactly `wanted`. A target that only changed its addresses keeps its link.
    pub(super) fn retarget(&mut self, wanted: &[DialTarget]) {
        let mut new: Vec<&DialTarget> = Vec::new();
        let mut kept: BTreeMap<u64, DialTarget> = BTreeMap::new();
        for want in wanted {
            let same = self
                .targets
                .iter()
                .find(|(id, old)| !kept.contains_key(id) && old.target == *want);
            match same {
                Some((id, _)) => drop(kept.insert(*id, want.clone())),
                None => new.push(want),
            }
        }
        new.retain(|want| {
            let moved = self.targets.iter().find(|(id, old)| {
                want.expected.is_some()
                    && !kept.contains_key(id)
                    && old.target.expected == want.expected
                    && old.target.uplink == want.uplink
            });
            if let Some((id, old)) = moved {
                old.addresses.send_replace(want.addresses.clone());
                kept.insert(*id, (*want).clone());
                return false;
            }
            true
        });
        let now = runtime::now();
        self.targets.retain(|id, old| match kept.remove(id) {
            Some(target) => {
                if old.retiring.take().is_some() {
                    old.addresses.send_replace(target.addresses.clone());
                }
                old.target = target;
                true
            }
            // This one is kept until there is another link, over another uplink or to another site,
            // and what runs over it ends when it wants to.
            None if old.target.expected.is_some() && !wanted.is_empty() => {
                old.retiring = old.retiring.or(Some(now));
                true
            }
            None => false,
        });
        for target in new {
            self.start_target(target.clone());
        }
    }

    /// Whether a link is kept only until another one takes its place.
    pub(super) fn is_retiring(&self, entry: &Entry) -> bool {
        match entry.origin {
            Origin::Target(target) => {
                let target = self.targets.get(&target);
                target.is_some_and(|target| target.retiring.is_some())
            }
            Origin::Accepted | Origin::Attached => false,
        }
    }

    /// Is this site not dialled any more, over whatever uplink, while there are links to others? In
    /// the place of a PoP that is another PoP: gateways tell each other nothing.
    pub(super) fn is_let_go(&self, site: &SiteName) -> bool {
        let to = |target: &&Target| target.target.expected.as_ref() == Some(site);
        let mut targets = self.targets.values().filter(to).peekable();
        let others = self.links.values().filter(|entry| {
            let dialled = matches!(entry.origin, Origin::Target(_));
            let other = entry.link.peer.site().filter(|other| *other != site);
            dialled && other.is_some_and(|other| other.is_pop() || !site.is_pop())
        });
        targets.peek().is_some()
            && targets.all(|target| target.retiring.is_some())
            && others.into_iter().any(|entry| self.serves(entry))
    }

    /// Neither ends nor is about to.
    fn serves(&self, entry: &Entry) -> bool {
        !self.is_retiring(entry) && !entry.closing
    }

    /// Ends what was kept for its streams, once there is another link and they have ended.
    pub(super) fn retire(&mut self, now: Instant) {
        let retiring = self.targets.iter().filter_map(|(id, target)| {
            let site = target.target.expected.clone()?;
            Some((*id, site, target.retiring?))
        });
        let retiring: Vec<(u64, SiteName, Instant)> = retiring.collect();
        for (id, site, since) in retiring {
            let links = self.links.values();
            let to_site: Vec<&Entry> = links
                .filter(|entry| entry.link.peer.site() == Some(&site) && !entry.closing)
                .collect();
            let replaced = to_site.iter().any(|entry| self.serves(entry));
            let let_go = self.is_let_go(&site);
            if !replaced && !let_go {
                // There is nothing else: its time has not begun.
                if let Some(target) = self.targets.get_mut(&id) {
                    target.retiring = Some(now);
                }
                continue;
            }
            let mut its = to_site.iter().filter(|entry| self.is_retiring(entry));
            let busy = its.any(|entry| entry.link.requests() > 0);
            let passed = now.since(since);
            // Others choose other ways first, when they have heard of it.
            let heard = replaced || to_site.is_empty() || passed >= NEWS;
            if passed >= RETIRE || (heard && !busy) {
                self.end_target(id);
            }
        }
    }

    fn end_target(&mut self, id: u64) {
        self.targets.remove(&id);
        let its = |entry: &&mut Entry| entry.origin == Origin::Target(id);
        for entry in self.links.values_mut().filter(its) {
            entry.end(DownReason::Removed);
        }
    }

    fn start_target(&mut self, target: DialTarget) {
        let id = self.next_target;
        self.next_target += 1;
        let (sender, addresses) = watch::channel(target.addresses.clone());
        for transport in [Transport::Tls, Transport::Quic] {
            let dialler = Dialler {
                door: Rc::clone(&self.door),
                ground: self.ground.clone(),
                table: Arc::clone(&self.table),
                ids: self.ids.clone(),
                target: id,
                expected: target.expected.clone(),
                uplink: target.uplink.clone(),
                transport,
                addresses: addresses.clone(),
            };
            let tasks = &self.ground.tasks;
            tasks.spawn_local("tunnel-dialler", dialler.keep());
        }
        self.targets.insert(
            id,
            Target {
                target,
                addresses: sender,
                retiring: None,
            },
        );
    }
}
