//! From selected routes and tunnels to endpoint sets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use balance::{Admission, Ejections, Endpoint, EndpointKey, EndpointSet, Health, WHOLE};
use base::{Instant, ServiceId, SiteId, SiteName, TenantId};
use bgp::{Key, Rd, State, TunnelId, Value};
use path::{Graph, Load, Loss, Way, Ways};

use super::{
    About, Effect, Effects, EndpointFact, WayFact,
    steady::{Change, Steady},
};
use crate::{Compiled, compile::links};

type ServiceKey = (TenantId, ServiceId);

/// What the data half knows of the world, and the sets it published.
#[derive(Debug)]
pub(super) struct Import {
    own: SiteName,
    /// Selected routes, as they are: what they mean depends on the site table.
    routes: BTreeMap<Key, Value>,
    /// The keys of each service's endpoints, by the table in force.
    by_service: BTreeSet<(ServiceKey, Key)>,
    /// Sites with a tunnel, and its round trip.
    reach: BTreeMap<SiteName, Steady<Duration>>,
    /// Of these, to whom it is likely that nothing passes.
    doubted: BTreeSet<SiteName>,
    /// What is lost on the way to them and back.
    losses: BTreeMap<SiteName, Steady<Loss>>,
    /// How full the links to them are.
    loads: BTreeMap<SiteName, Load>,
    /// The ways that the published sets go by, once the table says who we are.
    ways: Option<Ways>,
    /// The ways over others that were said.
    told: BTreeMap<SiteName, Vec<SiteName>>,
    /// A link changed, here or somewhere else.
    links_changed: bool,
    /// Endpoints that answered badly.
    ejections: BTreeMap<ServiceKey, Ejections>,
    /// What sites say of the load of a service, and what each is given because of it.
    admissions: BTreeMap<ServiceKey, BTreeMap<SiteId, Admission>>,
    /// When a service's set changes although nothing happens: an endpoint is starting.
    steps: BTreeMap<ServiceKey, Instant>,
    /// What is known of an endpoint (its counters, since when it may be picked) survives sets and
    /// tables as long as it is in one.
    published: BTreeMap<ServiceKey, Arc<EndpointSet>>,
    /// Services of which something changed since they were published: a burst of routes builds
    /// each set once.
    dirty: BTreeSet<ServiceKey>,
    /// VIPs that were said to be up.
    vips: BTreeSet<IpAddr>,
    /// The latest time that was told.
    now: Instant,
}

impl Import {
    pub(super) fn new(own: SiteName) -> Self {
        Import {
            own,
            routes: BTreeMap::new(),
            by_service: BTreeSet::new(),
            reach: BTreeMap::new(),
            doubted: BTreeSet::new(),
            losses: BTreeMap::new(),
            loads: BTreeMap::new(),
            ways: None,
            told: BTreeMap::new(),
            links_changed: false,
            ejections: BTreeMap::new(),
            admissions: BTreeMap::new(),
            steps: BTreeMap::new(),
            published: BTreeMap::new(),
            dirty: BTreeSet::new(),
            vips: BTreeSet::new(),
            now: Instant::from_nanos(0),
        }
    }

    /// What follows happens at `now`.
    pub(super) fn at(&mut self, now: Instant) -> &mut Self {
        self.now = now;
        self
    }

