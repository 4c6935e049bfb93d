//! The checkers: what must hold whatever goes wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use api::sync::TroubleKind;
use balance::{EndpointKey, EndpointSet};
use base::{Instant, Revision, Rng, ServiceId, TenantId};
use bgp::{Key, LocalRoute, Seq};
use http::Method;
use l7::{Decision, RequestHead, StreamClaim};
use plan::{Compiled, Event, Part, ServicePlan, TargetKey};

use crate::{
    faults::{self, Manner},
    planet::POPS,
    shell::Sim,
};

/// Silence is known after two probes: a second; then the way of the news, with a lost packet.
const DEATH_IS_KNOWN: Duration = Duration::from_millis(1500);

/// After something on the way restarted or came back: tunnel, session and table first.
const SETTLED: Duration = Duration::from_secs(4);

/// A dead tunnel is noticed after 900 ms.
const CUT_IS_KNOWN: Duration = Duration::from_millis(1000);

/// Ways may change once in this time while it is quiet.
const STEADY: Duration = Duration::from_secs(10);

/// No more violations of one checker are kept.
const MOST_OF_EACH: usize = 20;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Checker {
    /// No ingress ever selects, and no egress ever admits, an endpoint of another tenant.
    Tenant,
    /// A dead endpoint is gone from every connected ingress within 1.5 s of its death (or of its
    /// first probe, if it was configured dead), or 4 s after something on the way between them
    /// restarted.
    DeadEndpoint,
    /// What a node has no way to is not eligible there, one second after its own tunnel died or 4 s
    /// after all others on the way are settled.
    Unreachable,
    /// A way leads over PoPs and never in a circle, and when it is quiet it does not change twice in
    /// ten seconds.
    Way,
    /// No key's seq goes back at its originator, over restarts too.
    Sequence,
    /// When it is quiet every node's eligible sets are the truth.
    Truth,
    /// When it is quiet both halves of every node run the newest bundle; none is ever refused.
    Revision,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When, on the virtual clock.
    pub at: Instant,
    /// What was broken.
    pub checker: Checker,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.since(Instant::ZERO);
        write!(f, "{at:?} {:?}: {}", self.checker, self.what)
    }
}

type Choices = (Arc<EndpointSet>, Vec<EndpointKey>);

/// What the checkers remember.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    violations: Vec<Violation>,
    sequences: BTreeMap<(usize, Key), Seq>,
    requests: u64,
    answered: u64,
    /// Since when each endpoint is probed by its gateway.
    probed: BTreeMap<(usize, SocketAddr), Instant>,
    /// What each PoP may choose from, by the set it was found in.
    choices: BTreeMap<(usize, TenantId, ServiceId), Choices>,
    /// The ways of each node over others, and when each changed last while it was quiet.
    ways: BTreeMap<usize, BTreeMap<usize, Vec<usize>>>,
    changes: BTreeMap<(usize, usize), Instant>,
}

impl Ledger {
    /// A few of each are enough to see what is wrong.
    pub(crate) fn add(&mut self, violation: Violation) {
        let same = self
            .violations
            .iter()
            .filter(|v| v.checker == violation.checker);
        if same.count() < MOST_OF_EACH {
            self.violations.push(violation);
        }
    }

    pub(crate) fn finish(self) -> (Vec<Violation>, u64, u64) {
        (self.violations, self.requests, self.answered)
    }
}

impl Sim {
    fn broken(&mut self, checker: Checker, what: String) {
        self.violation(Violation {
            at: self.now,
            checker,
            what,
        });
    }

    pub(crate) fn rejected(&mut self, node: usize, revision: Revision, why: &plan::CompileError) {
        let what = format!("node {node} refuses revision {revision}: {why}");
        self.broken(Checker::Revision, what);
    }

    /// A new set is of one tenant.
    pub(crate) fn check_set(&mut self, node: usize, set: &EndpointSet) {
        let show = |e: &balance::Endpoint| {
            format!(" {}={:?},{},{:?}", e.key, e.health, e.reachable, e.distance)
        };
        let shown: String = set.endpoints().iter().map(show).collect();
        self.note(format_args!("{node} set{shown}"));
        let tenants: BTreeSet<&base::Name> =
            set.endpoints().iter().map(|e| &e.site.tenant).collect();
        if tenants.len() > 1 {
            self.broken(
                Checker::Tenant,
                format!("node {node} mixes {tenants:?} in one set"),
            );
        }
    }

