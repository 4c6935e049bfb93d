//! From probes to announcements.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use api::sync::TroubleKind;
use balance::{Health, Hysteresis, ProbeOutcome};
use base::{Instant, NetworkId, Rng, SlotId};
use bgp::{EndpointHealth, Key, LocalRoute, Measure, Rd, RouteTarget, SiteHealth, State, Value};

use super::{About, Effect, Effects, ProbeResult, Queued, links::Links, load::Loads};
use crate::{Compiled, Numbers, Target, TargetKey};

/// IANA's protocol number of TCP, in an Endpoint route's key.
const TCP: u8 = 6;

/// How long a recovered endpoint has to stay well before it is announced: down is sent at once.
const UP_HOLD: Duration = Duration::from_secs(1);

/// What the control half knows of its own endpoints.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) numbers: Option<Numbers>,
    /// Is this node the site's prober?
    elected: bool,
    pub(super) probes: BTreeMap<TargetKey, Probe>,
    /// Where every key's numbers start in this run.
    start: bgp::Seq,
    started: Option<Instant>,
    /// One a key ever announced: a key that comes back goes on where it was.
    sequences: BTreeMap<Key, bgp::Sequence>,
    rng: Rng,
    /// What is announced, by its key: state and weight.
    announced: BTreeMap<Key, (State, u8)>,
    pub(super) links: Links,
    pub(super) loads: Loads,
}

#[derive(Debug)]
pub(super) struct Probe {
    pub(super) target: Target,
    machine: Hysteresis,
    /// A probe is on its way.
    running: bool,
    /// One more is wanted as soon as it is back.
    again: bool,
    next: Instant,
    pub(super) rtt: Option<Duration>,
    /// A recovery waits until then before it is announced.
    up_at: Option<Instant>,
    /// A change that was one too many is announced then.
    say_at: Option<Instant>,
}

impl Probe {
    /// What is to be said of the endpoint; `None`: nothing before its first probe.
    pub(super) const fn state(&self) -> Option<State> {
        Some(match self.machine.health() {
            Health::Healthy if self.up_at.is_none() => State::Healthy,
            Health::Healthy | Health::Unhealthy => State::Unhealthy,
            Health::Unknown => return None,
            Health::Degraded => State::Degraded,
            Health::Draining => State::Draining,
            Health::Maintenance => State::Maintenance,
            Health::Withdrawn => State::Withdrawn,
        })
    }
}

impl Origin {
    pub(super) fn new(seed: u64, start: bgp::Seq) -> Self {
        Origin {
            numbers: None,
            elected: false,
            probes: BTreeMap::new(),
            start,
            started: None,
            sequences: BTreeMap::new(),
            rng: Rng::new(seed),
            announced: BTreeMap::new(),
            links: Links::default(),
            loads: Loads::default(),
        }
    }

    pub(super) fn sequence(&self) -> bgp::Seq {
        let last = self.sequences.values().map(bgp::Sequence::last);
        last.fold(
            self.start,
            |high, seq| if seq.is_after(high) { seq } else { high },
        )
    }

    pub(super) fn handle_table(
        &mut self,
        now: Instant,
        table: &Arc<Compiled>,
        effects: &mut Effects,
    ) {
        self.numbers = Some(table.numbers);
        let first = table.site_table.sites.get(&table.numbers.site);
        let first = first.and_then(|grant| grant.nodes.iter().min());
        self.elected = first.is_none_or(|node| *node == table.numbers.node);
        let targets = if self.elected {
            table.targets.clone()
        } else {
            BTreeMap::new()
        };
        self.probes.retain(|key, _| targets.contains_key(key));
        for (key, target) in targets {
            match self.probes.get_mut(&key) {
                Some(probe) if probe.target == target => {}
                Some(probe) => {
                    let weight_only = Target {
                        weight: target.weight,
                        capacity: target.capacity,
                        ..probe.target.clone()
                    };
                    if weight_only != target {
                        probe.machine = Hysteresis::new(target.rise.into(), target.fall.into());
                    }
                    probe.target = target;
                    probe.next = now;
                }
                None => {
                    let machine = Hysteresis::new(target.rise.into(), target.fall.into());
                    let probe = Probe {
                        target,
                        machine,
                        running: false,
                        again: false,
                        next: now,
                        rtt: None,
                        up_at: None,
                        say_at: None,
                    };
                    self.probes.insert(key, probe);
                }
            }
        }
        self.withdraw_gone(effects);
        if self.elected {
            self.announce_site(now, effects);
        }
        self.announce_links(now, table, effects);
        self.gauge(now, effects);
        let keys: Vec<TargetKey> = self.probes.keys().copied().collect();
        for key in keys {
            self.announce(now, key, effects);
        }
        self.handle_timeout(now, effects);
    }

