//! One link: HTTP/2 on its three pipes, pings, and its end.

use std::{future::poll_fn, io, sync::Arc, task::Poll, time::Duration};

use base::Instant;
use bytes::Bytes;
use h2::{Ping, PingPong, client, client::SendRequest, server};
use path::{DeadDetector, LinkEstimator, LinkQuality, Liveness};
use pki::Identity;
use quinn::Connection;
use runtime::{
    Task, Tasks,
    h2io::{Coalesced, io_error},
};
use tokio::sync::{mpsc, watch};

use crate::{
    config::Uplink,
    dial::TrunkDialler,
    event::{DownReason, LinkId},
    flow::Flow,
    head::MAX_HEAD_BYTES,
    hub::{Note, Origin},
    incoming::{Sink, Source},
    links::{Link, LinkState, Opener, Transport},
    packets::{self, Outlet, Queued},
    preface::{Introduction, Role},
    quic,
    standing::Stand,
    transport::{Heard, Pipes, Watched},
};

/// Streams one connection carries at once.
const MAX_STREAMS: u32 = 4096;
/// What one stream may send before we read it.
const STREAM_WINDOW: u32 = 512 * 1024;
/// What all streams of a connection may send before we read it.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// What one stream may queue for sending.
const SEND_BUFFER: usize = 256 * 1024;
/// Longer frames cost less and delay other streams' frames more.
pub(crate) const FRAME: u32 = 32 * 1024;
/// Streams the peer may reset before we saw them: cancelled requests come in bursts.
const PENDING_RESETS: usize = 1024;
/// A connection may be silent so many times as long as the link: losses delay one of them while the
/// others go on, but what one does not carry any more is lost, whatever the others do.
pub(crate) const PATIENCE_WITH_ONE: u32 = 4;
/// What is measured is told again after so long, though it changed little: little by little it may be
/// another one.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// How often in an interval a link that carries requests is looked at.
pub(crate) const LOOKS: u32 = 3;
/// How long HTTP/2 may take to begin.
const BEGIN: Duration = Duration::from_secs(5);

/// Which end of a link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// This side dialled.
    Dialler,
    /// The other side dialled.
    Acceptor,
}

/// What carries a link.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// Three connections, HTTP/2 on each.
    Pipes(Pipes),
    /// One connection of QUIC, and its first stream.
    Quic(Connection, quic::First),
}

/// What a link begins with.
#[derive(Debug)]
pub(crate) struct Seed {
    pub(crate) id: LinkId,
    pub(crate) peer: Identity,
    pub(crate) side: Side,
    pub(crate) origin: Origin,
    pub(crate) wire_id: u64,
    pub(crate) uplink: Option<Uplink>,
    /// It is to go before a link of another transport.
    pub(crate) first: bool,
    pub(crate) state: Arc<LinkState>,
    /// How its data connections are dialled, and how many.
    pub(crate) trunks: Option<(TrunkDialler, u8)>,
    /// What the other side says of itself.
    pub(crate) other: Introduction,
}

impl Seed {
    /// The link, of which nothing is known yet.
    pub(crate) fn link(
        self,
        transport: Transport,
        opener: Opener,
        control: Opener,
        outlet: Outlet,
    ) -> Link {
        Link {
            id: self.id,
            peer: self.peer,
            dialled: self.side == Side::Dialler,
            transport,
            uplink: self.uplink,
            first: self.first,
            wire_id: self.wire_id,
            process: self.other.process,
            state: self.state,
            opener,
            control,
            outlet: self.other.packets.then_some(outlet),
        }
    }
}

/// What links need from their surroundings.
#[derive(Clone, Debug)]
pub(crate) struct Ground {
    pub(crate) tasks: Tasks,
    pub(crate) sink: Arc<Sink>,
    pub(crate) notes: mpsc::Sender<Note>,
    pub(crate) interval: Duration,
    /// How this process stands.
    pub(crate) stand: Stand,
}

impl Ground {
    /// Tells the hub that a link is up; what comes back says when it is to end, and why. `None`: the
    /// hub is gone.
    pub(crate) async fn say_up(
        &self,
        link: &Arc<Link>,
        origin: Origin,
    ) -> Option<watch::Receiver<Option<DownReason>>> {
        let (close, closing) = watch::channel(None);
        let up = Note::Up {
            link: Arc::clone(link),
            origin,
            close,
        };
        self.notes.send(up).await.ok().map(|()| closing)
    }

