//! The dialling side: one task per target keeps one link up.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base::{Backoff, Rng, SiteName};
use pki::Identity;
use runtime::{Tasks, net::Source};
use rustls_pki_types::ServerName;
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    sync::{mpsc::error::TrySendError, oneshot, watch},
};
use tokio_rustls::{TlsConnector, TlsStream, client};

use crate::{
    accept::{Door, HANDSHAKE_TIMEOUT},
    config::{Active, Config, DialTarget, Prefer, Uplink},
    hub::{NextId, Origin},
    link::{self, Carrier, Ground, Seed, Side},
    links::{Link, LinkState, LinkTable, Transport},
    preface::{self, Answer, Introduction, Part, Role},
    quic,
    refusal::{PeerError, admit},
    socket::Socket,
    standing::Standing,
    transport::Pipes,
    trunk::{Asked, Calls, Trunk},
};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Data connections of a link at the most.
pub(crate) const MOST_TRUNKS: u8 = 16;
/// A link that lived this long was a success; the next wait is the first again.
const SUCCESS: Duration = Duration::from_secs(1);

/// What keeps one target's link up.
pub(crate) struct Dialler {
    pub(crate) door: Rc<Door>,
    pub(crate) ground: Ground,
    pub(crate) table: Arc<ArcSwap<LinkTable>>,
    pub(crate) ids: NextId,
    pub(crate) target: u64,
    pub(crate) expected: Option<SiteName>,
    pub(crate) uplink: Option<(Uplink, Source)>,
    pub(crate) transport: Transport,
    /// Changes with the configuration; closed when the target is removed.
    pub(crate) addresses: watch::Receiver<Vec<SocketAddr>>,
}