    /// Endpoints whose time is over come in again; starting ones get more; loaded sites are given
    /// less, and others more again.
    pub(super) fn handle_timeout(&mut self) {
        let now = self.now;
        let waiting = self.ways.as_ref().and_then(Ways::poll_timeout);
        self.links_changed |= waiting.is_some_and(|at| at <= now);
        for rtt in self.reach.values_mut() {
            self.links_changed |= rtt.handle_timeout(now);
        }
        for loss in self.losses.values_mut() {
            self.links_changed |= loss.handle_timeout(now);
        }
        for (service, ejections) in &mut self.ejections {
            for key in ejections.handle_timeout(now) {
                let known = self.published.get(service).and_then(|set| set.find(&key));
                if let Some(known) = known {
                    known.stats.judged(true);
                }
                self.dirty.insert(*service);
            }
        }
        for (service, sites) in &mut self.admissions {
            for admission in sites.values_mut() {
                if admission.handle_timeout(now) {
                    self.dirty.insert(*service);
                }
            }
        }
        let due = self.steps.iter().filter(|(_, at)| **at <= now);
        self.dirty.extend(due.map(|(service, _)| *service));
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let ejections = self.ejections.values().filter_map(Ejections::poll_timeout);
        let ways = self.ways.as_ref().and_then(Ways::poll_timeout);
        let steps = self.steps.values().copied();
        let admissions = self.admissions.values().flat_map(BTreeMap::values);
        let admissions = admissions.filter_map(Admission::poll_timeout);
        let rtts = self.reach.values().filter_map(Steady::poll_timeout);
        let losses = self.losses.values().filter_map(Steady::poll_timeout);
        let all = ejections.chain(steps).chain(ways).chain(admissions);
        let all = all.chain(rtts).chain(losses);
        all.min()
    }

    /// An endpoint answered badly too often.
    pub(super) fn handle_outlier(
        &mut self,
        table: Option<&Arc<Compiled>>,
        service: ServiceKey,
        key: EndpointKey,
    ) {
        let plan = table.and_then(|table| table.services.get(&service));
        let (Some(plan), Some(set)) = (plan, self.published.get(&service)) else {
            return;
        };
        let (Some(outlier), Some(_)) = (&plan.outlier, set.find(&key)) else {
            return;
        };
        let ejections = self.ejections.entry(service).or_default();
        if ejections.eject(outlier, self.now, key, set.endpoints().len()) {
            tracing::warn!(service = %plan.name, endpoint = %key, "endpoint ejected for its answers");
            self.dirty.insert(service);
        }
    }

    pub(super) fn handle_table(&mut self, table: &Arc<Compiled>, effects: &mut Effects) {
        self.by_service.clear();
        self.dirty.clear();
        for key in self.routes.keys() {
            if let Some(service) = service_of(table, key) {
                self.by_service.insert((service, key.clone()));
            }
        }
        self.published
            .retain(|service, _| table.services.contains_key(service));
        self.ejections.retain(|service, _| {
            let plan = table.services.get(service);
            plan.is_some_and(|plan| plan.outlier.is_some())
        });
        self.steps.clear();
        self.hear_all_loads(table);
        self.settle(table, effects);
        for service in table.services.keys() {
            self.publish(table, *service, effects);
        }
        self.tell_vips(table, effects);
    }

    pub(super) fn handle_route(
        &mut self,
        table: Option<&Arc<Compiled>>,
        key: Key,
        value: Option<Value>,
    ) {
        let before = match &value {
            Some(value) => self.routes.insert(key.clone(), value.clone()),
            None => self.routes.remove(&key),
        };
        if matches!(key, Key::Link { .. }) {
            let said = |value: Option<&Value>| {
                let link = value.and_then(Value::as_link)?;
                Some((link.state, link.rtt, link.loss, link.grade, link.load))
            };
            self.links_changed |= said(before.as_ref()) != said(value.as_ref());
        }
        let existed = before.is_some();
        let Some(table) = table else { return };
        if matches!(key, Key::Site { .. }) {
            if let Some(site) = key.site() {
                self.touch_site(site);
            }
            return;
        }
        if matches!(key, Key::Service { .. }) {
            return self.hear_load(table, &key, value.as_ref());
        }
        let Some(service) = service_of(table, &key) else {
            return;
        };
        let is_there = value.is_some();
        match is_there {
            true => self.by_service.insert((service, key)),
            false => self.by_service.remove(&(service, key)),
        };
        if is_there || existed {
            self.dirty.insert(service);
        }
    }

