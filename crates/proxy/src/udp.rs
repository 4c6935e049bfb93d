//! Datagrams: flows from clients to endpoints, and out of tunnels.
//!
//! A flow is what comes from one address of a client; whoever it was given to keeps it until
//! nothing has moved for a while. Nobody waits for anybody: what has no room is dropped, as on
//! any other part of the way, and counted. In a tunnel each datagram is preceded by its length,
//! two octets in network byte order.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use balance::InFlight;
use bytes::{Buf, Bytes, BytesMut};
use l7::{Admitted, Fault, Layer4, Limits, ListenerProtocol};
use tokio::{io::ReadBuf, net::UdpSocket, sync::mpsc, time::timeout};

use crate::{
    alarm::Alarm,
    attempt::{Failure, Kind, Place},
    downstream::ConnInfo,
    egress,
    http1::Wire,
    io::Io,
    layer4::{self, Asked, Story, reach},
    pipe::Moved,
    relay::poll_idle,
    turns::Line,
    upstream::connect::{Incoming, StreamRequest},
    worker::Worker,
};

/// Datagrams of a client that wait for its flow; more are dropped.
const INBOX: usize = 64;
/// Unsent octets in a tunnel's stream above which datagrams are dropped.
const HIGH_WATER: usize = 64 << 10;
/// How long another site may take to take the end of a flow.
const LAST_FLUSH: Duration = Duration::from_secs(1);
/// The longest datagram there is (RFC 768), and more.
const LARGEST: usize = 64 << 10;

/// Where a worker's datagrams are received; each is copied out at once.
#[derive(Default)]
pub(crate) struct Scratch(RefCell<Box<[u8]>>);

