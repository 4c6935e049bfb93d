//! One link over QUIC: its streams, pings, and its end.
//!
//! In datagrams each side says `kind (1) number (8) loss (2) load (1)`: a ping (0), or the answer to the
//! ping with that number (1), what part it loses of what it sends ([`path::Loss`]), and how full the
//! link is for it, in percent, which older nodes do not say. What follows is passed over. A datagram of
//! kind 2 is a packet ([`crate::packets`]); others are passed over.
//!
//! Every few seconds a ping is as large as packets may be. QUIC probes whether the path takes more, and
//! notices that it takes less by what is lost (RFC 8899 §4.3); that needs something large to be sent,
//! and what the link says that it carries is to be true before anybody sends it.

use std::{collections::VecDeque, pin::pin, sync::Arc, time::Duration};

use base::Instant;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use path::{Liveness, Load, Loss};
use quinn::{Connection, SendStream, VarInt};
use runtime::Task;
use tokio::sync::{mpsc, watch};

use super::{First, MAX_STREAMS, Opener, STREAMS, stream::Asked};
use crate::{
    event::DownReason,
    flow::LEAST,
    hub::Note,
    incoming::{self, Source},
    link::{Ground, LOOKS, Pulse, Seed},
    links::{self, Link, LiveStream, Transport},
    packets::{self, Outlet},
    preface::Role,
    transport::Keys,
};

/// How long whoever opened a stream may take to say what it is for.
const HEAD: Duration = Duration::from_secs(5);
/// How long what was said last on a stream is waited for.
const LAST: Duration = Duration::from_secs(4);
/// Pings whose answers are still of use.
const PINGS: usize = 64;
/// From one large ping that was answered to the next. One that is not is sent again at once.
const LARGE: Duration = Duration::from_secs(10);
/// What every path of QUIC takes (RFC 9000 §14).
const LEAST_MTU: u16 = 1200;
/// How long a link that ends is kept for its goodbye.
const GOODBYE: Duration = Duration::from_millis(20);
/// Halves of streams that have ended, and were not looked at yet.
const EBB: usize = 1024;

/// Brings the link up, serves it, and returns why it ended.
pub(crate) async fn run(
    ground: &Ground,
    connection: Connection,
    first: First,
    seed: Seed,
) -> DownReason {
    let origin = seed.origin;
    let (ebb, ebbing) = mpsc::channel(EBB);
    let opener = Opener {
        connection: connection.clone(),
        ebb,
    };
    let [service, control] = [opener.clone(), opener.clone()].map(links::Opener::Quic);
    let outlet = Outlet::quic(connection.clone());
    let link = Arc::new(seed.link(Transport::Quic, service, control, outlet));
    let Some(closing) = ground.say_up(&link, origin).await else {
        return DownReason::Draining;
    };
    let accepting = accept(ground.clone(), Arc::clone(&link), opener);
    let accepting = Ended(ground.tasks.spawn_local("tunnel-quic", accepting));
    let waiting = wait_for_ends(ground.clone(), ebbing);
    let waiting = Ended(ground.tasks.spawn_local("tunnel-quic-ends", waiting));
    let now = runtime::now();
    let mut running = Running {
        ground,
        link: &link,
        connection: &connection,
        pulse: Pulse::new(ground.interval),
        number: 0,
        pings: VecDeque::with_capacity(PINGS),
        large_at: now + LARGE,
        mtu: None,
        unheard: None,
        datagrams: 0,
        heard: now,
        carried: Carried { at: now, octets: 0 },
        keys: Keys::new(&ground.sink.metrics.rekeys, "quic"),
    };
    let reason = running.watch_over(closing).await;
    link.state.set_down(reason);
    drop((accepting, waiting, first));
    connection.close(VarInt::from_u32(0), reason.as_str().as_bytes());
    // In a drain nobody waits any more once the hub knows.
    tokio::time::sleep(GOODBYE).await;
    ground.say_down(&link, reason).await;
    reason
}