    /// What a site says of the load of a service, or that it says nothing of it any more.
    fn hear_load(&mut self, table: &Compiled, key: &Key, value: Option<&Value>) {
        let Some((service, site)) = loaded(table, key) else {
            return;
        };
        let sites = self.admissions.entry(service).or_default();
        match value.and_then(Value::as_service) {
            Some(said) => {
                let admission = sites.entry(site);
                let admission = admission.or_insert(Admission::new(self.now, said.load));
                admission.hear(self.now, said.load);
            }
            None => {
                let known = sites.remove(&site);
                if known.is_some_and(|admission| admission.share() < WHOLE) {
                    self.dirty.insert(service);
                }
            }
        }
    }

    /// What routes say means something else under another table. What is known of a load stays
    /// known, and is not as if it were said again.
    fn hear_all_loads(&mut self, table: &Compiled) {
        let before = std::mem::take(&mut self.admissions);
        let first = Key::Service {
            rd: Rd::default(),
            service: ServiceId(0),
            site: SiteId(0),
        };
        for (key, value) in self.routes.range(first..) {
            if !matches!(key, Key::Service { .. }) {
                break;
            }
            let (Some((service, site)), Some(said)) = (loaded(table, key), value.as_service())
            else {
                continue;
            };
            let known = before.get(&service).and_then(|sites| sites.get(&site));
            let admission = known.copied();
            let admission = admission.unwrap_or(Admission::new(self.now, said.load));
            let sites = self.admissions.entry(service).or_default();
            sites.insert(site, admission);
        }
    }

    fn admission(&self, service: &ServiceKey, site: SiteId) -> Option<&Admission> {
        self.admissions.get(service)?.get(&site)
    }

    pub(super) fn handle_reach(&mut self, site: SiteName, rtt: Option<Duration>) {
        /// A part of a round trip that counts at once.
        const MUCH: u32 = 8;
        self.links_changed |= match (rtt, self.reach.get_mut(&site)) {
            (None, _) => {
                self.losses.remove(&site);
                self.reach.remove(&site).is_some()
            }
            (Some(rtt), Some(known)) => {
                let change = Change::of_rtt(known.counts(), rtt, MUCH);
                known.handle(self.now, rtt, change)
            }
            (Some(rtt), None) => {
                self.reach.insert(site, Steady::new(rtt));
                true
            }
        };
    }

    pub(super) fn handle_doubt(&mut self, site: SiteName, doubted: bool) {
        self.links_changed |= match doubted {
            true => self.doubted.insert(site),
            false => self.doubted.remove(&site),
        };
    }

    pub(super) fn handle_loss(&mut self, site: SiteName, loss: Loss) {
        if loss == Loss::default() && !self.losses.contains_key(&site) {
            return;
        }
        let none = || Steady::new(Loss::default());
        let known = self.losses.entry(site).or_insert_with(none);
        let change = Change::of_loss(known.counts(), loss);
        self.links_changed |= known.handle(self.now, loss, change);
    }

    pub(super) fn handle_load(&mut self, site: SiteName, load: Load) {
        let before = match load > Load::default() {
            true => self.loads.insert(site, load),
            false => self.loads.remove(&site),
        };
        self.links_changed |= before.unwrap_or_default() != load;
    }

    /// Choose the ways by the links there are now; sets with endpoints at the end of a way that
    /// changed are to be published anew.
    fn settle(&mut self, table: &Arc<Compiled>, effects: &mut Effects) {
        self.links_changed = false;
        let graph = self.graph(table);
        let own = table.numbers.site;
        let ways = self.ways.get_or_insert_with(|| Ways::new(own));
        let changed = ways.settle(self.now, &graph);
        if changed.is_empty() {
            return;
        }
        let ways = self.ways(table).into_iter().map(|way| way.hops);
        let over_others = ways.filter(|hops| hops.len() > 1);
        let over_others = over_others.filter_map(|hops| Some((hops.last()?.clone(), hops)));
        let over_others: BTreeMap<SiteName, Vec<SiteName>> = over_others.collect();
        if self.told != over_others {
            self.told.clone_from(&over_others);
            // Before the sets that go by them.
            effects.say(About::Ways, true, Effect::Ways(over_others));
        }
        for site in changed {
            self.touch_site(site);
        }
    }