    pub(super) fn handle_probed(
        &mut self,
        now: Instant,
        key: TargetKey,
        result: ProbeResult,
        effects: &mut Effects,
    ) {
        let Some(probe) = self.probes.get_mut(&key) else {
            return;
        };
        probe.running = false;
        probe.rtt = result.rtt.or(probe.rtt);
        if std::mem::take(&mut probe.again) {
            probe.next = now;
        }
        self.observe(now, key, result.outcome, effects);
        self.handle_timeout(now, effects);
    }

    pub(super) fn handle_trouble(
        &mut self,
        now: Instant,
        key: TargetKey,
        kind: TroubleKind,
        effects: &mut Effects,
    ) {
        let Some(probe) = self.probes.get_mut(&key) else {
            return;
        };
        // Whatever it was, look at once; a probe that is on its way may have left before it.
        probe.again = probe.running;
        probe.next = now;
        match kind {
            TroubleKind::Refused => self.observe(now, key, ProbeOutcome::Refused, effects),
            TroubleKind::Failed => self.observe(now, key, ProbeOutcome::Failure, effects),
            TroubleKind::Suspect => {}
        }
        self.handle_timeout(now, effects);
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, effects: &mut Effects) {
        let mut due = Vec::new();
        for (key, probe) in &mut self.probes {
            for at in [&mut probe.up_at, &mut probe.say_at] {
                if at.is_some_and(|at| at <= now) {
                    *at = None;
                    due.push(*key);
                }
            }
            if !probe.running && probe.next <= now {
                probe.running = true;
                probe.next = now + jittered(probe.target.interval, &mut self.rng);
                let effect = Effect::Probe(*key, Box::new(probe.target.clone()));
                effects.health.push_back(Queued::Effect(effect));
            }
        }
        for key in due {
            self.announce(now, key, effects);
        }
        self.announce_loads(now, effects);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = |probe: &Probe| {
            let next = (!probe.running).then_some(probe.next);
            next.into_iter()
                .chain(probe.up_at)
                .chain(probe.say_at)
                .min()
        };
        let probes = self.probes.values().filter_map(due);
        let probes = probes.chain(self.links.poll_timeout());
        probes.chain(self.loads.poll_timeout()).min()
    }

    fn observe(
        &mut self,
        now: Instant,
        key: TargetKey,
        outcome: ProbeOutcome,
        effects: &mut Effects,
    ) {
        let Some(probe) = self.probes.get_mut(&key) else {
            return;
        };
        let before = probe.machine.health();
        let Some(health) = probe.machine.observe(outcome) else {
            return;
        };
        if (before, health) == (Health::Unhealthy, Health::Healthy) {
            probe.up_at = Some(now + UP_HOLD);
            return;
        }
        probe.up_at = None;
        self.announce(now, key, effects);
    }

    fn announce_site(&mut self, now: Instant, effects: &mut Effects) {
        let Some(numbers) = self.numbers else { return };
        let rd = Rd {
            site: numbers.site,
            slot: SlotId(0),
        };
        let key = Key::Site {
            rd,
            site: numbers.site,
        };
        if self.announced.contains_key(&key) {
            return;
        }
        let Ok(seq) = self.next_seq(now, &key) else {
            return;
        };
        self.announced.insert(key.clone(), (State::Healthy, 0));
        let value = Value::site(&SiteHealth {
            state: State::Healthy,
            seq,
            ..SiteHealth::default()
        });
        let target = RouteTarget {
            tenant: numbers.tenant,
            selector: RouteTarget::SITE,
        };
        let about = About::Route(key.clone());
        effects.say(about, false, originate(key, value, target));
    }