/// Counts streams that have ended until the other side has all of them.
async fn wait_for_ends(ground: Ground, mut ebbing: mpsc::Receiver<(SendStream, LiveStream)>) {
    while let Some((send, live)) = ebbing.recv().await {
        ground.tasks.spawn_local("tunnel-quic-end", async move {
            // Acknowledged, refused, or late: it is over.
            let _ = tokio::time::timeout(LAST, send.stopped()).await;
            drop(live);
        });
    }
}

/// A task that ends with its link.
struct Ended(Task);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ping,
    Pong,
}

/// What a datagram says.
#[derive(Clone, Copy)]
struct Word {
    kind: Kind,
    number: u64,
    loss: Loss,
    load: Load,
}

impl Word {
    /// Without the load.
    const LEN: usize = 11;

    fn octets(self) -> Bytes {
        let mut octets = BytesMut::with_capacity(Word::LEN + 1);
        octets.put_u8(self.kind as u8);
        octets.put_u64(self.number);
        octets.put_u16(self.loss.0);
        octets.put_u8(self.load.percent());
        octets.freeze()
    }

    /// `None`: it is none that is known here.
    fn read(mut octets: &[u8]) -> Option<Word> {
        if octets.len() < Word::LEN {
            return None;
        }
        let kind = match octets.get_u8() {
            0 => Kind::Ping,
            1 => Kind::Pong,
            2.. => return None,
        };
        Some(Word {
            kind,
            number: octets.get_u64(),
            loss: Loss(octets.get_u16()),
            load: Load::of(octets.first().copied().unwrap_or_default()),
        })
    }
}

/// A ping.
#[derive(Clone, Copy)]
struct Sent {
    number: u64,
    at: Instant,
    large: bool,
}

/// The state of a link in use.
struct Running<'a> {
    ground: &'a Ground,
    link: &'a Arc<Link>,
    connection: &'a Connection,
    pulse: Pulse,
    /// The number of the last ping, and the last pings.
    number: u64,
    pings: VecDeque<Sent>,
    /// When a large one is due.
    large_at: Instant,
    /// What the hub knows that the link carries of packets.
    mtu: Option<u16>,
    /// The first ping that was sent since something was heard.
    unheard: Option<Instant>,
    /// How many datagrams of UDP have come, and when that changed last.
    datagrams: u64,
    heard: Instant,
    carried: Carried,
    keys: Keys,
}