    /// Has a link carry packets of so many octets, and tells the hub.
    pub(crate) async fn say_mtu(&self, link: &Link, mtu: Option<u16>) {
        link.state.set_mtu(mtu);
        let link = link.id;
        // See below.
        let _ = self.notes.send(Note::Mtu { link, mtu }).await;
    }

    /// Tells the hub that a link is gone.
    pub(crate) async fn say_down(&self, link: &Link, reason: DownReason) {
        let link = link.id;
        // An error means that the hub is gone, and its table with it.
        let _ = self.notes.send(Note::Down { link, reason }).await;
    }
}

/// Many streams are ready together: what they say goes out in one write and few TLS records.
type Wire = Coalesced<Watched>;
type Client = client::Connection<Wire, Bytes>;
type Server = server::Connection<Wire, Bytes>;

/// Tasks that end with their link.
struct Connections(Vec<Task>);

impl Drop for Connections {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// The state of a link in use.
struct Running {
    /// One for each connection.
    heard: [Heard; 3],
    wires: [Wire; 3],
    flows: [Flow; 3],
    pingers: [Pinger; 3],
    ended: mpsc::Receiver<()>,
    /// Dropped last but named: aborts the connections.
    connections: Connections,
    link: Arc<Link>,
    packets: Option<Packets>,
}

/// What a link needs to carry packets.
enum Packets {
    Open(SendRequest<Bytes>, Queued),
    Accept(mpsc::Receiver<packets::Asked>, Queued),
}

impl Packets {
    /// Carries them as long as the link lives.
    async fn carry(self, ground: Ground, link: Arc<Link>) {
        match self {
            Packets::Open(opener, queued) => packets::open(ground, link, opener, queued).await,
            Packets::Accept(asked, queued) => packets::accept(ground, link, asked, queued).await,
        }
    }
}

/// Brings the link up, serves it, and returns why it ended. The hub hears `Up`, `Quality` and
/// `Down` through notes.
pub(crate) async fn run(ground: &Ground, carrier: Carrier, seed: Seed) -> DownReason {
    match carrier {
        Carrier::Pipes(pipes) => run_on_pipes(ground, pipes, seed).await,
        Carrier::Quic(connection, first) => quic::run(ground, connection, first, seed).await,
    }
}

async fn run_on_pipes(ground: &Ground, pipes: Pipes, mut seed: Seed) -> DownReason {
    let origin = seed.origin;
    let peer = seed.peer.clone();
    let trunks = seed.trunks.take();
    let mut running = match tokio::time::timeout(BEGIN, begin(ground, pipes, seed)).await {
        Ok(Ok(running)) => running,
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "link did not begin");
            return DownReason::Closed;
        }
        Err(_) => {
            tracing::debug!(%peer, "link did not begin in time");
            return DownReason::Closed;
        }
    };
    let link = Arc::clone(&running.link);
    let Some(closing) = ground.say_up(&link, origin).await else {
        return DownReason::Draining;
    };
    if let Some((dialler, count)) = trunks {
        for index in 0..count {
            let keep = dialler
                .clone()
                .keep(ground.clone(), Arc::clone(&link), index);
            let task = ground.tasks.spawn_local("tunnel-trunk", keep);
            running.connections.0.push(task);
        }
    }
    let carrying = running.packets.take().map(|packets| {
        let carried = packets.carry(ground.clone(), Arc::clone(&link));
        ground.tasks.spawn_local("tunnel-packets", carried)
    });
    running.connections.0.extend(carrying);
    let reason = watch_over(ground, &mut running, closing).await;
    link.state.set_down(reason);
    drop(running);
    ground.say_down(&link, reason).await;
    reason
}