    /// A gateway probes these from now on.
    pub(crate) fn probes(&mut self, node: usize, table: &Compiled) {
        let now: BTreeSet<SocketAddr> = table.targets.keys().map(|key| key.address).collect();
        let kept = |(n, address): &(usize, SocketAddr)| *n != node || now.contains(address);
        self.ledger.probed.retain(|place, _| kept(place));
        for address in &now {
            let first = self.now;
            self.ledger.probed.entry((node, *address)).or_insert(first);
        }
    }

    pub(crate) fn check_sequence(&mut self, node: usize, route: &LocalRoute) {
        self.note(format_args!(
            "{node} originate {:?} {:?}",
            route.key, route.value
        ));
        let Some(seq) = route.value.seq(&route.key) else {
            return;
        };
        let last = self.ledger.sequences.insert((node, route.key.clone()), seq);
        if last.is_some_and(|last| !seq.is_after(last)) {
            let what = format!("node {node} says {seq} after {last:?} of {:?}", route.key);
            self.broken(Checker::Sequence, what);
        }
    }

    /// Look at what every PoP would choose from now.
    pub(crate) fn sweep(&mut self) {
        for pop in 0..POPS {
            let Some(table) = self
                .half(pop, Part::Data)
                .and_then(|half| half.table.clone())
            else {
                continue;
            };
            for ((tenant, service), plan) in &table.services {
                let set = plan.cell.load_full();
                let known = self.ledger.choices.remove(&(pop, *tenant, *service));
                let keys = match known {
                    Some((of, keys)) if Arc::ptr_eq(&of, &set) => keys,
                    Some(_) | None => eligible(&set),
                };
                for key in &keys {
                    self.check_choice(pop, &table, plan, key);
                }
                self.ledger
                    .choices
                    .insert((pop, *tenant, *service), (set, keys));
            }
        }
    }

    fn check_choice(
        &mut self,
        pop: usize,
        table: &Compiled,
        plan: &ServicePlan,
        key: &EndpointKey,
    ) {
        let site = &table.site_names[&key.site];
        let gateway = self.planet.index[site];
        if site.tenant != plan.name.tenant {
            let what = format!("PoP {pop} may choose {key} of {site} for {}", plan.name);
            self.broken(Checker::Tenant, what);
        }
        let first = self.way(pop, gateway).first().copied().unwrap_or(gateway);
        let tunnels = [(first, pop), (pop, first)].map(|pair| self.tunnels.get(&pair));
        let tunnel = tunnels.into_iter().flatten().max_by_key(|t| t.since);
        let (up, since) = tunnel.map_or((false, Instant::ZERO), |t| (t.up, t.since));
        if !up && self.now > since + CUT_IS_KNOWN {
            let what = format!(
                "PoP {pop} may choose {key} of {site} over {first}: no tunnel since {since:?}"
            );
            self.broken(Checker::Unreachable, what);
        }
        // Over others: what they say of their tunnels has to come here.
        let settled = match first == gateway {
            true => Some(since),
            false => self.settled(gateway),
        };
        let Some(since) = settled else { return };
        let late = self.now > since + SETTLED;
        if late && first != gateway && !self.is_connected(pop, gateway) {
            let what = format!("PoP {pop} may choose {key} of {site}: no way since {since:?}");
            self.broken(Checker::Unreachable, what);
        }
        let Some((_, death)) = self.endpoints.get(&(gateway, key.address)).copied() else {
            return;
        };
        let place = (gateway, key.address);
        let Some(probed) = self.ledger.probed.get(&place).copied() else {
            return;
        };
        let whole = [gateway, pop]
            .iter()
            .all(|node| self.nodes[*node].halves.iter().all(Option::is_some));
        if !up || !whole || !self.is_connected(pop, gateway) {
            return;
        }
        let restarts = [gateway, pop]
            .into_iter()
            .flat_map(|node| self.nodes[node].since);
        let settled = restarts.chain([since]).max().unwrap_or(since);
        if self.now > (death.max(probed) + DEATH_IS_KNOWN).max(settled + SETTLED) {
            let what = format!(
                "PoP {pop} may choose {key} of {site} for {}: dead since {death:?}, all settled \
                 since {settled:?}",
                plan.name
            );
            self.broken(Checker::DeadEndpoint, what);
        }
    }

