//! What an established session says, and what it leaves behind.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use base::Instant;
use bgp::{
    Trust,
    peer::{
        Close, ConnectionConfig, ConnectionId, FamilyConfig, Graceful, GracefulConfig, Incoming,
        Negotiated, PeerAs, PeerConfig as MachineConfig, graceful,
    },
    table::{Filter, NextHop, OwnAddresses, PeerConfig, PeerFamily, PeerIndex, RouteCount},
    wire::{
        Family, Finding, Notification, RefreshKind, Scratch, UpdateError, UpdateFindings, decode,
        end_of_rib, route_refresh,
    },
};

use crate::server::{
    NeighborConfig, NextHopChoice, ServerConfig,
    outbox::Outbox,
    worker::{Outgoing, Session as Event, Worker},
};

/// How long a neighbour that came back may take to say its whole table again (RFC 4724 §4.2).
const STALE: Duration = Duration::from_secs(360);
/// How long we wait for what a neighbour wants to hear, until we say that it has heard all
/// (RFC 4684 §6).
const SUBSCRIBE: Duration = Duration::from_secs(60);
/// Findings are logged at most so often.
const LOG: Duration = Duration::from_secs(1);

/// What follows when all shards have told their table.
#[derive(Debug, Default)]
struct Telling {
    /// Shards that have not told theirs yet.
    left: usize,
    refresh: bool,
    /// It was asked for again meanwhile.
    again: bool,
}

/// Routes of a session that ended, which the neighbour has not said anew.
#[derive(Clone, Copy, Debug)]
struct Stale {
    /// What they wait for.
    phase: Phase,
    /// How long.
    until: Instant,
    /// When they go at the latest: no end of another session moves it (RFC 9494 §4.2).
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// For the neighbour (RFC 4724 §4.2).
    Restart,
    /// For the neighbour, for long, behind all others' (RFC 9494 §4.2).
    LongLived,
    /// For the end of what it says, come back in time.
    Back,
}

pub(super) struct Session {
    index: PeerIndex,
    shards: usize,
    /// The connection of the session, and how many sessions there were.
    connection: Option<ConnectionId>,
    number: u32,
    negotiated: Option<Arc<Negotiated>>,
    /// What it wants to hear is not waited for longer than this.
    subscribe_by: Option<Instant>,
    telling: BTreeMap<Family, Telling>,
    /// Families whose routes cannot be told apart any more.
    disabled: Vec<Family>,
    /// After our own restart: families of which we wait for the end.
    awaited: Vec<Family>,
    /// Families with routes of a session before this one.
    stale: BTreeMap<Family, Stale>,
    findings: UpdateFindings,
    logged: Option<Instant>,
    pub(super) mail: Outgoing,
}

/// The machine of a neighbour.
pub(super) fn machine(config: &ServerConfig, at: usize) -> MachineConfig {
    let neighbor = &config.neighbors[at];
    let families: Vec<Family> = neighbor.families.iter().map(|f| f.family).collect();
    let peer_as = PeerAs::Exactly(neighbor.asn);
    let mut connection = ConnectionConfig::new(config.node, config.asn, peer_as, &families);
    connection.hold_time = neighbor.hold_time;
    connection.extended_message = neighbor.extended_messages;
    // Also without a restart of our own to announce: some tell their End-of-RIB, and what they
    // keep over a restart of theirs, only to those that know what it is (RFC 4724 §3).
    connection.graceful_restart = Some(GracefulConfig {
        restart_time: neighbor.restart_time.unwrap_or_default(),
        restarting: false,
        forwarding: false,
        notification: true,
    });
    let graceful = neighbor.restart_time.is_some();
    let spoken = neighbor.families.iter().map(|family| FamilyConfig {
        add_path_send: family.add_path_send > 0,
        add_path_receive: family.add_path_receive,
        graceful,
        long_lived: neighbor.long_lived,
        ..FamilyConfig::new(family.family)
    });
    connection.families = spoken.collect();
    let mut machine = MachineConfig::new(Arc::new(connection));
    machine.passive = neighbor.passive;
    machine
}