/// HTTP/2 handshakes on all three pipes.
async fn begin(ground: &Ground, pipes: Pipes, seed: Seed) -> io::Result<Running> {
    let heard = [(); 3].map(|()| Heard::new(runtime::now()));
    let rekeys = &ground.sink.metrics.rekeys;
    let Pipes {
        control,
        forward,
        reverse,
    } = pipes;
    let (control, forward, reverse) = (
        Coalesced::new(heard[0].watch(control, rekeys)),
        Coalesced::new(heard[1].watch(forward, rekeys)),
        Coalesced::new(heard[2].watch(reverse, rekeys)),
    );
    let wires = [control.clone(), forward.clone(), reverse.clone()];
    let state = Arc::clone(&seed.state);
    let (end, ended) = mpsc::channel(1);
    let (asks, asked) = mpsc::channel(1);
    let spawner = Spawner {
        ground,
        id: seed.id,
        peer: &seed.peer,
        state: &state,
        end,
        packets: (seed.other.packets && seed.side == Side::Acceptor).then_some(asks),
    };
    let mut tasks = Connections(Vec::with_capacity(3));
    let (pingers, opener, control): (_, SendRequest<Bytes>, SendRequest<Bytes>) = match seed.side {
        Side::Dialler => {
            let (control_opener, mut controls) = client_on(&control).await?;
            let (opener, mut forwards) = client_on(&forward).await?;
            let mut reverses = server_on(&reverse).await?;
            let pingers = [
                controls.ping_pong(),
                forwards.ping_pong(),
                reverses.ping_pong(),
            ];
            tasks.0.push(spawner.client(control, controls));
            tasks.0.push(spawner.client(forward, forwards));
            tasks
                .0
                .push(spawner.server(reverse, reverses, Role::Reverse));
            (pingers, opener, control_opener)
        }
        Side::Acceptor => {
            let mut controls = server_on(&control).await?;
            let mut forwards = server_on(&forward).await?;
            let (opener, mut reverses) = client_on(&reverse).await?;
            let pingers = [
                controls.ping_pong(),
                forwards.ping_pong(),
                reverses.ping_pong(),
            ];
            tasks
                .0
                .push(spawner.server(control, controls, Role::Control));
            tasks
                .0
                .push(spawner.server(forward, forwards, Role::Forward));
            tasks.0.push(spawner.client(reverse, reverses));
            (pingers, opener.clone(), opener)
        }
    };
    let (queue, queued) = packets::queue();
    let packets = seed.other.packets.then(|| match seed.side {
        Side::Dialler => Packets::Open(opener.clone(), queued),
        Side::Acceptor => Packets::Accept(asked, queued),
    });
    let (opener, control) = (Opener::H2(opener), Opener::H2(control));
    let outlet = Outlet::Stream(queue);
    let link = Arc::new(seed.link(Transport::Tls, opener, control, outlet));
    Ok(Running {
        heard,
        flows: [(); 3].map(|()| Flow::new(Arc::clone(&state))),
        wires,
        pingers: pingers.map(|with| Pinger { with, sent: None }),
        ended,
        connections: tasks,
        link,
        packets,
    })
}

async fn client_on(wire: &Wire) -> io::Result<(SendRequest<Bytes>, Client)> {
    let begun = client::Builder::new()
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .data_frame_budget(usize::MAX)
        .handshake(wire.clone());
    wire.drive(begun).await?.map_err(io_error)
}

async fn server_on(wire: &Wire) -> io::Result<Server> {
    let begun = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(MAX_HEAD_BYTES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_concurrent_streams(MAX_STREAMS)
        .max_concurrent_reset_streams(PENDING_RESETS)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(None)
        .data_frame_budget(usize::MAX)
        .handshake(wire.clone());
    wire.drive(begun).await?.map_err(io_error)
}

struct Spawner<'a> {
    ground: &'a Ground,
    id: LinkId,
    peer: &'a Identity,
    state: &'a Arc<LinkState>,
    end: mpsc::Sender<()>,
    packets: Option<mpsc::Sender<packets::Asked>>,
}

impl Spawner<'_> {
    fn client(&self, wire: Wire, connection: Client) -> Task {
        let (end, link) = (self.end.clone(), self.id);
        self.ground.tasks.spawn_local("tunnel-client", async move {
            let ended = wire.drive(connection).await;
            if let Err(error) = ended.and_then(|ended| ended.map_err(io_error)) {
                tracing::debug!(%link, %error, "connection of a link ended");
            }
            // Full means that another connection ended first.
            let _ = end.try_send(());
        })
    }

    fn server(&self, wire: Wire, mut connection: Server, role: Role) -> Task {
        let (end, link, peer) = (self.end.clone(), self.id, self.peer.clone());
        let (sink, state) = (Arc::clone(&self.ground.sink), Arc::clone(self.state));
        let packets = self.packets.clone().filter(|_| role == Role::Forward);
        self.ground.tasks.spawn_local("tunnel-server", async move {
            let source = Source {
                peer: &peer,
                link,
                role,
                packets: packets.as_ref(),
            };
            let ended = loop {
                match wire.drive(connection.accept()).await {
                    Ok(Some(Ok((request, respond)))) => {
                        sink.deliver_request(&source, &state, request, respond);
                    }
                    Ok(Some(Err(error))) => break Err(io_error(error)),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%link, %error, "connection of a link ended");
            }
            // Full means that another connection ended first.
            let _ = end.try_send(());
        })
    }
}

