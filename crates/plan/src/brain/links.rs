//! From the node's own tunnels to Link routes.

use std::collections::BTreeMap;

use api::sync::Link;
use base::{Instant, SiteName, SlotId, TenantId};
use bgp::{Key, LinkHealth, Measure, Rd, RouteTarget, State, TunnelId, Value};
use path::{Grade, Loss};

use super::{
    About, Effects,
    originate::{Origin, originate},
};
use crate::{Compiled, compile};

/// What was said of one link.
type Said = (State, Measure, Loss, Grade);

/// The links of this node, and what was said of them.
#[derive(Debug, Default)]
pub(super) struct Links {
    now: BTreeMap<SiteName, Link>,
    said: BTreeMap<Key, Said>,
    /// A change that was one too many is announced then.
    say_at: Option<Instant>,
}

impl Links {
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.say_at
    }

    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.say_at.take_if(|at| *at <= now).is_some()
    }
}

impl Origin {
    /// These links, and no others, are up.
    pub(super) fn handle_links(
        &mut self,
        now: Instant,
        table: Option<&Compiled>,
        links: Vec<Link>,
        effects: &mut Effects,
    ) {
        let links = links.into_iter().map(|link| (link.peer.clone(), link));
        self.links.now = links.collect();
        if let Some(table) = table {
            self.announce_links(now, table, effects);
        }
    }

    /// Say what is news: that a link is up, how long it is, that it is down. Of one that never was
    /// up nothing is said.
    pub(super) fn announce_links(&mut self, now: Instant, table: &Compiled, effects: &mut Effects) {
        let mut wanted: BTreeMap<Key, Said> = BTreeMap::new();
        for key in self.links.said.keys() {
            let (loss, grade) = (Loss::default(), Grade::default());
            let down = (State::Unhealthy, Measure::new(0), loss, grade);
            wanted.insert(key.clone(), down);
        }
        for (site, link) in &self.links.now {
            let (Some(to), Some(rtt_us)) = (table.site_ids.get(site), link.rtt_us) else {
                continue;
            };
            let from = table.numbers.site;
            let rd = Rd {
                site: from,
                slot: SlotId(0),
            };
            // Each node of a site has links of its own.
            let tunnel = TunnelId(table.numbers.node.0);
            let key = Key::Link {
                rd,
                from,
                to: *to,
                tunnel,
            };
            let grade = table.fabric.grades.get(site).copied().unwrap_or_default();
            let up = (State::Healthy, Measure::new(rtt_us), Loss(link.loss), grade);
            wanted.insert(key, up);
        }
        for (key, (state, rtt, loss, grade)) in wanted {
            let Key::Link { to, .. } = &key else { continue };
            let Some(far) = table.site_table.sites.get(to) else {
                // The site is gone from the table: what was said of the way to it goes too.
                self.links.said.remove(&key);
                let about = About::Route(key.clone());
                effects.say(about, true, super::Effect::Withdraw(key));
                continue;
            };
            // Of links between gateways nobody else makes use.
            if !table.numbers.pop && far.tenant != TenantId(0) {
                continue;
            }
            let said = self.links.said.get(&key);
            if said.is_some_and(|(before, was, lost, graded)| {
                let same = (*before, *graded) == (state, grade);
                same && !is_news(*was, rtt) && !loss.is_news(*lost)
            }) {
                continue;
            }
            let tenant = match table.numbers.pop {
                true => far.tenant,
                false => table.numbers.tenant,
            };
            let seq = match self.next_seq(now, &key) {
                Ok(seq) => seq,
                Err(ready) => {
                    let at = self.links.say_at.map_or(ready, |at| at.min(ready));
                    self.links.say_at = Some(at);
                    continue;
                }
            };
            let said = (state, rtt, loss, grade);
            self.links.said.insert(key.clone(), said);
            let jitter = table.site_names.get(to);
            let jitter = jitter.and_then(|site| self.links.now.get(site));
            let value = Value::link(&LinkHealth {
                state,
                rtt,
                jitter: Measure::new(jitter.map_or(0, |link| link.jitter_us)),
                loss: loss.0,
                grade: compile::links::said(grade),
                seq,
                ..LinkHealth::default()
            });
            let target = RouteTarget {
                tenant,
                selector: RouteTarget::SITE,
            };
            let about = About::Route(key.clone());
            let down = state == State::Unhealthy;
            effects.say(about, down, originate(key, value, target));
        }
    }
}

/// Is a round trip another one? A sixteenth or half a millisecond is noise.
fn is_news(before: Measure, now: Measure) -> bool {
    let (before, now) = (before.quantity(), now.quantity());
    before.abs_diff(now) > (before / 16).max(500)
}
