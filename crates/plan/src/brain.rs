//! The machine: closed events in, closed effects out.

mod import;
mod links;
mod load;
mod originate;
mod steady;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use api::sync::{Bundle, Link, Running, TroubleKind};
use balance::{Cell, EndpointKey, EndpointSet, Health, ProbeOutcome};
use base::{Instant, QualifiedService, Revision, ServiceId, SiteName, TenantId};
use path::{Load, Loss};

use crate::{Cells, CompileError, Compiled, Me, Target, TargetKey};
use import::Import;
use originate::Origin;

/// Which half of a node a brain works for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Probes endpoints and announces what it finds.
    Control,
    /// Imports what is announced and publishes endpoint sets.
    Data,
}

/// What the world tells the brain.
#[derive(Debug)]
pub enum Event {
    /// What the site should run now; already verified, newer than all before.
    Bundle(Box<Bundle>),
    /// The answer to [`Effect::Compile`].
    Compiled(Revision, Result<Box<Compiled>, CompileError>),
    /// The answer to [`Effect::Probe`] (control).
    Probed(TargetKey, ProbeResult),
    /// What the egress proxy saw of an endpoint of this site (control).
    Trouble(TargetKey, TroubleKind),
    /// The best route of a key changed; `None`: it exists no more (data).
    Route(bgp::Key, Option<bgp::Value>),
    /// The tunnels to a site: the best measured round trip, or `None` when the last one is down
    /// (data).
    Reach(SiteName, Option<Duration>),
    /// It is likely that nothing passes to a site over its tunnels, or it is not any more (data).
    Doubt(SiteName, bool),
    /// The part of what goes to a site and back that is lost (data).
    Loss(SiteName, Loss),
    /// To this site the link that has most room is so full (data).
    Load(SiteName, Load),
    /// The tunnels of this node that are up, one for each site at the other end (control).
    Links(Vec<Link>),
    /// What runs at the site's own endpoints, of each service that says how much these take well;
    /// one that is not named has nothing running (control).
    Running(Vec<Running>),
    /// An endpoint answered badly as often in a row as its service bears (data).
    Outlier(TenantId, ServiceId, EndpointKey),
}

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// How it ended.
    pub outcome: ProbeOutcome,
    /// How long the answer took, if there was one.
    pub rtt: Option<Duration>,
}

/// What the brain wants done.
#[derive(Debug)]
pub enum Effect {
    /// Run [`compile`](crate::compile()) somewhere else and answer with [`Event::Compiled`].
    Compile {
        /// What to compile.
        bundle: Box<Bundle>,
        /// The cells to carry over.
        cells: Cells,
    },
    /// Serve by these snapshots from now on, and acknowledge their revision.
    Publish(Arc<Compiled>),
    /// The revision does not compile here; the snapshots before it go on serving.
    Reject(Revision, CompileError),
    /// Store `set` in `cell`.
    Endpoints {
        /// Where the workers look.
        cell: Cell,
        /// What they should see.
        set: Arc<EndpointSet>,
    },
    /// The endpoint stopped being alive: tries that wait for it should go elsewhere.
    EndpointDown {
        /// The owner.
        tenant: TenantId,
        /// The service.
        service: ServiceId,
        /// The endpoint.
        endpoint: EndpointKey,
    },
    /// These VIPs, and no others, have a healthy endpoint behind them (data).
    Vips(BTreeSet<IpAddr>),
    /// Streams to these sites go over others, to all the rest directly (data): the sites on the
    /// way, the destination last.
    Ways(BTreeMap<SiteName, Vec<SiteName>>),
    /// Probe this endpoint now.
    Probe(TargetKey, Box<Target>),
    /// Announce, or announce anew.
    Originate(bgp::LocalRoute),
    /// Announce no more.
    Withdraw(bgp::Key),
}

/// One endpoint as this node sees it, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointFact {
    /// The service.
    pub service: QualifiedService,
    /// The endpoint's site.
    pub site: SiteName,
    /// Its address there.
    pub address: SocketAddr,
    /// Its health.
    pub health: Health,
    /// Is there a way to its site?
    pub reachable: bool,
    /// Is it taken out for a while because of its answers?
    pub ejected: bool,
    /// The round trip to its site.
    pub distance: Option<Duration>,
    /// How loaded the service is in its site, in 1/65535 of its capacity, as far as that is known.
    pub load: Option<u16>,
    /// Of a thousand requests that would go to its site, how many do; `None`: all.
    pub share: Option<u16>,
}

