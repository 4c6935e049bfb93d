//! The dialling side: one task per target keeps one link up.

use std::{net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use base::{Backoff, Rng, SiteName};
use pki::Identity;
use rustls_pki_types::ServerName;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

use crate::{
    accept::{Door, HANDSHAKE_TIMEOUT},
    config::Active,
    hub::{NextId, Origin},
    link::{self, Ground, Seed, Side},
    links::LinkTable,
    preface::{self, Answer, Role},
    refusal::{PeerError, admit},
    transport::{BoxPipe, Pipes},
};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
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
    /// Changes with the configuration; closed when the target is removed.
    pub(crate) addresses: watch::Receiver<Vec<SocketAddr>>,
}

impl Dialler {
    /// Dials, serves the link, dials again, until the target is removed.
    pub(crate) async fn keep(mut self) {
        let seed = pki::random::<8>().map_or(self.target, u64::from_ne_bytes);
        let mut rng = Rng::new(seed);
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
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
            if let Some((peer, pipes)) = found
                && !self.has_link(&peer)
            {
                let began = runtime::now();
                let id = self.ids.next();
                let origin = Origin::Target(self.target);
                let seed = Seed {
                    id,
                    peer,
                    side: Side::Dialler,
                    origin,
                    pipes,
                };
                link::run(&self.ground, seed).await;
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

    /// Another target leads to the same node: this one stands by.
    fn has_link(&self, peer: &Identity) -> bool {
        let table = self.table.load();
        table
            .links()
            .any(|link| link.dialled && link.is_up() && link.peer == *peer)
    }

    async fn first_of(&self, addresses: &[SocketAddr]) -> Option<(Identity, Pipes)> {
        for address in addresses {
            let active = self.door.active.load_full()?;
            let dial = dial(&active, *address, self.expected.as_ref());
            let dialled = tokio::time::timeout(HANDSHAKE_TIMEOUT, dial).await;
            match dialled.unwrap_or(Err(PeerError::Timeout)) {
                Ok(link) => return Some(link),
                Err(error) => self.door.refusals.note(*address, &error),
            }
        }
        None
    }
}

/// The three connections of a link, at once.
async fn dial(
    active: &Active,
    address: SocketAddr,
    expected: Option<&SiteName>,
) -> Result<(Identity, Pipes), PeerError> {
    let wire_id = u64::from_ne_bytes(pki::random::<8>().map_err(PeerError::Random)?);
    let connect = |role| connect(active, address, expected, role, wire_id);
    let ((peer, control), (second, forward), (third, reverse)) = tokio::try_join!(
        connect(Role::Control),
        connect(Role::Forward),
        connect(Role::Reverse)
    )?;
    if peer != second || peer != third {
        return Err(PeerError::Torn);
    }
    Ok((
        peer,
        Pipes {
            control,
            forward,
            reverse,
        },
    ))
}

async fn connect(
    active: &Active,
    address: SocketAddr,
    expected: Option<&SiteName>,
    role: Role,
    wire_id: u64,
) -> Result<(Identity, BoxPipe), PeerError> {
    let tcp = runtime::net::tcp_connect(address, HANDSHAKE_TIMEOUT)
        .await
        .map_err(PeerError::Connect)?;
    runtime::net::tune_tunnel(&tcp);
    let name = ServerName::IpAddress(address.ip().into());
    let connector = TlsConnector::from(active.client(role));
    let mut tls = connector.connect(name, tcp).await.map_err(PeerError::Tls)?;
    if tls.get_ref().1.alpn_protocol() != Some(role.alpn()) {
        return Err(PeerError::Protocol);
    }
    let peer = admit(active, tls.get_ref().1.peer_certificates())?;
    if let Some(expected) = expected
        && peer.site() != Some(expected)
    {
        return Err(PeerError::Unexpected {
            found: peer,
            expected: expected.clone(),
        });
    }
    match preface::propose(&mut tls, role, wire_id)
        .await
        .map_err(PeerError::Preface)?
    {
        Answer::Welcome => Ok((peer, Box::new(tls))),
        refusal @ (Answer::NotAdmitted | Answer::Busy | Answer::Other(_)) => {
            Err(PeerError::Answer(refusal))
        }
    }
}