    /// The checks of the end.
    pub(crate) fn check_quiet(&mut self) {
        let configured = self.planet.endpoints();
        for node in 0..self.nodes.len() {
            let wanted = self.planet.bundles[node].revision;
            for part in [Part::Control, Part::Data] {
                let have = self.half(node, part).and_then(|half| half.table.as_ref());
                let have = have.map(|table| table.revision);
                if have != Some(wanted) {
                    let what = format!("node {node} {part:?} runs {have:?}, not {wanted}");
                    self.broken(Checker::Revision, what);
                }
            }
            let Some(table) = self
                .half(node, Part::Data)
                .and_then(|half| half.table.clone())
            else {
                continue;
            };
            for plan in table.services.values() {
                let truth: BTreeSet<(usize, SocketAddr)> = configured
                    .iter()
                    .filter(|c| c.service == plan.name && self.is_there(node, c.node, c.address))
                    .map(|c| (c.node, c.address))
                    .collect();
                let place = |key: &EndpointKey| {
                    (self.planet.index[&table.site_names[&key.site]], key.address)
                };
                let chosen: BTreeSet<(usize, SocketAddr)> =
                    eligible(&plan.cell.load()).iter().map(place).collect();
                if chosen != truth {
                    let wrong: Vec<_> = chosen.difference(&truth).collect();
                    let missing: Vec<_> = truth.difference(&chosen).collect();
                    let what = format!(
                        "node {node}, {}: wrong {wrong:?}, missing {missing:?}",
                        plan.name
                    );
                    self.broken(Checker::Truth, what);
                }
            }
        }
    }

    /// Is there any way from one node to another, over as many PoPs as a way may have?
    fn is_connected(&self, from: usize, to: usize) -> bool {
        // A way over all the PoPs there are is not too long.
        let mut found = BTreeSet::from([from]);
        for _ in 0..POPS {
            let next = (0..POPS).filter(|pop| found.iter().any(|at| self.is_linked(*at, *pop)));
            let next: Vec<usize> = next.collect();
            found.extend(next);
        }
        found.contains(&to) || found.iter().any(|at| self.is_linked(*at, to))
    }

    /// Since when every PoP runs, and no tunnel among them or of `node` came or went; `None` while
    /// one does not.
    fn settled(&self, node: usize) -> Option<Instant> {
        let pops = &self.nodes[..POPS];
        if !pops
            .iter()
            .all(|pop| pop.halves.iter().all(Option::is_some))
        {
            return None;
        }
        let concerns =
            |(a, b): &(usize, usize)| (*a < POPS && *b < POPS) || *a == node || *b == node;
        let tunnels = self.tunnels.iter().filter(|(pair, _)| concerns(pair));
        let tunnels = tunnels.map(|(_, tunnel)| tunnel.since);
        tunnels.chain(pops.iter().flat_map(|pop| pop.since)).max()
    }

    /// The ways of a node over others are new.
    pub(crate) fn check_ways(&mut self, node: usize, ways: &BTreeMap<usize, Vec<usize>>) {
        self.note(format_args!("{node} ways {ways:?}"));
        for (to, hops) in ways {
            let each: BTreeSet<usize> = hops.iter().copied().chain([node]).collect();
            let relays = hops.split_last().map_or(&[][..], |(_, relays)| relays);
            let good = each.len() == hops.len() + 1
                && hops.last() == Some(to)
                && relays.iter().all(|at| *at < POPS);
            if !good {
                self.broken(
                    Checker::Way,
                    format!("node {node} reaches {to} over {hops:?}"),
                );
            }
        }
        let before = self
            .ledger
            .ways
            .insert(node, ways.clone())
            .unwrap_or_default();
        if self.now < Instant::ZERO + faults::DEATHS {
            return;
        }
        let tos: BTreeSet<usize> = before.keys().chain(ways.keys()).copied().collect();
        for to in tos.into_iter().filter(|to| before.get(to) != ways.get(to)) {
            let last = self.ledger.changes.insert((node, to), self.now);
            if last.is_some_and(|last| self.now < last + STEADY) {
                let what = format!(
                    "node {node} changes its way to {to} again, from {:?} to {:?}",
                    before.get(&to),
                    ways.get(&to)
                );
                self.broken(Checker::Way, what);
            }
        }
    }

    fn is_there(&self, from: usize, node: usize, address: SocketAddr) -> bool {
        let reached = from == node || self.is_connected(from, node);
        reached && !self.endpoints.contains_key(&(node, address))
    }

