//! Packets: octets with a label that go over a link as they are, or not at all.
//!
//! ```text
//! over QUIC, each a datagram:   2 (1)  label (4)  octets
//! over TLS, on a stream:        length (2)  label (4)  octets, and the next
//! ```
//! Over TLS the dialler opens one reserved stream on the connection for its streams, and both sides
//! send on it. Nothing waits for room: where more packets come than a link carries they are lost, as
//! they are in any network, and whoever sends them notices. A packet that waits long is worth less
//! than one that is lost, so what may wait is bounded by octets. Both sides say in their prefaces
//! whether they take packets ([`crate::preface`]).

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use base::Instant;
use bytes::{BufMut, Bytes, BytesMut};
use h2::{RecvStream, client::SendRequest, server::SendResponse};
use http::Response;
use quinn::{Connection, SendDatagramError};
use runtime::h2io::{H2Stream, io_error};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};

use crate::{
    head::StreamHead,
    link::Ground,
    links::{Link, LinkState, OPEN_TIMEOUT, request_stream},
};

/// What a reserved stream for packets asks for.
pub(crate) const AUTHORITY: &str = "packets.sealane.internal";
/// Octets of the largest packet, on any link: what passes an Ethernet. Larger ones are dropped.
pub const MAX_PACKET: u16 = 1500;
/// Packets of a tunnel that wait for whoever reads them.
pub(crate) const UNREAD: usize = 1024;
/// Octets that may wait on a link to be sent: at 10 Mbit/s they take 50 ms. (Over TLS the stream
/// holds 256 KiB besides.)
pub(crate) const UNSENT: usize = 64 << 10;
/// What a packet that waits counts for beside its octets, so that small ones have a bound.
const EACH: usize = 64;
/// Octets of `send_datagram`'s queue that packets leave to pings, and up to which it is empty.
pub(crate) const PINGS: usize = 4 << 10;
/// Before a packet in a datagram.
pub(crate) const KIND: u8 = 2;
pub(crate) const DATAGRAM_HEADER: usize = 5;
const STREAM_HEADER: usize = 6;
/// Packets that wait go out in pieces of so much.
const PIECE: usize = 16 << 10;
/// Until a stream for packets that broke is opened anew.
const AGAIN: Duration = Duration::from_secs(5);

/// A packet that has come.
#[derive(Clone, Debug)]
pub struct Packet {
    /// The link it came on, which says who sent it. It may be down by now.
    pub link: Arc<Link>,
    /// What the sender has put before it; any number.
    pub label: u32,
    /// At most [`MAX_PACKET`] octets of any content; maybe none.
    pub octets: Bytes,
}

/// Why a packet was not sent. It is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// There is no link to that site.
    #[error("no link to the site")]
    NoLink,
    /// None of the links there carries packets (yet).
    #[error("no link to the site carries packets")]
    NoPackets,
    /// The path of the best link does not take so much.
    #[error("the packet is larger than {mtu} octets")]
    TooLarge {
        /// Octets a packet may have now.
        mtu: u16,
    },
    /// More is to be sent there than the link carries.
    #[error("too many packets wait for the link")]
    Full,
}

/// How packets leave on a link.
#[derive(Clone, Debug)]
pub(crate) enum Outlet {
    Quic(Connection, Arc<Turns>),
    Stream(Queue),
}

impl Outlet {
    pub(crate) fn quic(connection: Connection) -> Self {
        Outlet::Quic(connection, Arc::default())
    }

    /// Sends a packet that is not larger than the link carries.
    ///
    /// # Errors
    /// See [`PacketError`].
    pub(crate) fn send(
        &self,
        state: &LinkState,
        label: u32,
        packet: &[u8],
    ) -> Result<(), PacketError> {
        match self {
            Outlet::Quic(connection, turns) => {
                // With the sizes that `quinn` keeps beside each.
                let size = DATAGRAM_HEADER + packet.len() + EACH;
                let room = connection.datagram_send_buffer_space();
                let is_empty = room >= UNSENT;
                if room < size + PINGS
                    || !turns.admit(runtime::now(), is_empty, state.live_streams() > 0)
                {
                    return Err(PacketError::Full);
                }
                let mut octets = BytesMut::with_capacity(DATAGRAM_HEADER + packet.len());
                octets.put_u8(KIND);
                octets.put_u32(label);
                octets.put_slice(packet);
                send_datagram(connection, octets.freeze()).inspect_err(|error| {
                    if let PacketError::TooLarge { mtu } = error {
                        state.set_mtu(Some(*mtu));
                    }
                })
            }
            Outlet::Stream(queue) => queue.push(label, packet),
        }
    }
}

