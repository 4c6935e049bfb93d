//! From what runs at the site's own endpoints to Service routes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use api::sync::Running;
use balance::Admission;
use base::{Ewma, Instant, ServiceId, SlotId, TenantId};
use bgp::{Key, Measure, Rd, RouteTarget, ServiceHealth, State, Value};

use super::{
    About, Effect, Effects,
    originate::{Origin, Probe, originate},
};
use crate::TargetKey;

type ServiceKey = (TenantId, ServiceId);

/// What runs is told once a second, and is not the same from one look to the next.
const SMOOTH: Duration = Duration::from_secs(5);
/// From one announcement of a key to the next, at least.
const PAUSE: Duration = Duration::from_secs(5);
/// What keeps requests away is said again after this, since it is forgotten in three times as long.
const REPEAT: Duration = Duration::from_secs(Admission::EXPIRY.as_secs() / 3);
/// How often it is looked whether the average has come to another step.
const LOOK: Duration = Duration::from_secs(1);
/// A load is said in so many steps …
const STEPS: u8 = 16;
/// … and is another one when it is so much of a step away from what was said.
const NEWS: f64 = 0.75;

/// What runs of the services that say how much their endpoints take well, and what was said of it.
#[derive(Debug, Default)]
pub(super) struct Loads {
    /// What the data half has said, if it has; who is not named has nothing running.
    running: Option<BTreeMap<ServiceKey, u32>>,
    gauges: BTreeMap<ServiceKey, Gauge>,
}

#[derive(Debug)]
struct Gauge {
    running: u32,
    mean: Ewma,
    said: Option<Said>,
    /// When there may be something to say.
    due: Option<Instant>,
}

#[derive(Debug)]
struct Said {
    key: Key,
    at: Instant,
    what: What,
}

/// What is told of a service, but for what changes all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct What {
    state: State,
    /// Of [`STEPS`].
    step: u8,
    healthy: u32,
    total: u32,
    weights: u32,
    capacity: u64,
}

impl Loads {
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.gauges.values().filter_map(|gauge| gauge.due).min()
    }

    /// An endpoint of the service is another than before.
    pub(super) fn touch(&mut self, now: Instant, service: ServiceKey) {
        if let Some(gauge) = self.gauges.get_mut(&service) {
            gauge.due = Some(now);
        }
    }
}

impl Gauge {
    fn new(now: Instant, running: u32) -> Self {
        let mut gauge = Gauge {
            running,
            mean: Ewma::new(SMOOTH),
            said: None,
            due: Some(now),
        };
        gauge.mean(now);
        gauge
    }

    /// What ran on the average, up to now.
    fn mean(&mut self, now: Instant) -> f64 {
        self.mean.add(now, f64::from(self.running))
    }

    /// So much runs from now on.
    fn turn(&mut self, now: Instant, running: u32) {
        if self.running != running {
            self.mean(now);
            self.running = running;
            self.due = Some(self.due.map_or(now, |due| due.min(now)));
        }
    }

    /// The step that so many running requests are on, as long as it is not another than before.
    fn step(&self, running: f64, capacity: u64) -> u8 {
        if capacity == 0 {
            return 0;
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "a capacity is far below 2^52 requests"
        )]
        let exact = (running / capacity as f64).min(1.0) * f64::from(STEPS);
        let before = self.said.as_ref().map(|said| said.what.step);
        match before.filter(|before| (exact - f64::from(*before)).abs() < NEWS) {
            Some(before) => before,
            None => (0..STEPS)
                .find(|step| exact < f64::from(*step) + 0.5)
                .unwrap_or(STEPS),
        }
    }
}

impl Gauge {
    /// Is there something to say of it now? Or when it is to be looked at again.
    fn has_news(&mut self, now: Instant, what: What) -> bool {
        let Some(said) = &self.said else {
            return true;
        };
        let repeat = said.repeat();
        if said.what == what && repeat.is_none_or(|at| at > now) {
            self.due = self.look(now, what).into_iter().chain(repeat).min();
            return false;
        }
        let pause = said.at + PAUSE;
        if now < pause {
            self.due = Some(pause);
        }
        now >= pause
    }

    fn say(&mut self, now: Instant, key: Key, what: What) {
        let said = Said { key, at: now, what };
        let repeat = said.repeat();
        self.said = Some(said);
        self.due = self.look(now, what).into_iter().chain(repeat).min();
    }

    /// The average follows what runs: when it may have come to another step.
    fn look(&self, now: Instant, what: What) -> Option<Instant> {
        let follows = self.step(self.running.into(), what.capacity) != what.step;
        follows.then(|| now + LOOK)
    }
}

impl Said {
    /// When it is to be said again, if it is.
    fn repeat(&self) -> Option<Instant> {
        Admission::is_kept(load(self.what.step)).then(|| self.at + REPEAT)
    }
}

impl Origin {
    /// So much runs at the site's own endpoints.
    pub(super) fn handle_running(
        &mut self,
        now: Instant,
        running: Vec<Running>,
        effects: &mut Effects,
    ) {
        let running = running.into_iter();
        let running = running.map(|one| ((one.tenant, one.service), one.requests));
        self.loads.running = Some(running.collect());
        self.gauge(now, effects);
        self.announce_loads(now, effects);
    }