    /// One request at some PoP, all the way to the endpoint.
    pub(crate) fn request(&mut self) {
        let pop = usize::try_from(self.rng.below(POPS as u64)).unwrap_or(0);
        let tenant = self.rng.below(5);
        let path = if self.rng.chance(1, 3) { "/api/x" } else { "/" };
        let mut rng = Rng::new(self.rng.next_u64());
        let Some(table) = self
            .half(pop, Part::Data)
            .and_then(|half| half.table.clone())
        else {
            return;
        };
        self.ledger.requests += 1;
        let host = format!("t{tenant}.example");
        let head = RequestHead {
            port: 80,
            tls: false,
            sni: None,
            trust: None,
            method: &Method::GET,
            authority: "",
            query: None,
            host: &host,
            path,
            fields: &l7::Fields::default(),
        };
        let Decision::Forward(forward) = l7::decide(&table.ingress, &head, &mut rng) else {
            return;
        };
        let cluster = forward.cluster;
        let set = cluster.cell.load();
        let Some(chosen) = balance::pick(&set, self.now, &mut rng, &[], None) else {
            return;
        };
        let gateway = self.planet.index[&chosen.site];
        let way = self.way(pop, gateway);
        let froms = std::iter::once(pop).chain(way.iter().copied());
        let mut stretches = froms.zip(way.iter().copied());
        if !stretches.all(|(from, to)| self.is_linked(from, to)) {
            return;
        }
        let authority = format!("{}:{}", cluster.service, cluster.port);
        let via: Vec<_> = way
            .iter()
            .map(|at| self.planet.sites[*at].clone())
            .collect();
        for at in 1..via.len() {
            let passed = l7::pass(&self.planet.sites[pop], &cluster.service.tenant, &via[at..]);
            if let Err(refusal) = passed {
                let what = format!("{} passes {authority} not on: {refusal}", via[at - 1]);
                self.broken(Checker::Way, what);
            }
        }
        let claim = StreamClaim {
            authority: &authority,
            endpoint: chosen.key,
            lb: &forward.host.lb_name,
        };
        self.leave(pop, gateway, &claim, cluster.service.tenant.as_str());
        self.trespass(pop, gateway, tenant, chosen.key);
    }

    /// At the egress of `gateway`.
    fn leave(&mut self, pop: usize, gateway: usize, claim: &StreamClaim<'_>, tenant: &str) {
        let peer = self.planet.sites[pop].clone();
        let Some(table) = self
            .half(gateway, Part::Data)
            .and_then(|half| half.table.clone())
        else {
            return;
        };
        let Ok(admitted) = l7::admit(&table.egress, &peer, claim) else {
            return;
        };
        if admitted.cluster.service.tenant.as_str() != tenant
            || self.planet.sites[gateway].tenant.as_str() != tenant
        {
            let what = format!("gateway {gateway} admits {claim:?} from {peer}");
            self.broken(Checker::Tenant, what);
        }
        let address = admitted.endpoint.address;
        let kind = match self.endpoints.get(&(gateway, address)) {
            None => {
                self.ledger.answered += 1;
                return;
            }
            Some((Manner::Killed, _)) => TroubleKind::Refused,
            Some((Manner::Silent, _)) => TroubleKind::Suspect,
        };
        let key = TargetKey {
            tenant: admitted.cluster.tenant,
            service: admitted.cluster.id,
            address,
        };
        self.give(gateway, Part::Control, Event::Trouble(key, kind));
    }

    /// Nobody gets another tenant's service, whatever is claimed.
    fn trespass(&mut self, pop: usize, gateway: usize, tenant: u64, endpoint: EndpointKey) {
        let Some(table) = self
            .half(gateway, Part::Data)
            .and_then(|half| half.table.clone())
        else {
            return;
        };
        let other = format!("cart.shop.t{}:8080", (tenant + 1) % 5);
        let own = format!("cart.shop.t{tenant}:8080");
        // A gateway of the next tenant is five numbers minus four away.
        let stranger = POPS + (gateway + 1 - POPS) % (self.nodes.len() - POPS);
        let strange = self.planet.sites[stranger].tenant != self.planet.sites[gateway].tenant;
        for (peer, authority) in [(pop, &other), (stranger, &own)] {
            let claim = StreamClaim {
                authority,
                endpoint,
                lb: "shop/web",
            };
            let peer_site = self.planet.sites[peer].clone();
            let admitted = l7::admit(&table.egress, &peer_site, &claim).is_ok();
            if admitted && (peer == pop || strange) {
                let what = format!("gateway {gateway} admits {claim:?} from {peer_site}");
                self.broken(Checker::Tenant, what);
            }
        }
    }
}

/// Every endpoint a pick can come to, found by picking.
fn eligible(set: &Arc<EndpointSet>) -> Vec<EndpointKey> {
    let mut rng = Rng::new(0);
    let mut tried = Vec::new();
    while let Some(endpoint) = balance::pick(set, Instant::ZERO, &mut rng, &tried, None) {
        tried.push(endpoint.key);
    }
    debug_assert_eq!(tried.len(), set.eligible());
    tried
}