/// Without waiting, and without driving out what is queued already, pings among it.
fn send_datagram(connection: &Connection, octets: Bytes) -> Result<(), PacketError> {
    let sending = pin!(connection.send_datagram_wait(octets));
    match sending.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(())) => Ok(()),
        Poll::Pending => Err(PacketError::Full),
        Poll::Ready(Err(SendDatagramError::TooLarge)) => match mtu(connection) {
            Some(mtu) => Err(PacketError::TooLarge { mtu }),
            None => Err(PacketError::NoPackets),
        },
        // The link is about to end.
        Poll::Ready(Err(
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::ConnectionLost(_),
        )) => Err(PacketError::NoPackets),
    }
}

/// The label and the octets of a packet; `None`: the datagram is none.
pub(crate) fn read(datagram: &[u8]) -> Option<(u32, &[u8])> {
    let [KIND, rest @ ..] = datagram else {
        return None;
    };
    let (label, packet) = rest.split_first_chunk()?;
    Some((u32::from_be_bytes(*label), packet))
}

/// Octets a packet may have that goes over a connection of QUIC now.
pub(crate) fn mtu(connection: &Connection) -> Option<u16> {
    let size = connection.max_datagram_size()?;
    let mtu = size.saturating_sub(DATAGRAM_HEADER);
    let mtu = u16::try_from(mtu).map_or(MAX_PACKET, |mtu| mtu.min(MAX_PACKET));
    (mtu > 0).then_some(mtu)
}

/// Leaves streams of a connection their part: QUIC sends datagrams before anything of a stream as
/// long as one waits, so packets that come faster than they leave would be all that is sent. When
/// some have waited for [`Turns::BUSY`] without a break, all are sent that wait, and for an eighth
/// of that time, or of a second, no more are taken: unless nobody has asked for so long that streams
/// had their part. Nanoseconds; 0: never.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// Since when there always was one that waits.
    since: AtomicU64,
    /// They had their turn, and those that wait are the last of it.
    is_over: AtomicBool,
    /// When one was refused last because of that.
    refused: AtomicU64,
    /// Until when none is taken.
    rests: AtomicU64,
}

impl Turns {
    /// How long packets have a connection to themselves.
    const BUSY: Duration = Duration::from_millis(100);
    /// What counts of it at the most: streams may have begun at its end.
    const LONGEST: Duration = Duration::from_secs(1);

    /// May one more be sent? Several threads that ask at once may let one more pass.
    fn admit(&self, now: Instant, is_empty: bool, has_streams: bool) -> bool {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now.since(Instant::ZERO));
        if now < self.rests.load(Ordering::Relaxed) {
            return false;
        }
        let since = self.since.load(Ordering::Relaxed);
        if is_empty {
            self.since.store(now, Ordering::Relaxed);
            let is_over = self.is_over.swap(false, Ordering::Relaxed);
            let quiet = now.saturating_sub(self.refused.load(Ordering::Relaxed));
            let rests = is_over && quiet <= nanos(Turns::BUSY);
            if rests {
                let turn = now.saturating_sub(since).min(nanos(Turns::LONGEST));
                self.rests.store(now + turn / 8, Ordering::Relaxed);
            }
            return !rests;
        }
        let turn = Duration::from_nanos(now.saturating_sub(since));
        let is_over = has_streams && turn > Turns::BUSY;
        if is_over {
            self.is_over.store(true, Ordering::Relaxed);
            self.refused.store(now, Ordering::Relaxed);
        }
        !is_over
    }
}

/// Packets that wait for the stream of a link.
#[derive(Clone, Debug)]
pub(crate) struct Queue {
    packets: mpsc::Sender<Bytes>,
    /// What waits.
    octets: Arc<AtomicUsize>,
}

/// The other end of a [`Queue`].
#[derive(Debug)]
pub(crate) struct Queued {
    packets: mpsc::Receiver<Bytes>,
    octets: Arc<AtomicUsize>,
}

