//! The one owner of a node's links: it decides which live, and tells everybody else.

mod targets;

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
    sync::{Arc, Weak, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use base::{Instant, SiteName};
use path::{LinkQuality, Load, Parallel, Relief};
use pki::Identity;
use quinn::Endpoint;
use runtime::{Task, net::Share};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot, watch},
};

use crate::{
    accept::{self, Arriving, Come, Door, HANDSHAKE_TIMEOUT, Part, Seat},
    config::{Active, DialTarget, Prefer},
    dial::MOST_TRUNKS,
    event::{DownReason, LinkEvent, LinkId, Outbox},
    link::{self, Carrier, Ground, Seed, Side},
    links::{Link, LinkState, LinkTable, Transport},
    preface::{Introduction, Role},
    standing::{Stand, Standing},
    transport::{BoxPipe, Pipes},
    trunk::Trunk,
};

/// How often half-made links are swept.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a drain looks whether streams are left.
const DRAIN_LOOK: Duration = Duration::from_millis(50);
/// How long streams get to end in a drain; reserved ones are not waited for.
const DRAIN: Duration = Duration::from_secs(4);
/// Links of processes that leave, beside that of the one that serves: a node that is restarted hot
/// has one or two, and one that says so as often as it likes is not to have as many as it likes.
const MOST_BESIDE: usize = 4;

/// What tasks on the tunnel's thread tell the hub.
#[derive(Debug)]
pub(crate) enum Note {
    /// A connection dialled to us is good.
    Part(Part),
    /// And it is a data connection, or a spare one.
    Trunk(Arriving),
    /// And it is all of a link.
    Quic(Come),
    /// A link carries streams.
    Up {
        link: Arc<Link>,
        origin: Origin,
        close: watch::Sender<Option<DownReason>>,
    },
    /// A link is gone.
    Down { link: LinkId, reason: DownReason },
    /// A link's round trip changed.
    Quality { link: LinkId, quality: LinkQuality },
    /// What a link carries of packets changed.
    Mtu { link: LinkId, mtu: Option<u16> },
}

/// What the node tells the hub.
#[derive(Debug)]
pub(crate) enum Command {
    Configure {
        active: Box<Active>,
        done: oneshot::Sender<Listening>,
    },
    Attach {
        peer: Identity,
        side: Side,
        pipes: Pipes,
    },
    Stand {
        standing: Standing,
        done: oneshot::Sender<()>,
    },
    Sockets {
        done: oneshot::Sender<Vec<(SocketAddr, OwnedFd)>>,
    },
    Relieved,
}

/// How a link came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Target(u64),
    Accepted,
    Attached,
}

/// What became of the addresses to listen on.
#[derive(Debug, Default)]
pub struct Listening {
    /// Asked for, and what it is bound to (they differ if the port was 0).
    pub bound: Vec<(SocketAddr, SocketAddr)>,
    /// Addresses that could not be bound; they are tried again with the next configuration.
    pub failed: Vec<(SocketAddr, io::Error)>,
}

/// Numbers links.
#[derive(Clone, Debug, Default)]
pub(crate) struct NextId(Rc<Cell<u64>>);

impl NextId {
    pub(crate) fn next(&self) -> LinkId {
        self.0.set(self.0.get() + 1);
        LinkId(self.0.get())
    }
}

struct Entry {
    link: Arc<Link>,
    origin: Origin,
    close: watch::Sender<Option<DownReason>>,
    closing: bool,
    /// It is so much worse than others to the same site that it carries nothing new.
    rests: bool,
    /// What its load leaves of its share.
    relief: Relief,
    /// Of two links of different transports it is the one that is used.
    goes: bool,
    /// Streams that were opened on it until the last look.
    opened: Cell<u64>,
}

struct Target {
    target: DialTarget,
    addresses: watch::Sender<Vec<SocketAddr>>,
    /// It is not wanted any more, since then: it is kept until another carries streams.
    retiring: Option<Instant>,
}