impl Session {
    pub(super) fn new(index: PeerIndex, shards: usize) -> Self {
        Session {
            index,
            shards,
            connection: None,
            number: 0,
            negotiated: None,
            subscribe_by: None,
            telling: BTreeMap::new(),
            disabled: Vec::new(),
            awaited: Vec::new(),
            stale: BTreeMap::new(),
            findings: UpdateFindings::default(),
            logged: None,
            mail: Vec::new(),
        }
    }

    /// How many shards tell routes of a family.
    fn tellers(&self, family: Family) -> usize {
        if family == Family::RTC {
            1
        } else {
            self.shards
        }
    }

    /// Was there one before?
    pub(super) const fn is_first(&self) -> bool {
        self.number == 0
    }

    /// The connection of the session, while there is one.
    pub(super) const fn connection(&self) -> Option<ConnectionId> {
        self.connection
    }

    pub(super) fn families(&self) -> &[Family] {
        self.negotiated.as_ref().map_or(&[], |n| &n.families)
    }

    /// One message of the neighbour.
    #[expect(clippy::too_many_arguments, reason = "all that one message can touch")]
    pub(super) fn incoming(
        &mut self,
        worker: &Worker,
        settings: &NeighborConfig,
        id: ConnectionId,
        local: Option<SocketAddr>,
        outbox: &Rc<Outbox>,
        scratch: &mut Scratch,
        negotiated: &Arc<Negotiated>,
        incoming: Incoming<'_>,
    ) -> Result<(), Notification> {
        match incoming {
            Incoming::Established => {
                // A neighbour that restarted connects before we have missed it.
                if let Some(old) = self.negotiated.take() {
                    let kept = graceful(&old, &Close::Replaced);
                    let now = (worker.clock)();
                    self.down(now, worker, settings.long_lived, kept.as_ref());
                }
                self.connection = Some(id);
                self.number += 1;
                let outbox = (self.number, outbox.clone());
                worker.outboxes.borrow_mut().insert(self.index, outbox);
                self.up(worker, settings, local, negotiated);
                Ok(())
            }
            Incoming::Update(body) => self.update(worker, settings, scratch, negotiated, body),
            Incoming::Refresh { family, kind } => {
                match kind {
                    RefreshKind::Request => self.refresh(family, worker),
                    RefreshKind::Begin => {
                        worker.tell(self.index, Event::Begin(family), &mut self.mail)
                    }
                    RefreshKind::End => worker.tell(self.index, Event::End(family), &mut self.mail),
                }
                Ok(())
            }
        }
    }

    fn up(
        &mut self,
        worker: &Worker,
        settings: &NeighborConfig,
        local: Option<SocketAddr>,
        negotiated: &Arc<Negotiated>,
    ) {
        let now = (worker.clock)();
        let families = negotiated.families.iter().filter_map(|family| {
            let spoken = settings.families.iter().find(|f| f.family == *family)?;
            let add_path = negotiated.add_path_send.contains(family);
            Some(PeerFamily {
                family: *family,
                add_path_send: if add_path { spoken.add_path_send } else { 0 },
                max_routes: spoken.max_routes,
                count: RouteCount::default(),
            })
        });
        let config = PeerConfig {
            asn: negotiated.peer_asn,
            node: negotiated.peer_node,
            address: settings.address,
            kind: settings.kind,
            families: families.collect(),
            max_message: negotiated.max_message_out,
            four_octet_as: negotiated.four_octet_as,
            knows_long_lived: negotiated.knows_long_lived,
            long_lived: negotiated.long_lived.iter().map(|long| long.0).collect(),
            constrained: negotiated.families.contains(&Family::RTC),
            next_hop: next_hop(settings, local),
            trust: Trust::Policy,
            import: settings.import.clone(),
            export: settings.export.clone(),
        };
        self.telling.clear();
        for family in &negotiated.families {
            let telling = Telling {
                left: self.tellers(*family),
                ..Telling::default()
            };
            self.telling.insert(*family, telling);
        }
        self.disabled.clear();
        self.awaited.clear();
        if let Some(restart) = &negotiated.graceful_restart
            && worker.restart.is_under_way()
            && !restart.restarting
        {
            // Of one that restarts too we do not wait: it waits for us.
            self.awaited.clone_from(&negotiated.families);
        }
        if self.awaited.is_empty() {
            worker.restart.heard(self.index);
        }
        self.negotiated = Some(negotiated.clone());
        self.subscribe_by = config.constrained.then_some(now + SUBSCRIBE);
        let up = Event::Up(Box::new(config), self.number);
        worker.tell(self.index, up, &mut self.mail);
        for (family, stale) in &mut self.stale {
            if !negotiated.forwarding_kept(*family) {
                worker.tell(self.index, Event::End(*family), &mut self.mail);
            } else if stale.phase == Phase::Restart {
                (stale.phase, stale.until) = (Phase::Back, now + STALE);
            }
        }
        self.stale
            .retain(|family, _| negotiated.forwarding_kept(*family));
    }

