//! The listening side: who may come in, and as what.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use pki::Identity;
use quinn::{Connection, ConnectionError, Endpoint};
use runtime::Tasks;
use rustls::server::Acceptor;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsStream};

use crate::{
    config::{Active, Uplink},
    hub::Note,
    join::{JOIN_ALPN, JoinRate, JoinStream, Joining},
    preface::{self, Answer, Answered, Introduction, PrefaceError, Role},
    quic,
    refusal::{PeerError, Refusals, admit},
    socket::Socket,
    standing::Stand,
    transport::BoxPipe,
};

/// Connections whose peer is not yet known, of everybody …
const MAX_HANDSHAKES: usize = 256;
/// … and of one address, so that nobody alone shuts the others out. Sites behind one NAT share it.
const MAX_HANDSHAKES_OF_ONE: usize = 64;
/// How long a connection may stay unknown.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between attempts when the system has no more descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Connections on their way to a link.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lobby(Rc<RefCell<BTreeMap<IpAddr, usize>>>);

/// A place in the lobby; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    lobby: Lobby,
    address: IpAddr,
}

impl Lobby {
    /// A seat, if there is one.
    fn enter(&self, address: IpAddr) -> Option<Seat> {
        let mut seats = self.0.borrow_mut();
        let own = seats.get(&address).copied().unwrap_or_default();
        if own >= MAX_HANDSHAKES_OF_ONE || seats.values().sum::<usize>() >= MAX_HANDSHAKES {
            return None;
        }
        seats.insert(address, own + 1);
        let lobby = self.clone();
        Some(Seat { lobby, address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.lobby.0.borrow_mut();
        if let Some(own) = seats.get_mut(&self.address) {
            *own -= 1;
            if *own == 0 {
                seats.remove(&self.address);
            }
        }
    }
}

/// What a connection meets, coming or going. Lives on the tunnel's thread.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) active: Arc<ArcSwapOption<Active>>,
    pub(crate) lobby: Lobby,
    pub(crate) refusals: Refusals,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) joins: mpsc::Sender<Joining>,
    pub(crate) rate: RefCell<JoinRate>,
    /// How this process stands.
    pub(crate) stand: Stand,
    /// By what it is told apart from others of this node; 0: by nothing.
    pub(crate) process: u16,
}

impl Door {
    /// What this process says of itself.
    pub(crate) fn introduction(&self) -> Introduction {
        Introduction {
            standing: self.stand.now(),
            process: self.process,
            packets: true,
        }
    }

    /// What is said to whoever dials.
    fn answer(&self, admitted: bool, trunks: u8) -> Answered {
        Answered {
            answer: match admitted {
                true => Answer::Welcome,
                false => Answer::NotAdmitted,
            },
            trunks,
            acceptor: self.introduction(),
        }
    }
}

/// One of the three connections of a link that is being dialled to us.
pub(crate) struct Part {
    pub(crate) peer: Identity,
    pub(crate) wire_id: u64,
    pub(crate) role: Role,
    pub(crate) uplink: Option<Uplink>,
    pub(crate) dialler: Introduction,
    pub(crate) pipe: BoxPipe,
    /// Counts it as a handshake until its link is whole.
    pub(crate) seat: Seat,
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Part({} {:?})", self.peer, self.role)
    }
}

/// A link that has come over QUIC.
pub(crate) struct Come {
    pub(crate) peer: Identity,
    pub(crate) wire_id: u64,
    pub(crate) uplink: Option<Uplink>,
    /// It is to go before a link over TLS.
    pub(crate) preferred: bool,
    pub(crate) dialler: Introduction,
    pub(crate) connection: Connection,
    pub(crate) first: quic::First,
}

impl std::fmt::Debug for Come {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Come({})", self.peer)
    }
}