struct Listener {
    bound: SocketAddr,
    socket: Rc<TcpListener>,
    task: Task,
    /// The same address for QUIC, if it is ours.
    quic: Option<(Endpoint, Task)>,
}

/// Connections of a link that is not whole yet.
#[derive(Default)]
struct Half {
    /// A second connection of the same role takes the place of the first, its seat included.
    parts: [Option<(BoxPipe, Seat)>; 3],
    since: Instant,
}

/// Its queues.
pub(crate) struct Ports {
    pub(crate) notes: mpsc::Receiver<Note>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) events: mpsc::Sender<LinkEvent>,
}

pub(crate) struct Hub {
    door: Rc<Door>,
    ground: Ground,
    table: Arc<ArcSwap<LinkTable>>,
    ids: NextId,
    links: BTreeMap<LinkId, Entry>,
    halves: BTreeMap<(Identity, u64), Half>,
    targets: BTreeMap<u64, Target>,
    next_target: u64,
    listeners: BTreeMap<SocketAddr, Listener>,
    /// Of the process before this one.
    inherited: BTreeMap<SocketAddr, std::net::TcpListener>,
    outbox: Outbox,
    /// Links that are down, on whose data connections something may still run.
    outlived: Vec<Weak<Link>>,
    /// When the drain ends at the latest.
    draining: Option<Instant>,
}

impl Hub {
    pub(crate) fn new(
        door: Rc<Door>,
        ground: Ground,
        table: Arc<ArcSwap<LinkTable>>,
        inherited: Vec<(SocketAddr, std::net::TcpListener)>,
    ) -> Self {
        Hub {
            door,
            ground,
            table,
            ids: NextId::default(),
            links: BTreeMap::new(),
            halves: BTreeMap::new(),
            targets: BTreeMap::new(),
            next_target: 0,
            listeners: BTreeMap::new(),
            inherited: inherited.into_iter().collect(),
            outbox: Outbox::default(),
            outlived: Vec::new(),
            draining: None,
        }
    }

    /// Runs until drained, or until the node dropped its end of `commands`.
    pub(crate) async fn run(mut self, mut ports: Ports) {
        let drain = self.ground.tasks.token();
        let mut tick = runtime::now() + SWEEP;
        let mut listened = true;
        while self.draining.is_none() || !self.links.is_empty() {
            tokio::select! {
                biased;
                () = drain.draining(), if self.draining.is_none() => {
                    tick = self.start_drain();
                }
                Some(note) = ports.notes.recv() => self.handle_note(note),
                command = ports.commands.recv(), if self.draining.is_none() => match command {
                    Some(command) => self.handle_command(command),
                    None => tick = self.start_drain(),
                },
                permit = ports.events.reserve(), if listened && !self.outbox.is_empty() => {
                    match (permit, self.outbox.pop()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        (Ok(_), None) => {}
                        (Err(_), _) => listened = false,
                    }
                }
                () = tokio::time::sleep(tick.since(runtime::now())) => {
                    tick = runtime::now() + self.handle_tick(runtime::now());
                }
            }
            if !listened {
                self.outbox = Outbox::default();
            }
        }
    }