/// Pings every interval and waits for the first reason to end.
async fn watch_over(
    ground: &Ground,
    running: &mut Running,
    mut closing: watch::Receiver<Option<DownReason>>,
) -> DownReason {
    let mut pulse = Pulse::new(ground.interval);
    running.ping();
    loop {
        let wait = pulse.detector.poll_timeout().since(runtime::now());
        // What carries requests, or would be next, is looked at more often.
        let busy = running.link.is_watched();
        let look = tokio::time::sleep(ground.interval / LOOKS);
        tokio::select! {
            biased;
            _ = running.ended.recv() => return DownReason::Closed,
            reason = closing.wait_for(Option::is_some) => {
                return reason.ok().and_then(|reason| *reason).unwrap_or(DownReason::Draining);
            }
            pong = pong(&mut running.pingers) => {
                let Ok((role, sent)) = pong else {
                    return DownReason::Closed;
                };
                // Those of the others wait behind what they carry.
                if role == Role::Control {
                    let news = running.link.state.doubt(false);
                    let now = runtime::now();
                    pulse.estimator.handle_sample(now, now.since(sent));
                    pulse.measured(ground, &running.link, news);
                }
            }
            () = look, if busy && wait > ground.interval / LOOKS => {
                running.ping_control();
                running.doubt(&pulse, ground);
                running.count(&mut pulse, ground);
            }
            () = tokio::time::sleep(wait) => {
                let stalls = pulse.detector.stalls();
                let (least, last) = running.heard();
                pulse.detector.handle_heard(last);
                pulse.each.handle_heard(least);
                let silent = pulse.each.handle_timeout(runtime::now());
                let liveness = pulse.detector.handle_timeout(runtime::now());
                ground.sink.metrics.stalls.inc_by(pulse.detector.stalls() - stalls);
                running.doubt(&pulse, ground);
                running.count(&mut pulse, ground);
                match (liveness, silent) {
                    (Liveness::Alive, Liveness::Alive) => running.ping(),
                    (Liveness::Dead, _) | (_, Liveness::Dead) => return DownReason::Silent,
                }
            }
        }
    }
}

/// The liveness of a link.
pub(crate) struct Pulse {
    /// Of the link: silent when all its connections are.
    pub(crate) detector: DeadDetector,
    /// Of the one that is silent longest.
    each: DeadDetector,
    pub(crate) estimator: LinkEstimator,
    /// What the hub knows, and since when.
    told: Option<(Instant, LinkQuality)>,
}

impl Pulse {
    pub(crate) fn new(interval: Duration) -> Self {
        Pulse {
            detector: DeadDetector::new(runtime::now(), interval),
            each: DeadDetector::new(runtime::now(), interval * PATIENCE_WITH_ONE),
            estimator: LinkEstimator::default(),
            told: None,
        }
    }

    /// Tells the hub what is measured, if it is news.
    pub(crate) fn measured(&mut self, ground: &Ground, link: &Link, news: bool) {
        if let Some(quality) = self.news(&link.state, news) {
            let note = Note::Quality {
                link: link.id,
                quality,
            };
            if ground.notes.try_send(note).is_err() {
                // Full: the next sample will do.
                self.told = None;
            }
        }
    }

    /// What this side sends until `now`, whether it waits, and how full the link is for the other
    /// side.
    pub(crate) fn carried(&mut self, now: Instant, state: &LinkState, (rate, waits): (u64, bool)) {
        self.estimator.handle_rate(now, rate, waits);
        self.estimator.handle_their_load(state.their_load());
        state.set_loaded(self.estimator.loaded());
    }

    /// Says that a link is doubted: what waits for an answer is late.
    pub(crate) fn doubt(&self, ground: &Ground, link: &Link) {
        let Some(quality) = self.estimator.quality() else {
            return;
        };
        if link.state.doubt(true) {
            let note = Note::Quality {
                link: link.id,
                quality,
            };
            if ground.notes.try_send(note).is_err() {
                // Full: said at the next look.
                link.state.doubt(false);
            }
        }
    }