impl Scratch {
    /// Receive into it. Its memory is taken with the first datagram.
    fn receive<T>(
        &self,
        poll: impl FnOnce(&mut ReadBuf<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<(T, Bytes)>> {
        let mut room = self.0.borrow_mut();
        if room.is_empty() {
            *room = vec![0; LARGEST].into();
        }
        let mut buf = ReadBuf::new(&mut room);
        let from = ready!(poll(&mut buf))?;
        Poll::Ready(Ok((from, Bytes::copy_from_slice(buf.filled()))))
    }
}

type Flows = Rc<RefCell<BTreeMap<SocketAddr, mpsc::Sender<Bytes>>>>;

/// Serve what comes to a socket, until the worker drains.
pub(crate) async fn listen(
    worker: Rc<Worker>,
    socket: UdpSocket,
    info: impl Fn(SocketAddr) -> (ConnInfo, Option<Arc<Layer4>>),
) {
    let (socket, flows) = (Rc::new(socket), Flows::default());
    let drain = worker.drain();
    loop {
        let received = poll_fn(|cx| worker.scratch.receive(|buf| socket.poll_recv_from(cx, buf)));
        let received = tokio::select! {
            received = received => received,
            () = drain.draining() => return,
        };
        // What the system says here is about datagrams that were sent: their flows hear nothing
        // either, and end.
        let Ok((client, datagram)) = received else {
            continue;
        };
        let known = flows.borrow().get(&client).cloned();
        let datagram = match known.map(|flow| flow.try_send(datagram.clone())) {
            Some(Ok(())) => continue,
            Some(Err(mpsc::error::TrySendError::Full(_))) => {
                worker.metrics.datagrams_dropped.inc();
                continue;
            }
            None | Some(Err(mpsc::error::TrySendError::Closed(_))) => datagram,
        };
        let (info, to) = info(client);
        let to = to.filter(|to| flows.borrow().len() < to.limits.lb_connections);
        let Some(to) = to else {
            worker.metrics.datagrams_dropped.inc();
            continue;
        };
        let (flow, inbox) = mpsc::channel(INBOX);
        // There is room for the first.
        let _ = flow.try_send(datagram);
        flows.borrow_mut().insert(client, flow);
        let near = Datagrams::Client {
            inbox,
            socket: Rc::clone(&socket),
            client,
        };
        let (mine, table) = (Rc::clone(&worker), Rc::clone(&flows));
        worker.spawn("flow", (to.tenant, Line::of(client.ip())), async move {
            serve(&mine, near, &info, to).await;
            let mut table = table.borrow_mut();
            // By now another flow may have taken its place.
            if table.get(&client).is_some_and(mpsc::Sender::is_closed) {
                table.remove(&client);
            }
        });
    }
}

/// One flow of a client.
async fn serve(worker: &Rc<Worker>, near: Datagrams, info: &ConnInfo, to: Arc<Layer4>) {
    worker.metrics.layer4.inc();
    let mut story = Story::begin();
    if let Err(error) = carry(worker, near, info, &to, &mut story).await {
        story.error = Some(error);
    }
    story.record(worker, info, &to, &Asked::nothing(info, "udp"));
}

async fn carry(
    worker: &Rc<Worker>,
    near: Datagrams,
    info: &ConnInfo,
    to: &Layer4,
    story: &mut Story,
) -> Result<(), (&'static str, Fault)> {
    let cluster = to.draw(&mut worker.rng.borrow_mut());
    let cluster = cluster.ok_or(("no-backend", Fault::Us))?;
    story.service = Some(cluster.service.clone());
    let dialling = async |place: &Place<'_>| {
        if place.remote.is_none() {
            return connect(place.key.endpoint.address).await;
        }
        let (io, _counted) = layer4::dial(worker, place, to.limits.connect_timeout).await?;
        Ok(Datagrams::Stream(Wire::new(io)))
    };
    let (far, in_flight) = reach(worker, to, cluster, info, story, dialling).await?;
    let offered = || worker.offers.has(info.port, ListenerProtocol::Udp(to.lb));
    let withdrawn = worker.offers.withdrawn(to.limits.drain_timeout, offered);
    let moved = &mut story.moved;
    let ended = relay(worker, near, far, &to.limits, moved, withdrawn).await;
    ended.map_err(|_| {
        in_flight.stats().failed();
        ("reset", Fault::Upstream)
    })
}

/// Serve a flow that an admitted tunnel stream carries.
pub(crate) async fn leave(
    worker: &Worker,
    incoming: Box<dyn Incoming>,
    request: &StreamRequest,
    admitted: Admitted,
) {
    let limits = worker.snapshot().limits;
    let peer = incoming.peer().clone();
    let in_flight = InFlight::start(&admitted.stats);
    let far = match connect(admitted.endpoint.address).await {
        Ok(far) => far,
        Err(failure) => {
            in_flight.stats().failed();
            incoming.refuse(failure.status(), failure.kind.code());
            return;
        }
    };
    let accepted = timeout(limits.handshake_timeout, incoming.accept()).await;
    let Ok(Ok(stream)) = accepted else {
        return;
    };
    let near = Datagrams::Stream(Wire::new(Io::Other(stream)));
    let offered = || egress::goes_on(worker, &peer, request);
    let withdrawn = worker.offers.withdrawn(limits.drain_timeout, offered);
    let moved = &mut Moved::default();
    let ended = relay(worker, near, far, &limits, moved, withdrawn).await;
    if ended.is_err() {
        in_flight.stats().failed();
    }
}

/// A socket from which one endpoint is spoken to.
async fn connect(endpoint: SocketAddr) -> Result<Datagrams, Failure> {
    let any: IpAddr = match endpoint {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let connected = async {
        let socket = UdpSocket::bind((any, 0)).await?;
        socket.connect(endpoint).await?;
        // Before that is known of a new socket, tokio sends nothing by itself.
        socket.writable().await?;
        io::Result::Ok(Datagrams::Socket(socket))
    };
    connected.await.map_err(|_| Failure::unsent(Kind::Refused))
}

/// One end of a flow.
enum Datagrams {
    /// A client, at a listener's socket.
    Client {
        inbox: mpsc::Receiver<Bytes>,
        socket: Rc<UdpSocket>,
        client: SocketAddr,
    },
    /// An endpoint.
    Socket(UdpSocket),
    /// Another site.
    Stream(Wire),
}

impl Datagrams {
    /// The next datagram; `None`: there will be no more.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &Scratch,
    ) -> Poll<io::Result<Option<Bytes>>> {
        match self {
            Datagrams::Client { inbox, .. } => inbox.poll_recv(cx).map(Ok),
            Datagrams::Socket(socket) => {
                let received = ready!(scratch.receive(|buf| socket.poll_recv(cx, buf)))?;
                Poll::Ready(Ok(Some(received.1)))
            }
            Datagrams::Stream(wire) => loop {
                if let Some(datagram) = unframed(&mut wire.input) {
                    return Poll::Ready(Ok(Some(datagram)));
                }
                if !ready!(wire.poll_fill(cx))? {
                    return Poll::Ready(Ok(None));
                }
            },
        }
    }

    /// Send it, or drop it: false. Fails if there is nobody any more.
    fn send(&mut self, datagram: &[u8]) -> io::Result<bool> {
        let sent = match self {
            Datagrams::Client { socket, client, .. } => {
                // What a client does not want is no trouble for others.
                return Ok(socket.try_send_to(datagram, *client).is_ok());
            }
            Datagrams::Socket(socket) => socket.try_send(datagram),
            Datagrams::Stream(wire) => {
                let length = u16::try_from(datagram.len());
                let Some(length) = length.ok().filter(|_| wire.output.len() < HIGH_WATER) else {
                    return Ok(false);
                };
                wire.output.extend_from_slice(&length.to_be_bytes());
                wire.output.extend_from_slice(datagram);
                return Ok(true);
            }
        };
        match sent {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error),
            Err(_) => Ok(false),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Datagrams::Client { .. } | Datagrams::Socket(_) => Poll::Ready(Ok(())),
            Datagrams::Stream(wire) => wire.poll_flush(cx),
        }
    }
}