    fn handle_note(&mut self, note: Note) {
        match note {
            Note::Part(part) => self.handle_part(part),
            Note::Trunk(arriving) => self.handle_trunk(arriving),
            Note::Quic(come) => self.handle_come(come),
            Note::Up {
                link,
                origin,
                close,
            } => self.handle_up(link, origin, close),
            Note::Down { link, reason } => self.handle_down(link, reason),
            Note::Quality { link, quality } => {
                if let Some(entry) = self.links.get(&link) {
                    let peer = entry.link.peer.clone();
                    self.share(&peer);
                    self.outbox.push(LinkEvent::Rtt {
                        peer,
                        link,
                        quality,
                    });
                }
            }
            Note::Mtu { link, mtu } => {
                if let Some(entry) = self.links.get(&link) {
                    let peer = entry.link.peer.clone();
                    self.outbox.push(LinkEvent::Mtu { peer, link, mtu });
                }
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Configure { active, done } => {
                // The node may have stopped waiting.
                let _ = done.send(self.configure(*active));
            }
            Command::Attach { peer, side, pipes } => {
                let origin = Origin::Attached;
                let seed = Seed {
                    id: self.ids.next(),
                    peer,
                    side,
                    origin,
                    wire_id: 0,
                    uplink: None,
                    first: false,
                    state: LinkState::between(&Stand::default(), Standing::Serves),
                    trunks: None,
                    other: Introduction::default(),
                };
                self.start_link(Carrier::Pipes(pipes), seed);
            }
            Command::Stand { standing, done } => {
                self.stand(standing);
                let _ = done.send(());
            }
            Command::Sockets { done } => {
                let _ = done.send(self.sockets());
            }
            Command::Relieved => self.stop_listening(|_| false),
        }
    }

    fn handle_part(&mut self, part: Part) {
        let key = (part.peer, part.wire_id);
        let half = self.halves.entry(key.clone()).or_default();
        if half.parts.iter().all(Option::is_none) {
            half.since = runtime::now();
        }
        half.parts[part.role.index()] = Some((part.pipe, part.seat));
        let (uplink, dialler) = (part.uplink, part.dialler);
        if half.parts.iter().any(Option::is_none) {
            return;
        }
        let Some(mut half) = self.halves.remove(&key) else {
            return;
        };
        let mut take = |role: Role| half.parts[role.index()].take().map(|(pipe, _)| pipe);
        let pipes = (
            take(Role::Control),
            take(Role::Forward),
            take(Role::Reverse),
        );
        if let (Some(control), Some(forward), Some(reverse)) = pipes {
            let pipes = Pipes {
                control,
                forward,
                reverse,
            };
            let (side, origin) = (Side::Acceptor, Origin::Accepted);
            let seed = Seed {
                id: self.ids.next(),
                peer: key.0,
                side,
                origin,
                wire_id: key.1,
                uplink,
                first: false,
                state: LinkState::between(&self.ground.stand, dialler.standing),
                trunks: None,
                other: dialler,
            };
            self.start_link(Carrier::Pipes(pipes), seed);
        }
    }

    fn handle_come(&self, come: Come) {
        let seed = Seed {
            id: self.ids.next(),
            peer: come.peer,
            side: Side::Acceptor,
            origin: Origin::Accepted,
            wire_id: come.wire_id,
            uplink: come.uplink,
            first: come.preferred,
            state: LinkState::between(&self.ground.stand, come.dialler.standing),
            trunks: None,
            other: come.dialler,
        };
        self.start_link(Carrier::Quic(come.connection, come.first), seed);
    }

    /// A data connection of a link that is up, or a spare one; any other is closed, and dialled again.
    fn handle_trunk(&self, arriving: Arriving) {
        let is_its = |entry: &&Entry| {
            entry.origin == Origin::Accepted
                && entry.link.transport == Transport::Tls
                && !entry.closing
                && entry.link.wire_id == arriving.wire_id
                && entry.link.peer == arriving.peer
        };
        let found = self.links.values().find(is_its);
        let Some(entry) = found.filter(|_| arriving.index < MOST_TRUNKS) else {
            return;
        };
        let Arriving {
            index, spare, tls, ..
        } = arriving;
        let link = Arc::clone(&entry.link);
        let trunk = match spare {
            Some(number) => Trunk::spare(link, (index, number), tls, &self.ground, None),
            None => Trunk::accepted(link, index, tls, &self.ground),
        };
        if let Ok(trunk) = trunk {
            // Full: see above.
            let _ = self.ground.sink.trunks.try_send(trunk);
        }
    }

    fn start_link(&self, carrier: Carrier, seed: Seed) {
        if self.draining.is_some() {
            return;
        }
        let ground = self.ground.clone();
        self.ground.tasks.spawn_local("tunnel-link", async move {
            link::run(&ground, carrier, seed).await;
        });
    }

    /// The newest link of a node wins, separately for each uplink and transport, and for links we
    /// dialled and links dialled to us: two nodes that dial each other would otherwise cut each
    /// other's links for ever. Where a process takes another's place each has its own.
    fn handle_up(
        &mut self,
        link: Arc<Link>,
        origin: Origin,
        close: watch::Sender<Option<DownReason>>,
    ) {
        let is_succession = |older, newer| match (older, newer) {
            (Standing::Leaves, _) | (Standing::Serves, Standing::StandsBy) => true,
            (Standing::Serves | Standing::StandsBy, Standing::Serves | Standing::Leaves)
            | (Standing::StandsBy, Standing::StandsBy) => false,
        };
        let attached = |origin| origin == Origin::Attached;
        let number = |link: &Link| link.uplink.as_ref().map(|uplink| uplink.number);
        let is_of_its_place = |entry: &Entry| {
            entry.link.peer == link.peer
                && number(&entry.link) == number(&link)
                && entry.link.transport == link.transport
                && entry.link.dialled == link.dialled
                && attached(entry.origin) == attached(origin)
        };
        let left = |entry: &&Entry| is_of_its_place(entry) && !entry.closing;
        let mut beyond = self.links.values().filter(left).count();
        for entry in self
            .links
            .values_mut()
            .filter(|entry| is_of_its_place(entry))
        {
            // The oldest first.
            let goes_on = is_succession(entry.link.standing(), link.standing());
            if !goes_on || beyond > MOST_BESIDE {
                beyond -= usize::from(!entry.closing);
                entry.end(DownReason::Replaced);
                // Whoever dialled one that retires does not dial it again.
                if let Origin::Target(target) = entry.origin
                    && let Some(target) = self.targets.get(&target)
                    && target.retiring.is_some()
                {
                    target.addresses.send_replace(Vec::new());
                }
            }
        }
        let uplink = link.uplink.as_ref().map(|uplink| &*uplink.name);
        tracing::info!(
            peer = %link.peer, link = %link.id, transport = ?link.transport, dialled = link.dialled,
            uplink, "link is up"
        );
        self.outbox.push(LinkEvent::Up {
            peer: link.peer.clone(),
            link: link.id,
        });
        let mut entry = Entry {
            link,
            origin,
            close,
            closing: false,
            rests: false,
            relief: Relief::default(),
            goes: false,
            opened: Cell::default(),
        };
        if !self.is_wanted(&entry) {
            entry.end(DownReason::Removed);
        }
        let peer = entry.link.peer.clone();
        self.links.insert(entry.link.id, entry);
        self.share(&peer);
        self.publish();
    }

    fn handle_down(&mut self, id: LinkId, reason: DownReason) {
        if let Some(Entry { link, .. }) = self.links.remove(&id) {
            self.outlived(&link);
            let why = reason.as_str();
            tracing::info!(peer = %link.peer, link = %id, reason = why, "link is down");
            self.ground.sink.metrics.downs.inc(why);
            self.outbox.push(LinkEvent::Down {
                peer: link.peer.clone(),
                link: id,
                reason,
            });
            // A kernel closes what a process leaves behind, over TCP; over QUIC nobody speaks for the
            // dead. If it lives it is dialled again at once.
            if reason == DownReason::Closed && link.transport == Transport::Tls {
                let twins = self.links.values_mut();
                let mut twins = twins.filter(|entry| entry.link.is_twin(&link));
                // Of several processes that do not say which they are it is not known whose each is:
                // the dead one's will be silent.
                if let (Some(twin), None) = (twins.next(), twins.next()) {
                    twin.end(DownReason::Closed);
                }
            }
            self.share(&link.peer);
            self.publish();
        }
    }

    /// What runs on its data connections may go on, and is nothing that one begins anew on.
    fn outlived(&mut self, link: &Arc<Link>) {
        link.state.set_share(0);
        let outlived = self.outlived.iter().filter_map(Weak::upgrade);
        let its = outlived.filter(|other| other.peer == link.peer && !other.state.is_cut());
        // The oldest first.
        if let Some(one_too_many) = its.rev().nth(MOST_BESIDE - 1) {
            one_too_many.state.cut();
        }
        self.outlived.push(Arc::downgrade(link));
    }

    /// Does what is due; how long until the next time.
    fn handle_tick(&mut self, now: Instant) -> Duration {
        let refusals = &self.door.refusals;
        self.halves.retain(|(peer, _), half| {
            let keep = now.since(half.since) < HANDSHAKE_TIMEOUT;
            if !keep {
                refusals.metrics.refused_peers.inc("torn");
                tracing::debug!(%peer, "a link was never completed");
            }
            keep
        });
        self.retire(now);
        self.watch();
        self.outlived.retain(|link| link.strong_count() > 0);
        // What was too little to be said may be enough by now.
        self.share_all();
        self.listen_quic_again();
        let Some(deadline) = self.draining else {
            return SWEEP;
        };
        let streams: usize = self.links.values().map(|entry| entry.link.requests()).sum();
        if streams == 0 || now >= deadline {
            for entry in self.links.values_mut() {
                entry.end(DownReason::Draining);
            }
        }
        DRAIN_LOOK
    }

    /// Says of each link whether another one to the same site carries requests. Pings cost something on
    /// uplinks that are dear.
    fn watch(&self) {
        let mut busy: BTreeSet<&SiteName> = BTreeSet::new();
        for entry in self.links.values() {
            let before = entry.opened.replace(entry.link.opened());
            if entry.link.requests() > 0 || entry.opened.get() != before {
                busy.extend(entry.link.peer.site());
            }
        }
        for link in self.links.values().map(|entry| &entry.link) {
            let is_dear = link.uplink.as_ref().is_some_and(|uplink| uplink.cost > 1);
            let beside = link.peer.site().is_some_and(|site| busy.contains(site));
            link.state.set_beside(beside && !is_dear);
        }
    }

    /// Stops taking in; when to look first whether streams are left. Not at once: what the last
    /// of them wrote is still on its way out.
    fn start_drain(&mut self) -> Instant {
        let now = runtime::now();
        self.draining = Some(now + DRAIN);
        self.ground.sink.draining.store(true, Ordering::Relaxed);
        self.stop_listening(|_| false);
        self.targets.clear();
        self.halves.clear();
        now + DRAIN_LOOK
    }

    /// Takes a new configuration: new connections use it, old ones stay unless it removes them.
    fn configure(&mut self, active: Active) -> Listening {
        let active = Arc::new(active);
        self.door.active.store(Some(Arc::clone(&active)));
        self.configure_as(&active)
    }

    fn configure_as(&mut self, active: &Active) -> Listening {
        let listening = match self.ground.stand.now() {
            // The next process does both.
            Standing::Leaves => Listening::default(),
            Standing::Serves | Standing::StandsBy => {
                let listening = self.listen(active);
                self.retarget(&active.config.dial);
                listening
            }
        };
        for link in self.outlived.iter().filter_map(Weak::upgrade) {
            if !self.admits(&link.peer) {
                link.state.cut();
            }
        }
        let unwanted: Vec<LinkId> = self
            .links
            .values()
            .filter(|entry| !self.is_wanted(entry))
            .map(|entry| entry.link.id)
            .collect();
        for id in &unwanted {
            if let Some(entry) = self.links.get_mut(id) {
                entry.end(DownReason::Removed);
            }
        }
        if !unwanted.is_empty() {
            self.publish();
        }
        self.share_all();
        listening
    }

    /// May this link exist under the configuration of now?
    fn is_wanted(&self, entry: &Entry) -> bool {
        let admitted = || self.admits(&entry.link.peer);
        match entry.origin {
            Origin::Attached => true,
            Origin::Accepted => admitted(),
            Origin::Target(target) => {
                self.targets.contains_key(&target) && admitted() && self.may_use(&entry.link)
            }
        }
    }

    fn admits(&self, peer: &Identity) -> bool {
        self.door.active.load().as_ref().is_some_and(|active| {
            *peer.planet() == active.config.planet && active.config.admit.admits(peer)
        })
    }

    /// May links be dialled over what this one goes?
    fn may_use(&self, link: &Link) -> bool {
        let active = self.door.active.load();
        let prefer = active.as_ref().map(|active| active.config.prefer);
        let first = prefer == Some(Prefer::Quic);
        link.transport == Transport::Tls || (prefer != Some(Prefer::Tls) && link.first == first)
    }

    fn stop_listening(&mut self, keep: impl Fn(&SocketAddr) -> bool) {
        self.listeners.retain(|address, listener| {
            let kept = keep(address);
            if !kept {
                listener.task.abort();
                if let Some((endpoint, task)) = &listener.quic {
                    task.abort();
                    endpoint.set_server_config(None);
                }
            }
            kept
        });
    }

    /// Listens on exactly `addresses`; a listener that stays is not touched.
    fn listen(&mut self, active: &Active) -> Listening {
        let addresses = &active.config.listen;
        self.stop_listening(|address| addresses.contains(address));
        let mut listening = Listening::default();
        for address in addresses {
            if let Some(Listener { bound, quic, .. }) = self.listeners.get(address) {
                let bound = *bound;
                // Without it is tried again with each sweep.
                if let Some((endpoint, _)) = quic {
                    active.quic().renew(endpoint);
                }
                listening.bound.push((*address, bound));
                continue;
            }
            let socket = match self.inherited.remove(address) {
                Some(inherited) => TcpListener::from_std(inherited),
                None => runtime::net::tcp_listener(*address, Share::Exclusive),
            };
            match socket.and_then(|socket| Ok((socket.local_addr()?, Rc::new(socket)))) {
                Ok((bound, socket)) => {
                    let task = self.accept(&socket);
                    let quic = self.listen_quic(active, bound).inspect_err(|error| {
                        tracing::warn!(%address, %error, "cannot listen for QUIC: links go over TLS");
                    });
                    let listener = Listener {
                        bound,
                        socket,
                        task,
                        quic: quic.ok(),
                    };
                    self.listeners.insert(*address, listener);
                    listening.bound.push((*address, bound));
                }
                Err(error) => {
                    tracing::error!(%address, %error, "cannot listen for tunnels");
                    listening.failed.push((*address, error));
                }
            }
        }
        listening
    }

    fn accept(&self, socket: &Rc<TcpListener>) -> Task {
        let (door, tasks) = (Rc::clone(&self.door), self.ground.tasks.clone());
        let task = accept::listen(door, tasks, Rc::clone(socket));
        self.ground.tasks.spawn_local("tunnel-listener", task)
    }

    fn listen_quic(&self, active: &Active, address: SocketAddr) -> io::Result<(Endpoint, Task)> {
        let endpoint = active.quic().listen(&self.ground.tasks, address)?;
        let (door, tasks) = (Rc::clone(&self.door), self.ground.tasks.clone());
        let task = accept::listen_quic(door, tasks, endpoint.clone());
        let task = self.ground.tasks.spawn_local("tunnel-listener", task);
        Ok((endpoint, task))
    }

    /// Listens for QUIC where that could not be done so far: a process that leaves keeps its socket
    /// as long as it has links on it.
    fn listen_quic_again(&mut self) {
        let active = self.door.active.load_full();
        let Some(active) = active.filter(|_| self.ground.stand.now() != Standing::Leaves) else {
            return;
        };
        let without = |(address, listener): (&SocketAddr, &Listener)| {
            listener
                .quic
                .is_none()
                .then_some((*address, listener.bound))
        };
        let without: Vec<_> = self.listeners.iter().filter_map(without).collect();
        for (address, bound) in without {
            let Ok(quic) = self.listen_quic(&active, bound) else {
                continue;
            };
            tracing::info!(%address, "listening for QUIC");
            if let Some(listener) = self.listeners.get_mut(&address) {
                listener.quic = Some(quic);
            }
        }
    }

    /// See [`crate::Control::stand`].
    fn stand(&mut self, standing: Standing) {
        let before = self.ground.stand.now();
        self.ground.stand.turn(standing);
        match (before, standing) {
            (Standing::Serves | Standing::StandsBy, Standing::Leaves) => {
                for listener in self.listeners.values_mut() {
                    listener.task.abort();
                    if let Some((endpoint, task)) = listener.quic.take() {
                        task.abort();
                        endpoint.set_server_config(None);
                    }
                }
                for target in self.targets.values() {
                    target.addresses.send_replace(Vec::new());
                }
            }
            (Standing::Leaves, Standing::Serves | Standing::StandsBy) => {
                let sockets = self.listeners.iter();
                let sockets = sockets.map(|(at, listener)| (*at, Rc::clone(&listener.socket)));
                for (address, socket) in sockets.collect::<Vec<_>>() {
                    let task = self.accept(&socket);
                    if let Some(listener) = self.listeners.get_mut(&address) {
                        listener.task = task;
                    }
                }
                for target in self.targets.values().filter(|t| t.retiring.is_none()) {
                    let addresses = target.target.addresses.clone();
                    target.addresses.send_replace(addresses);
                }
                if let Some(active) = self.door.active.load_full() {
                    self.configure_as(&active);
                }
            }
            (Standing::Serves | Standing::StandsBy, Standing::Serves | Standing::StandsBy)
            | (Standing::Leaves, Standing::Leaves) => {}
        }
    }

    /// Copies of the sockets; one of which there can be none is opened anew.
    fn sockets(&self) -> Vec<(SocketAddr, OwnedFd)> {
        let copies = self.listeners.iter().filter_map(|(address, listener)| {
            let copy = listener.socket.as_fd().try_clone_to_owned();
            Some((*address, copy.ok()?))
        });
        copies.collect()
    }

    /// Is this the one to use, of the two there are over TLS and QUIC with the same node over the
    /// same uplink?
    fn goes(&self, entry: &Entry) -> bool {
        let twin = |other: &&Entry| other.link.is_twin(&entry.link) && !other.closing;
        let Some(other) = self.links.values().find(twin) else {
            return true;
        };
        let (tls, quic) = match entry.link.transport {
            Transport::Tls => (entry, other),
            Transport::Quic => (other, entry),
        };
        let loss = |entry: &Entry| entry.link.quality().map(|quality| quality.loss);
        let over_quic = match (loss(tls), loss(quic)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(_), Some(_)) if quic.link.first => true,
            (Some(tls), Some(loss)) => path::over_quic(tls, loss, quic.goes),
        };
        over_quic == (entry.link.transport == Transport::Quic)
    }