impl Dialler {
    /// Dials, serves the link, dials again, until the target is removed.
    pub(crate) async fn keep(mut self) {
        let seed = pki::random::<8>().map_or(self.target, u64::from_ne_bytes);
        let mut rng = Rng::new(seed);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut left: Option<Left> = None;
        loop {
            // Whoever was about to leave may stay, and needs no successor then.
            if let Some(left) = &left
                && left.state.theirs() == Standing::Serves
            {
                left.state.is_left().await;
            }
            let addresses = self.addresses.borrow_and_update().clone();
            let mut changes = self.addresses.clone();
            let found = tokio::select! {
                biased;
                change = changes.changed() => match change {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                found = self.first_of(&addresses) => found,
            };
            if let Some(dialled) = found
                && !self.has_link(&dialled.peer)
                && !left.as_ref().is_some_and(|left| left.is_dialled(&dialled))
            {
                let began = runtime::now();
                // If it ends before the one that leaves, that one may stay.
                left = self.run(dialled).await.or(left);
                if runtime::now().since(began) >= SUCCESS {
                    backoff.reset();
                }
            }
            let wait = backoff.next_wait(&mut rng);
            tokio::select! {
                change = self.addresses.changed() => if change.is_err() { return },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Serves a link until it ends, or until the process at its other end leaves: then it goes on
    /// beside the next one, and this is its state.
    async fn run(&self, dialled: Dialled) -> Option<Left> {
        let Dialled {
            peer,
            carrier,
            wire_id,
            address,
            trunks,
            first,
            acceptor,
        } = dialled;
        let dialler = TrunkDialler {
            door: Rc::clone(&self.door),
            address,
            uplink: self.uplink.clone(),
        };
        let state = LinkState::between(&self.ground.stand, acceptor.standing);
        let seed = Seed {
            id: self.ids.next(),
            peer,
            side: Side::Dialler,
            origin: Origin::Target(self.target),
            wire_id,
            uplink: self.uplink.clone().map(|(uplink, _)| uplink),
            first,
            state: Arc::clone(&state),
            trunks: Some((dialler, trunks)),
            other: acceptor,
        };
        let (alive, ended) = oneshot::channel::<()>();
        let ground = self.ground.clone();
        self.ground.tasks.spawn_local("tunnel-link", async move {
            link::run(&ground, carrier, seed).await;
            drop(alive);
        });
        tokio::select! {
            biased;
            _ = ended => None,
            () = state.is_left() => match state.theirs() {
                Standing::Leaves => Some(Left {
                    state,
                    process: acceptor.process,
                }),
                Standing::Serves | Standing::StandsBy => None,
            },
        }
    }

    /// Another target leads to the same node over the same uplink: this one stands by.
    fn has_link(&self, peer: &Identity) -> bool {
        let table = self.table.load();
        let over = self.uplink.as_ref().map(|(uplink, _)| uplink);
        table.links().any(|link| {
            let same = link.transport == self.transport && link.uplink.as_ref() == over;
            let stays = link.standing() != Standing::Leaves;
            link.dialled && link.is_up() && link.peer == *peer && same && stays
        })
    }

    async fn first_of(&self, addresses: &[SocketAddr]) -> Option<Dialled> {
        for address in addresses {
            let active = self.door.active.load_full()?;
            if self.transport == Transport::Quic && active.config.prefer == Prefer::Tls {
                return None;
            }
            let along = Along {
                address: *address,
                uplink: self.uplink.as_ref(),
            };
            let dial = async {
                match self.transport {
                    Transport::Tls => {
                        dial(&active, &self.door, along, self.expected.as_ref()).await
                    }
                    Transport::Quic => {
                        let tasks = &self.ground.tasks;
                        let expected = self.expected.as_ref();
                        dial_quic(&active, &self.door, tasks, along, expected).await
                    }
                }
            };
            let dialled = tokio::time::timeout(HANDSHAKE_TIMEOUT, dial).await;
            match (dialled.unwrap_or(Err(PeerError::Timeout)), self.transport) {
                (Ok(link), _) => return Some(link),
                (Err(error), Transport::Tls) => self.door.refusals.note(*address, &error),
                // Where datagrams do not pass, TLS does.
                (Err(error), Transport::Quic) => {
                    let error = base::Chain(&error);
                    tracing::debug!(%address, %error, "no link over QUIC");
                }
            }
        }
        None
    }
}

/// A link whose first connections are there.
struct Dialled {
    peer: Identity,
    carrier: Carrier,
    wire_id: u64,
    address: SocketAddr,
    /// How many data connections it is to have.
    trunks: u8,
    /// It is to go before a link of another transport.
    first: bool,
    acceptor: Introduction,
}

/// A link to a process that leaves.
struct Left {
    state: Arc<LinkState>,
    process: u16,
}

impl Left {
    /// Was the same process dialled again? It would take the new link for one in the place of this.
    fn is_dialled(&self, dialled: &Dialled) -> bool {
        self.process != 0 && self.process == dialled.acceptor.process && !self.state.is_down()
    }
}

/// Where a connection is to lead, and over which uplink.
#[derive(Clone, Copy)]
struct Along<'a> {
    address: SocketAddr,
    uplink: Option<&'a (Uplink, Source)>,
}

/// The first connections of a link, at once.
async fn dial(
    active: &Active,
    door: &Door,
    along: Along<'_>,
    expected: Option<&SiteName>,
) -> Result<Dialled, PeerError> {
    let drawn = u64::from_ne_bytes(pki::random::<8>().map_err(PeerError::Random)?);
    let wire_id = door.introduction().link(drawn);
    let connect = |role| {
        let part = Part {
            link: wire_id,
            role,
            trunk: 0,
            uplink: along.announced(),
            first: false,
            dialler: door.introduction(),
        };
        connect(active, along, expected, part)
    };
    let (control, forward, reverse) = tokio::try_join!(
        connect(Role::Control),
        connect(Role::Forward),
        connect(Role::Reverse)
    )?;
    if control.peer != forward.peer || control.peer != reverse.peer {
        return Err(PeerError::Torn);
    }
    let trunks = match (active.config.trunks, control.trunks) {
        (0, _) | (_, 0) => 0,
        (ours, theirs) => ours.max(theirs).min(MOST_TRUNKS),
    };
    Ok(Dialled {
        peer: control.peer,
        carrier: Carrier::Pipes(Pipes {
            control: Box::new(control.tls),
            forward: Box::new(forward.tls),
            reverse: Box::new(reverse.tls),
        }),
        wire_id,
        address: along.address,
        trunks,
        first: false,
        acceptor: control.acceptor,
    })
}

impl Along<'_> {
    fn announced(&self) -> (u8, u16) {
        let announced = |(uplink, _): &(Uplink, Source)| (uplink.number, uplink.cost);
        self.uplink.map(announced).unwrap_or_default()
    }

    async fn tcp(&self) -> io::Result<TcpStream> {
        match self.uplink {
            Some((_, source)) => {
                runtime::net::tcp_connect_from(source, self.address, HANDSHAKE_TIMEOUT).await
            }
            None => runtime::net::tcp_connect(self.address, HANDSHAKE_TIMEOUT).await,
        }
    }
}

/// The same over QUIC.
async fn dial_quic(
    active: &Active,
    door: &Door,
    tasks: &Tasks,
    along: Along<'_>,
    expected: Option<&SiteName>,
) -> Result<Dialled, PeerError> {
    let drawn = u64::from_ne_bytes(pki::random::<8>().map_err(PeerError::Random)?);
    let wire_id = door.introduction().link(drawn);
    let source = along.uplink.map(|(_, source)| source);
    let connection = active
        .quic()
        .connect(tasks, along.address, source)
        .await
        .map_err(PeerError::Connect)?;
    let certificates = quic::certificates(&connection);
    let peer = admit(active, certificates.as_deref())?;
    check_expected(&peer, expected)?;
    let first = connection.open_bi().await.map_err(io::Error::from);
    let (send, recv) = first.map_err(PeerError::Connect)?;
    let mut first = tokio::io::join(recv, send);
    let part = Part {
        link: wire_id,
        role: Role::Quic,
        trunk: 0,
        uplink: along.announced(),
        first: active.config.prefer == Prefer::Quic,
        dialler: door.introduction(),
    };
    let answered = preface::propose(&mut first, part)
        .await
        .map_err(PeerError::Preface)?;
    match answered.answer {
        Answer::Welcome => {
            let (recv, send) = first.into_inner();
            Ok(Dialled {
                peer,
                carrier: Carrier::Quic(connection, (send, recv)),
                wire_id,
                address: along.address,
                trunks: 0,
                first: part.first,
                acceptor: answered.acceptor,
            })
        }
        refusal @ (Answer::NotAdmitted | Answer::Busy | Answer::Other(_)) => {
            Err(PeerError::Answer(refusal))
        }
    }
}

fn check_expected(peer: &Identity, expected: Option<&SiteName>) -> Result<(), PeerError> {
    match expected {
        Some(expected) if peer.site() != Some(expected) => Err(PeerError::Unexpected {
            found: peer.clone(),
            expected: expected.clone(),
        }),
        Some(_) | None => Ok(()),
    }
}

/// A connection to a peer that has welcomed it.
struct Connected {
    peer: Identity,
    tls: TlsStream<Socket>,
    /// How many data connections the peer asks for.
    trunks: u8,
    acceptor: Introduction,
}

async fn connect(
    active: &Active,
    along: Along<'_>,
    expected: Option<&SiteName>,
    part: Part,
) -> Result<Connected, PeerError> {
    let Shaken { peer, mut tls, .. } = shake(active, along, expected, part.role).await?;
    let answered = preface::propose(&mut tls, part)
        .await
        .map_err(PeerError::Preface)?;
    match answered.answer {
        Answer::Welcome => Ok(Connected {
            peer,
            tls: tls.into(),
            trunks: answered.trunks,
            acceptor: answered.acceptor,
        }),
        refusal @ (Answer::NotAdmitted | Answer::Busy | Answer::Other(_)) => {
            Err(PeerError::Answer(refusal))
        }
    }
}

/// A connection to the peer that is meant.
struct Shaken {
    peer: Identity,
    tls: client::TlsStream<Socket>,
    /// How long the handshake took: a round trip and a little more.
    took: Duration,
}

async fn shake(
    active: &Active,
    along: Along<'_>,
    expected: Option<&SiteName>,
    role: Role,
) -> Result<Shaken, PeerError> {
    let tcp = along.tcp().await.map_err(PeerError::Connect)?;
    runtime::net::tune_tunnel(&tcp);
    let name = ServerName::IpAddress(along.address.ip().into());
    let connector = TlsConnector::from(active.client(role));
    let began = runtime::now();
    let connecting = connector.connect(name, Socket::new(tcp));
    let tls = connecting.await.map_err(PeerError::Tls)?;
    let took = runtime::now().since(began);
    if tls.get_ref().1.alpn_protocol() != Some(role.alpn()) {
        return Err(PeerError::Protocol);
    }
    let peer = admit(active, tls.get_ref().1.peer_certificates())?;
    check_expected(&peer, expected)?;
    Ok(Shaken { peer, tls, took })
}

/// How far a node is: about a round trip. A TLS handshake is made and left, since only who answers
/// with a certificate counts, and a relay or a firewall may take connections for others. `None` if
/// nobody answers who is meant, within a second.
pub async fn measure(config: &Config, target: &DialTarget) -> Option<Duration> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let active = Active::new(config.clone()).ok()?;
    let mut nearest: Option<Duration> = None;
    for address in &target.addresses {
        let along = Along {
            address: *address,
            uplink: target.uplink.as_ref(),
        };
        let shaking = shake(&active, along, target.expected.as_ref(), Role::Control);
        if let Ok(Ok(Shaken { mut tls, took, .. })) = tokio::time::timeout(PATIENCE, shaking).await
        {
            nearest = Some(nearest.map_or(took, |nearest| nearest.min(took)));
            // Whether the goodbye arrives does not matter.
            let _ = tls.shutdown().await;
        }
    }
    nearest
}

/// Dials the data connections of one link.
#[derive(Clone, Debug)]
pub(crate) struct TrunkDialler {
    door: Rc<Door>,
    address: SocketAddr,
    uplink: Option<(Uplink, Source)>,
}

impl TrunkDialler {
    /// Keeps one of them up; ends when aborted.
    pub(crate) async fn keep(self, ground: Ground, link: Arc<Link>, index: u8) {
        let seed = pki::random::<8>().map_or(u64::from(index), u64::from_ne_bytes);
        let mut rng = Rng::new(seed);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        // Of spare connections; those of one that is gone are known from those of the next.
        let mut number = 0;
        loop {
            let dial = self.dial(&link, index, None);
            let dial = tokio::time::timeout(HANDSHAKE_TIMEOUT, dial);
            match dial.await.unwrap_or(Err(PeerError::Timeout)) {
                Ok(tls) => {
                    let trunk = Trunk::dialled(Arc::clone(&link), index, Box::new(tls), &ground);
                    let began = runtime::now();
                    if let Ok((trunk, calls)) = trunk {
                        match ground.sink.trunks.try_send(trunk) {
                            Ok(()) => {
                                let Calls { gone, mut asked } = calls;
                                let spares = async {
                                    while let Some(asked) = asked.recv().await {
                                        number = u16::wrapping_add(number, 1);
                                        let place = (index, number);
                                        self.add_spare(&ground, &link, place, asked).await;
                                    }
                                    std::future::pending::<()>().await;
                                };
                                // Its sender is dropped, and never used.
                                tokio::select! { biased; _ = gone => {} () = spares => {} }
                            }
                            Err(TrySendError::Full(_)) => {}
                            // Nobody serves any more.
                            Err(TrySendError::Closed(_)) => return,
                        }
                    }
                    if runtime::now().since(began) >= SUCCESS {
                        backoff.reset();
                    }
                }
                Err(error) => self.door.refusals.note(self.address, &error),
            }
            tokio::time::sleep(backoff.next_wait(&mut rng)).await;
        }
    }