    /// Own links as they are measured, those between others as they announce them. The end from
    /// which one goes has to say that it is up; the no of the other is a no, since who is dead
    /// cannot say so. What the other says may not be known yet: routes of PoPs without a link come
    /// over these very links.
    fn graph(&self, table: &Compiled) -> Graph {
        let own = table.numbers.site;
        let mut graph = Graph::default();
        for (name, rtt) in &self.reach {
            if let Some(site) = table.site_ids.get(name) {
                let loss = self.losses.get(name).map(Steady::counts);
                let grade = table.fabric.grades.get(name).copied().unwrap_or_default();
                let load = self.loads.get(name).copied().unwrap_or_default();
                graph.loaded_link(
                    own,
                    *site,
                    rtt.counts(),
                    loss.unwrap_or_default(),
                    grade,
                    load,
                );
                if self.doubted.contains(name) {
                    graph.doubt(own, *site);
                }
            }
        }
        for (site, grant) in &table.site_table.sites {
            if grant.tenant == TenantId(0) {
                graph.relay(*site);
            }
        }
        let first = Key::Link {
            rd: Rd::default(),
            from: SiteId(0),
            to: SiteId(0),
            tunnel: TunnelId(0),
        };
        let mut up = BTreeSet::new();
        let mut down = BTreeSet::new();
        let mut said = Vec::new();
        for (key, value) in self.routes.range(first..) {
            let Key::Link { from, to, .. } = key else {
                break;
            };
            let Some(link) = value.as_link() else {
                continue;
            };
            if link.state != State::Healthy {
                down.insert((*from, *to));
                continue;
            }
            let rtt = Duration::from_micros(link.rtt.quantity().into());
            up.insert((*from, *to));
            let grade = links::heard(link.grade);
            let load = links::heard_load(link.load);
            said.push((*from, *to, rtt, Loss(link.loss), grade, load));
        }
        for (from, to, rtt, loss, grade, load) in said {
            // Another node of the far end may have one that is up.
            let vetoed = down.contains(&(to, from)) && !up.contains(&(to, from));
            if from != own && to != own && !vetoed {
                graph.loaded_link(from, to, rtt, loss, grade, load);
            }
        }
        graph
    }

    /// Every way, in the order of their destinations.
    pub(super) fn ways(&self, table: &Compiled) -> Vec<WayFact> {
        let named = |way: &Way| {
            let name = |site: &SiteId| table.site_names.get(site).cloned();
            let hops: Option<Vec<SiteName>> = way.hops.iter().map(name).collect();
            let rtts = way.rtts.clone();
            let grades = way.grades.clone();
            let loads = way.loads.clone();
            hops.map(|hops| WayFact {
                hops,
                rtts,
                grades,
                loads,
            })
        };
        let ways = self.ways.iter().flat_map(Ways::iter);
        ways.filter_map(|(_, way)| named(way)).collect()
    }

    /// Publish what changed.
    pub(super) fn flush(&mut self, table: Option<&Arc<Compiled>>, effects: &mut Effects) {
        let Some(table) = table else { return };
        if self.links_changed {
            self.settle(table, effects);
        }
        if self.dirty.is_empty() {
            return;
        }
        for service in std::mem::take(&mut self.dirty) {
            self.publish(table, service, effects);
        }
        self.tell_vips(table, effects);
    }