/// The way to one site, for status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WayFact {
    /// The sites on it, the destination last.
    pub hops: Vec<SiteName>,
    /// The round trip to each of them from the one before.
    pub rtts: Vec<Duration>,
    /// Of what sort each of these links is.
    pub grades: Vec<path::Grade>,
    /// How full each of them is.
    pub loads: Vec<path::Load>,
}

/// The machine of one half of one node.
///
/// Effects come out by priority: an endpoint or site going down, then other health, then
/// configuration (in control a table comes before what is announced by it); nothing older about a set or a route comes after something newer. The shell
/// drains them before it waits, so their number is bounded by what the events of one batch can
/// cause: a few for each endpoint.
#[derive(Debug)]
pub struct Brain {
    me: Me,
    table: Option<Arc<Compiled>>,
    /// A revision is being compiled, and perhaps a newer one waits.
    compiling: bool,
    waiting: Option<Box<Bundle>>,
    half: Half,
    effects: Effects,
}

#[derive(Debug)]
enum Half {
    Control(Box<Origin>),
    Data(Box<Import>),
}

/// Effects by priority. What is said about one thing never overtakes what is said about it later,
/// although "down" overtakes everything else: of other health only the newest word is kept.
#[derive(Debug, Default)]
struct Effects {
    down: VecDeque<Effect>,
    health: VecDeque<Queued>,
    newest: BTreeMap<About, Effect>,
    configuration: VecDeque<Effect>,
}

/// Places that a queue of effects keeps when it is empty.
const KEPT: usize = 64;

#[derive(Debug)]
enum Queued {
    Effect(Effect),
    /// What is newest then; nothing if "down" took its place.
    Newest(About),
}

/// What an effect is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    Set(TenantId, ServiceId),
    Route(bgp::Key),
    Vips,
    Ways,
}

impl Effects {
    /// Say something about `about`, at once if it is `down`.
    fn say(&mut self, about: About, down: bool, effect: Effect) {
        if down {
            self.newest.remove(&about);
            self.down.push_back(effect);
        } else if self.newest.insert(about.clone(), effect).is_none() {
            self.health.push_back(Queued::Newest(about));
        }
    }

    fn pop(&mut self) -> Option<Effect> {
        if let Some(effect) = self.down.pop_front() {
            return Some(effect);
        }
        while let Some(queued) = self.health.pop_front() {
            let effect = match queued {
                Queued::Effect(effect) => Some(effect),
                Queued::Newest(about) => self.newest.remove(&about),
            };
            if effect.is_some() {
                return effect;
            }
        }
        self.down.shrink_to(KEPT);
        self.health.shrink_to(KEPT);
        self.configuration.pop_front()
    }
}

impl Brain {
    /// A brain that knows nothing yet. `seed` is for probe jitter, `start` is where the numbers of
    /// what it announces begin ([`bgp::Sequence::start`]).
    #[must_use]
    pub fn new(part: Part, me: Me, seed: u64, start: bgp::Seq) -> Self {
        let half = match part {
            Part::Control => Half::Control(Box::new(Origin::new(seed, start))),
            Part::Data => Half::Data(Box::new(Import::new(me.site.clone()))),
        };
        Brain {
            me,
            table: None,
            compiling: false,
            waiting: None,
            half,
            effects: Effects::default(),
        }
    }

    /// Which node it works for.
    #[must_use]
    pub fn me(&self) -> &Me {
        &self.me
    }

    /// The snapshots that serve now.
    #[must_use]
    pub fn table(&self) -> Option<&Arc<Compiled>> {
        self.table.as_ref()
    }

    /// The greatest sequence number given out, to be kept on disk (control).
    #[must_use]
    pub fn sequence(&self) -> Option<bgp::Seq> {
        match &self.half {
            Half::Control(origin) => Some(origin.sequence()),
            Half::Data(_) => None,
        }
    }

    /// Every endpoint this node knows (data; empty in control).
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointFact> {
        match (&self.half, &self.table) {
            (Half::Data(import), Some(table)) => import.facts(table),
            (Half::Data(_), None) | (Half::Control(_), _) => Vec::new(),
        }
    }

    /// Every selected route, in the order of their keys (data; empty in control).
    pub fn routes(&self) -> impl Iterator<Item = (&bgp::Key, &bgp::Value)> {
        let import = match &self.half {
            Half::Data(import) => Some(import.routes()),
            Half::Control(_) => None,
        };
        import.into_iter().flatten()
    }