/// The first datagram in a tunnel's octets, if it is all there.
fn unframed(octets: &mut BytesMut) -> Option<Bytes> {
    let length = usize::from(u16::from_be_bytes(*octets.first_chunk()?));
    if octets.len() < 2 + length {
        return None;
    }
    octets.advance(2);
    Some(octets.split_to(length).freeze())
}

/// Carry datagrams both ways until one end is gone, nothing has moved for long enough, its load
/// balancer is withdrawn, or the worker drains: what is sent then finds its way anew.
async fn relay(
    worker: &Worker,
    mut near: Datagrams,
    mut far: Datagrams,
    limits: &Limits,
    moved: &mut Moved,
    withdrawn: impl Future<Output = ()>,
) -> io::Result<()> {
    let idle = limits.flow_idle_timeout;
    let mut alarm = Alarm::new(idle);
    let mut last = 0;
    let running = poll_fn(|cx| {
        let ended = step(cx, worker, &mut near, &mut far, &mut moved.there)?.is_ready()
            | step(cx, worker, &mut far, &mut near, &mut moved.back)?.is_ready();
        if ended {
            return Poll::Ready(Ok(()));
        }
        let sum = moved.there + moved.back;
        poll_idle(cx, &mut alarm, idle, &mut last, sum).map(Ok)
    });
    let drain = worker.drain();
    let ended = tokio::select! {
        ended = running => ended,
        () = drain.draining() => Ok(()),
        () = withdrawn => Ok(()),
    };
    if ended.is_ok() {
        // Otherwise the other site would take it for a reset.
        for end in [&mut near, &mut far] {
            if let Datagrams::Stream(wire) = end {
                let _ = timeout(LAST_FLUSH, poll_fn(|cx| wire.poll_shutdown(cx))).await;
            }
        }
    }
    ended
}

/// One way; ready when its source has ended.
fn step(
    cx: &mut Context<'_>,
    worker: &Worker,
    from: &mut Datagrams,
    to: &mut Datagrams,
    bytes: &mut u64,
) -> io::Result<Poll<()>> {
    let ended = loop {
        let Poll::Ready(received) = from.poll_receive(cx, &worker.scratch)? else {
            break Poll::Pending;
        };
        let Some(datagram) = received else {
            break Poll::Ready(());
        };
        // A datagram without content moves something, too.
        *bytes += datagram.len() as u64;
        if !to.send(&datagram)? {
            worker.metrics.datagrams_dropped.inc();
        }
        if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
            return Err(error);
        }
    };
    if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
        return Err(error);
    }
    Ok(ended)
}