impl Running<'_> {
    /// Pings every interval and waits for the first reason to end.
    async fn watch_over(&mut self, mut closing: watch::Receiver<Option<DownReason>>) -> DownReason {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            tokio::select! {
                biased;
                reason = closing.wait_for(Option::is_some) => {
                    return reason.ok().and_then(|reason| *reason).unwrap_or(DownReason::Draining);
                }
                // Before what comes, however much it is.
                () = sleep.as_mut() => {
                    if self.look() == Liveness::Dead {
                        return DownReason::Silent;
                    }
                    self.ping();
                    // What carries requests, or would be next, is looked at more often.
                    let interval = self.ground.interval;
                    let wait = match self.link.is_watched() {
                        true => interval / LOOKS,
                        false => interval,
                    };
                    sleep.as_mut().reset(tokio::time::Instant::now() + wait);
                }
                datagram = self.connection.read_datagram() => match datagram {
                    Ok(octets) => self.hear(&octets),
                    Err(_) => return DownReason::Closed,
                },
            }
        }
    }

    fn hear(&mut self, octets: &[u8]) {
        if let Some((label, packet)) = packets::read(octets) {
            return self.ground.sink.deliver_packet(self.link, label, packet);
        }
        let Some(word) = Word::read(octets) else {
            return;
        };
        self.link.state.set_their_loss(word.loss);
        self.link.state.set_their_load(word.load);
        let loss = self.link.state.their_loss();
        self.pulse.estimator.handle_their_loss(loss);
        if word.kind == Kind::Ping {
            return self.say(Kind::Pong, word.number);
        }
        let sent = self.pings.iter().find(|sent| sent.number == word.number);
        if let Some(Sent { at, large, .. }) = sent.copied() {
            // Those before it are lost, or of no use.
            self.pings.retain(|sent| sent.number > word.number);
            let news = self.link.state.doubt(false);
            let now = runtime::now();
            if large {
                self.large_at = now + LARGE;
            }
            self.pulse.estimator.handle_sample(now, now.since(at));
            self.pulse.measured(self.ground, self.link, news);
        }
    }

    /// Looks whether anything came, and what was lost.
    fn look(&mut self) -> Liveness {
        let now = runtime::now();
        let stats = self.connection.stats();
        self.keys.look(|| {
            // RFC 9001 §6: the other side follows.
            self.connection.force_key_update();
            true
        });
        if stats.udp_rx.datagrams != self.datagrams {
            self.datagrams = stats.udp_rx.datagrams;
            self.heard = now;
            self.unheard = None;
        }
        self.say_mtu();
        // One at a time; one that is lost is forgotten when a later ping is answered.
        let asks = self.pings.iter().any(|sent| sent.large);
        if now >= self.large_at && stats.path.current_mtu > LEAST_MTU && !asks {
            self.ping_large();
        }
        let pulse = &mut self.pulse;
        pulse.detector.handle_heard(self.heard);
        let (sent, lost) = (stats.path.sent_packets, stats.path.lost_packets);
        pulse.estimator.handle_counts(now, sent, lost);
        let octets = stats.udp_tx.bytes.saturating_sub(stats.path.lost_bytes);
        if let Some(rate) = self.carried.rate(now, octets) {
            let waits = is_full(rate, stats.path.rtt, stats.path.cwnd);
            pulse.carried(now, &self.link.state, (rate, waits));
        }
        self.link.state.set_own_loss(pulse.estimator.own_loss());
        let turned = self.link.state.take_turn();
        pulse.measured(self.ground, self.link, turned);
        // The other side's QUIC acknowledges at once, whatever else its process does.
        if let (Some(since), Some(patience)) = (self.unheard, pulse.patience(self.ground.interval))
            && now.since(since) > patience
        {
            pulse.doubt(self.ground, self.link);
        }
        if pulse.detector.poll_timeout() > now {
            return Liveness::Alive;
        }
        let stalls = pulse.detector.stalls();
        let liveness = pulse.detector.handle_timeout(now);
        let new = pulse.detector.stalls() - stalls;
        self.ground.sink.metrics.stalls.inc_by(new);
        liveness
    }

    fn ping(&mut self) {
        let number = self.number_next(false);
        self.unheard = self.unheard.or(Some(runtime::now()));
        self.say(Kind::Ping, number);
    }

    /// Pings with as much as there may be in a datagram; with what follows a ping nothing is said.
    fn ping_large(&mut self) {
        let Some(size) = self.connection.max_datagram_size() else {
            return;
        };
        let number = self.number_next(true);
        let mut octets = BytesMut::from(self.word(Kind::Ping, number).octets());
        octets.resize(size.max(octets.len()), 0);
        // See below; or the path has just become smaller.
        let _ = self.connection.send_datagram(octets.freeze());
    }

    fn number_next(&mut self, large: bool) -> u64 {
        self.number += 1;
        if self.pings.len() == PINGS {
            self.pings.pop_front();
        }
        let (number, at) = (self.number, runtime::now());
        self.pings.push_back(Sent { number, at, large });
        number
    }

    /// Has the link carry packets as large as the path takes, and tells the hub if that is news.
    fn say_mtu(&mut self) {
        let takes = self.link.outlet.is_some();
        let mtu = packets::mtu(self.connection).filter(|_| takes);
        self.link.state.set_mtu(mtu);
        if self.mtu != mtu {
            let link = self.link.id;
            // Full: it is news again at the next look.
            if self.ground.notes.try_send(Note::Mtu { link, mtu }).is_ok() {
                self.mtu = mtu;
            }
        }
    }

    fn say(&self, kind: Kind, number: u64) {
        let octets = self.word(kind, number).octets();
        // It fails only if the connection is gone, which is seen elsewhere.
        let _ = self.connection.send_datagram(octets);
    }

    fn word(&self, kind: Kind, number: u64) -> Word {
        let state = &self.link.state;
        let (loss, load) = (state.own_loss(), state.own_load());
        Word {
            kind,
            number,
            loss,
            load,
        }
    }
}

/// How many octets were sent and not lost until then.
#[derive(Debug)]
struct Carried {
    at: Instant,
    octets: u64,
}

