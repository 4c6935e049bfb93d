//! The tasks of the tunnels and the queues between them, all on one thread of their own.
//!
//! ```text
//!  node ──commands(16)──▶ hub ──ArcSwap<LinkTable>──▶ any thread: Links::open
//!       ◀──events(64)──── hub ◀──notes(256)── handshakes, links
//!
//!  tunnel-listener ─▶ tunnel-handshake (≤ 256, 64 an address) ─▶ hub: three parts make a link
//!  tunnel-dialler (one a target) ─▶ link        └▶ joins(16) ─▶ node
//!  tunnel-link ─▶ tunnel-client, tunnel-server (three a link)
//!                │                └▶ reserved(256), services(1024) ─▶ node, proxy
//!                ├▶ tunnel-packets (one a link over TLS) ─▶ packets(1024) ─▶ nobody yet
//!                └▶ tunnel-trunk (one a data connection we dial) ─▶ trunks(64) ─▶ proxy's workers
//! ```
//! | queue | full |
//! |---|---|
//! | commands, notes | the sender waits (a link's quality is dropped: another follows) |
//! | events | the hub keeps at most four a link and goes on |
//! | reserved, services | the stream is refused with 503 and counted |
//! | joins, handshakes | the connection is dropped and counted |
//! | packets, and those of a link to be sent (64 KiB) | the packet is dropped and counted |
//! | trunks | the connection is closed, and dialled again |

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use path::DeadDetector;
use pki::Identity;
use runtime::{Tasks, Thread, ThreadExit, log::Limiter, metrics::Metrics, tls::TlsError};
use tokio::sync::{mpsc, oneshot};

use crate::{
    accept::{Door, Lobby},
    config::{Active, Config},
    event::LinkEvent,
    hub::{Command, Hub, Listening, Ports},
    incoming::{Incoming, Sink},
    join::{JoinRate, Joining},
    link::{Ground, Side},
    links::{LinkTable, Links},
    metrics::TunnelMetrics,
    packets::{self, Packet},
    refusal::Refusals,
    seal::Seal,
    standing::{Stand, Standing},
    transport::Pipes,
    trunk::Trunk,
};

const COMMANDS: usize = 16;
const NOTES: usize = 256;
const EVENTS: usize = 64;
const RESERVED: usize = 256;
const SERVICES: usize = 1024;
const JOINS: usize = 16;
const TRUNKS: usize = 64;
/// A refused stream's cause is logged again after this long.
const QUIET: Duration = Duration::from_secs(60);

/// A node's tunnels: what it holds, and the queues it reads.
#[derive(Debug)]
pub struct Tunnel {
    /// Opens streams and shows what is up.
    pub links: Links,
    /// Configures, attaches, drains.
    pub control: Control,
    /// Streams to reserved authorities. Bound 256; full refuses with 503.
    pub reserved: mpsc::Receiver<Incoming>,
    /// Streams to Services. Bound 1,024; full refuses with 503.
    pub services: mpsc::Receiver<Incoming>,
    /// Data connections, for the threads that serve streams. Bound 64; full closes the connection,
    /// and it is dialled again.
    pub trunks: mpsc::Receiver<Trunk>,
    /// Packets that have come ([`Links::send`]). Bound 1,024 of at most 1,500 octets; full drops what
    /// comes, and it is counted.
    pub packets: mpsc::Receiver<Packet>,
    /// Links up, down, measured.
    pub events: mpsc::Receiver<LinkEvent>,
    /// Nodes that want to join. Bound 16; full drops the connection.
    pub joins: mpsc::Receiver<Joining>,
}

/// Steers the tunnels. When the last clone is gone, they drain.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    thread: Option<Arc<Thread>>,
}

/// Why the tunnels did not take a command.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The configuration's certificates make no TLS configuration; the old one stays.
    #[error("tunnel certificates are not usable")]
    Tls(#[source] TlsError),
    /// The tunnels have drained.
    #[error("tunnels have stopped")]
    Stopped,
}

/// Starts the tunnels on a thread of their own. They do nothing until configured or attached to.
///
/// # Errors
/// The system refused a thread.
pub fn start(metrics: &Metrics) -> io::Result<Tunnel> {
    begin(metrics, Standing::Serves, Vec::new())
}

/// The same beside another process of this node, whose listening sockets these are: it stands by,
/// so that nobody opens a stream to it while there is another, until [`Control::stand`] says
/// otherwise.
///
/// # Errors
/// The system refused a thread.
pub fn succeed(
    metrics: &Metrics,
    inherited: Vec<(SocketAddr, std::net::TcpListener)>,
) -> io::Result<Tunnel> {
    begin(metrics, Standing::StandsBy, inherited)
}

fn begin(
    metrics: &Metrics,
    standing: Standing,
    inherited: Vec<(SocketAddr, std::net::TcpListener)>,
) -> io::Result<Tunnel> {
    let (mut tunnel, mut body) = assemble(TunnelMetrics::declare(metrics), DeadDetector::INTERVAL);
    body.standing = standing;
    body.inherited = inherited;
    let thread = runtime::thread("tunnel", move |tasks| async move {
        body.run(tasks.clone()).await;
        // What is left are handshakes of strangers.
        tasks.drain(Duration::ZERO).await;
    })?;
    tunnel.control.thread = Some(Arc::new(thread));
    Ok(tunnel)
}