/// A data connection of a link, or a spare one of such.
pub(crate) struct Arriving {
    pub(crate) peer: Identity,
    pub(crate) wire_id: u64,
    pub(crate) index: u8,
    /// The number of a spare one.
    pub(crate) spare: Option<u16>,
    pub(crate) tls: Box<TlsStream<Socket>>,
}

impl std::fmt::Debug for Arriving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Arriving({} {})", self.peer, self.index)
    }
}

/// What a connection asks for in its ClientHello.
enum Wish {
    Link(Role),
    Join,
}

/// Accepts on one address until aborted.
pub(crate) async fn listen(door: std::rc::Rc<Door>, tasks: Tasks, listener: Rc<TcpListener>) {
    loop {
        let (tcp, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(seat) = door.lobby.enter(address.ip()) else {
            door.refusals.note(address, &PeerError::Busy);
            continue;
        };
        let door = std::rc::Rc::clone(&door);
        tasks.spawn_local("tunnel-handshake", async move {
            let welcome = welcome(&door, tcp, address, seat);
            let outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, welcome).await;
            if let Err(error) = outcome.unwrap_or(Err(PeerError::Timeout)) {
                door.refusals.note(address, &error);
            }
        });
    }
}

/// Accepts over QUIC at one address until aborted.
pub(crate) async fn listen_quic(door: Rc<Door>, tasks: Tasks, endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        let address = incoming.remote_address();
        // Each has to show first that its address is its own (RFC 9000 §8.1.2): else a stranger takes
        // the seats of another's.
        if !incoming.remote_address_validated() && incoming.may_retry() {
            // It may, as was asked.
            let _ = incoming.retry();
            continue;
        }
        let Some(seat) = door.lobby.enter(address.ip()) else {
            door.refusals.note(address, &PeerError::Busy);
            incoming.refuse();
            continue;
        };
        let door = Rc::clone(&door);
        tasks.spawn_local("tunnel-handshake", async move {
            let welcome = welcome_quic(&door, incoming);
            let outcome = tokio::time::timeout(HANDSHAKE_TIMEOUT, welcome).await;
            if let Err(error) = outcome.unwrap_or(Err(PeerError::Timeout)) {
                door.refusals.note(address, &error);
            }
            drop(seat);
        });
    }
}

async fn welcome_quic(door: &Door, incoming: quinn::Incoming) -> Result<(), PeerError> {
    let active = door.active.load_full().ok_or(PeerError::Busy)?;
    let connection = incoming.await.map_err(broken)?;
    tokio::select! {
        biased;
        welcomed = welcome_connection(door, &active, connection.clone()) => welcomed,
        never = waste_datagrams(&connection) => match never {},
    }
}

fn broken(error: ConnectionError) -> PeerError {
    PeerError::Tls(error.into())
}

/// Before somebody is admitted nothing of theirs is kept.
async fn waste_datagrams(connection: &Connection) -> Infallible {
    while connection.read_datagram().await.is_ok() {}
    std::future::pending().await
}

async fn welcome_connection(
    door: &Door,
    active: &Active,
    connection: Connection,
) -> Result<(), PeerError> {
    let admitted = admit(active, quic::certificates(&connection).as_deref());
    let (mut send, mut recv) = connection.accept_bi().await.map_err(broken)?;
    let part = preface::expect(&mut recv, Role::Quic)
        .await
        .map_err(PeerError::Preface)?;
    let answer = door.answer(admitted.is_ok(), 0);
    preface::answer(&mut send, answer, part.link)
        .await
        .map_err(PeerError::Preface)?;
    let peer = match admitted {
        Ok(peer) => peer,
        Err(error) => {
            // The answer arrives, or it takes too long.
            let _ = send.finish();
            let _ = send.stopped().await;
            return Err(error);
        }
    };
    let (number, cost) = part.uplink;
    let come = Come {
        peer,
        wire_id: part.link,
        uplink: Uplink::announced(number, cost),
        preferred: part.first,
        dialler: part.dialler,
        connection,
        first: (send, recv),
    };
    let note = Note::Quic(come);
    door.notes.send(note).await.map_err(|_| PeerError::Busy)
}