    fn share_all(&mut self) {
        let peers = self.links.values().map(|entry| entry.link.peer.clone());
        let peers: BTreeSet<Identity> = peers.collect();
        peers.iter().for_each(|peer| self.share(peer));
    }

    /// How much each of the links to a node's site is to carry.
    fn share(&mut self, peer: &Identity) {
        let usable = |entry: &Entry| !entry.closing && entry.link.peer.site() == peer.site();
        let links = self.links.iter().filter(|(_, entry)| usable(entry));
        // One that is kept for its streams gets no new ones where there is another.
        let ids = links.map(|(id, _)| *id);
        let (kept, wanted): (Vec<LinkId>, Vec<LinkId>) = ids.partition(|id| {
            let entry = self.links.get(id);
            entry.is_some_and(|entry| self.is_retiring(entry))
        });
        let let_go = peer.site().is_some_and(|site| self.is_let_go(site));
        let (sharing, resting) = match wanted.is_empty() && !let_go {
            true => (kept, wanted),
            false => (wanted, kept),
        };
        let (sharing, beside) = self.by_standing(sharing);
        let (sharing, idle): (Vec<LinkId>, Vec<LinkId>) = sharing
            .iter()
            .partition(|id| self.links.get(id).is_some_and(|entry| self.goes(entry)));
        for (ids, retires) in [(&resting, true), (&sharing, false), (&beside, false)] {
            for entry in ids.iter().filter_map(|id| self.links.get(id)) {
                let changed = entry.link.state.set_retires(retires);
                // Whoever chooses ways hears of it.
                if let (true, Some(quality)) = (changed, entry.link.quality()) {
                    self.outbox.push(LinkEvent::Rtt {
                        peer: entry.link.peer.clone(),
                        link: entry.link.id,
                        quality,
                    });
                }
            }
        }
        for id in resting.iter().chain(&idle).chain(&beside) {
            if let Some(entry) = self.links.get_mut(id) {
                entry.link.state.set_share(0);
                entry.goes = false;
            }
        }
        let parallel = self.parallel(&sharing);
        let shares = path::share(&parallel);
        for ((id, link), share) in sharing.iter().zip(parallel).zip(shares) {
            if let Some(entry) = self.links.get_mut(id) {
                entry.goes = true;
                entry.share(share, link.cost.is_some() && share == 0);
            }
        }
    }