    fn update(
        &mut self,
        worker: &Worker,
        settings: &NeighborConfig,
        scratch: &mut Scratch,
        negotiated: &Negotiated,
        body: &[u8],
    ) -> Result<(), Notification> {
        let before = self.findings.last.take();
        let decoded = decode(body, &negotiated.context, scratch, &mut self.findings);
        if let Some(finding) = self.findings.last {
            self.log(worker, settings, finding, "something in an UPDATE is wrong");
        } else {
            self.findings.last = before;
        }
        let mut decoded = match decoded {
            Ok(decoded) => decoded,
            Err(UpdateError::Reset(notification)) => return Err(notification),
            Err(UpdateError::DisableFamily(family, finding)) => {
                tracing::error!(
                    neighbour = %settings.address, %family, offset = finding.offset,
                    code = finding.code, reason = finding.what,
                    "routes cannot be told apart: the family is off until the session ends"
                );
                self.disabled.push(family);
                worker.tell(self.index, Event::Forget(family), &mut self.mail);
                return Ok(());
            }
        };
        if !self.disabled.is_empty() {
            for sections in [&mut decoded.announced, &mut decoded.withdrawn] {
                for section in sections {
                    section.take_if(|section| self.disabled.contains(&section.family));
                }
            }
        }
        if let Some(family) = decoded.end_of_rib {
            self.stale.remove(&family);
            if family == Family::RTC {
                self.subscribe_by = None;
            }
            self.awaited.retain(|awaited| *awaited != family);
            if self.awaited.is_empty() {
                worker.restart.heard(self.index);
            }
            worker.tell(self.index, Event::End(family), &mut self.mail);
        }
        worker.routes(self.index, &decoded, &mut self.mail);
        Ok(())
    }

    fn log(
        &mut self,
        worker: &Worker,
        settings: &NeighborConfig,
        finding: Finding,
        sentence: &'static str,
    ) {
        let now = (worker.clock)();
        if self.logged.is_some_and(|at| now.since(at) < LOG) {
            return;
        }
        self.logged = Some(now);
        tracing::warn!(
            neighbour = %settings.address, offset = finding.offset, code = finding.code,
            reason = finding.what, discarded = self.findings.discarded_attributes,
            withdrawn = self.findings.treated_as_withdrawn, "{sentence}"
        );
    }

    /// The neighbour wants everything again (RFC 2918, RFC 7313 §4).
    fn refresh(&mut self, family: Family, worker: &Worker) {
        if let Some(telling) = self.telling.get_mut(&family) {
            telling.again = true;
            return;
        }
        self.begin(family, worker);
    }

    fn begin(&mut self, family: Family, worker: &Worker) {
        let telling = Telling {
            left: self.tellers(family),
            refresh: true,
            again: false,
        };
        self.telling.insert(family, telling);
        let enhanced = self.negotiated.as_ref().is_some_and(|n| n.enhanced_refresh);
        if enhanced {
            worker.push(self.index, route_refresh(family, RefreshKind::Begin));
        }
        worker.tell(self.index, Event::Refresh(family), &mut self.mail);
    }

    /// A shard has told all it had to tell of a family.
    pub(super) async fn table_sent(&mut self, family: Family, worker: &Worker) {
        let Some(telling) = self.telling.get_mut(&family) else {
            return;
        };
        telling.left = telling.left.saturating_sub(1);
        if telling.left > 0 {
            return;
        }
        let Telling { refresh, again, .. } = self.telling.remove(&family).unwrap_or_default();
        let enhanced = self.negotiated.as_ref().is_some_and(|n| n.enhanced_refresh);
        let end = match (refresh, enhanced) {
            (false, _) => Some(end_of_rib(family)),
            (true, true) => Some(route_refresh(family, RefreshKind::End)),
            (true, false) => None,
        };
        if let Some(end) = end {
            worker.push(self.index, end);
        }
        if again {
            self.begin(family, worker);
            let mut mail = std::mem::take(&mut self.mail);
            worker.post(&mut mail).await;
        }
    }