/// A queue of [`UNSENT`] octets.
pub(crate) fn queue() -> (Queue, Queued) {
    let (packets, queued) = mpsc::channel(UNSENT / EACH);
    let octets = Arc::<AtomicUsize>::default();
    let queued = Queued {
        packets: queued,
        octets: Arc::clone(&octets),
    };
    (Queue { packets, octets }, queued)
}

impl Queue {
    fn push(&self, label: u32, packet: &[u8]) -> Result<(), PacketError> {
        let size = packet.len() + EACH;
        let waiting = self.octets.fetch_add(size, Ordering::Relaxed);
        let length = u16::try_from(packet.len());
        let pushed = match length {
            Ok(length) if waiting + size <= UNSENT => {
                let mut octets = BytesMut::with_capacity(STREAM_HEADER + packet.len());
                octets.put_u16(length);
                octets.put_u32(label);
                octets.put_slice(packet);
                self.packets.try_send(octets.freeze()).is_ok()
            }
            Ok(_) | Err(_) => false,
        };
        if pushed {
            return Ok(());
        }
        self.octets.fetch_sub(size, Ordering::Relaxed);
        Err(PacketError::Full)
    }
}

impl Queued {
    fn left(&self, octets: Bytes) -> Bytes {
        let size = octets.len() - STREAM_HEADER + EACH;
        self.octets.fetch_sub(size, Ordering::Relaxed);
        octets
    }

    /// `None`: the link is gone.
    async fn next(&mut self) -> Option<Bytes> {
        let octets = self.packets.recv().await?;
        Some(self.left(octets))
    }

    /// One that waits.
    fn waiting(&mut self) -> Option<Bytes> {
        let octets = self.packets.try_recv().ok()?;
        Some(self.left(octets))
    }
}