    /// Say which VIPs have a healthy endpoint, if these are others than before.
    fn tell_vips(&mut self, table: &Compiled, effects: &mut Effects) {
        let healthy = |service: &ServiceKey| {
            let set = self.published.get(service);
            let mut endpoints = set.iter().flat_map(|set| set.endpoints());
            endpoints.any(|endpoint| {
                let well = matches!(endpoint.health, Health::Healthy | Health::Degraded);
                well && endpoint.reachable && endpoint.weight > 0
            })
        };
        let up = table.vips.iter().filter(|(_, any)| any.iter().any(healthy));
        let up: BTreeSet<IpAddr> = up.map(|(vip, _)| *vip).collect();
        if self.vips == up {
            return;
        }
        let down = !self.vips.is_subset(&up);
        self.vips.clone_from(&up);
        effects.say(About::Vips, down, Effect::Vips(up));
    }

    pub(super) fn facts(&self, table: &Compiled) -> Vec<EndpointFact> {
        let mut facts = Vec::new();
        for (service, set) in &self.published {
            let Some(plan) = table.services.get(service) else {
                continue;
            };
            let load = |site| self.admission(service, site).and_then(Admission::load);
            facts.extend(set.endpoints().iter().map(|endpoint| EndpointFact {
                service: plan.name.clone(),
                site: endpoint.site.clone(),
                address: endpoint.key.address,
                health: endpoint.health,
                reachable: endpoint.reachable,
                ejected: endpoint.ejected,
                distance: endpoint.distance,
                load: load(endpoint.key.site),
                share: (endpoint.share < WHOLE).then_some(endpoint.share),
            }));
        }
        facts
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&Key, &Value)> {
        self.routes.iter()
    }

    /// Every service that has an endpoint in `site` is to be published anew.
    fn touch_site(&mut self, id: SiteId) {
        let concerned = self.by_service.iter();
        let concerned = concerned.filter(|(_, key)| key.site() == Some(id));
        self.dirty.extend(concerned.map(|(service, _)| *service));
    }

    fn publish(&mut self, table: &Arc<Compiled>, service: ServiceKey, effects: &mut Effects) {
        let Some(plan) = table.services.get(&service) else {
            return;
        };
        let mut endpoints = BTreeMap::new();
        // The configuration says which endpoints this site has; routes say how they are.
        for (key, weight) in &plan.own {
            let (own, weight) = (self.own.clone(), u16::from(*weight));
            let endpoint = self.endpoint(service, *key, own, Health::Unknown, weight);
            endpoints.insert(*key, endpoint);
        }
        for key in self.keys(service) {
            let Some((endpoint, health, weight)) = self.announced(key) else {
                continue;
            };
            if endpoint.site == table.numbers.site {
                if let Some(own) = endpoints.get_mut(&endpoint) {
                    *own = self.endpoint(service, endpoint, self.own.clone(), health, own.weight);
                }
                continue;
            }
            let Some(site) = table.site_names.get(&endpoint.site) else {
                continue;
            };
            let built = self.endpoint(service, endpoint, site.clone(), health, weight);
            endpoints.insert(endpoint, built);
        }
        if let Some(ejections) = self.ejections.get_mut(&service) {
            ejections.retain(|key| endpoints.contains_key(key));
        }
        let starting = endpoints.values();
        let steps =
            starting.filter_map(|e: &Endpoint| e.next_step(plan.policy.slow_start, self.now));
        match steps.min() {
            Some(next) => self.steps.insert(service, next),
            None => self.steps.remove(&service),
        };
        let endpoints = endpoints.into_values().collect();
        let set = EndpointSet::build(&plan.policy, self.now, endpoints);
        let set = Arc::new(set);
        let before = self.published.insert(service, Arc::clone(&set));
        let died = before.iter().flat_map(|before| {
            before
                .endpoints()
                .iter()
                .filter(|e| before.is_alive(&e.key) && !set.is_alive(&e.key))
        });
        let died: Vec<EndpointKey> = died.map(|e| e.key).collect();
        // The set first: a try that is sent elsewhere must not find the dead endpoint in it.
        let urgent = !died.is_empty();
        let (tenant, service) = service;
        let cell = Arc::clone(&plan.cell);
        let about = About::Set(tenant, service);
        effects.say(about, urgent, Effect::Endpoints { cell, set });
        effects
            .down
            .extend(died.into_iter().map(|endpoint| Effect::EndpointDown {
                tenant,
                service,
                endpoint,
            }));
    }