    /// These links to one site, as they stand to each other.
    fn parallel(&mut self, links: &[LinkId]) -> Vec<Parallel> {
        let load = |entry: &Entry| entry.link.quality().map(|quality| quality.load);
        let known = links.iter().filter_map(|id| self.links.get(id));
        let loads: Vec<Load> = known.map(|entry| load(entry).unwrap_or_default()).collect();
        let least = loads.iter().min().copied().unwrap_or_default();
        let greatest = loads.iter().max().copied().unwrap_or_default();
        let now = runtime::now();
        let mut parallel = Vec::with_capacity(links.len());
        for (id, load) in links.iter().zip(loads) {
            if let Some(entry) = self.links.get_mut(id) {
                parallel.push(Parallel {
                    cost: entry.link.cost(),
                    part: entry.relief.handle_load(now, load, least..=greatest),
                    rests: entry.rests,
                });
            }
        }
        parallel
    }

    /// Of these links those to processes that serve, or else to those that leave, or else all; and
    /// the others.
    fn by_standing(&self, ids: Vec<LinkId>) -> (Vec<LinkId>, Vec<LinkId>) {
        let standing = |id: &LinkId| self.links.get(id).map(|entry| entry.link.standing());
        let first = [Standing::Serves, Standing::Leaves, Standing::StandsBy]
            .into_iter()
            .find(|first| ids.iter().any(|id| standing(id) == Some(*first)));
        ids.into_iter().partition(|id| standing(id) == first)
    }

    fn publish(&self) {
        let usable = self.links.values().filter(|entry| !entry.closing);
        let table = LinkTable::new(usable.map(|entry| Arc::clone(&entry.link)));
        let links = i64::try_from(table.links().count()).unwrap_or(i64::MAX);
        self.ground.sink.metrics.links.set(links);
        self.table.store(Arc::new(table));
    }
}

impl Entry {
    fn share(&mut self, share: u32, rests: bool) {
        let link = &self.link;
        link.state.set_share(share);
        if std::mem::replace(&mut self.rests, rests) != rests {
            let uplink = link.uplink.as_ref().map(|uplink| &*uplink.name);
            let word = if rests {
                "link rests"
            } else {
                "link serves again"
            };
            tracing::info!(peer = %link.peer, link = %link.id, uplink, "{word}");
        }
    }

    fn end(&mut self, reason: DownReason) {
        if !self.closing {
            self.closing = true;
            self.close.send_replace(Some(reason));
        }
    }
}