impl Carried {
    /// Octets a second since this was known last; `None`: that was just now.
    fn rate(&mut self, now: Instant, octets: u64) -> Option<u64> {
        let passed = now.since(self.at);
        if passed < LEAST {
            return None;
        }
        let before = std::mem::replace(self, Carried { at: now, octets });
        Some(per_second(octets.saturating_sub(before.octets), passed))
    }
}

/// Octets a second.
fn per_second(octets: u64, passed: Duration) -> u64 {
    let us = u64::try_from(passed.as_micros()).unwrap_or(u64::MAX);
    octets.saturating_mul(1_000_000) / us.max(1)
}

/// Is the window full at this rate, so that what is to be sent waits for the network? BBR has it twice
/// as large as what fills the line: half full means that nothing waits, or that nobody wants more.
fn is_full(rate: u64, rtt: Duration, window: u64) -> bool {
    let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
    let in_flight = rate.saturating_mul(us) / 1_000_000;
    in_flight > window / 5 * 4
}

/// Takes the streams that the other side opens.
async fn accept(ground: Ground, link: Arc<Link>, opener: Opener) {
    let mut taken = 0_u32;
    while let Ok(stream) = opener.connection.accept_bi().await {
        taken = taken.saturating_add(1);
        if taken == STREAMS / 2 {
            let most = VarInt::from_u32(MAX_STREAMS);
            opener.connection.set_max_concurrent_bi_streams(most);
        }
        let (sink, link) = (Arc::clone(&ground.sink), Arc::clone(&link));
        let ebb = opener.ebb.clone();
        ground.tasks.spawn_local("tunnel-quic-stream", async move {
            let hearing = tokio::time::timeout(HEAD, Asked::hear(stream, ebb));
            // One that breaks or says nothing is gone.
            let Ok(Ok(heard)) = hearing.await else { return };
            let source = Source {
                peer: &link.peer,
                link: link.id,
                role: Role::Quic,
                packets: None,
            };
            match heard {
                Ok((head, asked)) => {
                    let asked = incoming::Asked::Quic(asked);
                    sink.deliver(&source, &link.state, head, asked);
                }
                Err(_) => sink.refused(&link.peer, "malformed"),
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_heard_as_it_was_said_with_a_load_or_without() {
        let word = Word {
            kind: Kind::Pong,
            number: 7,
            loss: Loss(300),
            load: Load::of(90),
        };
        let octets = word.octets();
        assert_eq!(octets[..], [1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 44, 90]);
        let heard = |octets: &[u8]| {
            let word = Word::read(octets)?;
            Some((word.number, word.loss, word.load))
        };
        assert_eq!(heard(&octets), Some((7, Loss(300), Load::of(90))));
        assert_eq!(heard(&octets[..11]), Some((7, Loss(300), Load::of(0))));
        let later = [&octets[..], &[1, 2, 3]].concat();
        assert_eq!(heard(&later), heard(&octets));
        assert_eq!(heard(&octets[..10]), None);
    }

    #[test]
    fn a_ping_right_after_a_look_is_no_rate() {
        let at = |us| Instant::ZERO + Duration::from_micros(us);
        let mut carried = Carried {
            at: at(0),
            octets: 0,
        };
        assert_eq!(carried.rate(at(300_000), 300), Some(1000));
        assert_eq!(carried.rate(at(300_010), 400), None);
        assert_eq!(carried.rate(at(400_000), 500), Some(2000));
    }

    #[test]
    fn a_window_that_is_full_is_one_on_a_line_with_a_queue() {
        let ms = Duration::from_millis;
        // BBR has two round trips of what it sees in its window.
        let rate = per_second(375_000, ms(300));
        assert_eq!(rate, 1_250_000);
        let window = rate * 40 * 2 / 1000;
        assert!(!is_full(rate, ms(40), window), "nobody wants more");
        assert!(is_full(rate, ms(75), window), "it waits in a queue");
        assert!(!is_full(rate / 10, ms(75), window));
        assert!(!is_full(0, ms(40), 0));
        assert_eq!(per_second(9, Duration::ZERO), 9_000_000);
    }
}