    /// The routes of a service's endpoints.
    fn keys(&self, service: ServiceKey) -> impl Iterator<Item = &Key> {
        let least = Key::Site {
            rd: Rd::default(),
            site: SiteId(0),
        };
        let keys = self.by_service.range((service, least)..);
        let keys = keys.take_while(move |(of, _)| *of == service);
        keys.map(|(_, key)| key)
    }

    fn endpoint(
        &self,
        service: ServiceKey,
        key: EndpointKey,
        site: SiteName,
        health: Health,
        weight: u16,
    ) -> Endpoint {
        let local = site == self.own;
        let way = self.ways.as_ref().and_then(|ways| ways.way(key.site));
        let distance = way.map(Way::rtt);
        let set = self.published.get(&service);
        let known = set.and_then(|set| set.find(&key));
        let ejections = self.ejections.get(&service);
        let selectable = matches!(health, Health::Healthy | Health::Degraded);
        let since = known.and_then(|known| known.since).unwrap_or(self.now);
        Endpoint {
            key,
            health,
            weight,
            ejected: ejections.is_some_and(|ejections| ejections.is_out(&key)),
            share: self
                .admission(&service, key.site)
                .map_or(WHOLE, Admission::share),
            since: selectable.then_some(since),
            distance: if local {
                None
            } else {
                Some(distance.unwrap_or(FAR))
            },
            reachable: local || distance.is_some(),
            site,
            stats: known.map_or_else(Arc::default, |known| Arc::clone(&known.stats)),
        }
    }

    /// An endpoint route with its effective health: the worse of its own and its site's.
    fn announced(&self, key: &Key) -> Option<(EndpointKey, Health, u16)> {
        let Key::Endpoint {
            rd,
            site,
            network,
            address,
            port,
            ..
        } = key
        else {
            return None;
        };
        let value = self.routes.get(key)?.as_endpoint()?;
        let site_key = Key::Site {
            rd: bgp::Rd {
                slot: base::SlotId(0),
                ..*rd
            },
            site: *site,
        };
        let of_site = self.routes.get(&site_key).and_then(Value::state);
        let state = match of_site {
            Some(state) if state.badness() > value.state.badness() => state,
            Some(_) | None => value.state,
        };
        let address = std::net::SocketAddr::new(*address, *port);
        let endpoint = EndpointKey {
            site: *site,
            network: *network,
            address,
        };
        Some((endpoint, health_of(state), u16::from(value.weight)))
    }
}

/// The distance of a site that was never measured.
const FAR: Duration = Duration::from_secs(1);

fn service_of(table: &Compiled, key: &Key) -> Option<ServiceKey> {
    match key {
        Key::Endpoint { rd, service, .. } => {
            let tenant = table.slots.get(&(rd.site, rd.slot))?;
            Some((*tenant, *service))
        }
        Key::Site { .. }
        | Key::Service { .. }
        | Key::HttpRoute { .. }
        | Key::Policy { .. }
        | Key::Link { .. }
        | Key::Unknown { .. } => None,
    }
}

/// Whose load a Service route tells, and where: of a service that is served here.
fn loaded(table: &Compiled, key: &Key) -> Option<(ServiceKey, SiteId)> {
    let Key::Service { rd, service, site } = key else {
        return None;
    };
    let tenant = table.slots.get(&(rd.site, rd.slot))?;
    let service = (*tenant, *service);
    table
        .services
        .contains_key(&service)
        .then_some((service, *site))
}

fn health_of(state: State) -> Health {
    match state {
        State::Unknown => Health::Unknown,
        State::Healthy => Health::Healthy,
        State::Degraded => Health::Degraded,
        State::Draining => Health::Draining,
        State::Maintenance => Health::Maintenance,
        State::Unhealthy => Health::Unhealthy,
        State::Withdrawn => Health::Withdrawn,
    }
}