impl Control {
    async fn tell(&self, command: Command) -> Result<(), ControlError> {
        let sent = self.commands.send(command).await;
        sent.map_err(|_| ControlError::Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, ControlError> {
        let (done, answer) = oneshot::channel();
        self.tell(command(done)).await?;
        answer.await.map_err(|_| ControlError::Stopped)
    }

    /// Replaces the configuration: new connections use it; a link lives on unless its target is
    /// removed or its peer no longer admitted; listeners that stay are not touched.
    ///
    /// # Errors
    /// See [`ControlError`]; then nothing changed.
    pub async fn configure(&self, config: Config) -> Result<Listening, ControlError> {
        let active = Box::new(Active::new(config).map_err(ControlError::Tls)?);
        self.ask(|done| Command::Configure { active, done }).await
    }

    /// Runs a link over pipes that exist already, with a peer that is known: between the parts of
    /// one node. Replaces an earlier such link with the same peer.
    ///
    /// # Errors
    /// [`ControlError::Stopped`].
    pub async fn attach(
        &self,
        peer: Identity,
        side: Side,
        pipes: Pipes,
    ) -> Result<(), ControlError> {
        self.tell(Command::Attach { peer, side, pipes }).await
    }

    /// Says to all neighbours how this process stands from now on, on the links there are and on those
    /// that come. One that leaves neither accepts nor dials any more, and keeps the links it has; it
    /// may serve again.
    ///
    /// # Errors
    /// [`ControlError::Stopped`].
    pub async fn stand(&self, standing: Standing) -> Result<(), ControlError> {
        self.ask(|done| Command::Stand { standing, done }).await
    }

    /// Copies of the sockets that listen for links, by the address that they were asked for, for the
    /// process that comes after this one.
    ///
    /// # Errors
    /// [`ControlError::Stopped`].
    pub async fn sockets(&self) -> Result<Vec<(SocketAddr, OwnedFd)>, ControlError> {
        self.ask(|done| Command::Sockets { done }).await
    }

    /// Of a process that leaves: its listening sockets are the next one's alone from now on.
    ///
    /// # Errors
    /// [`ControlError::Stopped`].
    pub async fn relieved(&self) -> Result<(), ControlError> {
        self.tell(Command::Relieved).await
    }

    /// Stops listening and dialling, lets streams end for 4 s (reserved ones are not waited for),
    /// closes all links, and waits.
    pub async fn drain(&self) -> ThreadExit {
        match &self.thread {
            Some(thread) => {
                thread.start_drain();
                thread.exited().await
            }
            None => ThreadExit::Finished,
        }
    }
}

/// What runs on the tunnel's thread.
pub(crate) struct Body {
    metrics: TunnelMetrics,
    interval: Duration,
    active: Arc<ArcSwapOption<Active>>,
    table: Arc<ArcSwap<LinkTable>>,
    commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<LinkEvent>,
    reserved: mpsc::Sender<Incoming>,
    services: mpsc::Sender<Incoming>,
    trunks: mpsc::Sender<Trunk>,
    packets: mpsc::Sender<Packet>,
    joins: mpsc::Sender<Joining>,
    pub(crate) standing: Standing,
    pub(crate) inherited: Vec<(SocketAddr, std::net::TcpListener)>,
}

/// Both ends of every queue.
pub(crate) fn assemble(metrics: TunnelMetrics, interval: Duration) -> (Tunnel, Body) {
    let table = Arc::new(ArcSwap::from_pointee(LinkTable::default()));
    let active = Arc::new(ArcSwapOption::empty());
    let seal = Seal::new(Arc::clone(&active));
    let (commands, commands_) = mpsc::channel(COMMANDS);
    let (events, events_) = mpsc::channel(EVENTS);
    let (reserved, reserved_) = mpsc::channel(RESERVED);
    let (services, services_) = mpsc::channel(SERVICES);
    let (trunks, trunks_) = mpsc::channel(TRUNKS);
    let (packets, packets_) = mpsc::channel(packets::UNREAD);
    let (joins, joins_) = mpsc::channel(JOINS);
    let tunnel = Tunnel {
        links: Links::new(Arc::clone(&table), seal, metrics.packets.clone()),
        control: Control {
            commands,
            thread: None,
        },
        reserved: reserved_,
        services: services_,
        trunks: trunks_,
        packets: packets_,
        events: events_,
        joins: joins_,
    };
    let commands = commands_;
    (
        tunnel,
        Body {
            metrics,
            interval,
            active,
            table,
            commands,
            events,
            reserved,
            services,
            trunks,
            packets,
            joins,
            standing: Standing::Serves,
            inherited: Vec::new(),
        },
    )
}

impl Body {
    pub(crate) async fn run(self, tasks: Tasks) {
        let (notes, notes_) = mpsc::channel(NOTES);
        let sink = Arc::new(Sink {
            reserved: self.reserved,
            services: self.services,
            trunks: self.trunks,
            packets: self.packets,
            metrics: self.metrics.clone(),
            limiter: Limiter::new(QUIET),
            draining: AtomicBool::new(false),
        });
        let stand = Stand::new(self.standing);
        let door = Rc::new(Door {
            stand: stand.clone(),
            // Without one it is dialled once too often at worst, when it does not leave after all, and
            // its links over QUIC end later than those over TLS.
            process: pki::random::<2>().map_or(0, u16::from_ne_bytes),
            active: self.active,
            lobby: Lobby::default(),
            refusals: Refusals::new(self.metrics),
            notes: notes.clone(),
            joins: self.joins,
            rate: RefCell::new(JoinRate::default()),
        });
        let ground = Ground {
            tasks,
            sink,
            notes,
            interval: self.interval,
            stand,
        };
        let ports = Ports {
            notes: notes_,
            commands: self.commands,
            events: self.events,
        };
        let hub = Hub::new(door, ground, self.table, self.inherited);
        hub.run(ports).await;
    }
}