    /// Dials a spare connection for one of them. A process that leaves neither dials nor is dialled.
    async fn add_spare(
        &self,
        ground: &Ground,
        link: &Arc<Link>,
        (index, number): (u8, u16),
        asked: Asked,
    ) {
        let leaves = [self.door.stand.now(), link.standing()].contains(&Standing::Leaves);
        if leaves || !link.is_up() {
            return;
        }
        let dial = self.dial(link, index, Some(number));
        let dial = tokio::time::timeout(HANDSHAKE_TIMEOUT, dial);
        match dial.await.unwrap_or(Err(PeerError::Timeout)) {
            Ok(tls) => {
                let (link, tls) = (Arc::clone(link), Box::new(tls));
                let spare = Trunk::spare(link, (index, number), tls, ground, Some(asked));
                if let Ok(spare) = spare {
                    // Full: it is asked for again.
                    let _ = ground.sink.trunks.try_send(spare);
                }
            }
            Err(error) => self.door.refusals.note(self.address, &error),
        }
    }

    /// Dials one of them, or the spare connection of this number for it.
    async fn dial(
        &self,
        link: &Link,
        index: u8,
        spare: Option<u16>,
    ) -> Result<TlsStream<Socket>, PeerError> {
        let active = self.door.active.load_full().ok_or(PeerError::Busy)?;
        let along = Along {
            address: self.address,
            uplink: self.uplink.as_ref(),
        };
        let uplink = along.announced();
        let part = Part {
            link: link.wire_id,
            role: match spare {
                Some(_) => Role::Spare,
                None => Role::Data,
            },
            trunk: index,
            uplink: match spare {
                Some(number) => (uplink.0, number),
                None => uplink,
            },
            first: false,
            dialler: self.door.introduction(),
        };
        let connected = connect(&active, along, link.peer.site(), part).await?;
        if connected.peer == link.peer {
            Ok(connected.tls)
        } else {
            Err(PeerError::Torn)
        }
    }
}