/// The dialler's side: keeps a stream for packets as long as the link lives.
pub(crate) async fn open(
    ground: Ground,
    link: Arc<Link>,
    opener: SendRequest<Bytes>,
    mut queued: Queued,
) {
    let head = StreamHead::to(AUTHORITY);
    loop {
        let mut head_sent = false;
        let opening = request_stream(opener.clone(), &head, &mut head_sent);
        match tokio::time::timeout(OPEN_TIMEOUT, opening).await {
            Ok(Ok(stream)) => carry(&ground, &link, stream, &mut queued).await,
            Ok(Err(error)) => {
                tracing::debug!(link = %link.id, %error, "no stream for packets");
            }
            Err(_) => tracing::debug!(link = %link.id, "a stream for packets was not answered"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A stream for packets that the other side asks for.
pub(crate) type Asked = (SendResponse<Bytes>, RecvStream);

/// The acceptor's side: takes the streams that come, one after the other.
pub(crate) async fn accept(
    ground: Ground,
    link: Arc<Link>,
    mut asked: mpsc::Receiver<Asked>,
    mut queued: Queued,
) {
    while let Some((mut respond, body)) = asked.recv().await {
        match respond.send_response(Response::new(()), false) {
            Ok(send) => carry(&ground, &link, H2Stream::new(send, body), &mut queued).await,
            Err(error) => {
                let error = io_error(error);
                tracing::debug!(link = %link.id, %error, "a stream for packets was given up");
            }
        }
    }
}

/// Carries packets both ways until the stream ends.
async fn carry(ground: &Ground, link: &Arc<Link>, stream: H2Stream, queued: &mut Queued) {
    // What waited for a stream that broke is late.
    while queued.waiting().is_some() {}
    ground.say_mtu(link, Some(MAX_PACKET)).await;
    let (read, write) = tokio::io::split(stream);
    let ended = tokio::select! {
        ended = take_in(read, |label, packet| ground.sink.deliver_packet(link, label, packet)) => ended,
        ended = give_out(write, queued) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(link = %link.id, %error, "a stream for packets ended");
    }
    ground.say_mtu(link, None).await;
}

async fn take_in(
    mut stream: impl AsyncRead + Unpin,
    deliver: impl Fn(u32, &[u8]),
) -> io::Result<()> {
    let mut packet = Vec::new();
    loop {
        let length = usize::from(stream.read_u16().await?);
        let label = stream.read_u32().await?;
        // At most 64 KiB.
        packet.resize(length, 0);
        stream.read_exact(&mut packet).await?;
        deliver(label, &packet);
    }
}

async fn give_out(mut stream: impl AsyncWrite + Unpin, queued: &mut Queued) -> io::Result<()> {
    let mut piece = Vec::with_capacity(PIECE);
    while let Some(first) = queued.next().await {
        piece.clear();
        piece.extend_from_slice(&first);
        while piece.len() < PIECE
            && let Some(next) = queued.waiting()
        {
            piece.extend_from_slice(&next);
        }
        stream.write_all(&piece).await?;
        stream.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_queue_is_bounded_by_octets_whatever_the_packets() {
        for length in [0, 40, 1_000, 1_500] {
            let (queue, mut queued) = queue();
            let packet = vec![7; length];
            let mut count = 0;
            while queue.push(9, &packet).is_ok() {
                count += 1;
            }
            assert_eq!(count, UNSENT / (length + EACH), "{length}");
            assert_eq!(queue.push(9, &packet), Err(PacketError::Full));
            let first = queued.waiting().expect("one waits");
            assert_eq!(first.len(), STREAM_HEADER + length);
            assert!(queue.push(9, &packet).is_ok(), "there is room again");
            while queued.waiting().is_some() {}
            assert_eq!(queue.octets.load(Ordering::Relaxed), 0);
        }
    }

    #[tokio::test]
    async fn a_stream_is_taken_apart_whatever_is_on_it() {
        let (queue, mut queued) = queue();
        let (near, far) = tokio::io::duplex(7);
        for (label, packet) in [(u32::MAX, &b"one"[..]), (0, b""), (7, &[9; 1_500])] {
            queue.push(label, packet).expect("there is room");
        }
        drop(queue);
        let got = RefCell::new(Vec::new());
        let deliver = |label, packet: &[u8]| got.borrow_mut().push((label, packet.len()));
        let (sent, ended) = tokio::join!(give_out(near, &mut queued), take_in(far, deliver));
        assert!(sent.is_ok() && ended.is_err(), "{ended:?}");
        assert_eq!(*got.borrow(), [(u32::MAX, 3), (0, 0), (7, 1_500)]);
        // As long as can be said; cut off; nothing.
        let mut foreign = vec![0xff; STREAM_HEADER + usize::from(u16::MAX)];
        foreign.extend([0, 9, 0]);
        got.borrow_mut().clear();
        assert!(take_in(&*foreign, deliver).await.is_err());
        assert_eq!(*got.borrow(), [(u32::MAX, usize::from(u16::MAX))]);
        assert!(take_in(&b""[..], deliver).await.is_err());
    }

    #[test]
    fn a_datagram_is_a_packet_or_is_none() {
        assert_eq!(read(&[2, 0, 0, 1, 0, 9, 8]), Some((256, &[9, 8][..])));
        assert_eq!(read(&[2, 0, 0, 0, 7]), Some((7, &[][..])));
        for other in [&[][..], &[2], &[2, 0, 0, 0], &[0; 12], &[3; 40], &[255; 9]] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }

    #[test]
    fn packets_leave_streams_their_part() {
        let at = |ms| Instant::ZERO + Duration::from_millis(ms);
        let turns = Turns::default();
        assert!(turns.admit(at(1_000), true, true));
        assert!(turns.admit(at(1_050), false, true));
        assert!(turns.admit(at(1_090), false, true));
        assert!(!turns.admit(at(1_101), false, true), "its turn is over");
        assert!(!turns.admit(at(1_110), false, true));
        assert!(!turns.admit(at(1_160), true, true), "all have left");
        assert!(!turns.admit(at(1_179), true, true));
        assert!(turns.admit(at(1_181), true, true), "after an eighth");
        // Where there is no stream nobody is waited for, nor where packets come now and then.
        assert!(turns.admit(at(1_900), false, false));
        assert!(turns.admit(at(5_000), true, true));
        assert!(turns.admit(at(9_000), true, true));
        // Who was refused and asks much later finds a link that rested meanwhile.
        assert!(!turns.admit(at(9_200), false, true));
        assert!(turns.admit(at(3_601_000), true, true));
        assert!(turns.admit(at(3_601_001), true, true));
        // Streams that begin late wait for no more than an eighth of a second.
        assert!(turns.admit(at(3_700_000), false, false));
        assert!(!turns.admit(at(3_700_010), false, true));
        assert!(!turns.admit(at(3_700_050), true, true));
        assert!(!turns.admit(at(3_700_174), true, true));
        assert!(turns.admit(at(3_700_176), true, true));
    }
}
