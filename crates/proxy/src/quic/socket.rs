//! One worker's socket of an address that all workers share.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState},
};
use runtime::{Task, Tasks, metrics::Counter};
use tokio::{io::Interest, net::UdpSocket, sync::mpsc};

use super::ids::{self, Ids};

/// Datagrams that another worker has for this one; more are dropped, as on any part of the way.
const INBOX: usize = 256;
/// The longest datagram there is (RFC 768), and more.
const LARGEST: usize = 64 << 10;

/// A datagram for another worker than the one it came to.
#[derive(Debug)]
pub(super) struct Passed {
    datagram: Bytes,
    from: SocketAddr,
    to: Option<IpAddr>,
    ecn: Option<EcnCodepoint>,
}

type Inboxes = BTreeMap<(SocketAddr, u16), mpsc::Sender<Passed>>;

/// Where datagrams of other workers go, by address and worker. Written when a socket is opened or
/// closed; read without a lock.
#[derive(Debug, Default)]
pub(crate) struct Peers(ArcSwap<Inboxes>);

impl Peers {
    fn join(&self, place: (SocketAddr, u16), inbox: &mpsc::Sender<Passed>) {
        self.0.rcu(|before| {
            let mut now = Inboxes::clone(before);
            now.insert(place, inbox.clone());
            now
        });
    }

    /// Unless somebody else is there by now.
    fn leave(&self, place: (SocketAddr, u16), inbox: &mpsc::Sender<Passed>) {
        self.0.rcu(|before| {
            let mut now = Inboxes::clone(before);
            if now.get(&place).is_some_and(|own| own.same_channel(inbox)) {
                now.remove(&place);
            }
            now
        });
    }
}

/// The socket, as its endpoint sees it.
pub(super) struct Socket {
    io: UdpSocket,
    state: UdpSocketState,
    local: SocketAddr,
    owner: u16,
    ids: Ids,
    peers: Arc<Peers>,
    /// Its endpoint's task alone receives.
    inbox: Mutex<mpsc::Receiver<Passed>>,
    own: mpsc::Sender<Passed>,
    dropped: Counter,
}

impl Socket {
    pub(super) fn new(
        io: UdpSocket,
        owner: u16,
        ids: Ids,
        peers: Arc<Peers>,
        dropped: Counter,
    ) -> io::Result<Self> {
        let state = UdpSocketState::new((&io).into())?;
        let local = io.local_addr()?;
        let (own, inbox) = mpsc::channel(INBOX);
        peers.join((local, owner), &own);
        Ok(Socket {
            io,
            state,
            local,
            owner,
            ids,
            peers,
            inbox: Mutex::new(inbox),
            own,
            dropped,
        })
    }

    /// Hear this client whoever else listens here now: the kernel gives what comes from it to a
    /// socket that is connected to it, before any that are not. Dropping the task ends nothing;
    /// abort it.
    pub(super) fn keep(
        &self,
        tasks: &Tasks,
        client: SocketAddr,
        ip: Option<IpAddr>,
    ) -> io::Result<Task> {
        let to = ip.unwrap_or(self.local.ip());
        let local = SocketAddr::new(to, self.local.port());
        let socket = runtime::net::udp_connected(local, client)?;
        let own = self.own.clone();
        Ok(tasks.spawn("quic-kept", async move {
            let mut room = vec![0; LARGEST];
            loop {
                // What the system says here is about datagrams that were sent.
                let Ok(length) = socket.recv(&mut room).await else {
                    continue;
                };
                let datagram = room.get(..length).unwrap_or_default();
                let passed = Passed {
                    datagram: Bytes::copy_from_slice(datagram),
                    from: client,
                    to: Some(to),
                    ecn: None,
                };
                if own.send(passed).await.is_err() {
                    return;
                }
            }
        }))
    }

    /// Let nobody new come: others at this address are given what does. Sending goes on.
    pub(super) fn retire(&self) {
        if let Err(error) = runtime::net::udp_retire(&self.io) {
            tracing::debug!(%error, "a socket for QUIC goes on receiving");
        }
    }

    /// What other workers passed on.
    fn take_passed(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> usize {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Poll::Ready(Some(passed)) = inbox.poll_recv(cx) else {
                break;
            };
            let length = passed.datagram.len().min(buf.len());
            let places = buf.iter_mut().zip(&passed.datagram);
            places.for_each(|(place, octet)| *place = *octet);
            *meta = RecvMeta {
                addr: passed.from,
                len: length,
                stride: length,
                ecn: passed.ecn,
                dst_ip: passed.to,
            };
            taken += 1;
        }
        taken
    }

    /// Take out what is another worker's, and give it to him. What came from one address to
    /// another may be in one piece.
    fn sort(&self, buf: &mut [u8], meta: &mut RecvMeta) {
        let (mut from, mut kept) = (0, 0);
        while from < meta.len {
            let end = (from + meta.stride.max(1)).min(meta.len);
            let Some(datagram) = buf.get(from..end) else {
                break;
            };
            match ids::owner(&self.ids, datagram) {
                Some(owner) if owner != self.owner => self.pass(owner, datagram, meta),
                _ => {
                    if kept != from {
                        buf.copy_within(from..end, kept);
                    }
                    kept += end - from;
                }
            }
            from = end;
        }
        meta.len = kept;
    }

    fn pass(&self, owner: u16, datagram: &[u8], meta: &RecvMeta) {
        let peers = self.peers.0.load();
        let inbox = peers.get(&(self.local, owner));
        let passed = inbox.is_some_and(|inbox| {
            let passed = Passed {
                datagram: Bytes::copy_from_slice(datagram),
                from: meta.addr,
                to: meta.dst_ip,
                ecn: meta.ecn,
            };
            inbox.try_send(passed).is_ok()
        });
        if !passed {
            self.dropped.inc();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.peers.leave((self.local, self.owner), &self.own);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Socket({}, {})", self.local, self.owner)
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: self,
            waiting: None,
        })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || {
            self.state.send((&self.io).into(), transmit)
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        // At most half of the room, so that neither source keeps the other waiting.
        let most = bufs.len().div_ceil(2).min(metas.len());
        let passed = self.take_passed(cx, bufs.get_mut(..most).unwrap_or_default(), metas);
        let bufs = bufs.get_mut(passed..).unwrap_or_default();
        let metas = metas.get_mut(passed..).unwrap_or_default();
        loop {
            match self.io.poll_recv_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending if passed > 0 => return Poll::Ready(Ok(passed)),
                Poll::Pending => return Poll::Pending,
            }
            let received = self.io.try_io(Interest::READABLE, || {
                self.state.recv((&self.io).into(), bufs, metas)
            });
            match received {
                Ok(count) => {
                    for (buf, meta) in bufs.iter_mut().zip(metas).take(count) {
                        self.sort(buf, meta);
                    }
                    return Poll::Ready(Ok(passed + count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // About datagrams that were sent: whoever they were for notices by itself.
                Err(error) => tracing::debug!(%error, "a socket for QUIC"),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

type Waiting = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// One connection that waits for room.
struct Writable {
    socket: Arc<Socket>,
    waiting: Option<Waiting>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writable")
    }
}

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let socket = &this.socket;
        let waiting = this.waiting.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.io.writable().await })
        });
        let ready = ready!(waiting.as_mut().poll(cx));
        this.waiting = None;
        Poll::Ready(ready)
    }
}