    /// Announce the endpoint if what there is to say changed. Before its first probe nothing is
    /// said: what an earlier run of this half said is a better guess than "unknown".
    fn announce(&mut self, now: Instant, key: TargetKey, effects: &mut Effects) {
        let (Some(numbers), Some(probe)) = (self.numbers, self.probes.get(&key)) else {
            return;
        };
        let Some(state) = probe.state() else { return };
        self.loads.touch(now, (key.tenant, key.service));
        let route = route_key(numbers, key, probe.target.slot);
        let weight = probe.target.weight;
        if self.announced.get(&route) == Some(&(state, weight)) {
            return;
        }
        let rtt = probe
            .rtt
            .map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX));
        let seq = match self.next_seq(now, &route) {
            Ok(seq) => seq,
            Err(ready) => {
                // Too many changes: say what is true then.
                if let Some(probe) = self.probes.get_mut(&key) {
                    probe.say_at = Some(ready);
                }
                return;
            }
        };
        self.announced.insert(route.clone(), (state, weight));
        let value = Value::endpoint(&EndpointHealth {
            state,
            weight,
            rtt: Measure::new(rtt),
            seq,
            ..EndpointHealth::default()
        });
        let target = RouteTarget {
            tenant: key.tenant,
            selector: RouteTarget::SERVICE,
        };
        let down = state.badness() >= State::Unhealthy.badness();
        let about = About::Route(route.clone());
        effects.say(about, down, originate(route, value, target));
    }

    /// The next number of a key, or when there is one again.
    pub(super) fn next_seq(&mut self, now: Instant, key: &Key) -> Result<bgp::Seq, Instant> {
        let started = *self.started.get_or_insert(now);
        let start = self.start;
        let sequence = self
            .sequences
            .entry(key.clone())
            .or_insert_with(|| bgp::Sequence::new(start, started));
        sequence.next(now).ok_or_else(|| sequence.ready_at())
    }

    fn withdraw_gone(&mut self, effects: &mut Effects) {
        let Some(numbers) = self.numbers else { return };
        let route =
            |(key, probe): (&TargetKey, &Probe)| route_key(numbers, *key, probe.target.slot);
        let probed: BTreeSet<Key> = self.probes.iter().map(route).collect();
        let elected = self.elected;
        let kept = |key: &Key| match key {
            Key::Site { .. } => elected,
            Key::Service { .. }
            | Key::Endpoint { .. }
            | Key::HttpRoute { .. }
            | Key::Policy { .. }
            | Key::Link { .. }
            | Key::Unknown { .. } => probed.contains(key),
        };
        let gone: Vec<Key> = self
            .announced
            .keys()
            .filter(|key| !kept(key))
            .cloned()
            .collect();
        for key in gone {
            self.announced.remove(&key);
            let about = About::Route(key.clone());
            effects.say(about, true, Effect::Withdraw(key));
        }
    }
}

pub(super) fn originate(key: Key, value: Value, target: RouteTarget) -> Effect {
    Effect::Originate(LocalRoute {
        key,
        value,
        route_targets: vec![target],
        extra: Vec::new(),
    })
}

fn route_key(numbers: Numbers, target: TargetKey, slot: SlotId) -> Key {
    Key::Endpoint {
        rd: Rd {
            site: numbers.site,
            slot,
        },
        service: target.service,
        site: numbers.site,
        network: NetworkId(0),
        address: target.address.ip(),
        port: target.address.port(),
        protocol: TCP,
    }
}

/// The interval, ± 10 %.
fn jittered(interval: Duration, rng: &mut Rng) -> Duration {
    let tenth = interval / 10;
    let spread = u64::try_from(tenth.as_nanos())
        .unwrap_or(u64::MAX)
        .saturating_mul(2);
    interval - tenth + Duration::from_nanos(rng.below(spread.saturating_add(1)))
}