    /// The way to every site that can be reached (data; empty in control).
    #[must_use]
    pub fn ways(&self) -> Vec<WayFact> {
        match (&self.half, &self.table) {
            (Half::Data(import), Some(table)) => import.ways(table),
            (Half::Data(_), None) | (Half::Control(_), _) => Vec::new(),
        }
    }

    /// Take in one event. Never fails: what does not fit is ignored.
    pub fn handle(&mut self, now: Instant, event: Event) {
        match event {
            Event::Bundle(bundle) => self.want(bundle),
            Event::Compiled(revision, result) => self.compiled(now, revision, result),
            Event::Probed(key, result) => {
                if let Half::Control(origin) = &mut self.half {
                    origin.handle_probed(now, key, result, &mut self.effects);
                }
            }
            Event::Trouble(key, kind) => {
                if let Half::Control(origin) = &mut self.half {
                    origin.handle_trouble(now, key, kind, &mut self.effects);
                }
            }
            Event::Route(key, value) => {
                if let Half::Data(import) = &mut self.half {
                    let import = import.at(now);
                    import.handle_route(self.table.as_ref(), key, value);
                }
            }
            Event::Reach(site, rtt) => {
                if let Half::Data(import) = &mut self.half {
                    let import = import.at(now);
                    import.handle_reach(site, rtt);
                }
            }
            Event::Doubt(site, doubted) => {
                if let Half::Data(import) = &mut self.half {
                    import.at(now).handle_doubt(site, doubted);
                }
            }
            Event::Loss(site, loss) => {
                if let Half::Data(import) = &mut self.half {
                    import.at(now).handle_loss(site, loss);
                }
            }
            Event::Load(site, load) => {
                if let Half::Data(import) = &mut self.half {
                    import.at(now).handle_load(site, load);
                }
            }
            Event::Links(links) => {
                if let Half::Control(origin) = &mut self.half {
                    let table = self.table.as_deref();
                    origin.handle_links(now, table, links, &mut self.effects);
                }
            }
            Event::Running(running) => {
                if let Half::Control(origin) = &mut self.half {
                    origin.handle_running(now, running, &mut self.effects);
                }
            }
            Event::Outlier(tenant, service, key) => {
                if let Half::Data(import) = &mut self.half {
                    let import = import.at(now);
                    import.handle_outlier(self.table.as_ref(), (tenant, service), key);
                }
            }
        }
    }

    /// Do what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.half {
            Half::Control(origin) => {
                origin.handle_timeout(now, &mut self.effects);
                if let (true, Some(table)) = (origin.links.is_due(now), &self.table) {
                    origin.announce_links(now, table, &mut self.effects);
                }
            }
            Half::Data(import) => import.at(now).handle_timeout(),
        }
    }

    /// When [`Brain::handle_timeout`] wants to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match &self.half {
            Half::Control(origin) => origin.poll_timeout(),
            Half::Data(import) => import.poll_timeout(),
        }
    }

    /// The next thing to do, by priority.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        if let Half::Data(import) = &mut self.half {
            import.flush(self.table.as_ref(), &mut self.effects);
        }
        self.effects.pop()
    }

    fn want(&mut self, bundle: Box<Bundle>) {
        if self.compiling {
            self.waiting = Some(bundle);
            return;
        }
        self.compiling = true;
        let cells = self
            .table
            .as_ref()
            .map(|table| table.cells())
            .unwrap_or_default();
        self.effects
            .configuration
            .push_back(Effect::Compile { bundle, cells });
    }

    fn compiled(
        &mut self,
        now: Instant,
        revision: Revision,
        result: Result<Box<Compiled>, CompileError>,
    ) {
        self.compiling = false;
        match result {
            Ok(table) => {
                let table = Arc::new(match &self.half {
                    Half::Control(_) => table.without_delivery(),
                    Half::Data(_) => *table,
                });
                let publish = Effect::Publish(Arc::clone(&table));
                match &mut self.half {
                    // What is announced is announced by a table that is in force.
                    Half::Control(origin) => {
                        self.effects.down.push_back(publish);
                        origin.handle_table(now, &table, &mut self.effects);
                    }
                    // The cells are filled before the table that leads to them is seen.
                    Half::Data(import) => {
                        import.at(now).handle_table(&table, &mut self.effects);
                        self.effects.configuration.push_back(publish);
                    }
                }
                self.table = Some(table);
            }
            Err(error) => {
                self.effects
                    .configuration
                    .push_back(Effect::Reject(revision, error));
            }
        }
        // Only the newest of those that came in the meantime was kept.
        if let Some(bundle) = self.waiting.take() {
            self.want(bundle);
        }
    }
}

#[cfg(test)]
mod tests;
