//! BFD toward routers: sockets and timers around [`path::bfd`]'s machines, on a thread of its own,
//! so that no table's work delays the detection of a death.
//!
//! ```text
//! neighbour's task ── Watch ──▶ thread "bfd": sessions, one receiving socket an address ─▶ UDP
//!                 ◀── Status (latest only) ──┘
//! ```
//!
//! Dropping a [`Watched`] ends its session, after the neighbour was told that this is on purpose.
//! A datagram that belongs to no session, or came too far, is counted and dropped.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU32,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use base::Instant;
use path::bfd::{Config, Diagnostic, Event, MULTIHOP_PORT, PORT, Packet, Session, State, Timers};
use runtime::{Tasks, Thread, log::Limiter, net::hops};
use tokio::{
    net::UdpSocket,
    sync::{mpsc, watch},
};

/// Requests and datagrams on their way to the sessions; full: a datagram is dropped, as by a
/// network, and a request waits.
const QUEUE: usize = 1024;
/// Much longer than a packet with authentication.
const BUFFER: usize = 256;
/// A complaint about strange datagrams is logged again after this.
const QUIET: Duration = Duration::from_secs(60);

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watch {
    /// The neighbour.
    pub neighbor: IpAddr,
    /// Our address toward it; the system's choice without.
    pub local: Option<IpAddr>,
    /// How far away it is.
    pub reach: Reach,
    /// What is offered and asked for.
    pub timers: Timers,
}

/// How far away a neighbour is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On the same link (RFC 5881): what a router has passed on is not believed.
    OneHop,
    /// Behind at most so many routers (RFC 5883).
    Hops(u8),
}

impl Reach {
    const fn port(self) -> u16 {
        match self {
            Reach::OneHop => PORT,
            Reach::Hops(_) => MULTIHOP_PORT,
        }
    }

    const fn least_ttl(self) -> u8 {
        match self {
            Reach::OneHop => path::bfd::TTL,
            Reach::Hops(routers) => path::bfd::TTL.saturating_sub(routers),
        }
    }
}

/// How a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Our state.
    pub state: State,
    /// How often the path died: it was up, and is no more.
    pub deaths: u32,
    /// Why we left a state last.
    pub diagnostic: Diagnostic,
    /// How long silence is borne.
    pub detection: Duration,
}

/// A session; dropping it ends it.
#[derive(Debug)]
pub struct Watched {
    number: NonZeroU32,
    status: watch::Receiver<Status>,
    commands: mpsc::Sender<Command>,
}

impl Watched {
    /// How it is.
    #[must_use]
    pub fn status(&self) -> Status {
        *self.status.borrow()
    }

    /// Until its status changes; for ever if the thread is gone, which says nothing of the path.
    pub async fn changed(&mut self) -> Status {
        if self.status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        *self.status.borrow_and_update()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let end = Command::End(self.number);
        if self.commands.try_send(end).is_err() {
            tracing::debug!("a BFD session ends with its thread");
        }
    }
}

#[derive(Debug)]
enum Command {
    Begin(NonZeroU32, Watch, watch::Sender<Status>),
    End(NonZeroU32),
}

/// The thread of all sessions. Dropping all clones ends it.
#[derive(Clone, Debug)]
pub struct Bfd {
    commands: mpsc::Sender<Command>,
    next: Arc<AtomicU32>,
    strange: Arc<AtomicU64>,
    _thread: Arc<Thread>,
}

impl Bfd {
    /// Start the thread.
    ///
    /// # Errors
    /// The system refuses it.
    pub fn start() -> io::Result<Bfd> {
        let (commands, inbox) = mpsc::channel(QUEUE);
        let strange = Arc::new(AtomicU64::new(0));
        let counted = strange.clone();
        let thread = runtime::thread("bfd", move |tasks| {
            Shell::new(tasks, runtime::now, counted).run(inbox)
        })?;
        // Where discriminators begin is hard to guess from afar (RFC 5883 §4).
        let seed = runtime::seed().to_ne_bytes();
        let first = u32::from_ne_bytes([seed[0], seed[1], seed[2], seed[3]]);
        Ok(Bfd {
            commands,
            next: Arc::new(AtomicU32::new(first)),
            strange,
            _thread: Arc::new(thread),
        })
    }