    /// Watch the services that say how much their endpoints here take well, and no others.
    pub(super) fn gauge(&mut self, now: Instant, effects: &mut Effects) {
        let Some(running) = &self.loads.running else {
            return;
        };
        let gauged = self.probes.iter();
        let gauged = gauged.filter(|(_, probe)| probe.target.capacity.is_some());
        let running = gauged.map(|(key, _)| {
            let service = (key.tenant, key.service);
            (service, running.get(&service).copied().unwrap_or(0))
        });
        let running: BTreeMap<ServiceKey, u32> = running.collect();
        self.loads.gauges.retain(|service, gauge| {
            let kept = running.contains_key(service);
            if let Some(said) = gauge.said.take_if(|_| !kept) {
                withdraw(said.key, effects);
            }
            kept
        });
        for (service, running) in running {
            let gauge = self.loads.gauges.entry(service);
            let gauge = gauge.or_insert_with(|| Gauge::new(now, running));
            gauge.turn(now, running);
        }
    }

    /// Say what is news of the services whose time has come.
    pub(super) fn announce_loads(&mut self, now: Instant, effects: &mut Effects) {
        let due = self.loads.gauges.iter();
        let due = due.filter(|(_, gauge)| gauge.due.is_some_and(|at| at <= now));
        let due: Vec<ServiceKey> = due.map(|(service, _)| *service).collect();
        for service in due {
            self.announce_load(now, service, effects);
        }
    }

    fn announce_load(&mut self, now: Instant, service: ServiceKey, effects: &mut Effects) {
        let Some(numbers) = self.numbers else { return };
        let sum = Sum::of(self.probes_of(service));
        let (Some(gauge), Some(slot)) = (self.loads.gauges.get_mut(&service), sum.slot) else {
            return;
        };
        let mean = gauge.mean(now);
        gauge.due = None;
        // Before the first probe nobody knows what there is.
        let Some(state) = sum.state else { return };
        let what = What {
            state,
            step: gauge.step(mean, sum.capacity),
            healthy: sum.healthy,
            total: sum.total,
            weights: sum.weights,
            capacity: sum.capacity,
        };
        let key = Key::Service {
            rd: Rd {
                site: numbers.site,
                slot,
            },
            service: service.1,
            site: numbers.site,
        };
        // Under another slot it is another route.
        if let Some(said) = gauge.said.take_if(|said| said.key != key) {
            withdraw(said.key, effects);
        }
        if !gauge.has_news(now, what) {
            return;
        }
        let seq = self.next_seq(now, &key);
        let Some(gauge) = self.loads.gauges.get_mut(&service) else {
            return;
        };
        let seq = match seq {
            Ok(seq) => seq,
            Err(ready) => {
                gauge.due = Some(ready);
                return;
            }
        };
        gauge.say(now, key.clone(), what);
        let value = Value::service(&ServiceHealth {
            state,
            flags: 0,
            load: load(what.step),
            healthy: what.healthy,
            total: what.total,
            weights: what.weights,
            rtt: Measure::new(sum.rtt()),
            capacity: Measure::new(what.capacity),
            seq,
        });
        let target = RouteTarget {
            tenant: service.0,
            selector: RouteTarget::SERVICE,
        };
        let about = About::Route(key.clone());
        effects.say(about, false, originate(key, value, target));
    }

    fn probes_of(&self, (tenant, service): ServiceKey) -> impl Iterator<Item = &Probe> {
        let first = TargetKey {
            tenant,
            service,
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        };
        let probes = self.probes.range(first..);
        let own = probes.take_while(move |(key, _)| (key.tenant, key.service) == (tenant, service));
        own.map(|(_, probe)| probe)
    }
}

/// The endpoints of a service in this site, summed up.
#[derive(Default)]
struct Sum {
    slot: Option<SlotId>,
    /// The best of them; `None`: nobody has looked yet.
    state: Option<State>,
    healthy: u32,
    total: u32,
    weights: u32,
    /// Requests at a time that those take well that are healthy, as far as it is said.
    capacity: u64,
    rtts: Vec<Duration>,
}

impl Sum {
    fn of<'p>(probes: impl Iterator<Item = &'p Probe>) -> Self {
        let mut sum = Sum::default();
        for probe in probes {
            let target = &probe.target;
            sum.slot = Some(target.slot);
            sum.total += 1;
            let Some(state) = probe.state() else {
                continue;
            };
            let best = sum.state.filter(|best| best.badness() <= state.badness());
            sum.state = best.or(Some(state));
            if matches!(state, State::Healthy | State::Degraded) {
                sum.healthy += 1;
                sum.weights += u32::from(target.weight);
                sum.capacity += u64::from(target.capacity.unwrap_or(0));
                sum.rtts.extend(probe.rtt);
            }
        }
        sum
    }

    /// The median, in microseconds.
    fn rtt(mut self) -> u64 {
        self.rtts.sort_unstable();
        let median = self.rtts.get(self.rtts.len() / 2);
        median.map_or(0, |rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX))
    }
}

/// A step in 1/65535.
fn load(step: u8) -> u16 {
    let load = u32::from(step) * u32::from(u16::MAX) / u32::from(STEPS);
    u16::try_from(load).unwrap_or(u16::MAX)
}

fn withdraw(key: Key, effects: &mut Effects) {
    let about = About::Route(key.clone());
    effects.say(about, true, Effect::Withdraw(key));
}