    /// The session ended; `graceful` says what of it stays, as long-lived stale no longer than
    /// `long_lived`.
    pub(super) fn down(
        &mut self,
        now: Instant,
        worker: &Worker,
        long_lived: Duration,
        graceful: Option<&Graceful>,
    ) {
        self.connection = None;
        self.negotiated = None;
        self.subscribe_by = None;
        self.telling.clear();
        let before = std::mem::take(&mut self.stale);
        for kept in graceful.map_or(&[][..], |graceful| &graceful.families) {
            let long_lived = kept.long_lived.min(long_lived);
            if !(kept.restart + long_lived).is_zero() {
                let before = before.get(&kept.family).filter(|_| !long_lived.is_zero());
                let stale = Stale::begin(now, kept.restart, long_lived, before);
                self.stale.insert(kept.family, stale);
            }
        }
        let keep = self.stale.keys().copied().collect();
        worker.tell(self.index, Event::Down(keep), &mut self.mail);
        for (family, stale) in &self.stale {
            if stale.phase == Phase::LongLived {
                worker.tell(self.index, Event::Outlive(*family), &mut self.mail);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let stale = self.stale.values().map(|stale| stale.until);
        stale.chain(self.subscribe_by).min()
    }

    /// A neighbour took too long to come back, or to say its whole table again.
    pub(super) async fn handle_timeout(&mut self, now: Instant, worker: &Worker) {
        for (family, stale) in &mut self.stale {
            if stale.until <= now && stale.phase == Phase::Restart && stale.deadline > now {
                (stale.phase, stale.until) = (Phase::LongLived, stale.deadline);
                worker.tell(self.index, Event::Outlive(*family), &mut self.mail);
            }
        }
        let late = self.stale.extract_if(.., |_, stale| stale.until <= now);
        for (family, _) in late {
            worker.tell(self.index, Event::End(family), &mut self.mail);
        }
        if self.subscribe_by.is_some_and(|by| by <= now) {
            self.subscribe_by = None;
            worker.tell(self.index, Event::Subscribed, &mut self.mail);
        }
        let mut mail = std::mem::take(&mut self.mail);
        worker.post(&mut mail).await;
    }
}

impl Stale {
    /// A session ended; what is stale `before` was not said anew in it.
    fn begin(now: Instant, restart: Duration, long: Duration, before: Option<&Stale>) -> Self {
        let deadline = before.map_or(now + restart + long, |before| before.deadline);
        let long_lived = before.is_some_and(|before| before.phase == Phase::LongLived);
        let phase = if long_lived || restart.is_zero() {
            Phase::LongLived
        } else {
            Phase::Restart
        };
        let until = match phase {
            Phase::Restart => deadline.min(now + restart),
            Phase::LongLived | Phase::Back => deadline,
        };
        Stale {
            phase,
            until,
            deadline,
        }
    }
}

/// Our own addresses, as far as they are known: those of the file, then the session's.
fn next_hop(settings: &NeighborConfig, local: Option<SocketAddr>) -> NextHop {
    let asked = |filter: &Filter| match filter {
        Filter::Policy(policy) => policy.names_own_next_hop(),
        Filter::Accept | Filter::Reject => false,
    };
    let known = || {
        let session = local.map(|local| local.ip().to_canonical());
        settings.next_hop_addresses.iter().copied().chain(session)
    };
    let own = OwnAddresses {
        v4: known().find_map(|address| match address {
            IpAddr::V4(address) => Some(address.octets()),
            IpAddr::V6(_) => None,
        }),
        v6: known().find_map(|address| match address {
            IpAddr::V6(address) => Some(address.octets().to_vec()),
            IpAddr::V4(_) => None,
        }),
    };
    match settings.next_hop {
        NextHopChoice::Own => NextHop::Own(own),
        NextHopChoice::Unchanged if asked(&settings.import) || asked(&settings.export) => {
            NextHop::UnchangedUnlessAsked(own)
        }
        NextHopChoice::Unchanged => NextHop::Unchanged,
    }
}
