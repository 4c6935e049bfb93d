//! From the node's own tunnels to Link routes.

use std::{collections::BTreeMap, time::Duration};

use api::sync::Link;
use base::{Instant, SiteName, SlotId, TenantId};
use bgp::{Key, LinkHealth, Measure, Rd, RouteTarget, State, TunnelId, Value};
use path::{Grade, Load, Loss};

use super::{
    About, Effects,
    originate::{Origin, originate},
    steady::{Change, WAITS},
};
use crate::{Compiled, compile};

/// What is said of one link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    state: State,
    rtt: Measure,
    loss: Loss,
    grade: Grade,
    load: Load,
    bandwidth_kbit_s: u32,
}

impl Word {
    fn down() -> Self {
        Word {
            state: State::Unhealthy,
            rtt: Measure::new(0),
            loss: Loss::default(),
            grade: Grade::default(),
            load: Load::default(),
            bandwidth_kbit_s: 0,
        }
    }

    /// How much it differs from `before`.
    fn change(&self, before: &Word) -> Change {
        /// A part of a round trip that is said at once.
        const MUCH: u32 = 16;
        let what = |word: &Word| (word.state, word.grade, word.load);
        if what(self) != what(before) {
            return Change::Much;
        }
        let rtt = |word: &Word| Duration::from_micros(word.rtt.quantity().into());
        let bandwidth = |word: &Word| u64::from(word.bandwidth_kbit_s);
        let bandwidth = match is_other(bandwidth(before), bandwidth(self)) {
            true => Change::Little,
            false => Change::Noise,
        };
        Change::of_rtt(rtt(before), rtt(self), MUCH)
            .max(Change::of_loss(before.loss, self.loss))
            .max(bandwidth)
    }
}

/// The links of this node, and what was said of them.
#[derive(Debug, Default)]
pub(super) struct Links {
    now: BTreeMap<SiteName, Link>,
    said: BTreeMap<Key, (Instant, Word)>,
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
        let mut wanted: BTreeMap<Key, Word> = BTreeMap::new();
        for key in self.links.said.keys() {
            wanted.insert(key.clone(), Word::down());
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
            let up = Word {
                state: State::Healthy,
                rtt: Measure::new(rtt_us),
                loss: Loss(link.loss),
                grade,
                load: Load::of(link.load),
                bandwidth_kbit_s: link.capacity_kbit_s,
            };
            wanted.insert(key, up);
        }
        for (key, word) in wanted {
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
            if let Some((at, before)) = said {
                match word.change(before) {
                    Change::Noise => continue,
                    Change::Little if now.since(*at) < WAITS => {
                        let due = *at + WAITS;
                        let first = self.links.say_at.map_or(due, |at| at.min(due));
                        self.links.say_at = Some(first);
                        continue;
                    }
                    Change::Little | Change::Much => {}
                }
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
            self.links.said.insert(key.clone(), (now, word));
            let jitter = table.site_names.get(to);
            let jitter = jitter.and_then(|site| self.links.now.get(site));
            let value = Value::link(&LinkHealth {
                state: word.state,
                rtt: word.rtt,
                jitter: Measure::new(jitter.map_or(0, |link| link.jitter_us)),
                loss: word.loss.0,
                grade: compile::links::said(word.grade),
                load: compile::links::said_load(word.load),
                bandwidth_kbit_s: word.bandwidth_kbit_s,
                seq,
                ..LinkHealth::default()
            });
            let target = RouteTarget {
                tenant,
                selector: RouteTarget::SITE,
            };
            let about = About::Route(key.clone());
            let down = word.state == State::Unhealthy;
            effects.say(about, down, originate(key, value, target));
        }
    }
}

/// Is a bandwidth another one? Half as much again, or two thirds.
const fn is_other(before: u64, now: u64) -> bool {
    now * 2 > before * 3 || now * 3 < before * 2
}