    /// How long an answer may take. One that is lost is sent again after 200 ms and a round trip,
    /// which takes another.
    pub(crate) fn patience(&self, interval: Duration) -> Option<Duration> {
        let quality = self.estimator.quality()?;
        Some(quality.rtt * 2 + interval * 7 / 10)
    }

    /// Stores what is measured; the quality if it is news.
    fn news(&mut self, state: &LinkState, news: bool) -> Option<LinkQuality> {
        let quality = self.estimator.quality()?;
        state.store(&quality);
        let differs = |told: Duration, now: Duration| {
            let change = told.abs_diff(now);
            change > told / 20 && change > Duration::from_micros(100)
        };
        let is_news = news
            || self.told.is_none_or(|(at, told)| {
                differs(told.rtt, quality.rtt)
                    || differs(told.min_rtt, quality.min_rtt)
                    || quality.loss.is_news(told.loss)
                    || quality.load != told.load
                    || runtime::now().since(at) >= TOLD_AGAIN
            });
        if is_news {
            self.told = Some((runtime::now(), quality));
        }
        is_news.then_some(quality)
    }
}

/// The pings of one connection.
struct Pinger {
    /// `None` once it is taken, which it never is twice.
    with: Option<PingPong>,
    /// When the one under way was sent.
    sent: Option<Instant>,
}

impl Pinger {
    fn ping(&mut self) {
        if self.sent.is_none()
            && let Some(with) = &mut self.with
            && with.send_ping(Ping::opaque()).is_ok()
        {
            self.sent = Some(runtime::now());
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // However it ends.
        self.link.state.set_down(DownReason::Draining);
    }
}

impl Running {
    /// Pings on each connection that has none under way: a router that translates forgets each by
    /// itself, and only what comes from inside makes it remember.
    fn ping(&mut self) {
        self.pingers.iter_mut().for_each(Pinger::ping);
    }

    /// Pings on the first connection, if no ping is under way there.
    fn ping_control(&mut self) {
        let [control, ..] = &mut self.pingers;
        control.ping();
    }

    /// Takes in what TCP has counted on all its connections, and what the other side says.
    fn count(&mut self, pulse: &mut Pulse, ground: &Ground) {
        let (state, now) = (&self.link.state, runtime::now());
        let (mut sent, mut lost) = state.counted();
        for (wire, flow) in self.wires.iter().zip(&mut self.flows) {
            if let Some(counted) = wire.with(Watched::segments) {
                flow.handle_counted(now, &counted);
                sent += u64::from(counted.sent);
                lost += u64::from(counted.lost);
            }
        }
        pulse.estimator.handle_counts(now, sent, lost);
        pulse.carried(now, state, state.flows());
        pulse.estimator.handle_their_loss(state.their_loss());
        state.set_own_loss(pulse.estimator.own_loss());
        let turned = state.take_turn();
        pulse.measured(ground, &self.link, turned);
    }

    /// Says so if what was sent waits too long to be acknowledged: not by the other side's process,
    /// which may be busy, but by its kernel.
    fn doubt(&self, pulse: &Pulse, ground: &Ground) {
        let ([control, ..], Some(patience)) = (&self.pingers, pulse.patience(ground.interval))
        else {
            return;
        };
        let (_, heard) = self.heard();
        let late = control
            .sent
            .is_some_and(|sent| heard < sent && runtime::now().since(sent) > patience);
        let [control, ..] = &self.wires;
        if late && control.with(Watched::waits) {
            pulse.doubt(ground, &self.link);
        }
    }

    /// When something was heard last on the connection that is silent longest, and on any.
    fn heard(&self) -> (Instant, Instant) {
        let heard = || self.heard.iter().map(Heard::last);
        let (least, last) = (heard().min(), heard().max());
        (least.unwrap_or_default(), last.unwrap_or_default())
    }
}

/// Waits for a pong: on which connection, and when its ping was sent.
async fn pong(pingers: &mut [Pinger; 3]) -> Result<(Role, Instant), h2::Error> {
    poll_fn(|cx| {
        for (role, pinger) in Role::FIRST.into_iter().zip(pingers.iter_mut()) {
            let (Some(with), Some(sent)) = (&mut pinger.with, pinger.sent) else {
                continue;
            };
            if let Poll::Ready(pong) = with.poll_pong(cx) {
                pinger.sent = None;
                return Poll::Ready(pong.map(|_| (role, sent)));
            }
        }
        Poll::Pending
    })
    .await
}