    /// Begin a session.
    pub async fn watch(&self, watch: Watch) -> Watched {
        let number = loop {
            // Relaxed: a counter.
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            if let Some(number) = NonZeroU32::new(next) {
                break number;
            }
        };
        let (status, told) = watch::channel(Status {
            state: State::Down,
            deaths: 0,
            diagnostic: Diagnostic::None,
            detection: Duration::ZERO,
        });
        let begin = Command::Begin(number, watch, status);
        // Without a thread the session is down for ever, and was never up.
        let _ = self.commands.send(begin).await;
        Watched {
            number,
            status: told,
            commands: self.commands.clone(),
        }
    }

    /// Datagrams of no session, or that came too far.
    #[must_use]
    pub fn strange(&self) -> u64 {
        self.strange.load(Ordering::Relaxed)
    }
}

/// One session and what it needs.
struct Running {
    session: Session,
    watch: Watch,
    sender: UdpSocket,
    status: watch::Sender<Status>,
    /// It is over when this has passed: the neighbour has been told.
    ends_at: Option<Instant>,
}

struct Datagram {
    port: u16,
    from: IpAddr,
    ttl: Option<u8>,
    octets: Vec<u8>,
}

struct Shell {
    tasks: Tasks,
    clock: fn() -> Instant,
    sessions: BTreeMap<NonZeroU32, Running>,
    /// Receiving sockets, by address.
    receivers: BTreeMap<SocketAddr, ()>,
    datagrams: mpsc::Sender<Datagram>,
    arrived: Option<mpsc::Receiver<Datagram>>,
    strange: Arc<AtomicU64>,
    quiet: Limiter<IpAddr>,
}