async fn welcome(
    door: &Door,
    tcp: TcpStream,
    address: SocketAddr,
    seat: Seat,
) -> Result<(), PeerError> {
    let Some(active) = door.active.load_full() else {
        return Err(PeerError::Busy);
    };
    runtime::net::tune_tunnel(&tcp);
    let start = LazyConfigAcceptor::new(Acceptor::default(), Socket::new(tcp))
        .await
        .map_err(PeerError::Tls)?;
    match wish(&start).ok_or(PeerError::Protocol)? {
        Wish::Join => join(door, &active, start, address).await,
        Wish::Link(role) => {
            let config = active.server(role);
            let mut tls = start.into_stream(config).await.map_err(PeerError::Tls)?;
            let admitted = admit(&active, tls.get_ref().1.peer_certificates());
            let part = match preface::expect(&mut tls, role).await {
                // A node that only measures how far it is.
                Err(PrefaceError::Io(error))
                    if admitted.is_ok() && error.kind() == io::ErrorKind::UnexpectedEof =>
                {
                    return Ok(());
                }
                part => part.map_err(PeerError::Preface)?,
            };
            let answer = door.answer(admitted.is_ok(), active.config.trunks);
            preface::answer(&mut tls, answer, part.link)
                .await
                .map_err(PeerError::Preface)?;
            let (peer, wire_id) = (admitted?, part.link);
            let (number, cost) = part.uplink;
            let note = match role {
                Role::Control | Role::Forward | Role::Reverse => Note::Part(Part {
                    peer,
                    wire_id,
                    role,
                    uplink: Uplink::announced(number, cost),
                    dialler: part.dialler,
                    pipe: Box::new(tls),
                    seat,
                }),
                Role::Data | Role::Spare | Role::Quic => Note::Trunk(Arriving {
                    peer,
                    wire_id,
                    index: part.trunk,
                    spare: (role == Role::Spare).then_some(cost),
                    tls: Box::new(tls.into()),
                }),
            };
            door.notes.send(note).await.map_err(|_| PeerError::Busy)
        }
    }
}

fn wish(start: &StartHandshake<Socket>) -> Option<Wish> {
    let hello = start.client_hello();
    let mut names = hello.alpn()?;
    names.find_map(|name| {
        if name == JOIN_ALPN {
            Some(Wish::Join)
        } else {
            Role::from_alpn(name).map(Wish::Link)
        }
    })
}

async fn join(
    door: &Door,
    active: &Active,
    start: StartHandshake<Socket>,
    address: SocketAddr,
) -> Result<(), PeerError> {
    let config = active.join().ok_or(PeerError::Protocol)?;
    if !door.rate.borrow_mut().allow(runtime::now(), address.ip()) {
        return Err(PeerError::JoinRate);
    }
    let tls = start.into_stream(config).await.map_err(PeerError::Tls)?;
    door.refusals.metrics.joins.inc();
    let joining = Joining {
        address,
        stream: JoinStream::new(tls),
    };
    door.joins
        .try_send(joining)
        .map_err(|_| PeerError::JoinRate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_alone_fills_the_lobby() {
        let lobby = Lobby::default();
        let from = |n: u8| IpAddr::from([127, 0, 0, n]);
        let mut seats = Vec::new();
        for n in 1..=5 {
            while let Some(seat) = lobby.enter(from(n)) {
                seats.push(seat);
            }
        }
        assert_eq!(seats.len(), MAX_HANDSHAKES);
        assert_eq!(
            seats.iter().filter(|s| s.address == from(1)).count(),
            MAX_HANDSHAKES_OF_ONE
        );
        seats.clear();
        assert!(lobby.enter(from(1)).is_some());
        assert!(lobby.0.borrow().is_empty(), "a free seat leaves nothing");
    }
}