impl Shell {
    fn new(tasks: Tasks, clock: fn() -> Instant, strange: Arc<AtomicU64>) -> Self {
        let (datagrams, arrived) = mpsc::channel(QUEUE);
        Shell {
            tasks,
            clock,
            sessions: BTreeMap::new(),
            receivers: BTreeMap::new(),
            datagrams,
            arrived: Some(arrived),
            strange,
            quiet: Limiter::new(QUIET),
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let Some(mut arrived) = self.arrived.take() else {
            return;
        };
        let token = self.tasks.token();
        loop {
            let now = (self.clock)();
            let sessions = self.sessions.values();
            let timers = sessions.flat_map(|one| [one.session.poll_timeout(), one.ends_at]);
            let timer = timers.flatten().min().map(|at| at.since(now));
            tokio::select! {
                () = token.draining() => return,
                command = inbox.recv() => match command {
                    Some(Command::Begin(number, watch, status)) => {
                        self.begin(number, watch, status);
                    }
                    Some(Command::End(number)) => self.end(number),
                    None => return,
                },
                datagram = arrived.recv() => {
                    if let Some(datagram) = datagram {
                        self.take(&datagram);
                    }
                }
                () = tokio::time::sleep(timer.unwrap_or_default()), if timer.is_some() => {}
            }
            // What waits in a socket is heard before silence is found.
            while let Ok(datagram) = arrived.try_recv() {
                self.take(&datagram);
            }
            let now = (self.clock)();
            self.sessions
                .retain(|_, one| one.ends_at.is_none_or(|at| at > now));
            for one in self.sessions.values_mut() {
                one.session.handle_timeout(now);
                one.carry_out();
            }
        }
    }

    fn begin(&mut self, number: NonZeroU32, watch: Watch, status: watch::Sender<Status>) {
        let to = SocketAddr::new(watch.neighbor, watch.reach.port());
        // One that is ending would go on to say so.
        self.sessions.retain(|_, one| {
            let same = one.watch.neighbor == watch.neighbor && one.watch.reach == watch.reach;
            !same || one.ends_at.is_none()
        });
        let sender = hops::udp_sender(to, watch.local, number.get());
        let sender = match sender.and_then(|sender| self.receive(&watch).map(|()| sender)) {
            Ok(sender) => sender,
            Err(error) => {
                tracing::error!(neighbour = %watch.neighbor, %error, "BFD has no socket");
                return;
            }
        };
        let mut config = Config::new(number, u64::from(number.get()));
        config.timers = watch.timers;
        let session = Session::new(config, (self.clock)());
        let running = Running {
            session,
            watch,
            sender,
            status,
            ends_at: None,
        };
        self.sessions.insert(number, running);
    }

    fn end(&mut self, number: NonZeroU32) {
        let now = (self.clock)();
        if let Some(one) = self.sessions.get_mut(&number) {
            one.session.disable(now);
            // It is told for as long as the neighbour may listen.
            let told = one.session.detection_time().min(Duration::from_secs(5));
            one.ends_at = Some(now + told.max(Duration::from_millis(100)));
        }
    }

    /// Listen where the neighbour's packets come, if nobody does.
    fn receive(&mut self, watch: &Watch) -> io::Result<()> {
        let any: IpAddr = if watch.neighbor.is_ipv6() {
            Ipv6Addr::UNSPECIFIED.into()
        } else {
            Ipv4Addr::UNSPECIFIED.into()
        };
        let address = SocketAddr::new(watch.local.unwrap_or(any), watch.reach.port());
        if self.receivers.contains_key(&address) {
            return Ok(());
        }
        let socket = Rc::new(hops::udp_listener(address)?);
        let datagrams = self.datagrams.clone();
        self.tasks.spawn_local("bfd-receive", async move {
            let mut buffer = [0; BUFFER];
            loop {
                match hops::receive(&socket, &mut buffer).await {
                    Ok(got) => {
                        let datagram = Datagram {
                            port: address.port(),
                            from: got.from.ip().to_canonical(),
                            ttl: got.ttl,
                            octets: buffer[..got.length].to_vec(),
                        };
                        // Full: as if the network had lost it.
                        drop(datagrams.try_send(datagram));
                    }
                    Err(error) => {
                        tracing::warn!(%address, %error, "a BFD socket fails");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                }
            }
        });
        self.receivers.insert(address, ());
        Ok(())
    }

    fn take(&mut self, datagram: &Datagram) {
        let now = (self.clock)();
        let yours = Packet::decode(&datagram.octets).map_or(0, |packet| packet.your_discriminator);
        let ours = |one: &Running| {
            one.watch.neighbor == datagram.from && one.watch.reach.port() == datagram.port
        };
        let named = NonZeroU32::new(yours).and_then(|number| self.sessions.get_mut(&number));
        let session = match named {
            Some(one) => Some(one).filter(|one| ours(one)),
            None if yours == 0 => self.sessions.values_mut().find(|one| ours(one)),
            None => None,
        };
        let near = |one: &&mut Running| {
            datagram
                .ttl
                .is_some_and(|ttl| ttl >= one.watch.reach.least_ttl())
        };
        let Some(one) = session.filter(near) else {
            self.strange.fetch_add(1, Ordering::Relaxed);
            if self.quiet.allow(now, datagram.from).is_some() {
                let (from, ttl) = (datagram.from, datagram.ttl);
                tracing::debug!(%from, ?ttl, "a BFD packet of no session, or from too far");
            }
            return;
        };
        one.session.handle_packet(now, &datagram.octets);
        one.carry_out();
    }
}

impl Running {
    fn carry_out(&mut self) {
        while let Some(octets) = self.session.poll_transmit() {
            // A packet that the system does not take is a packet lost.
            let _ = self.sender.try_send(&octets);
        }
        let mut deaths = 0;
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Up => tracing::info!(neighbour = %self.watch.neighbor, "BFD is up"),
                Event::Down { diagnostic, remote } => {
                    deaths += 1;
                    tracing::warn!(
                        neighbour = %self.watch.neighbor, ?diagnostic, ?remote, "BFD is down"
                    );
                }
                Event::PeerDisabled => {
                    tracing::info!(neighbour = %self.watch.neighbor, "BFD: taken down over there");
                }
            }
        }
        let session = &self.session;
        self.status.send_if_modified(|status| {
            let now = Status {
                state: session.state(),
                deaths: status.deaths + deaths,
                diagnostic: session.diagnostic(),
                detection: session.detection_time(),
            };
            let changed = *status != now;
            *status = now;
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watch(local: &str, neighbor: &str) -> Watch {
        Watch {
            neighbor: neighbor.parse().expect("an address"),
            local: Some(local.parse().expect("an address")),
            reach: Reach::OneHop,
            timers: Timers {
                desired_min_tx: Duration::from_millis(50),
                required_min_rx: Duration::from_millis(50),
                ..Timers::default()
            },
        }
    }

    async fn until(watched: &mut Watched, state: State) -> Status {
        let wait = async {
            while watched.status().state != state {
                watched.changed().await;
            }
            watched.status()
        };
        let done = tokio::time::timeout(Duration::from_secs(20), wait).await;
        done.unwrap_or_else(|_| panic!("never {state:?}: {:?}", watched.status()))
    }

    #[tokio::test]
    async fn two_ends_come_up_and_notice_each_others_end() {
        let (a, b) = (
            Bfd::start().expect("a thread"),
            Bfd::start().expect("a thread"),
        );
        let mut one = a.watch(watch("127.0.88.1", "127.0.88.2")).await;
        let mut two = b.watch(watch("127.0.88.2", "127.0.88.1")).await;
        until(&mut one, State::Up).await;
        until(&mut two, State::Up).await;
        // On purpose: no death.
        drop(two);
        let status = until(&mut one, State::Down).await;
        assert_eq!(status.deaths, 0, "{status:?}");
        let _two = b.watch(watch("127.0.88.2", "127.0.88.1")).await;
        let up = until(&mut one, State::Up).await;
        assert!(up.detection >= Duration::from_millis(150), "{up:?}");
        // Without a word: the whole thread is gone.
        b._thread.start_drain();
        b._thread.exited().await;
        let status = until(&mut one, State::Down).await;
        assert_eq!(status.deaths, 1, "{status:?}");
        assert_eq!(status.diagnostic, Diagnostic::DetectionTimeExpired);
    }

    #[tokio::test]
    async fn what_came_too_far_is_not_believed() {
        let bfd = Bfd::start().expect("a thread");
        let mut one = bfd.watch(watch("127.0.88.3", "127.0.88.4")).await;
        let stranger = std::net::UdpSocket::bind("127.0.88.4:0").expect("loopback");
        let packet = [
            0x20, 0x40, 3, 24, 0, 0, 0, 9, 0, 0, 0, 0, 0, 15, 66, 64, 0, 15, 66, 64, 0, 0, 0, 0,
        ];
        let counted = async {
            while bfd.strange() < 3 {
                // With the system's own TTL, and noise.
                for octets in [&packet[..], &[0xFF; 100], &[]] {
                    stranger.send_to(octets, "127.0.88.3:3784").expect("sent");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let done = tokio::time::timeout(Duration::from_secs(10), counted).await;
        assert!(done.is_ok(), "{} counted", bfd.strange());
        assert_eq!(one.status().state, State::Down);
        stranger.set_ttl(255).expect("a TTL");
        stranger.send_to(&packet, "127.0.88.3:3784").expect("sent");
        until(&mut one, State::Init).await;
    }
}
